//! Errors to statuses and texts; the only place that knows which goes with which.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use chronolith_promql::QueryError;
use chronolith_storage::{StorageError, append::RETRY_AFTER};
use chronolith_syntax::ParseError;

use crate::json::JsonWriter;

/// The kinds of error an API answer can have: its `errorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong: 400.
    BadData,
    /// Evaluation failed: 422.
    Execution,
    /// The client went away: 499.
    Canceled,
    /// Out of time: 503.
    Timeout,
    /// Storage or the server failed: 500.
    Internal,
    /// Not now; the client should retry: 503 with `Retry-After`.
    Overloaded,
    /// Turned off: 500, as Prometheus answers.
    Unavailable,
    /// A body above the limit: 413.
    TooLarge,
    /// A body that did not arrive in time: 408, after which the connection is closed.
    TooSlow,
}

impl ErrorKind {
    /// The `errorType` of the answer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadData | Self::TooLarge | Self::TooSlow => "bad_data",
            Self::Execution => "execution",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::Overloaded | Self::Unavailable => "unavailable",
        }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Canceled => StatusCode::from_u16(499).expect("499 is a valid status code"),
            Self::Timeout | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

/// Why a request of the API failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Its kind.
    pub kind: ErrorKind,
    /// The text of the answer.
    pub message: String,
    /// What is told beside it, as JSON.
    pub(crate) data: Option<Box<[u8]>>,
}

impl ApiError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), data: None }
    }

    pub(crate) fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadData, message)
    }

    /// `invalid parameter "name": cause`
    pub(crate) fn parameter(name: &str, cause: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {name:?}: {cause}"))
    }

    /// A task of the server died: a bug, logged where it happened.
    pub(crate) fn task_died() -> Self {
        Self::new(ErrorKind::Internal, "the request failed inside the server")
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response<Body> {
        let data = self.data.as_deref();
        let mut json = JsonWriter::with_capacity(self.message.len() + data.map_or(0, <[u8]>::len) + 64);
        json.raw("{\"status\":\"error\"");
        if let Some(data) = data {
            json.raw(",\"data\":");
            json.json(data);
        }
        json.raw(",\"errorType\":\"");
        json.raw(self.kind.as_str());
        json.raw("\",\"error\":");
        json.string_html_escaped(&self.message);
        json.raw("}");
        let mut response = Response::new(Body::from(json.finish()));
        *response.status_mut() = self.kind.status();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.kind == ErrorKind::Overloaded {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after());
        }
        response
    }
}

/// The value of `Retry-After`, in seconds.
pub(crate) const RETRY_AFTER_SECONDS: u64 = RETRY_AFTER.as_secs();

/// The value of `Retry-After`.
pub(crate) fn retry_after() -> HeaderValue {
    HeaderValue::from(RETRY_AFTER_SECONDS)
}

/// A query's parse and parameter errors are about the parameter `query`.
impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match &error {
            QueryError::Parse(_) | QueryError::BadData(_) => Self::parameter("query", error),
            QueryError::Execution(_) => Self::new(ErrorKind::Execution, error.to_string()),
            QueryError::Timeout(_) => Self::new(ErrorKind::Timeout, error.to_string()),
            QueryError::Canceled(_) => Self::new(ErrorKind::Canceled, error.to_string()),
            QueryError::Overloaded(_) => Self::new(ErrorKind::Overloaded, error.to_string()),
            QueryError::Storage(storage) => Self::from(storage.clone()),
            _ => Self::new(ErrorKind::Internal, error.to_string()),
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        let kind = match &error {
            StorageError::Unavailable { .. } => ErrorKind::Overloaded,
            StorageError::Invalid { .. } => ErrorKind::BadData,
            StorageError::Canceled => ErrorKind::Canceled,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

/// A parse error outside the parameter `query` stands alone.
impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        Self::bad_data(error.to_string())
    }
}

/// An answer in plain text, as Go's `http.Error` makes it: a line feed at the end, no sniffing.
pub(crate) fn plain_error(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{message}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer of every route that needs storage before storage is open, and after shutdown has begun.
pub(crate) fn not_ready(stopping: bool) -> Response<Body> {
    let mut response = Response::new(Body::from("Service Unavailable"));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let stopping = HeaderValue::from_static(if stopping { "true" } else { "false" });
    headers.insert("x-prometheus-stopping", stopping);
    headers.insert(header::RETRY_AFTER, retry_after());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_prometheus_status() {
        for (kind, status, text) in [
            (ErrorKind::BadData, 400, "bad_data"),
            (ErrorKind::Execution, 422, "execution"),
            (ErrorKind::Canceled, 499, "canceled"),
            (ErrorKind::Timeout, 503, "timeout"),
            (ErrorKind::Internal, 500, "internal"),
            (ErrorKind::Overloaded, 503, "unavailable"),
            (ErrorKind::Unavailable, 500, "unavailable"),
            (ErrorKind::TooLarge, 413, "bad_data"),
            (ErrorKind::TooSlow, 408, "bad_data"),
        ] {
            assert_eq!((kind.status().as_u16(), kind.as_str()), (status, text));
        }
    }

    #[test]
    fn overload_asks_for_a_retry() {
        let reason = "memory budget".to_owned();
        let response = ApiError::from(StorageError::Unavailable { reason }).into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
    }
}
