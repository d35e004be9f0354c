//! Compression of finished answers.

use std::io::Write as _;

use axum::http::{HeaderMap, header};
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};

/// Shorter answers go out as they are: a header would eat what compression saves.
pub(crate) const COMPRESS_BYTES_MIN: usize = 1024;

/// Above it an answer is compressed on a thread that may block.
pub(crate) const COMPRESS_INLINE_BYTES_MAX: usize = 32 * 1024;

const ZSTD_LEVEL: i32 = 1;

/// How an answer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Zstd,
    Gzip,
    /// zlib, which is what HTTP calls deflate.
    Deflate,
}

impl Encoding {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// zstd if `Accept-Encoding` names it, for it is smaller and takes less time; else the first one that is known here.
    /// Of the weights only zero, which refuses, is read.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let known = values.flat_map(|value| value.split(',')).filter_map(|token| {
            let (name, weight) = token.split_once(';').unwrap_or((token, ""));
            let weight =
                weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
            let encoding = match name.trim() {
                "zstd" => Self::Zstd,
                "gzip" => Self::Gzip,
                "deflate" => Self::Deflate,
                _ => return None,
            };
            (weight != Some(0.0)).then_some(encoding)
        });
        let known: Vec<Self> = known.collect();
        known.iter().find(|encoding| **encoding == Self::Zstd).or(known.first()).copied()
    }

    /// `body`, compressed; `None` if that did not work out, for which only a want of memory can be the cause.
    pub(crate) fn compress(self, body: &[u8]) -> Option<Vec<u8>> {
        // The levels at which a core compresses as fast as it encodes JSON.
        let level = Compression::fast();
        match self {
            Self::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL).ok(),
            Self::Gzip => {
                let out = Vec::with_capacity(body.len() / 4);
                let mut encoder = GzEncoder::new(out, level);
                encoder.write_all(body).ok()?;
                encoder.finish().ok()
            }
            Self::Deflate => {
                let out = Vec::with_capacity(body.len() / 4);
                let mut encoder = ZlibEncoder::new(out, level);
                encoder.write_all(body).ok()?;
                encoder.finish().ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use axum::http::HeaderValue;
    use flate2::read::{GzDecoder, ZlibDecoder};

    use super::*;

    #[test]
    fn zstd_wins_then_the_first_known_name() {
        for (accept, expected) in [
            ("gzip", Some(Encoding::Gzip)),
            ("br, deflate, gzip", Some(Encoding::Deflate)),
            ("gzip, deflate, br, zstd", Some(Encoding::Zstd)),
            ("zstd;q=0,gzip;q=1.0", Some(Encoding::Gzip)),
            ("gzip; q=0", None),
            ("identity", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
            assert_eq!(Encoding::accepted(&headers), expected, "{accept}");
        }
        assert_eq!(Encoding::accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn what_goes_in_comes_out() {
        let body = "[1435781451.781,\"1\"],".repeat(1000);
        let mut text = String::new();
        let gzip = Encoding::Gzip.compress(body.as_bytes()).expect("memory");
        assert!(gzip.len() < body.len() / 10);
        GzDecoder::new(&gzip[..]).read_to_string(&mut text).expect("gzip");
        assert_eq!(text, body);
        text.clear();
        let deflate = Encoding::Deflate.compress(body.as_bytes()).expect("memory");
        ZlibDecoder::new(&deflate[..]).read_to_string(&mut text).expect("zlib");
        assert_eq!(text, body);
        let compressed = Encoding::Zstd.compress(body.as_bytes()).expect("memory");
        assert!(compressed.len() < body.len() / 10);
        assert_eq!(zstd::bulk::decompress(&compressed, body.len()).expect("zstd"), body.as_bytes());
    }
}
