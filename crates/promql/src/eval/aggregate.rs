//! Aggregations that fold series into groups one by one: `sum`, `avg`, `count`, `min`, `max`, `group`, `stddev`,
//! `stdvar`. A group's series are folded in their order on one thread, whatever the number of threads.

use chronolith_model::{Labels, METRIC_NAME};
use chronolith_syntax::ast::{AggregateOp, Grouping, Span};
use hashbrown::HashMap;
use rayon::{ThreadPool, prelude::*};

use super::{Executor, Scope, fold_natives::FoldedNatives, stream::Sink, unexpected, worth_threads};
use crate::{
    annotations::{Annotation, Annotations},
    api::QueryError,
    functions::numeric::{Kahan, Mean},
    limits::{Interrupt, STAGE_EVALUATION},
    plan::{Aggregate, Node},
    series::{ABSENT, Column, Lane, SeriesColumn, is_absent, not_absent},
};

/// The labels of groups, and which series belongs to which.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    grouping: &'a Grouping,
    by_labels: HashMap<Labels, usize>,
    /// In the order of their first series.
    pub(super) labels: Vec<Labels>,
}

impl<'a> Groups<'a> {
    pub(super) fn new(grouping: &'a Grouping) -> Self {
        Self { grouping, by_labels: HashMap::new(), labels: Vec::new() }
    }

    /// The group of the series with these labels.
    pub(super) fn of(&mut self, labels: &Labels) -> usize {
        let key = group_labels(self.grouping, labels);
        if let Some(known) = self.by_labels.get(&key) {
            return *known;
        }
        self.by_labels.insert(key.clone(), self.labels.len());
        self.labels.push(key);
        self.labels.len() - 1
    }
}

/// The labels that the group of a series has.
pub(super) fn group_labels(grouping: &Grouping, labels: &Labels) -> Labels {
    if grouping.without {
        labels.retain(|name| name != METRIC_NAME && !grouping.labels.iter().any(|label| label == name))
    } else if grouping.labels.is_empty() {
        Labels::empty()
    } else {
        labels.retain(|name| grouping.labels.iter().any(|label| label == name))
    }
}

/// Mean and squared differences from it (Welford's algorithm), one value after the other.
#[derive(Clone, Copy, Debug)]
struct Welford {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Welford {
    /// One value; what is not finite makes everything NaN.
    const fn of(first: f64) -> Self {
        Self { count: 1.0, mean: first, squares: if first.is_finite() { 0.0 } else { f64::NAN } }
    }

    fn add(&mut self, x: f64) {
        self.count += 1.0;
        let delta = x - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (x - self.mean);
    }

    fn variance(&self) -> f64 {
        self.squares / self.count
    }

    fn deviation(&self) -> f64 {
        self.variance().sqrt()
    }
}

/// The running state of one group, by step.
#[derive(Debug)]
struct Fold {
    drop_name: bool,
    state: State,
    natives: Natives,
}

/// What becomes of the histograms of a group.
#[derive(Debug)]
enum Natives {
    /// There was none.
    None,
    /// They are folded.
    Folded(Box<FoldedNatives>),
    /// They were left out.
    Ignored,
}

/// An aggregation: its operator, and what it is of.
#[derive(Clone, Copy, Debug)]
struct Of {
    op: AggregateOp,
    steps: usize,
    /// The expression that is aggregated.
    span: Span,
}

#[derive(Debug)]
enum State {
    /// The sum is [`ABSENT`] before the first value.
    Sum(Vec<Kahan>),
    Avg(Vec<Option<Mean>>),
    Count(Vec<f64>),
    Min(Vec<f64>),
    Max(Vec<f64>),
    Group(Vec<f64>),
    Stdvar(Vec<Option<Welford>>),
    Stddev(Vec<Option<Welford>>),
}

impl State {
    /// The state of operator `op` before any value.
    fn new(op: AggregateOp, steps: usize) -> Self {
        match op {
            AggregateOp::Sum => Self::Sum(vec![Kahan::starting_with(ABSENT); steps]),
            AggregateOp::Avg => Self::Avg(vec![None; steps]),
            AggregateOp::Count => Self::Count(vec![0.0; steps]),
            AggregateOp::Min => Self::Min(vec![ABSENT; steps]),
            AggregateOp::Max => Self::Max(vec![ABSENT; steps]),
            AggregateOp::Stdvar => Self::Stdvar(vec![None; steps]),
            AggregateOp::Stddev => Self::Stddev(vec![None; steps]),
            _ => Self::Group(vec![ABSENT; steps]),
        }
    }

