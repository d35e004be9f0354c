//! What is wrong with a chunk.

/// Result of a chunk operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A chunk that cannot be read, or not be appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not those of a chunk: fewer than its count says, or a malformed integer.
    #[error("damaged chunk: sample {sample} of {count}")]
    Damaged {
        /// The sample that could not be read, from 0.
        sample: usize,
        /// How many samples the chunk says it has.
        count: usize,
        /// What was met.
        source: chronolith_codec::Error,
    },
    /// The chunk holds [`crate::SAMPLES_MAX`] samples: cut a new one.
    #[error("the chunk is full: {max} samples", max = crate::SAMPLES_MAX)]
    Full,
}
