//! Protobuf records, read in place.
//!
//! A message is a run of `key value`, `key = varint(field << 3 | wire type)`. Every read is bounds-checked and every
//! error names the byte of the body it happened at.

/// What is wrong with an encoded message. The texts are those Prometheus answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireFault {
    /// The message ends inside a record.
    #[error("unexpected EOF")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// Field number 0, or above 2^29.
    #[error("proto: illegal tag")]
    IllegalTag,
    /// A group, or one of the two wire types that do not exist.
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    /// A known field of an unexpected wire type.
    #[error("proto: wrong wireType = {wire_type} for field {field}")]
    WrongWireType {
        /// Field number.
        field: u32,
        /// Its wire type.
        wire_type: u8,
    },
    /// More of something than a request may hold.
    #[error("too many {what} in one request, the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Most allowed.
        limit: usize,
    },
}

/// A [`WireFault`] and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} (at byte {offset} of the decompressed body)")]
pub struct WireError {
    /// What is wrong.
    pub fault: WireFault,
    /// Offset of the byte in the decompressed body.
    pub offset: usize,
}

/// Wire types: how the value of a record is written.
pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const FIXED32: u8 = 5;

/// Reads one message. Copying it is cheap and remembers a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
    /// Offset in the body of the first byte behind this message.
    end: usize,
}

impl<'a> Reader<'a> {
    /// A reader of a whole body.
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body, end: body.len() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Offset in the body of the next byte.
    pub(crate) fn offset(&self) -> usize {
        self.end - self.rest.len()
    }

    #[cold]
    pub(crate) fn error(&self, fault: WireFault) -> WireError {
        WireError { fault, offset: self.offset() }
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest {
            [byte, tail @ ..] if *byte < 0x80 => {
                self.rest = tail;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if index == 9 && *byte > 1 {
                return Err(self.error(WireFault::Overflow));
            }
            value |= bits << (7 * index);
            if *byte < 0x80 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(self.error(WireFault::Truncated))
    }

    /// The next key: field number and wire type.
    #[inline]
    pub(crate) fn key(&mut self) -> Result<(u32, u8), WireError> {
        let place = *self;
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).unwrap_or(u32::MAX);
        if field == 0 || field >= 1 << 29 {
            return Err(place.error(WireFault::IllegalTag));
        }
        Ok((field, (key & 7) as u8))
    }

    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let Some((head, tail)) = self.rest.split_at_checked(length) else {
            return Err(self.error(WireFault::Truncated));
        };
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, WireError> {
        let Some((head, tail)) = self.rest.split_first_chunk::<8>() else {
            return Err(self.error(WireFault::Truncated));
        };
        self.rest = tail;
        Ok(u64::from_le_bytes(*head))
    }

    /// A length and so many bytes.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// An embedded message.
    #[inline]
    pub(crate) fn message(&mut self) -> Result<Self, WireError> {
        let bytes = self.bytes()?;
        Ok(Self { rest: bytes, end: self.offset() })
    }

    /// Steps over the value of an unknown field.
    pub(crate) fn skip(&mut self, wire_type: u8) -> Result<(), WireError> {
        match wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            BYTES => self.bytes().map(drop),
            FIXED32 => self.take(4).map(drop),
            other => Err(self.error(WireFault::IllegalWireType(other))),
        }
    }

    /// Checks the wire type of a known field.
    #[inline]
    pub(crate) fn expect(&self, field: u32, wire_type: u8, wanted: u8) -> Result<(), WireError> {
        if wire_type == wanted {
            Ok(())
        } else {
            Err(self.error(WireFault::WrongWireType { field, wire_type }))
        }
    }
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of `value` as a varint.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a length-delimited field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field << 3 | u32::from(BYTES)));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                assert_eq!(bytes.len(), varint_len(value));
                let mut reader = Reader::new(&bytes);
                assert_eq!(reader.varint(), Ok(value));
                assert!(reader.is_empty());
                for cut in 0..bytes.len() {
                    let fault = Reader::new(&bytes[..cut]).varint().unwrap_err().fault;
                    assert_eq!(fault, WireFault::Truncated);
                }
            }
        }
        assert_eq!(Reader::new(&[0xff; 11]).varint().unwrap_err().fault, WireFault::Overflow);
    }

    #[test]
    fn errors_name_the_byte_of_the_whole_body() {
        let body = [0x0a, 0x03, 0x12, 0x05, 0x01];
        let mut outer = Reader::new(&body);
        assert_eq!(outer.key(), Ok((1, BYTES)));
        let mut inner = outer.message().unwrap();
        assert_eq!(inner.key(), Ok((2, BYTES)));
        assert_eq!(inner.bytes(), Err(WireError { fault: WireFault::Truncated, offset: 4 }));
    }

    #[test]
    fn groups_and_unknown_wire_types_are_refused() {
        for wire_type in [3, 4, 6, 7] {
            assert_eq!(
                Reader::new(&[0; 16]).skip(wire_type).unwrap_err().fault,
                WireFault::IllegalWireType(wire_type)
            );
        }
        assert_eq!(Reader::new(&[0x00]).key().unwrap_err().fault, WireFault::IllegalTag);
    }
}
