//! Looking at queries: explanations, the query log, the file of running queries.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::cli::{Dir, Server, program, run};

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `done` says so; `what` is not yet done.
#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < PATIENCE, "{what}, after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What `file` has, once it has `text`.
#[track_caller]
fn wait_for(file: &Path, text: &str) -> String {
    let mut found = String::new();
    wait_until(&format!("{} has no {text:?}", file.display()), || {
        found = std::fs::read_to_string(file).unwrap_or_default();
        found.contains(text)
    });
    found
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
    wait_until("nothing is stored", || !ask(&["--explain", "up"]).1.contains(": 0 series"));
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
    // No query is logged meanwhile, so that nothing but the signal makes the file.
    wait_until("SIGHUP has not made the file", || log.exists());
    ask(&["vector(1)"]);
    let second = wait_for(&log, "}\n");
    assert!(second.contains("vector(1)") && second.lines().count() == 1, "{second}");

    let active = Path::new(&data).join("queries.active");
    assert!(active.exists());
    server.signal("-TERM");
    assert_eq!(server.wait(), Some(0));
    assert_eq!(std::fs::metadata(&active).expect("a file").len(), 0, "nothing was left unfinished");
}

#[test]
fn the_end_waits_for_no_disk_and_leaves_no_query_to_blame() {
    let dir = Dir::new("unwritten");
    let data = dir.data();
    // A query log whose disk does not answer: a pipe that nobody empties.
    let log = Path::new(&data).with_file_name("queries.pipe");
    assert!(Command::new("mkfifo").arg(&log).status().is_ok_and(|status| status.success()));
    let _reader = File::options().read(true).write(true).open(&log).expect("a pipe");
    let config = dir.file("config.yml", &format!("query: {{log_file: '{}'}}", log.display()));
    // No file may be larger than some KiB, so that the first self-scrape cannot be written to the write-ahead log.
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_chronolith"), "serve", "--listen", "127.0.0.1:0"]);
    command.args(["--data-dir", &data, "--config", &config]).stdin(Stdio::null());
    let (mut told, stderr) = std::io::pipe().expect("a pipe");
    let mut server = Server::start_by(command.stderr(stderr));
    drop(command);
    let told = thread::spawn(move || {
        let mut text = String::new();
        told.read_to_string(&mut text).map(|_| text)
    });
    let active = Path::new(&data).join("queries.active");
    let ask = |query: &str| assert_eq!(run(&["query", "--url", &server.url, query]).0, Some(0));
    wait_until("no query has come into the file", || {
        ask("sum(sum_over_time(vector(1)[11d:1s]))");
        std::fs::metadata(&active).is_ok_and(|file| file.len() > 0)
    });
    // More than a pipe has room for.
    let long = format!("vector(1) #{}", "x".repeat(16 << 10));
    (0..8).for_each(|_| ask(&long));
    server.signal("-TERM");
    assert_eq!(server.wait(), Some(1), "samples are lost");
    let told = told.join().expect("no panic").expect("text");
    assert!(told.contains("error: closing the database: "), "{told}");
    assert!(told.contains("the query log lacks the last lines"), "it is waited for all the same: {told}");
    assert_eq!(std::fs::metadata(&active).expect("a file").len(), 0);
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

#[test]
fn own_metrics_have_their_types_as_labels_if_asked_for() {
    let dir = Dir::new("types");
    let config = dir.file("config.yml", "query: {features: [type-and-unit-labels]}");
    let server = Server::start_with(&dir.data(), &["--config", &config]);
    let ask = |query: &str| run(&["query", "--url", &server.url, query]).1;
    wait_until("nothing is stored", || !ask("up").is_empty());
    let queries = [
        "count({__name__=~\".+_total\", __type__=\"counter\"}) > 0",
        "count({__name__=~\".+_seconds_bucket\", __type__=\"histogram\"}) > 0",
        "up{__type__=\"\"}",
    ];
    for query in queries {
        assert!(!ask(query).is_empty(), "{query}");
    }
    assert_eq!(ask("{__name__=~\".+_bucket\", __type__!=\"histogram\"}"), "");
}
