//! Files in memory: a run of the fuzzer must not wait for a disk.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_env::{Error, File, FileLock, Fs, Op, OpenMode, Result};
use parking_lot::Mutex;

type Content = Arc<Mutex<Vec<u8>>>;

/// A flat file system; directories are prefixes of names.
#[derive(Debug, Default)]
pub(crate) struct MemoryFs {
    files: Mutex<BTreeMap<PathBuf, Content>>,
}

#[derive(Debug)]
struct MemoryFile {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
struct NoLock;

impl FileLock for NoLock {}

impl MemoryFs {
    /// Puts a file in place.
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.files.lock().insert(path.to_owned(), Arc::new(Mutex::new(bytes)));
    }
}

impl Fs for MemoryFs {
    fn create_dir_all(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let files = self.files.lock();
        let mut names: Vec<String> = files
            .keys()
            .filter_map(|p| p.strip_prefix(dir).ok()?.components().next())
            .map(|c| c.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let mut files = self.files.lock();
        let missing = !files.contains_key(path);
        match mode {
            OpenMode::Read if missing => {
                return Err(Error::new(Op::Open, path, io::ErrorKind::NotFound.into()));
            }
            OpenMode::CreateNew if !missing => {
                return Err(Error::new(Op::Create, path, io::ErrorKind::AlreadyExists.into()));
            }
            _ => {}
        }
        let content = Arc::clone(files.entry(path.to_owned()).or_default());
        if mode == OpenMode::Truncate {
            content.lock().clear();
        }
        Ok(Box::new(MemoryFile { path: path.to_owned(), content }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut files = self.files.lock();
        let content =
            files.remove(from).ok_or_else(|| Error::new(Op::Rename, from, io::ErrorKind::NotFound.into()))?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let removed = self.files.lock().remove(path);
        removed.map(|_| ()).ok_or_else(|| Error::new(Op::Remove, path, io::ErrorKind::NotFound.into()))
    }

    fn sync_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.files.lock().keys().any(|p| p.starts_with(path)))
    }

    fn lock_exclusive(&self, _path: &Path) -> Result<Box<dyn FileLock>> {
        Ok(Box::new(NoLock))
    }
}

impl File for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.content.lock().extend_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&mut self) -> Result<()> {
        Ok(())
    }

    fn read_at(&self, off: u64, buf: &mut [u8]) -> Result<usize> {
        let content = self.content.lock();
        let rest = usize::try_from(off).ok().and_then(|off| content.get(off..)).unwrap_or_default();
        let length = rest.len().min(buf.len());
        buf[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.content.lock().len() as u64)
    }

    fn set_len(&mut self, len: u64) -> Result<()> {
        let length = usize::try_from(len).expect("a file that fits into memory");
        self.content.lock().resize(length, 0);
        Ok(())
    }
}
