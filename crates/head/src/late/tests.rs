use std::collections::BTreeMap;

use chronolith_storage::Samples;
use proptest::prelude::*;

use super::*;
use crate::{
    closed::{WINDOW_MS, window_number},
    histogram::HistogramStore,
    offer::{LateRule, SeriesMut, Verdict},
    read_back::Files,
    series::Series,
};

const SLOT: u32 = 3;
const NOW: i64 = 10 * WINDOW_MS;
const RULE: LateRule = LateRule::Window { ms: 2 * WINDOW_MS };

#[derive(Default)]
struct Fixture {
    series: Option<Series>,
    closed: Vec<ClosedChunk>,
    late: LateStore,
    histograms: HistogramStore,
    accounts: Accounts,
}

impl Fixture {
    /// What became of it, `None` for a sample in order.
    fn offer(&mut self, t: i64, bits: u64, rule: LateRule) -> Option<Verdict> {
        let series = self.series.get_or_insert_with(Series::vacant);
        let cut = self.late.cut().boundary();
        if series.offer(&mut self.closed, t, bits, cut, &mut self.accounts) {
            return None;
        }
        let mut of = SeriesMut {
            slot: SLOT,
            series,
            closed: &mut self.closed,
            late: &mut self.late,
            histograms: &mut self.histograms,
            accounts: &mut self.accounts,
            files: Files::Read,
        };
        let verdict = of.float((t, bits), rule);
        self.check();
        Some(verdict)
    }

    fn check(&self) {
        let Some(late) = self.late.series.get(&SLOT) else {
            assert_eq!((self.accounts.late_bytes, self.accounts.late_chunks), (0, 0));
            return;
        };
        assert!(late.buffer.len() < BUFFER_SAMPLES_MAX && late.buffer.is_sorted_by_key(|(t, _)| *t));
        for chunks in [&late.chunks, &late.frozen] {
            assert!(chunks.windows(2).all(|pair| pair[0].max() < pair[1].min()), "sorted, no overlaps");
            assert!(chunks.iter().all(|chunk| window_number(chunk.min()) == window_number(chunk.max())));
            assert!(chunks.iter().all(|chunk| (1..=120).contains(&chunk.count())));
        }
        let bytes = late.chunks.iter().chain(&late.frozen).map(ClosedChunk::memory).sum::<usize>()
            + late.buffer.capacity() * 16
            + ENTRY_BYTES;
        assert_eq!(self.accounts.late_bytes, bytes, "the accounts are exact");
        assert_eq!(self.accounts.late_chunks, late.chunks.len() + late.frozen.len());
    }

    fn late_in(&mut self, range: TimeRange, view: CutPoint) -> Vec<RawSample> {
        let copy = self.late.copy(SLOT, range, view, &mut self.accounts);
        self.check();
        copy.map(|copy| copy.floats(range).expect("whole")).unwrap_or_default()
    }

    fn frozen(&mut self) -> Vec<RawSample> {
        let chunks = self.late.frozen(SLOT, TimeRange::ALL, &mut self.accounts).unwrap_or_default();
        chunks.iter().flat_map(u64::decode).collect()
    }
}

#[test]
fn what_becomes_of_late_samples() {
    let mut fixture = Fixture::default();
    for t in [NOW - 1000, NOW - 500, NOW] {
        assert_eq!(fixture.offer(t, 1, RULE), None);
    }
    assert_eq!(fixture.offer(NOW, 1, RULE), Some(Verdict::Duplicate));
    assert_eq!(fixture.offer(NOW, 2, RULE), Some(Verdict::Conflict(1)));
    assert_eq!(fixture.offer(NOW - 500, 1, RULE), Some(Verdict::Duplicate));
    assert_eq!(fixture.offer(NOW - 500, 3, RULE), Some(Verdict::Conflict(1)));
    assert_eq!(fixture.offer(NOW - 499, 4, RULE), Some(Verdict::Stored));
    assert_eq!(fixture.offer(NOW - 499, 4, RULE), Some(Verdict::Duplicate));
    assert_eq!(fixture.offer(NOW - 499, 5, RULE), Some(Verdict::Conflict(4)));
    let oldest = NOW - 2 * WINDOW_MS;
    assert_eq!(fixture.offer(oldest, 1, RULE), Some(Verdict::Stored), "the window includes its end");
    assert_eq!(fixture.offer(oldest - 1, 1, RULE), Some(Verdict::TooOld));
    assert_eq!(fixture.offer(oldest - 1, 1, LateRule::Logged), Some(Verdict::Stored), "judged before");
    assert_eq!(fixture.offer(oldest - 1, 1, RULE), Some(Verdict::Duplicate), "known, whatever its age");
    let none = LateRule::Window { ms: 0 };
    assert_eq!(fixture.offer(NOW - 499, 4, none), Some(Verdict::Duplicate));
    assert_eq!(fixture.offer(NOW - 499, 5, none), Some(Verdict::OutOfOrder));
    assert_eq!(fixture.offer(NOW - 1, 5, none), Some(Verdict::OutOfOrder));
    assert_eq!(fixture.offer(NOW, 5, none), Some(Verdict::Conflict(1)));
    assert_eq!((fixture.accounts.late, fixture.accounts.samples), (3, 6));
}

