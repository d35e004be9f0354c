//! Plans by example; properties are in the integration tests.

use super::*;
use crate::{Priorities, debt};

const H: i64 = 3_600_000;
const MIB: u64 = 1 << 20;

/// A block of hours `(from, to]`, with `priority` for its id and priority.
fn block(priority: u64, from: i64, to: i64) -> BlockInfo {
    BlockInfo {
        id: BlockId(u128::from(priority)),
        range: BlockRange::new(from * H, to * H).expect("not empty"),
        level: 1,
        bytes: MIB,
        samples: 1000,
        series: 10,
        parts: 1,
        priorities: Priorities::one(priority),
        tombstones: 0,
        deleted_samples: 0,
        shipped: false,
        availability: Availability::Free,
    }
}

/// Whole windows of 2 h up to hour `to`, numbered from 1.
fn day(to: i64) -> Vec<BlockInfo> {
    (0..to / 2).map(|i| block(i as u64 + 1, 2 * i, 2 * i + 2)).collect()
}

fn deleted(block: BlockInfo, samples: u64) -> BlockInfo {
    BlockInfo { tombstones: 1, deleted_samples: samples, ..block }
}

fn with(availability: Availability, block: BlockInfo) -> BlockInfo {
    BlockInfo { availability, ..block }
}

/// `inputs reason (from, to] h`, or nothing.
#[track_caller]
fn check_with(blocks: &[BlockInfo], options: &PlanOptions, expected: &str) {
    let got = plan(blocks, options).map_or_else(String::new, |plan| {
        let inputs: Vec<String> = plan.inputs.iter().map(|id| id.0.to_string()).collect();
        let reason = match plan.reason {
            Reason::Level { window_ms } => format!("level {}h", window_ms / H),
            reason => format!("{reason:?}").to_lowercase(),
        };
        format!("{} {reason} ({}, {}]", inputs.join("+"), plan.range.min() / H, plan.range.max() / H)
    });
    assert_eq!(got, expected);
}

#[track_caller]
fn check(blocks: &[BlockInfo], expected: &str) {
    check_with(blocks, &PlanOptions::default(), expected);
}

fn to_the_end() -> PlanOptions {
    PlanOptions { settled: Some(i64::MAX), ..PlanOptions::default() }
}

#[test]
fn a_window_is_merged_when_a_block_stands_behind_it() {
    check(&[], "");
    check(&day(2), "");
    check(&day(8), "");
    check(&day(10), "1+2+3+4 level 8h (0, 8]");
    // Whatever is missing: what has not come in time will come late.
    check(&[block(1, 0, 2), block(2, 4, 6), block(3, 8, 10)], "1+2 level 8h (0, 6]");
    check(&[block(1, 0, 2), block(2, 100, 102)], "");
    // Not the newest window, be there no late samples at all, unless it is said to be whole.
    let in_time = PlanOptions { late_ms: 0, ..PlanOptions::default() };
    check_with(&day(8), &in_time, "");
    check_with(&[block(1, 0, 1), block(2, 1, 2)], &in_time, "");
    check_with(&[block(1, 0, 1), block(2, 1, 2), block(3, 2, 3)], &in_time, "1+2 level 2h (0, 2]");
    check_with(&day(8), &to_the_end(), "1+2+3+4 level 24h (0, 8]");
    check_with(&day(4), &PlanOptions { settled: Some(4 * H), ..PlanOptions::default() }, "");
    check_with(
        &day(8),
        &PlanOptions { settled: Some(8 * H), ..PlanOptions::default() },
        "1+2+3+4 level 8h (0, 8]",
    );
}

#[test]
fn the_longest_window_that_is_whole_comes_first() {
    check(&day(26), "1+2+3+4+5+6+7+8+9+10+11+12 level 24h (0, 24]");
    let mut blocks = day(26);
    blocks.drain(..8);
    blocks.extend([block(20, 0, 8), block(21, 8, 16)]);
    check(&blocks, "9+10+11+12+20+21 level 24h (0, 24]");
    // With two days behind, the older one.
    check(&day(50), "1+2+3+4+5+6+7+8+9+10+11+12 level 24h (0, 24]");
}

#[test]
fn pieces_of_one_window_are_merged() {
    check(&[block(1, 0, 1), block(2, 1, 2), block(3, 2, 4)], "1+2 level 2h (0, 2]");
}

#[test]
fn late_samples_are_waited_for() {
    let a_day = PlanOptions { late_ms: 24 * H, ..PlanOptions::default() };
    check_with(&day(30), &a_day, "");
    check_with(&day(32), &a_day, "1+2+3+4 level 8h (0, 8]");
    // Overlaps too, until there are many of them.
    let mut blocks = day(10);
    for late in 0..OVERLAPPING_MAX as u64 - 1 {
        check_with(&blocks, &a_day, "");
        blocks.push(block(10 + late, 2, 4));
    }
    check_with(&blocks, &a_day, "2+10+11+12+13+14+15+16 overlap (2, 4]");
}

