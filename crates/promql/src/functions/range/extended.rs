//! `anchored` and `smoothed` windows, as Prometheus computes them.
//!
//! An anchored window compares its last sample with the last one at or before its start, within the lookback. A
//! smoothed one draws lines between samples, also to those outside within the lookback, and takes what they say at its
//! ends. Neither extrapolates. Each window costs the resets in it, as [`super::rate`]'s.

mod natives;

use std::ops::Range;

use chronolith_storage::Samples;
use chronolith_syntax::ast::RangeMode;

pub(crate) use self::natives::instants as smoothed_natives;
use super::{
    Input, RangeFunction,
    bounds::{Bounds, after},
    rate::{self, Resets, Sliding},
    starts,
};
use crate::{
    eval::NativeSamples,
    series::{Column, KernelContext, Windows, not_absent},
};

/// The samples that a window can see, and where its ends lie among them.
#[derive(Clone, Copy, Debug)]
struct Reach {
    step: usize,
    /// Exclusive.
    start: i64,
    /// Inclusive.
    end: i64,
    /// Index of the first sample within reach.
    low: usize,
    /// One past the index of the last one.
    high: usize,
    /// Index of the first sample behind `start`.
    inside: usize,
    /// Index of the first sample at or behind `end`.
    at_end: usize,
}

/// Calls `f` for each window that can see a sample.
fn each(times: &[i64], windows: &Windows, mut f: impl FnMut(Reach)) {
    let (left, right) = windows.reach();
    let (mut low, mut high, mut inside, mut at_end) = (0, 0, 0, 0);
    for step in 0..windows.grid.count {
        let (start, end) = (windows.start(step), windows.end(step));
        low = after(times, low, start.saturating_sub(left));
        high = after(times, high.max(low), end.saturating_add(right));
        inside = after(times, inside.max(low), start);
        at_end = after(times, at_end.max(low), end.saturating_sub(1));
        if low < high {
            f(Reach { step, start, end, low, high, inside, at_end });
        }
    }
}

/// One of the functions that such windows have; others are refused before.
pub(super) fn eval(
    function: RangeFunction,
    samples: &Samples,
    natives: &NativeSamples,
    windows: &Windows,
    out: &mut Column,
    context: &mut KernelContext<'_>,
) {
    of_floats(function, samples, windows, out.values_mut());
    if !natives.times.is_empty() {
        natives::eval(function, samples, natives, windows, out, context);
    }
}

fn of_floats(function: RangeFunction, samples: &Samples, windows: &Windows, out: &mut [f64]) {
    match function {
        RangeFunction::Rate => change(samples, windows, rate::Kind::Rate, out),
        RangeFunction::Increase => change(samples, windows, rate::Kind::Increase, out),
        RangeFunction::Delta => change(samples, windows, rate::Kind::Delta, out),
        RangeFunction::Resets | RangeFunction::Changes => counted(function, samples, windows, out),
        _ => debug_assert!(false, "{function:?} has no extended windows"),
    }
}

/// The samples between which a window measures: those at or nearest to its ends.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: usize,
    last: usize,
}

impl Ends {
    /// `None` where no sample is behind the start of the window.
    fn of(times: &[i64], reach: &Reach, smoothed: bool) -> Option<Self> {
        let newest = reach.high - 1;
        let last = if smoothed { newest.min(reach.at_end) } else { newest };
        if times[last] <= reach.start {
            return None;
        }
        // The last one at or before the start; `inside` is no more than `last`.
        let first = if reach.inside > reach.low { reach.inside - 1 } else { reach.low };
        Some(Self { first, last })
    }

    /// The values at both ends of the window.
    fn values(self, samples: &Samples, reach: &Reach, smoothed: bool, counter: bool) -> (f64, f64) {
        let (times, values) = (&samples.timestamps, &samples.values);
        let Self { first, last } = self;
        let left = if smoothed && times[first] < reach.start {
            between(samples, first, reach.start, counter)
        } else {
            values[first]
        };
        let right = if smoothed && last > reach.low && times[last] > reach.end {
            between(samples, last - 1, reach.end, counter)
        } else {
            values[last]
        };
        (left, right)
    }

    /// The samples strictly between the ends of the window.
    fn interior(self, times: &[i64], reach: &Reach) -> Range<usize> {
        let start = self.first + usize::from(times[self.first] <= reach.start);
        let end = self.last + usize::from(times[self.last] < reach.end);
        start..end.max(start)
    }
}

