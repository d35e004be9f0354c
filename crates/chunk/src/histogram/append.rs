//! Appending.

use std::sync::Arc;

use chronolith_codec::BitBuf;
use chronolith_model::histogram::{CounterResetHint, Histogram};

use super::layout::put_layout;
use super::state::State;
use super::{CHUNK_BYTES_TARGET, CHUNK_SAMPLES_MIN, Encoding, hint_bits};
use crate::{Error, Result, SAMPLES_MAX};

/// The state of an open chunk of histograms; the chunk's bytes stay with the caller and are a whole, readable chunk
/// after each append.
///
/// A chunk holds samples of one kind and layout that go on from each other, or that are all gauges; a stale marker may
/// end it. What comes back has the hint that the appender found: of the first sample as [`Histogram::hint_after`] says,
/// of the others that they go on (or are gauges), of a stale marker none.
#[derive(Clone, Debug)]
pub struct HistogramAppender {
    state: State,
    last: Histogram,
    hint: CounterResetHint,
    count: u16,
    end: BitBuf,
}

impl HistogramAppender {
    /// Writes a new chunk of one sample into `chunk`, whose former content is dropped. `previous` is the histogram
    /// before it in its series, if that is known; it decides the hint that is written.
    #[must_use]
    pub fn start(chunk: &mut Vec<u8>, t: i64, histogram: &Histogram, previous: Option<&Histogram>) -> Self {
        let hint = histogram.hint_after(previous);
        let encoding = if histogram.is_float() { Encoding::Float } else { Encoding::Integer };
        chunk.clear();
        chunk.extend_from_slice(&[encoding as u8, 0, 1, hint_bits(hint) << 6]);
        let mut end = BitBuf::aligned();
        put_layout(&mut end, chunk, histogram.layout());
        let state = State::put_first(&mut end, chunk, t, histogram);
        let mut last = histogram.clone();
        last.set_hint(hint);
        Self { state, last, hint, count: 1, end }
    }

    /// Appends a sample to `chunk`, which must hold what this appender has written and nothing else. `false` if it needs
    /// a chunk of its own, which is then begun with [`HistogramAppender::start`] behind [`HistogramAppender::last`]:
    /// another kind or layout, a counter reset, gauge behind counter or counter behind gauge, anything behind a stale
    /// marker. Timestamps may come in any order; ascending ones by equal steps cost least.
    ///
    /// # Errors
    /// [`Error::Full`] after [`SAMPLES_MAX`] samples; nothing is changed.
    pub fn append(&mut self, chunk: &mut Vec<u8>, t: i64, histogram: &Histogram) -> Result<bool> {
        if usize::from(self.count) >= SAMPLES_MAX {
            return Err(Error::Full);
        }
        if !self.continues(histogram) {
            return Ok(false);
        }
        self.state.put_next(&mut self.end, chunk, t, histogram);
        self.last = histogram.clone();
        self.last.set_hint(self.next_hint(histogram));
        self.count += 1;
        if let Some([_, high, low, ..]) = chunk.first_chunk_mut::<3>() {
            [*high, *low] = self.count.to_be_bytes();
        }
        Ok(true)
    }

    fn continues(&self, histogram: &Histogram) -> bool {
        if self.state.is_stale() {
            return false;
        }
        let same_layout = || {
            histogram.is_float() == self.last.is_float()
                && (Arc::ptr_eq(histogram.layout(), &self.state.layout)
                    || *histogram.layout() == self.state.layout)
        };
        let gauge = self.hint == CounterResetHint::Gauge;
        histogram.is_stale()
            || same_layout()
                && match histogram.hint_after(Some(&self.last)) {
                    CounterResetHint::Gauge => gauge,
                    CounterResetHint::NotReset => !gauge,
                    CounterResetHint::Reset | CounterResetHint::Unknown => false,
                }
    }

    const fn next_hint(&self, histogram: &Histogram) -> CounterResetHint {
        match self.hint {
            _ if histogram.is_stale() => CounterResetHint::Unknown,
            CounterResetHint::Gauge => CounterResetHint::Gauge,
            _ => CounterResetHint::NotReset,
        }
    }

    /// How many samples the chunk has.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// The timestamp of the last sample, milliseconds.
    #[must_use]
    pub const fn last_timestamp(&self) -> i64 {
        self.state.timestamp()
    }

    /// The last sample, with the hint it will be read with.
    #[must_use]
    pub const fn last(&self) -> &Histogram {
        &self.last
    }

    /// Whether the chunk is as large as is worth while; `chunk` are its bytes.
    #[must_use]
    pub fn is_large(&self, chunk: &[u8]) -> bool {
        usize::from(self.count) >= CHUNK_SAMPLES_MIN && chunk.len() >= CHUNK_BYTES_TARGET
    }

    /// Bytes on the heap, about, without the layout, which is shared.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.last.heap_bytes() * 3
    }
}
