//! A run of histograms of one kind and scale inside a slot: the same columns.

use std::ops::Range;
use std::sync::Arc;

use chronolith_codec::{Reader, write};
use chronolith_model::histogram::{
    BUCKETS_MAX, Count, CounterResetHint, Histogram, HistogramError, Layout, NativeHistogram, Numbers,
};
use chronolith_model::is_stale;

use super::UNIT;
use crate::dense::COLUMN_SAMPLES_MAX;
use crate::histogram::columns::ColumnReader;
use crate::histogram::{hint_bits, hint_of};
use crate::{Error, Result};

/// Flags of a segment.
const FLOAT: u8 = 1;
const RAW: u8 = 2;
const COUNT_IS_SUM: u8 = 4;
/// Code of a run of stale markers; below it hints.
const STALE: u64 = 4;
/// Bits of a run's code.
const CODE_BITS: u32 = 3;
/// Integers up to here are floats.
const EXACT_MAX: u64 = 1 << 53;
/// Columns beside the buckets: sum, zero bucket, count.
const SCALARS: usize = 3;

/// Samples that follow each other and have one layout and hint; `None`: they are stale markers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    len: usize,
    kind: Option<(CounterResetHint, Arc<Layout>)>,
}

/// Samples of one kind and scale, with stale markers between them.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Number of its first sample in the slot; known when writing only.
    first: usize,
    runs: Vec<Run>,
    /// The buckets of all runs, one column each.
    union: Arc<Layout>,
    float: bool,
    /// Columns of counts hold the bits of integers, which are too large for floats.
    raw: bool,
    /// The count is what the buckets hold together, so that it needs no column.
    count_is_sum: bool,
    samples: usize,
    stale: usize,
}

/// Memory of the builder.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Column after column.
    matrix: Vec<f64>,
    positions: Vec<usize>,
}

/// Splits a slot's histograms into segments.
pub(super) fn split(histograms: &[Histogram]) -> Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    for (index, histogram) in histograms.iter().enumerate() {
        match segments.last_mut() {
            Some(last) if last.takes(histogram) => last.add(histogram)?,
            _ => {
                let mut segment = Segment::at(index);
                segment.add(histogram)?;
                segments.push(segment);
            }
        }
    }
    for segment in &mut segments {
        let samples = histograms.iter().skip(segment.first).take(segment.samples);
        segment.look_at_counts(samples.filter(|histogram| !histogram.is_stale()));
    }
    Ok(segments)
}

impl Segment {
    fn at(first: usize) -> Self {
        Self {
            first,
            runs: Vec::new(),
            union: Layout::empty(),
            float: false,
            raw: false,
            count_is_sum: false,
            samples: 0,
            stale: 0,
        }
    }

    fn takes(&self, histogram: &Histogram) -> bool {
        histogram.is_stale()
            || self.samples == self.stale
            || self.float == histogram.is_float() && self.union.same_scale(histogram.layout())
    }

    fn add(&mut self, histogram: &Histogram) -> Result<()> {
        let stale = histogram.is_stale();
        let kind = (!stale).then(|| (histogram.hint(), Arc::clone(histogram.layout())));
        self.samples += 1;
        self.stale += usize::from(stale);
        if let Some(run) = self.runs.last_mut()
            && run.goes_on(kind.as_ref())
        {
            run.len += 1;
            return Ok(());
        }
        if let Some((_, layout)) = &kind {
            self.float = histogram.is_float();
            self.widen(layout).map_err(|_| Error::TooLarge {
                unit: UNIT,
                of: "buckets of one slot",
                got: self.union.len() + layout.len(),
                max: BUCKETS_MAX,
            })?;
        }
        self.runs.push(Run { len: 1, kind });
        Ok(())
    }

