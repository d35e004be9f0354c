//! Function calls.

use chronolith_model::{LabelsBuilder, METRIC_NAME, MatchOp, Matcher};
use chronolith_syntax::ast::{Call, Expr, ExprKind, RangeMode, Span, ValueType};

use super::{
    CallFunction, LeafFunction, Node, Op, OverSubquery,
    build::Builder,
    duration::{max, min},
    fold::{invariance, unparen},
};
use crate::{
    api::QueryError,
    functions::{instant::InstantFunction, observations::Observations, range::RangeFunction},
    series::Grid,
};

impl Builder {
    pub(super) fn call(&mut self, call: &Call, span: Span, grid: Grid) -> Result<Node, QueryError> {
        let around = self.around;
        match call.function.name {
            "histogram_count" | "histogram_sum" | "histogram_avg" => self.around.stats = true,
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => self.around.buckets = true,
            _ => {}
        }
        let node = self.call_inside(call, span, grid);
        self.around = around;
        node
    }

    fn call_inside(&mut self, call: &Call, span: Span, grid: Grid) -> Result<Node, QueryError> {
        let name = call.function.name;
        let node = |op| Node { op, grid, span, kind: call.function.returns };
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        let options = self.options;
        let op = match name {
            "time" => Op::Time,
            "pi" => Op::Number(std::f64::consts::PI),
            "start" => Op::Number(seconds(options.grid.start)),
            "end" => Op::Number(seconds(options.end)),
            "range" => Op::Number(self.durations.range),
            "step" => Op::Number(if options.end == options.grid.start { 0.0 } else { self.durations.step }),
            "absent" => {
                let inner = self.node(unparen(&call.args[0]), grid, Some(name))?;
                Op::Absent { labels: absent_labels(&call.args[0]), unnamed: false, inner: Box::new(inner) }
            }
            "absent_over_time" => {
                // Keeps the names: what it yields is only looked at for being there.
                let inner = self.range_call(RangeFunction::Last, call, span, grid)?;
                let labels = absent_labels(&call.args[0]);
                Op::Absent { labels, unnamed: true, inner: Box::new(node(inner)) }
            }
            "timestamp" | "start_timestamp" => return self.timestamp(call, span, grid),
            "info" => self.info(call, grid)?,
            _ => {
                if let Some(function) = RangeFunction::from_name(name) {
                    self.range_call(function, call, span, grid)?
                } else if let Some(function) = InstantFunction::from_name(name) {
                    self.instant_call(function, call, span, grid)?
                } else if let Some(function) = Observations::from_name(name) {
                    Op::OfHistograms(function, Box::new(self.node(unparen(&call.args[0]), grid, Some(name))?))
                } else {
                    let function = call_function(name)?;
                    let args = self.args(call, grid)?;
                    fold_call(function, args)
                }
            }
        };
        Ok(node(op))
    }

    fn args(&mut self, call: &Call, grid: Grid) -> Result<Vec<Node>, QueryError> {
        let node = |arg: &Expr| {
            let node = self.node(unparen(arg), grid, Some(call.function.name))?;
            Ok(Node { span: place(arg, call), ..node })
        };
        call.args.iter().map(node).collect()
    }

    fn instant_call(
        &mut self,
        function: InstantFunction,
        call: &Call,
        span: Span,
        grid: Grid,
    ) -> Result<Op, QueryError> {
        let mut args = self.args(call, grid)?.into_iter();
        // Date functions without an argument are about the evaluation time.
        let vector = args.next().unwrap_or_else(|| {
            let time = Node { op: Op::Time, grid, span, kind: ValueType::Scalar };
            Node { op: Op::Call(CallFunction::Vector, vec![time]), grid, span, kind: ValueType::Vector }
        });
        Ok(Op::Instant(function, Box::new(vector), args.collect()))
    }

    /// `timestamp` of a selector is a leaf of its own; of anything else, the evaluation time. `start_timestamp` alike,
    /// but of anything else, and where start timestamps do not count, there is none.
    fn timestamp(&mut self, call: &Call, span: Span, grid: Grid) -> Result<Node, QueryError> {
        let arg = unparen(&call.args[0]);
        let start = call.function.name == "start_timestamp";
        let op = if start && !self.options.start_timestamps {
            Op::Call(CallFunction::NoStart, self.args(call, grid)?)
        } else if let ExprKind::Vector(selector) = &arg.kind {
            let (instants, read) = self.instants(selector, grid)?;
            let function = if start {
                LeafFunction::LatestStart(instants)
            } else {
                LeafFunction::LatestTimestamp(instants)
            };
            Op::Leaf(self.leaf(selector, read, function, Vec::new(), vec![arg.span])?)
        } else {
            let function = if start { CallFunction::NoStart } else { CallFunction::Timestamp };
            Op::Call(function, self.args(call, grid)?)
        };
        Ok(Node { op, grid, span, kind: ValueType::Vector })
    }

