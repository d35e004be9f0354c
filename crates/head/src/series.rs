//! The state of one series: its open chunk and its closed chunks.

use chronolith_chunk::{SAMPLE_BYTES_MAX, XorAppender, XorIter};
use chronolith_model::{Sample, TimeRange, Timestamp};

use crate::{
    closed::{ChunkKind, ClosedChunk, chunk_at, extend_closed, float_at, overlapping_with_open, window_end},
    read_back::Files,
};

/// A chunk is closed at so many samples.
pub(crate) const CHUNK_SAMPLES_MAX: usize = 120;
/// A chunk is closed before it may grow beyond so many bytes.
pub(crate) const CHUNK_BYTES_MAX: usize = 1024;

/// The part of a series that each append touches: one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Series {
    appender: XorAppender,
    open: Vec<u8>,
    /// Number of the tenant, with [`Series::MIXED`] where there are histograms and [`Series::STARTED`] where there are start
    /// timestamps; [`Series::VACANT`] for a free slot.
    tenant: u32,
    /// The log's segment epoch in which the series was last defined; 0 = never.
    pub(crate) defined: u32,
}

const _: () = assert!(size_of::<Series>() == 64);

impl Series {
    const VACANT: u32 = u32::MAX;
    /// Beside the number of the tenant: the series has histograms, or had some until lately.
    const MIXED: u32 = 1 << 31;
    /// The series has start timestamps, or had some until lately.
    const STARTED: u32 = 1 << 30;

    pub(crate) const fn vacant() -> Self {
        Self { appender: XorAppender::new(), open: Vec::new(), tenant: Self::VACANT, defined: 0 }
    }

    /// Makes a vacant place a series of `tenant`.
    pub(crate) fn occupy(&mut self, tenant: u32) {
        debug_assert!(tenant < Self::STARTED);
        self.tenant = tenant;
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.tenant == Self::VACANT
    }

    /// The number of its tenant.
    #[inline]
    pub(crate) fn tenant(&self) -> u32 {
        self.tenant & !(Self::MIXED | Self::STARTED)
    }

