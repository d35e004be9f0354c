//! Selectors, and range functions over them.

use std::{ops::Range, sync::Arc};

use chronolith_model::{Labels, Sample, TimeRange, is_stale};
use chronolith_storage::{Samples, SeriesBatch, SeriesSet};
use chronolith_syntax::ast::{RangeMode, Span};
use parking_lot::Mutex;
use rayon::prelude::*;

use super::{
    Executor, Scope, SharedLeaf,
    decoded::Keeping,
    fetch::Scratch,
    latest,
    names::{Unique, drop_name, has_type_or_unit, unify},
    natives::NativeSamples,
    series_bytes,
    stream::{Collect, Sink},
    windowed::{Windowed, slides},
    worth_threads,
};
use crate::{
    annotations::Annotations,
    api::{QueryError, RangeSeries},
    functions::range::{self, RangeFunction, Sights},
    limits::{Interrupt, Ledger, STAGE_EVALUATION},
    plan::{Instants, Leaf, LeafFunction, Node},
    series::{Column, Grid, KernelContext, SeriesColumn, WindowEnd, Windows, native_bytes, samples_of},
};

/// Series one task works on. Fixed, so that results do not depend on the number of threads.
const TASK_SERIES: usize = 32;
/// Values that a batch of columns may have, about.
const BATCH_VALUES: usize = 1 << 21;
/// Series per batch, at least and at most.
const BATCH_SERIES: Range<usize> = 64..8_192;
/// Samples that are decoded for a series at least, about: a chunk.
const CHUNK_SAMPLES: i64 = 120;
/// Milliseconds from sample to sample, where one must guess.
const USUAL_INTERVAL: i64 = 15_000;

/// A leaf with its arguments evaluated.
struct Job<'a> {
    function: LeafFunction,
    params: Vec<&'a [f64]>,
    grid: Grid,
    span: Span,
    arg_spans: &'a [Span],
    /// Of histograms, counts and sums alone.
    stats: bool,
    set: &'a dyn SeriesSet,
    /// Samples per series, about.
    decoded: usize,
    interrupt: &'a Interrupt,
    ledger: &'a Ledger,
    delayed_name_removal: bool,
    type_and_unit_labels: bool,
    start_timestamps: bool,
    /// What tasks that are done have found out about windows, for those that come.
    sights: Mutex<Vec<Sights>>,
}

/// Where a task has the samples of its series from, in their order.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// The newest are all it needs.
    Lasts(&'a [Sample]),
    /// Another leaf has decoded them.
    Decoded(&'a [Samples]),
    /// To be decoded, and perhaps kept for other leaves.
    Batch { batch: &'a dyn SeriesBatch, keep: bool },
}

impl Source<'_> {
    /// The part of a task, `range` from the first series of the source on.
    fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::Lasts(lasts) => Self::Lasts(&lasts[range]),
            Self::Decoded(samples) => Self::Decoded(&samples[range]),
            batch @ Self::Batch { .. } => batch,
        }
    }
}

/// What a task uses for one series after the other.
struct Buffers<'a> {
    /// Samples without stale markers.
    fresh: Samples,
    /// For samples.
    charged: Scratch<'a>,
    /// What is known of windows.
    sights: Option<Sights>,
    /// For that.
    charged_sights: Scratch<'a>,
}

/// What a task made of its series.
#[derive(Default)]
struct Done {
    series: Vec<SeriesColumn>,
    /// What was decoded for them, if it is kept.
    decoded: Vec<Samples>,
    samples: Vec<u64>,
    /// How many samples were read for them.
    read: u64,
    notes: Annotations,
}

