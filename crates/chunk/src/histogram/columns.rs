//! Columns of floats in as many dense frames as they need.

use chronolith_codec::{Reader, write};

use super::frame::UNIT;
use super::{COLUMNS_MAX, FRAME_HEAP_BYTES_MAX};
use crate::dense::{Decoder, FRAME_BYTES_MAX, FRAME_SLOTS_MAX, Frame, FrameBuilder};
use crate::{Error, Result};

/// Collects columns.
#[derive(Debug, Default)]
pub(super) struct ColumnsBuilder {
    open: FrameBuilder,
    /// Frames that are full, each behind its length.
    full: Vec<u8>,
    frames: usize,
    columns: usize,
    frame: Vec<u8>,
}

impl ColumnsBuilder {
    pub(super) const fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn encoded_len(&self) -> usize {
        self.full.len() + self.open.encoded_len()
    }

    /// Adds a column. The caller keeps below [`COLUMNS_MAX`].
    pub(super) fn push(&mut self, values: &[f64], timeline: u64, family: u64) -> Result<()> {
        if self.open.slots() >= FRAME_SLOTS_MAX || self.open.encoded_len() > FRAME_BYTES_MAX / 4 {
            self.close();
        }
        self.open.push(values, timeline, family)?;
        self.columns += 1;
        Ok(())
    }

    fn close(&mut self) {
        if self.open.slots() == 0 {
            return;
        }
        self.frame.clear();
        self.open.finish(&mut self.frame);
        write::prefixed(&mut self.full, &self.frame);
        self.frames += 1;
    }

    /// Writes all frames, and starts over.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.close();
        write::uvarint(out, self.frames as u64);
        out.append(&mut self.full);
        (self.frames, self.columns) = (0, 0);
    }
}

/// Opened frames, seen as one row of columns.
#[derive(Debug)]
pub(super) struct Columns {
    /// With the number of the first column of each.
    frames: Vec<(usize, Frame)>,
    columns: usize,
    heap_bytes: usize,
}

impl Columns {
    /// Reads what [`ColumnsBuilder::finish`] wrote, up to the end of `reader`.
    pub(super) fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let unreadable = |source| Error::Unreadable { unit: UNIT, source };
        let count = reader.count(COLUMNS_MAX, "number of frames").map_err(unreadable)?;
        let mut columns = Self { frames: Vec::new(), columns: 0, heap_bytes: 0 };
        for _ in 0..count {
            let off = reader.offset();
            let bytes = reader.prefixed(FRAME_BYTES_MAX * 2, "frame").map_err(unreadable)?;
            let frame = Frame::open(bytes)?;
            let first = columns.columns;
            columns.columns += frame.slots();
            columns.heap_bytes += frame.heap_bytes();
            if columns.heap_bytes > FRAME_HEAP_BYTES_MAX || columns.columns > COLUMNS_MAX {
                let got = columns.heap_bytes as u64;
                return Err(Error::Invalid { unit: UNIT, off, expected: "no more columns or bytes", got });
            }
            columns.frames.push((first, frame));
        }
        reader.finish().map_err(unreadable)?;
        Ok(columns)
    }

    pub(super) const fn len(&self) -> usize {
        self.columns
    }

    pub(super) const fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }

    /// A reader from column `first` on.
    pub(super) fn reader(&self, first: usize) -> ColumnReader<'_> {
        let at = self.frames.partition_point(|(begin, _)| *begin <= first).saturating_sub(1);
        ColumnReader { columns: self, frame: at, next: first, decoder: None }
    }
}

/// Reads columns one after another.
pub(super) struct ColumnReader<'a> {
    columns: &'a Columns,
    frame: usize,
    next: usize,
    decoder: Option<Decoder<'a>>,
}

impl ColumnReader<'_> {
    /// Reads the next column into `into`, whose former content is dropped. It must have `samples` values.
    pub(super) fn read(&mut self, samples: usize, into: &mut Vec<f64>) -> Result<()> {
        into.clear();
        let missing = Error::NoSlot { slot: self.next, slots: self.columns.columns };
        let (first, frame) = loop {
            let (first, frame) = self.columns.frames.get(self.frame).ok_or(missing)?;
            if self.next < first + frame.slots() {
                break (*first, frame);
            }
            self.frame += 1;
            self.decoder = None;
        };
        let slot = self.next - first;
        let got = frame.samples(slot).unwrap_or(0);
        if got != samples {
            return Err(Error::Invalid {
                unit: UNIT,
                off: 0,
                expected: "columns of equal length",
                got: got as u64,
            });
        }
        self.decoder.get_or_insert_with(|| frame.decoder()).decode(slot, into)?;
        self.next += 1;
        Ok(())
    }

    pub(super) const fn skip(&mut self, columns: usize) {
        self.next += columns;
    }
}
