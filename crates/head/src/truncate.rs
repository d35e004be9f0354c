//! Dropping what is too old, or too much.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use chronolith_model::Timestamp;

use crate::{
    head::{Head, Identity},
    options::SHARDS,
    shard::{Ref, ShardState},
    slab::Slab,
    stats::Counters,
};

/// Above this share of the memory limit, in percent, old samples are dropped ...
const MEMORY_HIGH_PERCENT: usize = 95;
/// ... until no more than this is taken.
const MEMORY_LOW_PERCENT: usize = 90;
/// The floor moves by multiples of this when memory is short, in milliseconds.
const FLOOR_STEP_MS: i64 = 60_000;
/// The open chunk of a series without a sample for so long is cut to its size.
const QUIET_MS: i64 = 3_600_000;

/// Samples younger than this do not give way when memory is short: writes are refused then. Refused writes are repeated;
/// a floor close to the clock would have senders that are a little late lose their samples for good.
const YOUNG_MS: i64 = 600_000;
/// The time that retention goes by follows the clock by steps of at most this: a clock that is ahead for a moment, or was
/// set wrong, does not empty the head.
const CLOCK_STEP_MS: i64 = 3_600_000;
/// After an attempt that has freed too little, the next one waits until so much of the memory limit, in percent, has been
/// taken anew: each one looks at every chunk.
const FUTILE_PERCENT: usize = 1;

/// Series that are removed while appends wait.
const REMOVED_AT_ONCE: usize = 256;

/// What a truncation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truncation {
    /// Samples older than this are gone, milliseconds.
    pub floor: Timestamp,
    /// The floor was raised beyond retention, because of the memory limit: it is to be logged.
    pub by_memory: bool,
    /// Series that had nothing left and were removed.
    pub series_removed: usize,
}

/// What goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    /// Everything before this.
    pub(crate) floor: Timestamp,
    /// Everything in order at or before this, and late samples that the cut has frozen.
    pub(crate) cut: Option<Timestamp>,
    /// Series without a sample since then give back the room in their open chunk.
    pub(crate) quiet: Option<Timestamp>,
}

impl Head {
    /// Drops chunks older than retention, then more if the memory limit is near, then series that have nothing left.
    pub fn truncate(&self) -> Truncation {
        let _one_at_a_time = self.sweeping.lock();
        let now = self.follow_clock();
        self.raise_floor(now.saturating_sub(self.options.retention_ms));
        let mut series_removed = self.sweep_old(now);
        self.exemplars.truncate(self.floor());
        // Time has passed: more may be old enough to go.
        self.futile_below.store(0, Ordering::Release);
        let by_memory = self.enforce_memory();
        if by_memory {
            series_removed += self.sweep_old(now);
        }
        Truncation { floor: self.floor(), by_memory, series_removed }
    }

    /// The time that retention goes by.
    fn follow_clock(&self) -> Timestamp {
        let limit = self.retention_now.load(Ordering::Acquire).saturating_add(CLOCK_STEP_MS);
        let now = self.env.clock.now_ms().min(limit);
        self.retention_now.store(now, Ordering::Release);
        now
    }

    /// Whether memory is short enough for [`Head::truncate`] to drop more than retention asks for.
    #[must_use]
    pub fn memory_short(&self) -> bool {
        self.bytes() > self.options.memory_bytes_max / 100 * MEMORY_HIGH_PERCENT
    }

    /// Drops the oldest closed chunks if memory is short; says whether it did.
    pub(crate) fn enforce_memory(&self) -> bool {
        if !self.options.drops_when_short || !self.memory_short() {
            return false;
        }
        let _one_at_a_time = self.truncating.lock();
        let bytes = self.bytes();
        if !self.memory_short() || bytes < self.futile_below.load(Ordering::Acquire) {
            return false;
        }
        let target = self.options.memory_bytes_max / 100 * MEMORY_LOW_PERCENT;
        let freed = self.free(bytes.saturating_sub(target));
        let futile_below = if self.memory_short() {
            self.bytes() + self.options.memory_bytes_max / 100 * FUTILE_PERCENT
        } else {
            0
        };
        self.futile_below.store(futile_below, Ordering::Release);
        freed
    }

    /// Raises the floor so that about `excess` bytes are freed; false if there is nothing to free.
    fn free(&self, excess: usize) -> bool {
        let Some(floor) = self.floor_that_frees(excess) else { return false };
        let floor = floor.min(self.env.clock.now_ms().saturating_sub(YOUNG_MS));
        if floor <= self.floor() {
            return false;
        }
        self.raise_memory_floor(floor);
        Counters::add(&self.counters.memory_truncations, 1);
        for number in 0..self.shards.len() {
            self.drop_chunks(number, &Sweep { floor, cut: None, quiet: None });
        }
        true
    }

    /// The lowest floor under which closed chunks of `excess` bytes lie; as many as there are if they are too few.
    fn floor_that_frees(&self, excess: usize) -> Option<Timestamp> {
        let mut by_age: BTreeMap<i64, usize> = BTreeMap::new();
        let step = |max: Timestamp| max.div_euclid(FLOOR_STEP_MS) + 1;
        for shard in &self.shards {
            let pages = shard.lock().slab.pages();
            for page in 0..pages {
                shard.lock().slab.for_each(page, |_, _, closed| {
                    for chunk in closed {
                        *by_age.entry(step(chunk.max())).or_default() += chunk.memory();
                    }
                });
            }
            let state = shard.lock();
            let mut note = |max, bytes| *by_age.entry(step(max)).or_default() += bytes;
            state.late.for_each_piece(&mut note);
            state.histograms.late.for_each_piece(&mut note);
            state.histograms.for_each(0..u32::MAX, |_, lane| {
                lane.closed().iter().for_each(|chunk| note(chunk.max(), chunk.memory()));
            });
        }
        let mut freed = 0;
        let mut last = None;
        for (step, bytes) in by_age {
            freed += bytes;
            last = step.checked_mul(FLOOR_STEP_MS);
            if freed >= excess {
                break;
            }
        }
        last
    }

