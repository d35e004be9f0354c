//! What engines may keep beyond float samples; checked of those that say so.

use chronolith_model::{
    CounterResetHint, Exemplar, Histogram, HistogramSample, Labels, Matcher, Sample, TenantId, TimeRange,
    histogram::{CUSTOM_SCHEMA, HistogramParts, Span},
    stale_nan,
};

use super::{all, block_on, compiled, read, view};
use crate::{
    append::{
        AppendOutcome, Appender, ExemplarBatch, ExemplarEntry, ExemplarOutcome, LabelSource, RejectReason,
        SampleAt, SeriesEntry, Stores, WriteBatch,
    },
    query::{ExemplarQuery, Queryable, Samples, SeriesExemplars},
};

pub(super) fn check<E: Appender + Queryable>(make: &mut impl FnMut() -> E) {
    let Stores { histograms, exemplars, start_timestamps, late_samples } = make().stores();
    if late_samples {
        late_samples_take_their_places(&make());
    } else {
        let engine = make();
        append(&engine, "a", &[Sample::new(2_000, 2.0)], &[], 0);
        let late = append(&engine, "a", &[Sample::new(1_000, 1.0)], &[], 0);
        assert_eq!(late.rejections[0].reason, RejectReason::OutOfOrder);
    }
    if histograms {
        keeps_histograms_bit_for_bit(&make());
        finds_out_about_resets(&make());
        takes_repeated_histograms_and_refuses_conflicts(&make());
        a_stale_float_ends_histograms(&make());
        floats_and_histograms_of_a_series(&make());
    }
    if exemplars {
        remembers_exemplars(&make());
    } else {
        let dropped = ExemplarOutcome { dropped: 2, ..ExemplarOutcome::default() };
        assert_eq!(give(&make(), "a", &[exemplar(1, "x"), exemplar(2, "x")]), dropped);
    }
    if start_timestamps {
        keeps_start_timestamps(&make());
    }
}

/// One series, as many entries.
struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

fn labels(job: &str) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("job", job)])
}

/// Appends to one series.
pub(super) fn append(
    engine: &dyn Appender,
    job: &str,
    samples: &[Sample],
    histograms: &[HistogramSample],
    start_timestamp: i64,
) -> AppendOutcome {
    let labels = labels(job);
    let key = engine.key_hasher().key(labels.to_string().as_bytes());
    let entry = SeriesEntry {
        key,
        samples: 0..samples.len() as u32,
        histograms: 0..histograms.len() as u32,
        start_timestamp,
    };
    let batch = WriteBatch { series: &[entry], samples, histograms, labels: &One(labels) };
    let appended = engine.append(&TenantId::default(), &batch).expect("the engine takes samples");
    appended.ticket.wait().expect("the engine makes samples durable");
    appended.outcome
}

/// A counter of `n` observations in each of its buckets.
pub(super) fn counter(n: u64) -> Histogram {
    let parts = HistogramParts {
        schema: 2,
        zero_threshold: 0.001,
        zero_count: n,
        count: n * 4,
        sum: n as f64 * 1.5,
        positive_spans: vec![Span { offset: -1, length: 1 }, Span { offset: 3, length: 1 }],
        positive_buckets: vec![n, n],
        negative_spans: vec![Span { offset: 2, length: 1 }],
        negative_buckets: vec![n],
        ..HistogramParts::default()
    };
    parts.build(None).expect("a valid histogram").into()
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
    parts.build(None).expect("a valid histogram").into()
}

fn gauge(n: u64) -> Histogram {
    let mut gauge = counter(n);
    gauge.set_hint(CounterResetHint::Gauge);
    gauge
}

fn at(timestamp: i64, histogram: Histogram) -> HistogramSample {
    HistogramSample { timestamp, histogram }
}

/// The samples of the one series there is.
fn stored(engine: &dyn Queryable) -> Samples {
    let mut found = all(engine, "m");
    assert_eq!(found.len(), 1);
    found.remove(0).1
}

