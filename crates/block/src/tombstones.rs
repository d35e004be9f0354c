//! Deletions: which samples of a block are not to be seen any more.
//!
//! A tombstone is a set of matchers and closed ranges of time. The tombstones of a block stand in a file beside it,
//! replaced as a whole: docs/format/block.md.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use chronolith_codec::{Reader, crc32, write};
use chronolith_env::{Fs, OpenMode};
use chronolith_model::{MatchOp, Matcher, TimeRange, Timestamp};
use roaring::RoaringBitmap;

use crate::Ulid;
use crate::error::{ContentError, Error, Result, Section};
use crate::layout::directory::{FrameEntry, PartEntry};
use crate::layout::footer::impossible;
use crate::writer::Output;

/// The most tombstones of a block. Above it the block has to be rewritten first.
pub const TOMBSTONES_MAX: usize = 16_384;

/// The most bytes of a file of tombstones.
pub const TOMBSTONES_BYTES_MAX: usize = 16 << 20;

/// The most matchers or ranges of one tombstone.
const ITEMS_MAX: usize = 4096;

/// The longest label name or value of a matcher.
const TEXT_BYTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 4] = *b"CHRT";
const VERSION: u8 = 1;

/// Samples to be gone: of the series that meet all matchers, those inside a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Conditions a series must meet, all of them. Not empty.
    pub matchers: Vec<Matcher>,
    /// Ranges of time, both ends included.
    pub ranges: Vec<TimeRange>,
}

/// The tombstones of a block with the series they mean.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletions {
    /// Grows with each change.
    pub(crate) generation: u64,
    pub(crate) tombstones: Vec<Tombstone>,
    /// Per tombstone.
    pub(crate) series: Vec<RoaringBitmap>,
    /// All of them together.
    pub(crate) touched: RoaringBitmap,
    /// How many samples they cover, once somebody has asked.
    covered: OnceLock<u64>,
}

/// Series of which the same is deleted.
#[derive(Debug)]
struct Class {
    series: RoaringBitmap,
    /// What is, by number.
    tombstones: Vec<usize>,
}

/// About so many classes of series are told apart when deleted samples are counted. What further tombstones cover is
/// added up as if nothing else covered it.
const CLASSES_MAX: usize = 256;

impl Deletions {
    pub(crate) fn new(generation: u64, tombstones: Vec<Tombstone>, series: Vec<RoaringBitmap>) -> Self {
        let mut touched = RoaringBitmap::new();
        for ids in &series {
            touched |= ids;
        }
        Self { generation, tombstones, series, touched, covered: OnceLock::new() }
    }

    /// About how many samples of `parts`, which are all of the block, are covered: see
    /// [`crate::Block::deleted_samples`].
    pub(crate) fn deleted_samples(&self, parts: &[PartEntry]) -> u64 {
        *self.covered.get_or_init(|| {
            let classes: Vec<(RoaringBitmap, Vec<TimeRange>)> = self.classes();
            parts.iter().map(|part| covered(&classes, part)).sum()
        })
    }

    /// The series that are meant, by what is deleted of them.
    fn classes(&self) -> Vec<(RoaringBitmap, Vec<TimeRange>)> {
        let mut classes: Vec<Class> = Vec::new();
        for (number, ids) in self.series.iter().enumerate() {
            let (mut rest, mut split) = (ids.clone(), Vec::new());
            let told_apart = if classes.len() < CLASSES_MAX { classes.as_mut_slice() } else { &mut [] };
            for class in told_apart {
                let both = &class.series & &rest;
                rest -= &both;
                if both == class.series {
                    class.tombstones.push(number);
                } else if !both.is_empty() {
                    class.series -= &both;
                    let tombstones = class.tombstones.iter().copied().chain([number]).collect();
                    split.push(Class { series: both, tombstones });
                }
            }
            classes.append(&mut split);
            if !rest.is_empty() {
                classes.push(Class { series: rest, tombstones: vec![number] });
            }
        }
        let ranges = |class: &Class| {
            let tombstones = class.tombstones.iter().filter_map(|number| self.tombstones.get(*number));
            let mut ranges = tombstones.flat_map(|tombstone| tombstone.ranges.iter().copied()).collect();
            join(&mut ranges);
            ranges
        };
        classes
            .into_iter()
            .map(|class| (ranges(&class), class))
            .map(|(ranges, of)| (of.series, ranges))
            .collect()
    }

