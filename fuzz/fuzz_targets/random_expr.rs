//! Expressions made of bytes: trees as the parser makes them, with parentheses where the text needs them.

use chronolith_model::{METRIC_NAME, MatchOp, Matcher};
use chronolith_syntax::{
    ast::{
        Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, DurationExpr, DurationKind,
        DurationNode, Expr, ExprKind, Grouping, Matching, MatrixSelector, NumberLiteral, RangeMode, Span,
        SpanIgnored, Subquery, UnaryOp, ValueType, VectorSelector,
    },
    functions::{self, Function},
};
use libfuzzer_sys::arbitrary::Unstructured;

const ODD_NAMES: &[&str] = &[
    "up", "a:b", ":x", "sum", "by", "offset", "start", "step", "max_of", "fill", "and", "anchored", "_",
    "Rate",
];
const ODD_LABELS: &[&str] = &[
    "a",
    "job",
    "le",
    "by",
    "bool",
    "on",
    "offset",
    "sum",
    "inf",
    "NaN",
    "step",
    "a.b",
    "\u{e9}",
    "a:b",
    "1",
    "\u{e9} \"",
    METRIC_NAME,
];
const ODD_TEXTS: &[&str] = &[
    "",
    ".*",
    "x",
    "\u{e9}\n\t\"'`\\",
    "\u{1f600}",
    "\u{200b}\u{a0}",
    "e\u{301}",
    "\r\u{7}\u{0}\u{7f}",
    "$1",
    "a|b",
];
const ODD_NUMBERS: &[f64] = &[
    0.0,
    1.0,
    -0.0,
    0.5,
    -1.0,
    2.0,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::MAX,
    f64::MIN_POSITIVE,
    5e-324,
    1e100,
    1e21,
    9e15,
    1e300,
];

/// What expressions over data that is known speak of. They mean the same at a time whichever query asks: no `start()`,
/// `end()`, `range()` or `step()`, and nothing that sorts; their windows are short.
#[derive(Debug)]
pub(crate) struct Words {
    /// Metric names.
    pub(crate) metrics: &'static [&'static str],
    /// Label names.
    pub(crate) labels: &'static [&'static str],
    /// Label values, regular expressions, replacements.
    pub(crate) texts: &'static [&'static str],
}

/// A source of expressions.
#[derive(Debug)]
pub(crate) struct Expressions<'a, 'b> {
    bytes: &'a mut Unstructured<'b>,
    words: Option<&'static Words>,
}

impl<'a, 'b> Expressions<'a, 'b> {
    /// Any expression; over `words`, if there are any. When the bytes are used up, what follows is the simplest.
    pub(crate) fn new(bytes: &'a mut Unstructured<'b>, words: Option<&'static Words>) -> Self {
        Self { bytes, words }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.bytes.int_in_range(0..=bound.saturating_sub(1)).unwrap_or(0)
    }

    /// True once in `times`; not when the bytes are used up.
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 1
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn text(&mut self) -> String {
        let texts = self.words.map_or(ODD_TEXTS, |words| words.texts);
        if self.words.is_none() && self.one_in(4) {
            // What is no UTF-8 is written as U+FFFD here, and that not at all.
            return self.bytes.arbitrary::<&str>().unwrap_or("").replace('\u{fffd}', "");
        }
        self.pick(texts).to_owned()
    }

    fn label(&mut self) -> String {
        self.pick(self.words.map_or(ODD_LABELS, |words| words.labels)).to_owned()
    }

    fn labels(&mut self) -> Vec<String> {
        (0..self.below(4)).map(|_| self.label()).collect()
    }

    fn positive(&mut self) -> NumberLiteral {
        let plain = |value| NumberLiteral { value, duration: false };
        match self.below(4) {
            0 => plain((1 + self.below(2000)) as f64),
            1 => {
                // Beyond that a duration is out of range.
                let value = f64::from(self.bytes.arbitrary::<f32>().unwrap_or(1.0).abs());
                plain(if value.is_nan() { 0.25 } else { value.clamp(1e-9, 1e9) })
            }
            2 => duration_number(self.pick(&[
                1,
                1000,
                60_000,
                5_400_000,
                86_400_000,
                604_800_000,
                31_536_000_000,
            ])),
            _ => duration_number(self.milliseconds()),
        }
    }

