//! Explanations: the tree that is told, and that the costs in it are those of what was done.

use std::{fmt::Write as _, time::Duration};

use chronolith_promql::{
    CancelToken, EngineOptions, Explain, ExplainMode, ExplainNode, Observed, Query, QueryError,
    explain::{DEPTH_MAX, EXPR_BYTES_MAX, MATCHERS_BYTES_MAX, NODES_MAX, SELECTIONS_MAX},
};
use chronolith_storage::conformance;

use crate::dsl::{World, options, show};

fn explain(world: &World, query: &Query, mode: ExplainMode) -> Observed {
    conformance::block_on(world.engine.observe(&world.storage, query, Some(mode)))
}

/// An operator a line, those below it indented; costs without times.
fn tree(explain: &Explain) -> String {
    fn node(out: &mut String, told: &ExplainNode, depth: usize) {
        let ExplainNode { operator, expr, steps, .. } = told;
        let _ = write!(out, "{:1$}{operator} `{expr}` x{steps}", "", 2 * depth);
        if let Some(selection) = told.selection {
            let _ = write!(out, " #{selection}");
        }
        if told.uses > 1 {
            let _ = write!(out, " used {}", told.uses);
        }
        if let Some(cost) = &told.cost {
            let _ = write!(
                out,
                " [{}: {} series {} values {} samples]",
                cost.evaluations, cost.series, cost.values, cost.samples
            );
        }
        if told.omitted > 0 {
            let _ = write!(out, " +{}", told.omitted);
        }
        out.push('\n');
        told.children.iter().for_each(|child| node(out, child, depth + 1));
    }
    let mut out = String::new();
    node(&mut out, &explain.root, 0);
    for (index, selection) in explain.selections.iter().enumerate() {
        let _ = write!(out, "#{index} {} {}..{}", selection.matchers, selection.start, selection.end);
        if let Some(series) = selection.series {
            let _ = write!(out, ": {series} series, {} in memory", selection.storage.memory_series);
        }
        out.push('\n');
    }
    out
}

fn world() -> World {
    World::new().load(
        0,
        10_000,
        "m{i=\"1\"} 0+1x20\nm{i=\"2\"} 0+2x20\nm{i=\"3\"} _x15 5 5 5 5 5 5\nother{i=\"1\"} 1x20\n\
         target_info{instance=\"a\", job=\"b\", v=\"1\"} 1x20\nwith{instance=\"a\", job=\"b\"} 7x20",
    )
}

fn analyzed(query: &Query) -> String {
    let explained = explain(&world(), query, ExplainMode::Analyze);
    explained.outcome.as_ref().expect("a result").as_ref().expect("a result");
    tree(&explained.explain.expect("told"))
}

#[test]
fn a_plan_is_told_without_reading_a_sample() {
    let query = Query::range("sum by (i) (rate(m[1m])) / 2 > scalar(other)", 60_000, 200_000, 10_000);
    let explained = explain(&world(), &query, ExplainMode::Plan);
    assert!(matches!(explained.outcome, Ok(None)), "nothing was evaluated: {:?}", explained.outcome);
    let told = explained.explain.expect("told");
    assert_eq!(told.mode, ExplainMode::Plan);
    assert_eq!(
        tree(&told),
        "binary_with_scalar `sum by (i) (rate(m[1m])) / 2 > scalar(other)` x15\n  \
           binary_with_scalar `sum by (i) (rate(m[1m])) / 2` x15\n    \
             aggregation `sum by (i) (rate(m[1m]))` x15\n      \
               range_function `rate(m[1m])` x15 #0\n    \
             number `2` x15\n  \
           vector_function `scalar(other)` x15\n    \
             selector `other` x15 #1\n\
         #0 {__name__=\"m\"} 1..200000: 3 series, 3 in memory\n\
         #1 {__name__=\"other\"} -239999..200000: 1 series, 1 in memory\n"
    );
    assert_eq!((told.root.start, told.root.step), (60_000, 10_000));
}

#[test]
fn what_was_done_is_told_by_operator() {
    // Two of three series are there for all of the time; the last one has six samples.
    let query = Query::range("sum(abs(rate(m[30s])) > 0.15)", 100_000, 200_000, 50_000);
    assert_eq!(
        analyzed(&query),
        "aggregation `sum(abs(rate(m[30s])) > 0.15)` x3 [1: 1 series 3 values 0 samples]\n  \
           binary_with_scalar `abs(rate(m[30s])) > 0.15` x3 [1: 1 series 3 values 0 samples]\n    \
             function `abs(rate(m[30s]))` x3 [1: 3 series 7 values 0 samples]\n      \
               range_function `rate(m[30s])` x3 #0 [1: 3 series 7 values 32 samples]\n    \
             number `0.15` x3 [1: 0 series 3 values 0 samples]\n\
         #0 {__name__=\"m\"} 70001..200000: 3 series, 3 in memory\n"
    );
}

