//! What is printed parses to the tree it was printed from.

use chronolith_model::{METRIC_NAME, MatchOp, Matcher};
use chronolith_syntax::{
    ParseOptions,
    ast::{
        Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, DurationExpr, DurationKind,
        DurationNode, Expr, ExprKind, Grouping, Matching, MatrixSelector, NumberLiteral, RangeMode, Span,
        SpanIgnored, Subquery, UnaryOp, ValueType, VectorSelector,
    },
    functions::{self, Function},
    parse, pretty,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

type Exprs = BoxedStrategy<Expr>;

fn expr(kind: ExprKind) -> Expr {
    Expr { kind, span: Span::default() }
}

fn node(kind: DurationKind) -> DurationNode {
    DurationNode { kind, span: SpanIgnored::default() }
}

fn paren(inner: Expr) -> Expr {
    expr(ExprKind::Paren(Box::new(inner)))
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

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,4}",
        "[ -~]{0,6}",
        select(vec![
            "\u{e9}\n\t\"'`\\",
            "\u{1f600}",
            "\u{200b}\u{a0}",
            "e\u{301}",
            "\r\u{7}\u{0}\u{7f}",
            ".*"
        ])
        .prop_map(str::to_owned),
        any::<String>().prop_map(|text| text.replace('\u{fffd}', "")),
    ]
}

fn labels() -> impl Strategy<Value = Vec<String>> {
    let words = vec![
        "a", "job", "le", "by", "bool", "on", "offset", "sum", "inf", "NaN", "step", "a.b", "\u{e9}", "a:b",
        "1",
    ];
    vec(select(words).prop_map(str::to_owned), 0..3)
}

/// Milliseconds as a literal has them.
fn duration_number(ms: i64) -> NumberLiteral {
    let value = (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9;
    NumberLiteral { value, duration: true }
}

/// A number above zero.
fn positive() -> impl Strategy<Value = NumberLiteral> {
    let plain = |value| NumberLiteral { value, duration: false };
    prop_oneof![
        (1..2000_i64).prop_map(move |value| plain(value as f64)),
        (1e-9..1e9).prop_map(plain),
        (1..4_000_000_000_000_i64).prop_map(duration_number),
        select(vec![1, 1000, 60_000, 5_400_000, 86_400_000, 604_800_000, 31_536_000_000])
            .prop_map(duration_number),
    ]
}

fn number() -> impl Strategy<Value = NumberLiteral> {
    let plain = |value| NumberLiteral { value, duration: false };
    let nan = f64::from_bits(0x7ff8_0000_0000_0001);
    let special =
        vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, nan, f64::MAX, f64::MIN_POSITIVE, 1e21, 9e15];
    let negative = |number: NumberLiteral| NumberLiteral { value: -number.value, ..number };
    prop_oneof![
        positive(),
        positive().prop_map(negative),
        select(special).prop_map(plain),
        any::<f64>().prop_filter("one not-a-number is in the list", |value| !value.is_nan()).prop_map(plain),
    ]
}

fn duration_node() -> BoxedStrategy<DurationNode> {
    let leaf = prop_oneof![
        positive().prop_map(|number| node(DurationKind::Number(number))),
        Just(node(DurationKind::Step)),
        Just(node(DurationKind::Range)),
    ];
    let grown = leaf.prop_recursive(3, 12, 2, |inner| {
        let ops =
            vec![BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Mod, BinaryOp::Pow];
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            (select(ops), pair.clone()).prop_map(|(op, (left, right))| duration_binary(op, left, right)),
            pair.clone().prop_map(|(left, right)| node(DurationKind::MinOf(Box::new(left), Box::new(right)))),
            pair.prop_map(|(left, right)| node(DurationKind::MaxOf(Box::new(left), Box::new(right)))),
            inner.clone().prop_map(|inner| match inner.kind {
                DurationKind::Number(number) => {
                    node(DurationKind::Number(NumberLiteral { value: -number.value, ..number }))
                }
                DurationKind::Binary(op, ..) if op != BinaryOp::Pow => {
                    node(DurationKind::Unary(UnaryOp::Minus, Box::new(duration_paren(inner))))
                }
                _ => node(DurationKind::Unary(UnaryOp::Minus, Box::new(inner))),
            }),
            inner.prop_map(duration_paren),
        ]
    });
    grown.boxed()
}

