//! The next compaction.
//!
//! In this order: blocks that overlap, oldest first; then blocks of which much is deleted; then blocks that fill a window
//! of a level, the longest window first, oldest first. Only windows that are over are merged, and not before what may
//! come late has come; gaps in them do not matter. A plan of the first and third kind leaves fewer blocks than there
//! were, one of the second fewer blocks with tombstones and as many blocks: planning ends.
//!
//! Samples that come in order are written by compactions at most once per level: when a window is merged nothing more
//! will come into it, so the next merge of its block is of a longer window. With windows of 2 h cut whole, the lowest
//! level is written by the cut.

use chronolith_model::Timestamp;

use crate::block::{Availability, PARTS_MAX};
use crate::levels::window_of;
use crate::overlap::{Component, components};
use crate::{BlockId, BlockInfo, BlockRange, Levels};

/// At most so many blocks are merged at once: each is an open file with buffers. More only where overlapping blocks
/// have interleaved priorities, and never because of windows.
pub const INPUTS_MAX: usize = 32;

/// So many overlapping blocks are merged although more may be expected to overlap them: reading has to look into each.
pub const OVERLAPPING_MAX: usize = 8;

/// A block with at least this part of its samples deleted is rewritten, in thousandths.
pub const TOMBSTONE_SHARE_PERMILLE: u64 = 100;

/// How to plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// The windows that blocks grow into. Default: those of a retention of 15 days.
    pub levels: Levels,
    /// No window is merged into a block larger than this; blocks that overlap are merged all the same. Default: 128 GiB.
    pub output_bytes_max: u64,
    /// Free space: no plan has inputs larger than this. Default: no limit.
    pub space_bytes: u64,
    /// Most blocks merged at once, 2 at least. Default: [`INPUTS_MAX`].
    pub inputs_max: usize,
    /// A block is rewritten when this part of its samples is deleted, in thousandths; 0: whenever it has tombstones.
    /// Default: [`TOMBSTONE_SHARE_PERMILLE`].
    pub tombstone_share_permille: u64,
    /// How late samples may come, in milliseconds: windows that may still get some wait. Default: 1 h.
    pub late_ms: i64,
    /// Up to here nothing more will come, whatever the blocks tell, and no window waits; a timestamp in milliseconds.
    /// `i64::MAX` compacts to the end. Default: `None`, the blocks tell.
    pub settled: Option<Timestamp>,
    /// Samples before this, in milliseconds, are out of retention: blocks that have only such are left to be dropped.
    /// Default: `i64::MIN`.
    pub floor: Timestamp,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            levels: Levels::default(),
            output_bytes_max: 128 << 30,
            space_bytes: u64::MAX,
            inputs_max: INPUTS_MAX,
            tombstone_share_permille: TOMBSTONE_SHARE_PERMILLE,
            late_ms: 3_600_000,
            settled: None,
            floor: i64::MIN,
        }
    }
}

/// One compaction: these blocks become one, or none if nothing of them is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The blocks to merge; where samples meet, the earlier one counts. One for [`Reason::Tombstones`], else two at
    /// least.
    pub inputs: Vec<BlockId>,
    /// The time the new block is about: from the begin of the first to the end of the last.
    pub range: BlockRange,
    /// The level of the new block.
    pub level: u32,
    /// Why.
    pub reason: Reason,
    /// The size of the inputs, which the new block will hardly exceed.
    pub bytes: u64,
    /// Parts of the new block if nothing of it overlaps: those of the inputs, or 1 above [`PARTS_MAX`], which means that
    /// the series are encoded anew.
    pub parts: u32,
}

/// Why blocks are compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// They overlap in time.
    Overlap,
    /// Much of the block is deleted.
    Tombstones,
    /// They fill a window.
    Level {
        /// How long the window is, in milliseconds.
        window_ms: i64,
    },
}

/// The next compaction of `blocks`, which are all blocks of one tenant and resolution; `None` if there is nothing to do
/// now. The order of `blocks` does not matter. An id that is there twice counts once.
#[must_use]
pub fn plan(blocks: &[BlockInfo], options: &PlanOptions) -> Option<Plan> {
    let mut sorted: Vec<&BlockInfo> =
        blocks.iter().filter(|block| block.range.max() >= options.floor).collect();
    sorted.sort_unstable_by_key(|block| (block.range.min(), block.range.max(), block.id));
    sorted.dedup_by_key(|block| block.id);
    let planner = Planner { components: components(&sorted), settled: settled(&sorted, options), options };
    planner.overlap().or_else(|| {
        let level = planner.level();
        // What a merge takes along needs no rewriting of its own.
        let in_merge = |block: &BlockInfo| level.as_ref().is_some_and(|plan| plan.inputs.contains(&block.id));
        match planner.tombstones() {
            Some(block) if !in_merge(block) => Some(Plan::new(&[block], Reason::Tombstones)),
            _ => level,
        }
    })
}

/// Up to where nothing more is expected: what lies before the newest block, less what may come late. The blocks are
/// sorted.
fn settled(blocks: &[&BlockInfo], options: &PlanOptions) -> Timestamp {
    let told = options.settled.unwrap_or(i64::MIN);
    let Some(end) = blocks.iter().map(|block| block.range.max()).max() else { return told };
    let newest = blocks.iter().filter(|block| block.range.max() == end);
    let begin = newest.map(|block| block.range.min()).min().unwrap_or(end);
    begin.min(end.saturating_sub(options.late_ms.max(0))).max(told)
}

