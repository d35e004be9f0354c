//! The head: active series in memory, backed by the write-ahead log.
