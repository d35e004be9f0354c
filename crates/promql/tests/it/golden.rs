//! Results that Prometheus 3.5.3 gives.

use crate::dsl::World;

#[test]
fn expressions_without_data() {
    let world = World::new();
    world.check(
        0,
        &[
            ("-2^2", "-4"),
            ("2^-1", "0.5"),
            ("2^3^2", "512"),
            ("5 % -3", "2"),
            ("-5 % 3", "-2"),
            ("2 + 3 * 4 ^ 2 % 5", "5"),
            ("10 - 2 - 3", "5"),
            ("1/0", "+Inf"),
            ("-1/0", "-Inf"),
            ("0/0", "NaN"),
            ("0/0 == bool 0/0", "0"),
            ("1 > bool NaN", "0"),
            ("0x1F + 017", "46"),
            ("1h30m", "5400"),
            ("5m + 1", "301"),
            ("1 atan2 1", "0.7853981633974483"),
            ("vector(1) or vector(2)", "{} 1"),
            ("2 < vector(3)", "{} 3"),
            ("vector(3) > bool 2", "{} 1"),
            ("vector(1) == vector(2)", ""),
            ("round(vector(-2.5))", "{} -2"),
            ("round(vector(2.5))", "{} 3"),
            ("round(vector(5),0)", "{} NaN"),
            ("clamp(vector(5),3,1)", ""),
            ("clamp(vector(5),1,NaN)", "{} NaN"),
            ("sgn(vector(-0))", "{} -0"),
            ("ln(vector(0))", "{} -Inf"),
            ("sqrt(vector(-1))", "{} NaN"),
            ("day_of_week(vector(0))", "{} 4"),
            ("day_of_year(vector(1700000000))", "{} 318"),
            ("days_in_month(vector(1709164800))", "{} 29"),
            ("minute(vector(-1))", "{} 59"),
            ("year(vector(1e12))", "{} 33658"),
            ("hour(vector(1700000000))", "{} 22"),
            ("hour()", "{} 0"),
            ("absent(nope{job=\"a\",x=~\"b.*\",y!=\"c\"})", "{job=\"a\"} 1"),
            ("absent(nope{job=\"a\",job=\"b\"})", "{} 1"),
            ("absent(sum(nope))", "{} 1"),
            ("absent(vector(1))", ""),
            ("vector(scalar(nope))", "{} NaN"),
            ("label_replace(vector(1),\"a\",\"$1-x\",\"b\",\"(.*)\")", "{a=\"-x\"} 1"),
            ("label_join(vector(1),\"a\",\"-\",\"b\",\"c\")", "{a=\"-\"} 1"),
            ("count_values(\"v\", vector(1e21))", "{v=\"1000000000000000000000\"} 1"),
            // Half way between two of sixteen digits.
            ("count_values(\"v\", vector(705120779736658.25))", "{v=\"705120779736658.2\"} 1"),
            ("topk(0, vector(1))", ""),
            ("topk(NaN, vector(1))", "error: Parameter value is NaN"),
            ("quantile(-1, vector(1))", "{} -Inf"),
            ("sum(nope)", ""),
            ("count(nope)", ""),
            ("time()", "0"),
            ("pi()", "3.141592653589793"),
            ("\"text\"", "\"text\""),
            ("histogram_quantile(0.5, vector(1))", ""),
            ("count_values(\"\", vector(1))", "error: invalid label name \"\""),
        ],
    );
}

#[test]
fn annotations_have_places() {
    let world = World::new();
    let warnings = |text: &str| world.run(&chronolith_promql::Query::instant(text, 0)).unwrap().warnings;
    assert_eq!(
        warnings("quantile(-1, vector(1))"),
        ["PromQL warning: quantile value should be between 0 and 1, got -1 (1:10)"]
    );
    let bucket = warnings("histogram_quantile(0.5, vector(1))");
    assert_eq!(bucket.len(), 1, "{bucket:?}");
    assert!(
        bucket[0].contains("bucket label \"le\" is missing or has a malformed value of \"\""),
        "{bucket:?}"
    );
    let world = data();
    let run = |text: &str| world.run(&chronolith_promql::Query::instant(text, 4_050_000)).unwrap();
    assert_eq!(
        run("histogram_quantile(0.5, g)").warnings,
        [
            "PromQL warning: bucket label \"le\" is missing or has a malformed value of \"\" for metric name \"g\" (1:25)"
        ]
    );
    let infos = |text: &str| run(text).infos;
    let place = |column: &str| {
        let info = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"g\"";
        vec![format!("PromQL info: {info} ({column})")]
    };
    assert_eq!(infos("1 +\nsum(rate(g[1m]))"), place("2:10"));
    assert_eq!(infos("1 +\nsum(rate(g[1m:10s]))"), place("1:1"));
}

