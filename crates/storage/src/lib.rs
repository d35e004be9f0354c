//! The contract between storage engines and those who write to and read from them.
//!
//! [`Appender`] takes batches of samples and says what became of each; [`Queryable`] opens a [`Querier`], a view of
//! one version of the data that does not change while it lives. **Must not know:** any engine.
//!
//! Map: [`append`] writing · [`query`] reading · [`error`] what can go wrong · [`memory`] the in-memory reference ·
//! [`conformance`] what every engine must do, for its tests.

pub mod append;
pub mod conformance;
pub mod error;
pub mod memory;
pub mod query;

pub use append::{
    AppendOutcome, AppendedBatch, Appender, KeyHasher, LabelSource, RejectReason, Rejection, SeriesEntry,
    SeriesKey, Ticket, WriteBatch,
};
pub use error::StorageError;
pub use memory::MemoryStorage;
pub use query::{
    BoxFuture, CardinalityEntry, LabelQuery, Limited, Querier, Queryable, Samples, SelectHints,
    SelectRequest, SeriesBatch, SeriesSet, StorageStats,
};
