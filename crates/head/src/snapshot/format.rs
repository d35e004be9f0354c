//! Header, sections and directory of a snapshot.
//!
//! ```text
//! header 32 bytes | sections ... | directory section | trailer 16 bytes
//! ```
//!
//! A section's header is bound to snapshot and place by its checksum. The directory repeats all section headers, so that
//! a damaged one costs no section; where the directory is damaged, the sections are found one behind the other.

use chronolith_codec::{Reader, crc32, crc32_continue, write};
use chronolith_env::File;

use super::{HeadState, ShardSummary};
use crate::options::SHARDS;

/// Version of the format that is written. A snapshot with a newer one is refused.
pub const FORMAT_VERSION: u16 = 3;

/// The oldest version that is read.
pub const FORMAT_VERSION_MIN: u16 = 1;
/// The first version that has histograms.
pub(super) const HISTOGRAMS_VERSION: u16 = 2;
/// The first version in which there may be more of a series than its entry has.
pub(super) const MORE_VERSION: u16 = 3;

const MAGIC: &[u8; 8] = b"CHRNSNAP";
const TRAILER_MAGIC: &[u8; 4] = b"PANS";

pub(super) const HEADER_BYTES: u64 = 32;
pub(super) const SECTION_HEADER_BYTES: usize = 24;
const TRAILER_BYTES: u64 = 16;

/// A section has at most so many bytes, packed and unpacked.
pub(super) const SECTION_BYTES_MAX: usize = 64 << 20;
/// Most sections of a snapshot: what a directory has room for.
pub(super) const SECTIONS_MAX: usize = SECTION_BYTES_MAX / SECTION_HEADER_BYTES;

/// The payload is a zstd frame.
pub(super) const FLAG_ZSTD: u8 = 1;

/// Types of sections.
pub(super) const SERIES: u8 = 1;
pub(super) const SHARD: u8 = 2;
pub(super) const HEAD: u8 = 3;
const DIRECTORY: u8 = 4;
/// Of start timestamps; since version 2, as those that follow.
pub(super) const STARTS: u8 = 6;
pub(super) const EXEMPLARS: u8 = 7;
/// Of further chunks of a series; since version 3.
pub(super) const MORE: u8 = 8;

/// The shard of a section that belongs to none.
pub(super) const NO_SHARD: u16 = u16::MAX;

/// The start of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u16,
    pub(super) number: u32,
    pub(super) created_ms: i64,
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderStatus {
    Valid(Header),
    Foreign(u16),
    Damaged,
}

impl Header {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(MAGIC);
        write::u16_le(out, self.version);
        write::u16_le(out, SHARDS as u16);
        write::u32_le(out, self.number);
        write::u64_le(out, self.created_ms as u64);
        write::u32_le(out, 0);
        let crc = crc32(out.get(start..).unwrap_or_default());
        write::u32_le(out, crc);
    }

    pub(super) fn read(file: &dyn File) -> HeaderStatus {
        let mut bytes = [0; HEADER_BYTES as usize];
        match file.read_exact_at(0, &mut bytes) {
            Ok(()) => Self::decode(&bytes).unwrap_or(HeaderStatus::Damaged),
            Err(_) => HeaderStatus::Damaged,
        }
    }

    fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Option<HeaderStatus> {
        let (covered, _) = bytes.split_at_checked(bytes.len() - 4)?;
        let mut reader = Reader::new(bytes);
        let magic = reader.array::<8>("magic").ok()?;
        let version = reader.u16_le("version").ok()?;
        let shards = reader.u16_le("shards").ok()?;
        let number = reader.u32_le("number").ok()?;
        let created_ms = reader.u64_le("time").ok()? as i64;
        reader.u32_le("reserved").ok()?;
        if &magic != MAGIC || reader.u32_le("checksum").ok()? != crc32(covered) {
            return None;
        }
        let known = (FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&version);
        Some(if known && usize::from(shards) == SHARDS {
            HeaderStatus::Valid(Self { version, number, created_ms })
        } else {
            HeaderStatus::Foreign(version)
        })
    }
}

/// What makes the sections of a snapshot its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) version: u16,
    pub(super) number: u32,
}

