use proptest::prelude::*;

use super::*;
use crate::Error;

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Builds a frame of `columns`, checks every way of reading it, and returns its bytes.
#[track_caller]
fn check(columns: &[(Vec<f64>, u64, u64)]) -> Vec<u8> {
    let mut builder = FrameBuilder::new();
    let mut first = Vec::new();
    // The second frame of a builder is the same as the first.
    for round in 0..2 {
        for (i, (values, timeline, family)) in columns.iter().enumerate() {
            assert_eq!(builder.push(values, *timeline, *family), Ok(i as u16));
        }
        assert_eq!(builder.slots(), columns.len());
        let (encoded_len, mut bytes) = (builder.encoded_len(), Vec::new());
        builder.finish(&mut bytes);
        assert!(bytes.len() <= encoded_len + 64, "{} > {encoded_len}", bytes.len());
        assert_eq!((builder.slots(), builder.encoded_len()), (0, 0));
        if round == 0 {
            first = bytes;
        } else {
            assert_eq!(first, bytes);
        }
    }
    let frame = Frame::open(&first).unwrap();
    assert_eq!(frame.slots(), columns.len());
    assert!(frame.heap_bytes() > 0 || columns.is_empty());
    let mut decoder = frame.decoder();
    for (slot, (values, ..)) in columns.iter().enumerate() {
        assert_eq!(frame.samples(slot), Some(values.len()));
        let info = frame.encoding(slot).unwrap();
        assert!(info.bytes > 0 && info.reference.is_none_or(|reference| usize::from(reference) < slot));
        let (mut alone, mut together) = (vec![1.5], vec![2.5, 3.5]);
        frame.decode(slot, &mut alone).unwrap();
        decoder.decode(slot, &mut together).unwrap();
        assert_eq!(bits(&alone[1..]), bits(values), "slot {slot}, {info:?}");
        assert_eq!(bits(&together[2..]), bits(values), "slot {slot}, {info:?}, by decoder");
        assert_eq!((alone[0], together[0], together[1]), (1.5, 2.5, 3.5));
    }
    // Backwards, without what a decoder would have kept.
    let mut decoder = frame.decoder();
    for (slot, (values, ..)) in columns.iter().enumerate().rev() {
        let mut together = Vec::new();
        decoder.decode(slot, &mut together).unwrap();
        assert_eq!(bits(&together), bits(values));
    }
    let slots = columns.len();
    assert_eq!(frame.decode(slots, &mut Vec::new()), Err(Error::NoSlot { slot: slots, slots }));
    assert_eq!((frame.samples(slots), frame.encoding(slots)), (None, None));
    first
}

fn column(count: usize, value: impl FnMut(usize) -> f64) -> (Vec<f64>, u64, u64) {
    ((0..count).map(value).collect(), 0, 0)
}

#[track_caller]
fn encoding(values: Vec<f64>) -> (Mode, Transform) {
    let bytes = check(&[(values, 0, 0)]);
    let info = Frame::open(&bytes).unwrap().encoding(0).unwrap();
    (info.mode, info.transform)
}

