//! From series to labels.

use std::{
    collections::VecDeque,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use chronolith_model::{Labels, METRIC_NAME};
use roaring::RoaringBitmap;

use super::{
    DiskIndex, SectionRead,
    column::SEGMENT_ROWS,
    error::DiskIndexError,
    list::RowUnion,
    page::{self, ValuePage},
    read::{Column, Metric},
};

type Result<T, E = DiskIndexError> = std::result::Result<T, E>;

/// Series whose labels are made at a time.
const BATCH_SERIES: usize = 4096;
/// The same at first.
const FIRST_BATCH_SERIES: usize = 128;

/// The pages of one label that a batch has met; the text of a value is borrowed from its page.
#[derive(Debug)]
struct Texts {
    label: usize,
    pages: Vec<Option<Arc<ValuePage>>>,
}

impl Texts {
    /// Makes sure that the page of value `ordinal` is here.
    fn load<S: SectionRead>(&mut self, index: &DiskIndex<S>, ordinal: u32) -> Result<()> {
        let at = index.page_number(self.label, ordinal);
        if let Some(place) = self.pages.get_mut(at)
            && place.is_none()
        {
            *place = Some(index.page(self.label, at)?);
        }
        Ok(())
    }

    fn get<S: SectionRead>(&self, index: &DiskIndex<S>, ordinal: u32) -> Option<&str> {
        let at = index.page_number(self.label, ordinal);
        let first = index.label_at(self.label)?.pages.get(at)?.first;
        self.pages.get(at)?.as_ref()?.value((ordinal - first) as usize)
    }
}

/// A label of a batch: the codes of its rows, and the texts.
#[derive(Debug)]
struct BatchLabel<'a> {
    name: &'a str,
    /// One per row of the batch.
    codes: Vec<u32>,
    texts: Texts,
}

impl<S: SectionRead> DiskIndex<S> {
    fn page_number(&self, label: usize, ordinal: u32) -> usize {
        let pages = self.label_at(label).map_or(&[][..], |entry| &entry.pages);
        pages.partition_point(|page| page.first <= ordinal).saturating_sub(1)
    }

    /// The labels of the series `ids`, in the order of ids. Ids that no series has are passed over.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn labels(&self, ids: &RoaringBitmap) -> Result<Vec<Labels>> {
        let mut all = Vec::with_capacity(usize::try_from(ids.range_cardinality(0..self.len())).unwrap_or(0));
        self.visit_labels(ids, &mut |labels| {
            all.push(labels);
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// As [`DiskIndex::labels`], one after the other to `visit`, as long as it wants more. Memory is bounded.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn visit_labels(
        &self,
        ids: &RoaringBitmap,
        visit: &mut dyn FnMut(Labels) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut ids = ids.range(0..self.len());
        // Whoever wants few has not to pay for a whole batch.
        let mut size = FIRST_BATCH_SERIES;
        let mut batch = Vec::with_capacity(size);
        let mut flow = ControlFlow::Continue(());
        while flow.is_continue() {
            batch.clear();
            batch.extend(ids.by_ref().take(size));
            if batch.is_empty() {
                break;
            }
            self.batch(&batch, |labels| {
                if flow.is_continue() {
                    flow = visit(labels);
                }
            })?;
            size = BATCH_SERIES;
        }
        Ok(())
    }

    /// Whether the order of ids is that of labels: no label name sorts before that of the metric, and every series has one.
    #[must_use]
    pub fn is_in_order_of_labels(&self) -> bool {
        self.directory.nameless == 0 && self.directory.metric.is_none_or(|metric| metric == 0)
    }

    /// The labels of the series `ids`, in order, read as they are asked for: what a merge wants. Ends behind the last
    /// series, and behind the first error.
    pub fn series(&self, ids: Range<u32>) -> Series<'_, S> {
        Series { index: self, ids: ids.start..ids.end.min(self.len()), ready: VecDeque::new() }
    }

    /// Calls `visit` with every series, in order. Memory is bounded.
    ///
    /// # Errors
    /// Those of reading, and those of `visit`.
    pub fn walk<E: From<DiskIndexError>>(
        &self,
        mut visit: impl FnMut(u32, Labels) -> Result<(), E>,
    ) -> Result<(), E> {
        for (id, labels) in (0..).zip(self.series(0..self.len())) {
            visit(id, labels?)?;
        }
        Ok(())
    }

