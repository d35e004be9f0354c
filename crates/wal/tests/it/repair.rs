//! What a killed process has left in the system's memory only.

use std::path::Path;
use std::time::Duration;

use chronolith_env::{Fs, Op, Rng};
use chronolith_testkit::fake_env::{FakeEnv, SimRng};
use chronolith_testkit::fault_fs::{CrashMode, Fault, FaultFs};
use chronolith_wal::{Batch, CommitError, SyncPolicy, Wal, WalOptions};

use crate::support::{Bench, DIR, Replayed, Row, Shards, names, options, replay, segment};

fn crash(fs: &FaultFs, mode: CrashMode) {
    fs.crash(mode, &SimRng::new(1));
}

fn rows(times: impl IntoIterator<Item = i64>) -> Vec<Row> {
    times.into_iter().map(|t| (0, t, 1_f64.to_bits())).collect()
}

/// A log of `durable` batches and one whose sync failed; the process was killed before it could do anything about it.
fn killed_at_a_failed_sync(durable: i64) -> FaultFs {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 1, options(1));
    for t in 1..=durable {
        assert!(bench.commit(0, &[(0, t, 1.0)]));
    }
    // The first segment's header is synced before its first batch. Nothing after the failure has an effect.
    fs.fail(Op::Sync, if durable == 0 { 2 } else { 1 }, 1, Fault::Io);
    fs.fail(Op::Remove, 1, 1, Fault::Io);
    assert!(!bench.commit(0, &[(0, durable + 1, 1.0)]));
    bench.kill();
    fs.heal();
    crash(&fs, CrashMode::KeepAll);
    fs
}

/// The same, but the process was killed after the last batch had been acknowledged.
fn killed_after(durable: i64) -> FaultFs {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 1, options(1));
    for t in 1..=durable {
        assert!(bench.commit(0, &[(0, t, 1.0)]));
    }
    bench.kill();
    crash(&fs, CrashMode::KeepAll);
    fs
}

/// A sender repeats its request: what is there already is covered by what was found on opening.
fn resent(bench: &Bench) -> Result<bool, CommitError> {
    bench.waiter.poll(bench.shards.ticket(0))
}

#[test]
fn what_a_failed_sync_has_left_is_written_again_before_it_is_acknowledged() {
    for durable in [0, 1, 5] {
        let fs = killed_at_a_failed_sync(durable);
        let bench = Bench::open(&fs, 2, options(1));
        assert_eq!(bench.replayed.sorted(), rows(1..=durable + 1), "readers see it");
        assert!(resent(&bench).unwrap());
        bench.kill();
        crash(&fs, CrashMode::LoseUnsynced);
        let (opened, report, replayed) = replay(&fs);
        assert_eq!(replayed.sorted(), rows(1..=durable + 1), "after {durable} durable batches");
        assert_eq!((opened.torn_tail, report.damage_count), (None, 0), "{:?}", report.damage);
        assert!(replayed.series.lock().contains_key(&0));
    }
}

/// Only what may not be durable is written again, and only once.
#[test]
fn little_is_written_again() {
    let fs = killed_at_a_failed_sync(20);
    let old = fs.read(&segment(1)).unwrap().len();
    let bench = Bench::open(&fs, 2, options(1));
    let copy = fs.read(&segment(2)).unwrap();
    assert!(copy.len() < old / 4, "{} of {old}", copy.len());
    let infos = bench.wal.segments();
    assert!(infos[1].continues && infos[1].number == 2, "{infos:?}");
    assert_eq!(infos.iter().map(|info| info.times).collect::<Vec<_>>(), [Some((1, 20)), Some((21, 21))]);
    bench.kill();
    for seed in 3..6 {
        crash(&fs, CrashMode::KeepAll);
        Bench::open(&fs, seed, options(1)).kill();
        assert_eq!(names(&fs), ["00000001.wal", "00000002.wal"]);
        assert_eq!(fs.read(&segment(2)).unwrap(), copy, "once is enough");
    }
}

#[test]
fn a_clean_end_leaves_nothing_to_write_again() {
    for sync in [SyncPolicy::Always, SyncPolicy::Interval(Duration::from_secs(60))] {
        let fs = FaultFs::new();
        let bench = Bench::open(&fs, 1, WalOptions { sync, ..options(1) });
        assert!(bench.commit(0, &[(0, 1, 1.0)]));
        bench.wal.close().unwrap();
        let infos = bench.wal.segments();
        bench.kill();
        crash(&fs, CrashMode::KeepAll);
        let bench = Bench::open(&fs, 2, options(1));
        assert_eq!(names(&fs), ["00000001.wal"]);
        assert_eq!(bench.wal.segments(), infos);
        bench.kill();
    }
}

