//! A section of series, back into the head.

use std::mem::take;
use std::sync::{Arc, atomic::Ordering};

use chronolith_chunk::{SAMPLE_BYTES_MAX, XorAppender, XorIter, decode_into, histogram::HistogramIter};
use chronolith_model::{TenantId, TimeRange};
use hashbrown::HashMap;

use super::SnapshotDamageReason;
use super::format::Section;
use super::more;
use super::piece::{self, Loading, LoadingHistograms};
use crate::{
    chunk_file::ChunkFiles,
    closed::ClosedChunk,
    error::ReadError,
    head::{Head, Identity},
    histogram::{self, Lane},
    missed::{MissedChunks, take_unreadable},
    offer::LateRule,
    options::SHARDS,
    shard::{Ref, ShardState},
    tenant::Tenant,
    unread::UnreadChunk,
};

/// Free bytes at the end of an open chunk: the last append finds room.
const OPEN_SPARE_BYTES: usize = SAMPLE_BYTES_MAX;

/// What one worker found.
#[derive(Default)]
pub(super) struct Share {
    pub(super) series: u64,
    pub(super) samples: u64,
    pub(super) times: Option<TimeRange>,
    pub(super) sequences: Vec<(usize, u64)>,
    pub(super) renumbered: HashMap<u32, u32>,
    pub(super) damage: Vec<(Section, SnapshotDamageReason)>,
    /// Chunks of the current section that cannot be read, with the bytes of their records ...
    pub(super) unread: Vec<(ReadError, u64)>,
    /// ... and those of all, with their sections.
    pub(super) chunk_damage: Vec<(Section, ReadError, u64)>,
    /// What they had.
    pub(super) missed: MissedChunks,
    /// Chunks that only the device refuses.
    pub(super) refused: Vec<UnreadChunk>,
    /// What the log had of shards up to these numbers was in the snapshot, whatever is damaged.
    pub(super) known: Vec<(usize, u64)>,
}

impl Share {
    /// There are samples at these times.
    pub(super) fn saw(&mut self, times: Option<TimeRange>) {
        self.times = times.into_iter().chain(self.times).reduce(union);
    }

    /// Takes away what chunk files do not give back, of series by their numbers.
    pub(super) fn verify(&mut self, chunks: &mut [(u32, &mut Vec<ClosedChunk>)]) {
        let mut missed = MissedChunks::default();
        let refused = take_unreadable(chunks, |reference, chunk, error| {
            let bytes = chunk.place().map_or(0, |place| place.record().1);
            self.unread.push((error, bytes));
            missed.note(reference, &chunk);
        });
        self.missed.extend(missed, |reference| reference);
        self.refused.extend(refused);
    }
}

/// Takes over a section of series: all of it, or nothing.
pub(super) fn load_piece(
    (head, files): (&Head, &ChunkFiles),
    shard: usize,
    (content, version): (&[u8], u16),
    share: &mut Share,
) -> Option<()> {
    let mut all = piece::decode(content, files, version).ok()?;
    share.verify(&mut closed(&mut all, shard));
    let mut opens = Vec::with_capacity(all.len());
    let mut lanes = Vec::with_capacity(all.len());
    let mut columns = (Vec::new(), Vec::new());
    for series in &mut all {
        opens.push(reopen(series, &mut columns)?);
        lanes.push(match &mut series.histograms {
            Some(histograms) => Some(reopen_histograms(histograms)?),
            None => None,
        });
    }
    let tenants = tenants(head, &all)?;
    let entry = head.shards.get(shard)?;
    {
        // This task alone changes the shard.
        let state = entry.lock();
        if all.iter().any(|series| state.slab.get(series.slot).is_some()) {
            return None;
        }
    }
    let mut doubles = Vec::new();
    let mut taken = Vec::with_capacity(all.len());
    for (series, tenant) in all.iter().zip(&tenants) {
        let known = register(head, tenant, shard, series, &all);
        doubles.extend(known.map(|known| (series.slot, known)));
        taken.push(known.is_none());
    }
    let mut state = entry.lock();
    let mut times: Option<TimeRange> = None;
    let ShardState { slab, late, histograms, accounts, .. } = &mut *state;
    for ((((series, tenant), open), lane), taken) in
        all.iter_mut().zip(&tenants).zip(opens).zip(&mut lanes).zip(&taken)
    {
        let slot = series.slot;
        let mut of = SeriesTimes::of(series, &open.0, lane.as_ref());
        times = of.times.take().into_iter().chain(times).reduce(union);
        share.samples += of.samples;
        if !*taken {
            continue;
        }
        share.series += 1;
        slab.insert(slot, tenant.number);
        if let Some((place, closed)) = slab.get_mut(slot) {
            place.restore(closed, take(&mut series.chunks), open, accounts);
        }
        if !series.late.is_empty() {
            late.restore(slot, &series.late, accounts);
        }
        if let (Some(lane), Some(loaded)) = (lane.take(), &series.histograms) {
            histograms.restore(slot, lane, &loaded.late, accounts);
            if let Some((place, _)) = slab.get_mut(slot) {
                place.set_mixed(histograms.contains(slot));
            }
        }
    }
    for (slot, known) in doubles {
        state.slab.reserve_through(slot);
        if let Some((series, lane)) = all.iter().zip(&lanes).find(|(series, _)| series.slot == slot) {
            let unread = merge(&mut state, (series, lane.as_ref()), known);
            share.unread.extend(unread.into_iter().map(|error| (error, 0)));
            share.renumbered.insert(Ref::new(shard, slot).0, known.0);
        }
    }
    entry.publish(&state);
    drop(state);
    share.saw(times);
    index(head, shard, &all, &tenants, &taken);
    Some(())
}

