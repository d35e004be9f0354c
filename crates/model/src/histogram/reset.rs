//! Counter resets.

use std::sync::Arc;

use super::{
    CounterResetHint, FloatHistogram,
    bounds::within_zero,
    layout::indices,
    reconcile::{Work, common_bounds},
};

impl FloatHistogram {
    /// Whether the counter began anew between `previous` and this histogram: its hint says so, or, where that says
    /// nothing, a count fell or a populated bucket is gone. A gauge is looked at as if it was a counter.
    ///
    /// A finer resolution, a narrower zero bucket and one that cuts a populated bucket of `previous` are resets too;
    /// what `previous` has in a zero bucket that has become wider, or in finer buckets, is merged before it is compared.
    /// Of different custom bounds those are looked at that both have.
    #[must_use]
    pub fn is_reset_after(&self, previous: &Self) -> bool {
        match self.hint {
            CounterResetHint::Reset => return true,
            CounterResetHint::NotReset => return false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        let (layout, before) = (&self.layout, &previous.layout);
        if self.count < previous.count || (layout.is_custom() && !before.is_custom()) {
            return true;
        }
        if layout.is_custom() && layout.custom_values() != before.custom_values() {
            return self.fell_between_common_bounds(previous);
        }
        if layout.schema() > before.schema() || layout.zero_threshold() < before.zero_threshold() {
            return true;
        }
        if (Arc::ptr_eq(layout, before) || layout == before) && !layout.reaches_into_zero() {
            return self.zero_count < previous.zero_count
                || self.buckets.iter().zip(&previous.buckets).any(|(now, before)| now < before);
        }
        let mut zero_before = previous.zero_count;
        if layout.zero_threshold() != before.zero_threshold() {
            let mut work = Work::of(previous, None);
            if work.widen_zero(layout.zero_threshold()) != layout.zero_threshold() {
                return true;
            }
            zero_before = work.zero.count;
        }
        if self.zero_count < zero_before {
            return true;
        }
        [false, true].into_iter().any(|negative| {
            let (schema, threshold) = (layout.schema(), layout.zero_threshold());
            let now = self.side_at(negative, schema, threshold);
            let before = previous.side_at(negative, schema, threshold);
            fell(now, before)
        })
    }

    /// The buckets of one side merged to `schema`, ascending by index, without those within the zero bucket.
    fn side_at(&self, negative: bool, schema: i32, threshold: f64) -> impl Iterator<Item = (i32, f64)> + '_ {
        let custom = self.layout.is_custom();
        let by = if custom { 0 } else { (self.layout.schema() - schema).clamp(0, 63) };
        let (spans, counts) = if negative {
            (self.layout.negative_spans(), self.negative_buckets())
        } else {
            (self.layout.positive_spans(), self.positive_buckets())
        };
        let mut buckets = indices(spans)
            .map(move |index| (((i64::from(index) - 1) >> by) + 1) as i32)
            .zip(counts.iter().copied())
            .peekable();
        let merged = std::iter::from_fn(move || {
            let (index, mut count) = buckets.next()?;
            while let Some((_, more)) = buckets.next_if(|(next, _)| *next == index) {
                count += more;
            }
            Some((index, count))
        });
        merged.skip_while(move |(index, _)| !custom && within_zero(*index, schema, threshold))
    }

    /// Custom buckets of different bounds: whether between two bounds that both have there is less than before.
    fn fell_between_common_bounds(&self, previous: &Self) -> bool {
        let bounds = common_bounds(self.layout.custom_values(), previous.layout.custom_values());
        let mut now = self.up_to_bounds();
        let mut before = previous.up_to_bounds();
        bounds.iter().copied().chain([f64::INFINITY]).any(|bound| now(bound) < before(bound))
    }

    /// Counts what lies above the bound asked before and up to that asked for; bounds ascend.
    fn up_to_bounds(&self) -> impl FnMut(f64) -> f64 + '_ {
        let mut buckets = self.positive_places().peekable();
        move |bound| {
            let mut count = 0.0;
            while let Some((_, more)) =
                buckets.next_if(|(place, _)| self.layout.bucket(*place, 0.0).upper <= bound)
            {
                count += more;
            }
            count
        }
    }
}

/// Whether a bucket of `before` holds more than `now`, or is gone and was not empty.
fn fell(now: impl Iterator<Item = (i32, f64)>, before: impl Iterator<Item = (i32, f64)>) -> bool {
    let mut now = now.peekable();
    let mut before = before;
    before.any(|(index, count)| {
        while now.next_if(|(candidate, _)| *candidate < index).is_some() {}
        match now.peek() {
            Some((candidate, current)) if *candidate == index => *current < count,
            _ => count != 0.0,
        }
    })
}
