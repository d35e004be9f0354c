//! Histograms of all kinds: integers and floats, exponential and custom buckets, counters and gauges.

use std::collections::{BTreeMap, HashSet};

use chronolith_block::{Block, BlockRange, verify};
use chronolith_model::histogram::{CUSTOM_SCHEMA, CounterResetHint, HistogramParts, Span};
use chronolith_model::{Histogram, TimeRange};

use crate::fixture::{Disk, Model, Value, add, columns, delete, inside, read, tombstone};
use crate::roundtrip::series;

const HOURS2: i64 = 7_200_000;
const STEP: i64 = 15_000;
/// How many kinds there are.
pub(crate) const KINDS: u64 = 8;
/// Their metrics.
const METRICS: [&str; KINDS as usize] = [
    "a_integer",
    "b_integer_gauge",
    "c_float",
    "d_float_gauge",
    "e_custom",
    "f_custom_float",
    "g_custom_gauge",
    "h_large",
];

fn spans(of: &[(i32, u32)]) -> Vec<Span> {
    of.iter().map(|(offset, length)| Span { offset: *offset, length: *length }).collect()
}

/// A histogram of `kind` whose buckets hold about `n`; `form` chooses resolution, zero bucket, spans and bounds. No hint, but
/// that of a gauge.
pub(crate) fn of_kind(kind: u64, n: u64, form: u64) -> Histogram {
    let hint = if matches!(kind, 1 | 3 | 6) { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
    let sum = n as f64 * 1.7 - if kind == 1 { 100.0 } else { 0.0 };
    if kind < 4 || kind == 7 {
        let positive = spans([&[(0, 2)][..], &[(-3, 1), (2, 2)], &[(1, 3)]][form as usize % 3]);
        let negative = spans([&[][..], &[(0, 1)]][form as usize % 2]);
        let length = |spans: &[Span]| spans.iter().map(|span| span.length as usize).sum::<usize>();
        let (schema, zero_threshold) = ((form as i32 / 3) % 13 - 4, if form < 20 { 0.001 } else { 0.0 });
        if matches!(kind, 2 | 3) {
            let n = n as f64 * 0.37;
            let (positive_buckets, negative_buckets) =
                (vec![n + 0.1; length(&positive)], vec![n; length(&negative)]);
            let all = positive_buckets.iter().chain(&negative_buckets).sum::<f64>() + n;
            let parts = HistogramParts {
                hint,
                schema,
                zero_threshold,
                zero_count: n,
                count: all,
                sum,
                positive_spans: positive,
                negative_spans: negative,
                positive_buckets,
                negative_buckets,
                ..HistogramParts::default()
            };
            return Histogram::Float(parts.build(None).unwrap());
        }
        // Above 2^53 a float does not have every integer.
        let n = if kind == 7 { (1 << 55) + n } else { n };
        let (positive_buckets, negative_buckets) =
            (vec![n; length(&positive)], vec![n / 2; length(&negative)]);
        let parts = HistogramParts {
            hint,
            schema,
            zero_threshold,
            zero_count: n,
            count: positive_buckets.iter().chain(&negative_buckets).sum::<u64>() + n,
            sum,
            positive_spans: positive,
            negative_spans: negative,
            positive_buckets,
            negative_buckets,
            ..HistogramParts::default()
        };
        return Histogram::Integer(parts.build(None).unwrap());
    }
    let custom_values = [vec![0.1, 1.0, 10.0], vec![0.005, 0.025, 2.5]][form as usize / 3 % 2].clone();
    let positive_spans = spans([&[(0, 4)][..], &[(1, 2)], &[(0, 1), (2, 1)]][form as usize % 3]);
    let length: u32 = positive_spans.iter().map(|span| span.length).sum();
    if kind == 5 {
        let n = n as f64 * 0.37;
        let parts = HistogramParts {
            hint,
            schema: CUSTOM_SCHEMA,
            count: vec![n; length as usize].iter().sum(),
            sum,
            positive_spans,
            positive_buckets: vec![n; length as usize],
            custom_values,
            ..HistogramParts::default()
        };
        return Histogram::Float(parts.build(None).unwrap());
    }
    let parts = HistogramParts {
        hint,
        schema: CUSTOM_SCHEMA,
        count: n * u64::from(length),
        sum,
        positive_spans,
        positive_buckets: vec![n; length as usize],
        custom_values,
        ..HistogramParts::default()
    };
    Histogram::Integer(parts.build(None).unwrap())
}

/// Series of all kinds that count up, begin anew now and then, change their buckets, go stale and have floats between; with the
/// hints that they deserve.
fn content(instances: u64, samples: i64, from: i64) -> Model {
    let mut model = Model::new();
    for (kind, metric) in (0..).zip(METRICS) {
        for instance in 0..instances {
            let mut before: Option<Histogram> = None;
            let mut all = BTreeMap::new();
            for i in 0..samples {
                let turn = i as u64 + instance * 7;
                let value = match turn % 29 {
                    11 if instance % 3 == 1 => Value::Float(turn),
                    17 => Value::Histogram(Box::new(Histogram::stale())),
                    _ => {
                        let mut histogram = of_kind(kind, 5 + turn % 23, turn / 40 + instance);
                        histogram.set_hint(histogram.hint_after(before.as_ref()));
                        Value::Histogram(Box::new(histogram))
                    }
                };
                if let Value::Histogram(histogram) = &value {
                    before = Some((**histogram).clone());
                }
                all.insert(from + 1 + i * STEP + instance as i64 % 3, value);
            }
            model.insert(series(metric, instance), all);
        }
    }
    model
}

/// How many histograms there are of each hint: unknown, reset, not reset, gauge.
fn hints(model: &Model) -> [usize; 4] {
    let mut counts = [0; 4];
    for value in model.values().flat_map(BTreeMap::values) {
        if let Value::Histogram(histogram) = value {
            counts[histogram.hint() as usize] += 1;
        }
    }
    counts
}

/// That `found` is `expected` but for hints, and that these say nothing wrong: what is said is what the two histograms say, a
/// gauge is one, and of a sample that still follows the one it followed in `written` everything is said that was.
fn check(found: &Model, expected: &Model, written: &Model, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (labels, samples) in found {
        let times: Vec<i64> = samples.keys().copied().collect();
        assert_eq!(times, expected[labels].keys().copied().collect::<Vec<_>>(), "{what}: {labels}");
        let mut before: Option<(i64, &Histogram)> = None;
        for (t, value) in samples {
            let place = format!("{what}: {labels} at {t}");
            let Value::Histogram(histogram) = value else {
                assert_eq!(value, &expected[labels][t], "{place}");
                continue;
            };
            let Value::Histogram(model) = &expected[labels][t] else { panic!("{place}: no histogram") };
            assert!(histogram.same_observations(model), "{place}: {histogram:?}, {model:?}");
            let gauge = CounterResetHint::Gauge;
            assert_eq!(histogram.hint() == gauge, model.hint() == gauge, "{place}");
            let mut plain = (**histogram).clone();
            plain.set_hint(if histogram.hint() == gauge { gauge } else { CounterResetHint::Unknown });
            let known = plain.hint_after(before.map(|(_, histogram)| histogram));
            let neighbour = |in_model: &Model| {
                let histograms = in_model.get(labels)?.range(..t).rev();
                let mut histograms = histograms.filter(|(_, value)| matches!(value, Value::Histogram(_)));
                histograms.next().map(|(t, _)| *t)
            };
            let same = written.get(labels).is_some_and(|all| all.contains_key(t))
                && neighbour(written) == before.map(|(t, _)| t);
            if same && before.is_some() {
                assert_eq!(histogram.hint(), model.hint(), "{place}: the hint it had");
            } else if histogram.hint() != CounterResetHint::Unknown && before.is_some() {
                assert_eq!(histogram.hint(), known, "{place}");
            }
            before = Some((*t, histogram));
        }
    }
}

/// Blocks of neighbouring time, and what they have.
fn neighbours(disk: &Disk, count: i64, instances: u64) -> (Vec<Block>, Model) {
    let (mut blocks, mut all) = (Vec::new(), Model::new());
    for number in 0..count {
        let model = content(instances, 90, number * HOURS2);
        add(&mut all, &model);
        let range = BlockRange::new(number * HOURS2, (number + 1) * HOURS2);
        blocks.push(disk.open(&disk.write(number as u64, range, &[(number as u64, model)])));
    }
    (blocks, all)
}

fn sound(block: &Block) {
    let problems = verify(block, &|| false).unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn all_kinds_are_read_as_they_were_written() {
    let disk = Disk::new();
    let (blocks, all) = neighbours(&disk, 1, 12);
    sound(&blocks[0]);
    assert_eq!(read(&blocks[0], TimeRange::ALL), all, "bit for bit, with the hints");
    let [unknown, reset, not_reset, gauge] = hints(&all);
    assert!(unknown.min(reset) > 100 && not_reset > 1000 && gauge > 1000, "{:?}", hints(&all));
    let of_kind = |model: &Model, metric: &str| {
        let series = model.iter().filter(|(labels, _)| labels.metric_name() == Some(metric));
        series.map(|(_, samples)| columns(Some(samples)).histograms).collect::<Vec<_>>().concat()
    };
    let layouts = |metric: &str| {
        let histograms = of_kind(&all, metric);
        let kinds = histograms.iter().filter(|h| !h.is_stale());
        (kinds.clone().all(Histogram::is_float), kinds.map(|h| h.layout().schema()).collect::<HashSet<_>>())
    };
    assert!(layouts("c_float").0 && layouts("f_custom_float").0 && !layouts("e_custom").0);
    assert_eq!(layouts("e_custom").1, HashSet::from([CUSTOM_SCHEMA]));
    assert!(layouts("a_integer").1.len() > 1);
    let meta = blocks[0].meta();
    assert_eq!(meta.histograms as usize, hints(&all).iter().sum::<usize>());
    for range in
        [TimeRange::new(1, 1), TimeRange::new(40 * STEP, 60 * STEP), TimeRange::new(600_007, 1_000_000)]
    {
        let found = read(&blocks[0], range);
        check(&found, &inside(&all, range), &all, &format!("{range:?}"));
    }
}

#[test]
fn every_resolution_is_read_as_it_was_written() {
    let disk = Disk::new();
    let mut model = Model::new();
    for kind in 0..KINDS {
        let all = (0..39).map(|form| (1 + form, Value::Histogram(Box::new(of_kind(kind, 9, form as u64)))));
        model.insert(series(METRICS[kind as usize], 0), all.collect());
    }
    let block = disk.open(&disk.write(1, BlockRange::new(0, HOURS2), &[(1, model.clone())]));
    assert_eq!(read(&block, TimeRange::ALL), model);
    let merged = disk.merge(9, BlockRange::new(0, HOURS2), &[&block]).block.unwrap();
    assert_eq!(read(&disk.open(&merged.path), TimeRange::ALL), model);
    let schemas = columns(model.get(&series(METRICS[2], 0))).histograms;
    let schemas: HashSet<_> = schemas.iter().map(|histogram| histogram.layout().schema()).collect();
    assert_eq!(schemas, (-4..=8).collect());
}

#[test]
fn frames_of_all_kinds_are_copied() {
    let disk = Disk::new();
    let (blocks, all) = neighbours(&disk, 4, 10);
    let merged = disk.merge(100, BlockRange::new(0, 4 * HOURS2), &blocks.iter().collect::<Vec<_>>());
    assert_eq!(merged.frames_encoded, 0);
    let block = disk.open(&merged.block.unwrap().path);
    sound(&block);
    assert_eq!(read(&block, TimeRange::ALL), all, "the hints too");
}

#[test]
fn deletions_between_histograms_of_all_kinds() {
    let disk = Disk::new();
    let (blocks, all) = neighbours(&disk, 2, 10);
    let mut left = all.clone();
    for (kind, metric) in (0..).zip(METRICS) {
        // Around a few samples, of all instances but the last ones.
        for instance in 0..7 {
            let min = (20 + kind * 3 + instance) * STEP;
            let deleted = chronolith_block::Tombstone {
                matchers: vec![
                    chronolith_model::Matcher::equal("__name__", metric),
                    chronolith_model::Matcher::equal("instance", format!("i{instance}")),
                ],
                ranges: vec![
                    TimeRange::new(min, min + 2 * STEP),
                    TimeRange::new(min + 4 * STEP, min + 5 * STEP),
                ],
            };
            blocks[0].delete(deleted.clone()).unwrap();
            delete(&mut left, &deleted);
        }
    }
    blocks[1].delete(tombstone("instance", "i4", HOURS2, HOURS2 + 600_000)).unwrap();
    delete(&mut left, &tombstone("instance", "i4", HOURS2, HOURS2 + 600_000));
    let samples = |model: &Model| model.values().map(BTreeMap::len).sum::<usize>();
    assert!(samples(&all) - samples(&left) > 300);
    for (number, block) in (0_i64..).zip(&blocks) {
        let own = TimeRange::new(number * HOURS2 + 1, (number + 1) * HOURS2);
        check(&read(block, TimeRange::ALL), &inside(&left, own), &all, "as they stand");
    }
    let merged = disk.merge(100, BlockRange::new(0, 2 * HOURS2), &[&blocks[0], &blocks[1]]);
    assert!(merged.frames_encoded > 0, "{merged:?}");
    let block = disk.open(&merged.block.unwrap().path);
    sound(&block);
    check(&read(&block, TimeRange::ALL), &left, &all, "merged");
    let again = disk.merge(101, BlockRange::new(0, 2 * HOURS2), &[&block]);
    assert_eq!(again.frames_encoded, 0);
    check(&read(&disk.open(&again.block.unwrap().path), TimeRange::ALL), &left, &all, "merged again");
}

#[test]
fn late_neighbours_of_histograms_of_all_kinds() {
    let disk = Disk::new();
    let (blocks, all) = neighbours(&disk, 1, 10);
    let mut late = Model::new();
    for (kind, metric) in (0..).zip(METRICS) {
        for instance in 0..6 {
            // Between two samples, higher than both, lower, of another kind, a float; and one that is there already.
            let at = |place: i64| 1 + place * STEP + instance as i64 % 3;
            let value = |kind, n| Value::Histogram(Box::new(of_kind(kind, n, instance)));
            late.insert(
                series(metric, instance),
                BTreeMap::from([
                    (at(30) + 7, value(kind, 1000)),
                    (at(35) + 7, value(kind, 1)),
                    (at(40) + 7, value((kind + 1) % KINDS, 50)),
                    (at(45) + 7, Value::Float(3)),
                    (at(50), value(kind, 77)),
                    (at(95), value(kind, 40)),
                ]),
            );
        }
    }
    let second = disk.open(&disk.write(9, BlockRange::new(0, HOURS2), &[(9, late.clone())]));
    let mut joined = all.clone();
    add(&mut joined, &late);
    let merged = disk.merge(100, BlockRange::new(0, HOURS2), &[&blocks[0], &second]);
    assert!(merged.frames_encoded > 0, "{merged:?}");
    let block = disk.open(&merged.block.unwrap().path);
    sound(&block);
    check(&read(&block, TimeRange::ALL), &joined, &all, "merged");
    // Two parts of one block are joined by whoever reads.
    let parts = [(1, all.clone()), (2, late)];
    let block = disk.open(&disk.write(10, BlockRange::new(0, HOURS2), &parts));
    check(&read(&block, TimeRange::ALL), &joined, &all, "read from two parts");
    let merged = disk.merge(101, BlockRange::new(0, HOURS2), &[&block]);
    check(&read(&disk.open(&merged.block.unwrap().path), TimeRange::ALL), &joined, &all, "and merged");
}
