use chronolith_model::stale_nan;

use super::{
    script::{Command, EvalTime, ExpectedValue, Grid, parse_script},
    series::{SERIES_VALUES_MAX, SeriesError, SeriesValue, parse_series, parse_start_line, unquote},
    *,
};

fn floats(line: &str) -> Vec<f64> {
    let series = parse_series(line).expect("valid");
    let value = |value: &SeriesValue| match value {
        SeriesValue::Float(value) => *value,
        SeriesValue::Missing => f64::NEG_INFINITY,
        SeriesValue::Histogram(_) => f64::INFINITY,
    };
    series.values.iter().map(value).collect()
}

#[test]
fn values_of_a_series() {
    const MISSING: f64 = f64::NEG_INFINITY;
    const HISTOGRAM: f64 = f64::INFINITY;
    for (values, want) in [
        ("", vec![]),
        ("1 -2 +.5 1e3 1_000", vec![1.0, -2.0, 0.5, 1000.0, 1000.0]),
        ("_ 1 _x2 2", vec![MISSING, 1.0, MISSING, MISSING, 2.0]),
        ("3x2", vec![3.0, 3.0, 3.0]),
        ("0x3", vec![0.0, 0.0, 0.0, 0.0]),
        ("1+2x2", vec![1.0, 3.0, 5.0]),
        ("1e-1-1e-1x1", vec![0.1, 0.0]),
        ("-1-.5x2", vec![-1.0, -1.5, -2.0]),
        ("1m 1m30s 1ms", vec![60.0, 90.0, 0.001]),
        ("{{}} {{schema:0 sum:5 buckets:[1 2]}}x1\t7", vec![HISTOGRAM, HISTOGRAM, HISTOGRAM, 7.0]),
        ("{{count:1 sum:1}}+{{count:1}}x2", vec![HISTOGRAM; 3]),
    ] {
        assert_eq!(floats(&format!("m {values}")), want, "{values}");
    }
    assert!(matches!(floats("m NaN nan")[..], [a, b] if a.is_nan() && b.is_nan()));
    assert_eq!(floats("m stalex1")[1].to_bits(), stale_nan().to_bits());
    for bad in ["m 1x", "m 1+x3", "m x3", "m {{", "m {{}}y", "m abc", "m 1..2", "m Info"] {
        assert!(parse_series(bad).is_err(), "{bad}");
    }
    assert_eq!(parse_series(&format!("m 1x{SERIES_VALUES_MAX}")).err(), Some(SeriesError::TooMany));
    let twice = format!("m 1x{} 1x10", SERIES_VALUES_MAX - 10);
    assert_eq!(parse_series(&twice).err(), Some(SeriesError::TooMany));
}

