//! Metric metadata: type, unit and help text of a metric family.

/// The type of a metric family, as OpenMetrics and remote write name them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricType {
    /// Not known.
    #[default]
    Unknown,
    /// A value that only grows, but for resets.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
    /// A histogram whose buckets may shrink.
    GaugeHistogram,
    /// Quantiles, a sum and a count.
    Summary,
    /// A constant 1 with labels.
    Info,
    /// One series per state.
    StateSet,
}

impl MetricType {
    /// As the HTTP API prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

/// What a sender says of a metric family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MetricMetadata {
    /// Metric family name.
    pub metric: String,
    /// Its type.
    pub kind: MetricType,
    /// Its unit, or empty.
    pub unit: String,
    /// Its help text, or empty.
    pub help: String,
}
