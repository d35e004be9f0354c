//! Which parts of the inputs become which parts of the merged block.

use chronolith_chunk::dense::COLUMN_SAMPLES_MAX;
use chronolith_model::TimeRange;

use super::Input;
use crate::error::Result;
use crate::layout::directory::PartEntry;
use crate::meta::PARTS_MAX;

/// How many samples a column of a joined part is to have, if the number of parts allows it.
pub(super) const JOINED_SAMPLES: usize = 1920;

/// A part of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourcePart {
    pub(super) input: usize,
    pub(super) part: usize,
}

/// Parts of the inputs that become one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) sources: Vec<SourcePart>,
    /// Samples outside are left out.
    pub(super) window: TimeRange,
    pub(super) priority: u64,
    /// The source whose frames may be copied.
    pub(super) base: Option<usize>,
    /// No series has more samples.
    samples_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    source: SourcePart,
    entry: &'a PartEntry,
    range: TimeRange,
}

/// Groups the parts that have samples inside `window`, ascending by time.
pub(super) fn plan(inputs: &[Input<'_>], window: TimeRange) -> Result<Vec<Group>> {
    let mut candidates = Vec::new();
    for (input, Input { block, .. }) in inputs.iter().enumerate() {
        for (part, entry) in block.directory().parts.iter().enumerate() {
            let range = TimeRange::new(entry.range.min.max(window.min), entry.range.max.min(window.max));
            if range.min <= range.max {
                candidates.push(Candidate { source: SourcePart { input, part }, entry, range });
            }
        }
    }
    candidates.sort_by_key(|candidate| (candidate.range.min, candidate.entry.priority));
    let mut groups = Vec::new();
    let mut rest = candidates.as_slice();
    while let Some(first) = rest.first() {
        let (mut end, mut len) = (first.range.max, 1);
        while let Some(next) = rest.get(len).filter(|next| next.range.min <= end) {
            end = end.max(next.range.max);
            len += 1;
        }
        let (overlapping, others) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        rest = others;
        let window = TimeRange::new(first.range.min, end);
        add_groups(inputs, overlapping, window, &mut groups)?;
    }
    Ok(join(groups))
}

/// Adds the group of parts that overlap; several if their columns together might be too long for one.
fn add_groups(
    inputs: &[Input<'_>],
    overlapping: &[Candidate<'_>],
    window: TimeRange,
    groups: &mut Vec<Group>,
) -> Result<()> {
    // Of equal priorities the earlier input wins.
    let mut overlapping = overlapping.to_vec();
    overlapping.sort_by_key(|candidate| (candidate.source.input, candidate.source.part));
    let overlapping = overlapping.as_slice();
    let sum = overlapping.iter().map(|candidate| candidate.entry.slot_samples_max as usize).sum();
    let whole = |c: &Candidate<'_>| c.range == c.entry.range;
    let samples = |c: &Candidate<'_>| c.entry.floats.iter().map(|frame| frame.samples).sum::<u64>();
    let base = overlapping.iter().enumerate().filter(|(_, c)| whole(c)).max_by_key(|(_, c)| samples(c));
    let mut group = Group {
        sources: overlapping.iter().map(|candidate| candidate.source).collect(),
        window,
        priority: overlapping.iter().map(|candidate| candidate.entry.priority).min().unwrap_or(0),
        base: base.map(|(index, _)| index),
        samples_max: sum,
    };
    if sum <= COLUMN_SAMPLES_MAX {
        groups.push(group);
        return Ok(());
    }
    // Halve the time until no series can have too many samples in it. One millisecond has at most one per source.
    group.base = None;
    let mut windows = vec![window];
    while let Some(window) = windows.pop() {
        let samples_max = count(inputs, overlapping, window)?;
        if samples_max <= COLUMN_SAMPLES_MAX || window.min >= window.max {
            groups.push(Group { window, samples_max, ..group.clone() });
            continue;
        }
        let middle = window.min.midpoint(window.max);
        windows.push(TimeRange::new(middle + 1, window.max));
        windows.push(TimeRange::new(window.min, middle));
    }
    Ok(())
}

/// How many samples one series can have inside `window`: the most of any column, summed over the parts.
fn count(inputs: &[Input<'_>], parts: &[Candidate<'_>], window: TimeRange) -> Result<usize> {
    let mut sum = 0;
    for candidate in parts.iter().filter(|candidate| candidate.range.overlaps(&window)) {
        let Some(input) = inputs.get(candidate.source.input) else { continue };
        let mut most = 0;
        for page in &candidate.entry.pages {
            for column in input.block.source().columns(page, None)?.iter() {
                let from = column.partition_point(|t| *t < window.min);
                let to = column.partition_point(|t| *t <= window.max);
                most = most.max(to - from);
            }
        }
        sum += most;
    }
    Ok(sum)
}

/// Joins neighbours until there are at most [`PARTS_MAX`] groups, or they cannot grow.
fn join(groups: Vec<Group>) -> Vec<Group> {
    let mut target = JOINED_SAMPLES;
    let mut joined = groups.clone();
    while joined.len() > PARTS_MAX {
        joined = join_up_to(&groups, target);
        if target >= COLUMN_SAMPLES_MAX {
            break;
        }
        target = (target * 2).min(COLUMN_SAMPLES_MAX);
    }
    joined
}

fn join_up_to(groups: &[Group], samples_max: usize) -> Vec<Group> {
    let mut joined: Vec<Group> = Vec::new();
    for group in groups {
        match joined.last_mut() {
            Some(last) if last.samples_max + group.samples_max <= samples_max => {
                let new = group.sources.iter().filter(|source| !last.sources.contains(source));
                let new: Vec<_> = new.copied().collect();
                last.sources.extend(new);
                last.window.max = group.window.max;
                last.priority = last.priority.min(group.priority);
                last.base = None;
                last.samples_max += group.samples_max;
            }
            _ => joined.push(group.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(n: usize, samples_max: usize) -> Vec<Group> {
        let group = |i: usize| Group {
            sources: vec![SourcePart { input: i, part: 0 }],
            window: TimeRange::new(i as i64 * 10, i as i64 * 10 + 9),
            priority: i as u64,
            base: Some(0),
            samples_max,
        };
        (0..n).map(group).collect()
    }

    #[test]
    fn parts_are_joined_only_when_there_are_too_many() {
        assert_eq!(join(groups(PARTS_MAX, 480)), groups(PARTS_MAX, 480));
        let joined = join(groups(17, 480));
        assert_eq!(joined.iter().map(|group| group.sources.len()).collect::<Vec<_>>(), [4, 4, 4, 4, 1]);
        assert_eq!(joined[4].base, Some(0), "the one left over is copied");
        assert_eq!((joined[1].base, joined[1].priority), (None, 4));
        assert_eq!(joined[1].window, TimeRange::new(40, 79));
    }

    #[test]
    fn columns_grow_beyond_the_aim_where_parts_are_many() {
        let joined = join(groups(168, 480));
        assert_eq!(joined.len(), 11);
        assert!(joined.iter().all(|group| group.samples_max <= 7680));
        assert_eq!(join(groups(20, COLUMN_SAMPLES_MAX)).len(), 20, "columns that cannot grow stay");
    }
}
