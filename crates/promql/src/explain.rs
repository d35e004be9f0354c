//! What a query is made of, and what each part took.
//!
//! [`Explain`] is the tree of operators as they were planned: constants are folded, what is the same at every step stands
//! under an operator that repeats it, equal selectors share a selection. Costs are there when the query was run with
//! [`ExplainMode::Analyze`]; otherwise nothing is counted, and an operator pays one branch for that.
//!
//! Map: `costs` what is noted during evaluation · `tell` the tree out of a plan and its costs.

mod costs;
mod tell;

use std::time::Duration;

use chronolith_model::Timestamp;
use chronolith_storage::ReadStats;

pub(crate) use self::{costs::Costs, tell::tell};
use crate::api::{QueryError, QueryResult, QueryStats};

/// Operators that are told; of more, how many they are.
pub const NODES_MAX: usize = 1_000;
/// Levels of operators that are told. What is made of the tree nests no deeper than parsers of JSON like.
pub const DEPTH_MAX: usize = 48;
/// Selections that are told.
pub const SELECTIONS_MAX: usize = 200;
/// Bytes of the text of an operator; three dots stand for the rest.
pub const EXPR_BYTES_MAX: usize = 200;
/// Bytes of the matchers of a selection.
pub const MATCHERS_BYTES_MAX: usize = 500;

/// What is to be told about a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainMode {
    /// What would be done: series are selected, no sample is read.
    Plan,
    /// What was done, beside the result.
    Analyze,
}

/// What came of a query, and how.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The result, or the error, as without anybody who looks; no result where nothing but the plan was asked for.
    pub outcome: Result<Option<QueryResult>, Failed>,
    /// How it came to it, as far as it came; nothing where that was not asked for, the query could not even be planned, or
    /// got no place among the running ones.
    pub explain: Option<Box<Explain>>,
}

/// A query that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Why.
    pub error: QueryError,
    /// What it had cost until then; samples are not counted but for how many it held at once.
    pub stats: QueryStats,
}

/// A query taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Explain {
    /// Whether there are costs.
    pub mode: ExplainMode,
    /// The operator whose value is the result.
    pub root: ExplainNode,
    /// What is selected, each once; at most [`SELECTIONS_MAX`]. Those of `info()`, which are made during evaluation, come last.
    pub selections: Vec<ExplainSelection>,
}

/// An operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExplainNode {
    /// What it does: `aggregation`, `selector`, `range_function` ...
    pub operator: &'static str,
    /// Its part of the query, at most [`EXPR_BYTES_MAX`].
    pub expr: String,
    /// First step, milliseconds.
    pub start: Timestamp,
    /// Milliseconds between steps; 0 for one step.
    pub step: i64,
    /// Number of steps.
    pub steps: u64,
    /// Index of what it reads in [`Explain::selections`].
    pub selection: Option<usize>,
    /// How many operators use its value, which is made once: for the first of them.
    pub uses: usize,
    /// What it took; nothing where it was not evaluated, or not to its end.
    pub cost: Option<NodeCost>,
    /// What it takes its values from.
    pub children: Vec<Self>,
    /// How many operators below it are left out.
    pub omitted: usize,
}

/// What is selected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExplainSelection {
    /// `{name="value", ...}`, at most [`MATCHERS_BYTES_MAX`].
    pub matchers: String,
    /// Oldest sample that is needed, milliseconds.
    pub start: Timestamp,
    /// Newest one.
    pub end: Timestamp,
    /// Series that were found; nothing where it did not come to that.
    pub series: Option<u64>,
    /// Where they are, and what was read of them.
    pub storage: ReadStats,
}

/// What an operator took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCost {
    /// How often it was evaluated.
    pub evaluations: u64,
    /// Time of all evaluations, that of what is below it included.
    pub time: Duration,
    /// Of that, what was not below it.
    pub own_time: Duration,
    /// Series of its values.
    pub series: u64,
    /// Numbers and histograms of its values.
    pub values: u64,
    /// Bytes of its values, about.
    pub bytes: u64,
    /// Samples that were read from storage for it.
    pub samples: u64,
}
