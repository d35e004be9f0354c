//! A tenant's index, asked piece by piece, so that nobody who changes it waits for a whole question.
//!
//! Whoever waits for the index to change may hold other locks: of the identity table whose series it makes, and thereby
//! of all appends with a new series there. So a question holds the index for a bounded piece of work at a time.
//!
//! Between two pieces the index changes. A series that is added meanwhile may be missing from the answer. It is never
//! there by mistake: it becomes a candidate as a whole, and conditions that take candidates away are asked later. One
//! that is removed meanwhile may still be an id of the answer; it has no labels any more, and is passed over.

use std::{convert::Infallible, ops::ControlFlow, sync::Arc};

use chronolith_index::{MemoryIndex, Postings, PostingsSource, ValuePage};
use chronolith_model::Labels;
use parking_lot::RwLock;
use roaring::RoaringBitmap;

/// Most values looked at in one piece.
const VALUES_AT_ONCE_MAX: usize = 512;

/// No further value in a piece that has met so many ids.
const IDS_AT_ONCE_MAX: u64 = 64 * 1024;

/// Most series whose labels are looked at in one piece.
const SERIES_AT_ONCE_MAX: usize = 1024;

/// A tenant's index behind its lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedIndex<'a>(pub(crate) &'a RwLock<MemoryIndex>);

impl SharedIndex<'_> {
    /// `ids` that are still there with their labels, in the order of the labels; the first `wanted` of them.
    pub(crate) fn labelled(self, ids: &RoaringBitmap, wanted: usize) -> Vec<(Labels, u32)> {
        // Stable, which is to say: made for the pieces, which are sorted.
        let sort = |labelled: &mut Vec<(Labels, u32)>| {
            labelled.sort_by(|(a, _), (b, _)| a.cmp(b));
            labelled.truncate(wanted);
        };
        let mut labelled: Vec<(Labels, u32)> = Vec::new();
        for piece in pieces(ids) {
            let index = self.0.read();
            let sorted = index.sorted_by_labels(&piece);
            let of_piece = sorted.into_iter().take(wanted);
            labelled.extend(of_piece.filter_map(|id| Some((index.labels(id)?, id))));
            drop(index);
            if labelled.len() / 2 > wanted.max(SERIES_AT_ONCE_MAX) {
                sort(&mut labelled);
            }
        }
        if ids.len() > SERIES_AT_ONCE_MAX as u64 {
            sort(&mut labelled);
        }
        labelled
    }

    /// Calls `visit` with the labels of `ids` that are still there, as long as it wants more.
    pub(crate) fn visit_labels(
        self,
        ids: &RoaringBitmap,
        visit: &mut dyn FnMut(Labels) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for piece in pieces(ids) {
            let index = self.0.read();
            let labels: Vec<Labels> = piece.iter().filter_map(|id| index.labels(id)).collect();
            drop(index);
            labels.into_iter().try_for_each(&mut *visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Calls `visit` with the label names that series of `ids` have, as long as it wants more; with some of them several
    /// times.
    pub(crate) fn visit_names_among(
        self,
        ids: &RoaringBitmap,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        pieces(ids)
            .try_for_each(|piece| self.0.read().names_among(&piece).into_iter().try_for_each(&mut *visit))
    }

    /// The same with the values of label `name`.
    pub(crate) fn visit_values_among(
        self,
        name: &str,
        ids: &RoaringBitmap,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        pieces(ids).try_for_each(|piece| {
            self.0.read().values_among(name, &piece).into_iter().try_for_each(&mut *visit)
        })
    }

    /// All values of label `name`, sorted.
    pub(crate) fn values(self, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        self.visit(name, "", &mut |value, _| values.push(value.to_owned()));
        values
    }

    /// Calls `visit` with all values of label `name`, in order, as long as it wants more.
    pub(crate) fn visit_values(
        self,
        name: &str,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        self.visit_pages(name, "", &mut |value, _| {
            if flow.is_continue() {
                flow = visit(value);
            }
            flow
        })
    }

    fn visit(self, name: &str, prefix: &str, visit: &mut dyn FnMut(&str, Postings<'_>)) {
        let _ = self.visit_pages(name, prefix, &mut |value, postings| {
            visit(value, postings);
            ControlFlow::Continue(())
        });
    }

    /// Stops behind the page in which `visit` first said so.
    fn visit_pages(
        self,
        name: &str,
        prefix: &str,
        visit: &mut dyn FnMut(&str, Postings<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = ValuePage {
                after: after.as_deref(),
                values_max: VALUES_AT_ONCE_MAX,
                ids_max: IDS_AT_ONCE_MAX,
            };
            let last = self.0.read().visit_values(name, prefix, &page, &mut |value, postings| {
                flow = visit(value, postings);
            });
            if last.is_none() || flow.is_break() {
                return flow;
            }
            after = last;
        }
    }
}

/// `ids` in pieces of at most [`SERIES_AT_ONCE_MAX`].
fn pieces(ids: &RoaringBitmap) -> impl Iterator<Item = RoaringBitmap> {
    let mut ids = ids.iter();
    std::iter::from_fn(move || {
        let piece: RoaringBitmap = ids.by_ref().take(SERIES_AT_ONCE_MAX).collect();
        (!piece.is_empty()).then_some(piece)
    })
}

/// A list that outlives the lock.
fn owned(postings: Postings<'_>) -> Postings<'static> {
    Postings::Owned(match postings {
        Postings::Ids(ids) => ids.iter().copied().collect(),
        Postings::Bitmap(bitmap) => bitmap.clone(),
        Postings::Owned(bitmap) => bitmap,
    })
}

impl PostingsSource for SharedIndex<'_> {
    type Error = Infallible;

    fn all(&self) -> Result<Postings<'_>, Infallible> {
        self.0.read().all().map(owned)
    }

    fn postings(&self, name: &str, value: &str) -> Result<Postings<'_>, Infallible> {
        self.0.read().postings(name, value).map(owned)
    }

    fn values_count(&self, name: &str) -> Result<u64, Infallible> {
        self.0.read().values_count(name)
    }

    fn for_each_value(
        &self,
        name: &str,
        prefix: &str,
        visit: &mut dyn FnMut(&str, Postings<'_>),
    ) -> Result<(), Infallible> {
        self.visit(name, prefix, visit);
        Ok(())
    }

    fn filter(
        &self,
        name: &str,
        ids: &RoaringBitmap,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, Infallible> {
        let mut kept = RoaringBitmap::new();
        for piece in pieces(ids) {
            let Ok(of_piece) = self.0.read().filter(name, &piece, keep);
            kept |= of_piece;
        }
        Ok(kept)
    }
}
