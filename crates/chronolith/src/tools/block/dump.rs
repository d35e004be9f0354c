//! Printing samples.

use std::collections::HashMap;
use std::io::{self, Write};

use anyhow::Context as _;
use chronolith_block::{Block, BlockMeta, SeriesReader, SeriesSamples};
use chronolith_model::{Labels, MetricMetadata, TimeRange};

use super::super::block_files::{BlockFile, BlockFiles, Problems};
use super::super::selector::Selector;
use super::beside::Beside;
use super::lines;

/// Series whose labels are in memory at a time.
const BATCH_SERIES: usize = 4096;

/// A dump.
pub(super) struct Dump<W> {
    files: BlockFiles,
    series: Option<Selector>,
    range: TimeRange,
    json: bool,
    out: W,
    line: String,
    /// Of the metrics of the block none of whose series has been printed.
    metadata: HashMap<String, MetricMetadata>,
}

/// Why a dump has ended early.
enum Stop {
    /// Nobody reads any more.
    Unread,
    Failed(anyhow::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(anyhow::Error::new(error).context("cannot write the samples")),
        }
    }
}

impl<W: Write> Dump<W> {
    pub(super) fn new(
        files: BlockFiles,
        series: Option<Selector>,
        range: TimeRange,
        json: bool,
        out: W,
    ) -> Self {
        Self { files, series, range, json, out, line: String::new(), metadata: HashMap::new() }
    }

    /// Prints all. What could not be read is answered.
    ///
    /// # Errors
    /// When the samples cannot be written, or the system refuses a file that was given by name. A reader that hangs up
    /// early is no error.
    pub(super) fn run(mut self) -> anyhow::Result<Problems> {
        let range = self.range;
        let described = self.files.describe(|block| block.samples_range())?;
        for (file, meta, times) in described {
            if !times.is_some_and(|times| times.overlaps(&range)) {
                continue;
            }
            match self.file(&file, &meta) {
                Ok(()) => {}
                Err(Stop::Unread) => return Ok(self.files.problems),
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        match self.out.flush().map_err(Stop::from) {
            Err(Stop::Failed(error)) => Err(error),
            _ => Ok(self.files.problems),
        }
    }

    fn file(&mut self, file: &BlockFile, meta: &BlockMeta) -> Result<(), Stop> {
        let Some(block) = self.files.open(file).map_err(Stop::Failed)? else { return Ok(()) };
        let matchers = self.series.as_ref().map(Selector::matchers).unwrap_or_default();
        let selected = match block.select(matchers) {
            Ok(selected) => selected,
            Err(error) => {
                self.files.problems.note(&file.path, &error);
                return Ok(());
            }
        };
        if selected.is_empty() {
            return Ok(());
        }
        if !self.json {
            writeln!(self.out, "# block {} of tenant {}", meta.spec.ulid, meta.spec.tenant)?;
        }
        match block.metadata() {
            Ok(known) => self.metadata = known.into_iter().map(|of| (of.metric.clone(), of)).collect(),
            Err(error) => {
                self.metadata.clear();
                self.files.problems.note(&file.path, &error);
            }
        }
        let mut reader = block.reader();
        let mut ids = Vec::with_capacity(BATCH_SERIES);
        for id in selected.iter() {
            ids.push(id);
            if ids.len() == BATCH_SERIES {
                self.batch(file, &block, &mut reader, &ids)?;
                ids.clear();
            }
        }
        self.batch(file, &block, &mut reader, &ids)
    }

    /// Prints the series `ids`, which ascend.
    fn batch(
        &mut self,
        file: &BlockFile,
        block: &Block,
        reader: &mut SeriesReader<'_>,
        ids: &[u32],
    ) -> Result<(), Stop> {
        let labels = match block.labels(&ids.iter().copied().collect()) {
            Ok(labels) => labels,
            Err(error) => {
                self.files.problems.note(&file.path, &error);
                return Ok(());
            }
        };
        let mut samples = SeriesSamples::default();
        let mut exemplars = match block.exemplars(&ids.iter().copied().collect(), self.range) {
            Ok(exemplars) => exemplars.into_iter().collect(),
            Err(error) => {
                self.files.problems.note(&file.path, &error);
                HashMap::new()
            }
        };
        for (id, labels) in ids.iter().zip(&labels) {
            samples.clear();
            let exemplars = exemplars.remove(id).unwrap_or_default();
            match reader.read(*id, self.range, &mut samples) {
                Ok(()) if samples.is_empty() && exemplars.is_empty() => {}
                Ok(()) => {
                    let metadata = labels.metric_name().and_then(|metric| self.metadata.remove(metric));
                    let beside = Beside { exemplars: &exemplars, metadata: metadata.as_ref() };
                    self.print(block, labels, &samples, beside)?;
                }
                // The other series may be whole.
                Err(error) => self.files.problems.note(&file.path, &error),
            }
        }
        Ok(())
    }

    fn print(
        &mut self,
        block: &Block,
        labels: &Labels,
        samples: &SeriesSamples,
        beside: Beside<'_>,
    ) -> Result<(), Stop> {
        if self.json {
            let line = lines::Json::new(block.meta(), labels, samples, beside);
            serde_json::to_writer(&mut self.out, &line).map_err(|error| match error.io_error_kind() {
                Some(kind) => Stop::from(io::Error::from(kind)),
                None => Stop::Failed(anyhow::Error::new(error)),
            })?;
            return Ok(self.out.write_all(b"\n")?);
        }
        self.line.clear();
        let failed = |error: std::fmt::Error| Stop::Failed(error.into());
        beside.text_before(&mut self.line).map_err(failed)?;
        lines::text(labels, samples, &mut self.line).context("cannot write a line").map_err(Stop::Failed)?;
        beside.text_behind(labels, &mut self.line).map_err(failed)?;
        Ok(self.out.write_all(self.line.as_bytes())?)
    }
}
