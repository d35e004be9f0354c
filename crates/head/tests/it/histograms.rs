//! Native histograms against a model: in order and late, through restarts, snapshots, chunk files and cuts.

use std::{collections::BTreeMap, sync::Arc};

use chronolith_env::Rng;
use chronolith_head::{CutPoint, HeadView};
use chronolith_model::{
    CounterResetHint, Histogram, HistogramSample, Labels, Sample, TimeRange,
    histogram::{CUSTOM_SCHEMA, HistogramParts, Span},
    is_stale, stale_nan,
};
use chronolith_storage::{AppendOutcome, LabelSource, RejectReason, Samples, SeriesEntry, WriteBatch};
use chronolith_testkit::fake_env::SimRng;
use chronolith_testkit::fault_fs::{CrashMode, FaultFs};
use proptest::prelude::*;

use crate::support::{NOW, Store, labels, number, tenant};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const SEGMENT_BYTES: u64 = 3000;

struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

/// A counter of `n` observations in each of `buckets` buckets.
fn counter(buckets: u32, n: u64) -> Histogram {
    let parts = HistogramParts {
        schema: 2,
        zero_threshold: 0.001,
        zero_count: n,
        count: n * (u64::from(buckets) + 1),
        sum: n as f64 * 1.5,
        positive_spans: vec![Span { offset: -1, length: buckets }],
        positive_buckets: vec![n; buckets as usize],
        ..HistogramParts::default()
    };
    parts.build(None).unwrap().into()
}

fn custom(n: f64) -> Histogram {
    let parts = HistogramParts {
        schema: CUSTOM_SCHEMA,
        count: n,
        sum: f64::from_bits(0x7ff8_0000_dead_beef),
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![n, n * 0.1],
        custom_values: vec![0.25],
        ..HistogramParts::default()
    };
    parts.build(None).unwrap().into()
}

/// One of many kinds.
fn histogram(kind: u8, n: u64) -> Histogram {
    match kind {
        0..4 => counter(3, n),
        4 => counter(5, n),
        5 => counter(3, n).to_float().into(),
        6 => custom(n as f64),
        7 => Histogram::stale(),
        8 => {
            let mut reset = counter(3, n);
            reset.set_hint(CounterResetHint::Reset);
            reset
        }
        _ => {
            let mut gauge = counter(3, n);
            gauge.set_hint(CounterResetHint::Gauge);
            gauge
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Point {
    Float(u64),
    Histogram(Histogram),
}

impl Point {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::Histogram(a), Self::Histogram(b)) => a.same_observations(b),
            _ => false,
        }
    }
}

type Points = BTreeMap<(u32, i64), Point>;

impl Store {
    fn give_both(
        &self,
        series: u32,
        floats: &[Sample],
        histograms: &[HistogramSample],
    ) -> Option<AppendOutcome> {
        let key = self.head.key_hasher().key(&series.to_le_bytes());
        let entry = SeriesEntry {
            key,
            samples: 0..floats.len() as u32,
            histograms: 0..histograms.len() as u32,
            start_timestamp: 0,
        };
        let of = One(labels(series));
        let batch = WriteBatch { series: &[entry], samples: floats, histograms, labels: &of };
        let applied = self.head.append(&tenant(0), &batch).ok()?;
        self.settle(applied.batch).then_some(applied.outcome)
    }

    fn give_point(&self, series: u32, t: i64, point: &Point) -> Option<AppendOutcome> {
        match point {
            Point::Float(bits) => self.give_both(series, &[Sample::new(t, f64::from_bits(*bits))], &[]),
            Point::Histogram(histogram) => {
                self.give_both(series, &[], &[HistogramSample { timestamp: t, histogram: histogram.clone() }])
            }
        }
    }

    /// Everything that a view from `from` on shows.
    fn points(&self, from: CutPoint) -> Points {
        let mut points = Points::new();
        let view = HeadView::open_from(Arc::clone(&self.head), &tenant(0), TimeRange::ALL, from);
        let selection = view.select(&[]);
        let fetched = view.fetch(&selection.series, TimeRange::ALL);
        for (at, labels) in selection.labels.iter().enumerate() {
            let mut samples = Samples::default();
            fetched.read(at, &mut samples).unwrap();
            add(&mut points, number(labels), &samples);
        }
        points
    }
}

