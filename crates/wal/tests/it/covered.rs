//! What somebody else has: records that a replay passes over, segments that go.

use std::path::Path;
use std::sync::Arc;

use chronolith_env::Fs;
use chronolith_testkit::fake_env::FakeEnv;
use chronolith_testkit::fault_fs::FaultFs;
use chronolith_wal::{
    LogSource, LoggedBlob, LoggedSample, LoggedStart, Replay, ReplayReport, SeriesDef, ShardLog, Turn, Wal,
    WalOptions,
};
use parking_lot::Mutex;

use crate::support::{Bench, DIR, Kind, names, options};

/// A replay that knows records up to a number, and notes the numbers of the others.
struct Knows {
    covered: u64,
    series: Mutex<usize>,
    sequences: Mutex<Vec<u64>>,
}

impl Replay for Knows {
    fn series(&self, _: usize, _: &SeriesDef<'_>) {
        *self.series.lock() += 1;
    }

    fn floor(&self, _: Option<&str>, _: i64) {}

    fn samples(&self, _: usize, sequence: u64, samples: &[LoggedSample]) {
        assert!(!samples.is_empty());
        self.sequences.lock().push(sequence);
    }

    fn histograms(&self, _: usize, sequence: u64, _: &[LoggedBlob<'_>]) {
        self.sequences.lock().push(sequence);
    }

    fn starts(&self, _: usize, sequence: u64, _: &[LoggedStart]) {
        self.sequences.lock().push(sequence);
    }

    fn exemplars(&self, _: usize, sequence: u64, _: &[LoggedBlob<'_>]) {
        self.sequences.lock().push(sequence);
    }

    fn covered(&self, shard: usize) -> u64 {
        assert!(shard < 4 || shard == usize::from(u16::MAX));
        self.covered
    }
}

fn replay(fs: &FaultFs, covered: u64) -> (Knows, ReplayReport) {
    let fake = FakeEnv::new(Arc::new(fs.clone()), 5);
    let knows = Knows { covered, series: Mutex::default(), sequences: Mutex::default() };
    let mut opened = Wal::open(&fake.env, Path::new(DIR), options(4)).unwrap();
    let report = opened.replay(2, &knows).unwrap();
    (knows, report)
}

/// A shard that remembers the numbers it was told.
#[derive(Default)]
struct Shard(Mutex<ShardLog>);

impl LogSource for Shard {
    fn take(&self, _: usize, turn: Turn, into: &mut ShardLog) {
        self.0.lock().hand_over(turn, into);
    }
}

#[test]
fn numbers_up_to_a_copy_are_in_it() {
    let fs = FaultFs::new();
    let mut last = 0;
    for life in 0..3 {
        let fake = FakeEnv::new(Arc::new(fs.clone()), life);
        let mut opened = Wal::open(&fake.env, Path::new(DIR), options(1)).unwrap();
        let knows = Knows { covered: 0, series: Mutex::default(), sequences: Mutex::default() };
        opened.replay(1, &knows).unwrap();
        let shard = Arc::new(Shard::default());
        let wal = opened.start(Arc::clone(&shard) as Arc<dyn LogSource>).unwrap();
        let found = wal.waiter().found_sequence();
        assert!(knows.sequences.lock().iter().all(|sequence| *sequence <= found));
        shard.0.lock().found(found);
        assert_eq!(shard.0.lock().sequence(), found);
        let mut told = Vec::new();
        for round in 0..5 {
            let (before, batch) = {
                let mut log = shard.0.lock();
                let before = log.sequence();
                assert!(before >= last, "numbers ascend");
                last = before;
                log.define(1, "anonymous", [("__name__", "m")].into_iter());
                log.sample(1, life as i64 * 100 + round, 1.0);
                (before, log.ticket())
            };
            let _ = wal.waiter().poll(batch);
            fake.scheduler.run_for(std::time::Duration::from_millis(5));
            assert!(wal.waiter().poll(batch).unwrap());
            told.push(before);
        }
        fake.scheduler.kill();
        for (round, before) in told.into_iter().enumerate() {
            let (knows, _) = replay(&fs, before);
            let new = knows.sequences.lock().len();
            // The batch taken last may be met again; what was applied later always is.
            assert!((5 - round..=6 - round).contains(&new), "life {life}, round {round}: {new}");
        }
    }
}

#[test]
fn known_records_are_passed_over() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 1, WalOptions { segment_bytes: 600, ..options(4) });
    for t in 0..40 {
        let kind = Kind::ALL[(t / 4 % 4) as usize];
        assert!(bench.commit_kinds((t % 4) as usize, &[(kind, (t % 4) as u32, t, 1.0)]));
    }
    bench.kill();
    let (all, report) = replay(&fs, 0);
    let mut sequences = all.sequences.into_inner();
    sequences.sort_unstable();
    assert_eq!((sequences.len(), report.covered), (40, 0));
    for known in [1, 13, 39, 40] {
        let covered = sequences[known - 1];
        let (some, report) = replay(&fs, covered);
        let mut rest = some.sequences.into_inner();
        rest.sort_unstable();
        assert_eq!(rest, sequences[known..], "{known}");
        assert!(report.covered >= known as u64 && some.series.into_inner() < all.series.lock().to_owned());
    }
}

