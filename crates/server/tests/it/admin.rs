//! `admin/tsdb/*` over a database.

use std::{path::Path, sync::Arc};

use chronolith_env::Fs as _;
use chronolith_index::CompiledMatcher;
use chronolith_model::{TenantId, TimeRange};
use chronolith_promql::EngineOptions;
use chronolith_server::{Backend, HttpLimits};
use chronolith_storage::{Admin, StorageError};
use chronolith_testkit::{fake_env::FakeEnv, fault_fs::FaultFs};
use chronolith_tsdb::{Db, DbOptions};

use crate::harness::{Answer, NOW, Server, one_series};

const DIR: &str = "/data";
const DELETE: &str = "/api/v1/admin/tsdb/delete_series";
const CLEAN: &str = "/api/v1/admin/tsdb/clean_tombstones";
const SNAPSHOT: &str = "/api/v1/admin/tsdb/snapshot";

/// A server over a database with three series of three samples, a minute apart, the last one now.
struct World {
    fs: FaultFs,
    fake: FakeEnv,
    server: Server,
}

impl World {
    async fn new() -> Self {
        let fs = FaultFs::new();
        fs.create_dir_all(Path::new("/")).expect("a disk has a root");
        let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
        fake.clock.set_now_ms(NOW);
        let (db, _) = Db::open(Path::new(DIR), DbOptions::default(), fake.env.clone()).expect("opens");
        let db = Arc::new(db);
        let server = Server::starting(HttpLimits::default(), EngineOptions::default());
        server.state.set_ready(Backend {
            appender: Arc::clone(&db) as _,
            queryable: Arc::clone(&db) as _,
            admin: Some(Arc::clone(&db) as _),
        });
        let world = Self { fs, fake, server };
        for (name, job) in [("up", "a"), ("up", "b"), ("down", "a")] {
            let samples: Vec<_> = (0..3).map(|i| (NOW - (2 - i) * 60_000, i as f64)).collect();
            let body = one_series(&[("__name__", name), ("job", job)], &samples);
            // Whoever waits for the log waits for its job.
            let answer = world.answer(world.server.write(body)).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (204, ""));
        }
        world
    }

    /// What `asking` comes to while the jobs of the database run.
    async fn answer(&self, asking: impl Future<Output = Answer>) -> Answer {
        let mut asking = std::pin::pin!(asking);
        loop {
            let turn = tokio::time::timeout(std::time::Duration::from_millis(1), asking.as_mut()).await;
            if let Ok(answer) = turn {
                return answer;
            }
            self.fake.scheduler.run_for(std::time::Duration::from_millis(1));
        }
    }

    async fn post(&self, target: &str, form: &str) -> Answer {
        self.answer(self.server.post(target, form)).await
    }

    /// How many samples each series has left, by job.
    async fn counts(&self) -> String {
        let form = format!("query={{__name__=~'up|down'}}[1h]&time={}", NOW / 1000);
        let answer = self.post("/api/v1/query", &form).await;
        let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let series = json["data"]["result"].as_array().expect("a matrix");
        let count = |series: &serde_json::Value| {
            let values = series["values"].as_array().expect("values");
            format!("{}={}", series["metric"]["job"].as_str().expect("a job"), values.len())
        };
        let mut counts: Vec<String> = series.iter().map(count).collect();
        counts.sort();
        counts.join(" ")
    }
}

#[track_caller]
fn check(answer: &Answer, status: u16, text: &str, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.text()), (status, text), "{what}");
}

fn bad(error: &str) -> String {
    let error = serde_json::Value::from(error);
    format!("{{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":{error}}}")
}

#[tokio::test]
async fn it_is_off_if_nobody_turns_it_on() {
    let server = Server::new();
    let text = r#"{"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#;
    for target in [DELETE, CLEAN, SNAPSHOT] {
        check(&server.post(target, "match[]=up").await, 500, text, target);
    }
}

#[tokio::test]
async fn series_are_deleted_by_selector_and_time() {
    let world = World::new().await;
    assert_eq!(world.counts().await, "a=3 a=3 b=3");
    let before = format!("match[]=up{{job=\"a\"}}&end={}", (NOW - 60_000) / 1000);
    check(&world.post(DELETE, &before).await, 204, "", "in a form");
    assert_eq!(world.counts().await, "a=1 a=3 b=3");
    let from = format!("{DELETE}?match[]=down&match[]=%7Bjob=%22b%22%7D&start={}", NOW / 1000);
    check(&world.post(&from, "").await, 204, "", "in the URL, two selectors");
    assert_eq!(world.counts().await, "a=1 a=2 b=2");
    check(&world.post(CLEAN, "").await, 204, "", "clean");
    assert_eq!(world.counts().await, "a=1 a=2 b=2");
    // A selector that everything matches is one.
    check(&world.post(DELETE, "match[]={job=~\".*\"}").await, 204, "", "all");
    assert_eq!(world.counts().await, "");
}

