//! Unsigned numbers in blocks of 64: a width that fits most of a block, and patches for the rest (PFOR).
//!
//! Source: Zukowski et al., "Super-Scalar RAM-CPU Cache Compression" (ICDE 2006); patches as in Lemire and Boytsov,
//! "Decoding billions of integers per second through vectorization" (2015).

use chronolith_codec::write;

use super::input::Input;
use super::pack::{BLOCK, bits_at, pack};
use super::{UNIT_COLUMN as UNIT, bit_len, uvarint_len};
use crate::{Error, Result};

/// Code of the width 64; 0 to 62 stand for themselves, 63 is rounded up.
const WIDTH_64: u8 = 63;
const WIDTH_MASK: u8 = 0x3f;
/// The code's bit that says: patches follow.
const PATCHED: u8 = 0x40;
/// The code's bit that says: a number follows that was subtracted from all.
const BASED: u8 = 0x80;

/// How a block is written.
#[derive(Clone, Copy, Debug)]
struct Plan {
    base: u64,
    width: u32,
    patches: usize,
    /// Width of what patches add above `width`.
    high: u32,
    bytes: usize,
}

/// The cheapest plan for `block`, at most [`BLOCK`] numbers.
fn plan(block: &[u64]) -> Plan {
    let smallest = block.iter().copied().min().unwrap_or(0);
    let plain = plan_above(block, 0);
    // A base costs at least a byte and cannot save more than the bits of its length.
    if smallest == 0 || plain.width == 0 && plain.patches == 0 {
        return plain;
    }
    let based = plan_above(block, smallest);
    if based.bytes < plain.bytes { based } else { plain }
}

fn plan_above(block: &[u64], base: u64) -> Plan {
    let mut of_len = [0_u8; 65];
    let mut all = 0;
    for value in block {
        let value = value - base;
        all |= value;
        if let Some(count) = of_len.get_mut(bit_len(value) as usize) {
            *count += 1;
        }
    }
    let longest = bit_len(all);
    let fixed = 1 + if base > 0 { uvarint_len(base) } else { 0 };
    let bytes_at = |width: u32| (block.len() * width as usize).div_ceil(8);
    let full = if longest == 63 { 64 } else { longest };
    let mut best = Plan { base, width: full, patches: 0, high: 0, bytes: fixed + bytes_at(full) };
    let mut patches = 0;
    for width in (0..longest).rev() {
        patches += usize::from(of_len.get(width as usize + 1).copied().unwrap_or(0));
        // Each patch costs a byte for its place and at least a bit.
        if fixed + 2 + patches >= best.bytes {
            break;
        }
        let high = longest - width;
        let bytes = fixed + bytes_at(width) + 2 + patches + (patches * high as usize).div_ceil(8);
        if width != 63 && bytes < best.bytes {
            best = Plan { base, width, patches, high, bytes };
        }
    }
    best
}

/// How many bytes [`encode`] would append.
pub(super) fn cost(values: &[u64]) -> usize {
    values.chunks(BLOCK).map(|block| plan(block).bytes).sum()
}

/// A cheap measure of how many bytes [`encode`] would append, for comparisons only: between what the values take each
/// and what they would take if all were as wide as the widest of their block.
pub(super) fn estimate(values: &[u64]) -> usize {
    let block = |block: &[u64]| {
        let (sum, all) = block.iter().fold((0, 0), |(sum, all), value| (sum + bit_len(*value), all | value));
        sum as usize + bit_len(all) as usize * block.len()
    };
    values.chunks(BLOCK).map(block).sum()
}

/// Appends all values, block by block.
pub(super) fn encode(values: &[u64], out: &mut Vec<u8>) {
    for block in values.chunks(BLOCK) {
        encode_block(block, plan(block), out);
    }
}

fn encode_block(block: &[u64], plan: Plan, out: &mut Vec<u8>) {
    let width_code = if plan.width == 64 { WIDTH_64 } else { plan.width as u8 };
    let based = if plan.base > 0 { BASED } else { 0 };
    let patched = if plan.patches > 0 { PATCHED } else { 0 };
    out.push(width_code | based | patched);
    if plan.base > 0 {
        write::uvarint(out, plan.base);
    }
    if plan.patches > 0 {
        out.push(plan.patches as u8);
        out.push(plan.high as u8);
    }
    pack(block.iter().map(|value| value - plan.base), plan.width, out);
    if plan.patches > 0 {
        let high = |value: u64| (value - plan.base) >> plan.width;
        let places = block.iter().enumerate().filter(|(_, value)| high(**value) > 0);
        out.extend(places.map(|(place, _)| place as u8));
        let patches = block.iter().map(|value| high(*value)).filter(|high| *high > 0);
        pack(patches, plan.high, out);
    }
}

