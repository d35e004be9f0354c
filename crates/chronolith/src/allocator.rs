//! The allocator and how it is set.

use tikv_jemalloc_ctl::{Access as _, AsName as _};
use tracing::debug;

/// Gives memory back that a cut or a query has freed; the system's allocator keeps most of it (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long freed pages are kept for the next who needs some, in milliseconds. The allocator's own default is ten times
/// that, and keeps half as much again resident after queries.
const DIRTY_DECAY_MS: isize = 1_000;

/// The setting that arenas are made with, and that of the one that is there when the process starts.
const SETTINGS: [&str; 2] = ["arenas.dirty_decay_ms\0", "arena.0.dirty_decay_ms\0"];

/// Sets the allocator for a server. To be called before there are other threads: each may bring an arena with it.
pub(crate) fn set() {
    for name in SETTINGS {
        match name.as_bytes().name().write(DIRTY_DECAY_MS) {
            Ok(()) => debug!(setting = name.trim_end_matches('\0'), value = DIRTY_DECAY_MS, "allocator set"),
            // It works all the same.
            Err(error) => debug!(setting = name.trim_end_matches('\0'), %error, "allocator not set"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_goes_back_after_a_second() {
        set();
        for name in SETTINGS {
            let read: Result<isize, _> = name.as_bytes().name().read();
            assert_eq!(read.ok(), Some(DIRTY_DECAY_MS), "{name}");
        }
    }
}
