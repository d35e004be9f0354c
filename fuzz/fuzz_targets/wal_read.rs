//! Logs of any bytes: opening, replaying and inspecting them end without a panic, and make nothing up.
//!
//! The first byte chooses: the rest is a segment as it stands, or it is made into records with the right checksums, so
//! that what is behind the checksums is reached, too, and then damaged in one place. It also chooses the version of the format.
#![no_main]

mod memory_fs;

use std::path::Path;
use std::sync::Arc;

use chronolith_env::Env;
use chronolith_wal::inspect::{Segment, segments};
use chronolith_wal::{
    BLOB_BYTES_MAX, FORMAT_VERSION, FORMAT_VERSION_MIN, LoggedBlob, LoggedSample, LoggedStart, Replay,
    SeriesDef, Wal, WalOptions,
};
use libfuzzer_sys::fuzz_target;
use memory_fs::MemoryFs;
use parking_lot::Mutex;

const SALT: u64 = 0x0123_4567_89ab_cdef;
const NUMBER: u32 = 1;

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let versions = u16::from(FORMAT_VERSION - FORMAT_VERSION_MIN + 1);
    let version = FORMAT_VERSION - u16::from(mode / 4) % versions;
    let file = match mode % 4 {
        0 => rest.to_vec(),
        1 => [segment_header(version), rest.to_vec()].concat(),
        2 => records(version, rest),
        _ => {
            let Some((place, rest)) = rest.split_at_checked(3) else { return };
            let mut file = records(version, rest);
            let at = usize::from(u16::from_le_bytes([place[0], place[1]])) % file.len();
            file[at] ^= place[2];
            file
        }
    };
    let intact = mode % 4 == 2;
    check(file, intact);
});

fn check(file: Vec<u8>, intact: bool) {
    let dir = Path::new("/log");
    let fs = MemoryFs::default();
    fs.put(&dir.join(format!("{NUMBER:08}.wal")), file);
    for path in segments(&fs, dir).expect("a listed directory") {
        if let Ok(segment) = Segment::open(&fs, &path) {
            let stretches: u64 = segment.entries().map(|e| e.bytes).sum();
            let summary = segment.summary();
            assert!(stretches <= summary.bytes, "{stretches} of {summary:?}");
        }
    }
    let env = Env { fs: Arc::new(fs), ..Env::real() };
    let Ok(mut opened) = Wal::open(&env, dir, WalOptions::default()) else { return };
    let seen = Seen::default();
    let report = opened.replay(1, &seen).expect("damage is no error");
    assert_eq!(report.samples, seen.0.lock().samples);
    assert_eq!(report.series, seen.0.lock().series);
    let others = [report.histograms, report.starts, report.exemplars];
    assert_eq!(others, seen.0.lock().others);
    if intact {
        // The checksums are right: what is reported as damage can only be the content of a record.
        assert!(opened.report().torn_tail.is_none(), "{:?}", opened.report());
    }
    // A second look at the repaired log finds no torn tail and the same content.
    drop(opened);
    let mut again = Wal::open(&env, dir, WalOptions::default()).expect("a log that could be opened before");
    assert!(again.report().torn_tail.is_none(), "{:?}", again.report());
    let second = Seen::default();
    again.replay(1, &second).expect("damage is no error");
    assert_eq!(seen.0.into_inner(), second.0.into_inner());
}

#[derive(Default)]
struct Seen(Mutex<Counts>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    series: u64,
    samples: u64,
    label_bytes: usize,
    last: Option<(u32, i64, u64)>,
    /// Histograms, starts, exemplars.
    others: [u64; 3],
    other_bytes: usize,
    last_start: Option<LoggedStart>,
}

impl Replay for Seen {
    fn series(&self, _shard: usize, definition: &SeriesDef<'_>) {
        let mut counts = self.0.lock();
        counts.series += 1;
        counts.label_bytes += definition.labels.clone().map(|(n, v)| n.len() + v.len()).sum::<usize>();
    }

    fn floor(&self, _tenant: Option<&str>, _min_t: i64) {}

    fn samples(&self, _shard: usize, _sequence: u64, samples: &[LoggedSample]) {
        let mut counts = self.0.lock();
        counts.samples += samples.len() as u64;
        counts.last = samples.last().map(|s| (s.series, s.timestamp, s.value.to_bits()));
    }

    fn histograms(&self, _shard: usize, _sequence: u64, histograms: &[LoggedBlob<'_>]) {
        self.blobs(0, histograms);
    }

    fn starts(&self, _shard: usize, _sequence: u64, starts: &[LoggedStart]) {
        let mut counts = self.0.lock();
        counts.others[1] += starts.len() as u64;
        counts.last_start = starts.last().copied().or(counts.last_start);
    }

    fn exemplars(&self, _shard: usize, _sequence: u64, exemplars: &[LoggedBlob<'_>]) {
        self.blobs(2, exemplars);
    }
}

impl Seen {
    fn blobs(&self, kind: usize, blobs: &[LoggedBlob<'_>]) {
        let mut counts = self.0.lock();
        counts.others[kind] += blobs.len() as u64;
        for entry in blobs {
            assert!(entry.bytes.len() <= BLOB_BYTES_MAX);
            counts.other_bytes += entry.bytes.len();
        }
    }
}

/// Records from `data`, each: type, flags, shard, length (two bytes), payload.
fn records(version: u16, data: &[u8]) -> Vec<u8> {
    let mut file = segment_header(version);
    let mut rest = data;
    let mut seq = 1u64;
    while let Some((head, tail)) = rest.split_at_checked(5) {
        let length = usize::from(u16::from_le_bytes([head[3], head[4]])).min(tail.len());
        let (payload, tail) = tail.split_at(length);
        rest = tail;
        let start = file.len();
        file.extend_from_slice(&crc32fast::hash(&SALT.to_le_bytes()).to_le_bytes());
        file.extend_from_slice(&[head[0], head[1], head[2], 0]);
        file.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        file.extend_from_slice(&seq.to_le_bytes());
        file.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&version.to_le_bytes());
        crc.update(&NUMBER.to_le_bytes());
        crc.update(&file[start..]);
        file.extend_from_slice(&crc.finalize().to_le_bytes());
        file.extend_from_slice(payload);
        seq += 1;
    }
    file
}

fn segment_header(version: u16) -> Vec<u8> {
    let mut header = b"CHRNOWAL".to_vec();
    header.extend_from_slice(&version.to_le_bytes());
    header.extend_from_slice(&0u16.to_le_bytes());
    header.extend_from_slice(&NUMBER.to_le_bytes());
    header.extend_from_slice(&0u32.to_le_bytes());
    header.extend_from_slice(&0u64.to_le_bytes());
    header.extend_from_slice(&SALT.to_le_bytes());
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}
