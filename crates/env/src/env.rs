//! The seams as one value.

use std::sync::Arc;

use crate::{Clock, Fs, OsRng, RealFs, Rng, Scheduler, SystemClock, ThreadScheduler};

/// Everything an engine crate knows of the outside. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Files.
    pub fs: Arc<dyn Fs>,
    /// Background work.
    pub scheduler: Arc<dyn Scheduler>,
}

impl Env {
    /// The operating system's clock, randomness and files; one thread per job.
    #[must_use]
    pub fn real() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self { clock, rng: Arc::new(OsRng), fs: Arc::new(RealFs), scheduler: Arc::new(ThreadScheduler) }
    }
}