/// Looks whether the chunks in files that a section of series names can be read.
pub(super) fn check_piece(content: &[u8], version: u16, files: &ChunkFiles, share: &mut Share) {
    if let Ok(mut all) = piece::decode(content, files, version) {
        share.verify(&mut closed(&mut all, 0));
    }
}

/// The closed chunks of series, with the numbers of these.
fn closed<'a>(all: &'a mut [Loading<'_>], shard: usize) -> Vec<(u32, &'a mut Vec<ClosedChunk>)> {
    let mut chunks = Vec::with_capacity(all.len());
    for series in all {
        let reference = Ref::new(shard, series.slot).0;
        let histograms = series.histograms.as_mut().map(|histograms| (reference, &mut histograms.chunks));
        chunks.push((reference, &mut series.chunks));
        chunks.extend(histograms);
    }
    chunks
}

fn union(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange::new(a.min.min(b.min), a.max.max(b.max))
}

/// When the samples of a series are, and how many.
struct SeriesTimes {
    times: Option<TimeRange>,
    samples: u64,
}

impl SeriesTimes {
    fn of(series: &Loading<'_>, open: &XorAppender, lane: Option<&Lane>) -> Self {
        let chunks = series.chunks.iter().map(|chunk| TimeRange::new(chunk.min(), chunk.max()));
        let first = XorIter::new(series.open).next().and_then(Result::ok);
        let open_range = first.map(|(t, _)| TimeRange::new(t, open.last_timestamp()));
        let late = series.late.iter().map(|(t, _)| TimeRange::new(*t, *t));
        let late_histograms = series.histograms.as_ref().map_or(&[][..], |histograms| &histograms.late);
        let histograms = lane.into_iter().flat_map(|lane| lane.pieces(TimeRange::ALL));
        let histograms = histograms.chain(late_histograms.iter().map(|(t, _)| TimeRange::new(*t, *t)));
        let samples = series.chunks.iter().map(|chunk| chunk.count() as u64).sum::<u64>();
        let of_histograms = lane.map_or(0, Lane::count) + late_histograms.len() as u64;
        Self {
            times: chunks.chain(open_range).chain(late).chain(histograms).reduce(union),
            samples: samples + open.count() as u64 + series.late.len() as u64 + of_histograms,
        }
    }
}

/// The open chunk, written again sample by sample: its state is what was left out. `None` if it is not what an appender
/// writes, or not in order.
fn reopen(
    series: &Loading<'_>,
    (timestamps, values): &mut (Vec<i64>, Vec<f64>),
) -> Option<(XorAppender, Vec<u8>)> {
    let mut appender = XorAppender::new();
    if series.open.is_empty() {
        return Some((appender, Vec::new()));
    }
    timestamps.clear();
    values.clear();
    decode_into(series.open, timestamps, values).ok()?;
    let follows = series.chunks.last().is_none_or(|last| timestamps.first() > Some(&last.max()));
    if !follows || !timestamps.is_sorted_by(|a, b| a < b) {
        return None;
    }
    // Room for the next samples, as an appender leaves it.
    let mut bytes = Vec::with_capacity(series.open.len() + OPEN_SPARE_BYTES);
    for (t, value) in timestamps.iter().zip(&*values) {
        appender.append(&mut bytes, *t, *value).ok()?;
    }
    (bytes == series.open).then_some((appender, bytes))
}

