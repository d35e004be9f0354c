//! A disk in memory that fails and forgets on demand.
//!
//! Bytes are durable after `sync_data`, names after `sync_dir`; [`FaultFs::crash`] takes away the rest. A failed sync
//! loses the bytes it was to save for good: later syncs of the file succeed without them, as real systems do, while
//! readers see them, of later processes too, until the power is cut or [`FaultFs::evict`] makes room.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_env::{Error, File, FileLock, Fs, Op, OpenMode, Result, Rng};
use parking_lot::Mutex;

/// What a crash does to bytes that were written and not synced. Names that were not synced are lost in all modes but
/// [`CrashMode::Subset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// All are lost.
    LoseUnsynced,
    /// The writes of each file reach the disk in order, up to a random byte.
    Tear,
    /// Of each file a random subset of the writes reaches the disk, whole or torn, with zeros in the gaps; each unsynced
    /// name, and each unsynced removal, survives or not.
    Subset,
    /// Nothing is lost yet: the process died, not the machine. What was not durable is no more durable than it was: a
    /// later crash in another mode may take it.
    KeepAll,
}

/// What a failing call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `ENOSPC`. A write leaves half of its bytes in the file.
    Full,
    /// `EIO`. A write leaves half of its bytes in the file, a sync loses what it was to save.
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

#[derive(Debug, Default)]
struct Disk {
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    locks: HashSet<PathBuf>,
    /// Handles of an earlier life are dead.
    life: u64,
    calls: HashMap<Op, u64>,
    planned: Vec<Plan>,
    capacity: Option<u64>,
    lying_syncs: bool,
    /// So many more calls have an effect.
    calls_left: Option<u64>,
    /// A call has come after those.
    over: bool,
}

#[derive(Debug, Default)]
struct Inode {
    visible: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { off: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Debug)]
struct Plan {
    op: Op,
    /// The number of the first call that fails, from 1.
    from: u64,
    /// The number of the last one.
    to: u64,
    fault: Fault,
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
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the `nth` call of `op` from now on fail (1 is the next one), and the `count - 1` after it.
    pub fn fail(&self, op: Op, nth: u64, count: u64, fault: Fault) {
        let mut disk = self.disk.lock();
        let from = disk.calls.get(&op).copied().unwrap_or(0) + nth;
        disk.planned.push(Plan { op, from, to: from.saturating_add(count.saturating_sub(1)), fault });
    }

    /// Lets `calls` more calls happen and fails all after them without any effect: the moment of a crash to come.
    pub fn halt_after(&self, calls: u64) {
        let mut disk = self.disk.lock();
        (disk.calls_left, disk.over) = (Some(calls), false);
    }

    /// Whether a call has met the end that [`FaultFs::halt_after`] set.
    #[must_use]
    pub fn halted(&self) -> bool {
        self.disk.lock().over
    }

    /// Makes room in the system's memory: of all files, readers see what is on the disk or still to be written there.
    /// What a failed sync has lost is gone now.
    pub fn evict(&self) {
        for inode in self.disk.lock().inodes.values_mut() {
            inode.visible = inode.durable.clone();
            for change in &inode.pending {
                change.apply(&mut inode.visible);
            }
        }
    }

    /// Takes all planned faults back.
    pub fn heal(&self) {
        let mut disk = self.disk.lock();
        (disk.calls_left, disk.over) = (None, false);
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

    /// Cuts the power. All handles and locks die; what was not synced is lost as `mode` says.
    pub fn crash(&self, mode: CrashMode, rng: &dyn Rng) {
        self.disk.lock().crash(mode, rng);
    }

    /// The bytes of a file as they are visible now.
    #[must_use]
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        let inode = disk.names.get(path)?;
        Some(disk.inodes.get(inode)?.visible.clone())
    }

    /// Replaces the bytes of a file, durably; creates it if need be.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut disk = self.disk.lock();
        let inode = disk.names.get(path).copied().unwrap_or_else(|| disk.create(path));
        disk.durable_names.insert(path.to_path_buf(), inode);
        disk.inodes.insert(inode, Inode { visible: bytes.clone(), durable: bytes, pending: Vec::new() });
    }
}

impl Disk {
    fn used(&self) -> u64 {
        // Files removed while open are not counted: their handles are about to close.
        self.names.values().filter_map(|id| self.inodes.get(id)).map(|inode| inode.visible.len() as u64).sum()
    }

