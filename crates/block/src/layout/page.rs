//! Pages: small runs of bytes, packed by zstd where that pays.
//!
//! `u8 0 | bytes` or `u8 1 | uvarint length unpacked | zstd frame`.

use std::borrow::Cow;

use chronolith_codec::{Reader, write};

use super::footer::impossible;
use crate::error::ContentError;

/// The most bytes of a page before packing.
pub(crate) const PAGE_BYTES_MAX: usize = 16 << 20;

/// The level of zstd for pages.
const ZSTD_LEVEL: i32 = 3;

/// Below this length zstd is not tried.
const ZSTD_BYTES_MIN: usize = 48;

const RAW: u8 = 0;
const PACKED: u8 = 1;

/// Makes pages; keeps zstd's tables from one to the next.
pub(crate) struct PageWriter {
    // None if zstd could not be set up: pages are then kept as they are.
    zstd: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
}

impl std::fmt::Debug for PageWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageWriter").finish_non_exhaustive()
    }
}

impl PageWriter {
    pub(crate) fn new() -> Self {
        Self { zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok(), packed: Vec::new() }
    }

    /// Appends the page of `content` to `out`. `content` is at most [`PAGE_BYTES_MAX`] long.
    pub(crate) fn write(&mut self, content: &[u8], out: &mut Vec<u8>) {
        debug_assert!(content.len() <= PAGE_BYTES_MAX, "the callers bound their pages");
        if content.len() >= ZSTD_BYTES_MIN
            && let Some(zstd) = &mut self.zstd
        {
            self.packed.clear();
            self.packed.reserve(zstd::zstd_safe::compress_bound(content.len()));
            // A failure means that the bytes would not fit: then they do not pay either.
            let fits = zstd.compress_to_buffer(content, &mut self.packed).is_ok();
            if fits && self.packed.len() + 8 < content.len() {
                out.push(PACKED);
                write::uvarint(out, content.len() as u64);
                out.extend_from_slice(&self.packed);
                return;
            }
        }
        out.push(RAW);
        out.extend_from_slice(content);
    }
}

/// The content of a page. Allocates at most [`PAGE_BYTES_MAX`].
pub(crate) fn read(page: &[u8]) -> Result<Cow<'_, [u8]>, ContentError> {
    let mut reader = Reader::new(page);
    match reader.u8("kind of the page")? {
        RAW => Ok(Cow::Borrowed(reader.rest())),
        PACKED => {
            let len = reader.count(PAGE_BYTES_MAX, "length of the page")?;
            let content =
                zstd::bulk::decompress(reader.rest(), len).map_err(|source| ContentError::Zstd { source })?;
            if content.len() != len {
                return Err(impossible("length of the page", len as u64, content.len() as u64));
            }
            Ok(Cow::Owned(content))
        }
        other => Err(impossible("kind of the page", PACKED.into(), other.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back() {
        let mut writer = PageWriter::new();
        let noise: Vec<u8> = (0..200_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for (content, packed) in
            [(vec![7; 1000], true), (vec![7; 10], false), (noise, false), (vec![], false)]
        {
            let mut page = Vec::new();
            writer.write(&content, &mut page);
            assert_eq!(page[0] == PACKED, packed);
            assert_eq!(read(&page).unwrap(), content);
        }
    }

    #[test]
    fn wrong_pages_are_refused_before_they_are_allocated() {
        assert!(read(&[]).is_err());
        assert!(read(&[9, 1]).is_err());
        let mut huge = vec![PACKED];
        write::uvarint(&mut huge, u64::MAX);
        assert!(read(&huge).is_err());
        let mut page = Vec::new();
        PageWriter::new().write(&[1; 500], &mut page);
        page.truncate(page.len() - 1);
        assert!(read(&page).is_err());
        let mut longer = vec![PACKED];
        write::uvarint(&mut longer, 501);
        longer.extend_from_slice(&zstd::bulk::compress(&[1; 500], 3).unwrap());
        assert!(matches!(read(&longer), Err(ContentError::Impossible { expected: 501, got: 500, .. })));
    }
}
