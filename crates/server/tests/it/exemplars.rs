//! `query_exemplars`, from a remote write on.

use std::sync::atomic::Ordering;

use chronolith_model::{Exemplar, Labels, Sample};
use chronolith_promql::EngineOptions;
use chronolith_remote::remote_write::{WriteRequestBuilder, encode_labels};
use chronolith_server::HttpLimits;
use chronolith_storage::MemoryBudget;

use crate::harness::{Answer, NOW, Server};

fn exemplar(trace: &str, value: f64, timestamp: i64) -> Exemplar {
    Exemplar { labels: Labels::from_pairs([("trace_id", trace)]), value, timestamp }
}

/// Two series of `h` and one of `up`; those of job b have no sample.
async fn filled(limits: HttpLimits, engine: EngineOptions) -> Server {
    let server = Server::with(limits, engine);
    server.storage.stores_all.store(true, Ordering::Relaxed);
    let mut request = WriteRequestBuilder::new();
    request.series([("__name__", "up"), ("job", "a")], &[Sample::new(NOW, 1.0)]);
    for (name, job, exemplars) in [
        ("h", "b", vec![exemplar("<3>", f64::INFINITY, NOW - 1)]),
        ("h", "a", vec![exemplar("1", 6.0, NOW - 21), exemplar("2", 1e-7, NOW)]),
        ("up", "a", vec![exemplar("4", f64::NAN, NOW - 500)]),
    ] {
        let labels = encode_labels([("__name__", name), ("job", job)]);
        request.histograms(&labels, &[], &exemplars);
    }
    let answer = server.write(request.snappy()).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (204, ""));
    server
}

async fn ask(server: &Server, parameters: &str) -> Answer {
    server.get(&format!("/api/v1/query_exemplars?{parameters}")).await
}

#[tokio::test]
async fn exemplars_of_the_series_of_all_selectors_are_answered() {
    let server = filled(HttpLimits::default(), EngineOptions::default()).await;
    let of_a = r#"{"seriesLabels":{"__name__":"h","job":"a"},"exemplars":[{"labels":{"trace_id":"1"},"value":"6","timestamp":1795221261.979},{"labels":{"trace_id":"2"},"value":"1e-07","timestamp":1795221262}]}"#;
    let of_a_before = r#"{"seriesLabels":{"__name__":"h","job":"a"},"exemplars":[{"labels":{"trace_id":"1"},"value":"6","timestamp":1795221261.979}]}"#;
    let of_b = r#"{"seriesLabels":{"__name__":"h","job":"b"},"exemplars":[{"labels":{"trace_id":"<3>"},"value":"+Inf","timestamp":1795221261.999}]}"#;
    let of_up = r#"{"seriesLabels":{"__name__":"up","job":"a"},"exemplars":[{"labels":{"trace_id":"4"},"value":"NaN","timestamp":1795221261.500}]}"#;
    for (parameters, found) in [
        ("query=h".to_owned(), [of_a, of_b].join(",")),
        // Whatever the query makes of its series, and whatever the times of its selectors.
        ("query=sum(rate(h{job=\"a\"}[5m]+offset+1d))+/+h".replace('"', "%22"), [of_a, of_b].join(",")),
        ("query=up+or+h{job=~\"b|c\"}+@+0".replace('"', "%22"), [of_b, of_up].join(",")),
        ("query=h&end=1795221261.9785".to_owned(), String::new()),
        // Both ends are included.
        ("query=h&start=1795221261.979&end=1795221261.979".to_owned(), of_a_before.to_owned()),
        ("query=h&start=1795221261.980&end=1795221261.999".to_owned(), of_b.to_owned()),
        ("query=nosuch".to_owned(), String::new()),
    ] {
        let answer =
            ask(&server, &parameters.replace('{', "%7B").replace('}', "%7D").replace('|', "%7C")).await;
        let expected = format!(r#"{{"status":"success","data":[{found}]}}"#);
        assert_eq!((answer.status.as_u16(), answer.text()), (200, &*expected), "{parameters}");
    }
    // Nothing to look for.
    assert_eq!(ask(&server, "query=vector(1)").await.status, 204);
}

#[tokio::test]
async fn answers_about_exemplars_are_limited_and_charged() {
    let memory = MemoryBudget::new(64 << 20);
    let engine = EngineOptions { memory: memory.clone(), ..EngineOptions::default() };
    let limits = HttpLimits { matcher_sets_max: 2, ..HttpLimits::default() };
    let server = filled(limits, engine).await;
    // Equal selectors are one.
    assert_eq!(ask(&server, "query=h-h-h-up").await.status, 200);
    let refused = ask(&server, "query=h-up-x").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("more than 2 different selectors"), "{}", refused.text());
    let others = memory.reserve(64 << 20).expect("all of it");
    let refused = ask(&server, "query=h").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "5"));
    drop(others);
    assert_eq!(memory.used(), 0, "everything was given back");

    let engine = EngineOptions { memory_max_bytes: 100_000, ..EngineOptions::default() };
    let server = filled(HttpLimits::default(), engine).await;
    assert_eq!(ask(&server, "query=h").await.status, 200);
    let labels = encode_labels([("__name__", "h"), ("job", "a")]);
    let many: Vec<_> = (0..1_000).map(|i| exemplar("5", 1.0, NOW + i)).collect();
    let mut request = WriteRequestBuilder::new();
    request.histograms(&labels, &[], &many);
    assert_eq!(server.write(request.snappy()).await.status, 204);
    let refused = ask(&server, "query=h").await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("query processing would take more than 100000 bytes of memory"));
    let few = format!("query=h&end={}", NOW / 1000);
    assert_eq!(ask(&server, &few).await.status, 200);
}
