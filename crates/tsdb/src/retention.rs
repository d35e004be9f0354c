//! Which blocks go: by age, and by the size of all.

use std::collections::BTreeMap;

use chronolith_block::Ulid;
use chronolith_compact::{DropReason, RetentionOptions, retention};
use chronolith_env::OpenMode;
use chronolith_model::TenantId;

use crate::{
    blocks::id_of,
    dir::head,
    options::to_millis,
    store::{Store, count},
};

/// Files of the head that are looked at for their size, at most.
const HEAD_FILES_MAX: usize = 10_000;

/// Drops the blocks that are too old or too many.
pub(crate) fn apply(store: &Store) {
    // While blocks are merged, none of them goes.
    let Some(_merging) = store.merging.try_lock() else { return };
    let version = store.blocks.version();
    let mut infos = Vec::new();
    let mut by_id: BTreeMap<_, (TenantId, Ulid)> = BTreeMap::new();
    for (tenant, of) in &version.tenants {
        infos.extend(store.blocks.infos(&of.blocks));
        by_id.extend(of.blocks.iter().map(|block| {
            let ulid = block.meta().spec.ulid;
            (id_of(ulid), (tenant.clone(), ulid))
        }));
    }
    if infos.is_empty() {
        return;
    }
    let age = to_millis(store.options.retention);
    let options = RetentionOptions {
        now: store.floor_for_good().saturating_add(age),
        age_ms_max: Some(age),
        bytes_max: (store.options.retention_bytes > 0).then_some(store.options.retention_bytes),
        other_bytes: beside_blocks(store),
        shipping: false,
    };
    let retained = retention(&infos, &options);
    drop(version);
    for dropped in retained.drop {
        let Some((tenant, ulid)) = by_id.get(&dropped.id) else { continue };
        let mut change = store.blocks.change();
        change.remove(tenant, &[*ulid]);
        change.publish();
        let reason = match dropped.reason {
            DropReason::Age => "age",
            DropReason::Size => "size",
            _ => "other",
        };
        tracing::info!(%tenant, %ulid, reason, "dropped a block");
        count(&store.counters.blocks_dropped, 1);
        if let Err(error) = store.blocks.remove_files(tenant, &[*ulid]) {
            tracing::error!(error = &error as &dyn std::error::Error, %ulid, "cannot remove a block");
        }
    }
}

/// Bytes of log and head that count toward the limit of all: no more than half of it. They go when the head is cut, not
/// when blocks are dropped; so blocks have at least the other half, however long the log is.
fn beside_blocks(store: &Store) -> u64 {
    let half = store.options.retention_bytes / 2;
    let log: u64 = store.wal.segments().iter().map(|segment| segment.bytes).sum();
    if log >= half { half } else { log.saturating_add(head_bytes(store)).min(half) }
}

/// Bytes of the files in the directory of the head: snapshots and chunk files. What cannot be read counts nothing: it is
/// on its way out, or is met by those who need it.
fn head_bytes(store: &Store) -> u64 {
    let (fs, dir) = (&store.env.fs, head(&store.dir));
    let names = fs.list(&dir).unwrap_or_default();
    let length = |name: &String| fs.open(&dir.join(name), OpenMode::Read).and_then(|file| file.len());
    names.iter().take(HEAD_FILES_MAX).filter_map(|name| length(name).ok()).sum()
}
