//! Many blocks into one.

mod extras;
mod ids;
mod parts;
mod plan;
mod starts;

use std::path::Path;
use std::sync::Arc;

use chronolith_env::Fs;
use chronolith_model::{TimeRange, Timestamp};

use crate::error::{Error, Result};
use crate::tombstones::Deletions;
use crate::writer::WRITER_BYTES_MAX;
use crate::{Block, BlockSpec, BlockWriter, Ulid, WrittenBlock};
use ids::IdMap;

/// What a merge keeps of each series of an input: ids before and after, and what its frames are put together by.
const SERIES_BYTES: u64 = 24;
/// What is read of a block takes at most so much more memory than file, as far as it is kept.
const UNPACKED_MAX: u64 = 16;

/// What a merge is to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeSpec {
    /// The block to write. Samples outside its range are left out.
    pub block: BlockSpec,
    /// Retention: samples at or before this are left out.
    pub drop_until: Option<Timestamp>,
}

/// What a merge has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The block; none if no sample is left.
    pub block: Option<WrittenBlock>,
    /// Frames taken over byte for byte.
    pub frames_copied: u64,
    /// Their bytes.
    pub bytes_copied: u64,
    /// Frames encoded anew.
    pub frames_encoded: u64,
    /// The inputs, with the [`Block::tombstones_generation`] that the merge has seen. If one has grown since, samples
    /// deleted meanwhile are in the merged block.
    pub inputs: Vec<(Ulid, u64)>,
}

/// One input with what the merge knows of it.
#[derive(Debug)]
struct Input<'a> {
    block: &'a Block,
    deletions: Arc<Deletions>,
    ids: IdMap,
}

/// A merge that is running.
struct Run<'a> {
    inputs: Vec<Input<'a>>,
    /// What is kept, as far as time goes.
    window: TimeRange,
    writer: BlockWriter,
    cancelled: &'a dyn Fn() -> bool,
    frames_copied: u64,
    bytes_copied: u64,
}

/// Writes one block with the samples of all `inputs`, in directory `dir`.
///
/// Reading the new block gives what reading all inputs gives: deletions are carried out, and of two samples at one
/// timestamp the one in the part of lower priority is kept (of equal priorities, that in the earlier input). Parts that
/// overlap become one, whose priority is their lowest: where a part of another block has a priority between theirs and
/// overlaps them, merge that block too. Other parts stay apart, and frames of which nothing changes are copied byte for
/// byte. Above [`crate::PARTS_MAX`] parts, neighbours are joined into columns of about 1,920 samples, longer only where
/// the number of parts demands it and up to [`COLUMN_SAMPLES_MAX`](chronolith_chunk::dense::COLUMN_SAMPLES_MAX).
///
/// Memory, besides that of [`BlockWriter`]: 8 bytes per series of each input, the metadata of all inputs, and for each part
/// that is being joined an opened frame, slot table and page of timestamps; at the end of the merge these of all parts
/// that overlapped, if there are start timestamps, of which those of one series are in memory. Open the inputs with a small
/// [`crate::BlockCache`] of their own, so that a merge does not empty that of the queries.
///
/// `cancelled` is asked between frames.
///
/// # Errors
/// When an input is damaged or cannot be read, there would be too many parts, the merge was cancelled, or the file system
/// refuses. There is then no block.
pub fn merge(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    inputs: &[&Block],
    spec: &MergeSpec,
    cancelled: &dyn Fn() -> bool,
) -> Result<Merged> {
    let mut window = spec.block.range.closed();
    if let Some(until) = spec.drop_until {
        window.min = window.min.max(until.saturating_add(1));
    }
    let mut writer = BlockWriter::create(fs, dir, spec.block.clone())?;
    let inputs = ids::merge_series(inputs, window, &mut writer, cancelled)?;
    let seen =
        inputs.iter().map(|input| (input.block.meta().spec.ulid, input.deletions.generation)).collect();
    if writer.series() == 0 {
        return Ok(Merged {
            block: None,
            frames_copied: 0,
            bytes_copied: 0,
            frames_encoded: 0,
            inputs: seen,
        });
    }
    let mut run = Run { inputs, window, writer, cancelled, frames_copied: 0, bytes_copied: 0 };
    let groups = plan::plan(&run.inputs, window)?;
    for group in &groups {
        run.write_group(group)?;
    }
    run.write_exemplars()?;
    run.write_starts(&groups)?;
    run.write_metadata()?;
    let frames_encoded = run.writer.frames() - run.frames_copied;
    let Run { writer, frames_copied, bytes_copied, .. } = run;
    let block = Some(writer.finish()?);
    Ok(Merged { block, frames_copied, bytes_copied, frames_encoded, inputs: seen })
}

/// What a merge of `inputs` takes of memory at most, in bytes, about: the bounds of [`BlockWriter`], or as much as the
/// blocks can fill where that is less; ids; the index. The cache of the inputs, metadata, and the samples of the one series
/// that is at work come on top.
#[must_use]
pub fn merge_bytes_max(inputs: &[&Block]) -> usize {
    let sum = |of: fn(&Block) -> u64| inputs.iter().map(|block| of(block)).fold(0, u64::saturating_add);
    let buffers = (WRITER_BYTES_MAX as u64).min(sum(Block::file_bytes).saturating_mul(UNPACKED_MAX));
    let series = sum(|block| u64::from(block.meta().series)).saturating_mul(SERIES_BYTES);
    let bytes = buffers.saturating_add(series).saturating_add(sum(Block::index_bytes));
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Run<'_> {
    fn check_cancelled(&self) -> Result<()> {
        check_cancelled(self.cancelled)
    }
}

fn check_cancelled(cancelled: &dyn Fn() -> bool) -> Result<()> {
    if cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}
