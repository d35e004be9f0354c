//! Runs: what an import has written of a window, sorted by series; and the block they become.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, btree_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

use chronolith_block::{
    Block, BlockCache, BlockRange, BlockSpec, BlockWriter, SeriesReader, SeriesSamples, Ulid, block_path,
    series_order,
};
use chronolith_head::HeadView;
use chronolith_index::CompiledMatcher;
use chronolith_model::{Histogram, Labels, METRIC_NAME, Matcher, TenantId, TimeRange, Timestamp};
use chronolith_storage::Samples;

use super::ImportError;
use crate::{
    blocks::{IMPORTED_LEVEL, Version},
    deletion, extras,
    query::merge::{end, settle},
    store::Store,
};

/// So many runs of a window are merged into one: each is an open file with buffers.
const RUNS_MAX: usize = 32;
/// A series may have so many samples in a block of an import.
const PART_SAMPLES_MAX: usize = 1 << 16;
/// What runs have of one series is merged in memory, at most so many samples and bytes of histograms beyond one run's;
/// where there is more, the block becomes several of shorter time.
const SERIES_SAMPLES_MAX: usize = 2 * PART_SAMPLES_MAX;
const SERIES_BYTES_MAX: usize = 32 << 20;
/// Bytes of opened pieces kept for a merge of runs.
const CACHE_BYTES: usize = 8 << 20;

/// The runs of a window, in the order they came.
#[derive(Debug)]
pub(super) struct Runs {
    window: TimeRange,
    files: Vec<PathBuf>,
}

/// What of a flush was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) runs: u64,
    /// Samples that earlier runs had already, as far as that is known by now.
    pub(super) duplicates: u64,
}

/// What a merge of runs wrote.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Merged {
    pub(super) samples: u64,
    pub(super) duplicates: u64,
}

/// How series come together.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Order(Labels);

impl Ord for Order {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        series_order(&self.0, &other.0)
    }
}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What the head has, metric by metric.
struct InHead<'a> {
    version: Arc<Version>,
    tenant: &'a TenantId,
    view: HeadView,
    metric: Option<String>,
    series: HashMap<Labels, u32>,
}

impl Runs {
    pub(super) const fn new(window: TimeRange) -> Self {
        Self { window, files: Vec::new() }
    }

    /// Writes what `series`, sorted, have in the window.
    pub(super) fn write(
        &mut self,
        store: &Store,
        tenant: &TenantId,
        dir: &Path,
        series: &[(Labels, Samples)],
    ) -> Result<Written, ImportError> {
        let mut written = Written::default();
        let mut ranges = vec![self.window];
        while let Some(range) = ranges.pop() {
            let ulid = store.blocks.next_ulid();
            let mut output = Output::create(store, tenant, dir, ulid, range)?;
            let mut dense = false;
            for (labels, samples) in series {
                let piece = within(samples, range);
                if !output.push(labels, &piece)? {
                    dense = true;
                    break;
                }
            }
            if dense {
                drop(output);
                halve(range, &mut ranges);
            } else if output.finish()? {
                self.files.push(block_path(dir, ulid));
                written.runs += 1;
            }
        }
        if self.files.len() > RUNS_MAX {
            let old = std::mem::take(&mut self.files);
            let mut blocks = Vec::new();
            let merged = merge(store, tenant, &old, self.window, dir, false, &mut blocks)?;
            written.duplicates += merged.duplicates;
            self.files = blocks.iter().map(|ulid| block_path(dir, *ulid)).collect();
            for file in old {
                store.env.fs.remove_file(&file)?;
            }
        }
        Ok(written)
    }

    /// Merges the runs into blocks in `dir`, mostly one. Samples that the head has too get its values.
    pub(super) fn merge(
        self,
        store: &Store,
        tenant: &TenantId,
        dir: &Path,
        blocks: &mut Vec<Ulid>,
    ) -> Result<Merged, ImportError> {
        let merged = merge(store, tenant, &self.files, self.window, dir, true, blocks)?;
        for file in self.files {
            store.env.fs.remove_file(&file)?;
        }
        Ok(merged)
    }
}

/// A block that is being written.
struct Output {
    writer: BlockWriter,
}

impl Output {
    fn create(
        store: &Store,
        tenant: &TenantId,
        dir: &Path,
        ulid: Ulid,
        range: TimeRange,
    ) -> Result<Self, ImportError> {
        let spec = BlockSpec {
            ulid,
            tenant: tenant.clone(),
            range: BlockRange::new(range.min.saturating_sub(1), range.max),
            level: IMPORTED_LEVEL,
            created: store.env.clock.now_ms(),
            sources: vec![ulid],
        };
        let mut writer = BlockWriter::create(&store.env.fs, dir, spec)?;
        writer.begin_part(store.blocks.next_priority())?;
        Ok(Self { writer })
    }