/// Processes that are killed after each batch leave no more than what they have logged.
#[test]
fn kills_do_not_pile_up_segments() {
    let fs = FaultFs::new();
    for t in 1..=6 {
        let bench = Bench::open(&fs, t as u64, options(1));
        assert!(bench.commit(0, &[(0, t, 1.0)]));
        bench.kill();
        crash(&fs, CrashMode::KeepAll);
    }
    assert_eq!(replay(&fs).2.sorted(), rows(1..=6));
    assert_eq!(names(&fs).len(), 6, "{:?}", names(&fs));
}

/// Opens the log and lets the committer run, to the end of `calls` calls of the file system; then a crash.
fn open_for(fs: &FaultFs, calls: u64, mode: CrashMode, seed: u64) -> bool {
    let fake = FakeEnv::new(std::sync::Arc::new(fs.clone()), 7);
    fs.halt_after(calls);
    let run = || -> chronolith_wal::Result<()> {
        let mut opened = Wal::open(&fake.env, Path::new(DIR), options(1))?;
        opened.replay(1, &Replayed::default())?;
        let wal = opened.start(Shards::new(1))?;
        fake.scheduler.run_for(Duration::from_millis(500));
        fake.scheduler.kill();
        drop(wal);
        Ok(())
    };
    let _ = run();
    fake.scheduler.kill();
    let halted = fs.halted();
    fs.heal();
    fs.crash(mode, &SimRng::new(seed));
    halted
}

/// Makes a disk with so many durable batches.
type Disk = fn(i64) -> FaultFs;

/// A crash at any moment of the repair, then another one: nothing that was durable is lost, and what a start has shown
/// and acknowledged stays.
#[test]
fn a_crash_at_any_moment_of_the_repair_costs_nothing() {
    let modes = [CrashMode::KeepAll, CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset];
    let disks: [(i64, Disk); 5] = [
        (0, killed_at_a_failed_sync),
        (1, killed_at_a_failed_sync),
        (5, killed_at_a_failed_sync),
        (1, killed_after),
        (5, killed_after),
    ];
    for (durable, disk) in disks {
        for (first, seed) in modes.into_iter().flat_map(|mode| (0..6).map(move |seed| (mode, seed))) {
            let mut calls = 0;
            while {
                let fs = disk(durable);
                let halted = open_for(&fs, calls, first, seed);
                let bench = Bench::open(&fs, 9, options(1));
                let shown = bench.replayed.sorted();
                let at = format!("{durable} durable, {first:?} {seed} after {calls} calls");
                assert!(rows(1..=durable).iter().all(|row| shown.contains(row)), "{at}: {shown:?}");
                assert_eq!(bench.report.damage_count, 0, "{at}: {:?}", bench.report.damage);
                assert!(resent(&bench).unwrap(), "{at}");
                assert!(bench.commit(0, &[(0, 99, 1.0)]), "{at}");
                bench.kill();
                crash(&fs, CrashMode::LoseUnsynced);
                let (_, report, replayed) = replay(&fs);
                let want: Vec<Row> = shown.into_iter().chain(rows([99])).collect();
                assert_eq!((replayed.sorted(), report.damage_count), (want, 0), "{at}: {:?}", report.damage);
                halted
            } {
                calls += 1;
            }
            assert!(calls > 15, "the repair has that many moments: {calls}");
        }
    }
}

#[test]
fn on_a_full_disk_the_log_opens_and_acknowledges_nothing_until_there_is_room() {
    let fs = killed_at_a_failed_sync(3);
    fs.fill_after(10);
    let bench = Bench::open(&fs, 2, options(1));
    assert_eq!(bench.replayed.sorted(), rows(1..=4), "all is shown");
    assert!(matches!(bench.wal.admit(), Err(CommitError::Failed { .. })));
    bench.fake.scheduler.run_for(Duration::from_secs(5));
    assert!(!resent(&bench).unwrap() && bench.wal.admit().is_err());
    assert!(bench.waiter.poll(Batch::default()).unwrap(), "what saw nothing waits for nothing");
    assert!(bench.wal.stats().snapshot().failures > 2);
    fs.heal();
    bench.fake.scheduler.run_for(Duration::from_secs(3));
    assert!(resent(&bench).unwrap());
    bench.wal.admit().unwrap();
    let infos = bench.wal.segments();
    assert_eq!(
        infos.iter().map(|info| (info.number, info.continues)).collect::<Vec<_>>(),
        [(1, false), (2, true)]
    );
    assert!(bench.commit(0, &[(0, 5, 1.0)]));
    bench.kill();
    crash(&fs, CrashMode::LoseUnsynced);
    let (_, report, replayed) = replay(&fs);
    assert_eq!((replayed.sorted(), report.damage_count), (rows(1..=5), 0));
}

