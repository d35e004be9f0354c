//! Pages of start timestamps: per series a step function of time, docs/format/block.md.
//!
//! The first step of a series reaches back for ever: its `since` is the least timestamp and is not written.

use chronolith_codec::{Reader, write};
use chronolith_model::{StartTimestamp, Timestamp};

use crate::error::ContentError;
use crate::layout::footer::impossible;
use crate::meta::SERIES_MAX;

/// A page ends with the series that brings it to so many bytes.
pub(crate) const START_PAGE_BYTES: usize = 16 << 10;

/// A page ends with so many steps of one series, which goes on in the next page.
pub(crate) const GROUP_STEPS_MAX: usize = 4096;

/// The most steps of a page: those of one that is nearly full, two bytes each, and of one more series.
pub(crate) const PAGE_STEPS_MAX: usize = START_PAGE_BYTES / 2 + GROUP_STEPS_MAX;

/// Where the first step of a series starts.
pub(crate) const ALWAYS: Timestamp = Timestamp::MIN;

/// The steps of some series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StartPage {
    /// Ascending.
    ids: Vec<u32>,
    /// Per series: behind its last step.
    ends: Vec<u32>,
    steps: Vec<StartTimestamp>,
    /// The first series has further steps in the page before.
    pub(crate) continues: bool,
}

impl StartPage {
    /// The steps of the page that series `id` has.
    pub(crate) fn of(&self, id: u32) -> &[StartTimestamp] {
        self.ids.binary_search(&id).map_or(&[], |place| self.at(place))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[StartTimestamp])> {
        self.ids.iter().enumerate().map(|(place, id)| (*id, self.at(place)))
    }

    /// Ids of the first and the last series.
    pub(crate) fn ends(&self) -> Option<(u32, u32)> {
        self.ids.first().copied().zip(self.ids.last().copied())
    }

    /// How many steps it has.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        (self.ids.capacity() + self.ends.capacity()) * size_of::<u32>()
            + self.steps.capacity() * size_of::<StartTimestamp>()
    }

    fn at(&self, place: usize) -> &[StartTimestamp] {
        let end = |place: usize| self.ends.get(place).map_or(0, |end| *end as usize);
        let from = place.checked_sub(1).map_or(0, end);
        self.steps.get(from..end(place)).unwrap_or_default()
    }

    /// Reads the content of a page.
    pub(crate) fn decode(content: &[u8]) -> Result<Self, ContentError> {
        let mut reader = Reader::new(content);
        let mut page = Self::default();
        let (mut next, mut last) = (0_u64, StartTimestamp { since: 0, start: 0 });
        while !reader.is_empty() {
            let id = next + reader.count(SERIES_MAX as usize, "gap of ids")? as u64;
            if id >= u64::from(SERIES_MAX) {
                return Err(impossible("series id", SERIES_MAX.into(), id));
            }
            next = id + 1;
            let head = reader.uvarint("number of steps")?;
            let (count, continues) = (head >> 1, head & 1 == 1);
            if continues && !page.ids.is_empty() {
                return Err(impossible("a series that goes on in the middle of a page", 0, 1));
            }
            page.continues |= continues;
            let room = (PAGE_STEPS_MAX - page.steps.len()) as u64;
            if count == 0 || count > room {
                return Err(impossible("number of steps", room, count));
            }
            let from = page.steps.len();
            for step in 0..count {
                let mut since = ALWAYS;
                if step > 0 || continues {
                    since = last.since.wrapping_add(reader.varint("start of a step")?);
                    last.since = since;
                }
                last.start = last.start.wrapping_add(reader.varint("start timestamp")?);
                page.steps.push(StartTimestamp { since, start: last.start });
            }
            let steps = page.steps.get(from..).unwrap_or_default();
            if !steps.is_sorted_by(|a, b| a.since < b.since) || (continues && first_since(steps) == ALWAYS) {
                return Err(impossible("order of steps", 1, 0));
            }
            page.ids.push(id as u32);
            page.ends.push(page.steps.len() as u32);
        }
        Ok(page)
    }
}

fn first_since(steps: &[StartTimestamp]) -> Timestamp {
    steps.first().map_or(ALWAYS, |step| step.since)
}

/// The content of a page that is being made.
#[derive(Debug)]
pub(crate) struct StartEncoder {
    pub(crate) content: Vec<u8>,
    /// Ids of the first and the last series.
    pub(crate) ends: Option<(u32, u32)>,
    pub(crate) steps: u32,
    last: StartTimestamp,
}

