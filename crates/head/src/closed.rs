//! Finished chunks, and the windows of time they stay inside.

use std::{borrow::Cow, mem::size_of, sync::Arc};

use chronolith_chunk::{
    XorAppender, XorIter, decode_range_into,
    histogram::{decode_histograms_into, histogram_count},
    sample_count,
};
use chronolith_model::{Histogram, TimeRange, Timestamp};
use chronolith_storage::Samples;

use crate::{
    chunk_file::Place, error::ReadError, histogram::HISTOGRAM_CHUNK_BYTES_MAX, series::CHUNK_BYTES_MAX,
};

/// The length of a window, in milliseconds. Windows begin behind multiples of it and end with the next one; no chunk
/// crosses from one into another, so that a block's worth of time is made of whole chunks.
pub const WINDOW_MS: i64 = 2 * 3600 * 1000;

/// What an allocation costs beyond its bytes, about.
const ALLOCATION_BYTES: usize = 8;
/// The counters of an `Arc`.
const ARC_BYTES: usize = 16;

/// The number of the window of `t`.
#[inline]
pub(crate) const fn window_number(t: Timestamp) -> i64 {
    t.saturating_sub(1).div_euclid(WINDOW_MS)
}

/// The last timestamp of the window of `t`.
#[inline]
pub(crate) const fn window_end(t: Timestamp) -> Timestamp {
    window_number(t).saturating_add(1).saturating_mul(WINDOW_MS)
}

/// The window of `t`, `(k * 2 h, (k + 1) * 2 h]`, with both ends included.
#[must_use]
pub const fn window_of(t: Timestamp) -> TimeRange {
    window(window_number(t))
}

/// The window of a number.
pub(crate) const fn window(number: i64) -> TimeRange {
    let start = number.saturating_mul(WINDOW_MS);
    TimeRange::new(start.saturating_add(1), start.saturating_add(WINDOW_MS))
}

/// What the samples of a chunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    /// Gorilla XOR.
    Float,
    /// Native histograms.
    Histogram,
}

impl ChunkKind {
    /// Its code on disk.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Float => 0,
            Self::Histogram => 1,
        }
    }

    /// Most bytes of a chunk.
    pub(crate) const fn bytes_max(self) -> usize {
        match self {
            Self::Float => CHUNK_BYTES_MAX,
            Self::Histogram => HISTOGRAM_CHUNK_BYTES_MAX,
        }
    }

    /// How many samples a chunk of these bytes says it has.
    pub(crate) fn sample_count(self, bytes: &[u8]) -> usize {
        match self {
            Self::Float => sample_count(bytes),
            Self::Histogram => histogram_count(bytes),
        }
    }

    /// The kind of a code.
    pub(crate) const fn of(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Float),
            1 => Some(Self::Histogram),
            _ => None,
        }
    }
}

/// A finished chunk. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ClosedChunk {
    min: Timestamp,
    /// Last timestamp less the first: below [`WINDOW_MS`].
    span: u32,
    count: u16,
    kind: ChunkKind,
    bytes: ChunkBytes,
}

/// Where the bytes of a finished chunk are.
#[derive(Clone, Debug)]
enum ChunkBytes {
    Memory(Arc<[u8]>),
    File(Arc<Place>),
}

const _: () = assert!(size_of::<ClosedChunk>() == 32);

impl ClosedChunk {
    /// The chunk of kind `kind` that `bytes` are: `count` samples from `min` to `max`.
    pub(crate) fn new(kind: ChunkKind, min: Timestamp, max: Timestamp, count: usize, bytes: &[u8]) -> Self {
        Self {
            min,
            span: u32::try_from(max - min).expect("a chunk is inside one window"),
            count: u16::try_from(count).expect("a chunk has few samples"),
            kind,
            bytes: ChunkBytes::Memory(Arc::from(bytes)),
        }
    }

