//! What can go wrong.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Result of opening, replaying or keeping a log.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a log cannot be opened, started or kept. Damage is not among them: it is reported and passed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] chronolith_env::Error),
    /// A segment was written by a program with another format. Nothing was changed.
    #[error(
        "{path} has log format version {got}, this program knows versions up to {expected}; nothing was changed: use the \
         program version that wrote it, or another data directory"
    )]
    ForeignVersion {
        /// The segment.
        path: PathBuf,
        /// Its version.
        got: u16,
        /// The newest of ours.
        expected: u16,
    },
    /// No segment number is left.
    #[error("{dir} has used up its segment numbers; move the data directory aside")]
    NumbersExhausted {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The options contradict themselves or a limit.
    #[error("{option} is {got}, but must be {expected}")]
    Option {
        /// Which.
        option: &'static str,
        /// Its value.
        got: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// The replay was ended by its visitor.
    #[error("replay was cancelled")]
    Cancelled,
}

/// Why a waiter was not told that its batch is durable. The batch may become durable later.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Writing failed; the log tries again by itself, and refuses new samples until it has succeeded.
    #[error("the write-ahead log cannot be written at the moment")]
    Failed {
        /// The failure.
        source: Arc<chronolith_env::Error>,
    },
    /// The batch was not durable in time.
    #[error("the write-ahead log was not synced within {waited:?}")]
    TimedOut {
        /// How long was waited.
        waited: Duration,
    },
    /// The log has been closed.
    #[error("the write-ahead log is closed")]
    Closed,
    /// The committer has panicked: nothing is made durable any more, and nothing is taken.
    #[error(
        "the write-ahead log's writer has failed for good; restart the program and report what it has printed"
    )]
    Died,
}
