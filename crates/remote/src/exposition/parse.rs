//! Reading the text exposition format.

use std::collections::HashMap;

use chronolith_model::{Labels, METRIC_NAME, MetricMetadata, MetricType, Timestamp};

/// What one exposition may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpositionLimits {
    /// Bytes of the text.
    pub bytes_max: usize,
    /// Sample lines.
    pub samples_max: usize,
    /// Labels of one sample, the metric name included.
    pub labels_per_sample_max: usize,
    /// Metric families with metadata.
    pub families_max: usize,
}

impl Default for ExpositionLimits {
    fn default() -> Self {
        Self {
            bytes_max: 64 << 20,
            samples_max: 1_000_000,
            labels_per_sample_max: 256,
            families_max: 100_000,
        }
    }
}

/// One sample line.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpositionSample {
    /// Its labels, `__name__` among them.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
    /// Milliseconds, if the line has a timestamp of its own.
    pub timestamp: Option<Timestamp>,
}

/// A parsed exposition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    /// The sample lines, in their order.
    pub samples: Vec<ExpositionSample>,
    /// What the `TYPE`, `HELP` and `UNIT` lines say, one entry per metric family, in order of first mention.
    pub metadata: Vec<MetricMetadata>,
}

impl Exposition {
    /// Puts what the text says of type and unit on each sample, as labels ([`MetricMetadata::label`]).
    ///
    /// # Examples
    /// ```
    /// use chronolith_remote::exposition::{ExpositionLimits, parse};
    /// let text = "# TYPE wait_seconds summary\nwait_seconds_count 1\n";
    /// let mut parsed = parse(text, &ExpositionLimits::default()).expect("well-formed");
    /// parsed.label_types();
    /// assert_eq!(parsed.samples[0].labels.get("__type__"), Some("summary"));
    /// ```
    pub fn label_types(&mut self) {
        let families: HashMap<&str, &MetricMetadata> =
            self.metadata.iter().map(|family| (family.metric.as_str(), family)).collect();
        for sample in &mut self.samples {
            if let Some(family) = sample.labels.metric_name().and_then(|name| family_of(name, &families)) {
                sample.labels = family.label(&sample.labels);
            }
        }
    }
}

/// The family of samples named `name`: their own, or the histogram or summary that they are a part of.
fn family_of<'a>(name: &str, families: &HashMap<&str, &'a MetricMetadata>) -> Option<&'a MetricMetadata> {
    let part = |suffix: &str, kinds: &[MetricType]| {
        let family = families.get(name.strip_suffix(suffix)?).copied()?;
        kinds.contains(&family.kind).then_some(family)
    };
    let both = [MetricType::Histogram, MetricType::Summary];
    (families.get(name).copied())
        .or_else(|| part("_bucket", &both[..1]))
        .or_else(|| part("_sum", &both))
        .or_else(|| part("_count", &both))
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpositionFault {
    /// The text is too long.
    #[error("more than {0} bytes")]
    TooLong(usize),
    /// Too many sample lines.
    #[error("more than {0} samples")]
    TooManySamples(usize),
    /// Too many labels.
    #[error("more than {0} labels")]
    TooManyLabels(usize),
    /// Too many metric families.
    #[error("more than {0} metric families")]
    TooManyFamilies(usize),
    /// The last line has no line feed: the text was probably cut.
    #[error("no line feed at the end")]
    Unterminated,
    /// Neither a comment nor a sample.
    #[error("expected a metric name")]
    NoName,
    /// `{"a","b"} 1` or `a{"b"} 1`
    #[error("two metric names")]
    TwoNames,
    /// A label without name.
    #[error("expected a label name or a closing brace")]
    NoLabelName,
    /// A label name without value.
    #[error("expected = and a quoted label value")]
    NoLabelValue,
    /// A quote that is not closed.
    #[error("unterminated quote")]
    Unquoted,
    /// A backslash before anything but a backslash, a quote or `n`.
    #[error("unknown escape")]
    Escape,
    /// Neither comma nor closing brace behind a label.
    #[error("expected a comma or a closing brace")]
    NoComma,
    /// A label name that occurs twice.
    #[error("duplicate label name")]
    DuplicateLabel,
    /// No value, or not a number.
    #[error("expected a number")]
    NoValue,
    /// Something behind the value that is not an integer.
    #[error("expected a timestamp in milliseconds or the end of the line")]
    NoTimestamp,
    /// `# TYPE name` with an unknown type.
    #[error("unknown metric type")]
    UnknownType,
}

