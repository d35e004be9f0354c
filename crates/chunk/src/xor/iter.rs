//! Reading sample by sample.

use chronolith_codec::{BitReader, Reader};

use super::sample_count;
use crate::{Error, Result};

/// Iterates over the samples of a chunk: `(timestamp in ms, value)`. Ends after the first error.
#[derive(Clone, Debug)]
pub struct XorIter<'a> {
    state: State,
    rest: Rest<'a>,
    read: usize,
    count: usize,
}

/// The part of a chunk not yet read: two samples in whole bytes, then bits.
#[derive(Clone, Debug)]
enum Rest<'a> {
    Bytes(Reader<'a>),
    Bits(BitReader<'a>),
    Failed,
}

/// What the next sample is relative to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    pub(super) t: i64,
    pub(super) delta: u64,
    pub(super) bits: u64,
    pub(super) leading: u32,
    pub(super) significant: u32,
}

impl State {
    /// Reads one sample of the steady kind; what it read past the end is zeros.
    #[inline(always)]
    pub(super) fn step(&mut self, bits: &mut BitReader<'_>) {
        let word = bits.peek();
        let used = self.step_time(bits, word);
        if used == 0 {
            let word = bits.peek();
            self.step_value(bits, word, 0);
        } else {
            self.step_value(bits, word << used, used);
        }
    }

    /// Reads a delta of delta from the topmost bits of `word`, and returns its length in bits, to be skipped together
    /// with what follows; 0 if it was long and has been skipped.
    #[inline(always)]
    fn step_time(&mut self, bits: &mut BitReader<'_>, word: u64) -> u32 {
        let used = match (!word).leading_zeros() {
            0 => 1,
            1 => self.add_dod(word << 2, 14) + 2,
            2 => self.add_dod(word << 3, 17) + 3,
            3 => self.add_dod(word << 4, 20) + 4,
            _ => {
                bits.skip(4);
                self.delta = self.delta.wrapping_add(bits.take(64));
                0
            }
        };
        self.t = self.t.wrapping_add(self.delta as i64);
        used
    }

    /// Adds the delta of delta in the topmost `n` bits, `-(2^(n-1)-1) ..= 2^(n-1)`, and returns `n`.
    #[inline(always)]
    fn add_dod(&mut self, top: u64, n: u32) -> u32 {
        let raw = (top >> (64 - n)) as i64;
        let dod = if raw > 1 << (n - 1) { raw - (1 << n) } else { raw };
        self.delta = self.delta.wrapping_add(dod as u64);
        n
    }

    /// Reads a value; `word` has its first bits topmost (at least 33 real ones), `before` bits precede it unskipped.
    #[inline(always)]
    pub(super) fn step_value(&mut self, bits: &mut BitReader<'_>, word: u64, before: u32) {
        if word >> 63 == 0 {
            bits.skip(before + 1);
            return;
        }
        let header = if word >> 62 == 0b10 {
            2
        } else {
            self.leading = (word >> 57) as u32 & 0x1f;
            // Six bits hold 1 to 64, with 64 written as 0.
            self.significant = (((word >> 51) as u32).wrapping_sub(1) & 0x3f) + 1;
            13
        };
        let used = before + header;
        // Damaged bytes may claim more than 64 bits for both, or reuse a window that never was.
        let trailing = 64_u32.saturating_sub(self.leading + self.significant);
        let xor = if used + self.significant <= BitReader::PEEK_BITS && self.significant > 0 {
            bits.skip(used + self.significant);
            word << header >> (64 - self.significant)
        } else {
            bits.skip(used);
            bits.take(self.significant)
        };
        self.bits ^= xor << trailing.min(63);
    }
}

impl<'a> XorIter<'a> {
    /// Iterates over `chunk`.
    #[must_use]
    pub fn new(chunk: &'a [u8]) -> Self {
        let rest = chunk.get(2..).unwrap_or_default();
        Self {
            state: State::default(),
            rest: Rest::Bytes(Reader::new(rest)),
            read: 0,
            count: sample_count(chunk),
        }
    }

    /// How many samples the chunk says it has, those already read included.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    fn read_next(&mut self) -> Result<(i64, f64), chronolith_codec::Error> {
        if let Rest::Bytes(reader) = &mut self.rest {
            if self.read == 0 {
                self.state.t = reader.varint("first timestamp")?;
                self.state.bits = reader.u64_be("first value")?;
                return Ok((self.state.t, f64::from_bits(self.state.bits)));
            }
            self.state.delta = reader.uvarint("first delta")?;
            self.state.t = self.state.t.wrapping_add(self.state.delta as i64);
            let mut bits = BitReader::new(reader.rest());
            let word = bits.peek();
            self.state.step_value(&mut bits, word, 0);
            bits.check("second value")?;
            self.rest = Rest::Bits(bits);
        } else if let Rest::Bits(bits) = &mut self.rest {
            self.state.step(bits);
            bits.check("sample")?;
        }
        Ok((self.state.t, f64::from_bits(self.state.bits)))
    }
}

impl Iterator for XorIter<'_> {
    type Item = Result<(i64, f64)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.read >= self.count || matches!(self.rest, Rest::Failed) {
            return None;
        }
        match self.read_next() {
            Ok(sample) => {
                self.read += 1;
                Some(Ok(sample))
            }
            Err(source) => {
                self.rest = Rest::Failed;
                Some(Err(Error::Damaged { sample: self.read, count: self.count, source }))
            }
        }
    }
}
