//! Bits in and out, most significant first.

use crate::{Error, Result};

/// Reads bits of a slice. Holds no buffer: each read is one unaligned load of 64 bits.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> BitReader<'a> {
    /// How many bits [`BitReader::peek`] is good for at any position.
    pub const PEEK_BITS: u32 = 57;

    /// A reader at the first bit of `bytes`.
    #[inline]
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    /// The next bits, the next one topmost; at least [`BitReader::PEEK_BITS`] of them, zeros after the end.
    #[inline]
    #[must_use]
    pub fn peek(&self) -> u64 {
        let byte = self.pos >> 3;
        let word = match self.bytes.get(byte..).and_then(<[u8]>::first_chunk::<8>) {
            Some(eight) => u64::from_be_bytes(*eight),
            None => self.peek_tail(byte),
        };
        word << (self.pos & 7)
    }

    #[cold]
    fn peek_tail(&self, byte: usize) -> u64 {
        let mut eight = [0; 8];
        for (to, from) in eight.iter_mut().zip(self.bytes.get(byte..).unwrap_or_default()) {
            *to = *from;
        }
        u64::from_be_bytes(eight)
    }

    /// Moves on by `n` bits, past the end too: call [`BitReader::check`] before trusting what was read.
    #[inline]
    pub fn skip(&mut self, n: u32) {
        self.pos = self.pos.saturating_add(n as usize);
    }

    /// Reads `n` bits, 0 to 64, zeros after the end: call [`BitReader::check`] before trusting them.
    #[inline]
    pub fn take(&mut self, n: u32) -> u64 {
        if n == 0 {
            return 0;
        }
        if n <= Self::PEEK_BITS {
            let value = self.peek() >> (64 - n.min(64));
            self.skip(n);
            return value;
        }
        let high = self.peek() >> 32;
        self.skip(32);
        let rest = n.min(64) - 32;
        let low = self.peek() >> (64 - rest);
        self.skip(rest);
        (high << rest) | low
    }

    /// Reads `n` bits, 0 to 64.
    #[inline]
    pub fn read(&mut self, n: u32, expected: &'static str) -> Result<u64> {
        let value = self.take(n);
        self.check(expected)?;
        Ok(value)
    }

    /// Fails if more was read than there is.
    #[inline]
    pub fn check(&self, expected: &'static str) -> Result<()> {
        if self.pos > self.bytes.len().saturating_mul(8) {
            return Err(self.overrun(expected));
        }
        Ok(())
    }

    #[cold]
    fn overrun(&self, expected: &'static str) -> Error {
        let have = self.bytes.len();
        Error::Truncated { off: have, expected, need: self.pos.div_ceil(8) - have, have: 0 }
    }

    /// How many bits have not been read.
    #[inline]
    #[must_use]
    pub const fn left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.pos)
    }

    /// The position of the next bit.
    #[inline]
    #[must_use]
    pub const fn position(&self) -> usize {
        self.pos
    }
}

/// Where bits end inside a byte buffer that the caller keeps: one byte of state.
///
/// Invariant: the unused low bits of the buffer's last byte are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BitBuf {
    /// Unused bits of the last byte, 0 to 7.
    free: u8,
}

impl BitBuf {
    /// Bits begin at the end of the buffer, on a byte boundary.
    #[must_use]
    pub const fn aligned() -> Self {
        Self { free: 0 }
    }

    /// Appends the low `n` bits of `value`, 0 to 64. Grows `out` by what is needed, never exactly.
    #[inline]
    pub fn put(&mut self, out: &mut Vec<u8>, value: u64, n: u32) {
        let n = n.min(64);
        if n == 0 {
            return;
        }
        let value = if n == 64 { value } else { value & ((1 << n) - 1) };
        let free = u32::from(self.free);
        if n <= free {
            if let Some(last) = out.last_mut() {
                *last |= (value as u8) << (free - n);
            }
            self.free = (free - n) as u8;
            return;
        }
        let rest = n - free;
        if free > 0
            && let Some(last) = out.last_mut()
        {
            *last |= (value >> rest) as u8;
        }
        // The remaining bits, topmost first; `rest` is at least 1.
        let top = (value << (64 - rest)).to_be_bytes();
        let bytes = rest.div_ceil(8);
        out.extend_from_slice(top.get(..bytes as usize).unwrap_or_default());
        self.free = (bytes * 8 - rest) as u8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn most_significant_bit_first() {
        let (mut bits, mut out) = (BitBuf::aligned(), Vec::new());
        bits.put(&mut out, 0b101, 3);
        bits.put(&mut out, 0x1ff, 9);
        bits.put(&mut out, u64::MAX, 0);
        assert_eq!(out, [0b1011_1111, 0b1111_0000]);
        let mut reader = BitReader::new(&out);
        assert_eq!(reader.read(3, "a"), Ok(0b101));
        assert_eq!(reader.read(9, "b"), Ok(0x1ff));
        assert_eq!(reader.position(), 12);
        assert_eq!(reader.read(4, "c"), Ok(0));
        assert_eq!(reader.read(1, "d"), Err(Error::Truncated { off: 2, expected: "d", need: 1, have: 0 }));
    }

    proptest! {
        #[test]
        fn bits_round_trip(parts in proptest::collection::vec((any::<u64>(), 0_u32..=64), 0..60)) {
            let (mut bits, mut out) = (BitBuf::aligned(), vec![0xaa]);
            for &(value, n) in &parts {
                bits.put(&mut out, value, n);
            }
            let total: u32 = parts.iter().map(|p| p.1).sum();
            prop_assert_eq!(out.len(), 1 + total.div_ceil(8) as usize);
            let mut reader = BitReader::new(&out);
            prop_assert_eq!(reader.take(8), 0xaa);
            for &(value, n) in &parts {
                let want = if n == 0 { 0 } else { value << (64 - n) >> (64 - n) };
                prop_assert_eq!(reader.read(n, "part"), Ok(want));
            }
        }
    }
}
