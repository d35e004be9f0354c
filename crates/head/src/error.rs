//! What can go wrong in the head as a whole; what becomes of a single sample is a value of `storage`.

use chronolith_wal::CommitError;

/// Why the head takes no samples at the moment.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log cannot be written; it mends itself when the disk does. Retry.
    #[error(transparent)]
    Log(#[from] CommitError),
    /// The log is not written as fast as it grows. Retry.
    #[error("the write-ahead log is behind: {bytes} bytes wait to be written")]
    LogBehind {
        /// How many wait.
        bytes: usize,
    },
    /// The memory limit is reached and nothing old is left to drop. Retry, or raise the limit.
    #[error("the head's memory limit of {limit} bytes is reached")]
    MemoryLimit {
        /// The limit.
        limit: usize,
    },
    /// There are too many tenants.
    #[error("the limit of {max} tenants is reached")]
    TenantLimit {
        /// The limit.
        max: usize,
    },
    /// The head has been closed.
    #[error("the database is shutting down")]
    Closed,
}
