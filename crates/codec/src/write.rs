//! Bytes out, appended to a `Vec<u8>`. The counterparts of [`crate::Reader`].

macro_rules! fixed {
    ($($name:ident $type:ty, $to:ident, $order:literal;)*) => {$(
        #[doc = concat!("Appends a `", stringify!($type), "`, ", $order, " byte first.")]
        #[inline]
        pub fn $name(out: &mut Vec<u8>, value: $type) {
            out.extend_from_slice(&value.$to());
        }
    )*};
}

fixed! {
    u16_be u16, to_be_bytes, "most significant";
    u32_be u32, to_be_bytes, "most significant";
    u64_be u64, to_be_bytes, "most significant";
    u16_le u16, to_le_bytes, "least significant";
    u32_le u32, to_le_bytes, "least significant";
    u64_le u64, to_le_bytes, "least significant";
}

/// Appends an unsigned variable-length integer: seven bits a byte, least significant first.
#[inline]
pub fn uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed variable-length integer in zigzag order (0, -1, 1, -2 ...).
#[inline]
pub fn varint(out: &mut Vec<u8>, value: i64) {
    uvarint(out, zigzag(value));
}

/// Appends `bytes` behind their length as a uvarint.
#[inline]
pub fn prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Signed to unsigned so that small magnitudes stay small: 0, -1, 1, -2 become 0, 1, 2, 3.
#[inline]
#[must_use]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
#[must_use]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bytes() {
        let mut out = Vec::new();
        uvarint(&mut out, 1000);
        varint(&mut out, 1000);
        varint(&mut out, -1);
        prefixed(&mut out, b"ab");
        u16_be(&mut out, 0x0102);
        u32_le(&mut out, 0x0102_0304);
        assert_eq!(out, [0xe8, 0x07, 0xd0, 0x0f, 0x01, 2, b'a', b'b', 1, 2, 4, 3, 2, 1]);
        assert_eq!((zigzag(i64::MIN), unzigzag(u64::MAX)), (u64::MAX, i64::MIN));
    }
}
