//! The text of a script and the commands in it.

use chronolith_model::{Timestamp, parse_duration};
use regex_automata::meta::Regex;

use super::series::{SeriesError, SeriesLine, StartLine, parse_series, parse_start_line};

/// A script that cannot be read, and where.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct ScriptError {
    /// The script's name.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: ScriptProblem,
}

/// What can be wrong with a script.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptProblem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(String),
    /// A line outside a block that is no command.
    #[error("invalid command {0:?}")]
    InvalidCommand(String),
    /// A command that lacks a part.
    #[error("invalid {command} command: expected {expected}")]
    Incomplete {
        /// `load` or `eval`.
        command: &'static str,
        /// Its form.
        expected: &'static str,
    },
    /// No Prometheus duration.
    #[error("invalid duration {0:?}")]
    InvalidDuration(String),
    /// A line of series and values that cannot be read.
    #[error("{0}")]
    InvalidSeries(SeriesError),
    /// An `expect` line of no known form, or one that contradicts another.
    #[error("invalid expectation {0:?}: {1}")]
    InvalidExpectation(String, &'static str),
    /// A regular expression that does not compile.
    #[error("invalid regular expression {0:?}")]
    InvalidRegex(String),
    /// A start-timestamp line that is not followed by the sample line it belongs to.
    #[error("start timestamps of {0} without a sample line of the same series and length behind them")]
    StartTimestampsAlone(String),
    /// Storage refused samples.
    #[error("samples refused by storage: {0}")]
    Refused(String),
}

/// One command of a script.
#[derive(Clone, Debug)]
pub enum Command {
    /// `clear`: empties the storage.
    Clear,
    /// `load`: adds samples.
    Load(Load),
    /// `eval`: asks and compares.
    Eval(Box<Eval>),
}

/// A `load` block.
#[derive(Clone, Debug)]
pub struct Load {
    /// Line of the command, from 1.
    pub line: usize,
    /// Milliseconds between values; the first is at 0.
    pub step: i64,
    /// `load_with_nhcb`: classic histograms are loaded as native ones too.
    pub nhcb: bool,
    /// The series, with the start timestamps given for them.
    pub series: Vec<(SeriesLine, Option<StartLine>)>,
}

/// An `eval` block.
#[derive(Clone, Debug)]
pub struct Eval {
    /// Line of the command, from 1.
    pub line: usize,
    /// The command as written.
    pub command: String,
    /// The query.
    pub expr: String,
    /// When it is asked.
    pub time: EvalTime,
    /// What must come of it.
    pub expect: Expectations,
}

/// When a query is asked, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalTime {
    /// Once.
    Instant(Timestamp),
    /// At `start`, `start + step`, ... up to `end`.
    Range(Grid),
}

/// Evenly spaced times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// First time.
    pub start: Timestamp,
    /// Last time, inclusive.
    pub end: Timestamp,
    /// Distance, positive.
    pub step: i64,
}

/// What must come of a query.
#[derive(Clone, Debug, Default)]
pub struct Expectations {
    /// It must fail, with a text like this.
    pub fail: Option<TextMatch>,
    /// It must warn; each of these must match a warning and each warning one of these.
    pub warn: Vec<TextMatch>,
    /// The same for infos.
    pub info: Vec<TextMatch>,
    /// It must not warn.
    pub no_warn: bool,
    /// It must not have infos.
    pub no_info: bool,
    /// The result must be in the order of the lines.
    pub ordered: bool,
    /// The instant query gives a range vector with values at these times.
    pub range_vector: Option<Grid>,
    /// The value.
    pub value: ExpectedValue,
}

/// The expected value of a query.
#[derive(Clone, Debug)]
pub enum ExpectedValue {
    /// Series, in the order of the lines; none = an empty result.
    Series(Vec<SeriesLine>),
    /// A scalar.
    Scalar(f64),
    /// A string.
    String(String),
}

impl Default for ExpectedValue {
    fn default() -> Self {
        Self::Series(Vec::new())
    }
}

