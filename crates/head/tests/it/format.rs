//! docs/format/snapshot.md and the code say the same.

use std::path::Path;

use chronolith_testkit::fault_fs::FaultFs;

use crate::support::{HEAD_DIR, Store};

/// The bytes of the example: hex digits up to a bar, line by line.
fn documented() -> Vec<u8> {
    let document = include_str!("../../../../docs/format/snapshot.md");
    let example = document.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let digits = example.lines().flat_map(|line| line.split('|').next().unwrap().split_whitespace());
    digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn the_documented_snapshot_is_read() {
    let fs = FaultFs::new();
    let path = Path::new(HEAD_DIR).join("00000001.snapshot");
    // So that the directory is there.
    Store::open(&fs, 1).kill();
    fs.put(&path, documented());
    let store = Store::open(&fs, 1);
    assert_eq!((store.loaded.number, store.loaded.damage.clone()), (Some(1), Vec::new()));
    let rows: Vec<_> = store.rows().into_iter().collect();
    let (t, first) = (1_699_999_700_000, 1.5_f64.to_bits());
    assert_eq!(rows, [((0, 7, t), first), ((0, 7, t + 7000), 0), ((0, 7, t + 15_000), first)]);
    assert_eq!(store.references()[&(0, 7)].0 % 16, 3, "shard 3");
    assert_eq!((store.loaded.sequences[3], store.loaded.cut), ((1 << 32) + 7, i64::MIN));
}
