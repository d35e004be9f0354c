//! What can be wrong with a matcher.

/// A regular expression that does not parse. The text is Go's, which Prometheus hands on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {what}: `{fragment}`")]
pub struct SyntaxError {
    /// What is wrong, e.g. `missing closing )`.
    pub what: &'static str,
    /// Where: the piece of the expression in question, or all of it; cut at 256 bytes.
    pub fragment: String,
}

impl SyntaxError {
    const FRAGMENT_BYTES_MAX: usize = 256;

    pub(crate) fn new(what: &'static str, fragment: &str) -> Self {
        let cut = fragment.floor_char_boundary(Self::FRAGMENT_BYTES_MAX);
        Self { what, fragment: fragment.get(..cut).unwrap_or_default().to_owned() }
    }
}

/// Why a matcher cannot be compiled. Always the caller's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MatcherError {
    /// The expression does not parse.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// The text of the expression is too long.
    #[error("regular expression of {bytes} bytes exceeds the limit of {max} bytes")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// [`crate::REGEX_BYTES_MAX`].
        max: usize,
    },
    /// The expression is short but its automaton is too large, e.g. because of nested repetitions.
    #[error("regular expression `{fragment}` needs an automaton above the limit of {max} bytes")]
    TooLarge {
        /// The expression, cut at 256 bytes.
        fragment: String,
        /// [`crate::REGEX_AUTOMATON_BYTES_MAX`].
        max: usize,
    },
}
