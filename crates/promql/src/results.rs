//! Results of range queries that are kept, so that a dashboard that asks again pays for the steps that are new.
//!
//! What is kept is exact: storage is asked since when what it shows may be another one
//! ([`Queryable::changed_since`](chronolith_storage::Queryable::changed_since)), and steps that see anything of that are
//! evaluated again. Kept are results without warnings and infos, of queries whose steps stand for themselves: without `@`,
//! and without durations that depend on the query. Series that become equal are an error for all steps together; so all
//! selectors name their metric, no labels are written, and no function is over an `or`.

use std::{collections::BTreeMap, sync::Arc};

use chronolith_model::{TenantId, Timestamp};
use chronolith_storage::{MemoryBudget, Reservation};
use chronolith_syntax::{
    ast::{BinaryOp, DurationExpr, Expr, ExprKind},
    walk,
};
use parking_lot::Mutex;

use crate::{
    api::{Query, RangeSeries, ResultCacheStats},
    engine::range_series_bytes,
    plan::{Plan, PlanOptions},
    series::Grid,
};

/// A result may take so large a part of the memory for all.
const SHARE: usize = 8;
/// An entry besides its result and its text, about.
const ENTRY_BYTES: usize = 256;

/// What must be equal for a result to be used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    tenant: TenantId,
    text: String,
    step: i64,
    /// The first step, by the step.
    phase: i64,
    /// Milliseconds.
    lookback: i64,
}

/// A query whose result may be kept.
#[derive(Debug)]
pub(crate) struct Candidate {
    key: Key,
    grid: Grid,
    /// No step sees samples that are more than so many milliseconds later; negative where none sees as far as itself.
    ahead: i64,
    /// Of storage, before anything was read.
    moment: u64,
}

#[derive(Debug)]
struct Kept {
    first: Timestamp,
    last: Timestamp,
    moment: u64,
    series: Arc<Vec<RangeSeries>>,
    bytes: usize,
    /// When it was used, as a number that grows.
    used: u64,
    /// Out of what all queries share.
    _memory: Reservation,
}

/// The first steps of a result.
#[derive(Debug)]
pub(crate) struct Reused {
    series: Arc<Vec<RangeSeries>>,
    first: Timestamp,
    last: Timestamp,
}

/// The results of an engine.
#[derive(Debug)]
pub(crate) struct Results {
    bytes_max: usize,
    memory: MemoryBudget,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: BTreeMap<Key, Kept>,
    bytes: usize,
    uses: u64,
    hits: u64,
}

impl Candidate {
    /// The query `expr` on `grid`, if its result may be kept; `moment` is storage's, of before anything is read.
    pub(crate) fn of(
        query: &Query,
        expr: &Expr,
        (plan, grid): (&Plan, Grid),
        options: &PlanOptions,
        moment: impl FnOnce() -> Option<u64>,
    ) -> Option<Self> {
        let step = query.step.filter(|_| query.reuse)?;
        if !plan.selections.iter().all(|selection| selection.one_name) || !stands_for_itself(expr) {
            return None;
        }
        let newest = plan.selections.iter().map(|selection| selection.range.max).max()?;
        let key = Key {
            tenant: query.tenant.clone(),
            text: query.text.clone(),
            step,
            phase: grid.start.rem_euclid(step),
            lookback: options.lookback,
        };
        // The steps of subqueries are theirs: the last step of the query may see less than others do.
        let ahead = newest.saturating_sub(grid.end()).saturating_add(subquery_steps(expr, options));
        Some(Self { key, grid, ahead, moment: moment()? })
    }
}

/// Whether the value at a step does not depend on the other steps of the query.
fn stands_for_itself(expr: &Expr) -> bool {
    let literal = |duration: &DurationExpr| matches!(duration, DurationExpr::Literal(_));
    let mut all = true;
    walk(expr, &mut |expr| {
        let (depends, durations) = match &expr.kind {
            ExprKind::Vector(selector) => (selector.at.is_some(), [selector.offset.as_ref(), None, None]),
            ExprKind::Matrix(matrix) => {
                let selector = &matrix.selector;
                (selector.at.is_some(), [selector.offset.as_ref(), Some(&matrix.range), None])
            }
            ExprKind::Subquery(subquery) => {
                let durations = [subquery.offset.as_ref(), Some(&subquery.range), subquery.step.as_ref()];
                (subquery.at.is_some(), durations)
            }
            ExprKind::Call(call) => {
                let labels = matches!(call.function.name, "info" | "label_replace" | "label_join");
                (labels || call.args.iter().any(has_or), [None; 3])
            }
            ExprKind::Unary(_, inner) => (has_or(inner), [None; 3]),
            _ => (false, [None; 3]),
        };
        all &= !depends && durations.into_iter().flatten().all(literal);
        all
    });
    all
}

fn has_or(expr: &Expr) -> bool {
    let mut found = false;
    walk(expr, &mut |expr| {
        found |= matches!(&expr.kind, ExprKind::Binary(binary) if binary.op == BinaryOp::Or);
        !found
    });
    found
}

/// The steps of all subqueries together, milliseconds.
fn subquery_steps(expr: &Expr, options: &PlanOptions) -> i64 {
    let mut sum: i64 = 0;
    walk(expr, &mut |expr| {
        if let ExprKind::Subquery(subquery) = &expr.kind {
            sum = sum.saturating_add(match subquery.step {
                Some(DurationExpr::Literal(step)) => step,
                _ => options.subquery_step,
            });
        }
        true
    });
    sum
}

