//! `deriv`, `predict_linear`, `double_exponential_smoothing`.
//!
//! Regressions are computed window by window in Prometheus' order unless windows overlap much. Then a two-stack fold of
//! means and squared deviations replaces it, which is the more accurate of the two; where Prometheus' own rounding
//! could show in its result, the window is computed in order after all. Smoothing has no such fold.

use super::{
    Input,
    bounds::Bounds,
    two_stack::{Fold, fold_windows},
};
use crate::{QueryError, functions::numeric::Kahan, series::not_absent};

/// Samples visited per sample and step up to which windows are computed in order.
const OVERLAP_MAX: usize = 48;

/// How many times larger than a result the terms it is the difference of may be.
const ILL_CONDITIONED: f64 = 1e5;

/// The slope of the regression line, per second. At least two samples.
pub(super) fn deriv(input: &Input<'_>, out: &mut [f64]) {
    let reference = |_, window: Bounds| input.times[window.start()];
    each_line(input, out, reference, |_, line| (line.slope, None));
}

/// The value of the regression line `ahead[step]` seconds after the evaluation time. At least two samples.
pub(super) fn predict_linear(input: &Input<'_>, ahead: &[f64], out: &mut [f64]) {
    let now = |step, _| input.windows.grid.time(step);
    each_line(input, out, now, |step, line| {
        let change = line.slope * ahead[step];
        (change + line.intercept, Some(change.abs().max(line.intercept.abs())))
    });
}

/// Writes what `finish(step, line)` makes of the regression line of each window. Its second result is the larger of
/// the terms the first is a sum of, if it is one and depends on the intercept.
fn each_line(
    input: &Input<'_>,
    out: &mut [f64],
    reference: impl Fn(usize, Bounds) -> i64,
    finish: impl Fn(usize, Line) -> (f64, Option<f64>),
) {
    let in_order = |step, window| {
        let line = regression(input.times(window), input.values(window), reference(step, window));
        finish(step, line).0
    };
    if input.visits() <= OVERLAP_MAX * (input.span().len() + input.bounds.len()) {
        return input.each(2, out, in_order);
    }
    let points = Points { times: input.times, values: input.values, origin: input.times[input.span().start] };
    fold_windows(&points, input.bounds, |step, window, part| {
        if window.len() < 2 {
            return;
        }
        let to_reference = reference(step, window).saturating_sub(points.origin) as f64;
        let result = part.line(to_reference).and_then(|(line, largest_term)| {
            let (result, term) = finish(step, line);
            let well = term.is_none_or(|term| largest_term.max(term) <= ILL_CONDITIONED * result.abs());
            well.then_some(result)
        });
        out[step] = not_absent(result.unwrap_or_else(|| in_order(step, window)));
    });
}

/// A regression line.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    /// Per second.
    slope: f64,
    /// At the time of reference.
    intercept: f64,
}

/// The line of least squares through the samples; `reference` is in milliseconds.
fn regression(times: &[i64], values: &[f64], reference: i64) -> Line {
    let first = values[0];
    let mut constant = true;
    let [mut x_sum, mut y_sum, mut xy_sum, mut xx_sum] = [Kahan::default(); 4];
    for (time, y) in times.iter().zip(values) {
        constant &= *y == first;
        let x = time.saturating_sub(reference) as f64 / 1e3;
        x_sum.add(x);
        y_sum.add(*y);
        xy_sum.add(x * y);
        xx_sum.add(x * x);
    }
    if constant {
        return if first.is_infinite() {
            Line { slope: f64::NAN, intercept: f64::NAN }
        } else {
            Line { slope: 0.0, intercept: first }
        };
    }
    let n = values.len() as f64;
    let total = |sum: Kahan| sum.sum + sum.lost;
    let (x, y, xy, xx) = (total(x_sum), total(y_sum), total(xy_sum), total(xx_sum));
    let covariance = xy - x * y / n;
    let variance = xx - x * x / n;
    let slope = covariance / variance;
    Line { slope, intercept: y / n - slope * x / n }
}

/// Means and squared deviations of points that can be joined; times in milliseconds since `origin`.
struct Points<'a> {
    times: &'a [i64],
    values: &'a [f64],
    origin: i64,
}

