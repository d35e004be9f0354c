//! The directory: what is needed to find everything else.

use chronolith_codec::{Reader, write};

use super::{
    LABEL_BYTES_MAX, NAMES_MAX, SERIES_MAX,
    column::{COLUMN_BYTES_MAX, SEGMENT_ROWS},
    error::{DiskIndexError, IndexSection},
    page::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX},
    section::{self, Place},
};

/// The version of the format.
pub(super) const VERSION: u8 = 1;
/// Most bytes of a directory before it is packed.
const DIRECTORY_BYTES_MAX: usize = 64 << 20;
/// Lists of a page of sets.
pub(super) const SETS_PER_PAGE: u32 = 1024;
const PLACE: Place = Place { section: IndexSection::Directory, offset: 0 };

/// The directory, decoded.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Number of series.
    pub(super) series: u32,
    /// Series without a metric name; they are the first, and so are their rows.
    pub(super) nameless: u32,
    /// Number of rows.
    pub(super) rows: u32,
    /// Number of sets of rows.
    pub(super) sets: u32,
    /// Offset and length of each page of sets.
    pub(super) set_pages: Vec<(u64, u32)>,
    /// Sorted by name.
    pub(super) labels: Vec<LabelEntry>,
    /// Which of them is the metric name.
    pub(super) metric: Option<usize>,
}

/// What is known of a label name.
#[derive(Debug, Default)]
pub(super) struct LabelEntry {
    pub(super) name: Box<str>,
    pub(super) values: u32,
    pub(super) value_bytes: u64,
    /// Series that have the label.
    pub(super) series: u32,
    /// The set of rows that have it.
    pub(super) presence: u32,
    pub(super) presence_rows: u32,
    pub(super) pages: Vec<PageEntry>,
    /// Segments where some row has the label, ascending.
    pub(super) columns: Vec<(u32, ColumnEntry)>,
}

/// A page of values.
#[derive(Debug, Default)]
pub(super) struct PageEntry {
    pub(super) offset: u64,
    pub(super) len: u32,
    /// Number of the first value.
    pub(super) first: u32,
    pub(super) values: u32,
    /// Sum over the values before the page: of their series for metric names, else of the rows in their lists.
    pub(super) total_before: u64,
    /// Not greater than the first value and greater than the last one of the page before.
    pub(super) separator: Box<str>,
}

/// A column of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnEntry {
    /// All rows have this code.
    Constant(u32),
    Stored {
        offset: u64,
        len: u32,
    },
}

/// A label name to be written.
#[derive(Debug, Default)]
pub(super) struct LabelDraft {
    pub(super) name: String,
    pub(super) values: u32,
    pub(super) value_bytes: u64,
    pub(super) series: u32,
    pub(super) presence: u32,
    pub(super) presence_rows: u32,
    /// Length, number of values, total, separator.
    pub(super) pages: Vec<(usize, usize, u64, String)>,
    /// Segment, and code of a constant column or length of a stored one.
    pub(super) columns: Vec<(u32, Result<u32, usize>)>,
}

/// Appends the directory as `[version][unit]`.
pub(super) fn encode(
    (series, nameless, rows, sets): (u32, u32, u32, u32),
    set_pages: &[usize],
    labels: &[LabelDraft],
) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [series, nameless, rows, sets] {
        write::uvarint(&mut out, u64::from(number));
    }
    for len in set_pages {
        write::uvarint(&mut out, *len as u64);
    }
    write::uvarint(&mut out, labels.len() as u64);
    for label in labels {
        write::prefixed(&mut out, label.name.as_bytes());
        write::uvarint(&mut out, u64::from(label.values));
        write::uvarint(&mut out, label.value_bytes);
        for number in [label.series, label.presence, label.presence_rows] {
            write::uvarint(&mut out, u64::from(number));
        }
        write::uvarint(&mut out, label.pages.len() as u64);
        for (len, values, total, separator) in &label.pages {
            write::uvarint(&mut out, *len as u64);
            write::uvarint(&mut out, *values as u64);
            write::uvarint(&mut out, *total);
            write::prefixed(&mut out, separator.as_bytes());
        }
        write::uvarint(&mut out, label.columns.len() as u64);
        let mut next = 0;
        for (segment, column) in &label.columns {
            write::uvarint(&mut out, u64::from(segment - next));
            next = segment + 1;
            let head = match column {
                Ok(code) => u64::from(*code) << 1,
                Err(len) => (*len as u64) << 1 | 1,
            };
            write::uvarint(&mut out, head);
        }
    }
    let mut directory = vec![VERSION];
    section::seal(&out, &mut directory);
    directory
}

