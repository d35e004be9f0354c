//! No text crashes the parser, however long or deep.

use chronolith_syntax::{
    EXPR_DEPTH_MAX, ParseErrorKind, ParseOptions, QUERY_BYTES_MAX, parse, parse_metric_selector, pretty, walk,
};
use proptest::prelude::*;

/// Parses `text` with everything that can, and goes through what comes out.
fn exercise(text: &str) {
    for options in [ParseOptions::default(), ParseOptions::all()] {
        match parse(text, &options) {
            Ok(expr) => {
                let printed = expr.to_string();
                let again =
                    parse(&printed, &options).unwrap_or_else(|error| panic!("{text:?}: {printed}: {error}"));
                assert_eq!(again.to_string(), printed, "{text:?}");
                let again =
                    parse(&pretty(&expr), &options).unwrap_or_else(|error| panic!("{text:?}: {error}"));
                assert_eq!(again.to_string(), printed, "{text:?}");
                walk(&expr, &mut |expr| {
                    assert!(
                        expr.span.start < expr.span.end && expr.span.end <= text.len(),
                        "{:?}",
                        expr.span
                    );
                    let _ = expr.value_type();
                    true
                });
            }
            Err(error) => assert!(error.span.start <= error.span.end && error.span.end <= text.len()),
        }
    }
    let _ = parse_metric_selector(text);
}

