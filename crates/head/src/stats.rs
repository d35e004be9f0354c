//! What the head counts.

use std::sync::atomic::{AtomicU64, Ordering};

use chronolith_storage::RejectReason;

use crate::head::Head;

/// Reasons of refusals, by [`RejectReason::label`], in the order of [`HeadStats::rejected`].
pub const REJECT_LABELS: [&str; 7] = [
    "out_of_order",
    "out_of_bounds",
    "too_far_in_future",
    "duplicate_timestamp",
    "invalid_labels",
    "series_limit",
    "histograms_unsupported",
];

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) series_created: AtomicU64,
    pub(crate) series_removed: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) memory_truncations: AtomicU64,
    rejected: [AtomicU64; REJECT_LABELS.len()],
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        if n > 0 {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Live series of all tenants.
    pub(crate) fn series(&self) -> usize {
        let removed = self.series_removed.load(Ordering::Relaxed);
        let live = self.series_created.load(Ordering::Relaxed).saturating_sub(removed);
        usize::try_from(live).unwrap_or(usize::MAX)
    }

    pub(crate) fn rejected(&self, reason: &RejectReason, samples: u64) {
        let label = reason.label();
        if let Some(at) = REJECT_LABELS.iter().position(|known| *known == label) {
            Self::add(&self.rejected[at], samples);
        }
    }
}

/// What the head is at one moment, and has counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeadStats {
    /// Live series.
    pub series: u64,
    /// Series created, by replay too.
    pub series_created: u64,
    /// Series removed.
    pub series_removed: u64,
    /// Closed chunks in memory.
    pub chunks_closed: u64,
    /// Bytes of chunks, open and closed.
    pub chunk_bytes: u64,
    /// Bytes of series states.
    pub state_bytes: u64,
    /// Bytes of labels and postings.
    pub index_bytes: u64,
    /// Bytes of the tables that find series by what senders write.
    pub table_bytes: u64,
    /// Aliases in those tables.
    pub aliases: u64,
    /// Samples stored, by replay too.
    pub samples: u64,
    /// Samples that were there already.
    pub duplicates: u64,
    /// Samples dropped by retention or the memory limit.
    pub samples_dropped: u64,
    /// Samples refused, by reason: label as in [`REJECT_LABELS`].
    pub rejected: Vec<(&'static str, u64)>,
    /// How often the memory limit dropped old samples.
    pub memory_truncations: u64,
    /// Oldest and newest sample, milliseconds.
    pub times: Option<(i64, i64)>,
    /// Samples older than this are refused and not shown, milliseconds.
    pub floor: i64,
}

impl Head {
    /// The counters now. Locks each shard for a moment.
    #[must_use]
    pub fn stats(&self) -> HeadStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let mut stats = HeadStats {
            series_created: get(&counters.series_created),
            series_removed: get(&counters.series_removed),
            duplicates: get(&counters.duplicates),
            memory_truncations: get(&counters.memory_truncations),
            rejected: REJECT_LABELS.iter().zip(&counters.rejected).map(|(l, n)| (*l, get(n))).collect(),
            index_bytes: self.tenants.index_bytes() as u64,
            table_bytes: self.table_bytes() as u64,
            aliases: self.aliases.len() as u64,
            times: self.times().map(|range| (range.min, range.max)),
            floor: self.floor(),
            ..HeadStats::default()
        };
        for shard in &self.shards {
            let state = shard.lock();
            stats.series += state.slab.live() as u64;
            stats.chunks_closed += state.accounts.chunks as u64;
            stats.chunk_bytes += state.accounts.bytes as u64;
            stats.state_bytes += state.slab.bytes() as u64;
            stats.samples += state.accounts.samples;
            stats.samples_dropped += state.accounts.dropped;
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter() {
        let counters = Counters::default();
        let reasons = [
            RejectReason::OutOfOrder,
            RejectReason::OutOfBounds,
            RejectReason::TooFarInFuture,
            RejectReason::DuplicateTimestamp { timestamp: 0, existing: 0.0, new: 1.0 },
            RejectReason::InvalidLabels(String::new()),
            RejectReason::SeriesLimit { limit: 1 },
            RejectReason::HistogramsUnsupported,
        ];
        for reason in &reasons {
            counters.rejected(reason, 2);
        }
        assert!(counters.rejected.iter().all(|count| count.load(Ordering::Relaxed) == 2));
    }
}
