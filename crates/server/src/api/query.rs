//! `query`, `query_range`, `format_query`, `parse_query`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use chronolith_model::TenantId;
use chronolith_promql::{
    CancelToken, Engine, Explain, ExplainMode, Observed, Query, QueryError, QueryResult, QueryStats, Value,
};
use chronolith_storage::Queryable;
use chronolith_syntax::{ast::Expr, pretty};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{block_in_place, spawn_blocking},
    time::timeout,
};

use super::{Answer, ApiResult, TRUNCATED, ast, explain, in_turn, success, success_with, values};
use crate::{
    error::ApiError,
    json::{Commas, JsonWriter},
    params::{ApiTime, Grid, Params, Timeout, lookback_of},
    query_log::Ended,
    routes::{ApiRequest, Origin},
    state::AppState,
};

/// What a query takes as a tree and as JSON of it, for each of its bytes, at most, about: `{a="",b="",...` is written as
/// `{"name":"a","type":"=","value":""},`.
const PRINTED_BYTES_PER_BYTE: usize = 64;

/// What a step takes in the statistics, about.
const STEP_BYTES: usize = 32;

/// Cancels a query when the request that waits for it is dropped: the client went away.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Which statistics are told with a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Statistics {
    #[default]
    None,
    /// Of the query as a whole.
    Totals,
    /// Of its steps, too.
    Steps,
}

/// What is asked for beside the value of a query.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// Most series or elements of the value; 0 = all.
    pub(super) limit: usize,
    pub(super) stats: Statistics,
    pub(super) explain: Option<ExplainMode>,
}

impl Asked {
    fn of(params: &Params, engine: &Engine) -> Result<Self, ApiError> {
        let limit = params.limit()?;
        let stats = match params.get("stats") {
            "" => Statistics::None,
            "all" if engine.options().per_step_stats => Statistics::Steps,
            _ => Statistics::Totals,
        };
        Ok(Self { limit, stats, explain: explain::mode_of(params)? })
    }
}

pub(super) async fn instant(request: ApiRequest) -> ApiResult {
    let asked = Asked::of(&request.params, request.state.engine())?;
    let now = ApiTime::from_millis(request.state.info().now_ms());
    let time = request.params.time_or("time", now)?.millis();
    let deadline = Timeout::of(&request.params)?;
    let lookback = lookback_of(&request.params)?;
    let query = Query { lookback, ..Query::instant(request.params.get("query"), time) };
    run(request, query, deadline, asked).await
}

pub(super) async fn range(request: ApiRequest) -> ApiResult {
    let asked = Asked::of(&request.params, request.state.engine())?;
    let grid = Grid::of(&request.params)?;
    let deadline = Timeout::of(&request.params)?;
    let lookback = lookback_of(&request.params)?;
    let text = request.params.get("query");
    // Statistics are of the whole query.
    let uncached = !matches!(request.params.get("nocache"), "" | "0" | "false");
    let reuse = matches!(asked.stats, Statistics::None) && !uncached;
    let query = Query { lookback, reuse, ..Query::range(text, grid.start, grid.end, grid.step) };
    run(request, query, deadline, asked).await
}

