use std::{sync::Arc, time::Duration};

use chronolith_model::histogram::HistogramLiteral;
use chronolith_syntax::ast::Span;

use super::*;
use crate::{annotations::Annotations, api::CancelToken, series::ABSENT};

const SPANS: [Span; 3] =
    [Span { start: 19, end: 22 }, Span { start: 24, end: 25 }, Span { start: 30, end: 31 }];

fn context(delayed: bool) -> KernelContext<'static> {
    KernelContext {
        notes: Annotations::default(),
        span: Span::default(),
        args: &SPANS,
        labels: None,
        delayed_name_removal: delayed,
        type_and_unit_labels: false,
    }
}

fn histogram(name: &str, buckets: &[(&str, &[f64])]) -> Vec<SeriesColumn> {
    buckets
        .iter()
        .map(|(le, counts)| SeriesColumn {
            labels: Labels::from_pairs([("__name__", name), ("le", le), ("job", "a")]),
            drop_name: false,
            column: Column::from_values(counts.to_vec()),
        })
        .collect()
}

fn grid(count: usize) -> Grid {
    Grid { start: 60_000, step: 60_000, count }
}

fn going_on() -> Interrupt {
    Interrupt::new(CancelToken::default(), Duration::from_secs(600))
}

fn quantiles(
    grid: &Grid,
    q: &[f64],
    series: Vec<SeriesColumn>,
    context: &mut KernelContext<'_>,
) -> Vec<SeriesColumn> {
    histogram_quantile(grid, q, series, &going_on(), context).expect("nobody cancels")
}

const HB: &[(&str, &[f64])] = &[("0.1", &[1.0]), ("0.5", &[5.0]), ("1", &[9.0]), ("+Inf", &[10.0])];
const HN: &[(&str, &[f64])] = &[("-1", &[2.0]), ("0", &[6.0]), ("+Inf", &[10.0])];
const HX: &[(&str, &[f64])] = &[("1", &[5.0]), ("2", &[3.0]), ("+Inf", &[10.0])];

#[track_caller]
fn quantile(q: f64, buckets: &[(&str, &[f64])]) -> f64 {
    let mut context = context(false);
    let out = quantiles(&grid(1), &[q], histogram("h_bucket", buckets), &mut context);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].labels.to_string(), r#"{job="a"}"#);
    out[0].column.values()[0]
}

#[test]
fn golden_quantiles() {
    for (q, expected) in [(0.5, 0.5), (0.05, 0.05), (0.95, 1.0), (1.0, 1.0), (0.0, 0.0)] {
        assert_eq!(quantile(q, HB), expected, "{q}");
    }
    assert_eq!(quantile(0.1, HN), -1.0);
    assert_eq!(quantile(0.3, HN), -0.75);
    assert_eq!(quantile(0.5, HX), 1.0);
    assert_eq!(quantile(0.9, HX), 2.0);
    assert!(quantile(0.5, &HB[..3]).is_nan(), "no infinite bucket");
    assert!(quantile(0.5, &HB[3..]).is_nan(), "only one bucket");
    assert!(quantile(0.5, &[("1", &[0.0]), ("+Inf", &[0.0])]).is_nan(), "nothing observed");
    assert!(quantile(f64::NAN, HB).is_nan());
    assert_eq!(quantile(-0.1, HB), f64::NEG_INFINITY);
    assert_eq!(quantile(1.1, &HB[..1]), f64::INFINITY);
}

#[test]
fn equal_bounds_add_up() {
    assert_eq!(quantile(0.5, &[("1", &[1.0]), ("+Inf", &[10.0]), ("1.0", &[4.0]), ("2", &[8.0])]), 1.0);
}

#[test]
fn rounding_is_evened_out_silently() {
    let mut context = context(false);
    let series = histogram("h", &[("1", &[100.0]), ("2", &[99.999_999_999_99]), ("+Inf", &[100.0])]);
    let out = quantiles(&grid(1), &[0.99], series, &mut context);
    assert_eq!(out[0].column.get(0), Some(0.99));
    assert_eq!(context.notes.render("").1, [""; 0]);
}

#[test]
fn corrections_of_all_steps_are_one_info() {
    let series = histogram(
        "h",
        &[
            ("1", &[5.0, 1.0, ABSENT, 7.0]),
            ("2", &[3.0, 2.0, ABSENT, 6.5]),
            ("3", &[5.0, 3.0, ABSENT, 4.0]),
            ("+Inf", &[10.0, 4.0, ABSENT, 10.0]),
        ],
    );
    let text = |delayed: bool, series| {
        let mut context = context(delayed);
        let out = quantiles(&grid(4), &[0.5; 4], series, &mut context);
        assert_eq!(out[0].column.get(2), None);
        assert_eq!(out[0].drop_name, delayed);
        let (warnings, infos) = context.notes.render("histogram_quantile(0.5, h)");
        assert!(warnings.is_empty());
        infos.join("|")
    };
    let details = ", from buckets 2 to 3, with a max diff of 3, over 2 samples from 1970-01-01T00:01:00Z to \
                   1970-01-01T00:04:00Z (1:25)";
    let start = "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
                 https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
    // Where names are dropped at once nobody knows them any more.
    assert_eq!(text(false, series.clone()), format!("{start}{details}"));
    assert_eq!(text(true, series), format!("{start} for metric name \"h\"{details}"));
}

