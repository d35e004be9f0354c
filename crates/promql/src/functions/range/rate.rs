//! Counters and differences: `rate`, `increase`, `delta`, `irate`, `idelta`, `resets`, `changes`.
//!
//! All results are equal to Prometheus' bit for bit. A counter's increase is the last value minus the first plus the
//! value before each reset, added one by one; the positions of the resets are found once per series, so a window
//! costs only its resets. Where there are many and all sums are exact (integers), prefix sums replace the additions.

use std::ops::Range;

use super::{Input, bounds::Bounds};
use crate::series::not_absent;

/// Which of the extrapolated functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Counter, per second.
    Rate,
    /// Counter, over the window.
    Increase,
    /// Gauge, over the window.
    Delta,
}

/// Below so many resets per series adding them one by one is not worth avoiding.
const FEW_RESETS: usize = 16;

/// Integers up to here are exact in a float.
pub(super) const EXACT_MAX: f64 = (1u64 << 53) as f64;

/// The resets of a counter.
#[derive(Debug, Default)]
pub(super) struct Resets {
    /// Indices of samples lower than the one before.
    pub(super) positions: Vec<u32>,
    /// Sums of the values before the first n resets; empty unless all such sums are exact.
    sums: Vec<f64>,
}

impl Resets {
    /// The resets among the samples of `span`.
    pub(super) fn find(values: &[f64], span: Range<usize>) -> Self {
        let start = span.start;
        let seen = &values[span.clone()];
        let resets = seen.windows(2).enumerate().filter(|(_, pair)| pair[1] < pair[0]);
        let positions: Vec<u32> = resets.map(|(index, _)| (start + index) as u32 + 1).collect();
        Self::at(positions, values, span)
    }

    /// Resets at `positions`, among the samples of `span`.
    pub(super) fn at(positions: Vec<u32>, values: &[f64], span: Range<usize>) -> Self {
        let seen = &values[span];
        let mut sums = Vec::new();
        if positions.len() > FEW_RESETS && integers_below(seen, EXACT_MAX / 4.0) {
            let mut sum = 0.0;
            let mut magnitude = 0.0;
            sums.push(0.0);
            for position in &positions {
                let before = values[*position as usize - 1];
                sum += before;
                magnitude += before.abs();
                sums.push(sum);
            }
            if magnitude > EXACT_MAX / 4.0 {
                sums.clear();
            }
        }
        Self { positions, sums }
    }

    /// `to` with the values before the resets of `range` added, an index range of `positions`.
    #[inline]
    pub(super) fn added(&self, mut to: f64, range: Range<usize>, values: &[f64]) -> f64 {
        if self.sums.is_empty() {
            for position in &self.positions[range] {
                to += values[*position as usize - 1];
            }
            return to;
        }
        to + (self.sums[range.end] - self.sums[range.start])
    }
}

/// Which of ascending positions lie in a window; both ends of windows ascend.
#[derive(Debug, Default)]
pub(super) struct Sliding {
    first: usize,
    end: usize,
}

impl Sliding {
    /// The index range of those in `(first, last]`.
    #[inline]
    pub(super) fn to(&mut self, positions: &[u32], first: usize, last: usize) -> Range<usize> {
        while self.first < positions.len() && positions[self.first] as usize <= first {
            self.first += 1;
        }
        self.end = self.end.max(self.first);
        while self.end < positions.len() && positions[self.end] as usize <= last {
            self.end += 1;
        }
        self.first..self.end
    }
}

/// Whether all values are integers of magnitude below `limit`.
pub(super) fn integers_below(values: &[f64], limit: f64) -> bool {
    values.iter().all(|v| v.trunc() == *v && v.abs() < limit)
}

