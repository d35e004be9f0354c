//! Damaged blocks: moved aside, so that everything else goes on.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use chronolith_block::{Block, FileName, Ulid, block_path, tombstones_path};
use chronolith_env::Env;
use chronolith_model::TenantId;

use super::{BlockSet, Missing, open::missing_block, range_of};

/// Where they go, beside the blocks of their tenant.
pub(super) const DIR: &str = "quarantine";
/// At most so many are looked at, and spoken of, per tenant.
const MISSING_MAX: usize = 1000;

impl BlockSet {
    /// Takes a block that was found to be damaged away from readers and moves it aside.
    pub(crate) fn quarantine(&self, tenant: &TenantId, block: &Block, problem: &chronolith_block::Error) {
        let ulid = block.meta().spec.ulid;
        let mut change = self.change();
        if !change.tenant(tenant).blocks.iter().any(|other| other.meta().spec.ulid == ulid) {
            // Somebody else has met the damage, or the block is gone.
            return;
        }
        let dir = self.tenant_dir(tenant);
        let path = match move_aside(&self.env, &dir, ulid) {
            Ok(path) => path,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, %ulid, "cannot move a damaged block aside");
                block.path().to_path_buf()
            }
        };
        tracing::error!(
            error = problem as &dyn std::error::Error,
            path = %path.display(),
            "damaged block, set aside; queries go on without it"
        );
        change.remove(tenant, &[ulid]);
        let missing = Missing { path, range: Some(range_of(block)) };
        change.tenant(tenant).missing.push(missing);
        change.publish();
        self.counters.quarantined.fetch_add(1, Ordering::Relaxed);
    }
}

/// Moves a block and its tombstones aside; says where the block is now.
pub(super) fn move_aside(env: &Env, dir: &Path, ulid: Ulid) -> chronolith_env::Result<PathBuf> {
    let to = dir.join(DIR);
    env.fs.create_dir_all(&to)?;
    // The tombstones first: a block without them would show what is deleted.
    match env.fs.rename(&tombstones_path(dir, ulid), &tombstones_path(&to, ulid)) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    let path = block_path(&to, ulid);
    env.fs.rename(&block_path(dir, ulid), &path)?;
    env.fs.sync_dir(&to)?;
    env.fs.sync_dir(dir)?;
    Ok(path)
}

/// The blocks that were moved aside from `dir`, by earlier processes too.
pub(super) fn missing(env: &Env, dir: &Path) -> chronolith_env::Result<Vec<Missing>> {
    let dir = dir.join(DIR);
    let names = match env.fs.list(&dir) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        names => names?,
    };
    let blocks = names.iter().filter(|name| matches!(FileName::parse(name), FileName::Block(_)));
    Ok(blocks.take(MISSING_MAX).map(|name| missing_block(env, dir.join(name))).collect())
}
