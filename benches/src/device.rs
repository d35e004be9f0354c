//! What one fdatasync costs on the device the servers write to.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const WRITES: usize = 200;
const WRITE_BYTES: usize = 64 * 1024;

/// Latencies of appending 64 KiB and syncing it.
#[derive(Debug, Clone, Copy)]
pub struct FdatasyncProbe {
    /// Median.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Worst.
    pub max: Duration,
}

impl FdatasyncProbe {
    /// Measures in `dir`, which must lie on the device in question; leaves nothing behind.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn run(dir: &Path) -> Result<Self> {
        let path = dir.join("fdatasync-probe");
        let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let block = vec![0x5a; WRITE_BYTES];
        let mut latencies = Vec::with_capacity(WRITES);
        for _ in 0..WRITES {
            let start = Instant::now();
            file.write_all(&block)?;
            file.sync_data()?;
            latencies.push(start.elapsed());
        }
        drop(file);
        std::fs::remove_file(&path)?;
        latencies.sort_unstable();
        Ok(Self { p50: latencies[WRITES / 2], p99: latencies[WRITES * 99 / 100], max: latencies[WRITES - 1] })
    }
}
