//! The histograms of a series on a grid.

use std::sync::Arc;

use chronolith_model::{FloatHistogram, histogram::Span};

/// A histogram as evaluation holds it: steps that see the same sample share it.
pub(crate) type Native = Arc<FloatHistogram>;

/// The histograms of one series, beside its floats: a step has one or the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    steps: Vec<Option<Native>>,
}

impl Lane {
    /// `count` steps without a histogram.
    pub(crate) fn absent(count: usize) -> Self {
        Self { steps: vec![None; count] }
    }

    /// One histogram per step, `None` where there is none.
    pub(crate) fn steps(&self) -> &[Option<Native>] {
        &self.steps
    }

    /// The same, to write.
    pub(crate) fn steps_mut(&mut self) -> &mut [Option<Native>] {
        &mut self.steps
    }

    /// The steps that have a histogram, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Native)> {
        self.steps.iter().enumerate().filter_map(|(step, native)| Some((step, native.as_ref()?)))
    }

    /// Whether no step has one.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.iter().all(Option::is_none)
    }

    /// What Prometheus counts for all of them.
    pub(crate) fn samples(&self) -> usize {
        self.iter().map(|(_, native)| samples_of(native)).sum()
    }

    /// About the memory behind it. What steps share counts once where they are neighbours.
    pub(crate) fn bytes(&self) -> usize {
        let mut previous: Option<&Native> = None;
        let mut bytes = size_of::<Self>() + self.steps.len() * size_of::<Option<Native>>();
        for (_, native) in self.iter() {
            if previous.is_none_or(|previous| !Arc::ptr_eq(previous, native)) {
                bytes += native_bytes(native);
                if previous.is_none_or(|previous| !Arc::ptr_eq(previous.layout(), native.layout())) {
                    bytes += native.layout().heap_bytes();
                }
            }
            previous = Some(native);
        }
        bytes
    }
}

/// Bytes of a histogram, without its layout.
pub(crate) fn native_bytes(native: &FloatHistogram) -> usize {
    // The two counters of the shared pointer go with it.
    size_of::<FloatHistogram>() + 2 * size_of::<usize>() + native.heap_bytes()
}

/// As how many samples Prometheus counts a histogram: by its size against that of a float and its time.
pub(crate) fn samples_of(native: &FloatHistogram) -> usize {
    /// Bytes of Prometheus' histogram without what it points to.
    const FIXED_BYTES: usize = 168;
    const SAMPLE_BYTES: usize = 16;
    let layout = native.layout();
    let spans = (layout.positive_spans().len() + layout.negative_spans().len()) * size_of::<Span>();
    let numbers = (native.buckets().len() + layout.custom_values().len()) * size_of::<f64>();
    (FIXED_BYTES + spans + numbers + SAMPLE_BYTES / 2) / SAMPLE_BYTES
}

#[cfg(test)]
mod tests {
    use chronolith_model::histogram::HistogramLiteral;

    use super::*;
    use crate::series::Column;

    fn native(literal: &str) -> Native {
        Arc::new(HistogramLiteral::parse(literal).expect("a valid literal").histogram)
    }

    #[test]
    fn a_histogram_counts_by_its_size() {
        // 168 bytes, 8 for each span, bucket and custom bound, in units of 16, rounded.
        for (literal, samples) in [
            ("{{}}", 11),
            ("{{buckets:[1]}}", 12),
            ("{{buckets:[1 1 1] n_buckets:[1]}}", 14),
            ("{{schema:-53 custom_values:[1 2 3] buckets:[1 1]}}", 14),
        ] {
            assert_eq!(samples_of(&native(literal)), samples, "{literal}");
        }
    }

    #[test]
    fn what_neighbours_share_is_held_once() {
        let one = native("{{count:6 buckets:[1 2 3]}}");
        let bytes = |natives: [&Native; 3]| {
            let mut column = Column::absent(4);
            natives.iter().enumerate().for_each(|(step, of)| column.set_histogram(step, Arc::clone(of)));
            column.bytes()
        };
        let other = native("{{count:6 buckets:[1 2 3]}}");
        let again = Arc::new(FloatHistogram::clone(&one));
        let with_layout = |native: &Native| native_bytes(native) + native.layout().heap_bytes();
        let shared = bytes([&one, &one, &one]);
        assert_eq!(bytes([&one, &one, &again]), shared + native_bytes(&again), "a layout counts once too");
        assert_eq!(bytes([&one, &one, &other]), shared + with_layout(&other));
        assert_eq!(bytes([&one, &other, &one]), shared + with_layout(&other) + with_layout(&one));
    }

    #[test]
    fn a_step_has_a_float_or_a_histogram() {
        let mut column = Column::constant(1.0, 3);
        column.set_histogram(1, native("{{}}"));
        assert_eq!((column.get(0), column.get(1), column.floats()), (Some(1.0), None, 2));
        assert_eq!(column.samples(), 2 + 11);
        column.map_histograms(|_, _| None);
        assert!(!column.has(1) && !column.is_empty());
        column.clear(0);
        column.clear(2);
        assert!(column.is_empty());
    }
}
