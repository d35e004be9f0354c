//! How much there is to compact.

use crate::{BlockId, BlockInfo, PlanOptions, plan};

/// What compaction is behind with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debt {
    /// How many compactions are due.
    pub plans: u64,
    /// How many bytes they read, and at most write.
    pub bytes: u64,
}

/// What there is to do until [`plan`] has nothing more to say about `blocks`, by estimate: sizes add up.
#[must_use]
pub fn debt(blocks: &[BlockInfo], options: &PlanOptions) -> Debt {
    let mut blocks = blocks.to_vec();
    let mut debt = Debt::default();
    // Each plan leaves fewer blocks or fewer tombstones.
    while let Some(plan) = plan(&blocks, options) {
        debt.plans += 1;
        debt.bytes = debt.bytes.saturating_add(plan.bytes);
        let (inputs, mut rest): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|block| plan.inputs.contains(&block.id));
        let id = inputs.iter().map(|block| block.id).max().unwrap_or(BlockId(0));
        rest.push(BlockInfo::predicted(id, &plan, &inputs.iter().collect::<Vec<_>>()));
        blocks = rest;
    }
    debt
}
