//! Exemplars: a bounded store per tenant, all of them within one budget.
//!
//! An exemplar is logged under its series, under the lock of the series' shard, so that of one series they are replayed in
//! the order in which they were taken. Nobody waits for them to be durable.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use chronolith_codec::{Reader, write};
use chronolith_model::{Exemplar, Labels, TenantId, TimeRange, Timestamp, exemplar::LABEL_CHARS_MAX};
use chronolith_storage::{
    ExemplarBatch, ExemplarError, ExemplarOutcome, ExemplarQuery, ExemplarStore, SeriesExemplars,
};
use chronolith_wal::LoggedBlob;
use parking_lot::Mutex;

use crate::{
    append::define,
    cut::Cut,
    head::Head,
    read::HeadView,
    replay::HeadReplay,
    shard::{Ref, ShardState},
    tenant::Tenant,
};

/// Longest name or value of an exemplar's label, in bytes.
const TEXT_BYTES_MAX: usize = LABEL_CHARS_MAX * 4;

/// Exemplars take this share of the head's memory at most, in percent, whatever the options say.
const MEMORY_PERCENT_MAX: usize = 10;

/// When there are too many, so many (a fraction) go at once: who has most is not looked for each time.
const SPARE: usize = 64;

/// The exemplars of all tenants.
#[derive(Debug)]
pub(crate) struct Exemplars {
    stores: Mutex<Stores>,
    /// Copies of what the lock guards, for those who only want to know.
    count: AtomicUsize,
    bytes: AtomicUsize,
    count_max: usize,
    bytes_max: usize,
}

/// By number of the tenant.
#[derive(Debug, Default)]
struct Stores {
    by_tenant: BTreeMap<u32, ExemplarStore>,
    count: usize,
    bytes: usize,
}

/// What is kept of a tenant, in the order of arrival.
pub(crate) type Kept = Vec<(Labels, Exemplar)>;

