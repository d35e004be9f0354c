//! A reader of bytes.

use crate::write::unzigzag;
use crate::{Error, Result};

/// Reads a slice from its start; every read is checked and names what it expects.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    off: usize,
}

macro_rules! fixed {
    ($($name:ident $type:ty, $from:ident, $order:literal;)*) => {$(
        #[doc = concat!("Reads a `", stringify!($type), "`, ", $order, " byte first.")]
        #[inline]
        pub fn $name(&mut self, expected: &'static str) -> Result<$type> {
            self.array(expected).map(<$type>::$from)
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, off: 0 }
    }

    /// The offset of the next read.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.off
    }

    /// What has not been read.
    #[inline]
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.off..).unwrap_or_default()
    }

    /// Whether everything has been read.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.off >= self.bytes.len()
    }

    /// Fails unless everything has been read.
    pub fn finish(&self) -> Result<()> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(Error::Trailing { off: self.off, left }),
        }
    }

    fixed! {
        u8 u8, from_be_bytes, "the only";
        u16_be u16, from_be_bytes, "most significant";
        u32_be u32, from_be_bytes, "most significant";
        u64_be u64, from_be_bytes, "most significant";
        u16_le u16, from_le_bytes, "least significant";
        u32_le u32, from_le_bytes, "least significant";
        u64_le u64, from_le_bytes, "least significant";
    }

    /// Reads `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N]> {
        match self.rest().first_chunk::<N>() {
            Some(array) => {
                self.off += N;
                Ok(*array)
            }
            None => Err(self.truncated(expected, N)),
        }
    }

    /// Reads `len` bytes.
    #[inline]
    pub fn slice(&mut self, len: usize, expected: &'static str) -> Result<&'a [u8]> {
        match self.rest().get(..len) {
            Some(slice) => {
                self.off += len;
                Ok(slice)
            }
            None => Err(self.truncated(expected, len)),
        }
    }

    /// Reads a length of at most `max` as a uvarint, and that many bytes.
    #[inline]
    pub fn prefixed(&mut self, max: usize, expected: &'static str) -> Result<&'a [u8]> {
        let len = self.count(max, expected)?;
        self.slice(len, expected)
    }

    /// Reads a length of at most `max` as a uvarint, and that many bytes of UTF-8.
    #[inline]
    pub fn text(&mut self, max: usize, expected: &'static str) -> Result<&'a str> {
        let off = self.off;
        std::str::from_utf8(self.prefixed(max, expected)?).map_err(|_| Error::NotUtf8 { off, expected })
    }

    /// Reads a count or length of at most `max` as a uvarint.
    #[inline]
    pub fn count(&mut self, max: usize, expected: &'static str) -> Result<usize> {
        let off = self.off;
        let got = self.uvarint(expected)?;
        match usize::try_from(got) {
            Ok(count) if count <= max => Ok(count),
            _ => Err(Error::TooLarge { off, expected, got, max: max as u64 }),
        }
    }

    /// Reads an unsigned variable-length integer: seven bits a byte, least significant first.
    #[inline]
    pub fn uvarint(&mut self, expected: &'static str) -> Result<u64> {
        match self.bytes.get(self.off) {
            Some(&byte) if byte < 0x80 => {
                self.off += 1;
                Ok(u64::from(byte))
            }
            _ => self.uvarint_long(expected),
        }
    }

    fn uvarint_long(&mut self, expected: &'static str) -> Result<u64> {
        let mut value = 0_u64;
        for (i, &byte) in self.rest().iter().take(10).enumerate() {
            let low = u64::from(byte & 0x7f);
            if i == 9 && low > 1 {
                return Err(Error::VarintTooLong { off: self.off, expected });
            }
            value |= low << (7 * i);
            if byte < 0x80 {
                self.off += i + 1;
                return Ok(value);
            }
        }
        match self.rest().len() {
            have if have < 10 => Err(self.truncated(expected, have + 1)),
            _ => Err(Error::VarintTooLong { off: self.off, expected }),
        }
    }

    /// Reads a signed variable-length integer in zigzag order (0, -1, 1, -2 ...).
    #[inline]
    pub fn varint(&mut self, expected: &'static str) -> Result<i64> {
        self.uvarint(expected).map(unzigzag)
    }

    #[cold]
    fn truncated(&self, expected: &'static str, need: usize) -> Error {
        Error::Truncated { off: self.off, expected, need, have: self.rest().len() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::write;

    #[test]
    fn fixed_widths_and_orders() {
        let bytes: Vec<u8> = (1..=29).collect();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8("a"), Ok(1));
        assert_eq!(reader.u16_be("b"), Ok(0x0203));
        assert_eq!(reader.u16_le("c"), Ok(0x0504));
        assert_eq!(reader.u32_be("d"), Ok(0x0607_0809));
        assert_eq!(reader.u32_le("e"), Ok(0x0d0c_0b0a));
        assert_eq!(reader.u64_be("f"), Ok(0x0e0f_1011_1213_1415));
        assert_eq!(reader.u64_le("g"), Ok(0x1d1c_1b1a_1918_1716));
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(reader.u8("more"), Err(Error::Truncated { off: 29, expected: "more", need: 1, have: 0 }));
    }

    #[test]
    fn limits_and_places() {
        let mut reader = Reader::new(&[5, b'a', b'b']);
        assert_eq!(
            reader.prefixed(4, "name"),
            Err(Error::TooLarge { off: 0, expected: "name", got: 5, max: 4 })
        );
        let mut reader = Reader::new(&[0, 5, b'a', b'b']);
        reader.u8("pad").unwrap();
        let short = reader.prefixed(9, "name").unwrap_err();
        assert_eq!(short, Error::Truncated { off: 2, expected: "name", need: 5, have: 2 });
        assert_eq!(short.to_string(), "expected name at offset 2: needs 5 bytes, has 2");
        assert_eq!(Reader::new(&[1, 0xff]).text(9, "name"), Err(Error::NotUtf8 { off: 0, expected: "name" }));
        assert_eq!(Reader::new(&[1, 2]).finish(), Err(Error::Trailing { off: 0, left: 2 }));
        let eleven = [0xff; 11];
        assert!(matches!(Reader::new(&eleven).uvarint("n"), Err(Error::VarintTooLong { off: 0, .. })));
        let mut too_big = [0xff; 10];
        too_big[9] = 2;
        assert!(matches!(Reader::new(&too_big).uvarint("n"), Err(Error::VarintTooLong { .. })));
        assert!(matches!(Reader::new(&[0x80; 3]).uvarint("n"), Err(Error::Truncated { .. })));
    }

    proptest! {
        #[test]
        fn varints_round_trip(values in proptest::collection::vec(
            prop_oneof![any::<i64>(), -200_i64..200, Just(i64::MIN), Just(i64::MAX)], 0..50)) {
            let mut bytes = Vec::new();
            for &v in &values {
                write::varint(&mut bytes, v);
                write::uvarint(&mut bytes, v as u64);
            }
            let mut reader = Reader::new(&bytes);
            for &v in &values {
                prop_assert_eq!(reader.varint("v"), Ok(v));
                prop_assert_eq!(reader.uvarint("u"), Ok(v as u64));
            }
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            while reader.uvarint("u").is_ok() && reader.text(8, "t").is_ok() && reader.u32_le("w").is_ok() {}
            prop_assert!(reader.offset() <= bytes.len());
        }
    }
}
