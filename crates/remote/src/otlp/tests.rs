use chronolith_model::Histogram;
use chronolith_storage::{KeyHasher, LabelSource};

use super::*;

/// Protobuf by hand.
#[derive(Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn key(mut self, field: u32, wire_type: u8) -> Self {
        put_varint(&mut self.0, u64::from(field << 3 | u32::from(wire_type)));
        self
    }

    fn varint(self, field: u32, value: u64) -> Self {
        let mut this = self.key(field, crate::wire::VARINT);
        put_varint(&mut this.0, value);
        this
    }

    fn fixed(self, field: u32, value: u64) -> Self {
        let mut this = self.key(field, crate::wire::FIXED64);
        this.0.extend_from_slice(&value.to_le_bytes());
        this
    }

    fn double(self, field: u32, value: f64) -> Self {
        self.fixed(field, value.to_bits())
    }

    fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        put_bytes(&mut self.0, field, value);
        self
    }

    fn message(self, field: u32, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// An attribute with a text.
    fn attribute(self, field: u32, key: &str, value: &str) -> Self {
        let value = Self::default().bytes(1, value.as_bytes());
        self.message(field, Self::default().bytes(1, key.as_bytes()).message(2, value))
    }
}

const SECOND: u64 = 1_000_000_000;

fn point(at: u64) -> Message {
    Message::default().fixed(2, SECOND).fixed(3, at * SECOND).attribute(7, "http.method", "GET")
}

fn metric(name: &str, unit: &str) -> Message {
    Message::default().bytes(1, name.as_bytes()).bytes(2, b"What it is.").bytes(3, unit.as_bytes())
}

fn request(metrics: impl IntoIterator<Item = Message>) -> Message {
    let resource = Message::default()
        .attribute(1, "service.name", "shop")
        .attribute(1, "service.namespace", "prod")
        .attribute(1, "service.instance.id", "i-1")
        .attribute(1, "host.name", "h1");
    let scope = Message::default().bytes(1, b"lib").bytes(2, b"1.0");
    let scope =
        metrics.into_iter().fold(Message::default().message(1, scope), |scope, m| scope.message(2, m));
    Message::default().message(1, Message::default().message(1, resource).message(2, scope))
}

fn decode(request: &Message) -> OtlpSamples {
    decode_protobuf(&request.0, &KeyHasher::new(1), &OtlpOptions::default()).unwrap()
}

/// One line per sample.
fn shown(samples: &OtlpSamples) -> Vec<String> {
    let batch = samples.batch();
    let mut lines = Vec::new();
    for (index, entry) in batch.series.iter().enumerate() {
        let labels = samples.labels(index).unwrap();
        let floats = batch.samples_of(entry).iter().map(|s| format!("{}@{}", s.value, s.timestamp));
        let natives = batch.histograms_of(entry).iter().map(|s| format!("native@{}", s.timestamp));
        lines.extend(floats.chain(natives).map(|s| format!("{labels} {s} since {}", entry.start_timestamp)));
    }
    lines
}

#[test]
fn sums_and_gauges_become_floats_and_the_resource_target_info() {
    let sum = Message::default().message(1, point(10).double(4, 5.5)).varint(2, 2).varint(3, 1);
    let gauge = Message::default().message(1, point(20).fixed(6, (-3_i64).cast_unsigned()));
    let samples = decode(&request([
        metric("requests", "1").message(7, sum),
        metric("temperature", "Cel").message(5, gauge),
    ]));
    assert_eq!(
        shown(&samples),
        [
            r#"{__name__="requests_total", http_method="GET", instance="i-1", job="prod/shop"} 5.5@10000 since 1000"#,
            r#"{__name__="temperature_celsius", http_method="GET", instance="i-1", job="prod/shop"} -3@20000 since 1000"#,
            r#"{__name__="target_info", host_name="h1", instance="i-1", job="prod/shop"} 1@10000 since 0"#,
            r#"{__name__="target_info", host_name="h1", instance="i-1", job="prod/shop"} 1@20000 since 0"#,
        ]
    );
    let kinds: Vec<_> = samples.metadata().iter().map(|m| (m.metric.as_str(), m.kind.as_str())).collect();
    assert_eq!(kinds, [("requests_total", "counter"), ("temperature_celsius", "gauge")]);
}

