//! How many blocks a retention leads to, and what that costs.

use chronolith_compact::{BASE_WINDOW_MS, Levels, PlanOptions, RetentionOptions, debt, plan, retention};

use crate::model::{Store, range};

const DAY: i64 = 24 * 3_600_000;

/// Blocks after each cut: the most, and in the mean; rewrites of a sample: the most, and in the mean.
#[derive(Debug)]
struct Steady {
    most: usize,
    mean: f64,
    rewrites_most: u32,
    rewrites_mean: f64,
}

/// Runs a store for one and a half retentions; with `late`, each cut brings a block for the window before as well.
fn steady(days: i64, late: bool) -> Steady {
    let age = days * DAY;
    let levels = Levels::for_retention(Some(age));
    let mut store = Store::default();
    let (mut most, mut sum, mut count) = (0, 0, 0_usize);
    for cut in 0..days * 12 * 3 / 2 {
        let start = cut * BASE_WINDOW_MS;
        let end = start + BASE_WINDOW_MS;
        // A sample in half an hour.
        let times = |start: i64| (1..=4).map(move |n| start + n * (BASE_WINDOW_MS / 4));
        store.add(range(start, end), times(start));
        if late && cut > 0 {
            store.add(range(start - BASE_WINDOW_MS, start), [start - 7]);
        }
        let kept = RetentionOptions {
            now: end + BASE_WINDOW_MS / 2,
            age_ms_max: Some(age),
            bytes_max: None,
            other_bytes: 0,
            shipping: false,
        };
        let dropped = retention(&store.infos(), &kept).drop;
        store.blocks.retain(|block| dropped.iter().all(|drop| drop.id != block.info.id));
        let options = PlanOptions { levels: levels.clone(), floor: kept.floor(), ..PlanOptions::default() };
        let due = debt(&store.infos(), &options);
        let (mut plans, mut bytes) = (0, 0);
        while let Some(plan) = plan(&store.infos(), &options) {
            plans += 1;
            bytes += plan.bytes;
            store.apply(&plan);
        }
        // Every other run has duplicates that a merge drops, which an estimate cannot know.
        assert!(due.plans == plans && due.bytes >= bytes, "{due:?}, but {plans} plans of {bytes}");
        if cut >= days * 12 {
            most = most.max(store.blocks.len());
            sum += store.blocks.len();
            count += 1;
        }
    }
    let (rewrites_most, rewrites_mean) = store.rewrites();
    Steady { most, mean: sum as f64 / count as f64, rewrites_most, rewrites_mean }
}

#[track_caller]
fn check(days: i64, most: usize, rewrites: u32) {
    for late in [false, true] {
        let steady = steady(days, late);
        println!("{days} days, late samples: {late}: {steady:?}");
        assert_eq!(steady.most, most);
        assert!(steady.mean <= most as f64);
        // The merge with late samples comes on top, while blocks are small.
        assert_eq!(steady.rewrites_most, rewrites + u32::from(late));
        assert!(steady.rewrites_mean <= f64::from(steady.rewrites_most));
    }
}

#[test]
fn one_day_stays_in_windows_of_two_hours() {
    check(1, 12, 0);
}

#[test]
fn fifteen_days_are_about_twenty_blocks() {
    check(15, 20, 2);
}

#[test]
fn a_year_is_about_twenty_five_blocks() {
    check(365, 25, 5);
}
