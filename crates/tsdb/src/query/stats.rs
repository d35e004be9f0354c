//! Counts over the series of a block, from its index.

use chronolith_block::{Block, Result as BlockResult};
use chronolith_index::Count;
use chronolith_model::TimeRange;
use chronolith_storage::{CardinalityEntry, StorageStats};

use super::View;

/// The largest of the counts that are added.
pub(super) struct Top {
    limit: usize,
    best: Vec<CardinalityEntry>,
}

impl Top {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, best: Vec::new() }
    }

    pub(super) fn add(&mut self, name: impl FnOnce() -> String, value: u64) {
        self.best.push(CardinalityEntry { name: name(), value });
        if self.best.len() >= self.limit.saturating_mul(2).max(64) {
            self.settle();
        }
    }

    /// Largest first, equal ones by name.
    fn settle(&mut self) {
        self.best.sort_unstable_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
        self.best.truncate(self.limit);
    }

    pub(super) fn finish(mut self) -> Vec<CardinalityEntry> {
        self.settle();
        self.best
    }
}

impl View {
    /// Counts over the series of the newest block; nothing if there is none, or if it is damaged.
    pub(super) fn block_stats(&self, limit: usize) -> StorageStats {
        let Some(block) = self.blocks_in(TimeRange::ALL).max_by_key(|block| block.meta().spec.range.max)
        else {
            return StorageStats::default();
        };
        of_block(block, limit).unwrap_or_else(|error| {
            self.failed(block, &error);
            StorageStats::default()
        })
    }
}

fn of_block(block: &Block, limit: usize) -> BlockResult<StorageStats> {
    let index = block.index();
    let (mut metrics, mut pairs) = (Top::new(limit), Top::new(limit));
    let walked = index.for_each_metric(&mut |name, ids| {
        if !name.is_empty() {
            metrics.add(|| name.to_owned(), ids.len() as u64);
        }
    });
    let walked = walked.and_then(|()| {
        index.for_each_pair(&mut |pair| pairs.add(|| format!("{}={}", pair.name, pair.value), pair.count))
    });
    walked.map_err(|error| block.index_error(error))?;
    let by_label = |counts: &mut dyn Iterator<Item = Count<'_>>| {
        let mut top = Top::new(limit);
        counts.for_each(|count| top.add(|| count.name.to_owned(), count.count));
        top.finish()
    };
    Ok(StorageStats {
        series: block.meta().series.into(),
        label_pairs: index.pairs_count(),
        chunks: 0,
        range: block.samples_range(),
        series_by_metric: metrics.finish(),
        values_by_label: by_label(&mut index.value_counts()),
        bytes_by_label: by_label(&mut index.value_bytes()),
        series_by_pair: pairs.finish(),
    })
}
