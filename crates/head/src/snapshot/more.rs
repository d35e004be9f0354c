//! More of a series than its entry has room for: further chunks, in sections of their own.

use std::ops::Range;

use chronolith_codec::{Reader, write};
use chronolith_model::{Histogram, TimeRange, Timestamp};

use super::chunks::{ChunkReader, ChunkWriter, Malformed};
use super::format::SECTION_BYTES_MAX;
use super::restore::Share;
use crate::{
    chunk_file::ChunkFiles,
    closed::{ChunkKind, ClosedChunk},
    error::ReadError,
    head::Head,
    late::RawSample,
    offer::LateRule,
    shard::{Ref, ShardState},
};

/// What the chunks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lot {
    /// Behind those of the entry, before the open one.
    InOrder(ChunkKind),
    /// Beside all others.
    Late(ChunkKind),
}

impl Lot {
    const fn code(self) -> u8 {
        match self {
            Self::InOrder(ChunkKind::Float) => 0,
            Self::InOrder(ChunkKind::Histogram) => 1,
            Self::Late(ChunkKind::Float) => 2,
            Self::Late(ChunkKind::Histogram) => 3,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::InOrder(ChunkKind::Float)),
            1 => Some(Self::InOrder(ChunkKind::Histogram)),
            2 => Some(Self::Late(ChunkKind::Float)),
            3 => Some(Self::Late(ChunkKind::Histogram)),
            _ => None,
        }
    }

    const fn kind(self) -> ChunkKind {
        match self {
            Self::InOrder(kind) | Self::Late(kind) => kind,
        }
    }
}

/// Chunks that an entry had no room for.
#[derive(Debug)]
pub(super) struct More {
    pub(super) slot: u32,
    pub(super) lot: Lot,
    /// Their places among the copies.
    pub(super) chunks: Range<usize>,
}

/// Appends the content of a section of the first of `chunks`, about `bytes_full` of them; returns how many.
pub(super) fn encode(
    (slot, lot): (u32, Lot),
    chunks: &[ClosedChunk],
    bytes_full: usize,
    writer: &mut ChunkWriter,
    out: &mut Vec<u8>,
) -> usize {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    let (mut count, mut before) = (0, 0);
    for chunk in chunks {
        if data.len() + entries.len() >= bytes_full {
            break;
        }
        writer.chunk(chunk, &mut before, &mut entries, &mut data);
        count += 1;
    }
    write::uvarint(out, u64::from(slot));
    out.push(lot.code());
    write::uvarint(out, count as u64);
    write::prefixed(out, &entries);
    out.extend_from_slice(&data);
    count
}

fn decode(content: &[u8], files: &ChunkFiles) -> Result<(u32, Lot, Vec<ClosedChunk>), Malformed> {
    let mut reader = Reader::new(content);
    let slot = u32::try_from(reader.count(Ref::SLOT_MAX as usize, "slot")?).map_err(|_| Malformed)?;
    let lot = Lot::of(reader.u8("lot")?).ok_or(Malformed)?;
    let count = reader.count(content.len(), "chunks")?;
    let mut entries = Reader::new(reader.prefixed(SECTION_BYTES_MAX, "entries")?);
    let mut chunks = ChunkReader { entries: &mut entries, data: &mut reader, files };
    // Late ones are of lists that may overlap.
    let ascending = matches!(lot, Lot::InOrder(_));
    let chunks = chunks.closed(lot.kind(), count, ascending)?;
    entries.finish()?;
    reader.finish()?;
    Ok((slot, lot, chunks))
}

