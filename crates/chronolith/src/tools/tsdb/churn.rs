//! Which series are there when.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::super::format::time;

/// At most so many series of a tenant are told apart.
const SERIES_COUNTED_MAX: usize = 1 << 24;

/// At most so many days are listed.
const DAYS_LISTED_MAX: usize = 10_000;

const DAY_MS: i64 = 86_400_000;

/// A series is taken for there as long as queries look back (Prometheus' default).
const LOOKBACK_MS: i64 = 300_000;

/// The series of a tenant, by a hash of 64 bits of their labels, with the first and last timestamp of each.
#[derive(Debug, Default)]
pub(super) struct Lives {
    lives: HashMap<u64, Option<(i64, i64)>>,
    /// Series have been left out.
    pub(super) full: bool,
}

/// Series coming and going, by day since 1970.
#[derive(Debug, Default)]
pub(super) struct Churn {
    days: BTreeMap<i64, Change>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Change {
    first: u64,
    last: u64,
    appeared: u64,
    vanished: u64,
}

/// A day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Day {
    /// When it begins, in UTC.
    pub(super) day: String,
    /// Series between whose first and last sample the day lies.
    pub(super) active: u64,
    /// Series whose first sample is of the day, but those that were there when the data begins.
    pub(super) appeared: u64,
    /// Series whose last sample is of the day, but those that are there when the data ends.
    pub(super) vanished: u64,
}

impl Lives {
    /// Whether a series is met for the first time.
    pub(super) fn meet(&mut self, hash: u64, times: Option<(i64, i64)>) -> bool {
        if let Some(life) = self.lives.get_mut(&hash) {
            *life = union(*life, times);
            return false;
        }
        if self.lives.len() >= SERIES_COUNTED_MAX {
            self.full = true;
            return false;
        }
        self.lives.insert(hash, times);
        true
    }

    pub(super) fn len(&self) -> u64 {
        self.lives.len() as u64
    }

    /// First and last timestamp of all.
    pub(super) fn times(&self) -> Option<(i64, i64)> {
        self.lives.values().copied().fold(None, union)
    }
}

fn union(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (a, b) => a.or(b),
    }
}

impl Churn {
    /// Takes the series of a tenant in.
    pub(super) fn add(&mut self, lives: &Lives) {
        let Some((begin, end)) = lives.times() else { return };
        for (first, last) in lives.lives.values().flatten() {
            let day = self.days.entry(first.div_euclid(DAY_MS)).or_default();
            day.first += 1;
            day.appeared += u64::from(*first > begin.saturating_add(LOOKBACK_MS));
            let day = self.days.entry(last.div_euclid(DAY_MS)).or_default();
            day.last += 1;
            day.vanished += u64::from(*last < end.saturating_sub(LOOKBACK_MS));
        }
    }

    /// The last days, at most `limit`.
    pub(super) fn days(&self, limit: usize) -> Vec<Day> {
        let Some((&last, _)) = self.days.last_key_value() else { return Vec::new() };
        let limit = limit.min(DAYS_LISTED_MAX);
        let from = last.saturating_sub(i64::try_from(limit).unwrap_or(i64::MAX)).saturating_add(1);
        let from = from.max(self.days.first_key_value().map_or(from, |(first, _)| *first));
        let before = self.days.range(..from).map(|(_, change)| change);
        let (begun, ended) = before.fold((0, 0), |(a, b), change| (a + change.first, b + change.last));
        let mut active = begun - ended;
        let mut days = Vec::new();
        for number in from..=last {
            let change = self.days.get(&number).copied().unwrap_or_default();
            active += change.first;
            let day = time(number.saturating_mul(DAY_MS));
            days.push(Day {
                day: day.split('T').next().unwrap_or_default().to_owned(),
                active,
                appeared: change.appeared,
                vanished: change.vanished,
            });
            active -= change.last;
        }
        days
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn churn(lives: &[(i64, i64)]) -> Churn {
        let mut all = Lives::default();
        for (hash, (first, last)) in (0..).zip(lives) {
            assert!(all.meet(hash, Some((*first, *first))));
            assert!(!all.meet(hash, Some((*last, *last))));
        }
        let mut churn = Churn::default();
        churn.add(&all);
        churn
    }

    fn shown(churn: &Churn, limit: usize) -> Vec<String> {
        let days = churn.days(limit).into_iter();
        days.map(|day| format!("{} {} +{} -{}", day.day, day.active, day.appeared, day.vanished)).collect()
    }

    #[test]
    fn days() {
        let churn = churn(&[
            (0, 4 * DAY_MS + HOUR),
            (LOOKBACK_MS, 2 * HOUR),
            (HOUR, 2 * DAY_MS),
            (DAY_MS, DAY_MS + HOUR),
            (4 * DAY_MS, 4 * DAY_MS + HOUR - LOOKBACK_MS),
        ]);
        let all = [
            "1970-01-01 3 +1 -1",
            "1970-01-02 3 +1 -1",
            "1970-01-03 2 +0 -1",
            "1970-01-04 1 +0 -0",
            "1970-01-05 2 +1 -0",
        ];
        assert_eq!(shown(&churn, 100), all);
        assert_eq!(shown(&churn, 3), all[2..]);
        assert_eq!(shown(&churn, 1), all[4..]);
    }

    #[test]
    fn extreme_times() {
        assert_eq!(shown(&Churn::default(), 5), [""; 0]);
        let churn = churn(&[(i64::MIN, i64::MAX), (5, 5)]);
        assert_eq!(churn.days(usize::MAX).len(), DAYS_LISTED_MAX);
        assert_eq!(churn.days(1)[0].active, 1);
        let mut all = Lives::default();
        assert!(all.meet(1, None) && !all.meet(1, None));
        assert_eq!((all.times(), all.len()), (None, 1));
        let mut churn = Churn::default();
        churn.add(&all);
        assert_eq!(shown(&churn, 5), [""; 0]);
    }
}
