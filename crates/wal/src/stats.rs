//! What a log counts about itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of [`StatsSnapshot::sync_buckets`], seconds.
pub const SYNC_SECONDS_BUCKETS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Counters of a log, since it was opened.
#[derive(Debug, Default)]
pub struct WalStats {
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_nanos: AtomicU64,
    pub(crate) sync_buckets: [AtomicU64; SYNC_SECONDS_BUCKETS.len()],
    pub(crate) bytes: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) samples: AtomicU64,
    pub(crate) histograms: AtomicU64,
    pub(crate) exemplars: AtomicU64,
    pub(crate) series: AtomicU64,
    pub(crate) corruptions: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) segment: AtomicU64,
    pub(crate) died: AtomicBool,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StatsSnapshot {
    /// Syncs of segments.
    pub syncs: u64,
    /// Seconds spent in them.
    pub sync_seconds: f64,
    /// Syncs that took at most the bound in [`SYNC_SECONDS_BUCKETS`]; cumulative.
    pub sync_buckets: [u64; SYNC_SECONDS_BUCKETS.len()],
    /// Bytes written.
    pub bytes: u64,
    /// Records written.
    pub records: u64,
    /// Batches made durable (under [`crate::SyncPolicy::Interval`]: written).
    pub batches: u64,
    /// Samples written, histograms not included.
    pub samples: u64,
    /// Native histograms written.
    pub histograms: u64,
    /// Exemplars written.
    pub exemplars: u64,
    /// Series definitions written, each once.
    pub series: u64,
    /// Damaged places found.
    pub corruptions: u64,
    /// Failed attempts to write, sync or create.
    pub failures: u64,
    /// Number of the segment being written; 0 before the first.
    pub segment: u64,
    /// The committer has panicked: see [`crate::CommitError::Died`].
    pub died: bool,
}

impl WalStats {
    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> StatsSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut below = 0;
        let sync_buckets = std::array::from_fn(|i| {
            below += self.sync_buckets.get(i).map_or(0, get);
            below
        });
        StatsSnapshot {
            syncs: get(&self.syncs),
            sync_seconds: Duration::from_nanos(get(&self.sync_nanos)).as_secs_f64(),
            sync_buckets,
            bytes: get(&self.bytes),
            records: get(&self.records),
            batches: get(&self.batches),
            samples: get(&self.samples),
            histograms: get(&self.histograms),
            exemplars: get(&self.exemplars),
            series: get(&self.series),
            corruptions: get(&self.corruptions),
            failures: get(&self.failures),
            segment: get(&self.segment),
            died: self.died.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn synced(&self, took: Duration) {
        Self::add(&self.syncs, 1);
        Self::add(&self.sync_nanos, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let bucket = SYNC_SECONDS_BUCKETS.iter().position(|&bound| took.as_secs_f64() <= bound);
        if let Some(counter) = bucket.and_then(|i| self.sync_buckets.get(i)) {
            Self::add(counter, 1);
        }
    }
}
