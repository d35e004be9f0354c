//! Writing an index.

mod finish;

use std::hash::BuildHasher;

use chronolith_model::{Labels, METRIC_NAME};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::{EncodedIndex, LABEL_BYTES_MAX, NAMES_MAX, PAIRS_MAX, SERIES_MAX, error::IndexWriteError};

/// How many rows are tried before one is looked up.
const EXPECTED_ROWS: u32 = 2;

/// Builds an index: series in block order, that is by (metric name, labels).
///
/// Memory: 4 bytes per series; `4 * labels + 24` bytes per row (a label set without the metric name; metrics share
/// rows), and twice that while it is finished; 30 bytes and its text per label pair; all of it up to twice as much for
/// the growth of vectors. See [`IndexWriter::heap_bytes`].
#[derive(Debug, Default)]
pub struct IndexWriter {
    hasher: DefaultHashBuilder,
    names: Vec<NameDraft>,
    name_table: HashTable<u32>,
    pairs: Vec<PairDraft>,
    pair_table: HashTable<u32>,
    /// Values of all pairs, one behind the other.
    text: String,
    rows: Vec<RowDraft>,
    row_table: HashTable<u32>,
    /// Pairs of all rows, one behind the other.
    row_pairs: Vec<u32>,
    /// Row of each series.
    series_rows: Vec<u32>,
    /// Each metric's name and first series.
    metrics: Vec<(String, u32)>,
    last: Option<Labels>,
    scratch: Vec<u32>,
    /// The row behind that of the last series.
    expected: u32,
}

#[derive(Debug)]
struct NameDraft {
    text: String,
    /// The pair seen last: neighbours mostly share their values.
    last: u32,
}

#[derive(Clone, Copy, Debug)]
struct PairDraft {
    name: u32,
    start: usize,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct RowDraft {
    start: usize,
    len: u32,
    /// How many series have it.
    series: u32,
}

impl IndexWriter {
    /// An index without series.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a series behind all others; returns its id, which counts from 0.
    ///
    /// # Errors
    /// When it is not behind the one before it, or above a limit. The index then has as many series as before.
    pub fn add(&mut self, labels: &Labels) -> Result<u32, IndexWriteError> {
        let id = self.len();
        if id >= SERIES_MAX {
            return Err(IndexWriteError::TooManySeries { max: SERIES_MAX });
        }
        let metric = labels.metric_name().unwrap_or_default();
        if metric.len() > LABEL_BYTES_MAX {
            return Err(IndexWriteError::LabelTooLong { bytes: metric.len(), max: LABEL_BYTES_MAX });
        }
        let same_metric = match (&self.last, self.metrics.last()) {
            (Some(last), Some((before, _))) => {
                if (before.as_str(), last) >= (metric, labels) {
                    return Err(IndexWriteError::Order { id });
                }
                before == metric
            }
            _ => false,
        };
        let number = match self.expected_row(labels) {
            Some(number) => number,
            None => self.new_row(labels)?,
        };
        if let Some(row) = self.rows.get_mut(number as usize) {
            row.series += 1;
        }
        self.expected = number + 1;
        if !same_metric {
            self.metrics.push((metric.to_owned(), id));
        }
        self.series_rows.push(number);
        self.last = Some(labels.clone());
        Ok(id)
    }

    /// The row of `labels`, if it is one of those expected: metrics of the same targets have the same rows in the same
    /// order, so it is likely the one behind that of the series before, but some metrics are not everywhere.
    fn expected_row(&self, labels: &Labels) -> Option<u32> {
        (self.expected..self.expected.saturating_add(EXPECTED_ROWS)).find(|row| {
            let mut pairs = labels.iter();
            let row = row_of(&self.rows, &self.row_pairs, *row);
            !row.is_empty()
                && row.iter().all(|pair| {
                    let Some((name, value)) = self.value_of(*pair) else { return false };
                    let name = self.names.get(name as usize).map(|name| name.text.as_str());
                    pairs.next().is_some_and(|(n, v)| Some(n) == name && (v == value || n == METRIC_NAME))
                })
                && pairs.next().is_none()
        })
    }

