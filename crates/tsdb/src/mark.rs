//! The mark of the last cut: `<data-dir>/cut`, replaced as a whole. What blocks have, and what is deleted in the head.
//!
//! Without the mark nothing is lost: the log and the blocks may have the same samples then, and the same sample counts
//! once. Layout: docs/format/cut.md.

use std::path::{Path, PathBuf};

use chronolith_codec::{Reader, crc32, write};
use chronolith_env::{Fs, OpenMode};
use chronolith_model::{MatchOp, Matcher, TenantId, TimeRange, Timestamp, tenant::TENANT_ID_BYTES_MAX};

/// The version of the file.
const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"CHRC";
const FILE: &str = "cut";
const TEMPORARY: &str = "cut.tmp";
const DAMAGED: &str = "cut.damaged";

/// Most bytes of the file.
pub(crate) const BYTES_MAX: u64 = 16 << 20;
/// Most shards it may speak of.
const SHARDS_MAX: usize = 1024;
/// Most deletions in the head at a time; a cut carries them out.
pub(crate) const HEAD_TOMBSTONES_MAX: usize = 4096;
/// Most matchers of one.
const MATCHERS_MAX: usize = 4096;
/// Longest name or value of a matcher, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

const OPS: [MatchOp; 4] = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];

/// What a cut has settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Blocks have everything in order at or before this; the least timestamp before the first cut.
    pub(crate) boundary: Timestamp,
    /// By shard: they have everything at or before the boundary that was logged up to this number.
    pub(crate) sequences: Vec<u64>,
    /// What is deleted in the head.
    pub(crate) tombstones: Vec<HeadTombstone>,
}

/// A deletion in the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadTombstone {
    pub(crate) tenant: TenantId,
    /// Conditions a series must meet, all of them.
    pub(crate) matchers: Vec<Matcher>,
    /// Both ends included; not beyond the newest sample of its time.
    pub(crate) range: TimeRange,
}

/// Why the file says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MarkError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] chronolith_env::Error),
    /// A field cannot be read.
    #[error("damaged mark of the last cut {path}")]
    Field {
        /// The file.
        path: PathBuf,
        /// What was met.
        source: chronolith_codec::Error,
    },
    /// A field holds what cannot be there.
    #[error("damaged mark of the last cut {path}: {what}: expected {expected:#x}, got {got:#x}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Which field.
        what: &'static str,
        /// What it may be.
        expected: u64,
        /// What it is.
        got: u64,
    },
}

/// What is wrong with the content.
enum Wrong {
    Field(chronolith_codec::Error),
    Content(&'static str, u64, u64),
}

impl From<chronolith_codec::Error> for Wrong {
    fn from(error: chronolith_codec::Error) -> Self {
        Self::Field(error)
    }
}

impl Default for Mark {
    fn default() -> Self {
        Self { boundary: Timestamp::MIN, sequences: Vec::new(), tombstones: Vec::new() }
    }
}

impl Mark {
    /// Whether blocks have a sample of `shard` that was logged under `sequence`.
    pub(crate) fn covers(&self, shard: usize, sequence: u64, timestamp: Timestamp) -> bool {
        timestamp <= self.boundary && self.sequences.get(shard).is_some_and(|covered| sequence <= *covered)
    }

