//! The syntax tree. Inert: it holds what the text says and nothing that evaluation adds.

use chronolith_model::{Matcher, Timestamp};

/// Bytes of the query text, `[start, end)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// An expression and where it stands. Equality ignores the place.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// The kinds of expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `1.5`, `0x1f`, `5m` (a duration is its seconds).
    Number(NumberLiteral),
    /// `"text"`; for `"\xff"` see [`crate::text`].
    String(String),
    /// `up{job="a"} offset 5m @ end()`
    Vector(VectorSelector),
    /// `up{job="a"}[5m]`; offset and `@` are those of the inner selector.
    Matrix(MatrixSelector),
    /// `expr[1h:1m]`
    Subquery(Subquery),
    /// `rate(...)`
    Call(Call),
    /// `sum by (job) (...)`
    Aggregate(Aggregate),
    /// `a + b`
    Binary(Box<Binary>),
    /// `-expr`, `+expr`
    Unary(UnaryOp, Box<Expr>),
    /// `(expr)`
    Paren(Box<Expr>),
}

/// A number, and whether it was written as a duration (the printer keeps that). Equality is by bits.
#[derive(Clone, Copy, Debug)]
pub struct NumberLiteral {
    /// The value; for a duration, in seconds.
    pub value: f64,
    /// Written as `5m` rather than `300`.
    pub duration: bool,
}

impl PartialEq for NumberLiteral {
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits() && self.duration == other.duration
    }
}

/// The types of PromQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One float.
    Scalar,
    /// One text.
    String,
    /// Series with one sample each.
    Vector,
    /// Series with a window of samples each.
    Matrix,
}

impl ValueType {
    /// As error messages for users name it: `scalar`, `string`, `instant vector`, `range vector`.
    #[must_use]
    pub const fn documented(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }

    /// As the API names it: `scalar`, `string`, `vector`, `matrix`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }
}

/// The time an `@` modifier pins a selector to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// `@ 1609746000`, in milliseconds.
    Timestamp(Timestamp),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

/// A duration: literal, or an expression over `step()` and `range()` that is evaluated when the query is planned.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationExpr {
    /// Milliseconds; negative only in offsets.
    Literal(i64),
    /// Anything else, evaluated in seconds.
    Computed(Box<DurationNode>),
}

/// A node of a duration expression; values are float seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationNode {
    /// What it is.
    pub kind: DurationKind,
    /// Where it stands; errors of its evaluation name the place.
    pub span: SpanIgnored,
}

/// A [`Span`] that does not take part in equality.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanIgnored(pub Span);

impl PartialEq for SpanIgnored {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The kinds of duration expression.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationKind {
    /// A number of seconds or a duration literal.
    Number(NumberLiteral),
    /// `step()`: the query's step.
    Step,
    /// `range()`: end minus start of the query.
    Range,
    /// `min_of(a, b)`
    MinOf(Box<DurationNode>, Box<DurationNode>),
    /// `max_of(a, b)`
    MaxOf(Box<DurationNode>, Box<DurationNode>),
    /// `a + b` and the like; only `+ - * / % ^`.
    Binary(BinaryOp, Box<DurationNode>, Box<DurationNode>),
    /// `-a`, `+a`
    Unary(UnaryOp, Box<DurationNode>),
    /// `(a)`
    Paren(Box<DurationNode>),
}

/// `anchored` and `smoothed` selectors (experimental).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RangeMode {
    /// Neither.
    #[default]
    Plain,
    /// `anchored`
    Anchored,
    /// `smoothed`
    Smoothed,
}

/// Selects series; at each step the latest sample within the lookback.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric name written outside the braces, if any; `matchers` holds it too, as `__name__ = name`.
    pub name: Option<String>,
    /// All matchers, in the order written, the name outside the braces last (as Prometheus keeps them).
    pub matchers: Vec<Matcher>,
    /// `offset`; `None` where none was written.
    pub offset: Option<DurationExpr>,
    /// `@`
    pub at: Option<At>,
    /// `anchored` or `smoothed`.
    pub mode: RangeMode,
}

