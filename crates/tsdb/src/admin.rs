//! `storage::Admin`: deleting, cleaning, copying.

mod copy;

use std::sync::Arc;

use chronolith_block::Tombstone;
use chronolith_head::HeadView;
use chronolith_index::CompiledMatcher;
use chronolith_model::{Matcher, TenantId, TimeRange};
use chronolith_storage::{Admin, StorageError};

use crate::{
    blocks::Change,
    compaction::{self, CompactionError},
    db::Db,
    deletion::Deletion,
    error::with_causes,
    mark::{HEAD_TOMBSTONES_MAX, HeadTombstone, Mark},
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
        let in_head = self.delete_in_head(&mut change, tenant, matcher_sets, range);
        let blocks = change.tenant(tenant).blocks.clone();
        let mut failed = in_head.err();
        let mut damaged = Vec::new();
        for (block, set) in blocks.iter().flat_map(|block| matcher_sets.iter().map(move |set| (block, set))) {
            let tombstone = Tombstone { matchers: inert(set), ranges: vec![range] };
            if let Err(error) = Change::delete(block, tombstone) {
                failed.get_or_insert_with(|| unavailable(&error));
                if error.is_damage() {
                    damaged.push((block, error));
                }
            }
        }
        change.publish();
        for (block, error) in damaged {
            self.blocks.quarantine(tenant, block, &error);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Notes what is deleted in the head, durably.
    fn delete_in_head(
        &self,
        change: &mut Change<'_>,
        tenant: &TenantId,
        matcher_sets: &[Vec<CompiledMatcher>],
        range: TimeRange,
    ) -> Result<(), StorageError> {
        // What is newer comes later, and is not meant; nor is what comes late, so far back as nothing is.
        let (times, again) = (self.head.times(), self.read_again());
        let from = times.iter().chain(&again).map(|times| times.min).min();
        let to = times.iter().chain(&again).map(|times| times.max).max();
        let (Some(from), Some(to)) = (from, to) else { return Ok(()) };
        let range = TimeRange::new(range.min.max(from), range.max.min(to));
        if range.min > range.max {
            return Ok(());
        }
        let again = again.is_some_and(|times| times.overlaps(&range));
        let logged = self.head.logged();
        let view = HeadView::open(Arc::clone(&self.head), tenant, TimeRange::ALL);
        let mut deletions = change.version.deletions.to_vec();
        let mut known = true;
        for set in matcher_sets {
            if !again && view.select(set).series.is_empty() {
                continue;
            }
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
        if deletions.len() > HEAD_TOMBSTONES_MAX {
            let reason =
                format!("{HEAD_TOMBSTONES_MAX} deletions wait for the next cut of the head; retry later");
            return Err(StorageError::Unavailable { reason });
        }
        let tombstones = deletions.iter().map(|deletion| deletion.tombstone.clone()).collect();
        let mark = Mark { tombstones, ..self.mark.lock().clone() };
        self.try_mark(mark).map_err(|error| unavailable(&error))?;
        change.version.deletions = deletions.into();
        Ok(())
    }

    /// Where there may be samples, in milliseconds, that a start reads from the log though blocks have them: in what was logged
    /// last before a cut. They are not in the head any more.
    fn read_again(&self) -> Option<TimeRange> {
        let mark = self.mark.lock();
        let covered = *mark.sequences.iter().min()?;
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
