//! Exemplars in memory: a ring of bounded number and bytes, the oldest arrival goes first.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
};

use chronolith_index::CompiledMatcher;
use chronolith_model::{Exemplar, Labels, exemplar::LABEL_CHARS_MAX};

use crate::{
    append::ExemplarOutcome,
    query::{ExemplarQuery, SeriesExemplars},
};

/// How many exemplars a store keeps by default, as Prometheus does.
pub const EXEMPLARS_MAX: usize = 100_000;
/// Bytes of exemplars, their labels and those of their series a store keeps by default.
pub const EXEMPLAR_BYTES_MAX: usize = 64 << 20;
/// Bytes an exemplar takes beside its labels, about.
const EXEMPLAR_BYTES: usize = 96;
/// Bytes a series takes beside its labels, about.
const SERIES_BYTES: usize = 160;

/// Why an exemplar is not stored. The texts are Prometheus'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExemplarError {
    /// Names and values of its labels are too long together.
    #[error("label length for exemplar exceeds maximum of {LABEL_CHARS_MAX} UTF-8 characters")]
    LabelsTooLong,
    /// Older than the newest of its series.
    #[error("out of order exemplar")]
    OutOfOrder,
    /// It is there already; to be accepted silently.
    #[error("duplicate exemplar")]
    Duplicate,
}

impl ExemplarError {
    /// Counts `self` in `outcome`.
    pub const fn count(self, outcome: &mut ExemplarOutcome) {
        match self {
            Self::Duplicate => outcome.duplicates += 1,
            Self::OutOfOrder => outcome.out_of_order += 1,
            Self::LabelsTooLong => outcome.dropped += 1,
        }
    }
}

/// The exemplars of one tenant.
#[derive(Clone)]
pub struct ExemplarStore {
    /// Of each series its exemplars, oldest first; never empty.
    series: HashMap<Labels, VecDeque<Exemplar>>,
    /// The series of each exemplar in the order of arrival.
    arrivals: VecDeque<Labels>,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl ExemplarStore {
    /// A store of at most so many exemplars and bytes. A store of none is one that is switched off.
    #[must_use]
    pub fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { series: HashMap::new(), arrivals: VecDeque::new(), bytes: 0, count_max, bytes_max }
    }

