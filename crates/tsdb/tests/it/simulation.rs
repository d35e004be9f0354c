//! Random lives of a database on a disk that fails and forgets.
//!
//! A seed tells the whole story: what is sent, asked, cut, deleted and copied, in which order jobs make their steps, when
//! the disk fails, when the machine dies and what of its writes survives. A map says what must be there, and what may.

mod audit;
mod exemplars;
mod imports;
mod model;
mod operations;
mod rot;
mod sites;
mod values;
mod weather;
mod world;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use chronolith_testkit::fault_fs::SiteCounts;
use parking_lot::Mutex;

use world::World;

/// Operations of a seed.
const OPS: u64 = 2000;
/// Seeds that are tried unless told otherwise.
const SEEDS: u64 = 300;
/// So often each point of docs/durability.md comes up in them.
const SITE_MIN: u64 = 100;
/// After so many that failed no more are tried.
const FAILED_MAX: usize = 5;
/// How often is said how far it is.
const PROGRESS: u64 = 100;
/// The first seed, and how many.
const FIRST_VARIABLE: &str = "CHRONOLITH_SIM_SEED";
const COUNT_VARIABLE: &str = "CHRONOLITH_SIM_SEEDS";

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[derive(Default)]
struct Total {
    restarts: u64,
    sites: BTreeMap<&'static str, SiteCounts>,
    failed: Vec<u64>,
}

fn run(first: u64, count: u64) -> Total {
    let (next, total) = (AtomicU64::new(first), Mutex::new(Total::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            // Of many seeds, all that fail are of interest.
            if seed >= first + count || (count <= SEEDS && total.lock().failed.len() >= FAILED_MAX) {
                return;
            }
            if seed > first && (seed - first).is_multiple_of(PROGRESS) {
                eprintln!("{} seeds, {} failed", seed - first, total.lock().failed.len());
            }
            let lived = catch_unwind(AssertUnwindSafe(|| {
                let mut world = World::new(seed);
                world.live(OPS);
                assert!(world.restarts >= 5, "{} restarts", world.restarts);
                (world.restarts, world.fs.sites())
            }));
            let mut total = total.lock();
            match lived {
                Ok((restarts, sites)) => {
                    total.restarts += restarts;
                    for (site, counts) in sites {
                        let all = total.sites.entry(site).or_default();
                        all.done += counts.done;
                        all.failed += counts.failed;
                        all.halted += counts.halted;
                    }
                }
                Err(_) => total.failed.push(seed),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) {
            scope.spawn(work);
        }
    });
    total.into_inner()
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_invented() {
    let (first, count) = (variable(FIRST_VARIABLE, 1), variable(COUNT_VARIABLE, SEEDS));
    let mut total = run(first, count);
    total.failed.sort_unstable();
    assert!(total.failed.is_empty(), "set {FIRST_VARIABLE} to one of the seeds {:?}", total.failed);
    eprintln!("{count} seeds, {} restarts", total.restarts);
    for name in sites::NAMES {
        let counts = total.sites.get(name).copied().unwrap_or_default();
        eprintln!("{name}: {} done, {} failed, {} ends before it", counts.done, counts.failed, counts.halted);
        assert!(count < SEEDS || counts.done >= SITE_MIN, "{name} comes up {} times only", counts.done);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.live(OPS / 4);
        world.digest()
    };
    for seed in [1, 2, 77] {
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed), run(seed + 1));
    }
}
