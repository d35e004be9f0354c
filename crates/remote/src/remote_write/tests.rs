use chronolith_model::{Labels, MetricMetadata, MetricType, STALE_NAN_BITS, Sample, stale_nan};
use chronolith_storage::{KeyHasher, LabelSource as _, RejectReason};
use proptest::prelude::*;

use super::*;
use crate::wire::{WireError, WireFault};

mod extras;

fn decoded_with(body: &[u8], limits: &DecodeLimits) -> Result<DecodedWrite, WireError> {
    let mut into = DecodedWrite::default();
    decode(body, &KeyHasher::new(7), limits, &mut into).map(|()| into)
}

fn decoded(body: &[u8]) -> Result<DecodedWrite, WireError> {
    decoded_with(body, &DecodeLimits::default())
}

/// Every series with its labels and samples, as text.
fn shown(body: &[u8]) -> Vec<String> {
    let limits = DecodeLimits::default();
    let decoded = decoded(body).expect("well-formed");
    let labels = decoded.labels(body, &limits);
    let series = decoded.series().iter().enumerate();
    series
        .map(|(index, entry)| {
            let range = entry.samples.start as usize..entry.samples.end as usize;
            let samples: Vec<_> =
                decoded.samples()[range].iter().map(|s| format!("{}@{}", s.value, s.timestamp)).collect();
            let labels = match labels.labels(index) {
                Ok(labels) => labels.to_string(),
                Err(reason) => reason.to_string(),
            };
            format!("{labels} {}", samples.join(" "))
        })
        .collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A body that Prometheus 3.5.3 sent.
fn golden() -> Vec<u8> {
    hex("0a55 0a13 0a08 5f5f6e616d655f5f 1207 615f746f74616c 0a06 0a01 78 1201 31
         120c 09 000000000000f03f 10 e807 120c 09 0000000000000040 10 d00f
         120c 09 0000000000000040 10 b817 120c 09 0000000000000c40 10 9423
         0a2b 0a13 0a08 5f5f6e616d655f5f 1207 615f746f74616c 0a06 0a0178 120132 120c 09 0000000000001c40 10 d00f")
}

#[test]
fn what_prometheus_sends() {
    let body = golden();
    let expected = [
        "{__name__=\"a_total\", x=\"1\"} 1@1000 2@2000 2@3000 3.5@4500",
        "{__name__=\"a_total\", x=\"2\"} 7@2000",
    ];
    assert_eq!(shown(&body), expected);
    let decoded = decoded(&body).unwrap();
    assert_ne!(decoded.series()[0].key, decoded.series()[1].key);
}

#[test]
fn what_the_builder_makes_is_what_prometheus_sends() {
    let mut builder = WriteRequestBuilder::new();
    let samples = [(1000, 1.0), (2000, 2.0), (3000, 2.0), (4500, 3.5)].map(|(t, v)| Sample::new(t, v));
    builder.series([("__name__", "a_total"), ("x", "1")], &samples);
    builder.series([("__name__", "a_total"), ("x", "2")], &[Sample::new(2000, 7.0)]);
    assert_eq!(builder.message(), golden());
}

#[test]
fn every_cut_of_a_body_is_refused_with_its_place() {
    let body = golden();
    for cut in 1..body.len() {
        match decoded(&body[..cut]) {
            // The first series is whole: a message that ends between two records is one.
            Ok(decoded) => assert_eq!((cut, decoded.series().len()), (0x57, 1)),
            Err(error) => {
                assert_eq!(error.fault, WireFault::Truncated, "cut at {cut}");
                assert!(error.offset <= cut);
            }
        }
    }
}

#[test]
fn errors_say_what_and_where() {
    for (body, text) in [
        ("0a", "unexpected EOF (at byte 1 of the decompressed body)"),
        ("0aff", "unexpected EOF (at byte 1 of the decompressed body)"),
        ("0a05 12", "unexpected EOF (at byte 2 of the decompressed body)"),
        ("0a02 1205", "unexpected EOF (at byte 4 of the decompressed body)"),
        ("00", "proto: illegal tag (at byte 0 of the decompressed body)"),
        ("3b", "proto: illegal wireType 3 (at byte 1 of the decompressed body)"),
        ("08 01", "proto: wrong wireType = 0 for field 1 (at byte 1 of the decompressed body)"),
        ("0a04 1202 0800", "proto: wrong wireType = 0 for field 1 (at byte 5 of the decompressed body)"),
        ("0a ffffffffffffffffff7f", "proto: integer overflow (at byte 1 of the decompressed body)"),
        ("0a ffffffffffffffffff01", "unexpected EOF (at byte 11 of the decompressed body)"),
    ] {
        let error = decoded(&hex(body)).expect_err(text);
        assert_eq!(error.to_string(), text, "{body}");
    }
}

#[test]
fn labels_in_any_place_and_order() {
    // Sample first, then one label, an unknown field, another label.
    let label = |name: &str, value: &str| encode_labels([(name, value)]);
    let sample = hex("120c 09 000000000000f03f 10 e807");
    let mut series = sample.clone();
    series.extend(label("x", "1"));
    series.extend(hex("3801"));
    series.extend(label("__name__", "a"));
    series.extend(&sample);
    let mut body = vec![0x0a, series.len() as u8];
    body.extend(&series);
    assert_eq!(shown(&body), ["{__name__=\"a\", x=\"1\"} 1@1000 1@1000"]);

    // The same records together are the same series.
    let mut together = WriteRequestBuilder::new();
    together.series([("x", "1"), ("__name__", "a")], &[Sample::new(1000, 1.0)]);
    let key = |body: &[u8]| decoded(body).unwrap().series()[0].key;
    assert_eq!(key(&body), key(together.message()));
}

#[test]
fn long_labels_take_the_general_path() {
    for length in [127, 128, 5000, 16_000] {
        let value = "v".repeat(length);
        let mut builder = WriteRequestBuilder::new();
        builder.series([("__name__", "a"), ("l", &value), ("m", "1")], &[Sample::new(1, 1.0)]);
        assert_eq!(shown(builder.message()), [format!("{{__name__=\"a\", l=\"{value}\", m=\"1\"}} 1@1")]);
    }
}

#[test]
fn defaults_left_out_and_unknown_fields() {
    // An empty sample is 0 at 0; a sample with an unknown fixed32 field; a repeated value, the last counts.
    let mut body = hex("0a00 0a0d 0a08 5f5f6e616d655f5f 1201 61 1200 1205 1d 01020304
                        1214 09 000000000000f03f 1005 09 0000000000000040");
    body[1] = (body.len() - 2) as u8;
    assert_eq!(shown(&body), ["{__name__=\"a\"} 0@0 0@0 2@5"]);
}

#[test]
fn special_values_keep_their_bits() {
    let values = [stale_nan(), f64::NAN, f64::from_bits(0x7ff8_0000_0000_0001), f64::NEG_INFINITY, -0.0];
    let samples: Vec<_> = values.iter().map(|value| Sample::new(i64::MIN, *value)).collect();
    let mut builder = WriteRequestBuilder::new();
    builder.series([("__name__", "a")], &samples);
    let decoded = decoded(builder.message()).unwrap();
    let bits: Vec<_> = decoded.samples().iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
    assert_eq!(bits[0], (i64::MIN, STALE_NAN_BITS));
    assert_eq!(bits, samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect::<Vec<_>>());
}

#[test]
fn labels_that_may_not_be_stored() {
    let limits = DecodeLimits {
        labels_per_series_max: 3,
        label_name_bytes_max: 8,
        label_value_bytes_max: 10,
        ..DecodeLimits::default()
    };
    let name = ("__name__", "a");
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[name, ("b", ""), ("a", "1")], "{__name__=\"a\", a=\"1\"}"),
        (&[("x", "1")], "invalid metric name or labels, got {x=\"1\"}"),
        (&[("__name__", ""), ("x", "1")], "invalid metric name or labels, got {__name__=\"\", x=\"1\"}"),
        (&[name, ("", "1")], "invalid metric name or labels, got {=\"1\", __name__=\"a\"}"),
        (
            &[name, ("x", "1"), ("x", "2")],
            "invalid labels for series, labels {__name__=\"a\", x=\"1\", x=\"2\"}, duplicated label x",
        ),
        (&[name, ("x", "1"), ("x", "")], "{__name__=\"a\", x=\"1\"}"),
        (
            &[name, ("b", "1"), ("c", "1"), ("d", "1")],
            "too many labels for series, labels {__name__=\"a\", b=\"1\", c=\"1\", d=\"1\"}: 4 labels, the limit is 3",
        ),
        (
            &[name, ("toolongname", "1")],
            "label name too long for series, labels {__name__=\"a\", toolongname=\"1\"}: 11 bytes, the limit is 8",
        ),
        (
            &[name, ("b", "0123456789a")],
            "label value too long for series, labels {__name__=\"a\", b=\"0123456789a\"}: value of b has 11 bytes, \
             the limit is 10",
        ),
    ];
    for (pairs, expected) in cases {
        let mut builder = WriteRequestBuilder::new();
        builder.series(pairs.iter().copied(), &[Sample::new(1, 1.0)]);
        let decoded = decoded_with(builder.message(), &limits).unwrap();
        let text = match decoded.labels(builder.message(), &limits).labels(0) {
            Ok(labels) => labels.to_string(),
            Err(RejectReason::InvalidLabels { text, .. }) => text,
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(text, expected);
    }
}

#[test]
fn names_and_values_that_are_not_text() {
    // __name__="a", \xff="1" and __name__="a", b="\xff".
    for label in ["0a06 0a01ff 120131", "0a06 0a0162 1201ff"] {
        let mut body = hex(&format!("0a00 0a0d 0a08 5f5f6e616d655f5f 1201 61 {label} 1202 1001"));
        body[1] = (body.len() - 2) as u8;
        let text = shown(&body).remove(0);
        assert!(text.starts_with("invalid metric name or labels, got {__name__=\"a\", "), "{text}");
        assert!(text.contains("not valid UTF-8"), "{text}");
    }
    // A label record whose inside is cut: the series is refused, not the request.
    let body = hex("0a08 0a02 0a05 1202 1001");
    assert_eq!(shown(&body), ["malformed labels: unexpected EOF 0@1"]);
}

#[test]
fn refusals_do_not_repeat_a_huge_label_set() {
    let value = "v".repeat(10_000);
    let pairs: Vec<_> = (0..200).map(|index| (format!("l{index}"), value.clone())).collect();
    let mut builder = WriteRequestBuilder::new();
    builder.series(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())), &[Sample::new(1, 1.0)]);
    let text = shown(builder.message()).remove(0);
    assert!(text.len() < 2000, "{}", text.len());
}

