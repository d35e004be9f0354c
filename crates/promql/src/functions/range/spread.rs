//! `stddev_over_time`, `stdvar_over_time`, `quantile_over_time`, `mad_over_time`.
//!
//! Variances are computed window by window in Prometheus' order (compensated Welford), several windows side by side,
//! unless windows overlap much. Then a two-stack fold of (count, mean, squared deviations) replaces it; where the mean
//! is so large against the deviation that Prometheus' own rounding shows, the window is computed in order after all.

use super::{
    Input,
    two_stack::{Fold, fold_windows},
};
use crate::{
    functions::numeric::{self, Kahan, kahan_add},
    series::not_absent,
};

/// Samples visited per sample and step up to which windows are computed in order.
const OVERLAP_MAX: usize = 48;

/// Mean over deviation from which on the order of operations shows.
const ILL_CONDITIONED: f64 = 1e5;

/// Squares of larger values may overflow.
const SQUARE_MAX: f64 = 1e140;

/// Windows computed side by side.
const LANES: usize = 4;

/// The population variance of each window.
pub(super) fn variance(input: &Input<'_>, out: &mut [f64]) {
    let huge = |v: &f64| v.is_finite() && v.abs() > SQUARE_MAX;
    let overlap_little = input.visits() <= OVERLAP_MAX * (input.span().len() + input.bounds.len());
    if overlap_little || input.values[input.span()].iter().any(huge) {
        return variance_in_order(input, out);
    }
    let moments = Moments { values: input.values };
    fold_windows(&moments, input.bounds, |step, window, part| {
        let variance = part.squares / part.count;
        let ill = part.squares > 0.0 && part.mean.total().abs() > ILL_CONDITIONED * variance.sqrt();
        out[step] = not_absent(if ill { variance_of([input.values(window)])[0] } else { variance });
    });
}

fn variance_in_order(input: &Input<'_>, out: &mut [f64]) {
    let mut groups = input.bounds.chunks_exact(LANES);
    let mut step = 0;
    for group in &mut groups {
        let windows: [&[f64]; LANES] = std::array::from_fn(|lane| input.values(group[lane]));
        for (window, variance) in group.iter().zip(variance_of(windows)) {
            if window.len() > 0 {
                out[step] = not_absent(variance);
            }
            step += 1;
        }
    }
    for window in groups.remainder() {
        if window.len() > 0 {
            out[step] = not_absent(variance_of([input.values(*window)])[0]);
        }
        step += 1;
    }
}

/// Compensated Welford of some windows side by side.
#[expect(clippy::needless_range_loop, reason = "the index runs over all lanes at once")]
fn variance_of<const N: usize>(windows: [&[f64]; N]) -> [f64; N] {
    let common = windows.iter().map(|window| window.len()).min().unwrap_or(0);
    let heads = windows.map(|window| &window[..common]);
    // One array per variable, so that the lanes can share vector instructions.
    let [mut mean, mut mean_lost, mut squares, mut squares_lost] = [[0.0; N]; 4];
    for index in 0..common {
        let count = (index + 1) as f64;
        for lane in 0..N {
            let x = heads[lane][index];
            let delta = x - (mean[lane] + mean_lost[lane]);
            (mean[lane], mean_lost[lane]) = kahan_add(delta / count, mean[lane], mean_lost[lane]);
            let square = delta * (x - (mean[lane] + mean_lost[lane]));
            (squares[lane], squares_lost[lane]) = kahan_add(square, squares[lane], squares_lost[lane]);
        }
    }
    std::array::from_fn(|lane| {
        let mut mean = Kahan { sum: mean[lane], lost: mean_lost[lane] };
        let mut squares = Kahan { sum: squares[lane], lost: squares_lost[lane] };
        for (index, x) in windows[lane].iter().enumerate().skip(common) {
            let delta = x - (mean.sum + mean.lost);
            mean.add(delta / (index + 1) as f64);
            squares.add(delta * (x - (mean.sum + mean.lost)));
        }
        (squares.sum + squares.lost) / windows[lane].len() as f64
    })
}

/// Counts, means and squared deviations that can be joined.
struct Moments<'a> {
    values: &'a [f64],
}

#[derive(Clone, Copy)]
struct Moment {
    count: f64,
    mean: Kahan,
    squares: f64,
}

impl Fold for Moments<'_> {
    type Part = Moment;

    #[inline(always)]
    fn single(&self, index: usize) -> Moment {
        let value = self.values[index];
        let squares = if value.is_finite() { 0.0 } else { f64::NAN };
        Moment { count: 1.0, mean: Kahan::starting_with(value), squares }
    }

    #[inline(always)]
    fn join(&self, older: Moment, newer: Moment) -> Moment {
        let count = older.count + newer.count;
        let delta = (newer.mean.sum - older.mean.sum) + (newer.mean.lost - older.mean.lost);
        let mut mean = older.mean;
        mean.add(delta * (newer.count / count));
        let between = delta * delta * (older.count * newer.count / count);
        Moment { count, mean, squares: older.squares + newer.squares + between }
    }
}

/// The quantile `q[step]` of each window.
pub(super) fn quantile(input: &Input<'_>, q: &[f64], out: &mut [f64]) {
    let mut sorted = Vec::new();
    input.each(1, out, |step, window| {
        sorted.clear();
        sorted.extend_from_slice(input.values(window));
        numeric::quantile(q[step], &mut sorted)
    });
}

/// The median of the absolute deviations from the median; NaN if any value is.
pub(super) fn median_deviation(input: &Input<'_>, out: &mut [f64]) {
    let mut scratch = Vec::new();
    input.each(1, out, |_, window| {
        scratch.clear();
        scratch.extend_from_slice(input.values(window));
        if scratch.iter().any(|v| v.is_nan()) {
            return f64::NAN;
        }
        let median = numeric::quantile(0.5, &mut scratch);
        scratch.iter_mut().for_each(|v| *v = (*v - median).abs());
        numeric::quantile(0.5, &mut scratch)
    });
}
