//! The data that evaluation works on: grids of steps, columns of values, vectors of series; and what a function kernel
//! is handed.
//!
//! # The kernels
//! [`crate::functions`] holds pure kernels; the evaluator does the rest (reading, names, duplicates, order, limits).
//!
//! - `range::RangeFunction::from_name(&str) -> Option<Self>`, `range::eval(function, params: &[&[f64]], (samples, seen),
//!   natives, &Windows, &mut Column, &mut KernelContext) -> Result<(), QueryError>`: one series, its floats and what windows
//!   see of their times (`range::Sight`), and its histograms;
//!   `params[i]` has one value per step, in the order of the call's scalar arguments. `out` comes in absent everywhere,
//!   `windows.grid.count` long. Not here: `absent_over_time` (it looks across series).
//! - `instant::InstantFunction::from_name`, `instant::eval(function, params: &[&[f64]], &mut Column)`: element-wise, in
//!   place, on one series: math, `round`, `clamp*`, date functions.
//! - `labels::label_replace(&mut [SeriesColumn], args: &[&str], &mut KernelContext) -> Result<(), QueryError>` and
//!   `label_join` alike: new labels in place (`args` are the strings after the vector); the evaluator merges or refuses
//!   what became equal. A label set whose name was written has its `drop_name` cleared.
//! - `observations::Observations::from_name`, `of`: a number about a native histogram.
//! - `histogram::histogram_quantile(&Grid, q: &[f64], Vec<SeriesColumn>, &Interrupt, &mut KernelContext) ->
//!   Result<Vec<SeriesColumn>, QueryError>`, `histogram::histogram_fraction(&Grid, lower: &[f64], upper: &[f64], ...)`:
//!   groups of buckets, and native histograms, to one series each, in the order of the group's first series.
//! - `sort::sort(&mut Vec<SeriesColumn>, descending: bool)` by the value at the only step, and `sort::sort_by_label(
//!   &mut Vec<SeriesColumn>, labels: &[&str], descending: bool)`.

mod lane;

use chronolith_model::{Labels, STALE_NAN_BITS, Timestamp};
use chronolith_syntax::ast::{RangeMode, Span};

pub(crate) use self::lane::{Lane, Native, native_bytes, samples_of};
use crate::annotations::Annotations;

/// The steps of an evaluation: `start`, `start + step`, ..., `count` of them. `step` is positive, also where `count`
/// is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grid {
    /// First step, milliseconds.
    pub(crate) start: Timestamp,
    /// Milliseconds from step to step.
    pub(crate) step: i64,
    /// How many steps; 0 for a subquery whose window holds none.
    pub(crate) count: usize,
}

impl Grid {
    /// A grid of one step.
    pub(crate) const fn single(t: Timestamp) -> Self {
        Self { start: t, step: 1, count: 1 }
    }

    /// When step `index` is.
    pub(crate) const fn time(&self, index: usize) -> Timestamp {
        self.start.saturating_add(self.step.saturating_mul(index as i64))
    }

    /// When the last step is; `start` for an empty grid.
    pub(crate) const fn end(&self) -> Timestamp {
        self.time(self.count.saturating_sub(1))
    }

    /// All steps in order.
    pub(crate) fn times(&self) -> impl ExactSizeIterator<Item = Timestamp> + '_ {
        (0..self.count).map(|index| self.time(index))
    }
}

/// The values of one series on a grid: floats, and histograms beside them. A step without a float holds the stale
/// marker, which no expression can yield: selectors remove it, arithmetic makes NaNs quiet, and [`Column::set`] replaces
/// it. A step with a histogram has no float.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    values: Vec<f64>,
    /// Most series have none.
    lane: Option<Box<Lane>>,
}

/// What an absent step holds.
pub(crate) const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether `value`, taken from [`Column::values`], says that there is none.
pub(crate) const fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// `value`, or another NaN where it has the bits of the stale marker (`abs` of its negative, for example).
pub(crate) const fn not_absent(value: f64) -> f64 {
    if is_absent(value) { f64::NAN } else { value }
}

impl Column {
    /// `count` steps without a value.
    pub(crate) fn absent(count: usize) -> Self {
        Self { values: vec![ABSENT; count], lane: None }
    }

    /// The same value at `count` steps.
    pub(crate) fn constant(value: f64, count: usize) -> Self {
        Self { values: vec![not_absent(value); count], lane: None }
    }

    /// A column of these values; [`ABSENT`] means none.
    pub(crate) const fn from_values(values: Vec<f64>) -> Self {
        Self { values, lane: None }
    }

    /// How many steps.
    pub(crate) const fn len(&self) -> usize {
        self.values.len()
    }

    /// The float at `step`.
    pub(crate) fn get(&self, step: usize) -> Option<f64> {
        Some(self.values[step]).filter(|v| !is_absent(*v))
    }

    /// Gives `step` a float; it has no histogram.
    pub(crate) fn set(&mut self, step: usize, value: f64) {
        self.values[step] = not_absent(value);
    }

