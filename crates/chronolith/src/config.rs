//! Configuration: what the user wrote ([`RawConfig`]) and what it amounts to ([`Config`]).
//!
//! Unknown keys are refused. Defaults are those of the parts that are configured, and stand in the README.

mod check;
mod memory;
mod otlp;
mod yaml;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use chronolith_model::{format_duration, parse_duration};
use chronolith_promql::EngineOptions;
use chronolith_remote::remote_write::{LABEL_RECORDS_BYTES_MAX, LABELS_PER_SERIES_MAX};
use chronolith_server::HttpLimits;
use chronolith_tsdb::DbOptions;
use chronolith_wal::SyncPolicy;
use serde::Deserialize;

use memory::{default_head, default_memory};
use otlp::{OtlpConfig, RawOtlp};

/// The validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Memory that head, bodies, answers and queries may take together.
    pub(crate) memory_max_bytes: u64,
    /// How long samples are kept.
    pub(crate) retention: Duration,
    /// Bytes on disk; the oldest blocks go above it. 0 = no limit.
    pub(crate) retention_bytes: u64,
    /// How far back samples are taken.
    pub(crate) out_of_order_window: Duration,
    /// The longest time a block spans; zero = a tenth of the retention.
    pub(crate) block_range_max: Duration,
    /// Bytes of the disk that stay free; below, writes get 503. 0 = none.
    pub(crate) disk_reserve_bytes: u64,
    /// Memory of the head; near it, it is cut into blocks early, and when that is no help writes get 503.
    pub(crate) memory_limit_bytes: u64,
    /// Active series per tenant.
    pub(crate) series_limit: u64,
    /// When an acknowledged write is on disk.
    pub(crate) wal_sync: WalSync,
    /// Size of a log segment.
    pub(crate) wal_segment_bytes: u64,
    /// Limits of remote write.
    pub(crate) write: WriteLimits,
    /// How metrics of OTLP become samples.
    pub(crate) otlp: OtlpConfig,
    /// Limits and defaults of queries.
    pub(crate) query: QueryConfig,
    /// Origins whose web pages may read answers; empty = all.
    pub(crate) cors_origins: Vec<String>,
    /// Open connections.
    pub(crate) connections_max: usize,
    /// Whether `/api/v1/admin/tsdb/*` deletes and copies.
    pub(crate) admin_api: bool,
    /// How often the server stores its own metrics; `None` = not at all.
    pub(crate) self_scrape: Option<Duration>,
}

/// When an acknowledged write is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WalSync {
    /// Before the acknowledgement.
    Always,
    /// Within the interval after it: a crash of the machine loses that much.
    Interval(Duration),
}

/// Limits of remote write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriteLimits {
    /// Body as sent.
    pub(crate) body_bytes_max: usize,
    /// Body after decompression.
    pub(crate) decompressed_bytes_max: usize,
    /// Requests at work at once; others get 503.
    pub(crate) inflight_max: usize,
    /// Series per request.
    pub(crate) series_max: usize,
    /// Labels per series.
    pub(crate) labels_max: usize,
    /// Bytes of a label name.
    pub(crate) label_name_bytes_max: usize,
    /// Bytes of a label value.
    pub(crate) label_value_bytes_max: usize,
}

/// Limits and defaults of queries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QueryConfig {
    /// How far an instant selector looks back.
    pub(crate) lookback: Duration,
    /// Longest evaluation.
    pub(crate) timeout: Duration,
    /// Samples in memory per query.
    pub(crate) samples_max: usize,
    /// Bytes in memory per query.
    pub(crate) memory_max_bytes: usize,
    /// Series per query.
    pub(crate) series_max: usize,
    /// Queries at work at once.
    pub(crate) concurrency_max: usize,
    /// Step of subqueries that name none.
    pub(crate) subquery_step: Duration,
    /// Bytes of results of range queries that are kept.
    pub(crate) result_cache_bytes: u64,
    /// Where queries are logged; `None` = nowhere.
    pub(crate) log_file: Option<PathBuf>,
    /// Experimental parts of the language that are on, by Prometheus' feature names.
    pub(crate) features: Vec<Feature>,
}

