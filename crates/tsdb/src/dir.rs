//! The data directory: `<data-dir>/{format,lock,cut,wal/,head/,blocks/<tenant>/,snapshots/,import/}`.

use std::path::{Path, PathBuf};

use chronolith_env::{Env, FileLock, Fs, OpenMode};

use crate::error::{Error, Result};

/// Version of the data directory. Version 1 has a log only; it is opened as well, and becomes this one.
pub const FORMAT_VERSION: u32 = 2;

/// The versions that are opened and raised.
const RAISED: [u32; 1] = [1];

const FORMAT: &str = "format";
const FORMAT_NEW: &str = "format.new";
const LOCK: &str = "lock";
/// Names that may be in a directory we take as new: what an interrupted first start leaves, and what a fresh file
/// system has.
const HARMLESS: [&str; 3] = [LOCK, FORMAT_NEW, "lost+found"];

/// A data directory that is ours alone while this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    _lock: Box<dyn FileLock>,
}

impl DataDir {
    /// Opens `path`, made if need be. Looks before it touches: a directory of something else stays as it is.
    pub(crate) fn open(env: &Env, path: &Path) -> Result<Self> {
        let fs = &*env.fs;
        let refused = |source| Error::Directory { dir: path.to_path_buf(), source };
        if fs.exists(path).map_err(refused)? {
            check(fs, path)?;
        } else {
            fs.create_dir_all(path).map_err(refused)?;
            // A directory whose own name is not durable would take everything with it.
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            fs.sync_dir(parent.unwrap_or(Path::new("."))).map_err(refused)?;
        }
        let lock = fs.lock_exclusive(&path.join(LOCK)).map_err(|source| match source {
            chronolith_env::Error::Locked { .. } => Error::Locked { dir: path.to_path_buf() },
            source => refused(source),
        })?;
        // Another process may have been faster between the look and the lock.
        if !check(fs, path)? {
            write_format(fs, path).map_err(refused)?;
        }
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// As [`DataDir::open`], of a directory that is there.
    pub(crate) fn open_existing(env: &Env, path: &Path) -> Result<Self> {
        let fs = &*env.fs;
        let refused = |source| Error::Directory { dir: path.to_path_buf(), source };
        if !fs.exists(&path.join(FORMAT)).map_err(refused)? {
            if fs.exists(path).map_err(refused)? {
                check(fs, path)?;
            }
            return Err(Error::NoDataDirectory { dir: path.to_path_buf() });
        }
        Self::open(env, path)
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    pub(crate) fn head(&self) -> PathBuf {
        head(&self.path)
    }

    pub(crate) fn blocks(&self) -> PathBuf {
        blocks(&self.path)
    }
}

/// Where the snapshots and chunk files of the head of a data directory are.
pub(crate) fn head(path: &Path) -> PathBuf {
    path.join("head")
}

/// Where the blocks of a data directory are.
pub(crate) fn blocks(path: &Path) -> PathBuf {
    path.join("blocks")
}

fn line(version: u32) -> String {
    format!("chronolith data directory, format {version}")
}

fn expected() -> String {
    line(FORMAT_VERSION)
}

/// Whether `path` is a data directory of our version; false for an empty directory, and for one to be raised.
fn check(fs: &dyn Fs, path: &Path) -> Result<bool> {
    let dir = || path.to_path_buf();
    let refused = |source| Error::Directory { dir: dir(), source };
    let names = fs.list(path).map_err(refused)?;
    if !names.iter().any(|name| name == FORMAT) {
        return match names.into_iter().find(|name| !HARMLESS.contains(&name.as_str())) {
            Some(example) => Err(Error::NotADataDirectory { dir: dir(), example }),
            None => Ok(false),
        };
    }
    let file = fs.open(&path.join(FORMAT), OpenMode::Read).map_err(refused)?;
    let mut text = [0; 100];
    let len = file.read_at(0, &mut text).map_err(refused)?;
    let got = String::from_utf8_lossy(text.get(..len).unwrap_or_default()).trim_end().to_owned();
    if got == expected() {
        return Ok(true);
    }
    if RAISED.iter().any(|version| got == line(*version)) {
        return Ok(false);
    }
    Err(Error::ForeignVersion { dir: dir(), got, expected: expected() })
}

/// Written aside and renamed: the file is whole or absent.
pub(crate) fn write_format(fs: &dyn Fs, path: &Path) -> chronolith_env::Result<()> {
    let new = path.join(FORMAT_NEW);
    let mut file = fs.open(&new, OpenMode::Truncate)?;
    file.write_all(format!("{}\n", expected()).as_bytes())?;
    file.sync_data()?;
    drop(file);
    fs.rename(&new, &path.join(FORMAT))?;
    fs.sync_dir(path)
}
