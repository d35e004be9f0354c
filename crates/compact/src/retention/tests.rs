//! What goes and what stays.

use super::*;
use crate::{BlockRange, Priorities};

/// A block `(10 * n, 10 * (n + 1)]` of `bytes` bytes.
fn block(n: u8, bytes: u64) -> BlockInfo {
    let start = i64::from(n) * 10;
    BlockInfo {
        id: BlockId(u128::from(n)),
        range: BlockRange::new(start, start + 10).expect("not empty"),
        level: 1,
        bytes,
        samples: 1,
        series: 1,
        parts: 1,
        priorities: Priorities::one(u64::from(n)),
        tombstones: 0,
        deleted_samples: 0,
        shipped: true,
        availability: Availability::Free,
    }
}

const KEEP_ALL: RetentionOptions =
    RetentionOptions { now: 100, age_ms_max: None, bytes_max: None, other_bytes: 0, shipping: false };

fn five() -> Vec<BlockInfo> {
    (0..5).map(|n| block(n, 100)).collect()
}

/// Ids with the first letter of the reason; then bytes over and overdue blocks.
#[track_caller]
fn check(blocks: &[BlockInfo], options: &RetentionOptions, dropped: &str, rest: (u64, usize)) {
    for blocks in [blocks.to_vec(), blocks.iter().rev().cloned().collect()] {
        let got = retention(&blocks, options);
        let text = got.drop.iter().map(|drop| format!("{}{:?}", drop.id.0, drop.reason));
        let text: Vec<String> = text.map(|text| text[..2].to_owned()).collect();
        assert_eq!((text.join(" ").as_str(), (got.bytes_over, got.overdue)), (dropped, rest));
    }
}

#[test]
fn by_age_only_when_all_of_a_block_is_older() {
    check(&five(), &KEEP_ALL, "", (0, 0));
    // The block (10, 20] has a millisecond at 20, which is kept until it is older than 80.
    check(&five(), &RetentionOptions { age_ms_max: Some(80), ..KEEP_ALL }, "0A", (0, 0));
    check(&five(), &RetentionOptions { age_ms_max: Some(79), ..KEEP_ALL }, "0A 1A", (0, 0));
    check(&five(), &RetentionOptions { age_ms_max: Some(0), ..KEEP_ALL }, "0A 1A 2A 3A 4A", (0, 0));
    let least = RetentionOptions { now: i64::MIN, age_ms_max: Some(i64::MAX), ..KEEP_ALL };
    check(&five(), &least, "", (0, 0));
}

#[test]
fn by_size_the_oldest_goes_first() {
    let limit = |bytes| RetentionOptions { bytes_max: Some(bytes), ..KEEP_ALL };
    check(&five(), &limit(500), "", (0, 0));
    check(&five(), &limit(499), "0S", (0, 0));
    check(&five(), &RetentionOptions { other_bytes: 150, ..limit(499) }, "0S 1S", (0, 0));
    check(&five(), &RetentionOptions { other_bytes: 500, ..limit(499) }, "0S 1S 2S 3S 4S", (1, 0));
    // What goes by age makes room.
    check(&five(), &RetentionOptions { age_ms_max: Some(79), ..limit(299) }, "0A 1A 2S", (0, 0));
    check(&[block(1, u64::MAX), block(2, u64::MAX)], &limit(5), "1S 2S", (0, 0));
}

#[test]
fn what_is_not_shipped_stays_when_it_is_to_be() {
    let mut blocks = five();
    blocks[0].shipped = false;
    blocks[2].shipped = false;
    let options = RetentionOptions { bytes_max: Some(299), age_ms_max: Some(85), ..KEEP_ALL };
    check(&blocks, &options, "0A 1S 2S", (0, 0));
    let shipping = RetentionOptions { shipping: true, ..options };
    check(&blocks, &shipping, "1S 3S 4S", (0, 1));
    let shipping = RetentionOptions { bytes_max: Some(199), ..shipping };
    check(&blocks, &shipping, "1S 3S 4S", (1, 1));
}

#[test]
fn what_is_at_work_stays_and_nothing_newer_goes_for_it() {
    let mut blocks = five();
    blocks[1].availability = Availability::Busy;
    check(&blocks, &RetentionOptions { bytes_max: Some(299), ..KEEP_ALL }, "0S", (101, 0));
    check(&blocks, &RetentionOptions { age_ms_max: Some(69), ..KEEP_ALL }, "0A 2A", (0, 0));
    // Held only means that it is not compacted.
    blocks[1].availability = Availability::Held;
    check(&blocks, &RetentionOptions { bytes_max: Some(299), ..KEEP_ALL }, "0S 1S 2S", (0, 0));
}
