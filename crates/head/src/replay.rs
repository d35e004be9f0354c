//! Replay: the log's content back into the head.

use std::{
    collections::{BTreeMap, HashMap},
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
};

use chronolith_model::{Labels, TenantId, TimeRange, Timestamp};
use chronolith_storage::StartTimestamp;
use chronolith_wal::{LoggedBlob, LoggedSample, LoggedStart, Replay, SeriesDef};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::{
    closed::ChunkKind,
    error::Error,
    head::Head,
    histogram::decode_one,
    missed::{Loss, MissedChunks},
    offer::{LateRule, SeriesMut, Verdict},
    options::SHARDS,
    read_back::Files,
    shard::{Ref, ShardState},
    snapshot::Loaded,
};

/// Series whose memory is fetched ahead of their samples.
const AHEAD: usize = 32;

/// Receives a log's content for a head that has no log attached yet.
#[derive(Debug)]
pub struct HeadReplay<'a> {
    pub(crate) head: &'a Head,
    /// Numbers of series that were removed and came back under another number, to the number in use.
    renumbered: RwLock<HashMap<u32, u32>>,
    /// By shard: what is known from a snapshot.
    sequences: [u64; SHARDS],
    /// By shard: what had been logged up to this was in the snapshot, whatever became of it.
    known: [u64; SHARDS],
    /// By shard, chunks that could not be read back.
    missed: Vec<Mutex<MissedChunks>>,
    /// Whether there are any.
    is_missed: bool,
    covers: Vec<Cover>,
    stored: AtomicU64,
    skipped: AtomicU64,
    orphans: AtomicU64,
    invalid: AtomicU64,
    invalid_histograms: AtomicU64,
    exemplars: AtomicU64,
}

/// What a block has: of a tenant, samples in a range that were logged up to a number.
#[derive(Debug)]
struct Cover {
    /// Its number.
    tenant: u32,
    sequences: [u64; SHARDS],
    range: TimeRange,
}

/// What became of a log's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayOutcome {
    /// Samples in memory again.
    pub stored: u64,
    /// Samples that were there already or are too old by now.
    pub skipped: u64,
    /// Samples of series whose definition is lost.
    pub orphans: u64,
    /// Definitions that name no valid series.
    pub invalid_definitions: u64,
    /// Histograms that cannot be read: they were written by a program with an error, or their checksum fits by chance.
    pub invalid_histograms: u64,
    /// Exemplars in memory again.
    pub exemplars: u64,
}

impl<'a> HeadReplay<'a> {
    /// A replay into `head`.
    #[must_use]
    pub fn new(head: &'a Head) -> Self {
        Self {
            head,
            renumbered: RwLock::default(),
            sequences: [0; SHARDS],
            known: [u64::MAX; SHARDS],
            missed: (0..SHARDS).map(|_| Mutex::default()).collect(),
            is_missed: false,
            covers: Vec::new(),
            stored: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            orphans: AtomicU64::new(0),
            invalid: AtomicU64::new(0),
            invalid_histograms: AtomicU64::new(0),
            exemplars: AtomicU64::new(0),
        }
    }

    /// Passes over what the snapshot had.
    #[must_use]
    pub fn behind(mut self, loaded: &Loaded) -> Self {
        self.sequences = loaded.sequences;
        // Where that is not known, all of the log may be of before.
        self.known = loaded.known.map(|known| if known == 0 { u64::MAX } else { known });
        for (missed, of) in self.missed.iter_mut().zip(&loaded.missed) {
            self.is_missed |= !of.is_empty();
            missed.get_mut().clone_from(of);
        }
        self.renumbered.get_mut().extend(&loaded.renumbered);
        self
    }