#[test]
fn what_is_shared_is_read_once() {
    let query = Query::instant("max_over_time(m[30s]) + max_over_time(m[30s]) + ignoring() m", 100_000);
    let told = analyzed(&query);
    assert_eq!(
        told,
        "binary_of_vectors `max_over_time(m[30s]) + max_over_time(m[30s]) + ignoring() m` x1 [1: 2 series 2 values 0 samples]\n  \
           binary_of_vectors `max_over_time(m[30s]) + max_over_time(m[30s])` x1 [1: 2 series 2 values 0 samples]\n    \
             range_function `max_over_time(m[30s])` x1 #0 used 2 [1: 2 series 2 values 6 samples]\n    \
             range_function `max_over_time(m[30s])` x1 #0 used 2 [1: 2 series 2 values 0 samples]\n  \
           selector `m` x1 #1 [1: 2 series 2 values 22 samples]\n\
         #0 {__name__=\"m\"} 70001..100000: 3 series, 3 in memory\n\
         #1 {__name__=\"m\"} -199999..100000: 3 series, 3 in memory\n"
    );
}

#[test]
fn all_kinds_of_operators_are_told() {
    let query = Query::range("m @ 100 + on(i) other", 100_000, 120_000, 10_000);
    let told = analyzed(&query);
    assert!(told.contains("  step_invariant `m @ 100` x3 [1: 2 series 6 values 0 samples]\n"), "{told}");
    assert!(told.contains("    selector `m @ 100` x1 #0 [1: 2 series 2 values 22 samples]\n"), "{told}");

    let told = analyzed(&Query::instant("max_over_time((-m)[30s:10s])", 100_000));
    assert!(told.starts_with("range_function_over_subquery "), "{told}");
    assert!(told.contains("\n  negation `-m` x3 [1: 2 series 6 values 0 samples]\n"), "{told}");

    for (text, root) in [
        ("m[30s]", "range_selector `m[30s]` x1 #0 [1: 2 series 6 values 6 samples]\n"),
        ("m[30s:10s]", "subquery `m[30s:10s]` x1 [1: 2 series 6 values 0 samples]\n"),
        ("absent(m)", "absent `absent(m)` x1 [1: 0 series 0 values 0 samples]\n"),
        ("time() + 1", "binary_of_scalars `time() + 1` x1 [1: 0 series 1 values 0 samples]\n"),
        ("timestamp(m)", "selector_timestamp `timestamp(m)` x1 #0 [1: 2 series 2 values 22 samples]\n"),
        ("topk(1, m)", "aggregation `topk(1, m)` x1 [1: 1 series 1 values 0 samples]\n"),
        (
            "histogram_count(m)",
            "histogram_function `histogram_count(m)` x1 [1: 0 series 0 values 0 samples]\n",
        ),
    ] {
        let told = analyzed(&Query::instant(text, 100_000));
        assert!(told.starts_with(root), "{told}");
    }
    assert_eq!(
        analyzed(&Query::instant("info(with)", 100_000)),
        "info `info(with)` x1 #1 [1: 1 series 1 values 11 samples]\n  \
           selector `with` x1 #0 [1: 1 series 1 values 11 samples]\n\
         #0 {__name__=\"with\"} -199999..100000: 1 series, 1 in memory\n\
         #1 {instance=~\"a\", job=~\"b\", __name__=\"target_info\"} -199999..100000: 1 series, 1 in memory\n"
    );
}

