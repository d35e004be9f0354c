//! Exponential histograms as native ones.

use chronolith_model::{
    Histogram, HistogramError, IntegerHistogram,
    histogram::{CounterResetHint, HistogramParts, SCHEMA_MAX, SCHEMA_MIN, Span},
};

use super::message::{Buckets, ExponentialPoint, NO_RECORDED_VALUE};

/// Half width of the zero bucket where the sender names none: what OpenTelemetry's SDKs mean by zero.
const ZERO_THRESHOLD: f64 = 1e-128;
/// Empty buckets between others that are kept: cheaper than a span more, and layouts change less.
const GAP_MAX: i64 = 2;

/// Why a point is no native histogram.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum NativeError {
    #[error("cannot convert exponential to native histogram. Scale must be >= {SCHEMA_MIN}, was {0}")]
    Scale(i32),
    #[error(transparent)]
    Histogram(#[from] HistogramError),
    #[error("bucket indices beyond 32 bits")]
    Index,
}

/// The histogram of a point, of a counter.
pub(super) fn native(point: &ExponentialPoint) -> Result<Histogram, NativeError> {
    if point.flags & NO_RECORDED_VALUE != 0 {
        return Ok(Histogram::Integer(IntegerHistogram::stale()));
    }
    if point.scale < SCHEMA_MIN {
        return Err(NativeError::Scale(point.scale));
    }
    let schema = point.scale.min(SCHEMA_MAX);
    let by = (point.scale - schema).min(63);
    let (positive_spans, positive_buckets) = side(&point.positive, by)?;
    let (negative_spans, negative_buckets) = side(&point.negative, by)?;
    let threshold = if point.zero_threshold == 0.0 { ZERO_THRESHOLD } else { point.zero_threshold };
    let parts = HistogramParts {
        hint: CounterResetHint::Unknown,
        schema,
        zero_threshold: threshold,
        zero_count: point.zero_count,
        count: point.count,
        sum: point.sum.unwrap_or(0.0),
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        custom_values: Vec::new(),
    };
    Ok(Histogram::Integer(parts.build(None)?))
}

/// Spans and absolute counts of one side, at a resolution coarser by `by`. A bucket `i` of OpenTelemetry is `i + 1` of
/// ours: both are named by a bound, but not by the same one.
fn side(buckets: &Buckets, by: i32) -> Result<(Vec<Span>, Vec<u64>), NativeError> {
    let mut spans: Vec<Span> = Vec::new();
    let mut counts: Vec<u64> = Vec::new();
    // Index behind the last bucket so far.
    let mut next = 0_i64;
    for (place, count) in buckets.bucket_counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let index = ((i64::from(buckets.offset) + place as i64) >> by) + 1;
        if let (Some(last), true) = (counts.last_mut(), index + 1 == next) {
            *last = last.saturating_add(*count);
            continue;
        }
        match spans.last_mut() {
            Some(span) if index - next <= GAP_MAX => {
                let gap = usize::try_from(index - next).unwrap_or(0);
                counts.resize(counts.len() + gap, 0);
                span.length = span.length.saturating_add(gap as u32).saturating_add(1);
            }
            _ => {
                let offset = i32::try_from(index - next).map_err(|_| NativeError::Index)?;
                spans.push(Span { offset, length: 1 });
            }
        }
        counts.push(*count);
        next = index + 1;
    }
    Ok((spans, counts))
}
