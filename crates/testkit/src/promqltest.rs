//! Runs PromQL test scripts in the language of Prometheus' `promqltest`.
//!
//! A script loads series, asks queries and says what must come of them:
//!
//! ```text
//! load 1m
//!   requests_total{job="a"} 0+60x10
//!
//! eval instant at 10m rate(requests_total[5m])
//!   {job="a"} 1
//! ```
//!
//! [`run_file`] and [`run_text`] run one script over the in-memory reference storage and return a [`Report`];
//! [`cli`] is the command-line tool around them.
//!
//! Map: [`script`] commands · [`series`] series notation · `run` storage, engine, re-runs · `rewrite` pinned
//! queries · `check` comparison · `nhcb` classic histograms as native ones · [`report`] outcomes.

mod check;
mod nhcb;
pub mod report;
mod rewrite;
pub(crate) mod run;
pub mod script;
pub mod series;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    path::PathBuf,
};

pub use check::almost_equal;
pub use report::{Cause, EvalOutcome, Failure, Report};
pub use run::{Options, Reruns, run_file, run_text};
pub use script::{ScriptError, ScriptProblem};

/// Runs the scripts `files` and writes failures (with `verbose`, every eval), then totals. True if all passed.
///
/// # Errors
/// Those of `out`; scripts that cannot be read are reported, not returned.
pub fn cli(files: &[PathBuf], verbose: bool, out: &mut dyn Write) -> io::Result<bool> {
    let options = Options::default();
    let (mut evals, mut passed, mut broken) = (0, 0, 0);
    for file in files {
        let report = run_file(file, &options);
        report.write(out, verbose)?;
        if files.len() > 1 {
            writeln!(out, "{}: {} of {} evals passed", report.file, report.passed(), report.evals.len())?;
        }
        evals += report.evals.len();
        passed += report.passed();
        broken += usize::from(report.error.is_some());
    }
    write!(out, "{} files, {evals} evals, {passed} passed, {} failed", files.len(), evals - passed)?;
    if broken > 0 {
        write!(out, ", {broken} files not run to the end")?;
    }
    writeln!(out)?;
    out.flush()?;
    Ok(passed == evals && broken == 0)
}
