//! Expressions: too deep, too long, malformed, of the wrong types, without a meaning, and with parameters out of bounds.

use super::{Case, Times};

/// Where COMPAT.md speaks of them.
const TOO_DEEP: &str = "Query text above 1 MiB";
const BAD_REGEX: &str = "Regular expressions above";

const LIST: &str = include_str!("../../bad_input.txt");

/// What does not fit into a line of the list.
const ODD: &[&str] = &[
    "",
    " ",
    "\n",
    "#",
    "# nothing",
    "m # end\n+ # more",
    "\u{e9}",
    "m\u{e9}",
    "\u{fffd}",
    "\u{0}",
    "m\u{0}",
    "\u{1f600}",
    "m\u{a0}",
    "\u{feff}m",
    "\"a\nb\"",
    "`a\nb`",
    "\"\u{0}\"",
    "m{'a\nb'=\"\"}",
    "m{\u{e9}=\"a\"}",
    "m{g=\"a\"#\n}",
    "label_replace(m, \"new\", \"$\u{e9}\", \"i\", \"(.*)\")",
    "m{g=~`\\\u{e9}`}",
    "m{g=~`(?P<\u{e9}>a)`}",
];

/// The cases.
pub(super) fn cases(times: Times) -> Vec<Case> {
    let mut cases = listed(times);
    cases.extend(ODD.iter().map(|query| Case::instant(times, query)));
    let texts = ["m[5m]", "\"text\"", "m[5m:1m]", "(m[5m])", "(\"text\")"];
    cases.extend(texts.map(|query| Case::range(times, query)));
    cases.extend(nested(times));
    cases.extend(long(times));
    cases.extend(costly(times));
    cases
}

/// Those of the list, whose head says how it is read.
fn listed(times: Times) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut otherwise: Option<(&'static str, u16, &'static str)> = None;
    for line in LIST.lines() {
        let new = |case: Case| match otherwise {
            Some((line, status, text)) => case.own(line, status, text),
            None => case,
        };
        match line.split_at_checked(2) {
            Some(("i ", query)) => cases.push(new(Case::instant(times, query))),
            Some(("b ", query)) => {
                cases.push(new(Case::instant(times, query)));
                cases.push(new(Case::range(times, query)));
            }
            Some(("! ", difference)) => {
                let (status, rest) = difference.split_once(' ').expect("a status and more");
                let (line, text) = rest.split_once(" |").expect("a line of COMPAT.md, then a text");
                otherwise = Some((line, status.parse().expect("a status"), text.trim_start()));
            }
            _ if line.is_empty() => otherwise = None,
            _ => assert!(line.starts_with('#'), "bad_input.txt: {line}"),
        }
    }
    cases
}

/// Ten thousand levels, and as many as are allowed.
fn nested(times: Times) -> Vec<Case> {
    const MANY: usize = 10_000;
    const ALLOWED: usize = 200;
    let around = |open: &str, levels: usize, inside: &str, close: &str| {
        format!("{}{inside}{}", open.repeat(levels), close.repeat(levels))
    };
    let shapes = [
        ("(", "1", ")"),
        ("(", "m", ")"),
        ("-", "m", ""),
        ("-", "1", ""),
        ("+-", "m", ""),
        ("-(", "m", ")"),
        ("abs(", "m", ")"),
        ("sum(", "m", ")"),
        ("topk(1, ", "m", ")"),
        ("vector(", "1", ")"),
        ("vector(scalar(", "m", "))"),
        ("1 + ", "m", ""),
        ("1 ^ ", "1", ""),
        ("m or ", "m", ""),
        ("m and (", "m", ")"),
        ("label_replace(", "m", ", \"a\", \"b\", \"c\", \"d\")"),
    ];
    let mut cases = Vec::new();
    for (open, inside, close) in shapes {
        cases.push(Case::instant(times, around(open, ALLOWED / 2, inside, close)));
        let deep = Case::instant(times, around(open, MANY, inside, close));
        let text = "expression is nested deeper than 250 levels";
        // With the others Prometheus is busy for up to a minute.
        let is_quick = ["(", "-", "+-", "abs(", "sum("].contains(&open);
        cases.push(if is_quick { deep.own(TOO_DEEP, 400, text) } else { deep.alone(TOO_DEEP, 400, text) });
    }
    // Calls that need a window in each of them.
    let subqueries = |levels| around("max_over_time(", levels, "m", "[1m:1m])");
    cases.push(Case::instant(times, subqueries(20)));
    cases.push(Case::instant(times, subqueries(MANY)).alone(TOO_DEEP, 400, "nested deeper than 250 levels"));
    // What does not end, or does not begin.
    for (open, is_deep) in [
        ("(", true),
        ("((", true),
        ("sum(", true),
        ("abs(", true),
        ("-", true),
        ("m + ", true),
        ("m or ", true),
        ("[", false),
        ("{", false),
        ("m[", false),
        ("m{", false),
        ("sum by (", false),
    ] {
        cases.push(Case::instant(times, open.repeat(ALLOWED / 2)));
        let deep = Case::instant(times, open.repeat(MANY));
        cases.push(if is_deep { deep.own(TOO_DEEP, 400, "nested deeper than 250 levels") } else { deep });
    }
    for (close, is_deep) in [
        (")", false),
        ("]", false),
        ("}", false),
        ("[5m]", false),
        ("[5m:]", true),
        ("[5m:1m]", true),
        (" offset 5m", false),
        (" @ 1", false),
        ("{}", false),
    ] {
        cases.push(Case::instant(times, format!("m{}", close.repeat(ALLOWED / 2))));
        let deep = Case::instant(times, format!("m{}", close.repeat(MANY)));
        cases.push(if is_deep { deep.own(TOO_DEEP, 400, "nested deeper than 250 levels") } else { deep });
    }
    cases
}

