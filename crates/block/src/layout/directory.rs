//! The hotcache: everything that must be known to read any series of a block.

use chronolith_chunk::dense::{COLUMN_SAMPLES_MAX, FRAME_SLOTS_MAX};
use chronolith_codec::{Reader, write};
use chronolith_model::{TenantId, TimeRange};

use super::footer::impossible;
use super::{HEADER_BYTES, UNIT_BYTES_MAX};
use crate::Ulid;
use crate::error::ContentError;
use crate::meta::{
    BlockMeta, BlockRange, BlockSpec, PARTS_HARD_MAX, SERIES_MAX, SOURCES_MAX, VERSION_WITH_STARTS,
};
use crate::starts::PAGE_STEPS_MAX;

/// Bytes that are read and verified as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitRef {
    pub(crate) off: u64,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

/// A section of the index. Its units have checksums of their own; this one is for verification of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexSpan {
    pub(crate) off: u64,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

/// A page of timestamp columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimestampPage {
    pub(crate) unit: UnitRef,
    /// Number of its first column in the part. Derived: the columns before it.
    pub(crate) first: u32,
    pub(crate) columns: u32,
}

/// What the slots of a frame hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FrameKind {
    Float,
    Histogram,
}

/// A frame, the table of its slots, and their statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameEntry {
    pub(crate) unit: UnitRef,
    /// Ids of the first and the last slot.
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) slots: u32,
    pub(crate) samples: u64,
    pub(crate) table: UnitRef,
    /// Frames of floats have them.
    pub(crate) statistics: Option<UnitRef>,
}

/// A time window with its own columns and frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartEntry {
    /// Of two samples at one timestamp the one of the lower priority wins.
    pub(crate) priority: u64,
    /// First and last timestamp.
    pub(crate) range: TimeRange,
    /// Samples of the longest slot.
    pub(crate) slot_samples_max: u32,
    pub(crate) pages: Vec<TimestampPage>,
    pub(crate) floats: Vec<FrameEntry>,
    pub(crate) histograms: Vec<FrameEntry>,
}

/// A page of exemplars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExemplarPage {
    pub(crate) unit: UnitRef,
    /// Ids of the first and the last series.
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) exemplars: u32,
}

/// A page of start timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartPageEntry {
    pub(crate) unit: UnitRef,
    /// Ids of the first and the last series.
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) steps: u32,
}

/// The content of a hotcache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Of the block format.
    pub(crate) version: u8,
    pub(crate) meta: BlockMeta,
    pub(crate) dictionaries: IndexSpan,
    pub(crate) postings: IndexSpan,
    pub(crate) forward: IndexSpan,
    /// The directory of the index.
    pub(crate) index: Vec<u8>,
    /// Sorted by their first timestamp, then by priority.
    pub(crate) parts: Vec<PartEntry>,
    pub(crate) exemplars: Vec<ExemplarPage>,
    pub(crate) starts: Vec<StartPageEntry>,
    /// Pages of metric metadata.
    pub(crate) metadata: Vec<UnitRef>,
}

impl PartEntry {
    pub(crate) fn frames(&self, kind: FrameKind) -> &[FrameEntry] {
        match kind {
            FrameKind::Float => &self.floats,
            FrameKind::Histogram => &self.histograms,
        }
    }

    pub(crate) fn columns(&self) -> u32 {
        self.pages.last().map_or(0, |page| page.first + page.columns)
    }
}

