//! Buckets with their bounds, in order of value.

use super::{Layout, NativeHistogram, bounds::bound, layout::indices_back};

/// A bucket: which values it counts, and how many it has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Lower end of the values.
    pub lower: f64,
    /// Upper end of the values.
    pub upper: f64,
    /// Whether `lower` itself belongs to it.
    pub lower_inclusive: bool,
    /// Whether `upper` itself belongs to it.
    pub upper_inclusive: bool,
    /// Observations in it.
    pub count: f64,
}

impl Bucket {
    /// The number that says which ends belong to it in Prometheus' JSON: 0 the upper one, 1 the lower one, 2 none,
    /// 3 both.
    #[must_use]
    pub const fn boundary_rule(&self) -> u8 {
        match (self.lower_inclusive, self.upper_inclusive) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        }
    }

    /// Whether zero lies in it or on one of its ends.
    pub(super) fn straddles_zero(&self) -> bool {
        self.lower <= 0.0 && self.upper >= 0.0
    }

    /// The share of the bucket's width up to `v`, which lies strictly within its finite bounds: on a linear scale, or
    /// on a logarithmic one, where exponential buckets are equally wide.
    pub(super) fn share_below(&self, v: f64, linear: bool) -> f64 {
        if linear {
            return (v - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper, at) = (self.lower.abs().log2(), self.upper.abs().log2(), v.abs().log2());
        if v > 0.0 { (at - lower) / (upper - lower) } else { 1.0 - (at - upper) / (lower - upper) }
    }

    /// The value below which `share` of the bucket lies: the inverse of [`Bucket::share_below`].
    pub(super) fn value_at(&self, share: f64, linear: bool) -> f64 {
        if linear {
            return self.lower + (self.upper - self.lower) * share;
        }
        let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
        if self.lower > 0.0 {
            (lower + (upper - lower) * share).exp2()
        } else {
            -(upper + (lower - upper) * (1.0 - share)).exp2()
        }
    }
}

/// A bucket by its place, before its bounds are worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The bucket of this index for positive values.
    Positive(i32),
    /// The zero bucket.
    Zero,
    /// The bucket of this index for negative values.
    Negative(i32),
}

impl Layout {
    /// The ends of the bucket at `place`, `count` filled in.
    pub(super) fn bucket(&self, place: Place, count: f64) -> Bucket {
        let bounds = |index: i32| {
            let index = i64::from(index);
            (
                bound(index - 1, self.schema(), self.custom_values()),
                bound(index, self.schema(), self.custom_values()),
            )
        };
        let (lower, upper) = match place {
            Place::Zero => (-self.zero_threshold(), self.zero_threshold()),
            Place::Positive(index) => bounds(index),
            Place::Negative(index) => {
                let (near, far) = bounds(index);
                (-far, -near)
            }
        };
        let (lower_inclusive, upper_inclusive) = match place {
            Place::Zero => (true, true),
            Place::Positive(index) if self.is_custom() => (index == 0, true),
            Place::Positive(_) => (false, true),
            Place::Negative(_) => (true, false),
        };
        Bucket { lower, upper, lower_inclusive, upper_inclusive, count }
    }

    /// [`Layout::bucket`], where a bucket that reaches into the zero bucket ends where that begins.
    pub(super) fn bucket_outside_zero(&self, place: Place, count: f64) -> Bucket {
        let mut bucket = self.bucket(place, count);
        let zero = self.zero_threshold();
        if bucket.upper < 0.0 && bucket.upper > -zero {
            bucket.upper = -zero;
        }
        if bucket.lower > 0.0 && bucket.lower < zero {
            bucket.lower = zero;
        }
        bucket
    }
}

impl NativeHistogram<f64> {
    /// The positive buckets, ascending.
    pub(super) fn positive_places(&self) -> impl Iterator<Item = (Place, f64)> + '_ {
        self.layout().positive_indices().map(Place::Positive).zip(self.positive_buckets().iter().copied())
    }

    /// The negative buckets away from zero.
    pub(super) fn negative_places(&self) -> impl Iterator<Item = (Place, f64)> + '_ {
        self.layout().negative_indices().map(Place::Negative).zip(self.negative_buckets().iter().copied())
    }

    /// The negative buckets towards zero.
    pub(super) fn negative_places_back(&self) -> impl Iterator<Item = (Place, f64)> + '_ {
        indices_back(self.layout().negative_spans())
            .map(Place::Negative)
            .zip(self.negative_buckets().iter().rev().copied())
    }

    fn positive_places_back(&self) -> impl Iterator<Item = (Place, f64)> + '_ {
        indices_back(self.layout().positive_spans())
            .map(Place::Positive)
            .zip(self.positive_buckets().iter().rev().copied())
    }

    fn zero_place(&self) -> impl Iterator<Item = (Place, f64)> + '_ {
        (self.zero_count() > 0.0).then_some((Place::Zero, self.zero_count())).into_iter()
    }

    /// All buckets from the lowest to the highest, empty ones too, but the zero bucket only where it holds something.
    pub(super) fn ascending(&self) -> impl Iterator<Item = (Place, f64)> + '_ {
        self.negative_places_back().chain(self.zero_place()).chain(self.positive_places())
    }

    /// All buckets from the highest to the lowest.
    pub(super) fn descending(&self) -> impl Iterator<Item = (Place, f64)> + '_ {
        self.positive_places_back().chain(self.zero_place()).chain(self.negative_places())
    }

    /// All buckets that hold something, the zero bucket too, from the lowest to the highest, as Prometheus' JSON shows
    /// them: a bucket that reaches into the zero bucket ends where that begins.
    pub fn populated(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.ascending()
            .filter(|(_, count)| *count != 0.0)
            .map(|(place, count)| self.layout().bucket_outside_zero(place, count))
    }
}
