//! Tree to text: on one line ([`Display`](fmt::Display)), or broken over several where it is long ([`pretty`]).
//!
//! Both print as Prometheus does: modifiers of aggregations before the arguments, matchers sorted, durations in the
//! largest units. What is printed parses to the same tree, matchers sorted.

use std::fmt::{self, Write};

use chronolith_model::{METRIC_NAME, MatchOp, Matcher, float, format_duration, labels::is_legacy_label_name};

use crate::{
    ast::{
        Aggregate, At, Binary, BinaryOp, Cardinality, DurationExpr, DurationKind, DurationNode, Expr,
        ExprKind, Matching, MatrixSelector, NumberLiteral, RangeMode, Subquery, UnaryOp, VectorSelector,
    },
    text::{quoted, write_text},
};

/// An expression longer than this is broken, in bytes.
const LINE_BYTES_MAX: usize = 100;

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_flat(f, self, false)
    }
}

/// As `format_query` of the API prints it: what is longer than 100 bytes is broken, the parts indented by two spaces.
#[must_use]
pub fn pretty(expr: &Expr) -> String {
    pretty_within(expr, LINE_BYTES_MAX)
}

fn pretty_within(expr: &Expr, width: usize) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_pretty(&mut out, expr, 0, width, false);
    out
}

/// `followed` says that an arithmetic operator comes next.
fn write_flat(out: &mut dyn Write, expr: &Expr, followed: bool) -> fmt::Result {
    match &expr.kind {
        ExprKind::Number(number) => write_number(out, *number),
        ExprKind::String(text) => write_text(out, text),
        ExprKind::Vector(selector) => {
            write_selector(out, selector)?;
            write_at(out, selector.at)?;
            write_mode(out, selector.mode)?;
            write_offset(out, selector.offset.as_ref(), followed)
        }
        ExprKind::Matrix(matrix) => write_matrix(out, matrix),
        ExprKind::Subquery(subquery) => {
            write_flat(out, &subquery.expr, false)?;
            write_subquery_suffix(out, subquery)
        }
        ExprKind::Call(call) => {
            write!(out, "{}(", call.function.name)?;
            for (index, arg) in call.args.iter().enumerate() {
                if index > 0 {
                    out.write_str(", ")?;
                }
                write_flat(out, arg, false)?;
            }
            out.write_char(')')
        }
        ExprKind::Aggregate(aggregate) => {
            write_aggregate_head(out, aggregate)?;
            out.write_char('(')?;
            if let Some(param) = &aggregate.param {
                write_flat(out, param, false)?;
                out.write_str(", ")?;
            }
            write_flat(out, &aggregate.expr, false)?;
            out.write_char(')')
        }
        ExprKind::Binary(binary) => {
            write_left(out, binary)?;
            out.write_char(' ')?;
            write_operator(out, binary)?;
            out.write_char(' ')?;
            write_flat(out, &binary.rhs, followed)
        }
        ExprKind::Unary(op, inner) => {
            out.write_str(sign(*op))?;
            write_flat(out, inner, followed)
        }
        ExprKind::Paren(inner) => {
            out.write_char('(')?;
            write_flat(out, inner, false)?;
            out.write_char(')')
        }
    }
}

