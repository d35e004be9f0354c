//! A sorted list of series ids that is small while it is short.

use std::mem::size_of;

use roaring::RoaringBitmap;

use crate::postings::Postings;

/// Longest list kept as such; a bitmap's fixed cost is about 200 bytes.
const FEW_MAX: usize = 40;
/// Fixed cost of a bitmap, in bytes.
const BITMAP_BYTES: isize = 160;

/// Many pairs have one series (a pod, an id): those cost no allocation.
#[derive(Debug, Default)]
pub(super) enum IdList {
    #[default]
    None,
    One([u32; 1]),
    Few(Vec<u32>),
    Many(Box<RoaringBitmap>),
}

impl IdList {
    /// Adds `id`; returns by how many bytes the memory behind the list grew.
    pub(super) fn insert(&mut self, id: u32) -> isize {
        match self {
            Self::None => {
                *self = Self::One([id]);
                0
            }
            Self::One([one]) => {
                let mut few = Vec::with_capacity(4);
                few.extend([(*one).min(id), (*one).max(id)]);
                *self = Self::Few(few);
                few_bytes(4)
            }
            Self::Few(few) => {
                let Err(at) = few.binary_search(&id) else { return 0 };
                let before = few_bytes(few.capacity());
                if few.len() < FEW_MAX {
                    few.insert(at, id);
                    return few_bytes(few.capacity()) - before;
                }
                let mut many: RoaringBitmap = few.iter().copied().collect();
                many.insert(id);
                let ids = isize::try_from(many.len()).unwrap_or(0);
                *self = Self::Many(Box::new(many));
                BITMAP_BYTES + 2 * ids - before
            }
            // An estimate, and never less than the truth: an array container has two bytes per id, others less.
            Self::Many(many) => {
                if many.insert(id) {
                    2
                } else {
                    0
                }
            }
        }
    }

    /// Removes `id`; returns by how many bytes the memory behind the list grew (negative: shrank).
    pub(super) fn remove(&mut self, id: u32) -> isize {
        match self {
            Self::None => 0,
            Self::One(_) => {
                *self = Self::None;
                0
            }
            Self::Few(few) => {
                let Ok(at) = few.binary_search(&id) else { return 0 };
                few.remove(at);
                let before = few_bytes(few.capacity());
                if let [one] = **few {
                    *self = Self::One([one]);
                    return -before;
                }
                0
            }
            Self::Many(many) => {
                if !many.remove(id) {
                    return 0;
                }
                let ids = isize::try_from(many.len()).unwrap_or(0);
                if many.len() > FEW_MAX as u64 / 2 {
                    return -2;
                }
                let few: Vec<u32> = many.iter().collect();
                let bytes = few_bytes(few.capacity());
                *self = Self::Few(few);
                bytes - BITMAP_BYTES - 2 * (ids + 1)
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn postings(&self) -> Postings<'_> {
        match self {
            Self::None => Postings::Ids(&[]),
            Self::One(one) => Postings::Ids(one),
            Self::Few(few) => Postings::Ids(few),
            Self::Many(many) => Postings::Bitmap(many),
        }
    }
}

fn few_bytes(capacity: usize) -> isize {
    isize::try_from(capacity * size_of::<u32>()).unwrap_or(isize::MAX)
}
