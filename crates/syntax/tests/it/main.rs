//! The language as its users see it.

mod accept;
mod errors;
mod robustness;
mod roundtrip;
mod scripts;
