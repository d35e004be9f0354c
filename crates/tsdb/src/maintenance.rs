//! The work in the background that keeps the head small: retention, cuts, spilling, snapshots, the log's end.

use std::{sync::Arc, time::Duration};

use chronolith_env::{Job, Step};
use chronolith_head::{SnapshotWriter, Snapshots};
use chronolith_model::Timestamp;

use crate::{
    cut::{Cutter, Progress},
    mend, retention,
    store::{Store, count},
};

/// Pause between two rounds when appends ask for them.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The same while memory stays short: there is nothing more to do about it at the moment.
const PAUSE_SHORT: Duration = Duration::from_secs(2);
/// Pause between two looks whether the readers of before a cut are gone.
const PAUSE_READERS: Duration = Duration::from_millis(50);
/// Pause between two searches of the log for what a device does not give.
const PAUSE_MEND: Duration = Duration::from_secs(30);
/// Steps of spilling in one round: a megabyte each.
const SPILL_STEPS_MAX: usize = 64;

/// Keeps the head small.
#[derive(Debug)]
pub(crate) struct Maintenance {
    store: Arc<Store>,
    cutter: Cutter,
    /// A snapshot that is being written.
    snapshot: Option<SnapshotWriter>,
    /// A cut has ended, or the log has grown, since the last snapshot.
    snapshot_wanted: bool,
    /// Bytes the log had written at the last snapshot; below zero what was there before this start.
    written_at_snapshot: i64,
    snapshot_bytes: u64,
    /// When the next round may begin.
    not_before: Option<Duration>,
    /// When the log may be searched again for what cannot be read.
    mend_not_before: Option<Duration>,
}

impl Maintenance {
    /// `behind`: bytes of the log that the last snapshot, of `snapshot_bytes`, does not have.
    pub(crate) fn new(store: Arc<Store>, behind: u64, snapshot_bytes: u64) -> Self {
        Self {
            cutter: Cutter::new(Arc::clone(&store)),
            store,
            snapshot: None,
            snapshot_wanted: false,
            written_at_snapshot: i64::try_from(behind).map_or(i64::MIN, |behind| -behind),
            snapshot_bytes,
            not_before: None,
            mend_not_before: None,
        }
    }
}

impl Job for Maintenance {
    fn step(&mut self, stopping: bool) -> Step {
        if stopping {
            self.stop();
            return Step::Done;
        }
        let now = self.store.env.clock.monotonic();
        let rest = self.not_before.map_or(Duration::ZERO, |begin| begin.saturating_sub(now));
        if rest.is_zero() {
            self.round();
            let pause = if self.store.head.memory_short() { PAUSE_SHORT } else { PAUSE_MIN };
            self.not_before = Some(now + pause);
        }
        if self.snapshot.is_some() {
            self.snapshot_step();
            return Step::Again;
        }
        // Once a round is enough to see whether a cut is due.
        if rest.is_zero() || !self.cutter.is_idle() {
            match self.cut_step() {
                Progress::Working => return Step::Again,
                Progress::Waiting => return Step::SleepFor(PAUSE_READERS),
                Progress::Finished | Progress::Idle => {}
            }
        }
        if self.cutter.is_idle() && self.snapshot_due() {
            self.begin_snapshot();
            return Step::Again;
        }
        Step::SleepFor(if rest.is_zero() { self.store.options.maintenance_interval } else { rest })
    }
}

impl Maintenance {
    /// A piece of the cut that is due.
    pub(crate) fn cut_step(&mut self) -> Progress {
        let progress = self.cutter.step();
        if progress == Progress::Finished {
            self.drop_log();
            self.snapshot_wanted = true;
        }
        progress
    }

    pub(crate) fn cutter(&mut self) -> &mut Cutter {
        &mut self.cutter
    }

