//! Queries that nobody should ask: errors as Prometheus', in bounded time, and the server lives on.

use std::time::{Duration, Instant};

use chronolith_e2e::http::Client;
use serde_json::Value as Json;

use crate::scratch::{Scratch, body, now_ms, write};

/// Longest time any of these may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn get(client: &mut Client, path: &str, form: &[(&str, &str)]) -> (u16, Json) {
    let begin = Instant::now();
    let response =
        client.post_form(path, form).unwrap_or_else(|e| panic!("{path} {:.300}: {e}", format!("{form:?}")));
    let took = begin.elapsed();
    assert!(took < PATIENCE, "{path} {:.300} took {took:?}", format!("{form:?}"));
    let json = serde_json::from_slice(&response.body).unwrap_or(Json::Null);
    (response.status, json)
}

#[test]
fn wrong_parameters_are_bad_data() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut client = server.client();
    let query = "/api/v1/query";
    let range = "/api/v1/query_range";
    let q = ("query", "up");
    let cases: &[(&str, &[(&str, &str)])] = &[
        (query, &[]),
        (query, &[("query", "")]),
        (query, &[("query", "foo{")]),
        (query, &[q, ("time", "foo")]),
        (query, &[q, ("timeout", "1x")]),
        (query, &[q, ("limit", "-1")]),
        (query, &[q, ("limit", "x")]),
        (query, &[q, ("lookback_delta", "abc")]),
        (range, &[q]),
        (range, &[q, ("start", "0"), ("end", "10")]),
        (range, &[q, ("start", "x"), ("end", "10"), ("step", "1")]),
        (range, &[q, ("start", "10"), ("end", "1"), ("step", "1")]),
        (range, &[q, ("start", "1"), ("end", "10"), ("step", "0")]),
        (range, &[q, ("start", "1"), ("end", "10"), ("step", "-1")]),
        (range, &[q, ("start", "0"), ("end", "11001"), ("step", "1")]),
        (range, &[q, ("start", "0"), ("end", "1e12"), ("step", "1")]),
        (range, &[("query", "up[5m]"), ("start", "1"), ("end", "10"), ("step", "1")]),
        ("/api/v1/series", &[]),
        ("/api/v1/series", &[("match[]", "{}")]),
        ("/api/v1/series", &[("match[]", "{a=")]),
        ("/api/v1/labels", &[("match[]", "foo{")]),
        ("/api/v1/labels", &[("start", "foo")]),
    ];
    for (path, form) in cases {
        let (status, json) = get(&mut client, path, form);
        assert_eq!((status, json["errorType"].as_str()), (400, Some("bad_data")), "{path} {form:?}: {json}");
        assert!(json["error"].as_str().is_some_and(|e| !e.is_empty()), "{path} {form:?}: {json}");
    }
    // As large as allowed is allowed.
    let widest = [q, ("start", "0"), ("end", "11000"), ("step", "1")];
    assert_eq!(get(&mut client, range, &widest).0, 200);
    let (status, _) = get(&mut client, "/api/v1/nosuch", &[]);
    assert_eq!(status, 404);
}

#[test]
fn monstrous_expressions_are_refused_or_answered_in_time() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut client = server.client();
    let now = now_ms();
    let series: Vec<String> = (0..200).map(|i| format!("{}{i}", "a".repeat(30))).collect();
    for value in &series {
        let request = body(&[(&[("__name__", "m"), ("l", value)], now, 1.0)]);
        assert!(write(&mut client, &request).expect("an answer").ok());
    }
    let time = format!("{}", now / 1000 + 1);
    let nested = |open: &str, n: usize, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    let long_alternation = (0..20_000).map(|i| format!("x{i}")).collect::<Vec<_>>().join("|");
    // What is malformed or too large is 400, what would load too much 422, what runs out of time 503.
    let cases: Vec<(&str, u16, String)> = vec![
        ("parentheses", 400, nested("(", 50_000, "1", ")")),
        ("unclosed parentheses", 400, "(".repeat(100_000)),
        ("calls", 400, nested("abs(", 50_000, "m", ")")),
        ("unary minus", 400, format!("{}m", "-".repeat(100_000))),
        ("aggregations", 400, nested("sum(", 30_000, "m", ")")),
        ("binary chain", 400, vec!["m"; 20_000].join(" + ")),
        ("power chain", 400, vec!["2"; 20_000].join(" ^ ")),
        ("subqueries", 400, format!("m{}", "[1m:1s]".repeat(1_000))),
        ("nested subqueries", 503, nested("max_over_time(", 60, "m", "[1h:1s])")),
        ("regex repetition", 400, "m{l=~\"(((a{1000}){1000}){1000})\"}".to_owned()),
        ("regex backtracking", 200, "m{l=~\"(a*)*(a*)*(a*)*b\"}".to_owned()),
        ("regex alternation", 200, format!("m{{l=~\"{long_alternation}\"}}")),
        ("regex classes", 200, "m{l=~\"(\\\\pL|\\\\pN|.){500}x\"}".to_owned()),
        ("huge range", 400, "count_over_time(m[1000y])".to_owned()),
        ("huge offset", 400, "m offset 100000y".to_owned()),
        ("huge at", 400, "m @ 1e300".to_owned()),
        ("fine subquery", 422, "count_over_time(m[30d:1ms])".to_owned()),
        ("many labels", 200, format!("sum by ({}) (m)", vec!["l"; 20_000].join(","))),
        ("huge string", 400, format!("\"{}\"", "x".repeat(2_000_000))),
        ("nul and controls", 200, "m{l=\"\u{0}\u{1}\"}".to_owned()),
    ];
    for (what, expected, expr) in &cases {
        let form = [("query", expr.as_str()), ("time", &time), ("timeout", "5s")];
        let (status, json) = get(&mut client, "/api/v1/query", &form);
        let error = json["error"].as_str().unwrap_or_default();
        assert_eq!(status, *expected, "{what}: {error:.300}");
        assert_eq!(status != 200, !error.is_empty(), "{what}: {status} {error:.300}");
    }
    let (status, json) = get(&mut client, "/api/v1/query", &[("query", "count(m)"), ("time", &time)]);
    assert_eq!((status, json["data"]["result"][0]["value"][1].as_str()), (200, Some("200")), "{json}");
    let log = server.process().log_text();
    assert!(!log.contains("panicked"), "{log:.4000}");
    // An allocation for what a query names rather than for what exists would show here.
    let stats = server.process().stats().expect("a living server");
    assert!(stats.hwm_bytes < 3 << 30, "{} MB", stats.hwm_bytes >> 20);
}

#[test]
fn a_query_out_of_time_is_a_timeout() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut client = server.client();
    let now = now_ms();
    for i in 0..500 {
        let id = i.to_string();
        let request = body(&[(&[("__name__", "m"), ("i", &id)], now, 1.0)]);
        assert!(write(&mut client, &request).expect("an answer").ok());
    }
    let time = format!("{}", now / 1000 + 1);
    let expr = "max_over_time(sum(rate(m[5m]))[5d:100ms])";
    let form = [("query", expr), ("time", time.as_str()), ("timeout", "20ms")];
    let (status, json) = get(&mut client, "/api/v1/query", &form);
    assert_eq!((status, json["errorType"].as_str()), (503, Some("timeout")), "{json:.300}");
}
