//! For tests: a head over a log on a disk in memory, and blocks as maps.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use chronolith_env::{Clock, Env, Fs, ThreadScheduler};
use chronolith_model::{Labels, Sample, TenantId, TimeRange};
use chronolith_storage::{LabelSource, RejectReason, Samples, SeriesEntry, WriteBatch};
use chronolith_testkit::{
    fake_env::{SimRng, WallClock},
    fault_fs::FaultFs,
};
use chronolith_wal::{LogSource, Wal, WalOptions};

use crate::{
    Applied, Cut, CutPoint, Error, Head, HeadOptions, HeadReplay, HeadView, ReplayOutcome, SHARDS, WINDOW_MS,
};

/// Now, at the start: the end of a window.
pub(crate) const NOW: i64 = 236_112 * WINDOW_MS;

/// A head and its log.
pub(crate) struct Fixture {
    pub(crate) head: Arc<Head>,
    pub(crate) wal: Wal,
    pub(crate) clock: Arc<WallClock>,
    pub(crate) replayed: ReplayOutcome,
    options: HeadOptions,
    pub(crate) env: Env,
}

impl Fixture {
    pub(crate) fn new(options: HeadOptions) -> Self {
        let fs = FaultFs::new();
        fs.create_dir_all(Path::new("/")).unwrap();
        let clock = Arc::new(WallClock::new(NOW));
        let env = Env {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            rng: Arc::new(SimRng::new(1)),
            fs: Arc::new(fs),
            scheduler: Arc::new(ThreadScheduler),
        };
        Self::open(options, env, clock, None)
    }

    fn open(options: HeadOptions, env: Env, clock: Arc<WallClock>, cut: Option<i64>) -> Self {
        let head = Arc::new(Head::new(options, env.clone()));
        if let Some(cut) = cut {
            head.restore_cut(cut);
        }
        let wal_options = WalOptions { shards: SHARDS, ..WalOptions::default() };
        let mut opened = Wal::open(&env, Path::new("/wal"), wal_options).unwrap();
        let replay = HeadReplay::new(&head);
        opened.replay(2, &replay).unwrap();
        let replayed = replay.finish();
        let wal = opened.start(Arc::clone(&head) as Arc<dyn LogSource>).unwrap();
        head.attach_log(wal.waiter());
        Self { head, wal, clock, replayed, options, env }
    }

    /// Closes the log, and brings its content back into a new head that knows of the cut `cut`.
    pub(crate) fn restart(self, cut: Option<i64>) -> Self {
        self.head.close();
        self.wal.close().unwrap();
        Self::open(self.options, self.env, self.clock, cut)
    }

    pub(crate) fn append(&self, tenant: &TenantId, given: &[(Labels, Vec<Sample>)]) -> Applied {
        self.try_append(tenant, given).unwrap()
    }

    pub(crate) fn try_append(
        &self,
        tenant: &TenantId,
        given: &[(Labels, Vec<Sample>)],
    ) -> Result<Applied, Error> {
        let hasher = self.head.key_hasher();
        let (mut samples, mut series) = (Vec::new(), Vec::new());
        for (labels, of_series) in given {
            let start = u32::try_from(samples.len()).unwrap();
            samples.extend_from_slice(of_series);
            let end = u32::try_from(samples.len()).unwrap();
            series.push(SeriesEntry::of_samples(hasher.key(labels.to_string().as_bytes()), start..end));
        }
        self.head.append(tenant, &WriteBatch::of_samples(&series, &samples, &Given(given)))
    }
}

struct Given<'a>(&'a [(Labels, Vec<Sample>)]);

impl LabelSource for Given<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        Ok(self.0[series].0.clone())
    }
}

/// Samples by timestamp, as bits.
pub(crate) type Points = BTreeMap<i64, u64>;
/// Of each series of each tenant.
pub(crate) type Content = BTreeMap<(TenantId, Labels), Points>;

/// What readers see together.
#[derive(Debug, Default)]
pub(crate) struct Version {
    /// In the order of their making: the first that has a timestamp has the say.
    pub(crate) blocks: Vec<Arc<Content>>,
    pub(crate) head_from: CutPoint,
}

impl Version {
    /// With the block of `cut`, and views that begin from it.
    pub(crate) fn with(&self, block: Content, cut: &Cut) -> Self {
        let mut blocks = self.blocks.clone();
        blocks.push(Arc::new(block));
        Self { blocks, head_from: cut.point() }
    }
}

/// The columns as points; they ascend, each timestamp once.
pub(crate) fn points(samples: &Samples) -> Points {
    assert!(samples.timestamps.windows(2).all(|pair| pair[0] < pair[1]), "ascending: {samples:?}");
    samples.timestamps.iter().copied().zip(samples.values.iter().map(|v| v.to_bits())).collect()
}

/// What the views of a tenant's blocks and head are together.
pub(crate) fn seen(version: &Version, view: &HeadView, tenant: &TenantId) -> Content {
    let mut content = Content::new();
    for block in &version.blocks {
        for ((_, labels), points) in block.iter().filter(|((of, _), _)| of == tenant) {
            let all = content.entry((tenant.clone(), labels.clone())).or_default();
            points.iter().for_each(|(t, bits)| {
                all.entry(*t).or_insert(*bits);
            });
        }
    }
    let selection = view.select(&[]);
    let fetched = view.fetch(&selection.series, TimeRange::ALL);
    for (at, labels) in selection.labels.iter().enumerate() {
        let mut samples = Samples::default();
        fetched.read(at, &mut samples).unwrap();
        let of_head = points(&samples);
        let all = content.entry((tenant.clone(), labels.clone())).or_default();
        for (t, bits) in of_head {
            all.entry(t).or_insert(bits);
        }
    }
    content.retain(|_, points| !points.is_empty());
    content
}

/// Everything in a cut, window by window, as its block.
pub(crate) fn block_of(head: &Head, cut: &Cut) -> Content {
    let mut block = Content::new();
    for (tenant, windows) in head.cut_windows(cut) {
        assert!(windows.is_sorted_by_key(|window| window.min), "oldest first");
        for window in windows {
            let mut before = None;
            for entry in head.cut_series(cut, &tenant, window).flatten() {
                let order = (entry.labels.metric_name().unwrap_or_default().to_owned(), entry.labels.clone());
                assert!(before < Some(order.clone()), "in the order of blocks");
                before = Some(order);
                let mut samples = Samples::default();
                head.read_cut(cut, entry.reference, window, &mut samples).unwrap();
                let new = points(&samples);
                assert!(new.keys().all(|t| window.contains(*t) && *t <= cut.boundary()), "in its window");
                let all = block.entry((tenant.clone(), entry.labels)).or_default();
                all.extend(new);
            }
        }
    }
    block.retain(|_, points| !points.is_empty());
    block
}
