//! Compaction of blocks: which to merge, to rewrite and to drop.
//!
//! Everything here is a total function of descriptions of blocks: no files, no clock, no randomness; the same blocks in
//! any order give the same plan. Whoever holds the blocks asks for one plan, carries it out, and asks again; no plan
//! means that nothing is left to do. **Must not know:** HTTP; and, as long as there is no more than the planner, files.
//!
//! Map: [`BlockInfo`] a block as a planner sees it · [`Levels`] the windows that blocks grow into · [`plan`] the next
//! thing to do, [`debt`] how much there is to do in all · [`retention`] what to drop.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod block;
mod debt;
mod levels;
mod overlap;
mod plan;
mod retention;

pub use block::{Availability, BlockId, BlockInfo, BlockRange, PARTS_MAX, Priorities};
pub use debt::{Debt, debt};
pub use levels::{BASE_WINDOW_MS, LEVELS_MAX, Levels, LevelsError};
pub use plan::{INPUTS_MAX, OVERLAPPING_MAX, Plan, PlanOptions, Reason, TOMBSTONE_SHARE_PERMILLE, plan};
pub use retention::{DropReason, Dropped, Retained, RetentionOptions, retention};
