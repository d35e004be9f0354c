//! The expressions of the shared test scripts parse, and print to what parses to the same.

use std::{env, fs, path::PathBuf};

use chronolith_syntax::{ParseErrorKind, ParseOptions, parse, parse_series_desc, pretty};

/// The directory of the scripts, or `None` where this machine has none.
fn scripts() -> Option<PathBuf> {
    let directory = env::var_os("CHRONOLITH_PROMQLTEST").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/promqltest"),
        PathBuf::from,
    );
    if directory.is_dir() {
        return Some(directory);
    }
    assert!(env::var_os("REQUIRE_PEERS").is_none(), "no scripts in {}", directory.display());
    eprintln!("SKIPPED: no scripts in {}", directory.display());
    None
}

/// The lines of all scripts, with file and number.
fn lines() -> Vec<(String, String)> {
    let Some(directory) = scripts() else { return Vec::new() };
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
    let lines = lines();
    let mut count = 0;
    for (place, line) in &lines {
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
    assert!(lines.is_empty() || count > 1000, "{count} expressions");
}

#[test]
fn series_of_the_scripts() {
    let lines = lines();
    let (mut floats, mut histograms) = (0, 0);
    let mut loading = false;
    for (place, line) in &lines {
        if line.is_empty() || line.starts_with('#') {
            loading = false;
        } else if line.starts_with("load") {
            loading = true;
        } else if loading && !line.contains("@st") {
            match parse_series_desc(line) {
                Ok(_) => floats += 1,
                Err(error) if error.kind == ParseErrorKind::Unsupported => {
                    assert!(line.contains("{{"), "{place}: {error}");
                    histograms += 1;
                }
                Err(error) => panic!("{place}: {line}: {error}"),
            }
        }
    }
    assert!(
        lines.is_empty() || (floats > 500 && histograms > 50),
        "{floats} series, {histograms} with histograms"
    );
}
