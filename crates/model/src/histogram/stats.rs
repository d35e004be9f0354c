//! Quantiles, fractions, mean and variance.

use super::{Bucket, FloatHistogram, buckets::Place, compensated::kahan_add};

/// How observations that are no numbers, which are counted but in no bucket, have affected a quantile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NanObservations {
    /// There are none.
    #[default]
    None,
    /// There are; they count as higher than everything, so the quantile is higher than that of the numbers.
    SkewHigher,
    /// There are so many that the quantile is one of them.
    Result,
}

impl FloatHistogram {
    /// The quantile `q` of the observations: linear within custom buckets and the zero bucket, exponential within the
    /// others. The zero bucket ends at 0 where all other buckets lie on one side; the first custom bucket begins at 0,
    /// or is its upper bound where that is not positive; the last is its lower bound. NaN for a `q` that is no number
    /// and without observations, the infinities for a `q` outside of [0, 1].
    #[must_use]
    pub fn quantile(&self, q: f64) -> (f64, NanObservations) {
        let plain = |value| (value, NanObservations::None);
        if q < 0.0 {
            return plain(f64::NEG_INFINITY);
        }
        if q > 1.0 {
            return plain(f64::INFINITY);
        }
        if self.count == 0.0 || q.is_nan() {
            return plain(f64::NAN);
        }
        // From the nearer end; from below where observations without a bucket are on top of all.
        let with_nan = self.sum.is_nan();
        let (found, seen, rank) = if with_nan || q < 0.5 {
            let rank = q * self.count;
            let (found, seen) = search(self.ascending(), rank);
            (found, seen, rank)
        } else {
            let rank = (1.0 - q) * self.count;
            let (found, seen) = search(self.descending(), rank);
            (found, seen, rank)
        };
        let mut bucket = found
            .map_or_else(Bucket::default, |(place, count)| self.layout.bucket_outside_zero(place, count));
        if self.layout.is_custom() {
            if bucket.lower == f64::NEG_INFINITY {
                if bucket.upper <= 0.0 {
                    return plain(bucket.upper);
                }
                bucket.lower = 0.0;
            } else if bucket.upper == f64::INFINITY {
                return plain(bucket.lower);
            }
        } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
            self.one_sided(&mut bucket);
        }
        // Rounding may have made the buckets more than all.
        let seen = if seen > self.count { self.count } else { seen };
        if seen < rank {
            return if with_nan { (f64::NAN, NanObservations::Result) } else { plain(bucket.upper) };
        }
        let into = if with_nan || q < 0.5 { rank - (seen - bucket.count) } else { seen - rank };
        let share = into / bucket.count;
        let linear = self.layout.is_custom() || bucket.straddles_zero();
        let nan = if with_nan && self.bucketed() < self.count {
            NanObservations::SkewHigher
        } else {
            NanObservations::None
        };
        (bucket.value_at(share, linear), nan)
    }

    /// The share of the observations between `lower` and `upper`, interpolated as by [`FloatHistogram::quantile`], and
    /// whether there are observations that are no numbers, which are in no such share. 0 where `lower` is not less than
    /// `upper`; NaN where one of them is no number and without observations.
    #[must_use]
    pub fn fraction(&self, lower: f64, upper: f64) -> (f64, bool) {
        if self.count == 0.0 || lower.is_nan() || upper.is_nan() {
            return (f64::NAN, false);
        }
        if lower >= upper {
            return (0.0, false);
        }
        let (mut below_lower, mut below_upper) = (None, None);
        let mut rank = 0.0;
        for (place, count) in self.ascending() {
            let mut bucket = self.layout.bucket_outside_zero(place, count);
            let straddles_zero = bucket.straddles_zero();
            if straddles_zero {
                self.one_sided(&mut bucket);
            }
            let linear = self.layout.is_custom() || straddles_zero;
            for (value, below) in [(lower, &mut below_lower), (upper, &mut below_upper)] {
                let found = if bucket.lower >= value {
                    Some(rank)
                } else if bucket.upper <= value {
                    None
                } else if linear && bucket.lower == f64::NEG_INFINITY {
                    Some(bucket.count)
                } else {
                    Some(rank + bucket.count * bucket.share_below(value, linear))
                };
                *below = below.or(found);
            }
            if below_lower.is_some() && below_upper.is_some() {
                break;
            }
            rank += count;
        }
        let (total, nan) = if self.sum.is_nan() {
            let bucketed = self.bucketed();
            (bucketed, bucketed < self.count)
        } else {
            (self.count, false)
        };
        let capped = |rank: Option<f64>| rank.map_or(total, |rank| if rank > total { total } else { rank });
        ((capped(below_upper) - capped(below_lower)) / self.count, nan)
    }

    /// The arithmetic mean: the sum by the count.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// The population variance, each observation taken to be in the middle of its bucket: the arithmetic mean of the
    /// bounds of custom buckets, zero in the zero bucket, the geometric mean in the others.
    #[must_use]
    pub fn variance(&self) -> f64 {
        let mean = self.mean();
        let (mut sum, mut lost) = (0.0, 0.0);
        for (place, count) in self.ascending().filter(|(_, count)| *count != 0.0) {
            let bucket = self.layout.bucket_outside_zero(place, count);
            let value = if self.layout.is_custom() {
                (bucket.upper + bucket.lower) / 2.0
            } else if bucket.straddles_zero() {
                0.0
            } else {
                let magnitude = (bucket.upper * bucket.lower).sqrt();
                if bucket.upper < 0.0 { -magnitude } else { magnitude }
            };
            let delta = value - mean;
            (sum, lost) = kahan_add(count * delta * delta, sum, lost);
        }
        (sum + lost) / self.count
    }

    /// Observations in buckets, the zero bucket included.
    fn bucketed(&self) -> f64 {
        self.ascending().map(|(_, count)| count).sum()
    }

    /// The bucket around zero ends there where all other buckets lie on one side.
    fn one_sided(&self, bucket: &mut Bucket) {
        match (self.layout.positive_len(), self.layout.negative_len()) {
            (1.., 0) => bucket.lower = 0.0,
            (0, 1..) => bucket.upper = 0.0,
            _ => {}
        }
    }
}

/// The first bucket with which at least `rank` observations are seen, or the last there is, and how many are seen.
fn search(buckets: impl Iterator<Item = (Place, f64)>, rank: f64) -> (Option<(Place, f64)>, f64) {
    let (mut found, mut seen) = (None, 0.0);
    for (place, count) in buckets {
        found = Some((place, count));
        if count == 0.0 {
            continue;
        }
        seen += count;
        if seen >= rank {
            break;
        }
    }
    (found, seen)
}
