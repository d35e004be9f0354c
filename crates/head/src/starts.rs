//! Start timestamps: since when what samples count has been counting.
//!
//! They change with each restart of what is counted, so they are kept as steps beside the series that have any: a shard's
//! map from slots. A sample that comes late gets a step of its own and one behind it, so that its neighbours keep theirs.
//! Each change of the steps is logged as it is made, and a replay makes the same changes again. A segment has what the
//! samples in it need: the newest step is logged behind each definition, for what comes in order, and a late sample's
//! with the sample.

use std::{collections::BTreeMap, mem::size_of, ops::Range};

use chronolith_model::{TimeRange, Timestamp};
use chronolith_storage::StartTimestamp;
use chronolith_wal::ShardLog;

use crate::{series::Accounts, shard::Ref};

/// Most steps of a series; the oldest go first, and samples before the first have no start.
pub(crate) const STEPS_MAX: usize = 1024;

/// What an entry costs beside its steps, about.
const ENTRY_BYTES: usize = size_of::<(u32, Vec<StartTimestamp>)>() + 16;

/// The starts of a shard, by slot. Ordered, so that it can be walked piece by piece, and the same way each time.
#[derive(Debug, Default)]
pub(crate) struct StartStore {
    /// Never empty ones; ascending, the first is not 0. A step may be like the one before it: it keeps what follows apart
    /// from a late sample before it.
    series: BTreeMap<u32, Vec<StartTimestamp>>,
    /// Some series has or had starts: the log may have some that mean nothing any more.
    used: bool,
}

/// A sample that was stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) reference: Ref,
    pub(crate) timestamp: Timestamp,
    /// Newer than all others of its series.
    pub(crate) newest: bool,
}