/// The histograms in order; `None` if the open chunk is not what an appender writes, or not behind the closed ones.
fn reopen_histograms(loading: &mut LoadingHistograms<'_>) -> Option<Lane> {
    let open = match loading.open {
        [] => None,
        bytes => Some(histogram::reopen(bytes)?),
    };
    Lane::of(take(&mut loading.chunks), open)
}

/// The tenants of all series, made if need be; mostly the same for all of them.
fn tenants(head: &Head, all: &[Loading<'_>]) -> Option<Vec<Arc<Tenant>>> {
    let mut tenants: Vec<Arc<Tenant>> = Vec::with_capacity(all.len());
    for series in all {
        let same = tenants.last().filter(|last| last.id.as_str() == series.tenant).cloned();
        tenants.push(match same {
            Some(same) => same,
            None => {
                let id = TenantId::new(series.tenant).ok()?;
                head.tenants.get_or_create(&id, || head.env.rng.next_u64()).ok()?
            }
        });
    }
    Some(tenants)
}

/// Notes the labels of a series; if another one has them, that one's number. One that was removed and came back while the
/// snapshot was written is in it twice.
fn register(
    head: &Head,
    tenant: &Tenant,
    shard: usize,
    series: &Loading<'_>,
    all: &[Loading<'_>],
) -> Option<Ref> {
    let hash = tenant.stable_hash(&series.labels);
    let half = (hash >> 32) as u32;
    let reference = Ref::new(shard, series.slot);
    let mut identities = head.identities.get(hash as usize % SHARDS)?.lock();
    let known = {
        let index = tenant.index.read();
        identities.0.find(Identity::spread(half), |known| {
            let here = Ref(known.reference);
            // Those of this section are not in the index yet.
            let of_section = || {
                let at = all.binary_search_by_key(&here.slot(), |other| other.slot).ok()?;
                all.get(at).filter(|other| other.tenant == series.tenant && other.labels == series.labels)
            };
            known.hash == half
                && here.shard() == shard
                && (index.has_labels(known.reference, &series.labels) || of_section().is_some())
        })
    };
    if let Some(known) = known {
        return Some(Ref(known.reference));
    }
    let identity = Identity { hash: half, reference: reference.0 };
    identities.0.insert_unique(Identity::spread(half), identity, |known| Identity::spread(known.hash));
    None
}

/// Offers the samples of a series to another one with its labels; what cannot be read of them is returned.
fn merge(
    state: &mut ShardState,
    (series, lane): (&Loading<'_>, Option<&Lane>),
    known: Ref,
) -> Vec<ReadError> {
    let mut unread = more::offer(state, known.slot(), &series.chunks);
    if let Some(lane) = lane {
        unread.extend(more::offer(state, known.slot(), lane.closed()));
    }
    let Some(mut place) = state.series_mut(known.slot()) else { return unread };
    let open = XorIter::new(series.open).map_while(Result::ok).map(|(t, value)| (t, value.to_bits()));
    for sample in open.chain(series.late.iter().copied()) {
        place.float(sample, LateRule::Logged);
    }
    // Open chunks were read when they were opened again.
    let open = HistogramIter::new(lane.map_or(&[], Lane::open_bytes)).into_iter().flatten();
    let late = series.histograms.as_ref().map_or(&[][..], |histograms| &histograms.late);
    let mut one = Vec::new();
    for (t, histogram) in open.map_while(Result::ok).chain(late.iter().cloned()) {
        place.histogram(t, &histogram, LateRule::Logged, &mut one);
    }
    unread
}

/// Adds the series to their tenants' indexes.
fn index(head: &Head, shard: usize, all: &[Loading<'_>], tenants: &[Arc<Tenant>], taken: &[bool]) {
    let mut at = 0;
    while let Some(tenant) = tenants.get(at) {
        let same = tenants.iter().skip(at).take_while(|other| other.number == tenant.number).count();
        tenant.change_index(|index| {
            for (series, _) in all.iter().zip(taken).skip(at).take(same).filter(|(_, taken)| **taken) {
                index.insert(Ref::new(shard, series.slot).0, &series.labels);
            }
        });
        at += same;
    }
    let series = all.iter().zip(taken).filter(|(_, taken)| **taken).count();
    head.counters.series_created.fetch_add(series as u64, Ordering::Relaxed);
}
