//! Request to samples, in one pass and in place.

use std::sync::Arc;

use chronolith_model::{Exemplar, HistogramSample, MetricMetadata, MetricType, Sample, histogram::Layout};
use chronolith_storage::{
    ExemplarBatch, ExemplarEntry, KeyHasher, RejectReason, SeriesEntry, SeriesKey, Stores, WriteBatch,
};

use super::exemplar::exemplar;
use super::histogram::histogram;
use super::labels::{ExemplarLabels, WriteLabels};
use crate::wire::{BYTES, FIXED64, Reader, VARINT, WireError, WireFault};

/// How many series with refused histograms a request's answer can name.
pub const HISTOGRAM_SERIES_KEPT_MAX: usize = 10;

/// The key of a `labels` record, `samples` record: field 1, 2, length-delimited.
const LABEL_KEY: u8 = 0x0a;
const SAMPLE_KEY: u8 = 0x12;

/// What one request may hold. What is above a limit per series is refused with the series; what is above a limit per
/// request refuses the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Labels of one series, the metric name included; never more than [`super::LABELS_PER_SERIES_MAX`].
    pub labels_per_series_max: usize,
    /// Bytes of a label name.
    pub label_name_bytes_max: usize,
    /// Bytes of a label value.
    pub label_value_bytes_max: usize,
    /// Series with samples in one request.
    pub series_per_request_max: usize,
    /// Samples in one request.
    pub samples_per_request_max: usize,
    /// Metadata entries kept of one request; more are ignored.
    pub metadata_per_request_max: usize,
    /// Histograms in one request.
    pub histograms_per_request_max: usize,
    /// Buckets of all histograms of one request.
    pub buckets_per_request_max: usize,
    /// Exemplars kept of one request; more are ignored.
    pub exemplars_per_request_max: usize,
    /// What is decoded beyond floats, because who takes the batch stores it. Other histograms are counted as refused,
    /// other exemplars as ignored.
    pub stores: Stores,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            labels_per_series_max: 256,
            label_name_bytes_max: 1024,
            label_value_bytes_max: 16 * 1024,
            series_per_request_max: 1_000_000,
            samples_per_request_max: 2_000_000,
            metadata_per_request_max: 50_000,
            histograms_per_request_max: 200_000,
            buckets_per_request_max: 4_000_000,
            exemplars_per_request_max: 20_000,
            stores: Stores::default(),
        }
    }
}

/// Where the label records of a series stand, in the body or in the scratch buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LabelSpan {
    start: usize,
    end: usize,
    gathered: bool,
}

/// A series that came with native histograms that are refused.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSeries {
    /// Histogram samples.
    pub histograms: u64,
    /// Why.
    pub reason: RejectReason,
    pub(super) labels: LabelSpan,
}

/// A decoded request, without its labels. Reuse one: [`decode()`] clears it and keeps its memory.
#[derive(Debug, Default)]
pub struct DecodedWrite {
    series: Vec<SeriesEntry>,
    samples: Vec<Sample>,
    histograms: Vec<HistogramSample>,
    buckets: usize,
    spans: Vec<LabelSpan>,
    exemplars: Vec<Exemplar>,
    exemplar_series: Vec<ExemplarEntry>,
    exemplar_spans: Vec<LabelSpan>,
    /// Label records that did not stand together in the body, put together.
    gathered: Vec<u8>,
    metadata: Vec<MetricMetadata>,
    metadata_ignored: u64,
    histogram_series: Vec<HistogramSeries>,
    histograms_refused: u64,
    exemplars_ignored: u64,
}

impl DecodedWrite {
    /// The series that have samples, in the order of the body.
    #[must_use]
    pub fn series(&self) -> &[SeriesEntry] {
        &self.series
    }

