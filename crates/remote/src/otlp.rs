//! OTLP metrics: `ExportMetricsServiceRequest`, protobuf or JSON, to samples.
//!
//! What becomes of a request follows Prometheus' receiver: names by [`NameStrategy`], attributes of a data point as
//! labels, of the resource `service.namespace` and `service.name` as `job`, `service.instance.id` as `instance`, the
//! others as labels of `target_info`; sums and gauges as floats, explicit buckets as `_bucket`, `_sum` and `_count`,
//! exponential histograms as native ones, summaries by quantile; a point without a recorded value as a stale marker.
//! Start times become start timestamps, exemplars those of their series.
//!
//! Field numbers: opentelemetry-proto, `metrics/v1` and `common/v1`.
//!
//! Map: `message` the request · `protobuf` reading it · `names` names and labels · `translate` data points ·
//! `native` exponential histograms.

mod message;
mod names;
mod native;
mod protobuf;
mod translate;

#[cfg(test)]
mod tests;

use chronolith_model::{Exemplar, HistogramSample, Labels, MetricMetadata, Sample};
use chronolith_storage::{
    ExemplarBatch, ExemplarEntry, KeyHasher, LabelFault, LabelSource, RejectReason, SeriesEntry, WriteBatch,
};

pub use self::names::NameStrategy;
use crate::wire::{WireError, put_bytes, put_varint};

/// Most bytes that a request in JSON may have: it is read into memory whole, and `{}` is a data point there.
pub const JSON_BYTES_MAX: usize = 4 << 20;
/// Most bytes of memory a request may need when it is read, and its samples again; the default.
pub const REQUEST_BYTES_MAX: usize = 128 << 20;
/// Most samples of the series of one request.
pub const SAMPLES_MAX: usize = 500_000;
/// How many refusals are kept word for word.
pub const REFUSALS_KEPT_MAX: usize = 10;

/// How requests become samples; names as in the `otlp` section of Prometheus' configuration.
#[derive(Clone, Debug)]
pub struct OtlpOptions {
    /// `translation_strategy`
    pub names: NameStrategy,
    /// `promote_resource_attributes`: these become labels of all series of the resource.
    pub promoted: Vec<String>,
    /// `promote_all_resource_attributes`: all do but `ignored`.
    pub promote_all: bool,
    /// `ignore_resource_attributes`
    pub ignored: Vec<String>,
    /// `keep_identifying_resource_attributes`: `target_info` has those of `job` and `instance` too.
    pub keep_identifying: bool,
    /// `promote_scope_metadata`: name, version, schema and attributes of the scope become labels.
    pub promote_scope: bool,
    /// The feature `type-and-unit-labels`: series get their metric's type and unit as the labels `__type__` and `__unit__`.
    pub type_and_unit_labels: bool,
    /// Milliseconds between samples of `target_info`; Prometheus: half its lookback.
    pub target_info_every: i64,
    /// Bytes of memory that the request may need when it is read, and its samples and their labels again.
    pub memory_bytes_max: usize,
}

impl Default for OtlpOptions {
    fn default() -> Self {
        Self {
            names: NameStrategy::default(),
            promoted: Vec::new(),
            promote_all: false,
            ignored: Vec::new(),
            keep_identifying: false,
            promote_scope: false,
            type_and_unit_labels: false,
            target_info_every: 150_000,
            memory_bytes_max: REQUEST_BYTES_MAX,
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// Malformed protobuf.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Malformed JSON.
    #[error("{0}")]
    Json(String),
    /// More than a request may hold.
    #[error("too many {what} in one request, the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Most allowed.
        limit: usize,
    },
}

/// Samples of a request.
#[derive(Debug, Default)]
pub struct OtlpSamples {
    series: Vec<SeriesEntry>,
    labels: Vec<Labels>,
    samples: Vec<Sample>,
    histograms: Vec<HistogramSample>,
    exemplar_series: Vec<ExemplarEntry>,
    exemplar_labels: Vec<Labels>,
    exemplars: Vec<Exemplar>,
    metadata: Vec<MetricMetadata>,
    refused: u64,
    refusals: Vec<String>,
}

impl OtlpSamples {
    /// The batch to append; `self` gives its labels.
    #[must_use]
    pub fn batch(&self) -> WriteBatch<'_> {
        WriteBatch {
            series: &self.series,
            samples: &self.samples,
            histograms: &self.histograms,
            labels: self,
        }
    }

