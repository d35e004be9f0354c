//! Windows with histograms, alone or among floats. What the floats of a window give is there already.

use std::{ops::Range, sync::Arc};

use chronolith_model::{FloatHistogram, StartTimestamp, Timestamp};

use super::{
    Input, RangeFunction, argument,
    bounds::{self, Bounds},
    native_sums,
    rate::Sliding,
    starts,
};
use crate::{
    annotations::{Annotation, HistogramOperation},
    eval::NativeSamples,
    functions::native::{Change, Findings, Found, History, between},
    series::{Column, KernelContext, Native},
};

/// What a step sees: floats as indices into the input, histograms as slices.
struct Window<'a> {
    floats: Bounds,
    times: &'a [Timestamp],
    histograms: &'a [Native],
}

/// The steps whose windows have histograms.
pub(super) fn apply(
    function: RangeFunction,
    input: &Input<'_>,
    natives: &NativeSamples,
    steps: &[StartTimestamp],
    out: &mut Column,
    context: &mut KernelContext<'_>,
) {
    use RangeFunction as F;
    let mut bounds = Vec::new();
    bounds::find(&natives.times, input.windows, &mut bounds);
    if matches!(function, F::Sum | F::Avg) {
        return native_sums::apply(function == F::Avg, input, natives, &bounds, out, context);
    }
    // Those of all windows: of a series only a part may be looked at now.
    let base = bounds.first().map_or(0, |window| window.start());
    let seen = base..bounds.last().map_or(base, |window| window.end());
    let (times, histograms) = (&natives.times[seen.clone()], &natives.histograms[seen.clone()]);
    let pairs = match function {
        F::Resets => Pairs::resets(input, natives, seen.clone(), |before, after| {
            starts::at(steps, before).resets_before(starts::at(steps, after))
        }),
        F::Changes => Pairs::changes(input, natives, seen.clone()),
        _ => Pairs::default(),
    };
    let change = match function {
        F::Rate | F::Irate => Change::Rate,
        F::Increase => Change::Increase,
        _ => Change::Delta,
    };
    let started = |index: usize| starts::at(steps, natives.times[index]);
    let mut overlapped = 0;
    let overlaps = match function {
        F::Rate | F::Increase if !steps.is_empty() => overlaps(seen, started),
        _ => Vec::new(),
    };
    let mut overlapping = Sliding::default();
    let history = if matches!(function, F::Rate | F::Increase) {
        History::of_counter(times, histograms, |index| {
            !steps.is_empty() && started(base + index - 1).resets_before(started(base + index))
        })
    } else {
        History::of_gauge(times, histograms)
    };
    for (step, own) in bounds.iter().enumerate().filter(|(_, own)| own.len() > 0) {
        let window = Window {
            floats: input.bounds[step],
            times: &natives.times[own.range()],
            histograms: &natives.histograms[own.range()],
        };
        let mixed = window.floats.len() > 0;
        match function {
            F::Rate | F::Increase | F::Delta if mixed => {
                out.clear(step);
                note_mixed(context);
            }
            F::Rate | F::Increase | F::Delta => {
                let ends = (input.windows.start(step), input.windows.end(step));
                overlapped += u64::from(!overlapping.to(&overlaps, own.start(), own.last()).is_empty());
                let range = own.start() - base..own.end() - base;
                let found = history.extrapolated(change, range, ends, started(own.start()).start);
                put(out, step, told(found, context));
            }
            F::Irate | F::Idelta => last_two(change, step, &window, input, steps, out, context),
            F::Resets | F::Changes => out.set(step, pairs.inside(window.floats, *own)),
            F::Sum | F::Avg => {}
            F::Count => out.set(step, (window.floats.len() + own.len()) as f64),
            F::Present => out.set(step, 1.0),
            F::First | F::TsOfFirst => {
                first(function == F::TsOfFirst, &window, input.times, (out, step));
            }
            F::Last | F::TsOfLast => {
                last(function == F::TsOfLast, &window, input.times, (out, step));
            }
            F::Min
            | F::Max
            | F::TsOfMin
            | F::TsOfMax
            | F::Quantile
            | F::Stddev
            | F::Stdvar
            | F::Mad
            | F::Deriv
            | F::PredictLinear
            | F::DoubleExponentialSmoothing => {
                if mixed {
                    note(Annotation::IgnoredInRange, context);
                }
            }
        }
    }
    starts::note_overlaps(overlapped, context);
}

