//! Series definitions: the payload of a record of type 1.
//!
//! ```text
//! per series: uvarint ref | tenant | uvarint count of labels | name | value | name | value ...
//! ```
//!
//! Texts are a uvarint length and UTF-8. The number of series stands in front, see docs/format/wal.md.

use chronolith_codec::{Reader, Result};

/// A tenant's name has at most this many bytes.
pub(crate) const TENANT_BYTES_MAX: usize = 1024;
/// A series has at most this many labels.
const LABELS_MAX: usize = 64 * 1024;
/// A label's name or value has at most this many bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a series is.
#[derive(Clone, Debug)]
pub struct SeriesDef<'a> {
    /// Its number in the log.
    pub series: u32,
    /// Whose it is.
    pub tenant: &'a str,
    /// Its labels, in canonical order.
    pub labels: LabelPairs<'a>,
}

/// The labels of a definition: an iterator over (name, value).
#[derive(Clone, Debug)]
pub struct LabelPairs<'a> {
    left: usize,
    rest: Reader<'a>,
}

impl<'a> Iterator for LabelPairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // Checked when the definition was read.
        pair(&mut self.rest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for LabelPairs<'_> {}

fn pair<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, &'a str)> {
    Ok((reader.text(TEXT_BYTES_MAX, "label name")?, reader.text(TEXT_BYTES_MAX, "label value")?))
}

/// Hands each definition in `payload` to `visit`; returns how many.
///
/// # Errors
/// When the payload is not what a writer makes; the definitions before that place have been handed over.
pub(crate) fn decode(payload: &[u8], mut visit: impl FnMut(&SeriesDef<'_>)) -> Result<usize> {
    let mut reader = Reader::new(payload);
    // A definition takes three bytes at least.
    let count = reader.count(payload.len() / 3, "series count")?;
    for _ in 0..count {
        let series = reader.count(u32::MAX as usize, "series ref")? as u32;
        let tenant = reader.text(TENANT_BYTES_MAX, "tenant")?;
        let labels = reader.count(LABELS_MAX, "label count")?;
        let pairs = LabelPairs { left: labels, rest: reader.clone() };
        for _ in 0..labels {
            pair(&mut reader)?;
        }
        visit(&SeriesDef { series, tenant, labels: pairs });
    }
    reader.finish()?;
    Ok(count)
}
