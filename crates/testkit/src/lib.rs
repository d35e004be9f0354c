//! Test support, for tests and tools only.
//!
//! Map: [`fault_fs`] a disk that fails and forgets · [`hook_fs`] a disk that asks first · [`fake_env`] clock, randomness and jobs by hand ·
//! [`promqltest`] PromQL test scripts · [`ruletest`] unit tests of rules · [`data`] recorded series · [`paths`] where tests find what lies outside their
//! crate.

pub mod data;
pub mod fake_env;
pub mod fault_fs;
pub mod hook_fs;
pub mod paths;
pub mod promqltest;
pub mod ruletest;
