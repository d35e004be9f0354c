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
    /// A dense frame, timestamp column or statistics page ends too early, or holds a malformed integer.
    #[error("damaged {unit}")]
    Unreadable {
        /// What was being read.
        unit: &'static str,
        /// What was met; its offsets count from the start of the unit, after zstd where that was undone.
        source: chronolith_codec::Error,
    },
    /// A dense frame, timestamp column or statistics page says what cannot be.
    #[error("damaged {unit}: expected {expected} at offset {off}, got {got}")]
    Invalid {
        /// What was being read.
        unit: &'static str,
        /// Where, from the start of the unit, after zstd where that was undone.
        off: usize,
        /// What should stand there.
        expected: &'static str,
        /// What stands there.
        got: u64,
    },
    /// A column of more samples, or a frame or page of more slots or bytes, than the format allows.
    #[error("too much for a {unit}: {got} {of}, at most {max}")]
    TooLarge {
        /// What was being written.
        unit: &'static str,
        /// What there is too much of.
        of: &'static str,
        /// How much there would be.
        got: usize,
        /// How much there may be.
        max: usize,
    },
    /// A frame has no slot of this number.
    #[error("no slot {slot} in a frame of {slots}")]
    NoSlot {
        /// The slot asked for.
        slot: usize,
        /// How many there are.
        slots: usize,
    },
}
