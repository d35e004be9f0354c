//! Records: a checksummed header and a checksummed payload.
//!
//! ```text
//! u32 marker | u8 type | u8 flags | u16 shard | u32 payload_len | u64 seq | u32 payload_crc | u32 header_crc | payload
//! ```
//!
//! Little-endian. The header has its own checksum so that a length can be trusted when the payload cannot. Layout and a
//! worked example: docs/format/wal.md.

use std::fmt;
use std::io::Read as _;

use chronolith_codec::{Reader, crc32, crc32_continue, write};

use crate::DamageReason;
use crate::segment::{FORMAT_VERSION, FORMAT_VERSION_MIN, marker};

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 28;

/// A payload has at most this many bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The payload is a uvarint length and a zstd frame of so many bytes' content.
pub(crate) const FLAG_ZSTD: u8 = 1;

/// The shard of a record that belongs to none.
pub(crate) const NO_SHARD: u16 = u16::MAX;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordType {
    /// Series definitions.
    Series,
    /// Samples.
    Samples,
    /// A raised retention floor.
    Floor,
    /// Everything before it in the segment was durable when it was written. Has no content.
    Mark,
    /// Native histograms.
    Histograms,
    /// Start timestamps.
    Starts,
    /// Exemplars.
    Exemplars,
    /// Metadata of metrics.
    Metadata,
}

impl RecordType {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Series => 1,
            Self::Samples => 2,
            Self::Floor => 3,
            Self::Mark => 4,
            Self::Histograms => 5,
            Self::Starts => 6,
            Self::Exemplars => 7,
            Self::Metadata => 8,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Series),
            2 => Some(Self::Samples),
            3 => Some(Self::Floor),
            4 => Some(Self::Mark),
            5 => Some(Self::Histograms),
            6 => Some(Self::Starts),
            7 => Some(Self::Exemplars),
            8 => Some(Self::Metadata),
            _ => None,
        }
    }

    /// Whether it is of series that have to be defined before it is read.
    pub(crate) const fn is_of_series(self) -> bool {
        matches!(self, Self::Samples | Self::Histograms | Self::Starts | Self::Exemplars)
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// [`RecordType`] as a number; others may come from programs to come.
    pub(crate) type_code: u8,
    pub(crate) flags: u8,
    pub(crate) shard: u16,
    pub(crate) payload_len: u32,
    pub(crate) seq: u64,
    pub(crate) payload_crc: u32,
}

/// What makes the records of a segment its own: bytes of another one do not pass for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    /// The format of the segment.
    pub(crate) version: u16,
    pub(crate) number: u32,
    pub(crate) marker: u32,
}

impl Seal {
    /// Of a segment that is being written.
    pub(crate) fn new(number: u32, salt: u64) -> Self {
        Self { version: FORMAT_VERSION, number, marker: marker(salt) }
    }

    /// The checksum of a header's first 24 bytes, begun with the format version and the segment number.
    fn header_crc(version: u16, number: u32, bytes: &[u8]) -> u32 {
        let mut start = [0; 6];
        let (first, rest) = start.split_at_mut(2);
        first.copy_from_slice(&version.to_le_bytes());
        rest.copy_from_slice(&number.to_le_bytes());
        crc32_continue(crc32(&start), bytes)
    }
}

impl Header {
    /// A mark; it takes no number of its own, `seq` is that of a neighbour.
    pub(crate) const fn mark(seq: u64) -> Self {
        let type_code = RecordType::Mark.code();
        Self { type_code, flags: 0, shard: NO_SHARD, payload_len: 0, seq, payload_crc: 0 }
    }

    pub(crate) const fn is_mark(&self) -> bool {
        self.type_code == RecordType::Mark.code()
    }

    /// Appends the header.
    pub(crate) fn encode(&self, seal: Seal, out: &mut Vec<u8>) {
        let start = out.len();
        write::u32_le(out, seal.marker);
        out.push(self.type_code);
        out.push(self.flags);
        write::u16_le(out, self.shard);
        write::u32_le(out, self.payload_len);
        write::u64_le(out, self.seq);
        write::u32_le(out, self.payload_crc);
        let crc = Seal::header_crc(seal.version, seal.number, out.get(start..).unwrap_or_default());
        write::u32_le(out, crc);
    }

