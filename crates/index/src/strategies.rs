//! Labels and matchers for property tests: few names and values, so that matchers meet something.

use chronolith_model::{Labels, METRIC_NAME, MatchOp, Matcher};
use proptest::prelude::*;

/// Labels of a series, perhaps without a metric name or any pair.
pub(crate) fn any_labels() -> impl Strategy<Value = Labels> {
    let value =
        prop::sample::select(vec!["a", "b", "ab", "abc", "x", "xyz", "1", "2", "12", "\u{e9}", "a.b"]);
    let wide = (0..300u32).prop_map(|n| format!("v{n}"));
    let metric = prop::sample::select(vec!["", "up", "m", "m_total", "n", "node_cpu"]);
    (
        metric,
        // `A` and `Z` sort before the metric name, the others behind it.
        prop::collection::btree_map(prop::sample::select(vec!["A", "Z", "l", "m", "n"]), value, 0..4),
        prop::option::of(wide),
    )
        .prop_map(|(metric, pairs, wide)| {
            let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
            let wide = wide.map(|wide| ("w".to_owned(), wide));
            Labels::from_pairs(pairs.chain(wide).chain([(METRIC_NAME.to_owned(), metric.to_owned())]))
        })
}

/// A matcher that compiles, of every shape there is.
pub(crate) fn any_matcher() -> impl Strategy<Value = Matcher> {
    let name = prop::sample::select(vec!["A", "Z", "l", "m", "n", "w", "absent", METRIC_NAME]);
    let op = prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]);
    let value = prop::sample::select(vec![
        "",
        "a",
        "ab",
        "a|b",
        "|x",
        ".*",
        ".+",
        "a.*",
        "a.+",
        "a?",
        ".*b",
        ".*b.*",
        "[ab]+",
        "x.z|1",
        "(a|x)(b|yz)?",
        "v1.*",
        "v1.+",
        "v[0-9]",
        "v1|v2|v3|nope",
        "v.*7",
        "absent",
        "\u{e9}|a",
        "(?i)AB",
        "up",
        "m.*",
        "n.*|up",
        "a\\.b.*",
        "\u{e9}.*",
        "v2[0-9]*",
        ".*1.*",
    ]);
    (name, op, value).prop_map(|(name, op, value)| Matcher::new(name, op, value))
}
