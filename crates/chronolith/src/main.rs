//! The `chronolith` binary: command line, configuration, wiring, shutdown.

mod allocator;
mod cli;
mod config;
mod info;
mod logging;
mod output;
mod process;
mod query;
mod self_scrape;
mod serve;
mod signals;
mod tools;

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use cli::{CheckCommand, Cli, Command, QueryArgs, ServeArgs, TestCommand};

/// Exit status for wrong arguments or a wrong configuration.
const EXIT_USAGE: u8 = 2;
/// Exit status for everything else that fails.
const EXIT_FAILURE: u8 = 1;

fn main() -> ExitCode {
    if let Some(hint) = cli::prometheus_flag_hint(std::env::args().skip(1)) {
        return output::failed(&anyhow::anyhow!(hint), EXIT_USAGE);
    }
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve(&args),
        Command::Query(args) => ask(&args),
        Command::Check(CheckCommand::Config { file, data_dir }) => check_config(&file, &data_dir),
        Command::Test(TestCommand::Promql { files, verbose }) => test_promql(&files, verbose),
        Command::Test(TestCommand::Rules { files, experimental }) => test_rules(&files, experimental),
        Command::Wal(command) => tools::ended(tools::wal::run(command)),
        Command::Block(command) => tools::ended(tools::block::run(command)),
        Command::Tsdb(command) => tools::ended(tools::tsdb::run(command)),
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    result.map_or_else(|error| output::failed(&error, EXIT_FAILURE), |()| ExitCode::SUCCESS)
}

fn serve(args: &ServeArgs) -> ExitCode {
    let config = logging::start(&args.log_level, args.log_format)
        .inspect(|()| allocator::set())
        .and_then(|()| config::Config::load(args.config.as_deref()));
    match config {
        Ok(config) => ended(serve::run(args, &config)),
        Err(error) => output::failed(&error, EXIT_USAGE),
    }
}

fn ask(args: &QueryArgs) -> ExitCode {
    ended(answer(args))
}

fn answer(args: &QueryArgs) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let answer = runtime.block_on(query::run(args))?;
    output::note(&answer.notes);
    output::print(&answer.text).context("standard output")?;
    answer.failure.map_or(Ok(()), |failure| Err(anyhow::anyhow!(failure)))
}

fn check_config(file: &Path, data_dir: &Path) -> ExitCode {
    match config::Config::load(Some(file)) {
        Ok(config) => {
            for warning in config.warnings(data_dir) {
                output::note(&format!("warning: {warning}\n"));
            }
            let file = file.display();
            let text = format!("# {file} is valid; with the defaults it amounts to:\n{config}");
            ended(output::print(&text).context("standard output"))
        }
        Err(error) => output::failed(&error, EXIT_USAGE),
    }
}

fn test_promql(files: &[std::path::PathBuf], verbose: bool) -> ExitCode {
    // All scripts run, also if nobody reads on: the status is about them.
    let mut out = output::ReadOrNot(std::io::stdout().lock());
    match chronolith_testkit::promqltest::cli(files, verbose, &mut out).context("standard output") {
        Ok(false) => ExitCode::from(EXIT_FAILURE),
        written => ended(written.map(drop)),
    }
}

fn test_rules(files: &[std::path::PathBuf], experimental: bool) -> ExitCode {
    let mut options = chronolith_promql::EngineOptions::default();
    if experimental {
        options.parse = chronolith_syntax::ParseOptions::all();
    }
    let mut out = output::ReadOrNot(std::io::stdout().lock());
    match chronolith_testkit::ruletest::cli(files, &options, &mut out).context("standard output") {
        Ok(false) => ExitCode::from(EXIT_FAILURE),
        written => ended(written.map(drop)),
    }
}