    /// Adds a series; false if it has too many samples for one block.
    fn push(&mut self, labels: &Labels, samples: &Samples) -> Result<bool, ImportError> {
        let (floats, histograms, _) = end(samples);
        if floats.max(histograms) > PART_SAMPLES_MAX {
            return Ok(false);
        }
        if floats + histograms > 0 {
            extras::write_series(&mut self.writer, labels, samples)?;
        }
        Ok(true)
    }

    /// Makes it durable; false if there is nothing.
    fn finish(mut self) -> Result<bool, ImportError> {
        self.writer.end_part()?;
        if self.writer.series() == 0 {
            return Ok(false);
        }
        self.writer.finish()?;
        Ok(true)
    }
}

/// Merges runs into blocks of `range`, or of parts of it where one cannot hold a series.
fn merge(
    store: &Store,
    tenant: &TenantId,
    files: &[PathBuf],
    range: TimeRange,
    dir: &Path,
    with_head: bool,
    blocks: &mut Vec<Ulid>,
) -> Result<Merged, ImportError> {
    let cache = BlockCache::new(CACHE_BYTES);
    let opened: Result<Vec<Block>, _> =
        files.iter().map(|file| Block::open(&store.env.fs, file, &cache)).collect();
    let runs = opened?;
    let mut merged = Merged::default();
    let mut ranges = vec![range];
    while let Some(range) = ranges.pop() {
        let ulid = store.blocks.next_ulid();
        let mut head = with_head.then(|| InHead::new(store, tenant, range)).flatten();
        let mut output = Output::create(store, tenant, dir, ulid, range)?;
        match merge_range(store, &runs, range, &mut output, head.as_mut())? {
            None => {
                drop(output);
                halve(range, &mut ranges);
            }
            Some(of_range) => {
                merged.duplicates += of_range.duplicates;
                merged.samples += of_range.samples;
                if output.finish()? {
                    blocks.push(ulid);
                }
            }
        }
    }
    Ok(merged)
}

/// Merges what runs have in `range`; `None` if a series has too many samples.
fn merge_range(
    store: &Store,
    runs: &[Block],
    range: TimeRange,
    output: &mut Output,
    mut head: Option<&mut InHead<'_>>,
) -> Result<Option<Merged>, ImportError> {
    let mut merged = Merged::default();
    let mut readers: Vec<SeriesReader<'_>> = runs.iter().map(Block::reader).collect();
    let mut series: Vec<_> =
        runs.iter().map(|run| (0_u32..).zip(run.index().series(0..run.meta().series))).collect();
    // By series, the runs that have it next, with its number there.
    let mut next: BTreeMap<Order, Vec<(usize, u32)>> = BTreeMap::new();
    let mut advance = |run: usize, next: &mut BTreeMap<Order, Vec<(usize, u32)>>| {
        let (Some(series), Some(block)) = (series.get_mut(run), runs.get(run)) else { return Ok(()) };
        if let Some((id, labels)) = series.next() {
            let labels = labels.map_err(|error| block.index_error(error))?;
            match next.entry(Order(labels)) {
                Entry::Vacant(place) => {
                    place.insert(vec![(run, id)]);
                }
                Entry::Occupied(mut place) => place.get_mut().push((run, id)),
            }
        }
        Ok::<(), chronolith_block::Error>(())
    };
    for run in 0..runs.len() {
        advance(run, &mut next)?;
    }
    let mut columns = SeriesSamples::default();
    while let Some((Order(labels), mut of)) = next.pop_first() {
        if store.stopping() {
            return Err(ImportError::Stopped);
        }
        of.sort_unstable();
        let (mut samples, mut starts) = (Samples::default(), Vec::new());
        for (run, id) in &of {
            let Some(reader) = readers.get_mut(*run) else { continue };
            columns.clear();
            reader.read(*id, range, &mut columns)?;
            starts.push(end(&samples));
            samples.timestamps.append(&mut columns.timestamps);
            samples.values.append(&mut columns.values);
            samples.histogram_timestamps.append(&mut columns.histogram_timestamps);
            samples.histograms.append(&mut columns.histograms);
            samples.starts.append(&mut columns.starts);
            if is_too_much(&samples) && range.min < range.max {
                return Ok(None);
            }
        }
        let before = end(&samples);
        settle(&mut samples, &starts);
        let left = end(&samples);
        let known = match head.as_mut() {
            Some(head) => head.settle(&labels, range, &mut samples)?,
            None => 0,
        };
        merged.samples += (left.0 + left.1 - known) as u64;
        merged.duplicates += (before.0 + before.1 - left.0 - left.1 + known) as u64;
        if !output.push(&labels, &samples)? {
            return Ok(None);
        }
        // Later runs first, so that a series is complete before it is taken: each run has a series once.
        of.sort_unstable_by_key(|(run, _)| Reverse(*run));
        for (run, _) in of {
            advance(run, &mut next)?;
        }
    }
    Ok(Some(merged))
}