#[test]
fn explicit_buckets_are_cumulative_and_carry_exemplars() {
    let exemplar = |value| Message::default().fixed(2, 9 * SECOND).double(3, value).bytes(5, &[0xab; 16]);
    let packed = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let point = Message::default()
        .fixed(3, 10 * SECOND)
        .fixed(4, 6)
        .double(5, 12.5)
        .bytes(6, &packed(&[1, 2, 3]))
        .bytes(7, &packed(&[0.5_f64.to_bits(), 2_f64.to_bits()]))
        .message(8, exemplar(0.7))
        .message(8, exemplar(7.0));
    let histogram = Message::default().message(1, point).varint(2, 2);
    let samples = decode(&request([metric("latency", "s").message(9, histogram)]));
    let lines: Vec<String> =
        shown(&samples).iter().map(|line| line.replace(r#", instance="i-1", job="prod/shop""#, "")).collect();
    let start = "10000 since 0";
    assert_eq!(
        lines[..5],
        [
            format!(r#"{{__name__="latency_seconds_sum"}} 12.5@{start}"#),
            format!(r#"{{__name__="latency_seconds_count"}} 6@{start}"#),
            format!(r#"{{__name__="latency_seconds_bucket", le="0.5"}} 1@{start}"#),
            format!(r#"{{__name__="latency_seconds_bucket", le="2"}} 3@{start}"#),
            format!(r#"{{__name__="latency_seconds_bucket", le="+Inf"}} 6@{start}"#),
        ]
    );
    let labels = samples.exemplar_labels();
    let batch = samples.exemplar_batch(&labels);
    let bounds: Vec<String> =
        (0..batch.series.len()).map(|i| labels.labels(i).unwrap().get("le").unwrap().to_owned()).collect();
    assert_eq!(bounds, ["2", "+Inf"]);
    assert_eq!(batch.exemplars[0].labels.get("trace_id"), Some("ab".repeat(16).as_str()));
}

#[test]
fn exponential_histograms_become_native_ones() {
    let side = |offset: u64, counts: &[u8]| Message::default().varint(1, offset).bytes(2, counts);
    // Zigzag: offset -2 is 3. Buckets -2, -1, 4 hold 1, 2, 5; the gap between is too long to be kept.
    let point = |scale: u64| {
        Message::default()
            .fixed(3, 10 * SECOND)
            .fixed(4, 11)
            .double(5, 3.5)
            .varint(6, scale)
            .fixed(7, 2)
            .message(8, side(3, &[1, 2, 0, 0, 0, 0, 5]))
            .message(9, side(0, &[1]))
    };
    let histogram = |scale| Message::default().message(1, point(scale)).varint(2, 2);
    let samples = decode(&request([metric("size", "By").message(10, histogram(2))]));
    let Histogram::Integer(native) = &samples.batch().histograms[0].histogram else { panic!("integers") };
    let layout = native.layout();
    let spans: Vec<(i32, u32)> = layout.positive_spans().iter().map(|s| (s.offset, s.length)).collect();
    assert_eq!((layout.schema(), layout.zero_threshold()), (1, 1e-128));
    // Bucket i of OpenTelemetry is (b^i, b^(i+1)], ours is named by its upper bound.
    assert_eq!(spans, [(-1, 2), (4, 1)]);
    assert_eq!(native.positive_buckets(), [1, 2, 5]);
    assert_eq!(native.negative_buckets(), [1]);
    assert_eq!((native.count(), native.zero_count(), native.sum()), (11, 2, 3.5));

    // Scale 10 (zigzag 20) is finer than the finest: four buckets become one.
    let samples = decode(&request([metric("size", "By").message(10, histogram(20))]));
    let Histogram::Integer(native) = &samples.batch().histograms[0].histogram else { panic!("integers") };
    assert_eq!(native.layout().schema(), 8);
    assert_eq!(native.positive_buckets(), [3, 0, 5]);

    // Scale -5 (zigzag 9) is coarser than any schema.
    let samples = decode(&request([metric("size", "By").message(10, histogram(9))]));
    assert_eq!(samples.refused(), 1);
    assert!(samples.refusals()[0].contains("Scale must be >= -4, was -5"), "{:?}", samples.refusals());
}

#[test]
fn points_without_a_value_are_stale_markers() {
    let gone = point(10).varint(8, 1);
    let gauge = Message::default().message(1, gone);
    let exponential = Message::default().fixed(3, 10 * SECOND).varint(10, 1);
    let exponential = Message::default().message(1, exponential).varint(2, 2);
    let samples =
        decode(&request([metric("a", "").message(5, gauge), metric("b", "").message(10, exponential)]));
    assert!(chronolith_model::is_stale(samples.batch().samples[0].value));
    assert!(samples.batch().histograms[0].histogram.is_stale());
}

#[test]
fn differences_are_refused_and_named() {
    let delta = Message::default().message(1, point(10).double(4, 1.0)).varint(2, 1).varint(3, 1);
    let gauge = Message::default().message(1, point(10).double(4, 1.0));
    let samples = decode(&request([metric("d", "").message(7, delta), metric("g", "").message(5, gauge)]));
    assert_eq!(samples.refused(), 1);
    assert_eq!(samples.refusals(), ["invalid temporality and type combination for metric \"d\""]);
    assert!(shown(&samples)[0].starts_with("{__name__=\"g\""));
}

#[test]
fn json_says_the_same_as_protobuf() {
    let json = br#"{"resourceMetrics":[{"resource":{"attributes":[
        {"key":"service.name","value":{"stringValue":"shop"}},
        {"key":"service.namespace","value":{"stringValue":"prod"}},
        {"key":"service.instance.id","value":{"stringValue":"i-1"}},
        {"key":"host.name","value":{"stringValue":"h1"}}]},
      "scopeMetrics":[{"scope":{"name":"lib","version":"1.0"},"metrics":[
        {"name":"requests","unit":"1","description":"What it is.","unknown":[1],
         "sum":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","isMonotonic":true,"dataPoints":[
           {"startTimeUnixNano":"1000000000","timeUnixNano":10000000000,"asDouble":5.5,
            "attributes":[{"key":"http.method","value":{"stringValue":"GET"}}]}]}}]}]}]}"#;
    let sum = Message::default().message(1, point(10).double(4, 5.5)).varint(2, 2).varint(3, 1);
    let of_protobuf = decode(&request([metric("requests", "1").message(7, sum)]));
    let of_json = decode_json(json, &KeyHasher::new(1), &OtlpOptions::default()).unwrap();
    assert_eq!(shown(&of_json), shown(&of_protobuf));
    assert_eq!(of_json.metadata(), of_protobuf.metadata());

    let bad = decode_json(
        br#"{"resourceMetrics":[{"scopeMetrics":7}]}"#,
        &KeyHasher::new(1),
        &OtlpOptions::default(),
    );
    assert!(matches!(bad, Err(OtlpError::Json(text)) if text.contains("line 1 column")));
}

