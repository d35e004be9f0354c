//! A part that is being written: columns in, frames out.

use chronolith_chunk::dense::{FRAME_SLOTS_MAX, FrameBuilder, Statistics, encode_statistics};
use chronolith_chunk::histogram::HistogramFrameBuilder;
use chronolith_model::{Histogram, TimeRange, Timestamp};

use super::columns::ColumnSet;
use super::output::Output;
use crate::error::{Error, Result};

use crate::layout::directory::{FrameEntry, FrameKind, PartEntry, TimestampPage, UnitRef};
use crate::layout::page::PageWriter;
use crate::slot_table::{ColumnRange, SlotTable};

/// Encoded bytes, before zstd, at which a frame ends in any case.
const FRAME_BYTES: usize = 64 << 10;

/// Encoded bytes from which on a frame ends after a series chosen by its labels, so that two blocks with the same series
/// have the same frames.
const FRAME_BYTES_SOFT: usize = FRAME_BYTES / 4 * 3;

/// One series in so many is such a series (a power of two).
const BOUNDARY_SPACING: u64 = 32;

/// The most bytes of slot tables and statistics that wait to be written behind the frames.
pub(super) const TABLES_BYTES_MAX: usize = 32 << 20;

/// What the writer remembers of a series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeriesKey {
    /// Of all labels: says where frames end.
    pub(crate) hash: u64,
    /// Of all labels but `le`: the neighbours that are alike.
    pub(crate) family: u64,
}

/// A frame that is copied as it stands.
#[derive(Debug)]
pub(crate) struct CopiedFrame<'a> {
    pub(crate) frame: &'a [u8],
    pub(crate) statistics: Option<&'a [u8]>,
    /// With the ids of the new block.
    pub(crate) table: &'a SlotTable,
}

/// Slot table and statistics of a frame that is in the file already.
#[derive(Debug)]
struct Pending {
    kind: FrameKind,
    index: usize,
    table: Vec<u8>,
    statistics: Option<Vec<u8>>,
}

/// The frame that is open, of one kind.
#[derive(Debug)]
struct OpenFrame<B> {
    builder: B,
    table: SlotTable,
    samples: u64,
    last: Option<u32>,
}

/// Writes the frames of a part as they fill, and its tables at the end.
#[derive(Debug)]
pub(crate) struct PartWriter {
    entry: PartEntry,
    range: Option<TimeRange>,
    columns: ColumnSet,
    floats: OpenFrame<FrameBuilder>,
    statistics: Vec<Statistics>,
    histograms: OpenFrame<HistogramFrameBuilder>,
    pending: Vec<Pending>,
    pending_bytes: usize,
    pages: PageWriter,
    scratch: Vec<u8>,
}

impl<B> OpenFrame<B> {
    fn new(builder: B) -> Self {
        Self { builder, table: SlotTable::default(), samples: 0, last: None }
    }

    fn check(&self, id: u32) -> Result<()> {
        match self.last {
            Some(last) if id <= last => Err(Error::Input {
                what: "series id in a part",
                expected: u64::from(last) + 1,
                got: id.into(),
            }),
            _ => Ok(()),
        }
    }

    fn add(&mut self, id: u32, column: ColumnRange) {
        self.table.push(id, column);
        self.samples += u64::from(column.len);
        self.last = Some(id);
    }
}

impl PartWriter {
    pub(crate) fn new(priority: u64) -> Self {
        Self {
            entry: PartEntry {
                priority,
                range: TimeRange::new(0, 0),
                slot_samples_max: 0,
                pages: Vec::new(),
                floats: Vec::new(),
                histograms: Vec::new(),
            },
            range: None,
            columns: ColumnSet::default(),
            floats: OpenFrame::new(FrameBuilder::new()),
            statistics: Vec::new(),
            histograms: OpenFrame::new(HistogramFrameBuilder::new()),
            pending: Vec::new(),
            pending_bytes: 0,
            pages: PageWriter::new(),
            scratch: Vec::new(),
        }
    }

