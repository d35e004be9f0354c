//! Remote write: what is stored, what is refused, and how that is said.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::Request,
};
use chronolith_model::{
    CounterResetHint, Exemplar, Histogram, HistogramSample, Labels, Sample, TenantId, TimeRange,
    histogram::{HistogramParts, Span},
    stale_nan,
};
use chronolith_promql::EngineOptions;
use chronolith_remote::{
    remote_write::{WriteRequestBuilder, encode_labels},
    snappy,
};
use chronolith_server::HttpLimits;
use chronolith_storage::{ExemplarQuery, Queryable as _};
use hyper::body::Frame;

use crate::harness::{Answer, NOW, Server, one_series};

const UP: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];

/// What the series selected by `selector` hold, by a query for 15 minutes until now.
async fn stored(server: &Server, selector: &str) -> String {
    let form = format!("query={selector}[15m]&time={}", NOW / 1000);
    server.post("/api/v1/query", &form).await.text().to_owned()
}

#[track_caller]
fn check(answer: &Answer, status: u16, text: &str, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.text()), (status, text), "{what}");
    if status != 204 {
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8", "{what}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{what}");
    }
}

async fn write_as(server: &Server, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let request = Request::post("/api/v1/write");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    server.send(request.body(Body::from(body)).expect("a request")).await
}

#[tokio::test]
async fn what_was_written_is_there_when_it_is_acknowledged() {
    let server = Server::new();
    let body = one_series(UP, &[(NOW - 2000, 1.0), (NOW - 1000, f64::NEG_INFINITY), (NOW, stale_nan())]);
    check(&server.write(body.clone()).await, 204, "", "first");
    let text = stored(&server, "up").await;
    assert!(text.contains("[[1795221260,\"1\"],[1795221261,\"-Inf\"]]"), "{text}");
    assert_eq!(server.storage.waits.load(Ordering::Relaxed), 1);
    // Only the last sample is known to be the same; a silent duplicate waits for its commit too.
    let last = one_series(UP, &[(NOW, stale_nan())]);
    check(&server.write(last).await, 204, "", "a duplicate");
    assert_eq!(server.storage.waits.load(Ordering::Relaxed), 2);
    assert_eq!(server.state.metrics().samples_duplicate.get(), 1);
}

#[tokio::test]
async fn types_and_encodings() {
    let server = Server::new();
    let body = one_series(UP, &[(NOW, 1.0)]);
    let protobuf = ("content-type", "application/x-protobuf");
    let snappy = ("content-encoding", "snappy");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Headers<'_>, u16, &str); 11] = [
        (&[protobuf, snappy], 204, ""),
        (&[], 204, ""),
        (&[("content-type", "application/x-protobuf;proto=prometheus.WriteRequest"), snappy], 204, ""),
        (
            &[("content-type", "application/x-protobuf; charset=utf-8; proto=prometheus.WriteRequest")],
            204,
            "",
        ),
        (
            &[protobuf, ("content-encoding", "zstd")],
            415,
            "zstd encoding (compression) is not accepted by this server; only snappy is acceptable\n",
        ),
        (
            &[protobuf, ("content-encoding", "gzip")],
            415,
            "gzip encoding (compression) is not accepted by this server; only snappy is acceptable\n",
        ),
        (
            &[("content-type", "application/json"), snappy],
            415,
            "expected application/x-protobuf as the first (media) part, got application/json content-type\n",
        ),
        (
            &[("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"), snappy],
            415,
            "io.prometheus.write.v2.Request protobuf message is not accepted by this server; only accepts \
             prometheus.WriteRequest\n",
        ),
        (
            // With a blank, Prometheus takes this for 1.0 and loses the data.
            &[("content-type", "application/x-protobuf; proto=io.prometheus.write.v2.Request"), snappy],
            415,
            "io.prometheus.write.v2.Request protobuf message is not accepted by this server; only accepts \
             prometheus.WriteRequest\n",
        ),
        (
            &[("content-type", "application/x-protobuf;proto=foo"), snappy],
            415,
            "got application/x-protobuf;proto=foo content type; unknown remote write protobuf message foo, \
             supported: prometheus.WriteRequest\n",
        ),
        (
            &[("content-type", "application/x-protobuf;foo"), snappy],
            415,
            "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, got foo \
             in application/x-protobuf;foo content-type\n",
        ),
    ];
    for (headers, status, text) in cases {
        check(&write_as(&server, headers, body.clone()).await, status, text, &format!("{headers:?}"));
    }
    assert!(stored(&server, "up").await.contains("[[1795221262,\"1\"]]"));
}

