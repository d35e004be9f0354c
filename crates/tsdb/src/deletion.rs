//! What is deleted in the head: matchers and a range of time, until the samples have gone to blocks.
//!
//! The head itself keeps such samples; views leave them out, and the blocks that a cut writes get a tombstone. A deletion
//! is forgotten with the first cut that reaches over its end and whose mark covers all of the log that was there before it: a
//! replay does not read it again then.

use chronolith_block::{Tombstone, rehint};
use chronolith_index::{CompiledMatcher, MatcherError};
use chronolith_model::{Labels, TenantId, TimeRange, Timestamp};
use chronolith_storage::Samples;
use chronolith_wal::Batch;

use crate::mark::HeadTombstone;

/// A deletion in the head, ready to be asked.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    pub(crate) tombstone: HeadTombstone,
    /// What it is about is in this batch of the log, or in an earlier one.
    pub(crate) logged: Batch,
    compiled: Vec<CompiledMatcher>,
}

impl Deletion {
    pub(crate) fn new(tombstone: HeadTombstone, logged: Batch) -> Result<Self, MatcherError> {
        let compiled = CompiledMatcher::compile_all(&tombstone.matchers)?;
        Ok(Self { tombstone, logged, compiled })
    }

    /// As a tombstone of a block.
    pub(crate) fn of_block(&self) -> Tombstone {
        Tombstone { matchers: self.tombstone.matchers.clone(), ranges: vec![self.tombstone.range] }
    }

    fn concerns(&self, labels: &Labels) -> bool {
        let value = |matcher: &CompiledMatcher| labels.get(matcher.name()).unwrap_or_default();
        self.compiled.iter().all(|matcher| matcher.matches(value(matcher)))
    }
}

/// What of a series is deleted.
pub(crate) fn deleted(deletions: &[Deletion], tenant: &TenantId, labels: &Labels) -> Vec<TimeRange> {
    let concerned = deletions.iter().filter(|deletion| deletion.tombstone.tenant == *tenant);
    concerned.filter(|deletion| deletion.concerns(labels)).map(|deletion| deletion.tombstone.range).collect()
}

/// Takes the samples inside `ranges` away, from the places `start` (floats, histograms) on. Start timestamps stay: they
/// are steps.
pub(crate) fn remove(samples: &mut Samples, start: (usize, usize, usize), ranges: &[TimeRange]) {
    if !ranges.is_empty() {
        retain(samples, start, |t| !ranges.iter().any(|range| range.contains(t)));
    }
}

/// Keeps the samples at timestamps of which `keep` says so, in the same way. Of a histogram that has lost the one before it
/// nothing is known any more.
pub(crate) fn retain(samples: &mut Samples, start: (usize, usize, usize), keep: impl Fn(Timestamp) -> bool) {
    let floats = samples.timestamps.split_off(start.0);
    let values = samples.values.split_off(start.0);
    for (t, value) in floats.into_iter().zip(values).filter(|(t, _)| keep(*t)) {
        samples.push(t, value);
    }
    let timestamps = samples.histogram_timestamps.split_off(start.1);
    let histograms = samples.histograms.split_off(start.1);
    let mut gap = false;
    for (t, mut histogram) in timestamps.into_iter().zip(histograms) {
        if !keep(t) {
            gap = true;
            continue;
        }
        if std::mem::take(&mut gap) {
            rehint(&mut histogram, None);
        }
        samples.push_histogram(t, histogram);
    }
}

#[cfg(test)]
mod tests {
    use chronolith_model::Matcher;

    use super::*;

    #[test]
    fn only_what_is_meant_goes() {
        let tenant = TenantId::default();
        let tombstone = HeadTombstone {
            tenant: tenant.clone(),
            matchers: vec![Matcher::equal("a", "1"), Matcher::equal("b", "")],
            range: TimeRange::new(2, 3),
        };
        let deletion = Deletion::new(tombstone, Batch::default());
        let deletions = [deletion.expect("valid")];
        let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        let ranges = deleted(&deletions, &tenant, &labels(&[("a", "1")]));
        assert_eq!(ranges, [TimeRange::new(2, 3)]);
        assert!(deleted(&deletions, &tenant, &labels(&[("a", "1"), ("b", "2")])).is_empty());
        let other = TenantId::new("other").expect("valid");
        assert!(deleted(&deletions, &other, &labels(&[("a", "1")])).is_empty());
        let mut samples = Samples::default();
        (1..=4).for_each(|t| samples.push(t, t as f64));
        (2..=6).for_each(|t| samples.push_histogram(10 * t, chronolith_model::Histogram::stale()));
        remove(&mut samples, (2, 1, 0), &[TimeRange::new(2, 3), TimeRange::new(40, 50)]);
        assert_eq!(samples.timestamps, [1, 2, 4], "what is before the start stays");
        assert_eq!(samples.values, [1.0, 2.0, 4.0]);
        assert_eq!(samples.histogram_timestamps, [20, 30, 60]);
    }

    #[test]
    fn nothing_is_known_behind_what_is_deleted() {
        use chronolith_model::histogram::CounterResetHint::{Gauge, NotReset, Reset, Unknown};
        let mut samples = Samples::default();
        for (t, hint) in (0..).zip([Reset, NotReset, NotReset, Reset, Reset, NotReset, Gauge]) {
            let mut histogram = chronolith_model::Histogram::stale();
            histogram.set_hint(hint);
            samples.push_histogram(t, histogram);
        }
        remove(&mut samples, (0, 0, 0), &[TimeRange::new(1, 1), TimeRange::new(3, 3), TimeRange::new(5, 5)]);
        assert_eq!(samples.histogram_timestamps, [0, 2, 4, 6]);
        let hints: Vec<_> = samples.histograms.iter().map(chronolith_model::Histogram::hint).collect();
        assert_eq!(hints, [Reset, Unknown, Unknown, Gauge]);
    }
}
