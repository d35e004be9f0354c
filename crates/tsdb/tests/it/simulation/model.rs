//! What a database must say: a map of everything sent, with what is known of its fate.

use std::collections::{BTreeMap, BTreeSet};

use chronolith_index::CompiledMatcher;
use chronolith_model::{Labels, MetricMetadata, TenantId, TimeRange, Timestamp};
use chronolith_storage::RejectReason;

use super::{
    exemplars::KnownExemplar,
    imports::YIELD,
    values::{Content, Value, What},
};

/// A sample: a series, a time, what it says.
pub(crate) type SampleOf = (Labels, Timestamp, Value);

/// What is known of a series at one timestamp.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// All that may have been kept, in the order in which it was sent.
    values: Vec<Value>,
    /// What readers of this life see.
    live: Value,
    /// `live` must survive.
    durable: bool,
    /// It may be there or not: a deletion failed, or it lies in the past of one, or its block may have been dropped.
    loose: bool,
    /// The number of the append that made it.
    since: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Series {
    pub(super) cells: BTreeMap<Timestamp, Cell>,
    /// The newest timestamp ever taken from an append.
    pub(super) newest: Option<Timestamp>,
    /// Everything ever taken.
    sent: BTreeMap<Timestamp, Vec<Value>>,
    /// By the number that stands in them.
    pub(super) exemplars: BTreeMap<u64, KnownExemplar>,
}

impl Series {
    /// Whether this was ever taken. Behind a deletion that failed half way any of them may be the first that is left.
    fn has_sent(&self, t: Timestamp, value: Value) -> bool {
        self.sent.get(&t).is_some_and(|sent| sent.iter().any(|sent| sent.what == value.what))
    }

    fn send(&mut self, t: Timestamp, value: Value) {
        let sent = self.sent.entry(t).or_default();
        if !sent.contains(&value) {
            sent.push(value);
        }
    }
}

impl Cell {
    /// What a sample is that must be there.
    pub(super) const fn is_sure(&self) -> bool {
        !self.loose
    }
}

/// A deletion, and up to when samples may go with it that come later.
#[derive(Clone, Debug)]
pub(crate) struct Deleted {
    pub(crate) matchers: Vec<CompiledMatcher>,
    pub(crate) range: TimeRange,
}

/// An import of which nobody knows whether it is there.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) samples: Vec<SampleOf>,
    /// It is, from the next start on; or not: all of it or nothing. `None`: blocks of it may have been dropped.
    pub(crate) complete: Option<bool>,
}

/// What one tenant has.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(super) series: BTreeMap<Labels, Series>,
    deleted: Vec<Deleted>,
    imported: Vec<Imported>,
    /// What was said last of each metric in this life, and all that was ever said.
    pub(super) metadata: BTreeMap<String, MetricMetadata>,
    pub(super) metadata_sent: BTreeSet<String>,
}

/// The bounds of what is taken now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) now: Timestamp,
    pub(crate) floor: Timestamp,
    pub(crate) window: i64,
    pub(crate) future: i64,
}