    /// Whether there was a float at `step`, for sums and means.
    fn has(&self, step: usize) -> bool {
        match self {
            Self::Sum(sums) => !is_absent(sums[step].sum),
            Self::Avg(means) => means[step].is_some(),
            _ => false,
        }
    }

    const fn bytes(&self) -> usize {
        match self {
            Self::Sum(sums) => sums.len() * size_of::<Kahan>(),
            Self::Avg(means) => means.len() * size_of::<Option<Mean>>(),
            Self::Stdvar(spreads) | Self::Stddev(spreads) => spreads.len() * size_of::<Option<Welford>>(),
            Self::Count(values) | Self::Min(values) | Self::Max(values) | Self::Group(values) => {
                values.len() * size_of::<f64>()
            }
        }
    }

    fn push(&mut self, values: &[f64]) {
        match self {
            Self::Sum(sums) => each(sums, values, |sum, v| {
                if is_absent(sum.sum) { *sum = Kahan::starting_with(v) } else { sum.add(v) }
            }),
            Self::Avg(means) => each(means, values, |mean, v| match mean {
                Some(mean) => mean.add(v),
                None => *mean = Some(Mean::of(v)),
            }),
            Self::Count(counts) => each(counts, values, |count, _| *count += 1.0),
            // NaN only as long as there is nothing else; an absent step is a NaN too.
            Self::Min(least) => each(least, values, |least, v| {
                if least.is_nan() || *least > v {
                    *least = v;
                }
            }),
            Self::Max(most) => each(most, values, |most, v| {
                if most.is_nan() || *most < v {
                    *most = v;
                }
            }),
            Self::Group(ones) => each(ones, values, |one, _| *one = 1.0),
            Self::Stdvar(spreads) | Self::Stddev(spreads) => {
                each(spreads, values, |spread, v| match spread {
                    Some(spread) => spread.add(v),
                    None => *spread = Some(Welford::of(v)),
                })
            }
        }
    }

    fn finish(self) -> Vec<f64> {
        let spread = |spreads: Vec<Option<Welford>>, of: fn(&Welford) -> f64| {
            spreads
                .iter()
                .map(|spread| spread.as_ref().map_or(ABSENT, |spread| not_absent(of(spread))))
                .collect()
        };
        match self {
            Self::Sum(sums) => (sums.into_iter())
                .map(|sum| if is_absent(sum.sum) { ABSENT } else { not_absent(sum.sum + sum.lost) })
                .collect(),
            Self::Avg(means) => {
                means.iter().map(|mean| mean.map_or(ABSENT, |mean| not_absent(mean.value()))).collect()
            }
            Self::Count(counts) => {
                counts.into_iter().map(|count| if count == 0.0 { ABSENT } else { count }).collect()
            }
            Self::Min(values) | Self::Max(values) | Self::Group(values) => values,
            Self::Stdvar(spreads) => spread(spreads, Welford::variance),
            Self::Stddev(spreads) => spread(spreads, Welford::deviation),
        }
    }
}

/// Calls `f` for each step that has a value.
fn each<T>(state: &mut [T], values: &[f64], mut f: impl FnMut(&mut T, f64)) {
    for (state, value) in state.iter_mut().zip(values) {
        if !is_absent(*value) {
            f(state, *value);
        }
    }
}

impl Fold {
    fn new(of: Of) -> Self {
        Self { drop_name: false, state: State::new(of.op, of.steps), natives: Natives::None }
    }

