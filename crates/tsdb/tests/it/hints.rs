//! What is said of the counters of histograms is true of the samples that are shown, whatever they come from.

use std::collections::BTreeMap;

use chronolith_env::Rng as _;
use chronolith_model::{
    Histogram, HistogramSample, Labels, Matcher, Sample, TenantId, TimeRange,
    histogram::{CounterResetHint, HistogramParts, Span},
};
use chronolith_storage::{
    Admin as _, Appender as _, LabelSource, Queryable as _, RejectReason, Samples, SelectHints,
    SelectRequest, SeriesEntry, WriteBatch, conformance::block_on,
};
use chronolith_testkit::{fake_env::SimRng, fault_fs::CrashMode};
use chronolith_tsdb::{Db, Offline};

use crate::fixture::{DIR, Machine, NOW, compiled, eventually, metric, quick};

const HOUR: i64 = 3_600_000;
const MINUTE: i64 = 60_000;
const SERIES: u64 = 4;

struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

/// One whose every bucket is what `n` is.
fn histogram(n: u64) -> Histogram {
    let parts = HistogramParts::<u64> {
        schema: 3,
        sum: n as f64,
        count: 2 * n,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive_buckets: vec![n, n],
        ..HistogramParts::default()
    };
    Histogram::Integer(parts.build(None).expect("valid"))
}

fn append(db: &Db, id: u64, t: i64, value: Option<Histogram>) {
    let labels = metric("h", id as usize);
    let (mut samples, mut histograms) = (Vec::new(), Vec::new());
    match value {
        None => samples.push(Sample::new(t, 1.0)),
        Some(histogram) => histograms.push(HistogramSample { timestamp: t, histogram }),
    }
    let entry = SeriesEntry {
        key: db.key_hasher().key(labels.to_string().as_bytes()),
        samples: 0..samples.len() as u32,
        histograms: 0..histograms.len() as u32,
        start_timestamp: 0,
    };
    let batch =
        WriteBatch { series: &[entry], samples: &samples, histograms: &histograms, labels: &One(labels) };
    let appended = db.append(&TenantId::default(), &batch).expect("taken");
    appended.ticket.wait().expect("durable");
}

/// What was seen: histograms that go on, that began anew, and of which nothing is known.
#[derive(Debug, Default)]
struct Seen {
    not_reset: usize,
    reset: usize,
    unknown: usize,
}

/// Checks all hints of what is shown in `range`.
fn check(db: &Db, range: TimeRange, seen: &mut Seen, when: &str) {
    let querier = db.querier(&TenantId::default(), range).expect("ready");
    let matchers = compiled(&[Matcher::equal("__name__", "h")]);
    let request = SelectRequest { matchers, range, hints: SelectHints::default() };
    let set = block_on(querier.select(&request)).expect("valid");
    let batch = block_on(set.fetch(0..set.len())).expect("fetched");
    for index in 0..set.len() {
        let mut samples = Samples::default();
        batch.read(index, &mut samples).expect("whole");
        let floats = samples.timestamps.iter().map(|t| (*t, None));
        let histograms = samples.histogram_timestamps.iter().zip(&samples.histograms);
        let all: BTreeMap<i64, Option<&Histogram>> =
            floats.chain(histograms.map(|(t, histogram)| (*t, Some(histogram)))).collect();
        let mut before: Option<Option<&Histogram>> = None;
        for (t, sample) in all {
            if let Some(histogram) = sample {
                let mut plain = histogram.clone();
                plain.set_hint(CounterResetHint::Unknown);
                let found = plain.hint_after(before.flatten());
                let place = format!("{when}, {range:?}: {} at {t}", set.labels(index));
                match histogram.hint() {
                    CounterResetHint::NotReset => {
                        assert_eq!(found, CounterResetHint::NotReset, "{place}");
                        seen.not_reset += 1;
                    }
                    CounterResetHint::Reset => {
                        assert_ne!(found, CounterResetHint::NotReset, "{place}");
                        seen.reset += 1;
                    }
                    CounterResetHint::Unknown => seen.unknown += 1,
                    CounterResetHint::Gauge => panic!("{place}: nobody has sent one"),
                }
            }
            before = Some(sample);
        }
    }
}

