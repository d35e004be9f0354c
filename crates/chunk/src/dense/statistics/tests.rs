use proptest::prelude::*;

use super::page::{decode_statistics, encode_statistics};
use super::*;
use crate::dense::FRAME_SLOTS_MAX;

#[track_caller]
fn check(statistics: &[Statistics]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_statistics(statistics, &mut bytes).unwrap();
    let mut back = vec![Statistics::EMPTY];
    decode_statistics(&bytes, &mut back).unwrap();
    assert_eq!(back.len(), statistics.len() + 1);
    for (back, s) in back[1..].iter().zip(statistics) {
        assert_eq!(back.bits(), s.bits(), "{back:?} {s:?}");
    }
    bytes
}

const STALE: f64 = f64::from_bits(STALE_NAN_BITS);

#[test]
fn definitions() {
    let s = Statistics::of(&[5.0, 7.0, STALE, 2.0, f64::NAN, 4.0]);
    assert_eq!((s.count, s.stale, s.resets), (5, 1, 1));
    assert_eq!((s.min, s.max, s.first, s.last), (2.0, 7.0, 5.0, 4.0));
    assert!(s.sum.is_nan() && s.compensation == 0.0);
    // 4 - 5, and the 7 that was lost at the reset.
    assert_eq!((s.increase, s.increase_compensation), (6.0, 0.0));
    let s = Statistics::of(&[f64::NAN, 1.0]);
    assert_eq!((s.min, s.max), (1.0, 1.0), "a NaN gives way to any number");
    assert!(Statistics::of(&[f64::NAN]).min.is_nan());
    let s = Statistics::of(&[-0.0, 0.0]);
    assert!(s.min.is_sign_negative() && s.max.is_sign_negative(), "the first of equal ones");
    assert!(Statistics::of(&[-0.0]).sum.is_sign_negative());
    let s = Statistics::of(&[1e100, 1.0, -1e100]);
    assert_eq!((s.sum, s.compensation), (0.0, 1.0));
    let s = Statistics::of(&[f64::INFINITY, 1.0, f64::INFINITY]);
    assert_eq!((s.sum, s.compensation), (f64::INFINITY, 0.0));
    assert_eq!(Statistics::of(&[]).bits(), Statistics::EMPTY.bits());
    assert_eq!(Statistics::of(&[STALE, STALE]).bits(), Statistics { stale: 2, ..Statistics::EMPTY }.bits());
    let s = Statistics::of(&[0.1, 1e17]);
    assert_eq!(s.increase + s.increase_compensation, 1e17);
    assert!(s.increase_compensation != 0.0, "what rounding loses is known");
}

#[test]
fn negative_zeros_stay() {
    check(&[&[-0.0][..], &[-0.0, STALE], &[-0.0, 0.5], &[0.1, -0.0], &[-0.5, -0.0, 0.0]].map(Statistics::of));
    let column: Vec<f64> = (0..100).map(|i| [-0.0, 0.5, -0.25][i % 3]).collect();
    let mut builder = crate::dense::FrameBuilder::new();
    builder.push(&column, 0, 0).unwrap();
    let (mut frame, mut back) = (Vec::new(), Vec::new());
    builder.finish(&mut frame);
    crate::dense::Frame::open(&frame).unwrap().decode(0, &mut back).unwrap();
    assert!(back.iter().map(|v| v.to_bits()).eq(column.iter().map(|v| v.to_bits())));
}

#[test]
fn sizes() {
    let constants: Vec<_> = (0..1000).map(|i| Statistics::of(&[f64::from(i % 7); 480])).collect();
    assert!(check(&constants).len() < 400);
    let counters: Vec<_> = (0..1000_u32)
        .map(|i| {
            let step = f64::from(i * 7919 % 997);
            let jump = f64::from(i * 31 % 11);
            Statistics::of(
                &(0..480).map(|k| f64::from(i) * 1000.0 + step * f64::from(k) + jump).collect::<Vec<_>>(),
            )
        })
        .collect();
    let bytes = check(&counters).len();
    assert!(bytes < 10_000, "{bytes}");
}

#[test]
fn limits_and_damage() {
    let too_many = vec![Statistics::EMPTY; FRAME_SLOTS_MAX + 1];
    let mut bytes = Vec::new();
    assert!(encode_statistics(&too_many, &mut bytes).is_err() && bytes.is_empty());
    check(&too_many[1..]);
    let odd: Vec<_> = (0..FRAME_SLOTS_MAX)
        .map(|i| {
            Statistics::of(&[f64::from_bits(0xc3b5_a731_55ab_1235 ^ (i as u64) << 31), 0.1, STALE, 1e-300])
        })
        .map(|s| Statistics { resets: u32::MAX, count: u32::MAX, stale: u32::MAX - s.stale, ..s })
        .collect();
    check(&odd);
    let bytes =
        check(&[Statistics::of(&[1.0, 2.5, 2.25]), Statistics::of(&[0.1; 7]), Statistics::of(&[f64::MAX])]);
    for len in 0..bytes.len() {
        let mut back = vec![Statistics::EMPTY];
        decode_statistics(&bytes[..len], &mut back).unwrap_err();
        assert_eq!(back.len(), 1);
    }
    for place in 0..bytes.len() {
        for xor in [1, 0x10, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] ^= xor;
            let _ = decode_statistics(&damaged, &mut Vec::new());
        }
    }
}

proptest! {
    #[test]
    fn statistics_of_anything_come_back(
        columns in proptest::collection::vec(proptest::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..6), 0..8),
        decimals in proptest::collection::vec(
            (0_i32..8, proptest::collection::vec(-100_000_i32..100_000, 0..40)), 0..8),
    ) {
        let mut all: Vec<_> = columns.iter().map(|values| Statistics::of(values)).collect();
        all.extend(decimals.iter().map(|(e, digits)| {
            Statistics::of(&digits.iter().map(|d| f64::from(*d) / 10_f64.powi(*e)).collect::<Vec<_>>())
        }));
        check(&all);
    }

    #[test]
    fn any_fields_come_back(
        counts in proptest::array::uniform3(any::<u32>()),
        floats in proptest::array::uniform8(prop_oneof![any::<u64>().prop_map(f64::from_bits), (-9_i8..9).prop_map(f64::from)]),
    ) {
        let [count, resets, stale] = counts;
        let [min, max, sum, compensation, first, last, increase, increase_compensation] = floats;
        check(&[Statistics {
            count, min, max, sum, compensation, first, last, increase, increase_compensation, resets, stale,
        }]);
    }
}