    /// The samples of all series.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Bytes it keeps for the next request.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        self.series.capacity() * size_of::<SeriesEntry>()
            + self.samples.capacity() * size_of::<Sample>()
            + self.histograms.capacity() * size_of::<HistogramSample>()
            + self.exemplars.capacity() * size_of::<Exemplar>()
            + self.exemplar_series.capacity() * size_of::<ExemplarEntry>()
            + (self.spans.capacity() + self.exemplar_spans.capacity()) * size_of::<LabelSpan>()
            + self.gathered.capacity()
    }

    /// Takes the metadata out.
    #[must_use]
    pub fn take_metadata(&mut self) -> Vec<MetricMetadata> {
        std::mem::take(&mut self.metadata)
    }

    /// Metadata entries that were left out: above the limit, nameless, not UTF-8.
    #[must_use]
    pub const fn metadata_ignored(&self) -> u64 {
        self.metadata_ignored
    }

    /// The histograms of all series.
    #[must_use]
    pub fn histogram_samples(&self) -> &[HistogramSample] {
        &self.histograms
    }

    /// Histogram samples that are refused: invalid ones, or all.
    #[must_use]
    pub const fn histograms(&self) -> u64 {
        self.histograms_refused
    }

    /// The first series with refused histograms, at most [`HISTOGRAM_SERIES_KEPT_MAX`].
    #[must_use]
    pub fn histogram_series(&self) -> &[HistogramSeries] {
        &self.histogram_series
    }

    /// Exemplars that are ignored: of unusable labels, above the limit, or all.
    #[must_use]
    pub const fn exemplars(&self) -> u64 {
        self.exemplars_ignored
    }

    /// The exemplars of all series.
    #[must_use]
    pub fn exemplar_samples(&self) -> &[Exemplar] {
        &self.exemplars
    }

    /// The exemplars to append; `labels` comes from [`WriteLabels::of_exemplars`].
    #[must_use]
    pub fn exemplar_batch<'a>(&'a self, labels: &'a ExemplarLabels<'a>) -> ExemplarBatch<'a> {
        ExemplarBatch { series: &self.exemplar_series, exemplars: &self.exemplars, labels }
    }

    /// Gives the labels of the series; `body` is what was decoded.
    #[must_use]
    pub const fn labels<'a>(&'a self, body: &'a [u8], limits: &'a DecodeLimits) -> WriteLabels<'a> {
        WriteLabels::new(self, body, limits)
    }

    /// The batch to append.
    #[must_use]
    pub fn batch<'a>(&'a self, labels: &'a WriteLabels<'a>) -> WriteBatch<'a> {
        WriteBatch { series: &self.series, samples: &self.samples, histograms: &self.histograms, labels }
    }

    /// The label records of the `series`-th series.
    pub(super) fn label_bytes<'a>(&'a self, body: &'a [u8], series: usize) -> &'a [u8] {
        self.spans.get(series).map_or(&[], |span| self.span_bytes(body, *span))
    }

    /// The label records of the `series`-th series with exemplars.
    pub(super) fn exemplar_label_bytes<'a>(&'a self, body: &'a [u8], series: usize) -> &'a [u8] {
        self.exemplar_spans.get(series).map_or(&[], |span| self.span_bytes(body, *span))
    }

    pub(super) fn span_bytes<'a>(&'a self, body: &'a [u8], span: LabelSpan) -> &'a [u8] {
        let source = if span.gathered { &self.gathered } else { body };
        source.get(span.start..span.end).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.series.clear();
        self.samples.clear();
        self.histograms.clear();
        self.buckets = 0;
        self.spans.clear();
        self.exemplars.clear();
        self.exemplar_series.clear();
        self.exemplar_spans.clear();
        self.gathered.clear();
        self.metadata.clear();
        self.metadata_ignored = 0;
        self.histogram_series.clear();
        self.histograms_refused = 0;
        self.exemplars_ignored = 0;
    }
}

/// Decodes `body`, a decompressed `WriteRequest`, into `into`, whose former content is dropped. Unknown fields are
/// skipped, series without samples are left out, labels are not parsed. A histogram that contradicts itself is refused,
/// and nothing else with it.
///
/// # Errors
/// When the body is not a well-formed message or holds more than `limits` allow; `into` is then of no use.
pub fn decode(
    body: &[u8],
    hasher: &KeyHasher,
    limits: &DecodeLimits,
    into: &mut DecodedWrite,
) -> Result<(), WireError> {
    into.clear();
    let mut walker = Walker { body, hasher, limits, into, layout: None };
    let mut reader = Reader::new(body);
    while !reader.is_empty() {
        let (field, wire_type) = reader.key()?;
        match field {
            1 => {
                reader.expect(field, wire_type, BYTES)?;
                walker.time_series(reader.message()?)?;
            }
            3 => {
                reader.expect(field, wire_type, BYTES)?;
                walker.metadata(reader.message()?)?;
            }
            _ => reader.skip(wire_type)?,
        }
    }
    Ok(())
}

struct Walker<'a> {
    body: &'a [u8],
    hasher: &'a KeyHasher,
    limits: &'a DecodeLimits,
    into: &'a mut DecodedWrite,
    /// Of the last histogram: the next one has mostly the same.
    layout: Option<Arc<Layout>>,
}

/// How much of everything there was before a series.
#[derive(Clone, Copy)]
struct Before {
    samples: usize,
    histograms: usize,
    exemplars: usize,
}

