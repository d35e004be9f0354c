//! The recursion over the tree.

use std::collections::{HashMap, hash_map::Entry};

use chronolith_model::{METRIC_NAME, MatchOp, Matcher, TimeRange};
use chronolith_storage::SelectHints;
use chronolith_syntax::ast::{
    self, At, Binary, Expr, ExprKind, Grouping, RangeMode, Span, UnaryOp, ValueType, VectorSelector,
};

use super::{
    Aggregate, BinaryScalar, BinaryVectors, Leaf, LeafFunction, Node, Op, Plan, PlanOptions, Selection,
    duration::{DurationContext, resolve},
    fold::{invariance, unparen},
};
use crate::{
    api::QueryError,
    eval::arithmetic::{scalar_op, trims},
    functions::range::RangeFunction,
    limits::hull,
    plan::Instants,
    series::{Grid, WindowEnd, Windows},
};

/// Plans `expr`.
///
/// # Errors
/// Where a duration expression has no value, or a function needs what is not there.
pub(crate) fn plan(expr: &Expr, options: PlanOptions) -> Result<Plan, QueryError> {
    let range_seconds = options.end.saturating_sub(options.grid.start) as f64 / 1_000.0;
    let durations = DurationContext { step: options.step as f64 / 1_000.0, range: range_seconds };
    let mut builder = Builder {
        options,
        durations,
        selections: Vec::new(),
        by_request: HashMap::new(),
        leaves: HashMap::new(),
        selection_leaves: Vec::new(),
        leaf_uses: Vec::new(),
        range: None,
        around: Around::default(),
    };
    let root = builder.node(expr, options.grid, None)?;
    let Builder { selections, selection_leaves, leaf_uses, range, .. } = builder;
    let start_timestamps = options.start_timestamps;
    Ok(Plan { root, selections, selection_leaves, leaf_uses, range, start_timestamps })
}

pub(super) struct Builder {
    pub(super) options: PlanOptions,
    pub(super) durations: DurationContext,
    selections: Vec<Selection>,
    by_request: HashMap<(Vec<Matcher>, TimeRange), usize>,
    leaves: HashMap<LeafKey, usize>,
    selection_leaves: Vec<usize>,
    leaf_uses: Vec<usize>,
    range: Option<TimeRange>,
    /// What is around the expression that is being planned.
    pub(super) around: Around,
}

/// Operators around an expression that decide what is needed of histograms.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Around {
    /// Some that ask for their counts or sums.
    pub(super) stats: bool,
    /// Some that need their buckets: quantiles, fractions, trims; subqueries too, whose steps are compared anew.
    pub(super) buckets: bool,
}

/// What makes two leaves equal; only leaves whose parameters are constants have one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LeafKey {
    selection: usize,
    function: String,
    stats: bool,
    params: Vec<u64>,
}

/// Where a selector looks, relative to the grid it stands on.
pub(super) struct Target {
    pub(super) end: WindowEnd,
    /// Times of the first and last step looked at.
    pub(super) first: i64,
    pub(super) last: i64,
}

impl Target {
    /// At `fixed`, or at the steps of `grid`; `offset` milliseconds before that.
    pub(super) fn new(fixed: Option<i64>, offset: i64, grid: Grid) -> Self {
        match fixed.map(|t| t.saturating_sub(offset)) {
            Some(t) => Self { end: WindowEnd::Fixed(t), first: t, last: t },
            None => Self {
                end: WindowEnd::Offset(offset),
                first: grid.start.saturating_sub(offset),
                last: grid.end().saturating_sub(offset),
            },
        }
    }
}

impl Builder {
    /// Plans `expr` on `grid`; hoists it out of the steps if it does not depend on them. `function` is the innermost
    /// call or aggregation around it.
    pub(super) fn node(
        &mut self,
        expr: &Expr,
        grid: Grid,
        function: Option<&'static str>,
    ) -> Result<Node, QueryError> {
        let how = invariance(expr);
        if grid.count > 1 && how.invariant && how.hoist {
            let inner = self.operator(expr, Grid::single(grid.start), function)?;
            if let Op::Number(_) = inner.op {
                return Ok(Node { grid, ..inner });
            }
            let (span, kind) = (inner.span, inner.kind);
            return Ok(Node { op: Op::Repeat(Box::new(inner)), grid, span, kind });
        }
        self.operator(expr, grid, function)
    }

