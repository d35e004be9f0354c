//! Sections, and the units they consist of: each with its length, maybe packed, with its own checksum.

use std::sync::Arc;

use bytes::Bytes;
use chronolith_codec::{Reader, crc32, write};

use super::error::{DiskIndexError, IndexSection};

/// Level of zstd for all units.
const ZSTD_LEVEL: i32 = 3;
/// Shorter content is not packed.
const PACK_MIN_BYTES: usize = 256;
/// Zstd makes at most 128 KiB of a block of four bytes.
const PACK_RATIO_MAX: usize = 1 << 15;
/// Bytes of a checksum.
const CRC_BYTES: usize = 4;

/// An index as bytes, one run per section. A block keeps each where it likes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedIndex {
    /// What [`super::DiskIndex::open`] wants whole.
    pub directory: Vec<u8>,
    /// [`IndexSection::Dictionaries`].
    pub dictionaries: Vec<u8>,
    /// [`IndexSection::Postings`].
    pub postings: Vec<u8>,
    /// [`IndexSection::Forward`].
    pub forward: Vec<u8>,
}

/// Where an index reads its sections from. It may cache bytes; the index verifies what it gets, and caches what it
/// made of it.
pub trait SectionRead: Send + Sync {
    /// Exactly `len` bytes of `section` at `offset`, which counts from the start of the section. Never asked for
    /// [`IndexSection::Directory`].
    ///
    /// # Errors
    /// [`DiskIndexError::Read`] when the bytes cannot be had or the section ends before.
    fn read(&self, section: IndexSection, offset: u64, len: usize) -> Result<Bytes, DiskIndexError>;

    /// Whether checksums are compared. Only a fuzzer says no, to reach what lies behind them.
    fn verifies(&self) -> bool {
        true
    }
}

impl<S: SectionRead + ?Sized> SectionRead for Arc<S> {
    fn read(&self, section: IndexSection, offset: u64, len: usize) -> Result<Bytes, DiskIndexError> {
        (**self).read(section, offset, len)
    }

    fn verifies(&self) -> bool {
        (**self).verifies()
    }
}

/// Sections that lie in memory.
#[derive(Clone, Debug, Default)]
pub struct MemorySections {
    dictionaries: Bytes,
    postings: Bytes,
    forward: Bytes,
}

impl MemorySections {
    /// The directory of `index`, and its sections.
    #[must_use]
    pub fn new(index: EncodedIndex) -> (Vec<u8>, Self) {
        let EncodedIndex { directory, dictionaries, postings, forward } = index;
        let sections =
            Self { dictionaries: dictionaries.into(), postings: postings.into(), forward: forward.into() };
        (directory, sections)
    }
}

impl SectionRead for MemorySections {
    fn read(&self, section: IndexSection, offset: u64, len: usize) -> Result<Bytes, DiskIndexError> {
        let bytes = match section {
            IndexSection::Directory => None,
            IndexSection::Dictionaries => Some(&self.dictionaries),
            IndexSection::Postings => Some(&self.postings),
            IndexSection::Forward => Some(&self.forward),
        };
        let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(len)?));
        match (bytes, range) {
            (Some(bytes), Some(range)) if range.end <= bytes.len() => Ok(bytes.slice(range)),
            _ => Err(DiskIndexError::Read { section, offset, len, source: "the section ends before".into() }),
        }
    }
}

/// Where a unit lies, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) section: IndexSection,
    pub(super) offset: u64,
}

impl Place {
    #[cold]
    pub(super) fn malformed(self, expected: &'static str) -> DiskIndexError {
        DiskIndexError::Malformed { section: self.section, offset: self.offset, expected }
    }

    #[cold]
    pub(super) fn field(self, source: chronolith_codec::Error) -> DiskIndexError {
        DiskIndexError::Field { section: self.section, offset: self.offset, source }
    }
}

/// Appends `content` to `out` as a unit; returns the unit's length.
pub(super) fn seal(content: &[u8], out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let packed = if content.len() < PACK_MIN_BYTES {
        None
    } else {
        zstd::bulk::compress(content, ZSTD_LEVEL).ok().filter(|packed| packed.len() < content.len() / 16 * 15)
    };
    write::uvarint(out, (content.len() as u64) << 1 | u64::from(packed.is_some()));
    out.extend_from_slice(packed.as_deref().unwrap_or(content));
    let crc = crc32(out.get(start..).unwrap_or_default());
    write::u32_le(out, crc);
    out.len() - start
}

/// The content of the unit that is all of `unit`, of at most `max` bytes.
pub(super) fn open(unit: &[u8], max: usize, place: Place, verify: bool) -> Result<Vec<u8>, DiskIndexError> {
    let Some((sealed, crc)) = unit.split_last_chunk::<CRC_BYTES>() else {
        return Err(place.malformed("a unit of at least five bytes"));
    };
    let (expected, got) = (u32::from_le_bytes(*crc), crc32(sealed));
    if verify && expected != got {
        return Err(DiskIndexError::Checksum { section: place.section, offset: place.offset, expected, got });
    }
    let mut reader = Reader::new(sealed);
    let head = reader.count(max << 1 | 1, "length of the unit").map_err(|e| place.field(e))?;
    let (len, content) = (head >> 1, reader.rest());
    let content = match head & 1 {
        0 => content.to_vec(),
        _ if len / PACK_RATIO_MAX > content.len() => {
            return Err(place.malformed("a length that zstd can reach"));
        }
        _ => zstd::bulk::decompress(content, len)
            .map_err(|_| place.malformed("a zstd frame of the length given"))?,
    };
    if content.len() == len { Ok(content) } else { Err(place.malformed("as many bytes as the length says")) }
}
