//! From the syntax tree to operators on grids.
//!
//! Planning fixes everything that depends on the query's times: durations, `@`, offsets, the grid of each operator.
//! Parts that are the same at every step are evaluated once ([`Op::Repeat`]), constants are folded, equal selectors
//! share one selection and equal leaves one evaluation.
//!
//! Map: [`build`] the recursion over the tree · [`calls`] function calls · [`duration`] duration expressions · [`fold`]
//! constants and what is step-invariant · [`info`] which info series `info()` looks at.

mod build;
mod calls;
pub(crate) mod duration;
mod fold;
mod info;

use chronolith_model::{Labels, Matcher, TimeRange, Timestamp};
use chronolith_storage::SelectHints;
use chronolith_syntax::ast::{AggregateOp, BinaryOp, Grouping, Matching, Span, ValueType};

pub(crate) use self::build::plan;
use crate::{
    functions::{instant::InstantFunction, observations::Observations, range::RangeFunction},
    series::{Grid, WindowEnd, Windows},
};

/// What a plan depends on besides the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanOptions {
    /// The steps of the query.
    pub(crate) grid: Grid,
    /// End of the query as asked for; it need not be a step.
    pub(crate) end: i64,
    /// Milliseconds between steps as asked for, 0 for an instant query.
    pub(crate) step: i64,
    /// How far instant selectors look back, milliseconds.
    pub(crate) lookback: i64,
    /// The step of subqueries that name none, milliseconds.
    pub(crate) subquery_step: i64,
    /// Start timestamps count.
    pub(crate) start_timestamps: bool,
}

/// A query ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The operator whose value is the result.
    pub(crate) root: Node,
    /// What is read, each once.
    pub(crate) selections: Vec<Selection>,
    /// How many different leaves read each selection.
    pub(crate) selection_leaves: Vec<usize>,
    /// How many operators use the leaf of each id.
    pub(crate) leaf_uses: Vec<usize>,
    /// Everything that is read lies inside; `None` if nothing is.
    pub(crate) range: Option<TimeRange>,
    /// Start timestamps of samples count.
    pub(crate) start_timestamps: bool,
}

/// Series to select.
#[derive(Debug)]
pub(crate) struct Selection {
    /// What its series meet.
    pub(crate) matchers: Vec<Matcher>,
    /// The samples that are needed.
    pub(crate) range: TimeRange,
    /// For storage.
    pub(crate) hints: SelectHints,
    /// All series have the same metric name: removing it cannot make two of them equal.
    pub(crate) one_name: bool,
}

/// An operator on its grid.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it does.
    pub(crate) op: Op,
    /// The steps it has values for.
    pub(crate) grid: Grid,
    /// Where its expression stands.
    pub(crate) span: Span,
    /// The type of its value.
    pub(crate) kind: ValueType,
}

/// The operators.
#[derive(Debug)]
pub(crate) enum Op {
    /// A constant.
    Number(f64),
    /// A text.
    String(String),
    /// `time()`
    Time,
    /// Series straight from storage.
    Leaf(Leaf),
    /// The samples of a range selector as they are; only at the top of an instant query.
    RawMatrix(Leaf),
    /// A subquery as it is; only at the top of an instant query.
    RawSubquery(Box<Node>),
    /// A range function over a subquery.
    OverSubquery(Box<OverSubquery>),
    /// The value of an operator on a grid of one step, at every step.
    Repeat(Box<Node>),
    /// `-v`
    Negate(Box<Node>),
    /// Element by element, `function(vector, scalars...)`.
    Instant(InstantFunction, Box<Node>, Vec<Node>),
    /// A number about each histogram; floats go.
    OfHistograms(Observations, Box<Node>),
    /// A function of whole vectors.
    Call(CallFunction, Vec<Node>),
    /// 1 where the vector has no element; `unnamed` where the name is to go, with type and unit if these are among the
    /// labels: `absent_over_time` is a function that drops it, `absent` is not.
    Absent { labels: Labels, unnamed: bool, inner: Box<Node> },
    /// `info(vector, {labels})`
    Info(Box<Info>),
    /// An aggregation.
    Aggregate(Box<Aggregate>),
    /// Both sides scalar.
    BinaryScalars(BinaryOp, Box<Node>, Box<Node>),
    /// One side a vector.
    BinaryScalar(Box<BinaryScalar>),
    /// Both sides vectors.
    BinaryVectors(Box<BinaryVectors>),
}

/// Functions that the evaluator implements, by whole vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallFunction {
    Scalar,
    Vector,
    Timestamp,
    LabelReplace,
    LabelJoin,
    HistogramQuantile,
    HistogramQuantiles,
    HistogramFraction,
    Sort {
        descending: bool,
    },
    SortByLabel {
        descending: bool,
    },
    MaxOf,
    MinOf,
    /// `start_timestamp` of what has none: evaluates its argument, and has no element.
    NoStart,
}

