//! `sum_over_time` and `avg_over_time` of histograms.
//!
//! Windows that overlap little are added up in order, as Prometheus does. Where they overlap much, each is the sum of two
//! sums: of the histograms from its start to a fixed place, kept for the starts of windows to come, and of those behind that
//! place, which grows. No histogram is ever subtracted. That needs histograms whose sum does not depend on the order
//! but for rounding, and compensated sums err far below 1e-12; where sums of observations cancel each other out, these are
//! added up in order.

use std::collections::VecDeque;

use chronolith_model::{
    FloatHistogram,
    histogram::{Combined, HistogramMean, HistogramSum, IncompatibleHistograms},
};

use super::{
    Input, argument,
    both::{note, note_mixed, put},
    bounds::Bounds,
};
use crate::{
    annotations::{Annotation, HistogramOperation},
    eval::NativeSamples,
    series::{Column, KernelContext, Native},
};

/// Additions per histogram up to which windows are added up in order.
const OVERLAP_MAX: usize = 6;

/// Below this share of the magnitudes summed, a sum of observations is computed in order.
const CANCELLED: f64 = 1e-17;

/// The sums, or means, of the windows `bounds` of `natives`; nothing where a window has floats too.
pub(super) fn apply(
    mean: bool,
    input: &Input<'_>,
    natives: &NativeSamples,
    bounds: &[Bounds],
    out: &mut Column,
    context: &mut KernelContext<'_>,
) {
    let mut overlapping = (overlap(bounds) > OVERLAP_MAX)
        .then(|| natives.sliding())
        .flatten()
        .map(|bytes_max| Overlapping::new(&natives.histograms, bytes_max));
    for (step, own) in bounds.iter().enumerate().filter(|(_, own)| own.len() > 0) {
        if input.bounds[step].len() > 0 {
            out.clear(step);
            note_mixed(context);
            continue;
        }
        let histograms = &natives.histograms[own.range()];
        let result = match &mut overlapping {
            Some(overlapping) => overlapping.sum(&bounds[step..]).map(|sum| {
                let combined = sum.combined();
                let mean_of = |sum| HistogramMean::of_sum(sum, own.len()).finish();
                (if mean { mean_of(sum) } else { sum.finish() }, combined)
            }),
            None if mean => mean_in_order(histograms),
            None => sum_in_order(histograms),
        };
        match result {
            Ok((histogram, combined)) => {
                note_combined(combined, context);
                put(out, step, Some(histogram));
            }
            Err(IncompatibleHistograms) => note(Annotation::MixedSchemas, context),
        }
    }
}

fn note_combined(combined: Combined, context: &mut KernelContext<'_>) {
    let span = argument(context, 0);
    if combined.hints_collide {
        context.notes.add(Annotation::ResetCollision(HistogramOperation::Aggregation), span);
    }
    if combined.bounds_reconciled {
        context.notes.add(Annotation::BoundsReconciled(HistogramOperation::Aggregation), span);
    }
}

/// How many windows a histogram is in, on average.
fn overlap(bounds: &[Bounds]) -> usize {
    let visits: usize = bounds.iter().map(|window| window.len()).sum();
    let first = bounds.first().map_or(0, |window| window.start());
    let seen = bounds.last().map_or(0, |window| window.end()).saturating_sub(first);
    visits / seen.max(1)
}

type Summed = Result<(FloatHistogram, Combined), IncompatibleHistograms>;

fn sum_in_order(histograms: &[Native]) -> Summed {
    let mut all = histograms.iter();
    let mut sum = HistogramSum::of(all.next().map_or_else(FloatHistogram::stale, |first| (**first).clone()));
    all.try_for_each(|native| sum.add(native))?;
    let combined = sum.combined();
    Ok((sum.finish(), combined))
}

fn mean_in_order(histograms: &[Native]) -> Summed {
    let mut all = histograms.iter();
    let mut mean =
        HistogramMean::of(all.next().map_or_else(FloatHistogram::stale, |first| (**first).clone()));
    all.try_for_each(|native| mean.add(native))?;
    let combined = mean.combined();
    Ok((mean.finish(), combined))
}

