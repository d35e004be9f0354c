//! Dense frames, timestamp columns and pages of statistics: whatever the bytes are, reading them ends with columns of the
//! promised length or an error, slot by slot as with a decoder; what was written comes back bit for bit.
#![no_main]

use chronolith_chunk::dense::{
    Frame, FrameBuilder, Statistics, decode_statistics, decode_timestamps, encode_statistics,
    encode_timestamps,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    match mode % 6 {
        0 => read_frame(data),
        1 => read_frame(&uncompressed(data)),
        2 => read_timestamps(data),
        3 => read_statistics(data),
        4 => read_statistics(&[&[1, 0], &len(data)[..], &len(data), data].concat()),
        _ => round_trip(data),
    }
});

fn len(data: &[u8]) -> [u8; 4] {
    (data.len() as u32).to_le_bytes()
}

/// A frame whose fields and payloads, which share `data`, are past zstd: mutations reach what is behind it.
fn uncompressed(data: &[u8]) -> Vec<u8> {
    let Some((at, data)) = data.split_first_chunk::<2>() else { return Vec::new() };
    let (fields, payloads) = data.split_at(data.len().min(usize::from(u16::from_le_bytes(*at))));
    let mut frame = vec![1];
    for piece in [fields, payloads] {
        frame.push(0);
        frame.extend(len(piece));
        frame.extend(len(piece));
        frame.extend(piece);
    }
    frame
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn read_frame(bytes: &[u8]) {
    let Ok(frame) = Frame::open(bytes) else { return };
    let mut decoder = frame.decoder();
    // Constant columns are long for few bytes: not all of them, to stay quick.
    let mut left = 1_usize << 20;
    for slot in 0..frame.slots() {
        let samples = frame.samples(slot).expect("a slot");
        let (mut alone, mut together) = (vec![1.0], vec![1.0]);
        let decoded = frame.decode(slot, &mut alone);
        assert_eq!(decoded, decoder.decode(slot, &mut together));
        assert_eq!(bits(&alone), bits(&together));
        assert_eq!(alone.len(), 1 + if decoded.is_ok() { samples } else { 0 });
        assert!(
            frame
                .encoding(slot)
                .is_some_and(|encoding| encoding.reference.is_none_or(|r| usize::from(r) < slot))
        );
        left = left.saturating_sub(samples);
        if left == 0 {
            return;
        }
    }
}

fn read_timestamps(bytes: &[u8]) {
    let mut timestamps = Vec::new();
    if decode_timestamps(bytes, &mut timestamps).is_err() {
        assert!(timestamps.is_empty());
        return;
    }
    assert!(timestamps.is_sorted_by(|a, b| a < b));
    let (mut again, mut back) = (Vec::new(), Vec::new());
    encode_timestamps(&timestamps, &mut again).expect("ascending");
    decode_timestamps(&again, &mut back).expect("a column of our own");
    assert_eq!(back, timestamps);
}

fn read_statistics(bytes: &[u8]) {
    let mut statistics = Vec::new();
    if decode_statistics(bytes, &mut statistics).is_err() {
        assert!(statistics.is_empty());
        return;
    }
    same_statistics(&statistics);
}

fn same_statistics(statistics: &[Statistics]) {
    let (mut bytes, mut back) = (Vec::new(), Vec::new());
    encode_statistics(statistics, &mut bytes).expect("as many as were read");
    decode_statistics(&bytes, &mut back).expect("a page of our own");
    assert!(statistics.iter().map(Statistics::bits).eq(back.iter().map(Statistics::bits)));
}

/// Columns made of `data`: pieces of it as integers, decimals, sums or bits, each a continuation of the one before.
fn round_trip(data: &[u8]) {
    let mut builder = FrameBuilder::new();
    let mut columns: Vec<Vec<f64>> = Vec::new();
    let mut at = 0.0;
    for part in data.chunks(64).take(64) {
        let [how, part @ ..] = part else { continue };
        let mut column: Vec<f64> = match how % 5 {
            0 => part.iter().map(|byte| f64::from(*byte)).collect(),
            1 => part.iter().map(|byte| f64::from(*byte) / 100.0).collect(),
            2 => part.as_chunks::<8>().0.iter().map(|eight| f64::from_le_bytes(*eight)).collect(),
            3 => part
                .iter()
                .map(|byte| f64::from(*byte) * 0.1)
                .map(|x| {
                    at += x;
                    at
                })
                .collect(),
            _ => columns
                .last()
                .into_iter()
                .flatten()
                .zip(part)
                .map(|(x, byte)| x + f64::from(byte & 3))
                .collect(),
        };
        if how & 0x80 != 0
            && let Some(value) = column.last_mut()
        {
            *value = f64::from_bits(0x7ff0_0000_0000_0002);
        }
        builder.push(&column, u64::from(how >> 5 & 1), u64::from(how >> 6 & 1)).expect("short columns");
        columns.push(column);
    }
    let mut frame = Vec::new();
    builder.finish(&mut frame);
    let frame = Frame::open(&frame).expect("a frame of our own");
    for (slot, column) in columns.iter().enumerate() {
        let mut back = Vec::new();
        frame.decode(slot, &mut back).expect("a slot of our own");
        assert_eq!(bits(&back), bits(column));
    }
    same_statistics(&columns.iter().map(|column| Statistics::of(column)).collect::<Vec<_>>());
}
