//! What can go wrong with a block.

use std::fmt;
use std::path::PathBuf;

use chronolith_index::{DiskIndexError, IndexWriteError, MatcherError};
use chronolith_model::Timestamp;

/// Result of a block operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A kind of content of a block's files, for errors and summaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Section {
    /// The first bytes of the file.
    Header,
    /// Columns of timestamps.
    Timestamps,
    /// Columns of float values.
    ValueFrames,
    /// Native histograms.
    HistogramFrames,
    /// Which series stand in the slots of a frame.
    SlotTables,
    /// Statistics of the slots of a frame.
    Statistics,
    /// Exemplars.
    Exemplars,
    /// Start timestamps.
    Starts,
    /// Series to labels.
    Forward,
    /// Label pairs to series.
    Postings,
    /// Label values.
    Dictionaries,
    /// Metric metadata.
    Metadata,
    /// What opens the block.
    Hotcache,
    /// The last bytes of the file.
    Footer,
    /// The sidecar file of deletions.
    Tombstones,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Timestamps => "timestamps",
            Self::ValueFrames => "value frames",
            Self::HistogramFrames => "histogram frames",
            Self::SlotTables => "slot tables",
            Self::Statistics => "statistics",
            Self::Exemplars => "exemplars",
            Self::Starts => "start timestamps",
            Self::Forward => "forward table",
            Self::Postings => "postings",
            Self::Dictionaries => "dictionaries",
            Self::Metadata => "metadata",
            Self::Hotcache => "hotcache",
            Self::Footer => "footer",
            Self::Tombstones => "tombstones",
        })
    }
}

/// What a decoder met inside a unit whose checksum was right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// A field cannot be read.
    #[error(transparent)]
    Field(#[from] chronolith_codec::Error),
    /// A frame, column or page cannot be read.
    #[error(transparent)]
    Chunk(#[from] chronolith_chunk::Error),
    /// zstd refused the bytes.
    #[error("not what zstd wrote")]
    Zstd {
        /// What zstd said.
        source: std::io::Error,
    },
    /// A field holds what cannot be there.
    #[error("{what}: expected {}, got {}", value(what, *expected), value(what, *got))]
    Impossible {
        /// Which field.
        what: &'static str,
        /// What it may be.
        expected: u64,
        /// What it is.
        got: u64,
    },
}

/// A value for people: a magic number is four characters.
fn value(what: &str, value: u64) -> String {
    match u32::try_from(value) {
        Ok(magic) if what == "magic" => format!("\"{}\"", magic.to_be_bytes().escape_ascii()),
        _ => value.to_string(),
    }
}

/// Why a block cannot be written, opened, read or merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] chronolith_env::Error),
    /// Bytes contradict their checksum. Not retryable: quarantine the block.
    #[error("{path}: checksum mismatch in {section} at offset {off}: expected {expected:08x}, got {got:08x}")]
    Checksum {
        /// The file.
        path: PathBuf,
        /// What was being read.
        section: Section,
        /// Where the unit starts in the file.
        off: u64,
        /// The checksum that was written down.
        expected: u32,
        /// The checksum of the bytes.
        got: u32,
    },
    /// Bytes whose checksum is right, or that have none, do not mean anything. Not retryable: quarantine the block.
    #[error("{path}: damaged {section} at offset {off}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was being read.
        section: Section,
        /// Where the unit starts in the file.
        off: u64,
        /// What was met.
        source: ContentError,
    },
    /// Numbers of the file contradict each other. Not retryable: quarantine the block.
    #[error("{path}: damaged {section} at offset {off}: {what}: expected {expected}, got {got}")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What was being read.
        section: Section,
        /// Where the unit starts in the file.
        off: u64,
        /// What was compared.
        what: &'static str,
        /// What it should be.
        expected: u64,
        /// What it is.
        got: u64,
    },
    /// The index cannot be read. Not retryable: quarantine the block.
    #[error("{path}: damaged {section} at offset {off}")]
    Index {
        /// The file.
        path: PathBuf,
        /// What was being read.
        section: Section,
        /// Where the unit starts in the file; that of `source` counts from the start of the section.
        off: u64,
        /// What was met.
        source: DiskIndexError,
    },
    /// A file of another version. Nothing was changed.
    #[error(
        "{path}: {section} has format version {got}, this program knows versions up to {expected}; use the program \
         version that wrote it"
    )]
    ForeignVersion {
        /// The file.
        path: PathBuf,
        /// Whose version.
        section: Section,
        /// Its version.
        got: u8,
        /// The newest we know.
        expected: u8,
    },
    /// The index refuses a series.
    #[error("cannot add a series to the index")]
    IndexWrite(#[from] IndexWriteError),
    /// A column cannot be encoded.
    #[error("cannot encode a column")]
    Encode(#[from] chronolith_chunk::Error),
    /// A matcher does not compile.
    #[error(transparent)]
    Matcher(#[from] MatcherError),
    /// More of something than a block may have.
    #[error("{got} {what} exceed the limit of {max}")]
    Limit {
        /// What.
        what: &'static str,
        /// How many.
        got: u64,
        /// How many there may be.
        max: u64,
    },
    /// A sample outside the range it was announced for.
    #[error("timestamp {timestamp} is not in ({min}, {max}]")]
    OutOfRange {
        /// The sample's.
        timestamp: Timestamp,
        /// Lower end, not included.
        min: Timestamp,
        /// Upper end, included.
        max: Timestamp,
    },
    /// The caller gave things in the wrong order or number.
    #[error("{what}: expected {expected}, got {got}")]
    Input {
        /// What.
        what: &'static str,
        /// What it may be.
        expected: u64,
        /// What it was.
        got: u64,
    },
    /// The caller asked to stop. What was written so far has been removed.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// What was damaged, and where its unit starts in the file.
    #[must_use]
    pub const fn place(&self) -> Option<(Section, u64)> {
        match self {
            Self::Checksum { section, off, .. }
            | Self::Content { section, off, .. }
            | Self::Mismatch { section, off, .. }
            | Self::Index { section, off, .. } => Some((*section, *off)),
            _ => None,
        }
    }

    /// Whether the block's bytes are damaged: it is to be quarantined. Anything else is the caller's, the file
    /// system's, or a matter of time.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Checksum { .. } | Self::Content { .. } | Self::Mismatch { .. } | Self::Index { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_numbers_are_characters() {
        let what = |what| ContentError::Impossible { what, expected: 0x4348_5242, got: 0xff };
        assert_eq!(what("magic").to_string(), r#"magic: expected "CHRB", got "\x00\x00\x00\xff""#);
        assert_eq!(what("version").to_string(), "version: expected 1128813122, got 255");
    }
}
