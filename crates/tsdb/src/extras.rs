//! What goes into a block besides floats: histograms, start timestamps, exemplars.

use std::collections::HashMap;

use chronolith_block::{BlockWriter, Result};
use chronolith_model::{Exemplar, Labels};
use chronolith_storage::{Samples, SeriesExemplars};

/// Exemplars on their way into a block: of each series those that the block is about.
#[derive(Debug, Default)]
pub(crate) struct Exemplars {
    left: HashMap<Labels, Vec<Exemplar>>,
    /// Of series that are in the block, by their ids.
    ready: Vec<(u32, Vec<Exemplar>)>,
}

impl Exemplars {
    pub(crate) fn new(exemplars: Vec<SeriesExemplars>) -> Self {
        let left = exemplars.into_iter().map(|of| (of.labels, of.exemplars)).collect();
        Self { left, ready: Vec::new() }
    }

    /// Notes that series `labels` is in the block, as `id`.
    pub(crate) fn of_series(&mut self, labels: &Labels, id: u32) {
        if self.left.is_empty() {
            return;
        }
        self.ready.extend(self.left.remove(labels).map(|exemplars| (id, exemplars)));
    }

    /// Writes those of the series that are in the block: one without a sample there has no place for them.
    pub(crate) fn write(self, writer: &mut BlockWriter) -> Result<()> {
        for (id, exemplars) in &self.ready {
            writer.push_exemplars(*id, exemplars)?;
        }
        Ok(())
    }
}

/// Adds a series with its samples, of which there are some, to the part of a block that is being written. Returns its id.
pub(crate) fn write_series(writer: &mut BlockWriter, labels: &Labels, samples: &Samples) -> Result<u32> {
    let id = writer.add_series(labels)?;
    writer.push_floats(id, &samples.timestamps, &samples.values)?;
    writer.push_histograms(id, &samples.histogram_timestamps, &samples.histograms)?;
    if !samples.starts.is_empty() {
        let first = samples.timestamps.first().into_iter().chain(samples.histogram_timestamps.first()).min();
        writer.push_starts(id, first.copied().unwrap_or_default(), &samples.starts)?;
    }
    Ok(id)
}
