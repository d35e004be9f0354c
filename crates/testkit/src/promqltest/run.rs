//! Running the commands of a script.

use std::{
    num::TryFromIntError,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use chronolith_model::{FloatHistogram, HistogramSample, Labels, Sample, TenantId};
use chronolith_promql::{Engine, EngineOptions, Query, QueryError, QueryResult};
use chronolith_storage::{
    Appender, LabelFault, LabelSource, RejectReason, SeriesEntry, SeriesKey, StorageError, WriteBatch,
    memory::MemoryStorage,
};
use chronolith_syntax::{ParseOptions, ast::Expr, parse};

use super::{
    check::{check_annotations, check_instant, check_range, check_range_at},
    nhcb::custom_bucket_series,
    report::{Cause, EvalOutcome, Failure, Report},
    rewrite::{self, Facts},
    script::{Command, Eval, EvalTime, Load, ScriptError, ScriptProblem, parse_script},
    series::{SeriesLine, SeriesValue, StartLine},
};

/// How scripts are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engine's limits and features.
    pub engine: EngineOptions,
    /// How often an instant query is asked again in other ways.
    pub reruns: Reruns,
}

impl Default for Options {
    /// What Prometheus' own scripts expect: everything experimental on, 10,000 samples per query.
    fn default() -> Self {
        let engine = EngineOptions {
            lookback: Duration::from_secs(300),
            timeout: Duration::from_secs(100),
            samples_max: 10_000,
            subquery_step: Duration::from_secs(60),
            parse: ParseOptions::all(),
            delayed_name_removal: true,
            use_start_timestamps: true,
            ..EngineOptions::default()
        };
        Self { engine, reruns: Reruns::All }
    }
}

/// In which other ways an instant query is asked too; all answers must be the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reruns {
    /// In none.
    None,
    /// As a range query around its time.
    Range,
    /// Also pinned to its time with `@` and asked at other times.
    #[default]
    All,
}

/// Runs the script in `path`. What goes wrong is in the report.
#[must_use]
pub fn run_file(path: &Path, options: &Options) -> Report {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => run_text(&name, &text, options),
        Err(error) => {
            let problem = ScriptProblem::Io(error.to_string());
            Report { error: Some(ScriptError { file: name.clone(), line: 0, problem }), ..Report::new(name) }
        }
    }
}

/// Runs the script `text`, called `name` in the report.
#[must_use]
pub fn run_text(name: &str, text: &str, options: &Options) -> Report {
    let mut report = Report::new(name.to_owned());
    let commands = match parse_script(name, text) {
        Ok(commands) => commands,
        Err(error) => {
            report.error = Some(error);
            return report;
        }
    };
    let mut runner = Runner::new(options);
    for command in &commands {
        match command {
            Command::Clear => runner.clear(),
            Command::Load(load) => {
                if let Err(problem) = runner.load(load) {
                    report.error = Some(ScriptError { file: name.to_owned(), line: load.line, problem });
                    return report;
                }
            }
            Command::Eval(eval) => report.evals.push(EvalOutcome {
                line: eval.line,
                command: eval.command.clone(),
                failure: runner.eval(eval).err(),
            }),
        }
    }
    report
}

/// An engine and its storage.
struct Runner {
    engine: Engine,
    reruns: Reruns,
    storage: MemoryStorage,
}

impl Runner {
    fn new(options: &Options) -> Self {
        Self {
            engine: Engine::new(options.engine.clone()),
            reruns: options.reruns,
            storage: MemoryStorage::default(),
        }
    }

    fn clear(&mut self) {
        self.storage = MemoryStorage::default();
    }

    fn load(&mut self, load: &Load) -> Result<(), ScriptProblem> {
        let hasher = self.storage.key_hasher();
        let refused = |error: &dyn std::fmt::Display| ScriptProblem::Refused(error.to_string());
        let custom = if load.nhcb { custom_bucket_series(load)? } else { Vec::new() };
        let mut batch = Batch::default();
        for (series, starts) in load
            .series
            .iter()
            .map(|(series, starts)| (series, starts.as_ref()))
            .chain(custom.iter().map(|series| (series, None)))
        {
            let key = hasher.key(series.labels.to_string().as_bytes());
            batch.add_started(key, series, starts, 0, load.step).map_err(|error| refused(&error))?;
        }
        let Batch { entries, samples, histograms, labels } = batch;
        let labels = LabelList(labels);
        let batch =
            WriteBatch { series: &entries, samples: &samples, histograms: &histograms, labels: &labels };
        let appended = self.storage.append(&TenantId::default(), &batch).map_err(|error| refused(&error))?;
        if let Some(rejection) = appended.outcome.rejections.first() {
            return Err(refused(&rejection.reason));
        }
        appended.ticket.wait().map_err(|error: StorageError| refused(&error))
    }

    fn eval(&self, eval: &Eval) -> Result<(), Failure> {
        let expr = parse(&eval.expr, &self.engine.options().parse)
            .map_err(|error| Failure { cause: Cause::Parse, detail: error.to_string() })?;
        self.eval_all(eval, &expr).map_err(|detail| Failure { cause: Cause::Result, detail })
    }

