//! Exemplars of head and blocks.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use chronolith_block::Block;
use chronolith_model::{Exemplar, Labels, TimeRange};
use chronolith_storage::{
    ExemplarQuery, Payer, SeriesExemplars, StorageError,
    exemplars::{exemplar_bytes, series_bytes},
};
use parking_lot::Mutex;
use roaring::RoaringBitmap;

use super::View;
use crate::deletion;

/// At most so many exemplars of blocks are in an answer; the head has its own limit.
const EXEMPLARS_MAX: usize = 1 << 18;

/// Remembers whether it was refused, for those who cannot say so themselves.
#[derive(Debug, Default)]
struct Account {
    payer: Option<Arc<dyn Payer>>,
    refused: Mutex<Option<StorageError>>,
}

impl Payer for Account {
    fn charge(&self, bytes: usize) -> Result<(), StorageError> {
        let Some(payer) = &self.payer else { return Ok(()) };
        payer.charge(bytes).inspect_err(|error| *self.refused.lock() = Some(error.clone()))
    }

    fn give_back(&self, bytes: usize) {
        if let Some(payer) = &self.payer {
            payer.give_back(bytes);
        }
    }
}

impl Account {
    fn check(&self) -> Result<(), StorageError> {
        self.refused.lock().take().map_or(Ok(()), Err)
    }
}

impl View {
    /// The exemplars in question, by series, sorted by timestamp: those of the head behind the last cut, those of blocks before.
    pub(super) fn exemplars(&self, query: &ExemplarQuery) -> Result<Vec<SeriesExemplars>, StorageError> {
        let range = self.shown(query.range);
        let account = Arc::new(Account { payer: query.payer.clone(), ..Account::default() });
        let payer = Some(Arc::clone(&account) as Arc<dyn Payer>);
        let query = ExemplarQuery { matcher_sets: query.matcher_sets.clone(), range, payer };
        if range.min > range.max {
            return Ok(Vec::new());
        }
        let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        let behind = self.version.head_from.boundary().saturating_add(1);
        let of_head =
            ExemplarQuery { range: TimeRange::new(range.min.max(behind), range.max), ..query.clone() };
        let in_head = self.head.exemplars(&of_head);
        account.check()?;
        for SeriesExemplars { labels, mut exemplars } in in_head {
            let deleted = deletion::deleted(&self.version.deletions, &self.tenant, &labels);
            exemplars.retain(|exemplar| !deleted.iter().any(|range| range.contains(exemplar.timestamp)));
            found.insert(labels, exemplars);
        }
        let mut left = Some(EXEMPLARS_MAX);
        for block in self.blocks_in(range).filter(|block| block.meta().exemplars > 0) {
            let in_block = of_block(block, &query, &*account, &mut left);
            let in_block = in_block.map_err(|error| self.failed(block, &error))?;
            account.check()?;
            if left.is_none() {
                break;
            }
            for (labels, mut exemplars) in in_block {
                found.entry(labels).or_default().append(&mut exemplars);
            }
        }
        if left.is_none() {
            let reason = format!("more than {EXEMPLARS_MAX} exemplars; ask for less time or fewer series");
            return Err(StorageError::Invalid { reason });
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

/// What `block` has, paid for by `account`, who knows where that broke off; and no more than are `left`: `None` then.
fn of_block(
    block: &Block,
    query: &ExemplarQuery,
    account: &dyn Payer,
    left: &mut Option<usize>,
) -> chronolith_block::Result<Vec<(Labels, Vec<Exemplar>)>> {
    let mut ids = RoaringBitmap::new();
    for set in &query.matcher_sets {
        ids |= block.select(set)?;
    }
    let mut found: Vec<(u32, Vec<Exemplar>)> = Vec::new();
    let mut paid = true;
    block.visit_exemplars(&ids, query.range, &mut |id, exemplar| {
        *left = left.and_then(|left| left.checked_sub(1));
        paid = account.charge(exemplar_bytes(&exemplar)).is_ok();
        if left.is_none() || !paid {
            return ControlFlow::Break(());
        }
        match found.last_mut() {
            Some((last, all)) if *last == id => all.push(exemplar),
            _ => found.push((id, vec![exemplar])),
        }
        ControlFlow::Continue(())
    })?;
    if left.is_none() || !paid {
        return Ok(Vec::new());
    }
    let with_some: RoaringBitmap = found.iter().map(|(id, _)| *id).collect();
    let mut labels = Vec::new();
    block
        .index()
        .visit_labels(&with_some, &mut |of_series| {
            let paid = account.charge(series_bytes(&of_series)).is_ok();
            labels.push(of_series);
            if paid { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .map_err(|error| block.index_error(error))?;
    Ok(labels.into_iter().zip(found.into_iter().map(|(_, exemplars)| exemplars)).collect())
}
