//! Writing.
//!
//! # Contract
//! [`Appender::append`] applies a batch to memory and queues it for the log; the samples may be visible from then on.
//! They are durable only once [`Ticket::wait`] has returned `Ok`, and nothing may be acknowledged before. The ticket
//! covers everything the call *observed* too: a sample that was already there (a silent duplicate) may still be on
//! its way to disk, and its second sender must wait for the same commit as the first.
//!
//! Samples of one series are taken in the order of the batch, of one entry by time, the float first of two at one time (an engine
//! that takes no late samples may take all floats first). A sample that is refused
//! never keeps another from being stored. A series holds one sample per timestamp, a float or a histogram. A stale marker
//! among the floats of a series whose newest sample is a histogram is stored as a stale histogram. A histogram is stored
//! under the hint it deserves behind the sample before it ([`Histogram::hint_after`]; nothing is known behind a float).
//!
//! A sample that is not newer than the newest of its series is late. If the engine still knows one of its timestamp, it is a
//! silent duplicate when the two are equal, else refused. If not, an engine that takes late samples takes it, at its place,
//! back to a window's end; where it knew no more of a sample it has, the first stays the one that is read.
//!
//! An engine says by [`Appender::stores`] what beyond float samples it keeps. Histograms are only given to one that keeps
//! them; start timestamps and exemplars are dropped by one that does not.

use std::{fmt, ops::Range, time::Duration};

#[cfg(doc)]
use chronolith_model::Histogram;
use chronolith_model::{
    Exemplar, HistogramError, HistogramSample, Labels, MetricMetadata, Sample, TenantId, Timestamp,
    labels::{LABELS_BYTES_MAX, LABELS_MAX},
};
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

/// Refuses labels that are too many or too long for any engine: an engine asks before it defines a series, for what stands
/// in a log must be read back from it.
///
/// # Errors
/// [`RejectReason::InvalidLabels`] beyond [`LABELS_MAX`] or [`LABELS_BYTES_MAX`].
pub fn check_label_limits(labels: &Labels) -> Result<(), RejectReason> {
    let (count, bytes) = (labels.len(), labels.size_bytes());
    if count > LABELS_MAX {
        let text = format!("series has {count} labels, the limit is {LABELS_MAX}");
        return Err(RejectReason::InvalidLabels { fault: LabelFault::TooMany, text });
    }
    if bytes > LABELS_BYTES_MAX {
        let text = format!("labels of series are {bytes} bytes, the limit is {LABELS_BYTES_MAX}");
        return Err(RejectReason::InvalidLabels { fault: LabelFault::TooLong, text });
    }
    Ok(())
}

/// One series of a batch.
#[derive(Clone, Debug)]
pub struct SeriesEntry {
    /// Its key.
    pub key: SeriesKey,
    /// Its float samples, as a range of [`WriteBatch::samples`].
    pub samples: Range<u32>,
    /// Its histograms, as a range of [`WriteBatch::histograms`].
    pub histograms: Range<u32>,
    /// Since when the counter has been counting that these samples are of, in milliseconds; 0 = not said. Samples of one
    /// series with different ones come in several entries.
    pub start_timestamp: Timestamp,
}

impl SeriesEntry {
    /// An entry of float samples without a start timestamp.
    #[must_use]
    pub const fn of_samples(key: SeriesKey, samples: Range<u32>) -> Self {
        Self { key, samples, histograms: 0..0, start_timestamp: 0 }
    }

    /// How many samples it has, of both kinds.
    #[must_use]
    pub const fn len(&self) -> usize {
        let (floats, histograms) = (&self.samples, &self.histograms);
        floats.end.saturating_sub(floats.start) as usize
            + histograms.end.saturating_sub(histograms.start) as usize
    }

    /// Whether it has no sample.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Samples of many series, as one request brings them.
pub struct WriteBatch<'a> {
    /// The series; one may occur more than once.
    pub series: &'a [SeriesEntry],
    /// The float samples of all series.
    pub samples: &'a [Sample],
    /// The histograms of all series; valid ones. Empty unless the engine [stores](Appender::stores) histograms.
    pub histograms: &'a [HistogramSample],
    /// The labels of the series.
    pub labels: &'a dyn LabelSource,
}

