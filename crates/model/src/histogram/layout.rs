//! Which buckets a histogram has.

use std::sync::{Arc, LazyLock};

use super::{BUCKETS_MAX, CUSTOM_SCHEMA, HistogramError, SCHEMA_MAX, SCHEMA_MIN, Side};

/// A run of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Buckets between the end of the span before and this one; for the first span the index of its first bucket.
    pub offset: i32,
    /// Buckets in it.
    pub length: u32,
}

/// Everything about a histogram but its numbers. The histograms of a series mostly share one.
///
/// Invariants: the schema exists; spans are canonical (none is empty, none but the first touches the one before), their
/// indices fit 32 bits and their buckets number at most [`BUCKETS_MAX`]; custom bounds ascend, are finite and stand
/// with the custom schema alone, which has neither negative spans nor a zero bucket.
#[derive(Clone, Debug)]
pub struct Layout {
    schema: i32,
    zero_threshold: f64,
    positive: Vec<Span>,
    negative: Vec<Span>,
    custom_values: Arc<[f64]>,
    positive_len: usize,
    negative_len: usize,
}

static EMPTY: LazyLock<Arc<Layout>> = LazyLock::new(|| {
    Arc::new(Layout {
        schema: 0,
        zero_threshold: 0.0,
        positive: Vec::new(),
        negative: Vec::new(),
        custom_values: Arc::default(),
        positive_len: 0,
        negative_len: 0,
    })
});

impl Layout {
    /// A layout of the given resolution, spans and custom bounds. Spans are brought into canonical form.
    ///
    /// # Errors
    /// When one of the invariants cannot be met.
    pub fn new(
        schema: i32,
        zero_threshold: f64,
        positive: &[Span],
        negative: &[Span],
        custom_values: Vec<f64>,
    ) -> Result<Self, HistogramError> {
        if schema == CUSTOM_SCHEMA {
            check_bounds(&custom_values)?;
            if zero_threshold != 0.0 {
                return Err(HistogramError::CustomZeroThreshold);
            }
            if !negative.is_empty() {
                return Err(HistogramError::CustomNegativeSpans);
            }
        } else if !(SCHEMA_MIN..=SCHEMA_MAX).contains(&schema) {
            return Err(HistogramError::Schema(schema));
        } else if !custom_values.is_empty() {
            return Err(HistogramError::ExponentialCustomBounds);
        }
        let side = if schema == CUSTOM_SCHEMA { Side::Custom } else { Side::Positive };
        let (positive, positive_len, reach) = canonical(positive, side)?;
        let (negative, negative_len, _) = canonical(negative, Side::Negative)?;
        if schema == CUSTOM_SCHEMA && reach > custom_values.len() as u64 + 1 {
            return Err(HistogramError::CustomTooFew { bounds: custom_values.len(), spans: reach });
        }
        let buckets = positive_len as u64 + negative_len as u64;
        if buckets.max(custom_values.len() as u64) > BUCKETS_MAX as u64 {
            return Err(HistogramError::TooManyBuckets(buckets.max(custom_values.len() as u64)));
        }
        let custom_values = custom_values.into();
        Ok(Self { schema, zero_threshold, positive, negative, custom_values, positive_len, negative_len })
    }

    /// A layout of which all invariants are known to hold.
    pub(super) fn trusted(
        schema: i32,
        zero_threshold: f64,
        positive: Vec<Span>,
        negative: Vec<Span>,
        custom_values: Arc<[f64]>,
    ) -> Self {
        let len = |spans: &[Span]| usize::try_from(covered(spans)).unwrap_or(usize::MAX);
        let (positive_len, negative_len) = (len(&positive), len(&negative));
        Self { schema, zero_threshold, positive, negative, custom_values, positive_len, negative_len }
    }

    /// The layout without buckets, of schema 0.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        Arc::clone(&EMPTY)
    }

    /// The resolution: -4 to 8 for exponential buckets, [`CUSTOM_SCHEMA`] for custom ones.
    #[must_use]
    pub const fn schema(&self) -> i32 {
        self.schema
    }

    /// Whether the buckets have bounds of their own.
    #[must_use]
    pub const fn is_custom(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Observations of at most this magnitude are in the zero bucket.
    #[must_use]
    pub const fn zero_threshold(&self) -> f64 {
        self.zero_threshold
    }

    /// Where buckets of positive values stand.
    #[must_use]
    pub fn positive_spans(&self) -> &[Span] {
        &self.positive
    }

    /// Where buckets of negative values stand; indices count away from zero.
    #[must_use]
    pub fn negative_spans(&self) -> &[Span] {
        &self.negative
    }

    /// Upper bounds of custom buckets, inclusive; the bucket behind the last reaches to infinity.
    #[must_use]
    pub fn custom_values(&self) -> &[f64] {
        &self.custom_values
    }

    /// [`Layout::custom_values`] to be shared.
    pub(super) const fn shared_custom_values(&self) -> &Arc<[f64]> {
        &self.custom_values
    }

    /// How many positive buckets.
    #[must_use]
    pub const fn positive_len(&self) -> usize {
        self.positive_len
    }

    /// How many negative buckets.
    #[must_use]
    pub const fn negative_len(&self) -> usize {
        self.negative_len
    }

    /// How many buckets, without the zero bucket.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.positive_len + self.negative_len
    }

    /// Whether there is no bucket, but perhaps the zero bucket.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The indices of the positive buckets, ascending.
    pub fn positive_indices(&self) -> impl Iterator<Item = i32> + '_ {
        indices(&self.positive)
    }

    /// The indices of the negative buckets, ascending, that is away from zero.
    pub fn negative_indices(&self) -> impl Iterator<Item = i32> + '_ {
        indices(&self.negative)
    }

    /// The places of all buckets in the order their counts have: positive (`false`), then negative (`true`) ones.
    pub fn places(&self) -> impl Iterator<Item = (bool, i32)> + '_ {
        let positive = self.positive_indices().map(|index| (false, index));
        positive.chain(self.negative_indices().map(|index| (true, index)))
    }

    /// Whether an index means the same bucket in both: schema, zero threshold and custom bounds are equal bit for bit.
    #[must_use]
    pub fn same_scale(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.zero_threshold.to_bits() == other.zero_threshold.to_bits()
            && same_bits(&self.custom_values, &other.custom_values)
    }

    /// The layout of the same scale that has the buckets of both. Where the scales differ, that of `self` is kept.
    ///
    /// # Errors
    /// [`HistogramError::TooManyBuckets`], or as [`Layout::new`] where the scales differ.
    pub fn union(&self, other: &Self) -> Result<Self, HistogramError> {
        let positive = spans_of(merged(self.positive_indices(), other.positive_indices()));
        let negative = spans_of(merged(self.negative_indices(), other.negative_indices()));
        Self::new(self.schema, self.zero_threshold, &positive, &negative, self.custom_values.to_vec())
    }

    /// Bytes on the heap, about.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        (self.positive.capacity() + self.negative.capacity()) * size_of::<Span>()
            + self.custom_values.len() * size_of::<f64>()
    }
}

