//! Power cuts: what was acknowledged is there, what was never logged is not.

use std::collections::BTreeSet;
use std::time::Duration;

use chronolith_env::{Op, Rng};
use chronolith_testkit::fake_env::SimRng;
use chronolith_testkit::fault_fs::{CrashMode, Fault, FaultFs};
use chronolith_wal::{SyncPolicy, WalOptions};

use crate::support::{Bench, Kind, Row, Shards};

const MODES: [CrashMode; 4] =
    [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll];

/// What one run has come to.
#[derive(Debug, Default)]
struct Outcome {
    acknowledged: usize,
    lost: usize,
    damage: u64,
}

/// A few lives of a log, each ended by a crash at a random moment. `lying`: the disk saves nothing when asked to.
fn run(seed: u64, sync: SyncPolicy, lying: bool, modes: &[CrashMode]) -> Outcome {
    let rng = SimRng::new(seed);
    let below = |n: u64| rng.next_u64() % n;
    let fs = FaultFs::new();
    fs.lie_about_syncs(lying);
    let options = WalOptions { shards: 3, segment_bytes: 2000, sync, ..WalOptions::default() };
    let (mut sent, mut acknowledged) = (BTreeSet::<Row>::new(), BTreeSet::<Row>::new());
    let mut outcome = Outcome::default();
    let mut clock = 0_i64;
    for life in 0..5 {
        let bench = Bench::open(&fs, seed * 100 + life, options);
        let rows = bench.replayed.sorted();
        outcome.damage += bench.report.damage_count;
        let there: BTreeSet<Row> = rows.iter().copied().collect();
        assert_eq!(there.len(), rows.len(), "seed {seed}: something is there twice");
        assert!(there.is_subset(&sent), "seed {seed}: something was invented");
        outcome.lost += acknowledged.difference(&there).count();
        // What a crash has taken stays away, unless it was acknowledged.
        sent = there.clone();
        acknowledged = there;
        let defined = bench.replayed.series.lock().keys().copied().collect::<BTreeSet<_>>();
        let undefined = sent.iter().any(|(series, ..)| !defined.contains(series));
        assert!(lying || !undefined, "seed {seed}: a series without definition");
        let mut waiting = Vec::new();
        for _ in 0..below(40) {
            let shard = below(3) as usize;
            let samples: Vec<(Kind, u32, i64, f64)> = (0..1 + below(30))
                .map(|_| {
                    clock += 1;
                    let kind = Kind::ALL[below(8).min(3) as usize];
                    (kind, (below(40) * 3) as u32 + shard as u32, clock, clock as f64)
                })
                .collect();
            let batch = bench.shards.append_kinds(shard, &samples);
            let rows: Vec<Row> = samples.iter().map(|(_, s, t, v)| (*s, *t, v.to_bits())).collect();
            sent.extend(&rows);
            waiting.push((batch, rows));
            if below(3) == 0 {
                bench.waiter.poll(batch).unwrap();
                bench.fake.scheduler.run_for(Duration::from_millis(below(4)));
            }
            waiting.retain(|(batch, rows)| {
                let durable = bench.waiter.poll(*batch).unwrap();
                if durable {
                    acknowledged.extend(rows);
                }
                !durable
            });
        }
        outcome.acknowledged += acknowledged.len();
        bench.kill();
        fs.crash(modes[below(modes.len() as u64) as usize], &rng);
    }
    outcome
}

#[test]
fn what_was_acknowledged_survives_every_crash() {
    let mut acknowledged = 0;
    for seed in 0..150 {
        let outcome = run(seed, SyncPolicy::Always, false, &MODES);
        assert_eq!(outcome.lost, 0, "seed {seed}");
        assert_eq!(outcome.damage, 0, "seed {seed}: a torn tail is no damage");
        acknowledged += outcome.acknowledged;
    }
    assert!(acknowledged > 50_000, "the test has tested something: {acknowledged}");
}

/// The proof that the test above can fail.
#[test]
fn without_syncs_the_same_crashes_lose_samples() {
    let lost: usize = (0..20).map(|seed| run(seed, SyncPolicy::Always, true, &MODES).lost).sum();
    assert!(lost > 0);
}

