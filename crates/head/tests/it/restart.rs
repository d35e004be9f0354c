//! What a restart brings back.

use chronolith_env::Op;
use chronolith_head::{ExtraSection, SNAPSHOT_LOG_BYTES, Snapshots};
use chronolith_testkit::fake_env::SimRng;
use chronolith_testkit::fault_fs::{CrashMode, Fault, FaultFs};

use crate::support::{HEAD_DIR, NOW, Rows, Store, WAL_DIR, names, steps};

fn insert(rows: &mut Rows, of: usize, batch: &[(u32, i64, u64)]) {
    for (series, t, bits) in batch {
        rows.entry((of, *series, *t)).or_insert(*bits);
    }
}

#[test]
fn everything_comes_back_bit_for_bit() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    let mut rows = Rows::new();
    for (step, batch) in steps(300, 250).enumerate() {
        let of = usize::from(step % 7 == 0);
        assert!(store.commit(of, &batch));
        insert(&mut rows, of, &batch);
    }
    // Late ones: some raw, some in chunks.
    let late: Vec<_> = (0..80).map(|at| (3_u32, NOW - 1_000_000 + at * 1000 + 7, 42_u64)).collect();
    for sample in late.iter().rev() {
        assert!(store.commit(0, &[*sample]));
    }
    insert(&mut rows, 0, &late);
    assert_eq!(store.rows(), rows);
    let references = store.references();
    let extra = ExtraSection { section_type: 64, bytes: vec![7; 5000] };
    let report = store.snapshots.write(&store.head, vec![extra.clone()]).unwrap();
    assert_eq!((report.series, report.samples), (references.len() as u64, rows.len() as u64));
    // What comes later is in the log alone.
    let tail: Vec<_> = (0..310).map(|series| (series, NOW, u64::from(series))).collect();
    assert!(store.commit(0, &tail));
    insert(&mut rows, 0, &tail);
    let stored = store.head.stats().samples;
    store.kill();
    let store = Store::open(&fs, 2);
    assert_eq!(store.rows(), rows);
    assert_eq!(store.head.stats().samples, stored, "nothing is there twice");
    assert_eq!((store.loaded.number, store.loaded.damage_count, store.outcome.orphans), (Some(1), 0, 0));
    assert_eq!(store.loaded.extras, [extra]);
    assert!(store.log.covered > 200 && store.outcome.stored >= 310, "{:?}", store.log);
    let now = store.references();
    for (series, (reference, _)) in references {
        assert_eq!(now[&series].0, reference, "numbers are stable");
    }
    assert_eq!(now[&(0, 9)].1, Some((NOW, 9)));
    // The order of each series goes on where it was.
    assert!(store.commit(0, &[(5, NOW, 5), (5, NOW + 1, 1)]));
    assert_eq!(store.rows().len(), rows.len() + 1);
}

#[test]
fn the_log_goes_when_a_snapshot_covers_it() {
    let fs = FaultFs::new();
    let mut rows = Rows::new();
    let mut last = 0;
    for life in 0..4 {
        let store = Store::open(&fs, life);
        assert_eq!(store.rows(), rows, "life {life}");
        for batch in steps(40, 100).skip(life as usize * 25).take(25) {
            assert!(store.commit(0, &batch));
            insert(&mut rows, 0, &batch);
        }
        let report = store.snapshot().unwrap();
        assert!(report.covered.unwrap() > last && report.number == life as u32 + 1);
        last = report.covered.unwrap();
        assert_eq!(names(&fs, HEAD_DIR, ".snapshot"), [format!("{:08}.snapshot", report.number)]);
        let segments = names(&fs, WAL_DIR, ".wal").len();
        assert!(segments <= 3, "{segments} segments");
        assert_eq!(store.rows(), rows);
        store.kill();
        fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
        let snapshots = names(&fs, HEAD_DIR, ".snapshot");
        assert_eq!(snapshots.len(), 1, "one whose log is gone does not come back");
    }
}

#[test]
fn a_log_that_is_gone_begins_above_the_snapshot() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    for batch in steps(10, 50) {
        assert!(store.commit(0, &batch));
    }
    store.snapshot().unwrap();
    store.kill();
    for name in names(&fs, WAL_DIR, ".wal") {
        chronolith_env::Fs::remove_file(&fs, &std::path::Path::new(WAL_DIR).join(name)).unwrap();
    }
    let store = Store::open(&fs, 2);
    assert!(store.commit(0, &[(3, NOW, 77)]));
    let rows = store.rows();
    store.kill();
    let store = Store::open(&fs, 3);
    assert_eq!(store.rows(), rows, "what was logged since is not taken for known");
    assert_eq!(rows[&(0, 3, NOW)], 77);
}

