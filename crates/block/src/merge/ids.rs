//! Which series the merged block has, and their ids before and after.

use chronolith_model::{Labels, TimeRange};
use roaring::RoaringBitmap;

use super::{Input, check_cancelled};
use crate::error::Result;
use crate::layout::directory::FrameKind;
use crate::reader::cursor::Cursor;
use crate::tombstones::{Deletions, is_deleted};
use crate::{Block, BlockWriter, series_order};

/// How often a walk over series asks whether it is cancelled.
const SERIES_PER_CHECK: u32 = 4096;

/// Ids of the series of an input that live on, before and after; both ascend.
#[derive(Debug, Default)]
pub(super) struct IdMap {
    before: Vec<u32>,
    after: Vec<u32>,
}

impl IdMap {
    pub(super) fn after(&self, id: u32) -> Option<u32> {
        lookup(&self.before, &self.after, id)
    }

    pub(super) fn before(&self, id: u32) -> Option<u32> {
        lookup(&self.after, &self.before, id)
    }
}

fn lookup(from: &[u32], to: &[u32], id: u32) -> Option<u32> {
    // Mostly nothing is missing before it.
    let at = match from.get(id as usize) {
        Some(there) if *there == id => id as usize,
        _ => from.binary_search(&id).ok()?,
    };
    to.get(at).copied()
}

/// Adds the series of all inputs that keep a sample to the writer.
pub(super) fn merge_series<'a>(
    blocks: &[&'a Block],
    window: TimeRange,
    writer: &mut BlockWriter,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Input<'a>>> {
    let mut inputs = Vec::new();
    let mut walks = Vec::new();
    for block in blocks {
        check_cancelled(cancelled)?;
        let deletions = block.deletions();
        let alive = alive(block, &deletions, window)?;
        walks.push(Walk { block, series: block.disk_index().series(0..block.meta().series), next: 0, alive });
        inputs.push(Input { block, deletions, ids: IdMap::default() });
    }
    let mut heads = walks.iter_mut().map(Walk::next).collect::<Result<Vec<_>>>()?;
    while let Some(labels) = lowest(&heads) {
        let after = writer.add_series(&labels)?;
        if after % SERIES_PER_CHECK == 0 {
            check_cancelled(cancelled)?;
        }
        for ((head, walk), input) in heads.iter_mut().zip(&mut walks).zip(&mut inputs) {
            if let Some((before, _)) = head.take_if(|(_, head)| *head == labels) {
                input.ids.before.push(before);
                input.ids.after.push(after);
                *head = walk.next()?;
            }
        }
    }
    Ok(inputs)
}

fn lowest(heads: &[Option<(u32, Labels)>]) -> Option<Labels> {
    let heads = heads.iter().flatten().map(|(_, labels)| labels);
    heads.min_by(|a, b| series_order(a, b)).cloned()
}

/// The series of an input that keep a sample, in order.
struct Walk<'a, I> {
    block: &'a Block,
    series: I,
    next: u32,
    /// None: all.
    alive: Option<RoaringBitmap>,
}

impl<I: Iterator<Item = Result<Labels, chronolith_index::DiskIndexError>>> Walk<'_, I> {
    fn next(&mut self) -> Result<Option<(u32, Labels)>> {
        for labels in self.series.by_ref() {
            // Also of a series that is deleted: behind an error no others come.
            let labels = labels.map_err(|error| self.block.index_error(error))?;
            let id = self.next;
            self.next += 1;
            if self.alive.as_ref().is_none_or(|alive| alive.contains(id)) {
                return Ok(Some((id, labels)));
            }
        }
        Ok(None)
    }
}

/// The series of a block that have a sample inside `window` that is not deleted; None if all have one.
fn alive(block: &Block, deletions: &Deletions, window: TimeRange) -> Result<Option<RoaringBitmap>> {
    let parts = &block.directory().parts;
    let within = |range: TimeRange| window.contains(range.min) && window.contains(range.max);
    if deletions.touched.is_empty() && parts.iter().all(|part| within(part.range)) {
        return Ok(None);
    }
    let mut alive = RoaringBitmap::new();
    let mut deleted = Vec::new();
    for part in parts.iter().filter(|part| part.range.overlaps(&window)) {
        let mut cursor = Cursor::new(block.source(), part);
        for frame in [FrameKind::Float, FrameKind::Histogram].into_iter().flat_map(|kind| part.frames(kind)) {
            for (id, column) in block.source().slot_table(part, frame, None)?.iter() {
                if alive.contains(id) {
                    continue;
                }
                if within(part.range) && !deletions.touched.contains(id) {
                    alive.insert(id);
                    continue;
                }
                deletions.ranges(id, &mut deleted);
                let mut timestamps = cursor.timestamps(column)?.iter();
                if timestamps.any(|t| window.contains(*t) && !is_deleted(&deleted, *t)) {
                    alive.insert(id);
                }
            }
        }
    }
    Ok(Some(alive))
}