    fn operator(
        &mut self,
        expr: &Expr,
        grid: Grid,
        function: Option<&'static str>,
    ) -> Result<Node, QueryError> {
        let op = match &expr.kind {
            ExprKind::Number(number) => Op::Number(number.value),
            ExprKind::String(text) => Op::String(text.clone()),
            ExprKind::Paren(inner) => return self.node(inner, grid, function),
            ExprKind::Unary(UnaryOp::Plus, inner) => return self.node(inner, grid, function),
            ExprKind::Unary(UnaryOp::Minus, inner) => {
                let inner = self.node(inner, grid, function)?;
                if let Op::Number(value) = inner.op {
                    Op::Number(-value)
                } else {
                    Op::Negate(Box::new(inner))
                }
            }
            ExprKind::Vector(selector) => {
                let (instants, mut read) = self.instants(selector, grid)?;
                read.1.function = function;
                let function = if selector.mode == RangeMode::Smoothed {
                    read.0.max = read.0.max.saturating_add(instants.lookback);
                    LeafFunction::Smoothed(instants)
                } else {
                    LeafFunction::Latest(instants)
                };
                Op::Leaf(self.leaf(selector, read, function, Vec::new(), Vec::new())?)
            }
            ExprKind::Matrix(matrix) => {
                let (windows, hull) = self.matrix_windows(matrix, grid)?;
                let function = LeafFunction::Range(RangeFunction::Last, windows);
                Op::RawMatrix(self.leaf(&matrix.selector, hull, function, Vec::new(), Vec::new())?)
            }
            ExprKind::Subquery(subquery) => Op::RawSubquery(Box::new(self.subquery(subquery, grid)?.0)),
            ExprKind::Call(call) => return self.call(call, expr.span, grid),
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate, grid)?,
            ExprKind::Binary(binary) => self.binary(binary, grid)?,
        };
        Ok(Node { op, grid, span: expr.span, kind: expr.value_type() })
    }

    fn aggregate(&mut self, aggregate: &ast::Aggregate, grid: Grid) -> Result<Op, QueryError> {
        let name = Some(aggregate.op.as_str());
        let param = match &aggregate.param {
            Some(param) => Some(self.node(unparen(param), grid, None)?),
            None => None,
        };
        let input = self.node(unparen(&aggregate.expr), grid, name)?;
        // Notes about what is aggregated point at the parentheses around it, as in Prometheus; those inside do not.
        let input_span = aggregate.expr.span;
        let grouping = aggregate.grouping.clone().unwrap_or(Grouping { without: false, labels: Vec::new() });
        Ok(Op::Aggregate(Box::new(Aggregate { op: aggregate.op, param, grouping, input, input_span })))
    }

    /// Plans an expression inside of an operator that needs the buckets of histograms.
    fn with_buckets<T>(&mut self, plan: impl FnOnce(&mut Self) -> T) -> T {
        let around = self.around;
        self.around.buckets = true;
        let planned = plan(self);
        self.around = around;
        planned
    }

    fn binary(&mut self, binary: &Binary, grid: Grid) -> Result<Op, QueryError> {
        let Binary { op, return_bool, .. } = *binary;
        let sides = |builder: &mut Self| {
            Ok::<_, QueryError>((
                builder.node(&binary.lhs, grid, None)?,
                builder.node(&binary.rhs, grid, None)?,
            ))
        };
        let (lhs, rhs) = if trims(op) { self.with_buckets(sides)? } else { sides(self)? };
        if trims(op) && (lhs.kind, rhs.kind) == (ValueType::Scalar, ValueType::Scalar) {
            return Err(QueryError::Execution(format!(
                "operator {:?} not allowed for Scalar operations",
                op.as_str()
            )));
        }
        Ok(match (lhs.kind, rhs.kind) {
            (ValueType::Scalar, ValueType::Scalar) => {
                if let (Op::Number(a), Op::Number(b)) = (&lhs.op, &rhs.op) {
                    Op::Number(scalar_op(op, *a, *b))
                } else {
                    Op::BinaryScalars(op, Box::new(lhs), Box::new(rhs))
                }
            }
            (ValueType::Scalar, _) => Op::BinaryScalar(Box::new(BinaryScalar {
                op,
                return_bool,
                vector: rhs,
                scalar: lhs,
                scalar_left: true,
            })),
            (_, ValueType::Scalar) => Op::BinaryScalar(Box::new(BinaryScalar {
                op,
                return_bool,
                vector: lhs,
                scalar: rhs,
                scalar_left: false,
            })),
            _ => {
                let mut matching = binary.matching.clone().unwrap_or_default();
                if op.is_set() {
                    matching.card = ast::Cardinality::ManyToMany;
                }
                Op::BinaryVectors(Box::new(BinaryVectors { op, return_bool, lhs, rhs, matching }))
            }
        })
    }

    /// A leaf over `selector`. Equal ones get the same id.
    pub(super) fn leaf(
        &mut self,
        selector: &VectorSelector,
        (range, hints): (TimeRange, SelectHints),
        function: LeafFunction,
        params: Vec<Node>,
        arg_spans: Vec<Span>,
    ) -> Result<Leaf, QueryError> {
        let constants: Option<Vec<u64>> = params
            .iter()
            .map(|param| if let Op::Number(value) = param.op { Some(value.to_bits()) } else { None })
            .collect();
        let selection = self.selection(selector, range, hints);
        let fresh = self.leaf_uses.len();
        let stats = self.around.stats && !self.around.buckets;
        let key =
            constants.map(|params| LeafKey { selection, function: format!("{function:?}"), stats, params });
        let id = match key.map(|key| self.leaves.entry(key)) {
            Some(Entry::Occupied(known)) => *known.get(),
            Some(Entry::Vacant(free)) => *free.insert(fresh),
            None => fresh,
        };
        if id == fresh {
            self.leaf_uses.push(0);
            self.selection_leaves[selection] += 1;
        }
        self.leaf_uses[id] += 1;
        Ok(Leaf { id, selection, function, params, arg_spans, stats })
    }

    fn selection(&mut self, selector: &VectorSelector, range: TimeRange, hints: SelectHints) -> usize {
        self.reads(range);
        let key = (selector.matchers.clone(), range);
        if let Some(known) = self.by_request.get(&key) {
            return *known;
        }
        self.by_request.insert(key, self.selections.len());
        let matchers = selector.matchers.clone();
        let one_name = selector.matchers.iter().any(|m| m.name == METRIC_NAME && m.op == MatchOp::Equal);
        self.selection_leaves.push(0);
        self.selections.push(Selection { matchers, range, hints, one_name });
        self.selections.len() - 1
    }

    /// Where an instant selector looks, and what it must read for that.
    pub(super) fn instants(
        &mut self,
        selector: &VectorSelector,
        grid: Grid,
    ) -> Result<(Instants, (TimeRange, SelectHints)), QueryError> {
        let lookback = self.options.lookback;
        let target = self.target(selector.at, selector.offset.as_ref(), grid)?;
        let range = TimeRange::new(target.first.saturating_sub(lookback).saturating_add(1), target.last);
        let hints = SelectHints { step: self.options.step, range: 0, function: None };
        Ok((Instants { grid, end: target.end, lookback }, (range, hints)))
    }

    /// The windows of a range selector, and what they must read.
    pub(super) fn matrix_windows(
        &mut self,
        matrix: &ast::MatrixSelector,
        grid: Grid,
    ) -> Result<(Windows, (TimeRange, SelectHints)), QueryError> {
        let mode = matrix.selector.mode;
        let range = resolve(&matrix.range, self.durations, false)?;
        let target = self.target(matrix.selector.at, matrix.selector.offset.as_ref(), grid)?;
        let windows = Windows { grid, end: target.end, range, mode, lookback: self.options.lookback };
        let (left, right) = windows.reach();
        let first = target.first.saturating_sub(range).saturating_sub(left).saturating_add(1);
        let read = TimeRange::new(first, target.last.saturating_add(right));
        Ok((windows, (read, SelectHints { step: self.options.step, range, function: None })))
    }

    /// The expression of a subquery on its own grid, and the windows over that.
    pub(super) fn subquery(
        &mut self,
        subquery: &ast::Subquery,
        grid: Grid,
    ) -> Result<(Node, Windows), QueryError> {
        let target = self.target(subquery.at, subquery.offset.as_ref(), grid)?;
        let step = match &subquery.step {
            Some(step) => resolve(step, self.durations, false)?,
            None => self.options.subquery_step,
        }
        .max(1);
        let range = resolve(&subquery.range, self.durations, false)?;
        let before = target.first.saturating_sub(range);
        // The first multiple of the step after `before`.
        let start = before.div_euclid(step).saturating_add(1).saturating_mul(step);
        let count = if grid.count == 0 || target.last < start { 0 } else { (target.last - start) / step + 1 };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let inner = Grid { start, step, count };
        let inner = self.with_buckets(|builder| builder.node(&subquery.expr, inner, None))?;
        let lookback = self.options.lookback;
        Ok((inner, Windows { grid, end: target.end, range, mode: RangeMode::Plain, lookback }))
    }

    fn target(
        &self,
        at: Option<At>,
        offset: Option<&ast::DurationExpr>,
        grid: Grid,
    ) -> Result<Target, QueryError> {
        let offset = self.offset(offset)?;
        Ok(Target::new(self.fixed(at), offset, grid))
    }

    /// The milliseconds of an `offset`.
    pub(super) fn offset(&self, offset: Option<&ast::DurationExpr>) -> Result<i64, QueryError> {
        offset.map_or(Ok(0), |offset| resolve(offset, self.durations, true))
    }

    /// The time that `@` stands for.
    pub(super) fn fixed(&self, at: Option<At>) -> Option<i64> {
        match at? {
            At::Timestamp(t) => Some(t),
            At::Start => Some(self.options.grid.start),
            At::End => Some(self.options.end),
        }
    }

    /// Widens what the query reads by `range`.
    pub(super) fn reads(&mut self, range: TimeRange) {
        if range.min <= range.max {
            self.range = Some(hull(self.range, range));
        }
    }
}
