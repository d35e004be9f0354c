//! Random PromQL, for comparing two servers that hold the same series.
//!
//! A seed decides everything. Expressions are well-formed and mostly well-typed; what is refused at evaluation (many-to-many
//! matches, duplicates) is part of the comparison.
//!
//! Values of two engines may differ in their last bits where sums are taken over many samples or by `libm`. So that
//! such a bit never decides about more than itself, operators that jump (comparisons, rounding, ranks, differences of
//! near equals) are only given operands that both engines must have bit by bit: [`Exactness::Exact`].

use crate::rng::Rng;

/// What expressions select from.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary {
    /// Selectors of series whose values are floats.
    pub floats: &'static [&'static str],
    /// Selectors of floats that are all different at most times.
    pub distinct: &'static [&'static str],
    /// A single float that grows by 1 with every sample.
    pub ramp: &'static str,
    /// Selectors of native histograms of counters; series among them may switch between both kinds.
    pub histograms: &'static [&'static str],
    /// Selectors of native histograms of gauges.
    pub gauges: &'static [&'static str],
    /// Vectors of classic buckets.
    pub buckets: &'static [&'static str],
    /// Matchers.
    pub matchers: &'static [&'static str],
    /// Label names to group and match by.
    pub labels: &'static [&'static str],
    /// Vectors that join.
    pub pairs: &'static [(&'static str, &'static str)],
}

/// How equal the values of two engines must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exactness {
    /// Bit by bit.
    Exact,
    /// Up to rounding.
    Close,
}

use Exactness::{Close, Exact};

const RANGES: &[&str] =
    &["30s", "1m", "90s", "2m", "5m", "10m", "29999ms", "1h", "3m", "45s", "2m", "5m", "59999ms", "4m1ms"];
const NUMBERS: &[&str] = &[
    "0", "1", "2", "-1", "0.5", "100", "NaN", "Inf", "-Inf", "1e3", "3", "-0.5", "10", "1m", "0.1", "1e100",
    "5e-324", "-1e-310", "-0", "1e308",
];
const COMPARISONS: &[&str] =
    &["==", "!=", ">", "<", ">=", "<=", "== bool", "!= bool", "> bool", "< bool", ">= bool", "<= bool"];
const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "%", "^", "atan2"];
/// Element-wise functions that jump, or whose result is the argument's sign or part of it.
const STEP_FUNCTIONS: &[&str] = &[
    "abs",
    "ceil",
    "floor",
    "sgn",
    "round",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "year",
    "timestamp",
    "sort",
    "sort_desc",
];
const SMOOTH_FUNCTIONS: &[&str] = &[
    "exp", "sqrt", "ln", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh",
    "tanh", "asinh", "acosh", "atanh", "deg", "rad",
];
const HISTOGRAM_FUNCTIONS: &[&str] =
    &["histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar"];
/// Range functions that pick or count samples.
const PICKING: &[&str] = &[
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "changes",
    "resets",
    "idelta",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
    "ts_of_last_over_time",
];
const COMPUTING: &[&str] = &[
    "rate",
    "increase",
    "delta",
    "irate",
    "rate",
    "increase",
    "deriv",
    "avg_over_time",
    "sum_over_time",
    "stddev_over_time",
    "stdvar_over_time",
];

/// A source of random expressions.
#[derive(Debug)]
pub struct Expressions {
    rng: Rng,
    words: Vocabulary,
    /// Times an `@` may name, in seconds.
    at: (i64, i64),
}

impl Expressions {
    /// Expressions over `words`; `@` names times between `at.0` and `at.1`, in milliseconds.
    #[must_use]
    pub fn new(seed: u64, words: Vocabulary, at: (i64, i64)) -> Self {
        Self { rng: Rng::new(seed), words, at }
    }

