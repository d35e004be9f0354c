//! What a database must say: a map of everything sent, with what is known of its fate.

use std::collections::{BTreeMap, BTreeSet};

use chronolith_index::CompiledMatcher;
use chronolith_model::{Labels, TenantId, TimeRange};
use chronolith_storage::RejectReason;

use crate::fixture::Content;

/// A sample: a series, a time, the bits of its value.
pub(crate) type SampleOf = (Labels, i64, u64);

/// What is known of a series at one timestamp.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// All that may have been kept, in the order in which it was sent.
    values: Vec<u64>,
    /// What readers of this life see.
    live: u64,
    /// `live` must survive.
    durable: bool,
    /// It may be there or not: a deletion failed, or it lies in the past of one.
    loose: bool,
    /// The number of the append that made it.
    since: u64,
}

#[derive(Debug, Default)]
struct Series {
    cells: BTreeMap<i64, Cell>,
    /// The newest timestamp ever taken.
    newest: Option<i64>,
    /// Every value ever taken.
    sent: BTreeMap<i64, Vec<u64>>,
}

impl Series {
    /// Whether the value was ever taken. Behind a deletion that failed half way any of them may be the first that is left.
    fn has_sent(&self, t: i64, bits: u64) -> bool {
        self.sent.get(&t).is_some_and(|sent| sent.contains(&bits))
    }
}

/// A deletion, and up to when samples may go with it that come later.
#[derive(Clone, Debug)]
pub(crate) struct Deleted {
    pub(crate) matchers: Vec<CompiledMatcher>,
    pub(crate) range: TimeRange,
}

/// What one tenant has.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    series: BTreeMap<Labels, Series>,
    deleted: Vec<Deleted>,
}

/// The bounds of what is taken now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) now: i64,
    pub(crate) window: i64,
    pub(crate) future: i64,
}

