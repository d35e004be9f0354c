//! Counts over series of head and blocks, each once.

use std::collections::{BTreeMap, BTreeSet};

use chronolith_model::{Labels, Sample, TenantId, TimeRange};
use chronolith_storage::{CardinalityEntry, LabelQuery, Queryable as _, StorageStats, conformance::block_on};
use chronolith_tsdb::Db;

use crate::fixture::{Machine, NOW, append, eventually, quick};

/// The lists as they should be: largest first, equal ones by name.
fn top(counts: BTreeMap<String, u64>, limit: usize) -> Vec<CardinalityEntry> {
    let mut all: Vec<_> = counts.into_iter().map(|(name, value)| CardinalityEntry { name, value }).collect();
    all.sort_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
    all.truncate(limit);
    all
}

fn expected(series: &[Labels], limit: usize) -> [Vec<CardinalityEntry>; 4] {
    let (mut metrics, mut pairs) = (BTreeMap::new(), BTreeMap::new());
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for labels in series {
        *metrics.entry(labels.metric_name().expect("named").to_owned()).or_insert(0) += 1;
        for (name, value) in labels {
            *pairs.entry(format!("{name}={value}")).or_insert(0) += 1;
            values.entry(name.to_owned()).or_default().insert(value.to_owned());
        }
    }
    let bytes = |set: &BTreeSet<String>| set.iter().map(|value| value.len() as u64).sum();
    let value_bytes = values.iter().map(|(name, set)| (name.clone(), bytes(set))).collect();
    let value_counts = values.into_iter().map(|(name, set)| (name, set.len() as u64)).collect();
    [top(metrics, limit), top(value_counts, limit), top(value_bytes, limit), top(pairs, limit)]
}

fn lists(stats: StorageStats) -> [Vec<CardinalityEntry>; 4] {
    [stats.series_by_metric, stats.values_by_label, stats.bytes_by_label, stats.series_by_pair]
}

fn write(db: &Db, t: i64, series: impl Iterator<Item = usize>) {
    let labels = |n: usize| {
        let pairs = [
            ("__name__", format!("m{}", n % 7)),
            ("i", n.to_string()),
            // Sorts before `__name__`: the order of labels is not that of metrics.
            ("A", (n % 3).to_string()),
        ];
        Labels::from_pairs(
            pairs.into_iter().chain(n.is_multiple_of(5).then(|| ("five", "yes".repeat(n % 4)))),
        )
    };
    let batch: Vec<_> = series.map(|n| (labels(n), vec![Sample::new(t, 1.0)])).collect();
    append(db, &TenantId::default(), &batch).expect("taken").ticket.wait().expect("durable");
}

#[test]
fn each_series_counts_once() {
    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    let stats = |limit| db.querier(&TenantId::default(), TimeRange::ALL).expect("ready").stats(limit);
    let all = || {
        let querier = db.querier(&TenantId::default(), TimeRange::ALL).expect("ready");
        block_on(querier.series(&LabelQuery::default())).expect("valid").items
    };
    let same = |series: usize| {
        let all = all();
        assert_eq!(all.len(), series);
        for limit in [1, 2, 10, 1000] {
            assert_eq!(lists(stats(limit)), expected(&all, limit), "{limit}");
        }
    };
    let hour = 3_600_000;
    for (cut, (from, to)) in [(0, 40), (20, 90), (85, 100)].into_iter().enumerate() {
        write(&db, NOW - 9 * hour + cut as i64 * 2 * hour, from..to);
        same(to);
        db.request_cut(i64::MAX);
        eventually("a cut", || db.stats().jobs.cuts > cut as u64);
        same(to);
    }
    // Some that blocks have, some that are new; what the head has is told of the head alone.
    write(&db, NOW, 95..120);
    same(120);
    let stats = stats(10);
    assert_eq!((stats.series, stats.range.map(|range| range.max)), (25, Some(NOW)));
}
