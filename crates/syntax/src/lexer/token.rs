//! Tokens, and how errors name them.

use crate::{
    ast::{AggregateOp, BinaryOp, Span},
    text::quoted,
};

/// A token and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

/// The kinds of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    EndOfInput,
    Identifier,
    /// An identifier with a colon.
    MetricIdentifier,
    Number,
    Duration,
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Equal,
    /// `=~`, only in braces
    EqualRegex,
    /// `!~`, only in braces
    NotEqualRegex,
    /// `@`
    At,
    Binary(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
    /// The words that are both names of functions and parts of modifiers.
    Special(Special),
}

/// Words of modifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    Offset,
    Smoothed,
    Anchored,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Bool,
}

/// Words that mean something of their own in `@` modifiers and duration expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

/// The longest word that [`reserved`] knows: `count_values`.
const RESERVED_BYTES_MAX: usize = 12;

/// How many bytes of an operand an error text shows before it is cut.
const SHOWN_MAX: usize = 10;

impl Token {
    /// The token's text; `source` is the whole input.
    pub(crate) fn text<'a>(&self, source: &'a str) -> &'a str {
        source.get(self.span.start..self.span.end).unwrap_or_default()
    }

    /// The token as an error names it: `identifier "x"`, `<op:+>`, `end of input`.
    pub(crate) fn describe(&self, source: &str) -> String {
        let text = self.text(source);
        match self.kind {
            TokenKind::EndOfInput => "end of input".to_owned(),
            TokenKind::Identifier => format!("identifier {}", quoted(text)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", quoted(text)),
            TokenKind::Number => format!("number {}", shortened(text)),
            TokenKind::Duration => format!("duration {}", shortened(text)),
            TokenKind::String => format!("string {}", shortened(text)),
            TokenKind::Binary(_) | TokenKind::At | TokenKind::EqualRegex | TokenKind::NotEqualRegex => {
                format!("<op:{text}>")
            }
            TokenKind::Aggregate(_) => format!("<aggr:{text}>"),
            TokenKind::Keyword(_) => format!("<{text}>"),
            _ => shortened(text),
        }
    }
}

/// The token of a word that is neither a number nor an ordinary identifier, in any case of letters.
pub(super) fn reserved(word: &str) -> Option<TokenKind> {
    if word.len() > RESERVED_BYTES_MAX {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    if let Some(op) = AggregateOp::ALL.into_iter().find(|op| op.as_str() == lower) {
        return Some(TokenKind::Aggregate(op));
    }
    let kind = match lower.as_str() {
        "start" => TokenKind::Special(Special::Start),
        "end" => TokenKind::Special(Special::End),
        "inf" | "nan" => TokenKind::Number,
        "and" => TokenKind::Binary(BinaryOp::And),
        "or" => TokenKind::Binary(BinaryOp::Or),
        "unless" => TokenKind::Binary(BinaryOp::Unless),
        "atan2" => TokenKind::Binary(BinaryOp::Atan2),
        "offset" => TokenKind::Keyword(Keyword::Offset),
        "smoothed" => TokenKind::Keyword(Keyword::Smoothed),
        "anchored" => TokenKind::Keyword(Keyword::Anchored),
        "by" => TokenKind::Keyword(Keyword::By),
        "without" => TokenKind::Keyword(Keyword::Without),
        "on" => TokenKind::Keyword(Keyword::On),
        "ignoring" => TokenKind::Keyword(Keyword::Ignoring),
        "group_left" => TokenKind::Keyword(Keyword::GroupLeft),
        "group_right" => TokenKind::Keyword(Keyword::GroupRight),
        "fill" => TokenKind::Keyword(Keyword::Fill),
        "fill_left" => TokenKind::Keyword(Keyword::FillLeft),
        "fill_right" => TokenKind::Keyword(Keyword::FillRight),
        "bool" => TokenKind::Keyword(Keyword::Bool),
        _ => TokenKind::Special(duration_word(word)?),
    };
    Some(kind)
}

/// The special word `word` is, of those that duration expressions know, in any case of letters.
pub(super) fn duration_word(word: &str) -> Option<Special> {
    match word.to_ascii_lowercase().as_str() {
        "step" => Some(Special::Step),
        "range" => Some(Special::Range),
        "max_of" => Some(Special::MaxOf),
        "min_of" => Some(Special::MinOf),
        _ => None,
    }
}

/// `text` in quotes, cut after ten characters when it has more than ten bytes.
fn shortened(text: &str) -> String {
    if text.len() <= SHOWN_MAX {
        return quoted(text);
    }
    let mut out = quoted(&text.chars().take(SHOWN_MAX).collect::<String>());
    out.push_str("...");
    out
}

/// `c` as Go's `%q` prints a rune; `None` (the end of input) prints as the replacement character, which stands for itself.
pub(super) fn quoted_char(c: Option<char>) -> String {
    match c {
        None | Some(char::REPLACEMENT_CHARACTER) => "'\u{fffd}'".to_owned(),
        Some('\'') => "'\\''".to_owned(),
        Some('"') => "'\"'".to_owned(),
        Some(c) => {
            let text = quoted(c.encode_utf8(&mut [0; 4]));
            format!("'{}'", text.trim_matches('"'))
        }
    }
}
