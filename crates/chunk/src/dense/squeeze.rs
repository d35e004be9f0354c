//! zstd around a piece of a unit where it pays: `[flag u8] [length u32 LE] [stored length u32 LE] [stored bytes]`.

use std::cell::RefCell;
use std::fmt;

use chronolith_codec::{Reader, write};

use crate::{Error, Result};

/// Higher levels gain about a hundredth.
const LEVEL: i32 = 3;

const STORED: u8 = 0;
const SQUEEZED: u8 = 1;

/// Writes pieces; keeps its compressor, which is some hundred kilobytes.
#[derive(Default)]
pub(super) struct Squeezer {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    buffer: Vec<u8>,
}

impl fmt::Debug for Squeezer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Squeezer").finish_non_exhaustive()
    }
}

impl Squeezer {
    /// Appends `piece` to `out`, compressed if that saves at least one part in `gain_min`.
    pub(super) fn write(&mut self, piece: &[u8], gain_min: usize, out: &mut Vec<u8>) {
        let enough = piece.len() - piece.len() / gain_min.max(1);
        let squeezed = self.squeeze(piece).is_some_and(|len| len < enough);
        let stored = if squeezed { &self.buffer } else { piece };
        out.push(if squeezed { SQUEEZED } else { STORED });
        write::u32_le(out, piece.len() as u32);
        write::u32_le(out, stored.len() as u32);
        out.extend_from_slice(stored);
    }

    /// Compresses into the buffer. `None`, if zstd cannot, is no loss: the piece is stored as it is then.
    fn squeeze(&mut self, piece: &[u8]) -> Option<usize> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(LEVEL).ok()?),
        };
        self.buffer.clear();
        self.buffer.reserve(zstd::zstd_safe::compress_bound(piece.len()));
        compressor.compress_to_buffer(piece, &mut self.buffer).ok()
    }
}

thread_local! {
    /// Making one takes as long as undoing a small piece; it has about 100 kB.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A piece as it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    unit: &'static str,
    squeezed: bool,
    len: usize,
    stored: &'a [u8],
    /// Where the stored bytes begin in the unit.
    off: usize,
}

impl<'a> Piece<'a> {
    /// Reads a piece that has at most `max` bytes when undone.
    pub(super) fn read(unit: &'static str, reader: &mut Reader<'a>, max: usize) -> Result<Self> {
        let damaged = |source| Error::Unreadable { unit, source };
        let off = reader.offset();
        let flag = reader.u8("compression").map_err(damaged)?;
        let len = reader.u32_le("length").map_err(damaged)? as usize;
        let stored_len = reader.u32_le("stored length").map_err(damaged)? as usize;
        let invalid = |expected, got| Err(Error::Invalid { unit, off, expected, got });
        if flag > SQUEEZED {
            return invalid("a compression, 0 or 1", u64::from(flag));
        }
        if len > max {
            return invalid("a length within the limit", len as u64);
        }
        let off = reader.offset();
        let stored = reader.slice(stored_len, "stored bytes").map_err(damaged)?;
        Ok(Self { unit, squeezed: flag == SQUEEZED, len, stored, off })
    }

    /// How many bytes it has when undone.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts what it stands for into `into`, which has as many bytes.
    pub(super) fn undo(&self, into: &mut [u8]) -> Result<()> {
        let got = if self.squeezed {
            self.decompress(into)
        } else {
            if self.stored.len() == into.len() {
                into.copy_from_slice(self.stored);
            }
            self.stored.len()
        };
        if got != self.len || into.len() != self.len {
            let (unit, off, got) = (self.unit, self.off, got as u64);
            return Err(Error::Invalid { unit, off, expected: "as many bytes as the length says", got });
        }
        Ok(())
    }

    /// How many bytes came out; 0 if zstd refuses. It writes no more than there is room for.
    fn decompress(&self, into: &mut [u8]) -> usize {
        DECOMPRESSOR.with_borrow_mut(|decompressor| {
            if decompressor.is_none() {
                *decompressor = zstd::bulk::Decompressor::new().ok();
            }
            let done = decompressor.as_mut().and_then(|d| d.decompress_to_buffer(self.stored, into).ok());
            done.unwrap_or(0)
        })
    }
}
