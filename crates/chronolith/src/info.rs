//! What the server says about itself: build, flags, configuration, metrics.

use std::sync::{Arc, OnceLock};

use chronolith_model::{MetricType, Timestamp, format_duration};
use chronolith_remote::exposition::{ExpositionWriter, HistogramSnapshot};
use chronolith_server::{BuildInfo, IngestSummary, RuntimeInfo, ServerInfo};
use chronolith_tsdb::{Db, DbStats};
use chronolith_wal::SYNC_SECONDS_BUCKETS;

use crate::{cli::ServeArgs, config::Config, process};

/// The Prometheus version whose behaviour is followed; clients switch features by it.
const EMULATED_VERSION: &str = "3.5.3";

/// Everything about the process that does not change, and the database once it is open.
pub(crate) struct Info {
    flags: Vec<(String, String)>,
    config: Config,
    start_time_ms: Timestamp,
    db: OnceLock<Arc<Db>>,
}

impl Info {
    pub(crate) fn new(args: &ServeArgs, config: &Config, start_time_ms: Timestamp) -> Self {
        let file = args.config.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let flags = [
            ("config", file),
            ("data-dir", args.data_dir.display().to_string()),
            ("listen", args.listen.to_string()),
            ("log-format", format!("{:?}", args.log_format).to_lowercase()),
            ("log-level", args.log_level.clone()),
            ("no-self-scrape", args.no_self_scrape.to_string()),
        ];
        let flags = flags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { flags, config: config.clone(), start_time_ms, db: OnceLock::new() }
    }

    /// The database is open.
    pub(crate) fn set_db(&self, db: Arc<Db>) {
        let _ = self.db.set(db);
    }
}

impl ServerInfo for Info {
    fn build(&self) -> BuildInfo {
        BuildInfo {
            version: EMULATED_VERSION.to_owned(),
            compiler: "rustc".to_owned(),
            chronolith_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..BuildInfo::default()
        }
    }

    fn runtime(&self) -> RuntimeInfo {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        RuntimeInfo {
            start_time_ms: self.start_time_ms,
            working_directory: std::env::current_dir()
                .map(|dir| dir.display().to_string())
                .unwrap_or_default(),
            hostname: hostname.trim().to_owned(),
            config_ok: true,
            config_time_ms: self.start_time_ms,
            corruption_count: self.db.get().map_or(0, |db| db.stats().wal.corruptions),
            thread_count: process::thread_count(),
            cores: std::thread::available_parallelism().map_or(1, usize::from) as u64,
            memory_max_bytes: self.config.memory_limit_bytes,
            storage_retention: format_duration(
                i64::try_from(self.config.retention.as_millis()).unwrap_or(i64::MAX),
            ),
        }
    }

    fn flags(&self) -> Vec<(String, String)> {
        self.flags.clone()
    }

    fn config_yaml(&self) -> String {
        self.config.to_string()
    }

    fn write_metrics(&self, out: &mut ExpositionWriter<'_>) {
        let name = "chronolith_build_info";
        out.family(name, MetricType::Gauge, "A constant 1 with the version of the program.");
        out.sample(name, &[("version", env!("CARGO_PKG_VERSION")), ("emulates", EMULATED_VERSION)], 1.0);
        process::write_metrics(out, self.start_time_ms);
        if let Some(db) = self.db.get() {
            write_storage_metrics(out, &db.stats());
        }
    }

    fn ingest(&self) -> IngestSummary {
        let Some(db) = self.db.get() else { return IngestSummary::default() };
        let stats = db.stats();
        IngestSummary { samples_stored: appended(&stats), series: stats.head.series }
    }
}

/// Samples appended since the start, without those the replay brought back.
fn appended(stats: &DbStats) -> u64 {
    stats.head.samples.saturating_sub(stats.open.samples)
}

/// Counters and gauges without labels: name, help, value.
type Row<'a, T> = (&'a str, &'a str, T);

fn counters(out: &mut ExpositionWriter<'_>, rows: &[Row<'_, u64>]) {
    for (name, help, value) in rows {
        out.counter(name, help, *value);
    }
}

fn gauges(out: &mut ExpositionWriter<'_>, rows: &[Row<'_, f64>]) {
    for (name, help, value) in rows {
        out.gauge(name, help, *value);
    }
}

