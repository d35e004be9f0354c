//! The histograms of one series in order.

use chronolith_chunk::histogram::{HistogramAppender, HistogramIter};
use chronolith_model::{
    CounterResetHint, Histogram, TimeRange, Timestamp,
    histogram::{Layout, Span},
};

use super::{HISTOGRAM_CHUNK_BYTES_MAX, one};
use crate::{
    closed::{ClosedChunk, chunk_at, extend_closed, histogram_at, overlapping_with_open, window_end},
    read_back::Files,
    series::{Accounts, CHUNK_SAMPLES_MAX},
};

/// An open chunk and closed ones.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    open: Option<Open>,
    closed: Vec<ClosedChunk>,
}

/// A chunk that is still written to.
#[derive(Debug)]
pub(crate) struct Open {
    appender: HistogramAppender,
    bytes: Vec<u8>,
    min: Timestamp,
}

impl Open {
    fn begin(t: Timestamp, histogram: &Histogram, hint: CounterResetHint) -> Self {
        let mut bytes = Vec::new();
        let appender = one::begin(&mut bytes, t, histogram, hint);
        Self { appender, bytes, min: t }
    }

    /// Whether a sample at `t` needs another chunk, whatever it is.
    fn is_full(&self, t: Timestamp) -> bool {
        let large = self.appender.is_large(&self.bytes) || self.bytes.len() > HISTOGRAM_CHUNK_BYTES_MAX / 2;
        large || self.appender.count() >= CHUNK_SAMPLES_MAX || t > window_end(self.appender.last_timestamp())
    }

    /// Bytes of memory. The layout may be there twice: the last histogram has the one it was sent with.
    fn memory(&self) -> usize {
        self.bytes.capacity() + self.appender.heap_bytes() + 2 * layout_bytes(self.appender.last().layout())
    }

    fn range(&self) -> TimeRange {
        TimeRange::new(self.min, self.appender.last_timestamp())
    }
}

impl Lane {
    /// Adds a histogram behind the last one, to be read with `hint`.
    pub(super) fn push(
        &mut self,
        t: Timestamp,
        histogram: &Histogram,
        hint: CounterResetHint,
        accounts: &mut Accounts,
    ) {
        let before = self.open.as_ref().map_or(0, Open::memory);
        if let Some(open) = &mut self.open {
            // A chunk says of all but its first histogram that the one before it goes on.
            let goes_on = hint != CounterResetHint::Unknown || histogram.is_stale();
            let appended = goes_on
                && !open.is_full(t)
                && open
                    .appender
                    .append(&mut open.bytes, t, histogram)
                    .expect("closed long before it is full");
            if appended {
                accounts.resize_histograms((before, 0), (open.memory(), 0));
                return;
            }
        }
        let chunk = self.close();
        let closed = chunk.map_or((0, 0), |bytes| (bytes, 1));
        let open = self.open.insert(Open::begin(t, histogram, hint));
        accounts.resize_histograms((before, 0), (open.memory() + closed.0, closed.1));
    }

    /// Closes the open chunk, if there is one; bytes of the closed one.
    fn close(&mut self) -> Option<usize> {
        let open = self.open.take()?;
        let chunk = one::closed(&open.appender, open.min, &open.bytes);
        if self.closed.len() == self.closed.capacity() {
            self.closed.reserve_exact(if self.closed.len() < 4 { 1 } else { self.closed.len() / 4 });
        }
        let memory = chunk.memory();
        self.closed.push(chunk);
        Some(memory)
    }

    /// The newest histogram, as far as it is known without reading a chunk.
    pub(crate) fn last_histogram(&self) -> Option<&Histogram> {
        self.open.as_ref().map(|open| open.appender.last())
    }

