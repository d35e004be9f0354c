//! The engine over the in-memory storage.

mod dsl;
mod golden;
mod limits;
mod matching;
mod names;
mod natives;
mod steps;
