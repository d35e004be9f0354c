//! Samples, stale markers and start timestamps.

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

/// A step of the start timestamps of a series. They change with each restart of what is counted only, so a step for each
/// change is all that has to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StartTimestamp {
    /// The first sample that has it, in milliseconds.
    pub since: Timestamp,
    /// When counting began, in milliseconds; 0 = not known.
    pub start: Timestamp,
}

impl StartTimestamp {
    /// The start of the sample at `timestamp`, by `steps` that ascend; 0 (not known) before the first.
    #[must_use]
    pub fn at(steps: &[Self], timestamp: Timestamp) -> Timestamp {
        let behind = steps.partition_point(|step| step.since <= timestamp);
        behind.checked_sub(1).and_then(|last| steps.get(last)).map_or(0, |step| step.start)
    }

    /// Notes behind `steps`, which are older, that samples from `timestamp` on have this start; 0 = not known.
    pub fn push(steps: &mut Vec<Self>, timestamp: Timestamp, start: Timestamp) {
        if steps.last().map_or(0, |last| last.start) != start {
            steps.push(Self { since: timestamp, start });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_changes() {
        let mut steps = Vec::new();
        for (t, start) in [(1, 0), (2, 500), (3, 500), (4, 700), (5, 0), (6, 0)] {
            StartTimestamp::push(&mut steps, t, start);
        }
        assert_eq!(steps.iter().map(|step| step.since).collect::<Vec<_>>(), [2, 4, 5]);
        let starts: Vec<_> = (0..8).map(|t| StartTimestamp::at(&steps, t)).collect();
        assert_eq!(starts, [0, 0, 500, 500, 700, 0, 0, 0]);
    }
}
