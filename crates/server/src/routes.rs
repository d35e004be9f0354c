//! The table of routes, and the way of a request through the server.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody as _},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts},
    routing::any,
};
use chronolith_storage::{BudgetExceeded, Reservation};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::{sync::OwnedSemaphorePermit, task::spawn_blocking, time::timeout};

use crate::{
    api::{self, Answer},
    compress::{COMPRESS_BYTES_MIN, COMPRESS_INLINE_BYTES_MAX, Encoding},
    error::{ApiError, ErrorKind, not_ready, plain_error},
    page,
    params::Params,
    serve::Peer,
    state::{ANSWER_MEMORY_UNIT, AppState, Backend, CorsOrigins, HttpLimits},
    write::{self, influx},
};

/// Answers below it do not count toward the memory for answers; the limit on connections bounds them.
const ANSWER_FREE_BYTES: usize = 64 * 1024;

/// Forms below it do not count toward the memory all share; the limit on connections bounds them.
const FORM_FREE_BYTES: usize = 64 * 1024;

macro_rules! endpoints {
    ($($name:ident $path:literal [$($method:ident)+],)+) => {
        /// Everything that can be asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Endpoint { $($name,)+ NotFound }

        impl Endpoint {
            /// All of them.
            pub(crate) const ALL: [Self; Self::COUNT] = [$(Self::$name,)+ Self::NotFound];
            /// How many.
            pub(crate) const COUNT: usize = Self::NotFound as usize + 1;

            /// The path, parameters in braces.
            #[must_use]
            pub(crate) const fn path(self) -> &'static str {
                match self { $(Self::$name => $path,)+ Self::NotFound => "other" }
            }

            /// The methods it answers, `OPTIONS` left out.
            fn methods(self) -> &'static [Method] {
                match self { $(Self::$name => &[$(Method::$method),+],)+ Self::NotFound => &[] }
            }
        }
    };
}

// Methods in the order of the `Allow` header.
endpoints! {
    Query "/api/v1/query" [GET POST],
    QueryRange "/api/v1/query_range" [GET POST],
    QueryExemplars "/api/v1/query_exemplars" [GET POST],
    FormatQuery "/api/v1/format_query" [GET POST],
    ParseQuery "/api/v1/parse_query" [GET POST],
    Series "/api/v1/series" [GET POST],
    Labels "/api/v1/labels" [GET POST],
    LabelValues "/api/v1/label/{name}/values" [GET],
    Metadata "/api/v1/metadata" [GET],
    Targets "/api/v1/targets" [GET],
    TargetsMetadata "/api/v1/targets/metadata" [GET],
    ScrapePools "/api/v1/scrape_pools" [GET],
    Alertmanagers "/api/v1/alertmanagers" [GET],
    Rules "/api/v1/rules" [GET],
    Alerts "/api/v1/alerts" [GET],
    StatusConfig "/api/v1/status/config" [GET],
    StatusFlags "/api/v1/status/flags" [GET],
    StatusRuntimeinfo "/api/v1/status/runtimeinfo" [GET],
    StatusBuildinfo "/api/v1/status/buildinfo" [GET],
    StatusTsdb "/api/v1/status/tsdb" [GET],
    StatusWalreplay "/api/v1/status/walreplay" [GET],
    StatusActiveQueries "/api/v1/status/active_queries" [GET],
    Notifications "/api/v1/notifications" [GET],
    AdminDeleteSeries "/api/v1/admin/tsdb/delete_series" [POST PUT],
    AdminCleanTombstones "/api/v1/admin/tsdb/clean_tombstones" [POST PUT],
    AdminSnapshot "/api/v1/admin/tsdb/snapshot" [POST PUT],
    Write "/api/v1/write" [POST],
    Otlp "/api/v1/otlp/v1/metrics" [POST],
    InfluxWrite "/write" [POST],
    InfluxWriteV2 "/api/v2/write" [POST],
    Metrics "/metrics" [GET HEAD],
    Healthy "/-/healthy" [GET HEAD],
    Ready "/-/ready" [GET HEAD],
    Reload "/-/reload" [POST PUT],
    Quit "/-/quit" [POST PUT],
    Version "/version" [GET],
    Index "/" [GET HEAD],
}

impl Endpoint {
    fn is_api(self) -> bool {
        self.path().starts_with("/api/")
    }

    /// Whether it is answered before storage is open.
    const fn answers_always(self) -> bool {
        matches!(
            self,
            Self::Healthy
                | Self::Metrics
                | Self::Index
                | Self::Version
                | Self::StatusWalreplay
                | Self::NotFound
        )
    }

