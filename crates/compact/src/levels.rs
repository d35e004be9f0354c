//! The windows that blocks grow into.

use chronolith_model::Timestamp;

use crate::BlockRange;

/// Length of the windows that a head is cut into: 2 h, in milliseconds.
pub const BASE_WINDOW_MS: i64 = 2 * 3_600_000;

/// At most so many levels.
pub const LEVELS_MAX: usize = 10;

/// How much longer the windows of each level are than those of the one below: 2 h, 8 h, 24 h, 3 d, 9 d, 27 d. What
/// follows the first two divides days, and a day of 2 h parts is within [`crate::PARTS_MAX`]: up to there, a merge
/// copies.
const GROWTH: [i64; 5] = [4, 3, 3, 3, 3];

/// No window is longer, whatever the retention: 31 d.
const SPAN_MS_MAX: i64 = 31 * 24 * 3_600_000;

/// So many windows of the highest level make up the retention, at least: what has to go goes by whole blocks, and so
/// stays longer by at most this part.
const WINDOWS_PER_RETENTION: i64 = 10;

/// The lengths of windows, ascending; windows of one level fill those of the next. A window is `(k * length,
/// (k + 1) * length]` from the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    // Invariant: not empty, at most LEVELS_MAX, positive, each divides the next and is less than it.
    lengths_ms: Vec<i64>,
}

/// Why lengths make no levels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LevelsError {
    /// None, or too many.
    #[error("{got} levels of compaction were given, expected 1 to {LEVELS_MAX}")]
    Count {
        /// How many.
        got: usize,
    },
    /// A length that is not a multiple of the one before, or not longer.
    #[error(
        "level {level} of compaction has windows of {got} ms, expected a multiple of {below} ms above it"
    )]
    Length {
        /// Which, from 0.
        level: usize,
        /// Its length.
        got: i64,
        /// The length of the level before; 1 before the first.
        below: i64,
    },
}

impl Levels {
    /// Levels of windows of these lengths, in milliseconds.
    ///
    /// # Errors
    /// When there are none or more than [`LEVELS_MAX`], or when a length is not a multiple of the one before it.
    pub fn new(lengths_ms: Vec<i64>) -> Result<Self, LevelsError> {
        if lengths_ms.is_empty() || lengths_ms.len() > LEVELS_MAX {
            return Err(LevelsError::Count { got: lengths_ms.len() });
        }
        let mut below = 1;
        for (level, &got) in lengths_ms.iter().enumerate() {
            let longer = got > below || (level == 0 && got == below);
            if !longer || got % below != 0 {
                return Err(LevelsError::Length { level, got, below });
            }
            below = got;
        }
        Ok(Self { lengths_ms })
    }

    /// The levels 2 h, 8 h, 24 h, 3 d, 9 d, 27 d, as far as they are not longer than `span_ms`; 2 h always.
    #[must_use]
    pub fn up_to(span_ms: i64) -> Self {
        let mut lengths_ms = vec![BASE_WINDOW_MS];
        let mut length = BASE_WINDOW_MS;
        for growth in GROWTH {
            length *= growth;
            if length <= span_ms {
                lengths_ms.push(length);
            }
        }
        Self { lengths_ms }
    }

    /// The levels that suit a retention: windows up to a tenth of it, and up to 31 days. `None`: no end.
    #[must_use]
    pub fn for_retention(age_ms: Option<i64>) -> Self {
        let tenth = age_ms.map_or(SPAN_MS_MAX, |age| age / WINDOWS_PER_RETENTION);
        Self::up_to(tenth.min(SPAN_MS_MAX))
    }

    /// The lengths, in milliseconds, ascending.
    #[must_use]
    pub fn lengths_ms(&self) -> &[i64] {
        &self.lengths_ms
    }
}

impl Default for Levels {
    /// For a retention of 15 days: 2 h, 8 h, 24 h.
    fn default() -> Self {
        Self::for_retention(Some(15 * 24 * 3_600_000))
    }
}

/// The window of `length_ms` (above 0) that all of `range` lies in; `None` if it reaches over several.
pub(crate) fn window_of(range: &BlockRange, length_ms: i64) -> Option<BlockRange> {
    // The upper end is above the least number: there is a millisecond before it.
    let index = (range.max() - 1).div_euclid(length_ms);
    let min: Timestamp = index.saturating_mul(length_ms);
    let window = BlockRange::new(min, min.saturating_add(length_ms))?;
    window.covers(range).then_some(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: i64 = 3_600_000;

    fn range(min: i64, max: i64) -> BlockRange {
        BlockRange::new(min, max).expect("not empty")
    }

    #[test]
    fn levels_divide_each_other() {
        assert_eq!(Levels::default().lengths_ms(), [2 * H, 8 * H, 24 * H]);
        assert_eq!(Levels::up_to(0).lengths_ms(), [2 * H]);
        let year = Levels::for_retention(Some(365 * 24 * H));
        assert_eq!(year.lengths_ms(), [2 * H, 8 * H, 24 * H, 72 * H, 216 * H, 648 * H]);
        assert_eq!(Levels::for_retention(None), year);
        for levels in [&year, &Levels::default()] {
            assert_eq!(Levels::new(levels.lengths_ms().to_vec()).as_ref(), Ok(levels));
        }
        assert_eq!(Levels::new(vec![]), Err(LevelsError::Count { got: 0 }));
        assert_eq!(Levels::new(vec![1; 11]), Err(LevelsError::Count { got: 11 }));
        assert_eq!(Levels::new(vec![1, 3]).map(|levels| levels.lengths_ms), Ok(vec![1, 3]));
        for (lengths, level) in
            [(vec![0], 0), (vec![-2], 0), (vec![2, 2], 1), (vec![2, 4, 6], 2), (vec![i64::MIN], 0)]
        {
            assert!(
                matches!(Levels::new(lengths.clone()), Err(LevelsError::Length { level: l, .. }) if l == level),
                "{lengths:?}"
            );
        }
    }

    #[test]
    fn windows_are_open_below_and_closed_above() {
        assert_eq!(window_of(&range(0, 8), 8), Some(range(0, 8)));
        assert_eq!(window_of(&range(7, 8), 8), Some(range(0, 8)));
        assert_eq!(window_of(&range(8, 9), 8), Some(range(8, 16)));
        assert_eq!(window_of(&range(7, 9), 8), None);
        assert_eq!(window_of(&range(-8, 0), 8), Some(range(-8, 0)));
        assert_eq!(window_of(&range(-9, 0), 8), None);
        // At the ends of time there are no whole windows, and nothing overflows.
        for (min, max) in [(i64::MIN, i64::MIN + 1), (i64::MAX - 1, i64::MAX), (i64::MIN, i64::MAX)] {
            for length in [1, 2, 7, 8 * H, i64::MAX] {
                if let Some(window) = window_of(&range(min, max), length) {
                    assert!(window.covers(&range(min, max)));
                }
            }
        }
    }
}
