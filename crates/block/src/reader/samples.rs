//! The samples of a series out of all parts of a block.

use chronolith_chunk::dense::Statistics;
use chronolith_model::histogram::CounterResetHint;
use chronolith_model::{Histogram, StartTimestamp, TimeRange, Timestamp};

use super::Block;
use super::cursor::{Cursor, Slot};
use super::source::ReadCounts;
use super::starts::{StartCursor, note};
use crate::error::Result;
use crate::layout::directory::FrameKind;
use crate::tombstones::{Deletions, is_deleted};

/// Samples of one series as columns. Floats and histograms each ascend by timestamp, and share none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesSamples {
    /// Of the floats, in milliseconds.
    pub timestamps: Vec<Timestamp>,
    /// One per timestamp. Stale markers are among them.
    pub values: Vec<f64>,
    /// Of the histograms, in milliseconds.
    pub histogram_timestamps: Vec<Timestamp>,
    /// One per timestamp of a histogram.
    pub histograms: Vec<Histogram>,
    /// Since when the counter has been counting, where that is known: steps that ascend, each since the first sample
    /// that has it. Samples before the first step have none.
    pub starts: Vec<StartTimestamp>,
}

impl SeriesSamples {
    /// How many samples of both kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timestamps.len() + self.histogram_timestamps.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all samples, keeps the memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.histogram_timestamps.clear();
        self.histograms.clear();
        self.starts.clear();
    }

    /// The places behind the last float and the last histogram.
    pub(crate) fn ends(&self) -> (usize, usize) {
        (self.timestamps.len(), self.histogram_timestamps.len())
    }
}

/// A run of a series' samples that lies in one part.
#[derive(Clone, Debug, PartialEq)]
pub struct Fragment {
    /// First and last timestamp of those inside the range asked for.
    pub range: TimeRange,
    /// How many samples; deletions not regarded.
    pub samples: u32,
    /// What the samples come to: of floats of which all are inside the range asked for, none is deleted and none
    /// competes with a sample of another fragment.
    pub statistics: Option<Statistics>,
}

/// Reads samples of a block, one series after another.
#[derive(Debug)]
pub struct SeriesReader<'a> {
    pub(super) cursors: Vec<Cursor<'a>>,
    pub(super) deletions: std::sync::Arc<Deletions>,
    block: &'a Block,
    pub(super) starts: StartCursor<'a>,
    pub(super) merge: Merge,
    deleted: Vec<TimeRange>,
}

/// Samples of one series in one part, as far as they are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Number of the cursor.
    pub(crate) cursor: usize,
    pub(crate) slot: Slot,
    /// The samples asked for, as places in the slot.
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) range: TimeRange,
}

/// What holds for all samples of a series that come out of one cursor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OfCursor<'a> {
    /// What is deleted, ascending and apart.
    pub(crate) deleted: &'a [TimeRange],
    /// Since when it has been counted.
    pub(crate) starts: &'a [StartTimestamp],
}

/// Turns runs into samples, with buffers that it reuses.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    pub(super) values: Vec<f64>,
    runs: Vec<Run>,
}

impl<'a> SeriesReader<'a> {
    pub(super) fn new(block: &'a Block) -> Self {
        let parts = &block.directory().parts;
        Self {
            cursors: parts.iter().map(|part| Cursor::new(block.source(), part)).collect(),
            deletions: block.deletions(),
            block,
            starts: StartCursor::new(block),
            merge: Merge::default(),
            deleted: Vec::new(),
        }
    }

    /// What it has opened since it was made.
    #[must_use]
    pub fn counts(&self) -> ReadCounts {
        let mut counts = self.starts.counts;
        self.cursors.iter().for_each(|cursor| counts.add(cursor.counts));
        counts
    }