/// Experimental parts of the language and of what queries are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// `promql-experimental-functions`
    ExperimentalFunctions,
    /// `promql-binop-fill-modifiers`
    FillModifiers,
    /// `promql-delayed-name-removal`
    DelayedNameRemoval,
    /// `promql-extended-range-selectors`
    ExtendedRangeSelectors,
    /// `use-start-timestamps`
    StartTimestamps,
    /// `promql-per-step-stats`
    PerStepStats,
    /// `type-and-unit-labels`
    TypeAndUnitLabels,
}

impl Feature {
    const ALL: [Self; 7] = [
        Self::ExperimentalFunctions,
        Self::FillModifiers,
        Self::DelayedNameRemoval,
        Self::ExtendedRangeSelectors,
        Self::StartTimestamps,
        Self::PerStepStats,
        Self::TypeAndUnitLabels,
    ];

    /// As Prometheus names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ExperimentalFunctions => "promql-experimental-functions",
            Self::FillModifiers => "promql-binop-fill-modifiers",
            Self::DelayedNameRemoval => "promql-delayed-name-removal",
            Self::ExtendedRangeSelectors => "promql-extended-range-selectors",
            Self::StartTimestamps => "use-start-timestamps",
            Self::PerStepStats => "promql-per-step-stats",
            Self::TypeAndUnitLabels => "type-and-unit-labels",
        }
    }
}

const MIB: u64 = 1 << 20;

/// Acknowledged samples may be that far from the disk.
const SYNC_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// How often the server stores its own metrics.
const SELF_SCRAPE_INTERVAL: Duration = Duration::from_secs(15);

/// Requests of one kind at work at once, at most: each may hold a thread while it waits.
const WAITING_MAX: usize = 10_000;

/// Samples out of order are kept in memory until the next cut of the head.
const OUT_OF_ORDER_MAX: Duration = Duration::from_secs(7 * 86_400);

/// The defaults of the parts themselves, but for what depends on the memory of the machine.
impl Default for Config {
    fn default() -> Self {
        let (db, http, engine) = (DbOptions::default(), HttpLimits::default(), EngineOptions::default());
        let memory_max_bytes = default_memory();
        let mut config = Self {
            memory_max_bytes,
            retention: db.retention,
            retention_bytes: db.retention_bytes,
            out_of_order_window: db.ooo_window,
            block_range_max: db.block_range_max,
            disk_reserve_bytes: db.disk_reserve,
            memory_limit_bytes: default_head(memory_max_bytes),
            series_limit: db.series_max as u64,
            wal_sync: match db.sync {
                SyncPolicy::Always => WalSync::Always,
                SyncPolicy::Interval(interval) => WalSync::Interval(interval),
            },
            wal_segment_bytes: db.segment_bytes,
            write: WriteLimits {
                body_bytes_max: http.write_body_max_bytes,
                decompressed_bytes_max: http.write_decoded_max_bytes,
                inflight_max: http.writes_in_flight_max,
                series_max: http.decode.series_per_request_max,
                labels_max: http.decode.labels_per_series_max,
                label_name_bytes_max: http.decode.label_name_bytes_max,
                label_value_bytes_max: http.decode.label_value_bytes_max,
            },
            otlp: OtlpConfig::default(),
            query: QueryConfig {
                lookback: engine.lookback,
                timeout: engine.timeout,
                samples_max: engine.samples_max,
                memory_max_bytes: 0,
                series_max: engine.series_max,
                concurrency_max: engine.concurrency_max,
                subquery_step: engine.subquery_step,
                result_cache_bytes: engine.results_max_bytes as u64,
                log_file: None,
                features: Vec::new(),
            },
            cors_origins: Vec::new(),
            connections_max: http.connections_max,
            admin_api: false,
            self_scrape: Some(SELF_SCRAPE_INTERVAL),
        };
        config.query.memory_max_bytes = config.default_query();
        config
    }
}

impl Config {
    /// Reads and checks `path`; the defaults when there is none.
    ///
    /// # Errors
    /// Names the file, and the line and key where it can.
    pub(crate) fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
    }

    /// Checks `text`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let only_comments =
            text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        let raw: RawConfig = if only_comments {
            RawConfig::default()
        } else {
            serde_saphyr::from_str(text).map_err(|error| yaml::told(&error, text))?
        };
        let config = raw.validate().and_then(|config| config.check().map(|()| config));
        config.map_err(|error| match yaml::place(text, &error.to_string()) {
            Some((line, column)) => anyhow::anyhow!("line {line} column {column}: {error:#}"),
            None => error,
        })
    }
}

