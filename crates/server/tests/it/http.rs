//! Routes, methods, headers, compression, readiness.

use std::io::Read as _;

use axum::{body::Body, http::Request};
use chronolith_promql::EngineOptions;
use chronolith_server::{CorsOrigins, HttpLimits};

use crate::harness::{Answer, Server};

async fn send(server: &Server, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let request = Request::builder().method(method).uri(target);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    server.send(request.body(Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let server = Server::new();
    for target in ["/api/v1/nosuch", "/nosuch/x", "/api/v1/label/a%2Fb/value"] {
        let answer = server.get(target).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (404, "404 page not found\n"), "{target}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    for (method, target, allow) in [
        ("DELETE", "/api/v1/labels", "GET, OPTIONS, POST"),
        ("POST", "/api/v1/metadata", "GET, OPTIONS"),
        ("HEAD", "/api/v1/labels", "GET, OPTIONS, POST"),
        ("GET", "/api/v1/write", "OPTIONS, POST"),
        ("POST", "/-/ready", "GET, HEAD, OPTIONS"),
        ("GET", "/api/v1/admin/tsdb/delete_series", "OPTIONS, POST, PUT"),
    ] {
        let answer = send(&server, method, target, &[]).await;
        assert_eq!(answer.status, 405, "{method} {target}");
        assert_eq!(answer.header("allow"), allow, "{method} {target}");
        if method != "HEAD" {
            assert_eq!(answer.text(), "Method Not Allowed\n");
        }
    }
}

#[tokio::test]
async fn paths_that_are_nearly_right() {
    let server = Server::new();
    for (target, location) in [
        ("/api/v1//labels", "/api/v1/labels"),
        ("/api/v1/labels/", "/api/v1/labels"),
        ("//api/v1/label/a/values", "/api/v1/label/a/values"),
    ] {
        let answer = server.get(target).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (301, location), "{target}");
        assert_eq!(answer.text(), format!("<a href=\"{location}\">Moved Permanently</a>.\n\n"));
    }
    // Doubled slashes are taken out whatever that leads to.
    let answer = server.get("/api/v1/label//values").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (301, "/api/v1/label/values"));
    assert_eq!(server.get("/api/v1/label/values").await.status, 404);
    assert_eq!(server.get("/nosuch/").await.status, 404);
    let answer = server.get("//a\"'&b").await;
    assert_eq!(answer.text(), "<a href=\"/a&#34;&#39;&amp;b\">Moved Permanently</a>.\n\n");
    assert_eq!(send(&server, "POST", "/api/v1/write/", &[]).await.status, 308);
}

#[tokio::test]
async fn the_other_routes() {
    let server = Server::new();
    let ready = server.get("/-/ready").await;
    assert_eq!((ready.status.as_u16(), ready.text()), (200, "Prometheus Server is Ready.\n"));
    let healthy = server.get("/-/healthy").await;
    assert_eq!((healthy.status.as_u16(), healthy.text()), (200, "Prometheus Server is Healthy.\n"));
    let version = server.get("/version").await;
    assert!(version.text().starts_with("{\"version\":\"3.5.3\","), "{}", version.text());
    assert!(version.text().ends_with("}\n"));
    for (method, target, status, text) in [
        ("POST", "/-/reload", 403, "Lifecycle API is not enabled."),
        ("PUT", "/-/quit", 403, "Lifecycle API is not enabled."),
        ("GET", "/-/quit", 405, "Only POST or PUT requests allowed"),
    ] {
        let answer = send(&server, method, target, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (status, text), "{method} {target}");
    }
    let page = server.get("/").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.text().contains("<dd id=\"samples\">42</dd>"), "figures are in the page itself");
    assert!(!page.text().contains("{{"), "every placeholder is filled");
    assert!(
        !page.text().contains("//cdn") && !page.text().contains("src=\"http"),
        "no assets from elsewhere"
    );
}