fn keeps_histograms_bit_for_bit<E: Appender + Queryable>(engine: &E) {
    // Layouts, kinds and scales change all the time.
    let values = [
        counter(1),
        counter(3),
        counter(3).to_float().into(),
        custom(2.5),
        custom(3.5),
        Histogram::stale(),
        counter(1 << 60),
        gauge(7),
        gauge(5),
    ];
    let given: Vec<HistogramSample> = (1..).map(|i| i * 15_000).zip(values).map(|(t, h)| at(t, h)).collect();
    let outcome = append(engine, "a", &[], &given, 0);
    assert_eq!((outcome.stored, outcome.rejected), (given.len() as u64, 0), "{:?}", outcome.rejections);
    let found = stored(engine);
    assert!(found.is_empty(), "no floats");
    assert_eq!(found.histogram_timestamps, given.iter().map(|sample| sample.timestamp).collect::<Vec<_>>());
    for (given, found) in given.iter().zip(&found.histograms) {
        assert!(found.same_observations(&given.histogram), "{found:?} instead of {:?}", given.histogram);
    }
    let querier = view(engine, &TenantId::default());
    for (min, max, count) in
        [(15_000, 30_000, 2), (15_001, 29_999, 0), (120_000, 900_000, 2), (30_001, 15_000, 0)]
    {
        let found = read(&*querier, vec![Matcher::equal("job", "a")], TimeRange::new(min, max));
        let got: usize = found.iter().map(|(_, samples)| samples.histograms.len()).sum();
        assert_eq!(got, count, "histograms within [{min}, {max}]");
    }
}

fn finds_out_about_resets<E: Appender + Queryable>(engine: &E) {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    let steps = [
        (counter(5), Unknown),
        (counter(6), NotReset),
        (counter(2), Reset),
        (counter(3), NotReset),
        (Histogram::stale(), Unknown),
        (counter(9), Unknown),
        (gauge(1), Gauge),
        (counter(9), Unknown),
    ];
    for (t, (histogram, _)) in (0..).zip(&steps) {
        // One by one: what was before is known from memory.
        append(engine, "a", &[], &[at(t, histogram.clone())], 0);
    }
    let found: Vec<CounterResetHint> = stored(engine).histograms.iter().map(Histogram::hint).collect();
    assert_eq!(found, steps.map(|(_, hint)| hint), "hints of histograms behind each other");
}

fn takes_repeated_histograms_and_refuses_conflicts<E: Appender + Queryable>(engine: &E) {
    append(engine, "a", &[], &[at(1_000, counter(1)), at(2_000, counter(2))], 0);
    let again = append(engine, "a", &[], &[at(2_000, counter(2))], 0);
    assert_eq!(
        (again.stored, again.duplicates, again.rejected),
        (0, 1, 0),
        "the same histogram again is accepted"
    );
    let conflict =
        append(engine, "a", &[Sample::new(2_000, 7.0)], &[at(2_000, counter(3)), at(3_000, counter(3))], 0);
    assert_eq!((conflict.stored, conflict.rejected), (1, 2));
    let reasons: Vec<RejectReason> =
        conflict.rejections.into_iter().map(|rejection| rejection.reason).collect();
    assert_eq!(
        reasons,
        [
            RejectReason::DuplicateOfHistogram { timestamp: 2_000, new: 7.0 },
            RejectReason::DuplicateHistogram { timestamp: 2_000 },
        ]
    );
    let found = stored(engine);
    assert_eq!(found.histogram_timestamps, [1_000, 2_000, 3_000]);
    assert!(found.histograms[1].same_observations(&counter(2)), "the first histogram stays");
    assert!(found.is_empty());
    append(engine, "a", &[Sample::new(4_000, 4.0)], &[], 0);
    let behind = append(engine, "a", &[], &[at(4_000, counter(4))], 0);
    assert_eq!(behind.rejections[0].reason, RejectReason::DuplicateHistogram { timestamp: 4_000 });
    assert_eq!(behind.rejections[0].sample, Some(SampleAt::histogram(4_000)));
}

fn a_stale_float_ends_histograms<E: Appender + Queryable>(engine: &E) {
    append(engine, "a", &[], &[at(1_000, counter(1))], 0);
    for stored in [1, 0] {
        let outcome = append(engine, "a", &[Sample::new(2_000, stale_nan())], &[], 0);
        assert_eq!((outcome.stored, outcome.rejected), (stored, 0));
    }
    let found = stored(engine);
    assert_eq!((found.len(), found.histogram_timestamps.as_slice()), (0, &[1_000, 2_000][..]));
    assert!(found.histograms[1].is_stale());
}

fn floats_and_histograms_of_a_series<E: Appender + Queryable>(engine: &E) {
    append(engine, "a", &[Sample::new(1_000, 1.0)], &[at(2_000, counter(1))], 0);
    append(engine, "a", &[Sample::new(3_000, 3.0), Sample::new(4_000, stale_nan())], &[], 0);
    append(engine, "a", &[], &[at(5_000, counter(2))], 0);
    let found = stored(engine);
    assert_eq!((found.timestamps.as_slice(), found.len()), (&[1_000, 3_000, 4_000][..], 3));
    assert_eq!(found.histogram_timestamps, [2_000, 5_000]);
    assert_eq!(found.histograms[1].hint(), CounterResetHint::Unknown, "nothing is known behind a float");
}