/// `rate`, `increase` or `delta`: the change over the samples of the window, extrapolated to its ends where the
/// samples come near enough. At least two samples.
pub(super) fn extrapolated(input: &Input<'_>, kind: Kind, out: &mut [f64]) {
    let values = input.values;
    let range_seconds = seconds(input.windows.range);
    let resets = if kind == Kind::Delta { Resets::default() } else { Resets::find(values, input.span()) };
    // The resets of the window: positions behind its first sample, up to its last.
    let mut sliding = Sliding::default();
    let positions = &resets.positions[..];
    input.each(2, out, |step, window| {
        let (first, last) = (window.start(), window.last());
        let mut change = values[last] - values[first];
        if !positions.is_empty() {
            change = resets.added(change, sliding.to(positions, first, last), values);
        }
        change * factor(input, step, window, change, kind, range_seconds)
    });
}

/// What a change between the first and the last sample of a window is multiplied with.
#[inline(always)]
fn factor(
    input: &Input<'_>,
    step: usize,
    window: Bounds,
    change: f64,
    kind: Kind,
    range_seconds: f64,
) -> f64 {
    let end = input.windows.end(step);
    let start = end.saturating_sub(input.windows.range);
    let (first_time, last_time) = (input.times[window.start()], input.times[window.last()]);
    let mut to_start = first_time.saturating_sub(start) as f64 / 1000.0;
    let mut to_end = end.saturating_sub(last_time) as f64 / 1000.0;
    let sampled = last_time.saturating_sub(first_time) as f64 / 1000.0;
    let between = sampled / (window.len() - 1) as f64;
    let near = between * 1.1;
    if to_start >= near {
        to_start = between / 2.0;
    }
    if kind != Kind::Delta {
        let first = input.values[window.start()];
        // A counter was zero some time ago at this slope; it is not extrapolated beyond.
        if change > 0.0 && first >= 0.0 {
            let to_zero = sampled * (first / change);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
    }
    if to_end >= near {
        to_end = between / 2.0;
    }
    let factor = (sampled + to_start + to_end) / sampled;
    if kind == Kind::Rate { factor / range_seconds } else { factor }
}

/// A duration in milliseconds as seconds, rounded the way Prometheus does: whole seconds and the rest apart.
pub(super) fn seconds(ms: i64) -> f64 {
    (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9
}

/// The change between the last two samples per second; after a reset, the last value is the change.
pub(super) fn irate(input: &Input<'_>, out: &mut [f64]) {
    input.each(2, out, |_, window| {
        let last = window.last();
        let (before, after) = (input.values[last - 1], input.values[last]);
        let change = if after < before { after } else { after - before };
        change / (input.times[last].saturating_sub(input.times[last - 1]) as f64 / 1000.0)
    });
}

/// The difference between the last two samples.
pub(super) fn idelta(input: &Input<'_>, out: &mut [f64]) {
    input.each(2, out, |_, window| input.values[window.last()] - input.values[window.last() - 1]);
}

/// How often a value is lower than the one before.
pub(super) fn resets(input: &Input<'_>, out: &mut [f64]) {
    count_pairs(input, out, |before, after| after < before);
}

/// How often a value differs from the one before; NaN equals NaN.
pub(super) fn changes(input: &Input<'_>, out: &mut [f64]) {
    count_pairs(input, out, |before, after| after != before && !(after.is_nan() && before.is_nan()));
}

/// Counts neighbours in the window for which `counts` holds.
fn count_pairs(input: &Input<'_>, out: &mut [f64], counts: impl Fn(f64, f64) -> bool) {
    // `upto` is the number of pairs that end at or before index `at`, the numbers at both ends of the window.
    let advance = |at: &mut usize, upto: &mut u64, to: usize| {
        while *at < to {
            *at += 1;
            *upto += u64::from(counts(input.values[*at - 1], input.values[*at]));
        }
    };
    let (mut first, mut last) = (input.span().start, input.span().start);
    let (mut upto_first, mut upto_last) = (0, 0);
    for (window, out) in input.bounds.iter().zip(out).filter(|(window, _)| window.len() > 0) {
        advance(&mut first, &mut upto_first, window.start());
        advance(&mut last, &mut upto_last, window.last());
        *out = not_absent((upto_last - upto_first) as f64);
    }
}
