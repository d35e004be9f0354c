//! What the binary tells the HTTP side about itself.

use std::time::{SystemTime, UNIX_EPOCH};

use chronolith_model::Timestamp;
use chronolith_remote::exposition::ExpositionWriter;

/// `status/buildinfo`. `version` is the emulated Prometheus version; clients switch features by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// Emulated Prometheus version, `3.5.3`.
    pub version: String,
    /// Commit.
    pub revision: String,
    /// Branch.
    pub branch: String,
    /// Who built it.
    pub build_user: String,
    /// When.
    pub build_date: String,
    /// Compiler; the field is called `goVersion` on the wire.
    pub compiler: String,
    /// Chronolith's own version; the field `chronolithVersion`.
    pub chronolith_version: String,
}

/// `status/runtimeinfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// When the process started.
    pub start_time_ms: Timestamp,
    /// Working directory.
    pub working_directory: String,
    /// Host name.
    pub hostname: String,
    /// Whether the last reading of the configuration went well.
    pub config_ok: bool,
    /// When it was read.
    pub config_time_ms: Timestamp,
    /// Corruptions of the write-ahead log met since the start.
    pub corruption_count: u64,
    /// Threads of the process; the field is called `goroutineCount` on the wire.
    pub thread_count: u64,
    /// Cores in use; `GOMAXPROCS` on the wire.
    pub cores: u64,
    /// Memory budget in bytes; `GOMEMLIMIT` on the wire.
    pub memory_max_bytes: u64,
    /// Retention as text, `15d`.
    pub storage_retention: String,
}

/// Implemented by the binary.
pub trait ServerInfo: Send + Sync {
    /// `status/buildinfo`
    fn build(&self) -> BuildInfo;

    /// `status/runtimeinfo`
    fn runtime(&self) -> RuntimeInfo;

    /// `status/flags`: every flag and its value, in any order.
    fn flags(&self) -> Vec<(String, String)>;

    /// `status/config`: the configuration in use, as YAML, secrets replaced by `<secret>`.
    fn config_yaml(&self) -> String;

    /// Appends the families of `/metrics` that are not the HTTP side's: storage, engine, process.
    fn write_metrics(&self, out: &mut ExpositionWriter<'_>);

    /// `status/walreplay`: first segment, last segment, segment being read.
    fn wal_replay(&self) -> (u64, u64, u64) {
        (0, 0, 0)
    }

    /// Samples stored since the start and series held now, as the page at `/` shows them.
    fn ingest(&self) -> IngestSummary {
        IngestSummary::default()
    }

    /// The clock: milliseconds since the epoch.
    fn now_ms(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Totals for the page at `/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestSummary {
    /// Samples stored since the start, self-scrape included.
    pub samples_stored: u64,
    /// Series in memory.
    pub series: u64,
}
