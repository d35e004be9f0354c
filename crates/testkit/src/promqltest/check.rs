//! Does a result meet the expectations?

use std::{collections::HashMap, sync::Arc};

use chronolith_model::{FloatHistogram, Labels, Timestamp, float::general, is_stale};
use chronolith_promql::{InstantSample, QueryResult, RangeSeries, SampleValue, Value};

use super::{
    script::{Expectations, ExpectedValue, Grid, TextMatch},
    series::{ScriptHistogram, SeriesLine, SeriesValue},
};

/// Relative difference up to which floats count as equal.
const EPSILON: f64 = 1e-6;

/// Whether two values count as equal: NaN is NaN, a stale marker only a stale marker, all else within a relative
/// difference of 1e-6.
#[must_use]
pub fn almost_equal(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

/// Checks warnings and infos.
pub(super) fn check_annotations(expect: &Expectations, result: &QueryResult) -> Result<(), String> {
    check_kind("warning", &expect.warn, expect.no_warn, &result.warnings)?;
    check_kind("info", &expect.info, expect.no_info, &result.infos)
}

fn check_kind(kind: &str, wanted: &[TextMatch], none: bool, actual: &[String]) -> Result<(), String> {
    if none && !actual.is_empty() {
        return Err(format!("expected no {kind}, got {actual:?}"));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let prefix = format!("PromQL {kind}: ");
    if let Some(foreign) = actual.iter().find(|text| !text.starts_with(&prefix)) {
        return Err(format!("{kind} without {prefix:?} in front: {foreign:?}"));
    }
    if let Some(missing) = wanted.iter().find(|want| !actual.iter().any(|text| want.matches(text))) {
        return Err(format!("expected {kind} {missing}, got {actual:?}"));
    }
    match actual.iter().find(|text| !wanted.iter().any(|want| want.matches(text))) {
        Some(surplus) => Err(format!("unexpected {kind} {surplus:?}")),
        None => Ok(()),
    }
}

/// Checks the value of an instant query.
pub(super) fn check_instant(expect: &Expectations, value: &Value) -> Result<(), String> {
    match (&expect.value, value) {
        (ExpectedValue::Scalar(want), Value::Scalar { value, .. }) => check_float("scalar", *want, *value),
        (ExpectedValue::String(want), Value::String { value, .. }) if want == value => Ok(()),
        (ExpectedValue::String(want), Value::String { value, .. }) => {
            Err(format!("expected string {want:?}, got {value:?}"))
        }
        (ExpectedValue::Series(want), Value::Vector(got)) => check_vector(want, got, expect.ordered),
        (ExpectedValue::Series(want), Value::Matrix(got)) => match expect.range_vector {
            Some(grid) => check_matrix(want, got, grid),
            None if want.is_empty() && got.is_empty() => Ok(()),
            None => Err("got a range vector without `expect range vector`".to_owned()),
        },
        (want, got) => Err(format!("expected {}, got {}", expected_kind(want), kind(got))),
    }
}

/// Checks the value of a range query.
pub(super) fn check_range(expect: &Expectations, value: &Value, grid: Grid) -> Result<(), String> {
    match (&expect.value, value) {
        (ExpectedValue::Series(want), Value::Matrix(got)) => check_matrix(want, got, grid),
        (want, got) => Err(format!("expected {} over time, got {}", expected_kind(want), kind(got))),
    }
}

/// Checks that the points of a range result at `time` are what an instant query at that time should give.
pub(super) fn check_range_at(expect: &Expectations, value: &Value, time: Timestamp) -> Result<(), String> {
    let Value::Matrix(matrix) = value else {
        return Err(format!("expected a range vector, got {}", kind(value)));
    };
    check_sorted(matrix)?;
    let vector: Vec<InstantSample> = matrix
        .iter()
        .filter_map(|series| {
            let point = series.points.iter().find(|(timestamp, _)| *timestamp == time);
            let histogram = || series.histograms.iter().find(|(timestamp, _)| *timestamp == time);
            let value = match point {
                Some((_, value)) => SampleValue::Float(*value),
                None => SampleValue::Histogram(Arc::clone(&histogram()?.1)),
            };
            Some(InstantSample { labels: series.labels.clone(), timestamp: time, value })
        })
        .collect();
    match (&expect.value, vector.as_slice()) {
        (ExpectedValue::Series(want), vector) => check_vector(want, vector, false),
        (ExpectedValue::Scalar(want), [one]) if one.labels.is_empty() => {
            check_value("scalar", &SeriesValue::Float(*want), &one.value)
        }
        (want, vector) => {
            Err(format!("expected {} at {time}, got {} series", expected_kind(want), vector.len()))
        }
    }
}

fn check_vector(want: &[SeriesLine], got: &[InstantSample], ordered: bool) -> Result<(), String> {
    let mut missing: HashMap<&Labels, (usize, &SeriesLine)> =
        want.iter().enumerate().map(|(position, line)| (&line.labels, (position, line))).collect();
    for (position, sample) in got.iter().enumerate() {
        let labels = &sample.labels;
        let Some((expected_position, line)) = missing.remove(labels) else {
            let twice = want.iter().any(|line| line.labels == *labels);
            let what = if twice { "duplicate" } else { "unexpected" };
            return Err(format!("{what} series {labels} with value {}", show_value(&sample.value)));
        };
        if ordered && position != expected_position {
            return Err(format!(
                "{labels} at position {}, expected at {}",
                position + 1,
                expected_position + 1
            ));
        }
        let want = line.values.first().unwrap_or(&SeriesValue::Missing);
        check_value(&labels.to_string(), want, &sample.value)?;
    }
    match missing.values().min_by_key(|(position, _)| *position) {
        Some((_, line)) => {
            Err(format!("expected series {} is missing ({} missing)", line.labels, missing.len()))
        }
        None => Ok(()),
    }
}

fn check_matrix(want: &[SeriesLine], got: &[RangeSeries], grid: Grid) -> Result<(), String> {
    check_sorted(got)?;
    let mut missing: HashMap<&Labels, &SeriesLine> = want.iter().map(|line| (&line.labels, line)).collect();
    for series in got {
        let labels = &series.labels;
        let line = missing
            .remove(labels)
            .ok_or_else(|| format!("unexpected series {labels}: {}", show_values(&values_of(series))))?;
        check_points(line, series, grid)?;
    }
    match missing.keys().min() {
        Some(labels) => Err(format!("expected series {labels} is missing ({} missing)", missing.len())),
        None => Ok(()),
    }
}

fn check_points(line: &SeriesLine, series: &RangeSeries, grid: Grid) -> Result<(), String> {
    let labels = &series.labels;
    let times = (0..).map(|i| grid.start + i * grid.step);
    let mut want = Vec::new();
    for (time, value) in times.zip(&line.values) {
        if time > grid.end {
            return Err(format!("{labels}: more values are expected than the query has steps"));
        }
        if *value != SeriesValue::Missing {
            want.push((time, value));
        }
    }
    let got = values_of(series);
    if want.len() != got.len() {
        let want: Vec<i64> = want.iter().map(|(time, _)| *time).collect();
        return Err(format!(
            "{labels}: expected {} points at {want:?}, got {}",
            want.len(),
            show_values(&got)
        ));
    }
    for ((want_time, want), (time, value)) in want.iter().zip(&got) {
        if want_time != time {
            return Err(format!("{labels}: expected a point at {want_time}, got one at {time}"));
        }
        check_value(&format!("{labels} at {time}"), want, value)?;
    }
    Ok(())
}

/// The values of both kinds by time.
fn values_of(series: &RangeSeries) -> Vec<(Timestamp, SampleValue)> {
    let floats = series.points.iter().map(|(time, value)| (*time, SampleValue::Float(*value)));
    let histograms =
        series.histograms.iter().map(|(time, value)| (*time, SampleValue::Histogram(Arc::clone(value))));
    let mut values: Vec<_> = floats.chain(histograms).collect();
    values.sort_by_key(|(time, _)| *time);
    values
}

fn show_values(values: &[(Timestamp, SampleValue)]) -> String {
    let shown = values.iter().map(|(time, value)| format!("{}@{time}", show_value(value)));
    shown.collect::<Vec<_>>().join(" ")
}

fn show_value(value: &SampleValue) -> String {
    match value {
        SampleValue::Float(value) => show(*value),
        SampleValue::Histogram(histogram) => histogram.to_literal(),
    }
}

fn check_value(what: &str, want: &SeriesValue, got: &SampleValue) -> Result<(), String> {
    match (want, got) {
        (SeriesValue::Float(want), SampleValue::Float(got)) => check_float(what, *want, *got),
        (SeriesValue::Histogram(want), SampleValue::Histogram(got)) => check_histogram(what, want, got),
        (SeriesValue::Float(want), got) => {
            Err(format!("{what}: expected {}, got {}", show(*want), show_value(got)))
        }
        (SeriesValue::Histogram(want), got) => {
            Err(format!("{what}: expected {}, got {}", want.histogram.to_literal(), show_value(got)))
        }
        (SeriesValue::Missing, _) => Err(format!("no value is expected for {what}")),
    }
}

fn check_histogram(what: &str, want: &ScriptHistogram, got: &FloatHistogram) -> Result<(), String> {
    let same_hint = !want.hint_given || want.histogram.hint() == got.hint();
    if same_hint && want.histogram.close_to(got, almost_equal) {
        return Ok(());
    }
    Err(format!("{what}: expected {}, got {}", want.histogram.to_literal(), got.to_literal()))
}

fn check_sorted(matrix: &[RangeSeries]) -> Result<(), String> {
    match matrix.windows(2).find(|pair| pair[0].labels >= pair[1].labels) {
        Some(pair) => {
            Err(format!("range result is not sorted: {} before {}", pair[0].labels, pair[1].labels))
        }
        None => Ok(()),
    }
}

fn check_float(what: &str, want: f64, got: f64) -> Result<(), String> {
    if almost_equal(want, got) {
        return Ok(());
    }
    Err(format!("{what}: expected {}, got {}", show(want), show(got)))
}

fn show(value: f64) -> String {
    if is_stale(value) { "stale".to_owned() } else { general(value) }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Scalar { .. } => "a scalar",
        Value::String { .. } => "a string",
        Value::Vector(_) => "an instant vector",
        Value::Matrix(_) => "a range vector",
    }
}

fn expected_kind(value: &ExpectedValue) -> &'static str {
    match value {
        ExpectedValue::Scalar(_) => "a scalar",
        ExpectedValue::String(_) => "a string",
        ExpectedValue::Series(_) => "series",
    }
}
