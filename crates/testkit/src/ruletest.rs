//! Runs Prometheus' rule unit tests (`promtool test rules`): series in, recording rules over them, expressions asked.
//!
//! ```yaml
//! rule_files: [rules.yml]
//! evaluation_interval: 1m
//! tests:
//!   - interval: 1m
//!     input_series:
//!       - {series: 'errors_total{job="a"}', values: '0+60x10'}
//!     promql_expr_test:
//!       - expr: job:errors:rate5m
//!         eval_time: 10m
//!         exp_samples: [{labels: 'job:errors:rate5m{job="a"}', value: 1}]
//! ```
//!
//! As there, all groups are evaluated at every `evaluation_interval`, in the order of the files or of `group_eval_order`.
//! Alerting rules are read and not evaluated; a test of alerts fails with that reason.
//!
//! Map: `file` the YAML · `rules` recording rules over time · here: running and comparing.

mod file;
mod rules;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    path::Path,
};

use chronolith_model::{Labels, TenantId, Timestamp, float::general, format_duration};
use chronolith_promql::{Engine, EngineOptions, InstantSample, Query, SampleValue, Value};
use chronolith_storage::{Appender, LabelSource, StorageError, WriteBatch, memory::MemoryStorage};

use self::{
    file::{ExpectedSample, ExpressionTest, Test, TestFile},
    rules::{Group, Recorder},
};
use crate::promqltest::{
    almost_equal,
    run::{Batch, LabelList},
    series::{SeriesLine, SeriesValue, parse_series},
};

/// Evaluations of all groups in one test at most: what runs longer is a mistake in a time.
const EVALUATIONS_MAX: i64 = 1_000_000;

/// Why a file of tests cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleTestError {
    /// A file cannot be read.
    #[error("{path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {text}")]
    Malformed {
        /// Which.
        path: String,
        /// What is wrong, and where.
        text: String,
    },
}

/// What came of a file.
#[derive(Debug, Default)]
pub struct RuleReport {
    /// Expressions that gave what was expected.
    pub passed: usize,
    /// What did not, each with its test, expression and time.
    pub failures: Vec<String>,
}

/// Runs the tests in `files` and writes what failed, then totals. True if all passed.
///
/// # Errors
/// Those of `out`; files that cannot be read are reported, not returned.
pub fn cli(files: &[std::path::PathBuf], options: &EngineOptions, out: &mut dyn Write) -> io::Result<bool> {
    let (mut passed, mut failed, mut broken) = (0, 0, 0);
    for path in files {
        match run_file(path, options) {
            Ok(report) => {
                for failure in &report.failures {
                    writeln!(out, "FAIL {}: {failure}", path.display())?;
                }
                passed += report.passed;
                failed += report.failures.len();
            }
            Err(error) => {
                broken += 1;
                write!(out, "ERROR {error}")?;
                match std::error::Error::source(&error) {
                    Some(source) => writeln!(out, ": {source}")?,
                    None => writeln!(out)?,
                }
            }
        }
    }
    write!(out, "{} files, {passed} passed, {failed} failed", files.len())?;
    if broken > 0 {
        write!(out, ", {broken} files not run")?;
    }
    writeln!(out)?;
    out.flush()?;
    Ok(failed == 0 && broken == 0)
}

/// Runs the tests in the file `path`; rule files are named relative to it.
///
/// # Errors
/// See [`RuleTestError`].
pub fn run_file(path: &Path, options: &EngineOptions) -> Result<RuleReport, RuleTestError> {
    let tests = TestFile::read(path)?;
    let groups = rules::read(path, &tests, options)?;
    let mut report = RuleReport::default();
    for (index, test) in tests.tests.iter().enumerate() {
        let name = match test.name.as_str() {
            "" => format!("test {}", index + 1),
            name => format!("test {name:?}"),
        };
        let mut failures = Vec::new();
        run(&tests, test, &groups, options, &mut report.passed, &mut failures);
        report.failures.extend(failures.into_iter().map(|failure| format!("{name}: {failure}")));
    }
    Ok(report)
}

/// Runs one test; what goes wrong is told in `failures`.
fn run(
    file: &TestFile,
    test: &Test,
    groups: &[Group],
    options: &EngineOptions,
    passed: &mut usize,
    failures: &mut Vec<String>,
) {
    if !test.alert_rule_test.is_empty() {
        failures.push("alert_rule_test: alerts are not tested yet; expressions are".to_owned());
    }
    let stage = match Stage::new(test, options) {
        Ok(stage) => stage,
        Err(failure) => return failures.push(failure),
    };
    let start = test.start_timestamp.0;
    let last = test.promql_expr_test.iter().map(|test| test.eval_time.0).max().unwrap_or(0);
    let every = file.evaluation_interval.0;
    if last / every > EVALUATIONS_MAX {
        return failures.push(format!("more than {EVALUATIONS_MAX} evaluations until the last eval_time"));
    }
    let mut recorder = Recorder::default();
    for since in (0..=last).step_by(usize::try_from(every).unwrap_or(usize::MAX)) {
        for group in groups {
            if let Err(failure) = recorder.evaluate(group, &stage, start.saturating_add(since)) {
                return failures.push(format!("at {}: {failure}", format_duration(since)));
            }
        }
    }
    for expression in &test.promql_expr_test {
        match check(expression, &stage, start, file.fuzzy_compare) {
            Ok(()) => *passed += 1,
            Err(failure) => failures.push(format!(
                "{} at {}\n{failure}",
                expression.expr.trim(),
                format_duration(expression.eval_time.0)
            )),
        }
    }
}

