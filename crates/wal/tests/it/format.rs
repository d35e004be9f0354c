//! The bytes themselves, and what comes back of them.

use std::path::Path;
use std::sync::Arc;

use chronolith_env::Fs;
use chronolith_testkit::fault_fs::FaultFs;
use chronolith_wal::inspect::{self, Content, EntryStatus, RecordInfo};
use chronolith_wal::{Error, LoggedMetadata, METADATA_TEXT_BYTES_MAX, RecordType, Wal};
use proptest::prelude::*;

use crate::support::{Bench, DIR, Kind, Row, options, replay, segment};

const METADATA: LoggedMetadata<'_> =
    LoggedMetadata { tenant: "anonymous", metric: "m", kind: 1, unit: "bytes", help: "All." };

/// The worked example of docs/format/wal.md.
fn example() -> FaultFs {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 1, options(2));
    let t = 1_700_000_000_000;
    let start = f64::from_bits(1_699_999_990_000);
    let rows = [
        (Kind::Sample, 1, t, 1.5),
        (Kind::Sample, 3, t, 1.5),
        (Kind::Histogram, 1, t + 1, 2.5),
        (Kind::Histogram, 3, t, 0.0),
        (Kind::Start, 3, t, start),
        (Kind::Exemplar, 1, t, 1.0),
    ];
    let batch = bench.shards.append_kinds(1, &rows);
    bench.wal.log_floor(Some("anonymous"), 1000);
    assert!(bench.wal.log_metadata(&[METADATA]).is_some());
    assert!(bench.settle(batch));
    bench.kill()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn bytes_are_those_of_the_document() {
    let bytes = example().read(&segment(1)).unwrap();
    let document = include_str!("../../../../docs/format/wal.md");
    let example = document.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(hex(&bytes), plain(example));
}

/// Without what is said to it.
fn plain(annotated: &str) -> String {
    let lines: Vec<_> = annotated.lines().map(|line| line.split('|').next().unwrap().trim()).collect();
    lines.join(" ")
}

/// A segment as an earlier version wrote it: the same example, as far as that went.
fn earlier(text: &str) -> Vec<u8> {
    plain(text).split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn version_2_is_read_and_carried_on() {
    let fs = FaultFs::new();
    fs.create_dir_all(Path::new(DIR)).unwrap();
    fs.put(&segment(1), earlier(include_str!("version_2.hex")));
    let inspected = inspect::Segment::open(&fs, &segment(1)).unwrap();
    assert_eq!(inspected.summary().version, 2);
    let bench = Bench::open(&fs, 3, options(2));
    let report = &bench.report;
    assert_eq!((report.samples, report.histograms, report.starts, report.exemplars), (2, 2, 1, 1));
    assert_eq!((report.metadata, report.damage_count), (0, 0));
    let batch = bench.wal.log_metadata(&[METADATA]).unwrap();
    assert!(bench.settle(batch));
    let (_, report, replayed) = replay(&bench.kill());
    assert_eq!((report.samples, report.metadata), (2, 1));
    assert_eq!(*replayed.metadata.lock(), ["anonymous/m/1/bytes/All."]);
}

#[test]
fn metadata_comes_back_in_its_order_and_is_written_without_anything_else() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 5, options(2));
    let log = |metric: &str, help: &str| {
        let entry = LoggedMetadata { metric, help, ..METADATA };
        bench.settle(bench.wal.log_metadata(&[entry, LoggedMetadata { tenant: "b", ..entry }]).unwrap())
    };
    assert!(log("x", "1") && log("y", "1") && log("x", "2"));
    assert_eq!(bench.wal.segments()[0].times, None, "it is of no time");
    // What cannot be written is tried again.
    bench.fs.fail(chronolith_env::Op::Sync, 1, 1, chronolith_testkit::fault_fs::Fault::Io);
    let batch = bench.wal.log_metadata(&[LoggedMetadata { metric: "z", ..METADATA }]).unwrap();
    assert!(!bench.settle(batch));
    bench.fake.scheduler.run_for(std::time::Duration::from_secs(10));
    assert!(bench.settle(batch));
    let (_, report, replayed) = replay(&bench.kill());
    let of = |tenant: &str, metric: &str, help: &str| format!("{tenant}/{metric}/1/bytes/{help}");
    let mut want = Vec::new();
    for (metric, help) in [("x", "1"), ("y", "1"), ("x", "2")] {
        want.extend(["anonymous", "b"].map(|tenant| of(tenant, metric, help)));
    }
    want.push(of("anonymous", "z", "All."));
    assert_eq!((replayed.metadata.lock().clone(), report.metadata), (want, 7));
    let long = "h".repeat(METADATA_TEXT_BYTES_MAX + 1);
    let bench = Bench::open(&fs, 6, options(2));
    assert!(bench.wal.log_metadata(&[LoggedMetadata { help: &long, ..METADATA }]).is_none());
}

