//! Replacement texts, as Go's `regexp.Expand` reads them: `$1`, `$name`, `${name}`, `$$`.

/// A replacement text taken apart.
#[derive(Debug, PartialEq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    /// What the first of these groups that took part in the match captured: those with the name asked for.
    Group(Vec<usize>),
}

impl Template {
    /// Reads `text`. `groups` are the names of the expression's groups from 1 on. A reference to a group that does
    /// not exist is empty; a `$` that starts no reference is itself.
    pub(super) fn parse(text: &str, groups: &[Option<String>]) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                literal.push('$');
                rest = after;
            } else if let Some((name, after)) = reference(rest) {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Group(resolve(name, groups)));
                rest = after;
            } else {
                literal.push('$');
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Self { parts }
    }

    /// The text with what `group(index)` captured, which is nothing for a group that took no part in the match.
    pub(super) fn expand<'t>(&self, group: impl Fn(usize) -> Option<&'t str>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Group(groups) => {
                    out.push_str(groups.iter().find_map(|index| group(*index)).unwrap_or_default());
                }
            }
        }
        out
    }
}

/// The name after a `$`, and what follows it: letters, digits and underscores, as many as there are, or in braces.
fn reference(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{');
    let text = inner.unwrap_or(text);
    let len = text.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(text.len());
    if len == 0 {
        return None;
    }
    let (name, rest) = text.split_at(len);
    if inner.is_some() { rest.strip_prefix('}').map(|rest| (name, rest)) } else { Some((name, rest)) }
}

/// The groups a name stands for: a number without a leading zero is a position, else all groups of that name.
fn resolve(name: &str, groups: &[Option<String>]) -> Vec<usize> {
    let number = name.bytes().all(|b| b.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    match name.parse::<usize>() {
        Ok(index) if number => vec![index],
        _ => (1..)
            .zip(groups)
            .filter(|(_, group)| group.as_deref() == Some(name))
            .map(|(index, _)| index)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_expands() {
        let groups = [Some("host".to_owned()), None, Some("2x".to_owned())];
        let expand = |text: &str| {
            Template::parse(text, &groups).expand(|i| ["all", "one", "two", "three"].get(i).copied())
        };
        for (text, expected) in [
            ("$1", "one"),
            ("a$0b", "a"),
            ("a${0}b", "aallb"),
            ("$host", "one"),
            ("${host}s", "ones"),
            ("$hosts", ""),
            ("$2x", "three"),
            ("$1_", ""),
            ("${1}_", "one_"),
            ("$$1", "$1"),
            ("$", "$"),
            ("a$ b", "a$ b"),
            ("${", "${"),
            ("${}", "${}"),
            ("${1", "${1"),
            ("${1 }", "${1 }"),
            ("$01", ""),
            ("$9", ""),
            ("$-$1-", "$-one-"),
            ("\u{e9}$1", "\u{e9}one"),
            ("$99999999999999999999999", ""),
            ("", ""),
        ] {
            assert_eq!(expand(text), expected, "{text}");
        }
    }

    #[test]
    fn of_equal_names_the_first_that_took_part_counts() {
        let groups = [Some("x".to_owned()), Some("x".to_owned()), Some("x".to_owned())];
        let expand = |captured: [Option<&str>; 3]| {
            Template::parse("<$x>", &groups).expand(|i| captured.get(i - 1).copied().flatten())
        };
        assert_eq!(expand([None, Some("b"), Some("c")]), "<b>");
        assert_eq!(expand([None, Some(""), Some("c")]), "<>", "even what is empty");
        assert_eq!(expand([None, None, None]), "<>");
    }
}
