//! `histogram_quantile` and `histogram_fraction`: of classic histograms, series of cumulative buckets that are told apart
//! by their label `le`, and of native ones.
//!
//! Buckets are sorted once per group; each step then gathers its counts from the columns. A step at which a histogram is
//! there in both forms has no result.

use chronolith_model::{FloatHistogram, Labels, histogram::NanObservations};
use hashbrown::HashMap;

use super::numeric::{almost_equal, nan_first};
use crate::{
    annotations::{Annotation, ForcedMonotonicity},
    api::QueryError,
    limits::{Interrupt, STAGE_EVALUATION},
    series::{Column, Grid, KernelContext, Lane, SeriesColumn, is_absent},
};

/// The label of a bucket's upper bound.
const BUCKET_LABEL: &str = "le";

/// Relative differences of neighbouring counts below this come from rounding.
const ROUNDING: f64 = 1e-12;

/// The series of one histogram.
#[derive(Debug)]
struct Group {
    labels: Labels,
    drop_name: bool,
    /// Upper bounds and counts per step, sorted by bound.
    buckets: Vec<(f64, Column)>,
    /// The native form.
    natives: Option<Box<Lane>>,
}

/// A bucket at one step.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    /// Highest value counted, inclusive.
    bound: f64,
    /// How many observations were at most that.
    count: f64,
}

/// The quantile `q[step]` of each histogram, linear within buckets. Samples without a readable `le` are left out with
/// a warning; counts that decrease are raised, with an info.
///
/// # Errors
/// When the query is over.
pub(crate) fn histogram_quantile(
    grid: &Grid,
    q: &[f64],
    series: Vec<SeriesColumn>,
    interrupt: &Interrupt,
    context: &mut KernelContext<'_>,
) -> Result<Vec<SeriesColumn>, QueryError> {
    let (q_span, span) = (argument(context, 0), argument(context, 1));
    let mut warned = None;
    for q in q.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
        if warned != Some(q.to_bits()) {
            context.notes.add(Annotation::InvalidQuantile(*q), q_span);
            warned = Some(q.to_bits());
        }
    }
    let groups = group(series, context, 1);
    let mut results = Vec::with_capacity(groups.len());
    for group in groups {
        interrupt.check(STAGE_EVALUATION)?;
        let mut forced: Option<ForcedMonotonicity> = None;
        let metric = metric_name(&group.labels, context);
        let (notes, name) = (&mut context.notes, &metric);
        let of_native = |step: usize, native: &FloatHistogram| {
            let (quantile, nan) = native.quantile(q[step]);
            match nan {
                NanObservations::None => {}
                NanObservations::Result => notes.add(Annotation::NanQuantile(name.clone()), span),
                NanObservations::SkewHigher => notes.add(Annotation::SkewedQuantile(name.clone()), span),
            }
            quantile
        };
        let of_buckets = |step: usize, buckets: &mut [Bucket]| {
            let (quantile, correction) = bucket_quantile(q[step], buckets);
            if let Some(correction) = correction {
                let time = grid.time(step);
                let known = forced.get_or_insert_with(|| ForcedMonotonicity {
                    metric: name.clone(),
                    bucket_min: f64::INFINITY,
                    bucket_max: f64::NEG_INFINITY,
                    diff_max: 0.0,
                    first: time,
                    last: time,
                    count: 0,
                });
                known.bucket_min = known.bucket_min.min(correction.bound_min);
                known.bucket_max = known.bucket_max.max(correction.bound_max);
                known.diff_max = known.diff_max.max(correction.diff_max);
                known.last = time;
                known.count += 1;
            }
            quantile
        };
        let (column, both) = evaluate(grid, &group, of_buckets, of_native);
        if both {
            context.notes.add(Annotation::MixedClassicNative(metric.clone()), span);
        }
        if let Some(forced) = forced {
            context.notes.add(Annotation::ForcedMonotonicity(forced), span);
        }
        results.push(finish(group, column, context));
    }
    Ok(results)
}

