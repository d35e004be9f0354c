//! Histograms that will not change any more, as columns.

mod segment;

use std::ops::Range;
use std::sync::Arc;

use chronolith_codec::{Reader, write};
use chronolith_model::histogram::{BUCKETS_MAX, CUSTOM_SCHEMA, Histogram, Layout, Span};

use self::segment::{Scratch, Segment};
use super::columns::{Columns, ColumnsBuilder};
use super::{COLUMNS_MAX, FRAME_BYTES_FULL, FRAME_LAYOUTS_MAX, SLOT_VALUES_MAX};
use crate::dense::{COLUMN_SAMPLES_MAX, FRAME_SLOTS_MAX};
use crate::{Error, Result};

/// Name of a frame in errors.
pub(super) const UNIT: &str = "histogram frame";
const VERSION: u8 = 1;

/// Builds one frame of histograms after another.
#[derive(Debug, Default)]
pub struct HistogramFrameBuilder {
    layouts: Vec<Arc<Layout>>,
    encoded_layouts: Vec<u8>,
    /// Descriptions of the slots.
    slots: Vec<u8>,
    count: usize,
    columns: ColumnsBuilder,
    scratch: Scratch,
}

impl HistogramFrameBuilder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a slot. Slots of equal `timeline` have the same timestamps; slots of equal `family` are likely alike.
    /// Returns its number.
    ///
    /// # Errors
    /// [`Error::TooLarge`]: of samples or values if the slot is too large for any frame (the caller splits it), of
    /// slots, layouts, columns or bytes if it is for this one: finish it first. The builder is as before.
    pub fn push(&mut self, histograms: &[Histogram], timeline: u64, family: u64) -> Result<u16> {
        let too_large = |of, got, max| Err(Error::TooLarge { unit: UNIT, of, got, max });
        if histograms.len() > COLUMN_SAMPLES_MAX {
            return too_large("samples", histograms.len(), COLUMN_SAMPLES_MAX);
        }
        if self.count >= FRAME_SLOTS_MAX {
            return too_large("slots", self.count + 1, FRAME_SLOTS_MAX);
        }
        if self.count > 0 && self.encoded_len() > FRAME_BYTES_FULL {
            return too_large("bytes", self.encoded_len(), FRAME_BYTES_FULL);
        }
        let segments = segment::split(histograms)?;
        let values = segments.iter().fold(0_usize, |sum, segment| sum.saturating_add(segment.values()));
        if values > SLOT_VALUES_MAX {
            return too_large("values", values, SLOT_VALUES_MAX);
        }
        let columns = self.columns.columns() + segments.iter().map(Segment::columns).sum::<usize>();
        if columns > COLUMNS_MAX {
            return too_large("columns", columns, COLUMNS_MAX);
        }
        let known = self.layouts.len();
        let runs: usize = segments.iter().map(|segment| segment.runs().len()).sum();
        if known + runs > FRAME_LAYOUTS_MAX && known > 0 {
            return too_large("layouts", known + runs, FRAME_LAYOUTS_MAX);
        }
        write::uvarint(&mut self.slots, segments.len() as u64);
        for (index, segment) in (0_u64..).zip(&segments) {
            segment.describe(&mut self.slots, |layout| {
                number(&mut self.layouts, &mut self.encoded_layouts, layout)
            });
            let timeline = segment.timeline(timeline, index);
            for column in segment.fill(histograms, &mut self.scratch) {
                self.columns.push(column, timeline, family)?;
            }
        }
        self.count += 1;
        Ok((self.count - 1) as u16)
    }

    /// How many slots the frame has.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.count
    }

    /// Bytes so far, the columns before zstd.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.encoded_layouts.len() + self.slots.len() + self.columns.encoded_len()
    }

    /// Appends the frame to `out` and starts over; memory is kept.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.push(VERSION);
        write::uvarint(out, self.layouts.len() as u64);
        out.append(&mut self.encoded_layouts);
        write::uvarint(out, self.count as u64);
        out.append(&mut self.slots);
        self.columns.finish(out);
        self.layouts.clear();
        self.count = 0;
    }
}

/// The number of `layout` in the frame; written where it is new.
fn number(layouts: &mut Vec<Arc<Layout>>, encoded: &mut Vec<u8>, layout: &Arc<Layout>) -> u64 {
    // The series before had it, mostly.
    let known = layouts.iter().rposition(|known| Arc::ptr_eq(known, layout) || known == layout);
    let number = known.unwrap_or_else(|| {
        write_layout(encoded, layout);
        layouts.push(Arc::clone(layout));
        layouts.len() - 1
    });
    number as u64
}

fn write_layout(out: &mut Vec<u8>, layout: &Layout) {
    write::varint(out, i64::from(layout.schema()));
    if layout.is_custom() {
        write::uvarint(out, layout.custom_values().len() as u64);
        for bound in layout.custom_values() {
            write::u64_le(out, bound.to_bits());
        }
    }
    write::u64_le(out, layout.zero_threshold().to_bits());
    for spans in [layout.positive_spans(), layout.negative_spans()] {
        write::uvarint(out, spans.len() as u64);
        for span in spans {
            write::varint(out, i64::from(span.offset));
            write::uvarint(out, u64::from(span.length));
        }
    }
}

