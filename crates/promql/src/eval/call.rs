//! Functions of whole vectors.

use chronolith_model::{Labels, float};
use chronolith_syntax::ast::Span;

use super::{
    Executor, Scope,
    names::{drop_name, unify},
    stream::Sink,
    text,
};
use crate::{
    annotations::{Annotation, Annotations},
    api::QueryError,
    functions::{histogram, labels, sort},
    plan::{
        CallFunction, Node,
        duration::{max, min},
    },
    series::{Column, Grid, KernelContext, SeriesColumn, is_absent},
};

/// Notes at which steps there is a value.
struct Presence {
    steps: Vec<bool>,
}

impl Sink for Presence {
    fn push(&mut self, batch: Vec<SeriesColumn>) -> Result<Option<usize>, QueryError> {
        for series in &batch {
            series.column.mark(&mut self.steps);
        }
        Ok(Some(0))
    }
}

impl Executor<'_> {
    /// `absent`: 1 at the steps where `inner` has nothing.
    pub(super) async fn absent(
        &mut self,
        (labels, unnamed): (&Labels, bool),
        inner: &Node,
        grid: Grid,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let mut presence = Presence { steps: vec![false; grid.count] };
        self.stream(inner, scope, &mut presence).await?;
        let mut column = Column::absent(grid.count);
        for (step, _) in presence.steps.iter().enumerate().filter(|(_, seen)| !**seen) {
            column.set(step, 1.0);
        }
        if column.is_empty() {
            return Ok(Vec::new());
        }
        // As in Prometheus, type and unit go only where names go late.
        let drop_name = unnamed && self.delayed_name_removal;
        Ok(vec![SeriesColumn { labels: labels.clone(), drop_name, column }])
    }

    /// A function that gives a scalar.
    pub(super) async fn scalar_call(
        &mut self,
        function: CallFunction,
        args: &[Node],
        scope: &mut Scope,
    ) -> Result<Vec<f64>, QueryError> {
        match (function, args) {
            (CallFunction::Scalar, [vector]) => {
                let mut only = Only { values: vec![None; vector.grid.count] };
                self.stream(vector, scope, &mut only).await?;
                Ok(only.values.into_iter().map(|value| value.flatten().unwrap_or(f64::NAN)).collect())
            }
            (CallFunction::MaxOf | CallFunction::MinOf, [a, b]) => {
                let pick = if function == CallFunction::MaxOf { max } else { min };
                let a = self.scalar(a, scope).await?;
                let b = self.scalar(b, scope).await?;
                Ok(a.iter().zip(&b).map(|(a, b)| pick(*a, *b)).collect())
            }
            _ => Err(wrong_arguments(function)),
        }
    }

    /// A function that gives a vector.
    pub(super) async fn vector_call(
        &mut self,
        function: CallFunction,
        args: &[Node],
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let delayed = self.delayed_name_removal;
        match (function, args) {
            (CallFunction::Vector, [scalar]) => {
                let values = self.scalar(scalar, scope).await?;
                let mut column = Column::absent(values.len());
                values.iter().enumerate().for_each(|(step, value)| column.set(step, *value));
                Ok(vec![SeriesColumn { labels: Labels::empty(), drop_name: false, column }])
            }
            (CallFunction::Timestamp, [vector]) => {
                let mut vector = self.vector(vector, scope).await?;
                for series in &mut vector {
                    let seconds = |step| node.grid.time(step) as f64 / 1_000.0;
                    let lane = series.column.take_lane();
                    series.column.filter_map(|step, _| Some(seconds(step)));
                    for (step, _) in lane.iter().flat_map(|lane| lane.iter()) {
                        series.column.set(step, seconds(step));
                    }
                    drop_name(series, delayed);
                }
                if delayed { Ok(vector) } else { unify(vector) }
            }
            (CallFunction::LabelReplace | CallFunction::LabelJoin, [vector, texts @ ..]) => {
                let texts = texts.iter().map(text).collect::<Result<Vec<_>, _>>()?;
                // What is wrong with the arguments is told before anything is read.
                self.with_context(node, |context| relabel(function, &mut [], &texts, context))?;
                let mut vector = self.vector(vector, scope).await?;
                self.with_context(node, |context| relabel(function, &mut vector, &texts, context))?;
                unify(vector)
            }
            (CallFunction::HistogramQuantile, [q, vector]) => {
                let q = self.scalar(q, scope).await?;
                let vector = self.vector(vector, scope).await?;
                let grid = node.grid;
                let interrupt = self.interrupt;
                let result = self.with_context(node, |context| {
                    histogram::histogram_quantile(&grid, &q, vector, interrupt, context)
                })?;
                if delayed { Ok(result) } else { unify(result) }
            }
            (CallFunction::HistogramQuantiles, [vector, label, quantiles @ ..]) => {
                self.histogram_quantiles(vector, text(label)?, quantiles, node, scope).await
            }
            (CallFunction::HistogramFraction, [lower, upper, vector]) => {
                let lower = self.scalar(lower, scope).await?;
                let upper = self.scalar(upper, scope).await?;
                let vector = self.vector(vector, scope).await?;
                let grid = node.grid;
                let interrupt = self.interrupt;
                let result = self.with_context(node, |context| {
                    histogram::histogram_fraction(&grid, &lower, &upper, vector, interrupt, context)
                })?;
                if delayed { Ok(result) } else { unify(result) }
            }
            (CallFunction::NoStart, [vector]) => self.vector(vector, scope).await.map(|_| Vec::new()),
            (CallFunction::Sort { descending }, [vector]) => {
                let mut vector = self.vector(vector, scope).await?;
                vector.iter_mut().for_each(|series| drop(series.column.take_lane()));
                vector.retain(|series| !series.column.is_empty());
                if self.sorts(node) {
                    sort::sort(&mut vector, descending);
                }
                Ok(vector)
            }
            (CallFunction::SortByLabel { descending }, [vector, texts @ ..]) => {
                let texts = texts.iter().map(text).collect::<Result<Vec<_>, _>>()?;
                let mut vector = self.vector(vector, scope).await?;
                if self.sorts(node) {
                    sort::sort_by_label(&mut vector, &texts, descending);
                }
                Ok(vector)
            }
            _ => Err(wrong_arguments(function)),
        }
    }

    /// Several quantiles of the same histograms; a label says which.
    async fn histogram_quantiles(
        &mut self,
        vector: &Node,
        label: &str,
        quantiles: &[Node],
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let spans: Vec<Span> = quantiles.iter().map(|q| q.span).collect();
        let histograms = vector.span;
        let vector = self.vector(vector, scope).await?;
        let grid = node.grid;
        let mut result = Vec::new();
        for (q, span) in quantiles.iter().zip(spans) {
            let q = self.scalar(q, scope).await?;
            let mut distinct: Vec<f64> = Vec::new();
            for value in &q {
                if !distinct.iter().any(|known| known.to_bits() == value.to_bits()) {
                    distinct.push(*value);
                }
            }
            for value in distinct {
                let spans = [span, histograms];
                let mut context = self.context(node.span, &spans);
                let same = vec![value; q.len()];
                let vector = vector.clone();
                let quantiles =
                    histogram::histogram_quantile(&grid, &same, vector, self.interrupt, &mut context)?;
                self.notes.merge(context.notes);
                for mut series in quantiles {
                    let mut labels = series.labels.to_builder();
                    series.labels = labels.set(label, open_metrics(value)).build();
                    series.column.filter_map(|step, v| (q[step].to_bits() == value.to_bits()).then_some(v));
                    result.push(series);
                }
            }
        }
        unify(result)
    }

    fn context<'s>(&self, span: Span, args: &'s [Span]) -> KernelContext<'s> {
        let notes = Annotations::default();
        KernelContext {
            notes,
            span,
            args,
            labels: None,
            delayed_name_removal: self.delayed_name_removal,
            type_and_unit_labels: self.type_and_unit_labels,
        }
    }

    /// Whether sorting has an effect; a warning where not.
    fn sorts(&mut self, node: &Node) -> bool {
        if node.grid.count > 1 {
            self.notes.add(Annotation::SortIneffective, node.span);
        }
        node.grid.count == 1
    }

    fn with_context<T>(&mut self, node: &Node, f: impl FnOnce(&mut KernelContext<'_>) -> T) -> T {
        let spans: Vec<_> = match &node.op {
            crate::plan::Op::Call(_, args) => args.iter().map(|arg| arg.span).collect(),
            _ => Vec::new(),
        };
        let mut context = self.context(node.span, &spans);
        let result = f(&mut context);
        self.notes.merge(context.notes);
        result
    }
}

/// A float as OpenMetrics has it: never without a point or an exponent.
fn open_metrics(v: f64) -> String {
    let text = float::general(v);
    if v.is_finite() && !text.contains(['.', 'e']) { text + ".0" } else { text }
}

fn relabel(
    function: CallFunction,
    vector: &mut [SeriesColumn],
    texts: &[&str],
    context: &mut KernelContext<'_>,
) -> Result<(), QueryError> {
    if function == CallFunction::LabelJoin {
        labels::label_join(vector, texts, context)
    } else {
        labels::label_replace(vector, texts, context)
    }
}

/// The only element of each step: `None` for none yet, `Some(None)` for more than one.
struct Only {
    values: Vec<Option<Option<f64>>>,
}

impl Sink for Only {
    fn push(&mut self, batch: Vec<SeriesColumn>) -> Result<Option<usize>, QueryError> {
        for series in &batch {
            for (only, value) in self.values.iter_mut().zip(series.column.values()) {
                if !is_absent(*value) {
                    *only = Some(if only.is_none() { Some(*value) } else { None });
                }
            }
        }
        Ok(Some(0))
    }
}

fn wrong_arguments(function: CallFunction) -> QueryError {
    QueryError::Execution(format!("unexpected arguments of {function:?}"))
}
