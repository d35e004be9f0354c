//! A section of series: some series of one shard, complete in itself.
//!
//! Texts stand once, in front; then what is to be known of each series; then all bytes of chunks, in the same order.
//! Numbers and texts so pack well, and a damaged section costs no series of another one.

use std::{collections::BTreeSet, ops::Range};

use chronolith_codec::{Reader, write};
use chronolith_model::{Histogram, Labels, TenantId, TimeRange, Timestamp};
use chronolith_storage::StartTimestamp;
use hashbrown::HashMap;

use super::format::{HISTOGRAMS_VERSION, SECTION_BYTES_MAX};
use crate::{
    chunk_file::ChunkFiles,
    closed::{ChunkKind, ClosedChunk, WINDOW_MS},
    error::ReadError,
    histogram::{OneHistogram, decode_one, encode_one},
    late::RawSample,
    shard::{Ref, ShardState},
};

/// Longest text: as in the model's limits, with room.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most labels of a series.
const LABELS_MAX: usize = 1 << 16;

/// Beside the code of a chunk's kind: its bytes are in a chunk file.
const IN_FILE: u8 = 0x80;

/// Copies of series, made under their shard's lock; kept for its buffers.
#[derive(Debug, Default)]
pub(super) struct Copies {
    pub(super) series: Vec<Copied>,
    pub(super) chunks: Vec<ClosedChunk>,
    pub(super) open: Vec<u8>,
    late: Vec<RawSample>,
    /// Of late histograms.
    ones: Vec<(Timestamp, OneHistogram)>,
    /// Bytes of histograms, shared ones too.
    pub(super) histogram_bytes: usize,
}

/// A series among [`Copies`].
#[derive(Clone, Debug)]
pub(super) struct Copied {
    pub(super) slot: u32,
    pub(super) tenant: u32,
    chunks: Range<usize>,
    open: Range<usize>,
    late_chunks: Range<usize>,
    late: Range<usize>,
    histograms: Option<CopiedHistograms>,
    /// Its start timestamps.
    pub(super) starts: Vec<StartTimestamp>,
}

/// The histograms of a series among [`Copies`].
#[derive(Clone, Debug)]
struct CopiedHistograms {
    chunks: Range<usize>,
    open: Range<usize>,
    late_chunks: Range<usize>,
    late: Range<usize>,
}

impl Copies {
    pub(super) fn clear(&mut self) {
        self.series.clear();
        self.chunks.clear();
        self.open.clear();
        self.late.clear();
        self.ones.clear();
        self.histogram_bytes = 0;
    }

    /// Copies the series at `slot`, if there is one.
    pub(super) fn copy(&mut self, state: &ShardState, slot: u32) {
        let Some((series, closed)) = state.slab.get(slot) else { return };
        let chunks = self.chunks.len();
        self.chunks.extend_from_slice(closed);
        let late_chunks = self.chunks.len();
        let (open, late) = (self.open.len(), self.late.len());
        self.open.extend_from_slice(series.open_bytes());
        state.late.copy_all(slot, &mut self.chunks, &mut self.late);
        self.series.push(Copied {
            slot,
            tenant: series.tenant(),
            chunks: chunks..late_chunks,
            open: open..self.open.len(),
            late_chunks: late_chunks..self.chunks.len(),
            late: late..self.late.len(),
            histograms: None,
            starts: state.starts.steps(slot).to_vec(),
        });
        if series.is_mixed() {
            let histograms = self.copy_histograms(state, slot);
            self.series.last_mut().expect("pushed above").histograms = Some(histograms);
        }
    }

    fn copy_histograms(&mut self, state: &ShardState, slot: u32) -> CopiedHistograms {
        let (chunks, open, late) = (self.chunks.len(), self.open.len(), self.ones.len());
        if let Some(lane) = state.histograms.lane(slot) {
            self.chunks.extend_from_slice(lane.closed());
            self.open.extend_from_slice(lane.open_bytes());
        }
        let late_chunks = self.chunks.len();
        state.histograms.late.copy_all(slot, &mut self.chunks, &mut self.ones);
        let shared = self.chunks.get(chunks..).unwrap_or_default().iter().map(ClosedChunk::memory);
        self.histogram_bytes += shared.sum::<usize>() + self.open.len() - open;
        CopiedHistograms {
            chunks: chunks..late_chunks,
            open: open..self.open.len(),
            late_chunks: late_chunks..self.chunks.len(),
            late: late..self.ones.len(),
        }
    }
}