    /// The ranges in which series `id` is deleted, ascending and apart, in `into`.
    pub(crate) fn ranges(&self, id: u32, into: &mut Vec<TimeRange>) {
        into.clear();
        if !self.touched.contains(id) {
            return;
        }
        for (tombstone, _) in self.tombstones.iter().zip(&self.series).filter(|(_, ids)| ids.contains(id)) {
            into.extend(&tombstone.ranges);
        }
        join(into);
    }

    /// The series with a deletion inside `range`.
    pub(crate) fn touched_in(&self, range: TimeRange) -> RoaringBitmap {
        let mut touched = RoaringBitmap::new();
        for (tombstone, ids) in self.tombstones.iter().zip(&self.series) {
            if tombstone.ranges.iter().any(|deleted| deleted.overlaps(&range)) {
                touched |= ids;
            }
        }
        touched
    }
}

/// Sorts ranges, joins those that meet, and leaves out those that are empty.
fn join(ranges: &mut Vec<TimeRange>) {
    ranges.retain(|range| range.min <= range.max);
    ranges.sort_unstable_by_key(|range| range.min);
    ranges.dedup_by(|next, previous| {
        let joined = next.min <= previous.max.saturating_add(1);
        if joined {
            previous.max = previous.max.max(next.max);
        }
        joined
    });
}

/// How many milliseconds, both ends included.
const fn millis(range: TimeRange) -> u128 {
    range.max.wrapping_sub(range.min) as u64 as u128 + 1
}

/// About how many samples of a part are covered by the deletions of classes of series.
fn covered(classes: &[(RoaringBitmap, Vec<TimeRange>)], part: &PartEntry) -> u64 {
    // Of each class how much of the part's time, if any.
    let times = classes.iter().map(|(series, ranges)| {
        let inside = ranges.iter().filter(|range| range.overlaps(&part.range));
        let inside = inside.map(|r| TimeRange::new(r.min.max(part.range.min), r.max.min(part.range.max)));
        (series, inside.map(millis).sum::<u128>())
    });
    let times: Vec<_> = times.filter(|(_, time)| *time > 0).collect();
    let of_frame = |frame: &FrameEntry| {
        let slots = u64::from(frame.slots);
        let shares = times.iter().map(|(series, time)| {
            // Some of the ids in between may be in no slot.
            u128::from(series.range_cardinality(frame.first..=frame.last).min(slots)) * time
        });
        let whole = u128::from(slots) * millis(part.range);
        let samples = u128::from(frame.samples) * shares.sum::<u128>().min(whole) / whole.max(1);
        u64::try_from(samples).unwrap_or(u64::MAX).min(frame.samples)
    };
    if times.is_empty() { 0 } else { part.floats.iter().chain(&part.histograms).map(of_frame).sum() }
}

/// Whether `timestamp` lies in one of `ranges`, which ascend and are apart.
pub(crate) fn is_deleted(ranges: &[TimeRange], timestamp: Timestamp) -> bool {
    let at = ranges.partition_point(|range| range.max < timestamp);
    ranges.get(at).is_some_and(|range| range.contains(timestamp))
}

/// Writes the file of tombstones of a block, durably, in place of the one before.
pub(crate) fn write_file(
    fs: &Arc<dyn Fs>,
    path: &Path,
    ulid: Ulid,
    generation: u64,
    tombstones: &[Tombstone],
) -> Result<()> {
    let mut bytes = Vec::new();
    encode(ulid, generation, tombstones, &mut bytes);
    limit("tombstones", tombstones.len(), TOMBSTONES_MAX)?;
    limit("bytes of tombstones", bytes.len(), TOMBSTONES_BYTES_MAX)?;
    let mut out = Output::create(fs, path)?;
    out.append(&bytes)?;
    out.publish()
}

fn limit(what: &'static str, got: usize, max: usize) -> Result<()> {
    if got > max {
        return Err(Error::Limit { what, got: got as u64, max: max as u64 });
    }
    Ok(())
}

