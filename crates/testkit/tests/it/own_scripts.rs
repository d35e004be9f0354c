//! The project's own scripts pass, every eval of them.

use std::path::PathBuf;

use chronolith_testkit::{paths::workspace_root, promqltest};

pub(crate) fn scripts(dir: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    files.sort();
    files
}

#[test]
fn own_scripts_pass() {
    let files = scripts(workspace_root().join("testdata/promql"));
    assert!(!files.is_empty(), "no scripts in testdata/promql");
    let mut out = Vec::new();
    let passed = promqltest::cli(&files, false, &mut out).expect("a Vec takes all");
    assert!(passed, "{}", String::from_utf8_lossy(&out));
}
