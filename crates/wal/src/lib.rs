//! Write-ahead log: segments, records, group commit, replay, repair.
