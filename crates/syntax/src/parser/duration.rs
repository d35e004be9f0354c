//! Durations: literals, or expressions over them where a duration stands.

use super::{EXPR_DEPTH_MAX, Fail, Parsed, Parser, expr};
use crate::{
    ast::{BinaryOp, DurationKind, DurationNode, NumberLiteral, Span, SpanIgnored, UnaryOp},
    lexer::{Special, Token, TokenKind},
};

/// A duration and the height of its tree.
pub(super) struct DurationTree {
    pub(super) node: DurationNode,
    height: usize,
}

impl DurationTree {
    /// The duration as a literal.
    pub(super) fn number(&self) -> Option<NumberLiteral> {
        match self.node.kind {
            DurationKind::Number(number) => Some(number),
            _ => None,
        }
    }

    fn span(&self) -> Span {
        self.node.span.0
    }
}

/// The operator a token is, of those that duration expressions have.
const fn arithmetic(kind: TokenKind) -> Option<BinaryOp> {
    match kind {
        TokenKind::Binary(
            op @ (BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::Div
            | BinaryOp::Mod
            | BinaryOp::Pow),
        ) => Some(op),
        _ => None,
    }
}

impl Parser<'_> {
    fn duration_tree(&mut self, kind: DurationKind, span: Span, tallest: usize) -> Parsed<DurationTree> {
        if tallest >= EXPR_DEPTH_MAX {
            return self.too_deep();
        }
        Ok(DurationTree { node: DurationNode { kind, span: SpanIgnored(span) }, height: tallest + 1 })
    }

    /// Refuses anything but a literal where duration expressions are off.
    fn needs_duration_expr(&self, span: Span) -> Parsed<()> {
        if self.options.duration_expr {
            return Ok(());
        }
        self.meaning_error(span, "experimental duration expression is not enabled")
    }

    /// A duration whose operators outside parentheses have at least this precedence.
    pub(super) fn duration(&mut self, least: u8) -> Parsed<DurationTree> {
        self.enter()?;
        let operand = self.duration_operand()?;
        let duration = self.duration_operators(operand, least)?;
        self.leave();
        Ok(duration)
    }

    fn duration_operators(&mut self, mut left: DurationTree, least: u8) -> Parsed<DurationTree> {
        while let Some(op) = arithmetic(self.peek()?.kind)
            && expr::precedence(op) >= least
        {
            let at = self.next()?.span;
            let right = self.duration(expr::right_precedence(op))?;
            self.needs_duration_expr(left.span())?;
            if right.number().is_some_and(|number| number.value == 0.0) {
                match op {
                    BinaryOp::Div => return self.meaning_error(at, "division by zero"),
                    BinaryOp::Mod => return self.meaning_error(at, "modulo by zero"),
                    _ => {}
                }
            }
            let span = expr::between(left.span(), right.span());
            let tallest = left.height.max(right.height);
            let kind = DurationKind::Binary(op, Box::new(left.node), Box::new(right.node));
            left = self.duration_tree(kind, span, tallest)?;
        }
        Ok(left)
    }

    fn duration_operand(&mut self) -> Parsed<DurationTree> {
        let token = self.next()?;
        if let Some(sign) = expr::sign(token.kind) {
            let operand = self.duration(expr::POWER)?;
            return self.signed_duration(token, sign, operand);
        }
        match token.kind {
            TokenKind::Number | TokenKind::Duration => self.duration_literal(token, token.span),
            TokenKind::LeftParen => self.duration_in_parens(token),
            TokenKind::Special(word) => self.duration_call(token, word, token.span),
            _ => Err(Fail::Unexpected(token)),
        }
    }

    /// `blamed` is where it is said that it is out of range.
    fn duration_literal(&mut self, token: Token, blamed: Span) -> Parsed<DurationTree> {
        let number = self.number(token)?;
        if !number.is_duration() {
            return self.meaning_error(blamed, "duration out of range");
        }
        self.duration_tree(DurationKind::Number(number), token.span, 0)
    }

    /// A sign before a duration: part of a literal, else a minus is an operator and a plus is nothing.
    fn signed_duration(
        &mut self,
        sign: Token,
        op: UnaryOp,
        mut operand: DurationTree,
    ) -> Parsed<DurationTree> {
        let span = expr::between(sign.span, operand.span());
        match &mut operand.node.kind {
            DurationKind::Number(number) => {
                *number = number.signed(op);
                operand.node.span = SpanIgnored(span);
                Ok(operand)
            }
            _ if op == UnaryOp::Plus => Ok(operand),
            _ => {
                let tallest = operand.height;
                self.duration_tree(DurationKind::Unary(op, Box::new(operand.node)), span, tallest)
            }
        }
    }

    /// A duration in parentheses, the opening one was used up. Several around one another are one.
    fn duration_in_parens(&mut self, open: Token) -> Parsed<DurationTree> {
        let inner = self.duration(0)?;
        let close = self.expect(TokenKind::RightParen)?;
        self.needs_duration_expr(inner.span())?;
        if matches!(inner.node.kind, DurationKind::Paren(_)) {
            return Ok(inner);
        }
        let span = expr::between(open.span, close.span);
        let tallest = inner.height;
        self.duration_tree(DurationKind::Paren(Box::new(inner.node)), span, tallest)
    }

    /// `step()`, `range()`, `max_of(a, b)`, `min_of(a, b)`; the word was used up. `blamed` is where it is said that
    /// these are off.
    fn duration_call(&mut self, token: Token, word: Special, blamed: Span) -> Parsed<DurationTree> {
        if matches!(word, Special::Start | Special::End) {
            return Err(Fail::Unexpected(token));
        }
        self.expect(TokenKind::LeftParen)?;
        let (kind, tallest) = if matches!(word, Special::Step | Special::Range) {
            (if word == Special::Step { DurationKind::Step } else { DurationKind::Range }, 0)
        } else {
            let first = self.duration(0)?;
            self.expect(TokenKind::Comma)?;
            let second = self.duration(0)?;
            let (tallest, first, second) =
                (first.height.max(second.height), Box::new(first.node), Box::new(second.node));
            let max = word == Special::MaxOf;
            (
                if max { DurationKind::MaxOf(first, second) } else { DurationKind::MinOf(first, second) },
                tallest,
            )
        };
        let close = self.expect(TokenKind::RightParen)?;
        self.needs_duration_expr(blamed)?;
        self.duration_tree(kind, expr::between(token.span, close.span), tallest)
    }

    /// A duration after `offset`. Operators outside parentheses belong to the expression around it, except after a
    /// parenthesis or two signs, where Prometheus' grammar takes them.
    pub(super) fn offset_duration(&mut self) -> Parsed<DurationTree> {
        let token = self.peek()?;
        let Some(op) = expr::sign(token.kind) else {
            return match token.kind {
                TokenKind::LeftParen => self.duration(0),
                _ => self.duration_operand(),
            };
        };
        self.next()?;
        let inner = self.peek()?;
        let operand = match inner.kind {
            TokenKind::Special(word) => {
                self.next()?;
                self.duration_call(inner, word, token.span)?
            }
            kind if expr::sign(kind).is_some() => {
                let operand = self.duration(expr::POWER)?;
                let operand = self.signed_duration(token, op, operand)?;
                return self.duration_operators(operand, 0);
            }
            TokenKind::Number | TokenKind::Duration => {
                self.next()?;
                self.duration_literal(inner, token.span)?
            }
            _ => self.duration_operand()?,
        };
        self.signed_duration(token, op, operand)
    }
}
