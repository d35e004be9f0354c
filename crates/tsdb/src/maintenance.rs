//! Retention and the memory limit, in the background.

use std::{sync::Arc, time::Duration};

use chronolith_env::{Env, Job, Step};
use chronolith_head::Head;
use chronolith_wal::Wal;

/// Pause between two rounds when appends ask for them.
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// The same while memory stays short: there is nothing more to drop at the moment.
const PAUSE_SHORT: Duration = Duration::from_secs(2);

/// Drops what is too old or too much, then the log segments nobody needs any more.
#[derive(Debug)]
pub(crate) struct Maintenance {
    pub(crate) env: Env,
    pub(crate) head: Arc<Head>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) interval: Duration,
    /// When the next round may begin.
    pub(crate) not_before: Option<Duration>,
}

impl Job for Maintenance {
    fn step(&mut self, stopping: bool) -> Step {
        if stopping {
            return Step::Done;
        }
        let now = self.env.clock.monotonic();
        if let Some(rest) = self.not_before.and_then(|begin| begin.checked_sub(now))
            && !rest.is_zero()
        {
            return Step::SleepFor(rest);
        }
        self.round();
        let pause = if self.head.memory_short() { PAUSE_SHORT } else { PAUSE_MIN };
        self.not_before = Some(now + pause);
        Step::SleepFor(self.interval)
    }
}

impl Maintenance {
    pub(crate) fn round(&self) {
        let truncation = self.head.truncate();
        if truncation.by_memory {
            // Not waited for: a replay without it brings back what was dropped, and drops it again.
            self.wal.log_floor(None, self.head.memory_floor().unwrap_or(truncation.floor));
            tracing::warn!(floor_ms = truncation.floor, "memory limit reached, dropped the oldest samples");
        }
        if truncation.series_removed > 0 {
            tracing::debug!(series = truncation.series_removed, "removed series without samples");
        }
        match self.wal.drop_older_than(self.head.log_floor()) {
            Ok(0) => {}
            Ok(segments) => tracing::info!(segments, "removed log segments older than retention"),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot remove old log segments");
            }
        }
    }
}