pub(crate) fn matches(matchers: &[CompiledMatcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
}

impl Tenant {
    pub(crate) fn new(id: TenantId) -> Self {
        Self {
            id,
            series: BTreeMap::new(),
            deleted: Vec::new(),
            imported: Vec::new(),
            metadata: BTreeMap::new(),
            metadata_sent: BTreeSet::new(),
        }
    }

    pub(super) fn is_shadowed(&self, labels: &Labels, t: Timestamp) -> bool {
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
    pub(crate) fn taken(&mut self, (labels, t, value): &SampleOf, op: u64) {
        let loose = self.is_shadowed(labels, *t);
        let series = self.series.entry(labels.clone()).or_default();
        series.newest = series.newest.max(Some(*t));
        series.send(*t, *value);
        let new = Cell { values: Vec::new(), live: *value, durable: false, loose, since: op };
        let cell = series.cells.entry(*t).or_insert(new);
        if !cell.values.contains(value) {
            cell.values.push(*value);
        }
    }

    /// Whether a refusal is one that must not be.
    pub(crate) fn check_refusal(&self, (labels, t, value): &SampleOf, why: &RejectReason, bounds: Bounds) {
        let series = self.series.get(labels);
        let sent = series.and_then(|series| series.sent.get(t)).map(Vec::as_slice).unwrap_or_default();
        let contradicts = |kind: fn(What) -> bool| {
            sent.iter()
                .any(|known| kind(known.what) && (known.what != value.what || known.what == What::STALE))
        };
        let known = match why {
            RejectReason::DuplicateTimestamp { existing, .. } => sent
                .iter()
                .any(|known| known.what == What::Float(existing.to_bits()) && known.what != value.what),
            RejectReason::DuplicateOfHistogram { .. } => {
                contradicts(|what| matches!(what, What::Histogram(_) | What::STALE))
            }
            RejectReason::DuplicateHistogram { .. } => contradicts(|_| true),
            _ => {
                let newest = series.and_then(|series| series.newest).unwrap_or(i64::MIN);
                let soon = *t <= bounds.now.saturating_add(bounds.future);
                let recent = soon && *t >= bounds.floor && *t >= bounds.now - bounds.window;
                let in_order = *t > newest;
                let late = bounds.window > 0 && *t >= newest.saturating_sub(bounds.window);
                assert!(
                    !(recent && (in_order || late)),
                    "refused without need: {labels} {t}, newest {newest}: {why}"
                );
                return;
            }
        };
        assert!(known, "refused because of a sample that was never sent: {labels} {t}: {why}, {sent:?}");
    }

    /// Everything that was appended up to `op` of these samples is durable.
    pub(crate) fn acknowledged(&mut self, samples: &[SampleOf], op: u64) {
        for (labels, t, value) in samples {
            let cell = self.series.get_mut(labels).and_then(|series| series.cells.get_mut(t));
            if let Some(cell) = cell.filter(|cell| cell.live.what == value.what && cell.since <= op) {
                cell.durable = true;
            }
        }
    }

    /// A close has made everything durable that can be seen.
    pub(crate) fn all_durable(&mut self, visible: Timestamp) {
        for series in self.series.values_mut() {
            series.cells.range_mut(visible..).for_each(|(_, cell)| cell.durable = true);
            let seen = series.exemplars.values_mut().filter(|exemplar| exemplar.t >= visible);
            seen.for_each(|exemplar| exemplar.durable = true);
        }
    }

    /// A deletion has been tried. It does not reach what is hidden, before `visible`, by a clock that is wrong.
    pub(crate) fn delete(&mut self, deletion: &Deleted, visible: Timestamp, newest: Timestamp, done: bool) {
        for (_, series) in self.series.iter_mut().filter(|(labels, _)| matches(&deletion.matchers, labels)) {
            let (from, to) = (deletion.range.min, deletion.range.max);
            let done = |t: Timestamp| done && t >= visible;
            series.cells.range_mut(from..=to).for_each(|(_, cell)| cell.loose = true);
            series.cells.retain(|t, _| !deletion.range.contains(*t) || !done(*t));
            let inside = |exemplar: &&mut KnownExemplar| deletion.range.contains(exemplar.t);
            series.exemplars.values_mut().filter(inside).for_each(|exemplar| exemplar.expected = false);
            series.exemplars.retain(|_, of| !deletion.range.contains(of.t) || !done(of.t));
        }
        let range = TimeRange::new(deletion.range.min, deletion.range.max.min(newest));
        if range.min <= range.max {
            self.deleted.push(Deleted { range, ..deletion.clone() });
        }
    }

    /// Something of an import is on its way.
    pub(crate) fn importing(&mut self, (labels, t, value): &SampleOf) {
        self.series.entry(labels.clone()).or_default().send(*t, *value);
    }

    /// An import has come to its end: it is durable, and so is what was there before, which counts, but for what is older than
    /// `visible`: a clock that is wrong has hidden it from the import too.
    pub(crate) fn imported(&mut self, samples: &[SampleOf], op: u64, visible: Timestamp) {
        for (labels, t, value) in samples {
            let series = self.series.entry(labels.clone()).or_default();
            let new = Cell { values: Vec::new(), live: *value, durable: true, loose: false, since: op };
            let cell = series.cells.entry(*t).or_insert(new);
            cell.durable = true;
            cell.loose |= *t < visible && cell.live.what != value.what && !YIELD;
            if !cell.values.contains(value) {
                cell.values.push(*value);
            }
        }
    }

    /// An import has come to an end of which nobody knows what it means.
    pub(crate) fn perhaps_imported(&mut self, imported: Imported) {
        self.imported.push(imported);
    }

    /// Some of this may have been dropped.
    pub(crate) fn lose(&mut self, range: TimeRange) {
        // Nobody knows which blocks of one that is not shown are among them.
        self.imported.iter_mut().for_each(|imported| imported.complete = None);
        for series in self.series.values_mut() {
            series.cells.range_mut(range.min..=range.max).for_each(|(_, cell)| cell.loose = true);
            let inside = |exemplar: &&mut KnownExemplar| range.contains(exemplar.t);
            series.exemplars.values_mut().filter(inside).for_each(|exemplar| exemplar.expected = false);
        }
    }

    /// What is too old is of no interest any more.
    pub(crate) fn forget(&mut self, floor: Timestamp) {
        for series in self.series.values_mut() {
            series.cells = series.cells.split_off(&floor);
            series.exemplars.retain(|_, exemplar| exemplar.t >= floor);
        }
        self.deleted.retain(|deleted| deleted.range.max >= floor);
    }

    /// Compares what a view shows of the series that meet `matchers` inside `range` with what it should; `whole`: nothing of
    /// it may be missing.
    pub(crate) fn check_some(
        &self,
        got: &Content,
        matchers: &[CompiledMatcher],
        range: TimeRange,
        (whole, what): (bool, &str),
    ) {
        if range.min > range.max {
            return;
        }
        self.check_shown(got, matchers, range, what);
        for (labels, series) in self.series.iter().filter(|(labels, _)| whole && matches(matchers, labels)) {
            let there = got.get(labels);
            for (t, cell) in series.cells.range(range.min..=range.max).filter(|(_, cell)| !cell.loose) {
                let found = there.is_some_and(|samples| samples.contains_key(t));
                assert!(found, "{what}: {labels} {t} is missing: {cell:x?} ({})", self.id);
            }
        }
    }

    /// That what is shown is right, whatever is missing.
    fn check_shown(&self, got: &Content, matchers: &[CompiledMatcher], range: TimeRange, what: &str) {
        for (labels, samples) in got {
            assert!(matches(matchers, labels), "{what}: {labels} was not asked for");
            let series = self.series.get(labels);
            for (t, value) in samples.range(range.min..=range.max) {
                let cell = series.and_then(|series| series.cells.get(t));
                let fits = cell.is_some_and(|cell| {
                    if cell.loose {
                        series.is_some_and(|series| series.has_sent(*t, *value))
                    } else {
                        cell.live == *value
                    }
                });
                assert!(fits, "{what}: {labels} {t} {value:x?} is not {cell:x?} ({})", self.id);
            }
        }
    }

    /// Finds out what became of imports that were interrupted: all of one is there, or nothing.
    fn settle_imports(&mut self, got: &Content, floor: Timestamp, what: &str) {
        for Imported { samples, complete } in std::mem::take(&mut self.imported) {
            let mut free = Vec::new();
            for (labels, t, value) in samples {
                // What cannot be seen now may be seen another time.
                let loose = complete.is_none() || t < floor || self.is_shadowed(&labels, t);
                let series = self.series.entry(labels.clone()).or_default();
                match series.cells.get_mut(&t) {
                    Some(cell) => {
                        cell.values.push(value);
                        // Which one counts is seen when the clock is right again.
                        cell.loose |= t < floor && !YIELD;
                        let found = got.get(&labels).and_then(|samples| samples.get(&t));
                        if let Some(found) = found.filter(|found| found.what == value.what && !YIELD) {
                            cell.live = *found;
                        }
                    }
                    None if loose => {
                        let durable = complete == Some(true);
                        let cell = Cell { values: vec![value], live: value, durable, loose, since: 0 };
                        series.cells.insert(t, cell);
                    }
                    None => free.push((labels, t, value)),
                }
            }
            let is_there = |(labels, t, _): &&SampleOf| {
                got.get(labels).is_some_and(|samples: &BTreeMap<_, _>| samples.contains_key(t))
            };
            let there = free.iter().filter(is_there).count();
            let whole = there == free.len() || (there == 0 && complete != Some(true));
            assert!(whole, "{what}: {there} of {} samples of an import (complete: {complete:?})", free.len());
            for (labels, t, value) in free.into_iter().filter(|_| there > 0) {
                let cell = Cell { values: vec![value], live: value, durable: false, loose: false, since: 0 };
                self.series.entry(labels).or_default().cells.insert(t, cell);
            }
        }
    }

    /// Compares what a start shows with what must and what may be there; from now on that is what there is. What is older
    /// than `floor` cannot be seen now, and stays as it was.
    pub(crate) fn settle(&mut self, got: &Content, floor: Timestamp, what: &str) {
        self.settle_imports(got, floor, what);
        for (labels, samples) in got {
            let series = self.series.get(labels);
            for (t, value) in samples.range(floor..) {
                let cell = series.and_then(|series| series.cells.get(t));
                let sent =
                    |cell: &Cell| cell.loose && series.is_some_and(|series| series.has_sent(*t, *value));
                let known = cell.is_some_and(|cell| {
                    cell.values.iter().any(|known| known.what == value.what) || sent(cell)
                });
                assert!(
                    known,
                    "{what}: {labels} {t} {value:x?} was never sent, or is deleted: {cell:x?} ({})",
                    self.id
                );
            }
        }
        let empty = BTreeMap::new();
        for (labels, series) in &mut self.series {
            let there = got.get(labels).unwrap_or(&empty);
            series.cells.retain(|t, cell| {
                if *t < floor {
                    return true;
                }
                let found = there.get(t);
                if cell.loose {
                    cell.live = found.copied().unwrap_or(cell.live);
                    return true;
                }
                let lost = cell.durable && found != Some(&cell.live);
                assert!(!lost, "{what}: {labels} {t} is lost: {found:x?} instead of {cell:x?} ({})", self.id);
                let Some(value) = found else { return false };
                // What a start has shown is acknowledged to whoever sends it again.
                (cell.values, cell.live, cell.durable) = (vec![*value], *value, true);
                true
            });
        }
        self.metadata.clear();
    }

    /// That nothing is shown that was never sent.
    pub(crate) fn check_sent(&self, got: &Content, what: &str) {
        for (labels, samples) in got {
            let series = self.series.get(labels);
            for (t, value) in samples {
                let known = series.is_some_and(|series| series.has_sent(*t, *value));
                assert!(known, "{what}: {labels} {t} {value:x?} was never sent ({})", self.id);
            }
        }
    }

    /// A sample that should be shown and is not.
    pub(crate) fn missing(&self, got: &Content, floor: Timestamp) -> Option<(Labels, Timestamp)> {
        self.series.iter().find_map(|(labels, series)| {
            let there = got.get(labels);
            let mut cells = series.cells.range(floor..).filter(|(_, cell)| !cell.loose);
            let is_lost = |(t, cell): &(&Timestamp, &Cell)| {
                there.and_then(|samples| samples.get(t)).map(|value| value.what) != Some(cell.live.what)
            };
            cells.find(is_lost).map(|(t, _)| (labels.clone(), *t))
        })
    }

    /// A sample that is shown and should not be: it is deleted.
    pub(crate) fn surplus(&self, got: &Content, floor: Timestamp) -> Option<(Labels, Timestamp)> {
        got.iter().find_map(|(labels, samples)| {
            let series = self.series.get(labels);
            let known = |t: &Timestamp| series.is_some_and(|series| series.cells.contains_key(t));
            let mut shown = samples.range(floor..).map(|(t, _)| *t);
            shown.find(|t| !known(t)).map(|t| (labels.clone(), t))
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
