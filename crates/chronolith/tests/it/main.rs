//! Tests of the workspace and of the command line.

mod architecture;
mod block;
mod cli;
mod compact;
mod damage;
mod queries;
mod wal;
