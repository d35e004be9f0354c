//! One seed: a disk, a clock, jobs, a database and what is done to it.

use std::{
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use chronolith_env::{Clock as _, Fs as _, Op, Rng as _};
use chronolith_model::{Labels, TenantId, TimeRange};
use chronolith_storage::{Querier, Ticket};
use chronolith_testkit::{
    fake_env::{FakeEnv, SimRng},
    fault_fs::{CrashMode, Fault, FaultFs},
};
use chronolith_tsdb::{Db, DbOptions, OpenReport};

use super::{
    model::{Bounds, Deleted, SampleOf, Tenant},
    sites,
};
use crate::{
    fixture::{Content, DIR},
    sim::START,
};

/// Operations that are printed when a seed fails; all of them if this variable is set.
const RECENT: usize = 40;
const ALL_VARIABLE: &str = "CHRONOLITH_SIM_ALL";
/// If this variable is set, everything is compared after each operation.
const AUDIT_VARIABLE: &str = "CHRONOLITH_SIM_AUDIT";
/// What files that may be damaged are called; the mark has no extension.
const KINDS: [Option<&str>; 4] = [None, Some("wal"), Some("snapshot"), Some("chunks")];
/// A record of the log has a header of so many bytes.
const RECORD_HEADER_BYTES: u64 = 28;
/// After so many operations at the latest the machine dies.
const LIFE_OPS_MAX: u64 = 300;

/// An append that is not acknowledged yet.
pub(super) struct Sent {
    pub(super) tenant: usize,
    pub(super) op: u64,
    pub(super) samples: Vec<SampleOf>,
    pub(super) ticket: Box<dyn Ticket>,
}

/// A view that is kept open, and what it has shown.
pub(super) struct Held {
    pub(super) querier: Arc<dyn Querier>,
    pub(super) seen: Content,
}

/// A copy that was made in this life, and what it has.
pub(super) struct Copied {
    pub(super) name: String,
    pub(super) contents: Vec<Content>,
}

/// A database with everything around it.
pub(crate) struct World {
    pub(super) seed: u64,
    pub(super) rng: SimRng,
    pub(super) fs: FaultFs,
    pub(super) fake: FakeEnv,
    pub(super) options: DbOptions,
    pub(super) db: Option<Db>,
    pub(super) tenants: Vec<Tenant>,
    /// By tenant, the first of the series that are written.
    pub(super) first: Vec<u64>,
    pub(super) sent: Vec<Sent>,
    pub(super) held: Option<Held>,
    pub(super) copied: Option<Copied>,
    /// Deletions that failed, to be repeated.
    pub(super) repeat: Option<(usize, Deleted)>,
    /// The highest floor of retention seen.
    pub(super) floor: i64,
    /// The newest sample taken.
    pub(super) newest: i64,
    /// No call of the disk was made to fail in this life.
    pub(super) clean: bool,
    /// The power has failed in the middle of a write.
    torn: bool,
    /// When faults are taken back, and when the machine dies at the latest.
    heal_at: u64,
    crash_at: u64,
    pub(super) ops: u64,
    pub(super) restarts: u64,
    audits_each: bool,
    recent: Vec<String>,
    digest: DefaultHasher,
}

/// Says what was done last, if the seed fails.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut text = format!(
            "seed {} failed after {} operations and {} restarts\n",
            self.seed, self.ops, self.restarts
        );
        let from = if std::env::var_os(ALL_VARIABLE).is_some() {
            0
        } else {
            self.recent.len().saturating_sub(RECENT)
        };
        let _ = writeln!(text, "last operations:\n  {}", self.recent[from..].join("\n  "));
        let _ = writeln!(text, "last changes on the disk:\n  {}", self.fs.recent().join("\n  "));
        eprintln!("{text}");
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = SimRng::new(seed);
        let fs = FaultFs::seeded(seed);
        fs.watch(sites::name);
        let of = |choices: &[u64]| choices[(rng.next_u64() % choices.len() as u64) as usize];
        let options = DbOptions {
            maintenance_interval: Duration::from_secs(of(&[60, 200, 600])),
            retention: Duration::from_secs(3600 * of(&[9, 14, 40])),
            ooo_window: Duration::from_secs(60 * of(&[0, 10, 10, 60])),
            block_range_max: Duration::from_secs(3600 * of(&[0, 6, 24])),
            segment_bytes: of(&[1 << 10, 3 << 10, 16 << 10]),
            disk_reserve: of(&[0, 0, 4 << 10]),
            block_cache_bytes: of(&[0, 1 << 20]) as usize,
            ..DbOptions::default()
        };
        let fake = FakeEnv::new(Arc::new(fs.clone()), seed);
        fake.clock.set_now_ms(START + (rng.next_u64() % 7_200_000) as i64);
        let ids =
            [TenantId::default(), TenantId::new("b").expect("valid"), TenantId::new("c").expect("valid")];
        let mut world = Self {
            seed,
            rng,
            fs,
            fake,
            options,
            db: None,
            tenants: ids.into_iter().map(Tenant::new).collect(),
            first: vec![0; 3],
            sent: Vec::new(),
            held: None,
            copied: None,
            repeat: None,
            floor: i64::MIN,
            newest: i64::MIN,
            clean: true,
            torn: false,
            heal_at: u64::MAX,
            crash_at: LIFE_OPS_MAX,
            ops: 0,
            restarts: 0,
            audits_each: std::env::var_os(AUDIT_VARIABLE).is_some(),
            recent: Vec::new(),
            digest: DefaultHasher::new(),
        };
        world.open();
        world
    }

    /// A number below `n`.
    pub(super) fn below(&self, n: u64) -> u64 {
        self.rng.next_u64() % n.max(1)
    }

    pub(super) fn now(&self) -> i64 {
        self.fake.clock.now_ms()
    }

    pub(super) fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    pub(super) fn bounds(&self) -> Bounds {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).expect("short");
        Bounds {
            now: self.now(),
            window: millis(self.options.ooo_window),
            future: millis(self.options.future_max),
        }
    }

    /// Notes what is done, or what came of it.
    pub(super) fn note(&mut self, text: String) {
        text.hash(&mut self.digest);
        self.digest.write_i64(self.now());
        self.recent.push(format!("{} {}", self.ops, text));
    }

    /// Makes what was read part of the digest.
    pub(super) fn saw(&mut self, content: &Content) {
        content.hash(&mut self.digest);
    }

    /// A number that tells this run from others.
    pub(crate) fn digest(&self) -> u64 {
        let mut digest = self.digest.clone();
        digest.write_u64(self.fs.digest());
        digest.finish()
    }

    /// Does `ops` operations, and looks at the end whether damage is noticed.
    pub(crate) fn live(&mut self, ops: u64) {
        while self.ops < ops {
            self.ops += 1;
            self.operation();
            if self.audits_each {
                self.audit("after an operation");
            }
            self.acknowledge();
            if self.ops >= self.heal_at && self.heal_at != u64::MAX {
                self.heal();
            }
            if self.fs.halted() || self.ops >= self.crash_at {
                self.restart();
            }
        }
        self.heal();
        self.audit("at the end");
        self.restart_cleanly();
        let report = self.open();
        self.audit_restart();
        self.check_report(&report);
        self.db().close().expect("closes");
        self.end();
        self.rot();
    }

    /// Takes what is done by now as acknowledged.
    pub(super) fn acknowledge(&mut self) {
        for sent in std::mem::take(&mut self.sent) {
            if !sent.ticket.is_done() {
                self.sent.push(sent);
                continue;
            }
            match sent.ticket.wait() {
                Ok(()) => self.tenants[sent.tenant].acknowledged(&sent.samples, sent.op),
                Err(error) => {
                    assert!(!self.clean, "not durable on a disk that does what it should: {error}");
                }
            }
        }
    }

    /// Lets time pass; jobs do what they have to in any order.
    pub(super) fn pass(&self, time: Duration) {
        let end = self.fake.clock.monotonic() + time;
        for _ in 0..1_000_000 {
            while self.fake.scheduler.step_one(&self.rng) {}
            let now = self.fake.clock.monotonic();
            if now >= end || self.fs.halted() {
                return;
            }
            let idle = self.fake.scheduler.idle().unwrap_or(Duration::MAX);
            self.fake.clock.advance(idle.min(end - now));
        }
        panic!("a job never rests");
    }

    /// Makes calls of the disk fail for a while.
    pub(super) fn inject(&mut self) {
        if self.db().stats().jobs.cuts_failed >= 3 {
            // A cut that has failed often enough leaves out what it cannot read.
            return;
        }
        self.clean = false;
        self.heal_at = self.ops + 1 + self.below(40);
        let fault = if self.below(2) == 0 { Fault::Io } else { Fault::Full };
        let (nth, count) = (1 + self.below(40), 1 + self.below(4));
        match self.below(8) {
            0 => self.fs.fill_after(self.below(20_000)),
            1 | 2 => self.fs.fail_any(nth * 2, count, fault),
            _ => {
                let ops = [
                    Op::Sync,
                    Op::SyncDir,
                    Op::Rename,
                    Op::Write,
                    Op::Create,
                    Op::Remove,
                    Op::CreateDir,
                    Op::Read,
                ];
                let op = ops[self.below(ops.len() as u64) as usize];
                self.fs.fail(op, 1 + self.below(6), count, fault);
            }
        }
        self.note(format!("faults until {}", self.heal_at));
    }

    fn heal(&mut self) {
        self.heal_at = u64::MAX;
        self.fs.heal();
        self.note("no more faults".to_owned());
    }

    /// The machine is to die in the middle of something.
    pub(super) fn doom(&mut self) {
        let bits = self.below(9);
        let changes = self.below(1 << bits);
        self.fs.halt_after_changes(changes);
        self.clean = false;
        self.note(format!("to end after {changes} changes"));
    }

    fn restart(&mut self) {
        if !self.fs.halted() && self.below(4) == 0 {
            self.heal();
            self.restart_cleanly();
        } else {
            let modes = [
                CrashMode::LoseUnsynced,
                CrashMode::Tear,
                CrashMode::Subset,
                CrashMode::Subset,
                CrashMode::KeepAll,
            ];
            self.die(modes[self.below(5) as usize]);
        }
        // Now and then starting fails too.
        while self.below(4) == 0 {
            self.fail_to_open();
        }
        let report = self.open();
        self.audit_restart();
        self.check_report(&report);
    }

    /// Ends this life; only the disk is left.
    fn die(&mut self, mode: CrashMode) {
        self.note(format!("crash: {mode:?}"));
        self.torn |= matches!(mode, CrashMode::Tear | CrashMode::Subset);
        self.fs.halt_after(0);
        self.fs.crash(mode, &self.rng);
        self.end();
    }

    fn end(&mut self) {
        self.fake.scheduler.kill();
        (self.sent, self.held) = (Vec::new(), None);
        self.db = None;
        self.fs.heal();
        (self.clean, self.heal_at) = (true, u64::MAX);
        self.restarts += 1;
        let now = self.now() + (self.below(120_000)) as i64;
        self.fake = FakeEnv::new(Arc::new(self.fs.clone()), self.seed << 16 | self.restarts);
        self.fake.clock.set_now_ms(now);
        self.crash_at = self.ops + 20 + self.below(LIFE_OPS_MAX);
    }

    /// Closes and opens again.
    fn restart_cleanly(&mut self) {
        self.held = None;
        if self.below(4) == 0 {
            self.doom();
        }
        let closed = self.db().close();
        self.note(format!("close: {:?}", closed.is_ok()));
        match closed {
            Ok(()) => self.tenants.iter_mut().for_each(Tenant::all_durable),
            Err(error) => assert!(self.fs.halted() || !self.clean, "{error}"),
        }
        self.fs.crash(CrashMode::KeepAll, &self.rng);
        self.end();
    }

    /// Tries to open on a disk that fails or dies meanwhile.
    fn fail_to_open(&mut self) {
        match self.below(3) {
            0 => {
                let ops =
                    [Op::Sync, Op::SyncDir, Op::Rename, Op::Write, Op::Create, Op::Remove, Op::CreateDir];
                let op = ops[self.below(ops.len() as u64) as usize];
                self.fs.fail(op, 1 + self.below(4), 1 + self.below(3), Fault::Io);
            }
            _ => {
                let bits = self.below(7);
                self.fs.halt_after_changes(self.below(1 << bits));
            }
        }
        let opened = Db::open(Path::new(DIR), self.options, self.fake.env.clone());
        self.note(format!("to fail to open: {:?}", opened.as_ref().map(|_| ()).map_err(ToString::to_string)));
        self.db = opened.ok().map(|(db, _)| db);
        if self.db.is_some() && self.below(2) == 0 {
            self.pass(Duration::from_secs(self.below(30)));
        }
        let modes = [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll];
        self.die(modes[self.below(4) as usize]);
    }

    fn open(&mut self) -> OpenReport {
        let opened = Db::open(Path::new(DIR), self.options, self.fake.env.clone());
        let (db, report) = opened.unwrap_or_else(|error| panic!("does not open: {error:?}"));
        self.db = Some(db);
        self.note(format!("open: {} samples, {} in blocks", report.samples, report.blocks.blocks));
        report
    }

    fn check_report(&mut self, report: &OpenReport) {
        // What was being written when the power failed cannot be told from what has rotted since.
        let torn = std::mem::take(&mut self.torn) && report.snapshot_damage.is_empty();
        // A sample without its series is none that was acknowledged, or one that is deleted: all others are there.
        // A write that failed may have left a piece of a record's header behind the last record; the log cannot tell that from rot.
        let pieces = report.damage.iter().filter(|damage| damage.bytes <= RECORD_HEADER_BYTES).count() as u64;
        let damage = (report.damage_count - pieces, report.snapshot_damage.len());
        assert!(torn || damage == (0, 0), "{report:?}");
        assert_eq!(report.blocks.quarantined, 0, "{report:?}");
    }

    /// Damages files, one at a time: it must be noticed, and nothing invented.
    fn rot(&mut self) {
        for _ in 0..8 {
            let files = self.files();
            // Kinds of files come up alike, whatever there are of each.
            let mut of_kind = files.clone();
            let some = |n: usize| self.below(n as u64) as usize;
            let Some(kind) = files.get(some(files.len())).map(|path| path.extension()) else { return };
            let kind =
                if self.below(2) == 0 { kind } else { KINDS[some(KINDS.len())].map(std::ffi::OsStr::new) };
            of_kind.retain(|path| path.extension() == kind);
            let Some(path) = of_kind.get(some(of_kind.len())).cloned() else { continue };
            let whole = self.fs.read(&path).expect("there");
            if whole.is_empty() {
                continue;
            }
            let mut bytes = whole.clone();
            let at = self.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.below(8);
            let all: Vec<_> = files.iter().map(|path| (path.clone(), self.fs.read(path))).collect();
            self.fs.put(&path, bytes);
            self.note(format!("damage: {} {at} of {}", path.display(), whole.len()));
            self.open_damaged(&path);
            // As it was before.
            self.end();
            for other in self.files() {
                self.fs.remove_file(&other).expect("removed");
            }
            for (path, bytes) in all {
                self.fs.put(&path, bytes.expect("read"));
            }
        }
    }

    fn open_damaged(&mut self, path: &Path) {
        let Ok((db, report)) = Db::open(Path::new(DIR), self.options, self.fake.env.clone()) else { return };
        let mut noticed = report.damage_count > 0
            || report.torn_tail.is_some()
            || report.snapshot_damage.len() + report.blocks.quarantined as usize > 0;
        let mut missing = None;
        let floor = self.floor.max(db.stats().head.floor);
        for tenant in &self.tenants {
            match super::audit::read_all(&db, &tenant.id) {
                Ok((content, warnings)) => {
                    tenant.check_sent(&content, &format!("{} is damaged", path.display()));
                    noticed |= warnings > 0;
                    missing = missing.or_else(|| tenant.missing(&content, floor));
                }
                Err(_) => noticed = true,
            }
        }
        assert!(
            missing.is_none() || noticed,
            "{} is damaged, and nobody says so: {missing:?}, {report:?}",
            path.display()
        );
        self.db = Some(db);
    }

    /// All files of the database but those that mean nothing.
    fn files(&self) -> Vec<std::path::PathBuf> {
        let mut dirs = vec![Path::new(DIR).to_path_buf()];
        let mut files = Vec::new();
        while let Some(dir) = dirs.pop() {
            for name in self.fs.list(&dir).expect("listed") {
                let path = dir.join(&name);
                if self.fs.read(&path).is_some() {
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

    /// The series that is written under a number.
    pub(super) fn series(id: u64) -> Labels {
        let pairs = [("__name__", format!("m{}", id % 4)), ("id", id.to_string())];
        let zone = (!id.is_multiple_of(3)).then(|| ("zone", format!("z{}", id % 5)));
        Labels::from_pairs(pairs.into_iter().chain(zone))
    }

    pub(super) fn ranges(&self) -> TimeRange {
        let from = self.now() - self.below(10 * 3_600_000) as i64;
        match self.below(8) {
            0 => TimeRange::ALL,
            1 => TimeRange::new(i64::MIN, from),
            _ => TimeRange::new(from, from + self.below(4 * 3_600_000) as i64),
        }
    }
}
