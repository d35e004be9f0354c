//! Appending a batch: resolve all series, then apply and log shard by shard.

mod one;

use std::{hint::black_box, sync::atomic::Ordering};

use chronolith_model::{Labels, Sample, TenantId, TimeRange, Timestamp};
use chronolith_storage::{
    AppendOutcome, LabelFault, RejectReason, Rejection, SampleAt, WriteBatch, append::check_label_limits,
};
use chronolith_wal::{Batch, ShardLog};
use roaring::RoaringBitmap;

use self::one::{Deferred, Place};
use crate::{
    error::Error,
    head::{Head, Identity},
    offer::{LateRule, SeriesMut, Verdict},
    options::SHARDS,
    read_back::{Files, ReadBack},
    series::Series,
    shard::{Ref, ShardState},
    starts::StartStore,
    stats::Counters,
    tenant::Tenant,
};

/// Series whose memory is fetched ahead of their appends.
const AHEAD: usize = 32;

/// An applied batch.
#[derive(Debug)]
pub struct Applied {
    /// What became of the samples.
    pub outcome: AppendOutcome,
    /// The log's batch that covers all that was stored or found to be there.
    pub batch: Batch,
}

/// Where an entry of a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Unknown,
    /// Nothing is stored of it.
    Refused,
    Series(Ref),
}

/// The times a sample may have.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    floor: Timestamp,
    max: Timestamp,
    late: LateRule,
}

impl Bounds {
    #[inline]
    fn check(self, t: Timestamp) -> Result<(), RejectReason> {
        if t > self.max {
            return Err(RejectReason::TooFarInFuture);
        }
        if t < self.floor {
            return Err(RejectReason::OutOfBounds);
        }
        Ok(())
    }
}

/// A refusal whose labels are not looked up yet.
struct Refusal {
    reason: RejectReason,
    entry: usize,
    series: Option<Ref>,
    sample: Option<SampleAt>,
}

/// One call of [`Head::append`].
struct Append<'a> {
    head: &'a Head,
    tenant: &'a Tenant,
    batch: &'a WriteBatch<'a>,
    bounds: Bounds,
    targets: Vec<Target>,
    refusals: Vec<Refusal>,
    outcome: AppendOutcome,
    covered: Batch,
    times: TimeRange,
    created: bool,
    /// A histogram as it is logged; kept for its room.
    one: Vec<u8>,
    /// Of the shard being looked at: to be applied once it is not locked.
    deferred: Vec<Deferred>,
}

impl Head {
    /// Applies `batch` for `tenant` and queues it for the log. See `storage::append` for the contract.
    ///
    /// # Errors
    /// When nothing is taken at the moment; nothing has been applied then.
    pub fn append(&self, tenant: &TenantId, batch: &WriteBatch<'_>) -> Result<Applied, Error> {
        self.admit()?;
        // No series goes from here on: entries of one series could get to different incarnations of it, out of order.
        let removed = self.removed.read();
        let tenant = self.tenants.get_or_create(tenant, || self.env.rng.next_u64())?;
        let now = self.env.clock.now_ms();
        let max = now.saturating_add(self.options.future_ms_max);
        let late = LateRule::Window { ms: self.options.ooo_window_ms };
        let mut append = Append {
            head: self,
            tenant: &tenant,
            batch,
            bounds: Bounds { floor: self.floor(), max, late },
            targets: vec![Target::Unknown; batch.series.len()],
            refusals: Vec::new(),
            outcome: AppendOutcome::default(),
            covered: Batch::default(),
            times: TimeRange::new(Timestamp::MAX, Timestamp::MIN),
            created: false,
            one: Vec::new(),
            deferred: Vec::new(),
        };
        append.resolve(&removed);
        append.find_or_create();
        append.apply();
        Ok(append.finish())
    }
}

