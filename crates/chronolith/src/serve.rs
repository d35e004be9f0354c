//! `chronolith serve`: opens the data directory, answers requests, ends gracefully.

use std::{
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use chronolith_env::Env;
use chronolith_model::format_duration;
use chronolith_promql::{Engine, EngineOptions};
use chronolith_remote::{otlp::OtlpOptions, remote_write::DecodeLimits};
use chronolith_server::{AppState, Backend, CorsOrigins, HttpLimits, QueryLog, router};
use chronolith_storage::{MemoryBudget, Reservation};
use chronolith_tsdb::{Db, DbOptions, OpenReport};
use chronolith_wal::SyncPolicy;
use tokio::{net::TcpListener, sync::watch};
use tracing::{error, info, warn};

use crate::{
    cli::ServeArgs,
    config::{Config, Feature, WalSync},
    info::Info,
    self_scrape,
    signals::{Hangups, Signals},
};

/// Threads that may wait for commits, evaluate queries and the like: above the limits on writes and queries together.
const BLOCKING_THREADS_SPARE: usize = 64;

/// The file of running queries, in the data directory; it bears the name that Prometheus gives its own.
const ACTIVE_QUERIES: &str = "queries.active";

/// Results that are kept take at most such a part of what one query may.
const RESULTS_SHARE: usize = 4;

/// Longest wait, at the end, for each file that tells of queries: it may be on a disk that does not answer.
const FILE_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the server until it is asked to end.
///
/// # Errors
/// When it cannot start, or cannot make the last samples durable at the end.
pub(crate) fn run(args: &ServeArgs, config: &Config) -> anyhow::Result<()> {
    let threads = config.write.inflight_max + 2 * config.query.concurrency_max + BLOCKING_THREADS_SPARE;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(threads)
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(args, config))
}

