//! Histograms as they come from outside, and what is checked of them.

use std::sync::Arc;

use super::layout::{covered, indices, spans_of};
use super::{
    BUCKETS_MAX, CUSTOM_SCHEMA, Count, CounterResetHint, FloatHistogram, HistogramError, IntegerHistogram,
    Layout, NativeHistogram, SCHEMA_MAX, SCHEMA_RESERVED_MAX, Side, Span,
};

/// The fields of a histogram, not checked yet. Bucket counts are absolute; see [`absolute_counts`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramParts<C> {
    /// What is known about the histogram before.
    pub hint: CounterResetHint,
    /// The resolution; those between [`SCHEMA_MAX`] and [`SCHEMA_RESERVED_MAX`] are brought down.
    pub schema: i32,
    /// Observations of at most this magnitude are in the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: C,
    /// Number of observations.
    pub count: C,
    /// Sum of the observations.
    pub sum: f64,
    /// Where the positive buckets stand.
    pub positive_spans: Vec<Span>,
    /// Where the negative buckets stand.
    pub negative_spans: Vec<Span>,
    /// Observations in the positive buckets.
    pub positive_buckets: Vec<C>,
    /// Observations in the negative buckets.
    pub negative_buckets: Vec<C>,
    /// Upper bounds of custom buckets.
    pub custom_values: Vec<f64>,
}

/// Bucket counts from differences between neighbours, the first from zero, as integer histograms travel.
///
/// # Errors
/// [`HistogramError::NegativeBucket`].
pub fn absolute_counts(
    deltas: impl IntoIterator<Item = i64>,
    side: Side,
) -> Result<Vec<u64>, HistogramError> {
    let mut count = 0_i64;
    let absolute = deltas.into_iter().enumerate().map(|(index, delta)| {
        count = count.wrapping_add(delta);
        u64::try_from(count).map_err(|_| HistogramError::NegativeBucket {
            side,
            number: index + 1,
            count: count as f64,
        })
    });
    absolute.collect()
}

impl<C: Count> HistogramParts<C> {
    /// Checks everything but the counts. `known` is a layout met before, shared if it is the same.
    fn assemble(mut self, known: Option<&Arc<Layout>>) -> Result<NativeHistogram<C>, HistogramError> {
        let custom = self.schema == CUSTOM_SCHEMA;
        check_number(
            &self.positive_spans,
            &self.positive_buckets,
            if custom { Side::Custom } else { Side::Positive },
        )?;
        if custom {
            if self.zero_count.to_f64() != 0.0 {
                return Err(HistogramError::CustomZeroCount);
            }
            if !self.negative_buckets.is_empty() && self.negative_spans.is_empty() {
                return Err(HistogramError::CustomNegativeBuckets);
            }
        } else {
            check_number(&self.negative_spans, &self.negative_buckets, Side::Negative)?;
        }
        if (SCHEMA_MAX + 1..=SCHEMA_RESERVED_MAX).contains(&self.schema) {
            // Checked in its own resolution first: what is merged below is a layout.
            let by = self.schema - SCHEMA_MAX;
            Layout::new(0, 0.0, &self.positive_spans, &self.negative_spans, Vec::new())?;
            (self.positive_spans, self.positive_buckets) =
                coarser(&self.positive_spans, &self.positive_buckets, by);
            (self.negative_spans, self.negative_buckets) =
                coarser(&self.negative_spans, &self.negative_buckets, by);
            self.schema = SCHEMA_MAX;
        }
        let layout = Layout::new(
            self.schema,
            self.zero_threshold,
            &self.positive_spans,
            &self.negative_spans,
            self.custom_values,
        )?;
        let layout = match known {
            Some(known) if **known == layout => Arc::clone(known),
            _ => Arc::new(layout),
        };
        let mut buckets = self.positive_buckets;
        buckets.append(&mut self.negative_buckets);
        Ok(NativeHistogram {
            layout,
            hint: self.hint,
            sum: self.sum,
            count: self.count,
            zero_count: self.zero_count,
            buckets,
        })
    }
}