/// The indices in `seen` of samples that began to be counted before the one ahead of them was taken.
fn overlaps(seen: Range<usize>, started: impl Fn(usize) -> starts::Started) -> Vec<u32> {
    let indices = seen.start + 1..seen.end;
    let overlap = indices.filter(|index| started(index - 1).overlaps(started(*index)));
    overlap.map(|index| index as u32).collect()
}

/// The first sample of a window, if it is a histogram, or its time; `times` are those of the floats.
fn first(time: bool, window: &Window<'_>, times: &[Timestamp], (out, step): (&mut Column, usize)) {
    let own = window.times[0];
    let float = (window.floats.len() > 0).then(|| times[window.floats.start()]);
    if time {
        out.set(step, float.map_or(own, |float| own.min(float)) as f64 / 1000.0);
    } else if float.is_none_or(|float| own < float) {
        out.set_histogram(step, Arc::clone(&window.histograms[0]));
    }
}

/// The same for the last sample.
fn last(time: bool, window: &Window<'_>, times: &[Timestamp], (out, step): (&mut Column, usize)) {
    let at = window.times.len() - 1;
    let own = window.times[at];
    let float = (window.floats.len() > 0).then(|| times[window.floats.last()]);
    if time {
        out.set(step, float.map_or(own, |float| own.max(float)) as f64 / 1000.0);
    } else if float.is_none_or(|float| own > float) {
        out.set_histogram(step, Arc::clone(&window.histograms[at]));
    }
}

pub(super) fn put(out: &mut Column, step: usize, native: Option<FloatHistogram>) {
    if let Some(native) = native {
        out.set_histogram(step, Arc::new(native));
    }
}

/// Notes what `annotation` makes of the metric's name.
pub(super) fn note(annotation: impl FnOnce(String) -> Annotation, context: &mut KernelContext<'_>) {
    let name = context.labels.and_then(|labels| labels.metric_name()).unwrap_or_default().to_owned();
    let span = argument(context, 0);
    context.notes.add(annotation(name), span);
}

pub(super) fn note_mixed(context: &mut KernelContext<'_>) {
    note(Annotation::MixedRange, context);
}

/// The result of `found`, after what there is to tell about it has been.
fn told((native, findings): Found, context: &mut KernelContext<'_>) -> Option<FloatHistogram> {
    let Findings { not_counter, not_gauge, mixed_schemas, reconciled_in_addition, reconciled_in_subtraction } =
        findings;
    if not_counter {
        note(Annotation::NotCounter, context);
    }
    if not_gauge {
        note(Annotation::NotGauge, context);
    }
    if mixed_schemas {
        note(Annotation::MixedSchemas, context);
    }
    if reconciled_in_addition {
        note(|_| Annotation::BoundsReconciled(HistogramOperation::Addition), context);
    }
    if reconciled_in_subtraction {
        note(|_| Annotation::BoundsReconciled(HistogramOperation::Subtraction), context);
    }
    native
}

/// `irate`, `idelta`: what has changed between the last two samples, of whatever kinds.
fn last_two(
    change: Change,
    step: usize,
    window: &Window<'_>,
    input: &Input<'_>,
    steps: &[StartTimestamp],
    out: &mut Column,
    context: &mut KernelContext<'_>,
) {
    let count = window.times.len();
    // How many of the last two samples are histograms.
    let newer = |index: usize, than: usize| {
        let floats = input.times(window.floats);
        floats.len() < than || window.times[index] > floats[floats.len() - than]
    };
    let last = newer(count - 1, 1);
    let both = last && count >= 2 && newer(count - 2, 1);
    let neither = !last && window.floats.len() >= 2 && !newer(count - 1, 2);
    if both {
        out.clear(step);
        let sample = |index: usize| (window.times[index], &*window.histograms[index]);
        let (before, after) = (sample(count - 2), sample(count - 1));
        let reset = starts::at(steps, before.0).resets_before(starts::at(steps, after.0));
        put(out, step, told(between(change, before, after, reset), context));
    } else if !neither && window.floats.len() > 0 {
        out.clear(step);
        note_mixed(context);
    }
}

