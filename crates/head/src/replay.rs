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
    head::Head,
    options::SHARDS,
    series::Verdict,
    shard::{Ref, ShardState},
};

/// Series whose memory is fetched ahead of their samples.
const AHEAD: usize = 32;

/// Receives a log's content for a head that has no log attached yet.
#[derive(Debug)]
pub struct HeadReplay<'a> {
    head: &'a Head,
    /// Numbers of series that were removed and came back under another number, to the number in use.
    renumbered: RwLock<HashMap<u32, u32>>,
    stored: AtomicU64,
    skipped: AtomicU64,
    orphans: AtomicU64,
    invalid: AtomicU64,
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
            stored: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            orphans: AtomicU64::new(0),
            invalid: AtomicU64::new(0),
        }
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
    fn apply(&self, shard: usize, samples: &[LoggedSample]) {
        let floor = self.head.floor();
        let mut times = TimeRange::new(Timestamp::MAX, Timestamp::MIN);
        let (mut stored, mut skipped, mut orphans) = (0, 0, 0);
        let shard = &self.head.shards[shard];
        let mut state = shard.lock();
        let ShardState { slab, accounts, .. } = &mut *state;
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
                if sample.timestamp < floor {
                    skipped += 1;
                    continue;
                }
                match series.offer(closed, sample.timestamp, sample.value.to_bits(), accounts) {
                    Verdict::Stored => {
                        stored += 1;
                        times.min = times.min.min(sample.timestamp);
                        times.max = times.max.max(sample.timestamp);
                    }
                    // A record may be in the log twice.
                    Verdict::Duplicate | Verdict::Conflict(_) | Verdict::OutOfOrder => skipped += 1,
                }
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

    fn samples(&self, shard: usize, samples: &[LoggedSample]) {
        let renumbered = self.renumbered.read();
        if renumbered.is_empty() && samples.iter().all(|sample| Ref(sample.series).shard() == shard) {
            drop(renumbered);
            self.apply(shard, samples);
        } else {
            let mut by_shard: Vec<Vec<LoggedSample>> = vec![Vec::new(); SHARDS];
            for sample in samples {
                let series = renumbered.get(&sample.series).copied().unwrap_or(sample.series);
                by_shard[Ref(series).shard()].push(LoggedSample { series, ..*sample });
            }
            drop(renumbered);
            for (shard, samples) in by_shard.iter().enumerate().filter(|(_, samples)| !samples.is_empty()) {
                self.apply(shard, samples);
            }
        }
        // The same budget as for appends: the oldest gives way.
        self.head.enforce_memory();
    }
}