    /// Reads the mark in `dir`; nothing if there is none.
    pub(crate) fn load(fs: &dyn Fs, dir: &Path) -> Result<Self, MarkError> {
        let path = dir.join(FILE);
        let file = match fs.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let len = file.len()?;
        let wrong = |wrong| match wrong {
            Wrong::Field(source) => MarkError::Field { path: path.clone(), source },
            Wrong::Content(what, expected, got) => {
                MarkError::Content { path: path.clone(), what, expected, got }
            }
        };
        if len > BYTES_MAX {
            return Err(wrong(Wrong::Content("length", BYTES_MAX, len)));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(0, &mut bytes)?;
        let mark = decode(&bytes).map_err(wrong)?;
        // A killed process may have left a name that is not durable yet. A deletion that is known from here on is not
        // written again when it is repeated.
        fs.sync_dir(dir)?;
        Ok(mark)
    }

    /// Puts a file that cannot be read aside, so that the next one can be written.
    pub(crate) fn set_aside(fs: &dyn Fs, dir: &Path) -> chronolith_env::Result<()> {
        fs.rename(&dir.join(FILE), &dir.join(DAMAGED))?;
        fs.sync_dir(dir)
    }

    /// Writes the mark, durably, in place of the one before.
    pub(crate) fn store(&self, fs: &dyn Fs, dir: &Path) -> chronolith_env::Result<()> {
        let temporary = dir.join(TEMPORARY);
        // Not written again: a sync proves nothing after one that failed.
        match fs.remove_file(&temporary) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        let mut file = fs.open(&temporary, OpenMode::CreateNew)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        drop(file);
        fs.rename(&temporary, &dir.join(FILE))?;
        fs.sync_dir(dir)
    }

    /// Whether it can be read again.
    pub(crate) fn fits(&self) -> bool {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes.len() as u64 <= BYTES_MAX
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        write::u64_le(out, self.boundary.cast_unsigned());
        write::uvarint(out, self.sequences.len() as u64);
        for sequence in &self.sequences {
            write::u64_le(out, *sequence);
        }
        write::uvarint(out, self.tombstones.len() as u64);
        for tombstone in &self.tombstones {
            write::prefixed(out, tombstone.tenant.as_str().as_bytes());
            write::varint(out, tombstone.range.min);
            write::varint(out, tombstone.range.max);
            write::uvarint(out, tombstone.matchers.len() as u64);
            for matcher in &tombstone.matchers {
                out.push(OPS.iter().position(|op| *op == matcher.op).unwrap_or(0) as u8);
                write::prefixed(out, matcher.name.as_bytes());
                write::prefixed(out, matcher.value.as_bytes());
            }
        }
        let crc = crc32(out);
        write::u32_le(out, crc);
    }
}

fn decode(bytes: &[u8]) -> Result<Mark, Wrong> {
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(Wrong::Content("length", 4, bytes.len() as u64));
    };
    let (expected, got) = (u32::from_le_bytes(*crc), crc32(content));
    if expected != got {
        return Err(Wrong::Content("checksum", expected.into(), got.into()));
    }
    let mut reader = Reader::new(content);
    let magic: [u8; 4] = reader.array("magic")?;
    if magic != MAGIC {
        let number = |bytes| u64::from(u32::from_be_bytes(bytes));
        return Err(Wrong::Content("magic", number(MAGIC), number(magic)));
    }
    let version = reader.u8("version")?;
    if version != VERSION {
        return Err(Wrong::Content("version", VERSION.into(), version.into()));
    }
    reader.slice(3, "zeros")?;
    let boundary = reader.u64_le("boundary")?.cast_signed();
    let shards = reader.count(SHARDS_MAX, "number of shards")?;
    let sequences = (0..shards).map(|_| reader.u64_le("sequence number")).collect::<Result<_, _>>()?;
    let mut tombstones = Vec::new();
    for _ in 0..reader.count(HEAD_TOMBSTONES_MAX, "number of deletions")? {
        let tenant = reader.text(TENANT_ID_BYTES_MAX, "tenant")?;
        let tenant = TenantId::new(tenant).map_err(|_| Wrong::Content("tenant", 1, tenant.len() as u64))?;
        let range = TimeRange::new(reader.varint("start of a range")?, reader.varint("end of a range")?);
        let mut matchers = Vec::new();
        for _ in 0..reader.count(MATCHERS_MAX, "number of matchers")? {
            let op = usize::from(reader.u8("comparison")?);
            let op = OPS.get(op).copied().ok_or(Wrong::Content("comparison", 3, op as u64))?;
            let name = reader.text(TEXT_BYTES_MAX, "label name")?;
            matchers.push(Matcher::new(name, op, reader.text(TEXT_BYTES_MAX, "label value")?));
        }
        tombstones.push(HeadTombstone { tenant, matchers, range });
    }
    reader.finish()?;
    Ok(Mark { boundary, sequences, tombstones })
}

#[cfg(test)]
mod tests {
    use chronolith_testkit::fault_fs::FaultFs;

    use super::*;

    fn some() -> Mark {
        Mark {
            boundary: 7_200_000,
            sequences: vec![0, 1 << 32, u64::MAX],
            tombstones: vec![HeadTombstone {
                tenant: TenantId::default(),
                matchers: vec![
                    Matcher::equal("__name__", "up"),
                    Matcher::new("job", MatchOp::NotRegex, "a|b"),
                ],
                range: TimeRange::new(-1, 5),
            }],
        }
    }

    #[test]
    fn it_comes_back_and_damage_is_seen() {
        let (disk, dir) = (FaultFs::new(), Path::new("/d"));
        disk.create_dir_all(dir).expect("made");
        assert_eq!(Mark::load(&disk, dir).expect("none"), Mark::default());
        for _ in 0..2 {
            some().store(&disk, dir).expect("written");
            assert_eq!(Mark::load(&disk, dir).expect("whole"), some());
        }
        let whole = disk.read(&dir.join(FILE)).expect("there");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            disk.put(&dir.join(FILE), bytes);
            assert!(Mark::load(&disk, dir).is_err(), "{at}");
            disk.put(&dir.join(FILE), whole[..at].to_vec());
            assert!(Mark::load(&disk, dir).is_err(), "{at}");
        }
        Mark::set_aside(&disk, dir).expect("moved");
        assert_eq!(Mark::load(&disk, dir).expect("none"), Mark::default());
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let mark = Mark { sequences: vec![5], ..some() };
        let mut bytes = Vec::new();
        mark.encode(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let document = include_str!("../../../docs/format/cut.md");
        let dump = document.split("```").nth(1).expect("a dump");
        let dump: String = dump
            .lines()
            .filter_map(|line| line.split('|').next())
            .flat_map(str::chars)
            .filter(char::is_ascii_hexdigit)
            .collect();
        assert_eq!(dump, hex);
    }

    #[test]
    fn it_covers_what_the_cut_had() {
        let mark = some();
        assert!(mark.covers(1, 1 << 32, 7_200_000));
        assert!(!mark.covers(1, (1 << 32) + 1, 7_200_000) && !mark.covers(1, 5, 7_200_001));
        assert!(!mark.covers(3, 0, 0), "a shard it does not know");
    }
}