    fn round(&mut self) {
        let store = &self.store;
        store.watch_disk();
        store.mend_mark();
        let now = store.env.clock.monotonic();
        if store.head.has_unread() && self.mend_not_before.is_none_or(|begin| now >= begin) {
            // One that could not be written may be now.
            self.snapshot_wanted |= mend::mend(store);
            // What is left waits for its device: the log is not read for it all the time.
            self.mend_not_before = store.head.has_unread().then_some(now + PAUSE_MEND);
        }
        if let Err(error) = store.blocks.remove_leftovers() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot remove blocks that are not needed any more"
            );
        }
        let truncation = store.head.truncate();
        if truncation.series_removed > 0 {
            tracing::debug!(series = truncation.series_removed, "removed series without samples");
        }
        self.spill();
        retention::apply(store);
        self.drop_log();
    }

    /// Moves chunks that appends do not look at any more to files; when memory is short, all that are closed.
    fn spill(&self) {
        let Some(times) = self.store.head.times() else { return };
        let window = i64::try_from(self.store.options.ooo_window.as_millis()).unwrap_or(i64::MAX);
        let older_than =
            if self.store.head.memory_short() { Timestamp::MAX } else { times.max.saturating_sub(window) };
        for _ in 0..SPILL_STEPS_MAX {
            match self.store.head.spill_step(self.store.snapshots.chunk_files(), older_than) {
                Ok(step) if step.round_done || self.store.stopping() => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot move chunks out of memory"
                    );
                    return;
                }
            }
        }
    }

    /// Drops what of the log is durable in blocks, or older than retention.
    fn drop_log(&self) {
        if self.store.head.has_unread() {
            // It may have what cannot be read.
            return;
        }
        let wal = &self.store.wal;
        let mark = self.store.mark.lock();
        let sequence = mark.sequences.iter().min().copied().unwrap_or(0);
        let segments = wal.segments();
        let in_blocks = segments.iter().take_while(|segment| {
            segment.last_sequence <= sequence && segment.times.is_none_or(|(_, max)| max <= mark.boundary)
        });
        let first_kept = segments.get(in_blocks.count()).map_or(0, |segment| segment.number);
        drop(mark);
        let by_blocks = wal.drop_segments_before(first_kept);
        let dropped = by_blocks.and_then(|by_blocks| {
            wal.drop_older_than(self.store.head.log_floor()).map(|by_age| by_blocks + by_age)
        });
        log_dropped(dropped);
    }

    fn snapshot_due(&self) -> bool {
        if self.store.clock_is_ahead() {
            return false;
        }
        let behind = self.log_written().saturating_sub(self.written_at_snapshot);
        let by_size = Snapshots::due(u64::try_from(behind).unwrap_or(0), self.snapshot_bytes);
        self.snapshot_wanted || by_size
    }

    fn log_written(&self) -> i64 {
        i64::try_from(self.store.wal.stats().snapshot().bytes).unwrap_or(i64::MAX)
    }

    fn begin_snapshot(&mut self) {
        self.snapshot_wanted = false;
        self.written_at_snapshot = self.log_written();
        match self.store.snapshots.begin(Vec::new()) {
            Ok(writer) => self.snapshot = Some(writer),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot begin a snapshot of the head"
                );
            }
        }
    }

    /// Writes a piece of the snapshot.
    fn snapshot_step(&mut self) {
        let Some(writer) = &mut self.snapshot else { return };
        let extras = writer.is_at_extras().then(|| self.store.extras());
        let extras = extras.map_or(Ok(()), |extras| writer.set_extras(extras));
        match extras.and_then(|()| writer.step(&self.store.head)) {
            Ok(None) => {}
            Ok(Some(report)) => {
                self.snapshot = None;
                self.snapshot_bytes = report.bytes;
                count(&self.store.counters.snapshots, 1);
                tracing::debug!(series = report.series, bytes = report.bytes, "wrote a snapshot of the head");
                if let Some(covered) = report.covered.filter(|_| !self.store.head.has_unread()) {
                    log_dropped(self.store.wal.delete_covered(covered));
                }
            }
            Err(error) => {
                self.snapshot = None;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot write a snapshot of the head"
                );
            }
        }
    }

    /// A last snapshot, so that the next start is quick. Not in the middle of a cut: a snapshot stands for the time before
    /// or behind it.
    fn stop(&mut self) {
        self.cutter.stop();
        self.snapshot = None;
        if !self.cutter.is_idle()
            || self.log_written() == self.written_at_snapshot
            || self.store.clock_is_ahead()
        {
            return;
        }
        self.begin_snapshot();
        while self.snapshot.is_some() {
            self.snapshot_step();
        }
    }
}

fn log_dropped(dropped: chronolith_wal::Result<usize>) {
    match dropped {
        Ok(0) => {}
        Ok(segments) => tracing::info!(segments, "removed log segments that are needed no longer"),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot remove old log segments");
        }
    }
}