#[tokio::test]
async fn wrong_parameters_delete_nothing() {
    let world = World::new().await;
    for (form, error) in [
        ("", "no match[] parameter provided"),
        ("start=1", "no match[] parameter provided"),
        (
            "match[]=up&start=x",
            "invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp",
        ),
        (
            "match[]=up&end=yesterday",
            "invalid parameter \"end\": invalid time value for 'end': cannot parse \"yesterday\" to a valid timestamp",
        ),
        // The time is judged first.
        (
            "match[]=up{&start=x",
            "invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp",
        ),
        (
            "match[]=up&match[]=up{",
            "invalid parameter \"match[]\": 1:4: parse error: unexpected end of input inside braces",
        ),
        ("match[]=up&match[]={}", "invalid parameter \"match[]\": match[] must contain at least one matcher"),
        ("match[]=up&a=%zz", "error parsing form values: invalid URL escape \"%zz\""),
    ] {
        check(&world.post(DELETE, form).await, 400, &bad(error), form);
    }
    assert_eq!(world.counts().await, "a=3 a=3 b=3");
}

#[tokio::test]
async fn a_snapshot_is_named_and_can_be_opened() {
    let world = World::new().await;
    let answer = world.post(SNAPSHOT, "skip_head=0").await;
    assert_eq!(answer.status, 200);
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let name = json["data"]["name"].as_str().expect("a name");
    check(
        &answer,
        200,
        &format!("{{\"status\":\"success\",\"data\":{{\"name\":\"{name}\"}}}}"),
        "a snapshot",
    );
    let dir = Path::new(DIR).join("snapshots").join(name);
    assert!(world.fs.exists(&dir.join("blocks/anonymous")).expect("a disk"), "the head is in a block");
    let (copy, report) = Db::open(&dir, DbOptions::default(), world.fake.env.clone()).expect("opens");
    assert_eq!((report.damage_count, report.blocks.quarantined), (0, 0));
    assert_eq!(copy.stats().blocks.blocks, 1);
    let without = world.post(&format!("{SNAPSHOT}?skip_head=true"), "").await;
    assert_eq!(without.status, 200);
    let error = concat!(
        "invalid parameter \"skip_head\": unable to parse boolean: strconv.ParseBool: parsing \"yes\": ",
        "invalid syntax"
    );
    check(&world.post(SNAPSHOT, "skip_head=yes").await, 400, &bad(error), "no boolean");
}

/// A disk that is full.
struct Full;

impl Admin for Full {
    fn delete_series(
        &self,
        _: &TenantId,
        _: &[Vec<CompiledMatcher>],
        _: TimeRange,
    ) -> Result<(), StorageError> {
        Err(StorageError::Unavailable { reason: "No space left on device".to_owned() })
    }

    fn clean_tombstones(&self) -> Result<(), StorageError> {
        panic!("as a bug would")
    }

    fn snapshot(&self, _: bool) -> Result<String, StorageError> {
        Err(StorageError::Corrupt { reason: "block X".to_owned() })
    }
}

#[tokio::test]
async fn what_storage_cannot_do_is_told() {
    let server = Server::starting(HttpLimits::default(), EngineOptions::default());
    server.state.set_ready(Backend { admin: Some(Arc::new(Full)), ..server.backend() });
    let answer = server.post(DELETE, "match[]=up").await;
    let text = concat!(
        r#"{"status":"error","errorType":"unavailable","#,
        r#""error":"storage unavailable: No space left on device"}"#
    );
    check(&answer, 503, text, "later");
    assert_eq!(answer.header("retry-after"), "5");
    let text = r#"{"status":"error","errorType":"internal","error":"corrupt data: block X"}"#;
    check(&server.post(SNAPSHOT, "").await, 500, text, "damage");
    let text = r#"{"status":"error","errorType":"internal","error":"the request failed inside the server"}"#;
    for _ in 0..3 {
        check(&server.post(CLEAN, "").await, 500, text, "a panic keeps nobody's turn");
    }
}
