//! Snapshots: what the head holds, in one file, so that a start need not read the whole log.
//!
//! A snapshot is written shard by shard, in pieces of some hundred series; a shard's lock is held for one piece's copy
//! at a time. With each shard stands the log's sequence number as it was before its first piece was copied: the pieces
//! have everything up to it, and something of what comes later, which a replay meets again and recognises. What a piece
//! has may not be durable in the log yet; then it was not acknowledged yet either, and being there is no harm.
//!
//! Order of events: chunk files are durable before a chunk is known by its place in one; the snapshot is written under a
//! temporary name, synced, renamed, the directory synced; only then the older snapshot goes, and when that is durable,
//! the log's segments may. So at each moment one whole snapshot and the log behind it are there.
//! Layout byte by byte: docs/format/snapshot.md.

mod chunks;
mod format;
mod load;
mod more;
mod piece;
mod restore;
mod side;
mod watched;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chronolith_env::Env;
use chronolith_model::Timestamp;

use crate::{chunk_file::ChunkFiles, error::ReadError, head::Head, options::SHARDS};

pub use format::{FORMAT_VERSION as SNAPSHOT_VERSION, FORMAT_VERSION_MIN as SNAPSHOT_VERSION_MIN};
pub use load::{Loaded, SnapshotDamage, SnapshotDamageReason};
pub use write::SnapshotWriter;

/// A snapshot is due when the log behind the last one has so many bytes, or as many as that one has if that is more.
pub const SNAPSHOT_LOG_BYTES: u64 = 32 << 20;

/// The first type of sections whose content the head does not know; see [`ExtraSection`].
pub const EXTRA_TYPE_MIN: u8 = 64;
/// The last one.
pub const EXTRA_TYPE_MAX: u8 = 127;
/// Most extra sections of a snapshot.
pub const EXTRA_SECTIONS_MAX: usize = 256;

/// The name of a snapshot that is being written.
const TEMPORARY: &str = "snapshot.tmp";

/// Content of a snapshot that the head does not know: metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraSection {
    /// [`EXTRA_TYPE_MIN`] to [`EXTRA_TYPE_MAX`].
    pub section_type: u8,
    /// At most 64 MiB.
    pub bytes: Vec<u8>,
}

/// The snapshots in a directory.
#[derive(Debug)]
pub struct Snapshots {
    env: Env,
    dir: PathBuf,
    chunk_files: Arc<ChunkFiles>,
}

/// What writing a snapshot came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// Its number.
    pub number: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// Series in it.
    pub series: u64,
    /// Samples in it, those in chunk files included.
    pub samples: u64,
    /// By shard: everything the log has up to this is in it.
    pub sequences: [u64; SHARDS],
    /// What the log has up to this number, of all shards, is needed no longer: for [`chronolith_wal::Wal::delete_covered`].
    /// `None` while an older snapshot could not be removed: a start may need the log that goes with it.
    pub covered: Option<u64>,
    /// The longest time for which a shard was locked.
    pub longest_hold: Duration,
}