/// As YAML, complete: what a file would have to say to get this configuration.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (write, query) = (&self.write, &self.query);
        writeln!(f, "memory:")?;
        writeln!(f, "  max: {}", size(self.memory_max_bytes))?;
        writeln!(f, "storage:")?;
        writeln!(f, "  retention: {}", duration(self.retention))?;
        writeln!(f, "  retention_size: {}", size(self.retention_bytes))?;
        writeln!(f, "  out_of_order_window: {}", duration(self.out_of_order_window))?;
        writeln!(f, "  block_range_max: {}{}", duration(self.block_range_max), self.block_range_note())?;
        writeln!(f, "  disk_reserve: {}", size(self.disk_reserve_bytes))?;
        writeln!(f, "  memory_limit: {}", size(self.memory_limit_bytes))?;
        writeln!(f, "  series_limit: {}", self.series_limit)?;
        writeln!(f, "wal:")?;
        match self.wal_sync {
            WalSync::Always => writeln!(f, "  sync: always")?,
            WalSync::Interval(interval) => writeln!(f, "  sync: interval({})", duration(interval))?,
        }
        writeln!(f, "  segment_size: {}", size(self.wal_segment_bytes))?;
        writeln!(f, "remote_write:")?;
        writeln!(f, "  body_size_limit: {}", size(write.body_bytes_max as u64))?;
        writeln!(f, "  decompressed_size_limit: {}", size(write.decompressed_bytes_max as u64))?;
        writeln!(f, "  inflight_limit: {}", write.inflight_max)?;
        writeln!(f, "  series_limit: {}", write.series_max)?;
        writeln!(f, "  label_limit: {}", write.labels_max)?;
        writeln!(f, "  label_name_length_limit: {}", write.label_name_bytes_max)?;
        writeln!(f, "  label_value_length_limit: {}", write.label_value_bytes_max)?;
        write!(f, "{}", self.otlp)?;
        writeln!(f, "query:")?;
        writeln!(f, "  lookback: {}", duration(query.lookback))?;
        writeln!(f, "  timeout: {}", duration(query.timeout))?;
        writeln!(f, "  sample_limit: {}", query.samples_max)?;
        writeln!(f, "  memory_limit: {}", size(query.memory_max_bytes as u64))?;
        writeln!(f, "  series_limit: {}", query.series_max)?;
        writeln!(f, "  concurrency_limit: {}", query.concurrency_max)?;
        writeln!(f, "  subquery_step: {}", duration(query.subquery_step))?;
        writeln!(f, "  result_cache: {}", size(query.result_cache_bytes))?;
        let log_file = query.log_file.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        writeln!(f, "  log_file: {}", quoted(&log_file))?;
        let features: Vec<_> = query.features.iter().map(|feature| feature.name()).collect();
        writeln!(f, "  features: [{}]", features.join(", "))?;
        writeln!(f, "http:")?;
        let origins: Vec<_> = self.cors_origins.iter().map(|origin| quoted(origin)).collect();
        writeln!(f, "  cors_origins: [{}]", origins.join(", "))?;
        writeln!(f, "  connection_limit: {}", self.connections_max)?;
        writeln!(f, "  admin_api: {}", self.admin_api)?;
        writeln!(f, "self_scrape:")?;
        match self.self_scrape {
            Some(interval) => writeln!(f, "  interval: {}", duration(interval)),
            None => writeln!(f, "  interval: 0s"),
        }
    }
}