impl Walker<'_> {
    #[inline]
    fn time_series(&mut self, mut reader: Reader<'_>) -> Result<(), WireError> {
        let start = reader;
        let mut span = LabelSpan { start: reader.offset(), ..LabelSpan::default() };
        reader.rest = skip_labels(reader.rest);
        span.end = reader.offset();
        let first = Before {
            samples: self.into.samples.len(),
            histograms: self.into.histograms.len(),
            exemplars: self.into.exemplars.len(),
        };
        let mut refused: Option<HistogramSeries> = None;
        while !reader.is_empty() {
            if let [SAMPLE_KEY, ..] = reader.rest {
                reader.rest = reader.rest.get(1..).unwrap_or_default();
                self.sample(reader.message()?)?;
                continue;
            }
            let before = reader;
            let (field, wire_type) = reader.key()?;
            if (1..=4).contains(&field) {
                reader.expect(field, wire_type, BYTES)?;
            }
            match field {
                1 => {
                    let _ = reader.bytes()?;
                    self.gather(&mut span, &before, &reader);
                }
                2 => self.sample(reader.message()?)?,
                3 => self.exemplar(reader.message()?)?,
                4 => {
                    if let Err(reason) = self.histogram(reader.message()?)? {
                        let empty = HistogramSeries { histograms: 0, reason, labels: LabelSpan::default() };
                        refused.get_or_insert(empty).histograms += 1;
                    }
                }
                _ => reader.skip(wire_type)?,
            }
        }
        if let Some(refused) = refused {
            self.refuse_histograms(HistogramSeries { labels: span, ..refused });
        }
        self.finish_series(span, first, &start)
    }

    /// Notes a sample. The limit is looked at here: an empty sample has two bytes in the body and sixteen in memory.
    #[inline]
    fn sample(&mut self, message: Reader<'_>) -> Result<(), WireError> {
        let limit = self.limits.samples_per_request_max;
        if self.into.samples.len() >= limit {
            return Err(message.error(WireFault::TooMany { what: "samples", limit }));
        }
        self.into.samples.push(sample(message)?);
        Ok(())
    }

    /// Notes a histogram, unless it is refused.
    #[cold]
    fn histogram(&mut self, message: Reader<'_>) -> Result<Result<(), RejectReason>, WireError> {
        if !self.limits.stores.histograms {
            return Ok(Err(RejectReason::HistogramsUnsupported));
        }
        let too_many = |what, limit| Err(message.error(WireFault::TooMany { what, limit }));
        if self.into.histograms.len() >= self.limits.histograms_per_request_max {
            return too_many("histograms", self.limits.histograms_per_request_max);
        }
        match histogram(message, &mut self.layout)? {
            Ok(sample) => {
                self.into.buckets += sample.histogram.layout().len();
                if self.into.buckets > self.limits.buckets_per_request_max {
                    return too_many("histogram buckets", self.limits.buckets_per_request_max);
                }
                self.into.histograms.push(sample);
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(RejectReason::InvalidHistogram(error))),
        }
    }

    /// Notes an exemplar, unless it is ignored.
    #[cold]
    fn exemplar(&mut self, message: Reader<'_>) -> Result<(), WireError> {
        let room = self.into.exemplars.len() < self.limits.exemplars_per_request_max;
        let taken = if self.limits.stores.exemplars && room { exemplar(message)? } else { None };
        match taken {
            Some(exemplar) => self.into.exemplars.push(exemplar),
            None => self.into.exemplars_ignored += 1,
        }
        Ok(())
    }

    /// Notes a series that has samples or exemplars.
    #[inline]
    fn finish_series(&mut self, span: LabelSpan, first: Before, start: &Reader<'_>) -> Result<(), WireError> {
        let index = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let exemplars_end = self.into.exemplars.len();
        if exemplars_end > first.exemplars {
            let key = self.hasher.key(self.into.span_bytes(self.body, span));
            let exemplars = index(first.exemplars)..index(exemplars_end);
            self.into.exemplar_series.push(ExemplarEntry { key, exemplars });
            self.into.exemplar_spans.push(span);
        }
        let (samples_end, histograms_end) = (self.into.samples.len(), self.into.histograms.len());
        if samples_end == first.samples && histograms_end == first.histograms {
            return Ok(());
        }
        if self.into.series.len() >= self.limits.series_per_request_max {
            let limit = self.limits.series_per_request_max;
            return Err(start.error(WireFault::TooMany { what: "series", limit }));
        }
        let key: SeriesKey = self.hasher.key(self.into.span_bytes(self.body, span));
        self.into.series.push(SeriesEntry {
            key,
            samples: index(first.samples)..index(samples_end),
            histograms: index(first.histograms)..index(histograms_end),
            start_timestamp: 0,
        });
        self.into.spans.push(span);
        Ok(())
    }

    /// A label record behind something else: the records are put together elsewhere.
    #[cold]
    fn gather(&mut self, span: &mut LabelSpan, before: &Reader<'_>, after: &Reader<'_>) {
        let record = before.rest.get(..before.rest.len() - after.rest.len()).unwrap_or_default();
        if !span.gathered {
            let start = self.into.gathered.len();
            let first = self.body.get(span.start..span.end).unwrap_or_default();
            self.into.gathered.extend_from_slice(first);
            *span = LabelSpan { start, end: 0, gathered: true };
        }
        self.into.gathered.extend_from_slice(record);
        span.end = self.into.gathered.len();
    }

    fn refuse_histograms(&mut self, series: HistogramSeries) {
        self.into.histograms_refused += series.histograms;
        if self.into.histogram_series.len() < HISTOGRAM_SERIES_KEPT_MAX {
            self.into.histogram_series.push(series);
        }
    }

    fn metadata(&mut self, mut reader: Reader<'_>) -> Result<(), WireError> {
        let (mut kind, mut metric, mut help, mut unit) = (0, &[][..], &[][..], &[][..]);
        while !reader.is_empty() {
            let (field, wire_type) = reader.key()?;
            let wanted = if field == 1 { VARINT } else { BYTES };
            match field {
                1 | 2 | 4 | 5 => reader.expect(field, wire_type, wanted)?,
                _ => {
                    reader.skip(wire_type)?;
                    continue;
                }
            }
            match field {
                1 => kind = reader.varint()?,
                2 => metric = reader.bytes()?,
                4 => help = reader.bytes()?,
                _ => unit = reader.bytes()?,
            }
        }
        let text = |bytes: &[u8]| {
            let fits = bytes.len() <= self.limits.label_value_bytes_max;
            if fits { str::from_utf8(bytes).ok().map(str::to_owned) } else { None }
        };
        match (text(metric), text(help), text(unit)) {
            (Some(metric), Some(help), Some(unit))
                if !metric.is_empty() && self.into.metadata.len() < self.limits.metadata_per_request_max =>
            {
                self.into.metadata.push(MetricMetadata { metric, kind: metric_type(kind), unit, help });
            }
            _ => self.into.metadata_ignored += 1,
        }
        Ok(())
    }
}

