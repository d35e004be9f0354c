//! Scanners for the tokens whose shape takes more than a character or two.

use nom::{
    IResult, Parser,
    bytes::complete::{take_till, take_while, take_while1},
    character::complete::{anychar, char, one_of, satisfy},
    combinator::{opt, peek, recognize},
    error::{Error, ErrorKind},
    multi::fold_many0,
    sequence::{pair, preceded},
};

use crate::text::{from_bytes, from_text};

const DIGITS: &str = "0123456789";
const HEX_DIGITS: &str = "0123456789abcdefABCDEF";

pub(super) const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

pub(super) const fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

pub(super) const fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}

/// Any run of white space, possibly none.
pub(super) fn spaces(input: &str) -> IResult<&str, &str> {
    take_while(is_space).parse(input)
}

/// `#` to the end of the line.
pub(super) fn comment(input: &str) -> IResult<&str, &str> {
    recognize(pair(char('#'), take_while(|c| c != '\n' && c != '\r'))).parse(input)
}

/// Letters, digits and underscores.
pub(super) fn identifier(input: &str) -> IResult<&str, &str> {
    take_while1(is_alphanumeric).parse(input)
}

/// An identifier that may hold colons.
pub(super) fn word(input: &str) -> IResult<&str, &str> {
    take_while1(|c| is_alphanumeric(c) || c == ':').parse(input)
}

/// Letters and underscores only, as the words of duration expressions are read.
pub(super) fn letters(input: &str) -> IResult<&str, &str> {
    take_while1(is_alpha).parse(input)
}

/// Whether the next thing that is not white space is a left parenthesis.
pub(super) fn parenthesis_follows(input: &str) -> bool {
    preceded(spaces, peek(char('('))).parse(input).is_ok()
}

/// A number that may also turn out a duration.
pub(super) enum Numeric {
    Number,
    Duration,
}

/// What is left of the input after one character of `set`; `None` where another follows.
fn accept<'a>(set: &str, input: &'a str) -> Option<&'a str> {
    one_of::<_, _, Error<&str>>(set).parse(input).ok().map(|(rest, _)| rest)
}

/// A number: decimal, octal, hexadecimal, with fraction, exponent and underscores. Both results hold what is left of
/// the input; the error's is what is left after the character that cannot be.
fn number(input: &str) -> Result<&str, &str> {
    let hexadecimal = |rest| {
        preceded(one_of::<_, _, Error<&str>>("xX"), opt(char('_'))).parse(rest).ok().map(|(rest, _)| rest)
    };
    let after_zero = accept("0", input);
    let (mut rest, digits) = match after_zero.map(|rest| (rest, hexadecimal(rest))) {
        Some((_, Some(rest))) => (rest, HEX_DIGITS),
        Some((rest, None)) => (rest, DIGITS),
        None => (input, DIGITS),
    };
    rest = accept(".", rest).unwrap_or(rest);
    rest = accept(digits, rest).unwrap_or(rest);
    let (mut dot_seen, mut exponent_seen) = (false, false);
    loop {
        if let Some(after) = accept(".", rest) {
            if dot_seen {
                return Err(after);
            }
            dot_seen = true;
            rest = after;
            if let Some(after) = accept("_.", rest) {
                return Err(after);
            }
            if digits == HEX_DIGITS {
                return Err(rest);
            }
        } else if let Some(after) = accept("eE", rest) {
            // In a hexadecimal number too, where `e` is a digit; Prometheus' lexer has it so.
            if exponent_seen {
                return Err(after);
            }
            exponent_seen = true;
            rest = accept("+-", after).unwrap_or(after);
            if let Some(after) = accept("._eE", rest) {
                return Err(after);
            }
            if rest.is_empty() {
                return Err(rest);
            }
        } else if let Some(after) = accept("_", rest) {
            rest = after;
            if let Some(after) = accept("._eE", rest) {
                return Err(after);
            }
            if rest.is_empty() {
                return Err(rest);
            }
        } else if let Some(after) = accept(digits, rest) {
            rest = after;
        } else {
            break;
        }
    }
    let ends = rest.len() < input.len() && !rest.starts_with(is_alphanumeric);
    if ends { Ok(rest) } else { Err(rest) }
}

/// The rest of a duration whose first digits were read: a unit, then digits and units. Which units may follow which is
/// checked when the duration is evaluated. The results are as those of [`number`].
fn duration_rest(input: &str) -> Result<&str, &str> {
    let unit = |set: &'static str| preceded(one_of::<_, _, Error<&str>>(set), opt(char('s')));
    let (mut rest, _) = unit("smhdwy").parse(input).map_err(|_| input)?;
    while let Ok((after, _)) = take_while1::<_, _, Error<&str>>(|c: char| c.is_ascii_digit()).parse(rest) {
        // No year after the first unit: years come first.
        (rest, _) = unit("smhdw").parse(after).map_err(|_| after)?;
    }
    match satisfy::<_, _, Error<&str>>(is_alphanumeric).parse(rest) {
        Ok((after, _)) => Err(after),
        Err(_) => Ok(rest),
    }
}

