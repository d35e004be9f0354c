//! `storage::Appender`.

use chronolith_head::Error;
use chronolith_model::{MetricMetadata, TenantId};
use chronolith_storage::{
    AppendedBatch, Appender, ExemplarBatch, ExemplarOutcome, KeyHasher, StorageError, Stores, Ticket,
    WriteBatch,
};
use chronolith_wal::{Batch, CommitError, CommitWaiter};

use crate::{db::Db, error::with_causes};

impl Appender for Db {
    fn key_hasher(&self) -> KeyHasher {
        self.head.key_hasher()
    }

    fn stores(&self) -> Stores {
        let late_samples = !self.options.ooo_window.is_zero();
        Stores { histograms: true, exemplars: true, start_timestamps: true, late_samples }
    }

    fn append_exemplars(&self, tenant: &TenantId, batch: &ExemplarBatch<'_>) -> ExemplarOutcome {
        if self.store.disk_short() {
            return ExemplarOutcome { dropped: batch.exemplars.len() as u64, ..ExemplarOutcome::default() };
        }
        self.head.append_exemplars(tenant, batch)
    }

    fn append(&self, tenant: &TenantId, batch: &WriteBatch<'_>) -> Result<AppendedBatch, StorageError> {
        if self.store.disk_short() {
            let reason = "the disk is nearly full; free some space, or lower storage.disk_reserve".to_owned();
            return Err(StorageError::Unavailable { reason });
        }
        let applied = self.head.append(tenant, batch);
        if let Some(earliest) = batch.earliest() {
            self.blocks.history.note(earliest);
        }
        let applied = applied.map_err(|error| {
            if matches!(error, Error::MemoryLimit { .. } | Error::LateLimit { .. }) {
                self.maintenance.waker().wake();
            }
            refused(&error)
        })?;
        if self.head.memory_short() {
            self.maintenance.waker().wake();
        }
        let ticket = Box::new(CommitTicket { waiter: self.waiter.clone(), batch: applied.batch });
        Ok(AppendedBatch { outcome: applied.outcome, ticket })
    }

    fn append_metadata(&self, tenant: &TenantId, metadata: Vec<MetricMetadata>) {
        self.metadata.append(tenant, metadata, |changed| {
            // Not waited for: what is sent again and again is no loss. With a full device, snapshots have it.
            if !self.store.disk_short() && self.wal.log_metadata(changed).is_none() {
                tracing::debug!(metrics = changed.len(), "metadata waits for a snapshot: the log is behind");
            }
        });
    }
}

/// Waits for one batch of the log.
#[derive(Debug)]
struct CommitTicket {
    waiter: CommitWaiter,
    batch: Batch,
}

impl Ticket for CommitTicket {
    fn wait(self: Box<Self>) -> Result<(), StorageError> {
        self.waiter.wait(self.batch).map_err(|error| unavailable(&error))
    }

    fn is_done(&self) -> bool {
        // An error is an answer too: waiting would return it at once.
        self.waiter.poll(self.batch).unwrap_or(true)
    }
}

fn refused(error: &Error) -> StorageError {
    match error {
        Error::TenantLimit { .. } => StorageError::Invalid { reason: error.to_string() },
        Error::Log(commit) => unavailable(commit),
        error => StorageError::Unavailable { reason: error.to_string() },
    }
}

/// The reason goes to people: with its causes.
fn unavailable(error: &CommitError) -> StorageError {
    StorageError::Unavailable { reason: with_causes(error) }
}
