//! A disk that is full or broken while the log is written.

use std::time::Duration;

use chronolith_env::{Op, Rng};
use chronolith_testkit::fake_env::SimRng;
use chronolith_testkit::fault_fs::{CrashMode, Fault, FaultFs};
use chronolith_wal::{CommitError, SyncPolicy, WalOptions};

use crate::support::{Bench, Row, names, options, replay, segment};

fn bits(rows: &[(u32, i64, f64)]) -> Vec<Row> {
    rows.iter().map(|(s, t, v)| (*s, *t, v.to_bits())).collect()
}

/// One failure of each kind between two good batches; then the log heals itself, and the batch that met the failure is
/// durable when its waiter is released.
fn one_failure(op: Op, nth: u64, fault: Fault, segment_bytes: u64) {
    let what = format!("{op} number {nth}, {fault:?}");
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 3, WalOptions { segment_bytes, ..options(2) });
    let (first, second, third) = ([(0, 1, 1.0), (2, 1, 1.5)], [(0, 2, 2.0), (4, 2, 2.5)], [(0, 3, 3.0)]);
    assert!(bench.commit(0, &first));
    // With a segment of one byte, the second batch still goes to the first segment and the third to a new one.
    assert!(bench.commit(0, &[(6, 1, 1.0)]));
    fs.fail(op, nth, 1, fault);
    let batch = bench.shards.append(0, &second);
    assert!(!bench.settle(batch), "{what}: not durable, not released");
    assert!(matches!(bench.wal.admit(), Err(CommitError::Failed { .. })), "{what}: new samples are refused");
    assert!(!bench.waiter.poll(batch).unwrap(), "{what}");
    assert_eq!(bench.wal.stats().snapshot().failures, 1, "{what}");
    bench.fake.scheduler.run_for(Duration::from_millis(60));
    assert!(bench.waiter.poll(batch).unwrap(), "{what}: durable after recovery");
    bench.wal.admit().unwrap();
    assert!(bench.commit(0, &third));
    bench.kill();
    fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
    let (opened, report, replayed) = replay(&fs);
    let mut want = [bits(&first), bits(&[(6, 1, 1.0)]), bits(&second), bits(&third)].concat();
    want.sort_unstable();
    assert_eq!(replayed.sorted(), want, "{what}: all there, once");
    assert_eq!((opened.torn_tail, report.damage_count), (None, 0), "{what}: {:?}", report.damage);
}

#[test]
fn each_single_failure_heals() {
    for fault in [Fault::Full, Fault::Io] {
        one_failure(Op::Write, 1, fault, 1 << 20);
        one_failure(Op::Sync, 1, fault, 1 << 20);
        // A roll to a new segment: create, header, name, batch, sync.
        one_failure(Op::Create, 1, fault, 1);
        one_failure(Op::Write, 1, fault, 1);
        one_failure(Op::SyncDir, 1, fault, 1);
        one_failure(Op::Write, 2, fault, 1);
        one_failure(Op::Sync, 1, fault, 1);
    }
}

#[test]
fn the_failed_file_is_never_written_again() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 3, options(1));
    assert!(bench.commit(0, &[(0, 1, 1.0)]));
    fs.fail(Op::Sync, 1, 1, Fault::Io);
    assert!(!bench.commit(0, &[(0, 2, 2.0)]));
    let frozen = fs.read(&segment(1)).unwrap();
    bench.fake.scheduler.run_for(Duration::from_secs(1));
    assert!(bench.commit(0, &[(0, 3, 3.0)]));
    assert_eq!(fs.read(&segment(1)).unwrap(), frozen);
    assert_eq!(names(&fs), ["00000001.wal", "00000002.wal"]);
    // The new one needs the definitions of the old one: the old one is not dropped alone.
    let infos = bench.wal.segments();
    assert!(infos[1].continues && !infos[0].continues);
    assert_eq!(bench.wal.drop_segments_before(2).unwrap(), 0);
}

