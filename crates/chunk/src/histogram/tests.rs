use std::sync::Arc;

use chronolith_model::histogram::{
    CUSTOM_SCHEMA, CounterResetHint, Histogram, HistogramParts, Layout, NativeHistogram, Numbers, Side, Span,
    absolute_counts,
};
use proptest::prelude::*;

use super::*;
use crate::{Error, SAMPLES_MAX};

/// Chunks of a series' samples, as a head would make them.
fn chunks(samples: &[(i64, Histogram)]) -> Vec<Vec<u8>> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<HistogramAppender> = None;
    for (t, histogram) in samples {
        if let (Some(appender), Some(chunk)) = (&mut open, chunks.last_mut())
            && appender.append(chunk, *t, histogram).unwrap()
        {
            assert_eq!((appender.last_timestamp(), histogram_count(chunk)), (*t, appender.count()));
            continue;
        }
        let mut chunk = vec![9; 3];
        let previous = open.as_ref().map(|open| open.last().clone());
        open = Some(HistogramAppender::start(&mut chunk, *t, histogram, previous.as_ref()));
        chunks.push(chunk);
    }
    chunks
}

fn read(chunk: &[u8]) -> Result<Vec<(i64, Histogram)>, Error> {
    HistogramIter::new(chunk)?.collect()
}

fn read_all(chunks: &[Vec<u8>]) -> Vec<(i64, Histogram)> {
    chunks.iter().flat_map(|chunk| read(chunk).unwrap()).collect()
}

/// What comes back: the samples under the hints that the ones before them give.
fn hinted(samples: &[(i64, Histogram)]) -> Vec<(i64, Histogram)> {
    let mut out: Vec<(i64, Histogram)> = Vec::new();
    for (t, histogram) in samples {
        let mut histogram = histogram.clone();
        let hint = histogram.hint_after(out.last().map(|(_, last)| last));
        if !histogram.is_stale() {
            histogram.set_hint(hint);
        }
        out.push((*t, histogram));
    }
    out
}

