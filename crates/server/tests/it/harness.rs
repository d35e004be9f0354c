//! A server over storage in memory, and requests to it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use chronolith_model::{Labels, MetricMetadata, Sample, TenantId, TimeRange, Timestamp};
use chronolith_promql::{Engine, EngineOptions};
use chronolith_remote::{exposition::ExpositionWriter, remote_write::WriteRequestBuilder};
use chronolith_server::{
    AppState, Backend, BuildInfo, HttpLimits, IngestSummary, RuntimeInfo, ServerInfo, router,
};
use chronolith_storage::{
    AppendedBatch, Appender, ExemplarBatch, ExemplarOutcome, KeyHasher, LabelSource, Querier, Queryable,
    RejectReason, SampleAt, StorageError, Stores, Ticket, WriteBatch, memory::MemoryStorage,
};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

/// The clock of the server under test.
pub(crate) const NOW: Timestamp = 1_795_221_262_000;

pub(crate) struct TestInfo;

impl ServerInfo for TestInfo {
    fn build(&self) -> BuildInfo {
        BuildInfo {
            version: "3.5.3".to_owned(),
            compiler: "rustc".to_owned(),
            chronolith_version: "0.1.0".to_owned(),
            ..BuildInfo::default()
        }
    }

    fn runtime(&self) -> RuntimeInfo {
        RuntimeInfo {
            start_time_ms: NOW - 1500,
            working_directory: "/srv".to_owned(),
            hostname: "host".to_owned(),
            config_ok: true,
            config_time_ms: NOW - 1500,
            corruption_count: 0,
            thread_count: 4,
            cores: 2,
            memory_max_bytes: 1 << 30,
            storage_retention: "15d".to_owned(),
        }
    }

    fn flags(&self) -> Vec<(String, String)> {
        vec![("listen".to_owned(), "127.0.0.1:9077".to_owned()), ("data-dir".to_owned(), "./data".to_owned())]
    }

    fn config_yaml(&self) -> String {
        "retention: 15d\n".to_owned()
    }

    fn write_metrics(&self, out: &mut ExpositionWriter<'_>) {
        out.gauge("chronolith_test_gauge", "From the binary.", 1.0);
    }

    fn ingest(&self) -> IngestSummary {
        IngestSummary { samples_stored: 42, series: 7 }
    }

    fn now_ms(&self) -> Timestamp {
        NOW
    }
}

/// Storage in memory that also refuses what is too far from now, and fails when told to.
#[derive(Default)]
pub(crate) struct TestStorage {
    pub(crate) memory: MemoryStorage,
    /// `append` fails.
    pub(crate) fail_append: AtomicBool,
    /// Tickets fail.
    pub(crate) fail_commit: AtomicBool,
    /// Queries fail.
    pub(crate) fail_query: AtomicBool,
    /// Histograms and exemplars are stored.
    pub(crate) stores_all: AtomicBool,
    /// Tickets waited for.
    pub(crate) waits: Arc<AtomicU64>,
}

struct TestTicket {
    inner: Box<dyn Ticket>,
    fail: bool,
    waits: Arc<AtomicU64>,
}

impl Ticket for TestTicket {
    fn wait(self: Box<Self>) -> Result<(), StorageError> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        if self.fail {
            let reason = "write-ahead log: No space left on device".to_owned();
            return Err(StorageError::Unavailable { reason });
        }
        self.inner.wait()
    }

    fn is_done(&self) -> bool {
        true
    }
}

/// Labels of the entries that are left.
struct Kept<'a>(&'a dyn LabelSource, Vec<usize>);

impl LabelSource for Kept<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        self.0.labels(self.1[series])
    }
}

impl Appender for TestStorage {
    fn key_hasher(&self) -> KeyHasher {
        self.memory.key_hasher()
    }

    fn stores(&self) -> Stores {
        if self.stores_all.load(Ordering::Relaxed) { self.memory.stores() } else { Stores::default() }
    }

    fn append_exemplars(&self, tenant: &TenantId, batch: &ExemplarBatch<'_>) -> ExemplarOutcome {
        self.memory.append_exemplars(tenant, batch)
    }

