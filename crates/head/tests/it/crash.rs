//! A crash or a failure at every call of a snapshot and of the deletion behind it.

use chronolith_env::{Op, Rng};
use chronolith_testkit::fake_env::SimRng;
use chronolith_testkit::fault_fs::{CrashMode, Fault, FaultFs};

use crate::support::{NOW, Rows, Store, steps};

const MODES: [CrashMode; 4] =
    [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll];

/// What was sent, and what of it was acknowledged.
#[derive(Clone, Default)]
struct Model {
    sent: Rows,
    acknowledged: Rows,
}

impl Model {
    fn commit(&mut self, store: &Store, batch: &[(u32, i64, u64)]) {
        for (series, t, bits) in batch {
            self.sent.insert((0, *series, *t), *bits);
        }
        if store.commit(0, batch) {
            for (series, t, bits) in batch {
                self.acknowledged.insert((0, *series, *t), *bits);
            }
        }
    }

    fn check(&self, rows: &Rows, what: &str) {
        for (at, bits) in &self.acknowledged {
            assert_eq!(rows.get(at), Some(bits), "{what}: lost {at:?}");
        }
        for (at, bits) in rows {
            assert_eq!(self.sent.get(at), Some(bits), "{what}: invented {at:?}");
        }
    }
}

/// A life with a snapshot already there, something behind it in the log and something pending; then another snapshot.
fn prepare(fs: &FaultFs, model: &mut Model, segment_bytes: u64) -> Store {
    let store = Store::try_open(fs, 1, segment_bytes).unwrap();
    let mut batches = steps(15, 12);
    for batch in batches.by_ref().take(6) {
        model.commit(&store, &batch);
    }
    store.snapshot().unwrap();
    for batch in batches {
        model.commit(&store, &batch);
    }
    model.sent.insert((0, 77, NOW), 5);
    store.append(0, &[(77, NOW, 5)]).unwrap();
    store
}

#[test]
fn a_crash_at_every_call() {
    let rng = SimRng::new(7);
    let mut points = 0;
    for calls in 0.. {
        let mut finished = false;
        // Which names and bytes survive is chance in one mode: several tries.
        for mode in MODES.into_iter().chain([CrashMode::Subset; 8]) {
            let fs = FaultFs::new();
            let mut model = Model::default();
            let store = prepare(&fs, &mut model, 1500);
            fs.halt_after(calls);
            let done = store.snapshot().is_ok();
            finished = done && !fs.halted();
            store.kill();
            fs.heal();
            fs.crash(mode, &rng);
            points += 1;
            lives(&fs, model, &rng, &format!("call {calls}, {mode:?}"));
        }
        if finished {
            break;
        }
    }
    assert!(points > 4 * 20, "{points}");
}

/// What a crash left is read, goes on, and survives further crashes.
fn lives(fs: &FaultFs, mut model: Model, rng: &SimRng, what: &str) {
    for life in 0..2 {
        let store = Store::try_open(fs, 2 + life, 1500).unwrap();
        let rows = store.rows();
        model.check(&rows, &format!("{what}, life {life}"));
        assert_eq!((store.loaded.damage_count, store.outcome.orphans), (0, 0), "{what}");
        assert_eq!(store.head.stats().samples, rows.len() as u64, "{what}: something is there twice");
        // What was shown stays: it may be acknowledged as known.
        model = Model { sent: rows.clone(), acknowledged: rows };
        let t = NOW + 1 + life as i64;
        model.commit(&store, &[(3, t, 1), (200 + life as u32, t, 2)]);
        if rng.next_u64().is_multiple_of(2) {
            store.snapshot().unwrap();
        }
        store.kill();
        fs.crash(MODES[(rng.next_u64() % 4) as usize], rng);
    }
    let store = Store::try_open(fs, 9, 1500).unwrap();
    model.check(&store.rows(), what);
}

#[test]
fn a_failure_at_every_call() {
    let rng = SimRng::new(8);
    for op in [Op::Write, Op::Create, Op::Sync, Op::Rename, Op::Remove, Op::SyncDir, Op::List] {
        for nth in 1.. {
            let fs = FaultFs::new();
            let mut model = Model::default();
            let store = prepare(&fs, &mut model, 1500);
            let before = fs.calls(op);
            fs.fail(op, nth, 1, Fault::Io);
            let _ = store.snapshot();
            let reached = fs.calls(op) >= before + nth;
            model.commit(&store, &[(4, NOW + 1, 9)]);
            let _ = store.snapshot();
            store.kill();
            fs.heal();
            fs.crash(MODES[(rng.next_u64() % 4) as usize], &rng);
            lives(&fs, model, &rng, &format!("{op:?} {nth}"));
            if !reached {
                break;
            }
        }
    }
}
