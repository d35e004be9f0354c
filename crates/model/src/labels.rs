//! Label sets.

use std::{cmp::Ordering, fmt, sync::Arc};

/// Most labels of a series: what is defined in a log must be read back from it.
pub const LABELS_MAX: usize = 1 << 16;
/// Most bytes of the labels of a series, names and values together, for the same reason.
pub const LABELS_BYTES_MAX: usize = 16 << 20;

/// The label that carries the metric name.
pub const METRIC_NAME: &str = "__name__";

/// An immutable label set: pairs sorted by name, names unique, no empty values.
///
/// One shared string holds all pairs, so a clone is a reference count and equality is one comparison.
/// Layout: for each pair `len(name) name len(value) value`; a length is written six bits at a time, low bits
/// first, with bit 6 set on all but the last byte. All length bytes are below 0x80, so the whole is UTF-8.
///
/// Invariant: only [`LabelsBuilder`] and [`Labels::empty`] make values of this type.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Labels {
    /// The empty label set.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// A label set of `pairs` in any order; a later pair replaces an earlier one of the same name, an empty
    /// value removes the label.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.build()
    }

    /// A label set of `pairs` that are sorted by name already; pairs with an empty value are left out. `None` when
    /// the names are not strictly ascending. One allocation beside the set itself.
    #[must_use]
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut out = String::with_capacity(256);
        let mut previous: Option<&str> = None;
        for (name, value) in pairs {
            if previous.is_some_and(|previous| previous >= name) {
                return None;
            }
            previous = Some(name);
            if !value.is_empty() {
                push(&mut out, name);
                push(&mut out, value);
            }
        }
        Some(Self(Arc::from(out)))
    }

    /// The pairs, sorted by name.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    /// The value of label `name`; `None` where the set lacks it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The metric name, if there is one.
    #[must_use]
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// How many pairs; O(pairs).
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether the set has no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of the shared string behind the set; the size it costs in memory once.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.0.len()
    }

    /// A 64-bit hash of the whole set, the same in every process (rapidhash v3 of the layout above).
    #[must_use]
    pub fn stable_hash(&self) -> u64 {
        rapidhash::v3::rapidhash_v3(self.0.as_bytes())
    }

    /// A builder that starts with these pairs.
    #[must_use]
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }

    /// These pairs without the label `name`.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        self.retain(|n| n != name)
    }

    /// The pairs whose name `keep` accepts.
    #[must_use]
    pub fn retain(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        if self.iter().all(|(n, _)| keep(n)) {
            return self.clone();
        }
        let mut out = String::with_capacity(self.0.len());
        for (name, value) in self.iter().filter(|(n, _)| keep(n)) {
            push(&mut out, name);
            push(&mut out, value);
        }
        Self(Arc::from(out))
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Lexicographic by (name, value) pair; a proper prefix sorts first. This is Prometheus' order of results.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.iter().cmp(other.iter()) }
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As Prometheus prints a label set in errors: `{__name__="up", job="a"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(name) {
                f.write_str(name)?;
            } else {
                write_quoted(f, name)?;
            }
            f.write_str("=")?;
            write_quoted(f, value)?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Iterates over the pairs of a [`Labels`], sorted by name.
#[derive(Clone, Debug)]
pub struct Iter<'a>(&'a str);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let name = take(&mut self.0);
        let value = take(&mut self.0);
        Some((name, value))
    }
}

fn push(out: &mut String, text: &str) {
    let mut len = text.len();
    while len >= 0x40 {
        out.push((0x40 | (len & 0x3f)) as u8 as char);
        len >>= 6;
    }
    out.push(len as u8 as char);
    out.push_str(text);
}

fn take<'a>(rest: &mut &'a str) -> &'a str {
    let mut len = 0;
    let mut used = 0;
    for byte in rest.bytes() {
        len |= usize::from(byte & 0x3f) << (6 * used);
        used += 1;
        if byte & 0x40 == 0 {
            break;
        }
    }
    let (head, tail) = rest[used..].split_at(len);
    *rest = tail;
    head
}

/// Builds a [`Labels`] from pairs in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets label `name` to `value`, replacing what it was; an empty value removes the label.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        match self.pairs.iter_mut().find(|(n, _)| *n == name) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((name, value)),
        }
        self
    }

    /// Removes label `name`.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    /// The current value of label `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The finished set.
    pub fn build(&mut self) -> Labels {
        self.pairs.sort_unstable();
        let mut out = String::with_capacity(self.pairs.iter().map(|(n, v)| n.len() + v.len() + 3).sum());
        for (name, value) in self.pairs.iter().filter(|(_, v)| !v.is_empty()) {
            push(&mut out, name);
            push(&mut out, value);
        }
        Labels(Arc::from(out))
    }
}

