//! What samples say: floats, and histograms of all kinds, in a form that is cheap to keep and to compare.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use chronolith_model::{
    Histogram, Labels, STALE_NAN_BITS, Timestamp,
    histogram::{CUSTOM_SCHEMA, Count, CounterResetHint, HistogramParts, NativeHistogram, Span},
};
use chronolith_storage::Samples;

/// What a sample says. A stale marker is one, whichever kind it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    /// The bits of a float.
    Float(u64),
    /// What is left of all numbers of a histogram, hints aside.
    Histogram(u64),
}

/// A sample without its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Value {
    pub(crate) what: What,
    /// Since when it counts; 0: not said.
    pub(crate) start: Timestamp,
}

/// Everything a tenant sees.
pub(crate) type Content = BTreeMap<Labels, BTreeMap<Timestamp, Value>>;

/// The kinds of values that a series has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Floats,
    Integers,
    FloatCounts,
    Custom,
    /// All of them.
    Mixed,
}

/// All histograms that were made.
#[derive(Debug, Default)]
pub(crate) struct Book {
    histograms: BTreeMap<u64, Histogram>,
}

impl What {
    pub(crate) const STALE: Self = Self::Float(STALE_NAN_BITS);

    pub(crate) fn of(histogram: &Histogram) -> Self {
        if histogram.is_stale() {
            return Self::STALE;
        }
        let mut hasher = DefaultHasher::new();
        match histogram {
            Histogram::Integer(histogram) => digest(histogram, &mut hasher),
            Histogram::Float(histogram) => {
                hasher.write_u8(1);
                digest(histogram, &mut hasher);
            }
        }
        Self::Histogram(hasher.finish())
    }
}

fn digest<C: Count>(histogram: &NativeHistogram<C>, hasher: &mut DefaultHasher) {
    let layout = histogram.layout();
    (layout.schema(), layout.zero_threshold().to_bits()).hash(hasher);
    (layout.positive_spans(), layout.negative_spans()).hash(hasher);
    layout.custom_values().iter().for_each(|bound| hasher.write_u64(bound.to_bits()));
    hasher.write_u64(histogram.sum().to_bits());
    hasher.write_u64(histogram.count().bits());
    hasher.write_u64(histogram.zero_count().bits());
    histogram.buckets().iter().for_each(|count| hasher.write_u64(count.bits()));
}

impl Value {
    pub(crate) const fn float(bits: u64) -> Self {
        Self { what: What::Float(bits), start: 0 }
    }
}

impl Kind {
    /// That of the series with a number.
    pub(crate) const fn of(id: u64) -> Self {
        match id % 9 {
            1 => Self::Integers,
            4 => Self::FloatCounts,
            6 => Self::Custom,
            8 => Self::Mixed,
            _ => Self::Floats,
        }
    }

    /// Whether the histograms of the series are no counters.
    pub(crate) const fn is_gauge(id: u64) -> bool {
        id % 18 == 4
    }
}

impl Book {
    /// A histogram made before.
    pub(crate) fn get(&self, print: u64) -> &Histogram {
        &self.histograms[&print]
    }

    /// A histogram of `kind`, not of floats, that has counted up to `n`.
    pub(crate) fn make(&mut self, kind: Kind, id: u64, n: u64) -> What {
        // The buckets of most are those of the one before; at times there are others.
        let length = 1 + (id + n / 64) % 4;
        let spans = vec![Span { offset: (id % 3) as i32 - 1, length: length as u32 }];
        let counts: Vec<u64> = (0..length).map(|at| n / (at + 1)).collect();
        let total: u64 = counts.iter().sum();
        let hint = if Kind::is_gauge(id) { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
        let schema = [3, 3, 0, -4, 8][(n / 512 % 5) as usize];
        let histogram = match kind {
            Kind::FloatCounts => {
                let parts = HistogramParts::<f64> {
                    hint,
                    schema,
                    zero_threshold: 1e-128,
                    zero_count: n as f64 * 0.25,
                    count: total as f64 + n as f64 * 0.25,
                    sum: n as f64 * 0.3,
                    positive_spans: spans,
                    positive_buckets: counts.iter().map(|count| *count as f64).collect(),
                    ..HistogramParts::default()
                };
                Histogram::Float(parts.build(None).expect("valid"))
            }
            Kind::Custom => {
                let parts = HistogramParts::<u64> {
                    hint,
                    schema: CUSTOM_SCHEMA,
                    count: total,
                    sum: n as f64 * 1.5,
                    positive_spans: vec![Span { offset: 0, length: length as u32 }],
                    positive_buckets: counts,
                    custom_values: vec![0.1, 0.5, 1.0 + (n / 256) as f64, 1e6],
                    ..HistogramParts::default()
                };
                Histogram::Integer(parts.build(None).expect("valid"))
            }
            _ => {
                let parts = HistogramParts::<u64> {
                    hint,
                    schema,
                    zero_threshold: 0.001,
                    zero_count: n,
                    count: 2 * total + n,
                    sum: n as f64 * 0.7,
                    positive_spans: spans.clone(),
                    negative_spans: spans,
                    positive_buckets: counts.clone(),
                    negative_buckets: counts,
                    ..HistogramParts::default()
                };
                Histogram::Integer(parts.build(None).expect("valid"))
            }
        };
        let what = What::of(&histogram);
        if let What::Histogram(print) = what {
            self.histograms.entry(print).or_insert(histogram);
        }
        what
    }
}

/// The samples of a series as a view shows them.
pub(crate) fn values(samples: &Samples, with_starts: bool) -> BTreeMap<Timestamp, Value> {
    let start = |t: Timestamp| if with_starts { samples.start_at(t) } else { 0 };
    let floats = samples.timestamps.iter().zip(&samples.values);
    let floats = floats.map(|(t, value)| (*t, What::Float(value.to_bits())));
    let histograms = samples.histogram_timestamps.iter().zip(&samples.histograms);
    let all = floats.chain(histograms.map(|(t, histogram)| (*t, What::of(histogram))));
    all.map(|(t, what)| (t, Value { what, start: start(t) })).collect()
}

/// That what histograms say of the one before them is true.
pub(crate) fn check_hints(labels: &Labels, samples: &Samples, id: u64) {
    let mut floats = samples.timestamps.iter().peekable();
    let mut before: Option<&Histogram> = None;
    for (number, (t, histogram)) in samples.histogram_timestamps.iter().zip(&samples.histograms).enumerate() {
        let mut behind_float = false;
        while floats.next_if(|float| *float < t).is_some() {
            behind_float = true;
        }
        let previous = before.replace(histogram).filter(|_| !behind_float);
        let hint = histogram.hint();
        let is_gauge = hint == CounterResetHint::Gauge;
        assert!(histogram.is_stale() || is_gauge == Kind::is_gauge(id), "{labels} {t}: {hint:?}");
        let first = number == 0 && !behind_float;
        let previous = previous.filter(|previous| !previous.is_stale());
        // That a counter began anew stays true whatever has come between.
        let may_stay = hint == CounterResetHint::Reset && previous.is_none();
        if matches!(hint, CounterResetHint::Unknown | CounterResetHint::Gauge) || first || may_stay {
            continue;
        }
        let mut bare = histogram.clone();
        bare.set_hint(CounterResetHint::Unknown);
        let found = bare.hint_after(previous);
        assert!(
            hint == found,
            "{labels} {t}: {hint:?} behind {previous:?}, which is {found:?}: {histogram:?}"
        );
    }
}
