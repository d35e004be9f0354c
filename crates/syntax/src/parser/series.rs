//! Series descriptions of the test script language.

use chronolith_model::{Labels, LabelsBuilder, METRIC_NAME, stale_nan};

use super::{Fail, ParseOptions, Parsed, Parser, expr};
use crate::{
    ast::BinaryOp,
    error::{ParseError, ParseErrorKind},
    lexer::{Lexer, Token, TokenKind, unquote},
    text::quoted,
};

/// The most values one description may stand for.
pub const SERIES_VALUES_MAX: usize = 1 << 20;

/// The most labels one description may have.
const SERIES_LABELS_MAX: usize = 1000;

/// One value of a series description.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SeriesValue {
    /// `_`: no sample.
    Omitted,
    /// A sample; `stale` is [`chronolith_model::stale_nan`].
    Float(f64),
}

/// Parses a series description of the test script language: `metric{label="value"} 1 2 _ _x2 3x4 1+2x3 stale`. `axN`
/// stands for N + 1 values, `_xN` for N.
///
/// # Errors
/// The first thing wrong with `text`, as Prometheus says it; [`ParseErrorKind::Unsupported`] for native histograms,
/// [`ParseErrorKind::Limit`] for more than [`SERIES_VALUES_MAX`] values.
pub fn parse_series_desc(text: &str) -> Result<(Labels, Vec<SeriesValue>), ParseError> {
    let options = ParseOptions::default();
    let mut parser = Parser::new(text, &options, Lexer::series(text))?;
    parser.series().map_err(|fail| parser.finish(fail))
}

