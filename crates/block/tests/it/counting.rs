//! A file system that notes every read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chronolith_env::{File, FileLock, Fs, OpenMode, Result};

/// File, offset and bytes of a read.
pub(crate) type Read = (PathBuf, u64, u64);

#[derive(Clone, Debug)]
pub(crate) struct Counting {
    inner: Arc<dyn Fs>,
    reads: Arc<Mutex<Vec<Read>>>,
}

#[derive(Debug)]
struct Counted {
    inner: Box<dyn File>,
    reads: Arc<Mutex<Vec<Read>>>,
}

impl Counting {
    pub(crate) fn new(inner: Arc<dyn Fs>) -> Self {
        Self { inner, reads: Arc::default() }
    }

    /// The reads since the last call.
    pub(crate) fn take(&self) -> Vec<Read> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }
}

impl Fs for Counting {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.inner.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        self.inner.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let inner = self.inner.open(path, mode)?;
        Ok(Box::new(Counted { inner, reads: Arc::clone(&self.reads) }))
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> Result<()> {
        self.inner.remove_file(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.inner.sync_dir(dir)
    }
    fn exists(&self, path: &Path) -> Result<bool> {
        self.inner.exists(path)
    }
    fn lock_exclusive(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        self.inner.lock_exclusive(path)
    }
}

impl File for Counted {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes)
    }
    fn sync_data(&mut self) -> Result<()> {
        self.inner.sync_data()
    }
    fn read_at(&self, off: u64, buf: &mut [u8]) -> Result<usize> {
        let got = self.inner.read_at(off, buf)?;
        self.reads.lock().unwrap().push((self.path().to_path_buf(), off, got as u64));
        Ok(got)
    }
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }
    fn set_len(&mut self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }
}
