//! Samples and stale markers.

use crate::time::Timestamp;

/// One float sample. Values are compared and stored by their bits: every NaN payload is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When, in milliseconds.
    pub timestamp: Timestamp,
    /// What.
    pub value: f64,
}

impl Sample {
    /// A sample of `value` at `timestamp` (milliseconds).
    #[must_use]
    pub const fn new(timestamp: Timestamp, value: f64) -> Self {
        Self { timestamp, value }
    }
}

/// The bits of Prometheus' stale marker, a NaN that says a series has ended.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker as a float.
#[must_use]
pub const fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the stale marker, bit for bit. Other NaNs are ordinary values.
#[must_use]
pub const fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}