fn late_samples_take_their_places<E: Appender + Queryable>(engine: &E) {
    // Of a minute, from both ends to the middle.
    let order = (0..60).map(|i| if i % 2 == 0 { 60 - i / 2 } else { i / 2 + 1 });
    for t in order {
        let outcome = append(engine, "a", &[Sample::new(t * 1_000, t as f64)], &[], 0);
        assert_eq!((outcome.stored, outcome.rejected), (1, 0), "late samples are taken");
    }
    let again = append(engine, "a", &[Sample::new(7_000, 7.0), Sample::new(8_000, 0.5)], &[], 0);
    assert_eq!((again.stored, again.duplicates, again.rejected), (0, 1, 1));
    let conflict = RejectReason::DuplicateTimestamp { timestamp: 8_000, existing: 8.0, new: 0.5 };
    assert_eq!(again.rejections[0].reason, conflict, "known as well as one in order");
    let found = stored(engine);
    assert_eq!(found.timestamps, (1..=60).map(|t| t * 1_000).collect::<Vec<_>>());
    assert_eq!(found.values, (1..=60).map(|t| t as f64).collect::<Vec<_>>());
    let querier = view(engine, &TenantId::default());
    let part = read(&*querier, vec![Matcher::equal("job", "a")], TimeRange::new(9_000, 11_000)).remove(0).1;
    assert_eq!(part.timestamps, [9_000, 10_000, 11_000]);
}

fn exemplar(timestamp: i64, trace: &str) -> Exemplar {
    Exemplar { labels: Labels::from_pairs([("trace_id", trace)]), value: 0.5, timestamp }
}

fn give(engine: &dyn Appender, job: &str, exemplars: &[Exemplar]) -> ExemplarOutcome {
    let labels = labels(job);
    let key = engine.key_hasher().key(labels.to_string().as_bytes());
    let series = [ExemplarEntry { key, exemplars: 0..exemplars.len() as u32 }];
    engine.append_exemplars(
        &TenantId::default(),
        &ExemplarBatch { series: &series, exemplars, labels: &One(labels) },
    )
}

fn remembers_exemplars<E: Appender + Queryable>(engine: &E) {
    for job in ["b", "a"] {
        append(engine, job, &[Sample::new(1_000, 1.0)], &[], 0);
        let outcome = give(engine, job, &[exemplar(1_000, "x"), exemplar(2_000, "y"), exemplar(2_000, "y")]);
        assert_eq!((outcome.stored, outcome.duplicates), (2, 1));
    }
    let refused = give(engine, "a", &[exemplar(500, "old"), exemplar(3_000, &"x".repeat(200))]);
    assert_eq!((refused.stored, refused.out_of_order, refused.dropped), (0, 1, 1));
    let ask = |matchers: &[Matcher], range| {
        let query = ExemplarQuery { matcher_sets: vec![compiled(matchers)], range, payer: None };
        block_on(view(engine, &TenantId::default()).exemplars(&query)).expect("exemplars")
    };
    let found = ask(&[Matcher::equal("__name__", "m")], TimeRange::ALL);
    let both = vec![exemplar(1_000, "x"), exemplar(2_000, "y")];
    let expected = ["a", "b"].map(|job| SeriesExemplars { labels: labels(job), exemplars: both.clone() });
    assert_eq!(found, expected);
    let found = ask(&[Matcher::equal("job", "b")], TimeRange::new(1_001, 2_000));
    assert_eq!(found, [SeriesExemplars { labels: labels("b"), exemplars: vec![exemplar(2_000, "y")] }]);
    assert!(ask(&[Matcher::equal("job", "c")], TimeRange::ALL).is_empty());
    let other = TenantId::new("other").expect("a valid id");
    let query = ExemplarQuery {
        payer: None,
        matcher_sets: vec![compiled(&[Matcher::equal("__name__", "m")])],
        range: TimeRange::ALL,
    };
    assert!(
        block_on(view(engine, &other).exemplars(&query)).expect("exemplars").is_empty(),
        "tenants are apart"
    );
}

fn keeps_start_timestamps<E: Appender + Queryable>(engine: &E) {
    for (t, start) in [(1_000, 0), (2_000, 500), (3_000, 500), (4_000, 3_500), (5_000, 0)] {
        append(engine, "a", &[Sample::new(t, t as f64)], &[], start);
    }
    let found = stored(engine);
    let starts: Vec<i64> = found.timestamps.iter().map(|t| found.start_at(*t)).collect();
    assert_eq!(starts, [0, 500, 500, 3_500, 0]);
    let querier = view(engine, &TenantId::default());
    let part = read(&*querier, vec![Matcher::equal("job", "a")], TimeRange::new(3_000, 4_000)).remove(0).1;
    assert_eq!(
        (part.start_at(3_000), part.start_at(4_000)),
        (500, 3_500),
        "a part has the start of its first sample"
    );
}