    /// Passes over what a block has: samples of `tenant` in `range`, both ends included, that were logged up to
    /// `sequences`, by shard (see [`crate::Cut::sequences`]). To be told of those blocks that are there.
    ///
    /// # Errors
    /// When there are too many tenants.
    pub fn cover(&mut self, tenant: &TenantId, sequences: &[u64], range: TimeRange) -> Result<(), Error> {
        let tenant = self.head.tenants.get_or_create(tenant, || self.head.env.rng.next_u64())?.number;
        let mut by_shard = [0; SHARDS];
        for (of, sequence) in by_shard.iter_mut().zip(sequences) {
            *of = *sequence;
        }
        self.covers.push(Cover { tenant, sequences: by_shard, range });
        Ok(())
    }

    /// What chunk files did not give back, and the log has not given either; of that what was behind `boundary`. To be asked
    /// behind the replay, before its end.
    #[must_use]
    pub fn losses(&self, boundary: Timestamp) -> Vec<Loss> {
        let mut losses = BTreeMap::new();
        let behind = boundary.saturating_add(1).max(self.head.floor());
        for (shard, missed) in self.head.shards.iter().zip(&self.missed) {
            let missed = missed.lock();
            if missed.is_empty() {
                continue;
            }
            let state = shard.lock();
            let tenant = |reference| {
                let (series, _) = state.slab.get(Ref(reference).slot())?;
                Some(self.head.tenants.by_number(series.tenant())?.id.clone())
            };
            missed.losses(behind, tenant, &mut losses);
        }
        losses.into_values().collect()
    }

