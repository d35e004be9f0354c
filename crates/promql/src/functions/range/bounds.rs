//! Which samples each step sees.

use std::ops::Range;

use crate::series::Windows;

/// The samples of one window, as indices: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    start: u32,
    end: u32,
}

impl Bounds {
    /// `[start, end)`.
    pub(super) const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// How many samples.
    #[inline(always)]
    pub(super) const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// The indices.
    #[inline(always)]
    pub(super) const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Index of the first sample, of a window that has one; else of the first sample behind the window.
    #[inline(always)]
    pub(super) const fn start(self) -> usize {
        self.start as usize
    }

    /// Index of the last sample; of a window that has one.
    #[inline(always)]
    pub(super) const fn last(self) -> usize {
        self.end as usize - 1
    }

    /// One past the last index.
    #[inline(always)]
    pub(super) const fn end(self) -> usize {
        self.end as usize
    }
}

/// Finds the samples of all windows: those in `(start, end]` of each step, and of extended ones as far as they reach. `times`
/// increase.
pub(super) fn find(times: &[i64], windows: &Windows, out: &mut Vec<Bounds>) {
    out.clear();
    out.reserve(windows.grid.count);
    let (left, right) = windows.reach();
    let (mut start, mut end) = (0, 0);
    for step in 0..windows.grid.count {
        start = after(times, start, windows.start(step).saturating_sub(left));
        end = after(times, end.max(start), windows.end(step).saturating_add(right));
        out.push(Bounds::new(start, end));
    }
}

/// The first index at or behind `from` whose time is later than `t`. Costs the logarithm of the distance.
#[inline]
pub(super) fn after(times: &[i64], from: usize, t: i64) -> usize {
    const NEAR: usize = 8;
    let near = times.len().min(from + NEAR);
    for (index, time) in times[from..near].iter().enumerate() {
        if *time > t {
            return from + index;
        }
    }
    let mut low = near;
    let mut width = 2 * NEAR;
    while low + width < times.len() && times[low + width] <= t {
        low += width;
        width *= 2;
    }
    let high = times.len().min(low + width);
    low + times[low..high].partition_point(|time| *time <= t)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::series::{Grid, WindowEnd};

    fn windows(start: i64, step: i64, count: usize, range: i64, offset: i64) -> Windows {
        Windows {
            grid: Grid { start, step, count },
            end: WindowEnd::Offset(offset),
            range,
            mode: chronolith_syntax::ast::RangeMode::Plain,
            lookback: 0,
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_exactly_the_samples_of_the_window(
            gaps in prop::collection::vec(1i64..40, 0..200),
            first in -500i64..500, start in -600i64..600, step in 1i64..300, count in 0usize..60,
            range in 1i64..800, offset in -100i64..100,
        ) {
            let times: Vec<i64> = gaps.iter().scan(first, |t, gap| { *t += gap; Some(*t) }).collect();
            let windows = windows(start, step, count, range, offset);
            let mut found = Vec::new();
            find(&times, &windows, &mut found);
            prop_assert_eq!(found.len(), count);
            for (index, window) in found.iter().enumerate() {
                let end = start + step * index as i64 - offset;
                let expected: Vec<i64> = times.iter().copied().filter(|t| *t > end - range && *t <= end).collect();
                prop_assert_eq!(&times[window.range()], &expected[..]);
            }
        }
    }

    #[test]
    fn extreme_times_saturate() {
        let mut found = Vec::new();
        let windows = windows(i64::MIN + 5, 10, 3, i64::MAX, 0);
        find(&[i64::MIN + 1, 0, i64::MAX], &windows, &mut found);
        assert_eq!(found.iter().map(|w| w.len()).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
