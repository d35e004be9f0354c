//! The directory of an import, and how its blocks become blocks of the database.

use std::path::{Path, PathBuf};

use chronolith_block::{Block, Ulid, block_path};
use chronolith_env::{Env, Fs, OpenMode};
use chronolith_model::TenantId;

use super::ImportError;
use crate::{
    dir,
    error::{Error, Result},
    store::Store,
};

const DIR: &str = "import";
const RUNS: &str = "runs";
const FINISHED: &str = "blocks";
/// Says that the blocks are complete.
const READY: &str = "ready";

/// Where imports are, in a data directory.
pub(super) fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join(DIR)
}

/// Where an import has its runs.
pub(super) fn runs(import: &Path) -> PathBuf {
    import.join(RUNS)
}

/// Where it has its blocks.
pub(super) fn finished(import: &Path) -> PathBuf {
    import.join(FINISHED)
}

/// Shows `blocks`, which are durable in the directory of the import.
pub(super) fn publish(
    store: &Store,
    tenant: &TenantId,
    import: &Path,
    blocks: &[Ulid],
    committed: &mut bool,
) -> Result<(), ImportError> {
    let fs = &*store.env.fs;
    let to = store.blocks.tenant_dir(tenant);
    fs.create_dir_all(&to)?;
    // Held while the directory may change: who closes the database waits for it.
    let mut change = store.blocks.change();
    if store.stopping() {
        return Err(ImportError::Stopped);
    }
    // If it fails, the mark may have become durable: the directory stays, for the next start to decide.
    *committed = true;
    let marked = fs.open(&import.join(READY), OpenMode::CreateNew).and_then(|_| fs.sync_dir(import));
    if let Err(error) = marked {
        // Taken back if that is possible, so that nothing is stored.
        *committed = fs.remove_file(&import.join(READY)).and_then(|()| fs.sync_dir(import)).is_err();
        return Err(error.into());
    }
    let shown = link_blocks(fs, import, &to).map_err(chronolith_block::Error::from).and_then(|()| {
        for ulid in blocks {
            let path = block_path(&to, *ulid);
            let block = Block::open(&store.env.fs, &path, &store.blocks.cache)?;
            change.add(tenant, block);
        }
        Ok(())
    });
    shown.map_err(ImportError::NotShown)?;
    // Before anybody can merge them, or delete in them: a start behind that must not bring them back.
    remove(fs, import);
    change.publish();
    Ok(())
}

/// Gives the blocks of an import that is ready their places, by further names: until these are durable they keep the old
/// ones. May be repeated.
fn link_blocks(fs: &dyn Fs, import: &Path, to: &Path) -> chronolith_env::Result<()> {
    let from = finished(import);
    for name in fs.list(&from)? {
        if !fs.exists(&to.join(&name))? {
            fs.hard_link(&from.join(&name), &to.join(&name))?;
        }
    }
    fs.sync_dir(to)
}

/// Finishes, at a start, the imports that are ready, and removes the others.
pub(crate) fn recover(env: &Env, data_dir: &Path) -> Result<()> {
    let refused = |source| Error::Directory { dir: data_dir.to_path_buf(), source };
    let fs = &*env.fs;
    let all = dir(data_dir);
    if !fs.exists(&all).map_err(refused)? {
        return Ok(());
    }
    for name in fs.list(&all).map_err(refused)? {
        let import = all.join(name);
        if fs.exists(&import.join(READY)).map_err(refused)? {
            recover_ready(env, data_dir, &import)?;
        }
        remove(fs, &import);
    }
    Ok(())
}

fn recover_ready(env: &Env, data_dir: &Path, import: &Path) -> Result<()> {
    let fs = &*env.fs;
    let refused = |source| Error::Directory { dir: data_dir.to_path_buf(), source };
    // A name that is there need not be durable yet: it is before anything rests on it.
    fs.sync_dir(import).map_err(refused)?;
    let from = finished(import);
    let names =
        if fs.exists(&from).map_err(refused)? { fs.list(&from).map_err(refused)? } else { Vec::new() };
    let mut tenant = None;
    for name in &names {
        let path = from.join(name);
        match Block::open(&env.fs, &path, &chronolith_block::BlockCache::new(0)) {
            Ok(block) => tenant = Some(block.meta().spec.tenant.clone()),
            // It is set aside where blocks are opened; which tenant's it is, another one says.
            Err(error) if error.is_damage() => {
                tracing::error!(error = &error as &dyn std::error::Error, path = %path.display(), "a damaged block of an import");
            }
            Err(source) => return Err(Error::Block { source }),
        }
    }
    let Some(tenant) = tenant else { return Ok(()) };
    let to = dir::blocks(data_dir).join(tenant.as_str());
    fs.create_dir_all(&to).map_err(refused)?;
    link_blocks(fs, import, &to).map_err(refused)?;
    tracing::info!(%tenant, blocks = names.len(), "finished an import that was interrupted");
    Ok(())
}

/// Removes the directory of an import: the mark first, so that half of it is never taken for all. What cannot be removed
/// is left to the next start.
pub(super) fn remove(fs: &dyn Fs, import: &Path) {
    let mark = import.join(READY);
    if fs.exists(&mark).unwrap_or(true) {
        let removed = fs.remove_file(&mark).and_then(|()| fs.sync_dir(import));
        if let Err(error) = removed {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot remove the directory of an import yet"
            );
            return;
        }
    }
    for dir in [runs(import), finished(import)] {
        for name in fs.list(&dir).unwrap_or_default() {
            let _ = fs.remove_file(&dir.join(name));
        }
        let _ = fs.remove_dir(&dir);
    }
    for name in fs.list(import).unwrap_or_default() {
        let _ = fs.remove_file(&import.join(name));
    }
    let _ = fs.remove_dir(import);
}
