//! What the windows of all steps see of samples at given times. Series that were sampled at the same times, those of one
//! target, share it: then a window costs what its values cost.

use std::ops::Range;

use chronolith_syntax::ast::RangeMode;

use super::{
    RangeFunction,
    bounds::{self, Bounds},
    rate::{self, Slope},
};
use crate::series::Windows;

/// How many different times are remembered.
const SIGHTS_MAX: usize = 8;

/// What windows see of samples at certain times.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    /// Milliseconds, strictly increasing.
    times: Vec<i64>,
    bounds: Vec<Bounds>,
    /// Empty unless the function extrapolates.
    slopes: Vec<Slope>,
    largest: usize,
}

/// A [`Sight`], or that of some of its steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(super) bounds: &'a [Bounds],
    pub(super) slopes: &'a [Slope],
}

impl Sight {
    /// What `function` sees of samples at `times` in `windows`, those of extended selectors with their reach.
    pub(crate) fn of(function: RangeFunction, times: &[i64], windows: &Windows) -> Self {
        let mut sight = Self::default();
        sight.look(function, times, windows);
        sight
    }

    fn look(&mut self, function: RangeFunction, times: &[i64], windows: &Windows) {
        self.times.clear();
        self.times.extend_from_slice(times);
        bounds::find(times, windows, &mut self.bounds);
        self.largest = self.bounds.iter().map(|window| window.len()).max().unwrap_or(0);
        self.slopes.clear();
        if let Some(kind) = rate::Kind::of(function).filter(|_| windows.mode == RangeMode::Plain) {
            let slopes = self.bounds.iter().enumerate();
            self.slopes.extend(slopes.map(|(step, window)| Slope::of(times, windows, step, *window, kind)));
        }
    }

    fn is_of(&self, times: &[i64]) -> bool {
        self.times.len() == times.len() && self.times.first() == times.first() && self.times == times
    }

    /// How many samples the largest window has.
    pub(crate) const fn largest(&self) -> usize {
        self.largest
    }

    /// Adds to each step of `counts` how many samples its window has.
    pub(crate) fn count(&self, counts: &mut [u64]) {
        for (count, window) in counts.iter_mut().zip(&self.bounds) {
            *count += window.len() as u64;
        }
    }

    /// For kernels: all steps.
    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen { bounds: &self.bounds, slopes: &self.slopes }
    }

    fn memory_bytes(&self) -> usize {
        self.times.capacity() * size_of::<i64>()
            + self.bounds.capacity() * size_of::<Bounds>()
            + self.slopes.capacity() * size_of::<Slope>()
    }
}

impl Seen<'_> {
    /// Of some steps.
    pub(crate) fn part(self, steps: Range<usize>) -> Self {
        let slopes = if self.slopes.is_empty() { self.slopes } else { &self.slopes[steps.clone()] };
        Self { bounds: &self.bounds[steps], slopes }
    }
}

/// The sights of one selector under one function, of the times that were seen last.
#[derive(Debug)]
pub(crate) struct Sights {
    function: RangeFunction,
    windows: Windows,
    known: Vec<Sight>,
    /// The one that makes room for the next.
    oldest: usize,
}

impl Sights {
    /// None yet.
    pub(crate) const fn new(function: RangeFunction, windows: Windows) -> Self {
        Self { function, windows, known: Vec::new(), oldest: 0 }
    }

    /// What windows see of samples at `times`.
    pub(crate) fn of(&mut self, times: &[i64]) -> &Sight {
        let place = match self.known.iter().position(|sight| sight.is_of(times)) {
            Some(place) => place,
            None => self.look(times),
        };
        &self.known[place]
    }

    fn look(&mut self, times: &[i64]) -> usize {
        let place = if self.known.len() < SIGHTS_MAX {
            self.known.push(Sight::default());
            self.known.len() - 1
        } else {
            let place = self.oldest;
            self.oldest = (place + 1) % SIGHTS_MAX;
            place
        };
        self.known[place].look(self.function, times, &self.windows);
        place
    }

    /// Bytes behind them.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.known.iter().map(Sight::memory_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Grid, WindowEnd};

    #[test]
    fn times_are_looked_at_once_while_they_are_remembered() {
        let windows = Windows {
            grid: Grid { start: 100, step: 10, count: 3 },
            end: WindowEnd::Offset(0),
            range: 50,
            mode: RangeMode::Plain,
            lookback: 0,
        };
        let mut sights = Sights::new(RangeFunction::Rate, windows);
        let times = |shift: i64| (0..12).map(|i| i * 10 + shift).collect::<Vec<i64>>();
        for shift in 0..2 * SIGHTS_MAX as i64 {
            for _ in 0..2 {
                let sight = sights.of(&times(shift));
                let fresh = Sight::of(RangeFunction::Rate, &times(shift), &windows);
                assert_eq!((&sight.bounds, &sight.slopes), (&fresh.bounds, &fresh.slopes));
                assert_eq!(sight.largest(), 5);
            }
            assert_eq!(sights.known.len(), SIGHTS_MAX.min(shift as usize + 1), "the second time it is known");
        }
        // Another length, and another last one, are other times.
        for other in [&times(0)[..11], &[&times(0)[..11], &[111]].concat()] {
            let fresh = Sight::of(RangeFunction::Rate, other, &windows);
            assert_eq!(sights.of(other).bounds, fresh.bounds);
        }
        let mut counts = [1, 1, 1];
        sights.of(&times(0)).count(&mut counts);
        assert_eq!(counts, [6, 6, 5]);
        assert_eq!(sights.of(&times(0)).seen().part(1..3).bounds.len(), 2);
        let bytes = sights.memory_bytes();
        assert!((SIGHTS_MAX * 3 * 24..SIGHTS_MAX * 1_000).contains(&bytes), "{bytes}");
    }
}
