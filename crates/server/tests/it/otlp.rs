//! OTLP metrics: what is stored, what is refused, and how that is said.

use std::{io::Write as _, sync::atomic::Ordering};

use axum::{
    body::Body,
    http::{Request, header},
};
use chronolith_model::{TenantId, TimeRange};
use chronolith_promql::EngineOptions;
use chronolith_remote::otlp::{NameStrategy, OtlpOptions};
use chronolith_server::HttpLimits;
use chronolith_storage::{ExemplarQuery, Queryable as _};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::harness::{Answer, NOW, Server};

const TARGET: &str = "/api/v1/otlp/v1/metrics";
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn nanoseconds(ms: i64) -> String {
    (ms * 1_000_000).to_string()
}

/// A request in JSON with these metrics of one service.
fn request(metrics: &Value) -> Vec<u8> {
    let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let request = json!({"resourceMetrics": [{
        "resource": {"attributes": [
            attribute("service.name", "shop"),
            attribute("service.instance.id", "i1"),
            attribute("host.name", "h"),
        ]},
        "scopeMetrics": [{"metrics": metrics}],
    }]});
    request.to_string().into_bytes()
}

fn gauge(name: &str, ms: i64, value: f64) -> Value {
    json!({"name": name, "gauge": {"dataPoints": [{"timeUnixNano": nanoseconds(ms), "asDouble": value}]}})
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

async fn send(server: &Server, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let request =
        headers.iter().fold(Request::post(TARGET), |request, (name, value)| request.header(*name, *value));
    server.send(request.body(Body::from(body)).expect("a request")).await
}

async fn send_json(server: &Server, metrics: &Value) -> Answer {
    send(server, &[("content-type", JSON)], request(metrics)).await
}

#[track_caller]
fn check(answer: &Answer, status: u16, content_type: &str, text: &str, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.text()), (status, text), "{what}");
    assert_eq!(answer.header("content-type"), content_type, "{what}");
}

/// What an instant query finds: labels and values.
async fn found(server: &Server, query: &str) -> Value {
    let form = format!("query={query}&time={}", NOW / 1000);
    let answer = server.post("/api/v1/query", &form).await;
    let json: Value = serde_json::from_slice(&answer.body).expect("JSON");
    json["data"]["result"].clone()
}

/// A field of a protobuf message, of at most 127 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).expect("short")];
    out.extend_from_slice(bytes);
    out
}

/// The gauge `g` of now in protobuf.
fn protobuf_gauge(value: f64) -> Vec<u8> {
    let mut point = vec![3 << 3 | 1];
    point.extend_from_slice(&((NOW * 1_000_000) as u64).to_le_bytes());
    point.push(4 << 3 | 1);
    point.extend_from_slice(&value.to_le_bytes());
    let metric = [field(1, b"g"), field(5, &field(1, &point))].concat();
    field(1, &field(2, &field(2, &metric)))
}

#[tokio::test]
async fn samples_are_there_when_they_are_acknowledged() {
    let server = Server::new();
    check(&send_json(&server, &json!([gauge("cpu.load", NOW, 0.5)])).await, 200, JSON, "{}", "JSON");
    assert_eq!(server.storage.waits.load(Ordering::Relaxed), 1);
    let expected = json!([{
        "metric": {"__name__": "cpu_load", "instance": "i1", "job": "shop"},
        "value": [NOW / 1000, "0.5"],
    }]);
    assert_eq!(found(&server, "cpu_load").await, expected);
    let info = found(&server, "target_info").await;
    assert_eq!(info[0]["metric"]["host_name"], "h");
    let answer = send(&server, &[("content-type", PROTOBUF)], protobuf_gauge(2.5)).await;
    check(&answer, 200, PROTOBUF, "", "protobuf");
    assert_eq!(found(&server, "g").await[0]["value"][1], "2.5");
    // With parameters of the type, and compressed; the same again is no error.
    let headers = [("content-type", "Application/JSON; charset=utf-8"), ("content-encoding", "gzip")];
    let answer = send(&server, &headers, gzip(&request(&json!([gauge("cpu.load", NOW, 0.5)])))).await;
    check(&answer, 200, JSON, "{}", "gzip");
    let metrics = &server.state.metrics().otlp;
    assert_eq!((metrics.stored.get(), metrics.duplicate.get(), metrics.rejected.get()), (3, 2, 0));
    let text = server.get("/metrics").await;
    assert!(text.text().contains("\nchronolith_otlp_samples_total 3\n"), "{}", text.text());
}

