//! Series of head and blocks, as one set.

use std::{
    fmt,
    mem::take,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use chronolith_block::{Block, ReadCounts, SeriesReader, SeriesSamples};
use chronolith_head::Fetched;
use chronolith_model::{Labels, Sample, TimeRange, Timestamp};
use chronolith_storage::{
    BoxFuture, ReadStats, Samples, SelectRequest, SeriesBatch, SeriesSet, StorageError,
};
use parking_lot::Mutex;

use super::{
    View,
    merge::{end, settle},
};
use crate::deletion;

/// The number of the head among the sources of a set.
const HEAD: u32 = u32::MAX;

/// At most so many readers of each block wait in a batch to be used again.
const READERS_MAX: usize = 64;

/// Series, with where their samples are.
struct MergedSet {
    view: View,
    /// Those that have some of the series, by precedence.
    blocks: Vec<Block>,
    labels: Vec<Labels>,
    /// Where the sources of each series begin in `sources`; one more than series.
    starts: Vec<u32>,
    sources: Vec<Source>,
    range: TimeRange,
    /// What is deleted in the head, by series; empty if nothing is.
    deleted: Vec<Vec<TimeRange>>,
    /// All newest samples, looked up when the first is asked for.
    last: OnceLock<Vec<Option<Sample>>>,
    /// What batches that are gone have read.
    read: Mutex<ReadCounts>,
    copied_bytes: AtomicU64,
}

/// A series in a source.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// Number of the block, or [`HEAD`].
    source: u32,
    /// The number of the series there.
    series: u32,
}

/// The series that meet `request`.
pub(super) fn select(view: &View, request: &SelectRequest) -> Result<Arc<dyn SeriesSet>, StorageError> {
    let range = view.shown(request.range);
    let mut found: Vec<(Labels, Source)> = Vec::new();
    let mut blocks = Vec::new();
    for block in view.blocks_in(range) {
        let failed = |error| view.failed(block, &error);
        let ids = block.select(&request.matchers).map_err(failed)?;
        if ids.is_empty() {
            continue;
        }
        let labels = block.labels(&ids).map_err(failed)?;
        let source = blocks.len() as u32;
        found
            .extend(labels.into_iter().zip(&ids).map(|(labels, series)| (labels, Source { source, series })));
        blocks.push(block.clone());
    }
    let head = view.head.select(&request.matchers);
    let (mut labels, mut starts, mut sources);
    if found.is_empty() {
        // Nothing to merge: the head's are sorted.
        labels = head.labels;
        starts = (0..=labels.len() as u32).collect();
        sources = head.series.into_iter().map(|series| Source { source: HEAD, series }).collect();
    } else {
        found.extend(
            head.labels.into_iter().zip(head.series.iter().map(|id| Source { source: HEAD, series: *id })),
        );
        // Each source is sorted, or nearly: this merges them. Of equal labels the order of sources stays.
        found.sort_by(|a, b| a.0.cmp(&b.0));
        (labels, starts, sources) = (Vec::new(), Vec::new(), Vec::with_capacity(found.len()));
        for (series, source) in found {
            if labels.last() != Some(&series) {
                starts.push(sources.len() as u32);
                labels.push(series);
            }
            sources.push(source);
        }
        starts.push(sources.len() as u32);
    }
    let deletions = &view.version.deletions;
    let deleted = if deletions.iter().any(|deletion| deletion.tombstone.tenant == view.tenant) {
        labels.iter().map(|labels| deletion::deleted(deletions, &view.tenant, labels)).collect()
    } else {
        Vec::new()
    };
    Ok(Arc::new(MergedSet {
        view: view.clone(),
        blocks,
        labels,
        starts,
        sources,
        range,
        deleted,
        last: OnceLock::new(),
        read: Mutex::default(),
        copied_bytes: AtomicU64::new(0),
    }))
}

impl fmt::Debug for MergedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("MergedSet");
        f.field("series", &self.labels.len()).field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

impl MergedSet {
    /// The sources of a series, the head last.
    fn sources(&self, index: usize) -> &[Source] {
        let bounds = self.starts.get(index).zip(self.starts.get(index + 1));
        bounds.and_then(|(from, to)| self.sources.get(*from as usize..*to as usize)).unwrap_or_default()
    }

    /// The number of a series in the head.
    fn in_head(&self, index: usize) -> Option<u32> {
        self.sources(index).last().filter(|source| source.source == HEAD).map(|source| source.series)
    }

    fn deleted(&self, index: usize) -> &[TimeRange] {
        self.deleted.get(index).map(Vec::as_slice).unwrap_or_default()
    }

    fn last_samples(&self) -> Vec<Option<Sample>> {
        let numbers: Vec<u32> = (0..self.labels.len()).filter_map(|index| self.in_head(index)).collect();
        let mut in_head = self.view.head.last_samples(&numbers).into_iter();
        let newest: Vec<Timestamp> = self
            .blocks
            .iter()
            .map(|block| block.samples_range().map_or(Timestamp::MIN, |range| range.max))
            .collect();
        let last = |index: usize| {
            self.in_head(index)?;
            let sample = in_head.next()??;
            // A block may have something newer: one that a cut wrote which did not come to its end.
            let block = |source: &Source| newest.get(source.source as usize).copied();
            let in_blocks = self.sources(index).iter().filter_map(block).max();
            let deleted = self.deleted(index).iter().any(|range| range.contains(sample.timestamp));
            (in_blocks < Some(sample.timestamp) && !deleted).then_some(sample)
        };
        (0..self.labels.len()).map(last).collect()
    }
}

