//! The query log, as requests fill it.

use std::{path::PathBuf, time::Duration};

use chronolith_promql::EngineOptions;
use chronolith_server::{HttpLimits, QueryLog};

use crate::harness::Server;

struct Log(PathBuf);

impl Log {
    fn new(name: &str) -> Self {
        let name = format!("chronolith-queries-{}-{name}.log", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn lines(&self, server: &Server) -> Vec<String> {
        assert!(server.state.query_log().expect("a log").flush(Duration::from_secs(30)));
        let text = std::fs::read_to_string(&self.0).expect("a file");
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn what_is_evaluated_is_logged() {
    let log = Log::new("all");
    let engine = EngineOptions { series_max: 2, per_step_stats: true, ..EngineOptions::default() };
    let server = Server::filled_with(HttpLimits::default(), engine).await;
    server.state.set_query_log(QueryLog::open(&log.0).expect("opened"));
    server.get("/api/v1/query?query=sum(up)&time=1795221262").await;
    let range = "query=up&start=1795221202.5&end=1795221262&step=29.5&stats=all";
    server.post("/api/v1/query_range", range).await;
    server.get("/api/v1/query?query=%7Bjob=~%22.%2B%22%7D&time=1795221262").await;
    // No query is evaluated here.
    server.get("/api/v1/query?query=up%7B").await;
    server.get("/api/v1/query_range?query=up%5B5m%5D&start=0&end=1&step=1").await;
    server.get("/api/v1/query?query=up&explain=1").await;
    let failing = server.get("/api/v1/query?query=%7Bjob=~%22.%2B%22%7D&time=1795221262&explain=1").await;
    assert_eq!(failing.status, 422, "{}", failing.text());
    server.get("/api/v1/labels").await;
    let lines = log.lines(&server);
    let [instant, range, failed] = lines.as_slice() else { panic!("{lines:#?}") };
    let begin = concat!(
        r#"{"time":"2026-11-21T00:34:22.000Z","level":"INFO","msg":"promql query logged","#,
        r#""params":{"end":"2026-11-21T00:34:22.000Z","query":"#
    );
    let expected =
        r#""sum(up)","start":"2026-11-21T00:34:22.000Z","step":0},"stats":{"timings":{"evalTotalTime":"#;
    assert!(instant.starts_with(&format!("{begin}{expected}")), "{instant}");
    let end = concat!(
        r#""samples":{"totalQueryableSamples":2,"peakSamples":2}},"#,
        r#""httpRequest":{"clientIP":"","method":"GET","path":"/api/v1/query"}}"#
    );
    assert!(instant.ends_with(end), "{instant}");
    let expected = r#""up","start":"2026-11-21T00:33:22.500Z","step":29},"stats""#;
    assert!(range.starts_with(&format!("{begin}{expected}")), "{range}");
    let end = r#""httpRequest":{"clientIP":"","method":"POST","path":"/api/v1/query_range"}}"#;
    assert!(range.contains(r#""samples":{"totalQueryableSamplesPerStep":[[1795221202.5,2],"#), "{range}");
    assert!(range.ends_with(end), "{range}");
    let expected = concat!(
        r#""{job=~\".+\"}","start":"2026-11-21T00:34:22.000Z","step":0},"#,
        r#""error":"query selects more than 2 series, the limit of this server","stats":{"timings":{"#
    );
    assert!(failed.starts_with(&format!("{begin}{expected}")), "{failed}");
    let metrics = server.get("/metrics").await;
    assert!(metrics.text().contains("\nchronolith_query_log_enabled 1\n"), "{}", metrics.text());
    assert!(metrics.text().contains("\nchronolith_query_log_failures_total 0\n"));
}

#[tokio::test]
async fn a_full_disk_fails_no_query() {
    let server = Server::filled().await;
    assert!(server.state.query_log().is_none());
    server.state.set_query_log(QueryLog::open("/dev/full".as_ref()).expect("opened"));
    let answer = server.get("/api/v1/query?query=up").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(server.state.query_log().expect("a log").flush(Duration::from_secs(30)));
    let metrics = server.get("/metrics").await;
    assert!(metrics.text().contains("\nchronolith_query_log_failures_total 1\n"), "{}", metrics.text());
}
