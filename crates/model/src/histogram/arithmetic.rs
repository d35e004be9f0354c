//! Plus, minus, times, by; compaction.

use std::{
    ops::{BitOrAssign, Range},
    sync::Arc,
};

use super::{
    CounterResetHint, FloatHistogram, Layout, Span,
    bounds::within_zero,
    compensated::{Lost, kahan_add},
    layout::spans_of,
    reconcile::{Pair, Work},
};

/// What was found out when histograms were added or subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// One says that it was reset, the other that it was not: one of them is wrong.
    pub hints_collide: bool,
    /// They have custom buckets with different bounds: the result has the bounds of both.
    pub bounds_reconciled: bool,
}

impl BitOrAssign for Combined {
    fn bitor_assign(&mut self, other: Self) {
        self.hints_collide |= other.hints_collide;
        self.bounds_reconciled |= other.bounds_reconciled;
    }
}

/// Histograms with exponential and with custom buckets have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("histograms with exponential and with custom buckets cannot be combined")]
pub struct IncompatibleHistograms;

impl CounterResetHint {
    /// The hint of a sum of two histograms, and whether theirs contradict each other.
    #[must_use]
    pub const fn combined(self, other: Self) -> (Self, bool) {
        match (self, other) {
            (Self::Gauge, _) | (_, Self::Gauge) => (Self::Gauge, false),
            (Self::Unknown, _) | (_, Self::Unknown) => (Self::Unknown, false),
            (Self::Reset, Self::Reset) | (Self::NotReset, Self::NotReset) => (self, false),
            (Self::Reset, Self::NotReset) | (Self::NotReset, Self::Reset) => (Self::Unknown, true),
        }
    }
}

impl FloatHistogram {
    /// Adds `other`. Of different resolutions the coarser one results, of different zero buckets one that holds both,
    /// of different custom bounds those that both have. The result may hold empty buckets; see
    /// [`FloatHistogram::compact`]. Where one histogram has all buckets of the other, nothing is allocated.
    ///
    /// # Errors
    /// [`IncompatibleHistograms`]; `self` is as before.
    pub fn add(&mut self, other: &Self) -> Result<Combined, IncompatibleHistograms> {
        self.combine(None, other, 1.0)
    }

    /// Subtracts `other`, as [`FloatHistogram::add`] adds it. The hint is that of a sum; the caller makes it a gauge
    /// where it has to be one.
    ///
    /// # Errors
    /// [`IncompatibleHistograms`]; `self` is as before.
    pub fn subtract(&mut self, other: &Self) -> Result<Combined, IncompatibleHistograms> {
        self.combine(None, other, -1.0)
    }

    /// Multiplies all numbers. A negative factor makes a gauge.
    pub fn multiply(&mut self, factor: f64) {
        self.each_number(|v| *v *= factor);
        if factor < 0.0 {
            self.hint = CounterResetHint::Gauge;
        }
    }

    /// Divides all numbers. A negative divisor makes a gauge; zero leaves no bucket but the zero bucket.
    pub fn divide(&mut self, divisor: f64) {
        if divisor == 0.0 {
            self.buckets.clear();
            self.layout = Arc::new(Layout::trusted(
                self.layout.schema(),
                self.layout.zero_threshold(),
                Vec::new(),
                Vec::new(),
                Arc::clone(self.layout.shared_custom_values()),
            ));
        }
        self.each_number(|v| *v /= divisor);
        if divisor < 0.0 {
            self.hint = CounterResetHint::Gauge;
        }
    }

    fn each_number(&mut self, mut f: impl FnMut(&mut f64)) {
        f(&mut self.zero_count);
        f(&mut self.count);
        f(&mut self.sum);
        self.buckets.iter_mut().for_each(f);
    }

    /// Whether a count or the sum is infinite.
    #[must_use]
    pub fn overflows(&self) -> bool {
        [self.zero_count, self.count, self.sum].iter().chain(&self.buckets).any(|v| v.is_infinite())
    }

