//! `info()`: which info series it looks at, and when.

use chronolith_model::{METRIC_NAME, MatchOp, Matcher, TimeRange};
use chronolith_storage::SelectHints;
use chronolith_syntax::ast::{Call, Expr, ExprKind};

use super::{
    Info, Instants, Op,
    build::{Builder, Target},
    fold::unparen,
};
use crate::{api::QueryError, series::Grid};

/// The info metric where none is named.
const TARGET_INFO: &str = "target_info";
/// What names must look like where it is only said what they are not.
const INFO_NAMES: &str = ".+_info";

/// The time of the first selector of an expression: at `fixed`, if there is one, or at the evaluation time; so many
/// milliseconds before that.
#[derive(Clone, Copy, Debug, Default)]
struct Reference {
    fixed: Option<i64>,
    offset: i64,
}

impl Builder {
    pub(super) fn info(&mut self, call: &Call, grid: Grid) -> Result<Op, QueryError> {
        let base = self.node(unparen(&call.args[0]), grid, Some(call.function.name))?;
        let Reference { fixed, offset } = self.reference(&call.args[0])?.unwrap_or_default();
        let Target { end, first, last } = Target::new(fixed, offset, grid);
        let lookback = self.options.lookback;
        let range = TimeRange::new(first.saturating_sub(lookback).saturating_add(1), last);
        self.reads(range);
        let selector = call.args.get(1).map(|labels| &unparen(labels).kind);
        let matchers: &[Matcher] = match selector {
            Some(ExprKind::Vector(selector)) => &selector.matchers,
            _ => &[],
        };
        let (names, data) = matchers.iter().cloned().partition(|matcher| matcher.name == METRIC_NAME);
        let hints = SelectHints { step: self.options.step, range: 0, function: Some(call.function.name) };
        Ok(Op::Info(Box::new(Info {
            base,
            names: info_names(names),
            data,
            instants: Instants { grid, end, lookback },
            range,
            hints,
        })))
    }

    /// Where the first selector in `expr` looks. Offsets of the subqueries around it add up, until one of them is pinned
    /// by `@`: what is further out does not matter then.
    fn reference(&self, expr: &Expr) -> Result<Option<Reference>, QueryError> {
        let selector = match &expr.kind {
            ExprKind::Number(_) | ExprKind::String(_) => return Ok(None),
            ExprKind::Vector(selector) => selector,
            ExprKind::Matrix(matrix) => &matrix.selector,
            ExprKind::Subquery(subquery) => {
                let Some(inner) = self.reference(&subquery.expr)? else { return Ok(None) };
                if inner.fixed.is_some() {
                    return Ok(Some(inner));
                }
                let offset = inner.offset.saturating_add(self.offset(subquery.offset.as_ref())?);
                return Ok(Some(Reference { fixed: self.fixed(subquery.at), offset }));
            }
            ExprKind::Call(call) => return self.first_reference(&call.args),
            ExprKind::Aggregate(aggregate) => {
                let of_expr = self.reference(&aggregate.expr)?;
                return match &aggregate.param {
                    Some(param) if of_expr.is_none() => self.reference(param),
                    _ => Ok(of_expr),
                };
            }
            ExprKind::Binary(binary) => {
                let left = self.reference(&binary.lhs)?;
                return if left.is_some() { Ok(left) } else { self.reference(&binary.rhs) };
            }
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => return self.reference(inner),
        };
        let offset = self.offset(selector.offset.as_ref())?;
        Ok(Some(Reference { fixed: self.fixed(selector.at), offset }))
    }

    fn first_reference(&self, args: &[Expr]) -> Result<Option<Reference>, QueryError> {
        for arg in args {
            if let Some(found) = self.reference(arg)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// What the names of info series meet, by what was written.
fn info_names(mut names: Vec<Matcher>) -> Vec<Matcher> {
    if names.is_empty() {
        names.push(Matcher::new(METRIC_NAME, MatchOp::Equal, TARGET_INFO));
    } else if names.iter().all(|matcher| matches!(matcher.op, MatchOp::NotEqual | MatchOp::NotRegex)) {
        names.insert(0, Matcher::new(METRIC_NAME, MatchOp::Regex, INFO_NAMES));
    }
    names
}
