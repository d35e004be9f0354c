//! Opening the blocks that are there.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use chronolith_block::{Block, BlockCache, FileName, Ulid, block_path};
use chronolith_env::Env;
use chronolith_model::TenantId;
use parking_lot::{Mutex, RwLock};

use super::{BlockSet, Changes, Counters, Missing, TenantBlocks, Version, precedence, quarantine, range_of};
use crate::error::{Error, Result};

/// What opening the blocks found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlocksReport {
    /// Blocks opened.
    pub blocks: u64,
    /// Damaged blocks that were set aside now.
    pub quarantined: u64,
    /// Blocks that were removed because another one has their content.
    pub superseded: u64,
    /// Unfinished files that were removed.
    pub unfinished: u64,
}

/// A tenant's directory, being opened.
struct TenantDir<'a> {
    env: &'a Env,
    dir: PathBuf,
    tenant: &'a TenantId,
    cache: &'a BlockCache,
    report: &'a mut BlocksReport,
    found: TenantBlocks,
}

impl BlockSet {
    /// Opens all blocks below `dir`, which is made if need be. Nobody else may be at work there.
    pub(crate) fn open(env: &Env, dir: &Path, cache: BlockCache) -> Result<(Self, BlocksReport)> {
        let refused = |source| Error::Directory { dir: dir.to_path_buf(), source };
        env.fs.create_dir_all(dir).map_err(refused)?;
        let mut version = Version::default();
        let mut report = BlocksReport::default();
        for name in env.fs.list(dir).map_err(refused)? {
            let Ok(tenant) = TenantId::new(&name) else { continue };
            let mut of = TenantDir {
                env,
                dir: dir.join(&name),
                tenant: &tenant,
                cache: &cache,
                report: &mut report,
                found: TenantBlocks::default(),
            };
            of.open()?;
            let found = of.found;
            version.tenants.insert(tenant, Arc::new(found));
        }
        report.blocks = version.blocks().count() as u64;
        let highest = version.blocks().filter_map(|(_, block)| Some(block.priorities()?.1)).max();
        let changes = Changes {
            next_priority: highest.map_or(0, |highest| highest.saturating_add(1)),
            last_ulid: version.blocks().map(|(_, block)| block.meta().spec.ulid).max(),
            ..Changes::default()
        };
        let counters = Counters::default();
        counters.quarantined.store(report.quarantined, std::sync::atomic::Ordering::Relaxed);
        let set = Self {
            env: env.clone(),
            dir: dir.to_path_buf(),
            cache,
            current: RwLock::new(Arc::new(version)),
            changes: Mutex::new(changes),
            leftovers: Mutex::default(),
            counters,
            history: chronolith_storage::Changes::default(),
        };
        Ok((set, report))
    }
}

impl TenantDir<'_> {
    fn open(&mut self) -> Result<()> {
        let fs = &self.env.fs;
        let dir = self.dir.clone();
        let refused = |source| Error::Directory { dir: dir.clone(), source };
        let mut sidecars = Vec::new();
        for name in fs.list(&self.dir).map_err(refused)? {
            match FileName::parse(&name) {
                FileName::Temporary => {
                    fs.remove_file(&self.dir.join(&name)).map_err(refused)?;
                    self.report.unfinished += 1;
                }
                FileName::Block(ulid) => self.open_block(ulid)?,
                FileName::Tombstones(ulid) => sidecars.push((ulid, name)),
                FileName::Foreign if name == quarantine::DIR => {}
                FileName::Foreign => {
                    tracing::debug!(dir = %self.dir.display(), name, "a file that is not ours")
                }
            }
        }
        // A killed process may have left names of tombstones that are not durable yet. A deletion that is known from here on
        // is not written again when it is repeated.
        fs.sync_dir(&self.dir).map_err(refused)?;
        self.remove_superseded()?;
        let there: HashSet<Ulid> = self.found.blocks.iter().map(|block| block.meta().spec.ulid).collect();
        for (_, name) in sidecars.iter().filter(|(ulid, _)| !there.contains(ulid)) {
            match fs.remove_file(&self.dir.join(name)) {
                // Moved away with its block.
                Err(error) if !error.is_not_found() => return Err(refused(error)),
                _ => {}
            }
        }
        self.found.blocks.sort_by_key(precedence);
        self.found.missing = quarantine::missing(self.env, &self.dir).map_err(refused)?;
        Ok(())
    }

    fn open_block(&mut self, ulid: Ulid) -> Result<()> {
        let path = block_path(&self.dir, ulid);
        let problem = match Block::open(&self.env.fs, &path, self.cache) {
            Ok(block) => {
                let spec = &block.meta().spec;
                if spec.ulid == ulid && spec.tenant == *self.tenant {
                    self.found.blocks.push(block);
                    return Ok(());
                }
                format!("it says that it is block {} of tenant {}", spec.ulid, spec.tenant)
            }
            Err(error) if error.is_damage() => crate::error::with_causes(&error),
            Err(source) => return Err(Error::Block { source }),
        };
        tracing::error!(path = %path.display(), problem, "damaged block, set aside");
        self.report.quarantined += 1;
        quarantine::move_aside(self.env, &self.dir, ulid)
            .map_err(|source| Error::Directory { dir: self.dir.clone(), source })?;
        Ok(())
    }

    /// Removes blocks whose content another one has: a compaction ended without removing its inputs. Of blocks of the
    /// same sources the newest counts.
    fn remove_superseded(&mut self) -> Result<()> {
        let mut by_source: HashMap<Ulid, Vec<usize>> = HashMap::new();
        let blocks = &self.found.blocks;
        for (index, block) in blocks.iter().enumerate() {
            for source in sources(block) {
                by_source.entry(source).or_default().push(index);
            }
        }
        let superseded = |block: &Block| {
            let of = sources(block);
            let rivals = of.first().and_then(|source| by_source.get(source)).into_iter().flatten();
            rivals.filter_map(|index| blocks.get(*index)).any(|other| {
                let has: HashSet<Ulid> = sources(other).into_iter().collect();
                other.meta().spec.ulid > block.meta().spec.ulid
                    && of.iter().all(|source| has.contains(source))
            })
        };
        let gone: Vec<Ulid> =
            blocks.iter().filter(|block| superseded(block)).map(|block| block.meta().spec.ulid).collect();
        for ulid in &gone {
            let refused = |source| Error::Directory { dir: self.dir.clone(), source };
            self.env.fs.remove_file(&block_path(&self.dir, *ulid)).map_err(refused)?;
        }
        if !gone.is_empty() {
            self.env
                .fs
                .sync_dir(&self.dir)
                .map_err(|source| Error::Directory { dir: self.dir.clone(), source })?;
        }
        self.report.superseded += gone.len() as u64;
        self.found.blocks.retain(|block| !gone.contains(&block.meta().spec.ulid));
        Ok(())
    }
}

/// The blocks of level 1 that `block` has the content of.
pub(crate) fn sources(block: &Block) -> Vec<Ulid> {
    let spec = &block.meta().spec;
    if spec.sources.is_empty() { vec![spec.ulid] } else { spec.sources.clone() }
}

/// The block in a file of the quarantine, as what readers do without. One that cannot be opened, whatever the reason, may
/// have had samples of any time.
pub(super) fn missing_block(env: &Env, path: PathBuf) -> Missing {
    let range = Block::open(&env.fs, &path, &BlockCache::new(0)).ok().map(|block| range_of(&block));
    Missing { path, range }
}