/// A fault and its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct ExpositionError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub fault: ExpositionFault,
}

/// Parses a whole exposition.
///
/// # Errors
/// The first line that is wrong. A scrape is taken as a whole or not at all.
///
/// # Examples
/// ```
/// use chronolith_remote::exposition::{ExpositionLimits, parse};
/// let parsed = parse("# TYPE up gauge\nup{job=\"a\"} 1\n", &ExpositionLimits::default()).expect("well-formed");
/// assert_eq!(parsed.samples[0].labels.to_string(), "{__name__=\"up\", job=\"a\"}");
/// ```
pub fn parse(text: &str, limits: &ExpositionLimits) -> Result<Exposition, ExpositionError> {
    let at = |line: usize| move |fault| ExpositionError { line, fault };
    if text.len() > limits.bytes_max {
        return Err(at(1)(ExpositionFault::TooLong(limits.bytes_max)));
    }
    let mut parser = Parser { limits, exposition: Exposition::default(), families: HashMap::new() };
    for (line_number, line) in (1..).zip(text.split_inclusive('\n')) {
        let content =
            line.strip_suffix('\n').ok_or_else(|| at(line_number)(ExpositionFault::Unterminated))?;
        let content = content.strip_suffix('\r').unwrap_or(content);
        parser.line(skip_blanks(content)).map_err(at(line_number))?;
    }
    Ok(parser.exposition)
}

struct Parser<'a> {
    limits: &'a ExpositionLimits,
    exposition: Exposition,
    /// Family name to index in `exposition.metadata`.
    families: HashMap<String, usize>,
}

impl Parser<'_> {
    fn line(&mut self, line: &str) -> Result<(), ExpositionFault> {
        if line.is_empty() {
            return Ok(());
        }
        if let Some(comment) = line.strip_prefix('#') {
            return self.comment(skip_blanks(comment));
        }
        if self.exposition.samples.len() >= self.limits.samples_max {
            return Err(ExpositionFault::TooManySamples(self.limits.samples_max));
        }
        let sample = sample(line, self.limits)?;
        self.exposition.samples.push(sample);
        Ok(())
    }

    fn comment(&mut self, comment: &str) -> Result<(), ExpositionFault> {
        let (keyword, rest) = split_blank(comment);
        if !matches!(keyword, "HELP" | "TYPE" | "UNIT") {
            return Ok(());
        }
        let rest = skip_blanks(rest);
        let (name, text) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (name, behind) = unquote(quoted)?;
                (name, skip_blanks(behind))
            }
            None => {
                let (name, behind) = split_blank(rest);
                (name.to_owned(), skip_blanks(behind))
            }
        };
        if name.is_empty() {
            return Err(ExpositionFault::NoName);
        }
        let family = self.family(name)?;
        match keyword {
            "HELP" => family.help = unescape_help(text),
            "UNIT" => text.trim_end().clone_into(&mut family.unit),
            _ => family.kind = metric_type(text.trim_end()).ok_or(ExpositionFault::UnknownType)?,
        }
        Ok(())
    }

    fn family(&mut self, name: String) -> Result<&mut MetricMetadata, ExpositionFault> {
        let metadata = &mut self.exposition.metadata;
        let index = match self.families.get(&name) {
            Some(index) => *index,
            None => {
                if metadata.len() >= self.limits.families_max {
                    return Err(ExpositionFault::TooManyFamilies(self.limits.families_max));
                }
                metadata.push(MetricMetadata { metric: name.clone(), ..MetricMetadata::default() });
                self.families.insert(name, metadata.len() - 1);
                metadata.len() - 1
            }
        };
        metadata.get_mut(index).ok_or(ExpositionFault::NoName)
    }
}