#[test]
fn without_a_newest_sample_nothing_is_too_old() {
    let mut fixture = Fixture::default();
    fixture.late.begin_cut(CutPoint { boundary: NOW, number: 1 });
    assert_eq!(fixture.offer(NOW - 20 * WINDOW_MS, 1, RULE), Some(Verdict::Stored));
    let none = LateRule::Window { ms: 0 };
    assert_eq!(
        fixture.offer(NOW - 9 * WINDOW_MS, 1, none),
        Some(Verdict::Stored),
        "in order for all that is known"
    );
    assert_eq!(fixture.offer(NOW, 1, RULE), Some(Verdict::Stored), "the boundary is part of the cut");
    assert_eq!(fixture.offer(NOW + 1, 1, RULE), None);
    assert_eq!(fixture.offer(NOW - 20 * WINDOW_MS + 1, 1, RULE), Some(Verdict::TooOld), "now it has one");
    fixture.late.begin_cut(CutPoint { boundary: NOW + 100, number: 2 });
    assert_eq!(
        fixture.offer(NOW + 2, 1, none),
        Some(Verdict::Stored),
        "newer than its newest, and behind the cut"
    );
    assert_eq!(fixture.offer(NOW - 1, 1, none), Some(Verdict::OutOfOrder));
}

#[test]
fn a_cut_freezes_what_is_there() {
    let mut fixture = Fixture::default();
    let rule = LateRule::Logged;
    fixture.offer(NOW, 0, rule);
    for t in 0..100 {
        // Across a window's end, more than a buffer, not in order.
        fixture.offer(NOW - WINDOW_MS - 500 + t * 37 % 100 * 10, t as u64, rule);
    }
    let boundary = NOW - WINDOW_MS - 123;
    let (first, second) = (CutPoint { boundary, number: 1 }, CutPoint { boundary, number: 2 });
    let all = fixture.late_in(TimeRange::ALL, CutPoint::NONE);
    assert_eq!(all.len(), 100);
    fixture.late.begin_cut(first);
    fixture.offer(boundary, 7, rule);
    let early: Vec<RawSample> = all.iter().copied().filter(|(t, _)| *t <= boundary).collect();
    assert_eq!(fixture.frozen(), early);
    assert_eq!(fixture.late_in(TimeRange::ALL, CutPoint::NONE).len(), 101, "views of before see both");
    let behind = fixture.late_in(TimeRange::ALL, first);
    assert_eq!(behind.len(), 101 - early.len());
    assert!(behind.contains(&(boundary, 7)));
    assert_eq!(
        fixture.offer(early[3].0, early[3].1, rule),
        Some(Verdict::Duplicate),
        "known while it is here"
    );
    // The cut came to nothing; the next one has all of it.
    fixture.late.begin_cut(second);
    let frozen = fixture.frozen();
    assert_eq!(frozen.len(), early.len() + 1);
    assert!(frozen.is_sorted_by_key(|(t, _)| *t));
    fixture.check();
    assert_eq!(fixture.late.drop_frozen(SLOT..SLOT + 1, &mut fixture.accounts), frozen.len() as u64);
    fixture.check();
    assert_eq!(fixture.late_in(TimeRange::ALL, CutPoint::NONE).len(), 101 - frozen.len());
    let left = fixture.late.truncate(0..SLOT + 1, NOW, &mut fixture.accounts);
    assert_eq!(left, 101 - frozen.len() as u64);
    assert!(!fixture.late.contains(SLOT));
    fixture.check();
}

#[test]
fn chunks_fill_up_whatever_the_order() {
    for (name, place) in [
        ("ascending", (|i| i) as fn(i64) -> i64),
        ("descending", |i| 5999 - i),
        ("scattered", |i| i * 2971 % 6000),
        ("two interleaved", |i| if i % 2 == 0 { i / 2 } else { 3000 + i / 2 }),
    ] {
        let mut fixture = Fixture::default();
        fixture.offer(NOW, 0, LateRule::Logged);
        for i in 0..6000 {
            fixture.offer(NOW - WINDOW_MS + 1 + place(i), 0, LateRule::Logged);
        }
        assert_eq!(fixture.late_in(TimeRange::ALL, CutPoint::NONE).len(), 6000, "{name}");
        assert!(fixture.accounts.late_chunks <= 6000 / 40, "{name}: {}", fixture.accounts.late_chunks);
    }
}

