//! A running log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use chronolith_env::{Env, JobHandle, Wake};
use parking_lot::{Condvar, Mutex};

use crate::metadata::{LoggedMetadata, MetadataColumn};
use crate::open::Opened;
use crate::segment::{self, SegmentInfo};
use crate::shard_log::FOUND_BATCH;
use crate::{Batch, CommitError, Result, WalOptions, WalStats};

/// A running log. Dropping it closes it.
#[derive(Debug)]
pub struct Wal {
    pub(crate) shared: Arc<Shared>,
    pub(crate) job: Box<dyn JobHandle>,
}

/// Why segments go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Covered {
    /// Nobody wants what is in them.
    TooOld,
    /// What could be read of them is elsewhere.
    Elsewhere,
}

/// Waits for batches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CommitWaiter {
    shared: Arc<Shared>,
}

/// What the committer, the waiters and the keepers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) dir: PathBuf,
    pub(crate) options: WalOptions,
    pub(crate) stats: WalStats,
    /// The last durable batch: may be read without the lock.
    pub(crate) durable: AtomicU64,
    /// Someone waits for what is pending.
    pub(crate) requested: AtomicBool,
    /// Writing has failed and not succeeded since: may be read without the lock.
    pub(crate) failing: AtomicBool,
    pub(crate) progress: Mutex<Progress>,
    pub(crate) progressed: Condvar,
    pub(crate) floors: Mutex<PendingFloors>,
    pub(crate) segments: Mutex<Vec<SegmentInfo>>,
    /// Everything found on opening has a number up to this, everything written since a higher one.
    pub(crate) found_sequence: AtomicU64,
    pub(crate) waker: OnceLock<Arc<dyn Wake>>,
}

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) durable: u64,
    pub(crate) failure: Option<Arc<chronolith_env::Error>>,
    pub(crate) closed: bool,
    pub(crate) died: bool,
}

impl Progress {
    /// Nothing will become durable any more.
    fn ended(&self) -> Result<(), CommitError> {
        if self.died {
            return Err(CommitError::Died);
        }
        if self.closed { Err(CommitError::Closed) } else { Ok(()) }
    }
}

/// Floors and metadata not yet taken by the committer. One floor per tenant is pending at most: a higher one replaces a lower one.
#[derive(Debug)]
pub(crate) struct PendingFloors {
    pub(crate) batch: u64,
    pub(crate) floors: Vec<(Option<String>, i64)>,
    pub(crate) metadata: MetadataColumn,
}

impl Wal {
    /// Opens the log in `dir`, which is created if need be: lists its segments, cuts off an unfinished end and writes
    /// again what an earlier process may have left in the system's memory only. If that fails, the log opens all the
    /// same, shows everything and acknowledges nothing until it has succeeded.
    ///
    /// # Errors
    /// [`crate::Error::ForeignVersion`], and when the directory cannot be read or written. Damage is no error.
    pub fn open(env: &Env, dir: &Path, options: WalOptions) -> Result<Opened> {
        crate::open::open(env, dir, options)
    }

    /// Whether new samples may be applied. To be asked before a request is: while writing fails, nothing is accepted
    /// that could not be acknowledged.
    ///
    /// # Errors
    /// [`CommitError`]: try again later.
    pub fn admit(&self) -> Result<(), CommitError> {
        self.shared.admit()
    }

    /// Someone to wait for batches with.
    #[must_use]
    pub fn waiter(&self) -> CommitWaiter {
        CommitWaiter { shared: Arc::clone(&self.shared) }
    }

    /// Waits until `batch` is durable; see [`CommitWaiter::wait`].
    ///
    /// # Errors
    /// See [`CommitWaiter::wait`].
    pub fn wait(&self, batch: Batch) -> Result<(), CommitError> {
        self.shared.wait(batch)
    }

    /// Logs that samples of `tenant`, or of all, older than `min_t` (ms) are dropped, so that a replay drops them too.
    /// The batch returned covers it.
    pub fn log_floor(&self, tenant: Option<&str>, min_t: i64) -> Batch {
        self.shared.log_floor(tenant, min_t)
    }

    /// Logs metadata of metrics, and asks for a commit. Of what is logged twice the later counts. The batch returned
    /// covers it; `None` if there was no room for all of it ([`crate::METADATA_PENDING_BYTES_MAX`]).
    pub fn log_metadata(&self, entries: &[LoggedMetadata<'_>]) -> Option<Batch> {
        self.shared.log_metadata(entries)
    }

    /// The segments, oldest first; the last one may be in use.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments.lock().clone()
    }

