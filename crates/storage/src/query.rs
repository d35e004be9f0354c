//! Reading.
//!
//! # Contract
//! A [`Querier`] sees everything acknowledged before it was opened, and whatever else was visible then, in one version:
//! no sample twice or not at all because it moves from one place to another. What comes later does not show if it is
//! newer than all that was stored then. Of what is not, late samples and those of series that lag behind, some may show,
//! in their places; what retention drops meanwhile may be gone; and whether a deletion is in force for a view that was
//! open before it is left to the engine. A fetched batch does not change. Only [`Querier::select`] and [`SeriesSet::fetch`] may wait; a fetched
//! [`SeriesBatch`] is read without waiting, from any number of threads.
//!
//! Series of a [`SeriesSet`] are sorted by their labels, each label set once. Samples of a series are sorted by
//! timestamp, one per timestamp. A set may hold series that have no sample in the range; it never holds one that a
//! matcher refuses. [`SeriesBatch::read`] returns exactly the samples inside the range.

use std::{fmt, future::Future, ops::Range, pin::Pin, sync::Arc};

use chronolith_index::CompiledMatcher;
pub use chronolith_model::StartTimestamp;
use chronolith_model::{Exemplar, Histogram, Labels, MetricMetadata, Sample, TenantId, TimeRange, Timestamp};

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

    /// This moment, for who keeps what is made of a view of `range` that is opened from now on. `None` where it cannot be
    /// told what changes later: retention reaches into `range`, or the engine does not know.
    fn moment(&self, tenant: &TenantId, range: TimeRange) -> Option<u64> {
        let _ = (tenant, range);
        None
    }

    /// The earliest timestamp, in milliseconds, at which a view may show something else than one that was opened at or after
    /// `moment`, [`Timestamp::MAX`] if there is none; but for what [`Querier::warnings`] warned of.
    fn changed_since(&self, tenant: &TenantId, moment: u64) -> Timestamp {
        let _ = (tenant, moment);
        Timestamp::MIN
    }
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
    /// Conditions a series must meet, all of them. Not empty. They come compiled: who asks has accounted for their memory.
    pub matchers: Vec<CompiledMatcher>,
    /// Samples wanted, both ends included.
    pub range: TimeRange,
    /// Advice.
    pub hints: SelectHints,
}

/// Who pays for an answer while it grows.
pub trait Payer: fmt::Debug + Send + Sync {
    /// Pays for `bytes` more of memory.
    ///
    /// # Errors
    /// When they are refused; the question then ends with this error.
    fn charge(&self, bytes: usize) -> Result<(), StorageError>;

    /// Takes back `bytes` that were charged.
    fn give_back(&self, bytes: usize);
}

/// A question about labels.
#[derive(Clone, Debug, Default)]
pub struct LabelQuery {
    /// Each set is a selection; the answer is their union. Empty = every series.
    pub matcher_sets: Vec<Vec<CompiledMatcher>>,
    /// Time of interest; engines may answer for a wider one.
    pub range: Option<TimeRange>,
    /// At most so many answers, 0 = no limit.
    pub limit: usize,
    /// Is charged with what the engine holds of the answer, before the engine takes it; whoever asks settles what is left
    /// then. An engine may hold less than it has charged, and one that does not grow with its data may charge nothing.
    pub payer: Option<Arc<dyn Payer>>,
}

/// A question about exemplars.
#[derive(Clone, Debug)]
pub struct ExemplarQuery {
    /// Each set is a selection of series; the answer is their union.
    pub matcher_sets: Vec<Vec<CompiledMatcher>>,
    /// Exemplars wanted, both ends included.
    pub range: TimeRange,
    /// As [`LabelQuery::payer`].
    pub payer: Option<Arc<dyn Payer>>,
}