#[test]
fn closing_while_held_back_says_so() {
    let fs = killed_at_a_failed_sync(1);
    fs.fill_after(0);
    let bench = Bench::open(&fs, 2, options(1));
    assert!(matches!(bench.wal.close(), Err(CommitError::Failed { .. })));
    assert!(matches!(resent(&bench), Err(CommitError::Closed)));
}

/// The system makes room in its memory between the replay and a repair that was late.
#[test]
fn what_vanishes_after_it_was_shown_is_never_acknowledged() {
    let fs = killed_at_a_failed_sync(3);
    fs.fill_after(0);
    let bench = Bench::open(&fs, 2, options(1));
    assert_eq!(bench.replayed.sorted(), rows(1..=4));
    fs.evict();
    fs.heal();
    bench.fake.scheduler.run_for(Duration::from_secs(5));
    assert!(!resent(&bench).unwrap());
    let Err(CommitError::Failed { source }) = bench.wal.admit() else { panic!("admitted") };
    let text = std::error::Error::source(&*source).unwrap().to_string();
    assert!(text.contains("start the program anew"), "{text}");
    bench.kill();
    crash(&fs, CrashMode::KeepAll);
    let bench = Bench::open(&fs, 3, options(1));
    assert_eq!(bench.replayed.sorted(), rows(1..=3));
    assert!(resent(&bench).unwrap());
}

/// Damage among what is written again: it stays where it is, reported, and its neighbours count once.
#[test]
fn damage_among_what_is_written_again_is_reported_and_kept() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 1, options(2));
    bench.shards.append(1, &[(1, 1, 1.0)]);
    assert!(bench.commit(0, &[(0, 1, 1.0)]));
    bench.kill();
    let mut bytes = fs.read(&segment(1)).unwrap();
    bytes[80] ^= 1;
    fs.put(&segment(1), bytes.clone());
    for seed in 2..4 {
        let bench = Bench::open(&fs, seed, options(2));
        assert_eq!(bench.replayed.sorted().len(), 2);
        assert_eq!(bench.report.damage_count, 1, "{:?}", bench.report.damage);
        assert_eq!(fs.read(&segment(1)).unwrap(), bytes);
        assert_eq!(names(&fs), ["00000001.wal", "00000002.wal"]);
        bench.kill();
    }
    // What is left of the damaged segment was saved beside it.
    fs.remove_file(&segment(1)).unwrap();
    assert_eq!(replay(&fs).2.sorted().len(), 2);
}

/// Random lives with failing calls, killed or cut off at any moment: whatever a start has shown is acknowledged to
/// whoever sends it again, so it must stay.
#[test]
fn what_was_shown_survives_failures_kills_and_power_cuts() {
    let (mut shown_in_all, mut failures) = (0, 0);
    for seed in 0..150 {
        let rng = SimRng::new(seed);
        let below = |n: u64| rng.next_u64() % n;
        let fs = FaultFs::new();
        let options = WalOptions { shards: 2, segment_bytes: 600, ..WalOptions::default() };
        let mut safe: Vec<Row> = Vec::new();
        let mut t = 0;
        for life in 0..6 {
            let bench = Bench::open(&fs, seed * 100 + life, options);
            let shown = bench.replayed.sorted();
            assert!(shown.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}, life {life}: twice");
            assert!(safe.iter().all(|row| shown.contains(row)), "seed {seed}, life {life}: lost");
            assert_eq!(bench.report.damage_count, 0, "seed {seed}, life {life}: {:?}", bench.report.damage);
            assert!(bench.waiter.poll(bench.shards.ticket(0)).unwrap(), "seed {seed}, life {life}");
            shown_in_all += shown.len();
            safe = shown;
            let mut waiting = Vec::new();
            for _ in 0..below(15) {
                t += 1;
                if below(4) == 0 {
                    let op = [Op::Write, Op::Sync, Op::Create, Op::SyncDir, Op::Remove][below(5) as usize];
                    fs.fail(op, 1 + below(3), 1 + below(3), Fault::Io);
                }
                if bench.wal.admit().is_ok() {
                    let row = (below(10) as u32 * 2, t, 1.0);
                    waiting.push((bench.shards.append(0, &[row]), (row.0, row.1, row.2.to_bits())));
                }
                waiting.iter().for_each(|(batch, _)| drop(bench.waiter.poll(*batch)));
                bench.fake.scheduler.run_for(Duration::from_millis(below(100)));
                for (batch, row) in &waiting {
                    if bench.waiter.poll(*batch).unwrap() && !safe.contains(row) {
                        safe.push(*row);
                    }
                }
            }
            failures += bench.wal.stats().snapshot().failures;
            bench.kill();
            fs.heal();
            let modes = [CrashMode::KeepAll, CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset];
            fs.crash(modes[[0, 0, 1, 2, 3][below(5) as usize]], &rng);
        }
    }
    assert!(shown_in_all > 5000 && failures > 500, "{shown_in_all} {failures}");
}