    /// The exemplars to append; `labels` comes from [`OtlpSamples::exemplar_labels`].
    #[must_use]
    pub fn exemplar_batch<'a>(&'a self, labels: &'a OtlpExemplarLabels<'a>) -> ExemplarBatch<'a> {
        ExemplarBatch { series: &self.exemplar_series, exemplars: &self.exemplars, labels }
    }

    /// Gives the labels of the series with exemplars.
    #[must_use]
    pub const fn exemplar_labels(&self) -> OtlpExemplarLabels<'_> {
        OtlpExemplarLabels(self)
    }

    /// What it says of metric families, each once.
    #[must_use]
    pub fn metadata(&self) -> &[MetricMetadata] {
        &self.metadata
    }

    /// Data points that cannot be stored whatever the engine says.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// The first of them: which, and why; at most [`REFUSALS_KEPT_MAX`].
    #[must_use]
    pub fn refusals(&self) -> &[String] {
        &self.refusals
    }
}

impl LabelSource for OtlpSamples {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        of(&self.labels, series)
    }
}

/// As [`OtlpSamples`], for the series of an exemplar batch.
#[derive(Clone, Copy, Debug)]
pub struct OtlpExemplarLabels<'a>(&'a OtlpSamples);

impl LabelSource for OtlpExemplarLabels<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        of(&self.0.exemplar_labels, series)
    }
}

fn of(labels: &[Labels], series: usize) -> Result<Labels, RejectReason> {
    labels.get(series).cloned().ok_or_else(|| RejectReason::InvalidLabels {
        fault: LabelFault::Internal,
        text: format!("no series {series} in the request"),
    })
}

/// Reads a request in protobuf.
///
/// # Errors
/// When it is malformed or holds too much. What is wrong with single data points is in [`OtlpSamples::refusals`].
pub fn decode_protobuf(
    body: &[u8],
    hasher: &KeyHasher,
    options: &OtlpOptions,
) -> Result<OtlpSamples, OtlpError> {
    translate::translate(&protobuf::decode(body, options.memory_bytes_max)?, hasher, options)
}

/// Reads a request in JSON.
///
/// # Errors
/// As [`decode_protobuf`], and above [`JSON_BYTES_MAX`].
pub fn decode_json(body: &[u8], hasher: &KeyHasher, options: &OtlpOptions) -> Result<OtlpSamples, OtlpError> {
    if body.len() > JSON_BYTES_MAX {
        return Err(OtlpError::TooMany { what: "bytes of JSON", limit: JSON_BYTES_MAX });
    }
    if message::json_bytes(body) > options.memory_bytes_max {
        return Err(OtlpError::TooMany { what: "bytes of data points", limit: options.memory_bytes_max });
    }
    let request: message::Request =
        serde_json::from_slice(body).map_err(|error| OtlpError::Json(error.to_string()))?;
    translate::translate(&request, hasher, options)
}

/// An `ExportMetricsServiceResponse` in protobuf that says that `refused` data points were refused, and why.
#[must_use]
pub fn encode_partial_success(refused: u64, reasons: &str) -> Vec<u8> {
    let mut partial = Vec::new();
    put_varint(&mut partial, u64::from(1_u32 << 3));
    put_varint(&mut partial, refused);
    put_bytes(&mut partial, 2, reasons.as_bytes());
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &partial);
    out
}

/// A `google.rpc.Status` in protobuf.
#[must_use]
pub fn encode_status(code: u32, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, u64::from(1_u32 << 3));
    put_varint(&mut out, u64::from(code));
    put_bytes(&mut out, 2, message.as_bytes());
    out
}
