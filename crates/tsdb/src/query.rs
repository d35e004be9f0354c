//! `storage::Queryable`. Everything is in memory: no future ever waits.

use std::{
    fmt,
    future::ready,
    ops::Range,
    sync::{Arc, OnceLock},
};

use chronolith_head::{Fetched, HeadView, Selection};
use chronolith_index::CompiledMatcher;
use chronolith_model::{Labels, Matcher, MetricMetadata, Sample, TenantId, TimeRange};
use chronolith_storage::{
    BoxFuture, LabelQuery, Limited, Querier, Queryable, Samples, SelectRequest, SeriesBatch, SeriesSet,
    StorageError, StorageStats,
};

use crate::{db::Db, metadata::MetadataStore};

impl Queryable for Db {
    fn querier(&self, tenant: &TenantId, range: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        Ok(Arc::new(DbQuerier {
            view: Arc::new(HeadView::open(Arc::clone(&self.head), tenant, range)),
            metadata: Arc::clone(&self.metadata),
            tenant: tenant.clone(),
        }))
    }
}

/// One tenant's view.
#[derive(Debug)]
struct DbQuerier {
    view: Arc<HeadView>,
    metadata: Arc<MetadataStore>,
    tenant: TenantId,
}

fn compile(matchers: &[Matcher]) -> Result<Vec<CompiledMatcher>, StorageError> {
    CompiledMatcher::compile_all(matchers)
        .map_err(|error| StorageError::Invalid { reason: error.to_string() })
}

fn compile_sets(sets: &[Vec<Matcher>]) -> Result<Vec<Vec<CompiledMatcher>>, StorageError> {
    sets.iter().map(|matchers| compile(matchers)).collect()
}

impl Querier for DbQuerier {
    fn select<'a>(
        &'a self,
        request: &'a SelectRequest,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesSet>, StorageError>> {
        let selected = compile(&request.matchers).map(|matchers| {
            let selection = self.view.select(&matchers);
            let view = Arc::clone(&self.view);
            let set = HeadSet { view, selection, range: request.range, last: OnceLock::new() };
            Arc::new(set) as Arc<dyn SeriesSet>
        });
        Box::pin(ready(selected))
    }

    fn label_names<'a>(
        &'a self,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        let sets = compile_sets(&query.matcher_sets);
        Box::pin(ready(sets.map(|sets| self.view.label_names(&sets, query.range, query.limit))))
    }

    fn label_values<'a>(
        &'a self,
        name: &'a str,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        let sets = compile_sets(&query.matcher_sets);
        Box::pin(ready(sets.map(|sets| self.view.label_values(name, &sets, query.range, query.limit))))
    }

    fn series<'a>(&'a self, query: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<Labels>, StorageError>> {
        let sets = compile_sets(&query.matcher_sets);
        Box::pin(ready(sets.map(|sets| self.view.series(&sets, query.range, query.limit))))
    }

    fn metadata<'a>(
        &'a self,
        metric: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<MetricMetadata>, StorageError>> {
        Box::pin(ready(Ok(self.metadata.get(&self.tenant, metric))))
    }

    fn stats(&self, limit: usize) -> StorageStats {
        self.view.stats(limit)
    }
}

/// Series of the head.
#[derive(Debug)]
struct HeadSet {
    view: Arc<HeadView>,
    selection: Selection,
    range: TimeRange,
    /// All newest samples, looked up when the first is asked for.
    last: OnceLock<Vec<Option<Sample>>>,
}

impl SeriesSet for HeadSet {
    fn len(&self) -> usize {
        self.selection.labels.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.selection.labels[index].clone()
    }

    fn last_sample(&self, index: usize) -> Option<Sample> {
        self.last.get_or_init(|| self.view.last_samples(&self.selection.series))[index]
    }

    fn fetch<'a>(
        &'a self,
        indices: Range<usize>,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesBatch + 'a>, StorageError>> {
        let series = self.selection.series.get(indices.clone()).unwrap_or_default();
        let fetched = self.view.fetch(series, self.range);
        let batch = HeadBatch { set: self, first: indices.start, fetched };
        Box::pin(ready(Ok(Arc::new(batch) as Arc<dyn SeriesBatch + 'a>)))
    }
}

/// Copies of some series' chunks.
struct HeadBatch<'a> {
    set: &'a HeadSet,
    first: usize,
    fetched: Fetched,
}

impl fmt::Debug for HeadBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadBatch").field("first", &self.first).finish_non_exhaustive()
    }
}

impl SeriesBatch for HeadBatch<'_> {
    fn read(&self, index: usize, into: &mut Samples) -> Result<(), StorageError> {
        let Some(at) = index.checked_sub(self.first) else { return Ok(()) };
        self.fetched.read(at, &mut into.timestamps, &mut into.values).map_err(|error| StorageError::Corrupt {
            reason: format!("chunk in memory of {}: {error}", self.set.labels(index)),
        })
    }
}
