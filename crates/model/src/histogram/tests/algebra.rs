//! Adding, subtracting, scaling, resets.

use proptest::prelude::*;

use super::super::*;

/// The histogram of a literal.
pub(super) fn literal(text: &str) -> FloatHistogram {
    HistogramLiteral::parse(text).unwrap().histogram
}

#[track_caller]
fn is(histogram: &FloatHistogram, text: &str) {
    let mut compact = histogram.clone();
    compact.compact();
    assert_eq!(compact.to_literal(), literal(text).to_literal());
}

fn sum(a: &str, b: &str) -> (FloatHistogram, Combined) {
    let mut sum = literal(a);
    let combined = sum.add(&literal(b)).unwrap();
    (sum, combined)
}

#[test]
fn equal_buckets_are_added_in_place() {
    let mut a = literal("{{sum:5 count:4 z_bucket:1 z_bucket_w:0.1 buckets:[1 2 1] n_buckets:[3]}}");
    let layout = Arc::clone(a.layout());
    let b = a.clone();
    a.add(&b).unwrap();
    assert!(Arc::ptr_eq(a.layout(), &layout));
    is(&a, "{{sum:10 count:8 z_bucket:2 z_bucket_w:0.1 buckets:[2 4 2] n_buckets:[6]}}");
    a.add(&literal("{{sum:1 count:1 z_bucket_w:0.1 buckets:[1] offset:2}}")).unwrap();
    assert!(Arc::ptr_eq(a.layout(), &layout), "it has all buckets already");
    a.subtract(&b).unwrap();
    is(&a, "{{sum:6 count:5 z_bucket:1 z_bucket_w:0.1 buckets:[1 2 2] n_buckets:[3]}}");
}

#[test]
fn missing_buckets_are_put_where_they_belong() {
    let (a, _) = sum(
        "{{count:3 sum:3 buckets:[1] offset:2 n_buckets:[2]}}",
        "{{count:9 sum:1 buckets:[3 0 1 5] offset:-1 n_buckets:[4] n_offset:7}}",
    );
    is(&a, "{{count:12 sum:4 buckets:[3 0 1 6] offset:-1 n_buckets:[2 0 0 0 0 0 0 4]}}");
    let mut difference = literal("{{count:1 buckets:[1]}}");
    difference.subtract(&literal("{{count:2 buckets:[2] offset:5}}")).unwrap();
    is(&difference, "{{count:-1 buckets:[1 0 0 0 0 -2]}}");
}

#[test]
fn the_coarser_resolution_results() {
    let coarse = "{{schema:0 count:41 z_bucket:5 z_bucket_w:0.001 buckets:[1 3 1 2 1 1 1]}}";
    let fine = "{{schema:1 count:11 z_bucket:3 z_bucket_w:0.001 buckets:[0 2 1] n_buckets:[0 0 3 2]}}";
    let want = "{{count:52 z_bucket:8 z_bucket_w:0.001 buckets:[1 6 1 2 1 1 1] n_buckets:[0 3 2]}}";
    is(&sum(coarse, fine).0, want);
    is(&sum(fine, coarse).0, want);
}

#[test]
fn the_wider_zero_bucket_results_and_swallows_populated_buckets() {
    let narrow = "{{count:7 z_bucket:1 z_bucket_w:0.1 buckets:[1 2 3]}}";
    let wide = "{{count:4 z_bucket:3 z_bucket_w:2 buckets:[1] offset:3}}";
    let want = "{{count:11 z_bucket:7 z_bucket_w:2 buckets:[3 1] offset:2}}";
    is(&sum(narrow, wide).0, want);
    is(&sum(wide, narrow).0, want);
    // 1.5 lies within the populated bucket (1,2]; then 2 is what both have to be widened to.
    let cutting = "{{count:1 z_bucket:1 z_bucket_w:1.5 n_buckets:[5] n_offset:4}}";
    let want = "{{count:8 z_bucket:5 z_bucket_w:2 buckets:[3] offset:2 n_buckets:[5] n_offset:4}}";
    is(&sum(narrow, cutting).0, want);
    is(&sum(cutting, narrow).0, want);
    // A bucket that is cut but empty is no reason.
    let want = "{{count:7 z_bucket:2 z_bucket_w:1.5 buckets:[3] offset:2 n_buckets:[5] n_offset:4}}";
    is(&sum("{{count:6 z_bucket:1 z_bucket_w:0.1 buckets:[0 0 3]}}", cutting).0, want);
    // Thresholds that are no numbers end the search too.
    let (nan, _) = sum("{{count:1 z_bucket:1 z_bucket_w:NaN}}", narrow);
    assert_eq!((nan.count(), nan.zero_count()), (8.0, 2.0));
}

