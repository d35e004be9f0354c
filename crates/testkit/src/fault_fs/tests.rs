use std::collections::BTreeSet;

use super::*;
use crate::fake_env::SimRng;

fn file(fs: &FaultFs, path: &str) -> Box<dyn File> {
    fs.create_dir_all(Path::new("/d")).unwrap();
    fs.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

#[test]
fn a_crash_takes_what_was_not_synced() {
    let (fs, rng) = (FaultFs::new(), SimRng::new(1));
    let mut synced = file(&fs, "/d/synced");
    synced.write_all(b"kept").unwrap();
    synced.sync_data().unwrap();
    synced.write_all(b" lost").unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    let mut nameless = file(&fs, "/d/nameless");
    nameless.write_all(b"bytes").unwrap();
    nameless.sync_data().unwrap();
    assert_eq!(fs.read(Path::new("/d/synced")).unwrap(), b"kept lost");
    fs.crash(CrashMode::LoseUnsynced, &rng);
    assert_eq!(fs.read(Path::new("/d/synced")).unwrap(), b"kept");
    assert_eq!(fs.list(Path::new("/d")).unwrap(), ["synced"], "a name without sync_dir is lost");
    assert!(synced.write_all(b"!").is_err(), "handles die");
}

#[test]
fn a_torn_write_keeps_a_prefix() {
    let mut lengths = BTreeSet::new();
    for seed in 0..200 {
        let (fs, rng) = (FaultFs::new(), SimRng::new(seed));
        let mut torn = file(&fs, "/d/a");
        fs.sync_dir(Path::new("/d")).unwrap();
        torn.write_all(b"0123").unwrap();
        torn.write_all(b"4567").unwrap();
        fs.crash(CrashMode::Tear, &rng);
        let left = fs.read(Path::new("/d/a")).unwrap();
        assert!(b"01234567".starts_with(left.as_slice()), "{left:?}");
        lengths.insert(left.len());
    }
    assert_eq!(lengths.len(), 9, "each length comes up: {lengths:?}");
}

#[test]
fn a_failed_sync_loses_its_bytes_for_good() {
    let (fs, rng) = (FaultFs::new(), SimRng::new(1));
    let mut a = file(&fs, "/d/a");
    fs.sync_dir(Path::new("/d")).unwrap();
    a.write_all(b"1").unwrap();
    fs.fail(Op::Sync, 1, 1, Fault::Io);
    assert!(a.sync_data().is_err());
    a.sync_data().unwrap();
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"1", "visible all the same");
    fs.crash(CrashMode::KeepAll, &rng);
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"1", "and to the next process");
    fs.open(Path::new("/d/a"), OpenMode::Append).unwrap().sync_data().unwrap();
    fs.crash(CrashMode::LoseUnsynced, &rng);
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"");
}

#[test]
fn eviction_takes_what_a_failed_sync_has_lost_and_no_more() {
    let fs = FaultFs::new();
    let mut a = file(&fs, "/d/a");
    a.write_all(b"1").unwrap();
    a.sync_data().unwrap();
    a.write_all(b"2").unwrap();
    fs.evict();
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"12", "still to be written");
    fs.fail(Op::Sync, 1, 1, Fault::Io);
    assert!(a.sync_data().is_err());
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"12");
    fs.evict();
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"1");
}

#[test]
fn a_process_that_dies_makes_nothing_durable() {
    let (fs, rng) = (FaultFs::new(), SimRng::new(1));
    let mut a = file(&fs, "/d/a");
    a.write_all(b"1").unwrap();
    a.sync_data().unwrap();
    fs.crash(CrashMode::KeepAll, &rng);
    assert!(a.write_all(b"2").is_err(), "handles die");
    assert_eq!(fs.list(Path::new("/d")).unwrap(), ["a"]);
    let mut again = fs.open(Path::new("/d/a"), OpenMode::Append).unwrap();
    again.write_all(b"2").unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.crash(CrashMode::LoseUnsynced, &rng);
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"1");
}

#[test]
fn after_the_halt_no_call_has_an_effect() {
    let fs = FaultFs::new();
    let mut a = file(&fs, "/d/a");
    fs.halt_after(1);
    a.write_all(b"1").unwrap();
    assert!(!fs.halted());
    assert!(a.write_all(b"2").is_err() && a.sync_data().is_err() && fs.halted());
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"1");
    fs.heal();
    a.write_all(b"3").unwrap();
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"13");
}

#[test]
fn a_full_disk_takes_what_fits() {
    let fs = FaultFs::new();
    let mut a = file(&fs, "/d/a");
    fs.fill_after(3);
    let full = a.write_all(b"12345").unwrap_err();
    assert!(matches!(full, Error::Full { .. }));
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"123");
    fs.heal();
    a.write_all(b"x").unwrap();
}