/// How a text must look.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// Any text.
    Any,
    /// This text.
    Exact(String),
    /// A text in which this is found.
    Regex(Box<Regex>, String),
}

impl TextMatch {
    /// Whether `text` looks so.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == text,
            Self::Regex(regex, _) => regex.is_match(text),
        }
    }

    fn regex(pattern: &str) -> Result<Self, ScriptProblem> {
        let regex = Regex::new(pattern).map_err(|_| ScriptProblem::InvalidRegex(pattern.to_owned()))?;
        Ok(Self::Regex(Box::new(regex), pattern.to_owned()))
    }
}

impl std::fmt::Display for TextMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any text"),
            Self::Exact(exact) => write!(f, "{exact:?}"),
            Self::Regex(_, pattern) => write!(f, "a text with {pattern:?}"),
        }
    }
}

/// The commands of the script `text`; `file` is its name in errors.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse_script(file: &str, text: &str) -> Result<Vec<Command>, ScriptError> {
    let mut lines = Lines::new(text);
    let mut commands = Vec::new();
    loop {
        match next_command(&mut lines) {
            Ok(Some(command)) => commands.push(command),
            Ok(None) => return Ok(commands),
            Err(problem) => return Err(ScriptError { file: file.to_owned(), line: lines.line, problem }),
        }
    }
}

/// Trimmed lines; comment lines are empty.
struct Lines<'a> {
    rest: std::iter::Peekable<std::str::Split<'a, char>>,
    /// Number of the line returned last.
    line: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text.split('\n').peekable(), line: 0 }
    }

    fn next(&mut self) -> Option<&'a str> {
        let line = self.rest.next()?.trim();
        self.line += 1;
        Some(if line.starts_with('#') { "" } else { line })
    }

    /// The next line of a block, `None` at its end.
    fn next_in_block(&mut self) -> Option<&'a str> {
        self.next().filter(|line| !line.is_empty())
    }
}

fn next_command(lines: &mut Lines<'_>) -> Result<Option<Command>, ScriptProblem> {
    let line = loop {
        match lines.next() {
            None => return Ok(None),
            Some("") => {}
            Some(line) => break line,
        }
    };
    let (word, _) = split_word(line);
    let word = word.to_ascii_lowercase();
    if word == "clear" {
        Ok(Some(Command::Clear))
    } else if word.starts_with("load") {
        parse_load(line, lines).map(|load| Some(Command::Load(load)))
    } else if word.starts_with("eval") {
        parse_eval(line, lines).map(|eval| Some(Command::Eval(Box::new(eval))))
    } else {
        Err(ScriptProblem::InvalidCommand(line.to_owned()))
    }
}

fn parse_load(command: &str, lines: &mut Lines<'_>) -> Result<Load, ScriptProblem> {
    let (word, step) = split_word(command);
    let nhcb = match word {
        "load" => false,
        "load_with_nhcb" => true,
        _ => return Err(ScriptProblem::InvalidCommand(command.to_owned())),
    };
    if step.is_empty() {
        return Err(ScriptProblem::Incomplete { command: "load", expected: "load <step:duration>" });
    }
    let mut load = Load { line: lines.line, step: duration(step)?, nhcb, series: Vec::new() };
    let mut starts: Option<StartLine> = None;
    while let Some(line) = lines.next_in_block() {
        if let Some(next) = parse_start_line(line).map_err(ScriptProblem::InvalidSeries)? {
            if let Some(starts) = starts.replace(next) {
                return Err(ScriptProblem::StartTimestampsAlone(starts.labels.to_string()));
            }
            continue;
        }
        let series = parse_series(line).map_err(ScriptProblem::InvalidSeries)?;
        let starts = starts.take();
        if let Some(starts) = &starts
            && (starts.labels != series.labels || starts.offsets.len() != series.values.len())
        {
            return Err(ScriptProblem::StartTimestampsAlone(starts.labels.to_string()));
        }
        // A series given twice in one block is what it is the last time.
        match load.series.iter_mut().find(|(known, _)| known.labels == series.labels) {
            Some(known) => *known = (series, starts),
            None => load.series.push((series, starts)),
        }
    }
    match starts {
        Some(starts) => Err(ScriptProblem::StartTimestampsAlone(starts.labels.to_string())),
        None => Ok(load),
    }
}

