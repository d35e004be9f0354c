//! A damaged block beside a server: what it answers says so.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::block::write;
use crate::cli::{Dir, Server, filled, run};

const DAY: i64 = 86_400_000;

#[test]
fn answers_say_that_a_damaged_block_is_missing() {
    let dir = Dir::new("damage");
    let data = dir.data();
    // Makes it a data directory.
    drop(Server::start(&data));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let today = i64::try_from(now).expect("a timestamp") / DAY * DAY;
    let range = (today - DAY, today);
    write(&data, "anonymous", 1, range, &[(&[("__name__", "a")], &[(today - 1_000, 1.0)])], false);
    let damaged =
        write(&data, "anonymous", 2, range, &[(&[("__name__", "b")], &[(today - 1_000, 2.0)])], false);
    let mut bytes = std::fs::read(&damaged).expect("the block");
    // The last bytes are the footer, without which nothing of it can be read.
    let end = bytes.len();
    bytes[end - 20..].fill(0x55);
    std::fs::write(&damaged, bytes).expect("written");
    let server = Server::start(&data);
    let at = format!("{}", today / 1_000);
    let ask = |text: &str| {
        let (code, out, error) = run(&["query", "--json", "--url", &server.url, "--time", &at, text]);
        assert_eq!(code, Some(0), "{out}");
        assert!(error.starts_with("warning: damaged block "), "{error}");
        serde_json::from_str::<Value>(&out).expect("JSON")
    };
    let answer = ask("{__name__=~\"a|b\"}");
    assert_eq!(answer["data"]["result"][0]["metric"], json!({"__name__": "a"}), "{answer}");
    assert_eq!(answer["data"]["result"].as_array().map(Vec::len), Some(1), "{answer}");
    let warnings = answer["warnings"].as_array().expect("warnings");
    let text = warnings[0].as_str().unwrap_or_default();
    assert!(text.starts_with("damaged block ") && text.ends_with(" is not part of the answer"), "{answer}");
    assert_eq!(warnings.len(), 1, "the other block is whole: {answer}");
    assert!(ask("b")["warnings"].is_array());
}

/// What the server says of itself.
fn metrics(url: &str) -> String {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("connected");
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

#[test]
fn damage_is_counted_wherever_it_is() {
    let dir = Dir::new("damage-counted");
    let data = dir.data();
    drop(filled(&data));
    let place = Path::new(&data);
    let segment = place.join("wal/00000001.wal");
    let mut bytes = std::fs::read(&segment).expect("the log");
    // In the payload of the first record.
    bytes[40 + 28 + 3] ^= 0x10;
    std::fs::write(&segment, bytes).expect("written");
    std::fs::write(place.join("cut"), "not a mark").expect("written");
    std::fs::write(place.join("head/00000099.snapshot"), "not a snapshot").expect("written");
    let today = DAY * 19_000;
    let series = (&[("__name__", "a")][..], &[(today - 1_000, 1.0)][..]);
    let block = write(&data, "anonymous", 1, (today - DAY, today), &[series], false);
    std::fs::write(&block, "not a block").expect("written");
    let server = Server::start(&data);
    let text = metrics(&server.url);
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    assert_eq!(value("chronolith_blocks_quarantined_total"), 1.0);
    assert_eq!(value("chronolith_blocks_missing"), 1.0);
    assert_eq!(value("chronolith_wal_corruptions_total"), 1.0);
    assert_eq!(value("chronolith_head_corruptions_total"), 1.0);
    assert_eq!(value("chronolith_cut_mark_corruptions_total"), 1.0);
    drop(server);
    // What was set aside is missing, and not found again.
    let server = Server::start(&data);
    let text = metrics(&server.url);
    assert!(text.contains("\nchronolith_blocks_quarantined_total 0\n"), "{text}");
    assert!(text.contains("\nchronolith_blocks_missing 1\n"), "{text}");
    let (code, out, _) = run(&["block", "verify", "--data-dir", &data]);
    assert!(code == Some(0) && out.contains("set aside before, and not looked at: "), "{code:?} {out}");
}
