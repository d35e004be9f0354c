//! Writes a block.

mod columns;
mod output;
pub(crate) mod part;
mod starts;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_chunk::dense::COLUMN_SAMPLES_MAX;
use chronolith_codec::crc32;
use chronolith_env::Fs;
use chronolith_index::IndexWriter;
use chronolith_model::{Exemplar, Histogram, Labels, MetricMetadata, StartTimestamp, TimeRange, Timestamp};
use roaring::RoaringBitmap;

use columns::DECODED_SAMPLES_MAX;
pub(crate) use columns::{COLUMNS_BYTES_MAX, COLUMNS_MAX, PAGE_SAMPLES};
use output::BUFFER_BYTES;
pub(crate) use output::Output;
use part::TABLES_BYTES_MAX;
use part::{CopiedFrame, PartWriter, SeriesKey};
use starts::StartWriter;

use crate::FORMAT_VERSION;
use crate::error::{Error, Result};
use crate::extras::{
    EXEMPLAR_LABELS_MAX, EXTRA_PAGE_BYTES, EXTRA_TEXT_BYTES_MAX, encode_exemplars, encode_metadata,
};
use crate::layout::directory::{Directory, ExemplarPage, FrameKind, IndexSpan, PartEntry, UnitRef};
use crate::layout::footer::Footer;
use crate::layout::page::PageWriter;
use crate::layout::{HOTCACHE_BYTES_MAX, header};
use crate::meta::{BlockMeta, BlockSpec, PARTS_HARD_MAX, SERIES_MAX, SOURCES_MAX, block_path};

/// A block that has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenBlock {
    /// What it says of itself.
    pub meta: BlockMeta,
    /// Its file.
    pub path: PathBuf,
    /// Length of the file.
    pub bytes: u64,
}

/// Writes a block as its content arrives: series in [`crate::series_order`], parts one after another, in a part the
/// series ascending by id. Series and parts may alternate, as long as a series is added before its samples.
///
/// Memory: the index being built, 16 bytes per series, and per part at most 32 MiB of slot tables and statistics, 32 MiB
/// of encoded and 16 MiB of decoded timestamps with their look-up tables, and the open frame of each kind.
///
/// The file has its temporary name until [`BlockWriter::finish`]; dropping the writer removes it.
#[derive(Debug)]
pub struct BlockWriter {
    spec: BlockSpec,
    out: Output,
    index: IndexWriter,
    keys: Vec<SeriesKey>,
    /// Series with a sample.
    filled: RoaringBitmap,
    part: Option<PartWriter>,
    parts: Vec<PartEntry>,
    pages: PageWriter,
    exemplars: ExemplarWriter,
    starts: StartWriter,
    metadata: Vec<UnitRef>,
    metadata_page: Vec<u8>,
    last_metric: Option<String>,
}

#[derive(Debug, Default)]
struct ExemplarWriter {
    /// Exemplars of series `last` that are not in the page yet.
    group: Vec<Exemplar>,
    last: Option<u32>,
    page: Vec<u8>,
    first: Option<u32>,
    last_in_page: Option<u32>,
    in_page: u32,
    pages: Vec<ExemplarPage>,
}

/// What a writer keeps at most, in bytes, about: columns that it remembers, encoded and decoded, tables of frames that are
/// not written yet, and what waits to be written. The index and [`SeriesKey`]s of the series come on top.
pub(crate) const WRITER_BYTES_MAX: usize =
    COLUMNS_BYTES_MAX + DECODED_SAMPLES_MAX * size_of::<i64>() + TABLES_BYTES_MAX + BUFFER_BYTES;

/// A page of exemplars ends with so many of one series.
const GROUP_MAX: usize = 64;

impl BlockWriter {
    /// Starts the block of `spec` in directory `dir`, which must be there, durably.
    ///
    /// # Errors
    /// When the specification is not one, or the file system refuses.
    pub fn create(fs: &Arc<dyn Fs>, dir: &Path, spec: BlockSpec) -> Result<Self> {
        if spec.range.min >= spec.range.max {
            let (expected, got) = (spec.range.min as u64, spec.range.max as u64);
            return Err(Error::Input { what: "end of the block's range", expected, got });
        }
        limit("sources", spec.sources.len(), SOURCES_MAX)?;
        let mut out = Output::create(fs, &block_path(dir, spec.ulid))?;
        out.append(&header(FORMAT_VERSION))?;
        Ok(Self {
            spec,
            out,
            index: IndexWriter::new(),
            keys: Vec::new(),
            filled: RoaringBitmap::new(),
            part: None,
            parts: Vec::new(),
            pages: PageWriter::new(),
            exemplars: ExemplarWriter::default(),
            starts: StartWriter::default(),
            metadata: Vec::new(),
            metadata_page: Vec::new(),
            last_metric: None,
        })
    }

