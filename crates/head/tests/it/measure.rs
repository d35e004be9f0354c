//! How long a restart takes, and how much the disk holds. Not run by default: `cargo test --release -p chronolith-head
//! --test it measure -- --ignored --nocapture`; `SERIES` and `STEPS` in the environment change the size.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chronolith_env::Env;
use chronolith_head::{Head, HeadOptions, HeadReplay, SHARDS, SnapshotReport, Snapshots};
use chronolith_model::{Labels, Sample, TenantId};
use chronolith_storage::{LabelSource, RejectReason, SeriesEntry, WriteBatch};
use chronolith_wal::{Batch, LogSource, Wal, WalOptions};

/// Series of one request.
const REQUEST: usize = 2000;

struct Kubernetes(usize);

impl LabelSource for Kubernetes {
    fn labels(&self, entry: usize) -> Result<Labels, RejectReason> {
        let series = self.0 + entry;
        let (metric, pod) = (series % 400, series / 400);
        let text = |name: &str, number: usize| format!("{name}-{number}");
        Ok(Labels::from_pairs([
            ("__name__", text("container_metric_total", metric).as_str()),
            ("cluster", "main"),
            ("container", text("app", pod % 7).as_str()),
            ("instance", format!("10.0.{}.{}:9100", pod % 50, pod % 250).as_str()),
            ("job", "kubelet"),
            ("namespace", text("team", pod % 20).as_str()),
            ("node", text("node", pod % 50).as_str()),
            ("pod", format!("deployment-{}-7d9f8c-{pod:05}", pod % 30).as_str()),
        ]))
    }
}

struct Place {
    env: Env,
    dir: tempfile::TempDir,
}

struct Opened {
    head: Arc<Head>,
    wal: Wal,
    snapshots: Snapshots,
    bytes_of_snapshot: u64,
}

impl Place {
    fn open(&self, what: &str) -> Opened {
        let (begin, cpu) = (Instant::now(), cpu_ms());
        let options = HeadOptions { memory_bytes_max: 8 << 30, ..HeadOptions::default() };
        let head = Arc::new(Head::new(options, self.env.clone()));
        let snapshots = Snapshots::open(&self.env, &self.dir.path().join("head")).unwrap();
        let loaded = snapshots.load(&head).unwrap();
        let (at_load, cpu_load) = (begin.elapsed(), cpu_ms() - cpu);
        let options = WalOptions { shards: SHARDS, ..WalOptions::default() };
        let mut opened = Wal::open(&self.env, &self.dir.path().join("wal"), options).unwrap();
        let at_open = begin.elapsed();
        let replay = HeadReplay::new(&head).behind(&loaded);
        let log = opened.replay(self.env.scheduler.parallelism(), &replay).unwrap();
        let outcome = replay.finish();
        let wal = opened.start(Arc::clone(&head) as Arc<dyn LogSource>).unwrap();
        head.attach_log(wal.waiter());
        println!(
            "{what}: ready in {:?}, CPU {} ms, of it snapshot {cpu_load} ms (snapshot {at_load:?} with {} series and {} samples, log opened {:?}, replayed {:?} \
             with {} samples; passed over {} records, stored {}, skipped {})",
            begin.elapsed(),
            cpu_ms() - cpu,
            loaded.series,
            loaded.samples,
            at_open - at_load,
            begin.elapsed() - at_open,
            log.samples,
            log.covered,
            outcome.stored,
            outcome.skipped,
        );
        Opened { head, wal, snapshots, bytes_of_snapshot: loaded.bytes }
    }

    fn bytes(&self, dir: &str) -> u64 {
        let files = std::fs::read_dir(self.dir.path().join(dir)).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }
}

