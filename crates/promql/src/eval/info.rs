//! `info()`: series get labels of info series that describe the same thing, say of the `target_info` of their target.
//!
//! Info series are those whose name and labels meet what the call asks for; they describe a series if they have the same
//! [identifying labels](IDENTIFYING). Which of them there are is known when the series are, so this is the one operator
//! that selects during evaluation: with matchers narrowed to the identities that occur.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use chronolith_index::CompiledMatcher;
use chronolith_model::{Labels, METRIC_NAME, MatchOp, Matcher, Timestamp, is_stale};
use chronolith_storage::{Samples, SelectRequest, SeriesSet};
use hashbrown::HashMap;
use rayon::prelude::*;

use super::{Executor, Scope, fetch::Scratch, names::unify, series_bytes, worth_threads};
use crate::{
    api::QueryError,
    engine::selected_bytes,
    limits::{Ledger, STAGE_EVALUATION},
    plan::{Info, Instants, Node},
    selectors::Compiler,
    series::{Column, SeriesColumn},
};

/// Labels that tell what a series is about.
const IDENTIFYING: [&str; 2] = ["instance", "job"];
/// Info series that are read at once.
const BATCH_SERIES: usize = 256;
/// Longest list of values that a selection is narrowed to, in bytes. With more of them storage selects more series than
/// are needed.
const NARROWED_BYTES_MAX: usize = 64 << 10;
/// No info series.
const NONE: u32 = u32::MAX;

/// The values of the identifying labels, empty for those that are missing.
type Identity = [String; 2];

fn identity(labels: &Labels) -> Identity {
    IDENTIFYING.map(|name| labels.get(name).unwrap_or_default().to_owned())
}

/// The values that each identifying label has among the series to be enriched.
type Values = [BTreeSet<String>; 2];

/// Info series of one name and one identity: at each step at most one of them counts, that with the newest sample.
enum Group {
    /// The usual one: a single series, and the steps at which it is there.
    Alone { series: u32, steps: Vec<Range<u32>> },
    /// Others follow one another, or contradict each other.
    Several {
        /// Which of them by step, or [`NONE`].
        series: Vec<u32>,
        /// When its sample was.
        times: Vec<Timestamp>,
    },
}

impl Group {
    /// `series` has a sample of `time` at `step`; that of the series before it, if it is of the same time. Steps of one
    /// series ascend.
    fn add(&mut self, series: u32, step: usize, time: Timestamp) -> Option<u32> {
        match self {
            Self::Alone { steps, .. } => {
                let step = step as u32;
                match steps.last_mut() {
                    Some(last) if last.end == step => last.end += 1,
                    _ => steps.push(step..step + 1),
                }
                None
            }
            Self::Several { series: newest, times } => {
                let (newest, newest_time) = (&mut newest[step], &mut times[step]);
                if *newest == NONE || *newest_time < time {
                    (*newest, *newest_time) = (series, time);
                    return None;
                }
                (*newest_time == time).then_some(*newest)
            }
        }
    }

    /// What it has grown by.
    fn grown_bytes(&self) -> usize {
        match self {
            Self::Alone { steps, .. } => steps.capacity() * size_of::<Range<u32>>(),
            Self::Several { .. } => 0,
        }
    }
}

/// Reads a group step by step.
struct Cursor<'a> {
    group: &'a Group,
    /// The stretch of steps that is not over yet.
    stretch: usize,
}

impl Cursor<'_> {
    /// The info series at `step`, or [`NONE`]. Steps ascend.
    fn at(&mut self, step: usize) -> u32 {
        match self.group {
            Group::Several { series, .. } => series[step],
            Group::Alone { series, steps } => {
                while steps.get(self.stretch).is_some_and(|stretch| stretch.end as usize <= step) {
                    self.stretch += 1;
                }
                match steps.get(self.stretch) {
                    Some(stretch) if stretch.start as usize <= step => *series,
                    _ => NONE,
                }
            }
        }
    }
}

/// The info series of a query.
#[derive(Default)]
struct Infos {
    groups: Vec<Group>,
    /// Index of a group by name and identity. Sorted by name, the order in which labels are added.
    places: BTreeMap<String, HashMap<Identity, usize>>,
    /// By info series: its labels and its group.
    series: Vec<(Labels, usize)>,
}

impl Infos {
    /// The series of `set` that are about something with these `values`; nothing is known yet of their samples. Also the
    /// index in `set` of each.
    fn among(
        set: &dyn SeriesSet,
        values: &Values,
        steps: usize,
        ledger: &Ledger,
    ) -> Result<(Self, Vec<usize>), QueryError> {
        let mut infos = Self::default();
        let mut indices = Vec::new();
        for index in 0..set.len() {
            let labels = set.labels(index);
            if occurs(&labels, values) {
                infos.push(labels, steps, ledger)?;
                indices.push(index);
            }
        }
        Ok((infos, indices))
    }

