//! Limits, cancellation, queueing; what is refused before it runs.

use std::{
    ops::Range,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    thread,
    time::{Duration, Instant},
};

use chronolith_model::{Labels, MetricMetadata, Sample, TenantId, TimeRange, stale_nan};
use chronolith_promql::{CancelToken, Engine, EngineOptions, Query, QueryError};
use chronolith_storage::{
    BoxFuture, LabelQuery, Limited, MemoryBudget, Querier, Queryable, Samples, SelectRequest, SeriesBatch,
    SeriesSet, StorageError, StorageStats, conformance::block_on,
};

use crate::dsl::{MINUTE, World, options};

const TOO_MANY: &str = "error: query processing would load too many samples into memory in query execution";

#[test]
fn samples_are_limited() {
    let world = World::with(EngineOptions { samples_max: 10, ..options() }).load(
        0,
        10_000,
        "m{i=\"1\"} 0+1x30\nm{i=\"2\"} 0+1x30",
    );
    assert_eq!(world.at(100_000, "count_over_time(m{i=\"1\"}[100s])"), "{i=\"1\"} 10");
    assert_eq!(world.at(100_000, "count_over_time(m{i=\"1\"}[101s])"), TOO_MANY);
    assert_eq!(world.at(100_000, "m[50s]").matches('@').count(), 10);
    assert_eq!(world.at(100_000, "m[51s]"), TOO_MANY);
    assert_eq!(world.range((0, 40_000, 10_000), "m").matches('@').count(), 10);
    assert_eq!(world.range((0, 50_000, 10_000), "m"), TOO_MANY);
    // A subquery of more steps than samples are allowed is refused before anything is allocated for it.
    assert_eq!(world.at(0, "sum_over_time(m[10y:1ms])"), TOO_MANY);
}

#[test]
fn bytes_and_series_are_limited() {
    let world = World::with(EngineOptions { memory_max_bytes: 4_000, series_max: 1, ..options() }).load(
        0,
        10_000,
        "m{i=\"1\"} 0+1x30\nn{i=\"1\"} 1\nn{i=\"2\"} 1",
    );
    assert_eq!(world.at(0, "n"), "error: query selects more than 1 series, the limit of this server");
    assert!(world.range((0, 100_000, 10_000), "m").starts_with("m{"));
    let error = world.range((0, 300_000, 1_000), "m");
    assert_eq!(error, "error: query processing would take more than 4000 bytes of memory in query execution");
}

#[test]
fn wrong_parameters_are_refused() {
    let world = World::new();
    let refused = |query: &Query| match world.run(query) {
        Err(QueryError::BadData(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(&Query::range("m[5m]", 0, 10, 1)),
        "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"
    );
    assert_eq!(refused(&Query::range("m", 10, 0, 1)), "end timestamp must not be before start time");
    assert!(refused(&Query::range("m", 0, 10, 0)).starts_with("zero or negative query resolution step"));
    assert!(refused(&Query::range("m", i64::MIN, i64::MAX, 1)).contains("out of bounds"));
    let error = world.run(&Query::instant("m{a=~\"(\"}", 0)).unwrap_err();
    assert!(
        matches!(&error, QueryError::Parse(parse) if parse.message.contains("missing closing )")),
        "{error}"
    );
}

#[test]
fn extreme_times_do_not_panic() {
    let world = World::new().load(0, 1_000, "m 1 2 3");
    for t in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
        for text in
            ["m", "m[5m]", "rate(m[1y] offset -1y)", "m offset 100y", "sum_over_time(m[1h:1m])", "m @ 1e15"]
        {
            let _ = world.at(t, text);
        }
    }
}

#[test]
fn deep_queries_do_not_overflow_the_stack() {
    const DEPTH: usize = 120;
    let world = World::new().load(0, 1_000, "m 1 1 1");
    let nest = |open: &str, close: &str| format!("{}m{}", open.repeat(DEPTH), close.repeat(DEPTH));
    for text in [
        nest("sum(", ")"),
        nest("-", ""),
        nest("(", ")"),
        nest("abs(", ")"),
        nest("sort(", ")"),
        nest("vector(scalar(", "))"),
        nest("1 * (", ")"),
        nest("m * (", ")"),
        nest("m or (", ")"),
        nest("topk(1, ", ")"),
        nest("label_replace(", ", \"a\", \"\", \"\", \"\")"),
        nest("absent(", ")"),
    ] {
        let result = world.at(0, &text);
        assert!(!result.contains("error"), "{result} of {text}");
    }
    let nested = format!("{}m{}", "max_over_time(".repeat(10), "[1s:1s])".repeat(10));
    assert_eq!(world.at(0, &nested), "{} 1");
    // Beyond the parser's limit there is an error.
    assert!(world.at(0, &format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000))).contains("error"));
}

