//! Wire formats to model and back: remote write 1.0, OTLP metrics, Influx line protocol and the text exposition format.
//!
//! Everything here works on bytes that came from the network: nothing panics on them, nothing is allocated by what
//! they claim, every limit has a name. **Must not know:** engines; it speaks to the traits of `storage`.
//!
//! Map: [`snappy`] bounded decompression · [`pool`] reuse of buffers · `wire` protobuf records · [`remote_write`]
//! requests in and out · [`otlp`] OpenTelemetry's · [`influx`] Telegraf's · [`exposition`] the text format.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod exposition;
pub mod influx;
pub mod otlp;
pub mod pool;
pub mod remote_write;
pub mod snappy;

mod wire;

pub use wire::{WireError, WireFault};
