//! Closed chunks, mostly those in files, that turn out to be unreadable while the head runs.
//!
//! Whoever meets one notes it, and goes on without it. As long as there are any, nothing of the log may go and no snapshot is
//! written: the log may have what they had. Whoever keeps the head asks for the notes, looks what the log has, and has the
//! chunk replaced by that.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use chronolith_model::{Histogram, Labels, TenantId, TimeRange, Timestamp};
use chronolith_storage::Samples;
use parking_lot::Mutex;

use crate::{
    chunk_file::Place,
    closed::{ChunkKind, ClosedChunk},
    error::ReadError,
    head::Head,
    histogram::decode_one,
    late::RawSample,
    offer::{LateRule, Verdict},
    read::HeadView,
    shard::{Ref, ShardState},
};

/// At most so many are noted at a time; others are when they are met again.
const NOTED_MAX: usize = 10_000;

/// A closed chunk that cannot be read.
#[derive(Clone, Debug)]
pub struct UnreadChunk {
    reference: Ref,
    chunk: ClosedChunk,
    error: ReadError,
}

impl UnreadChunk {
    pub(crate) fn new(reference: u32, chunk: &ClosedChunk, error: ReadError) -> Self {
        Self { reference: Ref(reference), chunk: chunk.clone(), error }
    }

    /// The number of the series.
    #[must_use]
    pub const fn reference(&self) -> u32 {
        self.reference.0
    }

    /// First and last timestamp of the chunk.
    #[must_use]
    pub fn range(&self) -> TimeRange {
        self.chunk.range()
    }

    /// How many samples it has.
    #[must_use]
    pub const fn samples(&self) -> usize {
        self.chunk.count()
    }

    /// Whether these are histograms.
    #[must_use]
    pub fn has_histograms(&self) -> bool {
        self.chunk.kind() == ChunkKind::Histogram
    }

    /// The file that it is in, and where it begins there; `None` of one in memory.
    #[must_use]
    pub fn place(&self) -> Option<(&Path, u64)> {
        self.chunk.place().map(|place| (place.path(), place.record().0))
    }

    /// Whether the device is to blame, and may give it later.
    #[must_use]
    pub const fn is_of_device(&self) -> bool {
        matches!(self.error, ReadError::ChunkFile { damage, .. } if damage.is_of_device())
    }

    /// Why it cannot be read.
    #[must_use]
    pub const fn error(&self) -> &ReadError {
        &self.error
    }

    fn key(&self) -> (u32, u8, Timestamp) {
        (self.reference.0, self.chunk.kind().code(), self.chunk.min())
    }
}

/// What is noted.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    noted: Mutex<BTreeMap<(u32, u8, Timestamp), UnreadChunk>>,
    /// Whether there is something.
    any: AtomicBool,
    /// Chunks that were met, each once.
    met: AtomicU64,
}

/// What became of a chunk that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// It can be read again, or is not needed any more.
    Fine,
    /// The device does not give it, and not all of it was found: it stays, as the device may give it later.
    Waits,
    /// What was found takes its place, and so many samples are lost.
    Lost(u64),
}

impl Head {
    /// Notes chunks that cannot be read.
    pub fn note_unread(&self, unread: Vec<UnreadChunk>) {
        if unread.is_empty() {
            return;
        }
        let mut noted = self.unread.noted.lock();
        for chunk in unread {
            if noted.len() >= NOTED_MAX || noted.contains_key(&chunk.key()) {
                continue;
            }
            tracing::error!(
                error = &chunk.error as &dyn std::error::Error,
                samples = chunk.samples(),
                "a chunk of the head cannot be read; queries go on without it"
            );
            self.unread.met.fetch_add(1, Ordering::Relaxed);
            noted.insert(chunk.key(), chunk);
        }
        self.unread.any.store(!noted.is_empty(), Ordering::Release);
    }

    /// The chunks that are noted.
    #[must_use]
    pub fn unread(&self) -> Vec<UnreadChunk> {
        if !self.has_unread() {
            return Vec::new();
        }
        self.unread.noted.lock().values().cloned().collect()
    }

