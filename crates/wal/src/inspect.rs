//! Segments as lists of records, for people and their tools. Reads only; damage is listed, not repaired.

use std::path::{Path, PathBuf};

use chronolith_env::{File, Fs, OpenMode};

use crate::entries::{LoggedBlob, LoggedStart, decode_blobs, decode_starts};
use crate::record::{FLAG_ZSTD, Header, NO_SHARD, Unpacker, content, decode_floor};
use crate::scan::{Item, Scanner, read_header};
use crate::segment::{FORMAT_VERSION, HeaderStatus, SegmentHeader};
use crate::{
    DamageReason, Error, LoggedMetadata, LoggedSample, RecordType, Result, SeriesDef, metadata, samples,
    segment, series,
};

/// A segment, opened for looking at it.
#[derive(Debug)]
pub struct Segment {
    file: Box<dyn File>,
    number: u32,
    header: Option<SegmentHeader>,
    bytes: u64,
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The number in its name.
    pub number: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether its header is intact; if not, what follows is unknown, and 0 or `false`.
    pub header_intact: bool,
    /// The version of its format.
    pub version: u16,
    /// The segment before; 0 for none.
    pub previous: u32,
    /// Where the valid part of the segment before ends.
    pub previous_end: u64,
    /// Whether it needs the definitions of the segment before.
    pub continues: bool,
}

/// One stretch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it begins in the segment.
    pub offset: u64,
    /// How many bytes it has, a record's header included.
    pub bytes: u64,
    /// What it is.
    pub status: EntryStatus,
}

/// What a stretch of a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryStatus {
    /// An intact record.
    Record(RecordInfo),
    /// Damage.
    Damaged {
        /// What is wrong.
        reason: DamageReason,
        /// No record follows. In the last segment, this is a write that was cut short.
        tail: bool,
    },
}

/// What a record's header says, and what its payload comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordInfo {
    /// Its type; `None` for one this program does not know.
    pub record_type: Option<RecordType>,
    /// Its number.
    pub seq: u64,
    /// Its shard; `None` if it belongs to none.
    pub shard: Option<u16>,
    /// Whether its payload is packed.
    pub packed: bool,
    /// How many definitions, samples, histograms, starts, exemplars or metrics it has, 1 for a floor; `None` if its content cannot be read.
    pub count: Option<usize>,
    /// The first and last timestamp of what it has, milliseconds; that of a start is that of the first sample it holds for.
    pub times: Option<(i64, i64)>,
}

/// The content of a record.
#[derive(Debug)]
#[non_exhaustive]
pub enum Content<'a> {
    /// A series definition.
    Series(&'a SeriesDef<'a>),
    /// A sample.
    Sample(LoggedSample),
    /// A floor: the tenant, or all; and the oldest timestamp kept, milliseconds.
    Floor(Option<&'a str>, i64),
    /// A native histogram.
    Histogram(LoggedBlob<'a>),
    /// A start timestamp.
    Start(LoggedStart),
    /// An exemplar.
    Exemplar(LoggedBlob<'a>),
    /// Metadata of a metric.
    Metadata(LoggedMetadata<'a>),
}

impl Content<'_> {
    /// When it is, of a start since when: nothing for definitions, floors and metadata.
    const fn time(&self) -> Option<i64> {
        match self {
            Self::Sample(sample) => Some(sample.timestamp),
            Self::Histogram(entry) | Self::Exemplar(entry) => Some(entry.timestamp),
            Self::Start(entry) => Some(entry.since),
            Self::Series(_) | Self::Floor(..) | Self::Metadata(_) => None,
        }
    }
}

/// The segments in `dir`, by number.
///
/// # Errors
/// When the directory cannot be listed.
pub fn segments(fs: &dyn Fs, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut numbers: Vec<u32> = fs.list(dir)?.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers.into_iter().map(|number| segment::path(dir, number)).collect())
}

impl Segment {
    /// Opens the segment at `path`.
    ///
    /// # Errors
    /// [`Error::ForeignVersion`], or when the file cannot be opened. A damaged header is no error.
    pub fn open(fs: &dyn Fs, path: &Path) -> Result<Self> {
        let file = fs.open(path, OpenMode::Read)?;
        let bytes = file.len()?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let header = match read_header(file.as_ref()) {
            HeaderStatus::Valid(header) => Some(header),
            HeaderStatus::Damaged => None,
            HeaderStatus::Foreign(got) => {
                return Err(Error::ForeignVersion {
                    path: path.to_path_buf(),
                    got,
                    expected: FORMAT_VERSION,
                });
            }
        };
        let number = segment::number(name).or(header.map(|header| header.number)).unwrap_or(0);
        Ok(Self { file, number, header, bytes })
    }

    /// What its header says.
    #[must_use]
    pub fn summary(&self) -> SegmentSummary {
        SegmentSummary {
            number: self.number,
            bytes: self.bytes,
            header_intact: self.header.is_some(),
            version: self.header.map_or(0, |header| header.version),
            previous: self.header.map_or(0, |header| header.previous),
            previous_end: self.header.map_or(0, |header| header.previous_end),
            continues: self.header.is_some_and(|header| header.continues),
        }
    }

    /// Its stretches, from the end of the header to the end of the file, without gaps.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let mut scanner = Scanner::new(self.file.as_ref(), self.number, self.header.as_ref(), self.bytes);
        let mut items = Vec::new();
        let mut ready = Vec::new().into_iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(entry) = ready.next() {
                    return Some(entry);
                }
                if !scanner.next_window(&mut items) {
                    return None;
                }
                let entries: Vec<Entry> = items.iter().map(|item| entry(&scanner, item)).collect();
                ready = entries.into_iter();
            }
        })
    }

    /// Hands the content of the record in `entry` to `visit`; nothing for damage and unknown types. Returns whether the
    /// content could be read.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn content(&self, entry: &Entry, visit: &mut dyn FnMut(Content<'_>)) -> Result<bool> {
        let EntryStatus::Record(_) = entry.status else { return Ok(false) };
        // One record: bounded by the limit of records.
        let mut bytes = vec![0; usize::try_from(entry.bytes).unwrap_or(0)];
        self.file.read_exact_at(entry.offset, &mut bytes)?;
        let number = self.header.map_or(self.number, |header| header.number);
        let version = self.header.map(|header| header.version);
        let Some((_, header)) = Header::decode(number, version, &bytes) else { return Ok(false) };
        let payload = bytes.get(crate::HEADER_BYTES..).unwrap_or_default();
        Ok(read(&header, payload, visit).is_some())
    }
}