    fn create(&mut self, path: &Path) -> u64 {
        self.next_inode += 1;
        let inode = self.next_inode;
        self.names.insert(path.to_path_buf(), inode);
        self.inodes.insert(inode, Inode::default());
        inode
    }

    /// Counts a call, and fails it if that is planned.
    fn call(&mut self, op: Op, path: &Path) -> Result<()> {
        let calls = self.calls.entry(op).or_insert(0);
        *calls += 1;
        let now = *calls;
        if let Some(left) = self.calls_left.as_mut() {
            let Some(rest) = left.checked_sub(1) else {
                self.over = true;
                return Err(Error::new(op, path, io::Error::other("halted")));
            };
            *left = rest;
        }
        match self.planned.iter().find(|plan| plan.op == op && plan.from <= now && now <= plan.to) {
            Some(plan) => Err(Error::new(op, path, plan.fault.error())),
            None => Ok(()),
        }
    }

    fn crash(&mut self, mode: CrashMode, rng: &dyn Rng) {
        self.life += 1;
        self.locks.clear();
        if mode == CrashMode::KeepAll {
            return;
        }
        // In a fixed order, so that a seed tells the whole story.
        let mut ids: Vec<u64> = self.inodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(inode) = self.inodes.get_mut(&id) {
                inode.crash(mode, rng);
            }
        }
        match mode {
            CrashMode::KeepAll | CrashMode::LoseUnsynced | CrashMode::Tear => {}
            CrashMode::Subset => {
                for (path, inode) in &self.names {
                    if rng.next_u64() & 1 == 1 {
                        self.durable_names.insert(path.clone(), *inode);
                    }
                }
                let mut removed: Vec<_> = self
                    .durable_names
                    .keys()
                    .filter(|path| !self.names.contains_key(*path))
                    .cloned()
                    .collect();
                removed.sort_unstable();
                for path in removed {
                    if rng.next_u64() & 1 == 1 {
                        self.durable_names.remove(&path);
                    }
                }
            }
        }
        self.names = self.durable_names.clone();
        let live: HashSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|id, _| live.contains(id));
    }

    /// The inode of a handle, unless the handle has died in a crash.
    fn inode(&mut self, file: &FaultFile, op: Op) -> Result<&mut Inode> {
        let gone = || Error::new(op, &file.path, io::Error::other("the machine has crashed since"));
        if file.life != self.life {
            return Err(gone());
        }
        self.inodes.get_mut(&file.inode).ok_or_else(gone)
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => to.resize(*len, 0),
            Self::Write { off, bytes } => {
                let end = off + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*off..end].copy_from_slice(bytes);
            }
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.visible);
        self.pending.push(change);
    }

    fn crash(&mut self, mode: CrashMode, rng: &dyn Rng) {
        let below = |n: usize| (rng.next_u64() % (n as u64 + 1)) as usize;
        match mode {
            CrashMode::KeepAll => return,
            CrashMode::LoseUnsynced => {}
            CrashMode::Tear => {
                let written = |change: &Change| match change {
                    Change::Write { bytes, .. } => bytes.len(),
                    Change::SetLen(_) => 1,
                };
                let mut left = below(self.pending.iter().map(written).sum());
                for change in &self.pending {
                    let part = match change {
                        Change::Write { off, bytes } => {
                            Change::Write { off: *off, bytes: bytes[..bytes.len().min(left)].to_vec() }
                        }
                        Change::SetLen(_) => change.clone(),
                    };
                    if left == 0 {
                        break;
                    }
                    left = left.saturating_sub(written(change));
                    part.apply(&mut self.durable);
                }
            }
            CrashMode::Subset => {
                for change in &self.pending {
                    match (rng.next_u64() % 3, change) {
                        (0, _) => {}
                        (1, Change::Write { off, bytes }) => {
                            let bytes = bytes[..below(bytes.len())].to_vec();
                            Change::Write { off: *off, bytes }.apply(&mut self.durable);
                        }
                        _ => change.apply(&mut self.durable),
                    }
                }
            }
        }
        self.pending.clear();
        self.visible = self.durable.clone();
    }
}

