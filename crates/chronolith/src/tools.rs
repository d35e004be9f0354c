//! Commands that work on a data directory by themselves, without a server: what they have in common.
//!
//! They read only and take no lock, so that they can run beside a server, but for `tsdb compact`. A result goes to standard output, as text or
//! with `--json` as one JSON document; progress and errors go to standard error. A command ends with
//!
//! * 0 when it has done what it was asked, and, if it was to check, all is well;
//! * 1 when it was to check and has found damage, or when damage has kept it from giving, or doing, all that it was to;
//! * 2 when it could not look, or not do it, or not tell: wrong arguments, no such directory, files of another version, a
//!   limit, an output that cannot be written. A reader that hangs up early (`| head`) is no error.

pub(crate) mod block;
mod block_files;
mod block_stats;
mod format;
mod metered_fs;
mod moment;
mod progress;
mod selector;
pub(crate) mod tsdb;
pub(crate) mod wal;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::{EXIT_USAGE, output};

/// What every tool is told.
#[derive(Debug, Args)]
pub(crate) struct ToolArgs {
    /// The data directory
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub(crate) data_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a command has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing wrong, or nothing was to be checked.
    Clean,
    /// Damage.
    Damaged,
    /// Some of it could not be looked at.
    Unseen,
}

/// The exit status of a command.
pub(crate) fn ended(result: anyhow::Result<Verdict>) -> ExitCode {
    match result {
        Ok(Verdict::Clean) => ExitCode::SUCCESS,
        Ok(Verdict::Damaged) => ExitCode::FAILURE,
        Ok(Verdict::Unseen) => ExitCode::from(EXIT_USAGE),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Prints a result: `report` as JSON, or `text`.
fn print(json: bool, report: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let out = if json { format!("{}\n", serde_json::to_string_pretty(report)?) } else { text() };
    output::print(&out).context("standard output")
}

/// A path as people and JSON get it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