    /// Appends the samples of series `id` inside `range`, both ends included, to `into`, whose samples must be older.
    /// Of two samples at one timestamp the one in the part of lower priority is taken; deleted ones are left out. Nothing
    /// if there is no such series. Hints of histograms behind the first are about the one before that is read.
    ///
    /// # Errors
    /// When a piece of the block is damaged or cannot be read. `into` then has an unknown part of the samples.
    pub fn read(&mut self, id: u32, range: TimeRange, into: &mut SeriesSamples) -> Result<()> {
        let mut runs = std::mem::take(&mut self.merge.runs);
        runs.clear();
        let found = find_runs(&mut self.cursors, id, range, &mut runs);
        let read = found.and_then(|()| {
            self.deletions.ranges(id, &mut self.deleted);
            let of_all = OfCursor { deleted: &self.deleted, starts: self.starts.find(id)? };
            self.merge.read(&mut self.cursors, &mut runs, |_| of_all, into)
        });
        self.merge.runs = runs;
        read
    }

    /// The runs of series `id` inside `range`, ascending by their first timestamp, with statistics where they hold.
    ///
    /// # Errors
    /// When a piece of the block is damaged or cannot be read.
    pub fn fragments(&mut self, id: u32, range: TimeRange) -> Result<Vec<Fragment>> {
        let mut runs = Vec::new();
        find_runs(&mut self.cursors, id, range, &mut runs)?;
        runs.sort_by_key(|run| run.range.min);
        self.deletions.ranges(id, &mut self.deleted);
        let mut fragments = Vec::new();
        for (i, run) in runs.iter().enumerate() {
            let alone = !runs.iter().enumerate().any(|(j, other)| i != j && other.range.overlaps(&run.range));
            let whole = run.from == 0 && run.to == run.slot.column.len as usize;
            let untouched = !self.deleted.iter().any(|deleted| deleted.overlaps(&run.range));
            let usable = alone && whole && untouched && run.slot.kind == FrameKind::Float;
            let part = self.cursors.get(run.cursor).map(Cursor::part).filter(|_| usable);
            let statistics = match part.and_then(|part| part.floats.get(run.slot.frame)) {
                Some(entry) => self.block.source().statistics(entry)?.get(run.slot.slot).copied(),
                None => None,
            };
            fragments.push(Fragment { range: run.range, samples: (run.to - run.from) as u32, statistics });
        }
        Ok(fragments)
    }
}

