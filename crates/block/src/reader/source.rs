//! Verified reads of a block's file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chronolith_chunk::dense::{Frame, Statistics, decode_statistics, decode_timestamps};
use chronolith_chunk::histogram::HistogramFrame;
use chronolith_codec::{Reader, crc32};
use chronolith_env::File;
use chronolith_index::{DiskIndexError, IndexSection, SectionRead};

use crate::cache::{BlockCache, Key, Piece};
use crate::error::{ContentError, Error, Result, Section};

use crate::layout::directory::{FrameEntry, IndexSpan, PartEntry, StartPageEntry, TimestampPage, UnitRef};
use crate::layout::footer::impossible;
use crate::layout::page;
use crate::slot_table::SlotTable;
use crate::starts::StartPage;
use crate::writer::PAGE_SAMPLES;

/// The longest read of the index that is kept in the cache.
const INDEX_CACHED_BYTES_MAX: usize = 256 << 10;

/// What a reader has opened so far. What it remembers from the series before is not opened again, and not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Frames of floats and of histograms.
    pub frames: u64,
    /// Pieces (frames, slot tables, pages of timestamps and of start timestamps) that were in the cache.
    pub cache_hits: u64,
    /// Pieces that were not.
    pub cache_misses: u64,
    /// Bytes in the file of those.
    pub bytes: u64,
}

impl ReadCounts {
    pub(crate) const NONE: Self = Self { frames: 0, cache_hits: 0, cache_misses: 0, bytes: 0 };

    /// Adds those of another.
    pub fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.cache_hits += other.cache_hits;
        self.cache_misses += other.cache_misses;
        self.bytes += other.bytes;
    }
}

/// An open block file.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    file: Box<dyn File>,
    cache: BlockCache,
    number: u64,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

