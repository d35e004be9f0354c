//! The blocks of a database: which there are, and what readers see of them.
//!
//! What readers see is a [`Version`]: the blocks of all tenants, and from where on the head is asked. It changes as a
//! whole, by one swap, so that no sample is seen twice or not at all while it moves from the head into a block, or from
//! block to block. Whoever changes it holds [`BlockSet::change`].

mod open;
mod quarantine;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use chronolith_block::{Block, BlockCache, Tombstone, Ulid, block_path, tombstones_path};
use chronolith_compact::{Availability, BlockId, BlockInfo, BlockRange, Priorities};
use chronolith_env::Env;
use chronolith_head::CutPoint;
use chronolith_model::{TenantId, TimeRange, Timestamp};
use parking_lot::{Mutex, MutexGuard, RwLock};

pub use open::BlocksReport;
pub(crate) use open::sources;

use crate::deletion::Deletion;

/// The level of blocks that cuts write. Deletions in the head concern what they have.
pub(crate) const CUT_LEVEL: u8 = 1;
/// The level of blocks that imports write, as of merged ones: what was deleted in the head before they were shown is not
/// about them.
pub(crate) const IMPORTED_LEVEL: u8 = 2;

/// The blocks in a directory, `<dir>/<tenant>/<ulid>.block`.
#[derive(Debug)]
pub(crate) struct BlockSet {
    pub(crate) env: Env,
    dir: PathBuf,
    pub(crate) cache: BlockCache,
    current: RwLock<Arc<Version>>,
    changes: Mutex<Changes>,
    /// Blocks whose files could not be removed. The next start would show them, without what was deleted since.
    leftovers: Mutex<Vec<(TenantId, Ulid)>>,
    counters: Counters,
    /// What is shown changes: by a change of the blocks, or because the head has taken something.
    pub(crate) history: chronolith_storage::Changes,
}

/// What is known to whoever changes the blocks.
#[derive(Debug, Default)]
struct Changes {
    next_priority: u64,
    last_ulid: Option<Ulid>,
    /// Versions that were replaced, and may still have readers.
    replaced: Vec<Weak<Version>>,
    /// Blocks whose compaction has failed.
    held: HashSet<Ulid>,
}

#[derive(Debug, Default)]
struct Counters {
    quarantined: AtomicU64,
}

/// What readers see. Views hold it as long as they live.
#[derive(Clone, Debug, Default)]
pub(crate) struct Version {
    pub(crate) tenants: BTreeMap<TenantId, Arc<TenantBlocks>>,
    /// The head is asked for what is behind this.
    pub(crate) head_from: CutPoint,
    /// What is deleted in the head.
    pub(crate) deletions: Arc<[Deletion]>,
}

/// A tenant's blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct TenantBlocks {
    /// By precedence: where two have the same sample, the earlier one counts.
    pub(crate) blocks: Vec<Block>,
    /// Blocks that were set aside.
    pub(crate) missing: Vec<Missing>,
}

/// A block that readers do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Where it is now.
    pub(crate) path: PathBuf,
    /// What it has, if that is known.
    pub(crate) range: Option<TimeRange>,
}

/// The right to change what blocks there are. Readers go on meanwhile.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    set: &'a BlockSet,
    changes: MutexGuard<'a, Changes>,
    /// What readers are to see.
    pub(crate) version: Version,
}

/// Counts of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockStats {
    /// Blocks, of all tenants.
    pub blocks: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Their samples of both kinds, deleted ones included.
    pub samples: u64,
    /// Tombstones in them.
    pub tombstones: u64,
    /// Bytes of memory behind them, the cache not counted.
    pub heap_bytes: u64,
    /// Bytes of opened pieces in the cache.
    pub cache_bytes: u64,
    /// Damaged blocks that were set aside since the start.
    pub quarantined: u64,
    /// Damaged blocks that are set aside.
    pub missing: u64,
    /// First and last timestamp.
    pub times: Option<(i64, i64)>,
}

