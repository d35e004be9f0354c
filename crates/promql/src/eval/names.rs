//! Metric names go away, and what became equal is merged or refused.

use std::sync::Arc;

use chronolith_model::{Labels, METRIC_NAME, METRIC_TYPE, METRIC_UNIT};
use hashbrown::{HashMap, HashSet};

use crate::{
    api::QueryError,
    series::{Column, SeriesColumn, is_absent},
};

/// Labels that describe the metric, not the thing measured: operators that make something else of it remove them.
const METADATA: [&str; 3] = [METRIC_NAME, METRIC_TYPE, METRIC_UNIT];

/// `labels` without name, type and unit.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    labels.retain(|name| !METADATA.contains(&name))
}

/// Whether more than the name goes.
pub(crate) fn has_type_or_unit(labels: &Labels) -> bool {
    labels.iter().any(|(name, _)| METADATA[1..].contains(&name))
}

/// Prometheus' refusal of two series with the same labels.
pub(crate) fn same_labelset() -> QueryError {
    QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned())
}

/// Takes the name off series, now or at the end of the query.
pub(crate) fn drop_name(series: &mut SeriesColumn, delayed: bool) {
    if delayed {
        series.drop_name = true;
    } else {
        series.labels = without_metadata(&series.labels);
    }
}

/// The same for operators that leave type and unit.
pub(crate) fn drop_only_name(series: &mut SeriesColumn, delayed: bool) {
    if delayed {
        series.drop_name = true;
    } else {
        series.labels = series.labels.without(METRIC_NAME);
    }
}

/// Refuses series whose labels were seen before.
#[derive(Debug, Default)]
pub(crate) struct Unique {
    seen: HashSet<Labels>,
}

impl Unique {
    /// # Errors
    /// When `labels` was here already.
    pub(crate) fn check(&mut self, labels: &Labels) -> Result<(), QueryError> {
        if self.seen.insert(labels.clone()) { Ok(()) } else { Err(same_labelset()) }
    }
}

/// Makes one series of those with equal labels, at the place of the first.
///
/// # Errors
/// When two of them have a value at the same step.
pub(crate) fn unify(vector: Vec<SeriesColumn>) -> Result<Vec<SeriesColumn>, QueryError> {
    if vector.len() < 2 {
        return Ok(vector);
    }
    let mut places: HashMap<Labels, usize> = HashMap::with_capacity(vector.len());
    let mut merged: Vec<SeriesColumn> = Vec::with_capacity(vector.len());
    for series in vector {
        if let Some(place) = places.get(&series.labels) {
            merge(&mut merged[*place].column, series.column)?;
        } else {
            places.insert(series.labels.clone(), merged.len());
            merged.push(series);
        }
    }
    Ok(merged)
}

fn merge(into: &mut Column, mut from: Column) -> Result<(), QueryError> {
    if into.lane().is_some() || from.lane().is_some() {
        if (0..into.len()).any(|step| into.has(step) && from.has(step)) {
            return Err(same_labelset());
        }
        for (step, native) in from.take_lane().iter().flat_map(|lane| lane.iter()) {
            into.set_histogram(step, Arc::clone(native));
        }
    }
    for (to, value) in into.values_mut().iter_mut().zip(from.values()) {
        if is_absent(*value) {
            continue;
        }
        if !is_absent(*to) {
            return Err(same_labelset());
        }
        *to = *value;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::ABSENT;

    fn series(label: &str, values: &[f64]) -> SeriesColumn {
        SeriesColumn {
            labels: Labels::from_pairs([("a", label)]),
            drop_name: false,
            column: Column::from_values(values.to_vec()),
        }
    }

    #[test]
    fn disjoint_series_become_one_and_others_an_error() {
        let merged =
            unify(vec![series("1", &[1.0, ABSENT]), series("2", &[5.0, 5.0]), series("1", &[ABSENT, 2.0])])
                .unwrap();
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].column.values(), [1.0, 2.0]);
        assert!(unify(vec![series("1", &[1.0]), series("1", &[2.0])]).is_err());
    }

    #[test]
    fn name_type_and_unit_go() {
        let labels =
            Labels::from_pairs([("__name__", "m"), ("__type__", "gauge"), ("__unit__", "s"), ("a", "1")]);
        assert_eq!(without_metadata(&labels), Labels::from_pairs([("a", "1")]));
    }
}
