//! The timestamp columns of a part that is being written: each content once.
//!
//! Columns are kept encoded, and the ones used last decoded too. A column is found again by a hash of its content, and as
//! a stretch of a longer one by anchors: the first timestamp of each column and those whose hash says so.

use std::ops::Range;

use chronolith_chunk::dense::{decode_timestamps, encode_timestamps};
use hashbrown::HashMap;

use crate::error::Result;
use crate::slot_table::ColumnRange;

/// The most encoded bytes of columns that are remembered; above it they are written out and new ones start afresh.
pub(crate) const COLUMNS_BYTES_MAX: usize = 32 << 20;

/// The most columns that are remembered.
pub(crate) const COLUMNS_MAX: usize = 1 << 18;

/// The most timestamps of columns kept decoded (8 bytes each).
pub(super) const DECODED_SAMPLES_MAX: usize = 2 << 20;

/// The most anchors that are remembered.
const ANCHORS_MAX: usize = 1 << 18;

/// The most columns that share an anchor.
const ANCHOR_COLUMNS_MAX: usize = 4;

/// One timestamp in so many is an anchor (a power of two).
const ANCHOR_SPACING: u64 = 16;

/// A page ends with the column that brings it to so many encoded bytes,
pub(crate) const PAGE_BYTES: usize = 16 << 10;

/// or to so many timestamps.
pub(crate) const PAGE_SAMPLES: usize = 64 << 10;

#[derive(Debug)]
struct Column {
    bytes: Range<usize>,
    samples: u32,
}

/// Columns that are still in memory, and how to find them.
#[derive(Debug, Default)]
pub(crate) struct ColumnSet {
    /// Number of the first column in memory.
    base: u32,
    columns: Vec<Column>,
    encoded: Vec<u8>,
    /// Columns at the front of `columns` that are in the file already.
    written: usize,
    by_content: HashMap<u64, u32>,
    by_anchor: HashMap<i64, Vec<u32>>,
    decoded: Decoded,
}

/// Decoded columns, dropped all at once when there are too many.
#[derive(Debug, Default)]
struct Decoded {
    samples: usize,
    columns: HashMap<u32, Vec<i64>>,
}

impl ColumnSet {
    /// The stretch of a column that holds exactly `timestamps`, which ascend and are not empty; adds one if need be.
    pub(crate) fn place(&mut self, timestamps: &[i64]) -> Result<ColumnRange> {
        let hash = hash(timestamps);
        let len = timestamps.len() as u32;
        if let Some(&index) = self.by_content.get(&hash)
            && self.decoded(index)? == timestamps
        {
            return Ok(ColumnRange { column: self.base + index, start: 0, len });
        }
        if let Some((index, start)) = self.find_stretch(timestamps)? {
            return Ok(ColumnRange { column: self.base + index, start, len });
        }
        let index = self.add(timestamps, hash)?;
        Ok(ColumnRange { column: self.base + index, start: 0, len })
    }

    /// Columns that are in the file already, as the pages of a part that is copied hold them.
    pub(crate) fn preload(&mut self, columns: &[Vec<i64>]) -> Result<()> {
        for timestamps in columns {
            debug_assert_eq!(self.written, self.columns.len(), "copied columns come first");
            self.add(timestamps, hash(timestamps))?;
            self.written = self.columns.len();
        }
        Ok(())
    }

    /// Columns that are in the file already, and that nobody looks for.
    pub(crate) fn skip(&mut self, columns: u32) {
        debug_assert!(self.columns.is_empty(), "only before the first column");
        self.base += columns;
    }

    /// Whether what is remembered is to be written out with [`ColumnSet::flush`] now.
    pub(crate) fn is_full(&self) -> bool {
        self.encoded.len() >= COLUMNS_BYTES_MAX || self.columns.len() >= COLUMNS_MAX
    }

    /// Hands all columns that are not in the file to `page`, as the content of pages with their number of columns, and
    /// forgets everything.
    pub(crate) fn flush(&mut self, mut page: impl FnMut(&[u8], u32) -> Result<()>) -> Result<()> {
        let mut content = Vec::new();
        let (mut columns, mut samples) = (0, 0);
        for column in self.columns.iter().skip(self.written) {
            let bytes = self.encoded.get(column.bytes.clone()).unwrap_or_default();
            chronolith_codec::write::prefixed(&mut content, bytes);
            columns += 1;
            samples += column.samples as usize;
            if content.len() >= PAGE_BYTES || samples >= PAGE_SAMPLES {
                page(&content, columns)?;
                content.clear();
                (columns, samples) = (0, 0);
            }
        }
        if columns > 0 {
            page(&content, columns)?;
        }
        let base = self.base + self.columns.len() as u32;
        *self = Self { base, ..Self::default() };
        Ok(())
    }

