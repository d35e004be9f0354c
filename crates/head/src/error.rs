//! What can go wrong in the head as a whole; what becomes of a single sample is a value of `storage`.

use std::path::PathBuf;

use chronolith_wal::CommitError;

/// Why samples that were stored cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A chunk in memory contradicts itself.
    #[error(transparent)]
    Chunk(#[from] chronolith_chunk::Error),
    /// A chunk in a chunk file cannot be read back.
    #[error("cannot read the chunk at byte {offset} of {path}: {damage}")]
    ChunkFile {
        /// The file.
        path: PathBuf,
        /// Where the chunk's record begins.
        offset: u64,
        /// What is wrong.
        damage: ChunkDamage,
    },
}

/// What is wrong with a chunk in a chunk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkDamage {
    /// The file is not there.
    #[error("the file is missing")]
    Missing,
    /// The file ends before the chunk does.
    #[error("the file is cut short")]
    Cut,
    /// The device does not give it, or the system refuses.
    #[error("the device cannot read it")]
    Device,
    /// The record does not match its checksum.
    #[error("its checksum does not match")]
    Checksum,
}

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
    /// Late samples wait for a cut, and there is no room for more. Retry, or raise the limit.
    #[error("late samples take {bytes} bytes, {limit} are allowed: they wait to be written to blocks")]
    LateLimit {
        /// What they take.
        bytes: usize,
        /// What they may take.
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