#[tokio::test]
async fn histograms_exemplars_and_metadata_are_stored() {
    let server = Server::new();
    server.storage.stores_all.store(true, Ordering::Relaxed);
    let exemplar = json!({"timeUnixNano": nanoseconds(NOW), "asDouble": 1.5, "traceId": "0af7651916cd43dd8448eb211c80319c"});
    let metrics = json!([{
        "name": "latency", "unit": "s", "description": "How long.",
        "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [{
            "timeUnixNano": nanoseconds(NOW), "count": "3", "sum": 4.5, "scale": 0,
            "positive": {"offset": 0, "bucketCounts": ["3"]}, "exemplars": [exemplar],
        }]},
    }]);
    check(&send_json(&server, &metrics).await, 200, JSON, "{}", "a native histogram");
    let count = found(&server, "histogram_count(latency_seconds)").await;
    assert_eq!(count[0]["value"][1], "3");
    let metadata = server.get("/api/v1/metadata?metric=latency_seconds").await;
    assert!(metadata.text().contains("\"help\":\"How long.\""), "{}", metadata.text());
    let querier = server.storage.querier(&TenantId::default(), TimeRange::ALL).expect("open");
    let query = ExemplarQuery { matcher_sets: vec![vec![]], range: TimeRange::ALL, payer: None };
    let exemplars = querier.exemplars(&query).await.expect("exemplars");
    assert_eq!(exemplars.len(), 1);
}

#[tokio::test]
async fn what_is_refused_is_a_partial_success() {
    let server = Server::new();
    let delta = json!({"name": "d", "sum": {"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [
        {"timeUnixNano": nanoseconds(NOW), "asInt": "1"}, {"timeUnixNano": nanoseconds(NOW), "asInt": 2},
    ]}});
    let metrics = json!([gauge("old", NOW - 20 * 86_400_000, 1.0), delta, gauge("good", NOW, 1.0)]);
    let answer = send_json(&server, &metrics).await;
    assert_eq!(answer.status, 200);
    let json: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let partial = &json["partialSuccess"];
    let reasons = partial["errorMessage"].as_str().expect("a text");
    assert!(
        reasons.starts_with("invalid temporality and type combination for metric \"d\"\nout of bounds"),
        "{reasons}"
    );
    assert!(reasons.contains("__name__=\"old\""), "{reasons}");
    assert!(partial["rejectedDataPoints"].as_str().expect("a text").parse::<u64>().expect("a number") >= 3);
    assert_eq!(found(&server, "good").await[0]["value"][1], "1");
    // In protobuf: field 1 with the number and the text.
    assert_eq!(send(&server, &[("content-type", PROTOBUF)], protobuf_gauge(1.0)).await.status, 200);
    let answer = send(&server, &[("content-type", PROTOBUF)], protobuf_gauge(2.0)).await;
    check_protobuf_refusal(&answer);
}

fn check_protobuf_refusal(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, PROTOBUF));
    let body = &answer.body[..];
    assert_eq!(body[0], 1 << 3 | 2, "partial_success");
    let text = String::from_utf8_lossy(body);
    assert!(text.contains("duplicate sample for timestamp") && text.contains("{__name__=\"g\"}"), "{text}");
    let inner = &body[body.len() - usize::from(body[1] & 0x7f)..];
    let start = if body[1] & 0x80 == 0 { 2 } else { 3 };
    assert_eq!(body[start..start + 2], [1 << 3, 1], "rejected_data_points: 1, {inner:?}");
}

