//! What a database promises, tried from outside.

mod concurrency;
mod conformance;
mod cutting;
mod deleting;
mod durability;
mod fixture;
mod history;
mod limits;
mod model;
mod opening;
mod sim;
