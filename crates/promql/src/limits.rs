//! What one query may take: samples, bytes, series, time; and how many queries run at once.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Waker,
    time::{Duration, Instant},
};

use chronolith_model::TimeRange;
use chronolith_storage::{BudgetExceeded, Reservation};
use parking_lot::{Condvar, Mutex};

use crate::api::{CancelToken, EngineOptions, QueryError};

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

/// A ledger takes its memory out of the budget by blocks of so many bytes.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// Counts what a query holds. Shared by the threads that work for it. What it holds is reserved in the budget that all
/// share, block by block, and given back when the ledger is dropped.
#[derive(Debug)]
pub(crate) struct Ledger {
    samples: AtomicUsize,
    samples_peak: AtomicUsize,
    samples_max: usize,
    bytes: AtomicUsize,
    /// Bytes of what is kept because it may be needed again; beside `bytes`, whose releases do not concern it.
    kept: AtomicUsize,
    bytes_max: usize,
    /// Bytes of `reserved`, to look at without its lock.
    covered: AtomicUsize,
    reserved: Mutex<Reservation>,
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
    pub(crate) fn new(options: &EngineOptions) -> Self {
        Self {
            samples: AtomicUsize::new(0),
            samples_peak: AtomicUsize::new(0),
            samples_max: options.samples_max,
            bytes: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            bytes_max: options.memory_max_bytes,
            covered: AtomicUsize::new(0),
            reserved: Mutex::new(options.memory.nothing()),
            series: AtomicUsize::new(0),
            series_max: options.series_max,
        }
    }

    /// Charges `samples` values and `bytes` of memory.
    ///
    /// # Errors
    /// When that is above a limit, or not left for this query.
    pub(crate) fn charge(&self, samples: usize, bytes: usize) -> Result<(), QueryError> {
        let samples = self.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        self.samples_peak.fetch_max(samples, Ordering::Relaxed);
        if samples > self.samples_max {
            return Err(too_many_samples());
        }
        // What is refused may be above any number that can be added up.
        let bytes = bytes.min(self.bytes_max.saturating_add(1));
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let bytes = bytes.saturating_add(self.kept.load(Ordering::Relaxed));
        if bytes > self.bytes_max {
            return Err(QueryError::Execution(format!(
                "query processing would take more than {} bytes of memory in {STAGE_EXECUTION}",
                self.bytes_max
            )));
        }
        if bytes > self.covered.load(Ordering::Relaxed) { self.reserve(bytes) } else { Ok(()) }
    }

