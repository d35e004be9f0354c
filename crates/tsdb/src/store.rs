//! What the database and its jobs share.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use chronolith_env::Env;
use chronolith_head::{ExtraSection, Head, Snapshots};
use chronolith_model::Timestamp;
use chronolith_storage::MemoryBudget;
use chronolith_wal::Wal;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    blocks::BlockSet,
    losses::Losses,
    mark::Mark,
    metadata::MetadataStore,
    options::{DbOptions, to_millis},
};

/// A clock that is less ahead of the newest sample is taken for right, in milliseconds.
const CLOCK_AHEAD_MS: i64 = 3_600_000;

/// What the database and its jobs share.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) env: Env,
    pub(crate) options: DbOptions,
    /// The data directory.
    pub(crate) dir: PathBuf,
    pub(crate) head: Arc<Head>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) blocks: Arc<BlockSet>,
    pub(crate) snapshots: Snapshots,
    pub(crate) losses: Arc<Losses>,
    pub(crate) metadata: Arc<MetadataStore>,
    /// The mark as it should be on disk. Locked after a change of the blocks has begun, if at all.
    pub(crate) mark: Mutex<Mark>,
    /// The mark on disk is an older one.
    mark_stale: AtomicBool,
    /// Work that is under way is to end.
    pub(crate) stopping: AtomicBool,
    /// The log had samples that are too old by the clock of the start.
    hidden: bool,
    /// The head is to be cut up to here.
    pub(crate) wanted_cut: Mutex<Option<Timestamp>>,
    /// There is so little room on the device that nothing is taken.
    disk_short: AtomicBool,
    /// Held while blocks are merged, or must not be. Locked before a change of the blocks begins.
    pub(crate) merging: Mutex<()>,
    /// So many wait for a merge to end.
    interrupting: AtomicUsize,
    /// What imports and merges take their memory out of, if that is limited.
    memory: OnceLock<MemoryBudget>,
    pub(crate) counters: Counters,
}

/// What the jobs count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) cuts: AtomicU64,
    pub(crate) cuts_failed: AtomicU64,
    pub(crate) cuts_pressed: AtomicU64,
    pub(crate) blocks_cut: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) compactions_failed: AtomicU64,
    pub(crate) frames_copied: AtomicU64,
    pub(crate) frames_encoded: AtomicU64,
    pub(crate) blocks_dropped: AtomicU64,
    pub(crate) snapshots: AtomicU64,
}