#[derive(Clone, Copy)]
struct Cloud {
    count: f64,
    x: Kahan,
    y: Kahan,
    /// Sum of the products of deviations from the mean, of x with itself.
    xx: f64,
    /// Of x with y.
    xy: f64,
    /// The first value, and whether all others equal it.
    first: f64,
    constant: bool,
}

impl Fold for Points<'_> {
    type Part = Cloud;

    #[inline(always)]
    fn single(&self, index: usize) -> Cloud {
        let (x, first) = (self.times[index].saturating_sub(self.origin) as f64, self.values[index]);
        let (x, y) = (Kahan::starting_with(x), Kahan::starting_with(first));
        Cloud { count: 1.0, x, y, xx: 0.0, xy: 0.0, first, constant: true }
    }

    #[inline(always)]
    fn join(&self, older: Cloud, newer: Cloud) -> Cloud {
        let count = older.count + newer.count;
        let dx = (newer.x.sum - older.x.sum) + (newer.x.lost - older.x.lost);
        let dy = (newer.y.sum - older.y.sum) + (newer.y.lost - older.y.lost);
        let share = newer.count / count;
        let (mut x, mut y) = (older.x, older.y);
        x.add(dx * share);
        y.add(dy * share);
        let weight = older.count * share;
        Cloud {
            count,
            x,
            y,
            xx: older.xx + newer.xx + dx * dx * weight,
            xy: older.xy + newer.xy + dx * dy * weight,
            first: older.first,
            constant: older.constant && newer.constant && older.first == newer.first,
        }
    }
}

impl Cloud {
    /// The line of least squares with its intercept `reference` milliseconds behind the origin, and the largest of
    /// the terms of the intercept. `None` where Prometheus' sums, taken from the reference rather than from the mean,
    /// lose digits.
    fn line(&self, reference: f64) -> Option<(Line, f64)> {
        if self.constant {
            let slope = if self.first.is_infinite() { f64::NAN } else { 0.0 };
            let intercept = if self.first.is_infinite() { f64::NAN } else { self.first };
            return Some((Line { slope, intercept }, 0.0));
        }
        let x = (self.x.sum - reference) + self.x.lost;
        let y = self.y.sum + self.y.lost;
        let well = self.xy.is_finite()
            && self.count * x.abs() * y.abs() <= ILL_CONDITIONED * self.xy.abs()
            && self.count * x * x <= ILL_CONDITIONED * self.xx;
        // Not so for NaN either.
        well.then(|| {
            let per_ms = self.xy / self.xx;
            let back = per_ms * x;
            (Line { slope: per_ms * 1e3, intercept: y - back }, y.abs().max(back.abs()))
        })
    }
}

/// Double exponential smoothing with the factors `smoothing[step]` and `trend[step]`. At least two samples.
pub(super) fn smoothing(input: &Input<'_>, smoothing: &[f64], trend: &[f64], out: &mut [f64]) {
    input.each(2, out, |step, window| smooth(input.values(window), smoothing[step], trend[step]));
}

/// That the factors of all steps whose `windows` hold something can be used.
pub(super) fn check_factors(windows: &[Bounds], smoothing: &[f64], trend: &[f64]) -> Result<(), QueryError> {
    for (step, _) in windows.iter().enumerate().filter(|(_, window)| window.len() > 0) {
        check_factor("smoothing", smoothing[step])?;
        check_factor("trend", trend[step])?;
    }
    Ok(())
}

fn check_factor(what: &str, factor: f64) -> Result<(), QueryError> {
    // NaN passes, as it does in Prometheus.
    if factor <= 0.0 || factor >= 1.0 {
        let letter = if what == "trend" { "tf" } else { "sf" };
        let got =
            if factor.is_finite() { format!("{factor:.6}") } else { chronolith_model::float::fixed(factor) };
        return Err(QueryError::Execution(format!(
            "invalid {what} factor. Expected: 0 < {letter} < 1, got: {got}"
        )));
    }
    Ok(())
}

fn smooth(values: &[f64], smoothing: f64, trend: f64) -> f64 {
    let mut before = 0.0;
    let mut level = values[0];
    let mut slope = values[1] - values[0];
    for (index, value) in values.iter().enumerate().skip(1) {
        let scaled = smoothing * value;
        if index > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        (before, level) = (level, scaled + (1.0 - smoothing) * (level + slope));
    }
    level
}
