use chronolith_model::{
    histogram::{HistogramParts, Span},
    stale_nan,
};
use chronolith_storage::RejectReason;

use super::*;
use crate::{
    offer::{LateRule, Verdict},
    series::CHUNK_SAMPLES_MAX,
    shard::ShardState,
};

const RULE: LateRule = LateRule::Window { ms: 3_600_000 };

/// A counter of `n` observations in each of `buckets` buckets.
fn counter(buckets: u32, n: u64) -> Histogram {
    let parts = HistogramParts {
        zero_threshold: 0.001,
        count: n * u64::from(buckets),
        sum: n as f64 * 1.5,
        positive_spans: vec![Span { offset: 0, length: buckets }],
        positive_buckets: vec![n; buckets as usize],
        ..HistogramParts::default()
    };
    parts.build(None).unwrap().into()
}

fn gauge(n: u64) -> Histogram {
    let mut gauge = counter(2, n);
    gauge.set_hint(CounterResetHint::Gauge);
    gauge
}

/// A shard with one series, in slot 0.
fn shard() -> ShardState {
    let mut state = ShardState::default();
    state.slab.insert(0, 7);
    state
}

fn give(state: &mut ShardState, t: Timestamp, histogram: &Histogram) -> Verdict {
    state.series_mut(0).unwrap().histogram(t, histogram, RULE, &mut Vec::new())
}

fn float(state: &mut ShardState, t: Timestamp, value: f64) -> Verdict {
    state.series_mut(0).unwrap().float((t, value.to_bits()), RULE)
}

fn read(state: &mut ShardState) -> Samples {
    let mut samples = Samples::default();
    let ShardState { histograms, accounts, .. } = state;
    if let Some(copy) = histograms.copy(0, (TimeRange::ALL, TimeRange::ALL), CutPoint::NONE, accounts) {
        copy.read((TimeRange::ALL, TimeRange::ALL), &mut samples, &mut |_, _| unreachable!()).unwrap();
    }
    samples
}

#[test]
fn hints_are_found_out() {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    let mut state = shard();
    let steps = [
        (counter(2, 5), Unknown),
        (counter(2, 6), NotReset),
        (counter(3, 6), NotReset),
        (counter(3, 2), Reset),
        (counter(3, 3), NotReset),
        (Histogram::stale(), Unknown),
        (counter(3, 9), Unknown),
        (gauge(1), Gauge),
        (gauge(9), Gauge),
        (counter(2, 9), Unknown),
    ];
    for (t, (histogram, _)) in (1..).zip(&steps) {
        assert_eq!(give(&mut state, t, histogram), Verdict::Stored);
    }
    assert_eq!(float(&mut state, 20, 1.0), Verdict::Stored);
    assert_eq!(give(&mut state, 21, &counter(2, 10)), Verdict::Stored);
    let found = read(&mut state);
    let hints: Vec<_> = found.histograms.iter().map(Histogram::hint).collect();
    let mut expected: Vec<_> = steps.iter().map(|(_, hint)| *hint).collect();
    expected.push(Unknown);
    assert_eq!(hints, expected, "behind a float nothing is known");
    for ((histogram, _), found) in steps.iter().zip(&found.histograms) {
        assert!(found.same_observations(histogram));
    }
    // A late one comes between two that went on from each other.
    assert_eq!(give(&mut state, 30, &counter(2, 11)), Verdict::Stored);
    assert_eq!(give(&mut state, 25, &counter(2, 4)), Verdict::Stored);
    let hints: Vec<_> = read(&mut state).histograms.iter().map(Histogram::hint).collect();
    assert_eq!(hints[11..], [Unknown, Unknown]);
}

#[test]
fn behind_one_that_a_cut_made_late_nothing_is_known() {
    use CounterResetHint::{NotReset, Unknown};
    let mut state = shard();
    assert_eq!(give(&mut state, 10, &counter(2, 5)), Verdict::Stored);
    state.begin_cut(CutPoint { number: 1, boundary: 100 });
    // A cut that does not end is not known to a start, which finds the two that follow side by side.
    for (t, n) in [(50, 9), (150, 6), (160, 7)] {
        assert_eq!(give(&mut state, t, &counter(2, n)), Verdict::Stored);
    }
    let lane = state.histograms.lane(0).unwrap();
    let logged =
        chronolith_chunk::histogram::HistogramIter::new(lane.open_bytes()).unwrap().map(|of| of.unwrap());
    let hints: Vec<_> = logged.map(|(t, histogram)| (t, histogram.hint())).collect();
    assert_eq!(hints, [(150, Unknown), (160, NotReset)]);
}

