//! What one query may take: samples, bytes, series, time; and how many queries run at once.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Waker,
    time::{Duration, Instant},
};

use chronolith_model::TimeRange;
use parking_lot::{Condvar, Mutex};

use crate::api::{CancelToken, QueryError};

/// Prometheus' name of the stage that evaluates.
pub(crate) const STAGE_EVALUATION: &str = "expression evaluation";
/// Prometheus' name of the stage around it.
pub(crate) const STAGE_EXECUTION: &str = "query execution";
/// Prometheus' name of the stage that waits for a place.
pub(crate) const STAGE_QUEUE: &str = "query queue";

/// Queries that wait for a place; more are refused.
pub(crate) const QUEUE_MAX: usize = 1_000;

/// When to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    cancel: CancelToken,
    deadline: Instant,
}

impl Interrupt {
    pub(crate) fn new(cancel: CancelToken, timeout: Duration) -> Self {
        let now = Instant::now();
        Self { cancel, deadline: now.checked_add(timeout).unwrap_or(now) }
    }

    /// How long until the time of the query is over.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Wakes `waker` when the query is canceled.
    pub(crate) fn wake_on_cancel(&self, waker: &Waker) {
        self.cancel.wake_on_cancel(waker);
    }

    /// # Errors
    /// When the query was canceled or its time is over.
    pub(crate) fn check(&self, stage: &'static str) -> Result<(), QueryError> {
        if self.cancel.is_canceled() {
            return Err(QueryError::Canceled(stage));
        }
        if Instant::now() >= self.deadline {
            return Err(QueryError::Timeout(stage));
        }
        Ok(())
    }
}

/// Counts what a query holds. Shared by the threads that work for it.
#[derive(Debug)]
pub(crate) struct Ledger {
    samples: AtomicUsize,
    samples_peak: AtomicUsize,
    samples_max: usize,
    bytes: AtomicUsize,
    bytes_max: usize,
    series: AtomicUsize,
    series_max: usize,
}

/// Samples and bytes held at some moment; what was charged later can be given back at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    samples: usize,
    bytes: usize,
}

impl Ledger {
    pub(crate) const fn new(samples_max: usize, bytes_max: usize, series_max: usize) -> Self {
        Self {
            samples: AtomicUsize::new(0),
            samples_peak: AtomicUsize::new(0),
            samples_max,
            bytes: AtomicUsize::new(0),
            bytes_max,
            series: AtomicUsize::new(0),
            series_max,
        }
    }

    /// Charges `samples` values and `bytes` of memory.
    ///
    /// # Errors
    /// When that is above a limit.
    pub(crate) fn charge(&self, samples: usize, bytes: usize) -> Result<(), QueryError> {
        let samples = self.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        self.samples_peak.fetch_max(samples, Ordering::Relaxed);
        if samples > self.samples_max {
            return Err(too_many_samples());
        }
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if bytes > self.bytes_max {
            return Err(QueryError::Execution(format!(
                "query processing would take more than {} bytes of memory in {STAGE_EXECUTION}",
                self.bytes_max
            )));
        }
        Ok(())
    }

    /// Checks that `samples` more could be held, without holding them.
    ///
    /// # Errors
    /// When that is above the limit.
    pub(crate) fn probe(&self, samples: usize) -> Result<(), QueryError> {
        let total = self.samples.load(Ordering::Relaxed).saturating_add(samples);
        self.samples_peak.fetch_max(total, Ordering::Relaxed);
        if total > self.samples_max { Err(too_many_samples()) } else { Ok(()) }
    }

    /// Charges the selection of `count` series.
    ///
    /// # Errors
    /// When that is above the limit.
    pub(crate) fn charge_series(&self, count: usize) -> Result<(), QueryError> {
        let total = self.series.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        if total > self.series_max {
            return Err(QueryError::Execution(format!(
                "query selects more than {} series, the limit of this server",
                self.series_max
            )));
        }
        Ok(())
    }

    pub(crate) fn held(&self) -> Held {
        Held { samples: self.samples.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// Gives back what was charged since `held`. Only while no other thread charges.
    pub(crate) fn release_to(&self, held: Held) {
        self.samples.store(held.samples, Ordering::Relaxed);
        self.bytes.store(held.bytes, Ordering::Relaxed);
    }

    pub(crate) fn samples_max(&self) -> usize {
        self.samples_max
    }

    pub(crate) fn peak(&self) -> usize {
        self.samples_peak.load(Ordering::Relaxed)
    }
}

/// Prometheus' refusal.
pub(crate) fn too_many_samples() -> QueryError {
    QueryError::Execution(format!(
        "query processing would load too many samples into memory in {STAGE_EXECUTION}"
    ))
}

/// Lets a limited number of queries run.
#[derive(Debug)]
pub(crate) struct Gate {
    max: usize,
    state: Mutex<GateState>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    running: usize,
    waiting: usize,
}

/// A place among the running queries, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Gate);

impl Gate {
    pub(crate) fn new(max: usize) -> Self {
        Self { max: max.max(1), state: Mutex::default(), freed: Condvar::new() }
    }

    /// Waits for a place, blocking the thread.
    ///
    /// # Errors
    /// When `interrupt` says so, or too many wait already.
    pub(crate) fn enter(&self, interrupt: &Interrupt) -> Result<Place<'_>, QueryError> {
        /// How often a waiting query looks whether it was canceled.
        const POLL: Duration = Duration::from_millis(20);
        let mut state = self.state.lock();
        if state.running >= self.max {
            if state.waiting >= QUEUE_MAX {
                return Err(QueryError::Storage(chronolith_storage::StorageError::Unavailable {
                    reason: format!("{QUEUE_MAX} queries are waiting already"),
                }));
            }
            state.waiting += 1;
            while state.running >= self.max {
                if let Err(error) = interrupt.check(STAGE_QUEUE) {
                    state.waiting -= 1;
                    return Err(error);
                }
                self.freed.wait_for(&mut state, POLL);
            }
            state.waiting -= 1;
        }
        state.running += 1;
        Ok(Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.freed.notify_one();
    }
}

/// The smallest range that holds both.
pub(crate) fn hull(a: Option<TimeRange>, b: TimeRange) -> TimeRange {
    a.map_or(b, |a| TimeRange::new(a.min.min(b.min), a.max.max(b.max)))
}
