//! Copies of everything: blocks by further names, or byte by byte where the file system has none; the head as a block.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use chronolith_block::{BlockRange, BlockSpec, BlockWriter, block_path, series_order, tombstones_path};
use chronolith_head::HeadView;
use chronolith_model::{Labels, TenantId, TimeRange};
use chronolith_storage::{ExemplarQuery, Samples};

use crate::{
    blocks::Version,
    deletion,
    dir::{blocks, write_format},
    extras::{self, Exemplars},
    files::link_or_copy,
    store::Store,
};

/// Where copies are, in the data directory.
const DIR: &str = "snapshots";
/// Series of the head that are copied at a time.
const SERIES_AT_ONCE: usize = 1024;
/// A series may have so many samples in one part of a block.
const PART_SAMPLES_MAX: usize = 1 << 16;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// The file system refused.
    #[error("cannot copy the database")]
    File(#[from] chronolith_env::Error),
    /// A block cannot be written.
    #[error("cannot copy the head into a block")]
    Block(#[from] chronolith_block::Error),
    /// What is in the head cannot be read.
    #[error("cannot read the head")]
    Read(#[from] chronolith_head::ReadError),
}

/// A copy that is being made.
struct Copy<'a> {
    store: &'a Store,
    dir: PathBuf,
    version: Arc<Version>,
}

/// Makes a copy; returns its name.
pub(super) fn make(store: &Store, skip_head: bool) -> Result<String, CopyError> {
    // No block goes meanwhile; and while the version lives, the head keeps what is not in its blocks.
    let _no_merge = store.without_merges();
    let dirs = store.dir.join(DIR);
    let mut name = store.blocks.next_ulid().to_string();
    // The rest of an attempt that failed may be there: numbers are given out again where the clock was ahead before.
    while store.env.fs.exists(&dirs.join(&name))? {
        name = store.blocks.next_ulid().to_string();
    }
    let dir = dirs.join(&name);
    let copy = Copy { store, dir, version: store.blocks.version() };
    match copy.write(skip_head) {
        Ok(()) => Ok(name),
        Err(error) => {
            copy.remove();
            Err(error)
        }
    }
}

impl Copy<'_> {
    fn write(&self, skip_head: bool) -> Result<(), CopyError> {
        let fs = &self.store.env.fs;
        fs.create_dir_all(&blocks(&self.dir))?;
        for (tenant, of) in &self.version.tenants {
            let from = self.store.blocks.tenant_dir(tenant);
            let to = blocks(&self.dir).join(tenant.as_str());
            fs.create_dir_all(&to)?;
            for block in &of.blocks {
                let ulid = block.meta().spec.ulid;
                // The tombstones first: a block without them would show what is deleted.
                match link_or_copy(&**fs, &tombstones_path(&from, ulid), &tombstones_path(&to, ulid)) {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
                link_or_copy(&**fs, &block_path(&from, ulid), &block_path(&to, ulid))?;
            }
            fs.sync_dir(&to)?;
        }
        if !skip_head {
            for tenant in self.store.head.tenant_ids() {
                self.write_head(&tenant)?;
            }
        }
        // Last: without it, the directory is none that anyone opens.
        write_format(&**fs, &self.dir)?;
        Ok(())
    }

    /// Writes what a tenant has in the head.
    fn write_head(&self, tenant: &TenantId) -> Result<(), CopyError> {
        let head = &self.store.head;
        let Some(times) = head.times() else { return Ok(()) };
        let view = HeadView::open_from(Arc::clone(head), tenant, TimeRange::ALL, self.version.head_from);
        let selection = view.select(&[]);
        let mut series: Vec<(Labels, u32)> = selection.labels.into_iter().zip(selection.series).collect();
        series.sort_by(|a, b| series_order(&a.0, &b.0));
        let mut ranges = vec![times];
        while let Some(range) = ranges.pop() {
            if !self.write_block(tenant, &view, &series, range)? && range.min < range.max {
                let middle = range.min.midpoint(range.max);
                ranges.push(TimeRange::new(middle + 1, range.max));
                ranges.push(TimeRange::new(range.min, middle));
            }
        }
        Ok(())
    }

    /// Writes a block of what `series` have in `range`; false if that is too much for one.
    fn write_block(
        &self,
        tenant: &TenantId,
        view: &HeadView,
        series: &[(Labels, u32)],
        range: TimeRange,
    ) -> Result<bool, CopyError> {
        let (store, env) = (self.store, &self.store.env);
        let ulid = store.blocks.next_ulid();
        let spec = BlockSpec {
            ulid,
            tenant: tenant.clone(),
            range: BlockRange::new(range.min.saturating_sub(1), range.max),
            level: 1,
            created: env.clock.now_ms(),
            sources: vec![ulid],
        };
        let dir = blocks(&self.dir).join(tenant.as_str());
        env.fs.create_dir_all(&dir)?;
        let mut writer = BlockWriter::create(&env.fs, &dir, spec)?;
        writer.begin_part(store.blocks.next_priority())?;
        let mut samples = Samples::default();
        let behind = self.version.head_from.boundary().saturating_add(1);
        let in_head = TimeRange::new(range.min.max(behind), range.max);
        let query = ExemplarQuery { matcher_sets: vec![Vec::new()], range: in_head, payer: None };
        let mut in_head = view.exemplars(&query);
        for of in &mut in_head {
            let deleted = deletion::deleted(&self.version.deletions, tenant, &of.labels);
            of.exemplars.retain(|exemplar| !deleted.iter().any(|range| range.contains(exemplar.timestamp)));
        }
        let mut exemplars = Exemplars::new(in_head);
        for some in series.chunks(SERIES_AT_ONCE) {
            let numbers: Vec<u32> = some.iter().map(|(_, number)| *number).collect();
            let fetched = view.fetch(&numbers, range);
            for (at, (labels, _)) in some.iter().enumerate() {
                samples.clear();
                let mut unread = Vec::new();
                fetched.read_rest(at, &mut samples, &mut unread)?;
                if let Some(error) = unread.first().map(|chunk| chunk.error().clone()) {
                    // Made again from the log, if that has it: another attempt may succeed.
                    view.note_unread(unread);
                    return Err(error.into());
                }
                let deleted = deletion::deleted(&self.version.deletions, tenant, labels);
                deletion::remove(&mut samples, (0, 0, 0), &deleted);
                if samples.newest().is_none() {
                    continue;
                }
                if samples.len().max(samples.histograms.len()) > PART_SAMPLES_MAX {
                    return Ok(false);
                }
                let id = extras::write_series(&mut writer, labels, &samples)?;
                exemplars.of_series(labels, id);
            }
        }
        writer.end_part()?;
        if writer.series() > 0 {
            exemplars.write(&mut writer)?;
            writer.finish()?;
        }
        Ok(true)
    }

    /// Removes what there is of it.
    fn remove(&self) {
        let fs = &self.store.env.fs;
        let remove_all = |dir: &Path| {
            for name in fs.list(dir).unwrap_or_default() {
                let _ = fs.remove_file(&dir.join(name));
            }
            let _ = fs.remove_dir(dir);
        };
        let all = blocks(&self.dir);
        for tenant in fs.list(&all).unwrap_or_default() {
            remove_all(&all.join(tenant));
        }
        remove_all(&all);
        remove_all(&self.dir);
    }
}
