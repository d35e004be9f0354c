//! The file system of the operating system.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::{Error, File, FileLock, Fs, Op, OpenMode, Result};

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

#[derive(Debug)]
struct RealFile {
    file: fs::File,
    path: PathBuf,
}

#[derive(Debug)]
struct RealLock {
    // Closing the file releases the lock.
    _file: fs::File,
}

impl FileLock for RealLock {}

/// The directory that the name of `path` stands in.
fn around(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `result`, with its place.
fn at<T>(op: Op, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::new(op, path, source))
}

impl Fs for RealFs {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let missing = |dir: &&Path| !dir.as_os_str().is_empty() && matches!(dir.try_exists(), Ok(false));
        let missing: Vec<&Path> = dir.ancestors().take_while(missing).collect();
        // What is there may be the rest of an attempt that ended before its name was durable.
        if let Some(there) = dir.ancestors().nth(missing.len()).filter(|there| !there.as_os_str().is_empty())
            && there.parent().is_some()
        {
            match self.sync_dir(around(there)) {
                // Nobody who may not look into a directory has made something in it.
                Err(Error::Denied { .. }) => {}
                synced => synced?,
            }
        }
        // Outermost first, each durable before the next: only the innermost one that is there can be in doubt.
        for dir in missing.into_iter().rev() {
            match fs::create_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
                made => at(Op::CreateDir, dir, made)?,
            }
            self.sync_dir(around(dir)).inspect_err(|_| {
                let _ = fs::remove_dir(dir);
            })?;
        }
        // Also says so if it is no directory.
        at(Op::CreateDir, dir, fs::create_dir_all(dir))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in at(Op::List, dir, fs::read_dir(dir))? {
            if let Ok(name) = at(Op::List, dir, entry)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        let op = match mode {
            OpenMode::Read => Op::Open,
            OpenMode::CreateNew => {
                options.append(true).create_new(true);
                Op::Create
            }
            OpenMode::Append | OpenMode::Truncate => {
                options.append(true).create(true);
                Op::Create
            }
        };
        let file = at(op, path, options.open(path))?;
        if mode == OpenMode::Truncate {
            // The system refuses to empty a file while opening it for appending.
            at(Op::Truncate, path, file.set_len(0))?;
        }
        Ok(Box::new(RealFile { file, path: path.to_path_buf() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        at(Op::Rename, from, fs::rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        at(Op::Remove, path, fs::remove_file(path))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let handle = at(Op::SyncDir, dir, fs::File::open(dir))?;
        at(Op::SyncDir, dir, handle.sync_all())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        at(Op::Stat, path, path.try_exists())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        at(Op::Link, from, fs::hard_link(from, to))
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        at(Op::Remove, dir, fs::remove_dir(dir))
    }

    fn free_bytes(&self, dir: &Path) -> Result<Option<u64>> {
        let stat = at(Op::Stat, dir, rustix::fs::statvfs(dir).map_err(io::Error::from))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    fn lock_exclusive(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        let file =
            at(Op::Lock, path, fs::OpenOptions::new().write(true).create(true).truncate(false).open(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_path_buf() }),
            Err(fs::TryLockError::Error(source)) => Err(Error::new(Op::Lock, path, source)),
        }
    }
}

impl File for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        at(Op::Write, &self.path, self.file.write_all(bytes))
    }

    fn sync_data(&mut self) -> Result<()> {
        at(Op::Sync, &self.path, self.file.sync_data())
    }

    fn read_at(&self, off: u64, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, off + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::new(Op::Read, &self.path, source)),
            }
        }
        Ok(done)
    }

    fn len(&self) -> Result<u64> {
        Ok(at(Op::Stat, &self.path, self.file.metadata())?.len())
    }

    fn set_len(&mut self, len: u64) -> Result<()> {
        at(Op::Truncate, &self.path, self.file.set_len(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_append_read_and_truncate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut file = RealFs.open(&path, OpenMode::CreateNew).unwrap();
        file.write_all(b"hello ").unwrap();
        file.write_all(b"world").unwrap();
        file.sync_data().unwrap();
        RealFs.sync_dir(dir.path()).unwrap();
        let mut buf = [0; 5];
        file.read_exact_at(6, &mut buf).unwrap();
        assert_eq!(&buf, b"world");
        assert_eq!(file.read_at(9, &mut buf).unwrap(), 2, "short at the end");
        assert!(file.read_exact_at(9, &mut buf).is_err());
        file.set_len(5).unwrap();
        file.write_all(b"!").unwrap();
        assert_eq!(file.len().unwrap(), 6, "append goes to the new end");
        let again = RealFs.open(&path, OpenMode::CreateNew).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let mut emptied = RealFs.open(&path, OpenMode::Truncate).unwrap();
        emptied.write_all(b"xy").unwrap();
        assert_eq!(emptied.len().unwrap(), 2);
        assert_eq!(RealFs.list(dir.path()).unwrap(), ["a"]);
        RealFs.rename(&path, &dir.path().join("b")).unwrap();
        assert!(!RealFs.exists(&path).unwrap());
        RealFs.remove_file(&dir.path().join("b")).unwrap();
        assert!(RealFs.list(dir.path()).unwrap().is_empty());
        assert!(RealFs.open(&path, OpenMode::Read).unwrap_err().is_not_found());
    }

    #[test]
    fn directories_are_made_with_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        RealFs.create_dir_all(&deep).unwrap();
        RealFs.create_dir_all(&deep).unwrap();
        assert_eq!(RealFs.list(&dir.path().join("a/b")).unwrap(), ["c"]);
        fs::write(deep.join("file"), b"").unwrap();
        let refused = RealFs.create_dir_all(&deep.join("file/d")).unwrap_err();
        assert!(refused.to_string().contains("file/d"), "{refused}");
    }

    #[test]
    fn links_are_further_names_and_directories_go_when_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, sub) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("sub"));
        RealFs.open(&a, OpenMode::CreateNew).unwrap().write_all(b"x").unwrap();
        RealFs.hard_link(&a, &b).unwrap();
        assert_eq!(RealFs.hard_link(&a, &b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        RealFs.remove_file(&a).unwrap();
        assert_eq!(RealFs.open(&b, OpenMode::Read).unwrap().len().unwrap(), 1);
        RealFs.create_dir_all(&sub).unwrap();
        assert!(RealFs.remove_dir(dir.path()).is_err(), "not empty");
        RealFs.remove_dir(&sub).unwrap();
        assert!(!RealFs.exists(&sub).unwrap());
        assert!(RealFs.free_bytes(dir.path()).unwrap().is_some_and(|free| free > 0));
    }

    #[test]
    fn a_lock_excludes_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let held = RealFs.lock_exclusive(&path).unwrap();
        let refused = RealFs.lock_exclusive(&path).unwrap_err();
        assert!(matches!(refused, Error::Locked { .. }));
        assert!(refused.to_string().contains("LOCK is locked by another process"));
        drop(held);
        RealFs.lock_exclusive(&path).unwrap();
    }
}
