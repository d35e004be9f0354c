//! Native histograms.
//!
//! A histogram is a [`Layout`] (which buckets there are) and numbers: count, sum, zero bucket, buckets. The numbers are
//! integers as clients observe them ([`IntegerHistogram`]) or floats as rates and rules make them ([`FloatHistogram`]);
//! a sample is either ([`Histogram`]), and arithmetic works on floats ([`Histogram::to_float`]).
//!
//! An exponential bucket of index `i` holds `(b^(i-1), b^i]` with `b = 2^(2^-schema)`, mirrored for negative values; a
//! custom one holds `(v[i-1], v[i]]`. Bucket counts are absolute, never deltas, positive buckets first, each side
//! ascending by index. Layouts are canonical, so two histograms that mean the same buckets have equal ones.
//!
//! Values are made by [`HistogramParts::build`], which checks what Prometheus checks, so every histogram is valid as far
//! as a bucket per place, the schema and the bounds go.
//!
//! # Arithmetic
//! All of it is on [`FloatHistogram`] and gives what Prometheus gives. Map: `layout`, `bounds`, `buckets` which buckets
//! there are and what they count · `parts` what comes from outside · `arithmetic` plus, minus, times, compaction ·
//! `reconcile` what makes two histograms of different buckets comparable · `compensated` sums and means of many · `reset`
//! counter resets · `stats` quantiles, fractions, variances · `trim` cutting off at a value · `text` how histograms are
//! written.

mod arithmetic;
mod bounds;
mod buckets;
mod compensated;
mod error;
mod layout;
mod parts;
mod reconcile;
mod reset;
mod stats;
mod text;
mod trim;

use std::sync::Arc;

pub use arithmetic::{Combined, IncompatibleHistograms};
pub use buckets::Bucket;
pub use compensated::{HistogramMean, HistogramSum};
pub use error::{HistogramError, Side};
pub use layout::{Layout, Span};
pub use parts::{HistogramParts, absolute_counts};
pub use stats::NanObservations;
pub use text::{HistogramLiteral, LiteralError};

use crate::sample::{STALE_NAN_BITS, is_stale, stale_nan};

/// The coarsest exponential resolution: buckets grow by 2^16.
pub const SCHEMA_MIN: i32 = -4;
/// The finest exponential resolution: 256 buckets per power of two.
pub const SCHEMA_MAX: i32 = 8;
/// Finer exponential resolutions that are known and brought down to [`SCHEMA_MAX`] when they arrive.
pub const SCHEMA_RESERVED_MAX: i32 = 52;
/// The schema of custom buckets.
pub const CUSTOM_SCHEMA: i32 = -53;
/// Most buckets of a histogram, both sides together, and most custom bounds.
pub const BUCKETS_MAX: usize = 8192;

/// What is known of how a histogram relates to the one before it in its series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CounterResetHint {
    /// Nothing: it has to be found out.
    #[default]
    Unknown,
    /// It began anew.
    Reset,
    /// It goes on.
    NotReset,
    /// It is no counter.
    Gauge,
}

/// A number observations are counted in: `u64` or `f64`.
pub trait Count: Copy + PartialOrd + std::fmt::Debug + private::Sealed {
    /// Nothing counted.
    const ZERO: Self;
    /// The sum; integers wrap.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// As a float, rounded where it has to be.
    fn to_f64(self) -> f64;
    /// As 64 bits, equal for equal numbers only.
    fn bits(self) -> u64;
    /// The number of these bits.
    fn from_bits(bits: u64) -> Self;
}

mod private {
    pub trait Sealed {}
    impl Sealed for u64 {}
    impl Sealed for f64 {}
}

impl Count for u64 {
    const ZERO: Self = 0;

    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn to_f64(self) -> f64 {
        self as f64
    }

    fn bits(self) -> u64 {
        self
    }

    fn from_bits(bits: u64) -> Self {
        bits
    }
}

impl Count for f64 {
    const ZERO: Self = 0.0;

    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn to_f64(self) -> f64 {
        self
    }

    fn bits(self) -> u64 {
        self.to_bits()
    }

    fn from_bits(bits: u64) -> Self {
        Self::from_bits(bits)
    }
}

/// A histogram that counts in `C`.
///
/// Invariant: as many bucket counts as the layout has buckets.
#[derive(Clone, Debug)]
pub struct NativeHistogram<C> {
    layout: Arc<Layout>,
    hint: CounterResetHint,
    sum: f64,
    count: C,
    zero_count: C,
    buckets: Vec<C>,
}

/// A histogram of whole observations.
pub type IntegerHistogram = NativeHistogram<u64>;

/// A histogram of rates, sums or fractions of observations.
pub type FloatHistogram = NativeHistogram<f64>;

/// The numbers of a histogram without its layout, as encodings hand them over.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers<C> {
    /// What is known about the histogram before.
    pub hint: CounterResetHint,
    /// Sum of the observations.
    pub sum: f64,
    /// Number of observations.
    pub count: C,
    /// Observations in the zero bucket.
    pub zero_count: C,
    /// Observations in each bucket, positive ones first.
    pub buckets: Vec<C>,
}