#[test]
fn histograms_exemplars_and_metadata_beside_floats() {
    let mut series = encode_labels([("__name__", "h")]);
    series.extend(hex("2202 7801 2202 7802 1a02 1801 120c 09 000000000000f03f 10 e807"));
    let mut builder = WriteRequestBuilder::new();
    // Only histograms and exemplars: no float series.
    builder.encoded_series(&[encode_labels([("__name__", "only")]), hex("2202 7801 1a00")].concat(), &[]);
    builder.encoded_series(&series, &[]);
    let metadata = MetricMetadata {
        metric: "h".to_owned(),
        kind: MetricType::Histogram,
        unit: "seconds".to_owned(),
        help: "How long.".to_owned(),
    };
    builder.metadata(&metadata).metadata(&MetricMetadata::default());
    let limits = DecodeLimits::default();
    let mut decoded = decoded(builder.message()).unwrap();
    assert_eq!((decoded.histograms(), decoded.exemplars(), decoded.metadata_ignored()), (3, 2, 1));
    assert_eq!(shown(builder.message()), ["{__name__=\"h\"} 1@1000"]);
    let labels = decoded.labels(builder.message(), &limits);
    let named: Vec<_> = decoded
        .histogram_series()
        .iter()
        .map(|series| (labels.of_histograms(series).unwrap().to_string(), series.histograms))
        .collect();
    assert_eq!(named, [("{__name__=\"only\"}".to_owned(), 1), ("{__name__=\"h\"}".to_owned(), 2)]);
    assert_eq!(decoded.take_metadata(), [metadata]);
}

