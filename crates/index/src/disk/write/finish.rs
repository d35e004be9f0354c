//! From what a writer collected to bytes.

use std::cmp::Ordering;

use chronolith_model::METRIC_NAME;
use hashbrown::HashMap;

use super::{IndexWriter, RowDraft, row_of};
use crate::disk::{
    EncodedIndex,
    column::{self, SEGMENT_ROWS},
    directory::{self, LabelDraft, SETS_PER_PAGE},
    list,
    page::{ListTableWriter, ValuePageWriter, ValueRows},
    section,
};

/// Numbers everything anew, in order, and writes it.
struct Finish {
    /// Names in order, with the range of their pairs.
    names: Vec<(String, std::ops::Range<usize>)>,
    /// Pairs in order of (name, value): place of the value's text, rows and series.
    pairs: Vec<Pair>,
    text: String,
    /// Rows of the pairs, one pair behind the other.
    pair_rows: Vec<u32>,
    rows: u32,
    sets: Sets,
    out: EncodedIndex,
}

struct Pair {
    start: usize,
    len: u32,
    series: u32,
    /// In `pair_rows`.
    rows: std::ops::Range<usize>,
}

pub(super) fn finish(writer: IndexWriter) -> EncodedIndex {
    let series = writer.len();
    let metric_starts: Vec<u32> = writer.metrics.iter().map(|(_, first)| *first).chain([series]).collect();
    let IndexWriter {
        names,
        pairs,
        text,
        mut rows,
        mut row_pairs,
        series_rows,
        metrics,
        row_table,
        pair_table,
        ..
    } = writer;
    drop((row_table, pair_table));

    let mut name_order: Vec<u32> = (0..names.len() as u32).collect();
    let name_text = |name: u32| names.get(name as usize).map_or("", |name| name.text.as_str());
    name_order.sort_unstable_by_key(|name| name_text(*name));
    let name_rank = inverse(&name_order);
    let rank = |name: u32| name_rank.get(name as usize).copied().unwrap_or_default();
    let value = |pair: u32| super::value_of(&pairs, &text, pair).unwrap_or_default();
    let mut pair_order: Vec<u32> = (0..pairs.len() as u32).collect();
    pair_order.sort_unstable_by(|a, b| {
        let (a, b) = (value(*a), value(*b));
        rank(a.0).cmp(&rank(b.0)).then_with(|| a.1.cmp(b.1))
    });
    let pair_rank = inverse(&pair_order);
    for pair in &mut row_pairs {
        *pair = pair_rank.get(*pair as usize).copied().unwrap_or_default();
    }

    let row_rank =
        order_rows(&mut rows, &row_pairs, &pair_order, |pair| name_text(value(pair).0) == METRIC_NAME);
    let mut sorted_pairs: Vec<Pair> = pair_order
        .iter()
        .filter_map(|pair| pairs.get(*pair as usize))
        .map(|pair| Pair { start: pair.start, len: pair.len, series: 0, rows: 0..0 })
        .collect();
    let pair_rows = invert(&rows, &row_pairs, &mut sorted_pairs);
    let mut ranges = Vec::with_capacity(names.len());
    let mut start = 0;
    for name in &name_order {
        let len = pair_order.iter().skip(start).take_while(|pair| value(**pair).0 == *name).count();
        if len > 0 {
            ranges.push((name_text(*name).to_owned(), start..start + len));
        }
        start += len;
    }
    drop((row_pairs, pair_rank, pair_order));

    let mut finish = Finish {
        names: ranges,
        pairs: sorted_pairs,
        pair_rows,
        rows: rows.len() as u32,
        sets: Sets::default(),
        out: EncodedIndex::default(),
        text,
    };
    let mut metric_sets = Vec::with_capacity(metrics.len());
    let mut metric_rows = Vec::new();
    for (at, (name, first)) in metrics.iter().enumerate() {
        let end = metric_starts.get(at + 1).copied().unwrap_or(series);
        metric_rows.clear();
        let of_metric = series_rows.get(*first as usize..end as usize).unwrap_or_default();
        metric_rows.extend(of_metric.iter().filter_map(|row| row_rank.get(*row as usize)));
        debug_assert!(metric_rows.is_sorted_by(|a, b| a < b), "rows ascend within a metric");
        let set = if name.is_empty() { 0 } else { finish.sets.add(&metric_rows, &mut finish.out.postings) };
        metric_sets.push((name.as_str(), end - first, set));
    }
    drop(series_rows);
    let nameless = metric_sets.first().filter(|(name, ..)| name.is_empty()).map_or(0, |(_, count, _)| *count);
    metric_sets.retain(|(name, ..)| !name.is_empty());
    finish.write(series, nameless, &metric_sets)
}

