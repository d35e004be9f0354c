//! Warnings and infos that come with a result.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
};

use chronolith_model::{Timestamp, float};
use chronolith_syntax::ast::{BinaryOp, Span};

/// Distinct annotations one query remembers; the rest is dropped.
pub(crate) const ANNOTATIONS_MAX: usize = 1_000;

/// Something a user should know about a result. `Display` is Prometheus' text without prefix and position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Annotation {
    /// Warning: the parameter of `limit_ratio` is out of range; capped to the second value.
    InvalidRatio(f64, f64),
    /// Warning: a quantile is not within 0 and 1.
    InvalidQuantile(f64),
    /// Warning: a bucket's `le` is missing or no number.
    BadBucketLabel {
        /// Metric name, empty if unknown.
        metric: String,
        /// The label's value.
        label: String,
    },
    /// Info: a counter function over something not named like a counter.
    PossibleNonCounter(String),
    /// Info: a counter function over something whose `__type__` is none of a counter; only where that label is relied on.
    NonCounterType {
        /// Metric name.
        metric: String,
        /// The label's value, empty where it is missing.
        kind: String,
    },
    /// Info: buckets of a histogram were not monotonic.
    ForcedMonotonicity(ForcedMonotonicity),
    /// Warning: `sort` in a range query.
    SortIneffective,
    /// Warning: a sample's start timestamp is before the sample before. Those of one metric are merged.
    StartTimeOverlap {
        /// Metric name, empty if unknown.
        metric: String,
        /// In how many windows.
        count: u64,
    },
    /// Info: an operator between samples of kinds that it has no result for.
    IncompatibleTypes {
        /// The operator.
        op: BinaryOp,
        /// The kind of its left operand.
        left: SampleKind,
        /// The kind of its right operand.
        right: SampleKind,
    },
    /// Warning: floats and histograms of the metric of this name in one window.
    MixedRange(String),
    /// Warning: floats and histograms in one group.
    MixedAggregation,
    /// Warning: classic and native histograms of the same labels; the metric's name is empty if unknown.
    MixedClassicNative(String),
    /// Warning: a counter function over histograms that are gauges.
    NotCounter(String),
    /// Warning: a gauge function over histograms that are counters.
    NotGauge(String),
    /// Warning: exponential and custom buckets met in the metric of this name.
    MixedSchemas(String),
    /// Warning: exponential and custom buckets met at an operator.
    IncompatibleBuckets(BinaryOp),
    /// Warning: of the histograms put together some were reset and others not.
    ResetCollision(HistogramOperation),
    /// Info: histograms put together had other custom buckets; those they share are left.
    BoundsReconciled(HistogramOperation),
    /// Info: an aggregation of this name left histograms out.
    IgnoredInAggregation(&'static str),
    /// Info: a function left histograms out that were in one window with floats of the metric of this name.
    IgnoredInRange(String),
    /// Info: NaN observations made a quantile NaN; the metric's name is empty if unknown.
    NanQuantile(String),
    /// Info: NaN observations made a quantile higher than it should be.
    SkewedQuantile(String),
    /// Info: NaN observations are in no fraction.
    NanFraction(String),
}

/// The kinds of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SampleKind {
    /// A number.
    Float,
    /// A native histogram.
    Histogram,
}

impl fmt::Display for SampleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::Histogram => "histogram",
        })
    }
}

/// How histograms are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistogramOperation {
    /// `+`, and what works like it.
    Addition,
    /// `-`, and what works like it.
    Subtraction,
    /// Sums and averages of many.
    Aggregation,
}

impl fmt::Display for HistogramOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        })
    }
}

/// How far the buckets of histograms were from monotonic. Those of one metric are merged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ForcedMonotonicity {
    /// Metric name, empty if unknown.
    pub(crate) metric: String,
    /// Lowest bucket bound concerned.
    pub(crate) bucket_min: f64,
    /// Highest bucket bound concerned.
    pub(crate) bucket_max: f64,
    /// Largest correction.
    pub(crate) diff_max: f64,
    /// Evaluation time of the first such histogram.
    pub(crate) first: Timestamp,
    /// Evaluation time of the last one.
    pub(crate) last: Timestamp,
    /// How many there were.
    pub(crate) count: u64,
}

