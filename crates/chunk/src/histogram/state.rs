//! What the next sample of a chunk is relative to; the same for writing and for reading.

use std::sync::Arc;

use chronolith_codec::{BitBuf, BitReader};
use chronolith_model::STALE_NAN_BITS;
use chronolith_model::histogram::{CounterResetHint, Histogram, Layout, NativeHistogram, Numbers};

use super::Encoding;
use super::varbit::{Xor, put_int, put_uint, take_int, take_uint};

/// A whole number and by how much it grew last. Arithmetic wraps, so that any numbers survive.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stepped {
    pub(super) value: i64,
    step: i64,
}

impl Stepped {
    const fn first(value: i64) -> Self {
        Self { value, step: 0 }
    }

    /// Writes by how much the step changed. The step before the first is 0, so the second number writes its step.
    fn put(&mut self, bits: &mut BitBuf, out: &mut Vec<u8>, value: i64) {
        let step = value.wrapping_sub(self.value);
        put_int(bits, out, step.wrapping_sub(self.step));
        *self = Self { value, step };
    }

    fn take(&mut self, bits: &mut BitReader<'_>) -> i64 {
        self.step = self.step.wrapping_add(take_int(bits));
        self.value = self.value.wrapping_add(self.step);
        self.value
    }
}

#[derive(Clone, Debug)]
enum Counts {
    /// Count, zero bucket, and for each bucket what it has more than its left neighbour.
    Integer {
        count: Stepped,
        zero: Stepped,
        buckets: Vec<Stepped>,
    },
    Float {
        count: Xor,
        zero: Xor,
        buckets: Vec<Xor>,
    },
}

/// The last sample of a chunk.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) layout: Arc<Layout>,
    time: Stepped,
    sum: Xor,
    counts: Counts,
}

impl State {
    /// Writes the first sample, whole.
    pub(super) fn put_first(bits: &mut BitBuf, out: &mut Vec<u8>, t: i64, histogram: &Histogram) -> Self {
        let layout = Arc::clone(histogram.layout());
        let time = Stepped::first(t);
        let sum = Xor::new(histogram.sum().to_bits());
        put_int(bits, out, t);
        let counts = match histogram {
            Histogram::Integer(h) => {
                put_uint(bits, out, h.count());
                put_uint(bits, out, h.zero_count());
                bits.put(out, sum.last, 64);
                let buckets: Vec<Stepped> = deltas(h).map(Stepped::first).collect();
                for bucket in &buckets {
                    put_int(bits, out, bucket.value);
                }
                let whole = |count: u64| Stepped::first(count as i64);
                Counts::Integer { count: whole(h.count()), zero: whole(h.zero_count()), buckets }
            }
            Histogram::Float(h) => {
                let whole = |count: f64| Xor::new(count.to_bits());
                let (count, zero) = (whole(h.count()), whole(h.zero_count()));
                let buckets: Vec<Xor> = h.buckets().iter().map(|count| whole(*count)).collect();
                for number in [count, zero, sum].iter().chain(&buckets) {
                    bits.put(out, number.last, 64);
                }
                Counts::Float { count, zero, buckets }
            }
        };
        Self { layout, time, sum, counts }
    }

    /// Writes a further sample: of the same layout and kind, or a stale marker.
    pub(super) fn put_next(&mut self, bits: &mut BitBuf, out: &mut Vec<u8>, t: i64, histogram: &Histogram) {
        self.time.put(bits, out, t);
        match (&mut self.counts, histogram) {
            (Counts::Integer { count, zero, buckets }, Histogram::Integer(h)) if !h.is_stale() => {
                count.put(bits, out, h.count() as i64);
                zero.put(bits, out, h.zero_count() as i64);
                self.sum.put(bits, out, h.sum().to_bits());
                for (bucket, delta) in buckets.iter_mut().zip(deltas(h)) {
                    bucket.put(bits, out, delta);
                }
            }
            (Counts::Float { count, zero, buckets }, Histogram::Float(h)) if !h.is_stale() => {
                count.put(bits, out, h.count().to_bits());
                zero.put(bits, out, h.zero_count().to_bits());
                self.sum.put(bits, out, h.sum().to_bits());
                for (bucket, value) in buckets.iter_mut().zip(h.buckets()) {
                    bucket.put(bits, out, value.to_bits());
                }
            }
            // A stale marker has no buckets, and says nothing by its counts.
            (Counts::Integer { .. }, _) => {
                put_int(bits, out, 0);
                put_int(bits, out, 0);
                self.sum.put(bits, out, STALE_NAN_BITS);
            }
            (Counts::Float { count, zero, .. }, _) => {
                count.put(bits, out, 0);
                zero.put(bits, out, 0);
                self.sum.put(bits, out, STALE_NAN_BITS);
            }
        }
    }