fn duration_paren(inner: DurationNode) -> DurationNode {
    match inner.kind {
        DurationKind::Paren(_) => inner,
        _ => node(DurationKind::Paren(Box::new(inner))),
    }
}

/// A binary duration, with parentheses where the text needs them.
fn duration_binary(op: BinaryOp, left: DurationNode, right: DurationNode) -> DurationNode {
    let rank = precedence(op);
    let wrap = |side: DurationNode, is_left: bool| {
        let needs = match &side.kind {
            DurationKind::Binary(inner, ..) if is_left == (op == BinaryOp::Pow) => precedence(*inner) <= rank,
            DurationKind::Binary(inner, ..) => precedence(*inner) < rank,
            DurationKind::Number(number) => is_left && op == BinaryOp::Pow && number.value.is_sign_negative(),
            DurationKind::Unary(..) => is_left && op == BinaryOp::Pow,
            _ => false,
        };
        Box::new(if needs { duration_paren(side) } else { side })
    };
    node(DurationKind::Binary(op, wrap(left, true), wrap(right, false)))
}

fn computed(node: DurationNode) -> DurationExpr {
    match node.kind {
        DurationKind::Number(_) => DurationExpr::Computed(Box::new(duration_paren(node))),
        _ => DurationExpr::Computed(Box::new(node)),
    }
}

/// The length of a range or step.
fn range() -> impl Strategy<Value = DurationExpr> {
    prop_oneof![
        3 => (1..4_000_000_000_000_i64).prop_map(DurationExpr::Literal),
        1 => duration_node().prop_map(computed),
    ]
}

/// The length of a subquery's range: where a colon follows, the lexer insists on a number before it.
fn subquery_range() -> impl Strategy<Value = DurationExpr> {
    range().prop_map(|range| match range {
        DurationExpr::Computed(node) if !has_number(&node) => {
            let one = self::node(DurationKind::Number(duration_number(1000)));
            computed(duration_binary(BinaryOp::Mul, *node, one))
        }
        range => range,
    })
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

fn offset() -> impl Strategy<Value = Option<DurationExpr>> {
    let literal = ((1..4_000_000_000_000_i64), any::<bool>())
        .prop_map(|(ms, negative)| if negative { -ms } else { ms });
    let in_place = |node: DurationNode| match node.kind {
        DurationKind::Unary(..) | DurationKind::Binary(..) => computed(duration_paren(node)),
        _ => computed(node),
    };
    let signed = |inner: DurationNode| {
        let inner = match inner.kind {
            DurationKind::Number(_) | DurationKind::Unary(..) | DurationKind::Binary(..) => {
                duration_paren(inner)
            }
            _ => inner,
        };
        computed(node(DurationKind::Unary(UnaryOp::Minus, Box::new(inner))))
    };
    option::of(prop_oneof![
        3 => literal.prop_map(DurationExpr::Literal),
        1 => duration_node().prop_map(in_place),
        1 => duration_node().prop_map(signed),
    ])
}

fn at() -> impl Strategy<Value = Option<At>> {
    option::of(prop_oneof![
        Just(At::Start),
        Just(At::End),
        (-4_000_000_000_000_i64..4_000_000_000_000).prop_map(At::Timestamp),
    ])
}

fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let names = vec!["a", "job", "inf", "by", "a.b", "\u{e9} \"", METRIC_NAME];
    let ops = vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
    vec(
        (select(names), select(ops), text()).prop_map(|(name, op, value)| Matcher::new(name, op, value)),
        0..3,
    )
}

