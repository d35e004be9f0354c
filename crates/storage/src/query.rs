//! Reading.
//!
//! # Contract
//! A [`Querier`] sees one version of the data from its creation to its end: everything acknowledged before it was
//! opened, and whatever else was visible then. Only [`Querier::select`] and [`SeriesSet::fetch`] may wait; a fetched
//! [`SeriesBatch`] is read without waiting, from any number of threads.
//!
//! Series of a [`SeriesSet`] are sorted by their labels, each label set once. Samples of a series are sorted by
//! timestamp, one per timestamp. A set may hold series that have no sample in the range; it never holds one that a
//! matcher refuses. [`SeriesBatch::read`] returns exactly the samples inside the range.

use std::{fmt, future::Future, ops::Range, pin::Pin, sync::Arc};

use chronolith_model::{Labels, Matcher, MetricMetadata, Sample, TenantId, TimeRange, Timestamp};

use crate::error::StorageError;

/// A boxed future, as object-safe traits need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens views of the data.
pub trait Queryable: Send + Sync {
    /// A view of `tenant`'s data; `range` is the widest range any selection will ask for.
    ///
    /// # Errors
    /// When storage is not ready.
    fn querier(&self, tenant: &TenantId, range: TimeRange) -> Result<Arc<dyn Querier>, StorageError>;
}

/// What the caller will do with a selection; advice only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SelectHints {
    /// Step of the query in milliseconds, 0 for an instant query.
    pub step: i64,
    /// Window of a range selector in milliseconds, else 0.
    pub range: i64,
    /// The innermost function or aggregation around the selector.
    pub function: Option<&'static str>,
}

/// A selection of series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SelectRequest {
    /// Conditions a series must meet, all of them. Not empty.
    pub matchers: Vec<Matcher>,
    /// Samples wanted, both ends included.
    pub range: TimeRange,
    /// Advice.
    pub hints: SelectHints,
}

/// A question about labels.
#[derive(Clone, Debug, Default)]
pub struct LabelQuery {
    /// Each set is a selection; the answer is their union. Empty = every series.
    pub matcher_sets: Vec<Vec<Matcher>>,
    /// Time of interest; engines may answer for a wider one.
    pub range: Option<TimeRange>,
    /// At most so many answers, 0 = no limit.
    pub limit: usize,
}

/// An answer that may have been cut at the limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limited<T> {
    /// The answers, sorted.
    pub items: Vec<T>,
    /// There were more.
    pub truncated: bool,
}

/// A view of one tenant's data.
pub trait Querier: Send + Sync {
    /// The series that meet `request`.
    fn select<'a>(
        &'a self,
        request: &'a SelectRequest,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesSet>, StorageError>>;

    /// The label names of the series in question, sorted.
    fn label_names<'a>(
        &'a self,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>>;

    /// The values of label `name` among the series in question, sorted.
    fn label_values<'a>(
        &'a self,
        name: &'a str,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>>;

    /// The label sets of the series in question, sorted.
    fn series<'a>(&'a self, query: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<Labels>, StorageError>>;

    /// Known metadata by metric name, sorted by name; of one metric if `metric` is given.
    fn metadata<'a>(
        &'a self,
        metric: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<MetricMetadata>, StorageError>>;

    /// Counts for `status/tsdb`, each list at most `limit` long, largest first.
    fn stats(&self, limit: usize) -> StorageStats;
}

/// Series selected, not yet read.
pub trait SeriesSet: Send + Sync {
    /// How many.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The labels of series `index`. Cheap: a reference count, or a small build from interned parts.
    fn labels(&self, index: usize) -> Labels;

    /// The newest sample of series `index` in this view, whatever the selected range, where it is known without
    /// fetching. An engine that cannot tell says `None`.
    fn last_sample(&self, index: usize) -> Option<Sample> {
        let _ = index;
        None
    }

    /// Makes the samples of the series in `indices` readable without waiting.
    fn fetch<'a>(
        &'a self,
        indices: Range<usize>,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesBatch + 'a>, StorageError>>;
}

/// Fetched series.
pub trait SeriesBatch: Send + Sync {
    /// Appends the samples of series `index` (an index of the set, inside the fetched range) to `into`.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when stored bytes are damaged.
    fn read(&self, index: usize, into: &mut Samples) -> Result<(), StorageError>;
}

/// Samples of one series as columns, sorted by timestamp. Stale markers are among them.
#[derive(Clone, Default, PartialEq)]
pub struct Samples {
    /// Milliseconds, strictly increasing.
    pub timestamps: Vec<Timestamp>,
    /// One value per timestamp.
    pub values: Vec<f64>,
}

impl Samples {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Forgets all samples, keeps the memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
    }

    /// Adds a sample behind the last.
    pub fn push(&mut self, timestamp: Timestamp, value: f64) {
        self.timestamps.push(timestamp);
        self.values.push(value);
    }
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.timestamps.iter().zip(&self.values)).finish()
    }
}

/// A name with a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardinalityEntry {
    /// Metric name, label name or `name=value`.
    pub name: String,
    /// The count.
    pub value: u64,
}

/// Counts over the series in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageStats {
    /// Active series.
    pub series: u64,
    /// Distinct (name, value) pairs.
    pub label_pairs: u64,
    /// Chunks in memory.
    pub chunks: u64,
    /// Oldest and newest sample; `None` when there is none.
    pub range: Option<TimeRange>,
    /// Series per metric name.
    pub series_by_metric: Vec<CardinalityEntry>,
    /// Values per label name.
    pub values_by_label: Vec<CardinalityEntry>,
    /// Bytes of the values per label name.
    pub bytes_by_label: Vec<CardinalityEntry>,
    /// Series per `name=value`.
    pub series_by_pair: Vec<CardinalityEntry>,
}
