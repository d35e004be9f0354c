//! An index, opened: pages, lists, sets and columns by their numbers.

use std::sync::Arc;

use super::{
    PageCache,
    cache::{Cached, Key, OWN_CACHE_BYTES_MAX, UnitKey},
    column::{self, COLUMN_BYTES_MAX, SEGMENT_ROWS},
    directory::{ColumnEntry, Directory, LabelEntry, SETS_PER_PAGE},
    error::{DiskIndexError, IndexSection},
    list::{self, RowSet, RowUnion},
    page::{self, ListRef, ListTable, PAGE_BYTES_MAX, ValuePage, list_unit_bytes_max},
    section::{self, Place, SectionRead},
};

type Result<T, E = DiskIndexError> = std::result::Result<T, E>;

/// An index on disk, opened. It keeps the directory in memory, and reads other parts as they are needed, through a
/// cache of what it decoded.
///
/// A series is a metric name and a *row*, that is its other labels; the series of different metrics share rows. Lists
/// and columns speak of rows. The rows are numbered so that those of one metric ascend with the ids of its series.
#[derive(Debug)]
pub struct DiskIndex<S> {
    source: S,
    cache: Arc<PageCache>,
    number: u64,
    pub(super) directory: Directory,
}

/// A metric name with its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metric {
    /// Its number among metric names; `None`: the series without one.
    pub(super) ordinal: Option<u32>,
    /// Id of its first series.
    pub(super) first: u32,
    /// How many series it has.
    pub(super) count: u32,
    /// Its set of rows.
    pub(super) set: u32,
}

/// A column of a segment.
#[derive(Clone, Debug)]
pub(super) enum Column {
    Constant(u32),
    Codes(Arc<Vec<u32>>),
}

impl Column {
    /// The code at `row` of the segment: 0 or the value's number and one.
    pub(super) fn code(&self, row: u32) -> u32 {
        match self {
            Self::Constant(code) => *code,
            Self::Codes(codes) => codes.get(row as usize).copied().unwrap_or_default(),
        }
    }
}

impl<S> Drop for DiskIndex<S> {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

impl<S: SectionRead> DiskIndex<S> {
    /// Opens the index whose directory is `directory`, and reads no more than that. Its cache is its own, of
    /// [`super::OWN_CACHE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// When the directory is damaged or of another version.
    pub fn open(directory: &[u8], source: S) -> Result<Self> {
        Self::open_with(directory, source, Arc::new(PageCache::new(OWN_CACHE_BYTES_MAX)))
    }

    /// As [`DiskIndex::open`], with a cache that others use too.
    ///
    /// # Errors
    /// When the directory is damaged or of another version.
    pub fn open_with(directory: &[u8], source: S, cache: Arc<PageCache>) -> Result<Self> {
        let directory = Directory::read(directory, source.verifies())?;
        Ok(Self { source, number: cache.register(), cache, directory })
    }

    /// How many series there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.directory.series
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory behind this index, its cache not included.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.directory.heap_bytes()
    }

    /// The cache, for its size.
    #[must_use]
    pub fn cache(&self) -> &Arc<PageCache> {
        &self.cache
    }

