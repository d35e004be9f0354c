//! What can be wrong with an index on disk, or with what is to be written into one.

use std::{error::Error, fmt};

/// The parts of an index, each a run of bytes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum IndexSection {
    /// Names, counts and places; read whole when the index is opened.
    Directory,
    /// Pages of label values.
    Dictionaries,
    /// Lists of rows.
    Postings,
    /// Rows to label values.
    Forward,
}

impl fmt::Display for IndexSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "index directory",
            Self::Dictionaries => "index dictionaries",
            Self::Postings => "index postings",
            Self::Forward => "index forward table",
        })
    }
}

/// Why an index on disk cannot be read. Offsets count from the start of the section.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskIndexError {
    /// The bytes could not be had.
    #[error("{section}: cannot read {len} bytes at offset {offset}")]
    Read {
        /// Which section.
        section: IndexSection,
        /// Where the read began.
        offset: u64,
        /// How many bytes were asked for.
        len: usize,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The bytes are not those that were written.
    #[error("{section}: unit at offset {offset}: checksum {got:08x}, expected {expected:08x}")]
    Checksum {
        /// Which section.
        section: IndexSection,
        /// Where the unit begins.
        offset: u64,
        /// The checksum in the file.
        expected: u32,
        /// The checksum of the bytes.
        got: u32,
    },
    /// The checksum fits, or there is none yet to check, but the content cannot be.
    #[error("{section}: unit at offset {offset}: expected {expected}")]
    Malformed {
        /// Which section.
        section: IndexSection,
        /// Where the unit begins.
        offset: u64,
        /// What should be there.
        expected: &'static str,
    },
    /// A field that cannot be read; its offset counts from the start of the unit's (unpacked) content.
    #[error("{section}: unit at offset {offset}")]
    Field {
        /// Which section.
        section: IndexSection,
        /// Where the unit begins.
        offset: u64,
        /// Which field, and what is wrong.
        source: chronolith_codec::Error,
    },
    /// A version this program does not know.
    #[error("index directory: version {got}, this program reads version {known}")]
    Version {
        /// The version in the file.
        got: u8,
        /// The version known.
        known: u8,
    },
}

impl DiskIndexError {
    /// What was being read.
    #[must_use]
    pub const fn section(&self) -> IndexSection {
        match self {
            Self::Read { section, .. }
            | Self::Checksum { section, .. }
            | Self::Malformed { section, .. }
            | Self::Field { section, .. } => *section,
            Self::Version { .. } => IndexSection::Directory,
        }
    }

    /// Where the unit begins, from the start of the section.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        match self {
            Self::Read { offset, .. }
            | Self::Checksum { offset, .. }
            | Self::Malformed { offset, .. }
            | Self::Field { offset, .. } => *offset,
            Self::Version { .. } => 0,
        }
    }
}

/// Why a series cannot be added to an index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexWriteError {
    /// Series come sorted by (metric name, labels), each once.
    #[error("series {id} is not behind the one before it")]
    Order {
        /// The id it would have had.
        id: u32,
    },
    /// Too many series for one index.
    #[error("more than {max} series")]
    TooManySeries {
        /// [`super::SERIES_MAX`].
        max: u32,
    },
    /// A label name or value is too long.
    #[error("label text of {bytes} bytes exceeds the limit of {max}")]
    LabelTooLong {
        /// Its length.
        bytes: usize,
        /// [`super::LABEL_BYTES_MAX`].
        max: usize,
    },
    /// Too many different label names.
    #[error("more than {max} label names")]
    TooManyNames {
        /// [`super::NAMES_MAX`].
        max: usize,
    },
    /// Too many different label pairs.
    #[error("more than {max} label pairs")]
    TooManyPairs {
        /// [`super::PAIRS_MAX`].
        max: usize,
    },
}
