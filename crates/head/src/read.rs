//! Reading: a tenant's view of the head.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use chronolith_chunk::decode_range_into;
use chronolith_index::{CompiledMatcher, Count, PostingsSource as _, Selects, resolve};
use chronolith_model::{Labels, METRIC_NAME, Sample, TenantId, TimeRange, Timestamp};
use chronolith_storage::{CardinalityEntry, Limited, Samples, StartTimestamp, StorageStats};
use roaring::RoaringBitmap;

use crate::{
    closed::ClosedChunk,
    cut::CutPoint,
    error::ReadError,
    head::Head,
    histogram::HistogramCopy,
    late::{LateCopy, merge_floats},
    options::SHARDS,
    shard::{Ref, ShardState},
    shared_index::SharedIndex,
    tenant::Tenant,
    unread::UnreadChunk,
};

/// Series whose memory is fetched ahead of their copies.
const AHEAD: usize = 32;

/// Series copied under one hold of a shard's lock.
const HELD_MAX: usize = 1024;
/// So many series are selected in about half a millisecond.
const QUICK_SERIES_MAX: usize = 1_000;

/// What one tenant saw when the view was opened: samples newer than the newest of then are not shown.
///
/// A sample that arrives later with an older timestamp, a late one or of a series that lags behind, may show up; and what
/// retention drops while the view lives is gone from it too.
#[derive(Debug)]
pub struct HeadView {
    pub(crate) head: Arc<Head>,
    pub(crate) tenant: Option<Arc<Tenant>>,
    range: TimeRange,
    /// What blocks have already.
    head_from: CutPoint,
    /// Of all samples, when the view was opened.
    newest: Timestamp,
}

/// Series chosen by matchers, in the order of their labels.
#[derive(Debug, Default)]
pub struct Selection {
    /// Their numbers.
    pub series: Vec<u32>,
    /// Their labels.
    pub labels: Vec<Labels>,
}

/// Samples of some series, copied or shared so that nothing moves under the reader.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Of samples in order, and of late ones.
    ranges: Option<(TimeRange, TimeRange)>,
    /// Their numbers.
    series: Vec<u32>,
    entries: Vec<Entry>,
    chunks: Vec<ClosedChunk>,
    open: Vec<u8>,
    late: Vec<LateCopy>,
    histograms: Vec<HistogramCopy>,
    starts: Vec<StartTimestamp>,
}

/// Where a series' chunks are.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    chunks: (usize, usize),
    open: (usize, usize),
    /// Place of the late samples, plus one; 0 for a series without any.
    late: usize,
    /// The same of the histograms.
    histograms: usize,
    starts: (usize, usize),
}

impl HeadView {
    /// A view of `tenant`'s samples in `range`, as they are now, without blocks.
    #[must_use]
    pub fn open(head: Arc<Head>, tenant: &TenantId, range: TimeRange) -> Self {
        Self::open_from(head, tenant, range, CutPoint::NONE)
    }

    /// A view of `tenant`'s samples in `range`, as they are now, less those that blocks have according to `head_from`.
    /// They are one version of the data together as long as no cut beyond `head_from` is finished.
    #[must_use]
    pub fn open_from(head: Arc<Head>, tenant: &TenantId, range: TimeRange, head_from: CutPoint) -> Self {
        let newest = head.newest();
        let range = TimeRange::new(range.min, range.max.min(newest));
        let tenant = head.tenants.get(tenant);
        Self { head, tenant, range, head_from, newest }
    }