    /// Adds float samples, whose timestamps ascend and are not empty.
    pub(crate) fn push_floats(
        &mut self,
        out: &mut Output,
        id: u32,
        key: SeriesKey,
        timestamps: &[Timestamp],
        values: &[f64],
    ) -> Result<()> {
        self.floats.check(id)?;
        let column = self.place(out, timestamps)?;
        let timeline = timeline(column);
        if self.floats.builder.push(values, timeline, key.family).is_err() {
            // The frame is full. If it is not that, the second try says what.
            self.finish_floats(out)?;
            self.floats.builder.push(values, timeline, key.family)?;
        }
        self.floats.add(id, column);
        self.statistics.push(Statistics::of(values));
        if ends_frame(self.floats.builder.encoded_len(), self.floats.builder.slots(), key) {
            self.finish_floats(out)?;
        }
        Ok(())
    }

    /// Adds histograms, whose timestamps ascend and are not empty.
    pub(crate) fn push_histograms(
        &mut self,
        out: &mut Output,
        id: u32,
        key: SeriesKey,
        timestamps: &[Timestamp],
        histograms: &[Histogram],
    ) -> Result<()> {
        self.histograms.check(id)?;
        let column = self.place(out, timestamps)?;
        let timeline = timeline(column);
        if self.histograms.builder.push(histograms, timeline, key.family).is_err() {
            self.finish_histograms(out)?;
            self.histograms.builder.push(histograms, timeline, key.family)?;
        }
        self.histograms.add(id, column);
        if ends_frame(self.histograms.builder.encoded_len(), self.histograms.builder.slots(), key) {
            self.finish_histograms(out)?;
        }
        Ok(())
    }

    /// Takes over a timestamp page of a part whose frames will be copied: its columns keep their numbers if all pages
    /// are taken over, in order, before anything else. Columns in `remembered` are found again for other series; give
    /// them for all pages or for none.
    pub(crate) fn copy_page(
        &mut self,
        out: &mut Output,
        page: &[u8],
        columns: u32,
        remembered: Option<&[Vec<i64>]>,
    ) -> Result<()> {
        let unit = out.append_unit(page)?;
        self.add_page(unit, columns);
        match remembered {
            Some(columns) => self.columns.preload(columns)?,
            None => self.columns.skip(columns),
        }
        Ok(())
    }

    /// Takes over a frame byte for byte.
    pub(crate) fn copy_frame(
        &mut self,
        out: &mut Output,
        kind: FrameKind,
        copied: &CopiedFrame<'_>,
        range: TimeRange,
    ) -> Result<()> {
        let (Some(&first), Some(&last)) = (copied.table.ids.first(), copied.table.ids.last()) else {
            return Ok(());
        };
        match kind {
            FrameKind::Float => self.finish_floats(out)?,
            FrameKind::Histogram => self.finish_histograms(out)?,
        }
        let open_last = match kind {
            FrameKind::Float => {
                self.floats.check(first)?;
                &mut self.floats.last
            }
            FrameKind::Histogram => {
                self.histograms.check(first)?;
                &mut self.histograms.last
            }
        };
        *open_last = Some(last);
        self.extend_range(range);
        let longest = copied.table.columns.iter().map(|column| column.len).max();
        self.entry.slot_samples_max = self.entry.slot_samples_max.max(longest.unwrap_or(0));
        self.scratch.clear();
        self.scratch.extend_from_slice(copied.frame);
        let samples = copied.table.samples();
        self.add_frame(out, kind, copied.table, samples, copied.statistics.map(<[u8]>::to_vec))
    }

    /// Writes what is left. None if no sample was added.
    pub(crate) fn end(mut self, out: &mut Output) -> Result<Option<PartEntry>> {
        self.finish_floats(out)?;
        self.finish_histograms(out)?;
        self.flush_columns(out)?;
        self.flush_pending(out)?;
        Ok(self.range.map(|range| PartEntry { range, ..self.entry }))
    }

    fn place(&mut self, out: &mut Output, timestamps: &[Timestamp]) -> Result<ColumnRange> {
        let column = self.columns.place(timestamps)?;
        if self.columns.is_full() {
            self.flush_columns(out)?;
        }
        if let (Some(&min), Some(&max)) = (timestamps.first(), timestamps.last()) {
            self.extend_range(TimeRange::new(min, max));
        }
        self.entry.slot_samples_max = self.entry.slot_samples_max.max(column.len);
        Ok(column)
    }

    fn extend_range(&mut self, more: TimeRange) {
        let range = self.range.get_or_insert(more);
        *range = TimeRange::new(range.min.min(more.min), range.max.max(more.max));
    }

