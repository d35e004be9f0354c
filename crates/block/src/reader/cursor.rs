//! Finds the slots of series in one part; quickest when asked for ascending ids.

use std::ops::Range;
use std::sync::Arc;

use chronolith_chunk::dense::Frame;
use chronolith_chunk::histogram::HistogramFrame;
use chronolith_model::Histogram;

use super::source::{ReadCounts, Source};
use crate::error::{Error, Result, Section};

use crate::layout::directory::{FrameEntry, FrameKind, PartEntry};
use crate::slot_table::{ColumnRange, SlotTable};

/// The columns of one page of timestamps.
type Columns = Arc<Vec<Vec<i64>>>;

/// A place in a part that holds samples of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) kind: FrameKind,
    /// Number of the frame among those of its kind.
    pub(crate) frame: usize,
    pub(crate) slot: usize,
    pub(crate) column: ColumnRange,
}

/// Keeps what was opened last in one part, so that neighbours are found without looking.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    source: &'a Source,
    part: &'a PartEntry,
    tables: [Option<OpenTable>; 2],
    floats: Option<(usize, Arc<Frame>)>,
    histograms: Option<(usize, Arc<HistogramFrame>)>,
    page: Option<(usize, Columns)>,
    pub(super) counts: ReadCounts,
}

#[derive(Debug)]
struct OpenTable {
    frame: usize,
    table: Arc<SlotTable>,
    /// Where the next id is likely to be.
    next: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(source: &'a Source, part: &'a PartEntry) -> Self {
        let (tables, counts) = ([None, None], ReadCounts::default());
        Self { source, part, tables, floats: None, histograms: None, page: None, counts }
    }

    pub(crate) fn part(&self) -> &'a PartEntry {
        self.part
    }

    /// The slot of a kind that series `id` has.
    pub(crate) fn find(&mut self, kind: FrameKind, id: u32) -> Result<Option<Slot>> {
        let frames = self.part.frames(kind);
        let [floats, histograms] = &mut self.tables;
        let open = match kind {
            FrameKind::Float => floats,
            FrameKind::Histogram => histograms,
        };
        let holds = |frame: &FrameEntry| frame.first <= id && id <= frame.last;
        if !open.as_ref().is_some_and(|open| frames.get(open.frame).is_some_and(holds)) {
            let index = frames.partition_point(|frame| frame.last < id);
            let Some(frame) = frames.get(index).filter(|frame| holds(frame)) else { return Ok(None) };
            let table = self.source.slot_table(self.part, frame, Some(&mut self.counts))?;
            *open = Some(OpenTable { frame: index, table, next: 0 });
        }
        let Some(open) = open else { return Ok(None) };
        let slot = match open.table.ids.get(open.next) {
            Some(next) if *next == id => Some(open.next),
            _ => open.table.find(id),
        };
        let Some(slot) = slot else { return Ok(None) };
        open.next = slot + 1;
        let column = open.table.columns.get(slot).copied();
        Ok(column.map(|column| Slot { kind, frame: open.frame, slot, column }))
    }

    /// The timestamps of a slot.
    pub(crate) fn timestamps(&mut self, column: ColumnRange) -> Result<&[i64]> {
        let pages = &self.part.pages;
        let page = pages.partition_point(|page| page.first + page.columns <= column.column);
        let off = pages.get(page).map_or(0, |page| page.unit.off);
        if self.page.as_ref().is_none_or(|(open, _)| *open != page)
            && let Some(entry) = pages.get(page)
        {
            self.page = Some((page, self.source.columns(entry, Some(&mut self.counts))?));
        }
        let first = pages.get(page).map_or(0, |page| page.first);
        let columns = self.page.as_ref().map(|(_, columns)| columns.as_slice()).unwrap_or_default();
        let timestamps = columns.get((column.column - first) as usize).map(Vec::as_slice).unwrap_or_default();
        let (start, len) = (column.start as usize, column.len as usize);
        match timestamps.get(start..start + len) {
            Some(stretch) => Ok(stretch),
            None => {
                let pair = ((start + len) as u64, timestamps.len() as u64);
                self.source.equal(Section::Timestamps, off, "timestamps of a column", pair)?;
                Ok(&[])
            }
        }
    }

    /// Appends the values of a slot of floats.
    pub(crate) fn floats(&mut self, slot: Slot, into: &mut Vec<f64>) -> Result<()> {
        let Some(frame) = self.frame(slot.frame)? else { return Ok(()) };
        self.check_floats(slot, frame.samples(slot.slot))?;
        frame.decode(slot.slot, into).map_err(|error| self.damaged_floats(slot, error))
    }

    /// A frame of floats, opened.
    pub(super) fn frame(&mut self, index: usize) -> Result<Option<Arc<Frame>>> {
        if let Some((_, frame)) = self.floats.as_ref().filter(|(open, _)| *open == index) {
            return Ok(Some(Arc::clone(frame)));
        }
        let Some(entry) = self.part.floats.get(index) else { return Ok(None) };
        let frame = self.source.frame(entry, Some(&mut self.counts))?;
        self.floats = Some((index, Arc::clone(&frame)));
        Ok(Some(frame))
    }

    /// Fails unless a slot has as many values as timestamps.
    pub(super) fn check_floats(&self, slot: Slot, samples: Option<usize>) -> Result<()> {
        let pair = (slot.column.len.into(), samples.unwrap_or(0) as u64);
        self.source.equal(Section::ValueFrames, self.float_frame_off(slot), "samples of a slot", pair)
    }

    /// The error for a slot that cannot be decoded.
    pub(super) fn damaged_floats(&self, slot: Slot, error: chronolith_chunk::Error) -> Error {
        self.source.damaged(Section::ValueFrames, self.float_frame_off(slot), error)
    }

    fn float_frame_off(&self, slot: Slot) -> u64 {
        self.part.floats.get(slot.frame).map_or(0, |entry| entry.unit.off)
    }

    /// Appends those histograms of a slot whose numbers are in `samples`.
    pub(crate) fn histograms(
        &mut self,
        slot: Slot,
        samples: Range<usize>,
        into: &mut Vec<Histogram>,
    ) -> Result<()> {
        let Some(entry) = self.part.histograms.get(slot.frame) else { return Ok(()) };
        let frame = match &self.histograms {
            Some((open, frame)) if *open == slot.frame => frame,
            _ => {
                let frame = self.source.histogram_frame(entry, Some(&mut self.counts))?;
                &self.histograms.insert((slot.frame, frame)).1
            }
        };
        let (section, off) = (Section::HistogramFrames, entry.unit.off);
        let pair = (slot.column.len.into(), frame.samples(slot.slot).unwrap_or(0) as u64);
        self.source.equal(section, off, "samples of a slot", pair)?;
        frame.decode(slot.slot, samples, into).map_err(|error| self.source.damaged(section, off, error))
    }
}
