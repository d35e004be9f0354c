//! Influx line protocol, as Telegraf writes it.
//!
//! ```text
//! weather,location=us\ midwest temperature=82.1,humidity=71i,state="ok" 1465839830100400200
//! ```
//!
//! Each numeric field is a sample of the series `<measurement>_<field>` with the tags as labels; `true` is 1, `false` is 0,
//! texts are passed over. Characters that no metric or label name of Prometheus' classic set may have become `_`. A line
//! without a timestamp has that of its arrival. A line that cannot be read is refused, and no other with it.
//!
//! Source: InfluxData, "Line protocol reference".

use std::ops::Range;

use chronolith_model::{Labels, LabelsBuilder, METRIC_NAME, Sample, Timestamp};
use chronolith_storage::{KeyHasher, LabelFault, LabelSource, RejectReason, SeriesEntry, WriteBatch};

/// Most samples of one request.
pub const SAMPLES_MAX: usize = 1_000_000;
/// How many refused lines are kept word for word.
pub const REFUSALS_KEPT_MAX: usize = 10;
/// In front of what is hashed for a series, unlike any other encoding of labels.
const KEY_PREFIX: u8 = 0x01;
/// How much of a refused line is shown.
const SHOWN_BYTES_MAX: usize = 200;

/// What timestamps count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Nanoseconds.
    #[default]
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl Precision {
    /// The precision the parameter of this name asks for, of version 1 or 2 of the API.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "" | "n" | "ns" => Self::Nanoseconds,
            "u" | "us" | "\u{b5}" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            "m" => Self::Minutes,
            "h" => Self::Hours,
            _ => return None,
        })
    }

    /// `time` in milliseconds, those before 1970 rounded down too.
    fn milliseconds(self, time: i64) -> Timestamp {
        match self {
            Self::Nanoseconds => time.div_euclid(1_000_000),
            Self::Microseconds => time.div_euclid(1_000),
            Self::Milliseconds => time,
            Self::Seconds => time.saturating_mul(1_000),
            Self::Minutes => time.saturating_mul(60_000),
            Self::Hours => time.saturating_mul(3_600_000),
        }
    }
}

/// How lines become samples.
#[derive(Clone, Debug)]
pub struct InfluxOptions {
    /// What timestamps count.
    pub precision: Precision,
    /// The timestamp of lines without one, in milliseconds.
    pub now: Timestamp,
    /// Labels of all series, the database for example; tags of the same name win.
    pub labels: Vec<(String, String)>,
}

/// Why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineFault {
    /// It is not UTF-8.
    #[error("not UTF-8")]
    NotText,
    /// There is nothing before the tags.
    #[error("missing measurement")]
    NoMeasurement,
    /// A tag without a name, or without `=`.
    #[error("missing tag value")]
    Tag,
    /// There is nothing behind measurement and tags.
    #[error("missing fields")]
    NoFields,
    /// A field without a name, or without `=`.
    #[error("missing field value")]
    Field,
    /// A field's value is no number, boolean or text.
    #[error("invalid value of a field")]
    Value,
    /// The quotes of a text are not closed.
    #[error("unbalanced quotes")]
    Quotes,
    /// The timestamp is no whole number of 64 bits.
    #[error("bad timestamp")]
    Timestamp,
}

/// More samples than [`SAMPLES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many samples in one request, the limit is {SAMPLES_MAX}")]
pub struct TooManySamples;

/// A line that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRefusal {
    /// Which, from 1.
    pub line: usize,
    /// Why.
    pub fault: LineFault,
    /// It, cut where it is long.
    pub text: String,
}

/// The samples of a request.
#[derive(Debug)]
pub struct InfluxSamples<'a> {
    body: &'a [u8],
    options: &'a InfluxOptions,
    series: Vec<SeriesEntry>,
    samples: Vec<Sample>,
    /// By entry: where measurement and tags, and the field's name stand.
    places: Vec<(Range<usize>, Range<usize>)>,
    refused: u64,
    refusals: Vec<LineRefusal>,
    texts: u64,
}