#[tokio::test]
async fn bodies_that_are_no_requests() {
    let server = Server::new();
    let good =
        WriteRequestBuilder::new().series(UP.iter().copied(), &[Sample::new(NOW, 1.0)]).message().to_vec();
    let block = snappy::compress(&good).expect("short");
    let compressed = |message: &[u8]| snappy::compress(message).expect("short");
    for (what, body, text) in [
        ("empty", Vec::new(), "snappy: corrupt input\n".to_owned()),
        ("not snappy", b"hello world".to_vec(), "snappy: corrupt input\n".to_owned()),
        ("truncated snappy", block[..block.len() - 1].to_vec(), "snappy: corrupt input\n".to_owned()),
        (
            "bomb",
            vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00],
            "snappy: decoded length 4294967295 exceeds limit 33554432\n".to_owned(),
        ),
        (
            "truncated message",
            compressed(&good[..good.len() - 1]),
            "unexpected EOF (at byte 2 of the decompressed body)\n".to_owned(),
        ),
        (
            "garbage",
            compressed(&[0xff; 20]),
            "proto: integer overflow (at byte 0 of the decompressed body)\n".to_owned(),
        ),
        (
            "wrong wire type",
            compressed(&[0x08, 0x01]),
            "proto: wrong wireType = 0 for field 1 (at byte 1 of the decompressed body)\n".to_owned(),
        ),
    ] {
        check(&server.write(body).await, 400, &text, what);
    }
    // Empty and unknown messages hold nothing, which is no fault.
    check(&server.write(compressed(&[])).await, 204, "", "an empty message");
    check(&server.write(compressed(&[0x38, 0x01])).await, 204, "", "an unknown field");
    assert_eq!(server.state.metrics().samples_stored.get(), 0);
}

#[tokio::test]
async fn what_is_valid_is_stored_beside_what_is_not() {
    let server = Server::new();
    check(&server.write(one_series(UP, &[(NOW - 5000, 1.0)])).await, 204, "", "before");
    let mut request = WriteRequestBuilder::new();
    let now = [Sample::new(NOW, 7.0)];
    request
        .series([("__name__", "good"), ("job", "a")], &now)
        .series(UP.iter().copied(), &[Sample::new(NOW - 6000, 1.0), Sample::new(NOW - 5000, 2.0), now[0]])
        .series([("job", "a")], &now)
        .series([("__name__", "twice"), ("x", "1"), ("x", "2")], &now)
        .series([("__name__", "future"), ("job", "a")], &[Sample::new(NOW + 3_600_000, 1.0)])
        .series([("__name__", "past"), ("job", "a")], &[Sample::new(1000, 1.0)])
        // Unsorted, with an empty value: the receiver puts it right.
        .series([("x", "1"), ("e", ""), ("__name__", "unsorted")], &now);
    let answer = server.write(request.snappy()).await;
    let text = "out of order sample for series {__name__=\"up\", job=\"a\"} at 1795221256000 (2026-11-21T00:34:16Z): older \
                than the newest sample of the series\n\
                duplicate sample for timestamp 1795221257000; overrides not allowed: existing 1, new value 2 for series \
                {__name__=\"up\", job=\"a\"}\n\
                invalid metric name or labels, got {job=\"a\"}\n\
                invalid labels for series, labels {__name__=\"twice\", x=\"1\", x=\"2\"}, duplicated label x\n\
                out of bounds: timestamp is too far in the future for series {__name__=\"future\", job=\"a\"} at \
                1795224862000 (2026-11-21T01:34:22Z): more than 10 minutes ahead of the clock of this server\n\
                out of bounds for series {__name__=\"past\", job=\"a\"} at 1000 (1970-01-01T00:00:01Z): older than \
                storage.retention\n";
    check(&answer, 400, text, "partial");
    assert!(stored(&server, "good").await.contains("[[1795221262,\"7\"]]"));
    assert!(stored(&server, "up").await.contains("[[1795221257,\"1\"],[1795221262,\"7\"]]"));
    assert!(stored(&server, "unsorted").await.contains("{\"__name__\":\"unsorted\",\"x\":\"1\"}"));
    let metrics = server.state.metrics();
    assert_eq!((metrics.samples_stored.get(), metrics.samples_rejected.get()), (4, 6));
    assert_eq!(metrics.partial_writes.with("out_of_order").get(), 1);
    assert_eq!(metrics.partial_writes.with("invalid_labels").get(), 1, "per request, not per sample");
}

