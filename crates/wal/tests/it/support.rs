//! A small owner of shards, and a replay that keeps everything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chronolith_env::{Env, Fs};
use chronolith_testkit::fake_env::FakeEnv;
use chronolith_testkit::fault_fs::FaultFs;
use chronolith_wal::{
    Batch, CommitWaiter, LogSource, LoggedBlob, LoggedMetadata, LoggedSample, LoggedStart, OpenReport,
    Replay, ReplayReport, SeriesDef, ShardLog, Turn, Wal, WalOptions,
};
use parking_lot::Mutex;

pub(crate) const DIR: &str = "/data/wal";

/// What a row is logged as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sample,
    Histogram,
    Start,
    Exemplar,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Sample, Self::Histogram, Self::Start, Self::Exemplar];
}

/// Shards as a head has them: the pending log, and the epoch under which each series was last defined.
#[derive(Default)]
pub(crate) struct Shards {
    shards: Vec<Mutex<Shard>>,
}

#[derive(Default)]
struct Shard {
    log: ShardLog,
    defined: BTreeMap<u32, u32>,
}

impl Shards {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        let mut shards = Vec::new();
        shards.resize_with(count, Mutex::default);
        Arc::new(Self { shards })
    }

    /// Applies samples to one shard, with definitions as needed.
    pub(crate) fn append(&self, shard: usize, samples: &[(u32, i64, f64)]) -> Batch {
        let rows: Vec<_> = samples.iter().map(|&(s, t, v)| (Kind::Sample, s, t, v)).collect();
        self.append_kinds(shard, &rows)
    }

    /// The same for rows of any kind.
    pub(crate) fn append_kinds(&self, shard: usize, rows: &[(Kind, u32, i64, f64)]) -> Batch {
        let mut shard = self.shards[shard].lock();
        let Shard { log, defined } = &mut *shard;
        for &(kind, series, t, value) in rows {
            if defined.insert(series, log.epoch()) != Some(log.epoch()) {
                let id = series.to_string();
                log.define(series, "anonymous", [("__name__", "m"), ("id", id.as_str())].into_iter());
            }
            match kind {
                Kind::Sample => log.sample(series, t, value),
                Kind::Histogram => log.histogram(series, t, &blob(kind, value)),
                Kind::Start => log.start(series, t, value.to_bits() as i64),
                Kind::Exemplar => log.exemplar(series, t, &blob(kind, value)),
            }
        }
        log.ticket()
    }

    pub(crate) fn ticket(&self, shard: usize) -> Batch {
        self.shards[shard].lock().log.ticket()
    }

    pub(crate) fn epoch(&self, shard: usize) -> u32 {
        self.shards[shard].lock().log.epoch()
    }
}

impl LogSource for Shards {
    fn take(&self, shard: usize, turn: Turn, into: &mut ShardLog) {
        self.shards[shard].lock().log.hand_over(turn, into);
    }
}

/// (series, timestamp, bits of the value)
pub(crate) type Row = (u32, i64, u64);

/// A value as bytes, with what they are logged as.
fn blob(kind: Kind, value: f64) -> Vec<u8> {
    let mut bytes = value.to_bits().to_le_bytes().to_vec();
    bytes.push(kind as u8);
    bytes
}

/// Everything a replay hands over. Rows of all kinds are beside each other.
#[derive(Default)]
pub(crate) struct Replayed {
    pub(crate) series: Mutex<BTreeMap<u32, Vec<String>>>,
    pub(crate) floors: Mutex<Vec<(Option<String>, i64)>>,
    /// Tenant, metric, type, unit and help text of each.
    pub(crate) metadata: Mutex<Vec<String>>,
    pub(crate) rows: Mutex<BTreeMap<usize, Vec<Row>>>,
}

impl Replay for Replayed {
    fn series(&self, _: usize, definition: &SeriesDef<'_>) {
        let mut text = vec![definition.tenant.to_owned()];
        assert_eq!(definition.labels.len(), definition.labels.clone().count());
        text.extend(definition.labels.clone().map(|(name, value)| format!("{name}={value}")));
        self.series.lock().insert(definition.series, text);
    }

    fn floor(&self, tenant: Option<&str>, min_t: i64) {
        self.floors.lock().push((tenant.map(str::to_owned), min_t));
    }

    fn metadata(&self, entry: &LoggedMetadata<'_>) {
        let LoggedMetadata { tenant, metric, kind, unit, help } = entry;
        self.metadata.lock().push(format!("{tenant}/{metric}/{kind}/{unit}/{help}"));
    }

    fn samples(&self, shard: usize, _: u64, samples: &[LoggedSample]) {
        let rows = samples.iter().map(|s| (s.series, s.timestamp, s.value.to_bits()));
        self.rows.lock().entry(shard).or_default().extend(rows);
    }

