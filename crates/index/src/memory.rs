//! The inverted index in memory, mutable: for one tenant's series in the head.
//!
//! A label pair is kept once, with the ids of the series that have it; a series is a list of pair numbers sorted by
//! label name. Pair numbers are private to the index and reused after the last series of a pair is gone.

mod ids;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    mem::size_of,
    ops::Bound,
    sync::Arc,
};

use chronolith_model::Labels;
use hashbrown::HashMap;
use roaring::RoaringBitmap;

use crate::postings::{Postings, PostingsSource};
use ids::IdList;

/// Number of a label pair.
type PairNo = u32;
/// Number of a label name.
type NameNo = u32;

/// Label pairs and series, both ways.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    by_name: HashMap<Arc<str>, NameNo>,
    names: Vec<Name>,
    free_names: Vec<NameNo>,
    pairs: Vec<Pair>,
    free_pairs: Vec<PairNo>,
    series: HashMap<u32, Box<[PairNo]>>,
    all: RoaringBitmap,
    /// Bytes behind pointers: texts, lists of ids, lists of pairs.
    heap_bytes: usize,
}

#[derive(Debug)]
struct Name {
    text: Arc<str>,
    values: BTreeMap<Arc<str>, PairNo>,
    value_bytes: u64,
    /// The pair looked up last: neighbouring series mostly share their values.
    last: Option<PairNo>,
}

#[derive(Debug)]
struct Pair {
    name: NameNo,
    value: Arc<str>,
    ids: IdList,
}

/// A label name or pair with the number of its series or values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count<'a> {
    /// Label name.
    pub name: &'a str,
    /// Label value; empty when the count is the name's.
    pub value: &'a str,
    /// The count.
    pub count: u64,
}

/// Some of a label's values.
#[derive(Clone, Copy, Debug)]
pub struct ValuePage<'a> {
    /// Those after this one; from the first on if there is none.
    pub after: Option<&'a str>,
    /// At most so many values, at least one.
    pub values_max: usize,
    /// No further one after lists of so many ids in all.
    pub ids_max: u64,
}

/// Estimated bytes of a value in a B-tree, with the free space of its nodes.
const TREE_ENTRY_BYTES: usize = 36;
/// Bytes of an `Arc`'s counters and of an allocation's header.
const SHARED_TEXT_BYTES: usize = 24;

impl MemoryIndex {
    /// Adds series `id` with `labels`. An id is added once.
    pub fn insert(&mut self, id: u32, labels: &Labels) {
        let pairs: Box<[PairNo]> = labels.iter().map(|(name, value)| self.pair_for(name, value)).collect();
        for pair in &pairs {
            if let Some(pair) = self.pairs.get_mut(*pair as usize) {
                self.heap_bytes = self.heap_bytes.wrapping_add_signed(pair.ids.insert(id));
            }
        }
        self.heap_bytes += size_of_val(&*pairs) + 8;
        self.all.insert(id);
        self.series.insert(id, pairs);
    }

    /// Removes series `id`; pairs nobody has any more go with it.
    pub fn remove(&mut self, id: u32) {
        let Some(pairs) = self.series.remove(&id) else { return };
        self.heap_bytes -= size_of_val(&*pairs) + 8;
        self.all.remove(id);
        for number in pairs {
            let Some(pair) = self.pairs.get_mut(number as usize) else { continue };
            self.heap_bytes = self.heap_bytes.wrapping_add_signed(pair.ids.remove(id));
            if pair.ids.is_empty() {
                let (name, value) = (pair.name, std::mem::replace(&mut pair.value, Arc::from("")));
                self.free_pairs.push(number);
                self.forget_value(name, &value);
            }
        }
        if self.series.len() * 4 < self.series.capacity() {
            self.series.shrink_to(self.series.len() * 2);
        }
    }

    fn forget_value(&mut self, number: NameNo, value: &str) {
        let Some(name) = self.names.get_mut(number as usize) else { return };
        name.values.remove(value);
        name.value_bytes -= value.len() as u64;
        name.last = None;
        self.heap_bytes -= value.len() + SHARED_TEXT_BYTES + TREE_ENTRY_BYTES;
        if name.values.is_empty() {
            let text = std::mem::replace(&mut name.text, Arc::from(""));
            self.by_name.remove(&text);
            self.free_names.push(number);
            self.heap_bytes -= text.len() + SHARED_TEXT_BYTES;
        }
    }

