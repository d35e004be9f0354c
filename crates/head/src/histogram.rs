//! Histograms of series: their open and closed chunks, and late ones.
//!
//! They are kept beside the state that appends of floats touch, one entry per series that has some. Floats and histograms
//! of a series are two runs of samples, each sorted; which of both a sample is newer than is judged before
//! ([`crate::offer`]). A histogram comes here under the hint that it is to be read with.

mod lane;
mod one;

use std::{collections::BTreeMap, ops::Range};

use chronolith_chunk::histogram::decode_histograms_into;
use chronolith_model::{CounterResetHint, Histogram, TimeRange, Timestamp};
use chronolith_storage::Samples;

use crate::{
    closed::ClosedChunk,
    cut::CutPoint,
    error::ReadError,
    late::{LateCopy, LateStore},
    read_back::Files,
    series::Accounts,
};

pub(crate) use lane::{Lane, reopen};
pub(crate) use one::{OneHistogram, decode_one, encode_one};

/// A chunk of histograms has at most so many bytes. One of a single histogram has less than half of it: at most 8192
/// buckets, spans and bounds, of at most 9 bytes each.
pub(crate) const HISTOGRAM_CHUNK_BYTES_MAX: usize = 1 << 20;

/// What an entry costs beside what it points to, about: a place in the map and an allocation.
const ENTRY_BYTES: usize = size_of::<Lane>() + 32;

/// The histograms of a shard, by slot.
#[derive(Debug, Default)]
pub(crate) struct HistogramStore {
    lanes: BTreeMap<u32, Box<Lane>>,
    pub(crate) late: LateStore<OneHistogram>,
}

/// Histograms of a series, copied or shared.
#[derive(Debug)]
pub(crate) struct HistogramCopy {
    chunks: Vec<ClosedChunk>,
    open: Vec<u8>,
    late: Option<LateCopy<OneHistogram>>,
}

