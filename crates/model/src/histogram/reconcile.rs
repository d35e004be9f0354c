//! What makes two histograms comparable: one zero bucket, one resolution, one set of custom bounds.

use std::{cmp::Ordering, sync::Arc};

use super::{
    BUCKETS_MAX, CUSTOM_SCHEMA, FloatHistogram, Layout, SCHEMA_MIN, Span,
    bounds::{exponential, within_zero},
    compensated::{Lost, kahan_add},
    layout::spans_of,
};

/// The indices of the coarsest resolution that floats fall into, the overflow bucket included.
const COARSEST_INDICES: std::ops::RangeInclusive<i32> = -68..=65;

/// A bucket: its index, its count, and what rounding has lost of the count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) index: i32,
    pub(super) count: f64,
    lost: f64,
}

impl Entry {
    fn add(&mut self, count: f64, lost: f64) {
        (self.count, self.lost) = kahan_add(count, self.count, self.lost);
        if lost != 0.0 {
            (self.count, self.lost) = kahan_add(lost, self.count, self.lost);
        }
    }

    const fn holds_nothing(&self) -> bool {
        self.count == 0.0 && self.lost == 0.0
    }
}

/// The buckets of a histogram taken apart, to be moved about.
#[derive(Clone, Debug)]
pub(super) struct Work {
    schema: i32,
    zero_threshold: f64,
    pub(super) zero: Entry,
    /// Positive, then negative buckets, ascending by index.
    pub(super) sides: [Vec<Entry>; 2],
    custom_values: Arc<[f64]>,
}

/// Two histograms on their way into one: `left + sign * right`.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) left: Work,
    pub(super) right: Work,
    pub(super) sign: f64,
}

impl Work {
    /// Takes `histogram` apart; `lost` is its compensation, if it has one.
    pub(super) fn of(histogram: &FloatHistogram, lost: Option<&Lost>) -> Self {
        let layout = histogram.layout();
        let mut lost_buckets = lost.map_or(&[][..], |lost| &lost.buckets).iter().copied();
        let mut side = |indices: &mut dyn Iterator<Item = i32>, counts: &[f64]| {
            indices
                .zip(counts)
                .map(|(index, count)| Entry {
                    index,
                    count: *count,
                    lost: lost_buckets.next().unwrap_or(0.0),
                })
                .collect()
        };
        let positive = side(&mut layout.positive_indices(), histogram.positive_buckets());
        let negative = side(&mut layout.negative_indices(), histogram.negative_buckets());
        Self {
            schema: layout.schema(),
            zero_threshold: layout.zero_threshold(),
            zero: Entry {
                index: 0,
                count: histogram.zero_count(),
                lost: lost.map_or(0.0, |lost| lost.zero_count),
            },
            sides: [positive, negative],
            custom_values: Arc::clone(layout.shared_custom_values()),
        }
    }

    /// Widens the zero bucket to `threshold`, or to the upper bound of a populated bucket that it would cut, and moves
    /// what is in it then there. Gives the threshold reached; does nothing where it is as wide already.
    pub(super) fn widen_zero(&mut self, threshold: f64) -> f64 {
        if threshold.partial_cmp(&self.zero_threshold) != Some(Ordering::Greater) {
            return self.zero_threshold;
        }
        let schema = self.schema;
        let ends = |entry: &Entry| {
            let index = i64::from(entry.index);
            (exponential(index - 1, schema), exponential(index, schema))
        };
        let mut threshold = threshold;
        loop {
            let cut = self.sides.iter().flatten().find_map(|entry| {
                let (lower, upper) = ends(entry);
                (entry.count != 0.0 && lower < threshold && upper > threshold).then_some(upper)
            });
            match cut {
                Some(upper) => threshold = upper,
                None => break,
            }
        }
        for side in &mut self.sides {
            let inside = side.partition_point(|entry| ends(entry).0 < threshold);
            for entry in side.drain(..inside) {
                self.zero.add(entry.count, entry.lost);
            }
        }
        self.zero_threshold = threshold;
        threshold
    }

    /// Merges buckets to a coarser resolution.
    fn reduce(&mut self, schema: i32) {
        let by = u32::try_from(self.schema - schema).unwrap_or(0);
        self.schema = schema;
        self.map_indices(|index| (((i64::from(index) - 1) >> by.min(63)) + 1) as i32);
    }

    /// Gives each bucket a new index, never falling where the old ones rise, and merges those that became one.
    fn map_indices(&mut self, to: impl Fn(i32) -> i32) {
        for side in &mut self.sides {
            for entry in side.iter_mut() {
                entry.index = to(entry.index);
            }
            side.dedup_by(|next, kept| {
                let same = next.index == kept.index;
                if same {
                    kept.add(next.count, next.lost);
                }
                same
            });
        }
    }

