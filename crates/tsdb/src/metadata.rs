//! Metric metadata: in memory only, bounded, the oldest goes first.

use std::collections::{BTreeMap, HashMap};

use chronolith_model::{MetricMetadata, TenantId};
use parking_lot::RwLock;

/// Most bytes of the metadata of all tenants together.
pub const METADATA_BYTES_MAX: usize = 64 << 20;
/// Longest name, unit or help text kept, in bytes; longer names are not kept at all, other texts are cut.
pub const METADATA_TEXT_BYTES_MAX: usize = 4 << 10;

/// What an entry takes beside its texts, about: two places in maps, four strings.
const ENTRY_BYTES: usize = 256;

/// What senders say of their metrics.
#[derive(Debug)]
pub(crate) struct MetadataStore {
    metrics_max: usize,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<TenantId, Metrics>,
    /// Grows with each entry; the age of entries.
    clock: u64,
    /// Of all tenants.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Metrics {
    by_name: HashMap<String, (u64, MetricMetadata)>,
    by_age: BTreeMap<u64, String>,
}

impl Metrics {
    /// Takes `entry` at the age `clock`. Returns the bytes that came and those that went.
    fn insert(&mut self, clock: u64, entry: MetricMetadata) -> (usize, usize) {
        let name = entry.metric.clone();
        let grown = cost(&entry);
        let gone = self.by_name.insert(name.clone(), (clock, entry)).map_or(0, |(age, old)| {
            self.by_age.remove(&age);
            cost(&old)
        });
        self.by_age.insert(clock, name);
        (grown, gone)
    }

    /// Forgets the oldest entry. Returns its bytes, 0 if there is none.
    fn drop_oldest(&mut self) -> usize {
        let oldest = self.by_age.pop_first().and_then(|(_, name)| self.by_name.remove(&name));
        oldest.map_or(0, |(_, entry)| cost(&entry))
    }

    fn oldest(&self) -> u64 {
        self.by_age.keys().next().copied().unwrap_or(u64::MAX)
    }
}

/// The bytes an entry takes: its name stands three times.
fn cost(entry: &MetricMetadata) -> usize {
    3 * entry.metric.len() + entry.unit.len() + entry.help.len() + ENTRY_BYTES
}

impl MetadataStore {
    pub(crate) fn new(metrics_max: usize) -> Self {
        Self { metrics_max, state: RwLock::default() }
    }

    pub(crate) fn append(&self, tenant: &TenantId, metadata: Vec<MetricMetadata>) {
        if metadata.is_empty() || self.metrics_max == 0 {
            return;
        }
        let mut state = self.state.write();
        let State { tenants, clock, bytes } = &mut *state;
        let metrics = tenants.entry(tenant.clone()).or_default();
        for mut entry in metadata {
            if entry.metric.is_empty() || entry.metric.len() > METADATA_TEXT_BYTES_MAX {
                continue;
            }
            for text in [&mut entry.unit, &mut entry.help] {
                text.truncate(text.floor_char_boundary(METADATA_TEXT_BYTES_MAX));
                text.shrink_to_fit();
            }
            *clock += 1;
            let (grown, mut gone) = metrics.insert(*clock, entry);
            if metrics.by_name.len() > self.metrics_max {
                gone += metrics.drop_oldest();
            }
            *bytes = *bytes + grown - gone;
        }
        while *bytes > METADATA_BYTES_MAX {
            let Some(oldest) = tenants.values_mut().min_by_key(|metrics| metrics.oldest()) else { break };
            *bytes -= oldest.drop_oldest();
        }
        tenants.retain(|_, metrics| !metrics.by_name.is_empty());
    }

    /// What is known, sorted by name; of one metric if `metric` is given.
    pub(crate) fn get(&self, tenant: &TenantId, metric: Option<&str>) -> Vec<MetricMetadata> {
        let state = self.state.read();
        let Some(metrics) = state.tenants.get(tenant) else { return Vec::new() };
        if let Some(metric) = metric {
            return metrics.by_name.get(metric).map(|(_, entry)| entry.clone()).into_iter().collect();
        }
        let mut all: Vec<MetricMetadata> = metrics.by_name.values().map(|(_, entry)| entry.clone()).collect();
        all.sort_unstable_by(|a, b| a.metric.cmp(&b.metric));
        all
    }

    /// Metrics known, of all tenants.
    pub(crate) fn len(&self) -> usize {
        self.state.read().tenants.values().map(|metrics| metrics.by_name.len()).sum()
    }

    /// Bytes they take, at most [`METADATA_BYTES_MAX`].
    pub(crate) fn bytes(&self) -> usize {
        self.state.read().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(metric: &str, help: &str) -> MetricMetadata {
        MetricMetadata { metric: metric.to_owned(), help: help.to_owned(), ..MetricMetadata::default() }
    }

    #[test]
    fn the_oldest_goes_first_and_tenants_are_apart() {
        let store = MetadataStore::new(2);
        let (a, b) = (TenantId::new("a").expect("valid"), TenantId::new("b").expect("valid"));
        store.append(&a, vec![entry("x", "1"), entry("y", "1"), entry("x", "2"), entry("z", "1")]);
        assert_eq!(store.get(&a, None), [entry("x", "2"), entry("z", "1")]);
        assert_eq!(store.get(&a, Some("x")), [entry("x", "2")]);
        assert_eq!(store.get(&b, None), []);
        store.append(&b, vec![entry("x", &"\u{e9}".repeat(METADATA_TEXT_BYTES_MAX))]);
        assert!(store.get(&b, Some("x"))[0].help.len() <= METADATA_TEXT_BYTES_MAX);
        assert_eq!(store.len(), 3);
    }

    #[test]
    fn bounded_over_all_tenants() {
        let store = MetadataStore::new(usize::MAX);
        let tenant = |n: usize| TenantId::new(&format!("t{n}")).expect("valid");
        let help = "h".repeat(METADATA_TEXT_BYTES_MAX);
        let per_tenant = METADATA_BYTES_MAX / METADATA_TEXT_BYTES_MAX / 4;
        for n in 0..6 {
            store.append(&tenant(n), (0..per_tenant).map(|i| entry(&format!("m{i}"), &help)).collect());
        }
        assert!(store.bytes() <= METADATA_BYTES_MAX && store.bytes() > METADATA_BYTES_MAX - 2 * help.len());
        assert!(store.get(&tenant(0), None).is_empty() && store.get(&tenant(5), None).len() == per_tenant);
        // Whatever replaces or goes is given back.
        store.append(&tenant(5), (0..per_tenant).map(|i| entry(&format!("m{i}"), "")).collect());
        let held: usize = (0..6).flat_map(|n| store.get(&tenant(n), None)).map(|entry| cost(&entry)).sum();
        assert_eq!(store.bytes(), held);
    }
}