/// Data and an engine over it.
pub(crate) struct Stage {
    storage: MemoryStorage,
    engine: Engine,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn new(test: &Test, options: &EngineOptions) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let stage = Self {
            storage: MemoryStorage::default(),
            engine: Engine::new(options.clone()),
            runtime: runtime.map_err(|error| format!("no runtime: {error}"))?,
        };
        let mut batch = Batch::default();
        for input in &test.input_series {
            let wrong = |error: &dyn std::fmt::Display| format!("input_series {:?}: {error}", input.series);
            let line = format!("{} {}", input.series.trim(), input.values);
            let series = parse_series(&line).map_err(|error| wrong(&error))?;
            stage.add(&mut batch, &series, test.start_timestamp.0, test.interval.0)?;
        }
        stage.append(batch)?;
        Ok(stage)
    }

    fn add(&self, batch: &mut Batch, series: &SeriesLine, start: Timestamp, step: i64) -> Result<(), String> {
        let key = self.storage.key_hasher().key(series.labels.to_string().as_bytes());
        batch.add(key, series, start, step).map_err(|error| error.to_string())
    }

    /// Stores `batch`.
    fn append(&self, batch: Batch) -> Result<(), String> {
        let Batch { entries, samples, histograms, labels } = batch;
        let labels = LabelList(labels);
        let source: &dyn LabelSource = &labels;
        let batch =
            WriteBatch { series: &entries, samples: &samples, histograms: &histograms, labels: source };
        let appended =
            self.storage.append(&TenantId::default(), &batch).map_err(|error| error.to_string())?;
        if let Some(rejection) = appended.outcome.rejections.first() {
            return Err(rejection.reason.to_string());
        }
        appended.ticket.wait().map_err(|error: StorageError| error.to_string())
    }

    /// The value of `text` at `time`, as a vector.
    fn ask(&self, text: &str, time: Timestamp) -> Result<Vec<InstantSample>, String> {
        let query = Query::instant(text, time);
        let result = self.runtime.block_on(self.engine.run(&self.storage, &query));
        match result.map_err(|error| error.to_string())?.value {
            Value::Vector(vector) => Ok(vector),
            Value::Scalar { timestamp, value } => Ok(vec![InstantSample {
                labels: Labels::empty(),
                timestamp,
                value: SampleValue::Float(value),
            }]),
            Value::String { .. } | Value::Matrix(_) => {
                Err("a vector or a scalar is needed, not a string or a range vector".to_owned())
            }
        }
    }
}

/// Compares the value of an expression with what is expected; lines of both if they differ.
fn check(test: &ExpressionTest, stage: &Stage, start: Timestamp, fuzzy: bool) -> Result<(), String> {
    let time = start.saturating_add(test.eval_time.0);
    let mut expected =
        test.exp_samples.iter().map(expected).collect::<Result<Vec<_>, _>>().map_err(|e| format!("  {e}"))?;
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let got = stage.ask(&test.expr, time).map_err(|error| format!("  error: {error}"))?;
    let mut got: Vec<(Labels, SampleValue)> =
        got.into_iter().map(|sample| (sample.labels, sample.value)).collect();
    got.sort_by(|a, b| a.0.cmp(&b.0));
    let equal = |(a, b): (&(Labels, SeriesValue), &(Labels, SampleValue))| {
        a.0 == b.0 && same_value(&a.1, &b.1, fuzzy)
    };
    if expected.len() == got.len() && expected.iter().zip(&got).all(equal) {
        return Ok(());
    }
    let mut text = String::new();
    for (labels, value) in &expected {
        text += &format!("  expected {labels} {}\n", shown_expected(value));
    }
    for (labels, value) in &got {
        text += &format!("  got      {labels} {}\n", shown(value));
    }
    for (side, empty) in [("expected", expected.is_empty()), ("got     ", got.is_empty())] {
        if empty {
            text += &format!("  {side} nothing\n");
        }
    }
    Err(text.trim_end().to_owned())
}

fn expected(sample: &ExpectedSample) -> Result<(Labels, SeriesValue), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("exp_samples {:?}: {error}", sample.labels);
    let labels = match sample.labels.trim() {
        "" => Labels::empty(),
        text => parse_series(text).map_err(|error| wrong(&error))?.labels,
    };
    if sample.histogram.is_empty() {
        return Ok((labels, SeriesValue::Float(sample.value)));
    }
    let line = parse_series(&format!("h {}", sample.histogram)).map_err(|error| wrong(&error))?;
    match line.values.into_iter().next() {
        Some(value @ SeriesValue::Histogram(_)) => Ok((labels, value)),
        _ => Err(wrong(&"`histogram` is no histogram")),
    }
}

fn same_value(expected: &SeriesValue, got: &SampleValue, fuzzy: bool) -> bool {
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (fuzzy && almost_equal(a, b));
    match (expected, got) {
        (SeriesValue::Float(expected), SampleValue::Float(got)) => same(*expected, *got),
        (SeriesValue::Histogram(expected), SampleValue::Histogram(got)) => {
            expected.histogram.close_to(got, same)
        }
        _ => false,
    }
}

fn shown_expected(value: &SeriesValue) -> String {
    match value {
        SeriesValue::Float(value) => general(*value),
        SeriesValue::Histogram(value) => value.histogram.to_literal(),
        SeriesValue::Missing => "_".to_owned(),
    }
}

fn shown(value: &SampleValue) -> String {
    match value {
        SampleValue::Float(value) => general(*value),
        SampleValue::Histogram(value) => value.to_literal(),
    }
}