#[test]
fn an_explanation_changes_nothing() {
    let world = world();
    for text in [
        "sum by (i) (rate(m[30s])) * 2 > 0.1",
        "m[30s:10s]",
        "info(with)",
        "clamp_max(-m, -3) or other",
        "label_replace(m, \"i\", \"x\", \"i\", \".*\")",
        "rate(m[30s]) + {__name__=~\"m|other\"}",
        "m + on() other",
        "scalar(m)",
        "quantile_over_time(2, m[1m])",
    ] {
        let query = Query::instant(text, 200_000);
        let explained = explain(&world, &query, ExplainMode::Analyze);
        assert!(explained.explain.is_some(), "{text}");
        match (world.run(&query), explained.outcome) {
            (Ok(plain), Ok(Some(told))) => {
                assert_eq!(show(&plain), show(&told), "{text}");
                assert_eq!((&plain.warnings, &plain.infos), (&told.warnings, &told.infos), "{text}");
                let counts = |stats: &chronolith_promql::QueryStats| {
                    (stats.total_queryable_samples, stats.peak_samples, stats.samples_per_step.clone())
                };
                assert_eq!(counts(&plain.stats), counts(&told.stats), "{text}");
            }
            (Err(plain), Err(told)) => assert_eq!(plain.to_string(), told.error.to_string(), "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn time_of_an_operator_is_its_own_and_that_below() {
    fn sum(node: &ExplainNode) -> Duration {
        node.cost.expect("evaluated").own_time + node.children.iter().map(sum).sum::<Duration>()
    }
    let query = Query::range("sum(abs(rate(m[30s])) > 0.15) + sum(m)", 0, 200_000, 100);
    let told = explain(&world(), &query, ExplainMode::Analyze).explain.expect("told");
    let cost = told.root.cost.expect("evaluated");
    assert!(cost.time > Duration::ZERO && cost.own_time < cost.time, "{cost:?}");
    // Nothing is counted twice: parts of batches are measured within what is around them.
    assert!(sum(&told.root) <= cost.time, "{:?} of {:?}", sum(&told.root), cost.time);
    assert!(cost.bytes >= cost.values * 8, "{cost:?}");
}

#[test]
fn an_error_has_the_explanation_of_what_was_done_before_it() {
    let limited = |options: EngineOptions| {
        World::with(options).load(0, 10_000, "a{i=\"1\"} 0+1x20\nb{i=\"1\"} 0+1x20\nb{i=\"2\"} 0+1x20")
    };
    let query = Query::instant("count_over_time(a[30s]) + ignoring() count_over_time(b[200s])", 200_000);
    let world = limited(EngineOptions { samples_max: 10, ..options() });
    let explained = explain(&world, &query, ExplainMode::Analyze);
    let error = explained.outcome.expect_err("too many samples").error.to_string();
    assert_eq!(error, "query processing would load too many samples into memory in query execution");
    assert_eq!(error, world.run(&query).expect_err("the same").to_string());
    let told = explained.explain.expect("told");
    assert_eq!(told.root.cost, None, "not to its end");
    let [a, b] = told.root.children.as_slice() else { panic!("two sides: {told:?}") };
    assert_eq!(a.cost.expect("evaluated").samples, 3);
    assert_eq!(b.cost, None);

    // Selecting fails for a plan too; the selections before that are told with their series.
    let world = limited(EngineOptions { series_max: 2, ..options() });
    for mode in [ExplainMode::Plan, ExplainMode::Analyze] {
        let explained = explain(&world, &query, mode);
        let error = explained.outcome.expect_err("too many series").error.to_string();
        assert_eq!(error, "query selects more than 2 series, the limit of this server");
        let selections = explained.explain.expect("told").selections;
        let series: Vec<_> = selections.iter().map(|selection| selection.series).collect();
        assert_eq!(series, [Some(1), None]);
    }

    let cancel = CancelToken::default();
    cancel.cancel();
    let explained = explain(&world, &Query { cancel, ..query }, ExplainMode::Analyze);
    let failed = explained.outcome.expect_err("canceled");
    assert!(matches!(failed.error, QueryError::Canceled(_)), "{failed:?}");
    let explained = explain(&world, &Query::instant("a +", 0), ExplainMode::Plan);
    let failed = explained.outcome.expect_err("wrong");
    assert!(matches!(failed.error, QueryError::Parse(_)), "{failed:?}");
    assert_eq!(explained.explain, None, "there is no plan");
}

/// Levels, operators told, operators left out.
fn size(node: &ExplainNode) -> (usize, usize, usize) {
    let below = node.children.iter().map(size);
    below.fold((1, 1, node.omitted), |all, one| (all.0.max(one.0 + 1), all.1 + one.1, all.2 + one.2))
}

/// Operators with a cost.
fn costs(node: &ExplainNode) -> usize {
    usize::from(node.cost.is_some()) + node.children.iter().map(costs).sum::<usize>()
}

/// All of `parts` joined pairwise, so that they nest as little as can be; and how many pairs there were.
fn balanced(mut parts: Vec<String>, operator: &str) -> (String, usize) {
    let mut pairs = 0;
    while parts.len() > 1 {
        pairs += parts.len() / 2;
        parts = parts.chunks(2).map(|pair| format!("({})", pair.join(&format!(" {operator} ")))).collect();
    }
    (parts.remove(0), pairs)
}

#[test]
fn explanations_are_bounded() {
    let world = world();
    let told =
        |text: String| explain(&world, &Query::instant(text, 0), ExplainMode::Plan).explain.expect("told");
    let deep = told(format!("{}m{}", "abs(".repeat(100), ")".repeat(100)));
    assert_eq!(size(&deep.root), (DEPTH_MAX, DEPTH_MAX, 101 - DEPTH_MAX));
    assert_eq!(deep.root.expr.len(), EXPR_BYTES_MAX);

    let (times, sums) = balanced(vec!["time()".to_owned(); 4096], "+");
    let wide = told(times.clone());
    let (_, shown, omitted) = size(&wide.root);
    assert_eq!((shown, shown + omitted), (NODES_MAX, 4096 + sums));
    let wide = explain(&world, &Query::instant(times, 0), ExplainMode::Analyze).explain.expect("told");
    assert_eq!((size(&wide.root).1, costs(&wide.root)), (NODES_MAX, NODES_MAX), "what is told has its cost");

    let names = (0..SELECTIONS_MAX + 50).map(|n| format!("m{n}{{a=\"{}\"}}", "x".repeat(600)));
    let many = told(balanced(names.collect(), "or").0);
    assert_eq!(many.selections.len(), SELECTIONS_MAX);
    assert!(many.selections.iter().all(|selection| selection.matchers.len() == MATCHERS_BYTES_MAX));
}
