//! Quantiles, fractions, variances; cutting off.

use proptest::prelude::*;

use super::super::*;
use super::algebra::{literal, observed};

fn close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * (a.abs() + b.abs())
}

#[track_caller]
fn quantiles(text: &str, want: &[(f64, f64)]) {
    let histogram = literal(text);
    for (q, want) in want {
        let (got, nan) = histogram.quantile(*q);
        assert!(close(got, *want), "quantile {q}: {got}, not {want}");
        assert_eq!(nan, NanObservations::None);
    }
}

#[track_caller]
fn fractions(text: &str, want: &[(f64, f64, f64)]) {
    let histogram = literal(text);
    for (lower, upper, want) in want {
        let (got, nan) = histogram.fraction(*lower, *upper);
        assert!(close(got, *want), "fraction {lower} to {upper}: {got}, not {want}");
        assert!(!nan);
    }
}

const INF: f64 = f64::INFINITY;

#[test]
fn quantiles_are_interpolated() {
    quantiles(
        "{{count:12 sum:100 z_bucket:2 z_bucket_w:0.001 buckets:[2 3 0 1 4]}}",
        &[
            (1.001, INF),
            (-0.1, -INF),
            (1.0, 16.0),
            (0.99, 15.67072476139083),
            (0.6, 4.594793419988138),
            (0.1, 0.0006),
            (0.0, 0.0),
            (f64::NAN, f64::NAN),
        ],
    );
    quantiles(
        "{{count:12 sum:100 z_bucket:2 z_bucket_w:0.001 n_buckets:[2 3 0 1 4]}}",
        &[(1.0, 0.0), (0.99, -0.00006), (0.5, -1.5874010519681996), (0.1, -12.996038341699768), (0.0, -16.0)],
    );
    quantiles(
        "{{count:24 sum:100 z_bucket:4 z_bucket_w:0.001 buckets:[2 3 0 1 4] n_buckets:[2 3 0 1 4]}}",
        &[(0.9, 10.556063286183155), (0.55, 0.0006), (0.5, 0.0), (0.45, -0.0006), (0.3, -1.2030250360821169)],
    );
    quantiles("{{}}", &[(0.5, f64::NAN), (2.0, INF)]);
    // Half of all below zero: the lower end of the first bucket behind the gap.
    quantiles("{{count:8 buckets:[1 2 1] n_buckets:[1 2 1]}}", &[(0.5, 0.5)]);
}

#[test]
fn quantiles_of_custom_buckets_are_linear() {
    quantiles(
        "{{schema:-53 sum:5 count:4 custom_values:[5 10] buckets:[1 2 1]}}",
        &[(0.5, 7.5), (0.1, 2.0), (0.0, 0.0), (0.9, 10.0), (1.0, 10.0)],
    );
    quantiles("{{schema:-53 count:4 custom_values:[-5 10] buckets:[2 2]}}", &[(0.25, -5.0), (0.75, 2.5)]);
    // It may begin below zero where its neighbour does.
    quantiles("{{schema:-53 count:2 custom_values:[-2 2] buckets:[0 2 0]}}", &[(0.5, 0.0), (0.25, -1.0)]);
}

#[test]
fn observations_that_are_no_numbers_are_above_all() {
    let all = literal("{{count:3 sum:NaN}}");
    let some = literal("{{count:15 sum:NaN buckets:[12]}}");
    for q in [0.4, 0.8, 1.0] {
        let (value, nan) = all.quantile(q);
        assert!(value.is_nan() && nan == NanObservations::Result);
    }
    assert_eq!(some.quantile(0.81).1, NanObservations::Result);
    assert_eq!(some.quantile(0.8), (1.0, NanObservations::SkewHigher));
    let (value, nan) = some.quantile(0.4);
    assert!(close(value, 0.5f64.sqrt()) && nan == NanObservations::SkewHigher);
    // Opposite infinities have no sum either.
    let infinities = literal("{{count:12 sum:NaN buckets:[12]}}");
    assert_eq!(infinities.quantile(1.0), (1.0, NanObservations::None));
    assert_eq!(infinities.fraction(0.0, 1.0), (1.0, false));
    // The bucket that the quantile falls into is the one it is interpolated in.
    let several = literal("{{count:20 sum:NaN buckets:[8 4 4]}}");
    assert_eq!(several.quantile(0.6), (2.0, NanObservations::SkewHigher));
    assert_eq!(some.fraction(-INF, INF), (0.8, true));
    assert_eq!(all.fraction(-INF, INF), (0.0, true));
    let (value, nan) = some.fraction(-INF, 0.5f64.sqrt());
    assert!(close(value, 0.4) && nan);
}

