//! A database over fakes, and short ways to write to it and read it.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use chronolith_env::{Clock, Env, Fs, ThreadScheduler};
use chronolith_index::CompiledMatcher;
use chronolith_model::{Labels, Matcher, Sample, TenantId, TimeRange};
use chronolith_storage::{
    AppendedBatch, Appender, LabelSource, Querier, Queryable, RejectReason, Samples, SelectHints,
    SelectRequest, SeriesEntry, StorageError, WriteBatch, conformance::block_on,
};
use chronolith_testkit::{
    fake_env::{SimRng, WallClock},
    fault_fs::{CrashMode, FaultFs},
};
use chronolith_tsdb::{Db, DbOptions, OpenReport};

/// Where the data directory is on a disk in memory.
pub(crate) const DIR: &str = "/data";
/// Now, at the start.
pub(crate) const NOW: i64 = 1_700_000_000_000;

/// Fakes with real threads.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) fs: FaultFs,
    pub(crate) clock: Arc<WallClock>,
    pub(crate) env: Env,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::at(NOW)
    }

    pub(crate) fn at(now_ms: i64) -> Self {
        let fs = FaultFs::new();
        fs.create_dir_all(Path::new("/")).expect("a disk has a root");
        let clock = Arc::new(WallClock::new(now_ms));
        let env = Env {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            rng: Arc::new(SimRng::new(1)),
            fs: Arc::new(fs.clone()),
            scheduler: Arc::new(ThreadScheduler),
        };
        Self { fs, clock, env }
    }

    /// Cuts the power. What dies with the process writes nothing any more.
    pub(crate) fn crash(&self, db: Db, mode: CrashMode, seed: u64) {
        self.fs.halt_after(0);
        self.fs.crash(mode, &SimRng::new(seed));
        drop(db);
        self.fs.heal();
    }

    pub(crate) fn open(&self, options: DbOptions) -> (Db, OpenReport) {
        Db::open(Path::new(DIR), options, self.env.clone()).expect("opens")
    }
}

/// Options for tests: no pauses.
pub(crate) fn quick() -> DbOptions {
    DbOptions { maintenance_interval: Duration::from_millis(20), ..DbOptions::default() }
}

pub(crate) fn metric(name: &str, id: usize) -> Labels {
    Labels::from_pairs([("__name__", name.to_owned()), ("id", id.to_string()), ("job", "test".to_owned())])
}

struct Given<'a>(&'a [(Labels, Vec<Sample>)]);

impl LabelSource for Given<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        Ok(self.0[series].0.clone())
    }
}

/// Appends without waiting.
pub(crate) fn append(
    db: &Db,
    tenant: &TenantId,
    given: &[(Labels, Vec<Sample>)],
) -> Result<AppendedBatch, StorageError> {
    let hasher = db.key_hasher();
    let mut samples = Vec::new();
    let mut series = Vec::new();
    for (labels, of_series) in given {
        let start = u32::try_from(samples.len()).expect("small");
        samples.extend_from_slice(of_series);
        let end = u32::try_from(samples.len()).expect("small");
        series.push(SeriesEntry::of_samples(hasher.key(labels.to_string().as_bytes()), start..end));
    }
    db.append(tenant, &WriteBatch::of_samples(&series, &samples, &Given(given)))
}

/// One sample of each series `name{id=0..count}` at `t`.
pub(crate) fn scrape(name: &str, count: usize, t: i64, value: f64) -> Vec<(Labels, Vec<Sample>)> {
    (0..count).map(|id| (metric(name, id), vec![Sample::new(t, value + id as f64)])).collect()
}

/// Everything a tenant sees: per series the samples, values as bits.
pub(crate) type Content = BTreeMap<Labels, BTreeMap<i64, u64>>;

pub(crate) fn compiled(matchers: &[Matcher]) -> Vec<CompiledMatcher> {
    CompiledMatcher::compile_all(matchers).expect("valid")
}

pub(crate) fn content(db: &Db, tenant: &TenantId) -> Content {
    content_of(&*db.querier(tenant, TimeRange::ALL).expect("ready"))
}

/// Everything a view shows.
pub(crate) fn content_of(querier: &dyn Querier) -> Content {
    let request = SelectRequest {
        matchers: compiled(&[Matcher::new("__name__", chronolith_model::MatchOp::Regex, ".+")]),
        range: TimeRange::ALL,
        hints: SelectHints::default(),
    };
    let set = block_on(querier.select(&request)).expect("valid");
    let batch = block_on(set.fetch(0..set.len())).expect("fetched");
    let mut content = Content::new();
    for index in 0..set.len() {
        let mut samples = Samples::default();
        batch.read(index, &mut samples).expect("whole");
        assert!(samples.timestamps.is_sorted_by(|a, b| a < b), "one sample per timestamp, in order");
        if !samples.is_empty() {
            let bits = samples.values.iter().map(|value| value.to_bits());
            content.insert(set.labels(index), samples.timestamps.iter().copied().zip(bits).collect());
        }
    }
    content
}

pub(crate) fn count(content: &Content) -> usize {
    content.values().map(BTreeMap::len).sum()
}

/// Waits until `condition` holds, for at most ten seconds.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never happened: {what}");
}
