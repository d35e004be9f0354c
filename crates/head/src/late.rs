//! Late samples: those not newer than the newest of their series, or than the cut.
//!
//! They are kept beside the state that in-order appends touch, one entry per kind and series that has some: a small sorted
//! buffer of raw samples, spilled into closed chunks of their own, sorted and without overlaps. A cut freezes what is there when
//! it begins; what comes later is the next one's. Freezing is done series by series, when one is next looked at.

mod run;

use std::{collections::BTreeMap, fmt::Debug, mem::size_of, ops::Range};

use chronolith_model::{TimeRange, Timestamp};
use chronolith_storage::Samples;

use crate::{
    closed::{ClosedChunk, float_at, overlapping},
    cut::CutPoint,
    error::ReadError,
    series::Accounts,
};

/// Raw samples of a series before they are spilled into chunks.
pub(crate) const BUFFER_SAMPLES_MAX: usize = 32;

/// A raw sample: timestamp and bits of the value.
pub(crate) type RawSample = (Timestamp, u64);

/// What an entry costs beside what it points to, about: a place in the map and an allocation.
const ENTRY_BYTES: usize = size_of::<LateSeries<u64>>() + 32;

/// A kind of late samples, as they wait to become part of a chunk.
pub(crate) trait LateValue: Clone + Debug {
    /// What they are.
    type Value: Clone;

    /// What it is.
    fn value(&self) -> Self::Value;

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize;

    /// The samples of a chunk that is in memory.
    fn decode(chunk: &ClosedChunk) -> Vec<(Timestamp, Self::Value)>;

    /// The sample at `t` of the bytes of a chunk.
    fn at(chunk: &[u8], t: Timestamp) -> Option<Self::Value>;

    /// Appends chunks of `samples`, which are sorted, of one window, and not too many for a chunk.
    fn encode(samples: &[(Timestamp, Self::Value)], into: &mut Vec<ClosedChunk>);
}

/// The late samples of one kind of a shard, by slot. Ordered, so that it can be walked piece by piece, and the same way
/// each time.
#[derive(Debug)]
pub(crate) struct LateStore<V: LateValue = u64> {
    series: BTreeMap<u32, Box<LateSeries<V>>>,
    /// Of the cut last begun; what is at or before its boundary is frozen if it was there.
    cut: CutPoint,
}

/// The late samples of one series.
#[derive(Debug)]
struct LateSeries<V> {
    /// Sorted.
    buffer: Vec<(Timestamp, V)>,
    /// Sorted, without overlaps, each inside a window.
    chunks: Vec<ClosedChunk>,
    /// The same, of what the pending cut writes.
    frozen: Vec<ClosedChunk>,
    /// Number of the cut that the parts are true of.
    settled: u64,
    /// Bytes and chunks, as they are in the accounts.
    counted: (usize, usize),
}

/// Late samples of a series, copied or shared.
#[derive(Debug)]
pub(crate) struct LateCopy<V = u64> {
    chunks: Vec<ClosedChunk>,
    buffer: Vec<(Timestamp, V)>,
}

impl<V: LateValue> Default for LateStore<V> {
    fn default() -> Self {
        Self { series: BTreeMap::new(), cut: CutPoint::default() }
    }
}

impl<V: LateValue> LateStore<V> {
    /// Of the cut last begun.
    #[inline]
    pub(crate) const fn cut(&self) -> CutPoint {
        self.cut
    }

    /// Begins a cut: late samples that are there at or before its boundary are frozen.
    pub(crate) fn begin_cut(&mut self, cut: CutPoint) {
        self.cut = cut;
    }

    /// Series with late samples.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    #[inline]
    pub(crate) fn contains(&self, slot: u32) -> bool {
        !self.series.is_empty() && self.series.contains_key(&slot)
    }

    /// The late sample of `slot` at `t`.
    pub(crate) fn known(&self, slot: u32, t: Timestamp) -> Option<V::Value> {
        self.series.get(&slot)?.known(t)
    }

