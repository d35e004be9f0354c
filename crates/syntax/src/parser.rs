//! Text to tree: recursive descent with precedence climbing, one token of lookahead.
//!
//! The grammar is Prometheus', and so are the error texts. Each rule that has a text of its own for tokens that do not
//! fit passes [`Fail::Unexpected`] of the rules inside it through [`Parser::within`], which says where it happened. The
//! first error ends the parse; it is the one Prometheus reports, because tokens are read and rules are checked in the
//! same order.

mod check;
mod duration;
mod expr;
mod literal;
mod matching;
mod selector;

use chronolith_model::Matcher;

use crate::{
    ast::{Expr, ExprKind, Span},
    error::{ParseError, ParseErrorKind},
    lexer::{Lexer, Token, TokenKind},
};

/// The longest text that is parsed, in bytes.
pub const QUERY_BYTES_MAX: usize = 1 << 20;

/// The greatest height of a tree, counted in expressions (`a + b + c` has 3), and the deepest nesting of parentheses
/// and signs. Everything that walks a tree recurses, so this bounds the stack; the parser needs less than 1.5 MiB of
/// it at this depth in an unoptimised build.
pub const EXPR_DEPTH_MAX: usize = 250;

/// What a regular expression's compiler tells the parser: whether the expression, anchored at both ends, matches the
/// empty string; or why it does not compile, as Prometheus says it (`error parsing regexp: ...`).
pub type RegexCheck = fn(&str) -> Result<bool, String>;

