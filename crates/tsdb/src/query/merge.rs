//! The samples of one series out of several sources.

use chronolith_model::StartTimestamp;
use chronolith_storage::Samples;

use super::hints;

/// Where the samples of a source begin: among the floats, and among the histograms; and where its start timestamps do.
pub(crate) type Start = (usize, usize, usize);

/// The places behind the last samples.
pub(crate) fn end(samples: &Samples) -> Start {
    (samples.timestamps.len(), samples.histogram_timestamps.len(), samples.starts.len())
}

/// Whether the runs that begin at `starts`, of which the last reaches to the end, come one after the other.
fn in_order(samples: &Samples, starts: &[Start]) -> bool {
    let mut last = None;
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or_else(|| end(samples));
        let floats = samples.timestamps.get(start.0..end.0).unwrap_or_default();
        let histograms = samples.histogram_timestamps.get(start.1..end.1).unwrap_or_default();
        let first = floats.first().into_iter().chain(histograms.first()).min();
        if first.is_some_and(|first| last.is_some_and(|last| *first <= last)) {
            return false;
        }
        last = last.max(floats.last().into_iter().chain(histograms.last()).max().copied());
    }
    true
}

/// Sorts the samples behind the first of `starts`, each of which begins a run, by time. Of samples at one timestamp that
/// of the earliest run counts, with its start timestamp; inside a run there is one. Hints of
/// histograms are about the sample before then.
pub(crate) fn settle(samples: &mut Samples, starts: &[Start]) {
    let Some(first) = starts.first().copied() else { return };
    if samples.starts.len() == first.2 && (starts.len() < 2 || in_order(samples, starts)) {
        hints::settle_borders(samples, starts);
    } else {
        merge(samples, starts, first);
    }
    hints::forget_behind_floats(samples, first);
}

/// Merges runs, of which the first begins at `first`.
fn merge(samples: &mut Samples, starts: &[Start], first: Start) {
    // Timestamp, run, and place among the floats or the histograms.
    let mut picks: Vec<(i64, usize, Place)> = Vec::new();
    for (run, start) in starts.iter().enumerate() {
        let end = starts.get(run + 1).copied().unwrap_or_else(|| end(samples));
        let floats = samples.timestamps.get(start.0..end.0).unwrap_or_default().iter();
        picks.extend(floats.enumerate().map(|(at, t)| (*t, run, Place::Float(start.0 + at))));
        let histograms = samples.histogram_timestamps.get(start.1..end.1).unwrap_or_default().iter();
        picks.extend(histograms.enumerate().map(|(at, t)| (*t, run, Place::Histogram(start.1 + at))));
    }
    // Runs are sorted already: this merges them.
    picks.sort_by_key(|(t, run, _)| (*t, *run));
    picks.dedup_by_key(|(t, ..)| *t);
    if samples.starts.len() > first.2 {
        settle_starts(samples, starts, picks.iter().map(|(t, run, _)| (*t, *run)));
    }
    let values = samples.values.split_off(first.0);
    let mut histograms: Vec<Option<_>> =
        samples.histograms.split_off(first.1).into_iter().map(Some).collect();
    samples.timestamps.truncate(first.0);
    samples.histogram_timestamps.truncate(first.1);
    // Run and place of the histogram before.
    let mut before: Option<(usize, usize)> = None;
    for (t, run, place) in picks {
        match place {
            Place::Float(at) => {
                if let Some(value) = values.get(at - first.0) {
                    samples.push(t, *value);
                }
            }
            Place::Histogram(at) => {
                if let Some(mut histogram) = histograms.get_mut(at - first.1).and_then(Option::take) {
                    let follows = |before: (usize, usize)| before == (run, at.wrapping_sub(1));
                    if !before.replace((run, at)).is_some_and(follows) {
                        let before = samples.histograms.get(first.1..).and_then(<[_]>::last);
                        hints::settle(&mut histogram, before);
                    }
                    samples.push_histogram(t, histogram);
                }
            }
        }
    }
}

/// Gives each of `picks`, its timestamp and run, the start it has in that run.
fn settle_starts(samples: &mut Samples, starts: &[Start], picks: impl Iterator<Item = (i64, usize)>) {
    let first = starts.first().map_or(0, |start| start.2);
    let steps = samples.starts.split_off(first);
    let of_run = |run: usize| {
        let begin = starts.get(run).map_or(0, |start| start.2 - first);
        let end = starts.get(run + 1).map_or(steps.len(), |start| start.2 - first);
        steps.get(begin..end).unwrap_or_default()
    };
    for (t, run) in picks {
        samples.push_start(t, StartTimestamp::at(of_run(run), t));
    }
}

/// A sample among those of a series.
#[derive(Clone, Copy, Debug)]
enum Place {
    Float(usize),
    Histogram(usize),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chronolith_model::Histogram;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        Float(f64),
        Histogram,
    }

    proptest! {
        #[test]
        fn the_earliest_run_counts(
            runs in prop::collection::vec(prop::collection::btree_map(0..60_i64, any::<bool>(), 0..20), 0..5),
            shift in prop_oneof![Just(0_i64), Just(100)],
        ) {
            let mut samples = Samples::default();
            samples.push(-5, 0.5);
            let mut model: BTreeMap<i64, Kind> = BTreeMap::from([(-5, Kind::Float(0.5))]);
            let mut starts: Vec<Start> = Vec::new();
            let mut began_at = BTreeMap::from([(-5, 0)]);
            for (number, run) in runs.iter().enumerate() {
                starts.push(end(&samples));
                for (t, float) in run {
                    let t = t + shift * number as i64;
                    // Some runs know nothing of starts.
                    let began = if number % 2 == 0 { (t / 10) * 10 + number as i64 } else { 0 };
                    if began != samples.starts.get(starts.last().expect("pushed").2..).and_then(<[_]>::last).map_or(0, |step: &StartTimestamp| step.start) {
                        samples.starts.push(StartTimestamp { since: t, start: began });
                    }
                    began_at.entry(t).or_insert(began);
                    if *float {
                        samples.push(t, number as f64);
                        model.entry(t).or_insert(Kind::Float(number as f64));
                    } else {
                        samples.push_histogram(t, Histogram::stale());
                        model.entry(t).or_insert(Kind::Histogram);
                    }
                }
            }
            settle(&mut samples, &starts);
            for (t, began) in began_at {
                prop_assert_eq!(samples.start_at(t), began, "at {}", t);
            }
            let floats = samples.timestamps.iter().zip(&samples.values).map(|(t, v)| (*t, Kind::Float(*v)));
            let histograms = samples.histogram_timestamps.iter().map(|t| (*t, Kind::Histogram));
            prop_assert_eq!(samples.histograms.len(), samples.histogram_timestamps.len());
            prop_assert!(samples.timestamps.is_sorted() && samples.histogram_timestamps.is_sorted());
            let got: BTreeMap<i64, Kind> = floats.chain(histograms).collect();
            prop_assert_eq!(got.len(), samples.timestamps.len() + samples.histograms.len());
            prop_assert_eq!(got, model);
        }
    }
}