    /// What is to be told of samples found in a record of `shard` of this number, which are now of shard `of`.
    fn missed_in(&self, of: usize, (shard, sequence): (usize, u64)) -> Option<MutexGuard<'_, MissedChunks>> {
        if !self.is_missed || sequence > self.known[shard] {
            return None;
        }
        Some(self.missed[of].lock()).filter(|missed| !missed.is_empty())
    }

    /// Ends the replay: series without a sample go again.
    #[must_use]
    pub fn finish(self) -> ReplayOutcome {
        self.head.remove_empty_series();
        self.head.measure_tables();
        ReplayOutcome {
            stored: self.stored.into_inner(),
            skipped: self.skipped.into_inner(),
            orphans: self.orphans.into_inner(),
            invalid_definitions: self.invalid.into_inner(),
            invalid_histograms: self.invalid_histograms.into_inner(),
            exemplars: self.exemplars.into_inner(),
        }
    }

    /// The number in use of a series that was logged under this one.
    pub(crate) fn number_of(&self, logged: u32) -> u32 {
        self.renumbered.read().get(&logged).copied().unwrap_or(logged)
    }

    /// Applies logged starts of series of any shard; those of series that are gone say nothing any more.
    fn apply_starts(&self, logged: &[LoggedStart]) {
        for LoggedStart { series, since, start } in logged {
            let reference = Ref(self.number_of(*series));
            let shard = &self.head.shards[reference.shard()];
            let mut state = shard.lock();
            let ShardState { slab, starts, accounts, .. } = &mut *state;
            if let Some((series, _)) = slab.get_mut(reference.slot()) {
                starts.set(reference.slot(), StartTimestamp { since: *since, start: *start }, accounts);
                starts.set_used();
                series.set_started(starts.contains(reference.slot()));
                shard.publish(&state);
            } else {
                starts.set_used();
                // As with samples.
                slab.reserve_through(reference.slot().min(Ref::SLOT_MAX));
            }
        }
    }

    fn define(&self, definition: &SeriesDef<'_>) -> Option<()> {
        let wanted = Ref(definition.series);
        let tenant = TenantId::new(definition.tenant).ok()?;
        let tenant = self.head.tenants.get_or_create(&tenant, || self.head.env.rng.next_u64()).ok()?;
        // Most definitions come many times: compared without building a label set.
        let known =
            tenant.index.read().pairs_of(wanted.0).is_some_and(|pairs| pairs.eq(definition.labels.clone()));
        if known {
            return Some(());
        }
        let labels = Labels::from_sorted(definition.labels.clone())?;
        let (reference, _) = self.head.find_or_create(&tenant, &labels, Some(wanted)).ok()?;
        if reference != wanted {
            let mut state = self.head.shards[wanted.shard()].lock();
            state.slab.reserve_through(wanted.slot().min(Ref::SLOT_MAX));
            drop(state);
            self.renumbered.write().insert(wanted.0, reference.0);
        }
        Some(())
    }

    /// Applies samples of series of one shard.
    fn apply(&self, shard: usize, sequence: u64, samples: &[LoggedSample]) {
        let mut missed = self.missed_in(shard, (shard, sequence));
        let floor = self.head.floor();
        let mut times = TimeRange::new(Timestamp::MAX, Timestamp::MIN);
        let (mut stored, mut skipped, mut orphans) = (0, 0, 0);
        let covers: Vec<&Cover> =
            self.covers.iter().filter(|cover| sequence <= cover.sequences[shard]).collect();
        let shard = &self.head.shards[shard];
        let mut state = shard.lock();
        let ShardState { slab, late, histograms, accounts, .. } = &mut *state;
        let cut = late.cut().boundary();
        for block in samples.chunks(AHEAD) {
            let series = block.iter().filter_map(|sample| slab.get(Ref(sample.series).slot()));
            black_box(series.fold(0, |sum, (series, _)| sum ^ series.touch()));
            for sample in block {
                let slot = Ref(sample.series).slot();
                let Some((series, closed)) = slab.get_mut(slot) else {
                    // Its number must not be given to another series, or that one would inherit the sample.
                    slab.reserve_through(slot.min(Ref::SLOT_MAX));
                    // A cut has what was still on its way to the log as well: blocks have that, and the series is gone.
                    *(if sample.timestamp <= cut { &mut skipped } else { &mut orphans }) += 1;
                    continue;
                };
                let in_block = |cover: &&Cover| {
                    cover.tenant == series.tenant() && cover.range.contains(sample.timestamp)
                };
                if sample.timestamp < floor || covers.iter().any(in_block) {
                    skipped += 1;
                    continue;
                }
                let (t, bits) = (sample.timestamp, sample.value.to_bits());
                if series.is_mixed() || !series.offer(closed, t, bits, cut, accounts) {
                    let files = Files::Read;
                    let mut of = SeriesMut { slot, series, closed, late, histograms, accounts, files };
                    // A record may be in the log twice.
                    if of.float((t, bits), LateRule::Logged) != Verdict::Stored {
                        skipped += 1;
                        continue;
                    }
                }
                if let Some(missed) = &mut missed {
                    missed.found(sample.series, ChunkKind::Float, t);
                }
                stored += 1;
                times.min = times.min.min(t);
                times.max = times.max.max(t);
            }
        }
        shard.publish(&state);
        drop(state);
        if stored > 0 {
            self.head.saw_times(times);
        }
        self.stored.fetch_add(stored, Ordering::Relaxed);
        self.skipped.fetch_add(skipped, Ordering::Relaxed);
        self.orphans.fetch_add(orphans, Ordering::Relaxed);
    }
}

