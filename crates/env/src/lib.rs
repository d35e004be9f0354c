//! The seams to the outside: clock, randomness, files, background jobs; with the real ones beside the traits.
//!
//! Engine crates reach the operating system through an [`Env`] alone, so that a test can run them over a clock it
//! turns by hand, a disk that loses what was not synced and jobs that it steps. **Must not know:** the domain.
//!
//! Map: [`Clock`] wall and monotonic time · [`Rng`] random numbers · [`Fs`], [`File`] files, directories, locks ·
//! [`Scheduler`], [`Job`] background work · [`Error`] what the file system refused, and what to do about it.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod clock;
mod env;
mod error;
mod fs;
mod real_fs;
mod rng;
mod scheduler;
mod threads;

pub use clock::{Clock, SystemClock};
pub use env::Env;
pub use error::{Error, Op, Result};
pub use fs::{File, FileLock, Fs, OpenMode};
pub use real_fs::RealFs;
pub use rng::{OsRng, Rng};
pub use scheduler::{Job, JobHandle, Scheduler, Step, Wake};
pub use threads::ThreadScheduler;
