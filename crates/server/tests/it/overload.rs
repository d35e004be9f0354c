//! Limits on what goes on at once, and clients that go away.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use axum::{body::Body, http::Request};
use chronolith_model::{Labels, MetricMetadata, TenantId, TimeRange};
use chronolith_promql::{Engine, EngineOptions};
use chronolith_server::{AppState, Backend, HttpLimits, QueryLog, router};
use chronolith_storage::{
    AppendedBatch, Appender, BoxFuture, KeyHasher, LabelQuery, Limited, MemoryBudget, Querier, Queryable,
    SelectRequest, SeriesBatch, SeriesSet, StorageError, StorageStats, WriteBatch, memory::MemoryStorage,
};
use tower::ServiceExt as _;

use crate::harness::{NOW, Server, TestInfo, one_series};

/// Storage whose calls block until they are let go.
struct Gate {
    memory: MemoryStorage,
    entered: mpsc::SyncSender<()>,
    open: AtomicBool,
    fetches: AtomicUsize,
    /// Whether selections are said to be quick.
    quick: AtomicBool,
    /// Whether the last selection was made on another thread than the query was begun on.
    handed_over: AtomicBool,
}

impl Gate {
    fn block(&self) {
        let _ = self.entered.try_send(());
        while !self.open.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Appender for Gate {
    fn key_hasher(&self) -> KeyHasher {
        self.memory.key_hasher()
    }

    fn append(&self, tenant: &TenantId, batch: &WriteBatch<'_>) -> Result<AppendedBatch, StorageError> {
        self.block();
        self.memory.append(tenant, batch)
    }

    fn append_metadata(&self, tenant: &TenantId, metadata: Vec<MetricMetadata>) {
        self.memory.append_metadata(tenant, metadata);
    }
}

/// What queries see: selecting blocks, reading samples is counted.
struct GatedQueryable(Arc<Gate>);

impl Queryable for GatedQueryable {
    fn querier(&self, tenant: &TenantId, range: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        let inner = self.0.memory.querier(tenant, range)?;
        let begun_on = thread::current().id();
        Ok(Arc::new(GatedQuerier { inner, gate: Arc::clone(&self.0), begun_on }))
    }
}

struct GatedQuerier {
    inner: Arc<dyn Querier>,
    gate: Arc<Gate>,
    begun_on: ThreadId,
}

impl Querier for GatedQuerier {
    fn select<'a>(
        &'a self,
        request: &'a SelectRequest,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesSet>, StorageError>> {
        Box::pin(async move {
            let handed_over = thread::current().id() != self.begun_on;
            self.gate.handed_over.store(handed_over, Ordering::Relaxed);
            self.gate.block();
            let inner = self.inner.select(request).await?;
            Ok(Arc::new(CountedSet { inner, gate: Arc::clone(&self.gate) }) as Arc<dyn SeriesSet>)
        })
    }

    fn is_quick(&self, _: &SelectRequest) -> bool {
        self.gate.quick.load(Ordering::Relaxed)
    }

    fn label_names<'a>(
        &'a self,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        self.gate.block();
        self.inner.label_names(query)
    }

    fn label_values<'a>(
        &'a self,
        name: &'a str,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        self.inner.label_values(name, query)
    }

    fn series<'a>(&'a self, query: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<Labels>, StorageError>> {
        self.inner.series(query)
    }

    fn metadata<'a>(
        &'a self,
        metric: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<MetricMetadata>, StorageError>> {
        self.inner.metadata(metric)
    }

    fn stats(&self, limit: usize) -> StorageStats {
        self.inner.stats(limit)
    }
}

struct CountedSet {
    inner: Arc<dyn SeriesSet>,
    gate: Arc<Gate>,
}

impl SeriesSet for CountedSet {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.inner.labels(index)
    }

    fn fetch<'a>(
        &'a self,
        indices: Range<usize>,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesBatch + 'a>, StorageError>> {
        self.gate.fetches.fetch_add(1, Ordering::Relaxed);
        self.inner.fetch(indices)
    }
}

