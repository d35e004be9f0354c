//! What every handler shares, and whether the server answers yet.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chronolith_promql::Engine;
use chronolith_remote::{otlp::OtlpOptions, pool::BufferPool, remote_write::DecodeLimits};
use chronolith_storage::{Admin, Appender, KeyHasher, Queryable};
use tokio::sync::Semaphore;

use crate::{
    active::ActiveQueries, info::ServerInfo, metrics::HttpMetrics, notices::Notices, query_log::QueryLog,
    write::Decoders,
};

/// Storage, once it is open.
#[derive(Clone)]
pub struct Backend {
    /// Takes samples.
    pub appender: Arc<dyn Appender>,
    /// Answers queries.
    pub queryable: Arc<dyn Queryable>,
    /// Deletes and copies; `None` where the admin API is turned off.
    pub admin: Option<Arc<dyn Admin>>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

/// Which web pages of other origins may read answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    /// All of them, as Prometheus does by default: the origin is echoed.
    #[default]
    Any,
    /// These, compared exactly (`https://grafana.example.org`).
    List(Vec<String>),
}

/// Limits of the HTTP side. Every one has a default that suits a laptop.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Connections open at once. For one more, the one that has waited for a request for longest is closed; when all
    /// answer requests for a second, it gets 503.
    pub connections_max: usize,
    /// Longest wait for the header of the next request, idle time of a kept-alive connection included.
    pub header_read_timeout: Duration,
    /// Longest wait for a request's body.
    pub body_read_timeout: Duration,
    /// Longest wait for a client to take the next bytes of its answer; then the connection is closed.
    pub send_timeout: Duration,
    /// Longest wait for running requests after a shutdown was asked for.
    pub drain_timeout: Duration,
    /// Largest form body, in bytes.
    pub form_body_max_bytes: usize,
    /// Largest compressed body of a remote write, in bytes; above it the answer is 413.
    pub write_body_max_bytes: usize,
    /// Largest decompressed body of a remote write, in bytes; above it the answer is 400.
    pub write_decoded_max_bytes: usize,
    /// Remote writes handled at once.
    pub writes_in_flight_max: usize,
    /// Bytes that bodies of remote writes, compressed and not, may hold at once.
    pub write_memory_max_bytes: usize,
    /// Longest wait of a remote write for its turn; then 503 with `Retry-After`.
    pub write_queue_timeout: Duration,
    /// Queries for labels, series and metadata, and requests that only parse, at once; others wait as long as a query
    /// may take.
    pub label_queries_in_flight_max: usize,
    /// Bytes that answers which are being sent may hold at once; a larger one has all of it for itself.
    pub answer_memory_max_bytes: usize,
    /// Longest wait of an answer for that memory; then 503 with `Retry-After`.
    pub answer_queue_timeout: Duration,
    /// Most `match[]` parameters of one request.
    pub matcher_sets_max: usize,
    /// Limits on what a remote write holds.
    pub decode: DecodeLimits,
    /// How OTLP becomes samples; `None` = its route is turned off. Sizes and labels are limited as those of remote write.
    pub otlp: Option<OtlpOptions>,
    /// Who may read answers from a web page of another origin.
    pub cors: CorsOrigins,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            header_read_timeout: Duration::from_secs(120),
            body_read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            form_body_max_bytes: 10 << 20,
            write_body_max_bytes: 16 << 20,
            write_decoded_max_bytes: 32 << 20,
            writes_in_flight_max: 64,
            write_memory_max_bytes: 256 << 20,
            write_queue_timeout: Duration::from_secs(5),
            label_queries_in_flight_max: 20,
            answer_memory_max_bytes: 512 << 20,
            answer_queue_timeout: Duration::from_secs(10),
            matcher_sets_max: 1024,
            decode: DecodeLimits::default(),
            otlp: Some(OtlpOptions::default()),
            cors: CorsOrigins::Any,
        }
    }
}

/// Shared by all handlers; clones share everything.
///
/// It starts not ready: but for `/metrics`, `/-/healthy` and the page at `/`, every route answers 503 until
/// [`AppState::set_ready`].
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    backend: OnceLock<Backend>,
    stopping: AtomicBool,
    engine: Arc<Engine>,
    info: Arc<dyn ServerInfo>,
    limits: HttpLimits,
    metrics: HttpMetrics,
    gates: Gates,
    buffers: BufferPool,
    decoders: Decoders,
    notices: Notices,
    query_log: OnceLock<QueryLog>,
    active: ActiveQueries,
}

/// How much of each kind may go on at once.
pub(crate) struct Gates {
    pub(crate) writes: Arc<Semaphore>,
    /// In units of [`WRITE_MEMORY_UNIT`] bytes.
    pub(crate) write_memory: Arc<Semaphore>,
    pub(crate) queries: Arc<Semaphore>,
    pub(crate) label_queries: Arc<Semaphore>,
    /// In units of [`ANSWER_MEMORY_UNIT`] bytes.
    pub(crate) answer_memory: Arc<Semaphore>,
    /// Requests of the admin API at work.
    pub(crate) admin: Arc<Semaphore>,
}