/// The header of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// Where the header stands.
    pub(super) offset: u64,
    pub(super) section_type: u8,
    pub(super) flags: u8,
    pub(super) shard: u16,
    /// Bytes of the payload as it is stored.
    pub(super) stored: u32,
    /// Bytes of the content.
    pub(super) raw: u32,
    /// What it costs when the section is lost: series.
    pub(super) items: u32,
    pub(super) crc: u32,
}

impl Section {
    pub(super) const fn payload_at(&self) -> u64 {
        self.offset + SECTION_HEADER_BYTES as u64
    }

    pub(super) const fn end(&self) -> u64 {
        self.payload_at() + self.stored as u64
    }

    /// What it is, for people.
    pub(super) const fn name(&self) -> &'static str {
        match self.section_type {
            SERIES => "series",
            SHARD => "shard",
            HEAD => "head",
            DIRECTORY => "directory",
            STARTS => "starts",
            EXEMPLARS => "exemplars",
            MORE => "more of a series",
            _ => "other",
        }
    }

    /// Whether it has samples.
    pub(super) const fn has_samples(&self) -> bool {
        matches!(self.section_type, SERIES | MORE)
    }

    pub(super) fn encode(&self, number: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(self.section_type);
        out.push(self.flags);
        write::u16_le(out, self.shard);
        write::u32_le(out, self.stored);
        write::u32_le(out, self.raw);
        write::u32_le(out, self.items);
        write::u32_le(out, self.crc);
        let of = Bound { version: FORMAT_VERSION, number };
        let crc = Self::header_crc(of, self.offset, out.get(start..).unwrap_or_default());
        write::u32_le(out, crc);
    }

    fn header_crc(of: Bound, offset: u64, bytes: &[u8]) -> u32 {
        let crc = crc32_continue(crc32(&of.version.to_le_bytes()), &of.number.to_le_bytes());
        crc32_continue(crc32_continue(crc, &offset.to_le_bytes()), bytes)
    }

    /// The header at `offset` of a snapshot, a file of `len` bytes.
    fn decode(of: Bound, offset: u64, len: u64, bytes: &[u8]) -> Option<Self> {
        let covered = bytes.get(..SECTION_HEADER_BYTES - 4)?;
        let mut reader = Reader::new(bytes);
        let section = Self {
            offset,
            section_type: reader.u8("type").ok()?,
            flags: reader.u8("flags").ok()?,
            shard: reader.u16_le("shard").ok()?,
            stored: reader.u32_le("stored length").ok()?,
            raw: reader.u32_le("length").ok()?,
            items: reader.u32_le("items").ok()?,
            crc: reader.u32_le("checksum of the payload").ok()?,
        };
        let crc = reader.u32_le("checksum").ok()?;
        let fits = crc == Self::header_crc(of, offset, covered)
            && (section.stored as usize) <= SECTION_BYTES_MAX
            && (section.raw as usize) <= SECTION_BYTES_MAX
            && section.end() <= len;
        fits.then_some(section)
    }

    /// The payload as it is stored, if its checksum is right.
    pub(super) fn payload(&self, file: &dyn File, out: &mut Vec<u8>) -> Option<()> {
        out.clear();
        out.resize(self.stored as usize, 0);
        file.read_exact_at(self.payload_at(), out).ok()?;
        (crc32(out) == self.crc).then_some(())
    }

    /// The content, unpacked into `scratch` if need be.
    pub(super) fn content<'a>(&self, payload: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        match self.flags {
            0 => (payload.len() == self.raw as usize).then_some(payload),
            FLAG_ZSTD => {
                scratch.clear();
                scratch.resize(self.raw as usize, 0);
                let got = zstd::bulk::decompress_to_buffer(payload, scratch).ok()?;
                (got == scratch.len()).then_some(&**scratch)
            }
            _ => None,
        }
    }
}

/// The directory section and the trailer, for `sections`, at `offset`.
pub(super) fn encode_directory(number: u32, offset: u64, sections: &[Section], out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(sections.len() * SECTION_HEADER_BYTES);
    for section in sections {
        section.encode(number, &mut payload);
    }
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let directory = Section {
        offset,
        section_type: DIRECTORY,
        flags: 0,
        shard: NO_SHARD,
        stored: len,
        raw: len,
        items: 0,
        crc: crc32(&payload),
    };
    directory.encode(number, out);
    out.extend_from_slice(&payload);
    write::u64_le(out, offset);
    write::u32_le(out, trailer_crc(number, offset));
    out.extend_from_slice(TRAILER_MAGIC);
}