/// A selector with the function over it.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// Leaves of one id are equal.
    pub(crate) id: usize,
    /// Index into [`Plan::selections`].
    pub(crate) selection: usize,
    /// What becomes of the samples.
    pub(crate) function: LeafFunction,
    /// Its scalar arguments.
    pub(crate) params: Vec<Node>,
    /// Where all arguments stand.
    pub(crate) arg_spans: Vec<Span>,
    /// Of histograms nothing but counts and sums is asked for.
    pub(crate) stats: bool,
}

/// What becomes of the samples of a selector.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LeafFunction {
    /// The latest sample within the lookback.
    Latest(Instants),
    /// When that sample was, in seconds.
    LatestTimestamp(Instants),
    /// Since when that sample counts, in seconds; 0 where that is not known.
    LatestStart(Instants),
    /// A value on the line between the neighbours within the lookback (`smoothed`).
    Smoothed(Instants),
    /// A function of windows.
    Range(RangeFunction, Windows),
}

impl LeafFunction {
    /// Whether its series lose their metric names.
    pub(crate) const fn drops_name(self) -> bool {
        match self {
            Self::Latest(_) | Self::Smoothed(_) => false,
            Self::LatestTimestamp(_) | Self::LatestStart(_) => true,
            Self::Range(function, _) => !function.keeps_name(),
        }
    }

    /// Whether series that become equal are merged step by step. Range functions refuse them.
    pub(crate) const fn by_step(self) -> bool {
        !matches!(self, Self::Range(..))
    }
}

/// At which times an instant selector looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instants {
    /// The steps of the evaluation.
    pub(crate) grid: Grid,
    /// The time looked at; the latest sample of `(end - lookback, end]` counts.
    pub(crate) end: WindowEnd,
    /// Milliseconds.
    pub(crate) lookback: i64,
}

impl Instants {
    /// The time looked at by `step`.
    pub(crate) const fn at(&self, step: usize) -> Timestamp {
        match self.end {
            WindowEnd::Offset(offset) => self.grid.time(step).saturating_sub(offset),
            WindowEnd::Fixed(t) => t,
        }
    }
}

/// A range function over a subquery.
#[derive(Debug)]
pub(crate) struct OverSubquery {
    /// The function.
    pub(crate) function: RangeFunction,
    /// Its scalar arguments.
    pub(crate) params: Vec<Node>,
    /// Where all arguments stand.
    pub(crate) arg_spans: Vec<Span>,
    /// The expression on the subquery's own grid.
    pub(crate) inner: Node,
    /// The windows over it.
    pub(crate) windows: Windows,
}

/// A vector whose series get labels of info series: those with the same identifying labels.
#[derive(Debug)]
pub(crate) struct Info {
    /// What is enriched.
    pub(crate) base: Node,
    /// What the names of info series meet.
    pub(crate) names: Vec<Matcher>,
    /// What their other labels meet; where there are any, only labels of these names are added.
    pub(crate) data: Vec<Matcher>,
    /// When info series are looked at: at the time of the first selector of `base`.
    pub(crate) instants: Instants,
    /// The samples that are needed for that.
    pub(crate) range: TimeRange,
    /// For storage.
    pub(crate) hints: SelectHints,
}

/// An aggregation.
#[derive(Debug)]
pub(crate) struct Aggregate {
    /// Which.
    pub(crate) op: AggregateOp,
    /// Its parameter; a `String` node for `count_values`.
    pub(crate) param: Option<Node>,
    /// By which labels.
    pub(crate) grouping: Grouping,
    /// What is aggregated.
    pub(crate) input: Node,
    /// Where it stands, parentheses included.
    pub(crate) input_span: Span,
}

/// A vector and a scalar.
#[derive(Debug)]
pub(crate) struct BinaryScalar {
    /// Operator.
    pub(crate) op: BinaryOp,
    /// `bool`
    pub(crate) return_bool: bool,
    /// The vector.
    pub(crate) vector: Node,
    /// The scalar.
    pub(crate) scalar: Node,
    /// The scalar stands on the left.
    pub(crate) scalar_left: bool,
}

/// Two vectors.
#[derive(Debug)]
pub(crate) struct BinaryVectors {
    /// Operator.
    pub(crate) op: BinaryOp,
    /// `bool`
    pub(crate) return_bool: bool,
    /// Left operand.
    pub(crate) lhs: Node,
    /// Right operand.
    pub(crate) rhs: Node,
    /// How they match.
    pub(crate) matching: Matching,
}
