//! A cache of opened pieces of blocks, bounded in bytes and shared by all blocks of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chronolith_chunk::dense::{Frame, Statistics};
use chronolith_chunk::histogram::HistogramFrame;
use chronolith_index::PageCache;
use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::slot_table::SlotTable;
use crate::starts::StartPage;

/// How many bytes a cache holds unless told otherwise.
pub const CACHE_BYTES_DEFAULT: usize = 128 << 20;

/// Parts of the cache with a lock of their own.
const SHARDS: usize = 16;

/// What a piece costs beside itself: key, entry, place in the map.
const ENTRY_BYTES: usize = 96;

/// One in so many bytes of a cache is for pages of indexes.
const INDEX_SHARE: usize = 4;

/// A cache of opened frames, slot tables, timestamp pages, statistics, start timestamps and index pages. Clones are the
/// same cache: blocks opened with it share it, their indexes too.
///
/// Pieces are replaced in the order of a clock: one that was used since the hand came by stays. Nothing larger than a
/// sixteenth of the whole is kept.
#[derive(Clone, Debug)]
pub struct BlockCache {
    inner: Arc<Inner>,
    index: Arc<PageCache>,
}

/// What a cache holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Bytes held, decoded pages of indexes among them.
    pub bytes: u64,
    /// Bytes of decoded pages of indexes.
    pub index_bytes: u64,
    /// The most bytes it holds.
    pub bytes_max: u64,
    /// Pieces held.
    pub entries: u64,
    /// Pieces that were there when asked for.
    pub hits: u64,
    /// Pieces that were not.
    pub misses: u64,
    /// Pieces given up for others.
    pub evictions: u64,
}

#[derive(Debug)]
struct Inner {
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes_max: usize,
    next_file: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    map: HashMap<Key, usize>,
    slots: Vec<Option<Entry>>,
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    piece: Piece,
    bytes: usize,
    used: bool,
}

/// Where a piece comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// An opened file.
    pub(crate) file: u64,
    pub(crate) off: u64,
    pub(crate) len: u32,
}

/// An opened piece of a block.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Frame(Arc<Frame>),
    Histograms(Arc<HistogramFrame>),
    Table(Arc<SlotTable>),
    Columns(Arc<Vec<Vec<i64>>>),
    Statistics(Arc<Vec<Statistics>>),
    Starts(Arc<StartPage>),
    Bytes(Bytes),
}

impl Piece {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.heap_bytes(),
            Self::Histograms(frame) => frame.heap_bytes(),
            Self::Table(table) => table.heap_bytes(),
            Self::Columns(columns) => columns.iter().map(|column| column.capacity() * 8 + 24).sum(),
            Self::Statistics(statistics) => statistics.capacity() * size_of::<Statistics>(),
            Self::Starts(page) => page.heap_bytes(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl BlockCache {
    /// A cache of at most `bytes_max` bytes, a quarter of them for decoded pages of indexes; 0 keeps nothing.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let index = bytes_max / INDEX_SHARE;
        Self::with_index_pages(bytes_max - index, Arc::new(PageCache::new(index)))
    }

    /// A cache of at most `bytes_max` bytes, decoded pages of indexes not among them: these are kept in `index`, which
    /// others may use too.
    #[must_use]
    pub fn with_index_pages(bytes_max: usize, index: Arc<PageCache>) -> Self {
        Self {
            index,
            inner: Arc::new(Inner {
                shards: std::array::from_fn(|_| Mutex::default()),
                shard_bytes_max: bytes_max / SHARDS,
                next_file: AtomicU64::new(0),
                hits: AtomicU64::new(0),
                misses: AtomicU64::new(0),
                evictions: AtomicU64::new(0),
            }),
        }
    }

    /// Where decoded pages of indexes are kept.
    #[must_use]
    pub const fn index_pages(&self) -> &Arc<PageCache> {
        &self.index
    }

    /// What it holds and has done.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let inner = &self.inner;
        let index_bytes = self.index.bytes() as u64;
        let mut stats = CacheStats {
            bytes: index_bytes,
            index_bytes,
            bytes_max: (inner.shard_bytes_max * SHARDS + self.index.bytes_max()) as u64,
            hits: inner.hits.load(Ordering::Relaxed),
            misses: inner.misses.load(Ordering::Relaxed),
            evictions: inner.evictions.load(Ordering::Relaxed),
            ..CacheStats::default()
        };
        for shard in &inner.shards {
            let shard = shard.lock();
            stats.bytes += shard.bytes as u64;
            stats.entries += shard.map.len() as u64;
        }
        stats
    }

