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

fn site(call: &Call<'_>) -> Option<&'static str> {
    Some(match (call.op, call.path.ends_with("a")) {
        (Op::Sync, true) => "sync.a",
        (Op::Sync, false) => "sync.b",
        (Op::Write, false) => "write.b",
        _ => return None,
    })
}

#[test]
fn one_thing_alone_survives_or_is_lost() {
    let mut left = BTreeSet::new();
    for seed in 0..300 {
        let (fs, rng) = (FaultFs::new(), SimRng::new(seed));
        let mut a = file(&fs, "/d/a");
        fs.sync_dir(Path::new("/d")).unwrap();
        a.write_all(b"1").unwrap();
        for name in ["/d/b", "/d/c"] {
            file(&fs, name);
        }
        fs.crash(CrashMode::Single, &rng);
        let bytes = fs.read(Path::new("/d/a")).unwrap().len();
        left.insert((bytes, fs.list(Path::new("/d")).unwrap().concat()));
    }
    let alone = [(0, "ab"), (0, "ac"), (1, "a")];
    let but_one = [(1, "ab"), (1, "ac"), (0, "abc")];
    let expected = alone.iter().chain(&but_one).map(|(bytes, names)| (*bytes, (*names).to_owned()));
    assert_eq!(left, expected.collect());
}

#[test]
fn calls_of_a_name_fail_or_are_the_last() {
    let fs = FaultFs::new();
    fs.watch(site);
    let (mut a, mut b) = (file(&fs, "/d/a"), file(&fs, "/d/b"));
    fs.fail_site("sync.b", 2, 1, Fault::Io);
    for number in 0..3 {
        a.sync_data().unwrap();
        assert_eq!(b.sync_data().is_err(), number == 1);
    }
    fs.halt_behind("sync.a", 2, 1);
    a.sync_data().unwrap();
    b.write_all(b"1").unwrap();
    b.write_all(b"2").unwrap();
    a.sync_data().unwrap();
    assert!(!fs.halted());
    b.write_all(b"3").unwrap();
    assert!(b.write_all(b"4").is_err() && fs.halted(), "one more change, then none");
    fs.heal();
    b.write_all(b"5").unwrap();
    assert_eq!(fs.read(Path::new("/d/b")).unwrap(), b"1235");
    let failed = |site| fs.sites().get(site).map_or(0, |counts| counts.failed);
    fs.fill_after(1);
    assert!(b.write_all(b"67").is_err());
    assert_eq!((failed("sync.b"), failed("write.b")), (1, 1), "what is done in part has failed");
}

#[test]
fn a_copy_of_a_disk_is_another_one() {
    let (fs, rng) = (FaultFs::new(), SimRng::new(1));
    let mut a = file(&fs, "/d/a");
    a.write_all(b"1").unwrap();
    let copy = fs.fork();
    a.write_all(b"2").unwrap();
    copy.crash(CrashMode::LoseUnsynced, &rng);
    assert_eq!(copy.read(Path::new("/d/a")).unwrap(), b"1", "durable, whatever it was");
    copy.put(Path::new("/d/a"), b"3".to_vec());
    file(&copy, "/d/b");
    assert_eq!(fs.read(Path::new("/d/a")).unwrap(), b"12");
    assert_eq!(fs.list(Path::new("/d")).unwrap(), ["a"]);
}

#[test]
fn removed_files_are_kept_if_that_is_wanted() {
    let fs = FaultFs::new();
    fs.keep_removed("block");
    for name in ["/d/a.block", "/d/a.wal"] {
        file(&fs, name).write_all(b"1").unwrap();
        fs.remove_file(Path::new(name)).unwrap();
    }
    assert_eq!(fs.take_removed(), [(PathBuf::from("/d/a.block"), b"1".to_vec())]);
    assert!(fs.take_removed().is_empty());
}
