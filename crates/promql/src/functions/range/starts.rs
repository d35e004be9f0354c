//! Counters of which it is known since when they have been counting: `rate`, `increase`, `irate`, `resets`.
//!
//! A start behind the sample before proves a reset, also where the value did not fall; a start inside the window, of its
//! first sample, stands for a sample of 0. Results are Prometheus', bit for bit.

use chronolith_storage::StartTimestamp;

use super::{
    Input, RangeFunction, argument,
    rate::{self, Kind, Resets, Sliding},
};
use crate::{
    annotations::Annotation,
    series::{KernelContext, not_absent},
};

/// A sample's time and start, of which 0 is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    pub(super) time: i64,
    pub(super) start: i64,
}

/// The sample at `time`.
pub(super) fn at(steps: &[StartTimestamp], time: i64) -> Started {
    Started { time, start: StartTimestamp::at(steps, time) }
}

impl Started {
    /// Whether a counter was reset between `self` and the sample `next`.
    pub(super) const fn resets_before(self, next: Self) -> bool {
        // Unknown, invalid, or "unknown" as OpenTelemetry says it.
        if next.start == 0 || next.start >= next.time || next.start < self.time {
            return false;
        }
        // Counting began at the sample before: so do deltas, and counters whose real start is not known. Those have it
        // from their first sample, which has no start before itself.
        next.start > self.time || (self.start != 0 && self.start < self.time)
    }

    /// Whether `next` claims a time that was counted already, by another counter.
    pub(super) const fn overlaps(self, next: Self) -> bool {
        next.start != 0 && next.start < self.time && next.start != self.start
    }
}

/// The samples with their starts, in order.
fn started<'a>(times: &'a [i64], steps: &'a [StartTimestamp]) -> impl Iterator<Item = Started> + 'a {
    let mut next = 0;
    times.iter().map(move |time| {
        while steps.get(next).is_some_and(|step| step.since <= *time) {
            next += 1;
        }
        let start = next.checked_sub(1).map_or(0, |last| steps[last].start);
        Started { time: *time, start }
    })
}

/// What starts say about the samples of all windows.
struct Known {
    resets: Vec<u32>,
    overlaps: Vec<u32>,
    /// By sample.
    samples: Vec<Started>,
}

impl Known {
    fn of(input: &Input<'_>, steps: &[StartTimestamp]) -> Self {
        let span = input.span();
        let samples: Vec<Started> = started(&input.times[..span.end], steps).collect();
        let (mut resets, mut overlaps) = (Vec::new(), Vec::new());
        for index in span.start + 1..span.end {
            let (before, this) = (samples[index - 1], samples[index]);
            if input.values[index] < input.values[index - 1] || before.resets_before(this) {
                resets.push(index as u32);
            }
            if before.overlaps(this) {
                overlaps.push(index as u32);
            }
        }
        Self { resets, overlaps, samples }
    }
}

/// Evaluates `function`; false, and nothing done, for one that has no use for starts.
pub(super) fn eval(
    function: RangeFunction,
    input: &Input<'_>,
    steps: &[StartTimestamp],
    out: &mut [f64],
    context: &mut KernelContext<'_>,
) -> bool {
    match function {
        RangeFunction::Rate => extrapolated(input, steps, Kind::Rate, out, context),
        RangeFunction::Increase => extrapolated(input, steps, Kind::Increase, out, context),
        RangeFunction::Irate => irate(input, steps, out),
        RangeFunction::Resets => resets(input, steps, out),
        _ => return false,
    }
    true
}

