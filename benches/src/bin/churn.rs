//! A day of churn in a few minutes: series are renamed in groups while the server takes samples at simulated times.
//! Prints what memory and disk the server needs per active series, a line per simulated interval; a server that forgets what is gone shows
//! flat columns.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use chronolith_bench::load::{SAMPLES_PER_REQUEST, STEP_MS};
use chronolith_bench::measure::disk_bytes;
use chronolith_e2e::http::Client;
use chronolith_e2e::peers::chronolith_bin;
use chronolith_e2e::remote_write::{WriteRequest, encode_labels};
use chronolith_e2e::servers::{Kind, STOP_TIMEOUT, Server, ServerSpec};
use chronolith_testkit::data::{RECORDING_FILE, RecordedSeries, Recording, Replay, data_dir};
use clap::Parser;

/// Attempts for a request that is answered 5xx.
const ATTEMPTS_MAX: usize = 200;
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for background work to end before a line is printed.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const SETTLE_SLICE: Duration = Duration::from_millis(500);
/// CPU seconds in a slice below which it is quiet; this many in a row end the wait.
const SETTLE_CPU_SECONDS: f64 = 0.03;
const SETTLE_SLICES: usize = 4;

/// Measures what renamed series leave behind.
#[derive(Debug, Parser)]
struct Args {
    /// Active series at any time.
    #[arg(long, default_value_t = 10_000)]
    series: usize,
    /// Simulated hours.
    #[arg(long, default_value_t = 24)]
    hours: usize,
    /// Share of the series renamed each time, in percent.
    #[arg(long, default_value_t = 10)]
    renamed_percent: usize,
    /// Simulated minutes between two renamings.
    #[arg(long, default_value_t = 10)]
    every_minutes: usize,
    /// Simulated minutes between two lines.
    #[arg(long, default_value_t = 120)]
    report_minutes: usize,
    /// Real seconds before each line: longer than the server's pause between two rounds of maintenance, or it shows
    /// the state before a cut that is due.
    #[arg(long, default_value_t = 35)]
    pause_seconds: u64,
    /// Directory for the server's data.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Chronolith's program; otherwise built in this profile.
    #[arg(long, env = "CHRONOLITH_BIN")]
    chronolith: Option<PathBuf>,
    /// Further argument for Chronolith, repeatable.
    #[arg(long, allow_hyphen_values = true)]
    chronolith_arg: Vec<String>,
    /// Directory of the recorded hour.
    #[arg(long, env = "CHRONOLITH_DATA")]
    data: Option<PathBuf>,
}

/// A series that is renamed now and then: a recorded one, with a label `pod` of its generation.
struct Source<'a> {
    recorded: &'a RecordedSeries,
    number: usize,
    generation: usize,
    labels: Vec<u8>,
}

impl<'a> Source<'a> {
    fn new(recorded: &'a RecordedSeries, number: usize) -> Self {
        let mut source = Self { recorded, number, generation: 0, labels: Vec::new() };
        source.rename(0);
        source
    }

    fn rename(&mut self, generation: usize) {
        self.generation = generation;
        let pod = format!("web-{:06x}-{generation:05}", self.number);
        let mut pairs: Vec<_> = self.recorded.labels.iter().chain([("pod", pod.as_str())]).collect();
        pairs.sort_unstable();
        self.labels = encode_labels(pairs);
    }

    fn value(&self, step: usize) -> f64 {
        let samples = &self.recorded.samples;
        samples[(step + self.number) % samples.len()].value
    }
}

/// Sends one request after the other over one connection.
struct Sender {
    client: Client,
    request: WriteRequest,
    acknowledged: usize,
    /// Of the requests since the last report.
    latencies: Vec<Duration>,
}