    fn append(&self, tenant: &TenantId, batch: &WriteBatch<'_>) -> Result<AppendedBatch, StorageError> {
        if self.fail_append.load(Ordering::Relaxed) {
            return Err(StorageError::Unavailable { reason: "memory budget reached".to_owned() });
        }
        let (mut series, mut kept, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (index, entry) in batch.series.iter().enumerate() {
            let histogram = || SampleAt::histogram(batch.histograms_of(entry)[0].timestamp);
            let float = batch.samples_of(entry).first().map(|sample| SampleAt::float(sample.timestamp));
            let sample = float.unwrap_or_else(histogram);
            let SampleAt { timestamp, .. } = sample;
            if timestamp > NOW + 600_000 {
                refused.push((index, RejectReason::TooFarInFuture, sample));
            } else if timestamp < NOW - 15 * 86_400_000 {
                refused.push((index, RejectReason::OutOfBounds, sample));
            } else {
                series.push(entry.clone());
                kept.push(index);
            }
        }
        let labels = Kept(batch.labels, kept);
        let batch = WriteBatch { series: &series, labels: &labels, ..*batch };
        let mut appended = self.memory.append(tenant, &batch)?;
        for rejection in &mut appended.outcome.rejections {
            rejection.series = labels.1[rejection.series];
        }
        for (index, reason, sample) in refused {
            appended.outcome.reject_sample(reason, index, None, sample);
        }
        let (fail, waits) = (self.fail_commit.load(Ordering::Relaxed), Arc::clone(&self.waits));
        let ticket = Box::new(TestTicket { inner: appended.ticket, fail, waits });
        Ok(AppendedBatch { outcome: appended.outcome, ticket })
    }

    fn append_metadata(&self, tenant: &TenantId, metadata: Vec<MetricMetadata>) {
        self.memory.append_metadata(tenant, metadata);
    }
}

impl Queryable for TestStorage {
    fn querier(&self, tenant: &TenantId, range: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        if self.fail_query.load(Ordering::Relaxed) {
            return Err(StorageError::Unavailable { reason: "closing".to_owned() });
        }
        self.memory.querier(tenant, range)
    }
}

/// A server under test.
pub(crate) struct Server {
    pub(crate) state: AppState,
    pub(crate) storage: Arc<TestStorage>,
    pub(crate) router: Router,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// All values of a header, joined.
    pub(crate) fn headers(&self, name: &str) -> String {
        let values: Vec<_> =
            self.headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect();
        values.join(", ")
    }
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::with(HttpLimits::default(), EngineOptions::default())
    }

    pub(crate) fn with(limits: HttpLimits, engine: EngineOptions) -> Self {
        let server = Self::starting(limits, engine);
        server.ready();
        server
    }

    /// Not ready yet.
    pub(crate) fn starting(limits: HttpLimits, engine: EngineOptions) -> Self {
        let state = AppState::new(Arc::new(Engine::new(engine)), limits, Arc::new(TestInfo));
        let storage = Arc::new(TestStorage::default());
        Self { router: router(state.clone()), state, storage }
    }

    pub(crate) fn ready(&self) {
        self.state.set_ready(self.backend());
    }

    /// Its storage, without the admin API.
    pub(crate) fn backend(&self) -> Backend {
        let (appender, queryable) = (Arc::clone(&self.storage) as _, Arc::clone(&self.storage) as _);
        Backend { appender, queryable, admin: None }
    }

    /// Three series with five samples each, 15 s apart, the last one now; and metadata of one.
    pub(crate) async fn filled() -> Self {
        Self::filled_with(HttpLimits::default(), EngineOptions::default()).await
    }

    pub(crate) async fn filled_with(limits: HttpLimits, engine: EngineOptions) -> Self {
        let server = Self::with(limits, engine);
        let mut request = WriteRequestBuilder::new();
        for (name, job, scale) in [("up", "a", 1.0), ("up", "b", 2.0), ("http_requests_total", "a", 10.0)] {
            let samples: Vec<_> =
                (0..5).map(|i| Sample::new(NOW - (4 - i) * 15_000, scale * (i + 1) as f64)).collect();
            request.series([("__name__", name), ("job", job), ("http.status", "200")], &samples);
        }
        request.metadata(&MetricMetadata {
            metric: "up".to_owned(),
            kind: chronolith_model::MetricType::Gauge,
            unit: "ratio".to_owned(),
            help: "Is it <up>?".to_owned(),
        });
        let answer = server.write(request.snappy()).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (204, ""));
        server
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(Request::get(target).body(Body::empty()).expect("a request")).await
    }

    /// A form post.
    pub(crate) async fn post(&self, target: &str, form: &str) -> Answer {
        let request = Request::post(target)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()));
        self.send(request.expect("a request")).await
    }

    /// A remote write with the usual headers.
    pub(crate) async fn write(&self, body: Vec<u8>) -> Answer {
        let request = Request::post("/api/v1/write")
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONTENT_ENCODING, "snappy")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(Body::from(body));
        self.send(request.expect("a request")).await
    }
}

/// A request with one series and these samples.
pub(crate) fn one_series(labels: &[(&str, &str)], samples: &[(Timestamp, f64)]) -> Vec<u8> {
    let samples: Vec<_> = samples.iter().map(|(t, v)| Sample::new(*t, *v)).collect();
    WriteRequestBuilder::new().series(labels.iter().copied(), &samples).snappy()
}