#[test]
fn overlapping_blocks_come_first_and_all_of_them() {
    let mut blocks = day(26);
    blocks.push(block(14, 2, 4));
    check(&blocks, "2+14 overlap (2, 4]");
    // In the order of priority, not of time or id; 9 hangs on by 4.
    let late = BlockInfo { id: BlockId(1), ..block(9, 6, 12) };
    let blocks = [block(3, 0, 2), block(7, 2, 8), late, block(4, 11, 13), block(5, 13, 14), block(6, 20, 22)];
    check(&blocks, "4+7+1 overlap (2, 13]");
    // One that is there twice is there once.
    check(&[block(1, 0, 2), block(2, 0, 2), block(1, 0, 2), block(3, 2, 4)], "1+2 overlap (0, 2]");
    check(&[block(1, 0, 2), block(2, 2, 4), block(1, 0, 2)], "");
    // Not what only touches.
    check(&[block(1, 0, 2), block(2, 2, 4), block(3, 4, 6)], "");
}

#[test]
fn many_overlapping_blocks_are_merged_in_turns_that_leave_nothing_out_between() {
    let three = PlanOptions { inputs_max: 3, settled: Some(i64::MAX), ..PlanOptions::default() };
    let blocks: Vec<_> = [5, 3, 9, 1, 7].map(|priority| block(priority, 0, 2)).into();
    check_with(&blocks, &three, "1+3+5 overlap (0, 2]");
    // The second has a part of number 8: what is between goes along.
    let mut blocks = blocks;
    blocks[1].priorities.highest = 8;
    check_with(&blocks, &three, "1+3+5+7 overlap (0, 2]");
    // Equal numbers are not parted.
    let blocks: Vec<_> =
        (1..=5).map(|id| BlockInfo { id: BlockId(id), ..block(if id < 3 { 1 } else { 2 }, 0, 2) }).collect();
    check_with(&blocks, &PlanOptions { inputs_max: 2, ..three.clone() }, "1+2 overlap (0, 2]");
    check_with(&blocks, &three, "1+2+3+4+5 overlap (0, 2]");
}

#[test]
fn what_is_held_or_busy_takes_no_part() {
    for availability in [Availability::Held, Availability::Busy] {
        // An overlap cannot do without it.
        let late = with(availability, block(14, 2, 4));
        let mut blocks = day(12);
        blocks.push(late);
        check(&blocks, "");
        // Other windows are merged.
        let mut blocks = day(26);
        blocks[9] = with(availability, blocks[9].clone());
        check(&blocks, "1+2+3+4 level 8h (0, 8]");
        let blocks = [with(availability, deleted(block(1, 0, 2), 1000)), block(2, 2, 4)];
        check(&blocks, "");
    }
}

#[test]
fn much_deleted_is_rewritten() {
    check(&[deleted(block(1, 0, 2), 99), block(2, 2, 4)], "");
    check(&[deleted(block(1, 0, 2), 100), block(2, 2, 4)], "1 tombstones (0, 2]");
    // The one that frees most.
    check(&[deleted(block(1, 0, 2), 100), deleted(block(2, 2, 4), 500)], "2 tombstones (2, 4]");
    // A merge that is due frees it as well.
    let mut blocks = day(10);
    blocks[1] = deleted(blocks[1].clone(), 500);
    check(&blocks, "1+2+3+4 level 8h (0, 8]");
    blocks[4] = deleted(blocks[4].clone(), 900);
    check(&blocks, "5 tombstones (8, 10]");
    // All tombstones, when they are to be cleaned.
    let clean = PlanOptions { tombstone_share_permille: 0, ..PlanOptions::default() };
    check_with(&[deleted(block(1, 0, 2), 0), block(2, 2, 4)], &clean, "1 tombstones (0, 2]");
    check_with(&[block(1, 0, 2), block(2, 2, 4)], &clean, "");
    check(&[BlockInfo { samples: 0, ..deleted(block(1, 0, 2), 0) }, block(2, 2, 4)], "");
}

