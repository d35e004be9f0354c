//! Bits of equal width, least significant first: value `i` of a block stands at bit `i * width`.

use super::input::PADDING;

/// Values of a whole block.
pub(super) const BLOCK: usize = 64;

/// The most bytes of a packed block, with what unpacking reads beyond them.
const PACKED_MAX: usize = BLOCK * 8 + PADDING;

/// Appends the low `width` bits of each value; the last byte is filled up with zeros.
pub(super) fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let mask = u64::MAX >> (64 - width);
    let (mut word, mut bits) = (0_u128, 0);
    for value in values {
        word |= u128::from(value & mask) << bits;
        bits += width;
        if bits >= 64 {
            out.extend_from_slice(&(word as u64).to_le_bytes());
            word >>= 64;
            bits -= 64;
        }
    }
    let tail = word.to_le_bytes();
    out.extend_from_slice(tail.get(..bits.div_ceil(8) as usize).unwrap_or_default());
}

/// Unpacks `count` values, at most [`BLOCK`], of `width` bits from the start of `bytes`, which may go on behind them.
/// What follows them in `out` is undefined. Missing bytes are zeros.
#[inline]
pub(super) fn unpack(bytes: &[u8], width: u32, count: usize, out: &mut [u64; BLOCK]) {
    // Of a short block too, the whole is unpacked, whatever lies behind it.
    if unpack_block(bytes, width, out) {
        return;
    }
    let mut padded = [0; PACKED_MAX];
    let packed = (count * width as usize).div_ceil(8);
    for (to, from) in padded.iter_mut().zip(bytes.iter().take(packed)) {
        *to = *from;
    }
    unpack_block(&padded, width, out);
}

/// Unpacks a whole block; `false` if fewer than its bytes and [`PADDING`] are there.
#[inline]
fn unpack_block(bytes: &[u8], width: u32, out: &mut [u64; BLOCK]) -> bool {
    macro_rules! by_width {
        ($($width:literal)*) => {
            match width {
                0 => out.fill(0),
                $($width => match bytes.first_chunk::<{ 8 * $width + PADDING }>() {
                    Some(bytes) => unpack_fixed::<$width, { 8 * $width + PADDING }>(bytes, out),
                    None => return false,
                },)*
                _ => return false,
            }
        };
    }
    by_width!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
        33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64);
    true
}

/// Unpacks a block of a width known when compiling: eight values begin on a byte, so that shifts are constants.
#[inline(never)]
fn unpack_fixed<const WIDTH: usize, const BYTES: usize>(bytes: &[u8; BYTES], out: &mut [u64; BLOCK]) {
    let mask = u64::MAX >> (64 - WIDTH);
    let (eights, _) = out.as_chunks_mut::<8>();
    for (group, eight) in eights.iter_mut().enumerate() {
        // Of a length that the compiler knows: no load below is checked.
        let Some(bytes) = bytes.get(group * WIDTH..group * WIDTH + WIDTH + 8) else { return };
        if WIDTH <= 8 {
            let word = word_at(bytes, 0);
            for (i, value) in eight.iter_mut().enumerate() {
                *value = (word >> (i * WIDTH)) & mask;
            }
        } else if WIDTH <= 57 {
            for (i, value) in eight.iter_mut().enumerate() {
                *value = (word_at(bytes, i * WIDTH / 8) >> (i * WIDTH % 8)) & mask;
            }
        } else {
            for (i, value) in eight.iter_mut().enumerate() {
                // The value ends within nine bytes.
                let (at, shift) = (i * WIDTH / 8, i * WIDTH % 8);
                let high = bytes.get(at + 8).copied().unwrap_or(0);
                let wide = u128::from(word_at(bytes, at)) | u128::from(high) << 64;
                *value = (wide >> shift) as u64 & mask;
            }
        }
    }
}

/// The `width` bits, 1 to 64, at bit `at` of `bytes`; missing bytes are zeros.
#[inline]
pub(super) fn bits_at(bytes: &[u8], at: usize, width: u32) -> u64 {
    let mask = u64::MAX >> (64 - width.clamp(1, 64));
    match bytes.get(at / 8..).and_then(<[u8]>::first_chunk::<8>) {
        Some(eight) if width <= 57 => u64::from_le_bytes(*eight) >> (at % 8) & mask,
        _ => wide_bits_at(bytes, at) & mask,
    }
}

#[cold]
fn wide_bits_at(bytes: &[u8], at: usize) -> u64 {
    let mut sixteen = [0; 16];
    for (to, from) in sixteen.iter_mut().zip(bytes.get(at / 8..).unwrap_or_default()) {
        *to = *from;
    }
    (u128::from_le_bytes(sixteen) >> (at % 8)) as u64
}

#[inline(always)]
fn word_at(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        Some(eight) => u64::from_le_bytes(*eight),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_significant_bit_first() {
        let mut out = Vec::new();
        pack([0b101, 0b010, 0b111].into_iter(), 3, &mut out);
        assert_eq!(out, [0b1101_0101, 0b1]);
        pack([1, u64::MAX].into_iter(), 64, &mut out);
        assert_eq!(out.len(), 18);
    }

    #[test]
    fn every_width_and_count_round_trips() {
        let mut seed = 1_u64;
        for width in 0..=64 {
            for count in 1..=BLOCK {
                let values: Vec<u64> = (0..count)
                    .map(|_| {
                        seed = seed
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        if width == 0 { 0 } else { (seed ^ (seed >> 31)) >> (64 - width) }
                    })
                    .collect();
                let mut bytes = Vec::new();
                pack(values.iter().copied(), width, &mut bytes);
                assert_eq!(bytes.len(), (count * width as usize).div_ceil(8));
                // With nothing behind, and with other bytes behind.
                for extra in [0, 40] {
                    bytes.extend(std::iter::repeat_n(0xff, extra));
                    let mut out = [7; BLOCK];
                    unpack(&bytes, width, count, &mut out);
                    assert_eq!(out[..count], values, "width {width}, count {count}, {extra} bytes behind");
                }
            }
        }
    }
}
