//! `chronolith tsdb compact`: alone on the directory, to the end, and again.

use std::path::Path;

use crate::cli::{Dir, filled, json, program, run};

#[test]
fn only_where_there_is_a_directory() {
    let dir = Dir::new("compact-none");
    let data = dir.data();
    let (code, out, error) = run(&["tsdb", "compact", "--data-dir", &data]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(error.contains("there is no data directory"), "{error}");
    assert!(!Path::new(&data).exists(), "none was made");
    std::fs::create_dir_all(Path::new(&data).join("photos")).expect("a directory of somebody else");
    let (code, _, error) = run(&["tsdb", "compact", "--data-dir", &data]);
    assert_eq!(code, Some(2));
    assert!(error.contains("is not a Chronolith data directory"), "{error}");
    let (code, _, error) =
        run(&["tsdb", "compact", "--data-dir", &data, "--config", &format!("{data}/none")]);
    assert_eq!(code, Some(2));
    assert!(error.contains("cannot read"), "{error}");
}

#[test]
fn what_a_killed_server_has_left_becomes_blocks() {
    let dir = Dir::new("compact-server");
    let data = dir.data();
    let mut server = filled(&data);
    let (code, out, error) = run(&["tsdb", "compact", "--data-dir", &data]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(error.contains("is in use by another process"), "{error}");
    server.signal("-KILL");
    server.wait();

    let (code, done) = json(&["tsdb", "compact", "--json", "--data-dir", &data]);
    assert_eq!(code, Some(0), "{done}");
    let samples = done["samples_in_head"].as_u64().expect("a number");
    assert!(samples > 50, "{done}");
    assert_eq!(done["after"]["samples"].as_u64(), Some(samples), "{done}");
    assert_eq!((done["before"]["blocks"].as_u64(), done["short_of_room"].as_bool()), (Some(0), Some(false)));
    assert!(done["blocks_cut"].as_u64() >= Some(1), "{done}");

    let (code, again) = json(&["tsdb", "compact", "--json", "--data-dir", &data]);
    assert_eq!((code, again["blocks_cut"].as_u64(), again["merges"].as_u64()), (Some(0), Some(0), Some(0)));
    assert_eq!(again["before"], again["after"]);
    let (code, out, _) = run(&["tsdb", "compact", "--data-dir", &data]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("nothing to do\n"), "{out}");
    let (code, out, _) = run(&["block", "verify", "--data-dir", &data]);
    assert_eq!(code, Some(0), "{out}");

    // What cannot be written down is an error; that nobody reads on is none.
    for args in [["tsdb", "compact"], ["block", "inspect"], ["wal", "inspect"]] {
        let args = [args[0], args[1], "--data-dir", &data];
        let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let output = program().args(args).stdout(full).output().expect("the program runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(error.contains("error: standard output: No space left on device"), "{args:?}: {error}");
        let (_, unread) = std::io::pipe().expect("a pipe");
        let output = program().args(args).stdout(unread).output().expect("the program runs");
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{args:?}");
    }

    // A damaged block is set aside, and said.
    let blocks = Path::new(&data).join("blocks/anonymous");
    let block = std::fs::read_dir(&blocks).expect("blocks").next().expect("one").expect("an entry").path();
    let mut bytes = std::fs::read(&block).expect("a file");
    let end = bytes.len() - 10;
    bytes[end] ^= 0xff;
    std::fs::write(&block, bytes).expect("written");
    let (code, out, _) = run(&["tsdb", "compact", "--data-dir", &data]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("1 damaged block set aside"), "{out}");
}
