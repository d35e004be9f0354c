//! Runs queries.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chronolith_index::CompiledMatcher;
use chronolith_model::{MatchOp, Matcher, TimeRange};
use chronolith_storage::{Queryable, SelectRequest, SeriesSet};
use chronolith_syntax::{
    ast::{Expr, ValueType},
    parse,
};
use hashbrown::HashMap;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{
    annotations::Annotations,
    api::{
        EngineOptions, Query, QueryError, QueryResult, QueryStats, RangeSeries, ResultCacheStats,
        ResultMemory, Value,
    },
    eval::{Data, Executor, Scope, finish},
    explain::{Costs, Explain, ExplainMode, Failed, Observed, tell},
    limits::{Gate, Interrupt, Ledger, STAGE_EVALUATION, STAGE_EXECUTION},
    pause::{Pause, is_slow_to_parse},
    plan::{Plan, PlanOptions, plan},
    results::{Candidate, Results, Reused},
    selectors::{Compiler, Selectors, parsing},
    series::{Column, Grid, SeriesColumn, native_bytes},
};

/// Whether the anchored regular expression `pattern` matches the empty string, for the parser.
fn check_regex(pattern: &str) -> Result<bool, String> {
    let matcher = Matcher::new("", MatchOp::Regex, pattern);
    CompiledMatcher::new(&matcher).map(|matcher| matcher.matches_empty()).map_err(|error| error.to_string())
}

/// What is to be told of a running query, and what was.
#[derive(Default)]
struct Telling {
    mode: Option<ExplainMode>,
    explain: Option<Box<Explain>>,
    stats: QueryStats,
}

/// A query that has been planned.
struct Prepared {
    plan: Plan,
    /// The steps that are to be evaluated.
    grid: Grid,
    /// If its result may be kept.
    candidate: Option<Candidate>,
    /// The steps before those.
    reused: Option<Reused>,
}

/// Evaluates queries. Cheap to share; limits concurrency across its users.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    pool: ThreadPool,
    gate: Gate,
    results: Results,
}

