//! What a database promises, tried from outside.

mod cardinality;
mod concurrency;
mod conformance;
mod cutting;
mod deleting;
mod durability;
mod fixture;
mod histograms;
mod history;
mod importing;
mod limits;
mod missing;
mod model;
mod offline;
mod opening;
mod sim;
mod simulation;
