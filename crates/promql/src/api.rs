//! What callers of the engine see.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use chronolith_model::{FloatHistogram, Labels, TenantId, Timestamp};
use chronolith_storage::{MemoryBudget, StorageError};
use chronolith_syntax::{ParseError, ParseOptions};
use parking_lot::Mutex;

use crate::limits::Ledger;

/// Limits and defaults of an [`Engine`].
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How far an instant selector looks back. Prometheus: 5 m.
    pub lookback: Duration,
    /// Longest evaluation. Prometheus: 2 m.
    pub timeout: Duration,
    /// Most samples a query may hold in memory at once. Prometheus: 50 million.
    pub samples_max: usize,
    /// Most bytes a query may hold in memory at once.
    pub memory_max_bytes: usize,
    /// What all queries together, and others, may hold. A query that finds it taken is refused as
    /// [`QueryError::Overloaded`].
    pub memory: MemoryBudget,
    /// What results of range queries that are kept may take together, out of `memory`, bytes; 0 = none is kept.
    pub results_max_bytes: usize,
    /// Most series one query may select.
    pub series_max: usize,
    /// Queries evaluated at once; others wait. Prometheus: 20.
    pub concurrency_max: usize,
    /// The step of subqueries that name none. Prometheus: its evaluation interval, 1 m.
    pub subquery_step: Duration,
    /// Threads of the evaluation pool, 0 = one per core.
    pub threads: usize,
    /// What the parser accepts.
    pub parse: ParseOptions,
    /// Drop metric names at the very end rather than at each operator (experimental).
    pub delayed_name_removal: bool,
    /// Let `rate`, `increase`, `irate` and `resets` use what is known of the time a counter began to count, and
    /// `start_timestamp` show it (experimental).
    pub use_start_timestamps: bool,
    /// Rely on the label `__type__` rather than on the metric's name to tell what is a counter (experimental).
    pub type_and_unit_labels: bool,
    /// The statistics of a query by step may be told to those who ask the API for them (experimental). Results have them
    /// anyway.
    pub per_step_stats: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(300),
            timeout: Duration::from_secs(120),
            samples_max: 50_000_000,
            memory_max_bytes: 1 << 30,
            memory: MemoryBudget::unlimited(),
            results_max_bytes: 64 << 20,
            series_max: 1_000_000,
            concurrency_max: 20,
            subquery_step: Duration::from_secs(60),
            threads: 0,
            parse: ParseOptions::default(),
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
            per_step_stats: false,
        }
    }
}

/// Tells a running query to stop; clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    canceled: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl CancelToken {
    /// Asks the query to stop; it does so within 100 ms.
    pub fn cancel(&self) {
        self.0.canceled.store(true, Ordering::SeqCst);
        for waker in self.0.waiting.lock().drain(..) {
            waker.wake();
        }
    }

    /// Whether it was asked to.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.0.canceled.load(Ordering::SeqCst)
    }

    /// Wakes `waker` when the query is asked to stop; replaces wakers of finished waits of the same task.
    pub(crate) fn wake_on_cancel(&self, waker: &Waker) {
        let mut waiting = self.0.waiting.lock();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.truncate(WAITING_MAX - 1);
            waiting.push(waker.clone());
        }
    }
}

/// Tasks that one token wakes; a query waits in one task at a time.
const WAITING_MAX: usize = 16;

/// A query to run: at one time if `step` is `None` (then `start == end`), else at `start`, `start + step`, ... up to
/// `end`, all in milliseconds.
#[derive(Clone, Debug)]
pub struct Query {
    /// Whose data.
    pub tenant: TenantId,
    /// PromQL.
    pub text: String,
    /// First evaluation time.
    pub start: Timestamp,
    /// Last evaluation time, inclusive.
    pub end: Timestamp,
    /// Milliseconds between evaluations, positive; `None` = instant query.
    pub step: Option<i64>,
    /// Overrides [`EngineOptions::lookback`].
    pub lookback: Option<Duration>,
    /// Shortens [`EngineOptions::timeout`].
    pub timeout: Option<Duration>,
    /// What was kept of earlier results may be used, and this one kept: a range query then reads, and counts in its
    /// statistics, no more than what has changed.
    pub reuse: bool,
    /// Stops the query from outside.
    pub cancel: CancelToken,
}

impl Query {
    /// An instant query of the default tenant.
    pub fn instant(text: impl Into<String>, time: Timestamp) -> Self {
        Self {
            tenant: TenantId::default(),
            text: text.into(),
            start: time,
            end: time,
            step: None,
            lookback: None,
            timeout: None,
            reuse: false,
            cancel: CancelToken::default(),
        }
    }

    /// A range query of the default tenant.
    pub fn range(text: impl Into<String>, start: Timestamp, end: Timestamp, step: i64) -> Self {
        Self { start, end, step: Some(step), ..Self::instant(text, start) }
    }
}

