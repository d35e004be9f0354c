//! How a database is run.

use std::time::Duration;

use chronolith_block::CACHE_BYTES_DEFAULT;
use chronolith_compact::Levels;
use chronolith_head::{HeadOptions, SHARDS};
use chronolith_wal::{SyncPolicy, WalOptions};

/// How a database is run. Nothing here changes what a data directory means: all may differ from start to start.
#[derive(Clone, Copy, Debug)]
pub struct DbOptions {
    /// How long samples are kept. Default: 15 days.
    pub retention: Duration,
    /// Most bytes of the head: samples, states, labels, indexes. Default: 2 GiB, which suits a machine of 8 GiB with
    /// other work to do. Near it, the head is cut into blocks early; when nothing is left to cut, writes are refused.
    pub memory_bytes_max: usize,
    /// Most series of one tenant. Default: 2 million.
    pub series_max: usize,
    /// How far ahead of the clock a sample may be. Default: 10 minutes.
    pub future_max: Duration,
    /// How much older than the newest sample of its series a sample may be; zero takes samples in order only. Default: 1 h.
    pub ooo_window: Duration,
    /// When the log is forced to the device. Default: before each acknowledgement.
    pub sync: SyncPolicy,
    /// A new log segment is begun beyond so many bytes. Default: 128 MiB.
    pub segment_bytes: u64,
    /// How long a writer waits for its commit before it is told to retry. Default: 10 s.
    pub commit_timeout: Duration,
    /// Metrics of one tenant whose metadata is remembered; the oldest goes first. Default: 10,000.
    pub metadata_metrics_max: usize,
    /// Most bytes on disk, blocks, log and head together; the oldest blocks are dropped above it. Log and head count for
    /// at most half of it: dropping blocks does not make them shorter. Zero: no limit. Default: 0.
    pub retention_bytes: u64,
    /// The longest time a block may span; zero: a tenth of the retention, 31 days at most. Default: 0.
    pub block_range_max: Duration,
    /// Bytes of the device that are left free: below it writes are refused, and nothing is compacted. Zero: none.
    /// Default: 256 MiB.
    pub disk_reserve: u64,
    /// Most bytes of opened pieces of blocks that are kept in memory. Default: 128 MiB.
    pub block_cache_bytes: usize,
    /// How often retention is applied, and looked whether a cut or a compaction is due. Default: every 30 s.
    pub maintenance_interval: Duration,
}

impl Default for DbOptions {
    fn default() -> Self {
        let head = HeadOptions::default();
        let wal = WalOptions::default();
        Self {
            retention: millis(head.retention_ms),
            memory_bytes_max: head.memory_bytes_max,
            series_max: head.series_max,
            future_max: millis(head.future_ms_max),
            ooo_window: millis(head.ooo_window_ms),
            sync: wal.sync,
            segment_bytes: wal.segment_bytes,
            commit_timeout: wal.commit_timeout,
            metadata_metrics_max: 10_000,
            retention_bytes: 0,
            block_range_max: Duration::ZERO,
            disk_reserve: 256 << 20,
            block_cache_bytes: CACHE_BYTES_DEFAULT,
            maintenance_interval: Duration::from_secs(30),
        }
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}

/// Milliseconds; the greatest number for more.
pub(crate) fn to_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl DbOptions {
    /// The longest time a block comes to span.
    #[must_use]
    pub fn block_range(&self) -> Duration {
        let levels = match to_millis(self.block_range_max) {
            0 => Levels::for_retention(Some(to_millis(self.retention))),
            span => Levels::up_to(span),
        };
        millis(levels.lengths_ms().last().copied().unwrap_or(0))
    }

    pub(crate) fn head(&self) -> HeadOptions {
        HeadOptions {
            retention_ms: to_millis(self.retention),
            memory_bytes_max: self.memory_bytes_max,
            series_max: self.series_max,
            future_ms_max: to_millis(self.future_max),
            ooo_window_ms: to_millis(self.ooo_window),
            // What is in the way goes to blocks.
            drops_when_short: false,
            ..HeadOptions::default()
        }
    }

    pub(crate) fn wal(&self) -> WalOptions {
        WalOptions {
            segment_bytes: self.segment_bytes,
            sync: self.sync,
            shards: SHARDS,
            commit_timeout: self.commit_timeout,
            ..WalOptions::default()
        }
    }
}
