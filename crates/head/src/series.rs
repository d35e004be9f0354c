//! The state of one series: its open chunk and its closed chunks.

use std::{mem::size_of, sync::Arc};

use chronolith_chunk::{SAMPLE_BYTES_MAX, XorAppender, XorIter, decode_range_into};
use chronolith_model::{Sample, Timestamp};

/// A chunk is closed at so many samples.
pub(crate) const CHUNK_SAMPLES_MAX: usize = 120;
/// A chunk is closed before it may grow beyond so many bytes.
pub(crate) const CHUNK_BYTES_MAX: usize = 1024;
/// A chunk never crosses a multiple of this, in milliseconds.
pub(crate) const CHUNK_RANGE_MS: i64 = 2 * 3600 * 1000;

/// What an allocation costs beyond its bytes, about.
const ALLOCATION_BYTES: usize = 8;
/// The counters of an `Arc`.
const ARC_BYTES: usize = 16;

/// The part of a series that each append touches: one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Series {
    appender: XorAppender,
    open: Vec<u8>,
    /// Number of the tenant, [`Series::VACANT`] for a free slot.
    pub(crate) tenant: u32,
    /// The log's segment epoch in which the series was last defined; 0 = never.
    pub(crate) defined: u32,
}

const _: () = assert!(size_of::<Series>() == 64);

/// A finished chunk. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ClosedChunk {
    min: Timestamp,
    /// Last timestamp less the first: below [`CHUNK_RANGE_MS`].
    span: u32,
    count: u32,
    bytes: Arc<[u8]>,
}

impl ClosedChunk {
    pub(crate) fn max(&self) -> Timestamp {
        self.min + i64::from(self.span)
    }

    /// Appends its samples inside `[min, max]`.
    pub(crate) fn read(
        &self,
        min: Timestamp,
        max: Timestamp,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> chronolith_chunk::Result<usize> {
        decode_range_into(&self.bytes, min, max, timestamps, values)
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.len() + ARC_BYTES + ALLOCATION_BYTES + size_of::<Self>()
    }

    fn overlaps(&self, min: Timestamp, max: Timestamp) -> bool {
        self.min <= max && min <= self.max()
    }
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stored,
    /// The same sample is there.
    Duplicate,
    /// The newest sample has that timestamp and a value of these bits.
    Conflict(u64),
    OutOfOrder,
}

impl Series {
    pub(crate) const VACANT: u32 = u32::MAX;

    pub(crate) const fn vacant() -> Self {
        Self { appender: XorAppender::new(), open: Vec::new(), tenant: Self::VACANT, defined: 0 }
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.tenant == Self::VACANT
    }

    /// Timestamp of the newest sample.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        (self.appender.count() > 0).then(|| self.appender.last_timestamp())
    }

    /// The newest sample.
    pub(crate) fn last_sample(&self) -> Option<Sample> {
        let value = f64::from_bits(self.appender.last_value_bits());
        self.last().map(|timestamp| Sample::new(timestamp, value))
    }

    /// Reads what an append will need; a pass of these over many series lets their cache misses overlap.
    #[inline]
    pub(crate) fn touch(&self) -> u8 {
        self.open.first().copied().unwrap_or(0) ^ self.open.last().copied().unwrap_or(0)
    }