#[test]
fn time_is_limited() {
    let world = World::new().load(0, 1_000, "m 1 2 3");
    let query = Query { timeout: Some(Duration::ZERO), ..Query::instant("m", 0) };
    assert!(matches!(world.run(&query), Err(QueryError::Timeout(_))));
}

/// Canceled at any moment, a query ends within 100 ms. The machine of a test may be busy, so each query has some
/// attempts; all of them end soon.
#[test]
fn a_canceled_query_stops_while_it_computes() {
    const PROMISE: Duration = Duration::from_millis(100);
    let world = World::new();
    for i in 0..3_000 {
        let samples = (0..500).map(|t| Sample::new(t * 4_000, (t * i) as f64)).collect();
        world.write(Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())]), samples);
    }
    for text in [
        "sum(quantile_over_time(0.5, m[30m])) + sum(mad_over_time(m[20m]))",
        "sum by (i) (rate(m[5m]))",
        "m * on(i) m offset 1m",
        "topk(5, m)",
        "quantile(0.5, m)",
        "count_values(\"v\", m)",
        "max_over_time(sum by (i) (m)[10m:4s])",
        "label_replace(-m, \"j\", \"$1\", \"i\", \"(.*)\")",
    ] {
        let attempt = |after: Duration| {
            let cancel = CancelToken::default();
            let query = Query { cancel: cancel.clone(), ..Query::range(text, 0, 2_000_000, 2_000) };
            let canceler = thread::spawn(move || {
                thread::sleep(after);
                cancel.cancel();
                Instant::now()
            });
            let result = world.run(&query);
            let stopped = Instant::now();
            let late = stopped.saturating_duration_since(canceler.join().unwrap());
            assert!(late < Duration::from_secs(20), "{text} stopped {late:?} after it was canceled");
            (result, late)
        };
        let (result, _) = attempt(Duration::from_millis(5));
        assert!(matches!(result, Err(QueryError::Canceled(_))), "{text}: {result:?}");
        for after in [30, 100] {
            let lates: Vec<Duration> = (0..5)
                .map(|_| attempt(Duration::from_millis(after)).1)
                .take_while(|late| *late > PROMISE)
                .collect();
            assert!(lates.len() < 5, "{text} stopped {lates:?} after it was canceled");
        }
    }
}

/// Not even one series with long windows keeps a query from stopping, and working on it in parts changes nothing.
#[test]
fn one_long_series_is_worked_on_in_parts() {
    let world = World::new();
    let value = |t: i64| ((t * 7_919) % 10_007) as f64;
    let samples = (0..40_000).map(|t| Sample::new(t * 1_000, value(t))).collect();
    world.write(Labels::from_pairs([("__name__", "m")]), samples);
    let text = "quantile_over_time(0.25, m[6h])";
    let range = world.range((30_000_000, 39_900_000, 100_000), text);
    for (index, point) in range.trim_start_matches("{} ").split(' ').enumerate().step_by(33) {
        let t = 30_000_000 + 100_000 * index as i64;
        assert_eq!(world.at(t, text), format!("{{}} {}", point.trim_end_matches(&format!("@{t}"))));
    }
    let query = Query {
        timeout: Some(Duration::from_millis(20)),
        ..Query::range("mad_over_time(m[10h])", 30_000_000, 39_990_000, 1_000)
    };
    let started = Instant::now();
    assert!(matches!(world.run(&query), Err(QueryError::Timeout(_))));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

/// Storage that never answers, and says when it was given up.
struct Stuck(Arc<()>);

struct StuckQuerier(Arc<()>);

impl Queryable for Stuck {
    fn querier(&self, _: &TenantId, _: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        Ok(Arc::new(StuckQuerier(Arc::clone(&self.0))))
    }
}

impl Querier for StuckQuerier {
    fn select<'a>(&'a self, _: &'a SelectRequest) -> BoxFuture<'a, Result<Arc<dyn SeriesSet>, StorageError>> {
        let waiting = Arc::clone(&self.0);
        Box::pin(async move {
            let _waiting = waiting;
            std::future::pending().await
        })
    }

    fn label_names<'a>(&'a self, _: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        Box::pin(std::future::pending())
    }

    fn label_values<'a>(
        &'a self,
        _: &'a str,
        _: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        Box::pin(std::future::pending())
    }

    fn series<'a>(&'a self, _: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<Labels>, StorageError>> {
        Box::pin(std::future::pending())
    }

    fn metadata<'a>(
        &'a self,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<MetricMetadata>, StorageError>> {
        Box::pin(std::future::pending())
    }

    fn stats(&self, _: usize) -> StorageStats {
        StorageStats::default()
    }
}