/// What a sample says.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleValue {
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

impl SampleValue {
    /// The number, if it is one.
    #[must_use]
    pub const fn float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Histogram(_) => None,
        }
    }
}

/// An element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct InstantSample {
    /// Its labels.
    pub labels: Labels,
    /// The evaluation time.
    pub timestamp: Timestamp,
    /// Its value.
    pub value: SampleValue,
}

/// A series of a range result, or of an instant query for a range vector. Floats and histograms are apart, no time is in
/// both, and one of them at least is not empty.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeSeries {
    /// Its labels.
    pub labels: Labels,
    /// Times and floats, sorted by time.
    pub points: Vec<(Timestamp, f64)>,
    /// Times and histograms, sorted by time.
    pub histograms: Vec<(Timestamp, Arc<FloatHistogram>)>,
}

impl RangeSeries {
    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.points.is_empty() && self.histograms.is_empty()
    }
}

/// The value of a query. Range queries always give a matrix.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One float.
    Scalar {
        /// Evaluation time.
        timestamp: Timestamp,
        /// The float.
        value: f64,
    },
    /// One text.
    String {
        /// Evaluation time.
        timestamp: Timestamp,
        /// The text.
        value: String,
    },
    /// One sample per series, in result order.
    Vector(Vec<InstantSample>),
    /// Samples by series, sorted by labels.
    Matrix(Vec<RangeSeries>),
}

/// What a query cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryStats {
    /// As Prometheus counts `totalQueryableSamples`.
    pub total_queryable_samples: u64,
    /// The same per step, `(timestamp, samples)`.
    pub samples_per_step: Vec<(Timestamp, u64)>,
    /// Most samples held at once.
    pub peak_samples: u64,
    /// Time spent waiting for a place among the running queries.
    pub queue_time: Duration,
    /// Time spent on parsing, planning and selecting series.
    pub prepare_time: Duration,
    /// Time spent on evaluation.
    pub eval_time: Duration,
    /// Time spent on sorting the result.
    pub sort_time: Duration,
}

/// What is kept of the results of range queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResultCacheStats {
    /// About the memory they take.
    pub bytes: usize,
    /// How many.
    pub results: usize,
    /// Queries that have used one.
    pub hits: u64,
}

/// A value and what came with it.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryResult {
    /// The value.
    pub value: Value,
    /// Rendered as the API shows them, `PromQL warning: ... (1:10)`, without repeats, at most ten and a count.
    pub warnings: Vec<String>,
    /// `PromQL info: ...`
    pub infos: Vec<String>,
    /// What it cost.
    pub stats: QueryStats,
    /// The memory it is charged with.
    pub memory: ResultMemory,
}

/// What a query still holds of the memory all queries share, for its result and what is made of it; given back when the
/// last clone is dropped.
/// Equal to any other.
#[derive(Clone, Debug, Default)]
pub struct ResultMemory(pub(crate) Option<Arc<Ledger>>);

impl ResultMemory {
    /// Charges `bytes` more to the query, for what is made of its result.
    ///
    /// # Errors
    /// As a query that needs too much.
    pub fn charge(&self, bytes: usize) -> Result<(), QueryError> {
        self.0.as_ref().map_or(Ok(()), |ledger| ledger.charge(0, bytes))
    }

    /// Charges exactly `bytes` instead of all that is charged so far: for what is left when the rest is gone. Nobody else
    /// may charge meanwhile.
    ///
    /// # Errors
    /// As a query that needs too much; then all of it stays charged.
    pub fn settle(&self, bytes: usize) -> Result<(), QueryError> {
        self.0.as_ref().map_or(Ok(()), |ledger| ledger.settle(bytes))
    }

    /// Takes back `bytes` that were charged.
    pub fn give_back(&self, bytes: usize) {
        if let Some(ledger) = &self.0 {
            ledger.give_back(bytes);
        }
    }

    /// Bytes charged now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |ledger| ledger.bytes())
    }
}

impl PartialEq for ResultMemory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Why a query failed. The texts are Prometheus'.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The text is no query, or of a type that cannot be asked this way.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The parameters do not fit the query, e.g. a range query for a range vector.
    #[error("{0}")]
    BadData(String),
    /// Evaluation failed: duplicate label sets, many-to-many matching, a limit ...
    #[error("{0}")]
    Execution(String),
    /// Out of time; the text names the stage.
    #[error("query timed out in {0}")]
    Timeout(&'static str),
    /// Canceled from outside; the text names the stage.
    #[error("query was canceled in {0}")]
    Canceled(&'static str),
    /// Not now: too many wait already, or the memory that all queries share is taken. Retry later.
    #[error("{0}")]
    Overloaded(String),
    /// Storage failed.
    #[error("{0}")]
    Storage(StorageError),
}
