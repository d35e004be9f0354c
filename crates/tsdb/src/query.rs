//! `storage::Queryable`: head and blocks as one.
//!
//! A view is one version: the blocks of that moment, and the head from where they end. Series are chosen in each block
//! that its range meets and in the head, and merged by labels; samples come one source after another where sources do
//! not overlap, as those of neighbouring blocks and the head mostly do, and else are merged by time.

mod exemplars;
mod hints;
mod labels;
pub(crate) mod merge;
mod set;
mod stats;
mod union;

use std::sync::Arc;

use chronolith_block::{Block, Error as BlockError};
use chronolith_head::HeadView;
use chronolith_model::{Labels, MetricMetadata, TenantId, TimeRange, Timestamp};
use chronolith_storage::{
    BoxFuture, ExemplarQuery, LabelQuery, Limited, Querier, Queryable, SelectRequest, SeriesExemplars,
    SeriesSet, StorageError, StorageStats,
};

use crate::{
    blocks::{BlockSet, TenantBlocks, Version, range_of},
    db::Db,
    error::with_causes,
    losses::Losses,
    metadata::MetadataStore,
};

/// At most so many blocks that are set aside are named in the warnings of a view; a line counts the rest.
const WARNINGS_MAX: usize = 10;

impl Queryable for Db {
    fn querier(&self, tenant: &TenantId, range: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        Ok(Arc::new(DbQuerier { view: self.view(tenant, range), metadata: Arc::clone(&self.metadata) }))
    }

    /// Of all tenants together: samples that come late to one of them cost the others what they have kept of that time.
    fn moment(&self, _: &TenantId, range: TimeRange) -> Option<u64> {
        (range.min >= self.head.floor()).then(|| self.blocks.history.now())
    }

    fn changed_since(&self, _: &TenantId, moment: u64) -> Timestamp {
        self.blocks.history.earliest_since(moment)
    }
}

/// What one tenant saw at a moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    set: Arc<BlockSet>,
    pub(crate) version: Arc<Version>,
    pub(crate) head: Arc<HeadView>,
    blocks: Arc<TenantBlocks>,
    losses: Arc<Losses>,
    pub(crate) tenant: TenantId,
    /// What may be shown: within what was asked for and retention.
    range: TimeRange,
}

impl Db {
    /// What `tenant` sees now in `range`.
    pub(crate) fn view(&self, tenant: &TenantId, range: TimeRange) -> View {
        // The version before the head: what leaves the head later does so after all views of this version.
        let version = self.blocks.version();
        let head = HeadView::open_from(Arc::clone(&self.head), tenant, range, version.head_from);
        let blocks = version.tenants.get(tenant).cloned().unwrap_or_default();
        let range = TimeRange::new(range.min.max(self.head.floor()), range.max);
        let set = Arc::clone(&self.blocks);
        let losses = Arc::clone(&self.store.losses);
        View { set, version, head: Arc::new(head), blocks, losses, tenant: tenant.clone(), range }
    }
}

impl View {
    /// What of `range` is shown.
    fn shown(&self, range: TimeRange) -> TimeRange {
        TimeRange::new(range.min.max(self.range.min), range.max.min(self.range.max))
    }

    /// The blocks that have to do with `range`.
    fn blocks_in(&self, range: TimeRange) -> impl Iterator<Item = &Block> {
        let range = self.shown(range);
        let concerned = move |block: &&Block| range.min <= range.max && range_of(block).overlaps(&range);
        self.blocks.blocks.iter().filter(concerned)
    }

    /// What to tell of an error of a block; one that is damaged is set aside, so that the same question is answered
    /// without it the next time.
    fn failed(&self, block: &Block, error: &BlockError) -> StorageError {
        let mut reason = with_causes(error);
        if error.is_damage() {
            self.set.quarantine(&self.tenant, block, error);
            reason = format!("damaged block set aside, ask again for an answer without it: {reason}");
        }
        StorageError::Unavailable { reason }
    }

    /// What is set aside of what the view is about.
    fn warnings(&self) -> Vec<String> {
        let version = self.set.version();
        // Those that were set aside while the view was in use, too.
        let missing = version.tenants.get(&self.tenant).map(|of| of.missing.as_slice()).unwrap_or_default();
        let needed =
            missing.iter().filter(|missing| missing.range.is_none_or(|range| range.overlaps(&self.range)));
        let mut warnings: Vec<String> = needed
            .map(|missing| format!("damaged block {} is not part of the answer", missing.path.display()))
            .collect();
        let more = warnings.len().saturating_sub(WARNINGS_MAX);
        if more > 0 {
            warnings.truncate(WARNINGS_MAX);
            warnings.push(format!("{more} more damaged blocks are not part of the answer"));
        }
        let mut of_head = self.losses.warnings(&self.tenant, self.range);
        of_head.extend(self.head.unread_warning(self.range));
        let more = of_head.len().saturating_sub(WARNINGS_MAX);
        if more > 0 {
            of_head.truncate(WARNINGS_MAX);
            of_head.push(format!("{more} more places of the head are damaged"));
        }
        warnings.extend(of_head);
        warnings
    }
}

/// One tenant's view, to be asked.
#[derive(Debug)]
struct DbQuerier {
    view: View,
    metadata: Arc<MetadataStore>,
}

impl Querier for DbQuerier {
    fn select<'a>(
        &'a self,
        request: &'a SelectRequest,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesSet>, StorageError>> {
        Box::pin(async move { set::select(&self.view, request) })
    }

    /// A block may have to be read from disk.
    fn is_quick(&self, request: &SelectRequest) -> bool {
        self.view.blocks_in(request.range).next().is_none() && self.view.head.is_quick(&request.matchers)
    }

    fn label_names<'a>(
        &'a self,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        Box::pin(async move { self.view.label_names(query) })
    }

    fn label_values<'a>(
        &'a self,
        name: &'a str,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        Box::pin(async move { self.view.label_values(name, query) })
    }

    fn series<'a>(&'a self, query: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<Labels>, StorageError>> {
        Box::pin(async move { self.view.series(query) })
    }

    fn metadata<'a>(
        &'a self,
        metric: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<MetricMetadata>, StorageError>> {
        Box::pin(async move {
            let mut known = self.metadata.get(&self.view.tenant, metric);
            self.view.add_metadata(metric, &mut known)?;
            Ok(known)
        })
    }

    fn exemplars<'a>(
        &'a self,
        query: &'a ExemplarQuery,
    ) -> BoxFuture<'a, Result<Vec<SeriesExemplars>, StorageError>> {
        Box::pin(async move { self.view.exemplars(query) })
    }

    /// Series, pairs, chunks and range are those of the head, as in Prometheus; of the newest block where the head has no
    /// series. The lists are about head and blocks together, unless that is more than may be counted.
    fn stats(&self, limit: usize) -> StorageStats {
        let mut stats = self.view.head.stats(limit);
        let in_head = stats.series > 0;
        if !in_head {
            stats = self.view.block_stats(limit);
        }
        let mut blocks = self.view.blocks_in(TimeRange::ALL);
        let several = blocks.next().is_some() && (in_head || blocks.next().is_some());
        if let Some(union) = several.then(|| self.view.union_stats(limit)).flatten() {
            stats.series_by_metric = union.series_by_metric;
            stats.values_by_label = union.values_by_label;
            stats.bytes_by_label = union.bytes_by_label;
            stats.series_by_pair = union.series_by_pair;
        }
        stats
    }

    fn warnings(&self) -> Vec<String> {
        self.view.warnings()
    }
}