/// Why a snapshot cannot be written or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file system refused. What was there before is as it was.
    #[error(transparent)]
    File(#[from] chronolith_env::Error),
    /// A snapshot was written by a program with another format. Nothing was changed.
    #[error(
        "snapshot {path} has format version {got}, this program knows versions up to {expected}; use the version that wrote it"
    )]
    ForeignVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: u16,
        /// The newest version known here.
        expected: u16,
    },
    /// Snapshots are numbered with 32 bits.
    #[error("the snapshots in {dir} have used up all numbers")]
    NumbersExhausted {
        /// The directory.
        dir: PathBuf,
    },
    /// What is in memory contradicts itself. The log is kept, which has it.
    #[error("cannot read late samples in memory")]
    Read(#[from] ReadError),
    /// A closed chunk cannot be read; it is noted (see [`Head::unread`]). The log may have what it had, and is kept.
    #[error("what a snapshot is to stand for cannot be read back")]
    Unread(#[source] ReadError),
    /// An entry or what was handed over is larger than a section may be.
    #[error("a section of the snapshot would have {bytes} bytes, at most {max} are possible")]
    SectionTooLarge {
        /// Bytes it would have.
        bytes: usize,
        /// Bytes a section may have.
        max: usize,
    },
    /// An extra section with a type or a length that is not allowed, or too many of them.
    #[error("extra section {number} of type {section_type} with {bytes} bytes is not allowed")]
    Extra {
        /// Which one.
        number: usize,
        /// Its type.
        section_type: u8,
        /// Its length.
        bytes: usize,
    },
}

impl Snapshots {
    /// The snapshots in `dir`, which is made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(env: &Env, dir: &Path) -> Result<Self, SnapshotError> {
        env.fs.create_dir_all(dir)?;
        let chunk_files = Arc::new(ChunkFiles::open(env, &dir.join("chunks"))?);
        Ok(Self { env: env.clone(), dir: dir.to_path_buf(), chunk_files })
    }

    /// Gives a damaged chunk file a further name in the directory `quarantine`; says which, if that is possible.
    #[must_use]
    pub fn keep_chunk_file(&self, path: &Path) -> Option<PathBuf> {
        self.chunk_files.keep(path, &self.dir.join("quarantine"))
    }

    /// The chunk files that go with them, in the directory `chunks`: for [`Head::spill_step`].
    #[must_use]
    pub fn chunk_files(&self) -> &ChunkFiles {
        &self.chunk_files
    }

    /// Begins a snapshot of `head`, which has its log; to be written step by step. One at a time.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(&self, extras: Vec<ExtraSection>) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::begin(&self.env, &self.dir, Arc::clone(&self.chunk_files), extras)
    }

    /// Writes a snapshot of `head` in one go. Replaces the older ones once it is durable.
    ///
    /// # Errors
    /// When the file system refuses; the older ones are still there then, and the attempt may be repeated.
    pub fn write(&self, head: &Head, extras: Vec<ExtraSection>) -> Result<SnapshotReport, SnapshotError> {
        let mut writer = self.begin(extras)?;
        loop {
            if let Some(report) = writer.step(head)? {
                return Ok(report);
            }
        }
    }

    /// Loads the newest snapshot into `head`, which is empty and has no log yet: the one before it if the newest is
    /// damaged and the older one whole, else what is intact. A snapshot of which nothing can be read is moved to the
    /// directory `quarantine`; damaged sections are copied there.
    ///
    /// # Errors
    /// When the directory cannot be read or synced, and [`SnapshotError::ForeignVersion`]. Damage is no error, but in the report.
    pub fn load(&self, head: &Head) -> Result<Loaded, SnapshotError> {
        load::load(&self.env, &self.dir, &self.chunk_files, head)
    }

    /// Whether another snapshot is due when the log has grown by `log_bytes` since the last one, of `snapshot_bytes`.
    #[must_use]
    pub fn due(log_bytes: u64, snapshot_bytes: u64) -> bool {
        log_bytes > SNAPSHOT_LOG_BYTES.max(snapshot_bytes)
    }
}

impl Default for SnapshotReport {
    fn default() -> Self {
        Self {
            number: 0,
            bytes: 0,
            series: 0,
            samples: 0,
            sequences: [0; SHARDS],
            covered: None,
            longest_hold: Duration::ZERO,
        }
    }
}

/// The numbers of the snapshots in `dir`, ascending.
fn numbers(env: &Env, dir: &Path) -> Result<Vec<u32>, chronolith_env::Error> {
    let mut numbers: Vec<u32> = env.fs.list(dir)?.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number in a snapshot's file name.
fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".snapshot")?;
    let plain = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (digits.len() > 8 && digits.starts_with('0')) {
        return None;
    }
    digits.parse().ok().filter(|number| *number > 0)
}

fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.snapshot"))
}

/// What a snapshot says of the head as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HeadState {
    /// See `Head::memory_floor`; the least timestamp if there is none.
    memory_floor: Timestamp,
    /// Boundary of the last finished cut; the least timestamp if there was none.
    cut: Timestamp,
}

/// What a snapshot says of a shard as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShardSummary {
    sequence: u64,
    /// First slot never given out.
    next_slot: u32,
}

#[cfg(test)]
mod tests;