impl Copies {
    /// The late samples of a copied series, sorted.
    ///
    /// # Errors
    /// When a chunk contradicts itself.
    pub(super) fn late(&self, copied: &Copied) -> Result<Vec<RawSample>, ReadError> {
        let mut samples = Vec::new();
        for chunk in self.chunks.get(copied.late_chunks.clone()).unwrap_or_default() {
            chunk.floats(TimeRange::ALL, &mut samples)?;
        }
        samples.extend_from_slice(self.late.get(copied.late.clone()).unwrap_or_default());
        samples.sort_by_key(|(t, _)| *t);
        samples.dedup_by_key(|(t, _)| *t);
        Ok(samples)
    }

    /// The late histograms of a copied series, sorted.
    ///
    /// # Errors
    /// When a chunk contradicts itself.
    pub(super) fn late_histograms(&self, copied: &Copied) -> Result<Vec<(Timestamp, Histogram)>, ReadError> {
        let mut all = Vec::new();
        let Some(copied) = &copied.histograms else { return Ok(all) };
        for chunk in self.chunks.get(copied.late_chunks.clone()).unwrap_or_default() {
            all.extend(chunk.histograms(TimeRange::ALL)?);
        }
        let ones = self.ones.get(copied.late.clone()).unwrap_or_default();
        all.extend(ones.iter().map(|(t, one)| (*t, one.histogram())));
        all.sort_by_key(|(t, _)| *t);
        all.dedup_by_key(|(t, _)| *t);
        Ok(all)
    }
}

/// A section in the making.
#[derive(Debug, Default)]
pub(super) struct PieceWriter {
    texts: HashMap<Box<str>, u32>,
    text_bytes: Vec<u8>,
    entries: Vec<u8>,
    data: Vec<u8>,
    pub(super) series: u32,
    pub(super) samples: u64,
    /// The chunk files that any section refers to.
    pub(super) files: BTreeSet<u32>,
    next_slot: u32,
}

impl PieceWriter {
    /// Bytes so far, about.
    pub(super) fn bytes(&self) -> usize {
        self.text_bytes.len() + self.entries.len() + self.data.len()
    }

    /// Adds a series; slots ascend.
    pub(super) fn add<'a>(
        &mut self,
        copies: &Copies,
        copied: &Copied,
        tenant: &str,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        (late, late_histograms): (&[RawSample], &[(Timestamp, Histogram)]),
    ) {
        write::uvarint(&mut self.entries, u64::from(copied.slot - self.next_slot));
        self.next_slot = copied.slot + 1;
        self.text(tenant);
        write::uvarint(&mut self.entries, labels.len() as u64);
        for (name, value) in labels {
            self.text(name);
            self.text(value);
        }
        let open = copies.open.get(copied.open.clone()).unwrap_or_default();
        self.chunks(copies.chunks.get(copied.chunks.clone()).unwrap_or_default(), open);
        self.samples += ChunkKind::Float.sample_count(open) as u64;
        self.late(late);
        match &copied.histograms {
            Some(copied) => self.histograms(copies, copied, late_histograms),
            None => self.entries.push(0),
        }
        self.series += 1;
    }

    /// Closed chunks, and the bytes of the open one.
    fn chunks(&mut self, closed: &[ClosedChunk], open: &[u8]) {
        write::uvarint(&mut self.entries, closed.len() as u64);
        let mut before = 0;
        for chunk in closed {
            self.chunk(chunk, &mut before);
        }
        write::uvarint(&mut self.entries, open.len() as u64);
        self.data.extend_from_slice(open);
    }

    /// The histograms of a series; late ones as chunks of one each.
    fn histograms(&mut self, copies: &Copies, copied: &CopiedHistograms, late: &[(Timestamp, Histogram)]) {
        self.entries.push(1);
        let open = copies.open.get(copied.open.clone()).unwrap_or_default();
        self.chunks(copies.chunks.get(copied.chunks.clone()).unwrap_or_default(), open);
        self.samples += ChunkKind::Histogram.sample_count(open) as u64;
        write::uvarint(&mut self.entries, late.len() as u64);
        let mut one = Vec::new();
        for (t, histogram) in late {
            encode_one(&mut one, *t, histogram, histogram.hint_after(None));
            write::uvarint(&mut self.entries, one.len() as u64);
            self.data.extend_from_slice(&one);
        }
        self.samples += late.len() as u64;
    }

    /// The number of a text.
    fn text(&mut self, text: &str) {
        let next = u32::try_from(self.texts.len()).expect("a section has fewer texts");
        let number = match self.texts.get(text) {
            Some(number) => *number,
            None => {
                write::prefixed(&mut self.text_bytes, text.as_bytes());
                self.texts.insert(text.into(), next);
                next
            }
        };
        write::uvarint(&mut self.entries, u64::from(number));
    }

    fn chunk(&mut self, chunk: &ClosedChunk, before: &mut Timestamp) {
        let in_file = chunk.place().map_or(0, |_| IN_FILE);
        self.entries.push(chunk.kind().code() | in_file);
        write::varint(&mut self.entries, chunk.min().wrapping_sub(*before));
        write::uvarint(&mut self.entries, chunk.max().abs_diff(chunk.min()));
        write::uvarint(&mut self.entries, chunk.count() as u64);
        let bytes = chunk.in_memory().unwrap_or_default();
        let len = match chunk.place() {
            Some(place) => {
                let (number, offset, len) = place.numbers();
                write::uvarint(&mut self.entries, u64::from(number));
                write::uvarint(&mut self.entries, u64::from(offset));
                self.files.insert(number);
                len as usize
            }
            None => bytes.len(),
        };
        write::uvarint(&mut self.entries, len as u64);
        self.data.extend_from_slice(bytes);
        self.samples += chunk.count() as u64;
        *before = chunk.max();
    }

    /// Late samples: raw, for they are few.
    fn late(&mut self, samples: &[RawSample]) {
        write::uvarint(&mut self.entries, samples.len() as u64);
        let mut before = 0;
        for (t, bits) in samples {
            write::varint(&mut self.entries, t.wrapping_sub(before));
            write::u64_le(&mut self.entries, *bits);
            before = *t;
        }
        self.samples += samples.len() as u64;
    }

    /// Appends the content of the section to `out`, and begins the next one.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        write::uvarint(out, self.texts.len() as u64);
        write::prefixed(out, &self.text_bytes);
        write::uvarint(out, u64::from(self.series));
        write::prefixed(out, &self.entries);
        out.extend_from_slice(&self.data);
        self.texts.clear();
        self.text_bytes.clear();
        self.entries.clear();
        self.data.clear();
        (self.series, self.samples, self.next_slot) = (0, 0, 0);
    }
}

