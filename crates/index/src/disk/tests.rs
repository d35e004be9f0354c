use std::{collections::BTreeSet, sync::Arc};

use chronolith_model::{Labels, METRIC_NAME, MatchOp, Matcher};
use proptest::prelude::*;
use roaring::RoaringBitmap;

use super::*;
use crate::{
    Count, MemoryIndex,
    matcher::CompiledMatcher,
    resolve,
    strategies::{any_labels, any_matcher},
};

mod damage;
mod golden;
mod parts;

/// Series in block order, each once.
pub(super) fn sorted(series: impl IntoIterator<Item = Labels>) -> Vec<Labels> {
    let mut series: Vec<Labels> = series.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    series.sort_by(|a, b| {
        a.metric_name().unwrap_or_default().cmp(b.metric_name().unwrap_or_default()).then(a.cmp(b))
    });
    series
}

pub(super) fn encode(series: &[Labels]) -> EncodedIndex {
    let mut writer = IndexWriter::new();
    for (id, labels) in (0..).zip(series) {
        assert_eq!(writer.add(labels), Ok(id));
    }
    writer.finish()
}

pub(super) fn open(index: EncodedIndex) -> DiskIndex<MemorySections> {
    let (directory, sections) = MemorySections::new(index);
    DiskIndex::open(&directory, sections).expect("an index of our own")
}

fn labels(text: &str) -> Labels {
    Labels::from_pairs(text.split(',').filter_map(|pair| pair.split_once('=')))
}

fn brute(series: &[Labels], matchers: &[CompiledMatcher]) -> Vec<u32> {
    let meets =
        |labels: &Labels| matchers.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or_default()));
    (0..).zip(series).filter(|(_, labels)| meets(labels)).map(|(id, _)| id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn answers_are_those_of_a_look_at_every_series(
        series in prop::collection::vec(any_labels(), 0..250),
        matcher_sets in prop::collection::vec(prop::collection::vec(any_matcher(), 0..4), 1..8),
    ) {
        let series = sorted(series);
        let index = open(encode(&series));
        let mut memory = MemoryIndex::default();
        for (id, labels) in (0..).zip(&series) {
            memory.insert(id, labels);
        }
        prop_assert_eq!(index.len() as usize, series.len());
        for matchers in &matcher_sets {
            let compiled = CompiledMatcher::compile_all(matchers).expect("valid");
            let found = index.select(&compiled).expect("a sound index");
            let Ok(expected) = resolve(&memory, &compiled);
            prop_assert_eq!(&found, &expected, "{:?}", matchers);
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), brute(&series, &compiled));

            let selected: Vec<Labels> = found.iter().map(|id| series[id as usize].clone()).collect();
            prop_assert_eq!(&index.labels(&found).expect("sound"), &selected);
            prop_assert_eq!(index.label_names(Some(&found)).expect("sound"), memory.names_among(&found));
            for name in ["A", "l", "w", "absent", METRIC_NAME] {
                let expected = memory.values_among(name, &found);
                prop_assert_eq!(index.label_values(name, Some(&found)).expect("sound"), expected);
            }
        }
        check_counts(&index, &memory, &series);
        index.verify().expect("a sound index");
    }
}