    /// Metrics and rows of series. `ids` ascend and exist.
    fn locate(&self, ids: &[u32]) -> Result<Vec<(Option<u32>, u32)>> {
        let mut located = Vec::with_capacity(ids.len());
        let mut rest = ids;
        // Those of one page, and which one comes next.
        let (mut metrics, mut next) = (Vec::new(), 0);
        while let Some(first) = rest.first() {
            let near: &[Metric] = metrics.get(next..).unwrap_or_default();
            let Some(at) = near.iter().position(|metric| metric.has(*first)) else {
                metrics = self.metrics_near(*first)?;
                next = 0;
                continue;
            };
            let Some(&metric) = near.get(at) else { continue };
            next += at + 1;
            let end = rest.partition_point(|id| *id < metric.first + metric.count);
            let (of_metric, others) = rest.split_at(end.max(1));
            rest = others;
            let ranks = of_metric.iter().map(|id| id - metric.first);
            let before = located.len();
            self.metric_rows(metric)?.rows_of(ranks, |row| located.push((metric.ordinal, row)));
            if located.len() - before != of_metric.len() {
                return Err(page::dictionary_place(0).malformed("a row for every series of a metric"));
            }
        }
        Ok(located)
    }

    fn batch(&self, ids: &[u32], mut visit: impl FnMut(Labels)) -> Result<()> {
        let located = self.locate(ids)?;
        let mut rows: Vec<u32> = located.iter().map(|(_, row)| *row).collect();
        rows.sort_unstable();
        rows.dedup();
        let labels = self.batch_labels(&rows)?;
        let mut names = Texts { label: self.directory.metric.unwrap_or_default(), pages: Vec::new() };
        names.pages.resize_with(self.label_at(names.label).map_or(0, |entry| entry.pages.len()), || None);
        for (metric, _) in &located {
            if let Some(metric) = metric {
                names.load(self, *metric)?;
            }
        }
        // Neighbours mostly share their values, and their rows ascend.
        let mut lasts = vec![(0, ""); labels.len()];
        let mut pairs = Vec::with_capacity(labels.len() + 1);
        let mut at = 0;
        for (metric, row) in located {
            at += 1;
            if rows.get(at) != Some(&row) {
                at = rows.partition_point(|other| *other < row);
            }
            let mut name = metric.and_then(|metric| names.get(self, metric));
            pairs.clear();
            for (label, last) in labels.iter().zip(&mut lasts) {
                let code = label.codes.get(at).copied().unwrap_or_default();
                let Some(ordinal) = code.checked_sub(1) else { continue };
                if let Some(metric) = name.filter(|_| Some(label.texts.label) > self.directory.metric) {
                    pairs.push((METRIC_NAME, metric));
                    name = None;
                }
                if last.0 != code {
                    *last = (code, label.texts.get(self, ordinal).unwrap_or_default());
                }
                pairs.push((label.name, last.1));
            }
            pairs.extend(name.map(|metric| (METRIC_NAME, metric)));
            let labels = Labels::from_sorted(pairs.iter().copied());
            visit(labels.ok_or_else(|| page::dictionary_place(0).malformed("sorted label names"))?);
        }
        Ok(())
    }

