//! From operators to values.
//!
//! Evaluation is series-major: an operator makes, per series, a column of all steps. Where a leaf feeds operators that
//! take one series at a time and at last an aggregation, series pass through in batches and are never held all at
//! once; other operators hold their input. Batches are worked on in parallel, and put together in order, so results do
//! not depend on the number of threads.
//!
//! Map: [`arithmetic`] operators on floats · `operands` on histograms too · [`names`] dropping names, merging equals ·
//! `leaf` selectors and range functions, `latest` and `windowed` for one series · `fetch` samples from storage ·
//! `natives` its histograms · `decoded` samples for more than one leaf · `stream` series through element-wise operators ·
//! `call` functions of whole vectors · `aggregate`, `fold_natives`, `ranked`, `values` aggregations · `binary`, `matching`
//! vectors with vectors · `info` labels of info series · `subquery` grids of their own · `finish` the result.

mod aggregate;
pub(crate) mod arithmetic;
mod binary;
mod call;
mod decoded;
mod fetch;
mod finish;
mod fold_natives;
mod info;
mod latest;
mod leaf;
mod matching;
mod names;
mod natives;
mod operands;
mod ranked;
mod stream;
mod subquery;
mod values;
mod windowed;
mod xxh64;

use std::{sync::Arc, time::Instant};

use chronolith_storage::{BoxFuture, Querier, SeriesSet};
use chronolith_syntax::ast::{Span, ValueType};
use hashbrown::HashMap;
use rayon::ThreadPool;

pub(crate) use self::{decoded::Decoded, finish::finish, natives::NativeSamples};
use crate::{
    annotations::Annotations,
    api::{QueryError, RangeSeries},
    explain::Costs,
    limits::{Interrupt, Ledger, STAGE_EVALUATION, too_many_samples},
    pause::{LONG_VALUES, Pause},
    plan::{Node, Op, Plan},
    series::{Column, Grid, SeriesColumn},
};

/// The value of an operator.
#[derive(Debug)]
pub(crate) enum Data {
    /// One float per step.
    Scalar(Vec<f64>),
    /// Columns by series.
    Vector(Vec<SeriesColumn>),
    /// A text.
    Text(String),
    /// Samples at their own times.
    Matrix(Vec<RangeSeries>),
}

/// How many samples were read, by step: Prometheus' `totalQueryableSamples`.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) samples: Vec<u64>,
}

impl Scope {
    pub(crate) fn new(grid: Grid) -> Self {
        Self { samples: vec![0; grid.count] }
    }

    fn total(&self) -> u64 {
        self.samples.iter().sum()
    }

    fn add(&mut self, other: &[u64]) {
        for (sum, more) in self.samples.iter_mut().zip(other) {
            *sum += more;
        }
    }
}

/// What evaluation works with.
pub(crate) struct Executor<'a> {
    pub(crate) plan: &'a Plan,
    /// By selection.
    pub(crate) sets: Vec<Arc<dyn SeriesSet>>,
    pub(crate) pool: &'a ThreadPool,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) ledger: &'a Ledger,
    pub(crate) notes: Annotations,
    /// Values of leaves that more than one operator uses, and how many uses are left.
    pub(crate) shared: HashMap<usize, SharedLeaf>,
    /// By selection, how many leaves have yet to read it.
    pub(crate) leaves_left: Vec<usize>,
    /// Samples, by selection, that more leaves are going to read.
    pub(crate) decoded: HashMap<usize, Decoded>,
    pub(crate) delayed_name_removal: bool,
    pub(crate) type_and_unit_labels: bool,
    pub(crate) pause: &'a Pause,
    /// For what cannot be selected before evaluation.
    pub(crate) querier: &'a dyn Querier,
    /// What operators take is noted there, if anybody wants to know.
    pub(crate) costs: Option<&'a Costs>,
}

/// The value of a leaf that is used again.
pub(crate) struct SharedLeaf {
    vector: Vec<SeriesColumn>,
    samples: Vec<u64>,
    notes: Annotations,
    /// Where the annotations may point: the leaf and its arguments.
    spans: Vec<Span>,
    uses_left: usize,
}

