use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize},
    },
    thread,
    time::{Duration, Instant},
};

use chronolith_model::{Sample, stale_nan};
use chronolith_storage::RejectReason;
use proptest::prelude::*;

use super::*;
use crate::{
    HeadOptions, HeadView, WINDOW_MS,
    fixture::{Content, Fixture, NOW, Points, Version, block_of, seen},
};

const MINUTE: i64 = 60_000;

fn tenant(number: usize) -> TenantId {
    TenantId::new(&format!("tenant-{number}")).unwrap()
}

/// Some without a name, some with a label that sorts before it.
fn labels(number: usize) -> Labels {
    let (id, metric) = (number.to_string(), format!("m{}", number % 3));
    match number % 4 {
        0 => Labels::from_pairs([("A", id.as_str()), ("__name__", metric.as_str())]),
        1 => Labels::from_pairs([("id", id.as_str())]),
        _ => Labels::from_pairs([("__name__", metric.as_str()), ("id", id.as_str())]),
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Tenant, series, minutes before now, value.
    Append(usize, usize, i64, u64),
    Advance(i64),
    /// At so many minutes before now; at the end of a window, or not.
    BeginCut(i64, bool),
    /// Reads the cut and gives it to readers, or fails half-way.
    Publish(bool),
    OpenReader,
    CloseReaders,
    Finish,
    Truncate,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (0..2_usize, 0..6_usize, 0..20_i64, 0..3_u64).prop_map(|(a, b, c, d)| Step::Append(a, b, c, d)),
        5 => (0..2_usize, 0..6_usize, 0..400_i64, 0..3_u64).prop_map(|(a, b, c, d)| Step::Append(a, b, c, d)),
        12 => (1..30_i64).prop_map(Step::Advance),
        3 => (0..200_i64, any::<bool>()).prop_map(|(at, aligned)| Step::BeginCut(at, aligned)),
        4 => proptest::bool::weighted(0.8).prop_map(Step::Publish),
        4 => Just(Step::OpenReader),
        2 => Just(Step::CloseReaders),
        4 => Just(Step::Finish),
        1 => Just(Step::Truncate),
    ]
}

struct Reader {
    version: Arc<Version>,
    views: Vec<HeadView>,
    before: Content,
}

/// A head beside a model of it.
struct Run {
    fixture: Fixture,
    now: i64,
    model: Content,
    /// Newest sample in order that the head has.
    last: BTreeMap<(TenantId, Labels), i64>,
    /// Samples that were taken although blocks have one for their timestamp.
    twice: Content,
    version: Arc<Version>,
    cut: Option<Cut>,
    finished: i64,
    readers: Vec<Reader>,
    old: Vec<Arc<Version>>,
}

impl Run {
    fn new() -> Self {
        let options = HeadOptions { ooo_window_ms: 60 * MINUTE, ..HeadOptions::default() };
        Self {
            fixture: Fixture::new(options),
            now: NOW,
            model: Content::new(),
            last: BTreeMap::new(),
            twice: Content::new(),
            version: Arc::default(),
            cut: None,
            finished: i64::MIN,
            readers: Vec::new(),
            old: Vec::new(),
        }
    }

    fn append(&mut self, of: usize, series: usize, t: i64, bits: u64) {
        let key = (tenant(of), labels(series));
        let value = f64::from_bits(bits);
        let applied = self.fixture.append(&key.0, &[(key.1.clone(), vec![Sample::new(t, value)])]);
        let outcome = applied.outcome;
        let reason = outcome.rejections.into_iter().next().map(|rejection| rejection.reason);
        let boundary = self.fixture.head.cut();
        let last = self.last.get(&key).copied();
        let in_order = t > boundary && last.is_none_or(|last| t > last);
        let too_old = last.is_some_and(|last| t < last - 60 * MINUTE);
        let known = self.model.entry(key.clone()).or_default().get(&t).copied();
        // What is at or before the last cut's boundary may be in blocks alone.
        let forgotten = t <= self.finished;
        match (known, reason) {
            (_, None) if outcome.duplicates == 1 => assert_eq!(known, Some(bits)),
            (None, None) => {
                assert!(in_order || !too_old, "{t} is taken, behind {last:?}");
                self.model.entry(key.clone()).or_default().insert(t, bits);
            }
            (Some(_), None) => {
                assert!(forgotten, "{t} is known, and taken again");
                self.twice.entry(key.clone()).or_default().insert(t, bits);
            }
            (_, Some(RejectReason::TooOld)) => {
                assert!(!in_order && too_old, "{t} is not taken, behind {last:?}");
            }
            (known, Some(RejectReason::DuplicateTimestamp { timestamp, existing, .. })) => {
                // Of what is there twice, the head knows the later one.
                let again = self.twice.get(&key).and_then(|points| points.get(&t)).copied();
                let existing = Some(existing.to_bits());
                assert!(timestamp == t && (existing == known || existing == again) && existing != Some(bits));
            }
            (_, Some(reason)) => panic!("{t}: {reason}"),
        }
        if in_order && outcome.stored == 1 {
            self.last.insert(key, t);
        }
    }