/// The share of the observations between `lower[step]` and `upper[step]` of each histogram, linear within classic buckets.
///
/// # Errors
/// When the query is over.
pub(crate) fn histogram_fraction(
    grid: &Grid,
    lower: &[f64],
    upper: &[f64],
    series: Vec<SeriesColumn>,
    interrupt: &Interrupt,
    context: &mut KernelContext<'_>,
) -> Result<Vec<SeriesColumn>, QueryError> {
    let span = argument(context, 2);
    let groups = group(series, context, 2);
    let mut results = Vec::with_capacity(groups.len());
    for group in groups {
        interrupt.check(STAGE_EVALUATION)?;
        let metric = metric_name(&group.labels, context);
        let mut nan_seen = false;
        let of_native = |step: usize, native: &FloatHistogram| {
            let (fraction, nan) = native.fraction(lower[step], upper[step]);
            nan_seen |= nan;
            fraction
        };
        let of_buckets =
            |step: usize, buckets: &mut [Bucket]| bucket_fraction(lower[step], upper[step], buckets);
        let (column, both) = evaluate(grid, &group, of_buckets, of_native);
        if nan_seen {
            context.notes.add(Annotation::NanFraction(metric.clone()), span);
        }
        if both {
            context.notes.add(Annotation::MixedClassicNative(metric), span);
        }
        results.push(finish(group, column, context));
    }
    Ok(results)
}

/// Sorts series into histograms: those that are equal but for `le`, in the order of their first series. The native form
/// has all its labels.
fn group(series: Vec<SeriesColumn>, context: &mut KernelContext<'_>, arg: usize) -> Vec<Group> {
    let span = argument(context, arg);
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut place = |groups: &mut Vec<Group>, labels: Labels, drop_name: bool| {
        *places.entry_ref(&labels).or_insert_with(|| {
            groups.push(Group { labels: labels.clone(), drop_name, buckets: Vec::new(), natives: None });
            groups.len() - 1
        })
    };
    for mut one in series {
        if let Some(lane) = one.column.take_lane() {
            let place = place(&mut groups, one.labels.clone(), one.drop_name);
            groups[place].natives = Some(lane);
            if one.column.is_empty() {
                continue;
            }
        }
        let le = one.labels.get(BUCKET_LABEL).unwrap_or_default();
        let Some(bound) = parse_bound(le) else {
            if !one.column.is_empty() {
                // Unlike other annotations this one is about the series that came in.
                let metric = one.labels.metric_name().unwrap_or_default().to_owned();
                context.notes.add(Annotation::BadBucketLabel { metric, label: le.to_owned() }, span);
            }
            continue;
        };
        let place = place(&mut groups, one.labels.without(BUCKET_LABEL), one.drop_name);
        groups[place].buckets.push((bound, one.column));
    }
    for group in &mut groups {
        group.buckets.sort_by(|a, b| nan_first(&a.0, &b.0));
    }
    groups
}

/// A float as Go reads one, except that hexadecimal ones are not known: out of range is an error.
fn parse_bound(text: &str) -> Option<f64> {
    let bound: f64 = text.parse().ok()?;
    let overflow = bound.is_infinite() && text.bytes().any(|b| b.is_ascii_digit());
    (!overflow).then_some(bound)
}

/// The metric name as annotations show it: empty unless names are dropped late.
fn metric_name(labels: &Labels, context: &KernelContext<'_>) -> String {
    let name = labels.metric_name().filter(|_| context.delayed_name_removal);
    name.unwrap_or_default().to_owned()
}

fn argument(context: &KernelContext<'_>, index: usize) -> chronolith_syntax::ast::Span {
    context.args.get(index).copied().unwrap_or(context.span)
}

/// The column of `of_buckets(step, buckets)` over the steps at which `group` has buckets, which come sorted, one per
/// bound, and of `of_native(step, native)` where it has the native form; and whether it has both at a step, which has no
/// value then.
fn evaluate(
    grid: &Grid,
    group: &Group,
    mut of_buckets: impl FnMut(usize, &mut [Bucket]) -> f64,
    mut of_native: impl FnMut(usize, &FloatHistogram) -> f64,
) -> (Column, bool) {
    let mut out = Column::absent(grid.count);
    let mut both = false;
    let mut buckets: Vec<Bucket> = Vec::with_capacity(group.buckets.len());
    for step in 0..grid.count {
        buckets.clear();
        for (bound, column) in &group.buckets {
            let count = column.values()[step];
            if is_absent(count) {
                continue;
            }
            match buckets.last_mut() {
                Some(last) if last.bound == *bound => last.count += count,
                _ => buckets.push(Bucket { bound: *bound, count }),
            }
        }
        let native = group.natives.as_ref().and_then(|lane| lane.steps()[step].as_ref());
        match native {
            Some(_) if !buckets.is_empty() => both = true,
            Some(native) => out.set(step, of_native(step, native)),
            None if !buckets.is_empty() => out.set(step, of_buckets(step, &mut buckets)),
            None => {}
        }
    }
    (out, both)
}

