//! One server from start to stop: the load, what it cost, the queries.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chronolith_e2e::process::{ProcStats, Process};
use chronolith_e2e::servers::{Kind, STOP_TIMEOUT, Server, ServerSpec};

use crate::device::FdatasyncProbe;
use crate::load::{Load, STEP_MS};
use crate::queries::{BenchQuery, QueryResult, QueryWindow, time_queries};
use crate::send::{SendReport, send};

/// Longest wait for background work after the load.
pub const SETTLE_MAX: Duration = Duration::from_secs(45);
const SETTLE_SLICE: Duration = Duration::from_millis(500);
/// Quiet slices in a row that count as settled.
const SETTLE_SLICES: usize = 10;
/// CPU seconds per second below which a slice is quiet.
const SETTLE_LOAD: f64 = 0.06;
const HOUR_MS: i64 = 3_600_000;

/// How a server is to be measured.
#[derive(Debug, Clone)]
pub struct MeasureSpec {
    /// Which server.
    pub kind: Kind,
    /// Its program.
    pub program: PathBuf,
    /// Further arguments.
    pub extra_args: Vec<String>,
    /// A directory on the device to measure; a fresh one is made inside, and removed at the end unless it is kept.
    pub dir: PathBuf,
    /// Whether it is.
    pub keep: bool,
    /// Repetitions per query; 0 leaves the queries out.
    pub query_repetitions: usize,
}

/// Everything measured about one server.
#[derive(Debug)]
pub struct Measurement {
    /// Which server.
    pub kind: Kind,
    /// The device just before.
    pub device: FdatasyncProbe,
    /// The load.
    pub sent: SendReport,
    /// CPU seconds from the start until the load had settled, plus those of the graceful stop.
    pub ingest_cpu_seconds: f64,
    /// CPU seconds of the graceful stop alone.
    pub stop_cpu_seconds: f64,
    /// CPU and memory when the load had settled.
    pub settled: ProcStats,
    /// From the start behind the stop until it was ready, seconds; nothing where no queries were asked.
    pub restart_seconds: Option<f64>,
    /// Memory after the queries.
    pub after_queries: Option<ProcStats>,
    /// Number and total seconds of log syncs, where the server tells.
    pub fsync: Option<(f64, f64)>,
    /// Bytes the data directory occupies after the stop.
    pub disk_bytes: u64,
    /// Results by query name.
    pub queries: BTreeMap<&'static str, QueryResult>,
}

impl Measurement {
    /// Acknowledged samples per server CPU second.
    #[must_use]
    pub fn samples_per_cpu_second(&self) -> f64 {
        self.sent.acked_samples as f64 / self.ingest_cpu_seconds.max(1e-3)
    }
}

/// Measures one server under `load`.
///
/// # Errors
/// The server does not start, refuses for good, dies, or does not stop.
pub fn measure(spec: &MeasureSpec, load: &Load, set: &[BenchQuery]) -> Result<Measurement> {
    let dir = tempfile::Builder::new()
        .prefix(&format!("compare-{}-", spec.kind.name()))
        .tempdir_in(&spec.dir)
        .with_context(|| format!("make a directory in {}", spec.dir.display()))?;
    let device = FdatasyncProbe::run(dir.path())?;
    let mut server_spec = ServerSpec::new(spec.kind, &spec.program, dir.path());
    server_spec.extra_args = spec.extra_args.iter().map(Into::into).collect();
    let server = server_spec.start()?;

    let sent = send(load, server.addr())?;
    let settled = settle(server.process())?;
    let fsync = read_fsync(&server);

    let stop_cpu_seconds = (stop(server)? - settled.cpu_seconds()).max(0.0);
    let disk_bytes = disk_bytes(&server_spec.data_dir())?;
    let mut measured = Measurement {
        kind: spec.kind,
        device,
        sent,
        ingest_cpu_seconds: settled.cpu_seconds() + stop_cpu_seconds,
        stop_cpu_seconds,
        settled,
        restart_seconds: None,
        after_queries: None,
        fsync,
        disk_bytes,
        queries: BTreeMap::new(),
    };
    if spec.query_repetitions > 0 {
        let started = Instant::now();
        let server = server_spec.start()?;
        measured.restart_seconds = Some(started.elapsed().as_secs_f64());
        settle(server.process())?;
        measured.queries = time_queries(&server, set, query_window(load), spec.query_repetitions)?;
        measured.after_queries = Some(settle(server.process())?);
        stop(server)?;
    }
    if spec.keep {
        eprintln!("the data of {} is in {}", spec.kind.name(), dir.keep().display());
    }
    Ok(measured)
}

/// Stops a server gracefully; CPU seconds of its whole life.
fn stop(mut server: Server) -> Result<f64> {
    let (status, cpu_seconds) = server.process_mut().stop_reading_cpu(STOP_TIMEOUT)?;
    if !status.success() {
        let name = server.spec().kind.name();
        bail!("{name} ended with {status}:\n{}", server.process().log_tail(20));
    }
    Ok(cpu_seconds)
}

/// The last hour of the load, or all of it if it is shorter.
fn query_window(load: &Load) -> QueryWindow {
    let end_ms = load.spec.end_ms;
    QueryWindow { start_ms: load.spec.start_ms().max(end_ms - HOUR_MS), end_ms, step_ms: STEP_MS }
}

/// Waits until the process is quiet, or [`SETTLE_MAX`]; returns its numbers then.
fn settle(process: &Process) -> Result<ProcStats> {
    let deadline = Instant::now() + SETTLE_MAX;
    let mut before = process.stats()?;
    let mut quiet = 0;
    loop {
        std::thread::sleep(SETTLE_SLICE);
        let now = process.stats()?;
        let cpu = now.cpu_seconds() - before.cpu_seconds();
        quiet = if cpu < SETTLE_LOAD * SETTLE_SLICE.as_secs_f64() { quiet + 1 } else { 0 };
        before = now;
        if quiet >= SETTLE_SLICES || Instant::now() > deadline {
            return Ok(now);
        }
    }
}

/// Sums `*fsync_duration_seconds_{count,sum}` of the server's own metrics.
fn read_fsync(server: &Server) -> Option<(f64, f64)> {
    let text = server.client().get("/metrics").ok()?.text();
    let total = |suffix: &str| {
        let mut found = None;
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let name = series.split('{').next().unwrap_or(series);
            if name.ends_with(suffix) {
                found = Some(found.unwrap_or(0.0) + value.parse::<f64>().unwrap_or(0.0));
            }
        }
        found
    };
    Some((total("fsync_duration_seconds_count")?, total("fsync_duration_seconds_sum")?))
}

/// Bytes that the files below `dir` occupy.
///
/// # Errors
/// A directory cannot be read.
pub fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        let meta = entry.metadata()?;
        total += if meta.is_dir() { disk_bytes(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(total)
}