    /// Whether it is a series that has floats alone, without starts: nothing but [`Series::offer`] is to be asked about a new
    /// one.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.tenant < Self::STARTED
    }

    /// Whether it has histograms, or had some until lately.
    #[inline]
    pub(crate) fn is_mixed(&self) -> bool {
        self.tenant & Self::MIXED != 0 && !self.is_vacant()
    }

    /// Notes whether it has histograms.
    pub(crate) fn set_mixed(&mut self, mixed: bool) {
        self.tenant = if mixed { self.tenant | Self::MIXED } else { self.tenant & !Self::MIXED };
    }

    /// Whether it has start timestamps, or had some until lately.
    #[inline]
    pub(crate) fn is_started(&self) -> bool {
        self.tenant & Self::STARTED != 0 && !self.is_vacant()
    }

    /// Notes whether it has start timestamps.
    pub(crate) fn set_started(&mut self, started: bool) {
        self.tenant = if started { self.tenant | Self::STARTED } else { self.tenant & !Self::STARTED };
    }

    /// Timestamp of the newest float.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        (self.appender.count() > 0).then(|| self.appender.last_timestamp())
    }

    /// The newest float.
    pub(crate) fn last_sample(&self) -> Option<Sample> {
        let value = f64::from_bits(self.appender.last_value_bits());
        self.last().map(|timestamp| Sample::new(timestamp, value))
    }

    /// Reads what an append will need; a pass of these over many series lets their cache misses overlap.
    #[inline]
    pub(crate) fn touch(&self) -> u8 {
        self.open.first().copied().unwrap_or(0) ^ self.open.last().copied().unwrap_or(0)
    }

    /// Takes a float if it is newer than the newest and than `cut`, else says no. `accounts` are those of the shard. Of a
    /// series with histograms, [`crate::offer::SeriesMut`] is to be asked.
    // Always: the call is a twentieth of an append.
    #[inline(always)]
    pub(crate) fn offer(
        &mut self,
        closed: &mut Vec<ClosedChunk>,
        t: Timestamp,
        bits: u64,
        cut: Timestamp,
        accounts: &mut Accounts,
    ) -> bool {
        if t <= cut {
            return false;
        }
        let count = self.appender.count();
        if count > 0 {
            let last = self.appender.last_timestamp();
            if t <= last {
                return false;
            }
            if count >= CHUNK_SAMPLES_MAX
                || t > window_end(last)
                || self.open.len() > CHUNK_BYTES_MAX - SAMPLE_BYTES_MAX
            {
                self.close(closed, accounts);
            }
        }
        let before = self.open.capacity();
        self.appender
            .append(&mut self.open, t, f64::from_bits(bits))
            .expect("closed long before a chunk is full");
        accounts.grow(self.open.capacity() - before);
        accounts.samples += 1;
        true
    }

    /// The bits of the value at `t`.
    #[cold]
    pub(crate) fn known(&self, closed: &[ClosedChunk], t: Timestamp, files: Files<'_>) -> Option<u64> {
        let last = self.last()?;
        if t >= last {
            return (t == last).then(|| self.appender.last_value_bits());
        }
        // At most one chunk is looked into, and it is short.
        if closed.last().is_none_or(|chunk| chunk.max() < t) {
            return float_at(&self.open, t);
        }
        files.look(chunk_at(closed, t)?, |bytes| float_at(bytes, t))
    }

    #[cold]
    fn close(&mut self, closed: &mut Vec<ClosedChunk>, accounts: &mut Accounts) {
        let first = XorIter::new(&self.open).next();
        let max = self.appender.last_timestamp();
        let min = first.and_then(Result::ok).map_or(max, |(t, _)| t);
        let chunk = ClosedChunk::new(ChunkKind::Float, min, max, self.appender.count(), &self.open);
        if closed.len() == closed.capacity() {
            closed.reserve_exact(if closed.len() < 4 { 1 } else { closed.len() / 4 });
        }
        accounts.grow(chunk.memory());
        accounts.chunks += 1;
        closed.push(chunk);
        accounts.shrink(self.open.capacity());
        self.open = Vec::new();
        self.appender = XorAppender::new();
    }

    /// Forgets chunks that lie wholly before `floor`, the open one too; says how many samples that were.
    pub(crate) fn truncate(
        &mut self,
        closed: &mut Vec<ClosedChunk>,
        floor: Timestamp,
        accounts: &mut Accounts,
    ) -> u64 {
        let mut dropped = 0;
        let gone = closed.partition_point(|chunk| chunk.max() < floor);
        for chunk in closed.drain(..gone) {
            accounts.shrink(chunk.memory());
            accounts.chunks -= 1;
            dropped += chunk.count() as u64;
        }
        if gone > 0 {
            closed.shrink_to(closed.len() + 1);
        }
        if self.last().is_some_and(|last| last < floor) {
            dropped += self.appender.count() as u64;
            accounts.shrink(self.open.capacity());
            self.open = Vec::new();
            self.appender = XorAppender::new();
        }
        dropped
    }

    /// Gives back the room at the end of the open chunk of a series that has gone quiet.
    pub(crate) fn shrink(&mut self, accounts: &mut Accounts) {
        let before = self.open.capacity();
        if before - self.open.len() >= 16 {
            self.open.shrink_to_fit();
            accounts.shrink(before - self.open.capacity());
        }
    }

    /// Frees the slot.
    pub(crate) fn vacate(&mut self, closed: &mut Vec<ClosedChunk>, accounts: &mut Accounts) {
        for chunk in std::mem::take(closed) {
            accounts.shrink(chunk.memory());
            accounts.chunks -= 1;
        }
        accounts.shrink(self.open.capacity());
        *self = Self::vacant();
    }

    /// The closed chunks that have something in `range`, and the bytes of the open chunk if it may.
    pub(crate) fn overlapping<'a>(
        &'a self,
        closed: &'a [ClosedChunk],
        range: TimeRange,
    ) -> (&'a [ClosedChunk], &'a [u8]) {
        overlapping_with_open(closed, (&self.open, self.last()), range)
    }

    /// The open chunk.
    pub(crate) fn open_bytes(&self) -> &[u8] {
        &self.open
    }

    /// Takes the last bytes of the open chunk; whether there were some.
    #[cfg(feature = "test-support")]
    pub(crate) fn cut_short(&mut self) -> bool {
        let whole = self.open.len();
        self.open.truncate(whole.saturating_sub(12));
        self.open.len() + 12 == whole
    }

    /// Gives a series without samples what it had before: closed chunks, and the samples of the open one.
    pub(crate) fn restore(
        &mut self,
        closed: &mut Vec<ClosedChunk>,
        chunks: Vec<ClosedChunk>,
        (appender, open): (XorAppender, Vec<u8>),
        accounts: &mut Accounts,
    ) {
        for chunk in &chunks {
            accounts.grow(chunk.memory());
            accounts.chunks += 1;
            accounts.samples += chunk.count() as u64;
        }
        *closed = chunks;
        accounts.grow(open.capacity());
        accounts.samples += appender.count() as u64;
        (self.appender, self.open) = (appender, open);
    }

    /// Adds chunks behind the closed ones; `None`, and nothing done, if they are not behind those and before the open one.
    pub(crate) fn extend(
        &self,
        closed: &mut Vec<ClosedChunk>,
        chunks: Vec<ClosedChunk>,
        accounts: &mut Accounts,
    ) -> Option<()> {
        let known = closed.len();
        extend_closed(closed, chunks, self.open_range().map(|range| range.min))?;
        for chunk in closed.iter().skip(known) {
            accounts.grow(chunk.memory());
            accounts.chunks += 1;
            accounts.samples += chunk.count() as u64;
        }
        Some(())
    }

    /// The first and the last timestamp of the open chunk.
    pub(crate) fn open_range(&self) -> Option<TimeRange> {
        let first = XorIter::new(&self.open).next()?.ok()?.0;
        Some(TimeRange::new(first, self.appender.last_timestamp()))
    }

    /// Timestamp of the oldest sample.
    #[cfg(test)]
    pub(crate) fn first(&self, closed: &[ClosedChunk]) -> Option<Timestamp> {
        match closed.first() {
            Some(chunk) => Some(chunk.min()),
            None => XorIter::new(&self.open).next()?.ok().map(|(t, _)| t),
        }
    }
}

