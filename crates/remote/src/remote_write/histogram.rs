//! One `Histogram` message.
//!
//! ```text
//! Histogram { oneof { uint64 count_int = 1; double count_float = 2; } double sum = 3; sint32 schema = 4;
//!             double zero_threshold = 5; oneof { uint64 zero_count_int = 6; double zero_count_float = 7; }
//!             repeated BucketSpan negative_spans = 8; repeated sint64 negative_deltas = 9;
//!             repeated double negative_counts = 10; repeated BucketSpan positive_spans = 11;
//!             repeated sint64 positive_deltas = 12; repeated double positive_counts = 13;
//!             enum reset_hint = 14; int64 timestamp = 15; repeated double custom_values = 16; }
//! BucketSpan { sint32 offset = 1; uint32 length = 2; }
//! ```

use std::sync::Arc;

use chronolith_model::{
    CounterResetHint, Histogram, HistogramError, HistogramSample,
    histogram::{BUCKETS_MAX, HistogramParts, Layout, Side, Span, absolute_counts},
};

use crate::wire::{BYTES, FIXED64, Reader, VARINT, WireError};

/// A histogram as it stands in the message. Lists end where there are too many.
#[derive(Debug, Default)]
struct Raw {
    /// Floats, because `count_float` was there.
    float: bool,
    parts: HistogramParts<f64>,
    count: u64,
    zero_count: u64,
    positive_deltas: Vec<i64>,
    negative_deltas: Vec<i64>,
    timestamp: i64,
    too_many: bool,
}

/// Reads a histogram; the inner error is what is wrong with it, though the message is well-formed. `known` is the layout
/// of the last one, and is replaced by this one's.
pub(super) fn histogram(
    mut reader: Reader<'_>,
    known: &mut Option<Arc<Layout>>,
) -> Result<Result<HistogramSample, HistogramError>, WireError> {
    let mut raw = Raw::default();
    while !reader.is_empty() {
        let (field, wire_type) = reader.key()?;
        raw.field(field, wire_type, &mut reader)?;
    }
    let timestamp = raw.timestamp;
    Ok(raw.build(known.as_ref()).map(|histogram| {
        if !histogram.is_stale() {
            *known = Some(Arc::clone(histogram.layout()));
        }
        HistogramSample { timestamp, histogram }
    }))
}

impl Raw {
    fn field(&mut self, field: u32, wire_type: u8, reader: &mut Reader<'_>) -> Result<(), WireError> {
        let scalar = match field {
            1 | 4 | 6 | 14 | 15 => VARINT,
            2 | 3 | 5 | 7 => FIXED64,
            8 | 11 => BYTES,
            9 | 12 => return self.deltas(field, wire_type, reader),
            10 | 13 | 16 => return self.floats(field, wire_type, reader),
            _ => return reader.skip(wire_type),
        };
        reader.expect(field, wire_type, scalar)?;
        let parts = &mut self.parts;
        match field {
            1 => self.count = reader.varint()?,
            2 => {
                parts.count = f64::from_bits(reader.fixed64()?);
                self.float = true;
            }
            3 => parts.sum = f64::from_bits(reader.fixed64()?),
            4 => parts.schema = unzigzag(reader.varint()?) as i32,
            5 => parts.zero_threshold = f64::from_bits(reader.fixed64()?),
            6 => self.zero_count = reader.varint()?,
            7 => parts.zero_count = f64::from_bits(reader.fixed64()?),
            8 | 11 => {
                let span = span(reader.message()?)?;
                let spans = if field == 8 { &mut parts.negative_spans } else { &mut parts.positive_spans };
                self.too_many |= !push(spans, span);
            }
            14 => parts.hint = hint(reader.varint()?),
            _ => self.timestamp = reader.varint()?.cast_signed(),
        }
        Ok(())
    }

    /// Packed or one by one.
    fn deltas(&mut self, field: u32, wire_type: u8, reader: &mut Reader<'_>) -> Result<(), WireError> {
        let deltas = if field == 9 { &mut self.negative_deltas } else { &mut self.positive_deltas };
        if wire_type == VARINT {
            self.too_many |= !push(deltas, unzigzag(reader.varint()?));
            return Ok(());
        }
        reader.expect(field, wire_type, BYTES)?;
        let mut packed = reader.message()?;
        while !packed.is_empty() {
            self.too_many |= !push(deltas, unzigzag(packed.varint()?));
        }
        Ok(())
    }

    /// Packed or one by one.
    fn floats(&mut self, field: u32, wire_type: u8, reader: &mut Reader<'_>) -> Result<(), WireError> {
        let floats = match field {
            10 => &mut self.parts.negative_buckets,
            13 => &mut self.parts.positive_buckets,
            _ => &mut self.parts.custom_values,
        };
        if wire_type == FIXED64 {
            self.too_many |= !push(floats, f64::from_bits(reader.fixed64()?));
            return Ok(());
        }
        reader.expect(field, wire_type, BYTES)?;
        let mut packed = reader.message()?;
        while !packed.is_empty() {
            self.too_many |= !push(floats, f64::from_bits(packed.fixed64()?));
        }
        Ok(())
    }

    fn build(self, known: Option<&Arc<Layout>>) -> Result<Histogram, HistogramError> {
        if self.too_many {
            return Err(HistogramError::TooManyBuckets(BUCKETS_MAX as u64 + 1));
        }
        if self.float {
            return Ok(Histogram::Float(self.parts.build(known)?));
        }
        let parts = HistogramParts {
            hint: self.parts.hint,
            schema: self.parts.schema,
            zero_threshold: self.parts.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.parts.sum,
            positive_spans: self.parts.positive_spans,
            negative_spans: self.parts.negative_spans,
            positive_buckets: absolute_counts(self.positive_deltas, Side::Positive)?,
            negative_buckets: absolute_counts(self.negative_deltas, Side::Negative)?,
            custom_values: self.parts.custom_values,
        };
        Ok(Histogram::Integer(parts.build(known)?))
    }
}

/// Adds to a list that is not full.
fn push<T>(list: &mut Vec<T>, value: T) -> bool {
    let room = list.len() < BUCKETS_MAX;
    if room {
        list.push(value);
    }
    room
}

fn span(mut reader: Reader<'_>) -> Result<Span, WireError> {
    let mut span = Span { offset: 0, length: 0 };
    while !reader.is_empty() {
        let (field, wire_type) = reader.key()?;
        if field > 2 {
            reader.skip(wire_type)?;
            continue;
        }
        reader.expect(field, wire_type, VARINT)?;
        let value = reader.varint()?;
        if field == 1 {
            span.offset = unzigzag(value) as i32;
        } else {
            span.length = value as u32;
        }
    }
    Ok(span)
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

const fn hint(code: u64) -> CounterResetHint {
    match code {
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}
