//! `topk`, `bottomk`, `limitk`, `limit_ratio`: aggregations that keep series as they are.

use std::{ops::Range, sync::Arc};

use chronolith_model::float;
use chronolith_syntax::ast::AggregateOp;
use rayon::prelude::*;

use super::{Executor, Scope, aggregate::Groups, names::unify, worth_threads, xxh64::hash_labels};
use crate::{
    annotations::Annotation,
    api::QueryError,
    limits::STAGE_EVALUATION,
    plan::{Aggregate, Node, duration},
    series::{Column, SeriesColumn, is_absent},
};

/// Steps one task works on.
const BLOCK_STEPS: usize = 64;

/// An element of a heap: its value and its series. The value of a histogram, of which only whether it is there counts,
/// is zero.
#[derive(Clone, Copy, Debug)]
struct Entry {
    value: f64,
    series: u32,
}

/// Which element a heap has on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Top {
    Lowest,
    Highest,
}

impl Top {
    /// Whether `a` is nearer to the top; NaN always is.
    fn above(self, a: f64, b: f64) -> bool {
        a.is_nan() || if self == Self::Lowest { a < b } else { a > b }
    }
}

/// A binary heap whose layout is that of Go's `container/heap`: which of several equal elements gives way depends on
/// it, and results are to be the same.
#[derive(Clone, Debug, Default)]
struct Heap(Vec<Entry>);

impl Heap {
    fn push(&mut self, entry: Entry, top: Top) {
        self.0.push(entry);
        let mut child = self.0.len() - 1;
        while child > 0 {
            let parent = (child - 1) / 2;
            if !top.above(self.0[child].value, self.0[parent].value) {
                break;
            }
            self.0.swap(child, parent);
            child = parent;
        }
    }

    fn replace_top(&mut self, entry: Entry, top: Top) {
        self.0[0] = entry;
        let mut parent = 0;
        loop {
            let mut child = 2 * parent + 1;
            if child >= self.0.len() {
                break;
            }
            if child + 1 < self.0.len() && top.above(self.0[child + 1].value, self.0[child].value) {
                child += 1;
            }
            if !top.above(self.0[child].value, self.0[parent].value) {
                break;
            }
            self.0.swap(parent, child);
            parent = child;
        }
    }

    /// Best first, NaN last.
    fn sort(&mut self, top: Top) {
        self.0.sort_by(|a, b| {
            a.value.is_nan().cmp(&b.value.is_nan()).then_with(|| {
                let (a, b) = if top == Top::Lowest { (b.value, a.value) } else { (a.value, b.value) };
                a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
            })
        });
    }
}

/// What decides membership.
struct Ranking<'a> {
    op: AggregateOp,
    vector: &'a [SeriesColumn],
    /// Group by series.
    groups: Vec<usize>,
    group_count: usize,
    /// The parameter by step.
    param: &'a [f64],
    /// For `limit_ratio`, where each series stands between 0 and 1.
    places: Vec<f64>,
}

/// Where the hash of each series lies between 0 and 1.
fn places(op: AggregateOp, vector: &[SeriesColumn]) -> Vec<f64> {
    if op != AggregateOp::LimitRatio {
        return Vec::new();
    }
    vector.iter().map(|series| hash_labels(&series.labels) as f64 / u64::MAX as f64).collect()
}

/// Whether members are found by their values.
const fn ranks(op: AggregateOp) -> bool {
    matches!(op, AggregateOp::Topk | AggregateOp::Bottomk)
}

