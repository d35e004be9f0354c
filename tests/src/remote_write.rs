//! The sender's side of remote write 1.0: protobuf messages, snappy blocks, the headers.

use std::collections::BTreeMap;

/// The headers every remote-write 1.0 request carries.
pub const HEADERS: &[(&str, &str)] = &[
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ("User-Agent", "chronolith-e2e"),
];

/// The bit pattern of the stale marker.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// A label set, names sorted.
pub type LabelMap = BTreeMap<String, String>;

/// The stale marker as a float.
#[must_use]
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// A label set from pairs.
#[must_use]
pub fn labels(pairs: &[(&str, &str)]) -> LabelMap {
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

/// Appends `value` as a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_bytes(out: &mut Vec<u8>, key: u8, bytes: &[u8]) {
    out.push(key);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The label fields of a `TimeSeries` message, in the order given.
#[must_use]
pub fn encode_labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut label = Vec::new();
    for (name, value) in pairs {
        label.clear();
        put_bytes(&mut label, 0x0a, name.as_bytes());
        put_bytes(&mut label, 0x12, value.as_bytes());
        put_bytes(&mut out, 0x0a, &label);
    }
    out
}

/// A native histogram, as a sender sees it. Bucket counts are absolute, by ascending index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramSample {
    /// Counts are floats, and it is a gauge: else whole numbers, of a counter.
    pub gauge: bool,
    /// -4 to 8, or -53 for custom buckets.
    pub schema: i32,
    /// Half width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// Sum of the observations.
    pub sum: f64,
    /// Positive (or custom) buckets: index and observations.
    pub positive: Vec<(i32, f64)>,
    /// Negative buckets.
    pub negative: Vec<(i32, f64)>,
    /// Upper bounds of custom buckets.
    pub bounds: Vec<f64>,
}

impl HistogramSample {
    /// Observations in all buckets.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.zero_count + self.positive.iter().chain(&self.negative).map(|(_, n)| n).sum::<f64>()
    }

    /// The `Histogram` message.
    fn encode(&self, timestamp: i64) -> Vec<u8> {
        let mut out = Vec::new();
        let put_count = |out: &mut Vec<u8>, whole: u8, float: u8, count: f64| {
            if self.gauge {
                put_double(out, float, count);
            } else {
                out.push(whole);
                put_varint(out, count as u64);
            }
        };
        put_count(&mut out, 0x08, 0x11, self.count());
        put_double(&mut out, 0x19, self.sum);
        out.push(0x20);
        put_varint(&mut out, zigzag(self.schema.into()));
        put_double(&mut out, 0x29, self.zero_threshold);
        put_count(&mut out, 0x30, 0x39, self.zero_count);
        // Field numbers: spans, deltas, counts.
        for (buckets, [spans, deltas, counts]) in
            [(&self.negative, [0x42, 0x4a, 0x52]), (&self.positive, [0x5a, 0x62, 0x6a])]
        {
            for span in encode_spans(buckets) {
                put_bytes(&mut out, spans, &span);
            }
            let mut packed = Vec::new();
            let mut before = 0;
            for (_, count) in buckets {
                if self.gauge {
                    packed.extend_from_slice(&count.to_le_bytes());
                } else {
                    put_varint(&mut packed, zigzag(*count as i64 - before));
                    before = *count as i64;
                }
            }
            put_bytes(&mut out, if self.gauge { counts } else { deltas }, &packed);
        }
        if self.gauge {
            out.extend([0x70, 3]);
        }
        out.push(0x78);
        put_varint(&mut out, timestamp as u64);
        if !self.bounds.is_empty() {
            let packed: Vec<u8> = self.bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
            out.push(0x82);
            put_bytes(&mut out, 0x01, &packed);
        }
        out
    }
}

/// The `BucketSpan` messages of buckets with ascending indices.
fn encode_spans(buckets: &[(i32, f64)]) -> Vec<Vec<u8>> {
    let mut next = 0;
    let mut spans: Vec<(i32, u64)> = Vec::new();
    for (index, _) in buckets {
        match spans.last_mut() {
            Some((_, length)) if *index == next => *length += 1,
            _ => spans.push((index - next, 1)),
        }
        next = index + 1;
    }
    let encode = |(offset, length): &(i32, u64)| {
        let mut span = vec![0x08];
        put_varint(&mut span, zigzag((*offset).into()));
        span.push(0x10);
        put_varint(&mut span, *length);
        span
    };
    spans.iter().map(encode).collect()
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn put_double(out: &mut Vec<u8>, key: u8, value: f64) {
    out.push(key);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A `WriteRequest` under construction.
#[derive(Debug, Default)]
pub struct WriteRequest {
    message: Vec<u8>,
    samples: usize,
}

impl WriteRequest {
    /// An empty request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many samples it holds.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.samples
    }

    /// Adds a series with labels encoded by [`encode_labels`] and one sample.
    pub fn push_sample(&mut self, encoded_labels: &[u8], timestamp: i64, value: f64) {
        let sample_len = 9 + 1 + varint_len(timestamp as u64);
        let series_len = encoded_labels.len() + 2 + sample_len;
        let out = &mut self.message;
        out.push(0x0a);
        put_varint(out, series_len as u64);
        out.extend_from_slice(encoded_labels);
        out.push(0x12);
        put_varint(out, sample_len as u64);
        out.push(0x09);
        out.extend_from_slice(&value.to_le_bytes());
        out.push(0x10);
        put_varint(out, timestamp as u64);
        self.samples += 1;
    }

    /// As [`Self::push_sample`], with a native histogram.
    pub fn push_histogram(&mut self, encoded_labels: &[u8], timestamp: i64, histogram: &HistogramSample) {
        let mut series = encoded_labels.to_vec();
        put_bytes(&mut series, 0x22, &histogram.encode(timestamp));
        put_bytes(&mut self.message, 0x0a, &series);
        self.samples += 1;
    }

    /// The message before compression.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The request body; leaves the request empty.
    pub fn take_body(&mut self) -> Vec<u8> {
        let body = compress(&self.message);
        self.message.clear();
        self.samples = 0;
        body
    }
}

/// `raw` as a snappy block.
#[must_use]
pub fn compress(raw: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(raw).expect("a message shorter than 4 GiB compresses")
}
