//! Floats to integers and back, exactly.
//!
//! The idea of writing decimals as integers with an exponent is that of Afroozeh et al., "ALP: Adaptive Lossless
//! Floating-Point Compression" (SIGMOD 2024); here the integer is divided by a power of ten, which gives the float
//! nearest to the decimal, that is what a parser of decimals made.

use std::ops::Range;

use super::bit_len;
use chronolith_codec::zigzag;

/// How the numbers of a column became integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Mode {
    /// Integers as they are.
    Int,
    /// Integer divided by a power of ten.
    Decimal,
    /// Integer multiplied by a negative power of ten.
    Multiple,
    /// A decimal, and how many units in the last place the value is away from it.
    Ulp,
    /// The bits of the floats.
    Bits,
    /// The values of an earlier slot.
    Copy,
}

impl Mode {
    /// All, by their codes.
    const ALL: [Self; 6] = [Self::Int, Self::Decimal, Self::Multiple, Self::Ulp, Self::Bits, Self::Copy];

    pub(super) const fn code(self) -> u8 {
        self as u8
    }

    /// The mode of the low three bits of `code`, if there is one.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code & 7)).copied()
    }

    /// Whether an exponent is written.
    pub(super) const fn has_exponent(self) -> bool {
        matches!(self, Self::Decimal | Self::Multiple | Self::Ulp)
    }
}

/// The largest exponent: 10^22 is the largest power of ten that a float holds exactly.
pub(super) const EXPONENT_MAX: u8 = 22;

/// Beyond this, neighbouring integers are the same float.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Exponents from which on digits look like those of a float that is no short decimal.
const EXPONENT_DOUBTFUL: u8 = 10;

const POWERS: [f64; EXPONENT_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

const FRACTIONS: [f64; EXPONENT_MAX as usize + 1] = [
    1e-0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 1e-15,
    1e-16, 1e-17, 1e-18, 1e-19, 1e-20, 1e-21, 1e-22,
];

/// 10^`exponent`; 10^22 if it is larger.
pub(super) fn power(exponent: u8) -> f64 {
    POWERS.get(usize::from(exponent)).copied().unwrap_or(1e22)
}

/// The float nearest to 10^-`exponent`; to 10^-22 if it is larger.
pub(super) fn fraction(exponent: u8) -> f64 {
    FRACTIONS.get(usize::from(exponent)).copied().unwrap_or(1e-22)
}

/// A run of values that integers cannot stand for, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exception {
    pub(super) places: Range<usize>,
    pub(super) bits: u64,
}

/// Turns columns into integers; keeps its buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// One integer per value. Where an exception stands, the integer before it.
    pub(super) integers: Vec<i64>,
    /// Of [`Mode::Ulp`]: what is added to the bits of the decimal.
    pub(super) ulps: Vec<i64>,
    pub(super) exceptions: Vec<Exception>,
    /// The values with exceptions replaced by the value before them.
    regular: Vec<f64>,
}

impl Numbers {
    /// Finds exceptions: what is not finite, and negative zeros. `false` if there are too many of them to be written
    /// apart.
    pub(super) fn regularize(&mut self, values: &[f64]) -> bool {
        let is_regular = |value: f64| value.is_finite() && value.to_bits() != 1 << 63;
        self.exceptions.clear();
        self.regular.clear();
        let Some(mut filler) = values.iter().copied().find(|value| is_regular(*value)) else { return false };
        let runs_max = values.len() / 16 + 1;
        for (place, value) in values.iter().enumerate() {
            if is_regular(*value) {
                filler = *value;
            } else {
                let runs = self.exceptions.len();
                match self.exceptions.last_mut() {
                    Some(last) if last.places.end == place && last.bits == value.to_bits() => {
                        last.places.end += 1
                    }
                    _ if runs == runs_max => return false,
                    _ => self.exceptions.push(Exception { places: place..place + 1, bits: value.to_bits() }),
                }
            }
            self.regular.push(filler);
        }
        true
    }

