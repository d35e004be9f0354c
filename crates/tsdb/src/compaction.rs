//! Compaction: carries out what the planner of `compact` says.
//!
//! A merge becomes the truth with the rename of its block: whoever opens the directory later drops the blocks of which
//! another one has all sources. Nothing is deleted in blocks while a merge runs: whoever deletes interrupts it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chronolith_block::{
    Block, BlockCache, BlockSpec, MergeSpec, SOURCES_MAX, Ulid, WrittenBlock, merge, merge_bytes_max,
};
use chronolith_compact::{Levels, Plan, PlanOptions, Reason, plan};
use chronolith_env::{Job, Step};
use chronolith_model::TenantId;
use chronolith_storage::BudgetExceeded;

use crate::{
    blocks::{id_of, sources},
    options::to_millis,
    store::{Store, count},
};

/// Bytes of opened pieces kept for a merge; the cache of the queries is left alone.
const CACHE_BYTES: usize = 8 << 20;
/// No merge is charged with more than this part of the memory that all share: it rarely takes what it may take.
const MEMORY_PART: usize = 8;
/// The pauses after a merge that failed for want of room or an answer of the device.
const BACKOFF_MIN: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);
/// The pause after a merge that made way.
const PAUSE_CANCELLED: Duration = Duration::from_millis(100);

/// Merges blocks, one plan a step.
#[derive(Debug)]
pub(crate) struct Compaction {
    store: Arc<Store>,
    failures: u32,
}

/// Why blocks were not merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactionError {
    /// A block cannot be read or written.
    #[error("cannot merge blocks")]
    Block(#[from] chronolith_block::Error),
    /// The merged block would come from too many others.
    #[error("the block would have {got} sources, of {SOURCES_MAX} that are possible")]
    Sources {
        /// How many.
        got: usize,
    },
    /// A block of the plan is gone.
    #[error("a block of the plan is gone")]
    Gone,
    /// There is not enough memory left at the moment.
    #[error("cannot merge blocks now")]
    Memory(#[from] BudgetExceeded),
    /// The range is none.
    #[error("the range of the merged block is empty")]
    Range,
}

impl Compaction {
    pub(crate) const fn new(store: Arc<Store>) -> Self {
        Self { store, failures: 0 }
    }
}

impl Job for Compaction {
    fn step(&mut self, stopping: bool) -> Step {
        if stopping || self.store.stopping() {
            return Step::Done;
        }
        let Some((tenant, plan)) = next(&self.store, &plan_options(&self.store)) else {
            return Step::SleepFor(self.store.options.maintenance_interval);
        };
        match run(&self.store, &tenant, &plan) {
            Ok(()) => {
                self.failures = 0;
                Step::Again
            }
            Err(CompactionError::Gone) => Step::Again,
            // Somebody deletes, or this is the end.
            Err(CompactionError::Block(chronolith_block::Error::Cancelled)) => {
                Step::SleepFor(PAUSE_CANCELLED)
            }
            Err(error) => {
                count(&self.store.counters.compactions_failed, 1);
                let pause = BACKOFF_MIN.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MAX);
                self.failures = self.failures.saturating_add(1);
                tracing::error!(error = &error as &dyn std::error::Error, %tenant, "cannot compact");
                Step::SleepFor(pause)
            }
        }
    }
}

/// How to plan now.
pub(crate) fn plan_options(store: &Store) -> PlanOptions {
    let age = to_millis(store.options.retention);
    let span = to_millis(store.options.block_range_max);
    let levels = Levels::for_retention(Some(age));
    let levels = if span > 0 { Levels::up_to(span) } else { levels };
    PlanOptions {
        levels,
        space_bytes: store.room().unwrap_or(u64::MAX),
        late_ms: to_millis(store.options.ooo_window),
        floor: store.floor_for_good(),
        ..PlanOptions::default()
    }
}

/// What is to be done next.
pub(crate) fn next(store: &Store, options: &PlanOptions) -> Option<(TenantId, Plan)> {
    let version = store.blocks.version();
    version
        .tenants
        .iter()
        .find_map(|(tenant, of)| Some((tenant.clone(), plan(&store.blocks.infos(&of.blocks), options)?)))
}

/// Carries out a plan.
pub(crate) fn run(store: &Store, tenant: &TenantId, plan: &Plan) -> Result<(), CompactionError> {
    let _one_at_a_time = store.merging.lock();
    let version = store.blocks.version();
    let blocks = version.tenants.get(tenant).map(|of| of.blocks.as_slice()).unwrap_or_default();
    let by_id: HashMap<_, &Block> =
        blocks.iter().map(|block| (id_of(block.meta().spec.ulid), block)).collect();
    let inputs: Option<Vec<&Block>> = plan.inputs.iter().map(|id| by_id.get(id).copied()).collect();
    let inputs = inputs.ok_or(CompactionError::Gone)?;
    merge_blocks(store, tenant, &inputs, u8::try_from(plan.level).unwrap_or(u8::MAX), plan.reason)
}

