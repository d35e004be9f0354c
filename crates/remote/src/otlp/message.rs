//! `ExportMetricsServiceRequest`, as far as metrics need it. Names are those of the protocol; the JSON form is read by
//! them, numbers of 64 bits there as numbers or texts.

use chronolith_model::float;
use serde::{Deserialize, Deserializer, de};

/// Most bytes a value of an attribute may have when it is written as a text.
pub(super) const ATTRIBUTE_BYTES_MAX: usize = 16 * 1024;
/// How deep values of attributes may nest.
pub(super) const VALUE_DEPTH_MAX: usize = 16;

/// `aggregation_temporality`: since the sample before.
pub(super) const DELTA: i32 = 1;
/// Since the start.
pub(super) const CUMULATIVE: i32 = 2;
/// `flags`: the point says that there is no value any more.
pub(super) const NO_RECORDED_VALUE: u32 = 1;

/// Most bytes of memory that a request in JSON may come to: all of its objects are of the largest kind, all that commas
/// part are numbers, and vectors that grow have room for as many again.
pub(super) fn json_bytes(body: &[u8]) -> usize {
    const OBJECT_BYTES: usize = largest(&[
        size_of::<ResourceMetrics>(),
        size_of::<ScopeMetrics>(),
        size_of::<Metric>(),
        size_of::<NumberPoint>(),
        size_of::<HistogramPoint>(),
        size_of::<ExponentialPoint>(),
        size_of::<SummaryPoint>(),
        size_of::<PointExemplar>(),
        size_of::<KeyValue>(),
    ]);
    let (objects, others) = body.iter().fold((0_usize, 0_usize), |(objects, others), byte| match byte {
        b'{' => (objects + 1, others),
        b',' | b'[' => (objects, others + 1),
        _ => (objects, others),
    });
    let others = others.saturating_mul(2 * size_of::<NumberOrText<'_>>());
    objects.saturating_mul(2 * OBJECT_BYTES).saturating_add(others).saturating_add(body.len())
}

const fn largest(mut sizes: &[usize]) -> usize {
    let mut largest = 0;
    while let [size, rest @ ..] = sizes {
        if *size > largest {
            largest = *size;
        }
        sizes = rest;
    }
    largest
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Request {
    pub(super) resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ResourceMetrics {
    pub(super) resource: Resource,
    pub(super) scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Resource {
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ScopeMetrics {
    pub(super) scope: Scope,
    pub(super) metrics: Vec<Metric>,
    pub(super) schema_url: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Scope {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) unit: String,
    pub(super) gauge: Option<Numbers>,
    pub(super) sum: Option<Numbers>,
    pub(super) histogram: Option<Histograms>,
    pub(super) exponential_histogram: Option<ExponentialHistograms>,
    pub(super) summary: Option<Summaries>,
}

/// `Gauge` or `Sum`; the former has data points alone.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Numbers {
    pub(super) data_points: Vec<NumberPoint>,
    #[serde(deserialize_with = "temporality")]
    pub(super) aggregation_temporality: i32,
    pub(super) is_monotonic: bool,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Histograms {
    pub(super) data_points: Vec<HistogramPoint>,
    #[serde(deserialize_with = "temporality")]
    pub(super) aggregation_temporality: i32,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ExponentialHistograms {
    pub(super) data_points: Vec<ExponentialPoint>,
    #[serde(deserialize_with = "temporality")]
    pub(super) aggregation_temporality: i32,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Summaries {
    pub(super) data_points: Vec<SummaryPoint>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NumberPoint {
    pub(super) attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "whole")]
    pub(super) start_time_unix_nano: u64,
    #[serde(deserialize_with = "whole")]
    pub(super) time_unix_nano: u64,
    #[serde(deserialize_with = "some_float")]
    pub(super) as_double: Option<f64>,
    #[serde(deserialize_with = "some_whole")]
    pub(super) as_int: Option<i64>,
    pub(super) exemplars: Vec<PointExemplar>,
    pub(super) flags: u32,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct HistogramPoint {
    pub(super) attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "whole")]
    pub(super) start_time_unix_nano: u64,
    #[serde(deserialize_with = "whole")]
    pub(super) time_unix_nano: u64,
    #[serde(deserialize_with = "whole")]
    pub(super) count: u64,
    #[serde(deserialize_with = "some_float")]
    pub(super) sum: Option<f64>,
    #[serde(deserialize_with = "wholes")]
    pub(super) bucket_counts: Vec<u64>,
    #[serde(deserialize_with = "floats")]
    pub(super) explicit_bounds: Vec<f64>,
    pub(super) exemplars: Vec<PointExemplar>,
    pub(super) flags: u32,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ExponentialPoint {
    pub(super) attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "whole")]
    pub(super) start_time_unix_nano: u64,
    #[serde(deserialize_with = "whole")]
    pub(super) time_unix_nano: u64,
    #[serde(deserialize_with = "whole")]
    pub(super) count: u64,
    #[serde(deserialize_with = "some_float")]
    pub(super) sum: Option<f64>,
    pub(super) scale: i32,
    #[serde(deserialize_with = "whole")]
    pub(super) zero_count: u64,
    pub(super) positive: Buckets,
    pub(super) negative: Buckets,
    pub(super) exemplars: Vec<PointExemplar>,
    pub(super) flags: u32,
    #[serde(deserialize_with = "float")]
    pub(super) zero_threshold: f64,
}

/// Buckets of ascending index, the first at `offset`: bucket `i` holds `(b^i, b^(i+1)]`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Buckets {
    pub(super) offset: i32,
    #[serde(deserialize_with = "wholes")]
    pub(super) bucket_counts: Vec<u64>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SummaryPoint {
    pub(super) attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "whole")]
    pub(super) start_time_unix_nano: u64,
    #[serde(deserialize_with = "whole")]
    pub(super) time_unix_nano: u64,
    #[serde(deserialize_with = "whole")]
    pub(super) count: u64,
    #[serde(deserialize_with = "float")]
    pub(super) sum: f64,
    pub(super) quantile_values: Vec<Quantile>,
    pub(super) flags: u32,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Quantile {
    #[serde(deserialize_with = "float")]
    pub(super) quantile: f64,
    #[serde(deserialize_with = "float")]
    pub(super) value: f64,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PointExemplar {
    pub(super) filtered_attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "whole")]
    pub(super) time_unix_nano: u64,
    #[serde(deserialize_with = "some_float")]
    pub(super) as_double: Option<f64>,
    #[serde(deserialize_with = "some_whole")]
    pub(super) as_int: Option<i64>,
    /// In hexadecimal digits.
    pub(super) span_id: String,
    /// In hexadecimal digits.
    pub(super) trace_id: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) value: AnyValue,
}

/// One of its fields is there, or none.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct AnyValue {
    pub(super) string_value: Option<String>,
    pub(super) bool_value: Option<bool>,
    #[serde(deserialize_with = "some_whole")]
    pub(super) int_value: Option<i64>,
    #[serde(deserialize_with = "some_float")]
    pub(super) double_value: Option<f64>,
    pub(super) array_value: Option<ArrayValue>,
    pub(super) kvlist_value: Option<KeyValueList>,
    /// In base64.
    pub(super) bytes_value: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ArrayValue {
    pub(super) values: Vec<AnyValue>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct KeyValueList {
    pub(super) values: Vec<KeyValue>,
}

impl AnyValue {
    /// As a label's value: texts as they are, all else as JSON has it. Cut at [`ATTRIBUTE_BYTES_MAX`].
    pub(super) fn text(&self) -> String {
        if let Some(text) = &self.string_value {
            return text.clone();
        }
        let mut out = String::new();
        self.write_bare(&mut out);
        out
    }

    fn write_bare(&self, out: &mut String) {
        match self {
            Self { bytes_value: Some(base64), .. } => out.push_str(base64),
            _ => self.write_json(out),
        }
    }

    fn write_json(&self, out: &mut String) {
        if out.len() > ATTRIBUTE_BYTES_MAX {
            return;
        }
        if let Some(text) = self.string_value.as_ref().or(self.bytes_value.as_ref()) {
            write_json_text(out, text);
        } else if let Some(value) = self.bool_value {
            out.push_str(if value { "true" } else { "false" });
        } else if let Some(value) = self.int_value {
            out.push_str(&value.to_string());
        } else if let Some(value) = self.double_value {
            float::write_json(out, value);
        } else if let Some(array) = &self.array_value {
            out.push('[');
            for (index, value) in array.values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                value.write_json(out);
            }
            out.push(']');
        } else if let Some(list) = &self.kvlist_value {
            // Go's maps are printed in the order of their keys.
            let mut pairs: Vec<&KeyValue> = list.values.iter().collect();
            pairs.sort_by(|a, b| a.key.cmp(&b.key));
            out.push('{');
            for (index, pair) in pairs.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json_text(out, &pair.key);
                out.push(':');
                pair.value.write_json(out);
            }
            out.push('}');
        } else if !out.is_empty() {
            out.push_str("null");
        }
    }
}

