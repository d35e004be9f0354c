//! The endpoints of `/api/v1`.

pub(crate) mod status;

mod ast;
mod discovery;
mod labels;
mod metadata;
mod query;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use chronolith_model::{TenantId, TimeRange};
use chronolith_storage::Querier;
use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking};

use crate::{
    error::{ApiError, ErrorKind},
    json::{Commas, JsonWriter},
    routes::{ApiRequest, Endpoint},
};

/// The body of an answer; `None` = 204.
pub(crate) type ApiResult = Result<Option<Vec<u8>>, ApiError>;

/// Text of the warning on an answer that was cut at `limit`.
const TRUNCATED: &str = "results truncated due to limit";

pub(crate) async fn dispatch(endpoint: Endpoint, request: ApiRequest) -> ApiResult {
    match endpoint {
        Endpoint::Query => query::instant(request).await,
        Endpoint::QueryRange => query::range(request).await,
        Endpoint::QueryExemplars => query::exemplars(&request),
        Endpoint::FormatQuery => query::format(&request),
        Endpoint::ParseQuery => query::parse(&request),
        Endpoint::Series => labels::series(request).await,
        Endpoint::Labels => labels::names(request).await,
        Endpoint::LabelValues => labels::values(request).await,
        Endpoint::Metadata => metadata::metadata(request).await,
        Endpoint::Targets => discovery::targets(&request),
        Endpoint::TargetsMetadata => discovery::targets_metadata(&request),
        Endpoint::ScrapePools => Ok(Some(success(|json| json.raw("{\"scrapePools\":[]}")))),
        Endpoint::Alertmanagers => Ok(Some(success(|json| {
            json.raw("{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}");
        }))),
        Endpoint::Rules => discovery::rules(&request),
        Endpoint::Alerts => Ok(Some(success(|json| json.raw("{\"alerts\":[]}")))),
        Endpoint::StatusConfig => Ok(Some(status::config(&request.state))),
        Endpoint::StatusFlags => Ok(Some(status::flags(&request.state))),
        Endpoint::StatusRuntimeinfo => Ok(Some(status::runtime(&request.state))),
        Endpoint::StatusBuildinfo => Ok(Some(status::build(&request.state))),
        Endpoint::StatusTsdb => status::tsdb(request).await,
        Endpoint::StatusWalreplay => Ok(Some(status::walreplay(&request.state))),
        Endpoint::Notifications => Ok(Some(success(|json| json.raw("[]")))),
        Endpoint::AdminDeleteSeries | Endpoint::AdminCleanTombstones | Endpoint::AdminSnapshot => {
            Err(ApiError::new(ErrorKind::Unavailable, "admin APIs disabled"))
        }
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

/// Opens a view of the data and lets `work` ask it, on a thread that may block, when its turn has come.
async fn with_querier<T: Send + 'static>(
    request: &ApiRequest,
    range: TimeRange,
    work: impl FnOnce(&dyn Querier, &Handle) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let gate: Arc<Semaphore> = Arc::clone(&request.state.gates().label_queries);
    let permit = gate.acquire_owned().await.map_err(|_| ApiError::task_died())?;
    let queryable = Arc::clone(&request.backend.queryable);
    let tenant = TenantId::default();
    let runtime = Handle::current();
    let task = spawn_blocking(move || {
        let _permit = permit;
        let querier = queryable.querier(&tenant, range)?;
        work(&*querier, &runtime)
    });
    task.await.map_err(|_| ApiError::task_died())?
}
