//! Native histograms through the engine, where the scripts do not look: limits, cancellation, threads, steps.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use chronolith_model::{CounterResetHint, FloatHistogram, Labels, histogram::HistogramLiteral};
use chronolith_promql::{
    CancelToken, Engine, EngineOptions, Query, QueryError, RangeSeries, SampleValue, Value,
};

use crate::dsl::{World, options};

const TOO_MANY: &str = "error: query processing would load too many samples into memory in query execution";

fn literal(text: &str) -> FloatHistogram {
    HistogramLiteral::parse(text).expect("a valid literal").histogram
}

/// Series `h{i, g}` of histograms that grow unevenly and differ in resolution.
fn histograms(world: &World, series: usize, samples: i64, buckets: usize) {
    let counts = vec!["1"; buckets].join(" ");
    for i in 0..series {
        let labels = Labels::from_pairs([
            ("__name__", "h".to_owned()),
            ("g", (i % 3).to_string()),
            ("i", i.to_string()),
        ]);
        let schema = i % 4;
        let each = literal(&format!("{{{{schema:{schema} count:{buckets} sum:{i}.1 buckets:[{counts}]}}}}"));
        for t in 0..samples {
            let mut grown = each.clone();
            grown.multiply((t + 1) as f64 * 1.1 + i as f64 / 7.0);
            world.write_histogram(&labels, t * 15_000, grown);
        }
    }
}

#[test]
fn a_histogram_counts_as_prometheus_counts_it() {
    // Without buckets (168 + 8) / 16 = 11 samples, with one bucket and its span 12.
    for (text, samples) in [("{{}}", 11), ("{{count:1 buckets:[1]}}", 12)] {
        let load = |samples_max| {
            World::with(EngineOptions { samples_max, ..options() }).load(0, 10_000, &format!("h {text}x9"))
        };
        let world = load(samples);
        assert_eq!(world.at(0, "h"), format!("h {text}"));
        assert_eq!(load(samples - 1).at(0, "h"), TOO_MANY, "{text}");
        let stats = |query| world.run(&query).expect("enough").stats;
        assert_eq!(stats(Query::instant("h", 0)).total_queryable_samples, samples as u64);
        assert_eq!(stats(Query::instant("h", 0)).peak_samples, samples as u64);
        assert_eq!(world.at(90_000, "count_over_time(h[1m])"), TOO_MANY, "{text}");
        let world = load(6 * samples + 1);
        assert_eq!(world.at(90_000, "count_over_time(h[1m])"), "{} 6");
    }
}

#[test]
fn the_memory_of_histograms_is_limited() {
    let buckets = vec!["1"; 500].join(" ");
    let series = format!(
        "h{{i=\"1\"}} {{{{count:500 buckets:[{buckets}]}}}}+{{{{buckets:[1]}}}}x30\nf{{i=\"1\"}} 0x30"
    );
    let world = |memory_max_bytes| {
        World::with(EngineOptions { memory_max_bytes, ..options() }).load(0, 10_000, &series)
    };
    // 31 histograms of 500 buckets are 124 kB, 31 floats are not.
    let (small, large) = (world(100_000), world(2_000_000));
    for query in
        ["{}", "-{}", "{} * 2", "sum({})", "{} + {}", "last_over_time({}[30s])", "max_over_time({}[1m:10s])"]
    {
        let of = |metric: &str| query.replace("{}", metric);
        let error = small.range((0, 300_000, 10_000), &of("h"));
        assert!(error.contains("would take more than 100000 bytes of memory"), "{query}: {error}");
        assert!(!small.range((0, 300_000, 10_000), &of("f")).contains("error"), "{query}");
        assert!(!large.range((0, 300_000, 10_000), &of("h")).contains("error"), "{query}");
    }
    // A sample that many steps see is held once, and so is what comes of it.
    for query in ["h", "-h", "h * 2", "h </ 1"] {
        assert!(!small.range((0, 9_000, 100), query).contains("error"), "{query}");
    }
}