impl Directory {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.version);
        encode_meta(&self.meta, out);
        for span in [&self.dictionaries, &self.postings, &self.forward] {
            write::uvarint(out, span.off);
            write::uvarint(out, span.len);
            write::u32_le(out, span.crc);
        }
        write::uvarint(out, self.parts.len() as u64);
        for part in &self.parts {
            part.encode(out);
        }
        write::uvarint(out, self.exemplars.len() as u64);
        for page in &self.exemplars {
            page.unit.encode(out);
            write::uvarint(out, page.first.into());
            write::uvarint(out, (page.last - page.first).into());
            write::uvarint(out, page.exemplars.into());
        }
        if self.version >= VERSION_WITH_STARTS {
            write::uvarint(out, self.starts.len() as u64);
            for page in &self.starts {
                page.unit.encode(out);
                write::uvarint(out, page.first.into());
                write::uvarint(out, (page.last - page.first).into());
                write::uvarint(out, page.steps.into());
            }
        }
        write::uvarint(out, self.metadata.len() as u64);
        for unit in &self.metadata {
            unit.encode(out);
        }
        write::prefixed(out, &self.index);
    }

    /// Reads the hotcache of a file of `version` whose units end at `end`.
    pub(crate) fn decode(bytes: &[u8], version: u8, end: u64) -> Result<Self, ContentError> {
        let mut reader = Reader::new(bytes);
        let got = reader.u8("version")?;
        if got != version {
            return Err(impossible("version", version.into(), got.into()));
        }
        let meta = decode_meta(&mut reader)?;
        let series = meta.series;
        let mut spans = [IndexSpan::default(); 3];
        for span in &mut spans {
            *span = IndexSpan {
                off: reader.uvarint("offset of an index section")?,
                len: reader.uvarint("length of an index section")?,
                crc: reader.u32_le("checksum of an index section")?,
            };
            check_place(span.off, span.len, end)?;
        }
        let [dictionaries, postings, forward] = spans;
        let parts = reader.count(PARTS_HARD_MAX, "number of parts")?;
        let parts = (0..parts).map(|_| PartEntry::decode(&mut reader, series, end));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let exemplars = decode_exemplars(&mut reader, series, end)?;
        let mut starts = Vec::new();
        if version >= VERSION_WITH_STARTS {
            starts = decode_starts(&mut reader, series, end)?;
        }
        let pages = reader.count(reader.rest().len(), "number of metadata pages")?;
        let metadata = (0..pages).map(|_| UnitRef::decode(&mut reader, end));
        let metadata = metadata.collect::<Result<Vec<_>, _>>()?;
        let index = reader.prefixed(reader.rest().len(), "directory of the index")?.to_vec();
        reader.finish()?;
        let directory = Self {
            version,
            meta,
            dictionaries,
            postings,
            forward,
            index,
            parts,
            exemplars,
            starts,
            metadata,
        };
        directory.check()?;
        Ok(directory)
    }

    /// Bytes it keeps on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let of_part = |part: &PartEntry| {
            size_of::<PartEntry>()
                + part.pages.capacity() * size_of::<TimestampPage>()
                + (part.floats.capacity() + part.histograms.capacity()) * size_of::<FrameEntry>()
        };
        self.index.capacity()
            + self.parts.iter().map(of_part).sum::<usize>()
            + self.exemplars.capacity() * size_of::<ExemplarPage>()
            + self.starts.capacity() * size_of::<StartPageEntry>()
            + self.metadata.capacity() * size_of::<UnitRef>()
    }

    /// Numbers that must agree.
    fn check(&self) -> Result<(), ContentError> {
        let key = |part: &PartEntry| (part.range.min, part.priority);
        if !self.parts.is_sorted_by_key(key) {
            return Err(impossible("order of parts", 0, 1));
        }
        let count = |kind| {
            let frames = self.parts.iter().flat_map(|part| part.frames(kind));
            frames.fold(0_u64, |sum, frame| sum.saturating_add(frame.samples))
        };
        for (what, expected, got) in [
            ("number of samples", self.meta.samples, count(FrameKind::Float)),
            ("number of histograms", self.meta.histograms, count(FrameKind::Histogram)),
            (
                "number of exemplars",
                self.meta.exemplars,
                self.exemplars.iter().map(|page| u64::from(page.exemplars)).sum(),
            ),
        ] {
            if expected != got {
                return Err(impossible(what, expected, got));
            }
        }
        let range = self.meta.spec.range;
        match self
            .parts
            .iter()
            .find(|part| !range.contains(part.range.min) || !range.contains(part.range.max))
        {
            Some(part) => Err(impossible("last timestamp", range.max as u64, part.range.max as u64)),
            None => Ok(()),
        }
    }
}

impl UnitRef {
    fn encode(self, out: &mut Vec<u8>) {
        write::uvarint(out, self.off);
        write::uvarint(out, self.len.into());
        write::u32_le(out, self.crc);
    }

