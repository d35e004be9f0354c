//! What is wrong with a text, and where.

use std::fmt;

use crate::ast::Span;

/// A text that is not PromQL. Displays as Prometheus says it: `1:5: parse error: unexpected end of input inside braces`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: parse error: {message}")]
pub struct ParseError {
    /// Which rule the text breaks.
    pub kind: ParseErrorKind,
    /// The bytes at fault.
    pub span: Span,
    /// The start of `span` as line and column.
    pub position: Position,
    /// Prometheus' text of the error, without position.
    pub message: String,
}

/// Which rule a text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseErrorKind {
    /// It has no parse.
    Syntax,
    /// It parses but has no meaning: wrong types, unknown function, a feature that is not enabled.
    Meaning,
    /// It is longer than [`crate::QUERY_BYTES_MAX`] or nested deeper than [`crate::EXPR_DEPTH_MAX`].
    Limit,
}

impl ParseError {
    pub(crate) fn new(kind: ParseErrorKind, text: &str, span: Span, message: impl Into<String>) -> Self {
        Self { kind, span, position: span.position(text), message: message.into() }
    }
}

/// A place in a text: `1:5`, or `unknown position` for the empty text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// The text is empty.
    Unknown,
    /// Line and column.
    At {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown position"),
            Self::At { line, column } => write!(f, "{line}:{column}"),
        }
    }
}

impl Span {
    /// Where the span starts in `text`; a start past the end counts as the end.
    #[must_use]
    pub fn position(&self, text: &str) -> Position {
        if text.is_empty() {
            return Position::Unknown;
        }
        let before = text.as_bytes().get(..self.start).unwrap_or(text.as_bytes());
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        Position::At { line, column: before.len() - line_start + 1 }
    }
}
