//! The text exposition format, version 0.0.4: what `/metrics` answers and a scrape reads.
//!
//! Source: the Prometheus text format. A line is `name{label="value",...} value [timestamp_ms]`, or a comment
//! `# HELP name text`, `# TYPE name type`, `# UNIT name unit`; anything else behind `#` is ignored.
//!
//! [`parse()`] reads it, [`ExpositionWriter`] writes it.

mod parse;
mod write;

pub use parse::{Exposition, ExpositionError, ExpositionFault, ExpositionLimits, ExpositionSample, parse};
pub use write::{ExpositionWriter, HistogramSnapshot};
