//! Sections beside those of series: start timestamps of a shard, exemplars of a tenant.

use chronolith_codec::{Reader, write};
use chronolith_model::{Exemplar, Labels, TenantId, Timestamp};
use chronolith_storage::StartTimestamp;
use hashbrown::HashMap;

use super::{chunks::Malformed, restore::Share};
use crate::{
    exemplars,
    head::Head,
    shard::{Ref, ShardState},
    starts::STEPS_MAX,
};

/// Longest text: as in the model's limits, with room.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most labels of a series.
const LABELS_MAX: usize = 1 << 16;

/// A section of starts in the making.
#[derive(Debug, Default)]
pub(super) struct StartsWriter {
    series: u64,
    entries: Vec<u8>,
    next_slot: u32,
}

impl StartsWriter {
    /// Bytes so far.
    pub(super) fn bytes(&self) -> usize {
        self.entries.len()
    }

    /// Adds the steps of a series; slots ascend.
    pub(super) fn add(&mut self, slot: u32, steps: &[StartTimestamp]) {
        write::uvarint(&mut self.entries, u64::from(slot - self.next_slot));
        self.next_slot = slot + 1;
        write::uvarint(&mut self.entries, steps.len() as u64);
        let mut before = StartTimestamp { since: 0, start: 0 };
        for step in steps {
            write::varint(&mut self.entries, step.since.wrapping_sub(before.since));
            write::varint(&mut self.entries, step.start.wrapping_sub(before.start));
            before = *step;
        }
        self.series += 1;
    }

    /// Appends the content of the section to `out`, and begins the next one.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        write::uvarint(out, self.series);
        out.extend_from_slice(&self.entries);
        self.entries.clear();
        (self.series, self.next_slot) = (0, 0);
    }
}

/// Slots, and the steps of each.
fn decode_starts(content: &[u8]) -> Result<Vec<(u32, Vec<StartTimestamp>)>, Malformed> {
    let mut reader = Reader::new(content);
    let mut next_slot = 0_u32;
    let mut all = Vec::new();
    for _ in 0..reader.count(content.len(), "series")? {
        let gap = u32::try_from(reader.count(Ref::SLOT_MAX as usize, "slot")?).map_err(|_| Malformed)?;
        let slot = next_slot.checked_add(gap).filter(|slot| *slot <= Ref::SLOT_MAX).ok_or(Malformed)?;
        next_slot = slot + 1;
        let count = reader.count(STEPS_MAX.min(reader.rest().len()), "steps")?;
        let mut steps: Vec<StartTimestamp> = Vec::with_capacity(count);
        let (mut since, mut start): (Timestamp, Timestamp) = (0, 0);
        for _ in 0..count {
            since = since.wrapping_add(reader.varint("first sample of a start")?);
            start = start.wrapping_add(reader.varint("start")?);
            if steps.last().is_some_and(|last| last.since >= since) {
                return Err(Malformed);
            }
            steps.push(StartTimestamp { since, start });
        }
        all.push((slot, steps));
    }
    reader.finish()?;
    Ok(all)
}

/// Takes over a section of starts: all of it, or nothing. Its series have been loaded; those that were not have none.
pub(super) fn load_starts(head: &Head, shard: usize, content: &[u8], share: &Share) -> Option<()> {
    let all = decode_starts(content).ok()?;
    let entry = head.shards.get(shard)?;
    let mut state = entry.lock();
    let ShardState { slab, starts, accounts, .. } = &mut *state;
    for (slot, steps) in all {
        // One that came back under another number has the same shard.
        let known = share.renumbered.get(&Ref::new(shard, slot).0).map_or(slot, |known| Ref(*known).slot());
        if let Some((series, _)) = slab.get_mut(known) {
            steps.into_iter().for_each(|step| starts.set(known, step, accounts));
            series.set_started(starts.contains(known));
        }
    }
    entry.publish(&state);
    Some(())
}

/// Appends the content of a section of the first of `kept`, about `bytes_full` of them; returns how many.
pub(super) fn encode_exemplars(
    tenant: &str,
    kept: &[(Labels, Exemplar)],
    bytes_full: usize,
    out: &mut Vec<u8>,
) -> usize {
    let mut entries = Vec::new();
    let mut series: HashMap<&Labels, u64> = HashMap::new();
    let (mut count, mut before) = (0, 0);
    for (labels, exemplar) in kept {
        if entries.len() >= bytes_full {
            break;
        }
        let next = series.len() as u64;
        let number = *series.entry(labels).or_insert(next);
        write::uvarint(&mut entries, number);
        if number == next {
            write::uvarint(&mut entries, labels.len() as u64);
            for (name, value) in labels.iter() {
                write::prefixed(&mut entries, name.as_bytes());
                write::prefixed(&mut entries, value.as_bytes());
            }
        }
        write::varint(&mut entries, exemplar.timestamp.wrapping_sub(before));
        before = exemplar.timestamp;
        exemplars::encode(exemplar, &mut entries);
        count += 1;
    }
    write::prefixed(out, tenant.as_bytes());
    write::uvarint(out, count as u64);
    out.extend_from_slice(&entries);
    count
}

fn decode_exemplars(content: &[u8]) -> Result<(TenantId, Vec<(Labels, Exemplar)>), Malformed> {
    let mut reader = Reader::new(content);
    let tenant = TenantId::new(reader.text(TEXT_BYTES_MAX, "tenant")?).map_err(|_| Malformed)?;
    let mut series: Vec<Labels> = Vec::new();
    let mut kept = Vec::new();
    let mut timestamp: Timestamp = 0;
    // Each takes some bytes: no more memory than the section pays for.
    for _ in 0..reader.count(content.len(), "exemplars")? {
        let number = reader.count(series.len(), "series")?;
        if number == series.len() {
            let mut pairs = Vec::new();
            for _ in 0..reader.count(LABELS_MAX, "labels")? {
                let name = reader.text(TEXT_BYTES_MAX, "label name")?;
                pairs.push((name, reader.text(TEXT_BYTES_MAX, "label value")?));
            }
            series.push(Labels::from_sorted(pairs).ok_or(Malformed)?);
        }
        let labels = series.get(number).ok_or(Malformed)?.clone();
        timestamp = timestamp.wrapping_add(reader.varint("timestamp")?);
        kept.push((labels, exemplars::read(timestamp, &mut reader).ok_or(Malformed)?));
    }
    reader.finish()?;
    Ok((tenant, kept))
}

/// Takes over a section of exemplars, all of it, or nothing; says how many there was room for.
pub(super) fn load_exemplars(head: &Head, content: &[u8]) -> Option<u64> {
    let (tenant, kept) = decode_exemplars(content).ok()?;
    let tenant = head.tenants.get_or_create(&tenant, || head.env.rng.next_u64()).ok()?;
    let added = kept
        .into_iter()
        .filter_map(|(labels, exemplar)| head.exemplars.add(tenant.number, &labels, exemplar).ok());
    Some(added.count() as u64)
}

#[cfg(test)]
mod tests;
