//! Metric metadata: type, unit and help text of a metric family.

use crate::Labels;

/// The label with the type of a series' metric, where types are stored with series (Prometheus' `type-and-unit-labels`).
pub const METRIC_TYPE: &str = "__type__";
/// The label with its unit.
pub const METRIC_UNIT: &str = "__unit__";

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

impl MetricMetadata {
    /// `labels` with type and unit as labels, in place of what a user may have put there. What is not known is left as it
    /// is, as Prometheus' scrapes leave it.
    #[must_use]
    pub fn label(&self, labels: &Labels) -> Labels {
        let mut labels = labels.to_builder();
        if self.kind != MetricType::Unknown {
            labels.set(METRIC_TYPE, self.kind.as_str());
        }
        if !self.unit.is_empty() {
            labels.set(METRIC_UNIT, self.unit.as_str());
        }
        labels.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_unit_replace_what_a_user_says_of_them() {
        let labels = Labels::from_pairs([("__name__", "m"), ("__type__", "mine"), ("__unit__", "mine")]);
        let known =
            MetricMetadata { kind: MetricType::Counter, unit: "s".into(), ..MetricMetadata::default() };
        assert_eq!(known.label(&labels).to_string(), r#"{__name__="m", __type__="counter", __unit__="s"}"#);
        assert_eq!(MetricMetadata::default().label(&labels), labels);
    }
}
