//! What a start reports, and damage that it has to notice.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use chronolith_env::Fs as _;
use chronolith_testkit::{fake_env::FakeEnv, fault_fs::FaultFs};
use chronolith_tsdb::{Db, OpenReport};
use chronolith_wal::Damage;

use super::{audit, sites, world::World};
use crate::fixture::DIR;

/// What files that may be damaged are called; the mark has no extension.
const KINDS: [Option<&str>; 5] = [None, Some("wal"), Some("wal"), Some("snapshot"), Some("chunks")];
/// A record of the log has a header of so many bytes.
const RECORD_HEADER_BYTES: u64 = 28;

impl World {
    pub(super) fn check_report(&mut self, report: &OpenReport) {
        assert_eq!(report.blocks.quarantined, 0, "{report:?}");
        assert_eq!(report.snapshot_damage.len(), 0, "{report:?}");
        // What was being written when the power failed cannot be told from what has rotted since.
        let torn = std::mem::take(&mut self.torn);
        // Where it is not in the last segment, it stays as long as that. A write that failed may have left a piece of a
        // record's header behind the last record; the log cannot tell that from rot. There are no more of them than
        // writes that failed.
        let places = report.damage.iter().map(|damage| (damage.path.clone(), damage.offset));
        let known = std::mem::replace(&mut self.damaged, places.collect());
        let is_new = |damage: &&Damage| !known.contains(&(damage.path.clone(), damage.offset));
        let (pieces, new): (Vec<_>, Vec<_>) =
            report.damage.iter().filter(is_new).partition(|damage| damage.bytes <= RECORD_HEADER_BYTES);
        let failed = self.fs.sites().get(sites::WAL_WRITE).map_or(0, |counts| counts.failed);
        let told = new.is_empty() && pieces.len() as u64 <= failed;
        assert!(torn || told, "{failed} failed writes, {report:?}");
        // A sample without its series is none that was acknowledged, or one that is deleted: all others are there. It
        // stays in the log as long as its segment.
        let orphans = std::mem::replace(&mut self.orphans, report.samples_orphaned);
        assert!(torn || report.samples_orphaned <= orphans, "{orphans} orphans before, {report:?}");
    }

    /// Damages copies of a disk, one bit each: it must be noticed, and nothing invented.
    pub(super) fn rot(&mut self, disk: &FaultFs, times: usize) {
        let files = files(disk);
        for _ in 0..times {
            // Kinds of files come up alike, whatever there are of each.
            let some = |n: usize| self.below(n as u64) as usize;
            let Some(kind) = files.get(some(files.len())).map(|path| path.extension()) else { return };
            let kind = if self.below(2) == 0 { kind } else { KINDS[some(KINDS.len())].map(OsStr::new) };
            let of_kind: Vec<_> = files.iter().filter(|path| path.extension() == kind).collect();
            let Some(path) = of_kind.get(some(of_kind.len())) else { continue };
            let mut bytes = disk.read(path).expect("there");
            if bytes.is_empty() {
                continue;
            }
            let at = some(bytes.len());
            bytes[at] ^= 1 << self.below(8);
            self.note(format!("damage: {} {at} of {}", path.display(), bytes.len()));
            let damaged = disk.fork();
            damaged.put(path, bytes);
            self.open_damaged(&damaged, path);
        }
    }

    fn open_damaged(&mut self, disk: &FaultFs, path: &Path) {
        let fake = FakeEnv::new(Arc::new(disk.clone()), self.seed);
        fake.clock.set_now_ms(self.now());
        let Ok((db, report)) = Db::open(Path::new(DIR), self.options, fake.env.clone()) else { return };
        let mut noticed = report.damage_count > 0
            || report.torn_tail.is_some()
            || report.snapshot_damage.len() + report.blocks.quarantined as usize > 0
            // A mark that cannot be read is set aside.
            || disk.read(&Path::new(DIR).join("cut.damaged")).is_some();
        let mut wrong = None;
        let floor = self.floor.max(db.stats().head.floor);
        for tenant in &self.tenants {
            match audit::read_all(&db, &tenant.id, false) {
                Ok((content, warnings)) => {
                    tenant.check_sent(&content, &format!("{} is damaged", path.display()));
                    noticed |= warnings > 0;
                    wrong = wrong.or_else(|| tenant.missing(&content, floor));
                    wrong = wrong.or_else(|| tenant.surplus(&content, floor));
                }
                Err(_) => noticed = true,
            }
        }
        fake.scheduler.kill();
        assert!(
            wrong.is_none() || noticed,
            "{} is damaged, and nobody says so: {wrong:?}, {report:?}",
            path.display()
        );
    }
}

/// All files of the database but those that mean nothing.
fn files(disk: &FaultFs) -> Vec<PathBuf> {
    let mut dirs = vec![Path::new(DIR).to_path_buf()];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for name in disk.list(&dir).expect("listed") {
            let path = dir.join(&name);
            if disk.read(&path).is_some() {
                if name != "lock" && name != "format" {
                    files.push(path);
                }
            } else if name != "snapshots" {
                dirs.push(path);
            }
        }
    }
    files
}