    fn decode(reader: &mut Reader<'_>, end: u64) -> Result<Self, ContentError> {
        let off = reader.uvarint("offset of a unit")?;
        let len = reader.count(UNIT_BYTES_MAX as usize, "length of a unit")? as u32;
        let crc = reader.u32_le("checksum of a unit")?;
        check_place(off, len.into(), end)?;
        Ok(Self { off, len, crc })
    }
}

fn check_place(off: u64, len: u64, end: u64) -> Result<(), ContentError> {
    match off.checked_add(len) {
        Some(unit_end) if off >= HEADER_BYTES && unit_end <= end => Ok(()),
        unit_end => Err(impossible("end of a unit", end, unit_end.unwrap_or(u64::MAX))),
    }
}

fn decode_exemplars(
    reader: &mut Reader<'_>,
    series: u32,
    end: u64,
) -> Result<Vec<ExemplarPage>, ContentError> {
    let mut pages = Vec::new();
    for _ in 0..reader.count(reader.rest().len(), "number of exemplar pages")? {
        let unit = UnitRef::decode(reader, end)?;
        let (first, last) = decode_ids(reader, series)?;
        let count = reader.count(u32::MAX as usize, "number of exemplars")?;
        pages.push(ExemplarPage { unit, first, last, exemplars: count as u32 });
    }
    if !pages.is_sorted_by(|a, b| a.last <= b.first) {
        return Err(impossible("order of exemplar pages", 0, 1));
    }
    Ok(pages)
}

fn decode_starts(
    reader: &mut Reader<'_>,
    series: u32,
    end: u64,
) -> Result<Vec<StartPageEntry>, ContentError> {
    let mut pages = Vec::new();
    for _ in 0..reader.count(reader.rest().len(), "number of pages of start timestamps")? {
        let unit = UnitRef::decode(reader, end)?;
        let (first, last) = decode_ids(reader, series)?;
        let steps = reader.count(PAGE_STEPS_MAX, "number of steps")? as u32;
        pages.push(StartPageEntry { unit, first, last, steps });
    }
    if !pages.is_sorted_by(|a, b| a.last <= b.first) {
        return Err(impossible("order of pages of start timestamps", 0, 1));
    }
    Ok(pages)
}

fn decode_ids(reader: &mut Reader<'_>, series: u32) -> Result<(u32, u32), ContentError> {
    let first = reader.count(SERIES_MAX as usize, "first series")? as u32;
    let last = reader.count(SERIES_MAX as usize, "last series")? as u32 + first;
    if last >= series {
        return Err(impossible("last series", series.saturating_sub(1).into(), last.into()));
    }
    Ok((first, last))
}

impl FrameEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        self.unit.encode(out);
        write::uvarint(out, self.first.into());
        write::uvarint(out, (self.last - self.first).into());
        write::uvarint(out, self.slots.into());
        write::uvarint(out, self.samples);
        self.table.encode(out);
        if let Some(unit) = self.statistics {
            unit.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>, kind: FrameKind, series: u32, end: u64) -> Result<Self, ContentError> {
        let unit = UnitRef::decode(reader, end)?;
        let (first, last) = decode_ids(reader, series)?;
        let slots = reader.count(FRAME_SLOTS_MAX, "number of slots")? as u32;
        let samples = reader.uvarint("number of samples")?;
        let table = UnitRef::decode(reader, end)?;
        let statistics = match kind {
            FrameKind::Float => Some(UnitRef::decode(reader, end)?),
            FrameKind::Histogram => None,
        };
        if slots == 0 || slots - 1 > last - first || (slots == 1) != (first == last) {
            return Err(impossible("number of slots", u64::from(last - first) + 1, slots.into()));
        }
        let most = u64::from(slots) * COLUMN_SAMPLES_MAX as u64;
        if samples < slots.into() || samples > most {
            return Err(impossible("number of samples", most, samples));
        }
        Ok(Self { unit, first, last, slots, samples, table, statistics })
    }
}