    /// Whether no step has a value.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(|v| is_absent(*v)) && self.lane.as_ref().is_none_or(|lane| lane.is_empty())
    }

    /// How many steps have a float.
    pub(crate) fn floats(&self) -> usize {
        self.values.iter().filter(|v| !is_absent(**v)).count()
    }

    /// How many steps have a value of either kind.
    pub(crate) fn points(&self) -> usize {
        self.floats() + self.lane.as_ref().map_or(0, |lane| lane.iter().count())
    }

    /// As how many samples Prometheus counts what is in it.
    pub(crate) fn samples(&self) -> usize {
        self.floats() + self.lane.as_ref().map_or(0, |lane| lane.samples())
    }

    /// Bytes behind it, about.
    pub(crate) fn bytes(&self) -> usize {
        self.values.len() * size_of::<f64>() + self.lane.as_ref().map_or(0, |lane| lane.bytes())
    }

    /// The histograms, where there may be any.
    pub(crate) fn lane(&self) -> Option<&Lane> {
        self.lane.as_deref()
    }

    /// The histogram at `step`.
    pub(crate) fn histogram(&self, step: usize) -> Option<&Native> {
        self.lane.as_ref()?.steps()[step].as_ref()
    }

    /// Gives `step` a histogram instead of what it had.
    pub(crate) fn set_histogram(&mut self, step: usize, native: Native) {
        let count = self.values.len();
        let lane = self.lane.get_or_insert_with(|| Box::new(Lane::absent(count)));
        lane.steps_mut()[step] = Some(native);
        self.values[step] = ABSENT;
    }

    /// Takes the histograms out.
    pub(crate) const fn take_lane(&mut self) -> Option<Box<Lane>> {
        self.lane.take()
    }

    /// Replaces each histogram by `f(step, histogram)`; `None` takes it away.
    pub(crate) fn map_histograms(&mut self, mut f: impl FnMut(usize, &Native) -> Option<Native>) {
        if let Some(lane) = &mut self.lane {
            for (step, native) in lane.steps_mut().iter_mut().enumerate() {
                *native = native.as_ref().and_then(|native| f(step, native));
            }
        }
    }

    /// Whether `step` has a value.
    pub(crate) fn has(&self, step: usize) -> bool {
        !is_absent(self.values[step]) || self.histogram(step).is_some()
    }

    /// Takes the value of `step` away.
    pub(crate) fn clear(&mut self, step: usize) {
        self.values[step] = ABSENT;
        if let Some(lane) = &mut self.lane {
            lane.steps_mut()[step] = None;
        }
    }

    /// Sets `seen` at the steps that have a value.
    pub(crate) fn mark(&self, seen: &mut [bool]) {
        for (seen, value) in seen.iter_mut().zip(&self.values) {
            *seen |= !is_absent(*value);
        }
        for (step, _) in self.lane.iter().flat_map(|lane| lane.iter()) {
            seen[step] = true;
        }
    }

    /// Replaces each float by `f(value)`.
    pub(crate) fn map(&mut self, mut f: impl FnMut(f64) -> f64) {
        for value in &mut self.values {
            if !is_absent(*value) {
                *value = not_absent(f(*value));
            }
        }
    }

    /// Replaces each float by `f(step, value)`; `None` takes it away.
    pub(crate) fn filter_map(&mut self, mut f: impl FnMut(usize, f64) -> Option<f64>) {
        for (step, value) in self.values.iter_mut().enumerate() {
            if !is_absent(*value) {
                *value = f(step, *value).map_or(ABSENT, not_absent);
            }
        }
    }

    /// One float per step, [`ABSENT`] where there is none.
    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    /// The same, to write. A value that may have the bits of [`ABSENT`] by accident goes through [`not_absent`].
    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }
}

/// A series of an instant vector, over all steps.
#[derive(Clone, Debug)]
pub(crate) struct SeriesColumn {
    /// Its labels. Where names are dropped late they still hold the name.
    pub(crate) labels: Labels,
    /// The metric name (type and unit too) goes at the end of the query. Always false unless names are dropped late.
    pub(crate) drop_name: bool,
    /// Its values.
    pub(crate) column: Column,
}

/// The windows of a range selector: at step `i` the samples of `(end(i) - range, end(i)]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// The steps of the evaluation.
    pub(crate) grid: Grid,
    /// Where windows end.
    pub(crate) end: WindowEnd,
    /// Their length in milliseconds, positive.
    pub(crate) range: i64,
    /// `anchored` or `smoothed`: the samples then reach `lookback` milliseconds beyond the windows, to the left and, if
    /// smoothed, to the right.
    pub(crate) mode: RangeMode,
    /// See `mode`.
    pub(crate) lookback: i64,
}

/// Where the windows of a range selector end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowEnd {
    /// So many milliseconds before the step.
    Offset(i64),
    /// Always there (`@`).
    Fixed(Timestamp),
}

impl Windows {
    /// The last millisecond of the window of `step`; the evaluation time is `grid.time(step)`.
    pub(crate) const fn end(&self, step: usize) -> Timestamp {
        match self.end {
            WindowEnd::Offset(offset) => self.grid.time(step).saturating_sub(offset),
            WindowEnd::Fixed(t) => t,
        }
    }

    /// How far beyond the windows samples are needed, to the left and to the right.
    pub(crate) const fn reach(&self) -> (i64, i64) {
        match self.mode {
            RangeMode::Plain => (0, 0),
            RangeMode::Anchored => (self.lookback, 0),
            RangeMode::Smoothed => (self.lookback, self.lookback),
        }
    }

    /// The millisecond before the first one of the window of `step`.
    pub(crate) const fn start(&self, step: usize) -> Timestamp {
        self.end(step).saturating_sub(self.range)
    }
}

/// What a kernel may say and ask besides its numbers.
#[derive(Debug)]
pub(crate) struct KernelContext<'a> {
    /// Warnings and infos go here.
    pub(crate) notes: Annotations,
    /// Where the call stands.
    pub(crate) span: Span,
    /// Where its arguments stand, in order.
    pub(crate) args: &'a [Span],
    /// Where one series is evaluated: its labels.
    pub(crate) labels: Option<&'a Labels>,
    /// Names are dropped at the end of the query: set `drop_name` instead of removing them.
    pub(crate) delayed_name_removal: bool,
    /// The label `__type__` says what is a counter.
    pub(crate) type_and_unit_labels: bool,
}
