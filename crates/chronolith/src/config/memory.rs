//! `memory.max` and what it is divided into: the head, bodies of remote writes, answers, and the rest for queries.

use anyhow::{Context as _, bail};

use super::{Config, MIB, RawMemory, set_size, size};
use crate::process;

/// Least memory that all together can work with.
const MEMORY_MIN: u64 = 128 * MIB;
/// Memory of the machine, or of the control group, that is ours by default.
const MEMORY_PERCENT: u64 = 60;
/// Bodies of remote writes, and answers, may each take so much of the memory ...
const HTTP_SHARE: u64 = 8;
/// ... and no more than this.
const WRITES_MEMORY_MAX: u64 = 256 * MIB;
const ANSWERS_MEMORY_MAX: u64 = 512 * MIB;
/// The memory that must be left for queries.
const QUERIES_MEMORY_MIN: u64 = 16 * MIB;
/// Defaults of `storage.memory_limit` and `query.memory_limit`, where there is enough.
const HEAD_MEMORY: u64 = 2048 * MIB;
const QUERY_MEMORY: u64 = 1024 * MIB;

/// The default of `memory.max`.
pub(super) fn default_memory() -> u64 {
    let available = process::available_memory().unwrap_or(2 * HEAD_MEMORY);
    (available / 100 * MEMORY_PERCENT / MIB * MIB).max(MEMORY_MIN)
}

/// The default of `storage.memory_limit`: half of the memory, no more than [`HEAD_MEMORY`].
pub(super) fn default_head(memory: u64) -> u64 {
    (memory / 2).min(HEAD_MEMORY)
}

impl Config {
    /// What bodies of remote writes may take.
    pub(crate) fn writes_memory(&self) -> u64 {
        (self.memory_max_bytes / HTTP_SHARE).min(WRITES_MEMORY_MAX)
    }

    /// What answers that are being sent may take.
    pub(crate) fn answers_memory(&self) -> u64 {
        (self.memory_max_bytes / HTTP_SHARE).min(ANSWERS_MEMORY_MAX)
    }

    /// What is left for queries.
    fn queries_memory(&self) -> u64 {
        let others = self.memory_limit_bytes + self.writes_memory() + self.answers_memory();
        self.memory_max_bytes.saturating_sub(others)
    }

    /// The default of `query.memory_limit`: what queries have together, no more than [`QUERY_MEMORY`].
    pub(super) fn default_query(&self) -> usize {
        usize::try_from(self.queries_memory().min(QUERY_MEMORY)).unwrap_or(usize::MAX)
    }

    /// Sets the parts of the memory, and checks that they fit together.
    pub(super) fn share_memory(
        &mut self,
        memory: RawMemory,
        head: Option<String>,
        query: Option<String>,
    ) -> anyhow::Result<()> {
        set_size(&mut self.memory_max_bytes, "memory.max", memory.max, MEMORY_MIN)?;
        self.memory_limit_bytes = default_head(self.memory_max_bytes);
        set_size(&mut self.memory_limit_bytes, "storage.memory_limit", head, 16 * MIB)?;
        let queries = self.queries_memory();
        if queries < QUERIES_MEMORY_MIN {
            bail!(
                "storage.memory_limit: {} leaves less than {} of memory.max ({}) to queries",
                size(self.memory_limit_bytes),
                size(QUERIES_MEMORY_MIN),
                size(self.memory_max_bytes)
            );
        }
        let mut bytes = self.default_query() as u64;
        set_size(&mut bytes, "query.memory_limit", query, MIB)?;
        if bytes > queries {
            bail!(
                "query.memory_limit: {} is more than memory.max ({}) leaves to all queries, {}",
                size(bytes),
                size(self.memory_max_bytes),
                size(queries)
            );
        }
        self.query.memory_max_bytes = usize::try_from(bytes).context("query.memory_limit")?;
        Ok(())
    }
}
