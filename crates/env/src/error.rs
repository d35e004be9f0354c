//! What the file system refused.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of a file operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Creating a directory.
    CreateDir,
    /// Listing a directory.
    List,
    /// Opening a file for reading.
    Open,
    /// Creating a file.
    Create,
    /// Appending to a file.
    Write,
    /// Forcing a file's bytes to the device.
    Sync,
    /// Reading.
    Read,
    /// Asking for a file's length or presence.
    Stat,
    /// Cutting or extending a file.
    Truncate,
    /// Renaming.
    Rename,
    /// Removing a file.
    Remove,
    /// Forcing a directory's entries to the device.
    SyncDir,
    /// Locking.
    Lock,
    /// Giving a file a further name.
    Link,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateDir => "create directory",
            Self::List => "list directory",
            Self::Open => "open",
            Self::Create => "create",
            Self::Write => "write to",
            Self::Sync => "sync",
            Self::Read => "read",
            Self::Stat => "inspect",
            Self::Truncate => "truncate",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::SyncDir => "sync directory",
            Self::Lock => "lock",
            Self::Link => "link",
        })
    }
}

/// A refused operation: what, where, why, and what a person can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device, or the user's quota on it, is full. Retrying helps once there is room.
    #[error("cannot {op} {path}: no space left; free some, or move the data directory to a larger disk")]
    Full {
        /// What was tried.
        op: Op,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system is mounted read-only.
    #[error(
        "cannot {op} {path}: the file system is read-only; remount it writable, or choose another data directory"
    )]
    ReadOnly {
        /// What was tried.
        op: Op,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process may not do that.
    #[error(
        "cannot {op} {path}: permission denied; give this user access to it, or choose another data directory"
    )]
    Denied {
        /// What was tried.
        op: Op,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Someone else holds the lock.
    #[error("{path} is locked by another process; stop that one, or choose another data directory")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Any other refusal; see the source.
    #[error("cannot {op} {path}")]
    Io {
        /// What was tried.
        op: Op,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A background job could not be started.
    #[error("cannot start background job {name}")]
    Spawn {
        /// The job.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// The error for `source`, met by `op` on `path`.
    #[must_use]
    pub fn new(op: Op, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { op, path, source },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { op, path, source },
            io::ErrorKind::PermissionDenied => Self::Denied { op, path, source },
            _ => Self::Io { op, path, source },
        }
    }

    /// The kind of the system's error.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Full { source, .. }
            | Self::ReadOnly { source, .. }
            | Self::Denied { source, .. }
            | Self::Io { source, .. }
            | Self::Spawn { source, .. } => source.kind(),
            Self::Locked { .. } => io::ErrorKind::WouldBlock,
        }
    }

    /// Whether a file or directory did not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_and_what_to_do_but_not_the_source() {
        let full = Error::new(Op::Write, Path::new("/d/wal/00000001.wal"), io::Error::from_raw_os_error(28));
        assert!(matches!(full, Error::Full { .. }));
        let text = full.to_string();
        assert!(text.contains("/d/wal/00000001.wal") && text.contains("free some"), "{text}");
        assert!(!text.contains("os error"), "{text}");
        assert!(std::error::Error::source(&full).is_some());
        let eio = Error::new(Op::Sync, Path::new("/x"), io::Error::from_raw_os_error(5));
        assert_eq!(eio.to_string(), "cannot sync /x");
        let read_only = Error::new(Op::Create, Path::new("/x"), io::Error::from_raw_os_error(30));
        assert!(matches!(read_only, Error::ReadOnly { .. }));
    }
}