/// The place of each number in `order`, which has each once.
fn inverse(order: &[u32]) -> Vec<u32> {
    let mut inverse = vec![0; order.len()];
    for (rank, number) in (0..).zip(order) {
        if let Some(place) = inverse.get_mut(*number as usize) {
            *place = rank;
        }
    }
    inverse
}

/// Sorts rows: those without a metric name first, then by their pairs, the presence of a metric name among them. Within
/// each metric, this is the order of its series. Returns each row's new number by its old one.
fn order_rows(
    rows: &mut Vec<RowDraft>,
    row_pairs: &[u32],
    pair_order: &[u32],
    is_metric: impl Fn(u32) -> bool,
) -> Vec<u32> {
    let metric = (0..).zip(pair_order).find(|(_, pair)| is_metric(**pair)).map(|(rank, _)| rank);
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    let named = |row: &[u32]| metric.is_some_and(|metric| row.contains(&metric));
    order.sort_unstable_by(|a, b| -> Ordering {
        let (a, b) = (row_of(rows, row_pairs, *a), row_of(rows, row_pairs, *b));
        a.cmp(b)
    });
    // Stable, so the order among each kind stays.
    order.sort_by_cached_key(|row| named(row_of(rows, row_pairs, *row)));
    let rank = inverse(&order);
    *rows = order.iter().filter_map(|row| rows.get(*row as usize).copied()).collect();
    rank
}

/// Rows of each pair, ascending, one pair behind the other; says in `pairs` where, and how many series each has.
fn invert(rows: &[RowDraft], row_pairs: &[u32], pairs: &mut [Pair]) -> Vec<u32> {
    let of = |row: &RowDraft| row_pairs.get(row.start..row.start + row.len as usize).unwrap_or_default();
    for row in rows {
        for pair in of(row) {
            if let Some(pair) = pairs.get_mut(*pair as usize) {
                pair.rows.end += 1;
                pair.series += row.series;
            }
        }
    }
    let mut total = 0;
    for pair in pairs.iter_mut() {
        let len = pair.rows.end;
        pair.rows = total..total;
        total += len;
    }
    let mut pair_rows = vec![0; total];
    for (number, row) in (0..).zip(rows) {
        for pair in of(row) {
            if let Some(pair) = pairs.get_mut(*pair as usize)
                && let Some(place) = pair_rows.get_mut(pair.rows.end)
            {
                *place = number;
                pair.rows.end += 1;
            }
        }
    }
    pair_rows
}

/// Sets of rows, each kept once.
#[derive(Default)]
struct Sets {
    known: HashMap<Vec<u8>, u32>,
    table: ListTableWriter,
    in_page: u32,
    pages: Vec<Vec<u8>>,
}

impl Sets {
    fn add(&mut self, rows: &[u32], postings: &mut Vec<u8>) -> u32 {
        let mut encoded = Vec::new();
        let roaring = list::encode(rows, &mut encoded);
        let number = self.known.len() as u32;
        if let Some(known) = self.known.get(&encoded) {
            return *known;
        }
        if let [_] = rows {
            self.table.add(rows, postings);
        } else {
            self.table.add_encoded(rows.len() as u32, &encoded, roaring, postings);
        }
        self.known.insert(encoded, number);
        self.in_page += 1;
        if self.in_page == SETS_PER_PAGE {
            self.flush(postings);
        }
        number
    }

    fn flush(&mut self, postings: &mut Vec<u8>) {
        let mut page = Vec::new();
        self.table.finish(postings, &mut page);
        self.pages.push(page);
        self.in_page = 0;
    }
}

impl Finish {
    fn write(mut self, series: u32, nameless: u32, metrics: &[(&str, u32, u32)]) -> EncodedIndex {
        let names = std::mem::take(&mut self.names);
        // Sets come first in the dictionaries, but their number is known last.
        let mut labels: Vec<LabelDraft> = names
            .iter()
            .map(|(name, pairs)| LabelDraft {
                name: name.clone(),
                ..self.presence(name, pairs.clone(), nameless)
            })
            .collect();
        if self.sets.in_page > 0 {
            self.sets.flush(&mut self.out.postings);
        }
        let pages = std::mem::take(&mut self.sets.pages);
        let set_pages: Vec<usize> =
            pages.iter().map(|page| section::seal(page, &mut self.out.dictionaries)).collect();
        let mut codes = vec![0u32; self.rows as usize];
        for (label, (name, pairs)) in labels.iter_mut().zip(&names) {
            if name == METRIC_NAME {
                self.metric_pages(metrics, label);
            } else {
                self.value_pages(pairs.clone(), label);
                self.columns(pairs.clone(), &mut codes, label);
            }
        }
        let counts = (series, nameless, self.rows, self.sets.known.len() as u32);
        self.out.directory = directory::encode(counts, &set_pages, &labels);
        self.out
    }

