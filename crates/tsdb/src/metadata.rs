//! Metric metadata: in memory, bounded, the oldest goes first.
//!
//! What changes is logged. Snapshots of the head have all of it in sections of their own, so that the log may go; a cut puts
//! into blocks what is known of their metrics.

use std::collections::{BTreeMap, HashMap};

use chronolith_codec::{Reader, write};
use chronolith_head::ExtraSection;
use chronolith_model::{MetricMetadata, MetricType, TenantId, tenant::TENANT_ID_BYTES_MAX};
use chronolith_wal::LoggedMetadata;
use parking_lot::RwLock;

/// Most bytes of the metadata of all tenants together.
pub const METADATA_BYTES_MAX: usize = 64 << 20;
/// Longest name, unit or help text kept, in bytes; longer names are not kept at all, other texts are cut.
pub const METADATA_TEXT_BYTES_MAX: usize = 4 << 10;

/// The type of the sections of a snapshot, which have about so many bytes each.
const SECTION: u8 = 64;
const SECTION_BYTES: usize = 4 << 20;
const _: () = assert!(METADATA_BYTES_MAX / SECTION_BYTES + 2 < chronolith_head::EXTRA_SECTIONS_MAX);
const _: () = assert!(METADATA_TEXT_BYTES_MAX <= chronolith_wal::METADATA_TEXT_BYTES_MAX);

