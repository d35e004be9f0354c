//! Loading a snapshot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chronolith_env::{Env, File, OpenMode};
use chronolith_model::Timestamp;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::format::{self, Bound, FORMAT_VERSION, Header, HeaderStatus, Section, Sections};
use super::restore::{Share, load_piece};
use super::side::{load_exemplars, load_starts};
use super::{
    EXTRA_SECTIONS_MAX, EXTRA_TYPE_MIN, ExtraSection, HeadState, ShardSummary, SnapshotError, TEMPORARY,
    numbers, path,
};
use crate::{chunk_file::ChunkFiles, head::Head, options::SHARDS, shard::Ref};

/// At most this many damaged places are listed; all are counted.
const DAMAGE_MAX: usize = 1000;
/// At most this many bytes of a damaged place are copied to the quarantine.
const QUARANTINE_BYTES_MAX: u64 = 1 << 20;
/// At most this many files are in the quarantine.
const QUARANTINE_FILES_MAX: usize = 1000;

/// What loading a snapshot came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The number of the snapshot; `None` if there is none that could be read.
    pub number: Option<u32>,
    /// Its length in bytes.
    pub bytes: u64,
    /// Series in memory again.
    pub series: u64,
    /// Samples in memory again, late ones included.
    pub samples: u64,
    /// By shard: what the log has up to this is in memory; 0 where something is damaged, so that all of the log is read.
    pub sequences: [u64; SHARDS],
    /// What the log has up to this, of all shards, is needed no longer; `None` if something is damaged, or if there is an
    /// older one.
    pub covered: Option<u64>,
    /// Boundary of the last finished cut, the least timestamp if there was none.
    pub cut: Timestamp,
    /// Exemplars in memory again.
    pub exemplars: u64,
    /// What was handed over when it was written.
    pub extras: Vec<ExtraSection>,
    /// Damaged places, the first thousand; those of a newer snapshot that was passed over for it included.
    pub damage: Vec<SnapshotDamage>,
    /// How many damaged places there were.
    pub damage_count: u64,
    /// Series in damaged sections: they have what the log still has of them, nothing else.
    pub series_damaged: u64,
    /// Chunk files that are missing or something else: queries of chunks in them fail.
    pub missing_files: Vec<PathBuf>,
    /// How long it took.
    pub duration: Duration,
    /// Numbers of series whose labels another one has as well, to the number in use.
    pub(crate) renumbered: HashMap<u32, u32>,
}

/// A damaged place in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDamage {
    /// The snapshot.
    pub path: PathBuf,
    /// Where the damage begins.
    pub offset: u64,
    /// How many bytes are damaged.
    pub bytes: u64,
    /// What is wrong.
    pub reason: SnapshotDamageReason,
    /// How many series stood there.
    pub series: u64,
    /// Where the damaged bytes have been copied or moved to, if that was possible.
    pub quarantined: Option<PathBuf>,
}

/// What is wrong with a damaged place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SnapshotDamageReason {
    /// The file's header: nothing of it can be read.
    Header,
    /// The directory; and the sections behind the place, if no header of one is there.
    Directory,
    /// A section's payload does not match its checksum, or cannot be read.
    Payload,
    /// A section's payload matches its checksum, but does not say what its type promises.
    Content,
}

impl Default for Loaded {
    fn default() -> Self {
        Self {
            number: None,
            bytes: 0,
            series: 0,
            samples: 0,
            sequences: [0; SHARDS],
            covered: None,
            cut: Timestamp::MIN,
            exemplars: 0,
            extras: Vec::new(),
            damage: Vec::new(),
            damage_count: 0,
            series_damaged: 0,
            missing_files: Vec::new(),
            duration: Duration::ZERO,
            renumbered: HashMap::new(),
        }
    }
}

/// A snapshot that has a header.
struct Candidate {
    version: u16,
    number: u32,
    path: PathBuf,
    file: Box<dyn File>,
    bytes: u64,
    sections: Sections,
}

pub(super) fn load(env: &Env, dir: &Path, files: &ChunkFiles, head: &Head) -> Result<Loaded, SnapshotError> {
    let started = env.clock.monotonic();
    let mut loaded = Loaded::default();
    let mut candidates = Vec::new();
    // Looked at before anything is changed: a version to come is left alone.
    let mut unreadable = Vec::new();
    for number in numbers(env, dir)?.into_iter().rev() {
        match open(env, dir, number)? {
            Some(candidate) => candidates.push(candidate),
            None => unreadable.push(number),
        }
    }
    // A killed process may have left a name that is not durable yet. What a start has shown may be acknowledged as known:
    // it is not to go with the next power cut.
    env.fs.sync_dir(dir)?;
    let _ = env.fs.remove_file(&dir.join(TEMPORARY));
    for number in unreadable {
        let path = path(dir, number);
        let quarantined = move_aside(env, dir, &path);
        let reason = SnapshotDamageReason::Header;
        loaded.note(SnapshotDamage { path, offset: 0, bytes: 0, reason, series: 0, quarantined });
    }
    let alone = candidates.len() <= 1;
    let chosen = choose(env, dir, &candidates, &mut loaded);
    if let Some(candidate) = chosen.and_then(|at| candidates.get(at)) {
        candidate.load(env, dir, (head, files), &mut loaded);
        loaded.missing_files = files.missing();
        if loaded.damage_count == 0 && alone && loaded.missing_files.is_empty() {
            loaded.covered = loaded.sequences.iter().copied().min();
        }
    }
    loaded.duration = env.clock.monotonic().saturating_sub(started);
    Ok(loaded)
}

