//! The frame of a block file: header, footer, and the directory that opens it.
//!
//! ```text
//! header 8 | units of parts | exemplars, starts | dictionaries, postings, forward table | metadata | hotcache | footer 40
//! ```
//!
//! All integers of fixed width are little-endian. Byte by byte: docs/format/block.md.

pub(crate) mod directory;
pub(crate) mod footer;
pub(crate) mod page;

/// The first bytes of a block, behind them the version and three zeros.
pub(crate) const MAGIC: [u8; 4] = *b"CHRB";

/// Length of the header.
pub(crate) const HEADER_BYTES: u64 = 8;

/// The header of every block of a version.
pub(crate) const fn header(version: u8) -> [u8; 8] {
    [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], version, 0, 0, 0]
}

/// Whether this program can read blocks of `version`.
pub(crate) const fn is_known(version: u8) -> bool {
    version >= 1 && version <= crate::FORMAT_VERSION
}

/// The most bytes of one readable unit other than the hotcache and a section of the index.
pub(crate) const UNIT_BYTES_MAX: u32 = 16 << 20;

/// The most bytes of the hotcache.
pub(crate) const HOTCACHE_BYTES_MAX: u32 = 256 << 20;