    const fn float_bytes(&self) -> usize {
        size_of::<Self>() + self.state.bytes()
    }

    fn native_bytes(&self) -> usize {
        if let Natives::Folded(folded) = &self.natives { folded.bytes() } else { 0 }
    }

    fn push(&mut self, of: Of, series: &SeriesColumn) {
        self.drop_name |= series.drop_name;
        if let Some(lane) = series.column.lane() {
            self.push_natives(of, &series.labels, lane);
        }
        if let Natives::Folded(folded) = &self.natives
            && (0..of.steps).any(|step| folded.closed(step))
        {
            let mut open = series.column.clone();
            open.filter_map(|step, v| (!folded.closed(step)).then_some(v));
            return self.state.push(open.values());
        }
        self.state.push(series.column.values());
    }

    fn push_natives(&mut self, of: Of, labels: &Labels, lane: &Lane) {
        match &mut self.state {
            State::Count(counts) => lane.iter().for_each(|(step, _)| counts[step] += 1.0),
            State::Group(ones) => lane.iter().for_each(|(step, _)| ones[step] = 1.0),
            State::Sum(_) | State::Avg(_) => {
                if let Natives::None = self.natives {
                    let folded = FoldedNatives::new(of.op, of.steps, of.span);
                    self.natives = Natives::Folded(Box::new(folded));
                }
                if let Natives::Folded(folded) = &mut self.natives {
                    folded.push(labels, lane, |step| self.state.has(step));
                }
            }
            _ if lane.is_empty() => {}
            _ => self.natives = Natives::Ignored,
        }
    }

    fn finish(self, of: Of, labels: Labels, notes: &mut Annotations) -> SeriesColumn {
        let mut column = Column::from_values(self.state.finish());
        match self.natives {
            Natives::None => {}
            Natives::Folded(folded) => notes.merge(folded.finish(&mut column)),
            Natives::Ignored => notes.add(Annotation::IgnoredInAggregation(of.op.as_str()), of.span),
        }
        SeriesColumn { labels, drop_name: self.drop_name, column }
    }
}

/// Folds batches into groups.
struct Folds<'a> {
    of: Of,
    groups: Groups<'a>,
    folds: Vec<Fold>,
    pool: &'a ThreadPool,
    interrupt: &'a Interrupt,
}

impl Sink for Folds<'_> {
    fn push(&mut self, batch: Vec<SeriesColumn>) -> Result<Option<usize>, QueryError> {
        let known = self.folds.len();
        let natives = batch.iter().any(|series| series.column.lane().is_some());
        let natives_before = if natives { self.native_bytes() } else { 0 };
        let mut order: Vec<(usize, u32)> = Vec::with_capacity(batch.len());
        for (index, series) in batch.iter().enumerate() {
            let group = self.groups.of(&series.labels);
            if group == self.folds.len() {
                self.folds.push(Fold::new(self.of));
            }
            order.push((group, index as u32));
        }
        order.sort_unstable();
        let mut folds = self.folds.iter_mut();
        let mut passed = 0;
        let mut work = Vec::new();
        for members in order.chunk_by(|a, b| a.0 == b.0) {
            let group = members[0].0;
            work.extend(folds.nth(group - passed).map(|fold| (fold, members)));
            passed = group + 1;
        }
        let fold = |(fold, members): (&mut Fold, &[(usize, u32)])| {
            for (_, index) in members {
                let series = &batch[*index as usize];
                // Histograms take long.
                if series.column.lane().is_some() && self.interrupt.check(STAGE_EVALUATION).is_err() {
                    return;
                }
                fold.push(self.of, series);
            }
        };
        if work.len() > 1 && worth_threads(batch.len(), self.of.steps) {
            self.pool.install(|| work.into_par_iter().for_each(fold));
        } else {
            work.into_iter().for_each(fold);
        }
        self.interrupt.check(STAGE_EVALUATION)?;
        let natives_grown = if natives { self.native_bytes().saturating_sub(natives_before) } else { 0 };
        Ok(Some(self.folds[known..].iter().map(Fold::float_bytes).sum::<usize>() + natives_grown))
    }
}

