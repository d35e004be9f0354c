//! What has been found in a log, as JSON and as text.

use std::fmt::Write as _;
use std::path::Path;

use chronolith_wal::{DamageReason, RecordType};
use serde::Serialize;

use super::super::format::{Table, bytes, count, time};
use super::filter::Matched;
use super::shown;

/// At most this many damaged places are listed; all are counted.
pub(super) const DAMAGE_LISTED_MAX: usize = 1000;

/// What has been found in a log.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) directory: String,
    pub(super) segments: Vec<SegmentReport>,
    pub(super) total: Totals,
    /// The first of them.
    pub(super) damage: Vec<Place>,
    pub(super) damage_count: u64,
    /// Bytes at the end that are no whole record.
    pub(super) unfinished: Option<Place>,
    /// The series that match, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) matching_series: Option<Vec<SeriesReport>>,
}

/// A segment.
#[derive(Debug, Serialize)]
pub(super) struct SegmentReport {
    pub(super) file: String,
    pub(super) state: State,
    /// How long the file is.
    pub(super) file_bytes: u64,
    #[serde(flatten)]
    pub(super) totals: Totals,
}

/// What a segment is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Its records count.
    Valid,
    /// A failed attempt at writing: it has been replaced.
    Void,
    /// It cannot be opened.
    Unreadable,
}

/// Sums over records that count.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Totals {
    /// Of the part of the files that counts.
    pub(super) bytes: u64,
    pub(super) records: u64,
    /// Records that are there once more, and count once.
    pub(super) repeated_records: u64,
    /// Records of types that this program does not know.
    pub(super) unknown_records: u64,
    /// How many series are defined; `None` if they were not counted.
    pub(super) series: Option<u64>,
    /// Of floats.
    pub(super) samples: u64,
    /// Native histograms.
    pub(super) histograms: u64,
    /// Start timestamps.
    pub(super) starts: u64,
    pub(super) exemplars: u64,
    /// Of samples and histograms; `None` without any, and where only some are counted.
    pub(super) bytes_per_sample: Option<f64>,
    /// The first and last timestamp of samples and histograms, milliseconds.
    pub(super) times_ms: Option<(i64, i64)>,
    /// The first and last sequence number.
    pub(super) sequence: Option<(u64, u64)>,
}

/// A place in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) reason: &'static str,
    /// What the system says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip)]
    text: &'static str,
}

/// A series that matches.
#[derive(Debug, Serialize)]
pub(super) struct SeriesReport {
    tenant: String,
    labels: String,
    samples: u64,
    histograms: u64,
    exemplars: u64,
    times_ms: Option<(i64, i64)>,
}

impl From<Matched> for SeriesReport {
    fn from(matched: Matched) -> Self {
        let Matched { tenant, labels, samples, histograms, exemplars, times } = matched;
        Self { tenant, labels: labels.to_string(), samples, histograms, exemplars, times_ms: times }
    }
}

impl Place {
    pub(super) fn new(path: &Path, offset: u64, bytes: u64, reason: DamageReason) -> Self {
        let (reason, text) = match reason {
            DamageReason::SegmentHeader => ("segment_header", "the segment's header is damaged"),
            DamageReason::RecordHeader => ("record_header", "no record begins here"),
            DamageReason::Payload => ("payload", "a record's payload does not match its checksum"),
            DamageReason::Content => ("content", "a record's payload does not say what its type promises"),
            DamageReason::Truncated => ("truncated", "a record ends beyond the end of its segment"),
            DamageReason::Unreadable => ("unreadable", "the device cannot read it"),
            DamageReason::MissingSegment => ("missing_segment", "a segment that should be there is not"),
            _ => ("other", "it is damaged"),
        };
        Self { file: shown(path), offset, bytes, reason, error: None, text }
    }

    pub(super) fn with_error(self, error: &chronolith_env::Error) -> Self {
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            let _ = write!(text, ": {source}");
        }
        Self { error: Some(text), ..self }
    }
}

impl Totals {
    /// The count of what such records hold.
    pub(super) const fn of(&mut self, record_type: RecordType) -> &mut u64 {
        match record_type {
            RecordType::Histograms => &mut self.histograms,
            RecordType::Starts => &mut self.starts,
            RecordType::Exemplars => &mut self.exemplars,
            _ => &mut self.samples,
        }
    }

    pub(super) fn see_time(&mut self, min: i64, max: i64) {
        let (from, to) = self.times_ms.unwrap_or((min, max));
        self.times_ms = Some((from.min(min), to.max(max)));
    }

    pub(super) fn see_sequence(&mut self, first: u64, last: u64) {
        let (from, to) = self.sequence.unwrap_or((first, last));
        self.sequence = Some((from.min(first), to.max(last)));
    }