fn import(db: &Db, rng: &SimRng, now: i64) {
    let mut importer = db.import(&TenantId::default()).expect("begun");
    for _ in 0..1 + rng.next_u64() % 4 {
        let id = rng.next_u64() % SERIES;
        let begin = now - (rng.next_u64() % 600) as i64 * MINUTE;
        let mut samples = Samples::default();
        for n in 0..(rng.next_u64() % 40) as i64 {
            let t = begin + n * (1 + (rng.next_u64() % 2) as i64) * MINUTE;
            if samples.histogram_timestamps.last().is_none_or(|last| *last < t)
                && samples.timestamps.last().is_none_or(|last| *last < t)
                && t <= now
            {
                if rng.next_u64().is_multiple_of(8) {
                    samples.push(t, 2.0);
                } else {
                    // Whoever says so need not be right.
                    let mut histogram = histogram(1 + rng.next_u64() % 50);
                    histogram.set_hint(CounterResetHint::NotReset);
                    samples.push_histogram(t, histogram);
                }
            }
        }
        importer.append(&metric("h", id as usize), &samples).expect("taken");
    }
    importer.finish().expect("imported");
}

#[test]
fn hints_say_nothing_wrong_whatever_samples_come_from() {
    let mut seen = Seen::default();
    for seed in 1..=16 {
        let rng = SimRng::new(seed);
        let machine = Machine::at(NOW - 9 * HOUR);
        let options = quick();
        let mut db = machine.open(options).0;
        let mut now = NOW - 9 * HOUR;
        let mut counts = [0_u64; SERIES as usize];
        for turn in 0..16 {
            for _ in 0..40 {
                now += MINUTE / 2;
                machine.clock.set(now);
                let id = rng.next_u64() % SERIES;
                let count = &mut counts[id as usize];
                *count = if rng.next_u64().is_multiple_of(12) { 1 } else { *count + 1 + rng.next_u64() % 5 };
                // Some come late, with any value; some series have floats between.
                let (t, n) = match rng.next_u64() % 6 {
                    0 => (now - (rng.next_u64() % 50) as i64 * MINUTE / 2, 1 + rng.next_u64() % 100),
                    _ => (now, *count),
                };
                let float = id == 3 && rng.next_u64().is_multiple_of(5);
                append(&db, id, t, (!float).then(|| histogram(n)));
            }
            let what = rng.next_u64() % 7;
            let when = format!("seed {seed}, turn {turn}, {what}");
            match what {
                0 | 1 => {
                    let cuts = db.stats().jobs.cuts;
                    db.request_cut(now - 10 * MINUTE);
                    eventually("a cut", || db.stats().jobs.cuts > cuts);
                }
                2 => import(&db, &rng, now),
                3 | 4 => {
                    let begin = now - (rng.next_u64() % 300) as i64 * MINUTE;
                    let range = TimeRange::new(begin, begin + (rng.next_u64() % 20) as i64 * MINUTE / 2);
                    let id = (rng.next_u64() % SERIES).to_string();
                    let set = compiled(&[Matcher::equal("id", id)]);
                    db.delete_series(&TenantId::default(), &[set], range).expect("deleted");
                }
                5 => {
                    db.clean_tombstones().expect("cleaned");
                    db.close().expect("closes");
                    drop(db);
                    let offline = Offline::open(std::path::Path::new(DIR), options, &machine.env);
                    offline.expect("opens").compact(&mut |_| {}).expect("compacts");
                    db = machine.open(options).0;
                }
                _ => {
                    machine.crash(db, CrashMode::LoseUnsynced, rng.next_u64());
                    db = machine.open(options).0;
                }
            }
            check(&db, TimeRange::ALL, &mut seen, &when);
            for _ in 0..3 {
                let begin = now - (rng.next_u64() % 300) as i64 * MINUTE / 2;
                check(&db, TimeRange::new(begin, begin + 30 * MINUTE), &mut seen, &when);
            }
        }
    }
    assert!(seen.not_reset > 1000 && seen.reset > 100 && seen.unknown > 100, "{seen:?}");
}