#[test]
fn covered_segments_go_and_no_others() {
    for restarted in [false, true] {
        let fs = FaultFs::new();
        let options = WalOptions { segment_bytes: 600, ..options(4) };
        let mut bench = Bench::open(&fs, 1, options);
        for t in 0..40 {
            assert!(bench.commit(0, &[(0, t, 1.0)]));
        }
        if restarted {
            bench.kill();
            bench = Bench::open(&fs, 2, options);
            assert!(bench.commit(0, &[(0, 40, 1.0)]));
        }
        let segments = bench.wal.segments();
        assert!(segments.len() > 4 && segments.is_sorted_by_key(|info| info.last_sequence));
        assert_eq!(bench.wal.delete_covered(segments[0].last_sequence - 1).unwrap(), 0);
        assert_eq!(bench.wal.delete_covered(segments[1].last_sequence).unwrap(), 2);
        let left = names(&fs).len();
        assert_eq!(bench.wal.delete_covered(u64::MAX).unwrap(), left - 1, "never the one in use");
        let rows = bench.replayed.sorted().len();
        assert_eq!(rows, if restarted { 40 } else { 0 });
    }
}

#[test]
fn a_covered_segment_with_damage_is_moved_aside() {
    let fs = FaultFs::new();
    let bench = Bench::open(&fs, 1, WalOptions { segment_bytes: 600, ..options(4) });
    for t in 0..20 {
        assert!(bench.commit(0, &[(0, t, 1.0)]));
    }
    bench.kill();
    let path = Path::new(DIR).join("00000001.wal");
    let mut bytes = fs.read(&path).unwrap();
    bytes[120] ^= 1;
    fs.put(&path, bytes.clone());
    let bench = Bench::open(&fs, 2, options(4));
    assert!(bench.commit(0, &[(0, 40, 1.0)]));
    let moved = Path::new(DIR).join("quarantine/00000001.wal");
    assert!(bench.report.damage_count > 0 && !fs.exists(&moved).unwrap());
    assert!(bench.wal.delete_covered(u64::MAX).unwrap() > 1);
    assert_eq!((fs.read(&moved), fs.exists(&path).unwrap()), (Some(bytes), false));
    assert!(!fs.exists(&Path::new(DIR).join("quarantine/00000002.wal")).unwrap(), "that one was whole");
}

#[test]
fn new_numbers_are_above_the_known_ones() {
    let fs = FaultFs::new();
    let covered = (77 << 32) + 5;
    let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
    let mut opened = Wal::open(&fake.env, Path::new(DIR), options(4)).unwrap();
    let knows = Knows { covered, series: Mutex::default(), sequences: Mutex::default() };
    opened.replay(1, &knows).unwrap();
    let shards = crate::support::Shards::new(4);
    let wal = opened.start(Arc::clone(&shards) as Arc<dyn LogSource>).unwrap();
    assert!(wal.waiter().found_sequence() >= covered);
    let batch = shards.append(0, &[(0, 1, 1.0)]);
    let _ = wal.waiter().poll(batch);
    fake.scheduler.run_for(std::time::Duration::from_millis(5));
    fake.scheduler.kill();
    assert_eq!(fs.list(Path::new(DIR)).unwrap(), ["00000078.wal"]);
    let (knows, _) = replay(&fs, covered);
    assert_eq!(knows.sequences.lock().len(), 1);
    let fake = FakeEnv::new(Arc::new(fs.clone()), 2);
    let mut opened = Wal::open(&fake.env, Path::new(DIR), options(4)).unwrap();
    let none_left = Knows { covered: u64::MAX, series: Mutex::default(), sequences: Mutex::default() };
    assert!(opened.replay(1, &none_left).is_err(), "no number is above that");
}