impl<'a> WriteBatch<'a> {
    /// A batch without histograms.
    #[must_use]
    pub const fn of_samples(
        series: &'a [SeriesEntry],
        samples: &'a [Sample],
        labels: &'a dyn LabelSource,
    ) -> Self {
        Self { series, samples, histograms: &[], labels }
    }

    /// The earliest timestamp of a sample, milliseconds.
    #[must_use]
    pub fn earliest(&self) -> Option<Timestamp> {
        let floats = self.samples.iter().map(|sample| sample.timestamp).min();
        let histograms = self.histograms.iter().map(|sample| sample.timestamp).min();
        floats.into_iter().chain(histograms).min()
    }

    /// The float samples of an entry.
    #[must_use]
    pub fn samples_of(&self, entry: &SeriesEntry) -> &'a [Sample] {
        self.samples.get(entry.samples.start as usize..entry.samples.end as usize).unwrap_or_default()
    }

    /// The histograms of an entry.
    #[must_use]
    pub fn histograms_of(&self, entry: &SeriesEntry) -> &'a [HistogramSample] {
        self.histograms
            .get(entry.histograms.start as usize..entry.histograms.end as usize)
            .unwrap_or_default()
    }
}

impl fmt::Debug for WriteBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBatch")
            .field("series", &self.series.len())
            .field("samples", &self.samples.len())
            .field("histograms", &self.histograms.len())
            .finish_non_exhaustive()
    }
}

/// What is wrong with a label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LabelFault {
    /// It is not encoded as labels are.
    Malformed,
    /// A label has no name.
    NoName,
    /// A name or a value is not UTF-8.
    NotText,
    /// There is no metric name.
    NoMetricName,
    /// A name occurs twice.
    Duplicate,
    /// More labels than are allowed.
    TooMany,
    /// More bytes in all than are allowed.
    TooLong,
    /// A name of more bytes than are allowed.
    NameTooLong,
    /// A value of more bytes than are allowed.
    ValueTooLong,
    /// Something inside the server.
    Internal,
}

impl LabelFault {
    /// A short name of it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoName => "no_name",
            Self::NotText => "not_text",
            Self::NoMetricName => "no_metric_name",
            Self::Duplicate => "duplicate",
            Self::TooMany => "too_many",
            Self::TooLong => "too_long",
            Self::NameTooLong => "name_too_long",
            Self::ValueTooLong => "value_too_long",
            Self::Internal => "internal",
        }
    }
}

/// Why a sample was refused. The texts are Prometheus' where it has one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// Older than the newest sample of its series, where samples are taken in order only.
    #[error("out of order sample")]
    OutOfOrder,
    /// Older than the out-of-order window allows.
    #[error("too old sample")]
    TooOld,
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
    /// A histogram is known for the timestamp of a float.
    #[error("duplicate sample for timestamp {timestamp}; overrides not allowed: existing is a histogram, new value {}",
            chronolith_model::float::general(*new))]
    DuplicateOfHistogram {
        /// Of both samples.
        timestamp: Timestamp,
        /// Refused value.
        new: f64,
    },
    /// Another sample is known for the timestamp of a histogram.
    #[error("duplicate sample for timestamp")]
    DuplicateHistogram {
        /// Of both samples.
        timestamp: Timestamp,
    },
    /// A histogram that contradicts itself.
    #[error("{0}")]
    InvalidHistogram(HistogramError),
    /// A label set that may not be stored.
    #[error("{text}")]
    InvalidLabels {
        /// What is wrong.
        fault: LabelFault,
        /// What is wrong with which label.
        text: String,
    },
    /// The limit on active series is reached.
    #[error("per-tenant series limit of {limit} exceeded")]
    SeriesLimit {
        /// The limit.
        limit: u64,
    },
    /// The engine does not store native histograms.
    #[error("native histograms are not supported yet")]
    HistogramsUnsupported,
}

impl RejectReason {
    /// Short names for metrics, one per kind of reason.
    pub const LABELS: [&'static str; 9] = [
        "out_of_order",
        "too_old",
        "out_of_bounds",
        "too_far_in_future",
        "duplicate_timestamp",
        "invalid_histogram",
        "invalid_labels",
        "series_limit",
        "histograms_unsupported",
    ];

