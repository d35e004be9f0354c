//! The state of a disk: what is visible, what is durable, and what lies between.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use chronolith_env::{Error, Op, Result, Rng};

use super::trace::Trace;
use super::{CrashMode, Fault, FaultFile};
use crate::fake_env::SimRng;

/// What a device writes as a whole.
const SECTOR_BYTES: usize = 512;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

/// A change of names that is visible and not durable yet.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Add { path: PathBuf, node: Node },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, node: Node },
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) names: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// What leads from `durable` to `names`, in order.
    unsynced: Vec<NameChange>,
    pub(super) inodes: HashMap<u64, Inode>,
    next_inode: u64,
    pub(super) locks: HashSet<PathBuf>,
    /// Handles of an earlier life are dead.
    pub(super) life: u64,
    pub(super) calls: HashMap<Op, u64>,
    pub(super) calls_of_all: u64,
    pub(super) planned: Vec<Plan>,
    pub(super) capacity: Option<u64>,
    pub(super) lying_syncs: bool,
    pub(super) left: Option<Left>,
    /// From behind which call `left` is to be counted.
    pub(super) trap: Option<Trap>,
    /// A call has come after those.
    pub(super) over: bool,
    pub(super) trace: Trace,
    /// Removed files of this extension are kept in `removed`.
    pub(super) keeps: Option<&'static str>,
    pub(super) removed: Vec<(PathBuf, Vec<u8>)>,
    /// Decides how much of a failing call is done.
    rng: Option<SimRng>,
}

/// So many more calls have an effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    calls: u64,
    /// Only calls that change something are counted.
    changes_only: bool,
}