impl Parser<'_> {
    fn series(&mut self) -> Parsed<(Labels, Vec<SeriesValue>)> {
        let labels = self.metric()?;
        let mut values = Vec::new();
        let done = self.series_values(&mut values);
        self.within("series values", "", done)?;
        Ok((labels, values))
    }

    fn metric(&mut self) -> Parsed<Labels> {
        let mut labels = LabelsBuilder::default();
        let mut name = None;
        if expr::can_name_metric(self.peek()?.kind) {
            name = Some(self.next()?);
        }
        if self.accept(TokenKind::LeftBrace)?.is_some() {
            self.label_set(&mut labels)?;
        }
        if let Some(name) = name {
            labels.set(METRIC_NAME, name.text(self.text));
        }
        Ok(labels.build())
    }

    /// Labels up to the closing brace.
    fn label_set(&mut self, labels: &mut LabelsBuilder) -> Parsed<()> {
        const CONTEXT: &str = "label set";
        for count in 0.. {
            let token = self.next()?;
            if count > SERIES_LABELS_MAX {
                let message = format!("series has more than {SERIES_LABELS_MAX} labels");
                return self.error(ParseErrorKind::Limit, token.span, message);
            }
            match token.kind {
                TokenKind::RightBrace => return Ok(()),
                TokenKind::Identifier | TokenKind::String => self.label(labels, token)?,
                _ => return self.unexpected(token, CONTEXT, "identifier or \"}\""),
            }
            let token = self.next()?;
            match token.kind {
                TokenKind::RightBrace => return Ok(()),
                TokenKind::Comma => {}
                _ => return self.unexpected(token, CONTEXT, "\",\" or \"}\""),
            }
        }
        Ok(())
    }

    fn label(&mut self, labels: &mut LabelsBuilder, name: Token) -> Parsed<()> {
        const CONTEXT: &str = "label set";
        let text = name.text(self.text);
        let quoted = name.kind == TokenKind::String;
        let token = self.peek()?;
        if token.kind != TokenKind::Equal {
            if !quoted {
                return self.unexpected(token, CONTEXT, "\"=\"");
            }
            labels.set(METRIC_NAME, unquote(text));
            return Ok(());
        }
        self.next()?;
        let value = self.expect(TokenKind::String);
        let value = self.within(CONTEXT, "string", value)?;
        let name = if quoted { unquote(text) } else { text.to_owned() };
        labels.set(name, unquote(value.text(self.text)));
        Ok(())
    }

    fn series_values(&mut self, values: &mut Vec<SeriesValue>) -> Parsed<()> {
        loop {
            let token = self.next()?;
            match token.kind {
                TokenKind::EndOfInput => return Ok(()),
                TokenKind::Space => {}
                _ => return Err(Fail::Unexpected(token)),
            }
            if !matches!(self.peek()?.kind, TokenKind::Space | TokenKind::EndOfInput) {
                self.series_item(values)?;
            }
        }
    }

    fn series_item(&mut self, values: &mut Vec<SeriesValue>) -> Parsed<()> {
        let first = self.peek()?;
        if first.kind == TokenKind::OpenHistogram {
            let message = "native histograms are not supported in series values";
            return self.error(ParseErrorKind::Unsupported, first.span, message);
        }
        if first.kind == TokenKind::Blank {
            self.next()?;
            let count = if self.peek()?.kind == TokenKind::Times { self.repetition()? } else { 1 };
            return self.push_values(values, first, count, || SeriesValue::Omitted);
        }
        let mut value = self.series_value()?;
        let token = self.peek()?;
        let step = match token.kind {
            TokenKind::Times => 0.0,
            TokenKind::Binary(BinaryOp::Add | BinaryOp::Sub) => self.signed_number()?.0,
            _ => return self.push_values(values, first, 1, || SeriesValue::Float(value)),
        };
        let steady = token.kind == TokenKind::Times;
        let count = self.repetition()?.saturating_add(1);
        self.push_values(values, first, count, || {
            let this = value;
            if !steady {
                value += step;
            }
            SeriesValue::Float(this)
        })
    }

    fn series_value(&mut self) -> Parsed<f64> {
        let token = self.peek()?;
        if token.kind != TokenKind::Identifier {
            return Ok(self.signed_number()?.0);
        }
        if token.text(self.text) != "stale" {
            return self.unexpected(token, "series values", "number or \"stale\"");
        }
        self.next()?;
        Ok(stale_nan())
    }

    /// `x` and how often.
    fn repetition(&mut self) -> Parsed<u64> {
        self.expect(TokenKind::Times)?;
        let token = self.expect(TokenKind::Number)?;
        let text = token.text(self.text);
        match text.parse() {
            Ok(count) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(count),
            _ => {
                let overflow = text.bytes().all(|byte| byte.is_ascii_digit());
                let reason = if overflow { "value out of range" } else { "invalid syntax" };
                let text = quoted(text);
                let what = "invalid repetition in series values: strconv.ParseUint";
                self.syntax_error(token.span, format!("{what}: parsing {text}: {reason}"))
            }
        }
    }

    fn push_values(
        &mut self,
        values: &mut Vec<SeriesValue>,
        item: Token,
        count: u64,
        mut value: impl FnMut() -> SeriesValue,
    ) -> Parsed<()> {
        let room = SERIES_VALUES_MAX - values.len().min(SERIES_VALUES_MAX);
        let Some(count) = usize::try_from(count).ok().filter(|count| *count <= room) else {
            let message = format!("series description has more than {SERIES_VALUES_MAX} values");
            return self.error(ParseErrorKind::Limit, item.span, message);
        };
        values.extend((0..count).map(|_| value()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(text: &str) -> Vec<Option<f64>> {
        let (_, values) = parse_series_desc(text).unwrap();
        let float = |value: SeriesValue| match value {
            SeriesValue::Omitted => None,
            SeriesValue::Float(value) => Some(value),
        };
        values.into_iter().map(float).collect()
    }

    fn error(text: &str) -> String {
        parse_series_desc(text).unwrap_err().to_string()
    }

    #[test]
    fn metrics() {
        for (text, labels) in [
            ("up 1", "{__name__=\"up\"}"),
            ("up{job='a',} 1", "{__name__=\"up\", job=\"a\"}"),
            ("a:b{} 1", "{__name__=\"a:b\"}"),
            ("{} 1", "{}"),
            ("{\"metric.name\", \"label.name\"=\"x\"} 1", "{__name__=\"metric.name\", \"label.name\"=\"x\"}"),
            ("{__name__=\"x\"} 1", "{__name__=\"x\"}"),
            ("sum{by=\"1\"} 1", "{__name__=\"sum\", by=\"1\"}"),
        ] {
            assert_eq!(parse_series_desc(text).unwrap().0.to_string(), labels, "{text}");
        }
    }

    #[test]
    fn values() {
        assert_eq!(floats("m"), []);
        assert_eq!(floats("m "), []);
        assert_eq!(floats("m  1\t2 "), [Some(1.0), Some(2.0)]);
        assert_eq!(
            floats("m 1 _ -.5 +2 1e3 _x2"),
            [Some(1.0), None, Some(-0.5), Some(2.0), Some(1000.0), None, None]
        );
        assert_eq!(floats("m 3x2"), [Some(3.0); 3]);
        assert_eq!(floats("m -1x0"), [Some(-1.0)]);
        assert_eq!(floats("m 1+2x3"), [Some(1.0), Some(3.0), Some(5.0), Some(7.0)]);
        assert_eq!(floats("m 1-2x2 9"), [Some(1.0), Some(-1.0), Some(-3.0), Some(9.0)]);
        assert_eq!(floats("m Inf -inf"), [Some(f64::INFINITY), Some(f64::NEG_INFINITY)]);
        assert!(floats("m NaN")[0].unwrap().is_nan());
        let stale = floats("m stale")[0].unwrap();
        assert_eq!(stale.to_bits(), stale_nan().to_bits());
        // A sum would lose the sign of zero.
        assert!(floats("m -0x1")[1].unwrap().is_sign_negative());
    }

    #[test]
    fn errors() {
        for (text, message) in [
            (
                "m 1 foo",
                "1:5: parse error: unexpected identifier \"foo\" in series values, expected number or \"stale\"",
            ),
            ("m 1x", "1:5: parse error: unexpected end of input in series values"),
            ("m 1+2", "1:6: parse error: unexpected end of input in series values"),
            (
                "m 1x1.5",
                "1:5: parse error: invalid repetition in series values: strconv.ParseUint: parsing \"1.5\": invalid syntax",
            ),
            ("m 1y", "1:3: parse error: bad number syntax: \"1\""),
            ("m 1 ;", "1:5: parse error: unexpected character in series sequence: ';'"),
            ("m{a} 1", "1:4: parse error: unexpected \"}\" in label set, expected \"=\""),
            ("m{a=b} 1", "1:5: parse error: unexpected identifier \"b\" in label set, expected string"),
            (
                "m{a=\"b\" c=\"d\"} 1",
                "1:9: parse error: unexpected identifier \"c\" in label set, expected \",\" or \"}\"",
            ),
            ("m{,} 1", "1:3: parse error: unexpected \",\" in label set, expected identifier or \"}\""),
            ("m 1 {{schema:0}}", "1:5: parse error: native histograms are not supported in series values"),
            ("m _x99999999", "1:3: parse error: series description has more than 1048576 values"),
            ("m 1x18446744073709551615", "1:3: parse error: series description has more than 1048576 values"),
        ] {
            assert_eq!(error(text), message, "{text}");
        }
        assert_eq!(parse_series_desc("m {{}}").unwrap_err().kind, ParseErrorKind::Unsupported);
    }
}
