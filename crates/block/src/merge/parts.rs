//! Writes one part of the merged block.

use std::sync::Arc;

use chronolith_model::TimeRange;
use roaring::RoaringBitmap;

use super::plan::{Group, SourcePart};
use super::{Input, Run};
use crate::error::{Result, Section};
use crate::layout::directory::{FrameEntry, FrameKind, PartEntry};
use crate::reader::cursor::Cursor;
use crate::reader::samples::{Merge, OfCursor, add_run};
use crate::reader::source::Source;
use crate::slot_table::SlotTable;
use crate::writer::part::CopiedFrame;
use crate::writer::{COLUMNS_BYTES_MAX, COLUMNS_MAX};
use crate::{Block, SeriesSamples};

const KINDS: [FrameKind; 2] = [FrameKind::Float, FrameKind::Histogram];

/// How often a walk over series asks whether it is cancelled.
const SERIES_PER_CHECK: u64 = 64;

/// The part whose frames are copied where nothing touches them.
struct Base<'a> {
    source: usize,
    input: usize,
    block: &'a Block,
    entry: &'a PartEntry,
    /// Per kind and frame: is it copied? And the next one to look at.
    copied: [Vec<bool>; 2],
    next: [usize; 2],
}

impl<'a> Run<'a> {
    /// Writes the part of a group.
    pub(super) fn write_group(&mut self, group: &Group) -> Result<()> {
        self.writer.begin_part(group.priority)?;
        let sources: Vec<_> = group.sources.iter().filter_map(|source| self.source(*source)).collect();
        let mut base = self.base(group, &sources)?;
        let encoded = self.encoded_ids(&sources, base.as_ref())?;
        if let Some(base) = &base {
            self.copy_pages(base, !encoded.is_empty())?;
        }
        let window =
            TimeRange::new(group.window.min.max(self.window.min), group.window.max.min(self.window.max));
        let mut cursors: Vec<_> =
            sources.iter().map(|(_, block, entry)| Cursor::new(block.source(), entry)).collect();
        let mut merge = Merge::default();
        let mut samples = SeriesSamples::default();
        let (mut runs, mut deleted) = (Vec::new(), vec![Vec::new(); sources.len()]);
        for (n, id) in (0_u64..).zip(&encoded) {
            if n % SERIES_PER_CHECK == 0 {
                self.check_cancelled()?;
            }
            if let Some(base) = &mut base {
                self.copy_frames(base, Some(id))?;
            }
            runs.clear();
            for (index, ((input, _, _), deleted)) in sources.iter().zip(&mut deleted).enumerate() {
                let Some((input, cursor)) = self.inputs.get(*input).zip(cursors.get_mut(index)) else {
                    continue;
                };
                let Some(before) = input.ids.before(id) else { continue };
                input.deletions.ranges(before, deleted);
                for kind in KINDS {
                    add_run(index, cursor, kind, before, window, &mut runs)?;
                    // A series may be touched in one kind only: what is in a copied frame is in the part already.
                    let copied = |base: &Base<'_>, frame| base.source == index && base.is_copied(kind, frame);
                    let is_copied = runs.last().is_some_and(|run| {
                        run.cursor == index
                            && run.slot.kind == kind
                            && base.as_ref().is_some_and(|base| copied(base, run.slot.frame))
                    });
                    if is_copied {
                        runs.pop();
                    }
                }
            }
            samples.clear();
            let deleted = |cursor: usize| deleted.get(cursor).map(Vec::as_slice).unwrap_or_default();
            // Starts are written behind all parts.
            let of = |cursor: usize| OfCursor { deleted: deleted(cursor), starts: &[] };
            merge.read(&mut cursors, &mut runs, of, &mut samples)?;
            self.writer.push_floats(id, &samples.timestamps, &samples.values)?;
            self.writer.push_histograms(id, &samples.histogram_timestamps, &samples.histograms)?;
        }
        if let Some(base) = &mut base {
            self.copy_frames(base, None)?;
        }
        self.writer.end_part()
    }

    pub(super) fn source(&self, source: SourcePart) -> Option<(usize, &'a Block, &'a PartEntry)> {
        let block: &'a Block = self.inputs.get(source.input)?.block;
        Some((source.input, block, block.directory().parts.get(source.part)?))
    }

