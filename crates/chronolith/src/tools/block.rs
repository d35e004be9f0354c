//! `chronolith block inspect`, `chronolith block verify` and `chronolith block dump`.

mod beside;
mod dump;
mod inspect;
mod lines;
mod verify;

use std::io::IsTerminal as _;
use std::sync::Arc;

use chronolith_env::RealFs;
use clap::{Args, Subcommand};

use self::dump::Dump;
use super::block_files::{BlockArgs, BlockFiles};
use super::moment::Between;
use super::selector::Selector;
use super::{Verdict, print};

#[derive(Debug, Subcommand)]
pub(crate) enum BlockCommand {
    /// Show what blocks are there; of files given by name, also what they consist of
    Inspect(BlockArgs),
    /// Read blocks whole: compare every checksum, decode everything; exits with 1 if something is damaged, with 2 if it
    /// cannot look
    Verify(BlockArgs),
    /// Print samples, block by block, without those that are deleted: lines of Prometheus' text format, or with --json a
    /// line of JSON for each series
    Dump(DumpArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    blocks: BlockArgs,
    /// Only series that match: 'up{job="node"}'
    #[arg(long, value_name = "SELECTOR")]
    series: Option<Selector>,
    #[command(flatten)]
    between: Between,
}

/// Runs the command.
///
/// # Errors
/// When there is nothing that could be looked at.
pub(crate) fn run(command: BlockCommand) -> anyhow::Result<Verdict> {
    let fs = Arc::new(RealFs);
    match command {
        BlockCommand::Inspect(args) => {
            let report = inspect::inspect(BlockFiles::find(fs, &args, "reading blocks", true)?)?;
            print(args.tool.json, &report, || report.text())?;
            Ok(report.problems.seen())
        }
        BlockCommand::Verify(args) => {
            let report = verify::verify(BlockFiles::find(fs, &args, "verifying blocks", true)?)?;
            print(args.tool.json, &report, || report.text())?;
            Ok(report.problems.verdict())
        }
        BlockCommand::Dump(DumpArgs { blocks, series, between }) => {
            let range = between.range()?;
            // A bar between lines of samples is of no use.
            let visible = !std::io::stdout().is_terminal();
            let files = BlockFiles::find(fs, &blocks, "reading blocks", visible)?;
            let out = std::io::BufWriter::new(std::io::stdout().lock());
            let problems = Dump::new(files, series, range, blocks.tool.json, out).run()?;
            eprint!("{}", problems.text());
            Ok(problems.verdict())
        }
    }
}
