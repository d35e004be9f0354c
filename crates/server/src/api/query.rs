//! `query`, `query_range`, `format_query`, `parse_query`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use chronolith_model::TenantId;
use chronolith_promql::{CancelToken, Query, QueryError, QueryResult, QueryStats, Value};
use chronolith_syntax::{ast::Expr, pretty};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{block_in_place, spawn_blocking},
    time::timeout,
};

use super::{Answer, ApiResult, TRUNCATED, ast, in_turn, success, success_with, values};
use crate::{
    error::ApiError,
    json::{Commas, JsonWriter},
    params::{ApiTime, Grid, Timeout, lookback_of},
    routes::ApiRequest,
};

/// What a query takes as a tree and as JSON of it, for each of its bytes, at most, about: `{a="",b="",...` is written as
/// `{"name":"a","type":"=","value":""},`.
const PRINTED_BYTES_PER_BYTE: usize = 64;

/// Cancels a query when the request that waits for it is dropped: the client went away.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

pub(super) async fn instant(request: ApiRequest) -> ApiResult {
    let limit = request.params.limit()?;
    let now = ApiTime::from_millis(request.state.info().now_ms());
    let time = request.params.time_or("time", now)?.millis();
    let deadline = Timeout::of(&request.params)?;
    let lookback = lookback_of(&request.params)?;
    let query = Query { lookback, ..Query::instant(request.params.get("query"), time) };
    run(request, query, deadline, limit).await
}

pub(super) async fn range(request: ApiRequest) -> ApiResult {
    let limit = request.params.limit()?;
    let grid = Grid::of(&request.params)?;
    let deadline = Timeout::of(&request.params)?;
    let lookback = lookback_of(&request.params)?;
    let text = request.params.get("query");
    let query = Query { lookback, ..Query::range(text, grid.start, grid.end, grid.step) };
    run(request, query, deadline, limit).await
}

async fn run(request: ApiRequest, mut query: Query, deadline: Timeout, limit: usize) -> ApiResult {
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
    let Ok(permit) = timeout(allowed, gate.acquire_owned()).await else {
        return Err(QueryError::Timeout("query queue").into());
    };
    let permit = permit.map_err(|_| ApiError::task_died())?;
    let waited = started.elapsed();
    query.timeout = Some(allowed.saturating_sub(waited));
    let stats = !request.params.get("stats").is_empty();
    let engine = Arc::clone(request.state.engine());
    let queryable = Arc::clone(&request.backend.queryable);
    let work = async move {
        let _permit = permit;
        let mut result = engine.run(&*queryable, &query).await?;
        result.stats.queue_time += waited;
        encode(result, limit, stats)
    };
    let body = begun_here(work).await?;
    drop(cancel);
    body.map(Some)
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

/// The answer for `result`, at most `limit` series or elements of it (0 = all).
///
/// # Errors
/// When the query has not enough memory left for it.
pub(super) fn encode(mut result: QueryResult, limit: usize, stats: bool) -> Result<Answer, ApiError> {
    if limit > 0 && truncate(&mut result.value, limit) {
        result.warnings.push(TRUNCATED.to_owned());
    }
    let capacity = values::size(&result.value);
    result.memory.charge(capacity)?;
    let json = success_with(&result.warnings, &result.infos, capacity, |json| {
        values::write(json, &result.value);
        if stats {
            json.raw(",\"stats\":");
            statistics(json, &result.stats);
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

fn statistics(json: &mut JsonWriter, stats: &QueryStats) {
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
    json.raw("},\"samples\":{\"totalQueryableSamples\":");
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