    /// Timestamp of the newest histogram.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        match &self.open {
            Some(open) => Some(open.appender.last_timestamp()),
            None => self.closed.last().map(ClosedChunk::max),
        }
    }

    /// The histogram at `t`.
    pub(super) fn known(&self, t: Timestamp, files: Files<'_>) -> Option<Histogram> {
        if let Some(open) = self.open.as_ref().filter(|open| open.min <= t) {
            if open.appender.last_timestamp() == t {
                return Some(open.appender.last().clone());
            }
            let samples = HistogramIter::new(&open.bytes).ok()?;
            let found = samples.map_while(Result::ok).find(|(at, _)| *at >= t);
            return found.filter(|(at, _)| *at == t).map(|(_, histogram)| histogram);
        }
        files.look(chunk_at(&self.closed, t)?, |bytes| histogram_at(bytes, t))
    }

    /// The closed chunks, sorted.
    pub(crate) fn closed(&self) -> &[ClosedChunk] {
        &self.closed
    }

    pub(super) fn closed_mut(&mut self) -> &mut [ClosedChunk] {
        &mut self.closed
    }

    /// The bytes of the open chunk.
    pub(crate) fn open_bytes(&self) -> &[u8] {
        self.open.as_ref().map_or(&[], |open| &open.bytes)
    }

    /// The closed chunks that have something in `range`, and the bytes of the open chunk if it may.
    pub(crate) fn overlapping(&self, range: TimeRange) -> (&[ClosedChunk], &[u8]) {
        overlapping_with_open(&self.closed, (self.open_bytes(), self.last()), range)
    }

    /// The times of the chunks that have something in `range`.
    pub(crate) fn pieces(&self, range: TimeRange) -> impl Iterator<Item = TimeRange> {
        let (chunks, open) = self.overlapping(range);
        let open = self.open.as_ref().filter(|_| !open.is_empty()).map(Open::range);
        chunks.iter().map(ClosedChunk::range).chain(open)
    }

    /// How many histograms.
    pub(crate) fn count(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|chunk| chunk.count() as u64).sum();
        closed + self.open.as_ref().map_or(0, |open| open.appender.count() as u64)
    }

    /// Bytes of memory, without the entry itself.
    pub(super) fn bytes(&self) -> usize {
        let closed: usize = self.closed.iter().map(ClosedChunk::memory).sum();
        closed + self.open.as_ref().map_or(0, Open::memory)
    }

    /// Forgets chunks that lie wholly before `floor`, the open one too; says how many histograms that were.
    pub(super) fn truncate(&mut self, floor: Timestamp, accounts: &mut Accounts) -> u64 {
        let mut dropped = 0;
        let gone = self.closed.partition_point(|chunk| chunk.max() < floor);
        for chunk in self.closed.drain(..gone) {
            accounts.resize_histograms((chunk.memory(), 1), (0, 0));
            dropped += chunk.count() as u64;
        }
        if gone > 0 {
            self.closed.shrink_to(self.closed.len() + 1);
        }
        if let Some(open) = self.open.take_if(|open| open.appender.last_timestamp() < floor) {
            accounts.resize_histograms((open.memory(), 0), (0, 0));
            dropped += open.appender.count() as u64;
        }
        dropped
    }

    /// Takes a closed chunk away.
    pub(super) fn remove(&mut self, which: impl Fn(&ClosedChunk) -> bool) -> Option<ClosedChunk> {
        let at = self.closed.iter().position(which)?;
        Some(self.closed.remove(at))
    }

    /// Gives back the room at the end of the open chunk.
    pub(super) fn shrink(&mut self, accounts: &mut Accounts) {
        if let Some(open) = &mut self.open {
            let before = open.memory();
            open.bytes.shrink_to_fit();
            accounts.resize_histograms((before, 0), (open.memory(), 0));
        }
    }

    /// A lane of these chunks, the open one as [`reopen`] gives it; `None` if that is not behind the closed ones.
    pub(crate) fn of(closed: Vec<ClosedChunk>, open: Option<Open>) -> Option<Self> {
        let last = closed.last().map(ClosedChunk::max);
        open.as_ref().is_none_or(|open| last < Some(open.min)).then_some(Self { open, closed })
    }

    /// Adds chunks behind the closed ones; `None`, and nothing done, if they are not behind those and before the open one.
    pub(super) fn extend(&mut self, chunks: Vec<ClosedChunk>) -> Option<()> {
        extend_closed(&mut self.closed, chunks, self.open.as_ref().map(|open| open.min))
    }
}

/// An open chunk, written again sample by sample: its state is what was left out. `None` if `bytes` are not what an appender
/// writes, not in order, or not of one window.
pub(crate) fn reopen(bytes: &[u8]) -> Option<Open> {
    let mut samples = HistogramIter::new(bytes).ok()?;
    let (first, histogram) = samples.next()?.ok()?;
    let mut open = Open::begin(first, &histogram, histogram.hint());
    for sample in samples {
        let (t, histogram) = sample.ok()?;
        let fits = t > open.appender.last_timestamp() && t <= window_end(first);
        if !fits || !open.appender.append(&mut open.bytes, t, &histogram).ok()? {
            return None;
        }
    }
    (open.bytes == bytes).then_some(open)
}

/// Bytes of a layout, about.
fn layout_bytes(layout: &Layout) -> usize {
    let spans = layout.positive_spans().len() + layout.negative_spans().len();
    size_of::<Layout>() + spans * size_of::<Span>() + size_of_val(layout.custom_values())
}
