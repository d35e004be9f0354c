mod algebra;
mod stats;
mod text;

use super::*;
use crate::stale_nan;

fn span(offset: i32, length: u32) -> Span {
    Span { offset, length }
}

/// The histogram `h` of the reference data: schema 0, positive spans (0,2) (1,1), negative span (0,1).
fn parts(count: u64, sum: f64, zero: u64, positive: [i64; 3], negative: i64) -> HistogramParts<u64> {
    HistogramParts {
        zero_threshold: 0.001,
        zero_count: zero,
        count,
        sum,
        positive_spans: vec![span(0, 2), span(1, 1)],
        negative_spans: vec![span(0, 1)],
        positive_buckets: absolute_counts(positive, Side::Positive).unwrap(),
        negative_buckets: absolute_counts([negative], Side::Negative).unwrap(),
        ..HistogramParts::default()
    }
}

fn good() -> HistogramParts<u64> {
    parts(6, 10.5, 1, [1, 1, -1], 1)
}

fn custom() -> HistogramParts<f64> {
    HistogramParts {
        schema: CUSTOM_SCHEMA,
        count: 6.0,
        sum: 1.0,
        positive_spans: vec![span(0, 1), span(1, 2)],
        positive_buckets: vec![1.0, 2.0, 3.0],
        custom_values: vec![0.1, 0.5, 2.0],
        ..HistogramParts::default()
    }
}

#[test]
fn parts_become_absolute_counts_in_one_layout() {
    let first = good().build(None).unwrap();
    assert_eq!(first.positive_buckets(), [1, 2, 1]);
    assert_eq!(first.negative_buckets(), [1]);
    let places: Vec<(bool, i32)> = first.layout().places().collect();
    assert_eq!(places, [(false, 0), (false, 1), (false, 3), (true, 0)]);
    let second = parts(9, 20.5, 1, [2, 1, -1], 1).build(Some(first.layout())).unwrap();
    assert!(Arc::ptr_eq(first.layout(), second.layout()), "the layout is shared");
    let float = first.to_float();
    assert_eq!((float.count(), float.zero_count(), float.buckets()), (6.0, 1.0, &[1.0, 2.0, 1.0, 1.0][..]));
    assert_ne!(Histogram::from(first), Histogram::from(float));
}

#[track_caller]
fn refused(change: impl FnOnce(&mut HistogramParts<u64>), text: &str) {
    let mut parts = good();
    change(&mut parts);
    assert_eq!(parts.build(None).unwrap_err().to_string(), text);
}

#[test]
fn refusals_are_worded_as_in_prometheus() {
    refused(
        |h| h.count = 7,
        "6 observations found in buckets, but the Count field is 7: histogram's observation count should equal the \
         number of observations found in the buckets (in absence of NaN)",
    );
    refused(
        |h| (h.sum, h.count) = (f64::NAN, 5),
        "6 observations found in buckets, but the Count field is 5: histogram's observation count should be at least \
         the number of observations found in the buckets",
    );
    refused(
        |h| h.positive_buckets = vec![1, 2],
        "positive side: spans need 3 buckets, have 2 buckets: histogram spans specify different number of buckets than \
         provided",
    );
    refused(
        |h| h.negative_spans = vec![],
        "negative side: spans need 0 buckets, have 1 buckets: histogram spans specify different number of buckets than \
         provided",
    );
    refused(
        |h| h.positive_spans = vec![span(0, 2), span(-1, 1)],
        "positive side: span number 2 with offset -1: histogram has a span whose offset is negative",
    );
    for schema in [-5, 53, 127, i32::MIN, -54] {
        refused(
            |h| h.schema = schema,
            &format!(
                "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for \
                 custom buckets, got schema {schema}"
            ),
        );
    }
    refused(|h| h.custom_values = vec![1.0], "histogram with exponential schema must not have custom bounds");
    assert_eq!(
        absolute_counts([2, -3], Side::Negative).unwrap_err().to_string(),
        "negative side: bucket number 2 has observation count of -1: histogram has a bucket whose observation count is \
         negative"
    );
    // A NaN among the observations is counted and in no bucket.
    let nan = HistogramParts { sum: f64::NAN, count: 7, ..good() };
    assert_eq!(nan.build(None).unwrap().count(), 7);
}

#[track_caller]
fn custom_refused(change: impl FnOnce(&mut HistogramParts<f64>), text: &str) {
    let mut parts = custom();
    change(&mut parts);
    assert_eq!(parts.build(None).unwrap_err().to_string(), text);
}