/// What the line from sample `before` to the next one says at `t`. A counter that was reset in between began at 0.
fn between(samples: &Samples, before: usize, t: i64, counter: bool) -> f64 {
    let (times, values) = (&samples.timestamps, &samples.values);
    let (mut from, to) = (values[before], values[before + 1]);
    if counter && to < from {
        from = 0.0;
    }
    let since = t.saturating_sub(times[before]) as f64;
    from + (to - from) * since / times[before + 1].saturating_sub(times[before]) as f64
}

/// `rate`, `increase`, `delta`: the difference between the ends of the window; of counters, what was lost at resets added.
fn change(samples: &Samples, windows: &Windows, kind: rate::Kind, out: &mut [f64]) {
    let (times, values) = (&samples.timestamps, &samples.values);
    let counter = kind != rate::Kind::Delta;
    let resets = if counter { Resets::find(values, 0..values.len()) } else { Resets::default() };
    let mut sliding = Sliding::default();
    let smoothed = windows.mode == RangeMode::Smoothed;
    let seconds = rate::seconds(windows.range);
    each(times, windows, |reach| {
        let Some(ends) = Ends::of(times, &reach, smoothed) else { return };
        if smoothed && times[ends.first] > reach.end {
            return;
        }
        let (left, right) = ends.values(samples, &reach, smoothed, counter);
        let mut change = right - left;
        if counter {
            let interior = ends.interior(times, &reach);
            let mut lost = 0.0;
            let mut before = left;
            if let (first, Some(last)) = (interior.start, interior.end.checked_sub(1))
                && first <= last
            {
                if values[first] < left {
                    lost += left;
                }
                lost = resets.added(lost, sliding.to(&resets.positions, first, last), values);
                before = values[last];
            }
            if right < before {
                lost += before;
            }
            change += lost;
        }
        if kind == rate::Kind::Rate {
            change /= seconds;
        }
        out[reach.step] = not_absent(change);
    });
}

/// `resets` and `changes` of anchored windows: from the last sample at or before the start on.
fn counted(function: RangeFunction, samples: &Samples, windows: &Windows, out: &mut [f64]) {
    let times = &samples.timestamps;
    let (mut steps, mut bounds) = (Vec::new(), Vec::new());
    each(times, windows, |reach| {
        if reach.inside < reach.high {
            steps.push(reach.step);
            let anchor = reach.inside.saturating_sub(1).max(reach.low);
            bounds.push(Bounds::new(anchor, reach.high));
        }
    });
    let mut counts = vec![0.0; steps.len()];
    let input = Input { times, values: &samples.values, windows, bounds: &bounds, slopes: &[] };
    match function {
        RangeFunction::Changes => rate::changes(&input, &mut counts),
        _ if samples.starts.is_empty() => rate::resets(&input, &mut counts),
        _ => starts::resets(&input, &samples.starts, &mut counts),
    }
    for (step, count) in steps.into_iter().zip(counts) {
        out[step] = count;
    }
}

/// The value of a `smoothed` instant selector at the end of each window; windows have no length.
pub(crate) fn instants(samples: &Samples, windows: &Windows, out: &mut [f64]) {
    let (times, values) = (&samples.timestamps, &samples.values);
    each(times, windows, |reach| {
        let next = reach.at_end;
        let value = if next < reach.high && times[next] == reach.end {
            values[next]
        } else if next <= reach.low {
            return;
        } else if next < reach.high {
            between(samples, next - 1, reach.end, false)
        } else {
            values[next - 1]
        };
        out[reach.step] = not_absent(value);
    });
}

/// The samples of the first window between its ends, with values for the ends themselves.
pub(crate) fn points(samples: &Samples, windows: &Windows) -> Vec<(i64, f64)> {
    let (times, values) = (&samples.timestamps, &samples.values);
    let smoothed = windows.mode == RangeMode::Smoothed;
    let mut points = Vec::new();
    each(times, windows, |reach| {
        if reach.step > 0 {
            return;
        }
        let Some(ends) = Ends::of(times, &reach, smoothed) else { return };
        let (left, right) = ends.values(samples, &reach, smoothed, false);
        let interior = ends.interior(times, &reach);
        points.reserve(interior.len() + 2);
        points.push((reach.start, left));
        points.extend(times[interior.clone()].iter().copied().zip(values[interior].iter().copied()));
        points.push((reach.end, right));
    });
    points
}
