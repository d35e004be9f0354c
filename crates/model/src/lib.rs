//! The vocabulary every other crate speaks: labels, samples, matchers, time ranges, tenants.
//!
//! Everything here is inert data. **Must not know:** I/O, async, wire formats, engines.
//!
//! Map: [`labels`] label sets · [`sample`] timestamps, values, stale markers, start timestamps · [`matcher`] label
//! matchers · [`histogram`] native histograms · [`exemplar`] exemplars · [`time`] time ranges and Prometheus durations ·
//! [`float`] Prometheus' float formatting · [`tenant`] tenant ids · [`metadata`] metric metadata.

pub mod exemplar;
pub mod float;
pub mod histogram;
pub mod labels;
pub mod matcher;
pub mod metadata;
pub mod sample;
pub mod tenant;
pub mod time;

pub use exemplar::Exemplar;
pub use histogram::{
    CounterResetHint, FloatHistogram, Histogram, HistogramError, HistogramSample, IntegerHistogram,
};
pub use labels::{Labels, LabelsBuilder, METRIC_NAME};
pub use matcher::{MatchOp, Matcher};
pub use metadata::{METRIC_TYPE, METRIC_UNIT, MetricMetadata, MetricType};
pub use sample::{STALE_NAN_BITS, Sample, StartTimestamp, is_stale, stale_nan};
pub use tenant::{TenantId, TenantIdError};
pub use time::{TimeRange, Timestamp, format_duration, parse_duration};
