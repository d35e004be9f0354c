//! What is known about the counters of histograms that come out of several sources.
//!
//! A hint is about a histogram and the one before it when the hint was made. Where that is another one now, both are
//! compared; where there is none, or a float, nothing is known.

use chronolith_block::rehint;
use chronolith_model::{Histogram, histogram::CounterResetHint};
use chronolith_storage::Samples;

use super::merge::{Start, end};

/// Finds out what is to be said of the first histograms of runs that begin at `starts` and come one after the other.
pub(super) fn settle_borders(samples: &mut Samples, starts: &[Start]) {
    let last = end(samples).1;
    let first = starts.first().map_or(last, |first| first.1);
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).map_or(last, |next| next.1);
        let (before, run) = samples.histograms.split_at_mut(start.1.min(last));
        if let Some(histogram) = run.first_mut().filter(|_| start.1 < end) {
            settle(histogram, before.get(first..).and_then(<[_]>::last));
        }
    }
}

/// The same for a histogram that has got `before` before it, or nothing.
pub(super) fn settle(histogram: &mut Histogram, before: Option<&Histogram>) {
    match before {
        Some(_) => rehint(histogram, before),
        None => forget_before(histogram),
    }
}

/// There is no histogram before `histogram`, or there is a float in between. That a counter began anew stays true.
const fn forget_before(histogram: &mut Histogram) {
    if matches!(histogram.hint(), CounterResetHint::NotReset) {
        histogram.set_hint(CounterResetHint::Unknown);
    }
}

/// Forgets, behind the place `start`, what is said of histograms that have floats right before them.
pub(super) fn forget_behind_floats(samples: &mut Samples, start: Start) {
    let mut floats = samples.timestamps.get(start.0..).unwrap_or_default().iter().peekable();
    if floats.peek().is_none() {
        return;
    }
    let histograms = samples.histogram_timestamps.iter().zip(&mut samples.histograms);
    for (t, histogram) in histograms.skip(start.1) {
        let mut behind_float = false;
        while floats.next_if(|float| *float < t).is_some() {
            behind_float = true;
        }
        if behind_float {
            forget_before(histogram);
        }
    }
}