fn framed(slots: &[Vec<Histogram>]) -> Vec<u8> {
    let (mut builder, mut out) = (HistogramFrameBuilder::new(), Vec::new());
    for (slot, histograms) in slots.iter().enumerate() {
        assert_eq!(builder.push(histograms, 7, slot as u64 / 2).map(usize::from), Ok(slot));
        assert_eq!(builder.slots(), slot + 1);
    }
    builder.finish(&mut out);
    assert_eq!((builder.slots(), builder.encoded_len()), (0, 0));
    out
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

const fn span(offset: i32, length: u32) -> Span {
    Span { offset, length }
}

/// The worked example of docs/format/histograms.md.
fn example() -> Vec<(i64, Histogram)> {
    let one = |count, sum, zero_count, positive: [i64; 3], negative| {
        let parts = HistogramParts {
            zero_threshold: 0.001,
            zero_count,
            count,
            sum,
            positive_spans: vec![span(0, 2), span(1, 1)],
            negative_spans: vec![span(0, 1)],
            positive_buckets: absolute_counts(positive, Side::Positive).unwrap(),
            negative_buckets: vec![negative],
            ..HistogramParts::default()
        };
        Histogram::from(parts.build(None).unwrap())
    };
    vec![
        (1000, one(6, 10.5, 1, [1, 1, -1], 1)),
        (2000, one(9, 20.5, 1, [2, 1, -1], 1)),
        (3000, one(14, 30.5, 2, [3, 1, -1], 2)),
    ]
}

const DOCUMENT: &str = include_str!("../../../../docs/format/histograms.md");

/// The bytes are those that Prometheus 3.5.3 wrote for these samples.
#[test]
fn chunks_are_those_of_prometheus() {
    let want = hex("02 0003 00 ff3f50624dd2f1a9fc4a48c63178fa2d140250000000000008c6f1f1f44dac68e2128ca088");
    let chunks = chunks(&example());
    assert_eq!(chunks, std::slice::from_ref(&want));
    assert!(DOCUMENT.contains(&format!("`{}`", shown(&want))), "{}", shown(&want));
    assert_eq!(read(&want), Ok(hinted(&example())));
}

#[test]
fn frames_are_as_documented() {
    let mut histograms: Vec<Histogram> =
        hinted(&example()).into_iter().map(|(_, histogram)| histogram).collect();
    histograms.push(Histogram::stale());
    let frame = framed(std::slice::from_ref(&histograms));
    // Behind what is documented there: one dense frame and its length.
    let described = "010100fca9f1d24d62503f02000202010100010101040308001100 0c 01";
    let (head, dense) = frame.split_at(hex(described).len());
    assert_eq!(head, hex(described), "{}", shown(&frame));
    assert!(DOCUMENT.contains(&format!("`{}`", shown(head))));
    assert_eq!(crate::dense::Frame::open(&dense[1..]).unwrap().slots(), 6);
    let opened = HistogramFrame::open(&frame).unwrap();
    let mut read = Vec::new();
    opened.decode(0, 0..9, &mut read).unwrap();
    assert_eq!(read, histograms);
}

/// One counter with `buckets` buckets that grow by their number.
fn counter(buckets: u32, schema: i32, rounds: u64) -> Histogram {
    let layout = Arc::new(Layout::new(schema, 0.0, &[span(0, buckets)], &[], Vec::new()).unwrap());
    let counts: Vec<u64> = (1..=u64::from(buckets)).map(|i| i * rounds).collect();
    integer(&layout, counts.iter().sum(), 0, &counts)
}

fn integer(layout: &Arc<Layout>, count: u64, zero_count: u64, buckets: &[u64]) -> Histogram {
    let hint = CounterResetHint::Unknown;
    let numbers = Numbers { hint, sum: count as f64, count, zero_count, buckets: buckets.to_vec() };
    NativeHistogram::from_numbers(Arc::clone(layout), numbers).unwrap().into()
}

#[test]
fn what_begins_a_chunk() {
    let hints = |samples: &[Histogram]| {
        let samples: Vec<(i64, Histogram)> = (0..).zip(samples.iter().cloned()).collect();
        let read: Vec<Vec<_>> = chunks(&samples).iter().map(|chunk| read(chunk).unwrap()).collect();
        read.iter().map(|chunk| chunk.iter().map(|(_, h)| h.hint()).collect()).collect::<Vec<Vec<_>>>()
    };
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    let hinted = |mut histogram: Histogram, hint| {
        histogram.set_hint(hint);
        histogram
    };
    let (one, two, three) = (counter(3, 2, 1), counter(3, 2, 2), counter(3, 2, 3));
    assert_eq!(hints(&[one.clone(), two.clone(), three.clone()]), [vec![Unknown, NotReset, NotReset]]);
    assert_eq!(hints(&[three.clone(), two.clone()]), [[Unknown], [Reset]]);
    assert_eq!(hints(&[one.clone(), hinted(two.clone(), Reset)]), [[Unknown], [Reset]]);
    assert_eq!(hints(&[one.clone(), counter(4, 2, 2)]), [[Unknown], [NotReset]], "a new bucket");
    assert_eq!(hints(&[one.clone(), counter(3, 1, 2)]), [[Unknown], [Unknown]], "another schema");
    assert_eq!(
        hints(&[one.clone(), Histogram::stale(), two.clone()]),
        [vec![Unknown, Unknown], vec![Unknown]]
    );
    assert_eq!(hints(&[one.clone(), two.to_float().into()]), [[Unknown], [Unknown]], "another kind");
    let gauges = [three.clone(), one.clone()].map(|histogram| hinted(histogram, Gauge));
    assert_eq!(hints(&gauges), [vec![Gauge, Gauge]], "gauges may fall");
    assert_eq!(hints(&[one.clone(), hinted(two.clone(), Gauge), three]), [[Unknown], [Gauge], [Unknown]]);
}

#[test]
fn a_full_chunk_refuses_and_large_ones_are_told() {
    let histogram = counter(1, 0, 1);
    let mut chunk = Vec::new();
    let mut appender = HistogramAppender::start(&mut chunk, 0, &histogram, None);
    for t in 1..SAMPLES_MAX as i64 {
        assert_eq!(appender.append(&mut chunk, t, &histogram), Ok(true));
    }
    assert!(appender.is_large(&chunk));
    let before = chunk.clone();
    assert_eq!(appender.append(&mut chunk, 1 << 40, &histogram), Err(Error::Full));
    assert_eq!(chunk, before);
    assert_eq!(read(&chunk).unwrap().len(), SAMPLES_MAX);
}

#[test]
fn a_range_is_inclusive_on_both_ends() {
    let samples: Vec<(i64, Histogram)> = (1..40).map(|i| (i * 10, counter(2, 0, i as u64))).collect();
    let chunk = &chunks(&samples)[0];
    for (min, max) in [(10, 390), (50, 50), (51, 59), (-5, 10), (390, 900), (400, 900), (60, 20)] {
        let (mut timestamps, mut histograms) = (vec![1], vec![Histogram::stale()]);
        let count = decode_histograms_into(chunk, min, max, &mut timestamps, &mut histograms).unwrap();
        let want: Vec<i64> = samples.iter().map(|(t, _)| *t).filter(|t| (min..=max).contains(t)).collect();
        assert_eq!((&timestamps[1..], count, histograms.len()), (&want[..], want.len(), want.len() + 1));
    }
}

#[test]
fn bytes_missing_at_the_end_are_noticed() {
    let samples: Vec<(i64, Histogram)> = (1..9).map(|i| (i * i, counter(3, 0, (i * i * i) as u64))).collect();
    let chunk = &chunks(&samples)[0];
    for len in 0..chunk.len() {
        let (mut timestamps, mut histograms) = (Vec::new(), Vec::new());
        let bytes = &chunk[..len];
        assert!(decode_histograms_into(bytes, i64::MIN, i64::MAX, &mut timestamps, &mut histograms).is_err());
        assert!(timestamps.is_empty() && histograms.is_empty());
    }
    let frame = framed(&[samples.into_iter().map(|(_, histogram)| histogram).collect()]);
    for len in 0..frame.len() {
        assert!(HistogramFrame::open(&frame[..len]).is_err(), "{len} of {}", frame.len());
    }
}

#[test]
fn limits_of_frames_hold() {
    let mut builder = HistogramFrameBuilder::new();
    // More columns than one dense frame has.
    let wide = vec![counter(5000, 8, 3); 4];
    assert_eq!(builder.push(&wide, 1, 1), Ok(0));
    let huge = vec![counter(8000, 8, 1); 1100];
    let refused = builder.push(&huge, 1, 1);
    assert!(matches!(refused, Err(Error::TooLarge { of: "values", .. })), "{refused:?}");
    assert_eq!(builder.push(&wide[..1], 1, 1), Ok(1), "the builder is as before");
    let mut out = Vec::new();
    builder.finish(&mut out);
    let frame = HistogramFrame::open(&out).unwrap();
    assert_eq!(
        (frame.slots(), frame.samples(0), frame.samples(1), frame.samples(2)),
        (2, Some(4), Some(1), None)
    );
    let mut read = Vec::new();
    frame.decode(0, 1..3, &mut read).unwrap();
    frame.decode(1, 0..1, &mut read).unwrap();
    assert_eq!(read, wide[..3]);
    assert_eq!(frame.decode(2, 0..1, &mut read), Err(Error::NoSlot { slot: 2, slots: 2 }));
    assert!(frame.heap_bytes() > 0);
}

/// A growing histogram costs little: columns of small numbers.
#[test]
fn frames_are_small() {
    let layout = Arc::new(Layout::new(3, 1e-9, &[span(-4, 12), span(3, 8)], &[], Vec::new()).unwrap());
    let mut counts = vec![0_u64; layout.len()];
    let series: Vec<Histogram> = (0..480)
        .map(|i| {
            for (bucket, count) in counts.iter_mut().enumerate() {
                *count += (i * 7 + bucket as u64 * 13) % 5;
            }
            integer(&layout, counts.iter().sum(), 0, &counts)
        })
        .collect();
    let samples: Vec<(i64, Histogram)> = (0..).map(|i| i * 15_000).zip(series.iter().cloned()).collect();
    let open: usize = chunks(&samples).iter().map(Vec::len).sum();
    let frame = framed(&[series]).len();
    assert!(frame < open / 2, "frame {frame} bytes, chunks {open} bytes");
    assert!(frame < 480 * 20, "frame {frame} bytes for {} buckets", layout.len());
}

fn any_layout() -> impl Strategy<Value = Arc<Layout>> {
    let spans = || prop::collection::vec((0_i32..4, 0_u32..4), 0..4);
    let spans_of = |spans: Vec<(i32, u32)>| {
        spans.into_iter().map(|(offset, length)| span(offset, length)).collect::<Vec<_>>()
    };
    let threshold = prop_oneof![Just(0.0), Just(1e-128), Just(2_f64.powi(-40)), Just(1024.0), Just(2048.0)];
    let exponential =
        (-4_i32..=8, threshold, spans(), spans(), -3_i32..3).prop_map(move |(schema, zero, p, n, first)| {
            let mut positive = spans_of(p);
            if let Some(span) = positive.first_mut() {
                span.offset = first;
            }
            Layout::new(schema, zero, &positive, &spans_of(n), Vec::new()).unwrap()
        });
    let bound =
        prop_oneof![(0_u32..40_000_000).prop_map(|n| f64::from(n) / 1000.0), -1e9_f64..1e9, Just(-0.0)];
    let custom = (prop::collection::vec(bound, 0..6), 0_u32..3).prop_map(move |(mut bounds, skip)| {
        bounds.sort_by(f64::total_cmp);
        bounds.dedup_by(|a, b| a == b);
        let skip = skip.min(bounds.len() as u32);
        let spans = [span(skip as i32, bounds.len() as u32 + 1 - skip)];
        Layout::new(CUSTOM_SCHEMA, 0.0, &spans, &[], bounds).unwrap()
    });
    prop_oneof![3 => exponential, 1 => custom].prop_map(Arc::new)
}

#[derive(Clone, Debug)]
struct Step {
    layout: usize,
    float: bool,
    stale: bool,
    wild: bool,
    hint: u8,
    seed: u64,
    wait: i64,
}

fn any_step() -> impl Strategy<Value = Step> {
    let rare = || prop::bool::weighted(0.1);
    let wait = prop_oneof![4 => Just(15_000_i64), 1 => 0..100_000_i64, 1 => any::<i64>()];
    (0_usize..12, rare(), rare(), rare(), prop_oneof![6 => Just(0_u8), 1 => 0_u8..4], any::<u64>(), wait)
        .prop_map(|(layout, float, stale, wild, hint, seed, wait)| Step {
            layout,
            float,
            stale,
            wild,
            hint,
            seed,
            wait,
        })
}

/// A series: mostly a counter of one layout, now and then everything else.
fn any_series() -> impl Strategy<Value = Vec<(i64, Histogram)>> {
    (prop::collection::vec(any_layout(), 1..4), prop::collection::vec(any_step(), 0..40), any::<bool>())
        .prop_map(|(layouts, steps, mostly_float)| {
            let (mut t, mut level) = (0_i64, 0_u64);
            let samples = steps.into_iter().map(|step| {
                t = t.wrapping_add(step.wait);
                level += step.seed % 100;
                // Layouts beyond the first are rare.
                let layout = layouts.get(step.layout).unwrap_or(&layouts[0]);
                let number = |i: u64| {
                    if step.wild { step.seed.rotate_left(i as u32 * 7) } else { level + i * 3 }
                };
                let buckets: Vec<u64> = (0..layout.len() as u64).map(|i| number(i + 2)).collect();
                let zero = if layout.is_custom() { 0 } else { number(1) };
                let sum_of = buckets.iter().fold(zero, |sum, count| sum.wrapping_add(*count));
                let count = if step.seed % 7 == 0 { number(3) } else { sum_of };
                let sum = f64::from_bits(if step.wild {
                    step.seed | 1 << 62
                } else {
                    (level as f64 * 0.25).to_bits()
                });
                let hint = hint_of(step.hint);
                let histogram = if step.stale || sum.to_bits() == chronolith_model::STALE_NAN_BITS {
                    Histogram::stale()
                } else if step.float != mostly_float {
                    let float = |n: u64| if step.wild { f64::from_bits(n) } else { n as f64 * 0.5 };
                    let numbers = Numbers {
                        hint,
                        sum,
                        count: float(count),
                        zero_count: float(zero),
                        buckets: buckets.into_iter().map(float).collect(),
                    };
                    NativeHistogram::from_numbers(Arc::clone(layout), numbers).unwrap().into()
                } else {
                    let numbers = Numbers { hint, sum, count, zero_count: zero, buckets };
                    NativeHistogram::from_numbers(Arc::clone(layout), numbers).unwrap().into()
                };
                (t, histogram)
            });
            samples.collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn chunks_give_back_what_they_got(series in any_series()) {
        prop_assert_eq!(read_all(&chunks(&series)), hinted(&series));
    }

    #[test]
    fn frames_give_back_what_they_got(slots in prop::collection::vec(any_series(), 0..5), cut in 0_usize..40) {
        let slots: Vec<Vec<Histogram>> =
            slots.into_iter().map(|slot| slot.into_iter().map(|(_, histogram)| histogram).collect()).collect();
        let frame = HistogramFrame::open(&framed(&slots)).unwrap();
        prop_assert_eq!(frame.slots(), slots.len());
        for (slot, histograms) in slots.iter().enumerate() {
            let mut read = vec![Histogram::stale()];
            frame.decode(slot, 0..usize::MAX, &mut read).unwrap();
            prop_assert_eq!(&read[1..], &histograms[..]);
            let cut = cut.min(histograms.len());
            for range in [0..cut, cut..histograms.len()] {
                read.clear();
                frame.decode(slot, range.clone(), &mut read).unwrap();
                prop_assert_eq!(&read[..], &histograms[range]);
            }
        }
    }

    #[test]
    fn damage_never_panics(series in any_series(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let damage = |mut bytes: Vec<u8>| {
            for (index, byte) in &flips {
                let at = index.index(bytes.len());
                bytes[at] ^= byte;
            }
            bytes
        };
        for chunk in chunks(&series) {
            let _ = read(&damage(chunk));
        }
        let histograms: Vec<Histogram> = series.into_iter().map(|(_, histogram)| histogram).collect();
        if let Ok(frame) = HistogramFrame::open(&damage(framed(&[histograms]))) {
            for slot in 0..frame.slots() {
                let _ = frame.decode(slot, 0..usize::MAX, &mut Vec::new());
            }
        }
    }
}
