//! Start timestamps and exemplars through restarts, crashes and snapshots.

use std::path::Path;

use chronolith_env::Rng;
use chronolith_head::SnapshotDamageReason;
use chronolith_storage::{ExemplarOutcome, StartTimestamp};
use chronolith_testkit::fake_env::SimRng;
use chronolith_testkit::fault_fs::{CrashMode, FaultFs};

use crate::support::{HEAD_DIR, NOW, Store};

const STORED: ExemplarOutcome = ExemplarOutcome { stored: 1, duplicates: 0, out_of_order: 0, dropped: 0 };

fn step(since: i64, start: i64) -> StartTimestamp {
    StartTimestamp { since, start }
}

/// A minute of samples of four series, of which two have starts, one of them restarts; and exemplars.
fn fill(store: &Store, from: i64) {
    for t in (from..from + 60_000).step_by(15_000) {
        let restarted = t >= from + 30_000;
        let rows: Vec<_> = (0..4).map(|series| (series, t, 1)).collect();
        let start = |series| match series {
            0 => 0,
            1 => from - 5000,
            2 if restarted => from + 20_000,
            2 => from - 9000,
            _ => 0,
        };
        let batch = store.append_since(0, &rows, start).unwrap();
        assert_eq!(store.give(0, 1, t, &format!("a{t}")), STORED);
        assert!(store.settle(batch));
        let batch = store.append_since(1, &rows[..1], |_| 77).unwrap();
        assert_eq!(store.give(1, 0, t, "b"), STORED);
        assert!(store.settle(batch));
    }
}

#[test]
fn a_kill_costs_neither_starts_nor_exemplars() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    let t = NOW - 600_000;
    fill(&store, t);
    let (starts, exemplars) = (store.starts(), store.exemplars());
    assert_eq!(starts[&(0, 1)], [step(t, t - 5000)]);
    assert_eq!(starts[&(0, 2)], [step(t, t - 9000), step(t + 30_000, t + 20_000)]);
    assert_eq!((starts[&(1, 0)].clone(), starts.len()), (vec![step(t, 77)], 3));
    assert_eq!(exemplars.len(), 8);
    let stats = store.head.stats();
    assert_eq!((stats.start_series, stats.exemplars), (3, 8));
    assert!(stats.exemplar_bytes > 8 * 90);
    // The log has been read, and is what the next start reads.
    let mut fs = store.kill();
    for life in 0..3 {
        let store = Store::open(&fs, 2 + life);
        assert_eq!((store.starts(), store.exemplars()), (starts.clone(), exemplars.clone()));
        assert_eq!((store.log.exemplars, store.outcome.exemplars), (8, 8));
        assert_eq!(store.head.stats().exemplars, 8);
        fs = store.kill();
    }
}

#[test]
fn snapshots_have_starts_and_exemplars_and_the_log_the_rest() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    fill(&store, NOW - 600_000);
    store.snapshot().unwrap();
    fill(&store, NOW - 300_000);
    let (starts, exemplars, rows) = (store.starts(), store.exemplars(), store.rows());
    assert_eq!(starts[&(0, 2)].len(), 4);
    let store = Store::open(&store.kill(), 2);
    assert_eq!((store.loaded.exemplars, store.loaded.damage_count), (8, 0));
    assert_eq!((store.starts(), store.exemplars(), store.rows()), (starts.clone(), exemplars.clone(), rows));
    store.snapshot().unwrap();
    // Without the log: all of it is in the snapshot.
    let fs = store.kill();
    for name in crate::support::names(&fs, crate::support::WAL_DIR, ".wal") {
        chronolith_env::Fs::remove_file(&fs, &Path::new(crate::support::WAL_DIR).join(name)).unwrap();
    }
    let store = Store::open(&fs, 3);
    assert_eq!((store.starts(), store.exemplars()), (starts, exemplars));
    // What is remembered is the same exemplar, and still in order.
    assert_eq!(store.give(1, 0, NOW - 300_000 + 45_000, "b").duplicates, 1);
    assert_eq!(store.give(0, 1, NOW - 600_000, "old").out_of_order, 1);
}

#[test]
fn damaged_sections_cost_what_is_in_them() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    fill(&store, NOW - 600_000);
    let (starts, exemplars, rows) = (store.starts(), store.exemplars(), store.rows());
    store.snapshots.write(&store.head, Vec::new()).unwrap();
    let fs = store.kill();
    let path = Path::new(HEAD_DIR).join("00000001.snapshot");
    let good = fs.read(&path).unwrap();
    let (mut lost_exemplars, mut hits) = (0, 0);
    for at in (0..good.len()).step_by(3) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs.put(&path, bytes);
        let store = Store::open(&fs, 2);
        // The log is whole: only what no shard has is not read again from it.
        assert_eq!((store.rows(), store.starts()), (rows.clone(), starts.clone()), "byte {at}");
        let left = store.exemplars();
        assert!(left.iter().all(|exemplar| exemplars.contains(exemplar)), "byte {at}");
        if left.len() < exemplars.len() {
            lost_exemplars += 1;
            assert_eq!(store.loaded.damage[0].reason, SnapshotDamageReason::Payload, "byte {at}");
        }
        hits += usize::from(store.loaded.damage_count > 0);
        store.kill();
    }
    assert!(lost_exemplars > 10 && hits > good.len() / 10, "{lost_exemplars} of {hits}");
}

