//! What a reader met instead of what it expected.

/// Result of a read.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes that are not what they should be. Offsets count from the start of the reader's slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end too early.
    #[error("expected {expected} at offset {off}: needs {need} bytes, has {have}")]
    Truncated {
        /// Where the read began.
        off: usize,
        /// What was to be read.
        expected: &'static str,
        /// How many bytes it takes.
        need: usize,
        /// How many there are.
        have: usize,
    },
    /// A variable-length integer of more than 64 bits.
    #[error("expected {expected} at offset {off}: the varint has more than 64 bits")]
    VarintTooLong {
        /// Where the read began.
        off: usize,
        /// What was to be read.
        expected: &'static str,
    },
    /// A length or count beyond what the caller allows.
    #[error("expected {expected} at offset {off}: {got} exceeds the limit of {max}")]
    TooLarge {
        /// Where the read began.
        off: usize,
        /// What was to be read.
        expected: &'static str,
        /// The length or count read.
        got: u64,
        /// The largest allowed.
        max: u64,
    },
    /// Bytes left where there should be none.
    #[error("expected the end at offset {off}, but {left} bytes are left")]
    Trailing {
        /// Where the end should be.
        off: usize,
        /// How many bytes follow.
        left: usize,
    },
    /// Text that is not UTF-8.
    #[error("expected {expected} at offset {off}: not UTF-8")]
    NotUtf8 {
        /// Where the text begins.
        off: usize,
        /// What was to be read.
        expected: &'static str,
    },
}
