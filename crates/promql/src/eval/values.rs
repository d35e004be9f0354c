//! `quantile` and `count_values`: aggregations that need all values of a group at a step.

use std::sync::Arc;

use chronolith_model::{Labels, LabelsBuilder, float};
use chronolith_syntax::{
    ast::Grouping,
    text::{is_utf8, quoted},
};
use hashbrown::HashMap;
use rayon::prelude::*;

use super::{
    Executor, Scope,
    aggregate::{Groups, group_labels},
    ranked::ParamRange,
    text, unexpected, worth_threads,
};
use crate::{
    annotations::Annotation,
    api::QueryError,
    functions::numeric,
    limits::STAGE_EVALUATION,
    plan::{Aggregate, Node},
    series::{Column, Native, SeriesColumn, is_absent},
};

/// Steps whose values are gathered at once.
const BLOCK_STEPS: usize = 32;

impl Executor<'_> {
    pub(super) async fn quantile(
        &mut self,
        aggregate: &Aggregate,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let (param_node, q, mut vector) = self.operands(aggregate, node, scope).await?;
        if self.leave_out(&mut vector) {
            let note = Annotation::IgnoredInAggregation(aggregate.op.as_str());
            self.notes.add(note, aggregate.input_span);
        }
        let range = ParamRange::new(&q);
        for (wrong, value) in
            [(range.any_nan, f64::NAN), (range.max > 1.0, range.max), (range.min < 0.0, range.min)]
        {
            if wrong {
                self.notes.add(Annotation::InvalidQuantile(value), param_node.span);
            }
        }
        let mut groups = Groups::new(&aggregate.grouping);
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (index, series) in vector.iter().enumerate() {
            let group = groups.of(&series.labels);
            if group == members.len() {
                members.push(Vec::new());
            }
            members[group].push(index);
        }
        let one = |(labels, members): (Labels, Vec<usize>)| {
            self.interrupt.check(STAGE_EVALUATION)?;
            let column = quantiles(&vector, &members, &q);
            let drop_name = members.iter().any(|index| vector[*index].drop_name);
            Ok(SeriesColumn { labels, drop_name, column })
        };
        let work: Vec<_> = groups.labels.into_iter().zip(members).collect();
        let result: Vec<Result<SeriesColumn, QueryError>> =
            if work.len() > 1 && worth_threads(vector.len(), q.len()) {
                self.pool.install(|| work.into_par_iter().map(one).collect())
            } else {
                work.into_iter().map(one).collect()
            };
        result.into_iter().collect()
    }

    pub(super) async fn count_values(
        &mut self,
        aggregate: &Aggregate,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let param_node = aggregate.param.as_ref().ok_or_else(|| unexpected(node))?;
        let label = text(param_node)?;
        if label.is_empty() || !is_utf8(label) {
            return Err(QueryError::Execution(format!("invalid label name {}", quoted(label))));
        }
        let vector = self.vector(&aggregate.input, scope).await?;
        let mut counter = Counter::new(&aggregate.grouping, label, node.grid.count);
        for series in &vector {
            self.interrupt.check(STAGE_EVALUATION)?;
            let before = counter.counts.len();
            counter.push(series);
            let column = node.grid.count * size_of::<f64>();
            let new = counter.counts[before..].iter();
            self.ledger.charge(0, new.map(|(labels, _)| column + labels.size_bytes()).sum())?;
        }
        Ok(counter.finish())
    }
}

/// The quantile of the values of `members` at each step.
fn quantiles(vector: &[SeriesColumn], members: &[usize], q: &[f64]) -> Column {
    let mut column = Column::absent(q.len());
    let mut gathered: Vec<Vec<f64>> = vec![Vec::with_capacity(members.len()); BLOCK_STEPS.min(q.len())];
    for start in (0..q.len()).step_by(BLOCK_STEPS) {
        let steps = start..(start + BLOCK_STEPS).min(q.len());
        gathered.iter_mut().for_each(Vec::clear);
        for index in members {
            let values = &vector[*index].column.values()[steps.clone()];
            for (values, v) in gathered.iter_mut().zip(values).filter(|(_, v)| !is_absent(**v)) {
                values.push(*v);
            }
        }
        for (step, values) in steps.zip(&mut gathered) {
            if !values.is_empty() {
                column.set(step, numeric::quantile(q[step], values));
            }
        }
    }
    column
}

