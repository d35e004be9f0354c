//! `label_replace` and `label_join`: new labels from old ones. They look at neither times nor values.

mod template;

use chronolith_index::{REGEX_AUTOMATON_BYTES_MAX, REGEX_BYTES_MAX, matcher::translate_captures};
use chronolith_model::{Labels, METRIC_NAME};
use chronolith_syntax::text::{is_utf8, lossy};
use regex_automata::{
    meta::{self, Regex},
    util::{captures::Captures, syntax},
};

use self::template::Template;
use crate::{
    QueryError,
    series::{KernelContext, SeriesColumn},
};

/// Deepest nesting of an expression's syntax tree; a group of ours is up to four levels.
const NEST_MAX: u32 = 420;

/// Largest cache of the lazy automaton, in bytes.
const REGEX_CACHE_BYTES_MAX: usize = 1 << 20;

/// `label_replace(v, destination, replacement, source, regex)`; `args` are the four texts. Where the whole source
/// value matches, the destination becomes the replacement, an empty one removes it. Writing the name keeps it from
/// being dropped later.
///
/// # Errors
/// [`QueryError::Execution`] with Prometheus' text for an expression that does not parse or is too large, and for an
/// invalid destination.
pub(crate) fn label_replace(
    series: &mut [SeriesColumn],
    args: &[&str],
    _: &mut KernelContext<'_>,
) -> Result<(), QueryError> {
    let &[destination, replacement, source, expression] = args else {
        return Err(wrong_arguments("label_replace"));
    };
    let (regex, groups) = compile(expression).ok_or_else(|| {
        let text = lossy(expression);
        QueryError::Execution(format!("invalid regular expression in label_replace(): {text}"))
    })?;
    if !is_label_name(destination) {
        return Err(invalid_label("destination", "label_replace", destination));
    }
    let replacement = lossy(replacement);
    let template = Template::parse(&replacement, &groups);
    let mut captures = regex.create_captures();
    for one in series {
        let text = one.labels.get(source).unwrap_or_default();
        regex.captures(text, &mut captures);
        if !captures.is_match() {
            continue;
        }
        let value = template.expand(|group| captured(&captures, text, group));
        set_label(one, destination, &value);
    }
    Ok(())
}

/// What `group` captured; nothing where it took no part in the match.
fn captured<'t>(captures: &Captures, text: &'t str, group: usize) -> Option<&'t str> {
    captures.get_group(group).map(|span| text.get(span.range()).unwrap_or_default())
}

/// Compiles an expression in Go's syntax, anchored at both ends, `.` matching newlines; also the names of its groups.
fn compile(expression: &str) -> Option<(Regex, Vec<Option<String>>)> {
    if expression.len() > REGEX_BYTES_MAX || !is_utf8(expression) {
        return None;
    }
    let (translated, groups) = translate_captures(expression).ok()?;
    let config = meta::Config::new()
        .nfa_size_limit(Some(REGEX_AUTOMATON_BYTES_MAX))
        .hybrid_cache_capacity(REGEX_CACHE_BYTES_MAX);
    let regex = meta::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().utf8(false).nest_limit(NEST_MAX))
        .build(&format!("^(?s:{translated})$"))
        .ok()?;
    Some((regex, groups))
}

/// `label_join(v, destination, separator, source...)`; `args` are the texts. The destination becomes the values of the
/// sources with the separator between them; an empty result removes it.
///
/// # Errors
/// [`QueryError::Execution`] with Prometheus' text for invalid label names.
pub(crate) fn label_join(
    series: &mut [SeriesColumn],
    args: &[&str],
    _: &mut KernelContext<'_>,
) -> Result<(), QueryError> {
    let &[destination, separator, ref sources @ ..] = args else { return Err(wrong_arguments("label_join")) };
    if let Some(source) = sources.iter().find(|source| !is_label_name(source)) {
        return Err(invalid_label("source", "label_join", source));
    }
    if !is_label_name(destination) {
        return Err(invalid_label("destination", "label_join", destination));
    }
    let separator = lossy(separator);
    let mut value = String::new();
    for one in series {
        value.clear();
        for (index, source) in sources.iter().enumerate() {
            if index > 0 {
                value.push_str(&separator);
            }
            value.push_str(one.labels.get(source).unwrap_or_default());
        }
        set_label(one, destination, &value);
    }
    Ok(())
}

fn set_label(series: &mut SeriesColumn, name: &str, value: &str) {
    series.labels = with_label(&series.labels, name, value);
    if name == METRIC_NAME {
        series.drop_name = false;
    }
}

/// `labels` with `name` set to `value`, or without it where `value` is empty.
fn with_label(labels: &Labels, name: &str, value: &str) -> Labels {
    let before = labels.iter().take_while(|(n, _)| *n < name);
    let behind = labels.iter().skip_while(|(n, _)| *n <= name);
    Labels::from_sorted(before.chain([(name, value)]).chain(behind)).unwrap_or_else(|| labels.clone())
}

