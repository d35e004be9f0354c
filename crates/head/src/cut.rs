//! The cut: a past that goes to blocks.
//!
//! [`Head::begin_cut`] raises a boundary under all shard locks; from then on a sample at or before it is late. What is
//! there up to the boundary does not change any more, and is read series by series and written. Once the blocks are what
//! readers see, and no reader of before is left, [`Head::finish_cut`] forgets it. Late samples that come between the two
//! stay, for the next cut.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, atomic::Ordering},
    vec,
};

use chronolith_chunk::decode_range_into;
use chronolith_index::{PostingsSource as _, resolve};
use chronolith_model::{Labels, METRIC_NAME, TenantId, TimeRange, Timestamp};
use chronolith_storage::Samples;
use chronolith_wal::Batch;
use roaring::RoaringBitmap;

use crate::{
    closed::{self, ClosedChunk, window_number},
    error::ReadError,
    head::Head,
    histogram::{HistogramCopy, Lane},
    late::merge_floats,
    series::Series,
    shard::{Ref, ShardState},
    shared_index::SharedIndex,
    slab::Slab,
    tenant::Tenant,
    truncate::{Sweep, Truncation},
    unread::UnreadChunk,
};

/// Series looked at under one lock.
const SERIES_AT_ONCE_MAX: usize = 256;

/// How far blocks have what the head had: up to a boundary, and late samples up to a cut's number. A view says by it what
/// it has from blocks already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutPoint {
    pub(crate) boundary: Timestamp,
    /// Counts the cuts of this process.
    pub(crate) number: u64,
}

impl CutPoint {
    /// Nothing is in blocks.
    pub const NONE: Self = Self { boundary: Timestamp::MIN, number: 0 };

    /// Everything in order at or before it is in blocks, milliseconds.
    #[must_use]
    pub const fn boundary(self) -> Timestamp {
        self.boundary
    }
}

impl Default for CutPoint {
    fn default() -> Self {
        Self::NONE
    }
}

/// A cut that has begun. Its content stays readable until it is finished, as often as it takes. Dropping it undoes
/// nothing: a further cut has its content too.
#[derive(Debug)]
pub struct Cut {
    point: CutPoint,
    /// The boundary of the last finished cut: what is in order at or before it is in blocks.
    from: Timestamp,
    sequences: Vec<u64>,
    /// What was logged before the cut began is in this batch, or an earlier one ...
    logged: Batch,
    /// ... and `sequences` have the numbers of this one, and of all earlier ones.
    numbered: Batch,
    /// By tenant and window, the series that have something there; `None` before [`Head::cut_windows`].
    places: OnceLock<BTreeMap<(u32, i64), RoaringBitmap>>,
}

impl Cut {
    /// What views that see its blocks begin from.
    #[must_use]
    pub const fn point(&self) -> CutPoint {
        self.point
    }

    /// It has everything up to and including this, milliseconds.
    #[must_use]
    pub const fn boundary(&self) -> Timestamp {
        self.point.boundary
    }

    /// By shard: it has what of the shard was logged up to and including this sequence number.
    #[must_use]
    pub fn sequences(&self) -> &[u64] {
        &self.sequences
    }

    /// The batch behind whose durability the log has everything that the cut has.
    #[must_use]
    pub const fn logged(&self) -> Batch {
        self.logged
    }

    /// Whether all records up to and including those of `batch` have numbers within [`Cut::sequences`]: no replay behind this
    /// cut reads them again.
    #[must_use]
    pub fn covers(&self, batch: Batch) -> bool {
        batch <= self.numbered
    }
}

/// A series of a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutEntry {
    /// Its labels.
    pub labels: Labels,
    /// Its number, for [`Head::read_cut`].
    pub reference: u32,
}

/// The series of a tenant that have something in a window of a cut, metric by metric, in the order of blocks: by metric
/// name, then by labels. Holds the labels of one metric at a time.
#[derive(Debug)]
pub struct CutSeries {
    tenant: Option<Arc<Tenant>>,
    left: RoaringBitmap,
    metrics: vec::IntoIter<String>,
}

/// Cuts, begun and finished. Locked by whoever begins or finishes one.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    /// Of the cut last begun.
    begun: CutPoint,
}

impl Head {
    /// Samples at or before this are late, milliseconds.
    #[must_use]
    pub fn cut(&self) -> Timestamp {
        self.cut.load(Ordering::Acquire)
    }

    /// Everything applied so far is in this batch of the log, or in an earlier one.
    #[must_use]
    pub fn logged(&self) -> Batch {
        self.shards.iter().map(|shard| shard.lock().log.ticket()).max().unwrap_or_default()
    }

