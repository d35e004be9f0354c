//! Reads a block.

mod batch;
pub(crate) mod cursor;
pub(crate) mod samples;
pub(crate) mod source;
pub(crate) mod starts;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use chronolith_codec::crc32;
use chronolith_env::{Fs, OpenMode};
use chronolith_index::{CompiledMatcher, DiskIndex, DiskIndexError, IndexSection};
use chronolith_model::{Exemplar, Labels, Matcher, MetricMetadata, TimeRange};
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;

pub use samples::{Fragment, SeriesReader, SeriesSamples, rehint};
pub use source::ReadCounts;
use source::{IndexSource, Source};

use crate::FORMAT_VERSION;
use crate::cache::BlockCache;
use crate::error::{Error, Result, Section};
use crate::extras::{SeriesExemplars, decode_exemplars, decode_metadata};
use crate::layout::HEADER_BYTES;
use crate::layout::directory::Directory;
use crate::layout::footer::{FOOTER_BYTES, Footer, FooterError, impossible};
use crate::meta::{BlockMeta, tombstones_path};
use crate::tombstones::{self, Deletions, Tombstone};

/// How much of a file's end is read at once when it is opened. Most hotcaches fit.
const TAIL_BYTES: u64 = 256 << 10;

/// An open block. Clones are the same block.
///
/// Every read from disk is verified; [`Error::is_damage`] says that the block is to be quarantined.
#[derive(Clone)]
pub struct Block {
    inner: Arc<Inner>,
}

struct Inner {
    fs: Arc<dyn Fs>,
    source: Arc<Source>,
    index: DiskIndex<IndexSource>,
    /// Without the directory of the index, which `index` has.
    directory: Directory,
    deletions: RwLock<Arc<Deletions>>,
    /// Held while the file of tombstones is replaced.
    deleting: Mutex<()>,
    file_len: u64,
    hotcache_off: u64,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("path", &self.inner.source.path()).finish_non_exhaustive()
    }
}

impl Block {
    /// Opens the block in file `path`, and its tombstones. Reads the end of the file, mostly at once, and no more. What
    /// is opened later, pages of the index too, goes to `cache`.
    ///
    /// # Errors
    /// When the file system refuses, the file is damaged, or of another version.
    pub fn open(fs: &Arc<dyn Fs>, path: &Path, cache: &BlockCache) -> Result<Self> {
        let source = Arc::new(Source::new(fs.open(path, OpenMode::Read)?, cache.clone()));
        let (mut directory, footer) = open_directory(&source)?;
        let index_source = IndexSource {
            source: Arc::clone(&source),
            dictionaries: directory.dictionaries,
            postings: directory.postings,
            forward: directory.forward,
        };
        let pages = Arc::clone(cache.index_pages());
        let index = DiskIndex::open_with(&std::mem::take(&mut directory.index), index_source, pages);
        let index = index.map_err(|error| damaged_index(path, &directory, footer.hotcache_off, error))?;
        let series = (directory.meta.series.into(), index.len().into());
        source.equal(Section::Hotcache, footer.hotcache_off, "number of series", series)?;
        let block = Self {
            inner: Arc::new(Inner {
                fs: Arc::clone(fs),
                source,
                index,
                directory,
                deletions: RwLock::default(),
                deleting: Mutex::new(()),
                file_len: footer.file_len,
                hotcache_off: footer.hotcache_off,
            }),
        };
        block.load_tombstones()?;
        Ok(block)
    }

    /// What the block says of itself.
    #[must_use]
    pub fn meta(&self) -> &BlockMeta {
        &self.inner.directory.meta
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.source.path()
    }