impl Folds<'_> {
    /// What the histograms of all groups take.
    fn native_bytes(&self) -> usize {
        self.folds.iter().map(Fold::native_bytes).sum()
    }
}

impl Executor<'_> {
    pub(super) async fn aggregate(
        &mut self,
        aggregate: &Aggregate,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        match aggregate.op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                return self.ranked(aggregate, node, scope).await;
            }
            AggregateOp::Quantile => return self.quantile(aggregate, node, scope).await,
            AggregateOp::CountValues => return self.count_values(aggregate, node, scope).await,
            _ => {}
        }
        let of = Of { op: aggregate.op, steps: node.grid.count, span: aggregate.input_span };
        let mut folds = Folds {
            of,
            groups: Groups::new(&aggregate.grouping),
            folds: Vec::new(),
            pool: self.pool,
            interrupt: self.interrupt,
        };
        self.stream(&aggregate.input, scope, &mut folds).await?;
        let Folds { folds, groups, .. } = folds;
        let notes = &mut self.notes;
        Ok(folds
            .into_iter()
            .zip(groups.labels)
            .map(|(fold, labels)| fold.finish(of, labels, notes))
            .collect())
    }

    /// The scalar parameter of an aggregation, its values, and what is aggregated.
    pub(super) async fn operands<'n>(
        &mut self,
        aggregate: &'n Aggregate,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<(&'n Node, Vec<f64>, Vec<SeriesColumn>), QueryError> {
        let param = aggregate.param.as_ref().ok_or_else(|| unexpected(node))?;
        let values = self.scalar(param, scope).await?;
        let vector = self.vector(&aggregate.input, scope).await?;
        Ok((param, values, vector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(op: AggregateOp, values: &[f64]) -> f64 {
        let of = Of { op, steps: 1, span: Span::default() };
        let mut fold = Fold::new(of);
        for v in values {
            let column = Column::from_values(vec![*v]);
            fold.push(of, &SeriesColumn { labels: Labels::empty(), drop_name: false, column });
        }
        fold.finish(of, Labels::empty(), &mut Annotations::default()).column.values()[0]
    }

    #[test]
    fn sums_are_compensated() {
        assert_eq!(fold(AggregateOp::Sum, &[1e100, 1.0, -1e100]), 1.0);
        assert_eq!(fold(AggregateOp::Sum, &[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(fold(AggregateOp::Sum, &[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(is_absent(fold(AggregateOp::Sum, &[ABSENT])));
    }

    #[test]
    fn an_average_does_not_overflow() {
        assert_eq!(fold(AggregateOp::Avg, &[1.7e308, 1.7e308, 1.7e308]), 1.7e308);
        assert_eq!(fold(AggregateOp::Avg, &[f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(fold(AggregateOp::Avg, &[1.0, ABSENT, 2.0]), 1.5);
    }

    #[test]
    fn extremes_prefer_numbers_to_nan() {
        assert_eq!(fold(AggregateOp::Min, &[f64::NAN, 2.0, 1.0, f64::NAN]), 1.0);
        assert_eq!(fold(AggregateOp::Max, &[f64::NAN, 2.0, 1.0]), 2.0);
        let only_nan = fold(AggregateOp::Max, &[f64::NAN]);
        assert!(only_nan.is_nan() && !is_absent(only_nan));
    }

    #[test]
    fn variance_of_what_is_not_finite_is_nan() {
        assert_eq!(fold(AggregateOp::Stdvar, &[1.0, 3.0]), 1.0);
        assert_eq!(fold(AggregateOp::Stddev, &[4.0]), 0.0);
        assert!(fold(AggregateOp::Stddev, &[f64::INFINITY]).is_nan());
    }
}
