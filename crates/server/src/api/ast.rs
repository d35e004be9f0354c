//! A syntax tree as `parse_query` shows it. Keys are in order.

use chronolith_model::{Matcher, float};
use chronolith_syntax::{
    ast::{
        Aggregate, At, Binary, Call, Cardinality, DurationExpr, Expr, ExprKind, Matching, MatrixSelector,
        Subquery, UnaryOp, VectorSelector,
    },
    functions::Function,
};

use crate::json::{Commas, JsonWriter};

/// Recurses as deep as the tree, which the parser bounds.
pub(super) fn write(json: &mut JsonWriter, expr: &Expr) {
    match &expr.kind {
        ExprKind::Number(number) => {
            json.raw("{\"type\":\"numberLiteral\",\"val\":\"");
            json.raw(&float::fixed(number.value));
            json.raw("\"}");
        }
        ExprKind::String(text) => {
            json.raw("{\"type\":\"stringLiteral\",\"val\":");
            json.string_html_escaped(text);
            json.raw("}");
        }
        ExprKind::Vector(selector) => {
            selector_head(json, selector);
            at(json, selector.at.as_ref());
            json.raw(",\"type\":\"vectorSelector\"}");
        }
        ExprKind::Matrix(selector) => matrix(json, selector),
        ExprKind::Subquery(subquery) => self::subquery(json, subquery),
        ExprKind::Call(call) => self::call(json, call),
        ExprKind::Aggregate(aggregate) => self::aggregate(json, aggregate),
        ExprKind::Binary(binary) => self::binary(json, binary),
        ExprKind::Unary(op, inner) => {
            json.raw("{\"expr\":");
            write(json, inner);
            json.raw(if *op == UnaryOp::Minus { ",\"op\":\"-\"" } else { ",\"op\":\"+\"" });
            json.raw(",\"type\":\"unaryExpr\"}");
        }
        ExprKind::Paren(inner) => {
            json.raw("{\"expr\":");
            write(json, inner);
            json.raw(",\"type\":\"parenExpr\"}");
        }
    }
}

/// Matchers, name and offset; the object stays open.
fn selector_head(json: &mut JsonWriter, selector: &VectorSelector) {
    json.raw("{\"matchers\":[");
    let mut commas = Commas::default();
    for Matcher { name, op, value } in &selector.matchers {
        commas.next(json);
        json.raw("{\"name\":");
        json.string_html_escaped(name);
        json.raw(",\"type\":\"");
        json.raw(op.as_str());
        json.raw("\",\"value\":");
        json.string_html_escaped(value);
        json.raw("}");
    }
    json.raw("],\"name\":");
    json.string_html_escaped(selector.name.as_deref().unwrap_or_default());
    json.raw(",\"offset\":");
    json.integer(millis(selector.offset.as_ref()));
}

fn at(json: &mut JsonWriter, at: Option<&At>) {
    json.raw(",\"startOrEnd\":");
    json.raw(match at {
        Some(At::Start) => "\"start\"",
        Some(At::End) => "\"end\"",
        _ => "null",
    });
    timestamp(json, at);
}

fn timestamp(json: &mut JsonWriter, at: Option<&At>) {
    json.raw(",\"timestamp\":");
    match at {
        Some(At::Timestamp(ms)) => json.integer(*ms),
        _ => json.raw("null"),
    }
}

/// Milliseconds; 0 for a duration that depends on the query's grid.
fn millis(duration: Option<&DurationExpr>) -> i64 {
    match duration {
        Some(DurationExpr::Literal(ms)) => *ms,
        _ => 0,
    }
}

fn matrix(json: &mut JsonWriter, matrix: &MatrixSelector) {
    selector_head(json, &matrix.selector);
    json.raw(",\"range\":");
    json.integer(millis(Some(&matrix.range)));
    at(json, matrix.selector.at.as_ref());
    json.raw(",\"type\":\"matrixSelector\"}");
}

fn subquery(json: &mut JsonWriter, subquery: &Subquery) {
    json.raw("{\"expr\":");
    write(json, &subquery.expr);
    json.raw(",\"offset\":");
    json.integer(millis(subquery.offset.as_ref()));
    json.raw(",\"range\":");
    json.integer(millis(Some(&subquery.range)));
    json.raw(",\"startOrEnd\":");
    json.raw(match &subquery.at {
        Some(At::Start) => "\"start\"",
        Some(At::End) => "\"end\"",
        _ => "null",
    });
    json.raw(",\"step\":");
    json.integer(millis(subquery.step.as_ref()));
    timestamp(json, subquery.at.as_ref());
    json.raw(",\"type\":\"subquery\"}");
}

