//! Storage in memory: the reference that shows what the contract means, and what tests of the layers above stand on.
//!
//! No log, no chunks, no limits; a view is a copy-on-write snapshot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
};

use chronolith_index::CompiledMatcher;
use chronolith_model::{
    Histogram, HistogramSample, Labels, METRIC_NAME, MetricMetadata, Sample, TenantId, TimeRange, is_stale,
};
use parking_lot::Mutex;

use crate::{
    admin::Admin,
    append::{
        AppendOutcome, AppendedBatch, Appender, ExemplarBatch, ExemplarOutcome, KeyHasher, RejectReason,
        SampleAt, SeriesEntry, SeriesKey, Stores, Ticket, WriteBatch, check_label_limits,
    },
    error::StorageError,
    exemplars::{ExemplarError, ExemplarStore, exemplar_bytes, series_bytes},
    query::{
        BoxFuture, CardinalityEntry, ExemplarQuery, LabelQuery, Limited, Querier, Queryable, ReadStats,
        Samples, SelectRequest, SeriesBatch, SeriesExemplars, SeriesSet, StorageStats,
    },
};

/// An [`Appender`], [`Queryable`] and [`Admin`] that keeps everything in memory for as long as it lives. In-order samples
/// only.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    tenants: Mutex<HashMap<TenantId, Arc<Tenant>>>,
}

#[derive(Clone, Debug, Default)]
struct Tenant {
    series: BTreeMap<Labels, Arc<Samples>>,
    aliases: HashMap<SeriesKey, Labels>,
    metadata: BTreeMap<String, MetricMetadata>,
    exemplars: ExemplarStore,
}

impl MemoryStorage {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn view(&self, tenant: &TenantId) -> Arc<Tenant> {
        self.tenants.lock().get(tenant).cloned().unwrap_or_default()
    }
}

/// Memory is as durable as it gets at once.
struct Done;

impl Ticket for Done {
    fn wait(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }

    fn is_done(&self) -> bool {
        true
    }
}

impl Appender for MemoryStorage {
    fn key_hasher(&self) -> KeyHasher {
        KeyHasher::new(0x6368_726f_6e6f_6c69)
    }

    fn append(&self, tenant: &TenantId, batch: &WriteBatch<'_>) -> Result<AppendedBatch, StorageError> {
        let mut outcome = AppendOutcome::default();
        let mut tenants = self.tenants.lock();
        let tenant = Arc::make_mut(tenants.entry(tenant.clone()).or_default());
        for (index, entry) in batch.series.iter().enumerate() {
            tenant.append(batch, entry, index, &mut outcome);
        }
        Ok(AppendedBatch { outcome, ticket: Box::new(Done) })
    }

    fn stores(&self) -> Stores {
        Stores { histograms: true, exemplars: true, start_timestamps: true, late_samples: false }
    }

    fn append_exemplars(&self, tenant: &TenantId, batch: &ExemplarBatch<'_>) -> ExemplarOutcome {
        let mut outcome = ExemplarOutcome::default();
        let mut tenants = self.tenants.lock();
        let tenant = Arc::make_mut(tenants.entry(tenant.clone()).or_default());
        for (index, entry) in batch.series.iter().enumerate() {
            let range = entry.exemplars.start as usize..entry.exemplars.end as usize;
            let exemplars = batch.exemplars.get(range).unwrap_or_default();
            let Ok(labels) = batch.labels.labels(index) else {
                outcome.dropped += exemplars.len() as u64;
                continue;
            };
            for exemplar in exemplars {
                match tenant.exemplars.add(&labels, exemplar.clone()) {
                    Ok(()) => outcome.stored += 1,
                    Err(error) => ExemplarError::count(error, &mut outcome),
                }
            }
        }
        outcome
    }

    fn append_metadata(&self, tenant: &TenantId, metadata: Vec<MetricMetadata>) {
        let mut tenants = self.tenants.lock();
        let tenant = Arc::make_mut(tenants.entry(tenant.clone()).or_default());
        tenant.metadata.extend(metadata.into_iter().map(|metadata| (metadata.metric.clone(), metadata)));
    }
}

