//! Series through operators that take one at a time.

use std::{sync::Arc, time::Instant};

use chronolith_model::FloatHistogram;
use chronolith_storage::BoxFuture;
use chronolith_syntax::ast::{BinaryOp, Span};
use parking_lot::Mutex;
use rayon::{ThreadPool, prelude::*};

use super::{
    Executor, Scope,
    arithmetic::{arithmetic, changes_schema, compare, trims},
    names::{drop_name, drop_only_name, unify},
    operands::{Operand, Outcome, combine},
    worth_threads,
};
use crate::{
    annotations::Annotation,
    api::QueryError,
    explain::Costs,
    functions::{
        instant::{self, InstantFunction},
        observations::Observations,
    },
    limits::{Interrupt, STAGE_EVALUATION},
    plan::{Node, Op},
    series::{Column, Native, SeriesColumn},
};

/// Takes batches of series.
pub(super) trait Sink: Send {
    /// Takes `batch`. Says how many bytes it holds for it from now on; `None` if it holds the batch itself.
    fn push(&mut self, batch: Vec<SeriesColumn>) -> Result<Option<usize>, QueryError>;
}

/// Keeps all series.
#[derive(Debug, Default)]
pub(super) struct Collect {
    pub(super) vector: Vec<SeriesColumn>,
}

impl Sink for Collect {
    fn push(&mut self, batch: Vec<SeriesColumn>) -> Result<Option<usize>, QueryError> {
        if self.vector.is_empty() {
            self.vector = batch;
        } else {
            self.vector.extend(batch);
        }
        Ok(None)
    }
}

/// Applies `f` to each series; on the pool if there is enough to do.
pub(super) fn for_each(
    pool: &ThreadPool,
    vector: &mut [SeriesColumn],
    f: impl Fn(&mut SeriesColumn) + Send + Sync,
) {
    let steps = vector.first().map_or(0, |series| series.column.len());
    if worth_threads(vector.len(), steps) {
        pool.install(|| vector.par_iter_mut().for_each(f));
    } else {
        vector.iter_mut().for_each(f);
    }
}

/// An operator on one series, its scalar operands evaluated.
enum Element {
    Negate,
    Instant(InstantFunction, Vec<Vec<f64>>),
    /// A number about each histogram.
    Native(Observations),
    Scalar(Box<WithScalar>),
}

/// A binary operator with a scalar on one side.
struct WithScalar {
    op: BinaryOp,
    return_bool: bool,
    scalar: Vec<f64>,
    scalar_left: bool,
    span: Span,
    /// What there is to tell, each kind once.
    notes: Mutex<Vec<Annotation>>,
}

impl Element {
    const fn drops_name(&self) -> bool {
        match self {
            Self::Negate | Self::Instant(..) | Self::Native(_) => true,
            Self::Scalar(scalar) => scalar.return_bool || changes_schema(scalar.op),
        }
    }

    fn apply(&self, series: &mut SeriesColumn, delayed: bool) {
        match self {
            Self::Negate => {
                series.column.map(|v| -v);
                let mut last: Option<(Native, Native)> = None;
                series.column.map_histograms(|_, native| {
                    if let Some((of, negative)) = &last
                        && Arc::ptr_eq(of, native)
                    {
                        return Some(Arc::clone(negative));
                    }
                    let mut negative = FloatHistogram::clone(native);
                    negative.multiply(-1.0);
                    let negative = Arc::new(negative);
                    last = Some((Arc::clone(native), Arc::clone(&negative)));
                    Some(negative)
                });
            }
            Self::Instant(function, params) => {
                series.column.take_lane();
                let params: Vec<&[f64]> = params.iter().map(Vec::as_slice).collect();
                instant::eval(*function, &params, &mut series.column);
            }
            Self::Native(function) => of_natives(*function, &mut series.column),
            Self::Scalar(scalar) => scalar.apply(&mut series.column),
        }
        if let Self::Native(_) = self {
            drop_only_name(series, delayed);
        } else if self.drops_name() {
            drop_name(series, delayed);
        }
    }
}