/// Bit for bit.
impl PartialEq for Layout {
    fn eq(&self, other: &Self) -> bool {
        self.same_scale(other) && self.positive == other.positive && self.negative == other.negative
    }
}

impl Eq for Layout {}

fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

fn check_bounds(bounds: &[f64]) -> Result<(), HistogramError> {
    let mut previous = f64::NEG_INFINITY;
    for &current in bounds {
        if current.is_nan() {
            return Err(HistogramError::CustomNan);
        }
        if current <= previous {
            return Err(HistogramError::CustomOrder { previous, current });
        }
        previous = current;
    }
    if previous == f64::INFINITY {
        return Err(HistogramError::CustomInfinite);
    }
    Ok(())
}

/// Buckets that `spans` cover.
pub(super) fn covered(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.length)).sum()
}

/// Spans without empty and touching ones, the buckets they cover, and the index behind the last (0 at least).
fn canonical(spans: &[Span], side: Side) -> Result<(Vec<Span>, usize, u64), HistogramError> {
    let mut out: Vec<Span> = Vec::new();
    let (mut at, mut gap, mut buckets) = (0_i64, 0_i64, 0_u64);
    for (index, span) in spans.iter().enumerate() {
        if span.offset < 0 && (index > 0 || side == Side::Custom) {
            return Err(HistogramError::SpanOffset { side, number: index + 1, offset: span.offset });
        }
        gap += i64::from(span.offset);
        at = at.saturating_add(i64::from(span.offset)).saturating_add(i64::from(span.length));
        if at > i64::from(i32::MAX) {
            return Err(HistogramError::IndexRange(side));
        }
        if span.length == 0 {
            continue;
        }
        buckets += u64::from(span.length);
        if buckets > BUCKETS_MAX as u64 {
            return Err(HistogramError::TooManyBuckets(covered(spans)));
        }
        match out.last_mut() {
            Some(last) if gap == 0 => last.length += span.length,
            _ => {
                let offset = i32::try_from(gap).map_err(|_| HistogramError::IndexRange(side))?;
                out.push(Span { offset, length: span.length });
            }
        }
        gap = 0;
    }
    let reach = u64::try_from(at).unwrap_or(0);
    Ok((out, usize::try_from(buckets).unwrap_or(usize::MAX), reach))
}

/// The indices of the buckets of `spans`. What lies beyond 32 bits wraps; a layout has none of that.
pub(super) fn indices(spans: &[Span]) -> impl Iterator<Item = i32> + '_ {
    let mut next = 0_i32;
    spans.iter().flat_map(move |span| {
        let first = next.wrapping_add(span.offset);
        next = first.wrapping_add_unsigned(span.length);
        (0..span.length).map(move |i| first.wrapping_add_unsigned(i))
    })
}

/// [`indices`] from the last to the first.
pub(super) fn indices_back(spans: &[Span]) -> impl Iterator<Item = i32> + '_ {
    let mut end =
        spans.iter().fold(0_i32, |at, span| at.wrapping_add(span.offset).wrapping_add_unsigned(span.length));
    spans.iter().rev().flat_map(move |span| {
        let behind = end;
        end = end.wrapping_sub_unsigned(span.length).wrapping_sub(span.offset);
        (1..=span.length).map(move |i| behind.wrapping_sub_unsigned(i))
    })
}

/// The spans of strictly ascending indices.
pub(super) fn spans_of(indices: impl Iterator<Item = i32>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut next = 0_i32;
    for index in indices {
        match spans.last_mut() {
            Some(last) if next == index => last.length += 1,
            _ => spans.push(Span { offset: index.wrapping_sub(next), length: 1 }),
        }
        next = index.wrapping_add(1);
    }
    spans
}

/// Two ascending runs as one, without repetitions.
fn merged(a: impl Iterator<Item = i32>, b: impl Iterator<Item = i32>) -> impl Iterator<Item = i32> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) => {
            let (x, y) = (*x, *y);
            if x <= y {
                a.next();
            }
            if y <= x {
                b.next();
            }
            Some(x.min(y))
        }
        (Some(_), None) => a.next(),
        (None, _) => b.next(),
    })
}
