//! How many series have which labels.

use std::collections::HashMap;

use chronolith_model::{Labels, METRIC_NAME};
use serde::Serialize;

/// Label pairs are told apart until they take so many bytes; those that come later are not counted.
const PAIRS_BYTES_MAX: usize = 1 << 30;

/// What a pair costs beside its text.
const PAIR_BYTES: usize = 64;

/// Counts of distinct series.
#[derive(Debug)]
pub(super) struct Cardinality {
    /// By label name and value; metric names among them.
    pairs: HashMap<Box<str>, HashMap<Box<str>, u64>>,
    nameless: u64,
    bytes: usize,
    bytes_max: usize,
}

/// A label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Label {
    pub(super) label: String,
    pub(super) values: u64,
    /// Series that have it.
    pub(super) series: u64,
    /// Bytes of all values.
    pub(super) value_bytes: u64,
}

/// A label pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Pair {
    pub(super) label: String,
    pub(super) value: String,
    pub(super) series: u64,
}

impl Default for Cardinality {
    fn default() -> Self {
        Self { pairs: HashMap::new(), nameless: 0, bytes: 0, bytes_max: PAIRS_BYTES_MAX }
    }
}

impl Cardinality {
    /// Counts a series.
    pub(super) fn add(&mut self, labels: &Labels) {
        for (name, value) in labels {
            match self.pairs.get_mut(name).and_then(|values| values.get_mut(value)) {
                Some(count) => *count += 1,
                None => self.add_pair(name, value),
            }
        }
        self.nameless += u64::from(labels.metric_name().is_none());
    }

    fn add_pair(&mut self, name: &str, value: &str) {
        if self.is_full() {
            return;
        }
        self.bytes += value.len() + PAIR_BYTES;
        if !self.pairs.contains_key(name) {
            self.bytes += name.len() + PAIR_BYTES;
        }
        self.pairs.entry(name.into()).or_default().insert(value.into(), 1);
    }

    /// Whether pairs have been left out, or will be.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// How many series a metric has; the empty name is that of series without one.
    pub(super) fn of_metric(&self, metric: &str) -> u64 {
        match metric {
            "" => self.nameless,
            metric => self.pairs.get(METRIC_NAME).and_then(|names| names.get(metric)).copied().unwrap_or(0),
        }
    }

    /// The labels with the most values.
    pub(super) fn labels(&self, limit: usize) -> Vec<Label> {
        let mut labels: Vec<Label> = self
            .pairs
            .iter()
            .map(|(name, values)| Label {
                label: name.to_string(),
                values: values.len() as u64,
                series: values.values().sum(),
                value_bytes: values.keys().map(|value| value.len() as u64).sum(),
            })
            .collect();
        labels.sort_by(|a, b| b.values.cmp(&a.values).then_with(|| a.label.cmp(&b.label)));
        labels.truncate(limit);
        labels
    }

    /// The pairs that the most series have.
    pub(super) fn pairs(&self, limit: usize) -> Vec<Pair> {
        let all = self.pairs.iter().flat_map(|(name, values)| {
            values.iter().map(move |(value, series)| (std::cmp::Reverse(*series), &**name, &**value))
        });
        let mut all: Vec<_> = all.collect();
        if limit < all.len() {
            all.select_nth_unstable(limit);
            all.truncate(limit);
        }
        all.sort_unstable();
        let pair = |(series, name, value): (std::cmp::Reverse<u64>, &str, &str)| Pair {
            label: name.to_string(),
            value: value.to_string(),
            series: series.0,
        };
        all.into_iter().map(pair).collect()
    }

    /// How many pairs there are.
    pub(super) fn pairs_count(&self) -> u64 {
        self.pairs.values().map(|values| values.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(bytes_max: usize) -> Cardinality {
        let mut cardinality = Cardinality { bytes_max, ..Cardinality::default() };
        for pairs in [
            &[("__name__", "a"), ("x", "1"), ("y", "long")][..],
            &[("__name__", "a"), ("x", "2")],
            &[("__name__", "b"), ("x", "2")],
            &[("x", "2")],
        ] {
            cardinality.add(&Labels::from_pairs(pairs.iter().copied()));
        }
        cardinality
    }

    #[test]
    fn labels_and_pairs() {
        let cardinality = counted(PAIRS_BYTES_MAX);
        let label = |label: &str, values, series, value_bytes| Label {
            label: label.to_owned(),
            values,
            series,
            value_bytes,
        };
        assert_eq!(
            cardinality.labels(9),
            [label("__name__", 2, 3, 2), label("x", 2, 4, 2), label("y", 1, 1, 4)]
        );
        let pairs = |limit| {
            let pairs = cardinality.pairs(limit).into_iter();
            pairs.map(|pair| format!("{}={} {}", pair.label, pair.value, pair.series)).collect::<Vec<_>>()
        };
        assert_eq!(pairs(9), ["x=2 3", "__name__=a 2", "__name__=b 1", "x=1 1", "y=long 1"]);
        assert_eq!(pairs(2), ["x=2 3", "__name__=a 2"]);
        assert_eq!(["a", "b", "", "c"].map(|metric| cardinality.of_metric(metric)), [2, 1, 1, 0]);
        assert_eq!((cardinality.pairs_count(), cardinality.is_full()), (5, false));
    }

    #[test]
    fn memory_is_bounded() {
        let cardinality = counted(1);
        assert_eq!((cardinality.pairs_count(), cardinality.is_full()), (1, true));
        assert_eq!(cardinality.of_metric("a"), 2, "what is known goes on being counted");
    }
}
