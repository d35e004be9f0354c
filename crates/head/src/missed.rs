//! Samples that the head had, and that cannot be read back: which of them the log still has, and which are lost.
//!
//! A chunk in a file is verified when a snapshot that names it is loaded. One that cannot be read is left out, and the log
//! is read from its begin; what that gives back of the chunk's time, of what had been logged before the snapshot, was in it.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use chronolith_model::{TenantId, TimeRange, Timestamp};

use crate::{
    closed::{ChunkKind, ClosedChunk},
    error::ReadError,
    options::SHARDS,
    shard::Ref,
    unread::UnreadChunk,
};

/// At most so many losses are told apart; what there is beyond that is joined with the last.
const LOSSES_MAX: usize = 1000;

/// Samples of the head that cannot be had any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Whose they were; `None` if that is not known.
    pub tenant: Option<TenantId>,
    /// When they were at most, both ends included, milliseconds.
    pub range: TimeRange,
    /// How many; `None` if that is not known.
    pub samples: Option<u64>,
    /// Of how many series at most.
    pub series: u64,
    /// The file that was to have them.
    pub path: PathBuf,
    /// The first damaged place in it.
    pub offset: u64,
}

/// A chunk that could not be read.
#[derive(Clone, Debug)]
pub(crate) struct Missed {
    kind: ChunkKind,
    range: TimeRange,
    /// So many of its samples have not been found elsewhere.
    left: u64,
    path: Arc<Path>,
    offset: u64,
}

/// Chunks that could not be read, by the numbers of their series.
#[derive(Clone, Debug, Default)]
pub(crate) struct MissedChunks {
    of: HashMap<u32, Vec<Missed>>,
    /// Chunks of one file share its name.
    path: Option<Arc<Path>>,
}

impl MissedChunks {
    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Notes that `chunk` of series `reference` cannot be read, if it is one of a file.
    pub(crate) fn note(&mut self, reference: u32, chunk: &ClosedChunk) {
        let Some(place) = chunk.place() else { return };
        let path = match &self.path {
            Some(path) if **path == *place.path() => Arc::clone(path),
            _ => Arc::from(place.path()),
        };
        self.path = Some(Arc::clone(&path));
        let offset = place.record().0;
        let missed =
            Missed { kind: chunk.kind(), range: chunk.range(), left: chunk.count() as u64, path, offset };
        self.of.entry(reference).or_default().push(missed);
    }

    /// Those of each shard.
    pub(crate) fn by_shard(self) -> Vec<Self> {
        let mut by_shard = vec![Self::default(); SHARDS];
        for (reference, missed) in self.of {
            if let Some(shard) = by_shard.get_mut(Ref(reference).shard()) {
                shard.of.insert(reference, missed);
            }
        }
        by_shard
    }

    /// A sample of the series has been found.
    pub(crate) fn found(&mut self, reference: u32, kind: ChunkKind, t: Timestamp) {
        let Some(of) = self.of.get_mut(&reference) else { return };
        let fits = |missed: &&mut Missed| missed.kind == kind && missed.range.contains(t);
        if let Some(missed) = of.iter_mut().find(fits) {
            missed.left = missed.left.saturating_sub(1);
        }
    }

    /// Adds those of `others`, whose series are numbered by `number`.
    pub(crate) fn extend(&mut self, others: Self, number: impl Fn(u32) -> u32) {
        for (reference, missed) in others.of {
            self.of.entry(number(reference)).or_default().extend(missed);
        }
    }

    /// Those of which something is left and is behind `boundary`, and whose time is not before `floor`, by tenant and file.
    pub(crate) fn losses(
        &self,
        behind: Timestamp,
        tenant: impl Fn(u32) -> Option<TenantId>,
        losses: &mut BTreeMap<(Option<TenantId>, PathBuf), Loss>,
    ) {
        for (reference, of) in &self.of {
            let lost = |missed: &&Missed| missed.left > 0 && missed.range.max >= behind;
            let mut before: Option<PathBuf> = None;
            for missed in of.iter().filter(lost) {
                let key = (tenant(*reference), missed.path.to_path_buf());
                let key = match losses.keys().next_back().filter(|_| losses.len() >= LOSSES_MAX) {
                    Some(last) if !losses.contains_key(&key) => last.clone(),
                    _ => key,
                };
                let loss = losses.entry(key.clone()).or_insert_with(|| Loss {
                    tenant: key.0.clone(),
                    range: missed.range,
                    samples: Some(0),
                    series: 0,
                    path: key.1.clone(),
                    offset: missed.offset,
                });
                loss.range = TimeRange::new(
                    loss.range.min.min(missed.range.min),
                    loss.range.max.max(missed.range.max),
                );
                loss.samples = loss.samples.map(|samples| samples + missed.left);
                loss.offset = loss.offset.min(missed.offset);
                loss.series += u64::from(before.as_ref() != Some(&key.1));
                before = Some(key.1);
            }
        }
    }
}

/// Takes those of `chunks` away that are in files and cannot be read, and hands them to `visit` with the reason. Those that
/// only the device refuses stay, and are returned.
pub(crate) fn take_unreadable(
    chunks: &mut [(u32, &mut Vec<ClosedChunk>)],
    mut visit: impl FnMut(u32, ClosedChunk, ReadError),
) -> Vec<UnreadChunk> {
    let mut refused = Vec::new();
    let mut places = Vec::new();
    let mut owners = Vec::new();
    for (at, (_, chunks)) in chunks.iter().enumerate() {
        for (index, chunk) in chunks.iter().enumerate() {
            if let Some(place) = chunk.place() {
                places.push(place);
                owners.push((at, index));
            }
        }
    }
    let unreadable = crate::chunk_file::unreadable(&places);
    // From behind, so that places stay what they are.
    for (number, error) in unreadable.into_iter().rev() {
        let Some((at, index)) = owners.get(number).copied() else { continue };
        let Some((owner, chunks)) = chunks.get_mut(at) else { continue };
        let Some(chunk) = chunks.get(index) else { continue };
        let unread = UnreadChunk::new(*owner, chunk, error.clone());
        if unread.is_of_device() {
            refused.push(unread);
        } else {
            visit(*owner, chunks.remove(index), error);
        }
    }
    refused
}
