//! What a planner knows of a block.

use std::fmt;

use chronolith_model::Timestamp;

use crate::Plan;

/// A merge gives a block at most this many parts: above, the series are encoded anew instead of copied, which leaves
/// one part, or as many as its longest columns need.
pub const PARTS_MAX: u32 = 16;

/// The identity of a block: the 128 bits of its ULID, so that ids order by time of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u128);

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockId({:x})", self.0)
    }
}

/// The time that a block is about: `(min, max]`, in milliseconds. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRange {
    // Invariant: min < max.
    min: Timestamp,
    max: Timestamp,
}

impl BlockRange {
    /// `(min, max]`; `None` if that is empty.
    #[must_use]
    pub const fn new(min: Timestamp, max: Timestamp) -> Option<Self> {
        if min < max { Some(Self { min, max }) } else { None }
    }

    /// Lower end, not included.
    #[must_use]
    pub const fn min(&self) -> Timestamp {
        self.min
    }

    /// Upper end, included.
    #[must_use]
    pub const fn max(&self) -> Timestamp {
        self.max
    }

    /// Whether the two have a millisecond in common.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.min < other.max && other.min < self.max
    }

    /// Whether all of `other` lies inside.
    #[must_use]
    pub const fn covers(&self, other: &Self) -> bool {
        self.min <= other.min && other.max <= self.max
    }

    /// From the earlier begin to the later end.
    #[must_use]
    pub fn hull(&self, other: &Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// The priority numbers of a block's parts. Each part has one, ascending by time of creation: where two parts have a
/// sample of one series at one timestamp, that of the lower number counts. A merged part has the lowest number of what
/// was merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priorities {
    /// The lowest of them.
    pub lowest: u64,
    /// The highest of them; the same for a block of one part.
    pub highest: u64,
}

impl Priorities {
    /// Of a block whose parts all have number `priority`.
    #[must_use]
    pub const fn one(priority: u64) -> Self {
        Self { lowest: priority, highest: priority }
    }
}

/// A block as a planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Which block.
    pub id: BlockId,
    /// The time it is about; samples lie inside, but need not reach its ends.
    pub range: BlockRange,
    /// How many compactions are behind it: 1 for a block cut from a head.
    pub level: u32,
    /// Its size on disk.
    pub bytes: u64,
    /// How many samples it has, deleted ones included.
    pub samples: u64,
    /// How many series it has.
    pub series: u64,
    /// How many parts it has, 1 at least.
    pub parts: u32,
    /// The priority numbers of its parts.
    pub priorities: Priorities,
    /// How many tombstones apply to it.
    pub tombstones: u64,
    /// How many of its samples are deleted, as far as is known: an estimate will do, what is deleted twice counts once.
    pub deleted_samples: u64,
    /// A copy is safe in object storage.
    pub shipped: bool,
    /// What may be done with it.
    pub availability: Availability,
}

/// What may be done with a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Availability {
    /// Everything.
    #[default]
    Free,
    /// It may be dropped but not compacted: its compaction has failed, or somebody wants it as it is.
    Held,
    /// Neither: something is at work on it now.
    Busy,
}

impl BlockInfo {
    /// The order in which blocks are heard: where two have the same sample, the first one counts.
    pub(crate) const fn precedence(&self) -> (u64, BlockId) {
        (self.priorities.lowest, self.id)
    }

    /// What a block made of `inputs` by `plan` will be at most: everything is added up, less what is known to be
    /// deleted. For estimates, such as [`crate::debt`]; the block itself knows better. `id`: of the block to be.
    #[must_use]
    pub fn predicted(id: BlockId, plan: &Plan, inputs: &[&Self]) -> Self {
        let sum =
            |of: fn(&Self) -> u64| inputs.iter().fold(0_u64, |sum, block| sum.saturating_add(of(block)));
        let kept = |block: &Self| block.samples.saturating_sub(block.deleted_samples);
        let priorities = inputs.iter().map(|block| block.priorities);
        let priorities = priorities
            .reduce(|a, b| Priorities { lowest: a.lowest.min(b.lowest), highest: a.highest.max(b.highest) });
        Self {
            id,
            range: plan.range,
            level: plan.level,
            bytes: sum(|block| block.bytes),
            samples: inputs.iter().fold(0, |sum, block| sum.saturating_add(kept(block))),
            // Series mostly go on from block to block.
            series: inputs.iter().map(|block| block.series).max().unwrap_or_default(),
            parts: plan.parts,
            priorities: priorities.unwrap_or(Priorities::one(0)),
            tombstones: 0,
            deleted_samples: 0,
            shipped: false,
            availability: Availability::Free,
        }
    }
}