/// Takes over a section of chunks of a series that has been loaded: all of it, or nothing. `None` if it does not say what
/// its type promises, or does not fit what the series has.
pub(super) fn load(
    (head, files): (&Head, &ChunkFiles),
    shard: usize,
    content: &[u8],
    share: &mut Share,
) -> Option<()> {
    let (slot, lot, mut chunks) = decode(content, files).ok()?;
    let named = chunks.len();
    share.verify(&mut [(Ref::new(shard, slot).0, &mut chunks)]);
    if chunks.is_empty() && named > 0 {
        return Some(());
    }
    let late = match lot {
        Lot::Late(_) => Some(LateOnes::read(&chunks).ok()?),
        Lot::InOrder(_) => None,
    };
    let (entry, times) = (head.shards.get(shard)?, chunks.iter().map(ClosedChunk::range));
    let times = times.reduce(|a, b| TimeRange::new(a.min.min(b.min), a.max.max(b.max)));
    let samples = chunks.iter().map(|chunk| chunk.count() as u64).sum::<u64>();
    let mut state = entry.lock();
    if let Some(known) = share.renumbered.get(&Ref::new(shard, slot).0) {
        let unread = offer(&mut state, Ref(*known).slot(), &chunks);
        share.unread.extend(unread.into_iter().map(|error| (error, 0)));
    } else if state.slab.get(slot).is_some() {
        match late {
            Some(late) => late.restore(&mut state, slot),
            None => extend(&mut state, slot, chunks)?,
        }
    } else {
        // Its entry was damaged, which is known.
        return Some(());
    }
    entry.publish(&state);
    share.samples += samples;
    share.saw(times);
    Some(())
}

/// Looks whether the chunks in files that a section names can be read.
pub(super) fn check(content: &[u8], files: &ChunkFiles, share: &mut Share) {
    if let Ok((slot, _, mut chunks)) = decode(content, files) {
        share.verify(&mut [(slot, &mut chunks)]);
    }
}

/// Puts chunks in order between the closed ones of a series and its open one.
fn extend(state: &mut ShardState, slot: u32, chunks: Vec<ClosedChunk>) -> Option<()> {
    let ShardState { slab, histograms, accounts, .. } = state;
    let (series, closed) = slab.get_mut(slot)?;
    match chunks.first()?.kind() {
        ChunkKind::Float => series.extend(closed, chunks, accounts),
        ChunkKind::Histogram => histograms.extend(slot, chunks, accounts),
    }
}

/// Late samples of chunks.
enum LateOnes {
    Floats(Vec<RawSample>),
    Histograms(Vec<(Timestamp, Histogram)>),
}

impl LateOnes {
    fn read(chunks: &[ClosedChunk]) -> Result<Self, ReadError> {
        let (mut floats, mut histograms) = (Vec::new(), Vec::new());
        for chunk in chunks {
            chunk.floats(TimeRange::ALL, &mut floats)?;
            histograms.extend(chunk.histograms(TimeRange::ALL)?);
        }
        // What was said about the counter was about another sample, for all that is known.
        for (_, histogram) in &mut histograms {
            histogram.set_hint(histogram.hint_after(None));
        }
        Ok(if histograms.is_empty() {
            Self::Floats(sorted(floats))
        } else {
            Self::Histograms(sorted(histograms))
        })
    }

    fn restore(&self, state: &mut ShardState, slot: u32) {
        let ShardState { slab, late, histograms, accounts, .. } = state;
        match self {
            Self::Floats(samples) => late.restore(slot, samples, accounts),
            Self::Histograms(samples) => {
                histograms.restore_late(slot, samples, accounts);
                if let Some((series, _)) = slab.get_mut(slot) {
                    series.set_mixed(true);
                }
            }
        }
    }
}

fn sorted<T>(mut samples: Vec<(Timestamp, T)>) -> Vec<(Timestamp, T)> {
    samples.sort_by_key(|(t, _)| *t);
    samples.dedup_by_key(|(t, _)| *t);
    samples
}

/// Offers the samples of chunks to a series; what cannot be read is returned.
pub(super) fn offer(state: &mut ShardState, slot: u32, chunks: &[ClosedChunk]) -> Vec<ReadError> {
    let Some(mut place) = state.series_mut(slot) else { return Vec::new() };
    let (mut unread, mut one) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let mut floats = Vec::new();
        unread.extend(chunk.floats(TimeRange::ALL, &mut floats).err());
        for sample in floats {
            place.float(sample, LateRule::Logged);
        }
        match chunk.histograms(TimeRange::ALL) {
            Ok(histograms) => histograms.iter().for_each(|(t, histogram)| {
                place.histogram(*t, histogram, LateRule::Logged, &mut one);
            }),
            Err(error) => unread.push(error),
        }
    }
    unread
}
