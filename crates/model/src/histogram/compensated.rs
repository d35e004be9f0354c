//! Sums and means of many histograms, with compensated summation.

use std::sync::Arc;

use super::{
    BUCKETS_MAX, Combined, CounterResetHint, FloatHistogram, IncompatibleHistograms, Layout,
    layout::{indices, indices_back},
};

/// Adds `x` to the compensated sum (`sum`, `lost`) as Neumaier does. The correction is forgotten when the sum becomes
/// infinite.
#[inline(always)]
pub(super) fn kahan_add(x: f64, sum: f64, lost: f64) -> (f64, f64) {
    let next = sum + x;
    let error = if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
    (next, if next.is_infinite() { 0.0 } else { lost + error })
}

/// What rounding has lost of the numbers of a histogram, which has as many buckets.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) zero_count: f64,
    pub(super) buckets: Vec<f64>,
}

impl Lost {
    fn of(histogram: &FloatHistogram) -> Self {
        Self { buckets: vec![0.0; histogram.buckets.len()], ..Self::default() }
    }

    fn each_number(&mut self, mut f: impl FnMut(&mut f64)) {
        f(&mut self.count);
        f(&mut self.sum);
        f(&mut self.zero_count);
        self.buckets.iter_mut().for_each(f);
    }

    fn add_to(&self, histogram: &mut FloatHistogram) {
        histogram.count += self.count;
        histogram.sum += self.sum;
        histogram.zero_count += self.zero_count;
        for (count, lost) in histogram.buckets.iter_mut().zip(&self.buckets) {
            *count += lost;
        }
    }
}

/// Which hints were seen.
#[derive(Clone, Copy, Debug, Default)]
struct HintsSeen {
    reset: bool,
    not_reset: bool,
}

impl HintsSeen {
    fn see(&mut self, hint: CounterResetHint) {
        self.reset |= hint == CounterResetHint::Reset;
        self.not_reset |= hint == CounterResetHint::NotReset;
    }
}

/// A sum of histograms.
#[derive(Clone, Debug)]
pub struct HistogramSum {
    value: FloatHistogram,
    /// Absent as long as there is one histogram.
    lost: Option<Lost>,
    hints: HintsSeen,
    bounds_reconciled: bool,
}

impl HistogramSum {
    /// The sum of one histogram.
    #[must_use]
    pub fn of(first: FloatHistogram) -> Self {
        let mut hints = HintsSeen::default();
        hints.see(first.hint());
        Self { value: first, lost: None, hints, bounds_reconciled: false }
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`IncompatibleHistograms`]; then there is no sum.
    pub fn add(&mut self, x: &FloatHistogram) -> Result<(), IncompatibleHistograms> {
        self.hints.see(x.hint());
        let Self { value, lost, .. } = self;
        let lost = lost.get_or_insert_with(|| Lost::of(value));
        self.bounds_reconciled |= value.combine(Some(lost), x, 1.0)?.bounds_reconciled;
        Ok(())
    }

    /// Adds what `later` is the sum of.
    ///
    /// # Errors
    /// [`IncompatibleHistograms`]; then there is no sum.
    pub fn join(&mut self, later: &Self) -> Result<(), IncompatibleHistograms> {
        self.hints.reset |= later.hints.reset;
        self.hints.not_reset |= later.hints.not_reset;
        let Self { value, lost, .. } = self;
        let lost = lost.get_or_insert_with(|| Lost::of(value));
        let combined = match &later.lost {
            Some(later_lost) => value.combine_sums(lost, &later.value, later_lost)?,
            None => value.combine(Some(lost), &later.value, 1.0)?,
        };
        self.bounds_reconciled |= combined.bounds_reconciled | later.bounds_reconciled;
        Ok(())
    }

    /// The sum of the observations so far, without what rounding has lost of it.
    #[must_use]
    pub const fn observed(&self) -> f64 {
        self.value.sum
    }

    /// Adds the sums of the observations up anew, which are `sums`: where they cancel each other out, their order matters.
    pub fn observe_again(&mut self, sums: impl IntoIterator<Item = f64>) {
        let mut sums = sums.into_iter();
        let first = (sums.next().unwrap_or_default(), 0.0);
        let (sum, lost) = sums.fold(first, |(sum, lost), x| kahan_add(x, sum, lost));
        self.value.sum = sum;
        if let Some(of_sum) = &mut self.lost {
            of_sum.sum = lost;
        }
    }