async fn serve(args: &ServeArgs, config: &Config) -> anyhow::Result<()> {
    let (mut signals, mut hangups) = (Signals::new()?, Hangups::new()?);
    info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "starting");
    for warning in config.warnings(&args.data_dir) {
        warn!("{warning}");
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let about = Arc::new(Info::new(args, config, i64::try_from(since.as_millis()).unwrap_or(i64::MAX)));
    let limits = http_limits(config);
    let (memory, _shares) = memory(config)?;
    let engine = Arc::new(Engine::new(engine_options(config, memory.clone())));
    let state = AppState::new(engine, limits.clone(), Arc::clone(&about) as _);
    if let Some(path) = &config.query.log_file {
        let log = QueryLog::open(path);
        state.set_query_log(
            log.with_context(|| format!("query.log_file: cannot write to {}", path.display()))?,
        );
    }
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr().context("cannot listen")?;

    let (stop, stopped) = watch::channel(false);
    let drain = {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let routes = router(state.clone());
    let connections = Arc::clone(&state.metrics().connections);
    let mut http =
        tokio::spawn(
            async move { chronolith_server::serve(listener, routes, &limits, connections, drain).await },
        );

    let db = open(args, config).await?;
    db.share_memory(&memory);
    about.set_db(Arc::clone(&db));
    keep_active_queries(&state, args);
    state.set_ready(Backend {
        appender: Arc::clone(&db) as _,
        queryable: Arc::clone(&db) as _,
        admin: config.admin_api.then(|| Arc::clone(&db) as _),
    });
    banner(args, config, address);
    info!(listen = %address, data_dir = %args.data_dir.display(), "ready");
    let interval = config.self_scrape.filter(|_| !args.no_self_scrape);
    let typed = config.query.features.contains(&Feature::TypeAndUnitLabels);
    let scraper = interval.map(|interval| {
        let appender = Arc::clone(&db) as _;
        tokio::spawn(self_scrape::run(state.clone(), appender, (interval, typed), stopped))
    });

    // A process that nobody can reach must end, so that its supervisor starts another.
    let listening = loop {
        tokio::select! {
            signal = signals.next() => {
                info!(signal, "ending: finishing running requests");
                break None;
            }
            ended = &mut http => break Some(ended),
            () = hangups.next() => hung_up(&state),
        }
    };
    state.set_stopping();
    let _ = stop.send(true);
    let end = async {
        let gone = listening.is_some();
        let http = match listening {
            Some(ended) => ended,
            None => http.await,
        };
        let scraped = match scraper {
            Some(scraper) => scraper.await,
            None => Ok(()),
        };
        let closed = tokio::task::spawn_blocking(move || db.close()).await;
        // Whatever has failed: the process has come to its end, and no query is to blame.
        let files = tokio::task::spawn_blocking(move || end_query_files(&state)).await;
        closed.context("closing")?.context("closing the database")?;
        scraped.context("the self-scrape ended")?;
        files.context("ending the query log")?;
        http.context("the HTTP server died")?.context("HTTP")?;
        anyhow::ensure!(!gone, "the HTTP server ended without being asked to");
        info!("ended");
        Ok(())
    };
    tokio::select! {
        result = end => result,
        signal = signals.again() => {
            error!(signal, "asked again: ending at once");
            anyhow::bail!("ended before running requests had finished; nothing acknowledged is lost")
        }
    }
}

/// Tells which queries ran when the process before this one died, and keeps those of this one for the next.
fn keep_active_queries(state: &AppState, args: &ServeArgs) {
    let path = args.data_dir.join(ACTIVE_QUERIES);
    match state.keep_active_queries(&path) {
        Ok((unfinished, count)) => {
            for query in &unfinished {
                warn!(%query, "this query ran when the server last ended without having finished");
            }
            if count > unfinished.len() {
                warn!(queries = count, "more queries ran when the server last ended");
            }
        }
        Err(error) => {
            warn!(path = %path.display(), %error, "it will not be known after a crash which queries ran");
        }
    }
}

/// Empties the file of running queries and writes the last lines of the query log, if their disks answer in time. Blocks.
fn end_query_files(state: &AppState) {
    if !state.end_active_queries(FILE_PATIENCE) {
        warn!("the file of running queries is not emptied: its disk does not answer");
    }
    if state.query_log().is_some_and(|log| !log.flush(FILE_PATIENCE)) {
        warn!("the query log lacks the last lines: its disk does not answer");
    }
}

/// What log rotation asks for.
fn hung_up(state: &AppState) {
    match state.query_log() {
        Some(log) => {
            log.reopen();
            info!("SIGHUP: the query log is opened anew; the configuration is read at the start only");
        }
        None => info!("SIGHUP: nothing to do; the configuration is read at the start only"),
    }
}

/// The memory all share, and what of it is not for queries.
fn memory(config: &Config) -> anyhow::Result<(MemoryBudget, [Reservation; 3])> {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let memory = MemoryBudget::new(bytes(config.memory_max_bytes));
    let reserve = |part: u64| memory.reserve(bytes(part)).context("memory.max is too small");
    let shares = [
        reserve(config.memory_limit_bytes)?,
        reserve(config.writes_memory())?,
        reserve(config.answers_memory())?,
    ];
    Ok((memory, shares))
}

async fn open(args: &ServeArgs, config: &Config) -> anyhow::Result<Arc<Db>> {
    let (dir, options) = (args.data_dir.clone(), db_options(config));
    info!(data_dir = %dir.display(), "opening the data directory");
    let opened =
        tokio::task::spawn_blocking(move || Db::open(&dir, options, Env::real())).await.context("opening")?;
    let (db, report) = opened?;
    log_report(&report);
    Ok(Arc::new(db))
}

fn log_report(report: &OpenReport) {
    info!(
        segments = report.segments,
        samples = report.samples,
        series = report.series,
        seconds = report.duration.as_secs_f64(),
        "log replayed"
    );
    if let Some(tail) = &report.torn_tail {
        info!(torn_tail = ?tail, "cut the unfinished end of the log; nothing of it had been acknowledged");
    }
    for place in &report.snapshot_damage {
        warn!(
            path = %place.path.display(),
            section = place.section,
            offset = place.offset,
            bytes = place.bytes,
            reason = %place.reason,
            quarantined = ?place.quarantined,
            "damage in the head's files: what the log has of it was read from there"
        );
    }
    if report.snapshot_damage_count > report.snapshot_damage.len() as u64 {
        warn!(places = report.snapshot_damage_count, "more places in the head's files are damaged");
    }
    for damage in &report.damage {
        warn!(?damage, "damage in the log: the bytes are kept in wal/quarantine");
    }
    if report.samples_orphaned > 0 {
        warn!(
            samples = report.samples_orphaned,
            "the log defines no series for these samples, they are lost: where it is damaged, that hit definitions, \
             and samples elsewhere in the log depend on them"
        );
    } else if !report.damage.is_empty() {
        warn!(places = report.damage_count, "of the log, only the records that damage hit are lost");
    }
}

fn banner(args: &ServeArgs, config: &Config, mut address: SocketAddr) {
    let open = !address.ip().to_canonical().is_loopback();
    if address.ip().is_unspecified() {
        // Every interface; what can be pasted on this machine is the loopback.
        address.set_ip(if address.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    if open {
        warn!(listen = %args.listen, "there is no authentication: whoever reaches the port can read, write and exhaust it");
    }
    let url = format!("http://{address}");
    let retention = format_duration(i64::try_from(config.retention.as_millis()).unwrap_or(i64::MAX));
    let mut out = std::io::stdout().lock();
    // A closed standard output is no reason not to run.
    let _ = writeln!(
        out,
        "Chronolith {} is ready.\n\n  page       {url}/\n  data       {} (kept for {retention})\n  Grafana    data source of type \
         Prometheus, URL {url}\n\n  Send data from a Prometheus (prometheus.yml):\n\n    remote_write:\n      - url: \
         {url}/api/v1/write\n",
        env!("CARGO_PKG_VERSION"),
        args.data_dir.display(),
    );
}

/// How `config` has the database run.
pub(crate) fn db_options(config: &Config) -> DbOptions {
    DbOptions {
        retention: config.retention,
        retention_bytes: config.retention_bytes,
        ooo_window: config.out_of_order_window,
        block_range_max: config.block_range_max,
        disk_reserve: config.disk_reserve_bytes,
        memory_bytes_max: usize::try_from(config.memory_limit_bytes).unwrap_or(usize::MAX),
        series_max: usize::try_from(config.series_limit).unwrap_or(usize::MAX),
        sync: match config.wal_sync {
            WalSync::Always => SyncPolicy::Always,
            WalSync::Interval(interval) => SyncPolicy::Interval(interval),
        },
        segment_bytes: config.wal_segment_bytes,
        ..DbOptions::default()
    }
}

/// How `config` has queries run, out of `memory`.
pub(crate) fn engine_options(config: &Config, memory: MemoryBudget) -> EngineOptions {
    let query = &config.query;
    let on = |feature| query.features.contains(&feature);
    let mut options = EngineOptions {
        lookback: query.lookback,
        timeout: query.timeout,
        samples_max: query.samples_max,
        memory_max_bytes: query.memory_max_bytes,
        memory,
        series_max: query.series_max,
        concurrency_max: query.concurrency_max,
        subquery_step: query.subquery_step,
        results_max_bytes: usize::try_from(query.result_cache_bytes)
            .unwrap_or(usize::MAX)
            .min(query.memory_max_bytes / RESULTS_SHARE),
        delayed_name_removal: on(Feature::DelayedNameRemoval),
        use_start_timestamps: on(Feature::StartTimestamps),
        per_step_stats: on(Feature::PerStepStats),
        type_and_unit_labels: on(Feature::TypeAndUnitLabels),
        ..EngineOptions::default()
    };
    options.parse.experimental_functions = on(Feature::ExperimentalFunctions);
    options.parse.fill_modifiers = on(Feature::FillModifiers);
    options.parse.extended_range_selectors = on(Feature::ExtendedRangeSelectors);
    options
}

/// The limits of `config` on what comes in and goes out.
pub(crate) fn http_limits(config: &Config) -> HttpLimits {
    let write = &config.write;
    HttpLimits {
        connections_max: config.connections_max,
        write_body_max_bytes: write.body_bytes_max,
        write_decoded_max_bytes: write.decompressed_bytes_max,
        writes_in_flight_max: write.inflight_max,
        write_memory_max_bytes: usize::try_from(config.writes_memory()).unwrap_or(usize::MAX),
        answer_memory_max_bytes: usize::try_from(config.answers_memory()).unwrap_or(usize::MAX),
        decode: DecodeLimits {
            labels_per_series_max: write.labels_max,
            label_name_bytes_max: write.label_name_bytes_max,
            label_value_bytes_max: write.label_value_bytes_max,
            series_per_request_max: write.series_max,
            ..DecodeLimits::default()
        },
        otlp: config.otlp.enabled.then(|| otlp_options(config)),
        cors: match config.cors_origins.as_slice() {
            [] => CorsOrigins::Any,
            origins => CorsOrigins::List(origins.to_vec()),
        },
        ..HttpLimits::default()
    }
}

/// How `config` has metrics of OTLP become samples.
fn otlp_options(config: &Config) -> OtlpOptions {
    let otlp = &config.otlp;
    OtlpOptions {
        names: otlp.names,
        promoted: otlp.promoted.clone(),
        promote_all: otlp.promote_all,
        ignored: otlp.ignored.clone(),
        keep_identifying: otlp.keep_identifying,
        promote_scope: otlp.promote_scope,
        type_and_unit_labels: config.query.features.contains(&Feature::TypeAndUnitLabels),
        // Twice within what an instant query looks back, as Prometheus does.
        target_info_every: i64::try_from(config.query.lookback.as_millis() / 2).unwrap_or(i64::MAX),
        ..OtlpOptions::default()
    }
}
