//! `POST /api/v1/write`: remote write 1.0; below, `otlp`, `influx`, and what they have in common, `intake`.
//!
//! Encoding and type are judged first, then the sizes, then the content. Valid samples are stored whatever the others
//! are like; if any was refused the answer is 400 with the first reasons, so that nobody sends it again. What may work
//! later is answered 503 with `Retry-After`.

pub(crate) mod influx;
pub(crate) mod otlp;

mod intake;
mod refused;

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts},
};
use chronolith_model::TenantId;
use chronolith_remote::{
    WireError,
    otlp::OtlpError,
    remote_write::{DecodeLimits, DecodedWrite, decode},
    snappy::{self, SnappyError},
};
use chronolith_storage::{AppendOutcome, LabelSource as _, StorageError};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    error::{ErrorKind, plain_error, retry_after},
    notices::{cut, peer_of},
    routes::read_body,
    state::{AppState, Backend, WRITE_MEMORY_UNIT},
};

/// Memory that a byte of a message may come to when it is decoded: an empty sample is 2 bytes there and 16 here.
const DECODED_PER_BYTE: usize = 8;

/// Decoders that lie idle between requests.
#[derive(Debug, Default)]
pub(crate) struct Decoders(Mutex<Vec<DecodedWrite>>);

impl Decoders {
    /// How many, at most.
    const IDLE_MAX: usize = 8;
    /// A decoder that keeps more bytes than this is not kept.
    const RETAINED_BYTES_MAX: usize = 4 << 20;

    fn take(&self) -> DecodedWrite {
        self.0.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, decoder: DecodedWrite) {
        let mut idle = self.0.lock();
        if decoder.retained_bytes() <= Self::RETAINED_BYTES_MAX && idle.len() < Self::IDLE_MAX {
            idle.push(decoder);
        }
    }
}

