//! Questions about labels, over head and blocks.

use std::collections::BTreeSet;

use chronolith_block::{Block, Result as BlockResult};
use chronolith_model::{Labels, MetricMetadata, TimeRange};
use chronolith_storage::{LabelQuery, Limited, StorageError};
use roaring::RoaringBitmap;

use super::View;

impl View {
    pub(super) fn label_names(&self, query: &LabelQuery) -> Result<Limited<String>, StorageError> {
        let head = self.head.label_names(&query.matcher_sets, query.range, query.limit);
        self.with_blocks(query, head, |block, among| {
            block.index().label_names(among).map_err(|error| block.index_error(error))
        })
    }

    pub(super) fn label_values(
        &self,
        name: &str,
        query: &LabelQuery,
    ) -> Result<Limited<String>, StorageError> {
        let head = self.head.label_values(name, &query.matcher_sets, query.range, query.limit);
        self.with_blocks(query, head, |block, among| {
            block.index().label_values(name, among).map_err(|error| block.index_error(error))
        })
    }

    pub(super) fn series(&self, query: &LabelQuery) -> Result<Limited<Labels>, StorageError> {
        let head = self.head.series(&query.matcher_sets, query.range, query.limit);
        self.with_blocks(query, head, |block, among| match among {
            Some(ids) => block.labels(ids),
            None => block.labels(&(0..block.meta().series).collect()),
        })
    }

    /// The answers of the head and of all blocks in question, sorted, each once.
    fn with_blocks<T: Ord>(
        &self,
        query: &LabelQuery,
        head: Limited<T>,
        ask: impl Fn(&Block, Option<&RoaringBitmap>) -> BlockResult<Vec<T>>,
    ) -> Result<Limited<T>, StorageError> {
        let mut blocks = self.blocks_in(query.range.unwrap_or(TimeRange::ALL)).peekable();
        if blocks.peek().is_none() {
            return Ok(head);
        }
        // What the head has left out is behind what it has answered, and so behind the limit in any case.
        let mut truncated = head.truncated;
        let mut all: BTreeSet<T> = head.items.into_iter().collect();
        for block in blocks {
            let answered = union(block, query).and_then(|ids| match ids {
                Some(ids) if ids.is_empty() => Ok(Vec::new()),
                ids => ask(block, ids.as_ref()),
            });
            all.extend(answered.map_err(|error| self.failed(block, &error))?);
            while query.limit > 0 && all.len() > query.limit {
                all.pop_last();
                truncated = true;
            }
        }
        Ok(Limited { items: all.into_iter().collect(), truncated })
    }

    /// Adds what blocks know of metrics that `known`, sorted, does not have; newer blocks first.
    pub(super) fn add_metadata(
        &self,
        metric: Option<&str>,
        known: &mut Vec<MetricMetadata>,
    ) -> Result<(), StorageError> {
        if metric.is_some() && !known.is_empty() {
            return Ok(());
        }
        let mut blocks: Vec<&Block> = self.blocks_in(TimeRange::ALL).collect();
        blocks.sort_by_key(|block| std::cmp::Reverse(block.meta().spec.range.max));
        for block in blocks {
            let of_block = block.metadata().map_err(|error| self.failed(block, &error))?;
            let known_before = known.len();
            for entry in of_block {
                let wanted = metric.is_none_or(|metric| metric == entry.metric);
                let sorted = known.get(..known_before).unwrap_or_default();
                if wanted && sorted.binary_search_by(|other| other.metric.cmp(&entry.metric)).is_err() {
                    known.push(entry);
                }
            }
            known.sort_by(|a, b| a.metric.cmp(&b.metric));
        }
        Ok(())
    }
}

/// The series that a set of matchers selects; `None`: all.
fn union(block: &Block, query: &LabelQuery) -> BlockResult<Option<RoaringBitmap>> {
    if query.matcher_sets.is_empty() {
        return Ok(None);
    }
    let mut union = RoaringBitmap::new();
    for set in &query.matcher_sets {
        union |= block.select(set)?;
    }
    Ok(Some(union))
}
