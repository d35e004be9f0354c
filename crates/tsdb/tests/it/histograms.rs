//! Histograms, start timestamps and exemplars: through log, head, cuts, blocks, crashes.

use std::collections::BTreeMap;

use chronolith_env::Rng as _;
use chronolith_model::{
    Exemplar, Histogram, HistogramSample, Labels, Matcher, Sample, TenantId, TimeRange,
    histogram::{CUSTOM_SCHEMA, CounterResetHint, HistogramParts, Span},
};
use chronolith_storage::{
    Admin as _, AppendOutcome, Appender as _, ExemplarBatch, ExemplarEntry, ExemplarQuery, LabelSource,
    Queryable as _, RejectReason, Samples, SelectHints, SelectRequest, SeriesEntry, WriteBatch,
    conformance::block_on,
};
use chronolith_testkit::{fake_env::SimRng, fault_fs::CrashMode};
use chronolith_tsdb::{Db, DbOptions, Offline};

use crate::fixture::{DIR, Machine, NOW, compiled, eventually, metric, quick};

const HOUR: i64 = 3_600_000;
const SERIES: u64 = 7;

#[derive(Clone, Debug)]
enum Value {
    Float(u64),
    Histogram(Histogram),
}

/// What a series has: values, and when counting began.
type Model = BTreeMap<u64, BTreeMap<i64, (Value, i64)>>;
type Exemplars = BTreeMap<u64, Vec<Exemplar>>;

struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

