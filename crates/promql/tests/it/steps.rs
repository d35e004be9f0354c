//! Steps: edges of windows, staleness, what is evaluated once, parameters that vary, threads.

use chronolith_model::{Labels, Sample};
use chronolith_promql::{EngineOptions, Query, SampleValue, Value};

use crate::dsl::{World, options};

#[test]
fn windows_are_open_on_the_left() {
    let world = World::new().load(0, 10_000, "m 0 1 2 3 4 5 6");
    for (t, range, count) in
        [(60_000, "10s", 1), (60_000, "10001ms", 2), (59_999, "10s", 1), (60_001, "1ms", 0)]
    {
        let got = world.at(t, &format!("count_over_time(m[{range}])"));
        let expected = if count == 0 { String::new() } else { format!("{{}} {count}") };
        assert_eq!(got, expected, "{range} at {t}");
    }
    assert_eq!(world.at(360_000, "m"), "");
    assert_eq!(world.at(359_999, "m"), "m 6");
}

#[test]
fn subqueries_stand_on_multiples_of_their_step() {
    let world = World::new().load(-100_000, 10_000, "m 0+1x30");
    // Below zero too.
    assert_eq!(world.at(-35_000, "m[30s:10s]"), "m 4@-60000 5@-50000 6@-40000");
    assert_eq!(world.at(5_000, "m[20s:10s]"), "m 9@-10000 10@0");
    assert_eq!(world.at(0, "m[20s:10s] @ 50 offset 10s"), "m 13@30000 14@40000");
    assert_eq!(
        world.range((0, 20_000, 10_000), "sum_over_time(m[20s:10s] @ 50)"),
        "{} 29@0 29@10000 29@20000"
    );
    assert_eq!(world.at(100_000, "max_over_time(sum_over_time(m[20s])[30s:10s])"), "{} 39");
    assert_eq!(
        world.at(100_000, "count_over_time(time()[1m:10s])"),
        "error: 1:17: parse error: subquery is only allowed on instant vector, got scalar instead"
    );
}

#[test]
fn pinned_parts_are_the_same_at_every_step() {
    let world = World::new().load(0, 10_000, "m 0+1x30");
    let steps = (100_000, 120_000, 10_000);
    assert_eq!(world.range(steps, "m @ 50"), "m 5@100000 5@110000 5@120000");
    assert_eq!(world.range(steps, "m @ start()"), "m 10@100000 10@110000 10@120000");
    assert_eq!(world.range(steps, "m @ end()"), "m 12@100000 12@110000 12@120000");
    assert_eq!(world.range(steps, "m - m @ end()"), "{} -2@100000 -1@110000 0@120000");
    assert_eq!(world.range(steps, "timestamp(m @ 50)"), "{} 50@100000 50@110000 50@120000");
    assert_eq!(world.range(steps, "sum(m @ 50) + time()"), "{} 105@100000 115@110000 125@120000");
    // The line is that of one window; the time it is extended to is the step's.
    assert_eq!(world.range(steps, "predict_linear(m[1m] @ 100, 0)"), "{} 10@100000 11@110000 12@120000");
}

#[test]
fn scalar_parameters_vary_by_step() {
    let world = World::new().load(0, 10_000, "k 1 2 3\nm{i=\"1\"} 1 1 1\nm{i=\"2\"} 2 2 2\nm{i=\"3\"} 3 3 3");
    let steps = (0, 20_000, 10_000);
    assert_eq!(
        world.range(steps, "topk(scalar(k), m)"),
        "m{i=\"1\"} 1@20000; m{i=\"2\"} 2@10000 2@20000; m{i=\"3\"} 3@0 3@10000 3@20000"
    );
    assert_eq!(world.range(steps, "quantile(scalar(k) / 4, m)"), "{} 1.5@0 2@10000 2.5@20000");
    assert_eq!(world.range(steps, "clamp_max(m{i=\"3\"}, scalar(k))"), "{i=\"3\"} 1@0 2@10000 3@20000");
    assert_eq!(world.range(steps, "topk(scalar(nope), m)"), "error: Parameter value is NaN");
}

#[test]
fn instant_results_keep_their_order() {
    let world = World::new().load(0, 10_000, "m{i=\"1\"} 2\nm{i=\"2\"} 3\nm{i=\"3\"} 1\nn{i=\"0\"} 9");
    world.check(
        0,
        &[
            ("sort(m)", "m{i=\"3\"} 1; m{i=\"1\"} 2; m{i=\"2\"} 3"),
            ("sort_desc(m) * 2", "{i=\"2\"} 6; {i=\"1\"} 4; {i=\"3\"} 2"),
            ("topk(2, m)", "m{i=\"2\"} 3; m{i=\"1\"} 2"),
            ("bottomk(2, m)", "m{i=\"3\"} 1; m{i=\"1\"} 2"),
            ("m or n", "m{i=\"1\"} 2; m{i=\"2\"} 3; m{i=\"3\"} 1; n{i=\"0\"} 9"),
            ("sum by (i) (sort(m))", "{i=\"3\"} 1; {i=\"1\"} 2; {i=\"2\"} 3"),
        ],
    );
    assert_eq!(
        world.range((0, 10_000, 10_000), "sort_desc(m)"),
        "m{i=\"1\"} 2@0 2@10000; m{i=\"2\"} 3@0 3@10000; m{i=\"3\"} 1@0 1@10000"
    );
}