/// How much an annotation matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The result may be wrong.
    Warning,
    /// The query may not mean what its author thinks.
    Info,
}

impl Annotation {
    /// Whether it is a warning or an info.
    pub(crate) const fn severity(&self) -> Severity {
        match self {
            Self::InvalidRatio(..)
            | Self::InvalidQuantile(_)
            | Self::BadBucketLabel { .. }
            | Self::StartTimeOverlap { .. }
            | Self::SortIneffective
            | Self::MixedRange(_)
            | Self::MixedAggregation
            | Self::MixedClassicNative(_)
            | Self::NotCounter(_)
            | Self::NotGauge(_)
            | Self::MixedSchemas(_)
            | Self::IncompatibleBuckets(_)
            | Self::ResetCollision(_) => Severity::Warning,
            Self::PossibleNonCounter(_)
            | Self::NonCounterType { .. }
            | Self::ForcedMonotonicity(_)
            | Self::IncompatibleTypes { .. }
            | Self::BoundsReconciled(_)
            | Self::IgnoredInAggregation(_)
            | Self::IgnoredInRange(_)
            | Self::NanQuantile(_)
            | Self::SkewedQuantile(_)
            | Self::NanFraction(_) => Severity::Info,
        }
    }

    /// Annotations of one key are one; their positions do not matter.
    fn key(&self) -> String {
        match self {
            Self::ForcedMonotonicity(forced) => format!("forced monotonicity {}", forced.metric),
            Self::StartTimeOverlap { metric, .. } => format!("start time overlap {metric}"),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Annotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidRatio(got, to) => write!(
                f,
                "ratio value should be between -1 and 1, got {}, capping to {}",
                float::general(*got),
                float::general(*to)
            ),
            Self::InvalidQuantile(q) => {
                write!(f, "quantile value should be between 0 and 1, got {}", float::general(*q))
            }
            Self::BadBucketLabel { metric, label } => {
                write!(f, "bucket label \"le\" is missing or has a malformed value of ")?;
                chronolith_model::labels::write_quoted(f, label)?;
                for_metric(f, metric)
            }
            Self::PossibleNonCounter(metric) => {
                f.write_str(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: ",
                )?;
                chronolith_model::labels::write_quoted(f, metric)
            }
            Self::NonCounterType { metric, kind } => {
                f.write_str(
                    "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got ",
                )?;
                chronolith_model::labels::write_quoted(f, kind)?;
                f.write_str(": ")?;
                chronolith_model::labels::write_quoted(f, metric)
            }
            Self::ForcedMonotonicity(forced) => forced.fmt(f),
            Self::IncompatibleTypes { op, left, right } => {
                let op = op.as_str();
                write!(
                    f,
                    "incompatible sample types encountered for binary operator \"{op}\": {left} {op} {right}"
                )
            }
            Self::StartTimeOverlap { metric, count } => {
                f.write_str(
                    "sample has start time that overlaps with previous sample timestamp for metric ",
                )?;
                chronolith_model::labels::write_quoted(f, metric)?;
                if *count > 1 {
                    write!(f, " ({count} occurrences)")?;
                }
                Ok(())
            }
            Self::SortIneffective => f.write_str(
                "sort is ineffective for range queries since results are always ordered by labels",
            ),
            other => other.fmt_histograms(f),
        }
    }
}