    /// Brings the buckets down in number to [`BUCKETS_MAX`]: to a coarser resolution, and where the coarsest does not
    /// do, indices beyond what floats fall into become those of the ends.
    fn fit(&mut self) {
        while self.schema != CUSTOM_SCHEMA && self.sides.iter().map(Vec::len).sum::<usize>() > BUCKETS_MAX {
            if self.schema > SCHEMA_MIN {
                self.reduce(self.schema - 1);
            } else {
                self.map_indices(|index| index.clamp(*COARSEST_INDICES.start(), *COARSEST_INDICES.end()));
            }
        }
    }

    /// Puts the buckets into `histogram` and what they lost into `lost`.
    pub(super) fn into_histogram(mut self, histogram: &mut FloatHistogram, lost: Option<&mut Lost>) {
        self.fit();
        let spans = |side: &[Entry]| -> Vec<Span> { spans_of(side.iter().map(|entry| entry.index)) };
        let [positive, negative] = &self.sides;
        let layout = Layout::trusted(
            self.schema,
            self.zero_threshold,
            spans(positive),
            spans(negative),
            self.custom_values,
        );
        if *histogram.layout != layout {
            histogram.layout = Arc::new(layout);
        }
        histogram.zero_count = self.zero.count;
        histogram.buckets.clear();
        histogram.buckets.extend(positive.iter().chain(negative).map(|entry| entry.count));
        if let Some(lost) = lost {
            lost.zero_count = self.zero.lost;
            lost.buckets.clear();
            lost.buckets.extend(positive.iter().chain(negative).map(|entry| entry.lost));
        }
    }
}

impl Pair {
    /// Makes an index mean the same in both. Says whether custom bounds had to be given up for that.
    pub(super) fn reconcile(&mut self) -> bool {
        let Self { left, right, .. } = self;
        if left.schema == CUSTOM_SCHEMA {
            let differ = left.custom_values != right.custom_values;
            if differ {
                let common = common_bounds(&left.custom_values, &right.custom_values);
                left.merge_to_bounds(&common);
                right.merge_to_bounds(&common);
            }
            return differ;
        }
        let left_before = left.zero_threshold;
        let (mut left_zero, mut right_zero) = (left_before, right.zero_threshold);
        // Each step widens one to a threshold of the other or to the end of a bucket, of which there are finitely many.
        // A threshold that is no number is as wide as none.
        loop {
            if left_zero > right_zero {
                right_zero = right.widen_zero(left_zero);
            } else if right_zero > left_zero {
                left_zero = left.widen_zero(right_zero);
            } else {
                break;
            }
        }
        if left_zero != left_before {
            left.drop_empty();
        }
        if left.schema > right.schema {
            left.reduce(right.schema);
        } else if right.schema > left.schema {
            right.reduce(left.schema);
        }
        false
    }

    /// One histogram of both, which are reconciled. Buckets of the right one that lie within the zero bucket are left
    /// out: the zero bucket says what is there.
    pub(super) fn merge(self) -> Work {
        let Self { mut left, right, sign } = self;
        let (schema, threshold) = (left.schema, left.zero_threshold);
        let inside = |entry: &Entry| schema != CUSTOM_SCHEMA && within_zero(entry.index, schema, threshold);
        left.zero.add(sign * right.zero.count, sign * right.zero.lost);
        for (side, other) in left.sides.iter_mut().zip(right.sides) {
            let own = std::mem::take(side);
            side.reserve(own.len() + other.len());
            let mut own = own.into_iter().peekable();
            for x in other.into_iter().skip_while(inside) {
                while let Some(before) = own.next_if(|entry| entry.index < x.index) {
                    side.push(before);
                }
                let (count, lost) = (sign * x.count, sign * x.lost);
                side.push(match own.next_if(|entry| entry.index == x.index) {
                    Some(mut entry) => {
                        entry.add(count, lost);
                        entry
                    }
                    None => Entry { index: x.index, count, lost },
                });
            }
            side.extend(own);
        }
        left
    }
}

impl Work {
    fn drop_empty(&mut self) {
        for side in &mut self.sides {
            side.retain(|entry| !entry.holds_nothing());
        }
    }

    /// Merges custom buckets into those between `bounds`, all of which are bounds here too.
    fn merge_to_bounds(&mut self, bounds: &Arc<[f64]>) {
        let own = Arc::clone(&self.custom_values);
        self.map_indices(|index| {
            let bound = usize::try_from(index).ok().and_then(|index| own.get(index));
            let at = bound.map_or(bounds.len(), |bound| bounds.partition_point(|b| b < bound));
            i32::try_from(at).unwrap_or(i32::MAX)
        });
        self.custom_values = Arc::clone(bounds);
        self.drop_empty();
    }
}

/// The bounds that both have.
pub(super) fn common_bounds(a: &[f64], b: &[f64]) -> Arc<[f64]> {
    let mut b = b.iter().peekable();
    a.iter()
        .filter(|bound| {
            while b.next_if(|other| other < bound).is_some() {}
            b.peek() == Some(bound)
        })
        .copied()
        .collect()
}
