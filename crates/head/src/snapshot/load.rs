//! Loading a snapshot.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use chronolith_env::{Env, File as _, OpenMode};
use chronolith_model::Timestamp;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::format::{self, Bound, FORMAT_VERSION, Header, HeaderStatus, Section, Sections};
use super::more;
use super::restore::{self, Share, load_piece};
use super::side::{load_exemplars, load_starts};
use super::watched::Watched;
use super::{
    EXTRA_SECTIONS_MAX, EXTRA_TYPE_MIN, ExtraSection, HeadState, ShardSummary, SnapshotError, TEMPORARY,
    numbers, path,
};
use crate::{
    chunk_file::ChunkFiles,
    error::{ChunkDamage, ReadError},
    head::Head,
    missed::MissedChunks,
    options::SHARDS,
    shard::Ref,
};

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
    /// Something is damaged that may have had samples of any series, or is known by the count of series only.
    pub unknown_damage: bool,
    /// Chunk files that are missing: what chunks in them had is in the log, or lost.
    pub missing_files: Vec<PathBuf>,
    /// When the snapshot was begun, milliseconds.
    pub created_ms: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// Numbers of series whose labels another one has as well, to the number in use.
    pub(crate) renumbered: HashMap<u32, u32>,
    /// By shard: what the log had up to this was in the snapshot, whatever is damaged.
    pub(crate) known: [u64; SHARDS],
    /// By shard, what chunk files did not give back.
    pub(crate) missed: Vec<MissedChunks>,
}

/// A damaged place in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDamage {
    /// The snapshot, or chunk file.
    pub path: PathBuf,
    /// What it is of the file.
    pub section: &'static str,
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
    /// A chunk in a chunk file, which is what `path` and `offset` name, cannot be read, or the header of the file.
    ChunkFile,
    /// A chunk file is missing.
    ChunkFileMissing,
}

impl SnapshotDamageReason {
    /// Whether samples may be concerned of which nothing else is known.
    #[must_use]
    pub const fn is_of_samples(self) -> bool {
        !matches!(self, Self::ChunkFile | Self::ChunkFileMissing)
    }
}

impl fmt::Display for SnapshotDamageReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "its header is damaged: nothing of it can be read",
            Self::Directory => "the directory is damaged",
            Self::Payload => "it does not match its checksum, or cannot be read",
            Self::Content => "its content is not what its type promises",
            Self::ChunkFile => "it does not match its checksum, or cannot be read",
            Self::ChunkFileMissing => "the file is missing",
        })
    }
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
            unknown_damage: false,
            missing_files: Vec::new(),
            created_ms: Timestamp::MIN,
            duration: Duration::ZERO,
            renumbered: HashMap::new(),
            known: [0; SHARDS],
            missed: vec![MissedChunks::default(); SHARDS],
        }
    }
}

