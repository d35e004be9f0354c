//! The same windows over histograms, alone or among floats.

use std::sync::Arc;

use chronolith_model::{
    CounterResetHint, FloatHistogram, Timestamp,
    histogram::{Combined, IncompatibleHistograms},
};
use chronolith_storage::Samples;
use chronolith_syntax::ast::RangeMode;

use super::{Ends, Reach, each};
use crate::{
    annotations::{Annotation, HistogramOperation},
    eval::NativeSamples,
    functions::range::{
        Input, RangeFunction,
        both::{Pairs, note, note_mixed},
        bounds::Bounds,
        rate, starts,
    },
    series::{Column, KernelContext, Native, Windows},
};

/// The steps that see histograms. What the floats of a window give is there already.
pub(super) fn eval(
    function: RangeFunction,
    samples: &Samples,
    natives: &NativeSamples,
    windows: &Windows,
    out: &mut Column,
    context: &mut KernelContext<'_>,
) {
    match function {
        RangeFunction::Rate => change(samples, natives, windows, rate::Kind::Rate, out, context),
        RangeFunction::Increase => change(samples, natives, windows, rate::Kind::Increase, out, context),
        RangeFunction::Delta => change(samples, natives, windows, rate::Kind::Delta, out, context),
        _ => counted(function, samples, natives, windows, out),
    }
}

/// At which steps there are floats within reach.
fn with_floats(samples: &Samples, windows: &Windows) -> Vec<bool> {
    let mut seen = vec![false; windows.grid.count];
    each(&samples.timestamps, windows, |reach| seen[reach.step] = true);
    seen
}

fn change(
    samples: &Samples,
    natives: &NativeSamples,
    windows: &Windows,
    kind: rate::Kind,
    out: &mut Column,
    context: &mut KernelContext<'_>,
) {
    let mixed = with_floats(samples, windows);
    let counter = kind != rate::Kind::Delta;
    let mut series = Series {
        times: &natives.times,
        histograms: &natives.histograms,
        resets: Vec::new(),
        smoothed: windows.mode == RangeMode::Smoothed,
        counter,
    };
    if counter {
        let pairs = natives.histograms.windows(2).enumerate();
        series.resets =
            pairs.filter(|(_, pair)| pair[1].is_reset_after(&pair[0])).map(|(index, _)| index + 1).collect();
    }
    each(&natives.times, windows, |reach| {
        if mixed[reach.step] {
            out.clear(reach.step);
            note_mixed(context);
            return;
        }
        let Some(mut total) = series.change(&reach, context) else { return };
        if kind == rate::Kind::Rate {
            total.divide(rate::seconds(windows.range));
        }
        total.set_hint(CounterResetHint::Gauge);
        total.compact();
        out.set_histogram(reach.step, Arc::new(total));
    });
}

/// The histograms of a series.
struct Series<'a> {
    times: &'a [Timestamp],
    histograms: &'a [Native],
    /// Indices of those before which the counter began anew, ascending.
    resets: Vec<usize>,
    smoothed: bool,
    counter: bool,
}

impl Series<'_> {
    /// The difference between the ends of a window; of counters, what was lost at resets added.
    fn change(&self, reach: &Reach, context: &mut KernelContext<'_>) -> Option<FloatHistogram> {
        let (times, histograms) = (self.times, self.histograms);
        let ends = Ends::of(times, reach, self.smoothed)?;
        let Ends { first, last } = ends;
        if self.smoothed && times[first] > reach.end {
            return None;
        }
        let custom = histograms[first].layout().is_custom();
        for native in &histograms[first..=last] {
            if native.layout().is_custom() != custom {
                note(Annotation::MixedSchemas, context);
                return None;
            }
            if self.counter && native.hint() == CounterResetHint::Gauge {
                note(Annotation::NotCounter, context);
            }
        }
        let from_line = self.smoothed && times[first] < reach.start;
        let left = if from_line {
            self.between(first, reach.start, context)?
        } else {
            FloatHistogram::clone(&histograms[first])
        };
        let right = if self.smoothed && last > reach.low && times[last] > reach.end {
            self.between(last - 1, reach.end, context)?
        } else {
            FloatHistogram::clone(&histograms[last])
        };
        let gauge = |native: &FloatHistogram| native.hint() == CounterResetHint::Gauge;
        let gauges = gauge(&left) && gauge(&right);
        if !self.counter && !gauges {
            note(Annotation::NotGauge, context);
        }
        let mut total = right.clone();
        let combined = total.subtract(&left);
        told(combined, HistogramOperation::Subtraction, context)?;
        if self.counter
            && let Some(lost) = self.lost(ends, from_line, &left, &right, context)?
        {
            let combined = total.add(&lost);
            told(combined, HistogramOperation::Addition, context)?;
        }
        Some(total)
    }

    /// What the counter had reached at its resets; `None` where histograms cannot be put together.
    fn lost(
        &self,
        Ends { first, last }: Ends,
        from_line: bool,
        left: &FloatHistogram,
        right: &FloatHistogram,
        context: &mut KernelContext<'_>,
    ) -> Option<Option<FloatHistogram>> {
        let (mut next, mut before) = (first + 1, left);
        if from_line && self.resets.binary_search(&next).is_ok() {
            // The line knows of that reset.
            before = &self.histograms[next];
            next += 1;
        }
        if next > last {
            return Some(None);
        }
        let mut lost: Option<FloatHistogram> = None;
        let mut add = |reached: &FloatHistogram| {
            let Some(lost) = &mut lost else {
                lost = Some(reached.clone());
                return Some(());
            };
            let combined = lost.add(reached);
            told(combined, HistogramOperation::Addition, context)
        };
        // The last one is compared as the end of the window.
        if next < last {
            if self.histograms[next].is_reset_after(before) {
                add(before)?;
            }
            let known = self.resets.partition_point(|reset| *reset <= next);
            for reset in self.resets[known..].iter().take_while(|reset| **reset < last) {
                add(&self.histograms[reset - 1])?;
            }
            before = &self.histograms[last - 1];
        }
        if right.is_reset_after(before) {
            add(before)?;
        }
        Some(lost)
    }

    /// What the line from histogram `before` to the next one says at `t`, strictly between them.
    fn between(
        &self,
        before: usize,
        t: Timestamp,
        context: &mut KernelContext<'_>,
    ) -> Option<FloatHistogram> {
        let at = |index: usize| (self.times[index], &*self.histograms[index]);
        between(at(before), at(before + 1), t, self.counter, context)
    }
}

