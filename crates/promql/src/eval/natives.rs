//! Histograms from storage, as evaluation wants them: in floats, and with hints that can be relied on.
//!
//! Storage says of a histogram that its series began anew with it. Prometheus never passes that on (a chunk may have been
//! lost in between), so here it means as little: resets are found by the numbers. Where a query asks for counts and sums
//! alone ([`Leaf::stats`](crate::plan::Leaf::stats)), the buckets are left out after every histogram has been compared with
//! the one before it, and its hint says what came of that.

use std::{cell::OnceCell, sync::Arc};

use chronolith_model::{
    CounterResetHint, FloatHistogram, Timestamp,
    histogram::{HistogramSum, Layout, Numbers},
};
use chronolith_storage::Samples;

use crate::series::{Column, Grid, Native, Windows, native_bytes, samples_of};

/// The histograms of one series, converted as far as they are asked for.
pub(super) struct Natives<'a> {
    samples: &'a Samples,
    stats: bool,
    /// The one converted last and its index: a sample is mostly seen by several steps in a row.
    last: Option<(usize, Native)>,
}

impl<'a> Natives<'a> {
    pub(super) const fn new(samples: &'a Samples, stats: bool) -> Self {
        Self { samples, stats, last: None }
    }

    /// Histogram `index`, no stale marker.
    pub(super) fn get(&mut self, index: usize) -> Native {
        if let Some((known, native)) = &self.last
            && *known == index
        {
            return Arc::clone(native);
        }
        let native = Arc::new(self.convert(index));
        self.last = Some((index, Arc::clone(&native)));
        native
    }

    fn convert(&self, index: usize) -> FloatHistogram {
        let native = plain(self.samples, index);
        if !self.stats {
            return native;
        }
        let hint = match native.hint() {
            CounterResetHint::Unknown => {
                let before = (0..index).rev().find(|before| !self.samples.histograms[*before].is_stale());
                before.map_or(CounterResetHint::Unknown, |before| {
                    if native.is_reset_after(&plain(self.samples, before)) {
                        CounterResetHint::Reset
                    } else {
                        CounterResetHint::NotReset
                    }
                })
            }
            known => known,
        };
        without_buckets(native, hint)
    }
}

/// Histogram `index` in floats.
fn plain(samples: &Samples, index: usize) -> FloatHistogram {
    let mut native = samples.histograms[index].to_float();
    if native.hint() == CounterResetHint::Reset {
        native.set_hint(CounterResetHint::Unknown);
    }
    native
}

/// Count, sum, schema and hint alone.
fn without_buckets(native: FloatHistogram, hint: CounterResetHint) -> FloatHistogram {
    let schema = native.layout().schema();
    let (_, numbers) = native.into_numbers();
    let numbers = Numbers { hint, zero_count: 0.0, buckets: Vec::new(), ..numbers };
    let layout = Layout::new(schema, 0.0, &[], &[], Vec::new()).map_or_else(|_| Layout::empty(), Arc::new);
    FloatHistogram::from_numbers(layout, numbers).unwrap_or_else(FloatHistogram::stale)
}

/// The histograms of a series without stale markers, and their times.
#[derive(Debug, Default)]
pub(crate) struct NativeSamples {
    pub(crate) times: Vec<Timestamp>,
    pub(crate) histograms: Vec<Native>,
    /// See [`NativeSamples::let_slide`].
    sliding: OnceCell<Option<usize>>,
}

/// Most memory behind prepared sums of windows of one series.
const SLIDING_BYTES_MAX: usize = 4 << 20;

impl NativeSamples {
    pub(super) fn of(samples: &Samples, stats: bool) -> Self {
        let mut natives = Natives::new(samples, stats);
        let mut all = Self::default();
        for (index, t) in samples.histogram_timestamps.iter().enumerate() {
            if !samples.histograms[index].is_stale() {
                all.times.push(*t);
                all.histograms.push(natives.get(index));
            }
        }
        all
    }

    /// Those of a column on `grid`, hints left out: between the steps of a subquery anything may have happened.
    pub(super) fn of_column(column: &Column, grid: Grid) -> Self {
        let mut all = Self::default();
        for (step, native) in column.lane().into_iter().flat_map(|lane| lane.iter()) {
            all.times.push(grid.time(step));
            all.histograms.push(match native.hint() {
                CounterResetHint::Reset | CounterResetHint::NotReset => {
                    let mut unknown = FloatHistogram::clone(native);
                    unknown.set_hint(CounterResetHint::Unknown);
                    Arc::new(unknown)
                }
                CounterResetHint::Unknown | CounterResetHint::Gauge => Arc::clone(native),
            });
        }
        all
    }

    /// Keeps those whose time `keep` wants.
    pub(super) fn retain(&mut self, keep: impl Fn(Timestamp) -> bool) {
        let mut times = self.times.iter();
        self.histograms.retain(|_| times.next().is_some_and(|t| keep(*t)));
        self.times.retain(|t| keep(*t));
    }

    /// Lets sums of windows be put together from sums of their parts, if these do not depend on the order. How many bytes of
    /// such parts may be prepared then.
    pub(super) fn let_slide(&self) -> Option<usize> {
        *self.sliding.get_or_init(|| {
            let all = self.histograms.iter().map(|native| &**native);
            let free = HistogramSum::is_free_of_order(all, self.histograms.len());
            // A sum has its compensation beside it.
            free.then(|| self.bytes().saturating_mul(3).min(SLIDING_BYTES_MAX))
        })
    }

    /// What [`NativeSamples::let_slide`] gave; nothing where nobody has called it.
    pub(crate) fn sliding(&self) -> Option<usize> {
        self.sliding.get().copied().flatten()
    }

    /// Memory behind them, about.
    pub(super) fn bytes(&self) -> usize {
        let places = self.times.len() * (size_of::<Timestamp>() + size_of::<Native>());
        places + self.histograms.iter().map(|native| native_bytes(native)).sum::<usize>()
    }

    /// Adds to each step of `counts` how many samples its window has, as Prometheus counts histograms; the largest number
    /// of them.
    pub(super) fn count_windows(&self, windows: &Windows, counts: &mut [u64]) -> usize {
        let mut sums = Vec::with_capacity(self.times.len() + 1);
        sums.push(0);
        let mut sum = 0;
        sums.extend(self.histograms.iter().map(|native| {
            sum += samples_of(native);
            sum
        }));
        let (mut low, mut high, mut largest) = (0, 0, 0);
        let (left, right) = windows.reach();
        for (step, count) in counts.iter_mut().enumerate() {
            let (start, end) =
                (windows.start(step).saturating_sub(left), windows.end(step).saturating_add(right));
            high += self.times[high..].iter().take_while(|t| **t <= end).count();
            low += self.times[low..high.max(low)].iter().take_while(|t| **t <= start).count();
            let inside = sums[high] - sums[low];
            largest = largest.max(inside);
            *count += inside as u64;
        }
        largest
    }
}
