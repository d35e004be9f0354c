//! `chronolith wal`, beside a running server and on what it has left.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::cli::{Dir, filled, json, run};

/// All files of a log, by path.
fn files(data: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(Path::new(data).join("wal")).expect("a log");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file"))).collect()
}

/// The file with the most bytes.
fn largest(data: &str) -> (String, Vec<u8>) {
    files(data).into_iter().max_by_key(|(_, bytes)| bytes.len()).expect("a segment")
}

#[test]
fn where_there_is_no_log() {
    let dir = Dir::new("wal-none");
    for command in ["inspect", "verify"] {
        let (code, out, error) = run(&["wal", command, "--data-dir", &dir.data()]);
        assert_eq!((code, out.as_str()), (Some(2), ""));
        assert!(
            error.starts_with("error: ") && error.contains("has no log: there is no directory"),
            "{error}"
        );
    }
    assert!(!Path::new(&dir.data()).exists(), "looking makes no directory");
    for (args, told) in [
        (&["wal", "inspect", "--series", "up{"][..], "--series"),
        (&["wal", "inspect", "--series", "up{a=~\"(\"}"], "--series"),
        (&["wal", "verify", "--series", "up"], "--series"),
        (&["wal"], "inspect"),
    ] {
        let (code, out, error) = run(args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}");
        assert!(error.contains(told), "{args:?}: {error}");
    }
}

#[test]
fn beside_a_server_and_after_it() {
    let dir = Dir::new("wal-server");
    let data = dir.data();
    let mut server = filled(&data);

    let (code, out, error) = run(&["wal", "verify", "--data-dir", &data]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("clean: 1 segment, "), "{out}");
    let (code, found) = json(&["wal", "inspect", "--json", "--data-dir", &data, "--series", "up"]);
    assert_eq!(code, Some(0));
    let series = &found["matching_series"][0];
    assert_eq!(series["labels"], "{__name__=\"up\", instance=\"self\", job=\"chronolith\"}");
    assert_eq!((series["tenant"].as_str(), found["total"]["series"].as_u64()), (Some("anonymous"), Some(1)));
    assert_eq!(series["samples"], found["total"]["samples"]);
    assert!(series["samples"].as_u64() >= Some(1) && found["total"]["bytes_per_sample"].is_null(), "{found}");

    server.signal("-TERM");
    assert_eq!(server.wait(), Some(0));
    let before = files(&data);
    let (code, found) = json(&["wal", "inspect", "--json", "--data-dir", &data]);
    assert_eq!(
        (code, &found["damage_count"], &found["unfinished"]),
        (Some(0), &Value::from(0), &Value::Null)
    );
    let total = &found["total"];
    assert_eq!(total["bytes"].as_u64(), found["segments"][0]["file_bytes"].as_u64());
    assert!(total["series"].as_u64() > Some(10) && total["samples"].as_u64() >= total["series"].as_u64());
    assert!(total["bytes_per_sample"].as_f64() > Some(0.1), "{total}");
    assert!(total["times_ms"][0].as_i64() > Some(1_700_000_000_000), "{total}");
    assert_eq!(total["sequence"][0].as_u64(), Some(1 << 32), "the first record of the first segment");
    let (_, text, _) = run(&["wal", "inspect", "--data-dir", &data]);
    assert!(
        text.starts_with("segment ") && text.contains("\n00000001 ") && text.contains("\ntotal "),
        "{text}"
    );
    let (_, none) = json(&["wal", "inspect", "--json", "--data-dir", &data, "--tenant", "nobody"]);
    assert_eq!((&none["total"]["samples"], &none["total"]["series"]), (&Value::from(0), &Value::from(0)));
    assert_eq!(files(&data), before, "nothing is changed");
}

#[test]
fn damage_is_found_and_named() {
    let dir = Dir::new("wal-damage");
    let data = dir.data();
    drop(filled(&data));
    let (path, good) = largest(&data);
    let verify = || json(&["wal", "verify", "--json", "--data-dir", &data]);

    // Killed: at most the end is no whole record, and that is no damage.
    assert_eq!(verify().0, Some(0));
    for end in [[&good[..], b"garbage"].concat(), good[..good.len() - 3].to_vec()] {
        std::fs::write(&path, end).expect("writable");
        let (code, found) = verify();
        assert_eq!((code, &found["unfinished"]["file"]), (Some(0), &Value::from(path.as_str())), "{found}");
    }
    let (_, text, _) = run(&["wal", "verify", "--data-dir", &data]);
    assert!(text.contains(&format!("unfinished: {path}: ")) && text.contains("\nclean: "), "{text}");

    // A byte of the first record's payload.
    let (header, payload) = (40, 40 + 28 + 3);
    let mut bad = good.clone();
    bad[payload] ^= 1;
    std::fs::write(&path, &bad).expect("writable");
    let (code, found) = verify();
    assert_eq!((code, &found["damage_count"]), (Some(1), &Value::from(1)), "{found}");
    let place = &found["damage"][0];
    assert_eq!((place["file"].as_str(), place["offset"].as_u64()), (Some(path.as_str()), Some(header)));
    assert_eq!(place["reason"], "payload");
    let (code, text, error) = run(&["wal", "verify", "--data-dir", &data]);
    assert_eq!((code, error.as_str()), (Some(1), ""));
    assert!(text.contains(&format!("damaged: {path}: ")) && text.contains(" at offset 40: "), "{text}");
    assert!(text.contains("damaged: 1 place; intact: 1 segment, "), "{text}");
    // Who only looks is shown it too.
    let (code, text, _) = run(&["wal", "inspect", "--data-dir", &data]);
    assert!(code == Some(0) && text.contains(" at offset 40: "), "{text}");

    // A byte of the segment's header.
    let mut bad = good.clone();
    bad[30] ^= 1;
    std::fs::write(&path, &bad).expect("writable");
    let (code, found) = verify();
    assert_eq!((code, &found["damage"][0]["reason"]), (Some(1), &Value::from("segment_header")));
    assert!(found["total"]["samples"].as_u64() > Some(0), "its records are read: {found}");
    std::fs::write(&path, &good).expect("writable");
    assert_eq!(verify().0, Some(0));
}