/// Which experimental parts of the language are on. The default is that of a Prometheus without feature flags.
#[derive(Clone, Copy, Debug)]
pub struct ParseOptions {
    /// Functions marked experimental, `limitk` and `limit_ratio` (`promql-experimental-functions`).
    pub experimental_functions: bool,
    /// Arithmetic where a duration stands: `foo[5m * 2]`, `offset step()`.
    pub duration_expr: bool,
    /// `anchored` and `smoothed` (`promql-extended-range-selectors`).
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left`, `fill_right` (`promql-binop-fill-modifiers`).
    pub fill_modifiers: bool,
    /// Judges regular expressions. The default takes all of them for valid, and knows of those only that are usually
    /// written to match everything that they match the empty string.
    pub regex: RegexCheck,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            experimental_functions: false,
            duration_expr: true,
            extended_range_selectors: false,
            fill_modifiers: false,
            regex: guess_regex,
        }
    }
}

impl ParseOptions {
    /// Everything on.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            experimental_functions: true,
            duration_expr: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            regex: guess_regex,
        }
    }
}

fn guess_regex(pattern: &str) -> Result<bool, String> {
    Ok(pattern.split('|').any(|branch| matches!(branch, "" | ".*" | "^.*$" | "(.*)" | ".*?" | ".?" | "^$")))
}

/// Parses and type-checks an expression.
///
/// # Errors
/// The first thing wrong with `text`, as Prometheus says it.
pub fn parse(text: &str, options: &ParseOptions) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text, options)?;
    let tree = parser.whole();
    let mut expr = tree.map_err(|fail| parser.finish(fail))?;
    check::check(&parser, &mut expr).map_err(|fail| parser.finish(fail))?;
    Ok(expr)
}

/// Parses an instant vector selector without modifiers, such as a `match[]` parameter, to its matchers. That one of
/// them must reject the empty string, and that the metric name is given once, is not checked here.
///
/// # Errors
/// The first thing wrong with `text`, as Prometheus says it.
pub fn parse_metric_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    parse_metric_selector_with(text, &ParseOptions::default())
}

/// [`parse_metric_selector`] with options, of which only `regex` matters.
///
/// # Errors
/// As [`parse_metric_selector`].
pub fn parse_metric_selector_with(text: &str, options: &ParseOptions) -> Result<Vec<Matcher>, ParseError> {
    let mut parser = Parser::new(text, options)?;
    parser.only_selector().map_err(|fail| parser.finish(fail))
}

/// Why a rule gave up.
#[derive(Debug)]
enum Fail {
    /// A token does not fit, and no rule has said yet where.
    Unexpected(Token),
    /// An error with its text.
    Error(Box<ParseError>),
}

type Parsed<T> = Result<T, Fail>;

/// An expression and the height of its tree. Boxed, which keeps the frames of the recursion small.
struct Tree {
    expr: Box<Expr>,
    height: usize,
}

struct Parser<'a> {
    text: &'a str,
    options: &'a ParseOptions,
    lexer: Lexer<'a>,
    peeked: Option<Token>,
    /// How many rules that can contain themselves are being parsed.
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, options: &'a ParseOptions) -> Result<Self, ParseError> {
        if text.len() > QUERY_BYTES_MAX {
            let message = format!("text of {} bytes is longer than {QUERY_BYTES_MAX} bytes", text.len());
            let span = Span { start: 0, end: text.len() };
            return Err(ParseError::new(ParseErrorKind::Limit, text, span, message));
        }
        Ok(Self { text, options, lexer: Lexer::new(text), peeked: None, depth: 0 })
    }

    fn whole(&mut self) -> Parsed<Expr> {
        if self.peek()?.kind == TokenKind::EndOfInput {
            return self.syntax_error(Span::default(), "no expression found in input");
        }
        let tree = self.expr(0)?;
        self.expect(TokenKind::EndOfInput)?;
        Ok(*tree.expr)
    }

    fn only_selector(&mut self) -> Parsed<Vec<Matcher>> {
        let token = self.next()?;
        let tree = if token.kind == TokenKind::LeftBrace {
            self.selector(None, token.span)?
        } else if expr::can_name_metric(token.kind) {
            self.selector(Some(token), token.span)?
        } else {
            return Err(Fail::Unexpected(token));
        };
        self.expect(TokenKind::EndOfInput)?;
        match tree.expr.kind {
            ExprKind::Vector(selector) => Ok(selector.matchers),
            _ => Ok(Vec::new()),
        }
    }

    /// The next token, which stays.
    fn peek(&mut self) -> Parsed<Token> {
        if let Some(token) = self.peeked {
            return Ok(token);
        }
        match self.lexer.next_token() {
            Ok(token) => {
                self.peeked = Some(token);
                Ok(token)
            }
            Err(error) => self.syntax_error(Span { start: error.start, end: self.text.len() }, error.message),
        }
    }

    /// The next token, which is used up.
    fn next(&mut self) -> Parsed<Token> {
        let token = self.peek()?;
        self.peeked = None;
        Ok(token)
    }

    /// Uses up the next token if it is of this kind.
    fn accept(&mut self, kind: TokenKind) -> Parsed<Option<Token>> {
        let token = self.peek()?;
        if token.kind == kind { self.next().map(Some) } else { Ok(None) }
    }

    /// The next token, which must be of this kind.
    fn expect(&mut self, kind: TokenKind) -> Parsed<Token> {
        let token = self.next()?;
        if token.kind == kind { Ok(token) } else { Err(Fail::Unexpected(token)) }
    }

    /// Begins a rule that contains itself; [`Parser::leave`] ends it.
    fn enter(&mut self) -> Parsed<()> {
        if self.depth >= EXPR_DEPTH_MAX {
            return self.too_deep();
        }
        self.depth += 1;
        Ok(())
    }

    /// Ends what [`Parser::enter`] began. After an error it does not matter.
    const fn leave(&mut self) {
        self.depth -= 1;
    }

    /// A tree one higher than the highest of `children`.
    fn grown(&mut self, kind: ExprKind, span: Span, tallest_child: usize) -> Parsed<Tree> {
        let height = tallest_child + 1;
        if height > EXPR_DEPTH_MAX {
            return self.too_deep();
        }
        Ok(Tree { expr: Box::new(Expr { kind, span }), height })
    }

    fn too_deep<T>(&mut self) -> Parsed<T> {
        let start = self.peek()?.span.start;
        let message = format!("expression is nested deeper than {EXPR_DEPTH_MAX} levels");
        self.error(ParseErrorKind::Limit, Span { start, end: self.text.len() }, message)
    }

    /// Says where a token did not fit, unless a rule further inside said so.
    fn within<T>(&self, context: &str, expected: &str, result: Parsed<T>) -> Parsed<T> {
        match result {
            Err(Fail::Unexpected(token)) => self.unexpected(token, context, expected),
            result => result,
        }
    }

    fn unexpected<T>(&self, token: Token, context: &str, expected: &str) -> Parsed<T> {
        let mut message = format!("unexpected {}", token.describe(self.text));
        for (word, what) in [(" in ", context), (", expected ", expected)] {
            if !what.is_empty() {
                message.push_str(word);
                message.push_str(what);
            }
        }
        self.syntax_error(token.span, message)
    }

    fn syntax_error<T>(&self, span: Span, message: impl Into<String>) -> Parsed<T> {
        self.error(ParseErrorKind::Syntax, span, message)
    }

    fn meaning_error<T>(&self, span: Span, message: impl Into<String>) -> Parsed<T> {
        self.error(ParseErrorKind::Meaning, span, message)
    }

    fn error<T>(&self, kind: ParseErrorKind, span: Span, message: impl Into<String>) -> Parsed<T> {
        Err(Fail::Error(Box::new(ParseError::new(kind, self.text, span, message))))
    }

    /// The error for the caller.
    fn finish(&self, fail: Fail) -> ParseError {
        match fail {
            Fail::Error(error) => *error,
            Fail::Unexpected(token) => {
                let message = format!("unexpected {}", token.describe(self.text));
                ParseError::new(ParseErrorKind::Syntax, self.text, token.span, message)
            }
        }
    }
}
