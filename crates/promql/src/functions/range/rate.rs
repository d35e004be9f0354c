//! Counters and differences: `rate`, `increase`, `delta`, `irate`, `idelta`, `resets`, `changes`.
//!
//! All results are equal to Prometheus' bit for bit. A counter's increase is the last value minus the first plus the
//! value before each reset, added one by one; the positions of the resets are found once per series, so a window
//! costs only its resets. Where there are many and all sums are exact (integers), prefix sums replace the additions.

use std::ops::Range;

use super::{Input, RangeFunction, bounds::Bounds};
use crate::series::{Windows, not_absent};

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

impl Kind {
    /// That of `function`, if it is one of them.
    pub(super) const fn of(function: RangeFunction) -> Option<Self> {
        match function {
            RangeFunction::Rate => Some(Self::Rate),
            RangeFunction::Increase => Some(Self::Increase),
            RangeFunction::Delta => Some(Self::Delta),
            _ => None,
        }
    }
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
        let slope = &input.slopes[step];
        let first = values[first];
        // A counter was zero some time ago at this slope; it is not extrapolated beyond.
        if change > 0.0 && first >= 0.0 && first < change * slope.near_zero {
            let spread = Spread::of(input.times, input.windows, step, window);
            let to_zero = spread.sampled * (first / change);
            return change * spread.factor(to_zero.min(spread.to_start), kind, input.windows);
        }
        change * slope.factor
    });
}

/// What a change between the first and the last sample of a window is multiplied with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Slope {
    factor: f64,
    /// A counter whose first value is not below so many changes was not zero where it is extrapolated to. A little more than
    /// that, and nothing where zero does not count.
    near_zero: f64,
}

impl Slope {
    /// That of the window of `step`; nothing where it has less than two samples.
    pub(super) fn of(times: &[i64], windows: &Windows, step: usize, window: Bounds, kind: Kind) -> Self {
        if window.len() < 2 {
            return Self::default();
        }
        let spread = Spread::of(times, windows, step, window);
        let near_zero = match kind {
            Kind::Delta => 0.0,
            Kind::Rate | Kind::Increase => spread.to_start / spread.sampled * (1.0 + 1e-9),
        };
        Self { factor: spread.factor(spread.to_start, kind, windows), near_zero }
    }
}

/// How the samples of a window lie in it, seconds.
struct Spread {
    /// From the first sample to the last one.
    sampled: f64,
    /// How far it is extrapolated to either side.
    to_start: f64,
    to_end: f64,
}

impl Spread {
    /// Of a window with two samples or more.
    fn of(times: &[i64], windows: &Windows, step: usize, window: Bounds) -> Self {
        let (start, end) = (windows.start(step), windows.end(step));
        let (first_time, last_time) = (times[window.start()], times[window.last()]);
        let sampled = last_time.saturating_sub(first_time) as f64 / 1000.0;
        let between = sampled / (window.len() - 1) as f64;
        let near = between * 1.1;
        let reach = |distance: i64| {
            let seconds = distance as f64 / 1000.0;
            if seconds >= near { between / 2.0 } else { seconds }
        };
        let to_start = reach(first_time.saturating_sub(start));
        Self { sampled, to_start, to_end: reach(end.saturating_sub(last_time)) }
    }

    fn factor(&self, to_start: f64, kind: Kind, windows: &Windows) -> f64 {
        let factor = (self.sampled + to_start + self.to_end) / self.sampled;
        if kind == Kind::Rate { factor / seconds(windows.range) } else { factor }
    }
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