    fn allow(self) -> HeaderValue {
        let mut names: Vec<&str> = self.methods().iter().map(Method::as_str).collect();
        names.push("OPTIONS");
        names.sort_unstable();
        HeaderValue::from_str(&names.join(", ")).expect("method names are valid header bytes")
    }
}

/// The whole HTTP side.
pub fn router(state: AppState) -> Router {
    let mut router = Router::new();
    for endpoint in Endpoint::ALL {
        if endpoint == Endpoint::NotFound {
            continue;
        }
        let state = state.clone();
        let handler = move |request: Request| handle(state.clone(), endpoint, request);
        router = router.route(endpoint.path(), any(handler));
    }
    router.fallback(move |request: Request| handle(state.clone(), Endpoint::NotFound, request))
}

/// What a handler of the API gets.
pub(crate) struct ApiRequest {
    pub(crate) state: AppState,
    pub(crate) backend: Backend,
    pub(crate) params: Params,
    /// The parameter in the path, decoded.
    pub(crate) path_param: Vec<u8>,
    /// Where it came from.
    pub(crate) origin: Origin,
    /// For the form and the parameters in it, if it is a large one.
    _memory: Vec<Reservation>,
}

/// Where a request came from, and what it asked for.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Nobody, where it came over no socket.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) method: Method,
    /// Of the route.
    pub(crate) path: &'static str,
}

impl Origin {
    /// The address without the port; empty if nobody knows.
    pub(crate) fn client_ip(&self) -> String {
        self.peer.map(|peer| peer.ip().to_canonical().to_string()).unwrap_or_default()
    }
}

/// Counts a request that was dropped before its answer: the client went away.
struct DisconnectGuard<'a> {
    state: &'a AppState,
    answered: bool,
}

impl Drop for DisconnectGuard<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.state.metrics().disconnects.increment();
        }
    }
}

async fn handle(state: AppState, endpoint: Endpoint, request: Request) -> Response<Body> {
    let started = Instant::now();
    let mut guard = DisconnectGuard { state: &state, answered: false };
    let response = answer(&state, endpoint, request).await;
    guard.answered = true;
    state.metrics().request(endpoint, response.status().as_u16(), started.elapsed().as_secs_f64());
    response
}

async fn answer(state: &AppState, endpoint: Endpoint, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if endpoint == Endpoint::NotFound || parts.uri.path().contains("//") {
        return not_found(parts.uri.path(), &parts.method);
    }
    if matches!(endpoint, Endpoint::Reload | Endpoint::Quit) {
        return lifecycle(endpoint, &parts.method);
    }
    if parts.method == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return if endpoint.is_api() {
            with_cors(response, state.limits(), &parts.headers)
        } else {
            response
        };
    }
    if !endpoint.methods().contains(&parts.method) {
        let mut response = plain_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        response.headers_mut().insert(header::ALLOW, endpoint.allow());
        return response;
    }
    let Some(backend) = state.backend() else {
        return if endpoint.answers_always() {
            compressed(always(state, endpoint), &parts.headers).await
        } else {
            not_ready(state.is_stopping())
        };
    };
    // Senders are no web pages: their answers carry no CORS headers, as Prometheus' do not.
    match endpoint {
        Endpoint::Write => return write::handle(state, backend, &parts, body).await,
        Endpoint::Otlp => return write::otlp::handle(state, backend, &parts, body).await,
        Endpoint::InfluxWrite => {
            return influx::handle(state, backend, influx::Version::One, &parts, body).await;
        }
        Endpoint::InfluxWriteV2 => {
            return influx::handle(state, backend, influx::Version::Two, &parts, body).await;
        }
        _ => {}
    }
    if !endpoint.is_api() {
        return compressed(always(state, endpoint), &parts.headers).await;
    }
    let response = api_answer(state, backend, endpoint, &parts, body).await;
    with_cors(response, state.limits(), &parts.headers)
}

/// The routes that need no storage.
fn always(state: &AppState, endpoint: Endpoint) -> Response<Body> {
    let text = |body: String, content_type: &'static str| {
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    };
    match endpoint {
        Endpoint::Metrics => text(state.metrics_text(), "text/plain; version=0.0.4; charset=utf-8"),
        Endpoint::Healthy => text("Prometheus Server is Healthy.\n".to_owned(), "text/plain; charset=utf-8"),
        Endpoint::Ready => text("Prometheus Server is Ready.\n".to_owned(), "text/plain; charset=utf-8"),
        Endpoint::Version => text(api::status::version(state), "text/plain; charset=utf-8"),
        Endpoint::StatusWalreplay => json_response(Bytes::from(api::status::walreplay(state))),
        _ => text(page::index(state), "text/html; charset=utf-8"),
    }
}

