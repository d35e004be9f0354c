//! Types of expressions, and going through a tree.

use crate::ast::{Expr, ExprKind, ValueType};

impl Expr {
    /// The type the expression evaluates to, given that it passed the type check.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Vector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Call(call) => call.function.returns,
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => inner.value_type(),
            // Both sides are vectors.
            ExprKind::Binary(binary) if binary.matching.is_some() => ValueType::Vector,
            ExprKind::Binary(binary) => binary_type(&binary.lhs, &binary.rhs),
        }
    }

    /// The expressions directly inside this one, in the order written (the parameter of an aggregation first).
    pub fn children(&self) -> impl Iterator<Item = &Expr> {
        let (first, second, rest): (Option<&Expr>, Option<&Expr>, &[Expr]) = match &self.kind {
            ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_) | ExprKind::Matrix(_) => {
                (None, None, &[])
            }
            ExprKind::Subquery(subquery) => (Some(&subquery.expr), None, &[]),
            ExprKind::Call(call) => (None, None, &call.args),
            ExprKind::Aggregate(aggregate) => (aggregate.param.as_deref(), Some(&aggregate.expr), &[]),
            ExprKind::Binary(binary) => (Some(&binary.lhs), Some(&binary.rhs), &[]),
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => (Some(inner), None, &[]),
        };
        first.into_iter().chain(second).chain(rest)
    }

    /// [`Expr::children`], to change them.
    pub fn children_mut(&mut self) -> impl Iterator<Item = &mut Expr> {
        let (first, second, rest): (Option<&mut Expr>, Option<&mut Expr>, &mut [Expr]) = match &mut self.kind
        {
            ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_) | ExprKind::Matrix(_) => {
                (None, None, &mut [])
            }
            ExprKind::Subquery(subquery) => (Some(&mut subquery.expr), None, &mut []),
            ExprKind::Call(call) => (None, None, &mut call.args),
            ExprKind::Aggregate(aggregate) => {
                (aggregate.param.as_deref_mut(), Some(&mut aggregate.expr), &mut [])
            }
            ExprKind::Binary(binary) => (Some(&mut binary.lhs), Some(&mut binary.rhs), &mut []),
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => (Some(inner), None, &mut []),
        };
        first.into_iter().chain(second).chain(rest)
    }

    /// The expression inside all parentheses around it.
    #[must_use]
    pub fn without_parens(&self) -> &Self {
        let mut expr = self;
        while let ExprKind::Paren(inner) = &expr.kind {
            expr = inner;
        }
        expr
    }
}

fn binary_type(left: &Expr, right: &Expr) -> ValueType {
    if left.value_type() == ValueType::Scalar && right.value_type() == ValueType::Scalar {
        ValueType::Scalar
    } else {
        ValueType::Vector
    }
}

/// Calls `visit` with `expr` and everything inside it, parents first, in the order written. Where it returns false, the
/// inside of that expression is left out.
pub fn walk<'a>(expr: &'a Expr, visit: &mut dyn FnMut(&'a Expr) -> bool) {
    if visit(expr) {
        for child in expr.children() {
            walk(child, visit);
        }
    }
}

/// [`walk`], to change what it visits.
pub fn walk_mut(expr: &mut Expr, visit: &mut dyn FnMut(&mut Expr) -> bool) {
    if visit(expr) {
        for child in expr.children_mut() {
            walk_mut(child, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{ParseOptions, parse};

    fn parsed(text: &str) -> Expr {
        parse(text, &ParseOptions::all()).unwrap()
    }

    #[test]
    fn types() {
        for (text, expected) in [
            ("1", ValueType::Scalar),
            ("'a'", ValueType::String),
            ("a", ValueType::Vector),
            ("a[5m]", ValueType::Matrix),
            ("a[5m:]", ValueType::Matrix),
            ("1 + 2", ValueType::Scalar),
            ("1 + a", ValueType::Vector),
            ("a and a", ValueType::Vector),
            ("time()", ValueType::Scalar),
            ("-(a)", ValueType::Vector),
            ("(1)", ValueType::Scalar),
            ("sum(a)", ValueType::Vector),
        ] {
            assert_eq!(parsed(text).value_type(), expected, "{text}");
        }
    }

    #[test]
    fn walks_in_the_order_written() {
        let mut expr = parsed("topk(scalar(a), -(b)) + rate(c[5m]) * max_over_time(d[5m:1m])");
        let names = |expr: &Expr, enter_calls: bool| {
            let mut names = String::new();
            walk(expr, &mut |expr| {
                match &expr.kind {
                    ExprKind::Vector(selector) => names.push_str(selector.name.as_deref().unwrap()),
                    ExprKind::Matrix(matrix) => names.push_str(matrix.selector.name.as_deref().unwrap()),
                    ExprKind::Call(_) => return enter_calls,
                    _ => {}
                }
                true
            });
            names
        };
        assert_eq!(names(&expr, true), "abcd");
        assert_eq!(names(&expr, false), "b");
        walk_mut(&mut expr, &mut |expr| {
            if let ExprKind::Vector(selector) = &mut expr.kind {
                selector.name = Some("x".to_owned());
            }
            true
        });
        assert_eq!(names(&expr, true), "xxcx");
    }

    #[test]
    fn parentheses_come_off() {
        assert_eq!(parsed("((a))").without_parens(), &parsed("a"));
    }
}