/// Prints at `level` times two spaces, breaking what is longer than `width`; `followed` as in [`write_flat`].
fn write_pretty(out: &mut String, expr: &Expr, level: usize, width: usize, followed: bool) -> fmt::Result {
    if !is_long(expr, width) {
        // Prometheus does not indent a subquery that fits.
        if !matches!(expr.kind, ExprKind::Subquery(_)) {
            indent(out, level);
        }
        return write_flat(out, expr, followed);
    }
    match &expr.kind {
        ExprKind::Call(call) => {
            indent(out, level);
            writeln!(out, "{}(", call.function.name)?;
            for (index, arg) in call.args.iter().enumerate() {
                if index > 0 {
                    out.push_str(",\n");
                }
                write_pretty(out, arg, level + 1, width, false)?;
            }
            close(out, level);
        }
        ExprKind::Aggregate(aggregate) => {
            indent(out, level);
            write_aggregate_head(out, aggregate)?;
            out.push_str("(\n");
            if let Some(param) = &aggregate.param {
                write_pretty(out, param, level + 1, width, false)?;
                out.push_str(",\n");
            }
            write_pretty(out, &aggregate.expr, level + 1, width, false)?;
            close(out, level);
        }
        ExprKind::Binary(binary) => {
            if is_infinite_base(binary) {
                indent(out, level + 1);
                write_left(out, binary)?;
            } else {
                write_pretty(out, &binary.lhs, level + 1, width, is_arithmetic(binary.op))?;
            }
            out.push('\n');
            indent(out, level);
            write_operator(out, binary)?;
            out.push('\n');
            write_pretty(out, &binary.rhs, level + 1, width, followed)?;
        }
        ExprKind::Unary(op, inner) => {
            indent(out, level);
            out.push_str(sign(*op));
            let mut child = String::new();
            write_pretty(&mut child, inner, level, width, followed)?;
            out.push_str(child.trim());
        }
        ExprKind::Paren(inner) => {
            indent(out, level);
            out.push_str("(\n");
            write_pretty(out, inner, level + 1, width, false)?;
            close(out, level);
        }
        ExprKind::Subquery(subquery) => {
            write_pretty(out, &subquery.expr, level, width, false)?;
            write_subquery_suffix(out, subquery)?;
        }
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_) | ExprKind::Matrix(_) => {
            indent(out, level);
            write_flat(out, expr, followed)?;
        }
    }
    Ok(())
}

fn indent(out: &mut String, level: usize) {
    out.extend(std::iter::repeat_n("  ", level));
}

/// Ends a list whose items stand on their own lines.
fn close(out: &mut String, level: usize) {
    out.push('\n');
    indent(out, level);
    out.push(')');
}

/// Whether the expression takes more than a line; stops printing as soon as that is known.
fn is_long(expr: &Expr, width: usize) -> bool {
    struct Budget(usize);
    impl Write for Budget {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    write_flat(&mut Budget(width), expr, false).is_err()
}

/// The left side of an operator, on one line.
fn write_left(out: &mut dyn Write, binary: &Binary) -> fmt::Result {
    if is_infinite_base(binary) {
        out.write_str("Inf")
    } else {
        write_flat(out, &binary.lhs, is_arithmetic(binary.op))
    }
}

/// Whether infinity stands left of `^`. There it is printed without the sign that it has elsewhere, which would bind
/// less than the operator does.
fn is_infinite_base(binary: &Binary) -> bool {
    let infinite = |number: &NumberLiteral| number.value == f64::INFINITY;
    binary.op == BinaryOp::Pow && matches!(&binary.lhs.kind, ExprKind::Number(number) if infinite(number))
}

/// `+ - * / % ^`, which a duration may hold too.
const fn is_arithmetic(op: BinaryOp) -> bool {
    matches!(
        op,
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Pow
    )
}

const fn sign(op: UnaryOp) -> &'static str {
    match op {
        UnaryOp::Plus => "+",
        UnaryOp::Minus => "-",
    }
}

fn write_number(out: &mut dyn Write, number: NumberLiteral) -> fmt::Result {
    if number.duration {
        // A duration literal has milliseconds at most; rounding undoes what the float lost.
        return out.write_str(&format_duration((number.value * 1000.0).round() as i64));
    }
    out.write_str(&float::fixed(number.value))
}

fn write_labels(out: &mut dyn Write, labels: &[String]) -> fmt::Result {
    for (index, label) in labels.iter().enumerate() {
        if index > 0 {
            out.write_str(", ")?;
        }
        // A list of labels may hold every word but the two that are numbers.
        let is_number = label.eq_ignore_ascii_case("inf") || label.eq_ignore_ascii_case("nan");
        if is_legacy_label_name(label) && !is_number {
            out.write_str(label)?;
        } else {
            write_text(out, label)?;
        }
    }
    Ok(())
}

/// The operator and its grouping: `sum by (a) `, with a space at the end if there is a grouping.
fn write_aggregate_head(out: &mut dyn Write, aggregate: &Aggregate) -> fmt::Result {
    out.write_str(aggregate.op.as_str())?;
    match &aggregate.grouping {
        Some(grouping) if grouping.without || !grouping.labels.is_empty() => {
            out.write_str(if grouping.without { " without (" } else { " by (" })?;
            write_labels(out, &grouping.labels)?;
            out.write_str(") ")
        }
        _ => Ok(()),
    }
}