impl Executor<'_> {
    /// The value of a leaf, all series.
    pub(super) async fn whole_leaf(
        &mut self,
        leaf: &Leaf,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let spans: Vec<Span> = std::iter::once(node.span).chain(leaf.arg_spans.iter().copied()).collect();
        if let Some(shared) = self.shared.get_mut(&leaf.id) {
            scope.add(&shared.samples);
            self.notes.merge(shared.notes.moved(&shared.spans, &spans));
            shared.uses_left -= 1;
            if shared.uses_left > 0 {
                return Ok(shared.vector.clone());
            }
            return Ok(self.shared.remove(&leaf.id).map(|shared| shared.vector).unwrap_or_default());
        }
        let mut collect = Collect::default();
        let mut own = Scope::new(node.grid);
        let before = std::mem::take(&mut self.notes);
        self.stream_leaf(leaf, node, &mut own, &mut collect).await?;
        if self.merges(leaf) {
            collect.vector = unify(collect.vector)?;
        }
        let notes = std::mem::replace(&mut self.notes, before);
        self.notes.merge(notes.clone());
        scope.add(&own.samples);
        let uses_left = self.plan.leaf_uses[leaf.id] - 1;
        if uses_left > 0 {
            let vector = collect.vector.clone();
            self.shared.insert(leaf.id, SharedLeaf { vector, samples: own.samples, notes, spans, uses_left });
        }
        Ok(collect.vector)
    }

    /// Hands the series of a leaf to `sink`, in batches, in the order of their labels.
    pub(super) async fn stream_leaf(
        &mut self,
        leaf: &Leaf,
        node: &Node,
        scope: &mut Scope,
        sink: &mut dyn Sink,
    ) -> Result<(), QueryError> {
        self.check_grid(node.grid)?;
        let mut params = Vec::with_capacity(leaf.params.len());
        for param in &leaf.params {
            params.push(self.scalar(param, scope).await?);
        }
        let set = Arc::clone(&self.sets[leaf.selection]);
        let range = self.plan.selections[leaf.selection].range;
        let job = Job {
            function: leaf.function,
            params: params.iter().map(Vec::as_slice).collect(),
            grid: node.grid,
            span: node.span,
            arg_spans: &leaf.arg_spans,
            stats: leaf.stats,
            set: &*set,
            decoded: usual_samples(range),
            interrupt: self.interrupt,
            ledger: self.ledger,
            delayed_name_removal: self.delayed_name_removal,
            type_and_unit_labels: self.type_and_unit_labels,
            start_timestamps: self.plan.start_timestamps,
            sights: Mutex::default(),
        };
        let renames = !self.delayed_name_removal && leaf.function.drops_name();
        let mut unique =
            (renames && !leaf.function.by_step() && !self.differ_unnamed(leaf)).then(Unique::default);
        let mut keeping = self.decoded_before(leaf.selection, job.decoded);
        let step = (BATCH_VALUES / node.grid.count.max(1)).clamp(BATCH_SERIES.start, BATCH_SERIES.end);
        let mut next = 0;
        let mut watch = self.watch();
        while next < set.len() {
            self.interrupt.check(STAGE_EVALUATION)?;
            let indices = next..(next + step).min(set.len());
            next = indices.end;
            self.pause.before(job.work(&indices)).await;
            let held = self.ledger.held();
            let lasts = job.lasts(indices.clone());
            let done = if let Some(lasts) = &lasts {
                if let Keeping::New(_) = keeping {
                    self.forget(std::mem::take(&mut keeping));
                }
                self.parallel(&job, Source::Lasts(lasts), &indices)
            } else if let Keeping::All(all) = &keeping {
                self.parallel(&job, Source::Decoded(&all.series[indices.clone()]), &indices)
            } else {
                let (batch, copies) = self.fetched(&*set, &indices).await?;
                let keep = matches!(keeping, Keeping::New(_));
                let done = self.parallel(&job, Source::Batch { batch: &*batch, keep }, &indices);
                drop(batch);
                self.ledger.give_back(copies);
                done
            };
            let mut vector = Vec::with_capacity(indices.len());
            let mut read = 0;
            for task in done {
                let mut task = task?;
                read += task.read;
                if !keeping.add(&mut task.decoded, self.ledger) {
                    self.forget(std::mem::take(&mut keeping));
                }
                if let Some(unique) = &mut unique {
                    task.series.iter().try_for_each(|series| unique.check(&series.labels))?;
                }
                scope.add(&task.samples);
                self.notes.merge(task.notes);
                vector.extend(task.series);
            }
            if let Some((costs, since)) = watch {
                costs.read(node, read);
                costs.batch(node, since.elapsed(), &vector);
            }
            if let Some(bytes) = sink.push(vector)? {
                self.ledger.release_to(held);
                self.ledger.charge(0, bytes)?;
            }
            watch = self.watch();
        }
        if let Some(costs) = self.costs {
            costs.streamed(node);
        }
        self.decoded_after(leaf.selection, keeping);
        Ok(())
    }

    /// Whether series of `leaf` without a name may have to be merged, so that all of them must be there.
    pub(super) fn merges(&self, leaf: &Leaf) -> bool {
        !self.delayed_name_removal
            && leaf.function.by_step()
            && leaf.function.drops_name()
            && !self.differ_unnamed(leaf)
    }

    /// Whether the series of `leaf` still differ when name, type and unit are gone.
    pub(super) fn differ_unnamed(&self, leaf: &Leaf) -> bool {
        let set = &self.sets[leaf.selection];
        self.plan.selections[leaf.selection].one_name
            && !(0..set.len()).any(|index| has_type_or_unit(&set.labels(index)))
    }

    fn parallel(
        &self,
        job: &Job<'_>,
        source: Source<'_>,
        indices: &Range<usize>,
    ) -> Vec<Result<Done, QueryError>> {
        let first = indices.start;
        let task = |start: usize| {
            let range = start..(start + TASK_SERIES).min(indices.end);
            job.run(source.part(range.start - first..range.end - first), range)
        };
        let decoded = if matches!(source, Source::Lasts(_)) { 0 } else { job.decoded };
        if !worth_threads(indices.len(), job.grid.count.saturating_add(decoded)) {
            return indices.clone().step_by(TASK_SERIES).map(task).collect();
        }
        let starts: Vec<usize> = indices.clone().step_by(TASK_SERIES).collect();
        self.pool.install(|| starts.into_par_iter().map(task).collect())
    }

    /// The samples of a range selector at the top of an instant query.
    pub(super) async fn raw_matrix(
        &mut self,
        leaf: &Leaf,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<RangeSeries>, QueryError> {
        let LeafFunction::Range(_, windows) = leaf.function else { return Err(super::unexpected(node)) };
        let set = Arc::clone(&self.sets[leaf.selection]);
        let (mut result, mut read) = (Vec::new(), 0);
        let (mut samples, mut fresh) = (Samples::default(), Samples::default());
        for start in (0..set.len()).step_by(BATCH_SERIES.start) {
            let indices = start..(start + BATCH_SERIES.start).min(set.len());
            let (batch, copies) = self.fetched(&*set, &indices).await?;
            for index in indices {
                self.pause.before(0).await;
                self.interrupt.check(STAGE_EVALUATION)?;
                samples.clear();
                batch.read(index, &mut samples).map_err(QueryError::Storage)?;
                read += (samples.len() + samples.histograms.len()) as u64;
                let mut natives = NativeSamples::of(&samples, false);
                let points = if windows.mode == RangeMode::Plain {
                    let window = windows.start(0)..=windows.end(0);
                    let inside = |t: &i64| window.contains(t) && *t != *window.start();
                    natives.retain(|t| inside(&t));
                    (samples.timestamps.iter().copied())
                        .zip(samples.values.iter().copied())
                        .filter(|(t, v)| inside(t) && !is_stale(*v))
                        .collect()
                } else {
                    extended(&samples, &mut fresh, &windows)?
                };
                if points.is_empty() && natives.times.is_empty() {
                    continue;
                }
                let held = points.len() + natives.histograms.iter().map(|h| samples_of(h)).sum::<usize>();
                let bytes = (points.len() + natives.times.len()) * size_of::<(i64, f64)>()
                    + natives.histograms.iter().map(|h| native_bytes(h)).sum::<usize>();
                self.ledger.charge(held, bytes)?;
                scope.samples[0] += held as u64;
                let histograms = natives.times.into_iter().zip(natives.histograms).collect();
                result.push(RangeSeries { labels: set.labels(index), points, histograms });
            }
            drop(batch);
            self.ledger.give_back(copies);
        }
        if let Some(costs) = self.costs {
            costs.read(node, read);
        }
        Ok(result)
    }
}