fn entry(scanner: &Scanner<'_>, item: &Item) -> Entry {
    match *item {
        Item::Damage { offset, bytes, reason, tail } => {
            Entry { offset, bytes, status: EntryStatus::Damaged { reason, tail } }
        }
        Item::Record { offset, header } => {
            let (mut count, mut times) = (0, None::<(i64, i64)>);
            let whole = read(&header, scanner.payload(offset, &header), &mut |content| {
                count += 1;
                if let Some(t) = content.time() {
                    times = Some(times.map_or((t, t), |(min, max)| (min.min(t), max.max(t))));
                }
            });
            let info = RecordInfo {
                record_type: RecordType::from_code(header.type_code),
                seq: header.seq,
                shard: Some(header.shard).filter(|&shard| shard != NO_SHARD),
                packed: header.flags & FLAG_ZSTD != 0,
                count: whole.map(|()| count),
                times,
            };
            Entry { offset, bytes: header.record_bytes() as u64, status: EntryStatus::Record(info) }
        }
    }
}

/// Hands a payload's content to `visit`; `None` if not all of it can be read.
fn read(header: &Header, payload: &[u8], visit: &mut dyn FnMut(Content<'_>)) -> Option<()> {
    let mut unpacker = Unpacker::default();
    let content = content(header.flags, payload, &mut unpacker).ok()?;
    match RecordType::from_code(header.type_code)? {
        RecordType::Series => {
            series::decode(content, |definition| visit(Content::Series(definition))).ok()?;
        }
        RecordType::Samples => {
            let mut out = Vec::new();
            samples::decode(content, &mut out).ok()?;
            out.into_iter().for_each(|sample| visit(Content::Sample(sample)));
        }
        RecordType::Floor => {
            let (tenant, min_t) = decode_floor(content).ok()?;
            visit(Content::Floor(tenant, min_t));
        }
        RecordType::Histograms => {
            decode_blobs(content).ok()?.into_iter().for_each(|entry| visit(Content::Histogram(entry)));
        }
        RecordType::Starts => {
            decode_starts(content).ok()?.into_iter().for_each(|entry| visit(Content::Start(entry)));
        }
        RecordType::Exemplars => {
            decode_blobs(content).ok()?.into_iter().for_each(|entry| visit(Content::Exemplar(entry)));
        }
        RecordType::Metadata => {
            metadata::decode(content).ok()?.into_iter().for_each(|entry| visit(Content::Metadata(entry)));
        }
        RecordType::Mark => {}
    }
    Some(())
}