fn fill(
    opened: &Opened,
    series: usize,
    steps: std::ops::Range<i64>,
    snapshots: bool,
) -> Option<SnapshotReport> {
    let tenant = TenantId::new("anonymous").unwrap();
    let hasher = opened.head.key_hasher();
    let start = Env::real().clock.now_ms() / 15_000 * 15_000 - 20_000_000;
    let (mut behind, mut last) = (opened.wal.stats().snapshot().bytes, None::<SnapshotReport>);
    for step in steps {
        for first in (0..series).step_by(REQUEST) {
            let count = REQUEST.min(series - first);
            let entries: Vec<SeriesEntry> = (0..count)
                .map(|at| {
                    let key = hasher.key(&((first + at) as u64).to_le_bytes());
                    SeriesEntry::of_samples(key, at as u32..at as u32 + 1)
                })
                .collect();
            let value = |series: usize| match series % 10 {
                0..4 => 1.0,
                4..8 => (step as f64) * (1 + series % 13) as f64,
                _ => ((step as f64 + series as f64) * 0.37).sin() * 100.0,
            };
            let samples: Vec<Sample> =
                (0..count).map(|at| Sample::new(start + step * 15_000, value(first + at))).collect();
            let labels = Kubernetes(first);
            let batch = WriteBatch::of_samples(&entries, &samples, &labels);
            let applied = opened.head.append(&tenant, &batch).unwrap();
            assert_eq!(applied.outcome.rejected, 0);
            opened.wal.wait(applied.batch).unwrap();
        }
        let bytes = last.as_ref().map_or(opened.bytes_of_snapshot, |report| report.bytes);
        let written = opened.wal.stats().snapshot().bytes;
        if snapshots && Snapshots::due(written - behind, bytes) {
            last = Some(snapshot(opened));
            behind = written;
        }
    }
    last
}

fn snapshot(opened: &Opened) -> SnapshotReport {
    let (begin, cpu) = (Instant::now(), cpu_ms());
    let report = opened.snapshots.write(&opened.head, Vec::new()).unwrap();
    let deleted = opened.wal.delete_covered(report.covered.unwrap()).unwrap();
    println!(
        "snapshot of {} series and {} samples: {} bytes ({:.2} per sample) in {:?}, CPU {} ms, longest hold {:?}, {deleted} segments \
         deleted",
        report.series,
        report.samples,
        report.bytes,
        report.bytes as f64 / report.samples as f64,
        begin.elapsed(),
        cpu_ms() - cpu,
        report.longest_hold,
    );
    report
}

/// CPU time of the process, in milliseconds; 0 where that is not known.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
#[ignore = "takes minutes; prints what it measures"]
fn measure() {
    let (series, steps) = (number("SERIES", 100_000), number("STEPS", 230) as i64);
    let samples = series as f64 * steps as f64;
    for snapshots in [false, true] {
        let place = Place { env: Env::real(), dir: tempfile::tempdir().unwrap() };
        let opened = place.open("empty");
        let begin = Instant::now();
        fill(&opened, series, 0..steps, snapshots);
        println!("filled in {:?}", begin.elapsed());
        drop(opened);
        let (log, head) = (place.bytes("wal"), place.bytes("head"));
        println!("log {log} and snapshot {head} bytes: {:.2} per sample", (log + head) as f64 / samples);
        for _ in 0..3 {
            drop(place.open(if snapshots { "snapshot and log" } else { "log alone" }));
        }
        if snapshots {
            let opened = place.open("once more");
            snapshot(&opened);
            drop(opened);
            drop(place.open("snapshot alone"));
            // Each chunk in a file is verified at the start.
            let opened = place.open("once more");
            while !opened.head.spill_step(opened.snapshots.chunk_files(), i64::MAX).unwrap().round_done {}
            snapshot(&opened);
            drop(opened);
            for _ in 0..3 {
                drop(place.open("chunks in files"));
            }
            let left = place.bytes("wal") + place.bytes("head");
            println!("log and snapshot {:.2} bytes per sample", left as f64 / samples);
        }
        assert!(Path::new(place.dir.path()).exists());
    }
}

/// Appends alone, for counting instructions: `perf stat -e instructions:u` of this test.
#[test]
#[ignore = "prints nothing; run under a counter"]
fn appends() {
    let (series, steps) = (number("SERIES", 20_000), number("STEPS", 240) as i64);
    let place = Place { env: Env::real(), dir: tempfile::tempdir().unwrap() };
    let opened = place.open("empty");
    fill(&opened, series, 0..steps, false);
    let stats = opened.head.stats();
    println!("{} samples, {} bytes per series", stats.samples, opened.head.bytes() / series);
    let of = |bytes: u64| bytes as f64 / series as f64;
    println!(
        "per series: states {:.0}, index {:.0}, tables {:.0}, chunks {:.0}",
        of(stats.state_bytes),
        of(stats.index_bytes),
        of(stats.table_bytes),
        of(stats.chunk_bytes)
    );
}

