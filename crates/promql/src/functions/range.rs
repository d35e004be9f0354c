//! Functions of range vectors, one series and all its steps at a time.
//!
//! Two indices walk the samples once ([`bounds`]); what a step needs of the samples between them is found without
//! ever subtracting floats from a running state, so an infinity, a NaN or a 1e100 that leaves a window leaves no
//! trace. Where the order of additions shows in the last bits, windows are computed in Prometheus' order as long as
//! that costs little ([`sums`], [`spread`], [`trend`] say when it does not, and what then holds).
//!
//! Map: `bounds` windows as index ranges · `sight` those of samples at the same times · `both` windows with histograms ·
//! `native_sums` their sums and means · `two_stack` sliding folds · `rate` counters
//! and differences · `extended` windows that are anchored or smoothed · `starts` counters whose start is known · `sums` sum
//! and avg · `extremes` min and max · `spread` variances and quantiles · `trend` regressions and smoothing.

mod both;
mod bounds;
mod extended;
mod extremes;
mod native_sums;
mod rate;
mod sight;
mod spread;
mod starts;
mod sums;
mod trend;
mod two_stack;

use chronolith_model::METRIC_TYPE;
use chronolith_storage::Samples;
use chronolith_syntax::ast::{RangeMode, Span};

pub(crate) use self::sight::{Seen, Sight, Sights};
use self::{bounds::Bounds, rate::Slope};
use crate::{
    QueryError,
    annotations::Annotation,
    eval::NativeSamples,
    series::{Column, KernelContext, Windows, not_absent},
};

/// A function that makes one value of the samples of a window; each is the function of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RangeFunction {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Resets,
    Changes,
    Deriv,
    PredictLinear,
    DoubleExponentialSmoothing,
    Avg,
    Sum,
    Min,
    Max,
    Count,
    Quantile,
    Stddev,
    Stdvar,
    Mad,
    First,
    Last,
    Present,
    TsOfFirst,
    TsOfLast,
    TsOfMin,
    TsOfMax,
}

impl RangeFunction {
    /// The function called `name` in PromQL. `absent_over_time` is not one: it looks across series.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => Self::Rate,
            "increase" => Self::Increase,
            "delta" => Self::Delta,
            "irate" => Self::Irate,
            "idelta" => Self::Idelta,
            "resets" => Self::Resets,
            "changes" => Self::Changes,
            "deriv" => Self::Deriv,
            "predict_linear" => Self::PredictLinear,
            "double_exponential_smoothing" => Self::DoubleExponentialSmoothing,
            "avg_over_time" => Self::Avg,
            "sum_over_time" => Self::Sum,
            "min_over_time" => Self::Min,
            "max_over_time" => Self::Max,
            "count_over_time" => Self::Count,
            "quantile_over_time" => Self::Quantile,
            "stddev_over_time" => Self::Stddev,
            "stdvar_over_time" => Self::Stdvar,
            "mad_over_time" => Self::Mad,
            "first_over_time" => Self::First,
            "last_over_time" => Self::Last,
            "present_over_time" => Self::Present,
            "ts_of_first_over_time" => Self::TsOfFirst,
            "ts_of_last_over_time" => Self::TsOfLast,
            "ts_of_min_over_time" => Self::TsOfMin,
            "ts_of_max_over_time" => Self::TsOfMax,
            _ => return None,
        })
    }

    /// Whether results keep the metric name.
    pub(crate) const fn keeps_name(self) -> bool {
        matches!(self, Self::First | Self::Last)
    }
}

/// What a kernel works on: the samples of one series and the window of each step.
#[derive(Clone, Copy, Debug)]
struct Input<'a> {
    /// Milliseconds, strictly increasing.
    times: &'a [i64],
    /// One per time; no stale markers.
    values: &'a [f64],
    windows: &'a Windows,
    /// One per step, both ends never decreasing.
    bounds: &'a [Bounds],
    /// One per step where changes are extrapolated, else none.
    slopes: &'a [Slope],
}

impl<'a> Input<'a> {
    /// The samples of all windows together.
    fn span(&self) -> std::ops::Range<usize> {
        let start = self.bounds.first().map_or(0, |window| window.start());
        start..self.bounds.last().map_or(start, |window| window.end())
    }

    /// How many samples all windows hold, each counted as often as it is seen.
    fn visits(&self) -> usize {
        self.bounds.iter().map(|window| window.len()).sum()
    }

    /// The samples of `window`.
    fn times(&self, window: Bounds) -> &'a [i64] {
        &self.times[window.range()]
    }

    /// The values of `window`.
    fn values(&self, window: Bounds) -> &'a [f64] {
        &self.values[window.range()]
    }

    /// Writes `f(step, window)` to `out` for each step whose window has at least `least` samples (1 or more).
    #[inline(always)]
    fn each(&self, least: usize, out: &mut [f64], mut f: impl FnMut(usize, Bounds) -> f64) {
        for (step, (window, out)) in self.bounds.iter().zip(out).enumerate() {
            if window.len() >= least {
                *out = not_absent(f(step, *window));
            }
        }
    }
}