/// Writes blocks anew that have tombstones.
pub(crate) fn clean(store: &Store) -> Result<(), CompactionError> {
    let _one_at_a_time = store.merging.lock();
    let version = store.blocks.version();
    for (tenant, block) in version.blocks().filter(|(_, block)| !block.tombstones().is_empty()) {
        let level = block.meta().spec.level.saturating_add(1);
        merge_blocks(store, tenant, &[block], level, Reason::Tombstones)?;
    }
    Ok(())
}

/// Merges `seen`, in this order of precedence, into one block in their place.
fn merge_blocks(
    store: &Store,
    tenant: &TenantId,
    seen: &[&Block],
    level: u8,
    reason: Reason,
) -> Result<(), CompactionError> {
    let dir = store.blocks.tenant_dir(tenant);
    let cache = BlockCache::new(CACHE_BYTES);
    let mut inputs = Vec::new();
    for block in seen {
        // Opened anew, with a cache of its own.
        inputs.push(Block::open(&store.env.fs, block.path(), &cache).inspect_err(|error| {
            if error.is_damage() {
                store.blocks.quarantine(tenant, block, error);
            }
        })?);
    }
    let inputs: Vec<&Block> = inputs.iter().collect();
    let memory = store.memory();
    let bytes = (CACHE_BYTES + merge_bytes_max(&inputs)).min(memory.max() / MEMORY_PART);
    let _reserved = memory.reserve(bytes)?;
    let ulid = store.blocks.next_ulid();
    let spec = spec(store, tenant, &inputs, ulid, level)?;
    let merged = merge(&store.env.fs, &dir, &inputs, &spec, &|| store.merge_is_unwanted());
    let merged = merged.inspect_err(|error| {
        // It may have got its name.
        drop_unseen(store, tenant, ulid);
        failed(store, tenant, seen, error);
    })?;
    let mut change = store.blocks.change();
    let old: Vec<Ulid> = merged.inputs.iter().map(|(ulid, _)| *ulid).collect();
    let there = change.tenant(tenant).blocks.iter().filter(|block| old.contains(&block.meta().spec.ulid));
    if there.count() != old.len() {
        drop(change);
        drop_unseen(store, tenant, ulid);
        return Err(CompactionError::Gone);
    }
    let open = |written: &WrittenBlock| Block::open(&store.env.fs, &written.path, &store.blocks.cache);
    let added = merged.block.as_ref().map(open);
    let added = added.transpose().inspect_err(|_| {
        drop_unseen(store, tenant, ulid);
    })?;
    change.remove(tenant, &old);
    if let Some(block) = added {
        change.add(tenant, block);
    }
    change.publish();
    count(&store.counters.compactions, 1);
    count(&store.counters.frames_copied, merged.frames_copied);
    count(&store.counters.frames_encoded, merged.frames_encoded);
    tracing::info!(
        %tenant, %ulid, inputs = old.len(), ?reason,
        frames_copied = merged.frames_copied, frames_encoded = merged.frames_encoded, "merged blocks"
    );
    if let Err(error) = store.blocks.remove_files(tenant, &old) {
        // The next start does it.
        tracing::error!(error = &error as &dyn std::error::Error, "cannot remove merged blocks");
    }
    Ok(())
}

/// Removes a block that was never shown: left alone, it would take the place of its inputs at the next start.
fn drop_unseen(store: &Store, tenant: &TenantId, ulid: Ulid) {
    if let Err(error) = store.blocks.remove_files(tenant, &[ulid]) {
        tracing::error!(error = &error as &dyn std::error::Error, %ulid, "cannot remove a block");
    }
}

fn spec(
    store: &Store,
    tenant: &TenantId,
    inputs: &[&Block],
    ulid: Ulid,
    level: u8,
) -> Result<MergeSpec, CompactionError> {
    let mut from: Vec<Ulid> = inputs.iter().flat_map(|block| sources(block)).collect();
    from.sort_unstable();
    from.dedup();
    if from.len() > SOURCES_MAX {
        return Err(CompactionError::Sources { got: from.len() });
    }
    let ranges = inputs.iter().map(|block| block.meta().spec.range);
    let range = ranges.reduce(|a, b| chronolith_block::BlockRange::new(a.min.min(b.min), a.max.max(b.max)));
    let range = range.ok_or(CompactionError::Range)?;
    let created = store.env.clock.now_ms();
    let block = BlockSpec { ulid, tenant: tenant.clone(), range, level, created, sources: from };
    Ok(MergeSpec { block, drop_until: None })
}

/// Sees to it that a failure is not repeated for ever.
fn failed(store: &Store, tenant: &TenantId, blocks: &[&Block], error: &chronolith_block::Error) {
    if error.is_damage() {
        // Which one it is says its path.
        let text = error.to_string();
        for block in blocks.iter().filter(|block| text.starts_with(&*block.path().to_string_lossy())) {
            store.blocks.quarantine(tenant, block, error);
        }
    } else if !matches!(error, chronolith_block::Error::Fs(_) | chronolith_block::Error::Cancelled) {
        // Nothing that time would mend.
        let ulids: Vec<Ulid> = blocks.iter().map(|block| block.meta().spec.ulid).collect();
        store.blocks.hold(&ulids);
    }
}
