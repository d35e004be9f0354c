//! What a regular expression amounts to, when it amounts to something simple.

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

/// Most literals an expression is taken apart into.
const LITERALS_MAX: usize = 1 << 16;
/// Most literals the product of a concatenation may have; `[0-9]{3}` still is taken apart.
const PRODUCT_MAX: usize = 1024;
/// Most bytes of all literals together.
const LITERAL_BYTES_MAX: usize = 4 << 20;

/// A fully anchored expression, by what it costs to match.
#[derive(Debug)]
pub(super) enum Shape {
    /// `.*`
    Anything,
    /// `.+`
    NonEmpty,
    /// A finite set of texts, sorted, without repetitions.
    Literals(Box<[Box<str>]>),
    /// `abc.*` or, with at least one character behind, `abc.+`.
    Prefix { text: Box<str>, more: bool },
    /// `.*abc`
    Suffix(Box<str>),
    /// `.*abc.*`
    Contains(Box<str>),
    /// Anything else; all matches begin with `prefix`.
    Other { prefix: Box<str> },
}

impl Shape {
    pub(super) fn of(hir: &Hir) -> Self {
        if let Some(mut texts) = literals(hir) {
            texts.sort_unstable();
            texts.dedup();
            return Self::Literals(texts.into_iter().map(String::into_boxed_str).collect());
        }
        let parts = parts(hir);
        match parts.as_slice() {
            [one] => match wildcard(one) {
                Some(Wildcard::Any) => return Self::Anything,
                Some(Wildcard::Some) => return Self::NonEmpty,
                None => {}
            },
            [a, b] => match (literal(a), wildcard(a), literal(b), wildcard(b)) {
                (Some(text), _, _, Some(wildcard)) => {
                    return Self::Prefix { text: text.into(), more: matches!(wildcard, Wildcard::Some) };
                }
                (_, Some(Wildcard::Any), Some(text), _) => return Self::Suffix(text.into()),
                _ => {}
            },
            [a, b, c] => {
                if let (Some(Wildcard::Any), Some(text), Some(Wildcard::Any)) =
                    (wildcard(a), literal(b), wildcard(c))
                {
                    return Self::Contains(text.into());
                }
            }
            _ => {}
        }
        Self::Other { prefix: parts.first().and_then(|first| literal(first)).unwrap_or_default().into() }
    }
}

enum Wildcard {
    /// `.*`
    Any,
    /// `.+`
    Some,
}

/// The top-level concatenation, without groups around it and without anchors at its ends, which say nothing new.
fn parts(hir: &Hir) -> Vec<&Hir> {
    let mut parts: Vec<&Hir> = match hir.kind() {
        HirKind::Capture(capture) => return parts(&capture.sub),
        HirKind::Concat(parts) => parts.iter().collect(),
        _ => vec![hir],
    };
    while parts.first().is_some_and(|part| matches!(part.kind(), HirKind::Look(Look::Start))) {
        parts.remove(0);
    }
    while parts.last().is_some_and(|part| matches!(part.kind(), HirKind::Look(Look::End))) {
        parts.pop();
    }
    parts
}

fn literal(hir: &Hir) -> Option<&str> {
    match hir.kind() {
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok(),
        _ => None,
    }
}

fn wildcard(hir: &Hir) -> Option<Wildcard> {
    let HirKind::Repetition(Repetition { min, max: None, sub, .. }) = hir.kind() else { return None };
    let HirKind::Class(Class::Unicode(class)) = sub.kind() else { return None };
    let [range] = class.ranges() else { return None };
    if range.start() != '\0' || range.end() != char::MAX {
        return None;
    }
    match min {
        0 => Some(Wildcard::Any),
        1 => Some(Wildcard::Some),
        _ => None,
    }
}

/// All texts the expression matches, when they are few.
fn literals(hir: &Hir) -> Option<Vec<String>> {
    let parts = parts(hir);
    match parts.as_slice() {
        [one] => expand(one),
        parts => product(parts.iter().copied()),
    }
}

fn expand(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(literal) => Some(vec![String::from_utf8(literal.0.to_vec()).ok()?]),
        HirKind::Class(Class::Unicode(class)) => {
            let count: u64 =
                class.iter().map(|r| u64::from(u32::from(r.end()) - u32::from(r.start())) + 1).sum();
            if count > PRODUCT_MAX as u64 {
                return None;
            }
            Some(class.iter().flat_map(|range| range.start()..=range.end()).map(String::from).collect())
        }
        HirKind::Capture(capture) => expand(&capture.sub),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            let mut bytes = 0;
            for branch in branches {
                let texts = expand(branch)?;
                bytes += texts.iter().map(String::len).sum::<usize>();
                all.extend(texts);
                if all.len() > LITERALS_MAX || bytes > LITERAL_BYTES_MAX {
                    return None;
                }
            }
            Some(all)
        }
        HirKind::Concat(parts) => product(parts.iter()),
        HirKind::Repetition(Repetition { min, max: Some(max), sub, .. }) if *max <= 16 => {
            let once = expand(sub)?;
            let mut all = Vec::new();
            let mut power = vec![String::new()];
            for count in 0..=*max {
                if count > 0 {
                    power = cross(&power, &once)?;
                }
                if count >= *min {
                    all.extend(power.iter().cloned());
                }
                if all.len() > PRODUCT_MAX {
                    return None;
                }
            }
            Some(all)
        }
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

fn product<'a>(parts: impl Iterator<Item = &'a Hir>) -> Option<Vec<String>> {
    let mut all = vec![String::new()];
    for part in parts {
        all = cross(&all, &expand(part)?)?;
    }
    Some(all)
}

fn cross(left: &[String], right: &[String]) -> Option<Vec<String>> {
    let count = left.len().checked_mul(right.len())?;
    // One side alone may be a long alternation: nothing multiplies then.
    if count > PRODUCT_MAX && left.len() > 1 && right.len() > 1 || count > LITERALS_MAX {
        return None;
    }
    let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    let total = bytes(left).checked_mul(right.len())?.checked_add(bytes(right).checked_mul(left.len())?)?;
    if total > LITERAL_BYTES_MAX {
        return None;
    }
    Some(left.iter().flat_map(|l| right.iter().map(move |r| format!("{l}{r}"))).collect())
}
