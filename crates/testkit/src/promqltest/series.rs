//! Series notation: `metric{label="value"} 1 _ 2x3 0+10x5 stale {{count:1 sum:2}}x4`.

use std::sync::Arc;

use chronolith_model::{
    FloatHistogram, Labels, LabelsBuilder, METRIC_NAME, histogram::HistogramLiteral, parse_duration,
    stale_nan,
};

/// Most values one line may stand for.
pub const SERIES_VALUES_MAX: usize = 1_000_000;

/// A series with the values of one line.
#[derive(Clone, Debug)]
pub struct SeriesLine {
    /// Its labels.
    pub labels: Labels,
    /// Its values, one per step.
    pub values: Vec<SeriesValue>,
}

/// The value at one step.
#[derive(Clone, Debug, PartialEq)]
pub enum SeriesValue {
    /// `_`
    Missing,
    /// A float; the stale marker too.
    Float(f64),
    /// A native histogram.
    Histogram(ScriptHistogram),
}

/// A native histogram of a script.
#[derive(Clone, Debug, PartialEq)]
pub struct ScriptHistogram {
    /// What it says.
    pub histogram: Arc<FloatHistogram>,
    /// The script says its hint too, which counts where it is expected.
    pub hint_given: bool,
}

/// A `metric{...}@st` line: start timestamps of the series in the next line.
#[derive(Clone, Debug)]
pub struct StartLine {
    /// The series.
    pub labels: Labels,
    /// Per step, milliseconds to add to the sample's timestamp.
    pub offsets: Vec<Option<i64>>,
}

/// Why a line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeriesError {
    /// The labels are malformed.
    #[error("invalid series {text:?}: expected {expected}")]
    Labels {
        /// The line from there on.
        text: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// A value is malformed.
    #[error("invalid value {0:?}")]
    Value(String),
    /// A histogram is malformed; and why.
    #[error("invalid histogram {0:?}: {1}")]
    Histogram(String, String),
    /// More values than [`SERIES_VALUES_MAX`].
    #[error("more than {SERIES_VALUES_MAX} values")]
    TooMany,
}

/// Reads a series and its values.
///
/// # Errors
/// See [`SeriesError`].
pub fn parse_series(line: &str) -> Result<SeriesLine, SeriesError> {
    let (labels, mut rest) = parse_metric(line)?;
    let mut values = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(SeriesLine { labels, values });
        }
        let (item, next) = split_item(rest)?;
        rest = next;
        if item.starts_with("{{") {
            push_histograms(item, &mut values)?;
        } else {
            push_float(item, &mut values)?;
        }
    }
}

/// Reads a line of start timestamps; `None` if the line is another one.
///
/// # Errors
/// See [`SeriesError`].
pub fn parse_start_line(line: &str) -> Result<Option<StartLine>, SeriesError> {
    let (labels, rest) = parse_metric(line)?;
    let Some(rest) = rest.strip_prefix("@st") else {
        return Ok(None);
    };
    let mut offsets = Vec::new();
    for item in rest.split_whitespace() {
        let invalid = || SeriesError::Value(item.to_owned());
        let (head, count) = split_count(item)?;
        if head == "_" {
            let count = count.unwrap_or(1);
            push_repeated(&mut offsets, None, count)?;
            continue;
        }
        let (base, increment) = split_increment(head);
        let base = signed_duration(base).ok_or_else(invalid)?;
        let increment =
            if increment.is_empty() { 0 } else { signed_duration(increment).ok_or_else(invalid)? };
        let mut offset = base;
        for _ in 0..count.map_or(1, |count| count + 1) {
            push_repeated(&mut offsets, Some(offset), 1)?;
            offset = offset.checked_add(increment).ok_or_else(invalid)?;
        }
    }
    Ok(Some(StartLine { labels, offsets }))
}

/// The text a quoted string stands for: `"..."`, `'...'` with Go's escapes, or raw in backquotes.
#[must_use]
pub fn unquote(text: &str) -> Option<String> {
    let (value, rest) = take_string(text)?;
    rest.trim().is_empty().then_some(value)
}

/// The labels at the start of `line` and what follows them.
fn parse_metric(line: &str) -> Result<(Labels, &str), SeriesError> {
    let invalid = |text: &str, expected| SeriesError::Labels { text: text.to_owned(), expected };
    let name_end =
        line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(line.len());
    let (name, rest) = line.split_at(name_end);
    let mut labels = LabelsBuilder::default();
    if !name.is_empty() {
        labels.set(METRIC_NAME, name);
    }
    let Some(mut rest) = rest.strip_prefix('{') else {
        if name.is_empty() {
            return Err(invalid(line, "a metric name or '{'"));
        }
        return Ok((labels.build(), rest));
    };
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels.build(), rest));
        }
        let (key, after_key) = if let Some(quoted) = take_string(rest) {
            quoted
        } else {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            if end == 0 {
                return Err(invalid(rest, "a label name or '}'"));
            }
            (rest[..end].to_owned(), &rest[end..])
        };
        let after_key = after_key.trim_start();
        rest = if let Some(after) = after_key.strip_prefix('=') {
            let (value, after) =
                take_string(after.trim_start()).ok_or_else(|| invalid(after, "a quoted value"))?;
            labels.set(key, value);
            after
        } else if rest.starts_with(['"', '\'', '`']) {
            // A lone quoted string is the metric name.
            labels.set(METRIC_NAME, key);
            after_key
        } else {
            return Err(invalid(after_key, "'='"));
        };
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(',') {
            rest = after;
        } else if !rest.starts_with('}') {
            return Err(invalid(rest, "',' or '}'"));
        }
    }
}

