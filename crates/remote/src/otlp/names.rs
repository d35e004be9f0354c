//! OpenTelemetry's names as those of Prometheus, by the OpenTelemetry compatibility specification.

use std::collections::BTreeMap;

/// How names of metrics and labels are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameStrategy {
    /// `UnderscoreEscapingWithSuffixes`: letters, digits, `_` and `:` alone, with unit and type behind the name.
    #[default]
    EscapedWithSuffixes,
    /// `UnderscoreEscapingWithoutSuffixes`
    EscapedWithoutSuffixes,
    /// `NoUTF8EscapingWithSuffixes`: names as they are, with unit and type behind.
    Utf8WithSuffixes,
    /// `NoTranslation`: names as they are.
    Untranslated,
}

impl NameStrategy {
    /// The strategy of this name, as Prometheus' configuration has it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name)
    }

    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::EscapedWithSuffixes, Self::EscapedWithoutSuffixes, Self::Utf8WithSuffixes, Self::Untranslated];

    /// As Prometheus' configuration has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EscapedWithSuffixes => "UnderscoreEscapingWithSuffixes",
            Self::EscapedWithoutSuffixes => "UnderscoreEscapingWithoutSuffixes",
            Self::Utf8WithSuffixes => "NoUTF8EscapingWithSuffixes",
            Self::Untranslated => "NoTranslation",
        }
    }

    const fn escapes(self) -> bool {
        matches!(self, Self::EscapedWithSuffixes | Self::EscapedWithoutSuffixes)
    }
}

/// What of a metric's type shows in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A sum that only grows: `_total`.
    Counter,
    /// A gauge: `_ratio` where the unit is 1.
    Gauge,
    /// Anything else.
    Other,
}

/// The name of the metric `name`, of `unit` (UCUM).
pub(super) fn metric_name(strategy: NameStrategy, name: &str, unit: &str, kind: Kind) -> String {
    match strategy {
        NameStrategy::EscapedWithSuffixes => escaped_with_suffixes(name, unit, kind),
        NameStrategy::EscapedWithoutSuffixes => {
            not_a_digit_first(tokens(name).collect::<Vec<_>>().join("_"), "_")
        }
        NameStrategy::Utf8WithSuffixes => with_suffixes(name, unit, kind),
        NameStrategy::Untranslated => name.to_owned(),
    }
}

/// `name` with `suffix` behind it, for the series of a histogram or summary.
pub(super) fn suffixed(name: &str, suffix: &str) -> String {
    format!("{name}{suffix}")
}

/// The label of the attribute `key`.
pub(super) fn label_name(strategy: NameStrategy, key: &str) -> String {
    if !strategy.escapes() || key.is_empty() {
        return key.to_owned();
    }
    let mut name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with('_') && !name.starts_with("__") {
        name.insert_str(0, "key");
    }
    not_a_digit_first(name, "key_")
}

/// The unit (UCUM) as the value of a label.
pub(super) fn unit_name(strategy: NameStrategy, unit: &str) -> String {
    let (main, per) = unit_words(unit);
    let (main, per) = if strategy.escapes() { (cleaned(&main), cleaned(&per)) } else { (main, per) };
    let per = if per.is_empty() { per } else { format!("per_{per}") };
    let name = if main.is_empty() || per.is_empty() { main + &per } else { format!("{main}_{per}") };
    let name = name.strip_prefix('_').unwrap_or(&name);
    name.strip_suffix('_').unwrap_or(name).to_owned()
}

fn not_a_digit_first(name: String, prefix: &str) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { prefix.to_owned() + &name } else { name }
}

fn tokens(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':')).filter(|token| !token.is_empty())
}

fn escaped_with_suffixes(name: &str, unit: &str, kind: Kind) -> String {
    let mut parts: Vec<&str> = tokens(name).collect();
    let (main, per) = unit_words(unit);
    let (main, per) = (cleaned(&main), cleaned(&per));
    let has = |parts: &[&str], word: &str| word.is_empty() || parts.contains(&word);
    let (add_main, add_per) = (!has(&parts, &main), !has(&parts, &per));
    if add_main {
        parts.push(&main);
    }
    if add_per {
        parts.extend(["per", &per]);
    }
    if let Some(suffix) = type_suffix(unit, kind) {
        parts.retain(|part| *part != suffix);
        parts.push(suffix);
    }
    not_a_digit_first(parts.join("_"), "_")
}

fn with_suffixes(name: &str, unit: &str, kind: Kind) -> String {
    let mut name = name.to_owned();
    let (main, per) = unit_words(unit);
    let per = if per.is_empty() { per } else { format!("per_{per}") };
    for suffix in [main.as_str(), per.as_str(), type_suffix(unit, kind).unwrap_or_default()] {
        if suffix.is_empty() {
            continue;
        }
        // Whatever one character stands between name and suffix.
        let bare = name.strip_suffix(suffix).and_then(|bare| {
            let last = bare.chars().next_back()?;
            bare.strip_suffix(last).filter(|bare| !bare.is_empty())
        });
        name = format!("{}_{suffix}", bare.unwrap_or(&name));
    }
    name
}