/// As YAML, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn duration(d: Duration) -> String {
    format_duration(i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// What the user wrote.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    memory: RawMemory,
    storage: RawStorage,
    wal: RawWal,
    remote_write: RawRemoteWrite,
    otlp: RawOtlp,
    query: RawQuery,
    http: RawHttp,
    self_scrape: RawSelfScrape,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMemory {
    max: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStorage {
    retention: Option<String>,
    retention_size: Option<String>,
    out_of_order_window: Option<String>,
    block_range_max: Option<String>,
    disk_reserve: Option<String>,
    memory_limit: Option<String>,
    series_limit: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawWal {
    sync: Option<String>,
    segment_size: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRemoteWrite {
    body_size_limit: Option<String>,
    decompressed_size_limit: Option<String>,
    inflight_limit: Option<usize>,
    series_limit: Option<usize>,
    label_limit: Option<usize>,
    label_name_length_limit: Option<usize>,
    label_value_length_limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawQuery {
    lookback: Option<String>,
    timeout: Option<String>,
    sample_limit: Option<usize>,
    memory_limit: Option<String>,
    series_limit: Option<usize>,
    concurrency_limit: Option<usize>,
    subquery_step: Option<String>,
    result_cache: Option<String>,
    log_file: String,
    features: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHttp {
    cors_origins: Vec<String>,
    connection_limit: Option<usize>,
    admin_api: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSelfScrape {
    interval: Option<String>,
}

impl RawConfig {
    fn validate(self) -> anyhow::Result<Config> {
        let mut config = Config::default();
        set_duration(
            &mut config.retention,
            "storage.retention",
            self.storage.retention.clone(),
            Duration::from_secs(3600),
        )?;
        let storage = &self.storage;
        for (target, key, text, multiple_ms) in [
            (&mut config.out_of_order_window, "storage.out_of_order_window", &storage.out_of_order_window, 1),
            (&mut config.block_range_max, "storage.block_range_max", &storage.block_range_max, 7_200_000),
        ] {
            set_duration(target, key, text.clone(), Duration::ZERO)?;
            if target.as_millis() % multiple_ms != 0 {
                bail!("{key}: a multiple of 2h, or 0s for a tenth of the retention");
            }
        }
        if config.out_of_order_window > OUT_OF_ORDER_MAX {
            bail!("storage.out_of_order_window: at most {}", duration(OUT_OF_ORDER_MAX));
        }
        let key = "storage.retention_size";
        set_size(&mut config.retention_bytes, key, storage.retention_size.clone(), 0)?;
        set_size(&mut config.disk_reserve_bytes, "storage.disk_reserve", storage.disk_reserve.clone(), 0)?;
        config.share_memory(self.memory, self.storage.memory_limit, self.query.memory_limit.clone())?;
        set_count(&mut config.series_limit, "storage.series_limit", self.storage.series_limit)?;
        if let Some(sync) = self.wal.sync {
            config.wal_sync = parse_sync(&sync)?;
        }
        set_size(&mut config.wal_segment_bytes, "wal.segment_size", self.wal.segment_size, MIB)?;
        if config.wal_segment_bytes > 4096 * MIB {
            bail!("wal.segment_size: at most 4GiB");
        }
        self.remote_write.apply(&mut config.write)?;
        config.otlp = self.otlp.validate()?;
        self.query.apply(&mut config.query)?;
        config.cors_origins = self.http.cors_origins;
        config.admin_api = self.http.admin_api;
        set_count(&mut config.connections_max, "http.connection_limit", self.http.connection_limit)?;
        at_most(config.connections_max, "http.connection_limit", 100_000)?;
        if let Some(text) = self.self_scrape.interval {
            let interval = duration_of("self_scrape.interval", &text)?;
            if !interval.is_zero() && interval < Duration::from_secs(1) {
                bail!("self_scrape.interval: at least 1s, or 0s for off");
            }
            config.self_scrape = (!interval.is_zero()).then_some(interval);
        }
        Ok(config)
    }
}

impl RawRemoteWrite {
    fn apply(self, limits: &mut WriteLimits) -> anyhow::Result<()> {
        let bytes = |key: &str, text: Option<String>, target: &mut usize| -> anyhow::Result<()> {
            let mut value = *target as u64;
            set_size(&mut value, key, text, 1 << 10)?;
            if value > 1 << 30 {
                bail!("{key}: at most 1GiB");
            }
            *target = value as usize;
            Ok(())
        };
        bytes("remote_write.body_size_limit", self.body_size_limit, &mut limits.body_bytes_max)?;
        let key = "remote_write.decompressed_size_limit";
        bytes(key, self.decompressed_size_limit, &mut limits.decompressed_bytes_max)?;
        set_count(&mut limits.inflight_max, "remote_write.inflight_limit", self.inflight_limit)?;
        at_most(limits.inflight_max, "remote_write.inflight_limit", WAITING_MAX)?;
        set_count(&mut limits.series_max, "remote_write.series_limit", self.series_limit)?;
        let key = "remote_write.label_limit";
        set_count(&mut limits.labels_max, key, self.label_limit)?;
        at_most(limits.labels_max, key, LABELS_PER_SERIES_MAX)?;
        let key = "remote_write.label_name_length_limit";
        set_count(&mut limits.label_name_bytes_max, key, self.label_name_length_limit)?;
        at_most(limits.label_name_bytes_max, key, LABEL_RECORDS_BYTES_MAX)?;
        let key = "remote_write.label_value_length_limit";
        set_count(&mut limits.label_value_bytes_max, key, self.label_value_length_limit)?;
        at_most(limits.label_value_bytes_max, key, LABEL_RECORDS_BYTES_MAX)
    }
}

impl RawQuery {
    fn apply(self, query: &mut QueryConfig) -> anyhow::Result<()> {
        let ms = Duration::from_millis(1);
        set_duration(&mut query.lookback, "query.lookback", self.lookback, ms)?;
        set_duration(&mut query.timeout, "query.timeout", self.timeout, ms)?;
        set_count(&mut query.samples_max, "query.sample_limit", self.sample_limit)?;
        set_count(&mut query.series_max, "query.series_limit", self.series_limit)?;
        set_count(&mut query.concurrency_max, "query.concurrency_limit", self.concurrency_limit)?;
        at_most(query.concurrency_max, "query.concurrency_limit", WAITING_MAX)?;
        set_duration(&mut query.subquery_step, "query.subquery_step", self.subquery_step, ms)?;
        set_size(&mut query.result_cache_bytes, "query.result_cache", self.result_cache, 0)?;
        query.log_file = Some(PathBuf::from(self.log_file)).filter(|path| !path.as_os_str().is_empty());
        for name in self.features {
            let Some(feature) = Feature::ALL.into_iter().find(|feature| feature.name() == name) else {
                let known: Vec<_> = Feature::ALL.iter().map(|feature| feature.name()).collect();
                bail!("query.features: unknown feature {name:?}; known: {}", known.join(", "));
            };
            query.features.push(feature);
        }
        Ok(())
    }
}

fn set_duration(target: &mut Duration, key: &str, text: Option<String>, min: Duration) -> anyhow::Result<()> {
    if let Some(text) = text {
        *target = duration_of(key, &text)?;
        if *target < min {
            bail!("{key}: at least {}", duration(min));
        }
    }
    Ok(())
}

fn duration_of(key: &str, text: &str) -> anyhow::Result<Duration> {
    let ms = parse_duration(text)
        .with_context(|| format!("{key}: {text:?} is not a duration such as 15d or 1h30m"))?;
    Ok(Duration::from_millis(ms.unsigned_abs()))
}

fn set_size(target: &mut u64, key: &str, text: Option<String>, min: u64) -> anyhow::Result<()> {
    if let Some(text) = text {
        *target = size_of(&text)
            .with_context(|| format!("{key}: {text:?} is not a size such as 512MiB or 2GiB"))?;
        if *target < min {
            bail!("{key}: at least {}", size(min));
        }
    }
    Ok(())
}

fn size_of(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit.trim() {
        "B" => 0,
        "KiB" | "KB" => 10,
        "MiB" | "MB" => 20,
        "GiB" | "GB" => 30,
        "TiB" | "TB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn set_count<T: Copy + PartialEq + Default>(
    target: &mut T,
    key: &str,
    value: Option<T>,
) -> anyhow::Result<()> {
    if let Some(value) = value {
        if value == T::default() {
            bail!("{key}: at least 1");
        }
        *target = value;
    }
    Ok(())
}

fn at_most(value: usize, key: &str, max: usize) -> anyhow::Result<()> {
    if value > max {
        bail!("{key}: at most {max}");
    }
    Ok(())
}

fn parse_sync(text: &str) -> anyhow::Result<WalSync> {
    if text == "always" {
        return Ok(WalSync::Always);
    }
    let interval = text.strip_prefix("interval(").and_then(|rest| rest.strip_suffix(')'));
    let interval = interval.and_then(parse_duration).filter(|ms| *ms > 0);
    let ms = interval
        .with_context(|| format!("wal.sync: {text:?} is neither always nor interval(1s) or the like"))?;
    let interval = Duration::from_millis(ms.unsigned_abs());
    if interval > SYNC_INTERVAL_MAX {
        bail!("wal.sync: {text} is too long, at most {}", duration(SYNC_INTERVAL_MAX));
    }
    Ok(WalSync::Interval(interval))
}

#[cfg(test)]
mod tests;
