//! Expressions pinned to a time with `@`.

use chronolith_model::Timestamp;
use chronolith_syntax::{
    ast::{At, DurationExpr, DurationKind, DurationNode, Expr, ExprKind, VectorSelector},
    walk,
};

/// Functions whose result varies with the evaluation time though their arguments do not.
const TIME_FUNCTIONS: [&str; 11] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
];

/// Functions that tell the bounds of the query.
const RANGE_FUNCTIONS: [&str; 4] = ["start", "end", "range", "step"];

/// What decides in which ways a query may be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its result varies with the evaluation time even when its selectors are pinned.
    pub(super) depends_on_time: bool,
    /// Its result varies with the bounds of a range query.
    pub(super) depends_on_range: bool,
    /// It gives a string, which has no range form.
    pub(super) is_string: bool,
    /// It gives a range vector, which has no range form.
    pub(super) is_range_vector: bool,
}

impl Facts {
    pub(super) fn of(expr: &Expr) -> Self {
        let mut facts = Self::default();
        let inner = expr.without_parens();
        facts.is_string = matches!(inner.kind, ExprKind::String(_));
        facts.is_range_vector = matches!(inner.kind, ExprKind::Matrix(_) | ExprKind::Subquery(_));
        visit(expr, &mut |expr| match &expr.kind {
            ExprKind::Call(call) => {
                let of_range = RANGE_FUNCTIONS.contains(&call.function.name);
                facts.depends_on_range |= of_range;
                facts.depends_on_time |= of_range || TIME_FUNCTIONS.contains(&call.function.name);
            }
            ExprKind::Vector(selector) => facts.depends_on_range |= selector_bound(selector),
            ExprKind::Matrix(matrix) => {
                facts.depends_on_range |=
                    selector_bound(&matrix.selector) || duration_bound(Some(&matrix.range));
            }
            ExprKind::Subquery(subquery) => {
                let durations = [Some(&subquery.range), subquery.step.as_ref(), subquery.offset.as_ref()];
                facts.depends_on_range |= at_bound(subquery.at) || durations.into_iter().any(duration_bound);
            }
            _ => {}
        });
        facts
    }
}

fn selector_bound(selector: &VectorSelector) -> bool {
    at_bound(selector.at) || duration_bound(selector.offset.as_ref())
}

fn at_bound(at: Option<At>) -> bool {
    matches!(at, Some(At::Start | At::End))
}

fn duration_bound(duration: Option<&DurationExpr>) -> bool {
    matches!(duration, Some(DurationExpr::Computed(node)) if node_bound(node))
}

fn node_bound(node: &DurationNode) -> bool {
    match &node.kind {
        DurationKind::Number(_) => false,
        DurationKind::Step | DurationKind::Range => true,
        DurationKind::MinOf(a, b) | DurationKind::MaxOf(a, b) | DurationKind::Binary(_, a, b) => {
            node_bound(a) || node_bound(b)
        }
        DurationKind::Unary(_, inner) | DurationKind::Paren(inner) => node_bound(inner),
    }
}

/// `expr` with `@ time` at each selector and subquery that has no `@ <time>` and is not inside a pinned subquery.
pub(super) fn pin(expr: &Expr, time: Timestamp) -> Expr {
    let mut pinned = expr.clone();
    pin_in_place(&mut pinned, time);
    pinned
}

fn pin_in_place(expr: &mut Expr, time: Timestamp) {
    match &mut expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => {}
        ExprKind::Vector(selector) => pin_at(&mut selector.at, time),
        ExprKind::Matrix(matrix) => pin_at(&mut matrix.selector.at, time),
        // A pinned subquery pins what is in it.
        ExprKind::Subquery(subquery) => pin_at(&mut subquery.at, time),
        ExprKind::Call(call) => call.args.iter_mut().for_each(|arg| pin_in_place(arg, time)),
        ExprKind::Aggregate(aggregate) => {
            if let Some(param) = &mut aggregate.param {
                pin_in_place(param, time);
            }
            pin_in_place(&mut aggregate.expr, time);
        }
        ExprKind::Binary(binary) => {
            pin_in_place(&mut binary.lhs, time);
            pin_in_place(&mut binary.rhs, time);
        }
        ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => pin_in_place(inner, time),
    }
}

/// `@ start()` and `@ end()` of an instant query are its time; asked at another time they would be another.
fn pin_at(at: &mut Option<At>, time: Timestamp) {
    if !matches!(at, Some(At::Timestamp(_))) {
        *at = Some(At::Timestamp(time));
    }
}

fn visit<'a>(expr: &'a Expr, f: &mut impl FnMut(&'a Expr)) {
    walk(expr, &mut |expr| {
        f(expr);
        true
    });
}