/// The call from behind which the last ones are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trap {
    pub(super) site: &'static str,
    pub(super) nth: u64,
    /// So many changes are the last ones.
    pub(super) changes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Inode {
    pub(super) visible: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Change>,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { off: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// Calls that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Any,
    Op(Op),
    /// Those of a name.
    Site(&'static str),
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) which: Which,
    /// The number of the first call that fails, from 1.
    pub(super) from: u64,
    /// The number of the last one.
    pub(super) to: u64,
    pub(super) fault: Fault,
}

impl NameChange {
    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let (first, second) = match self {
            Self::Add { path, .. } | Self::Remove { path } => (path, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Add { path, node } => {
                names.insert(path.clone(), *node);
            }
            Self::Remove { path } => {
                names.remove(path);
            }
            Self::Rename { from, to, node } => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

/// A number from 0 to `n`.
fn below(rng: &dyn Rng, n: usize) -> usize {
    (rng.next_u64() % (n as u64 + 1)) as usize
}

/// Whether a call changes something.
pub(super) const fn changes(op: Op) -> bool {
    !matches!(op, Op::Open | Op::List | Op::Read | Op::Stat | Op::Lock)
}

impl Disk {
    pub(super) fn seed(&mut self, seed: u64) {
        self.rng = Some(SimRng::new(seed));
    }

    pub(super) fn used(&self) -> u64 {
        // Files removed while open are not counted: their handles are about to close.
        let bytes = |node: &Node| match node {
            Node::File(id) => self.inodes.get(id).map_or(0, |inode| inode.visible.len() as u64),
            Node::Dir => 0,
        };
        self.names.values().map(bytes).sum()
    }

    pub(super) fn is_root(&self, path: &Path) -> bool {
        path.parent().is_none_or(|parent| parent == path)
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        self.is_root(path) || self.names.get(path) == Some(&Node::Dir)
    }

    /// Everything in `dir` and in directories below it.
    pub(super) fn below<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
        let behind = self.names.range::<Path, _>((Bound::Excluded(dir), Bound::Unbounded));
        behind.map(|(path, _)| path).take_while(move |path| path.starts_with(dir))
    }

    /// Changes a name, not durably.
    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }

    pub(super) fn create(&mut self, path: &Path) -> u64 {
        self.next_inode += 1;
        let inode = self.next_inode;
        self.inodes.insert(inode, Inode::default());
        self.change(NameChange::Add { path: path.to_path_buf(), node: Node::File(inode) });
        inode
    }

    /// Makes a name durable, with the directories it is in.
    pub(super) fn make_durable(&mut self, path: &Path, inode: u64) {
        for dir in path.ancestors().skip(1) {
            self.names.insert(dir.to_path_buf(), Node::Dir);
            self.durable.insert(dir.to_path_buf(), Node::Dir);
        }
        self.durable.insert(path.to_path_buf(), Node::File(inode));
        self.unsynced.retain(|change| change.paths().all(|other| other != path));
    }

    /// A disk that has, durably, what is visible here.
    pub(super) fn fork(&self) -> Self {
        let copy = |inode: &Inode| {
            let bytes = inode.visible.clone();
            Inode { visible: bytes.clone(), durable: bytes, pending: Vec::new() }
        };
        let live = self.names.values().filter_map(|node| match node {
            Node::File(id) => Some((*id, copy(self.inodes.get(id)?))),
            Node::Dir => None,
        });
        Self {
            inodes: live.collect(),
            names: self.names.clone(),
            durable: self.names.clone(),
            next_inode: self.next_inode,
            ..Self::default()
        }
    }

    /// Keeps what a file has that is about to be removed, if that is wanted.
    pub(super) fn keep(&mut self, path: &Path, inode: u64) {
        let wanted = self.keeps.is_some_and(|keeps| path.extension().is_some_and(|name| name == keeps));
        if let Some(inode) = self.inodes.get(&inode).filter(|_| wanted) {
            self.removed.push((path.to_path_buf(), inode.visible.clone()));
        }
    }

    pub(super) fn halt_after(&mut self, calls: u64, changes_only: bool) {
        (self.left, self.over) = (Some(Left { calls, changes_only }), false);
    }

    /// Counts a call, and fails it if that is planned.
    pub(super) fn call(&mut self, op: Op, path: &Path) -> Result<()> {
        let calls = self.calls.entry(op).or_insert(0);
        *calls += 1;
        self.calls_of_all += 1;
        let (now, of_all) = (*calls, self.calls_of_all);
        if let Some(left) = self.left.as_mut() {
            let counts = self.over || !left.changes_only || changes(op);
            match left.calls.checked_sub(u64::from(counts)) {
                Some(rest) if !self.over => left.calls = rest,
                _ => {
                    if !std::mem::replace(&mut self.over, true) {
                        self.trace.halted(op, path);
                    }
                    return Err(Error::new(op, path, io::Error::other("halted")));
                }
            }
        }
        let site = self.trace.name(op, path);
        let of_site = site.map_or(0, |site| self.trace.met(site) + 1);
        let hit = |plan: &&Plan| {
            let number = match plan.which {
                Which::Any => of_all,
                Which::Op(planned) if planned == op => now,
                Which::Site(planned) if Some(planned) == site => of_site,
                _ => return false,
            };
            (plan.from..=plan.to).contains(&number)
        };
        let fault = self.planned.iter().find(hit).map(|plan| plan.fault);
        self.trace.note((op, path), site, fault.is_none());
        if let Some(trap) = self.trap.as_mut().filter(|trap| Some(trap.site) == site && fault.is_none()) {
            trap.nth = trap.nth.saturating_sub(1);
            if trap.nth == 0 {
                self.left = Some(Left { calls: trap.changes, changes_only: true });
                self.trap = None;
            }
        }
        match fault {
            Some(fault) => Err(Error::new(op, path, fault.error())),
            None => Ok(()),
        }
    }

    /// Makes the changes of names in `dir` durable, and what they follow from.
    pub(super) fn sync_dir(&mut self, dir: &Path) -> Result<()> {
        self.call(Op::SyncDir, dir)?;
        if !self.is_dir(dir) {
            return Err(Error::new(Op::SyncDir, dir, io::ErrorKind::NotFound.into()));
        }
        if self.lying_syncs {
            return Ok(());
        }
        let mut concerned: HashSet<&PathBuf> = HashSet::new();
        let mut saved = vec![false; self.unsynced.len()];
        for (change, saved) in self.unsynced.iter().zip(&mut saved).rev() {
            *saved = change.paths().any(|path| path.parent() == Some(dir) || concerned.contains(path));
            if *saved {
                concerned.extend(change.paths());
            }
        }
        let mut saved = saved.into_iter();
        let durable = &mut self.durable;
        self.unsynced.retain(|change| {
            let saved = saved.next().unwrap_or(false);
            if saved {
                change.apply(durable);
            }
            !saved
        });
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, dir: &Path) -> Result<()> {
        self.call(Op::Remove, dir)?;
        let refuse = |kind: io::ErrorKind| Err(Error::new(Op::Remove, dir, kind.into()));
        if self.below(dir).next().is_some() {
            return refuse(io::ErrorKind::DirectoryNotEmpty);
        }
        if self.names.get(dir) != Some(&Node::Dir) {
            return refuse(io::ErrorKind::NotFound);
        }
        self.change(NameChange::Remove { path: dir.to_path_buf() });
        Ok(())
    }

    pub(super) fn write(&mut self, file: &FaultFile, bytes: &[u8]) -> Result<()> {
        let planned = self.call(Op::Write, &file.path);
        if self.over {
            return planned;
        }
        let used = if self.capacity.is_some() { self.used() } else { 0 };
        let room = self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used));
        let part = self.rng.as_ref().map_or(bytes.len() / 2, |rng| below(rng, bytes.len()));
        self.trace.bytes(bytes);
        let inode = self.inode(file, Op::Write)?;
        let fits = if planned.is_err() { part } else { bytes.len() };
        let fits = fits.min(usize::try_from(room).unwrap_or(usize::MAX));
        let off = inode.visible.len();
        inode.change(Change::Write { off, bytes: bytes[..fits].to_vec() });
        planned?;
        if fits < bytes.len() {
            self.trace.fell_short(Op::Write, &file.path);
            return Err(Error::new(Op::Write, &file.path, Fault::Full.error()));
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, file: &FaultFile) -> Result<()> {
        let planned = self.call(Op::Sync, &file.path);
        if self.over {
            return planned;
        }
        let lying = self.lying_syncs;
        let fate = self.rng.as_ref().map_or(0, Rng::next_u64);
        let inode = self.inode(file, Op::Sync)?;
        if lying {
            return planned;
        }
        for (number, change) in inode.pending.iter().enumerate() {
            if planned.is_ok() || fate >> (number % 64) & 1 == 1 {
                change.apply(&mut inode.durable);
            }
        }
        inode.pending.clear();
        planned
    }

    pub(super) fn evict(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.visible = inode.durable.clone();
            for change in &inode.pending {
                change.apply(&mut inode.visible);
            }
        }
    }

    pub(super) fn crash(&mut self, mode: CrashMode, rng: &dyn Rng) {
        self.life += 1;
        self.locks.clear();
        if mode == CrashMode::KeepAll {
            return;
        }
        // In a fixed order, so that a seed tells the whole story.
        let mut ids: Vec<u64> = self.inodes.keys().copied().collect();
        ids.sort_unstable();
        let changes = std::mem::take(&mut self.unsynced);
        let unsynced = |id: &u64| self.inodes.get(id).is_some_and(|inode| !inode.pending.is_empty());
        let mut single = Single::new(mode, ids.iter().filter(|id| unsynced(id)).count(), changes.len(), rng);
        for id in ids {
            if let Some(inode) = self.inodes.get_mut(&id) {
                let unsynced = !inode.pending.is_empty();
                match single.as_mut().filter(|_| unsynced).map(Single::survives) {
                    Some(true) => inode.flush(),
                    Some(false) => inode.crash(CrashMode::LoseUnsynced, rng),
                    None => inode.crash(mode, rng),
                }
            }
        }
        let in_order = mode == CrashMode::Tear || (mode == CrashMode::Subset && rng.next_u64() & 1 == 1);
        let first = if in_order { below(rng, changes.len()) } else { 0 };
        for (number, change) in changes.iter().enumerate() {
            let survives = match &mut single {
                Some(single) => single.survives(),
                None => number < first || (mode == CrashMode::Subset && !in_order && rng.next_u64() & 1 == 1),
            };
            if survives {
                change.apply(&mut self.durable);
            }
        }
        let known = std::mem::take(&mut self.durable);
        for (path, node) in known {
            // What is in a directory that has no durable name is gone with it. Parents come first.
            if path.parent().is_none_or(|dir| {
                dir.parent().is_none()
                    || dir.as_os_str().is_empty()
                    || self.durable.get(dir) == Some(&Node::Dir)
            }) {
                self.durable.insert(path, node);
            }
        }
        self.names = self.durable.clone();
        let file = |node: &Node| if let Node::File(id) = node { Some(*id) } else { None };
        let live: HashSet<u64> = self.names.values().filter_map(file).collect();
        self.inodes.retain(|id, _| live.contains(id));
    }

    /// The inode of a handle, unless the handle has died in a crash.
    pub(super) fn inode(&mut self, file: &FaultFile, op: Op) -> Result<&mut Inode> {
        let gone = || Error::new(op, &file.path, io::Error::other("the machine has crashed since"));
        if file.life != self.life {
            return Err(gone());
        }
        self.inodes.get_mut(&file.inode).ok_or_else(gone)
    }
}

