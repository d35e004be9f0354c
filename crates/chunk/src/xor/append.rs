//! Appending.

use chronolith_codec::{BitBuf, write};

use super::{SAMPLE_BYTES_MAX, SAMPLES_MAX};
use crate::{Error, Result};

/// `leading` before the first window.
const NO_WINDOW: u8 = u8::MAX;

/// The state of an open chunk, 32 bytes; the chunk's bytes stay with the caller and are a whole, readable chunk after
/// each append.
///
/// ```
/// # use chronolith_chunk::*;
/// let (mut appender, mut chunk) = (XorAppender::new(), Vec::new());
/// appender.append(&mut chunk, 1000, 1.5)?;
/// appender.append(&mut chunk, 2000, 1.5)?;
/// let (mut timestamps, mut values) = (Vec::new(), Vec::new());
/// decode_into(&chunk, &mut timestamps, &mut values)?;
/// assert_eq!((timestamps, values), (vec![1000, 2000], vec![1.5, 1.5]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XorAppender {
    last_t: i64,
    last_delta: u64,
    last_bits: u64,
    count: u16,
    leading: u8,
    trailing: u8,
    end: BitBuf,
}

const _: () = assert!(size_of::<XorAppender>() <= 32);

impl XorAppender {
    /// The state of a chunk without samples; its buffer must be empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            last_t: 0,
            last_delta: 0,
            last_bits: 0,
            count: 0,
            leading: NO_WINDOW,
            trailing: 0,
            end: BitBuf::aligned(),
        }
    }

    /// How many samples the chunk has.
    #[inline]
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// The timestamp of the last sample, milliseconds; 0 without one.
    #[inline]
    #[must_use]
    pub const fn last_timestamp(&self) -> i64 {
        self.last_t
    }

    /// The bits of the last sample's value; 0 without one.
    #[inline]
    #[must_use]
    pub const fn last_value_bits(&self) -> u64 {
        self.last_bits
    }

    /// Appends a sample to `chunk`, which must hold what this appender has written and nothing else. Timestamps may
    /// come in any order; ascending ones by equal steps cost least. The buffer grows by small exact steps.
    ///
    /// # Errors
    /// [`Error::Full`] after [`SAMPLES_MAX`] samples; nothing is changed.
    #[inline]
    pub fn append(&mut self, chunk: &mut Vec<u8>, t: i64, value: f64) -> Result<()> {
        if usize::from(self.count) >= SAMPLES_MAX {
            return Err(Error::Full);
        }
        if chunk.capacity() - chunk.len() < SAMPLE_BYTES_MAX {
            grow(chunk);
        }
        let bits = value.to_bits();
        if self.count >= 2 {
            let delta = t.wrapping_sub(self.last_t) as u64;
            let dod = delta.wrapping_sub(self.last_delta) as i64;
            self.last_delta = delta;
            self.put_steady(chunk, dod, bits);
        } else {
            self.put_first(chunk, t, bits);
        }
        self.last_t = t;
        self.last_bits = bits;
        self.count += 1;
        if let Some(count) = chunk.first_chunk_mut::<2>() {
            *count = self.count.to_be_bytes();
        }
        Ok(())
    }

    /// The first two samples of a chunk.
    fn put_first(&mut self, chunk: &mut Vec<u8>, t: i64, bits: u64) {
        if self.count == 0 {
            write::u16_be(chunk, 0);
            write::varint(chunk, t);
            write::u64_be(chunk, bits);
            return;
        }
        self.last_delta = t.wrapping_sub(self.last_t) as u64;
        write::uvarint(chunk, self.last_delta);
        let (head, head_len, tail, tail_len) = self.value_bits(bits);
        self.end.put(chunk, head, head_len);
        self.end.put(chunk, tail, tail_len);
    }

    #[inline]
    fn put_steady(&mut self, chunk: &mut Vec<u8>, dod: i64, bits: u64) {
        // The usual case in one piece: the same step.
        let (time, time_len) = if dod == 0 {
            (0, 1)
        } else if fits(dod, 14) {
            ((0b10 << 14) | (dod as u64 & 0x3fff), 16)
        } else if fits(dod, 17) {
            ((0b110 << 17) | (dod as u64 & 0x1_ffff), 20)
        } else if fits(dod, 20) {
            ((0b1110 << 20) | (dod as u64 & 0xf_ffff), 24)
        } else {
            self.end.put(chunk, 0b1111, 4);
            self.end.put(chunk, dod as u64, 64);
            (0, 0)
        };
        // At most 24 + 13 bits.
        let (head, head_len, tail, tail_len) = self.value_bits(bits);
        let (head, head_len) = ((time << head_len) | head, time_len + head_len);
        if head_len + tail_len <= 64 {
            self.end.put(
                chunk,
                if tail_len == 0 { head } else { (head << tail_len) | tail },
                head_len + tail_len,
            );
        } else {
            self.end.put(chunk, head, head_len);
            self.end.put(chunk, tail, tail_len);
        }
    }

    /// A value as a header of up to 13 bits and up to 64 significant bits of the XOR with its predecessor.
    #[inline]
    fn value_bits(&mut self, bits: u64) -> (u64, u32, u64, u32) {
        let xor = bits ^ self.last_bits;
        if xor == 0 {
            return (0, 1, 0, 0);
        }
        // Five bits hold the number of leading zeros.
        let leading = xor.leading_zeros().min(31) as u8;
        let trailing = xor.trailing_zeros() as u8;
        if self.leading != NO_WINDOW && leading >= self.leading && trailing >= self.trailing {
            let significant = 64 - u32::from(self.leading) - u32::from(self.trailing);
            return (0b10, 2, xor >> self.trailing, significant);
        }
        self.leading = leading;
        self.trailing = trailing;
        let significant = 64 - u32::from(leading) - u32::from(trailing);
        // Six bits hold 1 to 64, with 64 written as 0.
        let header = (0b11 << 11) | (u64::from(leading) << 6) | u64::from(significant & 0x3f);
        (header, 13, xor >> trailing, significant)
    }
}

impl Default for XorAppender {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether `x` is one of the `2^n` values that `n` bits hold: `-(2^(n-1)-1) ..= 2^(n-1)`.
#[inline]
const fn fits(x: i64, n: u32) -> bool {
    -((1 << (n - 1)) - 1) <= x && x <= 1 << (n - 1)
}

/// Room for the next samples in small steps: there are as many open chunks as series. The sizes are those of allocators,
/// which give so much anyway.
#[cold]
fn grow(chunk: &mut Vec<u8>) {
    let wanted = chunk.len() + if chunk.len() < 96 { 32 } else { 48 };
    let step = if wanted <= 128 { 16 } else { 32 };
    chunk.reserve_exact(wanted.next_multiple_of(step) - chunk.len());
}