#[test]
fn different_custom_bounds_leave_those_of_both() {
    let (a, combined) = sum(
        "{{schema:-53 sum:55 count:15 custom_values:[2 4 6] buckets:[1 2 5 7]}}",
        "{{schema:-53 sum:555 count:450 custom_values:[1 2 3 4 5 6 7 8] buckets:[10 20 30 40 50 60 70 80 90]}}",
    );
    is(&a, "{{schema:-53 sum:610 count:465 custom_values:[2 4 6] buckets:[31 72 115 247]}}");
    assert_eq!(combined, Combined { hints_collide: false, bounds_reconciled: true });
    let (b, combined) = sum(
        "{{schema:-53 count:1 custom_values:[5 10] buckets:[1]}}",
        "{{schema:-53 count:3 custom_values:[5 10] buckets:[1 2] offset:1}}",
    );
    is(&b, "{{schema:-53 count:4 custom_values:[5 10] buckets:[1 1 2]}}");
    assert!(!combined.bounds_reconciled);
    let (c, _) = sum(
        "{{schema:-53 count:1 custom_values:[5] buckets:[1]}}",
        "{{schema:-53 count:2 custom_values:[6] buckets:[2]}}",
    );
    is(&c, "{{schema:-53 count:3 buckets:[3]}}");
}

#[test]
fn exponential_and_custom_do_not_mix() {
    let before = literal("{{count:1 sum:2 buckets:[1] counter_reset_hint:reset}}");
    let mut a = before.clone();
    assert_eq!(a.add(&literal("{{schema:-53 custom_values:[1]}}")), Err(IncompatibleHistograms));
    assert_eq!(a, before);
    assert_eq!(HistogramSum::of(before).add(&literal("{{schema:-53}}")), Err(IncompatibleHistograms));
}

#[test]
fn hints_are_combined() {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    for (a, b, want) in [
        (Unknown, Unknown, (Unknown, false)),
        (Reset, Reset, (Reset, false)),
        (NotReset, NotReset, (NotReset, false)),
        (Gauge, Reset, (Gauge, false)),
        (Unknown, Gauge, (Gauge, false)),
        (Unknown, NotReset, (Unknown, false)),
        (Reset, NotReset, (Unknown, true)),
    ] {
        assert_eq!(a.combined(b), want);
        assert_eq!(b.combined(a), want);
    }
    let mut negated = literal("{{count:1 buckets:[1]}}");
    negated.multiply(-1.0);
    assert_eq!(negated.to_literal(), "{{count:-1 counter_reset_hint:gauge buckets:[-1]}}");
    negated.divide(-2.0);
    is(&negated, "{{count:0.5 buckets:[0.5] counter_reset_hint:gauge}}");
    let collide = |hints: [&str; 3]| {
        let all = hints.map(|hint| literal(&format!("{{{{count:1 counter_reset_hint:{hint}}}}}")));
        let mut sum = HistogramSum::of(all[0].clone());
        sum.add(&all[1]).unwrap();
        sum.add(&all[2]).unwrap();
        (sum.combined().hints_collide, sum.finish().hint())
    };
    assert_eq!(collide(["reset", "gauge", "not_reset"]), (true, Gauge));
    assert_eq!(collide(["reset", "unknown", "not_reset"]), (true, Unknown));
    assert_eq!(collide(["not_reset", "not_reset", "gauge"]), (false, Gauge));
}

#[test]
fn division_by_zero_leaves_no_bucket() {
    let mut a = literal("{{count:30 sum:-33 z_bucket:0 z_bucket_w:0.001 buckets:[3 3 3] n_buckets:[6 6 6]}}");
    a.divide(0.0);
    assert!(a.buckets().is_empty());
    assert_eq!((a.count(), a.sum()), (f64::INFINITY, f64::NEG_INFINITY));
    assert!(a.zero_count().is_nan());
    assert_eq!(a.layout().zero_threshold(), 0.001);
}

#[test]
fn compaction_takes_out_what_is_empty() {
    let mut a = literal("{{schema:2 count:3 buckets:[0 0 1 0 2 0] n_buckets:[0 0]}}");
    a.compact();
    assert_eq!(a.layout().positive_spans(), [Span { offset: 2, length: 1 }, Span { offset: 1, length: 1 }]);
    assert!(a.layout().negative_spans().is_empty());
    assert_eq!(a.buckets(), [1.0, 2.0]);
    let layout = Arc::clone(a.layout());
    a.compact();
    assert!(Arc::ptr_eq(a.layout(), &layout));
}