/// How often neighbours differ in the way that is counted: floats, histograms, and one of each, which always does.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Among the first n samples of both kinds.
    counts: Vec<u32>,
    /// The place of each float, then that of each histogram, among both.
    floats: Vec<u32>,
    histograms: Vec<u32>,
    /// The first float and the first histogram looked at.
    first: (usize, usize),
}

impl Pairs {
    /// Resets; `also` says of two times that there is one between them, whatever the samples look like.
    pub(super) fn resets(
        input: &Input<'_>,
        natives: &NativeSamples,
        seen: Range<usize>,
        also: impl Fn(Timestamp, Timestamp) -> bool,
    ) -> Self {
        Self::count(input, natives, seen, |before, after| after.is_reset_after(before), |b, a| a < b, also)
    }

    /// Changes.
    pub(super) fn changes(input: &Input<'_>, natives: &NativeSamples, seen: Range<usize>) -> Self {
        Self::count(
            input,
            natives,
            seen,
            |before, after| !after.same_observations(before),
            |before, after| after != before && !(after.is_nan() && before.is_nan()),
            |_, _| false,
        )
    }

    fn count(
        input: &Input<'_>,
        natives: &NativeSamples,
        seen: Range<usize>,
        histograms: impl Fn(&FloatHistogram, &FloatHistogram) -> bool,
        floats: impl Fn(f64, f64) -> bool,
        also: impl Fn(Timestamp, Timestamp) -> bool,
    ) -> Self {
        enum Sample<'a> {
            Float(f64),
            Native(&'a FloatHistogram),
        }
        let floats_seen = input.span();
        let first = (floats_seen.start, seen.start);
        let mut pairs = Self { counts: vec![0], first, ..Self::default() };
        let mut before: Option<(Timestamp, Sample<'_>)> = None;
        let (mut count, (mut float, mut native)) = (0, first);
        let (float_times, native_times) = (&input.times[..floats_seen.end], &natives.times[..seen.end]);
        for place in 0..(floats_seen.len() + seen.len()) as u32 {
            let is_float = match (float_times.get(float), native_times.get(native)) {
                (Some(float), Some(native)) => float < native,
                (float, _) => float.is_some(),
            };
            let (time, sample) = if is_float {
                pairs.floats.push(place);
                float += 1;
                (input.times[float - 1], Sample::Float(input.values[float - 1]))
            } else {
                pairs.histograms.push(place);
                native += 1;
                (natives.times[native - 1], Sample::Native(&natives.histograms[native - 1]))
            };
            count += u32::from(match (&before, &sample) {
                (None, _) => false,
                (Some((since, Sample::Float(before))), Sample::Float(after)) => {
                    floats(*before, *after) || also(*since, time)
                }
                (Some((since, Sample::Native(before))), Sample::Native(after)) => {
                    also(*since, time) || histograms(before, after)
                }
                _ => true,
            });
            pairs.counts.push(count);
            before = Some((time, sample));
        }
        pairs
    }

    /// How many there are in a window of these floats and histograms, at least one of the latter.
    pub(super) fn inside(&self, floats: Bounds, histograms: Bounds) -> f64 {
        let native = |index: usize| self.histograms[index - self.first.1] as usize;
        let float = |index: usize| self.floats[index - self.first.0] as usize;
        let (mut first, mut last) = (native(histograms.start()), native(histograms.last()));
        if floats.len() > 0 {
            first = first.min(float(floats.start()));
            last = last.max(float(floats.last()));
        }
        f64::from(self.counts[last + 1] - self.counts[first + 1])
    }
}