impl HistogramParts<u64> {
    /// The histogram of these fields. `known` is a layout met before, shared if this one is the same. A valid histogram
    /// whose sum is the stale marker becomes [`NativeHistogram::stale`].
    ///
    /// # Errors
    /// What Prometheus finds wrong with it, or too many buckets.
    pub fn build(self, known: Option<&Arc<Layout>>) -> Result<IntegerHistogram, HistogramError> {
        let histogram = self.assemble(known)?;
        if histogram.is_stale() {
            return Ok(NativeHistogram::stale());
        }
        let found = u128::from(histogram.zero_count)
            + histogram.buckets.iter().map(|count| u128::from(*count)).sum::<u128>();
        let count = histogram.count;
        // A NaN is counted, in no bucket.
        if histogram.sum.is_nan() {
            if found > u128::from(count) {
                return Err(HistogramError::CountNotBigEnough { found, count });
            }
        } else if found != u128::from(count) {
            return Err(HistogramError::CountMismatch { found, count });
        }
        Ok(histogram)
    }
}

impl HistogramParts<f64> {
    /// The histogram of these fields, as for integers. Count and buckets are not compared: they were rounded.
    ///
    /// # Errors
    /// What Prometheus finds wrong with it, or too many buckets.
    pub fn build(self, known: Option<&Arc<Layout>>) -> Result<FloatHistogram, HistogramError> {
        let histogram = self.assemble(known)?;
        if histogram.is_stale() {
            return Ok(NativeHistogram::stale());
        }
        for (side, buckets) in
            [(Side::Negative, histogram.negative_buckets()), (Side::Positive, histogram.positive_buckets())]
        {
            if let Some(index) = buckets.iter().position(|count| *count < 0.0) {
                let count = buckets.get(index).copied().unwrap_or_default();
                return Err(HistogramError::NegativeBucket { side, number: index + 1, count });
            }
        }
        Ok(histogram)
    }
}

fn check_number<C>(spans: &[Span], buckets: &[C], side: Side) -> Result<(), HistogramError> {
    let need = covered(spans);
    if need != buckets.len() as u64 {
        return Err(HistogramError::BucketNumber { side, need, have: buckets.len() });
    }
    if buckets.len() > BUCKETS_MAX {
        return Err(HistogramError::TooManyBuckets(need));
    }
    Ok(())
}

/// Spans and buckets at a resolution coarser by `by` steps: 2^by neighbours become one.
fn coarser<C: Count>(spans: &[Span], buckets: &[C], by: i32) -> (Vec<Span>, Vec<C>) {
    let by = by.clamp(0, 63);
    let mut merged: Vec<(i32, C)> = Vec::new();
    for (index, count) in indices(spans).zip(buckets) {
        let index = ((i64::from(index) - 1) >> by) as i32 + 1;
        match merged.last_mut() {
            Some((last, sum)) if *last == index => *sum = sum.plus(*count),
            _ => merged.push((index, *count)),
        }
    }
    (spans_of(merged.iter().map(|(index, _)| *index)), merged.into_iter().map(|(_, count)| count).collect())
}

impl<C: Count> NativeHistogram<C> {
    /// The same at a coarser exponential resolution; unchanged where it is as coarse already, or custom.
    #[must_use]
    pub fn reduced_to(&self, schema: i32) -> Self {
        let schema = schema.max(super::SCHEMA_MIN);
        let by = self.layout.schema() - schema;
        if self.layout.is_custom() || by <= 0 {
            return self.clone();
        }
        let (positive_spans, positive) = coarser(self.layout.positive_spans(), self.positive_buckets(), by);
        let (negative_spans, negative) = coarser(self.layout.negative_spans(), self.negative_buckets(), by);
        let layout =
            Layout::new(schema, self.layout.zero_threshold(), &positive_spans, &negative_spans, Vec::new());
        match layout {
            Ok(layout) => {
                let buckets = [positive, negative].concat();
                Self { layout: Arc::new(layout), buckets, ..self.clone() }
            }
            // Fewer buckets at smaller indices than a valid layout has are a valid layout.
            Err(_) => self.clone(),
        }
    }
}
