//! The committer: group commit, segment rolls, recovery from failures.
//!
//! One turn: take the pending logs of all shards, write them as one batch, sync, release the waiters. A batch is kept
//! until it is durable. When creating, writing or syncing fails, the file concerned is never written again: what it holds
//! beyond the last durable batch is void, and the batch is written to a new segment, again and again until that succeeds.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chronolith_env::{File, Job, OpenMode, Result, Step};

use crate::frame::{Framed, Framer};
use crate::metadata::MetadataColumn;
use crate::record::{Header, Seal};
use crate::repair::Repair;
use crate::segment::{self, FORMAT_VERSION, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::shard_log::{FOUND_BATCH, LogSource, ShardLog, Turn};
use crate::wal::Shared;
use crate::{SegmentInfo, SyncPolicy, WalStats};

/// A buffer of metadata larger than this is given back.
const METADATA_SPARE_BYTES_MAX: usize = 64 * 1024;

/// Takes the pending logs of all shards and makes them durable, batch by batch. A job of the environment's scheduler.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    source: Arc<dyn LogSource>,
    batch: InFlight,
    /// The epoch that shards log under now.
    epoch: u32,
    segment: Option<Current>,
    /// What was found on opening and could not be made durable then: comes before any batch.
    repair: Option<Repair>,
    /// The segment with the last durable batch, and where that ends.
    last: Option<LastSegment>,
    next_number: u32,
    next_seq: u64,
    framer: Framer,
    /// Under [`SyncPolicy::Interval`]: bytes have been written since the last sync.
    unsynced: bool,
    /// Definitions that were written may be lost: the next batch is the last one of its epoch.
    redefine: bool,
    last_begin: Option<Duration>,
    last_sync: Duration,
    retry_at: Duration,
    backoff: Duration,
}

/// What was taken last.
struct InFlight {
    number: u64,
    epoch: u32,
    logs: Vec<ShardLog>,
    floors: Vec<(Option<String>, i64)>,
    metadata: MetadataColumn,
    first_seq: Option<u64>,
    /// Not durable yet.
    pending: bool,
}

/// The segment being written.
struct Current {
    file: Box<dyn File>,
    seal: Seal,
    number: u32,
    bytes: u64,
    epoch: u32,
    continues: bool,
    times: Option<(i64, i64)>,
}

/// Where the log ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastSegment {
    pub(crate) number: u32,
    /// Everything durable is before this.
    pub(crate) end: u64,
    /// The epoch its definitions were logged under; `None` for one of an earlier process.
    pub(crate) epoch: Option<u32>,
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer").field("batch", &self.batch.number).finish_non_exhaustive()
    }
}

impl Job for Committer {
    fn step(&mut self, stopping: bool) -> Step {
        let now = self.now();
        if self.batch.pending {
            if !stopping && now < self.retry_at {
                return Step::SleepFor(self.retry_at - now);
            }
            self.attempt();
            if self.batch.pending || !stopping {
                return self.after(stopping);
            }
        }
        if !stopping {
            if !self.shared.requested.load(Ordering::Acquire) {
                return self.idle(now);
            }
            let due = self.last_begin.map_or(now, |begin| begin + self.shared.options.gather);
            if now < due {
                return Step::SleepFor(due - now);
            }
        }
        self.last_begin = Some(now);
        self.take_all();
        self.attempt();
        self.after(stopping)
    }
}

impl Drop for Committer {
    /// A committer that is dropped before it has closed the log has panicked, or was taken from its scheduler: whoever
    /// waits is told at once, and nothing is taken any more.
    fn drop(&mut self) {
        let mut progress = self.shared.progress.lock();
        if progress.closed {
            return;
        }
        progress.closed = true;
        progress.died = true;
        self.shared.failing.store(true, Ordering::Release);
        drop(progress);
        self.shared.stats.died.store(true, Ordering::Relaxed);
        self.shared.progressed.notify_all();
        if std::thread::panicking() {
            let dir = self.shared.dir.display();
            tracing::error!(%dir, "the write-ahead log's writer has panicked; writes are refused until a restart");
        }
    }
}

