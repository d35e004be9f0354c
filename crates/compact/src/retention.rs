//! What to drop: by age, and by size.

use chronolith_model::Timestamp;

use crate::block::Availability;
use crate::{BlockId, BlockInfo};

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionOptions {
    /// The clock, in milliseconds.
    pub now: Timestamp,
    /// How old samples may become, in milliseconds; `None`: any age.
    pub age_ms_max: Option<i64>,
    /// How many bytes blocks and everything beside them may have; `None`: any number.
    pub bytes_max: Option<u64>,
    /// How many bytes are used beside the blocks: log, head.
    pub other_bytes: u64,
    /// Blocks are sent to object storage: those that are not there yet are kept.
    pub shipping: bool,
}

/// What retention comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// The blocks to drop, oldest first.
    pub drop: Vec<Dropped>,
    /// Bytes beyond the limit that cannot be dropped now: blocks that are at work or not shipped yet, or what is beside
    /// the blocks.
    pub bytes_over: u64,
    /// Blocks that are too old, and kept because they are not shipped yet.
    pub overdue: usize,
}

/// A block to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dropped {
    /// Which block.
    pub id: BlockId,
    /// Why.
    pub reason: DropReason,
}

/// Why a block is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// All of it is too old.
    Age,
    /// It is among the oldest of too many bytes.
    Size,
}

impl RetentionOptions {
    /// The oldest timestamp that is kept, in milliseconds; what is before it is too old.
    #[must_use]
    pub fn floor(&self) -> Timestamp {
        self.age_ms_max.map_or(i64::MIN, |age| self.now.saturating_sub(age.max(0)))
    }
}

/// Which of `blocks` to drop. The order of `blocks` does not matter.
///
/// A block is dropped because of its age when all of its time is before the floor. Then, while too many bytes are used,
/// the block with the oldest end is dropped. With shipping, a block that is not shipped is passed over. A block that is
/// at work ends the search by size: it may soon be gone, and nothing newer is to go instead of it.
#[must_use]
pub fn retention(blocks: &[BlockInfo], options: &RetentionOptions) -> Retained {
    let mut sorted: Vec<&BlockInfo> = blocks.iter().collect();
    sorted.sort_unstable_by_key(|block| (block.range.max(), block.range.min(), block.id));
    sorted.dedup_by_key(|block| block.id);
    let unshipped = |block: &BlockInfo| options.shipping && !block.shipped;
    let busy = |block: &BlockInfo| block.availability == Availability::Busy;
    let mut retained = Retained::default();
    let mut kept = Vec::with_capacity(sorted.len());
    let mut used = u128::from(options.other_bytes);
    for block in sorted {
        let old = block.range.max() < options.floor();
        if old && !busy(block) && !unshipped(block) {
            retained.drop.push(Dropped { id: block.id, reason: DropReason::Age });
            continue;
        }
        retained.overdue += usize::from(old && unshipped(block));
        used += u128::from(block.bytes);
        kept.push(block);
    }
    let max = options.bytes_max.map_or(u128::MAX, u128::from);
    for block in kept {
        if used <= max || busy(block) {
            break;
        }
        if !unshipped(block) {
            used -= u128::from(block.bytes);
            retained.drop.push(Dropped { id: block.id, reason: DropReason::Size });
        }
    }
    retained.bytes_over = u64::try_from(used.saturating_sub(max)).unwrap_or(u64::MAX);
    retained
}

#[cfg(test)]
mod tests;