#[tokio::test]
async fn only_the_first_reasons_are_told() {
    let server = Server::new();
    let mut request = WriteRequestBuilder::new();
    for index in 0..50 {
        request.series([("l", format!("{index}").as_str())], &[Sample::new(NOW, 1.0)]);
    }
    let answer = server.write(request.snappy()).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.text().lines().count(), 11, "{}", answer.text());
    let last = answer.text().lines().last();
    assert_eq!(last, Some("50 samples refused, the first reasons are above"));
}

#[tokio::test]
async fn histograms_are_named_and_floats_beside_them_stored() {
    let server = Server::new();
    let mut request = WriteRequestBuilder::new();
    // A series with a histogram and an exemplar.
    let mut series = encode_labels([("__name__", "h"), ("job", "a")]);
    series.extend([0x22, 0x02, 0x78, 0x01, 0x1a, 0x02, 0x18, 0x01]);
    request.encoded_series(&series, &[]).series(UP.iter().copied(), &[Sample::new(NOW, 1.0)]);
    let text = "native histograms are not supported yet for series {__name__=\"h\", job=\"a\"}\n";
    check(&server.write(request.snappy()).await, 400, text, "histogram");
    assert!(stored(&server, "up").await.contains("[[1795221262,\"1\"]]"));
    let metrics = server.state.metrics();
    assert_eq!((metrics.histograms_rejected.get(), metrics.exemplars_ignored.get()), (1, 1));
    // Exemplars alone never fail a request.
    let mut exemplar = encode_labels(UP.iter().copied());
    exemplar.extend([0x1a, 0x02, 0x18, 0x01]);
    let mut request = WriteRequestBuilder::new();
    check(&server.write(request.encoded_series(&exemplar, &[]).snappy()).await, 204, "", "exemplar");
}