    /// Whether there are chunks that cannot be read: nothing of the log may go.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.unread.any.load(Ordering::Acquire)
    }

    /// How many chunks could not be read since the start.
    #[must_use]
    pub fn unread_met(&self) -> u64 {
        self.unread.met.load(Ordering::Relaxed)
    }

    /// Whose series `reference` is, and its labels.
    #[must_use]
    pub fn series_of(&self, reference: u32) -> Option<(TenantId, Labels)> {
        let reference = Ref(reference);
        let tenant = {
            let state = self.shards.get(reference.shard())?.lock();
            state.slab.get(reference.slot())?.0.tenant()
        };
        let tenant = self.tenants.by_number(tenant)?;
        let index = tenant.index.read();
        let labels = Labels::from_sorted(index.pairs_of(reference.0)?)?;
        Some((tenant.id.clone(), labels))
    }

    /// Puts samples of the log, floats or histograms as they were logged, in the place of a chunk that cannot be read; those
    /// that are not of its time are left out. They are late samples then.
    pub fn mend(
        &self,
        unread: &UnreadChunk,
        floats: &[RawSample],
        histograms: &[(Timestamp, Vec<u8>)],
    ) -> Mended {
        let settle = || {
            let mut noted = self.unread.noted.lock();
            noted.remove(&unread.key());
            self.unread.any.store(!noted.is_empty(), Ordering::Release);
        };
        if unread.chunk.read(TimeRange::ALL, &mut Samples::default()).is_ok() {
            settle();
            return Mended::Fine;
        }
        let range = unread.range();
        let floats: BTreeMap<Timestamp, u64> =
            floats.iter().copied().filter(|(t, _)| range.contains(*t) && !unread.has_histograms()).collect();
        let decoded = |(t, bytes): &(Timestamp, Vec<u8>)| decode_one(bytes).filter(|(at, _)| at == t);
        let histograms: BTreeMap<Timestamp, Histogram> = histograms
            .iter()
            .filter(|(t, _)| range.contains(*t) && unread.has_histograms())
            .filter_map(decoded)
            .collect();
        if unread.is_of_device() && floats.len() + histograms.len() < unread.samples() {
            return Mended::Waits;
        }
        let stored = {
            let Some(shard) = self.shards.get(unread.reference.shard()) else { return Mended::Fine };
            let mut state = shard.lock();
            let stored = replace(&mut state, unread, &floats, &histograms);
            shard.publish(&state);
            stored
        };
        settle();
        stored.map_or(Mended::Fine, |stored| Mended::Lost((unread.samples() as u64).saturating_sub(stored)))
    }
}

impl HeadView {
    /// Notes chunks that cannot be read: see [`Head::note_unread`].
    pub fn note_unread(&self, unread: Vec<UnreadChunk>) {
        self.head.note_unread(unread);
    }

    /// What to tell of answers about `range`, if there are chunks that cannot be read.
    #[must_use]
    pub fn unread_warning(&self, range: TimeRange) -> Option<String> {
        let of_view = |chunk: &UnreadChunk| {
            let state = self.head.shards.get(chunk.reference.shard())?.lock();
            let tenant = state.slab.get(chunk.reference.slot())?.0.tenant();
            (tenant == self.tenant.as_ref()?.number && chunk.range().overlaps(&range)).then_some(())
        };
        let chunks = self.head.unread().iter().filter_map(of_view).count();
        (chunks > 0)
            .then(|| format!("{chunks} chunks of the head cannot be read and are not part of the answer"))
    }
}

/// Takes the chunk away and offers the samples; how many of them were stored. `None` if the chunk is gone.
fn replace(
    state: &mut ShardState,
    unread: &UnreadChunk,
    floats: &BTreeMap<Timestamp, u64>,
    histograms: &BTreeMap<Timestamp, Histogram>,
) -> Option<u64> {
    let (slot, min) = (unread.reference.slot(), unread.chunk.min());
    let ShardState { slab, histograms: store, accounts, .. } = state;
    let place = unread.chunk.place().map(Place::numbers);
    let same = |chunk: &ClosedChunk| {
        let in_file = place.is_some() && chunk.place().map(Place::numbers) == place;
        chunk.min() == min && (in_file || chunk.is_same(&unread.chunk))
    };
    if unread.has_histograms() {
        store.remove_closed(slot, same, accounts)?;
    } else {
        let (_, closed) = slab.get_mut(slot)?;
        let at = closed.iter().position(same)?;
        let chunk = closed.remove(at);
        accounts.shrink(chunk.memory());
        accounts.chunks -= 1;
    }
    let mut series = state.series_mut(slot)?;
    let mut one = Vec::new();
    let mut stored = 0;
    for (t, bits) in floats {
        stored += u64::from(series.float((*t, *bits), LateRule::Logged) == Verdict::Stored);
    }
    for (t, histogram) in histograms {
        let verdict = series.histogram(*t, histogram, LateRule::Logged, &mut one);
        stored += u64::from(verdict == Verdict::Stored);
    }
    Some(stored)
}