    fn number(&mut self) -> NumberLiteral {
        match self.below(4) {
            0 => self.positive(),
            1 => {
                let positive = self.positive();
                NumberLiteral { value: -positive.value, ..positive }
            }
            2 => NumberLiteral { value: self.pick(ODD_NUMBERS), duration: false },
            _ => {
                let value: f64 = self.bytes.arbitrary().unwrap_or(0.0);
                let nan = f64::from_bits(0x7ff8_0000_0000_0001);
                NumberLiteral { value: if value.is_nan() { nan } else { value }, duration: false }
            }
        }
    }

    /// The length of a window, or a distance.
    fn milliseconds(&mut self) -> i64 {
        if self.words.is_some() {
            return match self.below(3) {
                0 => self.pick(&[60_000, 30_000, 15_000, 1, 14_999, 15_001, 120_000, 300_000]),
                1 => self.bytes.int_in_range(1..=600_000).unwrap_or(1),
                _ => self.bytes.int_in_range(1..=40).unwrap_or(1) * 5_000,
            };
        }
        self.bytes.int_in_range(1..=4_000_000_000_000).unwrap_or(1)
    }

    fn duration_node(&mut self, depth: usize) -> DurationNode {
        const SIMPLE: usize = 3;
        let pair =
            |of: &mut Self| (Box::new(of.duration_node(depth - 1)), Box::new(of.duration_node(depth - 1)));
        match self.below(if depth == 0 { SIMPLE } else { SIMPLE + 5 }) {
            1 if self.words.is_none() => node(DurationKind::Step),
            2 if self.words.is_none() => node(DurationKind::Range),
            0..SIMPLE => node(DurationKind::Number(self.positive())),
            3 => {
                let op = self.pick(&BinaryOp::ALL[..6]);
                let (left, right) = pair(self);
                duration_binary(op, *left, *right)
            }
            4 => {
                let (left, right) = pair(self);
                node(DurationKind::MinOf(left, right))
            }
            5 => {
                let (left, right) = pair(self);
                node(DurationKind::MaxOf(left, right))
            }
            6 => {
                let inner = self.duration_node(depth - 1);
                match inner.kind {
                    DurationKind::Number(number) => {
                        node(DurationKind::Number(NumberLiteral { value: -number.value, ..number }))
                    }
                    DurationKind::Binary(op, ..) if op != BinaryOp::Pow => {
                        node(DurationKind::Unary(UnaryOp::Minus, Box::new(duration_paren(inner))))
                    }
                    _ => node(DurationKind::Unary(UnaryOp::Minus, Box::new(inner))),
                }
            }
            _ => duration_paren(self.duration_node(depth - 1)),
        }
    }

    fn range(&mut self) -> DurationExpr {
        if self.one_in(5) {
            return computed(self.duration_node(2));
        }
        DurationExpr::Literal(self.milliseconds())
    }

    /// The range and step of a subquery.
    fn subquery_grid(&mut self) -> (DurationExpr, Option<DurationExpr>) {
        /// Most steps of a subquery over data.
        const STEPS: i64 = 12;
        if self.words.is_some() {
            let range = self.milliseconds();
            let step = self.milliseconds().max(range / STEPS);
            let step = (!self.one_in(4)).then_some(DurationExpr::Literal(step));
            return (DurationExpr::Literal(range), step);
        }
        let range = match self.range() {
            // Where a colon follows, the lexer insists on a number before it.
            DurationExpr::Computed(inner) if !has_number(&inner) => {
                let one = node(DurationKind::Number(duration_number(1000)));
                computed(duration_binary(BinaryOp::Mul, *inner, one))
            }
            range => range,
        };
        let step = self.one_in(2).then(|| self.range());
        (range, step)
    }