/// Types of metrics by their number in the log and in snapshots, as in blocks.
const KINDS: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

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

    /// Takes what a sender says, and hands what is new in it to `log`, in the order in which it counts.
    pub(crate) fn append(
        &self,
        tenant: &TenantId,
        metadata: Vec<MetricMetadata>,
        log: impl FnOnce(&[LoggedMetadata<'_>]),
    ) {
        if metadata.is_empty() || self.metrics_max == 0 {
            return;
        }
        let mut changed: Vec<MetricMetadata> = Vec::new();
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
            if metrics.by_name.get(&entry.metric).is_none_or(|(_, known)| *known != entry) {
                changed.push(entry.clone());
            }
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
        // Still locked: the log has it in the same order.
        if !changed.is_empty() {
            let logged: Vec<_> = changed.iter().map(|entry| logged(tenant, entry)).collect();
            log(&logged);
        }
    }

    /// Takes back what the log says.
    pub(crate) fn restore_logged(&self, logged: &LoggedMetadata<'_>) {
        let kind = KINDS.get(usize::from(logged.kind)).copied();
        if let (Ok(tenant), Some(kind)) = (TenantId::new(logged.tenant), kind) {
            let text = |text: &str| text.to_owned();
            let (metric, unit, help) = (text(logged.metric), text(logged.unit), text(logged.help));
            self.append(&tenant, vec![MetricMetadata { metric, kind, unit, help }], |_| {});
        }
    }

    /// The sections of a snapshot: all that is known, the oldest first.
    pub(crate) fn sections(&self) -> Vec<ExtraSection> {
        let state = self.state.read();
        let of_tenant = |(tenant, metrics)| {
            let metrics: &Metrics = metrics;
            metrics.by_name.values().map(move |(age, entry)| (*age, tenant, entry))
        };
        let mut all: Vec<(u64, &TenantId, &MetricMetadata)> =
            state.tenants.iter().flat_map(of_tenant).collect();
        all.sort_unstable_by_key(|(age, ..)| *age);
        let (mut sections, mut bytes) = (Vec::new(), Vec::new());
        for (_, tenant, entry) in all {
            encode(&logged(tenant, entry), &mut bytes);
            if bytes.len() >= SECTION_BYTES {
                sections.push(ExtraSection { section_type: SECTION, bytes: std::mem::take(&mut bytes) });
            }
        }
        if !bytes.is_empty() {
            sections.push(ExtraSection { section_type: SECTION, bytes });
        }
        sections
    }

    /// Takes over what a snapshot has.
    pub(crate) fn restore(&self, extras: &[ExtraSection]) {
        for section in extras.iter().filter(|section| section.section_type == SECTION) {
            let mut reader = Reader::new(&section.bytes);
            while !reader.rest().is_empty() {
                match decode(&mut reader) {
                    Ok(logged) => self.restore_logged(&logged),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "metadata of a snapshot cannot be read");
                        break;
                    }
                }
            }
        }
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

fn logged<'a>(tenant: &'a TenantId, entry: &'a MetricMetadata) -> LoggedMetadata<'a> {
    let kind = KINDS.iter().position(|kind| *kind == entry.kind).unwrap_or(0) as u8;
    let MetricMetadata { metric, unit, help, .. } = entry;
    LoggedMetadata { tenant: tenant.as_str(), metric, kind, unit, help }
}

fn encode(entry: &LoggedMetadata<'_>, out: &mut Vec<u8>) {
    write::prefixed(out, entry.tenant.as_bytes());
    write::prefixed(out, entry.metric.as_bytes());
    out.push(entry.kind);
    write::prefixed(out, entry.unit.as_bytes());
    write::prefixed(out, entry.help.as_bytes());
}

fn decode<'a>(reader: &mut Reader<'a>) -> chronolith_codec::Result<LoggedMetadata<'a>> {
    Ok(LoggedMetadata {
        tenant: reader.text(TENANT_ID_BYTES_MAX, "tenant")?,
        metric: reader.text(METADATA_TEXT_BYTES_MAX, "metric")?,
        kind: reader.u8("type of a metric")?,
        unit: reader.text(METADATA_TEXT_BYTES_MAX, "unit")?,
        help: reader.text(METADATA_TEXT_BYTES_MAX, "help text")?,
    })
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
        store.append(&a, vec![entry("x", "1"), entry("y", "1"), entry("x", "2"), entry("z", "1")], |_| {});
        assert_eq!(store.get(&a, None), [entry("x", "2"), entry("z", "1")]);
        assert_eq!(store.get(&a, Some("x")), [entry("x", "2")]);
        assert_eq!(store.get(&b, None), []);
        store.append(&b, vec![entry("x", &"\u{e9}".repeat(METADATA_TEXT_BYTES_MAX))], |_| {});
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
            let all = (0..per_tenant).map(|i| entry(&format!("m{i}"), &help)).collect();
            store.append(&tenant(n), all, |_| {});
        }
        assert!(store.bytes() <= METADATA_BYTES_MAX && store.bytes() > METADATA_BYTES_MAX - 2 * help.len());
        assert!(store.get(&tenant(0), None).is_empty() && store.get(&tenant(5), None).len() == per_tenant);
        // Whatever replaces or goes is given back.
        store.append(&tenant(5), (0..per_tenant).map(|i| entry(&format!("m{i}"), "")).collect(), |_| {});
        let held: usize = (0..6).flat_map(|n| store.get(&tenant(n), None)).map(|entry| cost(&entry)).sum();
        assert_eq!(store.bytes(), held);
    }

    #[test]
    fn only_what_is_new_is_logged_and_a_snapshot_has_all() {
        let store = MetadataStore::new(3);
        let (a, b) = (TenantId::new("a").expect("valid"), TenantId::new("b").expect("valid"));
        let logged = |tenant: &TenantId, given: Vec<MetricMetadata>| {
            let mut all = Vec::new();
            store.append(tenant, given, |new| {
                all.extend(new.iter().map(|new| (new.metric.to_owned(), new.help.to_owned())));
            });
            all
        };
        let pair = |metric: &str, help: &str| (metric.to_owned(), help.to_owned());
        assert_eq!(logged(&a, vec![entry("x", "1"), entry("y", "1")]), [pair("x", "1"), pair("y", "1")]);
        assert_eq!(logged(&a, vec![entry("x", "1"), entry("y", "2")]), [pair("y", "2")]);
        assert_eq!(logged(&a, vec![entry("y", "2")]), []);
        let counter = MetricMetadata { kind: MetricType::Counter, ..entry("y", "2") };
        assert_eq!(logged(&a, vec![counter]), [pair("y", "2")], "another type");
        assert_eq!(logged(&b, vec![entry("x", "1")]), [pair("x", "1")]);
        let again = MetadataStore::new(3);
        again.restore(&store.sections());
        assert_eq!((again.get(&a, None), again.get(&b, None)), (store.get(&a, None), store.get(&b, None)));
        // The oldest is the same one.
        for of in [&store, &again] {
            of.append(&a, vec![entry("z", "1"), entry("w", "1")], |_| {});
            assert_eq!(of.get(&a, Some("x")), []);
        }
        assert_eq!(again.get(&a, None), store.get(&a, None));
        let mut section = again.sections().remove(0);
        for len in 0..section.bytes.len() {
            let cut = ExtraSection { section_type: SECTION, bytes: section.bytes[..len].to_vec() };
            MetadataStore::new(3).restore(&[cut]);
        }
        section.bytes.extend_from_slice(&[0xff; 20]);
        let other = MetadataStore::new(3);
        other.restore(&[section]);
        assert_eq!(other.get(&a, None), store.get(&a, None), "what comes before the damage counts");
    }

    #[test]
    fn sections_are_bounded() {
        let store = MetadataStore::new(usize::MAX);
        let help = "h".repeat(METADATA_TEXT_BYTES_MAX);
        let all = (0..3 * SECTION_BYTES / help.len()).map(|i| entry(&format!("m{i}"), &help)).collect();
        store.append(&TenantId::default(), all, |_| {});
        let sections = store.sections();
        assert!(sections.len() >= 3, "{}", sections.len());
        assert!(sections.iter().all(|section| section.bytes.len() < SECTION_BYTES + 2 * help.len()));
        let again = MetadataStore::new(usize::MAX);
        again.restore(&sections);
        assert_eq!((again.len(), again.bytes()), (store.len(), store.bytes()));
    }
}