fn call(json: &mut JsonWriter, call: &Call) {
    json.raw("{\"args\":[");
    let mut commas = Commas::default();
    for arg in &call.args {
        commas.next(json);
        write(json, arg);
    }
    let Function { name, args, variadic, returns, .. } = call.function;
    json.raw("],\"func\":{\"argTypes\":[");
    let mut commas = Commas::default();
    for arg in *args {
        commas.next(json);
        json.string(arg.as_str());
    }
    json.raw("],\"name\":");
    json.string(name);
    json.raw(",\"returnType\":");
    json.string(returns.as_str());
    json.raw(",\"variadic\":");
    json.integer(*variadic);
    json.raw("},\"type\":\"call\"}");
}

fn aggregate(json: &mut JsonWriter, aggregate: &Aggregate) {
    json.raw("{\"expr\":");
    write(json, &aggregate.expr);
    let grouping = aggregate.grouping.as_ref();
    json.raw(",\"grouping\":");
    json.strings(grouping.map_or(&[][..], |grouping| &grouping.labels));
    json.raw(",\"op\":");
    json.string(aggregate.op.as_str());
    json.raw(",\"param\":");
    match &aggregate.param {
        Some(param) => write(json, param),
        None => json.raw("null"),
    }
    json.raw(",\"type\":\"aggregation\",\"without\":");
    json.boolean(grouping.is_some_and(|grouping| grouping.without));
    json.raw("}");
}

fn binary(json: &mut JsonWriter, binary: &Binary) {
    json.raw("{\"bool\":");
    json.boolean(binary.return_bool);
    json.raw(",\"lhs\":");
    write(json, &binary.lhs);
    json.raw(",\"matching\":");
    match &binary.matching {
        Some(matching) => self::matching(json, matching),
        None => json.raw("null"),
    }
    json.raw(",\"op\":");
    json.string_html_escaped(binary.op.as_str());
    json.raw(",\"rhs\":");
    write(json, &binary.rhs);
    json.raw(",\"type\":\"binaryExpr\"}");
}

fn matching(json: &mut JsonWriter, matching: &Matching) {
    json.raw("{\"card\":\"");
    json.raw(match matching.card {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    });
    json.raw("\",\"include\":");
    json.strings(&matching.include);
    json.raw(",\"labels\":");
    json.strings(&matching.labels);
    json.raw(",\"on\":");
    json.boolean(matching.on);
    json.raw("}");
}

#[cfg(test)]
mod tests {
    use chronolith_syntax::{ParseOptions, parse};

    use super::*;

    /// The answers are those of Prometheus 3.5.3.
    #[test]
    fn every_kind_of_expression() {
        let foo = "{\"matchers\":[{\"name\":\"__name__\",\"type\":\"=\",\"value\":\"foo\"}],\"name\":\"foo\",\
                   \"offset\":0,\"startOrEnd\":null,\"timestamp\":null,\"type\":\"vectorSelector\"}";
        for (text, expected) in [
            ("1e30", r#"{"type":"numberLiteral","val":"1000000000000000000000000000000"}"#),
            ("5m", r#"{"type":"numberLiteral","val":"300"}"#),
            ("\"a<\"", r#"{"type":"stringLiteral","val":"a\u003c"}"#),
            ("-foo", r#"{"expr":FOO,"op":"-","type":"unaryExpr"}"#),
            ("(foo)", r#"{"expr":FOO,"type":"parenExpr"}"#),
            (
                "foo{a=\"b\",c!~\"d\"}[5m] offset 1m @ 10",
                concat!(
                    r#"{"matchers":[{"name":"a","type":"=","value":"b"},{"name":"c","type":"!~","value":"d"},"#,
                    r#"{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":60000,"range":300000,"#,
                    r#""startOrEnd":null,"timestamp":10000,"type":"matrixSelector"}"#
                ),
            ),
            (
                "foo[5m:1m] @ end() offset -1m",
                concat!(
                    r#"{"expr":FOO,"offset":-60000,"range":300000,"startOrEnd":"end","step":60000,"#,
                    r#""timestamp":null,"type":"subquery"}"#
                ),
            ),
            (
                "topk without (a) (5, foo)",
                concat!(
                    r#"{"expr":FOO,"grouping":["a"],"op":"topk","param":{"type":"numberLiteral","val":"5"},"#,
                    r#""type":"aggregation","without":true}"#
                ),
            ),
            (
                "foo > on (b) group_left (c) foo",
                concat!(
                    r#"{"bool":false,"lhs":FOO,"matching":{"card":"many-to-one","include":["c"],"labels":["b"],"#,
                    r#""on":true},"op":"\u003e","rhs":FOO,"type":"binaryExpr"}"#
                ),
            ),
            (
                "round(foo)",
                concat!(
                    r#"{"args":[FOO],"func":{"argTypes":["vector","scalar"],"name":"round","returnType":"vector","#,
                    r#""variadic":1},"type":"call"}"#
                ),
            ),
        ] {
            let expr = parse(text, &ParseOptions::default()).expect(text);
            let mut json = JsonWriter::default();
            write(&mut json, &expr);
            let json = String::from_utf8(json.finish()).expect("JSON is UTF-8");
            assert_eq!(json, expected.replace("FOO", foo), "{text}");
        }
    }
}