fn is_label_name(text: &str) -> bool {
    !text.is_empty() && is_utf8(text)
}

fn invalid_label(which: &str, function: &str, name: &str) -> QueryError {
    let name = lossy(name);
    QueryError::Execution(format!("invalid {which} label name in {function}(): {name}"))
}

/// The parser lets no such call through.
fn wrong_arguments(function: &str) -> QueryError {
    QueryError::Execution(format!("wrong number of arguments in {function}()"))
}

#[cfg(test)]
mod tests {
    use chronolith_syntax::ast::Span;

    use super::*;
    use crate::{annotations::Annotations, series::Column};

    fn context() -> KernelContext<'static> {
        KernelContext {
            notes: Annotations::default(),
            span: Span::default(),
            args: &[],
            labels: None,
            delayed_name_removal: true,
            type_and_unit_labels: false,
        }
    }

    fn one(pairs: &[(&str, &str)]) -> Vec<SeriesColumn> {
        let labels = Labels::from_pairs(pairs.iter().copied());
        vec![SeriesColumn { labels, drop_name: true, column: Column::constant(1.0, 1) }]
    }

    #[track_caller]
    fn replaced(args: [&str; 4]) -> String {
        let mut series = one(&[("__name__", "up"), ("b", "host-12:80"), ("c", "x\ny")]);
        label_replace(&mut series, &args, &mut context()).unwrap();
        series[0].labels.to_string()
    }

    #[test]
    fn replacing() {
        let same = r#"{__name__="up", b="host-12:80", c="x\ny"}"#;
        for (args, expected) in [
            (["a", "$1-x", "nope", "(.*)"], r#"{__name__="up", a="-x", b="host-12:80", c="x\ny"}"#),
            (["b", "$2", "b", r"(\w+)-(\d+):.*"], r#"{__name__="up", b="12", c="x\ny"}"#),
            (["b", "${host}x$$", "b", "(?P<host>[^-]+).*"], r#"{__name__="up", b="hostx$", c="x\ny"}"#),
            (["b", "$hostx", "b", "(?<host>[^-]+).*"], r#"{__name__="up", c="x\ny"}"#),
            (["b", "$1", "b", "ost"], same),
            (["b", "$1", "b", "host"], same),
            (["b", "", "b", "host.*"], r#"{__name__="up", c="x\ny"}"#),
            (["c", "$1", "c", "x(.)y"], r#"{__name__="up", b="host-12:80", c="\n"}"#),
            (["d", "$3$1", "b", "(a)?(h).*"], same),
            (["d", "$2", "b", "(a)|(h.*)"], r#"{__name__="up", b="host-12:80", c="x\ny", d="host-12:80"}"#),
            (["d", "$x", "b", "(?P<x>a*)(?P<x>h.*)"], same),
            (["d", "$x", "b", "(?P<x>a)?(?P<x>h).*"], r#"{__name__="up", b="host-12:80", c="x\ny", d="h"}"#),
            (["d", "v", "missing", ""], r#"{__name__="up", b="host-12:80", c="x\ny", d="v"}"#),
        ] {
            assert_eq!(replaced(args), expected, "{args:?}");
        }
    }

    #[test]
    fn a_name_that_was_written_stays() {
        let mut series = one(&[("__name__", "up")]);
        label_replace(&mut series, &["__name__", "down", "__name__", "nomatch"], &mut context()).unwrap();
        assert!(series[0].drop_name);
        label_replace(&mut series, &["__name__", "down", "__name__", "up"], &mut context()).unwrap();
        assert_eq!((series[0].labels.metric_name(), series[0].drop_name), (Some("down"), false));
    }

    #[test]
    fn joining() {
        let join = |args: &[&str]| {
            let mut series = one(&[("a", "1"), ("b", "2")]);
            label_join(&mut series, args, &mut context()).map(|()| series[0].labels.to_string())
        };
        assert_eq!(join(&["d", "-", "a", "none", "b"]).unwrap(), r#"{a="1", b="2", d="1--2"}"#);
        assert_eq!(join(&["a", "-"]).unwrap(), r#"{b="2"}"#);
        assert_eq!(join(&["a", "", "b", "b"]).unwrap(), r#"{a="22", b="2"}"#);
        let error = |args: &[&str]| join(args).unwrap_err().to_string();
        assert_eq!(error(&["", "-", "a"]), "invalid destination label name in label_join(): ");
        assert_eq!(error(&["", "-", ""]), "invalid source label name in label_join(): ");
    }

    #[test]
    fn errors() {
        let error =
            |args: [&str; 4]| label_replace(&mut one(&[]), &args, &mut context()).unwrap_err().to_string();
        assert_eq!(error(["", "", "", "("]), "invalid regular expression in label_replace(): (");
        assert_eq!(error(["", "", "", "a"]), "invalid destination label name in label_replace(): ");
        let large = "((((a{100}){100}){100}){100})";
        assert!(error(["x", "", "", large]).starts_with("invalid regular expression"));
    }
}
