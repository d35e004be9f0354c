//! What stands between a binary operator and its right operand.

use super::{Fail, Parsed, Parser, expr};
use crate::{
    ast::{Cardinality, Matching, Span},
    lexer::{Keyword, TokenKind},
};

impl Parser<'_> {
    /// `bool`, `on`, `ignoring`, `group_left`, `group_right`, `fill`, `fill_left`, `fill_right`, all of them optional.
    pub(super) fn matching(&mut self) -> Parsed<(bool, Matching)> {
        let mut matching = Matching::default();
        let return_bool = self.accept(TokenKind::Keyword(Keyword::Bool))?.is_some();
        matching.on = match self.peek()?.kind {
            TokenKind::Keyword(Keyword::On) => true,
            TokenKind::Keyword(Keyword::Ignoring) => false,
            _ => {
                self.fill(&mut matching)?;
                return Ok((return_bool, matching));
            }
        };
        self.next()?;
        matching.labels = self.label_list()?.0;
        let card = match self.peek()?.kind {
            TokenKind::Keyword(Keyword::GroupLeft) => Some(Cardinality::ManyToOne),
            TokenKind::Keyword(Keyword::GroupRight) => Some(Cardinality::OneToMany),
            _ => None,
        };
        if let Some(card) = card {
            self.next()?;
            matching.card = card;
            matching.include = self.include_list()?;
        }
        self.fill(&mut matching)?;
        Ok((return_bool, matching))
    }

    /// The labels of `group_left` or `group_right`, which may be missing; then an operand follows, or `fill`.
    fn include_list(&mut self) -> Parsed<Vec<String>> {
        let kind = self.peek()?.kind;
        if kind != TokenKind::LeftParen && expr::can_begin(kind) {
            return Ok(Vec::new());
        }
        Ok(self.label_list()?.0)
    }

    fn fill(&mut self, matching: &mut Matching) -> Parsed<()> {
        match self.peek()?.kind {
            TokenKind::Keyword(Keyword::Fill) => {
                matching.fill_left = Some(self.fill_value()?);
                matching.fill_right = matching.fill_left;
            }
            TokenKind::Keyword(Keyword::FillLeft) => {
                matching.fill_left = Some(self.fill_value()?);
                if self.peek()?.kind == TokenKind::Keyword(Keyword::FillRight) {
                    matching.fill_right = Some(self.fill_value()?);
                }
            }
            TokenKind::Keyword(Keyword::FillRight) => {
                matching.fill_right = Some(self.fill_value()?);
                if self.peek()?.kind == TokenKind::Keyword(Keyword::FillLeft) {
                    matching.fill_left = Some(self.fill_value()?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A number in parentheses, after the word that the next token is.
    fn fill_value(&mut self) -> Parsed<f64> {
        self.next()?;
        self.expect(TokenKind::LeftParen)?;
        let (number, _) = self.signed_number()?;
        self.expect(TokenKind::RightParen)?;
        Ok(number)
    }

    /// A number or a duration in seconds, with or without a sign, and where it ends.
    pub(super) fn signed_number(&mut self) -> Parsed<(f64, Span)> {
        let sign = expr::sign(self.peek()?.kind);
        if sign.is_some() {
            self.next()?;
        }
        let token = self.next()?;
        if !matches!(token.kind, TokenKind::Number | TokenKind::Duration) {
            return Err(Fail::Unexpected(token));
        }
        let number = self.number(token)?;
        Ok((sign.map_or(number, |sign| number.signed(sign)).value, token.span))
    }
}
