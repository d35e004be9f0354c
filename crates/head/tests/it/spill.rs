//! Chunks that leave memory.

use std::path::Path;
use std::sync::Arc;

use chronolith_env::{Fs, Op};
use chronolith_head::{ChunkDamage, HeadView, ReadError};
use chronolith_model::TimeRange;
use chronolith_storage::Samples;
use chronolith_testkit::fake_env::SimRng;
use chronolith_testkit::fault_fs::{CrashMode, Fault, FaultFs};

use crate::support::{HEAD_DIR, NOW, Rows, Store, names, steps, tenant};

const CHUNKS: &str = "/data/head/chunks";

fn fill(store: &Store, series: u32, count: i64) -> Rows {
    for batch in steps(series, count) {
        assert!(store.commit(0, &batch));
    }
    store.rows()
}

/// Moves everything that is closed.
fn spill(store: &Store) -> usize {
    let mut chunks = 0;
    loop {
        let step = store.head.spill_step(store.snapshots.chunk_files(), NOW + 1).unwrap();
        chunks += step.chunks;
        if step.round_done {
            return chunks;
        }
    }
}

#[test]
fn what_has_left_memory_reads_the_same() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    let rows = fill(&store, 40, 300);
    let before = store.head.stats();
    let chunks = spill(&store);
    let after = store.head.stats();
    assert_eq!(chunks as u64, before.chunks_closed);
    assert!(after.chunk_bytes < before.chunk_bytes && after.chunks_closed == before.chunks_closed);
    assert_eq!(store.rows(), rows);
    assert_eq!(spill(&store), 0, "they are there already");
    // A late one compares with a chunk in a file.
    let ((_, series, t), bits) = rows.iter().next().map(|(at, bits)| (*at, *bits)).unwrap();
    let samples = after.samples;
    assert!(store.commit(0, &[(series, t, bits), (series, t, bits ^ 1)]));
    assert_eq!((store.head.stats().samples, store.rows()), (samples, rows.clone()));
    // Without a snapshot the log brings them back.
    store.kill();
    let store = Store::open(&fs, 2);
    assert_eq!(store.rows(), rows);
    assert_eq!(spill(&store), chunks);
    let report = store.snapshot().unwrap();
    assert_eq!(
        (report.samples, names(&fs, CHUNKS, "")),
        (rows.len() as u64, vec!["00000002.chunks".to_owned()])
    );
    store.kill();
    fs.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
    let store = Store::open(&fs, 3);
    assert_eq!((store.rows(), store.head.stats().chunk_bytes < before.chunk_bytes), (rows.clone(), true));
    assert_eq!(spill(&store), 0);
    let again = store.snapshot().unwrap();
    assert!(again.bytes <= report.bytes + 100, "places, not chunks: {} after {}", again.bytes, report.bytes);
    store.kill();
    assert_eq!(Store::open(&fs, 4).rows(), rows);
}

#[test]
fn files_go_when_nothing_needs_them() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    fill(&store, 10, 300);
    assert!(spill(&store) > 0);
    store.snapshot().unwrap();
    store.kill();
    // Far in the future, retention has dropped all of it.
    let store = Store::open(&fs, 2);
    for _ in 0..17 * 24 {
        store.fake.clock.advance(std::time::Duration::from_secs(3600));
        store.head.truncate();
    }
    assert!(store.rows().is_empty());
    assert_eq!(names(&fs, CHUNKS, "").len(), 1);
    store.snapshot().unwrap();
    assert!(names(&fs, CHUNKS, "").is_empty());
}

#[test]
fn a_damaged_or_missing_chunk_is_an_error_of_its_query() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    let rows = fill(&store, 20, 200);
    spill(&store);
    store.snapshot().unwrap();
    let path = Path::new(CHUNKS).join("00000001.chunks");
    let whole = fs.read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[24 + 28 + 5] ^= 1;
    fs.put(&path, bytes);
    let failures = |store: &Store| {
        let view = HeadView::open(Arc::clone(&store.head), &tenant(0), TimeRange::ALL);
        let selection = view.select(&[]);
        let fetched = view.fetch(&selection.series, TimeRange::ALL);
        let read = |at| fetched.read(at, &mut Samples::default()).err();
        (0..selection.series.len()).filter_map(read).collect::<Vec<_>>()
    };
    let damaged = |damage| ReadError::ChunkFile { path: path.clone(), offset: 24, damage };
    assert_eq!(failures(&store), [damaged(ChunkDamage::Checksum)]);
    store.kill();
    let store = Store::open(&fs, 2);
    assert_eq!(failures(&store), [damaged(ChunkDamage::Checksum)], "the others are read");
    store.kill();
    fs.remove_file(&path).unwrap();
    let store = Store::open(&fs, 3);
    assert_eq!((failures(&store).len(), store.loaded.missing_files.clone()), (20, vec![path.clone()]));
    assert!(store.loaded.covered.is_none(), "the log is kept");
    store.kill();
    fs.put(&path, whole);
    assert_eq!(Store::open(&fs, 4).rows(), rows);
}

#[test]
fn a_failure_or_crash_at_every_call() {
    let rng = SimRng::new(3);
    let prepare = |fs: &FaultFs| {
        let store = Store::open(fs, 1);
        let rows = fill(&store, 6, 130);
        (store, rows)
    };
    for op in [Op::Write, Op::Create, Op::Sync, Op::SyncDir, Op::Open] {
        for nth in 1..4 {
            let fs = FaultFs::new();
            let (store, rows) = prepare(&fs);
            fs.fail(op, nth, 1, if nth % 2 == 0 { Fault::Io } else { Fault::Full });
            let failed = store.head.spill_step(store.snapshots.chunk_files(), NOW).is_err();
            assert_eq!(store.rows(), rows, "{op:?} {nth}");
            fs.heal();
            assert_eq!(spill(&store) > 0, failed, "{op:?} {nth}: tried again");
            assert_eq!(store.rows(), rows);
            store.snapshot().unwrap();
            store.kill();
            fs.crash(CrashMode::LoseUnsynced, &rng);
            assert_eq!(Store::open(&fs, 2).rows(), rows, "{op:?} {nth}");
        }
    }
    for calls in 0..30 {
        for mode in [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll] {
            let fs = FaultFs::new();
            let (store, rows) = prepare(&fs);
            fs.halt_after(calls);
            let _ = store.head.spill_step(store.snapshots.chunk_files(), NOW);
            let _ = store.snapshot();
            store.kill();
            fs.heal();
            fs.crash(mode, &rng);
            let store = Store::open(&fs, 2);
            assert_eq!(store.rows(), rows, "{calls} {mode:?}");
            spill(&store);
            store.snapshot().unwrap();
            assert_eq!(names(&fs, HEAD_DIR, ".snapshot").len(), 1);
            store.kill();
            fs.crash(mode, &rng);
            assert_eq!(Store::open(&fs, 3).rows(), rows, "{calls} {mode:?}");
        }
    }
}