    fn add(&mut self, timestamps: &[i64], hash: u64) -> Result<u32> {
        let index = self.columns.len() as u32;
        let start = self.encoded.len();
        encode_timestamps(timestamps, &mut self.encoded)?;
        self.columns.push(Column { bytes: start..self.encoded.len(), samples: timestamps.len() as u32 });
        self.by_content.insert(hash, index);
        let anchors = timestamps.iter().enumerate().filter(|(i, t)| *i == 0 || is_anchor(**t));
        for (_, timestamp) in anchors {
            if self.by_anchor.len() >= ANCHORS_MAX {
                break;
            }
            let columns = self.by_anchor.entry(*timestamp).or_default();
            if columns.len() < ANCHOR_COLUMNS_MAX {
                columns.push(index);
            }
        }
        self.decoded.insert(index, timestamps.to_vec());
        Ok(index)
    }

    /// A column of which `timestamps` are a stretch, and where the stretch starts.
    fn find_stretch(&mut self, timestamps: &[i64]) -> Result<Option<(u32, u32)>> {
        let anchors = timestamps.iter().enumerate().filter(|(i, t)| *i == 0 || is_anchor(**t));
        for (at, timestamp) in anchors.take(2) {
            let candidates: Vec<u32> = self.by_anchor.get(timestamp).cloned().unwrap_or_default();
            for index in candidates {
                let column = self.decoded(index)?;
                let start = column.binary_search(timestamp).ok().and_then(|i| i.checked_sub(at));
                if let Some(start) = start
                    && column.get(start..start + timestamps.len()) == Some(timestamps)
                {
                    return Ok(Some((index, start as u32)));
                }
            }
        }
        Ok(None)
    }

    fn decoded(&mut self, index: u32) -> Result<&[i64]> {
        if !self.decoded.columns.contains_key(&index) {
            let column = self.columns.get(index as usize);
            let bytes = column.and_then(|column| self.encoded.get(column.bytes.clone())).unwrap_or_default();
            let mut timestamps = Vec::new();
            decode_timestamps(bytes, &mut timestamps)?;
            self.decoded.insert(index, timestamps);
        }
        Ok(self.decoded.columns.get(&index).map_or(&[], Vec::as_slice))
    }
}

impl Decoded {
    fn insert(&mut self, index: u32, timestamps: Vec<i64>) {
        if self.samples + timestamps.len() > DECODED_SAMPLES_MAX {
            self.columns.clear();
            self.samples = 0;
        }
        self.samples += timestamps.len();
        self.columns.insert(index, timestamps);
    }
}

fn hash(timestamps: &[i64]) -> u64 {
    let mut hash = timestamps.len() as u64;
    for &timestamp in timestamps {
        hash = (hash.rotate_left(23) ^ timestamp as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    hash ^ (hash >> 29)
}

const fn is_anchor(timestamp: i64) -> bool {
    ((timestamp as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) & (ANCHOR_SPACING - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(start: i64, n: i64) -> Vec<i64> {
        (0..n).map(|i| start + i * 15_000 + i * i % 7).collect()
    }

    #[test]
    fn equal_columns_are_one_and_stretches_are_found() {
        let mut set = ColumnSet::default();
        let (a, b) = (grid(1000, 480), grid(1003, 480));
        let whole = |column| ColumnRange { column, start: 0, len: 480 };
        assert_eq!(set.place(&a).unwrap(), whole(0));
        assert_eq!(set.place(&b).unwrap(), whole(1));
        assert_eq!(set.place(&a).unwrap(), whole(0));
        assert_eq!(set.place(&b).unwrap(), whole(1));
        let stretch = ColumnRange { column: 1, start: 100, len: 200 };
        assert_eq!(set.place(&b[100..300]).unwrap(), stretch);
        assert_eq!(set.place(&a[..50]).unwrap(), ColumnRange { column: 0, start: 0, len: 50 });
        let mut gap = a.clone();
        gap.remove(200);
        assert_eq!(set.place(&gap).unwrap(), ColumnRange { column: 2, start: 0, len: 479 });
    }

    #[test]
    fn forgotten_columns_keep_their_numbers() {
        let mut set = ColumnSet::default();
        set.preload(&[grid(0, 20), grid(5, 20)]).unwrap();
        assert_eq!(set.place(&grid(5, 20)).unwrap().column, 1);
        assert_eq!(set.place(&grid(9, 20)).unwrap().column, 2);
        let mut pages = Vec::new();
        set.flush(|content, columns| {
            pages.push((content.len(), columns));
            Ok(())
        })
        .unwrap();
        assert_eq!(pages.len(), 1, "what was copied is not written again");
        assert_eq!(pages[0].1, 1);
        assert_eq!(set.place(&grid(9, 20)).unwrap().column, 3);
    }

    #[test]
    fn pages_are_bounded() {
        let mut set = ColumnSet::default();
        for i in 0..300 {
            set.place(&grid(i, 500)).unwrap();
        }
        let mut pages = Vec::new();
        set.flush(|content, columns| {
            pages.push((content.len(), columns as usize));
            Ok(())
        })
        .unwrap();
        assert_eq!(pages.iter().map(|page| page.1).sum::<usize>(), 300);
        assert!(pages.iter().all(|page| page.1 <= PAGE_SAMPLES / 500 + 1), "{pages:?}");
    }
}