/// A series read back.
#[derive(Debug)]
pub(super) struct Loading<'a> {
    pub(super) slot: u32,
    /// Of the texts.
    pub(super) tenant: &'a str,
    pub(super) labels: Labels,
    pub(super) chunks: Vec<ClosedChunk>,
    pub(super) open: &'a [u8],
    pub(super) late: Vec<RawSample>,
    pub(super) histograms: Option<LoadingHistograms<'a>>,
}

/// The histograms of a series read back.
#[derive(Debug)]
pub(super) struct LoadingHistograms<'a> {
    pub(super) chunks: Vec<ClosedChunk>,
    pub(super) open: &'a [u8],
    pub(super) late: Vec<(Timestamp, Histogram)>,
}

/// Why the content of a section is not what its type promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<chronolith_codec::Error> for Malformed {
    fn from(_: chronolith_codec::Error) -> Self {
        Self
    }
}

/// Reads all series of a section, of a snapshot of format `version`.
///
/// # Errors
/// When something is not as it should be; nothing is to be taken of the section then.
pub(super) fn decode<'a>(
    content: &'a [u8],
    files: &'a ChunkFiles,
    version: u16,
) -> Result<Vec<Loading<'a>>, Malformed> {
    let mut reader = Reader::new(content);
    let count = reader.count(content.len(), "texts")?;
    let mut bytes = Reader::new(reader.prefixed(SECTION_BYTES_MAX, "texts")?);
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        texts.push(bytes.text(TEXT_BYTES_MAX, "text")?);
    }
    bytes.finish()?;
    let series = reader.count(content.len(), "series")?;
    let mut piece = PieceReader {
        texts,
        entries: Reader::new(reader.prefixed(SECTION_BYTES_MAX, "entries")?),
        data: reader,
        files,
        version,
        next_slot: 0,
    };
    // Each takes some bytes: no more memory than the section pays for.
    let mut all = Vec::new();
    for _ in 0..series {
        all.push(piece.series()?);
    }
    piece.entries.finish()?;
    piece.data.finish()?;
    Ok(all)
}

struct PieceReader<'a> {
    texts: Vec<&'a str>,
    entries: Reader<'a>,
    data: Reader<'a>,
    files: &'a ChunkFiles,
    version: u16,
    next_slot: u32,
}

