//! One budget for the memory of a process.
//!
//! # Contract
//! What grows with the size of input takes its memory out of one [`MemoryBudget`], before it takes the memory itself:
//! the head with its whole limit at the start, so that no query can make samples give way; bodies and answers of HTTP
//! with their limits; each query block by block, as its ledger grows; imports what they keep, merges of blocks what they may
//! take. What does not fit is refused, nobody waits. The
//! sum of all reservations is never above the maximum. Not in it: what waits to be logged (bounded apart), code, thread
//! stacks, and what the allocator keeps back.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::error::StorageError;

/// A maximum of bytes that many share; clones are the same budget.
#[derive(Clone)]
pub struct MemoryBudget(Arc<State>);

struct State {
    max: usize,
    used: AtomicUsize,
    refused: AtomicU64,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: usize,
}

/// The budget has not enough left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory of {max} bytes that is shared by everything on this server is taken")]
pub struct BudgetExceeded {
    /// [`MemoryBudget::max`].
    pub max: usize,
}

impl From<BudgetExceeded> for StorageError {
    fn from(error: BudgetExceeded) -> Self {
        Self::Unavailable { reason: error.to_string() }
    }
}

impl MemoryBudget {
    /// A budget of `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Arc::new(State { max, used: AtomicUsize::new(0), refused: AtomicU64::new(0) }))
    }

    /// A budget that only counts.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// The maximum in bytes.
    #[must_use]
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// How often a reservation was refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// An empty reservation, to grow.
    #[must_use]
    pub fn nothing(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }

    /// Reserves `bytes`.
    ///
    /// # Errors
    /// When they are not left.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, BudgetExceeded> {
        let mut reservation = self.nothing();
        reservation.grow(bytes)?;
        Ok(reservation)
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget").field("max", &self.max()).field("used", &self.used()).finish()
    }
}

impl Reservation {
    /// How much is reserved.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves `bytes` more.
    ///
    /// # Errors
    /// When they are not left; what was reserved stays.
    pub fn grow(&mut self, bytes: usize) -> Result<(), BudgetExceeded> {
        let state = &*self.budget.0;
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= state.max);
        if state.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            state.refused.fetch_add(1, Ordering::Relaxed);
            return Err(BudgetExceeded { max: state.max });
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let back = self.bytes.saturating_sub(bytes);
        self.budget.0.used.fetch_sub(back, Ordering::Relaxed);
        self.bytes -= back;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_last_byte_is_given_and_no_more() {
        let budget = MemoryBudget::new(100);
        let mut first = budget.reserve(60).expect("fits");
        let second = budget.reserve(40).expect("fits");
        assert_eq!(budget.reserve(1).expect_err("full"), BudgetExceeded { max: 100 });
        assert_eq!(first.grow(usize::MAX), Err(BudgetExceeded { max: 100 }), "no overflow");
        assert_eq!((first.bytes(), budget.used(), budget.refused()), (60, 100, 2));
        drop(second);
        first.grow(40).expect("was given back");
        first.shrink_to(10);
        first.shrink_to(20);
        assert_eq!((first.bytes(), budget.used()), (10, 10));
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn threads_never_hold_more_than_the_maximum_together() {
        let budget = MemoryBudget::new(10);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if let Ok(held) = budget.reserve(3) {
                            assert!(budget.used() <= 10 && budget.used() >= held.bytes());
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
