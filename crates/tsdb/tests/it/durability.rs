//! Nothing acknowledged is lost, nothing is invented.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chronolith_env::{Env, Op};
use chronolith_model::{Sample, TenantId, stale_nan};
use chronolith_storage::StorageError;
use chronolith_testkit::{
    fake_env::SimRng,
    fault_fs::{CrashMode, Fault},
    hook_fs::HookFs,
};
use chronolith_tsdb::{Db, DbOptions};
use parking_lot::{Condvar, Mutex};

use crate::fixture::{DIR, Machine, NOW, append, content, count, eventually, metric, quick, scrape};

/// Where syncs of files wait while it is shut.
#[derive(Debug, Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicBool,
}

impl Gate {
    /// A gate on the disk of `machine`.
    fn on(machine: &Machine) -> (Arc<Self>, Env) {
        let gate = Arc::new(Self::default());
        let on_way = Arc::clone(&gate);
        let fs = HookFs::new(Arc::new(machine.fs.clone()), move |call| {
            if call.op == Op::Sync {
                on_way.pass();
            }
            Ok(())
        });
        (gate, Env { fs: Arc::new(fs), ..machine.env.clone() })
    }

    fn set(&self, shut: bool) {
        *self.shut.lock() = shut;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut shut = self.shut.lock();
        while *shut {
            self.waiting.store(true, Ordering::SeqCst);
            self.opened.wait(&mut shut);
        }
    }
}

/// Opens the gate at the end, so that a failed test ends too: closing the database waits for the disk.
struct OpenAtLast(Arc<Gate>);

impl Drop for OpenAtLast {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[test]
fn a_silent_duplicate_waits_for_the_commit_of_its_original() {
    let machine = Machine::new();
    let (gate, env) = Gate::on(&machine);
    let (db, _) = Db::open(Path::new(DIR), quick(), env).expect("opens");
    let _open_at_last = OpenAtLast(Arc::clone(&gate));
    let db = &db;
    let tenant = TenantId::default();
    let batch = scrape("m", 100, NOW, 1.0);
    append(db, &tenant, &scrape("m", 100, NOW - 1, 1.0)).expect("taken").ticket.wait().expect("durable");
    gate.set(true);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let original = append(db, &tenant, &batch).expect("taken");
        assert_eq!(original.outcome.stored, 100);
        let original = scope.spawn(move || original.ticket.wait());
        // The original has been taken by the committer: nothing is pending any more, it is on its way to disk.
        eventually("the committer syncs", || gate.waiting.load(Ordering::SeqCst));
        let repeated = append(db, &tenant, &batch).expect("taken");
        assert_eq!((repeated.outcome.stored, repeated.outcome.duplicates), (0, 100));
        assert!(!repeated.ticket.is_done());
        let repeated = scope.spawn(|| {
            let waited = repeated.ticket.wait();
            done.store(true, Ordering::SeqCst);
            waited
        });
        std::thread::sleep(Duration::from_millis(200));
        assert!(!done.load(Ordering::SeqCst), "acknowledged before its original was durable");
        gate.set(false);
        original.join().expect("joined").expect("durable");
        repeated.join().expect("joined").expect("durable");
    });
    let repeated = append(db, &tenant, &batch).expect("taken");
    eventually("nothing is waited for any more", || repeated.ticket.is_done());
}

#[test]
fn acknowledged_samples_survive_a_crash_bit_for_bit() {
    let mut rng = 7_u64;
    let mut next = move || {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        rng
    };
    for (seed, mode) in [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll]
        .into_iter()
        .cycle()
        .take(16)
        .enumerate()
    {
        let machine = Machine::new();
        let options = DbOptions { segment_bytes: 8 << 10, ..quick() };
        let tenants = [TenantId::default(), TenantId::new("other").expect("valid")];
        let mut sent = [crate::fixture::Content::new(), crate::fixture::Content::new()];
        let mut acked = sent.clone();
        let mut t = NOW - 3_600_000;
        for _ in 0..4 {
            let (db, report) = machine.open(options);
            assert_eq!(
                (report.damage_count, report.samples_orphaned),
                (0, 0),
                "{mode:?}: {:?}",
                report.damage
            );
            for step in 0..30 {
                t += 1 + (next() % 5000) as i64;
                let who = (next() % 2) as usize;
                let batch: Vec<_> = (0..next() % 40)
                    .map(|id| {
                        let value = if next() % 9 == 0 { stale_nan() } else { f64::from_bits(next()) };
                        (metric("m", id as usize), vec![Sample::new(t, value)])
                    })
                    .collect();
                let appended = append(&db, &tenants[who], &batch).expect("taken");
                assert_eq!(appended.outcome.stored, batch.len() as u64);
                let wait = next() % 3 > 0 && step < 28;
                if wait {
                    appended.ticket.wait().expect("durable");
                }
                for (labels, samples) in batch {
                    for sample in samples {
                        let known = (sample.timestamp, sample.value.to_bits());
                        sent[who].entry(labels.clone()).or_default().extend([known]);
                        if wait {
                            acked[who].entry(labels.clone()).or_default().extend([known]);
                        }
                    }
                }
            }
            machine.crash(db, mode, seed as u64);
            let (db, _) = machine.open(options);
            for who in 0..2 {
                let stored = content(&db, &tenants[who]);
                for (labels, samples) in &acked[who] {
                    for (t, bits) in samples {
                        assert_eq!(
                            stored.get(labels).and_then(|s| s.get(t)),
                            Some(bits),
                            "{mode:?} lost {labels} {t}"
                        );
                    }
                }
                for (labels, samples) in &stored {
                    for (t, bits) in samples {
                        assert_eq!(sent[who][labels].get(t), Some(bits), "{mode:?} invented {labels} {t}");
                    }
                }
                // What survived unacknowledged stays from now on.
                acked[who] = stored;
            }
            db.close().expect("closes");
        }
    }
}

