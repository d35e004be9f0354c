//! Restarts of a head: snapshot and log together.

mod crash;
mod damage;
mod format;
mod measure;
mod restart;
mod spill;
mod support;
