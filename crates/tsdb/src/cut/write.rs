//! Writing the block of a tenant and a window.

use std::{error::Error, path::PathBuf};

use chronolith_block::{BlockRange, BlockSpec, BlockWriter, Ulid};
use chronolith_head::{Cut, Loss, ReadError};
use chronolith_model::{Labels, METRIC_NAME, TenantId, TimeRange};
use chronolith_storage::Samples;

use crate::{
    extras::{self, Exemplars},
    store::Store,
};

/// A series may have so many samples in one part of a block.
const PART_SAMPLES_MAX: usize = 1 << 16;

/// Why a cut cannot be written now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    /// A block cannot be written or opened.
    #[error("cannot write a block")]
    Block(#[from] chronolith_block::Error),
    /// The directory of a tenant cannot be made.
    #[error(transparent)]
    Directory(#[from] chronolith_env::Error),
    /// What is in the head cannot be read.
    #[error("cannot read {labels} in the head")]
    Read {
        /// Of which series.
        labels: Labels,
        /// Why.
        source: ReadError,
    },
    /// The database is being closed.
    #[error("the database is shutting down")]
    Stopped,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing: there is no sample.
    Nothing,
    /// The block. It is durable.
    Block,
    /// Nothing: a series has more samples than a part can have.
    TooDense,
}

/// Writes block `ulid`: what a cut has of `tenant` in `window`. With `lossy`, series whose chunks in memory contradict
/// themselves are left out as far as they do, and what is lost so goes to it.
pub(crate) fn block(
    store: &Store,
    cut: &Cut,
    (tenant, ulid): (&TenantId, Ulid),
    window: TimeRange,
    mut lossy: Option<&mut Vec<Loss>>,
) -> Result<Written, CutError> {
    let max = window.max.min(cut.boundary());
    let min = window.min.saturating_sub(1);
    if min >= max {
        return Ok(Written::Nothing);
    }
    let spec = BlockSpec {
        ulid,
        tenant: tenant.clone(),
        range: BlockRange::new(min, max),
        level: 1,
        created: store.env.clock.now_ms(),
        sources: vec![ulid],
    };
    let dir = store.blocks.tenant_dir(tenant);
    store.env.fs.create_dir_all(&dir)?;
    let mut writer = BlockWriter::create(&store.env.fs, &dir, spec)?;
    writer.begin_part(store.blocks.next_priority())?;
    let mut metrics: Vec<String> = Vec::new();
    let mut samples = Samples::default();
    let mut exemplars = exemplars_of(store, cut, tenant, TimeRange::new(window.min, max));
    for entries in store.head.cut_series(cut, tenant, window) {
        if store.stopping() {
            return Err(CutError::Stopped);
        }
        for entry in entries {
            samples.clear();
            let read = store.head.read_cut(cut, entry.reference, window, &mut samples);
            match read {
                Err(error @ ReadError::Chunk(_)) if lossy.is_some() && !store.head.has_unread() => {
                    lost(&entry.labels, &error);
                    if let Some(losses) = &mut lossy {
                        losses.push(loss(tenant, TimeRange::new(window.min, max)));
                    }
                }
                Err(source) => return Err(CutError::Read { labels: entry.labels, source }),
                Ok(()) => {}
            }
            if samples.newest().is_none() {
                continue;
            }
            if samples.len().max(samples.histograms.len()) > PART_SAMPLES_MAX {
                return Ok(Written::TooDense);
            }
            let id = extras::write_series(&mut writer, &entry.labels, &samples)?;
            exemplars.of_series(&entry.labels, id);
            let metric = entry.labels.get(METRIC_NAME).unwrap_or_default();
            if metrics.last().is_none_or(|last| last != metric) {
                metrics.push(metric.to_owned());
            }
        }
    }
    writer.end_part()?;
    if writer.series() == 0 {
        return Ok(Written::Nothing);
    }
    for metadata in metrics.iter().flat_map(|metric| store.metadata.get(tenant, Some(metric))) {
        writer.push_metadata(&metadata)?;
    }
    exemplars.write(&mut writer)?;
    writer.finish()?;
    Ok(Written::Block)
}

/// The exemplars that belong to a block of `range`.
fn exemplars_of(store: &Store, cut: &Cut, tenant: &TenantId, range: TimeRange) -> Exemplars {
    let mut of_cut = store.head.cut_exemplars(cut, tenant);
    for of_series in &mut of_cut {
        of_series.exemplars.retain(|exemplar| range.contains(exemplar.timestamp));
    }
    of_cut.retain(|of_series| !of_series.exemplars.is_empty());
    Exemplars::new(of_cut)
}

/// Some samples of a series, nobody knows how many.
fn loss(tenant: &TenantId, range: TimeRange) -> Loss {
    Loss { tenant: Some(tenant.clone()), range, samples: None, series: 1, path: PathBuf::new(), offset: 0 }
}

/// What was read before the damage is kept.
fn lost(labels: &Labels, error: &(dyn Error + 'static)) {
    tracing::error!(error, %labels, "samples of the head cannot be read and are left out of the block");
}