/// What a shard holds, counted as it changes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accounts {
    /// Bytes of chunks, open and closed, of late samples and of start timestamps.
    pub(crate) bytes: usize,
    /// Closed chunks of samples in order.
    pub(crate) chunks: usize,
    /// Bytes of histograms, part of `bytes`; those of late ones are not in it.
    pub(crate) histogram_bytes: usize,
    /// Closed chunks of histograms in order, part of `chunks`.
    pub(crate) histogram_chunks: usize,
    /// Samples ever stored, late ones included.
    pub(crate) samples: u64,
    /// Samples dropped with their chunks by retention or for want of memory.
    pub(crate) dropped: u64,
    /// Samples that went when a cut was finished.
    pub(crate) cut: u64,
    /// Histograms ever stored, part of `samples`.
    pub(crate) histograms: u64,
    /// Late samples ever stored.
    pub(crate) late: u64,
    /// Bytes of late samples, part of `bytes`.
    pub(crate) late_bytes: usize,
    /// Closed chunks of late samples.
    pub(crate) late_chunks: usize,
}

impl Accounts {
    /// A chunk takes so many bytes `now`, instead of those `before`.
    pub(crate) fn spilled(&mut self, before: usize, now: usize) {
        self.bytes = self.bytes + now - before;
    }

    /// Something takes so many bytes `now`, instead of those `before`.
    pub(crate) fn resize(&mut self, before: usize, now: usize) {
        self.bytes = self.bytes + now - before;
    }

    pub(crate) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(crate) fn shrink(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Histograms in order take so many bytes and closed chunks `now`, instead of those `before`.
    pub(crate) fn resize_histograms(&mut self, before: (usize, usize), now: (usize, usize)) {
        self.bytes = self.bytes + now.0 - before.0;
        self.histogram_bytes = self.histogram_bytes + now.0 - before.0;
        self.chunks = self.chunks + now.1 - before.1;
        self.histogram_chunks = self.histogram_chunks + now.1 - before.1;
    }

    /// Late samples take so many bytes and chunks `now`, instead of those `before`.
    pub(crate) fn resize_late(&mut self, before: (usize, usize), now: (usize, usize)) {
        self.bytes = self.bytes + now.0 - before.0;
        self.late_bytes = self.late_bytes + now.0 - before.0;
        self.late_chunks = self.late_chunks + now.1 - before.1;
    }
}

#[cfg(test)]
mod tests;