fn gated(limits: HttpLimits, engine: EngineOptions) -> (AppState, Arc<Gate>, mpsc::Receiver<()>) {
    let (entered, wait) = mpsc::sync_channel(100);
    let gate = Arc::new(Gate {
        memory: MemoryStorage::new(),
        entered,
        open: AtomicBool::new(false),
        fetches: AtomicUsize::new(0),
        quick: AtomicBool::new(false),
        handed_over: AtomicBool::new(false),
    });
    let state = AppState::new(Arc::new(Engine::new(engine)), limits, Arc::new(TestInfo));
    let (appender, queryable) = (Arc::clone(&gate) as _, Arc::new(GatedQueryable(Arc::clone(&gate))));
    state.set_ready(Backend { appender, queryable, admin: None });
    (state, gate, wait)
}

fn write_request() -> Request<Body> {
    let body = one_series(&[("__name__", "up")], &[(NOW, 1.0)]);
    Request::post("/api/v1/write").body(Body::from(body)).expect("a request")
}

fn query_request(parameters: &str) -> Request<Body> {
    let time = NOW / 1000;
    Request::get(format!("/api/v1/query?query=up&time={time}&{parameters}"))
        .body(Body::empty())
        .expect("a request")
}

async fn wait_for(mut done: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come to that in a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_finds_no_place_is_sent_back() {
    let limits = HttpLimits {
        writes_in_flight_max: 1,
        write_queue_timeout: Duration::from_millis(20),
        ..HttpLimits::default()
    };
    let (state, gate, entered) = gated(limits, EngineOptions::default());
    let app = router(state.clone());
    let first = tokio::spawn(app.clone().oneshot(write_request()));
    wait_for(|| entered.try_recv().is_ok()).await;
    let second = app.clone().oneshot(write_request()).await.expect("infallible");
    assert_eq!(second.status(), 503);
    assert_eq!(second.headers()["retry-after"], "5");
    assert_eq!(state.metrics().writes_overloaded.get(), 1);
    gate.open.store(true, Ordering::Relaxed);
    assert_eq!(first.await.expect("no panic").expect("infallible").status(), 204);
    assert_eq!(app.oneshot(write_request()).await.expect("infallible").status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_share_a_bounded_memory() {
    let limits = HttpLimits {
        write_memory_max_bytes: 4096,
        write_queue_timeout: Duration::from_millis(20),
        ..HttpLimits::default()
    };
    let (state, gate, entered) = gated(limits, EngineOptions::default());
    let app = router(state.clone());
    // Without a content length each body counts as half the memory until it is read, and keeps that.
    let first = tokio::spawn(app.clone().oneshot(write_request()));
    wait_for(|| entered.try_recv().is_ok()).await;
    let second = app.clone().oneshot(write_request()).await.expect("infallible");
    assert_eq!(second.status(), 503, "the first holds 3 of 4 KiB");
    gate.open.store(true, Ordering::Relaxed);
    assert_eq!(first.await.expect("no panic").expect("infallible").status(), 204);
    assert_eq!(app.oneshot(write_request()).await.expect("infallible").status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_finished_although_its_sender_went_away() {
    let (state, gate, entered) = gated(HttpLimits::default(), EngineOptions::default());
    let app = router(state.clone());
    let write = tokio::spawn(app.oneshot(write_request()));
    wait_for(|| entered.try_recv().is_ok()).await;
    write.abort();
    wait_for(|| state.metrics().disconnects.get() == 1).await;
    gate.open.store(true, Ordering::Relaxed);
    wait_for(|| state.metrics().samples_stored.get() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_waits_for_its_turn_and_no_longer_than_its_timeout() {
    let engine = EngineOptions { concurrency_max: 1, ..EngineOptions::default() };
    let (state, gate, entered) = gated(HttpLimits::default(), engine);
    let app = router(state.clone());
    let path = std::env::temp_dir().join(format!("chronolith-queue-{}.log", std::process::id()));
    let _ = std::fs::remove_file(&path);
    state.set_query_log(QueryLog::open(&path).expect("opened"));
    let first = tokio::spawn(app.clone().oneshot(query_request("")));
    wait_for(|| entered.try_recv().is_ok()).await;
    let second = app.clone().oneshot(query_request("timeout=50ms")).await.expect("infallible");
    assert_eq!(second.status(), 503);
    let plan = app.clone().oneshot(query_request("timeout=50ms&explain=1")).await.expect("infallible");
    assert_eq!(plan.status(), 503);
    assert!(state.query_log().is_some_and(|log| log.flush(Duration::from_secs(30))));
    let logged = std::fs::read_to_string(&path).expect("a log");
    assert!(logged.contains(r#""error":"query timed out in query queue","stats""#), "{logged}");
    assert_eq!(logged.lines().count(), 1, "a plan is not logged: {logged}");
    let _ = std::fs::remove_file(&path);
    let body = axum::body::to_bytes(second.into_body(), 1000).await.expect("short");
    let text = r#"{"status":"error","errorType":"timeout","error":"query timed out in query queue"}"#;
    assert_eq!(body, text);
    assert_eq!(state.metrics().queries_in_flight.get(), 1);
    gate.open.store(true, Ordering::Relaxed);
    assert_eq!(first.await.expect("no panic").expect("infallible").status(), 200);
    assert_eq!(app.oneshot(query_request("")).await.expect("infallible").status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_listed() {
    let engine = EngineOptions { concurrency_max: 1, ..EngineOptions::default() };
    let (state, gate, entered) = gated(HttpLimits::default(), engine);
    let app = router(state.clone());
    let list = async || {
        let request = Request::get("/api/v1/status/active_queries").body(Body::empty()).expect("a request");
        let answer = app.clone().oneshot(request).await.expect("infallible");
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.expect("short");
        String::from_utf8(body.to_vec()).expect("text")
    };
    let none = r#"{"status":"success","data":{"max":1,"queries":[]}}"#;
    assert_eq!(list().await, none);
    let first = tokio::spawn(app.clone().oneshot(query_request("")));
    wait_for(|| entered.try_recv().is_ok()).await;
    // One that waits for its turn does not run yet.
    let second = tokio::spawn(app.clone().oneshot(query_request("")));
    wait_for(|| state.metrics().queries_in_flight.get() == 2).await;
    let text = list().await;
    let (before, after) = text.split_once(r#""seconds":"#).expect("a query");
    assert_eq!(
        before,
        concat!(
            r#"{"status":"success","data":{"max":1,"queries":[{"query":"up","start":1795221262,"end":1795221262,"#,
            r#""step":0,"since":"2026-11-21T00:34:22.000Z","#
        )
    );
    assert!(after.ends_with(r#","clientIP":"","method":"GET","path":"/api/v1/query"}]}}"#), "{after}");
    second.abort();
    gate.open.store(true, Ordering::Relaxed);
    assert_eq!(first.await.expect("no panic").expect("infallible").status(), 200);
    assert_eq!(list().await, none);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_whose_client_went_away_is_stopped() {
    let engine = EngineOptions { concurrency_max: 1, ..EngineOptions::default() };
    let (state, gate, entered) = gated(HttpLimits::default(), engine);
    let app = router(state.clone());
    gate.open.store(true, Ordering::Relaxed);
    assert_eq!(app.clone().oneshot(write_request()).await.expect("infallible").status(), 204);
    wait_for(|| entered.try_recv().is_ok()).await;
    gate.open.store(false, Ordering::Relaxed);

    // A selection that may be long is not made where the query came in.
    let first = tokio::spawn(app.clone().oneshot(query_request("")));
    wait_for(|| entered.try_recv().is_ok()).await;
    let gone = Instant::now();
    first.abort();
    wait_for(|| state.metrics().disconnects.get() == 1).await;
    assert!(gone.elapsed() < Duration::from_millis(100), "{:?}", gone.elapsed());
    assert_eq!(state.metrics().queries_in_flight.get(), 0);
    // Storage that waits in the middle of a call cannot be interrupted; behind it the query ends, and the next one
    // has its place.
    gate.open.store(true, Ordering::Relaxed);
    let before = gate.fetches.load(Ordering::Relaxed);
    assert_eq!(app.oneshot(query_request("limit=1")).await.expect("infallible").status(), 200);
    assert_eq!(gate.fetches.load(Ordering::Relaxed), before + 1, "only the second query read samples");
    assert_eq!(before, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_stays_on_its_thread_while_it_is_short() {
    let (state, gate, _entered) = gated(HttpLimits::default(), EngineOptions::default());
    let app = router(state);
    gate.open.store(true, Ordering::Relaxed);
    assert_eq!(app.clone().oneshot(write_request()).await.expect("infallible").status(), 204);
    // The handler runs on a worker of the runtime only as a task of its own.
    let ask = async |query: &str| {
        let target = format!("/api/v1/query?time={}&query={query}", NOW / 1000);
        let request = Request::get(target).body(Body::empty()).expect("a request");
        let answer = tokio::spawn(app.clone().oneshot(request)).await.expect("no panic");
        assert_eq!(answer.expect("infallible").status(), 200, "{query}");
        gate.handed_over.load(Ordering::Relaxed)
    };
    gate.quick.store(true, Ordering::Relaxed);
    // On a busy machine a short query may find that much time has gone by; not each time.
    let mut stays = false;
    for _ in 0..50 {
        stays |= !ask("up").await;
    }
    assert!(stays);
    gate.quick.store(false, Ordering::Relaxed);
    // The thread it is handed to may be the one it comes from, which is free by then; not each time.
    let mut goes = false;
    for _ in 0..50 {
        goes |= ask("up").await;
    }
    assert!(goes, "storage does not say that it is quick");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_query_waits_no_longer_than_a_query_may_take() {
    let limits = HttpLimits { label_queries_in_flight_max: 1, ..HttpLimits::default() };
    let engine = EngineOptions { timeout: Duration::from_millis(100), ..EngineOptions::default() };
    let (state, gate, entered) = gated(limits, engine);
    let app = router(state.clone());
    let get = |target: &str| Request::get(target).body(Body::empty()).expect("a request");
    let first = tokio::spawn(app.clone().oneshot(get("/api/v1/labels")));
    wait_for(|| entered.try_recv().is_ok()).await;
    assert!(state.metrics_text().contains("\nchronolith_http_label_queries_running 1\n"));
    // The first is stuck in storage and answered all the same; it keeps the only place, so the others time out.
    assert_eq!(first.await.expect("no panic").expect("infallible").status(), 503);
    for target in
        ["/api/v1/labels", "/api/v1/format_query?query=1", "/api/v1/series?match[]=up", "/api/v1/metadata"]
    {
        let answer = app.clone().oneshot(get(target)).await.expect("infallible");
        assert_eq!(answer.status(), 503, "{target}");
        let body = axum::body::to_bytes(answer.into_body(), 1000).await.expect("short");
        let text = r#"{"status":"error","errorType":"timeout","error":"query timed out in label query"}"#;
        assert_eq!(body, text, "{target}");
    }
    // What needs no turn has none to wait for.
    assert_eq!(app.clone().oneshot(get("/-/ready")).await.expect("infallible").status(), 200);
    gate.open.store(true, Ordering::Relaxed);
    wait_for(|| state.metrics_text().contains("\nchronolith_http_label_queries_running 0\n")).await;
    assert_eq!(app.oneshot(get("/api/v1/labels")).await.expect("infallible").status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_share_a_bounded_memory_until_they_are_sent() {
    let limits = HttpLimits {
        answer_memory_max_bytes: 192 << 10,
        answer_queue_timeout: Duration::from_millis(20),
        ..HttpLimits::default()
    };
    let server = Server::with(limits, EngineOptions::default());
    let large = || {
        let target = "/api/v1/query_range?query=1&start=0&end=10999&step=1";
        server.router.clone().oneshot(Request::get(target).body(Body::empty()).expect("a request"))
    };
    let first = large().await.expect("infallible");
    assert_eq!(first.status(), 200);
    let held = |server: &Server| {
        let text = server.state.metrics_text();
        let line = text.lines().find_map(|line| line.strip_prefix("chronolith_http_answer_bytes "));
        line.expect("the gauge").parse::<f64>().expect("a number")
    };
    assert!(held(&server) > 100_000.0);
    let second = large().await.expect("infallible");
    assert_eq!(second.status(), 503);
    assert_eq!(second.headers()["retry-after"], "5");
    assert_eq!(server.state.metrics().answers_overloaded.get(), 1);
    // Small answers need no place.
    assert_eq!(server.get("/api/v1/query?query=1").await.status, 200);
    // Neither read nor kept: gone with the response.
    drop(first);
    assert_eq!(held(&server), 0.0);
    let third = large().await.expect("infallible");
    assert_eq!(third.status(), 200);
    let length = axum::body::to_bytes(third.into_body(), usize::MAX).await.expect("whole").len();
    assert!(length > 100_000);
    assert_eq!(held(&server), 0.0);
    // One larger than all the memory has it for itself.
    let form = "query=label_replace(vector(1),\"a\",\"b\",\"\",\"\") or vector(2)&start=0&end=10999&step=1";
    let answer = server.post("/api/v1/query_range", form).await;
    assert_eq!(answer.status, 200, "{}", answer.text().get(..300).unwrap_or_default());
    assert!(answer.body.len() > 192 << 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_beyond_the_memory_get_422_when_it_is_theirs_and_503_when_others_have_it() {
    let memory = MemoryBudget::new(64 << 20);
    let engine =
        EngineOptions { memory_max_bytes: 8 << 20, memory: memory.clone(), ..EngineOptions::default() };
    let server = Server::with(HttpLimits::default(), engine);
    let query = |steps: u32| format!("/api/v1/query_range?query=1&start=0&end={steps}&step=1");
    assert_eq!(server.get(&query(10_000)).await.status, 200);
    // 100 regular expressions of a megabyte each with their caches.
    let matchers: Vec<_> = (0..100).map(|i| format!("a!~%22x%5C%5CpL%2B.*{i}%22")).collect();
    let selector = format!("up%7B{}%7D", matchers.join(","));
    for target in [
        format!("/api/v1/query?query={selector}"),
        format!("/api/v1/series?match[]={selector}"),
        format!("/api/v1/labels?match[]={selector}"),
        format!("/api/v1/label/a/values?match[]={selector}"),
    ] {
        let answer = server.get(&target).await;
        assert_eq!(answer.status, 422, "{target}: {}", answer.text());
        let text = "query processing would take more than 8388608 bytes of memory in query execution";
        assert!(answer.text().contains("\"errorType\":\"execution\"") && answer.text().contains(text));
    }
    assert_eq!(memory.used(), 0, "everything was given back");
    let others = memory.reserve(64 << 20).expect("all of it");
    for target in [
        &*query(10),
        "/api/v1/labels?match[]=up",
        "/api/v1/series?match[]=up",
        "/api/v1/format_query?query=up",
    ] {
        let answer = server.get(target).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"), "{target}");
        let text = "queries and the rest of the server have taken the 67108864 bytes of memory they share";
        assert!(answer.text().contains("\"errorType\":\"unavailable\"") && answer.text().contains(text));
    }
    let metrics = server.state.metrics_text();
    assert!(metrics.contains("\nchronolith_memory_limit_bytes 6.7108864e+07\n"), "{metrics}");
    assert!(metrics.contains("\nchronolith_memory_reserved_bytes 6.7108864e+07\n"), "{metrics}");
    drop(others);
    assert_eq!(server.get(&query(10)).await.status, 200);
}

fn label_value(value: usize) -> Vec<u8> {
    one_series(&[("__name__", "m"), ("i", &format!("{value:0100}"))], &[(NOW, 1.0)])
}

#[tokio::test]
async fn answers_about_labels_are_charged() {
    let memory = MemoryBudget::new(1 << 30);
    // The labels of a series are 110 bytes, and they are there as JSON too.
    let bytes = 650_000;
    let engine =
        EngineOptions { memory_max_bytes: bytes, memory: memory.clone(), ..EngineOptions::default() };
    let server = Server::with(HttpLimits::default(), engine);
    for i in 0..2_000 {
        assert_eq!(server.write(label_value(i)).await.status, 204);
    }
    let targets = ["/api/v1/series?match[]=m", "/api/v1/label/i/values"];
    for target in targets {
        assert_eq!(server.get(target).await.status, 200, "{target}");
        assert_eq!(memory.used(), 0);
    }
    for i in 2_000..3_000 {
        assert_eq!(server.write(label_value(i)).await.status, 204);
    }
    let text = format!("query processing would take more than {bytes} bytes of memory in query execution");
    for target in targets {
        let answer = server.get(target).await;
        assert_eq!(answer.status, 422, "{target}");
        assert!(answer.text().contains(&text), "{}", answer.text());
        assert_eq!(memory.used(), 0);
        let few =
            server.get(&format!("{target}{}limit=1000", if target.contains('?') { '&' } else { '?' })).await;
        assert!(few.status == 200 && few.text().contains("results truncated due to limit"));
    }
    let all = server.get("/api/v1/label/i/values?match[]=m%7Bi%3D~%22.*12..%22%7D").await;
    assert_eq!((all.status.as_u16(), all.text().matches("000012").count()), (200, 100));
    let others = memory.reserve(1 << 30).expect("all of it");
    for target in targets {
        assert_eq!(server.get(target).await.status, 503);
    }
    drop(others);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_waits_for_its_turn_is_charged() {
    let memory = MemoryBudget::new(1 << 30);
    let limits = HttpLimits { answer_memory_max_bytes: 192 << 10, ..HttpLimits::default() };
    let engine = EngineOptions { memory: memory.clone(), ..EngineOptions::default() };
    let server = Server::with(limits, engine);
    let large = || {
        let target = "/api/v1/query_range?query=1&start=0&end=10999&step=1";
        server.router.clone().oneshot(Request::get(target).body(Body::empty()).expect("a request"))
    };
    let first = large().await.expect("infallible");
    assert_eq!(
        (first.status().as_u16(), memory.used()),
        (200, 0),
        "it has its share of the memory for answers"
    );
    let second = tokio::spawn(large());
    wait_for(|| memory.used() > 0 && server.state.metrics().queries_in_flight.get() == 0).await;
    assert!(memory.used() > 200_000, "{}", memory.used());
    drop(first);
    assert_eq!(second.await.expect("no panic").expect("infallible").status(), 200);
    assert_eq!(memory.used(), 0);
}

#[tokio::test]
async fn large_forms_are_charged() {
    let memory = MemoryBudget::new(1 << 20);
    let limits = HttpLimits { form_body_max_bytes: 600 << 10, ..HttpLimits::default() };
    let engine = EngineOptions { memory: memory.clone(), ..EngineOptions::default() };
    let server = Server::with(limits, engine);
    let form = |bytes: usize| format!("query=1&unused={}", "x".repeat(bytes - 15));
    assert_eq!(server.post("/api/v1/query", &form(500 << 10)).await.status, 200);
    assert_eq!(memory.used(), 0);
    let refused = server.post("/api/v1/query", &form(590 << 10)).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "5"), "{}", refused.text());
    assert_eq!(server.post("/api/v1/query", &form(60 << 10)).await.status, 200);
    assert_eq!(server.post("/api/v1/query", &form((600 << 10) + 1)).await.status, 413);
}
