//! Chunks in files, read and compared with their checksums, many at a time.

use std::sync::Arc;

use super::{Place, RECORD_HEADER_BYTES, decode};
use crate::error::{ChunkDamage, ReadError};

/// What lies between two chunks is read with them, if it is no more than so many bytes ...
const GAP_BYTES_MAX: u64 = 16 << 10;
/// ... and no more than so many are read at a time, unless one chunk has more.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Which of `places` cannot be read, by their numbers among these, ascending, and why. Neighbours are read together.
pub(crate) fn unreadable(places: &[&Place]) -> Vec<(usize, ReadError)> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_unstable_by_key(|at| places.get(*at).map(|place| (place.file.number, place.offset)));
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let (together, behind) = rest.split_at(neighbours(places, rest));
        rest = behind;
        read_together(places, together, &mut bytes, &mut found);
    }
    found.sort_by_key(|(at, _)| *at);
    found
}

/// How many of `order` are read together with its first.
fn neighbours(places: &[&Place], order: &[usize]) -> usize {
    let mut chosen = order.iter().filter_map(|at| places.get(*at));
    let Some(first) = chosen.next() else { return order.len() };
    let mut end = first.end();
    let near = |place: &&&Place| {
        let same = Arc::ptr_eq(&place.file, &first.file);
        let near = u64::from(place.offset) <= end + GAP_BYTES_MAX;
        let wanted = end.max(place.end());
        let small = wanted - u64::from(first.offset) <= READ_BYTES_MAX;
        end = wanted;
        same && near && small
    };
    1 + chosen.take_while(near).count()
}

fn read_together(
    places: &[&Place],
    together: &[usize],
    bytes: &mut Vec<u8>,
    found: &mut Vec<(usize, ReadError)>,
) {
    let chosen = || together.iter().filter_map(|at| Some((*at, *places.get(*at)?)));
    let Some((_, first)) = chosen().next() else { return };
    let end = chosen().map(|(_, place)| place.end()).max().unwrap_or(0);
    let begin = u64::from(first.offset);
    bytes.clear();
    bytes.resize(usize::try_from(end - begin).unwrap_or(0), 0);
    let read = first.file.reader.as_ref().ok().and_then(|reader| reader.read_at(begin, bytes).ok());
    for (at, place) in chosen() {
        let whole = read.and_then(|read| {
            let from = usize::try_from(u64::from(place.offset) - begin).ok()?;
            let record = bytes.get(..read)?.get(from..from + RECORD_HEADER_BYTES + place.len())?;
            decode(place.file.number, place.offset, record).filter(|chunk| chunk.len() == place.len())
        });
        if whole.is_none() {
            // Alone: what is wrong with one is not to be said of its neighbours.
            found.extend(place.read().err().map(|error| (at, error)));
        }
    }
}

impl ChunkDamage {
    /// Whether another attempt may go better: the device, not what it holds, is to blame.
    #[must_use]
    pub const fn is_of_device(self) -> bool {
        matches!(self, Self::Device)
    }
}