impl<C: Count> NativeHistogram<C> {
    /// A histogram of `numbers` in the buckets of `layout`; `None` where they do not fit each other in number. Counts
    /// are not checked otherwise: for what a stranger sent use [`HistogramParts::build`].
    #[must_use]
    pub fn from_numbers(layout: Arc<Layout>, numbers: Numbers<C>) -> Option<Self> {
        let Numbers { hint, sum, count, zero_count, buckets } = numbers;
        (buckets.len() == layout.len()).then_some(Self { layout, hint, sum, count, zero_count, buckets })
    }

    /// The stale marker: the sum is the stale NaN, and nothing else is said.
    #[must_use]
    pub fn stale() -> Self {
        Self {
            layout: Layout::empty(),
            hint: CounterResetHint::Unknown,
            sum: stale_nan(),
            count: C::ZERO,
            zero_count: C::ZERO,
            buckets: Vec::new(),
        }
    }

    /// Whether this is the stale marker.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        is_stale(self.sum)
    }

    /// Which buckets there are.
    #[must_use]
    pub const fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// What is known about the histogram before it.
    #[must_use]
    pub const fn hint(&self) -> CounterResetHint {
        self.hint
    }

    /// Changes what is known about the histogram before it.
    pub const fn set_hint(&mut self, hint: CounterResetHint) {
        self.hint = hint;
    }

    /// Sum of the observations.
    #[must_use]
    pub const fn sum(&self) -> f64 {
        self.sum
    }

    /// Number of observations.
    #[must_use]
    pub const fn count(&self) -> C {
        self.count
    }

    /// Observations in the zero bucket.
    #[must_use]
    pub const fn zero_count(&self) -> C {
        self.zero_count
    }

    /// Observations in all buckets but the zero bucket, in the order of [`Layout::places`].
    #[must_use]
    pub fn buckets(&self) -> &[C] {
        &self.buckets
    }

    /// Observations in the positive buckets.
    #[must_use]
    pub fn positive_buckets(&self) -> &[C] {
        self.buckets.split_at_checked(self.layout.positive_len()).unwrap_or_default().0
    }

    /// Observations in the negative buckets.
    #[must_use]
    pub fn negative_buckets(&self) -> &[C] {
        self.buckets.split_at_checked(self.layout.positive_len()).unwrap_or_default().1
    }

    /// Takes it apart.
    #[must_use]
    pub fn into_numbers(self) -> (Arc<Layout>, Numbers<C>) {
        let Self { layout, hint, sum, count, zero_count, buckets } = self;
        (layout, Numbers { hint, sum, count, zero_count, buckets })
    }

    /// Whether both say the same of the same buckets, bit for bit; hints are not looked at.
    #[must_use]
    pub fn same_observations(&self, other: &Self) -> bool {
        self.sum.to_bits() == other.sum.to_bits()
            && self.count.bits() == other.count.bits()
            && self.zero_count.bits() == other.zero_count.bits()
            && self.buckets.len() == other.buckets.len()
            && self.buckets.iter().zip(&other.buckets).all(|(a, b)| a.bits() == b.bits())
            && (Arc::ptr_eq(&self.layout, &other.layout) || self.layout == other.layout)
    }

    /// The hint this histogram deserves behind `previous`: its own where it says that it was reset or is a gauge, else
    /// what the numbers say. Nothing is known behind nothing, a stale marker, a gauge, or where resolution, zero
    /// threshold or custom bounds differ (unless the count fell); queries then look at both.
    #[must_use]
    pub fn hint_after(&self, previous: Option<&Self>) -> CounterResetHint {
        match (self.hint, previous) {
            (hint @ (CounterResetHint::Gauge | CounterResetHint::Reset), _) => hint,
            _ if self.is_stale() => CounterResetHint::Unknown,
            (_, Some(previous)) if !previous.is_stale() && previous.hint != CounterResetHint::Gauge => {
                self.compare(previous)
            }
            _ => CounterResetHint::Unknown,
        }
    }

    fn compare(&self, previous: &Self) -> CounterResetHint {
        if self.count < previous.count {
            return CounterResetHint::Reset;
        }
        let same = Arc::ptr_eq(&self.layout, &previous.layout) || self.layout == previous.layout;
        if !same && !self.layout.same_scale(&previous.layout) {
            return CounterResetHint::Unknown;
        }
        let fell = if same {
            self.buckets.iter().zip(&previous.buckets).any(|(now, before)| now < before)
        } else {
            self.any_bucket_fell(previous)
        };
        if fell || self.zero_count < previous.zero_count {
            CounterResetHint::Reset
        } else {
            CounterResetHint::NotReset
        }
    }

    /// Whether a bucket of `previous`, of the same scale, holds less now; buckets that are gone hold nothing.
    fn any_bucket_fell(&self, previous: &Self) -> bool {
        let mut now = self.layout.places().zip(&self.buckets).peekable();
        previous.layout.places().zip(&previous.buckets).any(|(place, before)| {
            while now.next_if(|(candidate, _)| *candidate < place).is_some() {}
            let count =
                now.next_if(|(candidate, _)| *candidate == place).map_or(C::ZERO, |(_, count)| *count);
            count < *before
        })
    }

    /// Bytes on the heap that are its own; the layout is shared.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<C>()
    }
}

