//! Many writers at once, on the real file system.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use chronolith_env::Env;
use chronolith_wal::{
    CommitError, LogSource, LoggedBlob, LoggedSample, LoggedStart, Replay, SeriesDef, ShardLog, Turn, Wal,
    WalOptions,
};
use parking_lot::{Condvar, Mutex};

use crate::support::{Row, Shards, replay_with};

/// Panics when it is asked for what is pending.
struct Panicking;

impl LogSource for Panicking {
    fn take(&self, _: usize, _: Turn, _: &mut ShardLog) {
        panic!("as a defect of the log or its source would");
    }
}

#[test]
fn a_panic_of_the_committer_ends_the_log_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let options = WalOptions { shards: 1, commit_timeout: Duration::from_secs(600), ..WalOptions::default() };
    let wal = Wal::open(&env, dir.path(), options).unwrap().start(Arc::new(Panicking)).unwrap();
    let mut log = ShardLog::new();
    let nothing = log.ticket();
    log.sample(1, 1, 1.0);
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(matches!(wal.wait(log.ticket()), Err(CommitError::Died))));
        }
    });
    assert!(begin.elapsed() < Duration::from_secs(200), "nobody waits for a timeout");
    assert!(matches!(wal.admit(), Err(CommitError::Died)), "nothing more is taken");
    assert!(matches!(wal.waiter().poll(log.ticket()), Err(CommitError::Died)));
    assert!(wal.waiter().poll(nothing).unwrap(), "what was durable is");
    assert!(wal.stats().snapshot().died);
    assert!(matches!(wal.close(), Err(CommitError::Died)));
}

#[test]
fn every_acknowledged_sample_of_many_writers_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let options = WalOptions {
        shards: 4,
        segment_bytes: 20_000,
        gather: Duration::from_micros(200),
        ..WalOptions::default()
    };
    let wal = Wal::open(&env, dir.path(), options).unwrap();
    let shards = Shards::new(4);
    let wal = wal.start(Arc::<Shards>::clone(&shards)).unwrap();
    let stop = AtomicBool::new(false);
    // While writers run, a copy of the file as it is right after an acknowledgement must hold what was acknowledged.
    let writer = |id: u32| {
        let mut rows: Vec<Row> = Vec::new();
        for i in 0..60_i64 {
            let mut last = None;
            for shard in 0..4_u32 {
                let samples =
                    [(id * 4 + shard, i, f64::from(id) + i as f64), ((id + 50) * 4 + shard, i, 0.5)];
                last = last.max(Some(shards.append(shard as usize, &samples)));
                rows.extend(samples.iter().map(|(s, t, v)| (*s, *t, v.to_bits())));
            }
            wal.wait(last.unwrap()).unwrap();
            if id == 0 && i % 20 == 19 {
                let copy = tempfile::tempdir().unwrap();
                for entry in std::fs::read_dir(dir.path()).unwrap() {
                    let entry = entry.unwrap();
                    if entry.path().extension().is_some_and(|ext| ext == "wal") {
                        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
                    }
                }
                let (_, _, replayed) = replay_with(&Env::real(), copy.path(), 2);
                let there: BTreeSet<Row> = replayed.sorted().into_iter().collect();
                assert!(rows.iter().all(|row| there.contains(row)));
            }
        }
        rows
    };
    let mut want: Vec<Row> = thread::scope(|scope| {
        let handles: Vec<_> = (0..6).map(|id| scope.spawn(move || writer(id))).collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    stop.store(true, Ordering::Relaxed);
    wal.close().unwrap();
    let stats = wal.stats().snapshot();
    assert!(stats.syncs < 360, "waiters share syncs: {}", stats.syncs);
    assert!(wal.segments().len() > 1);
    want.sort_unstable();
    let (opened, report, replayed) = replay_with(&env, dir.path(), 3);
    assert_eq!(replayed.sorted(), want);
    assert_eq!((opened.torn_tail, report.damage_count), (None, 0));
    // Per series, in the order in which they were applied.
    for rows in replayed.rows.lock().values() {
        let mut last = std::collections::BTreeMap::new();
        for (series, t, _) in rows {
            assert!(last.insert(series, t).is_none_or(|before| before < t));
        }
    }
}

/// Holds up whoever hands over the first entries until others do so at the same time.
#[derive(Default)]
struct Meeting {
    /// Shards that have been handed over something, by thread.
    inside: Mutex<HashMap<ThreadId, BTreeSet<usize>>>,
    changed: Condvar,
    /// Nobody came.
    given_up: AtomicBool,
}

impl Meeting {
    /// Waits for as many threads as there are `workers`, if they come.
    fn meet(&self, shard: usize, workers: usize) {
        let mut inside = self.inside.lock();
        inside.entry(thread::current().id()).or_default().insert(shard);
        self.changed.notify_all();
        let end = Instant::now() + Duration::from_secs(60);
        while inside.len() < workers && !self.given_up.load(Ordering::Relaxed) {
            let late = self.changed.wait_until(&mut inside, end).timed_out();
            self.given_up.fetch_or(late, Ordering::Relaxed);
        }
    }
}

/// Sees which threads hand over what.
#[derive(Default)]
struct Met {
    definitions: Meeting,
    samples: Meeting,
}

const WORKERS: usize = 3;

impl Replay for Met {
    fn series(&self, shard: usize, _: &SeriesDef<'_>) {
        self.definitions.meet(shard, WORKERS);
    }

    fn floor(&self, _: Option<&str>, _: i64) {}

    fn samples(&self, shard: usize, _: u64, _: &[LoggedSample]) {
        self.samples.meet(shard, WORKERS);
    }

    fn histograms(&self, _: usize, _: u64, _: &[LoggedBlob<'_>]) {}

    fn starts(&self, _: usize, _: u64, _: &[LoggedStart]) {}

    fn exemplars(&self, _: usize, _: u64, _: &[LoggedBlob<'_>]) {}
}

#[test]
fn shards_are_replayed_at_the_same_time_by_several_threads() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let options = WalOptions { shards: 7, ..WalOptions::default() };
    let shards = Shards::new(7);
    let wal = Wal::open(&env, dir.path(), options).unwrap().start(Arc::<Shards>::clone(&shards)).unwrap();
    for t in 0..3 {
        let batches = (0..7).map(|shard| shards.append(shard, &[(shard as u32, t, 1.0)])).collect::<Vec<_>>();
        wal.wait(batches.into_iter().max().unwrap()).unwrap();
    }
    wal.close().unwrap();
    let met = Met::default();
    let report = Wal::open(&env, dir.path(), options).unwrap().replay(WORKERS, &met).unwrap();
    // A definition stands twice.
    assert_eq!((report.series, report.samples), (14, 21));
    for meeting in [met.definitions, met.samples] {
        let inside = meeting.inside.into_inner();
        // A pass may take up new threads for each window, but all there is here is one window.
        assert_eq!(inside.len(), WORKERS, "each waits in the middle of its work for the others: {inside:?}");
        let mut by_shard = BTreeSet::new();
        for shards in inside.values() {
            assert!(shards.len() >= 2 && shards.iter().all(|shard| by_shard.insert(*shard)), "{inside:?}");
        }
        assert_eq!(by_shard.len(), 7, "a shard is one thread's alone");
    }
}