    fn begin_cut(&mut self, at: i64, aligned: bool) {
        if self.cut.as_ref().is_some_and(|cut| cut.point() == self.version.head_from) {
            // Published: it is finished first.
            return;
        }
        let boundary = self.now - at * MINUTE;
        let boundary = if aligned { boundary.div_euclid(WINDOW_MS) * WINDOW_MS } else { boundary };
        self.cut = Some(self.fixture.head.begin_cut(boundary));
    }

    fn publish(&mut self, whole: bool) {
        let Some(cut) = &self.cut else { return };
        if self.version.head_from == cut.point() {
            return;
        }
        let block = block_of(&self.fixture.head, cut);
        if !whole {
            return;
        }
        for (key, points) in &block {
            for (t, bits) in points {
                let earlier =
                    self.version.blocks.iter().any(|b| b.get(key).is_some_and(|p| p.contains_key(t)));
                let again = self.twice.get(key).is_some_and(|twice| twice.get(t) == Some(bits));
                assert!(!earlier || again, "{t} of {key:?} is in two blocks");
            }
        }
        let next = Arc::new(self.version.with(block, cut));
        self.old.push(std::mem::replace(&mut self.version, next));
    }

    fn finish(&mut self) {
        let Some(cut) = self.cut.take() else { return };
        let left = self.old.iter().any(|version| Arc::strong_count(version) > 1);
        if self.version.head_from != cut.point() || left {
            self.cut = Some(cut);
            return;
        }
        self.old.clear();
        self.finished = cut.boundary();
        self.last.retain(|_, last| *last > cut.boundary());
        self.fixture.head.finish_cut(cut);
    }