impl Directory {
    pub(super) fn read(bytes: &[u8], verify: bool) -> Result<Self, DiskIndexError> {
        let field = |e| PLACE.field(e);
        let Some((version, unit)) = bytes.split_first() else {
            return Err(PLACE.malformed("a version"));
        };
        if *version != VERSION {
            return Err(DiskIndexError::Version { got: *version, known: VERSION });
        }
        let content = section::open(unit, DIRECTORY_BYTES_MAX, PLACE, verify)?;
        let mut reader = Reader::new(&content);
        let series = reader.count(SERIES_MAX as usize, "number of series").map_err(field)? as u32;
        let nameless = reader.count(series as usize, "series without a metric name").map_err(field)? as u32;
        let rows = reader.count(series as usize, "number of rows").map_err(field)? as u32;
        let sets =
            reader.count(reader.rest().len() * SETS_PER_PAGE as usize, "number of sets").map_err(field)?;
        let sets = u32::try_from(sets).map_err(|_| PLACE.malformed("sets of 32 bits"))?;
        if nameless > rows {
            return Err(PLACE.malformed("a row for each series without a metric name"));
        }
        let mut directory = Self { series, nameless, rows, sets, ..Self::default() };
        let mut offset = 0;
        for _ in 0..sets.div_ceil(SETS_PER_PAGE) {
            let len = reader.count(PAGE_BYTES_MAX, "length of a page of sets").map_err(field)?;
            directory.set_pages.push((offset, len as u32));
            offset += len as u64;
        }
        let names = reader.count(NAMES_MAX, "number of label names").map_err(field)?;
        let mut forward = 0;
        for _ in 0..names {
            let label = directory.read_label(&mut reader, &mut offset, &mut forward)?;
            if directory.labels.last().is_some_and(|before| before.name >= label.name) {
                return Err(PLACE.malformed("sorted label names"));
            }
            if &*label.name == chronolith_model::METRIC_NAME {
                directory.metric = Some(directory.labels.len());
            }
            directory.labels.push(label);
        }
        reader.finish().map_err(field)?;
        let named = directory.metric.and_then(|at| directory.labels.get(at)).map_or(0, |label| label.series);
        if u64::from(named) + u64::from(nameless) != u64::from(series) {
            return Err(PLACE.malformed("every series to have a metric name or none"));
        }
        Ok(directory)
    }

    fn read_label(
        &self,
        reader: &mut Reader<'_>,
        dictionaries: &mut u64,
        forward: &mut u64,
    ) -> Result<LabelEntry, DiskIndexError> {
        let field = |e| PLACE.field(e);
        let mut label = LabelEntry {
            name: reader.text(LABEL_BYTES_MAX, "label name").map_err(field)?.into(),
            values: reader.count(SERIES_MAX as usize, "number of values").map_err(field)? as u32,
            value_bytes: reader.uvarint("bytes of values").map_err(field)?,
            series: reader.count(self.series as usize, "series of a label").map_err(field)? as u32,
            presence: reader.count(self.sets as usize, "set of a label").map_err(field)? as u32,
            presence_rows: reader.count(self.rows as usize, "rows of a label").map_err(field)? as u32,
            ..LabelEntry::default()
        };
        let is_metric = &*label.name == chronolith_model::METRIC_NAME;
        let pages = reader.count(reader.rest().len(), "number of pages").map_err(field)?;
        let (mut first, mut total) = (0u32, 0u64);
        for _ in 0..pages {
            let len = reader.count(PAGE_BYTES_MAX + 16, "length of a page").map_err(field)? as u32;
            let values = reader.count(PAGE_ENTRIES_MAX, "values of a page").map_err(field)? as u32;
            let sum = reader.uvarint("total of a page").map_err(field)?;
            let separator: Box<str> = reader.text(LABEL_BYTES_MAX, "separator").map_err(field)?.into();
            if label.pages.last().is_some_and(|before| before.separator >= separator) {
                return Err(PLACE.malformed("sorted pages"));
            }
            label.pages.push(PageEntry {
                offset: *dictionaries,
                len,
                first,
                values,
                total_before: total,
                separator,
            });
            *dictionaries += u64::from(len);
            first = first.saturating_add(values);
            total = total.saturating_add(sum);
        }
        let expected = if is_metric { u64::from(label.series) } else { u64::from(label.presence_rows) };
        if first != label.values || total != expected || label.presence >= self.sets {
            return Err(PLACE.malformed("pages of all values of a label"));
        }
        let segments = if is_metric { 0 } else { self.rows.div_ceil(SEGMENT_ROWS) };
        let columns = reader.count(segments as usize, "number of columns").map_err(field)?;
        let mut segment = 0;
        for _ in 0..columns {
            let left = (segments - segment) as usize;
            segment +=
                reader.count(left.saturating_sub(1), "segments without the label").map_err(field)? as u32;
            if segment >= segments {
                return Err(PLACE.malformed("segments that exist"));
            }
            let head = reader.uvarint("column").map_err(field)?;
            let entry = if head & 1 == 0 {
                let code = u32::try_from(head >> 1).ok().filter(|code| *code <= label.values);
                ColumnEntry::Constant(code.ok_or_else(|| PLACE.malformed("codes of values that exist"))?)
            } else {
                let len = usize::try_from(head >> 1).ok().filter(|len| *len <= COLUMN_BYTES_MAX + 16);
                let len = len.ok_or_else(|| PLACE.malformed("a column within its limit"))? as u32;
                let offset = *forward;
                *forward += u64::from(len);
                ColumnEntry::Stored { offset, len }
            };
            label.columns.push((segment, entry));
            segment += 1;
        }
        Ok(label)
    }

    /// The label `name`, by its number.
    pub(super) fn label(&self, name: &str) -> Option<(usize, &LabelEntry)> {
        let at = self.labels.binary_search_by(|label| (*label.name).cmp(name)).ok()?;
        Some((at, self.labels.get(at)?))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let label = |label: &LabelEntry| {
            let separators: usize = label.pages.iter().map(|page| page.separator.len()).sum();
            size_of::<LabelEntry>()
                + label.name.len()
                + label.pages.capacity() * size_of::<PageEntry>()
                + separators
                + label.columns.capacity() * size_of::<(u32, ColumnEntry)>()
        };
        self.set_pages.capacity() * 16 + self.labels.iter().map(label).sum::<usize>()
    }
}