/// Lives of a head that end at random moments, with snapshots in between: what was durable is there, with its starts.
#[test]
fn what_was_durable_survives_crashes() {
    let mut checked = 0;
    for seed in 0..40 {
        let rng = SimRng::new(seed);
        let below = |n: u64| (rng.next_u64() % n) as i64;
        let fs = FaultFs::new();
        // Of each series, samples with their starts: all that were given, and those that are durable.
        let mut durable = std::collections::BTreeMap::new();
        let mut traces = Vec::new();
        let mut t = NOW - 1_000_000;
        for life in 0..4 {
            let store = Store::open(&fs, seed * 10 + life);
            let starts = store.starts();
            for ((series, t), start) in &durable {
                let steps = starts.get(&(0, *series)).map_or(&[][..], Vec::as_slice);
                assert_eq!(StartTimestamp::at(steps, *t), *start, "seed {seed}: series {series} at {t}");
                checked += 1;
            }
            let exemplars = store.exemplars();
            for (series, t) in &traces {
                assert!(
                    exemplars.contains(&(0, *series, *t, "x".to_owned())),
                    "seed {seed}: {series} at {t}"
                );
            }
            let mut waiting = Vec::new();
            for _ in 0..below(25) {
                t += 1 + below(5000);
                let series = below(3) as u32;
                // A late one now and then: its neighbours keep their starts.
                let at = if below(4) == 0 { t - 20_000 - below(500_000) } else { t };
                let start = below(3) * 1000;
                if store.rows().contains_key(&(0, series, at)) {
                    continue;
                }
                let batch = store.append_since(0, &[(series, at, 5)], |_| start).unwrap();
                let traced = store.give(0, series, t, "x").stored == 1;
                waiting.push((batch, (series, at), start, traced.then_some((series, t))));
                if below(3) == 0 && store.settle(batch) {
                    for (_, sample, start, traced) in waiting.drain(..) {
                        durable.insert(sample, start);
                        // Logged behind the sample: with it, or with the next one.
                        if sample != (series, at) {
                            traces.extend(traced);
                        }
                    }
                }
                if below(8) == 0 {
                    let _ = store.snapshot();
                }
            }
            // What is not durable may be there as well, and acknowledged later: it is not sent again.
            store.kill();
            let modes = [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll];
            fs.crash(modes[below(4) as usize], &rng);
        }
    }
    assert!(checked > 1000, "{checked}");
}

/// A series whose start changes with every sample, and late samples of other starts, in a segment per batch: each segment
/// has the starts of its samples, and no more of the others than the newest.
#[test]
fn a_segment_has_the_starts_of_its_samples_alone() {
    let fs = FaultFs::new();
    let store = Store::try_open(&fs, 1, 1).unwrap();
    let from = NOW - 3_000_000;
    let mut given = std::collections::BTreeMap::new();
    for at in 0..400 {
        let t = from + at * 5000;
        let mut rows = vec![(t, t - 100)];
        if at % 3 == 2 {
            // One of its own, one of none, and one as its neighbour has.
            let late = t - 1_000_000 + 1234;
            rows.push((late, [late - 7, 0, t - 1_000_000 - 100][at as usize / 3 % 3]));
        }
        for (t, start) in rows {
            let batch = store.append_since(0, &[(1, t, 5)], |_| start).unwrap();
            assert!(store.settle(batch));
            given.insert(t, start);
        }
    }
    let check = |store: &Store, left: usize| {
        let (rows, starts) = (store.rows(), store.starts());
        assert_eq!(rows.len(), left);
        for (_, _, t) in rows.keys() {
            assert_eq!(StartTimestamp::at(&starts[&(0, 1)], *t), given[t], "{}", t - from);
        }
    };
    check(&store, given.len());
    let segments = store.wal.segments();
    let longest = segments.iter().map(|segment| segment.bytes).max().unwrap();
    assert!(longest < 1000, "{longest} bytes of a segment of a sample or two");
    let kept = segments[segments.len() - 60].number;
    assert!(store.wal.drop_segments_before(kept).unwrap() > 100);
    let store = Store::open(&store.kill(), 2);
    let left = store.rows().len();
    assert!((60..200).contains(&left), "{left}");
    check(&store, left);
}

#[test]
fn starts_do_not_go_with_old_segments() {
    let fs = FaultFs::new();
    let store = Store::try_open(&fs, 1, 1).unwrap();
    let t = NOW - 900_000;
    for at in 0..8 {
        let batch = store.append_since(0, &[(1, t + at * 1000, 5)], |_| t - 1).unwrap();
        assert!(store.settle(batch));
    }
    let segments = store.wal.segments();
    assert!(segments.len() > 3);
    assert_eq!(store.wal.drop_segments_before(u32::MAX).unwrap(), segments.len() - 1);
    let store = Store::open(&store.kill(), 2);
    let (rows, starts) = (store.rows(), store.starts());
    assert!(!rows.is_empty() && rows.len() < 8);
    assert!(rows.keys().all(|(_, _, at)| StartTimestamp::at(&starts[&(0, 1)], *at) == t - 1), "{starts:?}");
}