    /// Takes a sample, if the order of the series allows. `accounts` are those of the shard.
    #[inline]
    pub(crate) fn offer(
        &mut self,
        closed: &mut Vec<ClosedChunk>,
        t: Timestamp,
        bits: u64,
        accounts: &mut Accounts,
    ) -> Verdict {
        let count = self.appender.count();
        if count > 0 {
            let last = self.appender.last_timestamp();
            if t <= last {
                return self.compare(closed, t, bits);
            }
            if count >= CHUNK_SAMPLES_MAX
                || t.div_euclid(CHUNK_RANGE_MS) != last.div_euclid(CHUNK_RANGE_MS)
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
        Verdict::Stored
    }

    /// What becomes of a sample that is not newer than the newest.
    #[cold]
    fn compare(&self, closed: &[ClosedChunk], t: Timestamp, bits: u64) -> Verdict {
        if t == self.appender.last_timestamp() {
            let existing = self.appender.last_value_bits();
            return if existing == bits { Verdict::Duplicate } else { Verdict::Conflict(existing) };
        }
        let after = closed.partition_point(|chunk| chunk.max() < t);
        let bytes = match closed.get(after) {
            Some(chunk) => &chunk.bytes,
            None => &*self.open,
        };
        // At most one chunk is read, and it is short.
        let known = XorIter::new(bytes).map_while(Result::ok).find(|(at, _)| *at >= t);
        match known {
            Some((at, value)) if at == t && value.to_bits() == bits => Verdict::Duplicate,
            _ => Verdict::OutOfOrder,
        }
    }

    fn close(&mut self, closed: &mut Vec<ClosedChunk>, accounts: &mut Accounts) {
        let first = XorIter::new(&self.open).next();
        let max = self.appender.last_timestamp();
        let min = first.and_then(Result::ok).map_or(max, |(t, _)| t);
        let chunk = ClosedChunk {
            min,
            span: u32::try_from(max - min).expect("a chunk is inside one chunk range"),
            count: u32::try_from(self.appender.count()).expect("a chunk has few samples"),
            bytes: Arc::from(&*self.open),
        };
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

    /// Forgets chunks that lie wholly before `floor`; the open one too.
    pub(crate) fn truncate(
        &mut self,
        closed: &mut Vec<ClosedChunk>,
        floor: Timestamp,
        accounts: &mut Accounts,
    ) {
        let gone = closed.partition_point(|chunk| chunk.max() < floor);
        for chunk in closed.drain(..gone) {
            accounts.shrink(chunk.memory());
            accounts.chunks -= 1;
            accounts.dropped += u64::from(chunk.count);
        }
        if gone > 0 {
            closed.shrink_to(closed.len() + 1);
        }
        if self.last().is_some_and(|last| last < floor) {
            accounts.dropped += self.appender.count() as u64;
            accounts.shrink(self.open.capacity());
            self.open = Vec::new();
            self.appender = XorAppender::new();
        }
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

    /// The closed chunks that have something in `[min, max]`, and the bytes of the open chunk if it may.
    pub(crate) fn overlapping<'a>(
        &'a self,
        closed: &'a [ClosedChunk],
        min: Timestamp,
        max: Timestamp,
    ) -> (&'a [ClosedChunk], &'a [u8]) {
        let from = closed.partition_point(|chunk| chunk.max() < min);
        let to = closed.partition_point(|chunk| chunk.min <= max);
        let chunks = closed.get(from..to).unwrap_or_default();
        debug_assert!(chunks.iter().all(|chunk| chunk.overlaps(min, max)));
        let open_after = closed.last().map_or(Timestamp::MIN, ClosedChunk::max);
        let wanted =
            self.last().is_some_and(|last| last >= min) && (open_after < max || open_after == Timestamp::MIN);
        (chunks, if wanted { &self.open } else { &[] })
    }

    /// Timestamp of the oldest sample.
    #[cfg(test)]
    pub(crate) fn first(&self, closed: &[ClosedChunk]) -> Option<Timestamp> {
        match closed.first() {
            Some(chunk) => Some(chunk.min),
            None => XorIter::new(&self.open).next()?.ok().map(|(t, _)| t),
        }
    }
}

/// What a shard holds, counted as it changes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accounts {
    /// Bytes of chunks, open and closed.
    pub(crate) bytes: usize,
    /// Closed chunks.
    pub(crate) chunks: usize,
    /// Samples ever stored.
    pub(crate) samples: u64,
    /// Samples dropped with their chunks.
    pub(crate) dropped: u64,
}

impl Accounts {
    fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    fn shrink(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }
}

#[cfg(test)]
mod tests;
