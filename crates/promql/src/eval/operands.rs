//! Binary operators where a side may be a histogram.

use std::sync::Arc;

use chronolith_model::{CounterResetHint, FloatHistogram};
use chronolith_syntax::ast::BinaryOp;

use super::arithmetic::{arithmetic, compare, trims};
use crate::{
    annotations::{Annotation, HistogramOperation, SampleKind},
    series::{Column, Native},
};

/// One side.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operand<'a> {
    Float(f64),
    Native(&'a Native),
}

impl<'a> Operand<'a> {
    /// The value of `column` at `step`.
    pub(super) fn at(column: &'a Column, step: usize) -> Option<Self> {
        column.get(step).map(Self::Float).or_else(|| column.histogram(step).map(Self::Native))
    }

    const fn kind(self) -> SampleKind {
        match self {
            Self::Float(_) => SampleKind::Float,
            Self::Native(_) => SampleKind::Histogram,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Float(f64),
    Native(Native),
    /// A comparison that does not hold.
    Filtered,
}

impl Outcome {
    /// Makes it the value of `column` at `step`, which has none.
    pub(super) fn put(self, column: &mut Column, step: usize) {
        match self {
            Self::Float(value) => column.set(step, value),
            Self::Native(native) => column.set_histogram(step, native),
            Self::Filtered => {}
        }
    }
}

/// `left op right`, `bool` or not, and what there is to tell about it. Where there is no result, the reason.
pub(super) fn combine(
    op: BinaryOp,
    return_bool: bool,
    left: Operand<'_>,
    right: Operand<'_>,
) -> Result<(Outcome, Option<Annotation>), Annotation> {
    let truth = |holds: bool| Outcome::Float(f64::from(u8::from(holds)));
    match (left, right) {
        (Operand::Float(a), Operand::Float(b)) if !trims(op) => Ok((
            if !op.is_comparison() {
                Outcome::Float(arithmetic(op, a, b))
            } else if return_bool {
                truth(compare(op, a, b))
            } else if compare(op, a, b) {
                Outcome::Float(a)
            } else {
                Outcome::Filtered
            },
            None,
        )),
        (Operand::Native(native), Operand::Float(v)) if has_native_float(op) => {
            Ok((Outcome::Native(with_float(op, native, v)), None))
        }
        (Operand::Float(v), Operand::Native(native)) if op == BinaryOp::Mul => {
            Ok((Outcome::Native(with_float(op, native, v)), None))
        }
        (Operand::Native(a), Operand::Native(b)) => match op {
            BinaryOp::Add | BinaryOp::Sub => sum_or_difference(op, a, b),
            BinaryOp::Eql | BinaryOp::Neq => {
                let holds = a.same_observations(b) == (op == BinaryOp::Eql);
                Ok((
                    if return_bool {
                        truth(holds)
                    } else if holds {
                        Outcome::Native(Arc::clone(a))
                    } else {
                        Outcome::Filtered
                    },
                    None,
                ))
            }
            _ => Err(incompatible(op, left, right)),
        },
        _ => Err(incompatible(op, left, right)),
    }
}

/// That `op` has no result for samples of these kinds.
fn incompatible(op: BinaryOp, left: Operand<'_>, right: Operand<'_>) -> Annotation {
    Annotation::IncompatibleTypes { op, left: left.kind(), right: right.kind() }
}

/// Whether there is a result for a histogram on the left and a float on the right.
const fn has_native_float(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::Mul | BinaryOp::Div | BinaryOp::TrimLower | BinaryOp::TrimUpper)
}

fn with_float(op: BinaryOp, native: &Native, v: f64) -> Native {
    let mut native = FloatHistogram::clone(native);
    match op {
        BinaryOp::Mul => native.multiply(v),
        BinaryOp::Div => native.divide(v),
        BinaryOp::TrimUpper => native.trim_upper(v),
        _ => native.trim_lower(v),
    }
    if matches!(op, BinaryOp::Mul | BinaryOp::Div) {
        native.compact();
    }
    Arc::new(native)
}

fn sum_or_difference(
    op: BinaryOp,
    a: &Native,
    b: &Native,
) -> Result<(Outcome, Option<Annotation>), Annotation> {
    let mut native = FloatHistogram::clone(a);
    let (operation, combined) = if op == BinaryOp::Add {
        (HistogramOperation::Addition, native.add(b))
    } else {
        (HistogramOperation::Subtraction, native.subtract(b))
    };
    let Ok(combined) = combined else { return Err(Annotation::IncompatibleBuckets(op)) };
    if combined.hints_collide {
        return Err(Annotation::ResetCollision(operation));
    }
    if op == BinaryOp::Sub {
        native.set_hint(CounterResetHint::Gauge);
    }
    native.compact();
    let info = combined.bounds_reconciled.then_some(Annotation::BoundsReconciled(operation));
    Ok((Outcome::Native(Arc::new(native)), info))
}
