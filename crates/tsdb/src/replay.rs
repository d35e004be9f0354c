//! Replay of the log behind a cut: what blocks have is passed over.

use chronolith_head::HeadReplay;
use chronolith_model::Timestamp;
use chronolith_wal::{LoggedBlob, LoggedMetadata, LoggedSample, LoggedStart, Replay, SeriesDef};

use crate::{mark::Mark, metadata::MetadataStore};

/// Hands to the head what the last cut has not taken from it.
#[derive(Debug)]
pub(crate) struct CutReplay<'a> {
    pub(crate) inner: HeadReplay<'a>,
    pub(crate) mark: &'a Mark,
    pub(crate) metadata: &'a MetadataStore,
}

impl Replay for CutReplay<'_> {
    fn series(&self, shard: usize, definition: &SeriesDef<'_>) {
        self.inner.series(shard, definition);
    }

    fn floor(&self, tenant: Option<&str>, min_t: Timestamp) {
        self.inner.floor(tenant, min_t);
    }

    fn series_complete(&self) {
        self.inner.series_complete();
    }

    fn samples(&self, shard: usize, sequence: u64, samples: &[LoggedSample]) {
        let covered = |sample: &LoggedSample| self.mark.covers(shard, sequence, sample.timestamp);
        if !samples.iter().any(covered) {
            return self.inner.samples(shard, sequence, samples);
        }
        let left: Vec<LoggedSample> = samples.iter().filter(|sample| !covered(sample)).copied().collect();
        if !left.is_empty() {
            self.inner.samples(shard, sequence, &left);
        }
    }

    fn histograms(&self, shard: usize, sequence: u64, histograms: &[LoggedBlob<'_>]) {
        let covered = |entry: &LoggedBlob<'_>| self.mark.covers(shard, sequence, entry.timestamp);
        if !histograms.iter().any(covered) {
            return self.inner.histograms(shard, sequence, histograms);
        }
        let left: Vec<LoggedBlob<'_>> = histograms.iter().filter(|entry| !covered(entry)).copied().collect();
        if !left.is_empty() {
            self.inner.histograms(shard, sequence, &left);
        }
    }

    fn starts(&self, shard: usize, sequence: u64, starts: &[LoggedStart]) {
        // Of samples that blocks have, but maybe of later ones as well.
        self.inner.starts(shard, sequence, starts);
    }

    fn exemplars(&self, shard: usize, sequence: u64, exemplars: &[LoggedBlob<'_>]) {
        // Those that came to the head behind the cut are not in blocks, whatever their time.
        let covered = |entry: &LoggedBlob<'_>| self.mark.covers(shard, sequence, entry.timestamp);
        let left: Vec<LoggedBlob<'_>> = exemplars.iter().filter(|entry| !covered(entry)).copied().collect();
        if !left.is_empty() {
            self.inner.exemplars(shard, sequence, &left);
        }
    }

    fn metadata(&self, entry: &LoggedMetadata<'_>) {
        self.metadata.restore_logged(entry);
    }

    fn covered(&self, shard: usize) -> u64 {
        self.inner.covered(shard)
    }

    fn keep_going(&self) -> bool {
        self.inner.keep_going()
    }
}
