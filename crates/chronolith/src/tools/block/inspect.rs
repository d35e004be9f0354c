//! What blocks say of themselves, and what they consist of.

use std::collections::BTreeMap;

use chronolith_block::{Block, BlockMeta, Summary};
use serde::Serialize;

use super::super::block_files::{BlockFile, BlockFiles, Problems};
use super::super::block_stats::{Encoding, Section, encodings_text, sections_text};
use super::super::format::{Table, bytes, count, per_sample, time};
use super::super::shown;

/// How many metrics are shown to people.
const METRICS_SHOWN: usize = 10;

/// What blocks are there.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    /// By tenant and time.
    blocks: Vec<BlockReport>,
    total: Totals,
    #[serde(flatten)]
    pub(super) problems: Problems,
}

/// A block.
#[derive(Debug, Serialize)]
struct BlockReport {
    file: String,
    ulid: String,
    tenant: String,
    level: u8,
    /// Lower end, which is not included, and upper end, which is.
    range_ms: (i64, i64),
    /// First and last timestamp of samples.
    times_ms: Option<(i64, i64)>,
    created_ms: i64,
    sources: Vec<String>,
    series: u32,
    parts: usize,
    /// Tombstones in force; what they delete is counted like the rest.
    tombstones: usize,
    #[serde(flatten)]
    totals: Totals,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Content>,
}

/// What adds up.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Totals {
    bytes: u64,
    samples: u64,
    histograms: u64,
    exemplars: u64,
    bytes_per_sample: Option<f64>,
}

/// What a block consists of.
#[derive(Debug, Serialize)]
struct Content {
    sections: Vec<Section>,
    parts: Vec<Part>,
    encodings: Vec<Encoding>,
    /// Most bytes first.
    metrics: Vec<Metric>,
}

#[derive(Debug, Serialize)]
struct Part {
    priority: u64,
    times_ms: (i64, i64),
    timestamp_columns: u32,
    frames: u64,
    slots: u64,
    samples: u64,
    histograms: u64,
    longest_slot: u32,
}

#[derive(Debug, Serialize)]
struct Metric {
    metric: String,
    series: u64,
    samples: u64,
    /// Of frames, which series share: each as much as its slots take of it.
    bytes: f64,
}

/// Describes all files; those given by name are read.
///
/// # Errors
/// When the system refuses a file that was given by name.
pub(super) fn inspect(mut files: BlockFiles) -> anyhow::Result<Report> {
    let directory = files.directory.clone();
    let described = files.describe(block_report)?;
    let mut blocks = Vec::new();
    for (file, _, mut report) in described {
        if directory.is_none() {
            report.content = content(&mut files, &file)?;
        }
        blocks.push(report);
    }
    let total = blocks.iter().fold(Totals::default(), |sum, block| sum.plus(&block.totals));
    Ok(Report { directory, blocks, total, problems: files.problems })
}

fn content(files: &mut BlockFiles, file: &BlockFile) -> anyhow::Result<Option<Content>> {
    let Some(block) = files.open(file)? else { return Ok(None) };
    Ok(match chronolith_block::inspect(&block) {
        Ok(summary) => Some(Content::new(&summary)),
        Err(error) => {
            files.problems.note(&file.path, &error);
            None
        }
    })
}

fn block_report(block: &Block) -> BlockReport {
    let BlockMeta { spec, series, samples, histograms, exemplars } = block.meta();
    let totals = Totals {
        bytes: block.file_bytes(),
        samples: *samples,
        histograms: *histograms,
        exemplars: *exemplars,
        bytes_per_sample: None,
    };
    BlockReport {
        file: shown(block.path()),
        ulid: spec.ulid.to_string(),
        tenant: spec.tenant.to_string(),
        level: spec.level,
        range_ms: (spec.range.min, spec.range.max),
        times_ms: block.samples_range().map(|range| (range.min, range.max)),
        created_ms: spec.created,
        sources: spec.sources.iter().map(ToString::to_string).collect(),
        series: *series,
        parts: block.parts(),
        tombstones: block.tombstones().len(),
        totals: Totals::default().plus(&totals),
        content: None,
    }
}