/// Numbers without a pattern, the same ones every time.
fn noise(i: usize) -> u64 {
    let mut x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn below(i: usize, n: u64) -> f64 {
    (noise(i) % n) as f64
}

#[test]
fn nothing_and_little() {
    check(&[]);
    check(&[(vec![], 0, 0), (vec![1.0], 0, 0), (vec![], 0, 0), (vec![0.1, 0.2], 0, 0)]);
}

#[test]
fn each_mode_is_chosen_for_what_it_is_good_at() {
    assert_eq!(encoding(vec![7.0; 100]), (Mode::Int, Transform::Constant));
    assert_eq!(encoding(vec![0.1; 100]), (Mode::Decimal, Transform::Constant));
    assert_eq!(encoding(vec![f64::NAN; 100]), (Mode::Bits, Transform::Constant));
    assert_eq!(
        encoding((0..100).map(|i| f64::from(i) * 5.0).collect()),
        (Mode::Int, Transform::ConstantDelta)
    );
    assert_eq!(encoding((0..100).map(|i| f64::from(i / 40)).collect()), (Mode::Int, Transform::Runs));
    let gauge = (0..500).map(|i| below(i, 100) / 100.0).collect();
    assert_eq!(encoding(gauge), (Mode::Decimal, Transform::FrameOfReference));
    let milli = (0..500).map(|i| (1000.0 + below(i, 1000)) * 0.001).collect();
    assert_eq!(encoding(milli), (Mode::Multiple, Transform::FrameOfReference));
    let mut total = 0.0;
    let counter = (0..500).map(|i| {
        total += 1000.0 + below(i, 4);
        total
    });
    assert_eq!(encoding(counter.collect()), (Mode::Int, Transform::DeltaBase));
    let mut total = 0.0;
    let sums = (0..500).map(|i| {
        total += below(i, 1000) / 1000.0;
        total
    });
    assert_eq!(encoding(sums.collect()).0, Mode::Ulp);
    assert_eq!(encoding((0..500).map(|i| f64::from_bits(noise(i))).collect()).0, Mode::Bits);
    let walk = {
        let mut at = 0.0;
        (0..500).map(move |i| {
            at += below(i, 9) - 4.0;
            at
        })
    };
    assert_eq!(encoding(walk.collect()), (Mode::Int, Transform::Delta));
    let falling = (0..500).map(|i| 4.9 * f64::from(i) * f64::from(i) * 10.0 + (noise(i as usize) % 2) as f64);
    assert_eq!(encoding(falling.map(f64::round).collect()), (Mode::Int, Transform::Delta2));
    assert_eq!(
        encoding((0..500).map(|i| 1e6 + i as f64 * 15_000.0 + below(i, 8)).collect()),
        (Mode::Int, Transform::Line)
    );
}

#[test]
fn exceptions_stay_what_they_are() {
    let stale = f64::from_bits(STALE_NAN_BITS);
    let payload = f64::from_bits(0xfff8_dead_beef_0001);
    let (mut values, ..) = column(480, |i| i as f64 + below(i, 3));
    for (place, value) in [(0, stale), (1, stale), (17, f64::NEG_INFINITY), (200, payload), (479, -0.0)] {
        values[place] = value;
    }
    values[300..330].fill(f64::INFINITY);
    assert_eq!(encoding(values.clone()), (Mode::Int, Transform::DeltaBase));
    let bytes = check(&[(values, 0, 0)]);
    assert!(bytes.len() < 300, "{}", bytes.len());
    // Every second value: too many, so all bits are kept as they are.
    let (mut values, ..) = column(480, |i| i as f64);
    values.iter_mut().step_by(2).for_each(|value| *value = stale);
    assert_eq!(encoding(values).0, Mode::Bits);
    check(&[column(3, |_| stale), (vec![stale, 1.0], 0, 0), (vec![1.0, stale, 1.0], 0, 0)]);
}

#[test]
fn columns_alike_refer_to_each_other() {
    let base: Vec<f64> = (0..480)
        .scan(0.0, |total, i| {
            *total += below(i, 1000);
            Some(*total)
        })
        .collect();
    let moved: Vec<f64> = base.iter().map(|value| value + 77.0).collect();
    // A bucket above: the same, and a little more.
    let above: Vec<f64> = base.iter().enumerate().map(|(i, value)| value + (i / 60) as f64).collect();
    let other = column(480, |i| below(i + 1000, 1000)).0;
    let columns = [
        (base, 1, 1),
        (other, 1, 9),
        (moved.clone(), 1, 2),
        (above.clone(), 1, 1),
        (above, 2, 1),
        (moved, 1, 3),
    ];
    let bytes = check(&columns);
    let frame = Frame::open(&bytes).unwrap();
    let references: Vec<_> = (0..6).map(|slot| frame.encoding(slot).unwrap().reference).collect();
    assert_eq!(references, [None, None, Some(0), Some(0), None, Some(0)], "none across timelines");
    assert!(frame.encoding(2).unwrap().bytes < 8);
}

#[test]
fn copies_of_columns_that_are_no_decimals() {
    let sums: Vec<f64> = (0..480)
        .scan(0.0, |total, i| {
            *total += below(i, 1000) / 1000.0;
            Some(*total)
        })
        .collect();
    let bytes = check(&[(sums.clone(), 1, 1), (sums.clone(), 1, 2), (sums, 1, 3)]);
    let frame = Frame::open(&bytes).unwrap();
    let info = frame.encoding(2).unwrap();
    assert_eq!((info.mode, info.reference), (Mode::Copy, Some(0)));
    assert!(info.bytes <= 3);
}

#[test]
fn chains_end() {
    // Each column is the one before and a little more, of the same family: a chain as long as the frame, if it could.
    let columns: Vec<_> = (0..100_usize)
        .map(|k| {
            let mut total = 0.0;
            let values = (0..480).map(|i| {
                total += below(i, 1 << 20)
                    + (0..=k).filter(|j| noise(i * 100 + j).is_multiple_of(97)).count() as f64;
                total
            });
            (values.collect(), 1, 1)
        })
        .collect();
    let frame = Frame::open(&check(&columns)).unwrap();
    let mut depths = [0_u8; 100];
    for slot in 0..100 {
        if let Some(reference) = frame.encoding(slot).unwrap().reference {
            depths[slot] = depths[usize::from(reference)] + 1;
        }
    }
    assert_eq!(depths.iter().max(), Some(&layout::CHAIN_MAX));
}

#[test]
fn limits() {
    let mut builder = FrameBuilder::new();
    let long = vec![0.5; COLUMN_SAMPLES_MAX + 1];
    assert!(matches!(builder.push(&long, 0, 0), Err(Error::TooLarge { of: "samples in a column", .. })));
    assert_eq!(builder.slots(), 0);
    check(&[(long[1..].to_vec(), 0, 0)]);
    for slot in 0..FRAME_SLOTS_MAX {
        assert_eq!(builder.push(&[slot as f64], 0, 0), Ok(slot as u16));
    }
    assert!(matches!(builder.push(&[1.0], 0, 0), Err(Error::TooLarge { of: "slots", .. })));
    let mut bytes = Vec::new();
    builder.finish(&mut bytes);
    assert_eq!(Frame::open(&bytes).unwrap().slots(), FRAME_SLOTS_MAX);
    // Incompressible columns: the builder says stop while the frame can still be opened.
    let noisy: Vec<f64> = (0..COLUMN_SAMPLES_MAX).map(|i| f64::from_bits(noise(i))).collect();
    let mut pushed = 0;
    while builder.push(&noisy, pushed, 0).is_ok() {
        pushed += 1;
    }
    assert!(builder.encoded_len() <= FRAME_BYTES_MAX);
    bytes.clear();
    builder.finish(&mut bytes);
    let frame = Frame::open(&bytes).unwrap();
    let mut values = Vec::new();
    frame.decode(pushed as usize - 1, &mut values).unwrap();
    assert_eq!(bits(&values), bits(&noisy));
}

/// The worked examples of docs/format/dense.md.
#[test]
fn bytes_are_those_of_the_document() {
    let document = include_str!("../../../../docs/format/dense.md");
    let documented = |bytes: &[u8]| {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex = format!("\n`{}`\n", hex.join(" "));
        assert!(document.contains(&hex), "{hex}");
    };
    let stale = f64::from_bits(STALE_NAN_BITS);
    let columns = [
        vec![5.0; 6],
        vec![10.0, 12.0, 15.0, 15.0, 19.0, 20.0],
        vec![110.0, 112.0, 115.0, 115.0, 119.0, 120.0],
        vec![0.25, stale, 1.5, 0.75, 0.5, 40.0],
    ];
    let slots: Vec<_> = columns.iter().map(|values| (values.clone(), 1, 1)).collect();
    documented(&check(&slots));
    let mut bytes = Vec::new();
    let statistics: Vec<_> = columns.iter().map(|values| Statistics::of(values)).collect();
    encode_statistics(&statistics, &mut bytes).unwrap();
    documented(&bytes);
    bytes.clear();
    let timestamps = [0, 15_003, 30_000, 45_001, 60_002, 75_000].map(|t| 1_700_000_000_000 + t);
    encode_timestamps(&timestamps, &mut bytes).unwrap();
    documented(&bytes);
}

fn sample_frame() -> Vec<u8> {
    let mut columns = vec![
        column(300, |i| i as f64 + below(i, 9)),
        column(300, |_| 4.5),
        column(300, |i| below(i, 3) / 8.0),
    ];
    columns.push((columns[0].0.iter().map(|value| value + 1.0).collect(), 0, 0));
    columns.push(column(300, |i| (i as f64).sqrt()));
    columns.push(column(300, |i| if i == 100 { f64::NAN } else { 3.0 * (i / 100) as f64 }));
    check(&columns)
}

/// The fields and payloads of a frame, undone from zstd.
fn undone(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut reader = chronolith_codec::Reader::new(&bytes[1..]);
    let mut piece = || {
        let piece = squeeze::Piece::read(UNIT_FRAME, &mut reader, FRAME_BYTES_MAX).unwrap();
        let mut bytes = vec![0; piece.len()];
        piece.undo(&mut bytes).unwrap();
        bytes
    };
    (piece(), piece())
}

/// A frame of fields and payloads, without zstd.
fn stored(fields: &[u8], payloads: &[u8]) -> Vec<u8> {
    let mut bytes = vec![layout::VERSION];
    for piece in [fields, payloads] {
        bytes.push(0);
        bytes.extend((piece.len() as u32).to_le_bytes());
        bytes.extend((piece.len() as u32).to_le_bytes());
        bytes.extend(piece);
    }
    bytes
}

/// Opens and decodes whatever the bytes are.
fn read_all(bytes: &[u8]) -> Result<(), Error> {
    let frame = Frame::open(bytes)?;
    let mut decoder = frame.decoder();
    let mut result = Ok(());
    for slot in 0..frame.slots() {
        let mut alone = vec![9.0];
        let mut together = vec![9.0];
        let decoded = frame.decode(slot, &mut alone);
        assert_eq!(decoded, decoder.decode(slot, &mut together));
        assert_eq!(bits(&alone), bits(&together));
        assert_eq!(alone.len(), 1 + if decoded.is_ok() { frame.samples(slot).unwrap() } else { 0 });
        result = result.and(decoded);
    }
    result
}

#[test]
fn truncated_frames_are_refused() {
    let bytes = sample_frame();
    for len in 0..bytes.len() {
        read_all(&bytes[..len]).unwrap_err();
    }
    let mut longer = bytes;
    longer.push(0);
    read_all(&longer).unwrap_err();
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_it_is_believed() {
    let mut bytes = sample_frame();
    bytes[2..6].copy_from_slice(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
    assert!(matches!(Frame::open(&bytes), Err(Error::Invalid { expected: "a length within the limit", .. })));
    bytes[0] = 2;
    assert!(matches!(Frame::open(&bytes), Err(Error::Invalid { expected: "version 1", got: 2, .. })));
}

/// Floats as they are scraped, and as nobody would: all kinds, and neighbours of all kinds.
fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-1000_i32..1000).prop_map(f64::from),
        2 => (any::<i32>(), 0_u8..8).prop_map(|(digits, e)| f64::from(digits) / numbers::power(e)),
        1 => (any::<i32>(), 1_u8..8).prop_map(|(digits, e)| f64::from(digits) * numbers::fraction(e)),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => (0_u64..1 << 52).prop_map(|payload| f64::from_bits(0x7ff0_0000_0000_0000 | payload)),
        1 => proptest::sample::select(vec![
            0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324,
            f64::from_bits(STALE_NAN_BITS), 9_007_199_254_740_993.0, 9.223_372_036_854_776e18, -9.223_372_036_854_776e18,
            1e22, 1e23, 1e-22, 0.1 + 0.2,
        ]),
    ]
}