#[test]
fn values_of_attributes_are_texts_or_json() {
    let value = |value: Message| Message::default().bytes(1, b"v").message(2, value);
    let array = Message::default().message(
        5,
        Message::default()
            .message(1, Message::default().bytes(1, b"a\"b"))
            .message(1, Message::default().varint(3, 7))
            .message(1, Message::default().double(4, 1e21)),
    );
    for (attribute, expected) in [
        (Message::default().varint(2, 1), "true"),
        (Message::default().varint(3, (-5_i64).cast_unsigned()), "-5"),
        (Message::default().double(4, 0.5), "0.5"),
        (Message::default().bytes(7, b"foo"), "Zm9v"),
        (array, r#"["a\"b",7,1e+21]"#),
    ] {
        let point = Message::default().fixed(3, SECOND).double(4, 1.0).message(7, value(attribute));
        let gauge = Message::default().message(1, point);
        let samples = decode(&request([metric("g", "").message(5, gauge)]));
        assert_eq!(samples.labels(0).unwrap().get("v"), Some(expected));
    }
}

#[test]
fn promotion_and_scope_are_options() {
    let gauge = Message::default().message(1, point(10).double(4, 1.0));
    let body = request([metric("g", "").message(5, gauge)]);
    let options = OtlpOptions {
        promoted: vec!["host.name".to_owned()],
        promote_scope: true,
        keep_identifying: true,
        names: NameStrategy::Untranslated,
        ..OtlpOptions::default()
    };
    let samples = decode_protobuf(&body.0, &KeyHasher::new(1), &options).unwrap();
    let labels = samples.labels(0).unwrap();
    for (name, value) in [
        ("host.name", "h1"),
        ("otel_scope_name", "lib"),
        ("otel_scope_version", "1.0"),
        ("http.method", "GET"),
    ] {
        assert_eq!(labels.get(name), Some(value), "{name}");
    }
    assert_eq!(samples.labels(1).unwrap().get("service.name"), Some("shop"));
}

#[test]
fn types_and_units_are_labels_if_asked_for() {
    let sum = |monotonic: u64| {
        let point = point(10).double(4, 1.0).attribute(7, "__type__", "mine");
        Message::default().message(1, point).varint(2, 2).varint(3, monotonic)
    };
    let body = request([metric("a", "By/s").message(7, sum(1)), metric("b", "1").message(7, sum(0))]);
    let labels = |type_and_unit_labels| {
        let options = OtlpOptions { type_and_unit_labels, ..OtlpOptions::default() };
        let samples = decode_protobuf(&body.0, &KeyHasher::new(1), &options).unwrap();
        [0, 1, 2].map(|index| {
            let labels = samples.labels(index).unwrap();
            ["__name__", "__type__", "__unit__"]
                .map(|name| labels.get(name).unwrap_or("-").to_owned())
                .join(" ")
        })
    };
    assert_eq!(
        labels(true),
        ["a_bytes_per_second_total counter bytes_per_second", "b gauge -", "target_info - -"]
    );
    assert_eq!(labels(false), ["a_bytes_per_second_total mine -", "b mine -", "target_info - -"]);
}

#[test]
fn what_a_request_may_need_is_bounded() {
    // Two bytes a data point.
    let points = vec![[0x0a_u8, 0x00]; 1 << 20].concat();
    let body = request([metric("g", "").bytes(5, &points)]);
    let error = decode_protobuf(&body.0, &KeyHasher::new(1), &OtlpOptions::default()).unwrap_err();
    assert!(error.to_string().contains("too many bytes of data points"), "{error}");
    let deep = (0..40).fold(Message::default().varint(3, 1), |inner, _| {
        Message::default().message(5, Message::default().message(1, inner))
    });
    let attribute = Message::default().bytes(1, b"v").message(2, deep);
    let gauge = Message::default().message(1, Message::default().message(7, attribute));
    let error = decode_protobuf(
        &request([metric("g", "").message(5, gauge)]).0,
        &KeyHasher::new(1),
        &OtlpOptions::default(),
    );
    assert!(error.unwrap_err().to_string().contains("levels of an attribute's value"));
    let long = vec![b' '; JSON_BYTES_MAX + 1];
    let error = decode_json(&long, &KeyHasher::new(1), &OtlpOptions::default()).unwrap_err();
    assert!(error.to_string().contains("too many bytes of JSON"));
}

mod garbage {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn changed_bytes_never_panic(place in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let sum = Message::default().message(1, point(10).double(4, 5.5)).varint(2, 2).varint(3, 1);
            let mut body = request([metric("requests", "1").message(7, sum)]).0;
            let at = place.index(body.len());
            body[at] = byte;
            let _ = decode_protobuf(&body, &KeyHasher::new(1), &OtlpOptions::default());
            body.truncate(cut.index(body.len()));
            let _ = decode_protobuf(&body, &KeyHasher::new(1), &OtlpOptions::default());
        }
    }
}
