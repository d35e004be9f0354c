//! From matchers to series.
//!
//! Matchers on the metric name select metrics, all others select rows; the answer is, per metric, the ranks of the
//! selected rows in its set. Among rows, the most selective matcher by exact count goes first, and each further one is
//! either met with its lists or tested on the columns of the rows that are left, whichever is shorter. Expressions whose
//! values have to be searched for come last, and are tested on the values of the rows that are left if those are few.

mod ordinals;

use std::ops::Range;

use hashbrown::{HashMap, HashSet};
use roaring::RoaringBitmap;

use ordinals::{Ordinals, text_behind};

use super::{
    DiskIndex, SectionRead,
    column::SEGMENT_ROWS,
    error::DiskIndexError,
    list::RowUnion,
    page::{self, Lists},
    read::{Column, Metric},
};
use crate::matcher::{CompiledMatcher, Selects};

type Result<T, E = DiskIndexError> = std::result::Result<T, E>;

/// Rough costs in nanoseconds, to choose between ways.
const LIST_NS: u64 = 60;
const LIST_ROW_NS: u64 = 5;
const COLUMN_ROW_NS: u64 = 12;
const COLUMN_NS: u64 = 4_000;

/// So few values are searched before anything else, for the exact count of their rows.
const SEARCH_AT_ONCE_MAX: usize = 64;

/// A matcher whose values are known.
struct Term {
    label: usize,
    /// Values it selects.
    selected: Ordinals,
    /// Rows that have one of them.
    selected_rows: u64,
    /// Rows that have the label.
    present: u64,
    /// Whether rows without the label are selected.
    absent: bool,
}