#[test]
fn floats_merge_in_place() {
    let cases: [(&[i64], &[i64]); 6] = [
        (&[], &[1, 2]),
        (&[1, 3, 5], &[]),
        (&[1, 3, 5], &[0, 2, 4, 6]),
        (&[4, 5], &[1, 2, 3]),
        (&[1, 2], &[3, 4]),
        (&[1, 3, 5], &[1, 2, 5]),
    ];
    for (known, late) in cases {
        let mut samples = Samples::default();
        samples.push(9, 9.0);
        known.iter().for_each(|t| samples.push(*t, *t as f64));
        let late: Vec<RawSample> = late.iter().map(|t| (*t, (*t as f64 + 0.5).to_bits())).collect();
        merge_floats(&mut samples, 1, &late);
        let mut want: BTreeMap<i64, f64> = late.iter().map(|(t, bits)| (*t, f64::from_bits(*bits))).collect();
        want.extend(known.iter().map(|t| (*t, *t as f64)));
        assert_eq!((samples.timestamps[0], samples.values[0]), (9, 9.0), "what was there before stays");
        assert!(
            samples.timestamps[1..].iter().eq(want.keys()) && samples.values[1..].iter().eq(want.values())
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any stream against a map, and replayed from what was stored.
    #[test]
    fn any_stream_replays_to_the_same(
        steps in proptest::collection::vec((0_i64..400, 0_u64..3, proptest::bool::weighted(0.01)), 1..400)) {
        let (mut fixture, mut log) = (Fixture::default(), Vec::new());
        let mut model: BTreeMap<i64, u64> = BTreeMap::new();
        let (mut last, mut cuts) = (i64::MIN, 0);
        for (at, bits, cut) in steps {
            if cut {
                cuts += 1;
                let boundary = (NOW + at * 60_000).max(fixture.late.cut().boundary());
                fixture.late.begin_cut(CutPoint { boundary, number: cuts });
            }
            let t = NOW + at * 60_000;
            let boundary = fixture.late.cut().boundary();
            let rule = LateRule::Window { ms: WINDOW_MS };
            let verdict = fixture.offer(t, bits, rule);
            let want = match model.get(&t) {
                Some(known) if *known == bits => Some(Verdict::Duplicate),
                _ if t > last.max(boundary) => None,
                Some(known) if t == last => Some(Verdict::Conflict(*known)),
                _ if last > i64::MIN && t < last - WINDOW_MS => Some(Verdict::TooOld),
                Some(known) => Some(Verdict::Conflict(*known)),
                None => Some(Verdict::Stored),
            };
            prop_assert_eq!(verdict, want, "{} {}", t, bits);
            if matches!(verdict, None | Some(Verdict::Stored)) {
                model.insert(t, bits);
                log.push((t, bits));
                if verdict.is_none() {
                    last = t;
                }
            }
        }
        let content = |fixture: &mut Fixture| {
            let mut samples = Samples::default();
            if let Some(series) = &fixture.series {
                let (chunks, open) = series.overlapping(&fixture.closed, TimeRange::ALL);
                chunks.iter().for_each(|chunk| chunk.read(TimeRange::ALL, &mut samples).unwrap());
                chronolith_chunk::decode_into(open, &mut samples.timestamps, &mut samples.values).unwrap();
            }
            let late = fixture.late_in(TimeRange::ALL, CutPoint::NONE);
            merge_floats(&mut samples, 0, &late);
            samples.timestamps.into_iter().zip(samples.values.into_iter().map(f64::to_bits)).collect::<Vec<_>>()
        };
        let want: Vec<RawSample> = model.into_iter().collect();
        prop_assert_eq!(content(&mut fixture), want.clone());
        // Twice: records may be in the log twice. Without the cuts, and with the last one known from the start.
        let boundary = fixture.late.cut().boundary();
        for known in [i64::MIN, boundary] {
            let mut replayed = Fixture::default();
            replayed.late.begin_cut(CutPoint { boundary: known, number: 0 });
            for (t, bits) in log.iter().chain(&log) {
                replayed.offer(*t, *bits, LateRule::Logged);
            }
            prop_assert_eq!(content(&mut replayed), want.clone());
        }
    }
}
