//! What a database counts, for its metrics.

use chronolith_head::HeadStats;
use chronolith_wal::StatsSnapshot;

use crate::{
    blocks::BlockStats,
    db::{Db, OpenReport},
    store::JobStats,
};

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
    /// Bytes this metadata takes.
    pub metadata_bytes: u64,
    /// Damaged places in snapshots and chunk files of the head, found since the start.
    pub head_damage: u64,
    /// Times that samples of the head were found to be lost since the start.
    pub losses: u64,
    /// How many samples that were, as far as it is known.
    pub samples_lost: u64,
    /// The blocks.
    pub blocks: BlockStats,
    /// Cuts, compactions, retention.
    pub jobs: JobStats,
    /// What the start found.
    pub open: OpenReport,
}

impl Db {
    /// The counters now. Locks each shard for a moment.
    #[must_use]
    pub fn stats(&self) -> DbStats {
        let segments = self.wal.segments();
        let (losses, samples_lost) = self.store.losses.counts();
        DbStats {
            head: self.head.stats(),
            memory_bytes: self.head.bytes() as u64,
            memory_bytes_max: self.options.memory_bytes_max as u64,
            wal: self.wal.stats().snapshot(),
            wal_segments: segments.len() as u64,
            wal_disk_bytes: segments.iter().map(|segment| segment.bytes).sum(),
            metadata_metrics: self.metadata.len() as u64,
            metadata_bytes: self.metadata.bytes() as u64,
            head_damage: self.report.snapshot_damage_count + self.head.unread_met(),
            losses,
            samples_lost,
            blocks: self.blocks.stats(),
            jobs: self.store.job_stats(),
            open: self.report.clone(),
        }
    }
}
