//! The directory of an import, and how its blocks become blocks of the database.

use std::path::{Path, PathBuf};

use chronolith_block::{Block, FileName, Ulid, block_path};
use chronolith_env::{Env, Fs, OpenMode};
use chronolith_model::TenantId;

use super::ImportError;
use crate::{
    dir,
    error::{Error, Result},
    files::move_file,
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

/// Where it has its blocks. Whose they are says the directory: a start need not read them to know.
pub(super) fn finished(import: &Path, tenant: &TenantId) -> PathBuf {
    import.join(FINISHED).join(tenant.as_str())
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
    mark(fs, import, committed)?;
    // Durably, before anybody can merge them, or delete in them: a start that still finds the mark behind that finds no
    // block with it, and brings nothing back.
    let moved = move_blocks(fs, &finished(import, tenant), &to);
    let shown = moved.map_err(chronolith_block::Error::from).and_then(|()| {
        for ulid in blocks {
            let block = Block::open(&store.env.fs, &block_path(&to, *ulid), &store.blocks.cache)?;
            change.add(tenant, block);
        }
        Ok(())
    });
    shown.map_err(ImportError::NotShown)?;
    change.publish();
    remove(fs, import);
    Ok(())
}

/// Says, durably, that the blocks are complete; or takes that back, durably.
fn mark(fs: &dyn Fs, import: &Path, committed: &mut bool) -> Result<(), ImportError> {
    *committed = true;
    let marked = fs.open(&import.join(READY), OpenMode::CreateNew).and_then(|_| fs.sync_dir(import));
    let Err(error) = marked else { return Ok(()) };
    if unmark(fs, import).is_err() {
        return Err(ImportError::Uncertain(error));
    }
    *committed = false;
    Err(error.into())
}

/// Takes the mark away, durably.
fn unmark(fs: &dyn Fs, import: &Path) -> chronolith_env::Result<()> {
    match fs.remove_file(&import.join(READY)) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    fs.sync_dir(import)
}

/// Moves the blocks of an import that is ready to their places, durably: afterwards they are there and not here. May be
/// repeated: what is not there yet is still here.
fn move_blocks(fs: &dyn Fs, from: &Path, to: &Path) -> chronolith_env::Result<()> {
    for name in fs.list(from)? {
        if matches!(FileName::parse(&name), FileName::Block(_)) {
            move_file(fs, &from.join(&name), &to.join(&name))?;
        }
    }
    fs.sync_dir(to)?;
    fs.sync_dir(from)
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
        if name.parse::<Ulid>().is_err() {
            tracing::debug!(dir = %all.display(), name, "a file that is not ours");
            continue;
        }
        let import = all.join(name);
        // What an earlier process has left need not be durable, neither the mark nor that it is gone: it is before half of
        // the blocks are moved, or removed.
        fs.sync_dir(&import).map_err(refused)?;
        if fs.exists(&import.join(READY)).map_err(refused)? {
            recover_ready(fs, data_dir, &import).map_err(refused)?;
        }
        remove(fs, &import);
    }
    Ok(())
}

/// Moves all blocks, damaged ones too: they are set aside where blocks are opened.
fn recover_ready(fs: &dyn Fs, data_dir: &Path, import: &Path) -> chronolith_env::Result<()> {
    let all = import.join(FINISHED);
    if !fs.exists(&all)? {
        // It was shown, and removed but for its mark.
        return Ok(());
    }
    for name in fs.list(&all)? {
        let Ok(tenant) = TenantId::new(&name) else { continue };
        let to = dir::blocks(data_dir).join(tenant.as_str());
        fs.create_dir_all(&to)?;
        move_blocks(fs, &finished(import, &tenant), &to)?;
        tracing::info!(%tenant, import = %import.display(), "finished an import that was interrupted");
    }
    Ok(())
}

/// Removes the directory of an import, which is not marked or has no blocks any more. What cannot be removed is left to the
/// next start.
pub(super) fn remove(fs: &dyn Fs, import: &Path) {
    if let Err(error) = try_remove(fs, import) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot remove the directory of an import yet"
        );
    }
}

fn try_remove(fs: &dyn Fs, import: &Path) -> chronolith_env::Result<()> {
    match fs.remove_file(&import.join(READY)) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    let mut dirs = vec![runs(import)];
    let all = import.join(FINISHED);
    if fs.exists(&all)? {
        dirs.extend(fs.list(&all)?.into_iter().map(|tenant| all.join(tenant)));
        dirs.push(all);
    }
    for dir in dirs {
        if fs.exists(&dir)? {
            for name in fs.list(&dir)? {
                fs.remove_file(&dir.join(name))?;
            }
            fs.remove_dir(&dir)?;
        }
    }
    fs.remove_dir(import)
}