/// The sum of some neighbours.
#[derive(Clone)]
struct Part {
    sum: HistogramSum,
    /// Of the sums of observations, without their signs.
    magnitude: f64,
}

impl Part {
    fn of(native: &Native) -> Self {
        Self { sum: HistogramSum::of((**native).clone()), magnitude: native.sum().abs() }
    }

    fn add(&mut self, native: &Native) -> Result<(), IncompatibleHistograms> {
        self.magnitude += native.sum().abs();
        self.sum.add(native)
    }

    fn join(&mut self, later: &Self) -> Result<(), IncompatibleHistograms> {
        self.magnitude += later.magnitude;
        self.sum.join(&later.sum)
    }

    fn bytes(&self) -> usize {
        size_of::<(usize, Self)>() + self.sum.heap_bytes()
    }
}

/// Sums of windows that overlap, one after the other.
struct Overlapping<'a> {
    histograms: &'a [Native],
    /// By first histogram, the sum of those from it up to `split`, for windows to come; the one for the next window last.
    older: VecDeque<(usize, Part)>,
    /// The sum of those from `split` to `end`.
    newer: Option<Part>,
    split: usize,
    end: usize,
    /// Of `older`, about; where they would need more, fewer windows are prepared for.
    bytes_max: usize,
}

impl<'a> Overlapping<'a> {
    fn new(histograms: &'a [Native], bytes_max: usize) -> Self {
        Self { histograms, older: VecDeque::new(), newer: None, split: 0, end: 0, bytes_max }
    }

    /// The sum of the first of `windows`, which has histograms; behind it are those to come.
    fn sum(&mut self, windows: &[Bounds]) -> Result<HistogramSum, IncompatibleHistograms> {
        let window = windows[0];
        let first = window.start();
        while self.older.pop_back_if(|(start, _)| *start < first).is_some() {}
        if self.older.back().is_none_or(|(start, _)| *start != first) {
            self.prepare(windows)?;
        }
        for native in &self.histograms[self.end..window.end()] {
            match &mut self.newer {
                Some(newer) => newer.add(native)?,
                None => self.newer = Some(Part::of(native)),
            }
        }
        self.end = window.end();
        let again = windows.get(1).is_some_and(|next| next.start() == first);
        let prepared = if again { self.older.back().cloned() } else { self.older.pop_back() };
        let (_, mut part) = prepared.expect("prepared above");
        if let Some(newer) = &self.newer {
            part.join(newer)?;
        }
        if part.sum.observed().abs() < CANCELLED * part.magnitude {
            part.sum.observe_again(self.histograms[window.range()].iter().map(|native| native.sum()));
        }
        Ok(part.sum)
    }

    /// Lets the first of `windows` end where the growing sum begins, and adds up what it and the ones behind it have in
    /// common, from the last histogram to the first.
    fn prepare(&mut self, windows: &[Bounds]) -> Result<(), IncompatibleHistograms> {
        let (first, split) = (windows[0].start(), windows[0].end());
        self.older.clear();
        (self.newer, self.split, self.end) = (None, split, split);
        let behind = windows.partition_point(|window| window.start() < split);
        let mut starts = windows[..behind].iter().rev().map(|window| window.start()).peekable();
        let mut part: Option<Part> = None;
        let mut bytes = 0;
        for index in (first..split).rev() {
            match &mut part {
                Some(part) => part.add(&self.histograms[index])?,
                None => part = Some(Part::of(&self.histograms[index])),
            }
            let mut wanted = false;
            while starts.next_if_eq(&index).is_some() {
                wanted = true;
            }
            if let (true, Some(part)) = (wanted, &part) {
                bytes += part.bytes();
                self.older.push_back((index, part.clone()));
            }
            while bytes > self.bytes_max && self.older.len() > 1 {
                bytes -= self.older.pop_front().map_or(0, |(_, part)| part.bytes());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