/// `None` if the header cannot be read.
fn open(env: &Env, dir: &Path, number: u32) -> Result<Option<Candidate>, SnapshotError> {
    let path = path(dir, number);
    // What cannot be opened (too many files, no permission) says nothing of its content: nothing is set aside for that.
    let file = env.fs.open(&path, OpenMode::Read)?;
    let bytes = file.len()?;
    match Header::read(file.as_ref()) {
        HeaderStatus::Valid(header) if header.number == number => {
            let bound = Bound { version: header.version, number };
            let sections = Sections::of(file.as_ref(), bound, bytes);
            Ok(Some(Candidate { version: header.version, number, path, file, bytes, sections }))
        }
        HeaderStatus::Foreign(got) => {
            Err(SnapshotError::ForeignVersion { path, got, expected: FORMAT_VERSION })
        }
        HeaderStatus::Valid(_) | HeaderStatus::Damaged => Ok(None),
    }
}

/// The newest of `candidates`, which are sorted so, that is whole; the newest of all if none is.
fn choose(env: &Env, dir: &Path, candidates: &[Candidate], loaded: &mut Loaded) -> Option<usize> {
    if candidates.len() > 1 {
        for (at, candidate) in candidates.iter().enumerate() {
            let damage = candidate.check();
            if damage.is_empty() && candidate.sections.damage.is_none() {
                return Some(at);
            }
            if at + 1 < candidates.len() {
                candidate.report(env, dir, damage, loaded);
            }
        }
        // The newest is reported again when it is loaded.
        *loaded = Loaded::default();
    }
    (!candidates.is_empty()).then_some(0)
}

impl Loaded {
    fn note(&mut self, damage: SnapshotDamage) {
        self.damage_count += 1;
        self.series_damaged += damage.series;
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(damage);
        }
    }
}

impl Candidate {
    /// The sections whose checksums are wrong.
    fn check(&self) -> Vec<(Section, SnapshotDamageReason)> {
        let mut payload = Vec::new();
        let wrong = |section: &&Section| section.payload(self.file.as_ref(), &mut payload).is_none();
        let wrong = self.sections.found.iter().filter(wrong);
        wrong.map(|section| (*section, SnapshotDamageReason::Payload)).collect()
    }

    fn report(
        &self,
        env: &Env,
        dir: &Path,
        damage: Vec<(Section, SnapshotDamageReason)>,
        loaded: &mut Loaded,
    ) {
        let sections = damage.into_iter().map(|(section, reason)| {
            (section.offset, section.end() - section.offset, reason, u64::from(section.items))
        });
        let directory =
            self.sections.damage.map(|(at, bytes)| (at, bytes, SnapshotDamageReason::Directory, 0));
        for (offset, bytes, reason, series) in sections.chain(directory) {
            let quarantined = self.quarantine(env, dir, offset, bytes);
            let path = self.path.clone();
            loaded.note(SnapshotDamage { path, offset, bytes, reason, series, quarantined });
        }
    }

    fn load(&self, env: &Env, dir: &Path, (head, files): (&Head, &ChunkFiles), loaded: &mut Loaded) {
        (loaded.number, loaded.bytes) = (Some(self.number), self.bytes);
        let mut damage = Vec::new();
        self.common(head, loaded, &mut damage);
        let workers = env.scheduler.parallelism().clamp(1, SHARDS);
        let shares: Vec<Mutex<Share>> = (0..workers).map(|_| Mutex::default()).collect();
        let mut tasks: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
        for (worker, share) in shares.iter().enumerate() {
            tasks.push(Box::new(move || {
                let mut share = share.lock();
                for shard in (worker..SHARDS).step_by(workers) {
                    self.shard((head, files), shard, &mut share);
                }
            }));
        }
        env.scheduler.run_all(tasks);
        for share in shares {
            let share = share.into_inner();
            loaded.series += share.series;
            loaded.samples += share.samples;
            loaded.renumbered.extend(share.renumbered);
            for (shard, sequence) in share.sequences {
                if let Some(known) = loaded.sequences.get_mut(shard) {
                    *known = sequence;
                }
            }
            if let Some(times) = share.times {
                head.saw_times(times);
            }
            damage.extend(share.damage);
        }
        head.measure_tables();
        self.report(env, dir, damage, loaded);
    }

