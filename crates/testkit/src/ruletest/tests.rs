use std::fs;

use super::*;

const RULES: &str = r#"
groups:
  - name: second
    rules:
      - record: job:errors:ratio
        expr: job:errors:rate5m / 60
  - name: first
    interval: 30s
    labels: {team: core}
    rules:
      - {record: "job:errors:rate5m", expr: "rate(errors_total[5m]) * 60"}
      - {alert: High, expr: job:errors:rate5m > 100, for: 5m, annotations: {summary: "{{ $labels.job }}"}}
"#;

const TESTS: &str = r#"
rule_files: [ru*.yml]
evaluation_interval: 1m
group_eval_order: [first, second]
tests:
  - name: rates
    interval: 1m
    input_series:
      - series: 'errors_total{job="a"}'
        values: '0+60x8 stale'
    promql_expr_test:
      - expr: job:errors:rate5m
        eval_time: 6m
        exp_samples:
          - labels: 'job:errors:rate5m{job="a", team="core"}'
            value: 60
      - expr: job:errors:ratio
        eval_time: 6m
        exp_samples: [{labels: 'job:errors:ratio{job="a", team="core"}', value: 1}]
      - {expr: job:errors:rate5m, eval_time: 20m}
      - {expr: time(), eval_time: 90s, exp_samples: [{value: 90}]}
"#;

fn run_texts(tests: &str, rules: &str) -> Result<RuleReport, RuleTestError> {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("rules.yml"), rules).expect("a file");
    let path = dir.path().join("tests.yml");
    fs::write(&path, tests).expect("a file");
    run_file(&path, &EngineOptions::default())
}

#[test]
fn recorded_series_and_expressions_are_compared() {
    let report = run_texts(TESTS, RULES).expect("well-formed files");
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.passed, 4);
}

#[test]
fn differences_are_shown_side_by_side() {
    let wrong = TESTS.replace("value: 60\n", "value: 61\n").replace("[{value: 90}]", "[]");
    let report = run_texts(&wrong, RULES).expect("well-formed files");
    assert_eq!(
        report.failures,
        [
            "test \"rates\": job:errors:rate5m at 6m\n  \
             expected {__name__=\"job:errors:rate5m\", job=\"a\", team=\"core\"} 61\n  \
             got      {__name__=\"job:errors:rate5m\", job=\"a\", team=\"core\"} 60",
            "test \"rates\": time() at 1m30s\n  got      {} 90\n  expected nothing",
        ]
    );
    assert_eq!(report.passed, 2);
}

#[test]
fn groups_out_of_order_see_what_was_there_before() {
    let swapped = TESTS.replace("[first, second]", "[second, first]");
    let report = run_texts(&swapped, RULES).expect("well-formed files");
    assert_eq!(report.failures, Vec::<String>::new(), "the rate is the same a minute before");
    let at_once = swapped.replace("eval_time: 6m", "eval_time: 1m");
    let report = run_texts(&at_once, RULES).expect("well-formed files");
    assert!(report.failures.iter().any(|f| f.contains("job:errors:ratio at 1m")), "{:?}", report.failures);
}

#[test]
fn times_may_start_anywhere() {
    let moved =
        TESTS.replace("    interval: 1m", "    start_timestamp: 2020-01-01T00:00:00Z\n    interval: 1m");
    let moved = moved.replace("{value: 90}", "{value: 1577836890}");
    let report = run_texts(&moved, RULES).expect("well-formed files");
    assert_eq!(report.failures, Vec::<String>::new());
}

#[test]
fn histograms_are_compared() {
    let tests = r#"
tests:
  - input_series: [{series: h, values: '{{schema:0 sum:3 count:3 buckets:[1 2]}}'}]
    promql_expr_test:
      - {expr: h * 2, eval_time: 0, exp_samples: [{labels: '{}', histogram: '{{schema:0 sum:6 count:6 buckets:[2 4]}}'}]}
      - {expr: h, eval_time: 0, exp_samples: [{labels: h, histogram: '{{schema:0 sum:3 count:3 buckets:[2 1]}}'}]}
"#;
    let report = run_texts(tests, "groups: []").expect("well-formed files");
    assert_eq!(report.passed, 1);
    assert!(report.failures[0].contains("expected {__name__=\"h\"} {{"), "{:?}", report.failures);
}

#[test]
fn what_is_wrong_is_named_with_its_file() {
    let error = |tests: &str, rules: &str| run_texts(tests, rules).expect_err("a malformed file").to_string();
    assert!(error("tests: [{nonsense: 1}]", RULES).contains("tests.yml: "));
    assert!(error("tests: [{nonsense: 1}]", RULES).contains("nonsense"));
    let broken = RULES.replace("rate(errors_total[5m]) * 60", "rate(errors_total)");
    let text = error(TESTS, &broken);
    assert!(text.contains("rules.yml: group \"first\": rule \"job:errors:rate5m\""), "{text}");
    assert!(error(&TESTS.replace("first, ", ""), RULES).contains("group \"first\" is missing"));
    assert!(error(&TESTS.replace("ru*.yml", "no*.yml"), RULES).contains("no file has such a name"));
    assert!(
        error(&TESTS.replace("eval_time: 20m", "eval_time: soon"), RULES).contains("\"soon\" is no duration")
    );
    let report =
        run_texts("tests: [{alert_rule_test: [{eval_time: 1m, alertname: a, exp_alerts: []}]}]", RULES);
    let report = report.expect("a well-formed file");
    assert!(report.failures[0].contains("alerts are not tested yet"), "{:?}", report.failures);
}