    fn index(&self) -> Option<SharedIndex<'_>> {
        self.tenant.as_ref().map(|tenant| SharedIndex(&tenant.index))
    }

    /// The series that meet all of `matchers`.
    #[must_use]
    pub fn select(&self, matchers: &[CompiledMatcher]) -> Selection {
        let Some(index) = self.index() else { return Selection::default() };
        let Ok(ids) = resolve(&index, matchers);
        let (labels, series) = index.labelled(&ids, usize::MAX).into_iter().unzip();
        Selection { series, labels }
    }

    /// The newest sample of each of `series`, whatever the range of the view; `None` where one has arrived since it was
    /// opened, where blocks have it, or may have, and where it is a histogram.
    #[must_use]
    pub fn last_samples(&self, series: &[u32]) -> Vec<Option<Sample>> {
        let shown = self.in_order(TimeRange::new(self.head.floor(), self.newest));
        let mut last = vec![None; series.len()];
        for (shard, places) in self.head.shards.iter().zip(by_shard(series)) {
            let state = shard.lock();
            for at in places {
                let slot = Ref(series[at]).slot();
                let series = state.slab.get(slot).map(|(series, _)| series);
                let newest_histogram =
                    series.filter(|series| series.is_mixed()).and_then(|_| state.histograms.newest(slot));
                let sample = series.and_then(|series| series.last_sample());
                last[at] = sample
                    .filter(|sample| shown.contains(sample.timestamp))
                    // Behind a cut, a late one may be newer.
                    .filter(|sample| state.late.newest(slot) <= Some(sample.timestamp))
                    .filter(|sample| newest_histogram <= Some(sample.timestamp));
            }
        }
        last
    }

    /// The samples of `series` in `range`, as far as the view shows them.
    #[must_use]
    pub fn fetch(&self, series: &[u32], range: TimeRange) -> Fetched {
        let floor = self.head.floor();
        let range = TimeRange::new(range.min.max(self.range.min).max(floor), range.max.min(self.range.max));
        let in_order = self.in_order(range);
        let mut fetched = Fetched {
            ranges: Some((in_order, range)),
            series: series.to_vec(),
            entries: vec![Entry::default(); series.len()],
            ..Fetched::default()
        };
        if range.min > range.max {
            return fetched;
        }
        let by_shard = by_shard(series);
        let held = self.head.shards.iter().zip(&by_shard);
        let held = held.flat_map(|(shard, places)| places.chunks(HELD_MAX).map(move |some| (shard, some)));
        for (shard, places) in held {
            let mut state = shard.lock();
            let ShardState { slab, late, histograms, starts, accounts, .. } = &mut *state;
            for block in places.chunks(AHEAD) {
                let touched = block.iter().filter_map(|at| slab.get(Ref(series[*at]).slot()));
                std::hint::black_box(touched.fold(0, |sum, (series, _)| sum ^ series.touch()));
                for at in block {
                    let slot = Ref(series[*at]).slot();
                    let Some((state, closed)) = slab.get(slot) else { continue };
                    let (chunks, open) = state.overlapping(closed, in_order);
                    let entry = &mut fetched.entries[*at];
                    *entry = Entry {
                        chunks: (fetched.chunks.len(), fetched.chunks.len() + chunks.len()),
                        open: (fetched.open.len(), fetched.open.len() + open.len()),
                        late: 0,
                        histograms: 0,
                        starts: (0, 0),
                    };
                    if let Some(copy) = late.copy(slot, range, self.head_from, accounts) {
                        fetched.late.push(copy);
                        entry.late = fetched.late.len();
                    }
                    let mut has_late = entry.late != 0;
                    if state.is_mixed()
                        && let Some(copy) = histograms.copy(slot, (in_order, range), self.head_from, accounts)
                    {
                        has_late |= copy.has_late();
                        fetched.histograms.push(copy);
                        entry.histograms = fetched.histograms.len();
                    }
                    if state.is_started() {
                        // What blocks have is theirs to say, unless late samples are among it.
                        let shown = if has_late { range } else { in_order };
                        let first = fetched.starts.len();
                        starts.copy(slot, shown, &mut fetched.starts);
                        entry.starts = (first, fetched.starts.len());
                    }
                    fetched.chunks.extend_from_slice(chunks);
                    fetched.open.extend_from_slice(open);
                }
            }
        }
        fetched
    }

    /// What of `range` samples in order are shown of: what is behind the blocks.
    fn in_order(&self, range: TimeRange) -> TimeRange {
        let min = match self.head_from.boundary() {
            Timestamp::MIN => range.min,
            boundary => range.min.max(boundary.saturating_add(1)),
        };
        TimeRange::new(min, range.max)
    }

    /// The union of the selections of `sets`; all series if there is none.
    fn union(index: SharedIndex<'_>, sets: &[Vec<CompiledMatcher>]) -> RoaringBitmap {
        if sets.is_empty() {
            let Ok(all) = resolve(&index, &[]);
            return all;
        }
        sets.iter().fold(RoaringBitmap::new(), |union, set| {
            let Ok(ids) = resolve(&index, set);
            union | ids
        })
    }

    /// Whether the head has anything in `range` at all.
    fn concerned(&self, range: Option<TimeRange>) -> bool {
        match (range, self.head.times()) {
            (Some(range), Some(times)) => range.overlaps(&times),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    /// The label names of the series that a set of matchers selects, sorted.
    #[must_use]
    pub fn label_names(
        &self,
        sets: &[Vec<CompiledMatcher>],
        range: Option<TimeRange>,
        limit: usize,
    ) -> Limited<String> {
        let mut names = BTreeSet::new();
        self.visit_label_names(sets, range, &mut |name| add(&mut names, name));
        cut(names.into_iter(), limit)
    }

    /// Calls `visit` with the label names of the series that a set of matchers selects, as long as it wants more: in any
    /// order, some of them several times.
    pub fn visit_label_names(
        &self,
        sets: &[Vec<CompiledMatcher>],
        range: Option<TimeRange>,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) {
        let Some(index) = self.index().filter(|_| self.concerned(range)) else { return };
        let _ = index.visit_names_among(&Self::union(index, sets), visit);
    }

    /// The values of label `name` among the series that a set of matchers selects, sorted.
    #[must_use]
    pub fn label_values(
        &self,
        name: &str,
        sets: &[Vec<CompiledMatcher>],
        range: Option<TimeRange>,
        limit: usize,
    ) -> Limited<String> {
        let mut values = BTreeSet::new();
        self.visit_label_values(name, sets, range, &mut |value| add(&mut values, value));
        cut(values.into_iter(), limit)
    }

    /// Calls `visit` with the values of label `name` among the series that a set of matchers selects, as long as it wants
    /// more: in any order, some of them several times.
    pub fn visit_label_values(
        &self,
        name: &str,
        sets: &[Vec<CompiledMatcher>],
        range: Option<TimeRange>,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) {
        let Some(index) = self.index().filter(|_| self.concerned(range)) else { return };
        let _ = if sets.is_empty() {
            index.visit_values(name, visit)
        } else {
            index.visit_values_among(name, &Self::union(index, sets), visit)
        };
    }

    /// The labels of the series that a set of matchers selects, sorted.
    #[must_use]
    pub fn series(
        &self,
        sets: &[Vec<CompiledMatcher>],
        range: Option<TimeRange>,
        limit: usize,
    ) -> Limited<Labels> {
        let Some(index) = self.index().filter(|_| self.concerned(range)) else { return Limited::default() };
        // One more than wanted tells whether there are more.
        let wanted = if limit == 0 { usize::MAX } else { limit.saturating_add(1) };
        let series = index.labelled(&Self::union(index, sets), wanted);
        cut(series.into_iter().map(|(labels, _)| labels), limit)
    }

    /// Calls `visit` with the labels of the series that a set of matchers selects, as long as it wants more: in any order.
    pub fn visit_series(
        &self,
        sets: &[Vec<CompiledMatcher>],
        range: Option<TimeRange>,
        visit: &mut dyn FnMut(Labels) -> ControlFlow<()>,
    ) {
        let Some(index) = self.index().filter(|_| self.concerned(range)) else { return };
        let _ = index.visit_labels(&Self::union(index, sets), visit);
    }

    /// Whether [`HeadView::select`] with `matchers` looks at few values and series only.
    #[must_use]
    pub fn is_quick(&self, matchers: &[CompiledMatcher]) -> bool {
        let Some(tenant) = &self.tenant else { return true };
        let index = tenant.index.read();
        if index.len() <= QUICK_SERIES_MAX {
            return true;
        }
        // One that selects few is enough, if the others are asked about those, and not about all values.
        let literals = |matcher: &CompiledMatcher| match matcher.selects() {
            Selects::Literals(texts)
                if texts.len() <= QUICK_SERIES_MAX && !matcher.is_negated() && !matcher.matches_empty() =>
            {
                let count = |text: &str| index.postings(matcher.name(), text).map_or(0, |ids| ids.len());
                Some(texts.iter().map(|text| count(text)).sum())
            }
            _ => None,
        };
        let fewest: Option<u64> = matchers.iter().filter_map(literals).min();
        fewest.is_some_and(|fewest| fewest <= QUICK_SERIES_MAX as u64)
    }

    /// Counts over the tenant's series, each list at most `limit` long.
    #[must_use]
    pub fn stats(&self, limit: usize) -> StorageStats {
        let chunks = self.head.stats().chunks_closed;
        // Held for the whole of it: seldom asked, and no more than a few passes over counters.
        let Some(index) = self.tenant.as_ref().map(|tenant| tenant.index.read()) else {
            return StorageStats::default();
        };
        let name_of = |count: &Count<'_>| count.name.to_owned();
        StorageStats {
            series: index.len() as u64,
            label_pairs: index.pairs_count() as u64,
            // Each series has an open one besides.
            chunks: chunks + index.len() as u64,
            range: self.head.times(),
            series_by_metric: top(
                index.pair_counts().filter(|count| count.name == METRIC_NAME),
                limit,
                |count| count.value.to_owned(),
            ),
            values_by_label: top(index.value_counts(), limit, name_of),
            bytes_by_label: top(index.value_bytes(), limit, name_of),
            series_by_pair: top(index.pair_counts(), limit, |count| {
                format!("{}={}", count.name, count.value)
            }),
        }
    }
}

impl Fetched {
    /// Appends the samples of the `at`-th fetched series.
    ///
    /// # Errors
    /// When something that was stored cannot be read.
    pub fn read(&self, at: usize, into: &mut Samples) -> Result<(), ReadError> {
        let mut unread = Vec::new();
        self.read_rest(at, into, &mut unread)?;
        unread.first().map_or(Ok(()), |chunk| Err(chunk.error().clone()))
    }

    /// The same, without closed chunks that cannot be read: they are in `unread` then, for [`Head::note_unread`].
    ///
    /// # Errors
    /// When an open chunk, or a late one, contradicts itself.
    pub fn read_rest(
        &self,
        at: usize,
        into: &mut Samples,
        unread: &mut Vec<UnreadChunk>,
    ) -> Result<(), ReadError> {
        let (Some((in_order, range)), Some(entry)) = (self.ranges, self.entries.get(at)) else {
            return Ok(());
        };
        let reference = self.series.get(at).copied().unwrap_or(u32::MAX);
        let mut leave = |chunk: &ClosedChunk, error| unread.push(UnreadChunk::new(reference, chunk, error));
        let start = into.timestamps.len();
        for chunk in self.chunks.get(entry.chunks.0..entry.chunks.1).unwrap_or_default() {
            chunk.read_or(in_order, into, &mut leave);
        }
        let open = self.open.get(entry.open.0..entry.open.1).unwrap_or_default();
        decode_range_into(open, in_order.min, in_order.max, &mut into.timestamps, &mut into.values)?;
        if let Some(late) = entry.late.checked_sub(1).and_then(|at| self.late.get(at)) {
            merge_floats(into, start, &late.floats(range)?);
        }
        if let Some(copy) = entry.histograms.checked_sub(1).and_then(|at| self.histograms.get(at)) {
            copy.read((in_order, range), into, &mut leave)?;
        }
        into.starts.extend_from_slice(self.starts.get(entry.starts.0..entry.starts.1).unwrap_or_default());
        Ok(())
    }

    /// Bytes the copies take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.open.capacity()
            + self.chunks.capacity() * size_of::<ClosedChunk>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.series.capacity() * size_of::<u32>()
            + self.starts.capacity() * size_of::<StartTimestamp>()
            + self.late.iter().map(|late| late.bytes() + size_of::<LateCopy>()).sum::<usize>()
            + self.histograms.iter().map(HistogramCopy::bytes).sum::<usize>()
    }
}