/// The exemplars of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// The labels of the series.
    pub labels: Labels,
    /// Sorted by timestamp.
    pub exemplars: Vec<Exemplar>,
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

    /// Whether to select what meets `request`, and to fetch it, surely takes less than about a millisecond: nothing is read
    /// from disk for it, and few values and series are looked at. Said without doing it. An engine that cannot tell says no.
    fn is_quick(&self, request: &SelectRequest) -> bool {
        let _ = request;
        false
    }

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

    /// The exemplars in question, by series, sorted by labels; series without any are left out. None of an engine that
    /// keeps none.
    fn exemplars<'a>(
        &'a self,
        query: &'a ExemplarQuery,
    ) -> BoxFuture<'a, Result<Vec<SeriesExemplars>, StorageError>> {
        let _ = query;
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Counts for `status/tsdb`, each list at most `limit` long, largest first.
    fn stats(&self, limit: usize) -> StorageStats;

    /// What the view lacks of its range, a line each for people: damaged data that was set aside. Few, each once.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Where the series of a set are, and what reading them has taken so far. An engine counts what it knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Series that have samples in memory, in a head.
    pub memory_series: u64,
    /// Series in blocks; one that is in several of them counts in each.
    pub block_series: u64,
    /// Blocks that have any of the series.
    pub blocks: u64,
    /// Frames of samples that were opened in blocks; one that was opened again counts again.
    pub frames: u64,
    /// Pieces of blocks, frames and what they are found by, that were in the cache when they were needed.
    pub cache_hits: u64,
    /// Pieces that were not.
    pub cache_misses: u64,
    /// Bytes that were read from storage for them.
    pub read_bytes: u64,
    /// Bytes that were copied out of memory.
    pub copied_bytes: u64,
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

    /// The newest sample of series `index` in this view, whatever the selected range, where it is a float and known
    /// without fetching. An engine that cannot tell says `None`.
    fn last_sample(&self, index: usize) -> Option<Sample> {
        let _ = index;
        None
    }

    /// What there is to tell people of how the series are read; that of a batch is among it when the batch is gone.
    fn read_stats(&self) -> ReadStats {
        ReadStats::default()
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

    /// Bytes that were copied for it, as long as it lives; who fetches pays for them. What it shares with others, whose
    /// memory is accounted for, does not count.
    fn bytes(&self) -> usize {
        0
    }
}

/// Samples of one series as columns, sorted by timestamp: floats, and histograms beside them. Stale markers are among
/// both. No timestamp is in both.
#[derive(Clone, Default, PartialEq)]
pub struct Samples {
    /// When the floats were, in milliseconds, strictly increasing.
    pub timestamps: Vec<Timestamp>,
    /// One float per timestamp.
    pub values: Vec<f64>,
    /// When the histograms were, in milliseconds, strictly increasing.
    pub histogram_timestamps: Vec<Timestamp>,
    /// One histogram per timestamp of histograms.
    pub histograms: Vec<Histogram>,
    /// Since when the counter has been counting, where that is known: a step function, sorted by
    /// [`StartTimestamp::since`]. Samples before the first step have none.
    pub starts: Vec<StartTimestamp>,
}

impl Samples {
    /// How many floats.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Bytes of memory behind it, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let floats = self.timestamps.capacity() * (size_of::<Timestamp>() + size_of::<f64>());
        let histograms: usize = self.histograms.iter().map(Histogram::heap_bytes).sum();
        let places = self.histogram_timestamps.capacity() * (size_of::<Timestamp>() + size_of::<Histogram>());
        floats + histograms + places + self.starts.capacity() * size_of::<StartTimestamp>()
    }

    /// Whether there is no float.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Forgets all samples, keeps the memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.histogram_timestamps.clear();
        self.histograms.clear();
        self.starts.clear();
    }

    /// Adds a float behind the last sample.
    pub fn push(&mut self, timestamp: Timestamp, value: f64) {
        self.timestamps.push(timestamp);
        self.values.push(value);
    }

    /// Adds a histogram behind the last sample.
    pub fn push_histogram(&mut self, timestamp: Timestamp, histogram: Histogram) {
        self.histogram_timestamps.push(timestamp);
        self.histograms.push(histogram);
    }

    /// Notes that the sample at `timestamp`, the newest, has this start; 0 = not known.
    pub fn push_start(&mut self, timestamp: Timestamp, start: Timestamp) {
        StartTimestamp::push(&mut self.starts, timestamp, start);
    }

    /// Since when the counter had been counting at the sample at `timestamp`, in milliseconds; 0 = not known.
    #[must_use]
    pub fn start_at(&self, timestamp: Timestamp) -> Timestamp {
        StartTimestamp::at(&self.starts, timestamp)
    }

    /// The timestamp of the newest sample of either kind.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.timestamps.last().max(self.histogram_timestamps.last()).copied()
    }
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        list.entries(self.timestamps.iter().zip(&self.values));
        list.entries(self.histogram_timestamps.iter().zip(&self.histograms));
        list.entries(&self.starts).finish()
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
