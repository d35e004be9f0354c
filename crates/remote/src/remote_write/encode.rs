//! Requests, as a sender makes them.

use chronolith_model::{MetricMetadata, MetricType, Sample};

use crate::{
    snappy,
    wire::{put_bytes, put_varint, varint_len},
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
