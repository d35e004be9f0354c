//! The contract between storage engines and those who write to and read from them.
//!
//! [`Appender`] takes batches of samples and says what became of each; [`Queryable`] opens a [`Querier`], a view of
//! one version of the data that does not change while it lives. **Must not know:** any engine.
//!
//! Map: [`append`] writing · [`query`] reading · [`changes`] since when views differ · [`admin`] deleting, copying · [`budget`] the
//! memory all share · [`error`] what can go wrong ·
//! [`exemplars`] a bounded store of them · [`memory`] the in-memory reference · [`conformance`] what every engine must do,
//! for its tests.

pub mod admin;
pub mod append;
pub mod budget;
pub mod changes;
pub mod conformance;
pub mod error;
pub mod exemplars;
pub mod memory;
pub mod query;

pub use admin::Admin;
pub use append::{
    AppendOutcome, AppendedBatch, Appender, ExemplarBatch, ExemplarEntry, ExemplarOutcome, KeyHasher,
    LabelFault, LabelSource, RejectReason, Rejection, SampleAt, SampleKind, SeriesEntry, SeriesKey, Stores,
    Ticket, WriteBatch,
};
pub use budget::{BudgetExceeded, MemoryBudget, Reservation};
pub use changes::Changes;
pub use error::StorageError;
pub use exemplars::{ExemplarError, ExemplarStore};
pub use memory::MemoryStorage;
pub use query::{
    BoxFuture, CardinalityEntry, ExemplarQuery, LabelQuery, Limited, Payer, Querier, Queryable, ReadStats,
    Samples, SelectHints, SelectRequest, SeriesBatch, SeriesExemplars, SeriesSet, StartTimestamp,
    StorageStats,
};