    /// Reads the first sample. Zeros behind the end: see [`BitReader::check`].
    pub(super) fn take_first(bits: &mut BitReader<'_>, encoding: Encoding, layout: Arc<Layout>) -> Self {
        let time = Stepped::first(take_int(bits));
        match encoding {
            Encoding::Integer => {
                let count = Stepped::first(take_uint(bits) as i64);
                let zero = Stepped::first(take_uint(bits) as i64);
                let sum = Xor::new(bits.take(64));
                let buckets = (0..layout.len()).map(|_| Stepped::first(take_int(bits))).collect();
                Self { layout, time, sum, counts: Counts::Integer { count, zero, buckets } }
            }
            Encoding::Float => {
                let [count, zero, sum] = [(); 3].map(|()| Xor::new(bits.take(64)));
                let buckets = (0..layout.len()).map(|_| Xor::new(bits.take(64))).collect();
                Self { layout, time, sum, counts: Counts::Float { count, zero, buckets } }
            }
        }
    }

    /// Reads a further sample. `None` for an impossible float; zeros behind the end: see [`BitReader::check`].
    pub(super) fn take_next(&mut self, bits: &mut BitReader<'_>) -> Option<()> {
        self.time.take(bits);
        match &mut self.counts {
            Counts::Integer { count, zero, buckets } => {
                count.take(bits);
                zero.take(bits);
                if self.sum.take(bits)? != STALE_NAN_BITS {
                    for bucket in buckets {
                        bucket.take(bits);
                    }
                }
            }
            Counts::Float { count, zero, buckets } => {
                count.take(bits)?;
                zero.take(bits)?;
                if self.sum.take(bits)? != STALE_NAN_BITS {
                    for bucket in buckets {
                        bucket.take(bits)?;
                    }
                }
            }
        }
        Some(())
    }

    pub(super) const fn timestamp(&self) -> i64 {
        self.time.value
    }

    pub(super) const fn is_stale(&self) -> bool {
        self.sum.last == STALE_NAN_BITS
    }

    /// The sample, under `hint` unless it is a stale marker. Always there: there is a number per bucket.
    pub(super) fn histogram(&self, hint: CounterResetHint) -> Option<Histogram> {
        if self.is_stale() {
            return Some(Histogram::stale());
        }
        let (layout, sum) = (Arc::clone(&self.layout), f64::from_bits(self.sum.last));
        match &self.counts {
            Counts::Integer { count, zero, buckets } => {
                let (count, zero_count) = (count.value as u64, zero.value as u64);
                let buckets = absolute(buckets.iter().map(|bucket| bucket.value), layout.positive_len());
                NativeHistogram::from_numbers(layout, Numbers { hint, sum, count, zero_count, buckets })
                    .map(Histogram::Integer)
            }
            Counts::Float { count, zero, buckets } => {
                let [count, zero_count] = [count, zero].map(|number| f64::from_bits(number.last));
                let buckets = buckets.iter().map(|bucket| f64::from_bits(bucket.last)).collect();
                NativeHistogram::from_numbers(layout, Numbers { hint, sum, count, zero_count, buckets })
                    .map(Histogram::Float)
            }
        }
    }
}

/// What each bucket has more than its left neighbour; the first of each side counts from zero.
fn deltas(histogram: &NativeHistogram<u64>) -> impl Iterator<Item = i64> + '_ {
    [histogram.positive_buckets(), histogram.negative_buckets()].into_iter().flat_map(|side| {
        let before = std::iter::once(0).chain(side.iter().copied());
        side.iter().zip(before).map(|(count, before)| count.wrapping_sub(before) as i64)
    })
}

/// The inverse of [`deltas`].
fn absolute(deltas: impl Iterator<Item = i64>, positive_len: usize) -> Vec<u64> {
    let mut count = 0_u64;
    let running = deltas.enumerate().map(|(index, delta)| {
        count = if index == positive_len { delta as u64 } else { count.wrapping_add(delta as u64) };
        count
    });
    running.collect()
}