    /// Adds all that adds up; `series` does not.
    pub(super) fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.records += other.records;
        self.repeated_records += other.repeated_records;
        self.unknown_records += other.unknown_records;
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.starts += other.starts;
        self.exemplars += other.exemplars;
        if let Some((min, max)) = other.times_ms {
            self.see_time(min, max);
        }
        if let Some((first, last)) = other.sequence {
            self.see_sequence(first, last);
        }
    }

    /// The cells of a table's row.
    fn cells(&self) -> [String; 10] {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            bytes(self.bytes),
            self.records.to_string(),
            or_none(self.series.map(|series| series.to_string())),
            self.samples.to_string(),
            self.histograms.to_string(),
            self.exemplars.to_string(),
            or_none(self.bytes_per_sample.map(|bytes| format!("{bytes:.2}"))),
            or_none(self.times_ms.map(|(min, _)| time(min))),
            or_none(self.times_ms.map(|(_, max)| time(max))),
            or_none(self.sequence.map(|(first, last)| format!("{first}-{last}"))),
        ]
    }
}

impl Report {
    /// Notes the damage, and lists it if there is room.
    pub(super) fn damaged(&mut self, place: Place) {
        self.damage_count += 1;
        if self.damage.len() < DAMAGE_LISTED_MAX {
            self.damage.push(place);
        }
    }

    /// The text of `wal inspect`.
    pub(super) fn inspected(&self) -> String {
        let mut table = Table::new(&[
            "segment",
            "bytes",
            "records",
            "series",
            "samples",
            "histograms",
            "exemplars",
            "bytes/sample",
            "first sample",
            "last sample",
            "sequence numbers",
        ]);
        for segment in &self.segments {
            let name = Path::new(&segment.file).file_stem().unwrap_or_default().to_string_lossy();
            let name = match segment.state {
                State::Valid => name.into_owned(),
                State::Void => format!("{name} (void: replaced by a later one)"),
                State::Unreadable => format!("{name} (cannot be read)"),
            };
            table.row(std::iter::once(name).chain(segment.totals.cells()));
        }
        table.row(std::iter::once("total".to_owned()).chain(self.total.cells()));
        let mut out = table.text();
        if self.total.repeated_records > 0 {
            let _ = writeln!(
                out,
                "{} written twice after a failure, counted once",
                count(self.total.repeated_records, "record")
            );
        }
        self.write_series(&mut out);
        self.write_places(&mut out);
        out
    }

    /// The text of `wal verify`.
    pub(super) fn verified(&self) -> String {
        let mut out = String::new();
        self.write_places(&mut out);
        let read = format!(
            "{}, {}, {}, {}, {}, {} in {}",
            count(self.segments.len() as u64, "segment"),
            bytes(self.total.bytes),
            count(self.total.records, "record"),
            count(self.total.samples, "sample"),
            count(self.total.histograms, "histogram"),
            count(self.total.exemplars, "exemplar"),
            self.directory
        );
        let _ = match self.damage_count {
            0 => writeln!(out, "clean: {read}"),
            n => writeln!(out, "damaged: {}; intact: {read}", count(n, "place")),
        };
        out
    }

    fn write_series(&self, out: &mut String) {
        let Some(series) = &self.matching_series else { return };
        let mut table = Table::new(&[
            "series",
            "tenant",
            "samples",
            "histograms",
            "exemplars",
            "first sample",
            "last sample",
        ]);
        for series in series {
            let [min, max] = match series.times_ms {
                Some((min, max)) => [time(min), time(max)],
                None => ["-".to_owned(), "-".to_owned()],
            };
            let SeriesReport { tenant, labels, .. } = series;
            let counts = [series.samples, series.histograms, series.exemplars].map(|n| n.to_string());
            table.row([labels.clone(), tenant.clone()].into_iter().chain(counts).chain([min, max]));
        }
        out.push('\n');
        out.push_str(&table.text());
    }

    fn write_places(&self, out: &mut String) {
        for place in &self.damage {
            let Place { file, offset, bytes, text, .. } = place;
            let _ = match &place.error {
                Some(error) => writeln!(out, "damaged: {file}: {error}"),
                None if *bytes == 0 => writeln!(out, "damaged: {file}: {text}"),
                None => {
                    writeln!(out, "damaged: {file}: {} at offset {offset}: {text}", count(*bytes, "byte"))
                }
            };
        }
        let rest = self.damage_count - self.damage.len() as u64;
        if rest > 0 {
            let _ = writeln!(out, "damaged: {} more", count(rest, "place"));
        }
        if let Some(Place { file, offset, bytes, .. }) = &self.unfinished {
            let _ = writeln!(
                out,
                "unfinished: {file}: {} at offset {offset} are no whole record: a server is writing them, or was \
                 stopped while it did; nobody was told that they are safe",
                count(*bytes, "byte")
            );
        }
    }
}
