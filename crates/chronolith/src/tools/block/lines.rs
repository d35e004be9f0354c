//! Series with their samples as lines.

use std::fmt::{self, Write as _};

use chronolith_block::{BlockMeta, SeriesSamples};
use chronolith_model::histogram::{Count, CounterResetHint, NativeHistogram, Span};
use chronolith_model::labels::is_legacy_label_name;
use chronolith_model::{Histogram, Labels, METRIC_NAME, STALE_NAN_BITS, float};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::beside::{Beside, JsonExemplar, JsonMetadata};

/// Bits of the NaN that Prometheus writes for a missing value.
const NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// A series as a line of JSON, in the form that VictoriaMetrics exports and imports; all bits are told.
#[derive(Debug, Serialize)]
pub(super) struct Json<'a> {
    metric: LabelMap<'a>,
    values: Vec<Number>,
    timestamps: &'a [i64],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    histograms: Vec<JsonHistogram<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    histogram_timestamps: &'a [i64],
    /// Pairs: since when samples have it, and the start of counting.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    start_timestamps: Vec<(i64, i64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exemplars: Vec<JsonExemplar<'a>>,
    /// With the first series of a metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<JsonMetadata<'a>>,
    block: String,
    tenant: &'a str,
}

#[derive(Debug)]
pub(super) struct LabelMap<'a>(pub(super) &'a Labels);

impl Serialize for LabelMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A float, as a text where JSON has no number: `NaN` (the usual one), `StaleNaN`, `NaN(bits)`, `+Inf`, `-Inf`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(pub(super) f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_bits() {
            _ if self.0.is_finite() => serializer.serialize_f64(self.0),
            STALE_NAN_BITS => serializer.serialize_str("StaleNaN"),
            bits if self.0.is_nan() && bits != NAN_BITS => {
                serializer.collect_str(&format_args!("NaN({bits:016x})"))
            }
            _ => serializer.serialize_str(&float::fixed(self.0)),
        }
    }
}

/// A count of observations.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
enum Observations {
    Integer(u64),
    Float(Number),
}

/// A native histogram, field by field.
#[derive(Debug, Serialize)]
struct JsonHistogram<'a> {
    counter_reset_hint: &'static str,
    schema: i32,
    zero_threshold: Number,
    zero_count: Observations,
    count: Observations,
    sum: Number,
    positive_spans: Vec<(i32, u32)>,
    positive_buckets: Vec<Observations>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    negative_spans: Vec<(i32, u32)>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    negative_buckets: Vec<Observations>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    custom_values: &'a [f64],
}

impl<'a> JsonHistogram<'a> {
    fn new(histogram: &'a Histogram) -> Self {
        match histogram {
            Histogram::Integer(histogram) => Self::of(histogram, Observations::Integer),
            Histogram::Float(histogram) => Self::of(histogram, |count| Observations::Float(Number(count))),
        }
    }

    fn of<C: Count>(histogram: &'a NativeHistogram<C>, observations: impl Fn(C) -> Observations) -> Self {
        let layout = histogram.layout();
        let spans = |spans: &[Span]| spans.iter().map(|span| (span.offset, span.length)).collect();
        let counts = |counts: &[C]| counts.iter().map(|count| observations(*count)).collect();
        Self {
            counter_reset_hint: match histogram.hint() {
                CounterResetHint::Unknown => "unknown",
                CounterResetHint::Reset => "reset",
                CounterResetHint::NotReset => "not_reset",
                CounterResetHint::Gauge => "gauge",
            },
            schema: layout.schema(),
            zero_threshold: Number(layout.zero_threshold()),
            zero_count: observations(histogram.zero_count()),
            count: observations(histogram.count()),
            sum: Number(histogram.sum()),
            positive_spans: spans(layout.positive_spans()),
            positive_buckets: counts(histogram.positive_buckets()),
            negative_spans: spans(layout.negative_spans()),
            negative_buckets: counts(histogram.negative_buckets()),
            custom_values: layout.custom_values(),
        }
    }
}