/// Which one thing a crash takes or leaves.
struct Single {
    chosen: usize,
    next: usize,
    /// The chosen one is lost, else it is the only one that is not.
    lost: bool,
}

impl Single {
    fn new(mode: CrashMode, files: usize, names: usize, rng: &dyn Rng) -> Option<Self> {
        if mode != CrashMode::Single {
            return None;
        }
        let lost = rng.next_u64() & 1 == 1;
        // Mostly a name: what is in files that were not synced, other crashes take as well.
        let (from, of) = match rng.next_u64() % 4 {
            0 => (0, files),
            _ => (files, names),
        };
        let chosen = if of == 0 { usize::MAX } else { from + below(rng, of - 1) };
        Some(Self { chosen, next: 0, lost })
    }

    /// Whether the next thing reaches the disk.
    const fn survives(&mut self) -> bool {
        let is_chosen = self.next == self.chosen;
        self.next += 1;
        is_chosen != self.lost
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

    /// Lets something of the change reach `to`, which is not the whole of it or is not in order.
    fn apply_some(&self, to: &mut Vec<u8>, rng: &dyn Rng) {
        match (rng.next_u64() % 5, self) {
            (0, _) => {}
            (1, Self::Write { off, bytes }) => {
                let bytes = bytes[..below(rng, bytes.len())].to_vec();
                Self::Write { off: *off, bytes }.apply(to);
            }
            (2, Self::Write { off, bytes }) => {
                let mut at = *off;
                let end = off + bytes.len();
                while at < end {
                    let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                    if rng.next_u64() & 1 == 1 {
                        Self::Write { off: at, bytes: bytes[at - off..next - off].to_vec() }.apply(to);
                    }
                    at = next;
                }
            }
            (3, Self::Write { off, bytes }) => {
                let end = off + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
            }
            _ => self.apply(to),
        }
    }
}

impl Inode {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.visible);
        self.pending.push(change);
    }

    /// Everything reaches the disk.
    fn flush(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
        self.visible.clone_from(&self.durable);
    }

    fn crash(&mut self, mode: CrashMode, rng: &dyn Rng) {
        match mode {
            CrashMode::KeepAll => return,
            CrashMode::LoseUnsynced | CrashMode::Single => {}
            CrashMode::Tear => {
                let written = |change: &Change| match change {
                    Change::Write { bytes, .. } => bytes.len(),
                    Change::SetLen(_) => 1,
                };
                let mut left = below(rng, self.pending.iter().map(written).sum());
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
                    change.apply_some(&mut self.durable, rng);
                }
            }
        }
        self.pending.clear();
        self.visible.clone_from(&self.durable);
    }
}
