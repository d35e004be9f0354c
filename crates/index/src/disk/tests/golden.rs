//! The bytes of `docs/format/index.md`.

use super::*;

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format/index.md"));

fn series() -> Vec<Labels> {
    sorted([
        labels("a=1"),
        labels("__name__=m,a=1,pod=x-1"),
        labels("__name__=m,a=1,pod=x-2"),
        labels("__name__=m,a=2,pod=y"),
        labels("__name__=n,a=1,pod=x-1"),
        labels("__name__=n,a=2,pod=y"),
        labels("__name__=up,a=1"),
    ])
}

const SECTIONS: [&str; 4] = ["directory", "dictionaries", "postings", "forward"];

/// The lines of the document that give the bytes of each section, as they stand there.
fn documented() -> [&'static str; 4] {
    SECTIONS.map(|section| {
        let prefix = format!("| {section} | `");
        DOCUMENT.lines().find_map(|line| line.strip_prefix(&prefix)?.strip_suffix("` |")).unwrap_or_default()
    })
}

#[test]
fn bytes_are_those_of_the_document() {
    let EncodedIndex { directory, dictionaries, postings, forward } = encode(&series());
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    assert_eq!([directory, dictionaries, postings, forward].map(hex), documented());
}

#[test]
fn the_documented_bytes_are_an_index() {
    let [directory, dictionaries, postings, forward] = documented().map(|bytes| {
        bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect::<Vec<u8>>()
    });
    let index = open(EncodedIndex { directory, dictionaries, postings, forward });
    let found: Vec<Labels> = index.series(0..index.len()).collect::<Result<_, _>>().expect("sound");
    assert_eq!(found, series());
}

#[test]
fn another_version_is_refused() {
    let (mut directory, sections) = MemorySections::new(encode(&series()));
    directory[0] = 2;
    let error = DiskIndex::open(&directory, sections).expect_err("version 2");
    assert_eq!(error.to_string(), "index directory: version 2, this program reads version 1");
}