fn check_counts(index: &DiskIndex<MemorySections>, memory: &MemoryIndex, series: &[Labels]) {
    let own = |count: Count<'_>| (count.name.to_owned(), count.value.to_owned(), count.count);
    let sorted = |counts: &mut dyn Iterator<Item = Count<'_>>| counts.map(own).collect::<BTreeSet<_>>();
    let mut pairs = Vec::new();
    index.for_each_pair(&mut |pair| pairs.push(own(pair))).expect("sound");
    assert!(pairs.is_sorted());
    assert_eq!(pairs.iter().cloned().collect::<BTreeSet<_>>(), sorted(&mut memory.pair_counts()));
    for (name, value, count) in &pairs {
        assert_eq!(index.pair_count(name, value).expect("sound"), *count);
    }
    assert_eq!(index.pairs_count(), pairs.len() as u64);
    assert_eq!(sorted(&mut index.value_counts()), sorted(&mut memory.value_counts()));
    assert_eq!(sorted(&mut index.value_bytes()), sorted(&mut memory.value_bytes()));
    for count in index.series_counts() {
        let has = series.iter().filter(|labels| labels.get(count.name).is_some()).count();
        assert_eq!(count.count, has as u64);
    }
    assert_eq!(index.label_names(None).expect("sound"), memory.names());
    assert_eq!(index.label_values("w", None).expect("sound"), memory.values("w").collect::<Vec<_>>());
    let mut next = 0;
    index
        .for_each_metric(&mut |metric, ids| {
            assert_eq!(ids.start, next);
            next = ids.end;
            assert_eq!(index.metric_ids(metric).expect("sound"), ids);
            for id in ids {
                assert_eq!(series[id as usize].metric_name().unwrap_or_default(), metric);
            }
        })
        .expect("sound");
    assert_eq!(next as usize, series.len());
    assert!(index.metric_ids("no_such").expect("sound").is_empty());
    let walked: Vec<Labels> = index.series(0..u32::MAX).collect::<Result<_, _>>().expect("sound");
    assert_eq!(walked, series);
}