impl Fs for FaultFs {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Op::CreateDir, dir)?;
        for parent in dir.ancestors() {
            disk.dirs.insert(parent.to_path_buf());
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let mut disk = self.disk.lock();
        disk.call(Op::List, dir)?;
        if !disk.dirs.contains(dir) {
            return Err(Error::new(Op::List, dir, io::ErrorKind::NotFound.into()));
        }
        let within = disk.names.keys().chain(&disk.dirs).filter(|path| path.parent() == Some(dir));
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
        if !path.parent().is_some_and(|dir| disk.dirs.contains(dir)) {
            return refuse(io::ErrorKind::NotFound);
        }
        let inode = match (disk.names.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateNew) => return refuse(io::ErrorKind::AlreadyExists),
            (None, OpenMode::Read) => return refuse(io::ErrorKind::NotFound),
            (Some(inode), _) => inode,
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
        let inode = disk.names.remove(from);
        let inode = inode.ok_or_else(|| Error::new(Op::Rename, from, io::ErrorKind::NotFound.into()))?;
        disk.names.insert(to.to_path_buf(), inode);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Op::Remove, path)?;
        match disk.names.remove(path) {
            Some(_) => Ok(()),
            None => Err(Error::new(Op::Remove, path, io::ErrorKind::NotFound.into())),
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Op::SyncDir, dir)?;
        if disk.lying_syncs {
            return Ok(());
        }
        let within = |path: &Path| path.parent() == Some(dir);
        disk.durable_names.retain(|path, _| !within(path));
        let now: Vec<_> =
            disk.names.iter().filter(|(path, _)| within(path)).map(|(p, i)| (p.clone(), *i)).collect();
        disk.durable_names.extend(now);
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let mut disk = self.disk.lock();
        disk.call(Op::Stat, path)?;
        Ok(disk.names.contains_key(path) || disk.dirs.contains(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Op::Link, from)?;
        let refuse = |kind: io::ErrorKind| Err(Error::new(Op::Link, from, kind.into()));
        let Some(inode) = disk.names.get(from).copied() else { return refuse(io::ErrorKind::NotFound) };
        if !to.parent().is_some_and(|dir| disk.dirs.contains(dir)) {
            return refuse(io::ErrorKind::NotFound);
        }
        if disk.names.contains_key(to) {
            return refuse(io::ErrorKind::AlreadyExists);
        }
        disk.names.insert(to.to_path_buf(), inode);
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Op::Remove, dir)?;
        let refuse = |kind: io::ErrorKind| Err(Error::new(Op::Remove, dir, kind.into()));
        if disk.names.keys().chain(&disk.dirs).any(|path| path.parent() == Some(dir)) {
            return refuse(io::ErrorKind::DirectoryNotEmpty);
        }
        if !disk.dirs.remove(dir) {
            return refuse(io::ErrorKind::NotFound);
        }
        Ok(())
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
        let mut disk = self.disk.lock();
        let planned = disk.call(Op::Write, &self.path);
        if disk.over {
            return planned;
        }
        let used = disk.used();
        let room = disk.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used));
        let inode = disk.inode(self, Op::Write)?;
        let fits = if planned.is_err() { bytes.len() / 2 } else { bytes.len() };
        let fits = fits.min(usize::try_from(room).unwrap_or(usize::MAX));
        let off = inode.visible.len();
        inode.change(Change::Write { off, bytes: bytes[..fits].to_vec() });
        planned?;
        if fits < bytes.len() {
            return Err(Error::new(Op::Write, &self.path, Fault::Full.error()));
        }
        Ok(())
    }

    fn sync_data(&mut self) -> Result<()> {
        let mut disk = self.disk.lock();
        let planned = disk.call(Op::Sync, &self.path);
        if disk.over {
            return planned;
        }
        let lying = disk.lying_syncs;
        let inode = disk.inode(self, Op::Sync)?;
        if planned.is_ok() && !lying {
            for change in &inode.pending {
                change.apply(&mut inode.durable);
            }
        }
        if !lying {
            inode.pending.clear();
        }
        planned
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
mod tests {
    use super::*;
    use crate::fake_env::SimRng;

    fn file(fs: &FaultFs, path: &str) -> Box<dyn File> {
        fs.create_dir_all(Path::new("/d")).unwrap();
        fs.open(Path::new(path), OpenMode::CreateNew).unwrap()
    }

    #[test]
    fn a_crash_takes_what_was_not_synced() {
        let (fs, rng) = (FaultFs::new(), SimRng::new(1));
        let mut synced = file(&fs, "/d/synced");
        synced.write_all(b"kept").unwrap();
        synced.sync_data().unwrap();
        synced.write_all(b" lost").unwrap();
        fs.sync_dir(Path::new("/d")).unwrap();
        let mut nameless = file(&fs, "/d/nameless");
        nameless.write_all(b"bytes").unwrap();
        nameless.sync_data().unwrap();
        assert_eq!(fs.read(Path::new("/d/synced")).unwrap(), b"kept lost");
        fs.crash(CrashMode::LoseUnsynced, &rng);
        assert_eq!(fs.read(Path::new("/d/synced")).unwrap(), b"kept");
        assert_eq!(fs.list(Path::new("/d")).unwrap(), ["synced"], "a name without sync_dir is lost");
        assert!(synced.write_all(b"!").is_err(), "handles die");
    }

    #[test]
    fn a_torn_write_keeps_a_prefix() {
        let mut lengths = BTreeSet::new();
        for seed in 0..200 {
            let (fs, rng) = (FaultFs::new(), SimRng::new(seed));
            let mut torn = file(&fs, "/d/a");
            fs.sync_dir(Path::new("/d")).unwrap();
            torn.write_all(b"0123").unwrap();
            torn.write_all(b"4567").unwrap();
            fs.crash(CrashMode::Tear, &rng);
            let left = fs.read(Path::new("/d/a")).unwrap();
            assert!(b"01234567".starts_with(left.as_slice()), "{left:?}");
            lengths.insert(left.len());
        }
        assert_eq!(lengths.len(), 9, "each length comes up: {lengths:?}");
    }

    #[test]
    fn a_failed_sync_loses_its_bytes_for_good() {
        let (fs, rng) = (FaultFs::new(), SimRng::new(1));
        let mut a = file(&fs, "/d/a");
        fs.sync_dir(Path::new("/d")).unwrap();
        a.write_all(b"1").unwrap();
        fs.fail(Op::Sync, 1, 1, Fault::Io);
        assert!(a.sync_data().is_err());
        a.sync_data().unwrap();
        assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"1", "visible all the same");
        fs.crash(CrashMode::KeepAll, &rng);
        assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"1", "and to the next process");
        fs.open(Path::new("/d/a"), OpenMode::Append).unwrap().sync_data().unwrap();
        fs.crash(CrashMode::LoseUnsynced, &rng);
        assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"");
    }

    #[test]
    fn eviction_takes_what_a_failed_sync_has_lost_and_no_more() {
        let fs = FaultFs::new();
        let mut a = file(&fs, "/d/a");
        a.write_all(b"1").unwrap();
        a.sync_data().unwrap();
        a.write_all(b"2").unwrap();
        fs.evict();
        assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"12", "still to be written");
        fs.fail(Op::Sync, 1, 1, Fault::Io);
        assert!(a.sync_data().is_err());
        assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"12");
        fs.evict();
        assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"1");
    }

    #[test]
    fn a_process_that_dies_makes_nothing_durable() {
        let (fs, rng) = (FaultFs::new(), SimRng::new(1));
        let mut a = file(&fs, "/d/a");
        a.write_all(b"1").unwrap();
        a.sync_data().unwrap();
        fs.crash(CrashMode::KeepAll, &rng);
        assert!(a.write_all(b"2").is_err(), "handles die");
        assert_eq!(fs.list(Path::new("/d")).unwrap(), ["a"]);
        let mut again = fs.open(Path::new("/d/a"), OpenMode::Append).unwrap();
        again.write_all(b"2").unwrap();
        fs.sync_dir(Path::new("/d")).unwrap();
        fs.crash(CrashMode::LoseUnsynced, &rng);
        assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"1");
    }

    #[test]
    fn after_the_halt_no_call_has_an_effect() {
        let fs = FaultFs::new();
        let mut a = file(&fs, "/d/a");
        fs.halt_after(1);
        a.write_all(b"1").unwrap();
        assert!(!fs.halted());
        assert!(a.write_all(b"2").is_err() && a.sync_data().is_err() && fs.halted());
        assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"1");
        fs.heal();
        a.write_all(b"3").unwrap();
        assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"13");
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let fs = FaultFs::new();
        let mut a = file(&fs, "/d/a");
        fs.fill_after(3);
        let full = a.write_all(b"12345").unwrap_err();
        assert!(matches!(full, Error::Full { .. }));
        assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"123");
        fs.heal();
        a.write_all(b"x").unwrap();
    }
}
