//! Restarts of a head: snapshot and log together.

mod corpus;
mod crash;
mod damage;
mod format;
mod histograms;
mod limits;
mod measure;
mod restart;
mod side;
mod spill;
mod support;