#[test]
fn cancellation_reaches_storage() {
    let storage = Stuck(Arc::new(()));
    let engine = Engine::new(options());
    // The second selects while it is evaluated.
    for text in ["m", "info(label_replace(vector(1), \"job\", \"a\", \"\", \"\"))"] {
        let cancel = CancelToken::default();
        let token = cancel.clone();
        let query = Query { cancel, ..Query::instant(text, 0) };
        let canceler = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            token.cancel();
        });
        let result = block_on(engine.run(&storage, &query));
        canceler.join().unwrap();
        assert!(matches!(result, Err(QueryError::Canceled(_))), "{text}: {result:?}");
        assert_eq!(Arc::strong_count(&storage.0), 1, "what waited in storage is dropped");
    }
}

#[test]
fn the_deadline_reaches_storage() {
    let storage = Stuck(Arc::new(()));
    let engine = Engine::new(options());
    let query = Query { timeout: Some(Duration::from_millis(50)), ..Query::instant("m", 0) };
    let started = Instant::now();
    let result = block_on(engine.run(&storage, &query));
    assert!(matches!(result, Err(QueryError::Timeout(_))), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(Arc::strong_count(&storage.0), 1, "what waited in storage is dropped");
}

#[test]
fn queries_wait_for_a_place() {
    let storage = Stuck(Arc::new(()));
    let engine = Engine::new(EngineOptions { concurrency_max: 1, ..options() });
    let running = CancelToken::default();
    let first = Query { cancel: running.clone(), ..Query::instant("m", 0) };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(engine.run(&storage, &first)));
        while Arc::strong_count(&storage.0) < 3 {
            thread::yield_now();
        }
        let timeout = Some(Duration::from_millis(50));
        let refused = block_on(engine.run(&storage, &Query { timeout, ..Query::instant("1", 0) }));
        assert!(matches!(refused, Err(QueryError::Timeout("query queue"))), "{refused:?}");
        let second = scope.spawn(|| block_on(engine.run(&storage, &Query::instant("1", 0))));
        thread::sleep(Duration::from_millis(50));
        running.cancel();
        assert!(waiting.join().unwrap().is_err());
        let stats = second.join().unwrap().unwrap().stats;
        assert!(stats.queue_time >= Duration::from_millis(20), "{:?}", stats.queue_time);
    });
}

/// What storage noted, and how it is to behave.
#[derive(Default)]
struct Notes {
    /// Which series were fetched.
    fetched: std::sync::Mutex<Vec<Range<usize>>>,
    /// Bytes that each batch says it has copied.
    copied: usize,
    /// What it lacks.
    warnings: Vec<String>,
}