impl<S: SectionRead> DiskIndex<S> {
    /// The series that meet all of `matchers`; all series when there is none.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn select(&self, matchers: &[CompiledMatcher]) -> Result<RoaringBitmap> {
        let mut metrics: Option<(Ordinals, bool)> = None;
        let mut terms = Vec::new();
        let mut searched = Vec::new();
        for matcher in matchers {
            if matcher.selects() == Selects::Anything {
                if matcher.is_negated() {
                    return Ok(RoaringBitmap::new());
                }
                continue;
            }
            let Some((label, _)) = self.directory.label(matcher.name()) else {
                if matcher.matches_empty() {
                    continue;
                }
                return Ok(RoaringBitmap::new());
            };
            if self.directory.metric == Some(label) {
                let ordinals = self.selected(label, matcher, self.positive(label, matcher)?);
                let (before, nameless) =
                    metrics.take().unwrap_or_else(|| (Ordinals::default().complement(u32::MAX), true));
                metrics = Some((before.intersection(&ordinals), nameless && matcher.matches_empty()));
            } else if self.is_search(label, matcher)? {
                searched.push((label, matcher));
            } else {
                let term = self.term(label, matcher, self.positive(label, matcher)?)?;
                if !term.absent && term.selected_rows == 0 {
                    return Ok(RoaringBitmap::new());
                }
                terms.push(term);
            }
        }
        let metrics = match metrics {
            None => None,
            Some((ordinals, nameless)) => Some(self.metrics(&ordinals, nameless)?),
        };
        if metrics.as_ref().is_some_and(Vec::is_empty) {
            return Ok(RoaringBitmap::new());
        }
        let rows = self.rows(metrics.as_deref(), terms, &searched)?;
        self.expand(metrics.as_deref(), rows.as_ref())
    }

    /// Whether the values have to be searched for one by one, and are many.
    fn is_search(&self, label: usize, matcher: &CompiledMatcher) -> Result<bool> {
        match matcher.selects() {
            Selects::Scan { prefix } if !is_prefix(matcher) => {
                Ok(self.prefix_range(label, prefix)?.len() > SEARCH_AT_ONCE_MAX)
            }
            _ => Ok(false),
        }
    }

    /// The values that the positive form of `matcher` accepts.
    fn positive(&self, label: usize, matcher: &CompiledMatcher) -> Result<Ordinals> {
        let values = self.label_at(label).map_or(0, |entry| entry.values);
        let mut ordinals = Ordinals::default();
        match matcher.selects() {
            Selects::Anything | Selects::NonEmpty => ordinals.push(0..values),
            Selects::Literals(texts) => {
                for text in texts {
                    if let Some(ordinal) = self.find(label, text)? {
                        ordinals.push(ordinal..ordinal + 1);
                    }
                }
            }
            Selects::Scan { prefix } => {
                let range = self.prefix_range(label, prefix)?;
                if is_prefix(matcher) {
                    // With `.+` the prefix itself is no match, and it is the first of the range.
                    let mut start = range.start;
                    if !range.is_empty()
                        && !matcher.matches_positive(prefix)
                        && self.find(label, prefix)?.is_some()
                    {
                        start += 1;
                    }
                    ordinals.push(start..range.end);
                    return Ok(ordinals);
                }
                self.for_each_value_in(label, range, &mut |ordinal, value| {
                    if matcher.matches_positive(value) {
                        ordinals.push(ordinal..ordinal + 1);
                    }
                })?;
            }
        }
        Ok(ordinals)
    }

    /// The values that `matcher` selects, given those its positive form accepts.
    fn selected(&self, label: usize, matcher: &CompiledMatcher, positive: Ordinals) -> Ordinals {
        match (matcher.is_negated(), self.label_at(label)) {
            (true, Some(entry)) => positive.complement(entry.values),
            _ => positive,
        }
    }

    fn term(&self, label: usize, matcher: &CompiledMatcher, positive: Ordinals) -> Result<Term> {
        let present = self.label_at(label).map_or(0, |entry| u64::from(entry.presence_rows));
        let positive_rows = self.rows_in(label, &positive)?;
        let selected_rows =
            if matcher.is_negated() { present.saturating_sub(positive_rows) } else { positive_rows };
        let selected = self.selected(label, matcher, positive);
        Ok(Term { label, selected, selected_rows, present, absent: matcher.matches_empty() })
    }

    /// The values that begin with `prefix`.
    fn prefix_range(&self, label: usize, prefix: &str) -> Result<Range<u32>> {
        let values = self.label_at(label).map_or(0, |entry| entry.values);
        if prefix.is_empty() {
            return Ok(0..values);
        }
        let start = self.lower_bound(label, prefix)?;
        let end = match text_behind(prefix) {
            Some(behind) => self.lower_bound(label, &behind)?,
            None => values,
        };
        Ok(start..end.max(start))
    }

    /// Calls `visit` with the values whose numbers are in `range`.
    pub(super) fn for_each_value_in(
        &self,
        label: usize,
        range: Range<u32>,
        visit: &mut dyn FnMut(u32, &str),
    ) -> Result<()> {
        let pages = self.label_at(label).map_or(&[][..], |entry| &entry.pages);
        let start = pages.partition_point(|page| page.first <= range.start).saturating_sub(1);
        for page in self.pages(label, start) {
            let (first, page) = page?;
            if first >= range.end {
                break;
            }
            for (ordinal, at) in (first..range.end).zip(0..page.len()) {
                if ordinal >= range.start {
                    visit(ordinal, page.value(at).unwrap_or_default());
                }
            }
        }
        Ok(())
    }

    /// The pages that hold some of the values, and which of their values.
    fn split(&self, label: usize, ordinals: &Ordinals) -> Vec<(usize, Vec<Range<u32>>)> {
        let pages = self.label_at(label).map_or(&[][..], |entry| &entry.pages);
        let mut split: Vec<(usize, Vec<Range<u32>>)> = Vec::new();
        for range in ordinals.ranges() {
            let start = pages.partition_point(|page| page.first <= range.start).saturating_sub(1);
            for (at, page) in
                pages.iter().enumerate().skip(start).take_while(|(_, page)| page.first < range.end)
            {
                let in_page =
                    range.start.saturating_sub(page.first)..(range.end - page.first).min(page.values);
                match split.last_mut() {
                    Some((last, ranges)) if *last == at => ranges.push(in_page),
                    _ => split.push((at, vec![in_page])),
                }
            }
        }
        split
    }

    /// How many rows have one of the values; whole pages are counted in the directory.
    fn rows_in(&self, label: usize, ordinals: &Ordinals) -> Result<u64> {
        let Some(entry) = self.label_at(label) else { return Ok(0) };
        let mut total = 0;
        for (at, ranges) in self.split(label, ordinals) {
            let Some(page_entry) = entry.pages.get(at) else { continue };
            if ranges.first() == Some(&(0..page_entry.values)) {
                let end =
                    entry.pages.get(at + 1).map_or(u64::from(entry.presence_rows), |next| next.total_before);
                total += end.saturating_sub(page_entry.total_before);
                continue;
            }
            let page = self.page(label, at)?;
            let lists = ranges.into_iter().flatten().filter_map(|at| page.list(at as usize));
            total += lists.map(|list| u64::from(list.rows())).sum::<u64>();
        }
        Ok(total)
    }

    /// The union of the lists of the values, about `expected` rows.
    fn union(&self, label: usize, ordinals: &Ordinals, expected: u64) -> Result<RoaringBitmap> {
        let mut union = RowUnion::new(self.directory.rows, expected);
        for (at, ranges) in self.split(label, ordinals) {
            if let Lists::Table(table) = &self.page(label, at)?.lists {
                self.union_lists(table, ranges.into_iter().flatten().map(|at| at as usize), &mut union)?;
            }
        }
        Ok(union.finish())
    }

    fn presence(&self, label: usize) -> Result<RoaringBitmap> {
        match self.label_at(label) {
            Some(entry) => Ok(self.set(entry.presence)?.to_bitmap(self.directory.rows)),
            None => Ok(RoaringBitmap::new()),
        }
    }

    /// The metrics whose numbers are in `ordinals`, in order of ids.
    fn metrics(&self, ordinals: &Ordinals, nameless: bool) -> Result<Vec<Metric>> {
        let mut metrics = Vec::new();
        if nameless && self.directory.nameless > 0 {
            metrics.push(self.nameless());
        }
        for range in ordinals.ranges() {
            self.for_each_metric_in(range.clone(), &mut |_, metric| {
                metrics.push(metric);
                Ok(())
            })?;
        }
        Ok(metrics)
    }

    /// The rows that the terms and searches leave of those of `metrics`; `None`: all of them.
    fn rows(
        &self,
        metrics: Option<&[Metric]>,
        mut terms: Vec<Term>,
        searched: &[(usize, &CompiledMatcher)],
    ) -> Result<Option<RoaringBitmap>> {
        if terms.is_empty() && searched.is_empty() {
            return Ok(None);
        }
        // Terms that need their label go first, those with the fewest rows before the others.
        terms.sort_by_key(|term| (term.absent, term.selected_rows));
        let series: Option<u64> =
            metrics.map(|metrics| metrics.iter().map(|metric| u64::from(metric.count)).sum());
        let mut terms = terms.into_iter().peekable();
        let first =
            terms.next_if(|term| !term.absent && series.is_none_or(|series| term.selected_rows < series));
        let mut candidates = match (&first, metrics) {
            (Some(term), _) => Some(self.selected_union(term)?),
            (None, Some(metrics)) => {
                let mut union = RowUnion::new(self.directory.rows, series.unwrap_or_default());
                let mut done = HashSet::new();
                for metric in metrics {
                    if metric.ordinal.is_none() || done.insert(metric.set) {
                        self.metric_rows(*metric)?.union_into(&mut union);
                    }
                }
                Some(union.finish())
            }
            (None, None) => None,
        };
        for term in terms {
            self.apply(&term, &mut candidates)?;
        }
        for (label, matcher) in searched {
            self.search(*label, matcher, &mut candidates)?;
        }
        Ok(candidates)
    }

    fn selected_union(&self, term: &Term) -> Result<RoaringBitmap> {
        if term.selected_rows * 2 <= term.present {
            return self.union(term.label, &term.selected, term.selected_rows);
        }
        let refused_rows = term.present.saturating_sub(term.selected_rows);
        let mut rows = self.presence(term.label)?;
        if refused_rows > 0 {
            rows -= self.union(term.label, &self.refused(term), refused_rows)?;
        }
        Ok(rows)
    }

    fn refused(&self, term: &Term) -> Ordinals {
        term.selected.complement(self.label_at(term.label).map_or(0, |entry| entry.values))
    }

    /// Reduces `candidates` (`None`: all rows) to those `term` leaves.
    fn apply(&self, term: &Term, candidates: &mut Option<RoaringBitmap>) -> Result<()> {
        let refused_rows = term.present.saturating_sub(term.selected_rows);
        let all = || {
            let mut all = RoaringBitmap::new();
            all.insert_range(0..self.directory.rows);
            all
        };
        if let Some(candidates) = candidates.as_mut() {
            let rows = term.selected_rows.min(refused_rows);
            let lists = if term.selected_rows <= refused_rows {
                term.selected.len()
            } else {
                self.refused(term).len()
            };
            let by_lists = lists.saturating_mul(LIST_NS) + rows * LIST_ROW_NS;
            let segments = candidates.len().min(u64::from(self.directory.rows / SEGMENT_ROWS + 1));
            if candidates.len() * COLUMN_ROW_NS + segments * COLUMN_NS < by_lists {
                return self.filter(term.label, candidates, |code| match code.checked_sub(1) {
                    None => term.absent,
                    Some(ordinal) => term.selected.contains(ordinal),
                });
            }
        }
        if !term.absent {
            let selected = self.selected_union(term)?;
            match candidates {
                Some(candidates) => *candidates &= selected,
                None => *candidates = Some(selected),
            }
            return Ok(());
        }
        let candidates = candidates.get_or_insert_with(all);
        if refused_rows <= term.selected_rows {
            *candidates -= self.union(term.label, &self.refused(term), refused_rows)?;
        } else {
            let kept = &*candidates & self.union(term.label, &term.selected, term.selected_rows)?;
            *candidates -= self.presence(term.label)?;
            *candidates |= kept;
        }
        Ok(())
    }

    /// Reduces `candidates` to those an expression leaves whose values have to be searched for.
    fn search(
        &self,
        label: usize,
        matcher: &CompiledMatcher,
        candidates: &mut Option<RoaringBitmap>,
    ) -> Result<()> {
        let prefix = match matcher.selects() {
            Selects::Scan { prefix } => prefix,
            _ => "",
        };
        if let Some(candidates) = candidates.as_mut() {
            let range = self.prefix_range(label, prefix)?;
            if candidates.len() < range.len() as u64 / 2 {
                let mut verdicts: HashMap<u32, bool> = HashMap::new();
                self.filter(label, candidates, |code| {
                    verdicts.entry(code).or_default();
                    true
                })?;
                for (code, verdict) in &mut verdicts {
                    *verdict = match code.checked_sub(1) {
                        None => matcher.matches_empty(),
                        Some(ordinal) if !range.contains(&ordinal) => matcher.is_negated(),
                        Some(ordinal) => {
                            let (page, at) = self.page_of(label, ordinal)?;
                            matcher.matches(page.value(at).unwrap_or_default())
                        }
                    };
                }
                return self
                    .filter(label, candidates, |code| verdicts.get(&code).copied().unwrap_or_default());
            }
        }
        let term = self.term(label, matcher, self.positive(label, matcher)?)?;
        self.apply(&term, candidates)
    }

    /// Keeps of `rows` those whose code `keep` accepts.
    fn filter(
        &self,
        label: usize,
        rows: &mut RoaringBitmap,
        mut keep: impl FnMut(u32) -> bool,
    ) -> Result<()> {
        let mut kept = Vec::new();
        self.for_each_code(label, rows, |row, code| {
            if keep(code) {
                kept.push(row);
            }
        })?;
        if kept.len() as u64 != rows.len() {
            *rows = kept.into_iter().collect();
        }
        Ok(())
    }

    /// Calls `visit` with each of `rows` and its code of `label`.
    pub(super) fn for_each_code(
        &self,
        label: usize,
        rows: &RoaringBitmap,
        mut visit: impl FnMut(u32, u32),
    ) -> Result<()> {
        let mut column: Option<(u32, Column)> = None;
        for row in rows {
            let segment = row / SEGMENT_ROWS;
            let column = match &column {
                Some((open, column)) if *open == segment => column,
                _ => &column.insert((segment, self.column(label, segment)?)).1,
            };
            visit(row, column.code(row % SEGMENT_ROWS));
        }
        Ok(())
    }

    /// The series of `metrics` (`None`: of all) in `rows` (`None`: all).
    fn expand(&self, metrics: Option<&[Metric]>, rows: Option<&RoaringBitmap>) -> Result<RoaringBitmap> {
        let mut ids = RoaringBitmap::new();
        let Some(rows) = rows else {
            match metrics {
                None => {
                    ids.insert_range(0..self.len());
                }
                Some(metrics) => metrics.iter().for_each(|metric| {
                    ids.insert_range(metric.first..metric.first + metric.count);
                }),
            }
            return Ok(ids);
        };
        if rows.is_empty() {
            return Ok(ids);
        }
        let selected: Vec<u32> = rows.iter().collect();
        // Metrics of one kind of target have the same set of rows.
        let mut known: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut all = Vec::new();
        let mut add = |metric: Metric| -> Result<()> {
            if metric.ordinal.is_none() {
                all.extend(rows.range(0..metric.count));
                return Ok(());
            }
            let ranks = match known.get(&metric.set) {
                Some(ranks) => ranks,
                None => known.entry(metric.set).or_insert(self.metric_rows(metric)?.ranks_of(&selected)),
            };
            all.extend(
                ranks.iter().map(|rank| metric.first + rank).filter(|id| *id < metric.first + metric.count),
            );
            Ok(())
        };
        match metrics {
            Some(metrics) => metrics.iter().try_for_each(|metric| add(*metric))?,
            None => {
                add(self.nameless())?;
                self.for_each_metric_in(0..u32::MAX, &mut |_, metric| add(metric))?;
            }
        }
        if all.len() < self.len() as usize / 64 {
            return RoaringBitmap::from_sorted_iter(all)
                .map_err(|_| page::dictionary_place(0).malformed("metrics whose series are apart"));
        }
        let mut union = RowUnion::new(self.len(), all.len() as u64);
        all.into_iter().for_each(|id| union.add(id, 1));
        Ok(union.finish())
    }
}

/// Whether the positive form is `prefix.*` or `prefix.+`.
fn is_prefix(matcher: &CompiledMatcher) -> bool {
    let Selects::Scan { prefix } = matcher.selects() else { return false };
    let text = matcher.matcher().value.as_str();
    !prefix.is_empty() && text.strip_prefix(prefix).is_some_and(|rest| rest == ".*" || rest == ".+")
}
