//! A layout at the start of a chunk.

use chronolith_codec::{BitBuf, BitReader};
use chronolith_model::histogram::{BUCKETS_MAX, CUSTOM_SCHEMA, Layout, Span};

use super::CHUNK;
use super::varbit::{put_int, put_uint, take_int, take_uint};
use crate::{Error, Result};

/// Custom bounds that are whole thousandths up to this many are written as such.
const THOUSANDTHS_MAX: f64 = 33_554_430.0;

pub(super) fn put_layout(bits: &mut BitBuf, out: &mut Vec<u8>, layout: &Layout) {
    put_threshold(bits, out, layout.zero_threshold());
    put_int(bits, out, i64::from(layout.schema()));
    for spans in [layout.positive_spans(), layout.negative_spans()] {
        put_uint(bits, out, spans.len() as u64);
        for span in spans {
            put_uint(bits, out, u64::from(span.length));
            put_int(bits, out, i64::from(span.offset));
        }
    }
    if layout.is_custom() {
        put_uint(bits, out, layout.custom_values().len() as u64);
        for bound in layout.custom_values() {
            put_bound(bits, out, *bound);
        }
    }
}

/// 0 as zero, powers of two from 2^-243 to 2^10 as one byte, others behind 255.
fn put_threshold(bits: &mut BitBuf, out: &mut Vec<u8>, threshold: f64) {
    let raw = threshold.to_bits();
    let exponent = (raw >> 52) as i64 - 1023;
    if raw == 0 {
        bits.put(out, 0, 8);
    } else if raw << 12 == 0 && (-243..=10).contains(&exponent) {
        bits.put(out, (exponent + 244) as u64, 8);
    } else {
        bits.put(out, 255, 8);
        bits.put(out, raw, 64);
    }
}

fn take_threshold(bits: &mut BitReader<'_>) -> f64 {
    match bits.take(8) {
        0 => 0.0,
        255 => f64::from_bits(bits.take(64)),
        byte => f64::from_bits((byte + 1023 - 244) << 52),
    }
}

/// A bound in thousandths, where that is the same to the bit.
fn thousandths(bound: f64) -> Option<u64> {
    let scaled = bound * 1000.0;
    let whole = scaled.round() as u64;
    let same = (whole as f64 / 1000.0).to_bits() == bound.to_bits();
    (same && (0.0..=THOUSANDTHS_MAX).contains(&scaled)).then_some(whole)
}

fn put_bound(bits: &mut BitBuf, out: &mut Vec<u8>, bound: f64) {
    match thousandths(bound) {
        Some(thousandths) => put_uint(bits, out, thousandths + 1),
        None => {
            bits.put(out, 0, 1);
            bits.put(out, bound.to_bits(), 64);
        }
    }
}

fn take_bound(bits: &mut BitReader<'_>) -> f64 {
    match take_uint(bits) {
        0 => f64::from_bits(bits.take(64)),
        n => (n - 1) as f64 / 1000.0,
    }
}

/// Reads a layout; `base` is the offset of the first bit's byte in the chunk.
pub(super) fn take_layout(bits: &mut BitReader<'_>, base: usize) -> Result<Layout> {
    let unreadable = |source| Error::Unreadable { unit: CHUNK, source };
    let zero_threshold = take_threshold(bits);
    let schema = take_int(bits);
    let positive = take_spans(bits, base)?;
    let negative = take_spans(bits, base)?;
    let mut bounds = Vec::new();
    if schema == i64::from(CUSTOM_SCHEMA) {
        for _ in 0..count(bits, base, "number of custom bounds")? {
            bounds.push(take_bound(bits));
            bits.check("custom bound").map_err(unreadable)?;
        }
    }
    bits.check("layout").map_err(unreadable)?;
    let schema = i32::try_from(schema).unwrap_or(i32::MAX);
    Layout::new(schema, zero_threshold, &positive, &negative, bounds).map_err(|_| Error::Invalid {
        unit: CHUNK,
        off: base + bits.position() / 8,
        expected: "a valid layout before it",
        got: schema as u64,
    })
}

fn take_spans(bits: &mut BitReader<'_>, base: usize) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for _ in 0..count(bits, base, "number of spans")? {
        let (length, offset) = (take_uint(bits), take_int(bits));
        bits.check("span").map_err(|source| Error::Unreadable { unit: CHUNK, source })?;
        let (Ok(length), Ok(offset)) = (u32::try_from(length), i32::try_from(offset)) else {
            let off = base + bits.position() / 8;
            return Err(Error::Invalid {
                unit: CHUNK,
                off,
                expected: "a span of 32 bits before it",
                got: length,
            });
        };
        spans.push(Span { offset, length });
    }
    Ok(spans)
}

fn count(bits: &mut BitReader<'_>, base: usize, expected: &'static str) -> Result<u64> {
    let off = base + bits.position() / 8;
    let count = take_uint(bits);
    if count > BUCKETS_MAX as u64 {
        return Err(Error::Invalid { unit: CHUNK, off, expected, got: count });
    }
    Ok(count)
}
