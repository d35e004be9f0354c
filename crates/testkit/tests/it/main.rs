//! Test scripts over the engine and the in-memory reference storage.

mod conformance;
mod own_scripts;
mod recording;