#[test]
fn each_limit_of_a_request_holds() {
    let limits = DecodeLimits {
        series_per_request_max: 2,
        samples_per_request_max: 3,
        metadata_per_request_max: 1,
        ..DecodeLimits::default()
    };
    let sample = [Sample::new(1, 1.0)];
    let mut builder = WriteRequestBuilder::new();
    builder.series([("__name__", "a")], &sample).series([("__name__", "b")], &[sample[0]; 2]);
    assert!(decoded_with(builder.message(), &limits).is_ok());
    let mut many_samples = builder.clone();
    many_samples.clear();
    many_samples.series([("__name__", "a")], &[sample[0]; 4]);
    let error = decoded_with(many_samples.message(), &limits).unwrap_err();
    assert_eq!(error.fault, WireFault::TooMany { what: "samples", limit: 3 });
    let mut many_series = WriteRequestBuilder::new();
    for name in ["a", "b", "c"] {
        many_series.series([("__name__", name)], &sample);
    }
    let error = decoded_with(many_series.message(), &limits).unwrap_err();
    assert_eq!(error.fault, WireFault::TooMany { what: "series", limit: 2 });
    let named = |name: &str| MetricMetadata { metric: name.to_owned(), ..MetricMetadata::default() };
    builder.metadata(&named("a")).metadata(&named("b"));
    let mut decoded = decoded_with(builder.message(), &limits).unwrap();
    assert_eq!((decoded.take_metadata().len(), decoded.metadata_ignored()), (1, 1));
}

