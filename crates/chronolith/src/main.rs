//! The `chronolith` binary: command line, configuration, wiring, shutdown.

mod cli;
mod config;
mod logging;
mod query;

use std::process::ExitCode;

use clap::Parser as _;
use cli::{CheckCommand, Cli, Command, TestCommand};

/// Exit status for wrong arguments or a wrong configuration.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    if let Some(hint) = cli::prometheus_flag_hint(std::env::args().skip(1)) {
        eprintln!("error: {hint}");
        return ExitCode::from(EXIT_USAGE);
    }
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Check(CheckCommand::Config { file }) => check_config(&file),
        _ => ExitCode::SUCCESS,
    }
}

fn check_config(file: &std::path::Path) -> ExitCode {
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