impl InfluxSamples<'_> {
    /// The batch to append; `self` gives its labels.
    #[must_use]
    pub fn batch(&self) -> WriteBatch<'_> {
        WriteBatch::of_samples(&self.series, &self.samples, self)
    }

    /// How many lines were refused.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// The first of them, at most [`REFUSALS_KEPT_MAX`].
    #[must_use]
    pub fn refusals(&self) -> &[LineRefusal] {
        &self.refusals
    }

    /// Fields passed over because they are texts.
    #[must_use]
    pub const fn texts(&self) -> u64 {
        self.texts
    }
}

impl LabelSource for InfluxSamples<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        let internal = || RejectReason::InvalidLabels {
            fault: LabelFault::Internal,
            text: format!("no series {series} in the request"),
        };
        let (head, field) = self.places.get(series).ok_or_else(internal)?;
        let text = |range: &Range<usize>| {
            let bytes = self.body.get(range.clone()).unwrap_or_default();
            // Lines that are no text were refused.
            str::from_utf8(bytes).unwrap_or_default()
        };
        Ok(labels(text(head), text(field), &self.options.labels))
    }
}

/// Reads the lines of `body`.
///
/// # Errors
/// [`TooManySamples`].
pub fn decode<'a>(
    body: &'a [u8],
    hasher: &KeyHasher,
    options: &'a InfluxOptions,
) -> Result<InfluxSamples<'a>, TooManySamples> {
    let mut samples = InfluxSamples {
        body,
        options,
        series: Vec::new(),
        samples: Vec::new(),
        places: Vec::new(),
        refused: 0,
        refusals: Vec::new(),
        texts: 0,
    };
    let mut key = Vec::new();
    let mut start = 0;
    for (number, raw) in body.split(|byte| *byte == b'\n').enumerate() {
        let at = start;
        start += raw.len() + 1;
        let (before, texts_before) = (samples.samples.len(), samples.texts);
        let result = match str::from_utf8(raw) {
            Ok(text) => samples.line(text.trim_end_matches('\r'), at, hasher, &mut key),
            Err(_) => Err(Stop::Fault(LineFault::NotText)),
        };
        match result {
            Ok(()) => {}
            Err(Stop::TooMany) => return Err(TooManySamples),
            Err(Stop::Fault(fault)) => {
                samples.series.truncate(before);
                samples.samples.truncate(before);
                samples.places.truncate(before);
                samples.texts = texts_before;
                samples.refuse(number + 1, fault, raw);
            }
        }
    }
    Ok(samples)
}

/// Why a line is not read to its end.
enum Stop {
    Fault(LineFault),
    TooMany,
}

impl From<LineFault> for Stop {
    fn from(fault: LineFault) -> Self {
        Self::Fault(fault)
    }
}