/// What cuts, compactions and retention have done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobStats {
    /// Cuts that came to their end.
    pub cuts: u64,
    /// Attempts at a cut that failed; they are repeated.
    pub cuts_failed: u64,
    /// Cuts made early, for want of memory.
    pub cuts_pressed: u64,
    /// Blocks that cuts wrote.
    pub blocks_cut: u64,
    /// Compactions that came to their end.
    pub compactions: u64,
    /// Compactions that failed.
    pub compactions_failed: u64,
    /// Frames that compactions took over byte for byte.
    pub frames_copied: u64,
    /// Frames that they encoded anew.
    pub frames_encoded: u64,
    /// Blocks dropped by retention.
    pub blocks_dropped: u64,
    /// Snapshots of the head.
    pub snapshots: u64,
    /// Whether writes are refused because the device is nearly full.
    pub disk_short: bool,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Store {
    pub(crate) fn new(
        env: &Env,
        options: DbOptions,
        dir: PathBuf,
        (head, wal): (Arc<Head>, Arc<Wal>),
        (blocks, snapshots, losses, metadata): (Arc<BlockSet>, Snapshots, Losses, MetadataStore),
        mark: Mark,
        hidden: bool,
    ) -> Self {
        Self {
            env: env.clone(),
            options,
            dir,
            head,
            wal,
            blocks,
            snapshots,
            losses: Arc::new(losses),
            metadata: Arc::new(metadata),
            mark: Mutex::new(mark),
            mark_stale: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            hidden,
            wanted_cut: Mutex::new(None),
            disk_short: AtomicBool::new(false),
            merging: Mutex::new(()),
            interrupting: AtomicUsize::new(0),
            memory: OnceLock::new(),
            counters: Counters::default(),
        }
    }

    /// What imports and merges take their memory out of.
    pub(crate) fn memory(&self) -> MemoryBudget {
        self.memory.get().cloned().unwrap_or_else(MemoryBudget::unlimited)
    }

    /// Limits that, unless it is limited already.
    pub(crate) fn share_memory(&self, memory: &MemoryBudget) {
        self.memory.get_or_init(|| memory.clone());
    }

    /// What snapshots of the head carry besides what the head knows.
    pub(crate) fn extras(&self) -> Vec<ExtraSection> {
        let mut sections = self.metadata.sections();
        sections.extend(self.losses.section());
        sections
    }

    /// Whether the jobs are to end.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether a merge is to be given up.
    pub(crate) fn merge_is_unwanted(&self) -> bool {
        self.stopping() || self.interrupting.load(Ordering::Acquire) > 0
    }

    /// Ends a merge that is under way; there is none while the result lives.
    pub(crate) fn without_merges(&self) -> MutexGuard<'_, ()> {
        self.interrupting.fetch_add(1, Ordering::AcqRel);
        let guard = self.merging.lock();
        self.interrupting.fetch_sub(1, Ordering::AcqRel);
        guard
    }

    /// Makes `mark` the mark, on disk too if that is possible now.
    pub(crate) fn set_mark(&self, mark: Mark) -> chronolith_env::Result<()> {
        let mut known = self.mark.lock();
        *known = mark;
        let stored = known.store(&*self.env.fs, &self.dir);
        self.mark_stale.store(stored.is_err(), Ordering::Release);
        stored
    }

    /// Makes `mark` the mark once it is on disk, and not at all if that is not possible now.
    pub(crate) fn try_mark(&self, mark: Mark) -> chronolith_env::Result<()> {
        let mut known = self.mark.lock();
        let stored = mark.store(&*self.env.fs, &self.dir);
        // It may have got its name without that being durable.
        self.mark_stale.store(stored.is_err(), Ordering::Release);
        stored?;
        *known = mark;
        Ok(())
    }

    /// Whether the mark on disk may be an older one.
    pub(crate) fn mark_is_stale(&self) -> bool {
        self.mark_stale.load(Ordering::Acquire)
    }

    /// Writes the mark again if that has failed.
    pub(crate) fn mend_mark(&self) {
        if !self.mark_stale.load(Ordering::Acquire) {
            return;
        }
        let known = self.mark.lock();
        match known.store(&*self.env.fs, &self.dir) {
            Ok(()) => self.mark_stale.store(false, Ordering::Release),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot write the mark of the last cut"
                );
            }
        }
    }

    /// Whether the clock is so far ahead of what is stored that the head may have dropped what is not too old. Nothing is
    /// made final then: a clock that is wrong hides samples, but destroys none.
    pub(crate) fn clock_is_ahead(&self) -> bool {
        let by_clock = self.head.floor();
        let lost = || self.hidden || self.head.times().is_none() || self.head.stats().samples_dropped > 0;
        by_clock.saturating_sub(self.head.log_floor()) > CLOCK_AHEAD_MS && lost()
    }

    /// What is older has outlived the retention, milliseconds: by the newest sample, if the clock is ahead of it.
    pub(crate) fn floor_for_good(&self) -> Timestamp {
        let newest = self.blocks.version().newest().max(self.head.times().map(|times| times.max));
        let age = to_millis(self.options.retention);
        self.head.floor().min(newest.map_or(Timestamp::MIN, |newest| newest.saturating_sub(age)))
    }

    /// Bytes that may still be written before the reserve is touched; `None` where nobody can tell.
    pub(crate) fn room(&self) -> Option<u64> {
        let free = self.env.fs.free_bytes(&self.dir).ok().flatten()?;
        Some(free.saturating_sub(self.options.disk_reserve))
    }

    /// Looks whether the device is nearly full.
    pub(crate) fn watch_disk(&self) {
        if self.options.disk_reserve == 0 {
            return;
        }
        let free = match self.env.fs.free_bytes(&self.dir) {
            Ok(free) => free.unwrap_or(u64::MAX),
            Err(error) => {
                // Nothing is known: what was known before holds.
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot look for room on the disk");
                return;
            }
        };
        let short = free <= self.options.disk_reserve;
        if self.disk_short.swap(short, Ordering::AcqRel) != short {
            if short {
                tracing::error!(
                    free,
                    reserve = self.options.disk_reserve,
                    "the disk is nearly full: {} MiB are free, storage.disk_reserve is {} MiB: writes are refused",
                    free >> 20,
                    self.options.disk_reserve >> 20
                );
            } else {
                tracing::info!("there is room on the disk again: writes are taken");
            }
        }
    }

    /// Whether writes are to be refused because the device is nearly full.
    pub(crate) fn disk_short(&self) -> bool {
        self.disk_short.load(Ordering::Acquire)
    }

    pub(crate) fn job_stats(&self) -> JobStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        JobStats {
            cuts: get(&counters.cuts),
            cuts_failed: get(&counters.cuts_failed),
            cuts_pressed: get(&counters.cuts_pressed),
            blocks_cut: get(&counters.blocks_cut),
            compactions: get(&counters.compactions),
            compactions_failed: get(&counters.compactions_failed),
            frames_copied: get(&counters.frames_copied),
            frames_encoded: get(&counters.frames_encoded),
            blocks_dropped: get(&counters.blocks_dropped),
            snapshots: get(&counters.snapshots),
            disk_short: self.disk_short(),
        }
    }
}