/// A quoted string at the start of `text`, and what follows it.
fn take_string(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let body = &text[1..];
    if quote == '`' {
        let end = body.find('`')?;
        return Some((body[..end].to_owned(), &body[end + 1..]));
    }
    let mut out = Vec::new();
    let mut rest = body;
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        if c == quote {
            return Some((String::from_utf8(out).ok()?, rest));
        }
        if c == '\\' {
            rest = take_escape(rest, quote, &mut out)?;
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// One escape sequence behind its backslash.
fn take_escape<'a>(text: &'a str, quote: char, out: &mut Vec<u8>) -> Option<&'a str> {
    let c = text.chars().next()?;
    let rest = &text[c.len_utf8()..];
    let simple = match c {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        c if c == quote => c as u8,
        'x' => {
            out.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
            return rest.get(2..);
        }
        'u' | 'U' => {
            let digits = if c == 'u' { 4 } else { 8 };
            let c = char::from_u32(u32::from_str_radix(rest.get(..digits)?, 16).ok()?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return rest.get(digits..);
        }
        '0'..='7' => {
            out.push(u8::from_str_radix(text.get(..3)?, 8).ok()?);
            return text.get(3..);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}

/// The next item, which ends at white space outside `{{ }}`.
fn split_item(text: &str) -> Result<(&str, &str), SeriesError> {
    let mut end = 0;
    while let Some(rest) = text.get(end..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("{{") {
            end += rest.find("}}").ok_or_else(|| SeriesError::Value(text.to_owned()))? + 2;
        } else if rest.starts_with(char::is_whitespace) {
            break;
        } else {
            end += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    Ok(text.split_at(end))
}

/// The histograms of `{{...}}`, `{{...}}xN`, `{{...}}+{{...}}xN` or `{{...}}-{{...}}xN`.
fn push_histograms(item: &str, values: &mut Vec<SeriesValue>) -> Result<(), SeriesError> {
    let invalid = |why: String| SeriesError::Histogram(item.to_owned(), why);
    let literal = HistogramLiteral::parse(item).map_err(|error| invalid(error.to_string()))?;
    let hint_given = literal.hint_given;
    for histogram in literal.histograms().map_err(|error| invalid(error.to_string()))? {
        let histogram = ScriptHistogram { histogram: Arc::new(histogram), hint_given };
        push_repeated(values, SeriesValue::Histogram(histogram), 1)?;
    }
    Ok(())
}

fn push_float(item: &str, values: &mut Vec<SeriesValue>) -> Result<(), SeriesError> {
    let invalid = || SeriesError::Value(item.to_owned());
    let (head, count) = split_count(item)?;
    if head == "_" {
        return push_repeated(values, SeriesValue::Missing, count.unwrap_or(1));
    }
    // `axN` is a, repeated N times more.
    let count = count.map_or(Some(1), |count| count.checked_add(1)).ok_or_else(invalid)?;
    if head == "stale" {
        return push_repeated(values, SeriesValue::Float(stale_nan()), count);
    }
    let (base, increment) = split_increment(head);
    let mut value = number(base).ok_or_else(invalid)?;
    if increment.is_empty() {
        return push_repeated(values, SeriesValue::Float(value), count);
    }
    let increment = number(increment).ok_or_else(invalid)?;
    for _ in 0..count {
        push_repeated(values, SeriesValue::Float(value), 1)?;
        value += increment;
    }
    Ok(())
}

fn push_repeated<T: Clone>(values: &mut Vec<T>, value: T, count: usize) -> Result<(), SeriesError> {
    if count > SERIES_VALUES_MAX - values.len() {
        return Err(SeriesError::TooMany);
    }
    values.resize(values.len() + count, value);
    Ok(())
}

/// Splits `<item>xN`.
fn split_count(item: &str) -> Result<(&str, Option<usize>), SeriesError> {
    match item.rsplit_once('x') {
        None => Ok((item, None)),
        Some((head, count)) => match count.parse::<usize>() {
            Ok(count) if count < SERIES_VALUES_MAX => Ok((head, Some(count))),
            Ok(_) => Err(SeriesError::TooMany),
            Err(_) => Err(SeriesError::Value(item.to_owned())),
        },
    }
}

/// Splits `a+b` or `a-b` into `a` and the signed `b`, which is empty where there is none.
fn split_increment(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let sign = (1..bytes.len()).find(|&i| {
        let exponent = matches!(bytes[i - 1], b'e' | b'E') && i >= 2 && bytes[i - 2].is_ascii_digit();
        matches!(bytes[i], b'+' | b'-') && !exponent
    });
    text.split_at(sign.unwrap_or(text.len()))
}

fn split_sign(text: &str) -> (f64, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// A number as PromQL writes it, with a sign: a duration is its seconds.
fn number(text: &str) -> Option<f64> {
    let (sign, digits) = split_sign(text);
    if digits.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    if digits.eq_ignore_ascii_case("inf") {
        return Some(sign * f64::INFINITY);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let value = match digits.replace('_', "").parse::<f64>() {
        Ok(value) => value,
        Err(_) => parse_duration(digits)? as f64 / 1000.0,
    };
    Some(sign * value)
}

fn signed_duration(text: &str) -> Option<i64> {
    let (sign, digits) = split_sign(text);
    let ms = parse_duration(digits)?;
    Some(if sign < 0.0 { -ms } else { ms })
}
