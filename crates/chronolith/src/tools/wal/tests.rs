//! Segments and what their links say.

use chronolith_wal::inspect::SegmentSummary;
use std::path::PathBuf;

use super::segments::{Found, Segments};

const DIR: &str = "/data/wal";

/// Segment `number` of 1000 bytes behind `previous`, which ends at `previous_end`.
fn segment(number: u32, previous: u32, previous_end: u64) -> SegmentSummary {
    SegmentSummary {
        number,
        bytes: 1000,
        header_intact: true,
        version: 2,
        previous,
        previous_end,
        continues: true,
    }
}

fn headless(number: u32, bytes: u64) -> SegmentSummary {
    SegmentSummary { header_intact: false, bytes, ..segment(number, 0, 0) }
}

/// `number:end` of each, `v` behind void ones and `l` behind the last; then the damage.
#[track_caller]
fn check(summaries: &[SegmentSummary], found: &str, damage: &str) {
    let path = |number: u32| PathBuf::from(DIR).join(format!("{number:08}.wal"));
    let found_summaries = summaries.iter().map(|s| Found::new(path(s.number), Some(*s)));
    let mut segments = Segments { found: found_summaries.collect(), damage: Vec::new() };
    segments.link(DIR.as_ref());
    let shown = segments.found.iter().map(|found| {
        let number = found.summary.map_or(0, |summary| summary.number);
        let marks = [("v", found.void), ("l", found.last)];
        let marks: String = marks.iter().filter(|(_, set)| *set).map(|(mark, _)| *mark).collect();
        format!("{number}:{}{marks}", found.end)
    });
    assert_eq!(shown.collect::<Vec<_>>().join(" "), found);
    let damaged =
        segments.damage.iter().map(|place| format!("{} {} {}", place.file, place.reason, place.bytes));
    assert_eq!(damaged.collect::<Vec<_>>().join(", "), damage);
}

#[test]
fn a_segment_says_where_the_one_before_ends() {
    check(&[segment(3, 2, 7), segment(4, 3, 900)], "3:900 4:1000l", "");
    check(&[segment(3, 0, 0), segment(4, 3, 2000)], "3:1000 4:1000l", "");
}

#[test]
fn attempts_between_a_segment_and_the_one_before_are_void() {
    check(&[segment(1, 0, 0), segment(2, 1, 500), segment(3, 1, 600)], "1:500 2:1000v 3:1000l", "");
    check(&[segment(1, 0, 0), headless(2, 1000), segment(3, 1, 600)], "1:600 2:1000v 3:1000l", "");
}

#[test]
fn a_missing_segment_is_damage_unless_it_was_the_oldest() {
    check(&[segment(2, 1, 10)], "2:1000l", "");
    check(
        &[segment(1, 0, 0), segment(3, 2, 10)],
        "1:1000 3:1000l",
        "/data/wal/00000002.wal missing_segment 0",
    );
}

#[test]
fn a_header_is_damaged_unless_it_is_just_being_written() {
    check(&[headless(1, 1000)], "1:1000l", "/data/wal/00000001.wal segment_header 40");
    check(&[segment(1, 0, 0), headless(2, 17)], "1:1000l 2:17l", "");
    check(&[headless(1, 17), segment(2, 1, 17)], "1:17 2:1000l", "/data/wal/00000001.wal segment_header 17");
}