impl Source {
    pub(crate) fn new(file: Box<dyn File>, cache: BlockCache) -> Self {
        let number = cache.new_file();
        Self { path: file.path().to_path_buf(), file, cache, number }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> Result<u64> {
        Ok(self.file.len()?)
    }

    /// `len` bytes at `off`, as they are.
    pub(crate) fn read_raw(&self, off: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(off, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes of a unit, verified.
    pub(crate) fn read(&self, section: Section, unit: UnitRef) -> Result<Vec<u8>> {
        let bytes = self.read_raw(unit.off, unit.len as usize)?;
        self.verify(section, unit.off, unit.crc, crc32(&bytes))?;
        Ok(bytes)
    }

    pub(crate) fn verify(&self, section: Section, off: u64, expected: u32, got: u32) -> Result<()> {
        if expected != got {
            return Err(Error::Checksum { path: self.path.clone(), section, off, expected, got });
        }
        Ok(())
    }

    /// The error for content that cannot be read.
    pub(crate) fn damaged(&self, section: Section, off: u64, source: impl Into<ContentError>) -> Error {
        Error::Content { path: self.path.clone(), section, off, source: source.into() }
    }

    /// Fails unless two numbers are equal.
    pub(crate) fn equal(
        &self,
        section: Section,
        off: u64,
        what: &'static str,
        (expected, got): (u64, u64),
    ) -> Result<()> {
        if expected != got {
            return Err(Error::Mismatch { path: self.path.clone(), section, off, what, expected, got });
        }
        Ok(())
    }

    /// The content of a page.
    pub(crate) fn page<T>(
        &self,
        section: Section,
        unit: UnitRef,
        decode: impl FnOnce(&[u8]) -> Result<T, ContentError>,
    ) -> Result<T> {
        let bytes = self.read(section, unit)?;
        let content = page::read(&bytes).and_then(|content| decode(&content));
        content.map_err(|error| self.damaged(section, unit.off, error))
    }

    /// A slot table, which fits its frame and part.
    pub(crate) fn slot_table(
        &self,
        part: &PartEntry,
        frame: &FrameEntry,
        counts: Option<&mut ReadCounts>,
    ) -> Result<Arc<SlotTable>> {
        let unit = frame.table;
        if let Some(Piece::Table(table)) = self.cached(unit, counts) {
            return Ok(table);
        }
        let table = self.page(Section::SlotTables, unit, SlotTable::decode)?;
        let at = |what, pair| self.equal(Section::SlotTables, unit.off, what, pair);
        at("number of slots", (frame.slots.into(), table.len() as u64))?;
        at("number of samples", (frame.samples, table.samples()))?;
        let end = |id: Option<&u32>| id.copied().unwrap_or(u32::MAX).into();
        at("first series", (frame.first.into(), end(table.ids.first())))?;
        at("last series", (frame.last.into(), end(table.ids.last())))?;
        if let Some(column) = table.columns.iter().find(|column| column.column >= part.columns()) {
            at("timestamp column", (part.columns().saturating_sub(1).into(), column.column.into()))?;
        }
        let table = Arc::new(table);
        self.keep(unit, Piece::Table(Arc::clone(&table)));
        Ok(table)
    }

    /// The columns of a page of timestamps.
    pub(crate) fn columns(
        &self,
        entry: &TimestampPage,
        counts: Option<&mut ReadCounts>,
    ) -> Result<Arc<Vec<Vec<i64>>>> {
        if let Some(Piece::Columns(columns)) = self.cached(entry.unit, counts) {
            return Ok(columns);
        }
        let (section, unit) = (Section::Timestamps, entry.unit);
        let bytes = self.read(section, unit)?;
        let columns = decode_page(&bytes).map_err(|error| self.damaged(section, unit.off, error))?;
        let pair = (entry.columns.into(), columns.len() as u64);
        self.equal(section, unit.off, "number of columns", pair)?;
        let columns = Arc::new(columns);
        self.keep(unit, Piece::Columns(Arc::clone(&columns)));
        Ok(columns)
    }

    pub(crate) fn frame(&self, entry: &FrameEntry, counts: Option<&mut ReadCounts>) -> Result<Arc<Frame>> {
        if let Some(Piece::Frame(frame)) = self.cached_frame(entry.unit, counts) {
            return Ok(frame);
        }
        let (section, unit) = (Section::ValueFrames, entry.unit);
        let bytes = self.read(section, unit)?;
        let frame = Frame::open(&bytes).map_err(|error| self.damaged(section, unit.off, error))?;
        self.equal(section, unit.off, "number of slots", (entry.slots.into(), frame.slots() as u64))?;
        let frame = Arc::new(frame);
        self.keep(unit, Piece::Frame(Arc::clone(&frame)));
        Ok(frame)
    }

    pub(crate) fn histogram_frame(
        &self,
        entry: &FrameEntry,
        counts: Option<&mut ReadCounts>,
    ) -> Result<Arc<HistogramFrame>> {
        if let Some(Piece::Histograms(frame)) = self.cached_frame(entry.unit, counts) {
            return Ok(frame);
        }
        let (section, unit) = (Section::HistogramFrames, entry.unit);
        let bytes = self.read(section, unit)?;
        let frame = HistogramFrame::open(&bytes).map_err(|error| self.damaged(section, unit.off, error))?;
        self.equal(section, unit.off, "number of slots", (entry.slots.into(), frame.slots() as u64))?;
        let frame = Arc::new(frame);
        self.keep(unit, Piece::Histograms(Arc::clone(&frame)));
        Ok(frame)
    }

    /// A page of start timestamps.
    pub(crate) fn start_page(
        &self,
        entry: &StartPageEntry,
        counts: Option<&mut ReadCounts>,
    ) -> Result<Arc<StartPage>> {
        if let Some(Piece::Starts(page)) = self.cached(entry.unit, counts) {
            return Ok(page);
        }
        let (section, off) = (Section::Starts, entry.unit.off);
        let page = self.page(section, entry.unit, StartPage::decode)?;
        self.equal(section, off, "number of steps", (entry.steps.into(), page.len() as u64))?;
        let (first, last) = page.ends().unwrap_or((u32::MAX, u32::MAX));
        self.equal(section, off, "first series", (entry.first.into(), first.into()))?;
        self.equal(section, off, "last series", (entry.last.into(), last.into()))?;
        let page = Arc::new(page);
        self.keep(entry.unit, Piece::Starts(Arc::clone(&page)));
        Ok(page)
    }

    /// The statistics of the slots of a frame of floats.
    pub(crate) fn statistics(&self, entry: &FrameEntry) -> Result<Arc<Vec<Statistics>>> {
        let Some(unit) = entry.statistics else { return Ok(Arc::default()) };
        if let Some(Piece::Statistics(statistics)) = self.cached(unit, None) {
            return Ok(statistics);
        }
        let statistics = self.page(Section::Statistics, unit, |content| {
            let mut statistics = Vec::new();
            decode_statistics(content, &mut statistics)?;
            Ok(statistics)
        })?;
        let pair = (entry.slots.into(), statistics.len() as u64);
        self.equal(Section::Statistics, unit.off, "number of slots", pair)?;
        let statistics = Arc::new(statistics);
        self.keep(unit, Piece::Statistics(Arc::clone(&statistics)));
        Ok(statistics)
    }

    fn key(&self, unit: UnitRef) -> Key {
        Key { file: self.number, off: unit.off, len: unit.len }
    }

    /// What is in the cache of `unit`. Whoever reads for a query counts, and merges and tools do not.
    fn cached(&self, unit: UnitRef, counts: Option<&mut ReadCounts>) -> Option<Piece> {
        let piece = self.cache.get(self.key(unit));
        match counts {
            Some(counts) if piece.is_some() => counts.cache_hits += 1,
            Some(counts) => {
                counts.cache_misses += 1;
                counts.bytes += u64::from(unit.len);
            }
            None => {}
        }
        piece
    }

    /// [`Source::cached`] of a frame.
    fn cached_frame(&self, unit: UnitRef, mut counts: Option<&mut ReadCounts>) -> Option<Piece> {
        if let Some(counts) = &mut counts {
            counts.frames += 1;
        }
        self.cached(unit, counts)
    }

    fn keep(&self, unit: UnitRef, piece: Piece) {
        self.cache.insert(self.key(unit), piece);
    }
}

/// The columns of a page: each behind its length.
fn decode_page(bytes: &[u8]) -> Result<Vec<Vec<i64>>, ContentError> {
    let mut reader = Reader::new(bytes);
    let mut columns = Vec::new();
    // A column of few bytes may hold many timestamps: what a page unpacks to is bounded too.
    let mut samples = 0;
    while !reader.is_empty() {
        if samples >= PAGE_SAMPLES {
            return Err(impossible("timestamps of a page", PAGE_SAMPLES as u64, samples as u64));
        }
        let bytes = reader.prefixed(reader.rest().len(), "timestamp column")?;
        let mut column = Vec::new();
        decode_timestamps(bytes, &mut column)?;
        samples += column.len();
        columns.push(column);
    }
    Ok(columns)
}

/// The sections of the index of a block.
#[derive(Debug)]
pub(crate) struct IndexSource {
    pub(crate) source: Arc<Source>,
    pub(crate) dictionaries: IndexSpan,
    pub(crate) postings: IndexSpan,
    pub(crate) forward: IndexSpan,
}

impl SectionRead for IndexSource {
    fn read(&self, section: IndexSection, offset: u64, len: usize) -> Result<Bytes, DiskIndexError> {
        let refuse = |source| DiskIndexError::Read { section, offset, len, source };
        let span = match section {
            IndexSection::Dictionaries => self.dictionaries,
            IndexSection::Postings => self.postings,
            IndexSection::Forward => self.forward,
            _ => return Err(refuse("not a section of its own".into())),
        };
        if offset.checked_add(len as u64).is_none_or(|end| end > span.len) {
            return Err(refuse(format!("the section has {} bytes", span.len).into()));
        }
        let off = span.off + offset;
        let key = Key { file: self.source.number, off, len: u32::try_from(len).unwrap_or(u32::MAX) };
        if let Some(Piece::Bytes(bytes)) = self.source.cache.get(key) {
            return Ok(bytes);
        }
        let bytes = self.source.read_raw(off, len).map_err(|error| refuse(error.into()))?;
        let bytes = Bytes::from(bytes);
        if len <= INDEX_CACHED_BYTES_MAX {
            self.source.cache.insert(key, Piece::Bytes(bytes.clone()));
        }
        Ok(bytes)
    }
}
