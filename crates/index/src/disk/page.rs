//! Pages: values of one label with their counts, and where the list of each lies.

use chronolith_codec::{Reader, write};

use super::{
    LABEL_BYTES_MAX,
    error::{DiskIndexError, IndexSection},
    list,
    section::{self, Place},
};

/// Most values of a page, and lists of a page of sets.
pub(super) const PAGE_ENTRIES_MAX: usize = 4096;
/// A page ends behind the value that takes its suffixes to this.
pub(super) const PAGE_SUFFIX_BYTES: usize = 16 << 10;
/// A page ends behind the value that takes its texts to this.
pub(super) const PAGE_TEXT_BYTES: usize = 64 << 10;
/// Most bytes of the texts of a page.
const PAGE_TEXT_BYTES_MAX: usize = PAGE_TEXT_BYTES + LABEL_BYTES_MAX;
/// Most bytes of a page before it is packed: its texts, and five numbers of at most five bytes and one of ten for each
/// value.
pub(super) const PAGE_BYTES_MAX: usize = PAGE_TEXT_BYTES_MAX + PAGE_ENTRIES_MAX * 40;
/// A unit of lists ends behind the list that takes it to this.
const LIST_UNIT_BYTES: u32 = 4 << 10;

/// Most bytes of a unit of lists before it is packed, in an index of so many rows. As gap/run a row costs a byte, and
/// every further byte of a gap stands for 64 rows that are missing.
pub(super) const fn list_unit_bytes_max(rows: u32) -> usize {
    LIST_UNIT_BYTES as usize + rows as usize + 16
}

/// The rows of one value: one row, or a list in a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListRef {
    One(u32),
    List { rows: u32, unit: u32, start: u32, len: u32, roaring: bool },
}

impl ListRef {
    pub(super) fn rows(&self) -> u32 {
        match self {
            Self::One(_) => 1,
            Self::List { rows, .. } => *rows,
        }
    }
}

/// Where the lists of a page lie.
#[derive(Debug, Default)]
pub(super) struct ListTable {
    lists: Vec<ListRef>,
    /// Offset in the postings section and stored length of each unit.
    units: Vec<(u64, u32)>,
}

impl ListTable {
    pub(super) fn get(&self, at: usize) -> Option<ListRef> {
        self.lists.get(at).copied()
    }

    pub(super) fn unit(&self, unit: u32) -> Option<(u64, u32)> {
        self.units.get(unit as usize).copied()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.lists.capacity() * size_of::<ListRef>() + self.units.capacity() * 16
    }

    /// Reads the table of `count` lists.
    fn read(
        reader: &mut Reader<'_>,
        count: usize,
        rows_max: u32,
        place: Place,
    ) -> Result<Self, DiskIndexError> {
        let field = |e| place.field(e);
        let unit_max = list_unit_bytes_max(rows_max);
        let mut sizes = Vec::with_capacity(count);
        for _ in 0..count {
            sizes.push(reader.count(rows_max as usize, "rows of a list").map_err(field)? as u32);
        }
        let mut table = Self { lists: Vec::with_capacity(count), units: Vec::new() };
        let (mut one, mut unit, mut start) = (0i64, 0u32, 0u32);
        for rows in sizes {
            if rows == 1 {
                one = one.wrapping_add(reader.varint("row").map_err(field)?);
                let row = u32::try_from(one).ok().filter(|row| *row < rows_max);
                table
                    .lists
                    .push(ListRef::One(row.ok_or_else(|| place.malformed("rows below their number"))?));
                continue;
            }
            let head = reader.count(unit_max << 1, "length of a list").map_err(field)?;
            let len = u32::try_from(head >> 1).map_err(|_| place.malformed("a length of 32 bits"))?;
            table.lists.push(ListRef::List { rows, unit, start, len, roaring: head & 1 == 1 });
            start = start.saturating_add(len);
            if start >= LIST_UNIT_BYTES {
                (unit, start) = (unit + 1, 0);
            }
        }
        let units = unit + u32::from(start > 0);
        let mut offset =
            if units > 0 { reader.uvarint("offset of the first unit").map_err(field)? } else { 0 };
        for _ in 0..units {
            let len = reader.count(unit_max + 16, "length of a unit").map_err(field)?;
            table.units.push((offset, len as u32));
            offset = offset.saturating_add(len as u64);
        }
        Ok(table)
    }
}

/// Collects lists into units in the postings section, and the table that finds them.
#[derive(Debug, Default)]
pub(super) struct ListTableWriter {
    sizes: Vec<u8>,
    infos: Vec<u8>,
    units: Vec<u8>,
    offset: Option<u64>,
    unit: Vec<u8>,
    one: i64,
}

