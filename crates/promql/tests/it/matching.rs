//! Vectors with vectors: who matches whom, what is an error, step by step.

use chronolith_promql::Query;

use crate::dsl::{World, show};

fn world() -> World {
    World::new().load(
        0,
        60_000,
        r#"
        many{g="a", i="1"} 1 2 3
        many{g="a", i="2"} 10 20 30
        many{g="b", i="1"} 5 5 5
        one{g="a", color="red"} 2 2 2
        one{g="c", color="blue"} 7 7 7
        "#,
    )
}

#[test]
fn operators_match_labels() {
    world().check(
        60_000,
        &[
            (
                "many * on(g) group_left(color) one",
                r#"{color="red", g="a", i="1"} 4; {color="red", g="a", i="2"} 40"#,
            ),
            ("one / on(g) group_right many", r#"{g="a", i="1"} 1; {g="a", i="2"} 0.1"#),
            ("many > on(g) group_left one", r#"many{g="a", i="2"} 20"#),
            ("many >= bool on(g) group_left one", r#"{g="a", i="1"} 1; {g="a", i="2"} 1"#),
            ("one < on(g) group_right many", r#"many{g="a", i="2"} 2"#),
            ("many and on(g) one", r#"many{g="a", i="1"} 2; many{g="a", i="2"} 20"#),
            ("many unless on(g) one", r#"many{g="b", i="1"} 5"#),
            ("one or on(g) many", r#"one{color="blue", g="c"} 7; one{color="red", g="a"} 2; many{g="b", i="1"} 5"#),
            ("many - many", r#"{g="a", i="1"} 0; {g="a", i="2"} 0; {g="b", i="1"} 0"#),
            ("many == many", r#"many{g="a", i="1"} 2; many{g="a", i="2"} 20; many{g="b", i="1"} 5"#),
            ("many + on(i) many", "error: found duplicate series for the match group {i=\"1\"} on the right hand-side of \
             the operation: [{__name__=\"many\", g=\"a\", i=\"1\"}, {__name__=\"many\", g=\"b\", i=\"1\"}];many-to-many \
             matching not allowed: matching labels must be unique on one side"),
            ("one + on(g) many", "error: found duplicate series for the match group {g=\"a\"} on the right hand-side of \
             the operation: [{__name__=\"many\", g=\"a\", i=\"1\"}, {__name__=\"many\", g=\"a\", i=\"2\"}];many-to-many \
             matching not allowed: matching labels must be unique on one side"),
            ("many + on(g) one", "error: multiple matches for labels: many-to-one matching must be explicit \
             (group_left/group_right)"),
            ("many + nope", ""),
            ("nope + on(g) many", ""),
        ],
    );
}

#[test]
fn missing_sides_are_filled() {
    world().check(
        60_000,
        &[
            ("one + on(g) fill(100) many{i=\"1\"}", r#"{g="c"} 107; {g="a"} 4; {g="b"} 105"#),
            ("one + on(g) fill_right(1) many{i=\"1\"}", r#"{g="c"} 8; {g="a"} 4"#),
            ("one + on(g) fill_left(1) many{i=\"1\"}", r#"{g="a"} 4; {g="b"} 6"#),
        ],
    );
}

/// The "one" side may be another series at each step; the output goes on.
#[test]
fn the_one_side_may_switch() {
    let world = World::new().load(
        0,
        600_000,
        r#"
        many{g="a"} 1 1 1
        one{g="a", version="1"} 10 stale _
        one{g="a", version="2"} _ 20 30
        "#,
    );
    let steps = (0, 1_200_000, 600_000);
    assert_eq!(world.range(steps, "many * on(g) one"), "{g=\"a\"} 10@0 20@600000 30@1200000");
    assert_eq!(
        world.range(steps, "many * on(g) group_left(version) one"),
        "{g=\"a\", version=\"1\"} 10@0; {g=\"a\", version=\"2\"} 20@600000 30@1200000"
    );
}

#[test]
fn duplicates_count_only_at_the_same_step() {
    let world = World::new().load(
        0,
        600_000,
        r#"
        a{x="1"} 1 stale _
        b{x="1"} _ 2 _
        c{x="1"} 3 3 3
        d{x="1"} _ 4 4
        "#,
    );
    let steps = (0, 1_200_000, 600_000);
    // Element-wise: one series where they do not meet.
    assert_eq!(world.range(steps, "{__name__=~\"a|b\"} + 0"), "{x=\"1\"} 1@0 2@600000");
    assert_eq!(
        world.range(steps, "{__name__=~\"c|d\"} + 0"),
        "error: vector cannot contain metrics with the same labelset"
    );
    assert_eq!(world.range(steps, "-{__name__=~\"a|b\"}"), "{x=\"1\"} -1@0 -2@600000");
    // Range functions refuse equal series whatever their times.
    assert_eq!(
        world.range(steps, "count_over_time({__name__=~\"a|b\"}[5m])"),
        "error: vector cannot contain metrics with the same labelset"
    );
    // Names that go at the end of the query part them until then.
    let late = World { engine: chronolith_promql::Engine::new(late_names()), storage: world.storage };
    assert_eq!(late.range(steps, "count_over_time({__name__=~\"a|b\"}[5m])"), "{x=\"1\"} 1@0 1@600000");
    assert_eq!(late.at(0, "rate({__name__=~\"c|d\"}[5m]) or {__name__=~\"c|d\"} * 2"), "{x=\"1\"} 6");
    assert_eq!(
        late.at(600_000, "-{__name__=~\"c|d\"}"),
        "error: vector cannot contain metrics with the same labelset"
    );
}

fn late_names() -> chronolith_promql::EngineOptions {
    chronolith_promql::EngineOptions { delayed_name_removal: true, ..crate::dsl::options() }
}

#[test]
fn the_error_is_that_of_the_first_step() {
    let world = World::new().load(
        0,
        600_000,
        r#"
        l{g="a"} 1 1 1
        l{g="b", i="1"} 1 1 1
        l{g="b", i="2"} 1 1 1
        r{g="a", i="1"} 1 1 1
        r{g="a", i="2"} _ _ 1
        r{g="b"} _ 1 1
        "#,
    );
    let text = "l + on(g) r";
    assert!(world.range((0, 0, 1), text).starts_with('{'));
    assert!(world.range((0, 600_000, 600_000), text).contains("many-to-one matching must be explicit"));
    assert!(world.range((0, 1_200_000, 600_000), text).contains("many-to-one matching must be explicit"));
    assert!(world.range((1_200_000, 1_200_000, 1), text).contains("found duplicate series"));
}

#[test]
fn floats_cannot_be_trimmed() {
    let world = World::new().load(0, 60_000, "a{i=\"1\"} 1 2\na{i=\"2\"} 3 4\nb{i=\"1\"} 1\nb{i=\"3\"} 1");
    let run = |text: &str| {
        let result = world.run(&Query::range(text, 0, 60_000, 60_000)).map_err(|error| error.to_string())?;
        assert!(result.warnings.is_empty());
        Ok::<_, String>((show(&result), result.infos))
    };
    let info = |op: &str, at: &str| {
        let text = "PromQL info: incompatible sample types encountered for binary operator";
        vec![format!("{text} \"{op}\": float {op} float ({at})")]
    };
    for (text, op, at) in [
        ("a </ 1", "</", "1:1"),
        ("1 + 1 >/ a", ">/", "1:1"),
        ("a >/ b", ">/", "1:1"),
        ("a </ on(i) group_left() b", "</", "1:1"),
        ("sum(a >/ 0)", ">/", "1:5"),
        ("abs(-a </ 0)", "</", "1:5"),
    ] {
        assert_eq!(run(text), Ok((String::new(), info(op, at))), "{text}");
    }
    // Where nothing meets there is nothing to tell.
    for text in ["nope </ 1", "a{i=\"2\"} >/ b", "nope >/ a", "a </ scalar(nope) and nope"] {
        let infos = if text.starts_with("a </ scalar") { info("</", "1:1") } else { Vec::new() };
        assert_eq!(run(text), Ok((String::new(), infos)), "{text}");
    }
    assert_eq!(run("1 </ 2").unwrap_err(), "operator \"</\" not allowed for Scalar operations");
    // Sides are checked as for any other operator.
    let error = run("b </ on() a").unwrap_err();
    assert!(error.starts_with("found duplicate series for the match group {} on the right"), "{error}");
}
