//! Charging what storage answers to the memory of a query, while it grows.

use std::sync::Arc;

use chronolith_promql::{QueryError, ResultMemory};
use chronolith_storage::{Payer, StorageError};
use parking_lot::Mutex;

use crate::error::ApiError;

/// Charges an answer to the memory of a query.
#[derive(Debug)]
pub(super) struct QueryPays {
    memory: ResultMemory,
    /// Why it was refused.
    refused: Mutex<Option<QueryError>>,
}

impl QueryPays {
    pub(super) fn new(memory: &ResultMemory) -> Arc<Self> {
        Arc::new(Self { memory: memory.clone(), refused: Mutex::default() })
    }

    /// What to tell of `error`: where nobody has paid, it is not the fault of storage.
    pub(super) fn explain(&self, error: StorageError) -> ApiError {
        self.refused.lock().take().map_or_else(|| error.into(), ApiError::from)
    }
}

impl Payer for QueryPays {
    fn charge(&self, bytes: usize) -> Result<(), StorageError> {
        self.memory.charge(bytes).map_err(|error| {
            let reason = error.to_string();
            *self.refused.lock() = Some(error);
            StorageError::Unavailable { reason }
        })
    }

    fn give_back(&self, bytes: usize) {
        self.memory.give_back(bytes);
    }
}
