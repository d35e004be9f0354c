//! Many writers at once, on the real file system.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chronolith_env::Env;
use chronolith_wal::{CommitError, LogSource, ShardLog, Turn, Wal, WalOptions};

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
    let options = WalOptions { shards: 1, commit_timeout: Duration::from_secs(60), ..WalOptions::default() };
    let wal = Wal::open(&env, dir.path(), options).unwrap().start(Arc::new(Panicking)).unwrap();
    let mut log = ShardLog::new();
    let nothing = log.ticket();
    log.sample(1, 1, 1.0);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(matches!(wal.wait(log.ticket()), Err(CommitError::Died))));
        }
    });
    assert!(begin.elapsed() < Duration::from_secs(20), "nobody waits for a timeout");
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
    let mut want: Vec<Row> = std::thread::scope(|scope| {
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