    /// Adds a series behind all others; returns its id. It must get a sample before [`BlockWriter::finish`].
    ///
    /// # Errors
    /// When it is not behind the last one, or there are too many.
    pub fn add_series(&mut self, labels: &Labels) -> Result<u32> {
        limit("series", self.keys.len() + 1, SERIES_MAX as usize)?;
        let id = self.index.add(labels)?;
        let family = if labels.get("le").is_some() { labels.without("le").stable_hash() } else { 0 };
        let hash = labels.stable_hash();
        self.keys.push(SeriesKey { hash, family: if family == 0 { hash } else { family } });
        Ok(id)
    }

    /// Starts a part. Where its samples meet those of another part at one timestamp, the part of lower `priority` wins.
    ///
    /// # Errors
    /// When the last part was not ended, or there are too many.
    pub fn begin_part(&mut self, priority: u64) -> Result<()> {
        if self.part.is_some() {
            return Err(Error::Input { what: "open parts", expected: 0, got: 1 });
        }
        limit("parts", self.parts.len() + 1, PARTS_HARD_MAX)?;
        self.part = Some(PartWriter::new(priority));
        Ok(())
    }

    /// Adds the float samples that series `id` has in the part; does nothing if there are none. Timestamps ascend.
    ///
    /// # Errors
    /// When the series is not there or not behind the last one, has more than
    /// [`COLUMN_SAMPLES_MAX`] samples, they are out of order or outside the block, or the file system refuses.
    pub fn push_floats(&mut self, id: u32, timestamps: &[Timestamp], values: &[f64]) -> Result<()> {
        let Some(key) = self.check(id, timestamps, values.len())? else { return Ok(()) };
        let part = self.part.as_mut().ok_or(NO_PART)?;
        part.push_floats(&mut self.out, id, key, timestamps, values)?;
        self.filled.insert(id);
        Ok(())
    }

    /// Adds the histograms that series `id` has in the part; does nothing if there are none. Timestamps ascend, and are
    /// none of those of its float samples.
    ///
    /// # Errors
    /// As [`BlockWriter::push_floats`].
    pub fn push_histograms(
        &mut self,
        id: u32,
        timestamps: &[Timestamp],
        histograms: &[Histogram],
    ) -> Result<()> {
        let Some(key) = self.check(id, timestamps, histograms.len())? else { return Ok(()) };
        let part = self.part.as_mut().ok_or(NO_PART)?;
        part.push_histograms(&mut self.out, id, key, timestamps, histograms)?;
        self.filled.insert(id);
        Ok(())
    }

    /// Ends the part. One without samples leaves no trace.
    ///
    /// # Errors
    /// When none was begun, or the file system refuses.
    pub fn end_part(&mut self) -> Result<()> {
        let part = self.part.take().ok_or(NO_PART)?;
        self.parts.extend(part.end(&mut self.out)?);
        Ok(())
    }

    /// Adds exemplars of series `id`, at any time after the series itself; ids ascend or repeat.
    ///
    /// # Errors
    /// When the series is not there or before the last one, a text is too long, or the file system refuses.
    pub fn push_exemplars(&mut self, id: u32, exemplars: &[Exemplar]) -> Result<()> {
        self.key(id)?;
        for exemplar in exemplars {
            limit("labels of an exemplar", exemplar.labels.len(), EXEMPLAR_LABELS_MAX)?;
            let longest = exemplar.labels.iter().map(|(name, value)| name.len().max(value.len())).max();
            limit("bytes of an exemplar's label", longest.unwrap_or(0), EXTRA_TEXT_BYTES_MAX)?;
            self.exemplars.push(id, exemplar)?;
            if self.exemplars.is_full() {
                self.exemplars.finish_page(&mut self.pages, &mut self.out)?;
            }
        }
        Ok(())
    }

    /// Adds since when the counter that is series `id` has been counting, as `starts` say: steps that ascend, before the
    /// first of which nothing is known. `first` is the oldest sample the series has in the block. They hold for the
    /// samples that are read, out of whichever part; steps behind the block's range are left out. At any time after the
    /// series itself, once per series, ids ascend.
    ///
    /// # Errors
    /// When the series is not there or not behind the last one, the steps do not ascend, or the file system refuses.
    pub fn push_starts(&mut self, id: u32, first: Timestamp, starts: &[StartTimestamp]) -> Result<()> {
        if !starts.is_sorted_by(|a, b| a.since < b.since) {
            return Err(Error::Input { what: "order of start timestamps", expected: 1, got: 0 });
        }
        let mut steps = vec![StartTimestamp { since: first, start: StartTimestamp::at(starts, first) }];
        for step in starts.iter().filter(|step| first < step.since && step.since <= self.spec.range.max) {
            StartTimestamp::push(&mut steps, step.since, step.start);
        }
        self.push_steps(id, &steps)
    }