impl Tenant {
    fn append(
        &mut self,
        batch: &WriteBatch<'_>,
        entry: &SeriesEntry,
        index: usize,
        outcome: &mut AppendOutcome,
    ) {
        let labels = match self.aliases.get(&entry.key) {
            Some(labels) => labels.clone(),
            None => match batch.labels.labels(index) {
                Ok(labels) => {
                    if let Err(reason) = check_label_limits(&labels) {
                        return outcome.reject(reason, index, None, entry.len() as u64);
                    }
                    self.aliases.insert(entry.key, labels.clone());
                    labels
                }
                Err(reason) => return outcome.reject(reason, index, None, entry.len() as u64),
            },
        };
        let stored = Arc::make_mut(self.series.entry(labels.clone()).or_default());
        let mut note = |stored: &mut Samples, sample: SampleAt, verdict| match verdict {
            Ok(true) => {
                stored.push_start(sample.timestamp, entry.start_timestamp);
                outcome.stored += 1;
            }
            Ok(false) => outcome.duplicates += 1,
            Err(reason) => outcome.reject_sample(reason, index, Some(&labels), sample),
        };
        for sample in batch.samples_of(entry) {
            let verdict = push_float(stored, sample);
            note(stored, SampleAt::float(sample.timestamp), verdict);
        }
        for sample in batch.histograms_of(entry) {
            let verdict = push_histogram(stored, sample);
            note(stored, SampleAt::histogram(sample.timestamp), verdict);
        }
    }
}

/// Whether the newest sample is a histogram.
fn ends_in_histogram(stored: &Samples) -> bool {
    stored.histogram_timestamps.last() > stored.timestamps.last()
}

/// Stores `sample` if it is new; `Ok(false)` for a repetition of the newest one.
fn push_float(stored: &mut Samples, sample: &Sample) -> Result<bool, RejectReason> {
    let Sample { timestamp, value: new } = *sample;
    if is_stale(new) && ends_in_histogram(stored) {
        return push_histogram(stored, &HistogramSample { timestamp, histogram: Histogram::stale() });
    }
    let newest = stored.newest();
    if newest.is_none_or(|newest| timestamp > newest) {
        stored.push(timestamp, new);
        return Ok(true);
    }
    match stored.values.last() {
        _ if newest != Some(timestamp) => Err(RejectReason::OutOfOrder),
        Some(existing) if !ends_in_histogram(stored) => {
            if existing.to_bits() == new.to_bits() {
                return Ok(false);
            }
            Err(RejectReason::DuplicateTimestamp { timestamp, existing: *existing, new })
        }
        _ => Err(RejectReason::DuplicateOfHistogram { timestamp, new }),
    }
}

/// The same for a histogram.
fn push_histogram(stored: &mut Samples, sample: &HistogramSample) -> Result<bool, RejectReason> {
    let timestamp = sample.timestamp;
    let newest = stored.newest();
    let before = stored.histograms.last().filter(|_| ends_in_histogram(stored));
    if newest.is_none_or(|newest| timestamp > newest) {
        let mut histogram = sample.histogram.clone();
        histogram.set_hint(sample.histogram.hint_after(before));
        stored.push_histogram(timestamp, histogram);
        return Ok(true);
    }
    match before {
        _ if newest != Some(timestamp) => Err(RejectReason::OutOfOrder),
        Some(existing) if existing.same_observations(&sample.histogram) => Ok(false),
        _ => Err(RejectReason::DuplicateHistogram { timestamp }),
    }
}

impl Queryable for MemoryStorage {
    fn querier(&self, tenant: &TenantId, _: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        Ok(Arc::new(View { tenant: self.view(tenant) }))
    }
}

impl Admin for MemoryStorage {
    /// Views that are open see what is deleted all the same. Exemplars stay, as in Prometheus.
    fn delete_series(
        &self,
        tenant: &TenantId,
        matcher_sets: &[Vec<CompiledMatcher>],
        range: TimeRange,
    ) -> Result<(), StorageError> {
        crate::admin::check_matcher_sets(matcher_sets)?;
        let mut tenants = self.tenants.lock();
        let Some(tenant) = tenants.get_mut(tenant) else { return Ok(()) };
        let Tenant { series, aliases, .. } = Arc::make_mut(tenant);
        for (labels, samples) in series.iter_mut() {
            if matcher_sets.iter().any(|set| selects(set, labels)) {
                delete(Arc::make_mut(samples), range);
            }
        }
        series.retain(|_, samples| samples.newest().is_some());
        aliases.retain(|_, labels| series.contains_key(labels));
        Ok(())
    }

