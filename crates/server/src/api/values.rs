//! Values of queries as JSON.

use chronolith_model::FloatHistogram;
use chronolith_promql::{InstantSample, RangeSeries, SampleValue, Value};

use crate::json::{Commas, JsonWriter};

/// A guess at the bytes of a float with its time, `[1435781451.781,"12345"],`.
const SAMPLE_BYTES: usize = 28;
/// A guess at the bytes of a histogram with its time, but for its buckets:
/// `[1435781451.781,{"count":"12345","sum":"1234.5","buckets":[]}],`.
const HISTOGRAM_BYTES: usize = 80;
/// A guess at the bytes of a bucket, `[0,"1.414213562373095","1.6817928305074288","12345"],`.
const BUCKET_BYTES: usize = 52;
/// A guess at the bytes of a series' labels.
const LABELS_BYTES: usize = 200;

/// A guess at the bytes that [`write`] needs for `value`.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::Scalar { .. } => 64,
        Value::String { value, .. } => value.len() + 64,
        Value::Vector(samples) => samples.iter().map(|sample| LABELS_BYTES + sample_size(sample)).sum(),
        Value::Matrix(series) => series.iter().map(series_size).sum(),
    }
}

fn sample_size(sample: &InstantSample) -> usize {
    match &sample.value {
        SampleValue::Float(_) => SAMPLE_BYTES,
        SampleValue::Histogram(histogram) => histogram_size(histogram),
    }
}

fn series_size(series: &RangeSeries) -> usize {
    let histograms: usize = series.histograms.iter().map(|(_, histogram)| histogram_size(histogram)).sum();
    LABELS_BYTES + series.points.len() * SAMPLE_BYTES + histograms
}

fn histogram_size(histogram: &FloatHistogram) -> usize {
    HISTOGRAM_BYTES + (histogram.buckets().len() + 1) * BUCKET_BYTES
}

/// Type and result, the object left open.
pub(super) fn write(json: &mut JsonWriter, value: &Value) {
    match value {
        Value::Scalar { timestamp, value } => {
            json.raw("{\"resultType\":\"scalar\",\"result\":[");
            json.timestamp_float(*timestamp);
            json.raw(",");
            json.fixed_value(*value);
            json.raw("]");
        }
        Value::String { timestamp, value } => {
            json.raw("{\"resultType\":\"string\",\"result\":[");
            json.timestamp_float(*timestamp);
            json.raw(",");
            json.string_go(value);
            json.raw("]");
        }
        Value::Vector(samples) => {
            json.raw("{\"resultType\":\"vector\",\"result\":[");
            let mut commas = Commas::default();
            for sample in samples {
                commas.next(json);
                json.raw("{\"metric\":");
                json.labels(&sample.labels);
                match &sample.value {
                    SampleValue::Float(value) => {
                        json.raw(",\"value\":[");
                        json.timestamp(sample.timestamp);
                        json.raw(",");
                        json.value(*value);
                    }
                    SampleValue::Histogram(histogram) => {
                        json.raw(",\"histogram\":[");
                        json.timestamp(sample.timestamp);
                        json.raw(",");
                        write_histogram(json, histogram);
                    }
                }
                json.raw("]}");
            }
            json.raw("]");
        }
        Value::Matrix(matrix) => {
            json.raw("{\"resultType\":\"matrix\",\"result\":[");
            let mut commas = Commas::default();
            for series in matrix {
                commas.next(json);
                range_series(json, series);
            }
            json.raw("]");
        }
    }
}

fn range_series(json: &mut JsonWriter, series: &RangeSeries) {
    json.raw("{\"metric\":");
    json.labels(&series.labels);
    if !series.points.is_empty() {
        json.raw(",\"values\":[");
        let mut commas = Commas::default();
        for (timestamp, value) in &series.points {
            commas.next(json);
            json.raw("[");
            json.timestamp(*timestamp);
            json.raw(",");
            json.value(*value);
            json.raw("]");
        }
        json.raw("]");
    }
    if !series.histograms.is_empty() {
        json.raw(",\"histograms\":[");
        let mut commas = Commas::default();
        for (timestamp, histogram) in &series.histograms {
            commas.next(json);
            json.raw("[");
            json.timestamp(*timestamp);
            json.raw(",");
            write_histogram(json, histogram);
            json.raw("]");
        }
        json.raw("]");
    }
    json.raw("}");
}

/// Count, sum, and the buckets that hold something, from the lowest on.
fn write_histogram(json: &mut JsonWriter, histogram: &FloatHistogram) {
    json.raw("{\"count\":");
    json.value(histogram.count());
    json.raw(",\"sum\":");
    json.value(histogram.sum());
    let mut open = false;
    for bucket in histogram.populated() {
        json.raw(if open { ",[" } else { ",\"buckets\":[[" });
        open = true;
        json.integer(bucket.boundary_rule());
        for number in [bucket.lower, bucket.upper, bucket.count] {
            json.raw(",");
            json.value(number);
        }
        json.raw("]");
    }
    json.raw(if open { "]}" } else { "}" });
}
