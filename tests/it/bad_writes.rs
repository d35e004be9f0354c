//! Bodies that no sender should send: each is answered as the specification says, and harms nothing else.

use chronolith_e2e::http::Client;
use chronolith_e2e::remote_write::{HEADERS, WriteRequest, compress, encode_labels, put_varint};
use chronolith_e2e::servers::Server;

use crate::scratch::{Pairs, Scratch, body, now_ms, read, write};

const MIB: usize = 1 << 20;

type Headers<'a> = &'a [(&'a str, &'a str)];

#[test]
fn malformed_requests_get_their_status_and_the_server_lives_on() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let now = now_ms();
    let good = body(&[(&[("__name__", "good")], now, 1.0)]);
    let mut truncated = good.clone();
    truncated.truncate(good.len() - 3);
    let mut bomb = Vec::new();
    put_varint(&mut bomb, 1 << 30);
    bomb.extend_from_slice(&[0xfe, 0xff, 0xff, 0x01, 0x00, 0xfe, 0xff, 0xff]);
    let oversized = vec![0u8; 40 * MIB];
    let json = [("Content-Type", "application/json"), HEADERS[1]];
    let gzip = [HEADERS[0], ("Content-Encoding", "gzip")];
    let zstd = [HEADERS[0], ("Content-Encoding", "zstd")];
    let unknown_proto = [("Content-Type", "application/x-protobuf;proto=nosuch.Message"), HEADERS[1]];
    let decompressed = compress(&vec![0u8; 40 * MIB]);
    let cases: &[(&str, Headers<'_>, &[u8], u16)] = &[
        ("truncated snappy", HEADERS, &truncated, 400),
        ("not snappy", HEADERS, b"this is no snappy block at all", 400),
        ("empty body", HEADERS, b"", 400),
        ("JSON", &json, &good, 415),
        ("unknown protobuf message", &unknown_proto, &good, 415),
        ("gzip", &gzip, &good, 415),
        ("zstd, as vmagent tries first", &zstd, &good, 415),
        ("bomb by its header", HEADERS, &bomb, 400),
        ("bomb by its content", HEADERS, &decompressed, 400),
        ("oversized body", HEADERS, &oversized, 413),
        ("protobuf garbage", HEADERS, &compress(&[0xff; 64]), 400),
        ("truncated protobuf", HEADERS, &compress(&[0x0a, 0x55, 0x0a, 0x13]), 400),
        ("group wire type", HEADERS, &compress(&[0x0b, 0x0c]), 400),
    ];
    for (what, headers, bytes, expected) in cases {
        // A connection of its own: an early answer to a large body ends it.
        let answer = server.client().send("POST", "/api/v1/write", headers, bytes);
        let response = answer.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(response.status, *expected, "{what}: {}", response.text());
        assert!(!response.text().trim().is_empty(), "{what}: no text");
    }
    let mut client = server.client();
    assert_eq!(client.get("/api/v1/write").expect("an answer").status, 405);
    expect_alive(&server, &mut client, now);
}

#[test]
fn a_partly_invalid_request_stores_its_valid_samples() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut client = server.client();
    let now = now_ms();
    let long_name = "n".repeat(5_000);
    let long_value = "v".repeat(100_000);
    let many: Vec<(String, String)> = (0..500).map(|i| (format!("l{i:03}"), "x".to_owned())).collect();
    let mut too_many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    too_many.insert(0, ("__name__", "bad"));
    let day = 86_400_000;
    let bad: &[(&str, Pairs<'_>, i64)] = &[
        ("no name", &[("a", "b")], now),
        ("duplicate label", &[("__name__", "bad"), ("a", "1"), ("a", "2")], now),
        ("empty label name", &[("", "x"), ("__name__", "bad")], now),
        ("label name too long", &[("__name__", "bad"), (&long_name, "x")], now),
        ("label value too long", &[("__name__", "bad"), ("a", &long_value)], now),
        ("too many labels", &too_many, now),
        ("tomorrow", &[("__name__", "bad"), ("when", "future")], now + day),
        ("1970", &[("__name__", "bad"), ("when", "past")], 1_000),
        ("before 1970", &[("__name__", "bad"), ("when", "negative")], -5),
        ("the end of time", &[("__name__", "bad"), ("when", "max")], i64::MAX),
        ("no labels", &[], now),
    ];
    for (i, (what, pairs, t)) in bad.iter().enumerate() {
        let case = i.to_string();
        let before: &[(&str, &str)] = &[("__name__", "good"), ("case", &case), ("place", "before")];
        let after: &[(&str, &str)] = &[("__name__", "good"), ("case", &case), ("place", "after")];
        let request = body(&[(before, now, 1.0), (pairs, *t, 2.0), (after, now, 3.0)]);
        let response = write(&mut client, &request).expect("an answer");
        assert_eq!(response.status, 400, "{what}: {}", response.text());
        assert!(!response.text().trim().is_empty(), "{what}: no text");
        let stored = read(&mut client, &format!("good{{case=\"{case}\"}}[1m]"), now).expect("an answer");
        assert_eq!(stored.len(), 2, "{what}: {stored:?}");
    }
    let stored = read(&mut client, "bad[10m]", now).expect("an answer");
    assert!(stored.is_empty(), "{stored:?}");
    expect_alive(&server, &mut client, now);
}

