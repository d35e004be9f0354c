//! From values to results.

use std::sync::Arc;

use chronolith_model::Labels;
use chronolith_syntax::text::lossy;

use super::{
    Data,
    names::{Unique, unify, without_metadata},
};
use crate::{
    api::{InstantSample, QueryError, RangeSeries, SampleValue, Value},
    series::{Grid, SeriesColumn, is_absent},
};

/// Takes off the names that were to go at the end.
///
/// # Errors
/// When that makes two series equal that have a value at the same step.
pub(crate) fn drop_names(mut vector: Vec<SeriesColumn>) -> Result<Vec<SeriesColumn>, QueryError> {
    for series in vector.iter_mut().filter(|series| series.drop_name) {
        series.labels = without_metadata(&series.labels);
        series.drop_name = false;
    }
    unify(vector)
}

/// The result of a query over `grid`; `range_query` results are matrices, sorted by labels.
///
/// # Errors
/// When two series have the same labels.
pub(crate) fn finish(data: Data, grid: Grid, range_query: bool, delayed: bool) -> Result<Value, QueryError> {
    let timestamp = grid.start;
    match data {
        Data::Text(value) => Ok(Value::String { timestamp, value: lossy(&value).into_owned() }),
        Data::Matrix(mut matrix) => {
            matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
            Ok(Value::Matrix(matrix))
        }
        Data::Scalar(values) if range_query => {
            let points = grid.times().zip(values).collect();
            Ok(Value::Matrix(vec![RangeSeries { labels: Labels::empty(), points, histograms: Vec::new() }]))
        }
        Data::Scalar(values) => {
            Ok(Value::Scalar { timestamp, value: values.first().copied().unwrap_or(f64::NAN) })
        }
        Data::Vector(vector) => {
            let vector = if delayed { drop_names(vector)? } else { vector };
            if range_query { matrix(vector, grid) } else { instant(&vector, timestamp) }
        }
    }
}

fn matrix(vector: Vec<SeriesColumn>, grid: Grid) -> Result<Value, QueryError> {
    let mut matrix: Vec<RangeSeries> = unify(vector)?
        .into_iter()
        .map(|series| points(series, grid))
        .filter(|series| !series.is_empty())
        .collect();
    matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(Value::Matrix(matrix))
}

/// The values of a series with the times of their steps.
pub(super) fn points(series: SeriesColumn, grid: Grid) -> RangeSeries {
    let SeriesColumn { labels, column, .. } = series;
    let values = grid.times().zip(column.values().iter().copied());
    let points = values.filter(|(_, v)| !is_absent(*v)).collect();
    let natives = column.lane().into_iter().flat_map(|lane| lane.iter());
    let histograms = natives.map(|(step, native)| (grid.time(step), Arc::clone(native))).collect();
    RangeSeries { labels, points, histograms }
}

fn instant(vector: &[SeriesColumn], timestamp: i64) -> Result<Value, QueryError> {
    let mut unique = Unique::default();
    let mut samples = Vec::with_capacity(vector.len());
    for series in vector {
        let float = series.column.get(0).map(SampleValue::Float);
        let histogram =
            || series.column.histogram(0).map(|native| SampleValue::Histogram(Arc::clone(native)));
        if let Some(value) = float.or_else(histogram) {
            unique.check(&series.labels)?;
            samples.push(InstantSample { labels: series.labels.clone(), timestamp, value });
        }
    }
    Ok(Value::Vector(samples))
}
