//! Exemplars of head and blocks.

use std::collections::BTreeMap;

use chronolith_block::Block;
use chronolith_model::{Exemplar, Labels, TimeRange};
use chronolith_storage::{ExemplarQuery, SeriesExemplars, StorageError};
use roaring::RoaringBitmap;

use super::View;
use crate::deletion;

/// At most so many exemplars are in an answer, and among what blocks are asked for.
const EXEMPLARS_MAX: usize = 1 << 18;

impl View {
    /// The exemplars in question, by series, sorted by timestamp. Up to the boundary of the last cut they are those of
    /// blocks: there deletions are for good.
    pub(super) fn exemplars(&self, query: &ExemplarQuery) -> Result<Vec<SeriesExemplars>, StorageError> {
        let range = self.shown(query.range);
        let query = ExemplarQuery { matcher_sets: query.matcher_sets.clone(), range };
        if range.min > range.max {
            return Ok(Vec::new());
        }
        let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        let mut count = 0;
        let behind = self.version.head_from.boundary().saturating_add(1);
        let in_head = TimeRange::new(range.min.max(behind), range.max);
        let in_head = ExemplarQuery { matcher_sets: query.matcher_sets.clone(), range: in_head };
        for SeriesExemplars { labels, mut exemplars } in self.head.exemplars(&in_head) {
            let deleted = deletion::deleted(&self.version.deletions, &self.tenant, &labels);
            exemplars.retain(|exemplar| !deleted.iter().any(|range| range.contains(exemplar.timestamp)));
            count += exemplars.len();
            found.insert(labels, exemplars);
        }
        for block in self.blocks_in(range) {
            if block.meta().exemplars == 0 {
                continue;
            }
            let of_block = of_block(block, &query).map_err(|error| self.failed(block, &error))?;
            for (labels, mut exemplars) in of_block {
                count += exemplars.len();
                if count > EXEMPLARS_MAX {
                    let reason =
                        format!("more than {EXEMPLARS_MAX} exemplars; ask for less time or fewer series");
                    return Err(StorageError::Invalid { reason });
                }
                found.entry(labels).or_default().append(&mut exemplars);
            }
        }
        let settled = found.into_iter().map(|(labels, mut exemplars)| {
            exemplars.sort_by(|a, b| {
                let order = a.timestamp.cmp(&b.timestamp).then_with(|| a.value.total_cmp(&b.value));
                order.then_with(|| a.labels.cmp(&b.labels))
            });
            exemplars.dedup_by(|a, b| {
                (a.timestamp, a.value.to_bits(), &a.labels) == (b.timestamp, b.value.to_bits(), &b.labels)
            });
            SeriesExemplars { labels, exemplars }
        });
        Ok(settled.filter(|of_series| !of_series.exemplars.is_empty()).collect())
    }
}

fn of_block(block: &Block, query: &ExemplarQuery) -> chronolith_block::Result<Vec<(Labels, Vec<Exemplar>)>> {
    let mut ids = RoaringBitmap::new();
    for set in &query.matcher_sets {
        ids |= block.select(set)?;
    }
    let found = block.exemplars(&ids, query.range)?;
    let with_some: RoaringBitmap = found.iter().map(|(id, _)| *id).collect();
    let labels = block.labels(&with_some)?;
    Ok(labels.into_iter().zip(found.into_iter().map(|(_, exemplars)| exemplars)).collect())
}
