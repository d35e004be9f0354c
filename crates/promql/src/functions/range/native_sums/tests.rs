use std::sync::Arc;

use chronolith_model::{
    CounterResetHint,
    histogram::{HistogramLiteral, HistogramParts, Span},
};
use proptest::prelude::*;

use super::*;

fn native(literal: &str) -> Native {
    Arc::new(HistogramLiteral::parse(literal).expect("a literal").histogram)
}

/// A histogram of whole counts whose layout is one of a few.
fn observed() -> impl Strategy<Value = Native> {
    let sum = prop_oneof![
        4 => -1e6..1e6_f64,
        1 => Just(1e100),
        1 => Just(-1e100),
        1 => Just(f64::NAN),
    ];
    let hint = prop_oneof![
        3 => Just(CounterResetHint::NotReset),
        1 => Just(CounterResetHint::Reset),
        1 => Just(CounterResetHint::Unknown),
        1 => Just(CounterResetHint::Gauge),
    ];
    (prop::collection::vec(0..1_000_u32, 0..5), -3..3_i32, sum, hint).prop_map(
        |(counts, offset, sum, hint)| {
            let buckets: Vec<f64> = counts.iter().map(|count| f64::from(*count)).collect();
            let count = buckets.iter().sum::<f64>();
            let spans = vec![Span { offset, length: buckets.len() as u32 }];
            let parts = HistogramParts {
                hint,
                schema: 2,
                count,
                sum,
                positive_spans: spans,
                positive_buckets: buckets,
                ..HistogramParts::default()
            };
            Arc::new(parts.build(None).expect("valid"))
        },
    )
}

/// Windows of which neither end ever goes back.
fn windows(steps: &[(usize, usize)], count: usize) -> Vec<Bounds> {
    let (mut start, mut end) = (0, 0);
    let next = |(by, length): &(usize, usize)| {
        start = (start + by).min(count);
        end = end.max(start + length).min(count);
        Bounds::new(start, end)
    };
    steps.iter().map(next).collect()
}

proptest! {
    #[test]
    fn sums_of_parts_are_those_in_order(
        histograms in prop::collection::vec(observed(), 1..80),
        steps in prop::collection::vec((0..3_usize, 0..40_usize), 1..80),
        bytes_max in prop_oneof![Just(0_usize), Just(4_000), Just(1 << 20)],
    ) {
        prop_assert!(HistogramSum::is_free_of_order(histograms.iter().map(|h| &**h), histograms.len()));
        let windows = windows(&steps, histograms.len());
        let mut overlapping = Overlapping::new(&histograms, bytes_max);
        for (step, window) in windows.iter().enumerate().filter(|(_, window)| window.len() > 0) {
            let (expected, combined) = sum_in_order(&histograms[window.range()]).unwrap();
            let sum = overlapping.sum(&windows[step..]).unwrap();
            prop_assert_eq!(sum.combined(), combined);
            let mean = HistogramMean::of_sum(sum.clone(), window.len()).finish();
            let sum = sum.finish();
            prop_assert_eq!(sum.layout(), expected.layout());
            prop_assert_eq!(sum.hint(), expected.hint());
            prop_assert_eq!((sum.count(), sum.buckets()), (expected.count(), expected.buckets()));
            let close = |a: f64, b: f64| (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * b.abs();
            prop_assert!(close(sum.sum(), expected.sum()), "{} {}", sum.sum(), expected.sum());
            let (expected, _) = mean_in_order(&histograms[window.range()]).unwrap();
            prop_assert!(close(mean.count(), expected.count()) && close(mean.sum(), expected.sum()));
        }
    }
}

#[test]
fn what_depends_on_the_order_is_added_up_in_order() {
    let free = |literals: &[&str]| {
        let all: Vec<Native> = literals.iter().map(|literal| native(literal)).collect();
        HistogramSum::is_free_of_order(all.iter().map(|native| &**native), all.len())
    };
    let usual = "{{schema:2 count:3 sum:3 z_bucket:1 z_bucket_w:0.001 buckets:[2]}}";
    let custom = "{{schema:-53 count:3 sum:3 custom_values:[1 2] buckets:[3]}}";
    assert!(free(&[usual, usual]));
    assert!(free(&[custom, custom]));
    assert!(free(&[
        usual,
        "{{schema:2 count:3 sum:-3 z_bucket_w:0.001 buckets:[1 2] n_buckets:[4] offset:7}}"
    ]));
    for other in [
        custom,
        "{{schema:1 count:3 sum:3 z_bucket_w:0.001 buckets:[2]}}",
        "{{schema:2 count:3 sum:3 z_bucket_w:0.01 buckets:[2]}}",
        "{{schema:2 count:3 sum:3 z_bucket_w:0.001 buckets:[-2]}}",
        "{{schema:2 count:-3 sum:3 z_bucket_w:0.001 buckets:[2]}}",
        "{{schema:2 count:3 sum:1e307 z_bucket_w:0.001 buckets:[2]}}",
        "{{schema:2 count:3 sum:Inf z_bucket_w:0.001 buckets:[2]}}",
        "{{schema:2 count:Inf sum:3 z_bucket_w:0.001 buckets:[2]}}",
        "{{schema:2 count:3 sum:3 z_bucket_w:0.001 buckets:[NaN]}}",
        // A bucket within the zero bucket, and too many of them.
        "{{schema:2 count:3 sum:3 z_bucket_w:0.001 buckets:[2] offset:-60}}",
        "{{schema:2 count:3 sum:3 z_bucket_w:0.001 buckets:[2] offset:9000}}",
    ] {
        assert!(!free(&[usual, other]), "{other}");
    }
}
