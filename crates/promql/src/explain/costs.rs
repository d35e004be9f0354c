//! What is noted during evaluation, by operator.
//!
//! An operator is evaluated as a whole, its value handed on at once; or series pass through it in batches, on their way to
//! the one above. Time is measured around the former, what is below included, and within the latter.

use std::time::{Duration, Instant};

use chronolith_index::CompiledMatcher;
use chronolith_storage::{SelectRequest, SeriesSet};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{
    ExplainSelection, NodeCost, SELECTIONS_MAX,
    tell::{matchers_text, told},
};
use crate::{
    api::RangeSeries,
    eval::series_bytes,
    plan::{Node, Plan},
    series::SeriesColumn,
};

/// The costs of the operators of a plan.
#[derive(Debug)]
pub(crate) struct Costs {
    /// Of those that will be told, whose number is bounded.
    nodes: Mutex<HashMap<usize, Noted>>,
    /// Selections made by operators, and by which.
    selections: Mutex<Vec<(usize, ExplainSelection)>>,
}

/// The costs of one operator.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Noted {
    /// Of evaluations as a whole.
    pub(super) whole: NodeCost,
    /// Of batches; time is its own.
    pub(super) streamed: NodeCost,
}

impl Costs {
    /// Nothing is noted yet of the operators of `plan`.
    pub(crate) fn new(plan: &Plan) -> Self {
        let nodes = told(plan).into_iter().map(|node| (Self::key(node), Noted::default())).collect();
        Self { nodes: Mutex::new(nodes), selections: Mutex::default() }
    }

    /// Nodes of a plan do not move while it is evaluated.
    fn key(node: &Node) -> usize {
        std::ptr::from_ref(node).addr()
    }

    fn update(&self, node: &Node, update: impl FnOnce(&mut Noted)) {
        if let Some(noted) = self.nodes.lock().get_mut(&Self::key(node)) {
            update(noted);
        }
    }

    /// What is noted of an operator that was evaluated to its end.
    pub(super) fn of(&self, node: &Node) -> Option<Noted> {
        let noted = self.nodes.lock().get(&Self::key(node)).copied();
        noted.filter(|noted| noted.whole.evaluations + noted.streamed.evaluations > 0)
    }

    /// The place among the selections of operators of that which `node` made last.
    pub(super) fn selection_of(&self, node: &Node) -> Option<usize> {
        self.selections.lock().iter().rposition(|(key, _)| *key == Self::key(node))
    }

    pub(super) fn selections(&self) -> Vec<ExplainSelection> {
        self.selections.lock().iter().map(|(_, selection)| selection.clone()).collect()
    }

    /// An evaluation, begun at `since`, has given `vector`.
    pub(crate) fn vector(&self, node: &Node, since: Instant, vector: &[SeriesColumn]) {
        let time = since.elapsed();
        self.update(node, |noted| {
            noted.whole.evaluated(time);
            noted.whole.add_series(vector);
        });
    }

    /// An evaluation, begun at `since`, has given a scalar of `steps` numbers.
    pub(crate) fn scalar(&self, node: &Node, since: Instant, steps: usize) {
        let time = since.elapsed();
        self.update(node, |noted| {
            noted.whole.evaluated(time);
            noted.whole.values += steps as u64;
            noted.whole.bytes += (steps * size_of::<f64>()) as u64;
        });
    }

    /// An evaluation, begun at `since`, has given a range vector.
    pub(crate) fn matrix(&self, node: &Node, since: Instant, matrix: &[RangeSeries]) {
        let time = since.elapsed();
        self.update(node, |noted| {
            noted.whole.evaluated(time);
            noted.whole.series += matrix.len() as u64;
            for series in matrix {
                noted.whole.values += (series.points.len() + series.histograms.len()) as u64;
                noted.whole.bytes += crate::engine::range_series_bytes(series) as u64;
            }
        });
    }

    /// A batch of series has passed through the operator, which took `time`.
    pub(crate) fn batch(&self, node: &Node, time: Duration, batch: &[SeriesColumn]) {
        self.update(node, |noted| {
            noted.streamed.time += time;
            noted.streamed.add_series(batch);
        });
    }

    /// All batches of an evaluation have passed.
    pub(crate) fn streamed(&self, node: &Node) {
        self.update(node, |noted| noted.streamed.evaluations += 1);
    }

    /// `samples` were read from storage for the operator.
    pub(crate) fn read(&self, node: &Node, samples: u64) {
        // Whichever of the two is told has them.
        self.update(node, |noted| {
            noted.whole.samples += samples;
            noted.streamed.samples += samples;
        });
    }

    /// The operator has selected and read `set`.
    pub(crate) fn selected(&self, node: &Node, request: &SelectRequest, set: &dyn SeriesSet) {
        let mut selections = self.selections.lock();
        if selections.len() < SELECTIONS_MAX {
            let told = ExplainSelection {
                matchers: matchers_text(request.matchers.iter().map(CompiledMatcher::matcher)),
                start: request.range.min,
                end: request.range.max,
                series: Some(set.len() as u64),
                storage: set.read_stats(),
            };
            selections.push((Self::key(node), told));
        }
    }
}

impl NodeCost {
    fn evaluated(&mut self, time: Duration) {
        self.evaluations += 1;
        self.time += time;
    }

    fn add_series(&mut self, vector: &[SeriesColumn]) {
        for series in vector.iter().filter(|series| !series.column.is_empty()) {
            self.series += 1;
            self.values += series.column.points() as u64;
            self.bytes += series_bytes(series) as u64;
        }
    }
}