    /// Adds the steps of series `id`, of which the first one holds for all before it too.
    pub(crate) fn push_steps(&mut self, id: u32, steps: &[StartTimestamp]) -> Result<()> {
        self.key(id)?;
        let range = self.spec.range;
        match steps.iter().skip(1).map(|step| step.since).find(|since| !range.contains(*since)) {
            Some(timestamp) => Err(Error::OutOfRange { timestamp, min: range.min, max: range.max }),
            None => self.starts.push(id, steps, &mut self.pages, &mut self.out),
        }
    }

    /// Adds the metadata of a metric; metrics come sorted by name, each once.
    ///
    /// # Errors
    /// When it is out of order, a text is too long, or the file system refuses.
    pub fn push_metadata(&mut self, metadata: &MetricMetadata) -> Result<()> {
        if self.last_metric.as_ref().is_some_and(|last| *last >= metadata.metric) {
            return Err(Error::Input { what: "order of metadata", expected: 1, got: 0 });
        }
        let longest = metadata.metric.len().max(metadata.unit.len()).max(metadata.help.len());
        limit("bytes of a metadata text", longest, EXTRA_TEXT_BYTES_MAX)?;
        self.last_metric = Some(metadata.metric.clone());
        encode_metadata(metadata, &mut self.metadata_page);
        if self.metadata_page.len() >= EXTRA_PAGE_BYTES {
            self.finish_metadata_page()?;
        }
        Ok(())
    }

    /// Writes the rest, makes the file durable and gives it its name.
    ///
    /// # Errors
    /// When a part is open, a series has no sample, or the file system refuses. There is then no block.
    pub fn finish(mut self) -> Result<WrittenBlock> {
        if self.part.is_some() {
            return Err(Error::Input { what: "open parts", expected: 0, got: 1 });
        }
        let series = self.keys.len() as u64;
        if self.filled.len() != series {
            return Err(Error::Input {
                what: "series with samples",
                expected: series,
                got: self.filled.len(),
            });
        }
        self.exemplars.finish_page(&mut self.pages, &mut self.out)?;
        self.starts.finish_page(&mut self.pages, &mut self.out)?;
        self.finish_metadata_page()?;
        self.parts.sort_by_key(|part| (part.range.min, part.priority));
        let directory = self.write_index()?;
        let mut bytes = Vec::new();
        directory.encode(&mut bytes);
        limit("bytes of the hotcache", bytes.len(), HOTCACHE_BYTES_MAX as usize)?;
        let mut footer = Footer {
            hotcache_off: self.out.offset(),
            hotcache_len: bytes.len() as u32,
            hotcache_crc: crc32(&bytes),
            file_len: 0,
            version: FORMAT_VERSION,
        };
        self.out.append(&bytes)?;
        footer.file_len = self.out.offset() + crate::layout::footer::FOOTER_BYTES as u64;
        let mut bytes = Vec::new();
        footer.encode(&mut bytes);
        self.out.append(&bytes)?;
        let path = self.out.path().to_path_buf();
        self.out.publish()?;
        Ok(WrittenBlock { meta: directory.meta, path, bytes: footer.file_len })
    }

    /// How many series there are.
    #[must_use]
    pub fn series(&self) -> u32 {
        self.keys.len() as u32
    }

    /// Takes over a page of timestamps; see [`PartWriter::copy_page`].
    pub(crate) fn copy_page(
        &mut self,
        page: &[u8],
        columns: u32,
        remembered: Option<&[Vec<i64>]>,
    ) -> Result<()> {
        self.part.as_mut().ok_or(NO_PART)?.copy_page(&mut self.out, page, columns, remembered)
    }

    /// Takes over a frame whose samples lie in `range`.
    pub(crate) fn copy_frame(
        &mut self,
        kind: FrameKind,
        copied: &CopiedFrame<'_>,
        range: TimeRange,
    ) -> Result<()> {
        self.filled.extend(copied.table.ids.iter());
        self.part.as_mut().ok_or(NO_PART)?.copy_frame(&mut self.out, kind, copied, range)
    }

    /// How many frames the parts that were ended have.
    pub(crate) fn frames(&self) -> u64 {
        self.parts.iter().map(|part| (part.floats.len() + part.histograms.len()) as u64).sum()
    }

    fn key(&self, id: u32) -> Result<SeriesKey> {
        let key = self.keys.get(id as usize).copied();
        key.ok_or(Error::Input { what: "series id", expected: self.keys.len() as u64, got: id.into() })
    }

