//! What came of a script, and its text.

use std::{
    fmt,
    io::{self, Write},
};

use super::script::ScriptError;

/// What came of a script.
#[derive(Debug)]
pub struct Report {
    /// The script's name.
    pub file: String,
    /// Its evals in the order of the file.
    pub evals: Vec<EvalOutcome>,
    /// Why the rest of the script was not run, if so.
    pub error: Option<ScriptError>,
}

/// What came of one eval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalOutcome {
    /// Line of the command, from 1.
    pub line: usize,
    /// The command as written.
    pub command: String,
    /// Why it failed; `None` = it passed.
    pub failure: Option<Failure>,
}

/// Why an eval failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of reason.
    pub cause: Cause,
    /// What was expected and what came.
    pub detail: String,
}

/// Kinds of reasons for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The query did not parse.
    Parse,
    /// The query gave another result than expected.
    Result,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parse => "parse",
            Self::Result => "result",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause, self.detail)
    }
}

impl Report {
    pub(super) fn new(file: String) -> Self {
        Self { file, evals: Vec::new(), error: None }
    }

    /// How many evals passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.evals.iter().filter(|eval| eval.failure.is_none()).count()
    }

    /// Whether the whole script was run and every eval passed.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.error.is_none() && self.passed() == self.evals.len()
    }

    /// Writes the failed evals, the passed ones too if `verbose`, and the error that ended the script.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        for eval in &self.evals {
            match &eval.failure {
                Some(failure) => {
                    writeln!(out, "FAIL {}:{}: {}\n     {failure}", self.file, eval.line, eval.command)?;
                }
                None if verbose => writeln!(out, "pass {}:{}: {}", self.file, eval.line, eval.command)?,
                None => {}
            }
        }
        match &self.error {
            Some(error) => writeln!(out, "ERROR {error}\n     the rest of the file was not run"),
            None => Ok(()),
        }
    }
}
