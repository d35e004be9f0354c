//! One `Exemplar` message: `{ repeated Label labels = 1; double value = 2; int64 timestamp = 3; }`.

use chronolith_model::{Exemplar, Labels, exemplar::LABEL_CHARS_MAX};

use super::labels::split;
use crate::wire::{BYTES, FIXED64, Reader, VARINT, WireError};

/// Most labels of an exemplar: each has a character at least, in its name and in its value.
const LABELS_MAX: usize = LABEL_CHARS_MAX / 2;
/// Most bytes of its label records: those of the longest characters, and of as many records as there may be.
const LABEL_RECORDS_BYTES_MAX: usize = LABEL_CHARS_MAX * 4 + LABELS_MAX * 8;

/// Reads an exemplar; `None` where its labels may not be stored, though the message is well-formed.
pub(super) fn exemplar(mut reader: Reader<'_>) -> Result<Option<Exemplar>, WireError> {
    let (mut value, mut timestamp) = (0.0, 0);
    let mut records = Vec::new();
    let mut fits = true;
    while !reader.is_empty() {
        let before = reader;
        let (field, wire_type) = reader.key()?;
        match field {
            1 => {
                reader.expect(field, wire_type, BYTES)?;
                let _ = reader.bytes()?;
                let record = before.rest.get(..before.rest.len() - reader.rest.len()).unwrap_or_default();
                fits &= records.len() + record.len() <= LABEL_RECORDS_BYTES_MAX;
                if fits {
                    records.extend_from_slice(record);
                }
            }
            2 => {
                reader.expect(field, wire_type, FIXED64)?;
                value = f64::from_bits(reader.fixed64()?);
            }
            3 => {
                reader.expect(field, wire_type, VARINT)?;
                timestamp = reader.varint()?.cast_signed();
            }
            _ => reader.skip(wire_type)?,
        }
    }
    let labels = if fits { labels(&records)? } else { None };
    Ok(labels.map(|labels| Exemplar { labels, value, timestamp }))
}

fn labels(records: &[u8]) -> Result<Option<Labels>, WireError> {
    let (mut pairs, count) = split(records, LABELS_MAX)?;
    pairs.sort_unstable_by_key(|(name, _)| *name);
    let text: Option<Vec<(&str, &str)>> = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| str::from_utf8(name).ok().zip(str::from_utf8(value).ok()))
        .collect();
    let text = text.filter(|text| count <= LABELS_MAX && text.iter().all(|(name, _)| !name.is_empty()));
    Ok(text.and_then(Labels::from_sorted))
}
