//! A damaged block beside a server: what it answers says so.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::block::write;
use crate::cli::{Dir, Server, run};

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