impl<'a> PieceReader<'a> {
    fn series(&mut self) -> Result<Loading<'a>, Malformed> {
        let gap = self.entries.count(Ref::SLOT_MAX as usize, "slot")?;
        let gap = u32::try_from(gap).map_err(|_| Malformed)?;
        let slot = self.next_slot.checked_add(gap).filter(|slot| *slot <= Ref::SLOT_MAX).ok_or(Malformed)?;
        self.next_slot = slot + 1;
        let tenant = self.text()?;
        TenantId::new(tenant).map_err(|_| Malformed)?;
        let labels = self.labels()?;
        let (chunks, open) = self.chunks(ChunkKind::Float)?;
        let late = self.late()?;
        let histograms = self.histograms()?;
        Ok(Loading { slot, tenant, labels, chunks, open, late, histograms })
    }

    fn histograms(&mut self) -> Result<Option<LoadingHistograms<'a>>, Malformed> {
        if self.version < HISTOGRAMS_VERSION {
            return Ok(None);
        }
        match self.entries.u8("histograms")? {
            0 => return Ok(None),
            1 => {}
            _ => return Err(Malformed),
        }
        let (chunks, open) = self.chunks(ChunkKind::Histogram)?;
        let count = self.entries.count(self.entries.rest().len(), "late histograms")?;
        let mut late: Vec<(Timestamp, Histogram)> = Vec::with_capacity(count.min(256));
        for _ in 0..count {
            let len = self.entries.count(ChunkKind::Histogram.bytes_max(), "length")?;
            let one = decode_one(self.data.slice(len, "late histogram")?).ok_or(Malformed)?;
            if late.last().is_some_and(|(last, _)| *last >= one.0) {
                return Err(Malformed);
            }
            late.push(one);
        }
        Ok(Some(LoadingHistograms { chunks, open, late }))
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let number = self.entries.count(self.texts.len(), "text")?;
        self.texts.get(number).copied().ok_or(Malformed)
    }

    fn labels(&mut self) -> Result<Labels, Malformed> {
        let count = self.entries.count(LABELS_MAX, "labels")?;
        let mut pairs = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            pairs.push((self.text()?, self.text()?));
        }
        Labels::from_sorted(pairs).ok_or(Malformed)
    }

    /// Closed chunks of a kind, and the bytes of the open one.
    fn chunks(&mut self, kind: ChunkKind) -> Result<(Vec<ClosedChunk>, &'a [u8]), Malformed> {
        let count = self.entries.count(self.entries.rest().len(), "chunks")?;
        let mut chunks: Vec<ClosedChunk> = Vec::with_capacity(count.min(1024));
        let mut before: Timestamp = 0;
        for _ in 0..count {
            let code = self.entries.u8("kind")?;
            if ChunkKind::of(code & !IN_FILE) != Some(kind) {
                return Err(Malformed);
            }
            let min = before.wrapping_add(self.entries.varint("first timestamp")?);
            let span = self.entries.count(WINDOW_MS as usize - 1, "span")?;
            let max = min.checked_add(span as i64).ok_or(Malformed)?;
            let samples = self.entries.count(usize::from(u16::MAX), "samples")?;
            let place = match code & IN_FILE {
                0 => None,
                _ => Some((self.number("file")?, self.number("offset")?)),
            };
            let len = self.entries.count(kind.bytes_max(), "length")?;
            let follows = chunks.last().is_none_or(|last| last.max() < min);
            if !follows || samples == 0 {
                return Err(Malformed);
            }
            let mut chunk = ClosedChunk::new(kind, min, max, samples, &[]);
            match place {
                Some((number, offset)) => chunk.spill(self.files.place(number, offset, len as u32)),
                None => {
                    let bytes = self.data.slice(len, "chunk")?;
                    if kind.sample_count(bytes) != samples {
                        return Err(Malformed);
                    }
                    chunk = ClosedChunk::new(kind, min, max, samples, bytes);
                }
            }
            chunks.push(chunk);
            before = max;
        }
        let open = self.entries.count(kind.bytes_max(), "open chunk")?;
        Ok((chunks, self.data.slice(open, "open chunk")?))
    }

    fn number(&mut self, expected: &'static str) -> Result<u32, Malformed> {
        u32::try_from(self.entries.uvarint(expected)?).map_err(|_| Malformed)
    }

    fn late(&mut self) -> Result<Vec<RawSample>, Malformed> {
        let count = self.entries.count(self.entries.rest().len(), "late samples")?;
        let mut late: Vec<RawSample> = Vec::with_capacity(count.min(1024));
        let mut before: Timestamp = 0;
        for _ in 0..count {
            let t = before.wrapping_add(self.entries.varint("timestamp")?);
            let bits = self.entries.u64_le("value")?;
            if late.last().is_some_and(|(last, _)| *last >= t) {
                return Err(Malformed);
            }
            late.push((t, bits));
            before = t;
        }
        Ok(late)
    }
}
