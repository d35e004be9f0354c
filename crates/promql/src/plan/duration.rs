//! Duration expressions.

use chronolith_syntax::ast::{BinaryOp, DurationExpr, DurationKind, DurationNode, UnaryOp};

use crate::{api::QueryError, eval::arithmetic::scalar_op};

/// What `step()` and `range()` stand for, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DurationContext {
    pub(crate) step: f64,
    pub(crate) range: f64,
}

/// The milliseconds of `expr`.
///
/// # Errors
/// As Prometheus: a divisor of 0, a value that is no duration, one that is not above 0 unless `negative` is allowed.
pub(crate) fn resolve(
    expr: &DurationExpr,
    context: DurationContext,
    negative: bool,
) -> Result<i64, QueryError> {
    /// The nanoseconds of an `i64`, in seconds.
    const SECONDS_MAX: f64 = 9_223_372_036.854_776;
    let node = match expr {
        DurationExpr::Literal(ms) => return Ok(*ms),
        DurationExpr::Computed(node) => node,
    };
    let seconds = evaluate(node, context)?;
    if !seconds.is_finite() {
        return Err(error(node, "duration is NaN or infinite"));
    }
    if seconds <= 0.0 && !negative {
        return Err(error(node, "duration must be greater than 0"));
    }
    if seconds.abs() > SECONDS_MAX {
        return Err(error(node, "duration is out of range"));
    }
    Ok((seconds * 1_000.0) as i64)
}

fn error(node: &DurationNode, text: &str) -> QueryError {
    let span = node.span.0;
    QueryError::BadData(format!("{}:{}: {text}", span.start, span.end))
}

fn evaluate(node: &DurationNode, context: DurationContext) -> Result<f64, QueryError> {
    Ok(match &node.kind {
        DurationKind::Number(number) => number.value,
        DurationKind::Step => context.step,
        DurationKind::Range => context.range,
        DurationKind::MinOf(a, b) => min(evaluate(a, context)?, evaluate(b, context)?),
        DurationKind::MaxOf(a, b) => max(evaluate(a, context)?, evaluate(b, context)?),
        DurationKind::Binary(op, a, b) => {
            let (a, b) = (evaluate(a, context)?, evaluate(b, context)?);
            match op {
                BinaryOp::Div if b == 0.0 => return Err(error(node, "division by zero")),
                BinaryOp::Mod if b == 0.0 => return Err(error(node, "modulo by zero")),
                op => scalar_op(*op, a, b),
            }
        }
        DurationKind::Unary(UnaryOp::Plus, inner) => evaluate(inner, context)?,
        DurationKind::Unary(UnaryOp::Minus, inner) => -evaluate(inner, context)?,
        DurationKind::Paren(inner) => evaluate(inner, context)?,
    })
}

/// The lesser of two floats as Go's `math.Min`: -Inf wins, then NaN; -0 is less than 0.
pub(crate) fn min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == b {
        if a.is_sign_negative() { a } else { b }
    } else if a < b {
        a
    } else {
        b
    }
}

/// The greater of two floats as Go's `math.Max`: +Inf wins, then NaN; 0 is greater than -0.
pub(crate) fn max(a: f64, b: f64) -> f64 {
    -min(-a, -b)
}
