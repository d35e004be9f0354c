//! Native histograms over time: how a counter or a gauge of histograms has changed.
//!
//! Pure: histograms and times in, a histogram and [`Findings`] out. The numbers about one histogram (quantiles,
//! fractions, means) and the sums of many are those of [`chronolith_model::histogram`].

use std::{
    cell::RefCell,
    ops::{BitOrAssign, Range},
    sync::Arc,
};

use chronolith_model::{
    CounterResetHint, FloatHistogram, Timestamp,
    histogram::{IncompatibleHistograms, Layout, Numbers},
};

use crate::series::Native;

/// Which change is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Of a counter, per second: `rate`, `irate`.
    Rate,
    /// Of a counter, over the window: `increase`.
    Increase,
    /// Of a gauge, over the window: `delta`, `idelta`.
    Delta,
}

impl Change {
    const fn of_counter(self) -> bool {
        !matches!(self, Self::Delta)
    }
}

/// What a user should be told about the histograms of a window, besides the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Warning `this native histogram metric is not a counter: "x"`.
    pub(crate) not_counter: bool,
    /// Warning `this native histogram metric is not a gauge: "x"`.
    pub(crate) not_gauge: bool,
    /// Warning `vector contains a mix of histograms with exponential and custom buckets schemas for metric name "x"`;
    /// then there is no result.
    pub(crate) mixed_schemas: bool,
    /// Info `mismatched custom buckets were reconciled during addition`.
    pub(crate) reconciled_in_addition: bool,
    /// Info `mismatched custom buckets were reconciled during subtraction`.
    pub(crate) reconciled_in_subtraction: bool,
}

impl BitOrAssign for Findings {
    fn bitor_assign(&mut self, other: Self) {
        self.not_counter |= other.not_counter;
        self.not_gauge |= other.not_gauge;
        self.mixed_schemas |= other.mixed_schemas;
        self.reconciled_in_addition |= other.reconciled_in_addition;
        self.reconciled_in_subtraction |= other.reconciled_in_subtraction;
    }
}

/// A result, if there is one, and what to tell about it.
pub(crate) type Found = (Option<FloatHistogram>, Findings);

/// The histograms of a series in the order of time, and which of them are counter resets: that is found out once, for
/// all windows.
#[derive(Debug)]
pub(crate) struct History<'a> {
    times: &'a [Timestamp],
    histograms: &'a [Native],
    /// Indices of the histograms before which the counter began anew, ascending.
    resets: Vec<usize>,
    /// Of the last result: most have the same.
    layout: RefCell<Option<Arc<Layout>>>,
}

impl<'a> History<'a> {
    /// For [`Change::Delta`] and for the last two samples alone: resets are not looked for.
    pub(crate) const fn of_gauge(times: &'a [Timestamp], histograms: &'a [Native]) -> Self {
        Self { times, histograms, resets: Vec::new(), layout: RefCell::new(None) }
    }

    /// Looks for resets. `also` says of which histograms, by index from 1 on, it is known otherwise that they are one.
    pub(crate) fn of_counter(
        times: &'a [Timestamp],
        histograms: &'a [Native],
        also: impl Fn(usize) -> bool,
    ) -> Self {
        let pairs = histograms.windows(2).enumerate().map(|(index, pair)| (index + 1, pair));
        let reset = |(index, pair): (usize, &[Native])| {
            (also(index) || pair[1].is_reset_after(&pair[0])).then_some(index)
        };
        Self { times, histograms, resets: pairs.filter_map(reset).collect(), layout: RefCell::new(None) }
    }

