//! The endpoints of `/api/v1`.

pub(crate) mod status;

mod admin;
mod ast;
mod discovery;
mod exemplars;
mod explain;
mod labels;
mod metadata;
mod paying;
mod query;
mod values;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use chronolith_model::{TenantId, TimeRange};
use chronolith_promql::ResultMemory;
use chronolith_storage::Querier;
use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::{
    error::{ApiError, ErrorKind},
    json::{Commas, JsonWriter},
    routes::{ApiRequest, Endpoint},
};

pub(crate) use query::write_statistics;

/// An answer; `None` = 204.
pub(crate) type ApiResult = Result<Option<Answer>, ApiError>;

/// The body of an answer, and the memory it is charged with until its turn to be sent has come.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) json: Vec<u8>,
    pub(crate) memory: ResultMemory,
}

impl Answer {
    /// `json`, which what `memory` is charged with was needed for. All of that is gone by now.
    ///
    /// # Errors
    /// When there is not enough memory for it.
    fn new(json: Vec<u8>, memory: ResultMemory) -> Result<Self, ApiError> {
        memory.settle(json.capacity())?;
        Ok(Self { json, memory })
    }
}

/// An answer that is as small as the server's configuration.
impl From<Vec<u8>> for Answer {
    fn from(json: Vec<u8>) -> Self {
        Self { json, memory: ResultMemory::default() }
    }
}

/// Text of the warning on an answer that was cut at `limit`.
const TRUNCATED: &str = "results truncated due to limit";

pub(crate) async fn dispatch(endpoint: Endpoint, request: ApiRequest) -> ApiResult {
    match endpoint {
        Endpoint::Query => query::instant(request).await,
        Endpoint::QueryRange => query::range(request).await,
        Endpoint::QueryExemplars => exemplars::exemplars(request).await,
        Endpoint::FormatQuery => query::format(request).await,
        Endpoint::ParseQuery => query::parse(request).await,
        Endpoint::Series => labels::series(request).await,
        Endpoint::Labels => labels::names(request).await,
        Endpoint::LabelValues => labels::values(request).await,
        Endpoint::Metadata => metadata::metadata(request).await,
        Endpoint::Targets => discovery::targets(&request),
        Endpoint::TargetsMetadata => discovery::targets_metadata(request).await,
        Endpoint::ScrapePools => Ok(Some(success(|json| json.raw("{\"scrapePools\":[]}")).into())),
        Endpoint::Alertmanagers => Ok(Some(
            success(|json| {
                json.raw("{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}");
            })
            .into(),
        )),
        Endpoint::Rules => discovery::rules(&request),
        Endpoint::Alerts => Ok(Some(success(|json| json.raw("{\"alerts\":[]}")).into())),
        Endpoint::StatusConfig => Ok(Some(status::config(&request.state).into())),
        Endpoint::StatusFlags => Ok(Some(status::flags(&request.state).into())),
        Endpoint::StatusRuntimeinfo => Ok(Some(status::runtime(&request.state).into())),
        Endpoint::StatusBuildinfo => Ok(Some(status::build(&request.state).into())),
        Endpoint::StatusActiveQueries => Ok(Some(status::active_queries(&request.state).into())),
        Endpoint::StatusTsdb => status::tsdb(request).await,
        Endpoint::StatusWalreplay => Ok(Some(status::walreplay(&request.state).into())),
        Endpoint::Notifications => Ok(Some(success(|json| json.raw("[]")).into())),
        Endpoint::AdminDeleteSeries => admin::delete_series(request).await,
        Endpoint::AdminCleanTombstones => admin::clean_tombstones(request).await,
        Endpoint::AdminSnapshot => admin::snapshot(request).await,
        // The other routes do not come here.
        _ => Err(ApiError::task_died()),
    }
}

/// A successful answer without warnings, whose data `write` writes.
fn success(write: impl FnOnce(&mut JsonWriter)) -> Vec<u8> {
    success_with(&[], &[], 0, write)
}

/// A successful answer. `capacity` is a guess at the bytes of the data.
fn success_with(
    warnings: &[String],
    infos: &[String],
    capacity: usize,
    write: impl FnOnce(&mut JsonWriter),
) -> Vec<u8> {
    let mut json = JsonWriter::with_capacity(capacity + 256);
    json.raw("{\"status\":\"success\",\"data\":");
    write(&mut json);
    for (name, texts) in [("warnings", warnings), ("infos", infos)] {
        if !texts.is_empty() {
            json.raw(",");
            json.key(name);
            json.strings(texts);
        }
    }
    json.raw("}");
    json.finish()
}

/// Writes an object of string values.
fn string_object<'a>(json: &mut JsonWriter, fields: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut commas = Commas::default();
    json.raw("{");
    for (name, value) in fields {
        commas.next(json);
        json.string_html_escaped(name);
        json.raw(":");
        json.string_html_escaped(value);
    }
    json.raw("}");
}

/// Lets `work` go on, on a thread that may block, when its turn has come; both within the time a query may take. What is
/// still at work then keeps its place until it ends, but nobody waits for it.
async fn in_turn<T: Send + 'static>(
    request: ApiRequest,
    work: impl FnOnce(&ApiRequest, &Handle) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let longest = request.state.engine().options().timeout;
    let gate: Arc<Semaphore> = Arc::clone(&request.state.gates().label_queries);
    let turn = async {
        let permit = gate.acquire_owned().await.map_err(|_| ApiError::task_died())?;
        let runtime = Handle::current();
        let task = spawn_blocking(move || {
            let _permit = permit;
            work(&request, &runtime)
        });
        task.await.map_err(|_| ApiError::task_died())?
    };
    let late = |_| Err(ApiError::new(ErrorKind::Timeout, "query timed out in label query"));
    timeout(longest, turn).await.unwrap_or_else(late)
}

/// A view of the data.
fn querier(request: &ApiRequest, range: TimeRange) -> Result<Arc<dyn Querier>, ApiError> {
    Ok(request.backend.queryable.querier(&TenantId::default(), range)?)
}