/// What the line between two histograms says at `t`. A counter that was reset in between began at nothing.
fn between(
    (from, before): (Timestamp, &FloatHistogram),
    (to, after): (Timestamp, &FloatHistogram),
    t: Timestamp,
    counter: bool,
    context: &mut KernelContext<'_>,
) -> Option<FloatHistogram> {
    let fraction = t.saturating_sub(from) as f64 / to.saturating_sub(from) as f64;
    let mut result = after.clone();
    if counter && after.is_reset_after(before) {
        result.multiply(fraction);
        return Some(result);
    }
    let combined = result.subtract(before);
    told(combined, HistogramOperation::Subtraction, context)?;
    result.multiply(fraction);
    let combined = result.add(before);
    told(combined, HistogramOperation::Addition, context)?;
    Some(result)
}

/// Tells what there is to tell about putting histograms together; `None` where that cannot be done.
fn told(
    combined: Result<Combined, IncompatibleHistograms>,
    how: HistogramOperation,
    context: &mut KernelContext<'_>,
) -> Option<()> {
    match combined {
        Ok(combined) => {
            if combined.bounds_reconciled {
                note(|_| Annotation::BoundsReconciled(how), context);
            }
            Some(())
        }
        Err(IncompatibleHistograms) => {
            note(Annotation::MixedSchemas, context);
            None
        }
    }
}

/// `resets` and `changes` of anchored windows with histograms: from the newest sample of either kind at or before the
/// start on.
fn counted(
    function: RangeFunction,
    samples: &Samples,
    natives: &NativeSamples,
    windows: &Windows,
    out: &mut Column,
) {
    let count = windows.grid.count;
    let (mut floats, mut histograms): (Vec<Option<Reach>>, Vec<Option<Reach>>) =
        (vec![None; count], vec![None; count]);
    each(&samples.timestamps, windows, |reach| floats[reach.step] = Some(reach));
    each(&natives.times, windows, |reach| histograms[reach.step] = Some(reach));
    let whole = [Bounds::new(0, samples.len())];
    let input =
        Input { times: &samples.timestamps, values: &samples.values, windows, bounds: &whole, slopes: &[] };
    let all = 0..natives.times.len();
    let pairs = match function {
        RangeFunction::Changes => Pairs::changes(&input, natives, all),
        _ => Pairs::resets(&input, natives, all, |before, after| {
            starts::at(&samples.starts, before).resets_before(starts::at(&samples.starts, after))
        }),
    };
    let anchor = |reach: &Reach| (reach.inside > reach.low).then(|| reach.inside - 1);
    for (step, (float, native)) in floats.iter().zip(&histograms).enumerate() {
        let Some(native) = native else { continue };
        let float_anchor = float.as_ref().and_then(anchor).map(|at| samples.timestamps[at]);
        let native_anchor = anchor(native).map(|at| natives.times[at]);
        let anchored = native_anchor.is_some() && native_anchor > float_anchor;
        let natives_seen = Bounds::new(native.inside - usize::from(anchored), native.high);
        let floats_seen = float.as_ref().map_or(Bounds::new(0, 0), |float| {
            let anchored = float_anchor.is_some() && float_anchor > native_anchor;
            Bounds::new(float.inside - usize::from(anchored), float.high)
        });
        let inside = native.inside < native.high || float.as_ref().is_some_and(|f| f.inside < f.high);
        if natives_seen.len() > 0 {
            out.clear(step);
            if inside {
                out.set(step, pairs.inside(floats_seen, natives_seen));
            }
        }
    }
}

/// `smoothed` instant selectors of series with histograms: the floats alone are there already.
pub(crate) fn instants(
    samples: &Samples,
    natives: &NativeSamples,
    windows: &Windows,
    out: &mut Column,
    context: &mut KernelContext<'_>,
) {
    let mixed = with_floats(samples, windows);
    let (times, histograms) = (&natives.times, &natives.histograms);
    each(times, windows, |reach| {
        let (step, next) = (reach.step, reach.at_end);
        if mixed[step] {
            out.clear(step);
            note_mixed(context);
        } else if next < reach.high && times[next] == reach.end {
            out.set_histogram(step, Arc::clone(&histograms[next]));
        } else if next > reach.low && next < reach.high {
            let (before, after) = (&histograms[next - 1], &histograms[next]);
            if before.layout().is_custom() != after.layout().is_custom() {
                note(Annotation::MixedSchemas, context);
                return;
            }
            let gauge = |native: &Native| native.hint() == CounterResetHint::Gauge;
            let counter = !(gauge(before) && gauge(after));
            let (from, to) = ((times[next - 1], &**before), (times[next], &**after));
            if let Some(native) = between(from, to, reach.end, counter, context) {
                out.set_histogram(step, Arc::new(native));
            }
        } else if next > reach.low {
            let mut native = FloatHistogram::clone(&histograms[next - 1]);
            native.set_hint(CounterResetHint::Unknown);
            out.set_histogram(step, Arc::new(native));
        }
    });
}
