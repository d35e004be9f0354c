//! Samples as columns: the payload of a record of type 2.
//!
//! Layout and a worked example: docs/format/wal.md.
//!
//! ```text
//! uvarint count | uvarint len(strides) | uvarint len(times) | count control bytes | strides | times | values
//! ```
//!
//! A control byte says what of a sample differs from its predecessor in the record; before the first sample, the ref,
//! the stride, the timestamp and the value are zero.

use chronolith_codec::{Reader, Result, write};

/// A record has at most this many samples.
pub const RECORD_SAMPLES_MAX: usize = 64 * 1024;

/// Control byte, low four bits: 0 to 8 = so many leading bytes of the value follow, the others are zero.
const VALUE_BYTES_MASK: u8 = 0x0f;
/// Control byte, low four bits: the value is the previous one.
const VALUE_SAME: u8 = 9;
/// Control byte: a timestamp delta follows.
const TIME_CHANGED: u8 = 0x10;
/// Control byte: a new stride of refs follows.
const STRIDE_CHANGED: u8 = 0x20;

// The longest payload of a record stays far below the limit of any record: control, two varints, value.
const _: () = assert!(RECORD_SAMPLES_MAX * (1 + 5 + 10 + 8) + 64 < crate::PAYLOAD_BYTES_MAX);

/// One sample as it was logged.
#[derive(Clone, Copy, Debug)]
pub struct LoggedSample {
    /// Milliseconds.
    pub timestamp: i64,
    /// The value, bit for bit.
    pub value: f64,
    /// The series.
    pub series: u32,
}

/// Pending samples: the columns of one or more records, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct SampleColumns {
    control: Vec<u8>,
    strides: Vec<u8>,
    times: Vec<u8>,
    values: Vec<u8>,
    ends: Vec<BlockEnd>,
    last: Last,
}

/// The last sample of the open record.
#[derive(Clone, Copy, Debug)]
struct Last {
    count: usize,
    series: u32,
    stride: u32,
    t: i64,
    bits: u64,
    min_t: i64,
    max_t: i64,
}

impl Default for Last {
    fn default() -> Self {
        Self { count: 0, series: 0, stride: 0, t: 0, bits: 0, min_t: i64::MAX, max_t: i64::MIN }
    }
}

/// Where the columns of a record end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BlockEnd {
    pub(crate) count: usize,
    pub(crate) min_t: i64,
    pub(crate) max_t: i64,
    control: usize,
    strides: usize,
    times: usize,
    values: usize,
}

impl SampleColumns {
    // Always: the call is a twentieth of an append.
    #[inline(always)]
    pub(crate) fn push(&mut self, series: u32, t: i64, bits: u64) {
        if self.last.count == RECORD_SAMPLES_MAX {
            self.close();
        }
        let last = &mut self.last;
        let mut control = 0;
        let stride = series.wrapping_sub(last.series);
        if stride != last.stride {
            control |= STRIDE_CHANGED;
            write::varint(&mut self.strides, i64::from(stride as i32));
            last.stride = stride;
        }
        if t != last.t {
            control |= TIME_CHANGED;
            write::varint(&mut self.times, t.wrapping_sub(last.t));
            last.min_t = last.min_t.min(t);
            last.max_t = last.max_t.max(t);
        } else if last.count == 0 {
            (last.min_t, last.max_t) = (t, t);
        }
        if bits == last.bits {
            control |= VALUE_SAME;
        } else {
            let bytes = if bits == 0 { 0 } else { 8 - (bits.trailing_zeros() >> 3) as u8 };
            control |= bytes;
            // All eight and then cut: one store instead of a loop.
            let end = self.values.len() + usize::from(bytes);
            self.values.extend_from_slice(&bits.to_be_bytes());
            self.values.truncate(end);
        }
        self.control.push(control);
        last.count += 1;
        last.series = series;
        last.t = t;
        last.bits = bits;
    }

