//! Results that are kept are those of a query that is evaluated from scratch.

use std::sync::Arc;

use chronolith_index::CompiledMatcher;
use chronolith_model::{Labels, MatchOp, Matcher, Sample, TenantId, TimeRange, Timestamp};
use chronolith_promql::{Engine, EngineOptions, Query, QueryResult, Value};
use chronolith_storage::{
    Admin as _, Changes, MemoryBudget, MemoryStorage, Querier, Queryable, StorageError,
    conformance::{block_on, write},
};
use proptest::prelude::*;

const MIB: usize = 1 << 20;
const STEP_MS: i64 = 15_000;
const QUERIES: [&str; 17] = [
    "sum by (a) (rate(c_total[1m]))",
    "rate(c_total[1m])",
    "avg_over_time(c_total[2m] offset 30s)",
    "max_over_time(c_total[1m] offset -45s)",
    "sum(c_total) / count(c_total)",
    "absent_over_time(c_total{a=\"0\"}[30s])",
    "topk(1, last_over_time(c_total[2m]))",
    "max_over_time(sum(rate(c_total[1m]))[3m:20s])",
    "time() - timestamp(c_total)",
    "sum(rate(c_total[1m])) or vector(time())",
    "c_total > 20 unless on (a) rate(c_total[1m]) > 0.5",
    // Not kept: they depend on the query, or on all steps.
    "label_replace(sum by (a) (increase(c_total[1m])), \"b\", \"$1\", \"a\", \"(.*)\")",
    "sum(rate(c_total[1m] @ end()))",
    "sum(rate({__name__=~\"c_total|d_total\"}[1m]))",
    "label_join(c_total, \"b\", \"\", \"a\")",
    "abs(c_total > 5 or d_total)",
    "-(c_total > 5 or d_total)",
];

/// Storage that says what has changed.
#[derive(Default)]
struct Watched {
    inner: MemoryStorage,
    changes: Changes,
}

impl Watched {
    fn append(&self, name: &str, a: i64, samples: &[Sample]) {
        let labels = Labels::from_pairs([("__name__", name.to_owned()), ("a", a.to_string())]);
        write(&self.inner, &TenantId::default(), &[(labels, samples.to_vec())]);
        self.changes.note(samples.iter().map(|sample| sample.timestamp).min().expect("one at least"));
    }

    fn delete(&self, range: TimeRange) {
        let matcher = CompiledMatcher::new(&Matcher::new("a", MatchOp::Equal, "1")).expect("valid");
        self.inner.delete_series(&TenantId::default(), &[vec![matcher]], range).expect("deleted");
        self.changes.note(Timestamp::MIN);
    }
}

impl Queryable for Watched {
    fn querier(&self, tenant: &TenantId, range: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        self.inner.querier(tenant, range)
    }

    fn moment(&self, _: &TenantId, _: TimeRange) -> Option<u64> {
        Some(self.changes.now())
    }

    fn changed_since(&self, _: &TenantId, moment: u64) -> Timestamp {
        self.changes.earliest_since(moment)
    }
}

fn engine(results_max_bytes: usize) -> Engine {
    Engine::new(EngineOptions { results_max_bytes, threads: 1, ..EngineOptions::default() })
}

fn ask(engine: &Engine, storage: &Watched, text: &str, (start, end): (i64, i64)) -> QueryResult {
    let query = Query { reuse: true, ..Query::range(text, start, end, STEP_MS) };
    block_on(engine.run(storage, &query)).expect("a result")
}

fn values(result: &QueryResult) -> Vec<(String, Vec<(i64, u64)>)> {
    let Value::Matrix(matrix) = &result.value else { panic!("a matrix") };
    let bits = |points: &[(i64, f64)]| points.iter().map(|(t, v)| (*t, v.to_bits())).collect();
    matrix.iter().map(|series| (series.labels.to_string(), bits(&series.points))).collect()
}

/// Samples of series `a` from step `from` on.
fn samples(a: i64, from: i64, count: i64) -> Vec<Sample> {
    let sample = |k: i64| Sample { timestamp: k * STEP_MS + a * 1_000, value: (k * (a + 3) % 97) as f64 };
    (from..from + count).map(sample).collect()
}

#[derive(Clone, Debug)]
enum Step {
    /// So many samples more of a series, which may lag behind the others.
    Append(i64, i64),
    Delete(i64, i64),
    /// Query, first step, steps.
    Ask(usize, i64, i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0i64..4, 1i64..8).prop_map(|(a, count)| Step::Append(a, count)),
        1 => (0i64..100, 0i64..20).prop_map(|(from, count)| Step::Delete(from, count)),
        8 => (0..QUERIES.len(), 0i64..60, 1i64..60).prop_map(|(query, from, count)| Step::Ask(query, from, count)),
    ]
}