/// Metrics over the same targets, as exporters have them, with some pairs missing.
pub(super) fn fleet(metrics: u32, targets: u32) -> Vec<Labels> {
    sorted((0..metrics).flat_map(|metric| {
        (0..targets).filter(move |target| metric < 3 || (metric * 7 + target) % 11 != 0).map(move |target| {
            Labels::from_pairs([
                (METRIC_NAME, format!("metric_{metric:02}")),
                ("pod", format!("pod-{:05x}", target.wrapping_mul(2_654_435_761) >> 12)),
                ("ns", format!("ns-{}", target % 17)),
                ("kind", if metric % 2 == 0 { String::new() } else { format!("k{}", target % 3) }),
                ("id", format!("{:064x}", u64::from(target).wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            ])
        })
    }))
}

#[test]
fn many_pages_and_segments() {
    let series = fleet(12, 6_000);
    let encoded = encode(&series);
    let bytes =
        [&encoded.directory, &encoded.dictionaries, &encoded.postings, &encoded.forward].map(Vec::len);
    assert!(bytes.iter().sum::<usize>() < series.len() * 15, "{bytes:?} for {} series", series.len());
    let (directory, sections) = MemorySections::new(encoded);
    let cache = Arc::new(PageCache::new(64 << 10));
    let index = DiskIndex::open_with(&directory, sections, Arc::clone(&cache)).expect("sound");
    for (name, op, value) in [
        ("pod", MatchOp::Regex, "pod-0.*"),
        ("pod", MatchOp::Regex, ".*ab.*"),
        ("pod", MatchOp::NotRegex, ".*ab.*"),
        ("pod", MatchOp::NotRegex, "pod-[0-7].*"),
        ("id", MatchOp::Regex, ".*[0-9]{9}7"),
        ("id", MatchOp::NotEqual, "x"),
        ("ns", MatchOp::Regex, "ns-1|ns-2|ns-14"),
        ("kind", MatchOp::Equal, ""),
        ("kind", MatchOp::Regex, "|k1"),
        ("kind", MatchOp::NotEqual, "k2"),
        (METRIC_NAME, MatchOp::Regex, "metric_0[1-3]"),
        (METRIC_NAME, MatchOp::NotEqual, "metric_05"),
    ] {
        for metric in [None, Some("metric_04"), Some("metric_07")] {
            let matchers: Vec<Matcher> = [Matcher::new(name, op, value)]
                .into_iter()
                .chain(metric.map(|metric| Matcher::equal(METRIC_NAME, metric)))
                .chain([Matcher::new("ns", MatchOp::NotRegex, "ns-(3|4)")])
                .collect();
            let compiled = CompiledMatcher::compile_all(&matchers).expect("valid");
            let found = index.select(&compiled).expect("sound");
            assert_eq!(found.iter().collect::<Vec<_>>(), brute(&series, &compiled), "{matchers:?}");
            assert!(cache.bytes() <= 64 << 10);
        }
    }
    let some: RoaringBitmap = (0..series.len() as u32).step_by(37).collect();
    let expected: Vec<&Labels> = some.iter().map(|id| &series[id as usize]).collect();
    assert_eq!(index.labels(&some).expect("sound").iter().collect::<Vec<_>>(), expected);
    let mut id = 0;
    index
        .walk::<DiskIndexError>(|at, labels| {
            assert_eq!((at, &labels), (id, &series[id as usize]));
            id += 1;
            Ok(())
        })
        .expect("sound");
    assert_eq!(id as usize, series.len());
    index.verify().expect("a sound index");
    drop(index);
    assert_eq!(cache.bytes(), 0, "an index takes its pages along");
}

#[test]
fn series_out_of_order_and_above_limits_are_refused() {
    let mut writer = IndexWriter::new();
    assert_eq!(writer.add(&labels("__name__=b,x=1")), Ok(0));
    for wrong in ["__name__=b,x=1", "__name__=b,x=0", "__name__=a,x=2", "x=2"] {
        assert_eq!(writer.add(&labels(wrong)), Err(IndexWriteError::Order { id: 1 }), "{wrong}");
    }
    let long = "v".repeat(LABEL_BYTES_MAX + 1);
    let refused =
        writer.add(&Labels::from_pairs([(METRIC_NAME, "c"), ("new", "pair"), ("x", long.as_str())]));
    assert_eq!(
        refused,
        Err(IndexWriteError::LabelTooLong { bytes: LABEL_BYTES_MAX + 1, max: LABEL_BYTES_MAX })
    );
    let long_name = "m".repeat(LABEL_BYTES_MAX + 1);
    let refused = writer.add(&Labels::from_pairs([(METRIC_NAME, long_name.as_str()), ("x", "1")]));
    assert_eq!(
        refused,
        Err(IndexWriteError::LabelTooLong { bytes: LABEL_BYTES_MAX + 1, max: LABEL_BYTES_MAX })
    );
    assert_eq!(writer.add(&labels("__name__=c,x=1")), Ok(1));
    let index = open(writer.finish());
    assert_eq!(index.label_names(None).expect("sound"), [METRIC_NAME, "x"], "no trace of what was refused");
    assert_eq!(index.pair_count("x", "1").expect("sound"), 2);
}

#[test]
fn long_and_strange_values() {
    let long = "\u{e9}".repeat(70_000);
    let near = format!("{long}x");
    let series = sorted([
        Labels::empty(),
        Labels::from_pairs([("a", long.as_str())]),
        Labels::from_pairs([("a", near.as_str()), (METRIC_NAME, "\u{10ffff}")]),
        Labels::from_pairs([("a", "\u{10ffff}\u{10ffff}"), (METRIC_NAME, "m")]),
        Labels::from_pairs([("a", "\u{d7ff}b"), (METRIC_NAME, "m")]),
    ]);
    let index = open(encode(&series));
    let all: RoaringBitmap = (0..5).collect();
    assert_eq!(index.labels(&all).expect("sound"), series);
    for value in ["\u{10ffff}.*", "\u{d7ff}.*", "\u{e9}.*", "\u{e9}.+x"] {
        let compiled = [CompiledMatcher::new(&Matcher::new("a", MatchOp::Regex, value)).expect("valid")];
        let found = index.select(&compiled).expect("sound");
        assert_eq!(found.iter().collect::<Vec<_>>(), brute(&series, &compiled), "{value}");
        assert!(!found.is_empty());
    }
}
