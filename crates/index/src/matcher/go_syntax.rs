//! Go's regular expression syntax (RE2 with Perl extensions, as Prometheus uses it) rewritten for `regex-syntax`.
//!
//! The two dialects agree on most of the syntax but not on its edges: `\d \s \w \b` are ASCII in Go, a `{` that starts
//! no repetition is a literal, `\Q...\E` quotes, classes know no set operators, only the flags `imsU` exist, `a**` is
//! an error. The rewriting is a scan over the text that also finds the errors, with Go's words.

use std::borrow::Cow;

use crate::error::SyntaxError;

/// How deep groups may nest.
const GROUPS_NESTED_MAX: usize = 100;
/// Largest count of a repetition, as in Go.
const REPEAT_MAX: u32 = 1000;

type Result<T> = std::result::Result<T, SyntaxError>;

/// `pattern` in the syntax of `regex-syntax` with Unicode on.
pub(super) fn translate(pattern: &str) -> Result<String> {
    scan(pattern, false).map(|scan| scan.out)
}

/// The same with groups that capture, in the order of their parentheses, and the names of those that have one.
pub(super) fn translate_captures(pattern: &str) -> Result<(String, Vec<Option<String>>)> {
    let scan = scan(pattern, true)?;
    Ok((scan.out, scan.groups.into_iter().map(|name| name.map(str::to_owned)).collect()))
}

fn scan(pattern: &str, capture: bool) -> Result<Scan<'_>> {
    let mut scan = Scan {
        src: pattern,
        pos: 0,
        out: String::with_capacity(pattern.len() + 16),
        depth: 0,
        capture,
        groups: Vec::new(),
        previous: Previous::Nothing,
    };
    while let Some(c) = scan.peek() {
        scan.item(c)?;
    }
    if scan.depth > 0 {
        return Err(SyntaxError::new("missing closing )", pattern));
    }
    Ok(scan)
}

/// What stands before the position, as far as a repetition cares.
#[derive(Clone, Copy)]
enum Previous {
    /// Nothing that can be repeated.
    Nothing,
    /// Something that can.
    Atom,
    /// A repetition whose operator starts there.
    Repeated(usize),
}