#[test]
fn sums_and_means_are_compensated() {
    let all = [
        "{{count:1 sum:5.3 buckets:[1]}}",
        "{{count:2 sum:1e100 buckets:[1e100] offset:1}}",
        "{{count:3 sum:1 buckets:[1 1]}}",
        "{{count:4 sum:-1e100 buckets:[0 -1e100]}}",
        "{{schema:1 count:2 sum:2 buckets:[2] offset:2}}",
    ]
    .map(literal);
    let mut sum = HistogramSum::of(all[0].clone());
    let mut mean = HistogramMean::of(all[0].clone());
    for x in &all[1..] {
        sum.add(x).unwrap();
        mean.add(x).unwrap();
    }
    is(&sum.finish(), "{{count:12 sum:8.3 buckets:[2 3]}}");
    let mean = mean.finish();
    assert!((mean.sum() - 8.3 / 5.0).abs() < 1e-15);
    assert!(
        mean.close_to(&literal("{{count:2.4 sum:1.66 buckets:[0.4 0.6]}}"), |a, b| (a - b).abs() < 1e-15)
    );
}

#[test]
fn means_do_not_overflow() {
    let a = literal("{{count:1.7976931348623157e+308 sum:4 buckets:[1e308 2]}}");
    let b = literal("{{count:1e308 sum:2 buckets:[1.5e308] }}");
    let c = literal("{{count:0 sum:0 buckets:[4] offset:3}}");
    let mut mean = HistogramMean::of(a.clone());
    let mut sum = HistogramSum::of(a);
    for x in [&b, &c] {
        mean.add(x).unwrap();
        sum.add(x).unwrap();
    }
    assert!(sum.finish().overflows());
    let mean = mean.finish();
    let close = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-12, "{got} {want}");
    close(mean.count(), 1.7976931348623157e308 / 3.0 + 1e308 / 3.0);
    close(mean.sum(), 2.0);
    close(mean.buckets()[0], 1e308 / 3.0 + 1.5e308 / 3.0);
    close(mean.buckets()[1], 2.0 / 3.0);
    close(mean.buckets()[2], 4.0 / 3.0);
}

#[test]
fn sums_have_no_more_buckets_than_a_histogram_may_have() {
    let many = |offset: i32| {
        let span = Span { offset, length: BUCKETS_MAX as u32 };
        let layout = Layout::new(8, 0.0, &[span], &[], Vec::new()).unwrap();
        let numbers = Numbers {
            hint: CounterResetHint::Unknown,
            sum: 1.0,
            count: BUCKETS_MAX as f64,
            zero_count: 0.0,
            buckets: vec![1.0; BUCKETS_MAX],
        };
        FloatHistogram::from_numbers(Arc::new(layout), numbers).unwrap()
    };
    let mut a = many(1);
    a.add(&many(20_001)).unwrap();
    assert!(a.buckets().len() <= BUCKETS_MAX);
    assert_eq!(a.layout().schema(), 7);
    assert_eq!(a.buckets().iter().sum::<f64>(), 2.0 * BUCKETS_MAX as f64);
    // What no float falls into goes where the ends are.
    let mut beyond = many(1_000_000_000);
    beyond.add(&many(-1_000_000_000)).unwrap();
    beyond.add(&many(500_000_000)).unwrap();
    assert_eq!(beyond.buckets().iter().sum::<f64>(), 3.0 * BUCKETS_MAX as f64);
    assert!(beyond.buckets().len() <= BUCKETS_MAX);
}

