//! Influx line protocol: what is stored, what is refused, and how that is said.

use std::{io::Write as _, sync::atomic::Ordering};

use axum::{body::Body, http::Request};
use chronolith_promql::EngineOptions;
use chronolith_server::HttpLimits;
use flate2::{Compression, write::GzEncoder};

use crate::harness::{Answer, NOW, Server};

async fn send(server: &Server, target: &str, encoding: &str, body: Vec<u8>) -> Answer {
    let request = Request::post(target).header("content-type", "text/plain; charset=utf-8");
    let request = if encoding.is_empty() { request } else { request.header("content-encoding", encoding) };
    server.send(request.body(Body::from(body)).expect("a request")).await
}

async fn lines(server: &Server, target: &str, text: &str) -> Answer {
    send(server, target, "", text.as_bytes().to_vec()).await
}

#[track_caller]
fn check(answer: &Answer, status: u16, text: &str, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.text()), (status, text), "{what}");
    assert_eq!(answer.header("content-type"), if status == 204 { "" } else { "application/json" }, "{what}");
}

/// Labels and values of what a selector finds now, one a line.
async fn found(server: &Server, selector: &str) -> Vec<String> {
    let answer = server.post("/api/v1/query", &format!("query={selector}&time={}", NOW / 1000)).await;
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let entries = json["data"]["result"].as_array().expect("a vector");
    entries.iter().map(|entry| format!("{} {}", entry["metric"], entry["value"][1])).collect()
}

#[tokio::test]
async fn lines_are_stored_by_both_routes() {
    let server = Server::new();
    let text = format!("cpu,host=a idle=90.5,user=2i,name=\"x\" {NOW}000000\n# nothing\n\nmem used=1 \n");
    check(&lines(&server, "/write?db=telegraf", &text).await, 204, "", "version 1");
    assert_eq!(server.storage.waits.load(Ordering::Relaxed), 1);
    assert_eq!(
        found(&server, "{db=\"telegraf\"}").await,
        [
            r#"{"__name__":"cpu_idle","db":"telegraf","host":"a"} "90.5""#,
            r#"{"__name__":"cpu_user","db":"telegraf","host":"a"} "2""#,
            r#"{"__name__":"mem_used","db":"telegraf"} "1""#,
        ]
    );
    let text = format!("disk,path=/ free=7 {}", NOW / 1000);
    let target = "/api/v2/write?org=o&bucket=b&precision=s";
    check(&lines(&server, target, &text).await, 204, "", "version 2");
    assert_eq!(found(&server, "disk_free").await, [r#"{"__name__":"disk_free","path":"/"} "7""#]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"net bytes=5").expect("memory");
    let body = encoder.finish().expect("memory");
    check(&send(&server, "/write", "gzip", body).await, 204, "", "gzip");
    assert_eq!(found(&server, "net_bytes").await.len(), 1);
    check(&lines(&server, "/write", "").await, 204, "", "nothing");
    let text = server.get("/metrics").await;
    assert!(text.text().contains("\nchronolith_influx_samples_total 5\n"), "{}", text.text());
}

#[tokio::test]
async fn the_same_line_of_two_databases_is_two_series() {
    let server = Server::new();
    for target in ["/write?db=a", "/write?db=b", "/write"] {
        check(&lines(&server, target, "m v=1").await, 204, "", target);
    }
    assert_eq!(found(&server, "m_v").await.len(), 3);
}

#[tokio::test]
async fn what_is_refused_keeps_nothing_else_from_being_stored() {
    let server = Server::new();
    let old = NOW - 20 * 86_400_000;
    let text = format!("good v=1\nbad\nold v=1 {old}000000\n");
    let answer = lines(&server, "/write", &text).await;
    assert_eq!(answer.status, 400);
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let error = json["error"].as_str().expect("a text");
    let start = "partial write: unable to parse line 2: missing fields: \"bad\"\nout of bounds";
    assert!(error.starts_with(start) && error.ends_with(" dropped=2"), "{error}");
    assert_eq!(found(&server, "good_v").await.len(), 1);
    let metrics = &server.state.metrics().influx;
    assert_eq!((metrics.unreadable.get(), metrics.rejected.get(), metrics.stored.get()), (1, 1, 1));
}

#[tokio::test]
async fn errors_are_json_of_the_version() {
    let limits = HttpLimits { write_body_max_bytes: 1000, ..HttpLimits::default() };
    let server = Server::with(limits, EngineOptions::default());
    let precision = r#"invalid precision \"d\" (use n, ns, u, us, ms, s, m or h)"#;
    let answer = lines(&server, "/write?precision=d", "m v=1").await;
    check(&answer, 400, &format!("{{\"error\":\"{precision}\"}}"), "version 1");
    let answer = lines(&server, "/api/v2/write?precision=d", "m v=1").await;
    check(&answer, 400, &format!("{{\"code\":\"invalid\",\"message\":\"{precision}\"}}"), "version 2");
    let answer = lines(&server, "/api/v2/write", &"x".repeat(1001)).await;
    let text = r#"{"code":"request too large","message":"request body too large, the limit is 1000 bytes"}"#;
    check(&answer, 413, text, "too large");
    assert_eq!(send(&server, "/write", "br", b"m v=1".to_vec()).await.status, 415);
    assert_eq!(send(&server, "/write", "gzip", b"m v=1".to_vec()).await.status, 400);
    assert_eq!(server.get("/write").await.status, 405);
    server.storage.fail_append.store(true, Ordering::Relaxed);
    let answer = lines(&server, "/write", "m v=1").await;
    check(&answer, 503, r#"{"error":"storage unavailable: memory budget reached"}"#, "later");
    assert_eq!(answer.header("retry-after"), "5");
}

#[tokio::test]
async fn more_fields_than_there_is_memory_for_are_refused() {
    let limits = HttpLimits { write_memory_max_bytes: 1 << 20, ..HttpLimits::default() };
    let server = Server::with(limits, EngineOptions::default());
    let fields = vec!["f=1"; 5000].join(",");
    let answer = lines(&server, "/write", &format!("m {fields}")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("too many fields and tags in one request"), "{}", answer.text());
}
