//! Opening and closing.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chronolith_env::{Env, JobHandle};
use chronolith_head::{Head, SnapshotDamage};
use chronolith_model::Timestamp;
use chronolith_storage::MemoryBudget;
use chronolith_wal::{CommitWaiter, Damage, TornTail, Wal};
use parking_lot::Mutex;

use crate::{
    blocks::{BlockSet, BlocksReport},
    compaction::Compaction,
    dir::DataDir,
    error::{Error, Result},
    maintenance::Maintenance,
    metadata::MetadataStore,
    opened::Opened,
    options::DbOptions,
    store::Store,
};

/// A database. Dropping it closes it; [`Db::close`] also says whether that went well.
#[derive(Debug)]
pub struct Db {
    pub(crate) options: DbOptions,
    pub(crate) store: Arc<Store>,
    pub(crate) head: Arc<Head>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) blocks: Arc<BlockSet>,
    pub(crate) waiter: CommitWaiter,
    pub(crate) metadata: Arc<MetadataStore>,
    pub(crate) maintenance: Box<dyn JobHandle>,
    compaction: Box<dyn JobHandle>,
    pub(crate) report: OpenReport,
    dir: PathBuf,
    lock: Mutex<Option<DataDir>>,
    closed: AtomicBool,
}

/// What a start found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// Log segments read.
    pub segments: usize,
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Samples in memory again, from the snapshot and the log.
    pub samples: u64,
    /// Samples read that were too old by now or there already.
    pub samples_skipped: u64,
    /// Samples read whose series is unknown because its definition is damaged.
    pub samples_orphaned: u64,
    /// Series in memory again.
    pub series: u64,
    /// Definitions read that name no valid series.
    pub invalid_definitions: u64,
    /// How long it took.
    pub duration: Duration,
    /// Samples of the snapshot, part of `samples`.
    pub samples_in_snapshot: u64,
    /// Damaged places in the snapshots and chunk files of the head, the first of them.
    pub snapshot_damage: Vec<SnapshotDamage>,
    /// How many there are.
    pub snapshot_damage_count: u64,
    /// The blocks.
    pub blocks: BlocksReport,
    /// The mark of the last cut was damaged, and set aside as `cut.damaged`: deletions since that cut may be undone.
    pub mark_damaged: bool,
    /// The unfinished end of the log that was cut off; nothing of it had been acknowledged.
    pub torn_tail: Option<TornTail>,
    /// Damaged places in the log, the first of them.
    pub damage: Vec<Damage>,
    /// How many damaged places there are.
    pub damage_count: u64,
}

impl Db {
    /// Opens the data directory `dir`, made if need be: its blocks, the last snapshot of its head, and what the log has
    /// beyond them.
    ///
    /// # Errors
    /// When the directory is locked, of another version, something else or not writable. Damage is no error: what is
    /// damaged is set aside, and the report lists it.
    pub fn open(dir: &Path, options: DbOptions, env: Env) -> Result<(Self, OpenReport)> {
        let Opened { data_dir, store, report, snapshot_bytes } =
            Opened::open(DataDir::open(&env, dir)?, options, options.head(), &env)?;
        store.watch_disk();
        let maintenance = Maintenance::new(Arc::clone(&store), report.bytes, snapshot_bytes);
        let maintenance = env.scheduler.spawn("maintenance", Box::new(maintenance)).map_err(Error::Spawn)?;
        let compaction = Compaction::new(Arc::clone(&store));
        let compaction =
            env.scheduler.spawn_yielding("compaction", Box::new(compaction)).map_err(Error::Spawn)?;
        let db = Self {
            options,
            head: Arc::clone(&store.head),
            waiter: store.wal.waiter(),
            wal: Arc::clone(&store.wal),
            blocks: Arc::clone(&store.blocks),
            metadata: Arc::clone(&store.metadata),
            dir: store.dir.clone(),
            store,
            maintenance,
            compaction,
            report: report.clone(),
            lock: Mutex::new(Some(data_dir)),
            closed: AtomicBool::new(false),
        };
        Ok((db, report))
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lets imports and merges take their memory out of `memory` from now on, beside what is reserved there for the head:
    /// what does not fit is refused, or tried again later. The first call counts; without one there is no limit.
    pub fn share_memory(&self, memory: &MemoryBudget) {
        self.store.share_memory(memory);
    }

    /// Asks for a cut of all that the head has now, up to `boundary` at most (milliseconds). It is made in the background;
    /// [`DbStats::jobs`](crate::DbStats::jobs) counts it. Samples that are not newer are late from then on.
    pub fn request_cut(&self, boundary: Timestamp) {
        let Some(times) = self.head.times() else { return };
        let boundary = boundary.min(times.max);
        let mut wanted = self.store.wanted_cut.lock();
        *wanted = wanted.max(Some(boundary));
        drop(wanted);
        self.maintenance.waker().wake();
    }

    /// Refuses further appends, makes what is pending durable, writes a snapshot of the head and releases the directory.
    /// Queries still work.
    ///
    /// # Errors
    /// When what was pending could not be made durable; the directory is released all the same.
    pub fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.head.close();
        self.store.stopping.store(true, Ordering::Release);
        // Whoever is showing blocks comes to an end.
        drop(self.blocks.change());
        self.compaction.stop();
        self.maintenance.stop();
        let written = self.wal.close();
        *self.lock.lock() = None;
        Ok(written?)
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(error = &error as &dyn std::error::Error, "closing the database");
        }
    }
}

#[cfg(test)]
mod tests;