/// Everything, hints too, bit for bit.
impl<C: Count> PartialEq for NativeHistogram<C> {
    fn eq(&self, other: &Self) -> bool {
        self.hint == other.hint && self.same_observations(other)
    }
}

impl IntegerHistogram {
    /// The same in floats; counts above 2^53 are rounded.
    #[must_use]
    pub fn to_float(&self) -> FloatHistogram {
        NativeHistogram {
            layout: Arc::clone(&self.layout),
            hint: self.hint,
            sum: self.sum,
            count: self.count as f64,
            zero_count: self.zero_count as f64,
            buckets: self.buckets.iter().map(|count| *count as f64).collect(),
        }
    }
}

/// A histogram sample's value: integer or float.
#[derive(Clone, Debug, PartialEq)]
pub enum Histogram {
    /// Counts are integers.
    Integer(IntegerHistogram),
    /// Counts are floats.
    Float(FloatHistogram),
}

impl Histogram {
    /// The stale marker. It has one form: that of integers.
    #[must_use]
    pub fn stale() -> Self {
        Self::Integer(IntegerHistogram::stale())
    }

    /// Whether this is the stale marker.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.sum().to_bits() == STALE_NAN_BITS
    }

    /// Whether its counts are floats.
    #[must_use]
    pub const fn is_float(&self) -> bool {
        matches!(self, Self::Float(_))
    }

    /// Which buckets there are.
    #[must_use]
    pub const fn layout(&self) -> &Arc<Layout> {
        match self {
            Self::Integer(histogram) => histogram.layout(),
            Self::Float(histogram) => histogram.layout(),
        }
    }

    /// What is known about the histogram before it.
    #[must_use]
    pub const fn hint(&self) -> CounterResetHint {
        match self {
            Self::Integer(histogram) => histogram.hint(),
            Self::Float(histogram) => histogram.hint(),
        }
    }

    /// Changes what is known about the histogram before it.
    pub const fn set_hint(&mut self, hint: CounterResetHint) {
        match self {
            Self::Integer(histogram) => histogram.hint = hint,
            Self::Float(histogram) => histogram.hint = hint,
        }
    }

    /// Sum of the observations.
    #[must_use]
    pub const fn sum(&self) -> f64 {
        match self {
            Self::Integer(histogram) => histogram.sum(),
            Self::Float(histogram) => histogram.sum(),
        }
    }

    /// Number of observations, rounded above 2^53.
    #[must_use]
    pub const fn count(&self) -> f64 {
        match self {
            Self::Integer(histogram) => histogram.count as f64,
            Self::Float(histogram) => histogram.count,
        }
    }

    /// The same in floats.
    #[must_use]
    pub fn to_float(&self) -> FloatHistogram {
        match self {
            Self::Integer(histogram) => histogram.to_float(),
            Self::Float(histogram) => histogram.clone(),
        }
    }

    /// Whether both are of one kind and say the same of the same buckets, bit for bit; hints are not looked at. Two
    /// samples at one timestamp that do are one sample.
    #[must_use]
    pub fn same_observations(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.same_observations(b),
            (Self::Float(a), Self::Float(b)) => a.same_observations(b),
            _ => false,
        }
    }

    /// The hint this histogram deserves behind `previous`, the sample before it in its series; see
    /// [`NativeHistogram::hint_after`]. Nothing is known behind the other kind.
    #[must_use]
    pub fn hint_after(&self, previous: Option<&Self>) -> CounterResetHint {
        match (self, previous) {
            (Self::Integer(now), Some(Self::Integer(before))) => now.hint_after(Some(before)),
            (Self::Float(now), Some(Self::Float(before))) => now.hint_after(Some(before)),
            (Self::Integer(now), _) => now.hint_after(None),
            (Self::Float(now), _) => now.hint_after(None),
        }
    }

    /// Bytes on the heap that are its own; the layout is shared.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Integer(histogram) => histogram.heap_bytes(),
            Self::Float(histogram) => histogram.heap_bytes(),
        }
    }
}

impl From<IntegerHistogram> for Histogram {
    fn from(histogram: IntegerHistogram) -> Self {
        Self::Integer(histogram)
    }
}

impl From<FloatHistogram> for Histogram {
    fn from(histogram: FloatHistogram) -> Self {
        Self::Float(histogram)
    }
}

/// A histogram and when it was.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSample {
    /// When, in milliseconds.
    pub timestamp: crate::Timestamp,
    /// What.
    pub histogram: Histogram,
}

#[cfg(test)]
mod tests;