    fn open(&self) -> Vec<HeadView> {
        let open = |of| {
            HeadView::open_from(
                Arc::clone(&self.fixture.head),
                &tenant(of),
                TimeRange::ALL,
                self.version.head_from,
            )
        };
        (0..2).map(open).collect()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(of, series, before, bits) => {
                self.append(of, series, self.now - before * MINUTE, bits)
            }
            Step::Advance(minutes) => {
                self.now += minutes * MINUTE;
                self.fixture.clock.set(self.now);
            }
            Step::BeginCut(at, aligned) => self.begin_cut(at, aligned),
            Step::Publish(whole) => self.publish(whole),
            Step::OpenReader => {
                let (version, views) = (Arc::clone(&self.version), self.open());
                self.readers.push(Reader { version, views, before: self.model.clone() });
            }
            Step::CloseReaders => self.readers.clear(),
            Step::Finish => self.finish(),
            Step::Truncate => drop(self.fixture.head.truncate()),
        }
    }

    fn check(&self) {
        let all = |version: &Version, views: &[HeadView]| {
            (0..2).fold(Content::new(), |mut all, of| {
                all.extend(seen(version, &views[of], &tenant(of)));
                all
            })
        };
        let mut model = self.model.clone();
        model.retain(|_, points| !points.is_empty());
        assert_eq!(all(&self.version, &self.open()), model, "a new reader sees the model");
        for reader in &self.readers {
            let seen = all(&reader.version, &reader.views);
            for (key, before) in &reader.before {
                let nothing = Points::new();
                let seen = seen.get(key).unwrap_or(&nothing);
                assert!(
                    before.iter().all(|(t, bits)| seen.get(t) == Some(bits)),
                    "nothing is lost to a reader"
                );
                assert!(seen.iter().all(|(t, bits)| model[key].get(t) == Some(bits)), "nothing is invented");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn readers_see_the_model_through_cuts(steps in proptest::collection::vec(step(), 1..250)) {
        let mut run = Run::new();
        for step in steps {
            let look = !matches!(step, Step::Append(..) | Step::Advance(_));
            run.step(step);
            if look {
                run.check();
            }
        }
        run.check();
        // To the end: the head gives away all it has.
        run.readers.clear();
        run.finish();
        run.begin_cut(-1, false);
        run.publish(true);
        run.finish();
        run.check();
        let stats = run.fixture.head.stats();
        prop_assert_eq!((stats.series, stats.chunk_bytes, stats.late_bytes, stats.chunks_closed), (0, 0, 0, 0));
        prop_assert_eq!(stats.samples, stats.samples_cut + stats.samples_dropped);
    }

    /// What the log brings back is what was there, whether the cut is known at the start or not.
    #[test]
    fn a_restart_brings_back_the_content(steps in proptest::collection::vec(step(), 1..150)) {
        let mut run = Run::new();
        for step in steps {
            // Without an end of the cut: what is in blocks is not in the head.
            if matches!(step, Step::Append(..) | Step::Advance(_) | Step::BeginCut(..)) {
                run.step(step);
            }
        }
        run.model.retain(|_, points| !points.is_empty());
        let cut = run.fixture.head.cut();
        for known in [None, Some(cut)] {
            run.fixture = run.fixture.restart(known);
            prop_assert_eq!(run.fixture.head.cut(), known.unwrap_or(Timestamp::MIN));
            let none = Version::default();
            let mut content = Content::new();
            for of in 0..2 {
                let view = HeadView::open(Arc::clone(&run.fixture.head), &tenant(of), TimeRange::ALL);
                content.extend(seen(&none, &view, &tenant(of)));
            }
            prop_assert_eq!(&content, &run.model);
            let samples: usize = run.model.values().map(Points::len).sum();
            prop_assert_eq!(run.fixture.replayed.stored, samples as u64);
            prop_assert_eq!(run.fixture.replayed.skipped, 0);
        }
    }
}

#[test]
fn a_cut_that_another_one_has_overtaken_frees_nothing() {
    let fixture = Fixture::new(HeadOptions::default());
    let give = |t: i64| fixture.append(&tenant(0), &[(labels(0), vec![Sample::new(t, 1.0)])]).outcome.stored;
    assert_eq!(give(NOW) + give(NOW - MINUTE), 2);
    let first = fixture.head.begin_cut(NOW);
    let second = fixture.head.begin_cut(NOW - WINDOW_MS);
    assert_eq!(second.boundary(), NOW, "a boundary does not sink");
    fixture.head.finish_cut(first);
    assert_eq!(fixture.head.stats().samples_cut, 0);
    assert_eq!(block_of(&fixture.head, &second)[&(tenant(0), labels(0))].len(), 2);
    let truncation = fixture.head.finish_cut(second);
    let stats = fixture.head.stats();
    assert_eq!((stats.samples_cut, truncation.series_removed, stats.times), (2, 1, None));
    assert_eq!(give(NOW + 1), 1);
    assert_eq!(fixture.head.stats().times, Some((NOW + 1, NOW + 1)));
}

#[test]
fn a_series_behind_the_cut_goes_on_where_it_is() {
    let fixture = Fixture::new(HeadOptions::default());
    let cut = fixture.head.begin_cut(NOW);
    fixture.head.finish_cut(cut);
    let give = |series: usize, t: i64| {
        let outcome =
            fixture.append(&tenant(0), &[(labels(series), vec![Sample::new(t, stale_nan())])]).outcome;
        outcome.rejections.into_iter().next().map(|rejection| rejection.reason)
    };
    assert_eq!(give(0, NOW - 600 * MINUTE), None, "its newest sample is not known: a sender that lags");
    assert_eq!(give(0, NOW + 1), None);
    assert_eq!(give(0, NOW - 600 * MINUTE + 1), Some(RejectReason::TooOld), "now it is");
    let stats = fixture.head.stats();
    assert_eq!((stats.series, stats.samples, stats.samples_late, stats.late_series), (1, 2, 1, 1));
    let view = HeadView::open(Arc::clone(&fixture.head), &tenant(0), TimeRange::ALL);
    let series = view.select(&[]).series;
    assert_eq!(view.last_samples(&series)[0].map(|sample| sample.timestamp), Some(NOW + 1));
}

/// With many windows, or tenants, each series is looked at once, not once for each of them.
#[test]
fn a_window_of_a_cut_is_known_without_a_look_at_its_series() {
    let fixture = Fixture::new(HeadOptions::default());
    let of = tenant(0);
    for window in 0..6 {
        // A series of its own in each window, and one in all of them.
        let t = NOW - (6 - window) * WINDOW_MS + 5;
        let rows =
            [(labels(window as usize), vec![Sample::new(t, 1.0)]), (labels(9), vec![Sample::new(t, 2.0)])];
        assert_eq!(fixture.append(&of, &rows).outcome.stored, 2);
    }
    let cut = fixture.head.begin_cut(NOW);
    let half = TimeRange::new(NOW - WINDOW_MS + 1, NOW - WINDOW_MS / 2);
    let names = |window| {
        let entries = fixture.head.cut_series(&cut, &of, window).flatten();
        entries.map(|entry| entry.labels).collect::<Vec<_>>()
    };
    let before = names(half);
    let windows = fixture.head.cut_windows(&cut);
    assert_eq!((windows.len(), windows[0].1.len()), (1, 6));
    assert_eq!(names(half), before, "a part of a window is looked at");
    // Whoever looks at a series locks its shard.
    let locked: Vec<_> = fixture.head.shards.iter().map(|shard| shard.lock()).collect();
    let (tell, told) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let (head, cut, of) = (&fixture.head, &cut, &of);
        scope.spawn(move || {
            for window in &windows[0].1 {
                let entries: Vec<CutEntry> = head.cut_series(cut, of, *window).flatten().collect();
                tell.send(entries.len()).unwrap();
            }
        });
        let first = told.recv_timeout(Duration::from_secs(10));
        drop(locked);
        assert_eq!(first, Ok(2));
        assert_eq!(told.iter().collect::<Vec<_>>(), [2; 5]);
    });
}