impl Default for StartEncoder {
    fn default() -> Self {
        Self { content: Vec::new(), ends: None, steps: 0, last: StartTimestamp { since: 0, start: 0 } }
    }
}

impl StartEncoder {
    /// Adds steps of series `id`, which is behind the last one. `continues`: not its first steps; they are then the
    /// first of the page. The first `since` of others does not count.
    pub(crate) fn push(&mut self, id: u32, steps: &[StartTimestamp], continues: bool) {
        let out = &mut self.content;
        let gap = self.ends.map_or(id, |(_, last)| id - last - 1);
        write::uvarint(out, gap.into());
        write::uvarint(out, (steps.len() as u64) << 1 | u64::from(continues));
        for (number, step) in steps.iter().enumerate() {
            if number > 0 || continues {
                write::varint(out, step.since.wrapping_sub(self.last.since));
                self.last.since = step.since;
            }
            write::varint(out, step.start.wrapping_sub(self.last.start));
            self.last.start = step.start;
        }
        self.steps += steps.len() as u32;
        self.ends = Some((self.ends.map_or(id, |(first, _)| first), id));
    }

    /// Whether the page is to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.content.len() >= START_PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(since: Timestamp, start: Timestamp) -> StartTimestamp {
        StartTimestamp { since, start }
    }

    #[test]
    fn known_bytes() {
        let mut page = StartEncoder::default();
        page.push(2, &[step(ALWAYS, 100)], false);
        page.push(5, &[step(ALWAYS, 101), step(7, 0)], false);
        assert_eq!(page.content, [2, 2, 0xc8, 1, 2, 4, 2, 14, 0xc9, 1]);
        assert_eq!((page.ends, page.steps), (Some((2, 5)), 3));
        let mut page = StartEncoder::default();
        page.push(1, &[step(-1, 4)], true);
        assert_eq!(page.content, [1, 3, 1, 8]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |content: &[u8], what: &str| {
            let error = StartPage::decode(content).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        refused(&[0, 0], "number of steps");
        refused(&[0, 1], "number of steps");
        refused(&[0, 4, 2, 2, 2, 0, 3, 2, 2], "goes on in the middle");
        refused(&[0, 6, 2, 2, 2, 0, 2], "order of steps");
        refused(&[0xff, 0xff, 0xff, 0x7f, 2, 2], "gap of ids");
        let mut many = vec![0];
        write::uvarint(&mut many, ((PAGE_STEPS_MAX + 1) as u64) << 1);
        refused(&many, "number of steps");
    }

    proptest! {
        #[test]
        fn pages_round_trip(
            series in prop::collection::vec(
                (0_u32..3, prop::collection::btree_map(any::<i64>(), any::<i64>(), 1..5)),
                0..30,
            ),
            continues in any::<bool>(),
        ) {
            let mut encoder = StartEncoder::default();
            let (mut next, mut expected) = (0, Vec::new());
            for (number, (gap, steps)) in series.into_iter().enumerate() {
                let id = next + gap;
                next = id + 1;
                let continues = continues && number == 0;
                let mut steps: Vec<_> = steps.into_iter().map(|(t, start)| step(t, start)).collect();
                if !continues {
                    steps[0].since = ALWAYS;
                }
                steps.dedup_by_key(|step| step.since);
                if first_since(&steps) == ALWAYS && continues {
                    return Ok(());
                }
                encoder.push(id, &steps, continues);
                expected.push((id, steps));
            }
            let page = StartPage::decode(&encoder.content).unwrap();
            prop_assert_eq!(page.iter().map(|(id, steps)| (id, steps.to_vec())).collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(page.len(), encoder.steps as usize);
            prop_assert_eq!(page.ends(), encoder.ends);
            for (id, steps) in &expected {
                prop_assert_eq!(page.of(*id), steps.as_slice());
            }
            prop_assert_eq!(page.of(next), &[]);
            for cut in 0..encoder.content.len() {
                // A cut between two series is the content of a shorter page.
                prop_assert!(StartPage::decode(&encoder.content[..cut]).map_or(true, |page| page.ids.len() < expected.len()));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(page) = StartPage::decode(&bytes) {
                prop_assert!(page.iter().all(|(_, steps)| steps.is_sorted_by(|a, b| a.since < b.since)));
            }
        }
    }
}
