//! `chronolith wal inspect` and `chronolith wal verify`.

mod filter;
mod report;
mod scan;
mod segments;

use std::path::Path;

use anyhow::bail;
use chronolith_env::{Fs, RealFs};
use clap::{Args, Subcommand};

use self::filter::Filter;
use self::report::Report;
use self::scan::Scan;
use super::selector::Selector;
use super::{ToolArgs, Verdict, print, shown};

#[derive(Debug, Subcommand)]
pub(crate) enum WalCommand {
    /// Show what is in the log: records, series, samples, times; per segment and in all
    Inspect(InspectArgs),
    /// Read the whole log and compare every checksum; exits with 1 if something is damaged, with 2 if it cannot look
    Verify(ToolArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    tool: ToolArgs,
    /// Count only series of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Count only series that match, and list them: 'up{job="node"}'
    #[arg(long, value_name = "SELECTOR")]
    series: Option<Selector>,
}

/// Runs the command.
///
/// # Errors
/// When there is nothing that could be looked at.
pub(crate) fn run(command: WalCommand) -> anyhow::Result<Verdict> {
    match command {
        WalCommand::Inspect(InspectArgs { tool, tenant, series }) => {
            let filter = (tenant.is_some() || series.is_some()).then(|| Filter::new(tenant, series));
            let report = read(&RealFs, &tool.data_dir, filter, true)?;
            print(tool.json, &report, || report.inspected())?;
            Ok(Verdict::Clean)
        }
        WalCommand::Verify(tool) => {
            let report = read(&RealFs, &tool.data_dir, None, false)?;
            print(tool.json, &report, || report.verified())?;
            Ok(if report.damage_count > 0 { Verdict::Damaged } else { Verdict::Clean })
        }
    }
}

/// Reads the log of `data_dir`. `series`: count them, which verifying does not need.
fn read(fs: &dyn Fs, data_dir: &Path, filter: Option<Filter>, series: bool) -> anyhow::Result<Report> {
    let dir = data_dir.join("wal");
    if !fs.exists(&dir)? {
        bail!("{} has no log: there is no directory {}", shown(data_dir), shown(&dir));
    }
    let segments = segments::find(fs, &dir)?;
    Scan::new(fs, &dir, filter, series).run(&segments)
}

#[cfg(test)]
mod tests;
