//! What every engine must do, as a function its tests call: `conformance::check(|| Engine::open(...))`.
//!
//! For tests: a failure is a panic that says what differs.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use chronolith_index::CompiledMatcher;
use chronolith_model::{
    Labels, MatchOp, Matcher, MetricMetadata, MetricType, Sample, TenantId, TimeRange,
    labels::{LABELS_BYTES_MAX, LABELS_MAX},
    stale_nan,
};

use crate::{
    append::{
        AppendOutcome, Appender, LabelFault, LabelSource, RejectReason, SampleAt, SeriesEntry, WriteBatch,
    },
    query::{LabelQuery, Querier, Queryable, Samples, SelectHints, SelectRequest},
};

mod admin;
mod extras;

pub use admin::check_admin;

/// The label sets of a batch, by entry.
struct Given<'a>(&'a [(Labels, Vec<Sample>)]);

impl LabelSource for Given<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        let labels = &self.0[series].0;
        if labels.metric_name().is_none() {
            return Err(RejectReason::InvalidLabels {
                fault: LabelFault::NoMetricName,
                text: "no metric name".to_owned(),
            });
        }
        Ok(labels.clone())
    }
}

/// Appends samples by series, waits until they are durable, and says what became of them.
///
/// # Panics
/// When the engine is not available.
pub fn write(engine: &dyn Appender, tenant: &TenantId, series: &[(Labels, Vec<Sample>)]) -> AppendOutcome {
    let hasher = engine.key_hasher();
    let mut samples = Vec::new();
    let mut entries = Vec::new();
    for (labels, values) in series {
        let first = samples.len() as u32;
        samples.extend_from_slice(values);
        let key = hasher.key(labels.to_string().as_bytes());
        entries.push(SeriesEntry::of_samples(key, first..samples.len() as u32));
    }
    let labels = Given(series);
    let batch = WriteBatch::of_samples(&entries, &samples, &labels);
    let appended = engine.append(tenant, &batch).expect("the engine takes samples");
    appended.ticket.wait().expect("the engine makes samples durable");
    appended.outcome
}

/// Runs `future` on this thread until it is done.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Checks an engine; `make` gives a new, empty one each time.
///
/// # Panics
/// When the engine does something else than the contract says.
pub fn check<E: Appender + Queryable>(mut make: impl FnMut() -> E) {
    keeps_values_bit_for_bit(&make());
    reads_exactly_the_range(&make());
    takes_repetitions_and_refuses_conflicts(&make());
    a_refusal_keeps_nothing_else_out(&make());
    keys_are_aliases_of_labels(&make());
    tenants_do_not_see_each_other(&make());
    a_view_does_not_change(&make());
    what_is_late_may_show_in_older_views_and_nothing_else(&make());
    matchers_select(&make());
    label_queries_answer(&make());
    metadata_is_remembered(&make());
    counts_add_up(&make());
    extras::check(&mut make);
}

fn series(name: &str, job: &str, samples: &[(i64, f64)]) -> (Labels, Vec<Sample>) {
    let labels = Labels::from_pairs([("__name__", name), ("job", job)]);
    (labels, samples.iter().map(|(t, v)| Sample::new(*t, *v)).collect())
}

fn view(engine: &dyn Queryable, tenant: &TenantId) -> Arc<dyn Querier> {
    engine.querier(tenant, TimeRange::ALL).expect("the engine answers")
}

fn compiled(matchers: &[Matcher]) -> Vec<CompiledMatcher> {
    CompiledMatcher::compile_all(matchers).expect("valid matchers")
}

fn read(querier: &dyn Querier, matchers: Vec<Matcher>, range: TimeRange) -> Vec<(Labels, Samples)> {
    let request = SelectRequest { matchers: compiled(&matchers), range, hints: SelectHints::default() };
    let set = block_on(querier.select(&request)).expect("the selection is valid");
    let mut found = Vec::new();
    // In two batches, so that a batch is not taken for the set.
    let middle = set.len() / 2;
    for indices in [0..middle, middle..set.len()] {
        let batch = block_on(set.fetch(indices.clone())).expect("the series can be fetched");
        for index in indices {
            let mut samples = Samples::default();
            batch.read(index, &mut samples).expect("the series can be read");
            if let Some(last) = set.last_sample(index) {
                let newest = samples.timestamps.last().copied();
                assert!(newest.is_none_or(|t| t <= last.timestamp), "a sample is newer than the last one");
            }
            found.push((set.labels(index), samples));
        }
    }
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "series are sorted by labels, each once");
    found
}

fn all(engine: &dyn Queryable, name: &str) -> Vec<(Labels, Samples)> {
    let querier = view(engine, &TenantId::default());
    read(&*querier, vec![Matcher::equal("__name__", name)], TimeRange::ALL)
}