impl<'a> Json<'a> {
    pub(super) fn new(
        meta: &'a BlockMeta,
        labels: &'a Labels,
        samples: &'a SeriesSamples,
        beside: Beside<'a>,
    ) -> Self {
        Self {
            metric: LabelMap(labels),
            values: samples.values.iter().copied().map(Number).collect(),
            timestamps: &samples.timestamps,
            histograms: samples.histograms.iter().map(JsonHistogram::new).collect(),
            histogram_timestamps: &samples.histogram_timestamps,
            start_timestamps: samples.starts.iter().map(|step| (step.since, step.start)).collect(),
            exemplars: beside.exemplars(),
            metadata: beside.metadata(),
            block: meta.spec.ulid.to_string(),
            tenant: meta.spec.tenant.as_str(),
        }
    }
}

/// Appends a line of the text format for each sample: series, value, milliseconds. The format knows no native
/// histograms: they are comments, with the histogram as JSON. So are start timestamps: the start of counting, and since
/// which sample it holds.
///
/// # Errors
/// None that could be met: those of JSON and of text in memory.
pub(super) fn text(labels: &Labels, samples: &SeriesSamples, out: &mut String) -> anyhow::Result<()> {
    let mut series = String::new();
    write_series(labels, &mut series)?;
    for (timestamp, value) in samples.timestamps.iter().zip(&samples.values) {
        out.push_str(&series);
        out.push(' ');
        float::write_general(out, *value);
        writeln!(out, " {timestamp}")?;
    }
    for (timestamp, histogram) in samples.histogram_timestamps.iter().zip(&samples.histograms) {
        let histogram = serde_json::to_string(&JsonHistogram::new(histogram))?;
        writeln!(out, "# histogram {series} {histogram} {timestamp}")?;
    }
    for step in &samples.starts {
        writeln!(out, "# start {series} {} {}", step.start, step.since)?;
    }
    Ok(())
}

/// Writes a series as the text format does; names beyond its old alphabet stand in quotes.
pub(super) fn write_series(labels: &Labels, out: &mut String) -> fmt::Result {
    let name = labels.metric_name().unwrap_or_default();
    // A colon is for metric names alone.
    let plain = is_legacy_label_name(&name.replace(':', "_"));
    let mut pairs = labels.iter().filter(|(name, _)| *name != METRIC_NAME).peekable();
    if plain {
        out.push_str(name);
        if pairs.peek().is_none() {
            return Ok(());
        }
    }
    out.push('{');
    let mut separator = "";
    if !plain && !name.is_empty() {
        write_quoted(name, out);
        separator = ",";
    }
    for (name, value) in pairs {
        out.push_str(separator);
        separator = ",";
        if is_legacy_label_name(name) {
            out.push_str(name);
        } else {
            write_quoted(name, out);
        }
        out.push('=');
        write_quoted(value, out);
    }
    out.push('}');
    Ok(())
}