    /// Takes out the buckets that hold nothing. Nothing is allocated where there are none.
    pub fn compact(&mut self) {
        if self.buckets.iter().all(|count| *count != 0.0) {
            return;
        }
        let kept = |indices: &mut dyn Iterator<Item = i32>, counts: &[f64]| -> Vec<Span> {
            spans_of(indices.zip(counts).filter(|(_, count)| **count != 0.0).map(|(index, _)| index))
        };
        let layout = &self.layout;
        let positive = kept(&mut layout.positive_indices(), self.positive_buckets());
        let negative = kept(&mut layout.negative_indices(), self.negative_buckets());
        self.layout = Arc::new(Layout::trusted(
            layout.schema(),
            layout.zero_threshold(),
            positive,
            negative,
            Arc::clone(layout.shared_custom_values()),
        ));
        self.buckets.retain(|count| *count != 0.0);
    }

    /// Lets go of its own layout for `known`, if that is the same: what shares a layout is added without comparing it.
    pub fn share_layout(&mut self, known: &Arc<Layout>) {
        if !Arc::ptr_eq(&self.layout, known) && self.layout == *known {
            self.layout = Arc::clone(known);
        }
    }

    /// Brings it down to a coarser exponential resolution, in place; nothing where it is as coarse, or custom.
    pub fn reduce_to(&mut self, schema: i32) {
        if !self.layout.is_custom() && schema < self.layout.schema() {
            *self = self.reduced_to(schema);
        }
    }

    /// Adds `sign * other`; `lost` is the compensation of `self`, if it has one.
    pub(super) fn combine(
        &mut self,
        mut lost: Option<&mut Lost>,
        other: &Self,
        sign: f64,
    ) -> Result<Combined, IncompatibleHistograms> {
        if self.layout.is_custom() != other.layout.is_custom() {
            return Err(IncompatibleHistograms);
        }
        let (hint, hints_collide) = self.hint.combined(other.hint);
        self.hint = hint;
        let mut bounds_reconciled = false;
        if self.layout.can_take(&other.layout) {
            self.add_runs(lost.as_deref_mut(), other, sign);
            add_one(
                &mut self.zero_count,
                lost.as_deref_mut().map(|lost| &mut lost.zero_count),
                sign * other.zero_count,
            );
        } else {
            let mut pair = Pair { left: Work::of(self, lost.as_deref()), right: Work::of(other, None), sign };
            bounds_reconciled = pair.reconcile();
            pair.merge().into_histogram(self, lost.as_deref_mut());
        }
        add_one(&mut self.count, lost.as_deref_mut().map(|l| &mut l.count), sign * other.count);
        add_one(&mut self.sum, lost.map(|l| &mut l.sum), sign * other.sum);
        Ok(Combined { hints_collide, bounds_reconciled })
    }

    /// Adds `other`, a sum too; `lost` and `other_lost` are what rounding has lost of each.
    pub(super) fn combine_sums(
        &mut self,
        lost: &mut Lost,
        other: &Self,
        other_lost: &Lost,
    ) -> Result<Combined, IncompatibleHistograms> {
        if self.layout.is_custom() != other.layout.is_custom() {
            return Err(IncompatibleHistograms);
        }
        let (hint, hints_collide) = self.hint.combined(other.hint);
        self.hint = hint;
        let mut bounds_reconciled = false;
        if self.layout.can_take(&other.layout) {
            let Self { layout, buckets, .. } = self;
            layout.runs(&other.layout, |own, run| {
                let sums = buckets.get_mut(own.clone()).unwrap_or_default().iter_mut();
                let sums = sums.zip(lost.buckets.get_mut(own).unwrap_or_default());
                let others = other.buckets.get(run.clone()).unwrap_or_default().iter();
                let others = others.zip(other_lost.buckets.get(run).unwrap_or_default());
                for ((sum, lost), (x, x_lost)) in sums.zip(others) {
                    add_sum(sum, lost, (*x, *x_lost));
                }
            });
            add_sum(&mut self.zero_count, &mut lost.zero_count, (other.zero_count, other_lost.zero_count));
        } else {
            let (left, right) = (Work::of(self, Some(lost)), Work::of(other, Some(other_lost)));
            let mut pair = Pair { left, right, sign: 1.0 };
            bounds_reconciled = pair.reconcile();
            pair.merge().into_histogram(self, Some(lost));
        }
        add_sum(&mut self.count, &mut lost.count, (other.count, other_lost.count));
        add_sum(&mut self.sum, &mut lost.sum, (other.sum, other_lost.sum));
        Ok(Combined { hints_collide, bounds_reconciled })
    }