/// A snapshot that has a header.
struct Candidate {
    version: u16,
    created_ms: Timestamp,
    number: u32,
    path: PathBuf,
    file: Watched,
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
        let (reason, section) = (SnapshotDamageReason::Header, "header");
        loaded.note(SnapshotDamage { path, section, offset: 0, bytes: 0, reason, series: 0, quarantined });
        // If there is another one, the log has what that does not have.
        loaded.unknown_damage = candidates.is_empty();
    }
    let alone = candidates.len() <= 1;
    let chosen = choose((env, dir, files), &candidates, &mut loaded)?;
    if let Some(candidate) = chosen.and_then(|at| candidates.get(at)) {
        candidate.load(env, dir, (head, files), &mut loaded)?;
        if let Some(refused) = files.refused() {
            return Err(refused.into());
        }
        loaded.missing_files = files.missing();
        loaded.note_chunk_files(dir, files);
        if loaded.damage_count == 0 && alone && !head.has_unread() && loaded.missing_files.is_empty() {
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
    let file = Watched::new(file);
    let header = Header::read(&file);
    file.check()?;
    match header {
        HeaderStatus::Valid(header) if header.number == number => {
            let bound = Bound { version: header.version, number };
            let sections = Sections::of(&file, bound, bytes);
            file.check()?;
            let (version, created_ms) = (header.version, header.created_ms);
            Ok(Some(Candidate { version, created_ms, number, path, file, bytes, sections }))
        }
        HeaderStatus::Foreign(got) => {
            Err(SnapshotError::ForeignVersion { path, got, expected: FORMAT_VERSION })
        }
        HeaderStatus::Valid(_) | HeaderStatus::Damaged => Ok(None),
    }
}

/// The newest of `candidates`, which are sorted so, that is whole; the newest of all if none is.
fn choose(
    (env, dir, files): (&Env, &Path, &ChunkFiles),
    candidates: &[Candidate],
    loaded: &mut Loaded,
) -> chronolith_env::Result<Option<usize>> {
    let before = loaded.clone();
    if candidates.len() > 1 {
        let mut refused = None;
        for (at, candidate) in candidates.iter().enumerate() {
            let damage = candidate.check(files);
            if let Err(error) = candidate.file.check() {
                // It stays. The log goes back to the older one as long as that is there.
                refused.get_or_insert(error);
                continue;
            }
            if damage.is_empty() && candidate.sections.damage.is_none() {
                return Ok(Some(at));
            }
            if at + 1 < candidates.len() {
                candidate.report(env, dir, damage, loaded);
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        // The newest is reported again when it is loaded.
        *loaded = before;
    }
    Ok((!candidates.is_empty()).then_some(0))
}

impl Loaded {
    fn note(&mut self, damage: SnapshotDamage) {
        self.damage_count += 1;
        self.series_damaged += damage.series;
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(damage);
        }
    }

    /// Gives damaged chunk files a place in the quarantine, and reports those whose header is damaged, and the missing ones.
    fn note_chunk_files(&mut self, dir: &Path, files: &ChunkFiles) {
        let quarantine = dir.join("quarantine");
        let mut kept: HashMap<PathBuf, Option<PathBuf>> = HashMap::new();
        for damage in self.damage.iter_mut().filter(|damage| damage.reason == SnapshotDamageReason::ChunkFile)
        {
            let to = kept.entry(damage.path.clone()).or_insert_with_key(|path| files.keep(path, &quarantine));
            damage.quarantined.clone_from(to);
        }
        let chunk_file = |path: PathBuf, reason, quarantined| {
            let section = "header of a chunk file";
            SnapshotDamage { path, section, offset: 0, bytes: 0, reason, series: 0, quarantined }
        };
        for path in files.headless() {
            let quarantined = files.keep(&path, &quarantine);
            self.note(chunk_file(path, SnapshotDamageReason::ChunkFile, quarantined));
        }
        for path in self.missing_files.clone() {
            self.note(chunk_file(path, SnapshotDamageReason::ChunkFileMissing, None));
        }
    }
}

impl Candidate {
    /// The sections whose checksums are wrong, or that name chunks in files which cannot be read.
    fn check(&self, files: &ChunkFiles) -> Vec<(Section, SnapshotDamageReason)> {
        let mut damage = Vec::new();
        let (mut payload, mut scratch) = (Vec::new(), Vec::new());
        for section in &self.sections.found {
            if section.payload(&self.file, &mut payload).is_none() {
                damage.push((*section, SnapshotDamageReason::Payload));
                continue;
            }
            let mut share = Share::default();
            let content = section.content(&payload, &mut scratch);
            match (content, section.section_type) {
                (Some(content), format::SERIES) => {
                    restore::check_piece(content, self.version, files, &mut share)
                }
                (Some(content), format::MORE) => more::check(content, files, &mut share),
                _ => {}
            }
            if !share.unread.is_empty() || !share.refused.is_empty() {
                damage.push((*section, SnapshotDamageReason::ChunkFile));
            }
        }
        damage
    }

    fn report(
        &self,
        env: &Env,
        dir: &Path,
        damage: Vec<(Section, SnapshotDamageReason)>,
        loaded: &mut Loaded,
    ) {
        let sections = damage.into_iter().map(|(section, reason)| {
            let bytes = section.end() - section.offset;
            (section.name(), section.offset, bytes, reason, u64::from(section.items))
        });
        let directory = self
            .sections
            .damage
            .map(|(at, bytes)| ("directory", at, bytes, SnapshotDamageReason::Directory, 0));
        for (section, offset, bytes, reason, series) in sections.chain(directory) {
            let quarantined = self.quarantine(env, dir, offset, bytes);
            let path = self.path.clone();
            loaded.note(SnapshotDamage { path, section, offset, bytes, reason, series, quarantined });
        }
    }

    fn load(
        &self,
        env: &Env,
        dir: &Path,
        (head, files): (&Head, &ChunkFiles),
        loaded: &mut Loaded,
    ) -> chronolith_env::Result<()> {
        (loaded.number, loaded.bytes, loaded.created_ms) = (Some(self.number), self.bytes, self.created_ms);
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
        // Whoever asked is to ask again, of what is there; nothing is set aside.
        self.file.check()?;
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
            for (shard, sequence) in share.known {
                if let Some(known) = loaded.known.get_mut(shard) {
                    *known = sequence;
                }
            }
            let renumbered = |reference| loaded.renumbered.get(&reference).copied().unwrap_or(reference);
            for (missed, of) in loaded.missed.iter_mut().zip(share.missed.by_shard()) {
                missed.extend(of, renumbered);
            }
            head.note_unread(share.refused);
            damage.extend(share.damage);
            let missing = |error: &ReadError| {
                matches!(error, ReadError::ChunkFile { damage: ChunkDamage::Missing, .. })
            };
            for (section, error, bytes) in share.chunk_damage {
                // A file that is missing is one place, whatever was in it.
                if !missing(&error) {
                    loaded.note(self.damage_of(section, error, bytes));
                }
            }
        }
        head.measure_tables();
        let of_samples = |(section, _): &(Section, SnapshotDamageReason)| section.has_samples();
        loaded.unknown_damage |= damage.iter().any(of_samples) || !self.sections.all_found;
        self.report(env, dir, damage, loaded);
        Ok(())
    }

    /// The report of a chunk that was to be read, while `section` was loaded, and cannot be.
    fn damage_of(&self, section: Section, error: ReadError, bytes: u64) -> SnapshotDamage {
        let (path, name, offset, bytes, reason) = match error {
            ReadError::ChunkFile { path, offset, .. } => {
                (path, "chunk of a series", offset, bytes, SnapshotDamageReason::ChunkFile)
            }
            ReadError::Chunk(_) => {
                let bytes = section.end() - section.offset;
                (self.path.clone(), section.name(), section.offset, bytes, SnapshotDamageReason::Content)
            }
        };
        SnapshotDamage { path, section: name, offset, bytes, reason, series: 1, quarantined: None }
    }

    /// The sections that belong to no shard.
    fn common(&self, head: &Head, loaded: &mut Loaded, damage: &mut Vec<(Section, SnapshotDamageReason)>) {
        let (mut payload, mut scratch) = (Vec::new(), Vec::new());
        for section in &self.sections.found {
            let extra = section.section_type >= EXTRA_TYPE_MIN && loaded.extras.len() < EXTRA_SECTIONS_MAX;
            if !matches!(section.section_type, format::HEAD | format::EXEMPLARS) && !extra {
                continue;
            }
            if section.payload(&self.file, &mut payload).is_none() {
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
                    head.snapshot_cut.store(state.cut, Ordering::Release);
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
        let mut whole = true;
        for section in self.sections.found.iter().filter(|section| usize::from(section.shard) == shard) {
            let more = section.section_type == format::MORE && self.version >= format::MORE_VERSION;
            if !matches!(section.section_type, format::SERIES | format::SHARD | format::STARTS) && !more {
                // Of a program to come; by the rule of versions not needed to read the rest.
                continue;
            }
            if section.payload(&self.file, &mut payload).is_none() {
                share.damage.push((*section, SnapshotDamageReason::Payload));
                whole = false;
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
                format::MORE => {
                    content.and_then(|content| more::load((head, files), shard, content, share)).is_some()
                }
                _ => content
                    .and_then(|content| load_piece((head, files), shard, (content, self.version), share))
                    .is_some(),
            };
            if !understood {
                share.damage.push((*section, SnapshotDamageReason::Content));
            }
            let unread = std::mem::take(&mut share.unread);
            whole &= understood && unread.is_empty();
            share.chunk_damage.extend(unread.into_iter().map(|(error, bytes)| (*section, error, bytes)));
            // The same budget as for appends: the oldest gives way.
            head.enforce_memory();
        }
        let Some(summary) = summary else { return };
        if let Some(last) = summary.next_slot.checked_sub(1)
            && let Some(shard) = head.shards.get(shard)
        {
            shard.lock().slab.reserve_through(last.min(Ref::SLOT_MAX));
        }
        share.known.push((shard, summary.sequence));
        if whole {
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
