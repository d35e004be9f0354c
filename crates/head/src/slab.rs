//! Series by slot, in pages that are given back when all their series are gone.

use std::{mem::size_of, ops::Range};

use crate::{
    closed::ClosedChunk,
    series::{Accounts, Series},
};

/// Slots of a page.
const PAGE: usize = 256;

/// Slots are numbered upward and never reused.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    pages: Vec<Option<Box<Page>>>,
    /// First slot never given out.
    next: u32,
    live: usize,
    live_pages: usize,
}

#[derive(Debug)]
struct Page {
    hot: Vec<Series>,
    closed: Vec<Vec<ClosedChunk>>,
    live: usize,
}

impl Page {
    fn new() -> Self {
        Self {
            hot: (0..PAGE).map(|_| Series::vacant()).collect(),
            closed: (0..PAGE).map(|_| Vec::new()).collect(),
            live: 0,
        }
    }
}

fn place(slot: u32) -> (usize, usize) {
    (slot as usize / PAGE, slot as usize % PAGE)
}

impl Slab {
    /// How many series.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Bytes of the pages.
    pub(crate) fn bytes(&self) -> usize {
        let page = PAGE * (size_of::<Series>() + size_of::<Vec<ClosedChunk>>()) + size_of::<Page>();
        self.live_pages * page + self.pages.capacity() * size_of::<Option<Box<Page>>>()
    }

    /// The slot the next series gets; it is given out only by [`Slab::insert`].
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Makes `slot` a series of `tenant`; false if it is one already.
    pub(crate) fn insert(&mut self, slot: u32, tenant: u32) -> bool {
        let (number, at) = place(slot);
        if self.pages.len() <= number {
            self.pages.resize_with(number + 1, || None);
        }
        self.next = self.next.max(slot + 1);
        let page = &mut self.pages[number];
        if page.is_none() {
            self.live_pages += 1;
        }
        let page = page.get_or_insert_with(|| Box::new(Page::new()));
        if !page.hot[at].is_vacant() {
            return false;
        }
        page.hot[at].occupy(tenant);
        page.live += 1;
        self.live += 1;
        true
    }

    /// No slot up to and including `slot` is ever given out again.
    pub(crate) fn reserve_through(&mut self, slot: u32) {
        self.next = self.next.max(slot + 1);
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<(&Series, &[ClosedChunk])> {
        let (number, at) = place(slot);
        let page = self.pages.get(number)?.as_ref()?;
        let series = page.hot.get(at)?;
        (!series.is_vacant()).then(|| (series, page.closed[at].as_slice()))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<(&mut Series, &mut Vec<ClosedChunk>)> {
        let (number, at) = place(slot);
        let page = self.pages.get_mut(number)?.as_mut()?;
        let series = page.hot.get_mut(at)?;
        if series.is_vacant() {
            return None;
        }
        Some((series, &mut page.closed[at]))
    }

    /// How many pages there are or were.
    pub(crate) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The slots of page `number`.
    pub(crate) fn slots_of(number: usize) -> Range<u32> {
        slot_of(number, 0)..slot_of(number + 1, 0)
    }

    /// Calls `visit` with each series of page `number`.
    pub(crate) fn for_each(&self, number: usize, mut visit: impl FnMut(u32, &Series, &[ClosedChunk])) {
        let Some(Some(page)) = self.pages.get(number) else { return };
        for (at, (series, closed)) in page.hot.iter().zip(&page.closed).enumerate() {
            if !series.is_vacant() {
                visit(slot_of(number, at), series, closed);
            }
        }
    }

    /// Calls `visit` with each series of page `number`.
    pub(crate) fn for_each_mut(
        &mut self,
        number: usize,
        mut visit: impl FnMut(u32, &mut Series, &mut Vec<ClosedChunk>),
    ) {
        let Some(Some(page)) = self.pages.get_mut(number) else { return };
        for (at, (series, closed)) in page.hot.iter_mut().zip(&mut page.closed).enumerate() {
            if !series.is_vacant() {
                visit(slot_of(number, at), series, closed);
            }
        }
    }

    /// Frees `slot` if its series has no sample in order, and no histogram; says whether it did.
    pub(crate) fn vacate_if_empty(&mut self, slot: u32, accounts: &mut Accounts) -> bool {
        let (number, at) = place(slot);
        let Some(Some(page)) = self.pages.get_mut(number) else { return false };
        let Some(series) = page.hot.get_mut(at) else { return false };
        if series.is_vacant() || series.is_mixed() || series.last().is_some() || !page.closed[at].is_empty() {
            return false;
        }
        series.vacate(&mut page.closed[at], accounts);
        page.live -= 1;
        self.live -= 1;
        true
    }

    /// Gives page `number` back if all its slots have been given out and freed.
    pub(crate) fn release_if_empty(&mut self, number: usize) {
        let slots_left = (number + 1) * PAGE > self.next as usize;
        if let Some(entry) = self.pages.get_mut(number)
            && !slots_left
            && entry.as_ref().is_some_and(|page| page.live == 0)
        {
            *entry = None;
            self.live_pages -= 1;
        }
    }
}

fn slot_of(page: usize, at: usize) -> u32 {
    u32::try_from(page * PAGE + at).expect("slots have 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_with_their_last_series_and_slots_are_never_reused() {
        let mut slab = Slab::default();
        for slot in 0..1000 {
            assert_eq!(slab.next(), slot);
            assert!(slab.insert(slot, 7));
        }
        assert!(!slab.insert(3, 7));
        let full = slab.bytes();
        for slot in 0..1000 {
            assert!(slab.vacate_if_empty(slot, &mut Accounts::default()));
            assert!(!slab.vacate_if_empty(slot, &mut Accounts::default()));
        }
        for page in 0..slab.pages() {
            slab.release_if_empty(page);
        }
        assert_eq!((slab.live(), slab.next()), (0, 1000));
        assert!(slab.get(3).is_none());
        assert!(slab.bytes() < full / 2, "the last page stays, it has slots left");
        assert!(slab.insert(1000, 7) && slab.get(1000).is_some());
    }
}