#[test]
fn custom_buckets_have_rules_of_their_own() {
    assert_eq!(custom().build(None).unwrap().layout().custom_values(), [0.1, 0.5, 2.0]);
    custom_refused(|h| h.zero_count = 1.0, "custom buckets: must have zero count of 0");
    custom_refused(|h| h.zero_threshold = 0.1, "custom buckets: must have zero threshold of 0");
    custom_refused(|h| h.negative_spans = vec![span(0, 1)], "custom buckets: must not have negative spans");
    custom_refused(|h| h.negative_buckets = vec![1.0], "custom buckets: must not have negative buckets");
    custom_refused(
        |h| h.custom_values = vec![0.1, 0.1, 2.0],
        "custom buckets: previous bound is 0.100000 and current is 0.100000: histogram custom bounds must be in \
         strictly increasing order",
    );
    custom_refused(
        |h| h.custom_values = vec![0.1, f64::NAN, 2.0],
        "custom buckets: histogram custom bounds must not be NaN",
    );
    custom_refused(
        |h| h.custom_values = vec![0.1, 0.5, f64::INFINITY],
        "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite",
    );
    custom_refused(
        |h| h.custom_values = vec![0.1, 0.5],
        "custom buckets: only 2 custom bounds defined which is insufficient to cover total span length of 4: histogram \
         custom bounds are too few",
    );
    custom_refused(
        |h| h.positive_spans = vec![span(-1, 1), span(1, 2)],
        "custom buckets: span number 1 with offset -1: histogram has a span whose offset is negative",
    );
    custom_refused(
        |h| h.positive_buckets = vec![1.0, -2.0, 3.0],
        "positive side: bucket number 2 has observation count of -2: histogram has a bucket whose observation count is \
         negative",
    );
}

#[test]
fn spans_are_canonical() {
    let layout = |spans: &[Span]| Layout::new(2, 0.0, spans, &[], Vec::new());
    let plain = layout(&[span(-7, 2), span(3, 4)]).unwrap();
    assert_eq!(plain.positive_spans(), [span(-7, 2), span(3, 4)]);
    let same = [
        vec![span(-7, 1), span(0, 1), span(3, 4)],
        vec![span(-9, 0), span(2, 2), span(1, 0), span(2, 1), span(0, 3), span(5, 0)],
    ];
    for spans in &same {
        assert_eq!(layout(spans).unwrap(), plain, "{spans:?}");
    }
    assert_eq!(plain.positive_indices().collect::<Vec<_>>(), [-7, -6, -2, -1, 0, 1]);
    assert!(layout(&[span(i32::MAX, 1), span(i32::MAX, 1)]).is_err());
    assert!(matches!(layout(&[span(0, u32::MAX)]), Err(HistogramError::IndexRange(Side::Positive))));
    let many = layout(&[span(0, BUCKETS_MAX as u32 + 1)]);
    assert_eq!(many.unwrap_err(), HistogramError::TooManyBuckets(BUCKETS_MAX as u64 + 1));
    // The lowest and highest index there are.
    let ends = layout(&[span(i32::MIN, 1), span(i32::MAX, 1), span(i32::MAX - 2, 1)]);
    assert_eq!(ends.unwrap().positive_indices().collect::<Vec<_>>(), [i32::MIN, 0, i32::MAX - 1]);
}

#[test]
fn unions_have_the_buckets_of_both() {
    let a = Layout::new(0, 0.5, &[span(-2, 2), span(3, 1)], &[], Vec::new()).unwrap();
    let b = Layout::new(0, 0.5, &[span(-1, 3)], &[span(4, 1)], Vec::new()).unwrap();
    let both = a.union(&b).unwrap();
    assert_eq!(both.positive_indices().collect::<Vec<_>>(), [-2, -1, 0, 1, 3]);
    assert_eq!(both.negative_indices().collect::<Vec<_>>(), [4]);
    assert_eq!(both, b.union(&a).unwrap());
    assert_eq!(both.union(&a).unwrap(), both);
}

