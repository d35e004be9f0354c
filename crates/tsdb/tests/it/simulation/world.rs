//! One seed: a disk, a clock, jobs, a database and what is done to it.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chronolith_env::{Clock as _, Op, Rng as _};
use chronolith_model::{Labels, TenantId, TimeRange, Timestamp};
use chronolith_storage::{Querier, Ticket};
use chronolith_testkit::{
    fake_env::{FakeEnv, SimRng},
    fault_fs::{CrashMode, Fault, FaultFs},
};
use chronolith_tsdb::{Db, DbOptions, OpenReport};

use super::{
    imports::Importing,
    model::{Bounds, Deleted, SampleOf, Tenant},
    sites,
    values::{Book, Content},
};
use crate::{fixture::DIR, sim::START};

/// Start timestamps are compared as well: not yet, in two seeds of 100 one is lost, or that of a neighbour.
pub(super) const STARTS: bool = false;

/// Operations that are printed when a seed fails; all of them if this variable is set.
const RECENT: usize = 40;
const ALL_VARIABLE: &str = "CHRONOLITH_SIM_ALL";
/// If this variable is set, everything is compared after each operation.
const AUDIT_VARIABLE: &str = "CHRONOLITH_SIM_AUDIT";
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
    /// The number of the tenant.
    pub(super) tenant: usize,
    /// Before it was opened, and what was the oldest shown then.
    pub(super) moment: (Option<u64>, Timestamp),
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
    pub(super) importing: Option<Importing>,
    /// All histograms that were made.
    pub(super) book: Book,
    /// How many exemplars were made.
    pub(super) exemplars: u64,
    /// Deletions that failed, to be repeated.
    pub(super) repeat: Option<(usize, Deleted)>,
    /// The highest floor of retention seen.
    pub(super) floor: i64,
    /// The newest sample taken.
    pub(super) newest: i64,
    /// The newest boundary that a cut was asked for.
    pub(super) cut_asked: i64,
    /// So far the clock is ahead of the right time, and when that is noticed.
    pub(super) skew: i64,
    pub(super) skew_until: u64,
    /// Blocks dropped in this life.
    pub(super) dropped: u64,
    /// No call of the disk was made to fail in this life.
    pub(super) clean: bool,
    /// The power has failed in the middle of a write.
    pub(super) torn: bool,
    /// Damaged places of the log that the last start has met, and samples without a series.
    pub(super) damaged: BTreeSet<(PathBuf, u64)>,
    pub(super) orphans: u64,
    /// All that fails is that there is no room.
    full: bool,
    /// When faults are taken back, and when the machine dies at the latest.
    heal_at: u64,
    pub(super) crash_at: u64,
    pub(super) ops: u64,
    pub(super) restarts: u64,
    audits_each: bool,
    pub(super) recent: Vec<String>,
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
        fs.keep_removed("block");
        let of = |choices: &[u64]| choices[(rng.next_u64() % choices.len() as u64) as usize];
        let options = DbOptions {
            maintenance_interval: Duration::from_secs(of(&[100, 200, 600])),
            retention: Duration::from_secs(3600 * of(&[9, 14, 40])),
            ooo_window: Duration::from_secs(60 * of(&[0, 10, 10, 60])),
            block_range_max: Duration::from_secs(3600 * of(&[0, 6, 24])),
            retention_bytes: of(&[0, 0, 0, 60 << 10]),
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
            importing: None,
            book: Book::default(),
            exemplars: 0,
            repeat: None,
            floor: i64::MIN,
            newest: i64::MIN,
            cut_asked: i64::MIN,
            skew: 0,
            skew_until: u64::MAX,
            dropped: 0,
            clean: true,
            torn: false,
            damaged: BTreeSet::new(),
            orphans: 0,
            full: false,
            heal_at: u64::MAX,
            crash_at: LIFE_OPS_MAX,
            ops: 0,
            restarts: 0,
            audits_each: std::env::var_os(AUDIT_VARIABLE).is_some(),
            recent: Vec::new(),
            digest: DefaultHasher::new(),
        };
        world.open();
        if world.below(2) == 0 {
            // The first of its kind is often the one that nothing else makes up for.
            let (site, changes) = (world.site(), world.below(3));
            world.fs.halt_behind(site, 1, changes);
            world.note(format!("to end {changes} changes behind {site}"));
        }
        world
    }

    /// A number below `n`.
    pub(super) fn below(&self, n: u64) -> u64 {
        self.rng.next_u64() % n.max(1)
    }

    pub(super) fn now(&self) -> i64 {
        self.fake.clock.now_ms()
    }

    /// What the clocks of senders say.
    pub(super) fn true_now(&self) -> i64 {
        self.now() - self.skew
    }

    /// Something has failed in this life, or will not be done any more.
    pub(super) fn is_faulty(&self) -> bool {
        !self.clean || self.fs.halted()
    }

    /// What is planned to fail does so for so many operations at most.
    pub(super) fn faults_until(&mut self, ops: u64) {
        self.clean = false;
        self.full = false;
        self.heal_at = self.ops + ops;
    }

    pub(super) fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    pub(super) fn bounds(&self) -> Bounds {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).expect("short");
        Bounds {
            now: self.now(),
            floor: self.db().stats().head.floor,
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
            self.look_for_dropped();
            if self.ops >= self.skew_until {
                self.right_clock();
            }
            if self.audits_each {
                self.audit("after an operation");
            }
            self.acknowledge();
            if self.ops >= self.heal_at && !self.fs.halted() {
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
        self.rot(&self.fs.fork(), 8);
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
                    assert!(self.is_faulty(), "not durable on a disk that does what it should: {error}");
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
        let fault = if self.below(2) == 0 { Fault::Io } else { Fault::Full };
        let (nth, count) = (1 + self.below(40), 1 + self.below(4));
        let until = 1 + self.below(40);
        self.faults_until(until);
        match self.below(10) {
            0 | 1 => {
                // For a while; it may be longer than this life.
                self.fs.fill_after(self.below(20_000));
                (self.full, self.heal_at) = (true, self.ops + 1 + self.below(120));
            }
            2 | 3 => self.fs.fail_any(nth * 2, count, fault),
            4 | 5 => {
                let site = self.site();
                self.fs.fail_site(site, 1 + self.below(2), count, fault);
                if self.below(3) == 0 {
                    // What was made cannot be taken back either.
                    self.fs.fail(Op::Remove, 1, 20, Fault::Io);
                    self.crash_at = self.crash_at.min(self.ops + 1 + self.below(40));
                }
            }
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
                    Op::Link,
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
        if std::mem::take(&mut self.full) && self.skew == 0 {
            self.check_recovered();
            self.look_for_dropped();
        }
    }

    /// Some point, often one that something rests on which comes right behind it.
    fn site(&self) -> &'static str {
        let names = if self.below(2) == 0 { sites::NAMES } else { sites::CRITICAL };
        names[self.below(names.len() as u64) as usize]
    }

    /// The machine is to die in the middle of something, or right behind a point.
    pub(super) fn doom(&mut self) {
        if self.below(2) == 0 {
            let (site, nth, changes) = (self.site(), 1 + self.below(3), self.below(5));
            self.fs.halt_behind(site, nth, changes);
            self.note(format!("to end {changes} changes behind {site}, {nth}"));
            return;
        }
        let bits = self.below(9);
        let changes = self.below(1 << bits);
        self.fs.halt_after_changes(changes);
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
                CrashMode::Single,
                CrashMode::Single,
                CrashMode::KeepAll,
                CrashMode::KeepAll,
            ];
            self.die(modes[self.below(8) as usize]);
        }
        // Now and then starting fails too, or the machine dies again before long.
        while self.below(4) == 0 {
            self.fail_to_open();
        }
        if self.below(4) == 0 {
            self.crash_at = self.ops + 1 + self.below(12);
        }
        let before = self.fs.fork();
        let report = self.open();
        self.audit_restart();
        self.check_report(&report);
        if self.below(4) == 0 {
            self.rot(&before, 2);
        }
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
        if self.db.is_some() {
            // The next life may begin with a clock that is behind.
            self.raise_floor();
        }
        self.fake.scheduler.kill();
        (self.sent, self.held, self.importing) = (Vec::new(), None, None);
        self.db = None;
        self.fs.heal();
        (self.clean, self.full, self.heal_at, self.dropped) = (true, false, u64::MAX, 0);
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
            Ok(()) => {
                let visible = self.visible_from();
                self.tenants.iter_mut().for_each(|tenant| tenant.all_durable(visible));
            }
            Err(error) => assert!(self.is_faulty(), "{error}"),
        }
        self.fs.crash(CrashMode::KeepAll, &self.rng);
        self.end();
    }

    /// Tries to open on a disk that fails or dies meanwhile.
    fn fail_to_open(&mut self) {
        match self.below(8) {
            0 | 1 => {
                let ops = [
                    Op::Sync,
                    Op::SyncDir,
                    Op::Rename,
                    Op::Write,
                    Op::Create,
                    Op::Remove,
                    Op::CreateDir,
                    Op::Link,
                ];
                let op = ops[self.below(ops.len() as u64) as usize];
                self.fs.fail(op, 1 + self.below(4), 1 + self.below(3), Fault::Io);
            }
            2 => self.fs.fill_after(self.below(3000)),
            3 | 4 => self.fs.halt_behind(self.site(), 1, self.below(5)),
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
            self.look_for_dropped();
        }
        let modes = [
            CrashMode::LoseUnsynced,
            CrashMode::Tear,
            CrashMode::Subset,
            CrashMode::Single,
            CrashMode::KeepAll,
        ];
        self.die(modes[self.below(5) as usize]);
    }

    fn open(&mut self) -> OpenReport {
        let opened = Db::open(Path::new(DIR), self.options, self.fake.env.clone());
        let (db, report) = opened.unwrap_or_else(|error| panic!("does not open: {error:?}"));
        self.db = Some(db);
        let (damage, orphans) = (report.damage_count, report.samples_orphaned);
        self.note(format!(
            "open: {} samples, {} blocks, {damage} damaged places, {orphans} orphans",
            report.samples, report.blocks.blocks
        ));
        report
    }

    /// The series that is written under a number.
    pub(super) fn series(id: u64) -> Labels {
        let pairs = [("__name__", format!("m{}", id % 4)), ("id", id.to_string())];
        let zone = (!id.is_multiple_of(3)).then(|| ("zone", format!("z{}", id % 5)));
        Labels::from_pairs(pairs.into_iter().chain(zone))
    }

    /// The number under which a series is written.
    pub(super) fn id_of(labels: &Labels) -> u64 {
        labels.get("id").and_then(|id| id.parse().ok()).expect("a number")
    }

    pub(super) fn ranges(&self) -> TimeRange {
        let from = self.true_now() - self.below(10 * 3_600_000) as i64;
        match self.below(8) {
            0 => TimeRange::ALL,
            1 => TimeRange::new(i64::MIN, from),
            _ => TimeRange::new(from, from + self.below(4 * 3_600_000) as i64),
        }
    }
}
