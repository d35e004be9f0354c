//! The requests Grafana and vmalert send, and what they need to find in the answers.

use axum::{body::Body, http::Request};

use crate::harness::Server;

#[tokio::test]
async fn grafana_saves_and_tests_a_data_source() {
    let server = Server::new();
    let request = Request::post("/api/v1/query")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("user-agent", "Grafana/12.0")
        .header("accept-encoding", "gzip")
        .body(Body::from("query=1%2B1&time=4"));
    let answer = server.send(request.expect("a request")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#);

    // With features in it, Grafana takes the server for a Mimir.
    let build = server.get("/api/v1/status/buildinfo").await;
    assert!(build.text().contains(r#""version":"3.5.3""#), "{}", build.text());
    assert!(!build.text().contains("features"), "{}", build.text());
}

#[tokio::test]
async fn grafana_loads_a_data_source() {
    let server = Server::filled().await;
    // Milliseconds where seconds are meant.
    let form = "query=test&start=1795219200000&end=1795221000000";
    let exemplars = server.post("/api/v1/query_exemplars", form).await;
    assert_eq!((exemplars.status.as_u16(), exemplars.text()), (200, r#"{"status":"success","data":[]}"#));
    let range = "start=1795219200&end=1795222800";
    for (target, body) in [
        (
            format!("/api/v1/label/__name__/values?limit=40000&{range}"),
            r#"{"status":"success","data":["http_requests_total","up"]}"#,
        ),
        (
            "/api/v1/metadata?limit=40000".to_owned(),
            r#"{"status":"success","data":{"up":[{"type":"gauge","unit":"ratio","help":"Is it \u003cup\u003e?"}]}}"#,
        ),
        (
            format!(
                "/api/v1/label/U__http_2e_status/values?limit=40000&{range}&match%5B%5D=up%7Bjob%3D%22a%22%7D"
            ),
            r#"{"status":"success","data":["200"]}"#,
        ),
        ("/api/v1/rules".to_owned(), r#"{"status":"success","data":{"groups":[]}}"#),
        ("/api/v1/alerts".to_owned(), r#"{"status":"success","data":{"alerts":[]}}"#),
    ] {
        let answer = server.get(&target).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, body), "{target}");
    }
    for (target, form, body) in [
        (
            "/api/v1/labels",
            "limit=40000&start=1795219200&end=1795222800&match%5B%5D=up%7Bjob%3D%22a%22%7D",
            r#"{"status":"success","data":["__name__","http.status","job"]}"#,
        ),
        (
            "/api/v1/series",
            "match%5B%5D=up%7Bjob%3D%22b%22%7D&start=1795219200&end=1795222800",
            r#"{"status":"success","data":[{"__name__":"up","http.status":"200","job":"b"}]}"#,
        ),
    ] {
        let answer = server.post(target, form).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, body), "{target}");
    }
    // Suggestions: everything in the URL of a POST without body.
    let request = Request::post("/api/v1/labels?match%5B%5D=up&match%5B%5D=http_requests_total");
    let answer = server.send(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(answer.text(), r#"{"status":"success","data":["__name__","http.status","job"]}"#);
}

#[tokio::test]
async fn grafana_draws_a_panel() {
    let server = Server::filled().await;
    // `stats` is in the URL, the rest in the form.
    let form = "end=1795221262&query=up%7Bjob%3D%22a%22%7D&start=1795221202&step=15&timeout=60s";
    let answer = server.post("/api/v1/query_range?stats=all", form).await;
    let text = answer.text();
    assert_eq!(answer.status, 200, "{text}");
    // The type comes first, or Grafana reads the result twice.
    assert!(
        text.starts_with(r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":"#),
        "{text}"
    );
    assert!(text.contains(r#""values":[[1795221202,"1"],[1795221217,"2"],"#), "{text}");
    assert!(text.contains(r#""samples":{"totalQueryableSamples":"#), "{text}");
    let answer = server.post("/api/v1/query", "query=up&time=1795221261.123").await;
    assert!(answer.text().contains("\"value\":[1795221261.123,\"4\"]"), "{}", answer.text());
}

#[tokio::test]
async fn vmalert_puts_everything_into_the_url() {
    let server = Server::filled().await;
    let request = Request::post("/api/v1/query?query=up+%3E+1&step=300s&time=2026-11-21T00%3A34%3A22Z")
        .header("content-type", "application/json")
        .body(Body::empty());
    let answer = server.send(request.expect("a request")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("\"value\":[1795221262,\"5\"]"), "{}", answer.text());
}