#[test]
fn version_1_is_read_and_carried_on() {
    let (t, bits) = (1_700_000_000_000, 1.5_f64.to_bits());
    for header_damaged in [false, true] {
        let fs = FaultFs::new();
        fs.create_dir_all(Path::new(DIR)).unwrap();
        let mut bytes = earlier(include_str!("version_1.hex"));
        if header_damaged {
            bytes[9] ^= 1;
        }
        fs.put(&segment(1), bytes);
        let inspected = inspect::Segment::open(&fs, &segment(1)).unwrap();
        assert_eq!(inspected.summary().version, if header_damaged { 0 } else { 1 });
        let counts = inspected.entries().map(|entry| match entry.status {
            EntryStatus::Record(info) => {
                assert!(inspected.content(&entry, &mut |_| {}).unwrap(), "{entry:?}");
                info.count
            }
            EntryStatus::Damaged { .. } => panic!("{entry:?}"),
        });
        assert_eq!(counts.collect::<Vec<_>>(), [Some(2), Some(2), Some(1), Some(2)]);
        let bench = Bench::open(&fs, 3, options(2));
        assert_eq!(bench.replayed.sorted(), [(1, t, bits), (3, t, bits)]);
        assert_eq!(*bench.replayed.floors.lock(), [(Some("anonymous".to_owned()), 1000)]);
        assert_eq!(bench.report.damage_count, u64::from(header_damaged));
        assert!(bench.commit_kinds(0, &[(Kind::Histogram, 2, t + 1, 0.5)]));
        let (_, report, replayed) = replay(&bench.kill());
        assert_eq!(replayed.sorted(), [(1, t, bits), (2, t + 1, 0.5_f64.to_bits()), (3, t, bits)]);
        assert_eq!((report.samples, report.histograms), (2, 1));
    }
}