    fn finish_floats(&mut self, out: &mut Output) -> Result<()> {
        if self.floats.table.len() == 0 {
            return Ok(());
        }
        let mut content = Vec::new();
        encode_statistics(&self.statistics, &mut content)?;
        self.statistics.clear();
        let mut statistics = Vec::new();
        self.pages.write(&content, &mut statistics);
        self.scratch.clear();
        self.floats.builder.finish(&mut self.scratch);
        let table = std::mem::take(&mut self.floats.table);
        let samples = std::mem::take(&mut self.floats.samples);
        self.add_frame(out, FrameKind::Float, &table, samples, Some(statistics))?;
        self.floats.table = table;
        self.floats.table.clear();
        Ok(())
    }

    fn finish_histograms(&mut self, out: &mut Output) -> Result<()> {
        if self.histograms.table.len() == 0 {
            return Ok(());
        }
        self.scratch.clear();
        self.histograms.builder.finish(&mut self.scratch);
        let table = std::mem::take(&mut self.histograms.table);
        let samples = std::mem::take(&mut self.histograms.samples);
        self.add_frame(out, FrameKind::Histogram, &table, samples, None)?;
        self.histograms.table = table;
        self.histograms.table.clear();
        Ok(())
    }

    /// Writes the frame in `scratch`.
    fn add_frame(
        &mut self,
        out: &mut Output,
        kind: FrameKind,
        slots: &SlotTable,
        samples: u64,
        statistics: Option<Vec<u8>>,
    ) -> Result<()> {
        let unit = out.append_unit(&self.scratch)?;
        let (Some(&first), Some(&last)) = (slots.ids.first(), slots.ids.last()) else { return Ok(()) };
        let nowhere = UnitRef { off: 0, len: 0, crc: 0 };
        let entry = FrameEntry {
            unit,
            first,
            last,
            slots: slots.len() as u32,
            samples,
            table: nowhere,
            statistics: statistics.is_some().then_some(nowhere),
        };
        let frames = match kind {
            FrameKind::Float => &mut self.entry.floats,
            FrameKind::Histogram => &mut self.entry.histograms,
        };
        frames.push(entry);
        let index = frames.len() - 1;
        let mut content = Vec::new();
        slots.encode(&mut content);
        let mut table = Vec::new();
        self.pages.write(&content, &mut table);
        self.pending_bytes += table.len() + statistics.as_ref().map_or(0, Vec::len);
        self.pending.push(Pending { kind, index, table, statistics });
        if self.pending_bytes > TABLES_BYTES_MAX {
            self.flush_pending(out)?;
        }
        Ok(())
    }

    fn flush_columns(&mut self, out: &mut Output) -> Result<()> {
        let mut columns = std::mem::take(&mut self.columns);
        columns.flush(|content, columns| {
            let unit = out.append_unit(content)?;
            self.add_page(unit, columns);
            Ok(())
        })?;
        self.columns = columns;
        Ok(())
    }

    fn add_page(&mut self, unit: UnitRef, columns: u32) {
        let first = self.entry.columns();
        self.entry.pages.push(TimestampPage { unit, first, columns });
    }

    /// Writes the tables that wait, then the statistics that wait.
    fn flush_pending(&mut self, out: &mut Output) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        for Pending { kind, index, table, .. } in &pending {
            let unit = out.append_unit(table)?;
            if let Some(entry) = self.frame_mut(*kind, *index) {
                entry.table = unit;
            }
        }
        for Pending { kind, index, statistics, .. } in &pending {
            if let Some(page) = statistics {
                let unit = out.append_unit(page)?;
                if let Some(entry) = self.frame_mut(*kind, *index) {
                    entry.statistics = Some(unit);
                }
            }
        }
        Ok(())
    }

    fn frame_mut(&mut self, kind: FrameKind, index: usize) -> Option<&mut FrameEntry> {
        match kind {
            FrameKind::Float => self.entry.floats.get_mut(index),
            FrameKind::Histogram => self.entry.histograms.get_mut(index),
        }
    }
}

/// Whether the frame ends after the series of `key`.
const fn ends_frame(encoded: usize, slots: usize, key: SeriesKey) -> bool {
    encoded >= FRAME_BYTES
        || slots >= FRAME_SLOTS_MAX
        || (encoded >= FRAME_BYTES_SOFT && key.hash & (BOUNDARY_SPACING - 1) == 0)
}

/// Equal for equal timestamps within a frame, as far as columns are not stored twice.
const fn timeline(column: ColumnRange) -> u64 {
    ((column.column as u64) << 34) ^ ((column.start as u64) << 17) ^ column.len as u64
}