/// The places of `series` by the shard of what stands there.
fn by_shard(series: &[u32]) -> Vec<Vec<usize>> {
    let mut places: Vec<Vec<usize>> = vec![Vec::new(); SHARDS];
    for (at, number) in series.iter().enumerate() {
        places[Ref(*number).shard()].push(at);
    }
    places
}

fn add(texts: &mut BTreeSet<String>, text: &str) -> ControlFlow<()> {
    if !texts.contains(text) {
        texts.insert(text.to_owned());
    }
    ControlFlow::Continue(())
}

fn cut<T>(mut all: impl Iterator<Item = T>, limit: usize) -> Limited<T> {
    let wanted = if limit == 0 { usize::MAX } else { limit };
    let items = all.by_ref().take(wanted).collect();
    Limited { items, truncated: all.next().is_some() }
}

/// The `limit` largest counts, largest first, equal ones by name. Keeps no more than twice as many at a time.
fn top<'a>(
    counts: impl Iterator<Item = Count<'a>>,
    limit: usize,
    text: impl Fn(&Count<'a>) -> String,
) -> Vec<CardinalityEntry> {
    let by_count =
        |a: &Count<'_>, b: &Count<'_>| b.count.cmp(&a.count).then((a.name, a.value).cmp(&(b.name, b.value)));
    let mut best: Vec<Count<'a>> = Vec::new();
    for count in counts {
        best.push(count);
        if best.len() >= limit.saturating_mul(2).max(64) {
            best.sort_unstable_by(by_count);
            best.truncate(limit);
        }
    }
    best.sort_unstable_by(by_count);
    best.truncate(limit);
    best.iter().map(|count| CardinalityEntry { name: text(count), value: count.count }).collect()
}
