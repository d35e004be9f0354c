//! The table of functions: names, argument types, what is experimental.

use crate::ast::ValueType;

/// A function's signature.
#[derive(Debug)]
pub struct Function {
    /// Name, case-sensitive.
    pub name: &'static str,
    /// Argument types. Arguments beyond the list (only where `variadic` is not 0) have the type of the last entry.
    pub args: &'static [ValueType],
    /// How many arguments a call may have:
    ///
    /// - 0: exactly `args.len()`;
    /// - n > 0: from `args.len() - 1` to `args.len() - 1 + n`;
    /// - -1: `args.len() - 1` or more.
    ///
    /// [`Function::min_args`] and [`Function::max_args`] say the same as numbers.
    pub variadic: i32,
    /// What it returns.
    pub returns: ValueType,
    /// Needs [`crate::ParseOptions::experimental_functions`].
    pub experimental: bool,
}

impl Function {
    /// The fewest arguments a call may have.
    #[must_use]
    pub const fn min_args(&self) -> usize {
        if self.variadic == 0 { self.args.len() } else { self.args.len().saturating_sub(1) }
    }

    /// The most arguments a call may have; `None` = any number.
    #[must_use]
    pub const fn max_args(&self) -> Option<usize> {
        match self.variadic {
            0 => Some(self.args.len()),
            more if more > 0 => Some(self.min_args() + more as usize),
            _ => None,
        }
    }

    /// The type that argument `index` (from 0) must have; `None` where a call cannot have such an argument.
    #[must_use]
    pub fn arg_type(&self, index: usize) -> Option<ValueType> {
        if self.max_args().is_some_and(|max| index >= max) {
            return None;
        }
        self.args.get(index).or(self.args.last()).copied()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The function called `name`, compared case-sensitively; experimental ones included.
#[must_use]
pub fn lookup(name: &str) -> Option<&'static Function> {
    let index = TABLE.binary_search_by_key(&name, |function| function.name).ok()?;
    TABLE.get(index)
}

/// All functions, sorted by name, experimental ones included.
#[must_use]
pub fn all() -> &'static [Function] {
    TABLE
}

const S: ValueType = ValueType::Scalar;
const T: ValueType = ValueType::String;
const V: ValueType = ValueType::Vector;
const M: ValueType = ValueType::Matrix;

const fn stable(
    name: &'static str,
    args: &'static [ValueType],
    variadic: i32,
    returns: ValueType,
) -> Function {
    Function { name, args, variadic, returns, experimental: false }
}

const fn experimental(
    name: &'static str,
    args: &'static [ValueType],
    variadic: i32,
    returns: ValueType,
) -> Function {
    Function { name, args, variadic, returns, experimental: true }
}