    /// Reserves blocks for `bytes` in all.
    fn reserve(&self, bytes: usize) -> Result<(), QueryError> {
        let mut reserved = self.reserved.lock();
        let missing = bytes.saturating_sub(reserved.bytes());
        if missing > 0 {
            let blocks = missing.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
            let refused = |BudgetExceeded { max }| {
                QueryError::Overloaded(format!(
                    "queries and the rest of the server have taken the {max} bytes of memory they share"
                ))
            };
            // Where no block is left, exactly what is needed may be.
            reserved.grow(blocks).or_else(|_| reserved.grow(missing)).map_err(refused)?;
            self.covered.store(reserved.bytes(), Ordering::Relaxed);
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

    /// Gives back what was charged since `held`, whole blocks of it to the budget. Only while no other thread charges.
    pub(crate) fn release_to(&self, held: Held) {
        self.samples.store(held.samples, Ordering::Relaxed);
        self.bytes.store(held.bytes, Ordering::Relaxed);
        // One block more is kept: the next batch needs it again.
        let bytes = held.bytes.saturating_add(self.kept.load(Ordering::Relaxed));
        let keep = bytes.div_ceil(BLOCK_BYTES).saturating_add(1).saturating_mul(BLOCK_BYTES);
        if self.covered.load(Ordering::Relaxed) > keep {
            self.reserved.lock().shrink_to(keep);
            self.covered.store(keep, Ordering::Relaxed);
        }
    }

    /// Charges exactly `bytes` instead of all that was charged. Only while no other thread charges.
    ///
    /// # Errors
    /// As [`Ledger::charge`]; then what was charged stays.
    pub(crate) fn settle(&self, bytes: usize) -> Result<(), QueryError> {
        let before = self.held();
        if let Some(more) = bytes.checked_sub(before.bytes) {
            return self.charge(0, more).inspect_err(|_| self.release_to(before));
        }
        self.release_to(Held { bytes, ..before });
        Ok(())
    }

    /// Gives back `bytes` that this thread has charged, while others may charge.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes charged now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether `bytes` more would leave half of the query's own memory free.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let taken = self.bytes.load(Ordering::Relaxed).saturating_add(self.kept.load(Ordering::Relaxed));
        taken.saturating_add(bytes) <= self.bytes_max / 2
    }

    /// Charges `bytes` for what could be made again, until [`Ledger::forget`]; false, and nothing charged, where there
    /// is no room for that.
    pub(crate) fn keep(&self, bytes: usize) -> bool {
        if !self.has_room(bytes) {
            return false;
        }
        let kept = self.kept.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = kept.saturating_add(self.bytes.load(Ordering::Relaxed));
        let fits = all <= self.covered.load(Ordering::Relaxed) || self.reserve(all).is_ok();
        if !fits {
            self.forget(bytes);
        }
        fits
    }

    /// Gives back what was charged by [`Ledger::keep`].
    pub(crate) fn forget(&self, bytes: usize) {
        self.kept.fetch_sub(bytes, Ordering::Relaxed);
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
                return Err(QueryError::Overloaded(format!("{QUEUE_MAX} queries are waiting already")));
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

#[cfg(test)]
mod tests {
    use chronolith_storage::MemoryBudget;

    use super::*;

    fn ledger(memory: &MemoryBudget, bytes_max: usize) -> Ledger {
        let options =
            EngineOptions { memory_max_bytes: bytes_max, memory: memory.clone(), ..EngineOptions::default() };
        Ledger::new(&options)
    }

    #[test]
    fn memory_is_reserved_by_blocks_and_given_back() {
        let memory = MemoryBudget::new(10 * BLOCK_BYTES);
        let ledger = ledger(&memory, usize::MAX);
        let nothing = ledger.held();
        ledger.charge(0, 1).expect("fits");
        ledger.charge(0, BLOCK_BYTES - 1).expect("fits");
        assert_eq!(memory.used(), BLOCK_BYTES);
        ledger.charge(0, 1).expect("fits");
        assert_eq!(memory.used(), 2 * BLOCK_BYTES);
        ledger.charge(0, 7 * BLOCK_BYTES).expect("fits");
        ledger.release_to(nothing);
        assert_eq!(memory.used(), BLOCK_BYTES, "one block is kept");
        drop(ledger);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn what_is_left_can_be_charged_instead() {
        let memory = MemoryBudget::new(10 * BLOCK_BYTES);
        let ledger = ledger(&memory, 4 * BLOCK_BYTES);
        ledger.charge(0, 4 * BLOCK_BYTES).expect("fits");
        ledger.settle(BLOCK_BYTES).expect("less");
        assert_eq!((ledger.bytes(), memory.used()), (BLOCK_BYTES, 2 * BLOCK_BYTES));
        assert!(ledger.settle(4 * BLOCK_BYTES + 1).is_err() && ledger.settle(usize::MAX).is_err());
        assert_eq!(ledger.bytes(), BLOCK_BYTES, "as before");
        ledger.settle(4 * BLOCK_BYTES).expect("all of it");
    }

    #[test]
    fn what_is_not_a_block_any_more_is_still_given() {
        let memory = MemoryBudget::new(BLOCK_BYTES / 2);
        let ledger = ledger(&memory, usize::MAX);
        ledger.charge(0, BLOCK_BYTES / 2).expect("exactly that is there");
        assert!(matches!(ledger.charge(0, 1), Err(QueryError::Overloaded(_))));
    }

    #[test]
    fn the_limit_of_the_query_comes_first() {
        let memory = MemoryBudget::new(100);
        let ledger = ledger(&memory, 50);
        assert!(matches!(ledger.charge(0, usize::MAX), Err(QueryError::Execution(_))));
        assert!(matches!(ledger.charge(0, usize::MAX), Err(QueryError::Execution(_))), "no overflow");
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn what_is_kept_outlives_releases_and_never_takes_the_last_room() {
        let memory = MemoryBudget::new(8 * BLOCK_BYTES);
        let ledger = ledger(&memory, 4 * BLOCK_BYTES);
        let nothing = ledger.held();
        ledger.charge(0, BLOCK_BYTES).expect("fits");
        assert!(ledger.keep(BLOCK_BYTES) && !ledger.keep(1), "half of the limit stays free");
        ledger.release_to(nothing);
        assert!(matches!(ledger.charge(0, 3 * BLOCK_BYTES + 1), Err(QueryError::Execution(_))));
        ledger.release_to(nothing);
        ledger.forget(BLOCK_BYTES);
        ledger.charge(0, 4 * BLOCK_BYTES).expect("all of it");
        drop(ledger);
        let others = memory.reserve(8 * BLOCK_BYTES - 10).expect("free");
        let ledger = self::ledger(&memory, 4 * BLOCK_BYTES);
        assert!(!ledger.keep(11), "nobody else suffers for what could be made again");
        assert_eq!(memory.used(), others.bytes());
    }
}
