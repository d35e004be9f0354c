//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::tools::{block::BlockCommand, tsdb::TsdbCommand, wal::WalCommand};

/// Where the data lives if nothing else is said.
pub(crate) const DATA_DIR_DEFAULT: &str = "./data";

/// A time-series database for Prometheus data.
#[derive(Debug, Parser)]
#[command(name = "chronolith", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
#[command(after_help = "Without a subcommand, `serve` runs. Documentation: README.md")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server (the default)
    Serve(ServeArgs),
    /// Ask a running server a PromQL query
    Query(QueryArgs),
    /// Check files
    #[command(subcommand)]
    Check(CheckCommand),
    /// Run tests
    #[command(subcommand)]
    Test(TestCommand),
    /// Look at the write-ahead log of a data directory, also while a server runs on it
    #[command(subcommand)]
    Wal(WalCommand),
    /// Look at blocks, also while a server runs on their directory
    #[command(subcommand)]
    Block(BlockCommand),
    /// Look at all of a data directory's blocks together, or compact it
    #[command(subcommand)]
    Tsdb(TsdbCommand),
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where the data lives; made if missing
    #[arg(long, value_name = "DIR", default_value = DATA_DIR_DEFAULT)]
    pub(crate) data_dir: PathBuf,
    /// Address to listen on; 0.0.0.0:9077 for all interfaces (there is no authentication yet)
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9077", value_parser = listen_address)]
    pub(crate) listen: SocketAddr,
    /// Configuration file (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Do not store the server's own metrics in itself
    #[arg(long)]
    pub(crate) no_self_scrape: bool,
    /// Least severe messages to log: error, warn, info, debug, trace; or by module: info,chronolith_wal=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// How to write log lines
    #[arg(long, value_name = "FORMAT", default_value = "logfmt")]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    Logfmt,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// The query
    #[arg(value_name = "PROMQL")]
    pub(crate) query: String,
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9077", value_parser = server_url)]
    pub(crate) url: String,
    /// Evaluation time: Unix seconds or RFC 3339; default now
    #[arg(long, value_name = "TIME", conflicts_with_all = ["start", "end", "step"], value_parser = moment)]
    pub(crate) time: Option<String>,
    /// Start of a range query
    #[arg(long, value_name = "TIME", requires = "end", value_parser = moment)]
    pub(crate) start: Option<String>,
    /// End of a range query
    #[arg(long, value_name = "TIME", requires = "start", value_parser = moment)]
    pub(crate) end: Option<String>,
    /// Step of a range query: seconds or a duration such as 1m
    #[arg(long, value_name = "DURATION", requires = "start", default_value = "1m", value_parser = step)]
    pub(crate) step: String,
    /// Instead of the result print how the query is answered, as a tree: what would be done (--explain), or what was done
    /// and what each part took (--explain=analyze)
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "plan")]
    pub(crate) explain: Option<Explain>,
    /// Print the server's JSON as it is, errors too
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `query --explain` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Explain {
    Plan,
    Analyze,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckCommand {
    /// Check a configuration file and print what it amounts to
    Config {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The data directory that the server will be given; what is said of the disk is about the one it is, or will be, on
        #[arg(long, value_name = "DIR", default_value = DATA_DIR_DEFAULT)]
        data_dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TestCommand {
    /// Run PromQL test scripts (the language of Prometheus' promqltest)
    Promql {
        /// Script files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Print every eval, not just the failed ones
        #[arg(short, long)]
        verbose: bool,
    },
    /// Run unit tests of recording rules and expressions (the files of `promtool test rules`)
    Rules {
        /// Files of tests
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Accept what is experimental in PromQL
        #[arg(long)]
        experimental: bool,
    },
}

/// An address to listen on; names are not looked up, since one name may mean several addresses.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok()).unwrap_or("9077");
        format!("an IP address and a port are needed: 127.0.0.1:{port}, or 0.0.0.0:{port} for all interfaces")
    })
}

/// Where a server is.
fn server_url(text: &str) -> Result<String, String> {
    if text.starts_with("https://") {
        return Err("TLS is not supported yet: http://HOST:PORT is needed".to_owned());
    }
    let needed = || "http://HOST:PORT is needed".to_owned();
    let uri: hyper::Uri = text.parse().map_err(|_| needed())?;
    let host = uri.authority().is_some_and(|authority| !authority.host().is_empty());
    if uri.scheme_str() != Some("http") || !host || uri.query().is_some() {
        return Err(needed());
    }
    Ok(text.to_owned())
}

/// A moment as the server reads it.
fn moment(text: &str) -> Result<String, String> {
    let seconds = text.parse::<f64>().is_ok_and(f64::is_finite);
    if seconds || text.parse::<jiff::Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    Err("Unix seconds or RFC 3339 are needed: 1700000000, 1700000000.5 or 2023-11-14T22:13:20Z".to_owned())
}