/// Storage that notes which series are fetched.
struct Counted<'a>(&'a World, Arc<Notes>);
struct Set(Arc<dyn SeriesSet>, Arc<Notes>);
struct Inner(Arc<dyn Querier>, Arc<Notes>);
impl Queryable for Counted<'_> {
    fn querier(&self, tenant: &TenantId, range: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        Ok(Arc::new(Inner(self.0.storage.querier(tenant, range)?, Arc::clone(&self.1))))
    }
}
impl Querier for Inner {
    fn select<'a>(
        &'a self,
        request: &'a SelectRequest,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesSet>, StorageError>> {
        Box::pin(async move {
            let set: Arc<dyn SeriesSet> = Arc::new(Set(self.0.select(request).await?, Arc::clone(&self.1)));
            Ok(set)
        })
    }
    fn label_names<'a>(&'a self, q: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        self.0.label_names(q)
    }
    fn label_values<'a>(
        &'a self,
        name: &'a str,
        q: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        self.0.label_values(name, q)
    }
    fn series<'a>(&'a self, q: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<Labels>, StorageError>> {
        self.0.series(q)
    }
    fn metadata<'a>(
        &'a self,
        metric: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<MetricMetadata>, StorageError>> {
        self.0.metadata(metric)
    }
    fn stats(&self, limit: usize) -> StorageStats {
        self.0.stats(limit)
    }
    fn warnings(&self) -> Vec<String> {
        self.1.warnings.clone()
    }
}
struct Batch<'a>(Arc<dyn SeriesBatch + 'a>, usize);
impl SeriesBatch for Batch<'_> {
    fn read(&self, index: usize, into: &mut Samples) -> Result<(), StorageError> {
        self.0.read(index, into)
    }
    fn bytes(&self) -> usize {
        self.1
    }
}
impl SeriesSet for Set {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn labels(&self, index: usize) -> Labels {
        self.0.labels(index)
    }
    fn fetch<'a>(
        &'a self,
        indices: Range<usize>,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesBatch + 'a>, StorageError>> {
        self.1.fetched.lock().unwrap().push(indices.clone());
        Box::pin(async move {
            let batch: Arc<dyn SeriesBatch + 'a> =
                Arc::new(Batch(self.0.fetch(indices).await?, self.1.copied));
            Ok(batch)
        })
    }
}

/// Fetched batches cover the set in order and are bounded, so that storage is never asked for everything at once.
#[test]
fn series_are_fetched_in_batches() {
    let world = World::new();
    for i in 0..300 {
        let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", format!("{i:03}"))]);
        world.write(labels, vec![Sample::new(0, 1.0)]);
    }
    let notes = Arc::default();
    let storage = Counted(&world, Arc::clone(&notes));
    let query = Query { lookback: Some(MINUTE), ..Query::range("sum(m) + count(m)", 0, (1 << 15) - 1, 1) };
    let result = block_on(world.engine.run(&storage, &query)).unwrap();
    assert_eq!(result.stats.total_queryable_samples, 300 * 2 * (1 << 15));
    let fetched = notes.fetched.lock().unwrap();
    // Both sides need the same leaf, which is read once.
    assert_eq!(*fetched, [0..64, 64..128, 128..192, 192..256, 256..300]);
}

/// So many matchers of one selector, each another regular expression of about 60 KB and a cache.
fn regexes(count: usize, distinct: usize) -> String {
    let matchers: Vec<_> = (0..count).map(|i| format!("i!~\"x\\\\pL+.*(y|z){}\"", i % distinct)).collect();
    format!("m{{{}}}", matchers.join(","))
}

#[test]
fn compiled_matchers_are_charged_to_the_query() {
    let limit = 64 << 20;
    let world = World::with(EngineOptions { memory_max_bytes: limit, ..options() }).load(0, 1_000, "m 1");
    let too_much =
        format!("error: query processing would take more than {limit} bytes of memory in query execution");
    assert_eq!(world.at(0, &regexes(40, 40)), "m 1");
    assert_eq!(world.at(0, &regexes(1_000, 1_000)), too_much);
    // Equal ones are one, within a selector and across selectors.
    assert_eq!(world.at(0, &regexes(1_000, 40)), "m 1");
    assert_eq!(world.at(0, &format!("{0} + {0} offset 0s + count({0})", regexes(40, 40))), "{} 3");
    // A long text is refused before it is taken apart.
    let long = "[ab]c".repeat(50_000);
    assert_eq!(world.at(0, &format!("m{{i!~\"{long}\"}}")), too_much);
    // What matchers held is free again when the series are selected.
    assert_eq!(world.engine.options().memory.used(), 0);
}