impl Ranking<'_> {
    /// The elements of each group at each of `steps`, groups innermost.
    fn block(&self, steps: Range<usize>) -> Vec<Heap> {
        let mut heaps = vec![Heap::default(); steps.len() * self.group_count];
        for (index, (series, group)) in self.vector.iter().zip(&self.groups).enumerate() {
            let values = &series.column.values()[steps.clone()];
            for (place, value) in values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                let entry = Entry { value: *value, series: index as u32 };
                let param = self.param[steps.start + place];
                self.offer(&mut heaps[place * self.group_count + group], entry, param);
            }
            // Only floats have an order.
            let Some(lane) = series.column.lane().filter(|_| !ranks(self.op)) else { continue };
            let natives = lane.steps()[steps.clone()].iter().enumerate();
            for (place, _) in natives.filter(|(_, native)| native.is_some()) {
                let entry = Entry { value: 0.0, series: index as u32 };
                let param = self.param[steps.start + place];
                self.offer(&mut heaps[place * self.group_count + group], entry, param);
            }
        }
        for heap in &mut heaps {
            match self.op {
                AggregateOp::Topk => heap.sort(Top::Lowest),
                AggregateOp::Bottomk => heap.sort(Top::Highest),
                _ => {}
            }
        }
        heaps
    }

    fn offer(&self, heap: &mut Heap, entry: Entry, param: f64) {
        if self.op == AggregateOp::LimitRatio {
            let ratio = param.clamp(-1.0, 1.0);
            let place = self.places[entry.series as usize];
            if (ratio > 0.0 && place < ratio) || (ratio < 0.0 && place >= 1.0 + ratio) {
                heap.push(entry, Top::Lowest);
            }
            return;
        }
        let k = param.min(self.vector.len() as f64);
        if k < 1.0 {
            return;
        }
        let top = if self.op == AggregateOp::Bottomk { Top::Highest } else { Top::Lowest };
        if heap.0.len() < k as usize {
            heap.push(entry, top);
        } else if self.op != AggregateOp::Limitk {
            let worst = heap.0[0].value;
            let better = if top == Top::Lowest { worst < entry.value } else { worst > entry.value };
            if better || (worst.is_nan() && !entry.value.is_nan()) {
                heap.replace_top(entry, top);
            }
        }
    }
}

/// The parameter over all steps, as Prometheus sums it up.
#[derive(Debug)]
pub(super) struct ParamRange {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) any_nan: bool,
}

impl ParamRange {
    pub(super) fn new(values: &[f64]) -> Self {
        Self {
            min: values.iter().copied().fold(f64::MAX, duration::min),
            max: values.iter().copied().fold(-f64::MAX, duration::max),
            any_nan: values.iter().any(|v| v.is_nan()),
        }
    }
}

