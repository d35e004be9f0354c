//! Text to tokens. What a character means depends on the brackets around it, so the lexer is a small state machine
//! over the [`scan`]ners; it runs on demand, one token ahead of the parser.

mod scan;
mod token;

use nom::{Parser, character::complete::anychar, error::Error};
pub(crate) use scan::unquote;
use scan::{Numeric, StringFault, is_alpha};
pub(crate) use token::{Keyword, Special, Token, TokenKind};
use token::{duration_word, quoted_char, reserved};

use crate::{
    ast::{BinaryOp, Span},
    text::quoted,
};

/// A text that has no next token.
#[derive(Debug)]
pub(crate) struct LexError {
    /// The byte at fault.
    pub(crate) start: usize,
    /// What is wrong.
    pub(crate) message: String,
}

/// Where the next token is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Anywhere not below.
    Statement,
    /// Directly after `[`.
    Duration,
}

/// Cuts a text into tokens.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    mode: Mode,
    paren_depth: usize,
    brace_open: bool,
    bracket_open: bool,
    /// A colon was seen since `[`.
    colon_seen: bool,
    /// A number was seen directly after some `[`.
    duration_seen: bool,
}

type Lexed = Result<Token, LexError>;

impl<'a> Lexer<'a> {
    /// A lexer at the start of `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            pos: 0,
            mode: Mode::Statement,
            paren_depth: 0,
            brace_open: false,
            bracket_open: false,
            colon_seen: false,
            duration_seen: false,
        }
    }

    /// The next token; comments are skipped, so is white space unless it has a meaning.
    pub(crate) fn next_token(&mut self) -> Lexed {
        loop {
            self.skip(scan::spaces);
            // After a number in brackets comments are possible, directly after `[` they are not.
            if self.mode == Mode::Duration || self.skip(scan::comment) == 0 {
                break;
            }
        }
        match self.mode {
            Mode::Duration => self.duration(),
            Mode::Statement if self.brace_open => self.inside_braces(),
            Mode::Statement => self.statement(),
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    fn peek_char(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Moves past what `scanner` accepts; returns how many bytes that is.
    fn skip(&mut self, scanner: impl Parser<&'a str, Output = &'a str, Error = Error<&'a str>>) -> usize {
        let mut scanner = scanner;
        let skipped = scanner.parse(self.rest()).map_or(0, |(_, text)| text.len());
        self.pos += skipped;
        skipped
    }

    /// Moves to where `rest` begins.
    fn move_to(&mut self, rest: &str) {
        self.pos = self.text.len() - rest.len();
    }

    fn next_char(&mut self) -> Option<char> {
        let (rest, c) = anychar::<_, Error<&str>>(self.rest()).ok()?;
        self.move_to(rest);
        Some(c)
    }

    /// Moves past `c` if it is next.
    fn accept(&mut self, c: char) -> bool {
        let found = self.peek_char() == Some(c);
        if found {
            self.pos += c.len_utf8();
        }
        found
    }

    fn token(&self, start: usize, kind: TokenKind) -> Lexed {
        Ok(Token { kind, span: Span { start, end: self.pos } })
    }

    fn fail(&self, start: usize, message: impl Into<String>) -> Lexed {
        Err(LexError { start, message: message.into() })
    }

    fn statement(&mut self) -> Lexed {
        let start = self.pos;
        let Some(c) = self.next_char() else { return self.end(start) };
        match c {
            ',' => self.token(start, TokenKind::Comma),
            '@' => self.token(start, TokenKind::At),
            '(' => self.open_paren(start),
            ')' => self.close_paren(start),
            '{' => {
                self.brace_open = true;
                self.token(start, TokenKind::LeftBrace)
            }
            '[' if self.bracket_open => {
                self.fail(start, format!("unexpected left bracket {}", quoted_char(Some(c))))
            }
            '[' => {
                self.colon_seen = false;
                self.bracket_open = true;
                self.mode = Mode::Duration;
                self.token(start, TokenKind::LeftBracket)
            }
            ']' if !self.bracket_open => {
                self.fail(start, format!("unexpected right bracket {}", quoted_char(Some(c))))
            }
            ']' => {
                self.bracket_open = false;
                self.token(start, TokenKind::RightBracket)
            }
            '"' | '\'' | '`' => self.string(start, c),
            _ if self.at_number(start) => self.number_or_duration(start),
            _ if is_alpha(c) || c == ':' => self.word(start, c),
            _ => self.operator(start, c),
        }
    }

    /// Whether a number begins at `start`, whose first character was read.
    fn at_number(&self, start: usize) -> bool {
        let text = self.text.get(start..).unwrap_or_default();
        let text = text.strip_prefix('.').unwrap_or(text);
        text.starts_with(|c: char| c.is_ascii_digit())
    }

    fn end(&self, start: usize) -> Lexed {
        if self.paren_depth != 0 {
            self.fail(start, "unclosed left parenthesis")
        } else if self.bracket_open {
            self.fail(start, "unclosed left bracket")
        } else {
            self.token(start, TokenKind::EndOfInput)
        }
    }

    fn open_paren(&mut self, start: usize) -> Lexed {
        self.paren_depth += 1;
        self.token(start, TokenKind::LeftParen)
    }

    fn close_paren(&mut self, start: usize) -> Lexed {
        match self.paren_depth.checked_sub(1) {
            Some(depth) => {
                self.paren_depth = depth;
                self.token(start, TokenKind::RightParen)
            }
            None => self.fail(self.pos, "unexpected right parenthesis ')'"),
        }
    }

    fn arithmetic(c: char) -> Option<BinaryOp> {
        match c {
            '+' => Some(BinaryOp::Add),
            '-' => Some(BinaryOp::Sub),
            '*' => Some(BinaryOp::Mul),
            '/' => Some(BinaryOp::Div),
            '%' => Some(BinaryOp::Mod),
            '^' => Some(BinaryOp::Pow),
            _ => None,
        }
    }

    fn operator(&mut self, start: usize, c: char) -> Lexed {
        let op = match c {
            '=' if self.accept('=') => BinaryOp::Eql,
            '=' if self.peek_char() == Some('~') => {
                return self.fail(start, "unexpected character after '=': '~'");
            }
            '=' => return self.token(start, TokenKind::Equal),
            '!' if self.accept('=') => BinaryOp::Neq,
            '!' => {
                let next = quoted_char(self.peek_char());
                return self.fail(start, format!("unexpected character after '!': {next}"));
            }
            '<' if self.accept('=') => BinaryOp::Lte,
            '<' if self.accept('/') => BinaryOp::TrimUpper,
            '<' => BinaryOp::Lss,
            '>' if self.accept('=') => BinaryOp::Gte,
            '>' if self.accept('/') => BinaryOp::TrimLower,
            '>' => BinaryOp::Gtr,
            c => match Self::arithmetic(c) {
                Some(op) => op,
                None => return self.fail(start, format!("unexpected character: {}", quoted_char(Some(c)))),
            },
        };
        self.token(start, TokenKind::Binary(op))
    }

    /// A word or a colon outside braces, whose first character was read.
    fn word(&mut self, start: usize, first: char) -> Lexed {
        if !self.bracket_open {
            self.pos = start;
            return self.keyword_or_identifier();
        }
        if first == ':' {
            if self.colon_seen {
                return self.fail(start, "unexpected colon ':'");
            }
            self.colon_seen = true;
            return self.token(start, TokenKind::Colon);
        }
        self.pos = start;
        self.duration_word().unwrap_or_else(|| {
            self.fail(start, format!("unexpected character: {}, expected ':'", quoted_char(Some(first))))
        })
    }

    /// A word of duration expressions.
    fn duration_word(&mut self) -> Option<Lexed> {
        let start = self.pos;
        let (rest, word) = scan::letters(self.rest()).ok()?;
        let special = duration_word(word)?;
        self.move_to(rest);
        Some(self.token(start, TokenKind::Special(special)))
    }

    fn keyword_or_identifier(&mut self) -> Lexed {
        let start = self.pos;
        let word = scan::word(self.rest()).map_or("", |(_, word)| word);
        self.pos += word.len();
        let kind = match reserved(word) {
            Some(TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !scan::parenthesis_follows(self.rest()) =>
            {
                TokenKind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        };
        self.token(start, kind)
    }

    fn number_or_duration(&mut self, start: usize) -> Lexed {
        let input = self.text.get(start..).unwrap_or_default();
        match scan::number_or_duration(input) {
            Ok((rest, numeric)) => {
                self.move_to(rest);
                let kind = match numeric {
                    Numeric::Number => TokenKind::Number,
                    Numeric::Duration => TokenKind::Duration,
                };
                self.token(start, kind)
            }
            Err(rest) => self.bad_number("bad number or duration syntax", input, rest),
        }
    }

    fn bad_number(&self, what: &str, input: &str, rest: &str) -> Lexed {
        let read = input.get(..input.len() - rest.len()).unwrap_or_default();
        self.fail(self.text.len() - input.len(), format!("{what}: {}", quoted(read)))
    }

    /// A string whose opening quote was read.
    fn string(&mut self, start: usize, quote: char) -> Lexed {
        let scanned = if quote == '`' {
            scan::raw_string(self.rest())
        } else {
            scan::quoted_string(self.rest(), quote)
        };
        match scanned {
            Ok(rest) => {
                self.move_to(rest);
                self.token(start, TokenKind::String)
            }
            Err(StringFault::Unterminated) if quote == '`' => self.fail(start, "unterminated raw string"),
            Err(StringFault::Unterminated) => self.fail(start, "unterminated quoted string"),
            Err(StringFault::InvalidRune) => self.fail(start, "invalid UTF-8 rune"),
            Err(StringFault::EscapeUnterminated) => self.fail(start, "escape sequence not terminated"),
            Err(StringFault::EscapeUnknown(c)) => {
                self.fail(start, format!("unknown escape sequence {}", unicode_name(c)))
            }
            Err(StringFault::EscapeIllegal(c)) => {
                self.fail(start, format!("illegal character {} in escape sequence", unicode_name(c)))
            }
            Err(StringFault::EscapeInvalid) => {
                self.fail(start, "escape sequence is an invalid Unicode code point")
            }
        }
    }

    fn inside_braces(&mut self) -> Lexed {
        let start = self.pos;
        let Some(c) = self.next_char() else {
            return self.fail(start, "unexpected end of input inside braces");
        };
        match c {
            c if is_alpha(c) => {
                self.pos = start;
                self.skip(scan::identifier);
                self.token(start, TokenKind::Identifier)
            }
            ',' => self.token(start, TokenKind::Comma),
            '"' | '\'' | '`' => self.string(start, c),
            '=' if self.accept('~') => self.token(start, TokenKind::EqualRegex),
            '=' => self.token(start, TokenKind::Equal),
            '!' if self.accept('~') => self.token(start, TokenKind::NotEqualRegex),
            '!' if self.accept('=') => self.token(start, TokenKind::Binary(BinaryOp::Neq)),
            '!' => {
                let next = quoted_char(self.peek_char());
                self.fail(start, format!("unexpected character after '!' inside braces: {next}"))
            }
            '{' => self.fail(start, "unexpected left brace '{'"),
            '}' => {
                self.brace_open = false;
                self.token(start, TokenKind::RightBrace)
            }
            c => self.fail(start, format!("unexpected character inside braces: {}", quoted_char(Some(c)))),
        }
    }

    /// A token of a duration expression, until its first number.
    fn duration(&mut self) -> Lexed {
        let start = self.pos;
        let Some(c) = self.next_char() else {
            return self.fail(start, "unexpected end of input in duration expression");
        };
        match c {
            ']' => {
                self.bracket_open = false;
                self.colon_seen = false;
                self.mode = Mode::Statement;
                self.token(start, TokenKind::RightBracket)
            }
            ':' if !self.duration_seen => {
                self.fail(self.pos, "unexpected colon before duration in duration expression")
            }
            ':' if self.colon_seen => self.fail(self.pos, "unexpected repeated colon in duration expression"),
            ':' => {
                self.colon_seen = true;
                self.token(start, TokenKind::Colon)
            }
            '(' => self.open_paren(start),
            ')' => self.close_paren(start),
            ',' => self.token(start, TokenKind::Comma),
            _ if self.at_number(start) => {
                self.duration_seen = true;
                self.mode = Mode::Statement;
                self.number_or_duration(start)
            }
            c => {
                if let Some(op) = Self::arithmetic(c) {
                    return self.token(start, TokenKind::Binary(op));
                }
                self.pos = start;
                self.duration_word().unwrap_or_else(|| {
                    let c = quoted_char(Some(c));
                    self.fail(start, format!("unexpected character in duration expression: {c}"))
                })
            }
        }
    }
}

/// `c` as Go's `%#U` prints it: `U+007A 'z'`, the character only where it is printable.
fn unicode_name(c: char) -> String {
    let code = format!("U+{:04X}", c as u32);
    if c.is_control() || (c.is_whitespace() && c != ' ') { code } else { format!("{code} '{c}'") }
}
