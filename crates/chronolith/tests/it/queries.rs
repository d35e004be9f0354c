//! Looking at queries: explanations, the query log, the file of running queries.

use std::{fs::File, path::Path, process::Stdio, thread, time::Duration};

use crate::cli::{Dir, Server, program, run};

/// What `file` has, once it has `text`.
fn wait_for(file: &Path, text: &str) -> String {
    for _ in 0..600 {
        let found = std::fs::read_to_string(file).unwrap_or_default();
        if found.contains(text) {
            return found;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{} has no {text:?}: {:?}", file.display(), std::fs::read_to_string(file));
}

#[test]
fn queries_are_explained_and_logged() {
    let dir = Dir::new("queries");
    let data = dir.data();
    let log = Path::new(&data).with_file_name("queries.log");
    let config = dir.file("config.yml", &format!("query: {{log_file: '{}'}}", log.display()));
    let mut server = Server::start_with(&data, &["--config", &config]);
    let ask = |args: &[&str]| {
        let (code, out, error) = run(&[&["query", "--url", &server.url], args].concat());
        assert_eq!(error, "", "{args:?}");
        (code, out)
    };
    // The first self-scrape is stored at once.
    while ask(&["--explain", "up"]).1.contains(": 0 series") {
        thread::sleep(Duration::from_millis(50));
    }
    let (code, plan) = ask(&["--explain", "sum(up) > 0"]);
    let (tree, selection) = plan.split_once("\n\n").expect("a tree, and what is selected");
    assert_eq!(
        tree,
        "binary_with_scalar  sum(up) > 0\n|- aggregation  sum(up)\n|  `- selector  up  #0\n`- number  0"
    );
    assert!(selection.starts_with("#0 {__name__=\"up\"} "), "{selection}");
    assert!(selection.ends_with(": 1 series (1 in memory, 0 in 0 blocks)\n"), "{selection}");
    assert_eq!(code, Some(0));
    let (_, analyzed) = ask(&["--explain=analyze", "sum(up) > 0"]);
    assert!(analyzed.starts_with("binary_with_scalar  sum(up) > 0  ["), "{analyzed}");
    assert!(analyzed.contains("; 0 frames opened, cache 0 hits 0 misses, 0 B read, "), "{analyzed}");
    let (code, out, error) = run(&["query", "--url", &server.url, "--explain", "up{"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains("unexpected end of input inside braces"), "{error}");
    let (code, _, error) = run(&["query", "--explain=all", "up"]);
    assert!(code == Some(2) && error.contains("plan, analyze"), "{error}");

    let first = wait_for(&log, r#""query":"sum(up) > 0""#);
    assert_eq!(first.lines().count(), 1, "a plan is not evaluated: {first}");
    assert!(
        first.contains(r#""httpRequest":{"clientIP":"127.0.0.1","method":"POST","path":"/api/v1/query"}"#)
    );
    std::fs::rename(&log, log.with_extension("old")).expect("moved");
    server.signal("-HUP");
    // The signal takes a moment to arrive; until then lines go to the file that was moved.
    while !log.exists() || std::fs::read_to_string(&log).is_ok_and(|text| text.is_empty()) {
        ask(&["vector(1)"]);
        thread::sleep(Duration::from_millis(20));
    }
    assert!(wait_for(&log, "vector(1)").ends_with("}\n"));

    let active = Path::new(&data).join("queries.active");
    assert!(active.exists());
    server.signal("-TERM");
    assert_eq!(server.wait(), Some(0));
    assert_eq!(std::fs::metadata(&active).expect("a file").len(), 0, "nothing was left unfinished");
}

#[test]
fn what_ran_at_a_crash_is_told_by_the_next_start() {
    let dir = Dir::new("crashed");
    let data = dir.data();
    let mut server = Server::start(&data);
    server.signal("-KILL");
    assert_eq!(server.wait(), None, "it did not end by itself");
    let active = Path::new(&data).join("queries.active");
    let entry = format!("{:<1023}\n", r#"{"query":"max(up)"}"#);
    std::fs::write(&active, entry).expect("a file");
    let log = Path::new(&data).with_file_name("stderr");
    let mut next = program()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", &data])
        .stdout(Stdio::null())
        .stderr(File::create(&log).expect("a file"))
        .spawn()
        .expect("the program runs");
    let text = wait_for(&log, "msg=ready");
    let _ = next.kill();
    let _ = next.wait();
    let told = "this query ran when the server last ended without having finished";
    assert!(text.lines().any(|line| line.contains(told) && line.contains("max(up)")), "{text}");
    assert_eq!(std::fs::metadata(&active).expect("a file").len(), 0, "it is told once");
}
