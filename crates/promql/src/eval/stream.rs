//! Series through operators that take one at a time.

use std::sync::atomic::{AtomicBool, Ordering};

use chronolith_storage::BoxFuture;
use chronolith_syntax::ast::{BinaryOp, Span};
use rayon::{ThreadPool, prelude::*};

use super::{
    Executor, Scope,
    arithmetic::{arithmetic, changes_schema, compare, trims},
    names::{drop_name, unify},
    worth_threads,
};
use crate::{
    annotations::Annotation,
    api::QueryError,
    functions::instant::{self, InstantFunction},
    limits::STAGE_EVALUATION,
    plan::{Node, Op},
    series::SeriesColumn,
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
    Scalar {
        op: BinaryOp,
        return_bool: bool,
        scalar: Vec<f64>,
        scalar_left: bool,
    },
    /// An operator that has no result for floats; `dropped` once there was one.
    Trim {
        op: BinaryOp,
        span: Span,
        dropped: AtomicBool,
    },
}

impl Element {
    const fn drops_name(&self) -> bool {
        match self {
            Self::Negate | Self::Instant(..) => true,
            Self::Trim { .. } => false,
            Self::Scalar { op, return_bool, .. } => *return_bool || changes_schema(*op),
        }
    }

    fn apply(&self, series: &mut SeriesColumn, delayed: bool) {
        match self {
            Self::Negate => series.column.map(|v| -v),
            Self::Instant(function, params) => {
                let params: Vec<&[f64]> = params.iter().map(Vec::as_slice).collect();
                instant::eval(*function, &params, &mut series.column);
            }
            Self::Trim { dropped, .. } => {
                if !series.column.is_empty() {
                    dropped.store(true, Ordering::Relaxed);
                }
                series.column.filter_map(|_, _| None);
            }
            Self::Scalar { op, return_bool, scalar, scalar_left } => {
                with_scalar(*op, *return_bool, scalar, *scalar_left, series);
            }
        }
        if self.drops_name() {
            drop_name(series, delayed);
        }
    }
}

fn with_scalar(
    op: BinaryOp,
    return_bool: bool,
    scalar: &[f64],
    scalar_left: bool,
    series: &mut SeriesColumn,
) {
    let sides = |step: usize, v: f64| if scalar_left { (scalar[step], v) } else { (v, scalar[step]) };
    series.column.filter_map(|step, v| {
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

/// Applies operators to batches on their way to another sink.
struct Map<'a> {
    elements: &'a [Element],
    delayed: bool,
    pool: &'a ThreadPool,
    inner: &'a mut dyn Sink,
}

impl Sink for Map<'_> {
    fn push(&mut self, mut batch: Vec<SeriesColumn>) -> Result<Option<usize>, QueryError> {
        for_each(self.pool, &mut batch, |series| {
            for element in self.elements {
                element.apply(series, self.delayed);
            }
        });
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
                        elements.push(Element::Negate);
                        inner
                    }
                    Op::Instant(function, inner, params) => {
                        let mut values = Vec::with_capacity(params.len());
                        for param in params {
                            values.push(self.scalar(param, scope).await?);
                        }
                        elements.push(Element::Instant(*function, values));
                        inner
                    }
                    Op::BinaryScalar(binary) if trims(binary.op) => {
                        // Evaluated for its annotations and for what it counts.
                        self.scalar(&binary.scalar, scope).await?;
                        let dropped = AtomicBool::new(false);
                        elements.push(Element::Trim { op: binary.op, span: base.span, dropped });
                        &binary.vector
                    }
                    Op::BinaryScalar(binary) => {
                        elements.push(Element::Scalar {
                            op: binary.op,
                            return_bool: binary.return_bool,
                            scalar: self.scalar(&binary.scalar, scope).await?,
                            scalar_left: binary.scalar_left,
                        });
                        &binary.vector
                    }
                    _ => break,
                };
            }
            elements.reverse();
            let delayed = self.delayed_name_removal;
            let drops_name = !delayed && elements.iter().any(Element::drops_name);
            if let Op::Leaf(leaf) = &base.op
                && self.plan.leaf_uses[leaf.id] == 1
                && !self.merges(leaf)
                && (!drops_name || self.differ_unnamed(leaf))
            {
                if elements.is_empty() {
                    return self.stream_leaf(leaf, base, scope, sink).await;
                }
                let pool = self.pool;
                let mut map = Map { elements: &elements, delayed, pool, inner: sink };
                self.stream_leaf(leaf, base, scope, &mut map).await?;
                self.note_dropped(&elements);
                return Ok(());
            }
            let mut vector = self.vector(base, scope).await?;
            for element in &elements {
                for_each(self.pool, &mut vector, |series| element.apply(series, delayed));
                vector.retain(|series| !series.column.is_empty());
                if element.drops_name() && !delayed {
                    vector = unify(vector)?;
                }
            }
            self.note_dropped(&elements);
            sink.push(vector)?;
            Ok(())
        })
    }

    fn note_dropped(&mut self, elements: &[Element]) {
        for element in elements {
            if let Element::Trim { op, span, dropped } = element
                && dropped.load(Ordering::Relaxed)
            {
                self.notes.add(Annotation::FloatsIncompatible(*op), *span);
            }
        }
    }
}
