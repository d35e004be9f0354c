//! Runs queries.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chronolith_index::CompiledMatcher;
use chronolith_model::{MatchOp, Matcher, TimeRange};
use chronolith_storage::{Querier, Queryable, SeriesSet};
use chronolith_syntax::{
    ast::{Expr, ValueType},
    parse,
};
use hashbrown::HashMap;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{
    annotations::Annotations,
    api::{EngineOptions, Query, QueryError, QueryResult, QueryStats},
    eval::{Executor, Scope, finish},
    limits::{Gate, Interrupt, Ledger, STAGE_EVALUATION, STAGE_EXECUTION},
    plan::{PlanOptions, plan},
    series::Grid,
};

/// Whether the anchored regular expression `pattern` matches the empty string, for the parser.
fn check_regex(pattern: &str) -> Result<bool, String> {
    let matcher = Matcher::new("", MatchOp::Regex, pattern);
    CompiledMatcher::new(&matcher).map(|matcher| matcher.matches_empty()).map_err(|error| error.to_string())
}

/// Evaluates queries. Cheap to share; limits concurrency across its users.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    pool: ThreadPool,
    gate: Gate,
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
        Self { options, pool, gate }
    }

    /// Its limits.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Runs `query` over `storage`. CPU work happens on the calling thread and the engine's pool: call it from a
    /// thread that may block.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn run(&self, storage: &dyn Queryable, query: &Query) -> Result<QueryResult, QueryError> {
        let timeout = query.timeout.map_or(self.options.timeout, |timeout| timeout.min(self.options.timeout));
        let interrupt = Interrupt::new(query.cancel.clone(), timeout);
        let mut stats = QueryStats::default();

        let started = Instant::now();
        let expr = parse(&query.text, &self.options.parse)?;
        let grid = grid(query, &expr)?;
        let plan = plan(&expr, self.plan_options(query, grid))?;
        stats.prepare_time = started.elapsed();

        let queued = Instant::now();
        let place = self.gate.enter(&interrupt)?;
        stats.queue_time = queued.elapsed();
        interrupt.check(STAGE_EXECUTION)?;

        let started = Instant::now();
        let range = plan.range.unwrap_or(TimeRange::new(0, 0));
        let querier = storage.querier(&query.tenant, range).map_err(QueryError::Storage)?;
        let ledger =
            Ledger::new(self.options.samples_max, self.options.memory_max_bytes, self.options.series_max);
        let mut executor = Executor {
            plan: &plan,
            sets: Vec::new(),
            pool: &self.pool,
            interrupt: &interrupt,
            ledger: &ledger,
            notes: Annotations::default(),
            shared: HashMap::new(),
            delayed_name_removal: self.options.delayed_name_removal,
        };
        executor.sets = select(&executor, &*querier).await?;
        stats.prepare_time += started.elapsed();

        let started = Instant::now();
        let mut scope = Scope::new(grid);
        executor.check_grid(grid)?;
        let data = executor.eval(&plan.root, &mut scope).await?;
        interrupt.check(STAGE_EVALUATION)?;
        stats.eval_time = started.elapsed();

        let started = Instant::now();
        let value = finish(data, grid, query.step.is_some(), self.options.delayed_name_removal)?;
        stats.sort_time = started.elapsed();
        drop(place);

        stats.total_queryable_samples = scope.samples.iter().sum();
        stats.samples_per_step = grid.times().zip(scope.samples).collect();
        stats.peak_samples = ledger.peak() as u64;
        let (warnings, infos) = executor.notes.render(&query.text);
        Ok(QueryResult { value, warnings, infos, stats })
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
async fn select(
    executor: &Executor<'_>,
    querier: &dyn Querier,
) -> Result<Vec<Arc<dyn SeriesSet>>, QueryError> {
    let mut sets = Vec::with_capacity(executor.plan.selections.len());
    for selection in &executor.plan.selections {
        executor.interrupt.check(STAGE_EXECUTION)?;
        let set = executor.interruptible(querier.select(&selection.request)).await?;
        executor.ledger.charge_series(set.len())?;
        sets.push(set);
    }
    Ok(sets)
}