    /// Adds the buckets of `other`, all of which `self` has.
    fn add_runs(&mut self, lost: Option<&mut Lost>, other: &Self, sign: f64) {
        let Self { layout, buckets, .. } = self;
        let lost = lost.map(|lost| &mut lost.buckets[..]);
        if let Some(lost) = lost {
            layout.runs(&other.layout, |own, run| {
                let sums = buckets.get_mut(own.clone()).unwrap_or_default().iter_mut();
                let lost = lost.get_mut(own).unwrap_or_default();
                for ((sum, lost), x) in sums.zip(lost).zip(other.buckets.get(run).unwrap_or_default()) {
                    (*sum, *lost) = kahan_add(sign * x, *sum, *lost);
                }
            });
        } else {
            layout.runs(&other.layout, |own, run| {
                let sums = buckets.get_mut(own).unwrap_or_default();
                for (sum, x) in sums.iter_mut().zip(other.buckets.get(run).unwrap_or_default()) {
                    *sum += sign * x;
                }
            });
        }
    }
}

fn add_one(sum: &mut f64, lost: Option<&mut f64>, x: f64) {
    match lost {
        None => *sum += x,
        Some(lost) => (*sum, *lost) = kahan_add(x, *sum, *lost),
    }
}

/// Adds `x` and what rounding has lost of it.
#[inline(always)]
fn add_sum(sum: &mut f64, lost: &mut f64, (x, x_lost): (f64, f64)) {
    (*sum, *lost) = kahan_add(x, *sum, *lost);
    (*sum, *lost) = kahan_add(x_lost, *sum, *lost);
}

impl Layout {
    /// Whether a bucket lies within the zero bucket as a whole, which no client makes.
    pub(super) fn reaches_into_zero(&self) -> bool {
        let inside = |index: Option<i32>| {
            index.is_some_and(|index| within_zero(index, self.schema(), self.zero_threshold()))
        };
        !self.is_custom()
            && (inside(self.positive_indices().next()) || inside(self.negative_indices().next()))
    }

    /// Whether each bucket of `other` is one of `self`, and no zero bucket has to be looked at.
    fn can_take(&self, other: &Self) -> bool {
        // Buckets within the zero bucket are added to it, not to each other.
        !other.reaches_into_zero()
            && (std::ptr::eq(self, other) || (self.same_scale(other) && self.runs(other, |_, _| {})))
    }

    /// Calls `f(places in self, places in other)` for runs of buckets that both have, which are all of `other`; false
    /// where that is not so.
    fn runs(&self, other: &Self, mut f: impl FnMut(Range<usize>, Range<usize>)) -> bool {
        if std::ptr::eq(self, other) {
            f(0..self.len(), 0..self.len());
            return true;
        }
        let sides = [
            (self.positive_spans(), other.positive_spans(), 0, 0),
            (self.negative_spans(), other.negative_spans(), self.positive_len(), other.positive_len()),
        ];
        sides.into_iter().all(|(own, other, own_at, other_at)| {
            let mut own = runs_of(own, own_at).peekable();
            runs_of(other, other_at).all(|(first, places)| {
                // Spans do not touch: a run of one lies within one of the other.
                while own.next_if(|(own, within)| own + within.len() as i64 <= first).is_some() {}
                let Some((start, within)) = own.peek() else { return false };
                let skipped = usize::try_from(first - start).unwrap_or(usize::MAX);
                let from = within.start.saturating_add(skipped);
                let to = from.saturating_add(places.len());
                let inside = to <= within.end;
                if inside {
                    f(from..to, places);
                }
                inside
            })
        })
    }
}

/// The first index and the places of the counts of each span; the first count is at `at`.
fn runs_of(spans: &[Span], at: usize) -> impl Iterator<Item = (i64, Range<usize>)> + '_ {
    let (mut index, mut at) = (0_i64, at);
    spans.iter().map(move |span| {
        let first = index + i64::from(span.offset);
        index = first + i64::from(span.length);
        let places = at..at + span.length as usize;
        at = places.end;
        (first, places)
    })
}