/// The operator with `bool` and matching.
fn write_operator(out: &mut dyn Write, binary: &Binary) -> fmt::Result {
    out.write_str(binary.op.as_str())?;
    if binary.return_bool {
        out.write_str(" bool")?;
    }
    match &binary.matching {
        Some(matching) => write_matching(out, matching),
        None => Ok(()),
    }
}

fn write_matching(out: &mut dyn Write, matching: &Matching) -> fmt::Result {
    let group = match matching.card {
        Cardinality::ManyToOne => Some("left"),
        Cardinality::OneToMany => Some("right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        out.write_str(if matching.on { " on (" } else { " ignoring (" })?;
        write_labels(out, &matching.labels)?;
        out.write_char(')')?;
    }
    if let Some(group) = group {
        write!(out, " group_{group} (")?;
        write_labels(out, &matching.include)?;
        out.write_char(')')?;
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left == right => write!(out, " fill ({})", float::general(left)),
        (left, right) => {
            if let Some(left) = left {
                write!(out, " fill_left ({})", float::general(left))?;
            }
            if let Some(right) = right {
                write!(out, " fill_right ({})", float::general(right))?;
            }
            Ok(())
        }
    }
}

/// Name and matchers.
fn write_selector(out: &mut dyn Write, selector: &VectorSelector) -> fmt::Result {
    let name = selector.name.as_deref().unwrap_or_default();
    out.write_str(name)?;
    // The matcher that the name outside the braces stands for.
    let said = |matcher: &Matcher| {
        matcher.name == METRIC_NAME
            && matcher.op == MatchOp::Equal
            && matcher.value == name
            && !matcher.value.is_empty()
    };
    let mut matchers: Vec<String> =
        selector.matchers.iter().filter(|matcher| !said(matcher)).map(matcher_text).collect();
    if matchers.is_empty() {
        // Braces alone are a selector only as the labels of `info`; without them nothing would be left.
        return if selector.name.is_none() { out.write_str("{}") } else { Ok(()) };
    }
    matchers.sort_unstable();
    write!(out, "{{{}}}", matchers.join(","))
}

fn matcher_text(matcher: &Matcher) -> String {
    let plain = is_legacy_label_name(&matcher.name);
    let name = if plain { matcher.name.clone() } else { quoted(&matcher.name) };
    format!("{name}{}{}", matcher.op.as_str(), quoted(&matcher.value))
}

fn write_matrix(out: &mut dyn Write, matrix: &MatrixSelector) -> fmt::Result {
    write_selector(out, &matrix.selector)?;
    out.write_char('[')?;
    write_duration(out, &matrix.range)?;
    out.write_char(']')?;
    write_mode(out, matrix.selector.mode)?;
    write_at(out, matrix.selector.at)?;
    write_offset(out, matrix.selector.offset.as_ref(), false)
}

/// Everything of a subquery after its expression.
fn write_subquery_suffix(out: &mut dyn Write, subquery: &Subquery) -> fmt::Result {
    out.write_char('[')?;
    write_duration(out, &subquery.range)?;
    out.write_char(':')?;
    if let Some(step) = &subquery.step {
        write_duration(out, step)?;
    }
    out.write_char(']')?;
    write_at(out, subquery.at)?;
    write_offset(out, subquery.offset.as_ref(), false)
}

fn write_at(out: &mut dyn Write, at: Option<At>) -> fmt::Result {
    match at {
        None => Ok(()),
        Some(At::Start) => out.write_str(" @ start()"),
        Some(At::End) => out.write_str(" @ end()"),
        Some(At::Timestamp(ms)) => write!(out, " @ {:.3}", ms as f64 / 1000.0),
    }
}

fn write_mode(out: &mut dyn Write, mode: RangeMode) -> fmt::Result {
    out.write_str(match mode {
        RangeMode::Plain => "",
        RangeMode::Anchored => " anchored",
        RangeMode::Smoothed => " smoothed",
    })
}

/// An offset that would not be read back as a whole gets parentheses. Where an arithmetic operator follows, one that
/// would take it for its own gets them with a sign, which the parser drops.
fn write_offset(out: &mut dyn Write, offset: Option<&DurationExpr>, followed: bool) -> fmt::Result {
    let Some(offset) = offset else { return Ok(()) };
    out.write_str(" offset ")?;
    let node = match offset {
        DurationExpr::Computed(node) => node,
        DurationExpr::Literal(_) => return write_duration(out, offset),
    };
    let open = takes_operators(&node.kind);
    if followed && open {
        out.write_char('+')?;
    }
    let closed = matches!(node.kind, DurationKind::Paren(_));
    if closed || (stands_alone(&node.kind) && !(followed && open)) {
        return write_duration_node(out, node);
    }
    out.write_char('(')?;
    write_duration_node(out, node)?;
    out.write_char(')')
}

/// Whether the duration after `offset` is read whole.
fn stands_alone(duration: &DurationKind) -> bool {
    match duration {
        DurationKind::Binary(_, left, _) => takes_operators(&left.kind),
        DurationKind::Unary(_, inner) => {
            !matches!(inner.kind, DurationKind::Binary(..) | DurationKind::Number(_))
        }
        _ => true,
    }
}

/// Whether an operator after a duration that begins so would become a part of it.
fn takes_operators(duration: &DurationKind) -> bool {
    match duration {
        DurationKind::Paren(_) => true,
        DurationKind::Binary(_, left, _) => takes_operators(&left.kind),
        DurationKind::Unary(_, inner) => matches!(inner.kind, DurationKind::Unary(..)),
        _ => false,
    }
}

fn write_duration(out: &mut dyn Write, duration: &DurationExpr) -> fmt::Result {
    match duration {
        DurationExpr::Literal(ms) => out.write_str(&format_duration(*ms)),
        DurationExpr::Computed(node) => write_duration_node(out, node),
    }
}

fn write_duration_node(out: &mut dyn Write, node: &DurationNode) -> fmt::Result {
    match &node.kind {
        DurationKind::Number(number) => write_number(out, *number),
        DurationKind::Step => out.write_str("step()"),
        DurationKind::Range => out.write_str("range()"),
        DurationKind::MinOf(first, second) => write_duration_pair(out, "min_of", first, second),
        DurationKind::MaxOf(first, second) => write_duration_pair(out, "max_of", first, second),
        DurationKind::Binary(op, left, right) => {
            write_duration_node(out, left)?;
            write!(out, " {} ", op.as_str())?;
            write_duration_node(out, right)
        }
        DurationKind::Unary(op, inner) => {
            out.write_str(sign(*op))?;
            write_duration_node(out, inner)
        }
        DurationKind::Paren(inner) => {
            out.write_char('(')?;
            write_duration_node(out, inner)?;
            out.write_char(')')
        }
    }
}

fn write_duration_pair(
    out: &mut dyn Write,
    name: &str,
    first: &DurationNode,
    second: &DurationNode,
) -> fmt::Result {
    write!(out, "{name}(")?;
    write_duration_node(out, first)?;
    out.write_str(", ")?;
    write_duration_node(out, second)?;
    out.write_char(')')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{ParseOptions, parse};

    #[test]
    fn broken_at_ten_bytes() {
        for (text, broken) in [
            ("foo", "foo"),
            ("(a_long_name)", "(\n  a_long_name\n)"),
            ("-(a_long_name)", "-(\n  a_long_name\n)"),
            ("sum(a_long_name)", "sum(\n  a_long_name\n)"),
            ("sum by (x) (a)", "sum by (x) (\n  a\n)"),
            ("topk(1, a_name)", "topk(\n  1,\n  a_name\n)"),
            ("rate(a[5m])", "rate(\n  a[5m]\n)"),
            ("clamp(a, 1, 2)", "clamp(\n  a,\n  1,\n  2\n)"),
            ("a_long + b_long", "  a_long\n+\n  b_long"),
            ("a == bool on (x) b", "  a\n== bool on (x)\n  b"),
            ("aaa - bbb - ccc", "  aaa - bbb\n-\n  ccc"),
            ("aaaa - bbbb - ccc", "    aaaa\n  -\n    bbbb\n-\n  ccc"),
            ("sum(a)[5m:1m]", "sum(a)[5m:1m]"),
            ("(long + name)[5m:]", "(\n    long\n  +\n    name\n)[5m:]"),
            // A subquery that fits is not indented, as in Prometheus.
            ("rate((a)[5m:])", "rate(\n(a)[5m:]\n)"),
            ("-(a) + -(b_long)", "  -(a)\n+\n  -(b_long)"),
        ] {
            let expr = parse(text, &ParseOptions::all()).unwrap();
            assert_eq!(pretty_within(&expr, 10), broken, "{text}");
            assert_eq!(parse(broken, &ParseOptions::all()).unwrap(), expr, "{text}");
        }
    }
}