    /// Takes the buckets of `layout` into the union.
    fn widen(&mut self, layout: &Arc<Layout>) -> Result<(), HistogramError> {
        if self.runs.iter().all(|run| run.kind.is_none()) {
            self.union = Arc::clone(layout);
        } else if !Arc::ptr_eq(&self.union, layout) && self.union != *layout {
            let union = self.union.union(layout)?;
            if union != *self.union {
                self.union = Arc::new(union);
            }
        }
        Ok(())
    }

    /// Finds out what of the counts needs no column of its own, or no float's.
    fn look_at_counts<'a>(&mut self, histograms: impl Iterator<Item = &'a Histogram>) {
        self.count_is_sum = true;
        for histogram in histograms {
            let is_sum = match histogram {
                Histogram::Integer(h) => {
                    let largest =
                        h.buckets().iter().fold(h.count().max(h.zero_count()), |max, count| max.max(*count));
                    self.raw |= largest > EXACT_MAX;
                    total(h.zero_count(), h.buckets()) == h.count()
                }
                Histogram::Float(h) => total(h.zero_count(), h.buckets()).to_bits() == h.count().to_bits(),
            };
            self.count_is_sum &= is_sum;
        }
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(super) const fn samples(&self) -> usize {
        self.samples
    }

    /// How many columns it has.
    pub(super) fn columns(&self) -> usize {
        if self.samples == self.stale {
            0
        } else {
            self.union.len() + SCALARS - usize::from(self.count_is_sum)
        }
    }

    /// Numbers in its columns, and in its histograms.
    pub(super) fn values(&self) -> usize {
        self.columns().saturating_mul(self.samples - self.stale)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.runs.capacity() * size_of::<Run>() + self.union.heap_bytes()
    }

    /// Columns of one segment belong together; those of another only if it leaves out the same samples.
    pub(super) fn timeline(&self, timeline: u64, index: u64) -> u64 {
        if self.stale == 0 && index == 0 {
            return timeline;
        }
        let mut mixed = timeline ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for run in &self.runs {
            let code = (run.len as u64) << 1 | u64::from(run.kind.is_some());
            mixed = (mixed ^ code).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        mixed ^ self.first as u64
    }

    /// Writes what it is; `number` gives the number of a layout.
    pub(super) fn describe(&self, out: &mut Vec<u8>, mut number: impl FnMut(&Arc<Layout>) -> u64) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(flag(self.float, FLOAT) | flag(self.raw, RAW) | flag(self.count_is_sum, COUNT_IS_SUM));
        write::uvarint(out, self.runs.len() as u64);
        for run in &self.runs {
            let len = (run.len as u64) << CODE_BITS;
            match &run.kind {
                None => write::uvarint(out, len | STALE),
                Some((hint, layout)) => {
                    write::uvarint(out, len | u64::from(hint_bits(*hint)));
                    write::uvarint(out, number(layout));
                }
            }
        }
    }

    /// Reads what [`Segment::describe`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>, layouts: &[Arc<Layout>]) -> Result<Self> {
        let unreadable = |source| Error::Unreadable { unit: UNIT, source };
        let off = reader.offset();
        let invalid = |expected, got| Error::Invalid { unit: UNIT, off, expected, got };
        let flags = reader.u8("flags").map_err(unreadable)?;
        if flags & !(FLOAT | RAW | COUNT_IS_SUM) != 0 {
            return Err(invalid("known flags", u64::from(flags)));
        }
        let mut segment = Self::at(0);
        segment.float = flags & FLOAT != 0;
        segment.raw = flags & RAW != 0;
        segment.count_is_sum = flags & COUNT_IS_SUM != 0;
        for _ in 0..reader.count(COLUMN_SAMPLES_MAX, "number of runs").map_err(unreadable)? {
            let head = reader.uvarint("run").map_err(unreadable)?;
            let (len, code) = (head >> CODE_BITS, head & ((1 << CODE_BITS) - 1));
            if len == 0 || len > COLUMN_SAMPLES_MAX as u64 || code > STALE {
                return Err(invalid("a run of samples", head));
            }
            let len = len as usize;
            let mut kind = None;
            if code < STALE {
                let number = reader.uvarint("layout of a run").map_err(unreadable)?;
                let layout = usize::try_from(number).ok().and_then(|number| layouts.get(number));
                let layout = layout.ok_or_else(|| invalid("a layout of the frame", number))?;
                if segment.samples > segment.stale && !segment.union.same_scale(layout) {
                    return Err(invalid("layouts of one scale", number));
                }
                segment.widen(layout).map_err(|_| invalid("layouts of not too many buckets", number))?;
                kind = Some((hint_of(code as u8), Arc::clone(layout)));
            } else {
                segment.stale += len;
            }
            segment.runs.push(Run { len, kind });
            segment.samples += len;
            if segment.samples > COLUMN_SAMPLES_MAX {
                return Err(invalid("no more samples", segment.samples as u64));
            }
        }
        Ok(segment)
    }

    /// The columns of the segment's part of `histograms`, those of the whole slot: sum, zero bucket, count if it needs
    /// one, buckets.
    pub(super) fn fill<'a>(
        &self,
        histograms: &[Histogram],
        scratch: &'a mut Scratch,
    ) -> impl Iterator<Item = &'a [f64]> {
        let height = self.samples - self.stale;
        let scalars = SCALARS - usize::from(self.count_is_sum);
        let Scratch { matrix, positions } = scratch;
        matrix.clear();
        matrix.resize(self.columns() * height, 0.0);
        let mut rest = histograms.get(self.first..).unwrap_or_default().iter();
        let mut row = 0;
        for run in &self.runs {
            let Some((_, layout)) = &run.kind else {
                rest.by_ref().take(run.len).for_each(drop);
                continue;
            };
            positions_in(layout, &self.union, positions);
            for histogram in rest.by_ref().take(run.len) {
                let mut put = |column: usize, value: f64| {
                    if let Some(cell) = matrix.get_mut(column * height + row) {
                        *cell = value;
                    }
                };
                put(0, histogram.sum());
                match histogram {
                    Histogram::Integer(h) => {
                        put(1, self.written(h.zero_count()));
                        if !self.count_is_sum {
                            put(2, self.written(h.count()));
                        }
                        for (position, count) in positions.iter().zip(h.buckets()) {
                            put(scalars + position, self.written(*count));
                        }
                    }
                    Histogram::Float(h) => {
                        put(1, h.zero_count());
                        if !self.count_is_sum {
                            put(2, h.count());
                        }
                        for (position, count) in positions.iter().zip(h.buckets()) {
                            put(scalars + position, *count);
                        }
                    }
                }
                row += 1;
            }
        }
        matrix.chunks_exact(height.max(1))
    }

    /// An integer as a column holds it.
    fn written(&self, count: u64) -> f64 {
        if self.raw { f64::from_bits(count) } else { count as f64 }
    }

    /// Reads the columns, and appends the samples whose numbers in the segment lie in `wanted`.
    pub(super) fn decode(
        &self,
        columns: &mut ColumnReader<'_>,
        wanted: Range<usize>,
        into: &mut Vec<Histogram>,
    ) -> Result<()> {
        let height = self.samples - self.stale;
        let (mut column, mut matrix) = (Vec::new(), Vec::with_capacity(self.values()));
        for _ in 0..self.columns() {
            columns.read(height, &mut column)?;
            matrix.extend_from_slice(&column);
        }
        let matrix = Matrix { values: &matrix, height, scalars: SCALARS - usize::from(self.count_is_sum) };
        let mut positions = Vec::new();
        let (mut sample, mut row) = (0, 0);
        for run in &self.runs {
            let here = wanted.start.max(sample)..wanted.end.min(sample + run.len);
            let Some((hint, layout)) = &run.kind else {
                into.extend(here.map(|_| Histogram::stale()));
                sample += run.len;
                continue;
            };
            if !here.is_empty() {
                positions_in(layout, &self.union, &mut positions);
            }
            for index in here {
                let row = row + (index - sample);
                into.push(self.histogram(&matrix, row, *hint, layout, &positions)?);
            }
            sample += run.len;
            row += run.len;
        }
        Ok(())
    }

    fn histogram(
        &self,
        matrix: &Matrix<'_>,
        row: usize,
        hint: CounterResetHint,
        layout: &Arc<Layout>,
        positions: &[usize],
    ) -> Result<Histogram> {
        let sum = matrix.at(0, row)?;
        if is_stale(sum) {
            let expected = "stale markers in runs of their own";
            return Err(Error::Invalid { unit: UNIT, off: 0, expected, got: row as u64 });
        }
        if self.float {
            let numbers = matrix.numbers(hint, sum, row, positions, self.count_is_sum, Some)?;
            NativeHistogram::from_numbers(Arc::clone(layout), numbers).map(Histogram::Float)
        } else {
            let read = |value: f64| {
                if self.raw {
                    return Some(value.to_bits());
                }
                let whole = value as u64;
                (whole as f64).to_bits().eq(&value.to_bits()).then_some(whole)
            };
            let numbers = matrix.numbers(hint, sum, row, positions, self.count_is_sum, read)?;
            NativeHistogram::from_numbers(Arc::clone(layout), numbers).map(Histogram::Integer)
        }
        .ok_or(Error::Invalid {
            unit: UNIT,
            off: 0,
            expected: "a column per bucket",
            got: positions.len() as u64,
        })
    }
}

