//! The labels of a decoded request, parsed when asked for.

use chronolith_model::{
    Labels, METRIC_NAME,
    labels::{LABELS_BYTES_MAX, LABELS_MAX, write_quoted},
};
use chronolith_storage::{LabelFault, LabelSource, RejectReason};

use super::decode::{DecodeLimits, DecodedWrite, HistogramSeries};
use crate::wire::{BYTES, Reader, WireError};

/// Most labels of a series, whatever [`DecodeLimits`] allow.
pub const LABELS_PER_SERIES_MAX: usize = LABELS_MAX;
/// Most bytes of the label records of a series, whatever [`DecodeLimits`] allow.
pub const LABEL_RECORDS_BYTES_MAX: usize = LABELS_BYTES_MAX;
/// How many bytes of a label set a refusal shows.
const SHOWN_BYTES_MAX: usize = 1024;

/// Parses and checks labels of a decoded request. It borrows the request and the bytes it was decoded from.
#[derive(Clone, Copy, Debug)]
pub struct WriteLabels<'a> {
    decoded: &'a DecodedWrite,
    body: &'a [u8],
    limits: &'a DecodeLimits,
}

impl<'a> WriteLabels<'a> {
    pub(super) const fn new(decoded: &'a DecodedWrite, body: &'a [u8], limits: &'a DecodeLimits) -> Self {
        Self { decoded, body, limits }
    }

    /// The labels of a series with histograms.
    ///
    /// # Errors
    /// As [`LabelSource::labels`].
    pub fn of_histograms(&self, series: &HistogramSeries) -> Result<Labels, RejectReason> {
        self.parse(self.decoded.span_bytes(self.body, series.labels))
    }

    /// Gives the labels of the series with exemplars.
    #[must_use]
    pub const fn of_exemplars(&self) -> ExemplarLabels<'a> {
        ExemplarLabels(*self)
    }

    fn parse(&self, records: &'a [u8]) -> Result<Labels, RejectReason> {
        let labels_max = self.limits.labels_per_series_max.min(LABELS_PER_SERIES_MAX);
        let (mut pairs, count) = split(records, labels_max).map_err(|error| RejectReason::InvalidLabels {
            fault: LabelFault::Malformed,
            text: format!("malformed labels: {}", error.fault),
        })?;
        pairs.sort_unstable_by_key(|(name, _)| *name);
        let mut text = Vec::with_capacity(pairs.len());
        for (name, value) in &pairs {
            if value.is_empty() {
                continue;
            }
            if name.is_empty() {
                return Err(invalid(LabelFault::NoName, "invalid metric name or labels, got", &pairs, ""));
            }
            let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value)) else {
                let what = "invalid metric name or labels, got";
                return Err(invalid(LabelFault::NotText, what, &pairs, ": not valid UTF-8"));
            };
            text.push((name, value));
        }
        if count > labels_max {
            let behind = format!(": {count} labels, the limit is {labels_max}");
            return Err(invalid(LabelFault::TooMany, "too many labels for series, labels", &pairs, &behind));
        }
        if records.len() > LABEL_RECORDS_BYTES_MAX {
            let behind = format!(": {} bytes, the limit is {LABEL_RECORDS_BYTES_MAX}", records.len());
            return Err(invalid(LabelFault::TooLong, "labels too long for series, labels", &pairs, &behind));
        }
        self.check(&text, &pairs)?;
        Labels::from_sorted(text.iter().copied()).ok_or_else(|| {
            let twice = text.windows(2).find_map(|two| match two {
                [(a, _), (b, _)] if a == b => Some(*a),
                _ => None,
            });
            let behind = format!(", duplicated label {}", shown(twice.unwrap_or_default()));
            invalid(LabelFault::Duplicate, "invalid labels for series, labels", &pairs, &behind)
        })
    }

    /// The limits on each label, and that there is a metric name.
    fn check(&self, text: &[(&str, &str)], pairs: &[RawPair<'_>]) -> Result<(), RejectReason> {
        let limits = self.limits;
        for (name, value) in text {
            if name.len() > limits.label_name_bytes_max {
                let behind = format!(": {} bytes, the limit is {}", name.len(), limits.label_name_bytes_max);
                return Err(invalid(
                    LabelFault::NameTooLong,
                    "label name too long for series, labels",
                    pairs,
                    &behind,
                ));
            }
            if value.len() > limits.label_value_bytes_max {
                let behind = format!(
                    ": value of {} has {} bytes, the limit is {}",
                    shown(name),
                    value.len(),
                    limits.label_value_bytes_max
                );
                return Err(invalid(
                    LabelFault::ValueTooLong,
                    "label value too long for series, labels",
                    pairs,
                    &behind,
                ));
            }
        }
        if !text.iter().any(|(name, _)| *name == METRIC_NAME) {
            return Err(invalid(LabelFault::NoMetricName, "invalid metric name or labels, got", pairs, ""));
        }
        Ok(())
    }
}

impl LabelSource for WriteLabels<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        self.parse(self.decoded.label_bytes(self.body, series))
    }
}

/// As [`WriteLabels`], for the series of an exemplar batch.
#[derive(Clone, Copy, Debug)]
pub struct ExemplarLabels<'a>(WriteLabels<'a>);

impl LabelSource for ExemplarLabels<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        self.0.parse(self.0.decoded.exemplar_label_bytes(self.0.body, series))
    }
}

type RawPair<'a> = (&'a [u8], &'a [u8]);

/// Label records to pairs, in their order, and how many of them have a value. Of more than `labels_max` the first are
/// enough to say so: a record of two bytes must not cost a pair's memory.
pub(super) fn split(records: &[u8], labels_max: usize) -> Result<(Vec<RawPair<'_>>, usize), WireError> {
    let mut pairs = Vec::with_capacity(16);
    let mut count = 0;
    let mut reader = Reader::new(records);
    while !reader.is_empty() {
        let (field, wire_type) = reader.key()?;
        reader.expect(field, wire_type, BYTES)?;
        let mut record = reader.message()?;
        let mut pair: RawPair<'_> = (&[], &[]);
        while !record.is_empty() {
            let (field, wire_type) = record.key()?;
            if field > 2 {
                record.skip(wire_type)?;
                continue;
            }
            record.expect(field, wire_type, BYTES)?;
            let bytes = record.bytes()?;
            if field == 1 {
                pair.0 = bytes;
            } else {
                pair.1 = bytes;
            }
        }
        let (_, value) = pair;
        if pairs.len() <= labels_max || (count <= labels_max && !value.is_empty()) {
            pairs.push(pair);
        }
        count += usize::from(!value.is_empty());
    }
    Ok((pairs, count))
}

#[cold]
fn invalid(fault: LabelFault, what: &str, pairs: &[RawPair<'_>], behind: &str) -> RejectReason {
    let mut text = format!("{what} {{");
    for (index, (name, value)) in pairs.iter().enumerate() {
        if text.len() > SHOWN_BYTES_MAX {
            text.push_str(", ...");
            break;
        }
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(&shown(&String::from_utf8_lossy(name)));
        text.push('=');
        // Writing to a string cannot fail.
        let _ = write_quoted(&mut text, &shown(&String::from_utf8_lossy(value)));
    }
    text.push('}');
    text.push_str(behind);
    RejectReason::InvalidLabels { fault, text }
}

/// A name or value, cut where it is too long to show.
fn shown(text: &str) -> String {
    const PART_BYTES_MAX: usize = 128;
    if text.len() <= PART_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=PART_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", text.get(..end).unwrap_or_default())
}