#[test]
fn a_cut_makes_room_where_nothing_is_dropped() {
    let options =
        HeadOptions { memory_bytes_max: 2 << 20, drops_when_short: false, ..HeadOptions::default() };
    let fixture = Fixture::new(options);
    let mut t = NOW;
    let full = loop {
        t += 1;
        let given: Vec<_> =
            (0..50).map(|i| (labels(i), vec![Sample::new(t, (t * 7919 % 1013) as f64)])).collect();
        if fixture.try_append(&tenant(0), &given).is_err() {
            break t;
        }
        assert!(t < NOW + 100_000, "there is a limit");
    };
    let stats = fixture.head.stats();
    assert_eq!((stats.samples_dropped, stats.memory_truncations), (0, 0));
    assert_eq!(fixture.head.truncate().series_removed, 0, "nor in the background");
    assert!(fixture.try_append(&tenant(0), &[(labels(0), vec![Sample::new(full, 1.0)])]).is_err());
    let cut = fixture.head.begin_cut(full - 10);
    assert_eq!(
        block_of(&fixture.head, &cut).values().map(Points::len).sum::<usize>() as i64,
        (full - 11 - NOW + 1) * 50
    );
    fixture.head.finish_cut(cut);
    assert!(fixture.try_append(&tenant(0), &[(labels(0), vec![Sample::new(full, 1.0)])]).is_ok());
}

#[test]
fn a_late_sample_behind_the_cut_may_be_the_newest() {
    let fixture = Fixture::new(HeadOptions::default());
    let give = |t: i64| fixture.append(&tenant(0), &[(labels(0), vec![Sample::new(t, 1.0)])]).outcome.stored;
    give(NOW - MINUTE);
    let cut = fixture.head.begin_cut(NOW);
    assert_eq!(give(NOW), 1);
    let last = |from: CutPoint| {
        let view = HeadView::open_from(Arc::clone(&fixture.head), &tenant(0), TimeRange::ALL, from);
        let series = view.select(&[]).series;
        view.last_samples(&series)[0]
    };
    assert_eq!(last(CutPoint::NONE), None, "it is not the newest sample in order");
    assert_eq!(last(cut.point()), None, "blocks have it");
}

/// Writers, readers and cuts at the same time.
struct Race {
    fixture: Fixture,
    /// Steps by series.
    acknowledged: Vec<AtomicI64>,
    version: Mutex<Arc<Version>>,
    stop: AtomicBool,
    reads: AtomicUsize,
    cuts: AtomicUsize,
}

impl Race {
    const SERIES: usize = 12;
    const STEP: i64 = 15_000;
    /// Late samples come so many steps behind.
    const LAG: i64 = 40;

    fn even(k: i64) -> i64 {
        NOW + 2 * k * Self::STEP
    }