    /// Reads a header at the start of `bytes`, with the seal it carries, if its checksum is that of segment `number`
    /// and its length is allowed. `version`: the segment's; any if that is not known. A caller who knows the marker
    /// compares it.
    pub(crate) fn decode(number: u32, version: Option<u16>, bytes: &[u8]) -> Option<(Seal, Self)> {
        let covered = bytes.get(..HEADER_BYTES - 4)?;
        let mut reader = Reader::new(bytes.get(..HEADER_BYTES)?);
        let marker = reader.u32_le("marker").ok()?;
        let header = Self {
            type_code: reader.u8("type").ok()?,
            flags: reader.u8("flags").ok()?,
            shard: reader.u16_le("shard").ok()?,
            payload_len: reader.u32_le("payload length").ok()?,
            seq: reader.u64_le("sequence number").ok()?,
            payload_crc: reader.u32_le("payload checksum").ok()?,
        };
        let crc = reader.u32_le("header checksum").ok()?;
        // The cheap test first: while resynchronising, this runs at every byte.
        if header.payload_len as usize > PAYLOAD_BYTES_MAX {
            return None;
        }
        let (min, max) = version.map_or((FORMAT_VERSION_MIN, FORMAT_VERSION), |version| (version, version));
        let version = (min..=max).rev().find(|version| crc == Seal::header_crc(*version, number, covered))?;
        Some((Seal { version, number, marker }, header))
    }

    /// Header and payload, in bytes.
    pub(crate) const fn record_bytes(&self) -> usize {
        HEADER_BYTES + self.payload_len as usize
    }
}

/// Unpacked payloads up to this size are allocated at once, larger ones as they turn out to be.
const UNPACK_AT_ONCE_MAX: usize = 4 * 1024 * 1024;

/// Unpacks payloads; kept for its buffers, which are dearer than a small payload.
#[derive(Default)]
pub(crate) struct Unpacker {
    bytes: Vec<u8>,
    /// `None` before the first packed payload.
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// The content of a payload: itself, or unpacked.
///
/// # Errors
/// [`DamageReason::Content`] when it cannot be unpacked, or when this program does not know its flags.
pub(crate) fn content<'a>(
    flags: u8,
    payload: &'a [u8],
    unpacker: &'a mut Unpacker,
) -> Result<&'a [u8], DamageReason> {
    match flags {
        0 => Ok(payload),
        FLAG_ZSTD => {
            unpack(payload, unpacker).ok_or(DamageReason::Content)?;
            Ok(&unpacker.bytes)
        }
        _ => Err(DamageReason::Content),
    }
}

fn unpack(payload: &[u8], unpacker: &mut Unpacker) -> Option<()> {
    let Unpacker { bytes: out, decompressor } = unpacker;
    let mut reader = Reader::new(payload);
    let len = reader.count(PAYLOAD_BYTES_MAX, "unpacked length").ok()?;
    out.clear();
    if len <= UNPACK_AT_ONCE_MAX {
        out.resize(len, 0);
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            None => decompressor.insert(zstd::bulk::Decompressor::new().ok()?),
        };
        let got = decompressor.decompress_to_buffer(reader.rest(), out).ok()?;
        return (got == len).then_some(());
    }
    let mut unpacked = zstd::stream::read::Decoder::new(reader.rest()).ok()?.take(len as u64 + 1);
    unpacked.read_to_end(out).ok()?;
    (out.len() == len).then_some(())
}

/// Appends a floor's payload: `u8 1 and the tenant, or u8 0 for all | varint min_t`.
pub(crate) fn encode_floor(tenant: Option<&str>, min_t: i64, out: &mut Vec<u8>) {
    match tenant {
        Some(tenant) => {
            out.push(1);
            write::prefixed(out, tenant.as_bytes());
        }
        None => out.push(0),
    }
    write::varint(out, min_t);
}

/// Reads a floor.
pub(crate) fn decode_floor(payload: &[u8]) -> chronolith_codec::Result<(Option<&str>, i64)> {
    let mut reader = Reader::new(payload);
    let off = reader.offset();
    let tenant = match reader.u8("tenant flag")? {
        0 => None,
        1 => Some(reader.text(crate::series::TENANT_BYTES_MAX, "tenant")?),
        got => {
            let got = u64::from(got);
            return Err(chronolith_codec::Error::TooLarge { off, expected: "tenant flag", got, max: 1 });
        }
    };
    let min_t = reader.varint("floor")?;
    reader.finish()?;
    Ok((tenant, min_t))
}
