//! What the language accepts, and what it makes of it.

use chronolith_model::{MatchOp, Matcher};
use chronolith_syntax::{
    ParseOptions, Position,
    ast::{
        At, BinaryOp, Cardinality, DurationExpr, DurationKind, Expr, ExprKind, RangeMode, Span, UnaryOp,
        ValueType, VectorSelector,
    },
    parse, parse_metric_selector, pretty,
    text::{is_utf8, quoted},
    walk,
};

/// Text, and how it is printed; with every experimental part on.
const ACCEPTED: &[(&str, &str)] = &[
    ("1", "1"),
    ("+1", "1"),
    ("-1", "-1"),
    ("--1", "1"),
    (".5", "0.5"),
    ("5.", "5"),
    ("1_000", "1000"),
    ("0x1F", "31"),
    ("0X_1f", "31"),
    ("017", "15"),
    ("089", "89"),
    ("1e3", "1000"),
    ("1E-3", "0.001"),
    ("inf", "+Inf"),
    ("-iNf", "-Inf"),
    ("NaN", "NaN"),
    ("5m", "5m"),
    ("1h30m", "1h30m"),
    ("-5m", "-5m"),
    ("1y2w3d4h5m6s7ms", "382d4h5m6s7ms"),
    ("24h", "1d"),
    ("300", "300"),
    (r#""a""#, r#""a""#),
    (r#"'a"b'"#, r#""a\"b""#),
    (r#"'it\'s'"#, r#""it's""#),
    (r#"`raw\n`"#, r#""raw\\n""#),
    (r#""\a\b\f\n\r\t\v\\\"""#, r#""\a\b\f\n\r\t\v\\\"""#),
    (r#""\101\x41\u0041\U00000041""#, r#""AAAA""#),
    (r#""\xc3\xa9""#, "\"\u{e9}\""),
    (r#""\xff""#, r#""\xff""#),
    ("foo", "foo"),
    (":a", ":a"),
    ("a:b", "a:b"),
    ("foo{}", "foo"),
    (r#"{a="b"}"#, r#"{a="b"}"#),
    (r#"foo{b="1",a!="2",}"#, r#"foo{a!="2",b="1"}"#),
    (r#"foo{a=~"x.*",b!~'y'}"#, r#"foo{a=~"x.*",b!~"y"}"#),
    (r#"{"foo"}"#, r#"{__name__="foo"}"#),
    (r#"{"foo.bar","label.name"="x"}"#, r#"{"label.name"="x",__name__="foo.bar"}"#),
    (r#"{"foo",__name__="x"}"#, r#"{__name__="foo",__name__="x"}"#),
    (r#"{__name__="foo"}"#, r#"{__name__="foo"}"#),
    (r#"{a="",b="c"}"#, r#"{a="",b="c"}"#),
    (r#"foo{inf="1",sum="2"}"#, r#"foo{inf="1",sum="2"}"#),
    ("foo[5m]", "foo[5m]"),
    ("foo[300]", "foo[5m]"),
    ("foo[1.5]", "foo[1s500ms]"),
    ("foo[36h]", "foo[1d12h]"),
    (r#"foo{a="b"}[5m] offset 1m @ 5"#, r#"foo{a="b"}[5m] @ 5.000 offset 1m"#),
    ("foo offset 5m", "foo offset 5m"),
    ("foo offset -5m", "foo offset -5m"),
    ("foo offset +5m", "foo offset 5m"),
    ("foo offset 0s", "foo"),
    ("foo offset 0s offset 5m", "foo offset 5m"),
    ("foo offset 300", "foo offset 5m"),
    ("foo offset 1w @ start()", "foo @ start() offset 1w"),
    ("foo @ end() offset 1h", "foo @ end() offset 1h"),
    ("foo @ 1609746000", "foo @ 1609746000.000"),
    ("foo @ -1.5", "foo @ -1.500"),
    ("foo @ 1.0005", "foo @ 1.001"),
    ("foo @ 5m", "foo @ 300.000"),
    ("foo @ 0x10", "foo @ 16.000"),
    ("foo[5m:1m]", "foo[5m:1m]"),
    ("foo[5m:]", "foo[5m:]"),
    ("foo[5m:1m] @ 5 offset 1h", "foo[5m:1m] @ 5.000 offset 1h"),
    ("rate(foo[5m])[1h:]", "rate(foo[5m])[1h:]"),
    ("(foo)[5m:]", "(foo)[5m:]"),
    ("foo[ 5m : 1m ]", "foo[5m:1m]"),
    ("foo OFFSET 5m", "foo offset 5m"),
    ("sum(foo)", "sum(foo)"),
    ("SUM(foo)", "sum(foo)"),
    ("sum by (a) (foo)", "sum by (a) (foo)"),
    ("sum(foo) by (a)", "sum by (a) (foo)"),
    ("sum by () (foo)", "sum(foo)"),
    ("sum without () (foo)", "sum without () (foo)"),
    ("sum by (a,) (foo)", "sum by (a) (foo)"),
    (r#"sum by (bool, on, "a.b", atan2, by, "c") (foo)"#, r#"sum by (bool, on, "a.b", atan2, by, c) (foo)"#),
    ("topk(5, foo)", "topk(5, foo)"),
    ("topk by (a) (5, foo)", "topk by (a) (5, foo)"),
    (r#"count_values("v", foo)"#, r#"count_values("v", foo)"#),
    ("quantile(0.9, foo)", "quantile(0.9, foo)"),
    ("limitk(2, foo)", "limitk(2, foo)"),
    ("sum", "sum"),
    ("sum + sum", "sum + sum"),
    (r#"sum{a="b"}"#, r#"sum{a="b"}"#),
    ("by", "by"),
    ("by and by", "by and by"),
    ("offset offset 5m", "offset offset 5m"),
    ("start + end", "start + end"),
    ("step + range", "step + range"),
    ("fill + fill_left", "fill + fill_left"),
    ("smoothed + anchored", "smoothed + anchored"),
    (r#"max_of{a="b"}"#, r#"max_of{a="b"}"#),
    ("and and and", "and and and"),
    ("unless unless or", "unless unless or"),
    ("1 + 2 * 3", "1 + 2 * 3"),
    ("(1 + 2) * 3", "(1 + 2) * 3"),
    ("2 ^ 3 ^ 2", "2 ^ 3 ^ 2"),
    ("-2 ^ 2", "-2 ^ 2"),
    ("2 ^ -1", "2 ^ -1"),
    ("2 ^ -1 ^ 2", "2 ^ -1 ^ 2"),
    ("-foo ^ 2", "-foo ^ 2"),
    ("-foo * bar", "-foo * bar"),
    ("- - foo", "--foo"),
    ("foo - -1", "foo - -1"),
    ("1 - 2 - 3", "1 - 2 - 3"),
    ("a or b and c", "a or b and c"),
    ("a == b + c", "a == b + c"),
    ("a < b > c", "a < b > c"),
    ("1 == bool 2", "1 == bool 2"),
    ("foo > bool 1", "foo > bool 1"),
    ("foo and bar", "foo and bar"),
    ("foo and on () bar", "foo and on () bar"),
    ("foo or on (a) bar", "foo or on (a) bar"),
    ("foo unless ignoring (a, b) bar", "foo unless ignoring (a, b) bar"),
    ("foo + on (a) bar", "foo + on (a) bar"),
    ("foo + ignoring () bar", "foo + bar"),
    ("foo * on (a) group_left bar", "foo * on (a) group_left () bar"),
    ("foo * on (a) group_left (b) bar", "foo * on (a) group_left (b) bar"),
    ("foo * on (a) group_right (b,) bar", "foo * on (a) group_right (b) bar"),
    ("foo * on (a) group_left (bar) baz", "foo * on (a) group_left (bar) baz"),
    ("foo * on (a) group_left () (bar)", "foo * on (a) group_left () (bar)"),
    ("foo == bool on (a) group_right bar", "foo == bool on (a) group_right () bar"),
    ("foo + fill(0) bar", "foo + fill (0) bar"),
    ("foo + on (a) fill_left(-1) bar", "foo + on (a) fill_left (-1) bar"),
    ("foo + fill_left(1) fill_right(2) bar", "foo + fill_left (1) fill_right (2) bar"),
    ("foo + fill_right(2) fill_left(1) bar", "foo + fill_left (1) fill_right (2) bar"),
    ("foo + fill(5m) bar", "foo + fill (300) bar"),
    ("foo </ 5", "foo </ 5"),
    ("foo >/ 5", "foo >/ 5"),
    ("foo atan2 bar", "foo atan2 bar"),
    ("foo ATAN2 bar", "foo atan2 bar"),
    ("time()", "time()"),
    ("pi()", "pi()"),
    ("hour()", "hour()"),
    ("round(foo)", "round(foo)"),
    ("round(foo, 5)", "round(foo, 5)"),
    (r#"label_join(foo, "a", "b")"#, r#"label_join(foo, "a", "b")"#),
    (r#"label_join(foo, "a", "b", "c", "d")"#, r#"label_join(foo, "a", "b", "c", "d")"#),
    (r#"label_replace(foo, "a", "$1", "b", "(.*)")"#, r#"label_replace(foo, "a", "$1", "b", "(.*)")"#),
    (
        "histogram_quantile(0.9, sum by (le) (rate(foo[5m])))",
        "histogram_quantile(0.9, sum by (le) (rate(foo[5m])))",
    ),
    (r#"histogram_quantiles(foo, "q", 0.5, 0.9)"#, r#"histogram_quantiles(foo, "q", 0.5, 0.9)"#),
    ("sort_by_label(foo)", "sort_by_label(foo)"),
    ("info(foo)", "info(foo)"),
    (r#"info(foo, {a="b"})"#, r#"info(foo, {a="b"})"#),
    ("info(foo, {})", "info(foo, {})"),
    ("start() + end()", "start() + end()"),
    ("max_of(1, 2)", "max_of(1, 2)"),
    ("absent_over_time(foo[5m:])", "absent_over_time(foo[5m:])"),
    ("foo # comment", "foo"),
    ("foo # a { ( [", "foo"),
    ("foo{ # in braces\n a=\"b\"}", r#"foo{a="b"}"#),
    ("sum(\n  foo\n)", "sum(foo)"),
    ("foo anchored", "foo anchored"),
    ("foo[5m] smoothed", "foo[5m] smoothed"),
    ("foo[5m] anchored @ 5 offset 1m", "foo[5m] anchored @ 5.000 offset 1m"),
    ("foo[5m + 1m]", "foo[5m + 1m]"),
    ("foo[(5m)]", "foo[(5m)]"),
    ("foo[((5m))]", "foo[(5m)]"),
    ("foo[step()]", "foo[step()]"),
    ("foo[5m:step()]", "foo[5m:step()]"),
    ("foo[-5m + 10m]", "foo[-5m + 10m]"),
    ("foo[2 * (1m + 30s) ^ 2 % 7]", "foo[2 * (1m + 30s) ^ 2 % 7]"),
    ("foo[max_of(step(), 5m)]", "foo[max_of(step(), 5m)]"),
    ("foo[MIN_OF(1m, range())]", "foo[min_of(1m, range())]"),
    ("foo offset (5m + 1m)", "foo offset (5m + 1m)"),
    ("foo offset -(5m)", "foo offset -(5m)"),
    ("foo offset +(5m)", "foo offset (5m)"),
    ("foo offset -step()", "foo offset -step()"),
    ("foo offset step() + 1", "foo offset step() + 1"),
    ("foo offset -2 ^ 2", "foo offset -2s ^ 2"),
    ("foo offset (5m) + 2", "foo offset (5m) + 2"),
    ("foo offset --5m", "foo offset 5m"),
    ("foo offset -max_of(1, 2)", "foo offset -max_of(1, 2)"),
];

fn parsed(text: &str) -> Expr {
    parse(text, &ParseOptions::all()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn vector(text: &str) -> VectorSelector {
    match parsed(text).kind {
        ExprKind::Vector(selector) => selector,
        ExprKind::Matrix(matrix) => matrix.selector,
        kind => panic!("{text}: {kind:?}"),
    }
}

fn number(text: &str) -> f64 {
    match parsed(text).kind {
        ExprKind::Number(number) => number.value,
        kind => panic!("{text}: {kind:?}"),
    }
}

#[test]
fn printed_as_prometheus_does() {
    for (text, printed) in ACCEPTED {
        let expr = parsed(text);
        assert_eq!(expr.to_string(), *printed, "{text}");
        assert_eq!(pretty(&expr), *printed, "{text}");
        assert_eq!(parsed(printed).to_string(), *printed, "{text}");
    }
}

#[test]
fn number_values() {
    for (text, value) in [
        ("0x1F", 31.0),
        ("017", 15.0),
        ("089", 89.0),
        ("1_000", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("0x1e5", 485.0),
        ("1h30m", 5400.0),
        ("-5m", -300.0),
        ("+1", 1.0),
        ("--1", 1.0),
        ("10ms", 0.01),
        ("iNf", f64::INFINITY),
        ("-inf", f64::NEG_INFINITY),
    ] {
        assert_eq!(number(text).to_bits(), value.to_bits(), "{text}");
    }
    assert_eq!(number("-0").to_bits(), (-0.0_f64).to_bits());
    // The not-a-number that Prometheus writes, whatever its sign.
    assert_eq!(number("NaN").to_bits(), 0x7ff8_0000_0000_0001);
    assert_eq!(number("-nan").to_bits(), 0x7ff8_0000_0000_0001);
}

#[test]
fn string_values() {
    for (text, value) in [
        (r#""a'b""#, "a'b"),
        (r"'it\'s'", "it's"),
        (r"`raw\n`", "raw\\n"),
        ("`two\nlines`", "two\nlines"),
        (r#""\a\b\f\n\r\t\v\\\"""#, "\u{7}\u{8}\u{c}\n\r\t\u{b}\\\""),
        (r#""\101\x41\u00e9\U0001F600""#, "AA\u{e9}\u{1f600}"),
        (r#""\xc3\xa9""#, "\u{e9}"),
        ("'\u{e9}'", "\u{e9}"),
        ("''", ""),
    ] {
        assert_eq!(parsed(text).kind, ExprKind::String(value.to_owned()), "{text}");
    }
    let ExprKind::String(text) = parsed(r#""a\xc5z""#).kind else { panic!("a string") };
    assert!(!is_utf8(&text));
    assert_eq!(quoted(&text), r#""a\xc5z""#);
}

#[test]
fn matchers_keep_their_order_and_the_name_is_last() {
    let selector = vector(r#"foo{b="1",a!~"2",c=~'3',d!="4"}"#);
    assert_eq!(selector.name.as_deref(), Some("foo"));
    assert_eq!(
        selector.matchers,
        [
            Matcher::equal("b", "1"),
            Matcher::new("a", MatchOp::NotRegex, "2"),
            Matcher::new("c", MatchOp::Regex, "3"),
            Matcher::new("d", MatchOp::NotEqual, "4"),
            Matcher::equal("__name__", "foo"),
        ]
    );
    let selector = vector(r#"{"foo.bar","x.y"="z"}"#);
    assert_eq!(selector.name, None);
    assert_eq!(selector.matchers, [Matcher::equal("__name__", "foo.bar"), Matcher::equal("x.y", "z")]);
}

#[test]
fn selectors_alone() {
    assert_eq!(parse_metric_selector("foo").unwrap(), [Matcher::equal("__name__", "foo")]);
    assert_eq!(parse_metric_selector(" {} ").unwrap(), []);
    assert_eq!(parse_metric_selector("sum{a=\"b\"}").unwrap().len(), 2);
    // Whether a selector has a meaning is not asked.
    assert_eq!(parse_metric_selector("foo{__name__=\"bar\"}").unwrap().len(), 2);
    for (text, expected) in [
        ("", "unknown position: parse error: unexpected end of input"),
        ("foo[5m]", "1:4: parse error: unexpected \"[\""),
        ("foo offset 5m", "1:5: parse error: unexpected <offset>"),
        ("foo{", "1:5: parse error: unexpected end of input inside braces"),
        ("1", "1:1: parse error: unexpected number \"1\""),
        ("sum(foo)", "1:4: parse error: unexpected \"(\""),
        ("foo + bar", "1:5: parse error: unexpected <op:+>"),
    ] {
        assert_eq!(parse_metric_selector(text).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn keywords_as_names() {
    let metrics = "sum avg count min max group stddev stdvar topk bottomk count_values quantile limitk limit_ratio by \
                   offset without and or unless start end step range anchored smoothed max_of min_of fill fill_left \
                   fill_right Sum OFFSET";
    for word in metrics.split_whitespace() {
        assert_eq!(vector(word).name.as_deref(), Some(word));
        assert_eq!(vector(&format!("{word}{{a=\"b\"}}")).matchers.len(), 2, "{word}");
    }
    for word in ["bool", "on", "ignoring", "group_left", "group_right", "atan2"] {
        let text = format!("sum by ({word}) (a)");
        assert_eq!(parsed(&text).to_string(), text);
        assert!(parse(word, &ParseOptions::all()).is_err(), "{word}");
    }
    for word in metrics.split_whitespace() {
        let text = format!("sum by ({word}, a) (a{{{word}=\"b\"}})");
        assert_eq!(parsed(&text).to_string(), text);
    }
    for word in ["inf", "nan", "NaN"] {
        assert!(parse(&format!("sum by ({word}) (a)"), &ParseOptions::all()).is_err(), "{word}");
        let text = format!("sum by (\"{word}\") (a{{{word}=\"b\"}})");
        assert_eq!(parsed(&text).to_string(), text);
    }
}

#[test]
fn modifiers() {
    let selector = vector("foo offset 1.0019 @ 1.0006");
    assert_eq!(selector.offset, Some(DurationExpr::Literal(1001)));
    assert_eq!(selector.at, Some(At::Timestamp(1001)));
    assert_eq!(vector("foo offset -1.0019").offset, Some(DurationExpr::Literal(-1001)));
    assert_eq!(vector("foo @ start() offset 0s").offset, None);
    assert_eq!(vector("foo offset 0.0009").offset, None);
    // As a float number of seconds it would lose a millisecond.
    assert_eq!(vector("foo offset 38319d744ms").offset, Some(DurationExpr::Literal(3_310_761_600_744)));
    assert_eq!(vector("foo @ start()").at, Some(At::Start));
    assert_eq!(vector("foo[5m] @ end()").at, Some(At::End));
    assert_eq!(vector("foo[5m] anchored").mode, RangeMode::Anchored);
    assert_eq!(vector("foo smoothed smoothed").mode, RangeMode::Smoothed);
    let Some(DurationExpr::Computed(node)) = vector("foo offset (5m + step())").offset else {
        panic!("computed")
    };
    let DurationKind::Paren(inner) = node.kind else { panic!("in parentheses") };
    assert_eq!(inner.span.0, Span { start: 12, end: 23 });
    let DurationKind::Binary(BinaryOp::Add, _, right) = inner.kind else { panic!("a sum") };
    assert_eq!(right.kind, DurationKind::Step);
}

#[test]
fn matching() {
    let matching = |text: &str| match parsed(text).kind {
        ExprKind::Binary(binary) => binary.matching,
        kind => panic!("{text}: {kind:?}"),
    };
    assert_eq!(matching("a + 1"), None);
    assert_eq!(matching("1 + 1"), None);
    assert_eq!(matching("a + b").unwrap().card, Cardinality::OneToOne);
    assert_eq!(matching("a and b").unwrap().card, Cardinality::ManyToMany);
    let grouped = matching("a * on (x, y) group_left (z) fill_right (-2) b").unwrap();
    assert_eq!(grouped.card, Cardinality::ManyToOne);
    assert!(grouped.on);
    assert_eq!((grouped.labels.len(), grouped.include.len()), (2, 1));
    assert_eq!((grouped.fill_left, grouped.fill_right), (None, Some(-2.0)));
    assert_eq!(matching("a * ignoring (x) group_right b").unwrap().card, Cardinality::OneToMany);
}

#[test]
fn operators_bind_as_they_should() {
    // Each with its parentheses made plain.
    for (text, plain) in [
        ("a or b and c", "a or (b and c)"),
        ("a and b unless c", "(a and b) unless c"),
        ("a unless b == c", "a unless (b == c)"),
        ("a == b + c", "a == (b + c)"),
        ("a < b > c", "(a < b) > c"),
        ("a - b - c", "(a - b) - c"),
        ("a + b * c", "a + (b * c)"),
        ("a / b % c atan2 d", "((a / b) % c) atan2 d"),
        ("a * b ^ c", "a * (b ^ c)"),
        ("a ^ b ^ c", "a ^ (b ^ c)"),
        ("-a ^ b", "-(a ^ b)"),
        ("-a * b", "(-a) * b"),
        ("a ^ -b * c", "(a ^ (-b)) * c"),
        ("a ^ -b ^ c", "a ^ (-(b ^ c))"),
        ("a - -b - c", "(a - (-b)) - c"),
        ("-a offset 5m", "-(a offset 5m)"),
        ("a + sum_over_time(b[5m:]) - c", "(a + (sum_over_time(b[5m:]))) - c"),
        ("a >/ b + c", "a >/ (b + c)"),
    ] {
        assert_eq!(shape(text), shape(plain), "{text}");
    }
}

/// The tree in Polish notation, without parentheses.
fn shape(text: &str) -> String {
    let expr = parsed(text);
    let mut shape = String::new();
    walk(&expr, &mut |expr| {
        match &expr.kind {
            ExprKind::Binary(binary) => shape.push_str(binary.op.as_str()),
            ExprKind::Unary(UnaryOp::Minus, _) => shape.push('~'),
            ExprKind::Vector(selector) => shape.push_str(selector.name.as_deref().unwrap_or("?")),
            _ => {}
        }
        true
    });
    shape
}

#[test]
fn spans_cover_what_they_should() {
    let text =
        "topk(2, rate(foo{a=\"b\"}[5m] offset 1m)) by (x) # c\n  + -(sum(baz{l=\"\u{e9}\"})) * bar @ end()";
    let expr = parsed(text);
    let mut covered = Vec::new();
    walk(&expr, &mut |expr| {
        covered.push(text.get(expr.span.start..expr.span.end).unwrap_or("?").to_owned());
        true
    });
    assert_eq!(
        covered,
        [
            text,
            "topk(2, rate(foo{a=\"b\"}[5m] offset 1m)) by (x)",
            "2",
            "rate(foo{a=\"b\"}[5m] offset 1m)",
            "foo{a=\"b\"}[5m] offset 1m",
            "-(sum(baz{l=\"\u{e9}\"})) * bar @ end()",
            "-(sum(baz{l=\"\u{e9}\"}))",
            "(sum(baz{l=\"\u{e9}\"}))",
            "sum(baz{l=\"\u{e9}\"})",
            "baz{l=\"\u{e9}\"}",
            "bar @ end()",
        ]
    );
    let ExprKind::Binary(binary) = &expr.kind else { panic!("a sum") };
    assert_eq!(binary.rhs.span.position(text), Position::At { line: 2, column: 5 });
    let ExprKind::Matrix(matrix) = parsed("foo[5m] offset 1m").kind else { panic!("a range") };
    assert_eq!(matrix.selector_span.0, Span { start: 0, end: 3 });
}

#[test]
fn info_labels_may_match_everything() {
    assert_eq!(parsed("info(a, {b=~\".*\"})").value_type(), ValueType::Vector);
    assert!(parse("info({b=~\".*\"}, {c=\"d\"})", &ParseOptions::all()).is_err());
}

#[test]
fn long_expressions_are_broken() {
    let text = "sum by (job, instance) (rate(http_requests_total{job=\"api\", code=~\"5..\"}[5m])) / on (job) \
                group_left sum by (job) (rate(http_requests_total{job=\"api\"}[5m])) > bool 0.05 and on (job) \
                (up{job=\"api\"} == 1)";
    let broken = "      sum by (job, instance) (rate(http_requests_total{code=~\"5..\",job=\"api\"}[5m]))
    / on (job) group_left ()
      sum by (job) (rate(http_requests_total{job=\"api\"}[5m]))
  > bool
    0.05
and on (job)
  (up{job=\"api\"} == 1)";
    assert_eq!(pretty(&parsed(text)), broken);
    assert_eq!(parsed(broken), parsed(&parsed(text).to_string()));
}