    /// How many exemplars.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Bytes it keeps, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether `exemplar` could be added to `series`; nothing is changed.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, series: &Labels, exemplar: &Exemplar) -> Result<(), ExemplarError> {
        if exemplar.label_chars() > LABEL_CHARS_MAX {
            return Err(ExemplarError::LabelsTooLong);
        }
        let Some(known) = self.series.get(series) else { return Ok(()) };
        if known.back().is_some_and(|newest| exemplar.timestamp < newest.timestamp) {
            return Err(ExemplarError::OutOfOrder);
        }
        let mut newest = known.iter().rev().take_while(|known| known.timestamp == exemplar.timestamp);
        if newest.any(|known| known.same(exemplar)) { Err(ExemplarError::Duplicate) } else { Ok(()) }
    }

    /// Adds an exemplar; those that came first go where there is no room.
    ///
    /// # Errors
    /// As [`ExemplarStore::check`].
    pub fn add(&mut self, series: &Labels, exemplar: Exemplar) -> Result<(), ExemplarError> {
        self.check(series, &exemplar)?;
        self.bytes += exemplar_bytes(&exemplar);
        let key = match self.series.get_key_value(series) {
            // The same string for all of a series.
            Some((known, _)) => known.clone(),
            None => {
                self.bytes += series_bytes(series);
                series.clone()
            }
        };
        self.arrivals.push_back(key.clone());
        self.series.entry(key).or_default().push_back(exemplar);
        while self.arrivals.len() > self.count_max || self.bytes > self.bytes_max {
            if !self.drop_oldest() {
                break;
            }
        }
        Ok(())
    }

    /// Drops the one that arrived first; `false` if there is none.
    pub fn drop_oldest(&mut self) -> bool {
        let Some(labels) = self.arrivals.pop_front() else { return false };
        if let Some(known) = self.series.get_mut(&labels) {
            if let Some(exemplar) = known.pop_front() {
                self.bytes = self.bytes.saturating_sub(exemplar_bytes(&exemplar));
            }
            if known.is_empty() {
                self.series.remove(&labels);
                self.bytes = self.bytes.saturating_sub(series_bytes(&labels));
            }
        }
        true
    }

    /// Drops all that `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(&Labels, &Exemplar) -> bool) {
        let kept: Vec<bool> = self.iter().map(|(labels, exemplar)| keep(labels, exemplar)).collect();
        if kept.iter().all(|kept| *kept) {
            return;
        }
        // In the order of arrival, which is that of each series.
        let all: Vec<(Labels, Exemplar)> =
            self.iter().map(|(labels, exemplar)| (labels.clone(), exemplar.clone())).collect();
        (self.series, self.arrivals, self.bytes) = (HashMap::new(), VecDeque::new(), 0);
        for ((labels, exemplar), _) in all.into_iter().zip(kept).filter(|(_, kept)| *kept) {
            let _ = self.add(&labels, exemplar);
        }
    }

    /// The exemplars in question, by series, sorted by labels. Breaks off where [`ExemplarQuery::payer`] refuses to pay for
    /// more, who then knows.
    #[must_use]
    pub fn select(&self, query: &ExemplarQuery) -> Vec<SeriesExemplars> {
        let wanted = |labels: &Labels| {
            let meets =
                |matcher: &CompiledMatcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default());
            query.matcher_sets.iter().any(|matchers| matchers.iter().all(meets))
        };
        let inside = |exemplar: &&Exemplar| (query.range.min..=query.range.max).contains(&exemplar.timestamp);
        let mut found = Vec::new();
        for (labels, known) in self.series.iter().filter(|(labels, _)| wanted(labels)) {
            let bytes: usize = known.iter().filter(inside).map(exemplar_bytes).sum();
            if bytes == 0 {
                continue;
            }
            if let Some(payer) = &query.payer
                && payer.charge(bytes + series_bytes(labels)).is_err()
            {
                break;
            }
            let exemplars = known.iter().filter(inside).cloned().collect();
            found.push(SeriesExemplars { labels: labels.clone(), exemplars });
        }
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        found
    }

    /// All exemplars in the order of arrival, with their series: for a log's checkpoint.
    pub fn iter(&self) -> impl Iterator<Item = (&Labels, &Exemplar)> {
        let mut seen: HashMap<&Labels, usize> = HashMap::new();
        self.arrivals.iter().filter_map(move |labels| {
            let at = seen.entry(labels).or_default();
            *at += 1;
            self.series.get(labels)?.get(*at - 1).map(|exemplar| (labels, exemplar))
        })
    }
}

impl Default for ExemplarStore {
    fn default() -> Self {
        Self::new(EXEMPLARS_MAX, EXEMPLAR_BYTES_MAX)
    }
}

