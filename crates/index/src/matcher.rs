//! Compiled label matchers.

mod go_syntax;
mod shape;

use std::{fmt, hash, sync::Arc};

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
/// Most Unicode classes (`\pL`) of one expression: each takes up to 6 KB before the automaton is even begun.
const UNICODE_CLASSES_MAX: usize = 2_000;
/// What compiling takes for each byte of an expression, at most, before limits on automata apply; measured: 120 to 400.
const COMPILE_BYTES_PER_BYTE: usize = 512;
/// Deepest nesting of the syntax tree; each group is up to four levels (group, repetition, alternation, concatenation).
const NEST_MAX: u32 = 420;

/// A [`Matcher`] ready to test values; clones share what was compiled. Equal are those of equal matchers.
///
/// # Memory
/// A compiled regular expression may hold megabytes. Whoever compiles accounts for it: with
/// [`CompiledMatcher::compile_bytes`] before, while it happens, and with [`CompiledMatcher::memory_bytes`] afterwards.
///
/// Regular expressions are Go's syntax and semantics, anchored at both ends, `.`
/// matches newlines.
///
/// ```
/// # use chronolith_index::CompiledMatcher;
/// # use chronolith_model::{MatchOp, Matcher};
/// let matcher = CompiledMatcher::new(&Matcher::new("job", MatchOp::Regex, "api|web.*"))?;
/// assert!(matcher.matches("web-1") && !matcher.matches("api-1") && !matcher.matches_empty());
/// # Ok::<(), chronolith_index::MatcherError>(())
/// ```
#[derive(Clone)]
pub struct CompiledMatcher(Arc<Compiled>);

struct Compiled {
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
        /// What `regex` takes at most, with the cache of one thread.
        bytes: usize,
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
        Ok(Self(Arc::new(Compiled { matcher: matcher.clone(), test, negated, matches_empty })))
    }

    /// Bytes that [`CompiledMatcher::new`] may take in passing for `matcher`, about: in proportion to its text.
    #[must_use]
    pub fn compile_bytes(matcher: &Matcher) -> usize {
        match matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => matcher.value.len(),
            MatchOp::Regex | MatchOp::NotRegex => matcher.value.len().saturating_mul(COMPILE_BYTES_PER_BYTE),
        }
    }

    /// Bytes it holds at most, what matching on one thread may come to included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let Compiled { matcher, test, .. } = &*self.0;
        size_of::<Compiled>() + matcher.name.len() + matcher.value.len() + test.bytes()
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
        &self.0.matcher
    }

    /// The label in question.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.matcher.name
    }

    /// Whether a series whose label has `value` is selected; a missing label has the empty value.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        self.0.test.accepts(value) != self.0.negated
    }

    /// Whether a series without the label is selected.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.0.matches_empty
    }

    /// Whether the operator is `!=` or `!~`.
    #[must_use]
    pub fn is_negated(&self) -> bool {
        self.0.negated
    }

    /// [`CompiledMatcher::matches`] of the same condition without its negation.
    #[must_use]
    pub fn matches_positive(&self, value: &str) -> bool {
        self.0.test.accepts(value)
    }

    /// What the condition without its negation selects.
    #[must_use]
    pub fn selects(&self) -> Selects<'_> {
        match &self.0.test {
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
        write!(f, "CompiledMatcher({})", self.0.matcher)
    }
}

impl PartialEq for CompiledMatcher {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.matcher == other.0.matcher
    }
}

impl Eq for CompiledMatcher {}

impl hash::Hash for CompiledMatcher {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.matcher.hash(state);
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
        if unicode_classes(&translated) > UNICODE_CLASSES_MAX {
            return Err(too_large());
        }
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
                // Automata that are built while matching have a cache from the beginning; others never need one.
                let cache = match regex.create_cache().memory_usage() {
                    0 => 0,
                    bytes => bytes + REGEX_CACHE_BYTES_MAX,
                };
                let bytes = size_of::<Regex>() + regex.memory_usage() + cache;
                Self::Regex { prefix, regex: Box::new(regex), bytes }
            }
        })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Anything | Self::NonEmpty => 0,
            Self::Literals(texts) => texts.iter().map(|text| size_of::<Box<str>>() + text.len()).sum(),
            Self::Prefix { text, .. } | Self::Suffix(text) | Self::Contains(text) => text.len(),
            Self::Regex { prefix, bytes, .. } => prefix.len() + bytes,
        }
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

/// How many classes like `\pL` there are, or a few more.
fn unicode_classes(pattern: &str) -> usize {
    pattern.matches("\\p").count() + pattern.matches("\\P").count()
}

fn fragment(pattern: &str) -> String {
    pattern.get(..pattern.floor_char_boundary(256)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