    fn push(&mut self, labels: Labels, steps: usize, ledger: &Ledger) -> Result<(), QueryError> {
        let name = labels.metric_name().unwrap_or_default();
        if !self.places.contains_key(name) {
            self.places.insert(name.to_owned(), HashMap::new());
        }
        let fresh = self.groups.len();
        let places = self.places.entry(name.to_owned()).or_default();
        let place = *places.entry(identity(&labels)).or_insert(fresh);
        ledger.charge(0, size_of::<(Labels, usize)>())?;
        if place == fresh {
            ledger.charge(0, size_of::<(Identity, Group)>())?;
            let series = u32::try_from(self.series.len()).unwrap_or(NONE);
            self.groups.push(Group::Alone { series, steps: Vec::new() });
        } else if let alone @ Group::Alone { .. } = &mut self.groups[place] {
            ledger.charge(0, steps.saturating_mul(size_of::<u32>() + size_of::<Timestamp>()))?;
            *alone = Group::Several { series: vec![NONE; steps], times: vec![0; steps] };
        }
        self.series.push((labels, place));
        Ok(())
    }

    /// The groups of info series that describe the same as a series with `labels`.
    fn of(&self, labels: &Labels) -> Vec<Cursor<'_>> {
        let identity = identity(labels);
        let of_name = |places: &HashMap<Identity, usize>| {
            places.get(&identity).map(|at| Cursor { group: &self.groups[*at], stretch: 0 })
        };
        self.places.values().filter_map(of_name).collect()
    }
}

/// Two info series that describe the same at the same step, equally new.
struct Conflict {
    step: usize,
    existing: u32,
    new: u32,
    time: Timestamp,
}

/// What is added to series, and to which.
struct Enrichment<'a> {
    infos: Infos,
    /// Names of the labels that may be added; empty = all.
    added: BTreeSet<&'a str>,
    /// Series without an info series stay.
    optional: bool,
}

