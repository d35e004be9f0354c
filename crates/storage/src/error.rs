//! Errors of storage as a whole. What becomes of a single sample is a value, see [`crate::append::RejectReason`].

/// Why storage could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Not now: the caller should retry later. Nothing of the request may be assumed stored.
    #[error("storage unavailable: {reason}")]
    Unavailable {
        /// What stands in the way, e.g. `write-ahead log: No space left on device`.
        reason: String,
    },
    /// The request itself is wrong (a regular expression that does not compile, for example).
    #[error("{reason}")]
    Invalid {
        /// What is wrong, as Prometheus words it where it has a text.
        reason: String,
    },
    /// Stored bytes contradict their checksum or each other.
    #[error("corrupt data: {reason}")]
    Corrupt {
        /// File, offset, expected and got.
        reason: String,
    },
    /// The query was canceled or ran out of time while storage worked for it.
    #[error("canceled")]
    Canceled,
}
