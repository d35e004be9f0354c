//! A part of a buffer, read with knowledge of what lies behind it.

use chronolith_codec::{Error, Reader, Result, unzigzag};

use super::pack::{BLOCK, unpack};

/// Bytes behind packed values that unpacking loads and ignores: buffers end with so many zeros to be quick.
pub(super) const PADDING: usize = 16;

/// Reads a part of a buffer.
#[derive(Clone, Debug)]
pub(super) struct Input<'a> {
    /// From the start of the part to the end of the buffer.
    bytes: &'a [u8],
    /// Where the part starts in the unit it belongs to, for errors.
    origin: usize,
    pos: usize,
    end: usize,
}

impl<'a> Input<'a> {
    /// The `len` bytes at `start` of `bytes`; fewer if there are fewer.
    pub(super) fn new(bytes: &'a [u8], start: usize, len: usize) -> Self {
        let bytes = bytes.get(start..).unwrap_or_default();
        Self { bytes, origin: start, pos: 0, end: len.min(bytes.len()) }
    }

    /// The offset of the next read in the unit.
    pub(super) fn offset(&self) -> usize {
        self.origin + self.pos
    }

    fn reader(&self) -> Reader<'a> {
        Reader::new(self.bytes.get(self.pos..self.end).unwrap_or_default())
    }

    /// Reads with `read`; offsets of errors are those in the unit.
    #[inline]
    fn read<T>(&mut self, read: impl FnOnce(&mut Reader<'a>) -> Result<T>) -> Result<T> {
        let mut reader = self.reader();
        match read(&mut reader) {
            Ok(value) => {
                self.pos += reader.offset();
                Ok(value)
            }
            Err(error) => Err(moved(error, self.offset())),
        }
    }

    #[inline]
    pub(super) fn u8(&mut self, expected: &'static str) -> Result<u8> {
        match self.bytes.get(self.pos) {
            Some(byte) if self.pos < self.end => {
                self.pos += 1;
                Ok(*byte)
            }
            _ => self.read(|reader| reader.u8(expected)),
        }
    }

    #[inline]
    pub(super) fn u64(&mut self, expected: &'static str) -> Result<u64> {
        self.read(|reader| reader.u64_le(expected))
    }

    #[inline]
    pub(super) fn uvarint(&mut self, expected: &'static str) -> Result<u64> {
        match self.bytes.get(self.pos) {
            Some(byte) if *byte < 0x80 && self.pos < self.end => {
                self.pos += 1;
                Ok(u64::from(*byte))
            }
            _ => self.uvarint_long(expected),
        }
    }

    #[inline(never)]
    fn uvarint_long(&mut self, expected: &'static str) -> Result<u64> {
        self.read(|reader| reader.uvarint(expected))
    }

    #[inline]
    pub(super) fn varint(&mut self, expected: &'static str) -> Result<i64> {
        self.uvarint(expected).map(unzigzag)
    }

    #[inline]
    pub(super) fn count(&mut self, max: usize, expected: &'static str) -> Result<usize> {
        let off = self.offset();
        let got = self.uvarint(expected)?;
        match usize::try_from(got) {
            Ok(count) if count <= max => Ok(count),
            _ => Err(Error::TooLarge { off, expected, got, max: max as u64 }),
        }
    }

    #[inline]
    pub(super) fn slice(&mut self, len: usize, expected: &'static str) -> Result<&'a [u8]> {
        match self.bytes.get(self.pos..self.end).and_then(|rest| rest.get(..len)) {
            Some(slice) => {
                self.pos += len;
                Ok(slice)
            }
            None => self.read(|reader| reader.slice(len, expected)),
        }
    }

    pub(super) fn finish(&self) -> Result<()> {
        self.reader().finish().map_err(|error| moved(error, self.offset()))
    }

    /// Reads `count` packed values, at most [`BLOCK`].
    #[inline]
    pub(super) fn packed(&mut self, width: u32, count: usize, out: &mut [u64; BLOCK]) -> Result<()> {
        let len = (count * width as usize).div_ceil(8);
        if len > self.end - self.pos {
            let have = self.end - self.pos;
            return Err(Error::Truncated { off: self.offset(), expected: "packed values", need: len, have });
        }
        unpack(self.bytes.get(self.pos..).unwrap_or_default(), width, count, out);
        self.pos += len;
        Ok(())
    }

    /// The next `bits` bits, rounded up to bytes, and what lies behind them.
    #[inline]
    pub(super) fn bits(&mut self, bits: usize, expected: &'static str) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.pos..).unwrap_or_default();
        self.slice(bits.div_ceil(8), expected).map(|_| rest)
    }
}

/// The error of a reader that began at `by` of its unit.
pub(super) fn moved(error: Error, by: usize) -> Error {
    match error {
        Error::Truncated { off, expected, need, have } => {
            Error::Truncated { off: off + by, expected, need, have }
        }
        Error::VarintTooLong { off, expected } => Error::VarintTooLong { off: off + by, expected },
        Error::TooLarge { off, expected, got, max } => Error::TooLarge { off: off + by, expected, got, max },
        Error::Trailing { off, left } => Error::Trailing { off: off + by, left },
        other => other,
    }
}