impl InfluxSamples<'_> {
    /// Reads a line that begins at byte `at` of the body.
    fn line(&mut self, line: &str, at: usize, hasher: &KeyHasher, key: &mut Vec<u8>) -> Result<(), Stop> {
        let trimmed = line.trim_start_matches([' ', '\t', '\0']);
        let at = at + (line.len() - trimmed.len());
        if trimmed.is_empty() || trimmed.starts_with('#') {
            return Ok(());
        }
        let head_end = unescaped(trimmed, &[' ']).unwrap_or(trimmed.len());
        let (head, rest) = trimmed.split_at(head_end);
        check_head(head)?;
        let fields = rest.trim_start_matches(' ');
        let fields_at = trimmed.len() - fields.len();
        let fields_end = end_of_fields(fields)?;
        let (fields, rest) = fields.split_at(fields_end);
        if fields.is_empty() {
            return Err(LineFault::NoFields.into());
        }
        let timestamp = match rest.trim_matches(' ') {
            "" => self.options.now,
            time => {
                let time = time.parse().map_err(|_| LineFault::Timestamp)?;
                self.options.precision.milliseconds(time)
            }
        };
        let mut next = 0;
        while let Some(rest) = fields.get(next..).filter(|rest| !rest.is_empty()) {
            let equals =
                unescaped(rest, &['=', ',']).filter(|at| rest.get(*at..).is_some_and(|r| r.starts_with('=')));
            let equals = equals.filter(|at| *at > 0).ok_or(LineFault::Field)?;
            let value = rest.get(equals + 1..).unwrap_or_default();
            let end = end_of_value(value)?;
            let name = fields_at + next..fields_at + next + equals;
            match number(value.get(..end).unwrap_or_default())? {
                Some(number) => {
                    key.clear();
                    key.push(KEY_PREFIX);
                    for text in self.options.labels.iter().flat_map(|(name, value)| [name, value]) {
                        key.extend_from_slice(&text.len().to_le_bytes());
                        key.extend_from_slice(text.as_bytes());
                    }
                    key.extend_from_slice(head.as_bytes());
                    key.push(0);
                    key.extend_from_slice(trimmed.get(name.clone()).unwrap_or_default().as_bytes());
                    let place = (at..at + head_end, at + name.start..at + name.end);
                    self.add(hasher.key(key), place, Sample::new(timestamp, number))?;
                }
                None => self.texts += 1,
            }
            next += equals + 1 + end;
            // A comma, and a field behind it.
            if next < fields.len() {
                next += 1;
                if next == fields.len() {
                    return Err(LineFault::Field.into());
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        key: chronolith_storage::SeriesKey,
        place: (Range<usize>, Range<usize>),
        sample: Sample,
    ) -> Result<(), Stop> {
        let index = self.samples.len();
        if index >= SAMPLES_MAX {
            return Err(Stop::TooMany);
        }
        // Fits: the limit is far below.
        let range = index as u32..index as u32 + 1;
        self.samples.push(sample);
        self.series.push(SeriesEntry::of_samples(key, range));
        self.places.push(place);
        Ok(())
    }

    #[cold]
    fn refuse(&mut self, line: usize, fault: LineFault, raw: &[u8]) {
        self.refused += 1;
        if self.refusals.len() < REFUSALS_KEPT_MAX {
            let shown = raw.get(..SHOWN_BYTES_MAX).unwrap_or(raw);
            self.refusals.push(LineRefusal {
                line,
                fault,
                text: String::from_utf8_lossy(shown).into_owned(),
            });
        }
    }
}

/// Where the first of `ends` is that no backslash stands before.
fn unescaped(text: &str, ends: &[char]) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let found = !escaped && ends.contains(&c);
        escaped = !escaped && c == '\\';
        found.then_some(at)
    })
}

/// Measurement and tags: each tag has a name and a value.
fn check_head(head: &str) -> Result<(), LineFault> {
    if head.is_empty() || head.starts_with(',') {
        return Err(LineFault::NoMeasurement);
    }
    match parts(head).skip(1).all(|tag| split_tag(tag).is_some()) {
        true => Ok(()),
        false => Err(LineFault::Tag),
    }
}

/// What unescaped commas part.
fn parts(head: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(head);
    std::iter::from_fn(move || {
        let text = rest?;
        match unescaped(text, &[',']) {
            Some(at) => {
                rest = text.get(at + 1..);
                text.get(..at)
            }
            None => rest.take(),
        }
    })
}

fn split_tag(tag: &str) -> Option<(&str, &str)> {
    let equals = unescaped(tag, &['='])?;
    let (name, value) = (tag.get(..equals)?, tag.get(equals + 1..)?);
    (!name.is_empty() && !value.is_empty()).then_some((name, value))
}

/// Where the fields end: at a space outside quotes. Quotes only count at the beginning of a value.
fn end_of_fields(text: &str) -> Result<usize, LineFault> {
    let (mut quoted, mut escaped, mut before) = (false, false, ' ');
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' if quoted => quoted = false,
            '"' if before == '=' => quoted = true,
            ' ' if !quoted => return Ok(at),
            _ => {}
        }
        before = c;
    }
    if quoted { Err(LineFault::Quotes) } else { Ok(text.len()) }
}

