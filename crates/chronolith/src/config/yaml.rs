//! Errors of YAML in our words, and where in a file a value stands.

use std::{borrow::Cow, collections::BTreeMap};

use serde::de::IgnoredAny;
use serde_saphyr::{Error, MessageFormatter, Spanned, UserMessageFormatter};

/// Keys that only the configuration of Prometheus has.
const OF_PROMETHEUS: [&str; 8] = [
    "global",
    "scrape_configs",
    "rule_files",
    "alerting",
    "scrape_config_files",
    "remote_read",
    "tracing",
    "tsdb",
];

/// The texts of the parser, without what only a programmer could do about them.
struct OurWords;

impl MessageFormatter for OurWords {
    fn format_message<'a>(&self, error: &'a Error) -> Cow<'a, str> {
        match error {
            Error::Unexpected { expected: "mapping start", .. } => {
                Cow::Borrowed("`key: value` pairs are needed here")
            }
            Error::Unexpected { expected: "sequence start", .. } => {
                Cow::Borrowed("a list is needed here: [a, b]")
            }
            Error::Unexpected { expected: "string scalar", .. } => {
                Cow::Borrowed("a single value is needed here")
            }
            Error::DuplicateMappingKey { key: Some(key), .. } => {
                Cow::Owned(format!("`{key}` stands here a second time"))
            }
            Error::DuplicateMappingKey { .. } => Cow::Borrowed("a key stands here a second time"),
            _ => UserMessageFormatter.format_message(error),
        }
    }
}

/// What is wrong with the YAML `file` and where. The parser's error is told whole by its text; as a source it would be
/// told twice.
pub(super) fn told(error: &Error, file: &str) -> anyhow::Error {
    let text = error.render_with_formatter(&OurWords);
    let text: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("--> ")).collect();
    let text = text.join("\n");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    if of_prometheus(error, text, file) {
        return anyhow::anyhow!(
            "{text}\nThis looks like the configuration of Prometheus; this server has its own, see README.md"
        );
    }
    anyhow::anyhow!("{text}")
}

fn of_prometheus(error: &Error, text: &str, file: &str) -> bool {
    if OF_PROMETHEUS.iter().any(|key| text.contains(&format!("unknown field `{key}`"))) {
        return true;
    }
    // Remote write is a list there, of whom to send to.
    let line = error.location().and_then(|at| usize::try_from(at.line()).ok()?.checked_sub(1));
    let found = line.and_then(|line| file.lines().nth(line)).unwrap_or_default().trim_start();
    (found.starts_with("- ") || found.starts_with("remote_write:"))
        && file.lines().any(|line| line.trim_end() == "remote_write:")
}

/// Line and column of the value that the error `text`, `section.key: ...`, is about.
pub(super) fn place(file: &str, text: &str) -> Option<(u64, u64)> {
    type Section = Option<BTreeMap<String, Spanned<IgnoredAny>>>;
    let (section, key) = text.split_once(": ")?.0.split_once('.')?;
    let sections: BTreeMap<String, Section> = serde_saphyr::from_str(file).ok()?;
    let at = sections.get(section)?.as_ref()?.get(key)?.referenced;
    Some((at.line(), at.column()))
}
