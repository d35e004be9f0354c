//! Chunks that leave memory.

use std::path::Path;
use std::sync::Arc;

use chronolith_env::{Fs, Op};
use chronolith_head::{ChunkDamage, HeadView, Loss, Mended, ReadError, SnapshotDamageReason, SnapshotError};
use chronolith_model::TimeRange;
use chronolith_storage::Samples;
use chronolith_testkit::fake_env::SimRng;
use chronolith_testkit::fault_fs::{CrashMode, Fault, FaultFs};

use crate::support::{HEAD_DIR, NOW, Rows, Store, names, number, steps, tenant};

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
fn a_chunk_that_becomes_unreadable_is_left_out_and_made_again() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    let rows = fill(&store, 20, 200);
    spill(&store);
    let path = Path::new(CHUNKS).join("00000001.chunks");
    let whole = fs.read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[24 + 28 + 5] ^= 1;
    fs.put(&path, bytes);
    let view = HeadView::open(Arc::clone(&store.head), &tenant(0), TimeRange::ALL);
    let selection = view.select(&[]);
    let fetched = view.fetch(&selection.series, TimeRange::ALL);
    let mut unread = Vec::new();
    let mut read = |at| {
        let (mut all, mut rest) = (Samples::default(), Samples::default());
        let error = fetched.read(at, &mut all).err();
        fetched.read_rest(at, &mut rest, &mut unread).unwrap();
        assert_eq!((error.is_none(), all.timestamps), (rest.len() == 200, rest.timestamps));
        error
    };
    let errors: Vec<ReadError> = (0..20).filter_map(&mut read).collect();
    let damaged = ReadError::ChunkFile { path: path.clone(), offset: 24, damage: ChunkDamage::Checksum };
    assert_eq!((errors, unread.len()), (vec![damaged], 1));
    let chunk = unread[0].clone();
    view.note_unread(unread);
    assert!(view.unread_warning(TimeRange::ALL).is_some());
    let refused = store.snapshot().expect_err("it would stand for the log");
    assert!(matches!(refused, SnapshotError::Unread(_)), "{refused:?}");
    assert_eq!((names(&fs, HEAD_DIR, ".snapshot").len(), store.head.unread_met()), (0, 1));
    // What is wanted of the log, and something that is not.
    let (of, labels) = store.head.series_of(chunk.reference()).unwrap();
    assert_eq!(of, tenant(0));
    let series = number(&labels);
    let logged: Vec<(i64, u64)> =
        rows.iter().filter(|((_, of, _), _)| *of == series).map(|((_, _, t), bits)| (*t, *bits)).collect();
    assert_eq!(store.head.mend(&chunk, &logged, &[]), Mended::Lost(0));
    assert_eq!((store.rows(), store.head.has_unread()), (rows.clone(), false));
    assert_eq!(store.head.mend(&chunk, &logged, &[]), Mended::Fine, "it is gone");
    store.snapshot().unwrap();
    store.kill();
    let store = Store::open(&fs, 2);
    assert_eq!((store.rows(), store.loaded.damage_count), (rows, 0));
}

#[test]
fn what_a_device_refuses_may_come_again() {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    let rows = fill(&store, 2, 200);
    spill(&store);
    let view = HeadView::open(Arc::clone(&store.head), &tenant(0), TimeRange::ALL);
    let fetched = view.fetch(&view.select(&[]).series, TimeRange::ALL);
    fs.fail(Op::Read, 1, u64::MAX, Fault::Io);
    let mut unread = Vec::new();
    fetched.read_rest(0, &mut Samples::default(), &mut unread).unwrap();
    let chunk = unread[0].clone();
    assert!(matches!(chunk.error(), ReadError::ChunkFile { damage: ChunkDamage::Device, .. }));
    view.note_unread(unread);
    assert_eq!(store.head.mend(&chunk, &[], &[]), Mended::Waits);
    assert!(store.head.has_unread());
    fs.heal();
    for chunk in store.head.unread() {
        assert_eq!(store.head.mend(&chunk, &[], &[]), Mended::Fine);
    }
    assert!(store.rows() == rows && !store.head.has_unread());
    store.snapshot().unwrap();
}

/// Some series whose chunks are in a file, and a snapshot that says so; the log is there as well if `whole_log`.
fn spilled(whole_log: bool) -> (FaultFs, Rows) {
    let fs = FaultFs::new();
    let store = Store::try_open(&fs, 1, 2000).unwrap();
    let rows = fill(&store, 12, 260);
    assert!(spill(&store) > 0);
    if whole_log {
        store.snapshots.write(&store.head, Vec::new()).unwrap();
    } else {
        store.snapshot().unwrap();
    }
    store.kill();
    (fs, rows)
}