impl Job<'_> {
    /// About how many values there are to work on for these series.
    fn work(&self, indices: &Range<usize>) -> usize {
        match self.function {
            LeafFunction::Range(function, _) if costs_by_window(function) => usize::MAX,
            _ => indices.len().saturating_mul(self.grid.count.saturating_add(self.decoded)),
        }
    }

    /// The newest samples of the series, if they are all the steps need.
    fn lasts(&self, indices: Range<usize>) -> Option<Vec<Sample>> {
        let (LeafFunction::Latest(instants) | LeafFunction::LatestTimestamp(instants)) = self.function else {
            return None;
        };
        let first = end_of(instants.grid, instants.end, 0);
        indices.map(|index| self.set.last_sample(index).filter(|last| last.timestamp <= first)).collect()
    }

    fn run(&self, source: Source<'_>, indices: Range<usize>) -> Result<Done, QueryError> {
        let mut done = Done {
            series: Vec::with_capacity(indices.len()),
            samples: vec![0; self.grid.count],
            ..Done::default()
        };
        let mut scratch = Samples::default();
        let mut buffers = Buffers {
            fresh: Samples::default(),
            charged: Scratch::new(self.ledger),
            sights: self.sights.lock().pop(),
            charged_sights: Scratch::new(self.ledger),
        };
        for (place, index) in indices.enumerate() {
            self.interrupt.check(STAGE_EVALUATION)?;
            scratch.clear();
            let samples = match source {
                Source::Lasts(lasts) => {
                    done.read += 1;
                    scratch.push(lasts[place].timestamp, lasts[place].value);
                    &scratch
                }
                Source::Decoded(samples) => &samples[place],
                Source::Batch { batch, keep } => {
                    batch.read(index, &mut scratch).map_err(QueryError::Storage)?;
                    done.read += (scratch.len() + scratch.histograms.len()) as u64;
                    if !self.start_timestamps {
                        scratch.starts.clear();
                    }
                    // A copy without stale markers may be made of it.
                    buffers.charged.grow(2 * scratch.memory_bytes())?;
                    if keep {
                        done.decoded.push(scratch.clone());
                    }
                    &scratch
                }
            };
            if samples.is_empty() && samples.histograms.is_empty() {
                continue;
            }
            let labels = self.set.labels(index);
            let mut column = Column::absent(self.grid.count);
            self.one(samples, &labels, &mut column, &mut buffers, &mut done)?;
            let held = column.samples();
            if held > 0 {
                let series = self.named(labels, column);
                self.ledger.charge(held, series_bytes(&series))?;
                done.series.push(series);
            }
        }
        self.sights.lock().extend(buffers.sights);
        Ok(done)
    }

    /// The values of one series, into `column`.
    fn one(
        &self,
        samples: &Samples,
        labels: &Labels,
        column: &mut Column,
        buffers: &mut Buffers<'_>,
        done: &mut Done,
    ) -> Result<(), QueryError> {
        match self.function {
            LeafFunction::Latest(instants) if samples.histograms.is_empty() => {
                latest(samples, &instants, column, &mut done.samples, |_, value| value);
            }
            LeafFunction::LatestTimestamp(instants) if samples.histograms.is_empty() => {
                latest(samples, &instants, column, &mut done.samples, |t, _| t as f64 / 1_000.0);
            }
            LeafFunction::Latest(instants) => {
                latest::values(samples, &instants, self.stats, column, &mut done.samples);
            }
            LeafFunction::LatestTimestamp(instants) => {
                let seconds = |t| t as f64 / 1_000.0;
                latest::times(samples, &instants, column, &mut done.samples, seconds);
            }
            LeafFunction::LatestStart(instants) => {
                let start = |t| samples.start_at(t) as f64 / 1_000.0;
                latest::times(samples, &instants, column, &mut done.samples, start);
            }
            LeafFunction::Smoothed(Instants { grid, end, lookback }) => {
                let natives = NativeSamples::of(samples, self.stats);
                let samples = without_stale(samples, &mut buffers.fresh);
                let windows = Windows { grid, end, range: 0, mode: RangeMode::Smoothed, lookback };
                range::smoothed(samples, &windows, column.values_mut());
                if !natives.times.is_empty() {
                    buffers.charged.grow(2 * samples.memory_bytes() + natives.bytes())?;
                    let mut context = self.context(done, labels);
                    range::smoothed_natives(samples, &natives, &windows, column, &mut context);
                    done.notes = context.notes;
                }
            }
            LeafFunction::Range(function, windows) => {
                let natives = NativeSamples::of(samples, self.stats);
                if !natives.times.is_empty() {
                    let prepared = slides(function, &natives, &windows).unwrap_or_default();
                    buffers.charged.grow(2 * samples.memory_bytes() + natives.bytes() + prepared)?;
                }
                let samples = without_stale(samples, &mut buffers.fresh);
                let sights = buffers.sights.get_or_insert_with(|| Sights::new(function, windows));
                self.range(function, &windows, (samples, &natives, sights), labels, column, done)?;
                buffers.charged_sights.grow(sights.memory_bytes())?;
            }
        }
        Ok(())
    }

    fn range(
        &self,
        function: RangeFunction,
        windows: &Windows,
        (samples, natives, sights): (&Samples, &NativeSamples, &mut Sights),
        labels: &Labels,
        column: &mut Column,
        done: &mut Done,
    ) -> Result<(), QueryError> {
        if samples.is_empty() && natives.times.is_empty() {
            return Ok(());
        }
        let sight = sights.of(&samples.timestamps);
        sight.count(&mut done.samples);
        let mut largest = sight.largest();
        if !natives.times.is_empty() {
            largest += natives.count_windows(windows, &mut done.samples);
        }
        self.ledger.probe(largest)?;
        let mut context = self.context(done, labels);
        let windowed = Windowed { function, params: &self.params, samples, sight, natives, windows };
        let result = windowed.eval(largest, self.interrupt, column, &mut context);
        done.notes = context.notes;
        result
    }

    /// What a kernel is handed about a series; its notes go back to `done`.
    fn context<'c>(&'c self, done: &mut Done, labels: &'c Labels) -> KernelContext<'c> {
        KernelContext {
            notes: std::mem::take(&mut done.notes),
            span: self.span,
            args: self.arg_spans,
            labels: Some(labels),
            delayed_name_removal: self.delayed_name_removal,
            type_and_unit_labels: self.type_and_unit_labels,
        }
    }

    fn named(&self, labels: Labels, column: Column) -> SeriesColumn {
        let mut series = SeriesColumn { labels, drop_name: false, column };
        if self.function.drops_name() {
            drop_name(&mut series, self.delayed_name_removal);
        }
        series
    }
}