fn read_layout(reader: &mut Reader<'_>) -> Result<Layout> {
    let off = reader.offset();
    let unreadable = |source| Error::Unreadable { unit: UNIT, source };
    let invalid = |expected, got| Error::Invalid { unit: UNIT, off, expected, got };
    let schema = reader.varint("schema").map_err(unreadable)?;
    let mut bounds = Vec::new();
    if schema == i64::from(CUSTOM_SCHEMA) {
        for _ in 0..reader.count(BUCKETS_MAX, "number of custom bounds").map_err(unreadable)? {
            bounds.push(f64::from_bits(reader.u64_le("custom bound").map_err(unreadable)?));
        }
    }
    let zero_threshold = f64::from_bits(reader.u64_le("zero threshold").map_err(unreadable)?);
    let mut spans = [const { Vec::new() }; 2];
    for side in &mut spans {
        for _ in 0..reader.count(BUCKETS_MAX, "number of spans").map_err(unreadable)? {
            let offset = reader.varint("span offset").map_err(unreadable)?;
            let length = reader.uvarint("span length").map_err(unreadable)?;
            let offset =
                i32::try_from(offset).map_err(|_| invalid("a span offset of 32 bits", offset as u64))?;
            let length = u32::try_from(length).map_err(|_| invalid("a span length of 32 bits", length))?;
            side.push(Span { offset, length });
        }
    }
    let [positive, negative] = &spans;
    let schema = i32::try_from(schema).unwrap_or(i32::MAX);
    Layout::new(schema, zero_threshold, positive, negative, bounds)
        .map_err(|_| invalid("a valid layout", schema as u64))
}

/// An opened frame of histograms; owned, so that it can stay in a cache.
#[derive(Debug)]
pub struct HistogramFrame {
    layouts: Vec<Arc<Layout>>,
    slots: Vec<Slot>,
    columns: Columns,
}

#[derive(Debug)]
struct Slot {
    segments: Vec<Segment>,
    first_column: usize,
    samples: usize,
}

impl HistogramFrame {
    /// Opens a frame; `bytes` is the frame and nothing else. Damage inside a column is found when it is decoded.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::Invalid`].
    pub fn open(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let unreadable = |source| Error::Unreadable { unit: UNIT, source };
        let version = reader.u8("version").map_err(unreadable)?;
        if version != VERSION {
            return Err(Error::Invalid {
                unit: UNIT,
                off: 0,
                expected: "version 1",
                got: u64::from(version),
            });
        }
        let mut layouts = Vec::new();
        for _ in 0..reader.count(FRAME_LAYOUTS_MAX, "number of layouts").map_err(unreadable)? {
            layouts.push(Arc::new(read_layout(&mut reader)?));
        }
        let (mut slots, mut first_column) = (Vec::new(), 0);
        for _ in 0..reader.count(FRAME_SLOTS_MAX, "number of slots").map_err(unreadable)? {
            let slot = read_slot(&mut reader, &layouts, first_column)?;
            first_column += slot.segments.iter().map(Segment::columns).sum::<usize>();
            slots.push(slot);
        }
        let off = reader.offset();
        let columns = Columns::open(&mut reader)?;
        if columns.len() != first_column {
            let got = columns.len() as u64;
            return Err(Error::Invalid {
                unit: UNIT,
                off,
                expected: "as many columns as the slots have",
                got,
            });
        }
        Ok(Self { layouts, slots, columns })
    }

    /// How many slots it has.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many samples a slot has; `None` if there is no such slot.
    #[must_use]
    pub fn samples(&self, slot: usize) -> Option<usize> {
        self.slots.get(slot).map(|slot| slot.samples)
    }

    /// Bytes it keeps on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let layouts: usize =
            self.layouts.iter().map(|layout| size_of::<Layout>() + layout.heap_bytes()).sum();
        let segments =
            |slot: &Slot| slot.segments.iter().map(Segment::heap_bytes).sum::<usize>() + size_of::<Slot>();
        layouts + self.slots.iter().map(segments).sum::<usize>() + self.columns.heap_bytes()
    }

    /// Appends the samples of `slot` whose numbers lie in `samples` to `into`, all or none. Numbers beyond the end are
    /// none.
    ///
    /// # Errors
    /// [`Error::NoSlot`]; [`Error::Unreadable`] or [`Error::Invalid`] if the slot's bytes are damaged.
    pub fn decode(&self, slot: usize, samples: Range<usize>, into: &mut Vec<Histogram>) -> Result<()> {
        let slot = self.slots.get(slot).ok_or(Error::NoSlot { slot, slots: self.slots.len() })?;
        let before = into.len();
        let mut columns = self.columns.reader(slot.first_column);
        let mut first = 0;
        for segment in &slot.segments {
            let len = segment.samples();
            let wanted = samples.start.max(first)..samples.end.min(first + len);
            if wanted.is_empty() {
                columns.skip(segment.columns());
            } else if let Err(error) =
                segment.decode(&mut columns, wanted.start - first..wanted.end - first, into)
            {
                into.truncate(before);
                return Err(error);
            }
            first += len;
        }
        Ok(())
    }
}

fn read_slot(reader: &mut Reader<'_>, layouts: &[Arc<Layout>], first_column: usize) -> Result<Slot> {
    let unreadable = |source| Error::Unreadable { unit: UNIT, source };
    let off = reader.offset();
    let mut slot = Slot { segments: Vec::new(), first_column, samples: 0 };
    let mut values = 0_usize;
    for _ in 0..reader.count(COLUMN_SAMPLES_MAX, "number of segments").map_err(unreadable)? {
        let segment = Segment::read(reader, layouts)?;
        slot.samples += segment.samples();
        values = values.saturating_add(segment.values());
        slot.segments.push(segment);
        if slot.samples > COLUMN_SAMPLES_MAX || values > SLOT_VALUES_MAX {
            let got = slot.samples as u64;
            return Err(Error::Invalid { unit: UNIT, off, expected: "no more samples or values", got });
        }
    }
    Ok(slot)
}
