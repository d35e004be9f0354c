//! A data directory compacted without serving it, in the foreground: what is in the head becomes blocks, and blocks are
//! merged until the planner has nothing more to do.
//!
//! The code is that of the jobs of a running database, stepped by the caller. Whatever interrupts it loses nothing:
//! blocks take the place of the log, and of other blocks, when they are durable.

use std::{path::Path, sync::Arc, sync::atomic::Ordering};

use chronolith_compact::{Plan, PlanOptions};
use chronolith_env::{Env, Job as _};
use chronolith_head::HeadOptions;
use chronolith_model::{TenantId, Timestamp};

use crate::{
    blocks::BlockStats,
    compaction::{self, CompactionError},
    cut::Progress,
    db::OpenReport,
    dir::DataDir,
    error::{Error, Result, with_causes},
    maintenance::Maintenance,
    mend,
    opened::Opened,
    options::{DbOptions, to_millis},
    store::{JobStats, Store},
};

/// At most so many failed merges are told of; all are counted.
const FAILURES_MAX: usize = 100;

/// A data directory that is compacted. Nobody else has it open meanwhile.
#[derive(Debug)]
pub struct Offline {
    store: Arc<Store>,
    maintenance: Maintenance,
    plan_options: PlanOptions,
    /// Held until the end.
    data_dir: DataDir,
    open: OpenReport,
    before: BlockStats,
    failures: Vec<MergeFailure>,
    failures_count: u64,
    failures_for_damage: u64,
}

/// A piece of work that comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// A part of the head is written as a block.
    Block {
        /// So many parts are done with.
        done: u64,
        /// So many are to come, this one included.
        left: u64,
    },
    /// Blocks are merged into one.
    Merge {
        /// Whose.
        tenant: TenantId,
        /// How many.
        blocks: usize,
        /// Their bytes.
        bytes: u64,
    },
}

/// What has been done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OfflineReport {
    /// What was found. Damaged blocks among it are set aside.
    pub open: OpenReport,
    /// The blocks at the begin.
    pub before: BlockStats,
    /// The blocks at the end.
    pub after: BlockStats,
    /// Cuts and merges.
    pub jobs: JobStats,
    /// Merges that have failed for damage or limits, the first of them; other blocks were merged all the same.
    pub failures: Vec<MergeFailure>,
    /// How many there were.
    pub failures_count: u64,
    /// How many of them were for damage.
    pub failures_for_damage: u64,
    /// There is more to merge, and too little room on the device.
    pub short_of_room: bool,
}

/// A merge that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeFailure {
    /// Why, with its causes.
    pub reason: String,
    /// Whether something is damaged; else the merged block would be beyond a limit, and the blocks stay as they are.
    pub damage: bool,
}

impl Offline {
    /// Opens the data directory `dir` with the limits in `options`. Nothing is dropped, whatever its retention says: that
    /// is for the server to do. It sets how long blocks get, if `block_range_max` does not.
    ///
    /// # Errors
    /// As [`Db::open`](crate::Db::open); and when there is no such directory.
    pub fn open(dir: &Path, options: DbOptions, env: &Env) -> Result<Self> {
        let data_dir = DataDir::open_existing(env, dir)?;
        // What is out of retention is written into blocks like everything else: the clock of this machine may be wrong.
        let head = HeadOptions { retention_ms: i64::MAX, ..options.head() };
        let Opened { data_dir, store, report, snapshot_bytes } = Opened::open(data_dir, options, head, env)?;
        let maintenance = Maintenance::new(Arc::clone(&store), report.bytes, snapshot_bytes);
        let floor = env.clock.now_ms().saturating_sub(to_millis(options.retention));
        let plan_options =
            PlanOptions { settled: Some(Timestamp::MAX), floor, ..compaction::plan_options(&store) };
        let before = store.blocks.stats();
        Ok(Self {
            store,
            maintenance,
            plan_options,
            data_dir,
            open: report,
            before,
            failures: Vec::new(),
            failures_count: 0,
            failures_for_damage: 0,
        })
    }

    /// Cuts and merges all there is, and closes the directory. Says to `tell` what comes next, before each piece.
    ///
    /// # Errors
    /// When the head cannot be cut, or the file system refuses. What is done stays done.
    pub fn compact(mut self, tell: &mut dyn FnMut(&Task)) -> Result<OfflineReport> {
        let worked = self.cut(tell).and_then(|()| self.merge(tell));
        let short_of_room = worked.is_ok() && {
            let unlimited = PlanOptions { space_bytes: u64::MAX, ..self.plan_options.clone() };
            compaction::next(&self.store, &unlimited).is_some()
        };
        let (after, jobs) = (self.store.blocks.stats(), self.store.job_stats());
        self.store.head.close();
        self.store.stopping.store(true, Ordering::Release);
        // A snapshot of what is left in the head, for a quick start.
        self.maintenance.step(true);
        let written = self.store.wal.close();
        drop(self.data_dir);
        worked?;
        written?;
        Ok(OfflineReport {
            open: self.open,
            before: self.before,
            after,
            jobs,
            failures: self.failures,
            failures_count: self.failures_count,
            failures_for_damage: self.failures_for_damage,
            short_of_room,
        })
    }

    fn cut(&mut self, tell: &mut dyn FnMut(&Task)) -> Result<()> {
        let stats = self.store.head.stats();
        let Some((_, newest)) = stats.times.filter(|_| stats.series > 0) else { return Ok(()) };
        *self.store.wanted_cut.lock() = Some(newest);
        loop {
            if let Some((done, left)) = self.maintenance.cutter().places().filter(|(_, left)| *left > 0) {
                tell(&Task::Block { done, left });
            }
            match self.maintenance.cut_step() {
                // There are no readers.
                Progress::Working | Progress::Waiting => {}
                Progress::Finished => return Ok(()),
                // What cannot be read is made again from the log.
                Progress::Idle if mend::mend(&self.store) => self.maintenance.cutter().retry(),
                Progress::Idle => {
                    return self.maintenance.cutter().take_error().map_or(Ok(()), |error| Err(error.into()));
                }
            }
        }
    }

    fn merge(&mut self, tell: &mut dyn FnMut(&Task)) -> Result<()> {
        let mut last: Option<(TenantId, Plan)> = None;
        loop {
            self.plan_options.space_bytes = self.store.room().unwrap_or(u64::MAX);
            let Some((tenant, plan)) = compaction::next(&self.store, &self.plan_options) else {
                return Ok(());
            };
            tell(&Task::Merge { tenant: tenant.clone(), blocks: plan.inputs.len(), bytes: plan.bytes });
            match compaction::run(&self.store, &tenant, &plan) {
                Ok(()) => {}
                // The blocks in question are set aside, or held: something else is planned next.
                Err(CompactionError::Block(error))
                    if !matches!(error, chronolith_block::Error::Fs(_))
                        && last.as_ref().is_none_or(|last| *last != (tenant.clone(), plan.clone())) =>
                {
                    let damage = error.is_damage();
                    self.failures_count += 1;
                    self.failures_for_damage += u64::from(damage);
                    if self.failures.len() < FAILURES_MAX {
                        self.failures.push(MergeFailure { reason: with_causes(&error), damage });
                    }
                }
                Err(error) => return Err(Error::Compaction(error)),
            }
            last = Some((tenant, plan));
        }
    }
}