    fn histograms(&self, shard: usize, _: u64, histograms: &[LoggedBlob<'_>]) {
        self.blobs(shard, Kind::Histogram, histograms);
    }

    fn starts(&self, shard: usize, _: u64, starts: &[LoggedStart]) {
        let rows = starts.iter().map(|s| (s.series, s.since, s.start as u64));
        self.rows.lock().entry(shard).or_default().extend(rows);
    }

    fn exemplars(&self, shard: usize, _: u64, exemplars: &[LoggedBlob<'_>]) {
        self.blobs(shard, Kind::Exemplar, exemplars);
    }
}

impl Replayed {
    fn blobs(&self, shard: usize, kind: Kind, blobs: &[LoggedBlob<'_>]) {
        let rows = blobs.iter().map(|entry| {
            let (bits, rest) = entry.bytes.split_first_chunk().unwrap();
            assert_eq!(rest[0], kind as u8, "a record of one type came as another");
            (entry.series, entry.timestamp, u64::from_le_bytes(*bits))
        });
        self.rows.lock().entry(shard).or_default().extend(rows);
    }

    /// All samples, sorted.
    pub(crate) fn sorted(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.rows.lock().values().flatten().copied().collect();
        rows.sort_unstable();
        rows
    }
}

/// A log on a fake disk, stepped by hand.
pub(crate) struct Bench {
    pub(crate) fs: FaultFs,
    pub(crate) fake: FakeEnv,
    pub(crate) shards: Arc<Shards>,
    pub(crate) wal: Wal,
    pub(crate) waiter: CommitWaiter,
    pub(crate) opened: OpenReport,
    pub(crate) replayed: Replayed,
    pub(crate) report: ReplayReport,
}

pub(crate) fn options(shards: usize) -> WalOptions {
    WalOptions { shards, ..WalOptions::default() }
}

impl Bench {
    pub(crate) fn open(fs: &FaultFs, seed: u64, options: WalOptions) -> Self {
        let fake = FakeEnv::new(Arc::new(fs.clone()), seed);
        let mut opened = Wal::open(&fake.env, Path::new(DIR), options).unwrap();
        let replayed = Replayed::default();
        let report = opened.replay(3, &replayed).unwrap();
        let shards = Shards::new(options.shards);
        let open_report = opened.report().clone();
        let wal = opened.start(Arc::<Shards>::clone(&shards)).unwrap();
        let waiter = wal.waiter();
        Self { fs: fs.clone(), fake, shards, wal, waiter, opened: open_report, replayed, report }
    }

    /// Appends and commits; whether the batch became durable.
    pub(crate) fn commit(&self, shard: usize, samples: &[(u32, i64, f64)]) -> bool {
        let batch = self.shards.append(shard, samples);
        self.settle(batch)
    }

    /// The same for rows of any kind.
    pub(crate) fn commit_kinds(&self, shard: usize, rows: &[(Kind, u32, i64, f64)]) -> bool {
        let batch = self.shards.append_kinds(shard, rows);
        self.settle(batch)
    }

    /// Runs the committer; whether `batch` is durable then.
    pub(crate) fn settle(&self, batch: Batch) -> bool {
        let _ = self.waiter.poll(batch);
        self.fake.scheduler.run_for(std::time::Duration::from_millis(5));
        self.waiter.poll(batch).unwrap()
    }

    /// Ends without a last commit, as a killed process does.
    pub(crate) fn kill(self) -> FaultFs {
        self.fake.scheduler.kill();
        self.fs
    }
}

/// Opens the log, replays it and forgets it again.
pub(crate) fn replay(fs: &FaultFs) -> (OpenReport, ReplayReport, Replayed) {
    let bench = Bench::open(fs, 99, options(4));
    bench.fake.scheduler.kill();
    (bench.opened, bench.report, bench.replayed)
}

/// Opens and replays a log on any file system.
pub(crate) fn replay_with(env: &Env, dir: &Path, threads: usize) -> (OpenReport, ReplayReport, Replayed) {
    let mut opened = Wal::open(env, dir, options(4)).unwrap();
    let replayed = Replayed::default();
    let report = opened.replay(threads, &replayed).unwrap();
    (opened.report().clone(), report, replayed)
}

pub(crate) fn segment(number: u32) -> std::path::PathBuf {
    Path::new(DIR).join(format!("{number:08}.wal"))
}

pub(crate) fn names(fs: &FaultFs) -> Vec<String> {
    fs.list(Path::new(DIR)).unwrap().into_iter().filter(|name| name.ends_with(".wal")).collect()
}
