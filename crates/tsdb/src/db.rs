//! Opening and closing.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chronolith_block::BlockCache;
use chronolith_env::{Env, JobHandle};
use chronolith_head::{CutPoint, Head, HeadReplay, Loaded, ReplayOutcome, SnapshotDamage, Snapshots};
use chronolith_model::Timestamp;
use chronolith_wal::{CommitWaiter, Damage, LogSource, ReplayReport, SegmentInfo, TornTail, Wal};
use parking_lot::Mutex;

use crate::{
    blocks::{BlockSet, BlocksReport, Change},
    compaction::Compaction,
    deletion::Deletion,
    dir::DataDir,
    error::{Error, Result},
    maintenance::Maintenance,
    mark::{Mark, MarkError},
    metadata::MetadataStore,
    options::DbOptions,
    replay::CutReplay,
    store::Store,
};

/// A database. Dropping it closes it; [`Db::close`] also says whether that went well.
#[derive(Debug)]
pub struct Db {
    pub(crate) options: DbOptions,
    pub(crate) store: Arc<Store>,
    pub(crate) head: Arc<Head>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) blocks: Arc<BlockSet>,
    pub(crate) waiter: CommitWaiter,
    pub(crate) metadata: Arc<MetadataStore>,
    pub(crate) maintenance: Box<dyn JobHandle>,
    compaction: Box<dyn JobHandle>,
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
    /// Samples in memory again, from the snapshot and the log.
    pub samples: u64,
    /// Samples read that were too old by now or there already.
    pub samples_skipped: u64,
    /// Samples read whose series is unknown because its definition is damaged.
    pub samples_orphaned: u64,
    /// Series in memory again.
    pub series: u64,
    /// Definitions read that name no valid series.
    pub invalid_definitions: u64,
    /// How long it took.
    pub duration: Duration,
    /// Samples of the snapshot, part of `samples`.
    pub samples_in_snapshot: u64,
    /// Damaged places in snapshots, the first of them.
    pub snapshot_damage: Vec<SnapshotDamage>,
    /// The blocks.
    pub blocks: BlocksReport,
    /// The unfinished end of the log that was cut off; nothing of it had been acknowledged.
    pub torn_tail: Option<TornTail>,
    /// Damaged places in the log, the first of them.
    pub damage: Vec<Damage>,
    /// How many damaged places there are.
    pub damage_count: u64,
}

impl OpenReport {
    fn new(
        head: &Head,
        torn_tail: Option<TornTail>,
        log: ReplayReport,
        outcome: ReplayOutcome,
        loaded: Loaded,
    ) -> Self {
        Self {
            segments: log.segments,
            records: log.records,
            bytes: log.bytes,
            samples: outcome.stored + loaded.samples,
            samples_skipped: outcome.skipped,
            samples_orphaned: outcome.orphans,
            series: head.series() as u64,
            invalid_definitions: outcome.invalid_definitions,
            duration: Duration::ZERO,
            samples_in_snapshot: loaded.samples,
            snapshot_damage: loaded.damage,
            blocks: BlocksReport::default(),
            torn_tail,
            damage: log.damage,
            damage_count: log.damage_count,
        }
    }
}

