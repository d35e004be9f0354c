//! Damaged logs: at most what was hit is lost, and it is said.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use chronolith_env::{Fs, Op};
use chronolith_testkit::fake_env::FakeEnv;
use chronolith_testkit::fault_fs::{Fault, FaultFs};
use chronolith_wal::inspect::{EntryStatus, Segment};
use chronolith_wal::{DamageReason, Error, RecordType, Wal};
use proptest::prelude::*;

use crate::support::{Bench, DIR, Kind, Row, names, options, replay, segment};

/// A segment of several batches, and where its records of samples and their like lie: (from, to, rows).
fn log(batches: u32) -> (FaultFs, Vec<(usize, usize, Vec<Row>)>) {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 7, options(2));
    let mut rows: Vec<Vec<Row>> = Vec::new();
    for i in 0..batches {
        let t = 1_700_000_000_000 + i64::from(i) * 15_000;
        let samples = [(1, t, f64::from(i)), (3, t + 1, 0.1), (5 + 2 * i, t, f64::NAN)];
        // A series of each kind alone in its record, so that it needs the definitions as much.
        let others = [(1, t + 2, 0.2), (7 + 2 * i, t + 3, 0.3)];
        let mut all = Vec::new();
        for kind in Kind::ALL {
            let of_kind = if kind == Kind::Sample { &samples[..] } else { &others[..] };
            // None like another.
            let of_kind = of_kind.iter().map(|&(s, t, v)| (kind, s, t + 10 * kind as i64, v));
            let of_kind: Vec<(Kind, u32, i64, f64)> = of_kind.collect();
            rows.push(of_kind.iter().map(|(_, s, t, v)| (*s, *t, v.to_bits())).collect());
            all.extend(of_kind);
        }
        assert!(bench.commit_kinds(1, &all));
    }
    bench.wal.close().unwrap();
    let fs = bench.kill();
    let opened = Segment::open(&fs, &segment(1)).unwrap();
    let mut placed = Vec::new();
    let mut rows = rows.into_iter();
    for entry in opened.entries() {
        let EntryStatus::Record(info) = entry.status else { panic!("{entry:?}") };
        if !matches!(info.record_type, Some(RecordType::Series | RecordType::Mark)) {
            let from = entry.offset as usize;
            placed.push((from, from + entry.bytes as usize, rows.next().unwrap()));
        }
    }
    assert!(rows.next().is_none());
    (fs, placed)
}

fn rows_but(placed: &[(usize, usize, Vec<Row>)], lost: Option<usize>) -> Vec<Row> {
    let kept = placed.iter().enumerate().filter(|(i, _)| Some(*i) != lost);
    let mut rows: Vec<Row> = kept.flat_map(|(_, (.., rows))| rows.clone()).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn every_flipped_bit_costs_at_most_its_record() {
    let (fs, placed) = log(2);
    let good = fs.read(&segment(1)).unwrap();
    let all = rows_but(&placed, None);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let fs = FaultFs::new();
        fs.create_dir_all(Path::new(DIR)).unwrap();
        fs.put(&segment(1), bytes);
        let (opened, report, replayed) = replay(&fs);
        let hit = placed.iter().position(|(from, to, _)| (*from..*to).contains(&(bit / 8)));
        let got = replayed.sorted();
        assert_eq!(got, rows_but(&placed, hit), "bit {bit} of byte {}", bit / 8);
        let torn = opened.torn_tail.is_some();
        assert!(torn || report.damage_count == 1, "bit {bit} of byte {} is not reported", bit / 8);
        assert!(!torn || hit.is_none(), "only the last record can be taken for a torn tail");
        // Every series keeps its definition: they are there twice.
        let series = replayed.series.lock();
        assert!(all.iter().all(|(s, ..)| series.contains_key(s)), "bit {bit} of byte {}", bit / 8);
        if !torn && bit / 8 >= 40 {
            let kept = report.damage[0].quarantined.clone().unwrap();
            let from = report.damage[0].offset as usize;
            assert_eq!(
                fs.read(&kept).unwrap()[..],
                fs.read(&segment(1)).unwrap()[from..][..report.damage[0].bytes as usize]
            );
        }
    }
}

#[test]
fn a_segment_cut_anywhere_keeps_what_is_whole() {
    let (fs, placed) = log(3);
    let good = fs.read(&segment(1)).unwrap();
    for len in 0..=good.len() {
        let fs = FaultFs::new();
        fs.create_dir_all(Path::new(DIR)).unwrap();
        fs.put(&segment(1), good[..len].to_vec());
        let (opened, report, replayed) = replay(&fs);
        let mut want: Vec<Row> =
            placed.iter().filter(|(_, to, _)| *to <= len).flat_map(|(.., rows)| rows.clone()).collect();
        want.sort_unstable();
        assert_eq!(replayed.sorted(), want, "cut at {len}");
        assert_eq!(report.damage_count, 0, "cut at {len}: a torn tail is no damage");
        if let Some(torn) = &opened.torn_tail {
            assert_eq!(torn.offset + torn.bytes, len as u64);
            // It has been repaired for good: cut off, or all there is has been written again elsewhere.
            assert!(
                fs.read(&segment(1)).is_none_or(|bytes| bytes.len() as u64 == torn.offset),
                "cut at {len}"
            );
        }
        let (opened, _, replayed) = replay(&fs);
        assert_eq!((opened.torn_tail, replayed.sorted()), (None, want), "cut at {len}");
    }
}

