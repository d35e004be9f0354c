//! Limits of the head.

use chronolith_storage::exemplars::{EXEMPLAR_BYTES_MAX, EXEMPLARS_MAX};

/// Shards. Part of the data directory's format: a series' number names its shard in its lowest bits.
pub const SHARDS: usize = 16;
const _: () = assert!(SHARDS.is_power_of_two());

/// Most tenants a head knows.
pub const TENANTS_MAX: usize = 10_000;

/// No samples are taken while more bytes than this wait to be logged. While a batch is being written, as many again are
/// in the committer's hands at most.
pub const LOG_PENDING_BYTES_MAX: usize = 64 << 20;

/// Late samples take this share of the memory limit at most, in percent, where they leave memory with a cut alone
/// ([`HeadOptions::drops_when_short`] is not set): beyond it nothing is taken until a cut has made room.
pub const LATE_PERCENT_MAX: usize = 25;

/// Limits of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadOptions {
    /// How long samples are kept, in milliseconds.
    pub retention_ms: i64,
    /// Most bytes of samples, states, labels, indexes and exemplars; see [`crate::Head::bytes`].
    pub memory_bytes_max: usize,
    /// Most series of one tenant.
    pub series_max: usize,
    /// How far a sample may be ahead of the clock, in milliseconds.
    pub future_ms_max: i64,
    /// How much older than the newest sample of its series a sample may be, in milliseconds; 0 takes samples in order only.
    pub ooo_window_ms: i64,
    /// Most exemplars of all tenants together; 0 keeps none.
    pub exemplars_max: usize,
    /// Most bytes of exemplars of all tenants together; a tenth of `memory_bytes_max` if that is less.
    pub exemplar_bytes_max: usize,
    /// Whether the oldest samples are dropped when memory is short. If not, appends are refused until a cut has freed some.
    pub drops_when_short: bool,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self {
            retention_ms: 15 * 24 * 3600 * 1000,
            memory_bytes_max: 2 << 30,
            series_max: 2_000_000,
            future_ms_max: 10 * 60 * 1000,
            ooo_window_ms: 3600 * 1000,
            exemplars_max: EXEMPLARS_MAX,
            exemplar_bytes_max: EXEMPLAR_BYTES_MAX,
            drops_when_short: true,
        }
    }
}
