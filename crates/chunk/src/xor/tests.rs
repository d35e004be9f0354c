use proptest::prelude::*;

use crate::{
    Error, SAMPLE_BYTES_MAX, SAMPLES_MAX, XorAppender, XorIter, decode_into, decode_range_into, sample_count,
};

const STALE: u64 = 0x7ff0_0000_0000_0002;

fn encode(samples: &[(i64, u64)]) -> Vec<u8> {
    let (mut appender, mut chunk) = (XorAppender::new(), Vec::new());
    for &(t, bits) in samples {
        let before = chunk.len();
        appender.append(&mut chunk, t, f64::from_bits(bits)).unwrap();
        assert!(chunk.len() - before <= SAMPLE_BYTES_MAX);
        assert_eq!((appender.last_timestamp(), appender.last_value_bits()), (t, bits));
    }
    assert_eq!(appender.count(), samples.len());
    chunk
}

fn by_iter(chunk: &[u8]) -> Result<Vec<(i64, u64)>, Error> {
    XorIter::new(chunk).map(|sample| sample.map(|(t, v)| (t, v.to_bits()))).collect()
}

fn in_bulk(chunk: &[u8]) -> Result<Vec<(i64, u64)>, Error> {
    // What is in the vectors before stays.
    let (mut timestamps, mut values) = (vec![7], vec![7.0]);
    let done = decode_into(chunk, &mut timestamps, &mut values);
    assert_eq!((timestamps[0], values[0], timestamps.len()), (7, 7.0, values.len()));
    assert_eq!(done.unwrap_or(0), values.len() - 1);
    done?;
    Ok(timestamps.into_iter().zip(values.into_iter().map(f64::to_bits)).skip(1).collect())
}

#[track_caller]
fn check(samples: &[(i64, u64)]) {
    let chunk = encode(samples);
    assert_eq!(sample_count(&chunk), samples.len());
    assert_eq!(by_iter(&chunk).as_deref(), Ok(samples));
    assert_eq!(in_bulk(&chunk).as_deref(), Ok(samples));
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// The worked example of docs/format/chunks.md; bytes written by Prometheus 3.5.3.
#[test]
fn bytes_are_those_of_prometheus() {
    let samples = [(1000, 1.0_f64), (2000, 2.0), (3000, 2.0), (4500, 3.5)].map(|(t, v)| (t, v.to_bits()));
    let want = hex("0004 d00f 3ff0000000000000 e807 c25fff207d360580");
    assert_eq!(encode(&samples), want);
    assert_eq!(by_iter(&want).as_deref(), Ok(&samples[..]));
    assert_eq!(encode(&[(2000, 7_f64.to_bits())]), hex("0001 a01f 401c000000000000"));
    let document = include_str!("../../../../docs/format/chunks.md");
    assert!(document.contains("`00 04 d0 0f 3f f0 00 00 00 00 00 00 e8 07 c2 5f ff 20 7d 36 05 80`"));
}

#[test]
fn a_chunk_without_samples() {
    assert_eq!(by_iter(&[]), Ok(vec![]));
    assert_eq!(in_bulk(&[0, 0]), Ok(vec![]));
    assert_eq!(sample_count(&[9]), 0);
}

#[test]
fn deltas_at_the_edges_of_their_buckets() {
    for bits in [14_u32, 17, 20] {
        let edge = 1_i64 << (bits - 1);
        for dod in [edge - 1, edge, edge + 1, 1 - edge, -edge, -edge - 1, 1, -1, 0] {
            check(&[(0, 1), (5000, 1), (10_000 + dod, 1), (15_000, 2), (20_000, 2)]);
        }
    }
}

#[test]
fn extreme_timestamps_and_values() {
    check(&[(i64::MIN, 0), (i64::MAX, u64::MAX), (i64::MIN, 1), (0, STALE), (-1, 1 << 63), (i64::MAX, 0)]);
    // All 64 bits differ, twice: the length 64 is written as 0 and the window is used again.
    check(&[(0, 0), (1, u64::MAX), (2, 0), (3, 1), (4, (1 << 63) | 1)]);
    // More than 31 leading zeros.
    check(&[(0, 0), (1, 1), (2, 3), (3, 0x1_0000), (4, 0)]);
}

#[test]
fn a_full_chunk_refuses_and_stays_whole() {
    let (mut appender, mut chunk) = (XorAppender::new(), Vec::new());
    for i in 0..SAMPLES_MAX as i64 {
        appender.append(&mut chunk, i * 15_000, (i / 3) as f64).unwrap();
    }
    let before = chunk.clone();
    assert_eq!(appender.append(&mut chunk, i64::MAX, 1.0), Err(Error::Full));
    assert_eq!(chunk, before);
    let read = in_bulk(&chunk).unwrap();
    assert_eq!(read.len(), 65_535);
    assert_eq!(read[65_534], (65_534 * 15_000, 21_844_f64.to_bits()));
}

#[test]
fn bytes_missing_at_the_end_are_noticed() {
    let samples: Vec<(i64, u64)> = (0..20).map(|i| (i * 1000 + i % 3, (i as f64).sqrt().to_bits())).collect();
    let chunk = encode(&samples);
    for len in 2..chunk.len() {
        let short = &chunk[..len];
        let place = by_iter(short).unwrap_err();
        assert!(matches!(place, Error::Damaged { count: 20, .. }), "{place:?}");
        assert_eq!(in_bulk(short), Err(place), "both find the same place");
    }
}

#[test]
fn a_range_is_inclusive_on_both_ends() {
    let samples: Vec<(i64, u64)> = (0..50).map(|i| (i * 10, i as u64)).collect();
    let chunk = encode(&samples);
    for (min, max) in
        [(0, 490), (10, 10), (11, 19), (-5, 0), (490, 900), (500, 900), (-9, -1), (95, 205), (30, 20)]
    {
        let (mut timestamps, mut values) = (vec![1], vec![1.0]);
        let count = decode_range_into(&chunk, min, max, &mut timestamps, &mut values).unwrap();
        let want: Vec<i64> = (0..50).map(|i| i * 10).filter(|t| (min..=max).contains(t)).collect();
        assert_eq!(timestamps[1..], want, "{min} to {max}");
        assert_eq!((count, values.len()), (want.len(), want.len() + 1));
    }
}

#[test]
fn buffers_grow_by_little() {
    let (mut appender, mut chunk) = (XorAppender::new(), Vec::new());
    for i in 0..120 {
        appender.append(&mut chunk, i * 15_000, i as f64).unwrap();
        assert!(
            chunk.capacity() - chunk.len() <= 64 + SAMPLE_BYTES_MAX,
            "{} of {}",
            chunk.len(),
            chunk.capacity()
        );
    }
}

fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => -1_000_000_i64..1_000_000,
        2 => (0_i64..5000).prop_map(|i| 1_700_000_000_000 + i * 15_000),
        1 => any::<i64>(),
        1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0)],
    ]
}

