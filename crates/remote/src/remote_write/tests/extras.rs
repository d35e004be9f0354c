//! Histograms and exemplars, for one who stores them.

use chronolith_model::{
    CounterResetHint, Exemplar, Histogram, HistogramSample,
    histogram::{BUCKETS_MAX, CUSTOM_SCHEMA, HistogramParts, Span},
};
use chronolith_storage::Stores;

use super::*;

fn limits() -> DecodeLimits {
    DecodeLimits {
        stores: Stores { histograms: true, exemplars: true, start_timestamps: false, late_samples: false },
        ..DecodeLimits::default()
    }
}

fn taken(body: &[u8]) -> DecodedWrite {
    decoded_with(body, &limits()).unwrap()
}

fn name() -> Vec<u8> {
    encode_labels([("__name__", "h")])
}

fn example() -> Histogram {
    let parts = HistogramParts {
        zero_threshold: 0.001,
        zero_count: 1,
        count: 6_u64,
        sum: 10.5,
        positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 1 }],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![1, 2, 1],
        negative_buckets: vec![1],
        ..HistogramParts::default()
    };
    parts.build(None).unwrap().into()
}

/// The message that Prometheus 3.5.3 sent for this histogram.
#[test]
fn a_histogram_as_prometheus_sends_it() {
    let message = hex("2235 0806 190000000000002540 2000 29fca9f1d24d62503f 3001 4204 08001001 4a01 02
                       5a04 08001002 5a04 08021001 6203 020201 78e807");
    let mut builder = WriteRequestBuilder::new();
    builder.encoded_series(&[name(), message].concat(), &[]);
    let decoded = taken(builder.message());
    assert_eq!(decoded.histogram_samples(), [HistogramSample { timestamp: 1000, histogram: example() }]);
    assert_eq!((decoded.histograms(), decoded.series().len(), decoded.samples().len()), (0, 1, 0));
    assert_eq!((decoded.series()[0].samples.clone(), decoded.series()[0].histograms.clone()), (0..0, 0..1));
    let limits = limits();
    let labels = decoded.labels(builder.message(), &limits);
    assert_eq!(decoded.batch(&labels).histograms_of(&decoded.series()[0]).len(), 1);
}

#[test]
fn both_kinds_come_back_with_all_fields() {
    let custom = HistogramParts {
        hint: CounterResetHint::Gauge,
        schema: CUSTOM_SCHEMA,
        count: 1.5,
        sum: f64::from_bits(0x7ff8_0000_dead_beef),
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive_buckets: vec![0.5, 1.0],
        custom_values: vec![0.1, 0.25],
        ..HistogramParts::default()
    };
    let float: Histogram = custom.build(None).unwrap().into();
    let mut not_reset = example();
    not_reset.set_hint(CounterResetHint::NotReset);
    let histograms = [example(), float, not_reset, Histogram::stale(), example().to_float().into()];
    let samples: Vec<HistogramSample> = (-1..)
        .zip(histograms)
        .map(|(timestamp, histogram)| HistogramSample { timestamp, histogram })
        .collect();
    let mut builder = WriteRequestBuilder::new();
    builder.histograms(&name(), &samples, &[]);
    assert_eq!(taken(builder.message()).histogram_samples(), samples);
    assert!(
        decoded(builder.message()).unwrap().histogram_samples().is_empty(),
        "not for one who stores none"
    );
}

#[test]
fn lists_may_be_unpacked() {
    // The example, each delta in a field of its own, and an unknown field.
    let message = hex("2236 0806 190000000000002540 29fca9f1d24d62503f 3001 4204 08001001 4802
                       5a04 08001002 5a04 08021001 6002 6002 6001 78e807 a00601");
    let mut builder = WriteRequestBuilder::new();
    builder.encoded_series(&[name(), message].concat(), &[]);
    let decoded = taken(builder.message());
    assert_eq!(decoded.histogram_samples(), [HistogramSample { timestamp: 1000, histogram: example() }]);
}

#[test]
fn an_invalid_histogram_is_refused_and_named() {
    // Count 7 where the buckets hold 6, beside a float and a good one.
    let bad = hex("2204 0807 7801 2204 0809 7802 2200 120c 09 000000000000f03f 10 e807");
    let mut builder = WriteRequestBuilder::new();
    builder.encoded_series(&[name(), bad].concat(), &[]);
    let decoded = taken(builder.message());
    assert_eq!((decoded.histograms(), decoded.histogram_samples().len(), decoded.samples().len()), (2, 1, 1));
    let [series] = decoded.histogram_series() else { panic!("one series") };
    assert_eq!(series.histograms, 2);
    let text = "0 observations found in buckets, but the Count field is 7: histogram's observation count should equal the \
                number of observations found in the buckets (in absence of NaN)";
    assert_eq!(series.reason.to_string(), text);
    let limits = limits();
    let labels = decoded.labels(builder.message(), &limits);
    assert_eq!(labels.of_histograms(series).unwrap().to_string(), "{__name__=\"h\"}");
}

#[test]
fn histograms_do_not_take_memory_beyond_the_limits() {
    let body = |message: &[u8]| {
        let mut builder = WriteRequestBuilder::new();
        builder.encoded_series(&[name(), message.to_vec()].concat(), &[]);
        builder.message().to_vec()
    };
    let small = DecodeLimits { histograms_per_request_max: 3, buckets_per_request_max: 10, ..limits() };
    let refused = |message: &[u8]| decoded_with(&body(message), &small).unwrap_err().fault;
    assert_eq!(refused(&hex("2200").repeat(4)), WireFault::TooMany { what: "histograms", limit: 3 });
    // Eleven buckets in one span.
    let eleven = [&hex("2213 5a02 100b 620b")[..], &[0; 11], &hex("7801")].concat();
    assert_eq!(refused(&eleven), WireFault::TooMany { what: "histogram buckets", limit: 10 });
    // A million buckets, one byte each, in one histogram.
    let mut many = hex("62 c0843d");
    many.extend(vec![0; 1_000_000]);
    let mut record = hex("22");
    crate::wire::put_varint(&mut record, many.len() as u64);
    record.extend(many);
    let decoded = taken(&body(&record));
    assert_eq!((decoded.histograms(), decoded.histogram_samples().len()), (1, 0));
    let text = decoded.histogram_series()[0].reason.to_string();
    assert_eq!(
        text,
        format!("histogram has too many buckets: {}, the limit is {BUCKETS_MAX}", BUCKETS_MAX + 1)
    );
}

#[test]
fn exemplars_stand_beside_the_samples() {
    let exemplar = |timestamp, trace: &str| Exemplar {
        labels: Labels::from_pairs([("trace_id", trace), ("a", "b")]),
        value: 0.5,
        timestamp,
    };
    let given = [exemplar(1, "x"), exemplar(-2, "y")];
    let mut builder = WriteRequestBuilder::new();
    // Of a series without samples; then labels that are too long, twice the same, or not text.
    builder.histograms(&name(), &[], &given).encoded_series(&golden_labels(), &[Sample::new(1, 1.0)]);
    builder.histograms(&name(), &[], &[exemplar(3, &"x".repeat(3000))]);
    let twice = hex("1a10 0a06 0a0161 120162 0a06 0a0161 120163 1a08 0a06 0a01ff 120162");
    builder.encoded_series(&[name(), twice].concat(), &[]);
    let decoded = taken(builder.message());
    assert_eq!(decoded.exemplar_samples(), given);
    assert_eq!((decoded.exemplars(), decoded.series().len()), (3, 1));
    let limits = limits();
    let labels = decoded.labels(builder.message(), &limits).of_exemplars();
    let batch = decoded.exemplar_batch(&labels);
    assert_eq!((batch.series.len(), batch.series[0].exemplars.clone()), (1, 0..2));
    assert_eq!(batch.labels.labels(0).unwrap().to_string(), "{__name__=\"h\"}");
    let few = DecodeLimits { exemplars_per_request_max: 1, ..limits };
    let decoded = decoded_with(builder.message(), &few).unwrap();
    assert_eq!((decoded.exemplar_samples().len(), decoded.exemplars()), (1, 4));
}

fn golden_labels() -> Vec<u8> {
    encode_labels([("__name__", "up")])
}

proptest! {
    #[test]
    fn damaged_histograms_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut builder = WriteRequestBuilder::new();
        let samples = [HistogramSample { timestamp: 5, histogram: example() }];
        let exemplar = Exemplar { labels: Labels::from_pairs([("a", "b")]), value: 1.0, timestamp: 5 };
        builder.histograms(&name(), &samples, &[exemplar]);
        let mut body = builder.message().to_vec();
        for (index, byte) in flips {
            let at = index.index(body.len());
            body[at] ^= byte;
        }
        let _ = decoded_with(&body, &limits());
    }
}