    /// What is deleted is gone already.
    fn clean_tombstones(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// There is no directory to copy to.
    fn snapshot(&self, _: bool) -> Result<String, StorageError> {
        Err(StorageError::Invalid { reason: "storage in memory has no snapshots".to_owned() })
    }
}

/// Takes what is inside `range` out of `samples`. Start timestamps stay: they are of times, not of samples.
fn delete(samples: &mut Samples, range: TimeRange) {
    let Samples { timestamps, values, histogram_timestamps, histograms, .. } = samples;
    keep_outside(range, timestamps, values);
    keep_outside(range, histogram_timestamps, histograms);
}

fn keep_outside<T>(range: TimeRange, timestamps: &mut Vec<i64>, values: &mut Vec<T>) {
    let mut times = timestamps.iter();
    values.retain(|_| times.next().is_some_and(|t| !range.contains(*t)));
    timestamps.retain(|t| !range.contains(*t));
}

fn selects(matchers: &[CompiledMatcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
}

/// So many series are looked at in no time.
const QUICK_SERIES_MAX: usize = 1_000;

/// One version of a tenant's data.
struct View {
    tenant: Arc<Tenant>,
}

impl View {
    fn matching(&self, matchers: &[CompiledMatcher]) -> Vec<(&Labels, &Arc<Samples>)> {
        self.tenant.series.iter().filter(|(labels, _)| selects(matchers, labels)).collect()
    }

    fn answer(&self, query: &LabelQuery) -> BTreeSet<Labels> {
        if query.matcher_sets.is_empty() {
            return self.tenant.series.keys().cloned().collect();
        }
        let mut found = BTreeSet::new();
        for matchers in &query.matcher_sets {
            found.extend(self.matching(matchers).into_iter().map(|(labels, _)| labels.clone()));
        }
        found
    }
}

/// The first of `items` up to the limit of `query`, which pays for what it keeps: `bytes` each.
fn limited<T>(
    items: impl IntoIterator<Item = T>,
    query: &LabelQuery,
    bytes: impl Fn(&T) -> usize,
) -> Result<Limited<T>, StorageError> {
    let mut kept = Limited { items: Vec::new(), truncated: false };
    for item in items {
        if query.limit > 0 && kept.items.len() == query.limit {
            kept.truncated = true;
            break;
        }
        if let Some(payer) = &query.payer {
            payer.charge(size_of::<T>() + bytes(&item))?;
        }
        kept.items.push(item);
    }
    Ok(kept)
}

impl Querier for View {
    fn select<'a>(
        &'a self,
        request: &'a SelectRequest,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesSet>, StorageError>> {
        Box::pin(async move {
            let series = self.matching(&request.matchers).into_iter();
            let series = series.map(|(labels, samples)| (labels.clone(), Arc::clone(samples))).collect();
            let set: Arc<dyn SeriesSet> = Arc::new(Selected { series, range: request.range });
            Ok(set)
        })
    }

    fn is_quick(&self, _: &SelectRequest) -> bool {
        self.tenant.series.len() <= QUICK_SERIES_MAX
    }

    fn label_names<'a>(
        &'a self,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        Box::pin(async move {
            let mut names = BTreeSet::new();
            for labels in self.answer(query) {
                names.extend(labels.iter().map(|(name, _)| name.to_owned()));
            }
            limited(names, query, String::len)
        })
    }

    fn label_values<'a>(
        &'a self,
        name: &'a str,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        Box::pin(async move {
            let series = self.answer(query);
            let values: BTreeSet<String> =
                series.iter().filter_map(|labels| labels.get(name)).map(str::to_owned).collect();
            limited(values, query, String::len)
        })
    }

    fn series<'a>(&'a self, query: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<Labels>, StorageError>> {
        Box::pin(async move { limited(self.answer(query), query, Labels::size_bytes) })
    }

    fn metadata<'a>(
        &'a self,
        metric: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<MetricMetadata>, StorageError>> {
        Box::pin(async move {
            let known = self.tenant.metadata.values();
            Ok(known.filter(|metadata| metric.is_none_or(|name| metadata.metric == name)).cloned().collect())
        })
    }

    fn exemplars<'a>(
        &'a self,
        query: &'a ExemplarQuery,
    ) -> BoxFuture<'a, Result<Vec<SeriesExemplars>, StorageError>> {
        Box::pin(async move {
            let found = self.tenant.exemplars.select(&ExemplarQuery { payer: None, ..query.clone() });
            for SeriesExemplars { labels, exemplars } in &found {
                let bytes = series_bytes(labels) + exemplars.iter().map(exemplar_bytes).sum::<usize>();
                query.payer.as_ref().map_or(Ok(()), |payer| payer.charge(bytes))?;
            }
            Ok(found)
        })
    }

    fn stats(&self, limit: usize) -> StorageStats {
        let mut stats = StorageStats::default();
        let mut by_metric: BTreeMap<String, u64> = BTreeMap::new();
        let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut pairs: BTreeMap<String, u64> = BTreeMap::new();
        for (labels, samples) in &self.tenant.series {
            stats.series += 1;
            *by_metric.entry(labels.get(METRIC_NAME).unwrap_or_default().to_owned()).or_default() += 1;
            for (name, value) in labels {
                values.entry(name.to_owned()).or_default().insert(value.to_owned());
                *pairs.entry(format!("{name}={value}")).or_default() += 1;
            }
            let firsts = [samples.timestamps.first(), samples.histogram_timestamps.first()];
            if let (Some(min), Some(max)) = (firsts.into_iter().flatten().min(), samples.newest()) {
                let range = stats.range.get_or_insert(TimeRange::new(*min, max));
                *range = TimeRange::new(range.min.min(*min), range.max.max(max));
            }
        }
        stats.label_pairs = pairs.len() as u64;
        let bytes = |values: &BTreeSet<String>| values.iter().map(|value| value.len() as u64).sum();
        stats.bytes_by_label =
            largest(values.iter().map(|(name, values)| (name.clone(), bytes(values))), limit);
        stats.values_by_label =
            largest(values.iter().map(|(name, values)| (name.clone(), values.len() as u64)), limit);
        stats.series_by_metric = largest(by_metric, limit);
        stats.series_by_pair = largest(pairs, limit);
        stats
    }
}

