//! Timestamp columns: `[count uvarint] [a stream of integers, if there are any]`.

use chronolith_codec::write;

use super::COLUMN_SAMPLES_MAX;
use super::input::Input;
use super::stream::{self, Encoder};
use crate::{Error, Result};

const UNIT: &str = "timestamp column";

/// Appends a column of timestamps (ms, strictly increasing, any values) to `out`.
///
/// # Errors
/// [`Error::TooLarge`] above [`COLUMN_SAMPLES_MAX`]; [`Error::Invalid`], with the place in the column, if they do not
/// ascend. `out` is then as before.
pub fn encode_timestamps(timestamps: &[i64], out: &mut Vec<u8>) -> Result<()> {
    if timestamps.len() > COLUMN_SAMPLES_MAX {
        return Err(Error::TooLarge {
            unit: UNIT,
            of: "samples",
            got: timestamps.len(),
            max: COLUMN_SAMPLES_MAX,
        });
    }
    ascending(timestamps, None)?;
    write::uvarint(out, timestamps.len() as u64);
    if !timestamps.is_empty() {
        Encoder::default().write_inline(timestamps, out);
    }
    Ok(())
}

/// Appends the timestamps of a column to `into`, all or none; `bytes` is the column and nothing else.
///
/// # Errors
/// [`Error::Unreadable`], [`Error::Invalid`], also if the timestamps do not ascend.
pub fn decode_timestamps(bytes: &[u8], into: &mut Vec<i64>) -> Result<()> {
    let damaged = |source| Error::Unreadable { unit: UNIT, source };
    let mut input = Input::new(bytes, 0, bytes.len());
    let samples = input.count(COLUMN_SAMPLES_MAX, "number of samples").map_err(damaged)?;
    let mut timestamps = Vec::new();
    if samples > 0 {
        stream::decode_inline(&mut input, samples, &mut timestamps)?;
    }
    input.finish().map_err(damaged)?;
    ascending(&timestamps, Some(bytes.len()))?;
    into.append(&mut timestamps);
    Ok(())
}

/// Fails at `off`, or at the place in the column, unless each timestamp is later than the one before.
fn ascending(timestamps: &[i64], off: Option<usize>) -> Result<()> {
    match timestamps.iter().zip(timestamps.iter().skip(1)).position(|(a, b)| a >= b) {
        None => Ok(()),
        Some(place) => {
            let got = timestamps.get(place + 1).copied().unwrap_or(0) as u64;
            Err(Error::Invalid {
                unit: UNIT,
                off: off.unwrap_or(place + 1),
                expected: "a later timestamp",
                got,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(timestamps: &[i64]) -> usize {
        let mut bytes = Vec::new();
        encode_timestamps(timestamps, &mut bytes).unwrap();
        let mut back = vec![7];
        decode_timestamps(&bytes, &mut back).unwrap();
        assert_eq!(back[0], 7);
        assert_eq!(&back[1..], timestamps);
        for len in 0..bytes.len() {
            decode_timestamps(&bytes[..len], &mut back).unwrap_err();
        }
        assert_eq!(back.len(), timestamps.len() + 1);
        bytes.len()
    }

    const START: i64 = 1_763_700_000_123;

    #[test]
    fn sizes() {
        assert_eq!(check(&[]), 1);
        check(&[0]);
        check(&[i64::MIN, -1, 0, i64::MAX]);
        let grid: Vec<i64> = (0..480).map(|i| START + i * 15_000).collect();
        assert!(check(&grid) <= 14);
        // A jitter of up to 7 ms takes three bits a timestamp, and a block code for 64 of them.
        let jitter = |i: i64| (i * i * 31 + i * 7) % 61 % 8;
        let jittered: Vec<i64> = grid.iter().zip(0..).map(|(t, i)| t + jitter(i)).collect();
        let size = check(&jittered);
        assert!(size <= 480 * 3 / 8 + 8 + 20, "{size}");
        // Missed scrapes cost some bytes each.
        let gaps: Vec<i64> =
            jittered.iter().zip(0..).filter(|(_, i)| ![100, 101, 300].contains(i)).map(|(t, _)| *t).collect();
        let with_gaps = check(&gaps);
        assert!(with_gaps <= size + 200, "{with_gaps} {size}");
        let irregular: Vec<i64> = (0..480).map(|i| START + i * 15_000 + (i * i * 7919) % 9973).collect();
        assert!(check(&irregular) < 480 * 2 + 40);
    }

    #[test]
    fn order_and_length_are_checked() {
        let mut bytes = vec![9];
        let error = encode_timestamps(&[1, 2, 2], &mut bytes).unwrap_err();
        assert_eq!(error, Error::Invalid { unit: UNIT, off: 2, expected: "a later timestamp", got: 2 });
        let long: Vec<i64> = (0..=COLUMN_SAMPLES_MAX as i64).collect();
        assert!(matches!(encode_timestamps(&long, &mut bytes), Err(Error::TooLarge { .. })));
        assert_eq!(bytes, [9]);
        check(&long[1..]);
        // A constant stream of two.
        let two = [2, 0, 10];
        let error = decode_timestamps(&two, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::Invalid { expected: "a later timestamp", got: 5, .. }), "{error:?}");
        let many = [0x81, 0x80, 0x04, 0, 0];
        assert!(matches!(decode_timestamps(&many, &mut Vec::new()), Err(Error::Unreadable { .. })));
    }

    proptest! {
        #[test]
        fn any_ascending_column_comes_back(mut timestamps in proptest::collection::vec(any::<i64>(), 0..300), shift in 0_u32..63) {
            for t in &mut timestamps {
                *t >>= shift;
            }
            timestamps.sort_unstable();
            timestamps.dedup();
            check(&timestamps);
        }
    }
}
