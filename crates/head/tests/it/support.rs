//! A head with its snapshots and its log on a fake disk, stepped by hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronolith_env::Fs;
use chronolith_head::{
    Head, HeadOptions, HeadReplay, HeadView, Loaded, Loss, ReplayOutcome, SHARDS, SnapshotError,
    SnapshotReport, Snapshots,
};
use chronolith_index::CompiledMatcher;
use chronolith_model::{Exemplar, Labels, Matcher, Sample, TenantId, TimeRange};
use chronolith_storage::{
    ExemplarBatch, ExemplarEntry, ExemplarOutcome, ExemplarQuery, LabelSource, RejectReason, Samples,
    SeriesEntry, SeriesExemplars, StartTimestamp, WriteBatch,
};
use chronolith_testkit::fake_env::FakeEnv;
use chronolith_testkit::fault_fs::FaultFs;
use chronolith_wal::{Batch, LogSource, ReplayReport, Wal, WalOptions};

pub(crate) const HEAD_DIR: &str = "/data/head";
pub(crate) const WAL_DIR: &str = "/data/wal";
/// The fake clock's time, on a whole window.
pub(crate) const NOW: i64 = 1_700_000_000_000;

/// (tenant, series, timestamp) to the bits of the value.
pub(crate) type Rows = BTreeMap<(usize, u32, i64), u64>;

/// The number of a series, and its newest sample.
pub(crate) type Reference = (u32, Option<(i64, u64)>);

pub(crate) struct Store {
    pub(crate) fs: FaultFs,
    pub(crate) fake: FakeEnv,
    pub(crate) head: Arc<Head>,
    pub(crate) snapshots: Snapshots,
    pub(crate) wal: Wal,
    pub(crate) loaded: Loaded,
    pub(crate) log: ReplayReport,
    pub(crate) outcome: ReplayOutcome,
    /// Of the start.
    pub(crate) losses: Vec<Loss>,
}

struct Numbered<'a>(usize, &'a [(u32, i64, u64)]);

impl LabelSource for Numbered<'_> {
    fn labels(&self, entry: usize) -> Result<Labels, RejectReason> {
        Ok(labels(self.1[entry].0))
    }
}

pub(crate) fn labels(series: u32) -> Labels {
    let id = format!("host-{series:05}");
    Labels::from_pairs([("__name__", "m"), ("id", id.as_str()), ("zone", ["a", "b"][series as usize % 2])])
}

pub(crate) fn number(labels: &Labels) -> u32 {
    labels.get("id").unwrap().trim_start_matches("host-").parse().unwrap()
}

pub(crate) fn tenant(number: usize) -> TenantId {
    TenantId::new(["anonymous", "other"][number]).unwrap()
}

impl Store {
    pub(crate) fn try_open(fs: &FaultFs, seed: u64, segment_bytes: u64) -> Result<Self, SnapshotError> {
        Self::try_open_behind(fs, seed, segment_bytes, None)
    }

    /// The same with other limits.
    pub(crate) fn try_open_with(
        fs: &FaultFs,
        seed: u64,
        options: HeadOptions,
    ) -> Result<Self, SnapshotError> {
        Self::open_all(fs, seed, (4000, options), None)
    }

    /// The same behind a cut that was finished: its boundary, and what it had of the shards' logs.
    pub(crate) fn try_open_behind(
        fs: &FaultFs,
        seed: u64,
        segment_bytes: u64,
        cut: Option<(i64, &[u64])>,
    ) -> Result<Self, SnapshotError> {
        Self::open_all(fs, seed, (segment_bytes, HeadOptions::default()), cut)
    }