/// Why a request was not, or not wholly, taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// 415
    #[error("{0}")]
    UnsupportedMedia(String),
    /// 413, 408 or 400, from reading the body.
    #[error(transparent)]
    Body(#[from] crate::error::ApiError),
    /// 400
    #[error(transparent)]
    Snappy(#[from] SnappyError),
    /// 400
    #[error(transparent)]
    Wire(#[from] WireError),
    /// 400
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// 400: a body that cannot be decompressed, or to too much.
    #[error("{0}")]
    Compressed(String),
    /// 400: some samples were refused, the others are stored.
    #[error("{0}")]
    Partial(String),
    /// 503
    #[error("too many remote writes in flight, retry later")]
    Overloaded,
    /// 503, or 500 for what is neither the sender's fault nor temporary.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// 500: the task died, which is a bug.
    #[error("the request failed inside the server")]
    Died,
}

impl WriteError {
    fn status(&self) -> StatusCode {
        match self {
            Self::UnsupportedMedia(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(error) => error.kind.status(),
            Self::Snappy(_) | Self::Wire(_) | Self::Otlp(_) | Self::Compressed(_) | Self::Partial(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Overloaded | Self::Storage(StorageError::Unavailable { .. } | StorageError::Canceled) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Storage(StorageError::Invalid { .. }) => StatusCode::BAD_REQUEST,
            Self::Storage(_) | Self::Died => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

pub(crate) async fn handle(state: &AppState, backend: &Backend, parts: &Parts, body: Body) -> Response<Body> {
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
    let mut response = plain_error(status, &error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after());
    }
    response
}

/// The status of what failed with `error`, which is counted or logged.
fn failed(state: &AppState, parts: &Parts, error: &WriteError) -> StatusCode {
    let status = error.status();
    match (error, status) {
        (WriteError::Overloaded, _) => state.metrics().writes_overloaded.increment(),
        (_, StatusCode::SERVICE_UNAVAILABLE) => state.metrics().writes_unavailable.increment(),
        (_, StatusCode::INTERNAL_SERVER_ERROR) => {
            tracing::error!(%error, path = parts.uri.path(), "remote write failed");
        }
        _ => note_refused(state, parts, error),
    }
    status
}

/// Logs a request that was refused whole, no more often than once a minute for each kind.
fn note_refused(state: &AppState, parts: &Parts, error: &WriteError) {
    let kind = match error {
        WriteError::UnsupportedMedia(_) => "content type or encoding",
        WriteError::Body(error) => match error.kind {
            ErrorKind::TooLarge => "body too large",
            ErrorKind::TooSlow => "body too slow",
            _ => "body",
        },
        WriteError::Snappy(_) => "snappy",
        WriteError::Wire(_) => "protobuf",
        WriteError::Otlp(_) => "otlp",
        WriteError::Compressed(_) => "gzip",
        // What of a request was refused is told where that is known.
        WriteError::Partial(_) | WriteError::Overloaded | WriteError::Storage(_) | WriteError::Died => return,
    };
    let Some(requests) = state.notices().due(kind) else { return };
    let (status, reason) = (error.status().as_u16(), cut(&error.to_string()));
    tracing::warn!(
        kind,
        status,
        reason,
        path = parts.uri.path(),
        peer = peer_of(parts),
        requests,
        "remote write refused; more of this kind within a minute are not logged"
    );
}

async fn write(state: &AppState, backend: &Backend, parts: &Parts, body: Body) -> Result<(), WriteError> {
    check_encoding(&parts.headers)?;
    check_content_type(&parts.headers)?;
    let limits = state.limits();
    let declared =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let turn = turn(state, &state.gates().writes, 1).await?;
    // A body without a declared length may become as long as is allowed.
    let body_bytes = declared.unwrap_or(limits.write_body_max_bytes).min(limits.write_body_max_bytes);
    let mut memory = turn_for_bytes(state, body_bytes).await?;
    let body = read_body(body, limits.write_body_max_bytes, limits).await?;
    let length = snappy::decompressed_len(&body, limits.write_decoded_max_bytes)?;
    memory.merge(turn_for_bytes(state, length.saturating_mul(1 + DECODED_PER_BYTE)).await?);
    let (state, backend, peer) = (state.clone(), backend.clone(), peer_of(parts));
    let task = spawn_blocking(move || {
        let result = decode_and_append(&state, &backend, &body, &peer);
        // Both are held until the samples are durable, also when the sender has gone away meanwhile.
        drop((turn, memory));
        result
    });
    task.await.map_err(|_| WriteError::Died)?
}

/// Waits for a place among the writes in flight.
async fn turn(
    state: &AppState,
    gate: &Arc<Semaphore>,
    permits: u32,
) -> Result<OwnedSemaphorePermit, WriteError> {
    let acquire = Arc::clone(gate).acquire_many_owned(permits);
    match timeout(state.limits().write_queue_timeout, acquire).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(WriteError::Overloaded),
    }
}

async fn turn_for_bytes(state: &AppState, bytes: usize) -> Result<OwnedSemaphorePermit, WriteError> {
    // One request may always take half of it: body and content together then fit.
    let half = (state.limits().write_memory_max_bytes / WRITE_MEMORY_UNIT / 2).max(1);
    let permits = bytes.div_ceil(WRITE_MEMORY_UNIT).min(half);
    turn(state, &state.gates().write_memory, u32::try_from(permits).unwrap_or(u32::MAX)).await
}

/// Absent counts as snappy, as in Prometheus.
fn check_encoding(headers: &HeaderMap) -> Result<(), WriteError> {
    let encoding = shown(headers.get(header::CONTENT_ENCODING));
    if encoding.is_empty() || encoding == "snappy" {
        return Ok(());
    }
    Err(WriteError::UnsupportedMedia(format!(
        "{encoding} encoding (compression) is not accepted by this server; only snappy is acceptable"
    )))
}

const MEDIA_TYPE: &str = "application/x-protobuf";
const MESSAGE_V1: &str = "prometheus.WriteRequest";
const MESSAGE_V2: &str = "io.prometheus.write.v2.Request";

/// Absent counts as remote write 1.0. Blanks around parameters are ignored, which Prometheus does not do: it takes
/// `application/x-protobuf; proto=...v2...` for 1.0 and loses the data.
fn check_content_type(headers: &HeaderMap) -> Result<(), WriteError> {
    let content_type = shown(headers.get(header::CONTENT_TYPE));
    if content_type.is_empty() {
        return Ok(());
    }
    let refused = |text: String| Err(WriteError::UnsupportedMedia(text));
    let mut parts = content_type.split(';').map(str::trim);
    if parts.next() != Some(MEDIA_TYPE) {
        return refused(format!(
            "expected {MEDIA_TYPE} as the first (media) part, got {content_type} content-type"
        ));
    }
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else {
            return refused(format!(
                "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, got \
                 {parameter} in {content_type} content-type"
            ));
        };
        match (name.trim(), value.trim()) {
            ("proto", MESSAGE_V1) => {}
            ("proto", MESSAGE_V2) => {
                return refused(format!(
                    "{MESSAGE_V2} protobuf message is not accepted by this server; only accepts {MESSAGE_V1}"
                ));
            }
            ("proto", unknown) => {
                return refused(format!(
                    "got {content_type} content type; unknown remote write protobuf message {unknown}, supported: \
                     {MESSAGE_V1}"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A header as text; what is not text cannot match anything.
fn shown(header: Option<&HeaderValue>) -> String {
    header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

fn decode_and_append(
    state: &AppState,
    backend: &Backend,
    body: &Bytes,
    peer: &str,
) -> Result<(), WriteError> {
    let mut decoder = state.decoders().take();
    let result = append(state, backend, body, &mut decoder, peer);
    state.decoders().give_back(decoder);
    result
}

fn append(
    state: &AppState,
    backend: &Backend,
    body: &Bytes,
    decoder: &mut DecodedWrite,
    peer: &str,
) -> Result<(), WriteError> {
    let limits = state.limits();
    let metrics = state.metrics();
    metrics.write_bytes.add(body.len() as u64);
    let mut buffer = state.buffers().take();
    let message = snappy::decompress(body, limits.write_decoded_max_bytes, &mut buffer)?;
    let stores = backend.appender.stores();
    let decode_limits = DecodeLimits { stores, ..limits.decode };
    decode(message, &backend.key_hasher(), &decode_limits, decoder)?;
    let tenant = TenantId::default();
    let metadata = decoder.take_metadata();
    metrics.metadata_ignored.add(decoder.metadata_ignored());
    metrics.exemplars_ignored.add(decoder.exemplars());
    if !metadata.is_empty() {
        metrics.metadata_stored.add(metadata.len() as u64);
        backend.appender.append_metadata(&tenant, metadata);
    }
    let labels = decoder.labels(message, &decode_limits);
    let mut outcome = AppendOutcome::default();
    if !decoder.series().is_empty() {
        let batch = decoder.batch(&labels);
        let appended = backend.appender.append(&tenant, &batch)?;
        // Also when nothing was stored: what was found to be there already may still be on its way to the disk.
        appended.ticket.wait()?;
        outcome = appended.outcome;
        for rejection in &mut outcome.rejections {
            if rejection.labels.is_none() {
                rejection.labels = labels.labels(rejection.series).ok();
            }
        }
    }
    if !decoder.exemplar_samples().is_empty() {
        let labels = labels.of_exemplars();
        let taken = backend.appender.append_exemplars(&tenant, &decoder.exemplar_batch(&labels));
        metrics.exemplars_ignored.add(taken.dropped + taken.out_of_order);
    }
    metrics.samples_rejected.add(outcome.rejected);
    for series in decoder.histogram_series() {
        let known = labels.of_histograms(series).ok();
        outcome.reject(series.reason.clone(), usize::MAX, known.as_ref(), 0);
    }
    outcome.rejected += decoder.histograms();
    metrics.histograms_rejected.add(decoder.histograms());
    metrics.samples_stored.add(outcome.stored);
    metrics.samples_duplicate.add(outcome.duplicates);
    refused::note(state, &outcome, peer);
    if outcome.rejected > 0 {
        return Err(WriteError::Partial(refused::reasons(&outcome)));
    }
    Ok(())
}