fn data() -> World {
    World::new()
        .load(
            4_000_000,
            10_000,
            r#"
            m{i="1"} 1 2 3 stale 5 NaN
            c_total{i="1"} 0 10 20 5 15 25
            g{i="1"} 1 3 2 8 8 4
            "#,
        )
        .load(
            4_000_000,
            1,
            r#"
            hb_bucket{le="0.1"} 1
            hb_bucket{le="0.5"} 5
            hb_bucket{le="1"} 9
            hb_bucket{le="+Inf"} 10
            hn_bucket{le="-1"} 2
            hn_bucket{le="0"} 6
            hn_bucket{le="+Inf"} 10
            hx_bucket{le="1"} 5
            hx_bucket{le="2"} 3
            hx_bucket{le="+Inf"} 10
            "#,
        )
}

#[test]
fn selectors() {
    let world = data();
    for (t, text, expected) in [
        (3_999_999, "m", ""),
        (4_000_000, "m", "m{i=\"1\"} 1"),
        (4_029_999, "m", "m{i=\"1\"} 3"),
        (4_030_000, "m", ""),
        (4_039_000, "m", ""),
        (4_040_000, "m", "m{i=\"1\"} 5"),
        (4_050_000, "m", "m{i=\"1\"} NaN"),
        (4_349_999, "m", "m{i=\"1\"} NaN"),
        (4_350_000, "m", ""),
        (4_020_000, "m[20s]", "m{i=\"1\"} 2@4010000 3@4020000"),
        (4_020_000, "m[20001ms]", "m{i=\"1\"} 1@4000000 2@4010000 3@4020000"),
        (4_040_000, "m[30s]", "m{i=\"1\"} 3@4020000 5@4040000"),
        (4_020_000, "m offset 10s", "m{i=\"1\"} 2"),
        (4_000_000, "m offset -10s", "m{i=\"1\"} 2"),
        (5_000_000, "m @ 4010", "m{i=\"1\"} 2"),
        (5_000_000, "m[30s] @ 4020 offset 10s", "m{i=\"1\"} 1@4000000 2@4010000"),
        (4_025_000, "timestamp(m)", "{i=\"1\"} 4020"),
        (4_025_000, "timestamp(m+0)", "{i=\"1\"} 4025"),
        (4_025_000, "timestamp((m))", "{i=\"1\"} 4020"),
        (4_030_000, "present_over_time(m[10s])", ""),
        (4_050_000, "g[1m:20s]", "g{i=\"1\"} 1@4000000 2@4020000 8@4040000"),
        (4_060_000, "g[50s:20s]", "g{i=\"1\"} 2@4020000 8@4040000 4@4060000"),
        (4_050_000, "sum_over_time(g[1m:])", "{i=\"1\"} 2"),
        (4_060_000, "avg_over_time(c_total[1m:10s] offset 10s)", "{i=\"1\"} 12.5"),
        (4_060_000, "min_over_time(rate(c_total[20s])[1m:10s])", "{i=\"1\"} 0.5"),
        (4_000_000, "g > on(i) c_total", "{i=\"1\"} 1"),
        (4_000_000, "g > c_total", "g{i=\"1\"} 1"),
        (4_050_000, "sum without (i) ({__name__=~\"g|c_total\"})", "{} 29"),
        (4_000_000, "quantile(0.25, {le!=\"\"})", "{} 3.5"),
        // The order of the series shows in the last bits, and Prometheus' order is that of its storage.
        (4_000_000, "abs(stddev({__name__=~\"h._bucket\"}) - 3.3) < bool 1e-12", "{} 1"),
        (4_000_000, "abs(stdvar({__name__=~\"h._bucket\"}) - 10.89) < bool 1e-12", "{} 1"),
        (4_000_000, "avg({__name__=~\"h._bucket\"})", "{} 6.1"),
    ] {
        assert_eq!(world.at(t, text), expected, "{text} at {t}");
    }
}

