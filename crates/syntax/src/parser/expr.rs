//! Expressions: operators, calls, aggregations, what follows an operand.

use super::{Fail, Parsed, Parser, Tree};
use crate::{
    ast::{Aggregate, AggregateOp, Binary, BinaryOp, Call, Expr, ExprKind, Grouping, Span, UnaryOp},
    functions,
    lexer::{Keyword, Special, Token, TokenKind, unquote},
    text::{is_utf8, quoted},
};

/// How strongly a binary operator binds; higher is stronger.
pub(super) const fn precedence(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
        BinaryOp::Pow => POWER,
        _ => 3,
    }
}

/// The precedence of `^`, the only operator that binds stronger than a sign.
pub(super) const POWER: u8 = 6;

/// The least precedence that the right operand of `op` may have: only `^` groups to the right.
pub(super) const fn right_precedence(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Pow => POWER,
        _ => precedence(op) + 1,
    }
}

/// The sign a token is.
pub(super) const fn sign(kind: TokenKind) -> Option<UnaryOp> {
    match kind {
        TokenKind::Binary(BinaryOp::Add) => Some(UnaryOp::Plus),
        TokenKind::Binary(BinaryOp::Sub) => Some(UnaryOp::Minus),
        _ => None,
    }
}

/// Whether the token is a metric name where an operand is expected.
pub(super) const fn can_name_metric(kind: TokenKind) -> bool {
    match kind {
        TokenKind::Identifier
        | TokenKind::MetricIdentifier
        | TokenKind::Aggregate(_)
        | TokenKind::Special(_)
        | TokenKind::Binary(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => true,
        TokenKind::Keyword(word) => !matches!(
            word,
            Keyword::On | Keyword::Ignoring | Keyword::GroupLeft | Keyword::GroupRight | Keyword::Bool
        ),
        _ => false,
    }
}

/// Whether the token is a label name in the list of a modifier, other than a quoted one.
const fn can_name_label(kind: TokenKind) -> bool {
    can_name_metric(kind) || matches!(kind, TokenKind::Keyword(_) | TokenKind::Binary(BinaryOp::Atan2))
}

/// Whether an expression may begin with the token.
pub(super) const fn can_begin(kind: TokenKind) -> bool {
    can_name_metric(kind)
        || sign(kind).is_some()
        || matches!(
            kind,
            TokenKind::LeftParen
                | TokenKind::LeftBrace
                | TokenKind::Number
                | TokenKind::Duration
                | TokenKind::String
        )
}

/// Where a kind of thing between two places begins and ends.
pub(super) const fn between(first: Span, last: Span) -> Span {
    Span { start: first.start, end: last.end }
}

impl Parser<'_> {
    /// An expression whose operators outside parentheses have at least this precedence.
    pub(super) fn expr(&mut self, least: u8) -> Parsed<Tree> {
        self.enter()?;
        let mut left = match sign(self.peek()?.kind) {
            Some(op) => self.unary(op)?,
            None => {
                let operand = self.operand()?;
                self.modified(operand)?
            }
        };
        while let TokenKind::Binary(op) = self.peek()?.kind
            && precedence(op) >= least
        {
            self.next()?;
            left = self.binary(op, left)?;
        }
        self.leave();
        Ok(left)
    }

    fn unary(&mut self, op: UnaryOp) -> Parsed<Tree> {
        let start = self.next()?.span;
        let mut tree = self.expr(POWER)?;
        let span = between(start, tree.expr.span);
        if let ExprKind::Number(number) = &mut tree.expr.kind {
            *number = number.signed(op);
            tree.expr.span = span;
            return Ok(tree);
        }
        self.grown(ExprKind::Unary(op, tree.expr), span, tree.height)
    }

    /// The rest of a binary expression after its operator.
    fn binary(&mut self, op: BinaryOp, left: Tree) -> Parsed<Tree> {
        let (return_bool, matching) = self.matching()?;
        let right = self.expr(right_precedence(op))?;
        let span = between(left.expr.span, right.expr.span);
        if !self.options.fill_modifiers && (matching.fill_left.is_some() || matching.fill_right.is_some()) {
            return self.meaning_error(span, "binop fill modifiers are experimental and not enabled");
        }
        let height = left.height.max(right.height);
        let binary = Binary { op, lhs: *left.expr, rhs: *right.expr, return_bool, matching: Some(matching) };
        self.grown(ExprKind::Binary(Box::new(binary)), span, height)
    }

    /// An expression without operators and without what may follow it.
    fn operand(&mut self) -> Parsed<Tree> {
        let token = self.next()?;
        match token.kind {
            TokenKind::Number | TokenKind::Duration | TokenKind::String => self.literal(token),
            TokenKind::LeftParen => self.in_parens(token),
            TokenKind::LeftBrace => self.selector(None, token.span),
            TokenKind::Identifier | TokenKind::Special(_) if self.peek()?.kind == TokenKind::LeftParen => {
                self.call(token)
            }
            TokenKind::Aggregate(op) if self.begins_aggregate()? => {
                let tree = self.aggregate(op, token);
                self.within("aggregation", "", tree)
            }
            kind if can_name_metric(kind) => self.selector(Some(token), token.span),
            _ => Err(Fail::Unexpected(token)),
        }
    }

    fn literal(&mut self, token: Token) -> Parsed<Tree> {
        let kind = match token.kind {
            TokenKind::String => ExprKind::String(unquote(token.text(self.text))),
            _ => ExprKind::Number(self.number(token)?),
        };
        self.grown(kind, token.span, 0)
    }

    fn in_parens(&mut self, open: Token) -> Parsed<Tree> {
        let inner = self.expr(0)?;
        let close = self.expect(TokenKind::RightParen)?;
        self.grown(ExprKind::Paren(inner.expr), between(open.span, close.span), inner.height)
    }

    fn begins_aggregate(&mut self) -> Parsed<bool> {
        let kind = self.peek()?.kind;
        Ok(matches!(kind, TokenKind::LeftParen | TokenKind::Keyword(Keyword::By | Keyword::Without)))
    }

    /// Arguments in parentheses, the height of the highest, and where the list ends.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, usize, Span)> {
        self.expect(TokenKind::LeftParen)?;
        let mut args = Vec::new();
        let mut height = 0;
        if let Some(close) = self.accept(TokenKind::RightParen)? {
            return Ok((args, height, close.span));
        }
        loop {
            let tree = self.expr(0)?;
            args.push(*tree.expr);
            height = height.max(tree.height);
            let token = self.next()?;
            match token.kind {
                TokenKind::RightParen => return Ok((args, height, token.span)),
                TokenKind::Comma if can_begin(self.peek()?.kind) => {}
                TokenKind::Comma => {
                    return self
                        .syntax_error(token.span, "trailing commas not allowed in function call args");
                }
                _ => return Err(Fail::Unexpected(token)),
            }
        }
    }

    fn call(&mut self, name: Token) -> Parsed<Tree> {
        let (args, height, end) = self.arguments()?;
        let text = name.text(self.text);
        let Some(function) = functions::lookup(text) else {
            return self.meaning_error(name.span, format!("unknown function with name \"{text}\""));
        };
        if function.experimental && !self.options.experimental_functions {
            return self.meaning_error(name.span, format!("function \"{text}\" is not enabled"));
        }
        self.grown(ExprKind::Call(Call { function, args }), between(name.span, end), height)
    }

    fn aggregate(&mut self, op: AggregateOp, name: Token) -> Parsed<Tree> {
        let mut grouping = self.grouping()?;
        let (mut args, height, mut end) = self.arguments()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
            if let Some((_, after)) = grouping {
                end = after;
            }
        }
        let span = between(name.span, end);
        if args.is_empty() {
            return self.meaning_error(span, "no arguments for aggregate expression provided");
        }
        let experimental = matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio);
        if experimental && !self.options.experimental_functions {
            let flag = "must be enabled with --enable-feature=promql-experimental-functions";
            return self.meaning_error(span, format!("{}() is experimental and {flag}", op.as_str()));
        }
        let count = args.len();
        let expected = if op.has_param() { 2 } else { 1 };
        let (Some(expr), true) = (args.pop(), count == expected) else {
            let what = "wrong number of arguments for aggregate expression provided";
            return self.meaning_error(span, format!("{what}, expected {expected}, got {count}"));
        };
        let (expr, param) = (Box::new(expr), args.pop().map(Box::new));
        // `by ()` groups like no grouping at all, and is printed so.
        let grouping = grouping.map(|(grouping, _)| grouping).filter(|g| g.without || !g.labels.is_empty());
        self.grown(ExprKind::Aggregate(Aggregate { op, param, expr, grouping }), span, height)
    }

    /// `by (...)` or `without (...)`, if that is next, and where it ends.
    fn grouping(&mut self) -> Parsed<Option<(Grouping, Span)>> {
        let without = match self.peek()?.kind {
            TokenKind::Keyword(Keyword::By) => false,
            TokenKind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.next()?;
        let (labels, end) = self.label_list()?;
        Ok(Some((Grouping { without, labels }, end)))
    }

    /// Label names in parentheses, and where the list ends.
    pub(super) fn label_list(&mut self) -> Parsed<(Vec<String>, Span)> {
        const CONTEXT: &str = "grouping opts";
        let open = self.expect(TokenKind::LeftParen);
        self.within(CONTEXT, "\"(\"", open)?;
        let mut labels = Vec::new();
        loop {
            let token = self.next()?;
            match token.kind {
                TokenKind::RightParen => return Ok((labels, token.span)),
                TokenKind::String => labels.push(unquote(token.text(self.text))),
                kind if can_name_label(kind) => labels.push(token.text(self.text).to_owned()),
                _ => return self.unexpected(token, CONTEXT, "label"),
            }
            if let Some(label) = labels.last().filter(|label| label.is_empty() || !is_utf8(label)) {
                let label = quoted(label);
                return self.meaning_error(token.span, format!("invalid label name for grouping: {label}"));
            }
            let token = self.next()?;
            match token.kind {
                TokenKind::RightParen => return Ok((labels, token.span)),
                TokenKind::Comma => {}
                _ => return self.unexpected(token, CONTEXT, "\",\" or \")\""),
            }
        }
    }

    /// `start` and `end`, the words an `@` modifier knows.
    pub(super) const fn at_word(kind: TokenKind) -> bool {
        matches!(kind, TokenKind::Special(Special::Start | Special::End))
    }
}
