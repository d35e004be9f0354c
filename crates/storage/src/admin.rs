//! What operators do to stored data.

use chronolith_index::CompiledMatcher;
use chronolith_model::{TenantId, TimeRange};

use crate::error::StorageError;

/// An engine that can forget on demand, and be copied while it runs.
pub trait Admin: Send + Sync {
    /// Deletes the samples inside `range` (both ends included) of the series that a set of `matcher_sets` selects; none
    /// of the sets is empty. Durable, and in force for views to be opened, on return. What arrives later is stored
    /// anew; of a series that was selected, though, samples that are not newer than the newest one stored by anyone when
    /// it was deleted may go with the rest.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] when there is no set or an empty one; else when not all of it could be done: some of
    /// the samples may be deleted then, and repeating it does no harm.
    fn delete_series(
        &self,
        tenant: &TenantId,
        matcher_sets: &[Vec<CompiledMatcher>],
        range: TimeRange,
    ) -> Result<(), StorageError>;

    /// Gives back the disk space of what has been deleted, as far as it is on disk. Takes long.
    ///
    /// # Errors
    /// When not all of it could be done; repeating it does no harm.
    fn clean_tombstones(&self) -> Result<(), StorageError>;

    /// Copies everything stored to a new directory inside the data directory, from which a database can be opened;
    /// shares what it can with the original. Returns its name.
    ///
    /// # Errors
    /// When it could not be made; there is then nothing by that name.
    fn snapshot(&self, skip_head: bool) -> Result<String, StorageError>;
}

/// Checks the sets of [`Admin::delete_series`].
///
/// # Errors
/// [`StorageError::Invalid`] when there is no set or an empty one.
pub fn check_matcher_sets(matcher_sets: &[Vec<CompiledMatcher>]) -> Result<(), StorageError> {
    if matcher_sets.is_empty() || matcher_sets.iter().any(Vec::is_empty) {
        return Err(StorageError::Invalid { reason: "no match[] parameter provided".to_owned() });
    }
    Ok(())
}