impl Db {
    /// Opens the data directory `dir`, made if need be: its blocks, the last snapshot of its head, and what the log has
    /// beyond them.
    ///
    /// # Errors
    /// When the directory is locked, of another version, something else or not writable. Damage is no error: what is
    /// damaged is set aside, and the report lists it.
    pub fn open(dir: &Path, options: DbOptions, env: Env) -> Result<(Self, OpenReport)> {
        let started = env.clock.monotonic();
        let data_dir = DataDir::open(&env, dir)?;
        let mark = open_mark(&env, &data_dir.path)?;
        let cache = BlockCache::new(options.block_cache_bytes);
        let (blocks, found) = BlockSet::open(&env, &data_dir.blocks(), cache)?;
        let blocks = Arc::new(blocks);
        let head = Arc::new(Head::new(options.head(), env.clone()));
        let snapshots = Snapshots::open(&env, &data_dir.head())?;
        let loaded = snapshots.load(&head)?;
        let (snapshot_bytes, covered) = (loaded.bytes, loaded.covered);
        let from = settle_cut(&head, &mark, &loaded);
        show_blocks(&blocks, &mark, from)?;
        let mut opened = Wal::open(&env, &data_dir.wal(), options.wal())?;
        let torn_tail = opened.report().torn_tail.clone();
        let replay = CutReplay { inner: HeadReplay::new(&head).behind(&loaded), mark: &mark };
        let log = opened.replay(env.scheduler.parallelism(), &replay)?;
        let outcome = replay.inner.finish();
        let mut report = OpenReport::new(&head, torn_tail, log, outcome, loaded);
        report.blocks = found;
        let source: Arc<dyn LogSource> = Arc::clone(&head) as Arc<dyn LogSource>;
        let wal = Arc::new(opened.start(source)?);
        head.attach_log(wal.waiter());
        if let Some(floor) = head.memory_floor() {
            // Raised by a record whose segment may go before others.
            wal.log_floor(None, floor);
        }
        if let Some(Err(error)) = covered.map(|covered| wal.delete_covered(covered)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot remove old log segments");
        }
        report.duration = env.clock.monotonic().saturating_sub(started);
        let dir = data_dir.path.clone();
        let parts = ((Arc::clone(&head), Arc::clone(&wal)), (Arc::clone(&blocks), snapshots));
        let old = |segment: &SegmentInfo| segment.times.is_some_and(|(oldest, _)| oldest < head.floor());
        let hidden = wal.segments().iter().any(old);
        let store = Arc::new(Store::new(&env, options, dir.clone(), parts.0, parts.1, mark, hidden));
        store.watch_disk();
        let maintenance = Maintenance::new(Arc::clone(&store), report.bytes, snapshot_bytes);
        let maintenance = env.scheduler.spawn("maintenance", Box::new(maintenance)).map_err(Error::Spawn)?;
        let compaction = Compaction::new(Arc::clone(&store));
        let compaction =
            env.scheduler.spawn_yielding("compaction", Box::new(compaction)).map_err(Error::Spawn)?;
        let db = Self {
            options,
            head,
            waiter: wal.waiter(),
            wal,
            blocks,
            metadata: Arc::clone(&store.metadata),
            store,
            maintenance,
            compaction,
            report: report.clone(),
            dir,
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

    /// Asks for a cut of all that the head has now, up to `boundary` at most (milliseconds). It is made in the background;
    /// [`DbStats::jobs`](crate::DbStats::jobs) counts it. Samples that are not newer are late from then on.
    pub fn request_cut(&self, boundary: Timestamp) {
        let Some(times) = self.head.times() else { return };
        let boundary = boundary.min(times.max);
        let mut wanted = self.store.wanted_cut.lock();
        *wanted = wanted.max(Some(boundary));
        drop(wanted);
        self.maintenance.waker().wake();
    }

    /// Refuses further appends, makes what is pending durable, writes a snapshot of the head and releases the directory.
    /// Queries still work.
    ///
    /// # Errors
    /// When what was pending could not be made durable; the directory is released all the same.
    pub fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.head.close();
        self.store.stopping.store(true, Ordering::Release);
        self.compaction.stop();
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

/// The mark of the last cut; a damaged one is put aside.
fn open_mark(env: &Env, dir: &Path) -> Result<Mark> {
    match Mark::load(&*env.fs, dir) {
        Err(error @ MarkError::File(_)) => Err(error.into()),
        Err(error) => {
            // What blocks have is read from the log as well: the same samples, which count once. Deletions that no cut
            // has carried out yet are lost.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "set aside; deletions of late may be undone"
            );
            Mark::set_aside(&*env.fs, dir)
                .map_err(|source| Error::Directory { dir: dir.to_path_buf(), source })?;
            Ok(Mark::default())
        }
        Ok(mark) => Ok(mark),
    }
}

/// Takes from the head what its snapshot has and blocks have as well. Returns what views begin from.
fn settle_cut(head: &Head, mark: &Mark, loaded: &Loaded) -> CutPoint {
    let boundary = mark.boundary.max(loaded.cut);
    if boundary == Timestamp::MIN {
        return CutPoint::NONE;
    }
    // No snapshot is begun between the begin of a cut and its end: it stands for the time before or behind it.
    let before = loaded.sequences.iter().zip(&mark.sequences).all(|(of, covered)| of <= covered);
    if mark.boundary > loaded.cut || (before && mark.boundary == loaded.cut) {
        let cut = head.begin_cut(mark.boundary);
        head.finish_cut(cut);
    }
    head.restore_cut(boundary)
}

/// Shows the blocks to readers, without what is deleted.
fn show_blocks(blocks: &BlockSet, mark: &Mark, from: CutPoint) -> Result<()> {
    let mut change = blocks.change();
    let mut deletions = Vec::new();
    for tombstone in &mark.tombstones {
        match Deletion::new(tombstone.clone()) {
            Ok(deletion) => deletions.push(deletion),
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "a deletion is lost"),
        }
    }
    // A cut that was interrupted may have left blocks in which nothing is deleted yet.
    for (tenant, block) in change.version.blocks() {
        for deletion in deletions.iter().filter(|deletion| deletion.tombstone.tenant == *tenant) {
            Change::delete(block, deletion.of_block()).map_err(|source| Error::Block { source })?;
        }
    }
    change.version.head_from = from;
    change.version.deletions = deletions.into();
    change.publish();
    Ok(())
}