    /// A number for a file that has been opened.
    pub(crate) fn new_file(&self) -> u64 {
        self.inner.next_file.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn get(&self, key: Key) -> Option<Piece> {
        let piece = self.shard(key).lock().get(key);
        let counter = if piece.is_some() { &self.inner.hits } else { &self.inner.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        piece
    }

    pub(crate) fn insert(&self, key: Key, piece: Piece) {
        let bytes = piece.heap_bytes() + ENTRY_BYTES;
        if bytes > self.inner.shard_bytes_max {
            return;
        }
        let entry = Entry { key, piece, bytes, used: false };
        let evicted = self.shard(key).lock().insert(entry, self.inner.shard_bytes_max);
        self.inner.evictions.fetch_add(evicted, Ordering::Relaxed);
    }

    /// Gives up all pieces of a file.
    pub(crate) fn forget(&self, file: u64) {
        for shard in &self.inner.shards {
            shard.lock().forget(file);
        }
    }

    fn shard(&self, key: Key) -> &Mutex<Shard> {
        let mixed = (key.off ^ key.file.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [first, rest @ ..] = &self.inner.shards;
        match ((mixed >> 60) as usize % SHARDS).checked_sub(1) {
            None => first,
            Some(index) => rest.get(index).unwrap_or(first),
        }
    }
}

impl Default for BlockCache {
    fn default() -> Self {
        Self::new(CACHE_BYTES_DEFAULT)
    }
}

impl Shard {
    fn get(&mut self, key: Key) -> Option<Piece> {
        let slot = self.map.get(&key)?;
        let entry = self.slots.get_mut(*slot)?.as_mut()?;
        entry.used = true;
        Some(entry.piece.clone())
    }

    /// Returns how many pieces had to go.
    fn insert(&mut self, entry: Entry, bytes_max: usize) -> u64 {
        if self.map.contains_key(&entry.key) {
            return 0;
        }
        let mut evicted = 0;
        while self.bytes + entry.bytes > bytes_max && self.evict_one() {
            evicted += 1;
        }
        self.bytes += entry.bytes;
        let slot = self.free.pop().unwrap_or(self.slots.len());
        self.map.insert(entry.key, slot);
        match self.slots.get_mut(slot) {
            Some(place) => *place = Some(entry),
            None => self.slots.push(Some(entry)),
        }
        evicted
    }

    /// Moves the hand to the next piece that was not used since the hand came by, and gives it up.
    fn evict_one(&mut self) -> bool {
        // Twice around: the first round may find every piece used.
        for _ in 0..2 * self.slots.len() {
            let slot = self.hand;
            self.hand = if slot + 1 >= self.slots.len() { 0 } else { slot + 1 };
            match self.slots.get_mut(slot).and_then(Option::as_mut) {
                Some(entry) if entry.used => entry.used = false,
                Some(_) => {
                    self.remove(slot);
                    return true;
                }
                None => {}
            }
        }
        false
    }

    fn remove(&mut self, slot: usize) {
        if let Some(entry) = self.slots.get_mut(slot).and_then(Option::take) {
            self.map.remove(&entry.key);
            self.bytes -= entry.bytes;
            self.free.push(slot);
        }
    }

    fn forget(&mut self, file: u64) {
        for slot in 0..self.slots.len() {
            if self.slots.get(slot).and_then(Option::as_ref).is_some_and(|entry| entry.key.file == file) {
                self.remove(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(file: u64, off: u64) -> Key {
        Key { file, off, len: 0 }
    }

    fn piece(len: usize) -> Piece {
        Piece::Bytes(Bytes::from(vec![0; len]))
    }

    #[test]
    fn the_cache_stays_within_its_bytes() {
        let cache = BlockCache::with_index_pages(SHARDS * 10_000, Arc::new(PageCache::new(0)));
        for off in 0..5000 {
            cache.insert(key(1, off), piece(100));
            cache.insert(key(1, off), piece(100));
        }
        let stats = cache.stats();
        assert!(stats.bytes <= stats.bytes_max, "{stats:?}");
        assert!(stats.bytes > stats.bytes_max / 2, "{stats:?}");
        assert_eq!(stats.entries + stats.evictions, 5000);
        cache.insert(key(2, 0), piece(10_001));
        assert!(cache.get(key(2, 0)).is_none(), "too large");
    }

    #[test]
    fn pieces_in_use_outlive_others() {
        let cache = BlockCache::with_index_pages(SHARDS * 4096, Arc::new(PageCache::new(0)));
        cache.insert(key(1, 7), piece(100));
        for off in 100..5000 {
            assert!(cache.get(key(1, 7)).is_some(), "{off}");
            cache.insert(key(1, off), piece(100));
        }
        assert!(cache.stats().evictions > 4000);
    }

    #[test]
    fn a_file_is_forgotten() {
        let cache = BlockCache::default();
        let (a, b) = (cache.new_file(), cache.new_file());
        for off in 0..100 {
            cache.insert(key(a, off), piece(10));
            cache.insert(key(b, off), piece(10));
        }
        cache.forget(a);
        assert!((0..100).all(|off| cache.get(key(a, off)).is_none() && cache.get(key(b, off)).is_some()));
        assert_eq!(cache.stats().entries, 100);
        let nothing = BlockCache::new(0);
        nothing.insert(key(0, 0), piece(0));
        assert!(nothing.get(key(0, 0)).is_none());
    }
}
