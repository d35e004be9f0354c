//! Opening and closing.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chronolith_env::{Env, JobHandle};
use chronolith_head::{Head, HeadReplay, ReplayOutcome};
use chronolith_wal::{CommitWaiter, Damage, LogSource, ReplayReport, TornTail, Wal};
use parking_lot::Mutex;

use crate::{
    dir::DataDir,
    error::{Error, Result},
    maintenance::Maintenance,
    metadata::MetadataStore,
    options::DbOptions,
};

/// A database. Dropping it closes it; [`Db::close`] also says whether that went well.
#[derive(Debug)]
pub struct Db {
    pub(crate) options: DbOptions,
    pub(crate) head: Arc<Head>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) waiter: CommitWaiter,
    pub(crate) metadata: Arc<MetadataStore>,
    pub(crate) maintenance: Box<dyn JobHandle>,
    pub(crate) report: OpenReport,
    dir: PathBuf,
    lock: Mutex<Option<DataDir>>,
    closed: AtomicBool,
}

/// What a start found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// Log segments read.
    pub segments: usize,
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Samples in memory again.
    pub samples: u64,
    /// Samples read that were too old by now or there already.
    pub samples_skipped: u64,
    /// Samples read whose series is unknown because its definition is damaged.
    pub samples_orphaned: u64,
    /// Series in memory again.
    pub series: u64,
    /// Definitions read that name no valid series.
    pub invalid_definitions: u64,
    /// How long the replay took.
    pub duration: Duration,
    /// The unfinished end of the log that was cut off; nothing of it had been acknowledged.
    pub torn_tail: Option<TornTail>,
    /// Damaged places in the log, the first of them.
    pub damage: Vec<Damage>,
    /// How many damaged places there are.
    pub damage_count: u64,
}

impl OpenReport {
    fn new(head: &Head, torn_tail: Option<TornTail>, log: ReplayReport, outcome: ReplayOutcome) -> Self {
        Self {
            segments: log.segments,
            records: log.records,
            bytes: log.bytes,
            samples: outcome.stored,
            samples_skipped: outcome.skipped,
            samples_orphaned: outcome.orphans,
            series: head.series() as u64,
            invalid_definitions: outcome.invalid_definitions,
            duration: Duration::ZERO,
            torn_tail,
            damage: log.damage,
            damage_count: log.damage_count,
        }
    }
}

impl Db {
    /// Opens the data directory `dir`, made if need be, and replays its log.
    ///
    /// # Errors
    /// When the directory is locked, of another version, something else or not writable. Damage in the log is no error:
    /// the report lists it.
    pub fn open(dir: &Path, options: DbOptions, env: Env) -> Result<(Self, OpenReport)> {
        let started = env.clock.monotonic();
        let data_dir = DataDir::open(&env, dir)?;
        let head = Arc::new(Head::new(options.head(), env.clone()));
        let mut opened = Wal::open(&env, &data_dir.wal(), options.wal())?;
        let torn_tail = opened.report().torn_tail.clone();
        let replay = HeadReplay::new(&head);
        let log = opened.replay(env.scheduler.parallelism(), &replay)?;
        let outcome = replay.finish();
        let mut report = OpenReport::new(&head, torn_tail, log, outcome);
        let source: Arc<dyn LogSource> = Arc::clone(&head) as Arc<dyn LogSource>;
        let wal = Arc::new(opened.start(source)?);
        head.attach_log(wal.waiter());
        if let Some(floor) = head.memory_floor() {
            // Raised for want of memory during the replay, or by a record whose segment may go before others.
            wal.log_floor(None, floor);
        }
        report.duration = env.clock.monotonic().saturating_sub(started);
        let maintenance = Maintenance {
            env: env.clone(),
            head: Arc::clone(&head),
            wal: Arc::clone(&wal),
            interval: options.maintenance_interval,
            not_before: None,
        };
        let maintenance = env.scheduler.spawn("maintenance", Box::new(maintenance)).map_err(Error::Spawn)?;
        let db = Self {
            options,
            head,
            waiter: wal.waiter(),
            wal,
            metadata: Arc::new(MetadataStore::new(options.metadata_metrics_max)),
            maintenance,
            report: report.clone(),
            dir: data_dir.path.clone(),
            lock: Mutex::new(Some(data_dir)),
            closed: AtomicBool::new(false),
        };
        Ok((db, report))
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Refuses further appends, makes what is pending durable and releases the directory. Queries still work.
    ///
    /// # Errors
    /// When what was pending could not be made durable; the directory is released all the same.
    pub fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.head.close();
        self.maintenance.stop();
        let written = self.wal.close();
        *self.lock.lock() = None;
        Ok(written?)
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(error = &error as &dyn std::error::Error, "closing the database");
        }
    }
}
