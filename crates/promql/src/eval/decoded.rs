//! Samples that more than one leaf reads: two functions over one selector decode it once.
//!
//! Only where there is plenty of room: what is kept is charged to the query, and half of its memory stays free. Else
//! each leaf decodes for itself. Values, annotations and counts are the same either way.

use chronolith_storage::Samples;

use super::Executor;
use crate::limits::Ledger;

/// Memory of a decoded sample.
const SAMPLE_BYTES: usize = size_of::<i64>() + size_of::<f64>();

/// The samples of a selection, stale markers included.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(super) series: Vec<Samples>,
    /// What the ledger has for them.
    bytes: usize,
}

/// What a leaf does about the samples of its selection that other leaves need too.
#[derive(Debug, Default)]
pub(super) enum Keeping {
    #[default]
    Nothing,
    /// It keeps what it decodes.
    New(Decoded),
    /// All have been decoded before.
    All(Decoded),
}

impl Keeping {
    /// Adds what was decoded, if it is to be kept; false where the ledger has no room for it.
    pub(super) fn add(&mut self, samples: &mut Vec<Samples>, ledger: &Ledger) -> bool {
        let Self::New(decoded) = self else { return true };
        let of = |samples: &Samples| size_of::<Samples>() + samples.memory_bytes();
        let bytes = samples.iter().map(of).sum();
        if !ledger.keep(bytes) {
            return false;
        }
        decoded.bytes += bytes;
        decoded.series.append(samples);
        true
    }
}

impl Executor<'_> {
    /// What is kept, or to be kept, of a selection that a leaf begins to read; `samples` is a guess at how many a series
    /// has.
    pub(super) fn decoded_before(&mut self, selection: usize, samples: usize) -> Keeping {
        self.leaves_left[selection] = self.leaves_left[selection].saturating_sub(1);
        if let Some(all) = self.decoded.remove(&selection) {
            return Keeping::All(all);
        }
        let bytes = samples.saturating_mul(SAMPLE_BYTES).saturating_mul(self.sets[selection].len());
        if self.leaves_left[selection] > 0 && self.ledger.has_room(bytes) {
            Keeping::New(Decoded::default())
        } else {
            Keeping::Nothing
        }
    }

    /// Puts by what other leaves are going to read.
    pub(super) fn decoded_after(&mut self, selection: usize, keeping: Keeping) {
        match keeping {
            Keeping::All(decoded) | Keeping::New(decoded)
                if self.leaves_left[selection] > 0 && decoded.series.len() == self.sets[selection].len() =>
            {
                self.decoded.insert(selection, decoded);
            }
            keeping => self.forget(keeping),
        }
    }

    pub(super) fn forget(&self, keeping: Keeping) {
        if let Keeping::All(decoded) | Keeping::New(decoded) = keeping {
            self.ledger.forget(decoded.bytes);
        }
    }
}