#[tokio::test]
async fn own_metrics_are_a_valid_exposition() {
    let server = Server::filled().await;
    let _ = server.get("/api/v1/labels").await;
    let _ = server.get("/nosuch").await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let limits = chronolith_remote::exposition::ExpositionLimits::default();
    let parsed = chronolith_remote::exposition::parse(answer.text(), &limits).expect("valid");
    let value = |labels: &str| {
        let found = parsed.samples.iter().find(|sample| sample.labels.to_string() == labels);
        found.unwrap_or_else(|| panic!("no {labels} in\n{}", answer.text())).value
    };
    let requests = |code: &str, handler: &str| {
        format!("{{__name__=\"chronolith_http_requests_total\", code=\"{code}\", handler=\"{handler}\"}}")
    };
    assert_eq!(value(&requests("200", "/api/v1/labels")), 1.0);
    assert_eq!(value(&requests("204", "/api/v1/write")), 1.0);
    assert_eq!(value(&requests("404", "other")), 1.0);
    assert_eq!(value("{__name__=\"chronolith_remote_write_samples_total\"}"), 15.0);
    assert_eq!(value("{__name__=\"chronolith_remote_write_metadata_total\"}"), 1.0);
    assert_eq!(value("{__name__=\"chronolith_test_gauge\"}"), 1.0);
    assert_eq!(value("{__name__=\"chronolith_ready\"}"), 1.0);
    assert!(!answer.text().contains("handler=\"/metrics\""), "a request is counted after its answer");
    assert!(server.state.metrics_text().contains("handler=\"/metrics\""));
}

#[tokio::test]
async fn before_storage_is_open_and_after_shutdown_began() {
    let server = Server::starting(HttpLimits::default(), EngineOptions::default());
    let closed = async |server: &Server, stopping: &str| {
        for (method, target) in [
            ("GET", "/api/v1/labels"),
            ("POST", "/api/v1/write"),
            ("GET", "/-/ready"),
            ("GET", "/api/v1/rules"),
        ] {
            let answer = send(server, method, target, &[]).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (503, "Service Unavailable"), "{target}");
            assert_eq!(answer.header("x-prometheus-stopping"), stopping);
        }
        for target in ["/-/healthy", "/metrics", "/", "/version", "/api/v1/status/walreplay"] {
            assert_eq!(server.get(target).await.status, 200, "{target}");
        }
        assert_eq!(server.get("/nosuch").await.status, 404);
        assert_eq!(server.get("/api/v1/write").await.status, 405);
    };
    closed(&server, "false").await;
    server.ready();
    assert_eq!(server.get("/-/ready").await.status, 200);
    server.state.set_stopping();
    closed(&server, "true").await;
}

#[tokio::test]
async fn web_pages_of_other_origins() {
    let server = Server::new();
    let answer = send(&server, "OPTIONS", "/api/v1/labels", &[("origin", "http://x")]).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (204, ""));
    for (name, value) in [
        ("access-control-allow-origin", "http://x"),
        ("access-control-allow-headers", "Accept, Authorization, Content-Type, Origin"),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        ("access-control-expose-headers", "Date"),
        ("vary", "Origin"),
    ] {
        assert_eq!(answer.header(name), value);
    }
    let answer = send(&server, "GET", "/api/v1/labels", &[("origin", "http://x")]).await;
    assert_eq!(answer.header("access-control-allow-origin"), "http://x");
    let answer = send(&server, "GET", "/api/v1/labels", &[]).await;
    assert_eq!(answer.header("access-control-allow-origin"), "");

    let cors = CorsOrigins::List(vec!["https://grafana.example.org".to_owned()]);
    let server = Server::with(HttpLimits { cors, ..HttpLimits::default() }, EngineOptions::default());
    for (origin, allowed) in
        [("https://grafana.example.org", "https://grafana.example.org"), ("https://evil.example.org", "")]
    {
        let answer = send(&server, "GET", "/api/v1/labels", &[("origin", origin)]).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, allowed));
    }
}

