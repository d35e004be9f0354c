//! Runs of raw samples into sorted chunks without overlaps.

use chronolith_model::TimeRange;

use super::RawSample;
use crate::{
    closed::{ClosedChunk, window_number},
    series::CHUNK_SAMPLES_MAX,
};

/// The samples of a chunk of floats.
pub(super) fn decode(chunk: &ClosedChunk) -> Vec<RawSample> {
    let mut samples = Vec::with_capacity(chunk.count());
    chunk.floats(TimeRange::ALL, &mut samples).expect("encoded by this process and kept in memory");
    samples
}

/// Merges `samples`, sorted, into `chunks`: into the chunk whose time they fall in, or a neighbour with room, or a new
/// one. No chunk gets more samples than one in order has. A timestamp that is there already keeps its value.
pub(super) fn merge(chunks: &mut Vec<ClosedChunk>, samples: &[RawSample]) {
    let mut rest = samples;
    while let Some((first, _)) = rest.first() {
        let window = window_number(*first);
        let at = chunks.partition_point(|chunk| chunk.max() < *first);
        let has_room = |at: usize| {
            chunks.get(at).is_some_and(|chunk| {
                window_number(chunk.min()) == window && chunk.count() < CHUNK_SAMPLES_MAX
            })
        };
        let host = if chunks.get(at).is_some_and(|chunk| chunk.min() <= *first) {
            at..at + 1
        } else if at > 0 && has_room(at - 1) {
            at - 1..at
        } else if has_room(at) {
            at..at + 1
        } else {
            at..at
        };
        let next = chunks.get(host.end).map(ClosedChunk::min);
        let taken =
            rest.partition_point(|(t, _)| next.is_none_or(|next| *t < next) && window_number(*t) == window);
        let (group, behind) = rest.split_at(taken);
        rest = behind;
        let known = chunks.get(host.clone()).and_then(<[_]>::first).map(decode).unwrap_or_default();
        let merged = union(&known, group);
        let pieces = merged.len().div_ceil(CHUNK_SAMPLES_MAX).max(1);
        let new = merged.chunks(merged.len().div_ceil(pieces).max(1)).filter_map(ClosedChunk::of_floats);
        chunks.splice(host, new);
    }
}

/// Both, sorted; of equal timestamps the first's value.
fn union(first: &[RawSample], second: &[RawSample]) -> Vec<RawSample> {
    let mut all = Vec::with_capacity(first.len() + second.len());
    all.extend_from_slice(first);
    all.extend_from_slice(second);
    all.sort_by_key(|(t, _)| *t);
    all.dedup_by_key(|(t, _)| *t);
    all
}