    /// Deletes the oldest segments as long as all their samples are older than `floor` (ms) and no later segment needs
    /// them; never the one in use. Returns how many.
    ///
    /// # Errors
    /// When a file cannot be deleted; those before it are.
    pub fn drop_older_than(&self, floor: i64) -> Result<usize> {
        self.drop_prefix(Covered::TooOld, |info| info.times.is_none_or(|(_, max_t)| max_t < floor))
    }

    /// Deletes the segments numbered below `number`, as far as no later one needs them; never the one in use. Returns how
    /// many.
    ///
    /// # Errors
    /// When a file cannot be deleted; those before it are.
    pub fn drop_segments_before(&self, number: u32) -> Result<usize> {
        self.drop_prefix(Covered::TooOld, |info| info.number < number)
    }

    /// Deletes the oldest segments as long as no record in them has a number above `sequence` and no later segment needs
    /// them; never the one in use. To be called when everything up to `sequence`, of all shards, is durable elsewhere.
    /// One with a place that could not be read is moved to the directory `quarantine` instead: what the device refuses
    /// today, it may give tomorrow. Returns how many.
    ///
    /// # Errors
    /// When a file cannot be deleted; those before it are.
    pub fn delete_covered(&self, sequence: u64) -> Result<usize> {
        self.drop_prefix(Covered::Elsewhere, |info| info.last_sequence <= sequence)
    }

    fn drop_prefix(&self, by: Covered, old: impl Fn(&SegmentInfo) -> bool) -> Result<usize> {
        let mut segments = self.shared.segments.lock();
        // The last one may be in use, and the next segment's header refers to it.
        let mut count =
            segments.iter().take(segments.len().saturating_sub(1)).take_while(|info| old(info)).count();
        while segments.get(count).is_some_and(|next| next.continues) && count > 0 {
            count -= 1;
        }
        if let Some(kept) = segments.get(count).filter(|_| count > 0) {
            self.remove_void(&segments, kept.number)?;
        }
        for dropped in 0..count {
            let Some(info) = segments.first().copied() else { return Ok(dropped) };
            let fs = &self.shared.env.fs;
            let path = segment::path(&self.shared.dir, info.number);
            let gone = match by {
                Covered::Elsewhere if !info.whole => {
                    crate::quarantine::move_segment(fs.as_ref(), &self.shared.dir, &path)
                }
                _ => fs.remove_file(&path),
            };
            match gone {
                Err(e) if !e.is_not_found() => return Err(e.into()),
                _ => {}
            }
            // One by one, so that a crash leaves no gap.
            fs.sync_dir(&self.shared.dir)?;
            segments.remove(0);
        }
        Ok(count)
    }

    /// Removes what failed attempts at a segment before `number` have left and could not remove then: it is known to be
    /// void as long as the segment before and the one behind it are there.
    fn remove_void(&self, segments: &[SegmentInfo], number: u32) -> Result<()> {
        let (fs, dir) = (&self.shared.env.fs, &self.shared.dir);
        let numbers = fs.list(dir)?.into_iter().filter_map(|name| segment::number(&name));
        let is_void = |other: &u32| *other < number && segments.iter().all(|info| info.number != *other);
        let void: Vec<u32> = numbers.filter(is_void).collect();
        for number in &void {
            fs.remove_file(&segment::path(dir, *number))?;
        }
        if !void.is_empty() {
            fs.sync_dir(dir)?;
        }
        Ok(())
    }

    /// What the log counts about itself.
    #[must_use]
    pub fn stats(&self) -> &WalStats {
        &self.shared.stats
    }

    /// Writes and syncs what is pending and ends the committer. Further waits fail; no shard may append any more.
    ///
    /// # Errors
    /// When what was pending could not be made durable.
    pub fn close(&self) -> Result<(), CommitError> {
        self.job.stop();
        let progress = self.shared.progress.lock();
        if progress.died {
            return Err(CommitError::Died);
        }
        match &progress.failure {
            Some(source) => Err(CommitError::Failed { source: Arc::clone(source) }),
            None => Ok(()),
        }
    }
}

impl CommitWaiter {
    /// Waits until `batch` is durable (see [`crate::SyncPolicy`]), at most [`WalOptions::commit_timeout`]. Nothing that
    /// the batch covers may be acknowledged before this has returned `Ok`.
    ///
    /// # Errors
    /// [`CommitError`]. The batch may become durable later all the same.
    pub fn wait(&self, batch: Batch) -> Result<(), CommitError> {
        self.shared.wait(batch)
    }