    /// Checks what a caller wants to add; None if it is nothing.
    fn check(&self, id: u32, timestamps: &[Timestamp], values: usize) -> Result<Option<SeriesKey>> {
        let key = self.key(id)?;
        if timestamps.len() != values {
            let expected = timestamps.len() as u64;
            return Err(Error::Input { what: "values", expected, got: values as u64 });
        }
        limit("samples of a series in a part", timestamps.len(), COLUMN_SAMPLES_MAX)?;
        let (Some(&first), Some(&last)) = (timestamps.first(), timestamps.last()) else { return Ok(None) };
        if !timestamps.is_sorted_by(|a, b| a < b) {
            return Err(Error::Input { what: "order of timestamps", expected: 1, got: 0 });
        }
        let range = self.spec.range;
        match [first, last].into_iter().find(|t| !range.contains(*t)) {
            Some(timestamp) => Err(Error::OutOfRange { timestamp, min: range.min, max: range.max }),
            None => Ok(Some(key)),
        }
    }

    fn finish_metadata_page(&mut self) -> Result<()> {
        if self.metadata_page.is_empty() {
            return Ok(());
        }
        let mut page = Vec::new();
        self.pages.write(&self.metadata_page, &mut page);
        self.metadata_page.clear();
        self.metadata.push(self.out.append_unit(&page)?);
        Ok(())
    }

    /// Writes the sections of the index.
    fn write_index(&mut self) -> Result<Directory> {
        let index = std::mem::take(&mut self.index).finish();
        let mut span = |bytes: &[u8]| {
            let span = IndexSpan { off: self.out.offset(), len: bytes.len() as u64, crc: crc32(bytes) };
            self.out.append(bytes).map(|()| span)
        };
        let forward = span(&index.forward)?;
        let postings = span(&index.postings)?;
        let dictionaries = span(&index.dictionaries)?;
        let samples = |kind| {
            self.parts.iter().flat_map(|part| part.frames(kind)).map(|frame| frame.samples).sum::<u64>()
        };
        let exemplars = self.exemplars.pages.iter().map(|page| u64::from(page.exemplars)).sum();
        let meta = BlockMeta {
            spec: self.spec.clone(),
            series: self.keys.len() as u32,
            samples: samples(FrameKind::Float),
            histograms: samples(FrameKind::Histogram),
            exemplars,
        };
        Ok(Directory {
            version: FORMAT_VERSION,
            meta,
            dictionaries,
            postings,
            forward,
            index: index.directory,
            parts: std::mem::take(&mut self.parts),
            exemplars: std::mem::take(&mut self.exemplars.pages),
            starts: std::mem::take(&mut self.starts.pages),
            metadata: std::mem::take(&mut self.metadata),
        })
    }
}

const NO_PART: Error = Error::Input { what: "open parts", expected: 1, got: 0 };

impl ExemplarWriter {
    fn push(&mut self, id: u32, exemplar: &Exemplar) -> Result<()> {
        if let Some(last) = self.last.filter(|last| id < *last) {
            let expected = last.into();
            return Err(Error::Input { what: "series id of an exemplar", expected, got: id.into() });
        }
        if self.last != Some(id) {
            self.finish_group();
        }
        self.last = Some(id);
        self.group.push(exemplar.clone());
        Ok(())
    }

    /// Whether the page is to be written.
    fn is_full(&self) -> bool {
        self.page.len() >= EXTRA_PAGE_BYTES || self.group.len() >= GROUP_MAX
    }

    /// Puts the exemplars of the last series into the page.
    fn finish_group(&mut self) {
        let Some(id) = self.last.filter(|_| !self.group.is_empty()) else { return };
        encode_exemplars(id, self.last_in_page, &self.group, &mut self.page);
        self.first.get_or_insert(id);
        self.last_in_page = Some(id);
        self.in_page += self.group.len() as u32;
        self.group.clear();
    }

    fn finish_page(&mut self, pages: &mut PageWriter, out: &mut Output) -> Result<()> {
        self.finish_group();
        let (Some(first), Some(last)) = (self.first.take(), self.last_in_page.take()) else { return Ok(()) };
        let mut page = Vec::new();
        pages.write(&self.page, &mut page);
        self.page.clear();
        let exemplars = std::mem::take(&mut self.in_page);
        self.pages.push(ExemplarPage { unit: out.append_unit(&page)?, first, last, exemplars });
        Ok(())
    }
}

fn limit(what: &'static str, got: usize, max: usize) -> Result<()> {
    if got > max {
        return Err(Error::Limit { what, got: got as u64, max: max as u64 });
    }
    Ok(())
}
