//! Questions about labels, over head and blocks.

use std::{borrow::Borrow, collections::BTreeSet, ops::ControlFlow};

use chronolith_block::{Block, Result as BlockResult};
use chronolith_model::{Labels, MetricMetadata, TimeRange};
use chronolith_storage::{LabelQuery, Limited, StorageError};
use roaring::RoaringBitmap;

use super::View;

/// Bytes of an answer beside the text of its labels: an allocation's header, its place in the tree, of whose nodes a
/// third may be free, and in the list that is made of the tree.
const ANSWER_BYTES: usize = 24 + (size_of::<String>() * 3).div_ceil(2) + size_of::<String>();

/// What becomes of an answer, whole or borrowed.
trait Answer: Ord {
    fn text_bytes(&self) -> usize;
}

impl Answer for str {
    fn text_bytes(&self) -> usize {
        self.len()
    }
}

impl Answer for Labels {
    fn text_bytes(&self) -> usize {
        // The counters of what is shared.
        self.size_bytes() + 2 * size_of::<usize>()
    }
}

/// The first answers to a question, each once, paid for before they are kept.
struct Answers<'a, T> {
    query: &'a LabelQuery,
    items: BTreeSet<T>,
    /// There were more than the limit.
    truncated: bool,
    /// Why nobody pays for more.
    refused: Option<StorageError>,
}

impl<'a, T: Ord> Answers<'a, T> {
    fn new(query: &'a LabelQuery) -> Self {
        Self { query, items: BTreeSet::new(), truncated: false, refused: None }
    }

    /// Adds `item`, made by `own` if it is to be kept. `sorted`: no later one of this source sorts before it. Breaks off
    /// where more cannot change anything.
    fn add<Q: Answer + ?Sized>(
        &mut self,
        item: &Q,
        sorted: bool,
        own: impl FnOnce(&Q) -> T,
    ) -> ControlFlow<()>
    where
        T: Borrow<Q>,
    {
        if self.refused.is_some() {
            return ControlFlow::Break(());
        }
        let is_full = self.query.limit > 0 && self.items.len() >= self.query.limit;
        if is_full && self.items.last().is_some_and(|last| last.borrow() < item) {
            self.truncated = true;
            return if sorted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        if self.items.contains(item) {
            return ControlFlow::Continue(());
        }
        if let Some(payer) = &self.query.payer
            && let Err(error) = payer.charge(item.text_bytes() + ANSWER_BYTES)
        {
            self.refused = Some(error);
            return ControlFlow::Break(());
        }
        self.items.insert(own(item));
        if is_full && let Some(last) = self.items.pop_last() {
            self.truncated = true;
            if let Some(payer) = &self.query.payer {
                payer.give_back(last.borrow().text_bytes() + ANSWER_BYTES);
            }
        }
        ControlFlow::Continue(())
    }

    /// Adds what `ask` finds in each block in question, among the series that it is given (`None`: all).
    fn add_blocks(
        &mut self,
        view: &View,
        mut ask: impl FnMut(&mut Self, &Block, Option<&RoaringBitmap>) -> BlockResult<()>,
    ) -> Result<(), StorageError> {
        for block in view.blocks_in(self.query.range.unwrap_or(TimeRange::ALL)) {
            if let Some(error) = self.refused.take() {
                return Err(error);
            }
            let answered = union(block, self.query).and_then(|ids| match ids {
                Some(ids) if ids.is_empty() => Ok(()),
                ids => ask(self, block, ids.as_ref()),
            });
            answered.map_err(|error| view.failed(block, &error))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Limited<T>, StorageError> {
        match self.refused {
            Some(error) => Err(error),
            None => Ok(Limited { items: self.items.into_iter().collect(), truncated: self.truncated }),
        }
    }
}

impl View {
    pub(super) fn label_names(&self, query: &LabelQuery) -> Result<Limited<String>, StorageError> {
        let mut answers = Answers::new(query);
        self.head.visit_label_names(&query.matcher_sets, query.range, &mut |name| {
            answers.add(name, false, str::to_owned)
        });
        answers.add_blocks(self, |answers, block, among| {
            let mut visit = |name: &str| answers.add(name, true, str::to_owned);
            let visited = block.index().visit_label_names(among, &mut visit);
            visited.map_err(|error| block.index_error(error))
        })?;
        answers.finish()
    }

    pub(super) fn label_values(
        &self,
        name: &str,
        query: &LabelQuery,
    ) -> Result<Limited<String>, StorageError> {
        let mut answers = Answers::new(query);
        self.head.visit_label_values(name, &query.matcher_sets, query.range, &mut |value| {
            // The head gives them in pieces that are sorted each.
            answers.add(value, query.matcher_sets.is_empty(), str::to_owned)
        });
        answers.add_blocks(self, |answers, block, among| {
            let mut visit = |value: &str| answers.add(value, true, str::to_owned);
            let visited = block.index().visit_label_values(name, among, &mut visit);
            visited.map_err(|error| block.index_error(error))
        })?;
        answers.finish()
    }

    pub(super) fn series(&self, query: &LabelQuery) -> Result<Limited<Labels>, StorageError> {
        let mut answers = Answers::new(query);
        self.head.visit_series(&query.matcher_sets, query.range, &mut |labels| {
            answers.add(&labels, false, Labels::clone)
        });
        answers.add_blocks(self, |answers, block, among| {
            let sorted = block.index().is_in_order_of_labels();
            let mut visit = |labels: Labels| answers.add(&labels, sorted, Labels::clone);
            let visited = match among {
                Some(ids) => block.index().visit_labels(ids, &mut visit),
                None => block.index().visit_labels(&(0..block.meta().series).collect(), &mut visit),
            };
            visited.map_err(|error| block.index_error(error))
        })?;
        answers.finish()
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
