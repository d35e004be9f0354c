//! Compiled label matchers.

mod go_syntax;
mod shape;

use std::fmt;

use chronolith_model::{MatchOp, Matcher};
use regex_automata::{
    Anchored, Input,
    meta::{self, Regex},
};
use regex_syntax::{
    ParserBuilder,
    hir::{Hir, Look},
};

use crate::error::{MatcherError, SyntaxError};
use shape::Shape;

/// Longest regular expression, in bytes. Dashboards send alternations of thousands of names; those are no automaton.
pub const REGEX_BYTES_MAX: usize = 512 << 10;
/// Largest automaton of one expression, in bytes.
pub const REGEX_AUTOMATON_BYTES_MAX: usize = 8 << 20;
/// Largest cache of the lazy automaton, in bytes, for each thread that matches.
const REGEX_CACHE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of the syntax tree; each group is up to four levels (group, repetition, alternation, concatenation).
const NEST_MAX: u32 = 420;

/// A [`Matcher`] ready to test values. Regular expressions are Go's syntax and semantics, anchored at both ends, `.`
/// matches newlines.
///
/// ```
/// # use chronolith_index::CompiledMatcher;
/// # use chronolith_model::{MatchOp, Matcher};
/// let matcher = CompiledMatcher::new(&Matcher::new("job", MatchOp::Regex, "api|web.*"))?;
/// assert!(matcher.matches("web-1") && !matcher.matches("api-1") && !matcher.matches_empty());
/// # Ok::<(), chronolith_index::MatcherError>(())
/// ```
pub struct CompiledMatcher {
    matcher: Matcher,
    test: Test,
    negated: bool,
    matches_empty: bool,
}

/// The positive form of the condition.
enum Test {
    Anything,
    NonEmpty,
    /// Sorted, without repetitions.
    Literals(Box<[Box<str>]>),
    Prefix {
        text: Box<str>,
        more: bool,
    },
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex {
        prefix: Box<str>,
        regex: Box<Regex>,
    },
}

/// What the positive form of a matcher selects, for whoever looks values up instead of testing them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selects<'a> {
    /// Every value, the empty one too.
    Anything,
    /// Every value but the empty one.
    NonEmpty,
    /// Exactly these values, sorted; the empty one may be among them.
    Literals(&'a [Box<str>]),
    /// Values that begin with this text (possibly empty) and pass [`CompiledMatcher::matches_positive`].
    Scan {
        /// What all of them begin with.
        prefix: &'a str,
    },
}

/// Rewrites a regular expression in Go's syntax for `regex-syntax` (Unicode on), with its groups capturing in the order
/// of their parentheses, and tells their names. For users that need more than a match, such as `label_replace`.
///
/// # Errors
/// When it does not parse as Go would.
pub fn translate_captures(pattern: &str) -> Result<(String, Vec<Option<String>>), SyntaxError> {
    go_syntax::translate_captures(pattern)
}

