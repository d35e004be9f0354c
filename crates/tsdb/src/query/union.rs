//! Counts over the series of head and blocks together, each series once.
//!
//! Every source gives its series in the order of blocks, so that equal ones meet when the sources are merged. Pairs are
//! counted by a 64-bit hash and named at the end, in a second look at what the sources have: memory is 12 bytes and some
//! per pair, not its text.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap, HashMap},
    hash::{BuildHasher as _, RandomState},
    vec,
};

use chronolith_block::{Block, Error as BlockError, series_order};
use chronolith_head::HeadView;
use chronolith_index::CompiledMatcher;
use chronolith_model::{Labels, METRIC_NAME, Matcher, TimeRange};
use chronolith_storage::StorageStats;

use super::{View, stats::Top};

/// At most so many series are read, those that two sources have twice: a second or two.
const SERIES_MAX: u64 = 2_000_000;
/// At most so many pairs are counted: some 60 MB.
const PAIRS_MAX: usize = 1 << 21;
/// At most so many label names are.
const NAMES_MAX: usize = 1 << 16;

/// Why there is no answer.
enum Stop<'a> {
    Block(&'a Block, BlockError),
    /// There is more than may be counted.
    TooMuch,
}

/// The next series of a source; the least comes first out of a heap.
struct Next {
    labels: Labels,
    source: usize,
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        series_order(&other.labels, &self.labels).then_with(|| other.source.cmp(&self.source))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Next {}

type Source<'a> = Box<dyn Iterator<Item = Result<Labels, Stop<'a>>> + 'a>;

/// The series of the head, metric by metric.
struct HeadSeries<'a> {
    view: &'a HeadView,
    metrics: vec::IntoIter<String>,
    /// Of one metric.
    ready: vec::IntoIter<Labels>,
}

impl<'a> HeadSeries<'a> {
    fn new(view: &'a HeadView) -> Self {
        // Those without a name come first.
        let mut metrics = vec![String::new()];
        metrics.extend(view.label_values(METRIC_NAME, &[], None, 0).items);
        Self { view, metrics: metrics.into_iter(), ready: Vec::new().into_iter() }
    }
}

impl Iterator for HeadSeries<'_> {
    type Item = Labels;

    fn next(&mut self) -> Option<Labels> {
        loop {
            if let Some(labels) = self.ready.next() {
                return Some(labels);
            }
            let metric = Matcher::equal(METRIC_NAME, self.metrics.next()?);
            let Ok(matchers) = CompiledMatcher::compile_all(&[metric]) else { continue };
            let mut of_metric = self.view.select(&matchers).labels;
            of_metric.sort_unstable_by(series_order);
            self.ready = of_metric.into_iter();
        }
    }
}

/// What is counted.
struct Counts {
    limit: usize,
    hasher: RandomState,
    pairs: HashMap<u64, u32>,
    /// By label name: values, and their bytes.
    names: BTreeMap<String, (u64, u64)>,
    metrics: Top,
    metric: (String, u64),
}

impl Counts {
    fn pair(&self, name: &str, value: &str) -> u64 {
        self.hasher.hash_one((name, value))
    }

    fn add(&mut self, labels: &Labels) -> bool {
        let metric = labels.metric_name().unwrap_or_default();
        if self.metric.0 != metric {
            self.end_metric();
            self.metric = (metric.to_owned(), 0);
        }
        self.metric.1 += 1;
        for (name, value) in labels {
            let count = self.pairs.entry(self.hasher.hash_one((name, value))).or_default();
            *count += 1;
            if *count == 1 {
                if !self.names.contains_key(name) {
                    self.names.insert(name.to_owned(), (0, 0));
                }
                if let Some((values, bytes)) = self.names.get_mut(name) {
                    *values += 1;
                    *bytes += value.len() as u64;
                }
            }
        }
        self.pairs.len() <= PAIRS_MAX && self.names.len() <= NAMES_MAX
    }

    fn end_metric(&mut self) {
        let (metric, count) = std::mem::take(&mut self.metric);
        if !metric.is_empty() {
            self.metrics.add(|| metric, count);
        }
    }