    fn pair_for(&mut self, name: &str, value: &str) -> PairNo {
        let number = self.name_for(name);
        let Some(entry) = self.names.get_mut(number as usize) else { unreachable!("numbered by this index") };
        if let Some(last) = entry.last
            && self.pairs.get(last as usize).is_some_and(|pair| *pair.value == *value)
        {
            return last;
        }
        if let Some(pair) = entry.values.get(value) {
            entry.last = Some(*pair);
            return *pair;
        }
        let value: Arc<str> = Arc::from(value);
        let fresh = Pair { name: number, value: Arc::clone(&value), ids: IdList::default() };
        let pair = place(&mut self.pairs, &mut self.free_pairs, fresh);
        entry.value_bytes += value.len() as u64;
        entry.last = Some(pair);
        self.heap_bytes += value.len() + SHARED_TEXT_BYTES + TREE_ENTRY_BYTES;
        entry.values.insert(value, pair);
        pair
    }

    fn name_for(&mut self, text: &str) -> NameNo {
        if let Some(number) = self.by_name.get(text) {
            return *number;
        }
        let text: Arc<str> = Arc::from(text);
        self.heap_bytes += text.len() + SHARED_TEXT_BYTES;
        let fresh = Name { text: Arc::clone(&text), values: BTreeMap::new(), value_bytes: 0, last: None };
        let number = place(&mut self.names, &mut self.free_names, fresh);
        self.by_name.insert(text, number);
        number
    }

    /// How many series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is no series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Estimated bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.heap_bytes
            + self.pairs.capacity() * size_of::<Pair>()
            + self.names.capacity() * size_of::<Name>()
            + self.series.capacity() * (size_of::<(u32, Box<[PairNo]>)>() + 1) * 8 / 7
            + self.all.serialized_size()
    }

    /// The labels of series `id`.
    #[must_use]
    pub fn labels(&self, id: u32) -> Option<Labels> {
        // The pairs came from a label set and keep its order.
        Labels::from_sorted(self.pairs_of(id)?)
    }

    /// Whether series `id` has exactly `labels`.
    #[must_use]
    pub fn has_labels(&self, id: u32, labels: &Labels) -> bool {
        self.pairs_of(id).is_some_and(|pairs| pairs.eq(labels.iter()))
    }

    /// The pairs of series `id`, sorted by name.
    pub fn pairs_of(&self, id: u32) -> Option<impl ExactSizeIterator<Item = (&str, &str)>> {
        let pairs = self.series.get(&id)?;
        Some(pairs.iter().map(|pair| self.pair_text(*pair).expect("the pairs of a series are in the table")))
    }

    fn pair_text(&self, pair: PairNo) -> Option<(&str, &str)> {
        let pair = self.pairs.get(pair as usize)?;
        Some((&self.names.get(pair.name as usize)?.text, &pair.value))
    }

    /// `ids` in the order of their labels.
    #[must_use]
    pub fn sorted_by_labels(&self, ids: &RoaringBitmap) -> Vec<u32> {
        let mut series: Vec<(u32, &[PairNo])> =
            ids.iter().filter_map(|id| Some((id, &**self.series.get(&id)?))).collect();
        series.sort_unstable_by(|(_, a), (_, b)| self.compare(a, b));
        series.into_iter().map(|(id, _)| id).collect()
    }

    /// Compares texts only where the numbers first differ.
    fn compare(&self, a: &[PairNo], b: &[PairNo]) -> Ordering {
        match a.iter().zip(b).find(|(a, b)| a != b) {
            Some((a, b)) => self.pair_text(*a).cmp(&self.pair_text(*b)),
            None => a.len().cmp(&b.len()),
        }
    }

    /// All label names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.by_name.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    /// The label names that series of `ids` have, sorted.
    #[must_use]
    pub fn names_among(&self, ids: &RoaringBitmap) -> Vec<&str> {
        if ids.len() == self.all.len() {
            return self.names();
        }
        let mut seen = vec![false; self.names.len()];
        for pairs in ids.iter().filter_map(|id| self.series.get(&id)) {
            for pair in pairs.iter().filter_map(|pair| self.pairs.get(*pair as usize)) {
                if let Some(seen) = seen.get_mut(pair.name as usize) {
                    *seen = true;
                }
            }
        }
        let mut names: Vec<&str> =
            self.names.iter().zip(seen).filter(|(_, seen)| *seen).map(|(name, _)| &*name.text).collect();
        names.sort_unstable();
        names
    }

    /// All values of label `name`, sorted.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.name(name).into_iter().flat_map(|name| name.values.keys().map(|value| &**value))
    }

    /// Calls `visit` for values of label `name` that begin with `prefix`, in order, as far as `page` says. Returns the
    /// last one visited if there are more: whoever shares the index lets others to it in between.
    pub fn visit_values(
        &self,
        name: &str,
        prefix: &str,
        page: &ValuePage<'_>,
        visit: &mut dyn FnMut(&str, Postings<'_>),
    ) -> Option<Arc<str>> {
        let name = self.name(name)?;
        let (mut values, mut ids) = (0, 0);
        let from = page.after.map_or(Bound::Included(prefix), Bound::Excluded);
        let mut last: Option<&Arc<str>> = None;
        for (value, pair) in name.values.range::<str, _>((from, Bound::Unbounded)) {
            if !value.starts_with(prefix) {
                break;
            }
            if values > 0 && (values >= page.values_max || ids >= page.ids_max) {
                return last.cloned();
            }
            if let Some(pair) = self.pairs.get(*pair as usize) {
                let postings = pair.ids.postings();
                values += 1;
                ids += postings.len();
                visit(value, postings);
            }
            last = Some(value);
        }
        None
    }

    /// The values of label `name` that series of `ids` have, sorted.
    #[must_use]
    pub fn values_among(&self, name: &str, ids: &RoaringBitmap) -> Vec<&str> {
        let Some(entry) = self.name(name) else { return Vec::new() };
        if ids.len() == self.all.len() {
            return self.values(name).collect();
        }
        // Few series: look at their labels. Few values: look at their lists.
        if ids.len() < entry.values.len() as u64 {
            let number = self.by_name.get(name).copied().unwrap_or(NameNo::MAX);
            let found: BTreeSet<&str> = ids.iter().filter_map(|id| self.value_of(id, number)).collect();
            return found.into_iter().collect();
        }
        let listed =
            |pair: &PairNo| self.pairs.get(*pair as usize).is_some_and(|p| p.ids.postings().intersects(ids));
        entry.values.iter().filter(|(_, pair)| listed(pair)).map(|(value, _)| &**value).collect()
    }

    fn value_of(&self, id: u32, name: NameNo) -> Option<&str> {
        let pairs = self.series.get(&id)?;
        pairs
            .iter()
            .filter_map(|pair| self.pairs.get(*pair as usize))
            .find(|pair| pair.name == name)
            .map(|pair| &*pair.value)
    }

    fn name(&self, name: &str) -> Option<&Name> {
        self.by_name.get(name).and_then(|number| self.names.get(*number as usize))
    }

    /// How many label pairs.
    #[must_use]
    pub fn pairs_count(&self) -> usize {
        self.pairs.len() - self.free_pairs.len()
    }

    /// Series per pair.
    pub fn pair_counts(&self) -> impl Iterator<Item = Count<'_>> {
        self.pairs.iter().filter(|pair| !pair.ids.is_empty()).filter_map(|pair| {
            let name = &*self.names.get(pair.name as usize)?.text;
            Some(Count { name, value: &pair.value, count: pair.ids.postings().len() })
        })
    }

    /// Values per label name.
    pub fn value_counts(&self) -> impl Iterator<Item = Count<'_>> {
        self.live_names().map(|name| Count { name: &name.text, value: "", count: name.values.len() as u64 })
    }

    /// Bytes of the values per label name.
    pub fn value_bytes(&self) -> impl Iterator<Item = Count<'_>> {
        self.live_names().map(|name| Count { name: &name.text, value: "", count: name.value_bytes })
    }

    fn live_names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().filter(|name| !name.values.is_empty())
    }
}

