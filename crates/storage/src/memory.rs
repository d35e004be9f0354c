//! Storage in memory: the reference that shows what the contract means, and what tests of the layers above stand on.
//!
//! No log, no chunks, no limits; a view is a copy-on-write snapshot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
};

use chronolith_index::CompiledMatcher;
use chronolith_model::{Labels, METRIC_NAME, Matcher, MetricMetadata, Sample, TenantId, TimeRange};
use parking_lot::Mutex;

use crate::{
    append::{
        AppendOutcome, AppendedBatch, Appender, KeyHasher, RejectReason, SeriesEntry, SeriesKey, Ticket,
        WriteBatch,
    },
    error::StorageError,
    query::{
        BoxFuture, CardinalityEntry, LabelQuery, Limited, Querier, Queryable, Samples, SelectRequest,
        SeriesBatch, SeriesSet, StorageStats,
    },
};

/// An [`Appender`] and [`Queryable`] that keeps everything in memory for as long as it lives. In-order samples only.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    tenants: Mutex<HashMap<TenantId, Arc<Tenant>>>,
}

#[derive(Clone, Debug, Default)]
struct Tenant {
    series: BTreeMap<Labels, Arc<Samples>>,
    aliases: HashMap<SeriesKey, Labels>,
    metadata: BTreeMap<String, MetricMetadata>,
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
        let range = entry.samples.start as usize..entry.samples.end as usize;
        let samples = batch.samples.get(range).unwrap_or_default();
        let labels = match self.aliases.get(&entry.key) {
            Some(labels) => labels.clone(),
            None => match batch.labels.labels(index) {
                Ok(labels) => {
                    self.aliases.insert(entry.key, labels.clone());
                    labels
                }
                Err(reason) => return outcome.reject(reason, index, None, samples.len() as u64),
            },
        };
        let stored = Arc::make_mut(self.series.entry(labels.clone()).or_default());
        for sample in samples {
            match verdict(stored, sample) {
                Ok(true) => {
                    stored.push(sample.timestamp, sample.value);
                    outcome.stored += 1;
                }
                Ok(false) => outcome.duplicates += 1,
                Err(reason) => outcome.reject(reason, index, Some(&labels), 1),
            }
        }
    }
}

/// Whether `sample` is new; `Ok(false)` for a repetition of the newest one.
fn verdict(stored: &Samples, sample: &Sample) -> Result<bool, RejectReason> {
    let (Some(last), Some(existing)) = (stored.timestamps.last(), stored.values.last()) else {
        return Ok(true);
    };
    if sample.timestamp > *last {
        Ok(true)
    } else if sample.timestamp < *last {
        Err(RejectReason::OutOfOrder)
    } else if existing.to_bits() == sample.value.to_bits() {
        Ok(false)
    } else {
        Err(RejectReason::DuplicateTimestamp { timestamp: *last, existing: *existing, new: sample.value })
    }
}

impl Queryable for MemoryStorage {
    fn querier(&self, tenant: &TenantId, _: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        Ok(Arc::new(View { tenant: self.view(tenant) }))
    }
}

/// One version of a tenant's data.
struct View {
    tenant: Arc<Tenant>,
}

impl View {
    fn matching(&self, matchers: &[Matcher]) -> Result<Vec<(&Labels, &Arc<Samples>)>, StorageError> {
        let compiled = CompiledMatcher::compile_all(matchers)
            .map_err(|error| StorageError::Invalid { reason: error.to_string() })?;
        let selected = |labels: &Labels| {
            compiled.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
        };
        Ok(self.tenant.series.iter().filter(|(labels, _)| selected(labels)).collect())
    }

    fn answer(&self, query: &LabelQuery) -> Result<BTreeSet<Labels>, StorageError> {
        if query.matcher_sets.is_empty() {
            return Ok(self.tenant.series.keys().cloned().collect());
        }
        let mut found = BTreeSet::new();
        for matchers in &query.matcher_sets {
            found.extend(self.matching(matchers)?.into_iter().map(|(labels, _)| labels.clone()));
        }
        Ok(found)
    }
}

/// The first `limit` of `items`, or all for 0.
fn limited<T>(items: impl IntoIterator<Item = T>, limit: usize) -> Limited<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    let truncated = limit > 0 && items.len() > limit;
    if truncated {
        items.truncate(limit);
    }
    Limited { items, truncated }
}

impl Querier for View {
    fn select<'a>(
        &'a self,
        request: &'a SelectRequest,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesSet>, StorageError>> {
        Box::pin(async move {
            let series = self.matching(&request.matchers)?.into_iter();
            let series = series.map(|(labels, samples)| (labels.clone(), Arc::clone(samples))).collect();
            let set: Arc<dyn SeriesSet> = Arc::new(Selected { series, range: request.range });
            Ok(set)
        })
    }

    fn label_names<'a>(
        &'a self,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        Box::pin(async move {
            let mut names = BTreeSet::new();
            for labels in self.answer(query)? {
                names.extend(labels.iter().map(|(name, _)| name.to_owned()));
            }
            Ok(limited(names, query.limit))
        })
    }

    fn label_values<'a>(
        &'a self,
        name: &'a str,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        Box::pin(async move {
            let series = self.answer(query)?;
            let values: BTreeSet<String> =
                series.iter().filter_map(|labels| labels.get(name)).map(str::to_owned).collect();
            Ok(limited(values, query.limit))
        })
    }

    fn series<'a>(&'a self, query: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<Labels>, StorageError>> {
        Box::pin(async move { Ok(limited(self.answer(query)?, query.limit)) })
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
            if let (Some(min), Some(max)) = (samples.timestamps.first(), samples.timestamps.last()) {
                let range = stats.range.get_or_insert(TimeRange::new(*min, *max));
                *range = TimeRange::new(range.min.min(*min), range.max.max(*max));
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
        Some(Sample::new(*samples.timestamps.last()?, *samples.values.last()?))
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
        let from = samples.timestamps.partition_point(|t| *t < self.0.range.min);
        let to = samples.timestamps.partition_point(|t| *t <= self.0.range.max).max(from);
        into.timestamps.extend_from_slice(&samples.timestamps[from..to]);
        into.values.extend_from_slice(&samples.values[from..to]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::conformance::check(MemoryStorage::new);
    }
}
