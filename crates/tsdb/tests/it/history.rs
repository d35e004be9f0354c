//! Long random histories against a map: samples in order and late, cuts, compactions, deletions, restarts, crashes.

use std::{collections::BTreeMap, time::Duration};

use chronolith_env::Rng;
use chronolith_model::{Matcher, TenantId, TimeRange};
use chronolith_storage::Admin as _;
use chronolith_testkit::{fake_env::SimRng, fault_fs::CrashMode};

use crate::{
    fixture::{Content, compiled},
    sim::{Sim, note, same, series},
};

const SERIES: usize = 8;
const STEPS: usize = 400;

/// What a history has done.
#[derive(Debug, Default)]
struct Done {
    late: usize,
    deletions: usize,
    restarts: usize,
    crashes: usize,
}

fn history(seed: u64) -> (Done, chronolith_tsdb::JobStats) {
    let mut sim = Sim::new(seed);
    let rng = SimRng::new(seed ^ 0x5eed);
    let below = |n: u64| rng.next_u64() % n;
    let (mut model, mut done) = (Content::new(), Done::default());
    // Samples at or before this may go with what was deleted: none is sent.
    let mut deleted: BTreeMap<usize, i64> = BTreeMap::new();
    let tenant = TenantId::default();
    let mut jobs = chronolith_tsdb::JobStats::default();
    for step in 0..STEPS {
        match below(100) {
            0..70 => {
                sim.run(Duration::from_secs(below(600)));
                let now = sim.now();
                let mut samples: Vec<(usize, i64)> = Vec::new();
                for _ in 0..below(10) {
                    let id = below(SERIES as u64) as usize;
                    let back = if below(4) == 0 { below(90 * 60_000) } else { 0 };
                    let t = now - back as i64;
                    if deleted.get(&id).is_none_or(|until| t > *until) {
                        samples.push((id, t));
                    }
                }
                let taken = sim.send(&tenant, &samples).expect("acknowledged");
                done.late += taken.iter().filter(|(_, t)| *t < now).count();
                note(&mut model, &taken);
            }
            70..80 => sim.run(Duration::from_secs(below(3 * 3600))),
            80..85 => {
                let times = sim.db().stats().head.times;
                let id = below(SERIES as u64) as usize;
                let from = sim.now() - below(8 * 3_600_000) as i64;
                let range = TimeRange::new(from, from + below(4 * 3_600_000) as i64);
                let set = compiled(&[Matcher::equal("id", id.to_string())]);
                sim.db().delete_series(&tenant, &[set], range).expect("deleted");
                if let Some(samples) = model.get_mut(&series(id)) {
                    samples.retain(|t, _| !range.contains(*t));
                }
                model.retain(|_, samples| !samples.is_empty());
                deleted.insert(id, times.map_or(i64::MIN, |(_, newest)| newest).max(sim.now()));
                done.deletions += 1;
            }
            85..87 => sim.db().clean_tombstones().expect("cleaned"),
            87..90 => sim.db().request_cut(sim.now() - below(3_600_000) as i64),
            90..93 => {
                let report = sim.restart();
                assert_eq!((report.damage_count, report.blocks.quarantined), (0, 0), "{seed} {step}");
                done.restarts += 1;
            }
            93..97 => {
                jobs = add(jobs, sim.db().stats().jobs);
                let mode = [CrashMode::LoseUnsynced, CrashMode::Subset][below(2) as usize];
                let report = sim.crash(mode);
                assert_eq!((report.damage_count, report.blocks.quarantined), (0, 0), "{seed} {step}");
                done.crashes += 1;
            }
            _ => {
                let now = sim.now();
                let range = TimeRange::new(now - below(36_000_000) as i64, now - below(3_600_000) as i64);
                let got = in_range(&sim.content(), range);
                same(&got, &in_range(&model, range), &format!("seed {seed}, step {step}, part"));
                same(&sim.content(), &model, &format!("seed {seed}, step {step}"));
            }
        }
    }
    same(&sim.content(), &model, &format!("seed {seed}, at the end"));
    sim.restart();
    same(&sim.content(), &model, &format!("seed {seed}, reopened"));
    (done, add(jobs, sim.db().stats().jobs))
}

fn in_range(content: &Content, range: TimeRange) -> Content {
    let part = |samples: &BTreeMap<i64, u64>| {
        if range.min > range.max {
            return BTreeMap::new();
        }
        samples.range(range.min..=range.max).map(|(t, v)| (*t, *v)).collect()
    };
    content.iter().map(|(labels, samples)| (labels.clone(), part(samples))).collect()
}

fn add(mut a: chronolith_tsdb::JobStats, b: chronolith_tsdb::JobStats) -> chronolith_tsdb::JobStats {
    a.cuts += b.cuts;
    a.compactions += b.compactions;
    a.snapshots += b.snapshots;
    a
}

#[test]
fn histories_are_as_a_map_tells_them() {
    for seed in 0..12 {
        let (done, jobs) = history(seed);
        assert!(done.late > 20 && done.deletions > 3 && done.crashes > 2 && done.restarts > 2, "{done:?}");
        assert!(jobs.cuts > 0, "{jobs:?}");
    }
}