#[test]
fn labels_of_a_series() {
    for (line, want) in [
        ("a:b 1", r#"{__name__="a:b"}"#),
        ("{} 1", "{}"),
        (r#"m{a="1", b='2',c=`\x`,} 1"#, r#"{__name__="m", a="1", b="2", c="\\x"}"#),
        (r#"{"m.x", "l.y"="\u00e9\n"} 1"#, "{__name__=\"m.x\", \"l.y\"=\"\u{e9}\\n\"}"),
        (r#"{__name__="m"} 1"#, r#"{__name__="m"}"#),
        (r#"m{a=""} 1"#, r#"{__name__="m"}"#),
        (r##"m{a="x} # \"y\""} 1"##, r##"{__name__="m", a="x} # \"y\""}"##),
    ] {
        assert_eq!(parse_series(line).expect("valid").labels.to_string(), want, "{line}");
    }
    for bad in ["m{", "m{a} 1", "m{a=1} 1", r#"m{a="1" b="2"} 1"#, "= 1", r#"m{a="\z"} 1"#, "m{=\"x\"}"] {
        assert!(matches!(parse_series(bad), Err(SeriesError::Labels { .. })), "{bad}");
    }
    assert_eq!(unquote("\"\\101\\x62\\\"\" ").as_deref(), Some("Ab\""));
    assert_eq!(unquote("\"a\" b"), None);
}

#[test]
fn start_timestamps() {
    let line = parse_start_line("m{a=\"b\"}@st _ _x2 -30s -1m-1mx2").expect("valid").expect("a start line");
    assert_eq!(
        line.offsets,
        [None, None, None, Some(-30_000), Some(-60_000), Some(-120_000), Some(-180_000)]
    );
    assert!(parse_start_line("m 1 2").expect("valid").is_none());
    assert!(parse_start_line("m@st 1q").is_err());
}

#[test]
fn commands_of_a_script() {
    let text = "
# a comment ends a block
load_with_nhcb 30s
  m@st -1s
  m 1

clear
EVAL_dummy_is_not_reached
";
    let error = parse_script("f", text).expect_err("invalid command").to_string();
    assert_eq!(error, "f:8: invalid command \"EVAL_dummy_is_not_reached\"");

    let text = "eval range from 0 to 1m step 10s sum by (a) (m) # not a comment of the script
  expect warn msg: PromQL warning: x (1:1)
  expect warn regex: ^a.b
  expect no_info
  {} 1x6
# ends it
eval instant at 1m30s m[1m]
  expect range vector from 10s to 1m step 10s
  m 1 _ 2

eval_fail instant at 0 x
  expected_fail_regexp a+

eval instant at 0s 1
  0x10
";
    let commands = parse_script("f", text).expect("valid");
    let evals: Vec<_> = commands
        .iter()
        .map(|command| match command {
            Command::Eval(eval) => eval,
            Command::Clear | Command::Load(_) => panic!("only evals in this script"),
        })
        .collect();
    assert_eq!(evals.iter().map(|eval| eval.line).collect::<Vec<_>>(), [1, 7, 11, 14]);
    assert_eq!(evals[0].time, EvalTime::Range(Grid { start: 0, end: 60_000, step: 10_000 }));
    assert_eq!(evals[0].expr, "sum by (a) (m) # not a comment of the script");
    let warn: Vec<_> = evals[0].expect.warn.iter().map(ToString::to_string).collect();
    assert_eq!(warn, [r#""PromQL warning: x (1:1)""#, r#"a text with "^a.b""#]);
    assert!(evals[0].expect.warn[1].matches("axb") && !evals[0].expect.warn[1].matches("xaxb"));
    assert!(evals[0].expect.no_info && !evals[0].expect.no_warn);
    // A range vector is asked for at the end of its grid, whatever the command says.
    assert_eq!(evals[1].time, EvalTime::Instant(60_000));
    assert!(evals[2].expect.fail.as_ref().is_some_and(|fail| fail.matches("baa") && !fail.matches("b")));
    assert!(matches!(evals[3].expect.value, ExpectedValue::Scalar(value) if value == 16.0));
}

#[test]
fn the_last_line_of_a_series_counts() {
    let text = "load 1m\n m 1 2\n n 3\n m 4\n\neval range from 0 to 1m step 1m {__name__=~\"m|n\"}\n m 4 4\n n 3 3\n";
    assert!(run_text("test", text, &Options::default()).ok());
}

#[test]
fn what_is_no_script() {
    for (text, line) in [
        ("load", 1),
        ("load 5x\n m 1", 1),
        ("load 5m\n m 1\n m 1q", 3),
        ("load 5m\n m@st _\n n 1", 3),
        ("load 5m\n m@st _\n m 1 2", 3),
        ("load 5m\n m@st _\n", 3),
        ("eval instant 5m up", 1),
        ("eval instant at 5m", 1),
        ("eval range from 0 to 1m step 0 up", 1),
        ("eval_ordered range from 0 to 1m step 1m up", 1),
        ("eval instant at 0 up\n up 1 2", 2),
        ("eval instant at 0 up\n up 1\n up 2", 3),
        ("eval instant at 0 up\n expect fail\n expect fail", 3),
        ("eval instant at 0 up\n expect warn\n expect no_warn", 3),
        ("eval instant at 0 up\n expect warn msg x", 2),
        ("eval instant at 0 up\n expect fail regex: (", 2),
        ("eval instant at 0 up\n expect joy", 2),
        ("eval instant at 0 up\n expected_fail_message x", 2),
        ("eval instant at 0 1\n 1\n 2", 3),
        ("eval instant at 0 up\n {} 1\n expect string \"a\"\n m 2", 4),
    ] {
        let error = parse_script("f", text).expect_err(text);
        // Errors about the whole of a block carry the number of the line that ends it.
        assert!((line..=line + 1).contains(&error.line), "{text}: {error}");
    }
}

#[test]
fn nearly_equal_values() {
    for (a, b, equal) in [
        (1.0, 1.0 + 1e-7, true),
        (1.0, 1.00001, false),
        (0.0, -0.0, true),
        (0.0, 1e-300, false),
        (f64::NAN, -f64::NAN, true),
        (f64::NAN, stale_nan(), false),
        (stale_nan(), stale_nan(), true),
        (f64::NAN, 1.0, false),
        (f64::INFINITY, f64::INFINITY, true),
        (f64::INFINITY, f64::NEG_INFINITY, false),
        (f64::INFINITY, f64::MAX, false),
        (f64::MAX, f64::MAX / 2.0, false),
    ] {
        assert_eq!(almost_equal(a, b), equal, "{a} {b}");
        assert_eq!(almost_equal(b, a), equal, "{b} {a}");
    }
}

const LOADED: &str = "load 1m\n m{a=\"1\"} 0+1x20\n m{a=\"2\"} 0+2x20\n h{} {{count:1 sum:1}}x20\n later{} 1x10 {{count:1 sum:1}}\n\n";

/// Runs one eval over [`LOADED`] and returns its failure.
fn failure_of(eval: &str) -> Option<Failure> {
    let report = run_text("test", &format!("{LOADED}{eval}"), &Options::default());
    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(report.evals.len(), 1);
    report.evals[0].failure.clone()
}

#[test]
fn right_expectations_pass() {
    for eval in [
        "eval instant at 5m m\n m{a=\"2\"} 10\n m{a=\"1\"} 5",
        "eval instant at 5m sort_desc(m)\n expect ordered\n m{a=\"2\"} 10\n m{a=\"1\"} 5",
        "eval range from 0 to 2m step 1m m{a=\"1\"}\n m{a=\"1\"} 0 1 2",
        "eval range from 20m to 26m step 2m m{a=\"1\"}\n m{a=\"1\"} 20 20 20 _",
        "eval instant at 5m m{a=\"1\"}[2m]\n expect range vector from 4m to 5m step 1m\n m{a=\"1\"} 4 5",
        "eval instant at 5m 1 + 1\n 2",
        "eval instant at 5m \"x\"\n expect string `x`",
        "eval instant at 5m m + on () m\n expect fail regex: many-to-many",
        "eval instant at 5m quantile(2, m)\n expect warn msg: PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)\n expect no_info\n {} +Inf",
        "eval instant at 5m nothing",
    ] {
        assert_eq!(failure_of(eval), None, "{eval}");
    }
}

#[test]
fn wrong_expectations_fail() {
    for (eval, part) in [
        ("eval instant at 5m m\n m{a=\"1\"} 5", "unexpected series"),
        ("eval instant at 5m m{a=\"1\"}\n m{a=\"1\"} 5\n m{a=\"2\"} 10", "missing"),
        ("eval instant at 5m m{a=\"1\"}\n m{a=\"1\"} 5.001", "expected 5.001, got 5"),
        ("eval instant at 5m sort(m)\n expect ordered\n m{a=\"2\"} 10\n m{a=\"1\"} 5", "position"),
        ("eval range from 0 to 2m step 1m m{a=\"1\"}\n m{a=\"1\"} 0 1", "points"),
        ("eval range from 0 to 2m step 1m m{a=\"1\"}\n m{a=\"1\"} 0 1 2 3", "more values"),
        ("eval range from 0 to 2m step 1m m{a=\"1\"}\n m{a=\"1\"} 0 1 7", "expected 7, got 2"),
        ("eval instant at 5m m[2m]", "range vector"),
        ("eval instant at 5m 2\n 3", "expected 3, got 2"),
        ("eval instant at 5m 2\n {} 2", "got a scalar"),
        ("eval instant at 5m \"x\"\n expect string `y`", "\"y\""),
        ("eval instant at 5m m\n expect fail", "expected a failure"),
        ("eval instant at 5m m + on () m\n expect fail msg: no", "expected a failure with \"no\""),
        ("eval instant at 5m m + on () m", "error: "),
        ("eval instant at 5m quantile(2, m)\n expect no_warn\n {} +Inf", "expected no warning"),
        ("eval instant at 5m quantile(2, m)\n expect warn msg: x\n {} +Inf", "expected warning"),
        ("eval instant at 5m quantile(0.5, m{a=\"1\"})\n expect warn\n {} 5", "expected warning"),
    ] {
        let failure = failure_of(eval).unwrap_or_else(|| panic!("passed: {eval}"));
        assert_eq!(failure.cause, Cause::Result, "{eval}: {failure}");
        assert!(failure.detail.contains(part), "{eval}: {failure}");
    }
}

#[test]
fn histograms_are_loaded_and_compared() {
    assert_eq!(failure_of("eval instant at 5m h\n h {{count:1 sum:1}}"), None);
    for (eval, part) in [
        ("eval instant at 5m h\n h {{count:1 sum:3}}", "expected {{count:1 sum:3}}, got {{count:1 sum:1"),
        ("eval instant at 5m h\n h {{count:1 sum:1 counter_reset_hint:gauge}}", "counter_reset_hint:gauge"),
        ("eval instant at 5m h\n h 1", "expected 1, got {{count:1 sum:1"),
        ("eval instant at 5m m{a=\"1\"}\n m{a=\"1\"} {{}}", "expected {{}}, got 5"),
    ] {
        let failure = failure_of(eval).unwrap_or_else(|| panic!("passed: {eval}"));
        assert!(failure.detail.contains(part), "{eval}: {failure}");
    }
    let failure = failure_of("eval instant at 5m sum(\n {} 1").expect("no parse");
    assert_eq!(failure.cause, Cause::Parse);
}

#[test]
fn classic_histograms_become_native_ones() {
    let text = "load_with_nhcb 1m\n h_bucket{le=\"1\"} 2\n h_bucket{le=\"+Inf\"} 5\n h_sum 7\n h_count 5\n\n\
                eval instant at 0 h\n h {{schema:-53 custom_values:[1] count:5 sum:7 buckets:[2 3]}}\n";
    let report = run_text("test", text, &Options::default());
    assert!(report.ok(), "{report:?}");
    let report =
        run_text("test", "load_with_nhcb 1m\n h_bucket{le=\"1\"} 2\n h_count 1\n", &Options::default());
    assert!(report.error.is_some(), "counts contradict each other");
}

#[test]
fn asking_again_finds_what_one_query_hides() {
    // time() is 300 at the instant, and differs at the other steps of the range query, which are not compared.
    assert_eq!(failure_of("eval instant at 5m time()\n 300"), None);
    // The range query's own bounds decide here, so that the re-run is left out.
    assert_eq!(failure_of("eval instant at 5m m{a=\"1\"} @ end()\n m{a=\"1\"} 5"), None);
    // Before and after, this one has too many matches, which only the range re-run meets.
    let text = "load 1m\n a{x=\"1\"} 1 1 1\n b{y=\"1\"} 1 1 1\n b{y=\"2\"} _ _ 1\n\neval instant at 1m a + on () group_left b\n {x=\"1\"} 2\n";
    let run =
        |reruns| run_text("test", text, &Options { reruns, ..Options::default() }).evals[0].failure.clone();
    assert_eq!(run(Reruns::None), None);
    let failure = run(Reruns::Range).expect("the range query fails");
    assert!(failure.detail.starts_with("as a range query: "), "{failure}");
}

#[test]
fn the_tool_says_what_failed_and_totals_last() {
    let dir = std::env::temp_dir().join(format!("chronolith-promqltest-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temp dir");
    let (good, bad, broken) = (dir.join("good.test"), dir.join("bad.test"), dir.join("broken.test"));
    std::fs::write(&good, "eval instant at 0 1\n 1\n").expect("write");
    std::fs::write(&bad, "eval instant at 0 1\n 2\n").expect("write");
    std::fs::write(&broken, "nonsense\n").expect("write");
    let run = |files: &[PathBuf], verbose| {
        let mut out = Vec::new();
        let ok = cli(files, verbose, &mut out).expect("a Vec takes all");
        (ok, String::from_utf8(out).expect("text"))
    };
    let (ok, text) = run(std::slice::from_ref(&good), false);
    assert!(ok);
    assert_eq!(text, "1 files, 1 evals, 1 passed, 0 failed\n");
    let (ok, text) = run(&[good, bad.clone(), broken], true);
    std::fs::remove_dir_all(&dir).expect("clean up");
    assert!(!ok);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("pass ") && lines[0].ends_with("good.test:1: eval instant at 0 1"),
        "{text}"
    );
    assert_eq!(lines[2], format!("FAIL {}:1: eval instant at 0 1", bad.display()));
    assert_eq!(lines[3], "     result: scalar: expected 2, got 1");
    assert_eq!(lines.last(), Some(&"3 files, 2 evals, 1 passed, 1 failed, 1 files not run to the end"));
}
