//! Remote write 1.0: `prometheus.WriteRequest` in a snappy block.
//!
//! ```text
//! WriteRequest   { repeated TimeSeries timeseries = 1; repeated MetricMetadata metadata = 3; }
//! TimeSeries     { repeated Label labels = 1; repeated Sample samples = 2; repeated Exemplar exemplars = 3;
//!                  repeated Histogram histograms = 4; }
//! Label          { string name = 1; string value = 2; }
//! Sample         { double value = 1; int64 timestamp = 2; }
//! MetricMetadata { enum type = 1; string metric_family_name = 2; string help = 4; string unit = 5; }
//! ```
//!
//! [`decode()`] walks the bytes once and keeps samples and, per series, a hash of its label bytes and where they
//! stand; [`WriteLabels`] parses the labels of those series the engine does not know. [`WriteRequestBuilder`] makes
//! requests.

mod decode;
mod encode;
mod exemplar;
mod histogram;
mod labels;

pub use decode::{DecodeLimits, DecodedWrite, HISTOGRAM_SERIES_KEPT_MAX, HistogramSeries, decode};
pub use encode::{WriteRequestBuilder, encode_labels};
pub use labels::{ExemplarLabels, LABEL_RECORDS_BYTES_MAX, LABELS_PER_SERIES_MAX, WriteLabels};

#[cfg(test)]
mod tests;