impl Annotation {
    /// The texts that are about histograms.
    fn fmt_histograms(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, metric) = match self {
            Self::MixedRange(metric) => {
                ("encountered a mix of histograms and floats for metric name", metric)
            }
            Self::NotCounter(metric) => ("this native histogram metric is not a counter:", metric),
            Self::NotGauge(metric) => ("this native histogram metric is not a gauge:", metric),
            Self::MixedSchemas(metric) => (
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name",
                metric,
            ),
            Self::IgnoredInRange(metric) => (
                "ignored histograms in a range containing both floats and histograms for metric name",
                metric,
            ),
            Self::MixedAggregation => {
                return f.write_str("encountered a mix of histograms and floats for aggregation");
            }
            Self::IncompatibleBuckets(op) => {
                return write!(
                    f,
                    "incompatible bucket layout encountered for binary operator {}",
                    op.as_str()
                );
            }
            Self::ResetCollision(operation) => {
                return write!(f, "conflicting counter resets during histogram {operation}");
            }
            Self::BoundsReconciled(operation) => {
                return write!(f, "mismatched custom buckets were reconciled during {operation}");
            }
            Self::IgnoredInAggregation(name) => {
                return write!(f, "ignored histogram in {name} aggregation");
            }
            other => return other.fmt_observations(f),
        };
        write!(f, "{text} ")?;
        chronolith_model::labels::write_quoted(f, metric)
    }

    /// The texts that are about quantiles and fractions of histograms.
    fn fmt_observations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, metric) = match self {
            Self::MixedClassicNative(metric) => {
                ("vector contains a mix of classic and native histograms", metric)
            }
            Self::NanQuantile(metric) => {
                ("input to histogram_quantile has NaN observations, result is NaN", metric)
            }
            Self::SkewedQuantile(metric) => {
                ("input to histogram_quantile has NaN observations, result is skewed higher", metric)
            }
            Self::NanFraction(metric) => (
                "input to histogram_fraction has NaN observations, which are excluded from all fractions",
                metric,
            ),
            _ => return Ok(()),
        };
        f.write_str(text)?;
        for_metric(f, metric)
    }
}

fn for_metric(f: &mut fmt::Formatter<'_>, metric: &str) -> fmt::Result {
    if metric.is_empty() {
        return Ok(());
    }
    f.write_str(" for metric name ")?;
    chronolith_model::labels::write_quoted(f, metric)
}

impl fmt::Display for ForcedMonotonicity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
        )?;
        for_metric(f, &self.metric)?;
        write!(
            f,
            ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
            float::general(self.bucket_min),
            float::general(self.bucket_max),
            two_digits(self.diff_max),
            self.count,
            rfc3339(self.first),
            rfc3339(self.last)
        )
    }
}