    /// Stores a sample whose timestamp is not known.
    pub(crate) fn insert(&mut self, slot: u32, (t, value): (Timestamp, V), accounts: &mut Accounts) {
        let late = self.series.entry(slot).or_insert_with(|| Box::new(LateSeries::new(self.cut)));
        let settled = late.settle(self.cut);
        let room = late.buffer.capacity();
        let heap = value.heap_bytes();
        let spilled = late.insert((t, value));
        if settled || spilled || late.counted.0 == 0 {
            late.measure(accounts);
        } else {
            // Not all chunks each time.
            let (bytes, chunks) = late.counted;
            let grown = (late.buffer.capacity() - room) * size_of::<(Timestamp, V)>() + heap;
            late.counted = (bytes + grown, chunks);
            accounts.resize_late((bytes, chunks), late.counted);
        }
        accounts.samples += 1;
        accounts.late += 1;
    }

    /// The late samples of `slot` inside `range`, those that are written to blocks before `view` left out.
    pub(crate) fn copy(
        &mut self,
        slot: u32,
        range: TimeRange,
        view: CutPoint,
        accounts: &mut Accounts,
    ) -> Option<LateCopy<V>> {
        let late = self.settled(slot, accounts)?;
        let mut copy = LateCopy { chunks: Vec::new(), buffer: Vec::new() };
        if view.number < late.settled {
            copy.chunks.extend_from_slice(overlapping(&late.frozen, range));
        }
        copy.chunks.extend_from_slice(overlapping(&late.chunks, range));
        copy.buffer.extend(late.buffer.iter().filter(|(t, _)| range.contains(*t)).cloned());
        (!copy.chunks.is_empty() || !copy.buffer.is_empty()).then_some(copy)
    }

    /// The late samples of `slot` inside `range` that the pending cut writes.
    pub(crate) fn copy_frozen(
        &mut self,
        slot: u32,
        range: TimeRange,
        accounts: &mut Accounts,
    ) -> Option<LateCopy<V>> {
        let chunks = self.frozen(slot, range, accounts).filter(|chunks| !chunks.is_empty())?.to_vec();
        Some(LateCopy { chunks, buffer: Vec::new() })
    }

    /// Copies all late samples of `slot`, whatever became of cuts.
    pub(crate) fn copy_all(
        &self,
        slot: u32,
        chunks: &mut Vec<ClosedChunk>,
        buffer: &mut Vec<(Timestamp, V)>,
    ) {
        if let Some(late) = self.series.get(&slot) {
            chunks.extend(late.chunks.iter().chain(&late.frozen).cloned());
            buffer.extend_from_slice(&late.buffer);
        }
    }

    /// Gives `slot` late samples back, beside those that it has; sorted, no timestamp twice.
    pub(crate) fn restore(&mut self, slot: u32, samples: &[(Timestamp, V::Value)], accounts: &mut Accounts) {
        let late = self.series.entry(slot).or_insert_with(|| Box::new(LateSeries::new(self.cut)));
        run::merge::<V>(&mut late.chunks, samples);
        late.measure(accounts);
        accounts.samples += samples.len() as u64;
        accounts.late += samples.len() as u64;
    }

    /// What is frozen of the late samples of `slot` inside `range`.
    pub(crate) fn frozen(
        &mut self,
        slot: u32,
        range: TimeRange,
        accounts: &mut Accounts,
    ) -> Option<&[ClosedChunk]> {
        self.settled(slot, accounts).map(|late| overlapping(&late.frozen, range))
    }

    /// The newest late sample of `slot`.
    pub(crate) fn newest(&self, slot: u32) -> Option<Timestamp> {
        self.series.get(&slot)?.newest()
    }

    /// Calls `visit` with slot and frozen chunks of all of `slots` that have some.
    pub(crate) fn for_each_frozen(
        &mut self,
        slots: Range<u32>,
        accounts: &mut Accounts,
        mut visit: impl FnMut(u32, &[ClosedChunk]),
    ) {
        for (slot, late) in self.series.range_mut(slots) {
            if late.settle(self.cut) {
                late.measure(accounts);
            }
            if !late.frozen.is_empty() {
                visit(*slot, &late.frozen);
            }
        }
    }

    /// Calls `visit` with all late chunks, and with the bytes and the newest timestamp of all buffers.
    pub(crate) fn for_each_piece(&self, mut visit: impl FnMut(Timestamp, usize)) {
        for late in self.series.values() {
            for chunk in late.chunks.iter().chain(&late.frozen) {
                visit(chunk.max(), chunk.memory());
            }
            if let Some((newest, _)) = late.buffer.last() {
                visit(*newest, late.buffer_bytes());
            }
        }
    }