    fn open_all(
        fs: &FaultFs,
        seed: u64,
        (segment_bytes, options): (u64, HeadOptions),
        cut: Option<(i64, &[u64])>,
    ) -> Result<Self, SnapshotError> {
        let fake = FakeEnv::new(Arc::new(fs.clone()), seed);
        let head = Arc::new(Head::new(options, fake.env.clone()));
        let snapshots = Snapshots::open(&fake.env, Path::new(HEAD_DIR))?;
        let loaded = snapshots.load(&head)?;
        let options = WalOptions { shards: SHARDS, segment_bytes, ..WalOptions::default() };
        let mut opened = Wal::open(&fake.env, Path::new(WAL_DIR), options).unwrap();
        if let Some((boundary, sequences)) = cut {
            let before = loaded.sequences.iter().zip(sequences).all(|(of, covered)| of <= covered);
            if boundary > loaded.cut || before {
                let cut = head.begin_cut(boundary);
                head.finish_cut(cut);
            }
            head.restore_cut(boundary);
        }
        let mut replay = HeadReplay::new(&head).behind(&loaded);
        if let Some((boundary, sequences)) = cut {
            let range = TimeRange::new(i64::MIN, boundary);
            (0..2).for_each(|of| replay.cover(&tenant(of), sequences, range).unwrap());
        }
        let log = opened.replay(2, &replay).unwrap();
        let losses = replay.losses(i64::MIN);
        let outcome = replay.finish();
        let wal = opened.start(Arc::clone(&head) as Arc<dyn LogSource>).unwrap();
        head.attach_log(wal.waiter());
        Ok(Self { fs: fs.clone(), fake, head, snapshots, wal, loaded, log, outcome, losses })
    }

    pub(crate) fn open(fs: &FaultFs, seed: u64) -> Self {
        Self::try_open(fs, seed, 4000).unwrap()
    }

    /// Applies samples; the batch to wait for, or `None` if nothing is taken.
    pub(crate) fn append(&self, of: usize, rows: &[(u32, i64, u64)]) -> Option<Batch> {
        self.append_since(of, rows, |_| 0)
    }

    /// The same with the start timestamps of series.
    pub(crate) fn append_since(
        &self,
        of: usize,
        rows: &[(u32, i64, u64)],
        start: impl Fn(u32) -> i64,
    ) -> Option<Batch> {
        let hasher = self.head.key_hasher();
        let entries: Vec<SeriesEntry> = (0_u32..)
            .zip(rows)
            .map(|(at, (series, ..))| SeriesEntry {
                start_timestamp: start(*series),
                ..SeriesEntry::of_samples(hasher.key(&series.to_le_bytes()), at..at + 1)
            })
            .collect();
        let samples: Vec<Sample> =
            rows.iter().map(|(_, t, bits)| Sample::new(*t, f64::from_bits(*bits))).collect();
        let labels = Numbered(of, rows);
        assert!(labels.0 < 2);
        let batch = WriteBatch::of_samples(&entries, &samples, &labels);
        self.head.append(&tenant(of), &batch).ok().map(|applied| applied.batch)
    }

    /// Applies and commits; whether it is durable then.
    pub(crate) fn commit(&self, of: usize, rows: &[(u32, i64, u64)]) -> bool {
        self.append(of, rows).is_some_and(|batch| self.settle(batch))
    }

    pub(crate) fn settle(&self, batch: Batch) -> bool {
        let waiter = self.wal.waiter();
        let _ = waiter.poll(batch);
        self.fake.scheduler.run_for(Duration::from_millis(5));
        waiter.poll(batch).unwrap_or(false)
    }

    /// Gives an exemplar of a series that has samples; not committed.
    pub(crate) fn give(&self, of: usize, series: u32, t: i64, trace: &str) -> ExemplarOutcome {
        let key = self.head.key_hasher().key(&series.to_le_bytes());
        let exemplars =
            [Exemplar { labels: Labels::from_pairs([("trace_id", trace)]), value: 0.5, timestamp: t }];
        let entries = [ExemplarEntry { key, exemplars: 0..1 }];
        let labels = Numbered(of, &[(series, t, 0)]);
        let batch = ExemplarBatch { series: &entries, exemplars: &exemplars, labels: &labels };
        self.head.append_exemplars(&tenant(of), &batch)
    }

