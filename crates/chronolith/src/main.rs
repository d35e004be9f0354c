//! The `chronolith` binary: command line, configuration, wiring, shutdown.

mod cli;
mod config;
mod info;
mod logging;
mod process;
mod query;
mod self_scrape;
mod serve;
mod signals;
mod tools;

use std::{io::Write as _, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use cli::{CheckCommand, Cli, Command, QueryArgs, ServeArgs, TestCommand};

/// Exit status for wrong arguments or a wrong configuration.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    if let Some(hint) = cli::prometheus_flag_hint(std::env::args().skip(1)) {
        eprintln!("error: {hint}");
        return ExitCode::from(EXIT_USAGE);
    }
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => return serve(&args),
        Command::Query(args) => ask(&args),
        Command::Check(CheckCommand::Config { file }) => return check_config(&file),
        Command::Test(TestCommand::Promql { files, verbose }) => return test_promql(&files, verbose),
        Command::Wal(command) => return tools::ended(tools::wal::run(command)),
        Command::Block(command) => return tools::ended(tools::block::run(command)),
        Command::Tsdb(command) => return tools::ended(tools::tsdb::run(command)),
    };
    ended(result)
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &ServeArgs) -> ExitCode {
    let config = logging::start(&args.log_level, args.log_format)
        .and_then(|()| config::Config::load(args.config.as_deref()));
    match config {
        Ok(config) => ended(serve::run(args, &config)),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn ask(args: &QueryArgs) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let (answer, notes) = runtime.block_on(query::run(args))?;
    eprint!("{notes}");
    // A reader that hangs up early (`| head`) is no error.
    let _ = std::io::stdout().lock().write_all(answer.as_bytes());
    Ok(())
}

fn check_config(file: &Path) -> ExitCode {
    match config::Config::load(Some(file)) {
        Ok(config) => {
            println!("# {} is valid; with the defaults it amounts to:", file.display());
            print!("{config}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn test_promql(files: &[std::path::PathBuf], verbose: bool) -> ExitCode {
    match chronolith_testkit::promqltest::cli(files, verbose, &mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}
