//! `min_over_time`, `max_over_time` and the times of the extremes. NaN counts only where there is nothing else.

use super::{Input, bounds::Bounds};
use crate::series::not_absent;

/// Comparisons per sample and step up to which windows are simply scanned.
const OVERLAP_MAX: usize = 3;

/// The lowest value; of equal ones, the first.
pub(super) fn min(input: &Input<'_>, out: &mut [f64]) {
    each_extreme(input, out, |new, best| new < best, |index| input.values[index]);
}

/// The highest value; of equal ones, the first.
pub(super) fn max(input: &Input<'_>, out: &mut [f64]) {
    each_extreme(input, out, |new, best| new > best, |index| input.values[index]);
}

/// When the lowest value was, in seconds; of equal ones, the last.
pub(super) fn time_of_min(input: &Input<'_>, out: &mut [f64]) {
    each_extreme(input, out, |new, best| new <= best, |index| input.times[index] as f64 / 1000.0);
}

/// When the highest value was, in seconds; of equal ones, the last.
pub(super) fn time_of_max(input: &Input<'_>, out: &mut [f64]) {
    each_extreme(input, out, |new, best| new >= best, |index| input.times[index] as f64 / 1000.0);
}

/// Writes `result(index)` of the sample of each window that no other `beats`.
#[inline(always)]
fn each_extreme(
    input: &Input<'_>,
    out: &mut [f64],
    beats: impl Fn(f64, f64) -> bool,
    result: impl Fn(usize) -> f64,
) {
    if input.visits() <= OVERLAP_MAX * (input.span().len() + input.bounds.len()) {
        return input.each(1, out, |_, window| result(scan(input.values, window, &beats)));
    }
    // The samples that may yet be an extreme, best first, each beaten by none behind it.
    let mut candidates: Vec<u32> = Vec::new();
    let (mut head, mut end) = (0, 0);
    for (window, out) in input.bounds.iter().zip(out).filter(|(window, _)| window.len() > 0) {
        for index in end.max(window.start())..window.end() {
            let value = input.values[index];
            if value.is_nan() {
                continue;
            }
            while candidates.len() > head
                && beats(value, input.values[candidates[candidates.len() - 1] as usize])
            {
                candidates.pop();
            }
            candidates.push(index as u32);
        }
        end = window.end();
        while head < candidates.len() && (candidates[head] as usize) < window.start() {
            head += 1;
        }
        // All NaN: the last one.
        let best = candidates.get(head).map_or(window.last(), |index| *index as usize);
        *out = not_absent(result(best));
    }
}

fn scan(values: &[f64], window: Bounds, beats: impl Fn(f64, f64) -> bool) -> usize {
    let mut best = window.start();
    for index in window.range() {
        if beats(values[index], values[best]) || values[best].is_nan() {
            best = index;
        }
    }
    best
}
