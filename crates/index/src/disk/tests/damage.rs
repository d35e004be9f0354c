//! Damaged indexes: errors that name the place, never a panic, never a wrong answer.

use super::*;
use crate::test_support::Unchecked;

/// Everything an index can be asked.
fn ask<S: SectionRead>(index: &DiskIndex<S>) -> Result<(), DiskIndexError> {
    for (name, op, value) in [
        ("pod", MatchOp::Regex, "pod-0.*"),
        ("pod", MatchOp::Regex, ".*a.*"),
        ("ns", MatchOp::NotEqual, "ns-1"),
        ("kind", MatchOp::Equal, ""),
        (METRIC_NAME, MatchOp::Equal, "metric_01"),
    ] {
        let compiled = [CompiledMatcher::new(&Matcher::new(name, op, value)).expect("valid")];
        let found = index.select(&compiled)?;
        index.label_names(Some(&found))?;
        index.label_values("ns", Some(&found))?;
    }
    for name in index.label_names(None)? {
        let compiled =
            CompiledMatcher::new(&Matcher::new(&name, MatchOp::Regex, "(?i).*[0-9A-C]")).expect("valid");
        index.select(&[compiled])?;
    }
    let mut total = 0u64;
    index.for_each_pair(&mut |pair| total = total.wrapping_add(pair.count))?;
    index.for_each_metric(&mut |_, ids| total = total.wrapping_add(u64::from(ids.end)))?;
    index.series(0..index.len()).try_for_each(|labels| labels.map(drop))?;
    index.verify()
}

const SECTIONS: [IndexSection; 4] =
    [IndexSection::Directory, IndexSection::Dictionaries, IndexSection::Postings, IndexSection::Forward];

fn section_mut(index: &mut EncodedIndex, section: IndexSection) -> &mut Vec<u8> {
    match section {
        IndexSection::Directory => &mut index.directory,
        IndexSection::Dictionaries => &mut index.dictionaries,
        IndexSection::Postings => &mut index.postings,
        IndexSection::Forward => &mut index.forward,
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let series = fleet(4, 60);
    let sound = encode(&series);
    for section in SECTIONS {
        let len = section_mut(&mut sound.clone(), section).len();
        assert!(len > 0, "{section} is not tested");
        for at in 0..len {
            let mut damaged = sound.clone();
            section_mut(&mut damaged, section)[at] ^= 1 << (at % 8);
            let (directory, sections) = MemorySections::new(damaged);
            let answer = DiskIndex::open(&directory, sections).and_then(|index| ask(&index));
            match answer.expect_err("a flipped bit") {
                DiskIndexError::Checksum { section: found, offset, .. }
                | DiskIndexError::Malformed { section: found, offset, .. }
                | DiskIndexError::Field { section: found, offset, .. } => {
                    assert_eq!(found, section);
                    assert!(offset <= at as u64);
                }
                DiskIndexError::Version { .. } => assert_eq!((section, at), (IndexSection::Directory, 0)),
                other => panic!("{section} {at}: {other}"),
            }
        }
    }
}

#[test]
fn every_truncation_is_found() {
    let sound = encode(&fleet(3, 40));
    for section in SECTIONS {
        let len = section_mut(&mut sound.clone(), section).len();
        for keep in 0..len {
            let mut cut = sound.clone();
            section_mut(&mut cut, section).truncate(keep);
            let (directory, sections) = MemorySections::new(cut);
            let answer = DiskIndex::open(&directory, sections).and_then(|index| ask(&index));
            assert!(answer.is_err(), "{section} cut at {keep}");
        }
    }
}

/// Behind the checksums there are checks too: whatever is read, nothing panics.
#[test]
fn without_checksums_nothing_panics() {
    let sound = encode(&fleet(4, 60));
    let mut errors = 0;
    for section in SECTIONS {
        let len = section_mut(&mut sound.clone(), section).len();
        for at in 0..len {
            for value in [0x00, 0x01, 0x7f, 0xff] {
                let mut damaged = sound.clone();
                section_mut(&mut damaged, section)[at] = value;
                let (directory, sections) = MemorySections::new(damaged);
                let answer = DiskIndex::open(&directory, Unchecked(sections)).and_then(|index| ask(&index));
                errors += u32::from(answer.is_err());
            }
        }
    }
    assert!(errors > 0, "some damage is seen without checksums too");
}

proptest! {
    #[test]
    fn garbage_never_panics(
        series in prop::collection::vec(any_labels(), 1..30),
        changes in prop::collection::vec((0..4usize, any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut index = encode(&sorted(series));
        for (section, at, value) in changes {
            let bytes = section_mut(&mut index, SECTIONS[section]);
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let (directory, sections) = MemorySections::new(index);
        let _ = DiskIndex::open(&directory, Unchecked(sections)).and_then(|index| ask(&index));
    }
}