#[test]
fn labels_are_put_in_order_and_empty_ones_dropped() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut client = server.client();
    let now = now_ms();
    let orders: [&[(&str, &str)]; 3] = [
        &[("z", "1"), ("a", "2"), ("__name__", "order")],
        &[("__name__", "order"), ("a", "2"), ("z", "1")],
        &[("__name__", "order"), ("a", "2"), ("empty", ""), ("z", "1")],
    ];
    for (i, pairs) in orders.iter().enumerate() {
        let response = write(&mut client, &body(&[(pairs, now + i as i64, i as f64)])).expect("an answer");
        assert!(response.ok(), "{} {}", response.status, response.text());
    }
    let stored = read(&mut client, "order[1m]", now + 10).expect("an answer");
    assert_eq!(stored.len(), 1, "one series, not three: {stored:?}");
    let samples = stored.values().next().expect("one series");
    assert_eq!(samples, &[(now, 0.0), (now + 1, 1.0), (now + 2, 2.0)]);
}

#[test]
fn order_and_duplicates_within_a_series() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut client = server.client();
    let now = now_ms();
    let name: &[(&str, &str)] = &[("__name__", "s")];
    let cases = [
        ("first", now, 1.0, 204),
        ("the same again", now, 1.0, 204),
        ("another value", now, 2.0, 400),
        ("late", now - 1_000, 1.0, 204),
        ("late, another value", now - 1_000, 2.0, 400),
        ("too late", now - 3_601_000, 1.0, 400),
        ("newer", now + 1_000, f64::NAN, 204),
        ("the same NaN again", now + 1_000, f64::NAN, 204),
    ];
    for (what, t, v, status) in cases {
        let response = write(&mut client, &body(&[(name, t, v)])).expect("an answer");
        assert_eq!(response.status, status, "{what}: {}", response.text());
    }
    let stored = read(&mut client, "s[1m]", now + 1_000).expect("an answer");
    let samples = stored.values().next().expect("one series");
    assert_eq!(samples.len(), 3, "{samples:?}");
    assert_eq!(samples[..2], [(now - 1_000, 1.0), (now, 1.0)]);
    assert!(samples[2].1.is_nan());
}

#[test]
fn metadata_and_empty_requests_are_accepted() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut client = server.client();
    // MetricMetadata { type: COUNTER, metric_family_name: "m_total", help: "h" }
    let mut metadata = vec![0x08, 0x01, 0x12, 0x07];
    metadata.extend_from_slice(b"m_total");
    metadata.extend_from_slice(&[0x22, 0x01, b'h']);
    let mut message = vec![0x1a];
    put_varint(&mut message, metadata.len() as u64);
    message.extend_from_slice(&metadata);
    for (what, message) in [("metadata", message.as_slice()), ("empty", &[])] {
        let response = write(&mut client, &compress(message)).expect("an answer");
        assert!(response.ok(), "{what}: {} {}", response.status, response.text());
    }
    let answer = client.get("/api/v1/metadata").expect("an answer").text();
    assert!(answer.contains("m_total") && answer.contains("counter"), "{answer}");
}

#[test]
fn a_histogram_is_stored_with_the_floats_beside_it() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut client = server.client();
    let now = now_ms();
    let mut request = WriteRequest::new();
    request.push_sample(&encode_labels([("__name__", "float_beside")]), now, 1.0);
    let floats = request.message().to_vec();
    let message = |sum: f64| [floats.clone(), with_histogram(now, sum)].concat();
    // A repeated request is no error; another histogram in place of the one that is there is.
    for _ in 0..2 {
        let response = write(&mut client, &compress(&message(1.0))).expect("an answer");
        assert!(response.ok(), "{} {}", response.status, response.text());
    }
    let response = write(&mut client, &compress(&message(2.0))).expect("an answer");
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(response.text().contains("native_histogram"), "{}", response.text());
    assert_eq!(read(&mut client, "float_beside[1m]", now).expect("an answer").len(), 1);
    expect_alive(&server, &mut client, now);
}

/// A series of a request, with a native histogram.
fn with_histogram(now: i64, sum: f64) -> Vec<u8> {
    let mut message = Vec::new();
    let mut series = encode_labels([("__name__", "native_histogram")]);
    // Histogram { count_int: 1, sum, schema: 0, zero_threshold: 1e-3, zero_count_int: 1, timestamp: now }
    let mut histogram = vec![0x08, 0x01, 0x19];
    histogram.extend_from_slice(&sum.to_le_bytes());
    histogram.extend_from_slice(&[0x20, 0x00, 0x29]);
    histogram.extend_from_slice(&1e-3f64.to_le_bytes());
    histogram.extend_from_slice(&[0x30, 0x01, 0x78]);
    put_varint(&mut histogram, now as u64);
    series.push(0x22);
    put_varint(&mut series, histogram.len() as u64);
    series.extend_from_slice(&histogram);
    message.push(0x0a);
    put_varint(&mut message, series.len() as u64);
    message.extend_from_slice(&series);
    message
}

fn expect_alive(server: &Server, client: &mut Client, now: i64) {
    let response = write(client, &body(&[(&[("__name__", "alive")], now, 1.0)])).expect("an answer");
    assert!(response.ok(), "{} {}", response.status, response.text());
    assert_eq!(read(client, "alive[1m]", now).expect("an answer").len(), 1);
    let log = server.process().log_text();
    assert!(!log.contains("panicked"), "{log}");
}