impl HistogramStore {
    /// Series with histograms in order, and with late ones.
    pub(crate) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Whether `slot` has any.
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.lanes.contains_key(&slot) || self.late.contains(slot)
    }

    /// The histograms of `slot` in order.
    pub(crate) fn lane(&self, slot: u32) -> Option<&Lane> {
        self.lanes.get(&slot).map(|lane| &**lane)
    }

    /// The closed chunks of `slot`, to be changed to others of the same samples.
    pub(crate) fn closed_mut(&mut self, slot: u32) -> Option<&mut [ClosedChunk]> {
        self.lanes.get_mut(&slot).map(|lane| lane.closed_mut())
    }

    /// Calls `visit` with slot and histograms in order of all of `slots` that have some.
    pub(crate) fn for_each(&self, slots: Range<u32>, mut visit: impl FnMut(u32, &Lane)) {
        self.lanes.range(slots).for_each(|(slot, lane)| visit(*slot, lane));
    }

    /// The timestamp of the newest histogram of `slot`, in order or late.
    pub(crate) fn newest(&self, slot: u32) -> Option<Timestamp> {
        self.lane(slot).and_then(Lane::last).max(self.late.newest(slot))
    }

    /// The histogram of `slot` at `t`.
    pub(crate) fn known(&self, slot: u32, t: Timestamp, files: Files<'_>) -> Option<Histogram> {
        self.lane(slot).and_then(|lane| lane.known(t, files)).or_else(|| self.late.known(slot, t))
    }

    /// Stores a histogram newer than all of `slot` in order.
    pub(crate) fn push(
        &mut self,
        slot: u32,
        t: Timestamp,
        histogram: &Histogram,
        hint: CounterResetHint,
        accounts: &mut Accounts,
    ) {
        let lane = self.lanes.entry(slot).or_insert_with(|| {
            accounts.resize_histograms((0, 0), (ENTRY_BYTES, 0));
            Box::default()
        });
        lane.push(t, histogram, hint, accounts);
        accounts.samples += 1;
        accounts.histograms += 1;
    }

    /// Stores a late one, whose timestamp is not known.
    pub(crate) fn insert_late(
        &mut self,
        slot: u32,
        t: Timestamp,
        one: OneHistogram,
        accounts: &mut Accounts,
    ) {
        self.late.insert(slot, (t, one), accounts);
        accounts.histograms += 1;
    }

    /// What `slot` has inside `in_order`, and late inside `range`; late ones that are in blocks before `view` left out.
    pub(crate) fn copy(
        &mut self,
        slot: u32,
        (in_order, range): (TimeRange, TimeRange),
        view: CutPoint,
        accounts: &mut Accounts,
    ) -> Option<HistogramCopy> {
        let late = self.late.copy(slot, range, view, accounts);
        let (chunks, open) = self.lane(slot).map(|lane| lane.overlapping(in_order)).unwrap_or_default();
        let copy = HistogramCopy { chunks: chunks.to_vec(), open: open.to_vec(), late };
        (!copy.is_empty()).then_some(copy)
    }

    /// What `slot` has inside `in_order`, and late inside `range` and frozen.
    pub(crate) fn copy_frozen(
        &mut self,
        slot: u32,
        (in_order, range): (TimeRange, TimeRange),
        accounts: &mut Accounts,
    ) -> HistogramCopy {
        let late = self.late.copy_frozen(slot, range, accounts);
        let (chunks, open) = self.lane(slot).map(|lane| lane.overlapping(in_order)).unwrap_or_default();
        HistogramCopy { chunks: chunks.to_vec(), open: open.to_vec(), late }
    }

    /// Gives `slot`, which has none, its histograms back, and late ones; those sorted, no timestamp twice.
    pub(crate) fn restore(
        &mut self,
        slot: u32,
        lane: Lane,
        late: &[(Timestamp, Histogram)],
        accounts: &mut Accounts,
    ) {
        if lane.last().is_some() {
            let samples = lane.count();
            accounts.resize_histograms((0, 0), (ENTRY_BYTES + lane.bytes(), lane.closed().len()));
            accounts.samples += samples;
            accounts.histograms += samples;
            self.lanes.insert(slot, Box::new(lane));
        }
        if !late.is_empty() {
            self.restore_late(slot, late, accounts);
        }
    }

    /// Gives `slot` late histograms back, sorted, no timestamp twice.
    pub(crate) fn restore_late(
        &mut self,
        slot: u32,
        late: &[(Timestamp, Histogram)],
        accounts: &mut Accounts,
    ) {
        self.late.restore(slot, late, accounts);
        accounts.histograms += late.len() as u64;
    }

    /// Adds chunks behind the closed ones of `slot`; `None`, and nothing done, if they do not fit there.
    pub(crate) fn extend(
        &mut self,
        slot: u32,
        chunks: Vec<ClosedChunk>,
        accounts: &mut Accounts,
    ) -> Option<()> {
        let lane = self.lanes.get_mut(&slot)?;
        let (bytes, count, samples) = (lane.bytes(), lane.closed().len(), lane.count());
        lane.extend(chunks)?;
        accounts.resize_histograms((bytes, count), (lane.bytes(), lane.closed().len()));
        accounts.samples += lane.count() - samples;
        accounts.histograms += lane.count() - samples;
        Some(())
    }

    /// Forgets histograms in order of series in `slots` that lie in chunks wholly before `floor`; says how many.
    pub(crate) fn truncate(&mut self, slots: Range<u32>, floor: Timestamp, accounts: &mut Accounts) -> u64 {
        let (mut dropped, mut empty) = (0, Vec::new());
        for (slot, lane) in self.lanes.range_mut(slots) {
            dropped += lane.truncate(floor, accounts);
            if lane.last().is_none() {
                empty.push(*slot);
            }
        }
        for slot in empty {
            self.lanes.remove(&slot);
            accounts.resize_histograms((ENTRY_BYTES, 0), (0, 0));
        }
        dropped
    }

    /// Takes a closed chunk of `slot` away; `None` if it is not there.
    pub(crate) fn remove_closed(
        &mut self,
        slot: u32,
        which: impl Fn(&ClosedChunk) -> bool,
        accounts: &mut Accounts,
    ) -> Option<()> {
        let lane = self.lanes.get_mut(&slot)?;
        let chunk = lane.remove(which)?;
        accounts.resize_histograms((chunk.memory(), 1), (0, 0));
        if lane.last().is_none() {
            self.lanes.remove(&slot);
            accounts.resize_histograms((ENTRY_BYTES, 0), (0, 0));
        }
        Some(())
    }

    /// Gives back the room in open chunks of series in `slots` without a histogram since `quiet`.
    pub(crate) fn shrink(&mut self, slots: Range<u32>, quiet: Timestamp, accounts: &mut Accounts) {
        for lane in self.lanes.range_mut(slots).map(|(_, lane)| lane) {
            if lane.last() < Some(quiet) {
                lane.shrink(accounts);
            }
        }
    }
}

