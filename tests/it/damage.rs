//! Damaged logs: no more is lost than what was damaged, nothing is invented, the server starts and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use chronolith_e2e::remote_write::{LabelMap, WriteRequest, encode_labels, labels};
use chronolith_e2e::rng::Rng;

use crate::scratch::{Scratch, now_ms, read, write};

const CONFIG: &str = "wal:\n  segment_size: 1MiB\n";
const SERIES: usize = 100;
const STEPS_PER_REQUEST: usize = 10;
const REQUESTS: usize = 350;
const STEP_MS: i64 = 500;
/// What the server's log says of damage, and of a write that was cut short.
const DAMAGE: &str = "damage in the log";
const TORN_TAIL: &str = "cut the unfinished end of the log";

/// What was sent and acknowledged: each sample with the number of its request.
struct Sent {
    samples: BTreeMap<LabelMap, BTreeMap<i64, (u64, usize)>>,
    end_ms: i64,
}

#[test]
fn a_flipped_bit_in_each_segment_costs_one_record_each() {
    let (scratch, sent) = fill();
    let mut rng = Rng::new(3);
    let segments = segments(&scratch);
    assert!(segments.len() >= 3, "{segments:?}");
    for (i, path) in segments.iter().enumerate() {
        let mut bytes = fs::read(path).expect("a readable segment");
        let used = bytes.iter().rposition(|b| *b != 0).expect("a segment that is not empty");
        // Behind the definitions of the series, which the first requests carry.
        let from = if i == 0 { used / 2 } else { used / 8 };
        let at = from + rng.below((used - from) as u64 * 3 / 4) as usize;
        bytes[at] ^= 1 << rng.below(8);
        fs::write(path, bytes).expect("a writable segment");
    }
    let lost = requests_with_losses(&scratch, &sent, DAMAGE);
    assert!(!lost.is_empty(), "every flipped bit went unnoticed");
    assert!(lost.len() <= segments.len(), "{} flips cost the requests {lost:?}", segments.len());
    let again = requests_with_losses(&scratch, &sent, DAMAGE);
    assert_eq!(again, lost, "another restart loses no more");
}

#[test]
fn a_damaged_segment_header_costs_no_record() {
    let (scratch, sent) = fill();
    let segments = segments(&scratch);
    let middle = &segments[segments.len() / 2];
    let mut bytes = fs::read(middle).expect("a readable segment");
    bytes[4] ^= 0x40;
    fs::write(middle, bytes).expect("a writable segment");
    let lost = requests_with_losses(&scratch, &sent, DAMAGE);
    assert!(lost.is_empty(), "{} segments, of {REQUESTS} requests lost: {lost:?}", segments.len());
}

#[test]
fn a_torn_tail_costs_only_the_tail() {
    let (scratch, sent) = fill();
    let segments = segments(&scratch);
    let last = segments.last().expect("segments");
    let bytes = fs::read(last).expect("a readable segment");
    let used = bytes.iter().rposition(|b| *b != 0).expect("a segment that is not empty");
    fs::write(last, &bytes[..used - 20]).expect("a writable segment");
    let lost = requests_with_losses(&scratch, &sent, TORN_TAIL);
    assert!(lost.iter().all(|r| *r == REQUESTS - 1), "only the last request may suffer: {lost:?}");
}

#[test]
fn a_truncated_middle_segment_costs_what_was_cut_off() {
    let (scratch, sent) = fill();
    let segments = segments(&scratch);
    let middle = &segments[segments.len() / 2];
    let bytes = fs::read(middle).expect("a readable segment");
    let used = bytes.iter().rposition(|b| *b != 0).expect("a segment that is not empty");
    fs::write(middle, &bytes[..used * 3 / 4]).expect("a writable segment");
    let lost = requests_with_losses(&scratch, &sent, DAMAGE);
    assert!(!lost.is_empty());
    let share = REQUESTS / segments.len() / 4 + REQUESTS / 20;
    assert!(lost.len() <= share, "{} of {REQUESTS} requests lost: {lost:?}", lost.len());
    let (first, last) = (lost.first().expect("a loss"), lost.last().expect("a loss"));
    assert_eq!(last - first + 1, lost.len(), "one stretch: {lost:?}");
}

/// A directory with several segments of acknowledged samples, left by a SIGKILL.
fn fill() -> (Scratch, Sent) {
    let scratch = Scratch::with_config(CONFIG);
    let server = scratch.start();
    let mut client = server.client();
    let mut rng = Rng::new(11);
    let all: Vec<LabelMap> =
        (0..SERIES).map(|i| labels(&[("__name__", "damaged"), ("series", &format!("{i:03}"))])).collect();
    let encoded: Vec<Vec<u8>> =
        all.iter().map(|l| encode_labels(l.iter().map(|(n, v)| (n.as_str(), v.as_str())))).collect();
    let start_ms = now_ms() - (REQUESTS * STEPS_PER_REQUEST) as i64 * STEP_MS;
    let mut samples: BTreeMap<LabelMap, BTreeMap<i64, (u64, usize)>> = BTreeMap::new();
    let mut t = start_ms;
    for number in 0..REQUESTS {
        let mut request = WriteRequest::new();
        for _ in 0..STEPS_PER_REQUEST {
            t += STEP_MS;
            for (series, encoded) in all.iter().zip(&encoded) {
                let value = rng.unit();
                request.push_sample(encoded, t, value);
                samples.entry(series.clone()).or_default().insert(t, (value.to_bits(), number));
            }
        }
        let response = write(&mut client, &request.take_body()).expect("an answer");
        assert!(response.ok(), "{} {}", response.status, response.text());
    }
    server.kill();
    (scratch, Sent { samples, end_ms: t })
}

/// Restarts on the damaged directory, which the log must tell by the words `told`, and compares; returns the requests
/// that lost samples.
fn requests_with_losses(scratch: &Scratch, sent: &Sent, told: &str) -> BTreeSet<usize> {
    let server = scratch.start();
    let mut client = server.client();
    let stored = read(&mut client, "damaged[2h]", sent.end_ms).expect("an answer");
    let mut lost = BTreeSet::new();
    for (series, samples) in &sent.samples {
        let have: BTreeMap<i64, u64> =
            stored.get(series).into_iter().flatten().map(|(t, v)| (*t, v.to_bits())).collect();
        for (t, bits) in &have {
            let sent = samples.get(t).map(|s| s.0);
            assert_eq!(sent, Some(*bits), "{series:?} at {t}: stored and never sent");
        }
        lost.extend(samples.iter().filter(|(t, _)| !have.contains_key(t)).map(|(_, (_, number))| *number));
    }
    assert!(stored.keys().all(|l| sent.samples.contains_key(l)), "series that were never sent");
    let log = server.process().log_text();
    assert!(log.contains(told) && !log.contains("panicked"), "{log:.4000}");
    let mut server = server;
    let status = server.process_mut().stop(chronolith_e2e::servers::STOP_TIMEOUT).expect("a graceful stop");
    assert!(status.success(), "{status}");
    lost
}

/// The segment files of the log in their order.
fn segments(scratch: &Scratch) -> Vec<PathBuf> {
    fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a readable directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, found);
            } else if fs::metadata(&path).expect("metadata").len() > 0 {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&scratch.spec.data_dir().join("wal"), &mut found);
    found.sort();
    found
}
