//! Data directories that cannot be used: refused with a clear message, untouched.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use chronolith_e2e::peers::skip;
use chronolith_e2e::process::Process;
use chronolith_e2e::servers::STOP_TIMEOUT;

use crate::scratch::{Scratch, body, may_not_mount, now_ms, read, with_own_mounts, write};

const GIVE_UP: Duration = Duration::from_secs(20);

#[test]
fn sigterm_keeps_everything_and_exits_with_zero() {
    let scratch = Scratch::new();
    let now = now_ms();
    let names: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    for round in 0..3 {
        let server = scratch.start();
        let mut client = server.client();
        for name in &names {
            let request = body(&[(&[("__name__", "kept"), ("n", name)], now + round * 1_000, round as f64)]);
            let response = write(&mut client, &request).expect("an answer");
            assert!(response.ok(), "{} {}", response.status, response.text());
        }
        let stored = read(&mut client, "kept[10m]", now + 10_000).expect("an answer");
        assert_eq!(stored.len(), names.len());
        assert!(stored.values().all(|s| s.len() as i64 == round + 1), "round {round}: {stored:?}");
        let status = server.stop().expect("a graceful stop");
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut second = scratch.spec.spawn().expect("a second process");
    let status = second.process_mut().wait_exit(GIVE_UP).expect("an end by itself");
    assert!(!status.success(), "{status}");
    // Both write to the same log file; the first has nothing to say about locks.
    let log = second.process().log_text().to_lowercase();
    assert!(log.contains("lock") || log.contains("in use"), "{log}");
    let mut client = server.client();
    let request = body(&[(&[("__name__", "alive")], now_ms(), 1.0)]);
    assert!(write(&mut client, &request).expect("an answer").ok(), "the first is not disturbed");
    // The lock goes with its holder, however that ends.
    server.kill();
    let server = scratch.start();
    assert!(server.stop().expect("a graceful stop").success());
}

#[test]
fn a_directory_that_cannot_be_made_is_refused() {
    let scratch = Scratch::new();
    let file = scratch.dir.path().join("file");
    fs::write(&file, "not a directory").expect("a file");
    for dir in [file.join("data"), file.clone(), "/proc/chronolith-data".into()] {
        let output = run_to_end(&scratch, &dir);
        let text =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{}: {text}", dir.display());
        assert!(text.contains(dir.to_str().expect("an ASCII path")), "names the directory: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
    assert_eq!(fs::read_to_string(&file).expect("the file"), "not a directory");
}

/// A mount in a namespace of its own is the one way that is read-only for root, too.
#[test]
fn a_read_only_directory_is_refused() {
    let scratch = Scratch::new();
    let dir = scratch.dir.path().join("read-only");
    fs::create_dir(&dir).expect("a directory");
    let script = "mount -t tmpfs -o ro tmpfs \"$1\" || exit 77; shift; exec \"$@\"";
    let mut command = with_own_mounts(script);
    command
        .arg(&dir)
        .arg(&scratch.spec.program)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&dir);
    let log = scratch.dir.path().join("log");
    let Ok(mut process) = Process::spawn("chronolith", command, &log) else {
        return skip("read-only directory", "there is no unshare");
    };
    let status = process.wait_exit(GIVE_UP).expect("an end by itself");
    let text = process.log_text();
    if may_not_mount(Some(status), &text) {
        return skip("read-only directory", &format!("mounting needs privileges: {text}"));
    }
    assert!(!status.success(), "{status}: {text}");
    assert!(text.to_lowercase().contains("read-only"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_log_of_another_version_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut client = server.client();
    let request = body(&[(&[("__name__", "old")], now_ms(), 1.0)]);
    assert!(write(&mut client, &request).expect("an answer").ok());
    server.kill();
    let wal = scratch.spec.data_dir().join("wal");
    let segment = fs::read_dir(&wal)
        .expect("a log directory")
        .map(|e| e.expect("an entry").path())
        .find(|p| fs::read(p).is_ok_and(|b| b.starts_with(b"CHRNOWAL")))
        .expect("a segment");
    // A header of a later version: its number after the magic, its checksum over the first 36 bytes.
    let mut bytes = fs::read(&segment).expect("a readable segment");
    bytes[8..10].copy_from_slice(&999u16.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..36]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    fs::write(&segment, &bytes).expect("a writable segment");
    let output = run_to_end(&scratch, &scratch.spec.data_dir());
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("999") && text.contains("version"), "{text}");
    assert_eq!(fs::read(&segment).expect("the segment"), bytes, "refused, and yet changed");
}

#[test]
fn a_data_directory_of_prometheus_is_not_touched() {
    let scratch = Scratch::new();
    let data = scratch.spec.data_dir();
    fs::create_dir_all(data.join("wal")).expect("a directory");
    fs::create_dir_all(data.join("chunks_head")).expect("a directory");
    let segment = data.join("wal/00000000");
    let foreign: Vec<u8> = (0..32_768u32).map(|i| (i % 251) as u8).collect();
    fs::write(&segment, &foreign).expect("a file");
    let output = run_to_end(&scratch, &data);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("is not a Chronolith data directory"), "{text}");
    assert_eq!(fs::read(&segment).expect("the foreign file"), foreign);
    assert_eq!(fs::read_dir(&data).expect("the directory").count(), 2, "nothing was added");
}

/// Runs `serve` on `dir`, which must end by itself.
fn run_to_end(scratch: &Scratch, dir: &Path) -> Output {
    let out = scratch.dir.path().join("output");
    let mut command = Command::new(&scratch.spec.program);
    command.args(["serve", "--no-self-scrape", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir);
    let mut process = Process::spawn("chronolith", command, &out).expect("a started program");
    let status = match process.wait_exit(GIVE_UP) {
        Ok(status) => status,
        Err(e) => {
            let _ = process.stop(STOP_TIMEOUT);
            panic!("serve --data-dir {}: {e:#}", dir.display());
        }
    };
    let output = Output { status, stdout: Vec::new(), stderr: process.log_text().into_bytes() };
    fs::remove_file(&out).expect("the output file");
    output
}