/// Columns that one generator makes: pure noise, or one kind with a few others in it.
fn any_column() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        proptest::collection::vec(any_value(), 0..150),
        (any_value(), proptest::collection::vec((0_usize..150, any_value()), 0..8), 1_usize..150).prop_map(
            |(value, others, len)| {
                let mut column = vec![value; len];
                for (place, other) in others {
                    if let Some(value) = column.get_mut(place) {
                        *value = other;
                    }
                }
                column
            }
        ),
        (any::<i32>(), 0_u8..4, proptest::collection::vec((0_i64..50, 0_u32..40), 1..150), any::<bool>())
            .prop_map(|(start, e, steps, exact)| {
                let mut at = i64::from(start);
                let steps = steps.into_iter().map(|(step, shift)| {
                    at = at.wrapping_add(if shift > 36 { step << shift } else { step });
                    if exact { at as f64 / numbers::power(e) } else { at as f64 * 0.123_456_789 }
                });
                steps.collect()
            }),
    ]
}

proptest! {
    #[test]
    fn every_bit_comes_back(columns in proptest::collection::vec((any_column(), 0_u64..2, 0_u64..3), 0..12)) {
        check(&columns);
    }

    #[test]
    fn columns_that_differ_little(
        values in any_column(),
        changes in proptest::collection::vec((0_usize..150, any_value(), -3_i32..3), 1..20),
    ) {
        let mut columns = vec![(values, 1, 1)];
        for (place, other, offset) in changes {
            let mut next: Vec<f64> = columns[columns.len() - 1].0.iter().map(|value| value + f64::from(offset)).collect();
            if let Some(value) = next.get_mut(place) {
                *value = other;
            }
            columns.push((next, 1, 1));
        }
        check(&columns);
    }

    #[test]
    fn damage_never_panics(place in 0_usize..2000, xor in 1_u8.., keep in 0_usize..2000) {
        let bytes = sample_frame();
        let mut damaged = bytes.clone();
        let place = place % damaged.len();
        damaged[place] ^= xor;
        let _ = read_all(&damaged);
        damaged.truncate(keep);
        let _ = read_all(&damaged);
        // The same, past zstd: fields and payloads damaged before they are stored.
        let (mut fields, payloads) = undone(&bytes);
        let len = fields.len();
        fields.extend(payloads);
        let place = place % fields.len();
        fields[place] ^= xor;
        let damaged = stored(&fields[..len], &fields[len..]);
        let _ = read_all(&damaged);
    }
}
