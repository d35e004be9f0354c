//! Writing.
//!
//! # Contract
//! [`Appender::append`] applies a batch to memory and queues it for the log; the samples may be visible from then on.
//! They are durable only once [`Ticket::wait`] has returned `Ok`, and nothing may be acknowledged before. The ticket
//! covers everything the call *observed* too: a sample that was already there (a silent duplicate) may still be on
//! its way to disk, and its second sender must wait for the same commit as the first.
//!
//! Samples of one series are taken in the order of the batch. A sample that is refused never keeps another from being
//! stored.

use std::{fmt, ops::Range, time::Duration};

use chronolith_model::{Labels, MetricMetadata, Sample, TenantId, Timestamp};
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

use crate::error::StorageError;

/// Identifies a series by the bytes its sender wrote for its labels: two independent 64-bit hashes under a secret
/// seed. Equal keys are taken for equal labels. Several keys may name one series (labels in another order).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    /// Probed in the alias table.
    pub primary: u64,
    /// Kept beside it and compared.
    pub secondary: u64,
}

/// Makes [`SeriesKey`]s under the seed of one appender.
#[derive(Clone, Copy)]
pub struct KeyHasher {
    primary: RapidSecrets,
    secondary: RapidSecrets,
}

impl KeyHasher {
    /// A hasher under `seed`; use a random one for each start of the process.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // All secrets of both lanes are derived here, once, so that a key costs two passes over its bytes and no more.
        Self { primary: RapidSecrets::seed(seed), secondary: RapidSecrets::seed(!seed) }
    }

    /// The key of `raw`, any unambiguous encoding of a label set. Different encodings must differ in their first
    /// byte or never be equal for different label sets.
    #[must_use]
    #[inline]
    pub fn key(&self, raw: &[u8]) -> SeriesKey {
        SeriesKey {
            primary: rapidhash_v3_seeded(raw, &self.primary),
            secondary: rapidhash_v3_seeded(raw, &self.secondary),
        }
    }
}

/// Says nothing of the secrets.
impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

/// Gives the canonical labels of the series of a batch; asked only for series the engine does not know yet.
pub trait LabelSource {
    /// The labels of the `series`-th entry: sorted, without empty values.
    ///
    /// # Errors
    /// When they are invalid (duplicate or malformed names, no metric name, above a limit); all samples of the entry
    /// are then refused with that reason.
    fn labels(&self, series: usize) -> Result<Labels, RejectReason>;
}

/// One series of a batch.
#[derive(Clone, Debug)]
pub struct SeriesEntry {
    /// Its key.
    pub key: SeriesKey,
    /// Its samples, as a range of [`WriteBatch::samples`].
    pub samples: Range<u32>,
}

/// Samples of many series, as one request brings them.
pub struct WriteBatch<'a> {
    /// The series; one may occur more than once.
    pub series: &'a [SeriesEntry],
    /// The samples of all series.
    pub samples: &'a [Sample],
    /// The labels of the series.
    pub labels: &'a dyn LabelSource,
}

impl fmt::Debug for WriteBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBatch")
            .field("series", &self.series.len())
            .field("samples", &self.samples.len())
            .finish_non_exhaustive()
    }
}

/// Why a sample was refused. The texts are Prometheus' where it has one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// Older than the newest sample of its series, and outside the out-of-order window.
    #[error("out of order sample")]
    OutOfOrder,
    /// Older than retention.
    #[error("out of bounds")]
    OutOfBounds,
    /// Too far ahead of the clock.
    #[error("out of bounds: timestamp is too far in the future")]
    TooFarInFuture,
    /// A different value is known for that timestamp.
    #[error("duplicate sample for timestamp {timestamp}; overrides not allowed: existing {}, new value {}",
            chronolith_model::float::general(*existing), chronolith_model::float::general(*new))]
    DuplicateTimestamp {
        /// Of both samples.
        timestamp: Timestamp,
        /// Known value.
        existing: f64,
        /// Refused value.
        new: f64,
    },
    /// A label set that may not be stored; the text says what is wrong with which label.
    #[error("{0}")]
    InvalidLabels(String),
    /// The limit on active series is reached.
    #[error("per-tenant series limit of {limit} exceeded")]
    SeriesLimit {
        /// The limit.
        limit: u64,
    },
    /// Native histograms are not stored yet.
    #[error("native histograms are not supported yet")]
    HistogramsUnsupported,
}

impl RejectReason {
    /// A short name for metrics: `out_of_order`, `duplicate_timestamp` ...
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::OutOfOrder => "out_of_order",
            Self::OutOfBounds => "out_of_bounds",
            Self::TooFarInFuture => "too_far_in_future",
            Self::DuplicateTimestamp { .. } => "duplicate_timestamp",
            Self::InvalidLabels(_) => "invalid_labels",
            Self::SeriesLimit { .. } => "series_limit",
            Self::HistogramsUnsupported => "histograms_unsupported",
        }
    }
}

/// A refusal kept for the answer and the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// Why.
    pub reason: RejectReason,
    /// Index of the series in the batch.
    pub series: usize,
    /// The series, when its labels are known.
    pub labels: Option<Labels>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppendOutcome {
    /// Samples stored by this call.
    pub stored: u64,
    /// Samples that were there already with the same value; accepted.
    pub duplicates: u64,
    /// Samples refused.
    pub rejected: u64,
    /// The first refusals, at most [`AppendOutcome::REJECTIONS_MAX`].
    pub rejections: Vec<Rejection>,
}

impl AppendOutcome {
    /// How many refusals are kept word for word.
    pub const REJECTIONS_MAX: usize = 10;

    /// Notes that `samples` samples of the `series`-th series were refused.
    pub fn reject(&mut self, reason: RejectReason, series: usize, labels: Option<&Labels>, samples: u64) {
        self.rejected += samples;
        if self.rejections.len() < Self::REJECTIONS_MAX {
            self.rejections.push(Rejection { reason, series, labels: labels.cloned() });
        }
    }
}

/// The promise of a commit.
pub trait Ticket: Send {
    /// Blocks until everything the ticket covers is durable.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when it could not be made durable; the sender must be told to retry.
    fn wait(self: Box<Self>) -> Result<(), StorageError>;

    /// Whether [`Ticket::wait`] would return at once.
    fn is_done(&self) -> bool;
}

/// An applied batch: what became of it, and when it is durable.
pub struct AppendedBatch {
    /// What became of the samples.
    pub outcome: AppendOutcome,
    /// Wait for it before acknowledging anything, whatever the outcome.
    pub ticket: Box<dyn Ticket>,
}

impl fmt::Debug for AppendedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendedBatch").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

/// Takes samples. See the module's contract.
pub trait Appender: Send + Sync {
    /// The hasher for [`SeriesEntry::key`]; the same for the life of the appender.
    fn key_hasher(&self) -> KeyHasher;

    /// Applies `batch` for `tenant`.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] before anything was applied: log failed, memory budget reached, shutting down.
    fn append(&self, tenant: &TenantId, batch: &WriteBatch<'_>) -> Result<AppendedBatch, StorageError>;

    /// Remembers metric metadata, best effort: bounded, the oldest goes first.
    fn append_metadata(&self, tenant: &TenantId, metadata: Vec<MetricMetadata>);
}

/// How long a sender should wait before it retries after [`StorageError::Unavailable`].
pub const RETRY_AFTER: Duration = Duration::from_secs(5);
