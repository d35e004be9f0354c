//! The accept loop, over real sockets.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use chronolith_server::{HttpLimits, metrics::ConnectionMetrics, router, serve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::harness::Server;

/// For what comes at once, but on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(app: Router, limits: HttpLimits) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    start_counted(app, limits, Arc::default()).await
}

async fn start_counted(
    app: Router,
    limits: HttpLimits,
    metrics: Arc<ConnectionMetrics>,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        serve(listener, app, &limits, metrics, async { drop(stopped.await) }).await.expect("serve");
    });
    (address, stop, task)
}

async fn ask(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut answer = vec![0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time").expect("read");
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// Whether the other side closes the connection in time.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}

fn slow_app() -> Router {
    let slow = || async {
        sleep(Duration::from_millis(200)).await;
        "slow"
    };
    Router::new()
        .route("/slow", get(slow))
        .route("/stuck", get(|| async { std::future::pending::<&str>().await }))
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_and_running_requests_finish() {
    let server = Server::new();
    let app = router(server.state.clone()).merge(slow_app());
    let (address, stop, task) = start(app, HttpLimits::default()).await;
    let mut idle = TcpStream::connect(address).await.expect("connect");
    for _ in 0..2 {
        let answer = ask(&mut idle, "/-/ready").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("Prometheus Server is Ready.\n"), "{answer}");
    }
    let mut busy = TcpStream::connect(address).await.expect("connect");
    let running = tokio::spawn(async move { ask(&mut busy, "/slow").await });
    sleep(Duration::from_millis(50)).await;
    stop.send(()).expect("serving");
    assert!(running.await.expect("no panic").ends_with("slow"));
    timeout(PATIENCE, task).await.expect("drained").expect("no panic");
    assert!(is_closed(&mut idle).await);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_not_stop_the_shutdown() {
    let limits = HttpLimits { drain_timeout: Duration::from_millis(100), ..HttpLimits::default() };
    let (address, stop, task) = start(slow_app(), limits).await;
    let mut stuck = TcpStream::connect(address).await.expect("connect");
    stuck.write_all(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("send");
    sleep(Duration::from_millis(50)).await;
    stop.send(()).expect("serving");
    timeout(PATIENCE, task).await.expect("drained").expect("no panic");
    assert!(is_closed(&mut stuck).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_never_ends_is_given_up() {
    let limits = HttpLimits { header_read_timeout: Duration::from_millis(100), ..HttpLimits::default() };
    let (address, _stop, _task) = start(slow_app(), limits).await;
    let mut slowloris = TcpStream::connect(address).await.expect("connect");
    slowloris.write_all(b"GET /slow HTTP/1.1\r\nHost:").await.expect("send");
    assert!(is_closed(&mut slowloris).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_is_given_up() {
    let limits = HttpLimits { body_read_timeout: Duration::from_millis(100), ..HttpLimits::default() };
    let server = Server::with(limits.clone(), chronolith_promql::EngineOptions::default());
    let (address, _stop, _task) = start(router(server.state.clone()), limits).await;
    for path in ["/api/v1/write", "/api/v1/query"] {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: 100\r\n\r\nabc",
            if path.ends_with("write") {
                "application/x-protobuf"
            } else {
                "application/x-www-form-urlencoded"
            }
        );
        stream.write_all(head.as_bytes()).await.expect("send");
        let mut answer = String::new();
        let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
        assert!(read.is_ok(), "{path}: closed in time");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_limit_the_longest_idle_connection_makes_place() {
    let limits = HttpLimits { connections_max: 2, ..HttpLimits::default() };
    let server = Server::new();
    let counted = Arc::clone(&server.state.metrics().connections);
    let (address, _stop, _task) = start_counted(router(server.state.clone()), limits, counted).await;
    let mut silent = TcpStream::connect(address).await.expect("connect");
    let mut idle = TcpStream::connect(address).await.expect("connect");
    assert!(ask(&mut idle, "/-/ready").await.contains("200 OK"));
    let mut third = TcpStream::connect(address).await.expect("connect");
    assert!(ask(&mut third, "/-/ready").await.contains("200 OK"));
    assert!(is_closed(&mut silent).await, "it never asked anything");
    sleep(Duration::from_millis(20)).await;
    assert!(ask(&mut idle, "/-/ready").await.contains("200 OK"), "it was idle for less");
    let mut fourth = TcpStream::connect(address).await.expect("connect");
    assert!(ask(&mut fourth, "/-/ready").await.contains("200 OK"));
    sleep(Duration::from_millis(20)).await;
    assert!(is_closed(&mut third).await, "now it was idle for longer than the other");
    assert!(ask(&mut idle, "/-/ready").await.contains("200 OK"));
    // One that has sent half a header goes too.
    idle.write_all(b"GET /-/ready HTTP/1.1\r\nHost:").await.expect("send");
    fourth.write_all(b"GET /-/ready HTTP/1.1\r\nHost:").await.expect("send");
    let mut fifth = TcpStream::connect(address).await.expect("connect");
    assert!(ask(&mut fifth, "/-/ready").await.contains("200 OK"));
    assert!(is_closed(&mut fourth).await);
    let metrics = server.state.metrics_text();
    for (name, count) in [
        ("open", 2),
        ("accepted_total", 5),
        ("closed_idle_total", 3),
        ("refused_total", 0),
        ("failed_total", 0),
    ] {
        let line = format!("\nchronolith_http_connections_{name} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_never_sent_whole_hold_nobody_up() {
    const PLACES: usize = 40;
    let limits = HttpLimits { connections_max: PLACES, ..HttpLimits::default() };
    let server = Server::new();
    let (address, _stop, _task) = start(router(server.state.clone()), limits).await;
    let mut halves = Vec::new();
    for half in 0..PLACES {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        // Some have never sent anything.
        if half % 2 == 0 {
            stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost:").await.expect("send");
        }
        halves.push(stream);
    }
    sleep(Duration::from_millis(400)).await;
    let started = Instant::now();
    let mut served = Vec::new();
    for _ in 0..PLACES {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        assert!(ask(&mut stream, "/-/ready").await.contains("200 OK"));
        served.push(stream);
    }
    // To wait for each to finish its header would take a quarter of a second each.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for half in &mut halves {
        assert!(is_closed(half).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_limit_of_running_requests_connections_are_refused() {
    let limits = HttpLimits { connections_max: 1, ..HttpLimits::default() };
    let counted = Arc::<ConnectionMetrics>::default();
    let (address, _stop, _task) = start_counted(slow_app(), limits, Arc::clone(&counted)).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut busy = TcpStream::connect(address).await.expect("connect");
    busy.write_all(get("/slow").as_bytes()).await.expect("send");
    sleep(Duration::from_millis(50)).await;
    let mut second = TcpStream::connect(address).await.expect("connect");
    assert!(ask(&mut second, "/slow").await.ends_with("slow"), "it waits for a place");
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.expect("read");
    assert!(answer.ends_with("slow"), "what runs is finished before: {answer}");

    second.write_all(get("/stuck").as_bytes()).await.expect("send");
    sleep(Duration::from_millis(50)).await;
    for _ in 0..3 {
        let mut refused = TcpStream::connect(address).await.expect("connect");
        let answer = ask(&mut refused, "/slow").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 5\r\n"), "{answer}");
        assert!(is_closed(&mut refused).await);
    }
    assert_eq!((counted.refused.get(), counted.accepted.get(), counted.open.get()), (3, 2, 1));
    drop(second);
    // On a busy machine it takes a moment until the end of the second is seen.
    for attempt in 0.. {
        let mut third = TcpStream::connect(address).await.expect("connect");
        let answer = ask(&mut third, "/slow").await;
        if answer.ends_with("slow") {
            break;
        }
        assert!(attempt < 20, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_nobody_reads_is_given_up() {
    const LENGTH: usize = 64 << 20;
    let limits = HttpLimits { send_timeout: Duration::from_millis(100), ..HttpLimits::default() };
    let app = Router::new().route("/large", get(|| async { vec![b'x'; LENGTH] }));
    let (address, _stop, _task) = start(app, limits).await;
    // Whoever reads, slowly but steadily, gets all of it.
    let mut reader = TcpStream::connect(address).await.expect("connect");
    reader.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("send");
    let mut part = vec![0; LENGTH / 8];
    let mut read = 0;
    loop {
        match reader.read(&mut part).await.expect("not given up") {
            0 => break,
            bytes => read += bytes,
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert!(read > LENGTH);

    let mut stalled = TcpStream::connect(address).await.expect("connect");
    stalled.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("send");
    sleep(Duration::from_millis(500)).await;
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stalled.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection was closed");
    assert!(rest.len() < LENGTH, "what was in flight arrives, the rest does not");
}