impl SeriesSet for MergedSet {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.labels[index].clone()
    }

    fn last_sample(&self, index: usize) -> Option<Sample> {
        self.last.get_or_init(|| self.last_samples())[index]
    }

    fn read_stats(&self) -> ReadStats {
        let read = *self.read.lock();
        let memory_series = self.sources.iter().filter(|source| source.source == HEAD).count() as u64;
        ReadStats {
            memory_series,
            block_series: self.sources.len() as u64 - memory_series,
            blocks: self.blocks.len() as u64,
            frames: read.frames,
            cache_hits: read.cache_hits,
            cache_misses: read.cache_misses,
            read_bytes: read.bytes,
            copied_bytes: self.copied_bytes.load(Ordering::Relaxed),
        }
    }

    fn fetch<'a>(
        &'a self,
        indices: Range<usize>,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesBatch + 'a>, StorageError>> {
        let mut places = Vec::with_capacity(indices.len());
        let mut numbers = Vec::new();
        for index in indices.clone() {
            places.push(self.in_head(index).map(|_| numbers.len()));
            numbers.extend(self.in_head(index));
        }
        let fetched = self.view.head.fetch(&numbers, self.range);
        let readers = self.blocks.iter().map(|_| Mutex::new(Vec::new())).collect();
        let batch = MergedBatch { set: self, first: indices.start, places, fetched, readers };
        self.copied_bytes.fetch_add(batch.fetched.bytes() as u64, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(Arc::new(batch) as Arc<dyn SeriesBatch + 'a>)))
    }
}

/// Some of the series: copies of the head's chunks; blocks are read when they are asked for.
struct MergedBatch<'a> {
    set: &'a MergedSet,
    first: usize,
    /// By series, its place among the fetched ones of the head.
    places: Vec<Option<usize>>,
    fetched: Fetched,
    /// By block, readers that nobody uses at the moment: each remembers what it opened last.
    readers: Vec<Mutex<Vec<SeriesReader<'a>>>>,
}

impl fmt::Debug for MergedBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergedBatch").field("first", &self.first).finish_non_exhaustive()
    }
}

impl<'a> MergedBatch<'a> {
    fn read_block(&self, source: Source, into: &mut Samples) -> Result<(), StorageError> {
        let set: &'a MergedSet = self.set;
        let place = source.source as usize;
        let (Some(block), Some(readers)) = (set.blocks.get(place), self.readers.get(place)) else {
            return Ok(());
        };
        let mut reader = readers.lock().pop().unwrap_or_else(|| block.reader());
        let mut columns = SeriesSamples {
            timestamps: take(&mut into.timestamps),
            values: take(&mut into.values),
            histogram_timestamps: take(&mut into.histogram_timestamps),
            histograms: take(&mut into.histograms),
            starts: Vec::new(),
        };
        let read = reader.read(source.series, set.range, &mut columns);
        into.timestamps = columns.timestamps;
        into.values = columns.values;
        into.histogram_timestamps = columns.histogram_timestamps;
        into.histograms = columns.histograms;
        into.starts.append(&mut columns.starts);
        read.map_err(|error| set.view.failed(block, &error))?;
        let mut readers = readers.lock();
        if readers.len() < READERS_MAX {
            readers.push(reader);
        } else {
            set.read.lock().add(reader.counts());
        }
        Ok(())
    }

    fn read_head(&self, index: usize, place: usize, into: &mut Samples) -> Result<(), StorageError> {
        let start = end(into);
        let mut unread = Vec::new();
        self.fetched.read_rest(place, into, &mut unread).map_err(|error| StorageError::Corrupt {
            reason: format!("chunk in memory of {}: {error}", self.set.labels(index)),
        })?;
        // The rest is the answer, with a warning.
        self.set.view.head.note_unread(unread);
        deletion::remove(into, start, self.set.deleted(index));
        Ok(())
    }
}

impl Drop for MergedBatch<'_> {
    fn drop(&mut self) {
        let mut read = ReadCounts::default();
        for reader in self.readers.iter_mut().flat_map(|readers| readers.get_mut().iter()) {
            read.add(reader.counts());
        }
        self.set.read.lock().add(read);
    }
}

impl SeriesBatch for MergedBatch<'_> {
    fn read(&self, index: usize, into: &mut Samples) -> Result<(), StorageError> {
        let Some(at) = index.checked_sub(self.first) else { return Ok(()) };
        let place = self.places.get(at).copied().flatten();
        let mut starts = Vec::new();
        for source in self.set.sources(index) {
            starts.push(end(into));
            match place {
                Some(place) if source.source == HEAD => self.read_head(index, place, into)?,
                _ => self.read_block(*source, into)?,
            }
        }
        settle(into, &starts);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.fetched.bytes() + self.places.capacity() * size_of::<Option<usize>>()
    }
}