#[test]
fn resets() {
    let reset = |before: &str, after: &str| literal(after).is_reset_after(&literal(before));
    let base = "{{count:5 sum:9 z_bucket:1 z_bucket_w:0.5 buckets:[1 2 1]}}";
    assert!(!reset(base, base));
    assert!(!reset(base, "{{count:7 sum:1 z_bucket:1 z_bucket_w:0.5 buckets:[1 2 1 2]}}"));
    assert!(reset(base, "{{count:4 z_bucket:0 z_bucket_w:0.5 buckets:[1 2 1]}}"), "count");
    assert!(reset(base, "{{count:9 z_bucket:0 z_bucket_w:0.5 buckets:[1 2 6]}}"), "zero bucket");
    assert!(reset(base, "{{count:9 z_bucket:1 z_bucket_w:0.5 buckets:[1 1 6]}}"), "one bucket");
    assert!(reset(base, "{{count:9 z_bucket:6 z_bucket_w:0.5 buckets:[1 2]}}"), "a bucket is gone");
    assert!(!reset("{{count:1 buckets:[1 0 0]}}", "{{count:1 buckets:[1]}}"), "an empty bucket is gone");
    assert!(reset(base, "{{schema:1 count:9 z_bucket:1 z_bucket_w:0.5 buckets:[1 2 5]}}"), "finer");
    assert!(!reset("{{schema:1 count:4 buckets:[1 2 1]}}", "{{count:4 buckets:[1 3]}}"), "coarser");
    assert!(reset("{{schema:1 count:4 buckets:[1 2 1]}}", "{{count:4 buckets:[2 2]}}"), "coarser and less");
    assert!(reset(base, "{{count:9 z_bucket:1 z_bucket_w:0.1 buckets:[1 2 5]}}"), "narrower");
    assert!(!reset(base, "{{count:5 z_bucket:2 z_bucket_w:1 buckets:[0 2 1]}}"), "wider");
    assert!(reset(base, "{{count:5 z_bucket:1 z_bucket_w:1 buckets:[1 2 1]}}"), "wider and less");
    assert!(reset(base, "{{count:9 z_bucket:9 z_bucket_w:1.5 buckets:[0 9 1]}}"), "cuts a bucket");
    // Hints are believed.
    assert!(reset(base, "{{count:50 buckets:[50] counter_reset_hint:reset}}"));
    assert!(!reset(base, "{{count:1 counter_reset_hint:not_reset}}"));
    assert!(reset(base, "{{count:1 counter_reset_hint:gauge}}"));
    // Custom buckets.
    assert!(reset(base, "{{schema:-53 count:9 custom_values:[1] buckets:[9]}}"));
    assert!(reset("{{schema:-53 count:9 custom_values:[1] buckets:[9]}}", "{{count:9 buckets:[9]}}"));
    let nhcb = "{{schema:-53 count:15 custom_values:[2 4 6] buckets:[1 2 5 7]}}";
    assert!(reset(nhcb, "{{schema:-53 count:15 custom_values:[2 3 4 6] buckets:[1 0 1 5 8]}}"));
    assert!(!reset(nhcb, "{{schema:-53 count:15 custom_values:[2 3 4 6] buckets:[1 1 1 5 7]}}"));
    assert!(!reset(nhcb, "{{schema:-53 count:15 custom_values:[4] buckets:[3 12]}}"));
    assert!(reset(nhcb, "{{schema:-53 count:15 custom_values:[4] buckets:[4 11]}}"));
}

/// Histograms of observations: count and sum are theirs.
pub(super) fn observed() -> impl Strategy<Value = FloatHistogram> {
    let side = || (-8..12i32, prop::collection::vec(prop_oneof![Just(0u32), 1..50u32], 0..8));
    (-2..4i32, 0..3usize, 0..20u32, side(), side()).prop_map(|(schema, width, zero, positive, negative)| {
        let width = [0.0, 0.001, 0.7][width];
        let zero = if width == 0.0 { 0 } else { zero };
        let span = |(offset, counts): &(i32, Vec<u32>)| {
            // Above the zero bucket: indices from 1 on hold more than 1.
            vec![Span { offset: offset.rem_euclid(12) + 1, length: counts.len() as u32 }]
        };
        let buckets: Vec<f64> = positive.1.iter().chain(&negative.1).map(|count| f64::from(*count)).collect();
        let layout = Layout::new(schema, width, &span(&positive), &span(&negative), Vec::new()).unwrap();
        let numbers = Numbers {
            hint: CounterResetHint::Unknown,
            sum: f64::from(positive.0) * 3.5,
            count: buckets.iter().sum::<f64>() + f64::from(zero),
            zero_count: f64::from(zero),
            buckets,
        };
        FloatHistogram::from_numbers(Arc::new(layout), numbers).unwrap()
    })
}

