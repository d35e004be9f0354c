//! The file system as tools see it: for reading alone, and telling how far they are.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chronolith_env::{Error, File, FileLock, Fs, Op, OpenMode, Result};

use super::progress::Progress;

/// How far a tool is with its files, one after another.
#[derive(Debug)]
pub(super) struct Meter {
    progress: Progress,
    /// Bytes of files that are done with.
    done: AtomicU64,
    /// Length of the file that is being read.
    file: AtomicU64,
    /// Bytes read of it; what is read twice counts twice.
    read: AtomicU64,
}

impl Meter {
    /// Of `what`, which is done after `bytes`; shown if `visible`.
    pub(super) fn new(what: &'static str, bytes: u64, visible: bool) -> Self {
        let progress = if visible { Progress::of_bytes(what, bytes) } else { Progress::hidden() };
        Self { progress, done: AtomicU64::new(0), file: AtomicU64::new(0), read: AtomicU64::new(0) }
    }

    /// A file of so many bytes comes next; the one before is done with.
    pub(super) fn next_file(&self, bytes: u64) {
        self.done.fetch_add(self.file.swap(bytes, Ordering::Relaxed), Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
    }

    /// What is done now, apart from what was done before: it reads so many bytes.
    pub(super) fn begin(&self, what: &'static str, bytes: u64) {
        self.progress.begin_bytes(what, bytes);
        self.done.store(0, Ordering::Relaxed);
        self.file.store(bytes, Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
    }

    /// What is done now, of which so many pieces are done.
    pub(super) fn pieces(&self, what: &'static str, done: u64, all: u64) {
        self.progress.pieces(what, done, all);
        // Reading does not tell how far it is.
        self.done.store(done, Ordering::Relaxed);
        self.file.store(0, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) {
        let read = self.read.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let of_file = read.min(self.file.load(Ordering::Relaxed));
        self.progress.reach(self.done.load(Ordering::Relaxed) + of_file);
    }
}

/// A file system that tells a [`Meter`] what is read, and refuses to change anything unless it is
/// [`MeteredFs::writable`].
#[derive(Debug)]
pub(super) struct MeteredFs {
    inner: Arc<dyn Fs>,
    meter: Arc<Meter>,
    writable: bool,
}

#[derive(Debug)]
struct MeteredFile {
    inner: Box<dyn File>,
    meter: Arc<Meter>,
    writable: bool,
}

impl MeteredFs {
    pub(super) fn new(inner: Arc<dyn Fs>, meter: Arc<Meter>) -> Self {
        Self { inner, meter, writable: false }
    }

    /// One that changes what it is told to.
    pub(super) fn writable(inner: Arc<dyn Fs>, meter: Arc<Meter>) -> Self {
        Self { inner, meter, writable: true }
    }
}

fn refuse<T>(op: Op, path: &Path) -> Result<T> {
    Err(Error::new(op, path, io::ErrorKind::PermissionDenied.into()))
}

impl Fs for MeteredFs {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        if self.writable { self.inner.create_dir_all(dir) } else { refuse(Op::CreateDir, dir) }
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        match mode {
            OpenMode::Append | OpenMode::Truncate | OpenMode::CreateNew if !self.writable => {
                refuse(Op::Create, path)
            }
            _ => {
                let (inner, meter) = (self.inner.open(path, mode)?, Arc::clone(&self.meter));
                Ok(Box::new(MeteredFile { inner, meter, writable: self.writable }))
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        if self.writable { self.inner.rename(from, to) } else { refuse(Op::Rename, from) }
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        if self.writable { self.inner.remove_file(path) } else { refuse(Op::Remove, path) }
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        if self.writable { self.inner.sync_dir(dir) } else { refuse(Op::SyncDir, dir) }
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.inner.exists(path)
    }

    fn lock_exclusive(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        if self.writable { self.inner.lock_exclusive(path) } else { refuse(Op::Lock, path) }
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        if self.writable { self.inner.hard_link(from, to) } else { refuse(Op::Link, from) }
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        if self.writable { self.inner.remove_dir(dir) } else { refuse(Op::Remove, dir) }
    }

    fn free_bytes(&self, path: &Path) -> Result<Option<u64>> {
        self.inner.free_bytes(path)
    }
}

impl File for MeteredFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        if self.writable { self.inner.write_all(bytes) } else { refuse(Op::Write, self.inner.path()) }
    }

    fn sync_data(&mut self) -> Result<()> {
        if self.writable { self.inner.sync_data() } else { refuse(Op::Sync, self.inner.path()) }
    }

    fn read_at(&self, off: u64, buf: &mut [u8]) -> Result<usize> {
        let read = self.inner.read_at(off, buf)?;
        self.meter.add(read as u64);
        Ok(read)
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn set_len(&mut self, len: u64) -> Result<()> {
        if self.writable { self.inner.set_len(len) } else { refuse(Op::Truncate, self.inner.path()) }
    }
}

#[cfg(test)]
mod tests {
    use chronolith_testkit::fault_fs::FaultFs;

    use super::*;

    #[test]
    fn what_may_be_changed_is() {
        let disk = FaultFs::new();
        let meter = Arc::new(Meter::new("writing", 3, false));
        let fs = MeteredFs::writable(Arc::new(disk.clone()), Arc::clone(&meter));
        let [dir, a, b, c] = ["/d", "/d/a", "/d/b", "/d/c"].map(Path::new);
        fs.create_dir_all(dir).expect("made");
        let mut file = fs.open(a, OpenMode::CreateNew).expect("made");
        file.write_all(b"abcd").expect("written");
        file.set_len(3).expect("cut");
        file.sync_data().expect("durable");
        drop(file);
        fs.rename(a, b).expect("renamed");
        fs.hard_link(b, c).expect("linked");
        fs.remove_file(b).expect("removed");
        fs.sync_dir(dir).expect("durable");
        let _lock = fs.lock_exclusive(&dir.join("lock")).expect("locked");
        assert_eq!(disk.read(c).as_deref(), Some(&b"abc"[..]));
        meter.begin("reading", 3);
        let mut bytes = [0; 3];
        fs.open(c, OpenMode::Read).expect("there").read_exact_at(0, &mut bytes).expect("three bytes");
        assert_eq!(meter.read.load(Ordering::Relaxed), 3);
        meter.pieces("cutting", 1, 2);
        assert_eq!((meter.done.load(Ordering::Relaxed), meter.file.load(Ordering::Relaxed)), (1, 0));
    }

    #[test]
    fn nothing_can_be_changed() {
        let (disk, path) = (FaultFs::new(), Path::new("/d/f"));
        disk.create_dir_all(Path::new("/d")).expect("a directory");
        disk.put(path, b"abc".to_vec());
        let meter = Arc::new(Meter::new("reading", 3, false));
        let fs = MeteredFs::new(Arc::new(disk.clone()), Arc::clone(&meter));
        for mode in [OpenMode::Append, OpenMode::Truncate, OpenMode::CreateNew] {
            assert!(fs.open(path, mode).is_err(), "{mode:?}");
        }
        let other = Path::new("/d/g");
        assert!(fs.rename(path, other).is_err() && fs.remove_file(path).is_err());
        assert!(fs.hard_link(path, other).is_err() && fs.lock_exclusive(other).is_err());
        assert!(fs.create_dir_all(other).is_err() && fs.sync_dir(Path::new("/d")).is_err());

        let mut file = fs.open(path, OpenMode::Read).expect("a file");
        assert!(file.write_all(b"d").is_err() && file.set_len(0).is_err() && file.sync_data().is_err());
        meter.next_file(3);
        let mut bytes = [0; 3];
        file.read_exact_at(0, &mut bytes).expect("three bytes");
        assert_eq!((&bytes, meter.read.load(Ordering::Relaxed)), (b"abc", 3));
        meter.next_file(5);
        assert_eq!((meter.done.load(Ordering::Relaxed), meter.read.load(Ordering::Relaxed)), (3, 0));
        assert_eq!(fs.list(Path::new("/d")).expect("a directory"), ["f"]);
    }
}