impl Exemplars {
    /// At most so many, of all tenants together, in a head of so many bytes at most.
    pub(crate) fn new(count_max: usize, bytes_max: usize, memory_bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(memory_bytes_max / 100 * MEMORY_PERCENT_MAX);
        let (count, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { stores: Mutex::default(), count, bytes, count_max, bytes_max }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The least timestamp of all, milliseconds.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        let stores = self.stores.lock();
        let all = stores.by_tenant.values().flat_map(ExemplarStore::iter);
        all.map(|(_, exemplar)| exemplar.timestamp).min()
    }

    /// None are kept.
    fn off(&self) -> bool {
        self.count_max == 0 || self.bytes_max == 0
    }

    /// Adds an exemplar; others go where there is no room, the oldest of the tenant that has most.
    pub(crate) fn add(&self, tenant: u32, series: &Labels, exemplar: Exemplar) -> Result<(), ExemplarError> {
        let mut stores = self.stores.lock();
        let Stores { by_tenant, count, bytes } = &mut *stores;
        let store =
            by_tenant.entry(tenant).or_insert_with(|| ExemplarStore::new(self.count_max, self.bytes_max));
        let before = (store.len(), store.bytes());
        let added = store.add(series, exemplar);
        (*count, *bytes) = (*count + store.len() - before.0, *bytes + store.bytes() - before.1);
        if *count > self.count_max || *bytes > self.bytes_max {
            stores
                .make_room(self.count_max - self.count_max / SPARE, self.bytes_max - self.bytes_max / SPARE);
        }
        self.publish(&stores);
        added
    }

    /// Forgets those that arrived first as long as they are older than `floor`.
    pub(crate) fn truncate(&self, floor: Timestamp) {
        let mut stores = self.stores.lock();
        let Stores { by_tenant, count, bytes } = &mut *stores;
        by_tenant.retain(|_, store| {
            let before = (store.len(), store.bytes());
            while store.iter().next().is_some_and(|(_, exemplar)| exemplar.timestamp < floor) {
                store.drop_oldest();
            }
            (*count, *bytes) = (*count + store.len() - before.0, *bytes + store.bytes() - before.1);
            !store.is_empty()
        });
        self.publish(&stores);
    }

    /// Forgets exemplars of `tenant`, or of all, that `keep` does not want.
    pub(crate) fn retain(&self, tenant: Option<u32>, mut keep: impl FnMut(&Labels, &Exemplar) -> bool) {
        let mut stores = self.stores.lock();
        let Stores { by_tenant, count, bytes } = &mut *stores;
        for (_, store) in by_tenant.iter_mut().filter(|(of, _)| tenant.is_none_or(|tenant| tenant == **of)) {
            let before = (store.len(), store.bytes());
            store.retain(&mut keep);
            (*count, *bytes) = (*count + store.len() - before.0, *bytes + store.bytes() - before.1);
        }
        self.publish(&stores);
    }

    fn publish(&self, stores: &Stores) {
        self.count.store(stores.count, Ordering::Relaxed);
        self.bytes.store(stores.bytes, Ordering::Relaxed);
    }

    fn select(&self, tenant: u32, query: &ExemplarQuery) -> Vec<SeriesExemplars> {
        self.stores.lock().by_tenant.get(&tenant).map(|store| store.select(query)).unwrap_or_default()
    }

    /// The tenants that have some.
    pub(crate) fn tenants(&self) -> Vec<u32> {
        self.stores.lock().by_tenant.keys().copied().collect()
    }

    /// All of a tenant. They share their texts with the store.
    pub(crate) fn copy(&self, tenant: u32) -> Kept {
        let stores = self.stores.lock();
        let Some(store) = stores.by_tenant.get(&tenant) else { return Kept::new() };
        store.iter().map(|(labels, exemplar)| (labels.clone(), exemplar.clone())).collect()
    }
}

impl Stores {
    fn make_room(&mut self, count_max: usize, bytes_max: usize) {
        while self.count > count_max || self.bytes > bytes_max {
            let most = self.by_tenant.values_mut().max_by_key(|store| store.bytes());
            let Some(store) = most.filter(|store| !store.is_empty()) else { return };
            let before = (store.len(), store.bytes());
            // A few at a time: then another tenant may have more.
            for _ in 0..store.len().div_ceil(SPARE) {
                store.drop_oldest();
            }
            self.count = self.count + store.len() - before.0;
            self.bytes = self.bytes + store.bytes() - before.1;
        }
    }
}

impl Head {
    /// Remembers exemplars of series that are in memory, as long as there is room; those of others are dropped. They are
    /// logged, and nobody waits for that.
    pub fn append_exemplars(&self, tenant: &TenantId, batch: &ExemplarBatch<'_>) -> ExemplarOutcome {
        let mut outcome = ExemplarOutcome::default();
        let tenant = self.tenants.get(tenant).filter(|_| !self.exemplars.off() && self.admit().is_ok());
        // No series goes from here on.
        let removed = self.removed.read();
        for (at, entry) in batch.series.iter().enumerate() {
            let range = entry.exemplars.start as usize..entry.exemplars.end as usize;
            let exemplars = batch.exemplars.get(range).unwrap_or_default();
            let reference = tenant.as_ref().and_then(|tenant| {
                let known = self.aliases.lookup().get(tenant.salted(entry.key));
                let known = known.filter(|known| !removed.contains(*known)).map(Ref);
                known.or_else(|| self.find(tenant, &batch.labels.labels(at).ok()?))
            });
            match (&tenant, reference) {
                (Some(tenant), Some(reference)) => {
                    self.add_exemplars(tenant, reference, exemplars, &mut outcome);
                }
                _ => outcome.dropped += exemplars.len() as u64,
            }
        }
        outcome
    }

    fn add_exemplars(
        &self,
        tenant: &Tenant,
        reference: Ref,
        exemplars: &[Exemplar],
        outcome: &mut ExemplarOutcome,
    ) {
        let labels = tenant.index.read().labels(reference.0);
        let shard = &self.shards[reference.shard()];
        let mut state = shard.lock();
        let ShardState { slab, late, starts, log, .. } = &mut *state;
        let (Some(labels), Some((series, _))) = (labels, slab.get_mut(reference.slot())) else {
            outcome.dropped += exemplars.len() as u64;
            return;
        };
        let (floor, max) = (self.floor(), self.env.clock.now_ms().saturating_add(self.options.future_ms_max));
        let mut blob = Vec::new();
        for exemplar in exemplars {
            // One far ahead would keep all that follow from being taken.
            if exemplar.timestamp < floor || exemplar.timestamp > max {
                outcome.dropped += 1;
                continue;
            }
            match self.exemplars.add(tenant.number, &labels, exemplar.clone()) {
                Ok(()) => {
                    outcome.stored += 1;
                    if series.defined != log.epoch() {
                        define(tenant, (series, reference), (starts, late.cut().boundary()), log);
                    }
                    blob.clear();
                    encode(exemplar, &mut blob);
                    log.exemplar(reference.0, exemplar.timestamp, &blob);
                }
                Err(error) => error.count(outcome),
            }
        }
        shard.publish(&state);
    }

