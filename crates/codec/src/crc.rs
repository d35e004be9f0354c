//! CRC-32 (IEEE 802.3, the one of zlib and PNG).

/// The CRC-32 of `bytes`.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The CRC-32 of what `crc` covers followed by `bytes`.
#[must_use]
pub fn crc32_continue(crc: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_usual_crc32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32_continue(crc32(b"1234"), b"56789"), 0xcbf4_3926);
    }
}
