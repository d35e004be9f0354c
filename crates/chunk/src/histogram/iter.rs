//! Reading.

use std::sync::Arc;

use chronolith_codec::{BitReader, Reader};
use chronolith_model::histogram::{CounterResetHint, Histogram};

use super::layout::take_layout;
use super::state::State;
use super::{CHUNK, Encoding, HEADER, hint_of};
use crate::{Error, Result};

/// Iterates over the samples of a chunk of histograms: `(timestamp in ms, histogram)`. All share one layout. Ends after
/// the first error. Memory is bounded by the bytes of the chunk: a bucket takes at least a bit.
#[derive(Clone, Debug)]
pub struct HistogramIter<'a> {
    bits: BitReader<'a>,
    encoding: Encoding,
    layout: Arc<chronolith_model::histogram::Layout>,
    state: Option<State>,
    hint: CounterResetHint,
    read: usize,
    count: usize,
    failed: bool,
}

impl<'a> HistogramIter<'a> {
    /// Iterates over `chunk`.
    ///
    /// # Errors
    /// When the chunk's header or layout is damaged, or it is no chunk of histograms.
    pub fn new(chunk: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(chunk);
        let unreadable = |source| Error::Unreadable { unit: CHUNK, source };
        let encoding = reader.u8("encoding").map_err(unreadable)?;
        let count = usize::from(reader.u16_be("number of samples").map_err(unreadable)?);
        let flags = reader.u8("flags").map_err(unreadable)?;
        let Some(encoding) = Encoding::from_byte(encoding) else {
            let expected = "encoding 2 or 3";
            return Err(Error::Invalid { unit: CHUNK, off: 0, expected, got: u64::from(encoding) });
        };
        if flags & 0x3f != 0 {
            return Err(Error::Invalid {
                unit: CHUNK,
                off: 3,
                expected: "known flags",
                got: u64::from(flags),
            });
        }
        let mut bits = BitReader::new(reader.rest());
        let layout = Arc::new(take_layout(&mut bits, HEADER)?);
        let hint = hint_of(flags >> 6);
        Ok(Self { bits, encoding, layout, state: None, hint, read: 0, count, failed: false })
    }

    /// How many samples the chunk says it has, those already read included.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// What its samples count in.
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn read_next(&mut self) -> Result<(i64, Histogram)> {
        // As many bits must be there as the shortest sample with these buckets has; it may be a stale marker, though.
        let invalid = |off| Error::Invalid { unit: CHUNK, off, expected: "a histogram before it", got: 0 };
        let hint = match self.hint {
            hint if self.read == 0 => hint,
            CounterResetHint::Gauge => CounterResetHint::Gauge,
            _ => CounterResetHint::NotReset,
        };
        if let Some(state) = &mut self.state {
            let taken = state.take_next(&mut self.bits);
            self.check()?;
            taken.ok_or_else(|| invalid(HEADER + self.bits.position() / 8))?;
        } else {
            if self.layout.len() > self.bits.left() {
                self.bits.skip(u32::MAX);
                self.check()?;
            }
            let state = State::take_first(&mut self.bits, self.encoding, Arc::clone(&self.layout));
            self.check()?;
            self.state = Some(state);
        }
        let off = HEADER + self.bits.position() / 8;
        let state = self.state.as_ref().ok_or_else(|| invalid(off))?;
        let histogram = state.histogram(hint).ok_or_else(|| invalid(off))?;
        Ok((state.timestamp(), histogram))
    }

    fn check(&self) -> Result<()> {
        let damaged = |source| Error::Damaged { sample: self.read, count: self.count, source };
        self.bits.check("histogram").map_err(damaged)
    }
}

impl Iterator for HistogramIter<'_> {
    type Item = Result<(i64, Histogram)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.read >= self.count {
            return None;
        }
        let next = self.read_next();
        self.failed = next.is_err();
        self.read += 1;
        Some(next)
    }
}

/// Appends the samples of `chunk` with `min <= timestamp <= max` to `timestamps` (ms) and `histograms`; returns how many.
/// Timestamps of the chunk must ascend: reading stops after the first one beyond `max`, and damage after it goes
/// unnoticed.
///
/// # Errors
/// When the chunk is damaged; both vectors are then as before.
pub fn decode_histograms_into(
    chunk: &[u8],
    min: i64,
    max: i64,
    timestamps: &mut Vec<i64>,
    histograms: &mut Vec<Histogram>,
) -> Result<usize> {
    let before = timestamps.len();
    for sample in HistogramIter::new(chunk)? {
        match sample {
            Ok((t, _)) if t > max => break,
            Ok((t, histogram)) if t >= min => {
                timestamps.push(t);
                histograms.push(histogram);
            }
            Ok(_) => {}
            Err(error) => {
                histograms.truncate(histograms.len() - (timestamps.len() - before));
                timestamps.truncate(before);
                return Err(error);
            }
        }
    }
    Ok(timestamps.len() - before)
}