fn value() -> impl Strategy<Value = u64> {
    let special = [
        STALE,
        f64::NAN.to_bits(),
        0x7ff8_dead_beef_0001,
        0xfff0_0000_0000_0001,
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        0,
        (-0.0_f64).to_bits(),
        1,
        f64::MIN_POSITIVE.to_bits() - 1,
        f64::MAX.to_bits(),
        u64::MAX,
    ];
    prop_oneof![
        4 => (0_u32..100_000).prop_map(|i| f64::from(i).to_bits()),
        2 => any::<f64>().prop_map(f64::to_bits),
        1 => any::<u64>(),
        2 => proptest::sample::select(special.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_samples_round_trip(samples in proptest::collection::vec((timestamp(), value()), 0..200)) {
        check(&samples);
    }

    #[test]
    fn counters_with_resets_round_trip(
        steps in proptest::collection::vec((14_990_i64..15_010, 0_u32..50, 0_u32..30), 1..300)) {
        let (mut t, mut total) = (1_700_000_000_000, 0_u32);
        let samples: Vec<(i64, u64)> = steps.into_iter().map(|(dt, up, reset)| {
            t += dt;
            total = if reset == 0 { 0 } else { total + up };
            (t, f64::from(total).to_bits())
        }).collect();
        check(&samples);
    }

    #[test]
    fn arbitrary_bytes_never_panic_nor_allocate_without_bound(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        let bulk = decode_into(&bytes, &mut timestamps, &mut values);
        prop_assert!(timestamps.capacity() <= bytes.len() * 4 + 8);
        let one_by_one = by_iter(&bytes);
        prop_assert_eq!(bulk.is_ok(), one_by_one.is_ok());
        if let Ok(samples) = one_by_one {
            prop_assert_eq!(samples.len(), values.len());
            prop_assert!(samples.iter().zip(&values).all(|(a, b)| a.1 == b.to_bits()));
        }
        let _ = decode_range_into(&bytes, -5, 5, &mut timestamps, &mut values);
    }

    #[test]
    fn flipped_bits_never_panic(
        samples in proptest::collection::vec((timestamp(), value()), 1..60), flips in proptest::collection::vec(any::<u16>(), 1..4)) {
        let mut chunk = encode(&samples);
        let bits = chunk.len() * 8;
        for flip in flips {
            let at = usize::from(flip) % bits;
            chunk[at / 8] ^= 1 << (at % 8);
        }
        let _ = by_iter(&chunk);
        let _ = in_bulk(&chunk);
    }
}