impl ListTableWriter {
    pub(super) fn add(&mut self, rows: &[u32], postings: &mut Vec<u8>) {
        write::uvarint(&mut self.sizes, rows.len() as u64);
        if let [row] = rows {
            write::varint(&mut self.infos, i64::from(*row) - self.one);
            self.one = i64::from(*row);
            return;
        }
        let start = self.unit.len();
        let roaring = list::encode(rows, &mut self.unit);
        self.note(start, roaring, postings);
    }

    /// Adds a list of `rows` rows that is encoded already.
    pub(super) fn add_encoded(&mut self, rows: u32, list: &[u8], roaring: bool, postings: &mut Vec<u8>) {
        write::uvarint(&mut self.sizes, u64::from(rows));
        let start = self.unit.len();
        self.unit.extend_from_slice(list);
        self.note(start, roaring, postings);
    }

    fn note(&mut self, start: usize, roaring: bool, postings: &mut Vec<u8>) {
        let len = (self.unit.len() - start) as u64;
        write::uvarint(&mut self.infos, len << 1 | u64::from(roaring));
        if self.unit.len() >= LIST_UNIT_BYTES as usize {
            self.flush(postings);
        }
    }

    fn flush(&mut self, postings: &mut Vec<u8>) {
        self.offset.get_or_insert(postings.len() as u64);
        let len = section::seal(&self.unit, postings);
        write::uvarint(&mut self.units, len as u64);
        self.unit.clear();
    }

    /// Appends the table to `out`, and is empty again.
    pub(super) fn finish(&mut self, postings: &mut Vec<u8>, out: &mut Vec<u8>) {
        if !self.unit.is_empty() {
            self.flush(postings);
        }
        out.append(&mut self.sizes);
        out.append(&mut self.infos);
        if let Some(offset) = self.offset.take() {
            write::uvarint(out, offset);
        }
        out.append(&mut self.units);
        self.one = 0;
    }
}

/// What a page of values says about the rows of each.
#[derive(Debug)]
pub(super) enum Lists {
    /// Where their lists lie.
    Table(ListTable),
    /// For metric names: the number of the set of rows.
    Sets(Vec<u32>),
}

/// A page of values, decoded.
#[derive(Debug)]
pub(super) struct ValuePage {
    text: Box<str>,
    ends: Vec<u32>,
    counts: Vec<u32>,
    pub(super) lists: Lists,
}

impl ValuePage {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn value(&self, at: usize) -> Option<&str> {
        let start = match at.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.text.get(start as usize..*self.ends.get(at)? as usize)
    }

    /// The number of series of a value.
    pub(super) fn count(&self, at: usize) -> u32 {
        self.counts.get(at).copied().unwrap_or_default()
    }

    pub(super) fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// How many values are less than `text`.
    pub(super) fn lower_bound(&self, text: &str) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.value(middle).is_some_and(|value| value < text) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }

    pub(super) fn list(&self, at: usize) -> Option<ListRef> {
        match &self.lists {
            Lists::Table(table) => table.get(at),
            Lists::Sets(_) => None,
        }
    }

    pub(super) fn set(&self, at: usize) -> Option<u32> {
        match &self.lists {
            Lists::Table(_) => None,
            Lists::Sets(sets) => sets.get(at).copied(),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let lists = match &self.lists {
            Lists::Table(table) => table.heap_bytes(),
            Lists::Sets(sets) => sets.capacity() * 4,
        };
        self.text.len() + (self.ends.capacity() + self.counts.capacity()) * 4 + lists
    }

    /// Decodes a page of `count` values; with `sets`, those of metric names, whose set numbers are below it.
    pub(super) fn read(
        bytes: &[u8],
        count: usize,
        rows_max: u32,
        sets: Option<u32>,
        place: Place,
    ) -> Result<Self, DiskIndexError> {
        let field = |e| place.field(e);
        let mut reader = Reader::new(bytes);
        let (text, ends) = read_texts(&mut reader, count, place)?;
        let mut counts = Vec::with_capacity(count);
        for _ in 0..count {
            counts.push(reader.count(super::SERIES_MAX as usize, "series of a value").map_err(field)? as u32);
        }
        let lists = match sets {
            None => Lists::Table(ListTable::read(&mut reader, count, rows_max, place)?),
            Some(sets) => {
                let mut numbers = Vec::with_capacity(count);
                for _ in 0..count {
                    let number = reader.uvarint("set of rows").map_err(field)?;
                    let number = u32::try_from(number).ok().filter(|number| *number < sets);
                    numbers.push(number.ok_or_else(|| place.malformed("sets that exist"))?);
                }
                Lists::Sets(numbers)
            }
        };
        reader.finish().map_err(field)?;
        Ok(Self { text, ends, counts, lists })
    }
}