#[test]
fn a_waiter_gives_up_in_time_and_is_told_why() {
    let dir = tempfile::tempdir().unwrap();
    // The real clock, and a directory that vanishes under the log.
    let env = chronolith_env::Env::real();
    let path = dir.path().join("wal");
    let options =
        WalOptions { shards: 1, commit_timeout: Duration::from_millis(60), ..WalOptions::default() };
    let opened = chronolith_wal::Wal::open(&env, &path, options).unwrap();
    let shards = crate::support::Shards::new(1);
    let wal = opened.start(std::sync::Arc::<crate::support::Shards>::clone(&shards)).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    let batch = shards.append(0, &[(1, 1, 1.0)]);
    let told = wal.wait(batch).unwrap_err();
    let CommitError::Failed { source } = &told else { panic!("{told:?}") };
    assert!(source.to_string().contains(".wal"), "{source}");
    assert!(wal.admit().is_err());
    std::fs::create_dir_all(&path).unwrap();
    let again = (0..100).any(|_| wal.wait(batch).is_ok());
    assert!(again, "it heals when the directory is back");
    wal.close().unwrap();
    assert!(matches!(wal.wait(chronolith_wal::Batch::default()), Ok(())), "durable batches stay durable");
    assert!(matches!(wal.wait(shards.append(0, &[(1, 2, 2.0)])), Err(CommitError::Closed)));
    assert!(matches!(wal.admit(), Err(CommitError::Closed)));
}

#[test]
fn closing_while_failing_says_so() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 3, options(1));
    fs.fail(Op::Sync, 1, u64::MAX, Fault::Io);
    let batch = bench.shards.append(0, &[(0, 1, 1.0)]);
    assert!(!bench.settle(batch));
    assert!(matches!(bench.wal.close(), Err(CommitError::Failed { .. })));
    assert!(matches!(bench.waiter.poll(batch), Err(CommitError::Closed)));
}

#[test]
fn closing_commits_what_is_pending() {
    for sync in [SyncPolicy::Always, SyncPolicy::Interval(Duration::from_secs(60))] {
        let fs = FaultFs::new();
        let bench = Bench::open(&fs, 3, WalOptions { sync, ..options(1) });
        let batch = bench.shards.append(0, &[(0, 1, 1.0)]);
        bench.wal.close().unwrap();
        assert!(bench.waiter.poll(batch).unwrap());
        bench.kill();
        fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
        assert_eq!(replay(&fs).2.sorted().len(), 1, "{sync:?}");
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 3, options(1));
    assert!(bench.commit(0, &[(0, 1, 1.0)]));
    fs.fill_after(60);
    let samples: Vec<_> = (0..100).map(|i| (i, 2, 0.1 * f64::from(i))).collect();
    let batch = bench.shards.append(0, &samples);
    assert!(!bench.settle(batch));
    let Err(CommitError::Failed { source }) = bench.wal.admit() else { panic!("admitted") };
    assert!(source.to_string().contains("no space left; free some"), "{source}");
    bench.fake.scheduler.run_for(Duration::from_secs(10));
    assert!(!bench.waiter.poll(batch).unwrap());
    assert!(bench.wal.stats().snapshot().failures > 3, "it keeps trying");
    assert!(names(&fs).len() <= 2, "without leaving a file for each attempt: {:?}", names(&fs));
    fs.heal();
    bench.fake.scheduler.run_for(Duration::from_secs(3));
    assert!(bench.waiter.poll(batch).unwrap());
    bench.kill();
    fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
    let (opened, report, replayed) = replay(&fs);
    assert_eq!((replayed.sorted().len(), opened.torn_tail, report.damage_count), (101, None, 0));
}

