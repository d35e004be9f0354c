//! How long a restart takes, and how much the disk holds. Not run by default: `cargo test --release -p chronolith-head
//! --test it measure -- --ignored --nocapture`; `SERIES` and `STEPS` in the environment change the size.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chronolith_env::Env;
use chronolith_head::{Head, HeadOptions, HeadReplay, SHARDS, SnapshotReport, Snapshots};
use chronolith_model::{Labels, Sample, TenantId};
use chronolith_storage::{LabelSource, RejectReason, SeriesEntry, WriteBatch};
use chronolith_wal::{LogSource, Wal, WalOptions};

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
}
