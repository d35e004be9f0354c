//! Chunks in files that samples are compared with: read beforehand, so that nobody waits for a device behind a shard's lock.

use std::collections::HashMap;

use crate::closed::ClosedChunk;

/// Chunks read back from files, by file and place.
#[derive(Debug, Default)]
pub(crate) struct ReadBack {
    /// `None` where one cannot be read.
    chunks: HashMap<(u32, u32), Option<Vec<u8>>>,
}

/// How to come by the bytes of chunks that are in files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Files<'a> {
    /// By reading them, where nobody waits.
    Read,
    /// They were read before, or have to be.
    Known(&'a ReadBack),
}

impl ReadBack {
    /// Reads `chunk`, if it is in a file and was not read yet.
    pub(crate) fn read(&mut self, chunk: &ClosedChunk) {
        let Some(place) = chunk.place() else { return };
        let (file, offset, _) = place.numbers();
        self.chunks.entry((file, offset)).or_insert_with(|| {
            let read = place.read();
            if let Err(error) = &read {
                // Queries of it fail; what comes late at its time counts as not known.
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "a late sample cannot be compared with what is stored"
                );
            }
            read.ok()
        });
    }
}

impl Files<'_> {
    /// Whether `chunk` has to be read before it can be looked into.
    pub(crate) fn lack(&self, chunk: &ClosedChunk) -> bool {
        let (Self::Known(known), Some(place)) = (self, chunk.place()) else { return false };
        let (file, offset, _) = place.numbers();
        !known.chunks.contains_key(&(file, offset))
    }

    /// Looks into the bytes of `chunk`; `None` where they cannot be read.
    pub(crate) fn look<T>(&self, chunk: &ClosedChunk, look: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        if let Some(bytes) = chunk.in_memory() {
            return look(bytes);
        }
        let place = chunk.place()?;
        match self {
            Self::Read => look(&place.read().ok()?),
            Self::Known(known) => {
                let (file, offset, _) = place.numbers();
                look(known.chunks.get(&(file, offset))?.as_ref()?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use chronolith_model::{Labels, Sample, TenantId};

    use super::*;
    use crate::{
        ChunkFiles, HeadOptions,
        fixture::{Fixture, NOW},
        offer::{LateRule, SeriesMut, Verdict},
        shard::ShardState,
    };

    #[test]
    fn what_is_in_a_file_is_read_before_it_is_judged() {
        let fixture = Fixture::new(HeadOptions::default());
        let (tenant, labels) = (TenantId::default(), Labels::from_pairs([("__name__", "m")]));
        let give = |given: Vec<Sample>| fixture.append(&tenant, &[(labels.clone(), given)]).outcome;
        let at = |step: i64| NOW - 3_000_000 + step * 15_000;
        assert_eq!(give((0..200).map(|step| Sample::new(at(step), step as f64)).collect()).stored, 200);
        let files = ChunkFiles::open(&fixture.env, Path::new("/chunks")).unwrap();
        while !fixture.head.spill_step(&files, NOW + 1).unwrap().round_done {}
        let mut locked: Vec<_> = fixture.head.shards.iter().map(|shard| shard.lock()).collect();
        let state = locked.iter_mut().find(|state| state.slab.live() > 0).unwrap();
        let chunk = state.slab.get(0).unwrap().1[0].clone();
        assert!(chunk.place().is_some() && chunk.max() < at(150), "the open chunk is in memory");
        let judge = |state: &mut ShardState, t: i64, value: f64, read: &ReadBack| {
            let ShardState { slab, late, histograms, accounts, .. } = state;
            let (series, closed) = slab.get_mut(0).unwrap();
            let files = Files::Known(read);
            let mut of = SeriesMut { slot: 0, series, closed, late, histograms, accounts, files };
            let unread = of.unread(t).count();
            (unread, of.float((t, value.to_bits()), LateRule::Window { ms: i64::MAX }))
        };
        let mut read = ReadBack::default();
        for t in [at(3), at(3) + 1] {
            assert_eq!(judge(state, t, 3.0, &read), (1, Verdict::Unread), "{t}");
        }
        assert_eq!(judge(state, at(190), 190.0, &read), (0, Verdict::Duplicate));
        assert_eq!(judge(state, at(0) - 1, 0.0, &read), (0, Verdict::Stored), "no chunk has its time");
        read.read(&chunk);
        assert_eq!(judge(state, at(3), 3.0, &read), (0, Verdict::Duplicate));
        assert_eq!(judge(state, at(3), 4.0, &read), (0, Verdict::Conflict(3.0_f64.to_bits())));
        drop(locked);
        // As a request meets it: a sample of each kind, and those in memory beside them.
        let outcome = give(vec![
            Sample::new(at(5), 5.0),
            Sample::new(at(6), 7.0),
            Sample::new(at(7) + 1, 7.0),
            Sample::new(at(200), 200.0),
        ]);
        assert_eq!((outcome.stored, outcome.duplicates, outcome.rejected), (2, 1, 1));
    }
}