async fn api_answer(
    state: &AppState,
    backend: &Backend,
    endpoint: Endpoint,
    parts: &Parts,
    body: Body,
) -> Response<Body> {
    let result = async {
        let (mut form, mut memory) = (None, Vec::new());
        if has_form(parts) {
            let read = read_form(state, body).await?;
            (form, memory) = (Some(read.0), read.1);
        }
        let request = ApiRequest {
            state: state.clone(),
            backend: backend.clone(),
            params: Params::new(form.as_deref(), parts.uri.query())?,
            path_param: label_name_of(parts.uri.path()),
            origin: Origin {
                peer: parts.extensions.get::<Peer>().map(|peer| peer.0),
                method: parts.method.clone(),
                path: endpoint.path(),
            },
            _memory: memory,
        };
        drop(form);
        api::dispatch(endpoint, request).await
    };
    match result.await {
        Ok(Some(Answer { json, memory })) => match answer_turn(state, json.len()).await {
            Ok(turn) => {
                let response =
                    held(compressed(json_response(Bytes::from(json)), &parts.headers).await, turn).await;
                // Until here it stood for the answer, and then for what it is compressed to.
                drop(memory);
                response
            }
            Err(error) => error.into_response(),
        },
        Ok(None) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(error) => {
            if error.kind == ErrorKind::Internal {
                tracing::error!(path = parts.uri.path(), %error, "request failed");
            }
            error.into_response()
        }
    }
}

/// Reads a form, and the memory for it and what it is decoded to: charged as it arrives, not as it is announced. Its first
/// [`FORM_FREE_BYTES`] are free.
async fn read_form(state: &AppState, mut body: Body) -> Result<(Vec<u8>, Vec<Reservation>), ApiError> {
    let limits = state.limits();
    let max_bytes = limits.form_body_max_bytes;
    // A declared length need not be waited for.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large(max_bytes));
    }
    let (mut form, mut memory, mut charged) = (Vec::new(), Vec::new(), FORM_FREE_BYTES);
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(unreadable)?;
            let Some(data) = frame.data_ref() else { continue };
            let length = form.len() + data.len();
            if length > max_bytes {
                return Err(too_large(max_bytes));
            }
            while charged < length {
                let reserved = state.engine().options().memory.reserve(FORM_FREE_BYTES * 2);
                let refused = |error: BudgetExceeded| ApiError::new(ErrorKind::Overloaded, error.to_string());
                memory.push(reserved.map_err(refused)?);
                charged += FORM_FREE_BYTES;
            }
            form.extend_from_slice(data);
        }
        Ok(())
    };
    timeout(limits.body_read_timeout, reading).await.unwrap_or_else(|_| Err(too_slow()))?;
    Ok((form, memory))
}

fn too_large(max_bytes: usize) -> ApiError {
    let message = format!("request body too large, the limit is {max_bytes} bytes");
    ApiError::new(ErrorKind::TooLarge, message)
}

fn too_slow() -> ApiError {
    ApiError::new(ErrorKind::TooSlow, "the request body did not arrive in time")
}

fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::bad_data(format!("cannot read the request body: {error}"))
}

/// Whether the body is read for parameters. Other content types are tolerated and left alone.
fn has_form(parts: &Parts) -> bool {
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    matches!(parts.method, Method::POST | Method::PUT | Method::PATCH)
        && media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Reads a whole body of at most `max_bytes`, in at most the time the limits give.
pub(crate) async fn read_body(body: Body, max_bytes: usize, limits: &HttpLimits) -> Result<Bytes, ApiError> {
    // A declared length need not be waited for.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large(max_bytes));
    }
    match timeout(limits.body_read_timeout, Limited::new(body, max_bytes).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max_bytes)),
        Ok(Err(error)) => Err(unreadable(error)),
        Err(_) => Err(too_slow()),
    }
}

/// The `{name}` of `/api/v1/label/{name}/values`.
fn label_name_of(path: &str) -> Vec<u8> {
    let name = path.strip_prefix("/api/v1/label/").and_then(|rest| rest.strip_suffix("/values"));
    let name = name.unwrap_or_default().as_bytes();
    crate::params::percent_decode(name, false).unwrap_or_else(|_| name.to_vec())
}

pub(crate) fn json_response(body: Bytes) -> Response<Body> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, length);
    response
}

