//! Texts that literals stand for. `"\xff"` is no UTF-8, yet PromQL has it and error messages print it back, so a byte
//! that is part of no character is kept as a character: byte `b` as U+10FF00 + `b`, at the end of the private use
//! area. Should one of these stand in a text, it is kept as its bytes.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use chronolith_model::labels::write_quoted;

/// Where the characters that stand for bytes begin.
const BYTES_FROM: u32 = 0x0010_ff00;

/// The text of `bytes`, in which bytes that are part of no character become characters that stand for them.
pub(crate) fn from_bytes(bytes: Vec<u8>) -> String {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return from_text(&text),
        Err(error) => error.into_bytes(),
    };
    let mut text = String::with_capacity(bytes.len() * 2);
    for chunk in bytes.utf8_chunks() {
        push_text(&mut text, chunk.valid());
        push_raw(&mut text, chunk.invalid());
    }
    text
}

/// [`from_bytes`] of the bytes of `text`.
pub(crate) fn from_text(text: &str) -> String {
    if is_utf8(text) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    push_text(&mut out, text);
    out
}

fn push_text(out: &mut String, text: &str) {
    for c in text.chars() {
        match raw_byte(c) {
            Some(_) => push_raw(out, c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => out.push(c),
        }
    }
}

fn push_raw(out: &mut String, bytes: &[u8]) {
    out.extend(bytes.iter().filter_map(|byte| char::from_u32(BYTES_FROM + u32::from(*byte))));
}

/// The byte that `c` stands for.
fn raw_byte(c: char) -> Option<u8> {
    let byte = u8::try_from((c as u32).checked_sub(BYTES_FROM)?).ok()?;
    (!byte.is_ascii()).then_some(byte)
}

/// Whether the text of a literal was UTF-8; label names and values must be.
#[must_use]
pub fn is_utf8(text: &str) -> bool {
    text.chars().all(|c| raw_byte(c).is_none())
}

/// The text of a literal as UTF-8: the replacement character for each byte that was none.
#[must_use]
pub fn lossy(text: &str) -> Cow<'_, str> {
    if is_utf8(text) {
        return Cow::Borrowed(text);
    }
    let known = |c| if raw_byte(c).is_some() { char::REPLACEMENT_CHARACTER } else { c };
    Cow::Owned(text.chars().map(known).collect())
}

/// The text of a literal as Go's `%q` prints it: in double quotes, with escapes, `\xff` for what was no UTF-8; and
/// `\ufffd` for the replacement character, which a literal may not hold as it is.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    // Writing to a String cannot fail.
    let _ = write_text(&mut out, text);
    out
}

/// Writes what [`quoted`] returns.
pub(crate) fn write_text(out: &mut dyn Write, text: &str) -> fmt::Result {
    let mut piece = String::with_capacity(text.len() + 2);
    if is_utf8(text) && !text.contains(char::REPLACEMENT_CHARACTER) {
        write_quoted(&mut piece, text)?;
        return out.write_str(&piece);
    }
    out.write_char('"')?;
    for c in text.chars() {
        if let Some(byte) = raw_byte(c) {
            write!(out, "\\x{byte:02x}")?;
        } else if c == char::REPLACEMENT_CHARACTER {
            out.write_str("\\ufffd")?;
        } else {
            piece.clear();
            write_quoted(&mut piece, c.encode_utf8(&mut [0; 4]))?;
            out.write_str(piece.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&piece))?;
        }
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        let text = from_bytes(b"a\xc5z\xc3\xa9\"\n\xff\x80".to_vec());
        assert!(!is_utf8(&text));
        assert_eq!(lossy(&text), "a\u{fffd}z\u{e9}\"\n\u{fffd}\u{fffd}");
        assert_eq!(quoted(&text), "\"a\\xc5z\u{e9}\\\"\\n\\xff\\x80\"");
        let text = from_text("\u{e9}\u{10ff7f}\u{fffd}");
        assert_eq!(text, "\u{e9}\u{10ff7f}\u{fffd}");
        assert!(is_utf8(&text));
        assert_eq!(quoted(&text), "\"\u{e9}\\U0010ff7f\\ufffd\"");
    }

    #[test]
    fn characters_that_stand_for_bytes_are_bytes_themselves() {
        for text in [from_text("a\u{10ffc3}\u{10ffa9}"), from_bytes("a\u{10ffc3}\u{10ffa9}".into())] {
            assert_eq!(quoted(&text), "\"a\\xf4\\x8f\\xbf\\x83\\xf4\\x8f\\xbe\\xa9\"");
        }
    }
}
