//! For tests and fuzz targets.

use bytes::Bytes;

use crate::disk::{DiskIndexError, IndexSection, MemorySections, SectionRead};

/// Sections whose checksums are not compared: what is damaged gets as far as it can.
#[derive(Debug)]
pub struct Unchecked(pub MemorySections);

impl SectionRead for Unchecked {
    fn read(&self, section: IndexSection, offset: u64, len: usize) -> Result<Bytes, DiskIndexError> {
        self.0.read(section, offset, len)
    }

    fn verifies(&self) -> bool {
        false
    }
}