/// What is behind the label records at the start of a series. Only records of the usual form are stepped over, the
/// rest is the business of the general path; so this cannot fail.
#[inline]
fn skip_labels(mut rest: &[u8]) -> &[u8] {
    loop {
        match rest {
            [LABEL_KEY, length, tail @ ..] if *length < 0x80 => {
                match tail.split_at_checked(usize::from(*length)) {
                    Some((_, behind)) => rest = behind,
                    None => return rest,
                }
            }
            [LABEL_KEY, low, high, tail @ ..] if *high < 0x80 => {
                let length = usize::from(*low & 0x7f) | usize::from(*high) << 7;
                match tail.split_at_checked(length) {
                    Some((_, behind)) => rest = behind,
                    None => return rest,
                }
            }
            _ => return rest,
        }
    }
}

/// A `Sample` message. Fields that are left out are 0, the last of a repeated one counts.
#[inline]
fn sample(mut reader: Reader<'_>) -> Result<Sample, WireError> {
    // What every sender writes: value, then timestamp, nothing else.
    if let [0x09, a, b, c, d, e, f, g, h, 0x10, tail @ ..] = reader.rest {
        let value = f64::from_bits(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]));
        if let Some(timestamp) = whole_varint(tail) {
            return Ok(Sample { timestamp: timestamp.cast_signed(), value });
        }
    }
    let mut sample = Sample { timestamp: 0, value: 0.0 };
    while !reader.is_empty() {
        let (field, wire_type) = reader.key()?;
        match field {
            1 => {
                reader.expect(field, wire_type, FIXED64)?;
                sample.value = f64::from_bits(reader.fixed64()?);
            }
            2 => {
                reader.expect(field, wire_type, VARINT)?;
                sample.timestamp = reader.varint()?.cast_signed();
            }
            _ => reader.skip(wire_type)?,
        }
    }
    Ok(sample)
}

/// `bytes` as one varint of at most nine bytes and nothing behind it.
#[inline]
fn whole_varint(bytes: &[u8]) -> Option<u64> {
    let (last, head) = bytes.split_last()?;
    if *last >= 0x80 || head.len() > 8 {
        return None;
    }
    let mut value = u64::from(*last);
    for byte in head.iter().rev() {
        if *byte < 0x80 {
            return None;
        }
        value = value << 7 | u64::from(byte & 0x7f);
    }
    Some(value)
}

const fn metric_type(code: u64) -> MetricType {
    match code {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::StateSet,
        _ => MetricType::Unknown,
    }
}
