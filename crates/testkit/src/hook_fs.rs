//! A file system that asks somebody before each call.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use chronolith_env::{Error, File, FileLock, Fs, Op, OpenMode, Result};

/// A call that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What is to be done; opening counts as [`Op::Open`] for reading, else as [`Op::Create`].
    pub op: Op,
    /// To which file or directory.
    pub path: &'a Path,
    /// The other name, of a rename and of a link.
    pub to: Option<&'a Path>,
    /// Where a read begins, in bytes.
    pub offset: u64,
    /// How many bytes are to be read or written, or how long the file is to become; else 0.
    pub bytes: u64,
}

impl Call<'_> {
    /// Refuses the call.
    ///
    /// # Errors
    /// Always: `cause`, met by it.
    pub fn refuse(&self, cause: impl Into<std::io::Error>) -> Result<()> {
        Err(Error::new(self.op, self.path, cause.into()))
    }
}

type Hook = dyn Fn(Call<'_>) -> Result<()> + Send + Sync;

/// Another file system, behind a hook: what that answers to a call with an error is not done. Clones share both.
#[derive(Clone)]
pub struct HookFs {
    inner: Arc<dyn Fs>,
    hook: Arc<Hook>,
}

impl fmt::Debug for HookFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookFs").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct HookFile {
    inner: Box<dyn File>,
    fs: HookFs,
    path: PathBuf,
}

impl HookFs {
    /// `inner`, whose calls `hook` is asked about first. It may take its time, or refuse.
    pub fn new(inner: Arc<dyn Fs>, hook: impl Fn(Call<'_>) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { inner, hook: Arc::new(hook) }
    }

    fn ask(&self, op: Op, path: &Path) -> Result<()> {
        (self.hook)(Call { op, path, to: None, offset: 0, bytes: 0 })
    }

    fn ask_names(&self, op: Op, path: &Path, to: &Path) -> Result<()> {
        (self.hook)(Call { op, path, to: Some(to), offset: 0, bytes: 0 })
    }
}

impl Fs for HookFs {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.ask(Op::CreateDir, dir)?;
        self.inner.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        self.ask(Op::List, dir)?;
        self.inner.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        self.ask(if mode == OpenMode::Read { Op::Open } else { Op::Create }, path)?;
        let inner = self.inner.open(path, mode)?;
        Ok(Box::new(HookFile { inner, fs: self.clone(), path: path.to_path_buf() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.ask_names(Op::Rename, from, to)?;
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.ask(Op::Remove, path)?;
        self.inner.remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.ask(Op::SyncDir, dir)?;
        self.inner.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.ask(Op::Stat, path)?;
        self.inner.exists(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.ask_names(Op::Link, from, to)?;
        self.inner.hard_link(from, to)
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        self.ask(Op::Remove, dir)?;
        self.inner.remove_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> Result<Option<u64>> {
        self.ask(Op::Stat, dir)?;
        self.inner.free_bytes(dir)
    }

    fn lock_exclusive(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        self.ask(Op::Lock, path)?;
        self.inner.lock_exclusive(path)
    }
}

impl HookFile {
    fn ask(&self, op: Op, offset: u64, bytes: u64) -> Result<()> {
        (self.fs.hook)(Call { op, path: &self.path, to: None, offset, bytes })
    }
}

impl File for HookFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.ask(Op::Write, 0, bytes.len() as u64)?;
        self.inner.write_all(bytes)
    }

    fn sync_data(&mut self) -> Result<()> {
        self.ask(Op::Sync, 0, 0)?;
        self.inner.sync_data()
    }

    fn read_at(&self, off: u64, buf: &mut [u8]) -> Result<usize> {
        self.ask(Op::Read, off, buf.len() as u64)?;
        self.inner.read_at(off, buf)
    }

    fn len(&self) -> Result<u64> {
        self.ask(Op::Stat, 0, 0)?;
        self.inner.len()
    }

    fn set_len(&mut self, len: u64) -> Result<()> {
        self.ask(Op::Truncate, 0, len)?;
        self.inner.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use parking_lot::Mutex;

    use super::*;
    use crate::fault_fs::FaultFs;

    #[test]
    fn each_call_is_asked_about_and_none_is_made_that_is_refused() {
        let disk = FaultFs::new();
        let noted = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&noted);
        let fs = HookFs::new(Arc::new(disk.clone()), move |call| {
            let to = call.to.map(Path::to_path_buf);
            into.lock().push((call.op, call.path.to_path_buf(), to, call.offset, call.bytes));
            if call.path.starts_with("/d/no") { call.refuse(ErrorKind::NotConnected) } else { Ok(()) }
        });
        let [dir, a, b, c, no] = ["/d", "/d/a", "/d/b", "/d/c", "/d/no"].map(Path::new);
        fs.create_dir_all(dir).expect("made");
        let mut file = fs.open(a, OpenMode::CreateNew).expect("created");
        file.write_all(b"content").expect("written");
        file.sync_data().expect("synced");
        let mut bytes = [0; 9];
        assert_eq!((file.read_at(2, &mut bytes).expect("read"), file.len().expect("known")), (5, 7));
        file.set_len(3).expect("cut");
        fs.hard_link(a, b).expect("linked");
        fs.rename(a, c).expect("renamed");
        fs.sync_dir(dir).expect("synced");
        assert!(fs.exists(c).expect("known"));
        assert_eq!(fs.list(dir).expect("listed"), ["b", "c"]);
        assert_eq!(fs.free_bytes(dir).expect("asked"), None);
        fs.open(c, OpenMode::Read).expect("opened");
        fs.remove_file(b).expect("removed");
        drop(fs.lock_exclusive(b).expect("locked"));
        let (dir_, a_, b_, c_) = (dir.into(), a.into(), b.to_path_buf(), c.to_path_buf());
        let plain = |op, path: &PathBuf| (op, path.clone(), None, 0, 0);
        let expected = [
            plain(Op::CreateDir, &dir_),
            plain(Op::Create, &a_),
            (Op::Write, a.into(), None, 0, 7),
            plain(Op::Sync, &a_),
            (Op::Read, a.into(), None, 2, 9),
            plain(Op::Stat, &a_),
            (Op::Truncate, a.into(), None, 0, 3),
            (Op::Link, a.into(), Some(b.into()), 0, 0),
            (Op::Rename, a.into(), Some(c.into()), 0, 0),
            plain(Op::SyncDir, &dir_),
            plain(Op::Stat, &c_),
            plain(Op::List, &dir_),
            plain(Op::Stat, &dir_),
            plain(Op::Open, &c_),
            plain(Op::Remove, &b_),
            plain(Op::Lock, &b_),
        ];
        assert_eq!(*noted.lock(), expected);

        fs.open(no, OpenMode::CreateNew).expect_err("refused");
        fs.create_dir_all(no).expect_err("refused");
        assert!(!disk.exists(no).expect("known"));
        disk.create_dir_all(no).expect("made");
        assert_eq!(fs.remove_dir(no).expect_err("refused").kind(), ErrorKind::NotConnected);
        assert!(disk.exists(no).expect("known"));
    }
}
