//! What a block promises, from outside.

mod corruption;
mod counting;
mod crash;
mod fixture;
mod format;
mod hotcache;
mod kinds;
mod measure;
mod merging;
mod pages;
mod reads;
mod roundtrip;
mod size;
mod verification;