fn parse_eval(command: &str, lines: &mut Lines<'_>) -> Result<Eval, ScriptProblem> {
    const INSTANT: &str = "eval instant at <time> <query>";
    const RANGE: &str = "eval range from <start> to <end> step <step> <query>";
    let incomplete = |expected| ScriptProblem::Incomplete { command: "eval", expected };

    let (word, rest) = split_word(command);
    let mut expect = Expectations::default();
    match word.strip_prefix("eval") {
        Some("") => {}
        Some("_fail") => expect.fail = Some(TextMatch::Any),
        Some("_warn") => expect.warn.push(TextMatch::Any),
        Some("_info") => expect.info.push(TextMatch::Any),
        Some("_ordered") => expect.ordered = true,
        _ => return Err(ScriptProblem::InvalidCommand(command.to_owned())),
    }
    let (kind, rest) = split_word(rest);
    let (time, expr) = match kind {
        "instant" => {
            let (at, expr) = keyed(rest, "at").ok_or_else(|| incomplete(INSTANT))?;
            (EvalTime::Instant(duration(at)?), expr)
        }
        "range" if !expect.ordered => {
            let (start, rest) = keyed(rest, "from").ok_or_else(|| incomplete(RANGE))?;
            let (end, rest) = keyed(rest, "to").ok_or_else(|| incomplete(RANGE))?;
            let (step, expr) = keyed(rest, "step").ok_or_else(|| incomplete(RANGE))?;
            (EvalTime::Range(grid(start, end, step)?), expr)
        }
        "range" => return Err(incomplete(INSTANT)),
        _ => return Err(incomplete("eval instant ... or eval range ...")),
    };
    if expr.is_empty() {
        return Err(incomplete(if kind == "instant" { INSTANT } else { RANGE }));
    }
    let mut eval =
        Eval { line: lines.line, command: command.to_owned(), expr: expr.to_owned(), time, expect };
    while let Some(line) = lines.next_in_block() {
        if parse_expectation(line, &mut eval)? {
            break;
        }
    }
    let expect = &eval.expect;
    if expect.no_warn && !expect.warn.is_empty() || expect.no_info && !expect.info.is_empty() {
        return Err(ScriptProblem::InvalidExpectation(eval.command, "annotations both wanted and excluded"));
    }
    Ok(eval)
}

/// Reads one line behind an `eval`; true if it ends the block.
fn parse_expectation(line: &str, eval: &mut Eval) -> Result<bool, ScriptProblem> {
    let invalid = |why| ScriptProblem::InvalidExpectation(line.to_owned(), why);
    let (word, rest) = split_word(line);
    match word {
        "expect" => return parse_expect(rest, line, eval).map(|()| false),
        "expected_fail_message" | "expected_fail_regexp" => {
            if eval.expect.fail.is_none() {
                return Err(invalid("only below eval_fail"));
            }
            eval.expect.fail = Some(match word {
                "expected_fail_message" => TextMatch::Exact(rest.to_owned()),
                _ => TextMatch::regex(rest)?,
            });
            return Ok(true);
        }
        _ => {}
    }
    if rest.is_empty()
        && let Some(value) = parse_scalar(word)
    {
        eval.expect.value = ExpectedValue::Scalar(value);
        return Ok(true);
    }
    let series = parse_series(line).map_err(ScriptProblem::InvalidSeries)?;
    if matches!(eval.time, EvalTime::Instant(_))
        && eval.expect.range_vector.is_none()
        && series.values.len() != 1
    {
        return Err(invalid("an instant query has one value per series"));
    }
    match &mut eval.expect.value {
        ExpectedValue::Series(all) => {
            if all.iter().any(|known| known.labels == series.labels) {
                return Err(invalid("the series is expected twice"));
            }
            all.push(series);
        }
        ExpectedValue::Scalar(_) | ExpectedValue::String(_) => {
            return Err(invalid("another kind of value is expected already"));
        }
    }
    Ok(false)
}