fn selector() -> impl Strategy<Value = VectorSelector> {
    let names = vec![
        "up", "a:b", ":x", "sum", "by", "offset", "start", "step", "max_of", "fill", "and", "anchored", "_",
        "Rate",
    ];
    let modes = vec![RangeMode::Plain, RangeMode::Plain, RangeMode::Anchored, RangeMode::Smoothed];
    (option::of(select(names)), matchers(), offset(), at(), select(modes)).prop_map(
        |(name, mut matchers, offset, at, mode)| {
            match name {
                Some(_) => matchers.retain(|matcher| matcher.name != METRIC_NAME),
                None => matchers.push(Matcher::equal("b", "x")),
            }
            // The printer sorts them.
            matchers.sort_by_key(ToString::to_string);
            matchers.extend(name.map(|name| Matcher::equal(METRIC_NAME, name)));
            VectorSelector { name: name.map(str::to_owned), matchers, offset, at, mode }
        },
    )
}

/// Vectors and scalars.
fn operands() -> Exprs {
    let leaf = prop_oneof![
        number().prop_map(|number| expr(ExprKind::Number(number))),
        selector().prop_map(|selector| expr(ExprKind::Vector(selector))),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(paren),
            (select(vec![UnaryOp::Plus, UnaryOp::Minus]), inner.clone())
                .prop_map(|(op, inner)| unary(op, inner)),
            aggregate(inner.clone()),
            call(inner.clone()),
            binary(inner),
        ]
    })
    .boxed()
}

/// Expressions of every type.
fn exprs() -> Exprs {
    prop_oneof![
        6 => operands(),
        1 => matrix(operands()),
        1 => text().prop_map(|text| expr(ExprKind::String(text))),
    ]
    .boxed()
}

fn unary(op: UnaryOp, inner: Expr) -> Expr {
    let plain = match &inner.kind {
        ExprKind::Number(_) => false,
        ExprKind::Binary(binary) => binary.op == BinaryOp::Pow,
        _ => true,
    };
    expr(ExprKind::Unary(op, Box::new(if plain { inner } else { paren(inner) })))
}

/// The expression as a vector.
fn vector(inner: Expr) -> Expr {
    if inner.value_type() == ValueType::Vector {
        return inner;
    }
    let function = functions::lookup("vector").unwrap();
    expr(ExprKind::Call(Call { function, args: vec![inner] }))
}

/// The expression as a scalar.
fn scalar(inner: Expr) -> Expr {
    if inner.value_type() == ValueType::Scalar {
        return inner;
    }
    let function = functions::lookup("scalar").unwrap();
    expr(ExprKind::Call(Call { function, args: vec![inner] }))
}

fn matrix(inner: Exprs) -> Exprs {
    let selected = (selector(), range()).prop_map(|(selector, range)| {
        expr(ExprKind::Matrix(MatrixSelector { selector, selector_span: SpanIgnored::default(), range }))
    });
    let subquery = (inner, subquery_range(), option::of(range()), offset(), at()).prop_map(
        |(inner, range, step, offset, at)| {
            let inner = vector(inner);
            let apart = matches!(inner.kind, ExprKind::Unary(..) | ExprKind::Binary(_));
            let inner = Box::new(if apart { paren(inner) } else { inner });
            expr(ExprKind::Subquery(Subquery { expr: inner, range, step, offset, at }))
        },
    );
    prop_oneof![selected, subquery].boxed()
}

fn aggregate(inner: Exprs) -> Exprs {
    let grouping =
        option::of((any::<bool>(), labels()).prop_map(|(without, labels)| Grouping { without, labels }))
            .prop_map(|grouping| grouping.filter(|grouping| grouping.without || !grouping.labels.is_empty()));
    (select(AggregateOp::ALL.to_vec()), inner.clone(), inner, text(), grouping)
        .prop_map(|(op, param, inner, text, grouping)| {
            let param = match op {
                AggregateOp::CountValues => Some(Box::new(expr(ExprKind::String(text)))),
                _ if op.has_param() => Some(Box::new(scalar(param))),
                _ => None,
            };
            expr(ExprKind::Aggregate(Aggregate { op, param, expr: Box::new(vector(inner)), grouping }))
        })
        .boxed()
}