fn matrix(world: &World, text: &str) -> Vec<RangeSeries> {
    let result =
        world.run(&Query::range(text, 0, 600_000, 15_000)).unwrap_or_else(|error| panic!("{text}: {error}"));
    let Value::Matrix(matrix) = result.value else { panic!("a range query gives a matrix") };
    matrix
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut world = World::new();
    histograms(&world, 70, 41, 8);
    let queries = [
        "sum by (g) (rate(h[2m]))",
        "avg(h)",
        "sum without (i) (h * 1.3)",
        "h{g=\"1\"} + on(i) h{g=\"1\"} offset 30s",
        "histogram_quantile(0.3, sum(increase(h[1m])))",
        "sum_over_time(sum by (g) (h)[2m:30s])",
        "limitk by (g) (2, h)",
    ];
    let mut first: Vec<Vec<RangeSeries>> = Vec::new();
    for threads in [1, 2, 8] {
        world.engine = Engine::new(EngineOptions { threads, ..options() });
        for (index, text) in queries.iter().enumerate() {
            let matrix = matrix(&world, text);
            assert!(!matrix.is_empty(), "{text}");
            if threads == 1 {
                first.push(matrix);
            } else {
                // Histograms are equal when their bits are.
                assert_eq!(first[index], matrix, "{text} on {threads} threads");
            }
        }
    }
}