    fn offset(&mut self) -> Option<DurationExpr> {
        if !self.one_in(3) {
            return None;
        }
        Some(match self.below(4) {
            0 | 1 => {
                let ms = self.milliseconds();
                DurationExpr::Literal(if self.one_in(3) { -ms } else { ms })
            }
            2 => {
                let inner = self.duration_node(2);
                match inner.kind {
                    DurationKind::Unary(..) | DurationKind::Binary(..) => computed(duration_paren(inner)),
                    _ => computed(inner),
                }
            }
            _ => {
                let inner = self.duration_node(2);
                let inner = match inner.kind {
                    DurationKind::Number(_) | DurationKind::Unary(..) | DurationKind::Binary(..) => {
                        duration_paren(inner)
                    }
                    _ => inner,
                };
                computed(node(DurationKind::Unary(UnaryOp::Minus, Box::new(inner))))
            }
        })
    }

    fn at(&mut self) -> Option<At> {
        if !self.one_in(4) {
            return None;
        }
        if self.words.is_some() {
            return Some(At::Timestamp(self.bytes.int_in_range(-100_000..=800_000).unwrap_or(0)));
        }
        Some(match self.below(3) {
            0 => At::Start,
            1 => At::End,
            _ => At::Timestamp(self.bytes.int_in_range(-4_000_000_000_000..=4_000_000_000_000).unwrap_or(0)),
        })
    }

    fn selector(&mut self) -> VectorSelector {
        let metrics = self.words.map_or(ODD_NAMES, |words| words.metrics);
        let name = (!self.one_in(6)).then(|| self.pick(metrics));
        let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
        let mut matchers = Vec::new();
        for _ in 0..self.below(3) {
            let (label, op, value) = (self.label(), self.pick(&ops), self.text());
            matchers.push(Matcher::new(label, op, value));
        }
        match name {
            Some(_) => matchers.retain(|matcher| matcher.name != METRIC_NAME),
            None => matchers.push(Matcher::equal("b", "x")),
        }
        // The printer sorts them.
        matchers.sort_by_key(ToString::to_string);
        matchers.extend(name.map(|name| Matcher::equal(METRIC_NAME, name)));
        let modes = [
            RangeMode::Plain,
            RangeMode::Plain,
            RangeMode::Plain,
            RangeMode::Plain,
            RangeMode::Anchored,
            RangeMode::Smoothed,
        ];
        let (offset, at, mode) = (self.offset(), self.at(), self.pick(&modes));
        VectorSelector { name: name.map(str::to_owned), matchers, offset, at, mode }
    }

    /// A vector or scalar of at most `depth` operators in one another.
    fn operand(&mut self, depth: usize) -> Expr {
        let leaves = if depth == 0 { 6 } else { 2 };
        match self.below(if depth == 0 { leaves } else { 24 }) {
            1 => expr(ExprKind::Number(self.number())),
            kind if kind < leaves => self.plain_vector(),
            2 | 3 => paren(self.operand(depth - 1)),
            4 => {
                let op = self.pick(&[UnaryOp::Minus, UnaryOp::Plus]);
                unary(op, self.operand(depth - 1))
            }
            5..10 => self.aggregate(depth - 1),
            10..18 => self.call(depth - 1),
            _ => self.binary(depth - 1),
        }
    }

    /// An expression of at most `depth` operators in one another: of any type, over known data a vector or scalar.
    pub(crate) fn expression(&mut self, depth: usize) -> Expr {
        match self.below(10) {
            _ if self.words.is_some() => self.operand(depth),
            8 => self.matrix(depth),
            9 => expr(ExprKind::String(self.text())),
            _ => self.operand(depth),
        }
    }

    fn plain_vector(&mut self) -> Expr {
        expr(ExprKind::Vector(self.selector()))
    }

