use chronolith_chunk::decode_range_into;
use chronolith_model::STALE_NAN_BITS;
use chronolith_storage::Samples;

use super::*;
use crate::closed::WINDOW_MS;

#[derive(Default)]
struct Fixture {
    series: Option<Series>,
    closed: Vec<ClosedChunk>,
    accounts: Accounts,
}

impl Fixture {
    fn offer(&mut self, t: i64, bits: u64) -> bool {
        let series = self.series.get_or_insert_with(Series::vacant);
        let verdict = series.offer(&mut self.closed, t, bits, i64::MIN, &mut self.accounts);
        let chunks: usize = self.closed.iter().map(ClosedChunk::memory).sum();
        assert_eq!(self.accounts.bytes, chunks + series.open.capacity(), "the accounts are exact");
        verdict
    }

    fn read(&self, min: i64, max: i64) -> Vec<(i64, u64)> {
        let series = self.series.as_ref().expect("made");
        let range = TimeRange::new(min, max);
        let (chunks, open) = series.overlapping(&self.closed, range);
        let mut samples = Samples::default();
        for chunk in chunks {
            chunk.read(range, &mut samples).expect("whole");
        }
        decode_range_into(open, min, max, &mut samples.timestamps, &mut samples.values).expect("whole");
        samples.timestamps.into_iter().zip(samples.values.into_iter().map(f64::to_bits)).collect()
    }
}

#[test]
fn order_and_what_is_known() {
    let mut fixture = Fixture::default();
    for i in 0..1000_u64 {
        assert!(fixture.offer(i as i64 * 15_000, i));
    }
    assert!(fixture.closed.len() >= 8 && fixture.closed.iter().all(|c| c.count() <= 120));
    for i in 0..1000_u64 {
        let t = i as i64 * 15_000;
        assert!(!fixture.offer(t, i) && !fixture.offer(t, i + 1) && !fixture.offer(t - 1, i));
        let series = fixture.series.as_ref().expect("made");
        assert_eq!(series.known(&fixture.closed, t, Files::Read), Some(i));
        assert_eq!(series.known(&fixture.closed, t - 1, Files::Read), None);
    }
    assert_eq!(fixture.read(i64::MIN, i64::MAX).len(), 1000);
    assert_eq!(fixture.accounts.samples, 1000);
}

#[test]
fn chunks_stay_inside_their_window_and_bytes() {
    let mut fixture = Fixture::default();
    for t in [-1, 0, 1, WINDOW_MS - 1, WINDOW_MS, WINDOW_MS + 1, 5 * WINDOW_MS] {
        fixture.offer(t, 1);
    }
    let ends: Vec<_> = fixture.closed.iter().map(|chunk| (chunk.min(), chunk.max(), chunk.count())).collect();
    assert_eq!(ends, [(-1, 0, 2), (1, WINDOW_MS, 3), (WINDOW_MS + 1, WINDOW_MS + 1, 1)]);
    let mut noisy = Fixture::default();
    for i in 0..500_u64 {
        noisy.offer((i * i * 7) as i64 % 1000 + i as i64 * 1000, i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    let overhead = size_of::<ClosedChunk>() + 24;
    assert!(noisy.closed.iter().all(|chunk| chunk.memory() <= CHUNK_BYTES_MAX + overhead));
    assert!(noisy.closed.iter().any(|chunk| chunk.count() < 120));
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
        assert!(fixture.offer(*t, *bits));
        assert!(!fixture.offer(*t, *bits));
        let known = fixture.series.as_ref().unwrap().known(&fixture.closed, *t, Files::Read);
        assert_eq!(known, Some(*bits));
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
    assert_eq!(series.truncate(&mut fixture.closed, 2401, &mut fixture.accounts), 241);
    assert_eq!(series.first(&fixture.closed), Some(2410));
    assert_eq!(series.truncate(&mut fixture.closed, 4991, &mut fixture.accounts), 259);
    assert_eq!((series.first(&fixture.closed), series.last()), (None, None));
    assert_eq!((fixture.accounts.bytes, fixture.accounts.chunks), (0, 0));
}