/// Collects the runs of series `id` in the parts of `cursors` inside `range`.
pub(crate) fn find_runs(
    cursors: &mut [Cursor<'_>],
    id: u32,
    range: TimeRange,
    runs: &mut Vec<Run>,
) -> Result<()> {
    for (index, cursor) in cursors.iter_mut().enumerate() {
        for kind in [FrameKind::Float, FrameKind::Histogram] {
            add_run(index, cursor, kind, id, range, runs)?;
        }
    }
    Ok(())
}

/// Adds the run of one kind that series `id` has in the part of a cursor.
pub(crate) fn add_run(
    index: usize,
    cursor: &mut Cursor<'_>,
    kind: FrameKind,
    id: u32,
    range: TimeRange,
    runs: &mut Vec<Run>,
) -> Result<()> {
    if !cursor.part().range.overlaps(&range) {
        return Ok(());
    }
    let Some(slot) = cursor.find(kind, id)? else { return Ok(()) };
    let timestamps = cursor.timestamps(slot.column)?;
    let from = timestamps.partition_point(|t| *t < range.min);
    let to = timestamps.partition_point(|t| *t <= range.max);
    let inside = timestamps.get(from..to).unwrap_or_default();
    if let (Some(&min), Some(&max)) = (inside.first(), inside.last()) {
        runs.push(Run { cursor: index, slot, from, to, range: TimeRange::new(min, max) });
    }
    Ok(())
}

impl Merge {
    /// Appends the samples of `runs`, which are all of one series, but those that `of` says are deleted for a cursor.
    /// The order of cursors decides between parts of equal priority.
    pub(crate) fn read<'d>(
        &mut self,
        cursors: &mut [Cursor<'_>],
        runs: &mut [Run],
        of: impl Fn(usize) -> OfCursor<'d>,
        into: &mut SeriesSamples,
    ) -> Result<()> {
        runs.sort_by_key(|run| run.range.min);
        if !runs.is_sorted_by(|a, b| a.range.max < b.range.min) {
            return merge_runs(cursors, runs, of, into);
        }
        let first = into.histograms.len();
        for run in runs.iter() {
            let before = into.ends();
            self.append(cursors, run, into)?;
            let OfCursor { deleted, starts } = of(run.cursor);
            if !deleted.is_empty() {
                forget_behind_gaps(into, before.1, deleted);
                remove(&mut into.timestamps, &mut into.values, before.0, deleted);
                remove(&mut into.histogram_timestamps, &mut into.histograms, before.1, deleted);
            }
            if before.1 > first
                && let (older, [histogram, ..]) = into.histograms.split_at_mut(before.1)
            {
                // Behind one of another part.
                rehint(histogram, older.last());
            }
            note(starts, before, into);
        }
        Ok(())
    }

    /// Appends a run that competes with no other.
    fn append(&mut self, cursors: &mut [Cursor<'_>], run: &Run, into: &mut SeriesSamples) -> Result<()> {
        let Some(cursor) = cursors.get_mut(run.cursor) else { return Ok(()) };
        let timestamps = cursor.timestamps(run.slot.column)?.get(run.from..run.to).unwrap_or_default();
        match run.slot.kind {
            FrameKind::Float => {
                into.timestamps.extend_from_slice(timestamps);
                if run.to - run.from == run.slot.column.len as usize {
                    return cursor.floats(run.slot, &mut into.values);
                }
                self.values.clear();
                cursor.floats(run.slot, &mut self.values)?;
                into.values.extend_from_slice(self.values.get(run.from..run.to).unwrap_or_default());
                Ok(())
            }
            FrameKind::Histogram => {
                into.histogram_timestamps.extend_from_slice(timestamps);
                cursor.histograms(run.slot, run.from..run.to, &mut into.histograms)
            }
        }
    }
}

/// Appends runs of which some overlap: at each timestamp the sample of the lowest priority that is not deleted.
fn merge_runs<'d>(
    cursors: &mut [Cursor<'_>],
    runs: &mut [Run],
    of: impl Fn(usize) -> OfCursor<'d>,
    into: &mut SeriesSamples,
) -> Result<()> {
    let priority = |run: &Run| cursors.get(run.cursor).map(|cursor| cursor.part().priority);
    runs.sort_by_key(|run| (priority(run), run.cursor));
    // Who wins each timestamp: run and place in it.
    let mut picks: Vec<(Timestamp, u32, u32)> = Vec::new();
    let (mut values, mut histograms) = (Vec::new(), Vec::new());
    for (number, run) in runs.iter().enumerate() {
        let Some(cursor) = cursors.get_mut(run.cursor) else { continue };
        let timestamps = cursor.timestamps(run.slot.column)?.get(run.from..run.to).unwrap_or_default();
        picks = merge_picks(&picks, timestamps, number as u32, of(run.cursor).deleted);
        let (mut run_values, mut run_histograms) = (Vec::new(), Vec::new());
        match run.slot.kind {
            FrameKind::Float => cursor.floats(run.slot, &mut run_values)?,
            FrameKind::Histogram => cursor.histograms(run.slot, run.from..run.to, &mut run_histograms)?,
        }
        values.push(run_values);
        histograms.push(run_histograms.into_iter().map(Some).collect::<Vec<_>>());
    }
    let starts: Vec<_> = runs.iter().map(|run| of(run.cursor).starts).collect();
    // Run and place of the histogram before.
    let mut before: Option<(usize, usize)> = None;
    for (timestamp, number, place) in picks {
        let (number, place) = (number as usize, place as usize);
        let Some((run, starts)) = runs.get(number).zip(starts.get(number)) else { continue };
        StartTimestamp::push(&mut into.starts, timestamp, StartTimestamp::at(starts, timestamp));
        match run.slot.kind {
            FrameKind::Float => {
                into.timestamps.push(timestamp);
                into.values.extend(values.get(number).and_then(|values| values.get(run.from + place)));
            }
            FrameKind::Histogram => {
                let histogram = histograms.get_mut(number).and_then(|all| all.get_mut(place)?.take());
                let Some(mut histogram) = histogram else { continue };
                let follows = before.is_none_or(|(run, before)| run == number && before + 1 == place);
                if !follows {
                    rehint(&mut histogram, into.histograms.last());
                }
                before = Some((number, place));
                into.histogram_timestamps.push(timestamp);
                into.histograms.push(histogram);
            }
        }
    }
    debug_assert_eq!(into.timestamps.len(), into.values.len());
    debug_assert_eq!(into.histogram_timestamps.len(), into.histograms.len());
    Ok(())
}

/// The picks, and from `timestamps` what they leave free and is not deleted.
fn merge_picks(
    picks: &[(Timestamp, u32, u32)],
    timestamps: &[Timestamp],
    run: u32,
    deleted: &[TimeRange],
) -> Vec<(Timestamp, u32, u32)> {
    let mut merged = Vec::with_capacity(picks.len() + timestamps.len());
    let mut picks = picks.iter().copied().peekable();
    for (place, &timestamp) in timestamps.iter().enumerate() {
        while let Some(pick) = picks.next_if(|pick| pick.0 < timestamp) {
            merged.push(pick);
        }
        match picks.next_if(|pick| pick.0 == timestamp) {
            Some(pick) => merged.push(pick),
            None if is_deleted(deleted, timestamp) => {}
            None => merged.push((timestamp, run, place as u32)),
        }
    }
    merged.extend(picks);
    merged
}

/// Finds out whether what is said of a histogram is true behind `before`, which need not be the one that was before it when
/// its hint was made. Where there is none, or it is not known, nothing is said any more; where nothing was said, nothing is.
pub fn rehint(histogram: &mut Histogram, before: Option<&Histogram>) {
    if matches!(histogram.hint(), CounterResetHint::Reset | CounterResetHint::NotReset) {
        histogram.set_hint(CounterResetHint::Unknown);
        histogram.set_hint(histogram.hint_after(before));
    }
}

/// Forgets what is said of histograms from place `start` on that lose the one before them.
fn forget_behind_gaps(samples: &mut SeriesSamples, start: usize, deleted: &[TimeRange]) {
    let timestamps = samples.histogram_timestamps.iter().skip(start);
    let mut gone_before = false;
    for (timestamp, histogram) in timestamps.zip(samples.histograms.iter_mut().skip(start)) {
        let gone = is_deleted(deleted, *timestamp);
        if std::mem::replace(&mut gone_before, gone) {
            rehint(histogram, None);
        }
    }
}

/// Removes what is deleted from two columns, from place `start` on.
fn remove<T>(timestamps: &mut Vec<Timestamp>, values: &mut Vec<T>, start: usize, deleted: &[TimeRange]) {
    let keep: Vec<bool> =
        timestamps.iter().skip(start).map(|timestamp| !is_deleted(deleted, *timestamp)).collect();
    if keep.iter().all(|keep| *keep) {
        return;
    }
    let mut flags = keep.iter();
    let mut at = 0;
    timestamps.retain(|_| {
        at += 1;
        at <= start || flags.next().copied().unwrap_or(true)
    });
    let mut flags = keep.iter();
    let mut at = 0;
    values.retain(|_| {
        at += 1;
        at <= start || flags.next().copied().unwrap_or(true)
    });
}
