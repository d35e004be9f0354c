//! Chunks: the ways of reading one agree; what was appended comes back bit for bit.
#![no_main]

use chronolith_chunk::{SAMPLES_MAX, XorAppender, XorIter, decode_into, decode_range_into, sample_count};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    if mode & 1 == 0 { read(data) } else { round_trip(data) }
});

fn read(chunk: &[u8]) {
    let (mut times, mut values) = (vec![-1], vec![-1.0]);
    let all = decode_into(chunk, &mut times, &mut values);
    let one_by_one: Result<Vec<_>, _> = XorIter::new(chunk).collect();
    match (&all, &one_by_one) {
        (Ok(count), Ok(samples)) => {
            assert_eq!(*count, sample_count(chunk));
            assert_eq!(samples.len(), *count);
            assert_eq!(times.len(), *count + 1);
            for (i, (t, v)) in samples.iter().enumerate() {
                assert_eq!((times[i + 1], values[i + 1].to_bits()), (*t, v.to_bits()));
            }
        }
        (Err(_), Err(_)) => assert_eq!((times.len(), values.len()), (1, 1)),
        _ => panic!("the readers disagree: {all:?} against {one_by_one:?}"),
    }
    let (mut times, mut values) = (Vec::new(), Vec::new());
    if let Ok(count) = decode_range_into(chunk, -1_000, 1_000, &mut times, &mut values) {
        assert_eq!((times.len(), values.len()), (count, count));
        assert!(times.iter().all(|t| (-1_000..=1_000).contains(t)));
    }
}

fn round_trip(data: &[u8]) {
    let mut chunk = Vec::new();
    let mut appender = XorAppender::default();
    let mut expected = Vec::new();
    let mut t = 0i64;
    for part in data.chunks_exact(12).take(SAMPLES_MAX) {
        // Deltas of all sizes: a small number shifted far.
        let delta = u64::from(u16::from_le_bytes([part[0], part[1]])) << (part[2] % 46);
        let Some(next) = t.checked_add_unsigned(delta) else { break };
        t = next;
        let bits =
            u64::from_le_bytes([part[4], part[5], part[6], part[7], part[8], part[9], part[10], part[11]]);
        if appender.append(&mut chunk, t, f64::from_bits(bits)).is_err() {
            break;
        }
        expected.push((t, bits));
    }
    let read: Vec<_> =
        XorIter::new(&chunk).map(|s| s.expect("a chunk of our own")).map(|(t, v)| (t, v.to_bits())).collect();
    assert_eq!(read, expected);
}