#[test]
fn an_interval_loses_with_the_machine_but_not_with_the_process() {
    let interval = SyncPolicy::Interval(Duration::from_secs(1));
    let lost: usize = (0..20).map(|seed| run(seed, interval, false, &[CrashMode::LoseUnsynced]).lost).sum();
    assert!(lost > 0);
    for seed in 0..20 {
        assert_eq!(run(seed, interval, false, &[CrashMode::KeepAll]).lost, 0, "seed {seed}");
    }
}

#[test]
fn an_interval_loses_nothing_older_than_itself() {
    let fs = FaultFs::new();
    let sync = SyncPolicy::Interval(Duration::from_millis(100));
    let bench = Bench::open(&fs, 1, WalOptions { shards: 1, sync, ..WalOptions::default() });
    assert!(bench.commit(0, &[(1, 1, 1.0)]));
    bench.fake.scheduler.run_for(Duration::from_millis(100));
    assert!(bench.commit(0, &[(1, 2, 2.0)]));
    bench.kill();
    fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
    let rows = Bench::open(&fs, 2, WalOptions { shards: 1, ..WalOptions::default() }).replayed.sorted();
    assert_eq!(rows, [(1, 1, 1_f64.to_bits())]);
}

/// Asks for the next commit while the committer is still at work, as many writers at once do.
struct Busy {
    shards: std::sync::Arc<Shards>,
    waiter: std::sync::OnceLock<chronolith_wal::CommitWaiter>,
}

impl chronolith_wal::LogSource for Busy {
    fn take(&self, shard: usize, turn: chronolith_wal::Turn, into: &mut chronolith_wal::ShardLog) {
        chronolith_wal::LogSource::take(self.shards.as_ref(), shard, turn, into);
        let batch = self.shards.append(shard, &[(1, 1, 1.0)]);
        let _ = self.waiter.get().unwrap().poll(batch);
    }
}

#[test]
fn an_interval_is_kept_when_nobody_is_ever_idle() {
    let fs = FaultFs::new();
    let fake = chronolith_testkit::fake_env::FakeEnv::new(std::sync::Arc::new(fs), 1);
    let sync = SyncPolicy::Interval(Duration::from_millis(100));
    let options = WalOptions { shards: 1, sync, ..WalOptions::default() };
    let opened =
        chronolith_wal::Wal::open(&fake.env, std::path::Path::new(crate::support::DIR), options).unwrap();
    let shards = Shards::new(1);
    let busy = std::sync::Arc::new(Busy {
        shards: std::sync::Arc::clone(&shards),
        waiter: std::sync::OnceLock::new(),
    });
    let wal = opened.start(std::sync::Arc::<Busy>::clone(&busy)).unwrap();
    busy.waiter.set(wal.waiter()).unwrap();
    let _ = wal.waiter().poll(shards.append(0, &[(1, 1, 1.0)]));
    fake.scheduler.run_for(Duration::from_millis(1050));
    let stats = wal.stats().snapshot();
    assert!(stats.batches > 100, "{}", stats.batches);
    assert!((8..=12).contains(&stats.syncs), "{}", stats.syncs);
    fake.scheduler.kill();
}

#[test]
fn an_interval_whose_sync_fails_costs_no_later_sample() {
    let fs = FaultFs::new();
    let sync = SyncPolicy::Interval(Duration::from_millis(100));
    let bench = Bench::open(&fs, 1, WalOptions { shards: 1, sync, ..WalOptions::default() });
    assert!(bench.commit(0, &[(1, 1, 1.0)]));
    // The device takes nothing, and what was to be written is gone: the definition of the series too.
    fs.fail(Op::Sync, 1, 2, Fault::Io);
    bench.fake.scheduler.run_for(Duration::from_secs(1));
    assert_eq!(bench.wal.stats().snapshot().failures, 1);
    for t in 2..5 {
        assert!(bench.commit(0, &[(1, t, 1.0)]));
    }
    bench.fake.scheduler.run_for(Duration::from_secs(1));
    bench.kill();
    fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
    let (_, _, replayed) = crate::support::replay(&fs);
    let defined = replayed.series.lock().contains_key(&1);
    assert!(defined && replayed.sorted().iter().any(|(_, t, _)| *t == 4), "{:?}", replayed.sorted());
}