fn trailer_crc(number: u32, offset: u64) -> u32 {
    crc32_continue(crc32(&number.to_le_bytes()), &offset.to_le_bytes())
}

/// The sections of a snapshot.
#[derive(Debug, Default)]
pub(super) struct Sections {
    /// Directory aside.
    pub(super) found: Vec<Section>,
    /// Where the directory is damaged or missing, and how many bytes that concerns.
    pub(super) damage: Option<(u64, u64)>,
    /// Nothing but the directory is damaged: all sections were found without it.
    pub(super) all_found: bool,
}

impl Sections {
    /// Those of a snapshot, a file of `len` bytes.
    pub(super) fn of(file: &dyn File, of: Bound, len: u64) -> Self {
        if let Some(found) = Self::directory(file, of, len) {
            return Self { found, damage: None, all_found: true };
        }
        Self::walk(file, of, len)
    }

    fn directory(file: &dyn File, of: Bound, len: u64) -> Option<Vec<Section>> {
        let at = len.checked_sub(TRAILER_BYTES)?;
        let mut trailer = [0; TRAILER_BYTES as usize];
        file.read_exact_at(at, &mut trailer).ok()?;
        let mut reader = Reader::new(&trailer);
        let offset = reader.u64_le("offset").ok()?;
        let crc = reader.u32_le("checksum").ok()?;
        let magic = reader.array::<4>("magic").ok()?;
        if crc != trailer_crc(of.number, offset) || &magic != TRAILER_MAGIC || offset >= len {
            return None;
        }
        let directory = Self::header_at(file, of, offset, len)?;
        let mut payload = Vec::new();
        if directory.section_type != DIRECTORY || directory.payload(file, &mut payload).is_none() {
            return None;
        }
        let mut offset = HEADER_BYTES;
        let mut found = Vec::new();
        for bytes in payload.chunks(SECTION_HEADER_BYTES) {
            let section = Section::decode(of, offset, len, bytes)?;
            offset = section.end();
            found.push(section);
        }
        (offset == directory.offset).then_some(found)
    }

    fn header_at(file: &dyn File, of: Bound, offset: u64, len: u64) -> Option<Section> {
        let mut bytes = [0; SECTION_HEADER_BYTES];
        file.read_exact_at(offset, &mut bytes).ok()?;
        Section::decode(of, offset, len, &bytes)
    }

    fn walk(file: &dyn File, of: Bound, len: u64) -> Self {
        let mut sections = Self::default();
        let mut offset = HEADER_BYTES;
        while sections.found.len() < SECTIONS_MAX {
            match Self::header_at(file, of, offset, len) {
                // All before it were found.
                Some(section) if section.section_type == DIRECTORY => {
                    sections.all_found = true;
                    break;
                }
                Some(section) => {
                    offset = section.end();
                    sections.found.push(section);
                }
                None => break,
            }
        }
        sections.damage = Some((offset, len.saturating_sub(offset)));
        sections
    }
}

impl ShardSummary {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        write::uvarint(out, self.sequence);
        write::uvarint(out, u64::from(self.next_slot));
    }

    pub(super) fn decode(content: &[u8]) -> chronolith_codec::Result<Self> {
        let mut reader = Reader::new(content);
        let sequence = reader.uvarint("sequence number")?;
        let next_slot = reader.count(u32::MAX as usize, "next slot")?;
        reader.finish()?;
        Ok(Self { sequence, next_slot: u32::try_from(next_slot).unwrap_or(u32::MAX) })
    }
}

impl HeadState {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        write::varint(out, self.memory_floor);
        write::varint(out, self.cut);
    }

    pub(super) fn decode(content: &[u8]) -> chronolith_codec::Result<Self> {
        let mut reader = Reader::new(content);
        let state = Self { memory_floor: reader.varint("memory floor")?, cut: reader.varint("cut")? };
        reader.finish()?;
        Ok(state)
    }
}