    /// Boundary of the last cut that was finished, the least timestamp if there was none.
    pub(crate) fn cut_finished(&self) -> Timestamp {
        self.cut_finished.load(Ordering::Acquire)
    }

    /// Tells an empty head, before its replay, that blocks have everything in order up to and including `boundary`.
    /// Returns what views begin from.
    pub fn restore_cut(&self, boundary: Timestamp) -> CutPoint {
        let mut cuts = self.cuts.lock();
        cuts.begun.boundary = cuts.begun.boundary.max(boundary);
        self.cut_finished.store(cuts.begun.boundary, Ordering::Release);
        self.cut.store(cuts.begun.boundary, Ordering::Release);
        for shard in &self.shards {
            shard.lock().begin_cut(cuts.begun);
        }
        cuts.begun
    }

    /// Begins a cut at `boundary` (milliseconds, best the end of a window; not below that of an earlier cut), under all
    /// shard locks. A cut that was begun before and not finished goes on as part of this one; finishing it does nothing.
    pub fn begin_cut(&self, boundary: Timestamp) -> Cut {
        let mut cuts = self.cuts.lock();
        let point = CutPoint { boundary: boundary.max(cuts.begun.boundary), number: cuts.begun.number + 1 };
        let mut states: Vec<_> = self.shards.iter().map(|shard| shard.lock()).collect();
        let sequences = states.iter().map(|state| state.log_sequence()).collect();
        let logged = states.iter().map(|state| state.log.ticket()).max().unwrap_or_default();
        let numbered = states.iter().map(|state| state.log.numbered()).min().unwrap_or_default();
        for state in &mut states {
            state.begin_cut(point);
        }
        drop(states);
        cuts.begun = point;
        self.cut.store(point.boundary, Ordering::Release);
        Cut { point, from: self.cut_finished(), sequences, logged, numbered, places: OnceLock::new() }
    }

    /// The windows in which tenants have something to be written, oldest first. Looks at each series once, and remembers
    /// which has something where.
    #[must_use]
    pub fn cut_windows(&self, cut: &Cut) -> Vec<(TenantId, Vec<TimeRange>)> {
        let mut windows: BTreeMap<u32, Vec<TimeRange>> = BTreeMap::new();
        for (tenant, number) in cut.places.get_or_init(|| self.cut_places(cut)).keys() {
            windows.entry(*tenant).or_default().push(closed::window(*number));
        }
        let named = |(tenant, windows): (u32, Vec<TimeRange>)| {
            Some((self.tenants.by_number(tenant)?.id.clone(), windows))
        };
        windows.into_iter().filter_map(named).collect()
    }

    /// The series that have something to be written, by tenant and window.
    fn cut_places(&self, cut: &Cut) -> BTreeMap<(u32, i64), RoaringBitmap> {
        let mut places: BTreeMap<(u32, i64), RoaringBitmap> = BTreeMap::new();
        let mut note = |tenant: u32, reference: Ref, piece: TimeRange| {
            places.entry((tenant, window_number(piece.min))).or_default().insert(reference.0);
        };
        let all = TimeRange::new(Timestamp::MIN, cut.boundary());
        for (number, shard) in self.shards.iter().enumerate() {
            let pages = shard.lock().slab.pages();
            for page in 0..pages {
                let mut state = shard.lock();
                let ShardState { slab, late, histograms, accounts, .. } = &mut *state;
                slab.for_each(page, |slot, series, closed| {
                    let reference = Ref::new(number, slot);
                    cut.pieces(series, closed, all).for_each(|piece| note(series.tenant(), reference, piece));
                });
                let slots = Slab::slots_of(page);
                let tenant = |slot| slab.get(slot).map(|(series, _)| series.tenant());
                histograms.for_each(slots.clone(), |slot, lane| {
                    let Some(tenant) = tenant(slot) else { return };
                    cut.pieces_of(lane, all).for_each(|piece| note(tenant, Ref::new(number, slot), piece));
                });
                let mut of_frozen = |slot, frozen: &[ClosedChunk]| {
                    let Some(tenant) = tenant(slot) else { return };
                    frozen.iter().for_each(|chunk| note(tenant, Ref::new(number, slot), chunk.range()));
                };
                late.for_each_frozen(slots.clone(), accounts, &mut of_frozen);
                histograms.late.for_each_frozen(slots, accounts, &mut of_frozen);
            }
        }
        places
    }