    /// The labels that some of `rows` have, with their codes and texts.
    fn batch_labels(&self, rows: &[u32]) -> Result<Vec<BatchLabel<'_>>> {
        let mut labels = Vec::new();
        for (number, entry) in self.directory.labels.iter().enumerate() {
            if self.directory.metric == Some(number) {
                continue;
            }
            let mut texts = Texts { label: number, pages: Vec::new() };
            texts.pages.resize_with(entry.pages.len(), || None);
            let mut codes = Vec::new();
            let mut done = 0;
            for of_segment in rows.chunk_by(|a, b| a / SEGMENT_ROWS == b / SEGMENT_ROWS) {
                let segment = of_segment.first().map_or(0, |row| row / SEGMENT_ROWS);
                match self.column(number, segment)? {
                    Column::Constant(0) => {}
                    column => {
                        codes.resize(done, 0);
                        let mut last = 0;
                        for row in of_segment {
                            let code = column.code(row % SEGMENT_ROWS);
                            if code != last && code > 0 {
                                texts.load(self, code - 1)?;
                                last = code;
                            }
                            codes.push(code);
                        }
                    }
                }
                done += of_segment.len();
            }
            if !codes.is_empty() {
                labels.push(BatchLabel { name: &entry.name, codes, texts });
            }
        }
        Ok(labels)
    }

    /// The rows of the series `ids`.
    fn rows_of(&self, ids: &RoaringBitmap) -> Result<RoaringBitmap> {
        let mut union = RowUnion::new(self.directory.rows, ids.len());
        let mut next = 0;
        while next < self.len() {
            let Some(id) = ids.range(next..self.len()).next() else { break };
            let metric = self.metric_of(id)?;
            let end = metric.first + metric.count;
            let rows = self.metric_rows(metric)?;
            let of_metric = ids.range_cardinality(metric.first..end);
            if of_metric == u64::from(metric.count) {
                rows.union_into(&mut union);
            } else {
                let ranks = ids.range(metric.first..end).map(|id| id - metric.first);
                rows.rows_of(ranks, |row| union.add(row, 1));
            }
            next = end;
        }
        Ok(union.finish())
    }

    /// The label names of the series `among`, or of all series, sorted.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn label_names(&self, among: Option<&RoaringBitmap>) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.visit_label_names(among, &mut |name| {
            names.push(name.to_owned());
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    /// As [`DiskIndex::label_names`], one after the other to `visit`, as long as it wants more.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn visit_label_names(
        &self,
        among: Option<&RoaringBitmap>,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<()> {
        let rows = among.map(|ids| self.rows_of(ids)).transpose()?;
        for (number, entry) in self.directory.labels.iter().enumerate() {
            let has = match (&rows, among) {
                (Some(_), Some(ids)) if self.directory.metric == Some(number) => {
                    ids.range_cardinality(self.directory.nameless..self.len()) > 0
                }
                (Some(rows), _) => self.set(entry.presence)?.intersects(rows),
                _ => true,
            };
            if has && visit(&entry.name).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The values of label `name` of the series `among`, or of all series, sorted.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn label_values(&self, name: &str, among: Option<&RoaringBitmap>) -> Result<Vec<String>> {
        let mut values = Vec::new();
        self.visit_label_values(name, among, &mut |value| {
            values.push(value.to_owned());
            ControlFlow::Continue(())
        })?;
        Ok(values)
    }

    /// As [`DiskIndex::label_values`], one after the other to `visit`, as long as it wants more. Memory is bounded, but for
    /// a bit for each value.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn visit_label_values(
        &self,
        name: &str,
        among: Option<&RoaringBitmap>,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some((label, entry)) = self.directory.label(name) else { return Ok(()) };
        if among.is_some_and(RoaringBitmap::is_empty) {
            return Ok(());
        }
        if among.is_none() || self.directory.metric == Some(label) {
            for page in 0..entry.pages.len() {
                if self.visit_values_of_page(label, page, among, visit)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let Some(ids) = among else { return Ok(()) };
        let mut codes = RoaringBitmap::new();
        self.for_each_code(label, &self.rows_of(ids)?, |_, code| {
            codes.insert(code);
        })?;
        let mut open: Option<(Range<u32>, Arc<ValuePage>)> = None;
        for ordinal in codes.range(1..).map(|code| code - 1) {
            let (of_page, page) = match &open {
                Some((of_page, page)) if of_page.contains(&ordinal) => (of_page, page),
                _ => {
                    let (page, at) = self.page_of(label, ordinal)?;
                    let first = ordinal - at as u32;
                    let (of_page, page) = open.insert((first..first + page.len() as u32, page));
                    (&*of_page, &*page)
                }
            };
            if visit(page.value((ordinal - of_page.start) as usize).unwrap_or_default()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The values of a page of `label`; of that of metric names, those that `among` has series of.
    fn visit_values_of_page(
        &self,
        label: usize,
        page: usize,
        among: Option<&RoaringBitmap>,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let Some(entry) = self.label_at(label).and_then(|entry| entry.pages.get(page)) else {
            return Ok(ControlFlow::Break(()));
        };
        let ordinals = entry.first..entry.first + entry.values;
        let mut flow = ControlFlow::Continue(());
        let Some(ids) = among else {
            let page = self.page(label, page)?;
            for at in 0..page.len() {
                flow = visit(page.value(at).unwrap_or_default());
                if flow.is_break() {
                    break;
                }
            }
            return Ok(flow);
        };
        self.for_each_metric_in(ordinals, &mut |name, metric| {
            let of_metric = metric.first..metric.first + metric.count;
            if flow.is_continue() && ids.range_cardinality(of_metric) > 0 {
                flow = visit(name);
            }
            Ok(())
        })?;
        Ok(flow)
    }

    /// The ids of the series of `metric` (empty: of those without a name); an empty range where there is none.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn metric_ids(&self, metric: &str) -> Result<Range<u32>> {
        Ok(self.metric(metric)?.map_or(0..0, |metric| metric.first..metric.first + metric.count))
    }

    pub(super) fn metric(&self, metric: &str) -> Result<Option<Metric>> {
        if metric.is_empty() {
            return Ok(Some(self.nameless()));
        }
        let Some(label) = self.directory.metric else { return Ok(None) };
        let Some(ordinal) = self.find(label, metric)? else { return Ok(None) };
        let mut found = None;
        self.for_each_metric_in(ordinal..ordinal + 1, &mut |_, metric| {
            found = Some(metric);
            Ok(())
        })?;
        Ok(found)
    }
}

/// Iterates over the labels of neighbouring series; made by [`DiskIndex::series`].
#[derive(Debug)]
pub struct Series<'a, S> {
    index: &'a DiskIndex<S>,
    ids: Range<u32>,
    ready: VecDeque<Labels>,
}

impl<S: SectionRead> Iterator for Series<'_, S> {
    type Item = Result<Labels>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() && !self.ids.is_empty() {
            let batch: Vec<u32> = self.ids.by_ref().take(BATCH_SERIES).collect();
            let ready = &mut self.ready;
            if let Err(error) = self.index.batch(&batch, |labels| ready.push_back(labels)) {
                self.ready.clear();
                self.ids = 0..0;
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}