fn bits(samples: &Samples) -> Vec<(i64, u64)> {
    samples.timestamps.iter().copied().zip(samples.values.iter().map(|v| v.to_bits())).collect()
}

fn keeps_values_bit_for_bit<E: Appender + Queryable>(engine: &E) {
    let values = [
        0.0,
        -0.0,
        1.5,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        f64::from_bits(0x7ff8_0000_dead_beef),
        f64::from_bits(0xfff0_0000_0000_0001),
        stale_nan(),
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        f64::MAX,
    ];
    let samples: Vec<(i64, f64)> = values.iter().enumerate().map(|(i, v)| (i as i64 * 1_000, *v)).collect();
    let outcome = write(engine, &TenantId::default(), &[series("m", "a", &samples)]);
    assert_eq!((outcome.stored, outcome.duplicates, outcome.rejected), (values.len() as u64, 0, 0));
    let found = all(engine, "m");
    assert_eq!(found.len(), 1);
    let expected: Vec<(i64, u64)> = samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
    assert_eq!(bits(&found[0].1), expected, "values come back bit for bit");
}

fn reads_exactly_the_range<E: Appender + Queryable>(engine: &E) {
    let samples: Vec<(i64, f64)> = (0..500).map(|i| (i * 15_000, i as f64)).collect();
    write(engine, &TenantId::default(), &[series("m", "a", &samples), series("m", "b", &samples[..3])]);
    let querier = view(engine, &TenantId::default());
    let matchers = || vec![Matcher::equal("__name__", "m"), Matcher::equal("job", "a")];
    for (min, max, count) in
        [(15_000, 30_000, 2), (15_001, 29_999, 0), (-5, 0, 1), (30_001, 15_000, 0), (150_000, 7_000_000, 457)]
    {
        let found = read(&*querier, matchers(), TimeRange::new(min, max));
        let got: usize = found.iter().map(|(_, samples)| samples.len()).sum();
        assert_eq!(got, count, "samples within [{min}, {max}]");
    }
}

fn takes_repetitions_and_refuses_conflicts<E: Appender + Queryable>(engine: &E) {
    let tenant = TenantId::default();
    write(engine, &tenant, &[series("m", "a", &[(1_000, 1.0), (2_000, f64::NAN)])]);
    let again = write(engine, &tenant, &[series("m", "a", &[(2_000, f64::NAN)])]);
    assert_eq!(
        (again.stored, again.duplicates, again.rejected),
        (0, 1, 0),
        "the same sample again is accepted"
    );
    let conflict = write(engine, &tenant, &[series("m", "a", &[(2_000, 7.0), (3_000, 3.0)])]);
    assert_eq!((conflict.stored, conflict.rejected), (1, 1));
    let reason = &conflict.rejections[0].reason;
    assert!(
        matches!(reason, RejectReason::DuplicateTimestamp { timestamp: 2_000, existing, new }
            if existing.is_nan() && *new == 7.0),
        "{reason:?}"
    );
    assert_eq!(conflict.rejections[0].sample, Some(SampleAt::float(2_000)), "the one that is refused");
    let found = all(engine, "m");
    assert_eq!(found[0].1.timestamps, [1_000, 2_000, 3_000]);
    assert!(found[0].1.values[1].is_nan(), "the first value stays");
}

fn a_refusal_keeps_nothing_else_out<E: Appender + Queryable>(engine: &E) {
    let nameless =
        (Labels::from_pairs([("job", "x")]), vec![Sample::new(1_000, 1.0), Sample::new(2_000, 1.0)]);
    let batch = [series("m", "a", &[(1_000, 1.0)]), nameless, series("m", "b", &[(1_000, 2.0)])];
    let outcome = write(engine, &TenantId::default(), &batch);
    assert_eq!((outcome.stored, outcome.rejected), (2, 2));
    assert!(matches!(outcome.rejections[0].reason, RejectReason::InvalidLabels { .. }));
    assert_eq!((outcome.rejections[0].series, outcome.rejections[0].sample), (1, None), "all of the entry");
    assert_eq!(all(engine, "m").len(), 2);
}

fn keys_are_aliases_of_labels<E: Appender + Queryable>(engine: &E) {
    let tenant = TenantId::default();
    let given = [series("m", "a", &[(1_000, 1.0)])];
    write(engine, &tenant, &given);
    // The same labels under another key, as from a sender that orders them otherwise.
    let key = engine.key_hasher().key(b"another spelling");
    let samples = [Sample::new(2_000, 2.0)];
    let (entries, labels) = ([SeriesEntry::of_samples(key, 0..1)], Given(&given));
    let batch = WriteBatch::of_samples(&entries, &samples, &labels);
    let appended = engine.append(&tenant, &batch).expect("the engine takes samples");
    appended.ticket.wait().expect("the engine makes samples durable");
    let found = all(engine, "m");
    assert_eq!(found.len(), 1, "one series, two keys");
    assert_eq!(found[0].1.timestamps, [1_000, 2_000]);
}