    /// Drops all chunks below the floor and the series that are left without one.
    fn sweep_old(&self, now: Timestamp) -> usize {
        self.sweep(&Sweep { floor: self.floor(), cut: None, quiet: Some(now.saturating_sub(QUIET_MS)) })
    }

    /// Drops what `sweep` says, and the series that are left without a sample; says how many.
    pub(crate) fn sweep(&self, sweep: &Sweep) -> usize {
        let empty: Vec<Ref> =
            (0..self.shards.len()).flat_map(|number| self.drop_chunks(number, sweep)).collect();
        self.remove_series(&empty)
    }

    /// Drops the chunks of a shard, page by page so that nobody waits long; returns the series that have no sample left.
    pub(crate) fn drop_chunks(&self, number: usize, sweep: &Sweep) -> Vec<Ref> {
        let mut empty = Vec::new();
        let shard = &self.shards[number];
        let pages = shard.lock().slab.pages();
        for page in 0..pages {
            let mut state = shard.lock();
            let ShardState { slab, late, histograms, starts, accounts, .. } = &mut *state;
            let slots = Slab::slots_of(page);
            if let Some(cut) = sweep.cut {
                accounts.cut += late.drop_frozen(slots.clone(), accounts);
                accounts.cut += histograms.late.drop_frozen(slots.clone(), accounts);
                accounts.cut += histograms.truncate(slots.clone(), cut.saturating_add(1), accounts);
            }
            accounts.dropped += late.truncate(slots.clone(), sweep.floor, accounts);
            accounts.dropped += histograms.late.truncate(slots.clone(), sweep.floor, accounts);
            accounts.dropped += histograms.truncate(slots.clone(), sweep.floor, accounts);
            if let Some(quiet) = sweep.quiet {
                histograms.shrink(slots.clone(), quiet, accounts);
            }
            // Late samples that are left are older than the cut.
            let behind = sweep.cut.map_or(sweep.floor, |cut| sweep.floor.max(cut.saturating_add(1)));
            starts.truncate(slots.clone(), sweep.floor, accounts, |_| true);
            let no_late = |slot| !late.contains(slot) && !histograms.late.contains(slot);
            starts.truncate(slots, behind, accounts, no_late);
            slab.for_each_mut(page, |slot, series, closed| {
                accounts.dropped += series.truncate(closed, sweep.floor, accounts);
                if let Some(cut) = sweep.cut {
                    accounts.cut += series.truncate(closed, cut.saturating_add(1), accounts);
                }
                if series.is_started() {
                    series.set_started(starts.contains(slot));
                }
                if series.is_mixed() {
                    series.set_mixed(histograms.contains(slot));
                }
                match (series.last(), sweep.quiet) {
                    (None, _) if late.contains(slot) || series.is_mixed() => {}
                    (None, _) => empty.push(Ref::new(number, slot)),
                    (Some(last), Some(quiet)) if last < quiet => series.shrink(accounts),
                    _ => {}
                }
            });
            shard.publish(&state);
        }
        empty
    }

    /// Removes all series that have no sample.
    pub(crate) fn remove_empty_series(&self) {
        self.sweep_old(self.env.clock.now_ms());
    }

    /// Removes those of `candidates` that still have no sample.
    fn remove_series(&self, candidates: &[Ref]) -> usize {
        for some in candidates.chunks(REMOVED_AT_ONCE) {
            let mut removed = self.removed.write();
            let gone = some.iter().filter(|reference| self.remove_one(**reference));
            removed.extend(gone.map(|reference| reference.0));
        }
        let removed = self.removed.read().clone();
        if removed.is_empty() {
            return 0;
        }
        self.aliases.remove(|reference| removed.contains(reference));
        *self.removed.write() -= &removed;
        // Free the pages that became empty.
        for shard in &self.shards {
            let mut state = shard.lock();
            for page in 0..state.slab.pages() {
                state.slab.release_if_empty(page);
            }
            shard.publish(&state);
        }
        self.measure_tables();
        Counters::add(&self.counters.series_removed, removed.len());
        removed.len() as usize
    }

    fn remove_one(&self, reference: Ref) -> bool {
        let shard = &self.shards[reference.shard()];
        let Some(number) = shard.lock().slab.get(reference.slot()).map(|(series, _)| series.tenant()) else {
            return false;
        };
        let Some(tenant) = self.tenants.by_number(number) else { return false };
        let Some(labels) = tenant.index.read().labels(reference.0) else { return false };
        let hash = tenant.stable_hash(&labels);
        let half = (hash >> 32) as u32;
        // Whoever creates a series of these labels waits here, and whoever has found it before finds it gone below.
        let mut identities = self.identities[hash as usize % SHARDS].lock();
        let mut state = shard.lock();
        let ShardState { slab, late, starts, accounts, .. } = &mut *state;
        if late.contains(reference.slot()) || !slab.vacate_if_empty(reference.slot(), accounts) {
            return false;
        }
        starts.forget(reference.slot(), accounts);
        shard.publish(&state);
        tenant.change_index(|index| index.remove(reference.0));
        if let Ok(entry) =
            identities.0.find_entry(Identity::spread(half), |known| known.reference == reference.0)
        {
            entry.remove();
        }
        true
    }
}
