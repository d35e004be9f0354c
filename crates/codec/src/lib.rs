//! Bytes and bits: readers that check every read, writers that cannot fail, checksums.
//!
//! A [`Reader`] never reads past its slice, never allocates, and says at which offset it expected what. **Must not
//! know:** series, files.
//!
//! Map: [`Reader`] bytes in · [`write`] bytes out · [`BitReader`], [`BitBuf`] bits, most significant first ·
//! [`crc32`] checksums.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod bits;
mod crc;
mod error;
mod reader;
pub mod write;

pub use bits::{BitBuf, BitReader};
pub use crc::{crc32, crc32_continue};
pub use error::{Error, Result};
pub use reader::Reader;
pub use write::{unzigzag, zigzag};