    /// Where it reads from.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    fn key(&self, unit: UnitKey) -> Key {
        Key { index: self.number, unit }
    }

    fn unit(&self, section: IndexSection, offset: u64, len: u32, max: usize) -> Result<Vec<u8>> {
        let bytes = self.source.read(section, offset, len as usize)?;
        section::open(&bytes, max, Place { section, offset }, self.source.verifies())
    }

    pub(super) fn label_at(&self, label: usize) -> Option<&LabelEntry> {
        self.directory.labels.get(label)
    }

    /// Page `at` of the values of `label`.
    pub(super) fn page(&self, label: usize, at: usize) -> Result<Arc<ValuePage>> {
        let key = self.key(UnitKey::Values { label: label as u32, page: at as u32 });
        if let Some(Cached::Values(page)) = self.cache.get(key) {
            return Ok(page);
        }
        let Some(entry) = self.label_at(label).and_then(|entry| entry.pages.get(at)) else {
            return Err(page::dictionary_place(0).malformed("a page that exists"));
        };
        let place = page::dictionary_place(entry.offset);
        let content = self.unit(IndexSection::Dictionaries, entry.offset, entry.len, PAGE_BYTES_MAX)?;
        let sets = (self.directory.metric == Some(label)).then_some(self.directory.sets);
        let page = ValuePage::read(&content, entry.values as usize, self.directory.rows, sets, place)?;
        let page = Arc::new(page);
        self.cache.put(key, Cached::Values(Arc::clone(&page)));
        Ok(page)
    }

    /// The pages of `label` with their first values' numbers, from page `at` on.
    pub(super) fn pages(
        &self,
        label: usize,
        at: usize,
    ) -> impl Iterator<Item = Result<(u32, Arc<ValuePage>)>> + '_ {
        let pages = self.label_at(label).map_or(&[][..], |entry| &entry.pages);
        let firsts = pages.iter().map(|page| page.first).enumerate().skip(at);
        firsts.map(move |(at, first)| Ok((first, self.page(label, at)?)))
    }

    /// How many values of `label` are less than `text`.
    pub(super) fn lower_bound(&self, label: usize, text: &str) -> Result<u32> {
        let Some(entry) = self.label_at(label) else { return Ok(0) };
        let at = entry.pages.partition_point(|page| *page.separator <= *text);
        let Some(before) = at.checked_sub(1) else { return Ok(0) };
        let first = entry.pages.get(before).map_or(0, |page| page.first);
        Ok(first + self.page(label, before)?.lower_bound(text) as u32)
    }

    /// The page of value `ordinal` of `label`, and its place in it.
    pub(super) fn page_of(&self, label: usize, ordinal: u32) -> Result<(Arc<ValuePage>, usize)> {
        let entry = self.label_at(label);
        let at = entry.map_or(0, |entry| entry.pages.partition_point(|page| page.first <= ordinal));
        let at = at.saturating_sub(1);
        let first = entry.and_then(|entry| entry.pages.get(at)).map_or(0, |page| page.first);
        Ok((self.page(label, at)?, (ordinal - first) as usize))
    }

    /// The number of `value` among those of `label`.
    pub(super) fn find(&self, label: usize, value: &str) -> Result<Option<u32>> {
        let ordinal = self.lower_bound(label, value)?;
        if self.label_at(label).is_none_or(|entry| ordinal >= entry.values) {
            return Ok(None);
        }
        let (page, at) = self.page_of(label, ordinal)?;
        Ok((page.value(at) == Some(value)).then_some(ordinal))
    }

    /// A unit of lists.
    fn lists(&self, offset: u64, len: u32) -> Result<Arc<Vec<u8>>> {
        let key = self.key(UnitKey::Lists(offset));
        if let Some(Cached::Lists(bytes)) = self.cache.get(key) {
            return Ok(bytes);
        }
        let max = list_unit_bytes_max(self.directory.rows);
        let bytes = Arc::new(self.unit(IndexSection::Postings, offset, len, max)?);
        self.cache.put(key, Cached::Lists(Arc::clone(&bytes)));
        Ok(bytes)
    }

    /// Adds the rows of the lists `lists` of `table`, each with its number, to `into`.
    pub(super) fn union_lists(
        &self,
        table: &ListTable,
        lists: impl Iterator<Item = usize>,
        into: &mut RowUnion,
    ) -> Result<()> {
        let mut open: Option<(u32, Place, Arc<Vec<u8>>)> = None;
        for at in lists {
            let Some(list) = table.get(at) else { continue };
            let ListRef::List { rows, unit, start, len, roaring } = list else {
                if let ListRef::One(row) = list {
                    into.add(row, 1);
                }
                continue;
            };
            let (place, bytes) = match &open {
                Some((number, place, bytes)) if *number == unit => (*place, bytes),
                _ => {
                    let (place, bytes) = self.open_lists(table, unit)?;
                    let (_, place, bytes) = open.insert((unit, place, bytes));
                    (*place, &*bytes)
                }
            };
            let bytes = list_bytes(bytes, start, len, place)?;
            if list::union_into(bytes, roaring, self.directory.rows, place, into)? != rows {
                return Err(place.malformed("as many rows in a list as its page says"));
            }
        }
        Ok(())
    }

    fn open_lists(&self, table: &ListTable, unit: u32) -> Result<(Place, Arc<Vec<u8>>)> {
        let (offset, len) = table.unit(unit).unwrap_or_default();
        Ok((Place { section: IndexSection::Postings, offset }, self.lists(offset, len)?))
    }

    /// The set of rows `number`.
    pub(super) fn set(&self, number: u32) -> Result<Arc<RowSet>> {
        let key = self.key(UnitKey::Set(number));
        if let Some(Cached::Set(set)) = self.cache.get(key) {
            return Ok(set);
        }
        let table = self.set_page(number / SETS_PER_PAGE)?;
        let mut set = RowSet::default();
        match table.get((number % SETS_PER_PAGE) as usize) {
            Some(ListRef::One(row)) => set.push(row, 1),
            Some(ListRef::List { rows, unit, start, len, roaring }) => {
                let (place, bytes) = self.open_lists(&table, unit)?;
                let bytes = list_bytes(&bytes, start, len, place)?;
                let visit = |first, len| set.push(first, len);
                if list::for_each_run(bytes, roaring, self.directory.rows, place, visit)? != rows {
                    return Err(place.malformed("as many rows in a set as its page says"));
                }
            }
            None => return Err(page::dictionary_place(0).malformed("sets that exist")),
        }
        let set = Arc::new(set);
        self.cache.put(key, Cached::Set(Arc::clone(&set)));
        Ok(set)
    }

    fn set_page(&self, at: u32) -> Result<Arc<ListTable>> {
        let key = self.key(UnitKey::SetPage(at));
        if let Some(Cached::SetPage(page)) = self.cache.get(key) {
            return Ok(page);
        }
        let Some((offset, len)) = self.directory.set_pages.get(at as usize).copied() else {
            return Err(page::dictionary_place(0).malformed("a page of sets that exists"));
        };
        let content = self.unit(IndexSection::Dictionaries, offset, len, PAGE_BYTES_MAX)?;
        let count = (self.directory.sets - at * SETS_PER_PAGE).min(SETS_PER_PAGE);
        let place = page::dictionary_place(offset);
        let page = Arc::new(page::read_set_page(&content, count as usize, self.directory.rows, place)?);
        self.cache.put(key, Cached::SetPage(Arc::clone(&page)));
        Ok(page)
    }

    /// The set of rows of `metric`.
    pub(super) fn metric_rows(&self, metric: Metric) -> Result<Arc<RowSet>> {
        if metric.ordinal.is_none() {
            return Ok(Arc::new(RowSet::dense(self.directory.nameless)));
        }
        let set = self.set(metric.set)?;
        if set.len() == metric.count {
            return Ok(set);
        }
        Err(page::dictionary_place(0).malformed("as many rows for a metric as it has series"))
    }

    fn column_entry(&self, label: usize, segment: u32) -> Option<ColumnEntry> {
        let columns = &self.label_at(label)?.columns;
        let at = columns.binary_search_by_key(&segment, |(segment, _)| *segment).ok()?;
        columns.get(at).map(|(_, column)| *column)
    }

    /// Where the column of `label` in `segment` lies; 0 where it is not stored.
    pub(super) fn column_offset(&self, label: usize, segment: u32) -> u64 {
        match self.column_entry(label, segment) {
            Some(ColumnEntry::Stored { offset, .. }) => offset,
            _ => 0,
        }
    }

    pub(super) fn forget_pages(&self) {
        self.cache.forget(self.number);
    }

    /// The column of `label` in `segment`.
    pub(super) fn column(&self, label: usize, segment: u32) -> Result<Column> {
        let entry = self.label_at(label);
        let (offset, len) = match self.column_entry(label, segment) {
            None => return Ok(Column::Constant(0)),
            Some(ColumnEntry::Constant(code)) => return Ok(Column::Constant(code)),
            Some(ColumnEntry::Stored { offset, len }) => (offset, len),
        };
        let key = self.key(UnitKey::Column { label: label as u32, segment });
        if let Some(Cached::Column(codes)) = self.cache.get(key) {
            return Ok(Column::Codes(codes));
        }
        let section = IndexSection::Forward;
        let content = self.unit(section, offset, len, COLUMN_BYTES_MAX)?;
        let rows = (self.directory.rows - segment * SEGMENT_ROWS).min(SEGMENT_ROWS);
        let values = entry.map_or(0, |entry| entry.values);
        let codes = Arc::new(column::decode(&content, rows, values, Place { section, offset })?);
        self.cache.put(key, Cached::Column(Arc::clone(&codes)));
        Ok(Column::Codes(codes))
    }

    /// Calls `visit` with each metric whose number is in `ordinals`, in order of ids; the series without a metric name
    /// are not among them.
    pub(super) fn for_each_metric_in(
        &self,
        ordinals: std::ops::Range<u32>,
        visit: &mut dyn FnMut(&str, Metric) -> Result<()>,
    ) -> Result<()> {
        let Some(label) = self.directory.metric else { return Ok(()) };
        let Some(entry) = self.label_at(label) else { return Ok(()) };
        let start = entry.pages.partition_point(|page| page.first <= ordinals.start).saturating_sub(1);
        for (at, page_entry) in entry.pages.iter().enumerate().skip(start) {
            if page_entry.first >= ordinals.end {
                break;
            }
            let page = self.page(label, at)?;
            let place = page::dictionary_place(page_entry.offset);
            let end = entry.pages.get(at + 1).map_or(u64::from(entry.series), |next| next.total_before);
            if page_entry.total_before + page.counts().iter().map(|count| u64::from(*count)).sum::<u64>()
                != end
            {
                return Err(place.malformed("as many series as the directory says"));
            }
            // Below the number of series, which has 32 bits.
            let mut first = self.directory.nameless + page_entry.total_before as u32;
            for (in_page, ordinal) in (0..page.len()).zip(page_entry.first..) {
                let count = page.count(in_page);
                if ordinals.contains(&ordinal) {
                    let set = page.set(in_page).ok_or_else(|| place.malformed("sets of metric names"))?;
                    let metric = Metric { ordinal: Some(ordinal), first, count, set };
                    visit(page.value(in_page).unwrap_or_default(), metric)?;
                }
                first += count;
            }
        }
        Ok(())
    }

    /// The series without a metric name, as a metric.
    pub(super) fn nameless(&self) -> Metric {
        Metric { ordinal: None, first: 0, count: self.directory.nameless, set: 0 }
    }

    /// The metric of series `id`.
    pub(super) fn metric_of(&self, id: u32) -> Result<Metric> {
        let metrics = self.metrics_near(id)?;
        let metric = metrics.into_iter().find(|metric| metric.has(id));
        metric.ok_or_else(|| page::dictionary_place(0).malformed("a metric name for every series"))
    }

    /// The metrics of the page that has the metric of series `id`, in order of ids. That metric is among them.
    pub(super) fn metrics_near(&self, id: u32) -> Result<Vec<Metric>> {
        let nameless = self.nameless();
        if nameless.has(id) {
            return Ok(vec![nameless]);
        }
        let none = || page::dictionary_place(0).malformed("a metric name for every series");
        let entry = self.directory.metric.and_then(|label| self.label_at(label)).ok_or_else(none)?;
        let named = u64::from(id - nameless.count);
        let at = entry.pages.partition_point(|page| page.total_before <= named).saturating_sub(1);
        let page = entry.pages.get(at).ok_or_else(none)?;
        let mut found = Vec::new();
        self.for_each_metric_in(page.first..page.first + page.values, &mut |_, metric| {
            found.push(metric);
            Ok(())
        })?;
        if found.iter().any(|metric| metric.has(id)) { Ok(found) } else { Err(none()) }
    }
}

impl Metric {
    /// Whether series `id` is of this metric.
    pub(super) const fn has(&self, id: u32) -> bool {
        self.first <= id && id - self.first < self.count
    }
}

fn list_bytes(unit: &[u8], start: u32, len: u32, place: Place) -> Result<&[u8]> {
    let (start, len) = (start as usize, len as usize);
    unit.get(start..start + len).ok_or_else(|| place.malformed("lists within their unit"))
}
