//! Instant selectors over series that have histograms.

use chronolith_model::is_stale;
use chronolith_storage::Samples;

use super::{leaf::end_of, natives::Natives};
use crate::{
    plan::Instants,
    series::{Column, samples_of},
};

/// The latest sample of either kind.
enum Latest {
    /// When and what.
    Float(i64, f64),
    /// When, and its index.
    Histogram(i64, usize),
}

/// Gives each step the latest sample within the lookback, unless that is a stale marker; counts it as Prometheus does.
pub(super) fn values(
    samples: &Samples,
    instants: &Instants,
    stats: bool,
    column: &mut Column,
    counts: &mut [u64],
) {
    let mut natives = Natives::new(samples, stats);
    each(samples, instants, |step, latest| {
        counts[step] += match latest {
            Latest::Float(_, value) => {
                column.set(step, value);
                1
            }
            Latest::Histogram(_, index) => {
                let native = natives.get(index);
                let count = samples_of(&native);
                column.set_histogram(step, native);
                count as u64
            }
        };
    });
}

/// Gives each step what `value` makes of the time of that sample; a histogram counts as one sample, since it is not read.
pub(super) fn times(
    samples: &Samples,
    instants: &Instants,
    column: &mut Column,
    counts: &mut [u64],
    value: impl Fn(i64) -> f64,
) {
    each(samples, instants, |step, latest| {
        let (Latest::Float(t, _) | Latest::Histogram(t, _)) = latest;
        column.set(step, value(t));
        counts[step] += 1;
    });
}

/// Calls `found` for each step that has such a sample.
fn each(samples: &Samples, instants: &Instants, mut found: impl FnMut(usize, Latest)) {
    let (mut floats, mut histograms) = (0, 0);
    let advance = |seen: &mut usize, times: &[i64], end: i64| {
        *seen += times[*seen..].iter().take_while(|t| **t <= end).count();
        seen.checked_sub(1)
    };
    for step in 0..instants.grid.count {
        let end = end_of(instants.grid, instants.end, step);
        let float = advance(&mut floats, &samples.timestamps, end).map(|i| (samples.timestamps[i], i));
        let histogram = advance(&mut histograms, &samples.histogram_timestamps, end)
            .map(|i| (samples.histogram_timestamps[i], i));
        let (t, latest, stale) = match (float, histogram) {
            (Some((t, i)), other) if other.is_none_or(|(other, _)| other < t) => {
                (t, Latest::Float(t, samples.values[i]), is_stale(samples.values[i]))
            }
            (_, Some((t, i))) => (t, Latest::Histogram(t, i), samples.histograms[i].is_stale()),
            _ => continue,
        };
        if t > end.saturating_sub(instants.lookback) && !stale {
            found(step, latest);
        }
    }
}
