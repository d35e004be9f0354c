//! A section of series: some series of one shard, complete in itself.
//!
//! Texts stand once, in front; then what is to be known of each series; then all bytes of chunks, in the same order.
//! Numbers and texts so pack well, and a damaged section costs no series of another one.

use std::ops::Range;

use chronolith_codec::{Reader, write};
use chronolith_model::{Histogram, Labels, TenantId, TimeRange, Timestamp};
use chronolith_storage::StartTimestamp;
use hashbrown::HashMap;

use super::chunks::{ChunkReader, ChunkWriter, Malformed};
use super::format::{HISTOGRAMS_VERSION, SECTION_BYTES_MAX};
use super::more::{Lot, More};
use crate::{
    chunk_file::{ChunkFiles, unreadable},
    closed::{ChunkKind, ClosedChunk},
    error::ReadError,
    histogram::{OneHistogram, decode_one, encode_one},
    late::RawSample,
    shard::{Ref, ShardState},
    unread::UnreadChunk,
};

/// Longest text: as in the model's limits, with room.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most labels of a series.
const LABELS_MAX: usize = 1 << 16;

/// Closed chunks of an entry, of a kind, have at most so many bytes and what is to be known of them ...
const IN_ORDER_BYTES_MAX: usize = 4 << 20;
/// ... and late samples come from chunks of at most so many: written one by one, histograms take up to a hundred times the
/// bytes. Further chunks are in sections of their own.
const LATE_BYTES_MAX: usize = 256 << 10;
/// What is to be known of a chunk, about.
const CHUNK_ENTRY_BYTES: usize = 32;

/// Late histograms by time, and the places of chunks with further ones.
type LateHistograms = (Vec<(Timestamp, Histogram)>, Range<usize>);

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
            starts: if series.is_started() { state.starts.steps(slot).to_vec() } else { Vec::new() },
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
    /// The chunks of these series, of shard `shard`, that are in files and cannot be read.
    pub(super) fn unread(&self, shard: usize) -> Vec<UnreadChunk> {
        let (mut chunks, mut places) = (Vec::new(), Vec::new());
        for copied in &self.series {
            let histograms = copied.histograms.as_ref().map_or(0..0, |histograms| histograms.chunks.clone());
            for chunk in
                [copied.chunks.clone(), histograms].into_iter().flat_map(|of| self.chunks.get(of)).flatten()
            {
                if let Some(place) = chunk.place() {
                    chunks.push((Ref::new(shard, copied.slot).0, chunk));
                    places.push(place);
                }
            }
        }
        let unread = unreadable(&places).into_iter();
        unread
            .filter_map(|(at, error)| {
                let (reference, chunk) = chunks.get(at)?;
                Some(UnreadChunk::new(*reference, chunk, error))
            })
            .collect()
    }

    /// The late samples of a copied series, sorted, and the places of chunks with further ones.
    ///
    /// # Errors
    /// When a chunk contradicts itself.
    pub(super) fn late(&self, copied: &Copied) -> Result<(Vec<RawSample>, Range<usize>), ReadError> {
        let mut samples = Vec::new();
        let (chunks, more) = self.inline(&copied.late_chunks);
        for chunk in chunks {
            chunk.floats(TimeRange::ALL, &mut samples)?;
        }
        samples.extend_from_slice(self.late.get(copied.late.clone()).unwrap_or_default());
        samples.sort_by_key(|(t, _)| *t);
        samples.dedup_by_key(|(t, _)| *t);
        Ok((samples, more))
    }

    /// The same of its late histograms.
    ///
    /// # Errors
    /// When a chunk contradicts itself.
    pub(super) fn late_histograms(&self, copied: &Copied) -> Result<LateHistograms, ReadError> {
        let mut all = Vec::new();
        let Some(copied) = &copied.histograms else { return Ok((all, 0..0)) };
        let (chunks, more) = self.inline(&copied.late_chunks);
        for chunk in chunks {
            all.extend(chunk.histograms(TimeRange::ALL)?);
        }
        let ones = self.ones.get(copied.late.clone()).unwrap_or_default();
        all.extend(ones.iter().map(|(t, one)| (*t, one.histogram())));
        all.sort_by_key(|(t, _)| *t);
        all.dedup_by_key(|(t, _)| *t);
        Ok((all, more))
    }

    /// The chunks of late samples that an entry has sample by sample, all of `chunks` or none, and the places of the others.
    fn inline(&self, chunks: &Range<usize>) -> (&[ClosedChunk], Range<usize>) {
        let late = self.chunks.get(chunks.clone()).unwrap_or_default();
        if room_for(late, LATE_BYTES_MAX) == late.len() { (late, 0..0) } else { (&[], chunks.clone()) }
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
    samples: u64,
    pub(super) chunks: ChunkWriter,
    /// Chunks of the series in it that there was no room for.
    pub(super) more: Vec<More>,
    next_slot: u32,
}