pub(super) fn write_quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use chronolith_block::{BlockRange, BlockSpec, Ulid};
    use chronolith_model::histogram::HistogramParts;
    use chronolith_model::{StartTimestamp, TenantId};

    use super::*;

    fn samples(values: &[f64]) -> SeriesSamples {
        let timestamps = (0..values.len() as i64).map(|i| 1000 + i).collect();
        SeriesSamples { timestamps, values: values.to_vec(), ..SeriesSamples::default() }
    }

    fn histogram() -> Histogram {
        let parts = HistogramParts::<u64> {
            schema: 3,
            zero_threshold: 0.5,
            sum: 12.5,
            count: 10,
            zero_count: 1,
            positive_spans: vec![Span { offset: -2, length: 2 }],
            positive_buckets: vec![4, 5],
            ..HistogramParts::default()
        };
        Histogram::Integer(parts.build(None).expect("a histogram"))
    }

    #[track_caller]
    fn check_text(pairs: &[(&str, &str)], values: &[f64], expected: &str) {
        let mut out = String::new();
        text(&Labels::from_pairs(pairs.iter().copied()), &samples(values), &mut out).expect("text");
        assert_eq!(out, expected);
    }

    #[test]
    fn lines_of_text() {
        check_text(&[("__name__", "up")], &[1.0, 0.25], "up 1 1000\nup 0.25 1001\n");
        check_text(
            &[("__name__", "a:b"), ("x", "1"), ("y", "2")],
            &[1e7],
            "a:b{x=\"1\",y=\"2\"} 1e+07 1000\n",
        );
        check_text(
            &[("__name__", "up"), ("x", "q\"b\\n\nt\t")],
            &[f64::NAN, f64::NEG_INFINITY],
            "up{x=\"q\\\"b\\\\n\\nt\t\"} NaN 1000\nup{x=\"q\\\"b\\\\n\\nt\t\"} -Inf 1001\n",
        );
        check_text(&[("__name__", "u.p"), ("a b", "1")], &[1.0], "{\"u.p\",\"a b\"=\"1\"} 1 1000\n");
        check_text(&[("x", "1")], &[1.0], "{x=\"1\"} 1 1000\n");
    }

    #[test]
    fn lines_of_json() {
        let range = BlockRange::new(0, 5000);
        let (ulid, tenant) = (Ulid::from_parts(1, 2), TenantId::default());
        let spec = BlockSpec { ulid, tenant, range, level: 1, created: 0, sources: Vec::new() };
        let meta = BlockMeta { spec, series: 1, samples: 6, histograms: 1, exemplars: 0 };
        let labels = Labels::from_pairs([("__name__", "up"), ("x", "\"")]);
        let [stale, usual, other] = [STALE_NAN_BITS, NAN_BITS, 0xfff8_0000_0000_0000].map(f64::from_bits);
        let mut samples = samples(&[0.1, -0.0, stale, usual, other, f64::INFINITY]);
        samples.histogram_timestamps.push(2000);
        samples.histograms.push(histogram());
        samples.starts.push(StartTimestamp { since: 1002, start: -7 });
        let line =
            serde_json::to_string(&Json::new(&meta, &labels, &samples, Beside::default())).expect("JSON");
        assert_eq!(
            line,
            concat!(
                r#"{"metric":{"__name__":"up","x":"\""},"#,
                r#""values":[0.1,-0.0,"StaleNaN","NaN","NaN(fff8000000000000)","+Inf"],"#,
                r#""timestamps":[1000,1001,1002,1003,1004,1005],"#,
                r#""histograms":[{"counter_reset_hint":"unknown","schema":3,"zero_threshold":0.5,"zero_count":1,"#,
                r#""count":10,"sum":12.5,"positive_spans":[[-2,2]],"positive_buckets":[4,5]}],"#,
                r#""histogram_timestamps":[2000],"start_timestamps":[[1002,-7]],"#,
                r#""block":"00000000010000000000000002","tenant":"anonymous"}"#,
            )
        );
    }

    #[test]
    fn histograms_are_comments_in_text() {
        let mut samples = SeriesSamples::default();
        samples.histogram_timestamps.push(2000);
        samples.histograms.push(histogram());
        let mut out = String::new();
        text(&Labels::from_pairs([("__name__", "h")]), &samples, &mut out).expect("text");
        assert!(
            out.starts_with("# histogram h {\"counter_reset_hint\":\"unknown\",")
                && out.ends_with("]} 2000\n"),
            "{out}"
        );
    }

    #[test]
    fn starts_are_comments_in_text() {
        let mut samples = samples(&[1.0]);
        samples.starts.push(StartTimestamp { since: 1000, start: 990 });
        let mut out = String::new();
        text(&Labels::from_pairs([("__name__", "c"), ("x", "1")]), &samples, &mut out).expect("text");
        assert_eq!(out, "c{x=\"1\"} 1 1000\n# start c{x=\"1\"} 990 1000\n");
    }
}