fn write_storage_metrics(out: &mut ExpositionWriter<'_>, stats: &DbStats) {
    write_head_metrics(out, stats);
    let rows = [
        ("chronolith_metadata_metrics", "Metrics whose metadata is known.", stats.metadata_metrics as f64),
        ("chronolith_metadata_bytes", "Memory of this metadata.", stats.metadata_bytes as f64),
    ];
    gauges(out, &rows);
    write_block_metrics(out, stats);
    write_log_metrics(out, stats);
}

fn write_head_metrics(out: &mut ExpositionWriter<'_>, stats: &DbStats) {
    let head = &stats.head;
    let rows = [
        ("chronolith_samples_appended_total", "Samples stored since the start.", appended(stats)),
        ("chronolith_samples_duplicate_total", "Samples that were there already; accepted.", head.duplicates),
        (
            "chronolith_samples_late_total",
            "Late samples stored, those a replay brought back included.",
            head.samples_late,
        ),
        (
            "chronolith_samples_dropped_total",
            "Samples dropped by retention or the memory limit.",
            head.samples_dropped,
        ),
        ("chronolith_head_series_created_total", "Series created, by replay too.", head.series_created),
        ("chronolith_head_series_removed_total", "Series removed.", head.series_removed),
        (
            "chronolith_head_samples_cut_total",
            "Samples that left memory because blocks have them.",
            head.samples_cut,
        ),
        (
            "chronolith_head_memory_truncations_total",
            "How often the memory limit dropped old samples.",
            head.memory_truncations,
        ),
    ];
    counters(out, &rows);
    let name = "chronolith_samples_rejected_total";
    out.family(name, MetricType::Counter, "Samples refused by storage, by reason.");
    for (reason, count) in &head.rejected {
        out.sample(name, &[("reason", reason)], *count as f64);
    }
    let rows = [
        ("chronolith_head_series", "Series in memory.", head.series as f64),
        ("chronolith_head_chunks", "Closed chunks in memory.", head.chunks_closed as f64),
        ("chronolith_head_late_series", "Series with late samples in memory.", head.late_series as f64),
        ("chronolith_head_late_chunks", "Closed chunks of late samples in memory.", head.late_chunks as f64),
        ("chronolith_head_aliases", "Known spellings of label sets.", head.aliases as f64),
        ("chronolith_head_memory_bytes", "Memory of the head.", stats.memory_bytes as f64),
        (
            "chronolith_head_memory_limit_bytes",
            "Memory the head may take; near it, it is cut into blocks early.",
            stats.memory_bytes_max as f64,
        ),
    ];
    gauges(out, &rows);
    let name = "chronolith_head_bytes";
    out.family(name, MetricType::Gauge, "Memory of the head by kind, in bytes.");
    let kinds = [
        ("chunks", head.chunk_bytes.saturating_sub(head.late_bytes)),
        ("late", head.late_bytes),
        ("states", head.state_bytes),
        ("index", head.index_bytes),
        ("tables", head.table_bytes),
    ];
    for (kind, bytes) in kinds {
        out.sample(name, &[("kind", kind)], bytes as f64);
    }
    if let Some((min, max)) = head.times {
        let rows = [
            ("chronolith_head_min_time_seconds", "Oldest sample in memory.", min as f64 / 1000.0),
            ("chronolith_head_max_time_seconds", "Newest sample in memory.", max as f64 / 1000.0),
        ];
        gauges(out, &rows);
    }
}