impl PartEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        write::uvarint(out, self.priority);
        write::varint(out, self.range.min);
        write::uvarint(out, self.range.max.wrapping_sub(self.range.min) as u64);
        write::uvarint(out, self.slot_samples_max.into());
        write::uvarint(out, self.pages.len() as u64);
        for page in &self.pages {
            page.unit.encode(out);
            write::uvarint(out, page.columns.into());
        }
        for frames in [&self.floats, &self.histograms] {
            write::uvarint(out, frames.len() as u64);
            for frame in frames {
                frame.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>, series: u32, end: u64) -> Result<Self, ContentError> {
        let priority = reader.uvarint("priority")?;
        let min = reader.varint("first timestamp")?;
        let length = reader.uvarint("length in time")?;
        let max = min.checked_add_unsigned(length);
        let max = max.ok_or_else(|| impossible("length in time", i64::MAX as u64, length))?;
        let slot_samples_max = reader.count(COLUMN_SAMPLES_MAX, "samples of a slot")? as u32;
        let mut pages = Vec::new();
        let mut columns = 0_u32;
        // Counts are bounded by what is left to read: no allocation ahead of the bytes.
        for _ in 0..reader.count(reader.rest().len(), "number of timestamp pages")? {
            let unit = UnitRef::decode(reader, end)?;
            let page = TimestampPage {
                unit,
                first: columns,
                columns: reader.count(UNIT_BYTES_MAX as usize, "number of columns")? as u32,
            };
            let sum = columns.checked_add(page.columns);
            columns =
                sum.ok_or_else(|| impossible("number of columns", u32::MAX.into(), page.columns.into()))?;
            pages.push(page);
        }
        let [floats, histograms] =
            [FrameKind::Float, FrameKind::Histogram].map(|kind| decode_frames(reader, kind, series, end));
        let (floats, histograms) = (floats?, histograms?);
        Ok(Self { priority, range: TimeRange::new(min, max), slot_samples_max, pages, floats, histograms })
    }
}

fn decode_frames(
    reader: &mut Reader<'_>,
    kind: FrameKind,
    series: u32,
    end: u64,
) -> Result<Vec<FrameEntry>, ContentError> {
    let count = reader.count(reader.rest().len(), "number of frames")?;
    let mut frames: Vec<FrameEntry> = Vec::new();
    for _ in 0..count {
        let frame = FrameEntry::decode(reader, kind, series, end)?;
        if let Some(last) = frames.last()
            && last.last >= frame.first
        {
            return Err(impossible("first series of a frame", u64::from(last.last) + 1, frame.first.into()));
        }
        frames.push(frame);
    }
    Ok(frames)
}

fn encode_meta(meta: &BlockMeta, out: &mut Vec<u8>) {
    let spec = &meta.spec;
    out.extend_from_slice(&spec.ulid.to_bytes());
    write::prefixed(out, spec.tenant.as_str().as_bytes());
    write::varint(out, spec.range.min);
    write::varint(out, spec.range.max);
    out.push(spec.level);
    write::varint(out, spec.created);
    write::uvarint(out, spec.sources.len() as u64);
    for source in &spec.sources {
        out.extend_from_slice(&source.to_bytes());
    }
    write::uvarint(out, meta.series.into());
    write::uvarint(out, meta.samples);
    write::uvarint(out, meta.histograms);
    write::uvarint(out, meta.exemplars);
}

fn decode_meta(reader: &mut Reader<'_>) -> Result<BlockMeta, ContentError> {
    let ulid = Ulid::from_bytes(reader.array("block id")?);
    let tenant = reader.text(chronolith_model::tenant::TENANT_ID_BYTES_MAX, "tenant")?;
    let tenant = TenantId::new(tenant).map_err(|_| impossible("tenant: length", 1, tenant.len() as u64))?;
    let range = BlockRange::new(reader.varint("start of the range")?, reader.varint("end of the range")?);
    if range.min >= range.max {
        return Err(impossible("end of the range", range.min as u64, range.max as u64));
    }
    let level = reader.u8("level")?;
    let created = reader.varint("time of creation")?;
    let sources = reader.count(SOURCES_MAX, "number of sources")?;
    let sources = (0..sources).map(|_| reader.array("source").map(Ulid::from_bytes));
    let sources = sources.collect::<Result<_, _>>()?;
    let series = reader.count(SERIES_MAX as usize, "number of series")? as u32;
    Ok(BlockMeta {
        spec: BlockSpec { ulid, tenant, range, level, created, sources },
        series,
        samples: reader.uvarint("number of samples")?,
        histograms: reader.uvarint("number of histograms")?,
        exemplars: reader.uvarint("number of exemplars")?,
    })
}
