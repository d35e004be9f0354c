//! The harness of the end-to-end tests and of the comparison benches: real programs, started and stopped for a test.
//!
//! **Must not know:** any engine crate; it sees Chronolith as its peers do, over HTTP and the command line.
//!
//! Map: [`http`] a small keep-alive client · [`process`] child programs and their `/proc` numbers · [`peers`] where the
//! programs are · [`servers`] how each is started · [`remote_write`] the sender's side of the wire · [`api`]
//! answers of the query API and their comparison · [`expressions`] random PromQL · [`rng`] seeded randomness.

pub mod api;
pub mod expressions;
pub mod http;
pub mod peers;
pub mod process;
pub mod remote_write;
pub mod rng;
pub mod servers;