/// How many samples of a series lie in `range`, about.
fn usual_samples(range: TimeRange) -> usize {
    let span = range.max.saturating_sub(range.min);
    usize::try_from(CHUNK_SAMPLES.max(span / USUAL_INTERVAL)).unwrap_or(usize::MAX)
}

/// Whether `function` looks at every sample of every window, so that one series can take long.
pub(super) const fn costs_by_window(function: RangeFunction) -> bool {
    use RangeFunction as F;
    matches!(
        function,
        F::Quantile
            | F::Mad
            | F::Stddev
            | F::Stdvar
            | F::Deriv
            | F::PredictLinear
            | F::DoubleExponentialSmoothing
    )
}

/// The time looked at by `step`.
pub(super) const fn end_of(grid: Grid, end: WindowEnd, step: usize) -> i64 {
    match end {
        WindowEnd::Offset(offset) => grid.time(step).saturating_sub(offset),
        WindowEnd::Fixed(t) => t,
    }
}

/// Gives each step `value` of the latest sample within the lookback, unless that is a stale marker.
fn latest(
    samples: &Samples,
    instants: &Instants,
    column: &mut Column,
    counts: &mut [u64],
    value: impl Fn(i64, f64) -> f64,
) {
    let mut seen = 0;
    for (step, count) in counts.iter_mut().enumerate() {
        let end = end_of(instants.grid, instants.end, step);
        seen += samples.timestamps[seen..].iter().take_while(|t| **t <= end).count();
        let Some(index) = seen.checked_sub(1) else { continue };
        let (t, v) = (samples.timestamps[index], samples.values[index]);
        if t > end.saturating_sub(instants.lookback) && !is_stale(v) {
            column.set(step, value(t, v));
            *count += 1;
        }
    }
}

/// What an extended range selector has of `samples`; for a copy of them there is `fresh`.
fn extended(
    samples: &Samples,
    fresh: &mut Samples,
    windows: &Windows,
) -> Result<Vec<(i64, f64)>, QueryError> {
    if samples.histograms.iter().any(|histogram| !histogram.is_stale()) {
        let word = if windows.mode == RangeMode::Anchored { "anchored" } else { "smoothed" };
        return Err(QueryError::Execution(format!("{word} modifier is not supported with histograms")));
    }
    Ok(range::extended_points(without_stale(samples, fresh), windows))
}

/// `samples`, or where there are stale markers among them a copy without those, in `copy`.
fn without_stale<'a>(samples: &'a Samples, copy: &'a mut Samples) -> &'a Samples {
    if !samples.values.iter().any(|v| is_stale(*v)) {
        return samples;
    }
    copy.clear();
    for (t, v) in samples.timestamps.iter().zip(&samples.values).filter(|(_, v)| !is_stale(**v)) {
        copy.push(*t, *v);
    }
    copy.starts.extend_from_slice(&samples.starts);
    copy
}
