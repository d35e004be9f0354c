//! Entries with a ref, a time and something of their own: the payloads of records of types 5 (histograms), 6 (starts) and
//! 7 (exemplars).
//!
//! Layout and a worked example: docs/format/wal.md.
//!
//! ```text
//! uvarint count | per entry: varint ref | varint time | the rest of the entry
//! ```
//!
//! Ref and time are differences to the entry before; before the first one, both are zero. The rest of a start is a varint,
//! that of the others a uvarint length and so many bytes, which mean nothing here.

use chronolith_codec::{Error, Reader, Result, write};

/// A record has at most this many entries.
pub const RECORD_ENTRIES_MAX: usize = 64 * 1024;

/// A histogram or exemplar is logged in at most this many bytes.
pub const BLOB_BYTES_MAX: usize = 1024 * 1024;

/// A record is closed when it has this many bytes of entries.
const RECORD_BYTES_FULL: usize = 1024 * 1024;

/// The shortest entry: three varints.
const ENTRY_BYTES_MIN: usize = 3;

// What one record comes to: full but for one byte, and then the longest entry.
const _: () = assert!(RECORD_BYTES_FULL + 3 * 10 + BLOB_BYTES_MAX + 10 < crate::PAYLOAD_BYTES_MAX);

/// A histogram or an exemplar as it was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedBlob<'a> {
    /// The series.
    pub series: u32,
    /// Milliseconds.
    pub timestamp: i64,
    /// What it is, in the words of whoever logged it; at most [`BLOB_BYTES_MAX`].
    pub bytes: &'a [u8],
}

/// A start timestamp as it was logged: samples of the series from `since` on, up to the next one, began to be counted at
/// `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedStart {
    /// The series.
    pub series: u32,
    /// The first sample that it holds for, milliseconds.
    pub since: i64,
    /// Milliseconds.
    pub start: i64,
}

/// Pending entries of one type: the payloads of one or more records, one behind the other, without their counts.
#[derive(Debug, Default)]
pub(crate) struct EntryColumn {
    bytes: Vec<u8>,
    ends: Vec<EntriesEnd>,
    open: Open,
}

/// The open record.
#[derive(Clone, Copy, Debug)]
struct Open {
    count: usize,
    start: usize,
    series: u32,
    t: i64,
    min_t: i64,
    max_t: i64,
}

impl Open {
    const fn at(start: usize) -> Self {
        Self { count: 0, start, series: 0, t: 0, min_t: i64::MAX, max_t: i64::MIN }
    }
}

impl Default for Open {
    fn default() -> Self {
        Self::at(0)
    }
}

/// Where a record's entries end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EntriesEnd {
    pub(crate) count: usize,
    pub(crate) min_t: i64,
    pub(crate) max_t: i64,
    pub(crate) off: usize,
}

impl EntryColumn {
    pub(crate) fn blob(&mut self, series: u32, t: i64, blob: &[u8]) {
        write::prefixed(self.begin(series, t), blob);
    }

    pub(crate) fn start(&mut self, series: u32, since: i64, start: i64) {
        write::varint(self.begin(series, since), start);
    }

    /// Begins an entry; the rest of it is to be appended to what is returned.
    fn begin(&mut self, series: u32, t: i64) -> &mut Vec<u8> {
        if self.open.count == RECORD_ENTRIES_MAX || self.bytes.len() - self.open.start >= RECORD_BYTES_FULL {
            self.close();
        }
        let open = &mut self.open;
        write::varint(&mut self.bytes, i64::from(series) - i64::from(open.series));
        write::varint(&mut self.bytes, t.wrapping_sub(open.t));
        (open.series, open.t) = (series, t);
        (open.min_t, open.max_t) = (open.min_t.min(t), open.max_t.max(t));
        open.count += 1;
        &mut self.bytes
    }

    /// Ends the open record, if it has entries.
    pub(crate) fn close(&mut self) {
        let Open { count, min_t, max_t, .. } = self.open;
        if count > 0 {
            let off = self.bytes.len();
            self.ends.push(EntriesEnd { count, min_t, max_t, off });
            self.open = Open::at(off);
        }
    }

    pub(crate) fn ends(&self) -> &[EntriesEnd] {
        &self.ends
    }

    /// Appends the payload of the record that ends at `end` and begins at `from`.
    pub(crate) fn payload(&self, from: usize, end: &EntriesEnd, out: &mut Vec<u8>) {
        write::uvarint(out, end.count as u64);
        out.extend_from_slice(self.bytes.get(from..end.off).expect("entries only grow while ends are noted"));
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Empties it; a buffer beyond `keep` bytes is given back.
    pub(crate) fn clear(&mut self, keep: usize) {
        if self.bytes.capacity() > keep {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.ends.clear();
        self.open = Open::default();
    }
}

/// Reads the payload of a record of histograms or exemplars.
///
/// # Errors
/// When it is not what a writer makes.
pub(crate) fn decode_blobs(payload: &[u8]) -> Result<Vec<LoggedBlob<'_>>> {
    decode(payload, |series, timestamp, reader| {
        Ok(LoggedBlob { series, timestamp, bytes: reader.prefixed(BLOB_BYTES_MAX, "bytes of an entry")? })
    })
}

/// Reads the payload of a record of starts.
///
/// # Errors
/// When it is not what a writer makes.
pub(crate) fn decode_starts(payload: &[u8]) -> Result<Vec<LoggedStart>> {
    decode(payload, |series, since, reader| {
        Ok(LoggedStart { series, since, start: reader.varint("start timestamp")? })
    })
}

fn decode<'a, T>(payload: &'a [u8], rest: impl Fn(u32, i64, &mut Reader<'a>) -> Result<T>) -> Result<Vec<T>> {
    let mut reader = Reader::new(payload);
    let count = reader.count(RECORD_ENTRIES_MAX.min(payload.len() / ENTRY_BYTES_MIN), "entry count")?;
    let mut out = Vec::with_capacity(count);
    let (mut series, mut t) = (0_u32, 0_i64);
    for _ in 0..count {
        let off = reader.offset();
        let step = reader.varint("series ref")?;
        series = i64::from(series).checked_add(step).and_then(|next| u32::try_from(next).ok()).ok_or(
            Error::TooLarge { off, expected: "series ref", got: step.unsigned_abs(), max: u32::MAX.into() },
        )?;
        t = t.wrapping_add(reader.varint("timestamp delta")?);
        out.push(rest(series, t, &mut reader)?);
    }
    reader.finish()?;
    Ok(out)
}
