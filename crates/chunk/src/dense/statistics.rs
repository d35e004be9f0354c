//! Statistics of columns.

use super::STALE_NAN_BITS;

pub(super) mod page;

/// What a column comes to. Stale markers are left out of everything but [`Statistics::stale`]; other NaNs are values.
///
/// Equality is that of floats (NaN differs from NaN): compare [`Statistics::bits`] for sameness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// How many values.
    pub count: u32,
    /// The smallest value; the first of equal ones; NaN only if all are NaN, or there is none. As `min_over_time`.
    pub min: f64,
    /// The largest value, in the same way. As `max_over_time`.
    pub max: f64,
    /// The sum in order, without its [`Statistics::compensation`], by Neumaier's summation, as `sum_over_time`; 0 if
    /// there is no value. A NaN is `f64::NAN`, whichever NaN made it.
    pub sum: f64,
    /// What [`Statistics::sum`] has lost to rounding: `sum + compensation` is the better sum.
    pub compensation: f64,
    /// The first value; NaN if there is none.
    pub first: f64,
    /// The last value; NaN if there is none.
    pub last: f64,
    /// The growth of a counter over the column: last minus first, plus the value before each reset, in order, without
    /// [`Statistics::increase_compensation`]; 0 if there is no value.
    pub increase: f64,
    /// What [`Statistics::increase`] has lost to rounding.
    pub increase_compensation: f64,
    /// How often a value is smaller than the one before it.
    pub resets: u32,
    /// How many stale markers.
    pub stale: u32,
}

/// Neumaier's step: adds `x` to the pair, as Prometheus does.
#[inline]
fn add(x: f64, sum: f64, lost: f64) -> (f64, f64) {
    let total = sum + x;
    let error = if sum.abs() >= x.abs() { (sum - total) + x } else { (x - total) + sum };
    (total, if total.is_infinite() { 0.0 } else { lost + error })
}

/// Machines differ in which NaN arithmetic makes: one for all, and nothing lost.
fn settle((sum, lost): (f64, f64)) -> (f64, f64) {
    if sum.is_nan() { (f64::NAN, 0.0) } else { (sum, if lost.is_nan() { 0.0 } else { lost }) }
}

impl Statistics {
    /// The statistics of no values.
    pub const EMPTY: Self = Self {
        count: 0,
        min: f64::NAN,
        max: f64::NAN,
        sum: 0.0,
        compensation: 0.0,
        first: f64::NAN,
        last: f64::NAN,
        increase: 0.0,
        increase_compensation: 0.0,
        resets: 0,
        stale: 0,
    };

    /// The statistics of a column.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let mut all = values.iter().copied().filter(|value| value.to_bits() != STALE_NAN_BITS);
        let Some(first) = all.next() else {
            return Self { stale: values.len() as u32, ..Self::EMPTY };
        };
        let mut s = Self { count: 1, min: first, max: first, first, ..Self::EMPTY };
        // Starting with the first value, not with zero, keeps a negative zero.
        let (mut sum, mut previous, mut before_resets) = ((first, 0.0), first, Vec::new());
        for value in all {
            s.count += 1;
            if value < s.min || s.min.is_nan() {
                s.min = value;
            }
            if value > s.max || s.max.is_nan() {
                s.max = value;
            }
            sum = add(value, sum.0, sum.1);
            if value < previous {
                before_resets.push(previous);
            }
            previous = value;
        }
        s.last = previous;
        s.resets = before_resets.len() as u32;
        s.stale = values.len() as u32 - s.count;
        let mut increase = add(-s.first, s.last, 0.0);
        for value in before_resets {
            increase = add(value, increase.0, increase.1);
        }
        (s.sum, s.compensation) = settle(sum);
        (s.increase, s.increase_compensation) = settle(increase);
        s
    }

    /// All fields as bits, in their order: equal for the same statistics, NaNs included.
    #[must_use]
    pub fn bits(&self) -> [u64; 11] {
        [
            u64::from(self.count),
            self.min.to_bits(),
            self.max.to_bits(),
            self.sum.to_bits(),
            self.compensation.to_bits(),
            self.first.to_bits(),
            self.last.to_bits(),
            self.increase.to_bits(),
            self.increase_compensation.to_bits(),
            u64::from(self.resets),
            u64::from(self.stale),
        ]
    }
}

/// The increase, with its compensation, of a counter that was not reset between `first` and `last`.
fn growth(first: f64, last: f64) -> (f64, f64) {
    settle(add(-first, last, 0.0))
}

#[cfg(test)]
mod tests;
