//! Lists of rows: gap/run varints or a roaring bitmap, whichever is smaller.

use chronolith_codec::{Reader, write};
use roaring::RoaringBitmap;

use super::{error::DiskIndexError, section::Place};

/// A shorter gap/run list is never compared with a bitmap.
const ROARING_MIN_BYTES: usize = 256;

/// Appends `rows`, strictly ascending, to `out`; says whether as a roaring bitmap.
///
/// Gap/run: per maximal run of consecutive rows, `gap << 1 | long` as a uvarint, where the gap counts the rows between
/// it and the run before (before the first: from row 0), and for a long one its length less two.
pub(super) fn encode(rows: &[u32], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut expected = 0u32;
    for run in rows.chunk_by(|a, b| a.wrapping_add(1) == *b) {
        let Some(first) = run.first() else { continue };
        let gap = u64::from(first.wrapping_sub(expected));
        write::uvarint(out, gap << 1 | u64::from(run.len() > 1));
        if run.len() > 1 {
            write::uvarint(out, run.len() as u64 - 2);
        }
        // Between two runs there is at least one row.
        expected = run.last().map_or(0, |last| last.wrapping_add(2));
    }
    let len = out.len() - start;
    if len < ROARING_MIN_BYTES {
        return false;
    }
    let mut bitmap: RoaringBitmap = rows.iter().copied().collect();
    bitmap.optimize();
    if bitmap.serialized_size() >= len {
        return false;
    }
    out.truncate(start);
    bitmap.serialize_into(&mut *out).expect("a Vec takes all bytes");
    true
}

/// Calls `visit` with each run of consecutive rows, first row and length; all rows are below `rows_max`. Returns the
/// number of rows.
pub(super) fn for_each_run(
    bytes: &[u8],
    roaring: bool,
    rows_max: u32,
    place: Place,
    mut visit: impl FnMut(u32, u32),
) -> Result<u32, DiskIndexError> {
    if roaring {
        let bitmap = read_roaring(bytes, rows_max, place)?;
        let mut run: Option<(u32, u32)> = None;
        for row in &bitmap {
            match &mut run {
                Some((first, len)) if *first + *len == row => *len += 1,
                _ => {
                    if let Some((first, len)) = run.replace((row, 1)) {
                        visit(first, len);
                    }
                }
            }
        }
        if let Some((first, len)) = run {
            visit(first, len);
        }
        return u32::try_from(bitmap.len()).map_err(|_| place.malformed("rows of 32 bits"));
    }
    let mut reader = Reader::new(bytes);
    let (mut next, mut total) = (0u64, 0u64);
    while !reader.is_empty() {
        let head = reader.uvarint("gap").map_err(|e| place.field(e))?;
        let len = match head & 1 {
            0 => 1,
            _ => reader.uvarint("length of a run").map_err(|e| place.field(e))?.saturating_add(2),
        };
        let first = next.saturating_add(head >> 1);
        let end = first.saturating_add(len);
        if end > u64::from(rows_max) {
            return Err(place.malformed("rows below their number"));
        }
        visit(first as u32, len as u32);
        total += len;
        next = end + 1;
    }
    Ok(total as u32)
}

/// Adds the rows of a list to `into`; returns their number.
pub(super) fn union_into(
    bytes: &[u8],
    roaring: bool,
    rows_max: u32,
    place: Place,
    into: &mut RowUnion,
) -> Result<u32, DiskIndexError> {
    if roaring {
        let bitmap = read_roaring(bytes, rows_max, place)?;
        let len = bitmap.len() as u32;
        into.add_bitmap(bitmap);
        return Ok(len);
    }
    for_each_run(bytes, false, rows_max, place, |first, len| into.add(first, len))
}

fn read_roaring(bytes: &[u8], rows_max: u32, place: Place) -> Result<RoaringBitmap, DiskIndexError> {
    let bitmap = RoaringBitmap::deserialize_from(bytes).map_err(|_| place.malformed("a roaring bitmap"))?;
    match bitmap.max() {
        Some(max) if max >= rows_max => Err(place.malformed("rows below their number")),
        _ => Ok(bitmap),
    }
}

/// Collects rows from many lists.
#[derive(Debug)]
pub(super) struct RowUnion {
    /// One bit per row, for unions that are not sparse.
    words: Vec<u64>,
    few: Vec<u32>,
    bitmap: RoaringBitmap,
}

impl RowUnion {
    /// For about `expected` rows below `rows`.
    pub(super) fn new(rows: u32, expected: u64) -> Self {
        let dense = expected >= u64::from(rows / 64);
        let words = if dense { vec![0; (rows as usize).div_ceil(64)] } else { Vec::new() };
        Self { words, few: Vec::new(), bitmap: RoaringBitmap::new() }
    }

    pub(super) fn add(&mut self, first: u32, len: u32) {
        let end = first.saturating_add(len);
        if len == 1
            && let Some(word) = self.words.get_mut(first as usize / 64)
        {
            *word |= 1 << (first % 64);
            return;
        }
        if self.words.is_empty() {
            if len > 64 {
                self.bitmap.insert_range(first..end);
            } else {
                self.few.extend(first..end);
            }
            return;
        }
        let mut row = first;
        while row < end {
            let bit = row % 64;
            let count = (64 - bit).min(end - row);
            if let Some(word) = self.words.get_mut(row as usize / 64) {
                *word |= (u64::MAX >> (64 - count)) << bit;
            }
            row += count;
        }
    }