    /// Forgets what lies wholly before `floor` of series in `slots`; says how many samples that were.
    pub(crate) fn truncate(&mut self, slots: Range<u32>, floor: Timestamp, accounts: &mut Accounts) -> u64 {
        self.shrink(slots, accounts, |late| {
            let mut dropped = 0;
            for chunks in [&mut late.chunks, &mut late.frozen] {
                let gone = chunks.partition_point(|chunk| chunk.max() < floor);
                dropped += chunks.drain(..gone).map(|chunk| chunk.count() as u64).sum::<u64>();
            }
            let gone = late.buffer.partition_point(|(t, _)| *t < floor);
            dropped + late.buffer.drain(..gone).len() as u64
        })
    }

    /// Forgets what is frozen of series in `slots`; says how many samples that were.
    pub(crate) fn drop_frozen(&mut self, slots: Range<u32>, accounts: &mut Accounts) -> u64 {
        let cut = self.cut;
        self.shrink(slots, accounts, |late| {
            late.settle(cut);
            std::mem::take(&mut late.frozen).iter().map(|chunk| chunk.count() as u64).sum()
        })
    }

    /// Changes the series in `slots`, and removes those that have nothing left.
    fn shrink(
        &mut self,
        slots: Range<u32>,
        accounts: &mut Accounts,
        mut change: impl FnMut(&mut LateSeries<V>) -> u64,
    ) -> u64 {
        let (mut dropped, mut empty) = (0, Vec::new());
        for (slot, late) in self.series.range_mut(slots) {
            dropped += change(late);
            if late.newest().is_none() {
                late.forget(accounts);
                empty.push(*slot);
            } else {
                late.measure(accounts);
            }
        }
        for slot in empty {
            self.series.remove(&slot);
        }
        dropped
    }

    fn settled(&mut self, slot: u32, accounts: &mut Accounts) -> Option<&mut LateSeries<V>> {
        if self.series.is_empty() {
            return None;
        }
        let late = self.series.get_mut(&slot)?;
        if late.settle(self.cut) {
            late.measure(accounts);
        }
        Some(late)
    }
}

impl<V: LateValue> LateSeries<V> {
    const fn new(cut: CutPoint) -> Self {
        Self {
            buffer: Vec::new(),
            chunks: Vec::new(),
            frozen: Vec::new(),
            settled: cut.number,
            counted: (0, 0),
        }
    }

    /// Freezes what a cut that has begun since writes; says whether it has looked.
    fn settle(&mut self, cut: CutPoint) -> bool {
        if self.settled == cut.number {
            return false;
        }
        self.settled = cut.number;
        let before = TimeRange::new(Timestamp::MIN, cut.boundary());
        let whole = self.chunks.partition_point(|chunk| chunk.max() <= before.max);
        let mut frozen: Vec<ClosedChunk> = self.chunks.drain(..whole).collect();
        let mut loose = Vec::new();
        if let Some(across) = self.chunks.first()
            && across.min() <= before.max
        {
            let samples = V::decode(across);
            let early = samples.partition_point(|(t, _)| *t <= before.max);
            let mut behind = Vec::new();
            V::encode(&samples[early..], &mut behind);
            self.chunks.splice(..1, behind);
            loose.extend_from_slice(&samples[..early]);
        }
        run::merge::<V>(&mut frozen, &loose);
        let early = self.buffer.partition_point(|(t, _)| *t <= before.max);
        run::merge::<V>(&mut frozen, &values(self.buffer.drain(..early)));
        if self.frozen.is_empty() {
            self.frozen = frozen;
        } else {
            // A cut that came to nothing left some.
            for chunk in &frozen {
                run::merge::<V>(&mut self.frozen, &V::decode(chunk));
            }
        }
        self.frozen.shrink_to_fit();
        true
    }

    /// Adds a sample whose timestamp is not known; says whether it has changed chunks.
    fn insert(&mut self, (t, value): (Timestamp, V)) -> bool {
        let at = self.buffer.partition_point(|(known, _)| *known < t);
        self.buffer.insert(at, (t, value));
        let spills = self.buffer.len() >= BUFFER_SAMPLES_MAX;
        if spills {
            run::merge::<V>(&mut self.chunks, &values(std::mem::take(&mut self.buffer)));
        }
        spills
    }

