//! Since when the counters of a series have been counting, as its samples are read.

use std::sync::Arc;

use chronolith_model::{StartTimestamp, Timestamp};

use super::source::ReadCounts;
use super::{Block, SeriesSamples};
use crate::error::{Result, Section};
use crate::starts::{ALWAYS, StartPage};

/// Keeps the page that was opened last, so that neighbours are found without looking.
#[derive(Debug)]
pub(crate) struct StartCursor<'a> {
    block: &'a Block,
    open: Option<(usize, Arc<StartPage>)>,
    pub(super) counts: ReadCounts,
    /// Those of the series asked for last; the first reaches back for ever.
    pub(super) steps: Vec<StartTimestamp>,
}

impl<'a> StartCursor<'a> {
    pub(crate) const fn new(block: &'a Block) -> Self {
        Self { block, open: None, counts: ReadCounts::NONE, steps: Vec::new() }
    }

    /// Finds the steps of series `id`; none if its starts are not known.
    pub(crate) fn find(&mut self, id: u32) -> Result<&[StartTimestamp]> {
        self.steps.clear();
        let pages = &self.block.directory().starts;
        let first = pages.partition_point(|page| page.last < id);
        for (number, _) in pages.iter().enumerate().skip(first).take_while(|(_, page)| page.first <= id) {
            let page = match &self.open {
                Some((open, page)) if *open == number => page,
                _ => {
                    let page = self.block.start_page(number, Some(&mut self.counts))?;
                    &self.open.insert((number, page)).1
                }
            };
            self.steps.extend_from_slice(page.of(id));
        }
        Ok(&self.steps)
    }
}

impl Block {
    /// A page of start timestamps, which fits the one before.
    pub(crate) fn start_page(
        &self,
        number: usize,
        counts: Option<&mut ReadCounts>,
    ) -> Result<Arc<StartPage>> {
        let (source, pages) = (self.source(), &self.directory().starts);
        let Some(entry) = pages.get(number) else { return Ok(Arc::default()) };
        let page = source.start_page(entry, counts)?;
        let before = number.checked_sub(1).and_then(|before| pages.get(before));
        let goes_on = before.is_some_and(|before| before.last == entry.first);
        let pair = (u64::from(goes_on), u64::from(page.continues));
        source.equal(Section::Starts, entry.unit.off, "series that go on from the page before", pair)?;
        Ok(page)
    }
}

/// Notes in `into` the starts of its samples behind the places `before` (of floats and of histograms), which have those
/// of `steps`; before the first step they are not known.
pub(crate) fn note(steps: &[StartTimestamp], before: (usize, usize), into: &mut SeriesSamples) {
    if steps.is_empty() && into.starts.last().is_none_or(|last| last.start == 0) {
        return;
    }
    let floats = into.timestamps.get(before.0..).unwrap_or_default();
    let histograms = into.histogram_timestamps.get(before.1..).unwrap_or_default();
    let unknown = StartTimestamp { since: ALWAYS, start: 0 };
    let head = steps.first().is_none_or(|first| first.since > ALWAYS).then_some(&unknown);
    let ends = steps.iter().map(|step| Some(step.since)).chain([None]);
    let ends = ends.skip(usize::from(head.is_none()));
    for (step, end) in head.into_iter().chain(steps).zip(ends) {
        // The first sample that has it.
        let first = |times: &[Timestamp]| times.get(times.partition_point(|t| *t < step.since)).copied();
        let first = first(floats).into_iter().chain(first(histograms)).min();
        if let Some(first) = first.filter(|first| end.is_none_or(|end| *first < end)) {
            StartTimestamp::push(&mut into.starts, first, step.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_those_of_samples() {
        let step = |since, start| StartTimestamp { since, start };
        let steps = [step(ALWAYS, 0), step(15, 10), step(17, 16), step(25, 18), step(90, 5)];
        let mut into = SeriesSamples {
            timestamps: vec![10, 30],
            values: vec![0.0; 2],
            histogram_timestamps: vec![20, 40],
            ..SeriesSamples::default()
        };
        note(&steps, (0, 0), &mut into);
        assert_eq!(into.starts, [step(20, 16), step(30, 18)]);
        // More of the same behind them, and some of a block that knows nothing.
        into.timestamps.push(50);
        note(&[step(ALWAYS, 18)], (2, 2), &mut into);
        assert_eq!(into.starts.len(), 2);
        into.timestamps.push(60);
        note(&[], (3, 2), &mut into);
        assert_eq!(into.starts.last(), Some(&step(60, 0)));
        note(&[step(70, 1)], (4, 2), &mut into);
        assert_eq!(into.starts.len(), 3, "no sample, no step");
        into.timestamps.extend([70, 80]);
        note(&[step(80, 1)], (4, 2), &mut into);
        assert_eq!(into.starts.last(), Some(&step(80, 1)));
    }
}
