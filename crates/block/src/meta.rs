//! What a block says of itself.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use chronolith_model::{Labels, TenantId, TimeRange, Timestamp};

use crate::Ulid;

/// The version of the block format this program writes. It reads this one and all before it.
pub const FORMAT_VERSION: u8 = 2;

/// The version from which on blocks have start timestamps.
pub(crate) const VERSION_WITH_STARTS: u8 = 2;

/// The most blocks a block can name as its sources.
pub const SOURCES_MAX: usize = 4096;

/// The most series of a block.
pub const SERIES_MAX: u32 = 1 << 24;

/// The most parts a merge gives a block whose columns can still grow: no series is in more pieces.
pub const PARTS_MAX: usize = 16;

/// The most parts of any block.
pub const PARTS_HARD_MAX: usize = 256;

/// A time range that excludes its lower and includes its upper end, `(min, max]`, in milliseconds. The ranges of
/// neighbouring blocks share an end and no timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRange {
    /// Lower end, not included.
    pub min: Timestamp,
    /// Upper end, included.
    pub max: Timestamp,
}

impl BlockRange {
    /// The range `(min, max]`.
    #[must_use]
    pub const fn new(min: Timestamp, max: Timestamp) -> Self {
        Self { min, max }
    }

    /// Whether `timestamp` is inside.
    #[must_use]
    pub const fn contains(&self, timestamp: Timestamp) -> bool {
        self.min < timestamp && timestamp <= self.max
    }

    /// The same range with both ends included; empty if this one is.
    #[must_use]
    pub const fn closed(&self) -> TimeRange {
        match self.min.checked_add(1) {
            Some(min) => TimeRange::new(min, self.max),
            None => TimeRange::new(i64::MAX, i64::MIN),
        }
    }
}

/// What is decided about a block before it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSpec {
    /// Its name.
    pub ulid: Ulid,
    /// Whose samples.
    pub tenant: TenantId,
    /// All samples are inside.
    pub range: BlockRange,
    /// How often its content has been compacted; 1 for a cut of the head.
    pub level: u8,
    /// When it was begun, milliseconds since 1970.
    pub created: Timestamp,
    /// The blocks of level 1 its content comes from, sorted; of a block of level 1, itself or nothing. At most
    /// [`SOURCES_MAX`].
    pub sources: Vec<Ulid>,
}

/// What a block says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// What was decided before.
    pub spec: BlockSpec,
    /// How many series.
    pub series: u32,
    /// How many float samples, tombstones not regarded.
    pub samples: u64,
    /// How many native histograms, tombstones not regarded.
    pub histograms: u64,
    /// How many exemplars.
    pub exemplars: u64,
}

/// The order of series in a block: by metric name (a series without one has the empty name), then by labels.
#[must_use]
pub fn series_order(a: &Labels, b: &Labels) -> Ordering {
    // Comparing the pairs alone differs where a label sorts before `__name__`.
    let names = a.metric_name().unwrap_or_default().cmp(b.metric_name().unwrap_or_default());
    names.then_with(|| a.cmp(b))
}

/// The file of block `ulid` in directory `dir`.
#[must_use]
pub fn block_path(dir: &Path, ulid: Ulid) -> PathBuf {
    dir.join(format!("{ulid}.block"))
}

/// The file of the deletions of block `ulid` in directory `dir`. It need not be there.
#[must_use]
pub fn tombstones_path(dir: &Path, ulid: Ulid) -> PathBuf {
    dir.join(format!("{ulid}.tombstones"))
}

/// What a file of a directory of blocks is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// A block.
    Block(Ulid),
    /// The deletions of a block.
    Tombstones(Ulid),
    /// Left behind by a write that did not end; to be removed when no writer is at work.
    Temporary,
    /// Not ours.
    Foreign,
}

impl FileName {
    /// What the file `name` is.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        if let Some(inner) = name.strip_suffix(TEMPORARY_SUFFIX) {
            return match Self::parse(inner) {
                Self::Block(_) | Self::Tombstones(_) => Self::Temporary,
                other => other,
            };
        }
        let Some((stem, extension)) = name.split_once('.') else { return Self::Foreign };
        match (stem.parse(), extension) {
            (Ok(ulid), "block") => Self::Block(ulid),
            (Ok(ulid), "tombstones") => Self::Tombstones(ulid),
            _ => Self::Foreign,
        }
    }
}

/// What the name of a file ends with until it is whole.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The name under which `path` is written.
pub(crate) fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_exclude_their_lower_end() {
        let range = BlockRange::new(10, 20);
        assert!(!range.contains(10) && range.contains(11) && range.contains(20) && !range.contains(21));
        assert_eq!(range.closed(), TimeRange::new(11, 20));
        assert!(!BlockRange::new(i64::MAX, i64::MAX).closed().contains(i64::MAX));
    }

    #[test]
    fn the_metric_name_sorts_first() {
        let series = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        // `Z` sorts before `_`, so plain label order would put `b` first.
        let (a, b) = (series(&[("__name__", "a"), ("Z", "2")]), series(&[("__name__", "b"), ("Z", "1")]));
        assert_eq!(series_order(&a, &b), Ordering::Less);
        assert_eq!(a.cmp(&b), Ordering::Greater);
        assert_eq!(series_order(&series(&[("x", "1")]), &a), Ordering::Less, "no name is the empty name");
        assert_eq!(series_order(&a, &a), Ordering::Equal);
    }

    #[test]
    fn names_of_files() {
        let ulid = Ulid::from_parts(1, 2);
        let dir = Path::new("/d");
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(FileName::parse(&name(block_path(dir, ulid))), FileName::Block(ulid));
        assert_eq!(FileName::parse(&name(tombstones_path(dir, ulid))), FileName::Tombstones(ulid));
        assert_eq!(FileName::parse(&name(temporary_path(&block_path(dir, ulid)))), FileName::Temporary);
        for other in ["x.tmp", "x", "x.block", ".block", "00000000000000000000000000.blocks"] {
            assert_eq!(FileName::parse(other), FileName::Foreign, "{other}");
        }
    }
}
