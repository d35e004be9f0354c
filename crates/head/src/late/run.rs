//! Runs of raw samples into sorted chunks without overlaps.

use chronolith_model::Timestamp;

use super::LateValue;
use crate::{
    closed::{ClosedChunk, window_number},
    series::CHUNK_SAMPLES_MAX,
};

/// Merges `samples`, sorted, into `chunks`: into the chunk whose time they fall in, or a neighbour with room, or a new
/// one. No chunk gets more samples than one in order has. A timestamp that is there already keeps its value.
pub(super) fn merge<V: LateValue>(chunks: &mut Vec<ClosedChunk>, samples: &[(Timestamp, V::Value)]) {
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
        let known = chunks.get(host.clone()).and_then(<[_]>::first).map(V::decode).unwrap_or_default();
        let merged = union(&known, group);
        let pieces = merged.len().div_ceil(CHUNK_SAMPLES_MAX).max(1);
        let mut new = Vec::with_capacity(pieces);
        for piece in merged.chunks(merged.len().div_ceil(pieces).max(1)) {
            V::encode(piece, &mut new);
        }
        chunks.splice(host, new);
    }
}

/// Both, sorted; of equal timestamps the first's sample.
fn union<T: Clone>(first: &[(Timestamp, T)], second: &[(Timestamp, T)]) -> Vec<(Timestamp, T)> {
    let mut all = Vec::with_capacity(first.len() + second.len());
    all.extend_from_slice(first);
    all.extend_from_slice(second);
    all.sort_by_key(|(t, _)| *t);
    all.dedup_by_key(|(t, _)| *t);
    all
}