    /// Decides which frames of the group's base are copied.
    fn base(&self, group: &Group, sources: &[(usize, &'a Block, &'a PartEntry)]) -> Result<Option<Base<'a>>> {
        let Some(source) = group.base else { return Ok(None) };
        let Some(&(number, block, entry)) = sources.get(source) else { return Ok(None) };
        let Some(input) = self.inputs.get(number) else { return Ok(None) };
        let touched = input.deletions.touched_in(entry.range);
        let mut others = RoaringBitmap::new();
        for (index, (number, block, entry)) in sources.iter().enumerate() {
            if index != source
                && let Some(input) = self.inputs.get(*number)
            {
                for frame in KINDS.into_iter().flat_map(|kind| entry.frames(kind)) {
                    add_ids(&mut others, input, block.source(), entry, frame)?;
                }
            }
        }
        let copied = KINDS.map(|kind| {
            let untouched = |frame: &FrameEntry| {
                let ends = input.ids.after(frame.first).zip(input.ids.after(frame.last));
                touched.range_cardinality(frame.first..=frame.last) == 0
                    && ends.is_some_and(|(first, last)| others.range_cardinality(first..=last) == 0)
            };
            entry.frames(kind).iter().map(untouched).collect::<Vec<_>>()
        });
        if !copied.iter().flatten().any(|copied| *copied) {
            return Ok(None);
        }
        Ok(Some(Base { source, input: number, block, entry, copied, next: [0, 0] }))
    }

    /// The new ids of the series that are encoded: those of all frames that are not copied.
    fn encoded_ids(
        &self,
        sources: &[(usize, &'a Block, &'a PartEntry)],
        base: Option<&Base<'_>>,
    ) -> Result<RoaringBitmap> {
        let mut ids = RoaringBitmap::new();
        for (index, (number, block, entry)) in sources.iter().enumerate() {
            let Some(input) = self.inputs.get(*number) else { continue };
            for kind in KINDS {
                for (at, frame) in entry.frames(kind).iter().enumerate() {
                    let copied = base.is_some_and(|base| base.source == index && base.is_copied(kind, at));
                    if !copied {
                        add_ids(&mut ids, input, block.source(), entry, frame)?;
                    }
                }
            }
        }
        Ok(ids)
    }

    /// Takes over all timestamp pages of the base.
    fn copy_pages(&mut self, base: &Base<'_>, encodes: bool) -> Result<()> {
        let pages = &base.entry.pages;
        let bytes: u64 = pages.iter().map(|page| u64::from(page.unit.len)).sum();
        // Columns that would fill the memory of the writer at once are not looked for again.
        let remembers = encodes
            && bytes < COLUMNS_BYTES_MAX as u64 / 2
            && (base.entry.columns() as usize) < COLUMNS_MAX / 2;
        for page in pages {
            self.check_cancelled()?;
            let source = base.block.source();
            let bytes = source.read(Section::Timestamps, page.unit)?;
            let columns = if remembers { Some(source.columns(page, None)?) } else { None };
            self.writer.copy_page(
                &bytes,
                page.columns,
                columns.as_ref().map(|columns| columns.as_slice()),
            )?;
        }
        Ok(())
    }

    /// Copies the frames of the base that end before series `before`, or all that are left.
    fn copy_frames(&mut self, base: &mut Base<'_>, before: Option<u32>) -> Result<()> {
        for (kind, (copied, next)) in KINDS.into_iter().zip(base.copied.iter().zip(&mut base.next)) {
            while let Some(frame) = base.entry.frames(kind).get(*next) {
                let is_copied = copied.get(*next).copied().unwrap_or(false);
                let last = self.inputs.get(base.input).and_then(|input| input.ids.after(frame.last));
                if is_copied && before.is_some_and(|id| last.is_none_or(|last| last >= id)) {
                    break;
                }
                *next += 1;
                if is_copied {
                    self.check_cancelled()?;
                    self.copy_frame(base.input, base.block, base.entry, kind, frame)?;
                }
            }
        }
        Ok(())
    }

    fn copy_frame(
        &mut self,
        input: usize,
        block: &Block,
        part: &PartEntry,
        kind: FrameKind,
        entry: &FrameEntry,
    ) -> Result<()> {
        let source = block.source();
        let section = match kind {
            FrameKind::Float => Section::ValueFrames,
            FrameKind::Histogram => Section::HistogramFrames,
        };
        let frame = source.read(section, entry.unit)?;
        let statistics = entry.statistics.map(|unit| source.read(Section::Statistics, unit)).transpose()?;
        let old: Arc<SlotTable> = source.slot_table(part, entry, None)?;
        let mut table = SlotTable::default();
        for (id, column) in old.iter() {
            if let Some(id) = self.inputs.get(input).and_then(|input| input.ids.after(id)) {
                table.push(id, column);
            }
        }
        // A slot that vanished would leave the frame with one too many.
        let pair = (old.len() as u64, table.len() as u64);
        source.equal(Section::SlotTables, entry.table.off, "series with samples", pair)?;
        let statistics = statistics.as_deref();
        let copied = CopiedFrame { frame: &frame, statistics, table: &table };
        self.writer.copy_frame(kind, &copied, part.range)?;
        self.frames_copied += 1;
        self.bytes_copied += u64::from(entry.unit.len);
        Ok(())
    }
}

impl Base<'_> {
    fn is_copied(&self, kind: FrameKind, frame: usize) -> bool {
        let [floats, histograms] = &self.copied;
        let copied = match kind {
            FrameKind::Float => floats,
            FrameKind::Histogram => histograms,
        };
        copied.get(frame).copied().unwrap_or(false)
    }
}

/// Adds the new ids of the series of a frame.
fn add_ids(
    ids: &mut RoaringBitmap,
    input: &Input<'_>,
    source: &Source,
    part: &PartEntry,
    frame: &FrameEntry,
) -> Result<()> {
    let table = source.slot_table(part, frame, None)?;
    ids.extend(table.ids.iter().filter_map(|id| input.ids.after(*id)));
    Ok(())
}