    pub(super) fn add_bitmap(&mut self, bitmap: RoaringBitmap) {
        self.bitmap |= bitmap;
    }

    pub(super) fn finish(mut self) -> RoaringBitmap {
        if !self.words.is_empty() {
            let mut bytes = Vec::with_capacity(self.words.len() * 8);
            self.words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
            self.bitmap |= RoaringBitmap::from_lsb0_bytes(0, &bytes);
        } else if !self.few.is_empty() {
            self.few.sort_unstable();
            self.few.dedup();
            self.bitmap |= self.few.iter().copied().collect::<RoaringBitmap>();
        }
        self.bitmap
    }
}

/// A set of rows that knows the rank of each: run by run, with the number of rows before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RowSet {
    firsts: Vec<u32>,
    ranks: Vec<u32>,
    len: u32,
}

impl RowSet {
    /// The rows `0..len`.
    pub(super) fn dense(len: u32) -> Self {
        let mut set = Self::default();
        if len > 0 {
            set.push(0, len);
        }
        set
    }

    pub(super) fn push(&mut self, first: u32, len: u32) {
        self.firsts.push(first);
        self.ranks.push(self.len);
        self.len = self.len.saturating_add(len);
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn heap_bytes(&self) -> usize {
        (self.firsts.capacity() + self.ranks.capacity()) * 4
    }

    /// First row, length and rank of each run.
    fn runs(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        let ends = self.ranks.iter().skip(1).copied().chain([self.len]);
        self.firsts.iter().zip(&self.ranks).zip(ends).map(|((first, rank), end)| (*first, end - rank, *rank))
    }

    fn run(&self, at: usize) -> Option<(u32, u32, u32)> {
        let (first, rank) = (*self.firsts.get(at)?, *self.ranks.get(at)?);
        Some((first, self.ranks.get(at + 1).copied().unwrap_or(self.len) - rank, rank))
    }

    pub(super) fn union_into(&self, into: &mut RowUnion) {
        self.runs().for_each(|(first, len, _)| into.add(first, len));
    }

    pub(super) fn to_bitmap(&self, rows: u32) -> RoaringBitmap {
        let mut union = RowUnion::new(rows, u64::from(self.len));
        self.union_into(&mut union);
        union.finish()
    }

    pub(super) fn intersects(&self, rows: &RoaringBitmap) -> bool {
        if rows.len() < self.firsts.len() as u64 {
            return rows.iter().any(|row| {
                let at = self.firsts.partition_point(|first| *first <= row);
                at.checked_sub(1).and_then(|at| self.run(at)).is_some_and(|(first, len, _)| row - first < len)
            });
        }
        self.runs().any(|(first, len, _)| rows.range_cardinality(first..first.saturating_add(len)) > 0)
    }

    /// The ranks of those of its rows that are in `rows`, both ascending. Goes over the shorter side, and searches the
    /// other in growing steps from where it stands.
    pub(super) fn ranks_of(&self, rows: &[u32]) -> Vec<u32> {
        let mut ranks = Vec::new();
        if rows.len() < self.firsts.len() {
            let mut at = 0;
            for row in rows {
                at = gallop(&self.firsts, at, |first| *first <= *row);
                if let Some((first, len, rank)) = at.checked_sub(1).and_then(|at| self.run(at))
                    && row - first < len
                {
                    ranks.push(rank + (row - first));
                }
            }
            return ranks;
        }
        let mut at = 0;
        for (first, len, rank) in self.runs() {
            at = gallop(rows, at, |row| *row < first);
            let rest = rows.get(at..).unwrap_or_default();
            let of_run = rest.iter().take_while(|row| **row - first < len);
            let before = ranks.len();
            ranks.extend(of_run.map(|row| rank + (row - first)));
            at += ranks.len() - before;
            if at >= rows.len() {
                break;
            }
        }
        ranks
    }

    /// The rows of the given ranks, which ascend; ranks that do not exist are passed over.
    pub(super) fn rows_of(&self, ranks: impl Iterator<Item = u32>, mut visit: impl FnMut(u32)) {
        let mut at = 0;
        for rank in ranks {
            if self.run(at).is_none_or(|(_, len, start)| rank - start >= len) {
                at = self.ranks.partition_point(|start| *start <= rank).saturating_sub(1);
            }
            if let Some((first, len, start)) = self.run(at)
                && rank - start < len
            {
                visit(first + (rank - start));
            }
        }
    }
}

/// The first place at or behind `from` whose item `before` refuses; it accepts all items up to some place.
fn gallop<T>(items: &[T], from: usize, before: impl Fn(&T) -> bool) -> usize {
    let (mut low, mut step) = (from, 1);
    while items.get(low + step - 1).is_some_and(&before) {
        low += step;
        step *= 2;
    }
    let end = (low + step).min(items.len());
    low.min(end) + items.get(low..end).map_or(0, |rest| rest.partition_point(before))
}
