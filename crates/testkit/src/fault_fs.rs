//! A disk in memory that fails and forgets on demand.
//!
//! Bytes are durable after `sync_data`, names (of directories too) after `sync_dir`; [`FaultFs::crash`] takes away the
//! rest. A failed sync loses the bytes it was to save for good: later syncs of the file succeed without them, as real
//! systems do, while readers see them, of later processes too, until the power is cut or [`FaultFs::evict`] makes room.
//!
//! Every call is part of a digest, so that two runs can be compared, and may be counted under a name.

mod disk;
mod trace;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_env::{Error, File, FileLock, Fs, Op, OpenMode, Result, Rng};
use parking_lot::Mutex;

use self::disk::{Change, Disk, Inode, NameChange, Node, Plan, Trap, Which};
pub use self::trace::{Call, SiteCounts};

/// What a crash does to bytes and names that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// All are lost.
    LoseUnsynced,
    /// The writes of each file reach the disk in order, up to a random byte; of the changes of names the first few do.
    Tear,
    /// Of each file a random subset of the writes reaches the disk, whole, cut short, in sectors, or as length only, with
    /// zeros in the gaps. Of the changes of names the first few reach it, or a random subset: a rename as a whole.
    Subset,
    /// Nothing is lost yet: the process died, not the machine. What was not durable is no more durable than it was: a
    /// later crash in another mode may take it.
    KeepAll,
    /// The worst case of a point that is missing: of all that was not synced, a file's bytes or a change of a name, exactly
    /// one is lost, or exactly one reaches the disk.
    Single,
}

/// What a failing call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `ENOSPC`. A write leaves a part of its bytes in the file.
    Full,
    /// `EIO`. A write leaves a part of its bytes in the file, a sync loses what it was to save, or a part of it.
    Io,
    /// `EROFS`.
    ReadOnly,
    /// `EACCES`.
    Denied,
}

impl Fault {
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Full => 28,
            Self::Io => 5,
            Self::ReadOnly => 30,
            Self::Denied => 13,
        })
    }
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct FaultFs {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug)]
struct FaultFile {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    inode: u64,
    life: u64,
}

#[derive(Debug)]
struct FaultLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    life: u64,
}

