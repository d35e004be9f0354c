//! `POST /write` and `POST /api/v2/write`: Influx line protocol, as Telegraf sends it.
//!
//! Lines that cannot be read and samples that are refused keep no other from being stored; the answer is 400 then, with the
//! first reasons, so that nobody sends it again.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
};
use chronolith_model::Sample;
use chronolith_remote::influx::{InfluxOptions, InfluxSamples, Precision, decode};
use chronolith_storage::SeriesEntry;
use tokio::task::spawn_blocking;

use super::{
    WriteError, failed,
    intake::{Incoming, store},
    refused,
};
use crate::{
    error::{ApiError, retry_after},
    json::JsonWriter,
    notices::{cut, peer_of},
    params::Params,
    state::{AppState, Backend},
};

/// The label that the parameter `db` becomes.
const DB: &str = "db";
/// Memory of a sample with its entry, in vectors that have room for as many again.
const SAMPLE_BYTES: usize = 2 * (size_of::<Sample>() + size_of::<SeriesEntry>() + 4 * size_of::<usize>());

/// Which version of the API is asked: they tell errors differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// `/write`
    One,
    /// `/api/v2/write`
    Two,
}

pub(crate) async fn handle(
    state: &AppState,
    backend: &Backend,
    version: Version,
    parts: &Parts,
    body: Body,
) -> Response<Body> {
    let _in_flight = state.metrics().writes_in_flight.hold();
    let error = match write(state, backend, parts, body).await {
        Ok(()) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return response;
        }
        Err(error) => error,
    };
    let status = failed(state, parts, &error);
    let mut json = JsonWriter::default();
    match version {
        Version::One => json.raw("{\"error\":"),
        Version::Two => {
            json.raw("{\"code\":\"");
            json.raw(code(status));
            json.raw("\",\"message\":");
        }
    }
    json.string_html_escaped(&error.to_string());
    json.raw("}");
    let mut response = Response::new(Body::from(json.finish()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, retry_after());
    }
    response
}

/// What version 2 of the API calls a status.
fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::INTERNAL_SERVER_ERROR => "internal error",
        StatusCode::PAYLOAD_TOO_LARGE => "request too large",
        _ => "invalid",
    }
}

/// What the parameters of the URL say.
fn options(state: &AppState, parts: &Parts) -> Result<InfluxOptions, ApiError> {
    let params = Params::new(None, parts.uri.query())?;
    let name = params.get("precision");
    let precision = Precision::from_name(name).ok_or_else(|| {
        ApiError::bad_data(format!("invalid precision {name:?} (use n, ns, u, us, ms, s, m or h)"))
    })?;
    let db = params.get(DB);
    let labels = if db.is_empty() { Vec::new() } else { vec![(DB.to_owned(), db.to_owned())] };
    Ok(InfluxOptions { precision, now: state.info().now_ms(), labels })
}

async fn write(state: &AppState, backend: &Backend, parts: &Parts, body: Body) -> Result<(), WriteError> {
    let options = options(state, parts)?;
    let incoming = Incoming::receive(state, parts, body).await?;
    state.metrics().influx.bytes.add(incoming.sent_bytes() as u64);
    let (state, backend, peer) = (state.clone(), backend.clone(), peer_of(parts));
    let task = spawn_blocking(move || append(&state, &backend, &options, incoming, &peer));
    task.await.map_err(|_| WriteError::Died)?
}

fn append(
    state: &AppState,
    backend: &Backend,
    options: &InfluxOptions,
    mut incoming: Incoming,
    peer: &str,
) -> Result<(), WriteError> {
    let metrics = &state.metrics().influx;
    let body = incoming.content()?;
    // Each sample has a sign of equality of its own.
    let samples_max = body.iter().filter(|byte| **byte == b'=').count();
    let bytes = samples_max.saturating_mul(SAMPLE_BYTES);
    if bytes > incoming.bytes_max() {
        let most = incoming.bytes_max() / SAMPLE_BYTES;
        return Err(ApiError::bad_data(format!(
            "too many fields and tags in one request, the limit is {most}"
        ))
        .into());
    }
    incoming.take(bytes)?;
    let samples = decode(&body, &backend.key_hasher(), options)
        .map_err(|error| ApiError::bad_data(error.to_string()))?;
    let outcome = store(state, backend, &samples.batch(), metrics, peer)?;
    metrics.unreadable.add(samples.refused());
    if samples.refused() == 0 && outcome.rejected == 0 {
        return Ok(());
    }
    let mut reasons = unreadable(&samples);
    if let Some(first) = reasons.first()
        && let Some(requests) = state.notices().due("influx line")
    {
        let (reason, lines) = (cut(first), samples.refused());
        tracing::warn!(
            lines,
            reason,
            peer,
            requests,
            "lines refused; more of this kind within a minute are not logged"
        );
    }
    if outcome.rejected > 0 {
        reasons.push(refused::reasons(&outcome));
    }
    let dropped = samples.refused() + outcome.rejected;
    Err(WriteError::Partial(format!("partial write: {} dropped={dropped}", reasons.join("\n"))))
}

/// Why lines could not be read, the first of them.
fn unreadable(samples: &InfluxSamples<'_>) -> Vec<String> {
    let told = |refusal: &chronolith_remote::influx::LineRefusal| {
        format!("unable to parse line {}: {}: {:?}", refusal.line, refusal.fault, refusal.text)
    };
    samples.refusals().iter().map(told).collect()
}
