//! Reading: a tenant's view of the head.

use std::sync::Arc;

use chronolith_chunk::decode_range_into;
use chronolith_index::{CompiledMatcher, Count, MemoryIndex, resolve};
use chronolith_model::{Labels, METRIC_NAME, Sample, TenantId, TimeRange, Timestamp};
use chronolith_storage::{CardinalityEntry, Limited, StorageStats};
use parking_lot::RwLockReadGuard;
use roaring::RoaringBitmap;

use crate::{head::Head, options::SHARDS, series::ClosedChunk, shard::Ref, tenant::Tenant};

/// Series whose memory is fetched ahead of their copies.
const AHEAD: usize = 32;

/// What one tenant saw when the view was opened: samples newer than the newest of then are not shown.
///
/// A sample that arrives later with an older timestamp, of a series that lags behind, may show up; and what retention
/// drops while the view lives is gone from it too.
#[derive(Debug)]
pub struct HeadView {
    head: Arc<Head>,
    tenant: Option<Arc<Tenant>>,
    range: TimeRange,
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
    range: Option<TimeRange>,
    entries: Vec<Entry>,
    chunks: Vec<ClosedChunk>,
    open: Vec<u8>,
}

/// Where a series' chunks are.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    chunks: (usize, usize),
    open: (usize, usize),
}

impl HeadView {
    /// A view of `tenant`'s samples in `range`, as they are now.
    #[must_use]
    pub fn open(head: Arc<Head>, tenant: &TenantId, range: TimeRange) -> Self {
        let newest = head.newest();
        let range = TimeRange::new(range.min, range.max.min(newest));
        let tenant = head.tenants.get(tenant);
        Self { head, tenant, range, newest }
    }

    fn index(&self) -> Option<RwLockReadGuard<'_, MemoryIndex>> {
        self.tenant.as_ref().map(|tenant| tenant.index.read())
    }

    /// The series that meet all of `matchers`.
    #[must_use]
    pub fn select(&self, matchers: &[CompiledMatcher]) -> Selection {
        let Some(index) = self.index() else { return Selection::default() };
        let Ok(ids) = resolve(&*index, matchers);
        let series = index.sorted_by_labels(&ids);
        let labels = series.iter().map(|id| index.labels(*id).unwrap_or_default()).collect();
        Selection { series, labels }
    }

    /// The newest sample of each of `series`, whatever the range of the view; `None` where one has arrived since it was
    /// opened.
    #[must_use]
    pub fn last_samples(&self, series: &[u32]) -> Vec<Option<Sample>> {
        let shown = TimeRange::new(self.head.floor(), self.newest);
        let mut last = vec![None; series.len()];
        for (shard, places) in self.head.shards.iter().zip(by_shard(series)) {
            let state = shard.lock();
            for at in places {
                let sample =
                    state.slab.get(Ref(series[at]).slot()).and_then(|(series, _)| series.last_sample());
                last[at] = sample.filter(|sample| shown.contains(sample.timestamp));
            }
        }
        last
    }

    /// The samples of `series` in `range`, as far as the view shows them. Locks each shard once.
    #[must_use]
    pub fn fetch(&self, series: &[u32], range: TimeRange) -> Fetched {
        let floor = self.head.floor();
        let range = TimeRange::new(range.min.max(self.range.min).max(floor), range.max.min(self.range.max));
        let mut fetched = Fetched {
            range: Some(range),
            entries: vec![Entry::default(); series.len()],
            ..Fetched::default()
        };
        if range.min > range.max {
            return fetched;
        }
        for (shard, places) in self.head.shards.iter().zip(by_shard(series)) {
            if places.is_empty() {
                continue;
            }
            let state = shard.lock();
            for block in places.chunks(AHEAD) {
                let touched = block.iter().filter_map(|at| state.slab.get(Ref(series[*at]).slot()));
                std::hint::black_box(touched.fold(0, |sum, (series, _)| sum ^ series.touch()));
                for at in block {
                    let Some((state, closed)) = state.slab.get(Ref(series[*at]).slot()) else { continue };
                    let (chunks, open) = state.overlapping(closed, range.min, range.max);
                    fetched.entries[*at] = Entry {
                        chunks: (fetched.chunks.len(), fetched.chunks.len() + chunks.len()),
                        open: (fetched.open.len(), fetched.open.len() + open.len()),
                    };
                    fetched.chunks.extend_from_slice(chunks);
                    fetched.open.extend_from_slice(open);
                }
            }
        }
        fetched
    }

    /// The union of the selections of `sets`; all series if there is none.
    fn union(index: &MemoryIndex, sets: &[Vec<CompiledMatcher>]) -> RoaringBitmap {
        if sets.is_empty() {
            let Ok(all) = resolve(index, &[]);
            return all;
        }
        sets.iter().fold(RoaringBitmap::new(), |union, set| {
            let Ok(ids) = resolve(index, set);
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
        let Some(index) = self.index().filter(|_| self.concerned(range)) else { return Limited::default() };
        cut(index.names_among(&Self::union(&index, sets)).into_iter(), limit)
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
        let Some(index) = self.index().filter(|_| self.concerned(range)) else { return Limited::default() };
        if sets.is_empty() {
            return cut(index.values(name), limit);
        }
        cut(index.values_among(name, &Self::union(&index, sets)).into_iter(), limit)
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
        let series = index.sorted_by_labels(&Self::union(&index, sets));
        let wanted = if limit == 0 { series.len() } else { limit };
        Limited {
            items: series.iter().take(wanted).filter_map(|id| index.labels(*id)).collect(),
            truncated: series.len() > wanted,
        }
    }

    /// Counts over the tenant's series, each list at most `limit` long.
    #[must_use]
    pub fn stats(&self, limit: usize) -> StorageStats {
        let chunks = self.head.stats().chunks_closed;
        let Some(index) = self.index() else { return StorageStats::default() };
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
    /// Appends the samples of the `at`-th fetched series to both columns.
    ///
    /// # Errors
    /// When a chunk in memory contradicts itself.
    pub fn read(
        &self,
        at: usize,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> chronolith_chunk::Result<()> {
        let (Some(range), Some(entry)) = (self.range, self.entries.get(at)) else { return Ok(()) };
        for chunk in self.chunks.get(entry.chunks.0..entry.chunks.1).unwrap_or_default() {
            chunk.read(range.min, range.max, timestamps, values)?;
        }
        let open = self.open.get(entry.open.0..entry.open.1).unwrap_or_default();
        decode_range_into(open, range.min, range.max, timestamps, values)?;
        Ok(())
    }

    /// Bytes the copies take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.open.capacity()
            + self.chunks.capacity() * size_of::<ClosedChunk>()
            + self.entries.capacity() * size_of::<Entry>()
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

fn cut<'a>(mut texts: impl Iterator<Item = &'a str>, limit: usize) -> Limited<String> {
    let wanted = if limit == 0 { usize::MAX } else { limit };
    let items = texts.by_ref().take(wanted).map(str::to_owned).collect();
    Limited { items, truncated: texts.next().is_some() }
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