impl Executor<'_> {
    /// The series of the first argument with the labels of their info series.
    pub(super) async fn info(
        &mut self,
        info: &Info,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let base = self.vector(&info.base, scope).await?;
        let ledger = self.ledger;
        let mut compiler = Compiler::new(ledger);
        let names = compiler.compile(&info.names)?;
        let data = compiler.compile(&info.data)?;
        // Info series themselves stay as they are.
        let is_info: Vec<bool> = base
            .iter()
            .map(|series| {
                let name = series.labels.metric_name().unwrap_or_default();
                names.iter().all(|matcher| matcher.matches(name))
            })
            .collect();
        let enriched = base.iter().zip(&is_info).filter(|(_, is_info)| !**is_info);
        let values = identities(enriched.map(|(series, _)| &series.labels), ledger)?;
        let mut seen = vec![false; info.instants.grid.count];
        for series in &base {
            for (step, seen) in seen.iter_mut().enumerate().filter(|(_, seen)| !**seen) {
                *seen = has(&series.column, step);
            }
        }
        let mut matchers = compiler.compile(&narrowed(&values))?;
        matchers.extend(data.iter().cloned().chain(names));
        let infos = if values.iter().all(BTreeSet::is_empty) {
            Infos::default()
        } else {
            let request = SelectRequest { matchers, range: info.range, hints: info.hints.clone() };
            let set = self.interruptible(self.querier.select(&request)).await?;
            ledger.charge_series(set.len())?;
            ledger.charge(0, selected_bytes(&*set))?;
            let (infos, read) = self.infos(&info.instants, &*set, &values, &seen, scope).await?;
            if let Some(costs) = self.costs {
                costs.read(node, read);
                costs.selected(node, &request, &*set);
            }
            infos
        };
        let added = data.iter().map(CompiledMatcher::name).collect();
        let optional = data.iter().all(CompiledMatcher::matches_empty);
        self.pause.before(base.len().saturating_mul(seen.len())).await;
        self.enriched(&Enrichment { infos, added, optional }, base, &is_info)
    }

    /// Reads the info series of `set`, and says how many samples they had. `seen` are the steps at which there is anything
    /// to enrich.
    async fn infos(
        &self,
        instants: &Instants,
        set: &dyn SeriesSet,
        values: &Values,
        seen: &[bool],
        scope: &mut Scope,
    ) -> Result<(Infos, u64), QueryError> {
        let (mut infos, indices) = Infos::among(set, values, seen.len(), self.ledger)?;
        let mut conflict: Option<Conflict> = None;
        let mut samples = Samples::default();
        let mut charged = Scratch::new(self.ledger);
        let (mut next, mut read) = (0, 0);
        for start in (0..set.len()).step_by(BATCH_SERIES) {
            let batch_indices = start..(start + BATCH_SERIES).min(set.len());
            self.pause.before(batch_indices.len().saturating_mul(seen.len())).await;
            let (batch, copies) = self.fetched(set, &batch_indices).await?;
            while let Some(index) = indices.get(next).filter(|index| batch_indices.contains(*index)) {
                self.interrupt.check(STAGE_EVALUATION)?;
                samples.clear();
                batch.read(*index, &mut samples).map_err(QueryError::Storage)?;
                read += (samples.len() + samples.histograms.len()) as u64;
                charged.grow(samples.memory_bytes())?;
                let here = u32::try_from(next).unwrap_or(NONE);
                let (labels, place) = &infos.series[next];
                let group = &mut infos.groups[*place];
                let mut count = 0;
                latest(&samples, instants, |step, time| {
                    let time = time.ok_or_else(|| not_float(labels))?;
                    count += 1;
                    scope.samples[step] += 1;
                    let other = group.add(here, step, time).filter(|_| seen[step]);
                    if let Some(existing) = other
                        && conflict.as_ref().is_none_or(|earlier| step < earlier.step)
                    {
                        conflict = Some(Conflict { step, existing, new: here, time });
                    }
                    Ok(())
                })?;
                self.ledger.charge(count, group.grown_bytes())?;
                next += 1;
            }
            drop(batch);
            self.ledger.give_back(copies);
        }
        match conflict {
            Some(conflict) => Err(conflict.error(&infos)),
            None => Ok((infos, read)),
        }
    }

    fn enriched(
        &self,
        enrichment: &Enrichment<'_>,
        base: Vec<SeriesColumn>,
        is_info: &[bool],
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let steps = base.first().map_or(0, |series| series.column.len());
        let work = |(series, is_info): (SeriesColumn, &bool)| {
            self.interrupt.check(STAGE_EVALUATION)?;
            if *is_info { Ok(vec![series]) } else { enrichment.apply(series, self.ledger) }
        };
        let done: Vec<Result<Vec<SeriesColumn>, QueryError>> = if worth_threads(base.len(), steps) {
            self.pool.install(|| base.into_par_iter().zip(is_info).map(work).collect())
        } else {
            base.into_iter().zip(is_info).map(work).collect()
        };
        let mut vector = Vec::with_capacity(done.len());
        for series in done {
            vector.extend(series?);
        }
        unify(vector)
    }
}