#[tokio::test]
async fn labels_are_limited_as_those_of_remote_write() {
    let mut limits = HttpLimits::default();
    limits.decode.label_value_bytes_max = 8;
    let server = Server::with(limits, EngineOptions::default());
    let answer =
        send_json(&server, &json!([gauge("much_too_long", NOW, 1.0), gauge("short", NOW, 1.0)])).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("label value too long for series"), "{}", answer.text());
    assert!(answer.text().contains("has 13 bytes, the limit is 8"), "{}", answer.text());
    assert_eq!(found(&server, "short").await[0]["value"][1], "1");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let limits = HttpLimits {
        write_body_max_bytes: 100_000,
        write_decoded_max_bytes: 100_000,
        ..HttpLimits::default()
    };
    let server = Server::with(limits, EngineOptions::default());
    let good = || request(&json!([gauge("g", NOW, 1.0)]));
    for (headers, what) in [
        (&[][..], "no type"),
        (&[("content-type", "text/plain")][..], "another type"),
        (&[("content-type", JSON), ("content-encoding", "br")][..], "another compression"),
    ] {
        assert_eq!(send(&server, headers, good()).await.status, 415, "{what}");
    }
    let plain = send(&server, &[("content-type", "text/plain")], good()).await;
    let text =
        "unsupported content type: text/plain, supported: [application/json, application/x-protobuf]\n";
    check(&plain, 415, "text/plain; charset=utf-8", text, "another type");
    let compressed = [("content-type", JSON), ("content-encoding", "gzip")];
    for (headers, body, status, told) in [
        (&compressed[..1], b"{".to_vec(), 400, "EOF"),
        (&compressed[..1], b"5".to_vec(), 400, "invalid"),
        (&compressed[..], good(), 400, "gzip: "),
        (&compressed[..], gzip(&good())[..40].to_vec(), 400, "gzip: "),
        (&compressed[..], gzip(&vec![b' '; 1 << 20]), 400, "longer than the limit of 100000 bytes"),
        (&compressed[..1], vec![b' '; 100_001], 413, "the limit is 100000 bytes"),
    ] {
        let answer = send(&server, headers, body).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (status, JSON), "{told}");
        let json: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(json["message"].as_str().expect("a text").contains(told), "{told}: {json}");
        assert_eq!(json["code"], if status == 413 { 8 } else { 3 });
    }
    let answer = send(&server, &[("content-type", PROTOBUF)], vec![0x0a, 0x05, 0x00]).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (400, PROTOBUF));
    assert_eq!(answer.body[..3], [1 << 3, 3, 2 << 3 | 2], "code 3, then the message");
    assert_eq!(server.get(TARGET).await.status, 405);
    assert_eq!(found(&server, "g").await, json!([]));
}

#[tokio::test]
async fn what_needs_too_much_memory_is_refused() {
    let limits = HttpLimits { write_memory_max_bytes: 4 << 20, ..HttpLimits::default() };
    let server = Server::with(limits, EngineOptions::default());
    // Points of three bytes each in JSON, two in protobuf, some hundreds in memory.
    let points = "{},".repeat(100_000);
    let points = points.trim_end_matches(',');
    let body = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{points}]}}}}]}}]}}]}}"#
    );
    let answer = send(&server, &[("content-type", JSON)], body.into_bytes()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("too many bytes of data points in one request"), "{}", answer.text());
    // An attribute of the resource that is a label of each of its samples.
    let options = OtlpOptions { promote_all: true, ..OtlpOptions::default() };
    let limits = HttpLimits { write_memory_max_bytes: 4 << 20, otlp: Some(options), ..HttpLimits::default() };
    let server = Server::with(limits, EngineOptions::default());
    let points: Vec<Value> =
        (0..200).map(|i| json!({"timeUnixNano": nanoseconds(NOW - i), "asInt": 1})).collect();
    let request = json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "a", "value": {"stringValue": "x".repeat(16_000)}}]},
        "scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": points}}]}],
    }]});
    let answer = send(&server, &[("content-type", JSON)], request.to_string().into_bytes()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("too many bytes of labels and samples"), "{}", answer.text());
}

#[tokio::test]
async fn storage_that_cannot_take_it_is_tried_again() {
    let server = Server::new();
    server.storage.fail_append.store(true, Ordering::Relaxed);
    let answer = send_json(&server, &json!([gauge("g", NOW, 1.0)])).await;
    let text = r#"{"code":14,"message":"storage unavailable: memory budget reached"}"#;
    check(&answer, 503, JSON, text, "append");
    assert_eq!(answer.header(header::RETRY_AFTER.as_str()), "5");
    server.storage.fail_append.store(false, Ordering::Relaxed);
    server.storage.fail_commit.store(true, Ordering::Relaxed);
    assert_eq!(send_json(&server, &json!([gauge("g", NOW, 1.0)])).await.status, 503);
    assert_eq!(server.state.metrics().writes_unavailable.get(), 2);
}

#[tokio::test]
async fn it_can_be_turned_off_and_names_kept() {
    let off = Server::with(HttpLimits { otlp: None, ..HttpLimits::default() }, EngineOptions::default());
    assert_eq!(send_json(&off, &json!([gauge("g", NOW, 1.0)])).await.status, 404);
    let options = OtlpOptions { names: NameStrategy::Untranslated, ..OtlpOptions::default() };
    let limits = HttpLimits { otlp: Some(options), ..HttpLimits::default() };
    let server = Server::with(limits, EngineOptions::default());
    assert_eq!(send_json(&server, &json!([gauge("cpu.load", NOW, 1.0)])).await.status, 200);
    assert_eq!(found(&server, "{\"cpu.load\"}").await[0]["value"][1], "1");
}
