//! What a block consists of, for people.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chronolith_chunk::dense::{Mode, Transform};
use chronolith_model::TimeRange;

use crate::error::{Result, Section};
use crate::layout::HEADER_BYTES;
use crate::layout::directory::{FrameEntry, FrameKind, PartEntry};
use crate::layout::footer::FOOTER_BYTES;
use crate::{Block, BlockMeta};

/// What a block consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// What it says of itself.
    pub meta: BlockMeta,
    /// Its file.
    pub path: PathBuf,
    /// Length of the file.
    pub bytes: u64,
    /// By section, in the order of [`Section`]; together the whole file.
    pub sections: Vec<SectionBytes>,
    /// Ascending by time.
    pub parts: Vec<PartSummary>,
    /// How slots of floats are encoded, most bytes first.
    pub encodings: Vec<EncodingCount>,
    /// Most bytes first.
    pub metrics: Vec<MetricBytes>,
    /// Steps of start timestamps: one per series and change, of those of which the start is known.
    pub starts: u64,
    /// Tombstones in force.
    pub tombstones: u64,
}

/// One section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionBytes {
    /// Which.
    pub section: Section,
    /// How many pieces are read by themselves; index sections count as one.
    pub units: u64,
    /// Bytes in the file.
    pub bytes: u64,
}

/// One part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSummary {
    /// Of two samples at one timestamp the one in the part of lower priority wins.
    pub priority: u64,
    /// All its samples are inside, both ends included.
    pub range: TimeRange,
    /// Columns of timestamps.
    pub columns: u32,
    /// Frames of both kinds.
    pub frames: u64,
    /// Slots: series of both kinds.
    pub slots: u64,
    /// Float samples.
    pub samples: u64,
    /// Histograms.
    pub histograms: u64,
    /// Most samples of one series.
    pub slot_samples_max: u32,
}

/// How often an encoding was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingCount {
    /// How the numbers became integers.
    pub mode: Mode,
    /// How the integers became fewer bits.
    pub transform: Transform,
    /// As the difference to another slot, or a copy of it.
    pub reference: bool,
    /// Slots.
    pub slots: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes before zstd.
    pub bytes: u64,
}

/// What a metric costs.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricBytes {
    /// Metric name; empty for series without one.
    pub metric: String,
    /// Series.
    pub series: u64,
    /// Float samples and histograms.
    pub samples: u64,
    /// Bytes of frames: each frame's bytes in the file, shared out by what its slots cost before zstd.
    pub bytes: f64,
}

/// Describes a block. Reads all frames and slot tables.
///
/// # Errors
/// When a piece is damaged or cannot be read.
pub fn inspect(block: &Block) -> Result<Summary> {
    let directory = block.directory();
    let (mut names, mut starts) = (Vec::new(), Vec::new());
    let mut visit = |metric: &str, ids: std::ops::Range<u32>| {
        let series = u64::from(ids.end.saturating_sub(ids.start));
        names.push(MetricBytes { metric: metric.to_owned(), series, samples: 0, bytes: 0.0 });
        starts.push(ids.start);
    };
    block.disk_index().for_each_metric(&mut visit).map_err(|error| block.index_error(error))?;
    let mut run = Run { block, metrics: names, starts, encodings: BTreeMap::new() };
    for part in &directory.parts {
        for kind in [FrameKind::Float, FrameKind::Histogram] {
            part.frames(kind).iter().try_for_each(|frame| run.frame(part, kind, frame))?;
        }
    }
    let Run { mut metrics, encodings, .. } = run;
    metrics.sort_by(|a, b| b.bytes.total_cmp(&a.bytes).then_with(|| a.metric.cmp(&b.metric)));
    let mut encodings: Vec<_> = encodings.into_values().collect();
    encodings.sort_by_key(|count| std::cmp::Reverse(count.bytes));
    Ok(Summary {
        meta: directory.meta.clone(),
        path: block.path().to_path_buf(),
        bytes: block.file_bytes(),
        sections: sections(block),
        parts: directory.parts.iter().map(summarise).collect(),
        encodings,
        metrics,
        starts: directory.starts.iter().map(|page| u64::from(page.steps)).sum(),
        tombstones: block.tombstones().len() as u64,
    })
}

