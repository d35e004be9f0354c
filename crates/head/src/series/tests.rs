use chronolith_model::STALE_NAN_BITS;

use super::*;

#[derive(Default)]
struct Fixture {
    series: Option<Series>,
    closed: Vec<ClosedChunk>,
    accounts: Accounts,
}

impl Fixture {
    fn offer(&mut self, t: i64, bits: u64) -> Verdict {
        let series = self.series.get_or_insert_with(Series::vacant);
        let verdict = series.offer(&mut self.closed, t, bits, &mut self.accounts);
        let chunks: usize = self.closed.iter().map(ClosedChunk::memory).sum();
        assert_eq!(self.accounts.bytes, chunks + series.open.capacity(), "the accounts are exact");
        verdict
    }

    fn read(&self, min: i64, max: i64) -> Vec<(i64, u64)> {
        let series = self.series.as_ref().expect("made");
        let (chunks, open) = series.overlapping(&self.closed, min, max);
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        for chunk in chunks {
            chunk.read(min, max, &mut timestamps, &mut values).expect("whole");
        }
        decode_range_into(open, min, max, &mut timestamps, &mut values).expect("whole");
        timestamps.into_iter().zip(values.into_iter().map(f64::to_bits)).collect()
    }
}

#[test]
fn order_duplicates_and_conflicts() {
    let mut fixture = Fixture::default();
    for i in 0..1000_u64 {
        assert_eq!(fixture.offer(i as i64 * 15_000, i), Verdict::Stored);
    }
    assert!(fixture.closed.len() >= 8 && fixture.closed.iter().all(|c| c.count <= 120));
    for i in 0..1000_u64 {
        let t = i as i64 * 15_000;
        assert_eq!(fixture.offer(t, i), Verdict::Duplicate, "a repeated request is no error");
        let other = if i == 999 { Verdict::Conflict(999) } else { Verdict::OutOfOrder };
        assert_eq!(fixture.offer(t, i + 1), other);
        assert_eq!(fixture.offer(t - 1, i), Verdict::OutOfOrder);
    }
    assert_eq!(fixture.read(i64::MIN, i64::MAX).len(), 1000);
    assert_eq!(fixture.accounts.samples, 1000);
}

#[test]
fn chunks_stay_inside_their_window_and_bytes() {
    let mut fixture = Fixture::default();
    for t in [-1, 0, 1, CHUNK_RANGE_MS - 1, CHUNK_RANGE_MS, 5 * CHUNK_RANGE_MS] {
        fixture.offer(t, 1);
    }
    let ends: Vec<_> = fixture.closed.iter().map(|chunk| (chunk.min, chunk.max(), chunk.count)).collect();
    assert_eq!(ends, [(-1, -1, 1), (0, CHUNK_RANGE_MS - 1, 3), (CHUNK_RANGE_MS, CHUNK_RANGE_MS, 1)]);
    let mut noisy = Fixture::default();
    for i in 0..500_u64 {
        noisy.offer((i * i * 7) as i64 % 1000 + i as i64 * 1000, i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    assert!(noisy.closed.iter().all(|chunk| chunk.bytes.len() <= CHUNK_BYTES_MAX));
    assert!(noisy.closed.iter().any(|chunk| chunk.count < 120));
}

#[test]
fn every_bit_pattern_survives() {
    let patterns = [
        STALE_NAN_BITS,
        f64::NAN.to_bits(),
        0x7ff8_0000_0000_beef,
        u64::MAX,
        (-0.0_f64).to_bits(),
        0,
        1 << 63 | 1,
    ];
    let mut fixture = Fixture::default();
    let samples: Vec<_> = (0..700).map(|i| (i as i64 * 10, patterns[i % patterns.len()])).collect();
    for (t, bits) in &samples {
        assert_eq!(fixture.offer(*t, *bits), Verdict::Stored);
        assert_eq!(fixture.offer(*t, *bits), Verdict::Duplicate);
    }
    assert_eq!(fixture.read(i64::MIN, i64::MAX), samples);
}

#[test]
fn ranges_are_closed_on_both_ends() {
    let mut fixture = Fixture::default();
    for t in 0..500 {
        fixture.offer(t * 10, t as u64);
    }
    for (min, max) in
        [(0, 0), (10, 20), (1195, 1205), (1200, 1200), (4990, 9999), (-5, -1), (5000, 6000), (11, 19)]
    {
        let expected: Vec<_> =
            (0..500).filter(|t| (min..=max).contains(&(t * 10))).map(|t| (t * 10, t as u64)).collect();
        assert_eq!(fixture.read(min, max), expected, "[{min}, {max}]");
    }
}

#[test]
fn truncation_drops_whole_chunks() {
    let mut fixture = Fixture::default();
    for t in 0..500 {
        fixture.offer(t * 10, 0);
    }
    let mut series = fixture.series.take().expect("made");
    series.truncate(&mut fixture.closed, 2400, &mut fixture.accounts);
    assert_eq!(series.first(&fixture.closed), Some(2400));
    assert_eq!(fixture.accounts.dropped, 240);
    series.truncate(&mut fixture.closed, 4991, &mut fixture.accounts);
    assert_eq!((series.first(&fixture.closed), series.last()), (None, None));
    assert_eq!((fixture.accounts.bytes, fixture.accounts.chunks, fixture.accounts.dropped), (0, 0, 500));
}
