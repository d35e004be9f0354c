//! Sender's label bytes to series: an open-addressing table of keyed 128-bit hashes.

use std::mem::size_of;

use chronolith_storage::SeriesKey;
use hashbrown::HashTable;
use parking_lot::{RwLock, RwLockReadGuard};

/// Tables, so that one of them growing does not hold up all appends for long.
const TABLES: usize = 16;
/// Aliases there may be beyond four per series, in all tables; above that a table is emptied and learns anew.
const ALIASES_SPARE_MAX: usize = 1 << 20;
/// Aliases per series, on average.
const ALIASES_PER_SERIES_MAX: usize = 4;

/// 20 bytes: words instead of `u64`, for their alignment.
#[derive(Clone, Copy, Debug)]
struct Alias {
    primary: [u32; 2],
    secondary: [u32; 2],
    reference: u32,
}

const _: () = assert!(size_of::<Alias>() == 20);

impl Alias {
    fn primary(&self) -> u64 {
        join(self.primary)
    }

    fn is(&self, key: SeriesKey) -> bool {
        self.primary == split(key.primary) && self.secondary == split(key.secondary)
    }
}

fn split(word: u64) -> [u32; 2] {
    [(word >> 32) as u32, word as u32]
}

fn join(words: [u32; 2]) -> u64 {
    u64::from(words[0]) << 32 | u64::from(words[1])
}

/// The aliases of all series.
#[derive(Debug)]
pub(crate) struct Aliases {
    tables: Vec<RwLock<HashTable<Alias>>>,
}

/// The aliases as they are, for many lookups in a row.
pub(crate) struct Lookup<'a> {
    tables: Vec<RwLockReadGuard<'a, HashTable<Alias>>>,
}

impl Lookup<'_> {
    #[inline]
    pub(crate) fn get(&self, key: SeriesKey) -> Option<u32> {
        self.tables[table_of(key)].find(key.primary, |alias| alias.is(key)).map(|alias| alias.reference)
    }
}

/// The table by high bits in the middle: hashbrown takes the lowest for the place and the highest for the tag.
fn table_of(key: SeriesKey) -> usize {
    (key.primary >> 40) as usize % TABLES
}

impl Aliases {
    pub(crate) fn new() -> Self {
        Self { tables: (0..TABLES).map(|_| RwLock::default()).collect() }
    }

    /// Locks all tables for reading, in order; whoever writes holds one of them and waits for nothing else.
    pub(crate) fn lookup(&self) -> Lookup<'_> {
        Lookup { tables: self.tables.iter().map(RwLock::read).collect() }
    }

    /// Remembers `key` for the series `reference`, replacing what it stood for; `series` is the number of all series.
    pub(crate) fn insert(&self, key: SeriesKey, reference: u32, series: usize) {
        let mut table = self.tables[table_of(key)].write();
        if let Some(alias) = table.find_mut(key.primary, |alias| alias.is(key)) {
            alias.reference = reference;
            return;
        }
        if table.len() >= (series * ALIASES_PER_SERIES_MAX + ALIASES_SPARE_MAX) / TABLES {
            table.clear();
        }
        let alias = Alias { primary: split(key.primary), secondary: split(key.secondary), reference };
        table.insert_unique(key.primary, alias, Alias::primary);
    }

    /// Forgets the aliases of the series that `gone` names.
    pub(crate) fn remove(&self, gone: impl Fn(u32) -> bool) {
        for table in &self.tables {
            let mut table = table.write();
            table.retain(|alias| !gone(alias.reference));
            if table.len() * 4 < table.capacity() {
                let room = table.len() * 2;
                table.shrink_to(room, Alias::primary);
            }
        }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.tables.iter().map(|table| table.read().len()).sum()
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.tables.iter().map(|table| table.read().allocation_size()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> SeriesKey {
        SeriesKey { primary: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), secondary: n }
    }

    #[test]
    fn both_halves_of_a_key_count() {
        let aliases = Aliases::new();
        let (a, b) = (SeriesKey { primary: 1, secondary: 1 }, SeriesKey { primary: 1, secondary: 2 });
        aliases.insert(a, 10, 1);
        assert_eq!(aliases.lookup().get(b), None);
        aliases.insert(b, 20, 1);
        aliases.insert(a, 30, 1);
        assert_eq!((aliases.lookup().get(a), aliases.lookup().get(b)), (Some(30), Some(20)));
        aliases.remove(|reference| reference == 30);
        assert_eq!((aliases.lookup().get(a), aliases.lookup().get(b)), (None, Some(20)));
    }

    #[test]
    fn bounded() {
        let aliases = Aliases::new();
        let max = ALIASES_SPARE_MAX as u64 + 4;
        for n in 0..max * 2 {
            aliases.insert(key(n), 0, 1);
        }
        assert!(aliases.len() as u64 <= max && aliases.len() > 0, "{}", aliases.len());
        aliases.remove(|_| true);
        assert_eq!(aliases.len(), 0);
        assert!(aliases.bytes() < 4096);
    }
}
