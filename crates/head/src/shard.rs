//! A shard: some of the series, and what of them is not logged yet, under one lock.

use std::sync::atomic::{AtomicUsize, Ordering};

use chronolith_wal::ShardLog;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    histogram::HistogramStore, late::LateStore, options::SHARDS, series::Accounts, slab::Slab,
    starts::StartStore,
};

/// A series' number: its slot above, its shard in the lowest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ref(pub(crate) u32);

impl Ref {
    /// Slots beyond this do not fit into a number.
    pub(crate) const SLOT_MAX: u32 = u32::MAX / SHARDS as u32 - 1;

    pub(crate) fn new(shard: usize, slot: u32) -> Self {
        Self(slot * SHARDS as u32 + shard as u32)
    }

    #[inline]
    pub(crate) const fn shard(self) -> usize {
        self.0 as usize % SHARDS
    }

    #[inline]
    pub(crate) const fn slot(self) -> u32 {
        self.0 / SHARDS as u32
    }
}

/// One shard.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    state: Mutex<ShardState>,
    /// Copies of what the lock guards, for those who only want to know.
    chunk_bytes: AtomicUsize,
    slab_bytes: AtomicUsize,
    log_bytes: AtomicUsize,
    late_bytes: AtomicUsize,
}

/// What the lock guards.
#[derive(Debug, Default)]
pub(crate) struct ShardState {
    pub(crate) slab: Slab,
    pub(crate) late: LateStore,
    pub(crate) histograms: HistogramStore,
    pub(crate) starts: StartStore,
    pub(crate) accounts: Accounts,
    pub(crate) log: ShardLog,
}

impl ShardState {
    /// Everything that the log has under numbers up to this was applied before; see [`ShardLog::sequence`].
    pub(crate) fn log_sequence(&self) -> u64 {
        self.log.sequence()
    }
}

impl Shard {
    pub(crate) fn lock(&self) -> MutexGuard<'_, ShardState> {
        self.state.lock()
    }

    /// Publishes what `state` has come to; to be called before its lock is released.
    pub(crate) fn publish(&self, state: &ShardState) {
        self.chunk_bytes.store(state.accounts.bytes, Ordering::Relaxed);
        self.slab_bytes.store(state.slab.bytes(), Ordering::Relaxed);
        self.log_bytes.store(state.log.bytes(), Ordering::Relaxed);
        self.late_bytes.store(state.accounts.late_bytes, Ordering::Relaxed);
    }

    pub(crate) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn slab_bytes(&self) -> usize {
        self.slab_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn log_bytes(&self) -> usize {
        self.log_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn late_bytes(&self) -> usize {
        self.late_bytes.load(Ordering::Relaxed)
    }
}