    /// Whether sums of any of `all`, `count` at most, are the same whatever is added to what first, but for rounding: they
    /// have the same scale, nothing lies within a zero bucket, no sum has too many buckets or becomes infinite, and counts
    /// are not negative. What is said of a sum ([`HistogramSum::combined`]) does not depend on the order in any case.
    #[must_use]
    pub fn is_free_of_order<'a>(all: impl IntoIterator<Item = &'a FloatHistogram>, count: usize) -> bool {
        let limit = room() / count.max(1) as f64;
        let (mut known, mut reach): (Option<&Arc<Layout>>, _) = (None, Reach::default());
        all.into_iter().all(|histogram| {
            let layout = &histogram.layout;
            if !known.is_some_and(|known| Arc::ptr_eq(known, layout)) {
                let same = known.is_none_or(|known| known.same_scale(layout));
                known = Some(layout);
                if !same || layout.reaches_into_zero() || !reach.holds(layout) {
                    return false;
                }
            }
            let counts = [histogram.count, histogram.zero_count];
            let fits = |count: &f64| (0.0..limit).contains(count);
            // A sum that is no number remains that.
            let sum = histogram.sum;
            (sum.is_nan() || sum.abs() < limit) && counts.iter().chain(&histogram.buckets).all(fits)
        })
    }

    /// What was found out so far. Hints collide where any two do, in whatever order they came.
    #[must_use]
    pub const fn combined(&self) -> Combined {
        Combined {
            hints_collide: self.hints.reset && self.hints.not_reset,
            bounds_reconciled: self.bounds_reconciled,
        }
    }

    /// The sum, not compacted.
    #[must_use]
    pub fn finish(mut self) -> FloatHistogram {
        if let Some(lost) = &self.lost {
            lost.add_to(&mut self.value);
        }
        self.value
    }

    /// Bytes on the heap, about, without layouts.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let lost = self.lost.as_ref().map_or(0, |lost| lost.buckets.capacity() * size_of::<f64>());
        self.value.heap_bytes() + lost
    }
}

/// Far enough from the largest float that no bucket can reach that, whichever are merged.
const fn room() -> f64 {
    f64::MAX / (2.0 * BUCKETS_MAX as f64)
}

/// The range of the indices of some layouts, by side.
#[derive(Debug, Default)]
struct Reach([Option<(i32, i32)>; 2]);

impl Reach {
    /// Takes `layout` in; whether one with all these indices would have no more than [`BUCKETS_MAX`].
    fn holds(&mut self, layout: &Layout) -> bool {
        for (reach, spans) in self.0.iter_mut().zip([layout.positive_spans(), layout.negative_spans()]) {
            let (Some(first), Some(last)) = (indices(spans).next(), indices_back(spans).next()) else {
                continue;
            };
            let (low, high) = reach.unwrap_or((first, last));
            *reach = Some((low.min(first), high.max(last)));
        }
        let size = |(low, high): (i32, i32)| i64::from(high) - i64::from(low) + 1;
        self.0.iter().flatten().copied().map(size).sum::<i64>() <= BUCKETS_MAX as i64
    }
}

/// A mean of histograms: their sum by their number, and from the moment a number of the sum would become infinite, a
/// mean that is kept up to date, which does not overflow.
#[derive(Clone, Debug)]
pub struct HistogramMean {
    /// The sum, or once `incremental`, the mean.
    sum: HistogramSum,
    count: f64,
    incremental: bool,
}

impl HistogramMean {
    /// The mean of `count` histograms whose sum is `sum`, and finite.
    #[must_use]
    pub const fn of_sum(sum: HistogramSum, count: usize) -> Self {
        Self { sum, count: count as f64, incremental: false }
    }

    /// The mean of one histogram.
    #[must_use]
    pub fn of(first: FloatHistogram) -> Self {
        Self { sum: HistogramSum::of(first), count: 1.0, incremental: false }
    }

    /// Takes in one more.
    ///
    /// # Errors
    /// [`IncompatibleHistograms`]; then there is no mean.
    pub fn add(&mut self, x: &FloatHistogram) -> Result<(), IncompatibleHistograms> {
        self.count += 1.0;
        if !self.incremental {
            if self.add_unless_infinite(x)? {
                return Ok(());
            }
            self.incremental = true;
            let before = self.count - 1.0;
            self.scale(|v| *v /= before);
        }
        let keep = (self.count - 1.0) / self.count;
        self.scale(|v| *v *= keep);
        let mut share = x.clone();
        share.divide(self.count);
        self.sum.add(&share)
    }

    fn scale(&mut self, f: impl Fn(&mut f64)) {
        let value = &mut self.sum.value;
        [&mut value.count, &mut value.sum, &mut value.zero_count].into_iter().for_each(&f);
        value.buckets.iter_mut().for_each(&f);
        if let Some(lost) = &mut self.sum.lost {
            lost.each_number(&f);
        }
    }

    /// Adds `x` to the sum if that stays finite.
    fn add_unless_infinite(&mut self, x: &FloatHistogram) -> Result<bool, IncompatibleHistograms> {
        let value = &self.sum.value;
        let most = |histogram: &FloatHistogram| {
            let numbers = [histogram.count, histogram.sum, histogram.zero_count];
            numbers.iter().chain(&histogram.buckets).fold(0.0, |most: f64, v| most.max(v.abs()))
        };
        if most(value) + most(x) < room() {
            return self.sum.add(x).map(|()| true);
        }
        let mut tried = self.sum.clone();
        tried.add(x)?;
        self.sum.hints = tried.hints;
        self.sum.bounds_reconciled = tried.bounds_reconciled;
        let finite = !tried.value.overflows();
        if finite {
            self.sum = tried;
        }
        Ok(finite)
    }

    /// What was found out so far; see [`HistogramSum::combined`].
    #[must_use]
    pub const fn combined(&self) -> Combined {
        self.sum.combined()
    }

    /// The mean, not compacted.
    #[must_use]
    pub fn finish(mut self) -> FloatHistogram {
        if !self.incremental {
            let count = self.count;
            self.scale(|v| *v /= count);
        }
        self.sum.finish()
    }

    /// Bytes on the heap, about, without layouts.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes()
    }
}
