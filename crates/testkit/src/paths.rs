//! Where tests find what lies outside their crate.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The root of the workspace.
#[must_use]
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The path in the environment variable `variable`, or `default`, relative to the workspace root.
#[must_use]
pub fn from_env(variable: &str, default: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| workspace_root().join(default), PathBuf::from)
}

/// Says that a test skips for want of `what`.
///
/// # Panics
/// If `REQUIRE_PEERS=1`: then nothing may be skipped.
pub fn skip(what: &str) {
    assert!(
        env::var_os("REQUIRE_PEERS").is_none_or(|value| value != "1"),
        "REQUIRE_PEERS=1, but {what} is missing"
    );
    eprintln!("SKIPPED: {what} is missing");
}
