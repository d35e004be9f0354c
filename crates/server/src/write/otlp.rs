//! `POST /api/v1/otlp/v1/metrics`: OTLP metrics over HTTP, protobuf or JSON.
//!
//! Answers are OTLP's: what is refused of a request whose rest is stored is told as a partial success, and nobody sends it
//! again; errors are a `Status` in the encoding of the request, those that may pass have `Retry-After`.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts},
};
use chronolith_model::TenantId;
use chronolith_remote::otlp::{
    OtlpOptions, decode_json, decode_protobuf, encode_partial_success, encode_status,
};
use tokio::task::spawn_blocking;

use super::{
    WriteError, failed,
    intake::{Incoming, store, store_exemplars},
    refused, shown,
};
use crate::{
    error::{plain_error, retry_after},
    json::JsonWriter,
    notices::{cut, peer_of},
    state::{AppState, Backend},
};

/// Memory that a byte of a request is expected to come to, half of it for its data points and half for samples and labels:
/// the smallest attribute that has a name and a value is 10 bytes there and 350 here.
const MEMORY_PER_BYTE: usize = 128;
/// What the smallest request may take: two points some weeks apart have `target_info` every few minutes between them.
const MEMORY_BYTES_MIN: usize = 8 << 20;

/// How a request is encoded, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// Parameters of the type are passed over.
    fn of(headers: &HeaderMap) -> Result<Self, WriteError> {
        let content_type = shown(headers.get(header::CONTENT_TYPE));
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        [Self::Protobuf, Self::Json]
            .into_iter()
            .find(|encoding| media_type.eq_ignore_ascii_case(encoding.media_type()))
            .ok_or_else(|| {
                WriteError::UnsupportedMedia(format!(
                    "unsupported content type: {content_type}, supported: [application/json, \
                     application/x-protobuf]"
                ))
            })
    }
}

/// What of a request was refused.
#[derive(Debug, Default)]
struct Partial {
    refused: u64,
    reasons: String,
}

pub(crate) async fn handle(state: &AppState, backend: &Backend, parts: &Parts, body: Body) -> Response<Body> {
    let Some(options) = &state.limits().otlp else {
        return plain_error(StatusCode::NOT_FOUND, "otlp write receiver is turned off (otlp.enabled)");
    };
    let _in_flight = state.metrics().writes_in_flight.hold();
    let encoding = match Encoding::of(&parts.headers) {
        Ok(encoding) => encoding,
        Err(error) => return plain_error(failed(state, parts, &error), &error.to_string()),
    };
    let error = match write(state, backend, options, encoding, parts, body).await {
        Ok(partial) => return success(encoding, &partial),
        Err(error) => error,
    };
    let status = failed(state, parts, &error);
    let body = match encoding {
        Encoding::Protobuf => encode_status(code(status), &error.to_string()),
        Encoding::Json => {
            let mut json = JsonWriter::default();
            json.raw("{\"code\":");
            json.integer(code(status));
            json.raw(",\"message\":");
            json.string_html_escaped(&error.to_string());
            json.raw("}");
            json.finish()
        }
    };
    let mut response = response(status, encoding, body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after());
    }
    response
}

/// The code of gRPC that goes with a status.
fn code(status: StatusCode) -> u32 {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => 14,
        StatusCode::INTERNAL_SERVER_ERROR => 13,
        StatusCode::PAYLOAD_TOO_LARGE => 8,
        StatusCode::REQUEST_TIMEOUT => 4,
        _ => 3,
    }
}

fn response(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(encoding.media_type());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// An `ExportMetricsServiceResponse`.
fn success(encoding: Encoding, partial: &Partial) -> Response<Body> {
    let body = match (encoding, partial.refused) {
        (Encoding::Protobuf, 0) => Vec::new(),
        (Encoding::Protobuf, refused) => encode_partial_success(refused, &partial.reasons),
        (Encoding::Json, 0) => b"{}".to_vec(),
        (Encoding::Json, refused) => {
            let mut json = JsonWriter::default();
            // Numbers of 64 bits are texts in the JSON of protobuf.
            json.raw("{\"partialSuccess\":{\"rejectedDataPoints\":\"");
            json.integer(refused);
            json.raw("\",\"errorMessage\":");
            json.string_html_escaped(&partial.reasons);
            json.raw("}}");
            json.finish()
        }
    };
    response(StatusCode::OK, encoding, body)
}

async fn write(
    state: &AppState,
    backend: &Backend,
    options: &OtlpOptions,
    encoding: Encoding,
    parts: &Parts,
    body: Body,
) -> Result<Partial, WriteError> {
    let incoming = Incoming::receive(state, parts, body).await?;
    state.metrics().otlp.bytes.add(incoming.sent_bytes() as u64);
    let (state, backend, options, peer) = (state.clone(), backend.clone(), options.clone(), peer_of(parts));
    let task = spawn_blocking(move || append(&state, &backend, options, encoding, incoming, &peer));
    task.await.map_err(|_| WriteError::Died)?
}

fn append(
    state: &AppState,
    backend: &Backend,
    mut options: OtlpOptions,
    encoding: Encoding,
    mut incoming: Incoming,
    peer: &str,
) -> Result<Partial, WriteError> {
    let metrics = &state.metrics().otlp;
    let body = incoming.content()?;
    let bytes = body.len().saturating_mul(MEMORY_PER_BYTE).saturating_add(MEMORY_BYTES_MIN);
    let bytes = bytes.min(incoming.bytes_max());
    let taken = incoming.take(bytes)?;
    options.memory_bytes_max = bytes / 2;
    let decode = match encoding {
        Encoding::Protobuf => decode_protobuf,
        Encoding::Json => decode_json,
    };
    let samples = decode(&body, &backend.key_hasher(), &options)?;
    drop(body);
    // The data points are gone; samples and labels stay until they are durable.
    incoming.give_back(taken / 2);
    if !samples.metadata().is_empty() {
        backend.appender.append_metadata(&TenantId::default(), samples.metadata().to_vec());
    }
    let outcome = store(state, backend, &samples.batch(), metrics, peer)?;
    store_exemplars(backend, &samples.exemplar_batch(&samples.exemplar_labels()), metrics);
    metrics.unreadable.add(samples.refused());
    note_unreadable(state, samples.refused(), samples.refusals(), peer);
    let mut reasons = samples.refusals().join("\n");
    if outcome.rejected > 0 {
        if !reasons.is_empty() {
            reasons.push('\n');
        }
        reasons.push_str(&refused::reasons(&outcome));
    }
    Ok(Partial { refused: samples.refused() + outcome.rejected, reasons })
}

/// Logs what could not become samples, no more often than once a minute.
fn note_unreadable(state: &AppState, count: u64, refusals: &[String], peer: &str) {
    let Some(first) = refusals.first() else { return };
    let Some(requests) = state.notices().due("otlp data points") else { return };
    let reason = cut(first);
    tracing::warn!(
        count,
        reason,
        peer,
        requests,
        "OTLP data points refused; more of this kind within a minute are not logged"
    );
}
