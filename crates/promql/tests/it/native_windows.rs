//! Windows of histograms: what they cost does not depend on how long they are.

use std::time::{Duration, Instant};

use chronolith_model::{
    CounterResetHint, Labels,
    histogram::{HistogramParts, Span},
};
use chronolith_promql::{Query, QueryError, SampleValue, Value};
use chronolith_testkit::promqltest::series::{SeriesValue, parse_series};

use crate::dsl::World;

const INTERVAL: i64 = 15_000;
const SAMPLES: i64 = 1_440;

/// Six hours of a histogram of 40 buckets.
fn world() -> World {
    let world = World::new();
    let labels = Labels::from_pairs([("__name__", "h")]);
    for i in 0..SAMPLES {
        let buckets: Vec<String> = (0..40).map(|bucket| ((i + 1) * (1 + bucket % 7)).to_string()).collect();
        let count: i64 = (0..40).map(|bucket| (i + 1) * (1 + bucket % 7)).sum();
        let line = format!(
            "h {{{{schema:3 count:{count} sum:{}.1 counter_reset_hint:not_reset buckets:[{}]}}}}",
            count / 3,
            buckets.join(" ")
        );
        let series = parse_series(&line).expect("a series");
        let Some(SeriesValue::Histogram(value)) = series.values.first() else {
            panic!("{line} has no histogram")
        };
        world.write_histogram(&labels, i * INTERVAL, (*value.histogram).clone());
    }
    world
}

/// Counts and sums of the observations of a function over windows of `range`, at every sample.
fn run(world: &World, function: &str, range: &str) -> Vec<(f64, f64)> {
    let query = Query::range(format!("{function}(h[{range}])"), 0, (SAMPLES - 1) * INTERVAL, INTERVAL);
    let result = world.run(&query).expect("a valid query");
    let Value::Matrix(series) = result.value else { panic!("a matrix") };
    series[0].histograms.iter().map(|(_, histogram)| (histogram.count(), histogram.sum())).collect()
}

#[test]
fn long_windows_hold_what_they_should() {
    let world = world();
    for (range, length) in [("1m", 4), ("30m", 120), ("3h", 720)] {
        let one = |i: i64| (0..40).map(|bucket| (i + 1) * (1 + bucket % 7)).sum::<i64>();
        let sums = run(&world, "sum_over_time", range);
        let means = run(&world, "avg_over_time", range);
        assert_eq!(sums.len(), SAMPLES as usize);
        for (step, (sum, mean)) in (0..SAMPLES).zip(sums.iter().zip(&means)) {
            let window = (step + 1 - length).max(0)..=step;
            let samples = (window.end() - window.start() + 1) as f64;
            let count: i64 = window.clone().map(one).sum();
            let observed: f64 = window.map(|i| (one(i) / 3) as f64 + 0.1).sum();
            assert_eq!(sum.0, count as f64, "{range} {step}");
            assert!((sum.1 - observed).abs() < 1e-9 * observed, "{range} {step}");
            assert!((mean.0 - sum.0 / samples).abs() < 1e-12 * mean.0, "{range} {step}");
            assert!((mean.1 - sum.1 / samples).abs() < 1e-12 * mean.1, "{range} {step}");
        }
    }
}

/// Histograms so wide that the parts of a window need more memory than there is for them, worked on in blocks of steps: the
/// same as each window alone, and an end as soon as the time is over.
#[test]
fn wide_histograms_in_long_windows_are_worked_on_in_parts() {
    const BUCKETS: i64 = 600;
    let world = World::new();
    let labels = Labels::from_pairs([("__name__", "h")]);
    let spans = vec![Span { offset: 0, length: BUCKETS as u32 }];
    for i in 0..2_000 {
        let buckets: Vec<f64> = (0..BUCKETS).map(|bucket| ((i * 7 + bucket) % 11) as f64).collect();
        let parts = HistogramParts {
            schema: 8,
            count: buckets.iter().sum(),
            sum: i as f64,
            positive_spans: spans.clone(),
            positive_buckets: buckets,
            hint: CounterResetHint::Gauge,
            ..HistogramParts::default()
        };
        world.write_histogram(&labels, i * 1_000, parts.build(None).expect("valid"));
    }
    let text = "sum_over_time(h[25m])";
    let range = world.run(&Query::range(text, 1_000_000, 1_999_000, 1_000)).expect("a valid query");
    let Value::Matrix(series) = range.value else { panic!("a matrix") };
    assert_eq!(series[0].histograms.len(), 1_000);
    for (t, histogram) in series[0].histograms.iter().step_by(97) {
        let alone = world.run(&Query::instant(text, *t)).expect("a valid query");
        let Value::Vector(alone) = alone.value else { panic!("a vector") };
        assert_eq!(alone[0].value, SampleValue::Histogram(histogram.clone()), "at {t}");
    }
    let query =
        Query { timeout: Some(Duration::from_millis(20)), ..Query::range(text, 1_000_000, 1_999_000, 100) };
    let started = Instant::now();
    assert!(matches!(world.run(&query), Err(QueryError::Timeout(_))));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

/// Run it with `NATIVE_WINDOW=none|1m|30m` below `valgrind --tool=callgrind`: `none` is what the rest takes.
#[test]
#[ignore = "a measurement"]
fn one_window_length() {
    let range = std::env::var("NATIVE_WINDOW").expect("NATIVE_WINDOW");
    let world = world();
    if range != "none" {
        assert_eq!(run(&world, "sum_over_time", &range).len(), SAMPLES as usize);
    }
}