/// The columns as points: each ascends, no timestamp is in both, and hints say nothing wrong.
fn add(points: &mut Points, series: u32, samples: &Samples) {
    assert!(samples.timestamps.is_sorted_by(|a, b| a < b), "floats ascend");
    assert!(samples.histogram_timestamps.is_sorted_by(|a, b| a < b), "histograms ascend");
    for (t, value) in samples.timestamps.iter().zip(&samples.values) {
        assert!(points.insert((series, *t), Point::Float(value.to_bits())).is_none());
    }
    let mut before: Option<&Histogram> = None;
    for (t, histogram) in samples.histogram_timestamps.iter().zip(&samples.histograms) {
        if let Some(before) = before {
            let mut plain = histogram.clone();
            plain.set_hint(CounterResetHint::Unknown);
            if histogram.hint() == CounterResetHint::NotReset {
                assert_eq!(plain.hint_after(Some(before)), CounterResetHint::NotReset, "{series} at {t}");
            }
        }
        before = Some(histogram);
        assert!(points.insert((series, *t), Point::Histogram(histogram.clone())).is_none(), "twice at {t}");
    }
}

fn assert_same(found: &Points, model: &Points, what: &str) {
    assert!(found.keys().eq(model.keys()), "{what}: {:?} instead of {:?}", found.keys(), model.keys());
    for (at, point) in found {
        assert!(point.is_same(&model[at]), "{what}: {at:?} is {point:?} instead of {:?}", model[at]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Series, minutes before the newest, kind (none: a float), number.
    Append(u32, i64, Option<u8>, u64),
    Advance(i64),
    Restart(bool),
    Snapshot,
    Spill,
    /// So many minutes before now; whether it is finished.
    Cut(i64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || proptest::option::weighted(0.8, 0..10_u8);
    prop_oneof![
        60 => (0..3_u32, kind(), 0..40_u64).prop_map(|(series, kind, n)| Step::Append(series, 0, kind, n)),
        20 => (0..3_u32, 0..90_i64, kind(), 0..4_u64)
            .prop_map(|(series, back, kind, n)| Step::Append(series, back, kind, n)),
        40 => (1..4_i64).prop_map(Step::Advance),
        1 => (60..200_i64).prop_map(Step::Advance),
        3 => any::<bool>().prop_map(Step::Restart),
        2 => Just(Step::Snapshot),
        2 => Just(Step::Spill),
        3 => (0..150_i64, proptest::bool::weighted(0.8)).prop_map(|(at, done)| Step::Cut(at, done)),
    ]
}

struct Run {
    fs: FaultFs,
    store: Option<Store>,
    seed: u64,
    now: i64,
    /// What was stored, and is not in blocks.
    model: Points,
    /// What a finished cut has written.
    blocks: Points,
    newest: BTreeMap<u32, i64>,
    cut: Option<(i64, Vec<u64>)>,
    from: CutPoint,
}

impl Run {
    fn new() -> Self {
        let fs = FaultFs::new();
        let store = Store::try_open(&fs, 1, SEGMENT_BYTES).unwrap();
        Self {
            fs,
            store: Some(store),
            seed: 1,
            now: NOW,
            model: Points::new(),
            blocks: Points::new(),
            newest: BTreeMap::new(),
            cut: None,
            from: CutPoint::NONE,
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(series, back, kind, n) => {
                let point = match kind {
                    None if n == 3 => Point::Float(stale_nan().to_bits()),
                    None => Point::Float((n as f64).to_bits()),
                    Some(kind) => Point::Histogram(histogram(kind, n + 1)),
                };
                self.append(series, self.now - back * MINUTE, point);
            }
            Step::Advance(minutes) => self.now += minutes * MINUTE,
            Step::Restart(snapshot) => self.restart(snapshot),
            Step::Snapshot => {
                self.store().snapshot().unwrap();
            }
            Step::Spill => {
                while !self
                    .store()
                    .head
                    .spill_step(self.store().snapshots.chunk_files(), self.now + 1)
                    .unwrap()
                    .round_done
                {}
            }
            Step::Cut(back, done) => self.cut(self.now - back * MINUTE, done),
        }
    }

    fn append(&mut self, series: u32, t: i64, point: Point) {
        let fake = &self.store().fake;
        let ahead = self.now - fake.env.clock.now_ms();
        if ahead > 0 {
            fake.clock.advance(std::time::Duration::from_millis(ahead as u64));
        }
        let outcome = self.store().give_point(series, t, &point).unwrap();
        let in_head = self.model.contains_key(&(series, t));
        // A chunk may have more than what is not in blocks yet.
        let known = self.model.get(&(series, t)).or_else(|| self.blocks.get(&(series, t)));
        let stale_float = matches!(point, Point::Float(bits) if is_stale(f64::from_bits(bits)));
        let reason = outcome.rejections.first().map(|rejection| rejection.reason.clone());
        match (outcome.stored, outcome.duplicates, reason) {
            (1, 0, None) => {
                assert!(!in_head, "{t} of {series} is there already: {known:?}");
                let behind_histogram = || {
                    let of_series = self.model.iter().filter(|((of, _), _)| *of == series);
                    let newest = of_series.max_by_key(|((_, t), _)| *t);
                    matches!(newest, Some((_, Point::Histogram(_))))
                };
                // What came in order last may be late by now; both are kept as one of the two.
                let found = &self.store().points(self.from)[&(series, t)];
                let becomes = matches!(found, Point::Histogram(found) if found.is_stale());
                if stale_float && becomes {
                    assert!(behind_histogram(), "a stale histogram behind a float");
                    self.model.insert((series, t), Point::Histogram(Histogram::stale()));
                } else {
                    assert!(found.is_same(&point));
                    self.model.insert((series, t), point);
                }
                let newest = self.newest.entry(series).or_insert(t);
                *newest = t.max(*newest);
            }
            (0, 1, None) => {
                let known = known.unwrap();
                let as_histogram = stale_float && known.is_same(&Point::Histogram(Histogram::stale()));
                assert!(known.is_same(&point) || as_histogram);
            }
            (0, 0, Some(RejectReason::TooOld)) => {
                let newest = self.newest.get(&series).copied().unwrap_or(self.now);
                // Behind a cut the newest may have gone, and the clock counts.
                let clock = self.store().fake.env.clock.now_ms();
                assert!(t < newest.max(clock) - HOUR, "{t} behind {newest}");
            }
            (0, 0, Some(RejectReason::DuplicateTimestamp { timestamp, existing, .. })) => {
                assert_eq!(timestamp, t);
                assert_eq!(known, Some(&Point::Float(existing.to_bits())));
                assert!(matches!(point, Point::Float(_)));
            }
            (0, 0, Some(RejectReason::DuplicateOfHistogram { timestamp, .. })) => {
                assert!(timestamp == t && matches!(known, Some(Point::Histogram(_))), "{known:?}");
                assert!(matches!(point, Point::Float(_)));
            }
            (0, 0, Some(RejectReason::DuplicateHistogram { timestamp })) => {
                assert!(timestamp == t && known.is_some_and(|known| !known.is_same(&point)), "{known:?}");
                assert!(matches!(point, Point::Histogram(_)) || stale_float);
            }
            (stored, duplicates, reason) => panic!("{stored} {duplicates} {reason:?} of {point:?} at {t}"),
        }
    }

    fn restart(&mut self, snapshot: bool) {
        let store = self.store.take().unwrap();
        if snapshot {
            store.snapshot().unwrap();
        }
        store.kill();
        self.fs.crash(CrashMode::LoseUnsynced, &SimRng::new(self.seed));
        self.seed += 1;
        let cut = self.cut.as_ref().map(|(boundary, sequences)| (*boundary, sequences.as_slice()));
        let store = Store::try_open_behind(&self.fs, self.seed, SEGMENT_BYTES, cut).unwrap();
        // Behind a cut, the last batch may be of series that are in blocks alone by now.
        assert!(store.outcome.orphans == 0 || self.cut.is_some());
        assert_eq!((store.outcome.invalid_histograms, store.loaded.damage_count), (0, 0));
        if let Some((boundary, _)) = &self.cut {
            self.from = store.head.restore_cut(*boundary);
            // The last batch before the cut does not count as known to be in blocks, and is here as well.
            for (at, point) in store.points(self.from) {
                if self.blocks.get(&at).is_some_and(|block| block.is_same(&point)) {
                    self.model.insert(at, point);
                }
            }
        }
        self.store = Some(store);
    }

    fn cut(&mut self, boundary: i64, done: bool) {
        let head = Arc::clone(&self.store().head);
        let cut = head.begin_cut(boundary);
        let mut block = Points::new();
        for (of, windows) in head.cut_windows(&cut) {
            for window in windows {
                for entry in head.cut_series(&cut, &of, window).flatten() {
                    let mut samples = Samples::default();
                    head.read_cut(&cut, entry.reference, window, &mut samples).unwrap();
                    add(&mut block, number(&entry.labels), &samples);
                }
            }
        }
        let expected: Points = self
            .model
            .iter()
            .filter(|((_, t), _)| *t <= cut.boundary())
            .map(|(at, point)| (*at, point.clone()))
            .collect();
        assert_same(&block, &expected, "the cut");
        if done {
            self.model.retain(|(_, t), _| *t > cut.boundary());
            self.blocks.extend(block);
            self.from = cut.point();
            // A view of before, and one from the cut on, while both are there.
            assert_same(&self.store().points(self.from), &self.model, "behind the cut, before its end");
            self.cut = Some((cut.boundary(), cut.sequences().to_vec()));
            head.finish_cut(cut);
            self.newest = BTreeMap::new();
            for (series, t) in self.model.keys() {
                self.newest.insert(*series, *t);
            }
        }
    }

    fn check(&self, what: &str) {
        assert_same(&self.store().points(self.from), &self.model, what);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_stream_is_what_was_stored(steps in proptest::collection::vec(step(), 1..160)) {
        let mut run = Run::new();
        for (at, step) in steps.iter().enumerate() {
            run.step(step);
            if at % 8 == 0 || !matches!(step, Step::Append(..) | Step::Advance(_)) {
                run.check(&format!("{at}: {step:?}"));
            }
        }
        run.restart(true);
        run.check("at the end");
        run.restart(false);
        run.check("without a snapshot behind the last");
    }
}

/// What a series has may be more than a section of a snapshot holds: late histograms, each written for itself, and large
/// ones in order.
#[test]
fn a_snapshot_has_room_for_all_of_a_series() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    let large = |n: u64| {
        let mut parts = HistogramParts {
            schema: 2,
            positive_spans: vec![Span { offset: 0, length: 8000 }],
            positive_buckets: (0..8000).map(|at| (n * 7919 + at * 104_729) % (n * 50_000_000 + 2)).collect(),
            ..HistogramParts::default()
        };
        parts.count = parts.positive_buckets.iter().sum();
        Histogram::from(parts.build(None).unwrap())
    };
    let of = |t, histogram: &Histogram| HistogramSample { timestamp: t, histogram: histogram.clone() };
    // Late: alike, so that a chunk of many is small.
    let alike = large(0);
    assert_eq!(store.give_both(1, &[], &[of(NOW, &alike)]).unwrap().stored, 1);
    for first in (1..3300).step_by(100) {
        let late: Vec<_> = (first..first + 100).map(|at| of(NOW - at * 1000, &alike)).collect();
        assert_eq!(store.give_both(1, &[], &late).unwrap().stored, 100);
    }
    // In order, and of many bytes.
    for at in 0..160 {
        let sample = of(NOW - 200_000 + at * 1000, &large(1 + at as u64));
        assert_eq!(store.give_both(2, &[], &[sample]).unwrap().stored, 1);
    }
    let points = store.points(CutPoint::NONE);
    assert_eq!(points.len(), 3301 + 160);
    let report = store.snapshot().unwrap();
    assert_eq!(report.samples, 3301 + 160);
    let fs = store.kill();
    for name in crate::support::names(&fs, crate::support::WAL_DIR, ".wal") {
        let path = std::path::Path::new(crate::support::WAL_DIR).join(name);
        chronolith_env::Fs::remove_file(&fs, &path).unwrap();
    }
    let store = Store::open(&fs, 2);
    assert_eq!((store.loaded.damage_count, store.loaded.samples), (0, 3301 + 160));
    assert_same(&store.points(CutPoint::NONE), &points, "from the snapshot alone");
    let stats = store.head.stats();
    assert_eq!((stats.histograms, stats.samples_late), (3301 + 160, 3300));
    // It goes on.
    assert_eq!(store.give_both(2, &[], &[of(NOW + 1, &alike)]).unwrap().stored, 1);
    assert_eq!(store.give_both(1, &[], &[of(NOW - 1000, &alike)]).unwrap().duplicates, 1);
}

/// Both kinds of a series in one request are taken by time, whichever list they are in.
#[test]
fn one_request_of_both_kinds_is_in_order() {
    let store = Store::open(&FaultFs::new(), 1);
    let t = NOW - HOUR;
    let floats = [Sample::new(t + 2, 1.0), Sample::new(t + 4, 2.0), Sample::new(t + 5, 3.0)];
    let histograms = [1, 3, 6].map(|at| HistogramSample { timestamp: t + at, histogram: counter(3, 1) });
    let outcome = store.give_both(7, &floats, &histograms).unwrap();
    assert_eq!((outcome.stored, outcome.rejected), (6, 0));
    assert_eq!(store.head.stats().samples_late, 0, "none of them is late");
    // Of equal timestamps the float is first.
    let both = [Sample::new(t + 7, 1.0)];
    let outcome =
        store.give_both(7, &both, &[HistogramSample { timestamp: t + 7, histogram: counter(3, 1) }]);
    let outcome = outcome.unwrap();
    assert_eq!((outcome.stored, outcome.rejected), (1, 1));
    assert!(matches!(outcome.rejections[0].reason, RejectReason::DuplicateHistogram { .. }));
}

#[test]
fn memory_is_given_back() {
    let fs = FaultFs::new();
    let store = Store::try_open(&fs, 1, SEGMENT_BYTES).unwrap();
    let base = store.head.stats();
    for step in 0..400_i64 {
        for series in 0..4_u32 {
            let t = NOW - 2 * HOUR + step * 15_000;
            let point = Point::Histogram(histogram((step % 7) as u8, step as u64 + 1));
            assert_eq!(store.give_point(series, t, &point).unwrap().stored, 1);
            if step % 5 == 4 {
                let late = Point::Histogram(histogram((step % 3) as u8, 7));
                assert_eq!(store.give_point(series, t - 7_000, &late).unwrap().stored, 1);
            }
        }
    }
    let full = store.head.stats();
    assert_eq!((full.histograms, full.samples, full.samples_late), (1920, 1920, 320));
    assert_eq!((full.histogram_series, full.late_series), (4, 4));
    assert!(full.histogram_chunks > 40 && full.chunks_closed == full.histogram_chunks);
    assert!(full.histogram_bytes > 40_000 && full.late_bytes > 4 * 32 * 40);
    assert!(full.chunk_bytes >= full.histogram_bytes + full.late_bytes);
    while !store.head.spill_step(store.snapshots.chunk_files(), NOW - HOUR).unwrap().round_done {}
    let spilled = store.head.stats();
    assert!(spilled.histogram_bytes < full.histogram_bytes && spilled.chunk_bytes < full.chunk_bytes);
    assert_eq!(spilled.histogram_chunks, full.histogram_chunks);
    // By a cut of all.
    let cut = store.head.begin_cut(NOW);
    store.head.finish_cut(cut);
    let empty = store.head.stats();
    assert_eq!((empty.series, empty.chunk_bytes, empty.histogram_bytes), (0, base.chunk_bytes, 0));
    assert_eq!((empty.late_bytes, empty.histogram_chunks, empty.chunks_closed), (0, 0, 0));
    assert_eq!(empty.samples_cut, 1920);
    // By retention.
    for series in 0..4_u32 {
        store.give_point(series, NOW + 1, &Point::Histogram(counter(3, 1))).unwrap();
        store.give_point(series, NOW + 1 - MINUTE, &Point::Histogram(counter(3, 1))).unwrap();
    }
    assert!(store.head.stats().late_series == 4 && store.head.stats().series == 4);
    for _ in 0..17 * 24 {
        store.fake.clock.advance(std::time::Duration::from_secs(3600));
        store.head.truncate();
    }
    let empty = store.head.stats();
    assert_eq!((empty.series, empty.chunk_bytes, empty.histogram_series, empty.late_series), (0, 0, 0, 0));
    assert_eq!(empty.samples_dropped, 8);
}

#[test]
fn what_left_memory_reads_the_same() {
    let fs = FaultFs::new();
    let store = Store::try_open(&fs, 1, SEGMENT_BYTES).unwrap();
    let mut model = Points::new();
    for step in 0..150_i64 {
        let t = NOW - HOUR + step * 15_000;
        for (series, kind) in [(0, 0), (1, 6), (2, (step % 10) as u8)] {
            let point = Point::Histogram(histogram(kind, step as u64 + 1));
            assert_eq!(store.give_point(series, t, &point).unwrap().stored, 1);
            model.insert((series, t), point);
        }
    }
    let before = store.head.stats();
    assert!(before.chunks_closed > 10);
    while !store.head.spill_step(store.snapshots.chunk_files(), NOW + 1).unwrap().round_done {}
    let after = store.head.stats();
    assert!(after.histogram_bytes < before.histogram_bytes);
    assert_same(&store.points(CutPoint::NONE), &model, "spilled");
    // A repetition and a conflict compare with a chunk in a file.
    let ((series, t), point) = model.first_key_value().map(|(at, point)| (*at, point.clone())).unwrap();
    assert_eq!(store.give_point(series, t, &point).unwrap().duplicates, 1);
    let conflict = store.give_point(series, t, &Point::Histogram(counter(3, 77))).unwrap();
    assert_eq!(conflict.rejections[0].reason, RejectReason::DuplicateHistogram { timestamp: t });
    store.snapshot().unwrap();
    store.kill();
    fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
    let store = Store::try_open(&fs, 2, SEGMENT_BYTES).unwrap();
    assert_same(&store.points(CutPoint::NONE), &model, "from the snapshot and the files");
    assert_eq!(store.head.stats().histogram_chunks, after.histogram_chunks);
}

/// A crash at every call of a life with histograms in order and late, a spill and a snapshot: what was acknowledged is
/// there, what is there was sent, and the next life goes on.
#[test]
fn a_crash_at_every_call() {
    let rng = SimRng::new(5);
    let mut points = 0;
    for calls in 0.. {
        let mut finished = false;
        for mode in [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll] {
            let fs = FaultFs::new();
            let (mut sent, mut acknowledged) = (Points::new(), Points::new());
            let store = Store::try_open(&fs, 1, SEGMENT_BYTES).unwrap();
            for step in 0..14_i64 {
                if step == 7 {
                    store.snapshot().unwrap();
                }
                live(&store, step, &mut sent, &mut acknowledged);
            }
            fs.halt_after(calls);
            let _ = store.head.spill_step(store.snapshots.chunk_files(), NOW);
            live(&store, 14, &mut sent, &mut acknowledged);
            finished = store.snapshot().is_ok() && !fs.halted();
            store.kill();
            fs.heal();
            fs.crash(mode, &rng);
            for life in 0..2_i64 {
                let what = format!("call {calls}, {mode:?}, life {life}");
                let store = Store::try_open(&fs, 2 + life as u64, SEGMENT_BYTES).unwrap();
                let found = store.points(CutPoint::NONE);
                for (at, point) in &acknowledged {
                    assert!(found.get(at).is_some_and(|found| found.is_same(point)), "{what}: lost {at:?}");
                }
                for (at, point) in &found {
                    assert!(sent.get(at).is_some_and(|sent| sent.is_same(point)), "{what}: invented {at:?}");
                }
                assert_eq!((store.loaded.damage_count, store.outcome.orphans), (0, 0), "{what}");
                assert_eq!(store.outcome.invalid_histograms, 0, "{what}");
                assert_eq!(
                    store.head.stats().samples,
                    found.len() as u64,
                    "{what}: something is there twice"
                );
                (sent, acknowledged) = (found.clone(), found);
                live(&store, 20 + life, &mut sent, &mut acknowledged);
                if rng.next_u64().is_multiple_of(2) {
                    store.snapshot().unwrap();
                }
                store.kill();
                fs.crash(mode, &rng);
            }
            points += 1;
        }
        if finished {
            break;
        }
    }
    assert!(points > 4 * 15, "{points}");
}

/// Some samples of both kinds, some late.
fn live(store: &Store, step: i64, sent: &mut Points, acknowledged: &mut Points) {
    for series in 0..3_u32 {
        let late = Point::Histogram(histogram((step % 6) as u8, 3));
        let next = match (series, step % 4) {
            (2, 3) => Point::Float(step as u64),
            _ => Point::Histogram(histogram(((step + i64::from(series)) % 10) as u8, step as u64 + 1)),
        };
        let t = NOW - HOUR / 2 + step * MINUTE;
        for (t, point) in [(t, next), (t - 10_000, late)] {
            sent.insert((series, t), point.clone());
            if store.give_point(series, t, &point).is_some_and(|outcome| outcome.stored == 1) {
                acknowledged.insert((series, t), point);
            }
        }
    }
}
