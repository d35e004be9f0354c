//! `chronolith tsdb analyze` and `chronolith tsdb compact`.

mod analyze;
mod cardinality;
mod churn;
mod compact;
mod report;

use std::{path::PathBuf, sync::Arc};

use chronolith_env::{Env, RealFs};
use clap::{Args, Subcommand};

use super::block_files::{BlockArgs, BlockFiles};
use super::{ToolArgs, Verdict, print};
use crate::{config::Config, serve::db_options};

#[derive(Debug, Subcommand)]
pub(crate) enum TsdbCommand {
    /// Show what makes blocks large: series by metric, label and pair of label and value, series coming and going, bytes
    /// by metric, section and encoding
    Analyze(AnalyzeArgs),
    /// Write what is in the log into blocks and merge blocks as far as it goes; no server may be running on the
    /// directory. Exits with 1 if something damaged was met, and set aside, with 2 if it could not do it
    Compact(CompactArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    #[command(flatten)]
    tool: ToolArgs,
    /// The server's configuration file (YAML): how much memory may be used, how long blocks get. Nothing is dropped,
    /// whatever it says of retention
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AnalyzeArgs {
    #[command(flatten)]
    blocks: BlockArgs,
    /// How many rows of each table; 0 for all
    #[arg(long, value_name = "ROWS", default_value_t = 10)]
    limit: usize,
}

/// Runs the command.
///
/// # Errors
/// When there is nothing that could be looked at.
pub(crate) fn run(command: TsdbCommand) -> anyhow::Result<Verdict> {
    match command {
        TsdbCommand::Analyze(AnalyzeArgs { blocks, limit }) => {
            let limit = if limit == 0 { usize::MAX } else { limit };
            let files = BlockFiles::find(Arc::new(RealFs), &blocks, "analyzing blocks", true)?;
            let report = analyze::analyze(files, limit)?;
            print(blocks.tool.json, &report, || report.text())?;
            Ok(report.problems.seen())
        }
        TsdbCommand::Compact(CompactArgs { tool, config }) => {
            let config = Config::load(config.as_deref())?;
            let report = compact::compact(&tool.data_dir, db_options(&config), &Env::real())?;
            print(tool.json, &report, || report.text())?;
            Ok(report.verdict())
        }
    }
}
