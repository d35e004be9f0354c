//! What happens when metric names, types and units go, and to texts that are no label names.

use chronolith_promql::EngineOptions;

use crate::dsl::{World, options};

const SAME: &str = "error: vector cannot contain metrics with the same labelset";

/// Two metrics with equal labels, one after the other; and one metric with two types.
fn world(options: EngineOptions) -> World {
    World::with(options).load(
        0,
        60_000,
        "
        early{i=\"1\"} 1 2 _ _ _ _ _ _ _ _ _ _ _ _
        late{i=\"1\"} _ _ _ _ _ _ _ _ _ _ _ _ 3 4
        typed{Z=\"1\",i=\"1\"} 1 1 _ _ _ _ _ _ _ _ _ _ _ _
        typed{__type__=\"gauge\",Z=\"1\",i=\"1\"} _ _ _ _ _ _ _ _ _ _ _ _ 5 5
        both{__type__=\"gauge\",i=\"1\"} 1 1
        both{__type__=\"counter\",i=\"1\"} 2 2
        ",
    )
}

#[test]
fn elements_that_become_equal_are_merged_by_step() {
    let world = world(options());
    let steps = (60_000, 780_000, 720_000);
    for (text, expected) in [
        ("-{__name__=~\"early|late\"}", "{i=\"1\"} -2@60000 -4@780000"),
        ("timestamp({__name__=~\"early|late\"})", "{i=\"1\"} 60@60000 780@780000"),
        ("timestamp(typed)", "{Z=\"1\", i=\"1\"} 60@60000 780@780000"),
        ("-typed", "{Z=\"1\", i=\"1\"} -1@60000 -5@780000"),
        ("sum(typed * 2)", "{} 2@60000 10@780000"),
        ("sum(timestamp(typed))", "{} 60@60000 780@780000"),
        ("-both", SAME),
        ("sum(-both)", SAME),
        ("max(timestamp(both))", SAME),
        ("sum(both)", "{} 3@60000"),
        // What is filtered out cannot be equal to anything.
        ("sum(clamp(both, 2, 1))", ""),
        ("histogram_count(both)", ""),
        ("abs(both > 1)", "{i=\"1\"} 2@60000"),
        // Range functions look at whole series.
        ("sum(count_over_time(typed[1m]))", SAME),
        ("sum(last_over_time(typed[1m]))", "{} 1@60000 5@780000"),
    ] {
        assert_eq!(world.range(steps, text), expected, "{text}");
    }
}

/// Wherever in a large selection the two stand that differ by type alone.
#[test]
fn range_functions_refuse_equals_far_apart() {
    for place in ["000", "299"] {
        let world = World::new();
        let write = |labels: &[(&str, &str)]| {
            let labels = [("__name__", "m")].iter().chain(labels).copied();
            let samples = vec![chronolith_model::Sample::new(0, 1.0)];
            world.write(chronolith_model::Labels::from_pairs(labels), samples);
        };
        for i in 0..300 {
            write(&[("A", &format!("{i:03}"))]);
        }
        assert_eq!(world.at(0, "sum(count_over_time(m[1m]))"), "{} 300");
        write(&[("A", place), ("__type__", "gauge")]);
        assert_eq!(world.at(0, "sum(count_over_time(m[1m]))"), SAME);
        assert_eq!(world.at(0, "sum(-m)"), SAME);
    }
}

#[test]
fn absent_over_time_looks_at_no_names() {
    for delayed_name_removal in [false, true] {
        let world = world(EngineOptions { delayed_name_removal, ..options() });
        assert_eq!(world.at(780_000, "absent_over_time({i=\"1\"}[13m])"), "");
        assert_eq!(world.at(60_000, "absent_over_time(both[1m])"), "");
        assert_eq!(world.at(780_000, "absent_over_time({__name__=\"both\",i=\"1\"}[1m])"), "{i=\"1\"} 1");
    }
}

#[test]
fn bytes_that_are_no_utf8() {
    World::new().load(0, 60_000, "m{a=\"1\"} 1").check(
        0,
        &[
            (r#""a\xff""#, "\"a\u{fffd}\""),
            (
                r#"label_replace(m, "\xff", "", "a", "(.*)")"#,
                "error: invalid destination label name in label_replace(): \u{fffd}",
            ),
            (
                r#"label_replace(m, "b", "", "a", "\xff")"#,
                "error: invalid regular expression in label_replace(): \u{fffd}",
            ),
            (r#"label_replace(m, "b", "\xff", "a", "(.*)")"#, "m{a=\"1\", b=\"\u{fffd}\"} 1"),
            (r#"label_replace(m, "b", "x", "\xff", "(.*)")"#, "m{a=\"1\", b=\"x\"} 1"),
            (
                r#"label_join(m, "\xff", "-", "a")"#,
                "error: invalid destination label name in label_join(): \u{fffd}",
            ),
            (
                r#"label_join(nope, "b", "-", "a\xff")"#,
                "error: invalid source label name in label_join(): a\u{fffd}",
            ),
            (r#"label_join(m, "b", "\xff", "a", "a")"#, "m{a=\"1\", b=\"1\u{fffd}1\"} 1"),
            (r#"count_values("a\xc5z", m)"#, r#"error: invalid label name "a\xc5z""#),
            (r#"m{a="\xff"}"#, ""),
            (r#"m{a!="\xff"}"#, "m{a=\"1\"} 1"),
        ],
    );
}
