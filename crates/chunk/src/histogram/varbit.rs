//! Integers of one to 72 bits, shorter ones for smaller numbers, and floats as the difference to the last.

use chronolith_codec::{BitBuf, BitReader};

/// Widths a number may have, by the number of ones before it; the last two are without a closing zero.
const WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// Prefix and its length for the `class`-th width.
const fn prefix(class: u32) -> (u64, u32) {
    if class >= 8 { (0xff, 8) } else { (((1 << class) - 1) << 1, class + 1) }
}

fn put(bits: &mut BitBuf, out: &mut Vec<u8>, value: u64, fits: impl Fn(u32) -> bool) {
    let classes = (0_u32..).zip(WIDTHS);
    for (class, width) in classes {
        if width == 64 || fits(width) {
            let (ones, len) = prefix(class);
            bits.put(out, ones, len);
            bits.put(out, value, width);
            return;
        }
    }
}

pub(super) fn put_int(bits: &mut BitBuf, out: &mut Vec<u8>, value: i64) {
    let fits = |width: u32| match width {
        0 => value == 0,
        n => -((1 << (n - 1)) - 1) <= value && value <= 1 << (n - 1),
    };
    put(bits, out, value as u64, fits);
}

pub(super) fn put_uint(bits: &mut BitBuf, out: &mut Vec<u8>, value: u64) {
    put(bits, out, value, |width| value >> width == 0);
}

/// Reads prefix and number; zeros behind the end.
fn take(bits: &mut BitReader<'_>) -> (u64, u32) {
    let class = (!bits.peek()).leading_zeros().min(8);
    let (_, len) = prefix(class);
    bits.skip(len);
    let width = WIDTHS.get(class as usize).copied().unwrap_or(64);
    (bits.take(width), width)
}

/// Reads what [`put_int`] wrote; 0 behind the end, see [`BitReader::check`].
pub(super) fn take_int(bits: &mut BitReader<'_>) -> i64 {
    let (raw, width) = take(bits);
    // Both ends are asymmetric: 2^(n-1) is positive.
    if width > 0 && width < 64 && raw > 1 << (width - 1) {
        raw.wrapping_sub(1 << width) as i64
    } else {
        raw as i64
    }
}

/// Reads what [`put_uint`] wrote; 0 behind the end, see [`BitReader::check`].
pub(super) fn take_uint(bits: &mut BitReader<'_>) -> u64 {
    take(bits).0
}

/// `leading` before the first window.
const NO_WINDOW: u8 = u8::MAX;

/// A float that is written as what changed of its bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Xor {
    pub(super) last: u64,
    leading: u8,
    trailing: u8,
}

impl Xor {
    /// The first value stands elsewhere, whole.
    pub(super) const fn new(first: u64) -> Self {
        Self { last: first, leading: NO_WINDOW, trailing: 0 }
    }

    pub(super) fn put(&mut self, bits: &mut BitBuf, out: &mut Vec<u8>, value: u64) {
        let xor = value ^ self.last;
        self.last = value;
        if xor == 0 {
            return bits.put(out, 0, 1);
        }
        // Five bits hold the number of leading zeros.
        let (leading, trailing) = (xor.leading_zeros().min(31) as u8, xor.trailing_zeros() as u8);
        if self.leading == NO_WINDOW || leading < self.leading || trailing < self.trailing {
            (self.leading, self.trailing) = (leading, trailing);
            bits.put(out, 0b11, 2);
            bits.put(out, u64::from(leading), 5);
            // Six bits hold 1 to 64, with 64 written as 0.
            bits.put(out, u64::from(self.significant()), 6);
        } else {
            bits.put(out, 0b10, 2);
        }
        bits.put(out, xor >> self.trailing, self.significant());
    }

    fn significant(&self) -> u32 {
        64 - u32::from(self.leading) - u32::from(self.trailing)
    }

    /// Reads the next value. `None` where a window is used that never was, or is impossible.
    pub(super) fn take(&mut self, bits: &mut BitReader<'_>) -> Option<u64> {
        if bits.take(1) == 0 {
            return Some(self.last);
        }
        if bits.take(1) == 1 {
            let leading = bits.take(5) as u8;
            let significant = match bits.take(6) as u8 {
                0 => 64,
                n => n,
            };
            self.leading = leading;
            self.trailing = 64_u8.checked_sub(leading + significant)?;
        } else if self.leading == NO_WINDOW {
            return None;
        }
        self.last ^= bits.take(self.significant()) << self.trailing;
        Some(self.last)
    }
}
