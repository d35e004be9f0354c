//! Rolling to new segments and dropping old ones.

use chronolith_testkit::fault_fs::FaultFs;
use chronolith_wal::{Batch, WalOptions};

use crate::support::{Bench, Kind, names, options, replay};

fn rolled() -> Bench {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 3, WalOptions { segment_bytes: 1, ..options(2) });
    for i in 0..8 {
        // What else is of a series counts as its samples do.
        let kind = Kind::ALL[i as usize % 4];
        let rows = [(Kind::Sample, 0, i * 10, 1.0), (kind, 2, i * 10 + 1, f64::from(i as i32))];
        assert!(bench.commit_kinds(0, &rows));
    }
    bench
}

#[test]
fn each_segment_defines_its_series() {
    let bench = rolled();
    assert!(bench.wal.segments().len() >= 3, "{:?}", bench.wal.segments());
    assert!(bench.shards.epoch(1) > 1, "idle shards learn of the epoch too");
    let before = bench.wal.segments();
    assert_eq!(
        before[0].times,
        Some((0, 11)),
        "the batch in flight when the segment filled up goes to it too"
    );
    let newest = before.last().unwrap().number;
    assert_eq!(bench.wal.drop_segments_before(u32::MAX).unwrap(), before.len() - 1, "the last one stays");
    assert_eq!(names(&bench.fs), [format!("{newest:08}.wal")]);
    let (_, report, replayed) = replay(&bench.kill());
    assert_eq!(replayed.series.lock().len(), 2);
    assert_eq!(report.damage_count, 0, "dropped segments are not missed");
    assert!(report.samples + report.histograms + report.starts + report.exemplars >= 2);
}

#[test]
fn starts_do_not_say_when_samples_are() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 3, options(1));
    // Of a sample in an older segment, and of one to come.
    let rows = [(Kind::Sample, 0, 1000, 1.0), (Kind::Start, 0, 10, 1.0), (Kind::Start, 0, 5000, 2.0)];
    assert!(bench.commit_kinds(0, &rows));
    bench.wal.close().unwrap();
    assert_eq!(bench.wal.segments()[0].times, Some((1000, 1000)));
    let again = Bench::open(&bench.kill(), 4, options(1));
    assert_eq!(again.wal.segments()[0].times, Some((1000, 1000)), "nor when they are read again");
}

#[test]
fn segments_are_dropped_by_time_from_the_front() {
    let bench = rolled();
    let before = bench.wal.segments();
    let second = before[1].times.unwrap();
    assert_eq!(bench.wal.drop_older_than(second.1).unwrap(), 1, "all samples must be older");
    assert_eq!(bench.wal.drop_older_than(second.1 + 1).unwrap(), 1);
    assert_eq!(bench.wal.segments(), before[2..]);
    let (.., replayed) = replay(&bench.kill());
    assert!(replayed.sorted().iter().all(|row| row.1 > second.1));
}

#[test]
fn replay_restores_the_times_of_segments() {
    let bench = rolled();
    bench.wal.close().unwrap();
    let before = bench.wal.segments();
    let fs = bench.kill();
    let again = Bench::open(&fs, 4, options(2));
    assert_eq!(again.wal.segments(), before);
}

#[test]
fn restarts_without_writes_leave_no_segments() {
    let fs = FaultFs::new();
    for seed in 0..5 {
        let bench = Bench::open(&fs, seed, options(2));
        bench.wal.close().unwrap();
    }
    assert_eq!(names(&fs), Vec::<String>::new());
}

#[test]
fn a_ticket_covers_what_is_applied_and_no_more() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 3, options(2));
    assert!(bench.waiter.poll(bench.shards.ticket(0)).unwrap(), "nothing was ever pending");
    let batch = bench.shards.append(0, &[(0, 1, 1.0)]);
    assert_eq!(bench.shards.ticket(0), batch, "a duplicate waits for its original");
    assert!(bench.waiter.poll(bench.shards.ticket(1)).unwrap(), "another shard has nothing to wait for");
    assert!(bench.settle(batch));
    assert_eq!(bench.shards.ticket(0), batch, "taken: the last batch covers it");
    assert!(bench.shards.append(1, &[(1, 1, 1.0)]) > batch);
}

#[test]
fn a_duplicate_of_a_batch_in_flight_waits_for_it() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 3, options(2));
    fs.fail(chronolith_env::Op::Sync, 1, 1, chronolith_testkit::fault_fs::Fault::Io);
    let batch = bench.shards.append(0, &[(0, 1, 1.0)]);
    assert!(!bench.settle(batch));
    let duplicate = bench.shards.ticket(0);
    assert_eq!(duplicate, batch);
    assert!(!bench.waiter.poll(duplicate).unwrap(), "taken, but not durable");
    bench.fake.scheduler.run_for(std::time::Duration::from_secs(1));
    assert!(bench.waiter.poll(duplicate).unwrap());
    assert!(bench.waiter.poll(Batch::default()).unwrap());
}

#[test]
fn waiters_share_syncs() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 3, options(4));
    let batches: Vec<Batch> =
        (0..100_u32).map(|i| bench.shards.append(i as usize % 4, &[(i, 1, 1.0)])).collect();
    let before = bench.wal.stats().snapshot();
    assert!(batches.iter().all(|batch| *batch == batches[0]));
    assert!(bench.settle(batches[99]));
    let after = bench.wal.stats().snapshot();
    assert_eq!((after.syncs - before.syncs, after.samples, after.series), (1, 100, 100));
    assert_eq!(after.bytes + 40, bench.wal.segments()[0].bytes);
    assert_eq!(after.sync_buckets[11], after.syncs);
}