fn write_block_metrics(out: &mut ExpositionWriter<'_>, stats: &DbStats) {
    let (blocks, jobs) = (&stats.blocks, &stats.jobs);
    let rows = [
        ("chronolith_blocks", "Blocks.", blocks.blocks as f64),
        ("chronolith_block_bytes", "Bytes of blocks on disk.", blocks.bytes as f64),
        ("chronolith_block_samples", "Samples in blocks, deleted ones included.", blocks.samples as f64),
        ("chronolith_block_tombstones", "Deletions that blocks still carry.", blocks.tombstones as f64),
        ("chronolith_block_memory_bytes", "Memory behind open blocks.", blocks.heap_bytes as f64),
        ("chronolith_block_cache_bytes", "Memory of opened pieces of blocks.", blocks.cache_bytes as f64),
        ("chronolith_blocks_missing", "Damaged blocks that are set aside.", blocks.missing as f64),
        (
            "chronolith_disk_short",
            "Whether writes are refused because the disk is nearly full.",
            f64::from(u8::from(jobs.disk_short)),
        ),
    ];
    gauges(out, &rows);
    let rows = [
        (
            "chronolith_blocks_quarantined_total",
            "Damaged blocks set aside since the start.",
            blocks.quarantined,
        ),
        ("chronolith_blocks_dropped_total", "Blocks dropped by retention.", jobs.blocks_dropped),
        ("chronolith_cuts_total", "Cuts of the head into blocks.", jobs.cuts),
        ("chronolith_cuts_failed_total", "Attempts at a cut that failed and are repeated.", jobs.cuts_failed),
        ("chronolith_cuts_early_total", "Cuts made for want of memory.", jobs.cuts_pressed),
        ("chronolith_compactions_total", "Compactions.", jobs.compactions),
        ("chronolith_compactions_failed_total", "Compactions that failed.", jobs.compactions_failed),
        ("chronolith_head_snapshots_total", "Snapshots of the head.", jobs.snapshots),
        (
            "chronolith_head_corruptions_total",
            "Damaged places found in snapshots and chunk files of the head.",
            stats.head_damage,
        ),
        (
            "chronolith_head_losses_total",
            "Times that samples of the head were lost by damage, because the log did not have them either.",
            stats.losses,
        ),
        (
            "chronolith_cut_mark_corruptions_total",
            "Starts that found the mark of the last cut damaged: deletions may be undone.",
            u64::from(stats.open.mark_damaged),
        ),
        (
            "chronolith_head_lost_samples_total",
            "How many these were, as far as that is known.",
            stats.samples_lost,
        ),
    ];
    counters(out, &rows);
    let name = "chronolith_compaction_frames_total";
    out.family(name, MetricType::Counter, "Frames that compactions wrote.");
    out.sample(name, &[("how", "copied")], jobs.frames_copied as f64);
    out.sample(name, &[("how", "encoded")], jobs.frames_encoded as f64);
}

fn write_log_metrics(out: &mut ExpositionWriter<'_>, stats: &DbStats) {
    let wal = &stats.wal;
    let name = "chronolith_wal_fsync_duration_seconds";
    out.family(name, MetricType::Histogram, "Time spent in fdatasync of the log.");
    let mut counts = [0_u64; SYNC_SECONDS_BUCKETS.len() + 1];
    let mut below = 0;
    for (count, cumulative) in counts.iter_mut().zip(wal.sync_buckets.iter().copied().chain([wal.syncs])) {
        *count = cumulative.saturating_sub(below);
        below = cumulative;
    }
    let snapshot =
        HistogramSnapshot { bounds: &SYNC_SECONDS_BUCKETS, counts: &counts, sum: wal.sync_seconds };
    out.histogram(name, &[], &snapshot);
    let rows = [
        ("chronolith_wal_written_bytes_total", "Bytes written to the log.", wal.bytes),
        ("chronolith_wal_records_total", "Records written to the log.", wal.records),
        ("chronolith_wal_commits_total", "Group commits.", wal.batches),
        ("chronolith_wal_corruptions_total", "Damaged places found in the log.", wal.corruptions),
        ("chronolith_wal_failures_total", "Failed attempts to write, sync or create.", wal.failures),
    ];
    counters(out, &rows);
    let rows = [
        (
            "chronolith_wal_writer_up",
            "1 while the log is written, 0 when its writer has failed for good: restart the program.",
            if wal.died { 0.0 } else { 1.0 },
        ),
        ("chronolith_wal_segment", "Number of the segment being written.", wal.segment as f64),
        ("chronolith_wal_segments", "Segments of the log.", stats.wal_segments as f64),
        ("chronolith_wal_disk_bytes", "Bytes of all segments.", stats.wal_disk_bytes as f64),
        (
            "chronolith_replay_duration_seconds",
            "How long the replay at the start took.",
            stats.open.duration.as_secs_f64(),
        ),
        ("chronolith_replay_samples", "Samples the replay brought back.", stats.open.samples as f64),
        (
            "chronolith_replay_orphaned_samples",
            "Samples in the log whose series is unknown because its definition is damaged.",
            stats.open.samples_orphaned as f64,
        ),
    ];
    gauges(out, &rows);
}
