//! Numbers: compensated sums, means, quantiles and comparison with tolerance, in the order of operations
//! Prometheus uses, so that results are equal to the last bit where the order of the input is.

use std::cmp::Ordering;

/// A sum with the error it has made so far (Neumaier's variant of Kahan summation).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Kahan {
    /// The rounded sum.
    pub(crate) sum: f64,
    /// What rounding has lost.
    pub(crate) lost: f64,
}

impl Kahan {
    /// A sum that starts with `first`, exactly (unlike adding `first` to zero, this keeps a negative zero).
    pub(crate) const fn starting_with(first: f64) -> Self {
        Self { sum: first, lost: 0.0 }
    }

    /// Adds `x`.
    #[inline(always)]
    pub(crate) fn add(&mut self, x: f64) {
        (self.sum, self.lost) = kahan_add(x, self.sum, self.lost);
    }

    /// The sum, corrected. An infinite sum stays infinite.
    #[inline(always)]
    pub(crate) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }

    /// The sum of two sums. Exact up to the rounding of the lost parts, but not necessarily the bits that adding the
    /// elements one by one gives.
    #[inline(always)]
    pub(crate) fn merge(self, other: Self) -> Self {
        let (sum, lost) = kahan_add(other.sum, self.sum, self.lost);
        Self { sum, lost: if sum.is_infinite() { 0.0 } else { lost + other.lost } }
    }
}

/// Adds `x` to the compensated sum (`sum`, `lost`). The correction is forgotten when the sum becomes infinite.
#[inline(always)]
pub(crate) fn kahan_add(x: f64, sum: f64, lost: f64) -> (f64, f64) {
    let next = sum + x;
    let error = if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
    (next, if next.is_infinite() { 0.0 } else { lost + error })
}

/// A mean that does not overflow: the compensated sum over the count, and from the moment the sum would become
/// infinite, an incremental mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    count: f64,
    /// The sum, or once `incremental`, the mean.
    state: Kahan,
    incremental: bool,
}

impl Mean {
    /// The mean of one value.
    pub(crate) const fn of(first: f64) -> Self {
        Self { count: 1.0, state: Kahan::starting_with(first), incremental: false }
    }

    /// Takes in one more value.
    #[inline]
    pub(crate) fn add(&mut self, x: f64) {
        self.count += 1.0;
        if !self.incremental {
            let mut next = self.state;
            next.add(x);
            if !next.sum.is_infinite() {
                self.state = next;
                return;
            }
            self.incremental = true;
            self.state.sum /= self.count - 1.0;
            self.state.lost /= self.count - 1.0;
        }
        let keep = (self.count - 1.0) / self.count;
        let (sum, lost) = kahan_add(x / self.count, keep * self.state.sum, keep * self.state.lost);
        self.state = Kahan { sum, lost };
    }

    /// The mean.
    pub(crate) fn value(&self) -> f64 {
        if self.incremental {
            self.state.sum + self.state.lost
        } else {
            self.state.sum / self.count + self.state.lost / self.count
        }
    }
}

