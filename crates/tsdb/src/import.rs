//! Imports: samples of any age that go straight into blocks, beside the head and the log.
//!
//! What comes is kept in memory up to a bound, then sorted and written as runs, one per window of time; in the end the
//! runs of each window are merged into a block. All blocks of an import are shown at once. Until then everything lies in
//! a directory of its own, `<data-dir>/import/<number>`, which the next start removes; once the file `ready` in it is
//! durable, the next start finishes what is left to do instead.
//!
//! What is there already counts: where the head or an older block has another value for a sample of an import, that is the
//! one that is read. What arrives while an import is being finished comes after it. A deletion is about what was shown
//! when it was made: an import that is shown later is not meant.

mod publish;
mod run;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use chronolith_block::Ulid;
use chronolith_model::{Labels, TenantId, TimeRange, Timestamp};
use chronolith_storage::{BudgetExceeded, Reservation, Samples};

pub(crate) use self::publish::recover;
use self::run::Runs;
use crate::{
    compaction::plan_options,
    db::Db,
    options::to_millis,
    query::merge::{Start, end, settle},
    store::Store,
};

/// Imports are written in windows of at most this, in milliseconds, if blocks may be as long.
const WINDOW_MAX_MS: i64 = 86_400_000;
/// This part of the memory limit of the head is what an import may keep besides ...
const MEMORY_PART: usize = 16;
/// ... within these bounds, in bytes.
const MEMORY_MIN: usize = 1 << 20;
const MEMORY_MAX: usize = 256 << 20;
/// What a series and a sample take beside their content, in bytes, about.
const SERIES_BYTES: usize = 256;
const SAMPLE_BYTES: usize = 16;
const HISTOGRAM_BYTES: usize = 128;
const RUN_BYTES: usize = 32;

/// Samples on their way into blocks. Nothing of them is visible before [`Importer::finish`]; dropping it forgets them.
#[derive(Debug)]
pub struct Importer {
    store: Arc<Store>,
    tenant: TenantId,
    dir: PathBuf,
    window_ms: i64,
    /// What is in memory; where the appended pieces of a series begin.
    series: HashMap<Labels, (Samples, Vec<Start>)>,
    bytes: usize,
    bytes_max: usize,
    /// As many bytes, out of what all share.
    memory: Reservation,
    /// By the begin of their window.
    runs: BTreeMap<Timestamp, Runs>,
    report: ImportReport,
    /// The directory is not to be removed.
    committed: bool,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// Samples that are stored now. Some of them may be in older blocks as well, whose values count.
    pub samples: u64,
    /// Samples that the import or the head had already, whatever the value. Those of the head are in the blocks too, with
    /// the value that they have there.
    pub duplicates: u64,
    /// Samples refused because they are out of retention.
    pub too_old: u64,
    /// Samples refused because they are too far in the future.
    pub too_new: u64,
    /// Runs written on the way.
    pub runs: u64,
    /// Blocks written.
    pub blocks: u64,
}