#[test]
fn a_reused_decoder_forgets_the_last_request() {
    let limits = DecodeLimits::default();
    let mut into = DecodedWrite::default();
    let hasher = KeyHasher::new(7);
    decode(&golden(), &hasher, &limits, &mut into).unwrap();
    let key = into.series()[1].key;
    let second = &golden()[0x57..];
    decode(second, &hasher, &limits, &mut into).unwrap();
    assert_eq!((into.series().len(), into.samples().len()), (1, 1));
    assert_eq!(into.series()[0].key, key);
}

#[test]
fn short_records_do_not_take_memory_beyond_the_limits() {
    let limits =
        DecodeLimits { samples_per_request_max: 100, labels_per_series_max: 4, ..DecodeLimits::default() };
    // A million empty samples: two bytes each in the body, sixteen in memory.
    let mut builder = WriteRequestBuilder::new();
    builder
        .encoded_series(&[encode_labels([("__name__", "a")]), hex("1200").repeat(1_000_000)].concat(), &[]);
    let mut into = DecodedWrite::default();
    let error = decode(builder.message(), &KeyHasher::new(7), &limits, &mut into).unwrap_err();
    assert_eq!(error.fault, WireFault::TooMany { what: "samples", limit: 100 });
    assert!(into.retained_bytes() < 10_000, "{}", into.retained_bytes());
    // A million labels, with and without a value.
    for (record, reason) in [("0a02 1200", "invalid metric name"), ("0a06 0a016c 120176", "too many labels")]
    {
        let mut builder = WriteRequestBuilder::new();
        let labels = hex(record).repeat(1_000_000);
        builder.encoded_series(&labels, &[Sample::new(1, 1.0)]);
        let (pairs, _) = labels::split(&labels, limits.labels_per_series_max).unwrap();
        assert!(pairs.capacity() <= 16, "{}", pairs.capacity());
        let decoded = decoded_with(builder.message(), &limits).unwrap();
        let refused = decoded.labels(builder.message(), &limits).labels(0).unwrap_err().to_string();
        assert!(refused.starts_with(reason), "{refused}");
    }
    let mut builder = WriteRequestBuilder::new();
    let counted = hex("0a06 0a016c 120176").repeat(1_000_000);
    builder.encoded_series(&counted, &[Sample::new(1, 1.0)]);
    let text = shown(builder.message()).remove(0);
    assert!(text.ends_with(": 1000000 labels, the limit is 256 1@1"), "{text}");
}