/// `function` of each histogram; floats go.
fn of_natives(function: Observations, column: &mut Column) {
    let mut of = Column::absent(column.len());
    for (step, native) in column.lane().into_iter().flat_map(|lane| lane.iter()) {
        of.set(step, function.of(native));
    }
    *column = of;
}

impl WithScalar {
    fn apply(&self, column: &mut Column) {
        let lane = column.take_lane();
        if trims(self.op) {
            column.filter_map(|step, v| {
                self.outcome(step, Operand::Float(v));
                None
            });
        } else {
            with_scalar(self.op, self.return_bool, &self.scalar, self.scalar_left, column);
        }
        // Steps that share a histogram share what comes of it.
        let mut last: Option<(&Native, u64, Option<Outcome>)> = None;
        for (step, native) in lane.iter().flat_map(|lane| lane.iter()) {
            let scalar = self.scalar[step].to_bits();
            let outcome = match &last {
                Some((of, by, outcome)) if Arc::ptr_eq(of, native) && *by == scalar => outcome.clone(),
                _ => self.outcome(step, Operand::Native(native)),
            };
            last = Some((native, scalar, outcome.clone()));
            if let Some(outcome) = outcome {
                outcome.put(column, step);
            }
        }
    }

    fn outcome(&self, step: usize, element: Operand<'_>) -> Option<Outcome> {
        let scalar = Operand::Float(self.scalar[step]);
        let (left, right) = if self.scalar_left { (scalar, element) } else { (element, scalar) };
        let (outcome, note) = match combine(self.op, self.return_bool, left, right) {
            Ok((outcome, info)) => (Some(outcome), info),
            Err(reason) => (None, Some(reason)),
        };
        if let Some(note) = note {
            let mut notes = self.notes.lock();
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        outcome
    }
}

fn with_scalar(op: BinaryOp, return_bool: bool, scalar: &[f64], scalar_left: bool, column: &mut Column) {
    let sides = |step: usize, v: f64| if scalar_left { (scalar[step], v) } else { (v, scalar[step]) };
    column.filter_map(|step, v| {
        let (a, b) = sides(step, v);
        if !op.is_comparison() {
            Some(arithmetic(op, a, b))
        } else if return_bool {
            Some(f64::from(u8::from(compare(op, a, b))))
        } else {
            compare(op, a, b).then_some(v)
        }
    });
}

/// Whether the query is over, so that `series` need not be worked on; asked only where that takes long.
fn given_up(interrupt: &Interrupt, series: &SeriesColumn) -> bool {
    series.column.lane().is_some() && interrupt.check(STAGE_EVALUATION).is_err()
}

/// Operators to apply, and the nodes they are of.
type Elements<'a> = [(&'a Node, Element)];

/// Applies operators to batches on their way to another sink.
struct Map<'a> {
    elements: &'a Elements<'a>,
    costs: Option<&'a Costs>,
    delayed: bool,
    pool: &'a ThreadPool,
    interrupt: &'a Interrupt,
    inner: &'a mut dyn Sink,
}

impl Map<'_> {
    fn apply(&self, elements: &Elements<'_>, batch: &mut [SeriesColumn]) {
        let (interrupt, delayed) = (self.interrupt, self.delayed);
        for_each(self.pool, batch, |series| {
            for (_, element) in elements {
                if given_up(interrupt, series) {
                    return;
                }
                element.apply(series, delayed);
            }
        });
    }
}

impl Sink for Map<'_> {
    fn push(&mut self, mut batch: Vec<SeriesColumn>) -> Result<Option<usize>, QueryError> {
        if let Some(costs) = self.costs {
            // One after the other, to know what each takes.
            for element in self.elements {
                let since = Instant::now();
                self.apply(std::slice::from_ref(element), &mut batch);
                costs.batch(element.0, since.elapsed(), &batch);
            }
        } else {
            self.apply(self.elements, &mut batch);
        }
        self.interrupt.check(STAGE_EVALUATION)?;
        batch.retain(|series| !series.column.is_empty());
        self.inner.push(batch)
    }
}