    fn known(&self, t: Timestamp) -> Option<V::Value> {
        if let Ok(at) = self.buffer.binary_search_by_key(&t, |(known, _)| *known) {
            return Some(self.buffer[at].1.value());
        }
        let at = TimeRange::new(t, t);
        [&self.chunks, &self.frozen]
            .into_iter()
            .flat_map(|chunks| overlapping(chunks, at))
            .find_map(|chunk| V::at(chunk.in_memory()?, t))
    }

    fn buffer_bytes(&self) -> usize {
        let heap: usize = self.buffer.iter().map(|(_, value)| value.heap_bytes()).sum();
        self.buffer.capacity() * size_of::<(Timestamp, V)>() + heap
    }

    fn newest(&self) -> Option<Timestamp> {
        let chunks = [self.chunks.last(), self.frozen.last()];
        let chunks = chunks.into_iter().flatten().map(ClosedChunk::max).max();
        chunks.max(self.buffer.last().map(|(t, _)| *t))
    }

    /// Brings the accounts up to date.
    fn measure(&mut self, accounts: &mut Accounts) {
        let chunks = || self.chunks.iter().chain(&self.frozen);
        let bytes = ENTRY_BYTES + self.buffer_bytes() + chunks().map(ClosedChunk::memory).sum::<usize>();
        let now = (bytes, chunks().count());
        accounts.resize_late(self.counted, now);
        self.counted = now;
    }

    /// Takes it out of the accounts.
    fn forget(&mut self, accounts: &mut Accounts) {
        accounts.resize_late(self.counted, (0, 0));
        self.counted = (0, 0);
    }
}

impl LateCopy {
    /// Its floats inside `range`, sorted.
    pub(crate) fn floats(&self, range: TimeRange) -> Result<Vec<RawSample>, ReadError> {
        let mut floats = Vec::new();
        for chunk in &self.chunks {
            chunk.floats(range, &mut floats)?;
        }
        floats.extend(self.buffer.iter().filter(|(t, _)| range.contains(*t)));
        // Of a few sorted runs; no timestamp is there twice.
        floats.sort_by_key(|(t, _)| *t);
        Ok(floats)
    }
}

impl<V: LateValue> LateCopy<V> {
    /// Its chunks, of sorted lists, and its samples beside them.
    pub(crate) fn parts(&self) -> (&[ClosedChunk], &[(Timestamp, V)]) {
        (&self.chunks, &self.buffer)
    }

    /// Bytes the copy takes.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<ClosedChunk>()
            + self.buffer.capacity() * size_of::<(Timestamp, V)>()
    }
}

/// What the samples of a buffer are.
fn values<V: LateValue>(buffer: impl IntoIterator<Item = (Timestamp, V)>) -> Vec<(Timestamp, V::Value)> {
    buffer.into_iter().map(|(t, value)| (t, value.value())).collect()
}

/// Floats are kept as their bits.
impl LateValue for u64 {
    type Value = Self;

    fn value(&self) -> Self {
        *self
    }

    fn heap_bytes(&self) -> usize {
        0
    }

    fn decode(chunk: &ClosedChunk) -> Vec<RawSample> {
        let mut samples = Vec::with_capacity(chunk.count());
        chunk.floats(TimeRange::ALL, &mut samples).expect("encoded by this process and kept in memory");
        samples
    }

    fn at(chunk: &[u8], t: Timestamp) -> Option<Self> {
        float_at(chunk, t)
    }

    fn encode(samples: &[RawSample], into: &mut Vec<ClosedChunk>) {
        into.extend(ClosedChunk::of_floats(samples));
    }
}

/// Brings `late` among the floats of `into` from place `start` on; both sorted. Of two at one timestamp the one that is
/// there already stays.
pub(crate) fn merge_floats(into: &mut Samples, start: usize, late: &[RawSample]) {
    let known = &into.timestamps[start..];
    let late: Vec<&RawSample> = late.iter().filter(|(t, _)| known.binary_search(t).is_err()).collect();
    let (mut from, mut to) = (into.timestamps.len(), into.timestamps.len() + late.len());
    into.timestamps.resize(to, 0);
    into.values.resize(to, 0.0);
    // From the back, in place.
    for (t, bits) in late.into_iter().rev() {
        while from > start && into.timestamps[from - 1] > *t {
            (from, to) = (from - 1, to - 1);
            into.timestamps[to] = into.timestamps[from];
            into.values[to] = into.values[from];
        }
        to -= 1;
        into.timestamps[to] = *t;
        into.values[to] = f64::from_bits(*bits);
    }
}

#[cfg(test)]
mod tests;