impl<'e> Executor<'e> {
    /// The value of `node`.
    pub(crate) fn eval<'a>(
        &'a mut self,
        node: &'a Node,
        scope: &'a mut Scope,
    ) -> BoxFuture<'a, Result<Data, QueryError>> {
        Box::pin(async move {
            self.interrupt.check(STAGE_EVALUATION)?;
            match node.kind {
                ValueType::Scalar => Ok(Data::Scalar(self.scalar(node, scope).await?)),
                ValueType::Vector => Ok(Data::Vector(self.vector(node, scope).await?)),
                ValueType::String => Ok(Data::Text(text(node)?.to_owned())),
                ValueType::Matrix => Ok(Data::Matrix(self.matrix(node, scope).await?)),
            }
        })
    }

    /// The value of a scalar `node` at each step.
    pub(crate) fn scalar<'a>(
        &'a mut self,
        node: &'a Node,
        scope: &'a mut Scope,
    ) -> BoxFuture<'a, Result<Vec<f64>, QueryError>> {
        Box::pin(async move {
            let count = node.grid.count;
            self.pause.before(count).await;
            let watch = self.watch();
            let values = match &node.op {
                Op::Number(value) => vec![*value; count],
                Op::Time => node.grid.times().map(|t| t as f64 / 1_000.0).collect(),
                Op::Negate(inner) => self.scalar(inner, scope).await?.into_iter().map(|v| -v).collect(),
                Op::Repeat(inner) => {
                    let mut once = Scope::new(inner.grid);
                    let values = self.scalar(inner, &mut once).await?;
                    repeat_scope(scope, &once);
                    vec![values.first().copied().unwrap_or(f64::NAN); count]
                }
                Op::BinaryScalars(op, lhs, rhs) => {
                    let lhs = self.scalar(lhs, scope).await?;
                    let rhs = self.scalar(rhs, scope).await?;
                    lhs.iter().zip(&rhs).map(|(a, b)| arithmetic::scalar_op(*op, *a, *b)).collect()
                }
                Op::Call(function, args) => self.scalar_call(*function, args, scope).await?,
                _ => return Err(unexpected(node)),
            };
            self.ledger.charge(values.len(), 0)?;
            if let Some((costs, since)) = watch {
                costs.scalar(node, since, values.len());
            }
            Ok(values)
        })
    }

    /// The value of a vector `node`. Series without any value may be among it.
    pub(crate) fn vector<'a>(
        &'a mut self,
        node: &'a Node,
        scope: &'a mut Scope,
    ) -> BoxFuture<'a, Result<Vec<SeriesColumn>, QueryError>> {
        Box::pin(async move {
            self.interrupt.check(STAGE_EVALUATION)?;
            self.pause.before(node.grid.count).await;
            let watch = self.watch();
            let before = self.ledger.held();
            let vector = match &node.op {
                Op::Leaf(leaf) => self.whole_leaf(leaf, node, scope).await?,
                Op::OverSubquery(over) => self.over_subquery(over, node, scope).await?,
                Op::Repeat(inner) => {
                    let mut once = Scope::new(inner.grid);
                    let vector = self.vector(inner, &mut once).await?;
                    repeat_scope(scope, &once);
                    repeat(vector, node.grid.count)
                }
                Op::Negate(_) | Op::Instant(..) | Op::OfHistograms(..) | Op::BinaryScalar(_) => {
                    self.elementwise(node, scope).await?
                }
                Op::Call(function, args) => self.vector_call(*function, args, node, scope).await?,
                Op::Absent { labels, unnamed, inner } => {
                    self.absent((labels, *unnamed), inner, node.grid, scope).await?
                }
                Op::Info(info) => self.info(info, node, scope).await?,
                Op::Aggregate(aggregate) => self.aggregate(aggregate, node, scope).await?,
                Op::BinaryVectors(binary) => self.binary_vectors(binary, node, scope).await?,
                _ => return Err(unexpected(node)),
            };
            self.ledger.release_to(before);
            self.charge_vector(&vector)?;
            if let Some((costs, since)) = watch {
                costs.vector(node, since, &vector);
            }
            Ok(vector)
        })
    }

    /// Where the cost of what begins now is noted.
    pub(crate) fn watch(&self) -> Option<(&'e Costs, Instant)> {
        self.costs.map(|costs| (costs, Instant::now()))
    }

    /// Charges what `vector` holds.
    pub(crate) fn charge_vector(&self, vector: &[SeriesColumn]) -> Result<(), QueryError> {
        let samples = vector.iter().map(|series| series.column.samples()).sum();
        let bytes = vector.iter().map(series_bytes).sum();
        self.ledger.charge(samples, bytes)
    }

    /// Refuses grids that no limit on samples would allow to fill.
    pub(crate) fn check_grid(&self, grid: Grid) -> Result<(), QueryError> {
        if grid.count > self.ledger.samples_max() { Err(too_many_samples()) } else { Ok(()) }
    }
}

/// Whether work on `series` series of `values` values each is worth more than the calling thread: to wake others takes
/// some microseconds, on a busy machine many more.
pub(crate) fn worth_threads(series: usize, values: usize) -> bool {
    series > 1 && series.saturating_mul(values) >= LONG_VALUES
}

/// About the memory a series of a vector takes.
pub(crate) fn series_bytes(series: &SeriesColumn) -> usize {
    size_of::<SeriesColumn>() + series.column.bytes()
}

/// The same value at `count` steps, from one of one step.
fn repeat(mut vector: Vec<SeriesColumn>, count: usize) -> Vec<SeriesColumn> {
    vector.retain(|series| !series.column.is_empty());
    for series in &mut vector {
        if let Some(value) = series.column.get(0) {
            series.column = Column::constant(value, count);
        } else if let Some(native) = series.column.histogram(0).map(Arc::clone) {
            series.column = Column::absent(count);
            (0..count).for_each(|step| series.column.set_histogram(step, Arc::clone(&native)));
        }
    }
    vector
}

/// What was read once counts at every step.
fn repeat_scope(scope: &mut Scope, once: &Scope) {
    let total = once.total();
    for sum in &mut scope.samples {
        *sum += total;
    }
}

/// The text of a string node.
pub(crate) fn text(node: &Node) -> Result<&str, QueryError> {
    if let Op::String(text) = &node.op { Ok(text) } else { Err(unexpected(node)) }
}

/// A plan that types forbid; not a panic, so that one query cannot take others down.
pub(crate) fn unexpected(node: &Node) -> QueryError {
    QueryError::Execution(format!("unexpected operator at byte {} of the query", node.span.start))
}
