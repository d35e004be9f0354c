//! Chunks of the head that turned out to be unreadable while it runs: what the log has of them takes their place.
//!
//! As long as there are any, nothing of the log goes, and no snapshot stands for it.

use std::{collections::HashMap, path::PathBuf};

use chronolith_head::{Head, Loss, Mended, UnreadChunk};
use chronolith_model::{Labels, TenantId, TimeRange, Timestamp};
use chronolith_wal::{
    RecordType,
    inspect::{Content, EntryStatus, Segment, segments},
};

use crate::store::Store;

/// At most so many bytes of logged histograms are held at a time.
const HISTOGRAM_BYTES_MAX: usize = 64 << 20;
/// At most so many chunks are mended at a time: some hundred samples each.
const CHUNKS_MAX: usize = 2_000;

/// What the log has of a series.
#[derive(Debug, Default)]
struct Found {
    /// The times that are asked for.
    ranges: Vec<TimeRange>,
    floats: Vec<(Timestamp, u64)>,
    histograms: Vec<(Timestamp, Vec<u8>)>,
}

/// What is looked for in the log.
#[derive(Debug, Default)]
struct Search {
    by_labels: HashMap<(TenantId, Labels), usize>,
    /// Numbers of series in the log. The same series may have had several.
    by_number: HashMap<u32, usize>,
    found: Vec<Found>,
    /// First and last time of all.
    times: Option<TimeRange>,
    histogram_bytes: usize,
}

/// Mends what was noted. Says whether anything was.
pub(crate) fn mend(store: &Store) -> bool {
    if !store.head.has_unread() {
        return false;
    }
    let mut unread = store.head.unread();
    unread.truncate(CHUNKS_MAX);
    let mut search = Search::default();
    let numbers: Vec<Option<usize>> = unread.iter().map(|chunk| search.add(&store.head, chunk)).collect();
    for definitions in [true, false] {
        if let Err(error) = search.read(store, definitions) {
            // What it has is not known: the chunks stay what they are, and the log as well.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot look into the log for what a chunk of the head had"
            );
            return false;
        }
    }
    let mut mended = false;
    for (chunk, number) in unread.iter().zip(numbers) {
        mended |= settle(store, chunk, number.and_then(|number| search.found.get(number)));
    }
    mended
}

/// Mends a chunk with what was found of its series.
fn settle(store: &Store, chunk: &UnreadChunk, found: Option<&Found>) -> bool {
    let tenant = store.head.series_of(chunk.reference()).map(|(tenant, _)| tenant);
    let (floats, histograms) = found.map_or((&[][..], &[][..]), |found| (&found.floats, &found.histograms));
    let (path, offset) = chunk.place().map_or((PathBuf::new(), 0), |(path, offset)| (path.into(), offset));
    match store.head.mend(chunk, floats, histograms) {
        Mended::Fine => true,
        Mended::Waits => false,
        Mended::Lost(samples) => {
            let quarantined = chunk.place().and_then(|(path, _)| store.snapshots.keep_chunk_file(path));
            tracing::warn!(
                path = %path.display(),
                offset,
                quarantined = ?quarantined,
                samples = chunk.samples(),
                lost = samples,
                "a chunk of the head that cannot be read was made again from the log"
            );
            if samples > 0 {
                let range = chunk.range();
                store.losses.note(Loss { tenant, range, samples: Some(samples), series: 1, path, offset });
            }
            true
        }
    }
}

impl Search {
    fn add(&mut self, head: &Head, chunk: &UnreadChunk) -> Option<usize> {
        let series = head.series_of(chunk.reference())?;
        let next = self.found.len();
        let number = *self.by_labels.entry(series).or_insert(next);
        if number == next {
            self.found.push(Found::default());
        }
        let range = chunk.range();
        self.found.get_mut(number)?.ranges.push(range);
        let union = |a: TimeRange| TimeRange::new(a.min.min(range.min), a.max.max(range.max));
        self.times = Some(self.times.map_or(range, union));
        Some(number)
    }

    /// Reads all definitions, or all samples, of the log.
    fn read(&mut self, store: &Store, definitions: bool) -> chronolith_wal::Result<()> {
        let fs = &*store.env.fs;
        for path in segments(fs, &store.dir.join("wal"))? {
            let segment = match Segment::open(fs, &path) {
                Err(chronolith_wal::Error::Fs(error)) if error.is_not_found() => continue,
                segment => segment?,
            };
            for entry in segment.entries() {
                // Damage, and the end that is being written, is passed over.
                let EntryStatus::Record(record) = entry.status else { continue };
                let wanted = match record.record_type {
                    Some(RecordType::Series) => definitions,
                    Some(RecordType::Samples | RecordType::Histograms) => {
                        let times = record.times.map(|(min, max)| TimeRange::new(min, max));
                        !definitions && times.zip(self.times).is_some_and(|(a, b)| a.overlaps(&b))
                    }
                    _ => false,
                };
                if wanted {
                    segment.content(&entry, &mut |content| self.visit(&content))?;
                }
            }
        }
        Ok(())
    }

    fn visit(&mut self, content: &Content<'_>) {
        match content {
            Content::Series(definition) => {
                let tenant = TenantId::new(definition.tenant).ok();
                let Some(series) = tenant.zip(Labels::from_sorted(definition.labels.clone())) else { return };
                if let Some(number) = self.by_labels.get(&series) {
                    self.by_number.insert(definition.series, *number);
                }
            }
            Content::Sample(sample) => {
                if let Some(found) = self.wanted(sample.series, sample.timestamp) {
                    found.floats.push((sample.timestamp, sample.value.to_bits()));
                }
            }
            Content::Histogram(logged) => {
                let room = self.histogram_bytes + logged.bytes.len() <= HISTOGRAM_BYTES_MAX;
                if let Some(found) = self.wanted(logged.series, logged.timestamp).filter(|_| room) {
                    found.histograms.push((logged.timestamp, logged.bytes.to_vec()));
                    self.histogram_bytes += logged.bytes.len();
                }
            }
            _ => {}
        }
    }

    fn wanted(&mut self, series: u32, t: Timestamp) -> Option<&mut Found> {
        let found = self.found.get_mut(*self.by_number.get(&series)?)?;
        found.ranges.iter().any(|range| range.contains(t)).then_some(found)
    }
}