impl HistogramCopy {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.open.is_empty() && self.late.is_none()
    }

    /// Whether there are late ones.
    pub(crate) const fn has_late(&self) -> bool {
        self.late.is_some()
    }

    /// Appends what is inside `in_order`, and late inside `range`. Closed chunks that cannot be read are left out and
    /// handed to `unread`.
    pub(crate) fn read(
        &self,
        (in_order, range): (TimeRange, TimeRange),
        into: &mut Samples,
        unread: &mut dyn FnMut(&ClosedChunk, ReadError),
    ) -> Result<(), ReadError> {
        let start = into.histograms.len();
        for chunk in &self.chunks {
            chunk.read_or(in_order, into, unread);
        }
        if !self.open.is_empty() {
            let (timestamps, histograms) = (&mut into.histogram_timestamps, &mut into.histograms);
            decode_histograms_into(&self.open, in_order.min, in_order.max, timestamps, histograms)?;
        }
        let Some(late) = &self.late else { return Ok(()) };
        let (chunks, buffer) = late.parts();
        let mut late = Vec::new();
        for (run, chunk) in (1..).zip(chunks) {
            late.extend(chunk.histograms(range)?.into_iter().map(|(t, histogram)| (t, histogram, run)));
        }
        // Of those in a buffer nothing is said that is about another one.
        let of_buffer = buffer.iter().filter(|(t, _)| range.contains(*t));
        late.extend(of_buffer.map(|(t, one)| (*t, one.histogram(), usize::MAX)));
        // Of a few sorted runs; no timestamp is there twice.
        late.sort_by_key(|(t, ..)| *t);
        merge_histograms(into, start, late);
        Ok(())
    }

    /// Bytes the copy takes.
    pub(crate) fn bytes(&self) -> usize {
        let late = self.late.as_ref().map_or(0, LateCopy::bytes);
        size_of::<Self>() + self.chunks.capacity() * size_of::<ClosedChunk>() + self.open.capacity() + late
    }
}

/// A histogram and the run that it comes from: 0 for those in order.
type OfRun = (Timestamp, Histogram, usize);

/// Brings `late` among the histograms of `into` from place `start` on; both sorted. Of two at one timestamp the one that is
/// there already stays. Where a histogram is behind one of another run, what was said about the counter is about another
/// one than that: nothing is known then.
fn merge_histograms(into: &mut Samples, start: usize, late: Vec<OfRun>) {
    if late.is_empty() {
        return;
    }
    let timestamps = into.histogram_timestamps.split_off(start);
    let histograms = into.histograms.split_off(start);
    let mut all: Vec<OfRun> = timestamps.into_iter().zip(histograms).map(|(t, h)| (t, h, 0)).collect();
    all.extend(late);
    // Two sorted runs; the sort is stable, so those in order come first.
    all.sort_by_key(|(t, ..)| *t);
    all.dedup_by_key(|(t, ..)| *t);
    let mut before = None;
    for (t, mut histogram, run) in all {
        if before.is_some_and(|before| before != run) && histogram.hint() != CounterResetHint::Gauge {
            histogram.set_hint(CounterResetHint::Unknown);
        }
        before = Some(run);
        into.push_histogram(t, histogram);
    }
}

#[cfg(test)]
mod tests;