#[test]
fn fractions_are_interpolated() {
    fractions(
        "{{count:12 sum:100 z_bucket:2 z_bucket_w:0.001 buckets:[2 3 0 1 4]}}",
        &[
            (0.0, INF, 1.0),
            (-INF, 0.0, 0.0),
            (0.0, 0.0005, 0.08333333333333333),
            (0.001, INF, 0.8333333333333334),
            (1.0, 2.0, 0.25),
            (1.5, 6.0, 0.15250624987980724),
            (-8.0, -1.0, 0.0),
            (42.0, 3.5, 0.0),
            (42.0, 42.0, 0.0),
            (f64::NAN, 42.0, f64::NAN),
            (-INF, INF, 1.0),
        ],
    );
    fractions(
        "{{count:12 sum:100 z_bucket:2 z_bucket_w:0.001 n_buckets:[2 3 0 1 4]}}",
        &[
            (-0.0005, 0.0, 0.08333333333333333),
            (-2.0, -1.5, 0.10375937481971091),
            (-INF, -6.0, 0.36791979160657035),
        ],
    );
    fractions(
        "{{schema:-53 sum:172.5 count:15 custom_values:[5 10 15 20] buckets:[1 6 4 3 1]}}",
        &[(-INF, 13.0, 9.4 / 15.0), (13.0, INF, 5.6 / 15.0), (0.0, 2.5, 0.5 / 15.0), (20.0, 99.0, 0.0)],
    );
    fractions(
        "{{schema:-53 count:4 custom_values:[-5 10] buckets:[2 2]}}",
        &[(-INF, -7.0, 0.5), (-INF, 10.0, 1.0)],
    );
    fractions("{{}}", &[(0.0, 8.0, f64::NAN)]);
}

#[test]
fn variances_take_the_middle_of_buckets() {
    let deviation = |text| literal(text).variance().sqrt();
    assert!(close(deviation("{{schema:2 count:4 sum:10 buckets:[1 0 0 0 1 0 0 1 1]}}"), 1.0787993180043811));
    assert!(close(deviation("{{schema:8 count:10 sum:10 buckets:[1 2 3 4]}}"), 0.0048960313898237465));
    assert!(close(
        literal("{{schema:0 count:10 sum:-112946 n_buckets:[0 0 1 1 1 0 1 1 0 0 3 0 0 0 1 0 0 1]}}")
            .variance(),
        759352122.1939945
    ));
    // 2.5 and 7.5 once each around 5.
    assert!(close(
        literal("{{schema:-53 count:2 sum:10 custom_values:[0 5 10] buckets:[0 1 1]}}").variance(),
        6.25
    ));
    assert!(close(literal("{{count:4 sum:0 z_bucket:4 z_bucket_w:0.5}}").variance(), 0.0));
    assert!(literal("{{}}").variance().is_nan() && literal("{{}}").mean().is_nan());
}

#[test]
fn buckets_come_in_order_with_their_ends() {
    let shown = |text: &str| -> Vec<String> {
        literal(text).populated().map(|bucket| format!("{} {bucket}", bucket.boundary_rule())).collect()
    };
    assert_eq!(
        shown("{{count:9 z_bucket:2 z_bucket_w:0.75 buckets:[1 0 3] n_buckets:[0 3 4]}}"),
        ["1 [-4,-2):4", "1 [-2,-1):3", "3 [-0.75,0.75]:2", "0 (0.75,1]:1", "0 (2,4]:3"]
    );
    assert_eq!(
        shown("{{schema:-53 count:9 custom_values:[-1 2] buckets:[1 2 3]}}"),
        ["3 [-Inf,-1]:1", "0 (-1,2]:2", "0 (2,+Inf]:3"]
    );
    assert!(shown("{{count:3 z_bucket:-1 z_bucket_w:1 buckets:[0]}}").is_empty());
}

