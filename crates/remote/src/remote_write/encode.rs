//! Requests, as a sender makes them.

use chronolith_model::{
    CounterResetHint, Exemplar, Histogram, HistogramSample, MetricMetadata, MetricType, Sample,
    histogram::{Count, NativeHistogram, Span},
};

use crate::{
    snappy,
    wire::{FIXED64, VARINT, put_bytes, put_varint, varint_len},
};

/// Builds one `WriteRequest`. Reuse it: [`WriteRequestBuilder::clear`] keeps the memory.
#[derive(Clone, Debug, Default)]
pub struct WriteRequestBuilder {
    body: Vec<u8>,
    series: Vec<u8>,
}

/// The label records of a series, in the order given; what [`WriteRequestBuilder::encoded_series`] takes.
pub fn encode_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut record = Vec::new();
    for (name, value) in labels {
        record.clear();
        put_bytes(&mut record, 1, name.as_bytes());
        put_bytes(&mut record, 2, value.as_bytes());
        put_bytes(&mut out, 1, &record);
    }
    out
}

impl WriteRequestBuilder {
    /// An empty request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a series. Labels are written in the order given, valid or not.
    pub fn series<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        samples: &[Sample],
    ) -> &mut Self {
        let labels = encode_labels(labels);
        self.encoded_series(&labels, samples)
    }

    /// Adds a series whose labels are encoded already.
    pub fn encoded_series(&mut self, labels: &[u8], samples: &[Sample]) -> &mut Self {
        self.series.clear();
        self.series.extend_from_slice(labels);
        for sample in samples {
            let timestamp = sample.timestamp.cast_unsigned();
            self.series.push(0x12);
            put_varint(&mut self.series, 10 + varint_len(timestamp) as u64);
            self.series.push(0x09);
            self.series.extend_from_slice(&sample.value.to_bits().to_le_bytes());
            self.series.push(0x10);
            put_varint(&mut self.series, timestamp);
        }
        put_bytes(&mut self.body, 1, &self.series);
        self
    }

    /// Adds a series of histograms and exemplars, with its labels encoded already.
    pub fn histograms(
        &mut self,
        labels: &[u8],
        histograms: &[HistogramSample],
        exemplars: &[Exemplar],
    ) -> &mut Self {
        self.series.clear();
        self.series.extend_from_slice(labels);
        for exemplar in exemplars {
            let mut message = encode_labels(exemplar.labels.iter());
            put_double(&mut message, 2, exemplar.value);
            put_key(&mut message, 3, VARINT, exemplar.timestamp.cast_unsigned());
            put_bytes(&mut self.series, 3, &message);
        }
        for sample in histograms {
            put_bytes(&mut self.series, 4, &encode_histogram(sample));
        }
        put_bytes(&mut self.body, 1, &self.series);
        self
    }

    /// Adds metadata of a metric family.
    pub fn metadata(&mut self, metadata: &MetricMetadata) -> &mut Self {
        self.series.clear();
        let kind = match metadata.kind {
            MetricType::Unknown => 0,
            MetricType::Counter => 1,
            MetricType::Gauge => 2,
            MetricType::Histogram => 3,
            MetricType::GaugeHistogram => 4,
            MetricType::Summary => 5,
            MetricType::Info => 6,
            MetricType::StateSet => 7,
        };
        if kind != 0 {
            self.series.extend_from_slice(&[0x08, kind]);
        }
        for (field, text) in [(2, &metadata.metric), (4, &metadata.help), (5, &metadata.unit)] {
            if !text.is_empty() {
                put_bytes(&mut self.series, field, text.as_bytes());
            }
        }
        put_bytes(&mut self.body, 3, &self.series);
        self
    }

    /// The message so far.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.body
    }

    /// The message so far as a snappy block: the body of a request.
    ///
    /// # Panics
    /// Above 4 GiB, which no receiver takes.
    #[must_use]
    pub fn snappy(&self) -> Vec<u8> {
        snappy::compress(&self.body).expect("a request is shorter than 4 GiB")
    }

    /// Starts over.
    pub fn clear(&mut self) {
        self.body.clear();
    }
}

/// A `Histogram` message.
fn encode_histogram(sample: &HistogramSample) -> Vec<u8> {
    let mut out = Vec::new();
    match &sample.histogram {
        Histogram::Integer(h) => {
            put_key(&mut out, 1, VARINT, h.count());
            put_key(&mut out, 6, VARINT, h.zero_count());
            put_layout(&mut out, h);
            put_deltas(&mut out, 9, h.negative_buckets());
            put_deltas(&mut out, 12, h.positive_buckets());
        }
        Histogram::Float(h) => {
            put_double(&mut out, 2, h.count());
            put_double(&mut out, 7, h.zero_count());
            put_layout(&mut out, h);
            put_doubles(&mut out, 10, h.negative_buckets());
            put_doubles(&mut out, 13, h.positive_buckets());
        }
    }
    put_key(&mut out, 15, VARINT, sample.timestamp.cast_unsigned());
    out
}

/// What histograms of both kinds have.
fn put_layout<C: Count>(out: &mut Vec<u8>, histogram: &NativeHistogram<C>) {
    let layout = histogram.layout();
    put_double(out, 3, histogram.sum());
    put_key(out, 4, VARINT, zigzag(i64::from(layout.schema())));
    put_double(out, 5, layout.zero_threshold());
    put_spans(out, 8, layout.negative_spans());
    put_spans(out, 11, layout.positive_spans());
    let hint = match histogram.hint() {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    };
    put_key(out, 14, VARINT, hint);
    put_doubles(out, 16, layout.custom_values());
}

fn put_key(out: &mut Vec<u8>, field: u32, wire_type: u8, value: u64) {
    put_varint(out, u64::from(field << 3 | u32::from(wire_type)));
    put_varint(out, value);
}

fn put_double(out: &mut Vec<u8>, field: u32, value: f64) {
    put_varint(out, u64::from(field << 3 | u32::from(FIXED64)));
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn put_doubles(out: &mut Vec<u8>, field: u32, values: &[f64]) {
    if !values.is_empty() {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
        put_bytes(out, field, &packed);
    }
}

fn put_deltas(out: &mut Vec<u8>, field: u32, counts: &[u64]) {
    let (mut packed, mut before) = (Vec::new(), 0);
    for count in counts {
        put_varint(&mut packed, zigzag(count.wrapping_sub(before).cast_signed()));
        before = *count;
    }
    if !packed.is_empty() {
        put_bytes(out, field, &packed);
    }
}

fn put_spans(out: &mut Vec<u8>, field: u32, spans: &[Span]) {
    for span in spans {
        let mut message = Vec::new();
        put_key(&mut message, 1, VARINT, zigzag(i64::from(span.offset)));
        put_key(&mut message, 2, VARINT, u64::from(span.length));
        put_bytes(out, field, &message);
    }
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}
