//! Exemplars and metadata of the merged block.

use std::collections::{BTreeMap, VecDeque};

use chronolith_model::Exemplar;

use super::Run;
use crate::error::Result;
use crate::extras::SeriesExemplars;
use crate::tombstones::is_deleted;

/// How far one input has been read.
#[derive(Default)]
struct Progress {
    page: usize,
    /// With the ids of the merged block.
    ahead: VecDeque<SeriesExemplars>,
}

impl Run<'_> {
    /// Writes the exemplars of all inputs, of each series by time, each once.
    pub(super) fn write_exemplars(&mut self) -> Result<()> {
        let mut all: Vec<Progress> = self.inputs.iter().map(|_| Progress::default()).collect();
        loop {
            self.check_cancelled()?;
            for (input, progress) in all.iter_mut().enumerate() {
                self.read_ahead(input, progress)?;
            }
            let next = all.iter().filter_map(|progress| progress.ahead.front().map(|(id, _)| *id)).min();
            let Some(id) = next else { return Ok(()) };
            let mut exemplars: Vec<Exemplar> = Vec::new();
            for (input, progress) in all.iter_mut().enumerate() {
                while let Some((_, mut more)) = progress.ahead.pop_front_if(|(head, _)| *head == id) {
                    exemplars.append(&mut more);
                    self.read_ahead(input, progress)?;
                }
            }
            exemplars.sort_by_key(|exemplar| exemplar.timestamp);
            let mut kept: Vec<Exemplar> = Vec::new();
            for exemplar in exemplars {
                let near = kept.iter().rev().take_while(|other| other.timestamp == exemplar.timestamp);
                if !near.into_iter().any(|other| other.same(&exemplar)) {
                    kept.push(exemplar);
                }
            }
            self.writer.push_exemplars(id, &kept)?;
        }
    }

    /// Reads pages of an input until there is something ahead, or no page left.
    fn read_ahead(&self, number: usize, progress: &mut Progress) -> Result<()> {
        let Some(input) = self.inputs.get(number) else { return Ok(()) };
        let mut deleted = Vec::new();
        while progress.ahead.is_empty() && progress.page < input.block.directory().exemplars.len() {
            for (id, mut exemplars) in input.block.exemplar_page(progress.page)? {
                let Some(after) = input.ids.after(id) else { continue };
                input.deletions.ranges(id, &mut deleted);
                exemplars.retain(|e| self.window.contains(e.timestamp) && !is_deleted(&deleted, e.timestamp));
                if !exemplars.is_empty() {
                    progress.ahead.push_back((after, exemplars));
                }
            }
            progress.page += 1;
        }
        Ok(())
    }

    /// Writes the metadata of all inputs; of a metric what the block with the newest samples says.
    pub(super) fn write_metadata(&mut self) -> Result<()> {
        let mut inputs: Vec<_> = self.inputs.iter().map(|input| input.block).collect();
        inputs.sort_by_key(|block| block.samples_range().map(|range| range.max));
        let mut all = BTreeMap::new();
        for block in inputs {
            for metadata in block.metadata()? {
                all.insert(metadata.metric.clone(), metadata);
            }
        }
        all.values().try_for_each(|metadata| self.writer.push_metadata(metadata))
    }
}
