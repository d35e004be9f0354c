//! Wrong arguments and configurations: a message that helps, an exit status that says so, no server.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chronolith_e2e::http::Client;
use chronolith_e2e::peers::chronolith_bin;
use chronolith_e2e::process::{Process, free_port};

use crate::scratch::Scratch;

const GIVE_UP: Duration = Duration::from_secs(20);

fn run(args: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(chronolith_bin())
        .args(args)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a started program");
    let deadline = Instant::now() + GIVE_UP;
    while child.try_wait().expect("a status").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("a killed program");
            child.wait().expect("a reaped program");
            panic!("chronolith {args:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("its output");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn help_and_version_are_no_errors() {
    for (args, word) in
        [(&["--help"][..], "serve"), (&["--version"], "chronolith"), (&["serve", "--help"], "--data-dir")]
    {
        let (code, text) = run(args);
        assert_eq!(code, Some(0), "{args:?}: {text}");
        assert!(text.contains(word), "{args:?}: {text}");
    }
}

#[test]
fn wrong_arguments_are_named() {
    let cases: &[(&[&str], &str)] = &[
        (&["nosuchcommand"], "nosuchcommand"),
        (&["serve", "--nosuchflag"], "--nosuchflag"),
        (&["serve", "--listen", "not an address"], "not an address"),
        (&["serve", "--listen", "127.0.0.1:99999"], "127.0.0.1:99999"),
        (&["serve", "--config", "/nosuch/file.yml"], "/nosuch/file.yml"),
        (&["serve", "--storage.tsdb.path=/tmp/x"], "--data-dir"),
        (&["check", "config", "/nosuch/file.yml"], "/nosuch/file.yml"),
    ];
    for (args, word) in cases {
        let (code, text) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(word), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{args:?}: {text}");
    }
    let (code, text) = run(&["test", "promql", "/nosuch/file.test"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("/nosuch/file.test"), "{text}");
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("its address").to_string();
    let (code, text) = run(&["serve", "--listen", &addr, "--data-dir", "data"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&addr), "{text}");
}

#[test]
fn wrong_configurations_are_refused_with_their_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.yml");
    let cases = [
        ("nosuchkey: 1\n", "nosuchkey"),
        ("wal:\n  sync: sometimes\n", "sync"),
        ("storage:\n  retention: forever and a day\n", "retention"),
        ("storage:\n  retention: [1\n", "c.yml"),
        ("wal: 7\n", "c.yml"),
    ];
    for (text, word) in cases {
        std::fs::write(&path, text).expect("a file");
        let file = path.to_str().expect("an ASCII path");
        for args in [&["check", "config", file][..], &["serve", "--listen", "127.0.0.1:0", "--config", file]]
        {
            let (code, output) = run(args);
            assert_eq!(code, Some(2), "{text:?} {args:?}: {output}");
            assert!(output.contains(word), "{text:?} {args:?}: {output}");
        }
    }
    std::fs::write(&path, "wal:\n  sync: always\n").expect("a file");
    let (code, output) = run(&["check", "config", path.to_str().expect("an ASCII path")]);
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn logs_as_json_are_json_in_each_line() {
    let mut scratch = Scratch::new();
    scratch.spec.extra_args = vec!["--log-format".into(), "json".into()];
    let server = scratch.start();
    assert!(server.stop().expect("an exit status").success());
    let log = std::fs::read_to_string(scratch.spec.dir.join("log")).expect("a log");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect();
    let ready =
        lines.iter().find(|line| line.to_string().contains("\"ready\"")).expect("a line that says so");
    assert_eq!(ready["level"], "INFO");
    assert!(lines.iter().any(|line| line.to_string().contains("\"ended\"")), "{log}");
}

/// Series that a server holds after `wait`, or as soon as it holds any.
fn stored_within(wait: Duration, config: &str, flags: &[&str]) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.yml");
    std::fs::write(&path, config).expect("a file");
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(chronolith_bin());
    command.args(["serve", "--listen", &addr.to_string(), "--data-dir"]).arg(dir.path().join("data"));
    command.arg("--config").arg(&path).args(flags);
    let mut server = Process::spawn("chronolith", command, &dir.path().join("log")).expect("a process");
    let mut client = Client::new(addr, GIVE_UP);
    let started = Instant::now();
    let series = loop {
        let counted =
            client.get("/api/v1/status/tsdb").ok().filter(|answer| answer.status == 200).map(|answer| {
                let status: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
                status["data"]["headStats"]["numSeries"].as_u64().expect("a count")
            });
        match counted {
            Some(series) if series > 0 || started.elapsed() > wait => break series,
            None if started.elapsed() > wait + GIVE_UP => panic!("not ready: {}", server.log_tail(10)),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    assert!(server.stop(GIVE_UP).expect("an exit status").success());
    series
}

#[test]
fn the_server_stores_its_own_metrics_unless_told_not_to() {
    let often = "self_scrape:\n  interval: 1s\n";
    assert!(stored_within(GIVE_UP, often, &[]) > 50);
    let some_scrapes = Duration::from_secs(3);
    assert_eq!(stored_within(some_scrapes, often, &["--no-self-scrape"]), 0);
    assert_eq!(stored_within(some_scrapes, "self_scrape:\n  interval: 0s\n", &[]), 0);
}