struct Run<'a> {
    block: &'a Block,
    metrics: Vec<MetricBytes>,
    /// First id of each metric, ascending.
    starts: Vec<u32>,
    encodings: BTreeMap<(Mode, Transform, bool), EncodingCount>,
}

impl Run<'_> {
    fn frame(&mut self, part: &PartEntry, kind: FrameKind, entry: &FrameEntry) -> Result<()> {
        let source = self.block.source();
        let table = source.slot_table(part, entry, None)?;
        // What each slot weighs: its bytes before zstd, or where they are not known its samples.
        let mut weights = Vec::with_capacity(table.len());
        match kind {
            FrameKind::Histogram => weights.extend(table.columns.iter().map(|column| u64::from(column.len))),
            FrameKind::Float => {
                let frame = source.frame(entry, None)?;
                for (slot, (_, column)) in table.iter().enumerate() {
                    let Some(info) = frame.encoding(slot) else { continue };
                    weights.push(info.bytes as u64);
                    let (mode, transform, reference) = (info.mode, info.transform, info.reference.is_some());
                    let new = EncodingCount { mode, transform, reference, slots: 0, samples: 0, bytes: 0 };
                    let count = self.encodings.entry((mode, transform, reference)).or_insert(new);
                    count.slots += 1;
                    count.samples += u64::from(column.len);
                    count.bytes += info.bytes as u64;
                }
            }
        }
        let all = weights.iter().sum::<u64>().max(1) as f64;
        for ((id, column), weight) in table.iter().zip(weights) {
            let metric = self.starts.partition_point(|start| *start <= id).saturating_sub(1);
            if let Some(metric) = self.metrics.get_mut(metric) {
                metric.samples += u64::from(column.len);
                metric.bytes += f64::from(entry.unit.len) * (weight as f64 / all);
            }
        }
        Ok(())
    }
}

fn summarise(part: &PartEntry) -> PartSummary {
    let samples = |kind| part.frames(kind).iter().map(|frame| frame.samples).sum();
    PartSummary {
        priority: part.priority,
        range: part.range,
        columns: part.columns(),
        frames: (part.floats.len() + part.histograms.len()) as u64,
        slots: part.floats.iter().chain(&part.histograms).map(|frame| u64::from(frame.slots)).sum(),
        samples: samples(FrameKind::Float),
        histograms: samples(FrameKind::Histogram),
        slot_samples_max: part.slot_samples_max,
    }
}

fn sections(block: &Block) -> Vec<SectionBytes> {
    let directory = block.directory();
    let mut sections: BTreeMap<Section, (u64, u64)> = BTreeMap::new();
    let mut add = |section, bytes: u64| {
        let (units, sum) = sections.entry(section).or_default();
        *units += 1;
        *sum += bytes;
    };
    add(Section::Header, HEADER_BYTES);
    for part in &directory.parts {
        part.pages.iter().for_each(|page| add(Section::Timestamps, page.unit.len.into()));
        let floats = part.floats.iter().map(|frame| (Section::ValueFrames, frame));
        let histograms = part.histograms.iter().map(|frame| (Section::HistogramFrames, frame));
        for (section, frame) in floats.chain(histograms) {
            add(section, frame.unit.len.into());
            add(Section::SlotTables, frame.table.len.into());
            if let Some(unit) = frame.statistics {
                add(Section::Statistics, unit.len.into());
            }
        }
    }
    directory.exemplars.iter().for_each(|page| add(Section::Exemplars, page.unit.len.into()));
    directory.starts.iter().for_each(|page| add(Section::Starts, page.unit.len.into()));
    directory.metadata.iter().for_each(|unit| add(Section::Metadata, unit.len.into()));
    add(Section::Dictionaries, directory.dictionaries.len);
    add(Section::Postings, directory.postings.len);
    add(Section::Forward, directory.forward.len);
    add(Section::Hotcache, block.file_bytes() - block.hotcache_off() - FOOTER_BYTES as u64);
    add(Section::Footer, FOOTER_BYTES as u64);
    let list = sections.into_iter();
    list.map(|(section, (units, bytes))| SectionBytes { section, units, bytes }).collect()
}
