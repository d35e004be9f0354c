//! Types and arities, checked on the finished tree.

use std::collections::HashSet;

use chronolith_model::{METRIC_NAME, MatchOp, Matcher};

use super::{Parsed, Parser};
use crate::{
    ast::{
        Aggregate, AggregateOp, Binary, Call, Cardinality, Expr, ExprKind, Matching, Span, ValueType,
        VectorSelector,
    },
    text::quoted,
};

/// Checks `expr` and all in it, and completes what depends on types: how the sides of operators match.
pub(super) fn check(parser: &Parser<'_>, expr: &mut Expr) -> Parsed<ValueType> {
    let span = expr.span;
    match &mut expr.kind {
        ExprKind::Number(_) => Ok(ValueType::Scalar),
        ExprKind::String(_) => Ok(ValueType::String),
        ExprKind::Vector(selector) => {
            check_selector(parser, selector, span, false)?;
            Ok(ValueType::Vector)
        }
        ExprKind::Matrix(matrix) => {
            check_selector(parser, &matrix.selector, matrix.selector_span.0, false)?;
            Ok(ValueType::Matrix)
        }
        ExprKind::Subquery(subquery) => {
            let found = check(parser, &mut subquery.expr)?;
            check_subquery(parser, found, span)
        }
        ExprKind::Call(call) => check_call(parser, call, span),
        ExprKind::Aggregate(aggregate) => check_aggregate(parser, aggregate),
        ExprKind::Binary(binary) => check_binary(parser, binary, span),
        ExprKind::Unary(_, inner) => {
            let found = check(parser, inner)?;
            check_unary(parser, found, span)
        }
        ExprKind::Paren(inner) => check(parser, inner),
    }
}

fn check_subquery(parser: &Parser<'_>, found: ValueType, span: Span) -> Parsed<ValueType> {
    if found == ValueType::Vector {
        return Ok(ValueType::Matrix);
    }
    let found = found.as_str();
    parser.meaning_error(span, format!("subquery is only allowed on instant vector, got {found} instead"))
}

fn check_unary(parser: &Parser<'_>, found: ValueType, span: Span) -> Parsed<ValueType> {
    if matches!(found, ValueType::Scalar | ValueType::Vector) {
        return Ok(found);
    }
    let found = found.documented();
    let rule = "unary expression only allowed on expressions of type scalar or instant vector";
    parser.meaning_error(span, format!("{rule}, got \"{found}\""))
}

fn expect_type(parser: &Parser<'_>, expr: &mut Expr, expected: ValueType, place: &str) -> Parsed<()> {
    let found = check(parser, expr)?;
    if found == expected {
        return Ok(());
    }
    let (expected, found) = (expected.documented(), found.documented());
    parser.meaning_error(expr.span, format!("expected type {expected} in {place}, got {found}"))
}

fn check_aggregate(parser: &Parser<'_>, aggregate: &mut Aggregate) -> Parsed<ValueType> {
    expect_type(parser, &mut aggregate.expr, ValueType::Vector, "aggregation expression")?;
    let expected =
        if aggregate.op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
    if let Some(param) = &mut aggregate.param {
        expect_type(parser, param, expected, "aggregation parameter")?;
    }
    Ok(ValueType::Vector)
}

fn check_call(parser: &Parser<'_>, call: &mut Call, span: Span) -> Parsed<ValueType> {
    let function = call.function;
    let (name, count) = (function.name, call.args.len());
    if function.variadic == 0 && count != function.args.len() {
        let expected = function.args.len();
        let message = format!("expected {expected} argument(s) in call to \"{name}\", got {count}");
        return parser.meaning_error(span, message);
    }
    let least = function.min_args();
    if count < least {
        let message = format!("expected at least {least} argument(s) in call to \"{name}\", got {count}");
        return parser.meaning_error(span, message);
    }
    if let Some(most) = function.max_args().filter(|most| count > *most) {
        let message = format!("expected at most {most} argument(s) in call to \"{name}\", got {count}");
        return parser.meaning_error(span, message);
    }
    let place = format!("call to function \"{name}\"");
    let takes_labels = name == "info";
    if takes_labels {
        check_info_labels(parser, call, span, &place)?;
    }
    for (index, arg) in call.args.iter_mut().enumerate() {
        if let (true, 1, ExprKind::Vector(selector)) = (takes_labels, index, &arg.kind) {
            check_selector(parser, selector, arg.span, true)?;
            continue;
        }
        // The counts were compared above, so every argument has a type.
        if let Some(expected) = function.arg_type(index) {
            expect_type(parser, arg, expected, &place)?;
        }
    }
    Ok(function.returns)
}

