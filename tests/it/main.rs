//! End-to-end tests: Chronolith as a program, among real programs.

mod bad_input;
mod bad_queries;
mod bad_writes;
mod command_line;
mod crash;
mod damage;
mod data_dir;
mod differential;
mod full_disk;
mod generated;
mod intake;
mod kept_results;
mod pair;
mod questions;
mod scratch;
mod statistics;
mod stream;
mod target;
mod types;
