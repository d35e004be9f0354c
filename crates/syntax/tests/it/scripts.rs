//! The expressions of the shared test scripts parse, and print to what parses to the same.

use std::{fs, path::Path};

use chronolith_syntax::{ParseOptions, parse, pretty};
use chronolith_testkit::paths::{from_env, skip};

/// The lines of all scripts, with file and number.
fn lines(directory: &Path) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory that can be read") {
        let path = entry.expect("an entry that can be read").path();
        if path.extension().is_some_and(|extension| extension == "test") {
            let text = fs::read_to_string(&path).expect("a script that can be read");
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for (index, line) in text.lines().enumerate() {
                lines.push((format!("{name}:{}", index + 1), line.trim().to_owned()));
            }
        }
    }
    lines
}

/// The expression of an `eval` line.
fn expression(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("eval")?;
    let (_, rest) = rest.split_once(char::is_whitespace)?;
    let skip_words = |text: &'_ str, count: usize| {
        let mut rest = text.trim_start();
        for _ in 0..count {
            let at = rest.find(char::is_whitespace)?;
            rest = rest.get(at..)?.trim_start();
        }
        Some(text.len() - rest.len())
    };
    let rest = rest.trim_start();
    let words = if rest.starts_with("range") { 7 } else { 3 };
    rest.get(skip_words(rest, words)?..)
}

#[test]
fn expressions_of_the_scripts() {
    let directory = from_env("CHRONOLITH_PROMQLTEST", "../shared/promqltest");
    if !directory.is_dir() {
        return skip("the directory of Prometheus' promqltest scripts (CHRONOLITH_PROMQLTEST)");
    }
    let mut count = 0;
    for (place, line) in &lines(&directory) {
        let Some(text) = expression(line) else { continue };
        count += 1;
        let expr =
            parse(text, &ParseOptions::all()).unwrap_or_else(|error| panic!("{place}: {text}: {error}"));
        for printed in [expr.to_string(), pretty(&expr)] {
            let again = parse(&printed, &ParseOptions::all());
            let again = again.unwrap_or_else(|error| panic!("{place}: {printed}: {error}"));
            assert_eq!(again.to_string(), expr.to_string(), "{place}");
        }
    }
    assert!(count > 1000, "{count} expressions");
}
