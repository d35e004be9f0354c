//! Decoders of payloads, met with anything.

use proptest::prelude::*;

use crate::record::{FLAG_ZSTD, content, decode_floor, encode_floor};
use crate::samples::{LoggedSample, SampleColumns};
use crate::{samples, segment, series};

fn encode(rows: &[(u32, i64, u64)]) -> Vec<u8> {
    let mut columns = SampleColumns::default();
    for &(series, t, bits) in rows {
        columns.push(series, t, bits);
    }
    columns.close();
    let mut out = Vec::new();
    if let Some(end) = columns.ends().first() {
        columns.payload(&samples::BlockEnd::default(), end, &mut out);
        assert_eq!(end.min_t, rows.iter().map(|row| row.1).min().unwrap());
        assert_eq!(end.max_t, rows.iter().map(|row| row.1).max().unwrap());
    }
    out
}

#[test]
fn names_of_segments() {
    assert_eq!(segment::number("00000012.wal"), Some(12));
    assert_eq!(segment::number("123456789.wal"), Some(123_456_789));
    for other in
        ["12.wal", "0123456789.wal", "00000000.wal", "0000001a.wal", "00000001.bad", "99999999999.wal", ""]
    {
        assert_eq!(segment::number(other), None, "{other}");
    }
}

#[test]
fn equal_values_and_steps_cost_one_byte() {
    let rows: Vec<(u32, i64, u64)> =
        (0..1000).map(|i| (i * 16, 1_700_000_000_000, 1_f64.to_bits())).collect();
    assert!(encode(&rows).len() < 1000 + 32);
}

#[test]
fn payloads_that_unpack_to_more_or_less_than_they_say_are_refused() {
    let packed = zstd::bulk::compress(&[7; 1000], 1).unwrap();
    for (len, good) in [
        (1000_u64, true),
        (999, false),
        (1001, false),
        (u64::MAX, false),
        (70 << 20, false),
        (5 << 20, false),
    ] {
        let mut payload = Vec::new();
        chronolith_codec::write::uvarint(&mut payload, len);
        payload.extend_from_slice(&packed);
        let mut scratch = Vec::new();
        assert_eq!(content(FLAG_ZSTD, &payload, &mut scratch).is_ok(), good, "{len}");
        assert!(content(2, &payload, &mut scratch).is_err(), "flags not known");
    }
}

proptest! {
    #[test]
    fn samples_round_trip(rows in proptest::collection::vec((any::<u32>(), any::<i64>(), any::<u64>()), 1..50)) {
        let payload = encode(&rows);
        let mut out: Vec<LoggedSample> = Vec::new();
        samples::decode(&payload, &mut out).unwrap();
        let got: Vec<_> = out.iter().map(|s| (s.series, s.timestamp, s.value.to_bits())).collect();
        prop_assert_eq!(got, rows);
        for len in 0..payload.len() {
            prop_assert!(samples::decode(&payload[..len], &mut out).is_err());
        }
    }

    #[test]
    fn floors_round_trip(tenant in proptest::option::of("[a-z]{0,9}"), min_t in any::<i64>()) {
        let mut payload = Vec::new();
        encode_floor(tenant.as_deref(), min_t, &mut payload);
        prop_assert_eq!(decode_floor(&payload), Ok((tenant.as_deref(), min_t)));
    }

    #[test]
    fn arbitrary_payloads_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut out = Vec::new();
        let _ = samples::decode(&bytes, &mut out);
        prop_assert!(out.capacity() <= 4 * bytes.len().max(4));
        let _ = series::decode(&bytes, |definition| assert!(definition.labels.clone().count() <= bytes.len()));
        let _ = decode_floor(&bytes);
        let _ = content(FLAG_ZSTD, &bytes, &mut Vec::new());
    }
}