    fn value(&self, pair: &Pair) -> &str {
        self.text.get(pair.start..pair.start + pair.len as usize).unwrap_or_default()
    }

    fn presence(&mut self, name: &str, pairs: std::ops::Range<usize>, nameless: u32) -> LabelDraft {
        let pairs = self.pairs.get(pairs).unwrap_or_default();
        let series = pairs.iter().map(|pair| pair.series).sum();
        let mut rows: Vec<u32> = if name == METRIC_NAME {
            (nameless..self.rows).collect()
        } else {
            pairs.iter().filter_map(|pair| self.pair_rows.get(pair.rows.clone())).flatten().copied().collect()
        };
        rows.sort_unstable();
        let presence = self.sets.add(&rows, &mut self.out.postings);
        LabelDraft { series, presence, presence_rows: rows.len() as u32, ..LabelDraft::default() }
    }

    fn metric_pages(&mut self, metrics: &[(&str, u32, u32)], label: &mut LabelDraft) {
        let mut pages = LabelPages::default();
        for (name, count, set) in metrics {
            let rows = ValueRows::Set(*set);
            pages.add(name, *count, u64::from(*count), &rows, &mut self.out);
        }
        pages.finish(&mut self.out, label);
    }

    fn value_pages(&mut self, pairs: std::ops::Range<usize>, label: &mut LabelDraft) {
        let mut pages = LabelPages::default();
        let mut out = std::mem::take(&mut self.out);
        for pair in self.pairs.get(pairs).unwrap_or_default() {
            let rows = self.pair_rows.get(pair.rows.clone()).unwrap_or_default();
            pages.add(self.value(pair), pair.series, rows.len() as u64, &ValueRows::List(rows), &mut out);
        }
        pages.finish(&mut out, label);
        self.out = out;
    }

    /// Writes the columns of a label; `codes` has a zero for each row, and has so again afterwards.
    fn columns(&mut self, pairs: std::ops::Range<usize>, codes: &mut [u32], label: &mut LabelDraft) {
        let pairs = self.pairs.get(pairs).unwrap_or_default();
        let mut touched = vec![false; codes.len().div_ceil(SEGMENT_ROWS as usize)];
        for (code, pair) in (1..).zip(pairs) {
            for row in self.pair_rows.get(pair.rows.clone()).unwrap_or_default() {
                if let Some(place) = codes.get_mut(*row as usize) {
                    *place = code;
                }
                if let Some(segment) = touched.get_mut((*row / SEGMENT_ROWS) as usize) {
                    *segment = true;
                }
            }
        }
        let mut content = Vec::new();
        for (number, segment) in (0..).zip(codes.chunks_mut(SEGMENT_ROWS as usize)) {
            if !touched.get(number as usize).copied().unwrap_or_default() {
                continue;
            }
            let first = segment.first().copied().unwrap_or_default();
            if segment.iter().all(|code| *code == first) {
                label.columns.push((number, Ok(first)));
            } else {
                content.clear();
                column::encode(segment, &mut content);
                label.columns.push((number, Err(section::seal(&content, &mut self.out.forward))));
            }
            segment.fill(0);
        }
    }
}

/// The pages of one label.
#[derive(Default)]
struct LabelPages {
    page: ValuePageWriter,
    total: u64,
    separator: String,
    previous: String,
    values: u32,
    value_bytes: u64,
    pages: Vec<(usize, usize, u64, String)>,
}

impl LabelPages {
    fn add(&mut self, value: &str, series: u32, total: u64, rows: &ValueRows<'_>, out: &mut EncodedIndex) {
        if self.page.entries() == 0 {
            self.separator = separator(&self.previous, value).to_owned();
        }
        self.page.add(value, series, rows, &mut out.postings);
        self.total += total;
        self.values += 1;
        self.value_bytes += value.len() as u64;
        value.clone_into(&mut self.previous);
        if self.page.is_full() {
            self.flush(out);
        }
    }

    fn flush(&mut self, out: &mut EncodedIndex) {
        let entries = self.page.entries();
        let len = self.page.finish(&mut out.postings, &mut out.dictionaries);
        self.pages.push((len, entries, std::mem::take(&mut self.total), std::mem::take(&mut self.separator)));
    }

    fn finish(mut self, out: &mut EncodedIndex, label: &mut LabelDraft) {
        if self.page.entries() > 0 {
            self.flush(out);
        }
        (label.values, label.value_bytes, label.pages) = (self.values, self.value_bytes, self.pages);
    }
}

/// The shortest start of `value` that is greater than `previous`.
fn separator<'a>(previous: &str, value: &'a str) -> &'a str {
    let shared = previous.bytes().zip(value.bytes()).take_while(|(a, b)| a == b).count();
    let end = (shared + 1..value.len()).find(|end| value.is_char_boundary(*end)).unwrap_or(value.len());
    value.get(..end).unwrap_or(value)
}
