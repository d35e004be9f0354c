//! Why a database cannot be opened or closed.

use std::{path::PathBuf, sync::Arc};

/// Result of opening or closing.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a database cannot be opened or closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused: a read-only or full device, missing rights.
    #[error("cannot use data directory {dir}")]
    Directory {
        /// The data directory.
        dir: PathBuf,
        /// What it refused.
        source: chronolith_env::Error,
    },
    /// Another process has the directory open.
    #[error("data directory {dir} is in use by another process; stop that one or choose another directory")]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// There is no data directory, and none was made.
    #[error("there is no data directory {dir}")]
    NoDataDirectory {
        /// Where it should be.
        dir: PathBuf,
    },
    /// The directory holds something else. Nothing was changed.
    #[error(
        "{dir} is not a Chronolith data directory: it has no format file but holds {example:?}; choose an empty or \
         new directory"
    )]
    NotADataDirectory {
        /// The directory.
        dir: PathBuf,
        /// A name in it.
        example: String,
    },
    /// The directory was written by a program with another format. Nothing was changed.
    #[error(
        "data directory {dir} has format {got:?}, this program knows {expected:?}; nothing was changed: use the program \
         version that wrote it, or another directory"
    )]
    ForeignVersion {
        /// The data directory.
        dir: PathBuf,
        /// What its format file says.
        got: String,
        /// What it should say.
        expected: String,
    },
    /// The write-ahead log cannot be opened.
    #[error("cannot open the write-ahead log")]
    Log(#[from] chronolith_wal::Error),
    /// A segment of the log cannot be opened: nothing is known of what it has. It is as it was.
    #[error(
        "the device does not open log segment {path}, which was left as it is; try again, or move it aside to start \
         without what it has"
    )]
    Segment {
        /// The segment.
        path: PathBuf,
        /// What the device said.
        source: Arc<chronolith_env::Error>,
    },
    /// What was pending could not be made durable. None of it was acknowledged.
    #[error("the last samples could not be written to the log; none of them was acknowledged")]
    LastCommit(#[from] chronolith_wal::CommitError),
    /// A block cannot be opened, and not for damage: the device does not answer, or another program version wrote it.
    #[error("cannot open a block")]
    Block {
        /// Which, and why.
        source: chronolith_block::Error,
    },
    /// The snapshots of the head cannot be read or written.
    #[error(
        "cannot use the snapshots of the head (one that the device does not read any more can be moved out of head/, to start \
         without what it alone has)"
    )]
    Snapshot(#[from] chronolith_head::SnapshotError),
    /// The mark of the last cut cannot be read, and not for damage.
    #[error("cannot read the mark of the last cut")]
    Mark(#[from] crate::mark::MarkError),
    /// The head cannot be cut into blocks. Nothing is lost.
    #[error("cannot cut the head into blocks; its samples stay in the log")]
    Cut(#[from] crate::cut::CutError),
    /// Blocks cannot be merged. They stay as they are.
    #[error("cannot compact")]
    Compaction(#[from] crate::compaction::CompactionError),
    /// Background work cannot be started.
    #[error("cannot start background work")]
    Spawn(#[source] chronolith_env::Error),
}

/// An error with its causes, for people.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
