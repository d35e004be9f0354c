//! Cuts: the past of the head becomes blocks.
//!
//! A cut goes through states, a bounded piece of work in each step. First its blocks are written, one per tenant and
//! window; then they are shown to readers, together with the boundary behind which the head is asked, by one swap; then,
//! when the last view from before the swap is gone, the head forgets what is in blocks. What fails leaves no block and is
//! tried again; ingest goes on meanwhile.

mod write;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use chronolith_block::{Block, Ulid};
use chronolith_head::{Cut, Loss, ReadError, WINDOW_MS};
use chronolith_model::{TenantId, TimeRange, Timestamp};

pub use write::CutError;

use crate::{
    blocks::{Change, Version},
    deletion::{self, Deletion},
    mark::Mark,
    store::{Store, count},
};

/// A cut reaches to the end of a window when the newest sample is so far behind it, in milliseconds: half a window, as
/// in Prometheus.
const BEHIND_MS: i64 = WINDOW_MS / 2;
/// A cut for want of memory leaves the newest of the head, in milliseconds: senders lag behind each other.
const PRESSED_YOUNG_MS: i64 = 10 * 60_000;
/// It is made when it has so much at least, in milliseconds: many small blocks are no help.
const PRESSED_MIN_MS: i64 = 10 * 60_000;
/// ... or when late samples take more than this part of the memory limit, whether or not memory is short: they leave it
/// with a cut alone, and nothing is taken beyond [`chronolith_head::LATE_PERCENT_MAX`].
const PRESSED_LATE_PART: usize = 10;
const _: () = assert!(100 / PRESSED_LATE_PART < chronolith_head::LATE_PERCENT_MAX);
/// Its boundary is a multiple of this.
const PRESSED_STEP_MS: i64 = 60_000;

/// The pauses after failed attempts: doubled each time.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// So often a cut is tried before what contradicts itself in memory is left out of it. What cannot be read of a file, or be
/// written, never is: that is made again from the log, or waited for.
const ATTEMPTS_WHOLE: u32 = 5;

/// Makes cuts, step by step.
#[derive(Debug)]
pub(crate) struct Cutter {
    store: Arc<Store>,
    state: State,
    /// No attempt before this, monotonic.
    not_before: Option<Duration>,
    /// Attempts that have failed one after the other ...
    failures: u32,
    /// ... and those of them that failed since a chunk in memory contradicts itself.
    contradictions: u32,
    /// A cut that has begun and failed goes on to at least this.
    pending: Option<Timestamp>,
    /// Why the last attempt has failed.
    error: Option<CutError>,
    /// Bytes of late samples that the last cut has left: those behind its boundary.
    late_left: usize,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Writing(Box<Writing>),
    /// Shown; readers of before may be left, or the log may not have all of it yet.
    Shown(Cut, Vec<Weak<Version>>),
}

/// A cut whose blocks are being written.
#[derive(Debug)]
struct Writing {
    cut: Cut,
    left: VecDeque<(TenantId, TimeRange)>,
    written: Vec<(TenantId, Ulid)>,
    /// Places that are done with.
    done: u64,
    begun: Duration,
    /// Leave out what contradicts itself.
    lossy: bool,
    /// What was left out.
    lost: Vec<Loss>,
}

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing to do.
    Idle,
    /// There is more to do at once.
    Working,
    /// Readers are waited for.
    Waiting,
    /// A cut has come to its end.
    Finished,
}

