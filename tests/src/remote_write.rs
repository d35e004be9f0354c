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