async fn run(request: ApiRequest, mut query: Query, deadline: Timeout, asked: Asked) -> ApiResult {
    let longest = request.state.engine().options().timeout;
    let allowed = match deadline {
        Timeout::Default => longest,
        Timeout::After(timeout) => timeout.min(longest),
        Timeout::Expired => {
            return in_turn(request, |request, _| {
                parsed(request)?;
                Err(ApiError::parameter("query", "context deadline exceeded"))
            })
            .await;
        }
    };
    query.tenant = TenantId::default();
    let _in_flight = request.state.metrics().queries_in_flight.hold();
    let cancel = CancelOnDrop(query.cancel.clone());
    let started = Instant::now();
    let gate = Arc::clone(&request.state.gates().queries);
    // Waiting here costs no thread; the engine's own gate then lets the query through at once.
    let permit = timeout(allowed, gate.acquire_owned()).await;
    let waited = started.elapsed();
    let Ok(permit) = permit else {
        let error = QueryError::Timeout("query queue");
        let stats = QueryStats { queue_time: waited, ..QueryStats::default() };
        log(&request.state, &request.origin, &query, &stats, Some(&error), asked);
        return Err(error.into());
    };
    let permit = permit.map_err(|_| ApiError::task_died())?;
    query.timeout = Some(allowed.saturating_sub(waited));
    let (state, origin) = (request.state.clone(), request.origin.clone());
    let queryable = Arc::clone(&request.backend.queryable);
    let work = async move {
        let _permit = permit;
        let _place = state.active().enter(&query, &origin, state.info().now_ms());
        answer(&state, &*queryable, &origin, &query, waited, asked).await
    };
    let body = begun_here(work).await?;
    drop(cancel);
    body.map(Some)
}

/// The answer to `query` from `origin`, which has `waited` for its turn.
async fn answer(
    state: &AppState,
    queryable: &dyn Queryable,
    origin: &Origin,
    query: &Query,
    waited: Duration,
    asked: Asked,
) -> Result<Answer, ApiError> {
    let Observed { mut outcome, explain: told } =
        state.engine().observe(queryable, query, asked.explain).await;
    let (stats, error) = match &mut outcome {
        Ok(Some(result)) => (Some(&mut result.stats), None),
        Ok(None) => (None, None),
        Err(failed) => (Some(&mut failed.stats), Some(&failed.error)),
    };
    if let Some(stats) = stats {
        stats.queue_time += waited;
        log(state, origin, query, stats, error, asked);
    }
    match outcome {
        Ok(Some(result)) => encode(result, asked, told.as_deref()),
        // Nothing was evaluated.
        Ok(None) => {
            Ok(success(|json| json.json(&told.as_deref().map(explain::alone).unwrap_or_default())).into())
        }
        Err(failed) => {
            let mut error = ApiError::from(failed.error);
            error.data = told.as_deref().map(|told| explain::alone(told).into());
            Err(error)
        }
    }
}

/// Logs a query that has ended, if queries are logged. As in Prometheus, which logs what it evaluates: what is no query is
/// not, and neither is one of which the plan was asked for.
fn log(
    state: &AppState,
    origin: &Origin,
    query: &Query,
    stats: &QueryStats,
    error: Option<&QueryError>,
    asked: Asked,
) {
    let Some(log) = state.query_log() else { return };
    let unparsed = matches!(error, Some(QueryError::Parse(_) | QueryError::BadData(_)));
    if unparsed || asked.explain == Some(ExplainMode::Plan) {
        return;
    }
    let (error, now) = (error.map(ToString::to_string), state.info().now_ms());
    log.log(&Ended { query, stats, steps: asked.stats == Statistics::Steps, error, origin, now });
}

/// The result of `work`, which may block: begun on this thread, where it ends if it is short, since to wake a thread takes
/// longer than most queries do; from its first pause on on one that may block, while this one sees a client that goes away.
async fn begun_here<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, ApiError> {
    let mut work = Box::pin(work);
    let runtime = Handle::current();
    // Other tasks of this thread go on elsewhere meanwhile, where there is an elsewhere.
    if runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
        let mut begin = || work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match catch_unwind(AssertUnwindSafe(|| block_in_place(&mut begin))) {
            Ok(Poll::Ready(done)) => return Ok(done),
            Ok(Poll::Pending) => {}
            Err(_) => return Err(ApiError::task_died()),
        }
    }
    spawn_blocking(move || runtime.block_on(work)).await.map_err(|_| ApiError::task_died())
}