/// One of integers, of floats, of custom buckets (of floats too), or a gauge of any of these.
fn histogram(n: u64, kind: u64) -> Histogram {
    let hint = if kind >= 4 { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
    let custom = kind % 4 >= 2;
    let (schema, custom_values) =
        if custom { (CUSTOM_SCHEMA, vec![0.1, n as f64, 1e6, 1e7, 1e8, 1e9, 1e10]) } else { (3, Vec::new()) };
    let spans = vec![Span { offset: (n % 5) as i32, length: 1 + (n % 3) as u32 }];
    let length = 1 + n % 3;
    if kind % 2 == 1 {
        let parts = HistogramParts::<f64> {
            hint,
            schema,
            sum: n as f64 * 0.3,
            count: (length * n) as f64,
            positive_spans: spans,
            positive_buckets: vec![n as f64; length as usize],
            custom_values,
            ..HistogramParts::default()
        };
        return Histogram::Float(parts.build(None).expect("valid"));
    }
    let parts = HistogramParts::<u64> {
        hint,
        schema,
        sum: n as f64 * 0.7,
        count: length * n,
        positive_spans: spans,
        positive_buckets: vec![n; length as usize],
        custom_values,
        ..HistogramParts::default()
    };
    Histogram::Integer(parts.build(None).expect("valid"))
}

fn append(db: &Db, id: u64, t: i64, value: &Value, start_timestamp: i64) -> AppendOutcome {
    let labels = metric("h", id as usize);
    let (mut samples, mut histograms) = (Vec::new(), Vec::new());
    match value {
        Value::Float(bits) => samples.push(Sample::new(t, f64::from_bits(*bits))),
        Value::Histogram(histogram) => {
            histograms.push(HistogramSample { timestamp: t, histogram: histogram.clone() });
        }
    }
    let entry = SeriesEntry {
        key: db.key_hasher().key(labels.to_string().as_bytes()),
        samples: 0..samples.len() as u32,
        histograms: 0..histograms.len() as u32,
        start_timestamp,
    };
    let batch =
        WriteBatch { series: &[entry], samples: &samples, histograms: &histograms, labels: &One(labels) };
    let appended = db.append(&TenantId::default(), &batch).expect("taken");
    appended.ticket.wait().expect("durable");
    appended.outcome
}

fn remember(db: &Db, id: u64, exemplar: &Exemplar) -> u64 {
    let labels = metric("h", id as usize);
    let series = [ExemplarEntry { key: db.key_hasher().key(labels.to_string().as_bytes()), exemplars: 0..1 }];
    let exemplars = std::slice::from_ref(exemplar);
    let batch = ExemplarBatch { series: &series, exemplars, labels: &One(labels) };
    db.append_exemplars(&TenantId::default(), &batch).stored
}

#[track_caller]
fn same(db: &Db, model: &Model, when: &str) {
    let querier = db.querier(&TenantId::default(), TimeRange::ALL).expect("ready");
    let request = SelectRequest {
        matchers: compiled(&[Matcher::equal("__name__", "h")]),
        range: TimeRange::ALL,
        hints: SelectHints::default(),
    };
    let set = block_on(querier.select(&request)).expect("valid");
    let batch = block_on(set.fetch(0..set.len())).expect("fetched");
    let mut seen = 0;
    for index in 0..set.len() {
        let id: u64 = set.labels(index).get("id").expect("there").parse().expect("a number");
        let mut samples = Samples::default();
        batch.read(index, &mut samples).expect("whole");
        let known = &model[&id];
        let of = |kind: fn(&Value) -> bool| {
            known.iter().filter(move |(_, (value, _))| kind(value)).map(|(t, _)| *t).collect::<Vec<_>>()
        };
        assert_eq!(samples.timestamps, of(|value| matches!(value, Value::Float(_))), "{when}: {id}");
        let histograms = of(|value| matches!(value, Value::Histogram(_)));
        assert_eq!(samples.histogram_timestamps, histograms, "{when}: {id}");
        for (t, found) in samples.timestamps.iter().zip(&samples.values) {
            let (Value::Float(bits), _) = &known[t] else { panic!("a float") };
            assert_eq!(found.to_bits(), *bits, "{when}: {id} {t}");
        }
        for (t, found) in samples.histogram_timestamps.iter().zip(&samples.histograms) {
            let (Value::Histogram(histogram), _) = &known[t] else { panic!("a histogram") };
            assert!(found.same_observations(histogram), "{when}: {id} {t}: {found:?}, {histogram:?}");
            let gauge = |histogram: &Histogram| histogram.hint() == CounterResetHint::Gauge;
            assert_eq!(gauge(found), gauge(histogram), "{when}: {id} {t}");
        }
        for (t, (_, start)) in known {
            assert_eq!(samples.start_at(*t), *start, "{when}: {id} {t}: {:?}", samples.starts);
        }
        seen += usize::from(!known.is_empty());
    }
    assert_eq!(seen, model.values().filter(|known| !known.is_empty()).count(), "{when}");
}

fn exemplars(db: &Db) -> Exemplars {
    let querier = db.querier(&TenantId::default(), TimeRange::ALL).expect("ready");
    let query = ExemplarQuery {
        payer: None,
        matcher_sets: vec![compiled(&[Matcher::equal("__name__", "h")])],
        range: TimeRange::ALL,
    };
    let found = block_on(querier.exemplars(&query)).expect("valid").into_iter();
    found.map(|of| (of.labels.get("id").expect("there").parse().expect("a number"), of.exemplars)).collect()
}

/// Writes, and enters what was stored.
fn write(db: &Db, rng: &SimRng, now: i64, model: &mut Model, known: &mut Exemplars) {
    let id = rng.next_u64() % SERIES;
    let late = if rng.next_u64().is_multiple_of(6) { (rng.next_u64() % 1_500_000) as i64 + 1 } else { 0 };
    let t = now - late;
    let value = match (id % 3, rng.next_u64() % 10) {
        (0, _) | (1, 0) => Value::Float(rng.next_u64()),
        (_, n) => Value::Histogram(histogram(1 + rng.next_u64() % 1000, n.saturating_sub(2))),
    };
    let start = if id.is_multiple_of(2) { t.div_euclid(2_400_000) * 2_400_000 } else { 0 };
    let outcome = append(db, id, t, &value, start);
    if outcome.stored == 1 {
        model.entry(id).or_default().insert(t, (value, start));
    }
    // One that is older than the last cut is not shown.
    if late == 0 && rng.next_u64().is_multiple_of(4) {
        let labels = Labels::from_pairs([("trace", rng.next_u64().to_string())]);
        let exemplar = Exemplar { labels, value: 1.5, timestamp: t };
        if remember(db, id, &exemplar) == 1 {
            known.entry(id).or_default().push(exemplar);
        }
    }
}

#[test]
fn they_survive_whatever_happens() {
    let modes = [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll];
    for seed in 1..=12 {
        let rng = SimRng::new(seed);
        let machine = Machine::at(NOW - 9 * HOUR);
        let options = DbOptions { segment_bytes: 8 << 10, ..quick() };
        let mut db = machine.open(options).0;
        let (mut model, mut known) = (Model::new(), Exemplars::new());
        let mut now = NOW - 9 * HOUR;
        for turn in 0..14 {
            for _ in 0..30 {
                now += 60_000;
                machine.clock.set(now);
                write(&db, &rng, now, &mut model, &mut known);
            }
            let what = rng.next_u64() % 5;
            let when = format!("seed {seed}, turn {turn}, {what}");
            match what {
                0 => {
                    let cuts = db.stats().jobs.cuts;
                    db.request_cut(now - 600_000);
                    eventually("a cut", || db.stats().jobs.cuts > cuts);
                }
                1 => {
                    machine.crash(db, modes[(rng.next_u64() % 4) as usize], rng.next_u64());
                    let (opened, report) = machine.open(options);
                    db = opened;
                    assert_eq!((report.damage_count, report.samples_orphaned), (0, 0), "{when}");
                    // Nobody waits for exemplars.
                    let left = exemplars(&db);
                    for (id, of) in &mut known {
                        let left = left.get(id).map(Vec::as_slice).unwrap_or_default();
                        of.retain(|exemplar| left.contains(exemplar));
                    }
                    known.retain(|_, of| !of.is_empty());
                }
                2 => {
                    db.close().expect("closes");
                    drop(db);
                    let offline = Offline::open(std::path::Path::new(DIR), options, &machine.env);
                    offline.expect("opens").compact(&mut |_| {}).expect("compacts");
                    db = machine.open(options).0;
                }
                _ => {
                    db.close().expect("closes");
                    drop(db);
                    db = machine.open(options).0;
                }
            }
            same(&db, &model, &when);
            assert_eq!(exemplars(&db), known, "{when}");
        }
        assert!(model.values().map(BTreeMap::len).sum::<usize>() > 300, "{seed}");
        // What is deleted is gone, of all kinds.
        let range = TimeRange::new(now - 3 * HOUR, now - 2 * HOUR);
        db.delete_series(&TenantId::default(), &[compiled(&[Matcher::equal("__name__", "h")])], range)
            .expect("deleted");
        for of in model.values_mut() {
            of.retain(|t, _| !range.contains(*t));
        }
        for of in known.values_mut() {
            of.retain(|exemplar| !range.contains(exemplar.timestamp));
        }
        known.retain(|_, of| !of.is_empty());
        same(&db, &model, "after a deletion");
        assert_eq!(exemplars(&db), known, "after a deletion");
    }
}
