//! What becomes of a sample that is not simply the next float of its series: late ones, and all of series with histograms.
//!
//! Order is judged over floats and histograms together: a sample is late that is not newer than the newest of either kind,
//! or than the cut. Where it is kept is a matter of its kind alone, so a log that has both kinds apart replays to the same.

use chronolith_model::{Histogram, STALE_NAN_BITS, Timestamp};

use crate::{
    closed::{ClosedChunk, chunk_at},
    cut::CutPoint,
    histogram::{HistogramStore, Lane, OneHistogram, encode_one},
    late::{LateStore, RawSample},
    read_back::Files,
    series::{Accounts, Series},
    shard::ShardState,
};

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Stored.
    Stored,
    /// A stale marker of a float behind a histogram: it is to be a stale histogram.
    StaleHistogram,
    /// The same sample is there.
    Duplicate,
    /// There is another float, of these bits, for the timestamp.
    Conflict(u64),
    /// There is a histogram, another one or where a float was offered, for the timestamp.
    ConflictingHistogram,
    /// Late samples are not taken.
    OutOfOrder,
    /// Outside the window for late samples.
    TooOld,
    /// Not judged: [`SeriesMut::unread`] has to be read first.
    Unread,
}

/// Which late samples are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LateRule {
    /// Those not more than `ms` older than the newest sample of their series. What is newer than that, or of a series whose
    /// newest sample is not known any more, is not late but behind: a cut at the pace of others has passed it.
    Window {
        /// Milliseconds; 0 or less: none.
        ms: i64,
    },
    /// All, as they are: they come from the log, and have been judged before.
    Logged,
}

/// A series, and all that is kept of it.
pub(crate) struct SeriesMut<'a> {
    pub(crate) slot: u32,
    pub(crate) series: &'a mut Series,
    pub(crate) closed: &'a mut Vec<ClosedChunk>,
    pub(crate) late: &'a mut LateStore,
    pub(crate) histograms: &'a mut HistogramStore,
    pub(crate) accounts: &'a mut Accounts,
    pub(crate) files: Files<'a>,
}

impl ShardState {
    /// The series at `slot`, for whom nobody waits.
    pub(crate) fn series_mut(&mut self, slot: u32) -> Option<SeriesMut<'_>> {
        let Self { slab, late, histograms, accounts, .. } = self;
        let (series, closed) = slab.get_mut(slot)?;
        Some(SeriesMut { slot, series, closed, late, histograms, accounts, files: Files::Read })
    }

    /// Begins a cut: late samples that are there at or before its boundary are frozen.
    pub(crate) fn begin_cut(&mut self, cut: CutPoint) {
        self.late.begin_cut(cut);
        self.histograms.late.begin_cut(cut);
    }
}