    /// The sections that belong to no shard.
    fn common(&self, head: &Head, loaded: &mut Loaded, damage: &mut Vec<(Section, SnapshotDamageReason)>) {
        let (mut payload, mut scratch) = (Vec::new(), Vec::new());
        for section in &self.sections.found {
            let extra = section.section_type >= EXTRA_TYPE_MIN && loaded.extras.len() < EXTRA_SECTIONS_MAX;
            if !matches!(section.section_type, format::HEAD | format::EXEMPLARS) && !extra {
                continue;
            }
            if section.payload(self.file.as_ref(), &mut payload).is_none() {
                damage.push((*section, SnapshotDamageReason::Payload));
                continue;
            }
            let content = section.content(&payload, &mut scratch);
            match (content, section.section_type) {
                (Some(content), EXTRA_TYPE_MIN..) => loaded
                    .extras
                    .push(ExtraSection { section_type: section.section_type, bytes: content.to_vec() }),
                (Some(content), format::EXEMPLARS) if let Some(exemplars) = load_exemplars(head, content) => {
                    loaded.exemplars += exemplars;
                }
                (Some(content), format::HEAD) if let Ok(state) = HeadState::decode(content) => {
                    loaded.cut = state.cut;
                    head.raise_memory_floor(state.memory_floor);
                }
                _ => damage.push((*section, SnapshotDamageReason::Content)),
            }
        }
    }

    /// Loads the sections of a shard. Its sequence number counts only if all of them are there.
    fn shard(&self, (head, files): (&Head, &ChunkFiles), shard: usize, share: &mut Share) {
        let (mut payload, mut scratch) = (Vec::new(), Vec::new());
        let mut summary = None;
        let damaged_before = share.damage.len();
        for section in self.sections.found.iter().filter(|section| usize::from(section.shard) == shard) {
            if !matches!(section.section_type, format::SERIES | format::SHARD | format::STARTS) {
                // Of a program to come; by the rule of versions not needed to read the rest.
                continue;
            }
            if section.payload(self.file.as_ref(), &mut payload).is_none() {
                share.damage.push((*section, SnapshotDamageReason::Payload));
                continue;
            }
            let content = section.content(&payload, &mut scratch);
            let understood = match section.section_type {
                format::SHARD => {
                    summary = content.and_then(|content| ShardSummary::decode(content).ok());
                    summary.is_some()
                }
                format::STARTS => {
                    content.and_then(|content| load_starts(head, shard, content, share)).is_some()
                }
                _ => content
                    .and_then(|content| load_piece((head, files), shard, (content, self.version), share))
                    .is_some(),
            };
            if !understood {
                share.damage.push((*section, SnapshotDamageReason::Content));
            }
            // The same budget as for appends: the oldest gives way.
            head.enforce_memory();
        }
        let Some(summary) = summary else { return };
        if let Some(last) = summary.next_slot.checked_sub(1)
            && let Some(shard) = head.shards.get(shard)
        {
            shard.lock().slab.reserve_through(last.min(Ref::SLOT_MAX));
        }
        if share.damage.len() == damaged_before {
            share.sequences.push((shard, summary.sequence));
        }
    }

    /// Copies the first bytes of a damaged place to `quarantine/<snapshot>-<offset>.bad`. The file itself stays until
    /// another snapshot has taken its place: what is intact in it may be needed again.
    fn quarantine(&self, env: &Env, dir: &Path, offset: u64, bytes: u64) -> Option<PathBuf> {
        let dir = dir.join("quarantine");
        let path = dir.join(format!("{:08}.snapshot-{offset}.bad", self.number));
        if env.fs.exists(&path).ok()? {
            // From an earlier start.
            return Some(path);
        }
        env.fs.create_dir_all(&dir).ok()?;
        if env.fs.list(&dir).ok()?.len() >= QUARANTINE_FILES_MAX {
            return None;
        }
        let mut copy = vec![0; usize::try_from(bytes.min(QUARANTINE_BYTES_MAX)).ok()?];
        let got = self.file.read_at(offset, &mut copy).ok()?;
        let mut out = env.fs.open(&path, OpenMode::CreateNew).ok()?;
        let written = out.write_all(copy.get(..got).unwrap_or_default()).and_then(|()| out.sync_data());
        if written.is_err() {
            // A part would pass for the whole at the next start.
            let _ = env.fs.remove_file(&path);
            return None;
        }
        env.fs.sync_dir(&dir).ok()?;
        Some(path)
    }
}

/// Moves a file of which nothing can be read to the quarantine.
fn move_aside(env: &Env, dir: &Path, path: &Path) -> Option<PathBuf> {
    let quarantine = dir.join("quarantine");
    let to = quarantine.join(path.file_name()?);
    env.fs.create_dir_all(&quarantine).ok()?;
    env.fs.rename(path, &to).ok()?;
    env.fs.sync_dir(&quarantine).ok()?;
    env.fs.sync_dir(dir).ok()?;
    Some(to)
}