fn tenants_do_not_see_each_other<E: Appender + Queryable>(engine: &E) {
    let other = TenantId::new("other").expect("a valid id");
    write(engine, &TenantId::default(), &[series("m", "a", &[(1_000, 1.0)])]);
    write(engine, &other, &[series("m", "a", &[(1_000, 2.0)])]);
    let matchers = vec![Matcher::equal("__name__", "m")];
    let found = read(&*view(engine, &other), matchers, TimeRange::ALL);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1.values, [2.0]);
    assert_eq!(all(engine, "m")[0].1.values, [1.0]);
}

fn a_view_does_not_change<E: Appender + Queryable>(engine: &E) {
    let tenant = TenantId::default();
    write(engine, &tenant, &[series("m", "a", &[(1_000, 1.0)])]);
    let before = view(engine, &tenant);
    let matchers = || vec![Matcher::equal("__name__", "m")];
    let first = read(&*before, matchers(), TimeRange::ALL);
    write(engine, &tenant, &[series("m", "a", &[(2_000, 2.0)])]);
    let after = read(&*view(engine, &tenant), matchers(), TimeRange::ALL);
    assert_eq!(first[0].1.timestamps, [1_000]);
    assert_eq!(after[0].1.timestamps, [1_000, 2_000], "what was acknowledged is seen by views opened later");
}

fn what_is_late_may_show_in_older_views_and_nothing_else<E: Appender + Queryable>(engine: &E) {
    let tenant = TenantId::default();
    write(
        engine,
        &tenant,
        &[series("m", "a", &[(1_000, 1.0), (5_000, 5.0)]), series("m", "b", &[(1_000, 1.0)])],
    );
    let before = view(engine, &tenant);
    // Of a series that lags behind, of one that is new, late where the engine takes that, and newer ones of all.
    let more = [
        series("m", "b", &[(2_000, 2.0), (6_000, 6.0)]),
        series("m", "c", &[(3_000, 3.0), (7_000, 7.0)]),
        series("m", "a", &[(4_000, 4.0), (8_000, 8.0)]),
    ];
    let stored = write(engine, &tenant, &more).stored;
    assert!(stored >= 3, "newer ones are taken");
    let matchers = || vec![Matcher::equal("__name__", "m")];
    let shown: Vec<(String, i64)> = read(&*before, matchers(), TimeRange::ALL)
        .iter()
        .flat_map(|(labels, samples)| {
            let job = labels.get("job").unwrap_or_default();
            assert!(samples.timestamps.windows(2).all(|pair| pair[0] < pair[1]), "in their places");
            samples.timestamps.iter().map(move |t| (job.to_owned(), *t))
        })
        .collect();
    let then = [("a", 1_000), ("a", 5_000), ("b", 1_000)].map(|(job, t)| (job.to_owned(), t));
    let late = [("a", 4_000), ("b", 2_000), ("c", 3_000)].map(|(job, t)| (job.to_owned(), t));
    assert!(then.iter().all(|sample| shown.contains(sample)), "what there was is seen: {shown:?}");
    let foreign = shown.iter().find(|sample| !then.contains(sample) && !late.contains(sample));
    assert_eq!(foreign, None, "what is newer than all there was is not seen");
    let after = read(&*view(engine, &tenant), matchers(), TimeRange::ALL);
    let count: u64 = after.iter().map(|(_, samples)| samples.len() as u64).sum();
    assert_eq!(count, 3 + stored, "views opened later see all of it");
}