#[test]
fn functions_of_ranges() {
    data().check(
        4_050_000,
        &[
            ("count_over_time(m[1m])", "{i=\"1\"} 5"),
            ("sum_over_time(m[1m])", "{i=\"1\"} NaN"),
            ("last_over_time(m[1m])", "m{i=\"1\"} NaN"),
            ("max_over_time(m[1m])", "{i=\"1\"} 5"),
            ("rate(c_total[1m])", "{i=\"1\"} 0.75"),
            ("increase(c_total[50s])", "{i=\"1\"} 43.75"),
            ("increase(c_total[20s])", "{i=\"1\"} 20"),
            ("rate(c_total[10s])", ""),
            ("irate(c_total[1m])", "{i=\"1\"} 1"),
            ("delta(g[1m])", "{i=\"1\"} 3.5999999999999996"),
            ("resets(c_total[1m])", "{i=\"1\"} 1"),
            ("changes(g[1m])", "{i=\"1\"} 4"),
            ("changes(m[1m])", "{i=\"1\"} 4"),
            ("deriv(g[1m])", "{i=\"1\"} 0.10285714285714286"),
            ("predict_linear(g[1m],60)", "{i=\"1\"} 13.076190476190476"),
            ("avg_over_time(g[1m])", "{i=\"1\"} 4.333333333333333"),
            ("min_over_time(g[1m])", "{i=\"1\"} 1"),
            ("stddev_over_time(g[1m])", "{i=\"1\"} 2.748737083745107"),
            ("stdvar_over_time(g[1m])", "{i=\"1\"} 7.555555555555556"),
            ("quantile_over_time(0.5, g[1m])", "{i=\"1\"} 3.5"),
            ("quantile_over_time(0.9, g[1m])", "{i=\"1\"} 8"),
            ("mad_over_time(g[1m])", "{i=\"1\"} 2"),
            ("double_exponential_smoothing(g[1m],0.5,0.5)", "{i=\"1\"} 7.0859375"),
            ("{__name__=~\"g|c_total\"} + 0", "error: vector cannot contain metrics with the same labelset"),
            (
                "rate({__name__=~\"g|c_total\"}[1m])",
                "error: vector cannot contain metrics with the same labelset",
            ),
            ("abs({__name__=~\"g|c_total\"})", "error: vector cannot contain metrics with the same labelset"),
        ],
    );
    let world = data();
    assert_eq!(world.at(4_030_000, "irate(c_total[1m])"), "{i=\"1\"} 0.5");
    assert_eq!(world.at(4_030_000, "idelta(c_total[1m])"), "{i=\"1\"} -15");
    let rate = world.run(&chronolith_promql::Query::instant("rate(g[1m])", 4_050_000)).unwrap();
    assert_eq!(
        rate.infos,
        [
            "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"g\" (1:6)"
        ]
    );
}

#[test]
fn classic_histograms() {
    data().check(
        4_000_000,
        &[
            ("histogram_quantile(0.5, hb_bucket)", "{} 0.5"),
            ("histogram_quantile(0.05, hb_bucket)", "{} 0.05"),
            ("histogram_quantile(0.95, hb_bucket)", "{} 1"),
            ("histogram_quantile(1, hb_bucket)", "{} 1"),
            ("histogram_quantile(0, hb_bucket)", "{} 0"),
            ("histogram_quantile(0.1, hn_bucket)", "{} -1"),
            ("histogram_quantile(0.3, hn_bucket)", "{} -0.75"),
            ("histogram_quantile(0.5, hx_bucket)", "{} 1"),
            ("histogram_quantile(0.9, hx_bucket)", "{} 2"),
            ("histogram_quantile(0.5, hb_bucket{le!=\"+Inf\"})", "{} NaN"),
            ("histogram_fraction(0,0.3,hb_bucket)", "{} 0.3"),
            (
                "hb_bucket / ignoring(le) group_left hb_bucket{le=\"+Inf\"}",
                "{le=\"+Inf\"} 1; {le=\"0.1\"} 0.1; {le=\"0.5\"} 0.5; {le=\"1\"} 0.9",
            ),
            (
                "hb_bucket / on() hb_bucket{le=\"+Inf\"}",
                "error: multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
            ),
            (
                "hb_bucket / on() group_left(le) hb_bucket{le=\"+Inf\"}",
                "error: multiple matches for labels: grouping labels must ensure unique matches",
            ),
            (
                "sort_by_label({__name__=\"hb_bucket\"},\"le\")",
                "hb_bucket{le=\"+Inf\"} 10; hb_bucket{le=\"0.1\"} 1; hb_bucket{le=\"0.5\"} 5; hb_bucket{le=\"1\"} 9",
            ),
        ],
    );
}

#[test]
fn ranges() {
    let world = data();
    assert_eq!(
        world.range((3_995_000, 4_065_000, 15_000), "c_total"),
        "c_total{i=\"1\"} 10@4010000 20@4025000 15@4040000 25@4055000"
    );
    assert_eq!(
        world.range((3_985_000, 4_005_000, 10_000), "sum(c_total) or vector(1)"),
        "{} 1@3985000 1@3995000 0@4005000"
    );
    assert_eq!(
        world.range((4_000_000, 4_060_000, 10_000), "m"),
        "m{i=\"1\"} 1@4000000 2@4010000 3@4020000 5@4040000 NaN@4050000 NaN@4060000"
    );
}
