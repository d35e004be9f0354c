//! A batch as records.
//!
//! Definitions, samples and their like, floors, metadata, and the definitions again: whatever one damaged place costs, it is not the definition
//! of a series whose samples are intact.

use std::ops::Range;

use chronolith_codec::{crc32, write};
use chronolith_env::Result;

use crate::entries::EntryColumn;
use crate::metadata::MetadataColumn;
use crate::record::{FLAG_ZSTD, Header, NO_SHARD, PAYLOAD_BYTES_MAX, RecordType, Seal, encode_floor};
use crate::samples::BlockEnd;
use crate::shard_log::ShardLog;

/// Bytes framed before they are written, so that a large batch is not there twice.
const WRITE_BYTES: usize = 1024 * 1024;

/// Smaller payloads are not worth packing.
const PACK_BYTES_MIN: usize = 256;

/// Buffers larger than this are given back.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The fastest level: definitions are mostly names that repeat.
const ZSTD_LEVEL: i32 = 1;

/// Turns batches into records; keeps its buffers.
pub(crate) struct Framer {
    /// `None` if the library refuses: then nothing is packed.
    compressor: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
    raw: Vec<u8>,
    /// The payloads of all definitions of the batch, for both times.
    packed: Vec<u8>,
    definitions: Vec<Packed>,
    /// The payload of one record.
    payload: Vec<u8>,
}

/// A payload in `Framer::packed`.
struct Packed {
    shard: u16,
    flags: u8,
    bytes: Range<usize>,
    crc: u32,
}

/// What a batch came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Framed {
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) samples: u64,
    pub(crate) histograms: u64,
    pub(crate) exemplars: u64,
    pub(crate) series: u64,
    pub(crate) times: Option<(i64, i64)>,
}

impl Framed {
    fn saw(&mut self, min_t: i64, max_t: i64) {
        let (min, max) = self.times.unwrap_or((min_t, max_t));
        self.times = Some((min.min(min_t), max.max(max_t)));
    }
}

/// Where records go.
struct Output<'a, S> {
    out: &'a mut Vec<u8>,
    seal: Seal,
    seq: u64,
    framed: Framed,
    sink: S,
}

impl<S: FnMut(&[u8]) -> Result<()>> Output<'_, S> {
    fn record(
        &mut self,
        record_type: RecordType,
        flags: u8,
        shard: u16,
        payload: &[u8],
        crc: u32,
    ) -> Result<()> {
        let header = Header {
            type_code: record_type.code(),
            flags,
            shard,
            payload_len: payload.len() as u32,
            seq: self.seq,
            payload_crc: crc,
        };
        header.encode(self.seal, self.out);
        self.out.extend_from_slice(payload);
        self.seq += 1;
        self.framed.records += 1;
        if self.out.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn mark(&mut self) {
        Header::mark(self.seq).encode(self.seal, self.out);
    }

    fn flush(&mut self) -> Result<()> {
        if !self.out.is_empty() {
            (self.sink)(self.out)?;
            self.framed.bytes += self.out.len() as u64;
            self.out.clear();
        }
        Ok(())
    }
}