/// Checks that an engine refuses labels it could not read back: [`crate::append::check_label_limits`].
///
/// # Panics
/// When it takes them, or refuses smaller ones.
pub fn check_label_limits<E: Appender + Queryable>(mut make: impl FnMut() -> E) {
    let engine = make();
    let of = |count: usize, bytes: usize| {
        let mut pairs = vec![("__name__".to_owned(), "m".to_owned()), ("l".to_owned(), "v".repeat(bytes))];
        pairs.extend((pairs.len()..count).map(|i| (format!("n{i:05}"), "1".to_owned())));
        let labels = Labels::from_sorted(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        (labels.expect("sorted"), vec![Sample::new(1_000, 1.0)])
    };
    for fine in [of(LABELS_MAX, 1), of(2, LABELS_BYTES_MAX - 64)] {
        assert_eq!(write(&engine, &TenantId::default(), &[fine]).stored, 1);
    }
    for large in [of(LABELS_MAX + 1, 1), of(2, LABELS_BYTES_MAX)] {
        let outcome = write(&engine, &TenantId::default(), &[large, series("n", "a", &[(1_000, 1.0)])]);
        assert_eq!((outcome.rejected, outcome.stored + outcome.duplicates), (1, 1), "the rest is stored");
        assert!(matches!(outcome.rejections[0].reason, RejectReason::InvalidLabels { .. }));
    }
    assert_eq!(all(&engine, "m").len(), 2);
}

fn matchers_select<E: Appender + Queryable>(engine: &E) {
    let with_extra = Labels::from_pairs([("__name__", "m"), ("job", "c"), ("extra", "1")]);
    let batch = [
        series("m", "a", &[(1_000, 1.0)]),
        series("m", "b", &[(1_000, 1.0)]),
        (with_extra, vec![Sample::new(1_000, 1.0)]),
        series("n", "a", &[(1_000, 1.0)]),
    ];
    write(engine, &TenantId::default(), &batch);
    let querier = view(engine, &TenantId::default());
    for (label, op, value, count) in [
        ("job", MatchOp::Equal, "a", 1),
        ("job", MatchOp::NotEqual, "a", 2),
        ("job", MatchOp::Regex, "a|c", 2),
        ("job", MatchOp::Regex, "", 0),
        ("job", MatchOp::NotRegex, "a.*", 2),
        ("extra", MatchOp::Equal, "", 2),
        ("extra", MatchOp::NotEqual, "", 1),
        ("extra", MatchOp::Regex, ".*", 3),
        ("extra", MatchOp::Regex, ".+", 1),
        ("missing", MatchOp::NotRegex, ".+", 3),
    ] {
        let matcher = Matcher::new(label, op, value);
        let found = read(&*querier, vec![Matcher::equal("__name__", "m"), matcher.clone()], TimeRange::ALL);
        assert_eq!(found.len(), count, "series with {matcher}");
    }
}

fn label_queries_answer<E: Appender + Queryable>(engine: &E) {
    let batch: Vec<_> = ["c", "a", "b"].iter().map(|job| series("m", job, &[(1_000, 1.0)])).collect();
    write(engine, &TenantId::default(), &batch);
    let querier = view(engine, &TenantId::default());
    let everything = LabelQuery::default();
    let names = block_on(querier.label_names(&everything)).expect("label names");
    assert_eq!((names.items, names.truncated), (vec!["__name__".to_owned(), "job".to_owned()], false));
    let values = block_on(querier.label_values("job", &everything)).expect("label values");
    assert_eq!(values.items, ["a", "b", "c"]);
    let two = LabelQuery { limit: 2, ..LabelQuery::default() };
    let values = block_on(querier.label_values("job", &two)).expect("label values");
    assert_eq!((values.items.len(), values.truncated), (2, true));
    let chosen = LabelQuery {
        matcher_sets: vec![
            compiled(&[Matcher::equal("job", "a")]),
            compiled(&[Matcher::new("job", MatchOp::Regex, "a|b")]),
        ],
        ..LabelQuery::default()
    };
    let found = block_on(querier.series(&chosen)).expect("series");
    assert_eq!(found.items.len(), 2, "the union of the selections, each series once");
    assert_eq!(block_on(querier.label_values("nope", &everything)).expect("label values").items, [""; 0]);
}

fn metadata_is_remembered<E: Appender + Queryable>(engine: &E) {
    let tenant = TenantId::default();
    let about = |metric: &str, help: &str| MetricMetadata {
        metric: metric.to_owned(),
        kind: MetricType::Counter,
        unit: String::new(),
        help: help.to_owned(),
    };
    engine.append_metadata(&tenant, vec![about("b", "old"), about("a", "")]);
    engine.append_metadata(&tenant, vec![about("b", "new")]);
    let querier = view(engine, &tenant);
    let known = block_on(querier.metadata(None)).expect("metadata");
    assert_eq!(known, [about("a", ""), about("b", "new")]);
    assert_eq!(block_on(querier.metadata(Some("b"))).expect("metadata").len(), 1);
}

fn counts_add_up<E: Appender + Queryable>(engine: &E) {
    let batch = [series("m", "a", &[(1_000, 1.0), (9_000, 1.0)]), series("m", "b", &[(500, 1.0)])];
    write(engine, &TenantId::default(), &batch);
    let stats = view(engine, &TenantId::default()).stats(1);
    assert_eq!((stats.series, stats.label_pairs), (2, 3));
    assert_eq!(stats.range, Some(TimeRange::new(500, 9_000)));
    assert_eq!(stats.series_by_metric.len(), 1, "lists are cut at the limit");
    assert_eq!((stats.series_by_metric[0].name.as_str(), stats.series_by_metric[0].value), ("m", 2));
}