struct Scan<'a> {
    src: &'a str,
    pos: usize,
    out: String,
    depth: usize,
    /// Write groups so that they capture.
    capture: bool,
    /// The names of the groups seen.
    groups: Vec<Option<&'a str>>,
    previous: Previous,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a str {
        self.from(self.pos)
    }

    fn from(&self, start: usize) -> &'a str {
        self.src.get(start..).unwrap_or_default()
    }

    /// The text between `start` and the position.
    fn since(&self, start: usize) -> &'a str {
        self.src.get(start..self.pos).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.pos += text.len();
        }
        found
    }

    fn item(&mut self, c: char) -> Result<()> {
        match c {
            '(' => self.open(),
            ')' => {
                if self.depth == 0 {
                    return Err(SyntaxError::new("unexpected )", self.src));
                }
                self.depth -= 1;
                self.copy(Previous::Atom);
                Ok(())
            }
            '|' => {
                self.copy(Previous::Nothing);
                Ok(())
            }
            '^' | '$' | '.' => {
                self.copy(Previous::Atom);
                Ok(())
            }
            '[' => self.class(),
            '*' | '+' | '?' => {
                let start = self.pos;
                self.bump();
                self.repeat(start)
            }
            '{' => self.braces(),
            '\\' => self.escape(),
            c => {
                self.bump();
                self.literal(c);
                Ok(())
            }
        }
    }

    /// Takes over one character that means the same in both dialects.
    fn copy(&mut self, previous: Previous) {
        if let Some(c) = self.bump() {
            self.out.push(c);
        }
        self.previous = previous;
    }

    fn literal(&mut self, c: char) {
        if regex_syntax::is_meta_character(c) {
            self.out.push('\\');
        }
        self.out.push(c);
        self.previous = Previous::Atom;
    }

    /// The position is behind a repetition operator that starts at `start`.
    fn repeat(&mut self, start: usize) -> Result<()> {
        let operator_end = self.pos;
        self.eat("?");
        match self.previous {
            Previous::Nothing => {
                let operator = self.src.get(start..operator_end).unwrap_or_default();
                Err(SyntaxError::new("missing argument to repetition operator", operator))
            }
            Previous::Repeated(before) => {
                Err(SyntaxError::new("invalid nested repetition operator", self.since(before)))
            }
            Previous::Atom => {
                let operator = self.since(start);
                self.out.push_str(operator);
                self.previous = Previous::Repeated(start);
                Ok(())
            }
        }
    }

    /// `{n}`, `{n,}`, `{n,m}`; anything else is a literal brace.
    fn braces(&mut self) -> Result<()> {
        let start = self.pos;
        self.bump();
        let Some((min, max)) = self.bounds() else {
            self.pos = start + 1;
            self.literal('{');
            return Ok(());
        };
        let too_large =
            min.is_none_or(|n| n > REPEAT_MAX) || max.is_some_and(|m| m.is_none_or(|m| m > REPEAT_MAX));
        let reversed = matches!((min, max), (Some(min), Some(Some(max))) if max < min);
        if too_large || reversed {
            return Err(SyntaxError::new("invalid repeat count", self.since(start)));
        }
        self.repeat(start)
    }

    /// The bounds inside braces, behind the opening one. A number that overflows is `None` inside.
    #[allow(clippy::type_complexity, reason = "two numbers that may each be absent or too large")]
    fn bounds(&mut self) -> Option<(Option<u32>, Option<Option<u32>>)> {
        let min = self.number()?;
        let mut max = None;
        if self.eat(",") && self.peek() != Some('}') {
            max = Some(self.number()?);
        }
        self.eat("}").then_some((min, max))
    }

    /// Decimal digits without a leading zero, as Go has them; the inner `None` is an overflow.
    fn number(&mut self) -> Option<Option<u32>> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let text = self.rest().get(..digits)?;
        if text.is_empty() || (text.len() > 1 && text.starts_with('0')) {
            return None;
        }
        self.pos += digits;
        Some(text.parse().ok())
    }

    fn open(&mut self) -> Result<()> {
        let start = self.pos;
        if self.depth >= GROUPS_NESTED_MAX {
            return Err(SyntaxError::new("expression nests too deeply", self.src));
        }
        self.bump();
        if !self.eat("?") {
            return self.push_capture(None);
        }
        if self.rest().starts_with("P<") || self.rest().starts_with('<') {
            return self.named_group(start);
        }
        self.flags(start)
    }

    fn push_group(&mut self, flags: &str) -> Result<()> {
        self.depth += 1;
        self.out.push_str("(?");
        self.out.push_str(flags);
        self.out.push(':');
        self.previous = Previous::Nothing;
        Ok(())
    }

    fn push_capture(&mut self, name: Option<&'a str>) -> Result<()> {
        self.groups.push(name);
        if !self.capture {
            return self.push_group("");
        }
        self.depth += 1;
        self.out.push('(');
        self.previous = Previous::Nothing;
        Ok(())
    }

    fn named_group(&mut self, start: usize) -> Result<()> {
        self.eat("P");
        self.eat("<");
        let invalid = |text| Err(SyntaxError::new("invalid named capture", text));
        let Some(len) = self.rest().find('>') else { return invalid(self.from(start)) };
        let name = self.rest().get(..len).unwrap_or_default();
        self.pos += len + 1;
        if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
            return invalid(self.since(start));
        }
        self.push_capture(Some(name))
    }

    /// `(?flags)` or `(?flags:`, behind the question mark.
    fn flags(&mut self, start: usize) -> Result<()> {
        let (mut on, mut off, mut negative, mut seen) = (String::new(), String::new(), false, false);
        loop {
            match self.bump() {
                Some(c @ ('i' | 'm' | 's' | 'U')) => {
                    on.retain(|f| f != c);
                    off.retain(|f| f != c);
                    if negative { &mut off } else { &mut on }.push(c);
                    seen = true;
                }
                Some('-') if !negative => {
                    negative = true;
                    seen = false;
                }
                Some(c @ (':' | ')')) if !negative || seen => {
                    let mut flags = on;
                    if !off.is_empty() {
                        flags.push('-');
                        flags.push_str(&off);
                    }
                    if c == ':' {
                        return self.push_group(&flags);
                    }
                    if !flags.is_empty() {
                        self.out.push_str("(?");
                        self.out.push_str(&flags);
                        self.out.push(')');
                    }
                    self.previous = Previous::Nothing;
                    return Ok(());
                }
                _ => {
                    return Err(SyntaxError::new("invalid or unsupported Perl syntax", self.since(start)));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<()> {
        let start = self.pos;
        let after = self.from(start + 1).chars().next();
        let assertion = match after {
            Some('A') => r"\A",
            Some('z') => r"\z",
            Some('b') => r"(?-u:\b)",
            Some('B') => r"(?-u:\B)",
            Some('Q') => {
                self.pos += 2;
                let len = self.rest().find("\\E").unwrap_or(self.rest().len());
                let quoted = self.rest().get(..len).unwrap_or_default();
                self.pos = (self.pos + len + 2).min(self.src.len());
                quoted.chars().for_each(|c| self.literal(c));
                return Ok(());
            }
            _ => {
                let mut class = String::new();
                if self.class_escape(&mut class)? {
                    self.out.push('[');
                    self.out.push_str(&class);
                    self.out.push(']');
                    self.previous = Previous::Atom;
                } else {
                    match char::from_u32(self.escaped_char(start)?) {
                        Some(c) => self.literal(c),
                        // A surrogate: no text has one.
                        None => self.out.push_str(NOTHING),
                    }
                    self.previous = Previous::Atom;
                }
                return Ok(());
            }
        };
        self.pos += 2;
        self.out.push_str(assertion);
        self.previous = Previous::Atom;
        Ok(())
    }

    /// `\d`, `\pL` and their like: writes the class' items, says whether there was one.
    fn class_escape(&mut self, out: &mut String) -> Result<bool> {
        let start = self.pos;
        let mut chars = self.from(start + 1).chars();
        let items = match chars.next() {
            Some('d') => "0-9",
            Some('D') => "[^0-9]",
            Some('s') => r"\t\n\x0C\r\x20",
            Some('S') => r"[^\t\n\x0C\r\x20]",
            Some('w') => "0-9A-Za-z_",
            Some('W') => "[^0-9A-Za-z_]",
            Some('p' | 'P') => {
                self.pos += 2;
                let invalid = |text| Err(SyntaxError::new("invalid character class range", text));
                match self.bump() {
                    Some('{') => {
                        let Some(len) = self.rest().find('}') else { return invalid(self.from(start)) };
                        self.pos += len + 1;
                    }
                    Some(_) => {}
                    None => return invalid(self.from(start)),
                }
                let mut text = Cow::Borrowed(self.since(start));
                if let Some(name) = text.get(2..).and_then(|name| name.strip_prefix("{^")) {
                    let sign = if text.starts_with(r"\p") { 'P' } else { 'p' };
                    text = format!("\\{sign}{{{name}").into();
                }
                // Asked here so that the error has Go's words.
                if regex_syntax::Parser::new().parse(&text).is_err() {
                    return invalid(self.since(start));
                }
                out.push_str(&text);
                return Ok(true);
            }
            _ => return Ok(false),
        };
        self.pos += 2;
        out.push_str(items);
        Ok(true)
    }

    /// One escaped character; the position is on the backslash.
    fn escaped_char(&mut self, start: usize) -> Result<u32> {
        self.bump();
        let Some(c) = self.bump() else {
            return Err(SyntaxError::new("trailing backslash at end of expression", ""));
        };
        let code = match c {
            '1'..='7' if !matches!(self.peek(), Some('0'..='7')) => None,
            '0'..='7' => {
                let mut code = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    self.bump();
                    code = code * 8 + digit;
                }
                Some(code)
            }
            'x' => self.hex(),
            'a' => Some(7),
            'f' => Some(12),
            'n' => Some(10),
            'r' => Some(13),
            't' => Some(9),
            'v' => Some(11),
            c if c.is_ascii_punctuation() || (c.is_ascii() && !c.is_ascii_alphanumeric()) => {
                Some(u32::from(c))
            }
            _ => None,
        };
        code.ok_or_else(|| SyntaxError::new("invalid escape sequence", self.since(start)))
    }

    /// `7F` or `{10FFFF}`, behind the `x`.
    fn hex(&mut self) -> Option<u32> {
        if self.eat("{") {
            let mut code: u32 = 0;
            let mut digits = 0;
            loop {
                match self.bump()? {
                    '}' => return (digits > 0).then_some(code),
                    c => {
                        code = code * 16 + c.to_digit(16)?;
                        digits += 1;
                        if code > 0x10_ffff {
                            return None;
                        }
                    }
                }
            }
        }
        let high = self.bump()?.to_digit(16)?;
        let low = self.bump()?.to_digit(16)?;
        Some(high * 16 + low)
    }

    /// A bracketed class; the position is on the bracket.
    fn class(&mut self) -> Result<()> {
        let start = self.pos;
        self.bump();
        let negated = self.eat("^");
        let mut items = String::new();
        let mut first = true;
        while first || !self.rest().starts_with(']') {
            first = false;
            if self.named_class(&mut items)? {
                continue;
            }
            if self.rest().starts_with('\\') && self.class_escape(&mut items)? {
                continue;
            }
            let range_start = self.pos;
            let low = self.class_char(start)?;
            let mut high = low;
            let mut ahead = self.rest().chars();
            if ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']') {
                self.bump();
                high = self.class_char(start)?;
                if high < low {
                    return Err(SyntaxError::new("invalid character class range", self.since(range_start)));
                }
            }
            push_range(&mut items, low, high);
        }
        self.bump();
        match (items.is_empty(), negated) {
            (true, false) => self.out.push_str(NOTHING),
            (true, true) => self.out.push_str(ANYTHING),
            (false, _) => {
                self.out.push_str(if negated { "[^" } else { "[" });
                self.out.push_str(&items);
                self.out.push(']');
            }
        }
        self.previous = Previous::Atom;
        Ok(())
    }

    /// `[:alpha:]` inside a class.
    fn named_class(&mut self, out: &mut String) -> Result<bool> {
        if !self.rest().starts_with("[:") {
            return Ok(false);
        }
        let Some(len) = self.rest().get(2..).and_then(|rest| rest.find(":]")) else { return Ok(false) };
        let text = self.rest().get(..len + 4).unwrap_or_default();
        let name = text.trim_matches(['[', ']', ':']).trim_start_matches('^');
        if !NAMED_CLASSES.contains(&name) || text.len() > name.len() + 5 {
            return Err(SyntaxError::new("invalid character class range", text));
        }
        self.pos += text.len();
        out.push_str(text);
        Ok(true)
    }

    fn class_char(&mut self, class_start: usize) -> Result<u32> {
        let start = self.pos;
        match self.peek() {
            None => Err(SyntaxError::new("missing closing ]", self.from(class_start))),
            Some('\\') => self.escaped_char(start),
            Some(c) => {
                self.bump();
                Ok(u32::from(c))
            }
        }
    }
}

const NAMED_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];
/// A class without a character.
const NOTHING: &str = r"[^\x00-\x{10FFFF}]";
/// A class of all characters.
const ANYTHING: &str = r"[\x00-\x{10FFFF}]";

/// Writes `low-high`, less the surrogates at its ends, which are no characters.
fn push_range(out: &mut String, mut low: u32, mut high: u32) {
    use std::fmt::Write as _;
    if (0xd800..0xe000).contains(&low) {
        low = 0xe000;
    }
    if (0xd800..0xe000).contains(&high) {
        high = 0xd7ff;
    }
    if low > high {
        return;
    }
    // Writing to a string cannot fail.
    let _ = if low == high {
        write!(out, r"\x{{{low:X}}}")
    } else {
        write!(out, r"\x{{{low:X}}}-\x{{{high:X}}}")
    };
}