/// The second argument of `info` is a selector that names labels and no metric.
fn check_info_labels(parser: &Parser<'_>, call: &Call, span: Span, place: &str) -> Parsed<()> {
    let Some(labels) = call.args.get(1) else { return Ok(()) };
    let found = labels.value_type();
    if found != ValueType::Vector {
        let (expected, found) = (ValueType::Vector.documented(), found.documented());
        return parser.meaning_error(span, format!("expected type {expected} in {place}, got {found}"));
    }
    match &labels.kind {
        ExprKind::Vector(selector) if selector.name.is_none() => Ok(()),
        ExprKind::Vector(_) => {
            parser.meaning_error(labels.span, "expected label selectors only, got vector selector instead")
        }
        _ => parser.meaning_error(labels.span, "expected label selectors only"),
    }
}

fn check_binary(parser: &Parser<'_>, binary: &mut Binary, span: Span) -> Parsed<ValueType> {
    let left = check(parser, &mut binary.lhs)?;
    let right = check(parser, &mut binary.rhs)?;
    let op = binary.op;
    let operator = operator_span(parser, binary);
    if binary.return_bool && !op.is_comparison() {
        return parser.meaning_error(operator, "bool modifier can only be used on comparison operators");
    }
    let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
    if op.is_comparison() && !binary.return_bool && scalars {
        return parser.meaning_error(operator, "comparisons between scalars must use BOOL modifier");
    }
    let mut matching = binary.matching.take().unwrap_or_default();
    if op.is_set() && matching.card == Cardinality::OneToOne {
        matching.card = Cardinality::ManyToMany;
    }
    if matching.on {
        check_labels_disjoint(parser, &matching, operator)?;
    }
    for (found, side) in [(left, &binary.lhs), (right, &binary.rhs)] {
        if !matches!(found, ValueType::Scalar | ValueType::Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            return parser.meaning_error(side.span, message);
        }
    }
    if left == ValueType::Vector && right == ValueType::Vector {
        check_set_matching(parser, binary, &matching, span)?;
        binary.matching = Some(matching);
        return Ok(ValueType::Vector);
    }
    if !matching.labels.is_empty() {
        return parser.meaning_error(span, "vector matching only allowed between instant vectors");
    }
    if matching.fill_left.is_some() || matching.fill_right.is_some() {
        return parser.meaning_error(span, "filling in missing series only allowed between instant vectors");
    }
    if op.is_set() {
        let op = op.as_str();
        let message = format!("set operator \"{op}\" not allowed in binary scalar expression");
        return parser.meaning_error(span, message);
    }
    Ok(if scalars { ValueType::Scalar } else { ValueType::Vector })
}

fn check_labels_disjoint(parser: &Parser<'_>, matching: &Matching, operator: Span) -> Parsed<()> {
    let include: HashSet<&String> = matching.include.iter().collect();
    let Some(label) = matching.labels.iter().find(|label| include.contains(label)) else { return Ok(()) };
    let label = quoted(label);
    parser.meaning_error(operator, format!("label {label} must not occur in ON and GROUP clause at once"))
}

fn check_set_matching(parser: &Parser<'_>, binary: &Binary, matching: &Matching, span: Span) -> Parsed<()> {
    if !binary.op.is_set() {
        return Ok(());
    }
    if matching.card != Cardinality::ManyToMany {
        let op = binary.op.as_str();
        return parser.meaning_error(span, format!("no grouping allowed for \"{op}\" operation"));
    }
    if matching.fill_left.is_some() || matching.fill_right.is_some() {
        return parser.meaning_error(span, "filling in missing series not allowed for set operators");
    }
    Ok(())
}

/// From after the left operand to before the right one, without the white space at both ends.
fn operator_span(parser: &Parser<'_>, binary: &Binary) -> Span {
    let (start, end) = (binary.lhs.span.end, binary.rhs.span.start);
    let between = parser.text.get(start..end).unwrap_or_default();
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    let start = start + (between.len() - between.trim_start_matches(is_space).len());
    Span { start, end: start + between.trim_matches(is_space).len() }
}

/// `any` allows a selector that may select everything.
fn check_selector(parser: &Parser<'_>, selector: &VectorSelector, span: Span, any: bool) -> Parsed<()> {
    let Some(name) = &selector.name else {
        if any || selector.matchers.iter().any(|matcher| rejects_empty(parser, matcher)) {
            return Ok(());
        }
        let message = "vector selector must contain at least one non-empty matcher";
        return parser.meaning_error(span, message);
    };
    let inside = selector.matchers.split_last().map_or(&[][..], |(_, inside)| inside);
    if let Some(other) = inside.iter().find(|matcher| matcher.name == METRIC_NAME) {
        let (name, other) = (quoted(name), quoted(&other.value));
        return parser.meaning_error(span, format!("metric name must not be set twice: {name} or {other}"));
    }
    Ok(())
}

/// Whether no series without the label matches.
fn rejects_empty(parser: &Parser<'_>, matcher: &Matcher) -> bool {
    let matches_empty = || (parser.options.regex)(&matcher.value).unwrap_or(false);
    match matcher.op {
        MatchOp::Equal => !matcher.value.is_empty(),
        MatchOp::NotEqual => matcher.value.is_empty(),
        MatchOp::Regex => !matches_empty(),
        MatchOp::NotRegex => matches_empty(),
    }
}
