//! Selectors, and what may follow an operand: ranges, `offset`, `@`, `anchored`, `smoothed`.

use chronolith_model::{METRIC_NAME, MatchOp, Matcher, float};

use super::{Parsed, Parser, Tree, expr::between};
use crate::{
    ast::{
        At, BinaryOp, DurationExpr, Expr, ExprKind, MatrixSelector, RangeMode, Span, SpanIgnored, Subquery,
        VectorSelector,
    },
    lexer::{Keyword, Special, Token, TokenKind, unquote},
};

const NEEDS_SELECTOR: &str =
    "must be preceded by an instant vector selector or range vector selector or a subquery";

impl Parser<'_> {
    /// A selector whose first token, its name or brace, was used up.
    pub(super) fn selector(&mut self, name: Option<Token>, first: Span) -> Parsed<Tree> {
        let mut matchers = Vec::new();
        let mut span = first;
        if name.is_none() || self.accept(TokenKind::LeftBrace)?.is_some() {
            let end = self.matchers(&mut matchers)?;
            span = between(first, end);
        }
        let name = name.map(|token| token.text(self.text).to_owned());
        if let Some(name) = &name {
            matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        let selector = VectorSelector { name, matchers, offset: None, at: None, mode: RangeMode::Plain };
        self.grown(ExprKind::Vector(selector), span, 0)
    }

    /// Matchers up to the closing brace, and where that stands.
    fn matchers(&mut self, matchers: &mut Vec<Matcher>) -> Parsed<Span> {
        const CONTEXT: &str = "label matching";
        loop {
            let token = self.next()?;
            match token.kind {
                TokenKind::RightBrace => return Ok(token.span),
                TokenKind::Identifier | TokenKind::String => matchers.push(self.matcher(token)?),
                _ => return self.unexpected(token, CONTEXT, "identifier or \"}\""),
            }
            let token = self.next()?;
            match token.kind {
                TokenKind::RightBrace => return Ok(token.span),
                TokenKind::Comma => {}
                _ => return self.unexpected(token, CONTEXT, "\",\" or \"}\""),
            }
        }
    }

    /// One matcher, whose label was used up.
    fn matcher(&mut self, label: Token) -> Parsed<Matcher> {
        const CONTEXT: &str = "label matching";
        let quoted = label.kind == TokenKind::String;
        let text = label.text(self.text);
        let name = if quoted { unquote(text) } else { text.to_owned() };
        let token = self.peek()?;
        let op = match token.kind {
            TokenKind::Equal => MatchOp::Equal,
            TokenKind::Binary(BinaryOp::Neq) => MatchOp::NotEqual,
            TokenKind::EqualRegex => MatchOp::Regex,
            TokenKind::NotEqualRegex => MatchOp::NotRegex,
            _ if quoted => return Ok(Matcher::equal(METRIC_NAME, name)),
            _ => return self.unexpected(token, CONTEXT, "label matching operator"),
        };
        self.next()?;
        let value = self.expect(TokenKind::String);
        let token = self.within(CONTEXT, "string", value)?;
        let value = unquote(token.text(self.text));
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex)
            && let Err(message) = (self.options.regex)(&value)
        {
            return self.syntax_error(between(label.span, token.span), message);
        }
        Ok(Matcher::new(name, op, value))
    }

    /// An operand with all that follows it.
    pub(super) fn modified(&mut self, mut tree: Tree) -> Parsed<Tree> {
        loop {
            match self.peek()?.kind {
                TokenKind::LeftBracket => tree = self.bracketed(tree)?,
                TokenKind::At => {
                    self.next()?;
                    let at = self.at(tree.expr.span);
                    let (at, end) = self.within("@", "timestamp", at)?;
                    self.set_at(&mut tree.expr, at, end)?;
                }
                TokenKind::Keyword(Keyword::Offset) => {
                    self.next()?;
                    let offset = self.offset();
                    let expected = "number, duration, step(), or range()";
                    let (offset, end) = self.within("offset", expected, offset)?;
                    self.set_offset(&mut tree.expr, offset, end)?;
                }
                TokenKind::Keyword(Keyword::Anchored) => {
                    self.next()?;
                    self.set_mode(&mut tree.expr, RangeMode::Anchored)?;
                }
                TokenKind::Keyword(Keyword::Smoothed) => {
                    self.next()?;
                    self.set_mode(&mut tree.expr, RangeMode::Smoothed)?;
                }
                _ => return Ok(tree),
            }
        }
    }

    /// The range or subquery in the brackets after `tree`.
    fn bracketed(&mut self, tree: Tree) -> Parsed<Tree> {
        let open = self.next()?;
        let range = self.positive_duration();
        let expected = "number, duration, step(), or range()";
        let range = self.within("subquery or range selector", expected, range)?;
        let token = self.next()?;
        match token.kind {
            TokenKind::RightBracket => self.matrix(tree, range, between(open.span, token.span)),
            TokenKind::Colon => self.subquery(tree, range),
            _ => self.unexpected(token, "subquery or range", "\":\" or \"]\""),
        }
    }

    fn matrix(&mut self, tree: Tree, range: DurationExpr, brackets: Span) -> Parsed<Tree> {
        let inner = tree.expr.span;
        let selector = match tree.expr.kind {
            ExprKind::Vector(selector) => selector,
            _ => return self.meaning_error(brackets, "ranges only allowed for vector selectors"),
        };
        if selector.offset.is_some() {
            return self.meaning_error(brackets, "no offset modifiers allowed before range");
        }
        if selector.at.is_some() {
            return self.meaning_error(brackets, "no @ modifiers allowed before range");
        }
        let matrix = MatrixSelector { selector, selector_span: SpanIgnored(inner), range };
        self.grown(ExprKind::Matrix(matrix), between(inner, brackets), 0)
    }

    /// A subquery from after its colon.
    fn subquery(&mut self, tree: Tree, range: DurationExpr) -> Parsed<Tree> {
        const CONTEXT: &str = "subquery selector";
        let mut step = None;
        let mut close = self.accept(TokenKind::RightBracket)?;
        if close.is_none() {
            let duration = self.positive_duration();
            let expected = "number, duration, step(), range(), or \"]\"";
            step = Some(self.within(CONTEXT, expected, duration)?);
            let bracket = self.expect(TokenKind::RightBracket);
            close = Some(self.within(CONTEXT, "\"]\"", bracket)?);
        }
        let end = close.map_or(tree.expr.span, |token| token.span);
        let span = between(tree.expr.span, end);
        let subquery = Subquery { expr: tree.expr, range, step, offset: None, at: None };
        self.grown(ExprKind::Subquery(subquery), span, tree.height)
    }

    /// The time of an `@` modifier and where it ends; `operand` is what it follows.
    fn at(&mut self, operand: Span) -> Parsed<(At, Span)> {
        let token = self.peek()?;
        if Self::at_word(token.kind) {
            self.next()?;
            self.expect(TokenKind::LeftParen)?;
            let end = self.expect(TokenKind::RightParen)?.span;
            let start = token.kind == TokenKind::Special(Special::Start);
            return Ok((if start { At::Start } else { At::End }, end));
        }
        let (seconds, end) = self.signed_number()?;
        // Past 2^63 seconds is refused, past 2^63 milliseconds is the last millisecond.
        if !seconds.is_finite() || seconds.abs() >= i64::MAX as f64 {
            let shown = if seconds.is_finite() { format!("{seconds:.6}") } else { float::fixed(seconds) };
            return self.meaning_error(operand, format!("timestamp out of bounds for @ modifier: {shown}"));
        }
        Ok((At::Timestamp((seconds * 1000.0).round() as i64), end))
    }

    fn set_at(&self, expr: &mut Expr, at: At, end: Span) -> Parsed<()> {
        let span = expr.span;
        let slot = match &mut expr.kind {
            ExprKind::Vector(selector) => &mut selector.at,
            ExprKind::Matrix(matrix) => &mut matrix.selector.at,
            ExprKind::Subquery(subquery) => &mut subquery.at,
            _ => return self.meaning_error(span, format!("@ modifier {NEEDS_SELECTOR}")),
        };
        if slot.is_some() {
            return self.meaning_error(span, "@ <timestamp> may not be set multiple times");
        }
        *slot = Some(at);
        expr.span.end = end.end;
        Ok(())
    }

    /// `offset` is `None` for an offset of zero, which is as good as none.
    fn set_offset(&self, expr: &mut Expr, offset: Option<DurationExpr>, end: Span) -> Parsed<()> {
        let span = expr.span;
        let slot = match &mut expr.kind {
            ExprKind::Vector(selector) => &mut selector.offset,
            ExprKind::Matrix(matrix) => &mut matrix.selector.offset,
            ExprKind::Subquery(subquery) => &mut subquery.offset,
            _ => return self.meaning_error(span, format!("offset modifier {NEEDS_SELECTOR}")),
        };
        if slot.is_some() {
            return self.meaning_error(span, "offset may not be set multiple times");
        }
        *slot = offset;
        expr.span.end = end.end;
        Ok(())
    }

    fn set_mode(&self, expr: &mut Expr, mode: RangeMode) -> Parsed<()> {
        let word = if mode == RangeMode::Anchored { "anchored" } else { "smoothed" };
        let span = expr.span;
        if !self.options.extended_range_selectors {
            return self.meaning_error(span, format!("{word} modifier is experimental and not enabled"));
        }
        let slot = match &mut expr.kind {
            ExprKind::Vector(selector) => &mut selector.mode,
            ExprKind::Matrix(matrix) => &mut matrix.selector.mode,
            ExprKind::Subquery(_) => {
                return self.meaning_error(span, format!("{word} modifier is not supported for subqueries"));
            }
            _ => return self.meaning_error(span, format!("{word} modifier not implemented")),
        };
        if *slot != RangeMode::Plain && *slot != mode {
            return self.meaning_error(span, "anchored and smoothed modifiers cannot be used together");
        }
        *slot = mode;
        Ok(())
    }

    /// The length of a range or step.
    fn positive_duration(&mut self) -> Parsed<DurationExpr> {
        let tree = self.duration(0)?;
        if let Some(number) = tree.number() {
            if number.value <= 0.0 {
                return self.meaning_error(tree.node.span.0, "duration must be greater than 0");
            }
            // Less than a millisecond is no literal, but what it is worth is for the evaluation to say.
            if number.millis() > 0 {
                return Ok(DurationExpr::Literal(number.millis()));
            }
        }
        Ok(DurationExpr::Computed(Box::new(tree.node)))
    }

    /// A duration after `offset`, and where it ends; `None` for less than a millisecond.
    fn offset(&mut self) -> Parsed<(Option<DurationExpr>, Span)> {
        let tree = self.offset_duration()?;
        let end = tree.node.span.0;
        let offset = match tree.number() {
            Some(number) if number.millis() == 0 => None,
            Some(number) => Some(DurationExpr::Literal(number.millis())),
            None => Some(DurationExpr::Computed(Box::new(tree.node))),
        };
        Ok((offset, end))
    }
}
