//! `memory.max` and what it is divided into: the head, bodies of remote writes, answers, and the rest for queries.

use anyhow::{Context as _, bail};

use chronolith_promql::EngineOptions;
use chronolith_server::HttpLimits;
use chronolith_tsdb::DbOptions;

use super::{Config, MIB, RawMemory, set_size, size};
use crate::process;

/// Least memory that all together can work with.
const MEMORY_MIN: u64 = 128 * MIB;
/// Memory of the machine, or of the control group, that is ours by default.
const MEMORY_PERCENT: u64 = 60;
/// Bodies of remote writes, and answers, may each take so much of the memory, and no more than they do by default.
const HTTP_SHARE: u64 = 8;
/// The memory that must be left for queries.
const QUERIES_MEMORY_MIN: u64 = 16 * MIB;

/// The default of `storage.memory_limit`, where there is enough.
fn head_memory() -> u64 {
    DbOptions::default().memory_bytes_max as u64
}

/// The default of `memory.max`.
pub(super) fn default_memory() -> u64 {
    let available = process::available_memory().unwrap_or_else(|| 2 * head_memory());
    (available / 100 * MEMORY_PERCENT / MIB * MIB).max(MEMORY_MIN)
}

/// The default of `storage.memory_limit`: half of the memory, no more than [`head_memory`].
pub(super) fn default_head(memory: u64) -> u64 {
    (memory / 2).min(head_memory())
}

impl Config {
    /// What bodies of remote writes may take.
    pub(crate) fn writes_memory(&self) -> u64 {
        (self.memory_max_bytes / HTTP_SHARE).min(HttpLimits::default().write_memory_max_bytes as u64)
    }

    /// What answers that are being sent may take.
    pub(crate) fn answers_memory(&self) -> u64 {
        (self.memory_max_bytes / HTTP_SHARE).min(HttpLimits::default().answer_memory_max_bytes as u64)
    }

    /// What is left for queries.
    fn queries_memory(&self) -> u64 {
        let others = self.memory_limit_bytes + self.writes_memory() + self.answers_memory();
        self.memory_max_bytes.saturating_sub(others)
    }

    /// The default of `query.memory_limit`: what queries have together, no more than one has by default.
    pub(super) fn default_query(&self) -> usize {
        let most = EngineOptions::default().memory_max_bytes;
        usize::try_from(self.queries_memory()).map_or(most, |left| left.min(most))
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