proptest! {
    #[test]
    fn results_are_those_of_a_query_from_scratch(steps in prop::collection::vec(step(), 1..120)) {
        let storage = Watched::default();
        let (kept, fresh) = (engine(MIB), engine(0));
        let mut next = [0; 4];
        for step in steps {
            match step {
                Step::Append(a, count) => {
                    let at = &mut next[a as usize];
                    storage.append("c_total", a, &samples(a, *at, count));
                    *at += count;
                }
                Step::Delete(from, count) => {
                    storage.delete(TimeRange::new(from * STEP_MS, (from + count) * STEP_MS));
                }
                Step::Ask(query, from, count) => {
                    let range = (from * STEP_MS, (from + count) * STEP_MS);
                    let (text, of) = (QUERIES[query], |engine: &Engine| values(&ask(engine, &storage, QUERIES[query], range)));
                    prop_assert_eq!(of(&kept), of(&fresh), "{} {:?}", text, range);
                }
            }
        }
        prop_assert_eq!(fresh.result_cache().results, 0);
    }
}

#[test]
fn only_what_has_changed_is_evaluated_again() {
    let storage = Watched::default();
    for a in 0..3 {
        storage.append("c_total", a, &samples(a, 0, 240));
    }
    let engine = engine(MIB);
    let read = |text: &str, from: i64, to: i64| {
        ask(&engine, &storage, text, (from * STEP_MS, to * STEP_MS)).stats.total_queryable_samples
    };
    let text = "sum(rate(c_total[1m]))";
    let whole = read(text, 100, 200);
    assert!(whole > 1_000, "{whole}");
    assert_eq!(read(text, 100, 200), 0, "asked again");
    assert_eq!(read(text, 120, 180), 0, "a part");
    assert_eq!(read(text, 100, 200), 0, "the part has not taken the place of the whole");
    let more = read(text, 101, 210);
    assert!(more > 0 && more < whole / 5, "ten new steps of a hundred: {more}");
    assert!(read(text, 90, 210) > whole, "steps before those that are known");
    storage.append("c_total", 0, &samples(0, 240, 1));
    assert_eq!(read(text, 90, 210), 0, "newer than all of it");
    // A series that lags.
    storage.append("c_total", 9, &samples(9, 205, 1));
    let late = read(text, 90, 210);
    assert!(late > 0 && late < whole / 5, "the last steps: {late}");
    storage.delete(TimeRange::new(0, 1));
    assert!(read(text, 90, 210) > whole, "all of it, for all that is known");
    assert_eq!(engine.result_cache().hits, 6);
    // What is off is off.
    let query = Query::range(text, 90 * STEP_MS, 210 * STEP_MS, STEP_MS);
    assert!(block_on(engine.run(&storage, &query)).unwrap().stats.total_queryable_samples > whole);
    for other in QUERIES.iter().rev().take(6) {
        assert!(read(other, 100, 200) > 0);
        assert!(read(other, 100, 200) > 0, "{other} is not kept");
    }
}

#[test]
fn steps_of_subqueries_may_see_more_than_the_last_one() {
    let storage = Watched::default();
    storage.append("c_total", 0, &samples(0, 0, 20));
    let (kept, fresh) = (engine(MIB), engine(0));
    // The last step is behind a whole minute, of which the subquery has its steps; the one before is on it.
    let (text, range) = ("max_over_time(sum(c_total)[2m:1m])", (15_000, 9 * STEP_MS));
    let before = values(&ask(&kept, &storage, text, range));
    let late = Sample { timestamp: 8 * STEP_MS, value: 1_000.0 };
    storage.append("c_total", 1, &[late]);
    let now = values(&ask(&kept, &storage, text, range));
    assert_ne!(before, now);
    assert_eq!(now, values(&ask(&fresh, &storage, text, range)));
}

#[test]
fn what_is_kept_is_bounded_and_leaves_room_for_queries() {
    let storage = Watched::default();
    for a in 0..50 {
        storage.append("c_total", a, &samples(a, 0, 240));
    }
    let memory = MemoryBudget::new(8 * MIB);
    let options = EngineOptions {
        results_max_bytes: MIB,
        memory: memory.clone(),
        threads: 1,
        ..EngineOptions::default()
    };
    let engine = Engine::new(options);
    let text = |k: i64| format!("rate(c_total[{}s])", 60 + k);
    let read = |k: i64, to: i64| {
        ask(&engine, &storage, &text(k), (100 * STEP_MS, to * STEP_MS)).stats.total_queryable_samples
    };
    for k in 0..40 {
        assert!(read(k, 180) > 0);
        let stats = engine.result_cache();
        assert!(stats.bytes <= MIB && stats.results > 0);
        assert_eq!(memory.used(), stats.bytes, "what is kept is charged, and nothing else");
    }
    assert!(engine.result_cache().results > 5);
    assert_eq!(read(39, 180), 0);
    assert!(read(0, 180) > 0, "the oldest has made room");
    // One that is too large for its share takes no place.
    let before = engine.result_cache().results;
    let large = (0..4).map(|k| text(k + 100)).collect::<Vec<_>>().join(" or ");
    let range = (0, 239 * STEP_MS);
    ask(&engine, &storage, &format!("rate(c_total[1m]) or ({large})"), range);
    assert_eq!(engine.result_cache().results, before);
}
