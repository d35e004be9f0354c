//! Runs the same load and the same queries on Chronolith and its peers, one after the other, and prints one table.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use chronolith_bench::load::{Load, LoadSpec};
use chronolith_bench::measure::{MeasureSpec, measure};
use chronolith_bench::{queries, report};
use chronolith_e2e::peers::{Peers, chronolith_bin};
use chronolith_e2e::servers::Kind;
use chronolith_testkit::data::data_dir;
use clap::{Parser, ValueEnum};

/// Measures servers that receive remote write, side by side.
#[derive(Debug, Parser)]
struct Args {
    /// Number of series.
    #[arg(long, default_value_t = 100_000)]
    series: usize,
    /// Samples per series, 15 s apart.
    #[arg(long, default_value_t = 240)]
    steps: usize,
    /// Connections that send.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Repetitions of each query; 0 asks none.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Only the queries whose names contain this.
    #[arg(long, default_value = "")]
    queries: String,
    /// A small run: 2000 series, 20 samples, one repetition.
    #[arg(long)]
    smoke: bool,
    /// Directory for the servers' data, on the disk to be measured (never a tmpfs).
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Leave the servers' data there.
    #[arg(long)]
    keep: bool,
    /// Servers to run, in this order.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Target::Chronolith, Target::Prometheus, Target::Victoriametrics])]
    servers: Vec<Target>,
    /// Chronolith's program; otherwise built in this profile.
    #[arg(long, env = "CHRONOLITH_BIN")]
    chronolith: Option<PathBuf>,
    /// Directory made by `peers/fetch`.
    #[arg(long, env = "CHRONOLITH_PEERS")]
    peers: Option<PathBuf>,
    /// Further argument for Chronolith, repeatable.
    #[arg(long, allow_hyphen_values = true)]
    chronolith_arg: Vec<String>,
    /// Directory of the recorded hour.
    #[arg(long, env = "CHRONOLITH_DATA")]
    data: Option<PathBuf>,
    /// File for the numbers as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A server to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    Chronolith,
    Prometheus,
    Victoriametrics,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.smoke {
        (args.series, args.steps, args.repetitions) = (2_000, 20, 1);
    }
    ensure!(args.series > 0 && args.steps > 0 && args.connections > 0, "sizes must be positive");
    let specs = args.servers.iter().map(|t| measure_spec(&args, *t)).collect::<Result<Vec<_>>>()?;

    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).context("clock before 1970")?.as_millis();
    // A minute back: nothing lies in the future for any of the servers.
    let end_ms = (i64::try_from(now_ms)? - 60_000) / 1000 * 1000;
    let spec = LoadSpec { series: args.series, steps: args.steps, connections: args.connections, end_ms };
    let data =
        args.data.clone().or_else(data_dir).context("no recorded hour: name its directory by --data")?;
    eprintln!("encoding {} samples", spec.samples());
    let load = Load::generate(&spec, &data)?;
    let mut set = queries::query_set();
    set.retain(|query| query.name.contains(&args.queries));
    ensure!(!set.is_empty(), "no query has {:?} in its name", args.queries);
    let mut runs = Vec::new();
    for spec in &specs {
        eprintln!("running {}", spec.kind.name());
        runs.push(measure(spec, &load, &set).with_context(|| spec.kind.name())?);
    }
    print!("{}", report::table(&load, &runs, &set));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report::json(&load, &runs))?;
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn measure_spec(args: &Args, target: Target) -> Result<MeasureSpec> {
    let peers = || {
        let dir = args.peers.as_deref().context("--peers or CHRONOLITH_PEERS is needed for the peers")?;
        anyhow::Ok(Peers::in_dir(dir))
    };
    let (kind, program, extra_args) = match target {
        Target::Chronolith => {
            let program = args.chronolith.clone().unwrap_or_else(|| chronolith_bin().to_owned());
            (Kind::Chronolith, program, args.chronolith_arg.clone())
        }
        Target::Prometheus => (Kind::Prometheus, peers()?.prometheus(), Vec::new()),
        Target::Victoriametrics => (Kind::VictoriaMetrics, peers()?.victoria_metrics(), Vec::new()),
    };
    ensure!(program.is_file(), "{} is not a program", program.display());
    let dir = args.dir.clone();
    Ok(MeasureSpec { kind, program, extra_args, dir, keep: args.keep, query_repetitions: args.repetitions })
}