/// Where a field's value ends.
fn end_of_value(value: &str) -> Result<usize, LineFault> {
    let Some(text) = value.strip_prefix('"') else {
        return Ok(value.find(',').unwrap_or(value.len()));
    };
    let end = unescaped(text, &['"']).ok_or(LineFault::Quotes)? + 2;
    match value.get(end..) {
        Some(rest) if rest.is_empty() || rest.starts_with(',') => Ok(end),
        _ => Err(LineFault::Value),
    }
}

/// A field's value as a number; `None` for a text.
fn number(value: &str) -> Result<Option<f64>, LineFault> {
    match value {
        "t" | "T" | "true" | "True" | "TRUE" => return Ok(Some(1.0)),
        "f" | "F" | "false" | "False" | "FALSE" => return Ok(Some(0.0)),
        _ if value.starts_with('"') => return Ok(None),
        _ => {}
    }
    if let Some(whole) = value.strip_suffix('i') {
        return whole.parse::<i64>().map(|whole| Some(whole as f64)).map_err(|_| LineFault::Value);
    }
    if let Some(whole) = value.strip_suffix('u') {
        return whole.parse::<u64>().map(|whole| Some(whole as f64)).map_err(|_| LineFault::Value);
    }
    // Rust reads `inf`, `nan` and `infinity` too; the protocol knows none of them.
    let digits = value.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    match value.parse::<f64>() {
        Ok(number) if digits && number.is_finite() => Ok(Some(number)),
        _ => Err(LineFault::Value),
    }
}

fn labels(head: &str, field: &str, all: &[(String, String)]) -> Labels {
    let mut builder = LabelsBuilder::default();
    for (name, value) in all {
        builder.set(name.as_str(), value.as_str());
    }
    let mut parts = parts(head);
    let measurement = unescape(parts.next().unwrap_or_default(), ", ");
    for (name, value) in parts.filter_map(split_tag) {
        builder.set(classic(&unescape(name, ",= "), false), unescape(value, ",= "));
    }
    let field = unescape(field, ",= ");
    builder.set(METRIC_NAME, classic(&format!("{measurement}_{field}"), true));
    builder.build()
}

/// Without the backslashes before characters of `escaped`.
fn unescape(text: &str, escaped: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escapes = c == '\\' && chars.peek().is_some_and(|next| escaped.contains(*next));
        match chars.next_if(|_| escapes) {
            Some(next) => out.push(next),
            None => out.push(c),
        }
    }
    out
}