/// Why something cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A run or a block cannot be written or read.
    #[error("cannot write a block of the import")]
    Block(#[from] chronolith_block::Error),
    /// The file system refuses.
    #[error("cannot use the directory of the import")]
    File(#[from] chronolith_env::Error),
    /// What is in the head cannot be read, and so it is not known what it has already.
    #[error("cannot read the head")]
    Read(#[from] chronolith_head::ReadError),
    /// The samples of a series are not sorted by time, or one is a float and a histogram.
    #[error("the samples of {labels} are not sorted by time")]
    Unsorted {
        /// Of which series.
        labels: Labels,
    },
    /// A series has no labels.
    #[error("a series without labels")]
    NoLabels,
    /// There is not enough memory left at the moment, although what was kept has been written out.
    #[error("not enough memory for an import now")]
    Memory(#[from] BudgetExceeded),
    /// The disk is nearly full.
    #[error("the disk is nearly full; free some space, or lower storage.disk_reserve")]
    DiskShort,
    /// The database is being closed.
    #[error("the database is shutting down")]
    Stopped,
    /// It is stored, and is shown after the next start.
    #[error("the import is complete, but cannot be shown before the next start")]
    NotShown(#[source] chronolith_block::Error),
    /// Nobody knows whether it is stored: that could neither be made durable nor be taken back. Nothing of it is shown now;
    /// after the next start all of it is, or nothing. It may be repeated: what is there twice counts once.
    #[error(
        "the import may be shown after the next start or be gone: the file system refused to make it durable, and to take \
         that back; it may be repeated"
    )]
    Uncertain(#[source] chronolith_env::Error),
}

impl Db {
    /// Begins an import of samples of `tenant`.
    ///
    /// # Errors
    /// When the database is being closed, or the file system refuses.
    pub fn import(&self, tenant: &TenantId) -> Result<Importer, ImportError> {
        Importer::new(Arc::clone(&self.store), tenant)
    }
}

impl Importer {
    fn new(store: Arc<Store>, tenant: &TenantId) -> Result<Self, ImportError> {
        if store.stopping() {
            return Err(ImportError::Stopped);
        }
        let dir = publish::dir(&store.dir).join(store.blocks.next_ulid().to_string());
        store.env.fs.create_dir_all(&publish::runs(&dir))?;
        store.env.fs.create_dir_all(&publish::finished(&dir, tenant))?;
        let levels = plan_options(&store).levels;
        let fitting = levels.lengths_ms().iter().copied().filter(|length| *length <= WINDOW_MAX_MS);
        let window_ms = fitting.max().unwrap_or(chronolith_head::WINDOW_MS);
        let bytes_max = (store.options.memory_bytes_max / MEMORY_PART).clamp(MEMORY_MIN, MEMORY_MAX);
        let memory = store.memory().nothing();
        Ok(Self {
            store,
            tenant: tenant.clone(),
            dir,
            window_ms,
            series: HashMap::new(),
            bytes: 0,
            bytes_max,
            memory,
            runs: BTreeMap::new(),
            report: ImportReport::default(),
            committed: false,
        })
    }

    /// Adds samples of a series, sorted by time. A series may come in any number of pieces, in any order; where pieces
    /// have the same sample, that of the first counts. What is out of retention, or too far in the future, is counted and
    /// left out.
    ///
    /// # Errors
    /// When the samples are not sorted, or memory is full and cannot be written out.
    pub fn append(&mut self, labels: &Labels, samples: &Samples) -> Result<(), ImportError> {
        if labels.is_empty() {
            return Err(ImportError::NoLabels);
        }
        let ascend = |times: &[Timestamp]| times.is_sorted_by(|a, b| a < b);
        let both = |t: &Timestamp| samples.histogram_timestamps.binary_search(t).is_ok();
        if !ascend(&samples.timestamps)
            || !ascend(&samples.histogram_timestamps)
            || samples.timestamps.iter().any(both)
        {
            return Err(ImportError::Unsorted { labels: labels.clone() });
        }
        let now = self.store.env.clock.now_ms();
        let newest = now.saturating_add(to_millis(self.store.options.future_max));
        let taken = TimeRange::new(self.store.head.floor(), newest);
        let too = |past: fn(&TimeRange, &Timestamp) -> bool| {
            let all = samples.timestamps.iter().chain(&samples.histogram_timestamps);
            all.filter(|t| past(&taken, t)).count() as u64
        };
        self.report.too_old += too(|taken, t| *t < taken.min);
        self.report.too_new += too(|taken, t| *t > taken.max);
        self.charge(labels, samples)?;
        let (all, pieces) = self.series.entry(labels.clone()).or_default();
        pieces.push(end(all));
        let floats = samples.timestamps.iter().zip(&samples.values).filter(|(t, _)| taken.contains(**t));
        floats.for_each(|(t, value)| all.push(*t, *value));
        let mut before = None;
        let histograms = samples.histogram_timestamps.iter().zip(&samples.histograms);
        for (t, histogram) in histograms.filter(|(t, _)| taken.contains(**t)) {
            let mut own = histogram.clone();
            // Whoever sends it may have had another one before it.
            own.set_hint(histogram.hint_after(before));
            before = Some(histogram);
            all.push_histogram(*t, own);
        }
        all.starts.extend_from_slice(&samples.starts);
        if self.bytes > self.bytes_max { self.flush() } else { Ok(()) }
    }

    /// Reserves the memory for samples to come. Where it is not left, what is kept is written out first.
    fn charge(&mut self, labels: &Labels, samples: &Samples) -> Result<(), ImportError> {
        let content = samples.histograms.iter().map(|histogram| histogram.heap_bytes() + HISTOGRAM_BYTES);
        let columns = (samples.timestamps.len() + samples.starts.len()) * SAMPLE_BYTES + RUN_BYTES;
        let text: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        let series = if self.series.contains_key(labels) { 0 } else { 2 * text + SERIES_BYTES };
        let mut bytes = content.sum::<usize>() + columns;
        if self.memory.grow(bytes + series).is_ok() {
            bytes += series;
        } else {
            self.flush()?;
            bytes += 2 * text + SERIES_BYTES;
            self.memory.grow(bytes)?;
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Writes what is in memory as runs.
    fn flush(&mut self) -> Result<(), ImportError> {
        self.may_write()?;
        let mut series: Vec<(Labels, Samples)> = Vec::with_capacity(self.series.len());
        for (labels, (mut samples, pieces)) in self.series.drain() {
            let before = samples.timestamps.len() + samples.histogram_timestamps.len();
            settle(&mut samples, &pieces);
            let left = samples.timestamps.len() + samples.histogram_timestamps.len();
            self.report.duplicates += (before - left) as u64;
            series.push((labels, samples));
        }
        // The samples live on until the end of this, and their reservation with them.
        self.bytes = 0;
        series.sort_unstable_by(|a, b| chronolith_block::series_order(&a.0, &b.0));
        let mut windows: Vec<i64> = Vec::new();
        for (_, samples) in &series {
            for times in [&samples.timestamps, &samples.histogram_timestamps] {
                let numbers = times.iter().map(|t| window_number(*t, self.window_ms));
                numbers.for_each(|number| match windows.last() {
                    Some(last) if *last == number => {}
                    _ => windows.push(number),
                });
            }
            if windows.len() > 1 << 16 {
                windows.sort_unstable();
                windows.dedup();
            }
        }
        windows.sort_unstable();
        windows.dedup();
        for number in windows {
            let window = self.window(number);
            let runs = self.runs.entry(window.min).or_insert_with(|| Runs::new(window));
            let written = runs.write(&self.store, &self.tenant, &publish::runs(&self.dir), &series)?;
            self.report.runs += written.runs;
            self.report.duplicates += written.duplicates;
        }
        drop(series);
        self.memory.shrink_to(0);
        Ok(())
    }

    /// Windows end at multiples of their length, and have their end.
    fn window(&self, number: i64) -> TimeRange {
        let min = number.saturating_mul(self.window_ms).saturating_add(1);
        TimeRange::new(min, min.saturating_add(self.window_ms - 1))
    }

    fn may_write(&self) -> Result<(), ImportError> {
        if self.store.stopping() {
            return Err(ImportError::Stopped);
        }
        if self.store.disk_short() {
            return Err(ImportError::DiskShort);
        }
        Ok(())
    }

    /// Writes the blocks and shows them, all at once. When it returns, they are durable.
    ///
    /// # Errors
    /// When something cannot be written or read; nothing is stored then, but for [`ImportError::NotShown`] and, perhaps,
    /// [`ImportError::Uncertain`].
    pub fn finish(mut self) -> Result<ImportReport, ImportError> {
        self.flush()?;
        let mut blocks: Vec<Ulid> = Vec::new();
        for runs in std::mem::take(&mut self.runs).into_values() {
            self.may_write()?;
            let to = publish::finished(&self.dir, &self.tenant);
            let merged = runs.merge(&self.store, &self.tenant, &to, &mut blocks)?;
            self.report.samples += merged.samples;
            self.report.duplicates += merged.duplicates;
        }
        self.report.blocks = blocks.len() as u64;
        if !blocks.is_empty() {
            publish::publish(&self.store, &self.tenant, &self.dir, &blocks, &mut self.committed)?;
        }
        Ok(self.report)
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        // What is ready belongs to the next start.
        if !self.committed {
            publish::remove(&*self.store.env.fs, &self.dir);
        }
    }
}

/// The window that `t` lies in: it has its end, and not its begin.
fn window_number(t: Timestamp, window_ms: i64) -> i64 {
    t.saturating_sub(1).div_euclid(window_ms)
}
