//! What a database counts, for its metrics.

use chronolith_head::HeadStats;
use chronolith_wal::StatsSnapshot;

use crate::db::{Db, OpenReport};

/// What a database is at one moment, and has counted since it was opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DbStats {
    /// The head.
    pub head: HeadStats,
    /// Bytes the head takes of its memory limit.
    pub memory_bytes: u64,
    /// The memory limit.
    pub memory_bytes_max: u64,
    /// The log.
    pub wal: StatsSnapshot,
    /// Segments of the log.
    pub wal_segments: u64,
    /// Bytes of all segments.
    pub wal_disk_bytes: u64,
    /// Metrics whose metadata is known.
    pub metadata_metrics: u64,
    /// What the start found.
    pub open: OpenReport,
}

impl Db {
    /// The counters now. Locks each shard for a moment.
    #[must_use]
    pub fn stats(&self) -> DbStats {
        let segments = self.wal.segments();
        DbStats {
            head: self.head.stats(),
            memory_bytes: self.head.bytes() as u64,
            memory_bytes_max: self.options.memory_bytes_max as u64,
            wal: self.wal.stats().snapshot(),
            wal_segments: segments.len() as u64,
            wal_disk_bytes: segments.iter().map(|segment| segment.bytes).sum(),
            metadata_metrics: self.metadata.len() as u64,
            open: self.report.clone(),
        }
    }
}