impl PieceWriter {
    /// Bytes so far, about.
    pub(super) fn bytes(&self) -> usize {
        self.text_bytes.len() + self.entries.len() + self.data.len()
    }

    /// Samples of the series in it, without those in [`PieceWriter::more`].
    pub(super) fn samples(&self) -> u64 {
        self.samples + self.chunks.samples
    }

    /// Adds a series; slots ascend. What there is no room for is in [`PieceWriter::more`] then.
    ///
    /// # Errors
    /// When a chunk of late samples contradicts itself; nothing is added.
    pub(super) fn add<'a>(
        &mut self,
        copies: &Copies,
        copied: &Copied,
        tenant: &str,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), ReadError> {
        let (late, more_late) = copies.late(copied)?;
        let (late_histograms, more_histograms) = copies.late_histograms(copied)?;
        let slot = copied.slot;
        let late_lots = [(ChunkKind::Float, more_late), (ChunkKind::Histogram, more_histograms)];
        self.more.extend(
            late_lots.into_iter().filter(|(_, chunks)| !chunks.is_empty()).map(|(kind, chunks)| More {
                slot,
                lot: Lot::Late(kind),
                chunks,
            }),
        );
        write::uvarint(&mut self.entries, u64::from(copied.slot - self.next_slot));
        self.next_slot = copied.slot + 1;
        self.text(tenant);
        write::uvarint(&mut self.entries, labels.len() as u64);
        for (name, value) in labels {
            self.text(name);
            self.text(value);
        }
        let open = copies.open.get(copied.open.clone()).unwrap_or_default();
        self.closed((copies, slot), ChunkKind::Float, copied.chunks.clone(), open);
        self.samples += ChunkKind::Float.sample_count(open) as u64;
        self.late(&late);
        match &copied.histograms {
            Some(copied) => self.histograms((copies, slot), copied, &late_histograms),
            None => self.entries.push(0),
        }
        self.series += 1;
        Ok(())
    }

    /// Closed chunks, and the bytes of the open one.
    fn closed(&mut self, (copies, slot): (&Copies, u32), kind: ChunkKind, chunks: Range<usize>, open: &[u8]) {
        let closed = copies.chunks.get(chunks.clone()).unwrap_or_default();
        let room = room_for(closed, IN_ORDER_BYTES_MAX);
        write::uvarint(&mut self.entries, room as u64);
        let mut before = 0;
        for chunk in closed.iter().take(room) {
            self.chunks.chunk(chunk, &mut before, &mut self.entries, &mut self.data);
        }
        if room < closed.len() {
            let chunks = chunks.start + room..chunks.end;
            self.more.push(More { slot, lot: Lot::InOrder(kind), chunks });
        }
        write::uvarint(&mut self.entries, open.len() as u64);
        self.data.extend_from_slice(open);
    }

    /// The histograms of a series; late ones as chunks of one each.
    fn histograms(&mut self, of: (&Copies, u32), copied: &CopiedHistograms, late: &[(Timestamp, Histogram)]) {
        self.entries.push(1);
        let open = of.0.open.get(copied.open.clone()).unwrap_or_default();
        self.closed(of, ChunkKind::Histogram, copied.chunks.clone(), open);
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
        self.chunks.samples = 0;
    }
}

/// How many of `chunks` have no more than so many bytes.
fn room_for(chunks: &[ClosedChunk], bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |chunk: &&ClosedChunk| {
        bytes += chunk.in_memory().map_or(0, <[_]>::len) + CHUNK_ENTRY_BYTES;
        bytes <= bytes_max
    };
    chunks.iter().take_while(fits).count()
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
        let Self { entries, data, files, .. } = self;
        let chunks = ChunkReader { entries, data, files }.closed(kind, count, true)?;
        let open = self.entries.count(kind.bytes_max(), "open chunk")?;
        Ok((chunks, self.data.slice(open, "open chunk")?))
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