/// Whether `name` is a label name of Prometheus' legacy charset `[a-zA-Z_][a-zA-Z0-9_]*`.
#[must_use]
pub fn is_legacy_label_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Writes `text` as Go's `%q` does for valid UTF-8: double quotes, `\n`-style escapes, printable characters as they
/// are.
///
/// # Errors
/// Only those of `out`.
pub fn write_quoted(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\u{7}' => out.write_str("\\a")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            '\u{b}' => out.write_str("\\v")?,
            c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(out, "\\x{:02x}", c as u32)?,
            c if !c.is_ascii() && !is_printable(c) => match c as u32 {
                code @ 0..=0xffff => write!(out, "\\u{code:04x}")?,
                code => write!(out, "\\U{code:08x}")?,
            },
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

/// Whether `c`, which is not ASCII, is printed as it is: no control or format character, space, separator, private or
/// unassigned character.
fn is_printable(c: char) -> bool {
    // `escape_debug` knows; it escapes combining marks at the start of a text only.
    ["a", c.encode_utf8(&mut [0; 4])].concat().escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_sorted_without_empty_values() {
        let long = "v".repeat(5000);
        let labels =
            Labels::from_pairs([("b", "2"), ("a", ""), ("__name__", "up"), ("c", &long), ("b", "3")]);
        let pairs: Vec<_> = labels.iter().collect();
        assert_eq!(pairs, [("__name__", "up"), ("b", "3"), ("c", long.as_str())]);
        assert_eq!(labels.metric_name(), Some("up"));
        assert_eq!(labels.without("b").len(), 2);
        assert_eq!(labels.to_builder().build(), labels);
    }

    #[test]
    fn sorted_pairs_make_the_same_set() {
        let pairs = [("__name__", "up"), ("b", ""), ("c", "1")];
        assert_eq!(Labels::from_sorted(pairs), Some(Labels::from_pairs(pairs)));
        assert_eq!(Labels::from_sorted([("b", "1"), ("a", "2")]), None);
        assert_eq!(Labels::from_sorted([("a", "1"), ("a", "2")]), None);
    }

    #[test]
    fn order_is_by_pairs_not_by_layout() {
        let short = Labels::from_pairs([("a", "zz")]);
        let long = Labels::from_pairs([("a", "zzz")]);
        let prefix = Labels::from_pairs([("a", "zz"), ("b", "1")]);
        assert!(short < long);
        assert!(short < prefix);
        assert!(prefix < long);
        assert!(Labels::empty() < short);
    }

    #[test]
    fn printed_as_prometheus_does() {
        let labels = Labels::from_pairs([("__name__", "up"), ("a.b", "x\"y\n"), ("c", "\u{e9}\u{1}")]);
        assert_eq!(labels.to_string(), "{__name__=\"up\", \"a.b\"=\"x\\\"y\\n\", c=\"\u{e9}\\x01\"}");
        let mut out = String::new();
        let _ = write_quoted(&mut out, "e\u{301}\u{200b}\u{a0}\u{1f600}\u{e000}\u{2028}\u{fffd}");
        assert_eq!(out, "\"e\u{301}\\u200b\\u00a0\u{1f600}\\ue000\\u2028\u{fffd}\"");
    }
}