fn custom() -> impl Strategy<Value = FloatHistogram> {
    let bounds = prop::collection::btree_set(-6..9i32, 0..6);
    (bounds, prop::collection::vec(0..30u32, 7)).prop_map(|(bounds, counts)| {
        let counts: Vec<f64> = counts.iter().take(bounds.len() + 1).map(|count| f64::from(*count)).collect();
        let span = Span { offset: 0, length: counts.len() as u32 };
        let bounds = bounds.iter().map(|bound| f64::from(*bound)).collect();
        let layout = Layout::new(CUSTOM_SCHEMA, 0.0, &[span], &[], bounds).unwrap();
        let count = counts.iter().sum();
        let numbers =
            Numbers { hint: CounterResetHint::Unknown, sum: 1.0, count, zero_count: 0.0, buckets: counts };
        FloatHistogram::from_numbers(Arc::new(layout), numbers).unwrap()
    })
}

fn bucketed(histogram: &FloatHistogram) -> f64 {
    histogram.zero_count() + histogram.buckets().iter().sum::<f64>()
}

/// Whether all that `histogram` has is within a layout that says so of itself.
fn valid(histogram: &FloatHistogram) -> bool {
    let layout = histogram.layout();
    let again = Layout::new(
        layout.schema(),
        layout.zero_threshold(),
        layout.positive_spans(),
        layout.negative_spans(),
        layout.custom_values().to_vec(),
    );
    again.is_ok_and(|again| again == **layout && again.len() == histogram.buckets().len())
}

proptest! {
    #[test]
    fn observations_are_neither_lost_nor_made(a in observed(), b in observed(), c in observed()) {
        let mut sum = a.clone();
        sum.add(&b).unwrap();
        prop_assert!(valid(&sum));
        prop_assert_eq!(sum.count(), a.count() + b.count());
        prop_assert_eq!(bucketed(&sum), sum.count());
        // The order does not matter, and many are summed as two are.
        let mut other = b.clone();
        other.add(&a).unwrap();
        prop_assert!(sum.close_to(&other, |a, b| a == b));
        sum.add(&c).unwrap();
        let mut compensated = HistogramSum::of(a.clone());
        compensated.add(&b).unwrap();
        compensated.add(&c).unwrap();
        let compensated = compensated.finish();
        prop_assert!(compensated.close_to(&sum, |a, b| a == b));
        let mut mean = HistogramMean::of(a);
        mean.add(&b).unwrap();
        mean.add(&c).unwrap();
        sum.divide(3.0);
        prop_assert!(mean.finish().close_to(&sum, |a, b| (a - b).abs() <= 1e-12 * b.abs()));
    }

    #[test]
    fn what_was_added_can_be_taken_away(a in observed(), b in observed()) {
        let mut sum = a.clone();
        sum.add(&b).unwrap();
        // A histogram after another one is no reset, whatever they have been brought down to.
        prop_assert!(!sum.is_reset_after(&a));
        prop_assert_eq!(a.is_reset_after(&sum), {
            let finer = a.layout().schema() > sum.layout().schema();
            let narrower = a.layout().zero_threshold() < sum.layout().zero_threshold();
            finer || narrower || bucketed(&b) > 0.0
        });
        sum.subtract(&b).unwrap();
        prop_assert_eq!(sum.count(), a.count());
        prop_assert_eq!(bucketed(&sum), bucketed(&a));
        if sum.layout().schema() == a.layout().schema()
            && sum.layout().zero_threshold() == a.layout().zero_threshold()
        {
            prop_assert!(sum.close_to(&a, |x, y| (x - y).abs() < 1e-9));
        }
    }

    #[test]
    fn custom_buckets_keep_what_lies_between_common_bounds(a in custom(), b in custom()) {
        let mut sum = a.clone();
        sum.add(&b).unwrap();
        prop_assert!(valid(&sum));
        prop_assert_eq!(bucketed(&sum), sum.count());
        let below = |histogram: &FloatHistogram, bound: f64| -> f64 {
            histogram.populated().filter(|bucket| bucket.upper <= bound).map(|bucket| bucket.count).sum()
        };
        for bound in sum.layout().custom_values() {
            prop_assert!(a.layout().custom_values().contains(bound) && b.layout().custom_values().contains(bound));
            prop_assert_eq!(below(&sum, *bound), below(&a, *bound) + below(&b, *bound));
        }
        prop_assert!(!sum.is_reset_after(&a));
    }

    #[test]
    fn resolutions_are_reduced_step_by_step_or_at_once(a in observed(), steps in 1..4i32) {
        let mut by_steps = a.clone();
        for step in 1..=steps {
            by_steps.reduce_to(a.layout().schema() - step);
        }
        let mut at_once = a.clone();
        at_once.reduce_to(a.layout().schema() - steps);
        prop_assert_eq!(&by_steps, &at_once);
        prop_assert_eq!(bucketed(&at_once), bucketed(&a));
    }
}
