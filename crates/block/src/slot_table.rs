//! Which series, and which timestamps, stand in the slots of a frame.
//!
//! A page ([`crate::layout::page`]) of: `uvarint slots`, then four columns:
//! ids as pairs `uvarint gap, uvarint further` (a gap of ids that are not there, then `1 + further` neighbours), the
//! timestamp columns as one uvarint each, then the starts and the lengths of the sub-ranges as pairs
//! `uvarint value, uvarint further`.

use chronolith_chunk::dense::{COLUMN_SAMPLES_MAX, FRAME_SLOTS_MAX};
use chronolith_codec::{Reader, write};

use crate::error::ContentError;
use crate::layout::footer::impossible;
use crate::meta::SERIES_MAX;

/// Timestamps of a slot: a stretch of a column of the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ColumnRange {
    pub(crate) column: u32,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// The slots of a frame, ascending by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotTable {
    pub(crate) ids: Vec<u32>,
    pub(crate) columns: Vec<ColumnRange>,
}

impl SlotTable {
    pub(crate) fn push(&mut self, id: u32, column: ColumnRange) {
        debug_assert!(self.ids.last().is_none_or(|last| *last < id), "ids ascend");
        self.ids.push(id);
        self.columns.push(column);
    }

    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.columns.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The slot of a series.
    pub(crate) fn find(&self, id: u32) -> Option<usize> {
        self.ids.binary_search(&id).ok()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, ColumnRange)> + '_ {
        self.ids.iter().copied().zip(self.columns.iter().copied())
    }

    pub(crate) fn samples(&self) -> u64 {
        self.columns.iter().map(|column| u64::from(column.len)).sum()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.ids.capacity() * size_of::<u32>() + self.columns.capacity() * size_of::<ColumnRange>()
    }

    /// Appends the content of the table's page to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write::uvarint(out, self.len() as u64);
        let mut next = 0;
        for run in self.ids.chunk_by(|a, b| *b == a + 1) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            write::uvarint(out, (first - next).into());
            write::uvarint(out, (last - first).into());
            next = last + 1;
        }
        for column in &self.columns {
            write::uvarint(out, column.column.into());
        }
        encode_runs(self.columns.iter().map(|column| column.start), out);
        encode_runs(self.columns.iter().map(|column| column.len), out);
    }

    /// Reads the content of a table's page.
    pub(crate) fn decode(content: &[u8]) -> Result<Self, ContentError> {
        let mut reader = Reader::new(content);
        let slots = reader.count(FRAME_SLOTS_MAX, "number of slots")?;
        let mut ids = Vec::with_capacity(slots);
        let mut next = 0_u64;
        while ids.len() < slots {
            let first = next + reader.count(SERIES_MAX as usize, "gap of ids")? as u64;
            let further = reader.count(slots - ids.len() - 1, "neighbours")? as u64;
            next = first + further + 1;
            if next > u64::from(SERIES_MAX) {
                return Err(impossible("series id", SERIES_MAX.into(), next));
            }
            ids.extend((first..next).map(|id| id as u32));
        }
        let numbers = (0..slots).map(|_| reader.count(u32::MAX as usize, "timestamp column"));
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        let starts = decode_runs(&mut reader, slots, "start of a slot")?;
        let lens = decode_runs(&mut reader, slots, "length of a slot")?;
        reader.finish()?;
        let mut columns = Vec::with_capacity(slots);
        for ((column, start), len) in numbers.into_iter().zip(starts).zip(lens) {
            if len == 0 || (start + len) as usize > COLUMN_SAMPLES_MAX {
                return Err(impossible("end of a slot", COLUMN_SAMPLES_MAX as u64, (start + len).into()));
            }
            columns.push(ColumnRange { column: column as u32, start, len });
        }
        Ok(Self { ids, columns })
    }
}

fn encode_runs(values: impl Iterator<Item = u32>, out: &mut Vec<u8>) {
    let mut run: Option<(u32, u64)> = None;
    for value in values {
        run = match run {
            Some((same, further)) if same == value => Some((same, further + 1)),
            other => {
                write_run(other, out);
                Some((value, 0))
            }
        };
    }
    write_run(run, out);
}

fn write_run(run: Option<(u32, u64)>, out: &mut Vec<u8>) {
    if let Some((value, further)) = run {
        write::uvarint(out, value.into());
        write::uvarint(out, further);
    }
}

fn decode_runs(reader: &mut Reader<'_>, slots: usize, what: &'static str) -> Result<Vec<u32>, ContentError> {
    let mut values = Vec::with_capacity(slots);
    while values.len() < slots {
        let value = reader.count(COLUMN_SAMPLES_MAX, what)? as u32;
        let further = reader.count(slots - values.len() - 1, "further slots")?;
        values.resize(values.len() + 1 + further, value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(slots: &[(u32, u32, u32, u32)]) -> SlotTable {
        let mut table = SlotTable::default();
        let mut next = 0;
        for &(gap, column, start, len) in slots {
            table.push(next + gap, ColumnRange { column, start, len });
            next += gap + 1;
        }
        table
    }

    #[test]
    fn known_bytes() {
        let mut bytes = Vec::new();
        table(&[(5, 0, 0, 480), (0, 1, 0, 480), (3, 0, 2, 7)]).encode(&mut bytes);
        let ids = [5, 1, 3, 0];
        let columns = [0, 1, 0];
        let starts = [0, 1, 2, 0];
        let lens = [0xe0, 3, 1, 7, 0];
        assert_eq!(bytes, [&[3][..], &ids, &columns, &starts, &lens].concat());
    }

    #[test]
    fn empty_and_overlong_slots_are_refused() {
        for (start, len) in [(0, 0), (65536, 1), (1, 65536)] {
            let mut bytes = Vec::new();
            table(&[(0, 0, start, len)]).encode(&mut bytes);
            assert!(SlotTable::decode(&bytes).is_err(), "{start} {len}");
        }
    }

    proptest! {
        #[test]
        fn tables_round_trip(
            slots in proptest::collection::vec((0_u32..3, 0_u32..9, 0_u32..3, 1_u32..4), 0..60),
        ) {
            let table = table(&slots);
            let mut bytes = Vec::new();
            table.encode(&mut bytes);
            prop_assert_eq!(&SlotTable::decode(&bytes).unwrap(), &table);
            for (slot, (id, _)) in table.iter().enumerate() {
                prop_assert_eq!(table.find(id), Some(slot));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(table) = SlotTable::decode(&bytes) {
                prop_assert!(table.ids.is_sorted_by(|a, b| a < b));
            }
        }
    }
}