    fn matrix(&mut self, depth: usize) -> Expr {
        if depth > 0 && self.one_in(3) {
            let inner = vector(self.operand(depth - 1));
            let apart = matches!(inner.kind, ExprKind::Unary(..) | ExprKind::Binary(_));
            let inner = Box::new(if apart { paren(inner) } else { inner });
            let (range, step) = self.subquery_grid();
            let (offset, at) = (self.offset(), self.at());
            return expr(ExprKind::Subquery(Subquery { expr: inner, range, step, offset, at }));
        }
        let (selector, range) = (self.selector(), self.range());
        expr(ExprKind::Matrix(MatrixSelector { selector, selector_span: SpanIgnored::default(), range }))
    }

    fn aggregate(&mut self, depth: usize) -> Expr {
        let op = self.pick(&AggregateOp::ALL);
        let param = match op {
            AggregateOp::CountValues => Some(Box::new(expr(ExprKind::String(self.text())))),
            _ if op.has_param() => Some(Box::new(scalar(self.operand(depth.min(1))))),
            _ => None,
        };
        let grouping = match self.below(3) {
            0 => None,
            how => Some(Grouping { without: how == 2, labels: self.labels() }),
        };
        let grouping = grouping.filter(|grouping| grouping.without || !grouping.labels.is_empty());
        let inner = Box::new(vector(self.operand(depth)));
        expr(ExprKind::Aggregate(Aggregate { op, param, expr: inner, grouping }))
    }

    fn function(&mut self) -> &'static Function {
        let table = functions::all();
        let function = &table[self.below(table.len())];
        let differs =
            ["start", "end", "range", "step", "sort", "sort_desc", "sort_by_label", "sort_by_label_desc"];
        if self.words.is_some() && differs.contains(&function.name) {
            return functions::lookup("rate").expect("a function");
        }
        function
    }

    fn call(&mut self, depth: usize) -> Expr {
        let function = self.function();
        let count = (function.min_args() + self.below(4)).min(function.max_args().unwrap_or(6));
        let mut args = Vec::with_capacity(count);
        for index in 0..count {
            let is_info = function.name == "info" && index == 1;
            args.push(match function.arg_type(index).expect("a call may have that many") {
                ValueType::Vector if is_info => {
                    let mut selector = self.selector();
                    if selector.name.take().is_some() {
                        // The name was the last; what is left may be nothing.
                        selector.matchers.pop();
                    }
                    expr(ExprKind::Vector(selector))
                }
                ValueType::Scalar => scalar(self.operand(depth.min(1))),
                ValueType::Vector => vector(self.operand(depth)),
                ValueType::Matrix => self.matrix(depth),
                ValueType::String if self.words.is_some() && self.one_in(2) => {
                    expr(ExprKind::String(self.label()))
                }
                ValueType::String => expr(ExprKind::String(self.text())),
            });
        }
        expr(ExprKind::Call(Call { function, args }))
    }

    fn matching(&mut self) -> Matching {
        let card = self.pick(&[
            Cardinality::OneToOne,
            Cardinality::OneToOne,
            Cardinality::ManyToOne,
            Cardinality::OneToMany,
        ]);
        let (on, labels, mut include) = (self.one_in(2), self.labels(), self.labels());
        include.retain(|label| !labels.contains(label));
        if card == Cardinality::OneToOne {
            include.clear();
        }
        let mut fill = || self.one_in(6).then(|| self.pick(&[0.0, 1.5, f64::INFINITY, 1e-9, 1e22, -3.0]));
        let (fill_left, fill_right) = (fill(), fill());
        Matching { card, on, labels, include, fill_left, fill_right }
    }

    fn binary(&mut self, depth: usize) -> Expr {
        let op = self.pick(&BinaryOp::ALL);
        let (mut left, mut right) = (self.operand(depth), self.operand(depth));
        if op.is_set() {
            (left, right) = (vector(left), vector(right));
        }
        let types = (left.value_type(), right.value_type());
        let matching = (types == (ValueType::Vector, ValueType::Vector)).then(|| {
            let matching = self.matching();
            if !op.is_set() {
                return matching;
            }
            let Matching { on, labels, .. } = matching;
            Matching { card: Cardinality::ManyToMany, on, labels, ..Matching::default() }
        });
        let scalars = types == (ValueType::Scalar, ValueType::Scalar);
        let return_bool = op.is_comparison() && (scalars || self.one_in(3));
        let (lhs, rhs) = (side(op, left, true), side(op, right, false));
        expr(ExprKind::Binary(Box::new(Binary { op, lhs, rhs, return_bool, matching })))
    }
}