/// Ascending, NaN before everything else; zeros of either sign are equal.
#[inline]
pub(crate) fn nan_first(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// Where the quantile `q` of `n` sorted values lies: two neighbouring indices and the weight of the upper one.
/// `Err` holds the result that does not depend on the values.
pub(crate) fn quantile_rank(q: f64, n: usize) -> Result<(usize, usize, f64), f64> {
    if n == 0 || q.is_nan() {
        return Err(f64::NAN);
    }
    if q < 0.0 {
        return Err(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return Err(f64::INFINITY);
    }
    let last = (n - 1) as f64;
    let rank = q * last;
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(last);
    Ok((lower as usize, upper as usize, rank - rank.floor()))
}

/// The quantile between two neighbouring values.
#[inline]
pub(crate) fn interpolate_quantile(lower: f64, upper: f64, weight: f64) -> f64 {
    lower * (1.0 - weight) + upper * weight
}

/// The quantile `q` of `values` in any order, interpolated linearly; NaN sorts lowest. NaN for no values or a NaN
/// `q`, the infinities for a `q` outside `[0, 1]`. Reorders `values`. O(n).
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    let (lower, upper, weight) = match quantile_rank(q, values.len()) {
        Ok(rank) => rank,
        Err(result) => return result,
    };
    let (_, &mut low, above) = values.select_nth_unstable_by(lower, nan_first);
    let high = if upper == lower { low } else { above.iter().copied().min_by(nan_first).unwrap_or(low) };
    interpolate_quantile(low, high, weight)
}

/// Whether `a` and `b` differ by less than `epsilon` times the sum of their magnitudes. Two NaNs are equal unless
/// just one of them is the stale marker.
pub(crate) fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    use chronolith_model::is_stale;
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let magnitude = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || magnitude < f64::MIN_POSITIVE {
        return difference < epsilon * f64::MIN_POSITIVE;
    }
    difference / magnitude.min(f64::MAX) < epsilon
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = Kahan::default();
        values.iter().for_each(|v| sum.add(*v));
        sum.total()
    }

    fn mean(values: &[f64]) -> f64 {
        let mut mean = Mean::of(values[0]);
        values[1..].iter().for_each(|v| mean.add(*v));
        mean.value()
    }

    #[test]
    fn sums_keep_what_rounding_loses() {
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(sum(&[1e100, 1e-3, -1e100]), 1e-3);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(sum(&[1.7e308, 1.7e308, -1.7e308]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(sum(&[f64::NAN, 1.0]).is_nan());
        assert_eq!(sum(&[]), 0.0);
    }

    #[test]
    fn merged_sums() {
        let mut left = Kahan::default();
        [1.0, 1e100].iter().for_each(|v| left.add(*v));
        let mut right = Kahan::default();
        [1.0, -1e100].iter().for_each(|v| right.add(*v));
        assert_eq!(left.merge(right).total(), 2.0);
        assert_eq!(Kahan::default().merge(Kahan::starting_with(f64::INFINITY)).total(), f64::INFINITY);
    }

    #[test]
    fn means_do_not_overflow() {
        assert_eq!(mean(&[1.7e308, 1.7e308]), 1.7e308);
        assert_eq!(mean(&[-1.7e308, -1.7e308, -1.7e308]), -1.7e308);
        assert_eq!(mean(&[1.0, 2.0, 4.5]), 2.5);
        assert_eq!(mean(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(mean(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(mean(&[f64::NAN]).is_nan());
        assert_eq!(mean(&[1e100, 1.0, -1e100]), 1.0 / 3.0);
    }

    #[test]
    fn quantiles() {
        let g = [1.0, 3.0, 2.0, 8.0, 8.0, 4.0];
        for (q, expected) in [
            (0.5, 3.5),
            (0.9, 8.0),
            (0.0, 1.0),
            (1.0, 8.0),
            (-0.1, f64::NEG_INFINITY),
            (1.1, f64::INFINITY),
            (0.25, 2.25),
        ] {
            assert_eq!(quantile(q, &mut g.clone()), expected, "{q}");
        }
        assert!(quantile(f64::NAN, &mut g.clone()).is_nan());
        assert!(quantile(0.5, &mut []).is_nan());
        assert_eq!(quantile(1.0, &mut [f64::NAN, 2.0, f64::NAN]), 2.0, "NaN sorts lowest");
        assert!(quantile(0.5, &mut [f64::NAN, 2.0, f64::NAN]).is_nan());
        assert!(
            quantile(0.0, &mut [1.0, f64::INFINITY]).is_nan(),
            "the unused neighbour counts too: inf * 0"
        );
    }

    #[test]
    fn nearly_equal() {
        assert!(almost_equal(1.0, 1.0 + 1e-13, 1e-12));
        assert!(!almost_equal(1.0, 1.0 + 1e-11, 1e-12));
        assert!(almost_equal(f64::NAN, -f64::NAN, 0.0));
        assert!(!almost_equal(f64::NAN, chronolith_model::stale_nan(), 1.0));
        assert!(!almost_equal(0.0, 1e-300, 1e-12));
        assert!(almost_equal(f64::MAX, f64::MAX, 0.0));
        assert!(!almost_equal(f64::INFINITY, f64::MAX, 1e-12));
    }
}