/// Pieces that make texts which get somewhere.
const PIECES: &[&str] = &[
    "foo",
    "a:b",
    "sum",
    "by",
    "without",
    "topk",
    "rate",
    "abs",
    "time",
    "info",
    "start",
    "end",
    "step",
    "range",
    "max_of",
    "min_of",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "fill",
    "fill_left",
    "bool",
    "offset",
    "anchored",
    "smoothed",
    "and",
    "or",
    "unless",
    "atan2",
    "inf",
    "NaN",
    "stale",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "@",
    "=",
    "=~",
    "!~",
    "!=",
    "==",
    "<",
    ">",
    "<=",
    ">=",
    "</",
    ">/",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "_",
    "x",
    "5m",
    "1h30m",
    "0",
    "1",
    "2.5",
    ".5",
    "0x1f",
    "1e3",
    "1_0",
    "'s'",
    "\"a\\n\"",
    "`r`",
    "\"\\xff\"",
    "#c\n",
    " ",
    "\n",
    "\t",
    "\u{e9}",
    "\u{fffd}",
    "\\",
    "\"",
    "'",
    "`",
    "{{",
    "}}",
    "$",
    "$x",
    "{a=\"b\"}",
    "[5m]",
    "[5m:1m]",
    "(a)",
    "sum(",
    "rate(foo[5m])",
    "foo{a=~\"",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec((prop::sample::select(PIECES), any::<bool>()), 0..24).prop_map(|pieces| {
        pieces.into_iter().flat_map(|(piece, space)| [piece, if space { " " } else { "" }]).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        exercise(&text);
    }

    #[test]
    fn any_tokens_are_survived(text in soup()) {
        exercise(&text);
    }
}

fn nestings(levels: usize) -> Vec<String> {
    let around = |open: &str, inside: &str, close: &str| {
        format!("{}{inside}{}", open.repeat(levels), close.repeat(levels))
    };
    vec![
        around("(", "1", ")"),
        around("-", "1", ""),
        around("-", "a", ""),
        around("-(", "a", ")"),
        around("abs(", "a", ")"),
        around("sum(", "a", ")"),
        around("topk(1, ", "a", ")"),
        around("1 ^ ", "1", ""),
        around("1 + ", "1", ""),
        around("a or ", "a", ""),
        around("1 + (", "1", ")"),
        around("rate(", "a", "[5m:])"),
        around("", "a", "[5m:]"),
        format!("a[{}]", around("(", "5m", ")")),
        format!("a[{}]", around("-", "5m", "")),
        format!("a[{}]", around("5m + ", "5m", "")),
        format!("a[{}]", around("max_of(1, ", "5m", ")")),
        format!("a offset {}", around("-(", "5m", ")")),
        around("(", "", ""),
        around("{", "", ""),
        around("[", "", ""),
        around("sum(", "", ""),
        around("a[", "", ""),
    ]
}

#[test]
fn deep_nesting_is_an_error() {
    for text in nestings(100_000) {
        let error = parse(&text, &ParseOptions::all()).expect_err("too deep or too long");
        let shown = text.get(..20).unwrap_or_default();
        assert!(error.to_string().len() < 200, "{shown}: {error}");
    }
    let text = "(".repeat(EXPR_DEPTH_MAX) + "1" + &")".repeat(EXPR_DEPTH_MAX);
    let error = parse(&text, &ParseOptions::all()).unwrap_err();
    assert_eq!(error.kind, ParseErrorKind::Limit);
    let expected = "1:251: parse error: expression is nested deeper than 250 levels";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn nesting_up_to_the_limit_works() {
    let levels = EXPR_DEPTH_MAX - 1;
    let texts = [
        "(".repeat(levels) + "1" + &")".repeat(levels),
        "sum(".repeat(levels) + "a" + &")".repeat(levels),
        "a or ".repeat(levels) + "a",
        "1 ^ ".repeat(levels) + "1",
    ];
    for text in texts {
        let expr = parse(&text, &ParseOptions::default()).unwrap();
        assert_eq!(expr.to_string(), text);
        assert_eq!(parse(&pretty(&expr), &ParseOptions::default()).unwrap(), expr);
        assert_eq!(expr.clone(), expr);
    }
}

#[test]
fn long_texts_are_refused_unread() {
    let text = " ".repeat(QUERY_BYTES_MAX) + "1";
    let error = parse(&text, &ParseOptions::default()).unwrap_err();
    assert_eq!(error.kind, ParseErrorKind::Limit);
    assert_eq!(error.to_string(), "1:1: parse error: text of 1048577 bytes is longer than 1048576 bytes");
    assert_eq!(parse_metric_selector(&text).unwrap_err().kind, ParseErrorKind::Limit);
    assert!(parse(text.get(1..).unwrap(), &ParseOptions::default()).is_ok());
}

#[test]
fn wide_texts_take_little_time() {
    let labels = (0..60_000).map(|n| format!("l{n}")).collect::<Vec<_>>().join(",");
    let text = format!("a * on ({labels}) group_left ({}) b", labels.replace('l', "m"));
    assert!(parse(&text, &ParseOptions::default()).is_ok());
    let sum = "1 + 1 * ".repeat(100) + "1";
    let args = format!("label_join(a, \"b\", \"c\"{})", ", \"d\"".repeat(100_000));
    assert!(parse(&sum, &ParseOptions::default()).is_ok());
    assert!(parse(&args, &ParseOptions::default()).is_ok());
}

#[test]
fn odd_but_valid_texts_print_to_what_parses() {
    for text in [
        r#""\ufffd\xff\u200b""#,
        r#"{a="\xff\ufffd", "\xfe"="x"}"#,
        "\"\u{10ffc3}\u{10ffa9}\"",
        "`\u{10ff80}`",
        "foo[0.0001]",
        "foo[0.0001:0.0002] offset 0.0003",
        "foo[38319d11h44m26s745ms] offset -25270d21h45m10s233ms",
        "Inf ^ 2",
        "foo[-5m ^ 2 + 1d]",
        "foo offset --step()",
        "foo offset --51 - -5",
        "foo offset --51 - -5 @ 3 * 2",
        "foo offset -+5 ^ 2",
        "foo offset --5 ^ 2 @ 1 / 2",
        "foo offset --step() @ 5 * 2",
        "foo offset (5m) @ 5 ^ 2",
        "bar + -foo offset (5m) - 1m @ end() - 3",
        "foo offset +(5m) * 2",
        "foo @ 1e18",
        "foo @ -0.0004",
        "-0s",
        "a + fill(NaN) b",
        "info(a, {})",
        "sum by (\"inf\", \"\u{e9}\") (a)",
        "fill{} * (fill_left{})",
    ] {
        let expr = parse(text, &ParseOptions::all()).expect(text);
        let printed = expr.to_string();
        let again = parse(&printed, &ParseOptions::all()).expect(&printed);
        assert_eq!(again.to_string(), printed, "{text}");
        assert_eq!(parse(&pretty(&expr), &ParseOptions::all()).expect(text).to_string(), printed, "{text}");
    }
}