#[tokio::test]
async fn answers_are_compressed_from_a_kibibyte_on() {
    let server = Server::new();
    let long = "/api/v1/query_range?query=1&start=0&end=11000&step=1";
    let plain = server.get(long).await;
    assert_eq!(plain.header("content-encoding"), "");
    assert_eq!(plain.header("content-length"), plain.body.len().to_string());
    for (accept, encoding) in [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("br;q=1.0, gzip;q=0.1", "gzip"),
        ("identity", ""),
    ] {
        let answer = send(&server, "GET", long, &[("accept-encoding", accept)]).await;
        assert_eq!(answer.header("content-encoding"), encoding, "{accept}");
        assert_eq!(answer.header("content-type"), "application/json");
        let mut text = String::new();
        let read = match encoding {
            "gzip" => flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text),
            "deflate" => flate2::read::ZlibDecoder::new(&answer.body[..]).read_to_string(&mut text),
            "zstd" => {
                zstd::Decoder::new(&answer.body[..]).and_then(|mut from| from.read_to_string(&mut text))
            }
            _ => (&answer.body[..]).read_to_string(&mut text),
        };
        assert!(read.is_ok(), "{accept}");
        assert_eq!(text, plain.text(), "{accept}");
        if !encoding.is_empty() {
            assert!(answer.body.len() < plain.body.len() / 2);
            assert_eq!(answer.headers("vary"), "Accept-Encoding, Origin");
        }
    }
    // Scrapers ask for gzip too.
    let metrics = send(&server, "GET", "/metrics", &[("accept-encoding", "gzip")]).await;
    assert_eq!(metrics.header("content-encoding"), "gzip");
    let short = send(&server, "GET", "/api/v1/query?query=1", &[("accept-encoding", "gzip")]).await;
    assert_eq!(short.header("content-encoding"), "");
}

#[tokio::test]
async fn a_form_above_the_limit() {
    let limits = HttpLimits { form_body_max_bytes: 100, ..HttpLimits::default() };
    let server = Server::with(limits, EngineOptions::default());
    let answer = server.post("/api/v1/query", &format!("query=1&x={}", "y".repeat(100))).await;
    assert_eq!(answer.status, 413);
    let text = r#"{"status":"error","errorType":"bad_data","error":"request body too large, the limit is 100 bytes"}"#;
    assert_eq!(answer.text(), text);
    assert_eq!(server.post("/api/v1/query", "query=1").await.status, 200);
}

#[tokio::test]
async fn requests_that_ask_for_too_much() {
    let server = Server::filled().await;
    let error =
        |kind: &str, text: &str| format!(r#"{{"status":"error","errorType":"{kind}","error":"{text}"}}"#);
    let regexes = |count: usize| {
        let matchers: Vec<_> = (0..count).map(|i| format!("l{i}=~\"x%7C\"")).collect();
        format!("match[]=up{{{}}}&match[]={{job=~\".%2B\"}}", matchers.join(","))
    };
    let answer = server.post("/api/v1/labels", &regexes(999)).await;
    assert_eq!((answer.status.as_u16(), answer.text().contains("http.status")), (200, true));
    let text = "more than 1000 regular expressions in match[] parameters";
    let answer = server.post("/api/v1/labels", &regexes(1000)).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (400, error("bad_data", text).as_str()));

    for endpoint in ["/api/v1/query", "/api/v1/format_query", "/api/v1/query_exemplars"] {
        let deep = format!("query={}1{}", "(".repeat(100_000), ")".repeat(100_000));
        let long = format!("query={}1", "1-".repeat(600_000));
        let regex = "query=up{job=~\"((a{1,900}){1,900}){1,900}\"}".to_owned();
        for (form, text) in [
            (deep, "expression is nested deeper than 250 levels"),
            (long, "is longer than 1048576 bytes"),
            (regex, "needs an automaton above the limit of"),
        ] {
            let answer = server.post(endpoint, &form).await;
            assert_eq!(answer.status, 400, "{endpoint} {text}");
            assert!(answer.text().contains(text), "{endpoint}: {}", answer.text());
            assert!(answer.body.len() < 1000, "the answer does not repeat the question");
        }
    }
}
