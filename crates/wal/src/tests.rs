//! Decoders of payloads, met with anything.

use proptest::prelude::*;

use crate::entries::{self, BLOB_BYTES_MAX, EntryColumn, LoggedBlob, LoggedStart, RECORD_ENTRIES_MAX};
use crate::record::{FLAG_ZSTD, Unpacker, content, decode_floor, encode_floor};
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
        let mut scratch = Unpacker::default();
        assert_eq!(content(FLAG_ZSTD, &payload, &mut scratch).is_ok(), good, "{len}");
        assert!(content(2, &payload, &mut scratch).is_err(), "flags not known");
    }
}

/// The payloads of all records.
fn payloads(column: &mut EntryColumn) -> Vec<Vec<u8>> {
    column.close();
    let starts = [0].into_iter().chain(column.ends().iter().map(|end| end.off));
    let payload = |(from, end)| {
        let mut out = Vec::new();
        column.payload(from, end, &mut out);
        out
    };
    starts.zip(column.ends()).map(payload).collect()
}

#[test]
fn entries_come_in_records_of_bounded_number_and_size() {
    let mut column = EntryColumn::default();
    for i in 0..RECORD_ENTRIES_MAX as u32 + 1 {
        column.start(i, 0, 0);
    }
    let counts = |column: &mut EntryColumn| {
        column.close();
        column.ends().iter().map(|end| end.count).collect::<Vec<_>>()
    };
    assert_eq!(counts(&mut column), [RECORD_ENTRIES_MAX, 1]);
    let last = entries::decode_starts(&payloads(&mut column)[1]).unwrap();
    let want = LoggedStart { series: RECORD_ENTRIES_MAX as u32, since: 0, start: 0 };
    assert_eq!(last, [want], "each record stands for itself");
    column.clear(0);
    assert!(column.is_empty() && payloads(&mut column).is_empty());
    let long = vec![7; BLOB_BYTES_MAX];
    for bytes in [&long[..10], &long, &long, &[]] {
        column.blob(1, 5, bytes);
    }
    assert_eq!(counts(&mut column), [2, 1, 1], "a record with a mebibyte is full");
    for payload in payloads(&mut column) {
        assert!(entries::decode_blobs(&payload).is_ok());
    }
}

#[test]
fn entries_beyond_a_limit_are_refused() {
    let payload = |entry: &dyn Fn(&mut Vec<u8>)| {
        let mut out = vec![1];
        entry(&mut out);
        out
    };
    for step in [-1, i64::from(u32::MAX) + 1, i64::MIN, i64::MAX] {
        let bytes = payload(&|out| {
            chronolith_codec::write::varint(out, step);
            out.extend([0, 0]);
        });
        let refused = entries::decode_starts(&bytes).unwrap_err();
        assert!(refused.to_string().contains("series ref"), "{refused}");
    }
    let blob = |len: usize| {
        let bytes = payload(&|out| {
            out.extend([0, 0]);
            chronolith_codec::write::prefixed(out, &vec![0; len]);
        });
        entries::decode_blobs(&bytes).is_ok()
    };
    assert!(blob(BLOB_BYTES_MAX) && !blob(BLOB_BYTES_MAX + 1));
    // More entries than the bytes can hold: nothing is allocated for them.
    assert!(entries::decode_starts(&[0x80, 0x80, 0x04, 0, 0, 0]).is_err());
}

proptest! {
    #[test]
    fn entries_round_trip(
        rows in proptest::collection::vec(
            (any::<u32>(), any::<i64>(), any::<i64>(), proptest::collection::vec(any::<u8>(), 0..20)), 1..50)) {
        let (mut blobs, mut starts) = (EntryColumn::default(), EntryColumn::default());
        for (series, t, start, bytes) in &rows {
            blobs.blob(*series, *t, bytes);
            starts.start(*series, *t, *start);
        }
        let (blobs, starts) = (payloads(&mut blobs).remove(0), payloads(&mut starts).remove(0));
        let want: Vec<_> =
            rows.iter().map(|(series, timestamp, _, bytes)| LoggedBlob { series: *series, timestamp: *timestamp, bytes }).collect();
        prop_assert_eq!(entries::decode_blobs(&blobs).unwrap(), want);
        let want: Vec<_> =
            rows.iter().map(|(series, since, start, _)| LoggedStart { series: *series, since: *since, start: *start }).collect();
        prop_assert_eq!(entries::decode_starts(&starts).unwrap(), want);
        for len in 0..blobs.len() {
            prop_assert!(entries::decode_blobs(&blobs[..len]).is_err());
        }
        for len in 0..starts.len() {
            prop_assert!(entries::decode_starts(&starts[..len]).is_err());
        }
    }

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
        prop_assert!(entries::decode_blobs(&bytes).map_or(0, |entries| entries.capacity()) <= bytes.len());
        prop_assert!(entries::decode_starts(&bytes).map_or(0, |entries| entries.capacity()) <= bytes.len());
        let _ = content(FLAG_ZSTD, &bytes, &mut Unpacker::default());
    }
}