impl Totals {
    fn plus(&self, other: &Self) -> Self {
        let mut sum = Self {
            bytes: self.bytes + other.bytes,
            samples: self.samples + other.samples,
            histograms: self.histograms + other.histograms,
            exemplars: self.exemplars + other.exemplars,
            bytes_per_sample: None,
        };
        let all = sum.all_samples();
        sum.bytes_per_sample = (all > 0).then(|| sum.bytes as f64 / all as f64);
        sum
    }

    fn all_samples(&self) -> u64 {
        self.samples + self.histograms
    }
}

impl Content {
    fn new(summary: &Summary) -> Self {
        let parts = summary.parts.iter().map(|part| Part {
            priority: part.priority,
            times_ms: (part.range.min, part.range.max),
            timestamp_columns: part.columns,
            frames: part.frames,
            slots: part.slots,
            samples: part.samples,
            histograms: part.histograms,
            longest_slot: part.slot_samples_max,
        });
        let metrics = summary.metrics.iter().map(|metric| Metric {
            metric: metric.metric.clone(),
            series: metric.series,
            samples: metric.samples,
            bytes: metric.bytes,
        });
        let mut sections = BTreeMap::new();
        Section::add_all(&mut sections, summary);
        let mut encodings = BTreeMap::new();
        Encoding::add_all(&mut encodings, summary);
        Self {
            sections: Section::list(sections, summary.meta.samples + summary.meta.histograms),
            parts: parts.collect(),
            encodings: Encoding::list(encodings),
            metrics: metrics.collect(),
        }
    }

    fn text(&self, all_samples: u64) -> String {
        let mut out = format!("\n{}", sections_text(&self.sections, all_samples));
        let mut table = Table::new(&[
            "part",
            "first sample",
            "last sample",
            "frames",
            "slots",
            "samples",
            "histograms",
            "timestamp columns",
            "longest slot",
        ]);
        for part in &self.parts {
            table.row([
                part.priority.to_string(),
                time(part.times_ms.0),
                time(part.times_ms.1),
                part.frames.to_string(),
                part.slots.to_string(),
                part.samples.to_string(),
                part.histograms.to_string(),
                part.timestamp_columns.to_string(),
                part.longest_slot.to_string(),
            ]);
        }
        out.push_str(&format!("\n{}", table.text()));
        out.push_str(&format!("\n{}", encodings_text(&self.encodings)));
        let mut table = Table::new(&["metric", "series", "samples", "bytes", "bytes/sample"]);
        for metric in self.metrics.iter().take(METRICS_SHOWN) {
            table.row([
                metric.metric.clone(),
                metric.series.to_string(),
                metric.samples.to_string(),
                bytes(metric.bytes as u64),
                per_sample(metric.bytes, metric.samples),
            ]);
        }
        out.push_str(&format!("\n{}", table.text()));
        let rest = self.metrics.len().saturating_sub(METRICS_SHOWN);
        if rest > 0 {
            out.push_str(&format!("and {} of fewer bytes\n", count(rest as u64, "metric")));
        }
        out
    }
}

impl Report {
    pub(super) fn text(&self) -> String {
        let mut table = Table::new(&[
            "block",
            "tenant",
            "level",
            "from, not included",
            "to",
            "series",
            "samples",
            "histograms",
            "bytes",
            "bytes/sample",
            "parts",
            "tombstones",
        ]);
        for block in &self.blocks {
            let name = &block.ulid;
            let cells = [
                block.tenant.clone(),
                block.level.to_string(),
                time(block.range_ms.0),
                time(block.range_ms.1),
                block.series.to_string(),
            ];
            let ends = [block.parts.to_string(), block.tombstones.to_string()];
            table.row(std::iter::once(name.clone()).chain(cells).chain(block.totals.cells()).chain(ends));
        }
        let blanks = || std::iter::repeat_n("".to_owned(), 5);
        table.row(std::iter::once("total".to_owned()).chain(blanks()).chain(self.total.cells()));
        let mut out = table.text();
        for block in &self.blocks {
            let Some(content) = &block.content else { continue };
            if self.blocks.len() > 1 {
                out.push_str(&format!("\n{}:\n", block.file));
            }
            out.push_str(&content.text(block.totals.all_samples()));
        }
        out.push_str(&self.problems.text());
        out
    }
}

impl Totals {
    fn cells(&self) -> [String; 4] {
        [
            self.samples.to_string(),
            self.histograms.to_string(),
            bytes(self.bytes),
            per_sample(self.bytes as f64, self.all_samples()),
        ]
    }
}