impl FaultFs {
    /// An empty disk without faults. A failing write leaves half of its bytes, a failing sync saves none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk on which it follows from `seed` how much of a failing call is done.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let fs = Self::new();
        fs.disk.lock().seed(seed);
        fs
    }

    /// Makes the `nth` call of `op` from now on fail (1 is the next one), and the `count - 1` after it.
    pub fn fail(&self, op: Op, nth: u64, count: u64, fault: Fault) {
        let mut disk = self.disk.lock();
        let from = disk.calls.get(&op).copied().unwrap_or(0) + nth;
        let to = from.saturating_add(count.saturating_sub(1));
        disk.planned.push(Plan { which: Which::Op(op), from, to, fault });
    }

    /// The same for the calls that have the name `site`; see [`FaultFs::watch`].
    pub fn fail_site(&self, site: &'static str, nth: u64, count: u64, fault: Fault) {
        let mut disk = self.disk.lock();
        let from = disk.trace.met(site) + nth;
        let to = from.saturating_add(count.saturating_sub(1));
        disk.planned.push(Plan { which: Which::Site(site), from, to, fault });
    }

    /// The same for calls of any kind, counted together.
    pub fn fail_any(&self, nth: u64, count: u64, fault: Fault) {
        let mut disk = self.disk.lock();
        let from = disk.calls_of_all + nth;
        let to = from.saturating_add(count.saturating_sub(1));
        disk.planned.push(Plan { which: Which::Any, from, to, fault });
    }

    /// Lets `calls` more calls happen and fails all after them without any effect: the moment of a crash to come.
    pub fn halt_after(&self, calls: u64) {
        self.disk.lock().halt_after(calls, false);
    }

    /// The same, counting only calls that change something.
    pub fn halt_after_changes(&self, changes: u64) {
        self.disk.lock().halt_after(changes, true);
    }

    /// The same, counting from behind the `nth` call from now on that has the name `site`; see [`FaultFs::watch`].
    pub fn halt_behind(&self, site: &'static str, nth: u64, changes: u64) {
        self.disk.lock().trap = Some(Trap { site, nth, changes });
    }

    /// Whether a call has met the end that [`FaultFs::halt_after`] set.
    #[must_use]
    pub fn halted(&self) -> bool {
        self.disk.lock().over
    }

    /// Makes room in the system's memory: of all files, readers see what is on the disk or still to be written there.
    /// What a failed sync has lost is gone now.
    pub fn evict(&self) {
        self.disk.lock().evict();
    }

    /// Takes all planned faults back.
    pub fn heal(&self) {
        let mut disk = self.disk.lock();
        (disk.left, disk.over, disk.trap) = (None, false, None);
        disk.planned.clear();
        disk.capacity = None;
    }

    /// Lets the disk hold `bytes` more than it does; further writes get `ENOSPC` after what fits.
    pub fn fill_after(&self, bytes: u64) {
        let mut disk = self.disk.lock();
        let used = disk.used();
        disk.capacity = Some(used + bytes);
    }

    /// Makes all syncs succeed without saving anything: what a program without them would do.
    pub fn lie_about_syncs(&self, lie: bool) {
        self.disk.lock().lying_syncs = lie;
    }

    /// How many calls of `op` there were.
    #[must_use]
    pub fn calls(&self, op: Op) -> u64 {
        self.disk.lock().calls.get(&op).copied().unwrap_or(0)
    }

    /// A number that follows from all calls so far, what they wrote and what became of them.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.disk.lock().trace.digest()
    }

    /// The last calls, oldest first, for people.
    #[must_use]
    pub fn recent(&self) -> Vec<String> {
        self.disk.lock().trace.recent()
    }

    /// Counts from now on the calls that `site` gives a name.
    pub fn watch(&self, site: fn(&Call<'_>) -> Option<&'static str>) {
        self.disk.lock().trace.watch(site);
    }

    /// What has been counted since [`FaultFs::watch`].
    #[must_use]
    pub fn sites(&self) -> BTreeMap<&'static str, SiteCounts> {
        self.disk.lock().trace.sites().clone()
    }

    /// Cuts the power. All handles and locks die; what was not synced is lost as `mode` says.
    pub fn crash(&self, mode: CrashMode, rng: &dyn Rng) {
        self.disk.lock().crash(mode, rng);
    }

    /// The bytes of a file as they are visible now.
    #[must_use]
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        let Node::File(inode) = disk.names.get(path)? else { return None };
        Some(disk.inodes.get(inode)?.visible.clone())
    }

    /// Another disk that has, durably, what is visible here.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { disk: Arc::new(Mutex::new(self.disk.lock().fork())) }
    }

    /// Keeps from now on what files have whose names end in `.extension` when they are removed.
    pub fn keep_removed(&self, extension: &'static str) {
        self.disk.lock().keeps = Some(extension);
    }

    /// The files that were removed since the last call, with their bytes; see [`FaultFs::keep_removed`].
    #[must_use]
    pub fn take_removed(&self) -> Vec<(PathBuf, Vec<u8>)> {
        std::mem::take(&mut self.disk.lock().removed)
    }

    /// Replaces the bytes of a file, durably; creates it if need be.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut disk = self.disk.lock();
        let inode = match disk.names.get(path) {
            Some(Node::File(inode)) => *inode,
            _ => disk.create(path),
        };
        disk.make_durable(path, inode);
        disk.inodes.insert(inode, Inode { visible: bytes.clone(), durable: bytes, pending: Vec::new() });
    }
}