/// Reads front-coded texts: all lengths shared with the one before, all lengths of the rest, the rests.
fn read_texts(
    reader: &mut Reader<'_>,
    count: usize,
    place: Place,
) -> Result<(Box<str>, Vec<u32>), DiskIndexError> {
    let field = |e| place.field(e);
    let mut shared = Vec::with_capacity(count);
    for _ in 0..count {
        shared.push(reader.count(LABEL_BYTES_MAX, "shared length").map_err(field)?);
    }
    let mut rests = Vec::with_capacity(count);
    for _ in 0..count {
        rests.push(reader.count(LABEL_BYTES_MAX, "length of the rest").map_err(field)?);
    }
    let total: usize = shared.iter().chain(&rests).sum();
    if total > PAGE_TEXT_BYTES_MAX {
        return Err(place.malformed("texts within the limit of a page"));
    }
    let mut text: Vec<u8> = Vec::with_capacity(total);
    let mut ends = Vec::with_capacity(count);
    let mut start = 0;
    for (shared, rest) in shared.into_iter().zip(rests) {
        let end = text.len();
        if shared > end - start {
            return Err(place.malformed("a shared length within the text before"));
        }
        text.extend_from_within(start..start + shared);
        text.extend_from_slice(reader.slice(rest, "rest of a text").map_err(field)?);
        start = end;
        ends.push(text.len() as u32);
    }
    let text = String::from_utf8(text).map_err(|_| place.malformed("texts in UTF-8"))?;
    if ends.iter().any(|end| !text.is_char_boundary(*end as usize)) {
        return Err(place.malformed("texts of whole characters"));
    }
    Ok((text.into_boxed_str(), ends))
}

/// Decodes a page of `count` sets of rows.
pub(super) fn read_set_page(
    bytes: &[u8],
    count: usize,
    rows_max: u32,
    place: Place,
) -> Result<ListTable, DiskIndexError> {
    let mut reader = Reader::new(bytes);
    let table = ListTable::read(&mut reader, count, rows_max, place)?;
    reader.finish().map_err(|e| place.field(e))?;
    Ok(table)
}

/// Builds pages of values.
#[derive(Debug, Default)]
pub(super) struct ValuePageWriter {
    shared: Vec<u8>,
    rests: Vec<u8>,
    suffixes: Vec<u8>,
    counts: Vec<u8>,
    sets: Vec<u8>,
    lists: ListTableWriter,
    entries: usize,
    text_bytes: usize,
    previous: Vec<u8>,
}

/// The rows of a value to be written.
#[derive(Debug)]
pub(super) enum ValueRows<'a> {
    List(&'a [u32]),
    Set(u32),
}

impl ValuePageWriter {
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// Adds a value, behind the one before it.
    pub(super) fn add(&mut self, value: &str, series: u32, rows: &ValueRows<'_>, postings: &mut Vec<u8>) {
        let bytes = value.as_bytes();
        let shared = self.previous.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        let rest = bytes.get(shared..).unwrap_or_default();
        write::uvarint(&mut self.shared, shared as u64);
        write::uvarint(&mut self.rests, rest.len() as u64);
        self.suffixes.extend_from_slice(rest);
        self.previous.truncate(shared);
        self.previous.extend_from_slice(rest);
        write::uvarint(&mut self.counts, u64::from(series));
        match rows {
            ValueRows::List(rows) => self.lists.add(rows, postings),
            ValueRows::Set(number) => write::uvarint(&mut self.sets, u64::from(*number)),
        }
        self.entries += 1;
        self.text_bytes += bytes.len();
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries >= PAGE_ENTRIES_MAX
            || self.suffixes.len() >= PAGE_SUFFIX_BYTES
            || self.text_bytes >= PAGE_TEXT_BYTES
    }

    /// Appends the page to `dictionaries` as a unit, and is empty again; returns the unit's length.
    pub(super) fn finish(&mut self, postings: &mut Vec<u8>, dictionaries: &mut Vec<u8>) -> usize {
        let mut content = Vec::with_capacity(self.suffixes.len() * 2);
        for column in
            [&mut self.shared, &mut self.rests, &mut self.suffixes, &mut self.counts, &mut self.sets]
        {
            content.append(column);
        }
        self.lists.finish(postings, &mut content);
        self.previous.clear();
        (self.entries, self.text_bytes) = (0, 0);
        section::seal(&content, dictionaries)
    }
}

/// Where the page at `offset` lies.
pub(super) fn dictionary_place(offset: u64) -> Place {
    Place { section: IndexSection::Dictionaries, offset }
}
