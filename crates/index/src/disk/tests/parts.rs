//! Lists and columns by themselves.

use proptest::prelude::*;

use crate::disk::{
    IndexSection, column,
    list::{self, RowSet, RowUnion},
    section::{self, Place},
};

const PLACE: Place = Place { section: IndexSection::Postings, offset: 7 };

/// Rows with runs, gaps and dense stretches.
fn any_rows() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec((0..400_u32, 1..200_u32, 1..4_u32), 0..60).prop_map(|runs| {
        let mut rows = Vec::new();
        let mut next = 0;
        for (gap, len, step) in runs {
            next += gap;
            for _ in 0..len {
                rows.push(next);
                next += step;
            }
        }
        rows
    })
}

fn any_codes() -> impl Strategy<Value = Vec<u32>> {
    let run = prop_oneof![
        (0..70_000_u32, 1..300_usize).prop_map(|(code, len)| vec![code; len]),
        prop::collection::vec(0..100_u32, 1..300),
        (0..60_000_u32, 1..300_u32).prop_map(|(first, len)| (first..first + len).collect()),
        prop::collection::vec(any::<u32>().prop_map(|code| code >> 3), 1..3),
    ];
    prop::collection::vec(run, 1..10).prop_map(|runs| {
        let mut codes = runs.concat();
        codes.truncate(column::SEGMENT_ROWS as usize);
        codes
    })
}

proptest! {
    #[test]
    fn lists_come_back(rows in any_rows(), asked in any_rows()) {
        let mut bytes = Vec::new();
        let roaring = list::encode(&rows, &mut bytes);
        let max = rows.last().map_or(0, |last| last + 1);
        let mut set = RowSet::default();
        let count = list::for_each_run(&bytes, roaring, max, PLACE, |first, len| set.push(first, len));
        prop_assert_eq!(count.expect("sound") as usize, rows.len());
        for expected in [0, u64::MAX] {
            let mut union = RowUnion::new(max, expected);
            list::union_into(&bytes, roaring, max, PLACE, &mut union).expect("sound");
            prop_assert_eq!(union.finish().iter().collect::<Vec<_>>(), rows.clone());
        }
        if max > 0 {
            let refused = list::for_each_run(&bytes, roaring, max - 1, PLACE, |_, _| ());
            prop_assert!(refused.is_err());
        }
        let ranks: Vec<u32> = (0..).zip(&rows).filter(|(_, row)| asked.binary_search(row).is_ok()).map(|(r, _)| r).collect();
        prop_assert_eq!(set.ranks_of(&asked), ranks.clone());
        prop_assert_eq!(set.intersects(&asked.iter().copied().collect()), !ranks.is_empty());
        let mut found = Vec::new();
        set.rows_of(ranks.iter().copied().chain([u32::MAX]), |row| found.push(row));
        prop_assert_eq!(found, ranks.iter().map(|rank| rows[*rank as usize]).collect::<Vec<_>>());
    }

    #[test]
    fn columns_come_back(codes in any_codes()) {
        let mut bytes = Vec::new();
        column::encode(&codes, &mut bytes);
        prop_assert!(bytes.len() <= column::COLUMN_BYTES_MAX);
        let most = codes.iter().copied().max().unwrap_or_default();
        prop_assert_eq!(column::decode(&bytes, codes.len() as u32, most, PLACE).expect("sound"), codes.clone());
        if most > 0 {
            prop_assert!(column::decode(&bytes, codes.len() as u32, most - 1, PLACE).is_err());
        }
    }

    #[test]
    fn units_come_back(content in prop::collection::vec(0..4_u8, 0..2_000), at in any::<prop::sample::Index>()) {
        let mut unit = Vec::new();
        let len = section::seal(&content, &mut unit);
        prop_assert_eq!(len, unit.len());
        prop_assert_eq!(section::open(&unit, content.len(), PLACE, true).expect("sound"), content.clone());
        if !content.is_empty() {
            prop_assert!(section::open(&unit, content.len() - 1, PLACE, true).is_err());
        }
        let at = at.index(unit.len());
        unit[at] ^= 4;
        let error = section::open(&unit, content.len(), PLACE, true).expect_err("a flipped bit").to_string();
        prop_assert!(error.starts_with("index postings: unit at offset 7: checksum "), "{}", error);
    }
}