/// Selects series; at each step the samples of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// What is selected.
    pub selector: VectorSelector,
    /// Where the inner selector stands.
    pub selector_span: SpanIgnored,
    /// The window's length, positive.
    pub range: DurationExpr,
}

/// Evaluates an instant vector expression on a grid of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Box<Expr>,
    /// The window's length, positive.
    pub range: DurationExpr,
    /// The grid's step; `None` = the default evaluation interval.
    pub step: Option<DurationExpr>,
    /// `offset`
    pub offset: Option<DurationExpr>,
    /// `@`
    pub at: Option<At>,
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function; see [`crate::functions`].
    pub function: &'static crate::functions::Function,
    /// Its arguments; optional ones may be missing.
    pub args: Vec<Expr>,
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which one.
    pub op: AggregateOp,
    /// The parameter of `topk`, `bottomk`, `limitk`, `limit_ratio`, `quantile`, `count_values`.
    pub param: Option<Box<Expr>>,
    /// What is aggregated.
    pub expr: Box<Expr>,
    /// `by` or `without`; `None` = neither written, which groups like `by ()`.
    pub grouping: Option<Grouping>,
}

/// The labels of an aggregation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// `without` rather than `by`.
    pub without: bool,
    /// Label names as written.
    pub labels: Vec<String>,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the operator of its name")]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
    Limitk,
    LimitRatio,
}

impl AggregateOp {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Sum,
        Self::Avg,
        Self::Count,
        Self::Min,
        Self::Max,
        Self::Group,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::Quantile,
        Self::CountValues,
        Self::Limitk,
        Self::LimitRatio,
    ];

    /// As PromQL writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::Quantile => "quantile",
            Self::CountValues => "count_values",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// Whether it takes a parameter before the vector.
    #[must_use]
    pub const fn has_param(self) -> bool {
        matches!(
            self,
            Self::Topk | Self::Bottomk | Self::Quantile | Self::CountValues | Self::Limitk | Self::LimitRatio
        )
    }
}

/// Signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the operator of its name")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eql,
    Neq,
    Lss,
    Gtr,
    Lte,
    Gte,
    /// `</`, keeps the observations at most (experimental, histograms)
    TrimUpper,
    /// `>/`, keeps the observations at least (experimental, histograms)
    TrimLower,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    /// All of them; arithmetic first.
    pub const ALL: [Self; 18] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::Mod,
        Self::Pow,
        Self::Atan2,
        Self::Eql,
        Self::Neq,
        Self::Lss,
        Self::Gtr,
        Self::Lte,
        Self::Gte,
        Self::TrimUpper,
        Self::TrimLower,
        Self::And,
        Self::Or,
        Self::Unless,
    ];

    /// As PromQL writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eql => "==",
            Self::Neq => "!=",
            Self::Lss => "<",
            Self::Gtr => ">",
            Self::Lte => "<=",
            Self::Gte => ">=",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }

    /// `== != < > <= >=`
    #[must_use]
    pub const fn is_comparison(self) -> bool {
        matches!(self, Self::Eql | Self::Neq | Self::Lss | Self::Gtr | Self::Lte | Self::Gte)
    }

    /// `and or unless`
    #[must_use]
    pub const fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

/// A binary expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// Operator.
    pub op: BinaryOp,
    /// Left operand.
    pub lhs: Expr,
    /// Right operand.
    pub rhs: Expr,
    /// `bool`
    pub return_bool: bool,
    /// How series of the two sides pair up; `None` unless both sides are instant vectors.
    pub matching: Option<Matching>,
}

/// Vector matching.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matching {
    /// Which side may have several series of one signature.
    pub card: Cardinality,
    /// `on` rather than `ignoring`.
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// The labels of `group_left` or `group_right`.
    pub include: Vec<String>,
    /// `fill` / `fill_left`: what a missing left sample counts as.
    pub fill_left: Option<f64>,
    /// `fill` / `fill_right`: what a missing right sample counts as.
    pub fill_right: Option<f64>,
}

/// How many series of one signature each side may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// One and one.
    #[default]
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}
