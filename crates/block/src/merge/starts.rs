//! Start timestamps of the merged block.
//!
//! Those of a sample are those of the copy that is read. Where no parts overlap that is a matter of times alone; only
//! series that do, or that have something deleted, are read again.

use std::collections::VecDeque;

use chronolith_model::{StartTimestamp, TimeRange};

use super::plan::Group;
use super::{Input, Run};
use crate::SeriesSamples;
use crate::error::Result;
use crate::layout::directory::FrameKind;
use crate::reader::cursor::Cursor;
use crate::reader::samples::{Merge, OfCursor, add_run};

/// How often a walk over series asks whether it is cancelled.
const SERIES_PER_CHECK: u64 = 4096;

/// How far one input has been read.
#[derive(Default)]
struct Progress {
    page: usize,
    /// With the ids of the merged block. A series that goes on in the next page is there again.
    ahead: VecDeque<(u32, Vec<StartTimestamp>)>,
}

/// A group of parts that become one, as starts are looked for in it.
struct Joined<'a> {
    window: TimeRange,
    /// Per part: its input, and what of its time is inside the window.
    sources: Vec<(usize, TimeRange)>,
    cursors: Vec<Cursor<'a>>,
}

/// Buffers that are used again.
#[derive(Default)]
struct Buffers {
    merge: Merge,
    samples: SeriesSamples,
    /// Per source.
    deleted: Vec<Vec<TimeRange>>,
}

impl<'a> Run<'a> {
    /// Writes since when the series of all inputs have been counted.
    pub(super) fn write_starts(&mut self, groups: &[Group]) -> Result<()> {
        if self.inputs.iter().all(|input| input.block.directory().starts.is_empty()) {
            return Ok(());
        }
        let mut joined: Vec<_> = groups.iter().map(|group| self.joined(group)).collect();
        let mut all: Vec<Progress> = self.inputs.iter().map(|_| Progress::default()).collect();
        let mut of_inputs: Vec<Vec<StartTimestamp>> = vec![Vec::new(); self.inputs.len()];
        let mut buffers = Buffers::default();
        for n in 0_u64.. {
            if n % SERIES_PER_CHECK == 0 {
                self.check_cancelled()?;
            }
            for (input, progress) in self.inputs.iter().zip(&mut all) {
                read_ahead(input, progress)?;
            }
            let next = all.iter().filter_map(|progress| progress.ahead.front().map(|(id, _)| *id)).min();
            let Some(id) = next else { break };
            for ((input, progress), steps) in self.inputs.iter().zip(&mut all).zip(&mut of_inputs) {
                steps.clear();
                while let Some((_, mut more)) = progress.ahead.pop_front_if(|(head, _)| *head == id) {
                    steps.append(&mut more);
                    read_ahead(input, progress)?;
                }
            }
            let mut steps = Vec::new();
            for group in &mut joined {
                group.append(&self.inputs, id, &of_inputs, &mut buffers, &mut steps)?;
            }
            self.writer.push_steps(id, &steps)?;
        }
        Ok(())
    }

    fn joined(&self, group: &Group) -> Joined<'a> {
        let window =
            TimeRange::new(group.window.min.max(self.window.min), group.window.max.min(self.window.max));
        let (mut sources, mut cursors) = (Vec::new(), Vec::new());
        for (input, block, part) in group.sources.iter().filter_map(|source| self.source(*source)) {
            let range = TimeRange::new(part.range.min.max(window.min), part.range.max.min(window.max));
            if range.min <= range.max {
                sources.push((input, range));
                cursors.push(Cursor::new(block.source(), part));
            }
        }
        Joined { window, sources, cursors }
    }
}