impl Append<'_> {
    /// Looks up all keys at once: neighbouring lookups overlap in memory.
    fn resolve(&mut self, removed: &RoaringBitmap) {
        let lookup = self.head.aliases.lookup();
        for (entry, target) in self.batch.series.iter().zip(&mut self.targets) {
            if let Some(reference) = lookup.get(self.tenant.salted(entry.key))
                && (removed.is_empty() || !removed.contains(reference))
            {
                *target = Target::Series(Ref(reference));
            }
        }
    }

    /// Finds the series of unknown keys by their labels.
    fn find_or_create(&mut self) {
        for entry in 0..self.targets.len() {
            if self.targets[entry] != Target::Unknown {
                continue;
            }
            self.targets[entry] = match self.find_or_create_one(entry) {
                Ok(None) => Target::Refused,
                Ok(Some(reference)) => {
                    let key = self.tenant.salted(self.batch.series[entry].key);
                    self.head.aliases.insert(key, reference.0, self.head.counters.series());
                    Target::Series(reference)
                }
                Err(reason) => {
                    self.refuse(reason, entry, None, self.batch.series[entry].len() as u64);
                    Target::Refused
                }
            };
        }
    }

    /// `None` for an entry without samples.
    fn find_or_create_one(&mut self, entry: usize) -> Result<Option<Ref>, RejectReason> {
        // A series is made only for a sample that may be stored.
        let bounds = self.bounds;
        let of = &self.batch.series[entry];
        let floats = self.batch.samples_of(of).iter().map(|sample| sample.timestamp);
        let histograms = self.batch.histograms_of(of).iter().map(|sample| sample.timestamp);
        let mut checks = floats.chain(histograms).map(|t| bounds.check(t));
        let labels = self.batch.labels.labels(entry)?;
        check_label_limits(&labels)?;
        match checks.next() {
            Some(Err(reason)) if checks.all(|check| check.is_err()) => {
                if let Some(reference) = self.head.find(self.tenant, &labels) {
                    return Ok(Some(reference));
                }
                return Err(reason);
            }
            Some(_) => {}
            None => return Ok(None),
        }
        let (reference, created) = self.head.find_or_create(self.tenant, &labels, None)?;
        self.created |= created;
        Ok(Some(reference))
    }

    /// Applies all entries, shard by shard, in the order of the batch.
    fn apply(&mut self) {
        let mut starts = [0; SHARDS + 1];
        for target in &self.targets {
            if let Target::Series(reference) = target {
                starts[reference.shard() + 1] += 1;
            }
        }
        for shard in 0..SHARDS {
            starts[shard + 1] += starts[shard];
        }
        let mut next = starts;
        let mut order = vec![0; starts[SHARDS]];
        for (entry, target) in self.targets.iter().enumerate() {
            if let Target::Series(reference) = target {
                let at = &mut next[reference.shard()];
                order[*at] = u32::try_from(entry).expect("a batch has fewer entries");
                *at += 1;
            }
        }
        for (shard, ends) in starts.windows(2).enumerate() {
            let entries = &order[ends[0]..ends[1]];
            if entries.is_empty() {
                continue;
            }
            let shard = &self.head.shards[shard];
            let mut state = shard.lock();
            for block in entries.chunks(AHEAD) {
                self.apply_block(&mut state, block);
            }
            self.covered = self.covered.max(state.log.ticket());
            shard.publish(&state);
            drop(state);
            if !self.deferred.is_empty() {
                self.apply_deferred(shard);
            }
        }
    }

    fn apply_block(&mut self, state: &mut ShardState, block: &[u32]) {
        let mut touched = 0;
        for entry in block {
            if let Target::Series(reference) = self.targets[*entry as usize]
                && let Some((series, _)) = state.slab.get(reference.slot())
            {
                touched ^= series.touch();
            }
        }
        black_box(touched);
        let Bounds { floor, max, .. } = self.bounds;
        let (mut stored, mut times) = (0, self.times);
        let nothing = ReadBack::default();
        for entry in block {
            let entry = *entry as usize;
            let Target::Series(reference) = self.targets[entry] else { continue };
            let of_entry = &self.batch.series[entry];
            let slot = reference.slot();
            let ShardState { slab, late, histograms, starts, accounts, log } = &mut *state;
            let (series, closed) = slab.get_mut(slot).expect("no series goes during an append");
            if !series.is_plain() || of_entry.start_timestamp != 0 || !of_entry.histograms.is_empty() {
                self.entry(state, entry, reference);
                continue;
            }
            let cut = late.cut().boundary();
            for sample in self.batch.samples_of(of_entry) {
                let (t, bits) = (sample.timestamp, sample.value.to_bits());
                if t > max || t < floor || !series.offer(closed, t, bits, cut, accounts) {
                    let files = Files::Known(&nothing);
                    let of = SeriesMut { slot, series, closed, late, histograms, accounts, files };
                    self.float(Place { of, starts, log, entry, reference }, *sample);
                    continue;
                }
                stored += 1;
                times.min = times.min.min(t);
                times.max = times.max.max(t);
                if series.defined != log.epoch() {
                    define(self.tenant, (series, reference), (starts, cut), log);
                }
                log.sample(reference.0, t, sample.value);
            }
        }
        self.outcome.stored += stored;
        self.times.min = self.times.min.min(times.min);
        self.times.max = self.times.max.max(times.max);
    }

    #[cold]
    fn not_stored(&mut self, verdict: Verdict, sample: Sample, entry: usize, reference: Ref) {
        let Sample { timestamp, value: new } = sample;
        let reason = match verdict {
            Verdict::Stored | Verdict::Unread => return,
            Verdict::Duplicate => {
                self.outcome.duplicates += 1;
                return;
            }
            Verdict::OutOfOrder => RejectReason::OutOfOrder,
            Verdict::TooOld => RejectReason::TooOld,
            Verdict::Conflict(existing) => {
                RejectReason::DuplicateTimestamp { timestamp, existing: f64::from_bits(existing), new }
            }
            // A stale marker that has become a histogram is refused as one.
            Verdict::ConflictingHistogram | Verdict::StaleHistogram => {
                RejectReason::DuplicateOfHistogram { timestamp, new }
            }
        };
        self.refuse(reason, entry, Some((reference, SampleAt::float(timestamp))), 1);
    }

    /// Notes that a sample, or all `samples` samples of an entry, were refused.
    fn refuse(&mut self, reason: RejectReason, entry: usize, sample: Option<(Ref, SampleAt)>, samples: u64) {
        self.head.counters.rejected(&reason, samples);
        self.outcome.rejected += samples;
        if self.refusals.len() < AppendOutcome::REJECTIONS_MAX {
            // All of an entry is refused for its times only together, and then the first is as good as any.
            let first = || {
                let of = &self.batch.series[entry];
                let float = self.batch.samples_of(of).first().map(|sample| SampleAt::float(sample.timestamp));
                let histogram = self.batch.histograms_of(of).first();
                float.or(histogram.map(|sample| SampleAt::histogram(sample.timestamp)))
            };
            let by_time = matches!(reason, RejectReason::OutOfBounds | RejectReason::TooFarInFuture);
            let series = sample.map(|(series, _)| series);
            let sample = sample.map(|(_, sample)| sample).or_else(|| by_time.then(first).flatten());
            self.refusals.push(Refusal { reason, entry, series, sample });
        }
    }

    fn finish(mut self) -> Applied {
        if self.outcome.stored > 0 {
            self.head.saw_times(self.times);
        }
        Counters::add(&self.head.counters.duplicates, self.outcome.duplicates);
        if self.created {
            self.head.measure_tables();
        }
        let mut refusals = std::mem::take(&mut self.refusals);
        refusals.sort_by_key(|refusal| refusal.entry);
        let mut outcome = self.outcome;
        for Refusal { reason, entry, series, sample } in refusals {
            let labels = match series {
                Some(reference) => self.tenant.index.read().labels(reference.0),
                None => self.batch.labels.labels(entry).ok(),
            };
            // Counted above.
            outcome.keep(Rejection { reason, series: entry, labels, sample });
        }
        Applied { outcome, batch: self.covered }
    }
}