#[test]
fn a_directory_without_a_durable_name_takes_what_is_in_it() {
    let (fs, rng) = (FaultFs::new(), SimRng::new(1));
    let dir = Path::new("/d/e");
    fs.create_dir_all(Path::new("/d")).unwrap();
    fs.fail(Op::SyncDir, 2, 1, Fault::Io);
    assert!(fs.create_dir_all(dir).is_err());
    assert!(!fs.exists(dir).unwrap(), "no rest that passes for durable");
    fs.create_dir_all(dir).unwrap();
    file(&fs, "/d/e/a").sync_data().unwrap();
    fs.sync_dir(dir).unwrap();
    fs.crash(CrashMode::LoseUnsynced, &rng);
    assert_eq!(fs.list(dir).unwrap(), ["a"]);
    fs.remove_file(Path::new("/d/e/a")).unwrap();
    fs.remove_dir(dir).unwrap();
    fs.crash(CrashMode::LoseUnsynced, &rng);
    assert_eq!(fs.list(dir).unwrap(), ["a"], "nor is a removal durable by itself");
    // A process that dies leaves a directory that is visible; who finds it makes it durable.
    fs.halt_after_changes(1);
    assert!(fs.create_dir_all(Path::new("/d/f")).is_err());
    fs.heal();
    let (twice, once) = (FaultFs::new(), FaultFs::new());
    for (fs, calls) in [(&twice, 2), (&once, 1)] {
        fs.create_dir_all(Path::new("/d")).unwrap();
        fs.halt_after_changes(2);
        assert!(fs.create_dir_all(dir).is_err(), "ends between the directory and its name");
        fs.crash(CrashMode::KeepAll, &rng);
        fs.heal();
        assert!(fs.exists(dir).unwrap());
        (1..calls).for_each(|_| fs.create_dir_all(dir).unwrap());
        fs.crash(CrashMode::LoseUnsynced, &rng);
        assert_eq!(fs.exists(dir).unwrap(), calls == 2);
    }
}

#[test]
fn a_rename_survives_as_a_whole_and_in_order() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        for mode in [CrashMode::Tear, CrashMode::Subset] {
            let (fs, rng) = (FaultFs::new(), SimRng::new(seed));
            file(&fs, "/d/a").sync_data().unwrap();
            fs.sync_dir(Path::new("/d")).unwrap();
            fs.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
            file(&fs, "/d/c");
            fs.crash(mode, &rng);
            seen.insert((mode == CrashMode::Subset, fs.list(Path::new("/d")).unwrap().concat()));
        }
    }
    let wanted =
        [(false, "a"), (false, "b"), (false, "bc"), (true, "a"), (true, "ac"), (true, "b"), (true, "bc")];
    assert_eq!(seen, wanted.map(|(subset, names)| (subset, names.to_owned())).into());
}

#[test]
fn a_sync_of_one_directory_leaves_another_as_it_is() {
    let (fs, rng) = (FaultFs::new(), SimRng::new(1));
    file(&fs, "/d/a");
    fs.create_dir_all(Path::new("/e")).unwrap();
    fs.open(Path::new("/e/x"), OpenMode::CreateNew).unwrap();
    fs.rename(Path::new("/d/a"), Path::new("/e/a")).unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.crash(CrashMode::LoseUnsynced, &rng);
    assert_eq!(fs.list(Path::new("/d")).unwrap(), Vec::<String>::new());
    assert_eq!(fs.list(Path::new("/e")).unwrap(), ["a"], "a rename is one change");
}

#[test]
fn sectors_of_one_write_survive_or_not() {
    let mut found = BTreeSet::new();
    for seed in 0..300 {
        let (fs, rng) = (FaultFs::new(), SimRng::new(seed));
        let mut a = file(&fs, "/d/a");
        fs.sync_dir(Path::new("/d")).unwrap();
        a.write_all(&[1; 1024]).unwrap();
        fs.crash(CrashMode::Subset, &rng);
        let bytes = fs.read(Path::new("/d/a")).unwrap();
        if bytes.len() == 1024 {
            found.insert((bytes[0], bytes[1023]));
        }
    }
    assert_eq!(found, [(0, 0), (0, 1), (1, 1)].into(), "a hole, its end, all");
}

#[test]
fn calls_make_a_digest_and_are_counted_by_name() {
    let run = |byte: u8| {
        let fs = FaultFs::seeded(3);
        fs.watch(|call| match (call.op, call.before(0)) {
            (Op::SyncDir, Some((Op::Sync, _))) => Some("dir behind a file"),
            (Op::Sync, _) => Some("file"),
            _ => None,
        });
        let mut a = file(&fs, "/d/a");
        a.write_all(&[byte]).unwrap();
        a.sync_data().unwrap();
        fs.sync_dir(Path::new("/d")).unwrap();
        fs.fail_any(1, 1, Fault::Io);
        assert!(a.sync_data().is_err());
        fs.halt_after(0);
        assert!(a.sync_data().is_err() && a.sync_data().is_err());
        let sites = fs.sites();
        assert_eq!(sites["file"], SiteCounts { done: 1, failed: 1, halted: 1 });
        assert_eq!(sites["dir behind a file"].done, 1);
        assert_eq!(fs.recent().last().unwrap(), "sync /d/a: fails");
        fs.digest()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
