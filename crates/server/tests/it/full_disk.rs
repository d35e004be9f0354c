//! A disk that fills up while the head is cut, as clients see it: writes are taken, or refused in a way that says "later"; all
//! that was acknowledged is answered; and it goes on when there is room.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use chronolith_env::{Fs as _, Rng as _};
use chronolith_model::{Sample, TenantId, TimeRange, Timestamp};
use chronolith_promql::EngineOptions;
use chronolith_remote::remote_write::WriteRequestBuilder;
use chronolith_server::{Backend, HttpLimits};
use chronolith_storage::Queryable as _;
use chronolith_testkit::{fake_env::FakeEnv, fault_fs::FaultFs};
use chronolith_tsdb::{Db, DbOptions};

use crate::harness::{Answer, Server};

const DIR: &str = "/data";
const MINUTE: Timestamp = 60_000;
/// What the head writes a block of.
const WINDOW: Timestamp = 120 * MINUTE;
/// Ten minutes into a window.
const START: Timestamp = 236_110 * WINDOW + 10 * MINUTE;
const SERIES: usize = 20;

/// Time of a sample and what its value is as a text, by series.
type Content = BTreeMap<String, BTreeMap<Timestamp, String>>;

/// A server over a database whose disk, clock and jobs are fakes.
struct World {
    fs: FaultFs,
    fake: FakeEnv,
    options: DbOptions,
    db: Arc<Db>,
    server: Server,
    acknowledged: Content,
    /// Times of what was sent and not acknowledged: it may be there.
    unknown: BTreeSet<Timestamp>,
}

fn serve(fake: &FakeEnv, options: DbOptions) -> (Arc<Db>, Server) {
    let (db, report) = Db::open(Path::new(DIR), options, fake.env.clone()).expect("opens");
    assert_eq!((report.damage_count, report.blocks.quarantined), (0, 0), "{report:?}");
    let db = Arc::new(db);
    let server = Server::starting(HttpLimits::default(), EngineOptions::default());
    let (appender, queryable) = (Arc::clone(&db) as _, Arc::clone(&db) as _);
    server.state.set_ready(Backend { appender, queryable, admin: None });
    (db, server)
}

impl World {
    /// A cut is due when a sample more has come.
    async fn before_a_cut(disk_reserve: u64) -> Self {
        let fs = FaultFs::new();
        fs.create_dir_all(Path::new("/")).expect("a disk has a root");
        let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
        fake.clock.set_now_ms(START);
        let options = DbOptions {
            maintenance_interval: Duration::from_secs(5),
            disk_reserve,
            segment_bytes: 4 << 10,
            // The first write that the disk does not take waits for it.
            commit_timeout: Duration::from_secs(5),
            ..DbOptions::default()
        };
        let (db, server) = serve(&fake, options);
        let (acknowledged, unknown) = (Content::new(), BTreeSet::new());
        let mut world = Self { fs, fake, options, db, server, acknowledged, unknown };
        let due = START - 10 * MINUTE + WINDOW + WINDOW / 2;
        for _ in 0..8 {
            world.fake.scheduler.run_for(Duration::from_secs(20 * 60));
            assert_eq!(world.write_last(20).await.status, 204);
        }
        world.fake.scheduler.run_for(Duration::from_millis((due - 2 * MINUTE - world.now()) as u64));
        assert_eq!(world.db.stats().jobs.cuts, 0);
        world
    }

    fn now(&self) -> Timestamp {
        self.fake.env.clock.now_ms()
    }

    /// Writes a sample of each series, of now.
    async fn write(&mut self) -> Answer {
        self.write_last(1).await
    }

    /// Writes samples of each series, of the last `minutes`.
    async fn write_last(&mut self, minutes: Timestamp) -> Answer {
        let now = self.now();
        let mut request = WriteRequestBuilder::new();
        let mut sent = Vec::new();
        for id in 0..SERIES {
            let id = id.to_string();
            let times = (0..minutes).rev().map(|ago| now - ago * MINUTE);
            let sample = |t| Sample::new(t, (self.fake.rng.next_u64() >> 11) as f64 / 3.0);
            let samples: Vec<Sample> = times.map(sample).collect();
            request.series([("__name__", "m"), ("id", id.as_str())], &samples);
            sent.extend(samples.into_iter().map(|sample| (id.clone(), sample)));
        }
        // Whoever waits for the log waits for its job.
        let answer = {
            let mut sending = std::pin::pin!(self.server.write(request.snappy()));
            loop {
                let turn = tokio::time::timeout(Duration::from_millis(1), sending.as_mut()).await;
                if let Ok(answer) = turn {
                    break answer;
                }
                self.fake.scheduler.run_for(Duration::from_millis(5));
            }
        };
        if answer.status == 204 {
            for (id, sample) in sent {
                let of = self.acknowledged.entry(id).or_default();
                of.insert(sample.timestamp, sample.value.to_string());
            }
        } else {
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert!(!answer.header("retry-after").is_empty(), "when to come again");
            self.unknown.extend(sent.iter().map(|(_, sample)| sample.timestamp));
        }
        answer
    }

