//! What makes a histogram invalid.

use std::fmt;

use super::{BUCKETS_MAX, CUSTOM_SCHEMA, SCHEMA_MAX, SCHEMA_MIN};

/// The part of a histogram an error is about; it stands before the error's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Buckets of positive values.
    Positive,
    /// Buckets of negative values.
    Negative,
    /// Buckets with bounds of their own.
    Custom,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Positive => "positive side",
            Self::Negative => "negative side",
            Self::Custom => "custom buckets",
        })
    }
}

/// Why a histogram may not be stored. The texts are Prometheus' where it has one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HistogramError {
    /// A resolution that does not exist.
    #[error(
        "histogram has an invalid schema, which must be between {SCHEMA_MIN} and {SCHEMA_MAX} for exponential buckets, \
         or {CUSTOM_SCHEMA} for custom buckets, got schema {0}"
    )]
    Schema(i32),
    /// A span that begins before the end of the one before it.
    #[error(
        "{side}: span number {number} with offset {offset}: histogram has a span whose offset is negative"
    )]
    SpanOffset {
        /// Whose span.
        side: Side,
        /// Which, from 1.
        number: usize,
        /// Its offset.
        offset: i32,
    },
    /// Spans that cover another number of buckets than there is.
    #[error(
        "{side}: spans need {need} buckets, have {have} buckets: histogram spans specify different number of buckets \
         than provided"
    )]
    BucketNumber {
        /// Whose spans.
        side: Side,
        /// Buckets the spans cover.
        need: u64,
        /// Buckets given.
        have: usize,
    },
    /// A bucket that holds less than nothing.
    #[error(
        "{side}: bucket number {number} has observation count of {}: histogram has a bucket whose observation count is \
         negative",
        crate::float::general(*count)
    )]
    NegativeBucket {
        /// Whose bucket.
        side: Side,
        /// Which, from 1.
        number: usize,
        /// What it holds.
        count: f64,
    },
    /// Integer counts that do not add up.
    #[error(
        "{found} observations found in buckets, but the Count field is {count}: histogram's observation count should \
         equal the number of observations found in the buckets (in absence of NaN)"
    )]
    CountMismatch {
        /// Sum of the buckets, the zero bucket included.
        found: u128,
        /// The count given.
        count: u64,
    },
    /// More observations in the buckets than were made, where NaNs may have been among them.
    #[error(
        "{found} observations found in buckets, but the Count field is {count}: histogram's observation count should \
         be at least the number of observations found in the buckets"
    )]
    CountNotBigEnough {
        /// Sum of the buckets, the zero bucket included.
        found: u128,
        /// The count given.
        count: u64,
    },
    /// Bounds that do not ascend.
    #[error(
        "custom buckets: previous bound is {previous:.6} and current is {current:.6}: histogram custom bounds must be \
         in strictly increasing order"
    )]
    CustomOrder {
        /// A bound.
        previous: f64,
        /// The next.
        current: f64,
    },
    /// A bound that is infinite.
    #[error(
        "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite"
    )]
    CustomInfinite,
    /// A bound that is no number.
    #[error("custom buckets: histogram custom bounds must not be NaN")]
    CustomNan,
    /// Spans that reach beyond the last bound's overflow bucket.
    #[error(
        "custom buckets: only {bounds} custom bounds defined which is insufficient to cover total span length of \
         {spans}: histogram custom bounds are too few"
    )]
    CustomTooFew {
        /// Bounds given.
        bounds: usize,
        /// Buckets the spans reach over.
        spans: u64,
    },
    /// Custom buckets have no zero bucket.
    #[error("custom buckets: must have zero count of 0")]
    CustomZeroCount,
    /// Custom buckets have no zero bucket.
    #[error("custom buckets: must have zero threshold of 0")]
    CustomZeroThreshold,
    /// Custom buckets stand on one side.
    #[error("custom buckets: must not have negative spans")]
    CustomNegativeSpans,
    /// Custom buckets stand on one side.
    #[error("custom buckets: must not have negative buckets")]
    CustomNegativeBuckets,
    /// Bounds where the schema gives them.
    #[error("histogram with exponential schema must not have custom bounds")]
    ExponentialCustomBounds,
    /// More buckets or bounds than a histogram may have here.
    #[error("histogram has too many buckets: {0}, the limit is {BUCKETS_MAX}")]
    TooManyBuckets(u64),
    /// A bucket whose index has more than 32 bits.
    #[error("{0}: histogram has a bucket index out of range")]
    IndexRange(Side),
}