    /// The query as written, then in the other ways.
    fn eval_all(&self, eval: &Eval, expr: &Expr) -> Result<(), String> {
        let expect = &eval.expect;
        let time = match eval.time {
            EvalTime::Instant(time) => time,
            EvalTime::Range(grid) => {
                let query = Query::range(&eval.expr, grid.start, grid.end, grid.step);
                return match self.ask(&query, eval)? {
                    Some(result) => check_range(expect, &result.value, grid),
                    None => Ok(()),
                };
            }
        };
        let facts = Facts::of(expr);
        self.eval_instant(eval, &facts, &eval.expr, time)?;
        if self.reruns < Reruns::All || facts.depends_on_time {
            return Ok(());
        }
        let pinned = rewrite::pin(expr, time).to_string();
        let times =
            if time == 0 { vec![-1000, 0, 1000] } else { vec![-10 * time, 0, time / 5, time, 10 * time] };
        for time in times {
            self.eval_instant(eval, &facts, &pinned, time)
                .map_err(|detail| format!("asked as {pinned:?} at {time}: {detail}"))?;
        }
        Ok(())
    }

    fn eval_instant(&self, eval: &Eval, facts: &Facts, text: &str, time: i64) -> Result<(), String> {
        let expect = &eval.expect;
        let Some(result) = self.ask(&Query::instant(text, time), eval)? else {
            return Ok(());
        };
        check_instant(expect, &result.value)?;
        let excluded = facts.depends_on_range || facts.is_string || facts.is_range_vector;
        if self.reruns < Reruns::Range || excluded {
            return Ok(());
        }
        let query = Query::range(text, time - 60_000, time + 60_000, 60_000);
        let result = self.run(&query)?.map_err(|error| format!("as a range query: {error}"))?;
        if expect.ordered {
            return Ok(());
        }
        check_range_at(expect, &result.value, time).map_err(|detail| format!("as a range query: {detail}"))
    }

    /// Runs the query and checks failure and annotations; `None` if it failed as it should.
    fn ask(&self, query: &Query, eval: &Eval) -> Result<Option<QueryResult>, String> {
        match (self.run(query)?, &eval.expect.fail) {
            (Ok(_), Some(wanted)) => Err(format!("expected a failure with {wanted}")),
            (Ok(result), None) => check_annotations(&eval.expect, &result).map(|()| Some(result)),
            (Err(error), Some(wanted)) if wanted.matches(&error.to_string()) => Ok(None),
            (Err(error), Some(wanted)) => Err(format!("expected a failure with {wanted}, got \"{error}\"")),
            (Err(error), None) => Err(format!("error: {error}")),
        }
    }

    /// Runs the query; a panic of the engine is this query's failure, not the end of the run.
    fn run(&self, query: &Query) -> Result<Result<QueryResult, QueryError>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(self.engine.run(&self.storage, query)))).map_err(
            |panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                format!(
                    "panic: {}",
                    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
                )
            },
        )
    }
}

/// The start timestamp of the sample at `place`, which is at `timestamp`; 0 where none is given.
fn start_of(starts: Option<&StartLine>, place: usize, timestamp: i64) -> i64 {
    let offset = starts.and_then(|starts| starts.offsets.get(place).copied().flatten());
    offset.map_or(0, |offset| timestamp.saturating_add(offset))
}

/// The labels of the series of a [`Batch`].
pub(crate) struct LabelList(pub(crate) Vec<Labels>);

impl LabelSource for LabelList {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        self.0.get(series).cloned().ok_or_else(|| RejectReason::InvalidLabels {
            fault: LabelFault::Internal,
            text: format!("no series {series}"),
        })
    }
}

/// The samples of a `load`, as storage takes them.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<SeriesEntry>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) histograms: Vec<HistogramSample>,
    /// By entry.
    pub(crate) labels: Vec<Labels>,
}

impl Batch {
    /// Adds a series whose first value is at `start`: an entry for each run of samples of one kind, since of an entry the
    /// floats are taken first.
    pub(crate) fn add(
        &mut self,
        key: SeriesKey,
        series: &SeriesLine,
        start: i64,
        step: i64,
    ) -> Result<(), TryFromIntError> {
        self.add_started(key, series, None, start, step)
    }

    /// The same with the start timestamps of its samples: a run has one.
    pub(crate) fn add_started(
        &mut self,
        key: SeriesKey,
        series: &SeriesLine,
        starts: Option<&StartLine>,
        start: i64,
        step: i64,
    ) -> Result<(), TryFromIntError> {
        let mut run: Option<(bool, i64)> = None;
        for (place, value) in series.values.iter().enumerate() {
            let timestamp = start + place as i64 * step;
            let (samples, histograms) =
                (u32::try_from(self.samples.len())?, u32::try_from(self.histograms.len())?);
            let float = match value {
                SeriesValue::Missing => continue,
                SeriesValue::Float(value) => {
                    self.samples.push(Sample::new(timestamp, *value));
                    true
                }
                SeriesValue::Histogram(value) => {
                    let histogram = FloatHistogram::clone(&value.histogram).into();
                    self.histograms.push(HistogramSample { timestamp, histogram });
                    false
                }
            };
            let start_timestamp = start_of(starts, place, timestamp);
            if run != Some((float, start_timestamp)) {
                run = Some((float, start_timestamp));
                let mut entry = SeriesEntry::of_samples(key, samples..samples);
                entry.histograms = histograms..histograms;
                entry.start_timestamp = start_timestamp;
                self.entries.push(entry);
                self.labels.push(series.labels.clone());
            }
            if let Some(entry) = self.entries.last_mut() {
                entry.samples.end = u32::try_from(self.samples.len())?;
                entry.histograms.end = u32::try_from(self.histograms.len())?;
            }
        }
        Ok(())
    }
}