#[test]
fn inspection_lists_every_record() {
    let fs = example();
    let paths = inspect::segments(&fs, Path::new(DIR)).unwrap();
    assert_eq!(paths, [segment(1)]);
    let opened = inspect::Segment::open(&fs, &paths[0]).unwrap();
    let summary = opened.summary();
    assert!(summary.header_intact && !summary.continues && summary.number == 1 && summary.previous == 0);
    let entries: Vec<_> = opened.entries().collect();
    let end = entries.iter().fold(40, |at, entry| {
        assert_eq!(entry.offset, at, "no gaps");
        at + entry.bytes
    });
    assert_eq!(end, summary.bytes);
    let infos: Vec<RecordInfo> = entries
        .iter()
        .map(|entry| match entry.status {
            EntryStatus::Record(info) => info,
            EntryStatus::Damaged { .. } => panic!("{entry:?}"),
        })
        .collect();
    let t = 1_700_000_000_000;
    let kinds: Vec<_> =
        infos.iter().map(|info| (info.record_type.unwrap(), info.shard, info.count.unwrap())).collect();
    let want = [
        (RecordType::Series, Some(1), 2),
        (RecordType::Samples, Some(1), 2),
        (RecordType::Histograms, Some(1), 2),
        (RecordType::Starts, Some(1), 1),
        (RecordType::Exemplars, Some(1), 1),
        (RecordType::Floor, None, 1),
        (RecordType::Metadata, None, 1),
        (RecordType::Series, Some(1), 2),
    ];
    assert_eq!(kinds, want);
    let times = [(t, t), (t, t + 1), (t, t), (t, t)].map(Some);
    assert_eq!([1, 2, 3, 4].map(|at: usize| infos[at].times), times);
    assert!(infos.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    let mut seen = Vec::new();
    for entry in &entries {
        assert!(
            opened
                .content(entry, &mut |content| seen.push(match content {
                    Content::Series(d) => format!("{}:{:?}", d.series, d.labels.clone().collect::<Vec<_>>()),
                    Content::Sample(s) => format!("{}@{}={}", s.series, s.timestamp, s.value),
                    Content::Floor(tenant, t) => format!("{tenant:?}>={t}"),
                    Content::Histogram(e) => format!("{}@{} h{}", e.series, e.timestamp, e.bytes.len()),
                    Content::Start(s) => format!("{}@{} s{}", s.series, s.since, s.start),
                    Content::Exemplar(e) => format!("{}@{} e{}", e.series, e.timestamp, e.bytes.len()),
                    Content::Metadata(e) => format!("{}/{} {}", e.tenant, e.metric, e.kind),
                    other => panic!("{other:?}"),
                }))
                .unwrap()
        );
    }
    assert_eq!(seen[0], r#"1:[("__name__", "m"), ("id", "1")]"#);
    let samples = ["1@1700000000000=1.5", "3@1700000000000=1.5", "1@1700000000001 h9", "3@1700000000000 h9"];
    assert_eq!(seen[2..6], samples);
    let others = ["3@1700000000000 s1699999990000", "1@1700000000000 e9", r#"Some("anonymous")>=1000"#];
    assert_eq!(seen[6..9], others);
    assert_eq!(seen[9], "anonymous/m 1");
}

#[test]
fn floors_and_definitions_come_back() {
    let (_, report, replayed) = replay(&example());
    assert_eq!(*replayed.floors.lock(), [(Some("anonymous".to_owned()), 1000)]);
    assert_eq!(replayed.series.lock()[&3], ["anonymous", "__name__=m", "id=3"]);
    assert_eq!((report.samples, report.series, report.records, report.damage_count), (2, 4, 8, 0));
    assert_eq!((report.histograms, report.starts, report.exemplars, report.metadata), (2, 1, 1, 1));
    assert_eq!(*replayed.metadata.lock(), ["anonymous/m/1/bytes/All."]);
}

#[test]
fn another_version_is_refused_and_left_alone() {
    let fs = example();
    let mut bytes = fs.read(&segment(1)).unwrap();
    bytes[8] = 4;
    let crc = chronolith_codec::crc32(&bytes[..36]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(b"torn");
    fs.put(&segment(1), bytes.clone());
    let fake = chronolith_testkit::fake_env::FakeEnv::new(Arc::new(fs.clone()), 1);
    let refused = Wal::open(&fake.env, Path::new(DIR), options(2)).unwrap_err();
    assert!(matches!(refused, Error::ForeignVersion { got: 4, expected: 3, .. }));
    let text = refused.to_string();
    assert!(text.contains("/data/wal/00000001.wal") && text.contains("nothing was changed"), "{text}");
    assert_eq!(fs.read(&segment(1)).unwrap(), bytes);
    assert!(matches!(inspect::Segment::open(&fs, &segment(1)), Err(Error::ForeignVersion { .. })));
}

fn rows() -> impl Strategy<Value = Vec<Vec<(u32, i64, u64)>>> {
    let value = prop_oneof![
        3 => (0_u32..1000).prop_map(|i| f64::from(i).to_bits()),
        1 => any::<u64>(),
        1 => Just(0x7ff0_0000_0000_0002_u64),
        1 => Just(0),
        1 => Just((-0.0_f64).to_bits()),
    ];
    let t = prop_oneof![5 => 1_700_000_000_000_i64..1_700_000_060_000, 1 => any::<i64>(), 1 => Just(0)];
    let series = prop_oneof![5 => 0_u32..500, 1 => any::<u32>()];
    proptest::collection::vec(proptest::collection::vec((series, t, value), 0..40), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_logged_comes_back_in_order(batches in rows()) {
        let fs = FaultFs::new();
        let bench = Bench::open(&fs, 5, options(4));
        let mut want: Vec<Vec<Row>> = vec![Vec::new(); 4];
        for (i, batch) in batches.iter().enumerate() {
            let samples: Vec<_> = batch.iter().map(|&(s, t, v)| (s, t, f64::from_bits(v))).collect();
            let ticket = bench.shards.append(i % 4, &samples);
            want[i % 4].extend(batch);
            if i % 3 == 2 {
                prop_assert!(bench.settle(ticket));
            }
        }
        bench.wal.close().unwrap();
        let (opened, report, replayed) = replay(&bench.kill());
        prop_assert_eq!(opened.torn_tail, None);
        prop_assert_eq!(report.damage_count, 0);
        let rows = replayed.rows.lock();
        for (shard, want) in want.iter().enumerate() {
            prop_assert_eq!(rows.get(&shard).cloned().unwrap_or_default(), want.clone());
        }
        for (series, ..) in want.iter().flatten() {
            prop_assert!(replayed.series.lock().contains_key(series));
        }
    }
}

#[test]
fn large_batches_are_split_into_records() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 5, options(1));
    let samples: Vec<_> = (0..150_000_u32).map(|i| (i, i64::from(i / 7), f64::from(i % 11))).collect();
    assert!(bench.commit(0, &samples));
    let fs = bench.kill();
    let opened = inspect::Segment::open(&fs, &segment(1)).unwrap();
    let mut counts = Vec::new();
    for entry in opened.entries() {
        if let EntryStatus::Record(info) = entry.status {
            assert!(entry.bytes < 2 * 1024 * 1024, "{entry:?}");
            if info.record_type == Some(RecordType::Samples) {
                counts.push(info.count.unwrap());
            } else {
                assert!(info.packed);
            }
        }
    }
    assert_eq!(counts, [65_536, 65_536, 18_928]);
    let (_, report, replayed) = replay(&fs);
    assert_eq!((report.samples, report.series), (150_000, 300_000));
    let rows = replayed.rows.lock();
    assert!(rows[&0].iter().zip(&samples).all(|(got, want)| *got == (want.0, want.1, want.2.to_bits())));
}

#[test]
fn large_batches_of_histograms_are_split_and_packed() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 5, options(1));
    let rows: Vec<_> = (0..200_000_u32)
        .map(|i| (Kind::Histogram, i % 500, 1_700_000_000_000 + i64::from(i), f64::from(i % 7)))
        .collect();
    assert!(bench.commit_kinds(0, &rows));
    let stats = bench.wal.stats().snapshot();
    assert_eq!((stats.histograms, stats.samples, stats.exemplars), (200_000, 0, 0));
    let info = bench.wal.segments()[0];
    assert_eq!(info.times, Some((1_700_000_000_000, 1_700_000_199_999)), "they count as samples do");
    let fs = bench.kill();
    let opened = inspect::Segment::open(&fs, &segment(1)).unwrap();
    let mut counts = Vec::new();
    for entry in opened.entries() {
        let EntryStatus::Record(info) = entry.status else { panic!("{entry:?}") };
        if info.record_type == Some(RecordType::Histograms) {
            assert!(info.packed && entry.bytes < 1024 * 1024, "{entry:?}");
            counts.push(info.count.unwrap());
        }
    }
    // 14 bytes each, or 13: a record is full before it has as many as it may.
    assert!(counts.len() > 3 && counts.iter().all(|count| *count <= 65_536), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), 200_000);
    let (_, report, replayed) = replay(&fs);
    assert_eq!((report.samples, report.histograms), (0, 200_000));
    let got = &replayed.rows.lock()[&0];
    assert!(got.iter().zip(&rows).all(|(got, want)| *got == (want.1, want.2, want.3.to_bits())));
}

#[test]
#[should_panic(expected = "1048577 bytes of an entry, 1048576 allowed")]
fn what_could_not_be_read_again_is_not_logged() {
    let mut log = chronolith_wal::ShardLog::new();
    log.histogram(1, 1, &vec![0; chronolith_wal::BLOB_BYTES_MAX]);
    log.exemplar(1, 1, &vec![0; chronolith_wal::BLOB_BYTES_MAX + 1]);
}