/// Random failures of random calls, and a crash at the end: the same promise.
#[test]
fn what_was_acknowledged_survives_failures_and_crashes() {
    let (mut acknowledged, mut failures) = (0, 0);
    for seed in 0..200 {
        let rng = SimRng::new(seed);
        let below = |n: u64| rng.next_u64() % n;
        let fs = FaultFs::new();
        let options = WalOptions { shards: 2, segment_bytes: 600, ..WalOptions::default() };
        let bench = Bench::open(&fs, seed, options);
        let (mut sent, mut safe, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..60_i64 {
            if below(4) == 0 {
                let op = [Op::Write, Op::Sync, Op::Create, Op::SyncDir, Op::Remove][below(5) as usize];
                let fault = [Fault::Io, Fault::Full][below(2) as usize];
                fs.fail(op, 1 + below(3), 1 + below(3), fault);
            }
            if bench.wal.admit().is_ok() {
                let rows = [(below(10) as u32 * 2, i, i as f64)];
                sent.extend(bits(&rows));
                waiting.push((bench.shards.append(0, &rows), bits(&rows)));
            }
            for (batch, _) in &waiting {
                let _ = bench.waiter.poll(*batch);
            }
            bench.fake.scheduler.run_for(Duration::from_millis(below(200)));
            waiting.retain(|(batch, rows)| {
                let durable = bench.waiter.poll(*batch).unwrap();
                if durable {
                    safe.extend(rows.clone());
                }
                !durable
            });
        }
        failures += bench.wal.stats().snapshot().failures;
        acknowledged += safe.len();
        bench.kill();
        fs.heal();
        let mode = [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset][below(3) as usize];
        fs.crash(mode, &rng);
        let (_, report, replayed) = replay(&fs);
        let there = replayed.sorted();
        assert!(there.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}: twice");
        assert!(there.iter().all(|row| sent.contains(row)), "seed {seed}: invented");
        assert!(safe.iter().all(|row| there.contains(row)), "seed {seed}: lost");
        assert_eq!(report.damage_count, 0, "seed {seed}: {:?}", report.damage);
        let series = replayed.series.lock();
        assert!(there.iter().all(|(s, ..)| series.contains_key(s)), "seed {seed}: undefined");
    }
    assert!(acknowledged > 3000 && failures > 1000, "{acknowledged} {failures}");
}

#[test]
fn what_a_replay_shows_is_durable() {
    let fs = FaultFs::new();
    let sync = SyncPolicy::Interval(Duration::from_secs(60));
    let bench = Bench::open(&fs, 1, WalOptions { sync, ..options(1) });
    assert!(bench.commit(0, &[(0, 1, 1.0)]));
    assert!(bench.commit(0, &[(0, 2, 2.0)]));
    // The process dies between write and sync, the machine goes on: the system still has what was written.
    bench.kill();
    let bench = Bench::open(&fs, 2, options(1));
    let shown = bench.replayed.sorted();
    assert_eq!(shown.len(), 2);
    // The sender repeats its request: a duplicate, so covered by what is durable, and told so.
    assert!(bench.waiter.poll(bench.shards.ticket(0)).unwrap());
    bench.kill();
    fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
    assert_eq!(replay(&fs).2.sorted(), shown);
}

#[test]
fn a_segment_that_replay_cannot_open_is_reported_and_kept() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 1, options(1));
    assert!(bench.commit(0, &[(0, 1, 1.0)]));
    let fake = chronolith_testkit::fake_env::FakeEnv::new(std::sync::Arc::new(bench.kill()), 2);
    let mut opened =
        chronolith_wal::Wal::open(&fake.env, std::path::Path::new(crate::support::DIR), options(1)).unwrap();
    // Each pass opens it anew: the device, or the system's supply of handles, fails just then.
    fs.fail(Op::Open, 1, 2, Fault::Io);
    let replayed = crate::support::Replayed::default();
    let report = opened.replay(1, &replayed).unwrap();
    assert_eq!((replayed.sorted().len(), report.damage_count), (0, 1), "{:?}", report.damage);
    fs.heal();
    let shards = crate::support::Shards::new(1);
    let wal = opened.start(std::sync::Arc::<crate::support::Shards>::clone(&shards)).unwrap();
    let batch = shards.append(0, &[(5, 1000, 1.0)]);
    let _ = wal.waiter().poll(batch);
    fake.scheduler.run_for(Duration::from_millis(5));
    assert!(wal.waiter().poll(batch).unwrap());
    // Nothing is known of its samples but that they are not from the future.
    assert_eq!(wal.drop_older_than(500).unwrap(), 0);
    fake.scheduler.kill();
    assert_eq!(replay(&fs).2.sorted().len(), 2);
}