/// The answer for `result`, with what was `asked` for and what there is to tell.
///
/// # Errors
/// When the query has not enough memory left for it.
pub(super) fn encode(
    mut result: QueryResult,
    asked: Asked,
    told: Option<&Explain>,
) -> Result<Answer, ApiError> {
    if asked.limit > 0 && truncate(&mut result.value, asked.limit) {
        result.warnings.push(TRUNCATED.to_owned());
    }
    let mut capacity = values::size(&result.value);
    if asked.stats == Statistics::Steps {
        capacity += result.stats.samples_per_step.len() * STEP_BYTES;
    }
    result.memory.charge(capacity)?;
    let json = success_with(&result.warnings, &result.infos, capacity, |json| {
        values::write(json, &result.value);
        if asked.stats != Statistics::None {
            json.raw(",\"stats\":");
            write_statistics(json, &result.stats, asked.stats == Statistics::Steps);
        }
        if let Some(told) = told {
            json.raw(",\"explain\":");
            explain::write(json, told);
        }
        json.raw("}");
    });
    let memory = result.memory.clone();
    drop(result);
    Answer::new(json, memory)
}

fn truncate(value: &mut Value, limit: usize) -> bool {
    match value {
        Value::Vector(samples) if samples.len() > limit => samples.truncate(limit),
        Value::Matrix(series) if series.len() > limit => series.truncate(limit),
        _ => return false,
    }
    true
}

/// Writes what a query has cost; by step too, if `steps` are wanted.
pub(crate) fn write_statistics(json: &mut JsonWriter, stats: &QueryStats, steps: bool) {
    let total = stats.prepare_time + stats.eval_time + stats.sort_time;
    json.raw("{\"timings\":{");
    let mut commas = Commas::default();
    for (name, time) in [
        ("evalTotalTime", total),
        ("resultSortTime", stats.sort_time),
        ("queryPreparationTime", stats.prepare_time),
        ("innerEvalTime", stats.eval_time),
        ("execQueueTime", stats.queue_time),
        ("execTotalTime", total + stats.queue_time),
    ] {
        commas.next(json);
        json.key(name);
        json.float(Duration::as_secs_f64(&time));
    }
    json.raw("},\"samples\":{");
    if steps && !stats.samples_per_step.is_empty() {
        json.raw("\"totalQueryableSamplesPerStep\":[");
        let mut commas = Commas::default();
        for (t, samples) in &stats.samples_per_step {
            commas.next(json);
            json.raw("[");
            json.timestamp_float(*t);
            json.raw(",");
            json.integer(*samples);
            json.raw("]");
        }
        json.raw("],");
    }
    json.raw("\"totalQueryableSamples\":");
    json.integer(stats.total_queryable_samples);
    json.raw(",\"peakSamples\":");
    json.integer(stats.peak_samples);
    json.raw("}}");
}

/// The parameter `query`, parsed: not on a thread of the runtime, since regular expressions are compiled for it.
fn parsed(request: &ApiRequest) -> Result<Expr, ApiError> {
    Ok(request.state.engine().parse(request.params.get("query"))?)
}

/// The answer that `write` makes of the query of `request`.
fn printed(request: &ApiRequest, write: impl FnOnce(&mut JsonWriter)) -> Result<Answer, ApiError> {
    let memory = request.state.engine().selectors().memory();
    memory.charge(request.params.get("query").len().saturating_mul(PRINTED_BYTES_PER_BYTE))?;
    Answer::new(success(write), memory)
}

pub(super) async fn format(request: ApiRequest) -> ApiResult {
    let body = in_turn(request, |request, _| {
        let expr = parsed(request)?;
        printed(request, |json| json.string_html_escaped(&pretty(&expr)))
    });
    body.await.map(Some)
}

pub(super) async fn parse(request: ApiRequest) -> ApiResult {
    let body = in_turn(request, |request, _| {
        let expr = parsed(request)?;
        printed(request, |json| ast::write(json, &expr))
    });
    body.await.map(Some)
}