impl StartStore {
    /// Whether the series at `slot` has starts.
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.series.contains_key(&slot)
    }

    /// Series with starts.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// The steps of the series at `slot`, oldest first.
    pub(crate) fn steps(&self, slot: u32) -> &[StartTimestamp] {
        self.series.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// Logs, behind the definition of a series, since when it counts now; `cut`: the boundary of the last cut.
    pub(crate) fn log_newest(&self, reference: Ref, cut: Timestamp, log: &mut ShardLog) {
        // The log may have steps that went with the series when it was gone, in a cut.
        let none = StartTimestamp { since: cut.saturating_add(1), start: 0 };
        let none = (self.used && cut > Timestamp::MIN).then_some(&none);
        // Of what is in order; a late sample brings its own.
        if let Some(step) = self.steps(reference.slot()).last().or(none) {
            log.start(reference.0, step.since, step.start);
        }
    }

    /// The log has starts of the shard.
    pub(crate) fn set_used(&mut self) {
        self.used = true;
    }

    /// Notes and logs that a sample has this start; 0 = not known.
    #[cold]
    pub(crate) fn note(
        &mut self,
        stored: Stored,
        start: Timestamp,
        accounts: &mut Accounts,
        log: &mut ShardLog,
    ) {
        let Stored { reference, timestamp, newest } = stored;
        let slot = reference.slot();
        let steps = self.steps(slot);
        let before = StartTimestamp::at(steps, timestamp);
        // The step that a late sample finds may be in a segment that goes before its own: it is logged in any case.
        if before == start && (newest || steps.is_empty()) {
            return;
        }
        self.set(slot, StartTimestamp { since: timestamp, start }, accounts);
        log.start(reference.0, timestamp, start);
        let Some(behind) = timestamp.checked_add(1).filter(|_| !newest) else { return };
        if self.steps(slot).binary_search_by_key(&behind, |step| step.since).is_err() {
            self.set(slot, StartTimestamp { since: behind, start: before }, accounts);
            log.start(reference.0, behind, before);
        }
    }

    /// From `step.since` on, up to the next step, samples have that start.
    pub(crate) fn set(&mut self, slot: u32, step: StartTimestamp, accounts: &mut Accounts) {
        let known = self.series.get(&slot).map_or(&[][..], Vec::as_slice);
        if StartTimestamp::at(known, step.since) == step.start {
            return;
        }
        self.used = true;
        let steps = self.series.entry(slot).or_default();
        let was = if steps.is_empty() { 0 } else { bytes(steps) };
        let at = steps.partition_point(|other| other.since < step.since);
        match steps.get_mut(at) {
            Some(same) if same.since == step.since => same.start = step.start,
            _ => {
                if steps.len() == steps.capacity() {
                    steps.reserve_exact(if steps.len() < 4 { 1 } else { steps.len() / 4 });
                }
                steps.insert(at, step);
            }
        }
        // One that says now what the one before says is not needed.
        let ahead = at.checked_sub(1).and_then(|ahead| steps.get(ahead)).map_or(0, |ahead| ahead.start);
        if ahead == step.start {
            steps.remove(at);
        }
        if steps.len() > STEPS_MAX {
            drop_first(steps, 1);
        }
        self.measure(slot, was, accounts);
    }

    /// Appends the starts of samples in `range`: the first step is that of its first timestamp.
    pub(crate) fn copy(&self, slot: u32, range: TimeRange, into: &mut Vec<StartTimestamp>) {
        let steps = self.steps(slot);
        let inside = steps.partition_point(|step| step.since <= range.min);
        let first = inside.checked_sub(1).and_then(|first| steps.get(first)).filter(|step| step.start != 0);
        into.extend(first.map(|step| StartTimestamp { since: range.min, start: step.start }));
        let mut before = first.map_or(0, |step| step.start);
        let rest = steps.get(inside..).unwrap_or_default();
        let changes = rest.iter().take_while(|step| step.since <= range.max);
        into.extend(changes.filter(|step| std::mem::replace(&mut before, step.start) != step.start));
    }

    /// Forgets steps of series in `slots` that are for samples before `floor` only, as far as `may` says so.
    pub(crate) fn truncate(
        &mut self,
        slots: Range<u32>,
        floor: Timestamp,
        accounts: &mut Accounts,
        may: impl Fn(u32) -> bool,
    ) {
        if self.series.is_empty() {
            return;
        }
        let mut changed = Vec::new();
        for (slot, steps) in self.series.range_mut(slots).filter(|(slot, _)| may(**slot)) {
            let gone = steps.partition_point(|step| step.since <= floor).saturating_sub(1);
            if gone > 0 {
                changed.push((*slot, bytes(steps)));
                drop_first(steps, gone);
                steps.shrink_to(steps.len() + 1);
            }
        }
        for (slot, was) in changed {
            self.measure(slot, was, accounts);
        }
    }

    /// Forgets the starts of a series.
    pub(crate) fn forget(&mut self, slot: u32, accounts: &mut Accounts) {
        if let Some(steps) = self.series.get_mut(&slot) {
            let was = bytes(steps);
            steps.clear();
            self.measure(slot, was, accounts);
        }
    }

    /// Brings the accounts up to date; a series without steps goes.
    fn measure(&mut self, slot: u32, was: usize, accounts: &mut Accounts) {
        let mut now = 0;
        match self.series.get(&slot) {
            Some(steps) if !steps.is_empty() => now = bytes(steps),
            _ => {
                self.series.remove(&slot);
            }
        }
        accounts.resize(was, now);
    }
}

fn bytes(steps: &Vec<StartTimestamp>) -> usize {
    ENTRY_BYTES + steps.capacity() * size_of::<StartTimestamp>()
}

/// Drops the first `count` steps, and one that says then what is so without it.
fn drop_first(steps: &mut Vec<StartTimestamp>, count: usize) {
    let nothing = steps.get(count).is_some_and(|first| first.start == 0);
    steps.drain(..(count + usize::from(nothing)).min(steps.len()));
}

#[cfg(test)]
mod tests;