/// `name` in the characters of Prometheus' classic names.
fn classic(name: &str, metric: bool) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || (metric && c == ':');
    let mut out: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options() -> InfluxOptions {
        InfluxOptions {
            precision: Precision::default(),
            now: 77,
            labels: vec![("db".to_owned(), "d".to_owned())],
        }
    }

    fn shown(body: &[u8], options: &InfluxOptions) -> (Vec<String>, Vec<(usize, LineFault)>) {
        let samples = decode(body, &KeyHasher::new(1), options).unwrap();
        let lines = samples.series.iter().enumerate().map(|(index, entry)| {
            let sample = samples.batch().samples_of(entry)[0];
            format!("{} {}@{}", samples.labels(index).unwrap(), sample.value, sample.timestamp)
        });
        (lines.collect(), samples.refusals().iter().map(|r| (r.line, r.fault)).collect())
    }

    #[test]
    fn lines_become_samples_of_their_fields() {
        let body = br#"# a comment
weather,location=us\ mid\,west,zone=z\=1 temperature=82.5,humidity=71i,ok=true,state="a, b=\"c\" " 1465839830100400200
  m\ x a.b=-1e3,u=18u
9x,db=other,t.g=v value=0
"#;
        let (lines, refused) = shown(body, &options());
        assert_eq!(
            lines,
            [
                r#"{__name__="weather_temperature", db="d", location="us mid,west", zone="z=1"} 82.5@1465839830100"#,
                r#"{__name__="weather_humidity", db="d", location="us mid,west", zone="z=1"} 71@1465839830100"#,
                r#"{__name__="weather_ok", db="d", location="us mid,west", zone="z=1"} 1@1465839830100"#,
                r#"{__name__="m_x_a_b", db="d"} -1000@77"#,
                r#"{__name__="m_x_u", db="d"} 18@77"#,
                r#"{__name__="_9x_value", db="other", t_g="v"} 0@77"#,
            ]
        );
        assert_eq!(refused, []);
        assert_eq!(decode(body, &KeyHasher::new(1), &options()).unwrap().texts(), 1);
    }

    #[test]
    fn the_same_series_has_the_same_key_and_others_not() {
        let samples_of = |body: &[u8]| -> Vec<_> {
            decode(body, &KeyHasher::new(1), &options())
                .unwrap()
                .series
                .iter()
                .map(|entry| entry.key)
                .collect()
        };
        let keys = samples_of(b"m,a=1 f=1,g=1 1\nm,a=1 f=2 2\nm,a=2 f=1 3");
        assert_eq!(keys[0], keys[2]);
        assert!(keys[0] != keys[1] && keys[0] != keys[3]);
        let other = InfluxOptions { labels: vec![("db".to_owned(), "e".to_owned())], ..options() };
        let elsewhere = decode(b"m,a=1 f=1", &KeyHasher::new(1), &other).unwrap();
        assert_ne!(elsewhere.series[0].key, keys[0], "of another database");
    }

    #[test]
    fn precisions_are_those_of_both_versions() {
        for (name, time, expected) in [
            ("", 1_700_000_000_123_456_789, 1_700_000_000_123),
            ("ns", -1, -1),
            ("us", 1_700_000_000_123_456, 1_700_000_000_123),
            ("ms", 5, 5),
            ("s", 5, 5_000),
            ("m", 5, 300_000),
            ("h", i64::MAX, i64::MAX),
        ] {
            let options = InfluxOptions { precision: Precision::from_name(name).unwrap(), ..options() };
            let (lines, _) = shown(format!("m f=1 {time}").as_bytes(), &options);
            assert!(lines[0].ends_with(&format!(" 1@{expected}")), "{name}: {lines:?}");
        }
        assert_eq!(Precision::from_name("d"), None);
    }

    #[test]
    fn a_line_that_is_wrong_is_refused_alone() {
        let body: &[u8] = b"good f=1\n,t=1 f=1\nm,t f=1\nm,t= f=1\nm\nm \nm f\nm =1\nm f=\nm f=1x\nm f=nan\nm f=\"a\nm f=\"a\"b\nm f=1, 5\nm f=1 x\nm f=1 9223372036854775808\n\xff f=1\ngood f=2\r\n";
        let (lines, refused) = shown(body, &options());
        assert_eq!(lines.len(), 2);
        use LineFault as F;
        let expected = [
            (2, F::NoMeasurement),
            (3, F::Tag),
            (4, F::Tag),
            (5, F::NoFields),
            (6, F::NoFields),
            (7, F::Field),
            (8, F::Field),
            (9, F::Value),
            (10, F::Value),
            (11, F::Value),
        ];
        assert_eq!(refused, expected);
        assert_eq!(decode(body, &KeyHasher::new(1), &options()).unwrap().refused(), 16);
        for (body, fault) in [
            (&b"m f=\"a"[..], F::Quotes),
            (b"m f=\"a\"b", F::Value),
            (b"m f=1, 5", F::Field),
            (b"m f=1 x", F::Timestamp),
        ] {
            assert_eq!(shown(body, &options()).1, [(1, fault)]);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body: Vec<u8>) {
            let _ = shown(&body, &options());
        }

        #[test]
        fn text_of_the_alphabet_never_panics(body in "[a-c,= \\\\\"1i\n]{0,60}") {
            let samples = decode(body.as_bytes(), &KeyHasher::new(1), &options()).unwrap().series.len();
            prop_assert!(samples <= body.len());
            let _ = shown(body.as_bytes(), &options());
        }
    }
}