    /// A chunk of floats, of one window and ascending timestamps. `None` without samples.
    pub(crate) fn of_floats(samples: &[(Timestamp, u64)]) -> Option<Self> {
        let ((min, _), (max, _)) = (samples.first()?, samples.last()?);
        let (mut appender, mut bytes) = (XorAppender::new(), Vec::new());
        for (t, bits) in samples {
            appender.append(&mut bytes, *t, f64::from_bits(*bits)).expect("chunks are split long before");
        }
        Some(Self::new(ChunkKind::Float, *min, *max, samples.len(), &bytes))
    }

    pub(crate) const fn kind(&self) -> ChunkKind {
        self.kind
    }

    /// The bytes, read back from a chunk file if they are there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn bytes(&self) -> Result<Cow<'_, [u8]>, ReadError> {
        match &self.bytes {
            ChunkBytes::Memory(bytes) => Ok(Cow::Borrowed(bytes)),
            ChunkBytes::File(place) => place.read().map(Cow::Owned),
        }
    }

    /// The bytes, if they are in memory.
    pub(crate) fn in_memory(&self) -> Option<&[u8]> {
        match &self.bytes {
            ChunkBytes::Memory(bytes) => Some(bytes),
            ChunkBytes::File(_) => None,
        }
    }

    /// Its place in a chunk file, if it is in one.
    pub(crate) fn place(&self) -> Option<&Place> {
        match &self.bytes {
            ChunkBytes::Memory(_) => None,
            ChunkBytes::File(place) => Some(place),
        }
    }

    /// The same, with its bytes at `place`.
    pub(crate) fn spill(&mut self, place: Place) {
        self.bytes = ChunkBytes::File(Arc::new(place));
    }

    /// Whether both share the same bytes in memory.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.bytes, &other.bytes) {
            (ChunkBytes::Memory(a), ChunkBytes::Memory(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// The first timestamp.
    pub(crate) const fn min(&self) -> Timestamp {
        self.min
    }

    /// The last timestamp.
    pub(crate) fn max(&self) -> Timestamp {
        self.min + i64::from(self.span)
    }

    /// First and last timestamp.
    pub(crate) fn range(&self) -> TimeRange {
        TimeRange::new(self.min, self.max())
    }

    /// How many samples.
    pub(crate) const fn count(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        self.range().overlaps(&range)
    }

    /// Appends its samples inside `range`.
    pub(crate) fn read(&self, range: TimeRange, into: &mut Samples) -> Result<(), ReadError> {
        match self.kind {
            ChunkKind::Float => {
                let (timestamps, values) = (&mut into.timestamps, &mut into.values);
                decode_range_into(&self.bytes()?, range.min, range.max, timestamps, values)?;
            }
            ChunkKind::Histogram => {
                let (timestamps, histograms) = (&mut into.histogram_timestamps, &mut into.histograms);
                decode_histograms_into(&self.bytes()?, range.min, range.max, timestamps, histograms)?;
            }
        }
        Ok(())
    }

    /// The same; of one that cannot be read nothing, and it is handed to `unread`.
    pub(crate) fn read_or(
        &self,
        range: TimeRange,
        into: &mut Samples,
        unread: &mut dyn FnMut(&Self, ReadError),
    ) {
        let (floats, histograms) = (into.timestamps.len(), into.histograms.len());
        if let Err(error) = self.read(range, into) {
            into.timestamps.truncate(floats);
            into.values.truncate(floats);
            into.histogram_timestamps.truncate(histograms);
            into.histograms.truncate(histograms);
            unread(self, error);
        }
    }

    /// Its histograms inside `range`; none of a chunk of floats.
    pub(crate) fn histograms(&self, range: TimeRange) -> Result<Vec<(Timestamp, Histogram)>, ReadError> {
        let (mut timestamps, mut histograms) = (Vec::new(), Vec::new());
        if self.kind == ChunkKind::Histogram {
            decode_histograms_into(&self.bytes()?, range.min, range.max, &mut timestamps, &mut histograms)?;
        }
        Ok(timestamps.into_iter().zip(histograms).collect())
    }

    /// Appends its floats inside `range`; none of a chunk of histograms.
    pub(crate) fn floats(&self, range: TimeRange, into: &mut Vec<(Timestamp, u64)>) -> Result<(), ReadError> {
        match self.kind {
            ChunkKind::Float => {
                for sample in XorIter::new(&self.bytes()?) {
                    let (t, value) = sample?;
                    if range.contains(t) {
                        into.push((t, value.to_bits()));
                    }
                }
            }
            ChunkKind::Histogram => {}
        }
        Ok(())
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        let bytes = match &self.bytes {
            ChunkBytes::Memory(bytes) => bytes.len(),
            ChunkBytes::File(_) => size_of::<Place>(),
        };
        bytes + ARC_BYTES + ALLOCATION_BYTES + size_of::<Self>()
    }
}

/// The bits of the float at `t` of an XOR chunk.
pub(crate) fn float_at(chunk: &[u8], t: Timestamp) -> Option<u64> {
    let found = XorIter::new(chunk).map_while(Result::ok).find(|(at, _)| *at >= t);
    found.filter(|(at, _)| *at == t).map(|(_, value)| value.to_bits())
}

/// The histogram at `t` of a chunk of histograms.
pub(crate) fn histogram_at(chunk: &[u8], t: Timestamp) -> Option<Histogram> {
    let (mut timestamps, mut histograms) = (Vec::new(), Vec::new());
    decode_histograms_into(chunk, t, t, &mut timestamps, &mut histograms).ok()?;
    histograms.pop()
}

/// The chunk, of a sorted list without overlaps, in whose time `t` is.
pub(crate) fn chunk_at(chunks: &[ClosedChunk], t: Timestamp) -> Option<&ClosedChunk> {
    chunks.get(chunks.partition_point(|chunk| chunk.max() < t)).filter(|chunk| chunk.min() <= t)
}

/// Adds `chunks`, which ascend, behind `closed`; `None`, and nothing done, if they are not behind all of it and before
/// `open`, where there is an open chunk.
pub(crate) fn extend_closed(
    closed: &mut Vec<ClosedChunk>,
    chunks: Vec<ClosedChunk>,
    open: Option<Timestamp>,
) -> Option<()> {
    let (first, last) = (chunks.first()?.min(), chunks.last()?.max());
    let fits = closed.last().is_none_or(|known| known.max() < first) && open.is_none_or(|open| last < open);
    fits.then(|| closed.extend(chunks))
}

/// The chunks, of a sorted list without overlaps, that have something in `range`.
pub(crate) fn overlapping(chunks: &[ClosedChunk], range: TimeRange) -> &[ClosedChunk] {
    let from = chunks.partition_point(|chunk| chunk.max() < range.min);
    let to = chunks.partition_point(|chunk| chunk.min() <= range.max);
    let chunks = chunks.get(from..to).unwrap_or_default();
    debug_assert!(chunks.iter().all(|chunk| chunk.overlaps(range)));
    chunks
}

/// Of closed chunks as for [`overlapping`], and the bytes of an open one behind them that ends at `last`: what may have
/// something in `range`.
pub(crate) fn overlapping_with_open<'a>(
    closed: &'a [ClosedChunk],
    (open, last): (&'a [u8], Option<Timestamp>),
    range: TimeRange,
) -> (&'a [ClosedChunk], &'a [u8]) {
    if range.min > range.max {
        return (&[], &[]);
    }
    let open_after = closed.last().map_or(Timestamp::MIN, ClosedChunk::max);
    let wanted = last.is_some_and(|last| last >= range.min)
        && (open_after < range.max || open_after == Timestamp::MIN);
    (overlapping(closed, range), if wanted { open } else { &[] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_with_multiples() {
        for (t, min, max) in [
            (1, 1, WINDOW_MS),
            (WINDOW_MS, 1, WINDOW_MS),
            (WINDOW_MS + 1, WINDOW_MS + 1, 2 * WINDOW_MS),
            (0, 1 - WINDOW_MS, 0),
            (-1, 1 - WINDOW_MS, 0),
        ] {
            assert_eq!(window_of(t), TimeRange::new(min, max), "{t}");
        }
        for t in [i64::MIN, i64::MAX] {
            let window = window_of(t);
            assert!(window.min <= window.max, "{t}");
        }
    }
}