    fn new_row(&mut self, labels: &Labels) -> Result<u32, IndexWriteError> {
        let mut row = std::mem::take(&mut self.scratch);
        row.clear();
        // All refusals come before the first pair is new.
        for (name, value) in labels {
            let bytes = name.len().max(value.len());
            if bytes > LABEL_BYTES_MAX {
                return Err(IndexWriteError::LabelTooLong { bytes, max: LABEL_BYTES_MAX });
            }
            row.push(self.name(name).ok_or(IndexWriteError::TooManyNames { max: NAMES_MAX })?);
        }
        if self.pairs.len() + row.len() > PAIRS_MAX {
            return Err(IndexWriteError::TooManyPairs { max: PAIRS_MAX });
        }
        for (number, (name, value)) in row.iter_mut().zip(labels) {
            // A row says of the metric name only that there is one.
            *number = self.pair(*number, if name == METRIC_NAME { "" } else { value });
        }
        let number = self.row(&row);
        self.scratch = row;
        Ok(number)
    }

    /// How many series there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        // At most SERIES_MAX.
        self.series_rows.len() as u32
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series_rows.is_empty()
    }

    /// How many different label sets without metric name there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of memory behind this writer.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let tables = self.name_table.capacity() + self.pair_table.capacity() + self.row_table.capacity();
        let metrics: usize = self.metrics.iter().map(|(name, _)| name.capacity() + 32).sum();
        tables * 5
            + metrics
            + self.names.capacity() * size_of::<NameDraft>()
            + self.pairs.capacity() * size_of::<PairDraft>()
            + self.text.capacity()
            + self.rows.capacity() * size_of::<RowDraft>()
            + (self.row_pairs.capacity() + self.series_rows.capacity()) * 4
    }

    /// The finished index.
    #[must_use]
    pub fn finish(self) -> EncodedIndex {
        finish::finish(self)
    }

    fn name(&mut self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        let names = &self.names;
        let same = |name: &u32| names.get(*name as usize).is_some_and(|name| name.text == text);
        if let Some(name) = self.name_table.find(hash, same) {
            return Some(*name);
        }
        if self.names.len() >= NAMES_MAX {
            return None;
        }
        let number = self.names.len() as u32;
        let hasher = &self.hasher;
        self.name_table.insert_unique(hash, number, |name| {
            hasher.hash_one(names.get(*name as usize).map_or("", |name| name.text.as_str()))
        });
        self.names.push(NameDraft { text: text.to_owned(), last: u32::MAX });
        Some(number)
    }

    fn value_of(&self, pair: u32) -> Option<(u32, &str)> {
        value_of(&self.pairs, &self.text, pair)
    }

    fn pair(&mut self, name: u32, value: &str) -> u32 {
        let last = self.names.get(name as usize).map_or(u32::MAX, |name| name.last);
        if self.value_of(last) == Some((name, value)) {
            return last;
        }
        let hash = self.hasher.hash_one((name, value));
        let (pairs, text, hasher) = (&self.pairs, &self.text, &self.hasher);
        let found = self.pair_table.find(hash, |pair| value_of(pairs, text, *pair) == Some((name, value)));
        let number = match found {
            Some(pair) => *pair,
            None => {
                // At most PAIRS_MAX.
                let number = self.pairs.len() as u32;
                self.pair_table.insert_unique(hash, number, |pair| {
                    hasher.hash_one(value_of(pairs, text, *pair).unwrap_or_default())
                });
                self.pairs.push(PairDraft { name, start: self.text.len(), len: value.len() as u32 });
                self.text.push_str(value);
                number
            }
        };
        if let Some(name) = self.names.get_mut(name as usize) {
            name.last = number;
        }
        number
    }

    fn row(&mut self, pairs: &[u32]) -> u32 {
        let hash = hash_row(&self.hasher, pairs);
        let (rows, arena, hasher) = (&self.rows, &self.row_pairs, &self.hasher);
        match self.row_table.find(hash, |row| row_of(rows, arena, *row) == pairs) {
            Some(row) => *row,
            None => {
                // As many rows as series at most.
                let number = self.rows.len() as u32;
                self.row_table.insert_unique(hash, number, |row| hash_row(hasher, row_of(rows, arena, *row)));
                self.rows.push(RowDraft { start: self.row_pairs.len(), len: pairs.len() as u32, series: 0 });
                self.row_pairs.extend_from_slice(pairs);
                number
            }
        }
    }
}

fn hash_row(hasher: &DefaultHashBuilder, pairs: &[u32]) -> u64 {
    hasher.hash_one(pairs)
}

fn value_of<'a>(pairs: &[PairDraft], text: &'a str, pair: u32) -> Option<(u32, &'a str)> {
    let pair = pairs.get(pair as usize)?;
    Some((pair.name, text.get(pair.start..pair.start + pair.len as usize)?))
}

fn row_of<'a>(rows: &[RowDraft], arena: &'a [u32], row: u32) -> &'a [u32] {
    let row = rows.get(row as usize);
    row.and_then(|row| arena.get(row.start..row.start + row.len as usize)).unwrap_or_default()
}