impl Executor<'_> {
    pub(super) async fn ranked(
        &mut self,
        aggregate: &Aggregate,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let (param_node, param, mut vector) = self.operands(aggregate, node, scope).await?;
        vector.retain(|series| !series.column.is_empty());
        if !self.check_param(aggregate.op, &param, param_node)? {
            return Ok(Vec::new());
        }
        if ranks(aggregate.op) && self.leave_out(&mut vector) {
            let note = Annotation::IgnoredInAggregation(aggregate.op.as_str());
            self.notes.add(note, node.span);
        }
        let mut groups = Groups::new(&aggregate.grouping);
        let of_series = vector.iter().map(|series| groups.of(&series.labels)).collect();
        let group_count = groups.labels.len();
        let steps = node.grid.count;
        let places = places(aggregate.op, &vector);
        let ranking = Ranking {
            op: aggregate.op,
            vector: &vector,
            groups: of_series,
            group_count,
            param: &param,
            places,
        };
        let starts: Vec<usize> = (0..steps).step_by(BLOCK_STEPS).collect();
        let block = |start: usize| {
            self.interrupt.check(STAGE_EVALUATION)?;
            Ok((start, ranking.block(start..(start + BLOCK_STEPS).min(steps))))
        };
        let blocks: Vec<Result<(usize, Vec<Heap>), QueryError>> =
            if starts.len() > 1 && worth_threads(vector.len(), steps) {
                self.pool.install(|| starts.into_par_iter().map(block).collect())
            } else {
                starts.into_iter().map(block).collect()
            };
        if steps == 1 {
            let mut result = Vec::new();
            for block in blocks {
                for entry in block?.1.iter().flat_map(|heap| &heap.0) {
                    result.push(vector[entry.series as usize].clone());
                }
            }
            return if self.delayed_name_removal { Ok(result) } else { unify(result) };
        }
        // Which series are in at which step; the rest of their values goes.
        let mut kept: Vec<Option<Column>> = vec![None; vector.len()];
        for block in blocks {
            let (start, heaps) = block?;
            for (place, heap) in heaps.iter().enumerate() {
                for entry in &heap.0 {
                    let (step, series) = (start + place / group_count, entry.series as usize);
                    let column = kept[series].get_or_insert_with(|| Column::absent(steps));
                    match vector[series].column.histogram(step) {
                        Some(native) => column.set_histogram(step, Arc::clone(native)),
                        None => column.set(step, entry.value),
                    }
                }
            }
        }
        let series = vector
            .into_iter()
            .zip(kept)
            .filter_map(|(series, kept)| kept.map(|column| SeriesColumn { column, ..series }));
        Ok(series.collect())
    }

    /// Takes all histograms out of `vector`; whether there were any.
    pub(super) fn leave_out(&self, vector: &mut Vec<SeriesColumn>) -> bool {
        let mut any = false;
        for series in vector.iter_mut() {
            any |= series.column.take_lane().is_some_and(|lane| !lane.is_empty());
        }
        if any {
            vector.retain(|series| !series.column.is_empty());
        }
        any
    }

    /// Whether anything can be in the result.
    fn check_param(&mut self, op: AggregateOp, param: &[f64], node: &Node) -> Result<bool, QueryError> {
        /// The least and the greatest 64-bit integer, as floats.
        const INT_MIN: f64 = i64::MIN as f64;
        const INT_MAX: f64 = i64::MAX as f64;
        let ParamRange { min, max, any_nan } = ParamRange::new(param);
        let refuse = |text: String| Err(QueryError::Execution(text));
        if op == AggregateOp::LimitRatio {
            if max == 0.0 && min == 0.0 {
                return Ok(false);
            }
            if any_nan {
                return refuse("Ratio value is NaN".to_owned());
            }
            if max > 1.0 {
                self.notes.add(Annotation::InvalidRatio(max, 1.0), node.span);
            }
            if min < -1.0 {
                self.notes.add(Annotation::InvalidRatio(min, -1.0), node.span);
            }
            return Ok(true);
        }
        if max < 1.0 {
            return Ok(false);
        }
        if any_nan {
            return refuse("Parameter value is NaN".to_owned());
        }
        if min <= INT_MIN {
            return refuse(format!("Scalar value {} underflows int64", float::general(min)));
        }
        if max >= INT_MAX {
            return refuse(format!("Scalar value {} overflows int64", float::general(max)));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(op: AggregateOp, k: f64, values: &[f64]) -> Vec<f64> {
        let vector: Vec<SeriesColumn> = values
            .iter()
            .enumerate()
            .map(|(i, v)| SeriesColumn {
                labels: chronolith_model::Labels::from_pairs([("i", i.to_string())]),
                drop_name: false,
                column: Column::from_values(vec![*v]),
            })
            .collect();
        let groups = vec![0; vector.len()];
        let places = places(op, &vector);
        let ranking = Ranking { op, vector: &vector, groups, group_count: 1, param: &[k], places };
        ranking.block(0..1)[0].0.iter().map(|entry| entry.value).collect()
    }

    #[test]
    fn best_first_and_nan_last() {
        let values = [3.0, f64::NAN, 1.0, 4.0, 1.0, 5.0];
        assert_eq!(kept(AggregateOp::Topk, 3.0, &values), [5.0, 4.0, 3.0]);
        assert_eq!(kept(AggregateOp::Bottomk, 2.0, &values), [1.0, 1.0]);
        let all = kept(AggregateOp::Topk, 9.0, &values);
        assert_eq!(all[..5], [5.0, 4.0, 3.0, 1.0, 1.0]);
        assert!(all[5].is_nan());
        assert!(kept(AggregateOp::Topk, 0.9, &values).is_empty());
        assert_eq!(kept(AggregateOp::Limitk, 2.0, &[2.0, 1.0, 0.0]).len(), 2);
    }

    #[test]
    fn a_ratio_and_its_complement_are_all() {
        let values: Vec<f64> = (0..1_000).map(f64::from).collect();
        let some = kept(AggregateOp::LimitRatio, 0.3, &values).len();
        let rest = kept(AggregateOp::LimitRatio, -0.7, &values).len();
        assert_eq!(some + rest, 1_000);
        assert!((200..400).contains(&some), "{some}");
    }
}