impl Run {
    fn goes_on(&self, kind: Option<&(CounterResetHint, Arc<Layout>)>) -> bool {
        match (&self.kind, kind) {
            (None, None) => true,
            (Some((hint, layout)), Some((other_hint, other))) => {
                hint == other_hint && (Arc::ptr_eq(layout, other) || layout == other)
            }
            _ => false,
        }
    }
}

/// Columns that were read.
struct Matrix<'a> {
    values: &'a [f64],
    height: usize,
    scalars: usize,
}

impl Matrix<'_> {
    fn at(&self, column: usize, row: usize) -> Result<f64> {
        let missing = Error::Invalid { unit: UNIT, off: 0, expected: "a value per sample", got: row as u64 };
        self.values.get(column * self.height + row).copied().ok_or(missing)
    }

    fn numbers<C: Count>(
        &self,
        hint: CounterResetHint,
        sum: f64,
        row: usize,
        positions: &[usize],
        count_is_sum: bool,
        read: impl Fn(f64) -> Option<C>,
    ) -> Result<Numbers<C>> {
        let count_at = |column: usize| {
            let value = self.at(column, row)?;
            let expected = "a whole number";
            read(value).ok_or(Error::Invalid { unit: UNIT, off: 0, expected, got: value.to_bits() })
        };
        let zero_count = count_at(1)?;
        let mut buckets = Vec::with_capacity(positions.len());
        for position in positions {
            buckets.push(count_at(self.scalars + position)?);
        }
        let count = if count_is_sum { total(zero_count, &buckets) } else { count_at(2)? };
        Ok(Numbers { hint, sum, count, zero_count, buckets })
    }
}

/// All observations in the buckets, added in their order.
fn total<C: Count>(zero_count: C, buckets: &[C]) -> C {
    buckets.iter().fold(zero_count, |sum, count| sum.plus(*count))
}

/// Where the buckets of `layout` stand among those of `union`, which has all of them.
fn positions_in(layout: &Arc<Layout>, union: &Arc<Layout>, positions: &mut Vec<usize>) {
    positions.clear();
    if Arc::ptr_eq(layout, union) {
        positions.extend(0..union.len());
        return;
    }
    let mut all = union.places().enumerate();
    positions.extend(
        layout.places().filter_map(|place| all.find(|(_, candidate)| *candidate == place).map(|(at, _)| at)),
    );
}
