//! `chronolith tsdb analyze`.

mod analyze;
mod cardinality;
mod churn;
mod report;

use std::sync::Arc;

use chronolith_env::RealFs;
use clap::{Args, Subcommand};

use super::block_files::{BlockArgs, BlockFiles};
use super::{Verdict, print};

#[derive(Debug, Subcommand)]
pub(crate) enum TsdbCommand {
    /// Show what makes blocks large: series by metric, label and pair of label and value, series coming and going, bytes
    /// by metric, section and encoding
    Analyze(AnalyzeArgs),
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
    let TsdbCommand::Analyze(AnalyzeArgs { blocks, limit }) = command;
    let limit = if limit == 0 { usize::MAX } else { limit };
    let files = BlockFiles::find(Arc::new(RealFs), &blocks, "analyzing blocks", true)?;
    let report = analyze::analyze(files, limit)?;
    print(blocks.tool.json, &report, || report.text())?;
    Ok(report.problems.seen())
}