#[test]
fn damage_of_a_chunk_file_costs_nothing_while_the_log_is_there() {
    let (fs, rows) = spilled(true);
    let path = Path::new(CHUNKS).join("00000001.chunks");
    let whole = fs.read(&path).unwrap();
    let quarantined = Path::new(HEAD_DIR).join("quarantine/00000001.chunks");
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    };
    let mut cases: Vec<(Option<Vec<u8>>, u64)> = (0..24).map(|at| (Some(flipped(at)), 0)).collect();
    let mut offset = 24;
    while offset < whole.len() {
        let len = u32::from_le_bytes(whole[offset + 20..offset + 24].try_into().unwrap()) as usize;
        for at in [offset, offset + 21, offset + 27, offset + 28, offset + 28 + len - 1] {
            cases.push((Some(flipped(at)), offset as u64));
        }
        offset += 28 + len;
    }
    let all = cases.len();
    assert!(all > 24 + 5 * 12, "{all}");
    cases.extend((0..whole.len()).step_by(311).map(|len| (Some(whole[..len].to_vec()), u64::MAX)));
    cases.push((Some(b"something else".repeat(1000)), u64::MAX));
    cases.push((None, 0));
    for (number, (bytes, offset)) in cases.into_iter().enumerate() {
        let missing = bytes.is_none();
        match bytes {
            Some(bytes) => fs.put(&path, bytes),
            None => fs.remove_file(&path).unwrap(),
        }
        let _ = fs.remove_file(&quarantined);
        let store = Store::try_open(&fs, 2, 2000).unwrap();
        assert_eq!(store.rows(), rows, "case {number}");
        assert_eq!(store.losses, [], "case {number}");
        assert!(store.loaded.covered.is_none(), "case {number}: the log is kept");
        let damage = &store.loaded.damage;
        assert!(!damage.is_empty(), "case {number}");
        for place in damage {
            let reason = if missing {
                SnapshotDamageReason::ChunkFileMissing
            } else {
                SnapshotDamageReason::ChunkFile
            };
            assert_eq!((&place.path, place.reason), (&path, reason), "case {number}");
            assert_eq!(place.quarantined.as_ref(), (!missing).then_some(&quarantined), "case {number}");
        }
        if offset != u64::MAX {
            assert_eq!((damage.len(), damage[0].offset), (1, offset), "case {number}");
        }
        assert_eq!(missing, !fs.exists(&quarantined).unwrap(), "case {number}");
        store.kill();
    }
}

#[test]
fn damage_of_a_chunk_file_without_the_log_is_said() {
    let (fs, rows) = spilled(false);
    let path = Path::new(CHUNKS).join("00000001.chunks");
    let whole = fs.read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[24 + 40] ^= 2;
    let cases = [Some(flipped), Some(whole[..whole.len() / 2].to_vec()), Some(vec![7; 5000]), None];
    for (number, bytes) in cases.into_iter().enumerate() {
        match bytes {
            Some(bytes) => fs.put(&path, bytes),
            None => fs.remove_file(&path).unwrap(),
        }
        let store = Store::try_open(&fs, 2, 2000).unwrap();
        let left = store.rows();
        let lost: Vec<_> = rows.iter().filter(|(at, _)| !left.contains_key(at)).collect();
        assert!(!lost.is_empty() && left.iter().all(|(at, bits)| rows[at] == *bits), "case {number}");
        let said: u64 = store.losses.iter().filter_map(|loss| loss.samples).sum();
        assert_eq!(said, lost.len() as u64, "case {number}: {:?}", store.losses);
        for ((of, _, t), _) in lost {
            let says = |loss: &Loss| {
                loss.tenant == Some(tenant(*of)) && loss.range.contains(*t) && loss.path == path
            };
            assert!(store.losses.iter().any(says), "case {number}: {t}");
        }
        store.kill();
    }
    fs.put(&path, whole);
    let store = Store::open(&fs, 3);
    assert_eq!((store.rows(), store.losses.len()), (rows, 0));
}

#[test]
fn the_older_snapshot_counts_if_a_chunk_of_the_newest_cannot_be_read() {
    let fs = FaultFs::new();
    let store = Store::try_open(&fs, 1, 2000).unwrap();
    let rows = fill(&store, 12, 260);
    store.snapshot().unwrap();
    let older = Path::new(HEAD_DIR).join("00000001.snapshot");
    let kept = fs.read(&older).unwrap();
    assert!(spill(&store) > 0);
    assert!(store.commit(0, &[(1, NOW, 1)]));
    let rows: Rows = rows.into_iter().chain([((0, 1, NOW), 1)]).collect();
    store.snapshots.write(&store.head, Vec::new()).unwrap();
    store.kill();
    // As if the crash had come before the older one was removed.
    fs.put(&older, kept);
    let path = Path::new(CHUNKS).join("00000001.chunks");
    let mut bytes = fs.read(&path).unwrap();
    bytes[24 + 40] ^= 2;
    fs.put(&path, bytes);
    let store = Store::open(&fs, 2);
    assert_eq!((store.loaded.number, store.rows()), (Some(1), rows));
    assert_eq!((store.loaded.damage_count, store.losses.len()), (1, 0));
}

#[test]
fn a_chunk_file_that_cannot_be_opened_says_nothing_of_its_content() {
    let (fs, rows) = spilled(false);
    // The snapshot is opened before.
    fs.fail(Op::Open, 2, 1, Fault::Denied);
    let refused = Store::try_open(&fs, 2, 2000).err().expect("must not start");
    assert!(matches!(refused, SnapshotError::File(_)), "{refused:?}");
    fs.heal();
    assert_eq!(Store::open(&fs, 3).rows(), rows);
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
