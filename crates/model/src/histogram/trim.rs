//! Cutting histograms off at a value: the operators `</` and `>/`.

use super::{Bucket, FloatHistogram, buckets::Place};

/// Which side of a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Below,
    Above,
}

/// What is kept of a bucket: how many observations, and a value that stands for each.
#[derive(Clone, Copy, Debug)]
struct Kept {
    count: f64,
    value: f64,
}

impl FloatHistogram {
    /// Drops the observations above `limit`: `histogram </ limit`. A bucket that is cut is interpolated as quantiles
    /// are; of a bucket without end nothing is kept that is not surely on the right side. Where anything was dropped,
    /// count and sum are those of the buckets, each observation taken to be in the middle of what is kept of its
    /// bucket, and the result is compact.
    pub fn trim_upper(&mut self, limit: f64) {
        self.trim(limit, Keep::Below);
    }

    /// Drops the observations below `limit`: `histogram >/ limit`. As [`FloatHistogram::trim_upper`] otherwise.
    pub fn trim_lower(&mut self, limit: f64) {
        self.trim(limit, Keep::Above);
    }

    fn trim(&mut self, limit: f64, keep: Keep) {
        let custom = self.layout.is_custom();
        let (mut count, mut sum, mut trimmed) = (0.0, 0.0, false);
        let (mut any_positive, mut any_negative) = (false, false);
        let layout = &*self.layout;
        for ((negative, index), bucket_count) in layout.places().zip(&mut self.buckets) {
            if *bucket_count == 0.0 {
                continue;
            }
            *(if negative { &mut any_negative } else { &mut any_positive }) = true;
            let place = if negative { Place::Negative(index) } else { Place::Positive(index) };
            let bucket = layout.bucket(place, *bucket_count);
            let kept = keep.of_bucket(&bucket, limit, !negative, custom);
            count += kept.count;
            sum += kept.value * kept.count;
            trimmed |= kept.count.to_bits() != bucket_count.to_bits();
            *bucket_count = kept.count;
        }
        if self.zero_count > 0.0 {
            let mut bucket = layout.bucket(Place::Zero, self.zero_count);
            if any_negative && !any_positive {
                bucket.upper = 0.0;
            }
            if any_positive && !any_negative {
                bucket.lower = 0.0;
            }
            let kept = keep.of_zero_bucket(&bucket, limit);
            count += kept.count;
            sum += kept.value * kept.count;
            trimmed |= kept.count.to_bits() != self.zero_count.to_bits();
            self.zero_count = kept.count;
        }
        if trimmed {
            (self.count, self.sum) = (count, sum);
            self.compact();
        }
    }
}

impl Keep {
    fn of_bucket(self, bucket: &Bucket, limit: f64, positive: bool, linear: bool) -> Kept {
        let (all, cut) = match self {
            Self::Below => (bucket.upper <= limit, bucket.lower < limit),
            Self::Above => (bucket.lower >= limit, bucket.upper > limit),
        };
        if all {
            return Kept { count: bucket.count, value: middle(bucket.lower, bucket.upper, positive, linear) };
        }
        if !cut {
            return Kept { count: 0.0, value: 0.0 };
        }
        if bucket.lower == f64::NEG_INFINITY || bucket.upper == f64::INFINITY {
            return self.of_endless_bucket(bucket, limit);
        }
        let below = bucket.count * bucket.share_below(limit, linear);
        match self {
            Self::Below => Kept { count: below, value: middle(bucket.lower, limit, positive, linear) },
            Self::Above => {
                Kept { count: bucket.count - below, value: middle(limit, bucket.upper, positive, linear) }
            }
        }
    }

    /// A bucket without lower or upper end in which `limit` lies. The first custom bucket begins at zero where its end
    /// is positive.
    fn of_endless_bucket(self, bucket: &Bucket, limit: f64) -> Kept {
        let Bucket { lower, upper, count, .. } = *bucket;
        if lower == f64::NEG_INFINITY {
            let from_zero = upper > 0.0 && upper != f64::INFINITY;
            return match self {
                Self::Below if limit > 0.0 && from_zero => {
                    Kept { count: count * limit / upper, value: limit / 2.0 }
                }
                Self::Below if upper <= 0.0 => Kept { count, value: limit },
                Self::Above if limit >= 0.0 && from_zero => {
                    Kept { count: count * (1.0 - limit / upper), value: (limit + upper) / 2.0 }
                }
                _ => Kept { count: 0.0, value: 0.0 },
            };
        }
        match self {
            Self::Above if limit >= lower => Kept { count, value: limit },
            _ => Kept { count: 0.0, value: 0.0 },
        }
    }

    fn of_zero_bucket(self, bucket: &Bucket, limit: f64) -> Kept {
        let Bucket { lower, upper, count, .. } = *bucket;
        let all = Kept { count, value: (lower + upper) / 2.0 };
        let nothing = Kept { count: 0.0, value: 0.0 };
        match self {
            Self::Below if limit <= lower => nothing,
            Self::Below if limit >= upper => all,
            Self::Below => {
                Kept { count: count * ((limit - lower) / (upper - lower)), value: (lower + limit) / 2.0 }
            }
            Self::Above if limit <= lower => all,
            Self::Above if limit >= upper => nothing,
            Self::Above => {
                Kept { count: count * ((upper - limit) / (upper - lower)), value: (limit + upper) / 2.0 }
            }
        }
    }
}

/// The value that stands for those between two ends: their arithmetic or geometric mean, or the end that is finite.
/// What has no lower end begins at zero, if it can.
fn middle(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if linear => (lower + upper) / 2.0,
        (false, false) => {
            let magnitude = (lower * upper).abs().sqrt();
            if positive { magnitude } else { -magnitude }
        }
    }
}