/// Checks a tombstone that is to be added.
pub(crate) fn check(tombstone: &Tombstone) -> Result<()> {
    if tombstone.matchers.is_empty() || tombstone.ranges.is_empty() {
        return Err(Error::Input { what: "matchers and ranges of a tombstone", expected: 1, got: 0 });
    }
    limit("matchers of a tombstone", tombstone.matchers.len(), ITEMS_MAX)?;
    limit("ranges of a tombstone", tombstone.ranges.len(), ITEMS_MAX)?;
    let longest = tombstone.matchers.iter().map(|matcher| matcher.name.len().max(matcher.value.len())).max();
    limit("bytes of a matcher", longest.unwrap_or(0), TEXT_BYTES_MAX)
}

/// Reads the file of tombstones of block `ulid`; nothing if there is none.
pub(crate) fn read_file(fs: &Arc<dyn Fs>, path: &Path, ulid: Ulid) -> Result<(u64, Vec<Tombstone>)> {
    let file = match fs.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok((0, Vec::new())),
        Err(error) => return Err(error.into()),
    };
    let damaged =
        |source| Error::Content { path: path.to_path_buf(), section: Section::Tombstones, off: 0, source };
    let len = file.len()?;
    if len > TOMBSTONES_BYTES_MAX as u64 {
        return Err(damaged(impossible("length of the file", TOMBSTONES_BYTES_MAX as u64, len)));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(0, &mut bytes)?;
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(damaged(impossible("length of the file", 4, len)));
    };
    let (expected, got) = (u32::from_le_bytes(*crc), crc32(content));
    if expected != got {
        let (path, section) = (path.to_path_buf(), Section::Tombstones);
        return Err(Error::Checksum { path, section, off: 0, expected, got });
    }
    match content.get(4) {
        Some(&VERSION) | None => {}
        Some(&version) => {
            let (path, section) = (path.to_path_buf(), Section::Tombstones);
            return Err(Error::ForeignVersion { path, section, got: version, expected: VERSION });
        }
    }
    decode(content, ulid).map_err(damaged)
}

fn encode(ulid: Ulid, generation: u64, tombstones: &[Tombstone], out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&ulid.to_bytes());
    write::u64_le(out, generation);
    write::uvarint(out, tombstones.len() as u64);
    for tombstone in tombstones {
        write::uvarint(out, tombstone.matchers.len() as u64);
        for matcher in &tombstone.matchers {
            out.push(match matcher.op {
                MatchOp::Equal => 0,
                MatchOp::NotEqual => 1,
                MatchOp::Regex => 2,
                MatchOp::NotRegex => 3,
            });
            write::prefixed(out, matcher.name.as_bytes());
            write::prefixed(out, matcher.value.as_bytes());
        }
        write::uvarint(out, tombstone.ranges.len() as u64);
        for range in &tombstone.ranges {
            write::varint(out, range.min);
            write::varint(out, range.max);
        }
    }
    let crc = crc32(out);
    write::u32_le(out, crc);
}

fn decode(content: &[u8], ulid: Ulid) -> Result<(u64, Vec<Tombstone>), ContentError> {
    let mut reader = Reader::new(content);
    let magic = u32::from_be_bytes(reader.array("magic")?);
    if magic != u32::from_be_bytes(MAGIC) {
        return Err(impossible("magic", u32::from_be_bytes(MAGIC).into(), magic.into()));
    }
    reader.slice(4, "version")?;
    let of = Ulid::from_bytes(reader.array("block id")?);
    if of != ulid {
        return Err(impossible("creation time of the block", ulid.millis(), of.millis()));
    }
    let generation = reader.u64_le("generation")?;
    let count = reader.count(TOMBSTONES_MAX, "number of tombstones")?;
    let mut tombstones = Vec::new();
    for _ in 0..count {
        let mut matchers = Vec::new();
        for _ in 0..reader.count(ITEMS_MAX, "number of matchers")? {
            let op = match reader.u8("comparison")? {
                0 => MatchOp::Equal,
                1 => MatchOp::NotEqual,
                2 => MatchOp::Regex,
                3 => MatchOp::NotRegex,
                other => return Err(impossible("comparison", 3, other.into())),
            };
            let name = reader.text(TEXT_BYTES_MAX, "label name")?;
            matchers.push(Matcher::new(name, op, reader.text(TEXT_BYTES_MAX, "label value")?));
        }
        let mut ranges = Vec::new();
        for _ in 0..reader.count(ITEMS_MAX, "number of ranges")? {
            ranges.push(TimeRange::new(reader.varint("start of a range")?, reader.varint("end of a range")?));
        }
        tombstones.push(Tombstone { matchers, ranges });
    }
    reader.finish()?;
    Ok((generation, tombstones))
}