#[test]
fn finer_schemas_are_brought_down() {
    // Schema 10 to 8: four neighbours become one; index 1 to 4 -> 1, 0 -> 0, 5 -> 2.
    let parts = HistogramParts {
        schema: 10,
        count: 21_u64,
        positive_spans: vec![span(0, 6)],
        positive_buckets: vec![1, 2, 3, 4, 5, 6],
        ..HistogramParts::default()
    };
    let histogram = parts.build(None).unwrap();
    assert_eq!(histogram.layout().schema(), 8);
    assert_eq!(histogram.layout().positive_indices().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(histogram.buckets(), [1, 14, 6]);
    let coarse = histogram.reduced_to(7);
    assert_eq!(coarse.layout().positive_indices().collect::<Vec<_>>(), [0, 1]);
    assert_eq!((coarse.buckets(), coarse.count()), (&[1, 20][..], 21));
    assert_eq!(coarse.reduced_to(8), coarse);
    // Far apart, merged into few.
    let far = HistogramParts {
        schema: 52,
        count: 3_u64,
        positive_spans: vec![span(i32::MIN, 1), span(i32::MAX, 1), span(0, 1)],
        positive_buckets: vec![1, 1, 1],
        ..HistogramParts::default()
    };
    assert_eq!(far.build(None).unwrap().buckets(), [2, 1]);
}

#[test]
fn hints_say_how_a_histogram_goes_on() {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    let first = Histogram::from(good().build(None).unwrap());
    let after = |change: &dyn Fn(&mut HistogramParts<u64>)| {
        let mut parts = parts(9, 20.5, 1, [2, 1, -1], 1);
        change(&mut parts);
        let mut sum = parts.zero_count;
        sum += parts.positive_buckets.iter().chain(&parts.negative_buckets).sum::<u64>();
        parts.count = parts.count.max(sum);
        parts.sum = f64::NAN;
        Histogram::from(parts.build(None).unwrap()).hint_after(Some(&first))
    };
    assert_eq!(first.hint_after(None), Unknown);
    assert_eq!(after(&|_| ()), NotReset);
    assert_eq!(after(&|h| h.hint = NotReset), NotReset);
    assert_eq!(after(&|h| h.hint = Reset), Reset);
    assert_eq!(after(&|h| h.hint = Gauge), Gauge);
    assert_eq!(after(&|h| h.zero_count = 0), Reset);
    assert_eq!(after(&|h| h.positive_buckets[2] = 0), Reset);
    assert_eq!(after(&|h| h.negative_buckets[0] = 0), Reset);
    assert_eq!(after(&|h| h.schema = 1), Unknown);
    assert_eq!(after(&|h| h.zero_threshold = 0.002), Unknown);
    // A new bucket is no reset, one that is gone is.
    let grown = |h: &mut HistogramParts<u64>| {
        h.positive_spans = vec![span(-3, 1), span(2, 4)];
        h.positive_buckets = vec![5, 1, 2, 0, 1];
    };
    assert_eq!(after(&grown), NotReset);
    let shrunk = |h: &mut HistogramParts<u64>| {
        h.positive_spans = vec![span(1, 1), span(1, 1)];
        h.positive_buckets = vec![2, 1];
    };
    assert_eq!(after(&shrunk), Reset);
    assert_eq!(first.hint_after(Some(&Histogram::stale())), Unknown);
    assert_eq!(Histogram::stale().hint_after(Some(&first)), Unknown);
    assert_eq!(Histogram::from(first.to_float()).hint_after(Some(&first)), Unknown);
    let Histogram::Integer(mut gauge) = first.clone() else { panic!("integers") };
    gauge.set_hint(Gauge);
    assert_eq!(first.hint_after(Some(&gauge.into())), Unknown);
    let smaller = parts(5, 1.0, 1, [1, 0, 0], 1).build(None).unwrap();
    assert_eq!(
        smaller.hint_after(match &first {
            Histogram::Integer(h) => Some(h),
            Histogram::Float(_) => None,
        }),
        Reset
    );
}

#[test]
fn stale_markers_have_one_form() {
    let marked = HistogramParts { sum: stale_nan(), ..good() }.build(None).unwrap();
    assert!(marked.is_stale());
    assert_eq!(Histogram::from(marked), Histogram::stale());
    let float = HistogramParts { sum: stale_nan(), ..custom() }.build(None).unwrap();
    assert!(float.buckets().is_empty() && float.is_stale());
    let nan = HistogramParts { sum: f64::NAN, ..good() }.build(None).unwrap();
    assert!(!nan.is_stale());
}

#[test]
fn equality_is_of_bits() {
    let with_sum = |bits: u64| HistogramParts { sum: f64::from_bits(bits), ..custom() }.build(None).unwrap();
    assert_eq!(with_sum(0x7ff8_0000_0000_0001), with_sum(0x7ff8_0000_0000_0001));
    assert_ne!(with_sum(0x7ff8_0000_0000_0001), with_sum(0x7ff8_0000_0000_0002));
    assert_ne!(with_sum(0), with_sum(1 << 63));
    let mut other = with_sum(0);
    other.set_hint(CounterResetHint::Gauge);
    assert_ne!(other, with_sum(0));
    assert!(other.same_observations(&with_sum(0)));
}