/// Requests of the admin API at work at once; others wait. Storage does one after the other anyway.
const ADMIN_IN_FLIGHT_MAX: usize = 2;

/// Bytes per permit of the write memory gate.
pub(crate) const WRITE_MEMORY_UNIT: usize = 1024;
/// Bytes per permit of the answer memory gate.
pub(crate) const ANSWER_MEMORY_UNIT: usize = 1024;

impl AppState {
    /// A server that is not ready yet.
    #[must_use]
    pub fn new(engine: Arc<Engine>, limits: HttpLimits, info: Arc<dyn ServerInfo>) -> Self {
        let gate = |permits: usize| Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)));
        let gates = Gates {
            writes: gate(limits.writes_in_flight_max),
            write_memory: gate(limits.write_memory_max_bytes / WRITE_MEMORY_UNIT),
            queries: gate(engine.options().concurrency_max),
            label_queries: gate(limits.label_queries_in_flight_max),
            answer_memory: gate(limits.answer_memory_max_bytes / ANSWER_MEMORY_UNIT),
            admin: gate(ADMIN_IN_FLIGHT_MAX),
        };
        // One buffer per core keeps the memory that is in use between requests small.
        let buffers = BufferPool::new(
            std::thread::available_parallelism().map_or(2, usize::from),
            limits.write_decoded_max_bytes.min(4 << 20),
        );
        Self(Arc::new(Shared {
            backend: OnceLock::new(),
            stopping: AtomicBool::new(false),
            engine,
            info,
            limits,
            metrics: HttpMetrics::default(),
            gates,
            buffers,
            decoders: Decoders::default(),
            notices: Notices::default(),
            query_log: OnceLock::new(),
            active: ActiveQueries::default(),
        }))
    }

    /// Storage is open: from now on requests are answered. Only the first call counts.
    pub fn set_ready(&self, backend: Backend) {
        let _ = self.0.backend.set(backend);
    }

    /// Queries are logged there from now on. Only the first call counts.
    pub fn set_query_log(&self, log: QueryLog) {
        let _ = self.0.query_log.set(log);
    }

    /// Where queries are logged, if they are.
    #[must_use]
    pub fn query_log(&self) -> Option<&QueryLog> {
        self.0.query_log.get()
    }

    /// Keeps the queries that run in the file `path` as well, so that it is known after a crash which they were. Once that
    /// has succeeded, further calls do nothing and return nothing. Returns entries of a process that has not come to its end,
    /// JSON each, a bounded number of them; and how many there are.
    ///
    /// # Errors
    /// When the file cannot be opened, or the thread that writes it not be started.
    pub fn keep_active_queries(&self, path: &Path) -> io::Result<(Vec<String>, usize)> {
        self.0.active.keep_in(path)
    }

    /// Empties that file: the process comes to its end. Waits for that, at most for `patience`; whether it is done. Blocks.
    #[must_use]
    pub fn end_active_queries(&self, patience: Duration) -> bool {
        self.0.active.end(patience)
    }

    /// Shutdown has begun: `/-/ready` and new requests answer 503 from now on, running ones finish.
    pub fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// Whether [`AppState::set_stopping`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// Whether requests are answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.backend().is_some()
    }

    /// The HTTP side's own counters.
    #[must_use]
    pub fn metrics(&self) -> &HttpMetrics {
        &self.0.metrics
    }

    /// Its limits.
    #[must_use]
    pub fn limits(&self) -> &HttpLimits {
        &self.0.limits
    }

    /// The whole text of `/metrics`, for a self-scrape without a round trip.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        crate::metrics::exposition(self)
    }

    pub(crate) fn backend(&self) -> Option<&Backend> {
        if self.is_stopping() { None } else { self.0.backend.get() }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    pub(crate) fn info(&self) -> &dyn ServerInfo {
        &*self.0.info
    }

    pub(crate) fn gates(&self) -> &Gates {
        &self.0.gates
    }

    pub(crate) fn decoders(&self) -> &Decoders {
        &self.0.decoders
    }

    pub(crate) fn active(&self) -> &ActiveQueries {
        &self.0.active
    }

    pub(crate) fn notices(&self) -> &Notices {
        &self.0.notices
    }

    pub(crate) fn buffers(&self) -> &BufferPool {
        &self.0.buffers
    }
}

impl Backend {
    pub(crate) fn key_hasher(&self) -> KeyHasher {
        self.appender.key_hasher()
    }
}

impl fmt::Debug for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppState")
            .field("ready", &self.is_ready())
            .field("stopping", &self.is_stopping())
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}
