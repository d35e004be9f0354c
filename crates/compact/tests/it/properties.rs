//! What holds for any blocks in any order of arrival.

use chronolith_compact::{
    Availability, BASE_WINDOW_MS, BlockInfo, BlockRange, Levels, Plan, PlanOptions, Reason, plan,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::model::{Store, range};

/// Levels small enough that a sample stands at every millisecond.
const LEVELS: [i64; 4] = [4, 16, 48, 144];

#[derive(Clone, Debug)]
enum Step {
    /// The next window is cut; some are empty, some cut in two.
    Cut { skip: u8, halves: bool },
    /// Late samples of a window some way back.
    Late { back: u8, mask: u8 },
    /// Somebody's block of any time.
    Import { start: u16, len: u16, every: u8 },
    /// Samples of a block are deleted.
    Delete { block: Index, share: u8 },
    /// A block is taken, or given back.
    Hold { block: Index, availability: u8 },
    /// So many plans are carried out.
    Compact { plans: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_u8, any::<bool>()).prop_map(|(skip, halves)| Step::Cut { skip: skip / 2, halves }),
        3 => (0..20_u8, any::<u8>()).prop_map(|(back, mask)| Step::Late { back, mask }),
        1 => (0..300_u16, 1..60_u16, 1..5_u8).prop_map(|(start, len, every)| Step::Import { start, len, every }),
        1 => (any::<Index>(), 0..=100_u8).prop_map(|(block, share)| Step::Delete { block, share }),
        1 => (any::<Index>(), 0..3_u8).prop_map(|(block, availability)| Step::Hold { block, availability }),
        4 => (0..6_u8).prop_map(|plans| Step::Compact { plans }),
    ];
    prop::collection::vec(step, 1..60)
}

fn options() -> impl Strategy<Value = PlanOptions> {
    (1..=LEVELS.len(), 2..8_usize, 0..20_i64, prop_oneof![Just(u64::MAX), 4..60_u64]).prop_map(
        |(levels, inputs_max, late_ms, output_bytes_max)| PlanOptions {
            levels: Levels::new(LEVELS[..levels].to_vec()).expect("levels"),
            inputs_max,
            late_ms,
            output_bytes_max,
            ..PlanOptions::default()
        },
    )
}

/// The plan, the same in any order of the blocks.
fn planned(infos: &[BlockInfo], options: &PlanOptions) -> Option<Plan> {
    let first = plan(infos, options);
    let mut other: Vec<BlockInfo> = infos.iter().rev().cloned().collect();
    assert_eq!(plan(&other, options), first);
    let middle = other.len() / 3;
    other.rotate_left(middle);
    assert_eq!(plan(&other, options), first);
    first
}

/// Carries one plan out, if there is one, and checks what it may and may not do.
fn compact(store: &mut Store, options: &PlanOptions) -> bool {
    let before = store.infos();
    let Some(plan) = planned(&before, options) else { return false };
    let others: Vec<&BlockInfo> = before.iter().filter(|block| !plan.inputs.contains(&block.id)).collect();
    let inputs: Vec<&BlockInfo> = before.iter().filter(|block| plan.inputs.contains(&block.id)).collect();
    let met: Vec<_> = others.iter().filter(|block| block.range.overlaps(&plan.range)).collect();
    match plan.reason {
        Reason::Overlap => {
            // Whatever is left comes behind all that is merged.
            let highest = inputs.iter().map(|block| block.priorities.highest).max();
            assert!(met.iter().all(|block| Some(block.priorities.lowest) > highest), "{plan:?}");
        }
        Reason::Level { window_ms } => {
            assert!(met.is_empty(), "{plan:?} overlaps {met:?}");
            assert!(plan.inputs.len() <= options.inputs_max);
            assert!(plan.bytes <= options.output_bytes_max);
            let window = (plan.range.max() - 1).div_euclid(window_ms);
            assert_eq!(plan.range.min().div_euclid(window_ms), window, "inside of one window");
        }
        Reason::Tombstones => assert!(inputs.iter().all(|block| block.tombstones > 0)),
        other => panic!("{other:?}"),
    }
    store.apply(&plan);
    store.check();
    true
}

/// Compacts until there is nothing more to do; in bounded time.
fn finish(store: &mut Store, options: &PlanOptions) {
    let deleted = store.blocks.iter().filter(|block| block.info.tombstones > 0).count();
    let mut most = store.blocks.len() + deleted;
    while compact(store, options) {
        most = most.checked_sub(1).expect("each plan leaves fewer blocks, or fewer with tombstones");
    }
}

