//! `type-and-unit-labels`: counters are told by the label `__type__`.

use chronolith_promql::{EngineOptions, Query};

use crate::dsl::{World, options};

const SERIES: &str = r#"
    a_total{__type__="gauge", __unit__="s"} 1 2 3
    a{__type__="counter"} 1 2 3
    b{__type__="histogram"} 1 2 3
    c_total 1 2 3
"#;

/// The infos of an instant query at 2 m.
fn infos(world: &World, query: &str) -> Vec<String> {
    let result = world.run(&Query::instant(query, 120_000)).expect("a valid query");
    assert_eq!(result.warnings, [""; 0], "{query}");
    let mut infos = result.infos;
    infos.sort_by_key(|info| !info.contains("a_total"));
    infos
}

fn world(type_and_unit_labels: bool, delayed_name_removal: bool) -> World {
    let options = EngineOptions { type_and_unit_labels, delayed_name_removal, ..options() };
    World::with(options).load(0, 60_000, SERIES)
}

#[test]
fn counters_are_told_by_their_type() {
    let world = world(true, false);
    let info = |kind: &str, metric: &str, place: &str| {
        format!(
            "PromQL info: metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", \
             got \"{kind}\": \"{metric}\" ({place})"
        )
    };
    for (query, expected) in [
        ("rate(a[2m])", vec![]),
        ("increase(b[2m])", vec![]),
        ("rate(a_total[2m])", vec![info("gauge", "a_total", "1:6")]),
        ("sum(increase(c_total[2m]))", vec![info("", "c_total", "1:14")]),
        ("rate(a_total[2m:1m])", vec![info("gauge", "a_total", "1:1")]),
        // No name, no note.
        ("rate((a_total * 1)[2m:1m])", vec![]),
        // Only these two.
        ("irate(a_total[2m]) + resets(a_total[2m])", vec![]),
        (
            "sum(rate(a_total[2m])) + sum(rate(c_total[2m]))",
            vec![info("gauge", "a_total", "1:10"), info("", "c_total", "1:35")],
        ),
        // Nothing came of it.
        ("rate(a_total[30s])", vec![]),
    ] {
        assert_eq!(infos(&world, query), expected, "{query}");
    }
}

#[test]
fn without_the_option_by_their_name() {
    let world = world(false, false);
    assert_eq!(infos(&world, "rate(a_total[2m])"), [""; 0]);
    assert_eq!(
        infos(&world, "rate(a[2m])"),
        [
            "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"a\" (1:6)"
        ]
    );
}

#[test]
fn answers_do_not_depend_on_it() {
    let queries = [
        "a_total",
        "rate(a_total[2m])",
        "-a_total",
        "a_total > bool 2",
        "a_total > 2",
        "sum by (__type__) (a_total)",
        "sum without (x) (a_total)",
        "max by (__name__, __unit__) (abs(a_total))",
        "last_over_time(a_total[2m])",
        "a_total + on() c_total",
        "a_total and c_total",
        "count_values(\"v\", a_total)",
        "label_replace(rate(a_total[2m]), \"x\", \"$1\", \"__type__\", \"(.*)\")",
    ];
    for delayed in [false, true] {
        let (on, off) = (world(true, delayed), world(false, delayed));
        for query in queries {
            assert_eq!(on.at(120_000, query), off.at(120_000, query), "{query}");
        }
    }
}
