//! Subqueries: an expression on a grid of its own, and windows over what it gives.

use chronolith_storage::{BoxFuture, Samples};
use rayon::prelude::*;

use super::{
    Data, Executor, Scope,
    finish::{drop_names, points},
    names::{Unique, drop_name},
    natives::NativeSamples,
    unexpected,
    windowed::Windowed,
    worth_threads,
};
use crate::{
    annotations::Annotations,
    api::{QueryError, RangeSeries},
    functions::range::Sight,
    limits::STAGE_EVALUATION,
    plan::{Node, Op, OverSubquery},
    series::{Column, Grid, KernelContext, SeriesColumn, is_absent},
};

/// What became of one series, and what its windows counted.
struct Done {
    series: SeriesColumn,
    counts: Vec<u64>,
    notes: Annotations,
}

impl Executor<'_> {
    /// A range function over a subquery.
    pub(super) async fn over_subquery(
        &mut self,
        over: &OverSubquery,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let mut params = Vec::with_capacity(over.params.len());
        for param in &over.params {
            params.push(self.scalar(param, scope).await?);
        }
        let input = self.inner(&over.inner).await?;
        let params: Vec<&[f64]> = params.iter().map(Vec::as_slice).collect();
        let this = &*self;
        let work = |series: &SeriesColumn| this.windows_over(over, node, &params, series);
        let done: Vec<_> = if worth_threads(input.len(), over.inner.grid.count + node.grid.count) {
            self.pool.install(|| input.par_iter().map(work).collect())
        } else {
            input.iter().map(work).collect()
        };
        let mut unique = Unique::default();
        let mut result = Vec::with_capacity(done.len());
        for done in done {
            let done = done?;
            scope.add(&done.counts);
            self.notes.merge(done.notes);
            if !done.series.column.is_empty() {
                if !self.delayed_name_removal {
                    unique.check(&done.series.labels)?;
                }
                result.push(done.series);
            }
        }
        Ok(result)
    }

    fn windows_over(
        &self,
        over: &OverSubquery,
        node: &Node,
        params: &[&[f64]],
        series: &SeriesColumn,
    ) -> Result<Done, QueryError> {
        self.interrupt.check(STAGE_EVALUATION)?;
        let samples = samples_of(series, over.inner.grid);
        let natives = NativeSamples::of_column(&series.column, over.inner.grid);
        let mut counts = vec![0; node.grid.count];
        let mut column = Column::absent(node.grid.count);
        let sight = Sight::of(over.function, &samples.timestamps, &over.windows);
        sight.count(&mut counts);
        let largest = sight.largest() + natives.count_windows(&over.windows, &mut counts);
        self.ledger.probe(largest)?;
        let mut context = KernelContext {
            notes: Annotations::default(),
            span: node.span,
            args: &over.arg_spans,
            labels: Some(&series.labels),
            delayed_name_removal: self.delayed_name_removal,
            type_and_unit_labels: self.type_and_unit_labels,
        };
        if !samples.is_empty() || !natives.times.is_empty() {
            let OverSubquery { function, windows, .. } = over;
            let (samples, sight, natives) = (&samples, &sight, &natives);
            let windowed = Windowed { function: *function, params, samples, sight, natives, windows };
            windowed.eval(largest, self.interrupt, &mut column, &mut context)?;
        }
        let mut result = SeriesColumn { labels: series.labels.clone(), drop_name: series.drop_name, column };
        if !over.function.keeps_name() {
            drop_name(&mut result, self.delayed_name_removal);
        }
        Ok(Done { series: result, counts, notes: context.notes })
    }

    /// The inner expression; what it reads does not count, what the windows hold does.
    async fn inner(&mut self, inner: &Node) -> Result<Vec<SeriesColumn>, QueryError> {
        let mut scope = Scope::new(Grid { count: 0, ..inner.grid });
        self.inner_counted(inner, &mut scope).await
    }

    async fn inner_counted(
        &mut self,
        inner: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        self.check_grid(inner.grid)?;
        if inner.grid.count == 0 {
            return Ok(Vec::new());
        }
        if scope.samples.is_empty() {
            *scope = Scope::new(inner.grid);
        }
        Ok(match self.eval(inner, scope).await? {
            Data::Vector(vector) => vector,
            Data::Scalar(values) => {
                let labels = chronolith_model::Labels::empty();
                vec![SeriesColumn { labels, drop_name: false, column: Column::from_values(values) }]
            }
            Data::Text(_) | Data::Matrix(_) => return Err(unexpected(inner)),
        })
    }

    /// A range vector as it is: the top of an instant query.
    pub(super) fn matrix<'a>(
        &'a mut self,
        node: &'a Node,
        scope: &'a mut Scope,
    ) -> BoxFuture<'a, Result<Vec<RangeSeries>, QueryError>> {
        Box::pin(async move {
            let watch = self.watch();
            let matrix = match &node.op {
                Op::RawMatrix(leaf) => self.raw_matrix(leaf, node, scope).await?,
                Op::RawSubquery(inner) => self.raw_subquery(inner, scope).await?,
                _ => return Err(unexpected(node)),
            };
            if let Some((costs, since)) = watch {
                costs.matrix(node, since, &matrix);
            }
            Ok(matrix)
        })
    }

    async fn raw_subquery(
        &mut self,
        inner: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<RangeSeries>, QueryError> {
        let mut own = Scope::new(Grid { count: 0, ..inner.grid });
        let vector = self.inner_counted(inner, &mut own).await?;
        if let Some(last) = scope.samples.last_mut() {
            *last += own.total();
        }
        let vector = if self.delayed_name_removal { drop_names(vector)? } else { vector };
        Ok(vector
            .into_iter()
            .map(|series| points(series, inner.grid))
            .filter(|series| !series.is_empty())
            .collect())
    }
}

/// The floats of a column with their times.
fn samples_of(series: &SeriesColumn, grid: Grid) -> Samples {
    let mut samples = Samples::default();
    for (t, value) in grid.times().zip(series.column.values()) {
        if !is_absent(*value) {
            samples.push(t, *value);
        }
    }
    samples
}