fn run(steps: &[Step], options: &PlanOptions) -> Store {
    let mut store = Store::default();
    let mut now = 0;
    for step in steps {
        match step {
            Step::Cut { skip, halves } => {
                now += 4 * i64::from(*skip);
                if *halves {
                    store.add(range(now, now + 2), now + 1..=now + 2);
                    store.add(range(now + 2, now + 4), now + 3..=now + 4);
                } else {
                    store.add(range(now, now + 4), now + 1..=now + 4);
                }
                now += 4;
            }
            Step::Late { back, mask } => {
                let start = now - 4 * i64::from(*back);
                let times = (1..=4).filter(|bit| mask & (1 << bit) != 0).map(|bit| start + bit);
                store.add(range(start, start + 4), times);
            }
            Step::Import { start, len, every } => {
                let (start, len) = (i64::from(*start), i64::from(*len));
                let times = (start + 1..=start + len).step_by(usize::from(*every));
                store.add(range(start, start + len), times);
            }
            Step::Delete { block, share } if !store.blocks.is_empty() => {
                let info = &mut block.get_mut(&mut store.blocks).info;
                info.tombstones = 1;
                info.deleted_samples = info.samples * u64::from(*share) / 100;
            }
            Step::Hold { block, availability } if !store.blocks.is_empty() => {
                block.get_mut(&mut store.blocks).info.availability = match availability {
                    0 => Availability::Held,
                    1 => Availability::Busy,
                    _ => Availability::Free,
                };
            }
            Step::Compact { plans } => {
                let _ = (0..*plans).take_while(|_| compact(&mut store, options)).count();
            }
            Step::Delete { .. } | Step::Hold { .. } => {}
        }
    }
    store.check();
    store
}

proptest! {
    #[test]
    fn samples_stay_and_planning_ends(steps in steps(), options in options()) {
        let mut store = run(&steps, &options);
        finish(&mut store, &options);
        // Everything is given back, and nothing more comes.
        for block in &mut store.blocks {
            block.info.availability = Availability::Free;
        }
        let last = PlanOptions { settled: Some(i64::MAX), tombstone_share_permille: 0, ..options.clone() };
        finish(&mut store, &last);
        let infos = store.infos();
        for (i, block) in infos.iter().enumerate() {
            prop_assert_eq!(block.tombstones, 0);
            for other in &infos[i + 1..] {
                prop_assert!(!block.range.overlaps(&other.range), "{:?} and {:?}", block, other);
            }
        }
        if options.output_bytes_max == u64::MAX {
            for &window_ms in options.levels.lengths_ms() {
                let windows = infos.iter().filter_map(|block| window(&block.range, window_ms));
                let mut windows: Vec<i64> = windows.collect();
                let count = windows.len();
                windows.sort_unstable();
                windows.dedup();
                prop_assert_eq!(windows.len(), count, "a window of {} ms has two blocks", window_ms);
            }
        }
    }

    #[test]
    fn in_order_every_sample_is_written_once_per_level(
        cuts in prop::collection::vec((0..40_i64, 0..4_u8), 1..80),
        halves in any::<bool>(),
        levels in 1..=LEVELS.len(),
    ) {
        // Plans are made at any time, and sometimes not for long: a backlog must not cost more.
        let levels = Levels::new(LEVELS[..levels].to_vec()).expect("levels");
        let options = PlanOptions { levels, inputs_max: 72, late_ms: 0, ..PlanOptions::default() };
        let mut store = Store::default();
        let mut now = 0;
        for (gap, plans) in cuts {
            now += if gap > 30 { 4 * (gap - 30) } else { 0 };
            if halves {
                store.add(range(now, now + 1), [now + 1]);
                store.add(range(now + 1, now + 4), now + 2..=now + 4);
            } else {
                store.add(range(now, now + 4), now + 1..=now + 4);
            }
            now += 4;
            let _ = (0..plans).take_while(|_| compact(&mut store, &options)).count();
        }
        finish(&mut store, &PlanOptions { settled: Some(i64::MAX), ..options.clone() });
        let most = options.levels.lengths_ms().len() - usize::from(!halves);
        prop_assert!(store.rewrites().0 as usize <= most, "{:?} with {} levels", store.rewrites(), most);
    }
}

/// Which window of `window_ms` all of `range` lies in.
fn window(range: &BlockRange, window_ms: i64) -> Option<i64> {
    let index = (range.max() - 1).div_euclid(window_ms);
    (range.min() >= index * window_ms).then_some(index)
}

#[test]
fn the_lowest_level_is_that_of_a_cut() {
    assert_eq!(Levels::default().lengths_ms()[0], BASE_WINDOW_MS);
}
