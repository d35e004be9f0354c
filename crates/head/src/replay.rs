//! Replay: the log's content back into the head.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
};

use chronolith_model::{Labels, TenantId, TimeRange, Timestamp};
use chronolith_wal::{LoggedSample, Replay, SeriesDef};
use parking_lot::RwLock;

use crate::{
    error::Error,
    head::Head,
    late::{LateRule, Verdict},
    options::SHARDS,
    shard::{Ref, ShardState},
    snapshot::Loaded,
};

/// Series whose memory is fetched ahead of their samples.
const AHEAD: usize = 32;

/// Receives a log's content for a head that has no log attached yet.
#[derive(Debug)]
pub struct HeadReplay<'a> {
    head: &'a Head,
    /// Numbers of series that were removed and came back under another number, to the number in use.
    renumbered: RwLock<HashMap<u32, u32>>,
    /// By shard: what is known from a snapshot.
    sequences: [u64; SHARDS],
    covers: Vec<Cover>,
    stored: AtomicU64,
    skipped: AtomicU64,
    orphans: AtomicU64,
    invalid: AtomicU64,
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
}

impl<'a> HeadReplay<'a> {
    /// A replay into `head`.
    #[must_use]
    pub fn new(head: &'a Head) -> Self {
        Self {
            head,
            renumbered: RwLock::default(),
            sequences: [0; SHARDS],
            covers: Vec::new(),
            stored: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            orphans: AtomicU64::new(0),
            invalid: AtomicU64::new(0),
        }
    }

    /// Passes over what the snapshot had.
    #[must_use]
    pub fn behind(mut self, loaded: &Loaded) -> Self {
        self.sequences = loaded.sequences;
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
        let floor = self.head.floor();
        let mut times = TimeRange::new(Timestamp::MAX, Timestamp::MIN);
        let (mut stored, mut skipped, mut orphans) = (0, 0, 0);
        let covers: Vec<&Cover> =
            self.covers.iter().filter(|cover| sequence <= cover.sequences[shard]).collect();
        let shard = &self.head.shards[shard];
        let mut state = shard.lock();
        let ShardState { slab, late, accounts, .. } = &mut *state;
        let cut = late.cut().boundary();
        for block in samples.chunks(AHEAD) {
            let series = block.iter().filter_map(|sample| slab.get(Ref(sample.series).slot()));
            black_box(series.fold(0, |sum, (series, _)| sum ^ series.touch()));
            for sample in block {
                let slot = Ref(sample.series).slot();
                let Some((series, closed)) = slab.get_mut(slot) else {
                    // Its number must not be given to another series, or that one would inherit the sample.
                    slab.reserve_through(slot.min(Ref::SLOT_MAX));
                    orphans += 1;
                    continue;
                };
                let in_block =
                    |cover: &&Cover| cover.tenant == series.tenant && cover.range.contains(sample.timestamp);
                if sample.timestamp < floor || covers.iter().any(in_block) {
                    skipped += 1;
                    continue;
                }
                let (t, bits) = (sample.timestamp, sample.value.to_bits());
                let in_order = series.offer(closed, t, bits, cut, accounts);
                // A record may be in the log twice.
                if !in_order
                    && late.offer((slot, series, closed), (t, bits), LateRule::Logged, accounts)
                        != Verdict::Late
                {
                    skipped += 1;
                    continue;
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