impl Results {
    /// Results of at most `bytes_max` bytes together, taken out of `memory`; none with 0.
    pub(crate) fn new(bytes_max: usize, memory: MemoryBudget) -> Self {
        Self { bytes_max, memory, state: Mutex::default() }
    }

    /// What is there now, and how often it was used.
    pub(crate) fn stats(&self) -> ResultCacheStats {
        let state = self.state.lock();
        ResultCacheStats { bytes: state.bytes, results: state.kept.len(), hits: state.hits }
    }

    /// Whether anything is kept at all.
    pub(crate) const fn is_on(&self) -> bool {
        self.bytes_max > 0
    }

    /// The first steps of the result of `candidate`, if they are known; `changed_since` is storage's.
    pub(crate) fn find(
        &self,
        candidate: &Candidate,
        changed_since: impl FnOnce(u64) -> Timestamp,
    ) -> Option<Reused> {
        let mut state = self.state.lock();
        state.uses += 1;
        let uses = state.uses;
        let kept = state.kept.get_mut(&candidate.key)?;
        let grid = candidate.grid;
        if grid.start < kept.first || grid.start > kept.last {
            return None;
        }
        // The last step that sees nothing of what has changed.
        let unchanged = changed_since(kept.moment).saturating_sub(1).saturating_sub(candidate.ahead);
        let last = kept.last.min(grid.end()).min(unchanged);
        let steps = last.checked_sub(grid.start).filter(|span| *span >= 0)? / grid.step;
        kept.used = uses;
        let last = grid.start + steps * grid.step;
        let reused = Reused { series: Arc::clone(&kept.series), first: grid.start, last };
        state.hits += 1;
        Some(reused)
    }

    /// Keeps the whole result of `candidate`, for which `samples` were looked at: where they are as few as the result has,
    /// that is as quickly evaluated as copied.
    pub(crate) fn keep(&self, candidate: Candidate, series: &[RangeSeries], samples: u64) {
        let Candidate { key, grid, moment, .. } = candidate;
        let points: usize = series.iter().map(|series| series.points.len() + series.histograms.len()).sum();
        if samples <= points as u64 && !self.state.lock().kept.contains_key(&key) {
            return;
        }
        let bytes = series.iter().map(range_series_bytes).sum::<usize>() + ENTRY_BYTES + 2 * key.text.len();
        if bytes > self.bytes_max / SHARE {
            return;
        }
        // Queries come first: where there is no room, nothing is refused.
        let room = self.memory.max().saturating_sub(self.memory.used());
        let Some(_memory) = self.memory.reserve(bytes.min(room)).ok().filter(|_| bytes <= room) else {
            return;
        };
        let series = Arc::new(series.to_vec());
        let mut state = self.state.lock();
        state.uses += 1;
        let used = state.uses;
        let kept = Kept { first: grid.start, last: grid.end(), moment, series, bytes, used, _memory };
        let before = state.kept.insert(key, kept);
        state.bytes = state.bytes + bytes - before.map_or(0, |before| before.bytes);
        while state.bytes > self.bytes_max {
            let oldest = state.kept.iter().min_by_key(|(_, kept)| kept.used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            let gone = state.kept.remove(&key).map_or(0, |kept| kept.bytes);
            state.bytes -= gone;
        }
    }
}

impl Reused {
    /// The steps of `grid` that are not among these.
    pub(crate) fn rest(&self, grid: Grid) -> Grid {
        let known = usize::try_from((self.last - grid.start) / grid.step + 1).unwrap_or(grid.count);
        let count = grid.count.saturating_sub(known);
        Grid { start: grid.time(known), count, ..grid }
    }

    /// Bytes of a copy of these steps, at most.
    pub(crate) fn bytes(&self) -> usize {
        self.series.iter().map(range_series_bytes).sum()
    }

    /// These steps, and behind them those of `rest`; both sorted by labels.
    pub(crate) fn followed_by(&self, rest: Vec<RangeSeries>) -> Vec<RangeSeries> {
        let mut all = Vec::with_capacity(self.series.len().max(rest.len()));
        let mut rest = rest.into_iter().peekable();
        for kept in self.series.iter() {
            while let Some(new) = rest.next_if(|new| new.labels < kept.labels) {
                all.push(new);
            }
            let mut series = self.part(kept);
            if let Some(new) = rest.next_if(|new| new.labels == kept.labels) {
                series.points.extend(new.points);
                series.histograms.extend(new.histograms);
            }
            if !series.is_empty() {
                all.push(series);
            }
        }
        all.extend(rest);
        all
    }

    /// What of a kept series is among these steps.
    fn part(&self, kept: &RangeSeries) -> RangeSeries {
        fn within<T: Clone>(
            all: &[(Timestamp, T)],
            first: Timestamp,
            last: Timestamp,
        ) -> Vec<(Timestamp, T)> {
            let start = all.partition_point(|(t, _)| *t < first);
            let end = all.partition_point(|(t, _)| *t <= last);
            all[start..end.max(start)].to_vec()
        }
        RangeSeries {
            labels: kept.labels.clone(),
            points: within(&kept.points, self.first, self.last),
            histograms: within(&kept.histograms, self.first, self.last),
        }
    }
}
