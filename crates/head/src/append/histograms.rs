//! Appending histograms.

use chronolith_model::{Histogram, Timestamp};
use chronolith_storage::RejectReason;
use chronolith_wal::ShardLog;

use super::{Append, define};
use crate::{
    offer::{SeriesMut, Verdict},
    shard::{Ref, ShardState},
    starts::{StartStore, Stored},
};

impl Append<'_> {
    /// Applies the histograms of an entry.
    #[cold]
    pub(super) fn histograms(&mut self, state: &mut ShardState, entry: usize, reference: Ref) {
        let ShardState { slab, late, histograms, starts, accounts, log } = state;
        let slot = reference.slot();
        let (series, closed) = slab.get_mut(slot).expect("no series goes during an append");
        for sample in self.batch.histograms_of(&self.batch.series[entry]) {
            if let Err(reason) = self.bounds.check(sample.timestamp) {
                self.refuse(reason, entry, Some(reference), 1);
                continue;
            }
            let of = SeriesMut { slot, series, closed, late, histograms, accounts };
            self.histogram((of, starts, log), (entry, reference), sample.timestamp, &sample.histogram);
        }
    }

    /// Applies one histogram.
    #[cold]
    pub(super) fn histogram(
        &mut self,
        (mut of, starts, log): (SeriesMut<'_>, &mut StartStore, &mut ShardLog),
        (entry, reference): (usize, Ref),
        timestamp: Timestamp,
        histogram: &Histogram,
    ) {
        let newest = of.newest() < Some(timestamp);
        let reason = match of.histogram(timestamp, histogram, self.bounds.late, &mut self.one) {
            Verdict::Stored => {
                if of.series.defined != log.epoch() {
                    define(self.tenant, of.series, reference, starts, log);
                }
                log.histogram(reference.0, timestamp, &self.one);
                let start = self.batch.series[entry].start_timestamp;
                if start != 0 || starts.contains(reference.slot()) {
                    starts.note(Stored { reference, timestamp, newest }, start, of.accounts, log);
                }
                self.outcome.stored += 1;
                self.times.min = self.times.min.min(timestamp);
                self.times.max = self.times.max.max(timestamp);
                return;
            }
            Verdict::Duplicate => {
                self.outcome.duplicates += 1;
                return;
            }
            Verdict::OutOfOrder => RejectReason::OutOfOrder,
            Verdict::TooOld => RejectReason::TooOld,
            Verdict::Conflict(_) | Verdict::ConflictingHistogram | Verdict::StaleHistogram => {
                RejectReason::DuplicateHistogram { timestamp }
            }
        };
        self.refuse(reason, entry, Some(reference), 1);
    }
}