/// Reads a block of `count` numbers, at most [`BLOCK`], to the start of `out`; the rest of it is undefined.
#[inline]
pub(super) fn decode_block(input: &mut Input<'_>, count: usize, out: &mut [u64; BLOCK]) -> Result<()> {
    let damaged = |source| Error::Unreadable { unit: UNIT, source };
    let code = input.u8("block code").map_err(damaged)?;
    let width = match code & WIDTH_MASK {
        WIDTH_64 => 64,
        width => u32::from(width),
    };
    if code & !WIDTH_MASK == 0 {
        return input.packed(width, count, out).map_err(damaged);
    }
    let base = if code & BASED == 0 { 0 } else { input.uvarint("block base").map_err(damaged)? };
    if code & PATCHED == 0 {
        input.packed(width, count, out).map_err(damaged)?;
    } else {
        decode_patched(input, width, count, out)?;
    }
    if base != 0 {
        for value in out {
            *value = value.wrapping_add(base);
        }
    }
    Ok(())
}

fn decode_patched(input: &mut Input<'_>, width: u32, count: usize, out: &mut [u64; BLOCK]) -> Result<()> {
    let damaged = |source| Error::Unreadable { unit: UNIT, source };
    let off = input.offset();
    let patches = usize::from(input.u8("number of patches").map_err(damaged)?);
    let high = u32::from(input.u8("width of patches").map_err(damaged)?);
    if width + high > 64 || width == 64 {
        let got = u64::from(high);
        return Err(Error::Invalid { unit: UNIT, off, expected: "a patch within 64 bits", got });
    }
    input.packed(width, count, out).map_err(damaged)?;
    let places_off = input.offset();
    let places = input.slice(patches, "places of patches").map_err(damaged)?;
    if let Some(got) = places.iter().copied().find(|place| usize::from(*place) >= count) {
        let got = u64::from(got);
        return Err(Error::Invalid { unit: UNIT, off: places_off, expected: "a place in the block", got });
    }
    let bits = input.bits(patches * high as usize, "patches").map_err(damaged)?;
    let mut at = 0;
    for place in places {
        if let Some(value) = out.get_mut(usize::from(place & 63)) {
            *value |= bits_at(bits, at, high) << width;
        }
        at += high as usize;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dense::input::PADDING;

    #[track_caller]
    fn check(values: &[u64]) -> usize {
        let mut bytes = Vec::new();
        encode(values, &mut bytes);
        let len = bytes.len();
        assert_eq!(cost(values), len);
        for padding in [0, PADDING] {
            bytes.resize(len + padding, 0xee);
            let mut input = Input::new(&bytes, 0, len);
            let mut block = [0; BLOCK];
            for chunk in values.chunks(BLOCK) {
                decode_block(&mut input, chunk.len(), &mut block).unwrap();
                assert_eq!(&block[..chunk.len()], chunk);
            }
            input.finish().unwrap();
        }
        len
    }

    #[test]
    fn sizes() {
        assert_eq!(check(&[]), 0);
        assert_eq!(check(&[0; 64]), 1);
        assert_eq!(check(&[5; 64]), 2, "a base");
        assert_eq!(check(&[3, 2, 1, 0].repeat(16)), 1 + 16);
        let mut spike = vec![0; 64];
        spike[63] = u64::MAX;
        assert_eq!(check(&spike), 1 + 2 + 1 + 8, "a patch of 64 bits on no width");
        let wide: Vec<u64> = (0..64).map(|i| if i == 9 { 0 } else { u64::MAX - i }).collect();
        assert_eq!(check(&wide), 1 + 64 * 8);
        assert_eq!(
            check(&[u64::MAX; 65]),
            (1 + 10) + (1 + 8),
            "64 bits are shorter than a base of ten bytes"
        );
    }

    #[test]
    fn damage_is_an_error() {
        let mut spike = vec![1; 20];
        spike[7] = 1 << 40;
        let mut bytes = Vec::new();
        encode(&spike, &mut bytes);
        let mut block = [0; BLOCK];
        for len in 0..bytes.len() {
            assert!(decode_block(&mut Input::new(&bytes, 0, len), 20, &mut block).is_err());
        }
        let place = bytes.iter().position(|byte| *byte == 7).unwrap();
        bytes[place] = 20;
        let error = decode_block(&mut Input::new(&bytes, 0, bytes.len()), 20, &mut block).unwrap_err();
        assert!(
            matches!(error, Error::Invalid { expected: "a place in the block", got: 20, .. }),
            "{error:?}"
        );
    }

    proptest! {
        #[test]
        fn round_trips(values in proptest::collection::vec((any::<u64>(), 0_u32..64), 0..200), base in any::<u32>()) {
            let values: Vec<u64> = values.iter().map(|(v, shift)| (v >> shift).saturating_add(u64::from(base))).collect();
            check(&values);
        }
    }
}
