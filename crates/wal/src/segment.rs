//! Segments: files of records.
//!
//! ```text
//! magic "CHRNOWAL" | u16 version | u16 flags | u32 number | u32 previous | u64 previous_end | u64 salt | u32 crc | records
//! ```
//!
//! Little-endian. Layout and a worked example: docs/format/wal.md.

use std::path::{Path, PathBuf};

use chronolith_codec::{Reader, crc32, write};

/// Version of the log's format that is written. A directory with a newer one is refused.
pub const FORMAT_VERSION: u16 = 3;

/// The oldest version that is read.
pub const FORMAT_VERSION_MIN: u16 = 1;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 40;

/// First bytes of every segment, of every version. Magic, version and checksum stay where they are in all versions.
const MAGIC: &[u8; 8] = b"CHRNOWAL";

/// The segment goes on where a failed one ended: its samples may be of series defined there.
const FLAG_CONTINUES: u16 = 1;

/// A segment of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number; ascending, with gaps.
    pub number: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// The first and last timestamp (ms, both inclusive) of its samples, histograms and exemplars; `None` without any, or
    /// before replay.
    pub times: Option<(i64, i64)>,
    /// No record in it has a higher number. Before replay, the highest number that anything found can have.
    pub last_sequence: u64,
    /// Written by this process, or replayed without meeting damage.
    pub whole: bool,
    /// Whether it needs the definitions of the segment before it, and so cannot outlive it.
    pub continues: bool,
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u16,
    pub(crate) number: u32,
    pub(crate) continues: bool,
    /// The segment before; 0 for none. Segments between it and this one are failed attempts, void.
    pub(crate) previous: u32,
    /// Where the valid part of the segment before ends; what follows was written again here.
    pub(crate) previous_end: u64,
    pub(crate) salt: u64,
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderStatus {
    Valid(SegmentHeader),
    /// Intact, but of another format.
    Foreign(u16),
    /// Not the header of a segment, or a damaged one.
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        write::u16_le(&mut out, self.version);
        write::u16_le(&mut out, if self.continues { FLAG_CONTINUES } else { 0 });
        write::u32_le(&mut out, self.number);
        write::u32_le(&mut out, self.previous);
        write::u64_le(&mut out, self.previous_end);
        write::u64_le(&mut out, self.salt);
        let crc = crc32(&out);
        write::u32_le(&mut out, crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> HeaderStatus {
        Self::try_decode(bytes).unwrap_or(HeaderStatus::Damaged)
    }

    /// Whether these first bytes may be those of a segment whose header was written only in part: each byte of the
    /// magic is as it should be or zero.
    pub(crate) fn may_be_torn(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> bool {
        bytes.iter().zip(MAGIC).all(|(byte, magic)| byte == magic || *byte == 0)
    }

    fn try_decode(bytes: &[u8]) -> Option<HeaderStatus> {
        let (covered, _) = bytes.split_at_checked(SEGMENT_HEADER_BYTES - 4)?;
        let mut reader = Reader::new(bytes);
        let magic = reader.array::<8>("magic").ok()?;
        let version = reader.u16_le("version").ok()?;
        let flags = reader.u16_le("flags").ok()?;
        let header = Self {
            version,
            number: reader.u32_le("number").ok()?,
            continues: flags & FLAG_CONTINUES != 0,
            previous: reader.u32_le("previous number").ok()?,
            previous_end: reader.u64_le("previous end").ok()?,
            salt: reader.u64_le("salt").ok()?,
        };
        if &magic != MAGIC || reader.u32_le("checksum").ok()? != crc32(covered) {
            return None;
        }
        Some(if (FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&version) {
            HeaderStatus::Valid(header)
        } else {
            HeaderStatus::Foreign(version)
        })
    }
}

/// The first four bytes of each record: not guessable from outside, so that logged text cannot pass for a record.
pub(crate) fn marker(salt: u64) -> u32 {
    crc32(&salt.to_le_bytes())
}

/// The file of segment `number`.
pub(crate) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.wal"))
}

/// The number in a segment's file name.
pub(crate) fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".wal")?;
    if digits.len() < 8
        || !digits.bytes().all(|b| b.is_ascii_digit())
        || (digits.len() > 8 && digits.starts_with('0'))
    {
        return None;
    }
    digits.parse().ok().filter(|&number| number > 0)
}