/// `v` as Go's `%.2g`.
fn two_digits(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return float::general(v);
    }
    let text = format!("{v:.1e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let rounded: f64 = text.parse().unwrap_or(v);
    if (-4..2).contains(&exponent) {
        return float::fixed(rounded);
    }
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// A time in milliseconds as Go's RFC 3339, in whole seconds, UTC.
fn rfc3339(t: Timestamp) -> String {
    jiff::Timestamp::from_second(t.div_euclid(1_000))
        .map_or_else(|_| t.to_string(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The annotations of a query, or of a part of it. Repeats of one text are kept once, with the place of the last; but
/// [`ForcedMonotonicity`] and overlaps of start times with that of the first. So does Prometheus.
#[derive(Clone, Debug, Default)]
pub(crate) struct Annotations {
    entries: Vec<(Annotation, Span)>,
    by_key: HashMap<String, usize>,
}

impl Annotations {
    /// Notes `annotation` about the expression at `span`.
    pub(crate) fn add(&mut self, annotation: Annotation, span: Span) {
        match self.by_key.entry(annotation.key()) {
            Entry::Occupied(known) => {
                let known = &mut self.entries[*known.get()];
                if let (Annotation::ForcedMonotonicity(known), Annotation::ForcedMonotonicity(new)) =
                    (&mut known.0, &annotation)
                {
                    known.bucket_min = known.bucket_min.min(new.bucket_min);
                    known.bucket_max = known.bucket_max.max(new.bucket_max);
                    known.diff_max = known.diff_max.max(new.diff_max);
                    known.first = known.first.min(new.first);
                    known.last = known.last.max(new.last);
                    known.count += new.count;
                } else if let (
                    Annotation::StartTimeOverlap { count: known, .. },
                    Annotation::StartTimeOverlap { count: new, .. },
                ) = (&mut known.0, &annotation)
                {
                    *known += new;
                } else {
                    known.1 = span;
                }
            }
            Entry::Vacant(free) if self.entries.len() < ANNOTATIONS_MAX => {
                free.insert(self.entries.len());
                self.entries.push((annotation, span));
            }
            Entry::Vacant(_) => {}
        }
    }

    /// Adds those of `other` behind these.
    pub(crate) fn merge(&mut self, other: Self) {
        for (annotation, span) in other.entries {
            self.add(annotation, span);
        }
    }

    /// The same about an equal expression elsewhere: what points to `from[i]` points to `to[i]`.
    pub(crate) fn moved(&self, from: &[Span], to: &[Span]) -> Self {
        let mut moved = self.clone();
        for (_, span) in &mut moved.entries {
            if let Some(place) = from.iter().position(|known| known == span) {
                *span = to.get(place).copied().unwrap_or(*span);
            }
        }
        moved
    }

    /// Warnings and infos as the API shows them, at most [`SHOWN_MAX`] of each and a line that counts the rest.
    pub(crate) fn render(&self, query: &str) -> (Vec<String>, Vec<String>) {
        (self.render_severity(query, Severity::Warning), self.render_severity(query, Severity::Info))
    }

    fn render_severity(&self, query: &str, severity: Severity) -> Vec<String> {
        let word = match severity {
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        let matching = || self.entries.iter().filter(|(annotation, _)| annotation.severity() == severity);
        let mut lines: Vec<String> = matching()
            .take(SHOWN_MAX)
            .map(|(annotation, span)| format!("PromQL {word}: {annotation} ({})", position(query, *span)))
            .collect();
        let total = matching().count();
        if total > SHOWN_MAX {
            lines.push(format!("{} more {word} annotations omitted", total - SHOWN_MAX));
        }
        lines
    }
}

/// Annotations of one severity shown word for word.
const SHOWN_MAX: usize = 10;

/// `line:column` of the start of `span`, both from 1, the column in bytes.
fn position(query: &str, span: Span) -> String {
    let before = query.as_bytes().get(..span.start).unwrap_or_default();
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    format!("{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_text_with_the_last_place() {
        let mut notes = Annotations::default();
        for start in [0, 5] {
            notes.add(Annotation::InvalidQuantile(2.0), Span { start, end: start + 1 });
        }
        let (warnings, infos) = notes.render("ab\ncdefg");
        assert_eq!(warnings, ["PromQL warning: quantile value should be between 0 and 1, got 2 (2:3)"]);
        assert!(infos.is_empty());
    }

    #[test]
    fn monotonicity_adds_up() {
        let mut notes = Annotations::default();
        let forced = |min, diff, t| {
            Annotation::ForcedMonotonicity(ForcedMonotonicity {
                metric: "x".to_owned(),
                bucket_min: min,
                bucket_max: 2.0,
                diff_max: diff,
                first: t,
                last: t,
                count: 1,
            })
        };
        notes.add(forced(1.0, 0.5, 60_000), Span::default());
        notes.add(forced(0.5, 123.0, 0), Span::default());
        assert_eq!(
            notes.render("x").1,
            ["PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
              https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name \
              \"x\", from buckets 0.5 to 2, with a max diff of 1.2e+02, over 2 samples from 1970-01-01T00:00:00Z to \
              1970-01-01T00:01:00Z (1:1)"]
        );
    }

    #[test]
    fn the_rest_is_counted() {
        let mut notes = Annotations::default();
        for i in 0..ANNOTATIONS_MAX + 5 {
            notes.add(Annotation::PossibleNonCounter(format!("m{i}")), Span::default());
        }
        let infos = notes.render("").1;
        assert_eq!(infos.len(), SHOWN_MAX + 1);
        assert_eq!(infos[SHOWN_MAX], "990 more info annotations omitted");
    }
}