impl Sender {
    fn push(&mut self, labels: &[u8], t: i64, value: f64) -> Result<()> {
        self.request.push_sample(labels, t, value);
        if self.request.sample_count() == SAMPLES_PER_REQUEST { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let samples = self.request.sample_count();
        if samples == 0 {
            return Ok(());
        }
        let body = self.request.take_body();
        let sent = Instant::now();
        for _ in 0..ATTEMPTS_MAX {
            let headers = chronolith_e2e::remote_write::HEADERS;
            match self.client.send("POST", "/api/v1/write", headers, &body) {
                Ok(answer) if answer.ok() => {
                    self.acknowledged += samples;
                    self.latencies.push(sent.elapsed());
                    return Ok(());
                }
                Ok(answer) if answer.status < 500 => {
                    bail!("refused: {} {}", answer.status, answer.text().trim())
                }
                _ => std::thread::sleep(RETRY_PAUSE),
            }
        }
        bail!("a request is refused for good")
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.series > 0 && args.every_minutes > 0 && args.report_minutes > 0, "sizes must be positive");
    ensure!(args.renamed_percent <= 100, "no more than all series can be renamed");
    let data =
        args.data.clone().or_else(data_dir).context("no recorded hour: name its directory by --data")?;
    let recorded =
        Recording::open(&data.join(RECORDING_FILE), Replay::default())?.collect::<Result<Vec<_>, _>>()?;
    ensure!(!recorded.is_empty(), "the recording is empty");
    let dir = tempfile::Builder::new().prefix("churn-").tempdir_in(&args.dir)?;
    let program = args.chronolith.clone().unwrap_or_else(|| chronolith_bin().to_owned());
    let mut spec = ServerSpec::new(Kind::Chronolith, &program, dir.path());
    spec.extra_args = args.chronolith_arg.iter().map(Into::into).collect();
    let mut server = spec.start()?;
    run(&args, &recorded, &server, &spec.data_dir())?;
    let (status, cpu) = server.process_mut().stop_reading_cpu(STOP_TIMEOUT)?;
    ensure!(status.success(), "the server ended with {status}");
    println!("server CPU seconds in all: {cpu:.1}");
    Ok(())
}

fn run(args: &Args, recorded: &[RecordedSeries], server: &Server, data_dir: &Path) -> Result<()> {
    let minute = (60_000 / STEP_MS) as usize;
    let steps = args.hours * 60 * minute;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("clock before 1970")?.as_millis();
    let start = i64::try_from(now)? - 60_000 - steps as i64 * STEP_MS;
    let mut sources: Vec<_> =
        (0..args.series).map(|number| Source::new(&recorded[number % recorded.len()], number)).collect();
    let (client, request, latencies) = (server.client(), WriteRequest::new(), Vec::new());
    let mut sender = Sender { client, request, acknowledged: 0, latencies };
    println!(
        "{:>6} {:>10} {:>10} {:>9} {:>11} {:>11} {:>11} {:>11} {:>13} {:>7} {:>13} {:>20}",
        "hours",
        "samples",
        "names so far",
        "in head",
        "RSS B/act.",
        "peak B/act.",
        "head B/act.",
        "index B/act.",
        "blocks B/act.",
        "blocks",
        "disk B/sample",
        "ack p50/p99/max ms"
    );
    let renamed = args.series * args.renamed_percent / 100;
    let (mut names, mut next) = (args.series, 0);
    for step in 0..steps {
        if step > 0 && step % (args.every_minutes * minute) == 0 {
            for _ in 0..renamed {
                let source = &mut sources[next % args.series];
                source.rename(source.generation + 1);
                next += 1;
            }
            names += renamed;
        }
        let nominal = start + step as i64 * STEP_MS;
        for source in &sources {
            sender.push(&source.labels, nominal + (source.number % 97) as i64 * 150, source.value(step))?;
        }
        sender.flush()?;
        if (step + 1) % (args.report_minutes * minute) == 0 {
            std::thread::sleep(Duration::from_secs(args.pause_seconds));
            settle(server)?;
            let hours = (step + 1) as f64 / (60 * minute) as f64;
            report(hours, names, &mut sender, server, args.series as f64, data_dir)?;
        }
    }
    Ok(())
}

fn report(
    hours: f64,
    names: usize,
    sender: &mut Sender,
    server: &Server,
    active: f64,
    data_dir: &Path,
) -> Result<()> {
    let metrics = server.client().get("/metrics")?.text();
    let metric = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|line| !line.starts_with('#'));
        let of_name = lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| *series == name || series.split('{').next() == Some(name));
        of_name.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
    };
    let memory = server.process().stats()?;
    server.process().reset_hwm()?;
    let mut latencies = std::mem::take(&mut sender.latencies);
    latencies.sort_unstable();
    let ms = |part: f64| {
        let at = (latencies.len() as f64 * part) as usize;
        latencies.get(at.min(latencies.len().saturating_sub(1))).map_or(0.0, |of| of.as_secs_f64() * 1e3)
    };
    println!(
        "{hours:>6.1} {:>10} {names:>10} {:>9} {:>11.0} {:>11.0} {:>11.0} {:>11.0} {:>13.0} {:>7} {:>13.3} {:>20}",
        sender.acknowledged,
        metric("chronolith_head_series"),
        memory.rss_bytes as f64 / active,
        memory.hwm_bytes as f64 / active,
        metric("chronolith_head_memory_bytes") / active,
        metric("chronolith_head_bytes{kind=\"index\"}") / active,
        metric("chronolith_block_memory_bytes") / active,
        metric("chronolith_blocks"),
        disk_bytes(data_dir)? as f64 / sender.acknowledged as f64,
        format!("{:.1}/{:.1}/{:.0}", ms(0.5), ms(0.99), ms(1.0)),
    );
    Ok(())
}

/// Waits until the server is quiet, or [`SETTLE_MAX`].
fn settle(server: &Server) -> Result<()> {
    let deadline = Instant::now() + SETTLE_MAX;
    let (mut before, mut quiet) = (server.process().stats()?.cpu_seconds(), 0);
    while quiet < SETTLE_SLICES && Instant::now() < deadline {
        std::thread::sleep(SETTLE_SLICE);
        let now = server.process().stats()?.cpu_seconds();
        quiet = if now - before < SETTLE_CPU_SECONDS { quiet + 1 } else { 0 };
        before = now;
    }
    Ok(())
}
