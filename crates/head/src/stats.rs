//! What the head counts.

use std::sync::atomic::{AtomicU64, Ordering};

use chronolith_model::Timestamp;
use chronolith_storage::RejectReason;

use crate::head::Head;

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) series_created: AtomicU64,
    pub(crate) series_removed: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) memory_truncations: AtomicU64,
    /// By [`RejectReason::kind`].
    rejected: [AtomicU64; RejectReason::LABELS.len()],
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        if n > 0 {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Live series of all tenants.
    pub(crate) fn series(&self) -> usize {
        let removed = self.series_removed.load(Ordering::Relaxed);
        let live = self.series_created.load(Ordering::Relaxed).saturating_sub(removed);
        usize::try_from(live).unwrap_or(usize::MAX)
    }

    pub(crate) fn rejected(&self, reason: &RejectReason, samples: u64) {
        Self::add(&self.rejected[reason.kind()], samples);
    }
}

/// What the head is at one moment, and has counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeadStats {
    /// Live series.
    pub series: u64,
    /// Series created, by replay too.
    pub series_created: u64,
    /// Series removed.
    pub series_removed: u64,
    /// Closed chunks of samples in order in memory.
    pub chunks_closed: u64,
    /// Bytes of chunks, open and closed, of late samples and of start timestamps.
    pub chunk_bytes: u64,
    /// Bytes of series states.
    pub state_bytes: u64,
    /// Bytes of labels and postings.
    pub index_bytes: u64,
    /// Bytes of the tables that find series by what senders write.
    pub table_bytes: u64,
    /// Aliases in those tables.
    pub aliases: u64,
    /// Samples stored, by replay too.
    pub samples: u64,
    /// Histograms stored, by replay too; part of `samples`.
    pub histograms: u64,
    /// Series that have histograms in order in memory.
    pub histogram_series: u64,
    /// Closed chunks of histograms in order in memory, part of `chunks_closed`.
    pub histogram_chunks: u64,
    /// Bytes of histograms, part of `chunk_bytes`; late ones are part of `late_bytes`.
    pub histogram_bytes: u64,
    /// Late samples stored, by replay too; part of `samples`.
    pub samples_late: u64,
    /// Series that have late samples in memory; with late floats and late histograms it counts twice.
    pub late_series: u64,
    /// Closed chunks of late samples in memory.
    pub late_chunks: u64,
    /// Bytes of late samples, part of `chunk_bytes`.
    pub late_bytes: u64,
    /// Series that have start timestamps.
    pub start_series: u64,
    /// Exemplars in memory.
    pub exemplars: u64,
    /// Bytes of exemplars.
    pub exemplar_bytes: u64,
    /// Samples that were there already.
    pub duplicates: u64,
    /// Samples that went from memory when the blocks they are in were finished.
    pub samples_cut: u64,
    /// Samples dropped by retention or the memory limit.
    pub samples_dropped: u64,
    /// Samples refused, by reason: label as in [`RejectReason::LABELS`].
    pub rejected: Vec<(&'static str, u64)>,
    /// How often the memory limit dropped old samples.
    pub memory_truncations: u64,
    /// Oldest and newest sample, milliseconds.
    pub times: Option<(i64, i64)>,
    /// Samples older than this are refused and not shown, milliseconds.
    pub floor: i64,
    /// Samples at or before this are late, milliseconds; `None` before the first cut.
    pub cut: Option<i64>,
}

impl Head {
    /// The counters now. Locks each shard for a moment.
    #[must_use]
    pub fn stats(&self) -> HeadStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let mut stats = HeadStats {
            series_created: get(&counters.series_created),
            series_removed: get(&counters.series_removed),
            duplicates: get(&counters.duplicates),
            memory_truncations: get(&counters.memory_truncations),
            rejected: RejectReason::LABELS
                .iter()
                .zip(&counters.rejected)
                .map(|(l, n)| (*l, get(n)))
                .collect(),
            index_bytes: self.tenants.index_bytes() as u64,
            table_bytes: self.table_bytes() as u64,
            aliases: self.aliases.len() as u64,
            exemplars: self.exemplars.count() as u64,
            exemplar_bytes: self.exemplars.bytes() as u64,
            times: self.times().map(|range| (range.min, range.max)),
            floor: self.floor(),
            cut: Some(self.cut()).filter(|cut| *cut > Timestamp::MIN),
            ..HeadStats::default()
        };
        for shard in &self.shards {
            let state = shard.lock();
            stats.series += state.slab.live() as u64;
            stats.chunks_closed += state.accounts.chunks as u64;
            stats.chunk_bytes += state.accounts.bytes as u64;
            stats.state_bytes += state.slab.bytes() as u64;
            stats.samples += state.accounts.samples;
            stats.samples_dropped += state.accounts.dropped;
            stats.samples_cut += state.accounts.cut;
            stats.samples_late += state.accounts.late;
            stats.late_series += (state.late.len() + state.histograms.late.len()) as u64;
            stats.histogram_series += state.histograms.len() as u64;
            stats.histograms += state.accounts.histograms;
            stats.histogram_chunks += state.accounts.histogram_chunks as u64;
            stats.histogram_bytes += state.accounts.histogram_bytes as u64;
            stats.start_series += state.starts.len() as u64;
            stats.late_chunks += state.accounts.late_chunks as u64;
            stats.late_bytes += state.accounts.late_bytes as u64;
        }
        let finished = self.cut_finished();
        if stats.late_series == 0 && finished > Timestamp::MIN {
            // What is left is in order, and newer.
            stats.times =
                stats.times.map(|(min, max)| (min.max(finished + 1), max)).filter(|(min, max)| min <= max);
        }
        stats
    }
}