#[test]
fn selectors_outside_of_queries_are_charged_too() {
    let memory = MemoryBudget::new(80 << 20);
    let options = EngineOptions { memory_max_bytes: 64 << 20, memory: memory.clone(), ..options() };
    let engine = Engine::new(options);
    let mut selectors = engine.selectors();
    assert_eq!(selectors.add(&regexes(40, 40)).expect("fits").len(), 41);
    let held = memory.used();
    assert!(held > 40 << 20, "{held}");
    selectors.add(&regexes(40, 40)).expect("known");
    assert!(matches!(selectors.add("m{"), Err(QueryError::Parse(_))));
    let distinct = regexes(100, 100);
    assert!(matches!(selectors.add(&distinct), Err(QueryError::Execution(_))));
    assert_eq!(selectors.sets().len(), 2);
    let mut others = engine.selectors();
    assert!(matches!(others.add(&distinct), Err(QueryError::Overloaded(_))));
    drop((selectors, others));
    assert_eq!(memory.used(), 0);
    engine.selectors().add(&regexes(40, 40)).expect("free again");
}

/// One minute of 100 series at 1,000 steps a second is 48 MB of values.
const LARGE: &str = "m";

fn large(world: World) -> World {
    for i in 0..100 {
        let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())]);
        world.write(labels, vec![Sample::new(0, f64::from(i))]);
    }
    world
}

#[test]
fn a_query_that_finds_the_shared_memory_taken_is_refused() {
    let memory = MemoryBudget::new(150 << 20);
    let world = large(World::with(EngineOptions { memory: memory.clone(), ..options() }));
    let query = Query { lookback: Some(MINUTE), ..Query::range(LARGE, 0, 30_000, 1) };
    let first = world.run(&query).expect("alone it fits");
    let held = memory.used();
    assert!(held >= 100 * 30_000 * 16, "a result holds what it takes until it is dropped: {held}");
    let others = memory.reserve(memory.max() - held - (10 << 20)).expect("left");
    let refused = world.run(&query).unwrap_err();
    let text =
        format!("queries and the rest of the server have taken the {} bytes of memory they share", 150 << 20);
    assert!(matches!(&refused, QueryError::Overloaded(reason) if *reason == text), "{refused:?}");
    assert_eq!(world.at(0, "count(m)"), "{} 100", "a small one still finds a place");
    assert!(first.memory.charge(50 << 20).is_err());
    drop((first, others));
    assert_eq!(memory.used(), 0);
    world.run(&query).expect("there is room again");
}

