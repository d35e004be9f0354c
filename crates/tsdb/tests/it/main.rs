//! What a database promises, tried from outside.

mod concurrency;
mod conformance;
mod durability;
mod fixture;
mod limits;
mod model;
mod opening;
