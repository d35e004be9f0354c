//! Sets of values of one label.

use std::ops::Range;

/// Numbers of values of one label: ranges, ascending, apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ordinals(Vec<Range<u32>>);

impl Ordinals {
    pub(super) fn push(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }

    pub(super) fn contains(&self, ordinal: u32) -> bool {
        let after = self.0.partition_point(|range| range.start <= ordinal);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|range| range.contains(&ordinal))
    }

    pub(super) fn complement(&self, values: u32) -> Self {
        let mut complement = Self::default();
        let mut start = 0;
        for range in &self.0 {
            complement.push(start..range.start);
            start = range.end;
        }
        complement.push(start..values);
        complement
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|range| range.len() as u64).sum()
    }

    /// What is in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Ordinals::default();
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(x), Some(y)) = (left.peek(), right.peek()) {
            both.push(x.start.max(y.start)..x.end.min(y.end).max(x.start.max(y.start)));
            if x.end < y.end {
                left.next();
            } else {
                right.next();
            }
        }
        both
    }

    pub(super) fn ranges(&self) -> &[Range<u32>] {
        &self.0
    }
}

/// The least text that is greater than all that begin with `prefix`.
pub(super) fn text_behind(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The successor among scalar values; surrogates have none.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            _ => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_behind_a_prefix() {
        assert_eq!(text_behind("ab").as_deref(), Some("ac"));
        assert_eq!(text_behind("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(text_behind("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(text_behind("\u{10ffff}"), None);
        assert_eq!(text_behind(""), None);
    }
}