    /// The least count that has a place in the list of pairs.
    fn least(&self) -> u32 {
        let mut counts: Vec<u32> = self.pairs.values().copied().collect();
        if counts.len() <= self.limit || self.limit == 0 {
            return 0;
        }
        let at = counts.len() - self.limit;
        *counts.select_nth_unstable(at).1
    }

    /// Offers a pair to its list, the first time it comes.
    fn name(&mut self, top: &mut Top, least: u32, name: &str, value: &str) {
        let hash = self.pair(name, value);
        let count = self.pairs.get(&hash).copied().unwrap_or(0);
        if count > 0 && count >= least {
            self.pairs.insert(hash, 0);
            top.add(|| format!("{name}={value}"), count.into());
        }
    }
}

impl View {
    /// Counts for the lists of `status/tsdb` over the series of head and blocks, each once; `None` if there is more than
    /// may be counted, or a block is damaged.
    pub(super) fn union_stats(&self, limit: usize) -> Option<StorageStats> {
        let blocks: Vec<&Block> = self.blocks_in(TimeRange::ALL).collect();
        match self.count(&blocks, limit) {
            Ok(stats) => Some(stats),
            Err(Stop::TooMuch) => None,
            Err(Stop::Block(block, error)) => {
                self.failed(block, &error);
                None
            }
        }
    }

    fn count<'a>(&'a self, blocks: &[&'a Block], limit: usize) -> Result<StorageStats, Stop<'a>> {
        let in_blocks: u64 = blocks.iter().map(|block| u64::from(block.meta().series)).sum();
        let in_head = self.head.stats(1).series;
        if in_blocks + in_head > SERIES_MAX {
            return Err(Stop::TooMuch);
        }
        let of_block = |block: &'a Block| -> Source<'a> {
            let series = block.index().series(0..block.meta().series);
            Box::new(
                series
                    .map(move |labels| labels.map_err(|error| Stop::Block(block, block.index_error(error)))),
            )
        };
        let mut sources: Vec<Source<'a>> = blocks.iter().map(|block| of_block(block)).collect();
        sources.push(Box::new(HeadSeries::new(&self.head).map(Ok)));
        let mut counts = Counts {
            limit,
            hasher: RandomState::new(),
            pairs: HashMap::new(),
            names: BTreeMap::new(),
            metrics: Top::new(limit),
            metric: (String::new(), 0),
        };
        let mut heap = BinaryHeap::with_capacity(sources.len());
        for (source, series) in sources.iter_mut().enumerate() {
            heap.extend(series.next().transpose()?.map(|labels| Next { labels, source }));
        }
        let mut last: Option<Labels> = None;
        let mut series = 0;
        while let Some(Next { labels, source }) = heap.pop() {
            let following = sources.get_mut(source).and_then(Iterator::next).transpose()?;
            heap.extend(following.map(|labels| Next { labels, source }));
            if last.as_ref() == Some(&labels) {
                continue;
            }
            series += 1;
            if !counts.add(&labels) {
                return Err(Stop::TooMuch);
            }
            last = Some(labels);
        }
        drop(sources);
        counts.end_metric();
        self.finish(counts, blocks, series)
    }

    fn finish<'a>(
        &'a self,
        mut counts: Counts,
        blocks: &[&'a Block],
        series: u64,
    ) -> Result<StorageStats, Stop<'a>> {
        let mut pairs = Top::new(counts.limit);
        let least = counts.least();
        let label_pairs = counts.pairs.len() as u64;
        for block in blocks {
            let visited = block
                .index()
                .for_each_pair(&mut |pair| counts.name(&mut pairs, least, pair.name, pair.value));
            visited.map_err(|error| Stop::Block(block, block.index_error(error)))?;
        }
        for labels in HeadSeries::new(&self.head) {
            labels.iter().for_each(|(name, value)| counts.name(&mut pairs, least, name, value));
        }
        let (mut values, mut bytes) = (Top::new(counts.limit), Top::new(counts.limit));
        for (name, (values_of, bytes_of)) in &counts.names {
            values.add(|| name.clone(), *values_of);
            bytes.add(|| name.clone(), *bytes_of);
        }
        Ok(StorageStats {
            series,
            label_pairs,
            series_by_metric: counts.metrics.finish(),
            values_by_label: values.finish(),
            bytes_by_label: bytes.finish(),
            series_by_pair: pairs.finish(),
            ..StorageStats::default()
        })
    }
}