fn type_suffix(unit: &str, kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Counter => Some("total"),
        Kind::Gauge if unit == "1" => Some("ratio"),
        Kind::Gauge | Kind::Other => None,
    }
}

/// A UCUM unit in words: what is counted, and per what. Annotations in braces are no units.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |part: &str, known: fn(&str) -> Option<&'static str>| {
        let part = part.trim();
        if part.contains(['{', '}']) { String::new() } else { known(part).unwrap_or(part).to_owned() }
    };
    (word(main, main_unit), word(per, per_unit))
}

fn main_unit(unit: &str) -> Option<&'static str> {
    Some(match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        _ => return None,
    })
}

fn per_unit(unit: &str) -> Option<&'static str> {
    Some(match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        _ => return None,
    })
}

/// A unit as part of a name: what is no letter or digit becomes one `_`, none in front or behind.
fn cleaned(unit: &str) -> String {
    unit.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':'))
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("_")
}

/// Collects labels; values of names that become equal are put together, in the order they come.
#[derive(Clone, Debug, Default)]
pub(super) struct LabelSet(pub(super) BTreeMap<String, String>);

impl LabelSet {
    /// Adds the label of an attribute.
    pub(super) fn add(&mut self, strategy: NameStrategy, key: &str, value: &str) {
        let name = label_name(strategy, key);
        if name.is_empty() {
            return;
        }
        match self.0.get_mut(&name) {
            Some(known) => {
                known.push(';');
                known.push_str(value);
            }
            None => {
                self.0.insert(name, value.to_owned());
            }
        }
    }

    /// Sets a label of ours.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_unit_and_type() {
        use NameStrategy as S;
        for (strategy, name, unit, kind, expected) in [
            (
                S::EscapedWithSuffixes,
                "http.server.duration",
                "ms",
                Kind::Other,
                "http_server_duration_milliseconds",
            ),
            (
                S::EscapedWithSuffixes,
                "system.network.io",
                "By",
                Kind::Counter,
                "system_network_io_bytes_total",
            ),
            (S::EscapedWithSuffixes, "requests_total", "", Kind::Counter, "requests_total"),
            (S::EscapedWithSuffixes, "requests", "{request}", Kind::Counter, "requests_total"),
            (S::EscapedWithSuffixes, "cpu.utilization", "1", Kind::Gauge, "cpu_utilization_ratio"),
            (S::EscapedWithSuffixes, "queue.length", "1", Kind::Other, "queue_length"),
            (S::EscapedWithSuffixes, "speed", "m/s", Kind::Gauge, "speed_meters_per_second"),
            (S::EscapedWithSuffixes, "load", "{load}/min", Kind::Gauge, "load_per_min"),
            (S::EscapedWithSuffixes, "disk bytes", "By", Kind::Gauge, "disk_bytes"),
            (S::EscapedWithSuffixes, "3rd.party:x", "", Kind::Gauge, "_3rd_party:x"),
            (S::EscapedWithoutSuffixes, "http.server.duration", "ms", Kind::Counter, "http_server_duration"),
            (
                S::Utf8WithSuffixes,
                "http.server.duration",
                "ms",
                Kind::Other,
                "http.server.duration_milliseconds",
            ),
            (S::Utf8WithSuffixes, "io.bytes", "By", Kind::Counter, "io_bytes_total"),
            (S::Untranslated, "http.server.duration", "ms", Kind::Counter, "http.server.duration"),
        ] {
            assert_eq!(metric_name(strategy, name, unit, kind), expected, "{strategy:?} {name} {unit}");
        }
    }

    #[test]
    fn units_are_words() {
        for (unit, escaped, as_it_is) in [
            ("s", "seconds", "seconds"),
            ("By/s", "bytes_per_second", "bytes_per_second"),
            ("{request}/m", "per_minute", "per_minute"),
            ("requests/s", "requests_per_second", "requests_per_second"),
            ("1", "", ""),
            ("{request}", "", ""),
            ("a b", "a_b", "a b"),
            ("_x_", "x", "x"),
        ] {
            assert_eq!(unit_name(NameStrategy::EscapedWithSuffixes, unit), escaped, "{unit}");
            assert_eq!(unit_name(NameStrategy::Untranslated, unit), as_it_is, "{unit}");
        }
    }

    #[test]
    fn labels_are_escaped_and_put_together() {
        let escaped = NameStrategy::EscapedWithSuffixes;
        for (key, expected) in [
            ("http.method", "http_method"),
            ("9lives", "key_9lives"),
            ("_private", "key_private"),
            ("__x", "__x"),
            ("a--b", "a__b"),
            ("h\u{e9}", "h_"),
        ] {
            assert_eq!(label_name(escaped, key), expected);
        }
        assert_eq!(label_name(NameStrategy::Untranslated, "http.method"), "http.method");
        let mut set = LabelSet::default();
        set.add(escaped, "a.b", "1");
        set.add(escaped, "a_b", "2");
        assert_eq!(set.0["a_b"], "1;2");
    }
}
