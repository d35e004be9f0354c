//! Exemplars.

use crate::{Labels, Timestamp};

/// Most characters of the names and values of an exemplar's labels together, as OpenMetrics has it.
pub const LABEL_CHARS_MAX: usize = 128;

/// An example of what was observed: a value with labels of its own, mostly the id of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its own labels; those of the series are not among them.
    pub labels: Labels,
    /// What was observed.
    pub value: f64,
    /// When, in milliseconds.
    pub timestamp: Timestamp,
}

impl Exemplar {
    /// Whether both are one exemplar: the same labels, timestamp and bits of the value.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.timestamp == other.timestamp
            && self.value.to_bits() == other.value.to_bits()
            && self.labels == other.labels
    }

    /// Characters of the names and values of its labels.
    #[must_use]
    pub fn label_chars(&self) -> usize {
        self.labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum()
    }
}