impl fmt::Debug for ExemplarStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExemplarStore")
            .field("exemplars", &self.len())
            .field("series", &self.series.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// About what an exemplar takes.
#[must_use]
pub fn exemplar_bytes(exemplar: &Exemplar) -> usize {
    EXEMPLAR_BYTES + exemplar.labels.size_bytes()
}

/// About what a series of exemplars takes besides them.
#[must_use]
pub fn series_bytes(labels: &Labels) -> usize {
    SERIES_BYTES + labels.size_bytes()
}

#[cfg(test)]
mod tests {
    use chronolith_model::{Matcher, TimeRange};

    use super::*;

    fn series(job: &str) -> Labels {
        Labels::from_pairs([("__name__", "m"), ("job", job)])
    }

    fn exemplar(timestamp: i64, trace: &str) -> Exemplar {
        Exemplar { labels: Labels::from_pairs([("trace_id", trace)]), value: 1.0, timestamp }
    }

    fn all(store: &ExemplarStore, job: &str) -> Vec<i64> {
        let matchers = CompiledMatcher::compile_all(&[Matcher::equal("job", job)]).unwrap();
        let query = ExemplarQuery { matcher_sets: vec![matchers], range: TimeRange::ALL, payer: None };
        let found = store.select(&query);
        found.iter().flat_map(|series| series.exemplars.iter().map(|exemplar| exemplar.timestamp)).collect()
    }

    #[test]
    fn exemplars_are_judged() {
        let mut store = ExemplarStore::default();
        assert_eq!(store.add(&series("a"), exemplar(10, "x")), Ok(()));
        assert_eq!(store.add(&series("a"), exemplar(10, "y")), Ok(()), "another one at the same time");
        assert_eq!(store.add(&series("a"), exemplar(10, "x")), Err(ExemplarError::Duplicate));
        assert_eq!(store.add(&series("a"), exemplar(9, "z")), Err(ExemplarError::OutOfOrder));
        assert_eq!(store.add(&series("b"), exemplar(9, "z")), Ok(()), "order is per series");
        let long = "\u{e9}".repeat(LABEL_CHARS_MAX - "trace_id".len());
        assert_eq!(store.add(&series("b"), exemplar(10, &long)), Ok(()), "characters count, not bytes");
        let refused = store.add(&series("b"), exemplar(11, &format!("{long}x")));
        assert_eq!(refused, Err(ExemplarError::LabelsTooLong));
        assert_eq!((all(&store, "a"), all(&store, "b"), store.len()), (vec![10, 10], vec![9, 10], 4));
    }

    #[test]
    fn the_oldest_arrival_goes_first() {
        let mut store = ExemplarStore::new(3, usize::MAX);
        for (job, t) in [("a", 5), ("b", 1), ("a", 6), ("c", 2), ("b", 3)] {
            store.add(&series(job), exemplar(t, "x")).unwrap();
        }
        assert_eq!((all(&store, "a"), all(&store, "b"), all(&store, "c")), (vec![6], vec![3], vec![2]));
        let order: Vec<i64> = store.iter().map(|(_, exemplar)| exemplar.timestamp).collect();
        assert_eq!(order, [6, 2, 3]);
        let full = store.bytes();
        for i in 0..100 {
            store.add(&series("abc"), exemplar(i, "x")).unwrap();
        }
        assert!(store.bytes() <= full, "{} bytes, {full} before", store.bytes());
        assert_eq!((store.len(), store.series.len()), (3, 1));
    }

    #[test]
    fn what_is_not_wanted_goes() {
        let mut store = ExemplarStore::default();
        for (job, t) in [("a", 5), ("b", 1), ("a", 6), ("a", 7), ("b", 3)] {
            store.add(&series(job), exemplar(t, "x")).unwrap();
        }
        store.retain(|labels, exemplar| *labels != series("b") && exemplar.timestamp != 6);
        let order: Vec<i64> = store.iter().map(|(_, exemplar)| exemplar.timestamp).collect();
        assert_eq!((order, store.len()), (vec![5, 7], 2));
        let bytes = 2 * exemplar_bytes(&exemplar(5, "x")) + series_bytes(&series("a"));
        assert_eq!(store.bytes(), bytes, "the bytes are exact");
        store.retain(|_, _| false);
        assert_eq!((store.len(), store.bytes()), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_to_the_last() {
        let one = exemplar_bytes(&exemplar(1, "x")) + series_bytes(&series("a"));
        let mut store = ExemplarStore::new(usize::MAX, one);
        store.add(&series("a"), exemplar(1, "x")).unwrap();
        assert_eq!((store.len(), store.bytes()), (1, one));
        store.add(&series("b"), exemplar(2, "x")).unwrap();
        assert_eq!((all(&store, "a"), all(&store, "b"), store.bytes()), (vec![], vec![2], one));
        let mut off = ExemplarStore::new(0, 0);
        off.add(&series("a"), exemplar(1, "x")).unwrap();
        assert!(off.is_empty() && off.bytes() == 0);
    }
}
