//! `load_with_nhcb`: classic histograms as native ones with custom buckets.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use chronolith_model::{
    CounterResetHint, FloatHistogram, Labels, METRIC_NAME,
    histogram::{CUSTOM_SCHEMA, Layout, Numbers, Span},
    is_stale,
};

use super::{
    script::{Load, ScriptProblem},
    series::{ScriptHistogram, SeriesLine, SeriesValue},
};

/// What is known of a classic histogram at one time.
#[derive(Clone, Debug, Default)]
struct Classic {
    /// Cumulative counts by upper bound, ascending.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// Which part of a classic histogram a series is.
enum Part {
    Bucket(f64),
    Count,
    Sum,
}

/// The histograms that the classic ones of `load` are, in the order of their first series.
pub(super) fn custom_bucket_series(load: &Load) -> Result<Vec<SeriesLine>, ScriptProblem> {
    let mut order: Vec<Labels> = Vec::new();
    let mut found: HashMap<Labels, BTreeMap<usize, Classic>> = HashMap::new();
    for (series, _) in &load.series {
        let Some((labels, part)) = part_of(&series.labels) else { continue };
        let by_step = found.entry(labels.clone()).or_insert_with(|| {
            order.push(labels);
            BTreeMap::new()
        });
        for (step, value) in series.values.iter().enumerate() {
            let SeriesValue::Float(value) = value else { continue };
            if is_stale(*value) {
                continue;
            }
            let classic = by_step.entry(step).or_default();
            match part {
                Part::Bucket(bound) => classic.buckets.push((bound, *value)),
                Part::Count => classic.count = Some(*value),
                Part::Sum => classic.sum = *value,
            }
        }
    }
    let series = order.into_iter().map(|labels| {
        let by_step = found.remove(&labels).unwrap_or_default();
        let steps = by_step.keys().next_back().map_or(0, |last| last + 1);
        let mut values = vec![SeriesValue::Missing; steps];
        for (step, classic) in by_step {
            let histogram = classic.native().ok_or_else(|| {
                ScriptProblem::Refused(format!("the buckets of {labels} are those of no histogram"))
            })?;
            let histogram = ScriptHistogram { histogram: Arc::new(histogram), hint_given: false };
            values[step] = SeriesValue::Histogram(histogram);
        }
        Ok(SeriesLine { labels, values })
    });
    series.collect()
}

/// The labels of the native histogram, and what of it a series of `labels` is.
fn part_of(labels: &Labels) -> Option<(Labels, Part)> {
    let name = labels.metric_name()?;
    let (name, part) = if let Some(name) = name.strip_suffix("_bucket") {
        let bound: f64 = labels.get("le")?.parse().ok()?;
        (name, Part::Bucket(Some(bound).filter(|bound| !bound.is_nan())?))
    } else if let Some(name) = name.strip_suffix("_count") {
        (name, Part::Count)
    } else {
        (name.strip_suffix("_sum")?, Part::Sum)
    };
    let mut builder = labels.to_builder();
    builder.set(METRIC_NAME, name).remove("le");
    Some((builder.build(), part))
}

impl Classic {
    /// The native histogram; `None` where counts decrease or contradict each other.
    fn native(mut self) -> Option<FloatHistogram> {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.buckets.dedup_by(|b, a| a.0 == b.0);
        let count = self.count.or(self.buckets.last().map(|(_, count)| *count)).unwrap_or(0.0);
        if self.buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let mut below = 0.0;
        let mut buckets = Vec::with_capacity(self.buckets.len());
        for (_, cumulative) in &self.buckets {
            if *cumulative < below {
                return None;
            }
            buckets.push(cumulative - below);
            below = *cumulative;
        }
        if below != count {
            return None;
        }
        let bounds = self.buckets[..self.buckets.len() - 1].iter().map(|(bound, _)| *bound).collect();
        let span = Span { offset: 0, length: u32::try_from(buckets.len()).ok()? };
        let layout = Layout::new(CUSTOM_SCHEMA, 0.0, &[span], &[], bounds).ok()?;
        let hint = CounterResetHint::Unknown;
        let numbers = Numbers { hint, sum: self.sum, count, zero_count: 0.0, buckets };
        let mut native = FloatHistogram::from_numbers(Arc::new(layout), numbers)?;
        native.compact();
        Some(native)
    }
}