impl Engine {
    /// An engine with these limits.
    ///
    /// # Panics
    /// When the operating system refuses the threads of the evaluation pool.
    #[must_use]
    pub fn new(mut options: EngineOptions) -> Self {
        options.parse.regex = check_regex;
        let pool = ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|index| format!("promql-{index}"))
            .build()
            .expect("the threads of the evaluation pool can be started");
        let gate = Gate::new(options.concurrency_max);
        let results = Results::new(options.results_max_bytes, options.memory.clone());
        Self { options, pool, gate, results }
    }

    /// Its limits.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Runs `query` over `storage`. CPU work happens on the calling thread and the engine's pool: poll it on a thread
    /// that may block.
    ///
    /// Before work that may take longer than handing it to another thread, the future is once not ready, and wakes its
    /// waker: a server may begin each query where it came in, and go on elsewhere with those that are long. Such work is to
    /// parse what is long or compiles slowly, to select what storage does not call [quick](Querier::is_quick), and
    /// evaluation over many values.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn run(&self, storage: &dyn Queryable, query: &Query) -> Result<QueryResult, QueryError> {
        self.execute(storage, query, &mut Telling::default()).await
    }

    /// As [`Engine::run`], and tells what the query is made of if there is a `mode` for that; with [`ExplainMode::Analyze`]
    /// also what each part took. The result is the same, and so is the error; an explanation is beside that too, with the
    /// costs of what was done before it.
    pub async fn observe(
        &self,
        storage: &dyn Queryable,
        query: &Query,
        mode: Option<ExplainMode>,
    ) -> Observed {
        let mut telling = Telling { mode, ..Telling::default() };
        let outcome = self.execute(storage, query, &mut telling).await;
        let Telling { explain, stats, .. } = telling;
        let outcome = match outcome {
            Ok(result) => Ok((mode != Some(ExplainMode::Plan)).then_some(result)),
            Err(error) => Err(Failed { error, stats }),
        };
        Observed { outcome, explain }
    }

    /// Runs `query`; with nothing but a plan to be told, its result is empty.
    async fn execute(
        &self,
        storage: &dyn Queryable,
        query: &Query,
        telling: &mut Telling,
    ) -> Result<QueryResult, QueryError> {
        let timeout = query.timeout.map_or(self.options.timeout, |timeout| timeout.min(self.options.timeout));
        let interrupt = Interrupt::new(query.cancel.clone(), timeout);
        let Telling { mode, explain, stats } = telling;
        let pause = Pause::new();
        if is_slow_to_parse(&query.text) {
            pause.before(usize::MAX).await;
        }

        let started = Instant::now();
        let ledger = Arc::new(Ledger::new(&self.options));
        let nothing = ledger.held();
        let prepared = self.prepare(storage, query, &ledger, mode.is_none())?;
        stats.prepare_time = started.elapsed();
        let Prepared { plan, grid, candidate, reused } = prepared;
        if let Some(reused) = reused.as_ref().filter(|_| grid.count == 0) {
            let value = Value::Matrix(reused.followed_by(Vec::new()));
            let (stats, memory) = (std::mem::take(stats), ResultMemory(Some(ledger)));
            return Ok(QueryResult { value, warnings: Vec::new(), infos: Vec::new(), stats, memory });
        }

        let queued = Instant::now();
        let place = self.gate.enter(&interrupt)?;
        stats.queue_time = queued.elapsed();
        interrupt.check(STAGE_EXECUTION)?;

        let opening = Instant::now();
        let range = plan.range.unwrap_or(TimeRange::new(0, 0));
        let querier = storage.querier(&query.tenant, range).map_err(QueryError::Storage)?;
        stats.prepare_time += opening.elapsed();
        let costs = (*mode == Some(ExplainMode::Analyze)).then(|| Costs::new(&plan));
        let mut executor = Executor {
            plan: &plan,
            sets: Vec::new(),
            pool: &self.pool,
            interrupt: &interrupt,
            ledger: &ledger,
            notes: Annotations::default(),
            shared: HashMap::new(),
            leaves_left: plan.selection_leaves.clone(),
            decoded: HashMap::new(),
            delayed_name_removal: self.options.delayed_name_removal,
            type_and_unit_labels: self.options.type_and_unit_labels,
            pause: &pause,
            querier: &*querier,
            costs: costs.as_ref(),
        };
        let evaluated = if *mode == Some(ExplainMode::Plan) {
            select(&mut executor).await.map(|()| (Value::Vector(Vec::new()), 0))
        } else {
            self.evaluate(&mut executor, query, grid, stats).await
        };
        *explain = mode.map(|_| Box::new(tell(&plan, &query.text, &executor.sets, costs.as_ref())));
        stats.peak_samples = ledger.peak() as u64;
        let (mut value, mut bytes) = evaluated?;
        drop(place);
        if let (Some(reused), Value::Matrix(matrix)) = (&reused, &mut value) {
            bytes += reused.bytes();
            *matrix = reused.followed_by(std::mem::take(matrix));
        }

        let (of_query, infos) = executor.notes.render(&query.text);
        // What the data lacks concerns all of the result.
        let mut warnings = querier.warnings();
        warnings.extend(of_query);
        if let (Some(candidate), Value::Matrix(matrix), true) =
            (candidate, &value, warnings.is_empty() && infos.is_empty())
        {
            self.results.keep(candidate, matrix, stats.total_queryable_samples);
        }
        drop(executor.sets);
        ledger.release_to(nothing);
        ledger.charge(0, bytes)?;
        let (stats, memory) = (std::mem::take(stats), ResultMemory(Some(ledger)));
        Ok(QueryResult { value, warnings, infos, stats, memory })
    }

    /// Parses and plans `query`; where results may be `kept`, the plan is of the steps that are not known.
    fn prepare(
        &self,
        storage: &dyn Queryable,
        query: &Query,
        ledger: &Ledger,
        kept: bool,
    ) -> Result<Prepared, QueryError> {
        let expr = parsing(ledger, &query.text, || Ok(parse(&query.text, &self.options.parse)?))?;
        let grid = grid(query, &expr)?;
        let options = self.plan_options(query, grid);
        let plan = plan(&expr, options)?;
        let mut prepared = Prepared { plan, grid, candidate: None, reused: None };
        if !kept || !self.results.is_on() {
            return Ok(prepared);
        }
        let plan = &prepared.plan;
        let moment = || storage.moment(&query.tenant, plan.range?);
        let candidate = Candidate::of(query, &expr, (plan, grid), &options, moment);
        let since = |moment| storage.changed_since(&query.tenant, moment);
        if let Some(reused) = candidate.as_ref().and_then(|candidate| self.results.find(candidate, since)) {
            ledger.charge(0, reused.bytes())?;
            prepared.grid = reused.rest(grid);
            if prepared.grid.count > 0 {
                prepared.plan = crate::plan::plan(&expr, self.plan_options(query, prepared.grid))?;
            }
            prepared.reused = Some(reused);
        }
        prepared.candidate = candidate;
        Ok(prepared)
    }

    /// What is kept of results.
    #[must_use]
    pub fn result_cache(&self) -> ResultCacheStats {
        self.results.stats()
    }

    /// The value of the planned query, and about the bytes it holds.
    async fn evaluate(
        &self,
        executor: &mut Executor<'_>,
        query: &Query,
        grid: Grid,
        stats: &mut QueryStats,
    ) -> Result<(Value, usize), QueryError> {
        let started = Instant::now();
        select(executor).await?;
        stats.prepare_time += started.elapsed();

        let started = Instant::now();
        let mut scope = Scope::new(grid);
        executor.check_grid(grid)?;
        let evaluated = executor.eval(&executor.plan.root, &mut scope).await;
        stats.eval_time = started.elapsed();
        let data = evaluated?;
        executor.interrupt.check(STAGE_EVALUATION)?;

        let started = Instant::now();
        // What was evaluated and what is made of it are both there for a moment.
        let bytes = result_bytes(&data);
        executor.ledger.charge(0, bytes)?;
        let value = finish(data, grid, query.step.is_some(), self.options.delayed_name_removal)?;
        stats.sort_time = started.elapsed();
        stats.total_queryable_samples = scope.samples.iter().sum();
        stats.samples_per_step = grid.times().zip(scope.samples).collect();
        Ok((value, bytes))
    }

    /// Parses `text` as a query of this engine, within the memory a query may take.
    ///
    /// # Errors
    /// [`QueryError::Parse`] for a wrong text; else as a query that takes too much.
    pub fn parse(&self, text: &str) -> Result<Expr, QueryError> {
        parsing(&Ledger::new(&self.options), text, || Ok(parse(text, &self.options.parse)?))
    }

    /// No selectors yet; see [`Selectors`].
    #[must_use]
    pub fn selectors(&self) -> Selectors {
        Selectors::new(&self.options)
    }

    fn plan_options(&self, query: &Query, grid: Grid) -> PlanOptions {
        let milliseconds = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let lookback = query.lookback.filter(|lookback| !lookback.is_zero()).unwrap_or(self.options.lookback);
        PlanOptions {
            grid,
            end: query.end,
            step: query.step.unwrap_or(0),
            lookback: milliseconds(lookback),
            subquery_step: milliseconds(self.options.subquery_step).max(1),
            start_timestamps: self.options.use_start_timestamps,
        }
    }
}

