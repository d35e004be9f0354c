//! Much damage: what is listed and copied of it is bounded, what is lost is not more.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chronolith_env::{Fs, Op};
use chronolith_testkit::fake_env::FakeEnv;
use chronolith_testkit::fault_fs::FaultFs;
use chronolith_testkit::hook_fs::HookFs;
use chronolith_wal::inspect::{EntryStatus, Segment};
use chronolith_wal::{DamageReason, RecordType, Wal};

use crate::support::{Bench, DIR, Replayed, options, replay, segment};

/// Places listed, and copied, of one log.
const PLACES_MAX: usize = 1_000;
/// Bytes of a place that are copied.
const COPIED_MAX: usize = 1 << 20;

/// A segment of batches of samples, and where its records of samples begin and end.
fn log(batches: u32, samples: u32) -> (FaultFs, Vec<(usize, usize)>) {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 7, options(1));
    for batch in 0..batches {
        // Noise, which takes its room.
        let value = |i: u32| {
            f64::from_bits(u64::from(batch * samples + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2)
        };
        let rows: Vec<_> = (0..samples).map(|i| (i % 16, i64::from(batch * samples + i), value(i))).collect();
        assert!(bench.commit(0, &rows));
    }
    bench.wal.close().unwrap();
    let fs = bench.kill();
    let opened = Segment::open(&fs, &segment(1)).unwrap();
    let mut placed = Vec::new();
    for entry in opened.entries() {
        let EntryStatus::Record(info) = entry.status else { panic!("{entry:?}") };
        if !matches!(info.record_type, Some(RecordType::Series | RecordType::Mark)) {
            placed.push((entry.offset as usize, (entry.offset + entry.bytes) as usize));
        }
    }
    (fs, placed)
}

#[test]
fn so_many_damaged_places_are_listed_and_copied() {
    let (fs, placed) = log(PLACES_MAX as u32 + 3, 1);
    assert_eq!(placed.len(), PLACES_MAX + 3);
    let good = fs.read(&segment(1)).unwrap();
    // Not the last record: that would be a torn tail.
    for damaged in [PLACES_MAX, PLACES_MAX + 2] {
        let mut bytes = good.clone();
        for (_, end) in &placed[..damaged] {
            bytes[end - 1] ^= 1;
        }
        let fs = FaultFs::new();
        fs.create_dir_all(segment(1).parent().unwrap()).unwrap();
        fs.put(&segment(1), bytes);
        let (_, report, replayed) = replay(&fs);
        assert_eq!((report.damage.len(), report.damage_count), (PLACES_MAX, damaged as u64));
        let copied = report.damage.iter().filter(|damage| damage.quarantined.is_some()).count();
        assert_eq!(copied, PLACES_MAX);
        let kept = fs.list(&segment(1).parent().unwrap().join("quarantine")).unwrap();
        assert_eq!(kept.len(), PLACES_MAX, "and no more files");
        assert_eq!(replayed.sorted().len(), PLACES_MAX + 3 - damaged, "the others are kept");
    }
}

#[test]
fn a_segment_that_is_not_opened_is_told_of_behind_any_damage() {
    let (disk, placed) = log(PLACES_MAX as u32 + 3, 1);
    let bench = Bench::open(&disk, 8, options(1));
    assert!(bench.commit(0, &[(1, 1 << 20, 1.0)]));
    bench.wal.close().unwrap();
    let disk = bench.kill();
    let mut bytes = disk.read(&segment(1)).unwrap();
    placed[..PLACES_MAX + 2].iter().for_each(|(_, end)| bytes[end - 1] ^= 1);
    disk.put(&segment(1), bytes);

    // How often segment 2 can still be opened.
    let left = Arc::new(AtomicU64::new(u64::MAX));
    let asked = Arc::clone(&left);
    let fs = HookFs::new(Arc::new(disk.clone()), move |call| {
        let next = |left: u64| left.checked_sub(1);
        if call.op == Op::Open
            && call.path == segment(2)
            && asked.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_err()
        {
            return call.refuse(std::io::Error::from_raw_os_error(5));
        }
        Ok(())
    });
    let fake = FakeEnv::new(Arc::new(fs), 1);
    // While it is opened, in the first pass of the replay and in the second one, in the second one, never.
    for (while_opened, in_replay, refused) in [(0, 0, true), (99, 0, true), (99, 1, true), (99, 2, false)] {
        left.store(while_opened, Ordering::SeqCst);
        let mut opened = Wal::open(&fake.env, Path::new(DIR), options(1)).unwrap();
        let unopened = opened.report().unopened.as_ref().map(|unopened| unopened.path.clone());
        assert_eq!(unopened, (while_opened == 0).then(|| segment(2)));
        left.store(in_replay, Ordering::SeqCst);
        let report = opened.replay(2, &Replayed::default()).unwrap();
        assert_eq!(report.damage_count, PLACES_MAX as u64 + 2 + u64::from(refused), "once, not by pass");
        let listed = report.damage.iter().any(|damage| damage.reason == DamageReason::Unreadable);
        assert_eq!((report.damage.len(), listed), (PLACES_MAX, while_opened == 0));
        let told = report.unopened.map(|unopened| (unopened.path, unopened.cause.kind()));
        let cause = std::io::Error::from_raw_os_error(5).kind();
        assert_eq!(told, refused.then(|| (segment(2), cause)));
    }
}

#[test]
fn so_much_of_a_damaged_place_is_copied() {
    let (fs, placed) = log(40, 12_000);
    let mut bytes = fs.read(&segment(1)).unwrap();
    let (from, to) = (placed[2].0, placed[placed.len() - 3].1);
    assert!(to - from > 2 * COPIED_MAX, "{} bytes", to - from);
    bytes[from..to].fill(0x55);
    let damaged = bytes[from..].to_vec();
    let fs = FaultFs::new();
    fs.create_dir_all(segment(1).parent().unwrap()).unwrap();
    fs.put(&segment(1), bytes);
    let (_, report, _) = replay(&fs);
    assert_eq!(report.damage_count, 1);
    let damage = &report.damage[0];
    assert_eq!(damage.offset as usize, from);
    assert!(damage.bytes as usize >= to - from, "all of it is reported: {damage:?}");
    let copy = fs.read(damage.quarantined.as_deref().unwrap()).unwrap();
    assert_eq!(copy, damaged[..COPIED_MAX]);
}