#[test]
fn unreadable_bounds_and_quantiles_warn() {
    for bad in ["", "abc", "1e400", "1_0"] {
        let mut context = context(true);
        let mut series = histogram("h", HB);
        series.extend(histogram("h", &[(bad, &[1.0])]));
        series.extend(histogram("h", &[("unused", &[ABSENT])]));
        let out = quantiles(&grid(1), &[2.0], series, &mut context);
        assert_eq!((out.len(), out[0].column.get(0)), (1, Some(f64::INFINITY)));
        assert_eq!(
            context.notes.render("histogram_quantile(2.0, h)").0,
            [
                "PromQL warning: quantile value should be between 0 and 1, got 2 (1:20)".to_owned(),
                format!(
                    "PromQL warning: bucket label \"le\" is missing or has a malformed value of \"{bad}\" for metric name \"h\" (1:25)"
                ),
            ]
        );
    }
    let mut context = context(false);
    assert!(quantiles(&grid(1), &[f64::NAN], Vec::new(), &mut context).is_empty());
    assert_eq!(context.notes.render("").0.len(), 1, "even without data");
}

#[test]
fn histograms_in_the_order_of_their_first_series() {
    let mut series = histogram("z", HB);
    series.extend(histogram("a", HN));
    series.rotate_left(1);
    let out = quantiles(&grid(1), &[0.5], series, &mut context(true));
    let names: Vec<_> = out.iter().map(|s| s.labels.metric_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["z", "a"]);
    assert_eq!(out[0].column.get(0), Some(0.5));
}

#[test]
fn fractions() {
    let inf = f64::INFINITY;
    let fraction = |lower: f64, upper: f64, buckets| {
        let series = histogram("h", buckets);
        let out = histogram_fraction(&grid(1), &[lower], &[upper], series, &going_on(), &mut context(false))
            .expect("nobody cancels");
        out[0].column.values()[0]
    };
    for (lower, upper, buckets, expected) in [
        (0.0, 0.3, HB, 0.3),
        (0.1, 0.5, HB, 0.4),
        (-inf, inf, HB, 1.0),
        (0.5, 0.5, HB, 0.0),
        (2.0, 1.0, HB, 0.0),
        (1.0, 2.0, HB, 0.0),
        (0.75, inf, HB, 0.3),
        (-inf, -0.5, HN, 0.4),
        (-5.0, 0.0, HN, 0.4),
        (-inf, 0.0, HN, 0.6),
    ] {
        let got: f64 = fraction(lower, upper, buckets);
        assert!((got - expected).abs() < 1e-15, "{lower} {upper}: {got}, not {expected}");
    }
    assert!(fraction(f64::NAN, 1.0, HB).is_nan());
    assert!(fraction(0.0, 1.0, &HB[..2]).is_nan());
}

/// A native histogram at the steps where there is a literal.
fn natives(labels: &[(&str, &str)], steps: &[Option<&str>]) -> SeriesColumn {
    let mut column = Column::absent(steps.len());
    for (step, literal) in steps.iter().enumerate() {
        if let Some(literal) = literal {
            let literal = HistogramLiteral::parse(literal).expect("a valid literal");
            column.set_histogram(step, Arc::new(literal.histogram));
        }
    }
    SeriesColumn { labels: Labels::from_pairs(labels.iter().copied()), drop_name: false, column }
}

#[test]
fn a_histogram_in_both_forms_has_no_quantile_where_they_meet() {
    const ONE: &str = "{{count:4 sum:5 buckets:[0 4]}}";
    let name = [("__name__", "h"), ("job", "a")];
    let buckets: &[(&str, &[f64])] = &[("2", &[4.0, 4.0, ABSENT]), ("+Inf", &[4.0, 4.0, ABSENT])];
    for (delayed, metric) in [(false, ""), (true, " for metric name \"h\"")] {
        let mut series = histogram("h", buckets);
        series.push(natives(&name, &[None, Some(ONE), Some(ONE)]));
        let mut context = context(delayed);
        let out = quantiles(&grid(3), &[1.0; 3], series, &mut context);
        assert_eq!(out.len(), 1);
        assert_eq!(
            (out[0].column.get(0), out[0].column.get(1), out[0].column.get(2)),
            (Some(2.0), None, Some(2.0))
        );
        assert!(out[0].column.lane().is_none());
        let text = "PromQL warning: vector contains a mix of classic and native histograms";
        assert_eq!(context.notes.render("histogram_quantile(1.0, h)").0, [format!("{text}{metric} (1:25)")]);
    }
}

#[test]
fn observations_that_are_no_numbers_are_told_of() {
    let series = || vec![natives(&[("__name__", "h")], &[Some("{{count:4 sum:NaN buckets:[2]}}")])];
    let mut told = context(true);
    assert!(quantiles(&grid(1), &[0.9], series(), &mut told)[0].column.values()[0].is_nan());
    quantiles(&grid(1), &[0.1], series(), &mut told);
    histogram_fraction(&grid(1), &[0.0], &[1.0], series(), &going_on(), &mut told).expect("nobody cancels");
    let infos = told.notes.render("histogram_quantile(0.9, h)").1;
    assert_eq!(infos.len(), 3, "{infos:?}");
    assert!(infos[0].ends_with("result is NaN for metric name \"h\" (1:25)"), "{}", infos[0]);
    assert!(infos[1].ends_with("result is skewed higher for metric name \"h\" (1:25)"), "{}", infos[1]);
    assert!(infos[2].contains("excluded from all fractions for metric name \"h\""), "{}", infos[2]);
}