impl Joined<'_> {
    /// Appends the starts that series `id` has in the group to `into`. `of_inputs`: its steps in each input.
    fn append(
        &mut self,
        inputs: &[Input<'_>],
        id: u32,
        of_inputs: &[Vec<StartTimestamp>],
        buffers: &mut Buffers,
        into: &mut Vec<StartTimestamp>,
    ) -> Result<()> {
        let before = |input: usize| inputs.get(input).and_then(|input| input.ids.before(id));
        let steps = |input: usize| of_inputs.get(input).map(Vec::as_slice).unwrap_or_default();
        buffers.deleted.resize_with(self.sources.len(), Vec::new);
        let mut touched = false;
        // Those that may have samples of it, by time.
        let mut ranges: Vec<(TimeRange, usize)> = Vec::new();
        for ((input, range), deleted) in self.sources.iter().zip(&mut buffers.deleted) {
            deleted.clear();
            if let Some((of, before)) = inputs.get(*input).zip(before(*input)) {
                of.deletions.ranges(before, deleted);
                touched |= deleted.iter().any(|deleted| deleted.overlaps(range));
                ranges.push((*range, *input));
            }
        }
        ranges.sort_unstable_by_key(|(range, _)| range.min);
        if !touched && ranges.is_sorted_by(|(a, _), (b, _)| a.max < b.min) {
            ranges.iter().for_each(|(range, input)| clip(steps(*input), *range, into));
            return Ok(());
        }
        let mut runs = Vec::new();
        for (index, ((input, _), cursor)) in self.sources.iter().zip(&mut self.cursors).enumerate() {
            let Some(before) = before(*input) else { continue };
            for kind in [FrameKind::Float, FrameKind::Histogram] {
                add_run(index, cursor, kind, before, self.window, &mut runs)?;
            }
        }
        let source = |index: usize| self.sources.get(index);
        if !touched && runs.iter().all(|run| Some(run.cursor) == runs.first().map(|first| first.cursor)) {
            // Only one of them has any.
            if let Some((input, range)) = runs.first().and_then(|run| source(run.cursor)) {
                clip(steps(*input), *range, into);
            }
            return Ok(());
        }
        let Buffers { merge, samples, deleted } = buffers;
        samples.clear();
        let of = |index: usize| OfCursor {
            deleted: deleted.get(index).map(Vec::as_slice).unwrap_or_default(),
            starts: source(index).map_or(&[], |(input, _)| steps(*input)),
        };
        merge.read(&mut self.cursors, &mut runs, of, samples)?;
        let first = samples.timestamps.first().into_iter().chain(samples.histogram_timestamps.first()).min();
        if let Some(first) = first {
            push(into, *first, StartTimestamp::at(&samples.starts, *first));
            samples.starts.iter().for_each(|step| push(into, step.since, step.start));
        }
        Ok(())
    }
}

/// Appends what `steps` say inside `range`.
fn clip(steps: &[StartTimestamp], range: TimeRange, into: &mut Vec<StartTimestamp>) {
    let inside = steps.partition_point(|step| step.since <= range.min);
    let at_first = inside.checked_sub(1).and_then(|last| steps.get(last)).map_or(0, |step| step.start);
    push(into, range.min, at_first);
    let rest = steps.get(inside..).unwrap_or_default();
    rest.iter()
        .take_while(|step| step.since <= range.max)
        .for_each(|step| push(into, step.since, step.start));
}

/// The first step is noted in any case: it holds for all before it too.
fn push(into: &mut Vec<StartTimestamp>, since: i64, start: i64) {
    if into.last().is_none_or(|last| last.start != start) {
        into.push(StartTimestamp { since, start });
    }
}

/// Reads pages of an input until there is something ahead, or no page left.
fn read_ahead(input: &Input<'_>, progress: &mut Progress) -> Result<()> {
    while progress.ahead.is_empty() && progress.page < input.block.directory().starts.len() {
        for (id, steps) in input.block.start_page(progress.page, None)?.iter() {
            if let Some(after) = input.ids.after(id) {
                progress.ahead.push_back((after, steps.to_vec()));
            }
        }
        progress.page += 1;
    }
    Ok(())
}