/// Where two blocks have the same sample, that of the lower number counts.
pub(crate) fn precedence(block: &Block) -> (u64, Ulid) {
    (block.priorities().map_or(0, |(lowest, _)| lowest), block.meta().spec.ulid)
}

/// The time a block is about, both ends included.
pub(crate) fn range_of(block: &Block) -> TimeRange {
    block.meta().spec.range.closed()
}

/// The id of a block to the planner.
pub(crate) fn id_of(ulid: Ulid) -> BlockId {
    BlockId(u128::from_be_bytes(ulid.to_bytes()))
}

impl BlockSet {
    pub(crate) fn tenant_dir(&self, tenant: &TenantId) -> PathBuf {
        self.dir.join(tenant.as_str())
    }

    /// What readers see now.
    pub(crate) fn version(&self) -> Arc<Version> {
        Arc::clone(&self.current.read())
    }

    /// Waits until nobody else changes anything.
    pub(crate) fn change(&self) -> Change<'_> {
        let changes = self.changes.lock();
        Change { version: Version::clone(&self.current.read()), changes, set: self }
    }

    /// An id for a new block: behind all that were given out or found, so that of two blocks of the same content the
    /// newer one is known.
    pub(crate) fn next_ulid(&self) -> Ulid {
        let mut changes = self.changes.lock();
        let mut ulid = Ulid::generate(&*self.env.clock, &*self.env.rng);
        if let Some(last) = changes.last_ulid.filter(|last| ulid <= *last) {
            let next = u128::from_be_bytes(last.to_bytes()).saturating_add(1);
            ulid = Ulid::from_bytes(next.to_be_bytes());
        }
        changes.last_ulid = Some(ulid);
        ulid
    }

    /// A priority number for a new part, behind all others.
    pub(crate) fn next_priority(&self) -> u64 {
        let mut changes = self.changes.lock();
        changes.next_priority += 1;
        changes.next_priority - 1
    }

    /// What a planner has to know of `blocks`.
    pub(crate) fn infos(&self, blocks: &[Block]) -> Vec<BlockInfo> {
        let held = self.changes.lock().held.clone();
        blocks.iter().filter_map(|block| info(block, held.contains(&block.meta().spec.ulid))).collect()
    }

    /// Leaves `blocks` as they are from now on.
    pub(crate) fn hold(&self, blocks: &[Ulid]) {
        self.changes.lock().held.extend(blocks);
    }

    pub(crate) fn stats(&self) -> BlockStats {
        let version = self.version();
        let mut stats = BlockStats {
            cache_bytes: self.cache.stats().bytes,
            quarantined: self.counters.quarantined.load(Ordering::Relaxed),
            ..BlockStats::default()
        };
        for tenant in version.tenants.values() {
            stats.missing += tenant.missing.len() as u64;
            for block in &tenant.blocks {
                stats.blocks += 1;
                stats.bytes += block.file_bytes();
                stats.samples += block.meta().samples + block.meta().histograms;
                stats.tombstones += block.tombstones().len() as u64;
                stats.heap_bytes += block.heap_bytes() as u64;
                if let Some(range) = block.samples_range() {
                    let (min, max) = stats.times.unwrap_or((range.min, range.max));
                    stats.times = Some((min.min(range.min), max.max(range.max)));
                }
            }
        }
        stats
    }
}

fn info(block: &Block, held: bool) -> Option<BlockInfo> {
    let meta = block.meta();
    let (lowest, highest) = block.priorities().unwrap_or_default();
    Some(BlockInfo {
        id: id_of(meta.spec.ulid),
        range: BlockRange::new(meta.spec.range.min, meta.spec.range.max)?,
        level: meta.spec.level.into(),
        bytes: block.file_bytes(),
        samples: meta.samples + meta.histograms,
        series: meta.series.into(),
        parts: u32::try_from(block.parts()).unwrap_or(u32::MAX).max(1),
        priorities: Priorities { lowest, highest },
        tombstones: block.tombstones().len() as u64,
        deleted_samples: block.deleted_samples(),
        shipped: false,
        availability: if held { Availability::Held } else { Availability::Free },
    })
}

