//! What a block promises, from outside.

mod corruption;
mod crash;
mod fixture;
mod format;
mod measure;
mod merging;
mod roundtrip;
mod size;
mod verification;