#[test]
fn what_cannot_be_cut_off_is_not_read_all_the_same() {
    for (op, len) in [(Op::Truncate, 300), (Op::Sync, 300), (Op::Create, 300), (Op::Remove, 30)] {
        let (fs, placed) = log(3);
        let mut bytes = fs.read(&segment(1)).unwrap();
        bytes.truncate(len);
        fs.put(&segment(1), bytes);
        // The first file that is created is the probe.
        fs.fail(op, if op == Op::Create { 2 } else { 1 }, 1, Fault::Io);
        let bench = Bench::open(&fs, 8, options(2));
        assert!(bench.opened.torn_tail.is_some(), "{op}");
        bench.fake.scheduler.run_for(std::time::Duration::from_secs(1));
        assert!(bench.commit(1, &[(9, 9, 9.0)]), "{op}");
        let fs = bench.kill();
        let (opened, report, replayed) = replay(&fs);
        let mut want: Vec<Row> =
            placed.iter().filter(|(_, to, _)| *to <= len).flat_map(|(.., rows)| rows.clone()).collect();
        want.push((9, 9, 9_f64.to_bits()));
        want.sort_unstable();
        assert_eq!(replayed.sorted(), want, "{op}");
        assert_eq!((opened.torn_tail, report.damage_count), (None, 0), "{op}: {:?}", report.damage);
    }
}

#[test]
fn garbage_between_records_is_passed_over() {
    let (fs, placed) = log(3);
    let good = fs.read(&segment(1)).unwrap();
    for (i, garbage) in
        [vec![0; 1], vec![0; 5000], vec![0xff; 37], good[60..200].to_vec()].into_iter().enumerate()
    {
        let mut bytes = good.clone();
        let at = placed[1].0;
        bytes.splice(at..at, garbage.iter().copied());
        fs.put(&segment(1), bytes);
        let (opened, report, replayed) = replay(&fs);
        assert_eq!(opened.torn_tail, None);
        assert_eq!(replayed.sorted(), rows_but(&placed, None), "garbage {i}");
        assert_eq!(report.damage_count, 1, "{:?}", report.damage);
        let damage = &report.damage[0];
        assert_eq!((damage.offset, damage.path.as_path()), (at as u64, segment(1).as_path()));
    }
}

#[test]
fn bytes_missing_inside_a_payload_cost_one_record() {
    let (fs, placed) = log(3);
    let mut bytes = fs.read(&segment(1)).unwrap();
    // The record's own length now reaches into the next one.
    bytes.drain(placed[1].1 - 7..placed[1].1);
    fs.put(&segment(1), bytes);
    let (_, report, replayed) = replay(&fs);
    assert_eq!(replayed.sorted(), rows_but(&placed, Some(1)));
    assert_eq!(report.damage_count, 1);
    assert_eq!(report.damage[0].reason, DamageReason::Payload);
}

#[test]
fn a_wiped_segment_header_costs_no_record() {
    let (fs, placed) = log(3);
    let mut bytes = fs.read(&segment(1)).unwrap();
    bytes[..40].fill(0);
    fs.put(&segment(1), bytes);
    let (opened, report, replayed) = replay(&fs);
    assert_eq!(replayed.sorted(), rows_but(&placed, None));
    assert_eq!(opened.damage[0].reason, DamageReason::SegmentHeader);
    assert_eq!(report.damage_count, 1);
}

#[test]
fn a_segment_does_not_pass_for_another() {
    let (fs, placed) = log(2);
    let stale = fs.read(&segment(1)).unwrap();
    let bench = Bench::open(&fs, 8, options(2));
    assert!(bench.commit(1, &[(9, 9, 9.0)]));
    let fs = bench.kill();
    // Blocks of an old segment show up inside a new one, as after a device mixed up its blocks.
    let mut bytes = fs.read(&segment(2)).unwrap();
    bytes.extend_from_slice(&stale[40..]);
    fs.put(&segment(2), bytes);
    let (opened, report, replayed) = replay(&fs);
    let mut want = rows_but(&placed, None);
    want.push((9, 9, 9_f64.to_bits()));
    want.sort_unstable();
    assert_eq!(replayed.sorted(), want);
    assert_eq!(opened.torn_tail.unwrap().bytes, stale.len() as u64 - 40);
    assert_eq!(report.damage_count, 0);
}

