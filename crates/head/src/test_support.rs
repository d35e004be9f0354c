//! For tests of other crates: what no sound program does to a head.

use chronolith_model::{Labels, TenantId};

use crate::{head::Head, shard::Ref};

/// Takes the last bytes of the open chunk of a series, which says then that it has more samples than it has; whether there
/// was one.
pub fn cut_open_chunk_short(head: &Head, tenant: &TenantId, labels: &Labels) -> bool {
    let mut short = false;
    for (number, shard) in head.shards.iter().enumerate() {
        let mut references = Vec::new();
        {
            let state = shard.lock();
            for page in 0..state.slab.pages() {
                state.slab.for_each(page, |slot, _, _| references.push(Ref::new(number, slot)));
            }
        }
        for reference in references {
            if head.series_of(reference.0).is_some_and(|(of, found)| of == *tenant && found == *labels) {
                let mut state = shard.lock();
                short |= state.slab.get_mut(reference.slot()).is_some_and(|(series, _)| series.cut_short());
            }
        }
    }
    short
}
