//! Error texts and their places. Prometheus' own, so clients match on them.

use chronolith_syntax::{
    ParseErrorKind, ParseOptions, Position, RegexCheck, parse, parse_metric_selector_with,
};

/// Text, place, message; with every experimental part on.
const ERRORS: &[(&str, &str, &str)] = &[
    ("=", "1:1", r#"unexpected "=""#),
    ("!", "1:1", "unexpected character after '!': '\u{fffd}'"),
    ("foo !x", "1:5", "unexpected character after '!': 'x'"),
    (r#"foo =~ "a""#, "1:5", "unexpected character after '=': '~'"),
    ("foo $", "1:5", "unexpected character: '$'"),
    ("foo \u{fffd}", "1:5", "unexpected character: '\u{fffd}'"),
    ("1 +", "1:4", "unexpected end of input"),
    ("*1", "1:1", "unexpected <op:*>"),
    ("(1", "1:3", "unclosed left parenthesis"),
    ("1)", "1:3", "unexpected right parenthesis ')'"),
    ("((1)", "1:5", "unclosed left parenthesis"),
    ("foo{", "1:5", "unexpected end of input inside braces"),
    (r#"foo{a="b""#, "1:10", "unexpected end of input inside braces"),
    (r#"foo{a="b","#, "1:11", "unexpected end of input inside braces"),
    ("{", "1:2", "unexpected end of input inside braces"),
    ("{}", "1:1", "vector selector must contain at least one non-empty matcher"),
    ("{,}", "1:2", r#"unexpected "," in label matching, expected identifier or "}""#),
    ("foo{a=b}", "1:7", r#"unexpected identifier "b" in label matching, expected string"#),
    ("foo{a b}", "1:7", r#"unexpected identifier "b" in label matching, expected label matching operator"#),
    (r#"foo{a="b" c="d"}"#, "1:11", r#"unexpected identifier "c" in label matching, expected "," or "}""#),
    (r#"foo{a="b",,}"#, "1:11", r#"unexpected "," in label matching, expected identifier or "}""#),
    ("foo{a}", "1:6", r#"unexpected "}" in label matching, expected label matching operator"#),
    (r#"foo{"a" b}"#, "1:9", r#"unexpected identifier "b" in label matching, expected "," or "}""#),
    (r#"foo{1="a"}"#, "1:5", "unexpected character inside braces: '1'"),
    (r#"foo{a:b="c"}"#, "1:6", "unexpected character inside braces: ':'"),
    ("foo{{", "1:5", "unexpected left brace '{'"),
    ("foo{a!b}", "1:6", "unexpected character after '!' inside braces: 'b'"),
    (r#"foo{a=~"b""#, "1:11", "unexpected end of input inside braces"),
    ("foo{a==\u{201c}b\u{201d}}", "1:7", r#"unexpected "=" in label matching, expected string"#),
    ("foo}", "1:4", "unexpected character: '}'"),
    (r#"{a=""}"#, "1:1", "vector selector must contain at least one non-empty matcher"),
    (r#"{a=~".*"}"#, "1:1", "vector selector must contain at least one non-empty matcher"),
    (r#"{a!="b"}"#, "1:1", "vector selector must contain at least one non-empty matcher"),
    (r#"foo{__name__="bar"}"#, "1:1", r#"metric name must not be set twice: "foo" or "bar""#),
    (r#"foo{"bar"}"#, "1:1", r#"metric name must not be set twice: "foo" or "bar""#),
    (r#""foo"#, "1:1", "unterminated quoted string"),
    ("'foo", "1:1", "unterminated quoted string"),
    ("`foo", "1:1", "unterminated raw string"),
    (r#""a\z""#, "1:1", "unknown escape sequence U+007A 'z'"),
    (r#""\xg0""#, "1:1", "illegal character U+0067 'g' in escape sequence"),
    (r#""\400""#, "1:1", "escape sequence is an invalid Unicode code point"),
    (r#""\ud800""#, "1:1", "escape sequence is an invalid Unicode code point"),
    (r#""a\"#, "1:1", "escape sequence not terminated"),
    (r#""a"#, "1:1", "unterminated quoted string"),
    ("0x1g", "1:1", r#"bad number or duration syntax: "0x1""#),
    ("5mx", "1:1", r#"bad number or duration syntax: "5mx""#),
    ("1.5h", "1:1", r#"unknown unit "." in duration "1.5h""#),
    ("1hs", "1:1", r#"unknown unit "hs" in duration "1hs""#),
    ("1m1h", "1:1", r#"not a valid duration string: "1m1h""#),
    ("1..5", "1:1", r#"bad number or duration syntax: "1..""#),
    ("1__0", "1:1", r#"bad number or duration syntax: "1__""#),
    ("1e", "1:1", r#"bad number or duration syntax: "1e""#),
    ("1e999", "1:1", r#"error parsing number: strconv.ParseFloat: parsing "1e999": value out of range"#),
    ("0x", "1:1", r#"error parsing number: strconv.ParseFloat: parsing "0x": invalid syntax"#),
    ("292y1y", "1:1", r#"bad number or duration syntax: "292y1""#),
    ("300y", "1:1", "duration out of range"),
    ("foo offset 300y", "1:12", "duration out of range"),
    ("foo offset -300y", "1:13", "duration out of range"),
    ("foo offset -1e300", "1:12", "duration out of range"),
    ("foo offset -Inf", "1:12", "duration out of range"),
    ("foo[", "1:5", "unexpected end of input in duration expression"),
    ("foo[5m", "1:7", "unclosed left bracket"),
    ("foo[5m:", "1:8", "unclosed left bracket"),
    (
        "foo[]",
        "1:5",
        r#"unexpected "]" in subquery or range selector, expected number, duration, step(), or range()"#,
    ),
    ("foo[:5m]", "1:6", "unexpected colon before duration in duration expression"),
    ("foo[5m::]", "1:8", "unexpected colon ':'"),
    ("foo[5m:1m:]", "1:10", "unexpected colon ':'"),
    ("foo[bar]", "1:5", "unexpected character in duration expression: 'b'"),
    (r#"foo["5m"]"#, "1:5", r#"unexpected character in duration expression: '"'"#),
    ("foo[5m 6m]", "1:8", r#"unexpected duration "6m" in subquery or range, expected ":" or "]""#),
    ("foo[5m:1m 2m]", "1:11", r#"unexpected duration "2m" in subquery selector, expected "]""#),
    ("foo[5m:bar]", "1:8", "unexpected character: 'b', expected ':'"),
    (
        "foo[5m:@]",
        "1:8",
        r#"unexpected <op:@> in subquery selector, expected number, duration, step(), range(), or "]""#,
    ),
    ("foo[5m][5m]", "1:8", "ranges only allowed for vector selectors"),
    ("foo[[5m]]", "1:5", "unexpected character in duration expression: '['"),
    ("foo]", "1:4", "unexpected right bracket ']'"),
    (
        "foo[(5m]",
        "1:8",
        r#"unexpected "]" in subquery or range selector, expected number, duration, step(), or range()"#,
    ),
    ("foo[5m)]", "1:8", "unexpected right parenthesis ')'"),
    ("foo[0]", "1:5", "duration must be greater than 0"),
    ("foo[0s]", "1:5", "duration must be greater than 0"),
    ("foo[-5m]", "1:5", "duration must be greater than 0"),
    ("foo[5m:0s]", "1:8", "duration must be greater than 0"),
    ("foo[5m/0]", "1:7", "division by zero"),
    ("foo[5m%0]", "1:7", "modulo by zero"),
    ("foo[5m:-1m]", "1:8", "duration must be greater than 0"),
    ("(foo)[5m]", "1:6", "ranges only allowed for vector selectors"),
    ("1[5m]", "1:2", "ranges only allowed for vector selectors"),
    ("foo offset 5m[5m]", "1:14", "no offset modifiers allowed before range"),
    ("foo @ 1 [5m]", "1:9", "no @ modifiers allowed before range"),
    (
        "foo offset",
        "1:11",
        "unexpected end of input in offset, expected number, duration, step(), or range()",
    ),
    (
        "foo offset bar",
        "1:12",
        r#"unexpected identifier "bar" in offset, expected number, duration, step(), or range()"#,
    ),
    ("foo offset 5m offset 5m", "1:1", "offset may not be set multiple times"),
    (
        "1 offset 5m",
        "1:1",
        "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    ),
    (
        "(foo) offset 5m",
        "1:1",
        "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    ),
    ("foo @", "1:6", "unexpected end of input in @, expected timestamp"),
    ("foo @ bar", "1:7", r#"unexpected identifier "bar" in @, expected timestamp"#),
    ("foo @ start", "1:12", "unexpected end of input in @, expected timestamp"),
    ("foo @ start(", "1:13", "unclosed left parenthesis"),
    ("foo @ 1 @ 2", "1:1", "@ <timestamp> may not be set multiple times"),
    ("foo @ start() @ 2", "1:1", "@ <timestamp> may not be set multiple times"),
    (
        "1 @ 2",
        "1:1",
        "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    ),
    ("foo @ inf", "1:1", "timestamp out of bounds for @ modifier: +Inf"),
    ("foo @ 1e30", "1:1", "timestamp out of bounds for @ modifier: 1000000000000000019884624838656.000000"),
    ("foo @ -nan", "1:1", "timestamp out of bounds for @ modifier: NaN"),
    ("sum(", "1:5", "unclosed left parenthesis"),
    ("sum()", "1:1", "no arguments for aggregate expression provided"),
    (
        "sum(foo, bar)",
        "1:1",
        "wrong number of arguments for aggregate expression provided, expected 1, got 2",
    ),
    ("topk(foo)", "1:1", "wrong number of arguments for aggregate expression provided, expected 2, got 1"),
    (
        "topk(1, foo, bar)",
        "1:1",
        "wrong number of arguments for aggregate expression provided, expected 2, got 3",
    ),
    ("sum(foo bar)", "1:9", r#"unexpected identifier "bar" in aggregation"#),
    ("sum by foo", "1:8", r#"unexpected identifier "foo" in grouping opts, expected "(""#),
    ("sum by (", "1:9", "unclosed left parenthesis"),
    ("sum by (a foo", "1:11", r#"unexpected identifier "foo" in grouping opts, expected "," or ")""#),
    ("sum by (1) (foo)", "1:9", r#"unexpected number "1" in grouping opts, expected label"#),
    ("sum by (,) (foo)", "1:9", r#"unexpected "," in grouping opts, expected label"#),
    (r#"sum by ("") (foo)"#, "1:9", r#"invalid label name for grouping: """#),
    ("sum by (a) foo", "1:12", r#"unexpected identifier "foo" in aggregation"#),
    ("sum(foo) by", "1:12", r#"unexpected end of input in grouping opts, expected "(""#),
    ("sum(foo,)", "1:8", "trailing commas not allowed in function call args"),
    ("sum(1)", "1:5", "expected type instant vector in aggregation expression, got scalar"),
    (r#"sum("a")"#, "1:5", "expected type instant vector in aggregation expression, got string"),
    ("sum(foo[5m])", "1:5", "expected type instant vector in aggregation expression, got range vector"),
    ("topk(foo, bar)", "1:6", "expected type scalar in aggregation parameter, got instant vector"),
    ("count_values(1, foo)", "1:14", "expected type string in aggregation parameter, got scalar"),
    ("count_values(foo, bar)", "1:14", "expected type string in aggregation parameter, got instant vector"),
    ("abs(", "1:5", "unclosed left parenthesis"),
    ("abs()", "1:1", r#"expected 1 argument(s) in call to "abs", got 0"#),
    ("abs(foo, bar)", "1:1", r#"expected 1 argument(s) in call to "abs", got 2"#),
    ("abs(1)", "1:5", r#"expected type instant vector in call to function "abs", got scalar"#),
    (r#"abs("a")"#, "1:5", r#"expected type instant vector in call to function "abs", got string"#),
    ("rate(foo)", "1:6", r#"expected type range vector in call to function "rate", got instant vector"#),
    ("rate(foo[5m], 1)", "1:1", r#"expected 1 argument(s) in call to "rate", got 2"#),
    ("hour(foo, bar)", "1:1", r#"expected at most 1 argument(s) in call to "hour", got 2"#),
    (r#"label_join(foo, "a")"#, "1:1", r#"expected at least 3 argument(s) in call to "label_join", got 2"#),
    (
        r#"label_join(foo, "a", "b", foo)"#,
        "1:27",
        r#"expected type string in call to function "label_join", got instant vector"#,
    ),
    ("round()", "1:1", r#"expected at least 1 argument(s) in call to "round", got 0"#),
    ("abs(foo,)", "1:8", "trailing commas not allowed in function call args"),
    ("abs(,)", "1:5", r#"unexpected ",""#),
    ("foo(bar)", "1:1", r#"unknown function with name "foo""#),
    ("Rate(foo[5m])", "1:1", r#"unknown function with name "Rate""#),
    ("START()", "1:1", r#"unknown function with name "START""#),
    ("atan2(1, 1)", "1:1", "unexpected <op:atan2>"),
    ("on", "1:1", "unexpected <on>"),
    ("bool", "1:1", "unexpected <bool>"),
    ("1 == 1", "1:3", "comparisons between scalars must use BOOL modifier"),
    ("1 > 2", "1:3", "comparisons between scalars must use BOOL modifier"),
    ("foo + bool bar", "1:5", "bool modifier can only be used on comparison operators"),
    ("foo and bool bar", "1:5", "bool modifier can only be used on comparison operators"),
    ("1 and 2", "1:1", r#"set operator "and" not allowed in binary scalar expression"#),
    ("foo and 1", "1:1", r#"set operator "and" not allowed in binary scalar expression"#),
    ("1 or foo", "1:1", r#"set operator "or" not allowed in binary scalar expression"#),
    (r#"foo unless "a""#, "1:12", "binary expression must contain only scalar and instant vector types"),
    (r#"foo + "a""#, "1:7", "binary expression must contain only scalar and instant vector types"),
    ("foo[5m] + bar", "1:1", "binary expression must contain only scalar and instant vector types"),
    ("1 + on (a) 2", "1:1", "vector matching only allowed between instant vectors"),
    ("foo + on (a) 2", "1:1", "vector matching only allowed between instant vectors"),
    ("foo + on bar", "1:10", r#"unexpected identifier "bar" in grouping opts, expected "(""#),
    ("foo + on (a) group_left (a) bar", "1:5", r#"label "a" must not occur in ON and GROUP clause at once"#),
    ("foo + group_left bar", "1:7", "unexpected <group_left>"),
    ("foo + on (a) group_left = bar", "1:25", r#"unexpected "=" in grouping opts, expected "(""#),
    ("foo and on (a) group_left bar", "1:1", r#"no grouping allowed for "and" operation"#),
    ("foo or ignoring (a) group_right (b) bar", "1:1", r#"no grouping allowed for "or" operation"#),
    ("foo == == bar", "1:8", "unexpected <op:==>"),
    (
        r#"-"a""#,
        "1:1",
        r#"unary expression only allowed on expressions of type scalar or instant vector, got "string""#,
    ),
    (
        "-foo[5m]",
        "1:1",
        r#"unary expression only allowed on expressions of type scalar or instant vector, got "range vector""#,
    ),
    ("foo[5m:]]", "1:9", "unexpected right bracket ']'"),
    ("foo[5m][5m:]", "1:1", "subquery is only allowed on instant vector, got matrix instead"),
    ("1[5m:]", "1:1", "subquery is only allowed on instant vector, got scalar instead"),
    (r#""a"[5m:]"#, "1:1", "subquery is only allowed on instant vector, got string instead"),
    ("rate(foo[5m:])[5m:][5m:]", "1:1", "subquery is only allowed on instant vector, got matrix instead"),
    ("foo bar", "1:5", r#"unexpected identifier "bar""#),
    ("foo 5", "1:5", r#"unexpected number "5""#),
    (r#"foo "a""#, "1:5", r#"unexpected string "\"a\"""#),
    ("5 foo", "1:3", r#"unexpected identifier "foo""#),
    ("foo (bar)", "1:1", r#"unknown function with name "foo""#),
    ("sum sum", "1:5", "unexpected <aggr:sum>"),
    ("by by", "1:4", "unexpected <by>"),
    ("foo,bar", "1:4", r#"unexpected ",""#),
    (r#"foo:bar{a="b"} a:b"#, "1:16", r#"unexpected metric identifier "a:b""#),
    (r#""longer than ten" foo"#, "1:19", r#"unexpected identifier "foo""#),
    ("123456789012 123456789012", "1:14", r#"unexpected number "1234567890"..."#),
    ("5m 1h30m15s500ms", "1:4", r#"unexpected duration "1h30m15s50"..."#),
    ("foo = bar", "1:5", r#"unexpected "=""#),
    ("info(foo, bar)", "1:11", "expected label selectors only, got vector selector instead"),
    ("info(foo, 1)", "1:1", r#"expected type instant vector in call to function "info", got scalar"#),
    ("info(foo, rate(bar[5m]))", "1:11", "expected label selectors only"),
    ("  ", "1:1", "no expression found in input"),
    ("# c", "1:1", "no expression found in input"),
    ("foo\n+ bar{", "2:7", "unexpected end of input inside braces"),
    ("foo{\n a=\"b\"\n  x\n}", "3:3", r#"unexpected identifier "x" in label matching, expected "," or "}""#),
    ("foo\n\n  @", "3:4", "unexpected end of input in @, expected timestamp"),
    ("\"a\nb\"", "1:1", "unterminated quoted string"),
    ("foo\u{e9}", "1:4", "unexpected character: '\u{e9}'"),
    ("\"\u{e9}\" foo", "1:6", r#"unexpected identifier "foo""#),
    ("{a=\"\u{e9}\"} +", "1:11", "unexpected end of input"),
    ("foo offset 1e10", "1:12", "duration out of range"),
    ("foo[1e10]", "1:5", "duration out of range"),
    ("foo @ start) ", "1:13", "unexpected right parenthesis ')'"),
    ("1[5m] anchored", "1:2", "ranges only allowed for vector selectors"),
    ("foo[5m:] anchored", "1:1", "anchored modifier is not supported for subqueries"),
    ("foo anchored smoothed", "1:1", "anchored and smoothed modifiers cannot be used together"),
    ("foo[5m] smoothed anchored", "1:1", "anchored and smoothed modifiers cannot be used together"),
    ("sum(foo) anchored", "1:1", "anchored modifier not implemented"),
    ("foo + fill(1) 2", "1:1", "filling in missing series only allowed between instant vectors"),
    ("foo and fill(1) bar", "1:1", "filling in missing series not allowed for set operators"),
    ("foo + fill(bar) bar", "1:12", r#"unexpected identifier "bar""#),
    (
        "foo + fill_left(1) fill_right(2) 3",
        "1:1",
        "filling in missing series only allowed between instant vectors",
    ),
    ("foo + fill_left(1) fill_left(2) bar", "1:29", r#"unexpected "(""#),
    (
        "foo offset (1 + )",
        "1:17",
        r#"unexpected ")" in offset, expected number, duration, step(), or range()"#,
    ),
    (
        "foo[max_of(1)]",
        "1:13",
        r#"unexpected ")" in subquery or range selector, expected number, duration, step(), or range()"#,
    ),
    (
        "foo[step]",
        "1:9",
        r#"unexpected "]" in subquery or range selector, expected number, duration, step(), or range()"#,
    ),
    (
        "foo[5m:1m + ]",
        "1:13",
        r#"unexpected "]" in subquery selector, expected number, duration, step(), range(), or "]""#,
    ),
    (
        "foo offset -",
        "1:13",
        "unexpected end of input in offset, expected number, duration, step(), or range()",
    ),
    (
        r#"histogram_quantiles(foo, "a")"#,
        "1:1",
        r#"expected at least 3 argument(s) in call to "histogram_quantiles", got 2"#,
    ),
    (
        r#"histogram_quantiles(foo, "a", 1,1,1,1,1,1,1,1,1,1,1)"#,
        "1:1",
        r#"expected at most 12 argument(s) in call to "histogram_quantiles", got 13"#,
    ),
];

#[test]
fn as_prometheus_says_it() {
    for (text, place, message) in ERRORS {
        let error = parse(text, &ParseOptions::all()).expect_err(text);
        assert_eq!(error.to_string(), format!("{place}: parse error: {message}"), "{text}");
        assert!(
            error.span.start <= error.span.end && error.span.end <= text.len(),
            "{text}: {:?}",
            error.span
        );
        assert_eq!(error.position, error.span.position(text), "{text}");
    }
}

#[test]
fn nothing_has_no_place() {
    let error = parse("", &ParseOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "unknown position: parse error: no expression found in input");
    assert_eq!(error.position, Position::Unknown);
}

#[test]
fn what_is_off_is_said_to_be() {
    let off = ParseOptions { duration_expr: false, ..ParseOptions::default() };
    for (text, expected) in [
        ("mad_over_time(a[5m])", "1:1: parse error: function \"mad_over_time\" is not enabled"),
        ("1 + step()", "1:5: parse error: function \"step\" is not enabled"),
        ("sum(info(a))", "1:5: parse error: function \"info\" is not enabled"),
        (
            "limitk(1, a)",
            "1:1: parse error: limitk() is experimental and must be enabled with \
             --enable-feature=promql-experimental-functions",
        ),
        (
            "sum(limit_ratio(1, a))",
            "1:5: parse error: limit_ratio() is experimental and must be enabled with \
             --enable-feature=promql-experimental-functions",
        ),
        ("a + fill(1) b", "1:1: parse error: binop fill modifiers are experimental and not enabled"),
        ("1 + fill_left(1) b", "1:1: parse error: binop fill modifiers are experimental and not enabled"),
        ("a anchored", "1:1: parse error: anchored modifier is experimental and not enabled"),
        ("rate(a[5m] smoothed)", "1:6: parse error: smoothed modifier is experimental and not enabled"),
        ("a[5m + 1m]", "1:3: parse error: experimental duration expression is not enabled"),
        ("a[(5m)]", "1:4: parse error: experimental duration expression is not enabled"),
        ("a[5m:step()]", "1:6: parse error: experimental duration expression is not enabled"),
        ("a offset -step()", "1:10: parse error: experimental duration expression is not enabled"),
        ("a offset max_of(1, 2)", "1:10: parse error: experimental duration expression is not enabled"),
    ] {
        let error = parse(text, &off).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
        assert_eq!(error.kind, ParseErrorKind::Meaning, "{text}");
        let refused_anyway = text.starts_with("1 + fill");
        assert_eq!(parse(text, &ParseOptions::all()).is_ok(), !refused_anyway, "{text}");
    }
    // On by default, unlike the others.
    assert!(parse("a[5m + 1m]", &ParseOptions::default()).is_ok());
    // Signs and numbers are no expressions.
    assert!(parse("a[300:+1m] offset -5m", &off).is_ok());
}

#[test]
fn regular_expressions_are_judged_by_the_caller() {
    let regex: RegexCheck = |pattern| match pattern {
        "(" => Err("error parsing regexp: missing closing ): `(`".to_owned()),
        pattern => Ok(pattern == "x*"),
    };
    let options = ParseOptions { regex, ..ParseOptions::default() };
    for (text, expected) in [
        ("a{b=~\"(\"}", "1:3: parse error: error parsing regexp: missing closing ): `(`"),
        ("sum(a{c=\"d\", b!~\"(\"}", "1:14: parse error: error parsing regexp: missing closing ): `(`"),
        ("{b=~\"x*\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ("{b!~\"y\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    ] {
        assert_eq!(parse(text, &options).expect_err(text).to_string(), expected, "{text}");
    }
    for text in ["{b=~\"y\"}", "{b!~\"x*\"}", "a{b=~\"x*\"}"] {
        assert!(parse(text, &options).is_ok(), "{text}");
    }
    let error = parse_metric_selector_with("a{b=~\"(\"}", &options).unwrap_err();
    assert_eq!(error.to_string(), "1:3: parse error: error parsing regexp: missing closing ): `(`");
}