/// A number or a duration. The results are as those of [`number`].
pub(super) fn number_or_duration(input: &str) -> Result<(&str, Numeric), &str> {
    match number(input) {
        Ok(rest) => Ok((rest, Numeric::Number)),
        Err(rest) => duration_rest(rest).map(|rest| (rest, Numeric::Duration)),
    }
}

/// What is wrong with a string literal.
pub(super) enum StringFault {
    Unterminated,
    InvalidRune,
    EscapeUnterminated,
    EscapeUnknown(char),
    EscapeIllegal(char),
    EscapeInvalid,
}

/// The inside of a quoted string and the closing `quote`; the opening one was read.
pub(super) fn quoted_string(input: &str, quote: char) -> Result<&str, StringFault> {
    let mut rest = input;
    loop {
        let special = |c| matches!(c, '\\' | '\n' | '\u{fffd}') || c == quote;
        match next_special(rest, special) {
            Some((after, '\\')) => rest = escape(after, quote)?,
            Some((_, '\u{fffd}')) => return Err(StringFault::InvalidRune),
            Some((after, c)) if c == quote => return Ok(after),
            _ => return Err(StringFault::Unterminated),
        }
    }
}

/// The inside of a raw string and the closing backtick.
pub(super) fn raw_string(input: &str) -> Result<&str, StringFault> {
    match next_special(input, |c| matches!(c, '`' | '\u{fffd}')) {
        Some((after, '`')) => Ok(after),
        Some(_) => Err(StringFault::InvalidRune),
        None => Err(StringFault::Unterminated),
    }
}

/// The first character that is `special`, and what follows it; `None` where there is none.
fn next_special(input: &str, special: impl Fn(char) -> bool) -> Option<(&str, char)> {
    preceded(take_till(special), anychar::<_, Error<&str>>).parse(input).ok()
}

/// An escape sequence after its backslash.
fn escape(input: &str, quote: char) -> Result<&str, StringFault> {
    let (rest, c) = anychar::<_, Error<&str>>(input).map_err(|_| StringFault::EscapeUnterminated)?;
    let (digits_from, count, base, max) = match c {
        'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(rest),
        c if c == quote => return Ok(rest),
        '0'..='7' => (input, 3, 8, 255),
        'x' => (rest, 2, 16, 255),
        'u' => (rest, 4, 16, char::MAX as u32),
        'U' => (rest, 8, 16, char::MAX as u32),
        c => return Err(StringFault::EscapeUnknown(c)),
    };
    let (mut rest, mut code) = (digits_from, 0_u32);
    for _ in 0..count {
        let (after, c) = anychar::<_, Error<&str>>(rest).map_err(|_| StringFault::EscapeUnterminated)?;
        let digit = c.to_digit(base).ok_or(StringFault::EscapeIllegal(c))?;
        code = code.wrapping_mul(base).wrapping_add(digit);
        rest = after;
    }
    if code > max || (0xd800..0xe000).contains(&code) {
        return Err(StringFault::EscapeInvalid);
    }
    Ok(rest)
}

/// The value of a string literal that was read by [`quoted_string`] or [`raw_string`], `literal` with its quotes.
pub(crate) fn unquote(literal: &str) -> String {
    let mut chars = literal.chars();
    let quote = chars.next();
    let inside = chars.as_str().get(..chars.as_str().len().saturating_sub(1)).unwrap_or_default();
    if quote == Some('`') || !inside.contains('\\') {
        return from_text(inside);
    }
    let collected = fold_many0(unit, Vec::new, |mut bytes: Vec<u8>, unit| {
        match unit {
            Unit::Byte(byte) => bytes.push(byte),
            Unit::Char(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        bytes
    })
    .parse(inside);
    from_bytes(collected.map(|(_, bytes)| bytes).unwrap_or_default())
}

/// One character or escape sequence of a string.
#[derive(Clone, Copy)]
enum Unit {
    Byte(u8),
    Char(char),
}

fn unit(input: &str) -> IResult<&str, Unit> {
    let (rest, c) = anychar(input)?;
    if c != '\\' {
        return Ok((rest, Unit::Char(c)));
    }
    let (rest, c) = anychar(rest)?;
    let simple = match c {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        'x' => return coded(rest, 2, 16, true),
        'u' => return coded(rest, 4, 16, false),
        'U' => return coded(rest, 8, 16, false),
        '0'..='7' => return coded(input.get(1..).unwrap_or_default(), 3, 8, true),
        c => return Ok((rest, Unit::Char(c))),
    };
    Ok((rest, Unit::Byte(simple)))
}

/// `count` digits as a byte or a character.
fn coded(input: &str, count: usize, base: u32, byte: bool) -> IResult<&str, Unit> {
    let fault = || nom::Err::Error(Error::new(input, ErrorKind::Digit));
    let (digits, rest) = input.split_at_checked(count).ok_or_else(fault)?;
    let code = u32::from_str_radix(digits, base).map_err(|_| fault())?;
    let unit =
        if byte { Unit::Byte(code as u8) } else { char::from_u32(code).map(Unit::Char).ok_or_else(fault)? };
    Ok((rest, unit))
}
