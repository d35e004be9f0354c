//! How histograms are written: as `count_values` shows them, and as literals of PromQL tests.

use std::{fmt, sync::Arc};

use super::{
    BUCKETS_MAX, Bucket, Combined, CounterResetHint, FloatHistogram, HistogramError, IncompatibleHistograms,
    Layout, NativeHistogram, Numbers, Span, buckets::Place,
};
use crate::float;

/// Most histograms one literal may stand for.
const SEQUENCE_MAX: usize = 1_000_000;

/// `{count:5, sum:18.4, [-1,-0.5):1, [-0.001,0.001]:2, (1,2]:1}`: what Prometheus' text of a histogram is. Empty buckets
/// are left out.
impl fmt::Display for FloatHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", float::general(self.count), float::general(self.sum))?;
        // A zero bucket that holds less than nothing is shown here too.
        let zero = std::iter::once((Place::Zero, self.zero_count));
        for (place, count) in self.negative_places_back().chain(zero).chain(self.positive_places()) {
            if count != 0.0 {
                write!(f, ", {}", self.layout().bucket(place, count))?;
            }
        }
        f.write_str("}")
    }
}

/// `(1,2]:3`, `[-2,-1):3`: the ends, a bracket where the end belongs to it, and the count.
impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.lower_inclusive { '[' } else { '(' };
        let close = if self.upper_inclusive { ']' } else { ')' };
        let [lower, upper, count] = [self.lower, self.upper, self.count].map(float::general);
        write!(f, "{open}{lower},{upper}{close}:{count}")
    }
}

impl FloatHistogram {
    /// As a literal of PromQL tests: `{{count:4 sum:5 buckets:[1 2 1]}}`. Gaps between buckets are filled with empty
    /// ones; of more than [`BUCKETS_MAX`] buckets so many are shown.
    #[must_use]
    pub fn to_literal(&self) -> String {
        let mut items: Vec<String> = Vec::new();
        if self.layout.schema() != 0 {
            items.push(format!("schema:{}", self.layout.schema()));
        }
        let numbers = [
            ("count", self.count),
            ("sum", self.sum),
            ("z_bucket", self.zero_count),
            ("z_bucket_w", self.layout.zero_threshold()),
        ];
        let shown = numbers.iter().filter(|(_, number)| *number != 0.0);
        items.extend(shown.map(|(key, number)| format!("{key}:{}", float::general(*number))));
        if self.layout.is_custom() {
            items.push(format!("custom_values:[{}]", spaced(self.layout.custom_values())));
        }
        match self.hint {
            CounterResetHint::Unknown => {}
            CounterResetHint::Reset => items.push("counter_reset_hint:reset".to_owned()),
            CounterResetHint::NotReset => items.push("counter_reset_hint:not_reset".to_owned()),
            CounterResetHint::Gauge => items.push("counter_reset_hint:gauge".to_owned()),
        }
        let sides =
            [("", self.positive_places().collect()), ("n_", self.negative_places().collect::<Vec<_>>())];
        for (prefix, places) in sides {
            let (offset, counts) = filled(&places);
            if counts.is_empty() {
                continue;
            }
            if offset != 0 {
                items.push(format!("{prefix}offset:{offset}"));
            }
            items.push(format!("{prefix}buckets:[{}]", spaced(&counts)));
        }
        format!("{{{{{}}}}}", items.join(" "))
    }

    /// Whether both are the same once they are compact, where counts and sums that `close` accepts are the same.
    /// Resolution, zero threshold and custom bounds have to be equal; hints are not looked at.
    #[must_use]
    pub fn close_to(&self, other: &Self, close: impl Fn(f64, f64) -> bool) -> bool {
        let (mut a, mut b) = (self.clone(), other.clone());
        a.compact();
        b.compact();
        a.layout == b.layout
            && close(a.sum, b.sum)
            && close(a.count, b.count)
            && close(a.zero_count, b.zero_count)
            && a.buckets.iter().zip(&b.buckets).all(|(a, b)| close(*a, *b))
    }
}