/// Reads what stands behind `expect`.
fn parse_expect(text: &str, line: &str, eval: &mut Eval) -> Result<(), ScriptProblem> {
    let invalid = |why| ScriptProblem::InvalidExpectation(line.to_owned(), why);
    let (kind, rest) = split_word(text);
    let expect = &mut eval.expect;
    match kind {
        "string" => {
            let value = super::series::unquote(rest).ok_or_else(|| invalid("a quoted string is needed"))?;
            expect.value = ExpectedValue::String(value);
            return Ok(());
        }
        "range" => {
            let parts = rest
                .strip_prefix("vector")
                .and_then(|rest| keyed(rest.trim_start(), "from"))
                .and_then(|(start, rest)| keyed(rest, "to").map(|(end, rest)| (start, end, rest)))
                .and_then(|(start, end, rest)| keyed(rest, "step").map(|(step, _)| (start, end, step)));
            let Some((start, end, step)) = parts else {
                return Err(invalid("expect range vector from <start> to <end> step <step>"));
            };
            if !matches!(eval.time, EvalTime::Instant(_)) {
                return Err(invalid("only instant queries give range vectors"));
            }
            let grid = grid(start, end, step)?;
            eval.time = EvalTime::Instant(grid.end);
            expect.range_vector = Some(grid);
            return Ok(());
        }
        _ => {}
    }
    let text = if let Some(exact) = rest.strip_prefix("msg:") {
        TextMatch::Exact(exact.trim().to_owned())
    } else if let Some(pattern) = rest.strip_prefix("regex:") {
        TextMatch::regex(pattern.trim())?
    } else if rest.is_empty() {
        TextMatch::Any
    } else {
        return Err(invalid("msg: or regex: may follow"));
    };
    match kind {
        "fail" if expect.fail.is_some() => return Err(invalid("at most one expected failure")),
        "fail" => expect.fail = Some(text),
        "warn" => expect.warn.push(text),
        "info" => expect.info.push(text),
        "no_warn" => expect.no_warn = true,
        "no_info" => expect.no_info = true,
        "ordered" => expect.ordered = true,
        _ => return Err(invalid("unknown kind")),
    }
    Ok(())
}

/// The first word and the rest behind the white space.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    match text.find(char::is_whitespace) {
        Some(end) => (&text[..end], text[end..].trim_start()),
        None => (text, ""),
    }
}

/// The word behind `key` and the rest.
fn keyed<'a>(text: &'a str, key: &str) -> Option<(&'a str, &'a str)> {
    let (word, rest) = split_word(text);
    let (value, rest) = split_word(rest);
    (word == key && !value.is_empty()).then_some((value, rest))
}

fn duration(text: &str) -> Result<i64, ScriptProblem> {
    parse_duration(text).ok_or_else(|| ScriptProblem::InvalidDuration(text.to_owned()))
}

fn grid(start: &str, end: &str, step: &str) -> Result<Grid, ScriptProblem> {
    let grid = Grid { start: duration(start)?, end: duration(end)?, step: duration(step)? };
    if grid.step <= 0 {
        return Err(ScriptProblem::InvalidDuration(step.to_owned()));
    }
    Ok(grid)
}

/// A bare number: decimal, `0x1f`, `NaN`, `+Inf` ...
fn parse_scalar(text: &str) -> Option<f64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok().map(|value| sign * value as f64);
    }
    // A metric may be called like a number as Rust spells some of them (`infinity`), but not like one of Go's.
    let plain = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let named = digits.eq_ignore_ascii_case("nan") || digits.eq_ignore_ascii_case("inf");
    if plain || named { digits.parse::<f64>().ok().map(|value| sign * value) } else { None }
}