pub(crate) fn matches(matchers: &[CompiledMatcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
}

impl Tenant {
    pub(crate) fn new(id: TenantId) -> Self {
        Self { id, series: BTreeMap::new(), deleted: Vec::new() }
    }

    fn is_shadowed(&self, labels: &Labels, t: i64) -> bool {
        self.deleted.iter().any(|deleted| deleted.range.contains(t) && matches(&deleted.matchers, labels))
    }

    /// Some sample that was sent before.
    pub(crate) fn any(&self, at: usize) -> Option<SampleOf> {
        let count: usize = self.series.values().map(|series| series.cells.len()).sum();
        let mut left = at.checked_rem(count)?;
        for (labels, series) in &self.series {
            if left < series.cells.len() {
                let (t, cell) = series.cells.iter().nth(left)?;
                return Some((labels.clone(), *t, cell.live));
            }
            left -= series.cells.len();
        }
        None
    }

    /// A sample was taken.
    pub(crate) fn taken(&mut self, (labels, t, bits): &SampleOf, op: u64) {
        let loose = self.is_shadowed(labels, *t);
        let series = self.series.entry(labels.clone()).or_default();
        series.newest = series.newest.max(Some(*t));
        let sent = series.sent.entry(*t).or_default();
        if !sent.contains(bits) {
            sent.push(*bits);
        }
        let new = Cell { values: Vec::new(), live: *bits, durable: false, loose, since: op };
        let cell = series.cells.entry(*t).or_insert(new);
        if !cell.values.contains(bits) {
            cell.values.push(*bits);
        }
    }

    /// Whether a refusal is one that must not be.
    pub(crate) fn check_refusal(&self, (labels, t, bits): &SampleOf, why: &RejectReason, bounds: Bounds) {
        let series = self.series.get(labels);
        if let RejectReason::DuplicateTimestamp { existing, .. } = why {
            let known = series
                .and_then(|series| series.sent.get(t))
                .is_some_and(|sent| sent.iter().any(|known| *known == existing.to_bits() && known != bits));
            assert!(known, "refused because of a sample that was never sent: {labels} {t}: {why}");
            return;
        }
        let newest = series.and_then(|series| series.newest).unwrap_or(i64::MIN);
        let recent = *t >= bounds.now - bounds.window && *t <= bounds.now + bounds.future;
        let in_order = *t > newest;
        let late = bounds.window > 0 && *t >= newest.saturating_sub(bounds.window);
        assert!(
            !(recent && (in_order || late)),
            "refused without need: {labels} {t}, newest {newest}: {why}"
        );
    }

    /// Everything that was appended up to `op` of these samples is durable.
    pub(crate) fn acknowledged(&mut self, samples: &[SampleOf], op: u64) {
        for (labels, t, bits) in samples {
            let cell = self.series.get_mut(labels).and_then(|series| series.cells.get_mut(t));
            if let Some(cell) = cell.filter(|cell| cell.live == *bits && cell.since <= op) {
                cell.durable = true;
            }
        }
    }

    /// A close has made everything durable.
    pub(crate) fn all_durable(&mut self) {
        self.series
            .values_mut()
            .flat_map(|series| series.cells.values_mut())
            .for_each(|cell| cell.durable = true);
    }

    /// A deletion has been tried.
    pub(crate) fn delete(&mut self, deletion: &Deleted, newest: i64, done: bool) {
        for (_, series) in self.series.iter_mut().filter(|(labels, _)| matches(&deletion.matchers, labels)) {
            if done {
                series.cells.retain(|t, _| !deletion.range.contains(*t));
            } else {
                let range = series.cells.range_mut(deletion.range.min..=deletion.range.max);
                range.for_each(|(_, cell)| cell.loose = true);
            }
        }
        let range = TimeRange::new(deletion.range.min, deletion.range.max.min(newest));
        if range.min <= range.max {
            self.deleted.push(Deleted { range, ..deletion.clone() });
        }
    }

    /// What is too old is of no interest any more.
    pub(crate) fn forget(&mut self, floor: i64) {
        for series in self.series.values_mut() {
            series.cells = series.cells.split_off(&floor);
        }
        self.deleted.retain(|deleted| deleted.range.max >= floor);
    }

    /// Compares what a view shows with what it should.
    pub(crate) fn check(&self, got: &Content, floor: i64, what: &str) {
        self.check_some(got, &[], TimeRange::new(floor, i64::MAX), what);
    }

    /// The same for the series that meet `matchers` inside `range`.
    pub(crate) fn check_some(
        &self,
        got: &Content,
        matchers: &[CompiledMatcher],
        range: TimeRange,
        what: &str,
    ) {
        if range.min > range.max {
            return;
        }
        for (labels, samples) in got {
            assert!(matches(matchers, labels), "{what}: {labels} was not asked for");
            let series = self.series.get(labels);
            for (t, bits) in samples.range(range.min..=range.max) {
                let cell = series.and_then(|series| series.cells.get(t));
                let fits = cell.is_some_and(|cell| {
                    if cell.loose {
                        series.is_some_and(|series| series.has_sent(*t, *bits))
                    } else {
                        cell.live == *bits
                    }
                });
                assert!(fits, "{what}: {labels} {t} {bits:#x} is not {cell:?} ({})", self.id);
            }
        }
        for (labels, series) in self.series.iter().filter(|(labels, _)| matches(matchers, labels)) {
            let there = got.get(labels);
            for (t, cell) in series.cells.range(range.min..=range.max).filter(|(_, cell)| !cell.loose) {
                let found = there.is_some_and(|samples| samples.contains_key(t));
                assert!(found, "{what}: {labels} {t} is missing: {cell:?} ({})", self.id);
            }
        }
    }

    /// Compares what a start shows with what must and what may be there; from now on that is what there is.
    pub(crate) fn settle(&mut self, got: &Content, floor: i64, what: &str) {
        for (labels, samples) in got {
            let series = self.series.get(labels);
            for (t, bits) in samples.range(floor..) {
                let cell = series.and_then(|series| series.cells.get(t));
                let sent =
                    |cell: &Cell| cell.loose && series.is_some_and(|series| series.has_sent(*t, *bits));
                let known = cell.is_some_and(|cell| cell.values.contains(bits) || sent(cell));
                assert!(
                    known,
                    "{what}: {labels} {t} {bits:#x} was never sent, or is deleted: {cell:?} ({})",
                    self.id
                );
            }
        }
        let empty = BTreeMap::new();
        for (labels, series) in &mut self.series {
            let there = got.get(labels).unwrap_or(&empty);
            series.cells.retain(|t, cell| {
                let found = there.get(t);
                if cell.loose {
                    cell.live = found.copied().unwrap_or(cell.live);
                    return true;
                }
                let lost = cell.durable && found != Some(&cell.live);
                assert!(!lost, "{what}: {labels} {t} is lost: {found:x?} instead of {cell:?} ({})", self.id);
                let Some(bits) = found else { return false };
                // What a start has shown is acknowledged to whoever sends it again.
                (cell.values, cell.live, cell.durable) = (vec![*bits], *bits, true);
                true
            });
        }
    }

    /// That nothing is shown that was never sent.
    pub(crate) fn check_sent(&self, got: &Content, what: &str) {
        for (labels, samples) in got {
            let sent = self.series.get(labels).map(|series| &series.sent);
            for (t, bits) in samples {
                let known = sent.and_then(|sent| sent.get(t)).is_some_and(|sent| sent.contains(bits));
                assert!(known, "{what}: {labels} {t} {bits:#x} was never sent ({})", self.id);
            }
        }
    }

    /// A sample that should be shown and is not.
    pub(crate) fn missing(&self, got: &Content, floor: i64) -> Option<(Labels, i64)> {
        self.series.iter().find_map(|(labels, series)| {
            let there = got.get(labels);
            let mut cells = series.cells.range(floor..).filter(|(_, cell)| !cell.loose);
            let is_lost =
                |(t, cell): &(&i64, &Cell)| there.and_then(|samples| samples.get(t)) != Some(&cell.live);
            cells.find(is_lost).map(|(t, _)| (labels.clone(), *t))
        })
    }

    /// The label sets that an answer about `range` must name, and those that it may.
    pub(crate) fn label_sets(
        &self,
        matchers: &[CompiledMatcher],
        range: TimeRange,
    ) -> (BTreeSet<&Labels>, BTreeSet<&Labels>) {
        let may = self.series.iter().filter(|(labels, _)| matches(matchers, labels));
        let must = may.clone().filter(|(_, series)| {
            range.min <= range.max && series.cells.range(range.min..=range.max).any(|(_, cell)| !cell.loose)
        });
        (must.map(|(labels, _)| labels).collect(), may.map(|(labels, _)| labels).collect())
    }
}