#[track_caller]
fn upper(histogram: &str, limit: f64, want: &str) {
    let mut trimmed = literal(histogram);
    trimmed.trim_upper(limit);
    assert!(trimmed.close_to(&literal(want), close), "{histogram} </ {limit}: {}", trimmed.to_literal());
}

#[track_caller]
fn lower(histogram: &str, limit: f64, want: &str) {
    let mut trimmed = literal(histogram);
    trimmed.trim_lower(limit);
    assert!(trimmed.close_to(&literal(want), close), "{histogram} >/ {limit}: {}", trimmed.to_literal());
}

#[test]
fn exponential_buckets_are_cut_off() {
    let h = "{{sum:123.75 count:34 z_bucket:1 z_bucket_w:0.001 buckets:[2 4 8 16] n_buckets:[1 2]}}";
    upper(h, INF, h);
    lower(h, -INF, h);
    upper(h, -INF, "{{z_bucket_w:0.001}}");
    lower(h, INF, "{{z_bucket_w:0.001}}");
    lower(h, 0.0, "{{sum:120.20840280171308 count:30.5 z_bucket:0.5 z_bucket_w:0.001 buckets:[2 4 8 16]}}");
    upper(h, 0.0, "{{sum:-3.53578390593273768 count:3.5 z_bucket:0.5 z_bucket_w:0.001 n_buckets:[1 2]}}");
    upper(
        h,
        2.0,
        "{{count:10 sum:3.5355339059327373 z_bucket:1 z_bucket_w:0.001 buckets:[2 4] n_buckets:[1 2]}}",
    );
    lower(
        h,
        -1.0,
        "{{count:32 sum:119.50104602052653 z_bucket:1 z_bucket_w:0.001 buckets:[2 4 8 16] n_buckets:[1]}}",
    );
    let root = 2f64.sqrt();
    // Half of the observations between 1 and 2; the rest is in the middle between its ends.
    let (below, above) = ((1.0 * root).sqrt(), (root * 2.0).sqrt());
    let whole = 2.0 * 0.5f64.sqrt() - 0.5f64.sqrt() - 2.0 * root;
    upper(
        h,
        root,
        &format!(
            "{{{{count:8 sum:{} z_bucket:1 z_bucket_w:0.001 buckets:[2 2] n_buckets:[1 2]}}}}",
            whole + 2.0 * below
        ),
    );
    let rest = 8.0 * 8f64.sqrt() + 16.0 * 32f64.sqrt();
    lower(
        h,
        root,
        &format!("{{{{count:26 sum:{} z_bucket_w:0.001 buckets:[0 2 8 16]}}}}", rest + 2.0 * above),
    );
}

#[test]
fn zero_buckets_are_cut_off() {
    let positive = "{{sum:8 count:12 z_bucket:2 z_bucket_w:0.5 buckets:[10]}}";
    lower(positive, 0.1, "{{count:11.6 sum:7.551067811865476 z_bucket:1.6 z_bucket_w:0.5 buckets:[10]}}");
    upper(positive, 0.1, "{{count:0.4 sum:0.02 z_bucket:0.4 z_bucket_w:0.5}}");
    lower(positive, 0.0, positive);
    let negative = "{{sum:-8 count:12 z_bucket:2 z_bucket_w:0.5 n_buckets:[10]}}";
    upper(negative, -0.1, "{{count:11.6 sum:-7.551067811865476 z_bucket:1.6 z_bucket_w:0.5 n_buckets:[10]}}");
    upper(negative, 0.0, negative);
    let alone = "{{count:5 sum:0 z_bucket:5 z_bucket_w:0.1}}";
    lower(alone, 0.05, "{{count:1.25 sum:0.09375 z_bucket:1.25 z_bucket_w:0.1}}");
    upper(alone, -0.1, "{{z_bucket_w:0.1}}");
    upper(alone, 0.1, alone);
}