    /// Length of its file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.inner.file_len
    }

    /// Bytes of memory behind an open block, pieces in the [`BlockCache`] not counted.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.inner.index.heap_bytes() + self.inner.directory.heap_bytes()
    }

    /// Bytes of its index in the file.
    pub(crate) fn index_bytes(&self) -> u64 {
        let directory = self.directory();
        let sections = [directory.dictionaries, directory.postings, directory.forward];
        sections.iter().fold(0, |sum, section| sum.saturating_add(section.len))
    }

    /// Its index: label names and values, cardinality.
    #[must_use]
    pub fn index(&self) -> &DiskIndex<impl chronolith_index::SectionRead + use<>> {
        &self.inner.index
    }

    /// Gives the error of [`Block::index`] its file.
    #[must_use]
    pub fn index_error(&self, source: DiskIndexError) -> Error {
        damaged_index(self.path(), &self.inner.directory, self.inner.hotcache_off, source)
    }

    /// First and last timestamp, tombstones not regarded. None if there is no sample.
    #[must_use]
    pub fn samples_range(&self) -> Option<TimeRange> {
        let parts = &self.inner.directory.parts;
        let (min, max) = parts.iter().fold((i64::MAX, i64::MIN), |(min, max), part| {
            (min.min(part.range.min), max.max(part.range.max))
        });
        (!parts.is_empty()).then_some(TimeRange::new(min, max))
    }

    /// How many parts it has.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.inner.directory.parts.len()
    }

    /// The lowest and the highest priority of its parts. None if there is no part.
    #[must_use]
    pub fn priorities(&self) -> Option<(u64, u64)> {
        let priorities = self.inner.directory.parts.iter().map(|part| part.priority);
        Some((priorities.clone().min()?, priorities.max()?))
    }

    /// The series that meet all of `matchers`.
    ///
    /// # Errors
    /// When the index is damaged or cannot be read.
    pub fn select(&self, matchers: &[CompiledMatcher]) -> Result<RoaringBitmap> {
        self.inner.index.select(matchers).map_err(|error| self.index_error(error))
    }

    /// The labels of the series `ids`, in their order.
    ///
    /// # Errors
    /// When the index is damaged or cannot be read.
    pub fn labels(&self, ids: &RoaringBitmap) -> Result<Vec<Labels>> {
        self.inner.index.labels(ids).map_err(|error| self.index_error(error))
    }

    /// A reader of samples, for one thread; quickest when asked for ascending ids. It sees the deletions of now.
    #[must_use]
    pub fn reader(&self) -> SeriesReader<'_> {
        SeriesReader::new(self)
    }

    /// The exemplars of the series `ids` inside `range` that are not deleted, ascending by id, in the order in which
    /// they were written.
    ///
    /// # Errors
    /// When a page is damaged or cannot be read.
    pub fn exemplars(&self, ids: &RoaringBitmap, range: TimeRange) -> Result<Vec<(u32, Vec<Exemplar>)>> {
        let mut found: Vec<SeriesExemplars> = Vec::new();
        self.visit_exemplars(ids, range, &mut |id, exemplar| {
            match found.last_mut() {
                Some((last, all)) if *last == id => all.push(exemplar),
                _ => found.push((id, vec![exemplar])),
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// As [`Block::exemplars`], one after the other to `visit`, as long as it wants more.
    ///
    /// # Errors
    /// When a page is damaged or cannot be read.
    pub fn visit_exemplars(
        &self,
        ids: &RoaringBitmap,
        range: TimeRange,
        visit: &mut dyn FnMut(u32, Exemplar) -> ControlFlow<()>,
    ) -> Result<()> {
        let deletions = self.deletions();
        let mut deleted = Vec::new();
        for page in 0..self.inner.directory.exemplars.len() {
            let Some(entry) = self.inner.directory.exemplars.get(page) else { break };
            if ids.range_cardinality(entry.first..=entry.last) == 0 {
                continue;
            }
            for (id, exemplars) in self.exemplar_page(page)? {
                if !ids.contains(id) {
                    continue;
                }
                deletions.ranges(id, &mut deleted);
                for exemplar in exemplars {
                    let t = exemplar.timestamp;
                    if range.contains(t)
                        && !tombstones::is_deleted(&deleted, t)
                        && visit(id, exemplar).is_break()
                    {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The metadata of all metrics, sorted by name.
    ///
    /// # Errors
    /// When a page is damaged or cannot be read.
    pub fn metadata(&self) -> Result<Vec<MetricMetadata>> {
        let mut all = Vec::new();
        for unit in &self.inner.directory.metadata {
            all.append(&mut self.inner.source.page(Section::Metadata, *unit, decode_metadata)?);
        }
        Ok(all)
    }

    /// The tombstones in force.
    #[must_use]
    pub fn tombstones(&self) -> Vec<Tombstone> {
        self.deletions().tombstones.clone()
    }

    /// About how many samples, of both kinds, the tombstones in force cover. Nothing is read: in each frame the series
    /// that are meant, as a share of its slots, times the share of its part's time that is deleted for them. Exact where
    /// whole frames and parts are deleted or untouched; otherwise as good as series of a frame are alike and samples are
    /// evenly spread. Never more than there are.
    #[must_use]
    pub fn deleted_samples(&self) -> u64 {
        self.deletions().deleted_samples(&self.inner.directory.parts)
    }

    /// Grows with each change of the tombstones, over restarts too: a merge is only good if it has not changed since.
    #[must_use]
    pub fn tombstones_generation(&self) -> u64 {
        self.deletions().generation
    }

    /// Deletes the samples of the series that meet all of `tombstone`'s matchers inside its ranges; durable and in force
    /// for new readers on return. Answers whether any series of the block is meant; if not, nothing is written.
    ///
    /// # Errors
    /// When a matcher does not compile, there are too many tombstones, the index is damaged, or the file system refuses;
    /// nothing is deleted then, though a file that was renamed but not synced may come to count after a restart.
    pub fn delete(&self, tombstone: Tombstone) -> Result<bool> {
        tombstones::check(&tombstone)?;
        // The range of the block, not that of its samples: exemplars may lie outside the latter.
        let range = self.meta().spec.range.closed();
        if !tombstone.ranges.iter().any(|deleted| deleted.overlaps(&range)) {
            return Ok(false);
        }
        let ids = self.resolve(&tombstone.matchers)?;
        if ids.is_empty() {
            return Ok(false);
        }
        let _deleting = self.inner.deleting.lock();
        let now = self.deletions();
        let (mut all, mut series) = (now.tombstones.clone(), now.series.clone());
        all.push(tombstone);
        series.push(ids);
        let ulid = self.meta().spec.ulid;
        let generation = now.generation + 1;
        tombstones::write_file(&self.inner.fs, &self.tombstones_path(), ulid, generation, &all)?;
        *self.inner.deletions.write() = Arc::new(Deletions::new(generation, all, series));
        Ok(true)
    }

    pub(crate) fn disk_index(&self) -> &DiskIndex<IndexSource> {
        &self.inner.index
    }

    pub(crate) fn deletions(&self) -> Arc<Deletions> {
        Arc::clone(&self.inner.deletions.read())
    }

    /// Where the hotcache starts: behind all units.
    pub(crate) fn hotcache_off(&self) -> u64 {
        self.inner.hotcache_off
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    pub(crate) fn source(&self) -> &Source {
        &self.inner.source
    }

    pub(crate) fn exemplar_page(&self, page: usize) -> Result<Vec<SeriesExemplars>> {
        let Some(entry) = self.inner.directory.exemplars.get(page) else { return Ok(Vec::new()) };
        let (source, section, off) = (&self.inner.source, Section::Exemplars, entry.unit.off);
        let series = source.page(section, entry.unit, decode_exemplars)?;
        let count = series.iter().map(|(_, exemplars)| exemplars.len() as u64).sum();
        source.equal(section, off, "number of exemplars", (entry.exemplars.into(), count))?;
        let end = |series: Option<&SeriesExemplars>| series.map_or(u32::MAX, |(id, _)| *id).into();
        source.equal(section, off, "first series", (entry.first.into(), end(series.first())))?;
        source.equal(section, off, "last series", (entry.last.into(), end(series.last())))?;
        Ok(series)
    }

    fn tombstones_path(&self) -> std::path::PathBuf {
        let dir = self.path().parent().unwrap_or_else(|| Path::new("."));
        tombstones_path(dir, self.meta().spec.ulid)
    }

    fn load_tombstones(&self) -> Result<()> {
        let ulid = self.meta().spec.ulid;
        let path = self.tombstones_path();
        let (generation, tombstones) = tombstones::read_file(&self.inner.fs, &path, ulid)?;
        let series = tombstones.iter().map(|tombstone| self.resolve(&tombstone.matchers));
        let series = series.collect::<Result<Vec<_>>>()?;
        *self.inner.deletions.write() = Arc::new(Deletions::new(generation, tombstones, series));
        Ok(())
    }

    fn resolve(&self, matchers: &[Matcher]) -> Result<RoaringBitmap> {
        self.select(&CompiledMatcher::compile_all(matchers)?)
    }
}

/// Reads footer and hotcache.
fn open_directory(source: &Source) -> Result<(Directory, Footer)> {
    let file_len = source.len()?;
    let footer_off = file_len.saturating_sub(FOOTER_BYTES as u64);
    let smallest = HEADER_BYTES + FOOTER_BYTES as u64;
    if file_len < smallest {
        let error = impossible("length of the file", smallest, file_len);
        return Err(source.damaged(Section::Footer, 0, error));
    }
    let tail_len = file_len.min(TAIL_BYTES);
    let tail_off = file_len - tail_len;
    let tail = source.read_raw(tail_off, tail_len as usize)?;
    let (before, footer) = tail.split_at_checked(tail.len() - FOOTER_BYTES).unwrap_or_default();
    let footer = Footer::decode(footer, file_len).map_err(|error| match error {
        FooterError::Content(error) => source.damaged(Section::Footer, footer_off, error),
        FooterError::Checksum { expected, got } => {
            let (path, section) = (source.path().to_path_buf(), Section::Footer);
            Error::Checksum { path, section, off: footer_off, expected, got }
        }
        FooterError::Version(got) => foreign(source, Section::Footer, got),
    })?;
    let in_tail = footer.hotcache_off.checked_sub(tail_off).and_then(|off| before.get(off as usize..));
    let (more, off) = (footer.hotcache_len as usize, footer.hotcache_off);
    let read;
    let hotcache = match in_tail {
        Some(hotcache) => hotcache,
        None => {
            read = source.read_raw(off, more)?;
            &read
        }
    };
    source.verify(Section::Hotcache, off, footer.hotcache_crc, crc32(hotcache))?;
    let directory = Directory::decode(hotcache, footer.version, off);
    let directory = directory.map_err(|error| source.damaged(Section::Hotcache, off, error))?;
    Ok((directory, footer))
}

/// Gives an error of the index its place in the file; what the file system refused stays that, for it is no damage.
fn damaged_index(path: &Path, directory: &Directory, hotcache_off: u64, source: DiskIndexError) -> Error {
    let source = match source {
        DiskIndexError::Read { section, offset, len, source } => match source.downcast::<Error>() {
            Ok(refused) => return *refused,
            Err(source) => DiskIndexError::Read { section, offset, len, source },
        },
        source => source,
    };
    let (section, start) = match source.section() {
        IndexSection::Dictionaries => (Section::Dictionaries, directory.dictionaries.off),
        IndexSection::Postings => (Section::Postings, directory.postings.off),
        IndexSection::Forward => (Section::Forward, directory.forward.off),
        // Read whole with the hotcache, which has it.
        _ => (Section::Hotcache, hotcache_off),
    };
    let off = if section == Section::Hotcache { start } else { start.saturating_add(source.offset()) };
    Error::Index { path: path.to_path_buf(), section, off, source }
}

fn foreign(source: &Source, section: Section, got: u8) -> Error {
    Error::ForeignVersion { path: source.path().to_path_buf(), section, got, expected: FORMAT_VERSION }
}
