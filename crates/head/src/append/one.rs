//! Appending sample by sample: what is not simply the next float of a series without histograms and starts.

use chronolith_model::{Histogram, Sample, Timestamp};
use chronolith_storage::{RejectReason, SampleAt};
use chronolith_wal::ShardLog;

use super::{Append, define};
use crate::{
    closed::ClosedChunk,
    offer::{SeriesMut, Verdict},
    read_back::{Files, ReadBack},
    shard::{Ref, Shard, ShardState},
    starts::{StartStore, Stored},
};

/// Samples whose chunks are read back from files at once.
const READ_AT_ONCE_MAX: usize = 256;

/// The series of an entry of a batch, with all that its samples may touch.
pub(super) struct Place<'a> {
    pub(super) of: SeriesMut<'a>,
    pub(super) starts: &'a mut StartStore,
    pub(super) log: &'a mut ShardLog,
    pub(super) entry: usize,
    pub(super) reference: Ref,
}

/// A sample that is compared with chunks that are in files: they are read once the shard is not locked any more.
#[derive(Debug)]
pub(super) struct Deferred {
    entry: usize,
    reference: Ref,
    sample: Given,
    chunks: Vec<ClosedChunk>,
}

#[derive(Debug)]
enum Given {
    Float(Sample),
    /// By its place among the histograms of the entry.
    Histogram(usize),
}

impl Place<'_> {
    /// Hands over the same place once more.
    fn again(&mut self) -> Place<'_> {
        let SeriesMut { slot, series, closed, late, histograms, accounts, files } = &mut self.of;
        let of = SeriesMut { slot: *slot, series, closed, late, histograms, accounts, files: *files };
        Place { of, starts: self.starts, log: self.log, entry: self.entry, reference: self.reference }
    }
}

fn place<'a>(state: &'a mut ShardState, (entry, reference): (usize, Ref), read: &'a ReadBack) -> Place<'a> {
    let ShardState { slab, late, histograms, starts, accounts, log } = state;
    let slot = reference.slot();
    let (series, closed) = slab.get_mut(slot).expect("no series goes during an append");
    let files = Files::Known(read);
    Place {
        of: SeriesMut { slot, series, closed, late, histograms, accounts, files },
        starts,
        log,
        entry,
        reference,
    }
}