impl CompiledMatcher {
    /// Compiles `matcher`.
    ///
    /// # Errors
    /// When its regular expression does not parse or is above a limit.
    pub fn new(matcher: &Matcher) -> Result<Self, MatcherError> {
        let test = match matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => Test::Literals(Box::new([matcher.value.as_str().into()])),
            MatchOp::Regex | MatchOp::NotRegex => Test::parse(&matcher.value)?,
        };
        let negated = matches!(matcher.op, MatchOp::NotEqual | MatchOp::NotRegex);
        let matches_empty = test.accepts("") != negated;
        Ok(Self { matcher: matcher.clone(), test, negated, matches_empty })
    }

    /// Compiles all of `matchers`.
    ///
    /// # Errors
    /// The first error of [`CompiledMatcher::new`].
    pub fn compile_all(matchers: &[Matcher]) -> Result<Vec<Self>, MatcherError> {
        matchers.iter().map(Self::new).collect()
    }

    /// The matcher as it was written.
    #[must_use]
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// The label in question.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.matcher.name
    }

    /// Whether a series whose label has `value` is selected; a missing label has the empty value.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        self.test.accepts(value) != self.negated
    }

    /// Whether a series without the label is selected.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.matches_empty
    }

    /// Whether the operator is `!=` or `!~`.
    #[must_use]
    pub fn is_negated(&self) -> bool {
        self.negated
    }

    /// [`CompiledMatcher::matches`] of the same condition without its negation.
    #[must_use]
    pub fn matches_positive(&self, value: &str) -> bool {
        self.test.accepts(value)
    }

    /// What the condition without its negation selects.
    #[must_use]
    pub fn selects(&self) -> Selects<'_> {
        match &self.test {
            Test::Anything => Selects::Anything,
            Test::NonEmpty => Selects::NonEmpty,
            Test::Literals(texts) => Selects::Literals(texts),
            Test::Prefix { text, .. } => Selects::Scan { prefix: text },
            Test::Suffix(_) | Test::Contains(_) => Selects::Scan { prefix: "" },
            Test::Regex { prefix, .. } => Selects::Scan { prefix },
        }
    }
}

impl fmt::Debug for CompiledMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompiledMatcher({})", self.matcher)
    }
}

impl Test {
    fn parse(pattern: &str) -> Result<Self, MatcherError> {
        if pattern.len() > REGEX_BYTES_MAX {
            return Err(MatcherError::TooLong { bytes: pattern.len(), max: REGEX_BYTES_MAX });
        }
        let translated = go_syntax::translate(pattern)?;
        let too_large =
            || MatcherError::TooLarge { fragment: fragment(pattern), max: REGEX_AUTOMATON_BYTES_MAX };
        let hir = ParserBuilder::new()
            .utf8(false)
            .dot_matches_new_line(true)
            .nest_limit(NEST_MAX)
            .build()
            .parse(&translated)
            .map_err(|error| match &error {
                regex_syntax::Error::Parse(e)
                    if matches!(e.kind(), regex_syntax::ast::ErrorKind::NestLimitExceeded(_)) =>
                {
                    SyntaxError::new("expression nests too deeply", pattern)
                }
                _ => SyntaxError::new("invalid or unsupported expression", pattern),
            })?;
        Ok(match Shape::of(&hir) {
            Shape::Anything => Self::Anything,
            Shape::NonEmpty => Self::NonEmpty,
            Shape::Literals(texts) => Self::Literals(texts),
            Shape::Prefix { text, more } => Self::Prefix { text, more },
            Shape::Suffix(text) => Self::Suffix(text),
            Shape::Contains(text) => Self::Contains(text),
            Shape::Other { prefix } => {
                let anchored = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
                let config = meta::Config::new()
                    .nfa_size_limit(Some(REGEX_AUTOMATON_BYTES_MAX))
                    .hybrid_cache_capacity(REGEX_CACHE_BYTES_MAX)
                    .which_captures(regex_automata::nfa::thompson::WhichCaptures::None);
                let regex = meta::Builder::new()
                    .configure(config)
                    .build_from_hir(&anchored)
                    .map_err(|_| too_large())?;
                Self::Regex { prefix, regex: Box::new(regex) }
            }
        })
    }

    fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::NonEmpty => !value.is_empty(),
            Self::Literals(texts) => match &**texts {
                [one] => **one == *value,
                texts => texts.binary_search_by(|text| (**text).cmp(value)).is_ok(),
            },
            Self::Prefix { text, more } => {
                value.strip_prefix(&**text).is_some_and(|rest| !more || !rest.is_empty())
            }
            Self::Suffix(text) => value.ends_with(&**text),
            Self::Contains(text) => value.contains(&**text),
            Self::Regex { regex, .. } => regex.is_match(Input::new(value).anchored(Anchored::Yes)),
        }
    }
}

fn fragment(pattern: &str) -> String {
    pattern.get(..pattern.floor_char_boundary(256)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