#[test]
fn custom_buckets_are_cut_off() {
    let h = "{{schema:-53 sum:172.5 count:15 custom_values:[5 10 15 20] buckets:[1 6 4 3 1]}}";
    upper(h, 15.0, "{{schema:-53 count:11 sum:97.5 custom_values:[5 10 15 20] buckets:[1 6 4]}}");
    lower(h, 13.0, "{{schema:-53 count:5.6 sum:94.9 custom_values:[5 10 15 20] offset:2 buckets:[1.6 3 1]}}");
    upper(h, 50.0, "{{schema:-53 count:14 sum:150 custom_values:[5 10 15 20] buckets:[1 6 4 3]}}");
    upper(h, 0.0, "{{schema:-53 custom_values:[5 10 15 20]}}");
    lower(h, 0.0, h);
    upper("{{schema:-53 sum:100 count:100 buckets:[100]}}", 10.0, "{{schema:-53}}");
    let negative = "{{schema:-53 sum:33 count:101 custom_values:[-5] buckets:[1 100]}}";
    upper(negative, -10.0, "{{schema:-53 sum:-10 count:1 custom_values:[-5] buckets:[1]}}");
    lower(negative, -2.0, "{{schema:-53 sum:-200 count:100 custom_values:[-5] buckets:[0 100]}}");
    let positive = "{{schema:-53 sum:33 count:101 custom_values:[5] buckets:[1 100]}}";
    upper(positive, 2.0, "{{schema:-53 sum:0.4 count:0.4 custom_values:[5] buckets:[0.4]}}");
    lower(positive, 2.0, "{{schema:-53 sum:502.1 count:100.6 custom_values:[5] buckets:[0.6 100]}}");
}

proptest! {
    #[test]
    fn quantiles_rise(h in observed(), a in 0.0..=1.0f64, b in 0.0..=1.0f64) {
        prop_assume!(h.count() > 0.0);
        let (low, high) = (h.quantile(a.min(b)).0, h.quantile(a.max(b)).0);
        prop_assert!(low <= high + 1e-9 * high.abs(), "{low} {high}");
    }

    #[test]
    fn fractions_invert_quantiles(h in observed(), q in 0.001..=0.999f64) {
        prop_assume!(h.count() > 0.0);
        let (value, _) = h.quantile(q);
        // Between buckets a value stands for all ranks of the gap before it; else they are each other's inverse.
        let (below, _) = h.fraction(f64::NEG_INFINITY, value);
        let (again, _) = h.quantile(below.clamp(0.0, 1.0));
        prop_assert!((below - q).abs() < 1e-9 || (again - value).abs() <= 1e-6 * value.abs(), "{value} {below} {again}");
    }

    #[test]
    fn what_is_cut_off_is_the_fraction(h in observed(), limit in -20.0..20.0f64) {
        prop_assume!(h.count() > 0.0);
        // For fractions an empty bucket is a reason to have the zero bucket on both sides of zero.
        let mut h = h;
        h.compact();
        let (mut below, mut above) = (h.clone(), h.clone());
        below.trim_upper(limit);
        above.trim_lower(limit);
        prop_assert!((below.count() + above.count() - h.count()).abs() < 1e-9 * h.count());
        let (fraction, _) = h.fraction(f64::NEG_INFINITY, limit);
        // Where the zero bucket reaches into its neighbours, that ends earlier for fractions alone.
        prop_assert!((fraction * h.count() - below.count()).abs() < 1e-9 * h.count());
    }

    #[test]
    fn coarser_quantiles_stay_within_the_coarser_bucket(h in observed(), q in 0.0..=1.0f64) {
        prop_assume!(h.count() > 0.0 && h.zero_count() == 0.0);
        let mut coarse = h.clone();
        coarse.reduce_to(h.layout().schema() - 1);
        let (fine, coarse_value) = (h.quantile(q).0, coarse.quantile(q).0);
        prop_assume!(fine != 0.0 && coarse_value.signum() == fine.signum());
        let width = 2f64.powf(2f64.powi(1 - h.layout().schema()));
        let ratio = fine / coarse_value;
        prop_assert!(ratio <= width * 1.000001 && ratio >= 1.0 / width / 1.000001, "{fine} {coarse_value}");
    }
}
