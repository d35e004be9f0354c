//! Reading all at once: the inner loop of queries.

use chronolith_codec::{BitReader, Reader};

use super::iter::State;
use super::sample_count;
use crate::{Error, Result};

/// Appends all samples of `chunk` to `timestamps` (ms) and `values`; returns how many.
///
/// # Errors
/// [`Error::Damaged`] if the bytes do not hold as many samples as they say; both vectors are then as before.
pub fn decode_into(chunk: &[u8], timestamps: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<usize> {
    let count = sample_count(chunk);
    reserve(chunk, count, timestamps, values);
    let (old_t, old_v) = (timestamps.len(), values.len());
    let done = decode(chunk, |t, bits| {
        timestamps.push(t);
        values.push(f64::from_bits(bits));
        true
    });
    if let Err(e) = done {
        timestamps.truncate(old_t);
        values.truncate(old_v);
        return Err(e);
    }
    Ok(count)
}

/// Appends the samples of `chunk` with `min <= timestamp <= max`; returns how many. Timestamps of the chunk must
/// ascend: reading stops after the first one beyond `max`, and damage after it goes unnoticed.
///
/// # Errors
/// [`Error::Damaged`] as [`decode_into`].
pub fn decode_range_into(
    chunk: &[u8],
    min: i64,
    max: i64,
    timestamps: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<usize> {
    let (old_t, old_v) = (timestamps.len(), values.len());
    let done = decode(chunk, |t, bits| {
        if t > max {
            return false;
        }
        if t >= min {
            timestamps.push(t);
            values.push(f64::from_bits(bits));
        }
        true
    });
    if let Err(e) = done {
        timestamps.truncate(old_t);
        values.truncate(old_v);
        return Err(e);
    }
    Ok(timestamps.len() - old_t)
}

/// Room for `count` samples, but not for more than the bytes can hold: two bits a sample, after the first.
fn reserve(chunk: &[u8], count: usize, timestamps: &mut Vec<i64>, values: &mut Vec<f64>) {
    let room = count.min(chunk.len() * 4 + 1);
    timestamps.reserve(room);
    values.reserve(room);
}

/// Hands each sample, its value as bits, to `sink` until that says `false`.
#[inline]
fn decode(chunk: &[u8], mut sink: impl FnMut(i64, u64) -> bool) -> Result<()> {
    let count = sample_count(chunk);
    let damaged = |sample, source| Error::Damaged { sample, count, source };
    if count == 0 {
        return Ok(());
    }
    let mut reader = Reader::new(chunk.get(2..).unwrap_or_default());
    let t = reader.varint("first timestamp").map_err(|e| damaged(0, e))?;
    let bits = reader.u64_be("first value").map_err(|e| damaged(0, e))?;
    if !sink(t, bits) || count == 1 {
        return Ok(());
    }
    let delta = reader.uvarint("first delta").map_err(|e| damaged(1, e))?;
    let mut state = State { t: t.wrapping_add(delta as i64), delta, bits, ..State::default() };
    let mut input = BitReader::new(reader.rest());
    let word = input.peek();
    state.step_value(&mut input, word, 0);
    input.check("second value").map_err(|e| damaged(1, e))?;
    if !sink(state.t, state.bits) {
        return Ok(());
    }
    let mut sample = 2;
    while sample < count {
        // Two zero bits say: the same step, the same value. Runs of them are common, and need no decoding.
        if input.peek() >> 60 == 0 {
            let run = run(&input).min(count - sample);
            input.skip(2 * run as u32);
            for _ in 0..run {
                state.t = state.t.wrapping_add(state.delta as i64);
                if !sink(state.t, state.bits) {
                    return Ok(());
                }
            }
            sample += run;
            if run > 0 {
                continue;
            }
        }
        state.step(&mut input);
        input.check("sample").map_err(|e| damaged(sample, e))?;
        if !sink(state.t, state.bits) {
            return Ok(());
        }
        sample += 1;
    }
    Ok(())
}

/// How many samples of two zero bits come next, as far as can be seen; zeros beyond the end are none.
#[inline]
fn run(input: &BitReader<'_>) -> usize {
    (input.peek().leading_zeros().min(BitReader::PEEK_BITS) as usize).min(input.left()) / 2
}