#[cfg(test)]
mod tests {
    use chronolith_testkit::fault_fs::FaultFs;

    use super::*;

    fn some() -> Vec<Tombstone> {
        let matchers = vec![
            Matcher::equal("__name__", "up"),
            Matcher::new("job", MatchOp::NotRegex, "a|b"),
            Matcher::new("x", MatchOp::NotEqual, ""),
            Matcher::new("y", MatchOp::Regex, ".+"),
        ];
        vec![
            Tombstone { matchers, ranges: vec![TimeRange::new(1, 5), TimeRange::ALL] },
            Tombstone { matchers: vec![Matcher::equal("a", "b")], ranges: vec![TimeRange::new(-7, -7)] },
        ]
    }

    #[test]
    fn files_come_back_and_damage_is_seen() {
        let disk = FaultFs::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let (path, ulid) = (Path::new("/d/x.tombstones"), Ulid::from_parts(5, 6));
        assert_eq!(read_file(&fs, path, ulid).unwrap(), (0, Vec::new()));
        write_file(&fs, path, ulid, 7, &some()).unwrap();
        write_file(&fs, path, ulid, 8, &some()).unwrap();
        assert_eq!(read_file(&fs, path, ulid).unwrap(), (8, some()));
        assert!(read_file(&fs, path, Ulid::from_parts(4, 6)).unwrap_err().is_damage(), "another block's");
        let whole = disk.read(path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            disk.put(path, bytes);
            let error = read_file(&fs, path, ulid).unwrap_err();
            assert!(matches!(error, Error::Checksum { off: 0, .. }), "{at}: {error}");
            disk.put(path, whole[..at].to_vec());
            assert!(read_file(&fs, path, ulid).unwrap_err().is_damage(), "{at}");
        }
    }

    #[test]
    fn a_foreign_version_is_named() {
        let disk = FaultFs::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let mut bytes = Vec::new();
        encode(Ulid::from_parts(1, 1), 1, &some(), &mut bytes);
        bytes.truncate(bytes.len() - 4);
        bytes[4] = 2;
        let crc = crc32(&bytes);
        write::u32_le(&mut bytes, crc);
        disk.put(Path::new("/d/x"), bytes);
        let error = read_file(&fs, Path::new("/d/x"), Ulid::from_parts(1, 1)).unwrap_err();
        assert!(matches!(error, Error::ForeignVersion { got: 2, .. }), "{error}");
    }

    #[test]
    fn ranges_are_joined() {
        let matchers = vec![Matcher::equal("a", "b")];
        let tombstone = |ranges: &[(i64, i64)]| Tombstone {
            matchers: matchers.clone(),
            ranges: ranges.iter().map(|(min, max)| TimeRange::new(*min, *max)).collect(),
        };
        let ids = |ids: &[u32]| ids.iter().copied().collect::<RoaringBitmap>();
        let tombstones =
            vec![tombstone(&[(10, 20), (5, 3)]), tombstone(&[(1, 9), (30, 40)]), tombstone(&[(0, 99)])];
        let deletions = Deletions::new(1, tombstones, vec![ids(&[1, 2]), ids(&[2]), ids(&[3])]);
        let mut ranges = Vec::new();
        deletions.ranges(2, &mut ranges);
        assert_eq!(ranges, [TimeRange::new(1, 20), TimeRange::new(30, 40)]);
        for (t, deleted) in [(0, false), (1, true), (20, true), (21, false), (30, true), (41, false)] {
            assert_eq!(is_deleted(&ranges, t), deleted, "{t}");
        }
        deletions.ranges(9, &mut ranges);
        assert!(ranges.is_empty());
        assert_eq!(deletions.touched_in(TimeRange::new(25, 35)), ids(&[2, 3]));
    }
}
