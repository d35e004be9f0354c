//! Snappy blocks, the compression of remote write: `uvarint(decompressed length)`, then literals and copies.

/// A block expands to at most so many times its size: a copy element of three bytes gives 64.
const EXPANSION_MAX: usize = 22;

/// Why a block cannot be decompressed. The texts are those of Go's snappy package, which senders log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnappyError {
    /// The bytes are not a snappy block.
    #[error("snappy: corrupt input")]
    Corrupt,
    /// The block says it is longer than allowed.
    #[error("snappy: decoded length {length} exceeds limit {limit}")]
    TooLong {
        /// Bytes the block says it holds.
        length: usize,
        /// Most bytes allowed.
        limit: usize,
    },
}

/// How many bytes `block` says it decompresses to. Reads the first bytes only.
///
/// # Errors
/// [`SnappyError::Corrupt`] when the length is malformed or more than any block of this size can hold,
/// [`SnappyError::TooLong`] when it is above `limit`.
pub fn decompressed_len(block: &[u8], limit: usize) -> Result<usize, SnappyError> {
    if block.is_empty() {
        return Err(SnappyError::Corrupt);
    }
    let length = snap::raw::decompress_len(block).map_err(|_| SnappyError::Corrupt)?;
    if length > limit {
        return Err(SnappyError::TooLong { length, limit });
    }
    if length / EXPANSION_MAX > block.len() {
        return Err(SnappyError::Corrupt);
    }
    Ok(length)
}

/// Decompresses `block` into `buffer`, which grows to at most `limit` bytes, and returns the part that was written.
/// Nothing is allocated before the declared length has been checked.
///
/// # Errors
/// As [`decompressed_len`]; [`SnappyError::Corrupt`] when the content does not match it.
pub fn decompress<'a>(block: &[u8], limit: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], SnappyError> {
    let length = decompressed_len(block, limit)?;
    // The buffer keeps its longest length: a byte is zeroed once, not once per request.
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    let into = buffer.get_mut(..length).ok_or(SnappyError::Corrupt)?;
    let written = snap::raw::Decoder::new().decompress(block, into).map_err(|_| SnappyError::Corrupt)?;
    into.get(..written).ok_or(SnappyError::Corrupt)
}

/// Compresses `bytes` to one block.
///
/// # Errors
/// `None` above the 4 GiB a block can hold.
#[must_use]
pub fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    snap::raw::Encoder::new().compress_vec(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_the_buffer_is_reused() {
        let mut buffer = Vec::new();
        for text in ["", "short", &"long ".repeat(10_000)] {
            let block = compress(text.as_bytes()).unwrap();
            assert_eq!(decompress(&block, 1 << 20, &mut buffer).unwrap(), text.as_bytes());
        }
        assert_eq!(buffer.len(), 50_000);
    }

    #[test]
    fn a_bomb_is_refused_before_it_allocates() {
        let mut buffer = Vec::new();
        // 4 GiB - 1 declared, nothing behind it.
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert_eq!(
            decompress(&bomb, 32 << 20, &mut buffer),
            Err(SnappyError::TooLong { length: u32::MAX as usize, limit: 32 << 20 })
        );
        // Within the limit, but more than six bytes can hold.
        let lie = [0x80, 0x80, 0x80, 0x08, 0x00, 0x00];
        assert_eq!(decompress(&lie, 32 << 20, &mut buffer), Err(SnappyError::Corrupt));
        assert_eq!(buffer.capacity(), 0);
    }

    #[test]
    fn the_densest_block_is_not_taken_for_a_lie() {
        let block = compress(&vec![7; 1 << 20]).unwrap();
        assert!(decompress(&block, 1 << 20, &mut Vec::new()).is_ok());
    }

    #[test]
    fn garbage_is_corrupt() {
        let mut buffer = Vec::new();
        let block = compress(b"some text that is long enough to be cut").unwrap();
        for garbage in
            [&b""[..], b"\xff", b"plain text", &block[..block.len() - 1], &[0x05, 0x01, 0xff, 0xff]]
        {
            assert_eq!(decompress(garbage, 1 << 20, &mut buffer), Err(SnappyError::Corrupt), "{garbage:?}");
        }
    }
}
