//! The comparison of Chronolith with its peers under the same load, and the home of the criterion benches.
//!
//! **Must not know:** any engine; of the workspace's crates it takes the harness of the end-to-end tests and testkit's
//! reader of recorded series. The criterion benches in `benches/` are separate programs and know what they measure.
//!
//! Map: [`load`] the generated requests · [`send`] sending them and timing the acknowledgements · [`measure`] one
//! server from start to stop · [`queries`] the query set · [`device`] the raw fdatasync probe · [`report`] the table.

pub mod device;
pub mod load;
pub mod measure;
pub mod queries;
pub mod report;
pub mod send;