/// A step as the server reads it.
fn step(text: &str) -> Result<String, String> {
    let seconds = text.parse::<f64>().is_ok_and(|seconds| seconds.is_finite() && seconds > 0.0);
    if seconds || chronolith_model::parse_duration(text).is_some_and(|ms| ms > 0) {
        return Ok(text.to_owned());
    }
    Err("seconds or a duration above zero are needed: 15, 0.5 or 1m".to_owned())
}

/// Prometheus' flags and what to use here; people bring their unit files along.
const PROMETHEUS_FLAGS: [(&str, &str); 16] = [
    ("--config.file", "--config FILE"),
    ("--storage.tsdb.path", "--data-dir DIR"),
    ("--storage.tsdb.retention.time", "`storage: {retention: 15d}` in the file given by --config"),
    ("--storage.tsdb.retention.size", "`storage: {retention_size: 100GiB}` in the file given by --config"),
    ("--web.listen-address", "--listen ADDR:PORT"),
    ("--web.enable-remote-write-receiver", "nothing: remote write is always on, at /api/v1/write"),
    ("--web.max-connections", "`http: {connection_limit: 512}` in the file given by --config"),
    ("--enable-feature", "`query: {features: [FEATURE]}` in the file given by --config"),
    ("--storage.tsdb.wal-segment-size", "`wal: {segment_size: 128MiB}` in the file given by --config"),
    ("--web.cors.origin", "`http: {cors_origins: [ORIGIN]}` in the file given by --config"),
    ("--query.lookback-delta", "`query: {lookback: 5m}` in the file given by --config"),
    ("--query.max-concurrency", "`query: {concurrency_limit: 20}` in the file given by --config"),
    ("--query.max-samples", "`query: {sample_limit: 50000000}` in the file given by --config"),
    ("--query.timeout", "`query: {timeout: 2m}` in the file given by --config"),
    ("--log.level", "--log-level LEVEL"),
    ("--log.format", "--log-format FORMAT"),
];

/// How the other flags of Prometheus begin.
const PROMETHEUS_PREFIXES: [&str; 7] =
    ["--storage.", "--web.", "--query.", "--rules.", "--alertmanager.", "--scrape.", "--auto-go"];

/// The answer to a flag of Prometheus among `args`, if there is one.
pub(crate) fn prometheus_flag_hint(args: impl Iterator<Item = String>) -> Option<String> {
    for arg in args {
        let name = arg.split('=').next().unwrap_or_default();
        let dashed = format!("--{}", name.trim_start_matches('-'));
        if let Some((flag, ours)) = PROMETHEUS_FLAGS.iter().find(|(flag, _)| *flag == dashed) {
            return Some(format!("{flag} is a flag of Prometheus; here use {ours}"));
        }
        if arg.starts_with("--") && PROMETHEUS_PREFIXES.iter().any(|prefix| arg.starts_with(prefix)) {
            return Some(format!(
                "{name} is a flag of Prometheus; nothing here corresponds to it, leave it out"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default() {
        let cli =
            Cli::try_parse_from(["chronolith", "--data-dir", "/x"]).expect("flags of serve without serve");
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.data_dir, PathBuf::from("/x"));
        let cli =
            Cli::try_parse_from(["chronolith", "serve", "--listen", "0.0.0.0:1"]).expect("flags of serve");
        assert!(matches!(cli.command, Some(Command::Serve(args)) if args.listen.port() == 1));
    }

    #[test]
    fn flags_of_prometheus_are_answered_with_ours() {
        let hint = prometheus_flag_hint(["--config.file=prometheus.yml".to_owned()].into_iter());
        assert_eq!(hint.as_deref(), Some("--config.file is a flag of Prometheus; here use --config FILE"));
        let hint = prometheus_flag_hint(["--web.external-url=http://x".to_owned()].into_iter());
        assert!(
            hint.is_some_and(|hint| hint.starts_with("--web.external-url is a flag of Prometheus; nothing"))
        );
        assert_eq!(prometheus_flag_hint(["--listen".to_owned()].into_iter()), None);
    }

    #[test]
    fn what_is_no_address_is_answered_with_one() {
        assert_eq!(listen_address("[::1]:9077").map(|address| address.port()), Ok(9077));
        for (text, hint) in
            [(":9090", "127.0.0.1:9090"), ("localhost:9091", "127.0.0.1:9091"), ("9092", "127.0.0.1:9092")]
        {
            assert!(listen_address(text).is_err_and(|error| error.contains(hint)), "{text}");
        }
    }
}