fn largest(counts: impl IntoIterator<Item = (String, u64)>, limit: usize) -> Vec<CardinalityEntry> {
    let mut entries: Vec<_> =
        counts.into_iter().map(|(name, value)| CardinalityEntry { name, value }).collect();
    entries.sort_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
    entries.truncate(limit);
    entries
}

/// A selection; everything is there already, so it is its own batch.
struct Selected {
    series: Vec<(Labels, Arc<Samples>)>,
    range: TimeRange,
}

impl SeriesSet for Selected {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.series[index].0.clone()
    }

    fn last_sample(&self, index: usize) -> Option<Sample> {
        let samples = &self.series[index].1;
        if ends_in_histogram(samples) {
            return None;
        }
        Some(Sample::new(*samples.timestamps.last()?, *samples.values.last()?))
    }

    fn read_stats(&self) -> ReadStats {
        ReadStats { memory_series: self.series.len() as u64, ..ReadStats::default() }
    }

    fn fetch<'a>(
        &'a self,
        _: Range<usize>,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesBatch + 'a>, StorageError>> {
        Box::pin(async move {
            let batch: Arc<dyn SeriesBatch + 'a> = Arc::new(Fetched(self));
            Ok(batch)
        })
    }
}

struct Fetched<'a>(&'a Selected);

impl SeriesBatch for Fetched<'_> {
    fn read(&self, index: usize, into: &mut Samples) -> Result<(), StorageError> {
        let samples = &self.0.series[index].1;
        let range = self.0.range;
        let inside = |timestamps: &[i64]| {
            let from = timestamps.partition_point(|t| *t < range.min);
            from..timestamps.partition_point(|t| *t <= range.max).max(from)
        };
        let floats = inside(&samples.timestamps);
        into.timestamps.extend_from_slice(&samples.timestamps[floats.clone()]);
        into.values.extend_from_slice(&samples.values[floats]);
        let histograms = inside(&samples.histogram_timestamps);
        into.histogram_timestamps.extend_from_slice(&samples.histogram_timestamps[histograms.clone()]);
        into.histograms.extend_from_slice(&samples.histograms[histograms]);
        // From the step that the first sample stands on.
        let first = samples.starts.partition_point(|step| step.since <= range.min).saturating_sub(1);
        into.starts.extend(samples.starts[first..].iter().take_while(|step| step.since <= range.max));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::conformance::check(MemoryStorage::new);
        crate::conformance::check_admin(MemoryStorage::new);
        crate::conformance::check_label_limits(MemoryStorage::new);
    }
}
