//! Samples from storage: waiting for them no longer than the query may take, and paying for what is copied.

use std::{
    future::{Future, poll_fn},
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use chronolith_storage::{BoxFuture, SeriesBatch, SeriesSet, StorageError};
use futures_timer::Delay;

use super::Executor;
use crate::{
    api::QueryError,
    limits::{Ledger, STAGE_EVALUATION},
};

/// What an encoded chunk takes, about.
const NEWEST_CHUNK_BYTES: usize = 240;

/// What a task's buffers are charged with, until they go.
pub(super) struct Scratch<'a> {
    ledger: &'a Ledger,
    bytes: usize,
}

impl<'a> Scratch<'a> {
    /// Of no bytes yet.
    pub(super) const fn new(ledger: &'a Ledger) -> Self {
        Self { ledger, bytes: 0 }
    }

    /// The buffers have grown to `bytes`.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), QueryError> {
        let more = bytes.saturating_sub(self.bytes);
        self.ledger.charge(0, more)?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        self.ledger.give_back(self.bytes);
    }
}

impl Executor<'_> {
    /// The samples of the series in `indices`; and what their copies are charged with, which is to be given back with
    /// them.
    pub(super) async fn fetched<'s>(
        &self,
        set: &'s dyn SeriesSet,
        indices: &Range<usize>,
    ) -> Result<(Arc<dyn SeriesBatch + 's>, usize), QueryError> {
        // Before there is anything: an engine copies what may still change, the newest chunk.
        let guess = indices.len().saturating_mul(NEWEST_CHUNK_BYTES);
        self.ledger.charge(0, guess)?;
        let batch = self.interruptible(set.fetch(indices.clone())).await?;
        let bytes = batch.bytes();
        if let Some(more) = bytes.checked_sub(guess) {
            self.ledger.charge(0, more)?;
        } else {
            self.ledger.give_back(guess - bytes);
        }
        Ok((batch, bytes))
    }

    /// Waits for storage, but no longer than until the query is canceled or its time is over; what was waited for is
    /// dropped then.
    pub(crate) async fn interruptible<T>(
        &self,
        mut future: BoxFuture<'_, Result<T, StorageError>>,
    ) -> Result<T, QueryError> {
        // Most storage never makes a query wait.
        let mut deadline: Option<Delay> = None;
        poll_fn(|context| {
            if let Poll::Ready(result) = future.as_mut().poll(context) {
                return Poll::Ready(result.map_err(QueryError::Storage));
            }
            self.interrupt.wake_on_cancel(context.waker());
            let deadline = deadline.get_or_insert_with(|| Delay::new(self.interrupt.time_left()));
            let over = Pin::new(deadline).poll(context);
            match self.interrupt.check(STAGE_EVALUATION) {
                Ok(()) if over.is_pending() => Poll::Pending,
                Ok(()) => Poll::Ready(Err(QueryError::Timeout(STAGE_EVALUATION))),
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }
}