    fn bits(series: usize, t: i64) -> u64 {
        (t - NOW) as u64 * 31 + series as u64
    }

    fn going(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Writes every second series.
    fn write(&self, of: usize) {
        for k in (0..).take_while(|_| self.going()) {
            for series in (of..Self::SERIES).step_by(2) {
                let mut times = vec![Self::even(k)];
                if k >= Self::LAG {
                    times.push(Self::even(k - Self::LAG) + Self::STEP);
                }
                let sample = |t: &i64| Sample::new(*t, f64::from_bits(Self::bits(series, *t)));
                let samples: Vec<Sample> = times.iter().map(sample).collect();
                let applied = self.fixture.append(&tenant(0), &[(labels(series), samples)]);
                // Not faster than the log.
                if k % 64 == 0 {
                    self.fixture.wal.wait(applied.batch).unwrap();
                }
                let outcome = applied.outcome;
                assert_eq!(outcome.stored, times.len() as u64, "{:?}", outcome.rejections);
                self.acknowledged[series].store(k + 1, Ordering::SeqCst);
            }
        }
    }

    /// A reader sees everything acknowledged before it was opened, once.
    fn read(&self) {
        while self.going() {
            let expected: Vec<i64> = self.acknowledged.iter().map(|k| k.load(Ordering::SeqCst)).collect();
            let version = Arc::clone(&self.version.lock().unwrap());
            let head = Arc::clone(&self.fixture.head);
            let view = HeadView::open_from(head, &tenant(0), TimeRange::ALL, version.head_from);
            let seen = seen(&version, &view, &tenant(0));
            for (series, k) in expected.into_iter().enumerate() {
                let nothing = Points::new();
                let points = seen.get(&(tenant(0), labels(series))).unwrap_or(&nothing);
                assert!(points.iter().all(|(t, value)| *value == Self::bits(series, *t)), "their own values");
                let lacks = |t: i64| !points.contains_key(&t);
                let lost = (0..k).find(|step| lacks(Self::even(*step)));
                assert_eq!(lost, None, "a step of {k} that series {series} lacks");
                let lost = (0..k - Self::LAG).find(|step| lacks(Self::even(*step) + Self::STEP));
                assert_eq!(lost, None, "a late step of {k} that series {series} lacks");
            }
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn cut(&self) {
        while self.going() {
            let k = self.acknowledged.iter().map(|k| k.load(Ordering::SeqCst)).min().unwrap_or(0);
            // Not aligned, and so near that late samples fall behind it.
            let cut = self.fixture.head.begin_cut(Self::even(k - Self::LAG / 2));
            let block = block_of(&self.fixture.head, &cut);
            let mut current = self.version.lock().unwrap();
            let next = Arc::new(current.with(block, &cut));
            let old = std::mem::replace(&mut *current, next);
            drop(current);
            while Arc::strong_count(&old) > 1 && self.going() {
                thread::yield_now();
            }
            if Arc::strong_count(&old) == 1 {
                self.fixture.head.finish_cut(cut);
                self.cuts.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn writers_readers_and_cuts_at_once() {
    let race = Race {
        fixture: Fixture::new(HeadOptions { future_ms_max: i64::MAX / 4, ..HeadOptions::default() }),
        acknowledged: (0..Race::SERIES).map(|_| AtomicI64::new(0)).collect(),
        version: Mutex::default(),
        stop: AtomicBool::new(false),
        reads: AtomicUsize::new(0),
        cuts: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        let threads = [
            scope.spawn(|| race.write(0)),
            scope.spawn(|| race.write(1)),
            scope.spawn(|| race.read()),
            scope.spawn(|| race.read()),
            scope.spawn(|| race.cut()),
        ];
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) && !threads.iter().any(|t| t.is_finished()) {
            thread::sleep(Duration::from_millis(5));
        }
        race.stop.store(true, Ordering::Relaxed);
    });
    let (reads, cuts) = (race.reads.into_inner(), race.cuts.into_inner());
    assert!(reads >= 3 && cuts >= 3, "{reads} reads, {cuts} cuts");
    let blocks = &race.version.into_inner().unwrap().blocks;
    for (at, block) in blocks.iter().enumerate() {
        for (key, points) in block.iter() {
            let again = |earlier: &Arc<Content>| {
                earlier.get(key).is_some_and(|known| points.keys().any(|t| known.contains_key(t)))
            };
            assert!(!blocks[..at].iter().any(again), "{key:?} has a sample in two blocks");
        }
    }
}
