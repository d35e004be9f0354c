//! The last bytes of a block: where the hotcache is.

use chronolith_codec::{Reader, crc32, write};

use super::{HEADER_BYTES, HOTCACHE_BYTES_MAX, MAGIC, is_known};
use crate::error::ContentError;

/// Length of the footer.
pub(crate) const FOOTER_BYTES: usize = 40;

/// How many bytes of the footer its checksum covers: those before it.
const COVERED_BYTES: usize = 32;

/// The content of a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) hotcache_off: u64,
    pub(crate) hotcache_len: u32,
    pub(crate) hotcache_crc: u32,
    pub(crate) file_len: u64,
    pub(crate) version: u8,
}

/// Why the last bytes of a file are not a footer.
#[derive(Debug)]
pub(crate) enum FooterError {
    Content(ContentError),
    Checksum { expected: u32, got: u32 },
    Version(u8),
}

impl From<ContentError> for FooterError {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}

impl From<chronolith_codec::Error> for FooterError {
    fn from(error: chronolith_codec::Error) -> Self {
        Self::Content(error.into())
    }
}

impl Footer {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        write::u64_le(out, self.hotcache_off);
        write::u32_le(out, self.hotcache_len);
        write::u32_le(out, self.hotcache_crc);
        write::u64_le(out, self.file_len);
        out.extend_from_slice(&[self.version, 0, 0, 0, 0, 0, 0, 0]);
        let crc = crc32(out.get(start..).unwrap_or_default());
        write::u32_le(out, crc);
        out.extend_from_slice(&MAGIC);
    }

    /// Reads the footer of a file of `file_len` bytes; `bytes` are its last [`FOOTER_BYTES`].
    pub(crate) fn decode(bytes: &[u8], file_len: u64) -> Result<Self, FooterError> {
        let mut reader = Reader::new(bytes);
        let covered = reader.slice(COVERED_BYTES, "footer")?;
        let expected = reader.u32_le("checksum of the footer")?;
        let magic = reader.array::<4>("magic")?;
        if magic != MAGIC {
            let number = |magic: [u8; 4]| u64::from(u32::from_be_bytes(magic));
            return Err(impossible("magic", number(MAGIC), number(magic)).into());
        }
        let got = crc32(covered);
        if got != expected {
            return Err(FooterError::Checksum { expected, got });
        }
        let mut fields = Reader::new(covered);
        let footer = Self {
            hotcache_off: fields.u64_le("offset of the hotcache")?,
            hotcache_len: fields.u32_le("length of the hotcache")?,
            hotcache_crc: fields.u32_le("checksum of the hotcache")?,
            file_len: fields.u64_le("length of the file")?,
            version: fields.u8("version")?,
        };
        if !is_known(footer.version) {
            return Err(FooterError::Version(footer.version));
        }
        let zeros = fields.array::<7>("zeros")?;
        if zeros != [0; 7] {
            return Err(impossible("zeros of the footer", 0, 1).into());
        }
        if footer.file_len != file_len {
            return Err(impossible("length of the file", footer.file_len, file_len).into());
        }
        if footer.hotcache_len > HOTCACHE_BYTES_MAX {
            let (max, got) = (HOTCACHE_BYTES_MAX.into(), footer.hotcache_len.into());
            return Err(impossible("length of the hotcache", max, got).into());
        }
        let end = footer.hotcache_off.checked_add(footer.hotcache_len.into());
        let expected = file_len.saturating_sub(FOOTER_BYTES as u64);
        if end != Some(expected) || footer.hotcache_off < HEADER_BYTES {
            return Err(impossible("end of the hotcache", expected, end.unwrap_or(u64::MAX)).into());
        }
        Ok(footer)
    }
}

/// A field with a value it cannot have.
pub(crate) const fn impossible(what: &'static str, expected: u64, got: u64) -> ContentError {
    ContentError::Impossible { what, expected, got }
}