fn sample(line: &str, limits: &ExpositionLimits) -> Result<ExpositionSample, ExpositionFault> {
    let (name, rest) = split_while(line, |c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(ExpositionFault::NoName);
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    if !name.is_empty() {
        pairs.push((METRIC_NAME.to_owned(), name.to_owned()));
    }
    let rest = skip_blanks(rest);
    let rest = match rest.strip_prefix('{') {
        Some(inside) => braces(inside, &mut pairs, limits)?,
        None => rest,
    };
    if !pairs.iter().any(|(name, _)| name == METRIC_NAME) {
        return Err(ExpositionFault::NoName);
    }
    let (value, rest) = split_blank(skip_blanks(rest));
    let value = number(value).ok_or(ExpositionFault::NoValue)?;
    let rest = rest.trim_matches([' ', '\t']);
    let timestamp =
        if rest.is_empty() { None } else { Some(rest.parse().map_err(|_| ExpositionFault::NoTimestamp)?) };
    pairs.sort_unstable();
    let labels = Labels::from_sorted(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .ok_or(ExpositionFault::DuplicateLabel)?;
    Ok(ExpositionSample { labels, value, timestamp })
}

/// The labels behind `{`; returns what is behind `}`.
fn braces<'a>(
    mut rest: &'a str,
    pairs: &mut Vec<(String, String)>,
    limits: &ExpositionLimits,
) -> Result<&'a str, ExpositionFault> {
    loop {
        rest = skip_blanks(rest);
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok(behind);
        }
        let (name, behind, quoted) = match rest.strip_prefix('"') {
            Some(inside) => {
                let (name, behind) = unquote(inside)?;
                (name, behind, true)
            }
            None => {
                let (name, behind) = split_while(rest, |c| c.is_ascii_alphanumeric() || c == '_');
                (name.to_owned(), behind, false)
            }
        };
        if name.is_empty() || (!quoted && name.starts_with(|c: char| c.is_ascii_digit())) {
            return Err(ExpositionFault::NoLabelName);
        }
        let behind = skip_blanks(behind);
        rest = if let Some(value) = behind.strip_prefix('=') {
            let inside = skip_blanks(value).strip_prefix('"').ok_or(ExpositionFault::NoLabelValue)?;
            let (value, behind) = unquote(inside)?;
            pairs.push((name, value));
            behind
        } else if quoted {
            if pairs.iter().any(|(name, _)| name == METRIC_NAME) {
                return Err(ExpositionFault::TwoNames);
            }
            pairs.push((METRIC_NAME.to_owned(), name));
            behind
        } else {
            return Err(ExpositionFault::NoLabelValue);
        };
        if pairs.len() > limits.labels_per_sample_max {
            return Err(ExpositionFault::TooManyLabels(limits.labels_per_sample_max));
        }
        rest = skip_blanks(rest);
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if rest.starts_with('}') => {}
            None => return Err(ExpositionFault::NoComma),
        }
    }
}

/// The text up to the closing quote, unescaped, and what is behind it.
fn unquote(inside: &str) -> Result<(String, &str), ExpositionFault> {
    let mut out = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, inside.get(at + 1..).unwrap_or_default())),
            '\\' => match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => out.push(escaped),
                _ => return Err(ExpositionFault::Escape),
            },
            c => out.push(c),
        }
    }
    Err(ExpositionFault::Unquoted)
}