impl SeriesMut<'_> {
    /// Whether a sample at `t` is newer than all that is known, late ones included.
    pub(crate) fn is_newest(&self, t: Timestamp) -> bool {
        self.newest_of_all() < Some(t)
    }

    /// Timestamp of the newest sample of either kind, in order or late: one that a cut has passed may be late and newest.
    fn newest_of_all(&self) -> Option<Timestamp> {
        let late = self.late.newest(self.slot);
        let late_histogram =
            if self.series.is_mixed() { self.histograms.late.newest(self.slot) } else { None };
        self.newest().max(late).max(late_histogram)
    }

    /// The chunks in files that have to be read before a sample at `t` can be judged.
    pub(crate) fn unread(&self, t: Timestamp) -> impl Iterator<Item = &ClosedChunk> {
        let lane = if self.series.is_mixed() { self.histograms.lane(self.slot) } else { None };
        let closed = [&**self.closed, lane.map_or(&[][..], Lane::closed)];
        closed
            .into_iter()
            .filter_map(move |closed| chunk_at(closed, t))
            .filter(|chunk| self.files.lack(chunk))
    }

    /// Timestamp of the newest sample in order of either kind.
    pub(crate) fn newest(&self) -> Option<Timestamp> {
        self.series.last().max(self.last_histogram())
    }

    /// Timestamp of the newest histogram in order.
    fn last_histogram(&self) -> Option<Timestamp> {
        if !self.series.is_mixed() {
            return None;
        }
        self.histograms.lane(self.slot)?.last()
    }

    /// Offers a float.
    #[cold]
    pub(crate) fn float(&mut self, (t, bits): RawSample, rule: LateRule) -> Verdict {
        if self.unread(t).next().is_some() {
            return Verdict::Unread;
        }
        let (last, last_histogram) = (self.series.last(), self.last_histogram());
        let cut = self.late.cut().boundary();
        let known = self.known_float(t);
        if known == Some(bits) {
            return Verdict::Duplicate;
        }
        if bits == STALE_NAN_BITS && last_histogram > last && matches!(rule, LateRule::Window { .. }) {
            return Verdict::StaleHistogram;
        }
        let newest = self.newest();
        if t <= cut || newest.is_some_and(|newest| t <= newest) {
            let known = known.map(Verdict::Conflict);
            let of_histograms = || self.known_histogram(t).map(|_| Verdict::ConflictingHistogram);
            if let Some(refused) = judge(t, newest, known.or_else(of_histograms), rule) {
                return refused;
            }
        }
        if !self.series.offer(self.closed, t, bits, cut, self.accounts) {
            self.late.insert(self.slot, (t, bits), self.accounts);
        }
        Verdict::Stored
    }

    /// Offers a valid histogram. Where it is stored, it is in `one` as a chunk of one sample, with the hint it is read with.
    #[cold]
    pub(crate) fn histogram(
        &mut self,
        t: Timestamp,
        histogram: &Histogram,
        rule: LateRule,
        one: &mut Vec<u8>,
    ) -> Verdict {
        if self.unread(t).next().is_some() {
            return Verdict::Unread;
        }
        let last_histogram = self.last_histogram();
        let cut = self.late.cut().boundary();
        let newest = self.newest();
        let late = t <= cut || newest.is_some_and(|newest| t <= newest);
        if late {
            let known = match self.known_histogram(t) {
                // A stale marker has one form.
                Some(known) if known.is_stale() && histogram.is_stale() => return Verdict::Duplicate,
                Some(known) if known.same_observations(histogram) => return Verdict::Duplicate,
                Some(_) => Some(Verdict::ConflictingHistogram),
                None => self.known_float(t).map(Verdict::Conflict),
            };
            if let Some(refused) = judge(t, newest, known, rule) {
                return refused;
            }
        }
        let next = t > cut && last_histogram.is_none_or(|last| t > last);
        let hint = match rule {
            LateRule::Logged if next => histogram.hint(),
            // Where the one before it is a float or a late one, or where it is not the next one, nothing is known.
            _ if !next || late || last_histogram < self.newest_of_all() => histogram.hint_after(None),
            _ => {
                let lane = self.histograms.lane(self.slot);
                histogram.hint_after(lane.and_then(Lane::last_histogram))
            }
        };
        encode_one(one, t, histogram, hint);
        if next {
            self.histograms.push(self.slot, t, histogram, hint, self.accounts);
        } else {
            self.histograms.insert_late(self.slot, t, OneHistogram::new(one), self.accounts);
        }
        self.series.set_mixed(true);
        Verdict::Stored
    }

    /// The bits of the float at `t`.
    fn known_float(&self, t: Timestamp) -> Option<u64> {
        let in_order = self.series.known(self.closed, t, self.files);
        in_order.or_else(|| self.late.known(self.slot, t))
    }

    fn known_histogram(&self, t: Timestamp) -> Option<Histogram> {
        if !self.series.is_mixed() {
            return None;
        }
        self.histograms.known(self.slot, t, self.files)
    }
}

/// Why a sample that is late, or whose timestamp is `known`, is not stored.
fn judge(t: Timestamp, newest: Option<Timestamp>, known: Option<Verdict>, rule: LateRule) -> Option<Verdict> {
    match (known, rule) {
        (Some(known), LateRule::Logged) => Some(known),
        (Some(known), _) if Some(t) == newest => Some(known),
        (None, _) if newest.is_none_or(|newest| t > newest) => None,
        (_, LateRule::Window { ms }) if ms <= 0 => Some(Verdict::OutOfOrder),
        (_, LateRule::Window { ms }) if newest.is_some_and(|newest| t < newest.saturating_sub(ms)) => {
            Some(Verdict::TooOld)
        }
        (known, _) => known,
    }
}