/// About a megabyte.
fn long(times: Times) -> Vec<Case> {
    const MEGABYTE: usize = 1_000_000;
    let fill = |with: &str| with.repeat(MEGABYTE / with.len());
    let valid = [
        format!("\"{}\"", fill("x")),
        format!("m{}", fill(" ")),
        format!("m # {}", fill("x")),
        format!("m{{g=\"{}\"}}", fill("x")),
        format!("m{{{}g=\"a\"}}", fill("i=\"\",")),
        format!("{{{}g=\"a\"}}", fill("i!=\"nosuch\",")),
        format!("sum by ({}g) (m)", fill("g,")),
        format!("m + on ({}g, i) twin", fill("g,")),
        format!("m{{{}=\"\"}}", fill("x")),
        fill("x"),
        format!("0.{}", fill("1")),
        fill("1"),
        format!("m offset {}1s", fill("0")),
    ];
    let invalid = [
        fill(")"),
        fill("m "),
        fill("m[5m:]"),
        fill("m{"),
        fill("\""),
        format!("\"{}", fill("x")),
        format!("m{{{}", fill("i=\"\",")),
        format!("{}(m)", fill("x")),
        format!("m[{}x]", fill("1")),
        format!("m{{g=\"{}\\q\"}}", fill("x")),
        format!("{}\u{0}", fill(" ")),
        fill("\n") + "m m",
        fill("é"),
    ];
    let mut cases: Vec<Case> =
        valid.iter().chain(&invalid).map(|query| Case::instant(times, query)).collect();
    for query in [fill("("), fill("1 + ")] {
        cases.push(Case::instant(times, query).own(TOO_DEEP, 400, "parse error"));
    }
    // Of a megabyte of them Prometheus goes through the tree for a minute.
    let many = format!("label_join(m, \"new\", \"\"{})", ", \"g\"".repeat(10_000));
    cases.push(Case::instant(times, many));
    cases.push(Case::instant(times, format!("m{}", " ".repeat(2 * MEGABYTE))).own(
        TOO_DEEP,
        400,
        "is longer than 1048576 bytes",
    ));
    cases
}

/// Regular expressions on which others choke, and ones as large as a text allows.
fn costly(times: Times) -> Vec<Case> {
    let words = |count: usize| (0..count).map(|i| format!("x{i}")).collect::<Vec<_>>().join("|");
    let patterns = [
        "(a*)*b".to_owned(),
        "(a|aa)+".to_owned(),
        "(x+x+)+y".to_owned(),
        "(.*)(.*)(.*)(.*)(.*)(.*)(.*)x".to_owned(),
        "(a?){50}a{50}".to_owned(),
        ".{1000}".to_owned(),
        "(.{0,100}){10}".to_owned(),
        "([a-z]*)*([a-z]*)*1".to_owned(),
        "a".repeat(100_000),
        words(20_000),
        words(60_000),
        format!("({})", words(20_000)),
        "(a|b)".repeat(1_000),
        ".*".repeat(1_000),
        "(".repeat(100) + &")".repeat(100),
        "a|".repeat(100_000),
        "(a{10}){10}".to_owned(),
    ];
    let mut cases: Vec<Case> =
        patterns.iter().map(|pattern| Case::instant(times, format!("m{{g=~`{pattern}`}}"))).collect();
    let large = [
        ("((a{100}){100}){100}".to_owned(), "needs an automaton above the limit"),
        ("(".repeat(900) + &")".repeat(900), "expression nests too deeply"),
        ("(".repeat(100_000), "expression nests too deeply"),
        ("[".repeat(100_000), "missing closing ]"),
    ];
    for (pattern, text) in large {
        cases.push(Case::instant(times, format!("m{{g=~`{pattern}`}}")).own(BAD_REGEX, 400, text));
    }
    cases
}
