//! Metadata of metrics: the payload of a record of type 8.
//!
//! ```text
//! uvarint count | per entry: tenant | metric | u8 type | unit | help
//! ```
//!
//! Texts are a uvarint length and UTF-8. What the number of a type means is told in docs/format/wal.md, and means nothing here.

use chronolith_codec::{Reader, Result, write};

use crate::series::TENANT_BYTES_MAX;

/// Name, unit and help text of a metric have at most so many bytes each.
pub const METADATA_TEXT_BYTES_MAX: usize = 64 * 1024;

/// At most so many bytes of metadata wait to be written.
pub const METADATA_PENDING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A record is closed when it has this many bytes of entries.
const RECORD_BYTES_FULL: usize = 1024 * 1024;

/// The shortest entry: four lengths and a type.
const ENTRY_BYTES_MIN: usize = 5;

// What one record comes to: full but for one byte, and then the longest entry.
const _: () = assert!(
    RECORD_BYTES_FULL + TENANT_BYTES_MAX + 3 * METADATA_TEXT_BYTES_MAX + 64 < crate::PAYLOAD_BYTES_MAX
);

/// What is known of a metric, as it was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedMetadata<'a> {
    /// Whose it is.
    pub tenant: &'a str,
    /// The metric's name; at most [`METADATA_TEXT_BYTES_MAX`], as the texts below.
    pub metric: &'a str,
    /// The number of its type.
    pub kind: u8,
    /// Its unit, or empty.
    pub unit: &'a str,
    /// Its help text, or empty.
    pub help: &'a str,
}

impl LoggedMetadata<'_> {
    fn fits(&self) -> bool {
        let texts = [self.metric, self.unit, self.help];
        self.tenant.len() <= TENANT_BYTES_MAX
            && texts.iter().all(|text| text.len() <= METADATA_TEXT_BYTES_MAX)
    }
}

/// Pending metadata: the payloads of one or more records, one behind the other, without their counts.
#[derive(Debug, Default)]
pub(crate) struct MetadataColumn {
    bytes: Vec<u8>,
    ends: Vec<MetadataEnd>,
}

/// Where a record ends, and how many entries it has.
#[derive(Clone, Copy, Debug)]
struct MetadataEnd {
    off: usize,
    count: u64,
}

impl MetadataColumn {
    /// Adds an entry; whether there was room for it.
    pub(crate) fn push(&mut self, entry: &LoggedMetadata<'_>) -> bool {
        if self.bytes.len() >= METADATA_PENDING_BYTES_MAX || !entry.fits() {
            return false;
        }
        let begin = self.ends.iter().rev().nth(1).map_or(0, |end| end.off);
        if self.ends.is_empty() || self.bytes.len() - begin >= RECORD_BYTES_FULL {
            self.ends.push(MetadataEnd { off: self.bytes.len(), count: 0 });
        }
        for text in [entry.tenant, entry.metric] {
            write::prefixed(&mut self.bytes, text.as_bytes());
        }
        self.bytes.push(entry.kind);
        for text in [entry.unit, entry.help] {
            write::prefixed(&mut self.bytes, text.as_bytes());
        }
        if let Some(end) = self.ends.last_mut() {
            *end = MetadataEnd { off: self.bytes.len(), count: end.count + 1 };
        }
        true
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Hands the payload of each record to `visit`, in a buffer that is emptied before.
    ///
    /// # Errors
    /// The first one of `visit`.
    pub(crate) fn payloads<E>(
        &self,
        buffer: &mut Vec<u8>,
        mut visit: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut from = 0;
        for end in &self.ends {
            buffer.clear();
            write::uvarint(buffer, end.count);
            buffer.extend_from_slice(self.bytes.get(from..end.off).unwrap_or_default());
            from = end.off;
            visit(buffer)?;
        }
        Ok(())
    }

    /// Empties it; a buffer beyond `keep` bytes is given back.
    pub(crate) fn clear(&mut self, keep: usize) {
        if self.bytes.capacity() > keep {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Reads the payload of a record of metadata.
///
/// # Errors
/// When it is not what a writer makes.
pub(crate) fn decode(payload: &[u8]) -> Result<Vec<LoggedMetadata<'_>>> {
    let mut reader = Reader::new(payload);
    let count = reader.count(payload.len() / ENTRY_BYTES_MIN, "entry count")?;
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        out.push(LoggedMetadata {
            tenant: reader.text(TENANT_BYTES_MAX, "tenant")?,
            metric: reader.text(METADATA_TEXT_BYTES_MAX, "metric")?,
            kind: reader.u8("type of a metric")?,
            unit: reader.text(METADATA_TEXT_BYTES_MAX, "unit")?,
            help: reader.text(METADATA_TEXT_BYTES_MAX, "help text")?,
        });
    }
    reader.finish()?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payloads(column: &MetadataColumn) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let visited = column.payloads(&mut Vec::new(), |payload| {
            all.push(payload.to_vec());
            Ok::<(), ()>(())
        });
        visited.unwrap();
        all
    }

    #[test]
    fn bounded_in_number_and_size() {
        let mut column = MetadataColumn::default();
        let help = "h".repeat(METADATA_TEXT_BYTES_MAX);
        let entry = LoggedMetadata { tenant: "a", metric: "m", kind: 1, unit: "", help: &help };
        let taken = (0..1000).take_while(|_| column.push(&entry)).count();
        assert_eq!(taken, METADATA_PENDING_BYTES_MAX / (METADATA_TEXT_BYTES_MAX + 9) + 1);
        let payloads = payloads(&column);
        assert!(payloads.len() >= 15 && payloads.iter().all(|payload| payload.len() < 2 << 20));
        let count: usize = payloads.iter().map(|payload| decode(payload).unwrap().len()).sum();
        assert_eq!(count, taken);
        column.clear(0);
        let longer = format!("{help}h");
        assert!(!column.push(&LoggedMetadata { help: &longer, ..entry }) && column.is_empty());
        assert!(column.push(&entry));
    }

    proptest! {
        #[test]
        fn round_trip(rows in proptest::collection::vec((".{0,9}", ".{0,9}", any::<u8>(), ".{0,9}", ".{0,9}"), 1..20)) {
            let mut column = MetadataColumn::default();
            let entries: Vec<_> = rows.iter()
                .map(|(tenant, metric, kind, unit, help)| LoggedMetadata { tenant, metric, kind: *kind, unit, help })
                .collect();
            entries.iter().for_each(|entry| assert!(column.push(entry)));
            let payload = payloads(&column).remove(0);
            prop_assert_eq!(decode(&payload).unwrap(), entries);
            for len in 0..payload.len() {
                prop_assert!(decode(&payload[..len]).is_err());
            }
        }

        #[test]
        fn arbitrary_payloads_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).map_or(0, |entries| entries.capacity()) <= bytes.len());
        }
    }
}