    /// An expression that nests at most `depth` operators. A range vector only where `instant`.
    pub fn expression(&mut self, depth: usize, instant: bool) -> String {
        match self.rng.below(100) {
            0..3 => self.scalar(depth),
            3..8 if instant => self.range(depth.min(1), Exact),
            8..30 => self.native(depth),
            _ => self.vector(depth, Close),
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.below(from.len() as u64) as usize]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    fn some_of(&mut self, from: &'static [&'static str], most: u64) -> String {
        let mut rest = from.to_vec();
        let mut chosen = Vec::new();
        for _ in 0..self.rng.below(most + 1).min(from.len() as u64) {
            chosen.push(rest.swap_remove(self.rng.below(rest.len() as u64) as usize));
        }
        chosen.join(", ")
    }

    fn selector(&mut self, names: &'static [&'static str]) -> String {
        let name = self.pick(names);
        if name.ends_with('}') || self.chance(75) {
            return name.to_owned();
        }
        format!("{name}{{{}}}", self.some_of(self.words.matchers, 1))
    }

    fn modifiers(&mut self) -> String {
        let mut text = String::new();
        if self.chance(12) {
            text += " offset ";
            text += self.pick(&["30s", "5m", "-1m", "1h", "7s", "-10m", "0s"]);
        }
        if self.chance(9) {
            let time = match self.rng.below(6) {
                0 => self.at.0 + self.pick(&[0, -1, 1, 299_999, 300_000]),
                1 => self.at.1 + self.pick(&[0, -1, 1, 299_999, 300_000]),
                _ => self.at.0 + self.rng.below((self.at.1 - self.at.0).unsigned_abs()) as i64,
            };
            match self.rng.below(3) {
                0 => text += " @ start()",
                1 => text += " @ end()",
                _ => text += &format!(" @ {}.{:03}", time / 1000, time % 1000),
            }
        }
        text
    }

    fn instant(&mut self) -> String {
        self.selector(self.words.floats) + &self.modifiers()
    }

    fn range(&mut self, depth: usize, exactness: Exactness) -> String {
        if depth > 0 && self.chance(25) {
            let inner = self.vector(depth - 1, exactness);
            let range = self.pick(&["1m", "5m", "10m", "3m7s"]);
            let step = self.pick(&["", "30s", "1m", "17s", "60s"]);
            return format!("({inner})[{range}:{step}]{}", self.modifiers());
        }
        let range = self.pick(RANGES);
        format!("{}[{range}]{}", self.selector(self.words.floats), self.modifiers())
    }

    fn scalar(&mut self, depth: usize) -> String {
        match self.rng.below(10) {
            0 if depth > 0 => format!("scalar({})", self.vector(depth - 1, Exact)),
            1 if depth > 0 => {
                let op = self.pick(&["+", "-", "*", "/", "%", "== bool", "< bool", ">= bool"]);
                format!("({} {op} {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
            2 if depth > 0 => format!("-{}", self.scalar(depth - 1)),
            3 => self.pick(&["time()", "pi()"]).to_owned(),
            _ => self.pick(NUMBERS).to_owned(),
        }
    }

    fn grouping(&mut self) -> String {
        if self.chance(35) {
            return String::new();
        }
        let how = self.pick(&["by", "without"]);
        format!(" {how} ({}) ", self.some_of(self.words.labels, 3))
    }

    fn vector(&mut self, depth: usize, exactness: Exactness) -> String {
        if depth == 0 {
            return if self.chance(60) { self.instant() } else { self.over_time(0, exactness) };
        }
        match self.rng.below(100) {
            0..10 => self.instant(),
            10..34 => self.over_time(depth, exactness),
            34..50 => self.elementwise(depth, exactness),
            50..56 => self.relabeled(depth, exactness),
            56..63 if exactness == Close => self.quantile_of_buckets(depth),
            56..80 => self.aggregation(depth, exactness),
            80..87 => self.with_scalar(depth, exactness),
            87..90 => format!("-({})", self.vector(depth - 1, exactness)),
            _ => self.matched(depth, exactness),
        }
    }

    fn over_time(&mut self, depth: usize, exactness: Exactness) -> String {
        if exactness == Close && self.chance(60) {
            // `deriv` and variances of huge and tiny values lose all digits: they see what is below.
            return match self.rng.below(14) {
                0 => format!("predict_linear({}, {})", self.range(depth, Exact), self.pick(NUMBERS)),
                1 => format!(
                    "quantile_over_time({}, {})",
                    self.scalar(depth.saturating_sub(1)),
                    self.range(depth, Exact)
                ),
                2 => format!(
                    "double_exponential_smoothing({}, 0.3, {})",
                    self.range(depth, Exact),
                    self.pick(&["0.5", "0.9", "1.5"])
                ),
                _ => format!("{}({})", self.pick(COMPUTING), self.range(depth, Exact)),
            };
        }
        format!("{}({})", self.pick(PICKING), self.range(depth, Exact))
    }

    fn elementwise(&mut self, depth: usize, exactness: Exactness) -> String {
        if exactness == Close && self.chance(50) {
            let (function, inner) = (self.pick(SMOOTH_FUNCTIONS), self.vector(depth - 1, Exact));
            // What Go's logarithms give of subnormal numbers depends on the machine.
            let least = if matches!(function, "ln" | "log10") { " > 1e-300" } else { "" };
            return format!("{function}({inner}{least})");
        }
        let inner = self.vector(depth - 1, Exact);
        match self.rng.below(25) {
            4 => format!("absent({inner})"),
            5 => format!("absent_over_time({})", self.range(depth, Exact)),
            0 => format!("clamp({inner}, {}, {})", self.scalar(depth - 1), self.scalar(depth - 1)),
            1 => format!("clamp_min({inner}, {})", self.scalar(depth - 1)),
            2 => format!("clamp_max({inner}, {})", self.scalar(depth - 1)),
            3 => format!("vector({})", self.scalar(depth - 1)),
            _ => format!("{}({inner})", self.pick(STEP_FUNCTIONS)),
        }
    }

    fn relabeled(&mut self, depth: usize, exactness: Exactness) -> String {
        let inner = self.vector(depth - 1, exactness);
        let target = self.pick(&["new", "job", "instance", "__name__"]);
        let source = self.pick(self.words.labels);
        if self.chance(35) {
            return format!(
                "label_join({inner}, \"{target}\", \"{}\", \"{source}\")",
                self.pick(&["-", "", ","])
            );
        }
        let replacement = self.pick(&["$1", "x", "", "p-$1-$2"]);
        let regex = self.pick(&["(.*)", "(.)(.*)", "a.*", "", "(a|b).*"]);
        format!("label_replace({inner}, \"{target}\", \"{replacement}\", \"{source}\", \"{regex}\")")
    }

    fn quantile_of_buckets(&mut self, depth: usize) -> String {
        let vector = self.pick(self.words.buckets);
        let quantile = match self.rng.below(4) {
            0 => self.scalar(depth - 1),
            _ => self.pick(&["0.5", "0.9", "0", "1", "0.99", "-1", "2"]).to_owned(),
        };
        format!("histogram_quantile({quantile}, {vector})")
    }

    fn aggregation(&mut self, depth: usize, exactness: Exactness) -> String {
        let group = self.grouping();
        if exactness == Close && self.chance(50) {
            let inner = self.vector(depth - 1, Exact);
            return match self.rng.below(5) {
                0 => format!("avg{group}({inner})"),
                // Variances of large values lose digits.
                1 => format!("{}{group}({})", self.pick(&["stddev", "stdvar"]), self.instant()),
                2 => format!("quantile{group}({}, {inner})", self.scalar(depth - 1)),
                _ => format!("sum{group}({inner})"),
            };
        }
        let inner = self.vector(depth - 1, Exact);
        match self.rng.below(6) {
            // Which of equal values ranks first depends on the order of Go's maps.
            0 => {
                let (function, vector) = (self.pick(&["topk", "bottomk"]), self.all_different());
                let k = match self.rng.below(4) {
                    // Not the same at each step.
                    0 => {
                        let ramp = self.words.ramp;
                        format!("scalar({ramp}) % {}", self.pick(&["4", "7", "2.5"]))
                    }
                    _ => self.pick(&["1", "2", "3", "0", "10", "1.9", "-1", "1e9"]).to_owned(),
                };
                format!("{function}{group}({k}, {vector})")
            }
            1 if self.chance(40) => {
                let ratio = self.pick(&["0.5", "-0.5", "0.1", "-0.1", "1", "-1", "0", "1.5"]);
                format!("limit_ratio{group}({ratio}, {inner})")
            }
            1 => format!("count_values{group}(\"{}\", {inner})", self.pick(&["v", "job", "val"])),
            2 => format!("group{group}({inner})"),
            3 => format!("min{group}({inner})"),
            4 => format!("max{group}({inner})"),
            _ => format!("count{group}({inner})"),
        }
    }

    /// A vector of floats of which no two are equal at most times; at which time which is greater differs.
    fn all_different(&mut self) -> String {
        let name = self.pick(self.words.distinct);
        let range = self.pick(&["1m", "5m", "29999ms", "10m"]);
        let modifiers = self.modifiers();
        match self.rng.below(6) {
            0 => format!("-{name}{modifiers}"),
            1 => format!("last_over_time({name}[{range}]{modifiers})"),
            2 => format!("({name}{modifiers} * 3)"),
            // Some of them come and go.
            3 => format!("({name}{modifiers} > {})", self.pick(&["0", "-1", "2.5"])),
            _ => format!("{name}{modifiers}"),
        }
    }

    fn with_scalar(&mut self, depth: usize, exactness: Exactness) -> String {
        let op = if self.chance(50) { self.pick(COMPARISONS) } else { self.pick(ARITHMETIC) };
        let op = if exactness == Exact && matches!(op, "^" | "atan2") { "*" } else { op };
        let (vector, scalar) = (self.vector(depth - 1, Exact), self.scalar(depth - 1));
        if self.chance(50) {
            format!("({vector} {op} {scalar})")
        } else {
            format!("({scalar} {op} {vector})")
        }
    }

    fn matched(&mut self, depth: usize, exactness: Exactness) -> String {
        let (mut lhs, mut rhs) = (self.vector(depth - 1, Exact), self.vector(depth - 1, Exact));
        if self.chance(75) {
            let (a, b) = self.pick(self.words.pairs);
            (lhs, rhs) = (a.to_owned(), b.to_owned());
        }
        if self.chance(50) {
            std::mem::swap(&mut lhs, &mut rhs);
        }
        if self.chance(40) {
            let op = self.pick(&["and", "or", "unless"]);
            return format!("({lhs} {op}{} {rhs})", self.matching(false));
        }
        let op = if self.chance(50) { self.pick(COMPARISONS) } else { self.pick(ARITHMETIC) };
        let op = if exactness == Exact && matches!(op, "^" | "atan2") { "+" } else { op };
        format!("({lhs} {op}{} {rhs})", self.matching(true))
    }

    fn matching(&mut self, groups: bool) -> String {
        if self.chance(30) {
            return String::new();
        }
        let how = self.pick(&["on", "on", "ignoring"]);
        let mut text = format!(" {how} ({})", self.some_of(self.words.labels, 3));
        if groups && self.chance(40) {
            text += self.pick(&[" group_left", " group_right"]);
            text += self.pick(&["", " ()", " (version)", " (floor)", " (nosuch)"]);
        }
        text
    }

    /// Something of native histograms.
    fn native(&mut self, depth: usize) -> String {
        let vector = self.native_vector(depth.saturating_sub(1));
        match self.rng.below(24) {
            0..6 => vector,
            6..9 => {
                let quantile = self.pick(&["0.5", "0.9", "0", "1", "0.99", "-1", "NaN"]);
                format!("histogram_quantile({quantile}, {vector})")
            }
            9..11 => {
                let (lower, upper) =
                    (self.pick(&["0", "-1", "0.3", "-Inf"]), self.pick(&["1", "2", "Inf", "0.3"]));
                format!("histogram_fraction({lower}, {upper}, {vector})")
            }
            11..17 => format!("{}({vector})", self.pick(HISTOGRAM_FUNCTIONS)),
            17..19 => format!("{}{}({vector})", self.pick(&["count", "group"]), self.grouping()),
            19..21 => {
                let function = self.pick(&["count_over_time", "present_over_time", "resets", "changes"]);
                format!("{function}({})", self.native_range(depth.saturating_sub(1)))
            }
            21 => {
                let op = self.pick(&["==", "!=", ">", "and", "or", "unless"]);
                format!("({vector} {op} {})", self.native_vector(0))
            }
            22 => format!("{}({vector})", self.pick(&["sort", "timestamp", "histogram_count"])),
            _ => self.native_without_result(&vector),
        }
    }

    /// What ignores histograms, and says so.
    fn native_without_result(&mut self, vector: &str) -> String {
        let range = self.native_range(0);
        match self.rng.below(5) {
            0 => format!("{}({vector})", self.pick(&["abs", "ceil", "absent", "sort_desc"])),
            1 => format!("{}({vector})", self.pick(&["min", "max", "stddev", "stdvar"])),
            2 => format!("({vector} {} 2)", self.pick(&["+", "-", "> bool", "^", "<"])),
            3 => format!("quantile_over_time(0.5, {range})"),
            _ => format!("{}({range})", self.pick(&["max_over_time", "stddev_over_time", "deriv"])),
        }
    }

    fn native_range(&mut self, depth: usize) -> String {
        let text = if depth > 0 && self.chance(15) {
            let (range, step) = (self.pick(&["2m", "5m"]), self.pick(&["", "30s"]));
            format!("({})[{range}:{step}]", self.native_vector(depth - 1))
        } else {
            format!("{}[{}]", self.selector(self.words.histograms), self.pick(RANGES))
        };
        text + &self.modifiers()
    }

    /// A vector of native histograms, but for some floats.
    fn native_vector(&mut self, depth: usize) -> String {
        if depth == 0 || self.chance(15) {
            return self.selector(self.words.histograms) + &self.modifiers();
        }
        match self.rng.below(12) {
            0..5 => {
                let function = self.pick(&[
                    "rate",
                    "increase",
                    "irate",
                    "sum_over_time",
                    "avg_over_time",
                    "last_over_time",
                ]);
                format!("{function}({})", self.native_range(depth - 1))
            }
            5 => {
                let function =
                    self.pick(&["delta", "idelta", "sum_over_time", "avg_over_time", "last_over_time"]);
                let (selector, range) = (self.pick(self.words.gauges), self.pick(RANGES));
                format!("{function}({selector}[{range}]{})", self.modifiers())
            }
            6..9 => {
                let function = self.pick(&["sum", "avg"]);
                format!("{function}{}({})", self.grouping(), self.native_vector(depth - 1))
            }
            9 => {
                let (op, scalar) = (self.pick(&["*", "/"]), self.pick(&["2", "0", "0.5", "-1"]));
                format!("({} {op} {scalar})", self.native_vector(depth - 1))
            }
            10 => {
                let (same, op) = (self.selector(self.words.histograms), self.pick(&["+", "-"]));
                format!("({same}{} {op} {same}{})", self.modifiers(), self.modifiers())
            }
            _ => self.pick(self.words.gauges).to_owned() + &self.modifiers(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Vocabulary = Vocabulary {
        floats: &["a", "{b=\"c\"}"],
        distinct: &["d"],
        ramp: "r",
        histograms: &["h"],
        gauges: &["g"],
        buckets: &["x_bucket"],
        matchers: &["i=\"1\"", "j!=\"2\""],
        labels: &["i", "j", "k", "l"],
        pairs: &[("a", "b")],
    };

    #[test]
    fn a_seed_decides_and_seeds_differ() {
        let some = |seed| {
            let mut source = Expressions::new(seed, WORDS, (0, 1_000));
            (0..100).map(|i| source.expression(3, i % 2 == 0)).collect::<Vec<_>>()
        };
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        let mut distinct = some(1);
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 90, "{} of 100", distinct.len());
    }
}
