//! Reading blocks whole.

use serde::Serialize;

use super::super::block_files::{BlockFiles, Problems};
use super::super::format::{bytes, count};
use super::super::{Verdict, shown};

/// What a verification has found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    blocks: Vec<BlockReport>,
    total: Totals,
    /// Blocks with damage.
    damaged_blocks: u64,
    #[serde(flatten)]
    pub(super) problems: Problems,
}

/// A block.
#[derive(Debug, Serialize)]
struct BlockReport {
    file: String,
    /// Whether all of it is.
    intact: bool,
    #[serde(flatten)]
    totals: Totals,
}

/// What has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Totals {
    bytes: u64,
    /// Pieces with a checksum of their own.
    units: u64,
    series: u64,
    /// Float samples decoded.
    samples: u64,
    /// Histograms decoded.
    histograms: u64,
    /// Label pairs whose series were compared.
    pairs: u64,
}

/// Verifies all files.
///
/// # Errors
/// When the system refuses a file that was given by name.
pub(super) fn verify(mut files: BlockFiles) -> anyhow::Result<Report> {
    let directory = files.directory.clone();
    let (mut blocks, mut total, mut damaged_blocks) = (Vec::new(), Totals::default(), 0);
    for file in files.files.clone() {
        let before = files.problems.damage_count;
        let mut totals = Totals::default();
        let block = files.open(&file)?;
        let opened = block.is_some();
        if let Some(block) = block {
            match chronolith_block::verify(&block, &|| false) {
                Ok(found) => {
                    for problem in found.problems {
                        files.problems.note(&file.path, &problem);
                    }
                    totals = Totals {
                        bytes: found.bytes,
                        units: found.units,
                        series: block.meta().series.into(),
                        samples: found.samples,
                        histograms: found.histograms,
                        pairs: found.pairs,
                    };
                }
                Err(error) => files.problems.note(&file.path, &error),
            }
        }
        let intact = files.problems.damage_count == before;
        damaged_blocks += u64::from(!intact);
        if opened {
            total.add(&totals);
            blocks.push(BlockReport { file: shown(&file.path), intact, totals });
        }
    }
    Ok(Report { directory, blocks, total, damaged_blocks, problems: files.problems })
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.units += other.units;
        self.series += other.series;
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.pairs += other.pairs;
    }
}

impl Report {
    pub(super) fn text(&self) -> String {
        let mut out = self.problems.text();
        let Totals { units, series, samples, histograms, .. } = self.total;
        let read = format!(
            "{}, {}, {}, {} series, {}, {}",
            count(self.blocks.len() as u64, "block"),
            bytes(self.total.bytes),
            count(units, "unit"),
            series,
            count(samples, "sample"),
            count(histograms, "histogram"),
        );
        out.push_str(&match self.problems.damage_count {
            0 if self.problems.seen() != Verdict::Clean => {
                format!("not all can be looked at; clean: {read}\n")
            }
            0 => format!("clean: {read}\n"),
            n => format!(
                "damaged: {} in {}; read: {read}\n",
                count(n, "place"),
                count(self.damaged_blocks, "block")
            ),
        });
        out
    }
}