fn call(inner: Exprs) -> Exprs {
    let table: Vec<&'static Function> = functions::all().iter().collect();
    let parts = (select(table), vec((inner.clone(), matrix(inner), text()), 12), 0..4_usize, selector());
    parts
        .prop_map(|(function, parts, more, info)| {
            let count = (function.min_args() + more).min(function.max_args().unwrap_or(6));
            let arg = |(index, (operand, matrix, text)): (usize, (Expr, Expr, String))| match function
                .arg_type(index)
                .expect("counted above")
            {
                ValueType::Scalar => scalar(operand),
                ValueType::Vector => vector(operand),
                ValueType::Matrix => matrix,
                ValueType::String => expr(ExprKind::String(text)),
            };
            let mut args: Vec<Expr> = parts.into_iter().take(count).enumerate().map(arg).collect();
            if let ("info", Some(labels)) = (function.name, args.get_mut(1)) {
                let mut selector = info;
                if selector.name.take().is_some() {
                    // The name was the last; what is left may be nothing.
                    selector.matchers.pop();
                }
                *labels = expr(ExprKind::Vector(selector));
            }
            expr(ExprKind::Call(Call { function, args }))
        })
        .boxed()
}

fn binary(inner: Exprs) -> Exprs {
    (select(BinaryOp::ALL.to_vec()), inner.clone(), inner, any::<bool>(), matching())
        .prop_map(|(op, left, right, flag, matching)| {
            let (left, right) = if op.is_set() { (vector(left), vector(right)) } else { (left, right) };
            let types = (left.value_type(), right.value_type());
            let scalars = types == (ValueType::Scalar, ValueType::Scalar);
            let matching = (types == (ValueType::Vector, ValueType::Vector)).then(|| {
                if op.is_set() {
                    Matching {
                        card: Cardinality::ManyToMany,
                        on: matching.on,
                        labels: matching.labels,
                        ..Matching::default()
                    }
                } else {
                    matching
                }
            });
            let lhs = binary_side(op, left, true);
            let rhs = binary_side(op, right, false);
            let return_bool = op.is_comparison() && (flag || scalars);
            expr(ExprKind::Binary(Box::new(Binary { op, lhs, rhs, return_bool, matching })))
        })
        .boxed()
}

fn matching() -> impl Strategy<Value = Matching> {
    let cards = vec![Cardinality::OneToOne, Cardinality::ManyToOne, Cardinality::OneToMany];
    let fill = || option::of(prop_oneof![-1e3..1e3, Just(f64::INFINITY), Just(1e-9), Just(1e22)]);
    (select(cards), any::<bool>(), labels(), labels(), fill(), fill()).prop_map(
        |(card, on, labels, mut include, fill_left, fill_right)| {
            include.retain(|label| !labels.contains(label));
            if card == Cardinality::OneToOne {
                include.clear();
            }
            Matching { card, on, labels, include, fill_left, fill_right }
        },
    )
}

/// An operand of `op`, in parentheses where the text needs them.
fn binary_side(op: BinaryOp, side: Expr, is_left: bool) -> Expr {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn parse_undoes_print(expr in exprs()) {
        for printed in [expr.to_string(), pretty(&expr)] {
            match parse(&printed, &ParseOptions::all()) {
                Ok(again) => prop_assert_eq!(&again, &expr, "{}", printed),
                Err(error) => prop_assert!(false, "{}\n{}", error, printed),
            }
        }
    }

    #[test]
    fn print_is_stable(expr in exprs()) {
        let printed = expr.to_string();
        let again = parse(&printed, &ParseOptions::all()).expect("the test above");
        prop_assert_eq!(again.to_string(), printed);
        prop_assert_eq!(pretty(&again), pretty(&expr));
        prop_assert_eq!(again.value_type(), expr.value_type());
    }
}
