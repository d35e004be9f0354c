//! What a database promises, tried from outside.

mod cardinality;
mod concurrency;
mod conformance;
mod cutting;
mod deleting;
mod durability;
mod fixture;
mod full;
mod head_damage;
mod hints;
mod histograms;
mod history;
mod importing;
mod labels;
mod limits;
mod mark_damage;
mod metadata;
mod missing;
mod model;
mod offline;
mod opening;
mod reading;
mod sim;
mod simulation;