    /// Ends the open record, if it has samples.
    pub(crate) fn close(&mut self) {
        if self.last.count == 0 {
            return;
        }
        self.ends.push(BlockEnd {
            count: self.last.count,
            min_t: self.last.min_t,
            max_t: self.last.max_t,
            control: self.control.len(),
            strides: self.strides.len(),
            times: self.times.len(),
            values: self.values.len(),
        });
        self.last = Last::default();
    }

    pub(crate) fn ends(&self) -> &[BlockEnd] {
        &self.ends
    }

    /// Appends the payload of the record that ends at `end` and begins where `before` ends.
    pub(crate) fn payload(&self, before: &BlockEnd, end: &BlockEnd, out: &mut Vec<u8>) {
        write::uvarint(out, end.count as u64);
        write::uvarint(out, (end.strides - before.strides) as u64);
        write::uvarint(out, (end.times - before.times) as u64);
        for (column, from, to) in [
            (&self.control, before.control, end.control),
            (&self.strides, before.strides, end.strides),
            (&self.times, before.times, end.times),
            (&self.values, before.values, end.values),
        ] {
            out.extend_from_slice(column.get(from..to).expect("columns only grow while ends are noted"));
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.control.is_empty()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.control.len() + self.strides.len() + self.times.len() + self.values.len()
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.control.capacity() + self.strides.capacity() + self.times.capacity() + self.values.capacity()
    }

    /// Empties the columns; buffers beyond `keep` bytes are given back.
    pub(crate) fn clear(&mut self, keep: usize) {
        for column in [&mut self.control, &mut self.strides, &mut self.times, &mut self.values] {
            if column.capacity() > keep {
                *column = Vec::new();
            }
            column.clear();
        }
        self.ends.clear();
        self.last = Last::default();
    }
}

/// Decodes the payload of a record of samples into `out`, which is emptied first.
///
/// # Errors
/// When the payload is not what a writer makes; `out` then has the samples before that place.
pub(crate) fn decode(payload: &[u8], out: &mut Vec<LoggedSample>) -> Result<()> {
    out.clear();
    let mut reader = Reader::new(payload);
    let count = reader.count(RECORD_SAMPLES_MAX, "sample count")?;
    let strides_len = reader.count(payload.len(), "length of strides")?;
    let times_len = reader.count(payload.len(), "length of timestamps")?;
    let control = reader.slice(count, "control bytes")?;
    let mut strides = Reader::new(reader.slice(strides_len, "strides")?);
    let mut times = Reader::new(reader.slice(times_len, "timestamps")?);
    let mut values = reader;
    let (mut series, mut stride, mut t, mut bits) = (0_u32, 0_u32, 0_i64, 0_u64);
    out.reserve(count);
    for &byte in control {
        if byte & STRIDE_CHANGED != 0 {
            stride = strides.varint("stride")? as u32;
        }
        series = series.wrapping_add(stride);
        if byte & TIME_CHANGED != 0 {
            t = t.wrapping_add(times.varint("timestamp delta")?);
        }
        match byte & VALUE_BYTES_MASK {
            VALUE_SAME => {}
            n => bits = value(&mut values, n)?,
        }
        out.push(LoggedSample { timestamp: t, value: f64::from_bits(bits), series });
    }
    strides.finish()?;
    times.finish()?;
    values.finish()
}

/// A value of `n` leading bytes.
#[inline]
fn value(values: &mut Reader<'_>, n: u8) -> Result<u64> {
    let n = usize::from(n);
    if n > 8 {
        let (off, got) = (values.offset(), n as u64);
        return Err(chronolith_codec::Error::TooLarge { off, expected: "length of a value", got, max: 9 });
    }
    if n == 0 {
        return Ok(0);
    }
    let keep = u64::MAX << (64 - 8 * n);
    if let Some(eight) = values.rest().first_chunk::<8>() {
        let value = u64::from_be_bytes(*eight) & keep;
        values.slice(n, "value")?;
        return Ok(value);
    }
    let mut eight = [0; 8];
    for (to, from) in eight.iter_mut().zip(values.slice(n, "value")?) {
        *to = *from;
    }
    Ok(u64::from_be_bytes(eight))
}