fn spaced(numbers: &[f64]) -> String {
    numbers.iter().map(|number| float::general(*number)).collect::<Vec<_>>().join(" ")
}

/// The buckets that hold something and those between them, from the index given.
fn filled(places: &[(Place, f64)]) -> (i32, Vec<f64>) {
    let mut populated = places
        .iter()
        .filter_map(|(place, count)| match place {
            Place::Positive(index) | Place::Negative(index) if *count != 0.0 => Some((*index, *count)),
            _ => None,
        })
        .peekable();
    let offset = populated.peek().map_or(0, |(index, _)| *index);
    let mut counts: Vec<f64> = Vec::new();
    for (index, count) in populated {
        let at = usize::try_from(i64::from(index) - i64::from(offset)).unwrap_or(usize::MAX);
        if at >= BUCKETS_MAX {
            break;
        }
        counts.resize(at, 0.0);
        counts.push(count);
    }
    (offset, counts)
}

/// A literal of PromQL tests that stands for one or several histograms: `{{...}}`, `{{...}}x3` (four of it),
/// `{{...}}+{{...}}x3` (the first, and three times one more of the second).
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramLiteral {
    /// The first histogram.
    pub histogram: FloatHistogram,
    /// What each next one has more, and whether it has that less.
    pub increment: Option<(FloatHistogram, bool)>,
    /// How many follow the first.
    pub times: usize,
    /// Whether the last histogram written says `counter_reset_hint`, whatever it is.
    pub hint_given: bool,
}

/// Why a literal cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LiteralError {
    /// It does not begin with `{{`, does not end, or something else stands behind it.
    #[error("no histogram literal: {0:?}")]
    Form(String),
    /// Something that is not a key with a value that it may have.
    #[error("invalid part of a histogram literal: {0:?}")]
    Item(String),
    /// A key twice.
    #[error("duplicate key {0:?} in histogram")]
    Duplicate(String),
    /// It is none that can be.
    #[error("invalid histogram")]
    Histogram(#[from] HistogramError),
    /// The increment is coarser than what it is added to, or one of them has custom buckets.
    #[error("the increment of a histogram is coarser than the histogram or of another kind")]
    Increment,
    /// More than a million histograms.
    #[error("more than {SEQUENCE_MAX} histograms")]
    TooMany,
}

impl HistogramLiteral {
    /// Reads a literal.
    ///
    /// # Errors
    /// See [`LiteralError`].
    pub fn parse(text: &str) -> Result<Self, LiteralError> {
        let form = || LiteralError::Form(text.to_owned());
        let (first, rest) = split_braces(text).ok_or_else(form)?;
        let (histogram, mut hint_given) = read_histogram(first)?;
        let mut increment = None;
        let mut rest = rest;
        if let Some(tail) = rest.strip_prefix(['+', '-']) {
            let (second, behind) = split_braces(tail).ok_or_else(form)?;
            let (second, given) = read_histogram(second)?;
            let (from, by) = (histogram.layout(), second.layout());
            if from.is_custom() != by.is_custom() || from.schema() > by.schema() {
                return Err(LiteralError::Increment);
            }
            hint_given = given;
            increment = Some((second, rest.starts_with('-')));
            rest = behind;
        }
        let times = match rest.strip_prefix('x') {
            Some(times) => times.parse().map_err(|_| form())?,
            None if rest.is_empty() && increment.is_none() => 0,
            None => return Err(form()),
        };
        if times >= SEQUENCE_MAX {
            return Err(LiteralError::TooMany);
        }
        Ok(Self { histogram, increment, times, hint_given })
    }

    /// The histograms it stands for, in order.
    ///
    /// # Errors
    /// [`IncompatibleHistograms`], which [`HistogramLiteral::parse`] has ruled out.
    pub fn histograms(&self) -> Result<Vec<FloatHistogram>, IncompatibleHistograms> {
        let mut current = self.histogram.clone();
        let mut out = vec![current.clone()];
        for _ in 0..self.times {
            let _: Combined = match &self.increment {
                None => Combined::default(),
                Some((by, false)) => current.add(by)?,
                Some((by, true)) => current.subtract(by)?,
            };
            out.push(current.clone());
        }
        Ok(out)
    }
}

