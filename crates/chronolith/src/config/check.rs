//! Whether the values of a configuration make sense together, and on this machine.

use std::path::Path;

use anyhow::bail;

use super::{Config, duration, size};
use crate::{process, serve::db_options};

/// Log segments that `storage.retention_size` should have room for: the log is cut off in whole segments, and counts for
/// half of the limit at most.
const RETENTION_SEGMENTS_MIN: u64 = 4;

impl Config {
    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.block_range_max > self.retention {
            bail!(
                "storage.block_range_max: {} is longer than storage.retention ({})",
                duration(self.block_range_max),
                duration(self.retention)
            );
        }
        for origin in &self.cors_origins {
            if !is_origin(origin) {
                bail!(
                    "http.cors_origins: {origin:?} is not an origin such as https://grafana.example.org or \
                     http://localhost:3000; an empty list allows all"
                );
            }
        }
        Ok(())
    }

    /// What is allowed but hardly meant, with the data in `data_dir`.
    pub(crate) fn warnings(&self, data_dir: &Path) -> Vec<String> {
        let mut warnings = Vec::new();
        let least = self.wal_segment_bytes.saturating_mul(RETENTION_SEGMENTS_MIN);
        if self.retention_bytes > 0 && self.retention_bytes < least {
            warnings.push(format!(
                "storage.retention_size: {} is less than {RETENTION_SEGMENTS_MIN} x wal.segment_size ({}): the log alone \
                 may be above it, and blocks have half of it then",
                size(self.retention_bytes),
                size(least)
            ));
        }
        if let Some(memory) = process::available_memory().filter(|memory| self.memory_max_bytes > *memory) {
            warnings.push(format!(
                "memory.max: {} is more than this machine, or its control group, has: {} MiB",
                size(self.memory_max_bytes),
                memory >> 20
            ));
        }
        if let Some(disk) = process::disk_bytes(data_dir).filter(|disk| self.disk_reserve_bytes >= *disk) {
            warnings.push(format!(
                "storage.disk_reserve: {} is more than the disk of {} has, {} MiB: all writes will get 503",
                size(self.disk_reserve_bytes),
                data_dir.display(),
                disk >> 20
            ));
        }
        warnings
    }

    /// What blocks are merged up to, in words.
    pub(super) fn block_range_note(&self) -> String {
        if self.block_range_max.is_zero() {
            format!(" # {}, by the retention", duration(db_options(self).block_range()))
        } else {
            String::new()
        }
    }
}

/// Whether `text` is what a browser sends as `Origin`: scheme, host and port, nothing behind them.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return text == "null" };
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@' | '*');
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && !host.is_empty()
        && host.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", Config::parse(text).expect_err(text))
    }

    fn warnings(text: &str) -> String {
        Config::parse(text).expect(text).warnings(Path::new("/no/such/place")).join("\n")
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_placed() {
        for (text, told) in [
            (
                "storage:\n  retention: 1d\n  block_range_max: 48h",
                "line 3 column 20: storage.block_range_max: 2d is longer than storage.retention (1d)",
            ),
            ("http: {cors_origins: [x]}", "http.cors_origins: \"x\" is not an origin"),
            ("http: {cors_origins: ['https://a/']}", "is not an origin"),
            ("http: {cors_origins: ['*']}", "an empty list allows all"),
            ("wal:\n  sync: interval(1h)", "line 2 column 9: wal.sync: interval(1h) is too long, at most 1m"),
            ("storage:\n  retention: 15", "line 2 column 14: storage.retention: \"15\" is not a duration"),
            ("query: {concurrency_limit: 10001}", "line 1 column 28: query.concurrency_limit: at most 10000"),
        ] {
            assert!(error(text).contains(told), "{text}: {}", error(text));
        }
        for origin in ["https://grafana.example.org", "http://localhost:3000", "http://[::1]:80", "null"] {
            assert!(is_origin(origin), "{origin}");
        }
    }

    #[test]
    fn what_is_hardly_meant_is_warned_of() {
        assert_eq!(warnings("storage: {retention_size: 512MiB}"), "");
        let small = warnings("storage: {retention_size: 8MiB}");
        assert!(small.contains("8MiB is less than 4 x wal.segment_size (512MiB)"), "{small}");
        assert!(
            warnings("memory: {max: 100000GiB}").contains("memory.max: 100000GiB is more than this machine")
        );
        let reserve = warnings("storage: {disk_reserve: 100000000GiB}");
        assert!(reserve.contains("is more than the disk of /no/such/place has"), "{reserve}");
    }

    #[test]
    fn the_span_of_blocks_is_told() {
        let text = Config::default().to_string();
        assert!(text.contains("\n  block_range_max: 0s # "), "{text}");
        let config = Config { block_range_max: Duration::from_secs(7200), ..Config::default() };
        assert!(config.to_string().contains("\n  block_range_max: 2h\n"));
    }

    #[test]
    fn errors_are_in_our_words() {
        let twice = error("wal: {}\nwal: {}");
        assert!(twice.contains("line 2 column 1: `wal` stands here a second time"), "{twice}");
        assert!(!twice.contains("DuplicateKeyPolicy"), "{twice}");
        let no_map = error("storage: 5");
        assert!(no_map.contains("`key: value` pairs are needed here"), "{no_map}");
        assert!(!no_map.contains("mapping start"), "{no_map}");
        let list = error("remote_write:\n  - url: http://x/api/v1/write\n");
        assert!(list.contains("This looks like the configuration of Prometheus"), "{list}");
        assert!(error("storage: {tsdb: {}}").contains("This looks like the configuration of Prometheus"));
    }
}