    /// The change over the samples of `window`, which are all later than `start` and not later than `end`, extrapolated
    /// to these ends where the samples come near enough. Nothing for less than two samples. The result is a gauge.
    /// A counter that began inside the window, `counted_from` then (0 = not known), stands for no observations there; then
    /// one sample is enough.
    pub(crate) fn extrapolated(
        &self,
        change: Change,
        window: Range<usize>,
        (start, end): (Timestamp, Timestamp),
        counted_from: Timestamp,
    ) -> Found {
        let Some(last) = window.clone().next_back() else { return (None, Findings::default()) };
        let first = window.start;
        let began = change.of_counter()
            && counted_from != 0
            && counted_from > start
            && counted_from < self.times[first];
        let (total, mut findings) = match window.len() {
            1 if began => (Some(FloatHistogram::clone(&self.histograms[first])), Findings::default()),
            1 => return (None, Findings::default()),
            _ => self.change(change, window.clone()),
        };
        let Some(mut histogram) = total else { return (None, findings) };
        let mut sampled = seconds_between(self.times[first], self.times[last]);
        let between = if first < last { sampled / (window.len() - 1) as f64 } else { 0.0 };
        if began {
            sampled = seconds_between(counted_from, self.times[last]);
            if first < last {
                match histogram.add(&self.histograms[first]) {
                    Ok(combined) => findings.reconciled_in_addition |= combined.bounds_reconciled,
                    Err(IncompatibleHistograms) => {
                        findings.mixed_schemas = true;
                        return (None, findings);
                    }
                }
            }
        }
        let mut to_start = seconds_between(start, self.times[first]);
        let mut to_end = seconds_between(self.times[last], end);
        let near = between * 1.1;
        if began {
            to_start = 0.0;
        } else if to_start >= near {
            to_start = between / 2.0;
        }
        let count = self.histograms[first].count();
        if !began && change.of_counter() && histogram.count() > 0.0 && count >= 0.0 {
            // The count was zero some time ago at this slope.
            let to_zero = sampled * (count / histogram.count());
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        if to_end >= near {
            to_end = between / 2.0;
        }
        let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
        if change == Change::Rate {
            factor /= duration_seconds(end.saturating_sub(start));
        }
        histogram.multiply(factor);
        (Some(histogram), findings)
    }

    /// The last histogram of `window` less the first, and for counters what they had reached before each reset more, as a
    /// compact gauge; `window` has two at least. Where the counter begins anew with the second sample, the first is as
    /// good as none. `None` where exponential and custom buckets meet.
    fn change(&self, change: Change, window: Range<usize>) -> Found {
        let seen = &self.histograms[window.clone()];
        let (first, second, last) = (&seen[0], &seen[1], &seen[seen.len() - 1]);
        let inner = &seen[1..seen.len() - 1];
        let mut findings = Findings::default();
        let gauge = |native: &Native| native.hint() == CounterResetHint::Gauge;
        findings.not_counter = change.of_counter() && (gauge(first) || gauge(last));
        let resets = self.resets_in(change, window.start + 1..window.end);
        let anew = resets.first() == Some(&(window.start + 1));
        let base = if anew { second } else { first };
        let custom = base.layout().is_custom();
        if last.layout().is_custom() != custom {
            findings.mixed_schemas = true;
            return (None, findings);
        }
        let mut schema = last.layout().schema().min(base.layout().schema());
        if change.of_counter() {
            if inner.iter().any(|native| native.layout().is_custom() != custom) {
                return (None, Findings { mixed_schemas: true, ..Findings::default() });
            }
            findings.not_counter |= inner.iter().any(gauge);
            schema = inner.iter().map(|native| native.layout().schema()).fold(schema, i32::min);
        } else {
            findings.not_gauge = !gauge(first) || !gauge(last);
        }
        let mut total = FloatHistogram::clone(last);
        total.reduce_to(schema);
        // Where the first is as good as none, the bounds of the second still count.
        let nothing = (anew && custom).then(|| nothing_like(second));
        let mut sum_up = || {
            let subtrahend = if anew { nothing.as_ref() } else { Some(&**first) };
            if let Some(subtrahend) = subtrahend {
                findings.reconciled_in_subtraction = total.subtract(subtrahend)?.bounds_reconciled;
            }
            for reset in resets {
                let reached = if *reset != window.start + 1 {
                    &self.histograms[reset - 1]
                } else if let (Some(nothing), CounterResetHint::Reset) = (&nothing, second.hint()) {
                    nothing
                } else {
                    continue;
                };
                findings.reconciled_in_addition |= total.add(reached)?.bounds_reconciled;
            }
            Ok(())
        };
        let summed: Result<(), IncompatibleHistograms> = sum_up();
        if summed.is_err() {
            return (None, Findings { mixed_schemas: true, ..Findings::default() });
        }
        total.set_hint(CounterResetHint::Gauge);
        total.compact();
        let mut known = self.layout.borrow_mut();
        total.share_layout(known.get_or_insert_with(|| Arc::clone(total.layout())));
        *known = Some(Arc::clone(total.layout()));
        (Some(total), findings)
    }

    fn resets_in(&self, change: Change, range: Range<usize>) -> &[usize] {
        if !change.of_counter() {
            return &[];
        }
        let from = self.resets.partition_point(|reset| *reset < range.start);
        let to = self.resets.partition_point(|reset| *reset < range.end);
        &self.resets[from..to]
    }
}

/// The change from one sample to the next, per second for [`Change::Rate`]; `reset` says that the counter began anew
/// between them whatever they look like. Nothing where they are of one time. The result is a gauge.
pub(crate) fn between(
    change: Change,
    before: (Timestamp, &FloatHistogram),
    after: (Timestamp, &FloatHistogram),
    reset: bool,
) -> Found {
    let mut findings = Findings::default();
    let ((from, before), (to, after)) = (before, after);
    if from == to {
        return (None, findings);
    }
    let gauges = [before, after].map(|native| native.hint() == CounterResetHint::Gauge);
    if change.of_counter() {
        findings.not_counter = gauges.contains(&true);
    } else {
        findings.not_gauge = gauges.contains(&false);
    }
    let mut total = after.clone();
    if !change.of_counter() || !(reset || after.is_reset_after(before)) {
        match total.subtract(before) {
            Ok(combined) => findings.reconciled_in_subtraction = combined.bounds_reconciled,
            Err(IncompatibleHistograms) => {
                findings.mixed_schemas = true;
                return (None, findings);
            }
        }
    }
    total.set_hint(CounterResetHint::Gauge);
    total.compact();
    if change == Change::Rate {
        total.divide(seconds_between(from, to));
    }
    (Some(total), findings)
}

/// No observations, in the resolution or the bounds of `native`.
fn nothing_like(native: &FloatHistogram) -> FloatHistogram {
    let layout = native.layout();
    let nothing = Numbers {
        hint: CounterResetHint::Unknown,
        sum: 0.0,
        count: 0.0,
        zero_count: 0.0,
        buckets: Vec::new(),
    };
    let layout = Layout::new(layout.schema(), 0.0, &[], &[], layout.custom_values().to_vec())
        .map_or_else(|_| Layout::empty(), Arc::new);
    FloatHistogram::from_numbers(layout, nothing).expect("a layout without buckets needs no counts")
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.saturating_sub(from) as f64 / 1000.0
}

/// Rounded as Prometheus rounds durations: whole seconds and the rest apart.
fn duration_seconds(ms: i64) -> f64 {
    (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9
}

#[cfg(test)]
mod tests;