/// Sorted by name, for [`lookup`].
static TABLE: &[Function] = &[
    stable("abs", &[V], 0, V),
    stable("absent", &[V], 0, V),
    stable("absent_over_time", &[M], 0, V),
    stable("acos", &[V], 0, V),
    stable("acosh", &[V], 0, V),
    stable("asin", &[V], 0, V),
    stable("asinh", &[V], 0, V),
    stable("atan", &[V], 0, V),
    stable("atanh", &[V], 0, V),
    stable("avg_over_time", &[M], 0, V),
    stable("ceil", &[V], 0, V),
    stable("changes", &[M], 0, V),
    stable("clamp", &[V, S, S], 0, V),
    stable("clamp_max", &[V, S], 0, V),
    stable("clamp_min", &[V, S], 0, V),
    stable("cos", &[V], 0, V),
    stable("cosh", &[V], 0, V),
    stable("count_over_time", &[M], 0, V),
    stable("day_of_month", &[V], 1, V),
    stable("day_of_week", &[V], 1, V),
    stable("day_of_year", &[V], 1, V),
    stable("days_in_month", &[V], 1, V),
    stable("deg", &[V], 0, V),
    stable("delta", &[M], 0, V),
    stable("deriv", &[M], 0, V),
    experimental("double_exponential_smoothing", &[M, S, S], 0, V),
    experimental("end", &[], 0, S),
    stable("exp", &[V], 0, V),
    stable("first_over_time", &[M], 0, V),
    stable("floor", &[V], 0, V),
    stable("histogram_avg", &[V], 0, V),
    stable("histogram_count", &[V], 0, V),
    stable("histogram_fraction", &[S, S, V], 0, V),
    stable("histogram_quantile", &[S, V], 0, V),
    experimental("histogram_quantiles", &[V, T, S, S], 9, V),
    stable("histogram_stddev", &[V], 0, V),
    stable("histogram_stdvar", &[V], 0, V),
    stable("histogram_sum", &[V], 0, V),
    stable("hour", &[V], 1, V),
    stable("idelta", &[M], 0, V),
    stable("increase", &[M], 0, V),
    experimental("info", &[V, V], 1, V),
    stable("irate", &[M], 0, V),
    stable("label_join", &[V, T, T, T], -1, V),
    stable("label_replace", &[V, T, T, T, T], 0, V),
    stable("last_over_time", &[M], 0, V),
    stable("ln", &[V], 0, V),
    stable("log10", &[V], 0, V),
    stable("log2", &[V], 0, V),
    experimental("mad_over_time", &[M], 0, V),
    experimental("max_of", &[S, S], 0, S),
    stable("max_over_time", &[M], 0, V),
    experimental("min_of", &[S, S], 0, S),
    stable("min_over_time", &[M], 0, V),
    stable("minute", &[V], 1, V),
    stable("month", &[V], 1, V),
    stable("pi", &[], 0, S),
    stable("predict_linear", &[M, S], 0, V),
    stable("present_over_time", &[M], 0, V),
    stable("quantile_over_time", &[S, M], 0, V),
    stable("rad", &[V], 0, V),
    experimental("range", &[], 0, S),
    stable("rate", &[M], 0, V),
    stable("resets", &[M], 0, V),
    stable("round", &[V, S], 1, V),
    stable("scalar", &[V], 0, S),
    stable("sgn", &[V], 0, V),
    stable("sin", &[V], 0, V),
    stable("sinh", &[V], 0, V),
    stable("sort", &[V], 0, V),
    experimental("sort_by_label", &[V, T], -1, V),
    experimental("sort_by_label_desc", &[V, T], -1, V),
    stable("sort_desc", &[V], 0, V),
    stable("sqrt", &[V], 0, V),
    experimental("start", &[], 0, S),
    experimental("start_timestamp", &[V], 0, V),
    stable("stddev_over_time", &[M], 0, V),
    stable("stdvar_over_time", &[M], 0, V),
    experimental("step", &[], 0, S),
    stable("sum_over_time", &[M], 0, V),
    stable("tan", &[V], 0, V),
    stable("tanh", &[V], 0, V),
    stable("time", &[], 0, S),
    stable("timestamp", &[V], 0, V),
    experimental("ts_of_first_over_time", &[M], 0, V),
    experimental("ts_of_last_over_time", &[M], 0, V),
    experimental("ts_of_max_over_time", &[M], 0, V),
    experimental("ts_of_min_over_time", &[M], 0, V),
    stable("vector", &[S], 0, V),
    stable("year", &[V], 1, V),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_unique_and_found() {
        assert!(all().windows(2).all(|pair| pair[0].name < pair[1].name));
        for function in all() {
            assert_eq!(lookup(function.name), Some(function));
        }
        assert_eq!(lookup("RATE"), None);
        assert_eq!(lookup("ra"), None);
    }

    #[test]
    fn argument_counts() {
        for (name, min, max) in [
            ("pi", 0, Some(0)),
            ("abs", 1, Some(1)),
            ("round", 1, Some(2)),
            ("hour", 0, Some(1)),
            ("info", 1, Some(2)),
            ("clamp", 3, Some(3)),
            ("label_join", 3, None),
            ("sort_by_label", 1, None),
            ("histogram_quantiles", 3, Some(12)),
        ] {
            let function = lookup(name).unwrap();
            assert_eq!((function.min_args(), function.max_args()), (min, max), "{name}");
        }
        assert!(
            all().iter().all(|f| f.variadic == 0 || !f.args.is_empty()),
            "a variadic function lists a type"
        );
        let quantiles = lookup("histogram_quantiles").unwrap();
        assert_eq!(quantiles.arg_type(0), Some(ValueType::Vector));
        assert_eq!(quantiles.arg_type(11), Some(ValueType::Scalar));
        assert_eq!(quantiles.arg_type(12), None);
        assert_eq!(lookup("label_join").unwrap().arg_type(100), Some(ValueType::String));
        assert_eq!(lookup("abs").unwrap().arg_type(1), None);
    }
}