#[test]
fn a_foreign_file_under_a_segments_name_is_left_alone() {
    let (fs, placed) = log(2);
    let novel = b"It was a dark and stormy night; the rain fell in torrents".repeat(3);
    fs.put(&segment(2), novel.clone());
    let (_, report, replayed) = replay(&fs);
    assert_eq!(replayed.sorted(), rows_but(&placed, None));
    assert!(report.damage_count >= 1);
    assert_eq!(fs.read(&segment(2)).unwrap(), novel);
    let bench = Bench::open(&fs, 8, options(2));
    assert!(bench.commit(0, &[(2, 2, 2.0)]));
    assert_eq!(names(&bench.fs), ["00000001.wal", "00000002.wal", "00000003.wal"]);
}

#[test]
fn a_missing_segment_is_reported_and_the_others_are_read() {
    let fs = FaultFs::new();
    for i in 1..=3 {
        let bench = Bench::open(&fs, u64::from(i), options(2));
        assert!(bench.commit(0, &[(i, 1, 1.0)]));
        bench.wal.close().unwrap();
        bench.kill();
    }
    fs.remove_file(&segment(2)).unwrap();
    let (opened, report, replayed) = replay(&fs);
    assert_eq!(replayed.sorted().iter().map(|row| row.0).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(opened.damage[0].reason, DamageReason::MissingSegment);
    assert_eq!(opened.damage[0].path, segment(2));
    assert_eq!(report.damage_count, 1);
    // The oldest ones are missing whenever they have been dropped.
    fs.remove_file(&segment(1)).unwrap();
    assert!(replay(&fs).0.damage.is_empty());
}

#[test]
fn an_unreadable_segment_is_reported_and_survives() {
    let (fs, placed) = log(2);
    let bench = Bench::open(&fs, 8, options(2));
    assert!(bench.commit(1, &[(9, 9, 9.0)]));
    let fs = bench.kill();
    let size = |number| fs.read(&segment(number)).unwrap().len();
    let before = (size(1), size(2));
    // Every read fails for as long as the first start lasts.
    fs.fail(Op::Read, 1, u64::MAX, Fault::Io);
    let bench = Bench::open(&fs, 9, options(2));
    assert!(bench.replayed.sorted().is_empty());
    assert!(bench.report.damage_count >= 2, "{:?}", bench.report);
    assert!(bench.commit(1, &[(11, 11, 11.0)]), "and writing goes on");
    let fs = bench.kill();
    fs.heal();
    assert_eq!((size(1), size(2)), before, "nothing is cut that could not be read");
    let (_, report, replayed) = replay(&fs);
    let mut want = rows_but(&placed, None);
    want.extend([(9, 9, 9_f64.to_bits()), (11, 11, 11_f64.to_bits())]);
    want.sort_unstable();
    assert_eq!(replayed.sorted(), want);
    assert_eq!(report.damage_count, 0);
}

#[test]
fn a_segment_that_cannot_be_opened_is_neither_void_nor_cut() {
    let (fs, placed) = log(2);
    fs.fail(Op::Open, 1, u64::MAX, Fault::Io);
    let bench = Bench::open(&fs, 9, options(2));
    assert_eq!(bench.opened.damage[0].reason, DamageReason::Unreadable);
    assert!(bench.commit(1, &[(11, 11, 11.0)]));
    let fs = bench.kill();
    fs.heal();
    let (_, report, replayed) = replay(&fs);
    assert_eq!(replayed.sorted().len(), rows_but(&placed, None).len() + 1);
    assert_eq!(report.damage_count, 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_with_advice() {
    for (fault, advice) in [(Fault::ReadOnly, "read-only"), (Fault::Denied, "permission denied")] {
        let (fs, _) = log(1);
        fs.fail(Op::Create, 1, 1, fault);
        let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
        let refused = Wal::open(&fake.env, Path::new(DIR), options(2)).unwrap_err();
        assert!(matches!(refused, Error::Fs(_)));
        let text = refused.to_string();
        assert!(
            text.contains(advice) && text.contains(DIR) && text.contains("another data directory"),
            "{text}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_damage_is_survived_and_nothing_is_invented(
        edits in proptest::collection::vec((any::<u16>(), 0_usize..60, proptest::collection::vec(any::<u8>(), 0..60)), 1..6)) {
        let (fs, placed) = log(4);
        let mut bytes = fs.read(&segment(1)).unwrap();
        for (at, remove, insert) in edits {
            let at = usize::from(at) % (bytes.len() + 1);
            let to = (at + remove).min(bytes.len());
            bytes.splice(at..to, insert);
        }
        fs.put(&segment(1), bytes);
        let (.., replayed) = replay(&fs);
        let all: BTreeSet<Row> = rows_but(&placed, None).into_iter().collect();
        prop_assert!(replayed.sorted().iter().all(|row| all.contains(row)));
    }

    #[test]
    fn arbitrary_files_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..3000), header in any::<bool>()) {
        let (fs, _) = log(1);
        let mut whole = if header { fs.read(&segment(1)).unwrap()[..40].to_vec() } else { Vec::new() };
        whole.extend(bytes);
        fs.put(&segment(1), whole);
        let (.., replayed) = replay(&fs);
        prop_assert!(replayed.sorted().is_empty());
    }
}