/// The steps of a query.
fn grid(query: &Query, expr: &Expr) -> Result<Grid, QueryError> {
    let bad = |text: String| Err(QueryError::BadData(text));
    let Some(step) = query.step else {
        if query.start != query.end {
            return bad("an instant query has one evaluation time".to_owned());
        }
        return Ok(Grid::single(query.start));
    };
    let kind = expr.value_type();
    if !matches!(kind, ValueType::Vector | ValueType::Scalar) {
        return bad(format!(
            "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
            kind.documented()
        ));
    }
    if step <= 0 {
        return bad("zero or negative query resolution step widths are not accepted. Try a positive integer"
            .to_owned());
    }
    let span = match query.end.checked_sub(query.start) {
        Some(span) if span >= 0 => span,
        Some(_) => return bad("end timestamp must not be before start time".to_owned()),
        None => return bad("time range out of bounds".to_owned()),
    };
    let count = usize::try_from(span / step).unwrap_or(usize::MAX).saturating_add(1);
    Ok(Grid { start: query.start, step, count })
}

/// Selects everything the plan reads.
async fn select(executor: &mut Executor<'_>) -> Result<(), QueryError> {
    let querier = executor.querier;
    let held = executor.ledger.held();
    let mut compiler = Compiler::new(executor.ledger);
    for selection in &executor.plan.selections {
        executor.interrupt.check(STAGE_EXECUTION)?;
        let matchers = compiler.compile(&selection.matchers)?;
        let request = SelectRequest { matchers, range: selection.range, hints: selection.hints.clone() };
        if !querier.is_quick(&request) {
            executor.pause.before(usize::MAX).await;
        }
        let set = executor.interruptible(querier.select(&request)).await?;
        executor.ledger.charge_series(set.len())?;
        executor.sets.push(set);
        executor.pause.before(0).await;
    }
    // Nobody needs the matchers any more, but the series stay.
    drop(compiler);
    executor.ledger.release_to(held);
    executor.ledger.charge(0, executor.sets.iter().map(|set| selected_bytes(&**set)).sum())
}

/// About what a selection holds for its series: labels and where their samples are.
pub(crate) fn selected_bytes(set: &dyn SeriesSet) -> usize {
    /// Besides the text of the labels.
    const SERIES_BYTES: usize = 64;
    /// Series whose labels are looked at; the others are about as long.
    const LOOKED_AT: usize = 256;
    let step = set.len().div_ceil(LOOKED_AT).max(1);
    let looked_at = (0..set.len()).step_by(step);
    let count = looked_at.len().max(1);
    let labels: usize = looked_at.map(|index| set.labels(index).size_bytes()).sum();
    (labels / count).saturating_add(SERIES_BYTES).saturating_mul(set.len())
}

/// What the result made of `data` holds, at most.
fn result_bytes(data: &Data) -> usize {
    let series = |points: usize, labels: usize| size_of::<RangeSeries>() + points * POINT_BYTES + labels;
    let natives =
        |column: &Column| column.lane().map_or(0, |lane| lane.bytes() + lane.steps().len() * POINT_BYTES);
    match data {
        Data::Text(text) => text.len(),
        Data::Scalar(values) => series(values.len(), 0),
        Data::Vector(vector) => {
            let one =
                |s: &SeriesColumn| series(s.column.floats(), s.labels.size_bytes()) + natives(&s.column);
            vector.iter().map(one).sum()
        }
        Data::Matrix(matrix) => matrix.iter().map(range_series_bytes).sum(),
    }
}

/// About the memory a series of a range vector takes.
pub(crate) fn range_series_bytes(series: &RangeSeries) -> usize {
    let points = series.points.len() * POINT_BYTES;
    let natives = series.histograms.iter().map(|(_, native)| POINT_BYTES + native_bytes(native));
    size_of::<RangeSeries>() + points + series.labels.size_bytes() + natives.sum::<usize>()
}

const POINT_BYTES: usize = size_of::<(i64, f64)>();
