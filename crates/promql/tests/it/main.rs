//! The engine over the in-memory storage.

mod dsl;
mod explain;
mod extended;
mod golden;
mod info;
mod limits;
mod matching;
mod names;
mod native_windows;
mod natives;
mod results;
mod steps;
mod types;