#[test]
fn samples_are_counted_as_prometheus_does() {
    let world = World::new().load(0, 10_000, "m{i=\"1\"} 0+1x30\nm{i=\"2\"} 0+1x30");
    let total = |text: &str, range: Option<i64>| {
        let query = match range {
            Some(end) => Query::range(text, 100_000, end, 10_000),
            None => Query::instant(text, 100_000),
        };
        world.run(&query).unwrap().stats.total_queryable_samples
    };
    assert_eq!(total("m", None), 2);
    assert_eq!(total("m[1m]", None), 12);
    assert_eq!(total("sum(rate(m[1m]))", None), 12);
    assert_eq!(total("sum(rate(m[1m]))", Some(120_000)), 36);
    assert_eq!(total("m + m", None), 4);
    assert_eq!(total("m @ 50", Some(120_000)), 6);
    assert_eq!(total("max_over_time(rate(m[1m])[1m:10s])", None), 12);
    assert_eq!(total("1 + 1", None), 0);
    let stats = world.run(&Query::range("m", 295_000, 315_000, 10_000)).unwrap().stats;
    assert_eq!(stats.samples_per_step, [(295_000, 2), (305_000, 2), (315_000, 2)]);
}

/// Enough series for several batches and tasks; values whose sum depends on the order of addition.
fn wide() -> World {
    let world = World::new();
    for i in 0_u64..700 {
        let labels = [("__name__", "m".to_owned()), ("i", format!("{i:03}")), ("g", format!("{}", i % 7))];
        let samples = (0..60).map(|t| {
            let noise = (i * 7919 + t * 104_729) % 1_000_003;
            Sample::new(
                t as i64 * 15_000,
                (noise as f64).powi(5) * if noise % 2 == 0 { 1e-9 } else { -1.0 / 3.0 },
            )
        });
        world.write(Labels::from_pairs(labels), samples.collect());
    }
    world
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let mut world = wide();
    let queries = [
        "sum(rate(m[2m]))",
        "sum by (g) (m) / on(g) avg by (g) (m)",
        "stddev by (g) (delta(m[3m]) * 1.1)",
        "topk by (g) (3, m)",
        "quantile by (g) (0.3, m)",
        "sum(rate(m[2m] smoothed)) + sum(increase(m[100s] anchored)) + sum(m offset 7s smoothed)",
        "avg_over_time(sum by (g) (m)[5m:30s])",
        "m > 0 and on(i) m offset 1m < 0",
        "max(abs(-m)) + count(m)",
    ];
    let mut first: Vec<Vec<u64>> = Vec::new();
    for threads in [1, 2, 8] {
        world.engine = chronolith_promql::Engine::new(EngineOptions { threads, ..options() });
        for (index, text) in queries.iter().enumerate() {
            let result = world.run(&Query::range(*text, 0, 900_000, 15_000)).unwrap();
            let Value::Matrix(matrix) = result.value else { panic!("a range query gives a matrix") };
            let bits: Vec<u64> =
                matrix.iter().flat_map(|series| series.points.iter().map(|(_, v)| v.to_bits())).collect();
            assert!(!bits.is_empty(), "{text}");
            if threads == 1 {
                first.push(bits);
            } else {
                assert_eq!(first[index], bits, "{text} on {threads} threads");
            }
        }
    }
}

fn bits(value: &SampleValue) -> u64 {
    value.float().expect("there are floats alone").to_bits()
}

#[test]
fn steps_are_what_instant_queries_give() {
    let world = wide();
    for text in [
        "sum by (g) (rate(m[2m]))",
        "topk(5, m)",
        "count_values by (g) (\"v\", m > bool 0)",
        "m{g=\"1\"} - on(i) m{g=\"1\"} offset 20s",
        "avg_over_time(m{g=\"2\"}[1m:7s])",
        "quantile_over_time(0.9, m{g=\"3\"}[3m])",
        "rate(m{g=\"1\"}[20s] anchored)",
        "delta(m{g=\"2\"}[1m] smoothed)",
        "m{g=\"3\"} offset 4s smoothed",
        "absent(m > 1e30)",
    ] {
        let range = world.run(&Query::range(text, 100_000, 900_000, 40_000)).unwrap();
        let Value::Matrix(matrix) = range.value else { panic!("a range query gives a matrix") };
        for t in (100_000..=900_000).step_by(40_000) {
            let instant = world.run(&Query::instant(text, t)).unwrap();
            let Value::Vector(mut vector) = instant.value else { panic!("a vector") };
            vector.sort_by(|a, b| a.labels.cmp(&b.labels));
            let one: Vec<(Labels, u64)> =
                vector.into_iter().map(|sample| (sample.labels, bits(&sample.value))).collect();
            let same: Vec<(Labels, u64)> = matrix
                .iter()
                .filter_map(|series| {
                    let point = series.points.iter().find(|(at, _)| *at == t)?;
                    Some((series.labels.clone(), point.1.to_bits()))
                })
                .collect();
            assert_eq!(one, same, "{text} at {t}");
        }
    }
}
