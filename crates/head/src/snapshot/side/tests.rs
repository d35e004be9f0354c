//! Sections of starts and exemplars: what was written comes back, and nothing else is taken.

use proptest::prelude::*;

use super::*;

fn exemplar(timestamp: i64, value: f64, trace: &str) -> Exemplar {
    Exemplar { labels: Labels::from_pairs([("trace_id", trace)]), value, timestamp }
}

fn series(number: u8) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("id", number.to_string())])
}

#[test]
fn exemplars_are_split_into_sections_that_stand_alone() {
    let kept: Kept = (0..100).map(|at| (series(at % 3), exemplar(i64::from(at), 0.5, "abc"))).collect();
    let (mut rest, mut back, mut sections) = (&kept[..], Vec::new(), 0);
    while !rest.is_empty() {
        let mut content = Vec::new();
        let count = encode_exemplars("t", rest, 300, &mut content);
        assert!(count > 0 && content.len() < 400, "{count} in {} bytes", content.len());
        let (tenant, some) = decode_exemplars(&content).unwrap();
        assert_eq!((tenant.as_str(), some.len()), ("t", count));
        back.extend(some);
        rest = &rest[count..];
        sections += 1;
    }
    assert_eq!(back, kept);
    assert!(sections > 5);
}

type Kept = Vec<(Labels, Exemplar)>;

proptest! {
    #[test]
    fn starts_round_trip(given in proptest::collection::btree_map(0_u32..5000, proptest::collection::btree_map(any::<i64>(), any::<i64>(), 1..5), 0..20)) {
        let mut writer = StartsWriter::default();
        let mut want = Vec::new();
        for (slot, steps) in given {
            let steps: Vec<_> = steps.into_iter().map(|(since, start)| StartTimestamp { since, start }).collect();
            writer.add(slot, &steps);
            want.push((slot, steps));
        }
        let mut content = Vec::new();
        writer.finish(&mut content);
        prop_assert_eq!(decode_starts(&content), Ok(want));
        prop_assert_eq!(writer.bytes(), 0);
        for len in 0..content.len() {
            prop_assert!(decode_starts(&content[..len]).is_err());
        }
    }

    #[test]
    fn exemplars_round_trip(given in proptest::collection::vec((any::<u8>(), any::<i64>(), any::<u64>(), "[a-z\u{e9}]{0,9}"), 0..30)) {
        let kept: Kept = given.iter().map(|(of, t, bits, trace)| (series(*of), exemplar(*t, f64::from_bits(*bits), trace))).collect();
        let mut content = Vec::new();
        prop_assert_eq!(encode_exemplars("anonymous", &kept, usize::MAX, &mut content), kept.len());
        let (tenant, back) = decode_exemplars(&content).unwrap();
        prop_assert_eq!((tenant.as_str(), back.len()), ("anonymous", kept.len()));
        prop_assert!(back.iter().zip(&kept).all(|(a, b)| a.0 == b.0 && a.1.same(&b.1)));
        for len in 0..content.len() {
            prop_assert!(decode_exemplars(&content[..len]).is_err());
        }
    }

    #[test]
    fn arbitrary_sections_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_starts(&bytes);
        let mut content = vec![1, b't'];
        content.extend(&bytes);
        let _ = decode_exemplars(&content);
    }
}