    /// All exemplars: (tenant, series, timestamp, trace).
    pub(crate) fn exemplars(&self) -> Vec<(usize, u32, i64, String)> {
        let mut all = Vec::new();
        for of in 0..2 {
            let view = HeadView::open(Arc::clone(&self.head), &tenant(of), TimeRange::ALL);
            let matchers = CompiledMatcher::compile_all(&[Matcher::equal("__name__", "m")]).unwrap();
            let query = ExemplarQuery { matcher_sets: vec![matchers], range: TimeRange::ALL, payer: None };
            for SeriesExemplars { labels, exemplars } in view.exemplars(&query) {
                all.extend(exemplars.into_iter().map(|exemplar| {
                    let trace = exemplar.labels.get("trace_id").unwrap().to_owned();
                    (of, number(&labels), exemplar.timestamp, trace)
                }));
            }
        }
        all
    }

    /// The steps of start timestamps that the head shows.
    pub(crate) fn starts(&self) -> BTreeMap<(usize, u32), Vec<StartTimestamp>> {
        let mut starts = BTreeMap::new();
        for of in 0..2 {
            let view = HeadView::open(Arc::clone(&self.head), &tenant(of), TimeRange::ALL);
            let selection = view.select(&[]);
            let fetched = view.fetch(&selection.series, TimeRange::ALL);
            for (at, labels) in selection.labels.iter().enumerate() {
                let mut samples = Samples::default();
                fetched.read(at, &mut samples).unwrap();
                if !samples.starts.is_empty() {
                    starts.insert((of, number(labels)), samples.starts);
                }
            }
        }
        starts
    }

    /// Takes a snapshot and deletes what of the log is not needed any more.
    pub(crate) fn snapshot(&self) -> Result<SnapshotReport, SnapshotError> {
        let report = self.snapshots.write(&self.head, Vec::new())?;
        if let Some(covered) = report.covered {
            let _ = self.wal.delete_covered(covered);
        }
        Ok(report)
    }

    /// Everything the head shows.
    pub(crate) fn rows(&self) -> Rows {
        let mut rows = Rows::new();
        for of in 0..2 {
            let view = HeadView::open(Arc::clone(&self.head), &tenant(of), TimeRange::ALL);
            let selection = view.select(&[]);
            let fetched = view.fetch(&selection.series, TimeRange::ALL);
            for (at, labels) in selection.labels.iter().enumerate() {
                let mut samples = Samples::default();
                fetched.read(at, &mut samples).unwrap();
                assert!(samples.timestamps.is_sorted_by(|a, b| a < b), "no timestamp twice");
                for (t, value) in samples.timestamps.iter().zip(&samples.values) {
                    rows.insert((of, number(labels), *t), value.to_bits());
                }
            }
        }
        rows
    }

    /// The numbers of all series, and their newest samples.
    pub(crate) fn references(&self) -> BTreeMap<(usize, u32), Reference> {
        let mut references = BTreeMap::new();
        for of in 0..2 {
            let view = HeadView::open(Arc::clone(&self.head), &tenant(of), TimeRange::ALL);
            let selection = view.select(&[]);
            let last = view.last_samples(&selection.series);
            for ((reference, labels), last) in selection.series.iter().zip(&selection.labels).zip(last) {
                let last = last.map(|sample| (sample.timestamp, sample.value.to_bits()));
                references.insert((of, number(labels)), (*reference, last));
            }
        }
        references
    }

    /// Ends without a last commit, as a killed process does.
    pub(crate) fn kill(self) -> FaultFs {
        self.fake.scheduler.kill();
        self.fs
    }
}

/// The names of files in a directory that end so.
pub(crate) fn names(fs: &FaultFs, dir: &str, suffix: &str) -> Vec<String> {
    let names = fs.list(Path::new(dir)).unwrap_or_default();
    names.into_iter().filter(|name| name.ends_with(suffix)).collect()
}

/// `count` samples, one every 15 s up to now, of `series` series, in order.
pub(crate) fn steps(series: u32, steps: i64) -> impl Iterator<Item = Vec<(u32, i64, u64)>> {
    (0..steps).map(move |step| {
        let t = NOW - (steps - step) * 15_000;
        (0..series).map(|series| (series, t, value(series, step).to_bits())).collect()
    })
}

fn value(series: u32, step: i64) -> f64 {
    match series % 5 {
        0 => 1.0,
        1 => step as f64,
        2 => f64::from_bits(0x7ff8_0000_0000_0000 | u64::from(series) << 8 | step as u64),
        3 => (step as f64 * 0.37).sin(),
        _ => -0.0,
    }
}