    /// The series of `tenant` that have something in `window`, both ends included; some may turn out to have nothing.
    /// Looks at no others, if [`Head::cut_windows`] has been asked before, and at none where `window` is one of its.
    #[must_use]
    pub fn cut_series(&self, cut: &Cut, tenant: &TenantId, window: TimeRange) -> CutSeries {
        let Some(tenant) = self.tenants.get(tenant) else {
            return CutSeries { tenant: None, left: RoaringBitmap::new(), metrics: Vec::new().into_iter() };
        };
        let index = SharedIndex(&tenant.index);
        let left = match cut.candidates(tenant.number, window) {
            Some((candidates, true)) => candidates,
            Some((candidates, false)) => self.with_pieces(cut, &candidates, window),
            None => {
                let Ok(all) = resolve(&index, &[]);
                self.with_pieces(cut, &all, window)
            }
        };
        let mut metrics = vec![String::new()];
        metrics.extend(index.values(METRIC_NAME));
        CutSeries { tenant: Some(tenant), left, metrics: metrics.into_iter() }
    }

    /// Those of `candidates` that have something in `window`.
    fn with_pieces(&self, cut: &Cut, candidates: &RoaringBitmap, window: TimeRange) -> RoaringBitmap {
        let mut left = RoaringBitmap::new();
        let mut by_shard: Vec<Vec<Ref>> = vec![Vec::new(); self.shards.len()];
        candidates.iter().map(Ref).for_each(|reference| by_shard[reference.shard()].push(reference));
        for (shard, of_shard) in self.shards.iter().zip(by_shard) {
            for some in of_shard.chunks(SERIES_AT_ONCE_MAX) {
                let mut state = shard.lock();
                let ShardState { slab, late, histograms, accounts, .. } = &mut *state;
                left.extend(some.iter().filter_map(|reference| {
                    let slot = reference.slot();
                    let (series, closed) = slab.get(slot)?;
                    let some =
                        |frozen: Option<&[ClosedChunk]>| frozen.is_some_and(|frozen| !frozen.is_empty());
                    let has_some = some(late.frozen(slot, window, accounts))
                        || cut.pieces(series, closed, window).next().is_some()
                        || series.is_mixed()
                            && (some(histograms.late.frozen(slot, window, accounts))
                                || histograms
                                    .lane(slot)
                                    .is_some_and(|lane| cut.pieces_of(lane, window).next().is_some()));
                    has_some.then_some(reference.0)
                }));
            }
        }
        left
    }

    /// Appends the samples that series `reference` has in `window` (both ends included) as part of the cut, in order and
    /// late ones, floats and histograms, each sorted by timestamp, and their starts. None for a series that is gone.
    ///
    /// # Errors
    /// When something that was stored cannot be read; all else has been appended then, unless an open chunk, or a late one,
    /// contradicts itself. Closed chunks are noted: see [`Head::unread`].
    pub fn read_cut(
        &self,
        cut: &Cut,
        reference: u32,
        window: TimeRange,
        into: &mut Samples,
    ) -> Result<(), ReadError> {
        let reference = Ref(reference);
        let range = cut.range(window);
        let (chunks, open, frozen, histograms, starts) = {
            let mut state = self.shards[reference.shard()].lock();
            let ShardState { slab, late, histograms, starts, accounts, .. } = &mut *state;
            let Some((series, closed)) = slab.get(reference.slot()) else { return Ok(()) };
            let (chunks, open) = series.overlapping(closed, range);
            let frozen = late.frozen(reference.slot(), window, accounts).unwrap_or_default();
            let mixed = series.is_mixed();
            let histograms =
                mixed.then(|| histograms.copy_frozen(reference.slot(), (range, window), accounts));
            let has_late = histograms.as_ref().is_some_and(HistogramCopy::has_late);
            let shown = if frozen.is_empty() && !has_late { range } else { window };
            let mut of_series = Vec::new();
            starts.copy(reference.slot(), shown, &mut of_series);
            (chunks.to_vec(), open.to_vec(), frozen.to_vec(), histograms, of_series)
        };
        let start = into.timestamps.len();
        let mut unread = Vec::new();
        let mut leave = |chunk: &ClosedChunk, error| unread.push(UnreadChunk::new(reference.0, chunk, error));
        for chunk in &chunks {
            chunk.read_or(range, into, &mut leave);
        }
        decode_range_into(&open, range.min, range.max, &mut into.timestamps, &mut into.values)?;
        if !frozen.is_empty() {
            let mut late = Vec::new();
            for chunk in &frozen {
                chunk.floats(window, &mut late)?;
            }
            merge_floats(into, start, &late);
        }
        if let Some(histograms) = histograms {
            histograms.read((range, window), into, &mut leave)?;
        }
        into.starts.extend(starts);
        let first = unread.first().map(|chunk: &UnreadChunk| chunk.error().clone());
        self.note_unread(unread);
        first.map_or(Ok(()), Err)
    }

