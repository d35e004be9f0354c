//! A block is there whole or not at all, whatever happens to the machine while it is written.

use std::path::Path;
use std::sync::Arc;

use chronolith_block::{Block, BlockCache, BlockRange, BlockWriter, FileName, block_path, verify};
use chronolith_env::{Fs, Op};
use chronolith_testkit::fake_env::SimRng;
use chronolith_testkit::fault_fs::{CrashMode, Fault, FaultFs};

use crate::fixture::{DIR, Disk, spec, tombstone};
use crate::roundtrip::{content, series};

const RANGE: BlockRange = BlockRange::new(0, 7_200_000);

fn write_small(fs: &Arc<dyn Fs>) -> Result<(), chronolith_block::Error> {
    let mut writer = BlockWriter::create(fs, Path::new(DIR), spec(1, RANGE))?;
    let id = writer.add_series(&series("x", 1))?;
    writer.begin_part(0)?;
    writer.push_floats(id, &[1, 2], &[1.0, 2.0])?;
    writer.end_part()?;
    writer.finish().map(drop)
}

#[test]
fn every_failing_call_leaves_no_half_block() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::SyncDir] {
        for fault in [Fault::Io, Fault::Full] {
            let disk = Disk::new();
            disk.disk.fail(op, 1, 1, fault);
            write_small(&disk.fs).unwrap_err();
            let path = block_path(Path::new(DIR), spec(1, RANGE).ulid);
            if op == Op::SyncDir {
                // The name may or may not survive, but what it names is whole.
                verify(&disk.open(&path), &|| false).unwrap();
            } else {
                assert!(disk.files().is_empty(), "{op}");
            }
            for mode in [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset] {
                disk.disk.crash(mode, &SimRng::new(3));
                check_whole(&disk);
            }
            disk.disk.heal();
            for name in disk.files() {
                disk.fs.remove_file(&Path::new(DIR).join(name)).unwrap();
            }
            write_small(&disk.fs).unwrap();
        }
    }
}

/// Whatever bears the name of a block is one.
fn check_whole(disk: &Disk) {
    for name in disk.files() {
        if let FileName::Block(_) = FileName::parse(&name) {
            let block = Block::open(&disk.fs, &Path::new(DIR).join(&name), &BlockCache::new(0)).unwrap();
            assert!(verify(&block, &|| false).unwrap().problems.is_empty());
        }
    }
}

#[test]
fn a_finished_block_survives_any_crash() {
    for (seed, mode) in (0..).zip([CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset]) {
        let disk = Disk::new();
        let path = disk.write(1, RANGE, &[(0, content(20, 60))]);
        disk.disk.crash(mode, &SimRng::new(seed));
        assert!(verify(&disk.open(&path), &|| false).unwrap().problems.is_empty());
        let block = disk.open(&path);
        block.delete(tombstone("instance", "i1", 0, 5)).unwrap();
        disk.disk.crash(mode, &SimRng::new(seed));
        assert_eq!(disk.open(&path).tombstones().len(), 1, "a deletion is durable");
    }
}

#[test]
fn without_syncs_a_crash_would_show() {
    // The tests above would not notice a missing sync if the disk did not take unsynced bytes away.
    let disk = FaultFs::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    disk.lie_about_syncs(true);
    write_small(&fs).unwrap();
    disk.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
    assert!(fs.list(Path::new(DIR)).unwrap().is_empty());
}

#[test]
fn a_failed_deletion_changes_nothing() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename] {
        let disk = Disk::new();
        let path = disk.write(1, RANGE, &[(0, content(3, 10))]);
        let block = disk.open(&path);
        disk.disk.fail(op, 1, 1, Fault::Io);
        block.delete(tombstone("instance", "i1", 0, 50_000)).unwrap_err();
        assert!(block.tombstones().is_empty() && disk.open(&path).tombstones().is_empty(), "{op}");
        assert!(block.delete(tombstone("instance", "i1", 0, 50_000)).unwrap());
        assert_eq!(disk.open(&path).tombstones().len(), 1);
    }
}