/// Logs what the series is and since when it counts now, for the segment its next sample will be in.
#[cold]
pub(crate) fn define(
    tenant: &Tenant,
    (series, reference): (&mut Series, Ref),
    (starts, cut): (&StartStore, Timestamp),
    log: &mut ShardLog,
) {
    // The shard is locked: not behind somebody who waits to change the index, who may wait for a long question.
    let index = tenant.index.read_recursive();
    let pairs = index.pairs_of(reference.0).expect("a series in a shard is in its tenant's index");
    log.define(reference.0, tenant.id.as_str(), pairs);
    starts.log_newest(reference, cut, log);
    series.defined = log.epoch();
}

impl Head {
    /// The series with `labels`.
    pub(crate) fn find(&self, tenant: &Tenant, labels: &Labels) -> Option<Ref> {
        let hash = tenant.stable_hash(labels);
        let identities = self.identities[hash as usize % SHARDS].lock();
        let half = (hash >> 32) as u32;
        let index = tenant.index.read();
        identities
            .0
            .find(Identity::spread(half), |known| {
                known.hash == half && index.has_labels(known.reference, labels)
            })
            .map(|known| Ref(known.reference))
    }

    /// The series with `labels`, made if need be, with the number `wanted` or the next one; and whether it was made.
    pub(crate) fn find_or_create(
        &self,
        tenant: &Tenant,
        labels: &Labels,
        wanted: Option<Ref>,
    ) -> Result<(Ref, bool), RejectReason> {
        let hash = tenant.stable_hash(labels);
        let home = hash as usize % SHARDS;
        let half = (hash >> 32) as u32;
        let mut identities = self.identities[home].lock();
        let known = {
            let index = tenant.index.read();
            identities.0.find(Identity::spread(half), |known| {
                known.hash == half && index.has_labels(known.reference, labels)
            })
        };
        if let Some(known) = known {
            return Ok((Ref(known.reference), false));
        }
        let limit = self.options.series_max as u64;
        if tenant.series() as u64 >= limit && wanted.is_none() {
            return Err(RejectReason::SeriesLimit { limit });
        }
        let reference = {
            let shard = &self.shards[wanted.map_or(home, Ref::shard)];
            let mut state = shard.lock();
            let slot = wanted.map_or(state.slab.next(), Ref::slot);
            if slot > Ref::SLOT_MAX {
                return Err(RejectReason::SeriesLimit { limit: u64::from(Ref::SLOT_MAX) * SHARDS as u64 });
            }
            if !state.slab.insert(slot, tenant.number) {
                let taken = "series number is taken by another series".to_owned();
                return Err(RejectReason::InvalidLabels { fault: LabelFault::Internal, text: taken });
            }
            shard.publish(&state);
            Ref::new(wanted.map_or(home, Ref::shard), slot)
        };
        tenant.change_index(|index| index.insert(reference.0, labels));
        let identity = Identity { hash: half, reference: reference.0 };
        identities.0.insert_unique(Identity::spread(half), identity, |known| Identity::spread(known.hash));
        self.counters.series_created.fetch_add(1, Ordering::Relaxed);
        Ok((reference, true))
    }
}
