//! Constants, and what is the same at every step.

use chronolith_syntax::ast::{Expr, ExprKind};

/// Functions that depend on the evaluation time even if their arguments do not.
const TIME_DEPENDENT: [&str; 11] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "time",
    "timestamp",
    "year",
];

/// How an expression relates to the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invariance {
    /// Its value is the same at every step.
    pub(crate) invariant: bool,
    /// It is worth evaluating once: not a literal, not a range vector.
    pub(crate) hoist: bool,
}

const VARIES: Invariance = Invariance { invariant: false, hoist: false };
const INVARIANT: Invariance = Invariance { invariant: true, hoist: true };

/// Follows Prometheus' rules: what it evaluates once decides what `totalQueryableSamples` counts.
pub(crate) fn invariance(expr: &Expr) -> Invariance {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => Invariance { invariant: true, hoist: false },
        ExprKind::Vector(selector) if selector.at.is_some() => INVARIANT,
        ExprKind::Vector(_) => VARIES,
        ExprKind::Matrix(matrix) => Invariance { invariant: matrix.selector.at.is_some(), hoist: false },
        ExprKind::Subquery(subquery) => Invariance { invariant: subquery.at.is_some(), hoist: false },
        ExprKind::Aggregate(aggregate) => invariance(&aggregate.expr),
        ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => invariance(inner),
        ExprKind::Binary(binary) => {
            if invariance(&binary.lhs).invariant && invariance(&binary.rhs).invariant {
                INVARIANT
            } else {
                VARIES
            }
        }
        ExprKind::Call(call) => {
            let arguments = call.args.iter().all(|arg| invariance(arg).invariant);
            let name = call.function.name;
            if matches!(name, "pi" | "start" | "end" | "range" | "step") {
                return Invariance { invariant: true, hoist: false };
            }
            let of_selector = || call.args.iter().all(|arg| matches!(unparen(arg).kind, ExprKind::Vector(_)));
            if arguments && (!TIME_DEPENDENT.contains(&name) || (name == "timestamp" && of_selector())) {
                INVARIANT
            } else {
                VARIES
            }
        }
    }
}

/// `expr` without the parentheses around it.
pub(crate) fn unparen(mut expr: &Expr) -> &Expr {
    while let ExprKind::Paren(inner) = &expr.kind {
        expr = inner;
    }
    expr
}