#[test]
fn what_becomes_of_samples_of_both_kinds() {
    let mut state = shard();
    assert_eq!(give(&mut state, 1_000, &counter(2, 1)), Verdict::Stored);
    assert!(state.slab.get(0).unwrap().0.is_mixed());
    assert_eq!(state.slab.get(0).unwrap().0.tenant(), 7);
    assert_eq!(give(&mut state, 1_000, &counter(2, 1)), Verdict::Duplicate);
    assert_eq!(give(&mut state, 1_000, &counter(2, 2)), Verdict::ConflictingHistogram);
    assert_eq!(float(&mut state, 1_000, 1.0), Verdict::ConflictingHistogram);
    assert_eq!(float(&mut state, 2_000, stale_nan()), Verdict::StaleHistogram);
    assert_eq!(give(&mut state, 2_000, &Histogram::stale()), Verdict::Stored);
    assert_eq!(give(&mut state, 2_000, &Histogram::stale()), Verdict::Duplicate);
    assert_eq!(float(&mut state, 4_000_000, 4.0), Verdict::Stored);
    assert_eq!(give(&mut state, 4_000_000, &counter(2, 3)), Verdict::Conflict(4.0_f64.to_bits()));
    assert_eq!(float(&mut state, 4_000_001, stale_nan()), Verdict::Stored, "it ends floats");
    // Both kinds count for what is late.
    assert_eq!(give(&mut state, 400_000, &counter(2, 3)), Verdict::TooOld);
    assert_eq!(give(&mut state, 400_001, &counter(2, 3)), Verdict::Stored);
    assert_eq!(give(&mut state, 5_000_000, &counter(2, 3)), Verdict::Stored);
    assert_eq!(float(&mut state, 1_399_999, 1.0), Verdict::TooOld);
    assert_eq!(float(&mut state, 1_400_000, 1.0), Verdict::Stored);
    assert_eq!(give(&mut state, 1_400_000, &counter(2, 1)), Verdict::Conflict(1.0_f64.to_bits()));
    assert_eq!(state.accounts.samples, 7);
    assert_eq!(read(&mut state).histogram_timestamps, [1_000, 2_000, 400_001, 5_000_000]);
    let unknown = RejectReason::DuplicateHistogram { timestamp: 0 };
    assert_eq!(unknown.label(), "duplicate_timestamp");
}

#[test]
fn accounts_are_exact() {
    let mut state = shard();
    for step in 0..1_000_i64 {
        let histogram = counter(2 + (step / 300) as u32, (step % 200 + 1) as u64);
        assert_eq!(give(&mut state, step * 60_000, &histogram), Verdict::Stored);
        let lane = state.histograms.lane(0).unwrap();
        assert_eq!(state.accounts.histogram_bytes, lane.bytes() + ENTRY_BYTES);
        assert_eq!(state.accounts.histogram_chunks, lane.closed().len());
        assert!(lane.closed().iter().all(|chunk| chunk.count() <= CHUNK_SAMPLES_MAX));
        assert!(lane.closed().windows(2).all(|pair| pair[0].max() < pair[1].min()));
    }
    let reopened = reopen(state.histograms.lane(0).unwrap().open_bytes()).unwrap();
    let lane = Lane::of(Vec::new(), Some(reopened)).unwrap();
    assert_eq!(lane.open_bytes(), state.histograms.lane(0).unwrap().open_bytes());
    let ShardState { histograms, accounts, .. } = &mut state;
    for floor in [0, 10_000_000, 30_000_000, i64::MAX] {
        histograms.shrink(0..1, floor, accounts);
        histograms.truncate(0..1, floor, accounts);
        let bytes = histograms.lane(0).map_or(0, |lane| lane.bytes() + ENTRY_BYTES);
        assert_eq!(accounts.histogram_bytes, bytes);
    }
    assert_eq!((accounts.bytes, accounts.chunks, histograms.len()), (0, 0, 0));
}

#[test]
fn large_histograms_stay_within_their_chunks() {
    let mut state = shard();
    for step in 0..60_i64 {
        let parts = HistogramParts {
            positive_spans: vec![Span { offset: 0, length: 8192 }],
            positive_buckets: (0..8192).map(|i| (i as f64 * 0.37 + step as f64).sin().abs()).collect(),
            count: 1.0,
            ..HistogramParts::default()
        };
        let large: Histogram = parts.build(None).unwrap().into();
        assert_eq!(give(&mut state, step * 15_000, &large), Verdict::Stored);
    }
    let lane = state.histograms.lane(0).unwrap();
    assert!(lane.closed().len() > 3);
    assert!(lane.closed().iter().all(|chunk| chunk.memory() <= HISTOGRAM_CHUNK_BYTES_MAX));
    assert_eq!(read(&mut state).histograms.len(), 60);
}