    /// Whether `batch` is durable; asks for a commit if not. Never blocks.
    ///
    /// # Errors
    /// [`CommitError::Closed`] or [`CommitError::Died`] if it never will be.
    pub fn poll(&self, batch: Batch) -> Result<bool, CommitError> {
        self.shared.poll(batch)
    }

    /// Everything found on opening, and so replayed, has a number up to this; what was written since has a higher one.
    /// See [`crate::ShardLog::sequence`] for the latter.
    #[must_use]
    pub fn found_sequence(&self) -> u64 {
        self.shared.found_sequence.load(Ordering::Acquire)
    }

    /// See [`Wal::admit`].
    ///
    /// # Errors
    /// See [`Wal::admit`].
    pub fn admit(&self) -> Result<(), CommitError> {
        self.shared.admit()
    }
}

impl Shared {
    pub(crate) fn new(env: Env, dir: PathBuf, options: WalOptions) -> Self {
        Self {
            env,
            dir,
            options,
            stats: WalStats::default(),
            durable: AtomicU64::new(FOUND_BATCH),
            requested: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            progress: Mutex::new(Progress {
                durable: FOUND_BATCH,
                failure: None,
                closed: false,
                died: false,
            }),
            progressed: Condvar::new(),
            floors: Mutex::new(PendingFloors {
                batch: FOUND_BATCH + 1,
                floors: Vec::new(),
                metadata: MetadataColumn::default(),
            }),
            segments: Mutex::new(Vec::new()),
            found_sequence: AtomicU64::new(0),
            waker: OnceLock::new(),
        }
    }

    /// What was found on opening is not durable yet, because of `failure`.
    pub(crate) fn hold_back(&self, failure: chronolith_env::Error) {
        let mut progress = self.progress.lock();
        progress.durable = FOUND_BATCH - 1;
        progress.failure = Some(Arc::new(failure));
        self.durable.store(FOUND_BATCH - 1, Ordering::Release);
        self.failing.store(true, Ordering::Release);
    }

    fn admit(&self) -> Result<(), CommitError> {
        if !self.failing.load(Ordering::Acquire) {
            return Ok(());
        }
        let progress = self.progress.lock();
        progress.ended()?;
        match &progress.failure {
            Some(source) => Err(CommitError::Failed { source: Arc::clone(source) }),
            None => Ok(()),
        }
    }

    fn wait(&self, batch: Batch) -> Result<(), CommitError> {
        if self.durable.load(Ordering::Acquire) >= batch.0 {
            return Ok(());
        }
        self.request();
        let timeout = self.options.commit_timeout;
        let deadline = Instant::now() + timeout;
        let mut progress = self.progress.lock();
        loop {
            if progress.durable >= batch.0 {
                return Ok(());
            }
            progress.ended()?;
            if self.progressed.wait_until(&mut progress, deadline).timed_out() && progress.durable < batch.0 {
                return Err(progress
                    .failure
                    .as_ref()
                    .map_or(CommitError::TimedOut { waited: timeout }, |source| CommitError::Failed {
                        source: Arc::clone(source),
                    }));
            }
        }
    }

    fn poll(&self, batch: Batch) -> Result<bool, CommitError> {
        if self.durable.load(Ordering::Acquire) >= batch.0 {
            return Ok(true);
        }
        self.progress.lock().ended()?;
        self.request();
        Ok(false)
    }

    /// Wakes the committer unless someone already has since it last looked.
    pub(crate) fn request(&self) {
        if !self.requested.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    fn log_metadata(&self, entries: &[LoggedMetadata<'_>]) -> Option<Batch> {
        let mut pending = self.floors.lock();
        let taken = entries.iter().take_while(|entry| pending.metadata.push(entry)).count();
        let batch = Batch(pending.batch);
        drop(pending);
        self.request();
        (taken == entries.len()).then_some(batch)
    }

    fn log_floor(&self, tenant: Option<&str>, min_t: i64) -> Batch {
        let mut pending = self.floors.lock();
        match pending.floors.iter_mut().find(|(of, _)| of.as_deref() == tenant) {
            Some((_, floor)) => *floor = min_t.max(*floor),
            None => pending.floors.push((tenant.map(str::to_owned), min_t)),
        }
        Batch(pending.batch)
    }
}
