//! How a log is kept.

use std::time::Duration;

/// When written bytes are forced to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before any waiter of a batch is released. What was acknowledged survives a power cut.
    Always,
    /// At most this long after the write. Waiters are released after the write: what was acknowledged survives the end
    /// of the process, but the last interval may be lost with the machine.
    Interval(Duration),
}

/// How a log is kept. Nothing here changes what can be read.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// A new segment is begun at the first batch boundary beyond this many bytes.
    pub segment_bytes: u64,
    /// When bytes are forced to the device.
    pub sync: SyncPolicy,
    /// How many shards the log's source has.
    pub shards: usize,
    /// A batch is not begun sooner than this after the one before, so that more waiters share a sync. A lone writer
    /// does not wait.
    pub gather: Duration,
    /// How long a waiter waits before it is told that the log is unavailable.
    pub commit_timeout: Duration,
    /// First pause before writing is tried again after a failure; doubles up to `retry_max`.
    pub retry_min: Duration,
    /// Longest pause before writing is tried again after a failure.
    pub retry_max: Duration,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 * 1024 * 1024,
            sync: SyncPolicy::Always,
            shards: 16,
            gather: Duration::from_millis(2),
            commit_timeout: Duration::from_secs(10),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(2),
        }
    }
}