fn write_json_text(out: &mut String, text: &str) {
    // A text can always be written as JSON.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// A number of 64 bits, written as a number or as a text, as protobuf's JSON has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(#[serde(borrow)] std::borrow::Cow<'a, str>),
}

impl NumberOrText<'_> {
    fn whole<T: TryFrom<u64> + TryFrom<i64> + std::str::FromStr, E: de::Error>(self) -> Result<T, E> {
        let number = match self {
            Self::Unsigned(value) => T::try_from(value).ok(),
            Self::Signed(value) => T::try_from(value).ok(),
            Self::Text(text) => text.parse().ok(),
            Self::Float(_) => None,
        };
        number.ok_or_else(|| E::custom("a whole number of 64 bits is needed"))
    }

    fn float<E: de::Error>(self) -> Result<f64, E> {
        Ok(match self {
            Self::Unsigned(value) => value as f64,
            Self::Signed(value) => value as f64,
            Self::Float(value) => value,
            Self::Text(text) => match text.as_ref() {
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                "NaN" => f64::NAN,
                text => text.parse().map_err(|_| E::custom("a number is needed"))?,
            },
        })
    }
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    NumberOrText::deserialize(deserializer)?.whole()
}

fn some_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Option::<NumberOrText<'_>>::deserialize(deserializer)?.map(NumberOrText::whole).transpose()
}

fn wholes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    Vec::<NumberOrText<'_>>::deserialize(deserializer)?.into_iter().map(NumberOrText::whole).collect()
}

fn float<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    NumberOrText::deserialize(deserializer)?.float()
}

fn some_float<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Option::<NumberOrText<'_>>::deserialize(deserializer)?.map(NumberOrText::float).transpose()
}

fn floats<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    Vec::<NumberOrText<'_>>::deserialize(deserializer)?.into_iter().map(NumberOrText::float).collect()
}

/// The enum by number or by name.
fn temporality<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Text(text) => match text.as_ref() {
            "AGGREGATION_TEMPORALITY_DELTA" => Ok(DELTA),
            "AGGREGATION_TEMPORALITY_CUMULATIVE" => Ok(CUMULATIVE),
            _ => Ok(0),
        },
        number => number.whole::<i64, _>().map(|value| i32::try_from(value).unwrap_or(0)),
    }
}