fn expr(kind: ExprKind) -> Expr {
    Expr { kind, span: Span::default() }
}

fn node(kind: DurationKind) -> DurationNode {
    DurationNode { kind, span: SpanIgnored::default() }
}

fn paren(inner: Expr) -> Expr {
    expr(ExprKind::Paren(Box::new(inner)))
}

/// Milliseconds as a literal has them.
fn duration_number(ms: i64) -> NumberLiteral {
    let value = (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9;
    NumberLiteral { value, duration: true }
}

fn computed(inner: DurationNode) -> DurationExpr {
    match inner.kind {
        DurationKind::Number(_) => DurationExpr::Computed(Box::new(duration_paren(inner))),
        _ => DurationExpr::Computed(Box::new(inner)),
    }
}

fn duration_paren(inner: DurationNode) -> DurationNode {
    match inner.kind {
        DurationKind::Paren(_) => inner,
        _ => node(DurationKind::Paren(Box::new(inner))),
    }
}

fn duration_binary(op: BinaryOp, left: DurationNode, right: DurationNode) -> DurationNode {
    let rank = precedence(op);
    let wrap = |side: DurationNode, is_left: bool| {
        let power = op == BinaryOp::Pow;
        let needs = match &side.kind {
            DurationKind::Binary(inner, ..) if is_left == power => precedence(*inner) <= rank,
            DurationKind::Binary(inner, ..) => precedence(*inner) < rank,
            DurationKind::Number(number) => is_left && power && number.value.is_sign_negative(),
            DurationKind::Unary(..) => is_left && power,
            _ => false,
        };
        Box::new(if needs { duration_paren(side) } else { side })
    };
    node(DurationKind::Binary(op, wrap(left, true), wrap(right, false)))
}

fn has_number(node: &DurationNode) -> bool {
    match &node.kind {
        DurationKind::Number(_) => true,
        DurationKind::Step | DurationKind::Range => false,
        DurationKind::MinOf(a, b) | DurationKind::MaxOf(a, b) | DurationKind::Binary(_, a, b) => {
            has_number(a) || has_number(b)
        }
        DurationKind::Unary(_, inner) | DurationKind::Paren(inner) => has_number(inner),
    }
}

fn precedence(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
        BinaryOp::Pow => 6,
        _ => 3,
    }
}

fn unary(op: UnaryOp, inner: Expr) -> Expr {
    let plain = match &inner.kind {
        ExprKind::Number(_) => false,
        ExprKind::Binary(binary) => binary.op == BinaryOp::Pow,
        _ => true,
    };
    expr(ExprKind::Unary(op, Box::new(if plain { inner } else { paren(inner) })))
}

/// An operand of `op`, in parentheses where the text needs them.
fn side(op: BinaryOp, side: Expr, is_left: bool) -> Expr {
    let power = op == BinaryOp::Pow;
    let needs = match &side.kind {
        ExprKind::Binary(inner) if is_left == power => precedence(inner.op) <= precedence(op),
        ExprKind::Binary(inner) => precedence(inner.op) < precedence(op),
        ExprKind::Unary(..) => is_left && power,
        ExprKind::Number(number) => is_left && power && number.value.is_sign_negative(),
        _ => false,
    };
    if needs { paren(side) } else { side }
}

fn call_of(name: &str, inner: Expr) -> Expr {
    let function = functions::lookup(name).expect("a function");
    expr(ExprKind::Call(Call { function, args: vec![inner] }))
}

/// The expression as a vector.
fn vector(inner: Expr) -> Expr {
    if inner.value_type() == ValueType::Vector { inner } else { call_of("vector", inner) }
}

/// The expression as a scalar.
fn scalar(inner: Expr) -> Expr {
    if inner.value_type() == ValueType::Scalar { inner } else { call_of("scalar", inner) }
}