/// How long shards are locked while late samples come and snapshots are written: in-order appends of few series beside
/// both, whose longest is an upper bound of the longest hold of any shard but for the machine's own pauses.
#[test]
#[ignore = "takes a minute; prints what it measures"]
fn late_load() {
    let (series, rounds) = (number("SERIES", 100_000), number("STEPS", 40) as i64);
    let place = Place { env: Env::real(), dir: tempfile::tempdir().unwrap() };
    let opened = place.open("empty");
    fill(&opened, series, 0..130, false);
    while !opened.head.spill_step(opened.snapshots.chunk_files(), i64::MAX).unwrap().round_done {}
    let tenant = TenantId::new("anonymous").unwrap();
    let now = opened.head.stats().times.unwrap().1;
    // Late ones between those that are known, and every fourth of one that is in a file.
    let late = |round: i64, first: usize| {
        let t = |at: usize| now - 600_000 - round * 15_000 + i64::from(!at.is_multiple_of(4));
        opened.wal.wait(append(&opened, &tenant, first..first + 500, t)).unwrap();
    };
    let (done, took) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                (0..series).step_by(500).for_each(|first| late(round, first));
            }
            done.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                println!(
                    "longest hold of a snapshot: {:?}",
                    opened.snapshots.write(&opened.head, Vec::new()).unwrap().longest_hold
                );
            }
        });
        let mut t = now;
        while !done.load(Ordering::Relaxed) {
            t += 1;
            let begin = Instant::now();
            append(&opened, &tenant, 0..16, |_| t);
            took.lock().unwrap().push(begin.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut took = took.into_inner().unwrap();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let stats = opened.head.stats();
    println!(
        "{} late samples, {} of appends of 16 series: p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
        stats.samples_late,
        took.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

/// One sample of each of `series`, at `t` of its place.
fn append(
    opened: &Opened,
    tenant: &TenantId,
    series: std::ops::Range<usize>,
    t: impl Fn(usize) -> i64,
) -> Batch {
    let hasher = opened.head.key_hasher();
    let entries: Vec<SeriesEntry> = (0_u32..)
        .zip(series.clone())
        .map(|(at, series)| SeriesEntry::of_samples(hasher.key(&(series as u64).to_le_bytes()), at..at + 1))
        .collect();
    let samples: Vec<Sample> = (0..entries.len()).map(|at| Sample::new(t(at), 0.25)).collect();
    let labels = Kubernetes(series.start);
    let batch = WriteBatch::of_samples(&entries, &samples, &labels);
    opened.head.append(tenant, &batch).unwrap().batch
}

/// Bytes of the log of series whose start changes with every sample.
#[test]
#[ignore = "prints what it measures"]
fn starts_in_the_log() {
    let (series, steps) = (number("SERIES", 2000), number("STEPS", 600) as i64);
    let place = Place { env: Env::real(), dir: tempfile::tempdir().unwrap() };
    let tenant = TenantId::new("anonymous").unwrap();
    for changes in [false, true] {
        let options = WalOptions { shards: SHARDS, segment_bytes: 2 << 20, ..WalOptions::default() };
        let head = Arc::new(Head::new(HeadOptions::default(), place.env.clone()));
        let dir = place.dir.path().join(format!("wal-{changes}"));
        let wal = Wal::open(&place.env, &dir, options).unwrap();
        let wal = wal.start(Arc::clone(&head) as Arc<dyn LogSource>).unwrap();
        head.attach_log(wal.waiter());
        let (hasher, now) = (head.key_hasher(), Env::real().clock.now_ms());
        for step in 0..steps {
            let t = now - (steps - step) * 15_000;
            let entry = |at: u32| SeriesEntry {
                start_timestamp: if changes { t - 15_000 } else { 0 },
                ..SeriesEntry::of_samples(hasher.key(&at.to_le_bytes()), at..at + 1)
            };
            let entries: Vec<SeriesEntry> = (0..series as u32).map(entry).collect();
            let samples = vec![Sample::new(t, step as f64); series];
            let labels = Kubernetes(0);
            let applied = head.append(&tenant, &WriteBatch::of_samples(&entries, &samples, &labels)).unwrap();
            wal.wait(applied.batch).unwrap();
        }
        let bytes = wal.stats().snapshot().bytes;
        println!(
            "starts {}: {bytes} bytes in {} segments, {:.2} per sample",
            if changes { "that change" } else { "unknown" },
            wal.segments().len(),
            bytes as f64 / (series as f64 * steps as f64)
        );
    }
}