    fn range_call(
        &mut self,
        function: RangeFunction,
        call: &Call,
        span: Span,
        grid: Grid,
    ) -> Result<Op, QueryError> {
        let mut params = Vec::new();
        let mut matrix = None;
        for arg in &call.args {
            let arg = unparen(arg);
            match &arg.kind {
                ExprKind::Matrix(_) | ExprKind::Subquery(_) => matrix = Some(arg),
                _ => params.push(self.node(arg, grid, Some(call.function.name))?),
            }
        }
        // As in Prometheus, what is noted about a subquery points at the beginning of the query.
        let arg_span = |arg: &Expr| match &unparen(arg).kind {
            ExprKind::Subquery(_) => Span::default(),
            _ => place(arg, call),
        };
        let arg_spans = call.args.iter().map(arg_span).collect();
        match matrix.map(|arg| &arg.kind) {
            Some(ExprKind::Matrix(matrix)) => {
                check_mode(matrix.selector.mode, call.function.name)?;
                let (windows, mut read) = self.matrix_windows(matrix, grid)?;
                read.1.function = Some(call.function.name);
                let function = LeafFunction::Range(function, windows);
                Ok(Op::Leaf(self.leaf(&matrix.selector, read, function, params, arg_spans)?))
            }
            Some(ExprKind::Subquery(subquery)) => {
                let (inner, windows) = self.subquery(subquery, grid)?;
                Ok(Op::OverSubquery(Box::new(OverSubquery { function, params, arg_spans, inner, windows })))
            }
            _ => Err(QueryError::Execution(format!(
                "{} at byte {} has no range vector",
                call.function.name, span.start
            ))),
        }
    }
}

/// Refuses functions for which samples outside of the window have no meaning.
fn check_mode(mode: RangeMode, function: &str) -> Result<(), QueryError> {
    let (word, allowed): (_, &[&str]) = match mode {
        RangeMode::Plain => return Ok(()),
        RangeMode::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
        RangeMode::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if allowed.contains(&function) {
        return Ok(());
    }
    let allowed = allowed.join(", ");
    Err(QueryError::Execution(format!(
        "{word} modifier can only be used with: {allowed} - not with {function}"
    )))
}

fn call_function(name: &str) -> Result<CallFunction, QueryError> {
    Ok(match name {
        "scalar" => CallFunction::Scalar,
        "vector" => CallFunction::Vector,
        "label_replace" => CallFunction::LabelReplace,
        "label_join" => CallFunction::LabelJoin,
        "histogram_quantile" => CallFunction::HistogramQuantile,
        "histogram_quantiles" => CallFunction::HistogramQuantiles,
        "histogram_fraction" => CallFunction::HistogramFraction,
        "sort" => CallFunction::Sort { descending: false },
        "sort_desc" => CallFunction::Sort { descending: true },
        "sort_by_label" => CallFunction::SortByLabel { descending: false },
        "sort_by_label_desc" => CallFunction::SortByLabel { descending: true },
        "max_of" => CallFunction::MaxOf,
        "min_of" => CallFunction::MinOf,
        _ => return Err(QueryError::Execution(format!("function {name} is not supported yet"))),
    })
}

/// The call, or its value if that is a constant.
fn fold_call(function: CallFunction, args: Vec<Node>) -> Op {
    if let [Node { op: Op::Number(a), .. }, Node { op: Op::Number(b), .. }] = args[..] {
        match function {
            CallFunction::MaxOf => return Op::Number(max(a, b)),
            CallFunction::MinOf => return Op::Number(min(a, b)),
            _ => {}
        }
    }
    Op::Call(function, args)
}

/// The labels `absent` gives its element: what equality matchers say, of names that have only one matcher.
fn absent_labels(arg: &Expr) -> chronolith_model::Labels {
    let matchers: &[Matcher] = match &unparen(arg).kind {
        ExprKind::Vector(selector) => &selector.matchers,
        ExprKind::Matrix(matrix) => &matrix.selector.matchers,
        _ => &[],
    };
    let mut labels = LabelsBuilder::default();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
        if matcher.op == MatchOp::Equal && !seen.contains(&matcher.name.as_str()) {
            labels.set(&matcher.name, &matcher.value);
            seen.push(&matcher.name);
        } else {
            labels.remove(&matcher.name);
        }
    }
    labels.build()
}

/// Where an argument of `call` stands, for what is noted about it. As in Prometheus without the parentheses around it, unless it
/// is the same at every step while the call is not.
fn place(arg: &Expr, call: &Call) -> Span {
    let once = invariance(arg);
    let varies = call.args.iter().any(|arg| !invariance(arg).invariant);
    if once.invariant && once.hoist && varies { arg.span } else { unparen(arg).span }
}