/// Evaluates `function` on one series. `params[i]` has a value per step for the i-th scalar argument; `samples` (floats) and
/// `natives` hold no stale markers; `seen` is of the floats' times and these `windows`; `out` comes in absent everywhere and as long as the grid. A step whose window holds too
/// few samples stays absent.
///
/// # Errors
/// [`QueryError::Execution`] for smoothing factors out of range.
pub(crate) fn eval(
    function: RangeFunction,
    params: &[&[f64]],
    (samples, seen): (&Samples, Seen<'_>),
    natives: &NativeSamples,
    windows: &Windows,
    out: &mut Column,
    context: &mut KernelContext<'_>,
) -> Result<(), QueryError> {
    debug_assert_eq!((windows.grid.count, seen.bounds.len()), (out.len(), out.len()));
    if windows.mode != RangeMode::Plain {
        extended::eval(function, samples, natives, windows, out, context);
        note_counters(function, out, context);
        return Ok(());
    }
    let Seen { bounds, slopes } = seen;
    let input = Input { times: &samples.timestamps, values: &samples.values, windows, bounds, slopes };
    let no_floats = input.bounds.iter().all(|window| window.len() == 0);
    if no_floats && natives.times.is_empty() {
        return Ok(());
    }
    if function == RangeFunction::DoubleExponentialSmoothing {
        // Wrong parameters are told in any case.
        let mut of_natives = Vec::new();
        bounds::find(&natives.times, windows, &mut of_natives);
        trend::check_factors(bounds, params[0], params[1])?;
        trend::check_factors(&of_natives, params[0], params[1])?;
    }
    if !no_floats {
        let started = !samples.starts.is_empty()
            && starts::eval(function, &input, &samples.starts, out.values_mut(), context);
        if !started {
            apply(function, params, &input, out.values_mut(), context);
        }
    }
    if !natives.times.is_empty() {
        both::apply(function, &input, natives, &samples.starts, out, context);
    }
    note_counters(function, out, context);
    Ok(())
}

/// The samples of an extended range selector as it is, at the top of an instant query.
pub(crate) use extended::points as extended_points;
/// The value of a `smoothed` instant selector at each step, where it has one: the end of a window is when it looks.
pub(crate) use extended::{instants as smoothed, smoothed_natives};

fn note_counters(function: RangeFunction, out: &Column, context: &mut KernelContext<'_>) {
    if matches!(function, RangeFunction::Rate | RangeFunction::Increase) {
        note_non_counter(out, context);
    }
}

fn apply(
    function: RangeFunction,
    params: &[&[f64]],
    input: &Input<'_>,
    out: &mut [f64],
    context: &mut KernelContext<'_>,
) {
    use RangeFunction as F;
    let param = |index: usize, step: usize| params[index][step];
    match function {
        F::Rate => rate::extrapolated(input, rate::Kind::Rate, out),
        F::Increase => rate::extrapolated(input, rate::Kind::Increase, out),
        F::Delta => rate::extrapolated(input, rate::Kind::Delta, out),
        F::Irate => rate::irate(input, out),
        F::Idelta => rate::idelta(input, out),
        F::Resets => rate::resets(input, out),
        F::Changes => rate::changes(input, out),
        F::Deriv => trend::deriv(input, out),
        F::PredictLinear => trend::predict_linear(input, params[0], out),
        F::DoubleExponentialSmoothing => trend::smoothing(input, params[0], params[1], out),
        F::Avg => sums::avg(input, out),
        F::Sum => sums::sum(input, out),
        F::Min => extremes::min(input, out),
        F::Max => extremes::max(input, out),
        F::TsOfMin => extremes::time_of_min(input, out),
        F::TsOfMax => extremes::time_of_max(input, out),
        F::Count => input.each(1, out, |_, window| window.len() as f64),
        F::Present => input.each(1, out, |_, _| 1.0),
        F::First => input.each(1, out, |_, window| input.values[window.start()]),
        F::Last => input.each(1, out, |_, window| input.values[window.last()]),
        F::TsOfFirst => input.each(1, out, |_, window| input.times[window.start()] as f64 / 1000.0),
        F::TsOfLast => input.each(1, out, |_, window| input.times[window.last()] as f64 / 1000.0),
        F::Stddev => {
            spread::variance(input, out);
            out.iter_mut().filter(|v| !crate::series::is_absent(**v)).for_each(|v| *v = v.sqrt());
        }
        F::Stdvar => spread::variance(input, out),
        F::Mad => spread::median_deviation(input, out),
        F::Quantile => {
            spread::quantile(input, params[0], out);
            note_quantiles(input, |step| param(0, step), context);
        }
    }
}

/// Warns of quantiles out of range at steps where they were used.
fn note_quantiles(input: &Input<'_>, q: impl Fn(usize) -> f64, context: &mut KernelContext<'_>) {
    let span = argument(context, 0);
    let mut last = None;
    for step in (0..input.bounds.len()).filter(|step| input.bounds[*step].len() > 0) {
        let q = q(step);
        if !(0.0..=1.0).contains(&q) && last != Some(q.to_bits()) {
            context.notes.add(Annotation::InvalidQuantile(q), span);
            last = Some(q.to_bits());
        }
    }
}

/// Tells the user when a counter function gave results for a series that is not named, or typed, like a counter.
fn note_non_counter(out: &Column, context: &mut KernelContext<'_>) {
    let Some(labels) = context.labels else { return };
    let Some(name) = labels.metric_name() else { return };
    let kind = context.type_and_unit_labels.then(|| labels.get(METRIC_TYPE).unwrap_or_default());
    let like_counter = match kind {
        Some(kind) => matches!(kind, "counter" | "histogram"),
        None => ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix)),
    };
    if like_counter || out.floats() == 0 {
        return;
    }
    let metric = name.to_owned();
    let annotation = match kind {
        Some(kind) => Annotation::NonCounterType { metric, kind: kind.to_owned() },
        None => Annotation::PossibleNonCounter(metric),
    };
    context.notes.add(annotation, argument(context, 0));
}

/// Where argument `index` stands.
fn argument(context: &KernelContext<'_>, index: usize) -> Span {
    context.args.get(index).copied().unwrap_or(context.span)
}

#[cfg(test)]
mod tests;