/// Puts `item` into a free place of `items` or behind the last.
fn place<T>(items: &mut Vec<T>, free: &mut Vec<u32>, item: T) -> u32 {
    if let Some(number) = free.pop()
        && let Some(slot) = items.get_mut(number as usize)
    {
        *slot = item;
        return number;
    }
    let number = u32::try_from(items.len()).expect("series are numbered with 32 bits, and pairs are fewer");
    items.push(item);
    number
}

impl PostingsSource for MemoryIndex {
    type Error = Infallible;

    fn all(&self) -> Result<Postings<'_>, Infallible> {
        Ok(Postings::Bitmap(&self.all))
    }

    fn postings(&self, name: &str, value: &str) -> Result<Postings<'_>, Infallible> {
        let pair = self.name(name).and_then(|name| name.values.get(value));
        let pair = pair.and_then(|pair| self.pairs.get(*pair as usize));
        Ok(pair.map_or(Postings::Ids(&[]), |pair| pair.ids.postings()))
    }

    fn values_count(&self, name: &str) -> Result<u64, Infallible> {
        Ok(self.name(name).map_or(0, |name| name.values.len() as u64))
    }

    fn for_each_value(
        &self,
        name: &str,
        prefix: &str,
        visit: &mut dyn FnMut(&str, Postings<'_>),
    ) -> Result<(), Infallible> {
        let all = ValuePage { after: None, values_max: usize::MAX, ids_max: u64::MAX };
        self.visit_values(name, prefix, &all, visit);
        Ok(())
    }

    fn filter(
        &self,
        name: &str,
        ids: &RoaringBitmap,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, Infallible> {
        let number = self.by_name.get(name).copied().unwrap_or(NameNo::MAX);
        Ok(ids.iter().filter(|id| keep(self.value_of(*id, number).unwrap_or_default())).collect())
    }
}

#[cfg(test)]
mod tests;