impl Cutter {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            state: State::Idle,
            not_before: None,
            failures: 0,
            contradictions: 0,
            pending: None,
            error: None,
            late_left: 0,
        }
    }

    /// Whether no cut has begun that is not finished.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle) && self.pending.is_none()
    }

    /// Makes the next attempt at once.
    pub(crate) fn retry(&mut self) {
        self.not_before = None;
    }

    /// Why the last attempt has failed, if that is not told yet.
    pub(crate) fn take_error(&mut self) -> Option<CutError> {
        self.error.take()
    }

    /// Of the cut whose blocks are being written: how many places, a tenant and a window each, are done with, and left.
    pub(crate) fn places(&self) -> Option<(u64, u64)> {
        let State::Writing(writing) = &self.state else { return None };
        Some((writing.done, writing.left.len() as u64))
    }

    /// Does a piece of work.
    pub(crate) fn step(&mut self) -> Progress {
        match std::mem::take(&mut self.state) {
            State::Idle => self.begin(),
            State::Writing(writing) => self.write(writing),
            State::Shown(cut, readers) => self.finish(cut, readers),
        }
    }

    /// Gives up what is being written. A cut that is shown is finished if nobody reads what was before; if not, the next
    /// start does it.
    pub(crate) fn stop(&mut self) {
        match std::mem::take(&mut self.state) {
            State::Idle => {}
            State::Writing(writing) => {
                self.pending = Some(writing.cut.boundary());
                self.forget(&writing.written);
            }
            State::Shown(cut, readers) => {
                self.finish(cut, readers);
            }
        }
    }

    fn begin(&mut self) -> Progress {
        let now = self.store.env.clock.monotonic();
        if self.not_before.is_some_and(|begin| now < begin) {
            return Progress::Idle;
        }
        let pressed = self.pressed();
        let wanted = *self.store.wanted_cut.lock();
        let boundary = self.due().max(pressed).max(self.pending).max(wanted);
        let Some(boundary) = boundary.filter(|_| !self.store.clock_is_ahead()) else { return Progress::Idle };
        self.store.wanted_cut.lock().take_if(|wanted| *wanted <= boundary);
        if pressed == Some(boundary) {
            count(&self.store.counters.cuts_pressed, 1);
        }
        let head = &self.store.head;
        let cut = head.begin_cut(boundary);
        let windows = head.cut_windows(&cut);
        let left = windows
            .into_iter()
            .flat_map(|(tenant, windows)| windows.into_iter().map(move |window| (tenant.clone(), window)));
        self.pending = Some(cut.boundary());
        let lossy = self.contradictions >= ATTEMPTS_WHOLE;
        let left = left.collect();
        self.state = State::Writing(Box::new(Writing {
            cut,
            left,
            written: Vec::new(),
            done: 0,
            begun: now,
            lossy,
            lost: Vec::new(),
        }));
        Progress::Working
    }

    /// The boundary of a cut that is due: the end of a window that is over.
    fn due(&self) -> Option<Timestamp> {
        let times = self.store.head.times()?;
        let end = times.max.saturating_sub(BEHIND_MS).saturating_sub(1).div_euclid(WINDOW_MS);
        let boundary = end.saturating_mul(WINDOW_MS);
        (boundary > self.store.head.cut() && times.min <= boundary).then_some(boundary)
    }

    /// The boundary of a cut that makes room, if memory is short and there is enough to cut.
    fn pressed(&self) -> Option<Timestamp> {
        let head = &self.store.head;
        let much_is_late = head.late_bytes() > self.store.options.memory_bytes_max / PRESSED_LATE_PART;
        if !much_is_late && !head.memory_short() {
            return None;
        }
        let times = head.times()?;
        let newest = times.max.min(self.store.env.clock.now_ms()).saturating_sub(PRESSED_YOUNG_MS);
        let boundary = newest.div_euclid(PRESSED_STEP_MS).saturating_mul(PRESSED_STEP_MS);
        let since = head.cut().max(times.min);
        // Late samples can be cut anew at the same boundary, but not those that the last cut has left.
        let more_is_late = head.late_bytes().saturating_sub(self.late_left)
            > self.store.options.memory_bytes_max / PRESSED_LATE_PART;
        let worth_it = boundary >= since.saturating_add(PRESSED_MIN_MS) || more_is_late;
        worth_it.then_some(boundary.max(head.cut()))
    }

    fn write(&mut self, mut writing: Box<Writing>) -> Progress {
        if let Some((tenant, window)) = writing.left.pop_front() {
            let ulid = self.store.blocks.next_ulid();
            let lossy = writing.lossy.then_some(&mut writing.lost);
            match write::block(&self.store, &writing.cut, (&tenant, ulid), window, lossy) {
                Ok(write::Written::Nothing) => {}
                Ok(write::Written::Block) => writing.written.push((tenant, ulid)),
                Ok(write::Written::TooDense) => {
                    let middle = window.min.midpoint(window.max);
                    writing.left.push_front((tenant.clone(), TimeRange::new(middle + 1, window.max)));
                    writing.left.push_front((tenant, TimeRange::new(window.min, middle)));
                }
                Err(error) => {
                    // It may have got its name.
                    writing.written.push((tenant, ulid));
                    self.failed(&writing.written, error);
                    return Progress::Idle;
                }
            }
            writing.done += 1;
            self.state = State::Writing(writing);
            return Progress::Working;
        }
        match self.show(&writing) {
            Ok(readers) => {
                let store = &self.store;
                let took = store.env.clock.monotonic().saturating_sub(writing.begun);
                count(&store.counters.blocks_cut, writing.written.len() as u64);
                let (boundary, blocks) = (writing.cut.boundary(), writing.written.len());
                tracing::info!(boundary_ms = boundary, blocks, took_ms = took.as_millis(), "cut the head");
                (self.failures, self.contradictions, self.not_before) = (0, 0, None);
                // Told of until the next cut.
                self.store.losses.passed(writing.cut.boundary());
                writing.lost.into_iter().for_each(|loss| self.store.losses.note(loss));
                self.state = State::Shown(writing.cut, readers);
                Progress::Working
            }
            Err(error) => {
                self.failed(&writing.written, error);
                Progress::Idle
            }
        }
    }

    /// Shows the blocks to readers.
    fn show(&self, writing: &Writing) -> Result<Vec<Weak<Version>>, CutError> {
        let store = &self.store;
        let mut opened = Vec::new();
        for (tenant, ulid) in &writing.written {
            let path = chronolith_block::block_path(&store.blocks.tenant_dir(tenant), *ulid);
            opened.push((tenant, Block::open(&store.env.fs, &path, &store.blocks.cache)?));
        }
        let mut change = store.blocks.change();
        let deletions = Arc::clone(&change.version.deletions);
        for (tenant, block) in &opened {
            for deletion in deletions.iter().filter(|deletion| deletion.tombstone.tenant == **tenant) {
                Change::delete(block, deletion.of_block())?;
            }
        }
        let boundary = writing.cut.boundary();
        // What is forgotten below is not to come back with the exemplars that the head keeps.
        for tenant in deletions.iter().map(|deletion| &deletion.tombstone.tenant).collect::<BTreeSet<_>>() {
            store.head.forget_exemplars(tenant, |labels, t| {
                deletion::deleted(&deletions, tenant, labels).iter().any(|range| range.contains(t))
            });
        }
        // A block that an attempt has left is shown by the next start: it must find the deletions then.
        let all = store.blocks.remove_leftovers().is_err();
        let done = |deletion: &Deletion| {
            !all && deletion.tombstone.range.max <= boundary && writing.cut.covers(deletion.logged)
        };
        let kept: Arc<[_]> = deletions.iter().filter(|deletion| !done(deletion)).cloned().collect();
        let tombstones = kept.iter().map(|deletion| deletion.tombstone.clone()).collect();
        let mark = Mark { boundary, sequences: writing.cut.sequences().to_vec(), tombstones };
        if let Err(error) = store.set_mark(mark) {
            // Without it a start reads the samples from the log as well, and finds that they are the same.
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot write the mark of the cut yet");
        }
        change.version.head_from = writing.cut.point();
        change.version.deletions = kept;
        for (tenant, block) in opened {
            change.add(tenant, block);
        }
        Ok(change.publish())
    }

    /// Lets the head forget what is in blocks, if nobody reads it there any more.
    fn finish(&mut self, cut: Cut, mut readers: Vec<Weak<Version>>) -> Progress {
        readers.retain(|version| version.strong_count() > 0);
        // What the log gets only now, a replay would read again; a deletion looks for it in the head, or in the log.
        let logged = self.store.stopping() || self.store.wal.waiter().poll(cut.logged()).unwrap_or(true);
        if !readers.is_empty() || !logged {
            self.state = State::Shown(cut, readers);
            return Progress::Waiting;
        }
        let truncation = self.store.head.finish_cut(cut);
        self.late_left = self.store.head.late_bytes();
        self.pending = None;
        count(&self.store.counters.cuts, 1);
        if truncation.series_removed > 0 {
            tracing::debug!(series = truncation.series_removed, "removed series without samples");
        }
        Progress::Finished
    }

    fn failed(&mut self, written: &[(TenantId, Ulid)], error: CutError) {
        self.forget(written);
        if self.store.stopping() {
            return;
        }
        count(&self.store.counters.cuts_failed, 1);
        let pause = BACKOFF_MIN.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        if matches!(error, CutError::Read { source: ReadError::Chunk(_), .. }) {
            self.contradictions = self.contradictions.saturating_add(1);
        }
        self.not_before = Some(self.store.env.clock.monotonic() + pause);
        tracing::error!(
            error = &error as &dyn std::error::Error,
            retry_in_s = pause.as_secs(),
            "cannot cut the head into blocks; its samples stay in memory and in the log"
        );
        self.error = Some(error);
    }

    /// Removes blocks that were never shown.
    fn forget(&self, written: &[(TenantId, Ulid)]) {
        for (tenant, ulid) in written {
            if let Err(error) = self.store.blocks.remove_files(tenant, &[*ulid]) {
                // Its samples are those of the head: read twice they count once.
                tracing::warn!(error = &error as &dyn std::error::Error, %ulid, "cannot remove a block of a failed cut");
            }
        }
    }
}
