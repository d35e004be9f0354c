//! Since when what a view shows of the past may be another one.

use std::collections::VecDeque;

use chronolith_model::Timestamp;
use parking_lot::Mutex;

/// Changes that are told apart; of older ones it is only known that there were some.
const CHANGES_MAX: usize = 4_096;
/// Changes whose earliest timestamps lie in the same so many milliseconds are one.
const TOGETHER_MS: i64 = 1_000;

/// When views were opened, and from which timestamp on they show something else now.
///
/// Who keeps something made of a view takes a [moment](Changes::now) before the view is opened. Who changes what views show
/// [notes](Changes::note) it when they do, before anybody is told that it is done.
#[derive(Debug)]
pub struct Changes(Mutex<Noted>);

#[derive(Debug)]
struct Noted {
    /// Of the last change.
    number: u64,
    /// Number and earliest timestamp of changes, the newest last; both ascend. A change that began at an earlier timestamp
    /// than those before it is all there is to know of them.
    since: VecDeque<(u64, Timestamp)>,
    /// The last change that is not told apart any more.
    forgotten: u64,
}

impl Default for Changes {
    fn default() -> Self {
        Self(Mutex::new(Noted { number: 0, since: VecDeque::new(), forgotten: 0 }))
    }
}

impl Changes {
    /// This moment.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.lock().number
    }

    /// From `earliest` (milliseconds) on, views may show something else.
    pub fn note(&self, earliest: Timestamp) {
        let earliest = earliest.div_euclid(TOGETHER_MS).saturating_mul(TOGETHER_MS);
        let mut noted = self.0.lock();
        noted.number += 1;
        while noted.since.back().is_some_and(|(_, known)| *known >= earliest) {
            noted.since.pop_back();
        }
        if noted.since.len() >= CHANGES_MAX
            && let Some((number, _)) = noted.since.pop_front()
        {
            noted.forgotten = number;
        }
        let number = noted.number;
        noted.since.push_back((number, earliest));
    }

    /// The earliest timestamp, in milliseconds, at which a view may show something else than one that was opened at or after
    /// `moment`; [`Timestamp::MAX`] where nothing has changed.
    #[must_use]
    pub fn earliest_since(&self, moment: u64) -> Timestamp {
        let noted = self.0.lock();
        if moment < noted.forgotten {
            return Timestamp::MIN;
        }
        let first = noted.since.partition_point(|(number, _)| *number <= moment);
        noted.since.get(first).map_or(Timestamp::MAX, |(_, earliest)| *earliest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_overlooked() {
        let changes = Changes::default();
        let (mut all, mut moments, mut seed) = (Vec::new(), vec![(changes.now(), 0)], 1u64);
        for _ in 0..1_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let earliest = i64::try_from(seed >> 43).expect("21 bits");
            changes.note(earliest);
            all.push(earliest);
            moments.push((changes.now(), all.len()));
            for (moment, from) in &moments {
                let expected = all.iter().skip(*from).min().map(|t| t / TOGETHER_MS * TOGETHER_MS);
                assert_eq!(changes.earliest_since(*moment), expected.unwrap_or(Timestamp::MAX));
            }
        }
    }

    #[test]
    fn what_is_not_told_apart_any_more_counts_as_changed() {
        let changes = Changes::default();
        changes.note(0);
        let (old, count) = (changes.now(), 2 * CHANGES_MAX as i64);
        for second in 1..=count {
            changes.note(second * TOGETHER_MS);
        }
        assert_eq!(changes.0.lock().since.len(), CHANGES_MAX, "bounded");
        assert_eq!(changes.earliest_since(old), Timestamp::MIN);
        assert_eq!(changes.earliest_since(changes.now() - 1), count * TOGETHER_MS);
        assert_eq!(changes.earliest_since(changes.now()), Timestamp::MAX);
        changes.note(Timestamp::MIN);
        assert_eq!(changes.earliest_since(changes.now() - 1), Timestamp::MIN);
        assert_eq!(changes.0.lock().since.len(), 1, "earlier than all of them");
    }
}