impl Executor<'_> {
    /// The value of an element-wise operator, all series.
    pub(super) async fn elementwise(
        &mut self,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let mut collect = Collect::default();
        self.stream(node, scope, &mut collect).await?;
        Ok(collect.vector)
    }

    /// Hands the series of `node` to `sink`; in batches where each can be made without the others.
    pub(super) fn stream<'a>(
        &'a mut self,
        node: &'a Node,
        scope: &'a mut Scope,
        sink: &'a mut dyn Sink,
    ) -> BoxFuture<'a, Result<(), QueryError>> {
        Box::pin(async move {
            self.interrupt.check(STAGE_EVALUATION)?;
            // From the outermost operator in.
            let mut elements = Vec::new();
            let mut base = node;
            loop {
                base = match &base.op {
                    Op::Negate(inner) => {
                        elements.push((base, Element::Negate));
                        inner
                    }
                    Op::Instant(function, inner, params) => {
                        let mut values = Vec::with_capacity(params.len());
                        for param in params {
                            values.push(self.scalar(param, scope).await?);
                        }
                        elements.push((base, Element::Instant(*function, values)));
                        inner
                    }
                    Op::OfHistograms(function, inner) => {
                        elements.push((base, Element::Native(*function)));
                        inner
                    }
                    Op::BinaryScalar(binary) => {
                        let with = WithScalar {
                            op: binary.op,
                            return_bool: binary.return_bool,
                            scalar: self.scalar(&binary.scalar, scope).await?,
                            scalar_left: binary.scalar_left,
                            span: base.span,
                            notes: Mutex::default(),
                        };
                        elements.push((base, Element::Scalar(Box::new(with))));
                        &binary.vector
                    }
                    _ => break,
                };
            }
            elements.reverse();
            let delayed = self.delayed_name_removal;
            let drops_name = !delayed && elements.iter().any(|(_, element)| element.drops_name());
            if let Op::Leaf(leaf) = &base.op
                && self.plan.leaf_uses[leaf.id] == 1
                && !self.merges(leaf)
                && (!drops_name || self.differ_unnamed(leaf))
            {
                if elements.is_empty() {
                    return self.stream_leaf(leaf, base, scope, sink).await;
                }
                let (pool, interrupt, costs) = (self.pool, self.interrupt, self.costs);
                let mut map = Map { elements: &elements, costs, delayed, pool, interrupt, inner: sink };
                self.stream_leaf(leaf, base, scope, &mut map).await?;
                self.passed(&elements);
                return Ok(());
            }
            let mut vector = self.vector(base, scope).await?;
            for (node, element) in &elements {
                let watch = self.watch();
                let interrupt = self.interrupt;
                for_each(self.pool, &mut vector, |series| {
                    if !given_up(interrupt, series) {
                        element.apply(series, delayed);
                    }
                });
                interrupt.check(STAGE_EVALUATION)?;
                vector.retain(|series| !series.column.is_empty());
                if element.drops_name() && !delayed {
                    vector = unify(vector)?;
                }
                if let Some((costs, since)) = watch {
                    costs.batch(node, since.elapsed(), &vector);
                }
            }
            self.passed(&elements);
            sink.push(vector)?;
            Ok(())
        })
    }

    /// All series have passed through `elements`.
    fn passed(&mut self, elements: &Elements<'_>) {
        for (node, element) in elements {
            if let Some(costs) = self.costs {
                costs.streamed(node);
            }
            if let Element::Scalar(scalar) = element {
                for note in scalar.notes.lock().drain(..) {
                    self.notes.add(note, scalar.span);
                }
            }
        }
    }
}
