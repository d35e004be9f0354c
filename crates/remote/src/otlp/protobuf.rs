//! The protobuf form of a request.
//!
//! A message of two bytes may need hundreds in memory, so everything that is made is charged to a budget first.

use super::message::{
    AnyValue, ArrayValue, Buckets, ExponentialHistograms, ExponentialPoint, HistogramPoint, Histograms,
    KeyValue, KeyValueList, Metric, NumberPoint, Numbers, PointExemplar, Quantile, Request, Resource,
    ResourceMetrics, Scope, ScopeMetrics, Summaries, SummaryPoint, VALUE_DEPTH_MAX,
};
use crate::wire::{BYTES, FIXED64, Reader, VARINT, WireError, WireFault};

/// Reads a request that needs at most `bytes_max` bytes of memory.
///
/// # Errors
/// When it is not well-formed, or needs more.
pub(super) fn decode(body: &[u8], bytes_max: usize) -> Result<Request, WireError> {
    let mut decoder = Decoder { left: bytes_max, bytes_max };
    let mut request = Request::default();
    decoder.fields(Reader::new(body), |decoder, field, reader| {
        match field {
            1 => {
                let value = decoder.resource_metrics(reader.message()?)?;
                decoder.push(reader, &mut request.resource_metrics, value)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(request)
}

struct Decoder {
    /// Bytes that may still be used.
    left: usize,
    bytes_max: usize,
}

/// The wire type of each known field is checked by reading it: a field is known as one type.
type Known = Result<bool, WireError>;

impl Decoder {
    /// Hands each field of a message to `read`, which says whether it knows it; what it does not is skipped.
    fn fields<'a>(
        &mut self,
        mut reader: Reader<'a>,
        mut read: impl FnMut(&mut Self, u32, &mut Typed<'a>) -> Known,
    ) -> Result<(), WireError> {
        while !reader.is_empty() {
            let (field, wire_type) = reader.key()?;
            let mut typed = Typed { reader, field, wire_type };
            if read(self, field, &mut typed)? {
                reader = typed.reader;
            } else {
                reader.skip(wire_type)?;
            }
        }
        Ok(())
    }

    fn charge(&mut self, reader: &Typed<'_>, bytes: usize) -> Result<(), WireError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                let fault = WireFault::TooMany { what: "bytes of data points", limit: self.bytes_max };
                Err(reader.reader.error(fault))
            }
        }
    }

    fn push<T>(&mut self, reader: &Typed<'_>, list: &mut Vec<T>, value: T) -> Result<(), WireError> {
        // A vector that grows has room for as many again.
        self.charge(reader, 2 * size_of::<T>())?;
        list.push(value);
        Ok(())
    }

    fn text(&mut self, reader: &mut Typed<'_>) -> Result<String, WireError> {
        let bytes = reader.bytes()?;
        self.charge(reader, bytes.len())?;
        // Go's decoder refuses what is no UTF-8; a name that is shown damaged helps more than a lost request.
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn resource_metrics(&mut self, reader: Reader<'_>) -> Result<ResourceMetrics, WireError> {
        let mut value = ResourceMetrics::default();
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => value.resource = decoder.resource(reader.message()?)?,
                2 => {
                    let scope = decoder.scope_metrics(reader.message()?)?;
                    decoder.push(reader, &mut value.scope_metrics, scope)?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn resource(&mut self, reader: Reader<'_>) -> Result<Resource, WireError> {
        let mut value = Resource::default();
        self.fields(reader, |decoder, field, reader| match field {
            1 => decoder.attribute(reader, &mut value.attributes),
            _ => Ok(false),
        })?;
        Ok(value)
    }

    fn scope_metrics(&mut self, reader: Reader<'_>) -> Result<ScopeMetrics, WireError> {
        let mut value = ScopeMetrics::default();
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => value.scope = decoder.scope(reader.message()?)?,
                2 => {
                    let metric = decoder.metric(reader.message()?)?;
                    decoder.push(reader, &mut value.metrics, metric)?;
                }
                3 => value.schema_url = decoder.text(reader)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn scope(&mut self, reader: Reader<'_>) -> Result<Scope, WireError> {
        let mut value = Scope::default();
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => value.name = decoder.text(reader)?,
                2 => value.version = decoder.text(reader)?,
                3 => return decoder.attribute(reader, &mut value.attributes),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn metric(&mut self, reader: Reader<'_>) -> Result<Metric, WireError> {
        let mut value = Metric::default();
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => value.name = decoder.text(reader)?,
                2 => value.description = decoder.text(reader)?,
                3 => value.unit = decoder.text(reader)?,
                5 => decoder.numbers(reader.message()?, value.gauge.get_or_insert_default())?,
                7 => decoder.numbers(reader.message()?, value.sum.get_or_insert_default())?,
                9 => decoder.histograms(reader.message()?, value.histogram.get_or_insert_default())?,
                10 => {
                    let into = value.exponential_histogram.get_or_insert_default();
                    decoder.exponential_histograms(reader.message()?, into)?;
                }
                11 => decoder.summaries(reader.message()?, value.summary.get_or_insert_default())?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn numbers(&mut self, reader: Reader<'_>, value: &mut Numbers) -> Result<(), WireError> {
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => {
                    let point = decoder.number_point(reader.message()?)?;
                    decoder.push(reader, &mut value.data_points, point)?;
                }
                2 => value.aggregation_temporality = reader.int32()?,
                3 => value.is_monotonic = reader.varint()? != 0,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    fn histograms(&mut self, reader: Reader<'_>, value: &mut Histograms) -> Result<(), WireError> {
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => {
                    let point = decoder.histogram_point(reader.message()?)?;
                    decoder.push(reader, &mut value.data_points, point)?;
                }
                2 => value.aggregation_temporality = reader.int32()?,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    fn exponential_histograms(
        &mut self,
        reader: Reader<'_>,
        value: &mut ExponentialHistograms,
    ) -> Result<(), WireError> {
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => {
                    let point = decoder.exponential_point(reader.message()?)?;
                    decoder.push(reader, &mut value.data_points, point)?;
                }
                2 => value.aggregation_temporality = reader.int32()?,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    fn summaries(&mut self, reader: Reader<'_>, value: &mut Summaries) -> Result<(), WireError> {
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => {
                    let point = decoder.summary_point(reader.message()?)?;
                    decoder.push(reader, &mut value.data_points, point)?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    fn number_point(&mut self, reader: Reader<'_>) -> Result<NumberPoint, WireError> {
        let mut value = NumberPoint::default();
        self.fields(reader, |decoder, field, reader| {
            match field {
                2 => value.start_time_unix_nano = reader.fixed64()?,
                3 => value.time_unix_nano = reader.fixed64()?,
                4 => value.as_double = Some(f64::from_bits(reader.fixed64()?)),
                5 => return decoder.exemplar(reader, &mut value.exemplars),
                6 => value.as_int = Some(reader.fixed64()?.cast_signed()),
                7 => return decoder.attribute(reader, &mut value.attributes),
                8 => value.flags = reader.varint()? as u32,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn histogram_point(&mut self, reader: Reader<'_>) -> Result<HistogramPoint, WireError> {
        let mut value = HistogramPoint::default();
        self.fields(reader, |decoder, field, reader| {
            match field {
                2 => value.start_time_unix_nano = reader.fixed64()?,
                3 => value.time_unix_nano = reader.fixed64()?,
                4 => value.count = reader.fixed64()?,
                5 => value.sum = Some(f64::from_bits(reader.fixed64()?)),
                6 => decoder.fixed64s(reader, &mut value.bucket_counts, |bits| bits)?,
                7 => decoder.fixed64s(reader, &mut value.explicit_bounds, f64::from_bits)?,
                8 => return decoder.exemplar(reader, &mut value.exemplars),
                9 => return decoder.attribute(reader, &mut value.attributes),
                10 => value.flags = reader.varint()? as u32,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn exponential_point(&mut self, reader: Reader<'_>) -> Result<ExponentialPoint, WireError> {
        let mut value = ExponentialPoint::default();
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => return decoder.attribute(reader, &mut value.attributes),
                2 => value.start_time_unix_nano = reader.fixed64()?,
                3 => value.time_unix_nano = reader.fixed64()?,
                4 => value.count = reader.fixed64()?,
                5 => value.sum = Some(f64::from_bits(reader.fixed64()?)),
                6 => value.scale = reader.sint32()?,
                7 => value.zero_count = reader.fixed64()?,
                8 => decoder.buckets(reader.message()?, &mut value.positive)?,
                9 => decoder.buckets(reader.message()?, &mut value.negative)?,
                10 => value.flags = reader.varint()? as u32,
                11 => return decoder.exemplar(reader, &mut value.exemplars),
                14 => value.zero_threshold = f64::from_bits(reader.fixed64()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn buckets(&mut self, reader: Reader<'_>, value: &mut Buckets) -> Result<(), WireError> {
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => value.offset = reader.sint32()?,
                2 if reader.wire_type == BYTES => {
                    let mut packed = reader.message()?;
                    while !packed.is_empty() {
                        let count = packed.varint()?;
                        decoder.push(reader, &mut value.bucket_counts, count)?;
                    }
                }
                2 => {
                    let count = reader.varint()?;
                    decoder.push(reader, &mut value.bucket_counts, count)?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    fn summary_point(&mut self, reader: Reader<'_>) -> Result<SummaryPoint, WireError> {
        let mut value = SummaryPoint::default();
        self.fields(reader, |decoder, field, reader| {
            match field {
                2 => value.start_time_unix_nano = reader.fixed64()?,
                3 => value.time_unix_nano = reader.fixed64()?,
                4 => value.count = reader.fixed64()?,
                5 => value.sum = f64::from_bits(reader.fixed64()?),
                6 => {
                    let quantile = decoder.quantile(reader.message()?)?;
                    decoder.push(reader, &mut value.quantile_values, quantile)?;
                }
                7 => return decoder.attribute(reader, &mut value.attributes),
                8 => value.flags = reader.varint()? as u32,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn quantile(&mut self, reader: Reader<'_>) -> Result<Quantile, WireError> {
        let mut value = Quantile::default();
        self.fields(reader, |_, field, reader| {
            match field {
                1 => value.quantile = f64::from_bits(reader.fixed64()?),
                2 => value.value = f64::from_bits(reader.fixed64()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn exemplar(&mut self, reader: &mut Typed<'_>, list: &mut Vec<PointExemplar>) -> Known {
        let mut value = PointExemplar::default();
        self.fields(reader.message()?, |decoder, field, reader| {
            match field {
                2 => value.time_unix_nano = reader.fixed64()?,
                3 => value.as_double = Some(f64::from_bits(reader.fixed64()?)),
                4 => value.span_id = decoder.hexadecimal(reader)?,
                5 => value.trace_id = decoder.hexadecimal(reader)?,
                6 => value.as_int = Some(reader.fixed64()?.cast_signed()),
                7 => return decoder.attribute(reader, &mut value.filtered_attributes),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        self.push(reader, list, value)?;
        Ok(true)
    }

    fn hexadecimal(&mut self, reader: &mut Typed<'_>) -> Result<String, WireError> {
        let bytes = reader.bytes()?;
        self.charge(reader, 2 * bytes.len())?;
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        Ok(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
    }

    /// Packed, or one by one.
    fn fixed64s<T>(
        &mut self,
        reader: &mut Typed<'_>,
        list: &mut Vec<T>,
        value: fn(u64) -> T,
    ) -> Result<(), WireError> {
        if reader.wire_type != BYTES {
            let one = value(reader.fixed64()?);
            return self.push(reader, list, one);
        }
        let mut packed = reader.message()?;
        self.charge(reader, packed.rest.len())?;
        list.reserve_exact(packed.rest.len() / 8);
        while !packed.is_empty() {
            list.push(value(packed.fixed64()?));
        }
        Ok(())
    }

    fn attribute(&mut self, reader: &mut Typed<'_>, list: &mut Vec<KeyValue>) -> Known {
        let value = self.key_value(reader.message()?, 0)?;
        self.push(reader, list, value)?;
        Ok(true)
    }

    fn key_value(&mut self, reader: Reader<'_>, depth: usize) -> Result<KeyValue, WireError> {
        let mut value = KeyValue::default();
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => value.key = decoder.text(reader)?,
                2 => value.value = decoder.any_value(reader.message()?, depth)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn any_value(&mut self, reader: Reader<'_>, depth: usize) -> Result<AnyValue, WireError> {
        if depth >= VALUE_DEPTH_MAX {
            let fault = WireFault::TooMany { what: "levels of an attribute's value", limit: VALUE_DEPTH_MAX };
            return Err(reader.error(fault));
        }
        let mut value = AnyValue::default();
        self.fields(reader, |decoder, field, reader| {
            match field {
                1 => value.string_value = Some(decoder.text(reader)?),
                2 => value.bool_value = Some(reader.varint()? != 0),
                3 => value.int_value = Some(reader.varint()?.cast_signed()),
                4 => value.double_value = Some(f64::from_bits(reader.fixed64()?)),
                5 => {
                    let array = value.array_value.get_or_insert_default();
                    decoder.array(reader.message()?, depth + 1, array)?;
                }
                6 => {
                    let list = value.kvlist_value.get_or_insert_default();
                    decoder.list(reader.message()?, depth + 1, list)?;
                }
                7 => {
                    let bytes = reader.bytes()?;
                    decoder.charge(reader, 2 * bytes.len())?;
                    value.bytes_value = Some(base64(bytes));
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(value)
    }

    fn array(&mut self, reader: Reader<'_>, depth: usize, into: &mut ArrayValue) -> Result<(), WireError> {
        self.fields(reader, |decoder, field, reader| {
            if field != 1 {
                return Ok(false);
            }
            let value = decoder.any_value(reader.message()?, depth)?;
            decoder.push(reader, &mut into.values, value)?;
            Ok(true)
        })
    }

    fn list(&mut self, reader: Reader<'_>, depth: usize, into: &mut KeyValueList) -> Result<(), WireError> {
        self.fields(reader, |decoder, field, reader| {
            if field != 1 {
                return Ok(false);
            }
            let value = decoder.key_value(reader.message()?, depth)?;
            decoder.push(reader, &mut into.values, value)?;
            Ok(true)
        })
    }
}

/// A reader behind a key, that checks the wire type of what it reads.
struct Typed<'a> {
    reader: Reader<'a>,
    field: u32,
    wire_type: u8,
}

impl<'a> Typed<'a> {
    fn varint(&mut self) -> Result<u64, WireError> {
        self.reader.expect(self.field, self.wire_type, VARINT)?;
        self.reader.varint()
    }

    fn int32(&mut self) -> Result<i32, WireError> {
        Ok(self.varint()? as i32)
    }

    fn sint32(&mut self) -> Result<i32, WireError> {
        let bits = self.varint()? as u32;
        Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed())
    }

    fn fixed64(&mut self) -> Result<u64, WireError> {
        self.reader.expect(self.field, self.wire_type, FIXED64)?;
        self.reader.fixed64()
    }

    fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        self.reader.expect(self.field, self.wire_type, BYTES)?;
        self.reader.bytes()
    }

    fn message(&mut self) -> Result<Reader<'a>, WireError> {
        self.reader.expect(self.field, self.wire_type, BYTES)?;
        self.reader.message()
    }
}

/// `bytes` in base64, padded.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * place) & 63) as usize).copied().unwrap_or(b'A');
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_padding() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes), text);
        }
    }
}