async fn compressed(response: Response<Body>, request: &HeaderMap) -> Response<Body> {
    let Some(encoding) = Encoding::accepted(request) else { return response };
    let (mut parts, body) = response.into_parts();
    // The body is whole already: this waits for nothing.
    let Ok(body) = body.collect().await.map(|collected| collected.to_bytes()) else {
        return ApiError::task_died().into_response();
    };
    if body.len() < COMPRESS_BYTES_MIN {
        return Response::from_parts(parts, Body::from(body));
    }
    let smaller = if body.len() > COMPRESS_INLINE_BYTES_MAX {
        let body = body.clone();
        spawn_blocking(move || encoding.compress(&body)).await.ok().flatten()
    } else {
        encoding.compress(&body)
    };
    let body = match smaller {
        Some(smaller) => {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
            Bytes::from(smaller)
        }
        None => body,
    };
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, Body::from(body))
}

/// Waits until memory for an answer of `bytes` is free; `None` for one too small to matter.
async fn answer_turn(state: &AppState, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    if bytes < ANSWER_FREE_BYTES {
        return Ok(None);
    }
    let limits = state.limits();
    let all = (limits.answer_memory_max_bytes / ANSWER_MEMORY_UNIT).max(1);
    let permits = u32::try_from(bytes.div_ceil(ANSWER_MEMORY_UNIT).min(all)).unwrap_or(u32::MAX);
    let acquire = Arc::clone(&state.gates().answer_memory).acquire_many_owned(permits);
    match timeout(limits.answer_queue_timeout, acquire).await {
        Ok(Ok(turn)) => Ok(Some(turn)),
        _ => {
            state.metrics().answers_overloaded.increment();
            let message = "too many large answers are being sent, retry later";
            Err(ApiError::new(ErrorKind::Overloaded, message))
        }
    }
}

/// A body and its share of the memory for answers, until the last of it was sent.
struct HeldBody {
    bytes: Bytes,
    _turn: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Binds `turn` to the body of `response`; what compression has saved is given back at once.
async fn held(response: Response<Body>, turn: Option<OwnedSemaphorePermit>) -> Response<Body> {
    let Some(mut turn) = turn else { return response };
    let (parts, body) = response.into_parts();
    // The body is whole already: this waits for nothing.
    let Ok(bytes) = body.collect().await.map(|collected| collected.to_bytes()) else {
        return ApiError::task_died().into_response();
    };
    drop(turn.split(turn.num_permits().saturating_sub(bytes.len().div_ceil(ANSWER_MEMORY_UNIT))));
    Response::from_parts(parts, Body::from(Bytes::from_owner(HeldBody { bytes, _turn: turn })))
}

/// As Prometheus' CORS headers: allowed origins are echoed.
fn with_cors(mut response: Response<Body>, limits: &HttpLimits, request: &HeaderMap) -> Response<Body> {
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = request.get(header::ORIGIN) else { return response };
    let allowed = match &limits.cors {
        CorsOrigins::Any => true,
        CorsOrigins::List(origins) => origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()),
    };
    if allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

/// `/-/reload` and `/-/quit`, which are off.
fn lifecycle(endpoint: Endpoint, method: &Method) -> Response<Body> {
    let (status, text) = if endpoint.methods().contains(method) {
        (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.")
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed")
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// 404; or the way to the path without doubled slashes, or to a route without the slash at the end.
fn not_found(path: &str, method: &Method) -> Response<Body> {
    let clean = clean_path(path);
    let slash_behind_route =
        clean != path && Endpoint::ALL.iter().any(|endpoint| matches_path(endpoint.path(), &clean));
    if !path.contains("//") && !slash_behind_route {
        return plain_error(StatusCode::NOT_FOUND, "404 page not found");
    }
    let get = *method == Method::GET;
    let status = if get { StatusCode::MOVED_PERMANENTLY } else { StatusCode::PERMANENT_REDIRECT };
    let shown = clean.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let shown = shown.replace('"', "&#34;").replace('\'', "&#39;");
    let text = if get { format!("<a href=\"{shown}\">Moved Permanently</a>.\n\n") } else { String::new() };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(location) = HeaderValue::from_str(&clean) {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// `path` without empty parts; it starts with one slash.
fn clean_path(path: &str) -> String {
    let mut clean = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        clean.push('/');
        clean.push_str(part);
    }
    if clean.is_empty() {
        clean.push('/');
    }
    clean
}

/// Whether `path` is one of the route `pattern`.
fn matches_path(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let all = pattern
        .split('/')
        .all(|wanted| parts.next().is_some_and(|part| part == wanted || wanted.starts_with('{')));
    all && parts.next().is_none()
}