/// Counts equal values.
struct Counter<'a> {
    grouping: &'a Grouping,
    label: &'a str,
    steps: usize,
    /// Place in `counts` by group and value.
    places: HashMap<(Labels, u64), usize>,
    /// Place in `counts` by output labels: values of other bits may print alike.
    by_labels: HashMap<Labels, usize>,
    counts: Vec<(Labels, Vec<f64>)>,
}

impl<'a> Counter<'a> {
    fn new(grouping: &'a Grouping, label: &'a str, steps: usize) -> Self {
        Self { grouping, label, steps, places: HashMap::new(), by_labels: HashMap::new(), counts: Vec::new() }
    }

    fn push(&mut self, series: &SeriesColumn) {
        // The label overwrites one of its name before grouping.
        let group = group_labels(self.grouping, &series.labels.without(self.label));
        for (step, v) in series.column.values().iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
            let bits = if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
            let place = match self.places.get(&(group.clone(), bits)) {
                Some(place) => *place,
                None => self.place(&group, bits, *v),
            };
            self.counts[place].1[step] += 1.0;
        }
        let mut last: Option<(&Native, usize)> = None;
        for (step, native) in series.column.lane().into_iter().flat_map(|lane| lane.iter()) {
            let place = match last {
                Some((known, place)) if Arc::ptr_eq(known, native) => place,
                _ => self.place_of_text(&group, &native.to_string()),
            };
            last = Some((native, place));
            self.counts[place].1[step] += 1.0;
        }
    }

    fn place(&mut self, group: &Labels, bits: u64, v: f64) -> usize {
        let place = self.place_of_text(group, &float::fixed(v));
        self.places.insert((group.clone(), bits), place);
        place
    }

    fn place_of_text(&mut self, group: &Labels, text: &str) -> usize {
        let labels = if self.grouping.without && self.grouping.labels.iter().any(|label| label == self.label)
        {
            group.clone()
        } else {
            let mut builder: LabelsBuilder = group.to_builder();
            builder.set(self.label, text).build()
        };
        let counts = &mut self.counts;
        *self.by_labels.entry(labels.clone()).or_insert_with(|| {
            counts.push((labels, vec![0.0; self.steps]));
            counts.len() - 1
        })
    }

    fn finish(self) -> Vec<SeriesColumn> {
        let series = self.counts.into_iter().map(|(labels, counts)| {
            let mut column = Column::absent(counts.len());
            for (step, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0.0) {
                column.set(step, *count);
            }
            SeriesColumn { labels, drop_name: false, column }
        });
        series.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_by_their_text() {
        let grouping = Grouping { without: false, labels: vec!["a".to_owned()] };
        let mut counter = Counter::new(&grouping, "v", 2);
        for (label, values) in [("1", [1.0, 0.5]), ("1", [1.0, 1.0]), ("2", [1.0, f64::NAN])] {
            let labels = Labels::from_pairs([("a", label), ("b", "x"), ("v", "old")]);
            counter.push(&SeriesColumn {
                labels,
                drop_name: false,
                column: Column::from_values(values.to_vec()),
            });
        }
        let result = counter.finish();
        let shown: Vec<String> = result
            .iter()
            .map(|s| format!("{} {:?} {:?}", s.labels, s.column.get(0), s.column.get(1)))
            .collect();
        assert_eq!(
            shown,
            [
                "{a=\"1\", v=\"1\"} Some(2.0) Some(1.0)",
                "{a=\"1\", v=\"0.5\"} None Some(1.0)",
                "{a=\"2\", v=\"1\"} Some(1.0) None",
                "{a=\"2\", v=\"NaN\"} None Some(1.0)",
            ]
        );
    }
}
