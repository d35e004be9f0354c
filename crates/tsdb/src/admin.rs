//! `storage::Admin`: deleting, cleaning, copying.

mod copy;

use std::sync::Arc;

use chronolith_block::Tombstone;
use chronolith_head::HeadView;
use chronolith_index::CompiledMatcher;
use chronolith_model::{Matcher, TenantId, TimeRange, Timestamp};
use chronolith_storage::{Admin, StorageError};

use crate::{
    blocks::Change,
    compaction::{self, CompactionError},
    db::Db,
    deletion::Deletion,
    error::with_causes,
    mark::{self, HEAD_TOMBSTONES_MAX, HeadTombstone, Mark},
    store::Store,
};

impl Admin for Db {
    fn delete_series(
        &self,
        tenant: &TenantId,
        matcher_sets: &[Vec<CompiledMatcher>],
        range: TimeRange,
    ) -> Result<(), StorageError> {
        chronolith_storage::admin::check_matcher_sets(matcher_sets)?;
        self.open_for_changes()?;
        if range.min > range.max {
            return Ok(());
        }
        self.store.delete(tenant, matcher_sets, range)
    }

    fn clean_tombstones(&self) -> Result<(), StorageError> {
        self.open_for_changes()?;
        loop {
            match compaction::clean(&self.store) {
                // Somebody deletes: that is to be cleaned too.
                Err(CompactionError::Block(chronolith_block::Error::Cancelled)) if !self.store.stopping() => {
                }
                cleaned => return cleaned.map_err(|error| unavailable(&error)),
            }
        }
    }

    fn snapshot(&self, skip_head: bool) -> Result<String, StorageError> {
        self.open_for_changes()?;
        copy::make(&self.store, skip_head).map_err(|error| unavailable(&error))
    }
}

impl Db {
    fn open_for_changes(&self) -> Result<(), StorageError> {
        if self.store.stopping() {
            return Err(StorageError::Unavailable { reason: "the database is shutting down".to_owned() });
        }
        Ok(())
    }
}

impl Store {
    fn delete(
        &self,
        tenant: &TenantId,
        matcher_sets: &[Vec<CompiledMatcher>],
        range: TimeRange,
    ) -> Result<(), StorageError> {
        let _no_merge = self.without_merges();
        self.blocks.remove_leftovers().map_err(|error| unavailable(&error))?;
        let mut change = self.blocks.change();
        let blocks = change.tenant(tenant).blocks.clone();
        let mut failed = None;
        let mut damaged = Vec::new();
        // By set, whether blocks have something of it.
        let mut in_blocks = vec![false; matcher_sets.len()];
        for (set, in_blocks) in matcher_sets.iter().zip(&mut in_blocks) {
            for block in &blocks {
                let tombstone = Tombstone { matchers: inert(set), ranges: vec![range] };
                *in_blocks |= Change::delete(block, tombstone).unwrap_or_else(|error| {
                    failed.get_or_insert_with(|| unavailable(&error));
                    if error.is_damage() {
                        damaged.push((block, error));
                    }
                    true
                });
            }
        }
        let sets: Vec<_> = matcher_sets.iter().zip(in_blocks).collect();
        if let Err(error) = self.delete_in_head(&mut change, tenant, &sets, range) {
            failed.get_or_insert(error);
        }
        change.publish();
        for (block, error) in damaged {
            self.blocks.quarantine(tenant, block, &error);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Notes what is deleted in the head, durably; of each of `sets` it is known whether blocks have something of it.
    fn delete_in_head(
        &self,
        change: &mut Change<'_>,
        tenant: &TenantId,
        sets: &[(&Vec<CompiledMatcher>, bool)],
        range: TimeRange,
    ) -> Result<(), StorageError> {
        let view = HeadView::open(Arc::clone(&self.head), tenant, TimeRange::ALL);
        let held = self.head.held();
        let in_head: Vec<bool> = sets.iter().map(|(set, _)| !view.select(set).series.is_empty()).collect();
        // Behind the selection: the log has what the head has let go of by then.
        let again = self.read_again();
        let logged = self.head.logged();
        let mut deletions = change.version.deletions.to_vec();
        let mut known = true;
        for ((set, in_blocks), in_head) in sets.iter().zip(in_head) {
            // What is newer than that comes later, and is not meant.
            let reach = [held.filter(|_| in_head), again.filter(|_| in_head || *in_blocks)];
            let reach = reach.into_iter().flatten();
            let reach = reach.reduce(|a, b| TimeRange::new(a.min.min(b.min), a.max.max(b.max)));
            let Some(reach) = reach.filter(|reach| reach.overlaps(&range)) else { continue };
            let range = TimeRange::new(range.min.max(reach.min), range.max.min(reach.max));
            let tombstone = HeadTombstone { tenant: tenant.clone(), matchers: inert(set), range };
            if let Some(again) = deletions.iter_mut().find(|deletion| deletion.tombstone == tombstone) {
                again.logged = logged;
                continue;
            }
            known = false;
            deletions.push(Deletion::new(tombstone, logged).map_err(|error| unavailable(&error))?);
        }
        if known {
            change.version.deletions = deletions.into();
            return Ok(());
        }
        let tombstones = deletions.iter().map(|deletion| deletion.tombstone.clone()).collect();
        let mark = Mark { tombstones, ..self.mark.lock().clone() };
        if deletions.len() > HEAD_TOMBSTONES_MAX || !mark.fits() {
            let reason = format!(
                "{} deletions wait for the next cut of the head, at most {HEAD_TOMBSTONES_MAX} or {} MiB of them can; retry \
                 later",
                change.version.deletions.len(),
                mark::BYTES_MAX >> 20
            );
            return Err(StorageError::Unavailable { reason });
        }
        self.try_mark(mark).map_err(|error| unavailable(&error))?;
        change.version.deletions = deletions.into();
        Ok(())
    }

    /// Where there may be samples, in milliseconds, that a start reads from the log though blocks have them: in what was logged
    /// last before a cut. They are not in the head any more.
    fn read_again(&self) -> Option<TimeRange> {
        let mark = self.mark.lock();
        let covered = *mark.sequences.iter().min()?;
        if self.mark_is_stale() {
            // A start may find an older one.
            return Some(TimeRange::new(Timestamp::MIN, mark.boundary));
        }
        let segments = self.wal.segments();
        let behind = segments.iter().filter(|segment| segment.last_sequence > covered);
        let from = behind.filter_map(|segment| segment.times).map(|(oldest, _)| oldest).min()?;
        (from <= mark.boundary).then(|| TimeRange::new(from, mark.boundary))
    }
}

fn inert(set: &[CompiledMatcher]) -> Vec<Matcher> {
    set.iter().map(|matcher| matcher.matcher().clone()).collect()
}

fn unavailable(error: &dyn std::error::Error) -> StorageError {
    StorageError::Unavailable { reason: with_causes(error) }
}
