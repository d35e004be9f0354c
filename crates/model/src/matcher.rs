//! Label matchers, as text: compiling one is the `index` crate's business.

use std::fmt;

use crate::labels::{is_legacy_label_name, write_quoted};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

impl MatchOp {
    /// As PromQL writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A condition on one label. A series without the label has the empty value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Matcher {
    /// Label name.
    pub name: String,
    /// Comparison.
    pub op: MatchOp,
    /// Value or regular expression (RE2 syntax).
    pub value: String,
}

impl Matcher {
    /// A matcher `name op value`.
    pub fn new(name: impl Into<String>, op: MatchOp, value: impl Into<String>) -> Self {
        Self { name: name.into(), op, value: value.into() }
    }

    /// The matcher `name = value`.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(name, MatchOp::Equal, value)
    }
}

/// As PromQL writes it: `job=~"a|b"`.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write_quoted(f, &self.name)?;
        }
        f.write_str(self.op.as_str())?;
        write_quoted(f, &self.value)
    }
}