fn unescape_help(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('n')) => {
                out.push('\n');
                chars.next();
            }
            ('\\', Some('\\')) => {
                out.push('\\');
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

/// A float as Go reads one, without hexadecimal: what overflows is no number.
fn number(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let spelled_out = text.bytes().any(|byte| byte == b'n' || byte == b'N');
    (value.is_finite() || spelled_out).then_some(value)
}

fn metric_type(text: &str) -> Option<MetricType> {
    Some(match text {
        "counter" => MetricType::Counter,
        "gauge" => MetricType::Gauge,
        "histogram" => MetricType::Histogram,
        "gaugehistogram" => MetricType::GaugeHistogram,
        "summary" => MetricType::Summary,
        "info" => MetricType::Info,
        "stateset" => MetricType::StateSet,
        "untyped" | "unknown" => MetricType::Unknown,
        _ => return None,
    })
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn split_blank(text: &str) -> (&str, &str) {
    split_while(text, |c| c != ' ' && c != '\t')
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !keep(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (usize, ExpositionFault) {
        let error = parse(text, &ExpositionLimits::default()).expect_err(text);
        (error.line, error.fault)
    }

    #[test]
    fn samples_with_labels_timestamps_and_every_number() {
        let text = "# a comment\n\n# HELP up Is it\\n up \\\\?\n# TYPE up gauge\n# UNIT up ratio\n\
                    up 1\n  up{} 2 1000\nup{a=\"x\\\\\\\"\\n\", b = \"\" ,} -Inf\t-5\n\
                    {\"my.metric\",\"l.x\"=\"v\"} NaN\nname:with:colons 1.5e3\r\nlast{a=\"b\"}+Inf\n";
        let parsed = parse(text, &ExpositionLimits::default()).unwrap();
        let lines: Vec<_> =
            parsed.samples.iter().map(|s| format!("{} {} {:?}", s.labels, s.value, s.timestamp)).collect();
        assert_eq!(
            lines,
            [
                "{__name__=\"up\"} 1 None",
                "{__name__=\"up\"} 2 Some(1000)",
                "{__name__=\"up\", a=\"x\\\\\\\"\\n\"} -inf Some(-5)",
                "{__name__=\"my.metric\", \"l.x\"=\"v\"} NaN None",
                "{__name__=\"name:with:colons\"} 1500 None",
                "{__name__=\"last\", a=\"b\"} inf None",
            ]
        );
        let up = MetricMetadata {
            metric: "up".to_owned(),
            kind: MetricType::Gauge,
            unit: "ratio".to_owned(),
            help: "Is it\n up \\?".to_owned(),
        };
        assert_eq!(parsed.metadata, [up]);
    }

    #[test]
    fn types_and_units_as_labels() {
        let text = "# TYPE h histogram\n# UNIT h seconds\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n\
                    # TYPE g gauge\ng{__type__=\"mine\"} 1\ng_sum 1\n\
                    # TYPE s summary\ns{quantile=\"1\"} 1\ns_bucket 1\n# HELP bare x\nbare 1\n";
        let mut parsed = parse(text, &ExpositionLimits::default()).expect("well-formed");
        parsed.label_types();
        let said = |sample: &ExpositionSample| {
            let get = |name| sample.labels.get(name).unwrap_or("-").to_owned();
            format!("{} {} {}", get("__name__"), get("__type__"), get("__unit__"))
        };
        let said: Vec<_> = parsed.samples.iter().map(said).collect();
        assert_eq!(
            said,
            [
                "h_bucket histogram seconds",
                "h_sum histogram seconds",
                "h_count histogram seconds",
                "g gauge -",
                "g_sum - -",
                "s summary -",
                "s_bucket - -",
                "bare - -",
            ]
        );
    }

    #[test]
    fn what_is_wrong_and_in_which_line() {
        for (text, line, what) in [
            ("up 1", 1, ExpositionFault::Unterminated),
            ("up 1\nup", 2, ExpositionFault::Unterminated),
            ("up\n", 1, ExpositionFault::NoValue),
            ("up 0x1p3\n", 1, ExpositionFault::NoValue),
            ("up 1e999\n", 1, ExpositionFault::NoValue),
            ("up 1 2 3\n", 1, ExpositionFault::NoTimestamp),
            ("up 1 # {a=\"b\"} 1\n", 1, ExpositionFault::NoTimestamp),
            ("ok 1\n1up 1\n", 2, ExpositionFault::NoName),
            ("{a=\"b\"} 1\n", 1, ExpositionFault::NoName),
            ("up{\"b\"} 1\n", 1, ExpositionFault::TwoNames),
            ("up{1a=\"b\"} 1\n", 1, ExpositionFault::NoLabelName),
            ("up{a} 1\n", 1, ExpositionFault::NoLabelValue),
            ("up{a=b} 1\n", 1, ExpositionFault::NoLabelValue),
            ("up{a=\"b} 1\n", 1, ExpositionFault::Unquoted),
            ("up{a=\"\\x\"} 1\n", 1, ExpositionFault::Escape),
            ("up{a=\"b\" c=\"d\"} 1\n", 1, ExpositionFault::NoComma),
            ("up{a=\"b\",a=\"c\"} 1\n", 1, ExpositionFault::DuplicateLabel),
            ("# TYPE up speed\n", 1, ExpositionFault::UnknownType),
        ] {
            assert_eq!(fault(text), (line, what), "{text:?}");
        }
    }

    #[test]
    fn each_limit_holds() {
        let limits =
            ExpositionLimits { bytes_max: 60, samples_max: 2, labels_per_sample_max: 2, families_max: 1 };
        let fault = |text: &str| parse(text, &limits).map_err(|error| error.fault);
        assert!(fault("a{b=\"c\"} 1\nb 1\n# TYPE a gauge\n").is_ok());
        assert_eq!(fault("a 1\na 1\na 1\n"), Err(ExpositionFault::TooManySamples(2)));
        assert_eq!(fault("a{b=\"\",c=\"\"} 1\n"), Err(ExpositionFault::TooManyLabels(2)));
        assert_eq!(fault("# TYPE a gauge\n# TYPE b gauge\n"), Err(ExpositionFault::TooManyFamilies(1)));
        assert_eq!(fault(&"\n".repeat(61)), Err(ExpositionFault::TooLong(60)));
    }
}
