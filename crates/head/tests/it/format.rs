//! docs/format/snapshot.md and the code say the same.

use std::path::Path;

use chronolith_storage::StartTimestamp;
use chronolith_testkit::fault_fs::FaultFs;

use crate::support::{HEAD_DIR, Store};

/// The bytes of the example.
fn documented() -> Vec<u8> {
    let document = include_str!("../../../../docs/format/snapshot.md");
    bytes(document.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).unwrap())
}

/// Hex digits up to a bar, line by line.
fn bytes(example: &str) -> Vec<u8> {
    let digits = example.lines().flat_map(|line| line.split('|').next().unwrap().split_whitespace());
    digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn the_documented_snapshot_is_read() {
    let store = read(documented());
    let t = 1_699_999_700_000;
    let starts: Vec<_> = store.starts().into_iter().collect();
    assert_eq!(starts, [((0, 7), vec![StartTimestamp { since: t, start: t - 10_000 }])]);
    assert_eq!(store.exemplars(), [(0, 7, t + 15_000, "abc".to_owned())]);
    assert_eq!(store.loaded.exemplars, 1);
}

/// What a program wrote that knew of no start timestamps and no exemplars.
#[test]
fn a_snapshot_of_version_1_is_read() {
    let store = read(bytes(include_str!("version_1.hex")));
    assert!(store.starts().is_empty() && store.exemplars().is_empty());
    // What is written from it is of the new version.
    assert!(store.commit(0, &[(7, 1_699_999_800_000, 3)]));
    store.snapshot().unwrap();
    let rows = store.rows();
    let again = Store::open(&store.kill(), 2);
    assert_eq!((again.loaded.number, again.rows()), (Some(2), rows));
}

/// What a program wrote that had all of a series in its entry.
#[test]
fn a_snapshot_of_version_2_is_read() {
    let store = read(bytes(include_str!("version_2.hex")));
    assert_eq!((store.starts().len(), store.exemplars().len()), (1, 1));
}

/// A store that begins with this snapshot, the series of the example in it.
fn read(snapshot: Vec<u8>) -> Store {
    let fs = FaultFs::new();
    let path = Path::new(HEAD_DIR).join("00000001.snapshot");
    // So that the directory is there.
    Store::open(&fs, 1).kill();
    fs.put(&path, snapshot);
    let store = Store::open(&fs, 1);
    assert_eq!((store.loaded.number, store.loaded.damage.clone()), (Some(1), Vec::new()));
    let rows: Vec<_> = store.rows().into_iter().collect();
    let (t, first) = (1_699_999_700_000, 1.5_f64.to_bits());
    assert_eq!(rows, [((0, 7, t), first), ((0, 7, t + 7000), 0), ((0, 7, t + 15_000), first)]);
    assert_eq!(store.references()[&(0, 7)].0 % 16, 3, "shard 3");
    assert_eq!((store.loaded.sequences[3], store.loaded.cut), ((1 << 32) + 7, i64::MIN));
    store
}
