//! The head itself: what appends, queries, replay and truncation share.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
};

use chronolith_env::Env;
use chronolith_model::{TenantId, TimeRange, Timestamp};
use chronolith_storage::KeyHasher;
use chronolith_wal::{CommitWaiter, LogSource, ShardLog, Turn};
use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;

use crate::{
    alias::Aliases,
    cut::Cuts,
    error::Error,
    exemplars::Exemplars,
    options::{HeadOptions, LATE_PERCENT_MAX, LOG_PENDING_BYTES_MAX, SHARDS},
    shard::Shard,
    stats::Counters,
    tenant::Tenants,
    unread::Unread,
};

/// Active series in memory. All methods may be called from any number of threads.
///
/// Lock order: `sweeping`, `cuts`, `truncating`, `removed`, then identity table, then shard, then a tenant's index; alias tables are locked alone. Nobody waits for a
/// shard while holding an index.
#[derive(Debug)]
pub struct Head {
    pub(crate) options: HeadOptions,
    pub(crate) env: Env,
    pub(crate) hasher: KeyHasher,
    pub(crate) tenants: Tenants,
    pub(crate) aliases: Aliases,
    pub(crate) identities: Vec<Mutex<Identities>>,
    pub(crate) shards: Vec<Shard>,
    /// Its lock is taken last.
    pub(crate) exemplars: Exemplars,
    /// Samples older than this are refused and not shown.
    floor: AtomicI64,
    /// What the floor is raised to for want of memory.
    memory_floor: AtomicI64,
    /// The time that retention goes by.
    pub(crate) retention_now: AtomicI64,
    /// With fewer bytes than this, another attempt to free memory is futile.
    pub(crate) futile_below: AtomicUsize,
    newest: AtomicI64,
    oldest: AtomicI64,
    /// Bytes of aliases and identities, as of the last series created or removed.
    table_bytes: AtomicUsize,
    pub(crate) counters: Counters,
    log: OnceLock<CommitWaiter>,
    closed: AtomicBool,
    /// Removed series that aliases may still name. Appends hold it while they work, so that none goes meanwhile.
    pub(crate) removed: RwLock<RoaringBitmap>,
    /// Taken by whoever begins or finishes a cut.
    pub(crate) cuts: Mutex<Cuts>,
    /// The boundary of the last cut, for those who only want to know; appends go by what their shard says.
    pub(crate) cut: AtomicI64,
    /// The boundary of the last cut that was finished.
    pub(crate) cut_finished: AtomicI64,
    /// The boundary of the last cut that was finished before the snapshot that was loaded.
    pub(crate) snapshot_cut: AtomicI64,
    /// Taken by whoever drops old samples.
    pub(crate) truncating: Mutex<()>,
    /// Taken by whoever removes series.
    pub(crate) sweeping: Mutex<()>,
    /// Chunks that cannot be read; locked alone.
    pub(crate) unread: Unread,
}

/// Series by the hash of their labels, to find the series of labels that come in another spelling.
#[derive(Debug, Default)]
pub(crate) struct Identities(pub(crate) HashTable<Identity>);

/// An entry of [`Identities`]: half of the hash; the labels are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) hash: u32,
    pub(crate) reference: u32,
}

impl Identity {
    /// The table's hash of half a hash, spread over all bits.
    pub(crate) fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Head {
    /// An empty head. It takes samples once a log is attached.
    #[must_use]
    pub fn new(options: HeadOptions, env: Env) -> Self {
        let now = env.clock.now_ms();
        let floor = now.saturating_sub(options.retention_ms);
        Self {
            hasher: KeyHasher::new(env.rng.next_u64()),
            options,
            env,
            tenants: Tenants::default(),
            aliases: Aliases::new(),
            identities: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            exemplars: Exemplars::new(
                options.exemplars_max,
                options.exemplar_bytes_max,
                options.memory_bytes_max,
            ),
            floor: AtomicI64::new(floor),
            memory_floor: AtomicI64::new(Timestamp::MIN),
            retention_now: AtomicI64::new(now),
            futile_below: AtomicUsize::new(0),
            newest: AtomicI64::new(Timestamp::MIN),
            oldest: AtomicI64::new(Timestamp::MAX),
            table_bytes: AtomicUsize::new(0),
            counters: Counters::default(),
            log: OnceLock::new(),
            closed: AtomicBool::new(false),
            removed: RwLock::default(),
            cuts: Mutex::default(),
            cut: AtomicI64::new(Timestamp::MIN),
            cut_finished: AtomicI64::new(Timestamp::MIN),
            snapshot_cut: AtomicI64::new(Timestamp::MIN),
            truncating: Mutex::new(()),
            sweeping: Mutex::new(()),
            unread: Unread::default(),
        }
    }

    /// The log to which this head is the source: from now on samples are taken.
    ///
    /// # Panics
    /// When there is one already.
    pub fn attach_log(&self, log: CommitWaiter) {
        for shard in &self.shards {
            // All of it was replayed.
            shard.lock().log.found(log.found_sequence());
        }
        assert!(self.log.set(log).is_ok(), "a head has one log");
    }

    /// Whether the log is attached: everything in it was replayed.
    pub(crate) fn has_log(&self) -> bool {
        self.log.get().is_some()
    }

    /// Takes no samples any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// The hasher for keys of series.
    #[must_use]
    pub fn key_hasher(&self) -> KeyHasher {
        self.hasher
    }

    /// Whether samples are taken.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.log.get().ok_or(Error::Closed)?.admit()?;
        let waiting: usize = self.shards.iter().map(Shard::log_bytes).sum();
        if waiting > LOG_PENDING_BYTES_MAX {
            return Err(Error::LogBehind { bytes: waiting });
        }
        if self.bytes() >= self.options.memory_bytes_max {
            return Err(Error::MemoryLimit { limit: self.options.memory_bytes_max });
        }
        let (bytes, limit) = (self.late_bytes(), self.options.memory_bytes_max / 100 * LATE_PERCENT_MAX);
        if bytes > limit && !self.options.drops_when_short {
            return Err(Error::LateLimit { bytes, limit });
        }
        Ok(())
    }