impl Committer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        source: Arc<dyn LogSource>,
        next_number: u32,
        last: Option<LastSegment>,
        repair: Option<Repair>,
    ) -> Self {
        let mut logs = Vec::new();
        logs.resize_with(shared.options.shards, ShardLog::new);
        let now = shared.env.clock.monotonic();
        let backoff = shared.options.retry_min;
        let batch = InFlight {
            number: FOUND_BATCH,
            epoch: 1,
            logs,
            floors: Vec::new(),
            metadata: MetadataColumn::default(),
            first_seq: None,
            pending: repair.is_some(),
        };
        Self {
            shared,
            source,
            batch,
            epoch: 1,
            segment: None,
            repair,
            last,
            next_number,
            // Ascending over restarts, since segment numbers are.
            next_seq: u64::from(next_number) << 32,
            framer: Framer::new(),
            unsynced: false,
            redefine: false,
            last_begin: None,
            last_sync: now,
            retry_at: now,
            backoff,
        }
    }

    fn now(&self) -> Duration {
        self.shared.env.clock.monotonic()
    }

    /// Nobody waits: at most, an interval's sync is due.
    fn idle(&mut self, now: Duration) -> Step {
        let SyncPolicy::Interval(interval) = self.shared.options.sync else { return Step::Park };
        if !self.unsynced {
            return Step::Park;
        }
        let due = self.last_sync + interval;
        if now < due {
            return Step::SleepFor(due - now);
        }
        self.sync_interval();
        Step::Again
    }

    /// What to do after an attempt. The last one of a stopping committer is the last chance of its batch.
    fn after(&mut self, stopping: bool) -> Step {
        if stopping {
            if !self.batch.pending && self.unsynced {
                self.sync_interval();
            }
            self.mark_end();
            self.segment = None;
            let mut progress = self.shared.progress.lock();
            progress.closed = true;
            drop(progress);
            // Appends are refused from here on.
            self.shared.failing.store(true, Ordering::Release);
            self.shared.progressed.notify_all();
            return Step::Done;
        }
        if self.batch.pending {
            Step::SleepFor(self.retry_at.saturating_sub(self.now()))
        } else {
            Step::Again
        }
    }

    /// Takes what is pending in all shards as the next batch.
    fn take_all(&mut self) {
        // Before the first shard is locked: whoever asks from now on may not be in this batch.
        self.shared.requested.store(false, Ordering::Release);
        let full = self.segment.as_ref().is_some_and(|s| s.bytes >= self.shared.options.segment_bytes);
        let turn_over = full || std::mem::take(&mut self.redefine);
        let next_epoch = if turn_over { self.epoch.wrapping_add(1).max(1) } else { self.epoch };
        let batch = &mut self.batch;
        batch.number += 1;
        batch.epoch = self.epoch;
        batch.first_seq = None;
        batch.pending = true;
        self.epoch = next_epoch;
        // The batch before is durable, so all its records have their numbers.
        let sequence = self.next_seq.saturating_sub(1);
        let turn = Turn { batch: batch.number, next_epoch, sequence };
        for (shard, log) in batch.logs.iter_mut().enumerate() {
            self.source.take(shard, turn, log);
            debug_assert_eq!(log.batch(), batch.number, "the source hands over what is pending");
        }
        let mut floors = self.shared.floors.lock();
        floors.batch = batch.number + 1;
        std::mem::swap(&mut floors.floors, &mut batch.floors);
        std::mem::swap(&mut floors.metadata, &mut batch.metadata);
    }

    /// Tries to make the batch durable, and releases its waiters if that succeeds.
    fn attempt(&mut self) {
        match self.write_batch() {
            Ok(()) => self.succeeded(),
            Err(e) => self.failed(e),
        }
    }

    fn succeeded(&mut self) {
        let batch = &mut self.batch;
        batch.pending = false;
        batch.first_seq = None;
        for log in &mut batch.logs {
            log.clear();
        }
        batch.floors.clear();
        batch.metadata.clear(METADATA_SPARE_BYTES_MAX);
        self.backoff = self.shared.options.retry_min;
        let mut progress = self.shared.progress.lock();
        progress.durable = batch.number;
        progress.failure = None;
        // Under the lock, so that a waiter that looks first and sleeps then is not missed.
        self.shared.durable.store(batch.number, Ordering::Release);
        self.shared.failing.store(false, Ordering::Release);
        drop(progress);
        self.shared.progressed.notify_all();
        WalStats::add(&self.shared.stats.batches, 1);
    }

    /// Gives the segment up and plans the next attempt.
    fn failed(&mut self, error: chronolith_env::Error) {
        WalStats::add(&self.shared.stats.failures, 1);
        if let Some(mut current) = self.segment.take() {
            if self.unsynced {
                // Earlier batches were released before their sync: their last chance. What is lost of them must not
                // cost later samples their definitions.
                let _ = current.file.sync_data();
                self.redefine = true;
            }
            let kept = self.last.is_some_and(|last| last.number == current.number);
            drop(current.file);
            if !kept {
                // Nothing durable is in it. If it cannot be removed, the next segment's header says that it is void.
                let _ = self.shared.env.fs.remove_file(&segment::path(&self.shared.dir, current.number));
            }
        }
        self.unsynced = false;
        self.batch.pending = true;
        self.retry_at = self.now() + self.backoff;
        self.backoff = (self.backoff * 2).min(self.shared.options.retry_max);
        let mut progress = self.shared.progress.lock();
        progress.failure = Some(Arc::new(error));
        self.shared.failing.store(true, Ordering::Release);
    }

    fn write_batch(&mut self) -> Result<()> {
        let failing = self.shared.failing.load(Ordering::Acquire);
        let shardless = self.batch.floors.is_empty() && self.batch.metadata.is_empty();
        let empty = shardless && self.batch.logs.iter().all(ShardLog::is_empty);
        let mended = self.mend()?;
        if empty && (!failing || mended) {
            // Everything before is durable, or was released as such: there is nothing to wait for.
            return Ok(());
        }
        self.turn_to_segment()?;
        let Some(current) = self.segment.as_mut() else { return Ok(()) };
        // The same numbers in each attempt.
        let first_seq = *self.batch.first_seq.get_or_insert(self.next_seq);
        // All of the segment is durable: its header before there was a record, its records unless a sync is due.
        let mark = current.bytes > SEGMENT_HEADER_BYTES as u64 && !self.unsynced;
        let file = &mut current.file;
        let framed = self.framer.frame(
            current.seal,
            mark,
            first_seq,
            &self.batch.logs,
            (&self.batch.floors, &self.batch.metadata),
            |bytes| file.write_all(bytes),
        )?;
        self.next_seq = first_seq + framed.records;
        if self.shared.options.sync == SyncPolicy::Always || failing {
            self.sync()?;
        } else if !self.unsynced {
            self.unsynced = true;
            self.last_sync = self.now();
        } else if self.interval_is_over() {
            // Under load nobody is ever idle.
            self.sync()?;
        }
        self.account(&framed);
        Ok(())
    }

    /// Makes durable what opening could not; whether there was something.
    fn mend(&mut self) -> Result<bool> {
        let Some(repair) = &self.repair else { return Ok(false) };
        let is_old = |info: &SegmentInfo| info.number == repair.old_number();
        let old = self.shared.segments.lock().iter().copied().find(is_old);
        let Some(old) = old else {
            // Dropped meanwhile: too old to matter.
            self.repair = None;
            return Ok(true);
        };
        let mended = repair.run(&self.shared.env, &self.shared.dir)?;
        let mut segments = self.shared.segments.lock();
        if repair.replaces {
            segments.retain(|info| !is_old(info));
        } else if let Some(old) = segments.iter_mut().find(|info| is_old(info)) {
            old.bytes = repair.from_end;
        }
        let (number, bytes, times) = (mended.header.number, mended.bytes, old.times);
        let (continues, last_sequence) = (mended.header.continues, old.last_sequence);
        let whole = old.whole;
        segments.push(SegmentInfo { number, bytes, times, continues, last_sequence, whole });
        drop(segments);
        self.last = Some(LastSegment { number, end: bytes, epoch: None });
        self.repair = None;
        Ok(true)
    }

    /// Notes at the end of the segment that all of it is durable, so that the next start has nothing to write again.
    fn mark_end(&mut self) {
        let sure = !self.batch.pending && !self.unsynced;
        let Some(current) = self.segment.as_mut() else { return };
        if !sure || current.bytes <= SEGMENT_HEADER_BYTES as u64 {
            return;
        }
        let mut mark = Vec::new();
        Header::mark(self.next_seq).encode(current.seal, &mut mark);
        // Not synced, and not missed: it only says what is so.
        let _ = current.file.write_all(&mark);
    }

    fn interval_is_over(&self) -> bool {
        let SyncPolicy::Interval(interval) = self.shared.options.sync else { return true };
        self.now() >= self.last_sync + interval
    }

    /// Makes the segment of the batch's epoch the current one.
    fn turn_to_segment(&mut self) -> Result<()> {
        if let Some(current) = &self.segment {
            if current.epoch == self.batch.epoch {
                return Ok(());
            }
            if self.unsynced {
                self.sync()?;
            }
            self.segment = None;
        }
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        let path = segment::path(&self.shared.dir, number);
        match self.create(&path, number) {
            Ok(current) => {
                self.segment = Some(current);
                Ok(())
            }
            Err(e) => {
                // If it is there and stays, the next segment's header says that it is void.
                let _ = self.shared.env.fs.remove_file(&path);
                Err(e)
            }
        }
    }

    /// Creates a segment. Header and name are durable before there is a record: a crash does not leave one without.
    fn create(&mut self, path: &Path, number: u32) -> Result<Current> {
        let env = &self.shared.env;
        let epoch = self.batch.epoch;
        let continues = self.last.is_some_and(|last| last.epoch == Some(epoch));
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            number,
            continues,
            previous: self.last.map_or(0, |last| last.number),
            previous_end: self.last.map_or(0, |last| last.end),
            salt: env.rng.next_u64(),
        };
        let mut file = env.fs.open(path, OpenMode::CreateNew)?;
        let bytes = header.encode();
        file.write_all(&bytes)?;
        file.sync_data()?;
        env.fs.sync_dir(&self.shared.dir)?;
        self.shared.stats.segment.store(u64::from(number), Ordering::Relaxed);
        // Ascending over restarts too, since segment numbers are.
        self.next_seq = self.next_seq.max(u64::from(number) << 32);
        let seal = Seal::new(number, header.salt);
        Ok(Current { file, seal, number, bytes: bytes.len() as u64, epoch, continues, times: None })
    }

    /// Syncs the current segment.
    fn sync(&mut self) -> Result<()> {
        let begin = self.now();
        if let Some(current) = self.segment.as_mut() {
            current.file.sync_data()?;
        }
        self.unsynced = false;
        self.last_sync = self.now();
        self.shared.stats.synced(self.last_sync.saturating_sub(begin));
        Ok(())
    }

    /// The sync of [`SyncPolicy::Interval`], outside of any batch.
    fn sync_interval(&mut self) {
        if let Err(e) = self.sync() {
            // What was written may be gone from the device. It is in no buffer any more: that is this policy's risk.
            self.failed(e);
        }
    }

    /// Notes what the batch has added to the current segment.
    fn account(&mut self, framed: &Framed) {
        let Some(current) = self.segment.as_mut() else { return };
        current.bytes += framed.bytes;
        current.times =
            [current.times, framed.times].into_iter().flatten().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        self.last =
            Some(LastSegment { number: current.number, end: current.bytes, epoch: Some(current.epoch) });
        let info = SegmentInfo {
            number: current.number,
            bytes: current.bytes,
            times: current.times,
            continues: current.continues,
            last_sequence: self.next_seq.saturating_sub(1),
            whole: true,
        };
        let mut segments = self.shared.segments.lock();
        match segments.last_mut().filter(|last| last.number == info.number) {
            Some(last) => *last = info,
            None => segments.push(info),
        }
        let stats = &self.shared.stats;
        WalStats::add(&stats.bytes, framed.bytes);
        WalStats::add(&stats.records, framed.records);
        WalStats::add(&stats.samples, framed.samples);
        WalStats::add(&stats.histograms, framed.histograms);
        WalStats::add(&stats.exemplars, framed.exemplars);
        WalStats::add(&stats.series, framed.series);
    }
}