/// Applying histograms.
impl HeadReplay<'_> {
    /// Applies histograms of series of shard `of`, which were logged under `shard`.
    fn apply_histograms(&self, (shard, of): (usize, usize), sequence: u64, histograms: &[LoggedBlob<'_>]) {
        let floor = self.head.floor();
        let mut times = TimeRange::new(Timestamp::MAX, Timestamp::MIN);
        let covers: Vec<&Cover> =
            self.covers.iter().filter(|cover| sequence <= cover.sequences[shard]).collect();
        let (mut stored, mut skipped, mut orphans, mut invalid) = (0, 0, 0, 0);
        let mut missed = self.missed_in(of, (shard, sequence));
        let mut one = Vec::new();
        let shard = &self.head.shards[of];
        let mut state = shard.lock();
        let cut = state.late.cut().boundary();
        for logged in histograms {
            let (slot, t) = (Ref(logged.series).slot(), logged.timestamp);
            let Some(mut series) = state.series_mut(slot) else {
                state.slab.reserve_through(slot.min(Ref::SLOT_MAX));
                // As with floats.
                *(if t <= cut { &mut skipped } else { &mut orphans }) += 1;
                continue;
            };
            let tenant = series.series.tenant();
            let in_block = |cover: &&Cover| cover.tenant == tenant && cover.range.contains(t);
            if t < floor || covers.iter().any(in_block) {
                skipped += 1;
                continue;
            }
            let Some((_, histogram)) = decode_one(logged.bytes).filter(|(at, _)| *at == t) else {
                invalid += 1;
                continue;
            };
            if series.histogram(t, &histogram, LateRule::Logged, &mut one) == Verdict::Stored {
                if let Some(missed) = &mut missed {
                    missed.found(logged.series, ChunkKind::Histogram, t);
                }
                stored += 1;
                times.min = times.min.min(t);
                times.max = times.max.max(t);
            } else {
                skipped += 1;
            }
        }
        shard.publish(&state);
        drop(state);
        if stored > 0 {
            self.head.saw_times(times);
        }
        self.stored.fetch_add(stored, Ordering::Relaxed);
        self.skipped.fetch_add(skipped, Ordering::Relaxed);
        self.orphans.fetch_add(orphans, Ordering::Relaxed);
        self.invalid_histograms.fetch_add(invalid, Ordering::Relaxed);
    }
}

impl Replay for HeadReplay<'_> {
    fn series(&self, _shard: usize, definition: &SeriesDef<'_>) {
        if self.define(definition).is_none() {
            self.invalid.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn floor(&self, tenant: Option<&str>, min_t: Timestamp) {
        // This head drops by age only, for all tenants alike.
        if tenant.is_none() {
            self.head.raise_memory_floor(min_t);
        }
    }

    fn covered(&self, shard: usize) -> u64 {
        self.sequences.get(shard).copied().unwrap_or(0)
    }

    fn histograms(&self, shard: usize, sequence: u64, histograms: &[LoggedBlob<'_>]) {
        let renumbered = self.renumbered.read();
        let mut by_shard: Vec<Vec<LoggedBlob<'_>>> = vec![Vec::new(); SHARDS];
        for histogram in histograms {
            let series = renumbered.get(&histogram.series).copied().unwrap_or(histogram.series);
            by_shard[Ref(series).shard()].push(LoggedBlob { series, ..*histogram });
        }
        drop(renumbered);
        // By the number of its record the sequence is known for the shard under which it was logged.
        for (of, histograms) in by_shard.iter().enumerate().filter(|(_, histograms)| !histograms.is_empty()) {
            self.apply_histograms((shard, of), sequence, histograms);
        }
        self.head.enforce_memory();
    }

    fn starts(&self, _shard: usize, _sequence: u64, starts: &[LoggedStart]) {
        self.apply_starts(starts);
        self.head.enforce_memory();
    }

    fn exemplars(&self, _shard: usize, _sequence: u64, exemplars: &[LoggedBlob<'_>]) {
        self.exemplars.fetch_add(self.apply_exemplars(exemplars), Ordering::Relaxed);
    }

    fn samples(&self, shard: usize, sequence: u64, samples: &[LoggedSample]) {
        let renumbered = self.renumbered.read();
        if renumbered.is_empty() && samples.iter().all(|sample| Ref(sample.series).shard() == shard) {
            drop(renumbered);
            self.apply(shard, sequence, samples);
        } else {
            let mut by_shard: Vec<Vec<LoggedSample>> = vec![Vec::new(); SHARDS];
            for sample in samples {
                let series = renumbered.get(&sample.series).copied().unwrap_or(sample.series);
                by_shard[Ref(series).shard()].push(LoggedSample { series, ..*sample });
            }
            drop(renumbered);
            for (shard, samples) in by_shard.iter().enumerate().filter(|(_, samples)| !samples.is_empty()) {
                self.apply(shard, sequence, samples);
            }
        }
        // The same budget as for appends: the oldest gives way.
        self.head.enforce_memory();
    }
}