impl Version {
    /// The newest timestamp in blocks.
    pub(crate) fn newest(&self) -> Option<Timestamp> {
        let blocks = self.tenants.values().flat_map(|tenant| &tenant.blocks);
        blocks.filter_map(|block| Some(block.samples_range()?.max)).max()
    }

    /// All blocks, with their tenants.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (&TenantId, &Block)> {
        self.tenants.iter().flat_map(|(tenant, of)| of.blocks.iter().map(move |block| (tenant, block)))
    }
}

impl Change<'_> {
    /// The blocks of `tenant`, to be changed.
    pub(crate) fn tenant(&mut self, tenant: &TenantId) -> &mut TenantBlocks {
        Arc::make_mut(self.version.tenants.entry(tenant.clone()).or_default())
    }

    /// Adds a block to what readers are to see.
    pub(crate) fn add(&mut self, tenant: &TenantId, block: Block) {
        let blocks = &mut self.tenant(tenant).blocks;
        blocks.push(block);
        blocks.sort_by_key(precedence);
    }

    /// Takes blocks away from what readers are to see.
    pub(crate) fn remove(&mut self, tenant: &TenantId, ulids: &[Ulid]) {
        self.tenant(tenant).blocks.retain(|block| !ulids.contains(&block.meta().spec.ulid));
        for ulid in ulids {
            self.changes.held.remove(ulid);
        }
    }

    /// Deletes in a block, unless it has the same tombstone already. Answers whether a series of it is meant.
    pub(crate) fn delete(block: &Block, tombstone: Tombstone) -> chronolith_block::Result<bool> {
        if !tombstone.ranges.iter().any(|range| range.overlaps(&range_of(block))) {
            return Ok(false);
        }
        if block.tombstones().contains(&tombstone) {
            return Ok(true);
        }
        block.delete(tombstone)
    }

    /// Shows the version to readers. Returns those replaced so far that may still have readers.
    pub(crate) fn publish(mut self) -> Vec<Weak<Version>> {
        self.version.tenants.retain(|_, of| !of.blocks.is_empty() || !of.missing.is_empty());
        let version = Arc::new(std::mem::take(&mut self.version));
        let old = std::mem::replace(&mut *self.set.current.write(), version);
        // Cuts and merges show the same as before. But they are few, and it would have to be proven.
        self.set.history.note(Timestamp::MIN);
        self.changes.replaced.push(Arc::downgrade(&old));
        drop(old);
        self.changes.replaced.retain(|version| version.strong_count() > 0);
        self.changes.replaced.clone()
    }
}

impl BlockSet {
    /// Removes the files of blocks that no version to come shows. Files first, so that what is deleted in a block
    /// stays deleted wherever this is interrupted.
    pub(crate) fn remove_files(&self, tenant: &TenantId, ulids: &[Ulid]) -> chronolith_env::Result<()> {
        self.try_remove_files(tenant, ulids).inspect_err(|_| {
            self.leftovers.lock().extend(ulids.iter().map(|ulid| (tenant.clone(), *ulid)));
        })
    }

    /// Removes what could not be removed before. As long as that fails, nothing may count as deleted in all blocks.
    pub(crate) fn remove_leftovers(&self) -> chronolith_env::Result<()> {
        let mut leftovers = self.leftovers.lock();
        while let Some((tenant, ulid)) = leftovers.last() {
            self.try_remove_files(tenant, &[*ulid])?;
            leftovers.pop();
        }
        Ok(())
    }

    fn try_remove_files(&self, tenant: &TenantId, ulids: &[Ulid]) -> chronolith_env::Result<()> {
        let (fs, dir) = (&self.env.fs, self.tenant_dir(tenant));
        let remove = |path: PathBuf| match fs.remove_file(&path) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        };
        if ulids.is_empty() {
            return Ok(());
        }
        for ulid in ulids {
            remove(block_path(&dir, *ulid))?;
        }
        // Durable: of a block that was merged, nothing else may come to know later.
        fs.sync_dir(&dir)?;
        for ulid in ulids {
            remove(tombstones_path(&dir, *ulid))?;
        }
        Ok(())
    }
}
