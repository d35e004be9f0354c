//! `sum_over_time` and `avg_over_time`.
//!
//! Three ways, chosen by what they cost and whether they give Prometheus' bits:
//!
//! - Every sample is an integer and all sums are exact: prefix sums. Any order of exact additions gives the same.
//! - Windows overlap little: each window is added up in order, several windows side by side. The same operations as
//!   Prometheus', the same bits.
//! - Windows overlap much: compensated partial sums of a two-stack fold. Both results are the exact sum but for an
//!   error far below 1e-12 of it; where cancellation could make that untrue (the sum is tiny against the summands),
//!   or where a sum could overflow, the window is added up in order.

use std::cell::OnceCell;

use super::{
    Input,
    bounds::Bounds,
    rate::{EXACT_MAX, integers_below},
    two_stack::{Fold, fold_windows},
};
use crate::{
    functions::numeric::{Kahan, Mean, kahan_add},
    series::not_absent,
};

/// Additions per sample and step up to which windows are added up in order.
const OVERLAP_MAX: usize = 24;

/// Below this share of the magnitudes summed, a sum is computed in order.
const CANCELLED: f64 = 1e-17;

/// Windows added up side by side, to keep more than one addition in flight.
const LANES: usize = 4;

/// The sum of each window.
pub(super) fn sum(input: &Input<'_>, out: &mut [f64]) {
    each_sum(input, out, |_, sum| sum.total());
}

/// The mean of each window, finite if the values are.
pub(super) fn avg(input: &Input<'_>, out: &mut [f64]) {
    let overflow = OnceCell::new();
    each_sum(input, out, |window, sum| {
        if sum.sum.is_finite() {
            let count = window.len() as f64;
            return sum.sum / count + sum.lost / count;
        }
        if !*overflow.get_or_init(|| may_overflow(&input.values[input.span()])) {
            // From an infinity or a NaN among the samples.
            return sum.sum;
        }
        let values = input.values(window);
        let mut mean = Mean::of(values[0]);
        values[1..].iter().for_each(|v| mean.add(*v));
        mean.value()
    });
}

/// Writes `finish(window, sum)` for each window with samples.
fn each_sum(input: &Input<'_>, out: &mut [f64], finish: impl Fn(Bounds, Kahan) -> f64) {
    let additions = input.visits();
    let first = input.span().start;
    let seen = &input.values[input.span()];
    let samples = seen.len();
    if additions <= 2 * samples + LANES {
        return in_order(input, out, finish);
    }
    let limit = EXACT_MAX / samples as f64;
    if integers_below(seen, limit) {
        let mut sums = Vec::with_capacity(samples + 1);
        let mut sum = 0.0;
        sums.push(sum);
        sums.extend(seen.iter().map(|v| {
            sum += v;
            sum
        }));
        input.each(1, out, |_, window| {
            let exact = sums[window.end() - first] - sums[window.start() - first];
            finish(window, Kahan::starting_with(exact))
        });
    } else if additions <= OVERLAP_MAX * (samples + input.bounds.len()) || may_overflow(seen) {
        in_order(input, out, finish);
    } else {
        let partial = PartialSums { values: input.values };
        fold_windows(&partial, input.bounds, |step, window, part| {
            let cancelled = part.sum.total().abs() < part.magnitude * CANCELLED;
            let sum = if cancelled { add_up(input.values(window)) } else { part.sum };
            out[step] = not_absent(finish(window, sum));
        });
    }
}

/// Whether the finite ones of `values` could add up to an infinity in some order.
fn may_overflow(values: &[f64]) -> bool {
    let limit = f64::MAX / 4.0 / values.len().max(1) as f64;
    values.iter().any(|v| v.is_finite() && v.abs() > limit)
}

fn add_up(values: &[f64]) -> Kahan {
    let mut sum = Kahan::default();
    values.iter().for_each(|v| sum.add(*v));
    sum
}

/// Adds up each window from its first to its last sample.
fn in_order(input: &Input<'_>, out: &mut [f64], finish: impl Fn(Bounds, Kahan) -> f64) {
    let mut groups = input.bounds.chunks_exact(LANES);
    let mut step = 0;
    for group in &mut groups {
        let windows: [&[f64]; LANES] = std::array::from_fn(|lane| input.values(group[lane]));
        for (window, sum) in group.iter().zip(add_up_side_by_side(windows)) {
            if window.len() > 0 {
                out[step] = not_absent(finish(*window, sum));
            }
            step += 1;
        }
    }
    for window in groups.remainder() {
        if window.len() > 0 {
            out[step] = not_absent(finish(*window, add_up(input.values(*window))));
        }
        step += 1;
    }
}

#[expect(clippy::needless_range_loop, reason = "the index runs over all lanes at once")]
fn add_up_side_by_side(windows: [&[f64]; LANES]) -> [Kahan; LANES] {
    let common = windows.iter().map(|window| window.len()).min().unwrap_or(0);
    let heads = windows.map(|window| &window[..common]);
    let mut sums = [0.0; LANES];
    let mut lost = [0.0; LANES];
    for index in 0..common {
        for lane in 0..LANES {
            (sums[lane], lost[lane]) = kahan_add(heads[lane][index], sums[lane], lost[lane]);
        }
    }
    std::array::from_fn(|lane| {
        let mut sum = Kahan { sum: sums[lane], lost: lost[lane] };
        windows[lane][common..].iter().for_each(|v| sum.add(*v));
        sum
    })
}

/// Compensated partial sums with the sum of magnitudes, to see cancellation.
struct PartialSums<'a> {
    values: &'a [f64],
}

#[derive(Clone, Copy)]
struct PartialSum {
    sum: Kahan,
    magnitude: f64,
}

impl Fold for PartialSums<'_> {
    type Part = PartialSum;

    #[inline(always)]
    fn single(&self, index: usize) -> PartialSum {
        let value = self.values[index];
        PartialSum { sum: Kahan::starting_with(value), magnitude: value.abs() }
    }

    #[inline(always)]
    fn join(&self, older: PartialSum, newer: PartialSum) -> PartialSum {
        PartialSum { sum: older.sum.merge(newer.sum), magnitude: older.magnitude + newer.magnitude }
    }
}