#[tokio::test]
async fn histograms_and_exemplars_are_stored_where_the_engine_does() {
    let server = Server::new();
    server.storage.stores_all.store(true, Ordering::Relaxed);
    let labels = encode_labels([("__name__", "h"), ("job", "a")]);
    let parts = HistogramParts {
        count: 3_u64,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![3],
        ..HistogramParts::default()
    };
    let histogram: Histogram = parts.build(None).expect("valid").into();
    let exemplar = Exemplar { labels: Labels::from_pairs([("trace_id", "x")]), value: 1.0, timestamp: NOW };
    let given = [HistogramSample { timestamp: NOW, histogram: histogram.clone() }];
    let mut request = WriteRequestBuilder::new();
    request.histograms(&labels, &given, std::slice::from_ref(&exemplar));
    check(&server.write(request.snappy()).await, 204, "", "histogram");
    let metrics = server.state.metrics();
    assert_eq!((metrics.samples_stored.get(), metrics.histograms_rejected.get()), (1, 0));
    // Again, with another histogram at the same time and one that contradicts itself (count 7, no bucket).
    let mut other = histogram.clone();
    other.set_hint(CounterResetHint::Gauge);
    let mut request = WriteRequestBuilder::new();
    request.histograms(&labels, &[HistogramSample { timestamp: NOW, histogram: other }], &[]);
    check(&server.write(request.snappy()).await, 204, "", "hints do not make another sample");
    let mut request = WriteRequestBuilder::new();
    request.histograms(
        &labels,
        &[HistogramSample { timestamp: NOW, histogram: histogram.to_float().into() }],
        &[],
    );
    request.encoded_series(&[labels.clone(), vec![0x22, 0x02, 0x08, 0x07]].concat(), &[]);
    let text = "duplicate sample for timestamp for series {__name__=\"h\", job=\"a\"}\n0 observations found in buckets, \
                but the Count field is 7: histogram's observation count should equal the number of observations found \
                in the buckets (in absence of NaN) for series {__name__=\"h\", job=\"a\"}\n";
    check(&server.write(request.snappy()).await, 400, text, "refused histograms");
    assert_eq!(metrics.partial_writes.with("invalid_histogram").get(), 1);
    let querier = server.storage.memory.querier(&TenantId::default(), TimeRange::ALL).expect("ready");
    let query = ExemplarQuery { matcher_sets: vec![Vec::new()], range: TimeRange::ALL, payer: None };
    let found = querier.exemplars(&query).await.expect("exemplars");
    assert_eq!(found[0].exemplars, [exemplar]);
    let answer = stored(&server, "h").await;
    assert!(answer.contains(r#""histograms":[["#), "{answer}");
}

/// A body that comes in parts, of a length nobody knows before.
struct Parts(Vec<Bytes>);

impl HttpBody for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(|part| Ok(Frame::data(part))))
    }
}

#[tokio::test]
async fn bodies_above_the_limits() {
    let limits =
        HttpLimits { write_body_max_bytes: 1000, write_decoded_max_bytes: 2000, ..HttpLimits::default() };
    let server = Server::with(limits, EngineOptions::default());
    let text = "request body too large, the limit is 1000 bytes\n";
    check(&server.write(vec![0; 1001]).await, 413, text, "compressed");
    // The same without a declared length.
    let parts = (0..3).map(|_| Bytes::from(vec![0; 400])).collect();
    let stream = Body::new(Parts(parts));
    let request = Request::post("/api/v1/write").body(stream).expect("a request");
    check(&server.send(request).await, 413, text, "in parts");
    let mut request = WriteRequestBuilder::new();
    for _ in 0..100 {
        request.series(UP.iter().copied(), &[Sample::new(NOW, 1.0)]);
    }
    let body = request.snappy();
    assert!(body.len() < 1000 && request.message().len() > 2000);
    let text = format!("snappy: decoded length {} exceeds limit 2000\n", request.message().len());
    check(&server.write(body).await, 400, &text, "decompressed");
    check(&server.write(one_series(UP, &[(NOW, 1.0)])).await, 204, "", "below both");
}

#[tokio::test]
async fn storage_that_cannot_asks_for_a_retry() {
    let server = Server::new();
    let body = one_series(UP, &[(NOW, 1.0)]);
    server.storage.fail_append.store(true, Ordering::Relaxed);
    let answer = server.write(body.clone()).await;
    check(&answer, 503, "storage unavailable: memory budget reached\n", "append");
    assert_eq!(answer.header("retry-after"), "5");
    server.storage.fail_append.store(false, Ordering::Relaxed);
    server.storage.fail_commit.store(true, Ordering::Relaxed);
    let answer = server.write(body.clone()).await;
    check(&answer, 503, "storage unavailable: write-ahead log: No space left on device\n", "commit");
    assert_eq!(answer.header("retry-after"), "5");
    // A refusal does not hide that nothing is durable.
    let answer = server.write(one_series(UP, &[(NOW - 1, 1.0)])).await;
    assert_eq!(answer.status, 503);
    assert_eq!(server.state.metrics().writes_unavailable.get(), 3);
    server.storage.fail_commit.store(false, Ordering::Relaxed);
    check(&server.write(body).await, 204, "", "again");
}