#[test]
fn steps_are_what_instant_queries_give() {
    let world = World::new().load(
        0,
        15_000,
        "h{i=\"1\"} {{count:1 sum:1 buckets:[1]}}+{{count:2 sum:1 buckets:[1 1]}}x15 1 2 3 stale {{count:1 sum:1 buckets:[1]}}x9
         h{i=\"2\"} 1+1x10 {{count:1 sum:1 buckets:[1]}}+{{count:2 sum:1 buckets:[1 1]}}x25
         h{i=\"3\"} {{schema:-53 custom_values:[1 2] count:3 sum:1 buckets:[1 2]}}+{{schema:-53 custom_values:[1 2] count:2 buckets:[1 1]}}x30",
    );
    for text in [
        "h",
        "-h",
        "h * 2",
        "2 * h",
        "h / 2",
        "h </ 1",
        "h == h",
        "h != bool h offset 15s",
        "h + h offset 30s",
        "rate(h[1m])",
        "delta(h[1m])",
        "irate(h[1m])",
        "resets(h[2m])",
        "changes(h[2m])",
        "first_over_time(h[1m])",
        "avg_over_time(h[1m])",
        "max_over_time(h[1m])",
        "ts_of_last_over_time(h[1m])",
        "sum by (i) (h)",
        "count_values by (i) (\"v\", h)",
        "h and on(i) h offset 2m",
        "h unless on(i) h * 0 == 0",
        "histogram_sum(h)",
        "histogram_count(h)",
        "histogram_quantile(0.5, h)",
        "histogram_fraction(0, 1, h)",
        "last_over_time(h[1m:20s])",
        "label_replace(h, \"j\", \"$1\", \"i\", \"(.*)\")",
        "timestamp(h)",
        "timestamp(h * 1)",
        "absent(h{i=\"1\"} + 1)",
    ] {
        let mut found = 0;
        let range =
            world.run(&Query::range(text, 0, 600_000, 20_000)).unwrap_or_else(|e| panic!("{text}: {e}"));
        let Value::Matrix(matrix) = range.value else { panic!("a range query gives a matrix") };
        for t in (0..=600_000).step_by(20_000) {
            let instant = world.run(&Query::instant(text, t)).expect("as the range query");
            let Value::Vector(mut vector) = instant.value else { panic!("a vector") };
            vector.sort_by(|a, b| a.labels.cmp(&b.labels));
            let at = |series: &RangeSeries| {
                let float =
                    series.points.iter().find(|(at, _)| *at == t).map(|(_, v)| SampleValue::Float(*v));
                let native = series.histograms.iter().find(|(at, _)| *at == t);
                float.or_else(|| Some(SampleValue::Histogram(Arc::clone(&native?.1))))
            };
            let shown = |labels: &Labels, value: &SampleValue| match value {
                SampleValue::Float(v) => format!("{labels} {v:?}"),
                SampleValue::Histogram(native) => format!("{labels} {native:?}"),
            };
            let one: Vec<String> = vector.iter().map(|sample| shown(&sample.labels, &sample.value)).collect();
            let same: Vec<String> =
                matrix.iter().filter_map(|series| Some(shown(&series.labels, &at(series)?))).collect();
            assert_eq!(one, same, "{text} at {t}");
            found += one.len();
        }
        assert!(found > 0, "{text}");
    }
}

/// Canceled at any moment, a query ends within 100 ms. The machine of a test may be busy, so each query has some
/// attempts; all of them end soon.
#[test]
fn a_canceled_query_stops_while_it_computes() {
    const PROMISE: Duration = Duration::from_millis(100);
    let world = World::new();
    histograms(&world, 120, 200, 60);
    for text in [
        "sum(rate(h[10m]))",
        "avg_over_time(h[20m])",
        "sum by (g) (h)",
        "h * 2",
        "h + on(i) h offset 1m",
        "histogram_quantile(0.5, h)",
        "count_values(\"v\", h)",
        "sum_over_time(sum by (i) (h)[20m:15s])",
    ] {
        let attempt = |after: Duration| {
            let cancel = CancelToken::default();
            let query = Query { cancel: cancel.clone(), ..Query::range(text, 0, 3_000_000, 1_000) };
            let canceler = thread::spawn(move || {
                thread::sleep(after);
                cancel.cancel();
                Instant::now()
            });
            let result = world.run(&query);
            let stopped = Instant::now();
            let canceled = canceler.join().expect("the canceler ends");
            match result {
                Err(QueryError::Canceled(_)) => Some(stopped.saturating_duration_since(canceled)),
                _ => None,
            }
        };
        let delays: Vec<Duration> =
            [5, 10, 20, 30, 60].into_iter().filter_map(|ms| attempt(Duration::from_millis(ms))).collect();
        assert!(!delays.is_empty(), "{text} is always over before it is canceled");
        assert!(delays.iter().any(|delay| *delay < PROMISE), "{text}: {delays:?}");
        assert!(delays.iter().all(|delay| *delay < 200 * PROMISE), "{text}: {delays:?}");
    }
}

#[test]
fn a_reset_is_found_by_the_numbers_and_by_counts_alone_too() {
    let world = World::new().load(
        0,
        60_000,
        "h{i=\"1\"} {{count:5 buckets:[5]}} {{count:6 buckets:[6]}} {{count:6 buckets:[2 4]}}
         h{i=\"2\"} {{count:5 buckets:[5]}} {{count:6 buckets:[6]}} {{count:7 buckets:[7]}}",
    );
    let hint = |text: &str| {
        let result = world.run(&Query::instant(text, 120_000)).expect("right");
        let Value::Vector(vector) = result.value else { panic!("a vector") };
        let SampleValue::Histogram(native) = &vector[0].value else { panic!("a histogram: {text}") };
        (native.hint(), result.warnings)
    };
    // What storage knows of a reset is not passed on.
    assert_eq!(hint("h{i=\"1\"}"), (CounterResetHint::Unknown, vec![]));
    assert_eq!(hint("h{i=\"2\"}"), (CounterResetHint::NotReset, vec![]));
    assert_eq!(hint("sum(h)"), (CounterResetHint::Unknown, vec![]));
    assert_eq!(world.at(120_000, "resets(h[3m])"), "{i=\"1\"} 1; {i=\"2\"} 0");
    let result = world.run(&Query::instant("histogram_count(sum(h))", 120_000)).expect("right");
    let warning = "PromQL warning: conflicting counter resets during histogram aggregation (1:21)";
    assert_eq!(result.warnings, [warning]);
    // Increases are those of all buckets, whether they are asked for or not.
    let count = world.at(120_000, "histogram_count(increase(h[3m]))");
    assert_eq!(count, "{i=\"1\"} 10.5; {i=\"2\"} 3");
    assert_eq!(world.at(120_000, "histogram_count(increase(h[3m]) >/ -Inf)"), count);
}