impl Plan {
    /// Of `inputs`, in the order of precedence, not empty.
    fn new(inputs: &[&BlockInfo], reason: Reason) -> Self {
        let range = inputs.iter().map(|block| block.range).reduce(|a, b| a.hull(&b));
        let level = inputs.iter().map(|block| block.level).max().unwrap_or_default().saturating_add(1);
        let parts = inputs.iter().fold(0_u32, |sum, block| sum.saturating_add(block.parts.max(1)));
        Self {
            inputs: inputs.iter().map(|block| block.id).collect(),
            range: range.expect("a plan has inputs"),
            level,
            reason,
            bytes: bytes(inputs),
            parts: if parts > PARTS_MAX { 1 } else { parts },
        }
    }
}

fn bytes(blocks: &[&BlockInfo]) -> u64 {
    blocks.iter().fold(0, |sum, block| sum.saturating_add(block.bytes))
}

fn is_free(block: &BlockInfo) -> bool {
    block.availability == Availability::Free
}

/// The blocks as they hang together.
struct Planner<'a> {
    components: Vec<Component<'a>>,
    settled: Timestamp,
    options: &'a PlanOptions,
}

impl<'a> Planner<'a> {
    /// The oldest blocks that overlap, all of them together.
    fn overlap(&self) -> Option<Plan> {
        self.components.iter().filter(|component| component.blocks.len() > 1).find_map(|component| {
            let end = component.blocks.iter().map(|block| block.range.max()).max()?;
            let due = end <= self.settled || component.blocks.len() >= OVERLAPPING_MAX;
            // Not even one may be left out.
            if !due || !component.blocks.iter().all(|block| is_free(block)) {
                return None;
            }
            let inputs = component.merge_first(self.inputs_max());
            self.fits(&inputs).then(|| Plan::new(&inputs, Reason::Overlap))
        })
    }

    /// The block in which most bytes are deleted, of those of which enough is.
    fn tombstones(&self) -> Option<&'a BlockInfo> {
        let share = |block: &BlockInfo, of: u64| {
            u128::from(block.deleted_samples) * u128::from(of) / u128::from(block.samples.max(1))
        };
        let candidates = self.lone_blocks().filter(|block| {
            block.tombstones > 0
                && share(block, 1000) >= u128::from(self.options.tombstone_share_permille)
                && self.fits(&[block])
        });
        candidates.max_by_key(|block| (share(block, block.bytes), std::cmp::Reverse(block.id)))
    }

    /// The blocks of the oldest of the longest windows that have several and will get no more. Where the only such
    /// windows have more blocks than may be merged at once, neighbours in the shortest of them.
    fn level(&self) -> Option<Plan> {
        let lengths = self.options.levels.lengths_ms();
        let whole = lengths.iter().rev().find_map(|&window_ms| self.windows(window_ms, usize::MAX));
        whole.or_else(|| lengths.iter().find_map(|&window_ms| self.windows(window_ms, self.inputs_max())))
    }

    /// The oldest merge of blocks of one window of `window_ms`: of all, or of the first `take`.
    fn windows(&self, window_ms: i64, take: usize) -> Option<Plan> {
        let blocks = self.components.iter().filter_map(|component| match component.blocks[..] {
            [block] => Some((block, window_of(&block.range, window_ms)?)),
            _ => None,
        });
        let blocks: Vec<_> = blocks.collect();
        let mut windows = blocks.chunk_by(|(_, a), (_, b)| a == b);
        windows.find_map(|window| self.window(window, window_ms, take))
    }

    /// The merge of the first `take` blocks of one window, which are in the order of time.
    fn window(&self, members: &[(&'a BlockInfo, BlockRange)], window_ms: i64, take: usize) -> Option<Plan> {
        let [(_, window), _, ..] = members else { return None };
        let complete = window.max() <= self.settled && !self.has_overlaps(window);
        if !complete || !members.iter().all(|(block, _)| is_free(block)) {
            return None;
        }
        let mut inputs: Vec<&BlockInfo> = members.iter().map(|(block, _)| *block).take(take).collect();
        inputs.sort_unstable_by_key(|block| block.precedence());
        let small = inputs.len() <= self.inputs_max() && bytes(&inputs) <= self.options.output_bytes_max;
        (small && self.fits(&inputs)).then(|| Plan::new(&inputs, Reason::Level { window_ms }))
    }

    /// Whether blocks that overlap reach into `window`: they come first.
    fn has_overlaps(&self, window: &BlockRange) -> bool {
        let several = self.components.iter().filter(|component| component.blocks.len() > 1);
        several.flat_map(|component| &component.blocks).any(|block| block.range.overlaps(window))
    }

    /// Blocks that overlap no other and may be compacted.
    fn lone_blocks(&self) -> impl Iterator<Item = &'a BlockInfo> {
        self.components.iter().filter_map(|component| match component.blocks[..] {
            [block] if is_free(block) => Some(block),
            _ => None,
        })
    }

    fn inputs_max(&self) -> usize {
        self.options.inputs_max.max(2)
    }

    fn fits(&self, inputs: &[&BlockInfo]) -> bool {
        bytes(inputs) <= self.options.space_bytes
    }
}

#[cfg(test)]
mod tests;