    /// What a query finds.
    async fn content(&self) -> Content {
        let answer =
            self.server.get(&format!("/api/v1/query?query=m[6h]&time={}", self.now() / 1000 + 1)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((answer.get("warnings"), answer.get("infos")), (None, None));
        let series = answer["data"]["result"].as_array().expect("series").iter().map(|series| {
            let point = |point: &serde_json::Value| {
                let seconds = point[0].as_f64().expect("a time");
                let value: f64 = point[1].as_str().and_then(|text| text.parse().ok()).expect("a value");
                ((seconds * 1000.0).round() as Timestamp, value.to_string())
            };
            let points = series["values"].as_array().expect("points").iter().map(point).collect();
            (series["metric"]["id"].as_str().expect("a label").to_owned(), points)
        });
        series.collect()
    }

    /// All that was acknowledged is there, and nothing that was not sent.
    async fn same(&self, what: &str) {
        let mut content = self.content().await;
        for (id, samples) in &mut content {
            let known = &self.acknowledged[id];
            samples.retain(|t, _| known.contains_key(t) || !self.unknown.contains(t));
        }
        assert!(content == self.acknowledged, "{what}: other samples than were acknowledged");
    }

    /// The same, and no file bears the name of a block before there is one.
    async fn check(&self, what: &str) {
        self.same(what).await;
        let dir = Path::new(DIR).join("blocks/anonymous");
        let names = self.fs.list(&dir).unwrap_or_default();
        let blocks = names.iter().filter(|name| name.ends_with(".block")).count() as u64;
        assert_eq!(blocks, self.db.stats().jobs.blocks_cut, "{what}: {names:?}");
        let querier = self.db.querier(&TenantId::default(), TimeRange::ALL).expect("ready");
        assert!(querier.warnings().is_empty(), "{what}: {:?}", querier.warnings());
    }

    /// Ends, and starts again.
    fn restarted(self) -> Self {
        let Self { fs, fake, options, db, server, acknowledged, unknown } = self;
        db.close().expect("closes");
        let blocks = db.stats().jobs.blocks_cut;
        drop((db, server));
        let (db, server) = serve(&fake, options);
        assert_eq!(db.stats().blocks.blocks, blocks);
        Self { fs, fake, options, db, server, acknowledged, unknown }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_delays_a_cut_and_loses_nothing() {
    // For nothing, and for the log but not for a block beside the head's own files.
    for room in [0, 30_000] {
        let (mut refused, mut taken) = (0, 0);
        let mut world = World::before_a_cut(0).await;
        world.fake.scheduler.run_for(Duration::from_secs(60));
        assert_eq!(world.write().await.status, 204);
        world.fs.fill_after(room);
        for minute in 0..8 {
            world.fake.scheduler.run_for(Duration::from_secs(60));
            let answer = world.write().await;
            if answer.status == 204 {
                taken += 1;
            } else {
                refused += 1;
                assert!(answer.text().contains("no space left"), "{}", answer.text());
            }
            world.check(&format!("{room} bytes, minute {minute}")).await;
        }
        let jobs = world.db.stats().jobs;
        assert!(jobs.cuts_failed > 0 && jobs.cuts == 0, "{room}: {jobs:?}");
        assert!(if room == 0 { taken == 0 } else { taken > 2 }, "{room}: {refused} {taken}");

        world.fs.heal();
        world.fake.scheduler.run_for(Duration::from_secs(300));
        assert_eq!(world.write().await.status, 204, "there is room");
        let jobs = world.db.stats().jobs;
        assert_eq!((jobs.cuts, jobs.blocks_cut), (1, 1), "{room}: {jobs:?}");
        world.check(&format!("{room} bytes, with room")).await;
        let world = world.restarted();
        world.same(&format!("{room} bytes, restarted")).await;
    }
}

/// What is kept free is for cuts: these go on.
#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_writes_are_refused_and_cuts_are_made() {
    let mut world = World::before_a_cut(1 << 20).await;
    // The sample for which the cut is due is the last one.
    world.fake.scheduler.run_for(Duration::from_secs(3 * 60));
    assert_eq!(world.write().await.status, 204);
    world.fs.fill_after(800 << 10);
    world.fake.scheduler.run_for(Duration::from_secs(300));
    let answer = world.write().await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("the disk is nearly full; free some space"), "{}", answer.text());
    let jobs = world.db.stats().jobs;
    assert_eq!((jobs.cuts, jobs.cuts_failed, jobs.disk_short), (1, 0, true), "{jobs:?}");
    world.check("nearly full").await;

    world.fs.heal();
    world.fake.scheduler.run_for(Duration::from_secs(10));
    assert_eq!(world.write().await.status, 204, "there is room");
    world.check("with room").await;
}