/// What stands between `{{` and `}}`, and what follows.
fn split_braces(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("{{")?.split_once("}}")
}

/// Keys and values of a literal.
#[derive(Debug, Default)]
struct Fields {
    seen: Vec<String>,
    schema: i32,
    numbers: Numbers<f64>,
    zero_threshold: f64,
    custom_values: Vec<f64>,
    offset: i32,
    negative_offset: i32,
    negative_buckets: Vec<f64>,
}

impl Default for Numbers<f64> {
    fn default() -> Self {
        Self { hint: CounterResetHint::Unknown, sum: 0.0, count: 0.0, zero_count: 0.0, buckets: Vec::new() }
    }
}

fn read_histogram(text: &str) -> Result<(FloatHistogram, bool), LiteralError> {
    let mut fields = Fields::default();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let item = || LiteralError::Item(rest.to_owned());
        let (key, tail) = rest.split_once(':').ok_or_else(item)?;
        let (value, behind) = if tail.starts_with('[') {
            let end = tail.find(']').ok_or_else(item)? + 1;
            tail.split_at(end)
        } else {
            tail.split_at(tail.find(char::is_whitespace).unwrap_or(tail.len()))
        };
        if !behind.is_empty() && !behind.starts_with(char::is_whitespace) {
            return Err(item());
        }
        if fields.seen.iter().any(|seen| seen == key) {
            return Err(LiteralError::Duplicate(key.to_owned()));
        }
        fields.seen.push(key.to_owned());
        fields.set(key, value).ok_or_else(item)?;
        rest = behind.trim_start();
    }
    let hint_given = fields.seen.iter().any(|seen| seen == "counter_reset_hint");
    Ok((fields.build()?, hint_given))
}

impl Fields {
    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let number = || value.parse::<f64>().ok();
        let numbers = || -> Option<Vec<f64>> {
            let inner = value.strip_prefix('[')?.strip_suffix(']')?;
            inner.split_whitespace().map(|number| number.parse().ok()).collect()
        };
        match key {
            "schema" => self.schema = value.parse().ok()?,
            "sum" => self.numbers.sum = number()?,
            "count" => self.numbers.count = number()?,
            "z_bucket" => self.numbers.zero_count = number()?,
            "z_bucket_w" => self.zero_threshold = number()?,
            "custom_values" => self.custom_values = numbers()?,
            "buckets" => self.numbers.buckets = numbers()?,
            "offset" => self.offset = value.parse().ok()?,
            "n_buckets" => self.negative_buckets = numbers()?,
            "n_offset" => self.negative_offset = value.parse().ok()?,
            "counter_reset_hint" => {
                self.numbers.hint = match value {
                    "unknown" => CounterResetHint::Unknown,
                    "reset" => CounterResetHint::Reset,
                    "not_reset" => CounterResetHint::NotReset,
                    "gauge" => CounterResetHint::Gauge,
                    _ => return None,
                };
            }
            _ => return None,
        }
        Some(())
    }

    fn build(mut self) -> Result<FloatHistogram, LiteralError> {
        let span = |offset: i32, buckets: &[f64]| -> Vec<Span> {
            let length = u32::try_from(buckets.len()).unwrap_or(u32::MAX);
            if length == 0 { Vec::new() } else { vec![Span { offset, length }] }
        };
        let layout = Layout::new(
            self.schema,
            self.zero_threshold,
            &span(self.offset, &self.numbers.buckets),
            &span(self.negative_offset, &self.negative_buckets),
            self.custom_values,
        )?;
        self.numbers.buckets.append(&mut self.negative_buckets);
        let Numbers { hint, sum, count, zero_count, buckets } = self.numbers;
        // One span of as many buckets as there are on each side.
        Ok(NativeHistogram { layout: Arc::new(layout), hint, sum, count, zero_count, buckets })
    }
}