    /// The place of its short name in [`RejectReason::LABELS`].
    #[must_use]
    pub const fn kind(&self) -> usize {
        match self {
            Self::OutOfOrder => 0,
            Self::TooOld => 1,
            Self::OutOfBounds => 2,
            Self::TooFarInFuture => 3,
            Self::DuplicateTimestamp { .. }
            | Self::DuplicateOfHistogram { .. }
            | Self::DuplicateHistogram { .. } => 4,
            Self::InvalidHistogram(_) => 5,
            Self::InvalidLabels { .. } => 6,
            Self::SeriesLimit { .. } => 7,
            Self::HistogramsUnsupported => 8,
        }
    }

    /// Its short name: `out_of_order`, `duplicate_timestamp` ...
    #[must_use]
    pub const fn label(&self) -> &'static str {
        Self::LABELS[self.kind()]
    }
}

/// Of which kind a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SampleKind {
    /// A float.
    Float,
    /// A native histogram.
    Histogram,
}

/// Which sample of a series is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleAt {
    /// When it was, in milliseconds.
    pub timestamp: Timestamp,
    /// Its kind.
    pub kind: SampleKind,
}

impl SampleAt {
    /// The float at `timestamp`.
    #[must_use]
    pub const fn float(timestamp: Timestamp) -> Self {
        Self { timestamp, kind: SampleKind::Float }
    }

    /// The histogram at `timestamp`.
    #[must_use]
    pub const fn histogram(timestamp: Timestamp) -> Self {
        Self { timestamp, kind: SampleKind::Histogram }
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
    /// The sample; `None` when all of the entry is refused for the same reason.
    pub sample: Option<SampleAt>,
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

    /// Notes that all `samples` samples of the `series`-th series were refused.
    pub fn reject(&mut self, reason: RejectReason, series: usize, labels: Option<&Labels>, samples: u64) {
        self.rejected += samples;
        self.keep(Rejection { reason, series, labels: labels.cloned(), sample: None });
    }

    /// Notes that `sample` of the `series`-th series was refused.
    pub fn reject_sample(
        &mut self,
        reason: RejectReason,
        series: usize,
        labels: Option<&Labels>,
        sample: SampleAt,
    ) {
        self.rejected += 1;
        self.keep(Rejection { reason, series, labels: labels.cloned(), sample: Some(sample) });
    }

    /// Keeps a refusal that is counted already, while there is room.
    pub fn keep(&mut self, rejection: Rejection) {
        if self.rejections.len() < Self::REJECTIONS_MAX {
            self.rejections.push(rejection);
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

/// What an engine keeps beyond float samples in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stores {
    /// Native histograms.
    pub histograms: bool,
    /// Exemplars.
    pub exemplars: bool,
    /// Start timestamps of samples.
    pub start_timestamps: bool,
    /// Samples somewhat older than the newest of their series.
    pub late_samples: bool,
}

/// The exemplars of one series in a batch.
#[derive(Clone, Debug)]
pub struct ExemplarEntry {
    /// The key of the series.
    pub key: SeriesKey,
    /// As a range of [`ExemplarBatch::exemplars`].
    pub exemplars: Range<u32>,
}

/// Exemplars of many series, as one request brings them.
pub struct ExemplarBatch<'a> {
    /// The series; one may occur more than once.
    pub series: &'a [ExemplarEntry],
    /// The exemplars of all series.
    pub exemplars: &'a [Exemplar],
    /// The labels of the series.
    pub labels: &'a dyn LabelSource,
}

impl fmt::Debug for ExemplarBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExemplarBatch")
            .field("series", &self.series.len())
            .field("exemplars", &self.exemplars.len())
            .finish_non_exhaustive()
    }
}

/// What became of exemplars. Nobody is refused a request for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExemplarOutcome {
    /// Stored.
    pub stored: u64,
    /// There already.
    pub duplicates: u64,
    /// Older than the newest of their series.
    pub out_of_order: u64,
    /// Of too long labels, of a series without valid labels, or given to an engine that keeps none.
    pub dropped: u64,
}

/// Takes samples. See the module's contract.
pub trait Appender: Send + Sync {
    /// What it keeps beyond float samples; the same for the life of the appender.
    fn stores(&self) -> Stores {
        Stores::default()
    }

    /// Remembers exemplars, best effort: bounded, the oldest goes first.
    fn append_exemplars(&self, tenant: &TenantId, batch: &ExemplarBatch<'_>) -> ExemplarOutcome {
        let _ = tenant;
        ExemplarOutcome { dropped: batch.exemplars.len() as u64, ..ExemplarOutcome::default() }
    }

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