#[test]
fn without_syncs_a_crash_loses_acknowledged_samples() {
    // What the tests above would miss if the log did not sync.
    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    machine.fs.lie_about_syncs(true);
    append(&db, &TenantId::default(), &scrape("m", 10, NOW, 1.0))
        .expect("taken")
        .ticket
        .wait()
        .expect("so it says");
    machine.crash(db, CrashMode::LoseUnsynced, 1);
    machine.fs.lie_about_syncs(false);
    let (db, _) = machine.open(quick());
    assert!(content(&db, &TenantId::default()).is_empty());
}

#[test]
fn a_log_that_cannot_be_written_refuses_and_recovers() {
    let machine = Machine::new();
    let options = DbOptions { commit_timeout: Duration::from_millis(300), ..quick() };
    let (db, _) = machine.open(options);
    let tenant = TenantId::default();
    append(&db, &tenant, &scrape("m", 10, NOW, 1.0)).expect("taken").ticket.wait().expect("durable");
    for op in [Op::Write, Op::Sync, Op::Create] {
        machine.fs.fail(op, 1, u64::MAX, Fault::Full);
    }
    let doomed = append(&db, &tenant, &scrape("m", 10, NOW + 1, 2.0)).expect("taken before anyone knows");
    let error = doomed.ticket.wait().expect_err("cannot be durable");
    assert!(
        matches!(&error, StorageError::Unavailable { reason } if reason.contains("no space left")),
        "{error}"
    );
    let refused = append(&db, &tenant, &scrape("m", 10, NOW + 2, 3.0)).expect_err("refused up front");
    assert!(matches!(refused, StorageError::Unavailable { .. }));
    machine.fs.heal();
    eventually("the log recovers", || {
        machine.clock.advance(Duration::from_secs(1));
        append(&db, &tenant, &scrape("m", 10, NOW + 3, 4.0))
            .is_ok_and(|appended| appended.ticket.wait().is_ok())
    });
    // The sender repeats what it was not told of.
    let repeated = append(&db, &tenant, &scrape("m", 10, NOW + 1, 2.0)).expect("taken");
    assert_eq!((repeated.outcome.duplicates, repeated.outcome.rejected), (10, 0));
    repeated.ticket.wait().expect("durable");
    let late = append(&db, &tenant, &scrape("m", 1, NOW + 2, 3.0)).expect("taken");
    assert_eq!(late.outcome.stored, 1, "what was refused comes late");
    late.ticket.wait().expect("durable");
    let before = content(&db, &tenant);
    machine.fs.crash(CrashMode::LoseUnsynced, &SimRng::new(3));
    drop(db);
    let (db, report) = machine.open(options);
    assert_eq!(report.samples_orphaned, 0);
    assert_eq!(content(&db, &tenant), before);
    assert_eq!(count(&before), 31);
}

#[test]
fn numbers_of_series_are_not_reused_after_a_restart() {
    let machine = Machine::new();
    let tenant = TenantId::default();
    let mut expected = crate::fixture::Content::new();
    for start in 0..5_usize {
        let (db, _) = machine.open(quick());
        // New series each time: were a number given twice, two series' samples would meet in one.
        let batch = scrape(&format!("m{start}"), 50, NOW + start as i64, start as f64 * 1000.0);
        append(&db, &tenant, &batch).expect("taken").ticket.wait().expect("durable");
        for (labels, samples) in batch {
            expected.insert(labels, samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect());
        }
        assert_eq!(content(&db, &tenant), expected);
        machine.crash(db, CrashMode::LoseUnsynced, 1);
    }
}

#[test]
fn what_waits_for_a_stalled_disk_is_bounded() {
    let machine = Machine::new();
    let (gate, env) = Gate::on(&machine);
    let (db, _) = Db::open(Path::new(DIR), quick(), env).expect("opens");
    let _open_at_last = OpenAtLast(Arc::clone(&gate));
    let tenant = TenantId::default();
    gate.set(true);
    // Large labels: the log grows by their definitions.
    let text = "x".repeat(64 << 10);
    let series = |id: usize| {
        let labels = [("__name__", "m".to_owned()), ("text", format!("{id}{text}"))];
        [(chronolith_model::Labels::from_pairs(labels), vec![Sample::new(NOW, 1.0)])]
    };
    let mut tickets = Vec::new();
    let refused = (0..10_000).find_map(|id| match append(&db, &tenant, &series(id)) {
        Ok(appended) => {
            if id == 0 {
                assert!(!appended.ticket.is_done());
                eventually("the committer syncs", || gate.waiting.load(Ordering::SeqCst));
            }
            tickets.push(appended.ticket);
            None
        }
        Err(error) => Some(error),
    });
    let Some(StorageError::Unavailable { reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("log is behind"), "{reason}");
    // 64 MiB and what the last one adds, but not much less either.
    assert!((1023..=1030).contains(&tickets.len()), "{}", tickets.len());
    gate.set(false);
    for ticket in tickets {
        ticket.wait().expect("durable");
    }
    append(&db, &tenant, &series(20_000)).expect("taken again").ticket.wait().expect("durable");
}