#[test]
fn what_the_log_could_not_read_back_is_refused_whatever_the_limits() {
    let limits = DecodeLimits {
        labels_per_series_max: usize::MAX,
        label_name_bytes_max: usize::MAX,
        label_value_bytes_max: usize::MAX,
        ..DecodeLimits::default()
    };
    let refused = |pairs: &[(&str, &str)]| {
        let mut builder = WriteRequestBuilder::new();
        builder.series(pairs.iter().copied(), &[Sample::new(1, 1.0)]);
        let decoded = decoded_with(builder.message(), &limits).unwrap();
        decoded.labels(builder.message(), &limits).labels(0).err().map(|reason| reason.to_string())
    };
    let name = ("__name__", "a");
    assert_eq!(refused(&[name, ("l", &"v".repeat(LABEL_RECORDS_BYTES_MAX - 64))]), None);
    let reason = refused(&[name, ("l", &"v".repeat(LABEL_RECORDS_BYTES_MAX))]).unwrap();
    assert!(
        reason.starts_with("labels too long for series, labels {__name__=\"a\", l=\"vvv"),
        "{reason:.200}"
    );
    let names: Vec<String> = (0..LABELS_PER_SERIES_MAX).map(|i| format!("l{i}")).collect();
    let mut pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    pairs[0] = name;
    assert_eq!(refused(&pairs), None);
    pairs.push(("more", "v"));
    let reason = refused(&pairs).unwrap();
    assert!(reason.ends_with(": 65537 labels, the limit is 65536"), "{reason}");
}

fn any_labels() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map("[a-z]{1,5}", "[ -~\u{e9}]{1,40}", 0..20).prop_map(|map| {
        let mut pairs: Vec<_> = map.into_iter().collect();
        pairs.push(("__name__".to_owned(), "m".to_owned()));
        pairs
    })
}

proptest! {
    #[test]
    fn requests_come_back(series in prop::collection::vec(
        (any_labels().prop_shuffle(), prop::collection::vec((any::<i64>(), any::<u64>()), 1..20)), 0..20,
    )) {
        let mut builder = WriteRequestBuilder::new();
        for (labels, samples) in &series {
            let samples: Vec<_> = samples.iter().map(|(t, v)| Sample::new(*t, f64::from_bits(*v))).collect();
            builder.series(labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), &samples);
        }
        let limits = DecodeLimits::default();
        let decoded = decoded(builder.message()).unwrap();
        let labels = decoded.labels(builder.message(), &limits);
        prop_assert_eq!(decoded.series().len(), series.len());
        for (index, (pairs, samples)) in series.iter().enumerate() {
            prop_assert_eq!(labels.labels(index).unwrap(), Labels::from_pairs(pairs.clone()));
            let range = &decoded.series()[index].samples;
            let got: Vec<_> = decoded.samples()[range.start as usize..range.end as usize]
                .iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
            prop_assert_eq!(&got, samples);
        }
    }

    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(decoded) = decoded(&body) {
            let limits = DecodeLimits::default();
            let labels = decoded.labels(&body, &limits);
            for index in 0..decoded.series().len() {
                let _ = labels.labels(index);
            }
        }
    }

    #[test]
    fn no_damage_to_a_request_panics(at in 0_usize..130, byte in any::<u8>()) {
        let mut body = golden();
        body[at] = byte;
        if let Ok(decoded) = decoded(&body) {
            let limits = DecodeLimits::default();
            let labels = decoded.labels(&body, &limits);
            for index in 0..decoded.series().len() {
                let _ = labels.labels(index);
            }
        }
    }
}