    /// Forgets the exemplars of `tenant` that `deleted` says are deleted: blocks have that for good, and what is left here
    /// is shown beside theirs.
    pub fn forget_exemplars(&self, tenant: &TenantId, mut deleted: impl FnMut(&Labels, Timestamp) -> bool) {
        if let Some(tenant) = self.tenants.get(tenant) {
            let keep = |labels: &Labels, exemplar: &Exemplar| !deleted(labels, exemplar.timestamp);
            self.exemplars.retain(Some(tenant.number), keep);
        }
    }

    /// The exemplars of `tenant` that go to blocks with the cut: those at or before its boundary, and behind that of the
    /// last finished one. They stay in memory.
    #[must_use]
    pub fn cut_exemplars(&self, cut: &Cut, tenant: &TenantId) -> Vec<SeriesExemplars> {
        let Some(tenant) = self.tenants.get(tenant) else { return Vec::new() };
        let range = cut.range(TimeRange::ALL);
        self.exemplars
            .select(tenant.number, &ExemplarQuery { matcher_sets: vec![Vec::new()], range, payer: None })
    }
}

impl HeadView {
    /// The tenant's exemplars in question, by series, sorted by labels. What blocks have is among them as long as there is
    /// room for it here.
    #[must_use]
    pub fn exemplars(&self, query: &ExemplarQuery) -> Vec<SeriesExemplars> {
        let Some(tenant) = &self.tenant else { return Vec::new() };
        let range = TimeRange::new(query.range.min.max(self.head.floor()), query.range.max);
        let query = ExemplarQuery { range, ..query.clone() };
        self.head.exemplars.select(tenant.number, &query)
    }
}

impl HeadReplay<'_> {
    /// Applies logged exemplars of series of any shard; says how many are in memory now that were not.
    pub(crate) fn apply_exemplars(&self, exemplars: &[LoggedBlob<'_>]) -> u64 {
        let mut stored = 0;
        let mut last: Option<(u32, u32, Labels)> = None;
        for entry in exemplars {
            let reference = Ref(self.number_of(entry.series));
            if last.as_ref().is_none_or(|(of, ..)| *of != reference.0) {
                last = self.labels_of(reference).map(|(tenant, labels)| (reference.0, tenant, labels));
            }
            let (Some((_, tenant, labels)), Some(exemplar)) = (&last, decode(entry.timestamp, entry.bytes))
            else {
                continue;
            };
            // One that the snapshot has is there already.
            let old = exemplar.timestamp < self.head.floor() || self.head.exemplars.off();
            stored += u64::from(!old && self.head.exemplars.add(*tenant, labels, exemplar).is_ok());
        }
        stored
    }

    /// Tenant and labels of a series.
    fn labels_of(&self, reference: Ref) -> Option<(u32, Labels)> {
        let mut state = self.head.shards[reference.shard()].lock();
        let tenant = state.slab.get(reference.slot()).map(|(series, _)| series.tenant());
        if tenant.is_none() {
            // As with samples.
            state.slab.reserve_through(reference.slot().min(Ref::SLOT_MAX));
        }
        drop(state);
        let tenant = tenant?;
        let labels = self.head.tenants.by_number(tenant)?.index.read().labels(reference.0)?;
        Some((tenant, labels))
    }
}

/// Appends all of an exemplar but its timestamp: 8 bytes of the value's bits, a uvarint count of labels, names and values.
pub(crate) fn encode(exemplar: &Exemplar, out: &mut Vec<u8>) {
    write::u64_le(out, exemplar.value.to_bits());
    write::uvarint(out, exemplar.labels.len() as u64);
    for (name, value) in exemplar.labels.iter() {
        write::prefixed(out, name.as_bytes());
        write::prefixed(out, value.as_bytes());
    }
}

fn decode(timestamp: Timestamp, bytes: &[u8]) -> Option<Exemplar> {
    let mut reader = Reader::new(bytes);
    let exemplar = read(timestamp, &mut reader)?;
    reader.finish().ok()?;
    Some(exemplar)
}

/// Reads what [`encode`] has written.
pub(crate) fn read(timestamp: Timestamp, reader: &mut Reader<'_>) -> Option<Exemplar> {
    let value = f64::from_bits(reader.u64_le("value").ok()?);
    // More labels than characters are refused when an exemplar is taken.
    let count = reader.count(LABEL_CHARS_MAX, "labels").ok()?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.text(TEXT_BYTES_MAX, "label name").ok()?;
        pairs.push((name, reader.text(TEXT_BYTES_MAX, "label value").ok()?));
    }
    Some(Exemplar { labels: Labels::from_sorted(pairs)?, value, timestamp })
}

#[cfg(test)]
mod tests;