#[test]
fn sizes_limit_what_is_merged() {
    let limit = PlanOptions { output_bytes_max: 4 * MIB, ..PlanOptions::default() };
    check_with(&day(26), &limit, "1+2+3+4 level 8h (0, 8]");
    let limit = PlanOptions { output_bytes_max: 3 * MIB, ..PlanOptions::default() };
    check_with(&day(26), &limit, "");
    let few = PlanOptions { inputs_max: 4, ..PlanOptions::default() };
    check_with(&day(26), &few, "1+2+3+4 level 8h (0, 8]");
    // No shorter windows to begin with: neighbours.
    let few = PlanOptions { inputs_max: 2, ..PlanOptions::default() };
    check_with(&[block(1, 0, 1), block(2, 1, 2), block(3, 2, 4)], &few, "1+2 level 2h (0, 2]");
    // Overlaps do not mind the limit of outputs, but space is space.
    let overlap = [block(1, 0, 2), block(2, 0, 2), block(3, 2, 4)];
    let limit = PlanOptions { output_bytes_max: 1, ..PlanOptions::default() };
    check_with(&overlap, &limit, "1+2 overlap (0, 2]");
    let full = PlanOptions { space_bytes: 2 * MIB - 1, ..PlanOptions::default() };
    check_with(&overlap, &full, "");
    check_with(&day(10), &full, "");
    check_with(&[deleted(block(1, 0, 2), 900)], &PlanOptions { space_bytes: 1, ..full }, "");
}

#[test]
fn what_retention_will_drop_is_left_alone() {
    let floor = PlanOptions { floor: 4 * H + 1, ..PlanOptions::default() };
    check_with(&day(10), &floor, "3+4 level 8h (4, 8]");
    // One that still has a millisecond is kept, and compacted.
    let floor_inside = PlanOptions { floor: 4 * H, ..PlanOptions::default() };
    check_with(&day(10), &floor_inside, "2+3+4 level 8h (2, 8]");
    check_with(&[block(1, 0, 2), block(2, 0, 2), block(3, 8, 10)], &floor, "");
}

#[test]
fn a_plan_tells_what_comes_out() {
    let mut blocks = day(26);
    let planned = |blocks: &[BlockInfo]| plan(blocks, &PlanOptions::default()).expect("a plan");
    let plan = planned(&blocks);
    assert_eq!((plan.level, plan.bytes, plan.parts), (2, 12 * MIB, 12));
    blocks[3].level = 7;
    blocks[3].parts = 6;
    blocks[5].bytes = u64::MAX;
    let plan = planned(&blocks[..5]);
    assert_eq!((plan.level, plan.parts), (8, 9));
    blocks[5].bytes = 1;
    let plan = planned(&blocks);
    assert_eq!((plan.bytes, plan.parts), (11 * MIB + 1, 1), "17 parts are encoded anew");
    let predicted = BlockInfo::predicted(BlockId(99), &plan, &blocks[..12].iter().collect::<Vec<_>>());
    assert_eq!(predicted.samples, 12_000);
    blocks[3] = deleted(blocks[3].clone(), 400);
    let rest = BlockInfo::predicted(BlockId(99), &plan, &blocks[..12].iter().collect::<Vec<_>>());
    assert_eq!((rest.samples, rest.tombstones, rest.deleted_samples), (11_600, 0, 0));
    assert_eq!(predicted.priorities, Priorities { lowest: 1, highest: 12 });
    assert_eq!((predicted.range, predicted.level, predicted.parts), (plan.range, 8, 1));
}

#[test]
fn debt_is_all_that_is_due() {
    assert_eq!(debt(&day(8), &PlanOptions::default()), crate::Debt::default());
    // A day; and of the next one the first 8 h.
    let debt = debt(&day(34), &PlanOptions::default());
    assert_eq!((debt.plans, debt.bytes), (2, 16 * MIB));
}

#[test]
fn nothing_overflows_at_the_ends() {
    let ends = [
        BlockRange::new(i64::MIN, i64::MAX),
        BlockRange::new(i64::MIN, i64::MIN + 1),
        BlockRange::new(i64::MAX - 1, i64::MAX),
    ];
    let mut blocks: Vec<BlockInfo> = Vec::new();
    for (id, range) in ends.into_iter().enumerate() {
        let (level, parts, priority) = (u32::MAX, u32::MAX, u64::MAX - id as u64);
        let range = range.expect("not empty");
        let most = BlockInfo { range, level, parts, bytes: u64::MAX, ..block(priority, 0, 1) };
        blocks.push(BlockInfo { samples: u64::MAX, tombstones: u64::MAX, deleted_samples: u64::MAX, ..most });
    }
    for settled in [None, Some(i64::MIN), Some(i64::MAX)] {
        for late_ms in [i64::MIN, 0, i64::MAX] {
            let options = PlanOptions {
                settled,
                late_ms,
                inputs_max: 0,
                output_bytes_max: u64::MAX,
                ..PlanOptions::default()
            };
            let _ = plan(&blocks, &options);
            let _ = plan(&blocks[1..], &options);
            let _ = debt(&blocks, &options);
        }
    }
}