#[test]
fn a_snapshot_has_more_than_its_number_says_never_less() {
    // Pending samples are in the snapshot, and come again from the log: once only.
    for keep in [false, true] {
        let fs = FaultFs::new();
        let store = Store::open(&fs, 1);
        for batch in steps(20, 10) {
            assert!(store.commit(0, &batch));
        }
        let pending = store.append(0, &[(1, NOW, 11), (99, NOW, 12)]).unwrap();
        let rows = store.rows();
        store.snapshot().unwrap();
        if keep {
            assert!(store.settle(pending));
        }
        store.kill();
        fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
        let store = Store::open(&fs, 2);
        assert_eq!(store.rows(), rows);
        assert_eq!(store.head.stats().samples, rows.len() as u64);
        // The number of the new series is not given away again.
        assert!(store.commit(0, &[(100, NOW, 13), (99, NOW + 1, 14)]));
        let rows = store.rows();
        store.kill();
        assert_eq!(Store::open(&fs, 3).rows(), rows);
    }
}

#[test]
fn a_full_disk_leaves_the_old_state() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    for batch in steps(200, 60) {
        assert!(store.commit(0, &batch));
    }
    let first = store.snapshot().unwrap();
    assert!(store.commit(0, &[(1, NOW, 1)]));
    let (segments, rows) = (names(&fs, WAL_DIR, ".wal"), store.rows());
    for (op, fault) in
        [(Op::Write, Fault::Full), (Op::Create, Fault::Full), (Op::Sync, Fault::Io), (Op::Rename, Fault::Io)]
    {
        fs.fail(op, 1, 1, fault);
        assert!(store.snapshot().is_err(), "{op:?}");
        assert_eq!(
            names(&fs, HEAD_DIR, "")[..],
            [format!("{:08}.snapshot", first.number), "chunks".to_owned()],
            "{op:?}"
        );
        assert_eq!(names(&fs, WAL_DIR, ".wal"), segments);
        assert!(store.commit(0, &[(1, NOW, 1)]), "appends go on");
    }
    let second = store.snapshot().unwrap();
    assert_eq!((second.number, store.rows()), (2, rows.clone()));
    store.kill();
    fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
    assert_eq!(Store::open(&fs, 2).rows(), rows);
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    for batch in steps(20, 10) {
        assert!(store.commit(0, &batch));
    }
    let mut writer = store.snapshots.begin(Vec::new()).unwrap();
    assert!(writer.step(&store.head).unwrap().is_none());
    drop(writer);
    assert_eq!(names(&fs, HEAD_DIR, ""), ["chunks"]);
    let extra = ExtraSection { section_type: 63, bytes: Vec::new() };
    assert!(store.snapshots.begin(vec![extra]).is_err(), "that type is the head's own");
}

#[test]
fn due_by_the_log_behind_it() {
    assert!(!Snapshots::due(SNAPSHOT_LOG_BYTES, 0) && Snapshots::due(SNAPSHOT_LOG_BYTES + 1, 0));
    assert!(!Snapshots::due(SNAPSHOT_LOG_BYTES * 3, SNAPSHOT_LOG_BYTES * 3));
}

/// A snapshot of before a cut, whose samples are all in blocks, and more of the same series in the log behind it.
#[test]
fn what_the_log_has_behind_a_cut_stays() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    assert!(store.commit(0, &[(1, NOW - 60_000, 1), (2, NOW - 60_000, 2)]));
    store.snapshot().unwrap();
    // Under the definitions of before, which the snapshot stands for.
    assert!(store.commit(0, &[(1, NOW, 3)]));
    let cut = store.head.begin_cut(NOW - 1);
    let (boundary, sequences) = (cut.boundary(), cut.sequences().to_vec());
    store.head.finish_cut(cut);
    assert_eq!(store.head.series(), 1);
    store.kill();
    let store = Store::try_open_behind(&fs, 2, 4000, Some((boundary, &sequences))).unwrap();
    assert_eq!(store.rows().into_iter().collect::<Vec<_>>(), [((0, 1, NOW), 3)]);
    assert_eq!((store.outcome.orphans, store.head.series()), (0, 1), "the other one has gone");
}
