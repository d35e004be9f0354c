//! Damaged snapshots.

use std::path::{Path, PathBuf};

use chronolith_env::Fs;
use chronolith_head::{SnapshotDamageReason, SnapshotError};
use chronolith_testkit::fault_fs::FaultFs;

use crate::support::{HEAD_DIR, NOW, Rows, Store, WAL_DIR, names, steps};

/// A snapshot of some series, and a log behind it that still has everything if `whole_log`.
fn prepare(fs: &FaultFs, whole_log: bool) -> (Rows, PathBuf) {
    let store = Store::try_open(fs, 1, 2000).unwrap();
    for batch in steps(60, 130) {
        assert!(store.commit(0, &batch));
    }
    if whole_log {
        store.snapshots.write(&store.head, Vec::new()).unwrap();
    } else {
        store.snapshot().unwrap();
    }
    assert!(store.commit(0, &[(7, NOW, 1)]));
    let rows = store.rows();
    store.kill();
    (rows, Path::new(HEAD_DIR).join(&names(fs, HEAD_DIR, ".snapshot")[0]))
}

#[test]
fn one_flipped_bit_costs_nothing_while_the_log_is_there() {
    let fs = FaultFs::new();
    let (rows, path) = prepare(&fs, true);
    let whole = fs.read(&path).unwrap();
    let (mut reasons, mut headers) = (std::collections::HashSet::new(), 0);
    // Every byte of headers, directory and trailer is met, and many of the payloads.
    let near_end = whole.len() - 1200;
    for at in (0..whole.len()).filter(|at| *at < 60 || at % 97 == 0 || (*at > near_end && at % 5 == 0)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs.put(&path, bytes);
        let store = Store::open(&fs, 2);
        assert_eq!(store.rows(), rows, "byte {at}");
        assert!(store.loaded.damage_count <= 1, "byte {at}: {:?}", store.loaded.damage);
        if let Some(damage) = store.loaded.damage.first() {
            assert!(store.loaded.covered.is_none());
            assert!(damage.quarantined.is_some(), "byte {at}");
            assert_eq!(damage.path, path, "byte {at}");
            if damage.reason == SnapshotDamageReason::Header {
                assert_eq!((damage.offset, damage.section), (0, "header"), "byte {at}");
            } else {
                let place = damage.offset..damage.offset + damage.bytes;
                assert!(place.contains(&(at as u64)), "byte {at} is not in {place:?}");
                let directory = damage.reason == SnapshotDamageReason::Directory;
                assert_eq!(directory, damage.section == "directory", "byte {at}: {damage:?}");
            }
            reasons.insert(damage.reason);
        } else {
            // The directory says the same as the header of a section.
            headers += 1;
        }
        store.kill();
    }
    assert!((24..200).contains(&headers), "{headers}");
    for reason in
        [SnapshotDamageReason::Header, SnapshotDamageReason::Payload, SnapshotDamageReason::Directory]
    {
        assert!(reasons.contains(&reason), "{reasons:?}");
    }
}

#[test]
fn damage_without_the_log_costs_what_it_hits() {
    let fs = FaultFs::new();
    let (rows, path) = prepare(&fs, false);
    let whole = fs.read(&path).unwrap();
    for at in [100, whole.len() / 2] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs.put(&path, bytes);
        let store = Store::open(&fs, 2);
        let left = store.rows();
        let lost: std::collections::BTreeSet<u32> =
            rows.keys().filter(|at| !left.contains_key(at)).map(|(_, series, _)| *series).collect();
        assert!(!lost.is_empty() && lost.len() < 20, "{lost:?}");
        assert_eq!(store.loaded.series_damaged, lost.len() as u64, "what is lost is said");
        assert!(store.loaded.unknown_damage);
        let place = &store.loaded.damage[0];
        assert_eq!((&place.path, place.section, place.series), (&path, "series", lost.len() as u64));
        assert!((place.offset..place.offset + place.bytes).contains(&(at as u64)), "{place:?}");
        assert!(left.iter().all(|(at, bits)| rows[at] == *bits));
        store.kill();
    }
}

#[test]
fn cut_off_anywhere() {
    let fs = FaultFs::new();
    let (rows, path) = prepare(&fs, true);
    let whole = fs.read(&path).unwrap();
    for len in (0..whole.len()).step_by(61) {
        fs.put(&path, whole[..len].to_vec());
        let store = Store::open(&fs, 2);
        assert_eq!(store.rows(), rows, "{len} bytes");
        assert_eq!(store.loaded.damage_count, 1, "{len} bytes: {:?}", store.loaded.damage);
        let place = &store.loaded.damage[0];
        assert_eq!(place.path, path, "{len} bytes");
        let end = if len < 32 { 0 } else { len as u64 };
        assert_eq!(place.offset + place.bytes, end, "{len} bytes: {place:?}");
        store.kill();
    }
}

#[test]
fn the_one_before_is_used_if_it_is_whole() {
    let fs = FaultFs::new();
    let (_, older) = prepare(&fs, false);
    let kept = fs.read(&older).unwrap();
    let store = Store::open(&fs, 2);
    for batch in steps(60, 5) {
        store.commit(0, &batch);
    }
    assert!(store.commit(0, &[(9, NOW + 5, 3)]));
    let rows = store.rows();
    store.snapshots.write(&store.head, Vec::new()).unwrap();
    store.kill();
    // As if the crash had come before the older one was removed.
    fs.put(&older, kept);
    let newest = Path::new(HEAD_DIR).join("00000002.snapshot");
    let mut bytes = fs.read(&newest).unwrap();
    bytes[200] ^= 1;
    fs.put(&newest, bytes);
    let store = Store::open(&fs, 3);
    assert_eq!((store.loaded.number, store.loaded.damage_count), (Some(1), 1));
    assert_eq!(store.rows(), rows);
    let report = store.snapshot().unwrap();
    assert_eq!(report.number, 3, "no name is used twice");
    assert_eq!(names(&fs, HEAD_DIR, ".snapshot"), ["00000003.snapshot"]);
    store.kill();
    assert_eq!(Store::open(&fs, 4).rows(), rows);
}

#[test]
fn a_version_to_come_is_left_alone() {
    let fs = FaultFs::new();
    let (_, path) = prepare(&fs, false);
    let mut bytes = fs.read(&path).unwrap();
    bytes[8] = 9;
    let crc = chronolith_codec::crc32(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    fs.put(&path, bytes);
    let before = (names(&fs, HEAD_DIR, ""), names(&fs, WAL_DIR, ""));
    let refused = Store::try_open(&fs, 2, 4000).err();
    assert!(matches!(refused, Some(SnapshotError::ForeignVersion { got: 9, .. })), "{refused:?}");
    assert_eq!((names(&fs, HEAD_DIR, ""), names(&fs, WAL_DIR, "")), before);
}

#[test]
fn a_foreign_file_is_moved_aside() {
    let fs = FaultFs::new();
    let (rows, _) = prepare(&fs, false);
    fs.put(&Path::new(HEAD_DIR).join("00000009.snapshot"), b"something else".to_vec());
    let store = Store::open(&fs, 2);
    assert_eq!((store.loaded.number, store.rows()), (Some(1), rows));
    assert!(fs.exists(&Path::new(HEAD_DIR).join("quarantine/00000009.snapshot")).unwrap());
}