fn finish(group: Group, column: Column, context: &KernelContext<'_>) -> SeriesColumn {
    let (labels, drop_name) = if context.delayed_name_removal {
        (group.labels, true)
    } else {
        (group.labels.retain(|name| !matches!(name, "__name__" | "__type__" | "__unit__")), group.drop_name)
    };
    SeriesColumn { labels, drop_name, column }
}

/// How far the counts of a histogram were from increasing.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Correction {
    bound_min: f64,
    bound_max: f64,
    diff_max: f64,
}

/// The quantile `q` of sorted `buckets`, of which there is at least one; their counts are made to increase.
fn bucket_quantile(q: f64, buckets: &mut [Bucket]) -> (f64, Option<Correction>) {
    if q.is_nan() {
        return (f64::NAN, None);
    } else if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    } else if q > 1.0 {
        return (f64::INFINITY, None);
    }
    let last = buckets.len() - 1;
    if buckets[last].bound != f64::INFINITY {
        return (f64::NAN, None);
    }
    let correction = make_monotonic(buckets);
    let total = buckets[last].count;
    if last == 0 || total == 0.0 {
        return (f64::NAN, correction);
    }
    let rank = q * total;
    // Not `< rank`: a NaN count never reaches a rank.
    let reached = |bucket: &Bucket| bucket.count >= rank;
    let index = buckets[..last].partition_point(|bucket| !reached(bucket));
    let quantile = if index == last {
        buckets[last - 1].bound
    } else if index == 0 && buckets[0].bound <= 0.0 {
        buckets[0].bound
    } else {
        let Bucket { bound: end, count } = buckets[index];
        let below = if index > 0 { buckets[index - 1] } else { Bucket { bound: 0.0, count: 0.0 } };
        below.bound + (end - below.bound) * ((rank - below.count) / (count - below.count))
    };
    (quantile, correction)
}

/// Raises counts that are lower than the one before. Differences that rounding explains are evened out silently.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Correction> {
    let mut correction: Option<Correction> = None;
    let (first, others) = buckets.split_first_mut()?;
    let mut previous = first.count;
    for bucket in others {
        if bucket.count == previous {
            continue;
        }
        if almost_equal(previous, bucket.count, ROUNDING) {
            bucket.count = previous;
        } else if bucket.count < previous {
            let so_far = correction.get_or_insert(Correction {
                bound_min: f64::INFINITY,
                bound_max: f64::NEG_INFINITY,
                diff_max: 0.0,
            });
            so_far.bound_min = so_far.bound_min.min(bucket.bound);
            so_far.bound_max = so_far.bound_max.max(bucket.bound);
            so_far.diff_max = so_far.diff_max.max(previous - bucket.count);
            bucket.count = previous;
        } else {
            previous = bucket.count;
        }
    }
    correction
}

/// The share of observations between `lower` and `upper` in sorted `buckets`, of which there is at least one.
fn bucket_fraction(lower: f64, upper: f64, buckets: &[Bucket]) -> f64 {
    let last = buckets[buckets.len() - 1];
    let total = last.count;
    if last.bound != f64::INFINITY || total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank = |value: f64| {
        let rank = rank_of(value, buckets).unwrap_or(total);
        if rank > total { total } else { rank }
    };
    (rank(upper) - rank(lower)) / total
}

/// How many observations are below `value`; `None` if it is above all buckets' lower bounds and in none.
fn rank_of(value: f64, buckets: &[Bucket]) -> Option<f64> {
    let mut rank = 0.0;
    let mut start = if buckets[0].bound <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    for bucket in buckets {
        if start >= value {
            return Some(rank);
        }
        if start < value && bucket.bound > value {
            // Nothing is known about the inside of an infinite bucket.
            return Some(if start == f64::NEG_INFINITY {
                bucket.count
            } else {
                rank + (bucket.count - rank) * (value - start) / (bucket.bound - start)
            });
        }
        rank = bucket.count;
        start = bucket.bound;
    }
    None
}

#[cfg(test)]
mod tests;
