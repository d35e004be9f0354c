//! The index of a block: whatever its bytes, with and without checksums, opening and asking end in an answer or an
//! error; an index of our own answers like a look at every series.
#![no_main]

use chronolith_index::{
    CompiledMatcher, DiskIndex, DiskIndexError, EncodedIndex, IndexWriter, MemorySections, SectionRead,
    test_support::Unchecked,
};
use chronolith_model::{Labels, MatchOp, Matcher};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    match mode & 3 {
        0 => write(data),
        1 => read(data, |sections| sections),
        _ => read(data, Unchecked),
    }
});

/// Four sections, each behind its length as two bytes.
fn read<S: SectionRead>(mut data: &[u8], wrap: impl Fn(MemorySections) -> S) {
    let mut section = || {
        let (len, rest) = data
            .split_first_chunk::<2>()
            .map_or((0, data), |(len, rest)| (usize::from(u16::from_le_bytes(*len)), rest));
        let (section, rest) = rest.split_at(len.min(rest.len()));
        data = rest;
        section.to_vec()
    };
    let (directory, dictionaries, postings, forward) = (section(), section(), section(), section());
    let (directory, sections) =
        MemorySections::new(EncodedIndex { directory, dictionaries, postings, forward });
    // A directory of a few bytes may claim millions of series; going through them is no finding.
    if let Ok(index) = DiskIndex::open(&directory, wrap(sections))
        && index.len() <= 100_000
    {
        let _ = ask(&index);
    }
}

fn matchers() -> Vec<CompiledMatcher> {
    let matchers = [
        ("a", MatchOp::Equal, "1"),
        ("a", MatchOp::NotEqual, "1"),
        ("b", MatchOp::Regex, "x.*"),
        ("b", MatchOp::NotRegex, ".*y.*"),
        ("b", MatchOp::Regex, "|x|y"),
        ("__name__", MatchOp::NotEqual, "m"),
        ("__name__", MatchOp::Regex, ".*[a-m]"),
    ];
    matchers
        .into_iter()
        .map(|(name, op, value)| CompiledMatcher::new(&Matcher::new(name, op, value)).expect("valid"))
        .collect()
}

fn ask<S: SectionRead>(index: &DiskIndex<S>) -> Result<(), DiskIndexError> {
    let matchers = matchers();
    for pair in matchers.windows(2) {
        let found = index.select(pair)?;
        index.label_names(Some(&found))?;
        index.label_values("b", Some(&found))?;
        // A few: a small index may claim many series.
        index.labels(&found.iter().take(5_000).collect())?;
    }
    let mut pairs = 0;
    index.for_each_pair(&mut |_| pairs += 1)?;
    index.for_each_metric(&mut |_, ids| assert!(ids.start <= ids.end))?;
    assert!(pairs <= index.pairs_count());
    index.series(0..5_000).try_for_each(|labels| labels.map(drop))
}

/// Lines of `name=value` pairs, each a series.
fn write(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut series: Vec<Labels> = text
        .lines()
        .take(500)
        .map(|line| Labels::from_pairs(line.split(',').filter_map(|pair| pair.split_once('='))))
        .collect();
    let key = |labels: &Labels| (labels.metric_name().unwrap_or_default().to_owned(), labels.clone());
    series.sort_by_cached_key(key);
    series.dedup();
    let mut writer = IndexWriter::new();
    for (id, labels) in (0..).zip(&series) {
        assert_eq!(writer.add(labels), Ok(id));
    }
    let (directory, sections) = MemorySections::new(writer.finish());
    let index = DiskIndex::open(&directory, sections).expect("an index of our own");
    let walked: Vec<Labels> = index.series(0..index.len()).map(|labels| labels.expect("sound")).collect();
    assert_eq!(walked, series);
    for pair in matchers().windows(2) {
        let meets =
            |labels: &Labels| pair.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or_default()));
        let expected: Vec<u32> =
            (0..).zip(&series).filter(|(_, labels)| meets(labels)).map(|(id, _)| id).collect();
        assert_eq!(index.select(pair).expect("sound").iter().collect::<Vec<_>>(), expected);
    }
}
