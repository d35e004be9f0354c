//! A database stepped by hand, over a disk, a clock and jobs that are fakes: the same calls give the same run.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use chronolith_env::{Clock, Fs};
use chronolith_model::{Labels, Sample, TenantId};
use chronolith_testkit::{
    fake_env::FakeEnv,
    fault_fs::{CrashMode, FaultFs},
};
use chronolith_tsdb::{Db, DbOptions, OpenReport};

use crate::fixture::{Content, DIR, append, content};

/// One window of the head.
pub(crate) const WINDOW: i64 = 2 * 3_600_000;
/// The first moment: 10 minutes into a window.
pub(crate) const START: i64 = 1_699_992_000_000 + 600_000;

pub(crate) struct Sim {
    pub(crate) fs: FaultFs,
    pub(crate) fake: FakeEnv,
    pub(crate) options: DbOptions,
    db: Option<Db>,
    seed: u64,
}

/// The value that a series has at a time: bits that tell both.
pub(crate) fn value(series: usize, t: i64) -> f64 {
    f64::from_bits(0x3ff0_0000_0000_0000 | (series as u64) << 40 | (t as u64 & 0xff_ffff_ffff))
}

pub(crate) fn series(id: usize) -> Labels {
    Labels::from_pairs([("__name__", format!("m{}", id % 3)), ("id", id.to_string())])
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let fs = FaultFs::new();
        fs.create_dir_all(Path::new("/")).expect("a disk has a root");
        let options = DbOptions {
            maintenance_interval: Duration::from_secs(5),
            disk_reserve: 0,
            segment_bytes: 4 << 10,
            ..DbOptions::default()
        };
        Self { fake: FakeEnv::new(Arc::new(fs.clone()), seed), fs, options, db: None, seed }.started(START)
    }

    fn started(mut self, now: i64) -> Self {
        self.fake.clock.set_now_ms(now);
        self.open();
        self
    }

    pub(crate) fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    pub(crate) fn open(&mut self) -> OpenReport {
        let (db, report) = Db::open(Path::new(DIR), self.options, self.fake.env.clone()).expect("opens");
        self.db = Some(db);
        report
    }

    pub(crate) fn now(&self) -> i64 {
        self.fake.clock.now_ms()
    }

    /// Closes and opens again.
    pub(crate) fn restart(&mut self) -> OpenReport {
        self.db().close().expect("closes");
        self.db = None;
        self.open()
    }

    /// Opens again after a close, before any job has made a step.
    pub(crate) fn restart_stepped(&mut self) -> OpenReport {
        self.db = None;
        self.open()
    }

    /// Dies and starts again, with fakes of a new life.
    pub(crate) fn crash(&mut self, mode: CrashMode) -> OpenReport {
        let now = self.now();
        self.fs.halt_after(0);
        self.fs.crash(mode, &*self.fake.rng);
        self.fake.scheduler.kill();
        self.db = None;
        self.fs.heal();
        self.seed += 1;
        self.fake = FakeEnv::new(Arc::new(self.fs.clone()), self.seed);
        self.fake.clock.set_now_ms(now);
        self.open()
    }

    /// Lets jobs do what they have to.
    pub(crate) fn run(&self, time: Duration) {
        self.fake.scheduler.run_for(time);
    }

    /// Sends samples of (series, time), one entry each; which of them were not refused, or nothing if none was
    /// acknowledged.
    pub(crate) fn send(&self, tenant: &TenantId, samples: &[(usize, i64)]) -> Option<Vec<(usize, i64)>> {
        let given: Vec<_> =
            samples.iter().map(|(id, t)| (series(*id), vec![Sample::new(*t, value(*id, *t))])).collect();
        assert!(given.len() <= 10, "refusals beyond are not told");
        let appended = append(self.db(), tenant, &given).ok()?;
        for _ in 0..1000 {
            if appended.ticket.is_done() {
                break;
            }
            self.run(Duration::from_millis(2));
        }
        if !appended.ticket.is_done() || appended.ticket.wait().is_err() {
            return None;
        }
        let refused: Vec<usize> =
            appended.outcome.rejections.iter().map(|rejection| rejection.series).collect();
        let taken = samples.iter().enumerate().filter(|(at, _)| !refused.contains(at));
        Some(taken.map(|(_, sample)| *sample).collect())
    }

    /// Lets `minutes` pass, with a sample of each of `count` series every minute; adds them to `model`.
    pub(crate) fn scrape(&self, model: &mut Content, count: usize, minutes: i64) {
        for _ in 0..minutes {
            self.run(Duration::from_secs(60));
            let t = self.now();
            for ids in (0..count).collect::<Vec<_>>().chunks(10) {
                let samples: Vec<_> = ids.iter().map(|id| (*id, t)).collect();
                let taken = self.send(&TenantId::default(), &samples).expect("acknowledged");
                assert_eq!(taken.len(), samples.len());
                note(model, &taken);
            }
        }
    }

    pub(crate) fn content(&self) -> Content {
        content(self.db(), &TenantId::default())
    }
}

/// Adds samples to a model.
pub(crate) fn note(model: &mut Content, samples: &[(usize, i64)]) {
    for (id, t) in samples {
        model.entry(series(*id)).or_default().insert(*t, value(*id, *t).to_bits());
    }
}

/// Says what differs, shortly.
#[track_caller]
pub(crate) fn same(got: &Content, wanted: &Content, what: &str) {
    if got == wanted {
        return;
    }
    let keys: std::collections::BTreeSet<_> = got.keys().chain(wanted.keys()).collect();
    let empty = BTreeMap::new();
    for labels in keys {
        let (g, w) = (got.get(labels).unwrap_or(&empty), wanted.get(labels).unwrap_or(&empty));
        let missing: Vec<_> = w.iter().filter(|(t, v)| g.get(t) != Some(v)).take(3).collect();
        let extra: Vec<_> = g.iter().filter(|(t, v)| w.get(t) != Some(v)).take(3).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{what}: {labels}: {} of {} samples; missing {missing:?}, too many {extra:?}",
            g.len(),
            w.len()
        );
    }
}
