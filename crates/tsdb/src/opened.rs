//! A data directory and what is in it, opened: blocks, the last snapshot of the head, and what the log has beyond them.

use std::{path::Path, sync::Arc, time::Duration};

use chronolith_block::BlockCache;
use chronolith_env::Env;
use chronolith_head::{CutPoint, Head, HeadOptions, HeadReplay, Loaded, Loss, ReplayOutcome, Snapshots};
use chronolith_model::{TimeRange, Timestamp};
use chronolith_wal::{Batch, LogSource, ReplayReport, SegmentInfo, TornTail, Unopened, Wal};

use crate::{
    blocks::{BlockSet, BlocksReport, CUT_LEVEL, Change},
    db::OpenReport,
    deletion::Deletion,
    dir::DataDir,
    error::{Error, Result},
    import,
    losses::Losses,
    mark::{Mark, MarkError},
    metadata::MetadataStore,
    options::DbOptions,
    replay::CutReplay,
    store::Store,
};

/// What an open data directory has; nothing works on it yet.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) data_dir: DataDir,
    pub(crate) store: Arc<Store>,
    pub(crate) report: OpenReport,
    /// Bytes of the last snapshot.
    pub(crate) snapshot_bytes: u64,
}

impl Opened {
    /// Opens what is in `data_dir`. `head_options` may differ from those in `options`.
    pub(crate) fn open(
        data_dir: DataDir,
        options: DbOptions,
        head_options: HeadOptions,
        env: &Env,
    ) -> Result<Self> {
        let started = env.clock.monotonic();
        let (mark, mark_damaged) = open_mark(env, &data_dir.path)?;
        import::recover(env, &data_dir.path)?;
        let cache = BlockCache::new(options.block_cache_bytes);
        let (blocks, found) = BlockSet::open(env, &data_dir.blocks(), cache)?;
        let blocks = Arc::new(blocks);
        let head = Arc::new(Head::new(head_options, env.clone()));
        let snapshots = Snapshots::open(env, &data_dir.head())?;
        let loaded = snapshots.load(&head)?;
        let (snapshot_bytes, covered) = (loaded.bytes, loaded.covered);
        let from = settle_cut(&head, &mark, &loaded);
        show_blocks(&blocks, &mark, from)?;
        let mut opened = Wal::open(env, &data_dir.wal(), options.wal())?;
        check_segments(opened.report().unopened.as_ref())?;
        let torn_tail = opened.report().torn_tail.clone();
        let metadata = MetadataStore::new(options.metadata_metrics_max);
        metadata.restore(&loaded.extras);
        let inner = HeadReplay::new(&head).behind(&loaded);
        let replay = CutReplay { inner, mark: &mark, metadata: &metadata };
        let log = opened.replay(env.scheduler.parallelism(), &replay)?;
        check_segments(log.unopened.as_ref())?;
        let lost = replay.inner.losses(from.boundary());
        let outcome = replay.inner.finish();
        let losses = Losses::default();
        losses.restore(&loaded.extras);
        lost.into_iter().for_each(|loss| losses.note(loss));
        let log_damaged = log.damage_count > 0;
        let unknown = unknown_loss(&loaded, from, &head);
        let mut report = OpenReport::new(&head, torn_tail, log, outcome, loaded);
        report.blocks = found;
        report.mark_damaged = mark_damaged;
        let source: Arc<dyn LogSource> = Arc::clone(&head) as Arc<dyn LogSource>;
        let wal = Arc::new(opened.start(source)?);
        head.attach_log(wal.waiter());
        // The first segment of all: nothing of the log has gone yet.
        let whole_log = !log_damaged && wal.segments().first().is_some_and(|first| first.number == 1);
        if let Some(loss) = unknown.filter(|_| !whole_log) {
            losses.note(loss);
        }
        losses.passed(from.boundary());
        if mark_damaged {
            losses.undone(head.times());
        }
        if let Some(floor) = head.memory_floor() {
            // Raised by a record whose segment may go before others.
            wal.log_floor(None, floor);
        }
        if let Some(Err(error)) = covered.map(|covered| wal.delete_covered(covered)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot remove old log segments");
        }
        report.duration = env.clock.monotonic().saturating_sub(started);
        let old = |segment: &SegmentInfo| segment.times.is_some_and(|(oldest, _)| oldest < head.floor());
        let hidden = head_options.retention_ms < i64::MAX && wal.segments().iter().any(old);
        let parts = ((head, wal), (blocks, snapshots, losses, metadata));
        let store = Store::new(env, options, data_dir.path.clone(), parts.0, parts.1, mark, hidden);
        Ok(Self { data_dir, store: Arc::new(store), report, snapshot_bytes })
    }
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
            snapshot_damage_count: loaded.damage_count,
            blocks: BlocksReport::default(),
            mark_damaged: false,
            torn_tail,
            damage: log.damage,
            damage_count: log.damage_count,
        }
    }
}

/// Fails if a segment could not be opened. What it has must not be taken for lost.
fn check_segments(unopened: Option<&Unopened>) -> Result<()> {
    let refused = |Unopened { path, cause }| Err(Error::Segment { path, source: cause });
    unopened.cloned().map_or(Ok(()), refused)
}

/// What may be missing where it is not known what was damaged.
fn unknown_loss(loaded: &Loaded, from: CutPoint, head: &Head) -> Option<Loss> {
    let damage = loaded.damage.iter().find(|damage| damage.reason.is_of_samples())?;
    let newest = head.times().map_or(Timestamp::MIN, |times| times.max);
    let range = TimeRange::new(from.boundary().saturating_add(1), newest.max(loaded.created_ms));
    let (path, offset, series) = (damage.path.clone(), damage.offset, loaded.series_damaged);
    loaded.unknown_damage.then_some(Loss { tenant: None, range, samples: None, series, path, offset })
}

/// The mark of the last cut, and whether it was damaged, and put aside.
fn open_mark(env: &Env, dir: &Path) -> Result<(Mark, bool)> {
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
            Ok((Mark::default(), true))
        }
        Ok(mark) => Ok((mark, false)),
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
        match Deletion::new(tombstone.clone(), Batch::default()) {
            Ok(deletion) => deletions.push(deletion),
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "a deletion is lost"),
        }
    }
    // A cut that was interrupted may have left blocks in which nothing is deleted yet. Others were shown before: a deletion
    // behind that is in them, and one before that is not about them, as they may come from an import.
    let of_cuts = change.version.blocks().filter(|(_, block)| block.meta().spec.level == CUT_LEVEL);
    for (tenant, block) in of_cuts {
        for deletion in deletions.iter().filter(|deletion| deletion.tombstone.tenant == *tenant) {
            Change::delete(block, deletion.of_block()).map_err(|source| Error::Block { source })?;
        }
    }
    change.version.head_from = from;
    change.version.deletions = deletions.into();
    change.publish();
    Ok(())
}