    /// Samples older than this, in milliseconds, are refused and not shown.
    #[must_use]
    pub fn floor(&self) -> Timestamp {
        self.floor.load(Ordering::Acquire)
    }

    /// Raises the floor; it never sinks.
    pub(crate) fn raise_floor(&self, floor: Timestamp) {
        self.floor.fetch_max(floor, Ordering::AcqRel);
    }

    /// Raises the floor because memory is, or was, short.
    pub(crate) fn raise_memory_floor(&self, floor: Timestamp) {
        self.memory_floor.fetch_max(floor, Ordering::AcqRel);
        self.raise_floor(floor);
    }

    /// What memory was too short for is older than this; the log has to know. `None` if it never was.
    #[must_use]
    pub fn memory_floor(&self) -> Option<Timestamp> {
        Some(self.memory_floor.load(Ordering::Acquire)).filter(|floor| *floor > Timestamp::MIN)
    }

    /// Samples older than this may be deleted from the log. Retention goes by the newest sample here, if the clock is
    /// ahead of it: a clock that is wrong hides samples, but destroys none.
    #[must_use]
    pub fn log_floor(&self) -> Timestamp {
        let by_age = self.newest().saturating_sub(self.options.retention_ms).min(self.floor());
        by_age.max(self.memory_floor.load(Ordering::Acquire))
    }

    /// The oldest and the newest sample; the oldest may have been dropped already.
    #[must_use]
    pub fn times(&self) -> Option<TimeRange> {
        let newest = self.newest.load(Ordering::Acquire);
        let oldest = self.oldest.load(Ordering::Acquire).max(self.floor());
        (oldest <= newest).then_some(TimeRange::new(oldest, newest))
    }

    /// The oldest sample or exemplar that it may have, hidden or not, and the newest sample; milliseconds.
    #[must_use]
    pub fn held(&self) -> Option<TimeRange> {
        let newest = self.newest.load(Ordering::Acquire);
        let oldest = self.oldest.load(Ordering::Acquire);
        let oldest = self.exemplars.oldest().map_or(oldest, |exemplar| exemplar.min(oldest));
        (oldest <= newest).then_some(TimeRange::new(oldest, newest))
    }

    pub(crate) fn saw_times(&self, times: TimeRange) {
        // Looked at first: the line is shared by all appends and seldom changes.
        if times.max > self.newest.load(Ordering::Relaxed) {
            self.newest.fetch_max(times.max, Ordering::AcqRel);
        }
        if times.min < self.oldest.load(Ordering::Relaxed) {
            self.oldest.fetch_min(times.min, Ordering::AcqRel);
        }
    }

    /// The newest timestamp of all samples.
    pub(crate) fn newest(&self) -> Timestamp {
        self.newest.load(Ordering::Acquire)
    }

    /// The tenants that have, or had, series here.
    #[must_use]
    pub fn tenant_ids(&self) -> Vec<TenantId> {
        self.tenants.all().iter().map(|tenant| tenant.id.clone()).collect()
    }

    /// Live series.
    #[must_use]
    pub fn series(&self) -> usize {
        self.tenants.all().iter().map(|tenant| tenant.series()).sum()
    }

    /// Bytes of samples, states, labels, indexes and exemplars: what the memory limit is compared with.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let shards: usize = self.shards.iter().map(|shard| shard.chunk_bytes() + shard.slab_bytes()).sum();
        let tables = self.tenants.index_bytes() + self.table_bytes.load(Ordering::Relaxed);
        shards + tables + self.exemplars.bytes()
    }

    /// Bytes of late samples, part of [`Head::bytes`].
    #[must_use]
    pub fn late_bytes(&self) -> usize {
        self.shards.iter().map(Shard::late_bytes).sum()
    }

    /// Measures what is too dear to follow step by step.
    pub(crate) fn measure_tables(&self) {
        let identities: usize = self.identities.iter().map(|table| table.lock().0.allocation_size()).sum();
        self.table_bytes.store(identities + self.aliases.bytes(), Ordering::Relaxed);
    }

    pub(crate) fn table_bytes(&self) -> usize {
        self.table_bytes.load(Ordering::Relaxed)
    }
}

impl LogSource for Head {
    fn take(&self, shard: usize, turn: Turn, into: &mut ShardLog) {
        let Some(shard) = self.shards.get(shard) else { return };
        let mut state = shard.lock();
        state.log.hand_over(turn, into);
        shard.publish(&state);
    }
}