impl Append<'_> {
    /// Applies an entry, its samples of both kinds by time, each kind in the order of the batch.
    #[inline(never)]
    pub(super) fn entry(&mut self, state: &mut ShardState, entry: usize, reference: Ref) {
        let nothing = ReadBack::default();
        let mut place = place(state, (entry, reference), &nothing);
        let batch = self.batch;
        let mut floats = batch.samples_of(&batch.series[entry]).iter().peekable();
        let mut histograms = batch.histograms_of(&batch.series[entry]).iter().enumerate().peekable();
        loop {
            let next_histogram = histograms.peek().map(|(_, sample)| sample.timestamp);
            let next = |sample: &&Sample| next_histogram.is_none_or(|t| sample.timestamp <= t);
            if let Some(sample) = floats.next_if(next) {
                self.float(place.again(), *sample);
            } else if let Some((at, sample)) = histograms.next() {
                self.histogram(place.again(), at, (sample.timestamp, &sample.histogram));
            } else {
                return;
            }
        }
    }

    /// Applies one float.
    #[cold]
    pub(super) fn float(&mut self, mut place: Place<'_>, sample: Sample) {
        let (t, bits) = (sample.timestamp, sample.value.to_bits());
        let (entry, reference) = (place.entry, place.reference);
        if let Err(reason) = self.bounds.check(t) {
            self.refuse(reason, entry, Some((reference, SampleAt::float(t))), 1);
            return;
        }
        let SeriesMut { series, closed, late, accounts, .. } = &mut place.of;
        let mut newest = !series.is_mixed() && series.offer(closed, t, bits, late.cut().boundary(), accounts);
        let mut verdict = Verdict::Stored;
        if !newest {
            newest = place.of.is_newest(t);
            verdict = place.of.float((t, bits), self.bounds.late);
        }
        match verdict {
            Verdict::Stored => {
                self.saw(t);
                define_if_new(self, &mut place);
                place.log.sample(reference.0, t, sample.value);
                self.note_start(place, (t, newest));
            }
            Verdict::StaleHistogram => {
                let at = self.batch.series[entry].histograms.len();
                self.histogram(place, at, (t, &Histogram::stale()));
            }
            Verdict::Unread => {
                let chunks = place.of.unread(t).cloned().collect();
                self.deferred.push(Deferred { entry, reference, sample: Given::Float(sample), chunks });
            }
            refused => self.not_stored(refused, sample, entry, reference),
        }
    }

    /// Applies one histogram, the `at`-th of its entry.
    #[cold]
    fn histogram(
        &mut self,
        mut place: Place<'_>,
        at: usize,
        (timestamp, histogram): (Timestamp, &Histogram),
    ) {
        let (entry, reference) = (place.entry, place.reference);
        let sample_at = Some((reference, SampleAt::histogram(timestamp)));
        if let Err(reason) = self.bounds.check(timestamp) {
            self.refuse(reason, entry, sample_at, 1);
            return;
        }
        let newest = place.of.is_newest(timestamp);
        let reason = match place.of.histogram(timestamp, histogram, self.bounds.late, &mut self.one) {
            Verdict::Stored => {
                self.saw(timestamp);
                define_if_new(self, &mut place);
                place.log.histogram(reference.0, timestamp, &self.one);
                self.note_start(place, (timestamp, newest));
                return;
            }
            Verdict::Duplicate => {
                self.outcome.duplicates += 1;
                return;
            }
            Verdict::Unread => {
                let chunks = place.of.unread(timestamp).cloned().collect();
                self.deferred.push(Deferred { entry, reference, sample: Given::Histogram(at), chunks });
                return;
            }
            Verdict::OutOfOrder => RejectReason::OutOfOrder,
            Verdict::TooOld => RejectReason::TooOld,
            Verdict::Conflict(_) | Verdict::ConflictingHistogram | Verdict::StaleHistogram => {
                RejectReason::DuplicateHistogram { timestamp }
            }
        };
        self.refuse(reason, entry, sample_at, 1);
    }

    /// Notes the start of a sample that was stored, if its series has any.
    fn note_start(&self, place: Place<'_>, (timestamp, newest): (Timestamp, bool)) {
        let Place { of, starts, log, entry, reference } = place;
        let start = self.batch.series[entry].start_timestamp;
        if start != 0 || of.series.is_started() {
            starts.note(Stored { reference, timestamp, newest }, start, of.accounts, log);
            if !of.series.is_started() {
                of.series.set_started(starts.contains(reference.slot()));
            }
        }
    }

    fn saw(&mut self, t: Timestamp) {
        self.outcome.stored += 1;
        self.times.min = self.times.min.min(t);
        self.times.max = self.times.max.max(t);
    }

    /// Applies what was left of a shard, now that it is not locked: reads the chunks first.
    #[cold]
    pub(super) fn apply_deferred(&mut self, shard: &Shard) {
        while !self.deferred.is_empty() {
            let behind = self.deferred.split_off(self.deferred.len().min(READ_AT_ONCE_MAX));
            let some = std::mem::replace(&mut self.deferred, behind);
            let mut read = ReadBack::default();
            some.iter().flat_map(|deferred| &deferred.chunks).for_each(|chunk| read.read(chunk));
            let mut state = shard.lock();
            for Deferred { entry, reference, sample, .. } in some {
                let place = place(&mut state, (entry, reference), &read);
                match sample {
                    Given::Float(sample) => self.float(place, sample),
                    Given::Histogram(at) => {
                        let histograms = self.batch.histograms_of(&self.batch.series[entry]);
                        if let Some(sample) = histograms.get(at) {
                            self.histogram(place, at, (sample.timestamp, &sample.histogram));
                        }
                    }
                }
            }
            self.covered = self.covered.max(state.log.ticket());
            shard.publish(&state);
        }
    }
}

/// Logs what the series is, if that is not logged yet in this segment.
fn define_if_new(append: &Append<'_>, place: &mut Place<'_>) {
    if place.of.series.defined != place.log.epoch() {
        let cut = place.of.late.cut().boundary();
        define(append.tenant, (place.of.series, place.reference), (place.starts, cut), place.log);
    }
}
