//! Wrong arguments and configurations: a message that helps, an exit status that says so, no server.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chronolith_e2e::peers::chronolith_bin;

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
        (&["test", "promql", "/nosuch/file.test"], "/nosuch/file.test"),
    ];
    for (args, word) in cases {
        let (code, text) = run(args);
        assert!(code.is_some_and(|c| c != 0), "{args:?}: {code:?} {text}");
        assert!(text.contains(word), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{args:?}: {text}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("its address").to_string();
    let (code, text) = run(&["serve", "--listen", &addr, "--data-dir", "data"]);
    assert!(code.is_some_and(|c| c != 0), "{code:?} {text}");
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
            assert!(code.is_some_and(|c| c != 0), "{text:?} {args:?}: {code:?} {output}");
            assert!(output.contains(word), "{text:?} {args:?}: {output}");
        }
    }
    std::fs::write(&path, "wal:\n  sync: always\n").expect("a file");
    let (code, output) = run(&["check", "config", path.to_str().expect("an ASCII path")]);
    assert_eq!(code, Some(0), "{output}");
}