impl<'a> InHead<'a> {
    /// What the head has in `range`, if it has anything there.
    fn new(store: &Store, tenant: &'a TenantId, range: TimeRange) -> Option<Self> {
        let version = store.blocks.version();
        store.head.times().filter(|times| times.overlaps(&range))?;
        let view = HeadView::open_from(Arc::clone(&store.head), tenant, range, version.head_from);
        Some(Self { version, tenant, view, metric: None, series: HashMap::new() })
    }

    /// Gives the samples that series `labels` has in the head as well the values they have there, which count. They are
    /// kept: what the head has need not be durable, and may be gone after a crash. Returns how many there are.
    fn settle(
        &mut self,
        labels: &Labels,
        range: TimeRange,
        samples: &mut Samples,
    ) -> Result<usize, ImportError> {
        let metric = labels.metric_name().unwrap_or_default();
        if self.metric.as_deref() != Some(metric) {
            self.metric = Some(metric.to_owned());
            self.series.clear();
            let matchers = CompiledMatcher::compile_all(&[Matcher::equal(METRIC_NAME, metric)]);
            let found = self.view.select(&matchers.map_err(chronolith_block::Error::from)?);
            self.series.extend(found.labels.into_iter().zip(found.series));
        }
        let Some(number) = self.series.get(labels) else { return Ok(0) };
        let mut all = Samples::default();
        self.view.fetch(&[*number], range).read(0, &mut all)?;
        let deleted = deletion::deleted(&self.version.deletions, self.tenant, labels);
        deletion::remove(&mut all, (0, 0, 0), &deleted);
        deletion::retain(&mut all, (0, 0, 0), |t| {
            samples.timestamps.binary_search(&t).is_ok()
                || samples.histogram_timestamps.binary_search(&t).is_ok()
        });
        let begin = end(&all);
        let known = begin.0 + begin.1;
        if known == 0 {
            return Ok(0);
        }
        all.timestamps.append(&mut samples.timestamps);
        all.values.append(&mut samples.values);
        all.histogram_timestamps.append(&mut samples.histogram_timestamps);
        all.histograms.append(&mut samples.histograms);
        all.starts.append(&mut samples.starts);
        settle(&mut all, &[(0, 0, 0), begin]);
        *samples = all;
        Ok(known)
    }
}

/// Whether the samples of one series are more than may be in memory at once.
fn is_too_much(samples: &Samples) -> bool {
    let (floats, histograms, _) = end(samples);
    floats.max(histograms) > SERIES_SAMPLES_MAX
        || samples.histograms.iter().map(Histogram::heap_bytes).sum::<usize>() > SERIES_BYTES_MAX
}

/// What of `samples` lies in `range`.
fn within(samples: &Samples, range: TimeRange) -> Samples {
    let places = |times: &[Timestamp]| {
        times.partition_point(|t| *t < range.min)..times.partition_point(|t| *t <= range.max)
    };
    let (floats, histograms) = (places(&samples.timestamps), places(&samples.histogram_timestamps));
    Samples {
        timestamps: samples.timestamps.get(floats.clone()).unwrap_or_default().to_vec(),
        values: samples.values.get(floats).unwrap_or_default().to_vec(),
        histogram_timestamps: samples
            .histogram_timestamps
            .get(histograms.clone())
            .unwrap_or_default()
            .to_vec(),
        histograms: samples.histograms.get(histograms).unwrap_or_default().to_vec(),
        // Steps: those before the range are needed too.
        starts: samples.starts.iter().filter(|step| step.since <= range.max).copied().collect(),
    }
}

/// The halves of a range, the earlier one next.
fn halve(range: TimeRange, left: &mut Vec<TimeRange>) {
    let middle = range.min.midpoint(range.max);
    left.push(TimeRange::new(middle + 1, range.max));
    left.push(TimeRange::new(range.min, middle));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_one_series_is_bounded() {
        let mut samples = Samples::default();
        (0..=SERIES_SAMPLES_MAX as i64).for_each(|t| {
            assert!(!is_too_much(&samples), "{t}");
            samples.push(t, 1.0);
        });
        assert!(is_too_much(&samples));
        let buckets = 4000_u32;
        let parts = chronolith_model::histogram::HistogramParts::<u64> {
            schema: 3,
            sum: 1.0,
            count: u64::from(buckets),
            positive_spans: vec![chronolith_model::histogram::Span { offset: 0, length: buckets }],
            positive_buckets: vec![1; buckets as usize],
            ..chronolith_model::histogram::HistogramParts::default()
        };
        let histogram = Histogram::Integer(parts.build(None).expect("valid"));
        let mut samples = Samples::default();
        let fits = SERIES_BYTES_MAX / histogram.heap_bytes();
        (0..fits as i64).for_each(|t| samples.push_histogram(t, histogram.clone()));
        assert!(!is_too_much(&samples));
        samples.push_histogram(fits as i64, histogram);
        assert!(is_too_much(&samples));
    }
}