#[test]
fn concurrent_queries_never_take_more_than_they_share() {
    let memory = MemoryBudget::new(130 << 20);
    let world = large(World::with(EngineOptions { memory: memory.clone(), ..options() }));
    let query = Query { lookback: Some(MINUTE), ..Query::range(LARGE, 0, 30_000, 1) };
    let outcomes: Vec<bool> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| match world.run(&query) {
                    Ok(result) => {
                        assert!(memory.used() <= memory.max());
                        drop(result);
                        true
                    }
                    Err(QueryError::Overloaded(_)) => false,
                    Err(error) => panic!("{error}"),
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(memory.used(), 0);
    assert!(outcomes.iter().any(|done| *done) || memory.refused() > 0, "{outcomes:?}");
    world.run(&query).expect("nothing was lost");
}

/// Two functions over one selector read it once, if there is room to keep what was read, and give what each alone gives.
#[test]
fn functions_over_one_selector_share_its_samples() {
    let fill = |world: World| {
        for i in 0..100 {
            let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", format!("{i:03}"))]);
            let value = |t: i64| if (t + i) % 17 == 0 { stale_nan() } else { ((t * 7 + i) % 23) as f64 };
            world.write(labels, (0..40).map(|t| Sample::new(t * 15_000, value(t))).collect());
        }
        world
    };
    let text = "sum(rate(m[5m])) + sum(increase(m[5m])) + count(m) + max(quantile_over_time(scalar(min(m)) / 100, m[5m]))";
    let run = |memory_max_bytes: usize| {
        let world = fill(World::with(EngineOptions { memory_max_bytes, ..options() }));
        let notes = Arc::default();
        let storage = Counted(&world, Arc::clone(&notes));
        let query = Query { lookback: Some(5 * MINUTE), ..Query::range(text, 300_000, 600_000, 15_000) };
        let result = block_on(world.engine.run(&storage, &query)).expect("enough memory");
        let fetches = notes.fetched.lock().unwrap().len();
        (result, fetches)
    };
    let (shared, fetches) = run(1 << 30);
    let (alone, fetches_alone) = run(300_000);
    assert_eq!((fetches, fetches_alone), (1, 4));
    assert_eq!(shared.value, alone.value);
    assert_eq!(shared.infos, alone.infos);
    assert_eq!(shared.infos.len(), 1, "rate and increase of what is no counter");
    assert_eq!(shared.stats.samples_per_step, alone.stats.samples_per_step);
    assert_eq!(shared.stats.peak_samples, alone.stats.peak_samples);
}

#[test]
fn what_storage_copies_and_what_is_decoded_is_charged() {
    let run = |copied: usize, memory_max_bytes: usize| {
        let memory = MemoryBudget::new(1 << 30);
        let options = EngineOptions { memory_max_bytes, memory: memory.clone(), ..options() };
        let world = World::with(options);
        let samples = (0..1_000).map(|t| Sample::new(t * 1_000, 1.0)).collect();
        world.write(Labels::from_pairs([("__name__", "m")]), samples);
        let storage = Counted(&world, Arc::new(Notes { copied, ..Notes::default() }));
        let query = Query::instant("sum_over_time(m[1000s])", 999_000);
        let result = block_on(world.engine.run(&storage, &query)).map(|result| result.value);
        assert_eq!(memory.used(), 0);
        result
    };
    // A thousand samples, and once more as much for a copy without stale markers.
    let decoded = 2 * 1_000 * 16;
    let refused = |result| matches!(result, Err(QueryError::Execution(_)));
    assert!(refused(run(0, decoded)));
    assert!(run(0, 4 * decoded).is_ok());
    assert!(run(1 << 20, (1 << 20) + 4 * decoded).is_ok());
    assert!(refused(run(1 << 20, 1 << 20)), "copies and decoded samples are there at once");
    assert!(refused(run((1 << 20) + 1, 1 << 20)));
}

#[test]
fn what_storage_lacks_is_a_warning() {
    let world = World::new().load(0, 10_000, "m 1 2 3");
    let warnings = vec!["damaged block a is not part of the answer".to_owned()];
    let storage = Counted(&world, Arc::new(Notes { warnings: warnings.clone(), ..Notes::default() }));
    for query in [Query::instant("m", 0), Query::range("sum(rate(m[1m]))", 0, 20_000, 10_000)] {
        assert_eq!(block_on(world.engine.run(&storage, &query)).expect("data").warnings, warnings);
    }
    let both = block_on(world.engine.run(&storage, &Query::instant("quantile(2, m)", 0))).expect("data");
    assert_eq!(both.warnings.len(), 2);
    assert_eq!(both.warnings[0], warnings[0]);
    assert!(both.warnings[1].starts_with("PromQL warning: quantile value"), "{}", both.warnings[1]);
}

/// Short queries end where they begin; long ones let go of the thread once before they get long.
#[test]
fn long_queries_pause_once() {
    let world = World::new();
    for i in 0..200 {
        let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())]);
        world.write(labels, vec![Sample::new(0, 1.0)]);
    }
    let pauses = |query: &Query| {
        let mut running = pin!(world.engine.run(&world.storage, query));
        let mut context = Context::from_waker(Waker::noop());
        (0..10).position(|_| running.as_mut().poll(&mut context).is_ready()).expect("it ends")
    };
    for (pauses_expected, query) in [
        (1, Query::range("m", 0, 1_000_000, 1_000)),
        (1, Query::instant(format!("m{}", " ".repeat(1 << 10)), 0)),
        (1, Query::instant("sum_over_time(vector(1)[1d:1s])", 0)),
        (1, Query::instant("quantile_over_time(0.5, m[1m])", 0)),
    ] {
        assert_eq!(pauses(&query), pauses_expected, "{}", query.text);
    }
    // On a busy machine time may go by, so each has some attempts.
    for query in
        [Query::instant("1", 0), Query::instant("absent(n)", 0), Query::instant("sum(m{i=\"1\"})", 0)]
    {
        assert!((0..100).any(|_| pauses(&query) == 0), "{}", query.text);
    }
}