impl Fs for FaultFs {
    /// One by one, each durable before the next, as the real file system does it.
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !disk.is_dir(dir)).collect();
        let there = dir.ancestors().nth(missing.len()).filter(|there| !disk.is_root(there));
        if missing.is_empty() {
            disk.call(Op::CreateDir, dir)?;
        }
        // It may be the rest of an attempt that failed before its name was durable.
        if let Some(parent) = there.and_then(Path::parent) {
            disk.sync_dir(parent)?;
        }
        for dir in missing.into_iter().rev() {
            disk.call(Op::CreateDir, dir)?;
            if disk.names.contains_key(dir) {
                return Err(Error::new(Op::CreateDir, dir, io::ErrorKind::AlreadyExists.into()));
            }
            disk.change(NameChange::Add { path: dir.to_path_buf(), node: Node::Dir });
            let Some(parent) = dir.parent() else { continue };
            if let Err(error) = disk.sync_dir(parent) {
                let _ = disk.remove_dir(dir);
                return Err(error);
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let mut disk = self.disk.lock();
        disk.call(Op::List, dir)?;
        if !disk.is_dir(dir) {
            return Err(Error::new(Op::List, dir, io::ErrorKind::NotFound.into()));
        }
        let within = disk.below(dir).filter(|path| path.parent() == Some(dir));
        let mut names: Vec<String> =
            within.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let mut disk = self.disk.lock();
        let op = if mode == OpenMode::Read { Op::Open } else { Op::Create };
        disk.call(op, path)?;
        let refuse = |kind: io::ErrorKind| Err(Error::new(op, path, kind.into()));
        if !path.parent().is_some_and(|dir| disk.is_dir(dir)) {
            return refuse(io::ErrorKind::NotFound);
        }
        let inode = match (disk.names.get(path).copied(), mode) {
            (Some(Node::Dir), _) => return refuse(io::ErrorKind::IsADirectory),
            (Some(_), OpenMode::CreateNew) => return refuse(io::ErrorKind::AlreadyExists),
            (None, OpenMode::Read) => return refuse(io::ErrorKind::NotFound),
            (Some(Node::File(inode)), _) => inode,
            (None, _) => disk.create(path),
        };
        if mode == OpenMode::Truncate
            && let Some(inode) = disk.inodes.get_mut(&inode)
        {
            inode.change(Change::SetLen(0));
        }
        let life = disk.life;
        Ok(Box::new(FaultFile { disk: Arc::clone(&self.disk), path: path.to_path_buf(), inode, life }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Op::Rename, from)?;
        let node = disk.names.get(from).copied().filter(|_| to.parent().is_some_and(|dir| disk.is_dir(dir)));
        let node = node.ok_or_else(|| Error::new(Op::Rename, from, io::ErrorKind::NotFound.into()))?;
        disk.change(NameChange::Rename { from: from.to_path_buf(), to: to.to_path_buf(), node });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Op::Remove, path)?;
        match disk.names.get(path) {
            Some(Node::File(inode)) => {
                let inode = *inode;
                disk.keep(path, inode);
                disk.change(NameChange::Remove { path: path.to_path_buf() });
                Ok(())
            }
            _ => Err(Error::new(Op::Remove, path, io::ErrorKind::NotFound.into())),
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.disk.lock().sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let mut disk = self.disk.lock();
        disk.call(Op::Stat, path)?;
        Ok(disk.names.contains_key(path) || disk.is_dir(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Op::Link, from)?;
        let refuse = |kind: io::ErrorKind| Err(Error::new(Op::Link, from, kind.into()));
        let Some(node) = disk.names.get(from).copied() else { return refuse(io::ErrorKind::NotFound) };
        if !to.parent().is_some_and(|dir| disk.is_dir(dir)) {
            return refuse(io::ErrorKind::NotFound);
        }
        if disk.names.contains_key(to) {
            return refuse(io::ErrorKind::AlreadyExists);
        }
        disk.change(NameChange::Add { path: to.to_path_buf(), node });
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        self.disk.lock().remove_dir(dir)
    }

    /// What [`FaultFs::fill_after`] has left; unknown without a limit.
    fn free_bytes(&self, dir: &Path) -> Result<Option<u64>> {
        let mut disk = self.disk.lock();
        disk.call(Op::Stat, dir)?;
        let used = disk.used();
        Ok(disk.capacity.map(|capacity| capacity.saturating_sub(used)))
    }

    fn lock_exclusive(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        let mut disk = self.disk.lock();
        disk.call(Op::Lock, path)?;
        if !path.parent().is_some_and(|dir| disk.is_dir(dir)) {
            return Err(Error::new(Op::Lock, path, io::ErrorKind::NotFound.into()));
        }
        if !disk.locks.insert(path.to_path_buf()) {
            return Err(Error::Locked { path: path.to_path_buf() });
        }
        if !disk.names.contains_key(path) {
            disk.create(path);
        }
        let life = disk.life;
        Ok(Box::new(FaultLock { disk: Arc::clone(&self.disk), path: path.to_path_buf(), life }))
    }
}

impl File for FaultFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.disk.lock().write(self, bytes)
    }

    fn sync_data(&mut self) -> Result<()> {
        self.disk.lock().sync(self)
    }

    fn read_at(&self, off: u64, buf: &mut [u8]) -> Result<usize> {
        let mut disk = self.disk.lock();
        disk.call(Op::Read, &self.path)?;
        let inode = disk.inode(self, Op::Read)?;
        let from = usize::try_from(off).unwrap_or(usize::MAX).min(inode.visible.len());
        let len = buf.len().min(inode.visible.len() - from);
        buf[..len].copy_from_slice(&inode.visible[from..from + len]);
        Ok(len)
    }

    fn len(&self) -> Result<u64> {
        let mut disk = self.disk.lock();
        disk.call(Op::Stat, &self.path)?;
        Ok(disk.inode(self, Op::Stat)?.visible.len() as u64)
    }

    fn set_len(&mut self, len: u64) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Op::Truncate, &self.path)?;
        disk.inode(self, Op::Truncate)?.change(Change::SetLen(usize::try_from(len).unwrap_or(usize::MAX)));
        Ok(())
    }
}

impl FileLock for FaultLock {}

impl Drop for FaultLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.life == self.life {
            disk.locks.remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