impl Framer {
    pub(crate) fn new() -> Self {
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        Self {
            compressor,
            out: Vec::new(),
            raw: Vec::new(),
            packed: Vec::new(),
            definitions: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Hands the records of a batch to `sink`, in pieces, behind a mark if `mark` says so; the first one has number
    /// `first_seq`. Given the same batch and number, the records are the same up to their seal.
    ///
    /// # Errors
    /// The first one of `sink`.
    pub(crate) fn frame(
        &mut self,
        seal: Seal,
        mark: bool,
        first_seq: u64,
        logs: &[ShardLog],
        (floors, metadata): (&[(Option<String>, i64)], &MetadataColumn),
        sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Framed> {
        self.out.clear();
        self.pack_definitions(logs);
        let mut output = Output { out: &mut self.out, seal, seq: first_seq, framed: Framed::default(), sink };
        if mark {
            output.mark();
        }
        write_definitions(&mut output, &self.definitions, &self.packed)?;
        for (shard, log) in logs.iter().enumerate() {
            write_samples(&mut output, shard as u16, log, &mut self.raw)?;
            let mut write = |record_type, entries: &EntryColumn| {
                let mut from = 0;
                for end in entries.ends() {
                    self.raw.clear();
                    entries.payload(from, end, &mut self.raw);
                    from = end.off;
                    self.payload.clear();
                    let flags = pack(self.compressor.as_mut(), &self.raw, &mut self.payload);
                    let crc = crc32(&self.payload);
                    output.record(record_type, flags, shard as u16, &self.payload, crc)?;
                    if record_type != RecordType::Starts {
                        // Starts say something of samples, which may be older than the segment.
                        output.framed.saw(end.min_t, end.max_t);
                    }
                }
                Result::Ok(entries.ends().iter().map(|end| end.count as u64).sum::<u64>())
            };
            let histograms = write(RecordType::Histograms, &log.histograms)?;
            write(RecordType::Starts, &log.starts)?;
            let exemplars = write(RecordType::Exemplars, &log.exemplars)?;
            output.framed.histograms += histograms;
            output.framed.exemplars += exemplars;
            output.framed.series += log.definition_ends.iter().map(|end| u64::from(end.count)).sum::<u64>();
        }
        for (tenant, min_t) in floors {
            self.raw.clear();
            encode_floor(tenant.as_deref(), *min_t, &mut self.raw);
            output.record(RecordType::Floor, 0, NO_SHARD, &self.raw, crc32(&self.raw))?;
        }
        metadata.payloads(&mut self.raw, |raw| {
            self.payload.clear();
            let flags = pack(self.compressor.as_mut(), raw, &mut self.payload);
            output.record(RecordType::Metadata, flags, NO_SHARD, &self.payload, crc32(&self.payload))
        })?;
        write_definitions(&mut output, &self.definitions, &self.packed)?;
        output.flush()?;
        let framed = output.framed;
        for buffer in [&mut self.out, &mut self.raw, &mut self.packed, &mut self.payload] {
            if buffer.capacity() > SPARE_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
        Ok(framed)
    }

    fn pack_definitions(&mut self, logs: &[ShardLog]) {
        self.packed.clear();
        self.definitions.clear();
        for (shard, log) in logs.iter().enumerate() {
            let mut start = 0;
            for end in &log.definition_ends {
                self.raw.clear();
                write::uvarint(&mut self.raw, u64::from(end.count));
                self.raw.extend_from_slice(log.definitions.get(start..end.off).unwrap_or_default());
                start = end.off;
                let from = self.packed.len();
                let flags = pack(self.compressor.as_mut(), &self.raw, &mut self.packed);
                let bytes = from..self.packed.len();
                let crc = crc32(self.packed.get(bytes.clone()).unwrap_or_default());
                debug_assert!(bytes.len() <= PAYLOAD_BYTES_MAX);
                self.definitions.push(Packed { shard: shard as u16, flags, bytes, crc });
            }
        }
    }
}

/// Appends a payload the shorter way; returns its flags.
fn pack(compressor: Option<&mut zstd::bulk::Compressor<'static>>, raw: &[u8], out: &mut Vec<u8>) -> u8 {
    if raw.len() >= PACK_BYTES_MIN
        && let Some(compressor) = compressor
        && let Ok(packed) = compressor.compress(raw)
        && packed.len() + 5 < raw.len()
    {
        write::uvarint(out, raw.len() as u64);
        out.extend_from_slice(&packed);
        return FLAG_ZSTD;
    }
    out.extend_from_slice(raw);
    0
}

fn write_definitions<S: FnMut(&[u8]) -> Result<()>>(
    output: &mut Output<'_, S>,
    definitions: &[Packed],
    packed: &[u8],
) -> Result<()> {
    for definition in definitions {
        let payload = packed.get(definition.bytes.clone()).unwrap_or_default();
        output.record(RecordType::Series, definition.flags, definition.shard, payload, definition.crc)?;
    }
    Ok(())
}

/// Each closed block of samples is a record.
fn write_samples<S: FnMut(&[u8]) -> Result<()>>(
    output: &mut Output<'_, S>,
    shard: u16,
    log: &ShardLog,
    raw: &mut Vec<u8>,
) -> Result<()> {
    let mut before = BlockEnd::default();
    for end in log.sample_ends() {
        raw.clear();
        log.columns.payload(&before, end, raw);
        output.record(RecordType::Samples, 0, shard, raw, crc32(raw))?;
        output.framed.samples += end.count as u64;
        output.framed.saw(end.min_t, end.max_t);
        before = *end;
    }
    Ok(())
}