    /// Forgets what the cut has written. To be called when its blocks are durable, new views begin from its point, and
    /// no view that began from an earlier one is left. Does nothing if another cut has begun since. Series that have nothing
    /// left go; those of a head that has no log yet stay until the replay is finished.
    pub fn finish_cut(&self, cut: Cut) -> Truncation {
        let _one_at_a_time = self.sweeping.lock();
        let cuts = self.cuts.lock();
        let mut series_removed = 0;
        if cuts.begun.number == cut.point.number {
            self.cut_finished.store(cut.boundary(), Ordering::Release);
            // No other cut begins meanwhile: what it freezes is not to go.
            let sweep = Sweep { floor: self.floor(), cut: Some(cut.boundary()), quiet: None };
            if self.has_log() {
                series_removed = self.sweep(&sweep);
            } else {
                // What a snapshot of before the cut had is in blocks.
                let in_blocks = self.snapshot_cut.load(Ordering::Acquire).saturating_add(1)..=cut.boundary();
                self.exemplars.retain(None, |_, exemplar| !in_blocks.contains(&exemplar.timestamp));
                // A snapshot is behind its cut, and the log comes: it may have more of a series, under its number.
                (0..self.shards.len()).for_each(|number| drop(self.drop_chunks(number, &sweep)));
            }
        }
        Truncation { floor: self.floor(), by_memory: false, series_removed }
    }
}

impl Cut {
    /// The series of a tenant that may have something in `window`, and whether all of them have; `None` if that is not known.
    fn candidates(&self, tenant: u32, window: TimeRange) -> Option<(RoaringBitmap, bool)> {
        let numbers = (tenant, window_number(window.min))..=(tenant, window_number(window.max));
        let mut some = RoaringBitmap::new();
        self.places.get()?.range(numbers).for_each(|(_, series)| some |= series);
        Some((some, closed::window_of(window.min) == window))
    }

    /// What of `window` is written in order.
    pub(crate) fn range(&self, window: TimeRange) -> TimeRange {
        let min = if self.from == Timestamp::MIN { window.min } else { window.min.max(self.from + 1) };
        TimeRange::new(min, window.max.min(self.boundary()))
    }

    /// The ranges of the chunks of samples in order that the cut has something of in `window`, as far as it has.
    fn pieces<'a>(
        &self,
        series: &'a Series,
        closed: &'a [ClosedChunk],
        window: TimeRange,
    ) -> impl Iterator<Item = TimeRange> + 'a {
        let range = self.range(window);
        let (chunks, open) = series.overlapping(closed, range);
        let open = if open.is_empty() { None } else { series.open_range() };
        clipped(chunks.iter().map(ClosedChunk::range).chain(open), range)
    }

    /// The same of histograms.
    fn pieces_of<'a>(&self, lane: &'a Lane, window: TimeRange) -> impl Iterator<Item = TimeRange> + 'a {
        let range = self.range(window);
        clipped(lane.pieces(range), range)
    }
}

/// The parts of `pieces` in `range`.
fn clipped(pieces: impl Iterator<Item = TimeRange>, range: TimeRange) -> impl Iterator<Item = TimeRange> {
    let clipped = pieces.map(move |piece| TimeRange::new(piece.min.max(range.min), piece.max.min(range.max)));
    clipped.filter(|piece| piece.min <= piece.max)
}

impl CutSeries {
    /// How many are to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.len()
    }
}

impl Iterator for CutSeries {
    type Item = Vec<CutEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let tenant = self.tenant.as_ref()?;
        let index = SharedIndex(&tenant.index);
        for metric in self.metrics.by_ref() {
            if self.left.is_empty() {
                return None;
            }
            let mut of_metric = RoaringBitmap::new();
            if metric.is_empty() {
                // Those without a name come first.
                let Ok(nameless) = index.filter(METRIC_NAME, &self.left, &mut str::is_empty);
                of_metric = nameless;
            } else {
                let Ok(postings) = index.postings(METRIC_NAME, &metric);
                postings.union_into(&mut of_metric);
                of_metric &= &self.left;
            }
            if of_metric.is_empty() {
                continue;
            }
            self.left -= &of_metric;
            let labelled = index.labelled(&of_metric, usize::MAX);
            return Some(
                labelled.into_iter().map(|(labels, reference)| CutEntry { labels, reference }).collect(),
            );
        }
        None
    }
}

#[cfg(test)]
mod tests;