fn extrapolated(
    input: &Input<'_>,
    steps: &[StartTimestamp],
    kind: Kind,
    out: &mut [f64],
    context: &mut KernelContext<'_>,
) {
    let Known { resets, overlaps, samples } = Known::of(input, steps);
    let resets = Resets::at(resets, input.values, input.span());
    let (mut sliding, mut overlapping) = (Sliding::default(), Sliding::default());
    let range_seconds = rate::seconds(input.windows.range);
    let mut overlapped = 0;
    for (step, (window, out)) in
        input.bounds.iter().zip(out).enumerate().filter(|(_, (window, _))| window.len() > 0)
    {
        let (first, last) = (window.start(), window.last());
        let change = input.values[last] - input.values[first];
        let change = resets.added(change, sliding.to(&resets.positions, first, last), input.values);
        overlapped += u64::from(!overlapping.to(&overlaps, first, last).is_empty());
        let ends = (input.windows.start(step), input.windows.end(step));
        let first = First { sample: samples[first], value: input.values[first] };
        let extrapolated = first.extrapolated(change, samples[last].time, window.len(), ends);
        if let Some(mut value) = extrapolated {
            if kind == Kind::Rate {
                value = Extrapolated { factor: value.factor / range_seconds, ..value };
            }
            *out = not_absent(value.change * value.factor);
        }
    }
    note_overlaps(overlapped, context);
}

/// Warns of so many windows with samples whose starts overlap others.
pub(super) fn note_overlaps(overlapped: u64, context: &mut KernelContext<'_>) {
    if overlapped > 0 {
        let metric = context.labels.and_then(|labels| labels.metric_name()).unwrap_or_default().to_owned();
        let span = argument(context, 0);
        context.notes.add(Annotation::StartTimeOverlap { metric, count: overlapped }, span);
    }
}

/// A change, and what it is to be multiplied with.
struct Extrapolated {
    change: f64,
    factor: f64,
}

/// The first sample of a window.
struct First {
    sample: Started,
    value: f64,
}

impl First {
    /// The change from here to the last sample of a window of `count`, `(start, end]`; `None` for one sample that says no
    /// more than itself.
    fn extrapolated(
        &self,
        mut change: f64,
        last_time: i64,
        count: usize,
        (start, end): (i64, i64),
    ) -> Option<Extrapolated> {
        let Started { time, start: counted_from } = self.sample;
        let milliseconds = |from: i64, to: i64| to.saturating_sub(from) as f64 / 1000.0;
        let mut sampled = milliseconds(time, last_time);
        let between = if count > 1 { sampled / (count - 1) as f64 } else { 0.0 };
        let near = between * 1.1;
        let mut to_start = milliseconds(start, time);
        let mut to_end = milliseconds(last_time, end);
        if counted_from != 0 && counted_from > start && counted_from < time {
            to_start = 0.0;
            sampled = milliseconds(counted_from, last_time);
            change += self.value;
        } else if count == 1 {
            return None;
        } else {
            if to_start >= near {
                to_start = between / 2.0;
            }
            if change > 0.0 && self.value >= 0.0 {
                let to_zero = sampled * (self.value / change);
                if to_zero < to_start {
                    to_start = to_zero;
                }
            }
        }
        if to_end >= near {
            to_end = between / 2.0;
        }
        Some(Extrapolated { change, factor: (sampled + to_start + to_end) / sampled })
    }
}

fn irate(input: &Input<'_>, steps: &[StartTimestamp], out: &mut [f64]) {
    let Known { samples, .. } = Known::of(input, steps);
    input.each(2, out, |_, window| {
        let last = window.last();
        let (before, after) = (input.values[last - 1], input.values[last]);
        let reset = after < before || samples[last - 1].resets_before(samples[last]);
        let change = if reset { after } else { after - before };
        change / (input.times[last].saturating_sub(input.times[last - 1]) as f64 / 1000.0)
    });
}

/// How often a value is lower than the one before, or its start proves a reset.
pub(super) fn resets(input: &Input<'_>, steps: &[StartTimestamp], out: &mut [f64]) {
    let Known { resets, .. } = Known::of(input, steps);
    let mut sliding = Sliding::default();
    input.each(1, out, |_, window| sliding.to(&resets, window.start(), window.last()).len() as f64);
}