    /// After [`Numbers::regularize`]: integers that divided by 10^exponent are the values. `None` if there are none;
    /// whether the exponent is so large that something else may be better.
    pub(super) fn decimals(&mut self) -> Option<(u8, bool)> {
        let mut exponent = 0;
        'again: loop {
            self.integers.clear();
            let scale = power(exponent);
            for value in &self.regular {
                let Some(integer) = decimal(*value, scale) else {
                    exponent =
                        (exponent + 1..=EXPONENT_MAX).find(|e| decimal(*value, power(*e)).is_some())?;
                    continue 'again;
                };
                self.integers.push(integer);
            }
            return Some((exponent, exponent >= EXPONENT_DOUBTFUL));
        }
    }

    /// After [`Numbers::regularize`]: integers that multiplied with 10^-exponent are the values.
    pub(super) fn multiples(&mut self) -> Option<u8> {
        let middle = self.regular.get(self.regular.len() / 2).copied()?;
        (1..=12).find(|exponent| {
            let (scale, unit) = (power(*exponent), fraction(*exponent));
            if multiple(middle, scale, unit).is_none() {
                return false;
            }
            self.integers.clear();
            self.integers.extend(self.regular.iter().map_while(|value| multiple(*value, scale, unit)));
            self.integers.len() == self.regular.len()
        })
    }

    /// After [`Numbers::regularize`]: decimals near the values and how far away they are. `None` if some are too large.
    pub(super) fn ulps(&mut self) -> Option<u8> {
        let exponent = self.ulp_exponent()?;
        let scale = power(exponent);
        self.integers.clear();
        self.ulps.clear();
        for value in &self.regular {
            let integer = near(*value, scale)?;
            self.integers.push(integer);
            self.ulps.push(distance(*value, integer, scale));
        }
        Some(exponent)
    }

    /// The exponent that seems to need the fewest bits for the steps of the decimals and the distances to them.
    fn ulp_exponent(&self) -> Option<u8> {
        // Pairs that do not change say nothing about steps.
        let changed = || self.regular.windows(2).filter(|pair| matches!(pair, [a, b] if a != b));
        let stride = changed().count() / 20 + 1;
        let pairs: Vec<&[f64]> = changed().step_by(stride).collect();
        let bits = |exponent: u8| {
            let scale = power(exponent);
            let mut bits = 0;
            for pair in &pairs {
                let [a, b] = pair else { return None };
                let (x, y) = (near(*a, scale)?, near(*b, scale)?);
                bits += bit_len(zigzag(y.wrapping_sub(x))) + bit_len(zigzag(distance(*b, y, scale)));
            }
            Some(bits)
        };
        let costs = (0..=17).filter_map(|exponent| bits(exponent).map(|bits| (bits, exponent)));
        costs.min().map(|(_, exponent)| exponent)
    }

    /// Integers that are the bits of `values`.
    pub(super) fn bits(&mut self, values: &[f64]) {
        self.exceptions.clear();
        self.integers.clear();
        self.integers.extend(values.iter().map(|value| value.to_bits() as i64));
    }
}

/// The smallest exponent with which all of a few values are decimals.
pub(super) fn exponent_of(values: &[f64]) -> Option<u8> {
    let all = |exponent: &u8| values.iter().all(|value| decimal(*value, power(*exponent)).is_some());
    (0..=EXPONENT_MAX).find(all)
}

/// The integer that divided by `scale` is `value`, bit for bit.
#[inline]
pub(super) fn decimal(value: f64, scale: f64) -> Option<i64> {
    if scale == 1.0 {
        // Larger ones are integers too: all floats from 2^53 on are, and these fit an i64.
        let integer = value as i64;
        return ((integer as f64).to_bits() == value.to_bits() && value.abs() < 9.2e18).then_some(integer);
    }
    let scaled = (value * scale).round_ties_even();
    // Back from the integer, not from the float: a negative zero is no integer.
    let integer = scaled as i64;
    (scaled.abs() <= INTEGER_MAX && (integer as f64 / scale).to_bits() == value.to_bits()).then_some(integer)
}

#[inline]
fn multiple(value: f64, scale: f64, unit: f64) -> Option<i64> {
    let scaled = (value * scale).round_ties_even();
    (scaled.abs() <= INTEGER_MAX && (scaled * unit).to_bits() == value.to_bits()).then_some(scaled as i64)
}

#[inline]
fn near(value: f64, scale: f64) -> Option<i64> {
    let scaled = (value * scale).round_ties_even();
    (scaled.abs() <= INTEGER_MAX).then_some(scaled as i64)
}

/// What to add to the bits of the decimal to get those of `value`.
#[inline]
pub(super) fn distance(value: f64, integer: i64, scale: f64) -> i64 {
    (value.to_bits() as i64).wrapping_sub((integer as f64 / scale).to_bits() as i64)
}

/// Appends the floats that `integers` stand for. Of [`Mode::Ulp`], `ulps` are the distances.
pub(super) fn restore(mode: Mode, exponent: u8, integers: &[i64], ulps: &[i64], into: &mut Vec<f64>) {
    match mode {
        Mode::Int => each_float(integers, into, |float| float),
        Mode::Decimal => {
            let scale = power(exponent);
            each_float(integers, into, |float| float / scale);
        }
        Mode::Multiple => {
            let unit = fraction(exponent);
            each_float(integers, into, |float| float * unit);
        }
        Mode::Ulp => {
            let scale = power(exponent);
            into.extend(integers.iter().zip(ulps).map(|(integer, ulps)| {
                let bits = (*integer as f64 / scale).to_bits() as i64;
                f64::from_bits(bits.wrapping_add(*ulps) as u64)
            }));
        }
        Mode::Bits | Mode::Copy => {
            into.extend(integers.iter().map(|integer| f64::from_bits(*integer as u64)))
        }
    }
}

/// 2^52 + 2^51: the bits of floats around it count up by one for one.
const MIDDLE: f64 = 6_755_399_441_055_744.0;
/// Up to this, 2^51, and down to its negative, exclusive, that is true.
const AROUND_MIDDLE: i64 = 1 << 51;

/// Appends what `finish` makes of the floats equal to `integers`. The usual conversion goes one by one on processors
/// without AVX-512; small integers go by way of [`MIDDLE`], which every processor does for several at once.
#[inline(always)]
fn each_float(integers: &[i64], into: &mut Vec<f64>, finish: impl Fn(f64) -> f64) {
    let reach = integers.iter().fold(0, |reach, x| reach | x.wrapping_add(AROUND_MIDDLE) as u64);
    if reach < 2 * AROUND_MIDDLE as u64 {
        into.extend(integers.iter().map(|x| {
            let float = f64::from_bits((MIDDLE.to_bits() as i64).wrapping_add(*x) as u64) - MIDDLE;
            finish(float)
        }));
    } else {
        into.extend(integers.iter().map(|x| finish(*x as f64)));
    }
}
