//! The bytes themselves, and what comes back of them.

use std::path::Path;
use std::sync::Arc;

use chronolith_testkit::fault_fs::FaultFs;
use chronolith_wal::inspect::{self, Content, EntryStatus, RecordInfo};
use chronolith_wal::{Error, RecordType, Wal};
use proptest::prelude::*;

use crate::support::{Bench, DIR, Row, options, replay, segment};

/// The worked example of docs/format/wal.md.
fn example() -> FaultFs {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 1, options(2));
    let batch = bench.shards.append(1, &[(1, 1_700_000_000_000, 1.5), (3, 1_700_000_000_000, 1.5)]);
    bench.wal.log_floor(Some("anonymous"), 1000);
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
    let example: String = document
        .split("```hex\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap()
        .lines()
        .map(|line| line.split('|').next().unwrap().trim())
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(hex(&bytes), example);
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
        (RecordType::Floor, None, 1),
        (RecordType::Series, Some(1), 2),
    ];
    assert_eq!(kinds, want);
    assert_eq!(infos[1].times, Some((t, t)));
    assert!(infos.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    let mut seen = Vec::new();
    for entry in &entries {
        assert!(
            opened
                .content(entry, &mut |content| seen.push(match content {
                    Content::Series(d) => format!("{}:{:?}", d.series, d.labels.clone().collect::<Vec<_>>()),
                    Content::Sample(s) => format!("{}@{}={}", s.series, s.timestamp, s.value),
                    Content::Floor(tenant, t) => format!("{tenant:?}>={t}"),
                    other => panic!("{other:?}"),
                }))
                .unwrap()
        );
    }
    assert_eq!(seen[0], r#"1:[("__name__", "m"), ("id", "1")]"#);
    assert_eq!(seen[2..5], ["1@1700000000000=1.5", "3@1700000000000=1.5", r#"Some("anonymous")>=1000"#]);
}

#[test]
fn floors_and_definitions_come_back() {
    let (_, report, replayed) = replay(&example());
    assert_eq!(*replayed.floors.lock(), [(Some("anonymous".to_owned()), 1000)]);
    assert_eq!(replayed.series.lock()[&3], ["anonymous", "__name__=m", "id=3"]);
    assert_eq!((report.samples, report.series, report.records, report.damage_count), (2, 4, 4, 0));
}

#[test]
fn another_version_is_refused_and_left_alone() {
    let fs = example();
    let mut bytes = fs.read(&segment(1)).unwrap();
    bytes[8] = 2;
    let crc = chronolith_codec::crc32(&bytes[..36]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(b"torn");
    fs.put(&segment(1), bytes.clone());
    let fake = chronolith_testkit::fake_env::FakeEnv::new(Arc::new(fs.clone()), 1);
    let refused = Wal::open(&fake.env, Path::new(DIR), options(2)).unwrap_err();
    assert!(matches!(refused, Error::ForeignVersion { got: 2, expected: 1, .. }));
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
