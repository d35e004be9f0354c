//! Numbers and durations to values.

use super::{Parsed, Parser};
use crate::{
    ast::{NumberLiteral, UnaryOp},
    lexer::{Token, TokenKind},
    text::quoted,
};

/// Not-a-number as a literal makes it.
const NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

const NANOS_PER_SECOND: f64 = 1e9;
const NANOS_PER_MS: i64 = 1_000_000;

/// Units of durations, largest first, in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000_000_000),
    ("w", 7 * 24 * 3_600_000_000_000),
    ("d", 24 * 3_600_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

impl Parser<'_> {
    /// The value of a number or duration token.
    pub(super) fn number(&self, token: Token) -> Parsed<NumberLiteral> {
        let text = token.text(self.text);
        if token.kind == TokenKind::Duration {
            return match duration_seconds(text) {
                Ok(value) => Ok(NumberLiteral { value, duration: true }),
                Err(message) => self.syntax_error(token.span, message),
            };
        }
        match number_value(text) {
            Ok(value) => Ok(NumberLiteral { value, duration: false }),
            Err(reason) => {
                let text = quoted(text);
                let message = format!("error parsing number: strconv.ParseFloat: parsing {text}: {reason}");
                self.syntax_error(token.span, message)
            }
        }
    }
}

impl NumberLiteral {
    /// The literal with a sign before it. Not-a-number has none.
    pub(super) fn signed(self, sign: UnaryOp) -> Self {
        let negated = sign == UnaryOp::Minus && !self.value.is_nan();
        Self { value: if negated { -self.value } else { self.value }, ..self }
    }

    /// Whether a duration of that many seconds fits 2^63 nanoseconds.
    pub(super) fn is_duration(self) -> bool {
        self.value.abs() <= i64::MAX as f64 / NANOS_PER_SECOND
    }

    /// The value in milliseconds: a number rounded to nanoseconds, then truncated; a duration exactly, while it would
    /// lose a millisecond if taken for a number of many seconds.
    pub(super) fn millis(self) -> i64 {
        if self.duration {
            return (self.value * 1000.0).round() as i64;
        }
        (self.value * NANOS_PER_SECOND).round() as i64 / NANOS_PER_MS
    }
}

/// The value of a number: Go's integer syntax with base prefixes, else its float syntax. Fails with Go's reason.
fn number_value(text: &str) -> Result<f64, &'static str> {
    const SYNTAX: &str = "invalid syntax";
    match text.to_ascii_lowercase().as_str() {
        "inf" => return Ok(f64::INFINITY),
        "nan" => return Ok(NAN),
        _ => {}
    }
    if !underscores_separate_digits(text) {
        return Err(SYNTAX);
    }
    let plain = text.replace('_', "");
    if let Some(value) = integer_value(&plain) {
        return Ok(value as f64);
    }
    match plain.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err("value out of range"),
        Err(_) => Err(SYNTAX),
    }
}

fn integer_value(text: &str) -> Option<i64> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return i64::from_str_radix(digits, 16).ok().filter(|value| *value >= 0);
    }
    match text.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => i64::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// Whether each underscore stands after a digit (or a base prefix) and before one.
fn underscores_separate_digits(text: &str) -> bool {
    let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let is_digit =
        |c: char| c.is_ascii_digit() || (hexadecimal && (c.is_ascii_hexdigit() || c == 'x' || c == 'X'));
    let mut previous = '.';
    for c in text.chars() {
        if (c == '_' && !is_digit(previous)) || (previous == '_' && !is_digit(c)) {
            return false;
        }
        previous = c;
    }
    previous != '_'
}

/// The seconds of a duration literal. Fails with Prometheus' text.
fn duration_seconds(text: &str) -> Result<f64, String> {
    let invalid = || format!("not a valid duration string: {}", quoted(text));
    let out_of_range = || "duration out of range".to_owned();
    let mut rest = text;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (digits, after) = split_where(rest, |c| !c.is_ascii_digit());
        let number: u64 = digits.parse().map_err(|_| invalid())?;
        let (unit, after) = split_where(after, |c| c.is_ascii_digit());
        if unit.is_empty() {
            return Err(invalid());
        }
        let Some((index, (_, size))) = UNITS.iter().enumerate().find(|(_, (name, _))| *name == unit) else {
            return Err(format!("unknown unit {} in duration {}", quoted(unit), quoted(text)));
        };
        if index < next_unit {
            return Err(invalid());
        }
        next_unit = index + 1;
        total = number.checked_mul(*size).and_then(|n| total.checked_add(n)).ok_or_else(out_of_range)?;
        if i64::try_from(total).is_err() {
            return Err(out_of_range());
        }
        rest = after;
    }
    let second = NANOS_PER_SECOND as u64;
    Ok((total / second) as f64 + (total % second) as f64 / NANOS_PER_SECOND)
}

/// `text` cut before the first character that `stops`.
fn split_where(text: &str, stops: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at_checked(text.find(stops).unwrap_or(text.len())).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, value) in [
            ("0", 0.0),
            ("017", 15.0),
            ("089", 89.0),
            ("0_17", 15.0),
            ("1_000", 1000.0),
            ("1_000.5", 1000.5),
            ("0x1F", 31.0),
            ("0X_1F", 31.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1e-3", 0.001),
            ("99999999999999999999", 1e20),
            ("9007199254740993", 9_007_199_254_740_992.0),
            ("InF", f64::INFINITY),
        ] {
            assert_eq!(number_value(text), Ok(value), "{text}");
        }
        assert_eq!(number_value("nAn").map(f64::to_bits), Ok(NAN.to_bits()));
        for text in ["0x", "0xFFFFFFFFFFFFFFFFFF", "0x1e+5", "1e"] {
            assert_eq!(number_value(text), Err("invalid syntax"), "{text}");
        }
        assert_eq!(number_value("1e999"), Err("value out of range"));
    }

    #[test]
    fn durations() {
        for (text, value) in
            [("1h30m", 5400.0), ("1s500ms", 1.5), ("0s", 0.0), ("292y", 292.0 * 365.0 * 86400.0)]
        {
            assert_eq!(duration_seconds(text).as_ref(), Ok(&value), "{text}");
        }
        for (text, message) in [
            ("1.5h", "unknown unit \".\" in duration \"1.5h\""),
            ("1hs", "unknown unit \"hs\" in duration \"1hs\""),
            ("1m1h", "not a valid duration string: \"1m1h\""),
            ("1m1m", "not a valid duration string: \"1m1m\""),
            ("99999999999999999999s", "not a valid duration string: \"99999999999999999999s\""),
            ("293y", "duration out of range"),
        ] {
            assert_eq!(duration_seconds(text), Err(message.to_owned()), "{text}");
        }
    }
}
