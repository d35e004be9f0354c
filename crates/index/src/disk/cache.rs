//! What was decoded lately, of any number of indexes, within a budget of bytes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use hashbrown::{HashMap, hash_map::Entry};
use parking_lot::Mutex;

use super::{
    list::RowSet,
    page::{ListTable, ValuePage},
};

/// Budget of an index that is opened without a shared cache, in bytes.
pub const OWN_CACHE_BYTES_MAX: usize = 2 << 20;
/// Estimated bytes an entry costs beside what it holds.
const ENTRY_BYTES: usize = 96;

/// A cache of decoded pages, lists and columns. Share one between all indexes of a process: its budget then is the
/// memory that open indexes cost beside their directories.
///
/// Eviction is CLOCK: an entry that was asked for since the hand came by last is passed over once.
#[derive(Debug)]
pub struct PageCache {
    bytes_max: usize,
    next_index: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<Key, usize>,
    entries: Vec<Held>,
    hand: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    key: Key,
    value: Cached,
    bytes: usize,
    used: bool,
}

/// Which unit of which index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) index: u64,
    pub(super) unit: UnitKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum UnitKey {
    Values {
        label: u32,
        page: u32,
    },
    SetPage(u32),
    Set(u32),
    /// By its offset.
    Lists(u64),
    Column {
        label: u32,
        segment: u32,
    },
}

/// A decoded unit.
#[derive(Clone, Debug)]
pub(super) enum Cached {
    Values(Arc<ValuePage>),
    SetPage(Arc<ListTable>),
    Set(Arc<RowSet>),
    Lists(Arc<Vec<u8>>),
    Column(Arc<Vec<u32>>),
}

impl Cached {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Values(page) => page.heap_bytes(),
            Self::SetPage(page) => page.heap_bytes(),
            Self::Set(set) => set.heap_bytes(),
            Self::Lists(bytes) => bytes.capacity(),
            Self::Column(codes) => codes.capacity() * 4,
        }
    }
}

impl PageCache {
    /// A cache that holds at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, next_index: AtomicU64::new(0), state: Mutex::default() }
    }

    /// Bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// The most bytes it holds.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(super) fn register(&self) -> u64 {
        self.next_index.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn get(&self, key: Key) -> Option<Cached> {
        let mut state = self.state.lock();
        let slot = *state.slots.get(&key)?;
        let held = state.entries.get_mut(slot)?;
        held.used = true;
        Some(held.value.clone())
    }

    /// Keeps `value`, unless it alone is above a quarter of the budget.
    pub(super) fn put(&self, key: Key, value: Cached) {
        let bytes = value.heap_bytes() + ENTRY_BYTES;
        if bytes > self.bytes_max / 4 {
            return;
        }
        let mut state = self.state.lock();
        let State { slots, entries, .. } = &mut *state;
        let Entry::Vacant(slot) = slots.entry(key) else { return };
        slot.insert(entries.len());
        entries.push(Held { key, value, bytes, used: false });
        state.bytes += bytes;
        while state.bytes > self.bytes_max {
            state.advance();
        }
    }

    /// Forgets what it holds of `index`.
    pub(super) fn forget(&self, index: u64) {
        let mut state = self.state.lock();
        let mut at = 0;
        while let Some(held) = state.entries.get(at) {
            if held.key.index == index { state.remove(at) } else { at += 1 }
        }
    }
}

impl State {
    fn advance(&mut self) {
        if self.hand >= self.entries.len() {
            self.hand = 0;
        }
        match self.entries.get_mut(self.hand) {
            Some(held) if held.used => {
                held.used = false;
                self.hand += 1;
            }
            _ => self.remove(self.hand),
        }
    }

    fn remove(&mut self, at: usize) {
        if at >= self.entries.len() {
            return;
        }
        let held = self.entries.swap_remove(at);
        self.bytes -= held.bytes;
        self.slots.remove(&held.key);
        if let Some(moved) = self.entries.get(at) {
            self.slots.insert(moved.key, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u64, unit: u64) -> Key {
        Key { index, unit: UnitKey::Lists(unit) }
    }

    fn value(bytes: usize) -> Cached {
        Cached::Lists(Arc::new(Vec::with_capacity(bytes)))
    }

    #[test]
    fn the_budget_holds_and_what_is_used_stays() {
        let cache = PageCache::new(10_000);
        cache.put(key(0, 0), value(1_000));
        for unit in 1..100 {
            assert!(cache.get(key(0, 0)).is_some(), "used before each step of the hand");
            cache.put(key(0, unit), value(1_000));
            assert!(cache.bytes() <= 10_000);
        }
        assert!(cache.get(key(0, 1)).is_none());
        cache.put(key(1, 7), value(5_000));
        assert!(cache.get(key(1, 7)).is_none(), "too large for this budget");
        cache.put(key(1, 8), value(100));
        cache.forget(0);
        assert!(cache.get(key(0, 0)).is_none() && cache.get(key(1, 8)).is_some());
        assert_eq!(cache.bytes(), 100 + ENTRY_BYTES);
        cache.forget(1);
        assert_eq!(cache.bytes(), 0);
    }
}