impl Enrichment<'_> {
    /// `series` with the labels of its info series, one series for each combination of them it has over time.
    fn apply(&self, series: SeriesColumn, ledger: &Ledger) -> Result<Vec<SeriesColumn>, QueryError> {
        let mut groups = self.infos.of(&series.labels);
        let mut done: Vec<SeriesColumn> = Vec::new();
        // Place in `done` by info series; `None` for what is dropped.
        let mut places: HashMap<Vec<u32>, Option<usize>> = HashMap::new();
        // Those of the step before.
        let (mut members, mut now): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut place = None;
        for step in (0..series.column.len()).filter(|step| has(&series.column, *step)) {
            now.clear();
            now.extend(groups.iter_mut().map(|group| group.at(step)));
            if places.is_empty() || now != members {
                std::mem::swap(&mut now, &mut members);
                place = match places.get(&members) {
                    Some(place) => *place,
                    None => {
                        let labels = self.labels(&series.labels, &members)?;
                        let fresh = labels.is_some().then_some(done.len());
                        if let Some(labels) = labels {
                            let column = Column::absent(series.column.len());
                            let opened = SeriesColumn { labels, drop_name: series.drop_name, column };
                            ledger.charge(0, series_bytes(&opened))?;
                            done.push(opened);
                        }
                        places.insert(members.clone(), fresh);
                        fresh
                    }
                };
            }
            if let Some(place) = place {
                copy(&series.column, step, &mut done[place].column);
            }
        }
        Ok(done)
    }

    /// `base` with the labels of the info series `members`, one of each info metric or [`NONE`]; `None` if there is not
    /// one of them and there must be.
    fn labels(&self, base: &Labels, members: &[u32]) -> Result<Option<Labels>, QueryError> {
        if members.iter().all(|member| *member == NONE) {
            return Ok(self.optional.then(|| base.clone()));
        }
        let mut added: BTreeMap<String, String> = BTreeMap::new();
        for member in members.iter().filter(|member| **member != NONE) {
            for (name, value) in &self.infos.series[*member as usize].0 {
                let asked_for = self.added.is_empty() || self.added.contains(name);
                if name == METRIC_NAME || !asked_for || base.get(name).is_some() {
                    continue;
                }
                match added.get(name) {
                    Some(known) if known == value => {}
                    Some(_) => return Err(QueryError::Execution(format!("conflicting label: {name}"))),
                    None => {
                        added.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
        }
        let mut builder = base.to_builder();
        for (name, value) in added {
            builder.set(name, value);
        }
        Ok(Some(builder.build()))
    }
}

/// The values of the identifying labels of `series`.
fn identities<'a>(series: impl Iterator<Item = &'a Labels>, ledger: &Ledger) -> Result<Values, QueryError> {
    let mut identities = Values::default();
    for labels in series {
        for (values, name) in identities.iter_mut().zip(IDENTIFYING) {
            if let Some(value) =
                labels.get(name).filter(|value| !value.is_empty() && !values.contains(*value))
            {
                ledger.charge(0, size_of::<String>() + value.len())?;
                values.insert(value.to_owned());
            }
        }
    }
    Ok(identities)
}

/// Whether `column` has a value at `step`.
fn has(column: &Column, step: usize) -> bool {
    column.has(step)
}

/// Gives `to` the value that `from` has at `step`.
fn copy(from: &Column, step: usize, to: &mut Column) {
    if let Some(value) = from.get(step) {
        to.set(step, value);
    } else if let Some(native) = from.histogram(step) {
        to.set_histogram(step, std::sync::Arc::clone(native));
    }
}

impl Conflict {
    fn error(&self, infos: &Infos) -> QueryError {
        let Self { existing, new, time, .. } = self;
        let labels = |series: &u32| &infos.series[*series as usize].0;
        let (existing, new) = (labels(existing), labels(new));
        QueryError::Execution(format!(
            "found duplicate series for info metric: existing {existing} @ {time}, new {new} @ {time}"
        ))
    }
}

fn not_float(labels: &Labels) -> QueryError {
    QueryError::Execution(format!("this should be an info metric, with float samples: {labels}"))
}

/// Whether each identifying label that some series to be enriched has, has one of their values.
fn occurs(labels: &Labels, values: &Values) -> bool {
    IDENTIFYING.iter().zip(values).all(|(name, values)| {
        values.is_empty() || labels.get(name).is_some_and(|value| values.contains(value))
    })
}

/// The same as matchers, where that is not too long.
fn narrowed(values: &Values) -> Vec<Matcher> {
    let mut matchers = Vec::new();
    for (name, values) in IDENTIFYING.iter().zip(values).filter(|(_, values)| !values.is_empty()) {
        let bytes: usize = values.iter().map(|value| 2 * value.len() + 1).sum();
        if bytes > NARROWED_BYTES_MAX {
            matchers.push(Matcher::new(*name, MatchOp::NotEqual, ""));
            continue;
        }
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        matchers.push(Matcher::new(*name, MatchOp::Regex, values.join("|")));
    }
    matchers
}

/// A regular expression that matches `value` alone.
fn quoted(value: &str) -> String {
    let mut pattern = String::with_capacity(value.len());
    for c in value.chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// Calls `f` for each step at which the newest sample within the lookback is no stale marker, with its time; `None` for
/// a histogram.
fn latest(
    samples: &Samples,
    instants: &Instants,
    mut f: impl FnMut(usize, Option<Timestamp>) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let (floats, histograms) = (&samples.timestamps, &samples.histogram_timestamps);
    let (mut seen, mut histograms_seen) = (0, 0);
    for step in 0..instants.grid.count {
        let at = instants.at(step);
        let after = at.saturating_sub(instants.lookback);
        seen += floats[seen..].iter().take_while(|t| **t <= at).count();
        histograms_seen += histograms[histograms_seen..].iter().take_while(|t| **t <= at).count();
        let float = seen.checked_sub(1).map(|last| (floats[last], is_stale(samples.values[last])));
        let histogram = histograms_seen
            .checked_sub(1)
            .map(|last| (histograms[last], samples.histograms[last].is_stale()));
        let (t, stale, time) = match (float, histogram) {
            (Some((t, stale)), other) if other.is_none_or(|(of_histogram, _)| of_histogram < t) => {
                (t, stale, Some(t))
            }
            (_, Some((t, stale))) => (t, stale, None),
            _ => continue,
        };
        if t > after && !stale {
            f(step, time)?;
        }
    }
    Ok(())
}
